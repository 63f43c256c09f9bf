//! How far a push steps back behind what else the machine does.

use std::fmt;
use std::io;
use std::process::{Command, Output};
use std::str::FromStr;

/// Sets the disk class of a process; part of util-linux.
const IONICE: &str = "ionice";
/// The number of the idle class, as `ionice` and the kernel count.
const IDLE_CLASS: &str = "3";

/// Priority of this process below other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Priority {
    /// Processor time.
    pub nice: Option<Nice>,
    /// Disks.
    pub disk: DiskClass,
}

/// CPU priority: 1 is a little lower, 19 is the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nice(i32);

/// When the disks work for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskClass {
    /// The priority of the parent process.
    #[default]
    Inherited,
    /// Only when no other program uses them.
    Idle,
}

/// Text that is not a [`Nice`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a nice value: expected a whole number from 1 to 19")]
pub struct ParseNiceError {
    text: String,
}

impl Priority {
    /// Steps back, and returns what could not be done: one line for the user each. A push does not
    /// fail for that.
    ///
    /// Must be called once, on the main thread, before any other thread is started: the kernel keeps both
    /// values for each thread, and a new thread inherits those of the thread that started it.
    ///
    /// The nice value comes on top of the one that we were started with, as with `nice`. The disk
    /// class is set by the program `ionice`; some I/O schedulers, such as `none`, pass over it.
    #[must_use = "the user wants to know what was not done"]
    pub fn apply(&self) -> Vec<String> {
        self.apply_with(IONICE)
    }

    fn apply_with(&self, ionice: &str) -> Vec<String> {
        let nice = self.nice.map_or(Ok(()), Nice::apply);
        let disk = match self.disk {
            DiskClass::Inherited => Ok(()),
            DiskClass::Idle => run(&mut idle_disk(ionice, std::process::id())),
        };
        [nice, disk].into_iter().filter_map(Result::err).collect()
    }
}

impl Nice {
    fn apply(self) -> Result<(), String> {
        let done = rustix::process::nice(self.0);
        done.map(|_| ()).map_err(|error| format!("cannot change the nice value: {}", io::Error::from(error)))
    }
}

impl FromStr for Nice {
    type Err = ParseNiceError;

    fn from_str(text: &str) -> Result<Self, ParseNiceError> {
        let value = text.parse().ok().filter(|value| (1..=19).contains(value));
        value.map(Self).ok_or_else(|| ParseNiceError { text: text.to_owned() })
    }
}

impl fmt::Display for Nice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The command that puts the main thread of `process` into the idle class.
fn idle_disk(ionice: &str, process: u32) -> Command {
    let mut command = Command::new(ionice);
    command.args(["-c", IDLE_CLASS, "-p", &process.to_string()]);
    command
}

fn run(command: &mut Command) -> Result<(), String> {
    let outcome = command.output();
    let program = command.get_program().display();
    match outcome {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("cannot change the I/O priority: `{program}`: {}", last_words(&output))),
        Err(error) => Err(format!("cannot change the I/O priority: `{program}` cannot be run: {error}")),
    }
}

/// Last error output of a program, or else its exit status.
fn last_words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    last.map_or_else(|| output.status.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    /// Applies it on a thread of its own, so that no other test feels it. Returns the nice value
    /// there before and after, and what could not be done.
    fn applied(priority: Priority, ionice: &'static str) -> (i32, i32, Vec<String>) {
        let nice_value = || rustix::process::getpriority_process(None).unwrap();
        let work = move || {
            let before = nice_value();
            let warnings = priority.apply_with(ionice);
            (before, nice_value(), warnings)
        };
        std::thread::spawn(work).join().unwrap()
    }

    fn failed(stderr: &str) -> Output {
        Output { status: ExitStatus::from_raw(1 << 8), stdout: Vec::new(), stderr: stderr.into() }
    }

    #[test]
    fn the_nice_value_comes_on_top_and_ends_at_19() {
        for (text, step) in [("1", 1), ("19", 19)] {
            let priority = Priority { nice: text.parse().ok(), disk: DiskClass::Inherited };

            let (before, after, warnings) = applied(priority, "no-such-program");

            assert_eq!((after, warnings), ((before + step).min(19), Vec::new()));
        }
    }

    #[test]
    fn unless_asked_nothing_changes_and_no_program_is_run() {
        let (before, after, warnings) = applied(Priority::default(), "no-such-program");

        assert_eq!((after, warnings), (before, Vec::new()));
    }

    #[test]
    fn the_idle_class_is_asked_for_by_number_and_for_this_process() {
        let command = idle_disk(IONICE, 4_711);

        assert_eq!(command.get_program(), "ionice");
        assert_eq!(command.get_args().collect::<Vec<_>>(), ["-c", "3", "-p", "4711"]);
    }

    #[test]
    fn a_missing_program_is_named_and_the_rest_is_done_all_the_same() {
        let priority = Priority { nice: "2".parse().ok(), disk: DiskClass::Idle };

        let (before, after, warnings) = applied(priority, "no-such-program");

        assert_eq!(after, (before + 2).min(19));
        assert!(matches!(warnings.as_slice(), [one] if one.contains("`no-such-program`")), "{warnings:?}");
    }

    #[test]
    fn a_program_that_fails_is_named_and_one_that_succeeds_is_not() {
        let priority = Priority { nice: None, disk: DiskClass::Idle };

        let (_, _, fails) = applied(priority, "false");
        let (_, _, succeeds) = applied(priority, "true");

        assert!(matches!(fails.as_slice(), [one] if one.contains("`false`")), "{fails:?}");
        assert!(succeeds.is_empty(), "{succeeds:?}");
    }

    #[test]
    fn the_last_line_of_a_program_tells_why_it_failed_or_else_its_status_does() {
        assert_eq!(last_words(&failed("some help\nionice: not allowed\n\n")), "ionice: not allowed");
        assert_eq!(last_words(&failed(" \n")), "exit status: 1");
    }

    #[test]
    fn a_nice_value_is_a_number_from_1_to_19() {
        for good in ["1", "10", "19"] {
            assert_eq!(good.parse::<Nice>().unwrap().to_string(), good);
        }
        for bad in ["", "0", "20", "-1", "ten", "1.5", " 1", "99999999999"] {
            let error = bad.parse::<Nice>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")) && error.contains("from 1 to 19"), "{error}");
        }
    }
}
