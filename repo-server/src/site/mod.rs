//! Objects on a site: one destination that holds packs, manifests and what is needed to read them.
//!
//! An object has a name, is written once, whole, and never changes. What [`Site::put_new`] has
//! acknowledged survives a power cut. A name never holds a part of an object. All kinds of sites keep
//! the same contract, and [`conformance`] checks it on any of them.
//!
//! Sites do not know the meaning of objects; a reader checks each object against its name.

pub mod conformance;
mod error;
#[cfg(test)]
pub(crate) mod faulty;
mod folder;
#[cfg(test)]
pub(crate) mod hooked;
pub(crate) mod layout;
mod name;
mod open;
mod store;
#[cfg(test)]
mod tests;
mod url;
#[cfg(test)]
pub(crate) mod worn;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use error::{Cause, Op, SiteError};
pub use name::{Area, BadName, ObjectName, Prefix};
pub(crate) use open::SystemLock;
pub use store::StoreSite;
pub use url::{BadSiteUrl, SiteUrl};

/// The answer of a site, in time. Nothing happens before it is polled.
pub type SiteFuture<'a, T> = BoxFuture<'a, Result<T, SiteError>>;

/// How an object came to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is new.
    Stored,
    /// An object of this name and content was there already.
    AlreadyThere,
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: ObjectName,
    /// Its length in bytes.
    pub len: u64,
}

/// One destination for objects.
///
/// Any operation may run beside any other, also on the same name. A dropped future may or may not have done
/// its work, and a folder site continues it for a moment; repeating a put or a delete is always safe. No name
/// may be a whole-segment prefix of another (`heads/a` and `heads/a/b`): a site in a folder refuses the
/// second of them.
///
/// # Errors
/// Every operation may fail with [`SiteError::Unavailable`]. Only writes of a site on a local disk fail
/// with [`SiteError::Fatal`], and then the process must end.
pub trait Site: fmt::Debug + Send + Sync {
    /// Stores `bytes` under `name`, if that name is free; never replaces.
    ///
    /// Durable when it returns, also when the object was there already.
    ///
    /// # Errors
    /// - [`SiteError::Differs`]: the name is taken by other bytes.
    /// - [`SiteError::Full`]: no space; nothing was stored.
    fn put_new<'a>(&'a self, name: &'a ObjectName, bytes: Bytes) -> SiteFuture<'a, Put>;

    /// Reads a whole object, without copying it more often than the kind of site must.
    ///
    /// # Errors
    /// [`SiteError::NotFound`].
    fn get<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, Bytes>;

    /// Reads several ranges of one object at once, in the order given; they may touch or overlap.
    /// The answers may share memory. For no ranges it returns at once without looking.
    ///
    /// # Errors
    /// - [`SiteError::NotFound`].
    /// - [`SiteError::OutOfRange`]: a range is empty or reaches beyond the object. No memory is
    ///   taken for what the object does not have.
    fn get_ranges<'a>(&'a self, name: &'a ObjectName, ranges: &'a [Range<u64>])
    -> SiteFuture<'a, Vec<Bytes>>;

    /// The length of an object in bytes.
    ///
    /// # Errors
    /// [`SiteError::NotFound`].
    fn len<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, u64>;

    /// Lists the objects below `prefix`, sorted by the bytes of their names. What was put or
    /// deleted before the call is shown as such; what changes meanwhile may be shown or not.
    ///
    /// Things that are no objects, such as temporary files, are left out. An empty list says that
    /// the site answered and has none: a listing that fails midway is an error, not a short list.
    fn list<'a>(&'a self, prefix: &'a Prefix) -> SiteFuture<'a, Vec<Listed>>;

    /// Deletes an object, durably. Deleting what is not there succeeds.
    fn delete<'a>(&'a self, name: &'a ObjectName) -> SiteFuture<'a, ()>;
}
