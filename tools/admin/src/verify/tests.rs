//! The shapes of what is shown are compared with text files next to this one.

use format_spec::SnapshotId;
use format_spec::wire::{Amount, FileRef, FindingCounts, LostRange};

use super::*;

fn text(what: &impl Show) -> String {
    let mut out = Vec::new();
    what.text(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn json(what: &impl Serialize) -> String {
    serde_json::to_string_pretty(what).unwrap() + "\n"
}

fn verified(findings: Vec<Finding>) -> Verified {
    let mut counts = FindingCounts::default();
    for finding in &findings {
        *counts.of(finding.kind) += 1;
    }
    let report = VerifyReport {
        snapshots: 3,
        pages: 40,
        references: 5_000,
        files: 120,
        packs: 6,
        blobs: 4_000,
        bytes_read: 7 << 20,
        quarantined: findings.len().try_into().unwrap(),
        left: Amount { count: 2, bytes: 9 << 20 },
        stopped: Some(Stopped::Bytes),
        never_verified: 1,
        oldest_verified: Some("2026-01-02T03:04:05Z".to_owned()),
        counts,
        findings,
        ..VerifyReport::default()
    };
    Verified::new(VerifyLevel::Read, report)
}

fn finding(kind: FindingKind) -> Finding {
    let snapshot = SnapshotId::new(1_700_000_000_000, [7; 10]);
    let node: format_spec::NodeName = "a".parse().unwrap();
    let (after, before) = (Some("b".to_owned()), None);
    Finding {
        kind,
        object: "pack:00".to_owned(),
        problem: "is missing from the site".to_owned(),
        snapshots: vec![snapshot],
        files: vec![FileRef { snapshot, node: node.clone(), path: "var/lib/x".to_owned() }],
        more_files: 5,
        ranges: vec![LostRange { snapshot, node, after, before }],
    }
}

fn compare(found: &str, expected: &str) {
    assert!(found == expected, "the shape no longer fits:\n{found}");
}

#[test]
fn a_sound_repository_takes_few_lines_and_is_no_news() {
    let verified = verified(Vec::new());

    compare(&text(&verified), include_str!("sound.txt"));
    assert_eq!((verified.is_news(), verified.verdict().exit_code()), (false, 0));
}

#[test]
fn a_damaged_repository_has_its_shape_and_its_exit_code() {
    let verified = verified(vec![finding(FindingKind::Missing)]);

    compare(&text(&verified), include_str!("damaged.txt"));
    compare(&json(&verified), include_str!("damaged.json"));
    assert_eq!((verified.is_news(), verified.verdict().exit_code()), (true, 13));
}

#[test]
fn what_is_only_unreadable_exits_with_14_and_anything_else_with_13() {
    let code = |kinds: &[FindingKind]| {
        verified(kinds.iter().map(|kind| finding(*kind)).collect()).verdict().exit_code()
    };

    assert_eq!(code(&[FindingKind::Unreadable]), 14);
    for kind in [FindingKind::Corrupt, FindingKind::Missing, FindingKind::Index] {
        assert_eq!(code(&[FindingKind::Unreadable, kind]), 13, "{kind:?}");
    }
}

/// The quick check must not suggest that bytes were read.
#[test]
fn a_check_that_reads_nothing_says_so() {
    let told = |level| text(&Verified::new(level, VerifyReport::default()));
    let line = "stored bytes were not read: `--level read` reads all of them\n";

    for level in [VerifyLevel::Index, VerifyLevel::Exists] {
        assert!(told(level).contains(line), "{}", told(level));
    }
    assert!(!told(VerifyLevel::Read).contains(line));
}
