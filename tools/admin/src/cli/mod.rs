//! The command line.

pub(crate) mod checks;

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

/// What all exit codes mean, in the help of every command.
macro_rules! exit_codes {
    () => {
        "Exit codes: 0 done, and nothing is wrong · 2 wrong usage · 3 done, but not all of it ·
10 not found · 11 conflict · 12 not allowed · 13 stored bytes are damaged ·
14 not available, try again · 15 done, and standard output cannot be written · 1 a defect of ours"
    };
}

/// The end of a command's help: examples, a line each, and the exit codes.
macro_rules! examples {
    ($($line:literal)+) => {
        concat!("Examples:\n", $("  astacus-admin ", $line, "\n",)+ "\n", exit_codes!())
    };
}

/// Looks after an Astacus repository: what it holds, and whether that is as it was written.
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
Settings come from flags, then from the environment (ASTACUS_SERVER, ASTACUS_TOKEN_FILE,
ASTACUS_TOKEN), then from ~/.config/astacus/client.toml, then from /etc/astacus/client.toml.

",
    exit_codes!()
);

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// Address of the server [default: http://127.0.0.1:5515].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "URL")]
    server: Option<String>,
    /// File that holds the token for the server.
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How long to wait for a server that says nothing, such as 90s, 10m or 2h.
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "TIME", default_value = "30m")]
    pub(crate) timeout: Span,
}

impl Connection {
    /// The settings that flags gave.
    pub(crate) fn settings(&self) -> Settings {
        let Self { server, token_file, timeout: _ } = self.clone();
        Settings { server, token_file, ..Settings::default() }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what the repository holds, and alarms if there are any.
    #[command(after_help = examples!("status" "status --json | jq .alarms" "status --fail-on-alarm --quiet"))]
    Status {
        /// End with 3 if any alarm is up that nobody has acknowledged.
        #[arg(long)]
        fail_on_alarm: bool,
    },
    /// List the alarms that are up, or acknowledge one: then it is still shown, and fails no `status --fail-on-alarm`
    /// and notifies nobody until it is over.
    #[command(after_help = examples!("alarms" "alarms ack overdue db1 --reason 'node is being repaired' --for 7d"))]
    Alarms(AlarmsArguments),
    /// Show how old the last good snapshot of each series is and may be, or say how old it may be. Good means
    /// complete, and neither damaged, suspect nor forgotten.
    #[command(after_help = examples!(
        "freshness" "freshness set orders --node db1 --max-age 26h" "freshness retire orders --node db0"
    ))]
    Freshness(FreshnessArguments),
    /// Show how old the last complete snapshot of each series is that is neither damaged nor suspect.
    #[command(after_help = examples!("last" "last orders --max-age 26h"))]
    Last {
        /// Only this cluster.
        #[arg(value_name = "CLUSTER")]
        cluster: Option<ClusterName>,
        /// End with 3 if that of any series is this old or older, such as 26h or 2d, or if there is none.
        #[arg(long, value_name = "TIME")]
        max_age: Option<Span>,
    },
    /// List snapshots, oldest first, with those that are going or protected marked.
    #[command(after_help = examples!(
        "snapshots" "snapshots --cluster orders --node db-3 --json" "snapshots --label release=4.2"
    ))]
    Snapshots {
        /// Only those of this cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<ClusterName>,
        /// Only those of this node.
        #[arg(long, value_name = "NAME")]
        node: Option<NodeName>,
        /// Only those that have this label; repeated: all of them.
        #[arg(long = "label", value_name = "KEY[=VALUE]")]
        labels: Vec<LabelChoice>,
        /// Show these columns only, in this order.
        #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
        columns: Vec<Column>,
    },
    /// Show all that is known of one snapshot, with every file that is missing from it or torn.
    #[command(after_help = examples!(
        "show 018bcfe5-6800-7707-8707-070707070707" "show 018bcfe5-6800-7707-8707-070707070707 --limit 20"
    ))]
    Show {
        /// Its id, at least four digits that only its id begins or ends with, or `latest`.
        snapshot: SnapshotChoice,
        /// Name at most so many files that are missing, incomplete, torn or fuzzy [default: all].
        #[arg(long, value_name = "N", value_parser = count::<u64>)]
        limit: Option<u64>,
    },
    /// Count what clusters, nodes and snapshots take, and what each snapshot alone holds.
    #[command(after_help = examples!("stats" "stats --cluster orders --json"))]
    Stats {
        /// Only this cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<ClusterName>,
    },
    /// Forget snapshots: those named, or those that a policy does not keep.
    #[command(after_help = FORGET_HELP)]
    Forget(ForgetArguments),
    /// Bring back snapshots that were forgotten.
    #[command(after_help = examples!("undelete 018bcfe5-6800-7707-8707-070707070707"))]
    Undelete {
        /// Their ids, or at least four digits that only one id begins or ends with.
        #[arg(required = true, value_name = "SNAPSHOT")]
        snapshots: Vec<SnapshotChoice>,
    },
    /// Make a snapshot stay whatever policies say, until that is taken back.
    #[command(after_help = examples!(
        "protect 018bcfe5-6800-7707-8707-070707070707 --reason 'audit of 2026'"
        "protect --off 018bcfe5-6800-7707-8707-070707070707"
    ))]
    Protect(ProtectArguments),
    /// Collect what nothing needs any more, and free its bytes.
    #[command(after_help = GC_HELP)]
    Gc(GcArguments),
    /// Check the repository, one snapshot, or a sample; exit code 13 if anything is wrong.
    #[command(after_help = examples!(
        "verify --level read --sample 5%"
        "verify --level restore --snapshot 018bcfe5-6800-7707-8707-070707070707"
        "verify --level refs --repair"
    ))]
    Verify(Verify),
    /// Read packs and compare every byte with its id, those checked longest ago first.
    #[command(after_help = examples!("scrub --max-time 2h --max-rate 50M" "scrub --sample 3%"))]
    Scrub(Scrub),
    /// List the sessions that are open, or end one. While a session is open, the collector keeps what became garbage
    /// since it began.
    #[command(after_help = examples!("sessions" "sessions end 01890a5d-ac96-774b-bcce-b302099a8057"))]
    Sessions(SessionsArguments),
    /// Find chunks.
    #[command(subcommand)]
    Chunk(ChunkCommand),
    /// Look into packs.
    #[command(subcommand)]
    Pack(PackCommand),
    /// Make a lost index again from a site, while no server runs.
    #[command(after_help = REBUILD_HELP)]
    Rebuild(RebuildArguments),
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
Without snapshots and without a rule, the policy of the server's configuration decides. It counts
the snapshots of each series by itself: of the same node and folders. What any rule keeps stays, and
--maximum takes away from that. A rule of 0 is sent too: it is not the same as none. What is forgotten can be brought back until its
delay is over; then `gc` frees what it took. Exit code 3 if a snapshot that was named stays.

