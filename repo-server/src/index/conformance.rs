//! The suite that every engine must pass.
use super::Index;
use std::sync::Arc;
pub(super) struct Subject {
    open: Box<dyn Fn() -> Arc<dyn Index>>,
}
impl Subject {
    pub(super) fn new(open: impl Fn() -> Arc<dyn Index> + 'static) -> Self {
        Self { open: Box::new(open) }
    }
}
macro_rules! suite {
    ($make:expr) => {};
}
pub(super) use suite;
