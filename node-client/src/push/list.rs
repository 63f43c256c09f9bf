//! What the walk found, on disk until the scan has dealt with it: the tree as it was when it was frozen.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use format_spec::{Entry, EntryPath, Xattr};
use minicbor::{Decode, Encode};

use super::freeze::Source;
use super::stat::Stat;

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
}

/// A list being written.
pub(crate) struct Writer {
    file: BufWriter<File>,
    row: Vec<u8>,
}

impl Writer {
    /// An empty list in `file`, which nobody else uses.
    pub(crate) fn new(file: File) -> Self {
        Self { file: BufWriter::with_capacity(256 << 10, file), row: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, step: &Step) -> io::Result<()> {
        self.row.clear();
        minicbor::encode(step, &mut self.row).map_err(|error| io::Error::other(error.to_string()))?;
        let len = u32::try_from(self.row.len()).map_err(io::Error::other)?;
        self.file.write_all(&len.to_le_bytes())?;
        self.file.write_all(&self.row)
    }

    /// The rows, from the first.
    pub(crate) fn finish(self) -> io::Result<Reader> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Reader::new(file))
    }
}

/// A list being read.
pub(crate) struct Reader {
    file: BufReader<File>,
    row: Vec<u8>,
}

impl Reader {
    /// The rows of the list in `file`.
    pub(super) fn new(file: File) -> Self {
        Self { file: BufReader::with_capacity(256 << 10, file), row: Vec::new() }
    }

    /// The next row; `None` after the last.
    pub(crate) fn next_step(&mut self) -> io::Result<Option<Step>> {
        let mut len = [0; 4];
        match self.file.read_exact(&mut len) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let len = usize::try_from(u32::from_le_bytes(len)).map_err(io::Error::other)?;
        if len > MAX_ROW_LEN {
            return Err(io::Error::other("a row of the list of files is too long"));
        }
        self.row.resize(len, 0);
        self.file.read_exact(&mut self.row)?;
        minicbor::decode(&self.row).map(Some).map_err(|error| io::Error::other(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_come_out_as_they_went_in_and_a_cut_list_is_an_error() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let stat = Stat::of_file(temp.as_file()).unwrap();
        let path = || EntryPath::new(b"a/b".to_vec()).unwrap();
        let entry = stat.entry(path(), format_spec::EntryKind::Folder, Vec::new());
        let not_frozen = Some("why".to_owned());
        let xattr = Xattr { name: b"user.a".to_vec(), value: vec![1] };
        let steps = [
            Step::File(FoundFile {
                path: path(),
                stat,
                source: Source::Tree,
                not_frozen: None,
                xattrs: None,
            }),
            Step::File(FoundFile {
                path: path(),
                stat,
                source: Source::Path,
                not_frozen,
                xattrs: Some(vec![xattr]),
            }),
            Step::Plain(entry),
            Step::Skipped(path()),
            Step::Problem(path(), "vanished".to_owned()),
        ];
        let mut writer = Writer::new(temp.reopen().unwrap());
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
        let mut cut = Writer::new(temp.reopen().unwrap()).finish().unwrap();
        let read: Vec<_> = (0..5).map(|_| cut.next_step()).collect();
        assert!(read.last().unwrap().is_err());
    }
}
