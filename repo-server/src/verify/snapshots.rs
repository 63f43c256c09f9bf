//! Snapshots: their manifests open, their pages are there, and each chunk that a page needs is too.

use std::collections::HashSet;

use format_spec::blob::Decompressor;
use format_spec::key::BlobKind;
use format_spec::manifest::{Manifest, PageRef};
use format_spec::snapshot::{ManifestRef, Snapshot};
use format_spec::{ChunkId, FormatError, page};

use super::Check;
use crate::error::ServerError;
use crate::pack::{Blob, read_blobs};
use crate::repository::Domain;
use crate::site::SiteError;

/// Pages that are read at once: at most 1 MiB each.
const PAGES_AT_ONCE: usize = 32;

impl Check<'_> {
    /// Checks one snapshot, manifest by manifest.
    pub(super) async fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), ServerError> {
        self.report.snapshots += 1;
        for manifest in &snapshot.manifests {
            match crate::snapshot::open_manifest(&self.repository, manifest.id).await {
                Ok((_, opened)) => self.manifest(snapshot, manifest, &opened).await?,
                Err(ServerError::Damaged { source, .. }) => self.hurt(snapshot, manifest.id, source),
                Err(ServerError::Site(SiteError::NotFound { .. })) => {
                    self.hurt(snapshot, manifest.id, "is not on the site");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn hurt(&mut self, snapshot: &Snapshot, object: impl ToString, problem: impl ToString) {
        self.find(object, problem).snapshots.push(snapshot.id);
    }

    async fn manifest(
        &mut self,
        snapshot: &Snapshot,
        of: &ManifestRef,
        manifest: &Manifest,
    ) -> Result<(), ServerError> {
        if manifest.cluster != snapshot.cluster || manifest.node != of.node || manifest.totals != of.totals {
            self.hurt(snapshot, of.id, "does not belong to this snapshot");
        }
        let domain = self.repository.domain(&snapshot.cluster);
        for pages in manifest.pages.chunks(PAGES_AT_ONCE) {
            let present = self.present(snapshot, pages, BlobKind::Page).await?;
            match read_blobs(&self.repository, &domain, present.clone()).await {
                Ok(blobs) => self.pages(snapshot, &domain, blobs).await?,
                // One of them is bad: read them one by one to name it.
                Err(ServerError::Damaged { .. } | ServerError::Site(_)) => {
                    self.pages_one_by_one(snapshot, &domain, present).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Those of `pages` that the index has and nothing is known against.
    async fn present(
        &mut self,
        snapshot: &Snapshot,
        pages: &[PageRef],
        kind: BlobKind,
    ) -> Result<Vec<ChunkId>, ServerError> {
        let mut unique = HashSet::new();
        let ids: Vec<ChunkId> = pages.iter().map(|page| page.id).filter(|id| unique.insert(*id)).collect();
        self.look_up(snapshot, ids, kind).await
    }

    /// Those of `ids` that the index has as `kind`, and nothing is known against.
    async fn look_up(
        &mut self,
        snapshot: &Snapshot,
        ids: Vec<ChunkId>,
        kind: BlobKind,
    ) -> Result<Vec<ChunkId>, ServerError> {
        self.report.references += u64::try_from(ids.len()).unwrap_or(u64::MAX);
        let looked_up = self.repository.blocking(move |repository| {
            let rows = repository.chunk_rows(&ids)?;
            Ok(ids.into_iter().zip(rows).collect::<Vec<_>>())
        });
        let mut present = Vec::new();
        for (id, row) in looked_up.await? {
            match row {
                _ if self.damaged.contains(&id) => self.hurt(snapshot, id, "is damaged"),
                None => self.hurt(snapshot, id, "is not in the index"),
                Some(row) if row.kind != kind => self.hurt(snapshot, id, "is of another kind"),
                Some(row) if row.references == 0 => self.hurt(snapshot, id, "is in use but not counted"),
                Some(_) => present.push(id),
            }
        }
        Ok(present)
    }

    async fn pages_one_by_one(
        &mut self,
        snapshot: &Snapshot,
        domain: &std::sync::Arc<Domain>,
        ids: Vec<ChunkId>,
    ) -> Result<(), ServerError> {
        for id in ids {
            match read_blobs(&self.repository, domain, vec![id]).await {
                Ok(blobs) => self.pages(snapshot, domain, blobs).await?,
                Err(ServerError::Damaged { source, .. }) => self.hurt(snapshot, id, source),
                Err(ServerError::Site(error)) => self.hurt(snapshot, id, error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn pages(
        &mut self,
        snapshot: &Snapshot,
        domain: &std::sync::Arc<Domain>,
        blobs: Vec<Blob>,
    ) -> Result<(), ServerError> {
        for blob in blobs {
            self.report.pages += 1;
            match references(domain, &blob) {
                Ok(ids) => {
                    self.look_up(snapshot, ids, BlobKind::Chunk).await?;
                }
                Err(error) => self.hurt(snapshot, blob.info.id, error),
            }
        }
        Ok(())
    }
}

/// The chunks that a page refers to, after checking its id.
fn references(domain: &Domain, blob: &Blob) -> Result<Vec<ChunkId>, FormatError> {
    let no_memory = |_| FormatError::Malformed { what: "page", why: "no memory to decompress it".to_owned() };
    let mut decompressor = Decompressor::new().map_err(no_memory)?;
    let plain = decompressor.decompress(blob.info.compression, &blob.payload, blob.info.plain_len)?;
    if domain.key.id_of(BlobKind::Page, plain) != blob.info.id {
        return Err(FormatError::WrongChunk { expected: blob.info.id });
    }
    let records = page::decode(plain)?;
    let mut ids: Vec<ChunkId> = page::references(&records).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
