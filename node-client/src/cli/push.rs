//! The command line of a push. A new flag is a field of one of its groups, and nothing else: a job has the flags of the
//! groups as keys, and whether a stream has it is said of the whole group.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, ValueEnum};
use format_spec::{About, Label, Labels, Note, SeriesName};

use super::flags::{Group, Word, flags};
use crate::config::{Config, Env};
use crate::error::ClientError;
use crate::output::{Naming, Output, ProgressArguments};
use crate::priority::{DiskClass, Nice, Priority};
use crate::push::{
    Alike, Caches, ClassRule, ClassSet, DEFAULT_REHASH, FreezeMode, FreezeOptions, Mounts, PathList,
    PushOptions, Rehash, SelectOptions, Separator, Smaller, Stream, StreamName, StreamSource, Strict,
    Unfrozen,
};
use crate::rate::Rate;
use crate::size::Size;

/// Flags of a push that are about files, and so not for a stream: groups of them, and single ones.
const OF_FILES: [&str; 6] =
    ["ChoiceArguments", "dry_run", "verbose", "MountArguments", "KeepingArguments", "RehashArguments"];

/// What to push, and how.
#[derive(Debug, Clone, Default, Args)]
pub struct PushArguments {
    /// Folders and files, or a stream.
    #[command(flatten)]
    pub source: SourceArguments,
    /// Which names below the folders.
    #[command(flatten)]
    pub choice: ChoiceArguments,
    /// Tell what would be read and left out; read no file, send nothing, and ask no server.
    #[arg(long)]
    pub dry_run: bool,
    /// Name each file that is new, changed, left out or missing, on standard error; twice: each file.
    #[arg(long, short, action = ArgAction::Count)]
    pub verbose: u8,
    /// What to do at mount points.
    #[command(flatten)]
    pub mounts: MountArguments,
    /// How hard to compress.
    #[command(flatten)]
    pub effort: EffortArguments,
    /// How files are kept and recognized.
    #[command(flatten)]
    pub keeping: KeepingArguments,
    /// What is hashed again.
    #[command(flatten)]
    pub again: RehashArguments,
    /// How fast it is sent, and what the snapshot is called.
    #[command(flatten)]
    pub terms: TermsArguments,
    /// It is meant that there is much less than in the push before: the snapshot is not suspect.
    #[arg(long)]
    pub accept_smaller: bool,
    /// How the push steps back.
    #[command(flatten)]
    pub background: BackgroundArguments,
    /// Progress on standard error.
    #[command(flatten)]
    pub progress: ProgressArguments,
}

/// What to push.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArguments {
    /// Folders and files to back up: what lies in another of them is pushed once, as a part of it. With --command, the
    /// program and its arguments, behind `--`.
    #[arg(required_unless_present_any = ["stdin", "job"], value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Back up standard input as the one file NAME of the snapshot. Its end is taken for the end of the data: a program
    /// before the pipe that fails is not seen, --command sees it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["paths", "command", "job"], conflicts_with_all = OF_FILES)]
    pub stdin: Option<StreamName>,
    /// Run the program behind `--`, and back up its standard output as the one file NAME of the snapshot. There is a
    /// snapshot only if the program ends with 0; else the exit code is 14.
    #[arg(long, value_name = "NAME", conflicts_with = "job", conflicts_with_all = OF_FILES)]
    pub command: Option<StreamName>,
    /// Run a job of the configuration files. Flags on the command line are stronger than its keys; patterns and labels
    /// are added to its own.
    #[arg(long, value_name = "NAME", conflicts_with = "paths")]
    pub job: Option<String>,
}

impl SourceArguments {
    /// These, and those of a job where they say nothing.
    fn or(self, job: Self) -> Self {
        Self {
            paths: [self.paths, job.paths].concat(),
            stdin: self.stdin.or(job.stdin),
            command: self.command.or(job.command),
            job: self.job,
        }
    }
}

