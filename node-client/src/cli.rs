//! The command line: arguments, and their conversion to options of the library.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;
use format_spec::{About, ClusterName, Label, LabelChoice, Labels, NodeName, Note, SeriesName};

use crate::bar::Naming;
use crate::config::{Config, Env, Settings};
use crate::error::ClientError;
use crate::named::{Among, Moment, SnapshotChoice};
use crate::priority::{DiskClass, Nice, Priority};
use crate::push::{
    Alike, Caches, ClassRule, ClassSet, DEFAULT_REHASH, FreezeMode, FreezeOptions, Mounts, PathList,
    PushOptions, Rehash, SelectOptions, Separator, Smaller, Stream, StreamName, StreamSource, Strict,
    Unfrozen,
};
use crate::rate::Rate;
use crate::restore::{
    Durable, Existing, Foreign, NodeChoice, Partial, Placement, RestoreOptions, SeriesChoice, Setuid, Unset,
    VerifyOptions,
};
use crate::size::Size;
use crate::span::Span;

/// Back up folders of this machine to an Astacus repository, and restore them.
#[derive(Debug, Parser)]
#[command(name = "astacus-client", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// Address of the server, and names of the cluster and node.
    #[command(flatten)]
    pub connection: Connection,
    /// Output format and amount of output.
    #[command(flatten)]
    pub output: Output,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// Heading of the options that all commands take.
pub const ALL_COMMANDS: &str = "Options of all commands";

const EXIT_CODES: &str = "\
Each setting comes from the first of these that has it: flags, the environment (ASTACUS_SERVER,
ASTACUS_TOKEN_FILE, ASTACUS_TOKEN, ASTACUS_CLUSTER, ASTACUS_NODE), ~/.config/astacus/client.toml,
/etc/astacus/client.toml (keys: server, token_file, cluster, node).

A file may also define jobs, which `push --job NAME` runs and `jobs` lists: [job.NAME] with roots and other flags of push.

Exit codes: 0 done · 2 wrong usage · 3 partially done: files are missing, torn or could not be restored ·
10 not found · 11 conflict · 12 access denied · 13 stored data is damaged, everything else is done ·
14 not available, or the command to push failed: try again · 15 done, but the report could not be written ·
1 a bug in Astacus, please report it · 130 interrupted";

/// Address of the server, and names of the cluster and node.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// Address of the server [default: http://127.0.0.1:5515].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "URL")]
    pub server: Option<String>,
    /// File that holds the access token of the server.
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Cluster that the node belongs to [default: default].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
    /// Keep retrying a server that does not answer for this time, such as 90s, 10m or 2h [default: 5m; 6s
    /// before the first answer].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "TIME")]
    pub retry_for: Option<Span>,
    /// Name of the node [default: this machine's name].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "NAME")]
    pub node: Option<NodeName>,
}

/// Output format and amount of output.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Print one JSON document on standard output.
    #[arg(long, global = true, help_heading = ALL_COMMANDS)]
    pub json: bool,
    /// Print only problems (lists are still printed).
    #[arg(long, short, global = true, help_heading = ALL_COMMANDS)]
    pub quiet: bool,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Back up folders as a new snapshot.
    Push(Box<PushArguments>),
    /// List snapshots, oldest first: of the configured cluster, and with --node of one node only.
    List(ListArguments),
    /// List the jobs of the configuration files that `push --job` can run.
    Jobs,
    /// Remove temporary hard links that killed pushes left behind.
    Tidy(TidyArguments),
    /// Restore the files of a snapshot.
    Restore(RestoreArguments),
    /// Read and verify all data of a snapshot.
    Verify(VerifyArguments),
    /// Print a completion script for a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Write manual pages to a folder.
    Man {
        /// The folder, which must exist.
        dir: PathBuf,
    },
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Only snapshots with this label; if repeated, with all of these labels.
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    pub labels: Vec<LabelChoice>,
}

