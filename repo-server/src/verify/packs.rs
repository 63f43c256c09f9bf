//! Packs: on the site, of the right length, and every byte as it was written.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use format_spec::ChunkId;
use format_spec::wire::{FindingKind, Stopped, VerifyLevel};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::examine::{Examined, Readable, examine, pack_row};
use super::findings::{Cause, Number, Problem};
use super::limits::{self, Budget, Due, Pace};
use super::piecewise::{self, Pieces};
use super::{Attempt, Check};
use crate::defects::blobs::{self, Place};
use crate::defects::census;
use crate::defects::objects;
use crate::defects::packs;
use crate::defects::{self, if_there_is_room};
use crate::error::{Chain, ServerError};
use crate::rows::{ChunkRow, PackNumber, PackRow};
use crate::site::SiteError;
use crate::site::layout::pack_object;
use crate::store::{Store, wait};

/// Packs in memory at once: two are computed on while the next is read.
const AT_ONCE: usize = 3;
/// Packs that are asked for at once when only their length matters.
const LENGTHS_AT_ONCE: usize = 8;
/// Packs that are written down as verified together.
const VERIFIED_AT_ONCE: usize = 8;
/// A site that has not answered by then will not.
const PATIENCE: Duration = Duration::from_secs(300);

/// Known problems of blobs, by their places.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Blobs that cannot be read where they were.
    blobs: HashMap<ChunkId, (Place, Option<Number>)>,
    /// Packs of which nothing can be read.
    lost: HashMap<PackNumber, Option<Number>>,
    /// Packs that are not as they were written, whatever their blobs are.
    altered: HashMap<PackNumber, Option<Number>>,
}

impl Known {
    /// Why the blob at `row` cannot be read, if it cannot.
    pub(super) fn against(&self, id: &ChunkId, row: &ChunkRow) -> Option<Cause> {
        let bad = self.blobs.get(id).filter(|(place, _)| *place == Place::of(row));
        let bad = bad.map(|(_, number)| *number).or_else(|| self.lost.get(&row.pack).copied());
        bad.map(Cause::Known)
    }

    /// Problem of the pack around the blob, if there is one.
    pub(super) fn around(&self, row: &ChunkRow) -> Option<Cause> {
        self.altered.get(&row.pack).copied().map(Cause::Known)
    }

    /// Notes that a blob cannot be read where it lies.
    pub(super) fn note(&mut self, id: ChunkId, place: Place, number: Option<Number>) {
        self.blobs.insert(id, (place, number));
    }
}

/// Result of checking one pack.
enum Looked {
    /// It is there, with the right length.
    There,
    /// It has no row any more: the collector was here.
    Gone,
    /// The site does not have it.
    Missing(Arc<PackRow>),
    /// The site does not say.
    Unreadable(Arc<PackRow>, String),
    /// Every byte was looked at.
    Read(Examined, u64),
}

impl Check {
    /// Checks the packs in `scope`, or all that the index names, as far as the limits allow.
    pub(super) fn packs(&mut self, scope: Option<&BTreeSet<PackNumber>>) -> Result<(), ServerError> {
        let due = due(&self.store, scope)?;
        let total = due.iter().map(|pack| u64::from(pack.len)).sum();
        self.steps += u64::try_from(due.len()).unwrap_or(u64::MAX);
        let mut budget = Budget::new(&self.asked.limits, total, self.started);
        let (looked_at, stopped) = self.look_at(&due, &mut budget, Attempt::First)?;
        let later = std::mem::take(&mut self.later);
        let mut unlimited = Budget::new(&Default::default(), total, self.started);
        self.look_at(&later, &mut unlimited, Attempt::Last)?;
        let left = due.get(looked_at..).unwrap_or_default();
        self.state.report.left = limits::amount(left);
        self.state.report.stopped = stopped;
        self.done += u64::try_from(left.len()).unwrap_or(u64::MAX);
        self.write_verified()?;
        self.quarantine_lost()
    }

