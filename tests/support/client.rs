//! Client and admin processes, with nothing of the user's environment.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::binaries::program;
use crate::server::Server;
use crate::wait;

/// How a program ended, and what it said.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Done {
    fn new(status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Fails unless the exit code is `code`.
    ///
    /// # Panics
    /// With all that the program said.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The one JSON document on standard output.
    ///
    /// # Panics
    /// If there is none, or more than that.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not one JSON document ({error}):\n{}", self.stdout))
    }
}

/// A program on its way.
pub struct Running {
    pid: Pid,
    done: Receiver<Done>,
}

impl Running {
    /// Starts a program with all its output kept.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("the program can be started");
        let pid = Pid::from_child(&child);
        let (sender, done) = mpsc::channel();
        std::thread::spawn(move || {
            let output = child.wait_with_output().expect("our own child can be waited for");
            // The receiver may be gone.
            let _ = sender.send(Done::new(output.status, &output.stdout, &output.stderr));
        });
        Self { pid, done }
    }

    /// The result, if the program ends within `time`.
    pub fn within(&self, time: Duration) -> Option<Done> {
        self.done.recv_timeout(time).ok()
    }

    /// Waits for the result.
    ///
    /// # Panics
    /// If it does not end within the patience of a test.
    pub fn wait(self) -> Done {
        self.within(wait::PATIENCE).unwrap_or_else(|| {
            let threads = threads(self.pid);
            let _ = kill_process(self.pid, Signal::KILL);
            panic!(
                "a program did not end: {:#?}\nIts threads, and what each waited for:\n{threads}",
                self.done.recv()
            )
        })
    }

    /// Ends it without any chance to tidy up, unless it has ended; returns what became of it.
    pub fn kill(self) -> Done {
        if let Some(done) = self.within(Duration::ZERO) {
            return done;
        }
        // It may end by itself at this very moment.
        let _ = kill_process(self.pid, Signal::KILL);
        self.wait()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Asks it to end as Ctrl-C does.
    pub fn interrupt(&self) {
        let _ = kill_process(self.pid, Signal::INT);
    }
}

/// The threads of a process, each with the call that it is in, as far as the kernel says.
fn threads(pid: Pid) -> String {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    let line = |task: PathBuf| {
        let [name, call, place] = ["comm", "syscall", "wchan"].map(|file| {
            let text = std::fs::read_to_string(task.join(file)).unwrap_or_default();
            text.trim().to_owned()
        });
        format!("  {name}: system call {call}, in {place}\n")
    };
    tasks.into_iter().flatten().flatten().map(|task| line(task.path())).collect()
}

/// Runs a program and returns what became of it.
///
/// # Panics
/// If it does not end within the patience of a test.
pub fn run_to_end(command: Command) -> Done {
    Running::start(command).wait()
}

/// One node: what its client would find in its environment, and where it remembers its last push.
#[derive(Debug, Clone)]
pub struct Client {
    server: String,
    token_file: PathBuf,
    cluster: String,
    node: String,
    home: PathBuf,
    wrapper: Vec<OsString>,
}

impl Client {
    /// The node `node` of `cluster`, whose home folder is `home`.
    ///
    /// # Panics
    /// If the home folder cannot be made.
    pub fn new(server: &Server, cluster: &str, node: &str, home: &Path) -> Self {
        Self::of(server.address(), &server.token_file(), cluster, node, home)
    }

    /// The same for a server at any address, whose token is in a file.
    ///
    /// # Panics
    /// If the home folder cannot be made.
    pub fn of(server: &str, token_file: &Path, cluster: &str, node: &str, home: &Path) -> Self {
        std::fs::create_dir_all(home).expect("a temporary folder can be written");
        Self {
            server: server.to_owned(),
            token_file: token_file.to_owned(),
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            home: home.to_owned(),
            wrapper: Vec::new(),
        }
    }

    /// The same node with another token file.
    #[must_use]
    pub fn with_token_file(&self, token_file: &Path) -> Self {
        Self { token_file: token_file.to_owned(), ..self.clone() }
    }

    /// The same node, asking the server at another address.
    #[must_use]
    pub fn at(&self, server: &str) -> Self {
        Self { server: server.to_owned(), ..self.clone() }
    }