/// Flags of `push` that apply to files and cannot be used with a stream.
const OF_FILES: [&str; 21] = [
    "exclude_file",
    "exclude_if_present",
    "exclude_caches",
    "exclude_larger_than",
    "files_from",
    "files_from0",
    "dry_run",
    "verbose",
    "exclude",
    "one_file_system",
    "no_state",
    "freeze",
    "freeze_dir",
    "ignore_device",
    "ignore_inode",
    "require_freeze",
    "strict",
    "classes",
    "class_sets",
    "rehash",
    "rehash_every",
];

/// Arguments of `push`.
#[derive(Debug, Clone, Default, Args)]
pub struct PushArguments {
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
    /// Skip files and folders that match GLOB: a bare name matches at any depth, a pattern with `/` must be
    /// an absolute path. `*` stays within a name, `**` crosses folders. `!GLOB` includes matches again; the
    /// last matching pattern decides. A skipped folder is not entered.
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
    /// Back up only the files and whole folders listed in FILE, one path per line, from the folders to back
    /// up; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub files_from: Vec<PathBuf>,
    /// Like --files-from, with a NUL byte after each path, as `find -print0` writes them.
    #[arg(long, value_name = "FILE")]
    pub files_from0: Vec<PathBuf>,
    /// Show the files that would be read and skipped; read no file and contact no server.
    #[arg(long)]
    pub dry_run: bool,
    /// Print each new, changed, skipped or missing file on standard error; given twice, every file.
    #[arg(long, short, action = ArgAction::Count)]
    pub verbose: u8,
    /// Do not enter other file systems that are mounted inside the folders.
    #[arg(long)]
    pub one_file_system: bool,
    /// Compression level: 1 is fastest, 19 is smallest [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: Option<i32>,
    /// Number of compression threads [default: one per processor, at most 16].
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
    /// Read every file, and save no state for the next push.
    #[arg(long)]
    pub no_state: bool,
    /// Protect files from changes while they are read: `hardlink` against deletion, replacement and appending,
    /// `reflink` also against writes in place, `auto` uses the best that each file system has, `none` is for
    /// folders that cannot change [default: auto].
    #[arg(long, value_name = "MODE", value_enum)]
    pub freeze: Option<Freezing>,
    /// Folder for the temporary hard links or reflinks, on the same file system as the files [default: a new
    /// folder beside the pushed ones].
    #[arg(long, value_name = "DIR")]
    pub freeze_dir: Option<PathBuf>,
    /// Recognize unchanged files by inode number and path and ignore the device, for snapshots of the same
    /// volume. Samples are compared.
    #[arg(long)]
    pub ignore_device: bool,
    /// Recognize unchanged files by path, size and times and ignore the inode number, for file systems that
    /// renumber at each mount. Samples are compared.
    #[arg(long)]
    pub ignore_inode: bool,
    /// Fail if a file cannot be protected as --freeze requires.
    #[arg(long)]
    pub require_freeze: bool,
    /// Treat files that changed between freeze and read as missing, so that the snapshot is partial.
    #[arg(long)]
    pub strict: bool,
    /// How the owner of the files that match GLOB changes them: `append-only`, `immutable`, `mutable` (always
    /// read in full), `logged` (the owner's log repairs a copy taken during writes) or `auto`. The first
    /// match counts.
    #[arg(long = "class", value_name = "CLASS=GLOB")]
    pub classes: Vec<ClassRule>,
    /// Classes and excludes for the files of a database: `cassandra`, `etcd`, `m3`, `mysql`, `postgresql`,
    /// `redis`, `rocksdb` or `sqlite`; `logs` for logs recognized by name. Rules of --class come first.
    #[arg(long = "class-set", value_name = "NAME")]
    pub class_sets: Vec<ClassSet>,
    /// Re-read PERCENT of the unchanged data to detect silent changes [without a number: all].
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = percent)]
    pub rehash: Option<f64>,
    /// Re-read all data once in N pushes, spread over the second half of them; 0 for never [default: 30].
    #[arg(long, value_name = "N", conflicts_with = "rehash", value_parser = pushes)]
    pub rehash_every: Option<u32>,
    /// Limit the upload to RATE bytes per second: a number, or with K, M or G.
    #[arg(long, value_name = "RATE")]
    pub max_rate: Option<Rate>,
    /// Name of the series. Retention, `latest` and alarms apply per series: pushes of the same node with the
    /// same folders, or with the same name whatever their folders.
    #[arg(long, value_name = "NAME")]
    pub series: Option<SeriesName>,
    /// Attach a label to the snapshot, for listing and selecting snapshots; can be repeated, up to 16 times.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
    /// Attach a note to the snapshot: one line of at most 1024 bytes.
    #[arg(long, value_name = "TEXT")]
    pub note: Option<Note>,
    /// Accept that the snapshot is much smaller than its predecessor, and do not mark it as suspect.
    #[arg(long)]
    pub accept_smaller: bool,
    /// Run at lower CPU priority, nice value 1 to 19 [without a number: 19].
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "19")]
    pub nice: Option<Nice>,
    /// Run at idle I/O priority.
    #[arg(long)]
    pub idle_io: bool,
    /// Options for progress on standard error.
    #[command(flatten)]
    pub progress: ProgressArguments,
}

