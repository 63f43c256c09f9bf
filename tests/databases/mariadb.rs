//! MariaDB: the folder of `mariadb-backup`, a server at rest under a lock, and one that is stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::client::Done;
use tests::gear;
use tests::loop_image::FileSystem;
use tests::wait;

use crate::ledger::{Rows, Writer, judge};
use crate::process::{Daemon, Endings, Session, as_user, give_to, output};
use crate::scene::{Database, Ground, Method, Push, Scene, as_restored};

/// It refuses to run as root.
pub(crate) const USER: &str = "mysql";

/// One table with a log, and one without.
const TABLES: &str = "CREATE DATABASE suite; USE suite; \
     CREATE TABLE safe (k BIGINT PRIMARY KEY, v VARCHAR(2000) NOT NULL) ENGINE = InnoDB; \
     CREATE TABLE plain (k BIGINT PRIMARY KEY, v VARCHAR(2000) NOT NULL) ENGINE = MyISAM";

struct Mariadb {
    daemon: Daemon,
    socket: PathBuf,
}

pub(crate) fn has_mariadb() -> bool {
    ["mariadbd", "mariadb", "mariadb-install-db", "mariadb-backup"].into_iter().all(gear::has)
}

fn program(name: &str) -> Command {
    let mut command = as_user(USER, Path::new(name));
    command.arg("--no-defaults").current_dir("/");
    command
}

/// A client that answers each line at once, with nothing but values.
fn client(socket: &Path) -> Command {
    let mut command = program("mariadb");
    command.args(["--batch", "--skip-column-names", "--raw", "--unbuffered", "--user", "root", "--socket"]);
    command.arg(socket);
    command
}

fn query(socket: &Path, sql: &str) -> Result<String, String> {
    let mut command = client(socket);
    command.args(["--execute", sql]);
    output(command)
}

impl Mariadb {
    fn query(&self, sql: &str) -> Result<String, String> {
        query(&self.socket, sql)
    }

    fn table(&self, name: &str) -> Result<Rows, String> {
        let row = |line: &str| {
            let (key, value) = line.split_once('\t')?;
            Some((key.parse().ok()?, value.to_owned()))
        };
        let all = self.query(&format!("SELECT k, v FROM suite.{name}"))?;
        all.lines().map(|line| row(line).ok_or_else(|| format!("no row: {line}"))).collect()
    }
}

impl Database for Mariadb {
    const NAME: &'static str = "MariaDB";

    fn start(data: &Path) -> Result<Self, String> {
        let is_new = fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_none());
        let run = data.with_extension("run");
        fs::create_dir_all(&run).map_err(|error| error.to_string())?;
        for folder in [data, &run] {
            give_to(USER, folder);
        }
        if is_new {
            let mut install = program("mariadb-install-db");
            install.arg("--auth-root-authentication-method=normal").arg("--skip-test-db");
            install.arg(format!("--datadir={}", data.display())).env("TMPDIR", &run);
            output(install)?;
        }
        let socket = run.join("sock");
        let mut server = program("mariadbd");
        // A server that starts removes what it takes for its own temporary tables, and those of others with them.
        server.env("TMPDIR", &run);
        server.arg(format!("--datadir={}", data.display())).arg(format!("--socket={}", socket.display()));
        server.arg(format!("--pid-file={}", run.join("pid").display()));
        server.args(["--skip-networking", "--innodb-log-file-size=4M", "--innodb-buffer-pool-size=8M"]);
        // Pages are written and checkpoints made all the time. A MyISAM table that is damaged stays so.
        server.args(["--innodb-max-dirty-pages-pct=0.1", "--innodb-max-dirty-pages-pct-lwm=0.01"]);
        server.args(["--innodb-io-capacity=2000", "--myisam-recover-options=OFF"]);
        let answers = || query(&socket, "SELECT 1").is_ok();
        let daemon = Daemon::start(server, &data.with_extension("log"), Endings::default(), answers)?;
        let server = Self { daemon, socket };
        if is_new {
            server.query(TABLES)?;
        }
        Ok(server)
    }

    fn writer(&self) -> Result<Writer, String> {
        let mut session = Session::start(client(&self.socket))?;
        // A writer that was stopped between the two tables has put its last commit into the first alone.
        session.ask("REPLACE INTO suite.plain SELECT * FROM suite.safe; SELECT 'even';", &[], "even")?;
        Ok(Box::new(move |commit| {
            let [(a, new), (b, changed)] = commit.puts();
            let put = |table| format!("REPLACE INTO suite.{table} VALUES ({a}, '{new}'), ({b}, '{changed}')");
            let sql = format!("{}; {}; SELECT 'ok';", put("safe"), put("plain"));
            session.ask(&sql, &[], "ok")
        }))
    }

    fn rows(&self) -> Result<Rows, String> {
        let checked = self.query("CHECK TABLE suite.safe, suite.plain EXTENDED")?;
        let is_fine = |line: &&str| line.ends_with("\tstatus\tOK");
        // mariadb-backup copies MyISAM tables while they are open: the mark of that is all there is to say of them.
        let is_mark = |line: &str| line.ends_with("hasn't closed the table properly");
        let others = checked.lines().filter(|line| !is_fine(line));
        if checked.lines().filter(is_fine).count() != 2 || !others.into_iter().all(is_mark) {
            return Err(checked);
        }
        let safe = self.table("safe")?;
        // A commit puts the same into both, one after the other.
        let newest = safe.keys().next_back().copied().unwrap_or(0);
        judge(&self.table("plain")?, &(newest.saturating_sub(1)..=newest))
            .map_err(|why| format!("the MyISAM table: {why}"))?;
        Ok(safe)
    }

    fn stop(self) {
        self.daemon.stop();
    }
}

