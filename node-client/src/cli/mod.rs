//! The command line: arguments, and their conversion to options of the library.

pub(crate) mod flags;
pub mod push;
pub mod restore;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use format_spec::{ClusterName, LabelChoice, NodeName};

use crate::config::Settings;
use crate::list::Column;
use crate::output::{ALL_COMMANDS, Output};
use crate::span::Span;
use push::PushArguments;
use restore::{RestoreArguments, VerifyArguments};

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

const EXIT_CODES: &str = "\
Each setting comes from the first of these that has it: flags, the environment (ASTACUS_SERVER,
ASTACUS_TOKEN_FILE, ASTACUS_TOKEN, ASTACUS_CA, ASTACUS_CA_SHA256, ASTACUS_IDENTITY,
ASTACUS_CLUSTER, ASTACUS_NODE), ~/.config/astacus/client.toml, /etc/astacus/client.toml (keys: server,
token_file, ca, ca_sha256, identity, cluster, node).

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
    /// File with the CA of the server, in PEM format [default: the CAs of the system].
    #[arg(long, global = true, help_heading = ALL_COMMANDS, value_name = "FILE")]
    pub ca: Option<PathBuf>,
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
    /// Show these columns only, in this order.
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    pub columns: Vec<Column>,
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

impl Connection {
    /// The settings that flags gave.
    pub fn settings(&self) -> Settings {
        let Self { server, token_file, ca, cluster, node, retry_for: _ } = self.clone();
        Settings { server, token_file, ca, cluster, node, ..Settings::default() }
    }
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
