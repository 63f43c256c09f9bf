//! Names in packs of pages and in manifests.

use std::sync::Arc;

use format_spec::key::BlobKind;
use format_spec::pack::{Directory, PackEntry};
use format_spec::wire::AuditState;

use super::{Audit, Gravity, HEADINGS, Heading, PackSeen};
use crate::error::ServerError;
use crate::index::{KeyRange, Table};
use crate::pack::{directory_of, unreadable};
use crate::rows::{ChunkRow, Live, PackNumber, PackRow};
use crate::snapshot::for_each_manifest;
use crate::sort::Sorter;
use crate::store::read_ahead;

/// Directories that are on their way at once: each takes a few megabytes at most.
const IN_FLIGHT: usize = 8;

/// True if a row equals the entry in the directory of its pack.
pub(super) fn is_in_place(row: &ChunkRow, entry: &PackEntry) -> bool {
    let place = (row.offset, row.stored_len, row.plain_len);
    let sealed_as = (row.kind, row.compression);
    place == (entry.offset, entry.stored_len, entry.plain_len) && sealed_as == (entry.kind, entry.compression)
}

impl Audit<'_> {
    /// Takes down all packs, and counts what pages in them refer to.
    pub(super) fn read_packs(&mut self, sorter: &mut Sorter<HEADINGS>) -> Result<(), ServerError> {
        let store = Arc::clone(&self.store);
        let mut of_pages: Vec<(usize, PackNumber, PackRow)> = Vec::new();
        let mut found = super::places::Sums::default();
        store.for_each_row(Table::Pack, &KeyRange::all(), |key, value| {
            let (number, row) = PackNumber::from_key(key)
                .zip(PackRow::decode(value))
                .ok_or_else(|| ServerError::Row { object: "a pack".to_owned() })?;
            if row.kind == BlobKind::Page {
                of_pages.push((self.packs.len(), number, row.clone()));
            }
            found.add(number, &row, &self.before);
            self.packs.push(PackSeen { number, live: row.live, counted: Live::default(), is_read: true });
            Ok(())
        })?;
        self.packs_of_totals(&found)?;
        let read = |(at, number, row): (usize, PackNumber, PackRow)| {
            let store = Arc::clone(&store);
            async move { (at, row.id, directory_of(&store, number, &row).await) }
        };
        for answer in read_ahead(of_pages, IN_FLIGHT, read) {
            let (at, id, directory) = answer?;
            match directory {
                Ok(directory) => self.directory(at, &directory, sorter)?,
                Err(error) => {
                    let problem = unreadable(&error).ok_or(error)?;
                    self.packs.get_mut(at).expect("it was taken down").is_read = false;
                    self.find(id, problem, Gravity::Unreadable, AuditState::Open);
                }
            }
        }
        self.report.packs = u64::try_from(self.packs.len()).unwrap_or(u64::MAX);
        self.step();
        Ok(())
    }

    /// Counts what the pages in a pack refer to: those whose rows name this pack, and no others.
    fn directory(
        &mut self,
        at: usize,
        directory: &Directory,
        sorter: &mut Sorter<HEADINGS>,
    ) -> Result<(), ServerError> {
        let number = self.packs.get(at).expect("it was taken down").number;
        let rows = self.store.chunk_rows(directory.entries.iter().map(|entry| &entry.id))?;
        for (entry, row) in directory.entries.iter().zip(rows) {
            let Some(row) = row.filter(|row| row.pack == number) else { continue };
            if is_in_place(&row, entry) {
                sorter.add(*entry.id.as_bytes(), Heading::InPlace.once())?;
            }
            for id in &entry.references {
                self.report.references += 1;
                sorter.add(*id.as_bytes(), Heading::ByPage.once())?;
            }
        }
        Ok(())
    }

    /// Counts the pages that manifests name.
    pub(super) fn read_manifests(&mut self, sorter: &mut Sorter<HEADINGS>) -> Result<(), ServerError> {
        let store = Arc::clone(&self.store);
        for_each_manifest(&store, |snapshot, of, manifest| {
            match manifest {
                Ok(manifest) => {
                    for page in &manifest.pages {
                        self.report.references += 1;
                        sorter.add(*page.id.as_bytes(), Heading::ByManifest.once())?;
                    }
                }
                Err(problem) => {
                    let problem = format!("{problem}; snapshot {} needs it", snapshot.id);
                    self.find(of.id, problem, Gravity::Unreadable, AuditState::Open);
                }
            }
            self.report.manifests += 1;
            Ok(())
        })
    }
}
