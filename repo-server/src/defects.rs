//! What a read proves wrong is written down at that moment, whoever read it: a restore, a check, the collector.
//!
//! An error proves something against one object only if it speaks of that object, and if the site is there all the
//! same: [`prove`] looks. A site that is not mounted, or whose disk gives nothing, proves nothing. What is proved goes
//! in quarantine (blobs) or is remembered (all other objects), and an alarm is up, in one batch: once, however many
//! requests meet it. From then on a push of the same content sends it again.
//!
//! Which snapshots need a damaged blob is found by a walk over all of them ([`name_the_hurt`]). That it is due is
//! written down in the batch that puts blobs in quarantine, so a crash does not lose it; a policy waits for it.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::wire::VerifyLevel;

use crate::altered;
use crate::census;
use crate::damaged::{self, Object};
use crate::error::{Chain, ServerError};
use crate::index::row::{Health, PackNumber, PackRow};
use crate::index::{Batch, KeyRange, Table};
use crate::pack::object_name;
use crate::quarantine::{self, Place};
use crate::repository::{Repository, create};
use crate::site::SiteError;
use crate::verify;

/// Packs that are asked for a few bytes before one object is judged.
const SAMPLES: u32 = 8;
/// How many bytes of each.
const SAMPLE_LEN: u64 = 16;

/// A key behind those of all packs.
const PAST_ALL_PACKS: [u8; 5] = [u8::MAX; 5];

/// A number that grows with each batch that puts blobs in quarantine; gone once a walk has named all they hurt.
const WALK_KEY: &[u8] = b"hurt_due";

/// A blob, and why it could not be read where it lies.
pub(crate) struct Unread {
    pub(crate) id: ChunkId,
    pub(crate) place: Place,
    /// What is known of it already.
    pub(crate) health: Health,
    pub(crate) error: ServerError,
}

/// Why an error proves that what was read is damaged, for good; `None` if nothing is known. `pack` is where it lies,
/// if it is in one.
pub(crate) async fn prove(
    repository: &Arc<Repository>,
    pack: Option<PackNumber>,
    error: &ServerError,
) -> Option<String> {
    match claim(error)? {
        Claim::Proof(why) => Some(why),
        Claim::IfSiteIsThere(why) => is_there(repository, pack).await.then_some(why),
    }
}

/// What an error says against what was read.
enum Claim {
    /// Its bytes are wrong.
    Proof(String),
    /// The site does not give them, which may be the site's own trouble.
    IfSiteIsThere(String),
}

fn claim(error: &ServerError) -> Option<Claim> {
    match error {
        ServerError::Damaged { source, .. } => Some(Claim::Proof(source.to_string())),
        ServerError::Lost { why, .. } => Some(Claim::Proof(why.clone())),
        ServerError::Site(error) if error.is_of_object() => Some(Claim::IfSiteIsThere(match error {
            SiteError::NotFound { .. } => "is missing from the site".to_owned(),
            SiteError::OutOfRange { len, .. } => format!("has the wrong length, {len} bytes"),
            other => format!("cannot be read, also on the second attempt: {}", Chain(other)),
        })),
        _ => None,
    }
}

/// Whether the site is there and gives what it holds: the repository's descriptor, and most of some packs beside
/// `except`.
async fn is_there(repository: &Arc<Repository>, except: Option<PackNumber>) -> bool {
    let site = &repository.parts.site;
    let descriptor = site.get(&create::descriptor_name()).await;
    if descriptor.ok().is_none_or(|found| found != repository.descriptor.encode()) {
        return false;
    }
    let samples = repository.blocking(move |repository| samples(repository, except)).await;
    let Ok(samples) = samples else { return false };
    let mut failed = 0;
    for row in &samples {
        let head = site.get_ranges(&object_name(&row.id), std::slice::from_ref(&(0..SAMPLE_LEN))).await;
        failed += usize::from(head.is_err());
    }
    failed * 2 <= samples.len()
}

