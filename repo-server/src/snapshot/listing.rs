//! The list of snapshots, a part in each answer, so that no number of pushes makes it too long for who asks.
//!
//! A part continues behind the last snapshot of the one before, in the order of commits. Snapshots that are
//! added or purged meanwhile do not move others.

use std::fmt;
use std::str::FromStr;

use format_spec::snapshot::Snapshot;
use format_spec::wire::{SnapshotInfo, SnapshotList};
use format_spec::{ClusterName, SnapshotId};

use super::{info, list, marks};
use crate::defects::objects;
use crate::error::ServerError;
use crate::rows::MarkRow;
use crate::store::Store;

/// The place of a snapshot in the list. Its text is for this server alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ListPlace {
    number: u64,
    id: SnapshotId,
}

impl ListPlace {
    fn of(snapshot: &Snapshot) -> Self {
        let (number, id) = snapshot.order();
        Self { number, id }
    }
}

impl fmt::Display for ListPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.number, self.id)
    }
}

impl FromStr for ListPlace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "`after` must be the `next` of an earlier answer";
        let (number, id) = text.split_once('.').ok_or(wrong)?;
        Ok(Self { number: number.parse().map_err(|_| wrong)?, id: id.parse().map_err(|_| wrong)? })
    }
}

/// How much one answer may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PartLimit {
    /// Snapshots, at least 1.
    pub(crate) snapshots: usize,
    /// Bytes of JSON. The first snapshot is returned however long it is.
    pub(crate) len: usize,
}

/// The snapshots of `cluster`, or of all clusters, that come after `after`: as many as `limit` allows. `sight` gives
/// the part of a snapshot that is shown, and `told` its description.
pub(crate) fn part(
    store: &Store,
    cluster: Option<&ClusterName>,
    after: Option<ListPlace>,
    limit: PartLimit,
    sight: impl Fn(Snapshot) -> Option<Snapshot>,
    told: impl Fn(SnapshotInfo) -> SnapshotInfo,
) -> Result<SnapshotList, ServerError> {
    let (marks, damaged) = (marks(store)?, objects::all(store)?);
    let now_ms = store.parts.clock.unix_ms();
    let unmarked = MarkRow::default();
    let mut part = SnapshotList { snapshots: Vec::new(), next: None };
    let (mut len, mut last) = (0, None);
    for snapshot in list(store, cluster)?.into_iter().filter_map(sight) {
        let place = ListPlace::of(&snapshot);
        if after.is_some_and(|after| place <= after) {
            continue;
        }
        let shown = told(info(&snapshot, marks.get(&snapshot.id).unwrap_or(&unmarked), &damaged, now_ms));
        len += len_of(&shown);
        if part.snapshots.len() == limit.snapshots || (len > limit.len && last.is_some()) {
            part.next = last.as_ref().map(ListPlace::to_string);
            break;
        }
        part.snapshots.push(shown);
        last = Some(place);
    }
    Ok(part)
}

/// Its length in an answer, in bytes.
fn len_of(told: &SnapshotInfo) -> usize {
    serde_json::to_vec(told).map_or(usize::MAX / 2, |json| json.len() + 1)
}

#[cfg(test)]
mod tests;
