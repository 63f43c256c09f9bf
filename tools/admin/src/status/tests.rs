//! The shapes of what is shown are compared with text files next to this one.

use super::*;

fn text(what: &impl Show) -> String {
    let mut out = Vec::new();
    what.text(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn json(what: &impl Serialize) -> String {
    serde_json::to_string_pretty(what).unwrap() + "\n"
}

#[test]
fn a_status_has_its_shape() {
    let status = ServerStatus(Status {
        server: "astacus-server 1.2.3".to_owned(),
        repository: format_spec::RepositoryId::new(1_700_000_000_000, [7; 10]),
        engine: "fjall".to_owned(),
        snapshots: 3,
        packs: 12,
        chunks: 123_456,
        stored_bytes: 5 << 30,
        open_sessions: 1,
        alarms: Vec::new(),
    });

    assert_eq!(text(&status), include_str!("status.txt"));
    assert_eq!(json(&status), include_str!("status.json"));
}
