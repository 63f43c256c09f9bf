//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use format_spec::protection::MAX_REASON_LEN;
use format_spec::{ChunkId, ClusterName, LabelChoice, NodeName, SessionId};
use node_client::config::Settings;
use node_client::list::Column;
use node_client::named::SnapshotChoice;
use node_client::output::{ALL_COMMANDS, Output};
use node_client::rate::Rate;
use node_client::span::Span;

use checks::{Scrub, Verify};
use nodes::NodeCommand;
use tokens::TokenCommand;

/// Meaning of all exit codes, printed in the help of every command.
macro_rules! exit_codes {
    () => {
        "Exit codes: 0 done, no problem found · 2 wrong usage · 3 partially done · 10 not found ·
11 conflict · 12 access denied · 13 stored data is damaged · 14 not available, try again ·
15 done, but the report could not be written · 1 a bug in Astacus, please report it"
    };
}

/// The end of a command's help: examples, a line each, and the exit codes.
macro_rules! examples {
    ($($line:literal)+) => {
        concat!("Examples:\n", $("  astacus-admin ", $line, "\n",)+ "\n", exit_codes!())
    };
}

pub(crate) mod checks;
pub(crate) mod nodes;
pub(crate) mod tokens;

/// Manage and check an Astacus repository.
#[derive(Debug, Parser)]
#[command(name = "astacus-admin", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = concat!(
    "\
Each setting comes from the first of these that has it: flags, the environment (ASTACUS_SERVER,
ASTACUS_TOKEN_FILE, ASTACUS_TOKEN, ASTACUS_CA, ASTACUS_CA_SHA256), ~/.config/astacus/client.toml, /etc/astacus/client.toml.

",
    exit_codes!()
);

/// Address of the server, and how to reach it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// Address of the server [default: http://127.0.0.1:5515].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "URL")]
    server: Option<String>,
    /// File that holds the access token of the server.
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the CA of the server, in PEM format [default: the CAs of the system].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Give up after the server has sent nothing for this time, such as 90s, 10m or 2h.
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "TIME", default_value = "30m")]
    pub(crate) timeout: Span,
}

