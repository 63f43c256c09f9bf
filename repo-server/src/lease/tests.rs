//! Leases of tasks: one at a time, and a next one as soon as it is dropped.

use std::time::Duration;

use futures_util::FutureExt;

use super::*;
use crate::testing::ManualClock;

const GC: Kind = Kind("gc");
const AUDIT: Kind = Kind("audit");

fn leases() -> (Leases, Arc<ManualClock>) {
    let clock: Arc<ManualClock> = Arc::default();
    (Leases::new(Arc::<ManualClock>::clone(&clock)), clock)
}

#[test]
fn a_held_lease_is_refused_with_its_holder() {
    let (leases, clock) = leases();
    let _held = leases.try_acquire::<Upkeep>(GC).unwrap();
    clock.advance(Duration::from_secs(90));

    let refused = leases.try_acquire::<Upkeep>(AUDIT).map(drop).unwrap_err();

    let ServerError::Busy { why } = refused else { panic!("{refused:?}") };
    assert_eq!(why, "another run of gc is in progress, for 90 s so far");
    assert!(leases.try_acquire::<Retention>(AUDIT).is_ok(), "another resource is free");
}

#[test]
fn no_time_ends_the_lease_of_a_task() {
    let (leases, clock) = leases();
    let held = leases.try_acquire::<Upkeep>(GC).unwrap();

    clock.advance(Duration::from_secs(365 * 24 * 60 * 60));

    assert!(leases.try_acquire::<Upkeep>(AUDIT).is_err());
    drop(held);
    assert!(leases.try_acquire::<Upkeep>(AUDIT).is_ok());
}

#[test]
fn a_panicking_holder_leaves_its_lease_free() {
    let (leases, _) = leases();
    let panics = std::panic::AssertUnwindSafe(|| {
        let _held = leases.try_acquire::<Upkeep>(GC).unwrap();
        panic!("the task fails");
    });

    assert!(std::panic::catch_unwind(panics).is_err());

    assert!(leases.try_acquire::<Upkeep>(AUDIT).is_ok());
}

#[test]
fn tokens_of_leases_grow_with_each_grant() {
    let (leases, _) = leases();

    let tokens: Vec<Token> = (0..3).map(|_| leases.try_acquire::<Upkeep>(GC).unwrap().token).collect();

    assert_eq!(tokens, [Token(1), Token(2), Token(3)]);
}

#[tokio::test]
async fn a_waiting_task_goes_on_when_the_lease_is_free() {
    let (leases, _) = leases();
    let held = leases.try_acquire::<Upkeep>(GC).unwrap();
    let mut waits = std::pin::pin!(leases.acquire::<Upkeep>(AUDIT));
    let mut waits_too = std::pin::pin!(leases.acquire::<Upkeep>(AUDIT));
    assert!(waits.as_mut().now_or_never().is_none());
    assert!(waits_too.as_mut().now_or_never().is_none());

    drop(held);

    let next = waits.await;
    assert!(waits_too.as_mut().now_or_never().is_none(), "two tasks have the lease");
    drop(next);
    drop(waits_too.await);
}
