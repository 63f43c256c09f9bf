//! The log: lines on standard error that never hold up, and never end, the program that writes them.
//!
//! A thread of its own writes. Lines that it cannot write (a full disk, a pipe or a terminal that was closed) are
//! dropped, and so are lines beyond `LINES` that wait for a reader who has stopped reading; the log says how many
//! were dropped once it can be written again.
//!
//! A line is text for people, or one JSON document for programs. No text of a client, a node or a disk makes two lines
//! of one or moves a cursor: control characters are written as escapes.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::Duration;

use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FormatFields, Writer, debug_fn};

/// Lines that wait to be written, at most: about half a megabyte.
const LINES: usize = 4096;

/// How long [`Log::flush`] waits for a reader.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// How lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document each, with `timestamp`, `level`, `message`, `target` and the fields of the event.
    Json,
}

impl std::str::FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected `text` or `json`"),
        }
    }
}

enum Order {
    Write(Vec<u8>),
    /// Answer once all lines before it are written.
    Answer(SyncSender<()>),
}

/// The log of a program. Clones write to the same one.
#[derive(Clone)]
pub struct Log {
    orders: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
}

impl Log {
    /// Logs to standard error from here on: what `ASTACUS_LOG` chooses (in the syntax of
    /// `tracing_subscriber::EnvFilter`), or else `default`.
    ///
    /// # Panics
    /// If the process logs already.
    pub fn start(default: &str, format: Format) -> Self {
        let filter = EnvFilter::try_from_env("ASTACUS_LOG").unwrap_or_else(|_| default.into());
        let log = Self::to(io::stderr(), LINES);
        #[expect(clippy::disallowed_methods, reason = "this is the place; errors of the log are dropped")]
        let lines = tracing_subscriber::fmt()
            .log_internal_errors(false)
            .with_env_filter(filter)
            .with_ansi(has_colours(io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref()))
            .with_writer(log.clone());
        match format {
            Format::Text => lines.fmt_fields(plain_fields()).init(),
            Format::Json => lines.json().flatten_event(true).init(),
        }
        log
    }

    /// A log that a thread writes to `out`; `lines` wait for it at most. Without a thread every line is dropped.
    fn to(out: impl Write + Send + 'static, lines: usize) -> Self {
        let (orders, receiver) = mpsc::sync_channel(lines);
        let log = Self { orders, dropped: Arc::default() };
        let dropped = Arc::clone(&log.dropped);
        // Without a log a server is still worth more than none.
        let _ =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || write(out, &receiver, &dropped));
        log
    }

    /// Waits until the lines so far are written, but not for longer than a healthy reader needs.
    pub fn flush(&self) {
        let (answer, answered) = mpsc::sync_channel(1);
        // A full queue has a reader who stopped: there is nothing to wait for.
        if self.orders.try_send(Order::Answer(answer)).is_ok() {
            let _ = answered.recv_timeout(FLUSH_WITHIN);
        }
    }
}

/// True if lines are coloured: on a terminal, unless `NO_COLOR` is set to anything.
fn has_colours(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Fields as text, without control characters.
fn plain_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &tracing::field::Field, value: &dyn fmt::Debug| {
        let text = plain(&format!("{value:?}"));
        match field.name() {
            "message" => write!(writer, "{text}"),
            name => write!(writer, "{name}={text}"),
        }
    })
    .delimited(" ")
}

/// A text of one line.
fn plain(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Writes the orders until all senders are gone. A line that fails is lost.
fn write(mut out: impl Write, orders: &Receiver<Order>, dropped: &AtomicU64) {
    for order in orders {
        match order {
            Order::Write(line) => {
                let lost = dropped.swap(0, Ordering::Relaxed);
                let told =
                    if lost > 0 { format!("{lost} log lines were dropped here\n") } else { String::new() };
                if out.write_all(told.as_bytes()).and_then(|()| out.write_all(&line)).is_err() {
                    dropped.fetch_add(lost + 1, Ordering::Relaxed);
                }
            }
            Order::Answer(answer) => drop(answer.try_send(())),
        }
    }
}

impl Write for Log {
    /// Takes a whole line; it is written later or dropped.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.orders.try_send(Order::Write(line.to_vec())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A file on a disk that has as much room as it says.
    #[derive(Clone, Default)]
    struct Disk {
        room: Arc<Mutex<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Disk {
        fn text(&self) -> String {
            String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut room = self.room.lock().unwrap();
            *room = room.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_counted_and_later_ones_are_written() {
        let disk = Disk::default();
        let mut log = Log::to(disk.clone(), 10);
        for line in ["one\n", "two\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        log.flush();

        *disk.room.lock().unwrap() = 1000;
        log.write_all(b"three\n").unwrap();
        log.flush();

        assert_eq!(disk.text(), "2 log lines were dropped here\nthree\n");
    }

    #[test]
    fn a_reader_who_does_not_read_holds_nobody_up() {
        let (orders, held) = mpsc::sync_channel(2);
        let mut log = Log { orders, dropped: Arc::default() };
        for _ in 0..5 {
            log.write_all(b"line\n").unwrap();
        }

        log.flush();

        assert_eq!((held.try_iter().count(), log.dropped.load(Ordering::Relaxed)), (2, 3));
    }

    #[test]
    fn a_log_without_its_thread_takes_lines_and_drops_them() {
        let (orders, gone) = mpsc::sync_channel(2);
        drop(gone);
        let mut log = Log { orders, dropped: Arc::default() };

        log.write_all(b"line\n").unwrap();
        log.flush();
    }

    /// Formatted line of an event, as a server writes it.
    fn line(event: impl FnOnce()) -> String {
        let disk = Disk::default();
        *disk.room.lock().unwrap() = 1000;
        let log = Log::to(disk.clone(), 10);
        #[expect(clippy::disallowed_methods, reason = "it writes to the log that is tested")]
        let lines =
            tracing_subscriber::fmt().with_ansi(false).with_writer(log.clone()).fmt_fields(plain_fields());
        tracing::subscriber::with_default(lines.finish(), event);
        log.flush();
        disk.text()
    }

    #[test]
    fn no_control_character_of_anybody_reaches_a_log() {
        let (evil, told) = ("a\nb\u{1b}[2Jc", std::io::Error::other("x\r\ny\u{9b}"));

        let line = line(|| tracing::info!(evil, shown = %evil, error = %told, "read {evil}"));

        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        assert!(!line.trim_end().chars().any(char::is_control), "{line:?}");
        for text in [r#"evil="a\nb\u{1b}[2Jc""#, r"shown=a\nb\u{1b}[2Jc", r"error=x\r\ny\u{9b}", r"read a\nb"]
        {
            assert!(line.contains(text), "{text} {line:?}");
        }
    }
}
