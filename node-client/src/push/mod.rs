//! Push: the content of some folders becomes a snapshot, and only data that the repository lacks is sent.
//!
//! ```text
//! walk + freeze ──▶ list ──▶ scan: remember, or read + cut + hash ──▶ ask ──▶ compress ──▶ send ──▶ pages ──▶ commit
//! ```
//! The list is on disk and whole before anything is read: it is the tree at one moment, and what will be
//! read has a second name by then (`freeze`). Behind it each arrow is a bounded queue between threads,
//! so memory depends on neither the size of the data nor the number of files. What must be read of a file
//! that is remembered says `change`.
//!
//! The snapshot is durable when [`run`] returns, and there is none if it fails; work done until then is saved
//! in both cases. A file's content is of one moment, or the file is reported and marked in the snapshot;
//! `docs/change-detection.md` describes the limits of this.

mod chosen;
mod class;
mod dry;
mod find;
mod freeze;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod guest;
mod names;
mod options;
mod pseudo;
mod read;
mod report;
mod scan;
mod second_names;
mod select;
mod send;
mod stat;
mod stop;
mod stream;
mod verdict;
mod xattr;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;

use format_spec::key::BlobKind;
use format_spec::manifest::{Manifest, PageRef, RootsAre};
use format_spec::page::PageBuilder;
use format_spec::wire::Committed;
use format_spec::{EntryPath, FORMAT_VERSION};
use tokio::runtime::Handle;

pub use class::sets::ClassSet;
pub use class::{Class, ClassRule, ParseClassError};
pub use dry::{DryPush, Planned, dry_run};
pub use freeze::{FreezeMode, FreezeOptions, Frozen, Kept, Tidied, Unfrozen, tidy};
pub use options::{
    DEFAULT_LEVEL, DEFAULT_REHASH, Effort, Hooks, Origin, PushOptions, Recognition, Strict, Terms,
};
pub use report::{ProblemReport, PushReport};
pub use select::left_out::LeftOutBy;
pub use select::listed::{PathList, Separator};
pub use select::roots::{Mounts, existing};
pub use select::{Caches, SelectOptions};
pub use stream::{Stream, StreamName, StreamSource, run_stream};
pub use verdict::draw::Rehash;

pub use crate::api::Smaller;
pub use crate::state::Alike;

use crate::api::{Api, Coming};
use crate::error::ClientError;
use crate::pace::Pace;
use crate::progress::Phase;
use crate::state::{Memory, Place, Spool};
use chosen::Chosen;
use find::links::Links;
use find::lister::{Lister, Listing};
use find::opener::Opener;
use find::{list, moment, walk};
use freeze::Freeze;
use options::Remember;
use report::Tally;
use scan::{Pages, Past, Scan, Scanned};
use select::roots::{Root, paths_of};
use send::Uplink;
use send::session::{self, Session};
use stop::{Failure, Stop, Stopped, spool_error};
use verdict::doubt::Purse;
use verdict::draw::Draw;

/// How often a push is run from the start when the server lost its session or unsealed chunks.
const ATTEMPTS: u32 = 3;
/// Refusals after which a push from the start helps: the server has been restarted.
const LOST: [&str; 3] = ["missing_chunks", "session_over", "unknown_chunks"];

