//! Push: what lies below some folders becomes a snapshot, and only what the repository lacks is sent.
//!
//! ```text
//! walk ──▶ scan: reuse, or read + cut + hash ──▶ ask ──▶ compress ──▶ send ──▶ pages ──▶ commit
//! ```
//! Each arrow is a bounded queue between threads, so memory depends on neither the size of the data
//! nor the number of files. The snapshot is durable when [`run`] returns, and there is none if it
//! fails. Files that change meanwhile are kept as they were found; what vanished or could not be
//! read is reported, and the snapshot says so.

mod batch;
mod content;
mod exclude;
mod links;
mod report;
mod roots;
mod scan;
mod session;
mod stat;
mod stop;
mod upload;
mod walk;
mod xattr;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use crossbeam_channel::{Receiver, Sender, bounded};
use format_spec::key::BlobKind;
use format_spec::manifest::{Manifest, PageRef};
use format_spec::page::PageBuilder;
use format_spec::{ClusterName, FORMAT_VERSION, NodeName};
use tokio::runtime::Handle;

pub use report::{ProblemReport, PushReport};
pub(crate) use roots::Root;
pub(crate) use stat::Identity;
pub use walk::Mounts;

use crate::api::Api;
use crate::cancel::Cancel;
use crate::clock::{Clock, SystemClock};
use crate::error::ClientError;
use crate::progress::{Progress, Silent};
use crate::state::{Place, Spool};
use content::Reader;
use exclude::Excludes;
use links::Links;
use report::Tally;
use scan::{Pages, Scan, Scanned};
use session::Session;
use stop::{Failure, Stop, Stopped};
use upload::Uplink;
use walk::{Gone, Step};

/// How often a push is run from the start when the server lost its session or unsealed chunks.
const ATTEMPTS: u32 = 3;
/// Refusals after which a push from the start helps: the server has been restarted.
const LOST: [&str; 3] = ["missing_chunks", "session_over", "unknown_chunks"];
/// zstd level unless told otherwise: most of a push's time goes here (ADR-0010).
pub const DEFAULT_LEVEL: i32 = 1;
/// Steps that go to the scan together.
const STEPS: usize = 64;

