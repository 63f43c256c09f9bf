//! Series: snapshots that take each other's place, and where a new one stands among those before it.
//!
//! A series is of the same nodes of a cluster and, on each, of the same folders or the same name. Its order is that of
//! the commits, whatever clocks tell. A snapshot that holds much less than the one before is suspect: a volume that
//! is not mounted looks like that.

use std::collections::BTreeMap;
use std::sync::Arc;

use format_spec::snapshot::{ManifestRef, Origin, Shrunk, Snapshot, SnapshotState};
use format_spec::{SeriesId, SnapshotId};

use super::{list, marks, open_manifest};
use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode, MAX_SUBJECT_LEN};
use crate::health::clock::JUMP_MS;
use crate::index::{Batch, IndexError, Precondition, Table};
use crate::pack::unreadable;
use crate::store::{Store, wait};

/// Number of files that must be missing before a snapshot is suspect.
const FEW_FILES: u64 = 100;
const FEW_BYTES: u64 = 64 << 20;

/// Permission for a push to be much smaller than the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Smaller {
    /// Then it is suspect.
    #[default]
    Suspect,
    /// The pusher accepts the smaller size.
    Meant,
}

/// Snapshots by series, each in the order of their commits.
pub(crate) fn by_series(snapshots: &[Snapshot]) -> BTreeMap<SeriesId, Vec<&Snapshot>> {
    let mut series: BTreeMap<SeriesId, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        series.entry(snapshot.series()).or_default().push(snapshot);
    }
    series.values_mut().for_each(|series| series.sort_by_key(|snapshot| snapshot.order()));
    series
}

/// Title of a snapshot for people: its nodes, each with its folders.
pub(crate) fn title(snapshot: &Snapshot) -> String {
    let shares = snapshot.manifests.iter().map(|share| match &share.origin {
        None => format!("node `{}`", share.node),
        Some(origin) => format!("node `{}` ({})", share.node, of_folders(origin)),
    });
    shares.collect::<Vec<_>>().join(", ")
}

/// The folders of all nodes, or the names of their series.
pub(crate) fn title_of_folders(snapshot: &Snapshot) -> String {
    let origins = snapshot.manifests.iter().filter_map(|share| share.origin.as_ref());
    let of = |origin: &Origin| match &origin.series {
        Some(name) => name.to_string(),
        None => of_folders(origin),
    };
    origins.map(of).collect::<Vec<_>>().join(" | ")
}

/// The names of its nodes, with commas between them.
pub(crate) fn nodes(snapshot: &Snapshot) -> String {
    let nodes: Vec<&str> = snapshot.manifests.iter().map(|share| share.node.as_str()).collect();
    nodes.join(",")
}

/// A series as alarms name it: `CLUSTER/NODES:SERIES`. One that is too long is cut, and ends with a part of its id.
pub(crate) fn subject(snapshot: &Snapshot) -> String {
    let mut subject = format!("{}/{}:{}", snapshot.cluster, nodes(snapshot), title_of_folders(snapshot));
    subject.retain(|c| !c.is_control());
    if subject.len() > MAX_SUBJECT_LEN {
        let id: String = format_spec::id::to_hex(snapshot.series().as_bytes()).chars().take(16).collect();
        while subject.len() + id.len() + 1 > MAX_SUBJECT_LEN {
            subject.pop();
        }
        subject = format!("{subject}#{id}");
    }
    subject
}

fn of_folders(origin: &Origin) -> String {
    let roots: Vec<String> = origin.roots.iter().map(|root| format!("{}{root}", origin.prefix())).collect();
    let named = u32::try_from(origin.roots.len()).unwrap_or(u32::MAX);
    let more = match origin.folders.saturating_sub(named) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let name = origin.series.as_ref().map(|name| format!("series `{name}`: ")).unwrap_or_default();
    format!("{name}{}{more}", roots.join(" "))
}

