//! The commit of a push: S1 to S4 of `docs/invariants.md`.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use format_spec::key::BlobKind;
use format_spec::manifest::{Manifest, Totals};
use format_spec::object::{self, ObjectKind};
use format_spec::snapshot::{ManifestRef, Origin, Snapshot, SnapshotState};
use format_spec::{About, ChunkId, FORMAT_VERSION, ManifestId, SessionId, SnapshotId};

use super::series::{self, Smaller};
use super::{get, named_pages, objects};
use crate::catalog::ledger::Counts;
use crate::catalog::{Flight, take_back};
use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::health::gate;
use crate::index::{IndexError, MAX_VALUE_LEN, Precondition, Table};
use crate::pack;
use crate::rows::{ChunkRow, DoomedKey, DoomedRow};
use crate::rows::{SessionRow, SessionState};
use crate::rules::Rule;
use crate::server::Server;
use crate::session::{self, Sessions};
use crate::site::layout::{manifest_object, snapshot_object};
use crate::store::{Domain, Store};

/// How many missing ids an error lists.
const LISTED: usize = 1000;

/// Most different pages of a manifest: about 60 million files, or 1 PB. One batch counts all of them, and
/// another one uncounts and queues them when the snapshot is purged.
const MAX_PAGES: usize = 130_000;

/// Commits a session's manifest. The snapshot is durable when this returns, and a session that asks
/// again gets the same one.
///
/// It is completed even if its request is dropped: an object in transfer has no other owner. `memory` is the
/// memory of the body, and is dropped at the end.
pub(crate) async fn commit(
    server: &Arc<Server>,
    session: SessionId,
    body: Bytes,
    smaller: Smaller,
    memory: impl Send + 'static,
) -> Result<Snapshot, ServerError> {
    let server = Arc::clone(server);
    let commits = tokio::spawn(async move {
        let committed = commit_to_the_end(&server, session, body, smaller).await;
        drop(memory);
        committed
    });
    commits.await.unwrap_or(Err(ServerError::Bug("a commit panicked")))
}

async fn commit_to_the_end(
    server: &Arc<Server>,
    session: SessionId,
    body: Bytes,
    smaller: Smaller,
) -> Result<Snapshot, ServerError> {
    // A client that repeats its commit waits for the attempt that is still running.
    let attempts = session::attempts(&server.sessions, session);
    let mut last_attempt = attempts.lock().await;
    let (granted, manifest) = match begin(server, session, body.clone()).await? {
        ControlFlow::Break(snapshot) => return Ok(snapshot),
        ControlFlow::Continue(begun) => begun,
    };
    let domain = server.domain(&granted.cluster);
    // Chunks first: the batch of a page's pack counts the chunks that the page refers to.
    pack::flush(&domain, BlobKind::Chunk).await?;
    pack::flush(&domain, BlobKind::Page).await?;
    let earlier = last_attempt.clone();
    let prepare = move |server: &Arc<Server>| {
        let pages = check_pages(&server.store, &domain.keys, &manifest)?;
        let (id, sealed) = seal_manifest(&server.store, &body);
        let snapshot = describe(server, &manifest, id, smaller)?;
        check_row(&snapshot)?;
        let flight = announce(server, session, &snapshot, &pages, earlier)?;
        let own = (snapshot_object(&snapshot.id), seal_snapshot(&server.store, &snapshot));
        Ok((snapshot, pages, flight, vec![(manifest_object(&id), sealed), own]))
    };
    let (snapshot, pages, flight, sealed) = server.blocking(prepare).await?;
    *last_attempt = objects(&snapshot).into_iter().next();
    let landing = flight.put(&server.store, sealed).await?;

    server
        .blocking(move |server| {
            let applied = apply(&server.store, &server.sessions, session, &granted, &snapshot, &pages);
            drop(landing);
            match applied {
                // Another request of the session was faster, or it was ended.
                Err(ServerError::Index(IndexError::Precondition { .. })) => {
                    committed(&server.store, session)?.ok_or(ServerError::SessionOver(session))
                }
                applied => applied.and_then(|()| get(&server.store, snapshot.id)),
            }
        })
        .await
}

/// The snapshot that the session has committed; if it has none, its grant and the manifest of `body`. One manifest after
/// the other: each may take many times its encoded length while it is decoded.
async fn begin(
    server: &Arc<Server>,
    session: SessionId,
    body: Bytes,
) -> Result<ControlFlow<Snapshot, (SessionRow, Manifest)>, ServerError> {
    let _turn = server.memory.decoding.acquire().await.expect("the semaphore is never closed");
    let begin = move |server: &Arc<Server>| {
        if let Some(snapshot) = committed(&server.store, session)? {
            return Ok(ControlFlow::Break(snapshot));
        }
        gate::check_push(&server.store)?;
        let granted = session::renew(&server.sessions, session)?;
        let manifest = Manifest::decode(&body).map_err(ServerError::Malformed)?;
        check_owner(&manifest, &granted)?;
        Ok(ControlFlow::Continue((granted, manifest)))
    };
    server.blocking(begin).await
}

