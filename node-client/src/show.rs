//! Output of the commands: text for people, one JSON document for programs.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use format_spec::manifest::{Moment, PushStats};
use format_spec::path::Printable;
use format_spec::snapshot::SnapshotState;
use format_spec::wire::SnapshotInfo;
use format_spec::{About, ErrorClass};
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use crate::error::{ClientError, DAMAGE_HINT, chain};
use crate::list::{Column, Listed};
use crate::output::Output;
use crate::push::{DryPush, LeftOutBy, Planned, ProblemReport, PushReport, Tidied};
use crate::restore::{
    DamagedPage, DryRun, FailedFor, NotRemoved, NotSet, PassedOver, PlannedKind, RestoreReport, Sent,
    VerifyReport,
};
use crate::summary;

/// A number with its noun, for people: `1 file`, `2 files`, `3 entries`.
#[derive(Debug, Clone, Copy)]
pub struct Counted(pub u64, pub &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = *self;
        let number = HumanCount(count);
        match noun.strip_suffix("ry") {
            _ if count == 1 => write!(f, "{number} {noun}"),
            Some(stem) => write!(f, "{number} {stem}ries"),
            None => write!(f, "{number} {noun}s"),
        }
    }
}

/// Something that can be shown to people.
pub trait Show: Serialize {
    /// Writes its text.
    ///
    /// # Errors
    /// Errors of `out`.
    fn text(&self, out: &mut dyn Write) -> io::Result<()>;

    /// True if it must be printed even with `--quiet`.
    fn is_news(&self) -> bool;
}

/// Shows `what` on standard output, as `output` asks for.
///
/// # Errors
/// [`ClientError::Output`] if it could not be written. A reader that has seen enough is no error.
pub fn show(what: &impl Show, output: Output) -> Result<(), ClientError> {
    write_out(|out| match (output.json, output.quiet) {
        (true, _) => document(what, out),
        (false, true) if !what.is_news() => Ok(()),
        (false, _) => what.text(&mut Plain::new(out)),
    })
}

/// Shows `what` on standard error, where standard output is for something else. What cannot be written is dropped.
pub fn show_aside(what: &impl Show, output: Output) {
    if !output.quiet || what.is_news() {
        let _ = what.text(&mut Plain::new(&mut io::stderr().lock()));
    }
}

/// Escapes control characters except the end of a line: texts of servers, of other nodes and of file names
/// must not move the cursor of a terminal.
struct Plain<'a> {
    out: &'a mut dyn Write,
    /// True if the last byte may be the first of a control character of two bytes.
    is_between: bool,
}

/// The first byte of the control characters that have two.
const FIRST_OF_TWO: u8 = 0xc2;

impl<'a> Plain<'a> {
    fn new(out: &'a mut dyn Write) -> Self {
        Self { out, is_between: false }
    }

    fn byte(&mut self, byte: u8) -> io::Result<()> {
        let is_second = std::mem::replace(&mut self.is_between, byte == FIRST_OF_TWO);
        match byte {
            // It waits for the next.
            FIRST_OF_TWO => Ok(()),
            0x80..=0x9f if is_second => write!(self.out, "\\u{{{byte:x}}}"),
            _ if is_second => self.out.write_all(&[FIRST_OF_TWO, byte]),
            b'\n' => self.out.write_all(b"\n"),
            byte if byte.is_ascii_control() => write!(self.out, "\\u{{{byte:x}}}"),
            byte => self.out.write_all(&[byte]),
        }
    }
}

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bytes.iter().try_for_each(|byte| self.byte(*byte))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes on standard output.
///
/// # Errors
/// The errors of [`show`].
pub fn write_out(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), ClientError> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ClientError::Output(error)),
        _ => Ok(()),
    }
}

/// Shows why a command failed, and what a restore had `restored` by then: for people on standard error, for programs as
/// the one document.
pub fn show_error(error: &ClientError, restored: Option<&RestoreReport>, output: Output) {
    if output.json {
        let failed = Failed { error: ErrorDocument::new(error), restored };
        let _ = document(&failed, &mut io::stdout().lock());
    }
    let mut stderr = io::stderr().lock();
    let mut out = Plain::new(&mut stderr);
    let _ = restored.map_or(Ok(()), |report| report.text(&mut out));
    let _ = writeln!(out, "astacus-client: {}", Printable(chain(error).as_bytes()));
    if let Some(hint) = error.hint() {
        let _ = writeln!(out, "hint: {hint}");
    }
}

