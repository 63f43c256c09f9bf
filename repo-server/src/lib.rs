//! The repository server: one deduplicated store, its index, and the HTTP interface to both.
//!
//! | module | what it owns |
//! |---|---|
//! | [`http`] | routes, limits, authentication; the only user of axum and the hyper server |
//! | `session` | who pushes: leases with fencing tokens |
//! | `snapshot` | the commit, and finding what was committed |
//! | `pack` | blobs into packs, packs to the site, blobs back |
//! | `audit` | are the counts what manifests and pages name? |
//! | [`checkpoint`] | what packs hold, collected, for who makes the index anew |
//! | `owed` | references to pages that are lost |
//! | [`rebuild`] | the index anew, from site and key |
//! | `verify` | is everything there, and as it was written? |
//! | [`repository`] | keys, domains, open packs; opening and making a data folder |
//! | [`index`] | rows behind the engine trait; the only user of fjall and sled |
//! | [`site`] | objects behind the site trait; the only user of `object_store` |
//! | [`durable`] | the one way a durable file comes to be |
//!
//! # What runs beside what
//!
//! | | push | commit | verify | restore |
//! |---|---|---|---|---|
//! | **push** | open packs are shared under `Domain::open`; the same chunk from two nodes is appended once, and sent once if both wait for what others have promised (L5); a session that is adopted is over, its row deleted in the batch that grants the new one (L4) | a commit waits for the packs of its domain; what comes later goes into new ones | nothing: packs and rows only ever appear | nothing: packs never change |
//! | **commit** | | counters change under `Repository::exclusively`; the session's row is the fence (L2), also against its adoption: whichever batch comes first wins | a snapshot appears whole, in one batch | a snapshot appears whole, in one batch |
//! | **verify**, **restore** | | | read only | read only |
//!
//! Nothing deletes yet. When something does, it must take part in this table.

#[expect(dead_code, reason = "its users come next")]
mod alarm;
mod audit;
pub mod checkpoint;
pub mod clock;
pub mod config;
pub mod durable;
pub mod error;
pub mod http;
pub mod index;
mod owed;
mod pack;
pub mod rebuild;
pub mod repository;
mod session;
pub mod site;
mod snapshot;
mod time;
mod verify;
#[cfg(test)]
mod world;

use std::sync::Arc;
use std::time::Duration;

use format_spec::key::BlobKind;

use crate::error::Chain;
use crate::repository::Repository;

/// Name and version of this program.
const SERVER: &str = concat!("astacus-server ", env!("CARGO_PKG_VERSION"));

/// Ends sessions whose time is over, every `period`, for ever.
pub async fn expire_sessions(repository: Arc<Repository>, period: Duration) {
    loop {
        tokio::time::sleep(period).await;
        match repository.blocking(|repository| session::expire(repository)).await {
            Ok(0) => {}
            Ok(ended) => tracing::info!(ended, "sessions expired"),
            Err(error) => tracing::error!(error = %Chain(&error), "sessions could not be expired"),
        }
    }
}

/// Stores what open packs hold, so that a push that goes on after a restart need not send it again.
pub async fn settle(repository: &Arc<Repository>) {
    for domain in repository.domains() {
        for kind in [BlobKind::Chunk, BlobKind::Page] {
            if let Err(error) = pack::flush(repository, &domain, kind).await {
                tracing::warn!(error = %Chain(&error), "open packs could not be stored");
            }
        }
    }
}
