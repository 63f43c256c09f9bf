//! Is a repository as it should be? Looks at the stores directly, and through a server as a client
//! would, and names whatever is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;

use format_spec::blob::Decompressor;
use format_spec::key::{BlobKind, SealKeys};
use format_spec::manifest::Manifest;
use format_spec::pack::{self, Directory, PackEntry};
use format_spec::page;
use format_spec::snapshot::Snapshot;
use format_spec::wire::VerifyLevel;
use format_spec::{ChunkId, SnapshotId};
use node_client::api::Asked;
use node_client::error::ClientError;
use repo_server::index::{Engine, Index, KeyRange, Table, open_existing};
use repo_server::rows::{ChunkRow, PackNumber, PackRow};
use repo_server::site::ObjectName;
use tests::world::objects;

use crate::process::{Process, Push, Stores, node};

/// Problems of the repository in `stores`, which `process` serves. `expected` are the snapshots that were
/// acknowledged; any other must be one of `possible`.
pub(crate) fn findings(
    stores: &Stores,
    process: &Process,
    expected: &[(SnapshotId, &Push)],
    possible: &[&Push],
) -> Vec<String> {
    let mut found = index_findings(stores, process);
    found.extend(served(process, expected, possible));
    found
}

/// The same as far as a client can tell.
pub(crate) fn served(process: &Process, expected: &[(SnapshotId, &Push)], possible: &[&Push]) -> Vec<String> {
    let mut found = Vec::new();
    match process.wait(process.api.verify(VerifyLevel::Read, |_| {})) {
        Ok(report) => found.extend(report.findings.iter().map(|found| format!("verify: {found:?}"))),
        Err(error) => found.push(format!("verify: {error}")),
    }
    let listed = match process.wait(process.api.snapshots(None)) {
        Ok(listed) => listed,
        Err(error) => return vec![format!("list: {error}")],
    };
    for (id, _) in expected.iter().filter(|(id, _)| !listed.iter().any(|info| info.id == *id)) {
        found.push(format!("snapshot {id} was acknowledged and is not listed"));
    }
    for info in &listed {
        let pushed = expected.iter().find(|(id, _)| *id == info.id).map(|(_, push)| *push);
        let candidates = pushed.map_or_else(|| possible.to_vec(), |push| vec![push]);
        match content(process, info.id) {
            Ok(content) if candidates.iter().any(|push| push.contents.concat() == content) => {}
            Ok(_) => found.push(format!("snapshot {} has other content than what was pushed", info.id)),
            Err(error) => found.push(format!("snapshot {}: {error}", info.id)),
        }
    }
    found
}

/// The content of a snapshot's one file, read and checked as a restore does.
pub(crate) fn content(process: &Process, snapshot: SnapshotId) -> Result<Vec<u8>, ClientError> {
    let manifest = process.wait(process.api.manifest(snapshot, &node()))?;
    let mut content = Vec::new();
    for page in &manifest.pages {
        let plain = blob(process, snapshot, BlobKind::Page, page.id)?;
        let records = page::decode(&plain).map_err(|source| damaged("a page", source))?;
        for id in page::references(&records) {
            content.extend(blob(process, snapshot, BlobKind::Chunk, id)?);
        }
    }
    Ok(content)
}

fn blob(
    process: &Process,
    snapshot: SnapshotId,
    kind: BlobKind,
    id: ChunkId,
) -> Result<Vec<u8>, ClientError> {
    let asked = Asked { id, max_len: format_spec::MAX_CHUNK_LEN };
    let frames = process.wait(process.api.read_blobs(snapshot, &[asked]))?;
    let frame = frames.first().expect("one id, one frame");
    let mut decompressor = Decompressor::new().expect("memory can be had");
    let plain = decompressor
        .decompress(frame.info.compression, &frame.payload, frame.info.plain_len)
        .map_err(|source| damaged("a blob", source))?;
    let domain = Stores::master().domain(&"c".parse().expect("a name"));
    if domain.id_of(kind, plain) != id {
        return Err(damaged("a blob", format_spec::FormatError::WrongChunk { expected: id }));
    }
    Ok(plain.to_vec())
}

fn damaged(what: &str, source: format_spec::FormatError) -> ClientError {
    ClientError::Format { what: what.to_owned(), source }
}

