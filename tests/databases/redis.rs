//! Redis: the live data folder, and the file of `BGSAVE`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::client::Done;
use tests::loop_image::FileSystem;
use tests::{gear, wait};

use crate::ledger::{Rows, Writer};
use crate::process::{Daemon, Endings, Session, output};
use crate::scene::{Database, Ground, Method, Push, Scene};

struct Redis {
    daemon: Daemon,
    socket: PathBuf,
}

impl Redis {
    fn cli(&self) -> Command {
        cli(&self.socket)
    }

    fn ask(&self, words: &[&str]) -> Result<String, String> {
        let mut command = self.cli();
        command.args(words);
        Ok(output(command)?.trim_end().to_owned())
    }

    /// A field of what it says about its files.
    fn persistence(&self, field: &str) -> Option<String> {
        let all = self.ask(&["INFO", "persistence"]).ok()?;
        all.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':').map(str::to_owned))
    }
}

fn cli(socket: &Path) -> Command {
    let mut command = Command::new("redis-cli");
    command.arg("-s").arg(socket);
    command
}

impl Database for Redis {
    const NAME: &'static str = "Redis";

    fn start(data: &Path) -> Result<Self, String> {
        let socket = data.with_extension("sock");
        let mut server = Command::new("redis-server");
        server.arg("--unixsocket").arg(&socket).args(["--port", "0", "--dir"]).arg(data);
        // With `appendonly yes` a server that finds an RDB file alone begins empty, and says nothing.
        let only_saved = data.join("dump.rdb").exists() && !data.join("appendonlydir").exists();
        server.args(["--appendonly", if only_saved { "no" } else { "yes" }, "--appendfsync", "always"]);
        // Often rewritten, and often saved.
        server.args(["--auto-aof-rewrite-min-size", "256kb", "--save", "1 100"]);
        let answers = || {
            let mut ping = cli(&socket);
            ping.arg("PING");
            output(ping).is_ok_and(|said| said.trim_end() == "PONG")
        };
        let daemon = Daemon::start(server, &data.with_extension("log"), Endings::default(), answers)?;
        Ok(Self { daemon, socket })
    }

    fn writer(&self) -> Result<Writer, String> {
        let mut session = Session::start(self.cli())?;
        Ok(Box::new(move |commit| {
            let [(a, new), (b, changed)] = commit.puts();
            session.ask(&format!("MSET {a} {new} {b} {changed}"), &[], "OK")
        }))
    }

    fn rows(&self) -> Result<Rows, String> {
        let keys = self.ask(&["KEYS", "*"])?;
        let mut session = Session::start(self.cli())?;
        let row = |key: &str| {
            session.send(&format!("GET {key}"))?;
            Ok((key.parse::<u64>().map_err(|error| format!("key `{key}`: {error}"))?, session.line()?))
        };
        keys.lines().filter(|key| !key.is_empty()).map(row).collect()
    }

    fn stop(self) {
        self.daemon.stop();
    }
}

const LIVE: &[&str] = &["--class-set", "redis"];

fn has_redis() -> bool {
    ["redis-server", "redis-cli", "redis-check-aof", "redis-check-rdb"].into_iter().all(gear::has)
}

/// Checks both kinds of files before a server has seen them.
fn check(_: &Push<'_, Redis>, restored: &Path) -> Result<PathBuf, String> {
    let mut append_only = Command::new("redis-check-aof");
    append_only.arg(restored.join("appendonlydir/appendonly.aof.manifest"));
    output(append_only)?;
    let saved = restored.join("dump.rdb");
    if saved.exists() {
        check_saved(&saved)?;
    }
    Ok(restored.to_owned())
}

fn check_saved(file: &Path) -> Result<(), String> {
    let mut command = Command::new("redis-check-rdb");
    command.arg(file);
    output(command).map(drop)
}

