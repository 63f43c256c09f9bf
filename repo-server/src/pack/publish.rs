//! A full pack's way: seal, publish on the site, one index batch.

use std::sync::Arc;

use format_spec::pack::{PackBuilder, SealedPack};
use tokio::sync::Semaphore;

use crate::catalog::ledger::NewPack;
use crate::catalog::{Flight, InFlight};
use crate::error::ServerError;
use crate::rows::DoomedKey;
use crate::site::layout::pack_object;
use crate::store::Store;

/// Packs that may be on their way to the site at once: bounds memory, and lets one be hashed while
/// another is synced.
const PUBLISHING: usize = 3;

/// The way of full packs to the site.
pub(super) struct Outbox {
    pub(super) store: Arc<Store>,
    in_flight: InFlight,
    /// Limits the number of packs in transfer.
    publishing: Semaphore,
}

impl Outbox {
    pub(super) fn new(store: &Arc<Store>, in_flight: &InFlight) -> Self {
        let publishing = Semaphore::new(PUBLISHING);
        Self { store: Arc::clone(store), in_flight: in_flight.clone(), publishing }
    }

    /// Waits until one more pack may be on its way.
    pub(super) async fn wait_for_room(&self) {
        let room = self.publishing.acquire().await;
        drop(room.expect("the semaphore is never closed"));
    }

    /// Seals a pack, stores it, and adds its rows.
    pub(super) async fn travel(&self, pack: PackBuilder) -> Result<(), ServerError> {
        let _permit = self.publishing.acquire().await.expect("the semaphore is never closed");
        let in_flight = self.in_flight.clone();
        let announce = move |store: &Arc<Store>| {
            let pack = pack.seal(&store.keys);
            let keys = vec![DoomedKey::of(pack_object(&pack.id))];
            Ok((Flight::announce(store, &in_flight, keys)?, pack))
        };
        let (flight, pack) = self.store.blocking(announce).await?;
        let objects = vec![(pack_object(&pack.id), pack.bytes.clone())];
        let landing = flight.put(&self.store, objects).await?;
        let index = move |store: &Arc<Store>| {
            store.account(|ledger| {
                landing.land(ledger.batch());
                ledger.add_pack(&new_pack(&pack))
            })
        };
        self.store.blocking(index).await
    }
}

pub(crate) fn new_pack(pack: &SealedPack) -> NewPack<'_> {
    let len = u64::try_from(pack.bytes.len()).unwrap_or(u64::MAX);
    NewPack { id: pack.id, len, directory: &pack.directory }
}
