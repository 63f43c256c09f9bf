//! RocksDB: a live folder, and a checkpoint of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use tests::client::{Done, number};
use tests::gear;
use tests::loop_image::FileSystem;

use crate::ledger::{Load, Rows, Writer};
use crate::process::{Session, output};
use crate::scene::{Database, Ground, Method, Push, Scene};

/// A program that has a RocksDB store open. Only one can: all that asks it takes turns.
struct Rocksdb {
    session: Arc<Mutex<Session>>,
}

fn has_rocksdb() -> bool {
    // The tools bring the library that the program loads.
    ["python3", "ldb", "sst_dump"].into_iter().all(gear::has)
}

impl Rocksdb {
    fn ask(&self, text: &str) -> Result<(), String> {
        self.session.lock().map_err(|error| error.to_string())?.ask(text, &[], "ok")
    }
}

impl Database for Rocksdb {
    const NAME: &'static str = "RocksDB";

    fn start(data: &Path) -> Result<Self, String> {
        let mut command = Command::new("python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("databases/rocksdb/store.py")).arg(data);
        let mut session = Session::start(command)?;
        match session.line()? {
            line if line == "ready" => Ok(Self { session: Arc::new(Mutex::new(session)) }),
            mut said => {
                // The last lines of a failing program name the reason.
                while let Ok(line) = session.line() {
                    said = line;
                }
                Err(said)
            }
        }
    }

    fn writer(&self) -> Result<Writer, String> {
        let session = Arc::clone(&self.session);
        Ok(Box::new(move |commit| {
            let [(a, new), (b, changed)] = commit.puts();
            let mut session = session.lock().map_err(|error| error.to_string())?;
            session.ask(&format!("put {a}={new} {b}={changed}"), &[], "ok")
        }))
    }

    fn rows(&self) -> Result<Rows, String> {
        let mut session = self.session.lock().map_err(|error| error.to_string())?;
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

/// Has RocksDB's own tools look at a store that nobody has open.
fn checked(_: &Push<'_, Rocksdb>, restored: &Path) -> Result<PathBuf, String> {
    let mut check = Command::new("ldb");
    check.arg(format!("--db={}", restored.display())).arg("checkconsistency");
    output(check)?;
    let is_table = |entry: fs::DirEntry| entry.path().extension().is_some_and(|kind| kind == "sst");
    if !fs::read_dir(restored).into_iter().flatten().flatten().any(is_table) {
        // A store that was never flushed is a log, and the tool wants a table.
        return Ok(restored.to_owned());
    }
    let mut verify = Command::new("sst_dump");
    verify.arg(format!("--file={}", restored.display())).arg("--command=verify");
    output(verify)?;
    Ok(restored.to_owned())
}

fn live(push: &Push<'_, Rocksdb>, more: &[&str]) -> Done {
    push.run(&[&["--class-set", "rocksdb"], more].concat())
}

/// A checkpoint of the store's own, under a number that was never used before, and a push of that.
fn checkpoint(push: &Push<'_, Rocksdb>) -> Done {
    let all = push.scene.dir("checkpoints");
    let last = folder_in(&all);
    let number = last.as_ref().map_or(0, |last| last.file_name().map_or(0, |name| name.len())) + 1;
    let next = all.join("n".repeat(number));
    push.promise_until_now();
    push.database().ask(&format!("checkpoint {}", next.display())).expect("a checkpoint");
    if let Some(last) = last {
        fs::remove_dir_all(last).expect("it is ours");
    }
    push.node.start_push_of(&[&all], &["--class-set", "rocksdb"]).wait()
}

fn folder_in(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder).expect("it is there").next().map(|entry| entry.expect("it is there").path())
}

fn checked_in(push: &Push<'_, Rocksdb>, restored: &Path) -> Result<PathBuf, String> {
    checked(push, &folder_in(restored).ok_or("no checkpoint came back")?)
}

fn scene(ground: Ground) -> Option<Scene> {
    has_rocksdb().then(|| Scene::on(ground)).flatten()
}

#[test]
fn a_checkpoint_comes_back_with_every_write_before_it() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let method = Method { name: "checkpoint, and its folder", push: checkpoint, ready: checked_in };
    scene.under_load(&method, gear::rounds(2, 40)).is_always_right();
}

/// Tables come and go all the time, and the manifest says which are needed.
#[test]
fn a_live_store_opens_or_is_partial_with_second_names() {
    let Some(scene) = scene(Ground::with_links()) else { return };
    let push = |push: &Push<'_, Rocksdb>| live(push, &["--freeze", "hardlink"]);
    let method = Method { name: "live folder, second names", push, ready: checked };
    scene.under_load(&method, gear::rounds(4, 40)).is_never_wrong();
}

#[test]
fn a_live_store_opens_or_is_partial_with_shared_blocks() {
    let Some(scene) = scene(Ground::Image(FileSystem::Xfs)) else { return };
    let push = |push: &Push<'_, Rocksdb>| live(push, &["--freeze", "reflink"]);
    let method = Method { name: "live folder, reflink", push, ready: checked };
    scene.under_load(&method, gear::rounds(4, 40)).is_never_wrong();
}

/// Tables under the name of another checkpoint are known by their inodes.
#[test]
fn a_second_checkpoint_under_another_name_costs_little() {
    let Some(scene) = scene(Ground::Temporary) else { return };
    let (store, checkpoints) = (scene.dir("data"), scene.dir("checkpoints"));
    let database = Rocksdb::start(&store).unwrap();
    let ledger = Arc::default();
    let load = Load::start(&ledger, database.writer().unwrap());
    // A store of a few megabytes.
    ledger.wait_for_more(2000);
    drop(load.stop());
    let node = scene.world.node("db");
    for name in ["first", "second"] {
        database.ask(&format!("checkpoint {}", checkpoints.join(name).display())).unwrap();
    }
    let but = |name| node.push_with(&checkpoints, &["--class-set", "rocksdb", "--exclude", name]);

    let first = but("second");
    fs::remove_dir_all(checkpoints.join("first")).unwrap();
    let second = but("first");

    let (all, again) = (number(&first, "bytes_read"), number(&second, "bytes_read"));
    assert!(again * 2 < all, "read {again} of {all} again: {second}");
    assert!(number(&second, "bytes_sent") * 2 < number(&first, "bytes_sent"), "{second}");
}

/// The judge bites: a store that lost the file which names its manifest opens as a new one, without a word.
#[test]
fn a_store_without_its_current_file_is_judged_wrong() {
    let Some(scene) = scene(Ground::Temporary) else { return };
    let cut = |_: &Push<'_, Rocksdb>, restored: &Path| {
        let store = folder_in(restored).unwrap();
        fs::remove_file(store.join("CURRENT")).unwrap();
        Ok(store)
    };

    let tally = scene.under_load(&Method { name: "cut", push: checkpoint, ready: cut }, 1);

    assert!(tally.wrong()[0].contains("was acknowledged"), "{tally:?}");
}
