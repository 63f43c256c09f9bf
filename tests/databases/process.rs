//! Servers of databases, and sessions with them, as processes. Nothing is waited for without a deadline.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use tests::client::{Done, run_to_end};
use tests::{gear, wait};

/// A command that runs `program` as `user` if this process is root, and else as whoever runs it.
pub(crate) fn as_user(user: &str, program: &Path) -> Command {
    if !gear::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups", "--"]).arg(program);
    command
}

/// Gives a path to `user`, if this process is root.
pub(crate) fn give_to(user: &str, path: &Path) {
    if gear::is_root() {
        let mut command = Command::new("chown");
        command.arg("-R").arg(format!("{user}:{user}")).arg(path);
        run_to_end(command).exits(0);
    }
}

/// A port of the loopback that was free a moment ago, and that this process was not given before.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    wait::for_state("a free port", || {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("the kernel has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        given.insert(port).then_some(port)
    })
}

/// Runs a program to its end, and returns its standard output.
///
/// # Errors
/// If it does not exit with 0: all that it said.
pub(crate) fn output(command: Command) -> Result<String, String> {
    let shown = format!("{:?} {:?}", command.get_program(), command.get_args().collect::<Vec<_>>());
    match run_to_end(command) {
        Done { code: Some(0), stdout, .. } => Ok(stdout),
        Done { code, stdout, stderr } => Err(format!("{shown} exits with {code:?}: {stdout}{stderr}")),
    }
}

/// The signals that end a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endings {
    /// In order, everything stored.
    pub(crate) in_order: Signal,
    /// At once.
    pub(crate) at_once: Signal,
}

impl Default for Endings {
    fn default() -> Self {
        Self { in_order: Signal::TERM, at_once: Signal::KILL }
    }
}

/// A server of a database. It is ended at once when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
    endings: Endings,
}

impl Daemon {
    /// Starts a server whose output is kept in the file `log`, and returns once `answers` says so.
    ///
    /// # Errors
    /// If it ends, or does not answer in time: the end of its log.
    pub(crate) fn start(
        mut command: Command,
        log: &Path,
        endings: Endings,
        mut answers: impl FnMut() -> bool,
    ) -> Result<Self, String> {
        let file = File::create(log).expect("a temporary folder can be written");
        let both = file.try_clone().expect("an open file can be opened again");
        command.stdin(Stdio::null()).stdout(file).stderr(both);
        let child = command.spawn().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
        let mut daemon = Self { child, log: log.to_owned(), endings };
        let state = wait::within(wait::PATIENCE, || match daemon.child.try_wait() {
            Ok(Some(status)) => Some(Err(format!("it ended: {status}"))),
            _ => answers().then_some(Ok(())),
        });
        match state.unwrap_or_else(|| Err("it does not answer".to_owned())) {
            Ok(()) => Ok(daemon),
            Err(why) => Err(format!("{why}\n{}", daemon.log_end())),
        }
    }

    /// Stops it in order.
    ///
    /// # Panics
    /// If it does not end in time.
    pub(crate) fn stop(mut self) {
        self.signal(self.endings.in_order);
        assert!(self.ends(), "the server does not stop:\n{}", self.log_end());
    }

    /// Leaves it to others to end it.
    pub(crate) fn leave(self) {
        // It becomes a zombie when it ends, until this process does.
        std::mem::forget(self);
    }

    fn signal(&self, signal: Signal) {
        // It may end by itself at this very moment.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    fn ends(&mut self) -> bool {
        wait::within(wait::PATIENCE, || self.child.try_wait().ok().flatten()).is_some()
    }

    /// The first lines that tell of an error, and the last ones.
    fn log_end(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        let is_error =
            |line: &&&str| ["ERROR", "FATAL", "PANIC", "Exception"].iter().any(|word| line.contains(word));
        let errors = lines.iter().filter(is_error).take(10).copied();
        let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default();
        errors.chain(["…"]).chain(last.iter().copied()).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(self.endings.at_once);
            self.ends();
        }
    }
}

/// A session with a server: a program that takes lines and answers with lines. It ends when it is dropped.
pub(crate) struct Session {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Session {
    /// Starts the program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(mut command: Command) -> Result<Self, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{:?}: {error}", command.get_program()))?;
        let (sender, lines) = mpsc::channel();
        // An error is an answer too: not the one that is expected.
        read_lines(child.stdout.take().expect("it is piped"), sender.clone());
        read_lines(child.stderr.take().expect("it is piped"), sender);
        let stdin = child.stdin.take().expect("it is piped");
        Ok(Self { child, stdin, lines })
    }

    /// Sends `text` and a line feed.
    ///
    /// # Errors
    /// If the program has ended.
    pub(crate) fn send(&mut self, text: &str) -> Result<(), String> {
        let sent = self.stdin.write_all(text.as_bytes()).and_then(|()| self.stdin.write_all(b"\n"));
        sent.and_then(|()| self.stdin.flush())
            .map_err(|error| format!("{error}: {:?}", self.lines.try_recv()))
    }

    /// The next line that the program writes, on standard output or standard error.
    ///
    /// # Errors
    /// If there is none in time.
    pub(crate) fn line(&mut self) -> Result<String, String> {
        self.lines.recv_timeout(wait::PATIENCE).map_err(|error| format!("no answer: {error}"))
    }

    /// Sends `text`, and takes lines up to one that is `last`.
    ///
    /// # Errors
    /// If a line before it is not in `before`, or none comes.
    pub(crate) fn ask(&mut self, text: &str, before: &[&str], last: &str) -> Result<(), String> {
        self.send(text)?;
        loop {
            match self.line()? {
                line if line == last => return Ok(()),
                line if before.contains(&line.as_str()) => {}
                line => return Err(format!("the answer is `{line}`")),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(from: impl Read + Send + 'static, to: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
}

/// A server that ends at its start, and an answer that is an error, are seen at once and not waited for.
#[test]
fn a_server_that_ends_and_an_error_for_an_answer_are_seen() {
    let folder = tests::world::Folder::new();
    let mut failing = Command::new("sh");
    failing.args(["-c", "echo the port is taken; exit 3"]);
    let mut session = Command::new("sh");
    session.args(["-c", "while read -r line; do echo \"$line\" >&2; done"]);

    let Err(why) = Daemon::start(failing, &folder.path("log"), Endings::default(), || false) else {
        panic!("it never answered");
    };
    let mut session = Session::start(session).unwrap();

    assert!(why.contains("the port is taken"), "{why}");
    session.ask("OK", &[], "OK").unwrap();
    assert!(session.ask("ERROR", &[], "OK").unwrap_err().contains("ERROR"));
}
