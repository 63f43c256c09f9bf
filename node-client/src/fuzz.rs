//! Ways into the parsers that nothing outside of this crate needs otherwise, for the fuzzers in `tests/fuzz`.
//!
//! Each function runs the code that a push runs, on bytes instead of files of its own.

pub use crate::push::fuzz::{globs_match, is_second_name_folder, list_of_files, listed_again};
pub use crate::state::fuzz::{Remembered, remembered, state_of_files, with_fitting_checks};
