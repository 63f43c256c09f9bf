//! The programs of this workspace. Cargo builds a package's programs only for that package's own
//! tests, so this builds them once per process, with the profile and the target folder of the suite.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A folder with finished programs to test, instead of building them.
pub const FOLDER: &str = "ASTACUS_BIN_DIR";

/// The program with this name.
///
/// # Panics
/// If it cannot be built.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let path = BUILT.get_or_init(folder).join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}

fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return PathBuf::from(folder);
    }
    let this = std::env::current_exe().expect("a process knows its program");
    // TARGET/PROFILE/deps/SUITE-HASH
    let folder = this.ancestors().nth(2).expect("cargo puts suites into PROFILE/deps").to_owned();
    build(&folder);
    folder
}

fn build(folder: &Path) {
    let target = folder.parent().expect("a profile's folder lies in the target folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        Some(other) => other,
        None => panic!("{} does not end with the name of a profile", folder.display()),
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo.args(["build", "--quiet", "--workspace", "--bins", "--profile", profile, "--target-dir"]);
    cargo.arg(target).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    // Variables that cargo sets for a test must not reach the next cargo.
    for (name, _) in std::env::vars_os() {
        let told = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
                .iter()
                .any(|start| name.starts_with(start))
        });
        if told {
            cargo.env_remove(name);
        }
    }
    let built = cargo.output().expect("cargo can be started");
    assert!(
        built.status.success(),
        "the programs could not be built:\n{}",
        String::from_utf8_lossy(&built.stderr)
    );
}
