//! SQLite: copies by its own tools, a live file under its own lock, and a live file without.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use tests::client::Done;
use tests::gear;
use tests::loop_image::FileSystem;

use crate::ledger::{Rows, Writer};
use crate::process::{Session, output};
use crate::scene::{Database, Ground, Method, Push, Scene, as_restored};

/// How SQLite makes a commit one step.
trait Journal {
    const NAME: &'static str;
    const MODE: &'static str;
}

/// A log that is written ahead.
struct Wal;

/// A journal to roll back, which is SQLite's default.
struct Rollback;

impl Journal for Wal {
    const NAME: &'static str = "SQLite, WAL";
    const MODE: &'static str = "wal";
}

impl Journal for Rollback {
    const NAME: &'static str = "SQLite";
    const MODE: &'static str = "delete";
}

const LINKS: &[&str] = &["--freeze", "hardlink"];
const REFLINKS: &[&str] = &["--freeze", "reflink"];

/// A program that has a SQLite file open.
struct Sqlite<J> {
    file: PathBuf,
    session: Mutex<Session>,
    journal: std::marker::PhantomData<J>,
}

fn has_sqlite() -> bool {
    ["python3", "sqlite3"].into_iter().all(gear::has)
}

fn session<J: Journal>(file: &Path) -> Result<Session, String> {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("databases/sqlite/app.py")).arg(file).arg(J::MODE);
    let mut session = Session::start(command)?;
    match session.line()? {
        line if line == "ready" => Ok(session),
        line => Err(line),
    }
}

impl<J: Journal> Database for Sqlite<J> {
    const NAME: &'static str = J::NAME;

    fn start(data: &Path) -> Result<Self, String> {
        let file = data.join("app.db");
        let session = Mutex::new(session::<J>(&file)?);
        Ok(Self { file, session, journal: std::marker::PhantomData })
    }

    fn writer(&self) -> Result<Writer, String> {
        let mut session = session::<J>(&self.file)?;
        Ok(Box::new(move |commit| {
            let [(a, new), (b, changed)] = commit.puts();
            session.ask(&format!("put {a}={new} {b}={changed}"), &[], "ok")
        }))
    }

    fn rows(&self) -> Result<Rows, String> {
        let mut session = self.session.lock().map_err(|error| error.to_string())?;
        session.ask("check", &[], "ok")?;
        session.send("dump")?;
        let mut rows = Rows::new();
        loop {
            match session.line()?.split_once('=') {
                Some((key, value)) => {
                    drop(rows.insert(key.parse().map_err(|_| key.to_owned())?, value.to_owned()))
                }
                None => return Ok(rows),
            }
        }
    }

    fn stop(self) {}
}

/// A copy by SQLite itself, and a push of that.
fn copied<J: Journal>(push: &Push<'_, Sqlite<J>>, statements: &[&str]) -> Done {
    let copy = push.scene.dir("copy").join("app.db");
    // There is none before the first.
    let _ = fs::remove_file(&copy);
    let mut command = Command::new("sqlite3");
    command.arg("-bail").arg(&push.database().file).arg(".timeout 60000");
    command.args(statements.iter().map(|statement| statement.replace("COPY", &copy.display().to_string())));
    output(command).expect("a copy");
    push.node.start_push_of(&[&push.scene.dir("copy")], &[]).wait()
}

/// A push of the live file while SQLite's own lock keeps every writer away.
fn locked<J: Journal>(push: &Push<'_, Sqlite<J>>, more: &[&str]) -> Done {
    let mut session = push.database().session.lock().expect("a session");
    session.ask("lock", &[], "ok").expect("a lock");
    push.promise_until_now();
    let done = push.run(&[&["--class-set", "sqlite"], more].concat());
    session.ask("unlock", &[], "ok").expect("the end of the lock");
    done
}

fn scene(ground: Ground) -> Option<Scene> {
    has_sqlite().then(|| Scene::on(ground)).flatten()
}

fn come_back<J: Journal>(
    ground: Ground,
    name: &'static str,
    pushes: usize,
    push: fn(&Push<'_, Sqlite<J>>) -> Done,
) {
    let Some(scene) = scene(ground) else { return };
    scene.under_load(&Method { name, push, ready: as_restored }, gear::rounds(pushes, 40)).is_always_right();
}

fn copies_come_back<J: Journal>() {
    let ground = Ground::with_links();
    come_back::<J>(ground, "VACUUM INTO, and its file", 2, |push| copied(push, &["VACUUM INTO 'COPY'"]));
    // Within a transaction it is one moment; else it begins again whenever another program commits.
    come_back::<J>(ground, ".backup, and its file", 2, |push| {
        copied(push, &["BEGIN", "SELECT 1 FROM sqlite_master LIMIT 1", ".backup 'COPY'"])
    });
}

#[test]
fn copies_by_sqlite_come_back_with_a_write_ahead_log() {
    copies_come_back::<Wal>();
}

#[test]
fn copies_by_sqlite_come_back_with_a_rollback_journal() {
    copies_come_back::<Rollback>();
}

#[test]
fn a_live_file_under_a_lock_comes_back_with_second_names() {
    let ground = Ground::with_links();
    come_back::<Wal>(ground, "under its lock, second names", 3, |push| locked(push, LINKS));
    come_back::<Rollback>(ground, "under its lock, second names", 3, |push| locked(push, LINKS));
}

#[test]
fn a_live_file_under_a_lock_comes_back_with_shared_blocks() {
    let ground = Ground::Image(FileSystem::Xfs);
    come_back::<Wal>(ground, "under its lock, reflink", 3, |push| locked(push, REFLINKS));
    come_back::<Rollback>(ground, "under its lock, reflink", 3, |push| locked(push, REFLINKS));
}

/// Without a lock there is no moment to push. With second names and `--strict` a push never claims that there was.
fn is_never_claimed<J: Journal>() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let push =
        |push: &Push<'_, Sqlite<J>>| push.run(&["--class-set", "sqlite", "--strict", "--freeze", "hardlink"]);
    let method = Method { name: "no lock, second names, --strict", push, ready: as_restored };
    scene.under_load(&method, gear::rounds(4, 40)).is_never_wrong();
}

#[test]
fn a_strict_push_without_a_lock_is_right_or_partial() {
    is_never_claimed::<Wal>();
    is_never_claimed::<Rollback>();
}

/// The judge bites: a database that lost its last pages opens without a word.
#[test]
fn a_database_without_its_last_pages_is_judged_wrong() {
    let Some(scene) = scene(Ground::Temporary) else { return };
    let push = |push: &Push<'_, Sqlite<Rollback>>| locked(push, LINKS);
    let cut = |_: &Push<'_, Sqlite<Rollback>>, restored: &Path| {
        let file = fs::File::options().write(true).open(restored.join("app.db")).unwrap();
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        Ok(restored.to_owned())
    };

    let tally = scene.under_load(&Method { name: "cut", push, ready: cut }, 1);

    assert_eq!(tally.wrong().len(), 1, "{tally:?}");
}
