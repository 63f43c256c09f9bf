use format_spec::wire::{NodeOrigin, NodePush};

use super::*;
use crate::summary::plain;

fn snapshot(state: SnapshotState) -> SnapshotInfo {
    SnapshotInfo {
        nodes: vec!["n1".parse().unwrap(), "n2".parse().unwrap()],
        created: "2023-11-14T22:13:20Z".to_owned(),
        state,
        files: 1234,
        bytes: 2048,
        problems: 2,
        origins: vec![NodeOrigin {
            node: "n1".parse().unwrap(),
            series: None,
            roots: vec!["/etc".to_owned(), "/srv".to_owned(), format!("/{}", "long".repeat(9))],
            folders: 3,
        }],
        ..plain("018bcfe5-6800-7000-8000-000000000001".parse().unwrap())
    }
}

#[test]
fn a_list_is_a_table_with_a_head() {
    let mut text = Vec::new();

    let mut told = snapshot(SnapshotState::Complete);
    let push = |new, whole, bytes_read, bytes_sent| {
        let stats = PushStats { new, whole, bytes_read, bytes_sent, ..PushStats::default() };
        NodePush { node: "n1".parse().unwrap(), stats }
    };
    told.pushes = vec![push(1, 2, 1024, 1024), push(4, 0, 2048, 0)];

    let snapshots = vec![told, snapshot(SnapshotState::Partial)];
    Listed { snapshots: snapshots.clone(), columns: Vec::new() }.text(&mut text).unwrap();

    let text = String::from_utf8(text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "SNAPSHOT                              CLUSTER  NODES  FOLDERS       CREATED               STATE                FILES  BYTES     CHANGED  READ      SENT",
            "018bcfe5-6800-7000-8000-000000000001  c        n1,n2  /etc,/srv +1  2023-11-14T22:13:20Z  complete             1,234  2.00 KiB  7        3.00 KiB  1.00 KiB",
            "018bcfe5-6800-7000-8000-000000000001  c        n1,n2  /etc,/srv +1  2023-11-14T22:13:20Z  partial (2 missing)  1,234  2.00 KiB  -        -         -",
        ]
    );
}

#[test]
fn a_list_has_the_columns_that_were_asked_for() {
    let (mut text, mut document) = (Vec::new(), Vec::new());
    let snapshots = vec![snapshot(SnapshotState::Complete)];
    let columns = vec![Column::State, Column::Created, Column::Labels];
    let listed = Listed { snapshots: snapshots.clone(), columns };

    listed.text(&mut text).unwrap();
    super::document(&listed, &mut document).unwrap();

    let text = String::from_utf8(text).unwrap();
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        ["STATE     CREATED               LABELS", "complete  2023-11-14T22:13:20Z"]
    );
    let all: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(all, serde_json::json!(snapshots), "programs get everything");
}

#[test]
fn an_error_document_has_class_code_and_the_whole_chain() {
    let error = ClientError::Unreachable {
        server: "http://127.0.0.1:1".to_owned(),
        attempts: 3,
        source: std::io::Error::other("refused").into(),
    };
    let mut text = Vec::new();

    document(&Failed { error: ErrorDocument::new(&error), restored: None }, &mut text).unwrap();

    let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(document["error"]["class"], "unavailable");
    assert_eq!(document["error"]["exit_code"], 14);
    assert_eq!(document["error"]["message"], "no answer from http://127.0.0.1:1 after 3 attempts: refused");
}

/// Names from servers, nodes and file systems are escaped before they reach a terminal.
#[test]
fn no_control_character_reaches_a_terminal() {
    let mut out = Vec::new();

    for piece in [&b"a\x1b[2Jb\x07\n"[..], b"\xc2", b"\x9b1m \xc2\xb5 caf\xc3\xa9\x7f\r\n"] {
        Plain::new(&mut out).write_all(piece).unwrap();
    }
    let whole = [&b"\xc2"[..], b"\x9b", b"\xc2\xb5"].concat();
    Plain::new(&mut out).write_all(&whole).unwrap();

    let text = String::from_utf8_lossy(&out);
    assert!(text.starts_with("a\\u{1b}[2Jb\\u{7}\n"), "{text}");
    assert!(text.contains("café\\u{7f}\\u{d}\n") && text.ends_with("\\u{9b}µ"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

/// A reason of another node cannot fake a line, and what is not shown is counted.
#[test]
fn a_restore_names_what_it_lacks_one_line_each() {
    use crate::restore::{Failed, FailedFor};
    let failed = |n: usize| Failed {
        path: format!("d/{n:03}"),
        why: if n < 75 { FailedFor::Damaged } else { FailedFor::NotMade },
        object: (n == 0).then(|| "chunk:00".to_owned()),
        reason: "no\n  restored 9 files".to_owned(),
    };
    let names: Vec<Failed> = (0..150).map(failed).collect();
    let mut text = Vec::new();

    first(&mut text, &names, 1_250, |out, failed| {
        writeln!(out, "  {}: {}", failed.path, Printable(failed.reason.as_bytes()))
    })
    .unwrap();

    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.lines().count(), SHOWN + 1, "{text}");
    assert!(text.ends_with("    and 1,150 more\n"), "{text}");
    assert!(text.starts_with("  d/000: no\\n  restored 9 files\n"), "{text}");
}

#[test]
fn a_dry_run_names_what_there_is_of_each_kind_and_what_each_option_left_out() {
    let none = Planned::default();
    let planned = DryPush {
        dry_run: true,
        cluster: "c".parse().unwrap(),
        node: "n".parse().unwrap(),
        state: SnapshotState::Partial,
        is_remembered: true,
        files: 4,
        folders: 2,
        symlinks: 0,
        bytes: 3072,
        skipped: 0,
        new: Planned { files: 1, bytes: 1024, bytes_to_read: 1024 },
        changed: none,
        appended: Planned { files: 1, bytes: 2048, bytes_to_read: 1024 },
        unchanged: none,
        linked: 1,
        gone: 2,
        bytes_to_read: 2048,
        left_out: vec![LeftOutBy {
            by: "--exclude *.tmp\u{1b}".to_owned(),
            entries: 3,
            folders: 1,
            bytes: 5,
        }],
        unmatched: vec!["/etc/not:3 x".to_owned()],
        warnings: Vec::new(),
        problem_count: 1,
        problems: vec![ProblemReport { path: "/r/gone".to_owned(), reason: "is not there".to_owned() }],
    };
    let mut text = Vec::new();

    planned.text(&mut Plain::new(&mut text)).unwrap();

    assert_eq!(
        String::from_utf8(text).unwrap().lines().collect::<Vec<_>>(),
        [
            "dry run: no file was read, no data was sent and no state was saved",
            "  4 files, 2 folders, 0 links, 3.00 KiB",
            "  new       1 file, 1.00 KiB, 1.00 KiB to read",
            "  appended  1 file, 2.00 KiB, 1.00 KiB to read",
            "  gone      2 files of the last push",
            "  excluded 3 entries (1 folder), 5 B: --exclude *.tmp\\u{1b}",
            "  note   /etc/not:3 x matched nothing",
            "  PARTIAL: 1 file would be missing",
            "    /r/gone: is not there",
        ]
    );
    assert!(planned.is_news() && planned.exit_code() == 3);
}
