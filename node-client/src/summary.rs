//! How good a snapshot is, in a few words: for the lists of all programs.

use format_spec::About;
#[cfg(test)]
use format_spec::SnapshotId;
use format_spec::manifest::{Moment, PushStats};
use format_spec::path::Printable;
use format_spec::snapshot::SnapshotState;
use format_spec::wire::{NodeOrigin, SnapshotInfo};
use indicatif::HumanCount;

/// Completeness of the snapshot, and how far its files are of one moment.
pub fn state(info: &SnapshotInfo) -> String {
    let moment = moment_of(info);
    // A torn file exists, and is still a problem of the snapshot.
    let missing = info.problems.saturating_sub(moment.torn);
    let state = match (info.state, missing) {
        (SnapshotState::Complete, _) => "complete".to_owned(),
        (SnapshotState::Partial, 0) => "partial".to_owned(),
        (SnapshotState::Partial, missing) => format!("partial ({} missing)", HumanCount(missing)),
    };
    let state = if info.suspect.is_some() { format!("{state}, SUSPECT") } else { state };
    match not_one(&moment) {
        None => state,
        Some(why) => format!("{state}, not one moment ({why})"),
    }
}

/// The labels and the note of a snapshot in one line; empty if there are none.
pub fn about(about: &About) -> String {
    let labels = about.labels.to_string();
    match &about.note {
        None => labels,
        Some(note) if labels.is_empty() => format!("\"{note}\""),
        Some(note) => format!("{labels} \"{note}\""),
    }
}

/// A number of files, in words.
pub(crate) fn of_files(count: u64) -> String {
    if count == 1 { "1 file is".to_owned() } else { format!("{} files are", HumanCount(count)) }
}

/// Characters of a list of folders, at most.
const FOLDERS_LEN: usize = 40;

/// The series in a few words: its name, or the folders that tell it from others. `-` if they are not known.
pub fn folders(origins: &[NodeOrigin]) -> String {
    let of = |origin: &NodeOrigin| match &origin.series {
        Some(name) => name.to_string(),
        None => shortened(origin),
    };
    let mut all: Vec<String> = origins.iter().map(of).collect();
    all.dedup();
    if all.is_empty() { "-".to_owned() } else { all.join(" | ") }
}

fn shortened(origin: &NodeOrigin) -> String {
    let printable = |root: &String| Printable(root.as_bytes()).to_string();
    let roots: Vec<String> = origin.roots.iter().map(printable).collect();
    let first = |named: usize| roots.get(..named).unwrap_or_default().join(",");
    let named = (1..=roots.len()).rev().find(|named| first(*named).len() <= FOLDERS_LEN).unwrap_or(1);
    let some = first(named);
    match usize::try_from(origin.folders).unwrap_or(usize::MAX).saturating_sub(named) {
        0 => some,
        more => format!("{some} +{more}"),
    }
}

/// The moments of all nodes together. A push that does not say counts as one moment.
fn moment_of(info: &SnapshotInfo) -> Moment {
    let known = || info.pushes.iter().filter_map(|push| push.stats.moment);
    let sum = |of: fn(&Moment) -> u64| known().map(|moment| of(&moment)).fold(0, u64::saturating_add);
    Moment {
        freeze_ms: known().map(|moment| moment.freeze_ms).max().unwrap_or(0),
        moved_on: sum(|moment| moment.moved_on),
        fuzzy: sum(|moment| moment.fuzzy),
        torn: sum(|moment| moment.torn),
        restless: sum(|moment| moment.restless),
    }
}

/// Files that changed after the freeze; `None` if there are none.
fn not_one(moment: &Moment) -> Option<String> {
    let kinds = [
        ("moved on", moment.moved_on),
        ("fuzzy", moment.fuzzy),
        ("torn", moment.torn),
        ("restless", moment.restless),
    ];
    let some = kinds.iter().filter(|(_, count)| *count > 0);
    let some: Vec<_> = some.map(|(kind, count)| format!("{} {kind}", HumanCount(*count))).collect();
    (!moment.is_one()).then(|| some.join(", "))
}

/// Files whose content a push did not take from the push before.
pub fn changed(stats: &PushStats) -> u64 {
    stats.new + stats.whole + stats.appended + stats.resumed
}

/// A complete snapshot without files, for tests.
#[cfg(test)]
pub(crate) fn plain(id: SnapshotId) -> SnapshotInfo {
    SnapshotInfo {
        id,
        cluster: "c".parse().unwrap(),
        nodes: Vec::new(),
        created: String::new(),
        state: SnapshotState::Complete,
        files: 0,
        bytes: 0,
        problems: 0,
        pushes: Vec::new(),
        going_until: None,
        protected: None,
        damaged: None,
        series: None,
        origins: Vec::new(),
        number: 0,
        ahead_of_clock: false,
        suspect: None,
        about: About::default(),
    }
}

#[cfg(test)]
mod tests {
    use format_spec::wire::NodePush;

    use super::*;

    fn info(state: SnapshotState, problems: u64, moments: &[Option<Moment>]) -> SnapshotInfo {
        let push = |moment: &Option<Moment>| NodePush {
            node: "n".parse().unwrap(),
            stats: PushStats { moment: *moment, ..PushStats::default() },
        };
        SnapshotInfo {
            state,
            problems,
            pushes: moments.iter().map(push).collect(),
            ..plain(SnapshotId::new(1, [0; 10]))
        }
    }

    #[test]
    fn a_snapshot_of_one_moment_or_of_an_unknown_one_has_no_mark() {
        let one = Some(Moment { freeze_ms: 7, ..Moment::default() });

        for moments in [&[][..], &[None], &[one], &[one, None]] {
            assert_eq!(state(&info(SnapshotState::Complete, 0, moments)), "complete");
        }
        assert_eq!(state(&info(SnapshotState::Partial, 1_234, &[one])), "partial (1,234 missing)");
    }

    /// S6: the marks of all nodes are added, and a torn file does not count as missing too.
    #[test]
    fn a_snapshot_of_several_moments_says_what_is_not_of_one() {
        let first = Some(Moment { moved_on: 2, torn: 1, ..Moment::default() });
        let second = Some(Moment { moved_on: 1, fuzzy: 4, restless: 1_000, ..Moment::default() });

        let fuzzy = state(&info(SnapshotState::Complete, 0, &[second]));
        let torn = state(&info(SnapshotState::Partial, 1, &[first]));
        let both = state(&info(SnapshotState::Partial, 3, &[first, second]));

        assert_eq!(fuzzy, "complete, not one moment (1 moved on, 4 fuzzy, 1,000 restless)");
        assert_eq!(torn, "partial, not one moment (2 moved on, 1 torn)");
        assert_eq!(both, "partial (2 missing), not one moment (3 moved on, 4 fuzzy, 1 torn, 1,000 restless)");
    }
}
