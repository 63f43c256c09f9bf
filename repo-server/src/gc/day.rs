//! How much went in the last day: a mistake should not empty a repository before somebody looks.
//!
//! The hours are those of the wall clock. A wrong clock can only let the run stop early or late; it decides
//! nothing about what is needed.

use serde::{Deserialize, Serialize};

use crate::catalog::ledger::Ledger;
use crate::error::ServerError;
use crate::index::Table;
use crate::rows::Meta;
use crate::rows::Totals;
use crate::settings::GcSettings;
use crate::store::Store;

const KEY: &[u8] = Meta::Gone.bytes();
const HOUR_MS: u64 = 60 * 60 * 1000;
const HOURS: u64 = 24;

/// Stored bytes that went, by hour; a row of the meta table, as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Day {
    hours: Vec<Hour>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Hour {
    /// Since 1970.
    hour: u64,
    /// Bytes of all packs before anything went in it.
    stored_bytes: u64,
    gone_bytes: u64,
}

impl Day {
    /// The day that ends now.
    pub(super) fn load(store: &Store) -> Result<Self, ServerError> {
        let Some(value) = store.parts.index.get(Table::Meta, KEY)? else { return Ok(Self::default()) };
        let wrong = |_| ServerError::Row { object: "the bytes deleted in a day".to_owned() };
        let mut day: Self = serde_json::from_slice(&value).map_err(wrong)?;
        let now = store.parts.clock.unix_ms() / HOUR_MS;
        day.hours.retain(|hour| hour.hour + HOURS > now);
        Ok(day)
    }

    /// Bytes that went.
    pub(super) fn gone(&self) -> u64 {
        self.hours.iter().map(|hour| hour.gone_bytes).sum()
    }

    /// Bytes that may still be deleted.
    pub(super) fn left(&self, totals: &Totals, settings: &GcSettings) -> u64 {
        // The share is of the bytes that were stored when the day began, or now. Bytes of packs are the
        // larger measure: a pack counts until the last of its blobs is deleted.
        let began = self.hours.first().map_or(0, |hour| hour.stored_bytes);
        let share = settings.max_daily.of(began.max(totals.stored_bytes));
        share.max(settings.daily_floor_bytes).saturating_sub(self.gone())
    }

    /// Adds the bytes that a batch deletes to that batch.
    pub(super) fn add(mut self, store: &Store, ledger: &mut Ledger<'_>, bytes: u64) {
        let now = store.parts.clock.unix_ms() / HOUR_MS;
        match self.hours.iter_mut().find(|hour| hour.hour == now) {
            Some(hour) => hour.gone_bytes += bytes,
            None => {
                let stored_bytes = ledger.totals().stored_bytes;
                self.hours.push(Hour { hour: now, stored_bytes, gone_bytes: bytes });
            }
        }
        ledger.batch().put(Table::Meta, KEY, serde_json::to_vec(&self).expect("plain JSON"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Percent;

    fn totals(stored_bytes: u64) -> Totals {
        Totals { stored_bytes, ..Totals::default() }
    }

    #[test]
    fn a_day_has_a_share_of_what_was_there_and_a_floor() {
        let max_daily = Percent::new(50).unwrap();
        let upkeep = GcSettings { max_daily, daily_floor_bytes: 100, ..GcSettings::default() };
        let gone = |gone_bytes| Day { hours: vec![Hour { hour: 7, stored_bytes: 1000, gone_bytes }] };

        assert_eq!(Day::default().left(&totals(1000), &upkeep), 500);
        assert_eq!(gone(300).left(&totals(700), &upkeep), 200, "still half of the first thousand");
        assert_eq!(gone(300).left(&totals(1000), &upkeep), 200, "packs that are thin now still count");
        assert_eq!(gone(600).left(&totals(400), &upkeep), 0);
        assert_eq!(Day::default().left(&totals(10), &upkeep), 100, "little may always go");
    }
}
