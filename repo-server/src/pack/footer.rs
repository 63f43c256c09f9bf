//! The directory of a pack, by its tail: nothing else of the pack is read.

use std::sync::Arc;

use bytes::Bytes;
use format_spec::object::HEADER_LEN;
use format_spec::pack::{self, Directory, TRAILER_LEN, Trailer};
use format_spec::{FormatError, PackId};

use crate::defects;
use crate::defects::objects::Object;
use crate::error::ServerError;
use crate::rows::{PackNumber, PackRow};
use crate::site::SiteError;
use crate::site::layout::pack_object;
use crate::store::Store;

/// How much of the end of a pack is read at first: it holds the footer of a usual pack of chunks.
const TAIL_LEN: u64 = 32 << 10;

/// Directory of a pack that the index names. What proves to be damaged is remembered when this returns.
///
/// # Errors
/// The errors of [`read_directory`].
pub(crate) async fn directory_of(
    store: &Arc<Store>,
    number: PackNumber,
    row: &PackRow,
) -> Result<Directory, ServerError> {
    let read = defects::twice(|| read_directory(store, &row.id, row.len)).await;
    defects::heed(store, Object::Pack(number), read).await
}

/// Directory of a pack of `len` bytes. The footer is authenticated; the rest of the pack is not looked at.
///
/// # Errors
/// [`ServerError::Damaged`] if header or footer differ from the written ones, [`ServerError::Site`] if they
/// could not be read. [`unreadable`] distinguishes lasting errors from those that a retry may fix.
pub(crate) async fn read_directory(store: &Store, id: &PackId, len: u64) -> Result<Directory, ServerError> {
    let damaged = |source| ServerError::Damaged { object: id.to_string(), source };
    let short = || damaged(FormatError::Malformed { what: "pack", why: "too short".to_owned() });
    let name = pack_object(id);
    let wide = |n: usize| u64::try_from(n).expect("a small number");
    if len < wide(HEADER_LEN + TRAILER_LEN) {
        return Err(short());
    }
    let tail_at = len.saturating_sub(TAIL_LEN);
    let ranges = [0..wide(HEADER_LEN), tail_at..len];
    let read = store.get_ranges(&name, &ranges).await?;
    let [header, tail]: [Bytes; 2] = read.try_into().map_err(|_| short())?;
    let header = header.first_chunk::<HEADER_LEN>().ok_or_else(short)?;
    let trailer = tail.last_chunk::<TRAILER_LEN>().ok_or_else(short)?;
    let trailer = Trailer::decode(trailer, len).map_err(damaged)?;
    let footer = trailer.footer_offset..trailer.footer_offset + u64::from(trailer.footer_len);
    let footer = if footer.start >= tail_at {
        let start = usize::try_from(footer.start - tail_at).map_err(|_| short())?;
        let end = tail.len().checked_sub(TRAILER_LEN).ok_or_else(short)?;
        tail.get(start..end).map(|found| tail.slice_ref(found)).ok_or_else(short)?
    } else {
        let read = store.get_ranges(&name, &[footer]).await?;
        read.into_iter().next().ok_or_else(short)?
    };
    pack::open_footer(&store.keys, store.id(), header, &trailer, &footer).map_err(damaged)
}

/// Problem of an object, if reading it failed for a lasting reason; `None` for an error that is not about the
/// object.
pub(crate) fn unreadable(error: &ServerError) -> Option<String> {
    match error {
        ServerError::Damaged { source, .. } => Some(source.to_string()),
        ServerError::Lost { why, .. } => Some(why.clone()),
        ServerError::Site(SiteError::NotFound { .. }) => Some("is missing from the site".to_owned()),
        ServerError::Site(SiteError::OutOfRange { len, .. }) => {
            Some(format!("has the wrong length, {len} bytes"))
        }
        _ => None,
    }
}