/// `mariadb-backup` into a folder, made ready, and a push of that.
fn backup(push: &Push<'_, Mariadb>) -> Done {
    let parent = push.scene.dir("backup");
    let copy = parent.join("copy");
    // There is none before the first.
    let _ = fs::remove_dir_all(&copy);
    give_to(USER, &parent);
    for step in ["--backup", "--prepare"] {
        let mut command = program("mariadb-backup");
        command.arg(step).arg(format!("--target-dir={}", copy.display())).args(["--user", "root"]);
        command.arg(format!("--datadir={}", push.data.display()));
        command.arg(format!("--socket={}", push.database().socket.display()));
        output(command).expect("mariadb-backup");
    }
    push.node.start_push_of(&[&copy], &["--class-set", "mysql"]).wait()
}

fn scene(ground: Ground) -> Option<Scene> {
    has_mariadb().then(|| Scene::on(ground)).flatten()
}

#[test]
fn the_folder_of_mariadb_backup_comes_back_at_every_push() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let method = Method { name: "mariadb-backup, and its folder", push: backup, ready: as_restored };
    scene.under_load(&method, gear::rounds(2, 40)).is_always_right();
}

/// MyISAM files are written in place, and grow.
#[test]
fn a_stopped_server_comes_back_at_every_push() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let push = |push: &Push<'_, Mariadb>| push.run(&["--class-set", "mysql"]);
    let method = Method { name: "stopped", push, ready: as_restored };
    scene.stopped(&method, 500, gear::rounds(3, 40)).is_always_right();
}

/// Where the log ends and where its checkpoint is, if no page waits to be written; else nothing.
const AT_REST: &str = "SELECT GROUP_CONCAT(variable_value ORDER BY variable_name) \
     FROM information_schema.global_status \
     WHERE variable_name IN ('INNODB_LSN_CURRENT', 'INNODB_LSN_LAST_CHECKPOINT') AND 0 = \
     (SELECT variable_value FROM information_schema.global_status \
     WHERE variable_name = 'INNODB_BUFFER_POOL_PAGES_DIRTY') HAVING COUNT(*) = 2";

/// A push of the live data folder, whose server stands still under a lock: it has written all pages before, and
/// nothing since.
fn at_rest(push: &Push<'_, Mariadb>, more: &[&str]) -> Done {
    let server = push.database();
    let mut session = Session::start(client(&server.socket)).expect("a session");
    let lock = "SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0; SET GLOBAL innodb_max_dirty_pages_pct = 0; \
         FLUSH TABLES WITH READ LOCK; SELECT 'locked';";
    session.ask(lock, &[], "locked").expect("a lock");
    push.promise_until_now();
    loop {
        let rest = || server.query(AT_REST).expect("the server's state");
        let before =
            wait::for_state("the server to stand still", || Some(rest()).filter(|state| !state.is_empty()));
        let done = push.run(&[&["--class-set", "mysql"], more].concat());
        let after = rest();
        if before == after {
            session.ask("UNLOCK TABLES; SELECT 'unlocked';", &[], "unlocked").expect("the end of the lock");
            return done;
        }
    }
}

#[test]
fn a_server_at_rest_comes_back_with_second_names() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let push = |push: &Push<'_, Mariadb>| at_rest(push, &["--freeze", "hardlink"]);
    let method = Method { name: "at rest under a lock, second names", push, ready: as_restored };
    scene.under_load(&method, gear::rounds(2, 40)).is_always_right();
}

#[test]
fn a_server_at_rest_comes_back_with_shared_blocks() {
    let Some(scene) = scene(Ground::Image(FileSystem::Xfs)) else { return };
    let push = |push: &Push<'_, Mariadb>| at_rest(push, &["--freeze", "reflink"]);
    let method = Method { name: "at rest under a lock, reflink", push, ready: as_restored };
    scene.under_load(&method, gear::rounds(2, 40)).is_always_right();
}

/// A server that writes has no moment to push. With second names and `--strict` a push never claims that it had.
#[test]
fn a_strict_push_of_a_server_that_writes_is_right_or_partial() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let push =
        |push: &Push<'_, Mariadb>| push.run(&["--class-set", "mysql", "--strict", "--freeze", "hardlink"]);
    let method = Method { name: "no lock, second names, --strict", push, ready: as_restored };
    scene.under_load(&method, gear::rounds(3, 40)).is_never_wrong();
}

/// The judge bites: a table that lost its last rows.
#[test]
fn a_myisam_table_without_its_end_is_judged_wrong() {
    let Some(scene) = scene(Ground::Temporary) else { return };
    let cut = |_: &Push<'_, Mariadb>, restored: &Path| {
        let file = fs::File::options().write(true).open(restored.join("suite/plain.MYD")).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        Ok(restored.to_owned())
    };

    let tally = scene.under_load(&Method { name: "cut", push: backup, ready: cut }, 1);

    assert!(tally.wrong()[0].contains("Corrupt"), "{tally:?}");
}
