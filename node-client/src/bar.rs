//! The progress bar: on a terminal only, on standard error, and never in the way of the work.

use std::fmt::Write;
use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use format_spec::EntryPath;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::cli::Output;
use crate::progress::{Fate, Progress};
use crate::restore;

const TICK: Duration = Duration::from_millis(100);

/// A bar for one command. It goes away when it is dropped.
pub struct Bar {
    bar: ProgressBar,
    counts: Arc<Counts>,
    naming: Naming,
}

/// The files that are named while a push deals with them, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Naming {
    /// None.
    #[default]
    Nothing,
    /// Those that are new, changed, left out or missing.
    Changes,
    /// All.
    Everything,
}

impl Naming {
    /// Asked for so many times.
    pub fn of(count: u8) -> Self {
        match count {
            0 => Self::Nothing,
            1 => Self::Changes,
            _ => Self::Everything,
        }
    }

    /// The line for a file; `None` if it is not to be named.
    fn line(self, fate: Fate, path: &EntryPath) -> Option<String> {
        let (word, from) = match fate {
            Fate::New => ("new", Self::Changes),
            Fate::Changed => ("changed", Self::Changes),
            Fate::Appended => ("appended", Self::Changes),
            Fate::Resumed => ("resumed", Self::Changes),
            Fate::Excluded => ("excluded", Self::Changes),
            Fate::Unreadable => ("unreadable", Self::Changes),
            Fate::Unchanged => ("unchanged", Self::Everything),
            Fate::Linked => ("linked", Self::Everything),
        };
        (self >= from).then(|| format!("{word:<10} /{path}"))
    }
}

#[derive(Default)]
struct Counts {
    listed: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    sent: AtomicU64,
}

impl Bar {
    /// A bar for a push.
    pub fn for_push(output: Output) -> Self {
        let counts = Arc::new(Counts::default());
        let shown = Arc::clone(&counts);
        let style = style("{spinner} {elapsed_precise} {pushed}").with_key(
            "pushed",
            move |_: &ProgressState, out: &mut dyn Write| {
                let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
                let (entries, bytes) = (HumanCount(of(&shown.entries)), HumanBytes(of(&shown.bytes)));
                // Writing to a terminal line cannot fail in a way that matters.
                let _ = match of(&shown.entries) {
                    0 => write!(out, "listed {}", HumanBytes(of(&shown.listed))),
                    _ => {
                        let (listed, sent) = (HumanBytes(of(&shown.listed)), HumanBytes(of(&shown.sent)));
                        write!(out, "{entries} entries, {bytes} of {listed}, sent {sent}")
                    }
                };
            },
        );
        Self { bar: start(output, style), counts, naming: Naming::Nothing }
    }

    /// The same, which also names files.
    pub fn naming(mut self, naming: Naming) -> Self {
        self.naming = naming;
        self
    }

    /// A bar for a restore or a check.
    pub fn for_restore(output: Output) -> Self {
        let style =
            style("{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {elapsed_precise} left {eta}");
        Self { bar: start(output, style), counts: Arc::default(), naming: Naming::Nothing }
    }

    /// Shows how far a restore or a check is.
    pub fn at(&self, progress: restore::Progress) {
        self.bar.set_length(progress.bytes_total);
        self.bar.set_position(progress.bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn listed(&self, bytes: u64) {
        self.counts.listed.fetch_add(bytes, Ordering::Relaxed);
    }

    fn scanned(&self, bytes: u64) {
        self.counts.entries.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn named(&self, fate: Fate, path: &EntryPath) {
        let Some(line) = self.naming.line(fate, path) else { return };
        // A standard error that cannot be written is no reason to end a push.
        self.bar.suspend(|| drop(writeln!(std::io::stderr().lock(), "{line}")));
    }

    fn sent(&self, bytes: u64) {
        self.counts.sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn start(output: Output, style: ProgressStyle) -> ProgressBar {
    if output.quiet || !std::io::stderr().is_terminal() {
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

    #[test]
    fn files_are_named_as_far_as_that_was_asked_for_and_move_no_cursor() {
        let path = EntryPath::new(b"a\x1b[2J\nb\xff".to_vec()).unwrap();
        let all =
            [Fate::New, Fate::Appended, Fate::Excluded, Fate::Unreadable, Fate::Unchanged, Fate::Linked];
        let named = |count| all.iter().filter(|fate| Naming::of(count).line(**fate, &path).is_some()).count();

        assert_eq!([0, 1, 2, 3].map(named), [0, 4, 6, 6]);
        let line = Naming::Changes.line(Fate::New, &path).unwrap();
        assert_eq!(line, "new        /a\\u{1b}[2J\\nb\\xff");
    }
}
