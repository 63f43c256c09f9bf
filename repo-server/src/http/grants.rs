//! Reads of nodes: the pages that their own manifests name, and no others.
//!
//! A page holds names of files and ids of chunks. An id of a chunk cannot be guessed without its content, so a node
//! that reads only its own pages learns no id of a chunk that only others have.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use format_spec::key::BlobKind;
use format_spec::snapshot::Snapshot;
use format_spec::{ChunkId, ManifestId};

use crate::access::Principal;
use crate::error::ServerError;
use crate::server::Server;
use crate::snapshot::{named_pages, open_manifest};
use crate::sync::lock;

/// Manifests whose pages are remembered, each of at most 130,000 ids.
const REMEMBERED: usize = 8;

/// Ids of pages.
type Pages = Arc<HashSet<ChunkId>>;

/// The pages of the manifests that nodes read last.
#[derive(Debug, Default)]
pub(super) struct Grants(Mutex<VecDeque<(ManifestId, Pages)>>);

impl Grants {
    /// Refuses pages that the caller's `part` of a snapshot does not name, as if they were not there.
    ///
    /// # Errors
    /// [`ServerError::NoChunk`], and errors of reading a manifest.
    pub(super) async fn check(
        &self,
        server: &Arc<Server>,
        caller: &Principal,
        part: &Snapshot,
        ids: &[ChunkId],
    ) -> Result<(), ServerError> {
        if caller.scope().is_none() {
            return Ok(());
        }
        let mut asked = asked_pages(server, part, ids).await?;
        for share in &part.manifests {
            if asked.is_empty() {
                break;
            }
            let pages = self.pages(server, share.id).await?;
            asked.retain(|id| !pages.contains(id));
        }
        asked.first().map_or(Ok(()), |id| Err(ServerError::NoChunk(*id)))
    }

    async fn pages(&self, server: &Arc<Server>, id: ManifestId) -> Result<Pages, ServerError> {
        if let Some(pages) = self.remembered(id) {
            return Ok(pages);
        }
        let _turn = server.memory.decoding.acquire().await.expect("the semaphore is never closed");
        let (_, manifest) = open_manifest(&server.store, id).await?;
        let pages: Pages = Arc::new(named_pages(&manifest).into_keys().collect());
        let mut known = lock(&self.0);
        known.truncate(REMEMBERED - 1);
        known.push_front((id, Arc::clone(&pages)));
        Ok(pages)
    }

    fn remembered(&self, id: ManifestId) -> Option<Pages> {
        let known = lock(&self.0);
        known.iter().find(|(known, _)| *known == id).map(|(_, pages)| Arc::clone(pages))
    }
}

/// The pages among `ids`.
async fn asked_pages(
    server: &Arc<Server>,
    part: &Snapshot,
    ids: &[ChunkId],
) -> Result<Vec<ChunkId>, ServerError> {
    let (domain, ids) = (server.store.domain(&part.cluster), ids.to_vec());
    server
        .blocking(move |server| {
            let rows = server.store.chunk_rows_of(&domain, &ids)?;
            let is_page = |row: &Option<_>| row.as_ref().is_some_and(is_page);
            Ok(ids.into_iter().zip(rows).filter(|(_, row)| is_page(row)).map(|(id, _)| id).collect())
        })
        .await
}

fn is_page(row: &crate::rows::ChunkRow) -> bool {
    row.kind == BlobKind::Page
}
