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
    Alike, Caches, ClassRule, ClassSet, DEFAULT_REHASH, Effort, FreezeMode, FreezeOptions, Mounts, PathList,
    PushOptions, Recognition, Rehash, SelectOptions, Separator, Smaller, Stream, StreamName, StreamSource,
    Strict, Terms, Unfrozen,
};
use crate::rate::Rate;
use crate::size::Size;

/// Flags of a push that are about files, and so not for a stream: groups of them, and single ones.
const OF_FILES: [&str; 6] =
    ["ChoiceArguments", "dry_run", "verbose", "MountArguments", "KeepingArguments", "RehashArguments"];

/// Arguments of `push`.
#[derive(Debug, Clone, Default, Args)]
pub struct PushArguments {
    /// Folders and files, or a stream.
    #[command(flatten)]
    pub source: SourceArguments,
    /// Which names below the folders.
    #[command(flatten)]
    pub choice: ChoiceArguments,
    /// Show the files that would be read and skipped; read no file and contact no server.
    #[arg(long)]
    pub dry_run: bool,
    /// Print each new, changed, skipped or missing file on standard error; given twice, every file.
    #[arg(long, short, action = ArgAction::Count)]
    pub verbose: u8,
    /// Handling of mount points.
    #[command(flatten)]
    pub mounts: MountArguments,
    /// How hard to compress.
    #[command(flatten)]
    pub effort: EffortArguments,
    /// How files are kept and recognized.
    #[command(flatten)]
    pub keeping: KeepingArguments,
    /// Share of the content that is hashed again.
    #[command(flatten)]
    pub again: RehashArguments,
    /// How fast it is sent, and what the snapshot is called.
    #[command(flatten)]
    pub terms: TermsArguments,
    /// Accept that the snapshot is much smaller than its predecessor, and do not mark it as suspect.
    #[arg(long)]
    pub accept_smaller: bool,
    /// How the push steps back.
    #[command(flatten)]
    pub background: BackgroundArguments,
    /// Options for progress on standard error.
    #[command(flatten)]
    pub progress: ProgressArguments,
}

/// Data to push: folders and files, or a stream.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArguments {
    /// Folders and files to back up; a path inside another one is pushed once. With --command: the program
    /// and its arguments, behind `--`.
    #[arg(required_unless_present_any = ["stdin", "job"], value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Back up standard input as the single file NAME of the snapshot. A failing program before the pipe is
    /// not noticed; use --command to notice it.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["paths", "command", "job"], conflicts_with_all = OF_FILES)]
    pub stdin: Option<StreamName>,
    /// Run the program behind `--`, and back up its standard output as the single file NAME of the snapshot.
    /// No snapshot is made unless the program exits with 0; the exit code is 14 then.
    #[arg(long, value_name = "NAME", conflicts_with = "job", conflicts_with_all = OF_FILES)]
    pub command: Option<StreamName>,
    /// Run a job of the configuration files. Flags on the command line override its keys; patterns and labels
    /// are added to those of the job.
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
        /// Skip files and folders that match GLOB: a bare name matches at any depth, a pattern with `/` must
        /// be an absolute path or start with `**/`. `*` stays within a name, `**` crosses folders. `!GLOB`
        /// includes matches again; the last matching pattern decides. A skipped folder is not entered.
        #[arg(long, value_name = "GLOB")]
        pub exclude: Vec<String>,
        /// Read exclude patterns from a file, one per line; empty lines and lines that start with `#` are
        /// ignored. They are applied before those of --exclude.
        #[arg(long, value_name = "FILE")]
        pub exclude_file: Vec<PathBuf>,
        /// In each folder that contains NAME, back up only the folder itself and NAME.
        #[arg(long, value_name = "NAME")]
        pub exclude_if_present: Vec<String>,
        /// In each folder marked as a cache, back up only the folder itself and its CACHEDIR.TAG.
        #[arg(long)]
        pub exclude_caches: bool,
        /// Skip files larger than SIZE: a number of bytes, or with K, M or G.
        #[arg(long, value_name = "SIZE")]
        pub exclude_larger_than: Option<Size>,
        /// Back up only the files and whole folders listed in FILE, one path per line, from the folders to
        /// back up; `-` is standard input.
        #[arg(long, value_name = "FILE")]
        pub files_from: Vec<PathBuf>,
        /// Like --files-from, with a NUL byte after each path, as `find -print0` writes them.
        #[arg(long, value_name = "FILE")]
        pub files_from0: Vec<PathBuf>,
    }
}

