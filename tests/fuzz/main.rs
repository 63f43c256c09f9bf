//! Every decoder of strangers' bytes on the seeds in the tree, and on mutations of them. The real fuzzers run
//! the same functions: see `README.md` here.
#![cfg(test)]

mod mutations;
mod seeds;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use peak_alloc::PeakAlloc;
use tests::targets::{Target, Verdict};

/// Counts what targets take.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The memory of a process is counted as one, and making seeds takes as much as reading them: each test here
/// begins with this, so that they run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a target; what it says against the input, with the input.
fn try_check(target: &Target, bytes: &[u8]) -> Result<Verdict, String> {
    catch_unwind(AssertUnwindSafe(|| target.check(bytes))).map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        format!("`{}`: {}: b\"{}\"", target.name, said.unwrap_or_default(), bytes.escape_ascii())
    })
}
