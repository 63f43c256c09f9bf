//! The pages of `docs/databases`, walked as a reader would: every block marked `sh`, in order and in one shell,
//! beside the real server. Blocks marked `ini` are units of systemd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tests::binaries::program;
use tests::client::{Done, Running, run_to_end};
use tests::gear;
use tests::world::World;

use crate::process::{as_user, free_port, give_to};

/// The folder of the pages.
const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/databases");

/// Where units of pages expect programs.
const INSTALLED: &str = "/usr/local/bin/";

/// How long a walk may take: it starts several servers. Each wait in it has its own end.
const PATIENCE: Duration = Duration::from_secs(300);

/// The text of a page.
fn page(name: &str) -> String {
    let path = Path::new(PAGES).join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of a page in one language. Those of a list lose their indent.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(said) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let body = lines.by_ref().take_while(|line| line.trim() != "```");
        let block: String =
            body.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
        if said == language {
            found.push(block);
        }
    }
    found
}

/// A machine to walk a page on: folders for the variables of the page, and the programs. What the walk left running
/// is ended when it is dropped.
pub(crate) struct Walk {
    world: World,
    folder: PathBuf,
    user: Option<&'static str>,
    variables: Vec<(&'static str, String)>,
}

impl Walk {
    /// A machine whose commands are run by `user`; by whoever runs the test if there is none.
    pub(crate) fn by(user: Option<&'static str>) -> Self {
        let world = World::new();
        let folder = world.dir("machine");
        for name in ["astacus-client", "astacus-admin"] {
            let to = folder.join(name);
            fs::copy(program(name), &to).expect("a temporary folder can be written");
        }
        let token = folder.join("token");
        fs::copy(world.server.token_file(), &token).expect("a temporary folder can be written");
        let variables = vec![
            ("HOME", folder.display().to_string()),
            ("ASTACUS_SERVER", world.server.address().to_owned()),
            ("ASTACUS_TOKEN_FILE", token.display().to_string()),
            ("ASTACUS_STATE_DIR", folder.join("state").display().to_string()),
        ];
        Self { world, folder, user, variables }
    }

    /// Sets a variable of the page.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// Sets a variable of the page to a path on the machine. Nothing is made.
    pub(crate) fn with_path(self, name: &'static str, path: &str) -> Self {
        let path = self.folder.join(path).display().to_string();
        self.with(name, path)
    }

