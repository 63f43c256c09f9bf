//! Real Cassandra nodes on the loopback, from the artefacts that Maven has copied to `target/cassandra`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tests::gear;

use super::cql::Cql;
use crate::process::{Daemon, Endings, free_port, output};

/// How long a node may take for one statement. Its own limits are shorter.
const STATEMENT: Duration = Duration::from_secs(30);
/// How long a look at a node that starts may take.
const LOOK: Duration = Duration::from_secs(2);

/// Where Maven has put Cassandra and all that it needs.
#[derive(Debug, Clone)]
pub(crate) struct Cassandra {
    jars: PathBuf,
    agent: PathBuf,
}

impl Cassandra {
    /// The one of this workspace. `None`, said aloud, where there is none.
    ///
    /// # Panics
    /// If there is none and everything is required.
    pub(crate) fn find() -> Option<Self> {
        if !gear::has("java") || !gear::has("unshare") {
            return None;
        }
        let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cassandra");
        let named = |start: &str| {
            let entries = std::fs::read_dir(&jars).into_iter().flatten().flatten();
            let mut paths = entries.map(|entry| entry.path());
            paths.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)))
        };
        let (Some(_), Some(agent)) = (named("cassandra-all-"), named("jamm-")) else {
            let why = "no Cassandra in target/cassandra: mvn -f tests/databases/cassandra/pom.xml dependency:copy-dependencies";
            assert!(!gear::is_set(gear::REQUIRE), "{} is set, and there is {why}", gear::REQUIRE);
            gear::skip(why);
            return None;
        };
        Some(Self { jars, agent })
    }

    /// Adds to `java` what runs a class of it with the configuration in `config`.
    fn run(&self, mut java: Command, config: &Path, class: &str, options: &[String]) -> Command {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("databases/cassandra");
        let mut jvm = std::ffi::OsString::from("@");
        jvm.push(here.join("jvm.options"));
        java.arg(jvm).args(options).arg("-cp").arg(self.jars.join("*"));
        java.arg(format!("-Dlogback.configurationFile={}", here.join("logback.xml").display()));
        java.arg(format!("-Dcassandra.config=file://{}", config.join("cassandra.yaml").display()));
        // Its tools keep a history of their commands in the home folder.
        java.arg(format!("-Duser.home={}", config.display()));
        java.arg(class);
        java
    }
}

/// One node: its folders, its addresses, and its part of the ring.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    cassandra: Cassandra,
    /// `data`, `commitlog` and what else the node writes.
    home: PathBuf,
    /// Its configuration and its logs.
    config: PathBuf,
    address: Ipv4Addr,
    seed: SocketAddr,
    ports: Ports,
    token: i64,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    storage: u16,
    native: u16,
    jmx: u16,
}

impl Ports {
    fn free() -> Self {
        Self { storage: free_port(), native: free_port(), jmx: free_port() }
    }
}

impl Node {
    /// A node that is a cluster of its own. Nothing is started.
    pub(crate) fn alone(cassandra: &Cassandra, home: &Path, config: &Path) -> Self {
        let (address, ports) = (Ipv4Addr::LOCALHOST, Ports::free());
        Self {
            cassandra: cassandra.clone(),
            home: home.to_owned(),
            config: config.to_owned(),
            address,
            seed: (address, ports.storage).into(),
            ports,
            token: 0,
        }
    }

    /// The nodes of a cluster, `homes` and `configs` in the same order. The first is the seed.
    pub(crate) fn cluster(cassandra: &Cassandra, homes: &[PathBuf], configs: &[PathBuf]) -> Vec<Self> {
        let first = Self::alone(cassandra, Path::new(""), Path::new(""));
        let share = i64::MAX / i64::try_from(homes.len()).expect("a cluster is small") * 2;
        let nodes = homes.iter().zip(configs).zip(0_u8..);
        nodes
            .map(|((home, config), n)| Self {
                home: home.clone(),
                config: config.clone(),
                // Nodes find each other by address at one and the same port.
                address: Ipv4Addr::new(127, 0, 0, n + 1),
                ports: Ports { storage: first.ports.storage, ..Ports::free() },
                // Around zero, at equal distances.
                token: share * (i64::from(n) - 1),
                ..first.clone()
            })
            .collect()
    }

    /// The same node with its files elsewhere.
    pub(crate) fn moved_to(&self, home: &Path) -> Self {
        Self { home: home.to_owned(), ..self.clone() }
    }

    /// Its data folder: tables and their snapshots.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Its commit log.
    pub(crate) fn commit_log(&self) -> PathBuf {
        self.home.join("commitlog")
    }

    /// The folder with all of it.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Starts it, and returns once it takes statements.
    ///
    /// # Errors
    /// If it does not start: the end of its log.
    pub(crate) fn start(&self) -> Result<Daemon, String> {
        // An orderly end takes five seconds, and no method pushes a node that was stopped.
        let endings = Endings { in_order: Signal::KILL, at_once: Signal::KILL };
        let java = self.daemon_command();
        Daemon::start(java, &self.config.join("log"), endings, || self.try_connect(LOOK).is_ok())
    }