/// Options for progress on standard error.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ProgressArguments {
    /// Format of progress on standard error: `auto` is a bar on a terminal and nothing elsewhere, `lines` is
    /// one line every 30 s, `json` is one JSON object per line every 10 s and at each phase. SIGUSR1 prints
    /// one line in any mode.
    #[arg(long = "progress", value_name = "MODE", value_enum, default_value_t)]
    pub mode: ProgressMode,
}

/// Format of progress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal, nothing elsewhere.
    #[default]
    Auto,
    /// A bar on a terminal, also with --quiet.
    Bar,
    /// Lines of text.
    Lines,
    /// Lines of JSON.
    Json,
    /// Not at all.
    None,
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
    /// Not at all.
    None,
}

/// Arguments of `tidy`.
#[derive(Debug, Args)]
pub struct TidyArguments {
    /// Pushed folders to clean up [default: all folders with a saved push state].
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Folder that was given to pushes with --freeze-dir.
    #[arg(long, value_name = "DIR")]
    pub freeze_dir: Option<PathBuf>,
}

pub(crate) fn percent(text: &str) -> Result<f64, String> {
    let share: f64 = text.trim_end_matches('%').parse().map_err(|_| EXPECTED_PERCENT.to_owned())?;
    if (0.0..=100.0).contains(&share) { Ok(share / 100.0) } else { Err(EXPECTED_PERCENT.to_owned()) }
}

fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "expected a number of threads, at least 1".to_owned())
}

fn pushes(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected a number of pushes, or 0 for never".to_owned())
}

