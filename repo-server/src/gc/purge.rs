//! Forgotten snapshots whose delay is over.

use format_spec::snapshot::Snapshot;
use format_spec::wire::Delays;

use super::{Phase, Run};
use crate::catalog::ledger::Counts;
use crate::defects::objects;
use crate::error::ServerError;
use crate::index::{IndexError, Precondition, Table};
use crate::pack;
use crate::rows::{DoomedRow, MarkRow};
use crate::snapshot;
use crate::start::compare;
use crate::store::wait;

impl Run {
    /// Purges what is due.
    pub(super) fn purge(&mut self) -> Result<(), ServerError> {
        for (snapshot, mark) in self.due_snapshots()? {
            self.progress
                .phase(Phase::Purge.name(), u64::try_from(self.report.purged.len()).unwrap_or(u64::MAX));
            match self.purge_one(&snapshot, &mark) {
                Ok(()) => self.report.purged.push(snapshot.id),
                // It was undeleted a moment ago.
                Err(ServerError::Index(IndexError::Precondition { .. })) => {}
                Err(
                    error @ (ServerError::Damaged { .. }
                    | ServerError::Lost { .. }
                    | ServerError::Site(_)
                    | ServerError::Index(IndexError::TooLarge { .. })),
                ) => {
                    self.problem(snapshot.id, &error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The deleted snapshots that may be purged in this run.
    pub(super) fn due_snapshots(&self) -> Result<Vec<(Snapshot, MarkRow)>, ServerError> {
        let (delays, now) = (self.request.delays, self.now_ms);
        let is_due = |mark: &MarkRow| {
            let tombstone = mark.tombstone.as_ref();
            tombstone.is_some_and(|tombstone| tombstone.until_ms <= now || delays == Delays::Skip)
        };
        let marks = snapshot::marks(&self.store)?.into_iter().filter(|(_, mark)| is_due(mark));
        let mut due: Vec<_> = marks
            .map(|(id, mark)| Ok((snapshot::get(&self.store, id)?, mark)))
            .collect::<Result<_, ServerError>>()?;
        due.sort_by_key(|(snapshot, _)| snapshot.id);
        Ok(due)
    }

    /// Takes a snapshot out for good, unless its mark has changed: one batch.
    ///
    /// Pages of a lost manifest stay counted, which only costs space: an audit finds them.
    fn purge_one(&mut self, snapshot: &Snapshot, mark: &MarkRow) -> Result<(), ServerError> {
        let mut pages = Counts::new();
        for of in &snapshot.manifests {
            match wait(snapshot::open_manifest(&self.store, of.id)) {
                Ok((_, manifest)) => {
                    for (id, count) in snapshot::named_pages(&manifest) {
                        *pages.entry(id).or_default() += count;
                    }
                }
                Err(error) => {
                    let lost = pack::unreadable(&error).ok_or(error)?;
                    let what = format!(
                        "manifest {} of snapshot {} {lost}: its pages are kept until `astacus-admin verify --level refs --repair`",
                        of.id, snapshot.id
                    );
                    tracing::warn!(what, "a snapshot is purged, but its pages are kept");
                    self.report.problems.push(what);
                }
            }
        }
        self.store.account(|ledger| {
            let batch = ledger.batch();
            batch.require(Table::Mark, *snapshot.id.as_bytes(), Precondition::Equals(mark.encode()));
            batch.delete(Table::Mark, *snapshot.id.as_bytes());
            batch.delete(Table::Snapshot, *snapshot.id.as_bytes());
            objects::forget_hurt(batch, snapshot.id);
            compare::note_purged(batch, snapshot.id);
            for manifest in &snapshot.manifests {
                batch.delete(Table::Manifest, *manifest.id.as_bytes());
            }
            ledger.let_go_of(objects::Object::Snapshot(snapshot.id));
            for manifest in &snapshot.manifests {
                ledger.let_go_of(objects::Object::Manifest(manifest.id));
            }
            for key in snapshot::objects(snapshot) {
                ledger.doom(&key, DoomedRow::NOW);
            }
            ledger.uncount(&pages)
        })
    }
}
