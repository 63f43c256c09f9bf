//! Objects on their way to the site: what a crash or a failure leaves behind is found by name.
//!
//! Before an object is put, its name is doomed, durably; the batch that makes the object count removes the
//! doom. While this process works on the object, its name is in flight, and the collector skips it. After a
//! crash no name is in flight, and doomed objects are deleted (S7), unless they belong to a commit that can
//! be completed (`start::finish`).
//!
//! The order that makes this safe (G6): add the name to the set of names in flight → write its row → put the
//! object → commit or fail durably → remove the name from the set. A name that is not in flight, and then
//! still doomed, is garbage, once the commits of the last process are completed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::catalog::ledger::Ledger;
use crate::error::ServerError;
use crate::index::{Batch, Table};
use crate::rows::{DoomedKey, DoomedRow};
use crate::site::ObjectName;
use crate::store::{Store, wait};
use crate::sync::lock;

/// The names that are on their way now.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<HashSet<DoomedKey>>>);

impl InFlight {
    /// True if an object is in flight.
    pub(crate) fn contains(&self, key: &DoomedKey) -> bool {
        lock(&self.0).contains(key)
    }

    /// True if no object is in flight.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

/// Puts one object on the site, and waits for that. It counts once a batch has let it land.
///
/// The order is the promise (G6), and each step is durable before the next: the name is in flight, a row announces it,
/// the object is on the site. The name stays in flight until the [`Landing`] is dropped. A crash or an error after the
/// announcement leaves a row that leads the collector to the object, if there is one.
///
/// # Errors
/// The index or the site failed. The object is on the site or not, and does not count.
pub(crate) fn publish(
    store: &Store,
    in_flight: &InFlight,
    name: ObjectName,
    bytes: Bytes,
) -> Result<Landing, ServerError> {
    let flight = Flight::announce(store, in_flight, vec![DoomedKey::of(name.clone())])?;
    wait(flight.put(store, vec![(name, bytes)]))
}

/// Objects that are announced. Their names are in flight until this is dropped.
///
/// Only [`publish`], and a commit with two objects and a condition, come here: see there for the order.
pub(crate) struct Flight {
    in_flight: InFlight,
    keys: Vec<DoomedKey>,
}

/// Announced objects that are on the site. Their names are in flight until this is dropped.
pub(crate) struct Landing(Flight);

impl Flight {
    /// Announces objects, durably. Blocks.
    pub(crate) fn announce(
        store: &Store,
        in_flight: &InFlight,
        keys: Vec<DoomedKey>,
    ) -> Result<Self, ServerError> {
        Self::announce_if(store, in_flight, keys, DoomedRow::NOW, |_| Ok(()))
    }

    /// Announces objects by this row, durably, if `check` passes in the batch that does so. Blocks.
    pub(crate) fn announce_if(
        store: &Store,
        in_flight: &InFlight,
        keys: Vec<DoomedKey>,
        row: DoomedRow,
        mut check: impl FnMut(&mut Ledger<'_>) -> Result<(), ServerError>,
    ) -> Result<Self, ServerError> {
        lock(&in_flight.0).extend(keys.iter().cloned());
        let flight = Self { in_flight: in_flight.clone(), keys };
        store.account(|ledger| {
            check(ledger)?;
            for key in &flight.keys {
                ledger.doom(key, row);
            }
            Ok(())
        })?;
        Ok(flight)
    }

    /// Puts the announced objects on the site, in the order given: all of them, and no others.
    ///
    /// # Errors
    /// The site failed. Some objects may be on it; all of them stay announced.
    pub(crate) async fn put(
        self,
        store: &Store,
        objects: Vec<(ObjectName, Bytes)>,
    ) -> Result<Landing, ServerError> {
        let is_announced = |(name, _): &(ObjectName, Bytes)| self.keys.iter().any(|key| key.name == *name);
        if objects.len() != self.keys.len() || !objects.iter().all(is_announced) {
            return Err(ServerError::Bug("the objects to put are not those that were announced"));
        }
        for (name, bytes) in objects {
            store.put(&name, bytes).await?;
        }
        Ok(Landing(self))
    }
}

impl Landing {
    /// Lets the batch say that the objects count.
    pub(crate) fn land(&self, batch: &mut Batch) {
        take_back(batch, &self.0.keys);
    }
}

/// Lets the batch say that objects which were announced count.
pub(crate) fn take_back(batch: &mut Batch, keys: &[DoomedKey]) {
    for key in keys {
        batch.delete(Table::Doomed, key.encode());
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut in_flight = lock(&self.in_flight.0);
        for key in &self.keys {
            in_flight.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use format_spec::CheckpointId;

    use super::*;
    use crate::rows::DoomedKind;
    use crate::site::layout::{checkpoint_object, descriptor_object};
    use crate::world::World;

    fn is_doomed(world: &World, key: &DoomedKey) -> bool {
        world.index().get(Table::Doomed, &key.encode()).unwrap().is_some()
    }

    async fn publish_in(world: &World, name: ObjectName, text: &'static str) -> Result<Landing, ServerError> {
        let in_flight = world.server.in_flight.clone();
        world.store.waiting(move |store| publish(store, &in_flight, name, text.into())).await
    }

    /// G6: a row leads to the object until its batch, and the collector skips it until its landing is dropped.
    #[tokio::test]
    async fn an_object_is_announced_until_it_lands() {
        let world = World::new();
        let in_flight = &world.server.in_flight;
        let name = checkpoint_object(&CheckpointId::from_bytes([7; 32]));
        let key = DoomedKey::of(name.clone());

        let landing = publish_in(&world, name.clone(), "x").await.unwrap();
        assert!(is_doomed(&world, &key) && in_flight.contains(&key));
        assert_eq!(world.site().get(&name).await.unwrap(), "x");
        let mut batch = Batch::new();
        landing.land(&mut batch);
        world.store.commit(batch).unwrap();
        assert!(!is_doomed(&world, &key) && in_flight.contains(&key));
        drop(landing);

        assert!(in_flight.is_empty());
    }

    /// S7: the collector finds by its row what a failed put may have left.
    #[tokio::test]
    async fn a_put_that_fails_leaves_the_row_and_nothing_in_flight() {
        let world = World::new();
        let in_flight = &world.server.in_flight;

        let refused = publish_in(&world, descriptor_object(), "other").await;

        assert!(matches!(refused.err(), Some(ServerError::Site(_))));
        let key = DoomedKey::of(descriptor_object());
        assert!(is_doomed(&world, &key) && key.kind == DoomedKind::Other);
        assert!(in_flight.is_empty());
    }

    #[tokio::test]
    async fn an_object_that_was_not_announced_is_not_put() {
        let world = World::new();
        let [one, other] = [7, 8].map(|byte| checkpoint_object(&CheckpointId::from_bytes([byte; 32])));
        let keys = vec![DoomedKey::of(one.clone())];
        for objects in [vec![], vec![(other.clone(), Bytes::new())]] {
            let flight = Flight::announce(&world.store, &world.server.in_flight, keys.clone()).unwrap();
            let refused = flight.put(&world.store, objects).await.err();
            assert!(matches!(refused, Some(ServerError::Bug(_))), "{refused:?}");
        }
        world.site().get(&other).await.unwrap_err();
    }
}
