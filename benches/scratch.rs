//! Where a benchmark may write.

use std::path::PathBuf;

use clap::Args;
use tempfile::TempDir;

/// Arguments that every benchmark with files takes.
#[derive(Args)]
pub struct Scratch {
    /// Makes its files in this existing folder, instead of the folder for temporary files
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Flag that cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Scratch {
    /// A new folder, removed with what is returned.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn folder(&self) -> TempDir {
        let made = self.dir.as_ref().map_or_else(tempfile::tempdir, tempfile::tempdir_in);
        made.unwrap_or_else(|error| panic!("no folder for the files of a benchmark: {error}"))
    }
}
