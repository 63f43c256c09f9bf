//! The thin client that runs on every database node.

pub mod api;
pub mod error;
