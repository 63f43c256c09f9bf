//! Tools that a machine may lack. What cannot run says so; a program that could be installed fails the test
//! where everything is required.

use std::io::Write;
use std::path::Path;

/// When set to `1`, a program that is not installed fails the tests that need it.
pub const REQUIRE: &str = "ASTACUS_REQUIRE_SERVICES";
/// When set to `1`, suites run many more rounds.
pub const NIGHTLY: &str = "ASTACUS_NIGHTLY";

/// Says on standard error, past the harness, that a test or a part of it does not run, and why.
pub fn skip(why: &str) {
    // Where nobody listens, nothing is lost but this line.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// True if `program` is installed; if not, prints that tests which need it are skipped.
///
/// # Panics
/// If it is missing and [`REQUIRE`] is set.
pub fn has(program: &str) -> bool {
    let found = is_installed(program);
    if !found {
        assert!(!is_set(REQUIRE), "{REQUIRE} is set, and `{program}` is not installed");
        skip(&format!("`{program}` is not installed"));
    }
    found
}

/// True if `program` is in a folder of PATH.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// True if this process has all rights.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `few` rounds, or `many` in a nightly run.
pub fn rounds(few: usize, many: usize) -> usize {
    if is_set(NIGHTLY) { many } else { few }
}

/// True if a test that has done this many of its `rounds` continues. One that has not `met` by chance what it
/// is about goes on past the last of them, to ten times as many at most: no fixed number is enough on every
/// machine.
pub fn goes_on(done: usize, rounds: usize, met: bool) -> bool {
    done < if met { rounds } else { rounds * 10 }
}

/// True if the variable is set to `1`.
pub fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| value == "1")
}

/// Bytes that are allocated for what `path` is, without what lies below it.
///
/// # Panics
/// If it cannot be read.
pub fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).expect("it is there").blocks() * 512
}
