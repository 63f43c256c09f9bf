//! How much a program says, and to whom: flags that all commands share.

use clap::Args;
use format_spec::EntryPath;

use crate::progress::Fate;

/// Heading of the options that all commands take.
pub const ALL_COMMANDS: &str = "Options of all commands";

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
    /// No output.
    None,
}

/// The files that are named while a push deals with them, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Naming {
    /// None.
    #[default]
    Nothing,
    /// Those that are new, changed, left out or missing.
    Changes,
    /// All.
    Everything,
}

impl Naming {
    /// Names files for the given count of `-v`.
    pub fn of(count: u8) -> Self {
        match count {
            0 => Self::Nothing,
            1 => Self::Changes,
            _ => Self::Everything,
        }
    }

    /// The line for a file; `None` if it is not to be named.
    pub(crate) fn line(self, fate: Fate, path: &EntryPath) -> Option<String> {
        let (word, from) = match fate {
            Fate::New => ("new", Self::Changes),
            Fate::Changed => ("changed", Self::Changes),
            Fate::Appended => ("appended", Self::Changes),
            Fate::Resumed => ("resumed", Self::Changes),
            Fate::Excluded => ("excluded", Self::Changes),
            Fate::Unreadable => ("unreadable", Self::Changes),
            Fate::Unchanged => ("unchanged", Self::Everything),
            Fate::Linked => ("linked", Self::Everything),
        };
        (self >= from).then(|| format!("{word:<10} /{path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_far_as_that_was_asked_for_and_move_no_cursor() {
        let path = EntryPath::new(b"a\x1b[2J\nb\xff".to_vec()).unwrap();
        let all =
            [Fate::New, Fate::Appended, Fate::Excluded, Fate::Unreadable, Fate::Unchanged, Fate::Linked];
        let named = |count| all.iter().filter(|fate| Naming::of(count).line(**fate, &path).is_some()).count();

        assert_eq!([0, 1, 2, 3].map(named), [0, 4, 6, 6]);
        let line = Naming::Changes.line(Fate::New, &path).unwrap();
        assert_eq!(line, "new        /a\\u{1b}[2J\\nb\\xff");
    }
}
