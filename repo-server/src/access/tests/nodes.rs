//! Tests of invitations and nodes.

use std::time::Duration;

use format_spec::access::SecretText;
use format_spec::wire::{EnrolRequest, InviteState, NewInvite};

use super::*;
use crate::access::{
    Admitted, Issued, about, enrol, invite, invites, nodes, rename, renew, revoke_node, rotate, uninvite,
};

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

fn node_id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

/// An invitation for an hour from the moment 0, and its code.
fn invited(registry: &Registry, n: u8, name: Option<&str>, roles: &[Role]) -> SecretText {
    let asked = NewInvite {
        cluster: "c".parse().unwrap(),
        node: name.map(|name| name.parse().unwrap()),
        roles: roles.to_vec(),
        lasts_seconds: 3600,
    };
    invite(registry, asked, &Source::FirstToken, node_id(n), &[n; 32], 0).unwrap().code
}

/// A request of a node that says its name and has a key of its own.
fn request(code: &SecretText, name: Option<&str>, key: &str) -> EnrolRequest {
    let node = name.map(|name| name.parse().unwrap());
    EnrolRequest { code: code.clone(), request: key.to_owned(), node }
}

/// A certificate of ninety days.
fn certificate(serial: &str, now_ms: u64) -> Result<Issued, ServerError> {
    let not_after_ms = now_ms + 90 * DAY_MS;
    Ok(Issued { certificate_pem: String::new(), serial: serial.to_owned(), not_after_ms })
}

fn try_enrol(registry: &Registry, request: &EnrolRequest, now_ms: u64) -> Result<Admitted, ServerError> {
    enrol(registry, request, now_ms, |_| certificate(&request.request, now_ms))
}

/// A node with the certificate `key`.
fn enrolled(registry: &Registry, n: u8, name: &str, key: &str) -> NodeId {
    let code = invited(registry, n, Some(name), &[Role::NodePush]);
    try_enrol(registry, &request(&code, None, key), 0).unwrap().id
}

/// N1: of a hundred requests at once, each with a key of its own, one is enrolled.
#[test]
fn a_hundred_racing_requests_enrol_one_node() {
    let registry = over(&disk());
    let code = invited(&registry, 1, None, &[Role::NodePush]);
    let answers: Vec<bool> = std::thread::scope(|scope| {
        let race = |n: usize| {
            let (registry, code) = (&registry, &code);
            let name = format!("n{n}");
            scope.spawn(move || try_enrol(registry, &request(code, Some(&name), &name), 1).is_ok())
        };
        let racers: Vec<_> = (0..100).map(race).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });

    assert_eq!(answers.iter().filter(|is_enrolled| **is_enrolled).count(), 1);
    assert_eq!(nodes(&registry).len(), 1);
    assert_eq!(invites(&registry, 1)[0].state, InviteState::Used);
}

/// N1: a node whose answer was lost asks again, also after a restart of the server; another key is refused.
#[test]
fn the_same_request_again_is_answered_and_another_is_not() {
    let disk = disk();
    let registry = over(&disk);
    let code = invited(&registry, 1, Some("db1"), &[Role::NodePush, Role::NodeRestore]);
    let first = try_enrol(&registry, &request(&code, None, "key"), 5).unwrap();
    disk.cut_power(Survivors::Synced);
    let registry = over(&disk);

    let again = enrol(&registry, &request(&code, None, "key"), 6, |_| certificate("second", 6)).unwrap();
    let other = try_enrol(&registry, &request(&code, None, "other key"), 7);

    assert_eq!((again.id, &again.node), (first.id, &first.node));
    assert!(matches!(other, Err(ServerError::NoInvite)));
    for serial in ["key", "second"] {
        let caller = registry.sign_in_node(first.id, serial, 8).unwrap();
        assert!(matches!(&caller.kind, Kind::Node { rights: NodeRights::PushAndRestore, scope }
            if scope.node.as_ref().is_some_and(|node| node.as_str() == "db1")));
    }
}

