//! Push: what lies below some folders becomes a snapshot, and only what the repository lacks is sent.
//!
//! ```text
//! walk + freeze ──▶ list ──▶ scan: remember, or read + cut + hash ──▶ ask ──▶ compress ──▶ send ──▶ pages ──▶ commit
//! ```
//! The list is on disk and whole before anything is read: it is the tree at one moment, and what will be
//! read has a second name by then (`freeze`). Behind it each arrow is a bounded queue between threads,
//! so memory depends on neither the size of the data nor the number of files. What must be read of a file
//! that is remembered says `change`.
//!
//! The snapshot is durable when [`run`] returns, and there is none if it fails; what was done by then
//! is remembered either way. A file's content is that of one moment or it is reported, and the
//! snapshot says so; how far that can be told is in `docs/change-detection.md`.

mod again;
mod batch;
mod change;
mod class;
mod content;
mod database;
mod doubt;
mod dry;
mod excludes;
mod formats;
mod freeze;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod globs;
mod guest;
mod late;
mod left_out;
mod links;
mod list;
mod listed;
mod lister;
mod moment;
mod pace;
mod pseudo;
mod report;
mod roots;
mod scan;
mod selection;
mod session;
mod sets;
mod source;
mod stat;
mod stop;
mod stream;
mod upload;
mod walk;
mod xattr;

use std::collections::HashSet;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Mutex;

use format_spec::key::BlobKind;
use format_spec::manifest::{Manifest, PageRef, RootsAre};
use format_spec::page::PageBuilder;
use format_spec::wire::Committed;
use format_spec::{About, ChunkId, ClusterName, EntryPath, FORMAT_VERSION, NodeName, SeriesName, Timestamp};
use tokio::runtime::Handle;

pub use crate::state::Alike;
pub use change::Rehash;
pub(crate) use change::{Habit, Settled};
pub use class::{Class, ClassRule, ParseClassError};
pub use dry::{DryPush, Planned, dry_run};
pub(crate) use freeze::{BASE_NAME, Source};
pub use freeze::{FreezeMode, FreezeOptions, Frozen, Kept, Tidied, Unfrozen, tidy};
pub(crate) use globs::{check_letters, without_links};
pub use left_out::LeftOutBy;
pub use listed::{PathList, Separator};
pub(crate) use pace::Pace;
pub use report::{ProblemReport, PushReport};
pub use roots::existing;
pub use sets::ClassSet;
pub(crate) use stat::{Device, Identity};
pub use stream::{Stream, StreamName, StreamSource, run_stream};
pub use walk::Mounts;

use crate::api::{Api, Coming};
use crate::cancel::Cancel;
use crate::clock::{Clock, SystemClock};
use crate::error::ClientError;
use crate::progress::{Phase, Progress, Silent};
use crate::rate::Rate;
use crate::state::{Memory, Place, Spool};
use change::Draw;
use class::Classes;
use doubt::{Doubts, Purse};
use freeze::Freeze;
use links::Links;
use lister::Lister;
use report::Tally;
use roots::Root;
pub use scan::Strict;
use scan::{Pages, Scan, Scanned};
use selection::Selection;
pub use selection::{Caches, SelectOptions};
use session::Session;
use stop::{Failure, Stop, Stopped};
use upload::Uplink;

/// How often a push is run from the start when the server lost its session or unsealed chunks.
const ATTEMPTS: u32 = 3;
/// Refusals after which a push from the start helps: the server has been restarted.
const LOST: [&str; 3] = ["missing_chunks", "session_over", "unknown_chunks"];
/// zstd level unless told otherwise: most of a push's time goes here (ADR-0010).
pub const DEFAULT_LEVEL: i32 = 1;
/// Threads that compress unless more are asked for: each takes memory.
const MOST_JOBS: NonZeroUsize = NonZeroUsize::new(16).expect("it is not zero");
/// A full round of hashing everything again takes so many pushes unless told otherwise.
pub const DEFAULT_REHASH: Rehash = Rehash::Every(std::num::NonZeroU32::new(30).expect("it is not zero"));

