//! What a pack's footer says, without reading its blobs.

use std::sync::Arc;

use bytes::Bytes;
use format_spec::FormatError;
use format_spec::object::HEADER_LEN;
use format_spec::pack::{self, Directory, TRAILER_LEN, Trailer};

use super::object_name;
use crate::error::ServerError;
use crate::index::row::PackRow;
use crate::repository::Repository;

/// The directory of a pack, read from its tail: header and trailer in one request, the footer in a second.
///
/// # Errors
/// [`ServerError::Damaged`] if they are not what was written, [`ServerError::Site`] if they cannot be read.
pub(crate) async fn directory(repository: &Arc<Repository>, row: &PackRow) -> Result<Directory, ServerError> {
    let name = object_name(&row.id);
    let damaged = |source| ServerError::Damaged { object: row.id.to_string(), source };
    let wide = |len: usize| u64::try_from(len).expect("a small number");
    let ends = [0..wide(HEADER_LEN), row.len.saturating_sub(wide(TRAILER_LEN))..row.len];
    let ends = repository.parts.site.get_ranges(&name, &ends).await;
    let ends = ends.map_err(|error| repository.site_error(error))?;
    let [header, trailer] = ends.as_slice() else {
        return Err(ServerError::Bug("a site answered another number of ranges"));
    };
    let header: [u8; HEADER_LEN] = whole(header).map_err(damaged)?;
    let trailer: [u8; TRAILER_LEN] = whole(trailer).map_err(damaged)?;
    let trailer = Trailer::decode(&trailer, row.len).map_err(damaged)?;
    let footer = trailer.footer_offset..trailer.footer_offset + u64::from(trailer.footer_len);
    let footer = repository.parts.site.get_ranges(&name, &[footer]).await;
    let footer = footer.map_err(|error| repository.site_error(error))?.pop().unwrap_or_default();
    let id = row.id;
    let open = move |repository: &Arc<Repository>| {
        let opened = pack::open_footer(&repository.keys, repository.id(), &header, &trailer, &footer);
        opened.map_err(|source| ServerError::Damaged { object: id.to_string(), source })
    };
    repository.blocking(open).await
}

fn whole<const N: usize>(bytes: &Bytes) -> Result<[u8; N], FormatError> {
    bytes.as_ref().try_into().map_err(|_| FormatError::Unauthentic { what: "pack" })
}
