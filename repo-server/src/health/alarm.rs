//! Alarms: what an operator must look at, until it is dealt with.
//!
//! An alarm is a row in the index, so it outlives a restart. Raising one that is up already changes
//! nothing but its text; it keeps the moment of its first raising. Alarms of one code can be up for several
//! subjects, such as series. An operator may acknowledge one; that ends with the alarm.

use std::time::Duration;

use format_spec::protection::MAX_REASON_LEN;
use format_spec::wire::{self, AcknowledgeRequest, Acknowledged, Severity};

use crate::error::ServerError;
use crate::index::{Batch, KeyRange, Table};
use crate::rows::{AcknowledgedRow, AlarmRow, Meta};
use crate::store::Store;
use crate::time::{later, rfc3339};

/// Conditions that raise an alarm. The code is stable, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AlarmCode {
    /// Reference counts differ from a recount: garbage collection is blocked until they are repaired.
    CountsDiffer,
    /// The clock jumped. Retention is suspended until an operator accepts the time (`forget --accept-clock`).
    ClockJumped,
    /// Stored bytes are not what was written.
    DamagedBlobs,
    /// An object that is no pack of blobs, or the end of a pack, is lost or not what was written.
    DamagedObjects,
    /// Little space is left.
    LowSpace,
    /// The daily deletion limit is reached.
    LargeDelete,
    /// The site holds acknowledged snapshots that the index does not know: nothing is taken by it.
    IndexBehind,
    /// The newest snapshot of a series holds much less than the one before.
    SuspectSnapshot,
    /// The site lacks its descriptor or most of its packs: nothing is taken in or deleted.
    SiteIncomplete,
    /// The interrupted commits of the last process could not be completed: no session expires, and no garbage
    /// is collected.
    NotSettled,
    /// The last good snapshot of a series is older than it may be.
    Overdue,
    /// The newest snapshots of a series are all partial.
    PartialAgain,
    /// No stored byte was read back for a long time.
    NotVerified,
    /// Notices of alarms do not reach people by this way.
    NotifyFailing,
    /// A certificate ends soon.
    CertificateEnds,
    /// New certificate files cannot be used.
    CertificateRefused,
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
            Self::Overdue => "overdue",
            Self::PartialAgain => "partial_again",
            Self::NotVerified => "not_verified",
            Self::NotifyFailing => "notify_failing",
            Self::CertificateEnds => "certificate_ends",
            Self::CertificateRefused => "certificate_refused",
        }
    }

    /// How soon an operator must look.
    fn severity(self) -> Severity {
        match self {
            Self::CountsDiffer
            | Self::DamagedBlobs
            | Self::DamagedObjects
            | Self::LowSpace
            | Self::IndexBehind
            | Self::SiteIncomplete
            | Self::NotSettled
            | Self::Overdue => Severity::Critical,
            Self::ClockJumped
            | Self::LargeDelete
            | Self::SuspectSnapshot
            | Self::PartialAgain
            | Self::NotVerified
            | Self::NotifyFailing
            | Self::CertificateEnds
            | Self::CertificateRefused => Severity::Warning,
        }
    }

    /// The code of this name. Alarms of a later build have none here.
    fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    const ALL: [Self; 16] = [
        Self::CountsDiffer,
        Self::ClockJumped,
        Self::DamagedBlobs,
        Self::DamagedObjects,
        Self::LowSpace,
        Self::LargeDelete,
        Self::IndexBehind,
        Self::SuspectSnapshot,
        Self::SiteIncomplete,
        Self::NotSettled,
        Self::Overdue,
        Self::PartialAgain,
        Self::NotVerified,
        Self::NotifyFailing,
        Self::CertificateEnds,
        Self::CertificateRefused,
    ];

    /// The key of its row for one subject.
    fn key(self, subject: Option<&str>) -> Vec<u8> {
        key(self.name(), subject)
    }
}

fn key(code: &str, subject: Option<&str>) -> Vec<u8> {
    let subject = subject.map(|subject| format!("/{subject}")).unwrap_or_default();
    [PREFIX, code.as_bytes(), subject.as_bytes()].concat()
}

const PREFIX: &[u8] = Meta::Alarm.bytes();

/// Longest subject: it is a part of a key.
pub(crate) const MAX_SUBJECT_LEN: usize = 180;

/// An alarm that is up, as its row tells.
struct Up {
    code: String,
    subject: Option<String>,
    row: AlarmRow,
}

/// Raises an alarm, durably. Blocks.
pub(crate) fn raise(store: &Store, code: AlarmCode, message: &str) -> Result<(), ServerError> {
    let mut batch = Batch::new();
    raise_in(store, &mut batch, code, message)?;
    if batch.is_empty() { Ok(()) } else { store.commit(batch) }
}