/// Reads the command line. An error is printed on standard error and, with `--json`, as the one document.
///
/// # Errors
/// The exit code if there is nothing to run: wrong usage, or help that was requested and printed.
pub fn arguments<A: clap::Parser>() -> Result<A, ExitCode> {
    let told = match A::try_parse() {
        Ok(arguments) => return Ok(arguments),
        Err(told) => told,
    };
    let exit_code = u8::try_from(told.exit_code()).unwrap_or(ErrorClass::Usage.exit_code());
    if told.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let error = ErrorDocument::usage(&told, exit_code);
        let _ = document(&Failed { error, restored: None }, &mut io::stdout().lock());
    }
    Err(match told.print() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe && !told.use_stderr() => {
            ExitCode::from(ClientError::Output(error).exit_code())
        }
        _ => ExitCode::from(exit_code),
    })
}

fn document(what: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, what)?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct Failed<'a> {
    error: ErrorDocument<'a>,
    /// Report of a restore that stopped early.
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<&'a RestoreReport>,
}

#[derive(Serialize)]
struct ErrorDocument<'a> {
    class: ErrorClass,
    code: Option<&'a str>,
    message: String,
    hint: Option<&'static str>,
    exit_code: u8,
}

impl<'a> ErrorDocument<'a> {
    fn new(error: &'a ClientError) -> Self {
        Self {
            class: error.class(),
            code: error.code(),
            message: chain(error),
            hint: error.hint(),
            exit_code: error.exit_code(),
        }
    }

    fn usage(told: &clap::Error, exit_code: u8) -> Self {
        let text = told.render().to_string();
        let message = text.split("\n\nUsage:").next().unwrap_or_default().trim();
        let message = message.strip_prefix("error: ").unwrap_or(message).to_owned();
        Self { class: ErrorClass::Usage, code: None, message, hint: None, exit_code }
    }
}

/// How far a push is not of one moment.
pub(crate) fn not_one(moment: &Moment) -> String {
    let Moment { freeze_ms, moved_on, fuzzy, torn, restless } = *moment;
    let parts = [
        (moved_on, "changed after the freeze"),
        (fuzzy, "fuzzy"),
        (torn, "torn"),
        (restless, "folders that kept changing"),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", HumanCount(*count)))
        .collect();
    format!("{}; frozen within {freeze_ms} ms", parts.join(", "))
}

impl Show for Tidied {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for folder in &self.removed {
            writeln!(out, "removed temporary hard links in {}", folder.display())?;
        }
        for folder in &self.in_use {
            writeln!(out, "kept temporary hard links in {}: a push is running", folder.display())?;
        }
        for (folder, why) in &self.left {
            writeln!(out, "NOT removed: temporary hard links in {}: {why}", folder.display())?;
        }
        if *self == Self::default() {
            writeln!(out, "nothing to remove")?;
        }
        Ok(())
    }

    fn is_news(&self) -> bool {
        !self.left.is_empty()
    }
}

impl Show for PushReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { snapshot, stats, seconds, .. } = self;
        writeln!(out, "snapshot {snapshot} in {seconds:.1} s")?;
        writeln!(
            out,
            "  {}, {}, {}, {}",
            Counted(self.files, "file"),
            Counted(self.folders, "folder"),
            Counted(self.symlinks, "link"),
            HumanBytes(self.bytes),
        )?;
        writeln!(out, "  files  {}", files(stats))?;
        writeln!(
            out,
            "  bytes  read {}, hashed {}, sent {}, stored {}",
            HumanBytes(stats.bytes_read),
            HumanBytes(stats.bytes_hashed),
            HumanBytes(stats.bytes_sent),
            HumanBytes(stats.bytes_stored),
        )?;
        for frozen in &self.frozen {
            writeln!(out, "  frozen {}: by {}, in {}", frozen.root, frozen.by, frozen.folder)?;
        }
        if let Some(moment) = stats.moment.filter(|moment| !moment.is_one()) {
            writeln!(out, "  NOT ONE MOMENT: {}", not_one(&moment))?;
        }
        for fallback in &stats.fallbacks {
            let reason = Printable(fallback.reason.as_bytes());
            writeln!(out, "  note   {reason}: {}", Counted(fallback.files, "file"))?;
        }
        choices(out, &self.left_out, &self.unmatched, &self.warnings)?;
        if let Some(before) = self.suspect {
            writeln!(
                out,
                "  SUSPECT: {} has {} of {}: check that all file systems are mounted, then push again; use --accept-smaller if this push is right",
                before.since,
                Counted(before.files, "file"),
                HumanBytes(before.bytes)
            )?;
        }
        lacks(out, self.skipped, (self.problem_count, "missing or torn"), &self.problems)
    }

    fn is_news(&self) -> bool {
        self.state == SnapshotState::Partial || self.suspect.is_some()
    }
}

