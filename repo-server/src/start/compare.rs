//! The site as a witness: an index that is older than the site is found before anything is taken by it.
//!
//! An index can lose what it had acknowledged without a word: somebody puts an old copy of a data folder back, or a
//! bit of the engine's journal flips and the engine cuts it there. Rows of snapshots are missing then, and counts with
//! them, and what these snapshots need looks like garbage. The site remembers: a snapshot's object is there
//! before its commit is answered, and until after its purge. While the index is behind, nothing is forgotten,
//! collected or pushed; a rebuild makes a new one that knows everything again.
//!
//! # Why no commit and no purge is taken for a loss
//!
//! The name of a snapshot is doomed, durably, before its object is put. One batch adds its row and removes
//! the doom; one batch deletes the row and dooms the name again; the doom is removed only after the object is
//! deleted. So at each moment at which the object is on the site, the name has a row or is doomed. The reads
//! come one after the other, in this order:
//!
//! 1. The site is listed. What is put later is not looked at.
//! 2. Doomed names are read. One that was listed and is not doomed now has a row by now.
//! 3. Rows are read. Only a purge deletes rows, and the caller holds the upkeep lease, so none is deleted meanwhile;
//!    one that was added since is seen. If rows were read before doomed names, a commit that lands in between
//!    would have neither.
//!
//! Objects in flight need not be checked: an object in transfer is doomed until it lands.
//!
//! # The last commit
//!
//! The loss of the very last batch looks as if the process had died before it: the snapshot is doomed, and nothing else
//! is wrong. Such a commit is brought to its end here, whichever of the two it was (`super::finish`).
//!
//! # What it cannot see
//!
//! Changes that leave no trace in a snapshot are not detected: a lost forget, undelete or protection, or a
//! run of the collector after the last commit. After a lost run, rows name packs that the collector has
//! repacked and deleted since; a check of the packs finds that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use format_spec::{SessionId, SnapshotId};

use super::finish::{Finish, finish};
use crate::error::{Chain, ServerError};
use crate::health::alarm::{self, AlarmCode};
use crate::health::gate::REBUILD;
use crate::index::{Batch, KeyRange, Table};
use crate::lease::{Kind, Lease, Upkeep};
use crate::pack;
use crate::rows::Meta;
use crate::rows::{DoomedKey, DoomedKind, DoomedRow};
use crate::rules::Rule;
use crate::server::Server;
use crate::site::layout::{snapshot_named, snapshot_object};
use crate::site::{Area, ObjectName};
use crate::snapshot;
use crate::store::wait;

/// Work of [`settle_once`], for a caller that is refused meanwhile.
const COMPLETION: Kind = Kind("the completion of commits");

/// Names that are looked up at once.
const AT_ONCE: usize = 1000;

/// Rows of the meta table, without a value: snapshots that were purged.
const PURGED_PREFIX: &[u8] = Meta::Purged.bytes();

/// Log message about a snapshot that is listed again.
const FINISHED: &str =
    "completed an interrupted commit: the server died during it, or the index lost its last change";

/// Snapshots on the site that the index has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Behind {
    /// How many objects have neither a row nor are doomed.
    pub(crate) count: usize,
    /// One of them that opens.
    pub(crate) such_as: SnapshotId,
}

impl Behind {
    /// The problem, for people.
    pub(crate) fn problem(&self) -> String {
        let Self { count, such_as } = self;
        format!(
            "{count} acknowledged snapshots are on the site but not in the index, such as {such_as}: the index is older than the site. Pushes and deletions are blocked until the index is rebuilt: {REBUILD}"
        )
    }
}

/// Compares the site with the index, and raises the alarm or clears it. The caller holds the upkeep lease, so no
/// snapshot is purged and nothing deleted meanwhile; commits continue.
///
/// # Errors
/// The site could not be listed, or the index not be read or written: nothing is known, and nothing should be deleted.
pub(crate) async fn look(
    server: &Arc<Server>,
    _lease: &Lease<Upkeep>,
) -> Result<Option<Behind>, ServerError> {
    server.waiting(|server| compare_and_tell(server).map(|(behind, _)| behind)).await
}

