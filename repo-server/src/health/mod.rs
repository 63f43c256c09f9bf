//! The server's health: alarms, the clock, room on the disks.

pub(crate) mod alarm;
pub(crate) mod clock;
pub mod space;