    /// The same node, run through another program that takes a command as its last arguments.
    #[must_use]
    pub fn wrapped(&self, wrapper: &[&str]) -> Self {
        Self { wrapper: wrapper.iter().map(OsString::from).collect(), ..self.clone() }
    }

    /// Its home folder, with all that it remembers.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// A command that would run `astacus-client` on this node.
    pub fn command(&self) -> Command {
        self.program("astacus-client")
    }

    /// A command that would run a program in the environment of this node.
    pub fn program(&self, name: &str) -> Command {
        let mut words = self.wrapper.iter();
        let mut command = match words.next() {
            None => Command::new(program(name)),
            Some(wrapper) => {
                let mut command = Command::new(wrapper);
                command.args(words).arg(program(name));
                command
            }
        };
        command.env_clear().env("NO_COLOR", "1").env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", &self.home).current_dir(&self.home);
        command.env("ASTACUS_STATE_DIR", self.home.join("state"));
        command.env("ASTACUS_SERVER", &self.server).env("ASTACUS_TOKEN_FILE", &self.token_file);
        command.env("ASTACUS_CLUSTER", &self.cluster).env("ASTACUS_NODE", &self.node);
        command
    }

    /// Runs `astacus-client` with these arguments.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Done {
        let mut command = self.command();
        command.args(arguments);
        run_to_end(command)
    }

    /// Starts a push of `root` and does not wait for it.
    pub fn start_push(&self, root: &Path) -> Running {
        self.start_push_of(&[root], &[])
    }

    /// Starts a push of `roots` with more arguments.
    pub fn start_push_of(&self, roots: &[&Path], more: &[&str]) -> Running {
        let mut command = self.command();
        command.args(["push", "--json"]).args(more).args(roots);
        Running::start(command)
    }

    /// Pushes `root`, and returns the report.
    ///
    /// # Panics
    /// If the push does not succeed.
    #[track_caller]
    pub fn push(&self, root: &Path) -> Value {
        self.push_with(root, &[])
    }

    /// Pushes `root` with more arguments, and returns the report.
    ///
    /// # Panics
    /// If the push does not succeed.
    #[track_caller]
    pub fn push_with(&self, root: &Path, more: &[&str]) -> Value {
        self.start_push_of(&[root], more).wait().exits(0).json()
    }

    /// The snapshots of the node's cluster.
    ///
    /// # Panics
    /// If they cannot be listed.
    #[track_caller]
    pub fn snapshots(&self) -> Vec<Value> {
        let listed = self.run(["list", "--json"]).exits(0).json();
        let snapshots = listed.get("snapshots").unwrap_or(&listed);
        snapshots.as_array().unwrap_or_else(|| panic!("no list of snapshots: {listed}")).clone()
    }

    /// Their ids.
    #[track_caller]
    pub fn snapshot_ids(&self) -> Vec<String> {
        self.snapshots().iter().map(|snapshot| text(snapshot, "id")).collect()
    }

    /// Restores `snapshot` to `to`, with more arguments.
    pub fn restore(&self, snapshot: &str, to: &Path, more: &[&str]) -> Done {
        let mut command = self.command();
        command.args(["restore", snapshot, "--json", "--to"]).arg(to).args(more);
        run_to_end(command)
    }

    /// Runs `astacus-admin` with these arguments.
    pub fn admin(&self, arguments: &[&str]) -> Done {
        let mut command = self.program("astacus-admin");
        command.args(arguments);
        run_to_end(command)
    }

    /// Status of the server.
    ///
    /// # Panics
    /// If it does not say.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.admin(&["status", "--json"]).exits(0).json()
    }
}

/// A field that is a number.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn number(document: &Value, field: &str) -> u64 {
    let found = document.get(field).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number `{field}` in {document}"))
}

/// How long something took by its own report.
///
/// # Panics
/// If it does not say.
#[track_caller]
pub fn seconds(report: &Value) -> f64 {
    let found = report.get("seconds").and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no `seconds` in {report}"))
}

/// A field that is text.
///
/// # Panics
/// If it is not.
#[track_caller]
pub fn text(document: &Value, field: &str) -> String {
    let found = document.get(field).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("no text `{field}` in {document}")).to_owned()
}
