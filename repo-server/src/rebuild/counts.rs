//! Counts, and what is lost.

use format_spec::ChunkId;
use format_spec::key::BlobKind;

use super::fill::{BATCH_WEIGHT, HEADINGS, Rebuild};
use crate::audit::{Joined, join};
use crate::catalog::{fill, lost_pages};
use crate::error::ServerError;
use crate::index::Batch;
use crate::sort::Sorter;

/// Ids that were named and have no row.
#[derive(Default)]
struct Unknown {
    chunks: u64,
    first: Option<ChunkId>,
}

impl Rebuild {
    /// Sets all counts. If chunks are lost, so are the pages that refer to them: then all is counted once
    /// more without those.
    pub(super) fn count(&mut self) -> Result<(), ServerError> {
        let mut sorter = self.take_references();
        let lost = self.count_manifests(&mut sorter)?;
        let unknown = self.set_counts(sorter)?;
        let Some(first) = unknown.first else {
            self.take_over(lost);
            return Ok(());
        };
        let dropped = self.drop_broken_pages()?;
        let problem = format!(
            "{} chunks that pages refer to are in no pack; {dropped} pages are unusable without them",
            unknown.chunks
        );
        self.report.find(first, problem, Vec::new());
        let mut sorter = self.take_references();
        let lost = self.count_manifests(&mut sorter)?;
        self.take_over(lost);
        match self.set_counts(sorter)?.first {
            None => Ok(()),
            Some(_) => Err(ServerError::Bug("a page without its chunks was not dropped")),
        }
    }

    fn take_references(&mut self) -> Sorter<HEADINGS> {
        let empty = Sorter::new(&self.store.parts.scratch);
        std::mem::replace(&mut self.references, empty)
    }

    /// Writes each count that is not what was counted, and what is owed to pages without rows. Answers which
    /// chunks have no rows.
    fn set_counts(&self, sorter: Sorter<HEADINGS>) -> Result<Unknown, ServerError> {
        let (mut unknown, mut batch) = (Unknown::default(), Batch::new());
        let store = &self.store;
        join(store, sorter.finish()?, |group: &[Joined<HEADINGS>]| {
            for Joined { id, row, counts: [by_pages, by_manifests] } in group {
                let of_kind = |kind| row.filter(|row| row.kind == kind);
                if *by_pages > 0 && of_kind(BlobKind::Chunk).is_none() {
                    unknown.chunks += 1;
                    unknown.first.get_or_insert(*id);
                }
                let Some(mut row) = *row else {
                    lost_pages::set(&mut batch, id, *by_manifests);
                    continue;
                };
                let counted = if row.kind == BlobKind::Chunk { *by_pages } else { *by_manifests };
                if row.references != counted {
                    row.references = counted;
                    fill::chunk(&mut batch, id, &row);
                }
            }
            if batch.weight() < BATCH_WEIGHT { Ok(()) } else { store.commit(std::mem::take(&mut batch)) }
        })?;
        self.commit(&mut batch)?;
        Ok(unknown)
    }
}