/// Like [`look`], and completes interrupted commits.
///
/// # Errors
/// The errors of [`look`]; nothing may be deleted, and no session may end, as long as a commit could not be
/// examined.
pub(crate) async fn settle(
    server: &Arc<Server>,
    _lease: &Lease<Upkeep>,
) -> Result<Option<Behind>, ServerError> {
    server.waiting(settle_and_tell).await
}

fn settle_and_tell(server: &Arc<Server>) -> Result<Option<Behind>, ServerError> {
    let settled = settle_now(server);
    let told = match &settled {
        Ok(_) => alarm::clear(&server.store, AlarmCode::NotSettled),
        Err(ServerError::CallerLeft) => Ok(()),
        Err(error) => alarm::raise(&server.store, AlarmCode::NotSettled, &not_settled(error)),
    };
    if let Err(error) = told {
        tracing::warn!(error = %Chain(&error), "the alarm `not_settled` could not be raised or cleared");
    }
    settled
}

fn settle_now(server: &Arc<Server>) -> Result<Option<Behind>, ServerError> {
    let (behind, cut_off) = compare_and_tell(server)?;
    if behind.is_none() && server.store.rules.keep(Rule::CutCommitsAreFinished) {
        finish_all(server, cut_off)?;
    }
    server.is_settled.store(true, Ordering::Release);
    Ok(behind)
}

fn not_settled(error: &ServerError) -> String {
    format!(
        "the server cannot complete the commits that its last stop interrupted; until it can, no session expires and no data is deleted: {}",
        Chain(error)
    )
}

fn compare_and_tell(server: &Arc<Server>) -> Result<(Option<Behind>, Vec<CutOff>), ServerError> {
    if !server.store.rules.keep(Rule::SiteIsWitness) {
        return Ok((None, Vec::new()));
    }
    let Compared { unknown, cut_off } = compare(server)?;
    let such_as = first_that_opens(server, &unknown)?;
    let behind = such_as.map(|such_as| Behind { count: unknown.len(), such_as });
    match behind {
        Some(behind) => alarm::raise(&server.store, AlarmCode::IndexBehind, &behind.problem())?,
        None => alarm::clear(&server.store, AlarmCode::IndexBehind)?,
    }
    Ok((behind, cut_off))
}

/// Settles what the last process left, unless that is done. Answers whether it is. A server serves before as well, if it
/// is not: a site that cannot be listed is no reason to keep back what is there. But no session ends by its time until
/// then, as a commit that was cut off needs it, and the collector settles before it takes anything.
pub(crate) async fn settle_once(server: &Arc<Server>) -> bool {
    if server.is_settled.load(Ordering::Acquire) {
        return true;
    }
    // The holder of the lease completes commits first, or reports the problem.
    let Ok(lease) = server.leases.try_acquire(COMPLETION) else { return false };
    let settled = settle(server, &lease).await;
    if let Err(error) = &settled {
        tracing::error!(error = %Chain(error), "the index could not be compared with the site");
    }
    if let Err(error) = server.store.waiting(snapshot::series::note_origins).await {
        tracing::warn!(error = %crate::error::Chain(&error), "the folders of some snapshots are still unknown");
    }
    settled.is_ok()
}

/// Records that a snapshot is purged, also for the case that somebody restores its object.
pub(crate) fn note_purged(batch: &mut Batch, id: SnapshotId) {
    batch.put(Table::Meta, purged_key(&id), Vec::new());
}

fn purged_key(id: &SnapshotId) -> Vec<u8> {
    [PURGED_PREFIX, id.as_bytes().as_slice()].concat()
}

/// Objects on the site that no row names.
struct Compared {
    /// Snapshots that are neither in the index nor doomed.
    unknown: Vec<SnapshotId>,
    /// Announced by commits that are not running. The newest attempt comes first.
    cut_off: Vec<CutOff>,
}

/// A snapshot, and the session whose commit put it.
type CutOff = (SnapshotId, SessionId);

