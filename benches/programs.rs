//! Programs under measurement: ours as they are released, and their peers.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::binaries::program;

/// A program that ran to its end.
pub struct Run {
    /// Wall-clock time.
    pub seconds: f64,
    /// Most memory that it had at once, in KiB; 0 if `time` is not installed.
    pub peak_kib: u64,
    /// Its standard output.
    pub stdout: String,
}

impl Run {
    /// A number in the JSON document on its standard output; 0 if there is none.
    pub fn number(&self, field: &str) -> u64 {
        let document: serde_json::Value = serde_json::from_str(&self.stdout).unwrap_or_default();
        document.get(field).and_then(serde_json::Value::as_u64).unwrap_or(0)
    }
}

/// Runs a command that must succeed.
///
/// # Panics
/// With what it said, if it fails.
#[expect(clippy::disallowed_methods, reason = "measuring is what a benchmark is for")]
pub fn timed(mut command: Command) -> Run {
    let mut with_time = Command::new("/usr/bin/time");
    with_time.args(["-f", "%M"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        with_time.env(name, value.expect("only set variables"));
    }
    let has_time = Path::new("/usr/bin/time").exists();
    // Without a sync, dirty data of the previous run would be written at the expense of this one.
    Command::new("sync").status().expect("sync is there");
    let started = Instant::now();
    let output = if has_time { with_time.output() } else { command.output() };
    let seconds = started.elapsed().as_secs_f64();
    let output = output.expect("the command starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {told}");
    let peak_kib = told.lines().last().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
    Run { seconds, peak_kib, stdout: String::from_utf8_lossy(&output.stdout).into_owned() }
}

/// A running server.
pub struct Server {
    process: Child,
    /// Address of the server.
    pub address: String,
}

impl Server {
    /// Starts one over the folder `data`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(data: &Path) -> Self {
        Self::run(Command::new(program("astacus-server")), data)
    }

    /// Like [`start`](Self::start), with the configuration file `config`.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_with(config: &Path, data: &Path) -> Self {
        let mut command = Command::new(program("astacus-server"));
        command.arg("--config").arg(config);
        Self::run(command, data)
    }

    fn run(mut command: Command, data: &Path) -> Self {
        let mut process = command
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the server says where it listens");
        let address = line.trim().strip_prefix("listening on ").expect("the ready line").to_owned();
        Self { process, address }
    }

    /// Most memory that it had at once, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }

    /// Restarts the measurement of [`peak_kib`](Self::peak_kib) at the present value.
    ///
    /// # Panics
    /// If the kernel does not take it.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5").expect("a process of ours");
    }

    /// Waits until it works no more, and returns the seconds of processor time that it has had so far.
    ///
    /// # Panics
    /// If the operating system does not tell of it.
    pub fn rest(&self) -> f64 {
        const LOOK_EVERY: Duration = Duration::from_millis(100);
        let mut before = self.ticks();
        loop {
            #[expect(clippy::disallowed_methods, reason = "only the operating system tells of rest")]
            std::thread::sleep(LOOK_EVERY);
            let ticks = self.ticks();
            if ticks == before {
                return f64::from(ticks) / 100.0;
            }
            before = ticks;
        }
    }

    /// Processor time so far, in hundredths of a second.
    fn ticks(&self) -> u32 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()));
        let stat = stat.expect("a process of ours");
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in brackets");
        // See proc(5): utime and stime are fields 14 and 15, and these begin with the third.
        fields.split(' ').skip(11).take(2).map(|field| field.parse::<u32>().expect("a number")).sum()
    }

    /// Ends it.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn stop(&mut self) {
        let pid = self.process.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().expect("kill is there");
        assert!(self.process.wait().expect("it ends").success(), "the server stops cleanly");
    }
}

/// Bytes of all files below a folder.
///
/// # Panics
/// If it cannot be read.
pub fn folder_len(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a readable folder");
    let len = |entry: std::fs::DirEntry| {
        let meta = entry.metadata().expect("a readable entry");
        if meta.is_dir() { folder_len(&entry.path()) } else { meta.len() }
    };
    entries.map(|entry| len(entry.expect("a readable entry"))).sum()
}