/// What to push, and how.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// Cluster of the node.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// Name of this machine, for the record.
    pub host: String,
    /// Folders to push.
    pub roots: Vec<PathBuf>,
    /// Patterns to pass over: without a slash they match names, with one absolute paths.
    pub excludes: Vec<String>,
    /// What to do at mount points.
    pub mounts: Mounts,
    /// zstd level.
    pub level: i32,
    /// Threads that compress.
    pub jobs: NonZeroUsize,
    /// Folder for what is remembered from push to push; without it every file is read.
    pub state: Option<PathBuf>,
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
    let mut remember = Remember::LastPush;
    let mut attempt = 1;
    loop {
        match push.attempt(remember) {
            Ok(report) => {
                let seconds = hooks.clock.elapsed().saturating_sub(started).as_secs_f64();
                return Ok(PushReport { attempts: attempt, seconds, ..report });
            }
            Err(Failure::Damaged) if remember == Remember::LastPush => {
                tracing::warn!("what is remembered of the last push is damaged: every file is read");
                remember = Remember::Nothing;
            }
            Err(Failure::Client(error)) if attempt < ATTEMPTS && is_lost(&error) => {
                tracing::warn!(%error, attempt, "the push starts again");
                attempt += 1;
                if attempt == ATTEMPTS {
                    remember = Remember::Nothing;
                }
            }
            Err(Failure::Client(error)) => return Err(error),
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
    excludes: Excludes,
    place: Option<Place>,
}

impl<'a> Push<'a> {
    fn new(
        api: &'a Api,
        runtime: &'a Handle,
        options: &'a PushOptions,
        hooks: &'a Hooks<'a>,
    ) -> Result<Self, ClientError> {
        let roots = roots::check(&options.roots)?;
        let excludes = Excludes::new(&options.excludes)?;
        let place =
            options.state.as_ref().map(|base| Place::new(base, &options.cluster, &options.node, &roots));
        Ok(Self { api, runtime, options, hooks, roots, excludes, place })
    }

    /// One run from the start.
    fn attempt(&self, remember: Remember) -> Result<PushReport, Failure> {
        let Self { api, runtime, options, .. } = *self;
        let place = self.place.as_ref();
        let session = Session::open(api, runtime, options, place, remember, &self.hooks.cancel)?;
        let (stop, id) = (Stop::new(self.hooks.cancel.clone()), session.id);
        self.push(session, &stop).map_err(|stopped| {
            session::end(api, runtime, id);
            stop.reason(stopped)
        })
    }

    fn push(&self, mut session: Session, stop: &Stop) -> Result<PushReport, Stopped> {
        let tally = Tally::default();
        let uplink = Uplink {
            api: self.api,
            runtime: self.runtime,
            session: session.id,
            stop,
            tally: &tally,
            progress: self.hooks.progress,
            level: self.options.level,
            jobs: self.options.jobs,
            max_chunk: session.chunker.params().max_chunk(),
        };
        let Scanned { mut spool, totals, problems } = self.send_chunks(&uplink, &mut session)?;
        // The server takes a page only when it has all that the page refers to.
        send_pages(&uplink, &mut spool)?;
        let manifest = self.manifest(spool.pages(), totals, problems);
        let answer = self.api.commit(session.id, &manifest);
        let committed = stop.wait_for(self.runtime, answer)?;
        if let Err(error) = spool.finish(&committed.manifest) {
            tracing::warn!(%error, "this push will not be remembered");
        }
        let Manifest { node, totals, problems, .. } = &manifest;
        Ok(tally.report(&committed, node, totals, problems))
    }

    fn send_chunks(&self, uplink: &Uplink<'_>, session: &mut Session) -> Result<Scanned, Stopped> {
        let (stop, domain) = (uplink.stop, &session.domain);
        let spool = Spool::create(self.place.as_ref(), domain.clone(), session.repository, &session.id);
        let spool = stop.pass(spool.map_err(scan::spool_error))?;
        let known = session.known.take();
        uplink.upload(BlobKind::Chunk, |feeder| {
            let scan = Scan {
                reader: Reader { feeder, chunker: session.chunker.clone(), domain: domain.clone() },
                pages: Pages { builder: PageBuilder::new(domain.clone()), spool, stop },
                known,
                links: Links::new(domain.clone()),
                domain: domain.clone(),
                clock: self.hooks.clock,
                tally: uplink.tally,
                progress: self.hooks.progress,
                totals: Default::default(),
                problems: Vec::new(),
            };
            self.scan(scan, stop)
        })
    }

    /// Walks on a thread of its own, a little ahead of the scan.
    fn scan(&self, mut scan: Scan<'_>, stop: &Stop) -> Result<Scanned, Stopped> {
        let (sender, steps) = bounded(4);
        std::thread::scope(|scope| {
            let walker = std::thread::Builder::new().name("walk".to_owned());
            let walking = walker.spawn_scoped(scope, move || self.walk(&sender));
            stop.pass(walking.map_err(|source| ClientError::Thread { name: "walk", source }))?;
            // Dropped on return: that ends the walk.
            let steps: Receiver<Vec<Step>> = steps;
            for step in steps.iter().flatten() {
                scan.step(step)?;
            }
            scan.finish()
        })
    }

    fn walk(&self, steps: &Sender<Vec<Step>>) {
        let mut some = Vec::with_capacity(STEPS);
        let mut send = |step| {
            some.push(step);
            if some.len() < STEPS {
                return Ok(());
            }
            steps.send(std::mem::replace(&mut some, Vec::with_capacity(STEPS))).map_err(|_| Gone)
        };
        let walked = walk::walk(&self.roots, &self.excludes, self.options.mounts, &mut send);
        if walked.is_ok() {
            // If the scan has ended, nobody needs the rest.
            let _ = steps.send(some);
        }
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
            roots: self.roots.iter().map(|root| root.path.clone()).collect(),
            pages: pages.to_vec(),
            totals,
            problems,
            tool: concat!("astacus-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            host: self.options.host.clone(),
        }
    }
}

fn send_pages(uplink: &Uplink<'_>, spool: &mut Spool) -> Result<(), Stopped> {
    uplink.upload(BlobKind::Page, |mut feeder| {
        let sent = spool.read_back(|page, bytes| {
            uplink.tally.read(1, 0);
            feeder.add(page.id, bytes).map_err(PageError::Stopped)
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