/// Special files that a push skips, and the files that it lacks: how many, in which way, and the first of them.
fn lacks(
    out: &mut dyn Write,
    skipped: u64,
    (count, how): (u64, &str),
    problems: &[ProblemReport],
) -> io::Result<()> {
    if skipped > 0 {
        writeln!(out, "  skipped {} (sockets, devices, pipes)", Counted(skipped, "special file"))?;
    }
    if count > 0 {
        writeln!(out, "  PARTIAL: {} {how}", Counted(count, "file"))?;
    }
    problems.iter().try_for_each(|problem| writeln!(out, "    {}: {}", problem.path, problem.reason))
}

/// Effects of options on a push.
fn choices(
    out: &mut dyn Write,
    left_out: &[LeftOutBy],
    unmatched: &[String],
    warnings: &[String],
) -> io::Result<()> {
    for LeftOutBy { by, entries, folders, bytes } in left_out {
        let folders =
            if *folders > 0 { format!(" ({})", Counted(*folders, "folder")) } else { String::new() };
        let (entries, bytes) = (Counted(*entries, "entry"), HumanBytes(*bytes));
        writeln!(out, "  excluded {entries}{folders}, {bytes}: {by}")?;
    }
    for pattern in unmatched {
        writeln!(out, "  note   {pattern} matched nothing")?;
    }
    for warning in warnings {
        writeln!(out, "  WARNING {warning}")?;
    }
    Ok(())
}

impl Show for DryPush {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "dry run: no file was read, no data was sent and no state was saved")?;
        writeln!(
            out,
            "  {}, {}, {}, {}",
            Counted(self.files, "file"),
            Counted(self.folders, "folder"),
            Counted(self.symlinks, "link"),
            HumanBytes(self.bytes),
        )?;
        if !self.is_remembered {
            writeln!(out, "  no saved state of these folders: every file counts as new")?;
        }
        let kinds = [
            ("new", self.new),
            ("changed", self.changed),
            ("appended", self.appended),
            ("unchanged", self.unchanged),
        ];
        let some = kinds.into_iter().filter(|(_, planned)| planned.files > 0);
        for (kind, Planned { files, bytes, bytes_to_read }) in some {
            let (bytes, to_read) = (HumanBytes(bytes), HumanBytes(bytes_to_read));
            writeln!(out, "  {kind:<9} {}, {bytes}, {to_read} to read", Counted(files, "file"))?;
        }
        if self.gone > 0 {
            writeln!(out, "  gone      {} of the last push", Counted(self.gone, "file"))?;
        }
        choices(out, &self.left_out, &self.unmatched, &self.warnings)?;
        lacks(out, self.skipped, (self.problem_count, "would be missing"), &self.problems)
    }

    fn is_news(&self) -> bool {
        self.state == SnapshotState::Partial
    }
}

/// Outcomes of the files of a push, without empty ones.
fn files(stats: &PushStats) -> String {
    let kinds = [
        ("unchanged", stats.unchanged),
        ("appended", stats.appended),
        ("read in full", stats.whole),
        ("new", stats.new),
        ("resumed", stats.resumed),
        ("gone", stats.gone),
    ];
    let some = kinds.iter().filter(|(_, files)| *files > 0);
    let some: Vec<_> = some.map(|(kind, files)| format!("{} {kind}", HumanCount(*files))).collect();
    if some.is_empty() { "none".to_owned() } else { some.join(", ") }
}

