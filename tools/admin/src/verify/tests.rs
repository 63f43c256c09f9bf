//! The shapes of what is shown are compared with text files next to this one.

use clap::Parser;
use format_spec::SnapshotId;
use format_spec::wire::{Amount, FileRef, FindingCounts, LostRange};

use super::*;
use crate::cli::Command;

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

fn request(words: &[&str]) -> Result<VerifyRequest, clap::Error> {
    let arguments = Arguments::try_parse_from([&["astacus-admin"], words].concat())?;
    match arguments.command {
        Command::Verify(asked) => Ok(asked.request().expect("it is about objects")),
        Command::Scrub(asked) => Ok(asked.request()),
        other => panic!("{other:?}"),
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

#[test]
fn limits_are_understood_as_they_are_typed() {
    let asked =
        request(&["scrub", "--sample", "2.5%", "--max-bytes", "3M", "--max-time", "2h", "--max-rate", "1K"]);
    let limits = VerifyLimits {
        sample_ppm: Some(25_000),
        max_bytes: Some(3 << 20),
        max_time_ms: Some(7_200_000),
        max_rate: Some(1024),
    };
    assert_eq!(asked.unwrap(), VerifyRequest { limits, ..VerifyLevel::Read.into() });

    let asked = request(&["verify", "--level", "restore", "--snapshot", "latest"]).unwrap();
    assert_eq!(
        (asked.level, asked.snapshot),
        (VerifyLevel::Restore, None),
        "it is asked for when the server is"
    );
    assert_eq!(request(&["verify"]).unwrap(), VerifyRequest::from(VerifyLevel::Exists));
}

#[test]
fn odd_shares_and_times_are_refused() {
    for share in ["", "%", "0", "0%", "100.0001%", "101%", "-1%", "5.00001%", ".5", "5.", "a", "1e2"] {
        assert!(share.parse::<Share>().is_err(), "{share}");
    }
    assert_eq!(
        ["100%", "0.0001%", "5"].map(|text| text.parse()),
        [Ok(Share(1_000_000)), Ok(Share(1)), Ok(Share(50_000))]
    );
    for time in ["", "s", "0", "0m", "-1s", "1.5h", "5 m", "1w", "99999999999999999999s", "٣s"] {
        assert!(time.parse::<Time>().is_err(), "{time}");
    }
    assert_eq!("1d".parse(), Ok(Time(Duration::from_secs(86_400))));
}
