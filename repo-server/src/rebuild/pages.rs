//! Pages with missing chunks: their rows are deleted, and the references of the other pages are counted
//! again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use format_spec::key::BlobKind;
use format_spec::pack::Directory;
use format_spec::{ChunkId, PackId};

use super::fill::{BY_PAGE, IN_FLIGHT, IfEmpty, PackFound, Rebuild};
use crate::catalog::fill;
use crate::checkpoint;
use crate::error::ServerError;
use crate::index::{Batch, KeyRange, Table};
use crate::pack::{read_directory, unreadable};
use crate::rows::{ChunkRow, PackNumber};
use crate::site::Area;
use crate::site::Listed;
use crate::site::layout::checkpoint_named;
use crate::store::{read_ahead, wait};

/// Packs of pages whose ends cannot be read, and why.
type Unread = BTreeMap<PackId, Headless>;

struct Headless {
    number: PackNumber,
    len: u64,
    problem: String,
}

impl Rebuild {
    /// Deletes the rows of pages that refer to chunks in no pack, and recounts the references of the other
    /// pages. Reads the directories of all packs of pages once more. Where a directory is damaged by now, a
    /// checkpoint may have it; pages with unknown references are deleted.
    pub(super) fn drop_broken_pages(&mut self) -> Result<u64, ServerError> {
        let of_pages = |(number, pack): (PackNumber, &PackFound)| {
            (pack.kind == BlobKind::Page).then_some((number, pack.id, pack.len))
        };
        let of_pages: Vec<_> = (0..).map(PackNumber).zip(&self.packs).filter_map(of_pages).collect();
        let store = Arc::clone(&self.store);
        let read = |(number, id, len)| {
            let store = Arc::clone(&store);
            async move { (number, id, len, read_directory(&store, &id, len).await) }
        };
        let (mut dropped, mut damaged, mut gone) = (0, Unread::new(), Unread::new());
        for answer in read_ahead(of_pages, IN_FLIGHT, read) {
            let (number, id, len, directory) = answer?;
            match directory {
                Ok(directory) => dropped += self.drop_broken_of(number, &directory)?,
                Err(error) => {
                    let is_damaged = matches!(error, ServerError::Damaged { .. });
                    let problem = unreadable(&error).ok_or(error)?;
                    let unread = if is_damaged { &mut damaged } else { &mut gone };
                    unread.insert(id, Headless { number, len, problem });
                }
            }
        }
        dropped += self.drop_by_checkpoints(&mut damaged)?;
        gone.append(&mut damaged);
        Ok(dropped + self.drop_all_of(gone)?)
    }

    /// The same for packs whose ends are damaged and that checkpoints cover: takes them off `damaged`.
    fn drop_by_checkpoints(&mut self, damaged: &mut Unread) -> Result<u64, ServerError> {
        let mut dropped = 0;
        if damaged.is_empty() {
            return Ok(dropped);
        }
        for Listed { name, .. } in self.list(Area::Heads)? {
            let Some(id) = checkpoint_named(&name) else { continue };
            let checkpoint = match wait(checkpoint::read(&self.store, id)) {
                Ok(checkpoint) => checkpoint,
                // It was noted when packs were read.
                Err(error) if unreadable(&error).is_some() => continue,
                Err(error) => return Err(error),
            };
            for pack in checkpoint.packs {
                if damaged.get(&pack.id).is_none_or(|headless| headless.len != pack.len) {
                    continue;
                }
                let Some(Headless { number, problem, .. }) = damaged.remove(&pack.id) else { continue };
                let problem = format!("its content is known from a checkpoint only: {problem}");
                self.report.find(pack.id, problem, Vec::new());
                dropped += self.drop_broken_of(number, &pack.directory)?;
            }
        }
        Ok(dropped)
    }

    fn drop_broken_of(&mut self, number: PackNumber, directory: &Directory) -> Result<u64, ServerError> {
        let (mut batch, mut dropped) = (Batch::new(), 0);
        let rows = self.known(&directory.entries)?;
        for (entry, row) in directory.entries.iter().zip(rows) {
            let is_here = |row: &ChunkRow| row.pack == number && row.range() == entry.range();
            let Some(row) = row.filter(is_here) else { continue };
            if self.is_whole(&entry.references)? {
                for reference in &entry.references {
                    self.references.add(*reference.as_bytes(), BY_PAGE)?;
                }
            } else {
                self.drop_page(&entry.id, &row, &mut batch)?;
                dropped += 1;
            }
        }
        self.commit(&mut batch)?;
        Ok(dropped)
    }

    fn is_whole(&self, references: &[ChunkId]) -> Result<bool, ServerError> {
        let rows = self.store.chunk_rows(references)?;
        Ok(rows.iter().all(|row| row.is_some_and(|row| row.kind == BlobKind::Chunk)))
    }

    /// Deletes the rows of all pages in packs whose references are unknown.
    fn drop_all_of(&mut self, unread: Unread) -> Result<u64, ServerError> {
        let (mut batch, mut dropped) = (Batch::new(), 0);
        if unread.is_empty() {
            return Ok(dropped);
        }
        let packs: HashSet<PackNumber> = unread.values().map(|headless| headless.number).collect();
        let store = Arc::clone(&self.store);
        store.for_each_row(Table::Chunk, &KeyRange::all(), |key, value| {
            let id = key.try_into().ok().map(ChunkId::from_bytes);
            let wrong = || ServerError::Row { object: "a chunk".to_owned() };
            let (id, row) = id.zip(ChunkRow::decode(value)).ok_or_else(wrong)?;
            if packs.contains(&row.pack) {
                self.drop_page(&id, &row, &mut batch)?;
                dropped += 1;
            }
            self.commit_if_heavy(&mut batch)
        })?;
        self.commit(&mut batch)?;
        for (id, Headless { problem, .. }) in unread {
            let problem =
                format!("the references of its pages are unknown, so the pages are unusable: {problem}");
            self.report.find(id, problem, Vec::new());
        }
        Ok(dropped)
    }

    /// Takes out the row of a page, and lets its pack be.
    fn drop_page(&mut self, id: &ChunkId, row: &ChunkRow, batch: &mut Batch) -> Result<(), ServerError> {
        fill::no_chunk(batch, id);
        self.pack_at(row.pack)?.if_empty = IfEmpty::MissesChunks;
        self.take_out(row)
    }
}
