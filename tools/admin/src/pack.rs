//! `pack inspect`: what one file says about itself, without a server.
//!
//! Without a key it shows the owner of a pack, and compares its content with its name. With the master key it
//! lists the blobs, and opens each of them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use format_spec::blob::{BlobSealer, Compression, Decompressor};
use format_spec::key::{BlobKind, MasterKey};
use format_spec::pack::{self, Directory, MAX_PACK_LEN, Outside, PackEntry};
use format_spec::{ChunkId, ClusterName, FORMAT_VERSION, FormatError, PackId, RepositoryId};
use indicatif::{HumanBytes, HumanCount};
use node_client::error::ClientError;
use node_client::show::Show;
use serde::Serialize;

use crate::ask::Verdict;
use crate::error::AdminError;
use crate::show::table;

/// Fields of a pack that `inspect` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Inspected {
    file: String,
    pack: PackId,
    name: Name,
    bytes: u64,
    format_version: u16,
    repository: RepositoryId,
    generation: u32,
    footer_offset: u64,
    footer_bytes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<Content>,
}

/// Comparison of the file's name with the hash of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    /// It is.
    Fits,
    /// It is the name of another pack: the bytes have changed.
    Differs,
    /// It is no name of a pack, so it says nothing.
    Foreign,
}

/// Content of a pack.
#[derive(Debug, Serialize)]
struct Content {
    cluster: ClusterName,
    chunks: u64,
    pages: u64,
    plain_bytes: u64,
    stored_bytes: u64,
    ratio: f64,
    blobs: Vec<Blob>,
    damaged: Vec<Damaged>,
}

#[derive(Debug, Serialize)]
struct Blob {
    kind: &'static str,
    id: ChunkId,
    offset: u32,
    stored_bytes: u32,
    plain_bytes: u32,
    ratio: f64,
    compression: &'static str,
    references: usize,
}

#[derive(Debug, Serialize)]
struct Damaged {
    id: ChunkId,
    problem: String,
}

/// Looks into the pack in `file`; with the master key of `key_file` also at each of its blobs.
///
/// # Errors
/// [`AdminError::Pack`] if it is no pack or its directory is damaged, [`AdminError::Key`] and
/// [`AdminError::OtherKey`] for a key that does not do, [`AdminError::Read`].
pub(crate) fn inspect(file: &Path, key_file: Option<&Path>) -> Result<Inspected, AdminError> {
    let bytes = read_pack(file)?;
    let refused = |source| AdminError::Pack { path: file.to_owned(), source };
    let outside = pack::look(&bytes).map_err(refused)?;
    let name = check_name(file, outside.id);
    let open = |key_file: &Path| {
        let master = read_key(key_file)?;
        let decompressor = Decompressor::new().map_err(ClientError::Compression)?;
        // Under a fitting name the bytes are those that were written, so it is the key that is not.
        content(&master, &outside, &bytes, decompressor).map_err(|source| match source {
            FormatError::Unauthentic { .. } if name == Name::Fits => {
                AdminError::OtherKey { path: key_file.to_owned() }
            }
            damage => refused(damage),
        })
    };
    Ok(Inspected {
        file: file.display().to_string(),
        pack: outside.id,
        name,
        bytes: bytes.len().try_into().unwrap_or(u64::MAX),
        format_version: FORMAT_VERSION,
        repository: outside.header.repository,
        generation: outside.header.generation,
        footer_offset: outside.trailer.footer_offset,
        footer_bytes: outside.trailer.footer_len,
        directory: key_file.map(open).transpose()?,
    })
}

fn read_key(path: &Path) -> Result<MasterKey, AdminError> {
    let text = std::fs::read(path).map_err(|source| AdminError::Read { path: path.to_owned(), source })?;
    let key = str::from_utf8(&text).ok().and_then(MasterKey::parse);
    key.ok_or_else(|| AdminError::Key { path: path.to_owned() })
}