",
    examples!(
        "forget --dry-run"
        "forget --cluster orders --keep-daily 7 --keep-weekly 5 --keep-yearly 3 --dry-run"
        "forget 018bcfe5-6800-7707-8707-070707070707"
    )
);

const GC_HELP: &str = concat!(
    "\
What a session that is open may need stays until that is over. Exit code 3 if the run was stopped,
or could not do everything: what was done stays done, and the next run goes on.

",
    examples!("gc --dry-run" "gc --explain --json" "gc --max-copy 4GiB")
);

const REBUILD_HELP: &str = concat!(
    "\
This is `astacus-server rebuild`, from the folder of this program or else from PATH: its output and
its exit code are what you get. Exit code 10 if it is not installed.

",
    examples!("rebuild --data-dir /srv/astacus --from-site file:///mnt/site --keyring keys")
);

/// What to forget.
#[derive(Debug, Args)]
pub(crate) struct ForgetArguments {
    /// Ids of the snapshots, or at least four digits that only one id begins or ends with; without any, a policy
    /// decides.
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = ["PolicyArguments", "cluster", "node", "labels"])]
    pub(crate) snapshots: Vec<SnapshotChoice>,
    /// Only snapshots of this cluster [default: of each cluster, each by itself].
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<ClusterName>,
    /// Only snapshots of this node.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// Only snapshots that have this label; repeated: all of them. A rule counts no other snapshots then.
    #[arg(long = "label", value_name = "KEY[=VALUE]")]
    pub(crate) labels: Vec<LabelChoice>,
    /// Change nothing, and tell what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The last complete snapshot of a series may go as any other.
    #[arg(long)]
    pub(crate) even_last: bool,
    /// The server's clock jumped, and is right now.
    #[arg(long)]
    pub(crate) accept_clock: bool,
    // Last, as its heading is for all that follows.
    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}

/// Which snapshots a policy keeps.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Policy")]
pub(crate) struct PolicyArguments {
    /// Keep snapshots for so many days.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_days: Option<u32>,
    /// Keep at least so many complete ones [default: 3].
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) minimum: Option<u32>,
    /// Keep no more than so many complete ones.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) maximum: Option<u32>,
    /// Keep so many of the newest complete ones.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_last: Option<u32>,
    /// Keep the newest of each of the last N hours that have one.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_hourly: Option<u32>,
    /// The same for days.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_daily: Option<u32>,
    /// The same for ISO weeks.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_weekly: Option<u32>,
    /// The same for months.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_monthly: Option<u32>,
    /// The same for years.
    #[arg(long, value_name = "N", value_parser = count::<u32>)]
    pub(crate) keep_yearly: Option<u32>,
}

