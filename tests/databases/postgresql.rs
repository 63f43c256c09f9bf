//! PostgreSQL: a copy in backup mode with its WAL, a base backup, and a server that is stopped.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tests::client::Done;
use tests::gear;
use tests::loop_image::FileSystem;
use tests::world::restored;

use crate::ledger::{Rows, Writer};
use crate::process::{Daemon, Endings, Session, as_user, give_to, output};
use crate::scene::{Database, Ground, Method, Push, Scene, as_restored};

/// It refuses to run as root.
pub(crate) const USER: &str = "postgres";

struct Postgresql {
    daemon: Daemon,
    sockets: PathBuf,
}

/// Where Debian puts what is not for every user; elsewhere it is found as any program.
pub(crate) fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = versions.map(|version| version.path().join("bin"));
    folders.filter(|folder| folder.join("postgres").exists()).max()
}

pub(crate) fn has_postgresql() -> bool {
    programs().is_some() || ["postgres", "pg_amcheck"].into_iter().all(gear::has)
}

fn program(name: &str) -> Command {
    let path = programs().map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
    let mut command = as_user(USER, &path);
    command.env("PGOPTIONS", "-c client_min_messages=warning").env("PGUSER", USER).current_dir("/");
    command
}

fn psql(sockets: &Path) -> Command {
    let mut command = program("psql");
    command.args(["-XAt", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-h"]).arg(sockets);
    command
}

impl Postgresql {
    fn query(&self, sql: &str) -> Result<String, String> {
        query(&self.sockets, sql)
    }
}

fn query(sockets: &Path, sql: &str) -> Result<String, String> {
    let mut command = psql(sockets);
    command.args(["-c", sql]);
    Ok(output(command)?.trim_end().to_owned())
}

/// A folder that belongs to the server's user.
fn folder(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).expect("a temporary folder can be written");
    give_to(USER, &path);
    path
}

/// Where the server over `data` puts segments of its WAL that are full.
fn archive(data: &Path) -> PathBuf {
    data.with_extension("archive")
}

impl Database for Postgresql {
    const NAME: &'static str = "PostgreSQL";

    fn start(data: &Path) -> Result<Self, String> {
        let is_new = fs::read_dir(data).is_ok_and(|mut entries| entries.next().is_none());
        if is_new {
            give_to(USER, data);
            let mut init = program("initdb");
            // Small segments: the archive is used often.
            init.args(["-A", "trust", "--no-sync", "--wal-segsize=1", "-U", USER, "-D"]).arg(data);
            output(init)?;
        }
        let sockets = folder(data.with_extension("sockets"));
        let archive = folder(archive(data)).display().to_string();
        let mut server = program("postgres");
        server.arg("-D").arg(data).arg("-k").arg(&sockets);
        let archive = format!("archive_command=cp %p {archive}/.next && mv {archive}/.next {archive}/%f");
        // These tests do not cut the power: a copy is the same without syncs, and there is more load.
        let settings =
            ["listen_addresses=", "fsync=off", "min_wal_size=5MB", "max_wal_size=16MB", "archive_mode=on"];
        for setting in settings.into_iter().chain([archive.as_str()]) {
            server.args(["-c", setting]);
        }
        let endings = Endings { in_order: Signal::INT, at_once: Signal::QUIT };
        // One that recovers takes queries before it is at the end of its WAL.
        let answers = || query(&sockets, "SELECT pg_is_in_recovery()").is_ok_and(|said| said == "f");
        let daemon = Daemon::start(server, &data.with_extension("log"), endings, answers)?;
        let server = Self { daemon, sockets };
        if is_new {
            // Room in each page: an older row is changed in place, in the middle of the file.
            let table =
                "CREATE TABLE rows (key bigint PRIMARY KEY, value text NOT NULL) WITH (fillfactor = 60)";
            server.query(table)?;
            server.query("CREATE EXTENSION amcheck")?;
        }
        Ok(server)
    }

    fn writer(&self) -> Result<Writer, String> {
        let mut session = Session::start(psql(&self.sockets))?;
        Ok(Box::new(move |commit| {
            let [(a, new), (b, changed)] = commit.puts();
            let sql = format!(
                "INSERT INTO rows VALUES ({a}, '{new}'), ({b}, '{changed}') \
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value;"
            );
            session.ask(&sql, &[], "INSERT 0 2")
        }))
    }

    fn rows(&self) -> Result<Rows, String> {
        let mut check = program("pg_amcheck");
        check.args(["--all", "--heapallindexed", "-h"]).arg(&self.sockets);
        output(check)?;
        let all = self.query("SELECT key, value FROM rows")?;
        let row = |line: &str| {
            let (key, value) = line.split_once('|')?;
            Some((key.parse().ok()?, value.to_owned()))
        };
        all.lines().map(|line| row(line).ok_or_else(|| format!("no row: {line}"))).collect()
    }

    fn stop(self) {
        self.daemon.stop();
    }
}

/// The node that pushes the archive and the label.
fn archive_node(push: &Push<'_, Postgresql>) -> tests::client::Client {
    push.scene.world.node("wal")
}

/// Between start and stop of the backup mode the data folder is pushed, and then what recovery needs.
fn in_backup_mode(push: &Push<'_, Postgresql>, more: &[&str]) -> Done {
    let mut session = Session::start(psql(&push.database().sockets)).expect("a session");
    session.ask("SELECT 'begun' FROM pg_backup_start('astacus', true);", &[], "begun").expect("backup mode");
    let pg_wal = format!("{}/pg_wal/**", push.data.display());
    let done = push.run(&[&["--class-set", "postgresql", "--exclude", &pg_wal], more].concat());
    push.promise_until_now();
    let stop = "SELECT translate(labelfile, E'\\n', '|') FROM pg_backup_stop();";
    let label = session.send(stop).and_then(|()| session.line()).expect("the end of backup mode");
    let labels = push.scene.dir("labels");
    fs::write(labels.join("backup_label"), label.replace('|', "\n"))
        .expect("a temporary folder can be written");
    let archive = archive(push.data);
    let excludes = &["--exclude", ".next"];
    archive_node(push).start_push_of(&[&archive, &labels], excludes).wait().exits(0);
    clean_up(&archive);
    done
}

/// Deletes the WAL from before the newest backup.
fn clean_up(archive: &Path) {
    let names =
        files_below(archive).into_iter().filter(|path| path.extension().is_some_and(|end| end == "backup"));
    let newest = names.max().expect("each backup leaves a file");
    let mut command = program("pg_archivecleanup");
    command.arg(archive).arg(newest.file_name().expect("it has a name"));
    output(command).expect("an archive");
}

/// Follows the manual: the label, the archive, and the request to recover.
fn recover(push: &Push<'_, Postgresql>, data: &Path) -> Result<PathBuf, String> {
    let to = data.with_file_name("wal");
    archive_node(push).restore("latest", &to, &[]).exits(0);
    let label = restored(&to, &push.scene.dir("labels")).join("backup_label");
    fs::copy(label, data.join("backup_label")).map_err(|error| error.to_string())?;
    fs::write(data.join("recovery.signal"), "").map_err(|error| error.to_string())?;
    let archive = restored(&to, &archive(push.data));
    let settings = data.join("postgresql.auto.conf");
    let mut text = fs::read_to_string(&settings).map_err(|error| error.to_string())?;
    writeln!(text, "restore_command = 'cp {}/%f %p'", archive.display()).expect("text has room");
    fs::write(settings, text).map_err(|error| error.to_string())?;
    give_to(USER, data);
    Ok(data.to_owned())
}

/// `pg_basebackup` into a folder, and a push of that.
fn base_backup(push: &Push<'_, Postgresql>) -> Done {
    let copy = push.scene.dir("base").join("copy");
    let _ = fs::remove_dir_all(&copy);
    give_to(USER, &push.scene.dir("base"));
    let mut command = program("pg_basebackup");
    command.args(["-X", "stream", "-c", "fast", "--no-sync", "-D"]).arg(&copy);
    command.arg("-h").arg(&push.database().sockets);
    output(command).expect("a base backup");
    push.node.start_push_of(&[&copy], &[]).wait()
}

fn verified(_: &Push<'_, Postgresql>, data: &Path) -> Result<PathBuf, String> {
    let mut command = program("pg_verifybackup");
    command.arg(data);
    output(command)?;
    Ok(data.to_owned())
}

/// Commits after which the table has many chunks. In a nightly run a few changes leave nearly all of them alone.
fn commits_for_chunks() -> u64 {
    if gear::is_set(gear::NIGHTLY) { 40_000 } else { 2000 }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .collect()
}

fn scene(ground: Ground) -> Option<Scene> {
    has_postgresql().then(|| Scene::on(ground)).flatten()
}

#[test]
fn a_copy_in_backup_mode_recovers_with_second_names() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let push = |push: &Push<'_, Postgresql>| in_backup_mode(push, &["--freeze", "hardlink"]);
    let method = Method { name: "backup mode and WAL, second names", push, ready: recover };
    scene.under_load(&method, gear::rounds(2, 40)).is_always_right();
}

