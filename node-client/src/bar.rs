//! How far a command is, on standard error: a bar on a terminal, or lines of text or JSON. Never in the way of the work.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use format_spec::EntryPath;
use indicatif::{
    HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::api::Step;
use crate::clock::{Clock, SystemClock};
use crate::output::{Naming, Output, ProgressMode};
use crate::progress::{Fate, Phase, Progress};
use crate::restore;
use crate::signals::on_user_signal;

const TICK: Duration = Duration::from_millis(100);
/// Time between two lines of text.
const LINES_EVERY: Duration = Duration::from_secs(30);
/// Time between two lines of JSON within a phase.
const JSON_EVERY: Duration = Duration::from_secs(10);

/// The progress of one command. Its bar is removed when it is dropped.
pub struct Bar {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
    naming: Naming,
}

/// Counters of the threads of the command, and the bar that shows them.
struct Shared {
    bar: ProgressBar,
    form: Form,
    clock: SystemClock,
    counts: Arc<Counts>,
}

/// Form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

#[derive(Default)]
struct Counts {
    phase: Mutex<Phase>,
    listed_files: AtomicU64,
    listed_bytes: AtomicU64,
    files: AtomicU64,
    bytes: AtomicU64,
    read: AtomicU64,
    sent: AtomicU64,
}

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Moment {
    /// Current phase.
    phase: Phase,
    /// Files that were dealt with; of a push, folders and links as well.
    files: u64,
    /// Files that there are, as far as they were listed.
    files_total: u64,
    /// Bytes of the files that were dealt with.
    bytes: u64,
    /// Bytes of the files that there are, as far as they were listed.
    bytes_total: u64,
    /// Bytes that a push has read.
    read: u64,
    /// Bytes that it has sent.
    sent: u64,
    /// Seconds since the command began.
    seconds: u64,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, files, bytes, bytes_total, read, sent, .. } = *self;
        let (count, total) = (HumanCount(files), HumanBytes(bytes_total));
        match phase {
            Phase::Starting => f.write_str("starting"),
            Phase::Listing => write!(f, "listed {total}"),
            // A stream has no list.
            Phase::Sending if bytes_total == 0 => {
                write!(f, "read {}, sent {}", HumanBytes(read), HumanBytes(sent))
            }
            Phase::Sending => {
                write!(f, "{count} entries, {} of {total}, sent {}", HumanBytes(bytes), HumanBytes(sent))
            }
            Phase::Committing => write!(f, "committing: {count} entries, sent {}", HumanBytes(sent)),
            Phase::Restoring => write!(f, "restored {} of {total}", HumanBytes(bytes)),
            Phase::Verifying => write!(f, "checked {} of {total}", HumanBytes(bytes)),
        }
    }
}

impl Counts {
    fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    fn phase(&self) -> Phase {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, elapsed: Duration) -> Moment {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Moment {
            phase: self.phase(),
            files: of(&self.files),
            files_total: of(&self.listed_files),
            bytes: of(&self.bytes),
            bytes_total: of(&self.listed_bytes),
            read: of(&self.read),
            sent: of(&self.sent),
            seconds: elapsed.as_secs(),
        }
    }
}

impl Shared {
    fn now(&self) -> Moment {
        self.counts.at(self.clock.elapsed())
    }

    /// Writes one line on standard error. That it cannot be written is no reason to end.
    fn tell(&self) {
        let line = line(&self.now(), self.form);
        self.bar.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        });
    }
}

fn line(moment: &Moment, form: Form) -> String {
    match form {
        Form::Text => format!("{moment}, {}", HumanDuration(Duration::from_secs(moment.seconds))),
        // Numbers and names of phases can always be written.
        Form::Json => serde_json::to_string(moment).unwrap_or_default(),
    }
}

impl Bar {
    /// Progress of a push, with a line at each `SIGUSR1`.
    pub fn for_push(output: Output, mode: ProgressMode, runtime: &Handle) -> Self {
        Self::start(output, mode, runtime, Phase::Starting, |shared| {
            style("{spinner} {elapsed_precise} {pushed}").with_key(
                "pushed",
                move |_: &ProgressState, out: &mut dyn fmt::Write| {
                    // Writing to a terminal line cannot fail in a way that matters.
                    let _ = write!(out, "{}", shared.at(Duration::ZERO));
                },
            )
        })
    }

    /// The same, which also names files.
    pub fn naming(mut self, naming: Naming) -> Self {
        self.naming = naming;
        self
    }

    /// Progress of a restore or a check in `phase`, with a line at each `SIGUSR1`.
    pub fn for_restore(output: Output, mode: ProgressMode, runtime: &Handle, phase: Phase) -> Self {
        Self::start(output, mode, runtime, phase, |_| {
            style("{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {elapsed_precise} left {eta}")
        })
    }