/// Pushes the folders of `options` and returns once the snapshot is durable.
///
/// Must be called from a thread that may block, not from within `runtime`, which does the network's part. If
/// the server loses the session or unsealed chunks in a restart, the push is run again.
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
                tracing::warn!("the push state is damaged: reading all files");
                remember = Remember::Nothing;
            }
            Err(Failure::Client(error)) if !is_lost(&error) || attempt == ATTEMPTS => return Err(error),
            Err(Failure::Lost) if attempt == ATTEMPTS => {
                return Err(ClientError::Worker(
                    "chunks expected from another node did not arrive, again and again",
                ));
            }
            Err(failure @ (Failure::Client(_) | Failure::Lost)) => {
                tracing::warn!("{failure}: restarting the push");
                attempt += 1;
                // A push that had to start again no longer waits for other nodes.
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
    chosen: Chosen,
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
        let chosen = Chosen::new(options)?;
        let pace = pace(options);
        let place = chosen.place(options);
        Ok(Self { api, runtime, options, hooks, chosen, pace, place, stream: None })
    }

    /// One run from the start.
    fn attempt(&self, remember: Remember, coming: Coming) -> Result<PushReport, Failure> {
        let Self { api, runtime, options, .. } = *self;
        let place = self.place.as_ref();
        let session = Session::open(api, runtime, options, place, remember, &self.hooks.cancel)?;
        let (stop, id) = (Stop::new(self.hooks.cancel.clone()), session.id);
        let pushed =
            match Freeze::new(&options.freeze, &self.key(), &self.chosen.roots, options.state.as_deref()) {
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
        let Origin { cluster, node, .. } = &self.options.origin;
        let (here, roots) = (PathBuf::new(), paths_of(&self.chosen.roots));
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
        let spool = stop.pass(spool.map_err(spool_error))?;
        let mut pages = Pages { builder: PageBuilder::new(domain.clone()), spool };
        let found = Found { list, past: Past { memory, purse, missing, frozen_at }, coming };
        let sent = self.send(&uplink, &session, freeze, found, &mut pages);
        // After a failure as after a commit: what the files are without their second names is remembered.
        let released = pages.spool.release(|identity| freeze.release(identity));
        let (committed, manifest) = sent?;
        let finished = released.and_then(|()| pages.spool.finish(&committed.manifest));
        if let Err(error) = finished {
            tracing::warn!(%error, "cannot save the push state: the next push will read all files");
        }
        let Manifest { node, totals, problems, .. } = &manifest;
        let report = tally.report(&committed, node, totals, problems);
        let warnings =
            warnings.into_iter().chain(report.warnings).chain(self.chosen.selection.warnings()).collect();
        let (left_out, unmatched) = (self.chosen.selection.left_out(), self.chosen.unmatched());
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
            level: self.options.effort.level,
            jobs: self.options.effort.jobs,
            max_chunk: session.chunker.params().max_chunk(),
            pace: &self.pace,
            clock: self.hooks.clock,
            late: Mutex::default(),
        }
    }

    /// The tree at this moment. Files that will be read are frozen.
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
            classes: &self.chosen.classes,
            memory,
            made: Listing::new(list::Writer::new(files)),
            stop,
            progress: self.hooks.progress,
            tally,
            clock: self.hooks.clock,
            strict: self.options.strict,
            data_folders: &data_folders,
            roots: &self.chosen.roots,
        };
        walk::walk(&self.chosen.roots, &self.chosen.selection, self.options.mounts, &mut lister)?;
        lister.finish()?;
        let Lister { memory, made, .. } = lister;
        let Listing { list, frozen, doubts, .. } = made;
        let (first, last) = frozen.unwrap_or_default();
        tally.frozen_in(last.saturating_sub(first));
        stop.pass(memory.rewind())?;
        let mut list = stop.pass(list.finish().map_err(spool_error))?;
        if self.options.strict == Strict::Yes {
            let looked = moment::mark_changed(&mut list, &mut Opener::new(&self.chosen.roots, freeze), tally);
            stop.pass(looked.map_err(spool_error))?;
        }
        Ok((list, doubts.purse()))
    }

    /// The roots in which a database has its data.
    fn data_folders(&self) -> Vec<EntryPath> {
        let is_data = |root: &&Root| class::database::looks_like_data(&root.place).is_some();
        self.chosen.roots.iter().filter(is_data).map(|root| root.path.clone()).collect()
    }

    /// Problems with the folders, as far as they show before anything is read.
    fn warnings(&self, memory: &Memory) -> Vec<String> {
        let is_frozen = self.options.freeze.mode == FreezeMode::Off;
        let live = self.chosen.roots.iter().filter(|_| !is_frozen).filter_map(|root| {
            let set = class::database::looks_live(&root.place)?;
            (!self.options.recognition.class_sets.contains(&set))
                .then(|| class::database::warning(&root.place, set))
        });
        let is_empty = |root: &&Root| root.place.read_dir().is_ok_and(|mut names| names.next().is_none());
        let emptied =
            self.chosen.roots.iter().filter(|_| memory.last.is_some()).filter(is_empty).map(|root| {
                format!("`{}` is empty: check that its file system is mounted", root.place.display())
            });
        let covered =
            self.chosen.roots.iter().flat_map(|root| root.covers.iter().map(move |inner| (root, inner)));
        let covered = covered.map(|(root, inner)| {
            format!("`/{inner}` is a part of `{}` and is pushed once", root.place.display())
        });
        self.options.warnings.iter().cloned().chain(live).chain(emptied).chain(covered).collect()
    }

    /// A file without a name.
    fn scratch(&self, stop: &Stop) -> Result<File, Stopped> {
        let scratch = self.place.as_ref().map_or_else(tempfile::tempfile, Place::scratch);
        // Where nothing can be remembered, there may be room elsewhere.
        let scratch = scratch.or_else(|_| tempfile::tempfile());
        stop.pass(scratch.map_err(spool_error))
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
        let opener = Opener::new(&self.chosen.roots, freeze);
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
        let answer = self.api.commit(session.id, &manifest, self.options.terms.smaller);
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
        let Found { mut list, past, coming } = found;
        uplink.upload(BlobKind::Chunk, coming, |feeder| {
            let mut scan = Scan {
                reader: uplink.reader(session, feeder),
                pages,
                stop,
                past,
                opener: Opener::new(&self.chosen.roots, freeze),
                strict: self.options.strict,
                classes: &self.chosen.classes,
                draw: Draw::new(self.options.recognition.rehash, session.number, session.seed()),
                links: Links::new(domain.clone()),
                domain: domain.clone(),
                clock: self.hooks.clock,
                scanned: Scanned::default(),
            };
            while let Some(step) = stop.pass(list.next_step().map_err(spool_error))? {
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
            cluster: self.options.origin.cluster.clone(),
            node: self.options.origin.node.clone(),
            roots: self
                .stream
                .as_ref()
                .map_or_else(|| paths_of(&self.chosen.roots), |name| vec![name.clone()]),
            pages: pages.to_vec(),
            totals,
            problems,
            tool: concat!("astacus-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            host: self.options.origin.host.clone(),
            push: None,
            series: self.options.terms.series.clone(),
            about: self.options.terms.about.clone().if_any(),
            roots_are: self.stream.as_ref().map(|_| RootsAre::Stream),
        }
    }
}

fn pace(options: &PushOptions) -> Pace {
    options.effort.max_rate.map_or_else(Pace::unlimited, |rate| Pace::at_most(rate.bytes_per_second()))
}

/// Entries to push, and their saved state.
struct Found {
    list: list::Reader,
    past: Past,
    /// Handling of chunks that other nodes are sending.
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
            Err(PageError::Spool(source)) => Err(uplink.stop.fail(spool_error(source))),
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
