//! A read that proves damage records it at that moment: in a restore, a check, or the collector.
//!
//! An error proves damage of an object only if it is about that object, and if the site is otherwise present:
//! [`prove`] checks that. A site that is not mounted, or whose disk returns nothing, proves nothing. Proved
//! damage is quarantined (blobs) or recorded (all other objects), and an alarm is raised, in one batch: once,
//! however many requests meet it. From then on a push of the same content sends it again.
//!
//! Which snapshots need a damaged blob is found by a walk over all of them ([`name_the_hurt`]). That it is due is
//! written down in the batch that puts blobs in quarantine, so a crash does not lose it; a policy waits for it.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;

use format_spec::ChunkId;

use super::full::if_there_is_room;
use crate::defects::blobs::{self, Place};
use crate::defects::census;
use crate::defects::objects::{self, Object};
use crate::defects::packs;
use crate::error::{Chain, ServerError};
use crate::index::{KeyRange, Table};
use crate::rows::{Health, PackNumber, PackRow};
use crate::site::SiteError;
use crate::site::layout::{descriptor_object, pack_object};
use crate::store::Store;

/// Packs that are asked for a few bytes before one object is judged.
const SAMPLES: u32 = 8;
/// How many bytes of each.
const SAMPLE_LEN: u64 = 16;

/// A key behind those of all packs.
const PAST_ALL_PACKS: [u8; 5] = [u8::MAX; 5];

/// A blob, and why it could not be read where it lies.
pub(crate) struct Unread {
    pub(crate) id: ChunkId,
    pub(crate) place: Place,
    /// Known state of its stored bytes.
    pub(crate) health: Health,
    pub(crate) error: ServerError,
}

/// Why an error proves that what was read is damaged, for good; `None` if nothing is known. `pack` is where it lies,
/// if it is in one.
pub(crate) async fn prove(
    store: &Arc<Store>,
    pack: Option<PackNumber>,
    error: &ServerError,
) -> Option<String> {
    match claim(error)? {
        Claim::Proof(why) => Some(why),
        Claim::IfSiteIsThere(why) => is_there(store, pack).await.then_some(why),
    }
}

/// Conclusion from an error about the data that was read.
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

/// True if the site is present and readable: it has the descriptor of the repository, and most of some packs
/// beside `except`.
async fn is_there(store: &Arc<Store>, except: Option<PackNumber>) -> bool {
    let site = &store.parts.site;
    let descriptor = site.get(&descriptor_object()).await;
    if descriptor.ok().is_none_or(|found| found != store.descriptor.encode()) {
        return false;
    }
    let samples = store.blocking(move |store| samples(store, except)).await;
    let Ok(samples) = samples else { return false };
    let mut failed = 0;
    for row in &samples {
        let head = site.get_ranges(&pack_object(&row.id), std::slice::from_ref(&(0..SAMPLE_LEN))).await;
        failed += usize::from(head.is_err());
    }
    failed * 2 <= samples.len()
}

/// Some packs, spread over all.
fn samples(store: &Store, except: Option<PackNumber>) -> Result<Vec<PackRow>, ServerError> {
    let step = (store.totals()?.next_pack / SAMPLES).max(1);
    let known = blobs::packs(store)?;
    let mut rows = Vec::new();
    let mut seen = BTreeSet::new();
    for n in 0..SAMPLES {
        let range = KeyRange::between(&PackNumber(n.saturating_mul(step)).key(), &PAST_ALL_PACKS);
        let found = store.parts.index.scan(Table::Pack, &range, NonZeroUsize::MIN)?;
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
/// The error of the last attempt.
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
/// The error of the read; or that of recording the damage, unless the disk is full.
pub(crate) async fn heed<T>(
    store: &Arc<Store>,
    object: Object,
    read: Result<T, ServerError>,
) -> Result<T, ServerError> {
    let Err(error) = read else { return read };
    let pack = match object {
        Object::Pack(number) => Some(number),
        Object::Snapshot(_) | Object::Manifest(_) => None,
    };
    if pack.is_some_and(|pack| census::is_lost(store, pack)) {
        return Err(error);
    }
    let Some(why) = prove(store, pack, &error).await else {
        census::take_if_missing(store, &error).await?;
        return Err(error);
    };
    match (pack, &error) {
        (Some(_), ServerError::Site(SiteError::NotFound { .. })) => drop(census::take(store).await?),
        _ => {
            let problem = why.clone();
            let note = move |store: &Arc<Store>| {
                objects::note(store, object, &problem)?;
                pack.map_or(Ok(()), |pack| packs::note(store, pack))
            };
            if_there_is_room(store.blocking(note).await)?;
        }
    }
    Err(lost(error, why))
}

/// Quarantines blobs with proved damage, and returns the first of the errors, as callers see it.
///
/// # Errors
/// The finding could not be written down, for another reason than a full disk.
pub(crate) async fn blobs(store: &Arc<Store>, unread: Vec<Unread>) -> Result<ServerError, ServerError> {
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
                    None => is_there(store, Some(place.pack)).await,
                };
                is_there_without.insert(place.pack, is_there);
                is_there.then_some(why)
            }
        };
        let Some(why) = proof else {
            if first.is_none() {
                census::take_if_missing(store, &error).await?;
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
        census::take(store).await?;
    }
    store.blocking(move |store| quarantine(store, &damage)).await?;
    first.ok_or(ServerError::Bug("no blob was unread"))
}

/// Puts blobs in quarantine, and leaves the packs around them for new ones. Returns how many were not in it.
///
/// # Errors
/// It could not be written down, for another reason than a full disk.
pub(crate) fn quarantine(store: &Store, damage: &[(ChunkId, Place, String)]) -> Result<u64, ServerError> {
    if damage.is_empty() {
        return Ok(0);
    }
    let mark = || {
        let packs: BTreeSet<PackNumber> = damage.iter().map(|(_, place, _)| place.pack).collect();
        let marked = blobs::mark(store, damage)?;
        packs.into_iter().try_for_each(|pack| packs::note(store, pack))?;
        Ok(marked)
    };
    if_there_is_room(mark())
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

#[cfg(test)]
mod tests;
