//! What can be asked of a push.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use format_spec::{About, ClusterName, NodeName, SeriesName};

use super::class::ClassRule;
use super::class::sets::ClassSet;
use super::freeze::FreezeOptions;
use super::select::SelectOptions;
use super::select::roots::Mounts;
use super::verdict::draw::Rehash;
use crate::api::Smaller;
use crate::cancel::Cancel;
use crate::clock::{Clock, SystemClock};
use crate::progress::{Progress, Silent};
use crate::rate::Rate;
use crate::state::Alike;

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

/// What becomes of a file that is not of the moment of the freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strict {
    /// It is counted and named.
    #[default]
    No,
    /// It is a problem, and the snapshot partial.
    Yes,
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
pub(crate) enum Remember {
    LastPush,
    Nothing,
}
