//! Little room on a disk: who is refused, the alarm, and the ballast that is given up for a collector.

use crate::error::ServerError;
use crate::health::alarm::{self, AlarmCode};
use crate::space::{Disk, Level, Room, WAY_OUT, mib};
use crate::store::Store;

/// Refuses a new session if a disk has little room, or less than its client expects to send. Blocks.
///
/// # Errors
/// [`ServerError::Full`], with the folder, what is free, what must be, and the way out.
pub(crate) fn admit(store: &Store, expected_bytes: Option<u64>) -> Result<(), ServerError> {
    let refuse = |what: String| Err(ServerError::Full { what: format!("{what}: {WAY_OUT}") });
    let space = &store.parts.space;
    let short = space.short();
    show(store, short.as_ref())?;
    if let Some((disk, room)) = short {
        return refuse(disk.figures(room));
    }
    // Pushed data is stored on the site.
    let Some((disk, room)) = space.disks.last().and_then(|disk| Some((disk, disk.room()?))) else {
        return Ok(());
    };
    match expected_bytes {
        Some(expected) if expected > room.free_bytes.saturating_sub(disk.refuse_below(room)) => {
            refuse(format!("{}, and this push expects to send {}", disk.figures(room), mib(expected)))
        }
        _ => Ok(()),
    }
}

/// Looks how much room there is, and raises or clears the alarm. Blocks.
///
/// # Errors
/// [`ServerError`] if the alarm cannot be read, or written for another reason than the full disk.
pub(crate) fn look(store: &Store) -> Result<Level, ServerError> {
    let space = &store.parts.space;
    if !space.disks.is_empty() && space.disks.iter().all(|disk| disk.room().is_none()) {
        return Ok(Level::Enough);
    }
    let short = space.short();
    show(store, short.as_ref())?;
    Ok(short.map_or(Level::Enough, |_| Level::Low))
}

/// Message about the disks at this moment, if one has little space: on a full one the alarm cannot be
/// written.
pub(crate) fn low_now(store: &Store) -> Option<String> {
    store.parts.space.short().map(|(disk, room)| disk.message(room))
}

fn show(store: &Store, short: Option<&(&Disk, Room)>) -> Result<(), ServerError> {
    let shown = match short {
        None => alarm::clear(store, AlarmCode::LowSpace),
        Some((disk, room)) => alarm::raise(store, AlarmCode::LowSpace, &disk.message(*room)),
    };
    match shown {
        // An alarm about a full disk needs room as well: `low_now` and the refusals tell of it too.
        Err(ServerError::Full { what }) => tracing::warn!(what, "the low_space alarm could not be stored"),
        shown => shown?,
    }
    Ok(())
}

/// Releases the space of each nearly full disk's ballast for a collector, and returns its bytes. 0 if there
/// is enough space, or no ballast that could be deleted. The deletion is durable when this returns. Blocks.
///
/// # Errors
/// [`ServerError::Halted`] if a disk failed in a way that makes it unsafe to continue.
pub fn release_ballast(store: &Store) -> Result<u64, ServerError> {
    store.parts.space.release_ballast().map_err(|error| {
        store.halt(&error);
        ServerError::Halted
    })
}

/// Does what frees room later and needs a little of it now; with the room of the ballast, if there is none
/// otherwise. Blocks.
///
/// # Errors
/// Those of `work`, and of [`release_ballast`].
pub(crate) fn with_ballast<T>(
    store: &Store,
    work: impl Fn() -> Result<T, ServerError>,
) -> Result<T, ServerError> {
    match work() {
        Err(ServerError::Full { .. }) if release_ballast(store)? > 0 => work(),
        done => done,
    }
}

/// Makes the ballast of each disk as long as it should be and as the space allows, and returns the total
/// length. A failure is only logged. Blocks.
pub fn restore_ballast(store: &Store) -> u64 {
    store.parts.space.restore_ballast()
}

#[cfg(test)]
mod tests;
