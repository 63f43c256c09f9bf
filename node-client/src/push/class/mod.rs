//! Classes of files: how their owner changes them, and so what may be believed of them.

pub(crate) mod database;
pub(crate) mod sets;

use std::fmt;
use std::str::FromStr;

use format_spec::EntryPath;
use minicbor::{Decode, Encode};

use super::class::sets::ClassSet;
use crate::error::ClientError;
use crate::globs::Globs;

/// How the owner of a file changes it. See `docs/change-detection.md` for the consequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum Class {
    /// Unknown: what the kernel says of it is believed, and checked by samples where that says little.
    #[default]
    #[n(0)]
    Auto,
    /// Bytes are only ever added at its end.
    #[n(1)]
    AppendOnly,
    /// It is never changed once it is written.
    #[n(2)]
    Immutable,
    /// It is rewritten in place, perhaps without a sign (through a memory map): always read whole.
    #[n(3)]
    Mutable,
    /// It is written in place, and its owner's own log repairs a copy that was taken meanwhile.
    #[n(4)]
    Logged,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 5] = [Self::Auto, Self::AppendOnly, Self::Immutable, Self::Mutable, Self::Logged];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::AppendOnly => "append-only",
            Self::Immutable => "immutable",
            Self::Mutable => "mutable",
            Self::Logged => "logged",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A class for what a pattern matches, written `CLASS=GLOB`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassRule {
    /// The class.
    pub class: Class,
    /// The pattern: a name in any folder, or with a slash in it an absolute path.
    pub glob: String,
}

/// A text that is no [`ClassRule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected CLASS=GLOB, where CLASS is auto, append-only, immutable, mutable or logged")]
pub struct ParseClassError;

impl FromStr for ClassRule {
    type Err = ParseClassError;

    fn from_str(text: &str) -> Result<Self, ParseClassError> {
        let (name, glob) = text.split_once('=').ok_or(ParseClassError)?;
        let class = Class::ALL.into_iter().find(|class| class.name() == name).ok_or(ParseClassError)?;
        if glob.is_empty() {
            return Err(ParseClassError);
        }
        Ok(Self { class, glob: glob.to_owned() })
    }
}

/// Live logs that are allocated ahead and written in place, whatever a broad pattern says of them.
const NEVER_APPEND_ONLY: [&str; 2] = ["CommitLog-*.log", "*.wal"];

/// Which class each file has.
#[derive(Debug)]
pub(crate) struct Classes {
    rules: Vec<(Class, Globs)>,
    never_append_only: Globs,
}

impl Classes {
    /// The user's rules first, then the sets.
    ///
    /// # Errors
    /// [`ClientError::Usage`] names the pattern that is none.
    pub(crate) fn new(rules: &[ClassRule], sets: &[ClassSet]) -> Result<Self, ClientError> {
        let own = rules.iter().map(|rule| Ok((rule.class, Globs::new("--class", &[&rule.glob])?)));
        let of_sets = sets.iter().flat_map(|set| set.rules());
        let built_in = of_sets.map(|(class, globs)| Ok((*class, Globs::new("--class-set", globs)?)));
        Ok(Self {
            rules: own.chain(built_in).collect::<Result<_, ClientError>>()?,
            never_append_only: Globs::new("built in", &NEVER_APPEND_ONLY)?,
        })
    }

    /// The first `own` rules, which are the user's, as far as they have matched nothing: their patterns.
    pub(crate) fn unmatched(&self, own: usize) -> impl Iterator<Item = (Class, &str)> {
        let own = self.rules.iter().take(own);
        own.flat_map(|(class, globs)| globs.unmatched().map(|glob| (*class, glob)))
    }

    /// The class of the file at `path`.
    pub(crate) fn of(&self, path: &EntryPath) -> Class {
        let rule = self.rules.iter().find(|(_, globs)| globs.matches(path));
        match rule.map(|(class, _)| *class) {
            Some(Class::AppendOnly) if self.never_append_only.matches(path) => Class::Mutable,
            class => class.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(rules: &[&str], sets: &[ClassSet]) -> Classes {
        let rules: Vec<ClassRule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        Classes::new(&rules, sets).unwrap()
    }

    fn of(classes: &Classes, path: &str) -> Class {
        classes.of(&EntryPath::new(path.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn the_first_rule_that_matches_counts_and_the_users_come_before_the_sets() {
        let classes = classes(&["mutable=/data/live/*", "append-only=*.log"], &[ClassSet::Cassandra]);

        assert_eq!(of(&classes, "data/live/a.log"), Class::Mutable);
        assert_eq!(of(&classes, "data/a.log"), Class::AppendOnly);
        assert_eq!(of(&classes, "data/ks/t/nb-1-big-Data.db"), Class::Immutable);
        assert_eq!(of(&classes, "data/live/nb-1-big-Data.db"), Class::Mutable);
        assert_eq!(of(&classes, "data/other"), Class::Auto);
    }

    #[test]
    fn what_cassandra_replaces_under_the_same_name_is_not_immutable() {
        let classes = classes(&[], &[ClassSet::Cassandra]);

        for name in ["nb-1-big-Statistics.db", "nb-1-big-Summary.db"] {
            assert_eq!(of(&classes, &format!("data/ks/t/{name}")), Class::Auto, "{name}");
        }
    }

    #[test]
    fn live_commit_logs_are_never_append_only() {
        let broad = classes(&["append-only=*.log", "append-only=*.wal"], &[]);
        let known = classes(&[], &ClassSet::ALL);

        for name in ["commitlog/CommitLog-7-1700000000000.log", "member/wal/0000000000000000-0.wal"] {
            assert_eq!(of(&broad, name), Class::Mutable, "{name}");
            assert_eq!(of(&known, name), Class::Logged, "{name}");
        }
        assert_eq!(of(&known, "var/lib/etcd/member/snap/db"), Class::Mutable);
    }

    #[test]
    fn a_rule_that_is_none_is_refused() {
        for text in ["", "auto", "auto=", "=*.log", "append=*.log", "AUTO=*.log"] {
            assert_eq!(text.parse::<ClassRule>(), Err(ParseClassError), "{text}");
        }
        let bad = [ClassRule { class: Class::Auto, glob: "a[".to_owned() }];
        assert!(matches!(Classes::new(&bad, &[]), Err(ClientError::Usage(_))));
    }
}