/// The snapshot that the session has committed, if it has.
fn committed(store: &Store, session: SessionId) -> Result<Option<Snapshot>, ServerError> {
    session::committed(store, session)?.map(|snapshot| get(store, snapshot)).transpose()
}

pub(crate) fn check_owner(manifest: &Manifest, granted: &SessionRow) -> Result<(), ServerError> {
    if manifest.cluster == granted.cluster && manifest.node == granted.node {
        return Ok(());
    }
    Err(ServerError::BadRequest {
        code: "wrong_owner",
        why: format!(
            "the manifest is of node `{}` in cluster `{}`, but the session is of node `{}` in cluster `{}`",
            manifest.node, manifest.cluster, granted.node, granted.cluster
        ),
    })
}

/// How often the manifest names each page. All of them are in the index.
pub(crate) fn check_pages(
    store: &Store,
    domain: &Domain,
    manifest: &Manifest,
) -> Result<Counts, ServerError> {
    let pages = named_pages(manifest);
    if pages.len() > MAX_PAGES {
        let why = format!("the manifest names {} pages, more than the maximum of {MAX_PAGES}", pages.len());
        return Err(ServerError::BadRequest { code: "too_many_pages", why });
    }
    let rows = store.chunk_rows_of(domain, pages.keys())?;
    let is_page = |row: &Option<ChunkRow>| row.is_some_and(|row| row.kind == BlobKind::Page);
    let missing = pages.keys().zip(&rows).filter(|(_, row)| !is_page(row));
    let missing: Vec<ChunkId> = missing.map(|(id, _)| *id).take(LISTED).collect();
    if missing.is_empty() || !store.rules.keep(Rule::CommitFindsItsPages) {
        return Ok(pages);
    }
    Err(ServerError::MissingChunks { missing })
}

fn seal_manifest(store: &Store, payload: &[u8]) -> (ManifestId, Bytes) {
    let (keys, salt) = (&store.keys, store.salt());
    let sealed = object::seal(ObjectKind::Manifest, keys, store.id(), salt, payload);
    (ManifestId::of(&sealed), Bytes::from(sealed))
}

pub(super) fn seal_snapshot(store: &Store, snapshot: &Snapshot) -> Bytes {
    let (keys, salt) = (&store.keys, store.salt());
    object::seal(ObjectKind::Snapshot, keys, store.id(), salt, &snapshot.encode()).into()
}

/// Announces the objects of a snapshot while all its pages exist: from here on no pack is deleted before the
/// snapshot (G5), also if its session ends and it is never committed. From here on this attempt can be
/// completed, and not an `earlier` one.
fn announce(
    server: &Server,
    session: SessionId,
    snapshot: &Snapshot,
    pages: &Counts,
    earlier: Option<DoomedKey>,
) -> Result<Flight, ServerError> {
    let row = DoomedRow::announced_by(session);
    Flight::announce_if(&server.store, &server.in_flight, objects(snapshot), row, |ledger| {
        earlier.iter().for_each(|key| ledger.doom(key, DoomedRow::NOW));
        ledger.find(pages)?.map_err(|missing| ServerError::MissingChunks { missing })
    })
}

/// A new snapshot of this one manifest. Each attempt has its own id: what a crashed attempt left on
/// the site is never taken for this one. Blocks.
fn describe(
    server: &Server,
    manifest: &Manifest,
    id: ManifestId,
    smaller: Smaller,
) -> Result<Snapshot, ServerError> {
    let mut random = [0; 10];
    (server.store.parts.random)(&mut random);
    let created_ms = server.store.parts.clock.unix_ms();
    let mut snapshot = Snapshot {
        version: FORMAT_VERSION,
        id: SnapshotId::new(created_ms, random),
        cluster: manifest.cluster.clone(),
        created_ms,
        state: state_of(&manifest.totals),
        manifests: vec![ManifestRef {
            node: manifest.node.clone(),
            id,
            totals: manifest.totals,
            push: manifest.push.clone(),
            origin: Some(Origin::of(manifest)),
        }],
        number: None,
        shrunk: None,
        about: manifest.about.clone().and_then(About::if_any),
    };
    series::place(&server.store, &mut snapshot, server.next_commit(), smaller)?;
    Ok(Snapshot { id: SnapshotId::new(snapshot.created_ms, random), ..snapshot })
}

/// Checks that the row of the snapshot fits into the index, before anything is put: objects without a row
/// that fits would block the completion of interrupted commits.
fn check_row(snapshot: &Snapshot) -> Result<(), ServerError> {
    let len = snapshot.encode().len();
    if len <= MAX_VALUE_LEN {
        return Ok(());
    }
    let why =
        format!("the snapshot needs {len} bytes in the index, more than the maximum of {MAX_VALUE_LEN}");
    Err(ServerError::BadRequest { code: "snapshot_too_long", why })
}

fn state_of(totals: &Totals) -> SnapshotState {
    if totals.problems == 0 { SnapshotState::Complete } else { SnapshotState::Partial }
}

