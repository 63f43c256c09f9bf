//! `verify` and `scrub`: what they ask for, and what they found.

use std::io::{self, Write};
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use format_spec::wire::{
    Finding, FindingKind, Stopped, VerifyLevel, VerifyLimits, VerifyReport, VerifyRequest,
};
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use node_client::api::Api;
use node_client::cli::Output;
use node_client::error::ClientError;
use node_client::named::SnapshotChoice;
use node_client::rate::Rate;
use node_client::show::{Counted, Show, show};
use serde::Serialize;

use crate::audit;
use crate::cli::{Arguments, Turn};
use crate::commands::{Verdict, ask, in_turn};
use crate::error::AdminError;
use crate::named;
use crate::show::table;

/// Files and ranges that the text shows of one finding; `--json` has all that the server names.
const SHOWN: usize = 20;

/// Arguments of `verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Verify {
    /// Depth of the check.
    #[arg(long, value_enum, default_value_t = Level::Exists)]
    level: Level,
    /// Check only the data of this snapshot [default: everything].
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<SnapshotChoice>,
    /// With `--level refs`: repair wrong counts.
    #[arg(long)]
    repair: bool,
    /// Treat packs that are missing from the site as lost, even if they are most of them. The next pushes
    /// send again what the nodes still have.
    #[arg(long)]
    accept_loss: bool,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    turn: Turn,
}

/// Arguments of `scrub`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Scrub {
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    pub(crate) turn: Turn,
}

/// Limits of one run. The next run starts with the packs whose last check is oldest.
#[derive(Debug, Clone, Args)]
struct Limits {
    /// Read this share of all packs by bytes, such as `5%`.
    #[arg(long, value_name = "PERCENT")]
    sample: Option<Share>,
    /// Read at most this many bytes of packs, such as `10G`.
    #[arg(long, value_name = "SIZE", value_parser = some_bytes)]
    max_bytes: Option<NonZeroU64>,
    /// Stop starting new work after this time, such as `90s`, `30m` or `2h`.
    #[arg(long, value_name = "DURATION")]
    max_time: Option<Time>,
    /// Read at most this many bytes of packs per second, such as `20M`.
    #[arg(long, value_name = "SIZE")]
    max_rate: Option<Rate>,
}

impl Limits {
    fn are_given(&self) -> bool {
        self.wire() != VerifyLimits::default()
    }

    fn wire(&self) -> VerifyLimits {
        let ms = |time: Time| u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX);
        VerifyLimits {
            sample_ppm: self.sample.map(|share| share.0),
            max_bytes: self.max_bytes.map(NonZeroU64::get),
            max_time_ms: self.max_time.map(ms),
            max_rate: self.max_rate.map(|rate| rate.bytes_per_second().get()),
        }
    }
}

/// A number of bytes, written as rates are.
fn some_bytes(text: &str) -> Result<NonZeroU64, String> {
    let expected = || "expected a number of bytes above 0, such as `500000`, `512M` or `10GiB`".to_owned();
    text.parse().map(Rate::bytes_per_second).map_err(|_| expected())
}

impl Verify {
    /// Checks what was asked for: stored objects, or the counts of the index.
    pub(crate) fn run(&self, arguments: &Arguments) -> Result<Verdict, AdminError> {
        match self.request() {
            None if self.snapshot.is_some() || self.accept_loss || self.limits.are_given() => {
                Err(audit::counts_everything())
            }
            None => audit::run(arguments, self.repair, self.turn),
            Some(_) if self.repair => Err(audit::nothing_to_repair()),
            Some(request) => {
                let named = self.snapshot.as_ref();
                let named = named.map(|named| ask(arguments, async |api| named::one(&api, named).await));
                run(arguments, &VerifyRequest { snapshot: named.transpose()?, ..request }, self.turn)
            }
        }
    }

    /// Request to check stored objects; `None` if the counts are checked.
    fn request(&self) -> Option<VerifyRequest> {
        let level = self.level.of_objects()?;
        let limits = self.limits.wire();
        Some(VerifyRequest { level, snapshot: None, limits, accept_loss: self.accept_loss })
    }
}

