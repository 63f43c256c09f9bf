//! The rows of all chunks and pages, side by side with what was counted of them.

use format_spec::ChunkId;

use crate::error::ServerError;
use crate::index::{KeyRange, Row, Table};
use crate::rows::ChunkRow;
use crate::sort::{Counts, Key};
use crate::store::Store;
use std::num::NonZeroUsize;

/// Ids that are shown at once.
const GROUP: usize = 4096;

/// An id that has a row, was counted, or both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Joined<const N: usize> {
    /// The chunk or page.
    pub(crate) id: ChunkId,
    /// Its row.
    pub(crate) row: Option<ChunkRow>,
    /// Its counts.
    pub(crate) counts: [u64; N],
}

/// Shows every id that has a row or was counted to `visit`, in order, a few thousand at once. Rows that
/// `visit` changes are not shown again. Blocks.
pub(crate) fn join<const N: usize>(
    store: &Store,
    mut counts: Counts<N>,
    mut visit: impl FnMut(&[Joined<N>]) -> Result<(), ServerError>,
) -> Result<(), ServerError> {
    let mut next = Some(KeyRange::all());
    let limit = NonZeroUsize::new(GROUP).expect("not zero");
    while let Some(range) = next {
        let found = store.parts.index.scan(Table::Chunk, &range, limit)?;
        let mut group = Vec::with_capacity(found.rows.len());
        for Row { key, value } in found.rows {
            let key: Key = key.try_into().map_err(|_| ServerError::Row { object: "a chunk".to_owned() })?;
            let id = ChunkId::from_bytes(key);
            let row = ChunkRow::decode(&value).ok_or_else(|| ServerError::Row { object: id.to_string() })?;
            while counts.peek().is_some_and(|counted| *counted < key) {
                without_row(&mut counts, &mut group)?;
                show_if_full(&mut group, &mut visit)?;
            }
            let is_counted = counts.peek() == Some(&key);
            let counted = if is_counted { counts.next()?.map(|(_, counts)| counts) } else { None };
            group.push(Joined { id, row: Some(row), counts: counted.unwrap_or([0; N]) });
        }
        visit(&group)?;
        next = found.rest;
    }
    let mut group = Vec::new();
    while counts.peek().is_some() {
        without_row(&mut counts, &mut group)?;
        show_if_full(&mut group, &mut visit)?;
    }
    visit(&group)
}

fn without_row<const N: usize>(
    counts: &mut Counts<N>,
    group: &mut Vec<Joined<N>>,
) -> Result<(), ServerError> {
    if let Some((key, counts)) = counts.next()? {
        group.push(Joined { id: ChunkId::from_bytes(key), row: None, counts });
    }
    Ok(())
}

fn show_if_full<const N: usize>(
    group: &mut Vec<Joined<N>>,
    visit: &mut impl FnMut(&[Joined<N>]) -> Result<(), ServerError>,
) -> Result<(), ServerError> {
    if group.len() >= GROUP {
        visit(group)?;
        group.clear();
    }
    Ok(())
}
