//! Verdicts of the index on the pages and chunks that a manifest needs, and their effect on its files.

use std::collections::{BTreeSet, HashMap};

use format_spec::ChunkId;
use format_spec::assemble::Depth;
use format_spec::key::BlobKind;
use format_spec::page::{self, Record};
use format_spec::wire::FindingKind;

use super::State;
use super::findings::{Cause, Problem};
use crate::defects::blobs;
use crate::error::ServerError;
use crate::rows::{ChunkRow, Health};
use crate::store::Store;

/// Known state of a chunk or page that is needed.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict {
    /// Why the file cannot be restored.
    pub(super) file: Option<Cause>,
    /// Another problem.
    pub(super) snapshot: Option<Cause>,
}

/// Known state of all chunks that a page needs.
#[derive(Default)]
pub(super) struct Judged {
    chunks: HashMap<ChunkId, (Option<Cause>, Option<ChunkRow>)>,
    /// Problems that do not prevent the restore of any file.
    pub(super) around: BTreeSet<Cause>,
}

impl Judged {
    /// Looks up all chunks that the records of a page name.
    pub(super) fn look_up(store: &Store, state: &mut State, records: &[Record]) -> Result<Self, ServerError> {
        let ids: BTreeSet<ChunkId> = page::references(records).collect();
        state.report.references += u64::try_from(ids.len()).unwrap_or(u64::MAX);
        let mut judged = Self { chunks: HashMap::with_capacity(ids.len()), around: BTreeSet::new() };
        for (id, row) in ids.iter().zip(store.chunk_rows(&ids)?) {
            let Verdict { file, snapshot } = judge(store, state, BlobKind::Chunk, id, row)?;
            judged.around.extend(snapshot);
            judged.chunks.insert(*id, (file, row));
        }
        Ok(judged)
    }

    /// Why a file that needs `len` bytes of this chunk cannot be restored.
    pub(super) fn cause(&self, depth: Depth, id: &ChunkId, len: u32) -> Option<Cause> {
        let (cause, row) = self.chunks.get(id)?;
        cause.clone().or_else(|| other_length(depth, id, len, *row))
    }
}

/// Verdict of the index and the packs on a page or chunk that is needed.
pub(super) fn judge(
    store: &Store,
    state: &State,
    kind: BlobKind,
    id: &ChunkId,
    row: Option<ChunkRow>,
) -> Result<Verdict, ServerError> {
    let index = |what| Some(Cause::New(Problem::new(FindingKind::Index, id, what)));
    let Some(row) = row else {
        return Ok(Verdict { file: index("is missing from the index"), snapshot: None });
    };
    let snapshot = match row.references {
        0 => index("is referenced but not counted"),
        _ => state.known.around(&row),
    };
    let file = match state.known.against(id, &row) {
        _ if row.kind != kind => index("is of another kind"),
        None if row.health == Health::Damaged => {
            let problem = blobs::problem(store, id)?.unwrap_or_default();
            let what = format!("is known to be damaged: {problem}");
            Some(Cause::New(Problem::new(FindingKind::Corrupt, id, what)))
        }
        known => known,
    };
    Ok(Verdict { file, snapshot })
}

/// A restore takes a page or chunk only with the length that it was told.
pub(super) fn other_length(depth: Depth, id: &ChunkId, len: u32, row: Option<ChunkRow>) -> Option<Cause> {
    let row = row.filter(|row| depth == Depth::Content && row.plain_len != len)?;
    let what = format!("has {} bytes, but {len} where it is referenced", row.plain_len);
    Some(Cause::New(Problem::new(FindingKind::Corrupt, id, what)))
}
