//! Flags that a job of a configuration file may set as well: each is written down once, as a field of its group.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use format_spec::{Label, Note, SeriesName};
use toml::Value;

use crate::priority::Nice;
use crate::push::{ClassRule, ClassSet};
use crate::rate::Rate;
use crate::size::Size;

/// The values of one flag.
pub(crate) trait Flag: Sized {
    /// The values of the command line, and those of a job where the command line has none. Lists are joined.
    fn over(self, job: Self) -> Self;

    /// The values under a key of a job.
    ///
    /// # Errors
    /// Why `value` cannot be meant.
    fn read(value: &Value) -> Result<Self, String>;

    /// The values that are paths.
    fn paths(&self) -> &[PathBuf] {
        &[]
    }
}

/// One value of a flag.
pub(crate) trait Word: FromStr<Err: ToString> {
    /// Where the words of a job stand in a joined list.
    const JOB: Place = Place::First;

    /// The words that are paths.
    fn paths(_: &[Self]) -> &[PathBuf] {
        &[]
    }
}

/// The place in a list of the words that come from a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Before those of the command line: the last that matches counts.
    First,
    /// Behind them: the first that matches counts.
    Last,
}

impl Word for String {}
impl Word for Label {}
impl Word for Note {}
impl Word for SeriesName {}
impl Word for Nice {}
impl Word for Rate {}
impl Word for Size {}
impl Word for NonZeroUsize {}
impl Word for u32 {}

impl Word for ClassRule {
    const JOB: Place = Place::Last;
}

impl Word for ClassSet {
    const JOB: Place = Place::Last;
}

impl Word for PathBuf {
    fn paths(paths: &[Self]) -> &[PathBuf] {
        paths
    }
}

impl Flag for bool {
    fn over(self, job: Self) -> Self {
        self || job
    }

    fn read(value: &Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "expected true or false".to_owned())
    }
}

impl<T: Word> Flag for Option<T> {
    fn over(self, job: Self) -> Self {
        self.or(job)
    }

    fn read(value: &Value) -> Result<Self, String> {
        word(value).map(Some)
    }

    fn paths(&self) -> &[PathBuf] {
        T::paths(self.as_slice())
    }
}

impl<T: Word> Flag for Vec<T> {
    fn over(self, job: Self) -> Self {
        let (mut all, more) = if T::JOB == Place::First { (job, self) } else { (self, job) };
        all.extend(more);
        all
    }

    fn read(value: &Value) -> Result<Self, String> {
        let texts = match value {
            Value::String(_) => std::slice::from_ref(value),
            Value::Array(texts) if texts.iter().all(Value::is_str) => texts,
            _ => return Err("expected a list of texts".to_owned()),
        };
        texts.iter().map(word).collect()
    }

    fn paths(&self) -> &[PathBuf] {
        T::paths(self)
    }
}

/// The value of a text or of a number.
pub(crate) fn word<T: FromStr<Err: ToString>>(value: &Value) -> Result<T, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        _ => return Err("expected a text or a number".to_owned()),
    };
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A group of flags, as a job sets them.
pub(crate) trait Group {
    /// Sets the flag that `key` stands for; `None` if it stands for none of these.
    fn set(&mut self, key: &str, value: &Value) -> Option<Result<(), String>>;

    /// The key of each flag, and the paths that the flag names.
    fn flags(&self) -> Vec<(String, &[PathBuf])>;
}

/// Declares a group of flags. The key of a job that stands for a flag is the flag's name.
macro_rules! flags {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$flag:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, clap::Args)]
        pub struct $name {
            $($(#[$flag])* pub $field: $kind,)*
        }

        impl $name {
            /// These flags, and those of a job where they say nothing.
            fn over(self, job: Self) -> Self {
                Self { $($field: $crate::cli::flags::Flag::over(self.$field, job.$field),)* }
            }
        }

        impl $crate::cli::flags::Group for $name {
            fn set(&mut self, key: &str, value: &toml::Value) -> Option<Result<(), String>> {
                $(if key == stringify!($field).replace('_', "-") {
                    let read = $crate::cli::flags::Flag::read(value);
                    return Some(read.map(|read| self.$field = read));
                })*
                None
            }

            fn flags(&self) -> Vec<(String, &[std::path::PathBuf])> {
                vec![$((
                    stringify!($field).replace('_', "-"),
                    $crate::cli::flags::Flag::paths(&self.$field),
                ),)*]
            }
        }
    };
}

pub(crate) use flags;
