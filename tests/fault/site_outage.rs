//! A site that fails while the server lives on: refused, unheard, full, or with a disk that is done for.

use std::sync::Arc;

use crate::site::Op;
use crate::site::faulty::{Fault, FaultKind, FaultySite, Refusal};
use format_spec::{ErrorClass, SnapshotId};
use node_client::error::ClientError;

use crate::judge;
use crate::process::{Process, Push, Stores};

/// Packs of chunks, packs of pages, the manifest, the snapshot.
const PUTS: usize = 4;

struct Outage {
    stores: Stores,
    site: Arc<FaultySite>,
    process: Process,
}

impl Outage {
    fn new() -> Self {
        let stores = Stores::new();
        let site = Arc::new(FaultySite::new(Arc::clone(&stores.site)));
        let process = Process::start(Arc::clone(&stores.index), site.clone());
        Self { stores, site, process }
    }

    fn push(&self, push: &Push) -> Result<SnapshotId, ClientError> {
        let (session, domain) = Push::open(&self.process)?;
        push.run(&self.process, session, &domain)
    }

    fn assert_sound(&self, expected: &[(SnapshotId, &Push)], what: &str) {
        let found = judge::findings(&self.stores, &self.process, expected, &[]);
        assert!(found.is_empty(), "{what}: {found:#?}");
    }
}

/// S3, P8: a put that fails refuses the push and nothing else: earlier snapshots are read, and the same push
/// succeeds once the site is back.
#[test]
fn a_push_that_the_site_refuses_can_be_done_again_without_a_restart() {
    let (first, second) = (Push::of(&["one", "two"]), Push::of(&["two", "three"]));
    let kinds = [
        FaultKind::Refuse(Refusal::Unavailable),
        FaultKind::Refuse(Refusal::Full),
        FaultKind::LoseAnswer,
        FaultKind::StopBefore,
        FaultKind::StopAfter,
    ];
    for kind in kinds {
        for after in 0..PUTS {
            let what = format!("{kind:?} at put {after}");
            let outage = Outage::new();
            let one = outage.push(&first).unwrap();
            outage.site.arm(Fault { op: Some(Op::Put), after, kind });

            let refused = outage.push(&second).expect_err(&what);
            assert_eq!(outage.site.fired().len(), 1, "{what} was never reached");
            assert_eq!(refused.class(), ErrorClass::Unavailable, "{what}: {refused}");
            outage.site.heal();
            outage.assert_sound(&[(one, &first)], &what);

            let two = outage.push(&second).unwrap_or_else(|error| panic!("{what}, again: {error}"));
            outage.assert_sound(&[(one, &first), (two, &second)], &what);
            assert_eq!(outage.process.halts(), 0, "{what}");
        }
    }
}

/// P8: a full site is told as such.
#[test]
fn a_full_site_is_told_by_its_code() {
    for after in 0..PUTS {
        let outage = Outage::new();
        let kind = FaultKind::Refuse(Refusal::Full);
        outage.site.arm(Fault { op: Some(Op::Put), after, kind });

        let refused = outage.push(&Push::of(&["one"])).unwrap_err();

        assert_eq!(refused.code(), Some("full"), "put {after}: {refused}");
    }
}

/// P8: after a fatal disk error nothing is acknowledged and nothing is written any more.
#[test]
fn after_a_fatal_disk_error_nothing_is_acknowledged() {
    for after in 0..PUTS {
        let outage = Outage::new();
        let kind = FaultKind::Refuse(Refusal::Fatal);
        outage.site.arm(Fault { op: Some(Op::Put), after, kind });
        let (session, domain) = Push::open(&outage.process).unwrap();
        let push = Push::of(&["one", "two"]);

        let refused = push.run(&outage.process, session, &domain);
        let puts = outage.site.calls().len();
        let again = push.run(&outage.process, session, &domain);
        let anew = outage.push(&push);

        assert_eq!(outage.process.halts(), 1, "put {after}");
        for outcome in [refused, again, anew] {
            assert_eq!(outcome.unwrap_err().code(), Some("halted"), "put {after}");
        }
        assert_eq!(outage.site.calls().len(), puts, "put {after}: the site was written to again");
        drop(outage.process);
        let process = outage.stores.serve();
        let found = judge::findings(&outage.stores, &process, &[], &[]);
        assert!(found.is_empty(), "put {after}: {found:#?}");
    }
}
