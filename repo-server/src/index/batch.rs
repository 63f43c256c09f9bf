//! Changes of one commit, and their preconditions.

use super::{IndexError, Table};

/// Longest key of a row. The shortest is one byte.
pub const MAX_KEY_LEN: usize = 256;

/// Longest value of a row. Larger things belong on a site, with a row that names them.
pub const MAX_VALUE_LEN: usize = 64 << 10;

/// Greatest [`Batch::weight`] that can be committed: about 375,000 rows of a chunk's size.
///
/// It bounds what a commit holds in memory, which is a few times as much.
pub const MAX_BATCH_WEIGHT: usize = 48 << 20;

/// Weight of a change or a precondition on top of its bytes: about its cost in memory.
const ENTRY_WEIGHT: usize = 64;

/// Condition on a key that must hold before a batch is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// There is no row.
    Absent,
    /// There is a row.
    Present,
    /// There is a row with exactly this value.
    Equals(Vec<u8>),
}

impl Precondition {
    fn holds(&self, found: Option<&[u8]>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::Present => found.is_some(),
            Self::Equals(value) => found == Some(value),
        }
    }
}

/// A row's key, and its value from then on; `None` deletes it.
type Change = (Table, Vec<u8>, Option<Vec<u8>>);

/// Changes to rows of several tables that are applied whole or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    changes: Vec<Change>,
    preconditions: Vec<(Table, Vec<u8>, Precondition)>,
    weight: usize,
}

impl Batch {
    /// A batch that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the row `key` of `table` to `value`. The last change of a row counts.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> &mut Self {
        self.change(table, key.into(), Some(value.into()))
    }

    /// Takes the row `key` out of `table`, if it is there. The last change of a row counts.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) -> &mut Self {
        self.change(table, key.into(), None)
    }

    /// Lets the batch be applied only if `precondition` holds for `key` of `table` before it.
    pub fn require(
        &mut self,
        table: Table,
        key: impl Into<Vec<u8>>,
        precondition: Precondition,
    ) -> &mut Self {
        let key = key.into();
        let value_len = match &precondition {
            Precondition::Equals(value) => value.len(),
            Precondition::Absent | Precondition::Present => 0,
        };
        self.weigh(key.len(), value_len);
        self.preconditions.push((table, key, precondition));
        self
    }

    /// The preconditions alone: a batch that changes nothing, and is refused as this one would be.
    #[must_use]
    pub fn into_requirements(self) -> Self {
        let mut requirements = Self::new();
        for (table, key, precondition) in self.preconditions {
            requirements.require(table, key, precondition);
        }
        requirements
    }

    /// How much the batch is, against [`MAX_BATCH_WEIGHT`]. Work that need not be atomic is split by it.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Number of changes. Rows that are changed twice count twice.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// True if the batch changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn change(&mut self, table: Table, key: Vec<u8>, value: Option<Vec<u8>>) -> &mut Self {
        self.weigh(key.len(), value.as_ref().map_or(0, Vec::len));
        self.changes.push((table, key, value));
        self
    }

    fn weigh(&mut self, key_len: usize, value_len: usize) {
        self.weight = self.weight.saturating_add(ENTRY_WEIGHT + key_len + value_len);
    }

    /// The changes, by table and key, each row once; `None` deletes.
    pub(super) fn into_changes(self) -> impl Iterator<Item = Change> {
        let mut changes = self.changes;
        // Changes of one row stay in their order.
        changes.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let mut changes = changes.into_iter().peekable();
        std::iter::from_fn(move || {
            let mut last = changes.next()?;
            while let Some(later) = changes.next_if(|next| (next.0, &next.1) == (last.0, &last.1)) {
                last = later;
            }
            Some(last)
        })
    }

    /// Refuses what an engine could not store, before anything is read or changed.
    pub(super) fn check_limits(&self) -> Result<(), IndexError> {
        within("batch", self.weight.max(1), MAX_BATCH_WEIGHT)?;
        for (_, key, value) in &self.changes {
            within("key", key.len(), MAX_KEY_LEN)?;
            // An empty value is as good as any other.
            within("value", value.as_ref().map_or(1, |value| value.len().max(1)), MAX_VALUE_LEN)?;
        }
        Ok(())
    }

    /// Answers the first precondition that does not hold. `multi_get` reads one table of the engine.
    pub(super) fn check_preconditions(
        &self,
        mut multi_get: impl FnMut(Table, &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, IndexError>,
    ) -> Result<(), IndexError> {
        let mut first_failed: Option<(usize, Table, &Vec<u8>)> = None;
        for table in Table::ALL {
            let wanted: Vec<_> =
                self.preconditions.iter().enumerate().filter(|(_, (of, _, _))| *of == table).collect();
            if wanted.is_empty() {
                continue;
            }
            let keys: Vec<&[u8]> = wanted.iter().map(|(_, (_, key, _))| key.as_slice()).collect();
            let found = multi_get(table, &keys)?;
            let failed = wanted
                .into_iter()
                .zip(found)
                .find(|((_, (_, _, precondition)), found)| !precondition.holds(found.as_deref()));
            if let Some(((at, (_, key, _)), _)) = failed
                && first_failed.is_none_or(|(first, _, _)| at < first)
            {
                first_failed = Some((at, table, key));
            }
        }
        match first_failed {
            Some((_, table, key)) => Err(IndexError::Precondition { table, key: key.clone() }),
            None => Ok(()),
        }
    }
}

/// True if a row can have this key.
pub(super) fn is_storable(key: &[u8]) -> bool {
    (1..=MAX_KEY_LEN).contains(&key.len())
}

fn within(what: &'static str, len: usize, limit: usize) -> Result<(), IndexError> {
    if (1..=limit).contains(&len) { Ok(()) } else { Err(IndexError::TooLarge { what, len, limit }) }
}