/// What to push, and how.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// Cluster of the node.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// Name of this machine, for the record.
    pub host: String,
    /// Folders and files to push.
    pub roots: Vec<PathBuf>,
    /// What of them.
    pub select: SelectOptions,
    /// What to do at mount points.
    pub mounts: Mounts,
    /// zstd level.
    pub level: i32,
    /// Threads that compress.
    pub jobs: NonZeroUsize,
    /// How files are kept as they are until they were read.
    pub freeze: FreezeOptions,
    /// What a file need not have kept to be taken for the same.
    pub alike: Alike,
    /// What becomes of files that are not of the moment of the freeze.
    pub strict: Strict,
    /// Classes of files; the first rule that matches counts.
    pub classes: Vec<ClassRule>,
    /// Classes of the files of known databases, behind those rules.
    pub class_sets: Vec<ClassSet>,
    /// What is hashed again though nothing speaks for a change.
    pub rehash: Rehash,
    /// Most bytes per second that are sent; without it, as many as the network takes.
    pub max_rate: Option<Rate>,
    /// Folder for what is remembered from push to push; without it every file is read.
    pub state: Option<PathBuf>,
    /// What the caller knows to be wrong: it is told at the start, and is in the report.
    pub warnings: Vec<String>,
    /// Name of the series; without it, the folders are what tells it from others.
    pub series: Option<SeriesName>,
    /// Labels and note of the snapshot.
    pub about: About,
    /// Whether it is meant that there is much less than in the push before.
    pub smaller: Smaller,
}

/// Whether a push may hold much less than the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Smaller {
    /// Then its snapshot is suspect.
    #[default]
    Suspect,
    /// That is meant.
    Meant,
}

impl PushOptions {
    /// `roots` of `node`, with the defaults of the command line and nothing remembered.
    pub fn new(cluster: ClusterName, node: NodeName, host: String, roots: Vec<PathBuf>) -> Self {
        Self {
            cluster,
            node,
            host,
            roots,
            select: SelectOptions::default(),
            mounts: Mounts::Enter,
            level: DEFAULT_LEVEL,
            jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).min(MOST_JOBS),
            freeze: FreezeOptions::default(),
            alike: Alike::default(),
            strict: Strict::default(),
            classes: Vec::new(),
            class_sets: Vec::new(),
            rehash: DEFAULT_REHASH,
            max_rate: None,
            state: None,
            warnings: Vec::new(),
            series: None,
            about: About::default(),
            smaller: Smaller::default(),
        }
    }
}

/// Who else has a say in a push, or wants to hear of it.
pub struct Hooks<'a> {
    /// Hears how far it is.
    pub progress: &'a dyn Progress,
    /// Ends it early.
    pub cancel: Cancel,
    /// What time it is.
    pub clock: &'a dyn Clock,
}

impl<'a> Hooks<'a> {
    /// Nobody listens, nobody interrupts.
    pub fn quiet(clock: &'a SystemClock) -> Self {
        Self { progress: &Silent, cancel: Cancel::new(), clock }
    }
}

/// Whether an attempt relies on what is remembered of the last push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remember {
    LastPush,
    Nothing,
}

/// Pushes the folders of `options` and returns once the snapshot is durable.
///
/// To be called from a thread that may block, not from within `runtime`, which does the network's
/// part. When the server loses the session or unsealed chunks in a restart, the push is run again.
///
/// # Errors
/// [`ClientError`]; there is no snapshot then. Usage errors come before anything is sent.
pub fn run(
    api: &Api,
    runtime: &Handle,
    options: &PushOptions,
    hooks: &Hooks<'_>,
) -> Result<PushReport, ClientError> {
    let started = hooks.clock.elapsed();
    let push = Push::new(api, runtime, options, hooks)?;
    let (mut remember, mut coming) = (Remember::LastPush, Coming::Wait);
    let mut attempt = 1;
    loop {
        match push.attempt(remember, coming) {
            Ok(report) => {
                let seconds = hooks.clock.elapsed().saturating_sub(started).as_secs_f64();
                return Ok(PushReport { attempts: attempt, seconds, ..report });
            }
            Err(Failure::Damaged) if remember == Remember::LastPush => {
                tracing::warn!("what is remembered of the last push is damaged: every file is read");
                remember = Remember::Nothing;
            }
            Err(Failure::Client(error)) if !is_lost(&error) || attempt == ATTEMPTS => return Err(error),
            Err(Failure::Lost) if attempt == ATTEMPTS => {
                return Err(ClientError::Worker(
                    "chunks that another node was to send changed again and again",
                ));
            }
            Err(failure @ (Failure::Client(_) | Failure::Lost)) => {
                tracing::warn!("{failure}: the push starts again");
                attempt += 1;
                // Who had to start again relies on nobody else.
                coming = Coming::Send;
                if attempt == ATTEMPTS {
                    remember = Remember::Nothing;
                }
            }
            Err(Failure::Damaged) => return Err(ClientError::Worker("state read without being open")),
        }
    }
}

