//! A manifest: the pages of one node at one moment, with its totals.

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::error::FormatError;
use crate::id::{ChunkId, ClusterName, NodeName, SeriesName};
use crate::label::About;
use crate::path::EntryPath;

/// Longest encoded manifest that a reader takes: enough for 400 million file entries.
pub const MAX_MANIFEST_LEN: usize = 64 << 20;
/// How many problems a manifest names; `Totals::problems` counts all.
pub const MAX_PROBLEMS: usize = 1000;
/// How many reasons for a fallback a manifest names.
pub const MAX_FALLBACKS: usize = 100;
/// Longest reason for a fallback, in bytes. All reasons of a push are in its snapshot's row of the index.
pub const MAX_FALLBACK_LEN: usize = 200;
/// Longest reason of a problem, in bytes.
pub const MAX_PROBLEM_LEN: usize = 1024;
/// Longest name of a program or of a machine, in bytes.
pub const MAX_LABEL_LEN: usize = 256;
/// How many folders one push may name.
pub const MAX_ROOTS: usize = 1000;

/// One page of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct PageRef {
    /// Id of the page.
    #[n(0)]
    pub id: ChunkId,
    /// Length of its plaintext in bytes.
    #[n(1)]
    pub len: u32,
}

/// Sums over a manifest.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
#[cbor(array)]
pub struct Totals {
    /// Regular files, each hard link counted.
    #[n(0)]
    pub files: u64,
    /// Folders.
    #[n(1)]
    pub folders: u64,
    /// Symbolic links.
    #[n(2)]
    pub symlinks: u64,
    /// Bytes of file content, each inode once.
    #[n(3)]
    pub bytes: u64,
    /// Files that vanished or could not be read whole.
    #[n(4)]
    pub problems: u64,
    /// Sockets, devices and pipes that were skipped.
    #[n(5)]
    pub skipped: u64,
}

/// Statistics of a push: files by outcome, bytes by stage.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(array)]
pub struct PushStats {
    /// Files whose content was taken from the push before.
    #[n(0)]
    pub unchanged: u64,
    /// Files that had grown at their end: what was there is that of the push before, compared whole or by samples.
    #[n(1)]
    pub appended: u64,
    /// Files that were known, and were read whole.
    #[n(2)]
    pub whole: u64,
    /// Files that were not known.
    #[n(3)]
    pub new: u64,
    /// Files of the push before that are not there any more.
    #[n(4)]
    pub gone: u64,
    /// Files whose content was taken from a push that was cut short.
    #[n(5)]
    pub resumed: u64,
    /// Bytes of files that were read: new content, and old content that was checked.
    #[n(6)]
    pub bytes_read: u64,
    /// Bytes of files that were hashed.
    #[n(7)]
    pub bytes_hashed: u64,
    /// Bytes that were sent: compressed, with their frames.
    #[n(8)]
    pub bytes_sent: u64,
    /// Bytes that the repository grew by.
    #[n(9)]
    pub bytes_stored: u64,
    /// Reasons for which files took a slower way; at most [`MAX_FALLBACKS`] reasons.
    #[n(10)]
    #[cbor(decode_with = "crate::cbor::at_most::decode::<_, _, MAX_FALLBACKS>")]
    pub fallbacks: Vec<Fallback>,
    /// How far all files are of one moment. Pushes of earlier builds do not say.
    #[n(11)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment: Option<Moment>,
}

/// How far the files of a push are of one moment.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize,
)]
#[cbor(array)]
pub struct Moment {
    /// Milliseconds from the first file that was frozen to the last.
    #[n(0)]
    pub freeze_ms: u64,
    /// Files that had changed between the freeze and their reading: a later state of them was stored.
    #[n(1)]
    pub moved_on: u64,
    /// Files that were written to during each reading, and whose owner's log repairs that.
    #[n(2)]
    pub fuzzy: u64,
    /// Files that were written to during each reading, and are mixtures of their states.
    #[n(3)]
    pub torn: u64,
    /// Folders whose names changed again and again while they were frozen.
    #[n(4)]
    pub restless: u64,
}

impl Moment {
    /// True if the push stored each file in the state that it froze.
    pub fn is_one(&self) -> bool {
        self.moved_on == 0 && self.fuzzy == 0 && self.torn == 0 && self.restless == 0
    }
}

