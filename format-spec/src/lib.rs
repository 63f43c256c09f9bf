//! Every byte of Astacus that outlives a process, or crosses from one to another.
//!
//! | module | what it owns |
//! |---|---|
//! | [`id`] | typed ids and names |
//! | [`fingerprint`] | the SHA-256 of a certificate, for people to compare |
//! | [`invite`] | the word by which a node is enrolled |
//! | [`key`] | the repository master key and everything derived from it |
//! | [`keyring`] | slots that open the master key |
//! | [`paper`] | a key as lines that a person can type |
//! | [`aead`] | AES-256-GCM behind one trait, two engines |
//! | [`blob`] | compress, seal and open one chunk |
//! | [`pack`] | the immutable file that holds blobs |
//! | [`path`] | paths of file entries: bytes, relative, harmless |
//! | [`entry`] | one file, folder or link of a node |
//! | [`page`] | runs of entries with content-defined boundaries |
//! | [`assemble`] | the tree that the pages of one node stand for |
//! | [`manifest`] | the pages of one node |
//! | [`snapshot`] | the manifests of one moment |
//! | [`label`] | labels and the note of a snapshot |
//! | [`checkpoint`] | the directories of many packs, for who makes an index anew |
//! | [`object`] | the sealed envelope of manifests, snapshots and checkpoints |
//! | [`descriptor`] | what a repository is, on every site |
//! | [`access`] | roles, networks, and secrets that are compared and never kept |
//! | [`notice`] | an alarm on its way to people, and its signature |
//! | [`wire`] | bodies and headers of the HTTP interface |
//!
//! Nothing here does I/O, reads a clock, draws randomness or logs. Salts come in as arguments, so
//! each encoder is a pure function and can be pinned by golden files. Decoders take bytes that a
//! stranger may have written: they never panic, never guess a version, and bound every length
//! before they allocate. `docs/format.md` gives every byte.

pub mod access;
pub mod aead;
pub mod assemble;
pub mod blob;
mod cbor;
pub mod checkpoint;
pub mod descriptor;
pub mod entry;
pub mod error;
pub mod fingerprint;
pub mod id;
pub mod invite;
pub mod key;
pub mod keyring;
pub mod label;
pub mod manifest;
pub mod notice;
pub mod object;
pub mod pack;
pub mod page;
pub mod paper;
pub mod path;
pub mod protection;
pub mod snapshot;
pub mod wire;

pub use entry::{Entry, EntryKind, Extent, FileEnd, Timestamp, Xattr};
pub use error::{ErrorClass, FormatError};
pub use fingerprint::Fingerprint;
pub use id::{
    CheckpointId, ChunkId, ClusterName, FileDigest, LabelKey, ManifestId, NodeId, NodeName, PackId,
    RepositoryId, SeriesId, SeriesName, SessionId, SlotName, SnapshotId, TokenName,
};
pub use invite::Invite;
pub use label::{About, Label, LabelChoice, LabelValue, Labels, Note};
pub use path::EntryPath;

/// Version of everything this crate writes. Readers refuse any other.
pub const FORMAT_VERSION: u16 = 1;

/// Longest plaintext of one chunk: what a decoder may be asked to allocate for it.
pub const MAX_CHUNK_LEN: u32 = 16 << 20;