fn is_lost(error: &ClientError) -> bool {
    error.code().is_some_and(|code| LOST.contains(&code))
}

/// A push whose options were checked.
struct Push<'a> {
    api: &'a Api,
    runtime: &'a Handle,
    options: &'a PushOptions,
    hooks: &'a Hooks<'a>,
    roots: Vec<Root>,
    selection: Selection,
    classes: Classes,
    pace: Pace,
    place: Option<Place>,
    /// The name of a stream, which is pushed in the place of roots.
    stream: Option<EntryPath>,
}

impl<'a> Push<'a> {
    fn new(
        api: &'a Api,
        runtime: &'a Handle,
        options: &'a PushOptions,
        hooks: &'a Hooks<'a>,
    ) -> Result<Self, ClientError> {
        let roots = roots::check(&options.roots)?;
        roots::check_freeze_folder(&options.freeze, &roots)?;
        let selection = Selection::new(&options.select, &options.class_sets, &roots)?;
        roots::check_covered(&roots, &selection, options.mounts)?;
        let classes = Classes::new(&options.classes, &options.class_sets)?;
        let pace = pace(options);
        let paths = paths_of(&roots);
        let place =
            options.state.as_ref().map(|base| Place::new(base, &options.cluster, &options.node, &paths));
        Ok(Self { api, runtime, options, hooks, roots, selection, classes, pace, place, stream: None })
    }

    /// One run from the start.
    fn attempt(&self, remember: Remember, coming: Coming) -> Result<PushReport, Failure> {
        let Self { api, runtime, options, .. } = *self;
        let place = self.place.as_ref();
        let session = Session::open(api, runtime, options, place, remember, &self.hooks.cancel)?;
        let (stop, id) = (Stop::new(self.hooks.cancel.clone()), session.id);
        let pushed = match Freeze::new(&options.freeze, &self.key(), &self.roots, options.state.as_deref()) {
            Err(error) => Err(stop.fail(error)),
            Ok(freeze) => {
                let pushed = self.push(session, &freeze, &stop, coming);
                freeze.remove();
                pushed
            }
        };
        pushed.map_err(|stopped| {
            session::end(api, runtime, id);
            stop.reason(stopped)
        })
    }

    /// Tells the second names of this push from those of pushes of other folders.
    fn key(&self) -> String {
        let PushOptions { cluster, node, .. } = self.options;
        let (here, roots) = (PathBuf::new(), paths_of(&self.roots));
        self.place.as_ref().map_or_else(|| Place::new(&here, cluster, node, &roots).key(), Place::key)
    }

    fn push(
        &self,
        mut session: Session,
        freeze: &Freeze,
        stop: &Stop,
        coming: Coming,
    ) -> Result<PushReport, Stopped> {
        let tally = Tally::default();
        let uplink = self.uplink(&session, stop, &tally);
        let warnings = self.warnings(&session.memory);
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let frozen_at = self.hooks.clock.now();
        self.hooks.progress.phase(Phase::Listing);
        let mut memory = std::mem::take(&mut session.memory);
        let (list, purse) = self.list(&mut memory, freeze, stop, &tally)?;
        let missing = uplink.ask_again(&mut memory, session.base)?;
        let Session { repository, ref domain, id, number, .. } = session;
        let spool = Spool::create(self.place.as_ref(), domain.clone(), repository, id, number);
        let spool = stop.pass(spool.map_err(scan::spool_error))?;
        let mut pages = Pages { builder: PageBuilder::new(domain.clone()), spool };
        let found = Found { list, purse, memory, missing, frozen_at, coming };
        let sent = self.send(&uplink, &session, freeze, found, &mut pages);
        // After a failure as after a commit: what the files are without their second names is remembered.
        let released = pages.spool.release(|identity| freeze.release(identity));
        let (committed, manifest) = sent?;
        let finished = released.and_then(|()| pages.spool.finish(&committed.manifest));
        if let Err(error) = finished {
            tracing::warn!(%error, "this push will not be remembered");
        }
        let Manifest { node, totals, problems, .. } = &manifest;
        let report = tally.report(&committed, node, totals, problems);
        let warnings = warnings.into_iter().chain(report.warnings).chain(self.selection.warnings()).collect();
        let (left_out, unmatched) = (self.selection.left_out(), self.unmatched());
        Ok(PushReport { frozen: freeze.frozen().to_vec(), warnings, left_out, unmatched, ..report })
    }

