//! Work that a server does beside its requests, as long as it runs.

use std::sync::Arc;
use std::time::Duration;

use format_spec::key::BlobKind;

use crate::checkpoint;
use crate::defects::census;
use crate::error::Chain;
use crate::forget;
use crate::freshness;
use crate::gc;
use crate::health::space;
use crate::notify;
use crate::operation;
use crate::pack;
use crate::pack::OpenDomain;
use crate::server::Server;
use crate::session;
use crate::start::compare;
use crate::tls::{self, Tls};
use crate::verify;

/// Ends sessions whose time is over, and looks at the clock and at the room on the disk, every `period`,
/// for ever.
pub async fn expire_sessions(server: Arc<Server>, period: Duration) {
    loop {
        look_around(&server).await;
        if let Err(error) = census::look_again(&server.store).await {
            tracing::error!(error = %Chain(&error), "the packs on the site could not be counted again");
        }
        tokio::time::sleep(period).await;
        end_sessions(&server).await;
        store_left_packs(&server).await;
    }
}

/// Names the snapshots that need what is found damaged, each time that is, for ever.
pub async fn name_damage(server: Arc<Server>) {
    verify::name_as_met(server).await;
}

/// Renews certificates and reads them again every `period`, and keeps their alarms, for ever.
pub async fn keep_certificates(server: Arc<Server>, tls: Option<Arc<Tls>>, period: Duration) {
    loop {
        let tls_now = tls.clone();
        let looked = server.blocking(move |server| tls::look(&server.store, tls_now.as_deref())).await;
        if let Err(error) = looked {
            tracing::error!(error = %Chain(&error), "the certificates could not be checked");
        }
        tokio::time::sleep(period).await;
    }
}

/// Tells people of alarms by the configured channels, for ever.
pub async fn tell_people(server: Arc<Server>) {
    notify::tell(server).await;
}

/// Ends sessions whose time is over, once what the last process left is settled.
pub(crate) async fn end_sessions(server: &Arc<Server>) {
    if !compare::settle_once(server).await {
        return;
    }
    match server.blocking(|server| session::expire(&server.sessions)).await {
        Ok(0) => {}
        Ok(ended) => tracing::info!(ended, "sessions expired"),
        Err(error) => tracing::error!(error = %Chain(&error), "sessions could not be expired"),
    }
}

/// Stores the open packs of clusters without an open session, and drops the open state of these clusters:
/// they may never push again. The next push after an interrupted one need not send this data again.
pub(crate) async fn store_left_packs(server: &Arc<Server>) {
    let busy = server.sessions.clusters();
    let left = server.domains.all().into_iter().filter(|domain| !busy.contains(&domain.keys.name));
    for domain in left.filter(|domain| domain.has_open_packs()) {
        store_open_packs(&domain).await;
    }
    server.domains.drop_idle();
}

/// Raises the alarms that need no request.
async fn look_around(server: &Arc<Server>) {
    let looked = server.blocking(|server| {
        server.clock_watch.look(&server.store)?;
        space::look(&server.store)?;
        freshness::look(server)
    });
    if let Err(error) = looked.await {
        tracing::error!(error = %Chain(&error), "clock, disk and series could not be checked");
    }
}

/// Looks after the repository as its settings say, for ever: forgets by policy, and collects.
pub async fn look_after(server: Arc<Server>) {
    let Some(every) = server.store.parts.upkeep.gc.every else { return };
    loop {
        tokio::time::sleep(every).await;
        match forget::by_policy(&server).await {
            Ok(0) => {}
            Ok(forgotten) => tracing::info!(forgotten, "snapshots deleted by policy"),
            Err(error) => tracing::error!(error = %Chain(&error), "retention policies could not be applied"),
        }
        match operation::run_unheard(&server, gc::Unwatched).await {
            Ok(report) => tracing::info!(
                purged = report.purged.len(),
                chunks = report.chunks.count,
                deleted = report.deleted.count,
                deleted_bytes = report.deleted.bytes,
                stopped = report.stopped,
                "collected"
            ),
            Err(error) => tracing::error!(error = %Chain(&error), "garbage collection failed"),
        }
        if let Err(error) = checkpoint::run(&server, checkpoint::When::Due).await {
            tracing::error!(error = %Chain(&error), "the checkpoint could not be written");
        }
    }
}

/// Gives the lock on the site back: the last thing before the process ends.
pub async fn release(server: &Arc<Server>) {
    if let Err(error) = server.store.parts.lock.release(server.store.parts.site.as_ref()).await {
        tracing::warn!(error = %Chain(&error), "the site lock could not be released");
    }
}

/// Stores open packs, so that a push that continues after a restart need not send their data again.
pub async fn settle(server: &Arc<Server>) {
    for domain in server.domains.all() {
        store_open_packs(&domain).await;
    }
}

async fn store_open_packs(domain: &Arc<OpenDomain>) {
    for kind in [BlobKind::Chunk, BlobKind::Page] {
        if let Err(error) = pack::flush(domain, kind).await {
            tracing::warn!(error = %Chain(&error), "open packs could not be stored");
        }
    }
}