const EXPECTED_PERCENT: &str = "expected a number from 0 to 100";

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// Id of the snapshot, its first or last digits, or `latest` for the newest complete snapshot.
    pub snapshot: SnapshotChoice,
    /// Series for `latest` if the node has several: its name, or one of its folders as an absolute path.
    #[arg(long, value_name = "NAME|/FOLDER|stream:NAME")]
    pub series: Option<SeriesChoice>,
    /// More conditions for `latest`.
    #[command(flatten)]
    pub among: AmongArguments,
    /// Folder to restore to; created if missing, must be empty unless --into-existing.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Restore only files that match GLOB: a path on the node, or a name at any depth. A matching folder
    /// includes its content; `*` stays within a name, `**` crosses folders.
    #[arg(long = "path", value_name = "GLOB")]
    pub paths: Vec<String>,
    /// Skip files that match GLOB and the content of matching folders; same syntax as --path.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Restore although files are missing or torn (exit code 3), and let `latest` select partial snapshots
    /// too. Without this flag, a restore fails before it writes if a file chosen by --path is missing or
    /// torn.
    #[arg(long)]
    pub allow_partial: bool,
    /// Restore relative to the pushed folder instead of recreating its full path.
    #[arg(long)]
    pub strip_root: bool,
    /// Restore into a folder that is not empty, and replace files of the same name. Files with the same
    /// content and time are not fetched again, so this also continues an interrupted restore.
    #[arg(long)]
    pub into_existing: bool,
    /// Restore as root into a folder that another user owns or can write to. That user can change its content
    /// during the restore.
    #[arg(long)]
    pub into_foreign: bool,
    /// Exit with code 3 if owners, modes, times or attributes could not be restored.
    #[arg(long)]
    pub strict_attributes: bool,
    /// List the files that would be restored, and write nothing. Chunks and the target are not checked.
    #[arg(long)]
    pub dry_run: bool,
    /// Restore setuid and setgid bits and file capabilities.
    #[arg(long)]
    pub keep_setuid: bool,
    /// Sync the files to stable storage before the command returns.
    #[arg(long)]
    pub sync: bool,
    /// Options for progress on standard error.
    #[command(flatten)]
    pub progress: ProgressArguments,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Id of the snapshot, its first or last digits, or `latest` for the newest complete snapshot.
    pub snapshot: SnapshotChoice,
    /// Series for `latest` if the node has several: its name, or one of its folders as an absolute path.
    #[arg(long, value_name = "NAME|/FOLDER|stream:NAME")]
    pub series: Option<SeriesChoice>,
    /// More conditions for `latest`.
    #[command(flatten)]
    pub among: AmongArguments,
    /// Let `latest` select partial snapshots too.
    #[arg(long)]
    pub allow_partial: bool,
    /// Options for progress on standard error.
    #[command(flatten)]
    pub progress: ProgressArguments,
}

/// Conditions for `latest`.
#[derive(Debug, Clone, Default, Args)]
pub struct AmongArguments {
    /// Let `latest` select only snapshots with this label; if repeated, with all of these labels.
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    pub labels: Vec<LabelChoice>,
    /// Let `latest` select only snapshots made at TIME or earlier: a date (meaning its start) or a time, in
    /// UTC by default, such as 2026-11-30, 2026-11-30T02:00 or 2026-11-30T02:00:00+01:00.
    #[arg(long, value_name = "TIME")]
    pub before: Option<Moment>,
}

impl AmongArguments {
    /// For the library.
    ///
    /// # Errors
    /// [`ClientError::Usage`] for a snapshot that is named by its id.
    fn choice(&self, snapshot: &SnapshotChoice) -> Result<Among, ClientError> {
        let Self { labels, before } = self.clone();
        let flag = if before.is_some() { "--before" } else { "--label" };
        if *snapshot != SnapshotChoice::Latest && (before.is_some() || !labels.is_empty()) {
            return Err(ClientError::Usage(format!(
                "{flag} can only be used with `latest`, not with a snapshot id"
            )));
        }
        Ok(Among { labels, before })
    }
}

