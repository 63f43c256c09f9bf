//! The command line: what can be asked for, and what it becomes for the library.

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

impl Connection {
    /// The settings that flags gave.
    pub fn settings(&self) -> Settings {
        let Self { server, token_file, cluster, node, retry_for: _ } = self.clone();
        Settings { server, token_file, cluster, node, ..Settings::default() }
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