flags! {
    /// Which names below the folders are pushed.
    pub struct ChoiceArguments {
        /// Pass over what matches: a name in any folder, or with a slash in it an absolute path, where
        /// `*` stays within a name and `**` does not. `!GLOB` takes what matches after all; of several that match, the last
        /// decides. A folder that is passed over is not entered.
        #[arg(long, value_name = "GLOB")]
        pub exclude: Vec<String>,
        /// Read such patterns from a file, one on each line; empty lines, and lines that begin with `#`, are none. They come
        /// before those of --exclude.
        #[arg(long, value_name = "FILE")]
        pub exclude_file: Vec<PathBuf>,
        /// Of a folder that holds this name, take only the folder itself and what has this name.
        #[arg(long, value_name = "NAME")]
        pub exclude_if_present: Vec<String>,
        /// Of a folder that is marked as a cache, take only the folder itself and its CACHEDIR.TAG.
        #[arg(long)]
        pub exclude_caches: bool,
        /// Pass over files that are longer: a number of bytes, with K, M or G.
        #[arg(long, value_name = "SIZE")]
        pub exclude_larger_than: Option<Size>,
        /// Of the folders to back up, take only the files and whole folders that this file names, one path on each line; `-`
        /// is standard input.
        #[arg(long, value_name = "FILE")]
        pub files_from: Vec<PathBuf>,
        /// As --files-from, with a NUL behind each path, as `find -print0` writes them.
        #[arg(long, value_name = "FILE")]
        pub files_from0: Vec<PathBuf>,
    }
}

flags! {
    /// What to do at mount points.
    pub struct MountArguments {
        /// Do not enter file systems that are mounted below the folders.
        #[arg(long)]
        pub one_file_system: bool,
    }
}

flags! {
    /// How hard the push compresses.
    pub struct EffortArguments {
        /// Compression: 1 is fast, 19 is small [default: 1].
        #[arg(long, value_name = "N")]
        pub level: Option<Level>,
        /// Threads that compress [default: one for each processor, at most 16].
        #[arg(long, value_name = "N", value_parser = jobs)]
        pub jobs: Option<NonZeroUsize>,
    }
}

flags! {
    /// How files are kept as they are while they are read, and recognized at the next push.
    pub struct KeepingArguments {
        /// Read every file, and remember nothing for the next push.
        #[arg(long)]
        pub no_state: bool,
        /// How files are kept as they are until they were read: `hardlink` is safe from deletion, replacement and
        /// appending, `reflink` also from writes in place, `auto` takes the better one of each file system, `none` is
        /// for folders that are frozen already [default: auto].
        #[arg(long, value_name = "MODE", value_enum)]
        pub freeze: Option<Freezing>,
        /// Folder for the second names of files while they are read, on their file system [default: a folder
        /// beside the pushed ones, made and removed again].
        #[arg(long, value_name = "DIR")]
        pub freeze_dir: Option<PathBuf>,
        /// Know files by inode number and path whatever their device, as in another snapshot of the same volume. Samples
        /// are compared.
        #[arg(long)]
        pub ignore_device: bool,
        /// Know files by path, size and times whatever their inode number, for file systems that give others at each
        /// mount. Samples are compared.
        #[arg(long)]
        pub ignore_inode: bool,
        /// Make no snapshot if a file cannot be frozen as --freeze says.
        #[arg(long)]
        pub require_freeze: bool,
        /// Count files that changed between the freeze and their reading as missing: the snapshot is partial then.
        #[arg(long)]
        pub strict: bool,
        /// How the files that match GLOB are changed by their owner: `append-only`, `immutable`, `mutable`
        /// (always read whole), `logged` (its owner's own log repairs a copy taken while it writes) or `auto`. The
        /// first that matches counts.
        #[arg(long, value_name = "CLASS=GLOB")]
        pub class: Vec<ClassRule>,
        /// Classes of the files of a database, and what it says never to copy: `cassandra`, `etcd`, `m3`, `mysql`,
        /// `postgresql`, `redis`, `rocksdb` or `sqlite`; `logs` for logs known by name. They come after those of --class.
        #[arg(long, value_name = "NAME")]
        pub class_set: Vec<ClassSet>,
    }
}

flags! {
    /// What is hashed again though nothing says that it changed.
    pub struct RehashArguments {
        /// Hash this share of the content again though nothing says that it changed [without a number: all].
        #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100")]
        pub rehash: Option<Share>,
        /// Hash everything again once in so many pushes, spread over the second half of them; 0 for never [default: 30].
        #[arg(long, value_name = "N", conflicts_with = "rehash", value_parser = pushes)]
        pub rehash_every: Option<u32>,
    }
}