impl Connection {
    /// The settings that flags gave.
    pub fn settings(&self) -> Settings {
        let Self { server, token_file, cluster, node, retry_for: _ } = self.clone();
        Settings { server, token_file, cluster, node, ..Settings::default() }
    }
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
        let defaults =
            PushOptions::new(config.cluster(), config.node(host)?, host.to_owned(), self.paths.clone());
        // Nothing is ever remembered of a stream.
        let is_remembered = !self.no_state && self.stream().is_none();
        let state = is_remembered.then(|| crate::state::default_folder(env));
        let warnings = if state == Some(None) { vec![NO_MEMORY.to_owned()] } else { Vec::new() };
        Ok(PushOptions {
            select: self.select(),
            mounts: if self.one_file_system { Mounts::Skip } else { Mounts::Enter },
            level: self.level.unwrap_or(defaults.level),
            jobs: self.jobs.unwrap_or(defaults.jobs),
            freeze: FreezeOptions {
                mode: self.freeze.unwrap_or(Freezing::Auto).into(),
                folder: self.freeze_dir.clone(),
                unfrozen: if self.require_freeze { Unfrozen::Refused } else { Unfrozen::Reported },
            },
            alike: match (self.ignore_device, self.ignore_inode) {
                (_, true) => Alike::IgnoreInode,
                (true, false) => Alike::IgnoreDevice,
                (false, false) => Alike::Exact,
            },
            strict: if self.strict { Strict::Yes } else { Strict::No },
            classes: self.classes.clone(),
            class_sets: self.class_sets.clone(),
            rehash: self.rehash(),
            max_rate: self.max_rate,
            series: self.series.clone(),
            about: About { labels: self.labels()?, note: self.note.clone() },
            smaller: if self.accept_smaller { Smaller::Meant } else { Smaller::Suspect },
            state: state.flatten(),
            warnings,
            ..defaults
        })
    }

    /// Refuses a number behind an option that takes it with `=` only: it would be a folder to push.
    fn check_numbers(&self) -> Result<(), ClientError> {
        if self.stream().is_some() {
            return Ok(());
        }
        for path in self.paths.iter().filter(|path| path.symlink_metadata().is_err()) {
            let Some(text) = path.to_str() else { continue };
            let flags = [
                ("nice", self.nice.is_some() && text.parse::<Nice>().is_ok()),
                ("rehash", self.rehash.is_some() && percent(text).is_ok()),
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
        let (lines, nuls) =
            (lists(&self.files_from, Separator::NewLine), lists(&self.files_from0, Separator::Nul));
        SelectOptions {
            excludes: self.exclude.clone(),
            exclude_files: self.exclude_file.clone(),
            if_present: self.exclude_if_present.clone(),
            caches: if self.exclude_caches { Caches::LeaveOut } else { Caches::Take },
            larger_than: self.exclude_larger_than,
            lists: [lines, nuls].concat(),
        }
    }

    /// The files to name.
    pub fn naming(&self, output: Output) -> Naming {
        if output.quiet { Naming::Nothing } else { Naming::of(self.verbose) }
    }

    /// The stream to push, if it is one and not folders.
    pub fn stream(&self) -> Option<Stream> {
        let program = || self.paths.iter().cloned().map(PathBuf::into_os_string).collect();
        match (&self.stdin, &self.command) {
            (Some(name), _) => Some(Stream { name: name.clone(), source: StreamSource::Input }),
            (None, Some(name)) => {
                Some(Stream { name: name.clone(), source: StreamSource::Command(program()) })
            }
            (None, None) => None,
        }
    }

    fn labels(&self) -> Result<Labels, ClientError> {
        Labels::new(self.labels.iter().cloned()).map_err(|error| ClientError::Usage(error.to_string()))
    }

    /// Fills arguments that are not given from the keys of a job. Lists are joined: classes of the command
    /// line come first, because the first match counts; excludes and labels come last, because the last one
    /// counts.
    #[must_use]
    pub fn or(self, job: &Self) -> Self {
        let job = job.clone();
        let is_rehash_told = self.rehash.is_some() || self.rehash_every.is_some();
        let (rehash, rehash_every) =
            if is_rehash_told { (self.rehash, self.rehash_every) } else { (job.rehash, job.rehash_every) };
        Self {
            paths: [self.paths, job.paths].concat(),
            stdin: self.stdin.or(job.stdin),
            command: self.command.or(job.command),
            job: self.job,
            exclude: [job.exclude, self.exclude].concat(),
            exclude_file: [job.exclude_file, self.exclude_file].concat(),
            exclude_if_present: [job.exclude_if_present, self.exclude_if_present].concat(),
            exclude_caches: self.exclude_caches || job.exclude_caches,
            exclude_larger_than: self.exclude_larger_than.or(job.exclude_larger_than),
            files_from: [job.files_from, self.files_from].concat(),
            files_from0: [job.files_from0, self.files_from0].concat(),
            dry_run: self.dry_run,
            verbose: self.verbose,
            one_file_system: self.one_file_system || job.one_file_system,
            level: self.level.or(job.level),
            jobs: self.jobs.or(job.jobs),
            no_state: self.no_state || job.no_state,
            freeze: self.freeze.or(job.freeze),
            freeze_dir: self.freeze_dir.or(job.freeze_dir),
            ignore_device: self.ignore_device || job.ignore_device,
            ignore_inode: self.ignore_inode || job.ignore_inode,
            require_freeze: self.require_freeze || job.require_freeze,
            strict: self.strict || job.strict,
            classes: [self.classes, job.classes].concat(),
            class_sets: [self.class_sets, job.class_sets].concat(),
            rehash,
            rehash_every,
            max_rate: self.max_rate.or(job.max_rate),
            series: self.series.or(job.series),
            labels: [job.labels, self.labels].concat(),
            note: self.note.or(job.note),
            accept_smaller: self.accept_smaller || job.accept_smaller,
            nice: self.nice.or(job.nice),
            idle_io: self.idle_io || job.idle_io,
            progress: self.progress,
        }
    }

    fn rehash(&self) -> Rehash {
        match (self.rehash, self.rehash_every.map(NonZeroU32::new)) {
            (Some(share), _) => Rehash::Share(share),
            (None, Some(Some(pushes))) => Rehash::Every(pushes),
            (None, Some(None)) => Rehash::Never,
            (None, None) => DEFAULT_REHASH,
        }
    }

    /// CPU and I/O priority of the process.
    pub fn priority(&self) -> Priority {
        let disk = if self.idle_io { DiskClass::Idle } else { DiskClass::Inherited };
        Priority { nice: self.nice, disk }
    }
}

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

impl RestoreArguments {
    /// Converts the arguments for the library; `host` is the name of this machine.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the node has no usable name.
    pub fn options(&self, config: &Config, host: &str) -> Result<RestoreOptions, ClientError> {
        Ok(RestoreOptions {
            snapshot: self.snapshot.clone(),
            cluster: config.chosen_cluster(),
            node: node(config, host)?,
            series: self.series.clone(),
            among: self.among.choice(&self.snapshot)?,
            partial: allowed(self.allow_partial),
            to: self.to.clone(),
            paths: self.paths.clone(),
            excludes: self.exclude.clone(),
            placement: if self.strip_root { Placement::StripRoot } else { Placement::WholePath },
            existing: if self.into_existing { Existing::Replace } else { Existing::Refuse },
            foreign: if self.into_foreign { Foreign::Meant } else { Foreign::Refuse },
            unset: if self.strict_attributes { Unset::IsPartial } else { Unset::IsNoted },
            setuid: if self.keep_setuid { Setuid::Keep } else { Setuid::Drop },
            durable: if self.sync { Durable::Synced } else { Durable::Later },
        })
    }
}

impl VerifyArguments {
    /// Converts the arguments for the library; `host` is the name of this machine.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the node has no usable name.
    pub fn options(&self, config: &Config, host: &str) -> Result<VerifyOptions, ClientError> {
        Ok(VerifyOptions {
            snapshot: self.snapshot.clone(),
            cluster: config.chosen_cluster(),
            node: node(config, host)?,
            series: self.series.clone(),
            among: self.among.choice(&self.snapshot)?,
            partial: allowed(self.allow_partial),
        })
    }
}

/// The node from flags or settings, which is binding, or else the name of this machine, which is a guess.
fn node(config: &Config, host: &str) -> Result<NodeChoice, ClientError> {
    match config.chosen_node() {
        Some(node) => Ok(NodeChoice::Named(node)),
        None => config.node(host).map(NodeChoice::Assumed),
    }
}

fn allowed(allow_partial: bool) -> Partial {
    if allow_partial { Partial::Allow } else { Partial::Refuse }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_of_all_commands_stand_under_a_heading_of_their_own() {
        let command = Arguments::command();
        let of_all: Vec<_> = command.get_arguments().filter(|flag| flag.is_global_set()).collect();

        assert!(of_all.len() > 5, "{} flags: they are no longer found", of_all.len());
        for flag in of_all {
            assert_eq!(flag.get_help_heading(), Some(ALL_COMMANDS), "{}", flag.get_id());
        }
    }

    #[test]
    fn flags_may_stand_before_or_behind_the_command() {
        let before = Arguments::try_parse_from(["astacus-client", "--cluster", "c", "push", "/a"]).unwrap();
        let behind = Arguments::try_parse_from(["astacus-client", "push", "/a", "--cluster", "c"]).unwrap();

        assert_eq!(before.connection.cluster, behind.connection.cluster);
        assert!(before.connection.cluster.is_some());
    }

    fn push(line: &[&str]) -> Result<PushArguments, clap::Error> {
        let line = [&["astacus-client", "push"], line].concat();
        Arguments::try_parse_from(line).map(|arguments| match arguments.command {
            Command::Push(push) => *push,
            other => panic!("{other:?}"),
        })
    }

    /// It would be taken for a folder, and the number for its default.
    #[test]
    fn a_number_that_lacks_its_sign_is_refused_with_the_way_to_write_it() {
        for (line, way_out) in [
            (["--nice", "10", "/etc"], "--nice=10"),
            (["/etc", "--rehash", "50"], "--rehash=50"),
            (["--rehash", "50%", "/etc"], "--rehash=50%"),
        ] {
            let error = push(&line).unwrap().check_numbers().unwrap_err();

            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(way_out), "{error}");
        }
        assert!(push(&["--nice=10", "/etc"]).unwrap().check_numbers().is_ok());
        assert!(push(&["10", "/etc"]).unwrap().check_numbers().is_ok(), "a folder that is not there");
        let words = push(&["--nice=5", "--command", "a", "--", "head", "-c", "10"]).unwrap();
        assert!(words.check_numbers().is_ok(), "a word of a program");
    }

    #[test]
    fn numbers_are_refused_in_words_that_say_what_is_expected() {
        for (line, words) in [
            (&["/a", "--jobs", "0"][..], "a number of threads, at least 1"),
            (&["/a", "--jobs", "many"], "a number of threads, at least 1"),
            (&["/a", "--rehash-every", "-1"], "a number of pushes"),
            (&["/a", "--rehash-every", "x"], "a number of pushes"),
            (&["/a", "--exclude-larger-than", "0"], "is not a size"),
        ] {
            let error = push(line).unwrap_err().to_string();
            assert!(error.contains(words) || line.contains(&"-1"), "{error}");
            assert!(!error.contains("non-zero type") && !error.contains("invalid digit"), "{error}");
        }
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for bad in [
            &["push"][..],
            &["push", "/a", "--level", "0"],
            &["push", "/a", "--jobs", "0"],
            &["push", "/a", "--class", "immutable"],
            &["push", "/a", "--class-set", "oracle"],
            &["push", "/a", "--freeze", "copy"],
            &["push", "/a", "--rehash=101"],
            &["push", "/a", "--rehash=1", "--rehash-every", "3"],
            &["push", "/a", "--max-rate", "0"],
            &["push", "/a", "--nice=20"],
            &["push", "/a", "--node", "a b"],
            &["push", "/a", "--label", "release"],
            &["push", "/a", "--note", "two\nlines"],
            &["push", "--stdin", "a/b"],
            &["push", "--stdin", "a", "/a"],
            &["push", "--stdin", "a", "--freeze", "none"],
            &["push", "--stdin", "a", "--command", "b", "true"],
            &["push", "--command", "a"],
            &["push", "--command", "a", "--exclude", "b", "true"],
            &["push", "--job", "a", "/a"],
            &["push", "/a", "--progress", "dots"],
            &["restore", "newest", "--to", "/a"],
            &["restore", "latest"],
            &["completion", "tcl"],
        ] {
            let line = [&["astacus-client"], bad].concat();
            assert_eq!(Arguments::try_parse_from(line).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }
}