fn compare(server: &Server) -> Result<Compared, ServerError> {
    let listed = wait(server.store.list(Area::Snapshots))?;
    let ids: Vec<SnapshotId> = listed.iter().filter_map(|listed| snapshot_named(&listed.name)).collect();
    // Before the doomed names: what has landed since is not among them.
    let is_at_rest = |id: &SnapshotId| !server.in_flight.contains(&key_of(id));
    let at_rest: Vec<SnapshotId> = ids.iter().copied().filter(is_at_rest).collect();
    let doomed = doomed_snapshots(server)?;
    let session_of = |id: SnapshotId| doomed.get(&snapshot_object(&id))?.announced_by.map(|by| (id, by));
    let mut cut_off: Vec<CutOff> = at_rest.into_iter().filter_map(session_of).collect();
    cut_off.sort_unstable_by(|one, other| other.cmp(one));
    let spared = ids.into_iter().filter(|id| !doomed.contains_key(&snapshot_object(id)));
    Ok(Compared { unknown: without_rows(server, &spared.collect::<Vec<_>>())?, cut_off })
}

fn key_of(id: &SnapshotId) -> DoomedKey {
    DoomedKey { kind: DoomedKind::Snapshot, name: snapshot_object(id) }
}

fn without_rows(server: &Server, listed: &[SnapshotId]) -> Result<Vec<SnapshotId>, ServerError> {
    let mut unknown = Vec::new();
    for some in listed.chunks(AT_ONCE) {
        let keys: Vec<&[u8]> = some.iter().map(|id| id.as_bytes().as_slice()).collect();
        let rows = server.store.parts.index.multi_get(Table::Snapshot, &keys)?;
        let lost = some.iter().zip(rows).filter(|(_, row)| row.is_none());
        unknown.extend(lost.map(|(id, _)| *id));
    }
    let keys: Vec<Vec<u8>> = unknown.iter().map(purged_key).collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let purged = server.store.parts.index.multi_get(Table::Meta, &keys)?;
    let (mut left, mut replayed) = (Vec::new(), 0);
    for (id, purged) in unknown.into_iter().zip(purged) {
        if purged.is_none() { left.push(id) } else { replayed += 1 }
    }
    if replayed > 0 {
        tracing::warn!(replayed, "objects of purged snapshots are on the site again: skipped");
    }
    Ok(left)
}

fn doomed_snapshots(server: &Server) -> Result<HashMap<ObjectName, DoomedRow>, ServerError> {
    let mut doomed = HashMap::new();
    let range = KeyRange::prefix(&[DoomedKind::Snapshot.tag()]);
    server.store.for_each_row(Table::Doomed, &range, |key, value| {
        let row = DoomedKey::decode(key).zip(DoomedRow::decode(value));
        let (key, row) = row.ok_or_else(|| ServerError::Row { object: "a doomed object".to_owned() })?;
        doomed.insert(key.name, row);
        Ok(())
    })?;
    Ok(doomed)
}

/// Brings commits that were cut off to their end. What cannot be is deleted by the next run of the collector.
///
/// # Errors
/// The first one, after all were tried.
fn finish_all(server: &Arc<Server>, cut_off: Vec<CutOff>) -> Result<(), ServerError> {
    let mut done = Ok(());
    for (id, session) in cut_off {
        match finish(server, id, session) {
            Ok(Finish::Done) => tracing::warn!(snapshot = %id, "{FINISHED}"),
            Ok(Finish::Impossible(why)) => {
                tracing::warn!(snapshot = %id, why, "an interrupted commit cannot be completed: its objects will be deleted");
            }
            Err(error) => done = done.and(Err(error)),
        }
    }
    done
}

/// A snapshot that a rebuild would bring back. What is damaged, or was never ours, no rebuild makes a row of: the
/// alarm would stay for ever.
fn first_that_opens(server: &Server, unknown: &[SnapshotId]) -> Result<Option<SnapshotId>, ServerError> {
    for id in unknown {
        match wait(snapshot::read(&server.store, &snapshot_object(id))) {
            Ok(snapshot) if snapshot.id == *id => return Ok(Some(*id)),
            Ok(_) => {}
            Err(error) => drop(pack::unreadable(&error).ok_or(error)?),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
