//! The part of an answer that a caller may read.

use format_spec::About;
use format_spec::snapshot::Snapshot;
use format_spec::wire::{Alarm, FreshnessReport, SnapshotInfo};
use format_spec::{NodeName, SnapshotId};

use crate::access::{Kind, NodeRights, Principal};
use crate::error::ServerError;
use crate::snapshot;
use crate::store::Store;

/// The part of a snapshot that `caller` reaches.
///
/// # Errors
/// [`ServerError::NoSnapshot`], also if there is one and the caller reaches no part of it.
pub(super) fn snapshot(store: &Store, caller: &Principal, id: SnapshotId) -> Result<Snapshot, ServerError> {
    caller.part_of(snapshot::get(store, id)?).ok_or(ServerError::NoSnapshot(id))
}

/// Refuses a node that is not in the part of a snapshot that `caller` reaches.
///
/// # Errors
/// [`ServerError::NoSnapshot`] and [`ServerError::NoNode`], which do not tell what exists elsewhere.
pub(super) fn check_node(
    store: &Store,
    caller: &Principal,
    id: SnapshotId,
    node: &NodeName,
) -> Result<Snapshot, ServerError> {
    let part = snapshot(store, caller, id)?;
    if part.manifest_of(node).is_none() {
        return Err(ServerError::NoNode { snapshot: id, node: node.clone() });
    }
    Ok(part)
}

/// Leaves out texts that people wrote for others than `caller`.
pub(super) fn told(caller: &Principal, info: SnapshotInfo) -> SnapshotInfo {
    match &caller.kind {
        Kind::Node { rights: NodeRights::Push, .. } => {
            SnapshotInfo { about: About::default(), protected: None, pushes: Vec::new(), ..info }
        }
        Kind::Operator => SnapshotInfo {
            pushes: info
                .pushes
                .into_iter()
                .map(|mut push| {
                    push.stats.fallbacks.clear();
                    push
                })
                .collect(),
            ..info
        },
        Kind::Administrator | Kind::Monitor | Kind::Node { .. } => info,
    }
}

/// Alarms as `caller` may read them: a monitor gets no path and no text of a person.
pub(super) fn alarms(caller: &Principal, alarms: Vec<Alarm>) -> Vec<Alarm> {
    if caller.kind != Kind::Monitor {
        return alarms;
    }
    let without_paths = |alarm: Alarm| Alarm {
        message: "the message is for operators: `astacus-admin alarms` shows it".to_owned(),
        subject: alarm.subject.as_deref().map(without_folders),
        acknowledged: alarm.acknowledged.map(|mut known| {
            known.reason.clear();
            known
        }),
        ..alarm
    };
    alarms.into_iter().map(without_paths).collect()
}

/// A report as `caller` may read it: a monitor gets no path.
pub(super) fn freshness(caller: &Principal, mut report: FreshnessReport) -> FreshnessReport {
    if caller.kind == Kind::Monitor {
        report.rules.clear();
        for series in &mut report.series {
            series.subject = without_folders(&series.subject);
            series.series = without_folders(&series.series);
        }
    }
    report
}

/// A name without the folders in it. Names that differ stay different: a hash stands for the folders.
fn without_folders(name: &str) -> String {
    if !name.contains('/') {
        return name.to_owned();
    }
    let (owner, folders) = name.split_once(':').unwrap_or(("", name));
    if !folders.contains('/') {
        return name.to_owned();
    }
    let colon = if owner.is_empty() { "" } else { ":" };
    format!("{owner}{colon}folders-{:016x}", xxhash_rust::xxh3::xxh3_64(folders.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_its_folders_tells_no_path_and_stays_one_of_its_own() {
        let (one, other) = (without_folders("c/n:/var/lib/secret"), without_folders("c/n:/var/lib/other"));

        assert!(one.starts_with("c/n:folders-") && !one.contains("secret"), "{one}");
        assert_ne!(one, other);
        assert_eq!(without_folders("c/n:nightly"), "c/n:nightly");
        assert_eq!(without_folders("nightly"), "nightly");
        assert!(!without_folders("/srv/a | /srv/b").contains("srv"));
    }
}