#[test]
fn an_invitation_ends_with_its_time_or_its_withdrawal() {
    let registry = over(&disk());
    let late = invited(&registry, 1, Some("a"), &[Role::NodePush]);
    let withdrawn = invited(&registry, 2, Some("b"), &[Role::NodePush]);
    uninvite(&registry, node_id(2)).unwrap();

    let answers = [
        try_enrol(&registry, &request(&late, None, "k"), HOUR_MS),
        try_enrol(&registry, &request(&withdrawn, None, "k"), 1),
        try_enrol(&registry, &request(&SecretText::from_bits(&[9; 32]), None, "k"), 1),
    ];

    assert!(answers.iter().all(|answer| matches!(answer, Err(ServerError::NoInvite))));
    assert_eq!(invites(&registry, HOUR_MS)[0].state, InviteState::Expired);
    assert!(matches!(uninvite(&registry, node_id(2)), Err(ServerError::UnknownInvite(_))));
    assert!(try_enrol(&registry, &request(&late, None, "k"), HOUR_MS - 1).is_ok(), "the last moment");
}

#[test]
fn a_failed_enrolment_leaves_the_invitation_unused() {
    let disk = disk();
    let registry = over(&disk);
    let code = invited(&registry, 1, Some("db1"), &[Role::NodePush]);
    enrolled(&registry, 2, "taken", "k2");
    let any = invited(&registry, 3, None, &[Role::NodePush]);

    let unsigned =
        enrol(&registry, &request(&code, None, "k"), 1, |_| Err(ServerError::NotSigned("no".to_owned())));
    assert!(matches!(unsigned, Err(ServerError::NotSigned(_))));
    for (code, name, refusal) in
        [(&code, Some("other"), "other_node"), (&any, Some("taken"), "node_taken"), (&any, None, "no_node")]
    {
        let refused = try_enrol(&registry, &request(code, name, "k"), 1).map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), refusal);
    }
    disk.arm(1, SimFault::NoSpace);
    let unwritten = try_enrol(&registry, &request(&code, None, "k"), 1);
    assert!(matches!(unwritten, Err(ServerError::Access(_))));
    assert!(registry.sign_in_node(node_id(1), "k", 1).is_err());

    assert!(try_enrol(&registry, &request(&code, None, "k"), 1).is_ok());
    assert!(try_enrol(&registry, &request(&any, Some("free"), "k3"), 1).is_ok());
}

/// N3: also after a restart, and its name is free for another.
#[test]
fn a_revoked_node_has_no_access_and_its_name_is_free() {
    let disk = disk();
    let registry = over(&disk);
    let id = enrolled(&registry, 1, "db1", "k");
    let mut changes = registry.changes();
    assert!(registry.sign_in_node(id, "k", 1).is_ok());

    revoke_node(&registry, id, 2).unwrap();

    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(registry.sign_in_node(id, "k", 3), Err(Refusal::RevokedNode(id)));
    disk.cut_power(Survivors::Synced);
    let registry = over(&disk);
    assert_eq!(registry.sign_in_node(id, "k", 3), Err(Refusal::RevokedNode(id)));
    assert!(renew(&registry, id, "k", 3, |_| certificate("new", 3)).is_err());
    let next = enrolled(&registry, 2, "db1", "k2");
    assert_ne!(next, id);
    assert_eq!(nodes(&registry).len(), 2);
}

/// N4: whoever signed it.
#[test]
fn a_certificate_that_is_not_recorded_opens_nothing() {
    let registry = over(&disk());
    let id = enrolled(&registry, 1, "db1", "k");

    assert_eq!(registry.sign_in_node(id, "forged", 1), Err(Refusal::OldCertificate(id)));
    assert_eq!(registry.sign_in_node(node_id(9), "k", 1), Err(Refusal::UnknownNode(node_id(9))));
    assert_eq!(registry.sign_in_node(id, "k", 90 * DAY_MS), Err(Refusal::OldCertificate(id)));
}

