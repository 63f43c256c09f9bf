//! Output of the tour: a line for each step, its results, and the next commands.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;

use format_spec::ErrorClass;
use indicatif::{HumanBytes, HumanCount};
use node_client::error::EXIT_PARTIAL;
use node_client::push::PushReport;
use node_client::restore::RestoreReport;
use repo_server::config::Config;

use crate::compare::{Comparison, Note};
use crate::place::Places;

/// How the restored tree compares with the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Equal,
    /// It is equal except for files that could not be read, or that changed meanwhile.
    Partial,
    Different,
}

impl Verdict {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Equal => 0,
            Self::Partial => EXIT_PARTIAL,
            Self::Different => ErrorClass::Integrity.exit_code(),
        }
    }
}

/// How many paths of each kind are named.
const SHOWN: usize = 10;

/// One line of the table.
pub(crate) struct Step {
    name: &'static str,
    files: u64,
    bytes: u64,
    sent: Option<u64>,
    stored: Option<u64>,
    seconds: f64,
}

impl Step {
    pub(crate) fn pushed(name: &'static str, report: &PushReport) -> Self {
        Self {
            name,
            files: report.files,
            bytes: report.bytes,
            sent: Some(report.stats.bytes_sent),
            stored: Some(report.stats.bytes_stored),
            seconds: report.seconds,
        }
    }

    pub(crate) fn restored(name: &'static str, report: &RestoreReport) -> Self {
        let sent = Some(report.bytes_fetched);
        Self { name, files: report.files, bytes: report.bytes, sent, stored: None, seconds: report.seconds }
    }

    pub(crate) fn compared(name: &'static str, found: &Comparison, seconds: f64) -> Self {
        Self { name, files: found.files, bytes: found.bytes, sent: None, stored: None, seconds }
    }
}

/// Writes the head of the table.
pub(crate) fn head(out: &mut dyn Write) -> io::Result<()> {
    row(out, &["step", "files", "bytes", "sent", "stored", "seconds", "MB/s"])
}

/// Writes one line of the table.
pub(crate) fn step(out: &mut dyn Write, step: &Step) -> io::Result<()> {
    let bytes = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |bytes| HumanBytes(bytes).to_string());
    row(
        out,
        &[
            step.name,
            &HumanCount(step.files).to_string(),
            &bytes(Some(step.bytes)),
            &bytes(step.sent),
            &bytes(step.stored),
            &format!("{:.2}", step.seconds),
            &format!("{:.0}", megabytes_per_second(step.bytes, step.seconds)),
        ],
    )?;
    out.flush()
}

fn row(out: &mut dyn Write, [name, cells @ ..]: &[&str; 7]) -> io::Result<()> {
    let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>11}")).collect();
    writeln!(out, "{name:<10}{}", cells.concat())
}

#[expect(clippy::as_conversions, reason = "for people: a double is exact enough")]
fn megabytes_per_second(bytes: u64, seconds: f64) -> f64 {
    // A clock that did not move shows no speed rather than an endless one.
    if seconds > 0.0 { bytes as f64 / 1e6 / seconds } else { 0.0 }
}

/// Writes what the steps showed.
pub(crate) fn findings(
    out: &mut dyn Write,
    first: &PushReport,
    second: &PushReport,
    compared: &Comparison,
    verdict: Verdict,
) -> io::Result<()> {
    writeln!(out)?;
    match second.chunks_sent {
        0 => writeln!(out, "The second push sent no data: every chunk was already in the repository.")?,
        chunks => writeln!(out, "The second push sent {chunks} chunks: files had changed in between.")?,
    }
    let reasons = first.problems.iter().map(|problem| (&problem.path, &problem.reason));
    notes(out, "Not in the snapshot", first.problem_count, reasons)?;
    for (title, list) in [
        ("Not readable", &compared.unreadable),
        ("Changed since the push began", &compared.changed),
        ("DIFFERENT", &compared.different),
    ] {
        let lines = list.iter().map(|Note { path, text }| (path.display(), text));
        notes(out, title, u64::try_from(list.len()).unwrap_or(u64::MAX), lines)?;
    }
    let (files, bytes) = (HumanCount(compared.files), HumanBytes(compared.bytes));
    let equal = format!("{files} files with {bytes} are identical");
    match verdict {
        Verdict::Equal => writeln!(out, "The restored tree equals the source: {equal}."),
        Verdict::Partial => {
            writeln!(out, "The restored tree equals the source, with these exceptions: {equal}.")
        }
        Verdict::Different => writeln!(out, "The restored tree DIFFERS from the source: {equal}."),
    }
}

fn notes(
    out: &mut dyn Write,
    title: &str,
    count: u64,
    lines: impl Iterator<Item = (impl Display, impl Display)>,
) -> io::Result<()> {
    if count > 0 {
        writeln!(out, "{title}: {}", HumanCount(count))?;
    }
    for (path, text) in lines.take(SHOWN) {
        writeln!(out, "  {path}: {text}")?;
    }
    Ok(())
}

/// Where a server is to be found from now on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Address {
    /// This process continues to serve.
    Running(SocketAddr),
    /// Where a server listens that is started without more words.
    Default,
}

/// Writes the next commands.
pub(crate) fn go_on(out: &mut dyn Write, places: &Places, address: Address) -> io::Result<()> {
    let token = places.data.join("admin.token");
    let (data, token) = (quoted(&places.data), quoted(&token));
    writeln!(out, "\nNext commands (`cargo build --release` puts the programs into target/release):")?;
    let address = match address {
        Address::Running(address) => address,
        Address::Default => {
            writeln!(out, "  astacus-server --data-dir {data}")?;
            Config::DEFAULT_LISTEN
        }
    };
    let server = format!("--server http://{address} --token-file {token}");
    writeln!(out, "  astacus-client push {} {server}", quoted(&places.source))?;
    writeln!(out, "  astacus-client list {server}")?;
    writeln!(out, "  astacus-client restore latest --to restored {server}")?;
    writeln!(out, "  astacus-admin verify --level read {server}")?;
    writeln!(out, "The master key is {}/master.key: keep a copy on another machine.", places.data.display())?;
    out.flush()
}

/// The path as one word for a shell.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |symbol: char| symbol.is_alphanumeric() || "/._-+,:@%".contains(symbol);
    let text = if text.chars().all(is_plain) {
        text
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
    };
    text.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_for_a_shell() {
        assert_eq!(quoted(Path::new("/a/b-1.c")), "/a/b-1.c");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    #[test]
    fn the_commands_name_the_address_that_is_served() {
        let places = Places { source: "/src".into(), data: "/data".into() };
        let text = |address| {
            let mut out = Vec::new();
            go_on(&mut out, &places, address).unwrap();
            String::from_utf8(out).unwrap()
        };

        let running = text(Address::Running("127.0.0.1:4242".parse().unwrap()));
        let stopped = text(Address::Default);

        assert!(running.contains("http://127.0.0.1:4242") && !running.contains("astacus-server"));
        assert!(stopped.contains("http://127.0.0.1:5515") && stopped.contains("--data-dir /data"));
    }
}