/// Writes rows of cells, each column as wide as its widest cell.
///
/// # Errors
/// Errors of `out`.
pub fn columns(out: &mut dyn Write, rows: &[impl AsRef<[String]>]) -> io::Result<()> {
    let count = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let mut widths = vec![0; count];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let cells = row.as_ref().iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

impl Show for Listed {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let has_labels = self.snapshots.iter().any(|info| info.about != About::default());
        let all: Vec<Column> =
            Column::ALL.into_iter().filter(|column| *column != Column::Labels || has_labels).collect();
        let chosen = if self.columns.is_empty() { &all } else { &self.columns };
        let head: Vec<String> = chosen.iter().map(|column| column.head()).collect();
        let row = |info: &SnapshotInfo| chosen.iter().map(|column| cell(info, *column)).collect();
        let rows: Vec<_> = std::iter::once(head).chain(self.snapshots.iter().map(row)).collect();
        columns(out, &rows)
    }

    fn is_news(&self) -> bool {
        true
    }
}

/// Cell of a list for a snapshot in one column.
pub fn cell(info: &SnapshotInfo, column: Column) -> String {
    let sum = |of: fn(&PushStats) -> u64| info.pushes.iter().map(|push| of(&push.stats)).sum::<u64>();
    let known = |text: String| if info.pushes.is_empty() { "-".to_owned() } else { text };
    match column {
        Column::Snapshot => info.id.to_string(),
        Column::Cluster => info.cluster.to_string(),
        Column::Nodes => info.nodes.iter().map(|node| node.as_str()).collect::<Vec<_>>().join(","),
        Column::Folders => summary::folders(&info.origins),
        Column::Created => Printable(info.created.as_bytes()).to_string(),
        Column::State => summary::state(info),
        Column::Files => HumanCount(info.files).to_string(),
        Column::Bytes => HumanBytes(info.bytes).to_string(),
        Column::Changed => known(HumanCount(sum(summary::changed)).to_string()),
        Column::Read => known(HumanBytes(sum(|stats| stats.bytes_read)).to_string()),
        Column::Sent => known(HumanBytes(sum(|stats| stats.bytes_sent)).to_string()),
        Column::Labels => summary::about(&info.about),
    }
}

impl Show for RestoreReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { snapshot, node, seconds, .. } = self;
        let (files, bytes) = (Counted(self.files, "file"), HumanBytes(self.bytes));
        writeln!(out, "restored {files}, {bytes}, of {node} from snapshot {snapshot} in {seconds:.1} s")?;
        if self.unchanged > 0 {
            writeln!(out, "  {} of the files existed already", HumanCount(self.unchanged))?;
        }
        self.failures(out)?;
        first(out, &self.skipped, self.skipped.len(), |out, skipped| {
            let reason = Printable(skipped.reason.as_bytes());
            writeln!(out, "  NOT in the snapshot: {}: {reason}", skipped.path)
        })?;
        first(out, &self.incomplete, self.incomplete.len(), |out, lacking| {
            let reason = Printable(lacking.reason.as_bytes());
            writeln!(
                out,
                "  INCOMPLETE, restored as far as it is in the snapshot: {}: {reason}",
                lacking.path
            )
        })?;
        unmatched(out, &self.unmatched)?;
        for pattern in &self.unmatched_excludes {
            writeln!(out, "  note: nothing in the snapshot matches --exclude `{pattern}`")?;
        }
        names(out, "TORN, a mixture of states", &self.torn, self.torn_count)?;
        names(out, "fuzzy, repaired by its owner's log", &self.fuzzy, self.fuzzy_count)?;
        first(out, &self.warnings, self.warnings.len(), |out, note| {
            writeln!(out, "  {}: {}", note.path, note.note)
        })?;
        not_set(out, &self.not_set)?;
        if self.removed_count > 0 {
            let removed = HumanCount(self.removed_count);
            writeln!(out, "  removed {removed} names that the snapshot does not have")?;
        }
        not_removed(out, "NOT removed", &self.not_removed, self.not_removed_count)?;
        if self.leftovers_removed > 0 {
            let removed = Counted(self.leftovers_removed, "unfinished file");
            writeln!(out, "  removed {removed} of killed restores")?;
        }
        if self.is_damaged() {
            writeln!(out, "  {DAMAGE_HINT}")?;
        }
        newer(out, self.passed_over.as_ref())
    }

    fn is_news(&self) -> bool {
        let lacks = self.exit_code() != 0 || !self.unmatched_excludes.is_empty();
        lacks || !self.warnings.is_empty() || !self.not_set.is_none() || self.passed_over.is_some()
    }
}