/// Some packs, spread over all.
fn samples(repository: &Repository, except: Option<PackNumber>) -> Result<Vec<PackRow>, ServerError> {
    let step = (repository.totals()?.next_pack / SAMPLES).max(1);
    let known = quarantine::packs(repository)?;
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    for n in 0..SAMPLES {
        let range = KeyRange::between(&PackNumber(n.saturating_mul(step)).key(), &PAST_ALL_PACKS);
        let found = repository.parts.index.scan(Table::Pack, &range, NonZeroUsize::MIN)?;
        for row in found.rows {
            let pack = PackNumber::from_key(&row.key).zip(PackRow::decode(&row.value));
            let (number, pack) = pack.ok_or_else(|| ServerError::Row { object: "a pack".to_owned() })?;
            let is_known = known.binary_search(&number).is_ok();
            if Some(number) != except && !is_known && seen.insert(number) {
                rows.push(pack);
            }
        }
    }
    Ok(rows)
}

/// Reads once more what the disk did not give.
///
/// # Errors
/// That of the last attempt.
pub(crate) async fn twice<T, R: Future<Output = Result<T, ServerError>>>(
    read: impl Fn() -> R,
) -> Result<T, ServerError> {
    match read().await {
        Err(ServerError::Site(SiteError::Unreadable { .. })) => read().await,
        read => read,
    }
}

/// Passes on what reading an object came to, and writes down what that proves against it.
///
/// # Errors
/// That of the read; or that the finding could not be written down, for another reason than a full disk.
pub(crate) async fn heed<T>(
    repository: &Arc<Repository>,
    object: Object,
    read: Result<T, ServerError>,
) -> Result<T, ServerError> {
    let Err(error) = read else { return read };
    let pack = match object {
        Object::Pack(number) => Some(number),
        Object::Snapshot(_) | Object::Manifest(_) => None,
    };
    if pack.is_some_and(|pack| census::is_lost(repository, pack)) {
        return Err(error);
    }
    let Some(why) = prove(repository, pack, &error).await else {
        census::take_if_missing(repository, &error).await?;
        return Err(error);
    };
    match (pack, &error) {
        (Some(_), ServerError::Site(SiteError::NotFound { .. })) => drop(census::take(repository).await?),
        _ => {
            let problem = why.clone();
            let note = move |repository: &Arc<Repository>| {
                damaged::note(repository, object, &problem)?;
                pack.map_or(Ok(()), |pack| altered::note(repository, pack))
            };
            if_there_is_room(repository.blocking(note).await)?;
        }
    }
    Err(lost(error, why))
}

/// Puts in quarantine what is proved against blobs, and answers the first of the errors, as callers are told of it.
///
/// # Errors
/// The finding could not be written down, for another reason than a full disk.
pub(crate) async fn blobs(
    repository: &Arc<Repository>,
    unread: Vec<Unread>,
) -> Result<ServerError, ServerError> {
    let (mut damage, mut is_missing, mut first) = (Vec::new(), false, None);
    let mut is_there_without = HashMap::new();
    for Unread { id, place, health, error } in unread {
        let proof = match claim(&error) {
            None => None,
            Some(Claim::IfSiteIsThere(why)) if health == Health::Damaged => Some(why),
            Some(Claim::Proof(why)) => Some(why),
            Some(Claim::IfSiteIsThere(why)) => {
                let is_there = match is_there_without.get(&place.pack) {
                    Some(known) => *known,
                    None => is_there(repository, Some(place.pack)).await,
                };
                is_there_without.insert(place.pack, is_there);
                is_there.then_some(why)
            }
        };
        let Some(why) = proof else {
            if first.is_none() {
                census::take_if_missing(repository, &error).await?;
            }
            first.get_or_insert(error);
            continue;
        };
        if health == Health::Damaged {
            // It is written down.
        } else if matches!(error, ServerError::Site(SiteError::NotFound { .. })) {
            is_missing = true;
        } else {
            damage.push((id, place, why.clone()));
        }
        first.get_or_insert(lost(error, why));
    }
    if is_missing {
        census::take(repository).await?;
    }
    quarantine(repository, damage).await?;
    first.ok_or(ServerError::Bug("no blob was unread"))
}

