//! The command line: what can be asked for, and what it becomes for the library.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use clap_complete::Shell;
use format_spec::{About, ClusterName, Label, LabelChoice, Labels, NodeName, Note, SeriesName};

use crate::bar::Naming;
use crate::config::{Config, Env, Settings};
use crate::error::ClientError;
use crate::list::Column;
use crate::named::{Among, Moment, SnapshotChoice};
use crate::priority::{DiskClass, Nice, Priority};
use crate::push::{
    Alike, Caches, ClassRule, ClassSet, DEFAULT_REHASH, FreezeMode, FreezeOptions, Mounts, PathList,
    PushOptions, Rehash, SelectOptions, Separator, Smaller, Stream, StreamName, StreamSource, Strict,
    Unfrozen,
};
use crate::rate::Rate;
use crate::restore::{
    Durable, Existing, Extra, Foreign, NodeChoice, Owners, Partial, Placement, RestoreOptions, SeriesChoice,
    Setuid, Unset, VerifyOptions,
};
use crate::size::Size;
use crate::span::Span;

/// Backs up folders of this machine into an Astacus repository, and brings them back.
#[derive(Debug, Parser)]
#[command(name = "astacus-client", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// Where the server is, and who we are.
    #[command(flatten)]
    pub connection: Connection,
    /// How much is said, and to whom.
    #[command(flatten)]
    pub output: Output,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Heading of the options that all commands take.
pub const ALL_COMMANDS: &str = "Options of all commands";

const EXIT_CODES: &str = "\
Settings come from flags, then from the environment (ASTACUS_SERVER, ASTACUS_TOKEN_FILE,
ASTACUS_TOKEN, ASTACUS_CLUSTER, ASTACUS_NODE), then from ~/.config/astacus/client.toml, then from
/etc/astacus/client.toml (keys: server, token_file, cluster, node).

A file may also hold jobs, which `push --job NAME` runs and `jobs` lists: [job.NAME] with roots and other flags of push.

Exit codes: 0 done · 2 wrong usage · 3 done, but files are missing, torn or could not be made ·
10 not found · 11 conflict · 12 not allowed · 13 stored bytes are damaged, all else is done ·
14 not available, or a command that was to be pushed failed: try again · 15 done, and standard output cannot be written ·
1 a defect of ours · 130 interrupted";

/// Where the server is, and who we are.
#[derive(Debug, Clone, Args)]
pub struct Connection {
    /// Address of the server [default: http://127.0.0.1:5515].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "URL")]
    pub server: Option<String>,
    /// File that holds the token for the server.
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Cluster that the node belongs to [default: default].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
    /// How long to wait for a server that does not answer, such as 90s, 10m or 2h [default: 5m, and 6s if it never did].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "TIME")]
    pub retry_for: Option<Span>,
    /// Name of the node [default: this machine's name].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "NAME")]
    pub node: Option<NodeName>,
}

/// How much is said, and to whom.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// Print one JSON document on standard output.
    #[arg(long, global = true, help_heading = ALL_COMMANDS)]
    pub json: bool,
    /// No progress, and no report where all went well.
    #[arg(long, short, global = true, help_heading = ALL_COMMANDS)]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Back up folders as a new snapshot.
    Push(Box<PushArguments>),
    /// List snapshots, oldest first: of the cluster in the settings, and of one node with --node.
    List(ListArguments),
    /// List the jobs of the configuration files, which `push --job` runs.
    Jobs,
    /// Remove the second names of files that pushes left which were killed.
    Tidy(TidyArguments),
    /// Bring the files of a snapshot back.
    Restore(RestoreArguments),
    /// Read everything that a snapshot needs, and check it.
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

/// Which snapshots to list.
#[derive(Debug, Args)]
pub struct ListArguments {
    /// Only snapshots that have this label; repeated: all of them.
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    pub labels: Vec<LabelChoice>,
    /// Show these columns only, in this order.
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    pub columns: Vec<Column>,
}

/// Flags of a push that are about files, and so not for a stream.
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

