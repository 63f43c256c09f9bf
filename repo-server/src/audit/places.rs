//! Comparison of the packs' own figures with their rows, and of the totals with their sums.

use format_spec::wire::AuditState;

use super::{Audit, Gravity};
use crate::error::ServerError;
use crate::rows::{Live, PackNumber, PackRow, Totals};

/// Sums over the rows of packs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    packs: u32,
    stored_bytes: u64,
    /// The greatest number of all.
    last: Option<PackNumber>,
}

impl Sums {
    /// Adds a pack; those that are newer than `before` only to the greatest number.
    pub(super) fn add(&mut self, number: PackNumber, row: &PackRow, before: &Totals) {
        self.last = self.last.max(Some(number));
        if number.0 < before.next_pack {
            self.packs += 1;
            self.stored_bytes += row.len;
        }
    }
}

impl Audit<'_> {
    /// Compares what each pack says lies in it with the rows that lie in it. A pack of which that changed
    /// since the start is exempt.
    pub(super) fn places(&mut self) -> Result<(), ServerError> {
        let differ =
            |pack: &&super::PackSeen| pack.number.0 < self.before.next_pack && pack.live != pack.counted;
        let differing: Vec<(PackNumber, Live, Live)> =
            self.packs.iter().filter(differ).map(|pack| (pack.number, pack.live, pack.counted)).collect();
        for (number, live, counted) in differing {
            let Some((row, state)) = self.settle(number, live, counted)? else {
                // Rows moved meanwhile: how many there should be is not known any more.
                self.rows_before = self.before.chunks;
                continue;
            };
            let problem = format!(
                "its row counts {} blobs of {} bytes, but it holds {} of {} bytes",
                live.blobs, live.stored_bytes, counted.blobs, counted.stored_bytes
            );
            self.find(row.id, problem, Gravity::Difference, state);
        }
        Ok(())
    }

    /// Checks the row of a pack that counts `live`, and repairs it to `counted` if asked to.
    fn settle(
        &self,
        number: PackNumber,
        live: Live,
        counted: Live,
    ) -> Result<Option<(PackRow, AuditState)>, ServerError> {
        self.store.mend(|ledger| {
            let Some(row) = ledger.pack_now(number)?.filter(|row| row.live == live) else { return Ok(None) };
            if !self.is_repair() {
                return Ok(Some((row, AuditState::Open)));
            }
            ledger.set_live(number, counted)?;
            Ok(Some((row, AuditState::Mended)))
        })
    }

    /// Compares the totals of packs, which is of the start, with all packs.
    pub(super) fn packs_of_totals(&mut self, found: &Sums) -> Result<(), ServerError> {
        let before = self.before;
        let next_now = self.store.totals()?.next_pack;
        if found.last.is_some_and(|last| last.0 >= next_now) {
            let next = found.last.map_or(0, |last| last.0.saturating_add(1));
            self.total("the next pack's number", before.next_pack.into(), next.into(), |now| {
                now.next_pack = now.next_pack.max(next);
            })?;
        }
        if found.packs != before.packs {
            let more = found.packs.wrapping_sub(before.packs);
            self.total("packs", before.packs.into(), found.packs.into(), |now| {
                now.packs = now.packs.wrapping_add(more);
            })?;
        }
        if found.stored_bytes != before.stored_bytes {
            let more = found.stored_bytes.wrapping_sub(before.stored_bytes);
            self.total("bytes of packs", before.stored_bytes, found.stored_bytes, |now| {
                now.stored_bytes = now.stored_bytes.wrapping_add(more);
            })?;
        }
        Ok(())
    }

    /// Compares the total of chunks, as of the start, with the rows that lie in packs of that time.
    pub(super) fn totals(&mut self) -> Result<(), ServerError> {
        let (said, found) = (self.before.chunks, self.rows_before);
        if said == found {
            return Ok(());
        }
        let more = found.wrapping_sub(said);
        self.total("chunks and pages", said, found, |now| now.chunks = now.chunks.wrapping_add(more))
    }

    /// Checks a total. A repair keeps the changes since the start of the audit.
    fn total(
        &mut self,
        what: &str,
        said: u64,
        found: u64,
        mend: impl Fn(&mut Totals),
    ) -> Result<(), ServerError> {
        let state = if self.is_repair() {
            self.store.mend(|ledger| {
                ledger.correct_totals(&mend);
                Ok(())
            })?;
            AuditState::Mended
        } else {
            AuditState::Open
        };
        self.find(
            "totals",
            format!("{what}: the index counts {said}, but {found} exist"),
            Gravity::Difference,
            state,
        );
        Ok(())
    }
}