/// The file's bytes; of one that is too long for a pack only a little more than a pack may have.
fn read_pack(path: &Path) -> Result<Vec<u8>, AdminError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PACK_LEN + 1).read_to_end(&mut bytes))
        .map_err(|source| AdminError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

fn check_name(file: &Path, id: PackId) -> Name {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match format!("pack:{name}").parse::<PackId>() {
        Ok(named) if named == id => Name::Fits,
        Ok(_) => Name::Differs,
        Err(_) => Name::Foreign,
    }
}

/// The directory, and what is wrong with the blobs in it.
fn content(
    master: &MasterKey,
    outside: &Outside,
    bytes: &[u8],
    mut decompressor: Decompressor,
) -> Result<Content, FormatError> {
    let header = &outside.header;
    let keys = master.seal_keys(header.generation);
    let directory = pack::open(&keys, header.repository, outside.id, bytes)?;
    let domain = master.domain(&directory.domain);
    let sealer = BlobSealer::new(keys, header.repository, directory.domain.clone());
    let mut damaged = Vec::new();
    for entry in &directory.entries {
        let range = entry.range();
        let place = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
        let blob = place.and_then(|(start, end)| bytes.get(start..end));
        let blob = blob.expect("the directory's layout was checked against the pack's length");
        if let Err(problem) = pack::check_blob(&sealer, &domain, &mut decompressor, entry, blob) {
            damaged.push(Damaged { id: entry.id, problem: problem.to_string() });
        }
    }
    Ok(Content::new(directory, damaged))
}

impl Content {
    fn new(directory: Directory, damaged: Vec<Damaged>) -> Self {
        let entries = &directory.entries;
        let count = |kind| entries.iter().map(|entry| u64::from(entry.kind == kind)).sum();
        let plain_bytes = entries.iter().map(|entry| u64::from(entry.plain_len)).sum();
        let stored_bytes = entries.iter().map(|entry| u64::from(entry.stored_len)).sum();
        Self {
            chunks: count(BlobKind::Chunk),
            pages: count(BlobKind::Page),
            plain_bytes,
            stored_bytes,
            ratio: ratio(plain_bytes, stored_bytes),
            blobs: entries.iter().map(Blob::new).collect(),
            damaged,
            cluster: directory.domain,
        }
    }
}

impl Blob {
    fn new(entry: &PackEntry) -> Self {
        Self {
            kind: match entry.kind {
                BlobKind::Chunk => "chunk",
                BlobKind::Page => "page",
            },
            id: entry.id,
            offset: entry.offset,
            stored_bytes: entry.stored_len,
            plain_bytes: entry.plain_len,
            ratio: ratio(entry.plain_len.into(), entry.stored_len.into()),
            compression: match entry.compression {
                Compression::Raw => "raw",
                Compression::Zstd => "zstd",
            },
            references: entry.references.len(),
        }
    }
}

/// Bytes before for each byte after, to two places.
#[expect(clippy::as_conversions, reason = "for people: lengths of packs are exact in a double")]
fn ratio(plain: u64, stored: u64) -> f64 {
    if stored == 0 { 1.0 } else { (plain as f64 / stored as f64 * 100.0).round() / 100.0 }
}

impl Inspected {
    pub(crate) fn verdict(&self) -> Verdict {
        let damaged = self.directory.as_ref().is_some_and(|content| !content.damaged.is_empty());
        if damaged || self.name == Name::Differs { Verdict::Damaged } else { Verdict::Sound }
    }
}

impl Show for Inspected {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = match self.name {
            Name::Fits => "matches: it is the hash of the content",
            Name::Differs => "DIFFERS: the content does not have this hash",
            Name::Foreign => "is not the name of a pack, so it was not checked",
        };
        let (bytes, footer) = (HumanBytes(self.bytes), HumanBytes(self.footer_bytes.into()));
        let mut rows = vec![
            ["pack", &self.pack.to_string()].map(str::to_owned),
            ["file name", name].map(str::to_owned),
            ["length", &format!("{bytes} ({})", self.bytes)].map(str::to_owned),
            ["format version", &self.format_version.to_string()].map(str::to_owned),
            ["repository", &self.repository.to_string()].map(str::to_owned),
            ["key generation", &self.generation.to_string()].map(str::to_owned),
            ["footer", &format!("{footer} at {}", self.footer_offset)].map(str::to_owned),
        ];
        match &self.directory {
            Some(content) => {
                rows.extend(content.summary());
                table(out, &rows)?;
                content.list(out)
            }
            None => {
                rows.push(["content", "encrypted: give --key-file to list it"].map(str::to_owned));
                table(out, &rows)
            }
        }
    }

    fn is_news(&self) -> bool {
        !self.verdict().is_sound()
    }
}

impl Content {
    fn summary(&self) -> [[String; 2]; 3] {
        let (chunks, pages) = (HumanCount(self.chunks), HumanCount(self.pages));
        let (plain, stored) = (HumanBytes(self.plain_bytes), HumanBytes(self.stored_bytes));
        [
            ["cluster".to_owned(), self.cluster.to_string()],
            ["content".to_owned(), format!("{chunks} chunks, {pages} pages")],
            ["ratio".to_owned(), format!("{:.2} ({plain} in {stored})", self.ratio)],
        ]
    }

    fn list(&self, out: &mut dyn Write) -> io::Result<()> {
        let head = ["KIND", "ID", "OFFSET", "STORED", "PLAIN", "RATIO", "COMPRESSION", "REFERENCES"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.blobs.iter().map(|blob| {
            let numbers = [blob.offset, blob.stored_bytes, blob.plain_bytes].map(|number| number.to_string());
            let [offset, stored, plain] = numbers;
            let ratio = format!("{:.2}", blob.ratio);
            let (kind, compression) = (blob.kind.to_owned(), blob.compression.to_owned());
            [
                kind,
                blob.id.to_string(),
                offset,
                stored,
                plain,
                ratio,
                compression,
                blob.references.to_string(),
            ]
        }));
        table(out, &rows)?;
        for damaged in &self.damaged {
            writeln!(out, "DAMAGED {}: {}", damaged.id, damaged.problem)?;
        }
        Ok(())
    }
}