flags! {
    /// How fast the push sends, and what its snapshot is called.
    pub struct TermsArguments {
        /// Send at most so many bytes per second: a number with K, M or G.
        #[arg(long, value_name = "RATE")]
        pub max_rate: Option<Rate>,
        /// Name of the series. Retention, `latest` and alarms go by series: pushes of the same node and the same folders, or of
        /// the same name here, whatever their folders.
        #[arg(long, value_name = "NAME")]
        pub series: Option<SeriesName>,
        /// Give the snapshot a label, for lists and for choosing among snapshots; repeated: up to 16.
        #[arg(long, value_name = "KEY=VALUE")]
        pub label: Vec<Label>,
        /// Give the snapshot a note for people: at most 1024 bytes in one line.
        #[arg(long, value_name = "TEXT")]
        pub note: Option<Note>,
    }
}

flags! {
    /// How the push steps back behind other programs.
    pub struct BackgroundArguments {
        /// Step back behind other programs that compute, by 1 to 19 [without a number: 19].
        #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "19")]
        pub nice: Option<Nice>,
        /// Use the disks only when no other program wants them.
        #[arg(long)]
        pub idle_io: bool,
    }
}

/// How files are kept as they are until they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Freezing {
    /// A copy that shares its blocks where the file system can make one, else a hard link.
    Auto,
    /// A hard link for each file.
    Hardlink,
    /// As `auto`, and each hard link in place of a copy is reported.
    Reflink,
    /// Not at all.
    None,
}

impl FromStr for Freezing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        <Self as ValueEnum>::from_str(text, false)
    }
}

impl Word for Freezing {}

impl From<Freezing> for FreezeMode {
    fn from(freezing: Freezing) -> Self {
        match freezing {
            Freezing::Auto => Self::Auto,
            Freezing::Hardlink => Self::Hardlink,
            Freezing::Reflink => Self::Reflink,
            Freezing::None => Self::Off,
        }
    }
}

/// A zstd level, from 1 to 19.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level(pub i32);

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let level = text.parse().ok().filter(|level| (1..=19).contains(level));
        level.map(Self).ok_or_else(|| "expected a number from 1 to 19".to_owned())
    }
}

impl Word for Level {}

/// A share, of 0 to 1, written in percent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share(pub f64);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.trim_end_matches('%').parse().ok().filter(|share| (0.0..=100.0).contains(share));
        percent
            .map(|percent: f64| Self(percent / 100.0))
            .ok_or_else(|| "expected a number from 0 to 100".to_owned())
    }
}

impl Word for Share {}

fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected a number of threads, at least 1".to_owned())
}

fn pushes(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected a number of pushes, or 0 for never".to_owned())
}

/// Told where no place for what pushes remember is known.
const NO_MEMORY: &str = "this push will not be remembered, so the next one reads every file again: set ASTACUS_STATE_DIR to a \
                         folder, as HOME is not set";

impl PushArguments {
    /// For the library; `host` is this machine's name.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the node has no usable name.
    pub fn options(&self, config: &Config, host: &str, env: Env<'_>) -> Result<PushOptions, ClientError> {
        self.check_numbers()?;
        let defaults = PushOptions::new(
            config.cluster(),
            config.node(host)?,
            host.to_owned(),
            self.source.paths.clone(),
        );
        // Nothing is ever remembered of a stream.
        let is_remembered = !self.keeping.no_state && self.stream().is_none();
        let state = is_remembered.then(|| crate::state::default_folder(env));
        let warnings = if state == Some(None) { vec![NO_MEMORY.to_owned()] } else { Vec::new() };
        Ok(PushOptions {
            select: self.select(),
            mounts: if self.mounts.one_file_system { Mounts::Skip } else { Mounts::Enter },
            level: self.effort.level.map_or(defaults.level, |Level(level)| level),
            jobs: self.effort.jobs.unwrap_or(defaults.jobs),
            freeze: FreezeOptions {
                mode: self.keeping.freeze.unwrap_or(Freezing::Auto).into(),
                folder: self.keeping.freeze_dir.clone(),
                unfrozen: if self.keeping.require_freeze { Unfrozen::Refused } else { Unfrozen::Reported },
            },
            alike: match (self.keeping.ignore_device, self.keeping.ignore_inode) {
                (_, true) => Alike::IgnoreInode,
                (true, false) => Alike::IgnoreDevice,
                (false, false) => Alike::Exact,
            },
            strict: if self.keeping.strict { Strict::Yes } else { Strict::No },
            classes: self.keeping.class.clone(),
            class_sets: self.keeping.class_set.clone(),
            rehash: self.rehash(),
            max_rate: self.terms.max_rate,
            series: self.terms.series.clone(),
            about: About { labels: self.labels()?, note: self.terms.note.clone() },
            smaller: if self.accept_smaller { Smaller::Meant } else { Smaller::Suspect },
            state: state.flatten(),
            warnings,
            ..defaults
        })
    }