impl Show for Sent {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { snapshot, node, path, seconds, .. } = self;
        let bytes = HumanBytes(self.bytes);
        writeln!(out, "sent {path}, {bytes}, of {node} from snapshot {snapshot} in {seconds:.1} s")?;
        match (self.state, self.fuzzy) {
            (SnapshotState::Partial, _) => writeln!(out, "  TORN, a mixture of states")?,
            (SnapshotState::Complete, true) => {
                writeln!(out, "  fuzzy, to be repaired by its owner's log")?;
            }
            (SnapshotState::Complete, false) => {}
        }
        newer(out, self.passed_over.as_ref())
    }

    fn is_news(&self) -> bool {
        self.state == SnapshotState::Partial || self.fuzzy || self.passed_over.is_some()
    }
}

/// Names that `--delete` leaves, the first ones each with its reason.
fn not_removed(out: &mut dyn Write, verb: &str, names: &[NotRemoved], count: u64) -> io::Result<()> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    first(out, names, count, |out, left| {
        writeln!(out, "  {verb}: {}: {}", Printable(left.path.as_bytes()), left.reason)
    })
}

impl Show for DryRun {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for name in &self.names {
            let end = if name.kind == PlannedKind::Folder { "/" } else { "" };
            writeln!(out, "{}{end}", name.path)?;
        }
        let named = u64::try_from(self.names.len()).unwrap_or(u64::MAX);
        if let Some(more) = self.count().checked_sub(named).filter(|more| *more > 0) {
            writeln!(out, "and {} more", HumanCount(more))?;
        }
        let [files, folders, symlinks] =
            [(self.files, "file"), (self.folders, "folder"), (self.symlinks, "link")]
                .map(|(count, noun)| Counted(count, noun));
        let (bytes, node, snapshot) = (HumanBytes(self.bytes), &self.node, &self.snapshot);
        writeln!(
            out,
            "would restore {files}, {folders}, {symlinks}, {bytes}, of {node} from snapshot \
             {snapshot}"
        )?;
        for path in &self.to_remove {
            writeln!(out, "  would remove {}", Printable(path.as_bytes()))?;
        }
        if self.to_remove_count > 0 {
            writeln!(out, "  would remove {} names in all", HumanCount(self.to_remove_count))?;
        }
        not_removed(out, "would NOT remove", &self.not_removed, self.not_removed_count)?;
        if self.skipped_count > 0 {
            writeln!(out, "  NOT in the snapshot: {}", Counted(self.skipped_count, "file"))?;
        }
        damaged_pages(out, &self.damaged_pages)?;
        if self.damaged_count > 0 {
            writeln!(out, "  DAMAGED: {} without content", Counted(self.damaged_count, "name"))?;
        }
        unmatched(out, &self.unmatched)?;
        newer(out, self.passed_over.as_ref())
    }

    fn is_news(&self) -> bool {
        true
    }
}

fn damaged_pages(out: &mut dyn Write, pages: &[DamagedPage]) -> io::Result<()> {
    for page in pages {
        let reason = Printable(page.reason.as_bytes());
        writeln!(out, "  DAMAGED, not restored: all files listed on {}: {reason}", page.object)?;
    }
    Ok(())
}

fn unmatched(out: &mut dyn Write, patterns: &[String]) -> io::Result<()> {
    for pattern in patterns {
        writeln!(out, "  NOT found: nothing in the snapshot matches --path `{pattern}`")?;
    }
    Ok(())
}

