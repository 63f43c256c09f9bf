//! Ways into the parsers that nothing outside of this crate needs otherwise, for the fuzzers in `tests/fuzz`.
//!
//! Each function runs the code that a push runs, on bytes instead of files of its own.

use std::fs::File;
use std::io::{self, Seek, Write};

pub use crate::push::fuzz::{globs_match, is_second_name_folder, list_of_files, listed_again};
pub use crate::state::fuzz::{Remembered, remembered, state_of_files, with_fitting_checks};

/// A file in memory that holds `bytes`, at its start.
pub(crate) fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}