impl Connection {
    /// The settings that flags gave.
    pub(crate) fn settings(&self) -> Settings {
        let Self { server, token_file, ca, timeout: _ } = self.clone();
        Settings { server, token_file, ca, ..Settings::default() }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show repository size, open sessions and active alarms.
    #[command(after_help = examples!("status" "status --json | jq .alarms" "status --fail-on-alarm --quiet"))]
    Status {
        /// Exit with code 3 if an alarm is active that nobody has acknowledged.
        #[arg(long)]
        fail_on_alarm: bool,
    },
    /// List the active alarms, or acknowledge one. An acknowledged alarm is still listed, but
    /// `status --fail-on-alarm` ignores it and no notice is sent until it is cleared.
    #[command(after_help = examples!("alarms" "alarms ack overdue db1 --reason 'node is being repaired' --for 7d"))]
    Alarms(AlarmsArguments),
    /// Show the age of the last good snapshot of each series, and the oldest age allowed; set that limit. A
    /// good snapshot is complete and neither damaged, suspect nor deleted.
    #[command(after_help = examples!(
        "freshness" "freshness set orders --node db1 --max-age 26h" "freshness retire orders --node db0"
    ))]
    Freshness(FreshnessArguments),
    /// Show the age of the last complete snapshot of each series, ignoring damaged and suspect ones.
    #[command(after_help = examples!("last" "last orders --max-age 26h"))]
    Last {
        /// Only this cluster.
        #[arg(value_name = "CLUSTER")]
        cluster: Option<ClusterName>,
        /// Exit with code 3 if a series has no such snapshot, or one of this age or older, such as 26h or 2d.
        #[arg(long, value_name = "TIME")]
        max_age: Option<Span>,
    },
    /// List all snapshots, oldest first, including protected ones and ones pending deletion.
    #[command(after_help = examples!(
        "snapshots" "snapshots --cluster orders --node db-3 --json" "snapshots --label release=4.2"
    ))]
    Snapshots {
        /// Only snapshots of this cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<ClusterName>,
        /// Only snapshots of this node.
        #[arg(long, value_name = "NAME")]
        node: Option<NodeName>,
        /// Only snapshots with this label; if repeated, with all of these labels.
        #[arg(long = "label", value_name = "KEY[=VALUE]")]
        labels: Vec<LabelChoice>,
        /// Show these columns only, in this order.
        #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
        columns: Vec<Column>,
    },
    /// Show the details of one snapshot, and every file that is missing or torn in it.
    #[command(after_help = examples!(
        "show 018bcfe5-6800-7707-8707-070707070707" "show 018bcfe5-6800-7707-8707-070707070707 --limit 20"
    ))]
    Show {
        /// Id of the snapshot, four or more of its first or last digits if no other id has them, or `latest`.
        snapshot: SnapshotChoice,
        /// Name at most N files that are missing, incomplete, torn or fuzzy [default: all].
        #[arg(long, value_name = "N", value_parser = count::<u64>)]
        limit: Option<u64>,
    },
    /// Show the space used by each cluster, node and snapshot, and the part that is unique to each snapshot.
    #[command(after_help = examples!("stats" "stats --cluster orders --json"))]
    Stats {
        /// Only this cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<ClusterName>,
    },
    /// Delete snapshots by id, or by a retention policy; `undelete` brings them back until their delay is over.
    #[command(after_help = FORGET_HELP)]
    Forget(ForgetArguments),
    /// Bring back deleted snapshots whose delay is not over.
    #[command(after_help = examples!("undelete 018bcfe5-6800-7707-8707-070707070707"))]
    Undelete {
        /// Ids of the snapshots; four or more first or last digits are enough if only one id has them.
        #[arg(required = true, value_name = "SNAPSHOT")]
        snapshots: Vec<SnapshotChoice>,
    },
    /// Protect a snapshot from deletion, or remove its protection.
    #[command(after_help = examples!(
        "protect 018bcfe5-6800-7707-8707-070707070707 --reason 'audit of 2026'"
        "protect --off 018bcfe5-6800-7707-8707-070707070707"
    ))]
    Protect(ProtectArguments),
    /// Delete unreferenced data and free its space.
    #[command(after_help = GC_HELP)]
    Gc(GcArguments),
    /// Check the repository, one snapshot or a sample; exit code 13 if damage is found.
    #[command(after_help = examples!(
        "verify --level read --sample 5%"
        "verify --level restore --snapshot 018bcfe5-6800-7707-8707-070707070707"
        "verify --level refs --repair"
    ))]
    Verify(Verify),
    /// Read packs and verify every byte, starting with the packs whose last check is oldest.
    #[command(after_help = examples!("scrub --max-time 2h --max-rate 50M" "scrub --sample 3%"))]
    Scrub(Scrub),
    /// List the open sessions, or end one. While a session is open, the collector keeps data that became
    /// unreferenced after the session began.
    #[command(after_help = examples!("sessions" "sessions end 01890a5d-ac96-774b-bcce-b302099a8057"))]
    Sessions(SessionsArguments),
    /// Invite nodes, list them, revoke them, and have them make new keys.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Create, list and revoke the tokens of people and machines, each with a role.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Find a chunk or page in the repository.
    #[command(subcommand)]
    Chunk(ChunkCommand),
    /// Inspect pack files.
    #[command(subcommand)]
    Pack(PackCommand),
    /// Rebuild a lost index from the site and the master key, while no server runs.
    #[command(after_help = REBUILD_HELP)]
    Rebuild(RebuildArguments),
    /// Export, check and restore the master key, and manage the slots that open it, on the machine of the server.
    #[command(after_help = KEY_HELP, disable_help_flag = true)]
    Key {
        /// Command and its arguments.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
        arguments: Vec<OsString>,
    },
    /// Print a completion script for a shell.
    #[command(after_help = examples!("completion bash > /etc/bash_completion.d/astacus-admin"))]
    Completion {
        /// The shell.
        shell: Shell,
    },
    /// Write manual pages to a folder.
    #[command(after_help = examples!("man /usr/local/share/man/man1"))]
    Man {
        /// The folder, which must exist.
        dir: PathBuf,
    },
}

const FORGET_HELP: &str = concat!(
    "\
Without snapshot ids and without rules, the retention policy of the server's configuration applies.
It counts the snapshots of each series separately. A snapshot that any rule keeps is kept, but
--maximum overrides the keep rules. `--keep-daily 0` is a rule (keep none); leaving it out means no
such rule. Until the delay is over, `undelete` brings a deleted snapshot back; after it, `gc` frees
its space. Exit code 3 if a named snapshot was not deleted.

",
    examples!(
        "forget --dry-run"
        "forget --cluster orders --keep-daily 7 --keep-weekly 5 --keep-yearly 3 --dry-run"
        "forget 018bcfe5-6800-7707-8707-070707070707"
    )
);

const GC_HELP: &str = concat!(
    "\
Data that an open session may need is kept until the session ends. Exit code 3 if the run stopped
early or could not delete everything: its work is kept, and the next run continues it.

",
    examples!("gc --dry-run" "gc --explain --json" "gc --max-copy 4GiB")
);