    fn daemon_command(&self) -> Command {
        self.configure();
        let options = [
            format!("-javaagent:{}", self.cassandra.agent.display()),
            format!("-Dcassandra.storagedir={}", self.usual_home().display()),
            format!("-Dcassandra.jmx.local.port={}", self.ports.jmx),
            "-Dcassandra.skip_wait_for_gossip_to_settle=0".to_owned(),
            "-Dcassandra.ring_delay_ms=2000".to_owned(),
            "-Dcassandra.superuser_setup_delay_ms=0".to_owned(),
        ];
        let class = "org.apache.cassandra.service.CassandraDaemon";
        self.cassandra.run(self.java_at_home(), &self.config, class, &options)
    }

    fn nodetool_command(&self) -> Command {
        let class = "org.apache.cassandra.tools.NodeTool";
        let mut java = self.cassandra.run(Command::new("java"), &self.config, class, &[]);
        java.args(["-p", &self.ports.jmx.to_string()]);
        java
    }

    fn verify_command(&self) -> Command {
        self.configure();
        let class = "org.apache.cassandra.tools.StandaloneVerifier";
        self.cassandra.run(self.java_at_home(), &self.config, class, &[])
    }

    /// Where every node with its address finds its files, whichever copy of them they are.
    fn usual_home(&self) -> PathBuf {
        std::env::temp_dir().join(format!("astacus-cassandra-{}", self.address))
    }

    /// A Java that finds this node's files in its usual home.
    ///
    /// The logs of unfinished compactions name files by their whole path, and a node that starts deletes those files.
    /// A restored copy must therefore lie where the original lay, and must not see the original.
    fn java_at_home(&self) -> Command {
        let home = self.usual_home();
        for folder in [&home, &self.home] {
            std::fs::create_dir_all(folder).expect("a temporary folder can be written");
        }
        let mut java = Command::new("unshare");
        if !gear::is_root() {
            java.arg("--map-root-user");
        }
        java.args(["--mount", "--", "sh", "-ec", "mount --bind \"$1\" \"$2\"; shift 2; exec \"$@\"", "sh"]);
        java.args([&self.home, &home]).arg("java");
        java
    }

    /// The programs of a machine that has this node installed, each by its commands for the shell.
    pub(crate) fn programs(&self) -> [(&'static str, String); 3] {
        let nodetool = shown(&self.nodetool_command());
        let systemctl = format!(
            "case $1 in\nstart) {} >{} 2>&1 & ;;\nstop) {nodetool} stopdaemon; while {nodetool} info; do sleep 1; done ;;\nesac",
            shown(&self.daemon_command()),
            self.config.join("log").display(),
        );
        let verify = shown(&self.verify_command());
        [
            ("nodetool", format!("exec {nodetool} \"$@\"")),
            ("systemctl", systemctl),
            ("sstableverify", format!("exec {verify} \"$@\"")),
        ]
    }

    fn configure(&self) {
        std::fs::create_dir_all(&self.config).expect("a temporary folder can be written");
        let mut yaml = String::from(include_str!("cassandra.yaml"));
        let home = self.usual_home();
        let folder = |name: &str| home.join(name).display().to_string();
        for (key, value) in [
            ("listen_address", self.address.to_string()),
            ("rpc_address", self.address.to_string()),
            ("storage_port", self.ports.storage.to_string()),
            ("native_transport_port", self.ports.native.to_string()),
            ("initial_token", self.token.to_string()),
            ("data_file_directories", format!("[{}]", folder("data"))),
            ("commitlog_directory", folder("commitlog")),
            ("hints_directory", folder("hints")),
            ("saved_caches_directory", folder("saved_caches")),
            ("cdc_raw_directory", folder("cdc_raw")),
        ] {
            writeln!(yaml, "{key}: {value}").expect("a text takes more text");
        }
        let seed = "org.apache.cassandra.locator.SimpleSeedProvider";
        writeln!(yaml, "seed_provider: [{{class_name: {seed}, parameters: [{{seeds: \"{}\"}}]}}]", self.seed)
            .expect("a text takes more text");
        std::fs::write(self.config.join("cassandra.yaml"), yaml).expect("a temporary folder can be written");
    }

    /// A connection for statements.
    ///
    /// # Errors
    /// If the node does not answer.
    pub(crate) fn connect(&self) -> Result<Cql, String> {
        self.try_connect(STATEMENT).map_err(|error| format!("connect to {}: {error}", self.address))
    }

    fn try_connect(&self, patience: Duration) -> std::io::Result<Cql> {
        Cql::connect((IpAddr::from(self.address), self.ports.native).into(), patience)
    }

    /// Runs `nodetool` on it.
    ///
    /// # Errors
    /// If it fails: all that it said.
    pub(crate) fn nodetool(&self, arguments: &[&str]) -> Result<String, String> {
        let mut java = self.nodetool_command();
        java.args(arguments);
        output(java)
    }

    /// Reads every byte of a table's files and compares them with their checksums, while the node is stopped.
    ///
    /// # Errors
    /// If one is wrong: all that the tool said.
    pub(crate) fn verify(&self, keyspace: &str, table: &str) -> Result<String, String> {
        let mut java = self.verify_command();
        java.args(["--force", "--extended", keyspace, table]);
        output(java)
    }
}

/// A command as the shell takes it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")));
    quoted.collect::<Vec<_>>().join(" ")
}
