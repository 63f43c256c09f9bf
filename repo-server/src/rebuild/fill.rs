//! The steps of a rebuild, over an empty index.

use std::collections::HashMap;
use std::sync::Arc;

use format_spec::{ChunkId, ClusterName, PackId};

use super::RebuildReport;
use crate::catalog::{fill, quarantine};
use crate::error::ServerError;
use crate::index::Batch;
use crate::rows::{ChunkRow, Live, Totals};
use crate::session;
use crate::sort::Sorter;
use crate::store::Store;

use format_spec::key::BlobKind;

/// Weight from which on a batch is committed.
pub(super) const BATCH_WEIGHT: usize = 8 << 20;

/// Directories that are read at once.
pub(super) const IN_FLIGHT: usize = 8;

/// Under which heading an id is counted: by pages, and by manifests.
pub(super) const HEADINGS: usize = 2;
pub(super) const BY_PAGE: [u64; HEADINGS] = [1, 0];
pub(super) const BY_MANIFEST: [u64; HEADINGS] = [0, 1];

/// A pack on the site. Its number is its place.
pub(super) struct PackFound {
    pub(super) id: PackId,
    pub(super) len: u64,
    pub(super) kind: BlobKind,
    pub(super) domain: Arc<ClusterName>,
    pub(super) blob_bytes: u64,
    pub(super) live: Live,
    pub(super) if_empty: IfEmpty,
}

/// Handling of a pack of which nothing was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfEmpty {
    /// Everything in it is elsewhere too: it is doomed.
    Dooms,
    /// It holds pages that would be whole if lost chunks turned up: it is left alone.
    MissesChunks,
    /// It holds blobs of which no copy could be read: it is kept.
    UnreadableCopies,
}

impl IfEmpty {
    /// Note about a pack that is not doomed.
    pub(super) fn why_it_stays(self) -> Option<&'static str> {
        match self {
            Self::Dooms => None,
            Self::MissesChunks => Some("holds only pages with missing chunks"),
            Self::UnreadableCopies => Some("holds blobs without a readable copy"),
        }
    }
}

/// A rebuild in progress.
pub(super) struct Rebuild {
    pub(super) store: Arc<Store>,
    pub(super) report: RebuildReport,
    pub(super) packs: Vec<PackFound>,
    /// Rows that are not in the index yet.
    pub(super) pending: HashMap<ChunkId, ChunkRow>,
    /// References of pages.
    pub(super) references: Sorter<HEADINGS>,
}

/// Fills the empty index of `repository` from its site. Nothing may run beside it. Blocks, within the runtime.
///
/// # Errors
/// The site could not be listed or read, or the index failed. The index is of no use then.
pub(crate) fn fill_from_site(store: &Arc<Store>) -> Result<RebuildReport, ServerError> {
    let mut rebuild = Rebuild {
        store: Arc::clone(store),
        report: RebuildReport::new(store.id()),
        packs: Vec::new(),
        pending: HashMap::new(),
        references: Sorter::new(&store.parts.scratch),
    };
    rebuild.read_packs()?;
    rebuild.read_snapshots()?;
    rebuild.read_protections()?;
    rebuild.count()?;
    rebuild.write_packs()?;
    rebuild.look_for_strangers()?;
    quarantine::count_anew(store)?;
    rebuild.finish()
}

impl Rebuild {
    /// Commits `batch` if it has become heavy, and continues with an empty one.
    pub(super) fn commit_if_heavy(&self, batch: &mut Batch) -> Result<(), ServerError> {
        if batch.weight() >= BATCH_WEIGHT { self.commit(batch) } else { Ok(()) }
    }

    /// Commits `batch`, and continues with an empty one.
    pub(super) fn commit(&self, batch: &mut Batch) -> Result<(), ServerError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.store.commit(std::mem::take(batch))
    }

    /// The last batch: from here on it is an index as any other.
    fn finish(self) -> Result<RebuildReport, ServerError> {
        let report = self.report;
        let totals = Totals {
            next_pack: u32::try_from(self.packs.len()).map_err(|_| ServerError::Bug("too many packs"))?,
            packs: u32::try_from(report.packs).map_err(|_| ServerError::Bug("too many packs"))?,
            chunks: report.chunks,
            stored_bytes: report.stored_bytes,
        };
        let mut batch = Batch::new();
        fill::totals(&mut batch, &totals);
        session::tokens_after(&mut batch, self.store.parts.clock.unix_ms());
        self.store.commit(batch)?;
        Ok(report)
    }
}
