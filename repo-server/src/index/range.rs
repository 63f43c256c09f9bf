//! Which rows a scan reads, and what it answers.

use std::num::NonZeroUsize;

use super::{IndexError, MAX_KEY_LEN};

/// A scan stops after the row with which it has read this many bytes, whatever its limit of rows.
pub const MAX_SCAN_BYTES: usize = 4 << 20;

/// A run of keys in byte order: from its start, which is in it, to its end, which is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    pub fn all() -> Self {
        Self::new(&[], None)
    }

    /// The keys that start with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        Self::new(prefix, successor_of_prefix(prefix).as_deref())
    }

    /// The keys from `start` on, and before `end`. None if `end` does not come after `start`.
    pub fn between(start: &[u8], end: &[u8]) -> Self {
        Self::new(start, Some(end))
    }

    /// The keys of this range that come after `key`.
    #[must_use]
    pub fn after(&self, key: &[u8]) -> Self {
        let mut next = bound(key);
        next.push(0);
        Self { start: next.max(self.start.clone()), end: self.end.clone() }
    }

    /// True if `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.start.as_slice() <= key && self.end.as_ref().is_none_or(|end| key < end.as_slice())
    }

    fn new(start: &[u8], end: Option<&[u8]>) -> Self {
        Self { start: bound(start), end: end.map(bound) }
    }

    /// The first key that may be in the range.
    pub(super) fn start(&self) -> &[u8] {
        &self.start
    }

    /// The first key that is not, if there is one.
    pub(super) fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// True if the range is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// Cuts a bound to one byte more than a key can have: no key can tell the two apart, and engines need
/// not take longer ones.
fn bound(key: &[u8]) -> Vec<u8> {
    key.iter().copied().take(MAX_KEY_LEN + 1).collect()
}

/// The first key after all that start with `prefix`; none after a prefix of only `0xff`.
fn successor_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix.get(..=last)?.to_vec();
    *end.last_mut()? += 1;
    Some(end)
}

/// One row of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Rows that a scan read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// The rows, in key order.
    pub rows: Vec<Row>,
    /// The unread rest, or `None` if the range was read to its end.
    pub rest: Option<KeyRange>,
}

impl Rows {
    /// Takes rows of `range` from an engine, as many as a scan may answer.
    pub(super) fn collect(
        range: &KeyRange,
        limit: NonZeroUsize,
        found: impl Iterator<Item = Result<Row, IndexError>>,
    ) -> Result<Self, IndexError> {
        let mut rows = Vec::new();
        let mut bytes = 0_usize;
        for row in found {
            let row = row?;
            bytes += row.key.len() + row.value.len();
            rows.push(row);
            if rows.len() == limit.get() || bytes >= MAX_SCAN_BYTES {
                break;
            }
        }
        let is_cut = rows.len() == limit.get() || bytes >= MAX_SCAN_BYTES;
        let rest = rows.last().filter(|_| is_cut).map(|row| range.after(&row.key));
        Ok(Self { rows, rest })
    }
}
