//! The progress bar: on a terminal only, on standard error, and never in the way of the work.

use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::cli::Output;
use crate::progress::Progress;
use crate::restore;

const TICK: Duration = Duration::from_millis(100);

/// A bar for one command. It goes away when it is dropped.
pub struct Bar {
    bar: ProgressBar,
    counts: Arc<Counts>,
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
        Self { bar: start(output, style), counts }
    }

    /// A bar for a restore or a check.
    pub fn for_restore(output: Output) -> Self {
        let style =
            style("{bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {elapsed_precise} left {eta}");
        Self { bar: start(output, style), counts: Arc::default() }
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
