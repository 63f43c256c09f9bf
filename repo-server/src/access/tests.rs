//! Tests of the registry.

mod nodes;

use std::path::Path;

use format_spec::access::{NodeScope, Role};
use format_spec::wire::{NewToken, TokenCreated};

use super::*;
use crate::durable::RealDisk;
use crate::durable::sim::{SimDisk, SimFault, Survivors};

const DIR: &str = "/data";

fn over(disk: &SimDisk) -> Registry {
    let text = disk.peek(&Path::new(DIR).join(FILE)).map(|bytes| String::from_utf8(bytes).unwrap());
    let on_halt = Arc::new(|_: &dyn std::error::Error| {});
    Registry::new(Arc::new(disk.clone()), Path::new(DIR), "first", text.as_deref(), on_halt).unwrap()
}

fn disk() -> SimDisk {
    SimDisk::with_folder(Path::new(DIR))
}

fn asked(name: &str, roles: &[Role]) -> NewToken {
    let is_of_nodes = roles.iter().any(|role| role.is_of_nodes());
    let scope = NodeScope { cluster: "c".parse().unwrap(), node: Some("n".parse().unwrap()) };
    NewToken {
        name: name.parse().unwrap(),
        roles: roles.to_vec(),
        scope: is_of_nodes.then_some(scope),
        lasts_seconds: None,
        from: Vec::new(),
    }
}

fn make(registry: &Registry, asked: NewToken, seed: u8) -> Result<TokenCreated, ServerError> {
    create(registry, asked, &Source::FirstToken, &[seed; 32], 1000)
}

fn enter(registry: &Registry, token: &TokenCreated, now_ms: u64) -> Result<Principal, Refusal> {
    registry.sign_in(Some(token.token.reveal().as_bytes()), None, now_ms)
}

#[test]
fn a_token_opens_until_it_is_revoked_also_after_a_restart() {
    let disk = disk();
    let registry = over(&disk);
    let token = make(&registry, asked("ops", &[Role::Operator]), 1).unwrap();
    assert_eq!(enter(&registry, &token, 2000).unwrap().kind, Kind::Operator);
    assert_eq!(registry.sign_in(Some(b"first"), None, 0).unwrap(), Principal::FIRST_TOKEN);
    disk.cut_power(Survivors::Synced);
    let registry = over(&disk);
    assert_eq!(enter(&registry, &token, 2000).unwrap().source, Source::Token("ops".parse().unwrap()));

    revoke(&registry, &"ops".parse().unwrap()).unwrap();

    assert_eq!(enter(&registry, &token, 2000), Err(Refusal::Unknown));
    disk.cut_power(Survivors::Synced);
    assert_eq!(enter(&over(&disk), &token, 2000), Err(Refusal::Unknown));
    assert!(matches!(revoke(&registry, &"ops".parse().unwrap()), Err(ServerError::NoToken(_))));
}

#[test]
fn the_file_holds_no_secret() {
    let disk = disk();
    let registry = over(&disk);

    let token = make(&registry, asked("n1", &[Role::NodePush, Role::NodeRestore]), 7).unwrap();

    let file = String::from_utf8(disk.peek(&Path::new(DIR).join(FILE)).unwrap()).unwrap();
    assert!(!file.contains(token.token.reveal()), "{file}");
    assert!(
        !format!("{token:?} {registry:?}", registry = registry.document()).contains(token.token.reveal())
    );
}

#[test]
fn a_token_that_expired_or_comes_from_elsewhere_opens_nothing() {
    let registry = over(&disk());
    let short = NewToken { lasts_seconds: Some(5), ..asked("short", &[Role::Monitor]) };
    let short = make(&registry, short, 1).unwrap();
    let near = NewToken { from: vec!["10.0.0.0/8".parse().unwrap()], ..asked("near", &[Role::Monitor]) };
    let near = make(&registry, near, 2).unwrap();
    let from = |peer: Option<&str>| {
        let peer = peer.map(|peer| peer.parse().unwrap());
        registry.sign_in(Some(near.token.reveal().as_bytes()), peer, 0).is_ok()
    };

    assert!(enter(&registry, &short, 5999).is_ok());
    assert_eq!(enter(&registry, &short, 6000), Err(Refusal::Expired("short".parse().unwrap())));
    assert_eq!([from(Some("10.9.9.9")), from(Some("::ffff:10.9.9.9"))], [true, true]);
    assert_eq!([from(Some("11.0.0.1")), from(Some("::1")), from(None)], [false; 3]);
}