/// A push while no rewrite of the append-only file may begin.
fn with_rewrites_paused(push: &Push<'_, Redis>) -> Done {
    let server = push.database();
    let set = |percentage| server.ask(&["CONFIG", "SET", "auto-aof-rewrite-percentage", percentage]);
    set("0").expect("a setting");
    wait::for_state("a rewrite to end", || {
        (server.persistence("aof_rewrite_in_progress")? == "0").then_some(())
    });
    let done = push.run(LIVE);
    set("100").expect("a setting");
    done
}

/// `BGSAVE`, and a push of its file alone.
fn save_and_push(push: &Push<'_, Redis>) -> Done {
    let server = push.database();
    let idle = || {
        (server.persistence("rdb_bgsave_in_progress")? == "0"
            && server.persistence("aof_rewrite_in_progress")? == "0")
            .then_some(())
    };
    wait::for_state("a save to begin", || {
        // It is refused while another runs, and what has run may have begun too early.
        push.promise_until_now();
        server.ask(&["BGSAVE"]).is_ok_and(|said| said.contains("started")).then_some(())
    });
    wait::for_state("a save to end", idle);
    assert_eq!(server.persistence("rdb_last_bgsave_status").as_deref(), Some("ok"));
    let saved = push.scene.dir("saved");
    fs::copy(push.data.join("dump.rdb"), saved.join("dump.rdb")).expect("a temporary folder can be written");
    push.node.start_push_of(&[&saved], &[]).wait()
}

fn only_saved(_: &Push<'_, Redis>, restored: &Path) -> Result<PathBuf, String> {
    check_saved(&restored.join("dump.rdb"))?;
    Ok(restored.to_owned())
}

#[test]
fn a_live_folder_is_right_while_rewrites_are_paused() {
    let Some(scene) = has_redis().then(|| Scene::on(Ground::with_links())).flatten() else { return };
    let method = Method { name: "live folder, rewrites paused", push: with_rewrites_paused, ready: check };
    scene.under_load(&method, gear::rounds(2, 40)).is_always_right();
}

#[test]
fn a_live_folder_is_right_or_partial_with_second_names() {
    let Some(scene) = has_redis().then(|| Scene::on(Ground::with_links())).flatten() else { return };
    let push = |push: &Push<'_, Redis>| push.run(&[LIVE, &["--freeze", "hardlink"]].concat());
    let method = Method { name: "live folder, second names", push, ready: check };
    scene.under_load(&method, gear::rounds(3, 40)).is_never_wrong();
}

#[test]
fn a_live_folder_is_right_or_partial_with_shared_blocks() {
    let scene = has_redis().then(|| Scene::on(Ground::Image(FileSystem::Xfs))).flatten();
    let Some(scene) = scene else { return };
    let push = |push: &Push<'_, Redis>| push.run(&[LIVE, &["--freeze", "reflink"]].concat());
    let method = Method { name: "live folder, reflink", push, ready: check };
    scene.under_load(&method, gear::rounds(2, 40)).is_never_wrong();
}

#[test]
fn the_file_of_a_background_save_has_all_before_it() {
    let Some(scene) = has_redis().then(|| Scene::on(Ground::with_links())).flatten() else { return };
    let method = Method { name: "BGSAVE, and its file", push: save_and_push, ready: only_saved };
    scene.under_load(&method, gear::rounds(2, 40)).is_always_right();
}

/// The judge bites: an append-only file that lost its end starts without a word.
#[test]
fn an_append_only_file_without_its_end_is_judged_wrong() {
    let Some(scene) = has_redis().then(|| Scene::on(Ground::Temporary)).flatten() else { return };
    let cut = |_: &Push<'_, Redis>, restored: &Path| {
        for entry in fs::read_dir(restored.join("appendonlydir")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|kind| kind == "aof") && path.to_string_lossy().contains(".incr.")
            {
                fs::write(path, "").unwrap();
            }
        }
        Ok(restored.to_owned())
    };

    let tally = scene.under_load(&Method { name: "cut", push: |push| push.run(LIVE), ready: cut }, 1);

    assert!(tally.wrong()[0].contains("was acknowledged"), "{tally:?}");
}
