//! Finds what there is to push: the walk meets every name, the lister has files frozen that will be read, and the list
//! keeps the tree of that moment on disk until the scan has read it.

pub(crate) mod links;
pub(crate) mod list;
pub(crate) mod lister;
pub(crate) mod moment;
pub(crate) mod opener;
pub(crate) mod walk;
