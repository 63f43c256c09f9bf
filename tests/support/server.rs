//! A server process on a free port.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::binaries::program;
use crate::client::{Done, run_to_end};
use crate::wait;

/// The configuration of servers that need no other.
pub const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/support/server.toml");

/// A command that would start `astacus-server`, without anything of the user's environment.
pub fn command() -> Command {
    let mut command = Command::new(program("astacus-server"));
    command.env_clear().env("NO_COLOR", "1").env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A command that starts `astacus-server` over the folder `data`, on a free port, as tests need it.
pub fn over(data: &Path) -> Command {
    configured(data, Path::new(CONFIG), FREE_PORT)
}

fn configured(data: &Path, config: &Path, listen: &str) -> Command {
    let mut command = command();
    command.arg("--data-dir").arg(data).arg("--config").arg(config).args(["--listen", listen]);
    command
}

/// The command under strace, in the same process.
fn traced(command: &Command, trace: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-q", "-o"]).arg(trace).arg(command.get_program()).args(command.get_args());
    strace.env_clear();
    strace.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    strace.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    strace
}

const FREE_PORT: &str = "127.0.0.1:0";

/// Starts a server that is expected to refuse, and returns what it said.
///
/// # Panics
/// If it does not end.
pub fn refused(arguments: &[&str]) -> Done {
    let mut command = command();
    command.args(arguments);
    run_to_end(command)
}

/// A running server. When it is dropped it is stopped, and an error in its log fails the test.
pub struct Server {
    data: PathBuf,
    config: PathBuf,
    arguments: Vec<OsString>,
    child: Option<Child>,
    address: String,
    log: Arc<Mutex<Vec<String>>>,
    allowed: Vec<String>,
    reader: Option<std::thread::JoinHandle<()>>,
    /// Where its log goes, if the harness does not read it.
    log_file: Option<File>,
    /// Where its system calls go, if they are traced.
    trace: Option<PathBuf>,
}

impl Server {
    /// Starts a server over the folder `data`, and returns once it listens.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(data: &Path) -> Self {
        Self::start_as(data, Path::new(CONFIG), &[])
    }

    /// The same with the configuration in the file `config`.
    ///
    /// # Panics
    /// If it does not listen.
    pub fn start_with(data: &Path, config: &Path) -> Self {
        Self::start_as(data, config, &[])
    }

    /// The same with more arguments.
    ///
    /// # Panics
    /// If it does not listen.
    pub fn start_as(data: &Path, config: &Path, arguments: &[&OsStr]) -> Self {
        let mut server = Self::new(data, config, arguments, None);
        server.launch(FREE_PORT);
        server
    }

    /// The same at the address `listen`.
    ///
    /// # Panics
    /// If it does not listen.
    pub fn start_at(data: &Path, listen: &str) -> Self {
        let mut server = Self::new(data, Path::new(CONFIG), &[], None);
        server.launch(listen);
        server
    }

    /// The same as [`start`](Self::start), with its log in a file or pipe that the harness does not read.
    ///
    /// # Panics
    /// If it does not listen.
    pub fn start_logging_to(data: &Path, log: File) -> Self {
        let mut server = Self::new(data, Path::new(CONFIG), &[], Some(log));
        server.launch(FREE_PORT);
        server
    }

    /// The same as [`start`](Self::start), with every system call by name in the file `trace`, which is whole once its
    /// last line says that the server exited. Needs strace.
    ///
    /// # Panics
    /// If it does not listen.
    pub fn start_traced(data: &Path, trace: &Path) -> Self {
        let mut server = Self::new(data, Path::new(CONFIG), &[], None);
        server.trace = Some(trace.to_owned());
        server.launch(FREE_PORT);
        server
    }

    fn new(data: &Path, config: &Path, arguments: &[&OsStr], log_file: Option<File>) -> Self {
        Self {
            data: data.to_owned(),
            config: config.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            child: None,
            address: String::new(),
            log: Arc::default(),
            allowed: Vec::new(),
            reader: None,
            log_file,
            trace: None,
        }
    }

    fn launch(&mut self, listen: &str) {
        let mut command = configured(&self.data, &self.config, listen);
        command.args(&self.arguments);
        if let Some(trace) = &self.trace {
            command = traced(&command, trace);
        }
        if let Some(file) = &self.log_file {
            command.stderr(file.try_clone().expect("a handle can be copied"));
        }
        let mut child = command.spawn().expect("the server can be started");
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&self.log);
            self.reader = Some(std::thread::spawn(move || collect(stderr, &log)));
        }
        let line = first_line(child.stdout.take().expect("it is piped"));
        self.child = Some(child);
        let Some(address) = line.as_deref().and_then(|line| line.strip_prefix("listening on ")) else {
            self.stop_reading();
            panic!("the server said {line:?} instead of where it listens:\n{}", self.log());
        };
        self.address = address.to_owned();
    }

    /// Its address: `http://HOST:PORT`, or `https://HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Host and port of its address.
    pub fn host(&self) -> &str {
        self.address.split_once("://").map_or(self.address(), |(_, host)| host)
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The file with its token.
    pub fn token_file(&self) -> PathBuf {
        self.data.join("admin.token")
    }

    /// Its token.
    ///
    /// # Panics
    /// If there is none.
    pub fn token(&self) -> String {
        let text = std::fs::read_to_string(self.token_file()).expect("a server has a token");
        text.trim_end().to_owned()
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the server runs"))
    }

    /// True if the process is still alive.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// Ends it without any chance to tidy up.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("a killed process ends");
            self.stop_reading();
        }
    }

    /// Asks it to stop, and returns how it ended.
    ///
    /// # Panics
    /// If it does not run, or does not end.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        kill_process(Pid::from_child(&child), Signal::TERM).expect("our own child can be signalled");
        let status = wait::for_state("the server to stop", || child.try_wait().expect("it is our child"));
        self.stop_reading();
        status
    }

    /// Starts it again over the same folder, at a new address.
    pub fn start_again(&mut self) {
        self.kill();
        self.launch(FREE_PORT);
    }

    /// Starts it again over the same folder, at the same address.
    pub fn start_again_here(&mut self) {
        self.kill();
        let host = self.host().to_owned();
        self.launch(&host);
    }

    /// Lets the server log errors that contain `text`.
    pub fn allow_errors(&mut self, text: &str) {
        self.allowed.push(text.to_owned());
    }

    /// Log so far, over all its starts.
    pub fn log(&self) -> String {
        lines(&self.log).iter().fold(String::new(), |mut log, line| {
            let _ = writeln!(log, "  | {line}");
            log
        })
    }

    /// Waits until so many lines of its log contain `text`, and returns the log. A log is written beside the work.
    ///
    /// # Panics
    /// If there are fewer after a while.
    pub fn logged(&self, text: &str, times: usize) -> String {
        wait::for_state(text, || {
            let log = self.log();
            (log.lines().filter(|line| line.contains(text)).count() >= times).then_some(log)
        })
    }

    /// Lines of its log that no test may see unless it allowed them.
    pub fn errors(&self) -> Vec<String> {
        let is_allowed = |line: &&String| !self.allowed.iter().any(|text| line.contains(text));
        lines(&self.log).iter().filter(|line| is_error(line)).filter(is_allowed).cloned().collect()
    }

    fn stop_reading(&mut self) {
        if let Some(reader) = self.reader.take() {
            // It ends with the process, and says nothing when it panicked.
            let _ = reader.join();
        }
    }
}

