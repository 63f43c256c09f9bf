//! Places for connections. A connection that has not sent the token is a stranger, and strangers have a few
//! places of their own: when these are taken, the oldest stranger is closed, so that clients without the
//! token cannot block those that have it.

use std::collections::BTreeMap;
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
    here: BTreeMap<u64, Arc<Notify>>,
    next: u64,
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

    /// A place for a stranger. If all are taken, the oldest stranger is closed.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let must_go = Arc::new(Notify::new());
        let mut strangers = lock(&self.strangers);
        if strangers.here.len() >= self.most_strangers
            && let Some((_, oldest)) = strangers.here.pop_first()
        {
            oldest.notify_one();
        }
        let number = strangers.next;
        strangers.next += 1;
        strangers.here.insert(number, Arc::clone(&must_go));
        Place(Arc::new(Taken { places: Arc::clone(self), number, must_go, guest: Mutex::default() }))
    }

    /// Closes all strangers: the server stops.
    pub(super) fn dismiss_strangers(&self) {
        for stranger in std::mem::take(&mut lock(&self.strangers).here).into_values() {
            stranger.notify_one();
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
    use futures_util::FutureExt;

    use super::*;

    fn goes(place: &Place) -> bool {
        place.must_go().now_or_never().is_some()
    }

    #[test]
    fn the_stranger_that_was_here_longest_makes_room() {
        let places = Places::new(1, 2);
        let [first, second, third] = [(); 3].map(|()| places.enter());
        assert_eq!([goes(&first), goes(&second), goes(&third)], [true, false, false]);
        drop((first, second));

        let fourth = places.enter();

        assert_eq!([goes(&third), goes(&fourth)], [false, false], "a place was free");
        places.dismiss_strangers();
        assert_eq!([goes(&third), goes(&fourth)], [true, true]);
    }

    #[test]
    fn who_has_shown_the_token_makes_room_for_no_stranger() {
        let places = Places::new(1, 1);
        let guest = places.enter();
        guest.welcome().unwrap();
        guest.welcome().unwrap();

        let strangers = [(); 3].map(|()| places.enter());

        assert_eq!(strangers.each_ref().map(goes), [true, true, false]);
        assert!(!goes(&guest));
        let [_, _, last] = &strangers;
        assert!(matches!(last.welcome(), Err(ServerError::Rests { code: "overloaded", .. })));
        drop(guest);
        last.welcome().unwrap();
    }
}
