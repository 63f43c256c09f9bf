//! One file of a snapshot, sent to standard output and not to a folder.
//!
//! All names are looked through before the first byte is sent: unless exactly one file is chosen, nothing is. Each chunk
//! is checked before it is sent. A chunk that is damaged ends the sending with an error that says how much was sent.

use std::io::Write;

use format_spec::snapshot::SnapshotState;
use format_spec::{EntryPath, NodeName, SnapshotId};
use serde::Serialize;
use tokio::runtime::Handle;

use super::batch::{Batch, Batcher};
use super::failed::{DamagedPage, Failures};
use super::fetch::{Opener, Plaintexts};
use super::folder::Choice;
use super::plan::{Mixture, Step};
use super::select::PassedOver;
use super::{Hooks, OnProgress, PassNumber, Prepared, Progress, RestoreOptions};
use crate::api::Api;
use crate::error::{ClientError, EXIT_PARTIAL, chain};

/// Bytes that are sent for holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// A file that was sent whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sent {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Whose file.
    pub node: NodeName,
    /// Its path on the node.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Bytes that came over the network for it, as compressed.
    pub bytes_fetched: u64,
    /// True if its owner wrote to it while it was pushed, and its owner's own log repairs that.
    pub fuzzy: bool,
    /// A newer snapshot, if `latest` does not stand for the newest.
    pub passed_over: Option<PassedOver>,
    /// Partial if the file is a mixture of states that nothing is known to repair.
    pub state: SnapshotState,
    /// How long it took.
    pub seconds: f64,
}

impl Sent {
    /// The exit code of a program that ends with this.
    pub fn exit_code(&self) -> u8 {
        match self.state {
            SnapshotState::Complete => 0,
            SnapshotState::Partial => EXIT_PARTIAL,
        }
    }
}

/// Sends the content of the one file that is chosen to `out`. Of the options, those about a target mean nothing here.
/// Blocks; must not be called on a thread of `runtime`.
///
/// # Errors
/// As [`run`](super::run), and
/// - [`ClientError::Usage`]: several names are chosen, or a folder or link. Nothing was sent.
/// - [`ClientError::Damaged`]: the file is damaged. What was sent is its beginning.
/// - [`ClientError::Output`]: `out` does not take all of it.
pub fn to_output(
    api: &Api,
    runtime: &Handle,
    options: &RestoreOptions,
    hooks: &Hooks<'_>,
    out: &mut dyn Write,
) -> Result<Sent, ClientError> {
    let start = hooks.clock.elapsed();
    let pace = options.pace();
    let prepared = Prepared::new(api, runtime, options, hooks, &pace)?;
    let Only { path, mixture } = only(&prepared, options)?;
    let mut sending = Sending {
        prepared: &prepared,
        opener: Opener::new(&prepared.domain)?,
        batcher: Batcher::new(),
        progress: hooks.progress,
        path: path.to_string(),
        size: 0,
        sent: 0,
        fetched: 0,
        is_whole: false,
        out,
    };
    sending.all()?;
    let (bytes, bytes_fetched) = (sending.sent, sending.fetched);
    let Prepared { snapshot, node, passed_over, .. } = prepared;
    Ok(Sent {
        snapshot,
        node,
        path: path.to_string(),
        bytes,
        bytes_fetched,
        fuzzy: mixture == Some(Mixture::Fuzzy),
        passed_over,
        state: if mixture == Some(Mixture::Torn) { SnapshotState::Partial } else { SnapshotState::Complete },
        seconds: hooks.clock.elapsed().saturating_sub(start).as_secs_f64(),
    })
}

/// The only file that is chosen.
struct Only {
    path: EntryPath,
    mixture: Option<Mixture>,
}

/// Chosen entries, as far as they matter.
#[derive(Default)]
struct Chosen {
    file: Option<EntryPath>,
    /// Names besides it.
    others: u64,
    is_unreadable: bool,
    is_lost: bool,
    mixture: Option<Mixture>,
}

impl Chosen {
    fn step(&mut self, step: Step) {
        match step {
            Step::BeginFile { entry, .. } => self.file(entry.path),
            Step::Link { path, .. } | Step::Owe { path, .. } => self.file(path),
            Step::Skip { path } => {
                self.is_unreadable = true;
                self.file(path);
            }
            Step::Lose { path, .. } => {
                self.is_lost = true;
                self.file(path);
            }
            Step::Symlink { .. } | Step::EnterFolder { entry: Some((_, Choice::Wanted)), .. } => {
                self.others += 1;
            }
            Step::Mark { mixture, .. } => self.mixture = Some(mixture),
            Step::EnterFolder { .. }
            | Step::LeaveFolder
            | Step::Chunk { .. }
            | Step::EndFile { .. }
            | Step::AbandonFile => {}
        }
    }

    fn file(&mut self, path: EntryPath) {
        match &self.file {
            None => self.file = Some(path),
            Some(file) if *file == path => {}
            Some(_) => self.others += 1,
        }
    }
}

