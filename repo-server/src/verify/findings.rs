//! Problems and the affected snapshots and files: each problem once, with every snapshot and file that needs
//! the object.

use std::collections::HashMap;

use format_spec::wire::{FileRef, Finding, FindingCounts, FindingKind, LostRange};
use format_spec::{NodeName, SnapshotId};

use super::Attempt;

/// Findings that a report lists; a repository with more is beyond single names.
const LISTED: usize = 10_000;

/// Files that a report names, over all findings. It bounds what a report takes in memory.
const FILES_LISTED: usize = 10_000;

/// Ranges of files without names that a report lists.
const RANGES_LISTED: usize = 10_000;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Problem {
    pub(super) kind: FindingKind,
    /// The object, by its id or name.
    pub(super) object: String,
    /// Description of the problem.
    pub(super) what: String,
}

impl Problem {
    pub(super) fn new(kind: FindingKind, object: impl ToString, what: impl ToString) -> Self {
        Self { kind, object: object.to_string(), what: what.to_string() }
    }

    /// True if it is only that the site did not answer, and it is to be asked again.
    pub(super) fn is_later(&self, attempt: Attempt) -> bool {
        self.kind == FindingKind::Unreadable && attempt == Attempt::First
    }
}

/// A finding that is on the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Number(usize);

/// Cause of damage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// A finding from before; `None` if the list was full then.
    Known(Option<Number>),
    /// A new finding.
    New(Problem),
}

/// Affected snapshot or file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hurt {
    /// No file is affected, but the snapshot has a problem.
    Snapshot,
    /// The file with this path.
    File(String),
    /// The files between these two paths.
    Range { after: Option<String>, before: Option<String> },
}

/// Owner of the files.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) snapshot: SnapshotId,
    pub(super) node: NodeName,
}

/// All findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    numbers: HashMap<Problem, Number>,
    counts: FindingCounts,
    files: usize,
    ranges: usize,
}

impl Findings {
    /// Tells of `problem`, unless it is known.
    pub(super) fn find(&mut self, problem: Problem) -> Option<Number> {
        if let Some(known) = self.numbers.get(&problem) {
            return Some(*known);
        }
        *self.counts.of(problem.kind) += 1;
        if self.list.len() >= LISTED {
            return None;
        }
        let number = Number(self.list.len());
        self.list.push(Finding {
            kind: problem.kind,
            object: problem.object.clone(),
            problem: problem.what.clone(),
            snapshots: Vec::new(),
            files: Vec::new(),
            more_files: 0,
            ranges: Vec::new(),
        });
        self.numbers.insert(problem, number);
        Some(number)
    }

    /// Records that `cause` affects `owner`. A file is recorded once for each cause.
    pub(super) fn hurts(&mut self, cause: Cause, owner: &Owner, hurt: Hurt) {
        let number = match cause {
            Cause::Known(number) => number,
            Cause::New(problem) => self.find(problem),
        };
        let Some(finding) = number.and_then(|number| self.list.get_mut(number.0)) else { return };
        let (snapshot, node) = (owner.snapshot, owner.node.clone());
        if !finding.snapshots.contains(&snapshot) {
            finding.snapshots.push(snapshot);
        }
        match hurt {
            Hurt::Snapshot => {}
            Hurt::File(_) if self.files >= FILES_LISTED => finding.more_files += 1,
            Hurt::File(path) => {
                self.files += 1;
                finding.files.push(FileRef { snapshot, node, path });
            }
            Hurt::Range { after, before } => {
                let range = LostRange { snapshot, node, after, before };
                if self.ranges < RANGES_LISTED && !finding.ranges.contains(&range) {
                    self.ranges += 1;
                    finding.ranges.push(range);
                }
            }
        }
    }

    /// The problem; `None` if the list had no room for it.
    pub(super) fn problem(&self, cause: &Cause) -> Option<Problem> {
        match cause {
            Cause::New(problem) => Some(problem.clone()),
            Cause::Known(number) => {
                let Finding { kind, object, problem, .. } = self.list.get((*number)?.0)?;
                Some(Problem::new(*kind, object, problem))
            }
        }
    }

    /// How much is wrong so far.
    pub(super) fn counts(&self) -> FindingCounts {
        self.counts
    }

    /// True if there are no findings.
    pub(super) fn is_empty(&self) -> bool {
        self.counts == FindingCounts::default()
    }

    /// All of them, in the order in which they were found.
    pub(super) fn into_list(self) -> Vec<Finding> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { snapshot: SnapshotId::from_bytes([1; 16]), node: "n".parse().unwrap() }
    }

    fn problem(n: usize) -> Problem {
        Problem::new(FindingKind::Corrupt, n, "is wrong")
    }

    #[test]
    fn a_thing_is_told_of_once_with_all_that_it_hurts() {
        let mut findings = Findings::default();
        let number = findings.find(problem(1));
        findings.hurts(Cause::Known(number), &owner(), Hurt::File("a".to_owned()));
        findings.hurts(Cause::New(problem(1)), &owner(), Hurt::File("b".to_owned()));

        assert_eq!(findings.counts().corrupt, 1);
        let list = findings.into_list();
        assert_eq!((list.len(), list[0].snapshots.len(), list[0].files.len()), (1, 1, 2));
    }

    #[test]
    fn what_the_report_has_no_room_for_is_counted() {
        let mut findings = Findings::default();
        for n in 0..=LISTED {
            let number = findings.find(problem(n));
            findings.hurts(Cause::Known(number), &owner(), Hurt::File(n.to_string()));
        }
        let first = findings.find(problem(0));
        findings.hurts(Cause::Known(first), &owner(), Hurt::File("last".to_owned()));

        assert_eq!(findings.counts().corrupt, u64::try_from(LISTED).unwrap() + 1);
        let list = findings.into_list();
        assert_eq!((list.len(), list[0].more_files), (LISTED, 1));
    }
}