/// Why some files cost more than they should have.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(array)]
pub struct Fallback {
    /// Why, for people; at most [`MAX_FALLBACK_LEN`] bytes.
    #[n(0)]
    #[cbor(decode_with = "crate::cbor::short_text::decode::<_, MAX_FALLBACK_LEN>")]
    pub reason: String,
    /// How many files.
    #[n(1)]
    pub files: u64,
}

/// A file that the manifest should hold and does not.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Problem {
    /// Which.
    #[n(0)]
    pub path: EntryPath,
    /// Why, for people; at most [`MAX_PROBLEM_LEN`] bytes.
    #[n(1)]
    #[cbor(decode_with = "crate::cbor::short_text::decode::<_, MAX_PROBLEM_LEN>")]
    pub reason: String,
}

/// The files of one node, as a list of pages.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Manifest {
    /// Format version.
    #[n(0)]
    pub version: u16,
    /// Cluster, which is also the dedup domain.
    #[n(1)]
    pub cluster: ClusterName,
    /// Node.
    #[n(2)]
    pub node: NodeName,
    /// The folders that were pushed, in path order; at most [`MAX_ROOTS`].
    #[n(3)]
    #[cbor(decode_with = "crate::cbor::at_most::decode::<_, _, MAX_ROOTS>")]
    pub roots: Vec<EntryPath>,
    /// Pages in path order.
    #[n(4)]
    pub pages: Vec<PageRef>,
    /// Sums over the pages.
    #[n(5)]
    pub totals: Totals,
    /// The first [`MAX_PROBLEMS`] problems.
    #[n(6)]
    #[cbor(decode_with = "crate::cbor::at_most::decode::<_, _, MAX_PROBLEMS>")]
    pub problems: Vec<Problem>,
    /// Name and version of the program that pushed; at most [`MAX_LABEL_LEN`] bytes.
    #[n(7)]
    #[cbor(decode_with = "crate::cbor::short_text::decode::<_, MAX_LABEL_LEN>")]
    pub tool: String,
    /// Name of the machine that pushed; at most [`MAX_LABEL_LEN`] bytes.
    #[n(8)]
    #[cbor(decode_with = "crate::cbor::short_text::decode::<_, MAX_LABEL_LEN>")]
    pub host: String,
    /// Statistics of the push.
    #[n(9)]
    pub push: Option<PushStats>,
    /// Name of its series, if the push gave one; else its folders identify the series.
    #[n(10)]
    pub series: Option<SeriesName>,
    /// Labels and note of the push, if it gave any.
    #[n(11)]
    pub about: Option<About>,
    /// Kind of its roots; absent if they are folders and files of the node.
    #[n(12)]
    pub roots_are: Option<RootsAre>,
}

/// Kind of the roots of a manifest, if they are not paths on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum RootsAre {
    /// The only root is the name that a push gave to its input, or to the output of a command.
    #[n(0)]
    Stream,
}

/// Cuts `text` to at most `limit` bytes, between two characters.
fn shorten(text: &mut String, limit: usize) {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
}

impl Manifest {
    /// The same with each text cut to the length that [`decode`](Self::decode) takes.
    #[must_use]
    pub fn with_short_texts(mut self) -> Self {
        shorten(&mut self.tool, MAX_LABEL_LEN);
        shorten(&mut self.host, MAX_LABEL_LEN);
        for problem in &mut self.problems {
            shorten(&mut problem.reason, MAX_PROBLEM_LEN);
        }
        for fallback in self.push.iter_mut().flat_map(|push| &mut push.fallbacks) {
            shorten(&mut fallback.reason, MAX_FALLBACK_LEN);
        }
        self
    }