/// Puts blobs in quarantine, and leaves the packs around them for new ones. Returns how many were not in it.
///
/// # Errors
/// It could not be written down, for another reason than a full disk.
pub(crate) async fn quarantine(
    repository: &Arc<Repository>,
    damage: Vec<(ChunkId, Place, String)>,
) -> Result<u64, ServerError> {
    if damage.is_empty() {
        return Ok(0);
    }
    let mark = move |repository: &Arc<Repository>| {
        let packs: BTreeSet<PackNumber> = damage.iter().map(|(_, place, _)| place.pack).collect();
        let marked = mark(repository, &damage)?;
        for pack in packs {
            altered::note(repository, pack)?;
        }
        Ok(marked)
    };
    if_there_is_room(repository.blocking(mark).await)
}

/// Puts blobs in quarantine whose packs are gone. Returns how many were not in it. Blocks.
///
/// # Errors
/// It could not be written down.
pub(crate) fn mark(repository: &Repository, damage: &[(ChunkId, Place, String)]) -> Result<u64, ServerError> {
    let marked = quarantine::mark(repository, damage)?;
    if marked > 0 {
        let (id, _, why) = damage.first().ok_or(ServerError::Bug("nothing was marked"))?;
        tracing::warn!(blobs = marked, such_as = %id, why, "stored blobs are damaged: quarantined");
        repository.damage_met.notify_one();
    }
    Ok(marked)
}

/// The error of a read whose object is proved to be damaged: no later attempt will help.
fn lost(error: ServerError, why: String) -> ServerError {
    match error {
        ServerError::Site(SiteError::Unreadable { name, .. }) => {
            ServerError::Lost { object: name.to_string(), why }
        }
        error => error,
    }
}

/// A check goes on on a full disk (P8): what it cannot write down is in its report, and found by the next one again.
pub(crate) fn if_there_is_room<T: Default>(written: Result<T, ServerError>) -> Result<T, ServerError> {
    match written {
        Err(ServerError::Full { what }) => {
            tracing::warn!(what, "found damage could not be recorded");
            Ok(T::default())
        }
        written => written,
    }
}

/// A walk over all snapshots is due: says so in the batch by which it becomes due.
pub(crate) fn walk_is_due(repository: &Repository, batch: &mut Batch) -> Result<(), ServerError> {
    let next = due(repository)?.unwrap_or_default().wrapping_add(1);
    batch.put(Table::Meta, WALK_KEY, next.to_le_bytes());
    Ok(())
}

/// Which walk is due, if one is. Blocks.
pub(crate) fn due(repository: &Repository) -> Result<Option<u64>, ServerError> {
    let Some(value) = repository.parts.index.get(Table::Meta, WALK_KEY)? else { return Ok(None) };
    let wrong = |_| ServerError::Row { object: "the number of a walk".to_owned() };
    value.try_into().map(u64::from_le_bytes).map(Some).map_err(wrong)
}

/// A walk that began when `begun` was due has named all that is hurt, unless more became damaged meanwhile. Blocks.
pub(crate) fn walked(repository: &Repository, begun: Option<u64>) -> Result<(), ServerError> {
    repository.exclusively(|| {
        if begun.is_none() || due(repository)? != begun {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.delete(Table::Meta, WALK_KEY);
        repository.commit(batch)
    })
}

/// Finds the snapshots that need what is damaged, if blobs were put in quarantine since the last walk.
///
/// # Errors
/// [`ServerError`] if the walk cannot go on. It stays due.
pub(crate) async fn name_the_hurt(repository: &Arc<Repository>) -> Result<(), ServerError> {
    if repository.blocking(|repository| due(repository)).await?.is_some() {
        verify::run(repository, VerifyLevel::Index.into(), &|_, _| {}).await?;
    }
    Ok(())
}

/// Names what is hurt each time that damage is met, for ever.
pub(crate) async fn name_as_met(repository: Arc<Repository>) {
    loop {
        if let Err(error) = name_the_hurt(&repository).await {
            tracing::error!(error = %Chain(&error), "the snapshots affected by damage could not be determined");
        }
        repository.damage_met.notified().await;
    }
}

#[cfg(test)]
mod tests;
