//! The lists of each table's files, checked before an index is opened.
//!
//! fjall writes the checksum of such a list (`v17`) beside its number (`current`), and does not read it again. A bit that flips
//! in the list can let the rows of one file win over newer ones.

use std::io;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use crate::index::error::EngineError;

/// The file that says which list is the present one: its number, its checksum, and which kind of checksum that is.
const CURRENT: &str = "current";
const CURRENT_LEN: usize = 8 + 16 + 1;
const XXH3: u8 = 0;

/// Compares the list of every table of the database in `data` with its checksum.
///
/// # Errors
/// If one is not what was written, or cannot be read.
pub(super) fn check(data: &Path) -> Result<(), EngineError> {
    let Some(keyspaces) = if_there(std::fs::read_dir(data.join("keyspaces")))? else { return Ok(()) };
    for keyspace in keyspaces {
        let folder = keyspace?.path();
        // A table that was being made when a process died has no such file yet.
        let Some(current) = if_there(std::fs::read(folder.join(CURRENT)))? else { continue };
        if !is_as_written(&folder, &current)? {
            return Err(format!("the list of files in {} is damaged", folder.display()).into());
        }
    }
    Ok(())
}

fn is_as_written(folder: &Path, current: &[u8]) -> io::Result<bool> {
    let Ok(current) = <&[u8; CURRENT_LEN]>::try_from(current) else { return Ok(false) };
    let (number, rest) = current.split_first_chunk::<8>().expect("it has more bytes");
    let (checksum, kind) = rest.split_first_chunk::<16>().expect("it has more bytes");
    let list = folder.join(format!("v{}", u64::from_le_bytes(*number)));
    let Some(list) = if_there(std::fs::read(list))? else { return Ok(false) };
    Ok(kind == [XXH3] && xxh3_128(&list) == u128::from_le_bytes(*checksum))
}

fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        found => found.map(Some),
    }
}
