//! Which snapshot, and whose share of it.

use std::collections::BTreeSet;
use std::fmt;

use format_spec::path::Printable;
use format_spec::snapshot::SnapshotState;
use format_spec::wire::SnapshotInfo;
use format_spec::{NodeName, SnapshotId};
use serde::Serialize;

use super::filter::Filter;
use super::series;
use super::series::SeriesChoice;
use crate::error::ClientError;
use crate::named::rank;
use crate::summary::of_files;
use crate::twin::{Old, is_back};

/// Choice of a node in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeChoice {
    /// The user named it: no other will do.
    Named(NodeName),
    /// This machine's own name: the only node of a snapshot will do as well.
    Assumed(NodeName),
}

impl NodeChoice {
    fn name(&self) -> &NodeName {
        match self {
            Self::Named(name) | Self::Assumed(name) => name,
        }
    }
}

/// Handling of a partial snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partial {
    /// Refuse it, and take an older complete one for `latest`.
    Refuse,
    /// Take it as it is.
    Allow,
}

/// A snapshot that is newer than the one `latest` stands for, and was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PassedOver {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// When it was committed.
    pub created: String,
    /// Why it was not taken.
    pub why: PassedOverFor,
    /// How many of its files are missing or torn.
    pub missing: u64,
}

/// Why `latest` does not stand for the newest snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PassedOverFor {
    /// Some of its files are missing or torn.
    Partial,
    /// Something of it is known to be damaged or lost.
    Damaged,
    /// It holds much less than the one before it.
    Suspect,
    /// It is from a moment that the server's clock has not reached.
    AheadOfClock,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { snapshot, created, why, missing } = self;
        let created = Printable(created.as_bytes());
        write!(f, "there is a newer snapshot, {snapshot} of {created}, but ")?;
        match why {
            PassedOverFor::Partial => write!(f, "it is partial: {} missing or torn", of_files(*missing)),
            PassedOverFor::Damaged => f.write_str("it is known to be damaged"),
            PassedOverFor::Suspect => f.write_str("it is much smaller than its predecessor"),
            PassedOverFor::AheadOfClock => f.write_str("its time is ahead of the server's clock"),
        }
    }
}

/// Snapshot that `latest` selects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Latest {
    pub(super) id: SnapshotId,
    pub(super) passed_over: Option<PassedOver>,
}

/// Resolves `latest` among the snapshots that hold the chosen node, and that node.
///
/// # Errors
/// [`ClientError::NotFound`] if there is none; [`ClientError::Usage`], listing the nodes or series, if there
/// are several and nothing says which.
pub(super) fn latest(
    snapshots: &[SnapshotInfo],
    node: &NodeChoice,
    series: Option<&SeriesChoice>,
    filter: &Filter,
    partial: Partial,
) -> Result<(Latest, NodeName), ClientError> {
    let nodes: BTreeSet<&NodeName> = snapshots.iter().flat_map(|snapshot| &snapshot.nodes).collect();
    if nodes.is_empty() {
        return Err(ClientError::NotFound("no snapshot yet".to_owned()));
    }
    let node = choose(nodes, node, "no snapshot")?;
    let of_node = snapshots.iter().filter(|snapshot| snapshot.nodes.contains(&node)).collect();
    let latest = newest(&series::only(of_node, &node, series, filter)?, &node, partial)?;
    Ok((latest, node))
}

/// The newest complete one of `snapshots`, by their commits; with [`Partial::Allow`] the newest.
///
/// Ranks snapshots as a policy counts them: one that is damaged, deleted, much smaller than its predecessor
/// or ahead of the server's clock ranks behind all others, however old these are (G9).
///
/// # Errors
/// [`ClientError::NotFound`] if there is none, with the newest partial one and how to take it.
fn newest(snapshots: &[&SnapshotInfo], node: &NodeName, partial: Partial) -> Result<Latest, ClientError> {
    let may_lack = partial == Partial::Allow || is_back(Old::LatestMayLack);
    let will_do = |info: &&SnapshotInfo| may_lack || info.state == SnapshotState::Complete;
    let order = |info: &&SnapshotInfo| (info.number, info.id);
    let all = || snapshots.iter().copied();
    let Some(taken) = all().filter(will_do).max_by_key(|info| rank(info)) else {
        return Err(ClientError::NotFound(only_partial(all().max_by_key(|info| rank(info)), node)));
    };
    let newer = all().filter(|info| order(info) > order(&taken) && info.going_until.is_none());
    Ok(Latest { id: taken.id, passed_over: newer.max_by_key(order).map(passed_over) })
}

fn passed_over(info: &SnapshotInfo) -> PassedOver {
    let why = match info.state {
        _ if info.ahead_of_clock => PassedOverFor::AheadOfClock,
        SnapshotState::Partial => PassedOverFor::Partial,
        SnapshotState::Complete if info.damaged.is_some() => PassedOverFor::Damaged,
        SnapshotState::Complete => PassedOverFor::Suspect,
    };
    PassedOver { snapshot: info.id, created: info.created.clone(), why, missing: info.problems }
}

