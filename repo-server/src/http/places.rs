//! Places for connections. A connection that has not shown a credential is a stranger, and strangers have a few places of
//! their own, so that clients without a credential cannot block those that have one. When these places are taken, the
//! oldest stranger of the host with the most strangers is closed: one host cannot close the new connections of others.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::error::ServerError;
use crate::sync::lock;

/// The places of a server.
#[derive(Debug)]
pub(super) struct Places {
    guests: Arc<Semaphore>,
    strangers: Mutex<Strangers>,
    most_strangers: usize,
}

/// Strangers in the order in which they came.
#[derive(Debug, Default)]
struct Strangers {
    here: BTreeMap<u64, Stranger>,
    next: u64,
}

#[derive(Debug)]
struct Stranger {
    host: Host,
    must_go: Arc<Notify>,
}

/// Addresses that count as one host: an address of IPv4, or the first 64 bits of one of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Host(IpAddr);

impl Host {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
            v4 => Self(v4),
        }
    }
}

impl Strangers {
    /// Takes out the stranger that makes room for another one.
    fn pop(&mut self) -> Option<Stranger> {
        let mut counts = BTreeMap::<Host, usize>::new();
        for stranger in self.here.values() {
            *counts.entry(stranger.host).or_default() += 1;
        }
        let most = counts.values().max()?;
        let of_most = |stranger: &Stranger| counts.get(&stranger.host) == Some(most);
        let number = *self.here.iter().find(|(_, stranger)| of_most(stranger))?.0;
        self.here.remove(&number)
    }
}

/// The place of one connection, given back when its last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Place(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    places: Arc<Places>,
    number: u64,
    must_go: Arc<Notify>,
    guest: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Places {
    pub(super) fn new(guests: usize, most_strangers: usize) -> Arc<Self> {
        let guests = Arc::new(Semaphore::new(guests));
        Arc::new(Self { guests, strangers: Mutex::default(), most_strangers })
    }

    /// A place for a stranger at `address`. If all are taken, another stranger is closed.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let must_go = Arc::new(Notify::new());
        let mut strangers = lock(&self.strangers);
        if strangers.here.len() >= self.most_strangers
            && let Some(stranger) = strangers.pop()
        {
            stranger.must_go.notify_one();
        }
        let number = strangers.next;
        strangers.next += 1;
        let stranger = Stranger { host: Host::of(address), must_go: Arc::clone(&must_go) };
        strangers.here.insert(number, stranger);
        Place(Arc::new(Taken { places: Arc::clone(self), number, must_go, guest: Mutex::default() }))
    }

    /// Closes all strangers: the server stops.
    pub(super) fn dismiss_strangers(&self) {
        for stranger in std::mem::take(&mut lock(&self.strangers).here).into_values() {
            stranger.must_go.notify_one();
        }
    }
}

impl Place {
    /// The connection has shown the token: it is no stranger any more, for as long as it lives.
    ///
    /// # Errors
    /// [`ServerError::Rests`] if all places are taken.
    pub(super) fn welcome(&self) -> Result<(), ServerError> {
        let Taken { places, number, guest, .. } = self.0.as_ref();
        let mut guest = lock(guest);
        if guest.is_some() {
            return Ok(());
        }
        let permit = Arc::clone(&places.guests).try_acquire_owned().map_err(|_| ServerError::Rests {
            code: "overloaded",
            why: "the maximum of open connections (`limits.connections`) is reached: try again later"
                .to_owned(),
        })?;
        *guest = Some(permit);
        lock(&places.strangers).here.remove(number);
        Ok(())
    }

    /// Returns once the connection must make room for another stranger.
    pub(super) async fn must_go(&self) {
        self.0.must_go.notified().await;
        // A stranger that sent the token at the moment of its closing is kept.
        if lock(&self.0.guest).is_some() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        lock(&self.places.strangers).here.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn goes(place: &Place) -> bool {
        place.must_go().now_or_never().is_some()
    }

    #[test]
    fn the_stranger_that_was_here_longest_makes_room() {
        let places = Places::new(1, 2);
        let [first, second, third] = [(); 3].map(|()| places.enter(ONE));
        assert_eq!([goes(&first), goes(&second), goes(&third)], [true, false, false]);
        drop((first, second));

        let fourth = places.enter(ONE);

        assert_eq!([goes(&third), goes(&fourth)], [false, false], "a place was free");
        places.dismiss_strangers();
        assert_eq!([goes(&third), goes(&fourth)], [true, true]);
    }

    #[test]
    fn a_host_with_many_strangers_closes_its_own() {
        let places = Places::new(1, 3);
        let innocent = places.enter(OTHER);
        let many: Vec<Place> = (0..20).map(|_| places.enter(ONE)).collect();
        let late = places.enter(OTHER);

        assert!(!goes(&innocent) && !goes(&late));
        assert_eq!(many.iter().filter(|place| goes(place)).count(), 19);
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one_host() {
        let host = |text: &str| Host::of(text.parse().unwrap());
        assert_eq!(host("2001:db8::1"), host("2001:db8:0:0:ffff::2"));
        assert_ne!(host("2001:db8::1"), host("2001:db8:0:1::1"));
        assert_eq!(host("::ffff:192.0.2.1"), Host(ONE));
    }

    #[test]
    fn who_has_shown_the_token_makes_room_for_no_stranger() {
        let places = Places::new(1, 1);
        let guest = places.enter(ONE);
        guest.welcome().unwrap();
        guest.welcome().unwrap();

        let strangers = [(); 3].map(|()| places.enter(ONE));

        assert_eq!(strangers.each_ref().map(goes), [true, true, false]);
        assert!(!goes(&guest));
        let [_, _, last] = &strangers;
        assert!(matches!(last.welcome(), Err(ServerError::Rests { code: "overloaded", .. })));
        drop(guest);
        last.welcome().unwrap();
    }
}