flags! {
    /// Handling of mount points.
    pub struct MountArguments {
        /// Do not enter other file systems that are mounted inside the folders.
        #[arg(long)]
        pub one_file_system: bool,
    }
}

flags! {
    /// How hard the push compresses.
    pub struct EffortArguments {
        /// Compression level: 1 is fastest, 19 is smallest [default: 1].
        #[arg(long, value_name = "N")]
        pub level: Option<Level>,
        /// Number of compression threads [default: one per processor, at most 16].
        #[arg(long, value_name = "N", value_parser = jobs)]
        pub jobs: Option<NonZeroUsize>,
    }
}

flags! {
    /// How files are kept as they are while they are read, and recognized at the next push.
    pub struct KeepingArguments {
        /// Read every file, and save no state for the next push.
        #[arg(long)]
        pub no_state: bool,
        /// Protect files from changes while they are read: `hardlink` against deletion, replacement and appending,
        /// `reflink` also against writes in place, `auto` uses the best that each file system has, `none` is for
        /// folders that cannot change [default: auto].
        #[arg(long, value_name = "MODE", value_enum)]
        pub freeze: Option<Freezing>,
        /// Folder for the temporary hard links or reflinks, on the same file system as the files [default: a
        /// new folder beside the pushed ones].
        #[arg(long, value_name = "DIR")]
        pub freeze_dir: Option<PathBuf>,
        /// Recognize unchanged files by inode number and path and ignore the device, for snapshots of the
        /// same volume. Samples are compared.
        #[arg(long)]
        pub ignore_device: bool,
        /// Recognize unchanged files by path, size and times and ignore the inode number, for file systems
        /// that renumber at each mount. Samples are compared.
        #[arg(long)]
        pub ignore_inode: bool,
        /// Fail if a file cannot be protected as --freeze requires.
        #[arg(long)]
        pub require_freeze: bool,
        /// Treat files that changed between freeze and read as missing, so that the snapshot is partial.
        #[arg(long)]
        pub strict: bool,
        /// How the owner of the files that match GLOB changes them: `append-only`, `immutable`, `mutable`
        /// (always read in full), `logged` (the owner's log repairs a copy taken during writes) or `auto`.
        /// The first match counts.
        #[arg(long, value_name = "CLASS=GLOB")]
        pub class: Vec<ClassRule>,
        /// Classes and excludes for the files of a database: `cassandra`, `etcd`, `m3`, `mysql`,
        /// `postgresql`, `redis`, `rocksdb` or `sqlite`; `logs` for logs recognized by name. Rules of --class
        /// come first.
        #[arg(long, value_name = "NAME")]
        pub class_set: Vec<ClassSet>,
    }
}

flags! {
    /// Share of unchanged content that is hashed again.
    pub struct RehashArguments {
        /// Re-read PERCENT of the unchanged data to detect silent changes [without a number: all].
        #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100")]
        pub rehash: Option<Share>,
        /// Re-read all data once in N pushes, spread over the second half of them; 0 for never [default: 30].
        #[arg(long, value_name = "N", conflicts_with = "rehash", value_parser = pushes)]
        pub rehash_every: Option<u32>,
    }
}

flags! {
    /// How fast the push sends, and what its snapshot is called.
    pub struct TermsArguments {
        /// Limit the upload to RATE bytes per second: a number, or with K, M or G.
        #[arg(long, value_name = "RATE")]
        pub max_rate: Option<Rate>,
        /// Name of the series. Retention, `latest` and alarms apply per series: pushes of the same node with
        /// the same folders, or with the same name whatever their folders.
        #[arg(long, value_name = "NAME")]
        pub series: Option<SeriesName>,
        /// Attach a label to the snapshot, for listing and selecting snapshots; can be repeated, up to 16
        /// times.
        #[arg(long, value_name = "KEY=VALUE")]
        pub label: Vec<Label>,
        /// Attach a note to the snapshot: one line of at most 1024 bytes.
        #[arg(long, value_name = "TEXT")]
        pub note: Option<Note>,
    }
}