const REBUILD_HELP: &str = concat!(
    "\
This command starts `astacus-server rebuild`, found beside this program or in PATH, and returns its
output and exit code. Exit code 10 if it is not installed.

",
    examples!("rebuild --data-dir /srv/astacus --from-site file:///mnt/site --keyring keys")
);

const KEY_HELP: &str = concat!(
    "\
This command starts `astacus-server key`, found beside this program or in PATH, and returns its output
and exit code. `key COMMAND --help` describes a command: export, check, restore, list, add, remove.

",
    examples!(
        "key export --paper --data-dir /srv/astacus"
        "key check --data-dir /srv/astacus --paper typed.txt"
        "key restore --data-dir /srv/astacus --paper typed.txt"
        "key add passphrase --data-dir /srv/astacus --new-passphrase-file words"
        "key remove file --data-dir /srv/astacus --passphrase-file words"
    )
);

/// Arguments of `forget`: the snapshots, or the policy that chooses them.
#[derive(Debug, Args)]
pub(crate) struct ForgetArguments {
    /// Ids of the snapshots; four or more first or last digits are enough if only one id has them. Without
    /// ids, a policy decides.
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = ["PolicyArguments", "cluster", "node", "labels"])]
    pub(crate) snapshots: Vec<SnapshotChoice>,
    /// Only snapshots of this cluster [default: all clusters, each with its own count].
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<ClusterName>,
    /// Only snapshots of this node.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// Only snapshots with this label; if repeated, with all of these labels. The rules then count only these
    /// snapshots.
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    pub(crate) labels: Vec<LabelChoice>,
    /// Show the effects and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Allow deleting the last complete snapshot of a series.
    #[arg(long)]
    pub(crate) even_last: bool,
    /// Accept the server's current time as correct after a clock jump.
    #[arg(long)]
    pub(crate) accept_clock: bool,
    // This field is the last, because its heading applies to all options behind it.
    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}

/// Rules of a retention policy.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Policy")]
pub(crate) struct PolicyArguments {
    /// Keep the snapshots of the last N days.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_days: Option<u32>,
    /// Keep at least N complete snapshots [default: 3].
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) minimum: Option<u32>,
    /// Keep at most N complete snapshots, whatever the other rules keep.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) maximum: Option<u32>,
    /// Keep the N newest complete snapshots.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest snapshot of each of the last N hours that have one.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_hourly: Option<u32>,
    /// Keep the newest snapshot of each of the last N days that have one.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_daily: Option<u32>,
    /// Keep the newest snapshot of each of the last N ISO weeks that have one.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_weekly: Option<u32>,
    /// Keep the newest snapshot of each of the last N months that have one.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_monthly: Option<u32>,
    /// Keep the newest snapshot of each of the last N years that have one.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_yearly: Option<u32>,
}

/// Parses a whole number. The error message says that one is expected.
fn count<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "expected a whole number, 0 or more".to_owned())
}

/// Arguments of `protect`: the snapshot and the reason.
#[derive(Debug, Args)]
pub(crate) struct ProtectArguments {
    /// Id of the snapshot; four or more first or last digits are enough if only one id has them.
    pub(crate) snapshot: SnapshotChoice,
    /// Reason for the protection, shown in lists.
    #[arg(long, value_name = "TEXT", value_parser = reason, required_unless_present = "off")]
    pub(crate) reason: Option<String>,
    /// Remove the protection.
    #[arg(long, conflicts_with = "reason")]
    pub(crate) off: bool,
}

/// Options of one run of the collector.
#[derive(Debug, Args)]
pub(crate) struct GcArguments {
    /// Show the effects and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Like --dry-run, and list each object that is kept for now, with the session or delay that keeps it.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Skip the delays: deleted snapshots are purged at once and cannot be restored. Data that open sessions
    /// need is still kept.
    #[arg(long)]
    pub(crate) now: bool,
    /// Exceed the daily deletion limit (`gc.max_daily_percent` of the server's configuration).
    #[arg(long)]
    pub(crate) allow_large: bool,
    /// Rewrite at most this many bytes from sparse packs: a number with K, M or G [default: the server's
    /// configuration].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_copy: Option<u64>,
    #[command(flatten)]
    pub(crate) turn: Turn,
}

/// Wait for another run, or fail while it is in progress.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Turn {
    /// Wait up to this time for another run to end, such as 90s, 10m or 2h [default: do not wait, exit with
    /// code 11].
    #[arg(long, value_name = "TIME")]
    pub(crate) wait: Option<Span>,
}

