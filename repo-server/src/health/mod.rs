//! The server's health: alarms, the clock, room on the disks, and what rests meanwhile.

pub(crate) mod alarm;
pub(crate) mod clock;
pub(crate) mod gate;
pub mod space;

use format_spec::wire;

use crate::error::ServerError;
use crate::store::Store;

/// The alarms that are up, and the one that a full disk could not take. Blocks.
pub(crate) fn alarms(store: &Store) -> Result<Vec<wire::Alarm>, ServerError> {
    alarm::list(store, space::low_now(store))
}
