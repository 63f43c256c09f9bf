//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use format_spec::ClusterName;
use format_spec::wire::VerifyLevel;
use node_client::cli::Output;
use node_client::config::Settings;

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

const AFTER_HELP: &str = "\
Settings come from flags, then from the environment (ASTACUS_SERVER, ASTACUS_TOKEN_FILE,
ASTACUS_TOKEN), then from ~/.config/astacus/client.toml, then from /etc/astacus/client.toml.

Exit codes: 0 done, and nothing is wrong · 2 wrong usage · 10 not found · 11 conflict ·
12 not allowed · 13 stored bytes are damaged · 14 not available, try again · 1 a defect of ours";

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// Address of the server [default: http://127.0.0.1:5515].
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// File that holds the token for the server.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Connection {
    /// The settings that flags gave.
    pub(crate) fn settings(&self) -> Settings {
        let Self { server, token_file } = self.clone();
        Settings { server, token_file, ..Settings::default() }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what the repository holds.
    Status,
    /// List snapshots, oldest first.
    Snapshots {
        /// Only those of this cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<ClusterName>,
    },
    /// Check the whole repository; exit code 13 if anything is wrong.
    Verify {
        /// How deep to look.
        #[arg(long, value_enum, default_value_t = Level::Exists)]
        level: Level,
        /// With `--level refs`: mend what is wrong.
        #[arg(long)]
        repair: bool,
    },
    /// Look into packs.
    #[command(subcommand)]
    Pack(PackCommand),
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

#[derive(Debug, Subcommand)]
pub(crate) enum PackCommand {
    /// Say what a file is, without a server: whose pack, whether it is whole, and, with the master
    /// key, what lies in it. Exit code 13 if anything is wrong.
    Inspect {
        /// The file.
        file: PathBuf,
        /// The repository's master key; with it every blob is opened and checked.
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
    },
}

/// How deep a check goes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Level {
    /// Every page and chunk that a snapshot needs is in the index.
    Index,
    /// And every pack that the index names is on the site, with the right length.
    Exists,
    /// And every byte of every pack is as it was written.
    Read,
    /// The counts of the index are what manifests and pages say, counted anew.
    Refs,
}

/// What a check looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Depth {
    /// Stored objects, so deep.
    Objects(VerifyLevel),
    /// The counts of the index.
    Counts,
}

impl Level {
    /// What it looks at.
    pub(crate) fn depth(self) -> Depth {
        match self {
            Self::Index => Depth::Objects(VerifyLevel::Index),
            Self::Exists => Depth::Objects(VerifyLevel::Exists),
            Self::Read => Depth::Objects(VerifyLevel::Read),
            Self::Refs => Depth::Counts,
        }
    }
}
