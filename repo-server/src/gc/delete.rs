//! Doomed objects go from the site, by name.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use format_spec::wire::{Delays, Waiting};

use super::{Phase, Run};
use crate::error::ServerError;
use crate::index::row::{DoomedKey, DoomedKind, DoomedRow};
use crate::index::{Batch, KeyRange, Row, Table};
use crate::repository::Repository;
use crate::rules::Rule;
use crate::time::rfc3339;

/// Rows that are read at once.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(1000).unwrap();
/// Between two looks at whether commits have landed.
const COMMIT_POLL: Duration = Duration::from_millis(10);
/// Objects that a report lists.
const LISTED: usize = 1000;

impl Run<'_> {
    /// Deletes what is due: snapshots first, then manifests, then packs (G5). If something of one kind could
    /// not be deleted, nothing of the later kinds is.
    pub(super) async fn delete(&mut self) -> Result<(), ServerError> {
        if self.now_ms > 0 {
            // What this run has doomed without a delay is due by now.
            self.now_ms = self.repository.parts.clock.unix_ms();
        }
        for kind in DoomedKind::ALL {
            let before = self.report.problems.len();
            self.delete_all(kind).await?;
            let keep_order = self.repository.rules.keep(Rule::SnapshotsBeforePacks);
            if kind == DoomedKind::Snapshot && keep_order && !self.wait_for_commits().await? {
                return Ok(());
            }
            if keep_order && self.report.problems.len() > before {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn delete_all(&mut self, kind: DoomedKind) -> Result<(), ServerError> {
        let mut next = Some(KeyRange::prefix(&[kind.tag()]));
        while let Some(range) = next {
            let scan = move |repository: &Arc<Repository>| {
                Ok(repository.parts.index.scan(Table::Doomed, &range, AT_ONCE)?)
            };
            let found = self.repository.blocking(scan).await?;
            self.delete_some(found.rows).await?;
            next = found.rest;
        }
        Ok(())
    }

    /// Waits until the commits that are under way have landed or failed, and deletes what failed ones left. A
    /// snapshot that is on its way found its pages before the packs of this run were doomed; one that comes
    /// later finds them after, in other packs. Answers whether none is left.
    async fn wait_for_commits(&mut self) -> Result<bool, ServerError> {
        let under_way = |repository: &Arc<Repository>| {
            let mut keys = Vec::new();
            repository.for_each_row(
                Table::Doomed,
                &KeyRange::prefix(&[DoomedKind::Snapshot.tag()]),
                |key, _| {
                    keys.extend(DoomedKey::decode(key));
                    Ok(())
                },
            )?;
            Ok(keys)
        };
        let mut keys: Vec<DoomedKey> = self.repository.blocking(under_way).await?;
        keys.retain(|key| self.repository.in_flight.contains(key));
        if keys.is_empty() {
            return Ok(true);
        }
        let patience = self.repository.parts.upkeep.gc.commit_patience;
        for _ in 0..patience.as_millis() / COMMIT_POLL.as_millis() {
            tokio::time::sleep(COMMIT_POLL).await;
            if !keys.iter().any(|key| self.repository.in_flight.contains(key)) {
                self.delete_all(DoomedKind::Snapshot).await?;
                return Ok(true);
            }
        }
        let why = "a commit takes long: the next run deletes manifests and packs";
        self.report.stopped.get_or_insert(why.to_owned());
        Ok(false)
    }

    async fn delete_some(&mut self, rows: Vec<Row>) -> Result<(), ServerError> {
        let mut deleted = Vec::new();
        for row in rows {
            let (key, doomed) = decode(&row)?;
            if !self.is_due(&key, doomed) || self.is_on_its_way(&key).await? {
                continue;
            }
            match self.repository.parts.site.delete(&key.name).await {
                Ok(()) => {
                    self.report.deleted.add(doomed.bytes);
                    (self.progress)(Phase::Delete, self.report.deleted.count);
                    deleted.push(key);
                }
                Err(error) => {
                    let error = self.repository.site_error(error);
                    self.repository.check_running()?;
                    self.problem(&key.name, &error);
                }
            }
        }
        self.repository.blocking(move |repository| take_off(repository, &deleted)).await
    }

    /// Whether an object may go in this run; lists it if not.
    pub(super) fn is_due(&mut self, key: &DoomedKey, doomed: DoomedRow) -> bool {
        if doomed.due_ms <= self.now_ms || self.request.delays == Delays::Skip {
            return true;
        }
        self.report.waiting_total.add(doomed.bytes);
        if self.report.waiting.len() < LISTED {
            let (object, until) = (key.name.as_str().to_owned(), rfc3339(doomed.due_ms));
            self.report.waiting.push(Waiting { object, bytes: doomed.bytes, until });
        }
        false
    }

    /// Whether an object is on its way to the site, or has landed and counts (G6). First the flights, then
    /// the row: a flight lands only after the row is gone, and a name flies only once.
    async fn is_on_its_way(&self, key: &DoomedKey) -> Result<bool, ServerError> {
        if self.repository.in_flight.contains(key) {
            return Ok(true);
        }
        let key = key.encode();
        let look = move |repository: &Arc<Repository>| {
            let again = repository.rules.keep(Rule::LookAgainBeforeDelete);
            Ok(again && repository.parts.index.get(Table::Doomed, &key)?.is_none())
        };
        self.repository.blocking(look).await
    }
}

/// The object of a row, and from when on it may go.
pub(super) fn decode(row: &Row) -> Result<(DoomedKey, DoomedRow), ServerError> {
    let decoded = DoomedKey::decode(&row.key).zip(DoomedRow::decode(&row.value));
    decoded.ok_or_else(|| ServerError::Row { object: "a doomed object".to_owned() })
}

fn take_off(repository: &Repository, deleted: &[DoomedKey]) -> Result<(), ServerError> {
    if deleted.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    for key in deleted {
        batch.delete(Table::Doomed, key.encode());
    }
    repository.commit(batch)
}
