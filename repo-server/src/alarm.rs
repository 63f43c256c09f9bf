//! Alarms: what an operator must look at, until it is dealt with.
//!
//! An alarm is a row in the index, so it outlives a restart. Raising one that is up already changes
//! nothing but its text; it keeps the moment of its first raising.

use format_spec::wire;
use serde::{Deserialize, Serialize};

use crate::error::ServerError;
use crate::index::{Batch, KeyRange, Table};
use crate::repository::Repository;
use crate::time::rfc3339;

/// What can be wrong. The code is stable, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AlarmCode {
    /// Counts of references are not what a mark gives: nothing is collected until they are mended.
    CountsDiffer,
    /// The server's clock jumped: retention rests until somebody says that it is right.
    ClockJumped,
    /// Stored bytes are not what was written.
    DamagedBlobs,
    /// An object that is no pack of blobs, or the end of a pack, is lost or not what was written.
    DamagedObjects,
    /// Little space is left.
    LowSpace,
    /// More would go than may go in a day.
    LargeDelete,
    /// The site holds acknowledged snapshots that the index does not know: nothing is taken by it.
    IndexBehind,
    /// The newest snapshot of a series holds much less than the one before.
    SuspectSnapshot,
    /// The site lacks its descriptor or most of its packs: nothing is taken in or deleted.
    SiteIncomplete,
    /// What the last process left could not be settled: no session ends by its time, and nothing is collected.
    NotSettled,
}

impl AlarmCode {
    /// Its name for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CountsDiffer => "counts_differ",
            Self::ClockJumped => "clock_jumped",
            Self::DamagedBlobs => "damaged_blobs",
            Self::DamagedObjects => "damaged_objects",
            Self::LowSpace => "low_space",
            Self::LargeDelete => "large_delete",
            Self::IndexBehind => "index_behind",
            Self::SuspectSnapshot => "suspect_snapshot",
            Self::SiteIncomplete => "site_incomplete",
            Self::NotSettled => "not_settled",
        }
    }

    fn key(self) -> Vec<u8> {
        [PREFIX, self.name().as_bytes()].concat()
    }
}

const PREFIX: &[u8] = b"alarm/";

#[derive(Serialize, Deserialize)]
struct AlarmRow {
    message: String,
    since_ms: u64,
}

/// Raises an alarm, durably. Blocks.
pub(crate) fn raise(repository: &Repository, code: AlarmCode, message: &str) -> Result<(), ServerError> {
    let mut batch = Batch::new();
    raise_in(repository, &mut batch, code, message)?;
    if batch.is_empty() { Ok(()) } else { repository.commit(batch) }
}

/// Raises an alarm in the batch of what it is about. Blocks.
pub(crate) fn raise_in(
    repository: &Repository,
    batch: &mut Batch,
    code: AlarmCode,
    message: &str,
) -> Result<(), ServerError> {
    let since_ms = match find(repository, code)? {
        Some(row) if row.message == message => return Ok(()),
        Some(row) => row.since_ms,
        None => repository.parts.clock.unix_ms(),
    };
    tracing::warn!(code = code.name(), message, "alarm");
    let row = AlarmRow { message: message.to_owned(), since_ms };
    batch.put(Table::Meta, code.key(), serde_json::to_vec(&row).expect("plain JSON"));
    Ok(())
}

/// Takes an alarm down, durably. One that is not up stays so. Blocks.
pub(crate) fn clear(repository: &Repository, code: AlarmCode) -> Result<(), ServerError> {
    let mut batch = Batch::new();
    clear_in(repository, &mut batch, code)?;
    if batch.is_empty() { Ok(()) } else { repository.commit(batch) }
}

/// Takes an alarm down in the batch with which it is over. Blocks.
pub(crate) fn clear_in(
    repository: &Repository,
    batch: &mut Batch,
    code: AlarmCode,
) -> Result<(), ServerError> {
    if is_up(repository, code)? {
        tracing::info!(code = code.name(), "alarm is over");
        batch.delete(Table::Meta, code.key());
    }
    Ok(())
}

/// Whether an alarm is up. Blocks.
pub(crate) fn is_up(repository: &Repository, code: AlarmCode) -> Result<bool, ServerError> {
    Ok(repository.parts.index.get(Table::Meta, &code.key())?.is_some())
}

/// What an alarm says, if it is up. Blocks.
pub(crate) fn message(repository: &Repository, code: AlarmCode) -> Result<Option<String>, ServerError> {
    Ok(find(repository, code)?.map(|row| row.message))
}

/// What operators are told. Blocks.
pub(crate) fn list(repository: &Repository) -> Result<Vec<wire::Alarm>, ServerError> {
    let mut alarms = Vec::new();
    repository.for_each_row(Table::Meta, &KeyRange::prefix(PREFIX), |key, value| {
        let code = key.strip_prefix(PREFIX).and_then(|name| std::str::from_utf8(name).ok());
        let row: Option<AlarmRow> = serde_json::from_slice(value).ok();
        let (code, row) = code.zip(row).ok_or_else(|| ServerError::Row { object: "an alarm".to_owned() })?;
        alarms.push(wire::Alarm {
            code: code.to_owned(),
            message: row.message,
            since: rfc3339(row.since_ms),
        });
        Ok(())
    })?;
    Ok(alarms)
}

fn find(repository: &Repository, code: AlarmCode) -> Result<Option<AlarmRow>, ServerError> {
    let Some(value) = repository.parts.index.get(Table::Meta, &code.key())? else { return Ok(None) };
    let row = serde_json::from_slice(&value);
    row.map(Some).map_err(|_| ServerError::Row { object: format!("alarm {}", code.name()) })
}
