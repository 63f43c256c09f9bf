//! Deletes doomed objects from the site, by name.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use format_spec::wire::{Delays, Waiting};

use super::{Phase, Run};
use crate::catalog::take_back;
use crate::error::ServerError;
use crate::index::{Batch, KeyRange, Row, Table};
use crate::rows::{DoomedKey, DoomedKind, DoomedRow};
use crate::rules::Rule;
use crate::server::Server;
use crate::store::{Store, read_ahead, wait};
use crate::time::rfc3339;

/// Rows that are read at once.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(1000).unwrap();
/// Objects that are looked at once more together, before they are deleted.
pub(super) const TOGETHER: usize = 64;
/// Deletes that are under way at once: a site that is far away takes its time for each.
const BESIDE: usize = 16;
/// Between two looks at whether commits have landed.
const COMMIT_POLL: Duration = Duration::from_millis(10);
/// Objects that a report lists.
const LISTED: usize = 1000;

impl Run {
    /// Deletes what is due: snapshots first, then manifests, then packs (G5). If something of one kind could
    /// not be deleted, nothing of the later kinds is.
    pub(super) fn delete(&mut self) -> Result<(), ServerError> {
        if self.now_ms > 0 {
            // Objects that this run has doomed without a delay are due by now.
            self.now_ms = self.store.parts.clock.unix_ms();
        }
        for kind in DoomedKind::ALL {
            let before = self.report.problems.len();
            self.delete_all(kind)?;
            let keep_order = self.store.rules.keep(Rule::SnapshotsBeforePacks);
            if kind == DoomedKind::Snapshot && keep_order && !self.wait_for_commits()? {
                return Ok(());
            }
            if keep_order && self.report.problems.len() > before {
                return Ok(());
            }
        }
        Ok(())
    }

    fn delete_all(&mut self, kind: DoomedKind) -> Result<(), ServerError> {
        let mut next = Some(KeyRange::prefix(&[kind.tag()]));
        while let Some(range) = next {
            let found = self.store.parts.index.scan(Table::Doomed, &range, AT_ONCE)?;
            self.delete_some(found.rows)?;
            next = found.rest;
        }
        Ok(())
    }

    /// Waits until the commits that are under way have landed or failed, and deletes what failed ones left. A
    /// snapshot that is on its way found its pages before the packs of this run were doomed; one that comes
    /// later finds them after, in other packs. Answers whether none is left.
    fn wait_for_commits(&mut self) -> Result<bool, ServerError> {
        let mut keys: Vec<DoomedKey> = Vec::new();
        let range = KeyRange::prefix(&[DoomedKind::Snapshot.tag()]);
        self.store.for_each_row(Table::Doomed, &range, |key, _| {
            keys.extend(DoomedKey::decode(key));
            Ok(())
        })?;
        keys.retain(|key| self.server.in_flight.contains(key));
        if keys.is_empty() {
            return Ok(true);
        }
        let patience = self.store.parts.upkeep.gc.commit_patience;
        for _ in 0..patience.as_millis() / COMMIT_POLL.as_millis() {
            let pause = async {
                tokio::time::sleep(COMMIT_POLL).await;
                Ok(())
            };
            wait(pause)?;
            if !keys.iter().any(|key| self.server.in_flight.contains(key)) {
                self.delete_all(DoomedKind::Snapshot)?;
                return Ok(true);
            }
        }
        let why = "a commit is still running: the next run deletes manifests and packs";
        self.report.stopped.get_or_insert(why.to_owned());
        Ok(false)
    }

    fn delete_some(&mut self, rows: Vec<Row>) -> Result<(), ServerError> {
        let mut due = Vec::new();
        for row in rows {
            let (key, doomed) = decode(&row)?;
            if self.is_due(&key, doomed) {
                due.push((key, doomed));
            }
        }
        let mut deleted = Vec::new();
        for some in due.chunks(TOGETHER) {
            self.store.check_running()?;
            deleted.extend(self.delete_garbage(some.to_vec())?);
        }
        take_off(&self.store, &deleted)
    }

    /// Deletes those of some doomed objects that are still garbage. Returns the deleted ones.
    fn delete_garbage(&mut self, due: Vec<(DoomedKey, DoomedRow)>) -> Result<Vec<DoomedKey>, ServerError> {
        let garbage = still_doomed(&self.server, due)?;
        let site = &Arc::clone(&self.store.parts.site);
        let delete = |(key, doomed): (DoomedKey, DoomedRow)| async move {
            let done = site.delete(&key.name).await;
            (key, doomed, done)
        };
        let mut deleted = Vec::new();
        for answer in read_ahead(garbage, BESIDE, delete) {
            let (key, doomed, done) = answer?;
            match done {
                Ok(()) => {
                    self.report.deleted.add(doomed.bytes);
                    self.progress.phase(Phase::Delete.name(), self.report.deleted.count);
                    deleted.push(key);
                }
                Err(error) => {
                    let error = self.store.site_error(error);
                    self.store.check_running()?;
                    self.problem(&key.name, &error);
                }
            }
        }
        Ok(deleted)
    }

    /// True if an object may be deleted in this run; lists it if not.
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
}

/// Those of `due` that are neither on their way to the site, nor have landed and count (G6). First the flights,
/// then the rows: a flight lands only after the row is gone, and a name flies only once.
fn still_doomed(
    server: &Server,
    mut due: Vec<(DoomedKey, DoomedRow)>,
) -> Result<Vec<(DoomedKey, DoomedRow)>, ServerError> {
    due.retain(|(key, _)| !server.in_flight.contains(key));
    if !server.store.rules.keep(Rule::LookAgainBeforeDelete) {
        return Ok(due);
    }
    let keys: Vec<Vec<u8>> = due.iter().map(|(key, _)| key.encode()).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let rows = server.store.parts.index.multi_get(Table::Doomed, &keys)?;
    Ok(due.into_iter().zip(rows).filter(|(_, row)| row.is_some()).map(|(due, _)| due).collect())
}

/// The object of a row, and the time from which it may be deleted.
pub(super) fn decode(row: &Row) -> Result<(DoomedKey, DoomedRow), ServerError> {
    let decoded = DoomedKey::decode(&row.key).zip(DoomedRow::decode(&row.value));
    decoded.ok_or_else(|| ServerError::Row { object: "a doomed object".to_owned() })
}

fn take_off(store: &Store, deleted: &[DoomedKey]) -> Result<(), ServerError> {
    if deleted.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    take_back(&mut batch, deleted);
    store.commit(batch)
}