/// Raises an alarm in the batch of what it is about. Blocks.
pub(crate) fn raise_in(
    store: &Store,
    batch: &mut Batch,
    code: AlarmCode,
    message: &str,
) -> Result<(), ServerError> {
    raise_of_in(store, batch, code, None, message)
}

/// Raises the alarm about `subject` in the batch of what it is about. Blocks.
pub(crate) fn raise_of_in(
    store: &Store,
    batch: &mut Batch,
    code: AlarmCode,
    subject: Option<&str>,
    message: &str,
) -> Result<(), ServerError> {
    let key = code.key(subject);
    let before = find(store, &key)?;
    if before.as_ref().is_some_and(|row| row.message == message) {
        return Ok(());
    }
    tracing::warn!(code = code.name(), subject, why = message, "alarm");
    let message = message.to_owned();
    let row = match before {
        Some(row) => AlarmRow { message, ..row },
        None => AlarmRow { message, since_ms: store.parts.clock.unix_ms(), acknowledged: None },
    };
    batch.put(Table::Meta, key, row.encode());
    Ok(())
}

/// Makes the alarms of a code those of `wanted`, subject and message each, durably: raises them, and takes all others
/// of the code down. Blocks.
pub(crate) fn keep_only(
    store: &Store,
    code: AlarmCode,
    wanted: &[(String, String)],
) -> Result<(), ServerError> {
    store.exclusively(|| keep_only_now(store, code, wanted))
}

fn keep_only_now(store: &Store, code: AlarmCode, wanted: &[(String, String)]) -> Result<(), ServerError> {
    let mut batch = Batch::new();
    for up in of_code(store, code)? {
        let stays = up.subject.as_ref().is_some_and(|up| wanted.iter().any(|(subject, _)| subject == up));
        if !stays {
            tracing::info!(code = code.name(), subject = up.subject, "alarm cleared");
            batch.delete(Table::Meta, code.key(up.subject.as_deref()));
        }
    }
    for (subject, message) in wanted {
        raise_of_in(store, &mut batch, code, Some(subject), message)?;
    }
    if batch.is_empty() { Ok(()) } else { store.commit(batch) }
}

/// Raises or takes down the alarm about `subject`, durably. Blocks.
pub(crate) fn set(
    store: &Store,
    code: AlarmCode,
    subject: &str,
    message: Option<&str>,
) -> Result<(), ServerError> {
    store.exclusively(|| {
        let mut batch = Batch::new();
        if let Some(message) = message {
            raise_of_in(store, &mut batch, code, Some(subject), message)?;
        } else if find(store, &code.key(Some(subject)))?.is_some() {
            tracing::info!(code = code.name(), subject, "alarm cleared");
            batch.delete(Table::Meta, code.key(Some(subject)));
        }
        if batch.is_empty() { Ok(()) } else { store.commit(batch) }
    })
}

/// Clears an alarm, durably. An alarm that is not active is unaffected. Blocks.
pub(crate) fn clear(store: &Store, code: AlarmCode) -> Result<(), ServerError> {
    let mut batch = Batch::new();
    clear_in(store, &mut batch, code)?;
    if batch.is_empty() { Ok(()) } else { store.commit(batch) }
}

/// Takes an alarm down in the batch with which it is over. Blocks.
pub(crate) fn clear_in(store: &Store, batch: &mut Batch, code: AlarmCode) -> Result<(), ServerError> {
    if find(store, &code.key(None))?.is_some() {
        tracing::info!(code = code.name(), "alarm cleared");
        batch.delete(Table::Meta, code.key(None));
    }
    Ok(())
}

/// True if an alarm of this code is active. Blocks.
pub(crate) fn is_up(store: &Store, code: AlarmCode) -> Result<bool, ServerError> {
    Ok(!of_code(store, code)?.is_empty())
}

/// Message of an active alarm without a subject. Blocks.
pub(crate) fn message(store: &Store, code: AlarmCode) -> Result<Option<String>, ServerError> {
    Ok(find(store, &code.key(None))?.map(|row| row.message))
}

/// The alarms that are up; and that space is low, if `low` says so and a full disk could not take the alarm. Blocks.
pub(crate) fn list(store: &Store, low: Option<String>) -> Result<Vec<wire::Alarm>, ServerError> {
    let now_ms = store.parts.clock.unix_ms();
    let mut alarms: Vec<wire::Alarm> = rows(store, PREFIX)?.into_iter().map(|up| up.told(now_ms)).collect();
    let code = AlarmCode::LowSpace.name();
    if let Some(message) = low.filter(|_| alarms.iter().all(|up| up.code != code)) {
        let row = AlarmRow { message, since_ms: now_ms, acknowledged: None };
        alarms.push(Up { code: code.to_owned(), subject: None, row }.told(now_ms));
    }
    Ok(alarms)
}

