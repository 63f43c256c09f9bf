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

fn owner(text: &str) -> Result<Owners, String> {
    let number = |text: &str| text.parse().ok().filter(|number| *number != u32::MAX);
    let both = text.split_once(':').and_then(|(uid, gid)| number(uid).zip(number(gid)));
    let (uid, gid) = both.ok_or("expected the numbers of a user and a group, such as 999:999")?;
    Ok(Owners::Of(uid, gid))
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
