//! Rows of the meta table. Each kind has bytes of its own: the key of its one row, or the beginning of the keys of its
//! rows.

/// A kind of rows of the meta table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// Sums over all rows of packs and chunks: [`Totals`](super::Totals).
    Totals,
    /// The present [`Epoch`](super::Epoch).
    Epoch,
    /// The last fencing token that was granted; a number.
    FencingToken,
    /// The latest time that the wall clock has told, in milliseconds; a number.
    ClockLatest,
    /// Since when read-back of stored bytes is watched, in milliseconds; a number.
    ReadBackWatched,
    /// Stored bytes that the collector took in the last day, by hour; JSON.
    Gone,
    /// How many blobs are in quarantine; a number.
    DamagedBlobs,
    /// The walk that is to name the snapshots which need a damaged blob; a number.
    HurtDue,
    /// The first pack that no checkpoint covers.
    CheckpointNext,
    /// Parts of checkpoints, by id, with the number of their packs.
    CheckpointPart,
    /// Alarms, by code and subject; JSON.
    Alarm,
    /// Notices that were told, by channel and alarm; JSON.
    Told,
    /// Rules of freshness, by scope; JSON.
    Freshness,
    /// Packs that are not as they were written, by number; no value.
    Altered,
    /// Damaged objects, by kind and id; JSON.
    Damaged,
    /// Snapshots with files that cannot be restored, by id; JSON.
    Hurt,
    /// References to pages that are lost, by page; a number.
    Owed,
    /// Snapshots that were purged, by id; no value.
    Purged,
}

impl Meta {
    /// The key of its row, or the beginning of the keys of its rows.
    pub const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Totals => b"totals",
            Self::Epoch => b"epoch",
            Self::FencingToken => b"fencing_token",
            Self::ClockLatest => b"clock_latest",
            Self::ReadBackWatched => b"read_back_watched",
            Self::Gone => b"gone",
            Self::DamagedBlobs => b"damaged_blobs",
            Self::HurtDue => b"hurt_due",
            Self::CheckpointNext => b"checkpoint/next",
            Self::CheckpointPart => b"checkpoint/part/",
            Self::Alarm => b"alarm/",
            Self::Told => b"told/",
            Self::Freshness => b"freshness/",
            Self::Altered => b"altered/",
            Self::Damaged => b"damaged/",
            Self::Hurt => b"hurt/",
            Self::Owed => b"owed/",
            Self::Purged => b"purged/",
        }
    }

    /// The key of the row of this kind that is about `what`.
    pub fn key(self, what: &[u8]) -> Vec<u8> {
        [self.bytes(), what].concat()
    }

    /// The value of a row that holds a number.
    pub fn number(value: &[u8]) -> Option<u64> {
        Some(u64::from_le_bytes(value.try_into().ok()?))
    }

    /// All kinds.
    pub const ALL: [Self; 18] = [
        Self::Totals,
        Self::Epoch,
        Self::FencingToken,
        Self::ClockLatest,
        Self::ReadBackWatched,
        Self::Gone,
        Self::DamagedBlobs,
        Self::HurtDue,
        Self::CheckpointNext,
        Self::CheckpointPart,
        Self::Alarm,
        Self::Told,
        Self::Freshness,
        Self::Altered,
        Self::Damaged,
        Self::Hurt,
        Self::Owed,
        Self::Purged,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// X7: a scan of the rows of one kind meets no row of another.
    #[test]
    fn no_kind_of_meta_rows_begins_another() {
        for (at, one) in Meta::ALL.into_iter().enumerate() {
            for other in Meta::ALL.into_iter().skip(at + 1) {
                let is_apart =
                    !one.bytes().starts_with(other.bytes()) && !other.bytes().starts_with(one.bytes());
                assert!(is_apart, "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn a_number_is_eight_bytes() {
        assert_eq!(Meta::number(&7_u64.to_le_bytes()), Some(7));
        assert_eq!(Meta::number(&[0; 7]), None);
        assert_eq!(Meta::number(&[0; 9]), None);
    }
}
