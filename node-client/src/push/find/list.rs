//! Result of the walk, on disk until the scan has processed it: the tree at the time of the freeze.

use std::collections::{BTreeMap, VecDeque, btree_map};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::iter::Peekable;
use std::os::unix::fs::FileExt;

use format_spec::{Entry, EntryPath, Xattr};
use minicbor::{Decode, Encode};

use crate::identity::Source;
use crate::push::freeze::Held;
use crate::push::stat::Stat;
use crate::push::verdict::Judged;

/// Longest row that is believed: an entry with its attributes and some more.
const MAX_ROW_LEN: usize = 2 << 20;

/// One thing that the walk came across.
#[derive(Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Step {
    /// A regular file, not opened yet.
    #[n(0)]
    File(#[n(0)] FoundFile),
    /// A folder or a symbolic link: all there is to know of it.
    #[n(1)]
    Plain(#[n(0)] Entry),
    /// Something that has no content to keep.
    #[n(2)]
    Skipped(#[n(0)] EntryPath),
    /// Something that should have been there, or been readable.
    #[n(3)]
    Problem(#[n(0)] EntryPath, #[n(1)] String),
    /// A regular file that is frozen with the others of its folder, when that is left: the row of this number of
    /// those that wait.
    #[n(4)]
    Waiting(#[n(0)] EntryPath, #[n(1)] u64),
}

impl Step {
    /// Path of the step.
    pub(crate) fn path(&self) -> &EntryPath {
        match self {
            Self::File(found) => &found.path,
            Self::Plain(entry) => &entry.path,
            Self::Skipped(path) | Self::Problem(path, _) | Self::Waiting(path, _) => path,
        }
    }
}

/// A regular file, as it was when the walk came to it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(crate) struct FoundFile {
    #[n(0)]
    pub(crate) path: EntryPath,
    #[n(1)]
    pub(crate) stat: Stat,
    /// Where its content is to be read.
    #[n(2)]
    pub(crate) source: Source,
    /// Why it could not be frozen though it should be.
    #[n(3)]
    pub(crate) not_frozen: Option<String>,
    /// Its extended attributes, where its content is read from a copy, which has none.
    #[n(4)]
    pub(crate) xattrs: Option<Vec<Xattr>>,
    /// Verdict on the file, if it has saved state and was not frozen. Freezing may find another state of a
    /// file: that is judged when it is read.
    #[n(5)]
    pub(crate) judged: Option<Judged>,
}

impl FoundFile {
    /// The file at `path`, as it is held.
    pub(crate) fn new(path: EntryPath, held: Held) -> Self {
        let Held { stat, source, not_frozen, xattrs } = held;
        Self { path, stat, source, not_frozen, xattrs, judged: None }
    }
}

/// Bytes of a place in the file of what rows wait for.
const PLACE_LEN: u64 = 8;

/// A list being written.
pub(crate) struct Writer {
    file: BufWriter<File>,
    row: Vec<u8>,
    /// How many rows wait.
    waiting: u64,
    /// Files for which rows wait, and the position of each.
    held: BufWriter<File>,
    held_len: u64,
    places: File,
    /// Steps that came out of order. Memory: what came and went in the tree while it was listed.
    inserted: BTreeMap<EntryPath, Vec<Step>>,
}

impl Writer {
    /// An empty list in `files`, which no other code uses.
    pub(crate) fn new([file, held, places]: [File; 3]) -> Self {
        Self {
            file: BufWriter::with_capacity(256 << 10, file),
            row: Vec::new(),
            waiting: 0,
            held: BufWriter::with_capacity(256 << 10, held),
            held_len: 0,
            places,
            inserted: BTreeMap::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, step: &Step) -> io::Result<()> {
        put(&mut self.file, &mut self.row, step).map(drop)
    }

    /// Adds a row for a file that is held later. Returns its number.
    pub(crate) fn wait(&mut self, path: &EntryPath) -> io::Result<u64> {
        let row = self.waiting;
        self.waiting += 1;
        self.push(&Step::Waiting(path.clone(), row))?;
        Ok(row)
    }

    /// Adds the file for which the row of this number waited. A row that never hears of it stands for
    /// nothing.
    pub(crate) fn held(&mut self, row: u64, found: FoundFile) -> io::Result<()> {
        // Zero stands for nothing.
        let place = self.held_len + 1;
        self.places.write_all_at(&place.to_le_bytes(), row * PLACE_LEN)?;
        self.held_len += put(&mut self.held, &mut self.row, &Step::File(found))?;
        Ok(())
    }

    /// Forgets the rows about `path`.
    pub(crate) fn take_back(&mut self, path: &EntryPath) {
        self.inserted.insert(path.clone(), Vec::new());
    }

    /// Adds a row in its place in path order, in the place of those that were pushed.
    pub(crate) fn insert(&mut self, step: Step) {
        self.inserted.entry(step.path().clone()).or_default().push(step);
    }

    /// The rows, from the first.
    pub(crate) fn finish(self) -> io::Result<Reader> {
        self.places.set_len(self.waiting * PLACE_LEN)?;
        let waiting = Waiting { held: whole(self.held)?, places: self.places, row: Vec::new() };
        let inserted = self.inserted.into_iter().peekable();
        Ok(Reader { inserted, waiting: Some(waiting), ..Reader::new(whole(self.file)?) })
    }
}

/// Writes one row, and returns how long it is.
fn put(file: &mut impl Write, row: &mut Vec<u8>, step: &Step) -> io::Result<u64> {
    row.clear();
    minicbor::encode(step, &mut *row).map_err(|error| io::Error::other(error.to_string()))?;
    let len = u32::try_from(row.len()).map_err(io::Error::other)?;
    file.write_all(&len.to_le_bytes())?;
    file.write_all(row)?;
    Ok(u64::from(len) + 4)
}

fn whole(file: BufWriter<File>) -> io::Result<File> {
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// A list being read.
pub(crate) struct Reader {
    rows: Rows,
    waiting: Option<Waiting>,
    inserted: Peekable<btree_map::IntoIter<EntryPath, Vec<Step>>>,
    /// Steps to come before the next row.
    due: VecDeque<Step>,
    /// Steps to come behind the last row.
    late: Vec<Step>,
    next: Option<Step>,
}

impl Reader {
    /// The rows of the list in `file`, without waiting ones.
    pub(crate) fn new(file: File) -> Self {
        let inserted = BTreeMap::new().into_iter().peekable();
        Self {
            rows: Rows::new(file),
            waiting: None,
            inserted,
            due: VecDeque::new(),
            late: Vec::new(),
            next: None,
        }
    }

    /// Adds a step that has no place in path order.
    pub(crate) fn add_late(&mut self, step: Step) {
        self.late.push(step);
    }

    /// Hands over every file that was frozen with its folder.
    pub(crate) fn each_frozen(&mut self, take: impl FnMut(FoundFile) -> io::Result<()>) -> io::Result<()> {
        let Some(waiting) = &mut self.waiting else { return Ok(()) };
        let len = waiting.held.metadata()?.len();
        waiting.each(len, take)
    }

    /// The next row; `None` after the last.
    pub(crate) fn next_step(&mut self) -> io::Result<Option<Step>> {
        loop {
            if let Some(step) = self.due.pop_front() {
                return Ok(Some(step));
            }
            if self.next.is_none() {
                self.next = self.rows.next_step()?;
            }
            let is_due = |path: &EntryPath| self.next.as_ref().is_none_or(|next| path <= next.path());
            if let Some((path, steps)) = self.inserted.next_if(|(path, _)| is_due(path)) {
                self.due.extend(steps);
                while self.next.as_ref().is_some_and(|next| *next.path() == path) {
                    self.next = self.rows.next_step()?;
                }
                continue;
            }
            match self.next.take() {
                Some(Step::Waiting(_, row)) => {
                    let waiting =
                        self.waiting.as_mut().ok_or_else(|| io::Error::other("nothing to wait for"))?;
                    if let Some(step) = waiting.find(row)? {
                        return Ok(Some(step));
                    }
                }
                Some(step) => return Ok(Some(step)),
                None if self.late.is_empty() => return Ok(None),
                None => self.due.extend(self.late.drain(..)),
            }
        }
    }
}

/// Files for which rows waited.
struct Waiting {
    held: File,
    places: File,
    row: Vec<u8>,
}

impl Waiting {
    /// Hands over everything that rows waited for, in the order in which it was held.
    fn each(&mut self, len: u64, mut take: impl FnMut(FoundFile) -> io::Result<()>) -> io::Result<()> {
        let mut at = 0;
        while at < len {
            let (step, next) = self.read(at)?;
            if let Step::File(found) = step {
                take(found)?;
            }
            at = next;
        }
        Ok(())
    }

    /// Reads the file for which the row of this number waited; `None` if it has vanished.
    fn find(&mut self, row: u64) -> io::Result<Option<Step>> {
        let mut place = [0; 8];
        self.places.read_exact_at(&mut place, row.saturating_mul(PLACE_LEN))?;
        let Some(at) = u64::from_le_bytes(place).checked_sub(1) else { return Ok(None) };
        self.read(at).map(|(step, _)| Some(step))
    }

    /// The row at a place, and where the next one is.
    fn read(&mut self, at: u64) -> io::Result<(Step, u64)> {
        let mut head = [0; 4];
        self.held.read_exact_at(&mut head, at)?;
        let len = row_len(head)?;
        self.row.resize(len, 0);
        self.held.read_exact_at(&mut self.row, at + 4)?;
        Ok((parse(&self.row)?, at + 4 + u64::try_from(len).map_err(io::Error::other)?))
    }
}

fn row_len(len: [u8; 4]) -> io::Result<usize> {
    let len = usize::try_from(u32::from_le_bytes(len)).map_err(io::Error::other)?;
    if len > MAX_ROW_LEN {
        return Err(io::Error::other("a row of the list of files is too long"));
    }
    Ok(len)
}

fn parse(row: &[u8]) -> io::Result<Step> {
    minicbor::decode(row).map_err(|error| io::Error::other(error.to_string()))
}

/// Rows of a file, one after the other.
struct Rows {
    file: BufReader<File>,
    row: Vec<u8>,
}

impl Rows {
    fn new(file: File) -> Self {
        Self { file: BufReader::with_capacity(256 << 10, file), row: Vec::new() }
    }

    /// The next row; `None` after the last.
    fn next_step(&mut self) -> io::Result<Option<Step>> {
        let mut len = [0; 4];
        match self.file.read_exact(&mut len) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let len = row_len(len)?;
        self.row.resize(len, 0);
        self.file.read_exact(&mut self.row)?;
        parse(&self.row).map(Some)
    }
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Habit;
    use crate::push::class::Class;
    use crate::push::verdict::Verdict;
    use crate::state::Origin;

    #[test]
    fn steps_come_out_as_they_went_in_and_a_cut_list_is_an_error() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let stat = Stat::of_file(temp.as_file()).unwrap();
        let path = || EntryPath::new(b"a/b".to_vec()).unwrap();
        let entry = stat.entry(path(), format_spec::EntryKind::Folder, Vec::new());
        let not_frozen = Some("why".to_owned());
        let (origin, class) = (Origin::Moved, Class::Logged);
        let judged = Judged { origin, class, habit: Habit::Appends(3), verdict: Verdict::Reuse };
        let xattr = Xattr { name: b"user.a".to_vec(), value: vec![1] };
        let steps = [
            Step::File(FoundFile {
                path: path(),
                stat,
                source: Source::Link,
                not_frozen: None,
                xattrs: None,
                judged: Some(judged),
            }),
            Step::File(FoundFile {
                path: path(),
                stat,
                source: Source::Path,
                not_frozen,
                xattrs: Some(vec![xattr]),
                judged: None,
            }),
            Step::Plain(entry),
            Step::Skipped(path()),
            Step::Problem(path(), "vanished".to_owned()),
        ];
        let mut writer = Writer::new([
            temp.reopen().unwrap(),
            tempfile::tempfile().unwrap(),
            tempfile::tempfile().unwrap(),
        ]);
        for step in &steps {
            writer.push(step).unwrap();
        }

        let mut reader = writer.finish().unwrap();

        for step in steps {
            assert_eq!(reader.next_step().unwrap(), Some(step));
        }
        assert_eq!(reader.next_step().unwrap(), None);

        let len = temp.as_file().metadata().unwrap().len();
        temp.as_file().set_len(len - 1).unwrap();
        let mut cut = Writer::new([
            temp.reopen().unwrap(),
            tempfile::tempfile().unwrap(),
            tempfile::tempfile().unwrap(),
        ])
        .finish()
        .unwrap();
        let read: Vec<_> = (0..5).map(|_| cut.next_step()).collect();
        assert!(read.last().unwrap().is_err());
    }
}