    /// Its CBOR.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// The manifest that `bytes` stand for.
    ///
    /// # Errors
    /// [`FormatError`]; an unknown version is an error, never a guess.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() > MAX_MANIFEST_LEN {
            let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
            return Err(FormatError::TooLong {
                what: "manifest",
                len: wide(bytes.len()),
                limit: wide(MAX_MANIFEST_LEN),
            });
        }
        let manifest: Self = cbor::decode("manifest", bytes)?;
        crate::object::check_version("manifest", manifest.version)?;
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(roots: usize, problems: usize) -> Manifest {
        let path = |n: usize| EntryPath::new(format!("r{n:06}").into_bytes()).unwrap();
        Manifest {
            version: crate::FORMAT_VERSION,
            cluster: "c".parse().unwrap(),
            node: "n".parse().unwrap(),
            roots: (0..roots).map(path).collect(),
            pages: vec![PageRef { id: ChunkId::from_bytes([1; 32]), len: 5 }],
            totals: Totals::default(),
            problems: (0..problems).map(|n| Problem { path: path(n), reason: "gone".to_owned() }).collect(),
            tool: "t".to_owned(),
            host: "h".to_owned(),
            push: None,
            series: None,
            about: None,
            roots_are: None,
        }
    }

    #[test]
    fn a_manifest_reads_back_up_to_its_limits() {
        for full in [manifest(0, 0), manifest(1, 1), manifest(MAX_ROOTS, MAX_PROBLEMS)] {
            assert_eq!(Manifest::decode(&full.encode()).unwrap(), full);
        }
    }

    #[test]
    fn a_manifest_keeps_what_its_push_did() {
        let fallback = Fallback { reason: "why".to_owned(), files: 3 };
        let push =
            PushStats { appended: 1, bytes_read: 1 << 40, fallbacks: vec![fallback], ..PushStats::default() };
        let moment = Some(Moment { freeze_ms: 7, moved_on: 1, fuzzy: 2, torn: 3, restless: 4 });
        for push in [PushStats { moment, ..push.clone() }, push] {
            let with = Manifest { push: Some(push), ..manifest(1, 0) };

            assert_eq!(Manifest::decode(&with.encode()).unwrap(), with);
        }
    }

    /// P4: long lists of short values would take many times their encoded length in memory.
    #[test]
    fn more_roots_problems_or_reasons_than_the_format_allows_are_refused() {
        let fallbacks = vec![Fallback { reason: String::new(), files: 1 }; MAX_FALLBACKS + 1];
        let push = Some(PushStats { fallbacks, ..PushStats::default() });
        let reasons = Manifest { push, ..manifest(0, 0) };
        for over in [manifest(MAX_ROOTS + 1, 0), manifest(0, MAX_PROBLEMS + 1), reasons] {
            assert!(matches!(Manifest::decode(&over.encode()), Err(FormatError::Malformed { .. })));
        }
    }

    /// A manifest whose texts have `more` bytes than the format allows.
    fn texts(more: usize) -> [Manifest; 4] {
        // Each character has two bytes.
        let text = |limit: usize| "é".repeat((limit + more) / 2);
        let fallback = Fallback { reason: text(MAX_FALLBACK_LEN), files: 1 };
        let push = Some(PushStats { fallbacks: vec![fallback], ..PushStats::default() });
        let path = EntryPath::new(b"r".to_vec()).unwrap();
        let problems = vec![Problem { path, reason: text(MAX_PROBLEM_LEN) }];
        [
            Manifest { push, ..manifest(0, 0) },
            Manifest { problems, ..manifest(0, 0) },
            Manifest { tool: text(MAX_LABEL_LEN), ..manifest(0, 0) },
            Manifest { host: text(MAX_LABEL_LEN), ..manifest(0, 0) },
        ]
    }

    /// P4: no text is longer than the format allows, and one that was made too long is cut.
    #[test]
    fn longer_texts_than_the_format_allows_are_refused_and_can_be_cut() {
        for (fits, over) in texts(0).into_iter().zip(texts(2)) {
            assert_eq!(Manifest::decode(&fits.encode()).unwrap(), fits);
            assert!(matches!(Manifest::decode(&over.encode()), Err(FormatError::Malformed { .. })));
            assert_eq!(over.with_short_texts(), fits);
        }
        let odd = Manifest { tool: format!("x{}", "é".repeat(MAX_LABEL_LEN)), ..manifest(0, 0) };
        assert_eq!(odd.with_short_texts().tool.len(), MAX_LABEL_LEN - 1, "between two characters");
    }

    /// P4: another version, a field we do not know and a cut are refused.
    #[test]
    fn what_is_no_manifest_of_this_version_is_refused() {
        let bytes = manifest(2, 2).encode();
        let newer = Manifest { version: 2, ..manifest(2, 2) }.encode();
        let mut longer = bytes.clone();
        longer[0] += 1;
        longer.extend_from_slice(&[9, 0]);

        assert!(matches!(Manifest::decode(&newer), Err(FormatError::Version { found: 2, .. })));
        assert!(matches!(Manifest::decode(&longer), Err(FormatError::Malformed { .. })));
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
    }
}