#[test]
fn roles_that_do_not_go_together_are_refused() {
    let registry = over(&disk());
    let scope = asked("x", &[Role::NodePush]).scope;
    let wrong = [
        (vec![], None),
        (vec![], scope.clone()),
        (vec![Role::NodePush], None),
        (vec![Role::Admin], scope.clone()),
        (vec![Role::Monitor, Role::Operator], None),
        (vec![Role::NodePush, Role::Admin], scope.clone()),
        (vec![Role::NodePush, Role::NodePush], scope.clone()),
        (vec![Role::NodePush, Role::NodeRestore], None),
        (Role::ALL.to_vec(), scope),
    ];
    for (roles, scope) in wrong {
        let asked = NewToken { roles: roles.clone(), scope, ..asked("x", &[Role::Admin]) };
        let refused = make(&registry, asked, 1);
        assert!(matches!(refused, Err(ServerError::BadRequest { code: "bad_token", .. })), "{roles:?}");
    }
}

#[test]
fn names_are_unique_and_tokens_are_limited() {
    let registry = over(&disk());
    make(&registry, asked("a", &[Role::Monitor]), 1).unwrap();
    let again = make(&registry, asked("a", &[Role::Monitor]), 2);
    assert!(matches!(again, Err(ServerError::Refused { code: "name_taken", .. })), "{again:?}");
    registry
        .change(|document| {
            let row = document.tokens.values().next().unwrap().clone();
            for n in document.tokens.len()..token::MOST_TOKENS {
                document.tokens.insert(format!("t{n}").parse().unwrap(), row.clone());
            }
            Ok(())
        })
        .unwrap();

    let over_limit = make(&registry, asked("b", &[Role::Monitor]), 3);

    assert!(
        matches!(over_limit, Err(ServerError::Refused { code: "too_many_tokens", .. })),
        "{over_limit:?}"
    );
}

#[test]
fn a_change_that_is_not_durable_does_not_count() {
    let disk = disk();
    let registry = over(&disk);
    let token = make(&registry, asked("a", &[Role::Monitor]), 1).unwrap();
    disk.arm(1, SimFault::NoSpace);

    let failed = revoke(&registry, &"a".parse().unwrap());

    assert!(matches!(failed, Err(ServerError::Access(_))), "{failed:?}");
    assert!(enter(&registry, &token, 2000).is_ok());
    assert!(enter(&over(&disk), &token, 2000).is_ok());
}

#[test]
fn a_use_is_written_at_most_once_an_hour() {
    let disk = disk();
    let registry = over(&disk);
    let token = make(&registry, asked("a", &[Role::Monitor]), 1).unwrap();
    let hour = USE_WRITTEN_AFTER_MS;
    let use_at = |now_ms: u64| {
        let caller = enter(&registry, &token, now_ms).unwrap();
        let is_due = registry.is_use_due(&caller, now_ms);
        registry.write_uses(&caller, now_ms).unwrap();
        is_due
    };

    assert_eq!([5000, 6000, 5000 + hour - 1, 5000 + hour].map(use_at), [true, false, false, true]);

    let seen = |registry: &Registry| list(registry, 0).remove(0).last_used.unwrap();
    assert_eq!(seen(&registry), "1970-01-01T01:00:05Z");
    assert_eq!(seen(&over(&disk)), "1970-01-01T01:00:05Z");
    enter(&registry, &token, 2 * hour).unwrap();
    assert_eq!(seen(&registry), "1970-01-01T02:00:00Z", "held in memory, not in the file yet");
}

#[test]
fn a_file_of_another_version_is_refused() {
    for text in ["", "{}", r#"{"version":2,"tokens":{}}"#, r#"{"version":1,"tokens":{},"more":1}"#] {
        let on_halt = Arc::new(|_: &dyn std::error::Error| {});
        let opened = Registry::new(Arc::new(RealDisk), Path::new(DIR), "first", Some(text), on_halt);
        assert!(opened.is_err(), "{text}");
    }
}