/// What to push, and how.
#[derive(Debug, Clone, Default, Args)]
pub struct PushArguments {
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
    /// Tell what would be read and left out; read no file, send nothing, and ask no server.
    #[arg(long)]
    pub dry_run: bool,
    /// Name each file that is new, changed, left out or missing, on standard error; twice: each file.
    #[arg(long, short, action = ArgAction::Count)]
    pub verbose: u8,
    /// Do not enter file systems that are mounted below the folders.
    #[arg(long)]
    pub one_file_system: bool,
    /// Compression: 1 is fast, 19 is small [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: Option<i32>,
    /// Threads that compress [default: one for each processor, at most 16].
    #[arg(long, value_name = "N", value_parser = jobs)]
    pub jobs: Option<NonZeroUsize>,
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
    #[arg(long = "class", value_name = "CLASS=GLOB")]
    pub classes: Vec<ClassRule>,
    /// Classes of the files of a database, and what it says never to copy: `cassandra`, `etcd`, `m3`, `mysql`,
    /// `postgresql`, `redis`, `rocksdb` or `sqlite`; `logs` for logs known by name. They come after those of --class.
    #[arg(long = "class-set", value_name = "NAME")]
    pub class_sets: Vec<ClassSet>,
    /// Hash this share of the content again though nothing says that it changed [without a number: all].
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, require_equals = true, default_missing_value = "100", value_parser = percent)]
    pub rehash: Option<f64>,
    /// Hash everything again once in so many pushes, spread over the second half of them; 0 for never [default: 30].
    #[arg(long, value_name = "N", conflicts_with = "rehash", value_parser = pushes)]
    pub rehash_every: Option<u32>,
    /// Send at most so many bytes per second: a number with K, M or G.
    #[arg(long, value_name = "RATE")]
    pub max_rate: Option<Rate>,
    /// Name of the series. Retention, `latest` and alarms go by series: pushes of the same node and the same folders, or of
    /// the same name here, whatever their folders.
    #[arg(long, value_name = "NAME")]
    pub series: Option<SeriesName>,
    /// Give the snapshot a label, for lists and for choosing among snapshots; repeated: up to 16.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
    /// Give the snapshot a note for people: at most 1024 bytes in one line.
    #[arg(long, value_name = "TEXT")]
    pub note: Option<Note>,
    /// It is meant that there is much less than in the push before: the snapshot is not suspect.
    #[arg(long)]
    pub accept_smaller: bool,
    /// Step back behind other programs that compute, by 1 to 19 [without a number: 19].
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "19")]
    pub nice: Option<Nice>,
    /// Use the disks only when no other program wants them.
    #[arg(long)]
    pub idle_io: bool,
    /// Progress on standard error.
    #[command(flatten)]
    pub progress: ProgressArguments,
}

/// Progress on standard error.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct ProgressArguments {
    /// How progress is told on standard error: `auto` is a bar on a terminal and nothing elsewhere, `lines` a line each
    /// 30 s, `json` a JSON object on a line each 10 s and at each phase. SIGUSR1 asks for one line whatever is said here.
    #[arg(long = "progress", value_name = "MODE", value_enum, default_value_t)]
    pub mode: ProgressMode,
}

/// How progress is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// A bar on a terminal, else not at all.
    #[default]
    Auto,
    /// A bar on a terminal, with --quiet too.
    Bar,
    /// Lines of text.
    Lines,
    /// Lines of JSON.
    Json,
    /// Not at all.
    None,
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

/// Where to look for what killed pushes left.
#[derive(Debug, Args)]
pub struct TidyArguments {
    /// Folders that were pushed [default: all that are remembered].
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The folder for second names that pushes were given.
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

fn owner(text: &str) -> Result<Owners, String> {
    let number = |text: &str| text.parse().ok().filter(|number| *number != u32::MAX);
    let both = text.split_once(':').and_then(|(uid, gid)| number(uid).zip(number(gid)));
    let (uid, gid) = both.ok_or("expected the numbers of a user and a group, such as 999:999")?;
    Ok(Owners::Of(uid, gid))
}

const EXPECTED_PERCENT: &str = "expected a number from 0 to 100";

/// What to restore, and how.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// Id of the snapshot, its first or last digits, or `latest` for the newest complete one.
    pub snapshot: SnapshotChoice,
    /// The series that `latest` is of, by its name or by a folder (an absolute path), where a node has several.
    #[arg(long, value_name = "NAME|/FOLDER|stream:NAME")]
    pub series: Option<SeriesChoice>,
    /// What else `latest` must fit.
    #[command(flatten)]
    pub among: AmongArguments,
    /// Folder to restore to; it is made if it is missing, and must be empty. `-` sends the content of the one file that
    /// --path chooses, or of a stream, to standard output.
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Only what matches: a path on the node, or a name in any folder. A folder takes all it holds;
    /// `*` stays within a name, `**` does not.
    #[arg(long = "path", value_name = "GLOB")]
    pub paths: Vec<String>,
    /// Nothing that matches, and nothing in it: written as for --path.
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Restore what is there although files are missing or torn (exit code 3), and let `latest` be the newest
    /// snapshot, complete or partial. Without this, nothing is written unless all that --path chooses is whole.
    #[arg(long)]
    pub allow_partial: bool,
    /// Put the content of the pushed folder right into the target, without the path to it.
    #[arg(long)]
    pub strip_root: bool,
    /// Restore into a folder that is not empty, and replace files of the same name there. Files that are there already
    /// with the same content and time are not fetched, so a restore that was cut short goes on.
    #[arg(long)]
    pub into_existing: bool,
    /// When everything is restored, remove from the restored folders what the snapshot does not have. Only folders that are
    /// chosen whole are looked at; what --exclude fits stays. With --dry-run it is only listed.
    #[arg(long, requires = "into_existing")]
    pub delete: bool,
    /// Restore as root into a folder that belongs to another user, or that all may write to: they can change what is in it
    /// while it is restored.
    #[arg(long)]
    pub into_foreign: bool,
    /// Give all files to this user and group, by their numbers, such as 999:999. Only root can do that.
    #[arg(long, value_name = "UID:GID", value_parser = owner, conflicts_with = "no_owner")]
    pub owner: Option<Owners>,
    /// Leave all files to the user who restores.
    #[arg(long)]
    pub no_owner: bool,
    /// End with 3 if owners, modes, times or attributes could not be set as they were pushed.
    #[arg(long)]
    pub strict_attributes: bool,
    /// List what would be restored, and write nothing. Neither chunks nor, without --delete, the target are looked at.
    #[arg(long)]
    pub dry_run: bool,
    /// Keep setuid and setgid bits and file capabilities.
    #[arg(long)]
    pub keep_setuid: bool,
    /// Receive at most so many bytes per second: a number with K, M or G.
    #[arg(long, value_name = "RATE")]
    pub max_rate: Option<Rate>,
    /// Return when the files are on stable storage.
    #[arg(long)]
    pub sync: bool,
    /// Progress on standard error.
    #[command(flatten)]
    pub progress: ProgressArguments,
}