#[test]
fn a_node_renews_in_the_last_third_and_its_old_certificate_works_until_its_end() {
    let registry = over(&disk());
    let id = enrolled(&registry, 1, "db1", "k");
    let is_due = |serial: &str, now_ms| about(&registry, id, serial, now_ms).unwrap().renew;

    assert_eq!([is_due("k", 59 * DAY_MS), is_due("k", 60 * DAY_MS)], [false, true]);
    renew(&registry, id, "k", 61 * DAY_MS, |_| certificate("next", 61 * DAY_MS)).unwrap();

    assert!(!is_due("next", 62 * DAY_MS));
    for serial in ["k", "next"] {
        assert!(registry.sign_in_node(id, serial, 89 * DAY_MS).is_ok(), "{serial}");
    }
    assert!(registry.sign_in_node(id, "k", 90 * DAY_MS).is_err());
}

#[test]
fn a_rotation_asks_for_a_new_key_and_ends_the_old_one_after_its_grace() {
    let registry = over(&disk());
    let id = enrolled(&registry, 1, "db1", "k");

    let asked = rotate(&registry, id, Duration::from_secs(3600), DAY_MS).unwrap();

    assert!(asked.rotates && about(&registry, id, "k", DAY_MS).unwrap().renew);
    renew(&registry, id, "k", DAY_MS + 1, |_| certificate("next", DAY_MS)).unwrap();
    assert!(!about(&registry, id, "next", DAY_MS + 2).unwrap().renew);
    assert!(registry.sign_in_node(id, "k", DAY_MS + HOUR_MS - 1).is_ok());
    assert!(registry.sign_in_node(id, "k", DAY_MS + HOUR_MS).is_err());
    assert!(registry.sign_in_node(id, "next", DAY_MS + HOUR_MS).is_ok());
}

#[test]
fn a_rename_changes_the_name_in_lists_alone() {
    let registry = over(&disk());
    let id = enrolled(&registry, 1, "db1", "k");

    let info = rename(&registry, id, "old-db1".parse().unwrap()).unwrap();

    assert_eq!((info.id, info.node.as_str(), info.title.as_str()), (id, "db1", "old-db1"));
    assert_eq!(about(&registry, id, "k", 1).unwrap().node.as_str(), "db1");
    assert!(matches!(rename(&registry, node_id(9), "x".parse().unwrap()), Err(ServerError::UnknownNode(_))));
}

#[test]
fn an_invitation_has_roles_of_nodes_and_a_bounded_life() {
    let registry = over(&disk());
    let asked = |roles: &[Role], lasts_seconds| {
        let (cluster, roles) = ("c".parse().unwrap(), roles.to_vec());
        let asked = NewInvite { cluster, node: None, roles, lasts_seconds };
        invite(&registry, asked, &Source::FirstToken, node_id(1), &[1; 32], 0)
    };
    let month = 30 * 24 * 60 * 60;

    for (roles, seconds) in [
        (&[][..], 60),
        (&[Role::Admin], 60),
        (&[Role::NodePush, Role::Operator], 60),
        (&[Role::NodePush], 0),
        (&[Role::NodePush], month + 1),
    ] {
        assert!(matches!(asked(roles, seconds), Err(ServerError::BadRequest { .. })), "{roles:?} {seconds}");
    }
    assert!(asked(&[Role::NodePush], month).is_ok());
}

#[test]
fn the_file_holds_no_code_of_an_invitation() {
    let disk = disk();
    let registry = over(&disk);
    let code = invited(&registry, 7, None, &[Role::NodePush]);

    let file = String::from_utf8(disk.peek(&Path::new(DIR).join(FILE)).unwrap()).unwrap();

    assert!(!file.contains(code.reveal()), "{file}");
}