#[test]
fn a_copy_in_backup_mode_recovers_with_shared_blocks() {
    let Some(scene) = scene(Ground::Image(FileSystem::Xfs)) else { return };
    let push = |push: &Push<'_, Postgresql>| in_backup_mode(push, &["--freeze", "reflink"]);
    let method = Method { name: "backup mode and WAL, reflink", push, ready: recover };
    scene.under_load(&method, gear::rounds(1, 40)).is_always_right();
}

#[test]
fn a_base_backup_comes_back_as_it_was_made() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let method = Method { name: "pg_basebackup, and its folder", push: base_backup, ready: verified };
    scene.under_load(&method, gear::rounds(1, 40)).is_always_right();
}

#[test]
fn a_stopped_server_comes_back_at_every_push() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let push = |push: &Push<'_, Postgresql>| push.run(&["--class-set", "postgresql"]);
    let method = Method { name: "stopped", push, ready: as_restored };
    scene.stopped(&method, commits_for_chunks(), gear::rounds(3, 40)).is_always_right();
}

/// The default class too: a table that is changed in its middle and grows is no log.
#[test]
fn a_stopped_server_comes_back_without_a_class() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let method = Method {
        name: "stopped, no class",
        push: |push: &Push<'_, Postgresql>| push.run(&[]),
        ready: as_restored,
    };
    scene.stopped(&method, commits_for_chunks(), gear::rounds(3, 40)).is_always_right();
}

