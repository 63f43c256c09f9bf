//! The snapshots that need what was found damaged are named.

use std::sync::Arc;

use format_spec::wire::VerifyLevel;

use super::check;
use crate::defects;
use crate::error::{Chain, ServerError};
use crate::operation::Progress;
use crate::server::Server;

/// Finds the snapshots that need what is damaged, if blobs were put in quarantine since the last walk. Waits for the site.
///
/// # Errors
/// [`ServerError`] if the walk failed. It stays due.
pub(crate) fn name_the_hurt(server: &Arc<Server>) -> Result<(), ServerError> {
    if defects::due(&server.store)?.is_some() {
        check(server, VerifyLevel::Index.into(), Progress::unheard())?;
    }
    Ok(())
}

/// Names the affected snapshots each time that damage is found, forever.
pub(crate) async fn name_as_met(server: Arc<Server>) {
    loop {
        if let Err(error) = server.waiting(name_the_hurt).await {
            tracing::error!(error = %Chain(&error), "the snapshots affected by damage could not be determined");
        }
        server.store.damage.met.notified().await;
    }
}