/// X7 and X8, from the rows and the objects themselves.
fn index_findings(stores: &Stores, process: &Process) -> Vec<String> {
    let keys = Stores::master().seal_keys(Stores::descriptor().generation);
    let mut found = Vec::new();
    let mut packs: BTreeMap<PackNumber, Directory> = BTreeMap::new();
    for (key, value) in rows(stores.index.as_ref(), Table::Pack) {
        let (Some(number), Some(row)) = (PackNumber::from_key(&key), PackRow::decode(&value)) else {
            found.push(format!("a row of a pack cannot be read: {key:?}"));
            continue;
        };
        match open_pack(stores, process, &keys, &row) {
            Ok(directory) => drop(packs.insert(number, directory)),
            Err(why) => found.push(format!("{}: {why}", row.id)),
        }
    }
    let chunks: BTreeMap<ChunkId, ChunkRow> = rows(stores.index.as_ref(), Table::Chunk)
        .into_iter()
        .filter_map(|(key, value)| {
            Some((ChunkId::from_bytes(key.try_into().ok()?), ChunkRow::decode(&value)?))
        })
        .collect();
    let counts = counts(process, &packs, &chunks);
    for (id, row) in &chunks {
        let entries = packs.get(&row.pack).map(|directory| directory.entries.as_slice()).unwrap_or_default();
        if !entries.iter().any(|entry| entry.id == *id && entry.range() == row.range()) {
            found.push(format!("the row of {id} names a place where it is not"));
        }
        let count = counts.get(id).copied().unwrap_or(0);
        if row.references != count {
            found.push(format!("{id} counts {} references and has {count}", row.references));
        }
    }
    for id in counts.keys().filter(|id| !chunks.contains_key(id)) {
        found.push(format!("{id} is referred to and has no row"));
    }
    found
}

/// Unused data in the data folder `data`, in which no server runs: objects on its site that no row names,
/// objects that are still to be deleted, and rows of unreferenced chunks.
pub(crate) fn leftovers(data: &Path) -> Vec<String> {
    let index = open_existing(Engine::Fjall, &data.join("index")).expect("a server made it, and has ended");
    let named = named_objects(index.as_ref());
    let areas = ["packs", "manifests", "snapshots"].into_iter();
    let on_site = areas.flat_map(|area| objects(data, area));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let leaked = on_site.filter(|path| !named.contains(&name(path)));
    let mut found: Vec<String> = leaked.map(|path| format!("no row names {}", path.display())).collect();
    for (key, _) in rows(index.as_ref(), Table::Doomed) {
        found.push(format!("still to be deleted: {}", String::from_utf8_lossy(&key)));
    }
    let idle = rows(index.as_ref(), Table::Chunk).into_iter();
    let idle = idle.filter(|(_, value)| ChunkRow::decode(value).is_none_or(|row| row.references == 0));
    found.extend(idle.map(|(key, _)| format!("nothing needs the row {key:02x?}")));
    found
}

/// The last parts of the names of all objects that rows name.
fn named_objects(index: &dyn Index) -> BTreeSet<String> {
    let packs = rows(index, Table::Pack).into_iter();
    let mut named: BTreeSet<String> =
        packs.filter_map(|(_, value)| Some(PackRow::decode(&value)?.id.to_hex())).collect();
    for (_, value) in rows(index, Table::Snapshot) {
        let Ok(snapshot) = Snapshot::decode(&value) else { continue };
        named.insert(snapshot.id.to_string());
        named.extend(snapshot.manifests.iter().map(|manifest| manifest.id.to_hex()));
    }
    named
}

fn open_pack(
    stores: &Stores,
    process: &Process,
    keys: &SealKeys,
    row: &PackRow,
) -> Result<Directory, String> {
    let hex = row.id.to_hex();
    let name = format!("packs/{}/{hex}", hex.get(..2).unwrap_or_default());
    let name = ObjectName::new(&name).expect("hex digits make a name");
    let bytes = process.wait(stores.site.get(&name)).map_err(|error| error.to_string())?;
    pack::open(keys, Stores::descriptor().repository, row.id, &bytes).map_err(|error| error.to_string())
}

/// How often each chunk is referred to by pages that have a row, and each page by manifests.
fn counts(
    process: &Process,
    packs: &BTreeMap<PackNumber, Directory>,
    rows: &BTreeMap<ChunkId, ChunkRow>,
) -> BTreeMap<ChunkId, u64> {
    let mut counts = BTreeMap::new();
    for (number, directory) in packs {
        let has_row = |entry: &&PackEntry| {
            rows.get(&entry.id).is_some_and(|row| row.pack == *number && row.range() == entry.range())
        };
        for id in directory.entries.iter().filter(has_row).flat_map(|entry| &entry.references) {
            *counts.entry(*id).or_default() += 1;
        }
    }
    let listed = process.wait(process.api.snapshots(None)).unwrap_or_default();
    for snapshot in listed {
        let manifest: Result<Manifest, _> = process.wait(process.api.manifest(snapshot.id, &node()));
        // One that cannot be read is found elsewhere.
        for page in manifest.iter().flat_map(|manifest| &manifest.pages) {
            *counts.entry(page.id).or_default() += 1;
        }
    }
    counts
}

pub(crate) fn rows(index: &dyn Index, table: Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let mut next = Some(KeyRange::all());
    while let Some(range) = next {
        let found = index.scan(table, &range, NonZeroUsize::MAX).expect("an index can be read");
        all.extend(found.rows.into_iter().map(|row| (row.key, row.value)));
        next = found.rest;
    }
    all
}