/// A whole number, refused in words that say so.
fn count<N: std::str::FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "expected a whole number, 0 or more".to_owned())
}

/// What must stay, and why.
#[derive(Debug, Args)]
pub(crate) struct ProtectArguments {
    /// Id of the snapshot, or at least four digits that only its id begins or ends with.
    pub(crate) snapshot: SnapshotChoice,
    /// Why it must stay.
    #[arg(long, value_name = "TEXT", value_parser = reason, required_unless_present = "off")]
    pub(crate) reason: Option<String>,
    /// It may go as any other again.
    #[arg(long, conflicts_with = "reason")]
    pub(crate) off: bool,
}

/// How the collector runs.
#[derive(Debug, Args)]
pub(crate) struct GcArguments {
    /// Change nothing, and tell what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The same, with everything that waits, and for whom.
    #[arg(long)]
    pub(crate) explain: bool,
    /// Do not wait for delays: forgotten snapshots go for good. What open sessions need stays all the same.
    #[arg(long)]
    pub(crate) now: bool,
    /// Go on where more would go than may go in a day.
    #[arg(long)]
    pub(crate) allow_large: bool,
    /// Copy at most so much to empty packs of which little is left: bytes, or a number with K, M or G
    /// [default: as the server is configured].
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_copy: Option<u64>,
    #[command(flatten)]
    pub(crate) turn: Turn,
}

/// What to do beside another run.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Turn {
    /// While another run is in progress, wait so long for it to end, such as 90s, 10m or 2h [default: end with 11].
    #[arg(long, value_name = "TIME")]
    pub(crate) wait: Option<Span>,
}

/// From what a repository is made again.
#[derive(Debug, Args)]
pub(crate) struct RebuildArguments {
    /// Folder of the server, without an index.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The site that holds the packs.
    #[arg(long, value_name = "URL")]
    pub(crate) from_site: OsString,
    /// The keys of the repository.
    #[arg(long, value_name = "FILE")]
    pub(crate) keyring: PathBuf,
    /// More arguments, handed on as they are.
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

/// A number of bytes. It is written as rates are, and may be zero.
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
    /// Acknowledge an alarm until it is over. One that comes up again later is not acknowledged.
    #[command(after_help = examples!(
        "alarms ack clock_jumped --reason 'clock is being set'"
        "alarms ack overdue orders/db1 --reason 'node is being repaired' --for 7d"
    ))]
    Ack {
        /// Its code, as `alarms` lists it.
        code: String,
        /// The series or channel that it is about, or a part of that; needed if several alarms have the code.
        subject: Option<String>,
        /// Why it may stay up.
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: String,
        /// For how long, such as 12h or 7d [default: until it is over].
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
    /// Say how old the last good snapshot may be; series that have none are overdue at once.
    #[command(after_help = examples!("freshness set orders --max-age 26h"))]
    Set {
        #[command(flatten)]
        scope: ScopeArguments,
        /// The age, such as 26h or 2d.
        #[arg(long, value_name = "TIME")]
        max_age: Span,
    },
    /// Say that nothing is pushed any more: no alarm is raised for that.
    #[command(after_help = examples!("freshness retire orders --node db0"))]
    Retire {
        #[command(flatten)]
        scope: ScopeArguments,
    },
    /// Take back what `set` or `retire` said: the configuration and the history of the series decide again.
    #[command(after_help = examples!("freshness usual orders --node db0"))]
    Usual {
        #[command(flatten)]
        scope: ScopeArguments,
    },
}

/// The series that are meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct ScopeArguments {
    /// Their cluster.
    #[arg(value_name = "CLUSTER")]
    pub(crate) cluster: ClusterName,
    /// Only those of this node.
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<NodeName>,
    /// Only the series of this name, or with this folder.
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
    /// End a session without a snapshot. Its push fails or starts again; what it sent stays until it is collected.
    #[command(after_help = examples!("sessions end 01890a5d-ac96-774b-bcce-b302099a8057"))]
    End {
        /// The session.
        session: SessionId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChunkCommand {
    /// Say where a chunk or page lies, and how often it is referred to. Exit code 13 if its stored
    /// bytes are known to be damaged.
    #[command(after_help = examples!(
        "chunk locate chunk:114c062e4fcce8b028088484850de36c6fac93446cbbea723523d5f1af40be15"
    ))]
    Locate {
        /// Its id: `chunk:` and 64 hex digits.
        id: ChunkId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PackCommand {
    /// Say what a file is, without a server: whose pack, whether it is whole, and, with the master
    /// key, what lies in it. Exit code 13 if anything is wrong.
    #[command(after_help = examples!(
        "pack inspect packs/1a/1a9d111d" "pack inspect packs/1a/1a9d111d --key-file master.key --json"
    ))]
    Inspect {
        /// The file.
        file: PathBuf,
        /// The repository's master key; with it every blob is opened and checked.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests;
