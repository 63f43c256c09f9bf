//! The table against a model: the list of all grants there ever were.

use proptest::prelude::*;

use super::*;

const TTL: u64 = 10;
const LIFE: u64 = 35;

/// One thing that happens to the table.
#[derive(Debug, Clone)]
enum Step {
    Grant {
        resource: u8,
        holder: u8,
    },
    Renew {
        resource: u8,
    },
    /// Somebody who had the grant of this number releases it, late or not.
    Release {
        grant: usize,
    },
    Wait {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_u8, any::<u8>()).prop_map(|(resource, holder)| Step::Grant { resource, holder }),
        (0..3_u8).prop_map(|resource| Step::Renew { resource }),
        (0..8_usize).prop_map(|grant| Step::Release { grant }),
        (0..15_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// A grant of the model.
#[derive(Debug)]
struct Known {
    resource: u8,
    holder: u8,
    token: Token,
    since: u64,
    /// The last moment at which it was granted or renewed.
    renewed: u64,
    is_released: bool,
}

impl Known {
    fn lives(&self, term: Term, now: u64) -> bool {
        let in_time = term == Term::UntilReleased || (now < self.renewed + TTL && now < self.since + LIFE);
        !self.is_released && in_time
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Runs `steps` on a table and on the model, and compares each answer.
fn follow(term: Term, steps: Vec<Step>) {
    let (mut table, mut known, mut now) = (Table::<u8, u8>::new(term), Vec::<Known>::new(), 0);
    for step in steps {
        match step {
            Step::Grant { resource, holder } => {
                let token = known.last().map_or(Token(1), |last| last.token.next());
                let granted = table.grant(resource, holder, token, seconds(now));
                let holds = known.iter().find(|grant| grant.resource == resource && grant.lives(term, now));
                match (granted, holds) {
                    (Ok(()), None) => known.push(Known {
                        resource,
                        holder,
                        token,
                        since: now,
                        renewed: now,
                        is_released: false,
                    }),
                    (Err(held), Some(grant)) => {
                        assert_eq!((held.holder, held.token), (grant.holder, grant.token));
                    }
                    (granted, holds) => panic!("{granted:?} while {holds:?} at {now}"),
                }
            }
            Step::Renew { resource } => {
                let token = table.renew(&resource, seconds(now)).map(|grant| grant.token);
                let mut living = known.iter_mut().filter(|grant| grant.resource == resource);
                let living = living.find(|grant| grant.lives(term, now));
                assert_eq!(token, living.as_ref().map(|grant| grant.token), "renewed at {now}");
                if let Some(grant) = living {
                    grant.renewed = now;
                }
            }
            Step::Release { grant } => {
                let Some(released) = known.get_mut(grant) else { continue };
                let held = table.release(&released.resource, released.token);
                if let Some(holder) = held {
                    assert_eq!(holder, released.holder);
                }
                assert!(held.is_some() || !released.lives(term, now), "a living lease was not released");
                released.is_released = true;
            }
            Step::Wait { seconds } => now += seconds,
        }
        for resource in 0..3 {
            let of = known.iter().filter(|grant| grant.resource == resource);
            assert!(of.filter(|grant| grant.lives(term, now)).count() <= 1, "two holders of {resource}");
        }
    }
}

proptest! {
    /// L3: a lease has one holder at a time, is never renewed once it is over, and is released by its holder only.
    #[test]
    fn leases_that_expire_have_one_holder(steps in prop::collection::vec(step(), 0..60)) {
        follow(Term::Renewed { ttl: seconds(TTL), life: seconds(LIFE) }, steps);
    }

    #[test]
    fn leases_without_an_end_have_one_holder(steps in prop::collection::vec(step(), 0..60)) {
        follow(Term::UntilReleased, steps);
    }
}

/// L3: nothing renews a lease beyond its life.
#[test]
fn a_lease_ends_with_its_life_however_often_it_is_renewed() {
    let mut table = Table::new(Term::Renewed { ttl: seconds(TTL), life: seconds(LIFE) });
    table.grant("node", 1, Token(1), seconds(100)).unwrap();

    for at in 101..135 {
        assert!(table.renew(&"node", seconds(at)).is_some(), "at {at}");
    }

    assert!(table.renew(&"node", seconds(135)).is_none());
    assert!(table.grant("node", 2, Token(2), seconds(135)).is_ok());
    assert_eq!(table.release(&"node", Token(1)), None, "the former holder releases nothing");
    assert_eq!(table.release(&"node", Token(2)), Some(2));
}