impl Scrub {
    /// Request to the server.
    pub(crate) fn request(&self) -> VerifyRequest {
        VerifyRequest { limits: self.limits.wire(), ..VerifyLevel::Read.into() }
    }
}

/// Depth of a check.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    /// Every page and chunk that a snapshot needs is in the index.
    Index,
    /// Like `index`, and every pack that the index names exists on the site with the right length.
    Exists,
    /// Like `exists`, and every byte of every pack is correct.
    Read,
    /// Like `read`, and every file of every snapshot can be restored: order of its parts, length, digest.
    Restore,
    /// The reference counts of the index equal a recount from manifests and pages.
    Refs,
}

impl Level {
    /// How deep to look at stored objects; `None` for the counts.
    fn of_objects(self) -> Option<VerifyLevel> {
        match self {
            Self::Index => Some(VerifyLevel::Index),
            Self::Exists => Some(VerifyLevel::Exists),
            Self::Read => Some(VerifyLevel::Read),
            Self::Restore => Some(VerifyLevel::Restore),
            Self::Refs => None,
        }
    }
}

/// A share in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share(u32);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a share: expected more than 0% and at most 100%, such as `2.5%`");
        let number = text.strip_suffix('%').unwrap_or(text);
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(part) || part.len() > 4 {
            return Err(wrong());
        }
        let part: u32 = format!("{part:0<4}").parse().map_err(|_| wrong())?;
        let ppm = whole.parse::<u32>().ok().and_then(|whole| whole.checked_mul(10_000)?.checked_add(part));
        ppm.filter(|ppm| (1..=1_000_000).contains(ppm)).map(Self).ok_or_else(wrong)
    }
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Time(Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a time: expected a whole number with s, m, h or d, such as `30m`");
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text.strip_prefix(digits) {
            Some("s" | "") => 1,
            Some("m") => 60,
            Some("h") => 60 * 60,
            Some("d") => 24 * 60 * 60,
            _ => return Err(wrong()),
        };
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let count: Option<u64> = if is_plain { digits.parse().ok() } else { None };
        let seconds = count.and_then(|count| count.checked_mul(unit)).filter(|seconds| *seconds > 0);
        seconds.map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(wrong)
    }
}

/// Runs a check and shows what it found.
///
/// # Errors
/// [`AdminError`]: nothing was shown on standard output then.
pub(crate) fn run(arguments: &Arguments, request: &VerifyRequest, turn: Turn) -> Result<Verdict, AdminError> {
    let report = ask(arguments, async |api| {
        in_turn(turn, async || check(&api, request, arguments.output).await).await
    })?;
    let verified = Verified::new(request.level, report);
    show(&verified, arguments.output)?;
    Ok(verified.verdict())
}

async fn check(api: &Api, request: &VerifyRequest, output: Output) -> Result<VerifyReport, ClientError> {
    let bar = bar(output);
    let report = api.verify(request.clone(), |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    let report = report.await;
    bar.finish_and_clear();
    report
}

/// A bar on standard error, which hides itself when that is no terminal.
pub(crate) fn bar(output: Output) -> ProgressBar {
    let bar = if output.quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed_precise} left {eta}");
    bar.set_style(style.expect("the template is well-formed"));
    bar
}

/// Result of a check.
#[derive(Debug, Serialize)]
struct Verified {
    level: VerifyLevel,
    sound: bool,
    #[serde(flatten)]
    report: VerifyReport,
}

impl Verified {
    fn new(level: VerifyLevel, report: VerifyReport) -> Self {
        Self { level, sound: report.findings.is_empty(), report }
    }

    fn verdict(&self) -> Verdict {
        if self.report.counts.damage() > 0 {
            Verdict::Damaged
        } else if self.report.counts.unreadable > 0 {
            Verdict::Unknown
        } else {
            Verdict::Sound
        }
    }
}