    fn uplink<'x>(&'x self, session: &Session, stop: &'x Stop, tally: &'x Tally) -> Uplink<'x> {
        Uplink {
            api: self.api,
            runtime: self.runtime,
            session: session.id,
            stop,
            tally,
            progress: self.hooks.progress,
            level: self.options.level,
            jobs: self.options.jobs,
            max_chunk: session.chunker.params().max_chunk(),
            pace: &self.pace,
            clock: self.hooks.clock,
            late: Mutex::default(),
        }
    }

    /// The tree at this moment. What will be read of it stays as it is.
    fn list(
        &self,
        memory: &mut Memory,
        freeze: &Freeze,
        stop: &Stop,
        tally: &Tally,
    ) -> Result<(list::Reader, Purse), Stopped> {
        let data_folders = self.data_folders();
        let scratch = || self.scratch(stop);
        let files = [scratch()?, scratch()?, scratch()?];
        let mut lister = Lister {
            freeze,
            classes: &self.classes,
            memory,
            list: list::Writer::new(files),
            stop,
            progress: self.hooks.progress,
            tally,
            clock: self.hooks.clock,
            strict: self.options.strict,
            data_folders: &data_folders,
            roots: &self.roots,
            doubts: Doubts::default(),
            late: Vec::new(),
            frozen: None,
            linked: HashSet::new(),
        };
        walk::walk(&self.roots, &self.selection, self.options.mounts, &mut lister)?;
        lister.finish()?;
        let Lister { memory, list, frozen, doubts, .. } = lister;
        let (first, last) = frozen.unwrap_or_default();
        tally.frozen_in(last.saturating_sub(first));
        stop.pass(memory.rewind())?;
        let mut list = stop.pass(list.finish().map_err(scan::spool_error))?;
        if self.options.strict == Strict::Yes {
            let looked =
                moment::mark_changed(&mut list, &mut source::Opener::new(&self.roots, freeze), tally);
            stop.pass(looked.map_err(scan::spool_error))?;
        }
        Ok((list, doubts.purse()))
    }

    /// The roots in which a database has its data.
    fn data_folders(&self) -> Vec<EntryPath> {
        let is_data = |root: &&Root| database::looks_like_data(&root.place).is_some();
        self.roots.iter().filter(is_data).map(|root| root.path.clone()).collect()
    }

    /// What is wrong with the folders, as far as that shows before anything is read.
    fn warnings(&self, memory: &Memory) -> Vec<String> {
        let is_frozen = self.options.freeze.mode == FreezeMode::Off;
        let live = self.roots.iter().filter(|_| !is_frozen).filter_map(|root| {
            let set = database::looks_live(&root.place)?;
            (!self.options.class_sets.contains(&set)).then(|| database::warning(&root.place, set))
        });
        let is_empty = |root: &&Root| root.place.read_dir().is_ok_and(|mut names| names.next().is_none());
        let emptied = self.roots.iter().filter(|_| memory.last.is_some()).filter(is_empty).map(|root| {
            format!("`{}` is empty: is the file system mounted that belongs there?", root.place.display())
        });
        let covered = self.roots.iter().flat_map(|root| root.covers.iter().map(move |inner| (root, inner)));
        let covered = covered.map(|(root, inner)| {
            format!("`/{inner}` is pushed once, as a part of `{}`", root.place.display())
        });
        self.options.warnings.iter().cloned().chain(live).chain(emptied).chain(covered).collect()
    }

    /// Patterns of the user that matched nothing, each behind its flag, or its file and line.
    fn unmatched(&self) -> Vec<String> {
        let classed = self.classes.unmatched(self.options.classes.len());
        let classed = classed.map(|(class, glob)| format!("--class {class}={glob}"));
        self.selection.unmatched().chain(classed).collect()
    }

    /// A file without a name.
    fn scratch(&self, stop: &Stop) -> Result<File, Stopped> {
        let scratch = self.place.as_ref().map_or_else(tempfile::tempfile, Place::scratch);
        // Where nothing can be remembered, there may be room elsewhere.
        let scratch = scratch.or_else(|_| tempfile::tempfile());
        stop.pass(scratch.map_err(scan::spool_error))
    }

    /// Sends everything that the server lacks, and commits.
    fn send(
        &self,
        uplink: &Uplink<'_>,
        session: &Session,
        freeze: &Freeze,
        found: Found,
        pages: &mut Pages,
    ) -> Result<(Committed, Manifest), Stopped> {
        self.hooks.progress.phase(Phase::Sending);
        let Scanned { totals, problems } = self.send_chunks(uplink, session, freeze, found, pages)?;
        let opener = source::Opener::new(&self.roots, freeze);
        uplink.settle(opener, session)?;
        self.commit(uplink, session, pages, Scanned { totals, problems })
    }

    /// Sends the pages, and commits. The server takes a page only when it has all that the page refers to.
    fn commit(
        &self,
        uplink: &Uplink<'_>,
        session: &Session,
        pages: &Pages,
        Scanned { totals, problems }: Scanned,
    ) -> Result<(Committed, Manifest), Stopped> {
        self.hooks.progress.phase(Phase::Committing);
        send_pages(uplink, &pages.spool)?;
        let manifest = Manifest {
            push: Some(uplink.tally.stats()),
            ..self.manifest(pages.spool.pages(), totals, problems)
        }
        .with_short_texts();
        let answer = self.api.commit(session.id, &manifest, self.options.smaller);
        let committed = uplink.stop.wait_for(self.runtime, answer)?;
        Ok((committed, manifest))
    }

    fn send_chunks(
        &self,
        uplink: &Uplink<'_>,
        session: &Session,
        freeze: &Freeze,
        found: Found,
        pages: &mut Pages,
    ) -> Result<Scanned, Stopped> {
        let (stop, domain) = (uplink.stop, &session.domain);
        let Found { mut list, purse, memory, missing, frozen_at, coming } = found;
        uplink.upload(BlobKind::Chunk, coming, |feeder| {
            let mut scan = Scan {
                reader: uplink.reader(session, feeder),
                pages,
                stop,
                memory,
                purse,
                missing,
                opener: source::Opener::new(&self.roots, freeze),
                frozen_at,
                strict: self.options.strict,
                classes: &self.classes,
                draw: Draw::new(self.options.rehash, session.number, session.seed()),
                links: Links::new(domain.clone()),
                domain: domain.clone(),
                clock: self.hooks.clock,
                totals: Default::default(),
                problems: Vec::new(),
            };
            while let Some(step) = stop.pass(list.next_step().map_err(scan::spool_error))? {
                scan.step(step)?;
            }
            scan.finish()
        })
    }

    fn manifest(
        &self,
        pages: &[PageRef],
        totals: format_spec::manifest::Totals,
        problems: Vec<format_spec::manifest::Problem>,
    ) -> Manifest {
        Manifest {
            version: FORMAT_VERSION,
            cluster: self.options.cluster.clone(),
            node: self.options.node.clone(),
            roots: self.stream.as_ref().map_or_else(|| paths_of(&self.roots), |name| vec![name.clone()]),
            pages: pages.to_vec(),
            totals,
            problems,
            tool: concat!("astacus-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            host: self.options.host.clone(),
            push: None,
            series: self.options.series.clone(),
            about: self.options.about.clone().if_any(),
            roots_are: self.stream.as_ref().map(|_| RootsAre::Stream),
        }
    }
}