    fn start(
        output: Output,
        mode: ProgressMode,
        runtime: &Handle,
        phase: Phase,
        style: impl FnOnce(Arc<Counts>) -> ProgressStyle,
    ) -> Self {
        let counts = Arc::new(Counts::default());
        counts.enter(phase);
        let is_bar = match mode {
            ProgressMode::Auto => !output.quiet,
            ProgressMode::Bar => true,
            ProgressMode::Lines | ProgressMode::Json | ProgressMode::None => false,
        };
        let bar = if is_bar { bar(style(Arc::clone(&counts))) } else { ProgressBar::hidden() };
        let form = if mode == ProgressMode::Json { Form::Json } else { Form::Text };
        let shared = Arc::new(Shared { bar, form, clock: SystemClock::new(), counts });
        let told = Arc::clone(&shared);
        // Without a signal handler, no signal arrives either.
        let asked = on_user_signal(runtime, move || told.tell()).ok();
        let every = match mode {
            ProgressMode::Lines => Some(LINES_EVERY),
            ProgressMode::Json => Some(JSON_EVERY),
            ProgressMode::Auto | ProgressMode::Bar | ProgressMode::None => None,
        };
        let told = Arc::clone(&shared);
        let by_time = every.map(|every| runtime.spawn(each(every, move || told.tell())).abort_handle());
        Self { shared, tasks: asked.into_iter().chain(by_time).collect(), naming: Naming::Nothing }
    }

    /// Shows how far a restore or a check is.
    pub fn at(&self, progress: restore::Progress) {
        self.shared.bar.set_length(progress.bytes_total);
        self.shared.bar.set_position(progress.bytes);
        let counts = &self.shared.counts;
        for (count, value) in [
            (&counts.files, progress.files),
            (&counts.listed_files, progress.files_total),
            (&counts.bytes, progress.bytes),
            (&counts.listed_bytes, progress.bytes_total),
        ] {
            count.store(value, Ordering::Relaxed);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.shared.bar.finish_and_clear();
        if self.shared.form == Form::Json {
            self.shared.tell();
        }
    }
}

impl Progress for Bar {
    fn phase(&self, phase: Phase) {
        self.shared.counts.enter(phase);
        if self.shared.form == Form::Json {
            self.shared.tell();
        }
    }

    fn listed(&self, bytes: u64) {
        self.shared.counts.listed_files.fetch_add(1, Ordering::Relaxed);
        self.shared.counts.listed_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn scanned(&self, bytes: u64) {
        self.shared.counts.files.fetch_add(1, Ordering::Relaxed);
        self.shared.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn read(&self, bytes: u64) {
        self.shared.counts.read.fetch_add(bytes, Ordering::Relaxed);
    }

    fn named(&self, fate: Fate, path: &EntryPath) {
        let Some(line) = self.naming.line(fate, path) else { return };
        // A standard error that cannot be written is no reason to end a push.
        self.shared.bar.suspend(|| {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        });
    }

    fn sent(&self, bytes: u64) {
        self.shared.counts.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The bar of a run of the server. It is removed when it is dropped.
pub struct RunBar(ProgressBar);

impl RunBar {
    /// A bar on a terminal; hidden elsewhere, and where `output` is quiet.
    pub fn start(output: Output) -> Self {
        let style = style("{spinner} {elapsed_precise} {msg} {human_pos}");
        Self(if output.quiet { ProgressBar::hidden() } else { bar(style) })
    }

    /// Shows how far the run is.
    pub fn at(&self, step: Step) {
        let phase = step.phase.unwrap_or_default();
        if self.0.message() != phase {
            self.0.set_message(phase);
            self.0.reset_elapsed();
        }
        if let Some(total) = step.total.filter(|total| self.0.length() != Some(*total)) {
            self.0.set_style(style("{bar:30} {pos}/{len} {elapsed_precise} left {eta}"));
            self.0.set_length(total);
        }
        self.0.set_position(step.done);
    }
}

impl Drop for RunBar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Calls `tell` again and again, first after `every`.
async fn each(every: Duration, tell: impl Fn()) {
    loop {
        tokio::time::sleep(every).await;
        tell();
    }
}

/// A bar on a terminal; hidden where standard error is none.
fn bar(style: ProgressStyle) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates in this file are well-formed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(phase: Phase) -> Moment {
        Moment {
            phase,
            files: 1234,
            files_total: 2000,
            bytes: 1 << 30,
            bytes_total: 4 << 30,
            read: 3 << 20,
            sent: 1 << 20,
            seconds: 65,
        }
    }

    #[test]
    fn a_line_says_phase_and_counts() {
        let text = |moment: Moment| line(&moment, Form::Text);

        assert_eq!(
            text(moment(Phase::Sending)),
            "1,234 entries, 1.00 GiB of 4.00 GiB, sent 1.00 MiB, 65 seconds"
        );
        assert_eq!(text(moment(Phase::Restoring)), "restored 1.00 GiB of 4.00 GiB, 65 seconds");
        let stream = Moment { bytes_total: 0, ..moment(Phase::Sending) };
        assert!(text(stream).starts_with("read 3.00 MiB, sent 1.00 MiB"), "{}", text(stream));
        assert_eq!(
            line(&moment(Phase::Sending), Form::Json),
            r#"{"phase":"sending","files":1234,"files_total":2000,"bytes":1073741824,"bytes_total":4294967296,"read":3145728,"sent":1048576,"seconds":65}"#
        );
    }

    #[tokio::test(start_paused = true)]
    async fn lines_come_at_their_pace() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let telling = tokio::spawn(each(LINES_EVERY, move || {
            let _ = sender.send(());
        }));

        tokio::time::sleep(LINES_EVERY * 3 + TICK).await;

        telling.abort();
        assert_eq!(receiver.try_iter().count(), 3);
    }
}
