//! Options of a push.

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

/// Default zstd level: most of a push's time is spent here (ADR-0010).
pub const DEFAULT_LEVEL: i32 = 1;
/// Threads that compress unless more are asked for: each takes memory.
const MOST_JOBS: NonZeroUsize = NonZeroUsize::new(16).expect("it is not zero");
/// Default number of pushes in a full round of rehashing.
pub const DEFAULT_REHASH: Rehash = Rehash::Every(std::num::NonZeroU32::new(30).expect("it is not zero"));

/// Options of a push.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// Node that pushes.
    pub origin: Origin,
    /// Folders and files to push.
    pub roots: Vec<PathBuf>,
    /// Selection of names below the roots.
    pub select: SelectOptions,
    /// Handling of mount points.
    pub mounts: Mounts,
    /// Processors and network that the push may use.
    pub effort: Effort,
    /// How files are kept as they are until they were read.
    pub freeze: FreezeOptions,
    /// Handling of files that changed after the freeze.
    pub strict: Strict,
    /// How files of the last push are recognized.
    pub recognition: Recognition,
    /// Folder for what is remembered from push to push; without it every file is read.
    pub state: Option<PathBuf>,
    /// Warnings of the caller: logged at the start, and added to the report.
    pub warnings: Vec<String>,
    /// Terms of the snapshot.
    pub terms: Terms,
}

/// Node that pushes.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Cluster of the node.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// Name of this machine, for the record.
    pub host: String,
}

/// Processors and network that a push may use.
#[derive(Debug, Clone)]
pub struct Effort {
    /// zstd level.
    pub level: i32,
    /// Threads that compress.
    pub jobs: NonZeroUsize,
    /// Most bytes per second that are sent; without it, as many as the network takes.
    pub max_rate: Option<Rate>,
}

/// How a push recognizes files of the last push.
#[derive(Debug, Clone)]
pub struct Recognition {
    /// Parts of an identity that may differ for a file to be recognized.
    pub alike: Alike,
    /// Classes of files; the first rule that matches counts.
    pub classes: Vec<ClassRule>,
    /// Classes of the files of known databases, behind those rules.
    pub class_sets: Vec<ClassSet>,
    /// Share of unchanged content that is hashed again.
    pub rehash: Rehash,
}

/// Terms of a snapshot.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// Name of the series; without it, the folders identify the series.
    pub series: Option<SeriesName>,
    /// Labels and note.
    pub about: About,
    /// Permission for the snapshot to be much smaller than the one before.
    pub smaller: Smaller,
}

impl PushOptions {
    /// `roots` of `node`, with the defaults of the command line and nothing remembered.
    pub fn new(cluster: ClusterName, node: NodeName, host: String, roots: Vec<PathBuf>) -> Self {
        let jobs = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).min(MOST_JOBS);
        Self {
            origin: Origin { cluster, node, host },
            roots,
            select: SelectOptions::default(),
            mounts: Mounts::Enter,
            effort: Effort { level: DEFAULT_LEVEL, jobs, max_rate: None },
            freeze: FreezeOptions::default(),
            strict: Strict::default(),
            recognition: Recognition {
                alike: Alike::default(),
                classes: Vec::new(),
                class_sets: Vec::new(),
                rehash: DEFAULT_REHASH,
            },
            state: None,
            warnings: Vec::new(),
            terms: Terms::default(),
        }
    }
}

/// Handling of a file that changed after the freeze.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strict {
    /// It is counted and named.
    #[default]
    No,
    /// It is a problem, and the snapshot partial.
    Yes,
}

/// Callbacks and sources that a push needs from its caller.
pub struct Hooks<'a> {
    /// Hears how far it is.
    pub progress: &'a dyn Progress,
    /// Ends it early.
    pub cancel: Cancel,
    /// Source of the current time.
    pub clock: &'a dyn Clock,
}

impl<'a> Hooks<'a> {
    /// Hooks without progress and without interruption.
    pub fn quiet(clock: &'a SystemClock) -> Self {
        Self { progress: &Silent, cancel: Cancel::new(), clock }
    }
}

/// Use of the state of the last push by an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remember {
    LastPush,
    Nothing,
}