flags! {
    /// How the push steps back behind other programs.
    pub struct BackgroundArguments {
        /// Run at lower CPU priority, nice value 1 to 19 [without a number: 19].
        #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "19")]
        pub nice: Option<Nice>,
        /// Run at idle I/O priority.
        #[arg(long)]
        pub idle_io: bool,
    }
}

/// Protection of files from changes while they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Freezing {
    /// A reflink if the file system supports it, else a hard link.
    Auto,
    /// A hard link for each file.
    Hardlink,
    /// Like `auto`, and each fallback to a hard link is reported.
    Reflink,
    /// No progress.
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

/// Warning if no folder for the push state is known.
const NO_MEMORY: &str = "cannot save the push state, so the next push will read all files: HOME is not set; set ASTACUS_STATE_DIR to a folder";

impl PushArguments {
    /// Converts the arguments for the library; `host` is the name of this machine.
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
        // A stream has no saved state.
        let is_remembered = !self.keeping.no_state && self.stream().is_none();
        let state = is_remembered.then(|| crate::state::default_folder(env));
        let warnings = if state == Some(None) { vec![NO_MEMORY.to_owned()] } else { Vec::new() };
        Ok(PushOptions {
            select: self.select(),
            mounts: if self.mounts.one_file_system { Mounts::Skip } else { Mounts::Enter },
            effort: Effort {
                level: self.effort.level.map_or(defaults.effort.level, |Level(level)| level),
                jobs: self.effort.jobs.unwrap_or(defaults.effort.jobs),
                max_rate: self.terms.max_rate,
            },
            freeze: FreezeOptions {
                mode: self.keeping.freeze.unwrap_or(Freezing::Auto).into(),
                folder: self.keeping.freeze_dir.clone(),
                unfrozen: if self.keeping.require_freeze { Unfrozen::Refused } else { Unfrozen::Reported },
            },
            strict: if self.keeping.strict { Strict::Yes } else { Strict::No },
            recognition: self.recognition(),
            terms: Terms {
                series: self.terms.series.clone(),
                about: About { labels: self.labels()?, note: self.terms.note.clone() },
                smaller: if self.accept_smaller { Smaller::Meant } else { Smaller::Suspect },
            },
            state: state.flatten(),
            warnings,
            ..defaults
        })
    }

    /// Refuses a number behind an option that takes it with `=` only: it would be a folder to push.
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
                    "no such folder: `{text}`. To give --{flag} a number, write `--{flag}={text}`"
                )));
            }
        }
        Ok(())
    }

    /// Selection of the names to push.
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

    /// Fills arguments that are not given from the keys of a job. Lists are joined: classes of the command
    /// line come first, because the first match counts; excludes and labels come last, because the last one
    /// counts.
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

    fn recognition(&self) -> Recognition {
        Recognition {
            alike: match (self.keeping.ignore_device, self.keeping.ignore_inode) {
                (_, true) => Alike::IgnoreInode,
                (true, false) => Alike::IgnoreDevice,
                (false, false) => Alike::Exact,
            },
            classes: self.keeping.class.clone(),
            class_sets: self.keeping.class_set.clone(),
            rehash: self.rehash(),
        }
    }

    fn rehash(&self) -> Rehash {
        match (self.again.rehash, self.again.rehash_every.map(NonZeroU32::new)) {
            (Some(Share(share)), _) => Rehash::Share(share),
            (None, Some(Some(pushes))) => Rehash::Every(pushes),
            (None, Some(None)) => Rehash::Never,
            (None, None) => DEFAULT_REHASH,
        }
    }

    /// CPU and I/O priority of the process.
    pub fn priority(&self) -> Priority {
        let disk = if self.background.idle_io { DiskClass::Idle } else { DiskClass::Inherited };
        Priority { nice: self.background.nice, disk }
    }
}
