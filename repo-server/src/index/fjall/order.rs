//! The order of commits, checked when an index is opened.
//!
//! fjall gives each commit a number and, after a start, orders the commits in its journal by them. Its
//! checksums cover the rows of a commit and not this number: a flipped bit in it makes old rows replace new
//! ones, without an error. So each commit adds a row whose key is a number of our own, and deletes that of
//! the commit before.
//!
//! In the right order, this leaves one row: that of the last commit. If a commit comes too early, the row
//! that it deletes is added after it, and remains; if too late, it adds the row that the next one has
//! deleted. In both cases two rows or more remain, and the index is refused.

use ::fjall::{Keyspace, OwnedWriteBatch};

use crate::index::error::EngineError;

/// The name of the keyspace, which is none of our tables.
pub(super) const NAME: &str = "order";

/// Which numbers there may be.
pub(super) struct Order {
    /// Number of the last commit; 0 if there was none.
    last: u64,
    /// Number of the last attempted commit: a failed one may still be in the journal.
    tried: u64,
}

impl Order {
    /// Reads the order that the last commit left.
    ///
    /// # Errors
    /// If commits were not applied in the order in which they were made.
    pub(super) fn read(rows: &Keyspace) -> Result<Self, EngineError> {
        let mut last = None;
        for row in rows.iter() {
            let key = row.key()?;
            let number = key.as_ref().try_into().map(u64::from_be_bytes)?;
            if let Some(other) = last.replace(number) {
                let why =
                    format!("its journal is damaged: commits {other} and {number} are out of their order");
                return Err(why.into());
            }
        }
        let last = last.unwrap_or(0);
        Ok(Self { last, tried: last })
    }

    /// Lets a commit say that it is the next one.
    pub(super) fn add_next(&mut self, writes: &mut OwnedWriteBatch, rows: &Keyspace) {
        for before in self.last..=self.tried {
            writes.remove(rows, before.to_be_bytes());
        }
        self.tried += 1;
        writes.insert(rows, self.tried.to_be_bytes(), []);
    }

    /// Records that the commit was made.
    pub(super) fn made(&mut self) {
        self.last = self.tried;
    }
}
