//! The sites of the product, and one that fails when told to.

pub(crate) use repo_server::site::*;

#[allow(dead_code, reason = "this suite uses a part of it")]
#[path = "../../repo-server/src/site/faulty.rs"]
pub(crate) mod faulty;
