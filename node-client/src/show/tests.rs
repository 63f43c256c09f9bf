use format_spec::wire::{NodeOrigin, NodePush};

use super::*;

fn snapshot(state: SnapshotState) -> SnapshotInfo {
    SnapshotInfo {
        id: "018bcfe5-6800-7000-8000-000000000001".parse().unwrap(),
        cluster: "c".parse().unwrap(),
        nodes: vec!["n1".parse().unwrap(), "n2".parse().unwrap()],
        created: "2023-11-14T22:13:20Z".to_owned(),
        state,
        files: 1234,
        bytes: 2048,
        problems: 2,
        pushes: Vec::new(),
        going_until: None,
        protected: None,
        damaged: None,
        series: None,
        origins: vec![NodeOrigin {
            node: "n1".parse().unwrap(),
            series: None,
            roots: vec!["/etc".to_owned(), "/srv".to_owned(), format!("/{}", "long".repeat(9))],
            folders: 3,
        }],
        number: 0,
        ahead_of_clock: false,
        suspect: None,
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

    vec![told, snapshot(SnapshotState::Partial)].text(&mut text).unwrap();

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
fn an_error_document_has_class_code_and_the_whole_chain() {
    let error = ClientError::Unreachable {
        server: "http://127.0.0.1:1".to_owned(),
        attempts: 3,
        source: std::io::Error::other("refused").into(),
    };
    let mut text = Vec::new();

    document(&Failed { error: ErrorDocument::new(&error) }, &mut text).unwrap();

    let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(document["error"]["class"], "unavailable");
    assert_eq!(document["error"]["exit_code"], 14);
    assert_eq!(document["error"]["message"], "no answer from http://127.0.0.1:1 after 3 attempts: refused");
}