/// Gives a new snapshot its place behind all others: the `number` of its commit, a time that is not before the last one's
/// of its series unless the clock jumped, and whether it is suspect. Blocks.
pub(super) fn place(
    store: &Store,
    snapshot: &mut Snapshot,
    number: u64,
    smaller: Smaller,
) -> Result<(), ServerError> {
    let id = snapshot.series();
    let mut before = list(store, Some(&snapshot.cluster))?;
    before.retain(|earlier| earlier.series() == id);
    before.sort_by_key(Snapshot::order);
    if let Some(last) = before.last()
        && last.created_ms.saturating_sub(snapshot.created_ms) <= JUMP_MS
    {
        snapshot.created_ms = snapshot.created_ms.max(last.created_ms);
    }
    snapshot.number = Some(number);
    if smaller == Smaller::Suspect {
        let marks = marks(store)?;
        let is_listed = |id: &SnapshotId| marks.get(id).is_none_or(|mark| mark.tombstone.is_none());
        let is_whole = |earlier: &&Snapshot| {
            earlier.state == SnapshotState::Complete && earlier.shrunk.is_none() && is_listed(&earlier.id)
        };
        snapshot.shrunk = before.iter().rev().find(is_whole).and_then(|earlier| shrunk(earlier, snapshot));
    }
    Ok(())
}

fn shrunk(before: &Snapshot, now: &Snapshot) -> Option<Shrunk> {
    let sum = |snapshot: &Snapshot, of: fn(&ManifestRef) -> u64| {
        snapshot.manifests.iter().map(of).fold(0, u64::saturating_add)
    };
    // Unreadable files exist.
    let files = |snapshot| sum(snapshot, |share| share.totals.files.saturating_add(share.totals.problems));
    let bytes = |snapshot| sum(snapshot, |share| share.totals.bytes);
    let is_emptied = files(now) == 0 && files(before) > 0;
    let is_less = is_much_less(files(before), files(now), FEW_FILES)
        || is_much_less(bytes(before), bytes(now), FEW_BYTES);
    (is_emptied || is_less).then(|| Shrunk { since: before.id, files: files(before), bytes: bytes(before) })
}

/// True if more than half is missing, and more than a few.
fn is_much_less(before: u64, now: u64, few: u64) -> bool {
    let gone = before.saturating_sub(now);
    gone > before / 2 && gone >= few
}

/// Raises an alarm for each series whose newest snapshot is suspect, and takes all others down. Blocks.
pub(crate) fn watch_suspects(store: &Store) -> Result<(), ServerError> {
    let marks = marks(store)?;
    let mut snapshots = list(store, None)?;
    snapshots.retain(|snapshot| marks.get(&snapshot.id).is_none_or(|mark| mark.tombstone.is_none()));
    let series = by_series(&snapshots);
    let last = series.values().filter_map(|series| series.last());
    let suspects: Vec<(String, String)> =
        last.filter_map(|last| Some((subject(last), suspicion(last)?))).collect();
    alarm::keep_only(store, AlarmCode::SuspectSnapshot, &suspects)
}

/// Message of the alarm about a suspect snapshot.
pub(super) fn suspicion(snapshot: &Snapshot) -> Option<String> {
    let before = snapshot.shrunk?;
    let files: u64 = snapshot.manifests.iter().map(|share| share.totals.files).sum();
    let bytes: u64 = snapshot.manifests.iter().map(|share| share.totals.bytes).sum();
    Some(format!(
        "snapshot {} of {} has {files} files of {bytes} bytes, but {} had {} of {}: check that all file systems are mounted and push again; use --accept-smaller if this push is right",
        snapshot.id,
        title(snapshot),
        before.since,
        before.files,
        before.bytes
    ))
}

/// Notes in the index where shares of snapshots of earlier builds come from, as their manifests tell. A manifest that
/// cannot be read leaves its share in a series of its own. Nothing on the site changes. Waits for the site.
pub(crate) fn note_origins(store: &Arc<Store>) -> Result<(), ServerError> {
    let mut snapshots = list(store, None)?;
    snapshots.retain(|snapshot| snapshot.manifests.iter().any(|share| share.origin.is_none()));
    for snapshot in snapshots {
        let mut noted = snapshot.clone();
        for share in noted.manifests.iter_mut().filter(|share| share.origin.is_none()) {
            match wait(open_manifest(store, share.id)) {
                Ok((_, manifest)) => share.origin = Some(Origin::of(&manifest)),
                Err(error) => {
                    let why = unreadable(&error).ok_or(error)?;
                    tracing::warn!(snapshot = %snapshot.id, node = %share.node, why, "the folders of a snapshot are unknown");
                }
            }
        }
        let (key, mut batch) = (*noted.id.as_bytes(), Batch::new());
        batch.require(Table::Snapshot, key, Precondition::Equals(snapshot.encode()));
        batch.put(Table::Snapshot, key, noted.encode());
        match store.commit(batch) {
            // It was purged meanwhile.
            Err(ServerError::Index(IndexError::Precondition { .. })) => {}
            noted => noted?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