impl Drop for Server {
    #[expect(clippy::print_stdout, reason = "the harness shows it when the test fails")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.kill();
            println!("log of the server at {}:\n{}", self.address, self.log());
            return;
        }
        if self.child.is_some() {
            let status = self.stop();
            assert!(status.success(), "the server ended with {status}:\n{}", self.log());
        }
        let errors = self.errors();
        assert!(errors.is_empty(), "the server logged errors: {errors:#?}");
    }
}

/// True if a line of a log reports an error or a panic.
fn is_error(line: &str) -> bool {
    line.split_whitespace().take(2).any(|word| word == "ERROR") || line.contains("panicked at")
}

fn lines(log: &Mutex<Vec<String>>) -> std::sync::MutexGuard<'_, Vec<String>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn collect(stderr: impl Read, log: &Mutex<Vec<String>>) {
    let mut stderr = BufReader::new(stderr);
    let mut line = Vec::new();
    while stderr.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        lines(log).push(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// The first line of a program's output, or `None` if it ends without one.
fn first_line(stdout: impl Read + Send + 'static) -> Option<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        let read = stdout.read_line(&mut line);
        // The receiver may be gone.
        let _ = sender.send(read.ok().filter(|read| *read > 0).map(|_| line.trim_end().to_owned()));
        let _ = stdout.read_to_string(&mut line);
    });
    receiver.recv_timeout(wait::PATIENCE).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check of logs would notice an error.
    #[test]
    fn errors_and_panics_in_a_log_are_seen_and_other_lines_are_not() {
        assert!(is_error("2026-01-01T00:00:00.0Z ERROR repo_server::http: request failed"));
        assert!(is_error("thread 'main' panicked at src/main.rs:1:1:"));
        assert!(!is_error("2026-01-01T00:00:00.0Z  INFO repo_server: no ERROR here"));
    }
}
