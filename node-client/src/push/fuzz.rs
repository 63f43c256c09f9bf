//! Ways into the parsers of a push, for the fuzzers.

use std::io::{self, Read, Seek};

use format_spec::{EntryKind, EntryPath, Timestamp, Xattr};

use super::class::Class;
use super::find::list::{FoundFile, Step, Writer};
use super::second_names::is_base;
use super::stat::Stat;
use super::verdict::{Judged, Verdict};
use crate::globs::Globs;
use crate::identity::{Habit, Identity, Source};
use crate::state::Origin;
use crate::state::fuzz::in_memory;

/// True if any of `patterns` matches `path`; `None` if one of them is no pattern.
pub fn globs_match(patterns: &[&str], path: &EntryPath) -> Option<bool> {
    Globs::new("--exclude", patterns).ok().map(|globs| globs.matches(path))
}

/// True if a folder with these names holds second names, which no snapshot contains.
pub fn is_second_name_folder(names: &[&[u8]]) -> bool {
    is_base(names.iter().copied())
}

/// Reads a list of files to its end, and writes what was in it.
///
/// # Errors
/// An `io::Error` if it is no list.
pub fn listed_again(list: &[u8]) -> io::Result<Vec<u8>> {
    let mut reader = crate::push::find::list::Reader::new(in_memory(list)?);
    let mut steps = Vec::new();
    while let Some(step) = reader.next_step()? {
        steps.push(step);
    }
    write(&steps)
}

/// A list with a step of every kind.
///
/// # Errors
/// An `io::Error` if there can be no file in memory.
pub fn list_of_files() -> io::Result<Vec<u8>> {
    let path = |name: &[u8]| EntryPath::new(name.to_vec()).map_err(io::Error::other);
    let time = Timestamp { seconds: -1, nanos: 5 };
    let identity = Identity { dev: 1, ino: 2, btime: time, size: 3, mtime: time, ctime: time };
    let stat = Stat { identity, links: 1, allocated: 512, mode: 0o100_644, uid: 4, gid: 5 };
    let xattrs = vec![Xattr { name: b"user.a".to_vec(), value: vec![0, 255] }];
    let direct = FoundFile {
        path: path(b"a/b")?,
        stat,
        source: Source::Path,
        not_frozen: Some("why".to_owned()),
        xattrs: None,
        judged: Some(Judged {
            origin: Origin::Last,
            class: Class::Auto,
            habit: Habit::Appends(2),
            verdict: Verdict::Reuse,
        }),
    };
    let frozen = FoundFile {
        path: path(b"a/\xff")?,
        source: Source::Link,
        not_frozen: None,
        xattrs: Some(xattrs),
        judged: None,
        ..direct.clone()
    };
    write(&[
        Step::Plain(stat.entry(path(b"a")?, EntryKind::Folder, Vec::new())),
        Step::File(direct),
        Step::File(frozen),
        Step::Skipped(path(b"a/socket")?),
        Step::Problem(path(b"b")?, "vanished".to_owned()),
    ])
}

fn write(steps: &[Step]) -> io::Result<Vec<u8>> {
    let file = in_memory(&[])?;
    let mut writer = Writer::new([file.try_clone()?, in_memory(&[])?, in_memory(&[])?]);
    for step in steps {
        writer.push(step)?;
    }
    drop(writer.finish()?);
    let mut bytes = Vec::new();
    let mut file = file;
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