    /// A path on the machine. Nothing is made.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Puts a program on the machine that stands for one of a package: `commands` for the shell.
    pub(crate) fn with_program(self, name: &str, commands: &str) -> Self {
        let path = self.folder.join(name);
        fs::write(&path, format!("#!/bin/sh\n{commands}\n")).expect("it can be written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        self
    }

    /// Runs every block of the page that is marked `sh`.
    pub(crate) fn take(&self, name: &str) -> Done {
        let text = page(name);
        let commands = blocks(&text, "sh");
        assert!(commands.len() > 3, "{name} has hardly any commands: are its blocks still marked `sh`?");
        self.run(&commands.concat())
    }

    fn run(&self, commands: &str) -> Done {
        let script = self.folder.join("walk");
        fs::write(&script, format!("set -euxo pipefail\n{commands}")).expect("it can be written");
        if let Some(user) = self.user {
            give_to(user, &self.folder);
        }
        let bash = Path::new("/bin/bash");
        let mut command = self.user.map_or_else(|| Command::new(bash), |user| as_user(user, bash));
        let path = std::env::var("PATH").unwrap_or_default();
        command.arg(&script).current_dir(&self.folder).env_clear();
        command.env("PATH", format!("{}:{path}", self.folder.display())).envs(self.variables.iter().cloned());
        let walk = Running::start(command);
        walk.within(PATIENCE).unwrap_or_else(|| panic!("the walk does not end: {:#?}", walk.kill()))
    }
}

impl Drop for Walk {
    fn drop(&mut self) {
        // Servers that the page has started leave their shell. Each of them names the folder.
        let folder = self.world.path("machine").display().to_string();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let id = process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
            if let Some(id) = id.filter(|_| String::from_utf8_lossy(&line).contains(&folder)) {
                // It may end by itself at this very moment.
                let _ = kill_process(id, Signal::KILL);
            }
        }
    }
}

/// The units of a page, in a folder where each is called as its first line says.
fn write_units(page: &str, folder: &Path) -> Vec<PathBuf> {
    let unit = |block: String| {
        let name =
            block.lines().next().and_then(|line| line.rsplit('/').next()).expect("a unit has a first line");
        assert!(
            block.starts_with("# /etc/systemd/system/"),
            "the first line of a unit names its file: {name}"
        );
        let path = folder.join(name);
        fs::write(&path, block.replace(INSTALLED, &format!("{}/", folder.display())))
            .expect("it can be written");
        path
    };
    blocks(page, "ini").into_iter().map(unit).collect()
}

/// Units hold what systemd takes, and a service that is killed leaves no second names.
fn check_units(name: &str) {
    let folder = tests::world::Folder::new();
    let text = page(name);
    let units = write_units(&text, &folder.path(""));
    let paths =
        |kind: &str| units.iter().filter(|unit| unit.extension().is_some_and(|end| end == kind)).count();
    assert_eq!((paths("service"), paths("timer")), (1, 1), "{name} has a service and its timer");
    for program in programs_of(&text) {
        let path = folder.path(&program);
        fs::write(&path, "#!/bin/sh\n").expect("it can be written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    for unit in &units {
        let text = fs::read_to_string(unit).expect("it was just written");
        let strange = text.lines().find(|line| !is_line_of_unit(line));
        assert_eq!(strange, None, "{name}");
    }
    if gear::is_installed("systemd-analyze") {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).args(&units);
        let said = run_to_end(command).exits(0);
        let ours = said.stderr.lines().find(|line| line.contains(&folder.path("").display().to_string()));
        assert_eq!(ours, None, "{name}");
    }
}

/// True if it has the form of a line of a unit.
fn is_line_of_unit(line: &str) -> bool {
    let is_section = line.starts_with('[') && line.ends_with(']');
    let has_key = line.split_once('=').is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_alphabetic()));
    line.is_empty() || line.starts_with('#') || is_section || has_key
}

/// Programs that the units of a page run from where ours are installed.
fn programs_of(page: &str) -> Vec<String> {
    let units = blocks(page, "ini").concat();
    let names = units.split(INSTALLED).skip(1).map(|rest| rest.split_whitespace().next().unwrap_or_default());
    names.map(str::to_owned).collect()
}

#[test]
fn the_page_of_postgresql_leads_to_a_restored_server() {
    if !crate::postgresql::has_postgresql() {
        return;
    }
    if !gear::is_root() {
        return gear::skip("only root can become the user of the server");
    }
    let walk = Walk::by(Some(crate::postgresql::USER)).with("NODE", "db1");
    let walk = walk.with_path("PGDATA", "main").with_path("PGHOST", "sockets").with_path("BACKUP", "backup");

    walk.take("postgresql.md").exits(0);
}

#[test]
fn the_page_of_etcd_leads_to_a_new_cluster() {
    if !["etcd", "etcdctl"].into_iter().all(gear::has) {
        return;
    }
    let urls = || [(); 3].map(|()| format!("http://127.0.0.1:{}", free_port())).join(" ");
    let walk = Walk::by(None).with("NODE", "etcd1").with("CLIENTS", urls()).with("PEERS", urls());
    let walk = walk.with_path("DATA", "etcd").with_path("BACKUP", "backup");

    walk.take("etcd.md").exits(0);
}

#[test]
fn the_page_of_redis_leads_to_a_restored_server() {
    if !["redis-server", "redis-cli"].into_iter().all(gear::has) {
        return;
    }
    let walk = Walk::by(None).with("NODE", "redis1").with_path("SOCKET", "redis.sock");
    let walk = walk.with_path("DATA", "redis").with_path("BACKUP", "backup");

    walk.take("redis.md").exits(0);
}

