//! The walk from snapshots to their manifests that a count of everything begins with.

use std::num::NonZeroUsize;
use std::sync::Arc;

use format_spec::manifest::Manifest;
use format_spec::snapshot::{ManifestRef, Snapshot};

use super::open_manifest;
use crate::error::ServerError;
use crate::index::{KeyRange, Table};
use crate::pack::unreadable;
use crate::store::{Store, wait};

/// Rows of snapshots that are in memory at a time.
const AT_ONCE: usize = 1000;

/// Shows each manifest of each snapshot in the order of their ids, or the reason why it is damaged or lost. One
/// manifest at a time is in memory. Blocks.
///
/// # Errors
/// The first that `visit` returns; a site that does not answer, which says nothing about a manifest.
pub(crate) fn for_each_manifest(
    store: &Arc<Store>,
    mut visit: impl FnMut(&Snapshot, &ManifestRef, Result<Manifest, String>) -> Result<(), ServerError>,
) -> Result<(), ServerError> {
    let limit = NonZeroUsize::new(AT_ONCE).expect("not zero");
    let mut next = Some(KeyRange::all());
    while let Some(range) = next {
        let found = store.parts.index.scan(Table::Snapshot, &range, limit)?;
        for row in found.rows {
            let snapshot = Snapshot::decode(&row.value);
            let snapshot = snapshot.map_err(|_| ServerError::Row { object: "a snapshot".to_owned() })?;
            for of in &snapshot.manifests {
                let manifest = match wait(open_manifest(store, of.id)) {
                    Ok((_, manifest)) => Ok(manifest),
                    Err(error) => Err(unreadable(&error).ok_or(error)?),
                };
                visit(&snapshot, of, manifest)?;
            }
        }
        next = found.rest;
    }
    Ok(())
}