fn pace(options: &PushOptions) -> Pace {
    options.max_rate.map_or_else(Pace::unlimited, |rate| Pace::at_most(rate.bytes_per_second()))
}

fn paths_of(roots: &[Root]) -> Vec<EntryPath> {
    roots.iter().map(|root| root.path.clone()).collect()
}

/// What there is to push, and what is known of it.
struct Found {
    list: list::Reader,
    purse: Purse,
    memory: Memory,
    /// Chunks that are remembered and that the server does not have.
    missing: HashSet<ChunkId>,
    frozen_at: Timestamp,
    /// What to do about chunks that other nodes are sending.
    coming: Coming,
}

fn send_pages(uplink: &Uplink<'_>, spool: &Spool) -> Result<(), Stopped> {
    // Pages name the times of files: hardly ever do two nodes have the same.
    uplink.upload(BlobKind::Page, Coming::Send, |mut feeder| {
        let sent = spool.read_back(|page, bytes| {
            uplink.tally.page();
            feeder.add(page.id, bytes, None).map_err(PageError::Stopped)
        });
        match sent {
            Ok(()) => feeder.finish(),
            Err(PageError::Stopped(stopped)) => Err(stopped),
            Err(PageError::Spool(source)) => Err(uplink.stop.fail(scan::spool_error(source))),
        }
    })
}

/// Why the pages were not all read back.
enum PageError {
    Stopped(Stopped),
    Spool(std::io::Error),
}

impl From<std::io::Error> for PageError {
    fn from(source: std::io::Error) -> Self {
        Self::Spool(source)
    }
}
