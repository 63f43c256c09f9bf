//! Blobs on their way into packs, packs on their way to the site, and blobs on their way back.
//!
//! Order of a pack (P3): sealed → announced → published on the site → rows in one index batch → its blobs
//! count as stored. A crash before the batch leaves an object that is doomed already (S7). A page's pack is indexed only after the chunks that the page refers to (X7), so a page row
//! never names a chunk that is not there.

mod footer;
mod intake;
mod locate;
mod open;
mod promises;
mod publish;
mod read;
mod references;

pub(crate) use footer::{directory_of, read_directory, unreadable};
pub(crate) use intake::{have, have_or_promise, take_in};
pub(crate) use locate::locate_one;
pub(crate) use open::{Appended, Domain, FullPack, PublishFailure};
use publish::send_off;
pub(crate) use publish::{flush, new_pack, put};
pub(crate) use read::{Blob, find_damage, read_blobs, read_for_answer};
pub(crate) use references::{Pages, References, references_of};

use format_spec::PackId;
pub(crate) use format_spec::pack::Directory;

use crate::site::ObjectName;

/// A pack of pages is sealed at this length: its references, counted in one index batch, stay few.
pub(crate) const PAGE_PACK_LEN: usize = 4 << 20;

/// Where a pack lies on a site.
pub(crate) fn object_name(id: &PackId) -> ObjectName {
    let hex = id.to_hex();
    let (fan, _) = hex.split_at(2);
    ObjectName::new(&format!("packs/{fan}/{hex}")).expect("hex digits make a valid name")
}