/// What to verify.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Id of the snapshot, its first or last digits, or `latest` for the newest complete one.
    pub snapshot: SnapshotChoice,
    /// The series that `latest` is of, by its name or by a folder (an absolute path), where a node has several.
    #[arg(long, value_name = "NAME|/FOLDER|stream:NAME")]
    pub series: Option<SeriesChoice>,
    /// What else `latest` must fit.
    #[command(flatten)]
    pub among: AmongArguments,
    /// Let `latest` be the newest snapshot, complete or partial.
    #[arg(long)]
    pub allow_partial: bool,
    /// Progress on standard error.
    #[command(flatten)]
    pub progress: ProgressArguments,
}

/// Which snapshots `latest` may be.
#[derive(Debug, Clone, Default, Args)]
pub struct AmongArguments {
    /// The label that `latest` must have; repeated: all of them.
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    pub labels: Vec<LabelChoice>,
    /// Let `latest` be the newest of those that were made at this time or before: a date (its beginning) or a time, in
    /// UTC unless it says otherwise, such as 2026-11-30, 2026-11-30T02:00 or 2026-11-30T02:00:00+01:00.
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
                "{flag} chooses among snapshots for `latest`, and not by an id"
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

    /// A number behind an option that takes it with `=` only would be a folder to push.
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

    /// These arguments, and the keys of a job where they say nothing. Lists are added: those of the command line come
    /// first among classes, where the first that matches counts, and last among excludes and labels, where the last does.
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

    /// How the process is to step back.
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
    /// For the library; `host` is this machine's name.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the node has no usable name.
    pub fn options(&self, config: &Config, host: &str) -> Result<RestoreOptions, ClientError> {
        self.check_target()?;
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
            extra: if self.delete { Extra::Goes } else { Extra::Stays },
            foreign: if self.into_foreign { Foreign::Meant } else { Foreign::Refuse },
            unset: if self.strict_attributes { Unset::IsPartial } else { Unset::IsNoted },
            owners: if self.no_owner { Owners::Ours } else { self.owner.unwrap_or(Owners::AsPushed) },
            setuid: if self.keep_setuid { Setuid::Keep } else { Setuid::Drop },
            max_rate: self.max_rate,
            durable: if self.sync { Durable::Synced } else { Durable::Later },
        })
    }
}

impl RestoreArguments {
    /// Whether the content goes to standard output.
    pub fn is_to_output(&self) -> bool {
        self.to.as_os_str() == "-"
    }

    /// What is about a folder means nothing on standard output.
    fn check_target(&self) -> Result<(), ClientError> {
        let of_folders = [
            ("strip-root", self.strip_root),
            ("into-existing", self.into_existing),
            ("into-foreign", self.into_foreign),
            ("owner", self.owner.is_some()),
            ("no-owner", self.no_owner),
            ("strict-attributes", self.strict_attributes),
            ("keep-setuid", self.keep_setuid),
            ("sync", self.sync),
        ];
        match of_folders.iter().find(|(_, is_given)| *is_given && self.is_to_output()) {
            Some((flag, _)) => Err(ClientError::Usage(format!(
                "--{flag} is about a folder, and `--to -` sends the content of a file to standard output"
            ))),
            None => Ok(()),
        }
    }
}

impl VerifyArguments {
    /// For the library; `host` is this machine's name.
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

/// The node that somebody wrote down, which is binding, or else this machine's own name, which is a guess.
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
            &["restore", "latest", "--to", "/a", "--delete"],
            &["restore", "latest", "--to", "/a", "--owner", "1"],
            &["restore", "latest", "--to", "/a", "--owner", "1:2", "--no-owner"],
            &["restore", "latest", "--to", "/a", "--max-rate", "fast"],
            &["completion", "tcl"],
        ] {
            let line = [&["astacus-client"], bad].concat();
            assert_eq!(Arguments::try_parse_from(line).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }
}
