use std::sync::atomic::{AtomicUsize, Ordering};

use std::sync::Arc;

use super::*;
use crate::site::StoreSite;
use crate::start::lock::renew;
use crate::store::Parts;
use crate::testing::ManualClock;

fn server(n: u32) -> Owner {
    let (id, host, boot) = (n.to_string(), format!("host-{n}"), "boot".to_owned());
    Owner { id, host, boot, pid: n, since_ms: 0 }
}

/// Takes the lock for a server of another machine, which watches while its clock goes on.
async fn take(site: &dyn Site, clock: &ManualClock, n: u32) -> Result<SiteLock, LockError> {
    let pause = async || clock.advance(LOOK_EVERY);
    SiteLock::take(site, clock, server(n), |_| false, pause).await
}

fn held_by(refused: &LockError) -> u32 {
    match refused {
        LockError::Held(owner) | LockError::Lost(owner) => owner.as_ref().unwrap().pid,
        other => panic!("{other}"),
    }
}

/// L6: while the holder renews its lock, nobody else gets it, and is told who has it.
#[tokio::test]
async fn a_second_server_is_refused_while_the_first_one_lives() {
    let (site, clock) = (StoreSite::memory(), ManualClock::default());
    let first = take(&site, &clock, 1).await.unwrap();
    let pause = async || {
        clock.advance(LOOK_EVERY);
        first.renew(&site, &clock).await.unwrap();
    };

    let refused = SiteLock::take(&site, &clock, server(2), |_| false, pause).await.unwrap_err();

    assert_eq!(held_by(&refused), 1);
    assert!(refused.to_string().contains("process 1 on `host-1`"), "{refused}");
    first.check(&clock).unwrap();
}

/// L6: a lock that does not change for its period has no owner; what that one does later is refused.
#[tokio::test]
async fn a_lock_without_signs_of_life_is_taken_over_and_its_holder_stops() {
    let (site, clock) = (StoreSite::memory(), ManualClock::default());
    let first = take(&site, &clock, 1).await.unwrap();
    let began = clock.with_sleep();

    let second = take(&site, &clock, 2).await.unwrap();

    assert!(clock.with_sleep() - began >= PERIOD);
    assert!(first.check(&clock).is_err(), "the first one stops before the second one begins");
    second.check(&clock).unwrap();
    assert_eq!(held_by(&first.renew(&site, &clock).await.unwrap_err()), 2);
}

/// L6: the same if the new holder has renewed so often that the numbers of the old one are free again.
#[tokio::test]
async fn a_former_holder_that_wakes_up_late_finds_a_higher_number() {
    let (site, clock) = (StoreSite::memory(), ManualClock::default());
    let first = take(&site, &clock, 1).await.unwrap();
    let second = take(&site, &clock, 2).await.unwrap();
    for _ in 0..5 {
        clock.advance(RENEW_EVERY);
        second.renew(&site, &clock).await.unwrap();
    }

    assert_eq!(held_by(&first.renew(&site, &clock).await.unwrap_err()), 2);

    clock.advance(RENEW_EVERY);
    second.renew(&site, &clock).await.unwrap();
    second.check(&clock).unwrap();
}

/// L6: a lock that is given back, or whose owner is dead by the word of the system, is free at once.
#[tokio::test]
async fn nobody_waits_for_a_lock_that_is_given_back_or_whose_owner_is_dead() {
    let (site, clock) = (StoreSite::memory(), ManualClock::default());
    let wait = async || panic!("nothing is waited for");
    let first = SiteLock::take(&site, &clock, server(1), |owner| owner.boot == "boot", wait).await.unwrap();
    first.release(&site).await.unwrap();
    assert!(first.check(&clock).is_err(), "what the first server still does has no lock");
    clock.advance(RENEW_EVERY);
    first.renew(&site, &clock).await.unwrap();
    assert_eq!(newest(&site).await.unwrap().map(|(number, _)| number), None);
    let second = SiteLock::take(&site, &clock, server(2), |owner| owner.boot == "boot", wait).await.unwrap();
    drop(second);

    SiteLock::take(&site, &clock, server(3), |owner| owner.boot == "boot", wait).await.unwrap();
}

/// L6: of two that take over at the same moment, one gets it.
#[tokio::test]
async fn one_of_two_takes_over() {
    let (site, clock) = (StoreSite::memory(), ManualClock::default());
    drop(take(&site, &clock, 1).await.unwrap());
    let looks = AtomicUsize::new(0);
    let pause = async || {
        clock.advance(PERIOD);
        if looks.fetch_add(1, Ordering::SeqCst) == 0 {
            put(&site, 2, &server(3)).await.unwrap();
        }
    };

    let refused = SiteLock::take(&site, &clock, server(2), |_| false, pause).await.unwrap_err();

    assert_eq!(held_by(&refused), 3);
}

/// A lock of which nobody can read the owner is watched as any other.
#[tokio::test]
async fn an_owner_that_cannot_be_read_is_waited_for() {
    let (site, clock) = (StoreSite::memory(), ManualClock::default());
    site.put_new(&lock_object(7), Bytes::from_static(b"?")).await.unwrap();
    let began = clock.with_sleep();

    take(&site, &clock, 1).await.unwrap();

    assert!(clock.with_sleep() - began >= PERIOD);
}

/// L6: a server that cannot renew in time commits nothing, and goes on once it can; one that has lost the lock halts.
#[tokio::test]
async fn a_server_without_its_lock_commits_nothing() {
    let clock: Arc<ManualClock> = Arc::default();
    let site = Arc::new(StoreSite::memory());
    let lock = take(site.as_ref(), &clock, 1).await.unwrap();
    let halted = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&halted);
    let parts = Parts {
        lock,
        site: Arc::<StoreSite>::clone(&site),
        on_halt: Arc::new(move |_| {
            heard.fetch_add(1, Ordering::SeqCst);
        }),
        ..Parts::default()
    };
    let store = parts.at(Arc::<ManualClock>::clone(&clock)).start();
    store.commit(crate::index::Batch::new()).unwrap();

    clock.advance(VALID_FOR);
    let refused = store.commit(crate::index::Batch::new()).unwrap_err();
    assert!(matches!(refused, ServerError::Rests { code: "site_lock", .. }), "{refused}");
    renew(&store).await;
    store.commit(crate::index::Batch::new()).unwrap();

    take(site.as_ref(), &clock, 2).await.unwrap();
    renew(&store).await;
    let refused = store.commit(crate::index::Batch::new()).unwrap_err();
    assert!(matches!(refused, ServerError::Halted), "{refused}");
    assert_eq!(halted.load(Ordering::SeqCst), 1);
}

/// L6: a folder of this machine is locked by the system as well: a second server is refused at once, and the one after
/// a dead one starts at once.
#[tokio::test]
async fn a_folder_is_locked_at_once_and_free_at_once() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::default());
    let site = StoreSite::folder(folder.path()).unwrap();
    let me = |n| Owner { pid: n, ..Owner::this_process(&clock, |bytes| bytes.fill(7)) };
    let place = SiteUrl::from(folder.path().to_owned());
    let first = SiteLock::of(&place, &site, &clock, me(1)).await.unwrap();

    let refused = SiteLock::of(&place, &site, &clock, me(2)).await.unwrap_err();

    assert_eq!(held_by(&refused), 1);
    drop(first);
    SiteLock::of(&place, &site, &clock, me(3)).await.unwrap();
    assert_eq!(clock.with_sleep(), Duration::ZERO);
}