/// Checks that the session is as it was granted. The batch requires it as well; this early check tells a late
/// commit that its session has ended, and not which data it lacks by now.
fn check_fence(store: &Store, session: SessionId, granted: &SessionRow) -> Result<(), ServerError> {
    let key = session.as_bytes();
    if store.parts.index.get(Table::Session, key)? == Some(granted.encode()) {
        return Ok(());
    }
    Err(ServerError::Index(IndexError::Precondition { table: Table::Session, key: key.to_vec() }))
}

/// The one batch that makes the snapshot. Its session must still be as it was granted (L2), and ends with it;
/// its row remains, and names the committed snapshot.
pub(crate) fn apply(
    store: &Store,
    sessions: &Sessions,
    session: SessionId,
    granted: &SessionRow,
    snapshot: &Snapshot,
    pages: &Counts,
) -> Result<(), ServerError> {
    let at_ms = store.parts.clock.unix_ms();
    let committed = SessionState::Committed { snapshot: snapshot.id, at_ms };
    let done = SessionRow { state: committed, ..granted.clone() };
    store.account(|ledger| {
        let batch = ledger.batch();
        if store.rules.keep(Rule::CommitIsFenced) {
            check_fence(store, session, granted)?;
            batch.require(Table::Session, *session.as_bytes(), Precondition::Equals(granted.encode()));
        }
        batch.put(Table::Session, *session.as_bytes(), done.encode());
        batch.require(Table::Snapshot, *snapshot.id.as_bytes(), Precondition::Absent);
        batch.put(Table::Snapshot, *snapshot.id.as_bytes(), snapshot.encode());
        for manifest in &snapshot.manifests {
            batch.put(Table::Manifest, *manifest.id.as_bytes(), *snapshot.id.as_bytes());
        }
        take_back(batch, &objects(snapshot));
        if let Some(suspicion) = series::suspicion(snapshot) {
            let (code, subject) = (AlarmCode::SuspectSnapshot, series::subject(snapshot));
            alarm::raise_of_in(store, ledger.batch(), code, Some(&subject), &suspicion)?;
        }
        ledger.count(pages)?.map_err(|missing| ServerError::MissingChunks { missing })
    })?;
    session::forget(sessions, session);
    if snapshot.shrunk.is_some() || alarm::is_up(store, AlarmCode::SuspectSnapshot)? {
        series::watch_suspects(store)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use format_spec::manifest::{Fallback, PushStats};

    use super::*;

    fn snapshot(fallbacks: usize, reason_len: usize) -> Snapshot {
        let fallbacks = vec![Fallback { reason: "x".repeat(reason_len), files: 1 }; fallbacks];
        let push = Some(PushStats { fallbacks, ..PushStats::default() });
        let (node, id) = ("n".parse().unwrap(), ManifestId::from_bytes([2; 32]));
        Snapshot {
            version: FORMAT_VERSION,
            id: SnapshotId::new(1, [1; 10]),
            cluster: "c".parse().unwrap(),
            created_ms: 1,
            state: SnapshotState::Complete,
            manifests: vec![ManifestRef { node, id, totals: Totals::default(), push, origin: None }],
            number: None,
            shrunk: None,
            about: None,
        }
    }

    /// Each may take many times its encoded length.
    #[tokio::test]
    async fn manifests_are_decoded_one_at_a_time() {
        use futures_util::FutureExt;
        let server = crate::store::Parts::default().serve();
        let turn = server.memory.decoding.acquire().await.unwrap();
        let session = SessionId::from_bytes([7; 16]);
        let mut decoding = std::pin::pin!(begin(&server, session, Bytes::from_static(b"no manifest")));
        assert!(decoding.as_mut().now_or_never().is_none());

        drop(turn);

        assert!(matches!(decoding.await, Err(ServerError::SessionOver(_))));
    }

    /// X5: what has no room in the index is refused before any of it is put on a site.
    #[test]
    fn a_snapshot_that_is_too_long_for_its_row_is_refused() {
        use format_spec::label::{MAX_LABEL_VALUE_LEN, MAX_LABELS, MAX_NOTE_LEN};
        use format_spec::manifest::{MAX_FALLBACK_LEN, MAX_FALLBACKS};
        use format_spec::{Label, Labels};

        check_row(&snapshot(MAX_FALLBACKS, MAX_FALLBACK_LEN)).unwrap();
        let labels = (0..MAX_LABELS).map(|n| Label {
            key: format!("{n:03}{}", "k".repeat(125)).parse().unwrap(),
            value: "v".repeat(MAX_LABEL_VALUE_LEN).parse().unwrap(),
        });
        let note = Some("n".repeat(MAX_NOTE_LEN).parse().unwrap());
        let about = Some(About { labels: Labels::new(labels).unwrap(), note });
        check_row(&Snapshot { about, ..snapshot(MAX_FALLBACKS, MAX_FALLBACK_LEN) }).unwrap();
        let refused = check_row(&snapshot(MAX_FALLBACKS, 700)).unwrap_err();
        assert!(matches!(refused, ServerError::BadRequest { code: "snapshot_too_long", .. }), "{refused:?}");
    }
}
