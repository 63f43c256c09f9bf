//! Packs: on the site, of the right length, and every byte as it was written.

use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use format_spec::blob::Decompressor;
use format_spec::wire::VerifyLevel;
use format_spec::{ChunkId, FormatError, pack};

use super::Check;
use crate::error::ServerError;
use crate::index::row::{PackNumber, PackRow};
use crate::index::{KeyRange, Table};
use crate::pack::object_name;
use crate::repository::Repository;
use crate::site::SiteError;

/// What a read of one pack found.
#[derive(Default)]
struct Damage {
    pack: Option<FormatError>,
    blobs: Vec<(ChunkId, String)>,
}

impl Check<'_> {
    /// Checks every pack that the index names.
    pub(super) async fn packs(&mut self, level: VerifyLevel, total: u64) -> Result<(), ServerError> {
        let mut next = Some(KeyRange::all());
        while let Some(range) = next {
            let limit = NonZeroUsize::new(1000).expect("not zero");
            let scan = move |repository: &Arc<Repository>| {
                Ok(repository.parts.index.scan(Table::Pack, &range, limit)?)
            };
            let found = self.repository.blocking(scan).await?;
            for row in found.rows {
                let number = PackNumber::from_key(&row.key).zip(PackRow::decode(&row.value));
                let (number, pack) =
                    number.ok_or_else(|| ServerError::Row { object: "a pack".to_owned() })?;
                (self.progress)(self.report.packs, total);
                self.pack(level, number, &pack).await?;
                self.report.packs += 1;
            }
            next = found.rest;
        }
        Ok(())
    }

    async fn pack(
        &mut self,
        level: VerifyLevel,
        number: PackNumber,
        pack: &PackRow,
    ) -> Result<(), ServerError> {
        let name = object_name(&pack.id);
        let checked = match level {
            VerifyLevel::Read => match self.repository.parts.site.get(&name).await {
                Ok(bytes) => return self.read_pack(number, pack, bytes).await,
                Err(error) => Err(error),
            },
            VerifyLevel::Index | VerifyLevel::Exists => self.repository.parts.site.len(&name).await,
        };
        match checked {
            Ok(len) if len == pack.len => {}
            Ok(len) => {
                self.lost_pack(number, pack, &format!("has {len} bytes instead of {}", pack.len)).await?
            }
            Err(SiteError::NotFound { .. }) => self.lost_pack(number, pack, "is not on the site").await?,
            Err(error) => return Err(self.repository.site_error(error)),
        }
        Ok(())
    }

    async fn read_pack(
        &mut self,
        number: PackNumber,
        pack: &PackRow,
        bytes: Bytes,
    ) -> Result<(), ServerError> {
        self.report.bytes_read += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let row = pack.clone();
        let damage = self
            .repository
            .blocking(move |repository| Ok(examine(repository, number, &row, &bytes)))
            .await??;
        if let Some(error) = damage.pack {
            self.lost_pack(number, pack, &error.to_string()).await?;
        }
        for (id, problem) in damage.blobs {
            self.damaged.insert(id);
            self.find(id, format!("{problem} in {}", pack.id));
        }
        Ok(())
    }

    /// A pack whose bytes cannot be trusted: all its blobs count as damaged.
    async fn lost_pack(
        &mut self,
        number: PackNumber,
        pack: &PackRow,
        problem: &str,
    ) -> Result<(), ServerError> {
        self.find(pack.id, problem);
        let lost = self.repository.blocking(move |repository| blobs_of(repository, number)).await?;
        self.damaged.extend(lost);
        Ok(())
    }
}

/// Checks name, footer, and each blob down to its id and its row.
fn examine(
    repository: &Arc<Repository>,
    number: PackNumber,
    row: &PackRow,
    bytes: &[u8],
) -> Result<Damage, ServerError> {
    let mut damage = Damage::default();
    let directory = match pack::open(&repository.keys, repository.id(), row.id, bytes) {
        Ok(directory) => directory,
        Err(error) => return Ok(Damage { pack: Some(error), ..damage }),
    };
    let domain = repository.domain(&directory.domain);
    let mut decompressor =
        Decompressor::new().map_err(|_| ServerError::Bug("no memory for a decompressor"))?;
    let rows = repository.chunk_rows(directory.entries.iter().map(|entry| &entry.id))?;
    for (entry, row) in directory.entries.iter().zip(rows) {
        let range = usize::try_from(entry.range().start).ok().zip(usize::try_from(entry.range().end).ok());
        let blob = range.and_then(|(start, end)| bytes.get(start..end)).unwrap_or_default();
        if let Err(error) = pack::check_blob(&domain.sealer, &domain.key, &mut decompressor, entry, blob) {
            damage.blobs.push((entry.id, error.to_string()));
        }
        let named_here = row.is_some_and(|row| row.pack == number && row.range() == entry.range());
        if !named_here {
            damage.blobs.push((entry.id, "the index names another place for it than its place".to_owned()));
        }
    }
    Ok(damage)
}

/// The ids that the index places in a pack. Reads the whole table: only for a pack that is lost.
fn blobs_of(repository: &Repository, number: PackNumber) -> Result<Vec<ChunkId>, ServerError> {
    let mut ids = Vec::new();
    let mut next = Some(KeyRange::all());
    while let Some(range) = next {
        let found = repository.parts.index.scan(Table::Chunk, &range, NonZeroUsize::MAX)?;
        for row in found.rows {
            let chunk = crate::index::row::ChunkRow::decode(&row.value);
            if chunk.is_some_and(|chunk| chunk.pack == number)
                && let Ok(id) = row.key.try_into()
            {
                ids.push(ChunkId::from_bytes(id));
            }
        }
        next = found.rest;
    }
    Ok(ids)
}