impl RestoreReport {
    /// Chosen files that were not restored.
    fn failures(&self, out: &mut dyn Write) -> io::Result<()> {
        damaged_pages(out, &self.damaged_pages)?;
        if let Some(lost) = self.lost_entries {
            writeln!(out, "  {} files, folders and links were on damaged pages", HumanCount(lost))?;
        }
        let count = usize::try_from(self.damaged_count + self.not_made_count).unwrap_or(usize::MAX);
        first(out, &self.failed, count, |out, failed| {
            let what = match failed.why {
                FailedFor::Damaged => "DAMAGED, not restored",
                FailedFor::NotMade => "NOT restored",
            };
            let object = failed.object.as_deref().map(|object| format!(" ({object})")).unwrap_or_default();
            let reason = Printable(failed.reason.as_bytes());
            writeln!(out, "  {what}: {}: {reason}{object}", failed.path)
        })
    }
}

/// Lines for people at most of one kind; `--json` has more.
const SHOWN: usize = 100;

/// A line for each of the first things, and how many more there are.
fn first<T>(
    out: &mut dyn Write,
    things: &[T],
    count: usize,
    line: impl Fn(&mut dyn Write, &T) -> io::Result<()>,
) -> io::Result<()> {
    let shown = things.len().min(SHOWN);
    things.iter().take(shown).try_for_each(|thing| line(out, thing))?;
    match count - shown {
        0 => Ok(()),
        more => writeln!(out, "    and {} more", HumanCount(u64::try_from(more).unwrap_or(u64::MAX))),
    }
}

/// Attributes that restored files lack, in one line.
fn not_set(out: &mut dyn Write, not_set: &NotSet) -> io::Result<()> {
    let NotSet { owners, modes, times, attributes, powers } = *not_set;
    let kinds = [
        (owners, "owner"),
        (modes, "mode"),
        (times, "time"),
        (attributes, "extended attribute"),
        (powers, "setuid bit or capability"),
    ];
    let some = kinds.iter().filter(|(count, _)| *count > 0);
    let some: Vec<_> = some.map(|(count, kind)| format!("{kind}: {}", HumanCount(*count))).collect();
    if some.is_empty() {
        return Ok(());
    }
    let why =
        if owners > 0 && !rustix::process::geteuid().is_root() { "; only root can set owners" } else { "" };
    writeln!(out, "  NOT SET as pushed ({}{why})", some.join(", "))
}

/// Names of one kind, each on a line, and how many more there are.
fn names(out: &mut dyn Write, kind: &str, names: &[String], count: u64) -> io::Result<()> {
    for name in names {
        writeln!(out, "  {kind}: {name}")?;
    }
    match count.saturating_sub(u64::try_from(names.len()).unwrap_or(u64::MAX)) {
        0 => Ok(()),
        more => writeln!(out, "  {kind}: {} more", HumanCount(more)),
    }
}

fn newer(out: &mut dyn Write, passed_over: Option<&PassedOver>) -> io::Result<()> {
    match passed_over {
        None => Ok(()),
        Some(newer) => writeln!(out, "  NOT the newest: {newer}"),
    }
}

impl Show for VerifyReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { snapshot, seconds, problem_count, .. } = self;
        let (files, bytes) = (Counted(self.files, "file"), HumanBytes(self.bytes));
        let verdict = if self.is_sound() { "OK" } else { "DAMAGED" };
        writeln!(out, "snapshot {snapshot} {verdict}: {files}, {bytes} checked in {seconds:.1} s")?;
        if self.unreadable > 0 {
            writeln!(out, "  {} could not be read by the push", Counted(self.unreadable, "file"))?;
        }
        if *problem_count > 0 {
            writeln!(out, "  problems: {problem_count}")?;
        }
        let count = usize::try_from(*problem_count).unwrap_or(usize::MAX);
        first(out, &self.problems, count, |out, damage| {
            let path = damage.path.as_deref().unwrap_or("-");
            let object = damage.object.as_deref().unwrap_or("-");
            let problem = Printable(damage.problem.as_bytes());
            writeln!(out, "    {} {path} {object}: {problem}", damage.node)
        })?;
        if !self.is_sound() {
            writeln!(out, "  {DAMAGE_HINT}")?;
        }
        newer(out, self.passed_over.as_ref())
    }

    fn is_news(&self) -> bool {
        !self.is_sound() || self.passed_over.is_some()
    }
}

#[cfg(test)]
mod tests;