/// No check can tell if a running server's folder, copied outside backup mode, is consistent: so the push
/// warns.
#[test]
fn a_live_folder_without_a_class_set_is_warned_of() {
    let Some(scene) = scene(Ground::Temporary) else { return };
    let data = scene.dir("data");
    let server = Postgresql::start(&data).unwrap();
    let node = scene.world.node("db");
    let warnings = || {
        let report = node.start_push_of(&[&data], &["--freeze", "hardlink"]).wait().json();
        report["warnings"].as_array().unwrap().iter().map(|text| text.to_string()).collect::<Vec<_>>()
    };

    let running = warnings();
    server.stop();
    let stopped = warnings();

    assert!(running.iter().any(|text| text.contains("docs/databases/postgresql.md")), "{running:?}");
    assert!(stopped.is_empty(), "{stopped:?}");
}

/// The judge bites: a page of the table that is empty is no damage to any tool of the server.
#[test]
fn a_table_that_lost_a_page_is_judged_wrong() {
    let Some(scene) = scene(Ground::Temporary) else { return };
    let lose = |_: &Push<'_, Postgresql>, data: &Path| {
        let tables = files_below(&data.join("base"));
        let rows = tables.iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
        let table = fs::File::options().write(true).open(rows).unwrap();
        table.write_all_at(&[0; 8192], 20 * 8192).unwrap();
        Ok(data.to_owned())
    };

    let push = |push: &Push<'_, Postgresql>| push.run(&[]);
    let tally = scene.stopped(&Method { name: "lost page", push, ready: lose }, commits_for_chunks(), 1);

    assert!(tally.wrong()[0].contains("rows differ"), "{tally:?}");
}
