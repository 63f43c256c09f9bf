//! What a run would do, and what holds the rest back. Changes nothing.

use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::key::BlobKind;
use format_spec::snapshot::Snapshot;
use format_spec::wire::{Amount, Pinning, Waiting};

use super::repack::thin_packs;
use super::sweep::decode_item;
use super::{Next, Run, delete};
use crate::error::ServerError;
use crate::index::row::{
    ChunkRow, DoomedKey, DoomedKind, DoomedRow, Epoch, IdleKey, IdleKind, PackNumber, PackRow,
};
use crate::index::{KeyRange, Table};
use crate::pack;
use crate::repository::Repository;
use crate::snapshot::{self, Freed};
use crate::time::{later, rfc3339};

/// An idle row, since when, and which.
type Idle = (Epoch, ChunkId, ChunkRow);

impl Run<'_> {
    /// Fills the report with what a run at this moment would do.
    pub(super) async fn plan(&mut self) -> Result<(), ServerError> {
        let due: Vec<_> = self.due_snapshots().await?.into_iter().map(|(snapshot, _)| snapshot).collect();
        self.report.purged = due.iter().map(|snapshot| snapshot.id).collect();
        let freed = self.plan_rows(&due).await?;
        self.report.pages = freed.pages;
        self.report.chunks = freed.chunks;
        self.plan_deletes().await?;
        for object in due.iter().flat_map(snapshot::objects) {
            self.plan_delete(&object, DoomedRow::NOW);
        }
        self.plan_packs(freed).await?;
        self.list_waiting_snapshots().await?;
        self.list_pinned().await
    }

    /// Which rows would go. What snapshots leave behind in a run is idle since its epoch: any open session
    /// holds it.
    async fn plan_rows(&mut self, due: &[Snapshot]) -> Result<Freed, ServerError> {
        let idle = self.idle_rows().await?;
        let Some(start) = self.repository.sessions.oldest_start() else {
            let idle: Vec<_> = idle.into_iter().map(|(_, id, row)| (id, row)).collect();
            return snapshot::freed_with_idle(&self.repository, &due.iter().collect::<Vec<_>>(), &idle).await;
        };
        let mut freed = Freed::default();
        for (_, _, row) in idle.iter().filter(|(since, _, _)| *since < start) {
            freed.add(row);
        }
        Ok(freed)
    }

    /// Which packs nothing would be left of, and which would be repacked.
    async fn plan_packs(&mut self, freed: Freed) -> Result<(), ServerError> {
        let look = move |repository: &Arc<Repository>| {
            let mut dead = Vec::new();
            for (number, gone) in &freed.by_pack {
                let row = repository.find_pack_row(*number)?;
                dead.extend(row.filter(|row| row.live.less(gone).blobs == 0));
            }
            Ok((dead, thin_packs(repository, &freed.by_pack)?))
        };
        let (dead, thin) = self.repository.blocking(look).await?;
        for row in dead {
            self.report.dead_packs.add(row.len);
            self.plan_delete_of_pack(&row);
        }
        for thin in thin.into_values().flatten() {
            if self.may_copy(&thin) == Next::Stop {
                return Ok(());
            }
            self.report.repacked.add(thin.row.len);
            self.report.copied_bytes += thin.row.live.stored_bytes;
            self.plan_delete_of_pack(&thin.row);
        }
        Ok(())
    }

    fn plan_delete_of_pack(&mut self, row: &PackRow) {
        let key = DoomedKey { kind: DoomedKind::Pack, name: pack::object_name(&row.id) };
        let upkeep = &self.repository.parts.upkeep;
        let due_ms = later(self.repository.parts.clock.unix_ms(), upkeep.gc.delete_delay);
        self.plan_delete(&key, DoomedRow { due_ms, bytes: row.len });
    }

    /// Adds an object to those that would be deleted, or to those that wait.
    fn plan_delete(&mut self, key: &DoomedKey, doomed: DoomedRow) {
        if self.is_due(key, doomed) {
            self.report.deleted.add(doomed.bytes);
        }
    }

    /// Which objects would be deleted, and which wait.
    async fn plan_deletes(&mut self) -> Result<(), ServerError> {
        let rows = self.repository.blocking(|repository| {
            let mut rows = Vec::new();
            repository.for_each_row(Table::Doomed, &KeyRange::all(), |key, value| {
                rows.push(crate::index::Row { key: key.to_vec(), value: value.to_vec() });
                Ok(())
            })?;
            Ok(rows)
        });
        for row in rows.await? {
            let (key, doomed) = delete::decode(&row)?;
            if !self.repository.in_flight.contains(&key) {
                self.plan_delete(&key, doomed);
            }
        }
        Ok(())
    }

    /// Forgotten snapshots whose delay is not over.
    async fn list_waiting_snapshots(&mut self) -> Result<(), ServerError> {
        let marks = self.repository.blocking(|repository| snapshot::marks(repository)).await?;
        let purged = &self.report.purged;
        let waiting = marks.into_iter().filter(|(id, _)| !purged.contains(id)).filter_map(|(id, mark)| {
            let until = rfc3339(mark.tombstone?.until_ms);
            Some(Waiting { object: format!("snapshot {id}"), bytes: 0, until })
        });
        let mut waiting: Vec<Waiting> = waiting.collect();
        waiting.sort_by(|a, b| a.object.cmp(&b.object));
        self.report.waiting.splice(0..0, waiting);
        Ok(())
    }

    /// What open sessions hold back: each all that is idle since its start or later.
    pub(super) async fn list_pinned(&mut self) -> Result<(), ServerError> {
        let sessions = self.repository.sessions.rows();
        if sessions.is_empty() {
            return Ok(());
        }
        let idle = self.idle_rows().await?;
        let pinning = |(session, row): (_, crate::session::SessionRow)| {
            let mut holds = Amount::default();
            for (_, _, held) in idle.iter().filter(|(since, _, _)| *since >= row.start) {
                holds.add(held.stored_len.into());
            }
            Pinning { session, cluster: row.cluster, node: row.node, holds }
        };
        self.report.pinned = sessions.into_iter().map(pinning).collect();
        Ok(())
    }

    /// Every idle row that the queue knows of, once.
    async fn idle_rows(&mut self) -> Result<Vec<Idle>, ServerError> {
        let mut idle = Vec::new();
        for kind in [BlobKind::Page, BlobKind::Chunk] {
            for run in [IdleKind::Packs(kind), IdleKind::Rows(kind)] {
                let items = self.repository.blocking(move |repository| items_of(repository, run)).await?;
                for item in items {
                    idle.extend(self.idle_rows_of(item).await?);
                }
            }
        }
        // A row that became idle in the epoch of its pack is found by two items.
        idle.sort_unstable_by_key(|(_, id, _)| *id);
        idle.dedup_by_key(|(_, id, _)| *id);
        Ok(idle)
    }

    async fn idle_rows_of(&mut self, item: IdleKey) -> Result<Vec<Idle>, ServerError> {
        let ids = match item {
            IdleKey::Row { id, .. } => vec![id],
            IdleKey::Pack { number, .. } => self.ids_of(number).await?,
        };
        let since = item.since();
        let look_up = move |repository: &Arc<Repository>| {
            let rows = repository.chunk_rows(&ids)?;
            let idle = ids.into_iter().zip(rows).filter_map(|(id, row)| {
                row.filter(|row| row.is_idle() && row.idle_since == since).map(|row| (since, id, row))
            });
            Ok(idle.collect())
        };
        self.repository.blocking(look_up).await
    }

    async fn ids_of(&mut self, number: PackNumber) -> Result<Vec<ChunkId>, ServerError> {
        let directory = self.directory(number).await?.flatten();
        let entries = directory.into_iter().flat_map(|directory| directory.entries);
        Ok(entries.map(|entry| entry.id).collect())
    }
}

fn items_of(repository: &Repository, run: IdleKind) -> Result<Vec<IdleKey>, ServerError> {
    let mut items = Vec::new();
    repository.for_each_row(Table::Idle, &KeyRange::prefix(&[run.tag()]), |key, _| {
        items.push(decode_item(key)?);
        Ok(())
    })?;
    Ok(items)
}
