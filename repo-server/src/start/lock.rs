//! The lock on the site is renewed as long as its store is in use, and given back at the end.

use std::sync::{Arc, Weak};

use crate::error::Chain;
use crate::site_lock::{LOOK_EVERY, LockError};
use crate::store::Store;

/// Renews the lock on the site of a store in time, until it is dropped. One that is lost halts it.
pub(crate) async fn keep(store: Weak<Store>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(store) = store.upgrade() else { return };
        renew(&store).await;
    }
}

/// Renews the lock on the site of a store if it is time to, and halts the store if it is lost.
pub(crate) async fn renew(store: &Arc<Store>) {
    let parts = &store.parts;
    match parts.lock.renew(parts.site.as_ref(), parts.clock.as_ref()).await {
        Ok(()) => {}
        Err(error @ LockError::Lost(_)) => store.halt(&error),
        Err(LockError::Site(error)) if error.is_fatal() => drop(store.site_error(error)),
        Err(error) => tracing::warn!(error = %Chain(&error), "the site lock could not be renewed"),
    }
}