fn only_partial(newest: Option<&SnapshotInfo>, node: &NodeName) -> String {
    match newest {
        None => format!("no snapshot of node `{node}` yet"),
        Some(SnapshotInfo { id, created, problems, .. }) => format!(
            "no complete snapshot of node `{node}`. In the newest partial snapshot, {id} of {created}, {} missing or torn; --allow-partial selects it",
            of_files(*problems),
            created = Printable(created.as_bytes()),
        ),
    }
}

/// The chosen node of one snapshot.
///
/// # Errors
/// The errors of [`latest`].
pub(super) fn node_of(snapshot: &SnapshotInfo, node: &NodeChoice) -> Result<NodeName, ClientError> {
    choose(snapshot.nodes.iter().collect(), node, &format!("snapshot {} does not", snapshot.id))
}

fn choose(nodes: BTreeSet<&NodeName>, choice: &NodeChoice, who: &str) -> Result<NodeName, ClientError> {
    if nodes.contains(choice.name()) {
        return Ok(choice.name().clone());
    }
    let list: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
    let list = list.join(", ");
    match choice {
        NodeChoice::Named(name) => {
            let verb = if who.ends_with("not") { "hold" } else { "holds" };
            Err(ClientError::NotFound(format!("{who} {verb} node `{name}`; nodes there are: {list}")))
        }
        NodeChoice::Assumed(_) => match nodes.into_iter().collect::<Vec<_>>().as_slice() {
            [only] => Ok((*only).clone()),
            _ => Err(ClientError::Usage(format!("choose a node with --node; nodes there are: {list}"))),
        },
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::summary::plain;
    use crate::twin::with_old;
    use format_spec::snapshot::Shrunk;

    fn snapshot(at: u64, nodes: &[&str]) -> SnapshotInfo {
        SnapshotInfo {
            nodes: nodes.iter().map(|node| node.parse().unwrap()).collect(),
            ..plain(SnapshotId::new(at, [0; 10]))
        }
    }

    fn latest_of(
        all: &[SnapshotInfo],
        node: &NodeChoice,
        partial: Partial,
    ) -> Result<(Latest, NodeName), ClientError> {
        latest(all, node, None, &Filter::new(&[], &[]).unwrap(), partial)
    }

    fn newest_of(all: &[SnapshotInfo], partial: Partial) -> Result<Latest, ClientError> {
        newest(&all.iter().collect::<Vec<_>>(), &"a".parse().unwrap(), partial)
    }

    fn named(name: &str) -> NodeChoice {
        NodeChoice::Named(name.parse().unwrap())
    }

    fn assumed(name: &str) -> NodeChoice {
        NodeChoice::Assumed(name.parse().unwrap())
    }

    fn lacking(at: u64, problems: u64) -> SnapshotInfo {
        SnapshotInfo { state: SnapshotState::Partial, problems, ..snapshot(at, &["a"]) }
    }

    fn taken(all: &[SnapshotInfo], node: &NodeChoice) -> (SnapshotId, NodeName) {
        let (latest, node) = latest_of(all, node, Partial::Refuse).unwrap();
        (latest.id, node)
    }

    #[test]
    fn the_latest_is_the_newest_that_holds_the_node() {
        let all = [snapshot(1, &["a"]), snapshot(2, &["b"]), snapshot(3, &["a"]), snapshot(4, &["b"])];

        assert_eq!(taken(&all, &named("a")), (all[2].id, "a".parse().unwrap()));
        assert_eq!(taken(&all, &assumed("b")).0, all[3].id);
        assert_eq!(newest_of(&all, Partial::Refuse).unwrap().id, all[3].id);
    }

    #[test]
    fn a_node_that_was_named_is_never_replaced() {
        let error = latest_of(&[snapshot(1, &["a"])], &named("b"), Partial::Refuse).unwrap_err();

        assert!(matches!(&error, ClientError::NotFound(text) if text.contains("are: a")), "{error}");
        assert!(matches!(node_of(&snapshot(1, &["a"]), &named("b")), Err(ClientError::NotFound(_))));
    }

    #[test]
    fn an_assumed_node_gives_way_to_the_only_one() {
        let all = [snapshot(1, &["a"]), snapshot(2, &["a"])];

        assert_eq!(taken(&all, &assumed("here")), (all[1].id, "a".parse().unwrap()));
        assert_eq!(node_of(&all[0], &assumed("here")).unwrap().as_str(), "a");
    }

    #[test]
    fn several_nodes_and_none_named_lists_them() {
        let all = [snapshot(1, &["a"]), snapshot(2, &["b"])];

        let error = latest_of(&all, &assumed("here"), Partial::Refuse).unwrap_err();

        assert!(matches!(&error, ClientError::Usage(text) if text.contains("a, b")), "{error}");
        assert!(matches!(node_of(&snapshot(1, &["a", "b"]), &assumed("x")), Err(ClientError::Usage(_))));
    }

    #[test]
    fn no_snapshot_at_all_is_not_found() {
        assert!(matches!(latest_of(&[], &assumed("a"), Partial::Refuse), Err(ClientError::NotFound(_))));
    }

    /// S8: what is not there cannot be had from a snapshot that lacks it, however new that is.

    #[test]
    fn the_latest_is_complete_and_names_the_newer_partial_one() {
        let all = [snapshot(1, &["a"]), snapshot(2, &["a"]), lacking(3, 1), lacking(4, 1_234)];

        let found = newest_of(&all, Partial::Refuse).unwrap();

        let passed_over = found.passed_over.unwrap();
        assert_eq!((found.id, passed_over.snapshot), (all[1].id, all[3].id));
        assert_eq!((passed_over.why, passed_over.missing), (PassedOverFor::Partial, 1_234));
        assert!(passed_over.to_string().contains("1,234 files are missing"), "{passed_over}");
        let newest = newest_of(&all, Partial::Allow).unwrap();
        assert_eq!((newest.id, newest.passed_over), (all[3].id, None));
        let twin = with_old(Some(Old::LatestMayLack), || newest_of(&all, Partial::Refuse)).unwrap();
        assert_eq!(twin.id, all[3].id, "the twin");
    }

    /// S8: the way out is named.
    #[test]
    fn only_partial_snapshots_are_refused_with_the_newest_and_the_flag() {
        let all = [lacking(3, 2), lacking(4, 1)];

        let error = latest_of(&all, &named("a"), Partial::Refuse).unwrap_err();

        let ClientError::NotFound(text) = &error else { panic!("{error}") };
        for part in [&all[1].id.to_string(), "1 file is missing", "--allow-partial", "node `a`"] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(latest_of(&all, &named("a"), Partial::Allow).unwrap().0.id, all[1].id);
    }

    /// G9: the last complete one of a policy, and `latest`, are the same.
    #[test]
    fn damaged_and_forgotten_snapshots_stand_back_behind_all_others() {
        let damaged = |at| SnapshotInfo { damaged: Some("lost".to_owned()), ..snapshot(at, &["a"]) };
        let forgotten = |at| SnapshotInfo { going_until: Some("soon".to_owned()), ..snapshot(at, &["a"]) };
        let all = [snapshot(1, &["a"]), damaged(2), forgotten(3)];

        let found = newest_of(&all, Partial::Refuse).unwrap();

        let passed_over = found.passed_over.unwrap();
        assert_eq!((found.id, passed_over.snapshot), (all[0].id, all[1].id));
        assert_eq!(passed_over.why, PassedOverFor::Damaged);
        assert_eq!(newest_of(&all[1..], Partial::Refuse).unwrap().id, all[1].id);
        assert_eq!(newest_of(&all[2..], Partial::Refuse).unwrap().id, all[2].id);
        let partial = [damaged(1), lacking(2, 1)];
        assert_eq!(newest_of(&partial, Partial::Refuse).unwrap().id, partial[0].id);
        assert_eq!(newest_of(&partial, Partial::Allow).unwrap().id, partial[1].id);
    }

    /// S9: clocks go wrong, and commits have an order of their own.
    #[test]
    fn the_newest_is_the_last_commit_and_what_is_ahead_of_the_clock_stands_back() {
        let number = |at, number| SnapshotInfo { number, ..snapshot(at, &["a"]) };
        let ahead = SnapshotInfo { ahead_of_clock: true, ..number(9_000, 2) };
        let all = [number(500, 1), ahead, number(400, 3)];

        assert_eq!(newest_of(&all, Partial::Refuse).unwrap(), Latest { id: all[2].id, passed_over: None });
        let found = newest_of(&all[..2], Partial::Refuse).unwrap();
        let passed_over = found.passed_over.unwrap();
        assert_eq!((found.id, passed_over.snapshot), (all[0].id, all[1].id));
        assert_eq!(passed_over.why, PassedOverFor::AheadOfClock);
        assert!(passed_over.to_string().contains("is ahead of the server's clock"), "{passed_over}");
        assert_eq!(newest_of(&all[1..2], Partial::Refuse).unwrap().id, all[1].id, "there is no other");
    }

    /// S10: what was mounted when it was pushed, and is not now, is in the one before.
    #[test]
    fn a_suspect_snapshot_stands_back() {
        let of = snapshot(1, &["a"]);
        let suspect = Some(Shrunk { since: of.id, files: 9, bytes: 9 });
        let all = [of, SnapshotInfo { suspect, ..snapshot(2, &["a"]) }];

        let found = newest_of(&all, Partial::Refuse).unwrap();

        assert_eq!((found.id, found.passed_over.unwrap().why), (all[0].id, PassedOverFor::Suspect));
    }
}