/// Arguments of `rebuild`: the new data folder, the site and the key.
#[derive(Debug, Args)]
pub(crate) struct RebuildArguments {
    /// Data folder of the server; it must not hold an index.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Site that holds the packs.
    #[arg(long, value_name = "URL")]
    pub(crate) from_site: OsString,
    /// File with the master key of the repository.
    #[arg(long, value_name = "FILE")]
    pub(crate) keyring: PathBuf,
    /// More arguments for `astacus-server rebuild`.
    #[arg(last = true, value_name = "ARGUMENT")]
    pub(crate) more: Vec<OsString>,
}

fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.len() {
        1..=MAX_REASON_LEN if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        _ => Err(format!("expected one line of 1 to {MAX_REASON_LEN} bytes")),
    }
}

/// Parses a number of bytes, written like a rate. Zero is allowed.
fn size(text: &str) -> Result<u64, String> {
    let expected = "expected a number of bytes, such as `0`, `500000`, `512M` or `4GiB`";
    match (text, text.parse::<Rate>()) {
        ("0", _) => Ok(0),
        (_, Ok(rate)) => Ok(rate.bytes_per_second().get()),
        (_, Err(_)) => Err(expected.to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct AlarmsArguments {
    #[command(subcommand)]
    pub(crate) command: Option<AlarmsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlarmsCommand {
    /// Acknowledge an alarm until it is cleared. If it is raised again later, it needs a new acknowledgement.
    #[command(after_help = examples!(
        "alarms ack clock_jumped --reason 'clock is being set'"
        "alarms ack overdue orders/db1 --reason 'node is being repaired' --for 7d"
    ))]
    Ack {
        /// Code of the alarm, as `alarms` lists it.
        code: String,
        /// Series or channel of the alarm, or a part of its name; needed if several alarms have this code.
        subject: Option<String>,
        /// Reason for the acknowledgement.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        /// End of the acknowledgement after this time, such as 12h or 7d [default: when the alarm is
        /// cleared].
        #[arg(long = "for", value_name = "TIME")]
        lasts: Option<Span>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct FreshnessArguments {
    #[command(subcommand)]
    pub(crate) command: Option<FreshnessCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FreshnessCommand {
    /// Set the oldest age allowed for the last good snapshot. A series without a good snapshot is overdue at
    /// once.
    #[command(after_help = examples!("freshness set orders --max-age 26h"))]
    Set {
        #[command(flatten)]
        scope: ScopeArguments,
        /// Oldest age allowed, such as 26h or 2d.
        #[arg(long, value_name = "TIME")]
        max_age: Span,
    },
    /// Retire series that are no longer pushed: they raise no `overdue` alarm.
    #[command(after_help = examples!("freshness retire orders --node db0"))]
    Retire {
        #[command(flatten)]
        scope: ScopeArguments,
    },
    /// Undo `set` or `retire`: the configuration and the history of the series set the limit again.
    #[command(after_help = examples!("freshness usual orders --node db0"))]
    Usual {
        #[command(flatten)]
        scope: ScopeArguments,
    },
}

/// The series that a command applies to.
#[derive(Debug, Clone, Args)]
pub(crate) struct ScopeArguments {
    /// Cluster of the series.
    #[arg(value_name = "CLUSTER")]
    pub(crate) cluster: ClusterName,
    /// Only series of this node.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// Only the series with this name, or with this folder.
    #[arg(long, value_name = "NAME")]
    pub(crate) series: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct SessionsArguments {
    #[command(subcommand)]
    pub(crate) command: Option<SessionsCommand>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// End a session without a snapshot. Its push fails or starts again; data that it sent is kept until the
    /// collector deletes it.
    #[command(after_help = examples!("sessions end 01890a5d-ac96-774b-bcce-b302099a8057"))]
    End {
        /// Id of the session.
        session: SessionId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChunkCommand {
    /// Show where a chunk or page is stored, and its reference count. Exit code 13 if its stored bytes are
    /// known to be damaged.
    #[command(after_help = examples!(
        "chunk locate chunk:114c062e4fcce8b028088484850de36c6fac93446cbbea723523d5f1af40be15"
    ))]
    Locate {
        /// Id of the chunk or page: `chunk:` and 64 hex digits.
        id: ChunkId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PackCommand {
    /// Inspect a pack file without a server: owner, completeness and, with the master key, its blobs. Exit
    /// code 13 if damage is found.
    #[command(after_help = examples!(
        "pack inspect packs/1a/1a9d111d" "pack inspect packs/1a/1a9d111d --key-file master.key --json"
    ))]
    Inspect {
        /// Pack file.
        file: PathBuf,
        /// File with the master key of the repository, to open and check every blob.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests;