impl Up {
    /// The alarm as operators see it.
    fn told(self, now_ms: u64) -> wire::Alarm {
        let counts = |row: &AcknowledgedRow| row.until_ms.is_none_or(|until_ms| now_ms < until_ms);
        let acknowledged = self.row.acknowledged.filter(counts).map(|row| Acknowledged {
            reason: row.reason,
            since: rfc3339(row.since_ms),
            until: row.until_ms.map(rfc3339),
        });
        wire::Alarm {
            severity: AlarmCode::of_name(&self.code).map(AlarmCode::severity).unwrap_or_default(),
            code: self.code,
            subject: self.subject,
            message: self.row.message,
            since: rfc3339(self.row.since_ms),
            acknowledged,
        }
    }
}

/// Takes an alarm as known, durably, and returns it. An acknowledgement that was there before is replaced. Blocks.
///
/// # Errors
/// [`ServerError::BadRequest`] if several alarms fit or the reason is no line, [`ServerError::NoAlarm`] if none fits.
pub(crate) fn acknowledge(store: &Store, asked: &AcknowledgeRequest) -> Result<wire::Alarm, ServerError> {
    check_reason(&asked.reason)?;
    store.exclusively(|| {
        let mut up = choose(store, asked)?;
        let now_ms = store.parts.clock.unix_ms();
        let until_ms = asked.for_seconds.map(|seconds| later(now_ms, Duration::from_secs(seconds)));
        up.row.acknowledged =
            Some(AcknowledgedRow { reason: asked.reason.clone(), since_ms: now_ms, until_ms });
        let mut batch = Batch::new();
        batch.put(Table::Meta, key(&up.code, up.subject.as_deref()), up.row.encode());
        store.commit(batch)?;
        tracing::info!(code = up.code, subject = up.subject, reason = asked.reason, "alarm acknowledged");
        Ok(up.told(now_ms))
    })
}

/// The only alarm that the request fits.
fn choose(store: &Store, asked: &AcknowledgeRequest) -> Result<Up, ServerError> {
    let mut fit = rows(store, &key(&asked.code, None))?;
    fit.retain(|up| up.code == asked.code);
    if let Some(part) = &asked.subject {
        let is_whole = |up: &Up| up.subject.as_ref() == Some(part);
        if fit.iter().any(is_whole) {
            fit.retain(is_whole);
        }
        fit.retain(|up| up.subject.as_ref().is_some_and(|subject| subject.contains(part)));
    }
    if fit.len() > 1 {
        let why = format!(
            "{} alarms `{}` are active: give the subject, or a longer part of it",
            fit.len(),
            asked.code
        );
        return Err(ServerError::BadRequest { code: "ambiguous_alarm", why });
    }
    fit.pop().ok_or_else(|| ServerError::NoAlarm { code: asked.code.clone(), subject: asked.subject.clone() })
}

/// A reason is a line that any terminal and any table can show.
pub(crate) fn check_reason(reason: &str) -> Result<(), ServerError> {
    let why = if reason.is_empty() || reason.len() > MAX_REASON_LEN {
        format!("the reason must have 1 to {MAX_REASON_LEN} bytes; it has {}", reason.len())
    } else if reason.chars().any(char::is_control) {
        "the reason must be one line without control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(ServerError::BadRequest { code: "bad_reason", why })
}

fn of_code(store: &Store, code: AlarmCode) -> Result<Vec<Up>, ServerError> {
    let mut up = rows(store, &code.key(None))?;
    up.retain(|up| up.code == code.name());
    Ok(up)
}

fn rows(store: &Store, prefix: &[u8]) -> Result<Vec<Up>, ServerError> {
    let mut up = Vec::new();
    store.for_each_row(Table::Meta, &KeyRange::prefix(prefix), |key, value| {
        let wrong = || ServerError::Row { object: "an alarm".to_owned() };
        let name = key.strip_prefix(PREFIX).and_then(|name| std::str::from_utf8(name).ok());
        let name = name.ok_or_else(wrong)?;
        let row = AlarmRow::decode(value).ok_or_else(wrong)?;
        let (code, subject) = match name.split_once('/') {
            Some((code, subject)) => (code, Some(subject.to_owned())),
            None => (name, None),
        };
        up.push(Up { code: code.to_owned(), subject, row });
        Ok(())
    })?;
    Ok(up)
}

fn find(store: &Store, key: &[u8]) -> Result<Option<AlarmRow>, ServerError> {
    let Some(value) = store.parts.index.get(Table::Meta, key)? else { return Ok(None) };
    let wrong = || ServerError::Row { object: format!("alarm {}", String::from_utf8_lossy(key)) };
    AlarmRow::decode(&value).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