    /// A number behind an option that takes it with `=` only would be a folder to push.
    pub(super) fn check_numbers(&self) -> Result<(), ClientError> {
        if self.stream().is_some() {
            return Ok(());
        }
        for path in self.source.paths.iter().filter(|path| path.symlink_metadata().is_err()) {
            let Some(text) = path.to_str() else { continue };
            let flags = [
                ("nice", self.background.nice.is_some() && text.parse::<Nice>().is_ok()),
                ("rehash", self.again.rehash.is_some() && text.parse::<Share>().is_ok()),
            ];
            if let Some((flag, _)) = flags.iter().find(|(_, takes_it)| *takes_it) {
                return Err(ClientError::Usage(format!(
                    "`{text}` is taken for a folder to push, and is not there: a number for --{flag} is written with \
                     `=`, as in `--{flag}={text}`"
                )));
            }
        }
        Ok(())
    }

    /// Which names are pushed.
    fn select(&self) -> SelectOptions {
        let lists = |files: &[PathBuf], separator| -> Vec<PathList> {
            files.iter().map(|file| PathList { file: file.clone(), separator }).collect()
        };
        let (lines, nuls) = (
            lists(&self.choice.files_from, Separator::NewLine),
            lists(&self.choice.files_from0, Separator::Nul),
        );
        SelectOptions {
            excludes: self.choice.exclude.clone(),
            exclude_files: self.choice.exclude_file.clone(),
            if_present: self.choice.exclude_if_present.clone(),
            caches: if self.choice.exclude_caches { Caches::LeaveOut } else { Caches::Take },
            larger_than: self.choice.exclude_larger_than,
            lists: [lines, nuls].concat(),
        }
    }

    /// The files to name.
    pub fn naming(&self, output: Output) -> Naming {
        if output.quiet { Naming::Nothing } else { Naming::of(self.verbose) }
    }

    /// The stream to push, if it is one and not folders.
    pub fn stream(&self) -> Option<Stream> {
        let program = || self.source.paths.iter().cloned().map(PathBuf::into_os_string).collect();
        match (&self.source.stdin, &self.source.command) {
            (Some(name), _) => Some(Stream { name: name.clone(), source: StreamSource::Input }),
            (None, Some(name)) => {
                Some(Stream { name: name.clone(), source: StreamSource::Command(program()) })
            }
            (None, None) => None,
        }
    }

    fn labels(&self) -> Result<Labels, ClientError> {
        Labels::new(self.terms.label.iter().cloned()).map_err(|error| ClientError::Usage(error.to_string()))
    }

    /// These arguments, and the keys of a job where they say nothing. Lists are joined: those of the command line come
    /// first among classes, where the first that matches counts, and last among excludes and labels, where the last does.
    #[must_use]
    pub fn or(self, job: &Self) -> Self {
        let job = job.clone();
        // Each of both flags of that group takes the place of the other.
        let is_told = self.again != RehashArguments::default();
        let job_again = if is_told { RehashArguments::default() } else { job.again };
        Self {
            source: self.source.or(job.source),
            choice: self.choice.over(job.choice),
            mounts: self.mounts.over(job.mounts),
            effort: self.effort.over(job.effort),
            keeping: self.keeping.over(job.keeping),
            again: self.again.over(job_again),
            terms: self.terms.over(job.terms),
            background: self.background.over(job.background),
            ..self
        }
    }

    /// The flags that a job may set.
    pub(crate) fn groups(&mut self) -> [&mut dyn Group; 7] {
        [
            &mut self.choice,
            &mut self.mounts,
            &mut self.effort,
            &mut self.keeping,
            &mut self.again,
            &mut self.terms,
            &mut self.background,
        ]
    }

    fn rehash(&self) -> Rehash {
        match (self.again.rehash, self.again.rehash_every.map(NonZeroU32::new)) {
            (Some(Share(share)), _) => Rehash::Share(share),
            (None, Some(Some(pushes))) => Rehash::Every(pushes),
            (None, Some(None)) => Rehash::Never,
            (None, None) => DEFAULT_REHASH,
        }
    }

    /// How the process is to step back.
    pub fn priority(&self) -> Priority {
        let disk = if self.background.idle_io { DiskClass::Idle } else { DiskClass::Inherited };
        Priority { nice: self.background.nice, disk }
    }
}
