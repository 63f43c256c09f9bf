//! The command lines of a restore and of a check.

use std::path::PathBuf;

use clap::Args;
use format_spec::LabelChoice;

use crate::config::Config;
use crate::error::ClientError;
use crate::named::{Among, Moment, SnapshotChoice};
use crate::output::ProgressArguments;
use crate::rate::Rate;
use crate::restore::{
    Durable, Existing, Extra, Foreign, NodeChoice, Owners, Partial, Placement, RestoreOptions, SeriesChoice,
    Setuid, Unset, VerifyOptions,
};

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
    /// Folder to restore to; created if missing, must be empty unless --into-existing. `-` writes the content of the
    /// one file that --path chooses, or of a stream, to standard output.
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
    /// After the restore, delete files from the restored folders that the snapshot does not have. Only folders that are
    /// chosen whole are checked; files that match --exclude, and mounts, stay. Files that the push excluded are
    /// deleted: give the same --exclude here. With --dry-run, list these files only.
    #[arg(long, requires = "into_existing")]
    pub delete: bool,
    /// Restore as root into a folder that another user owns or can write to. That user can change its content
    /// during the restore.
    #[arg(long)]
    pub into_foreign: bool,
    /// Set the owner of all files to this user and group, by number, such as 999:999. Needs root.
    #[arg(long, value_name = "UID:GID", value_parser = owner, conflicts_with = "no_owner")]
    pub owner: Option<Owners>,
    /// Leave all files to the user who restores.
    #[arg(long)]
    pub no_owner: bool,
    /// Exit with code 3 if owners, modes, times or attributes could not be restored.
    #[arg(long)]
    pub strict_attributes: bool,
    /// List the files that would be restored, and write nothing. Chunks are not checked, nor is the target unless
    /// --delete is given.
    #[arg(long)]
    pub dry_run: bool,
    /// Restore setuid and setgid bits and file capabilities.
    #[arg(long)]
    pub keep_setuid: bool,
    /// Most bytes to receive per second: a number with K, M or G.
    #[arg(long, value_name = "RATE")]
    pub max_rate: Option<Rate>,
    /// Sync the files to stable storage before the command returns.
    #[arg(long)]
    pub sync: bool,
    /// Options for progress on standard error.
    #[command(flatten)]
    pub progress: ProgressArguments,
}

fn owner(text: &str) -> Result<Owners, String> {
    let number = |text: &str| text.parse().ok().filter(|number| *number != u32::MAX);
    let both = text.split_once(':').and_then(|(uid, gid)| number(uid).zip(number(gid)));
    let (uid, gid) = both.ok_or("expected the numbers of a user and a group, such as 999:999")?;
    Ok(Owners::Of(uid, gid))
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

impl RestoreArguments {
    /// Converts the arguments for the library; `host` is the name of this machine.
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
    /// True if the content goes to standard output.
    pub fn is_to_output(&self) -> bool {
        self.to.as_os_str() == "-"
    }

    /// Options for a target folder have no meaning with standard output.
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