fn only(prepared: &Prepared<'_>, options: &RestoreOptions) -> Result<Only, ClientError> {
    let (mut chosen, failures, mut entries) = (Chosen::default(), Failures::default(), 0);
    prepared.pass(prepared.planner(), PassNumber::First(&mut entries, &failures), &mut |step| {
        chosen.step(step);
        Ok(())
    })?;
    let damaged = failures.take().pages;
    match chosen {
        Chosen { file: None, others: 0, .. } => Err(none(options, &damaged)),
        Chosen { file: Some(path), others: 0, is_unreadable: true, .. } => {
            Err(ClientError::NotFound(format!("`{path}` could not be read when it was pushed")))
        }
        Chosen { file: Some(path), others: 0, is_lost: true, .. } => {
            let why = "a page with its list of chunks is damaged".to_owned();
            Err(ClientError::Damaged { path: path.to_string(), sent: 0, why })
        }
        // A pattern may fit names on the damaged page as well.
        Chosen { file: Some(path), others: 0, .. } if !damaged.is_empty() && !is_named(options, &path) => {
            Err(none(options, &damaged))
        }
        Chosen { file: Some(path), others: 0, mixture, .. } => Ok(Only { path, mixture }),
        Chosen { file, others, .. } => {
            let names = others + u64::from(file.is_some());
            Err(ClientError::Usage(format!(
                "`--to -` sends the content of one file, and {names} names are chosen, or a folder: choose one file with \
                 --path, or restore to a folder"
            )))
        }
    }
}

/// True if `--path` gives this path and nothing else, so that no other name can fit.
fn is_named(options: &RestoreOptions, path: &EntryPath) -> bool {
    matches!(options.paths.as_slice(), [only] if *only == path.to_string())
}

fn none(options: &RestoreOptions, damaged: &[DamagedPage]) -> ClientError {
    match damaged.first() {
        Some(page) => {
            let why = format!("{} of the names is damaged: {}", page.object, page.reason);
            ClientError::Damaged { path: options.paths.join("`, `"), sent: 0, why }
        }
        None if options.paths.is_empty() => ClientError::NotFound("the snapshot holds no file".to_owned()),
        None => super::nothing_matches(options),
    }
}

/// A file on its way.
struct Sending<'a> {
    prepared: &'a Prepared<'a>,
    opener: Opener<'a>,
    batcher: Batcher<()>,
    progress: OnProgress<'a>,
    path: String,
    size: u64,
    sent: u64,
    fetched: u64,
    is_whole: bool,
    out: &'a mut dyn Write,
}

impl Sending<'_> {
    fn all(&mut self) -> Result<(), ClientError> {
        let prepared = self.prepared;
        let failures = Failures::default();
        let mut entries = 0;
        let first = PassNumber::First(&mut entries, &failures);
        let owed = prepared.pass(prepared.planner(), first, &mut |step| self.step(step))?;
        if let Some(planner) = owed {
            prepared.pass(planner, PassNumber::Second, &mut |step| self.step(step))?;
        }
        if self.is_whole {
            return self.out.flush().map_err(ClientError::Output);
        }
        Err(self.damaged("its content is not known".to_owned()))
    }

    fn step(&mut self, step: Step) -> Result<(), ClientError> {
        match step {
            Step::BeginFile { entry, .. } => {
                self.size = entry.size;
                self.batcher.begin(());
                Ok(())
            }
            Step::Chunk { offset, id, len } => {
                let full = self.batcher.chunk(offset, id, len);
                self.batch(full)
            }
            Step::EndFile { .. } => {
                let rest = [self.batcher.end(), self.batcher.finish()];
                rest.into_iter().try_for_each(|batch| self.batch(batch))?;
                self.is_whole = true;
                self.fill(self.size)
            }
            Step::AbandonFile | Step::Lose { .. } => {
                Err(self.damaged("a page with its list of chunks is damaged".to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn batch(&mut self, batch: Option<Batch<()>>) -> Result<(), ClientError> {
        let Some(Batch { chunks, uses, pieces }) = batch else { return Ok(()) };
        let (mut frames, mut refused) = (Vec::new(), Vec::new());
        for frame in self.prepared.fetcher.each_frame(&chunks)? {
            refused.push(frame.as_ref().err().map(|error| chain(error)));
            self.fetched += frame.as_ref().map_or(0, |frame| wide(frame.payload.len()));
            frames.push(frame.ok());
        }
        let Self { opener, out, path, sent, .. } = self;
        let mut plaintexts = Plaintexts::new(opener, frames, uses);
        for placed in pieces.iter().flat_map(|piece| &piece.extents) {
            let damaged = |sent, why| ClientError::Damaged { path: path.clone(), sent, why };
            fill(*out, sent, placed.offset)?;
            match plaintexts.of(placed) {
                Some(Ok(plain)) => {
                    out.write_all(plain).map_err(ClientError::Output)?;
                    *sent += wide(plain.len());
                }
                Some(Err(error)) => return Err(damaged(*sent, chain(&error))),
                None => {
                    let why = refused.get(placed.slot).cloned().flatten();
                    return Err(damaged(*sent, why.unwrap_or_else(|| "a chunk is missing".to_owned())));
                }
            }
        }
        let total = self.prepared.manifest.totals;
        (self.progress)(Progress {
            files: 0,
            bytes: self.sent,
            files_total: total.files,
            bytes_total: self.size,
        });
        Ok(())
    }

    /// Sends zeros up to this offset: holes.
    fn fill(&mut self, to: u64) -> Result<(), ClientError> {
        fill(self.out, &mut self.sent, to)
    }

    fn damaged(&self, why: String) -> ClientError {
        ClientError::Damaged { path: self.path.clone(), sent: self.sent, why }
    }
}

fn fill(out: &mut dyn Write, sent: &mut u64, to: u64) -> Result<(), ClientError> {
    while *sent < to {
        let len = usize::try_from(to - *sent).unwrap_or(usize::MAX).min(ZEROS.len());
        out.write_all(ZEROS.get(..len).unwrap_or_default()).map_err(ClientError::Output)?;
        *sent += wide(len);
    }
    Ok(())
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length fits in 64 bits")
}
