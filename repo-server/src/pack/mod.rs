//! Blobs on their way into packs, packs on their way to the site, and blobs on their way back.
//!
//! Order of a pack (P3): sealed → announced → published on the site → rows in one index batch → its blobs
//! count as stored. A crash before the batch leaves an object that is doomed already (S7). A page's pack is indexed only after the chunks that the page refers to (X7), so a page row
//! never names a chunk that is not there.

mod flush;
mod footer;
mod intake;
mod locate;
mod open;
mod promises;
mod publish;
mod read;
mod references;

pub(crate) use flush::flush;
pub(crate) use footer::{directory_of, read_directory, unreadable};
pub(crate) use intake::{have, take_in};
pub(crate) use locate::locate_one;
#[cfg(test)]
pub(crate) use open::Appended;
pub(crate) use open::{OpenDomain, OpenDomains, PAGE_PACK_LEN};
pub(crate) use publish::new_pack;
pub(crate) use read::{Blob, find_damage, read_blobs, read_for_answer};
pub(crate) use references::{Pages, References, references_of};

pub(crate) use format_spec::pack::Directory;