impl Show for Verified {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let VerifyReport { snapshots, pages, references, files, packs, blobs, bytes_read, .. } = &self.report;
        let [snapshots, pages, references, files, packs, blobs] = [
            (snapshots, "snapshot"),
            (pages, "page"),
            (references, "reference"),
            (files, "file"),
            (packs, "pack"),
            (blobs, "blob"),
        ]
        .map(|(count, noun)| Counted(*count, noun));
        let verdict = match self.verdict() {
            Verdict::Sound => "OK",
            Verdict::Damaged => "the repository is DAMAGED",
            Verdict::Partial | Verdict::Unknown => "some stored data could not be READ",
        };
        writeln!(
            out,
            "{verdict}: checked {snapshots}, {pages}, {references}, {files}, {packs}; read {blobs}, {}",
            HumanBytes(*bytes_read)
        )?;
        self.progress(out)?;
        if self.sound {
            return Ok(());
        }
        let mut rows = vec![["KIND", "OBJECT", "PROBLEM"].map(str::to_owned)];
        rows.extend(self.report.findings.iter().map(row));
        table(out, &rows)?;
        self.report.findings.iter().try_for_each(|finding| hurts(out, finding))
    }

    fn is_news(&self) -> bool {
        !self.sound
    }
}

impl Verified {
    /// How much is left to read, and how long ago the rest was.
    fn progress(&self, out: &mut dyn Write) -> io::Result<()> {
        let report = &self.report;
        if report.quarantined + report.recovered > 0 {
            let [new, old] = [report.quarantined, report.recovered].map(HumanCount);
            writeln!(out, "damaged blobs: {new} newly found, {old} recovered")?;
        }
        if report.left.count > 0 {
            let why = match report.stopped {
                Some(Stopped::Bytes) => "byte limit reached: ",
                Some(Stopped::Time) => "time limit reached: ",
                None => "",
            };
            let left = Counted(report.left.count, "pack");
            writeln!(out, "{why}{left} ({}) not checked", HumanBytes(report.left.bytes))?;
        }
        if self.level >= VerifyLevel::Read {
            let never = HumanCount(report.never_verified);
            let oldest = report.oldest_verified.as_deref().unwrap_or("none");
            writeln!(out, "packs never fully verified: {never}; oldest full check of the others: {oldest}")?;
        } else {
            writeln!(out, "stored bytes were not read: `--level read` reads all of them")?;
        }
        Ok(())
    }
}

fn row(finding: &Finding) -> [String; 3] {
    let kind = match finding.kind {
        FindingKind::Corrupt => "corrupt",
        FindingKind::Missing => "missing",
        FindingKind::Unreadable => "unreadable",
        FindingKind::Index => "index",
    };
    [kind.to_owned(), finding.object.clone(), finding.problem.clone()]
}

/// Prints the snapshots and files that a finding affects.
fn hurts(out: &mut dyn Write, finding: &Finding) -> io::Result<()> {
    if finding.snapshots.is_empty() {
        return Ok(());
    }
    writeln!(out, "{} affects:", finding.object)?;
    for snapshot in finding.snapshots.iter().take(SHOWN) {
        writeln!(out, "  snapshot {snapshot}")?;
    }
    for file in finding.files.iter().take(SHOWN) {
        writeln!(out, "  {} {} /{}", file.snapshot, file.node, file.path)?;
    }
    for range in finding.ranges.iter().take(SHOWN) {
        let path = |path: &Option<String>, end: &str| {
            path.as_ref().map_or_else(|| end.to_owned(), |path| format!("/{path}"))
        };
        let (after, before) = (path(&range.after, "the first"), path(&range.before, "the last"));
        writeln!(out, "  {} {} all files between {after} and {before}", range.snapshot, range.node)?;
    }
    let hidden = |len: usize| u64::try_from(len.saturating_sub(SHOWN)).unwrap_or(u64::MAX);
    let more = finding.more_files + hidden(finding.files.len()) + hidden(finding.ranges.len());
    if more > 0 { writeln!(out, "  and {} more", HumanCount(more)) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