    /// Looks at `packs` in their order. Returns at how many, and why not at more.
    fn look_at(
        &mut self,
        packs: &[Due],
        budget: &mut Budget,
        attempt: Attempt,
    ) -> Result<(usize, Option<Stopped>), ServerError> {
        let at_once = if self.asked.level == VerifyLevel::Exists { LENGTHS_AT_ONCE } else { AT_ONCE };
        let mut pace = Pace::new(self.asked.limits.max_rate);
        let mut rest = packs.iter();
        let mut running = FuturesUnordered::new();
        loop {
            let mut over = None;
            while running.len() < at_once
                && let Some(pack) = rest.as_slice().first()
            {
                let now = self.store.parts.clock.monotonic();
                if let Err(why) = budget.begin(pack.len.into(), now) {
                    over = why;
                    break;
                }
                rest.next();
                let rest = pace.wait(pack.len.into(), now);
                running.push(look(Arc::clone(&self.store), (self.asked.level, attempt), *pack, rest));
            }
            let Some((pack, looked)) = wait(async { Ok(running.next().await) })? else {
                return Ok((packs.len() - rest.len(), over));
            };
            self.looked(pack, looked?, budget, attempt)?;
        }
    }

    fn looked(
        &mut self,
        pack: Due,
        looked: Looked,
        budget: &mut Budget,
        attempt: Attempt,
    ) -> Result<(), ServerError> {
        if matches!(looked, Looked::Unreadable(..)) && attempt == Attempt::First {
            budget.give_back(pack.len.into());
            self.later.push(pack);
            return Ok(());
        }
        self.state.report.packs += 1;
        self.step();
        match looked {
            Looked::There => {}
            Looked::Gone => budget.give_back(pack.len.into()),
            Looked::Missing(row) => {
                budget.give_back(pack.len.into());
                let problem = Problem::new(FindingKind::Missing, row.id, "is missing from the site");
                let number = self.state.findings.find(problem);
                self.state.known.lost.insert(pack.number, number);
                self.missing.insert(pack.number);
            }
            Looked::Unreadable(row, why) => {
                let problem = Problem::new(FindingKind::Unreadable, row.id, why);
                let number = self.state.findings.find(problem);
                self.state.known.lost.insert(pack.number, number);
            }
            Looked::Read(examined, bytes) => {
                self.state.report.bytes_read += bytes;
                self.read(pack.number, examined)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, pack: PackNumber, examined: Examined) -> Result<(), ServerError> {
        self.state.report.blobs += examined.opened;
        if examined.is_sound() {
            self.verified.push(pack);
        }
        let pack_object = objects::Object::Pack(pack);
        match (examined.directory, &examined.pack) {
            (Readable::No, Some(problem)) => self.remember(pack_object, Some(problem))?,
            _ => self.remember(pack_object, None)?,
        }
        if let Some(problem) = examined.pack {
            let number = self.state.findings.find(problem);
            self.state.known.altered.insert(pack, number);
            if_there_is_room(packs::note(&self.store, pack))?;
        }
        let mut damage = Vec::with_capacity(examined.blobs.len());
        for bad in examined.blobs {
            damage.push((bad.id, bad.place, bad.problem.what.clone()));
            let number = self.state.findings.find(bad.problem);
            self.state.known.note(bad.id, bad.place, number);
        }
        self.quarantine(damage)?;
        if !examined.recovered.is_empty() {
            let cleared = blobs::clear(&self.store, &examined.recovered);
            self.state.report.recovered += if_there_is_room(cleared)?;
        }
        if self.verified.len() >= VERIFIED_AT_ONCE { self.write_verified() } else { Ok(()) }
    }

    /// Writes down when packs were found as they should be.
    fn write_verified(&mut self) -> Result<(), ServerError> {
        let packs = std::mem::take(&mut self.verified);
        if packs.is_empty() {
            return Ok(());
        }
        if_there_is_room(write_verified(&self.store, &packs))
    }

    /// Puts all blobs of missing packs in quarantine, unless it is the site that is missing.
    fn quarantine_lost(&mut self) -> Result<(), ServerError> {
        if std::mem::take(&mut self.missing).is_empty() {
            return Ok(());
        }
        self.state.report.quarantined += wait(census::take(&self.store))?;
        Ok(())
    }

    /// Marks blobs as damaged.
    pub(super) fn quarantine(&mut self, damage: Vec<(ChunkId, Place, String)>) -> Result<(), ServerError> {
        self.state.report.quarantined += defects::quarantine(&self.store, &damage)?;
        Ok(())
    }
}

/// The packs that the index names, in the order in which they are to be looked at.
fn due(store: &Store, scope: Option<&BTreeSet<PackNumber>>) -> Result<Vec<Due>, ServerError> {
    let mut due = Vec::new();
    store.for_each_pack(|number, row| {
        if scope.is_none_or(|scope| scope.contains(&number)) {
            due.push(Due::new(number, row));
        }
    })?;
    limits::order(&mut due, &blobs::packs(store)?);
    Ok(due)
}

fn write_verified(store: &Store, packs: &[PackNumber]) -> Result<(), ServerError> {
    let verified_ms = store.parts.clock.unix_ms();
    // The present rows: the collector changes the live blobs of a pack, and deletes it.
    store.account(|ledger| packs.iter().try_for_each(|number| ledger.mark_verified(*number, verified_ms)))
}

/// To be awaited where one may block.
async fn look(
    store: Arc<Store>,
    how: (VerifyLevel, Attempt),
    due: Due,
    wait: Duration,
) -> (Due, Result<Looked, ServerError>) {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    (due, look_now(&store, how, due.number).await)
}

async fn look_now(
    store: &Arc<Store>,
    (level, attempt): (VerifyLevel, Attempt),
    number: PackNumber,
) -> Result<Looked, ServerError> {
    let Some(row) = row_of(store, number)? else { return Ok(Looked::Gone) };
    match fetch(store, level, &row).await {
        Ok(None) => Ok(Looked::There),
        Ok(Some(bytes)) => read(store, number, row, Pieces::whole(bytes)).await,
        Err(SiteError::NotFound { .. }) => {
            // Rows go before objects: if there is one still, the object should be there.
            let still = row_of(store, number)?;
            Ok(still.map_or(Looked::Gone, Looked::Missing))
        }
        Err(error) if error.is_fatal() => Err(store.site_error(error)),
        Err(error) => {
            let why = Chain(&error).to_string();
            let is_lasting = attempt == Attempt::Last
                && defects::prove(store, Some(number), &ServerError::Site(error)).await.is_some();
            if !is_lasting {
                return Ok(Looked::Unreadable(row, why));
            }
            let pieces = piecewise::read(store, &row).await.map_err(|error| store.site_error(error))?;
            read(store, number, row, pieces).await
        }
    }
}

fn row_of(store: &Store, number: PackNumber) -> Result<Option<Arc<PackRow>>, ServerError> {
    Ok(pack_row(store, number)?.map(Arc::new))
}

/// The bytes of a pack; none if a look at its length is enough.
async fn fetch(store: &Arc<Store>, level: VerifyLevel, row: &PackRow) -> Result<Option<Bytes>, SiteError> {
    let (site, name) = (&store.parts.site, pack_object(&row.id));
    let fetched = tokio::time::timeout(PATIENCE, async {
        if level == VerifyLevel::Exists && site.len(&name).await? == row.len {
            return Ok(None);
        }
        site.get(&name).await.map(Some)
    });
    fetched.await.unwrap_or_else(|_| {
        let why = format!("no answer within {PATIENCE:?}");
        Err(SiteError::unavailable(crate::site::Op::Get, &name, why))
    })
}

async fn read(
    store: &Arc<Store>,
    number: PackNumber,
    row: Arc<PackRow>,
    pieces: Pieces,
) -> Result<Looked, ServerError> {
    let len = u64::try_from(pieces.bytes.len()).unwrap_or(u64::MAX);
    let examined = store.compute(move |store| examine(store, number, &row, &pieces)).await?;
    Ok(examined.map_or(Looked::Gone, |examined| Looked::Read(examined, len)))
}
