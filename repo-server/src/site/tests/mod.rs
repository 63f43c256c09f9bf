//! Tests of the sites, of the suite that checks them, and of the site that fails on purpose.

mod conformance;
mod faulty;
mod folder;

use super::ObjectName;

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}