#[test]
fn the_page_of_cassandra_leads_to_a_restored_node() {
    let Some(cassandra) = crate::cassandra::Cassandra::find() else { return };
    let walk = Walk::by(None).with("NODE", "cassandra1").with("KEYSPACE", "suite").with("TABLE", "kv");
    let walk = walk.with_path("DATA", "cassandra").with_path("BACKUP", "backup");
    let node = crate::cassandra::Node::alone(&cassandra, &walk.path("cassandra"), &walk.path("config"));
    let written = crate::cassandra::write_some(&node);
    // Debian has no package of it: these stand for its programs, and for the unit that runs it.
    let walk = node.programs().into_iter().fold(walk, |walk, (name, text)| walk.with_program(name, &text));

    walk.take("cassandra.md").exits(0);

    assert_eq!(crate::cassandra::rows(&node, crate::cassandra::Consistency::One), Ok(written));
}

#[test]
fn the_page_of_mariadb_leads_to_a_restored_server() {
    if !crate::mariadb::has_mariadb() {
        return;
    }
    let walk = Walk::by(Some(crate::mariadb::USER)).with("NODE", "db1").with_path("SOCKET", "sock");
    let walk = walk.with_path("DATA", "mysql").with_path("BACKUP", "backup");

    walk.take("mariadb.md").exits(0);
}

#[test]
fn the_page_of_sqlite_leads_to_restored_files() {
    if !gear::has("sqlite3") {
        return;
    }
    let walk =
        Walk::by(None).with("NODE", "app1").with_path("DB", "app/app.db").with_path("BACKUP", "backup");

    walk.take("sqlite.md").exits(0);
}

#[test]
fn the_page_of_rocksdb_leads_to_a_restored_store() {
    if !["ldb", "sst_dump"].into_iter().all(gear::has) {
        return;
    }
    let walk =
        Walk::by(None).with("NODE", "app1").with_path("DATA", "app/store").with_path("BACKUP", "backup");

    walk.take("rocksdb.md").exits(0);
}

/// No server of M3 is run here: the files only have its names.
#[test]
fn the_page_of_m3_leads_to_restored_files() {
    let walk = Walk::by(None).with("NODE", "m3").with_path("DATA", "m3db").with_path("BACKUP", "backup");

    walk.take("m3.md").exits(0);
}

/// All pages but the index.
fn pages() -> Vec<String> {
    let names = fs::read_dir(PAGES).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "README.md").collect()
}

#[test]
fn the_units_of_every_page_are_what_systemd_takes() {
    pages().iter().for_each(|name| check_units(name));
}

#[test]
fn every_page_has_a_walk_and_a_line_of_the_index() {
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("databases");
    let modules =
        fs::read_dir(suite).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let sources: String = modules.map(|path| fs::read_to_string(path).unwrap()).collect();
    let index = page("README.md");
    for name in pages() {
        assert!(sources.contains(&format!(".take(\"{name}\")")), "no test walks {name}");
        assert!(index.contains(&format!("]({name})")), "the index has no {name}");
    }
}

#[test]
fn only_blocks_of_the_language_are_taken_in_order() {
    let page = "a\n```sh\none\n```\n```text\nsh\n```\n```ini\ntwo\n```\n1. x\n\n   ```sh\n   three\n\n     four\n   ```\n";

    assert_eq!(blocks(page, "sh"), ["one\n", "three\n\n  four\n"]);
    assert_eq!(blocks(page, "ini"), ["two\n"]);
}

/// The walk bites: a command that fails ends it, and what it left running is ended.
#[test]
fn a_walk_ends_at_the_first_command_that_fails() {
    let walk = Walk::by(None);

    let done = walk.run("sleep 1000 \"$HOME\" & false\ntouch after\n");

    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(!walk.folder.join("after").exists());
}
