//! Objects that are to be deleted from the site, by name.

use format_spec::SessionId;

use super::take_u64;
use crate::site::ObjectName;

/// Order in which objects are deleted: a snapshot before the manifests and packs that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DoomedKind {
    /// A snapshot.
    Snapshot,
    /// A manifest.
    Manifest,
    /// A pack.
    Pack,
    /// Anything that nothing depends on.
    Other,
}

impl DoomedKind {
    /// Every kind, in the order of deletion.
    pub const ALL: [Self; 4] = [Self::Snapshot, Self::Manifest, Self::Pack, Self::Other];

    /// The first byte of the keys.
    pub fn tag(self) -> u8 {
        match self {
            Self::Snapshot => 0,
            Self::Manifest => 1,
            Self::Pack => 2,
            Self::Other => 3,
        }
    }
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DoomedKey {
    /// Kind of the object.
    pub kind: DoomedKind,
    /// Its name.
    pub name: ObjectName,
}

impl DoomedKey {
    /// Its key.
    pub fn encode(&self) -> Vec<u8> {
        let mut key = vec![self.kind.tag()];
        key.extend_from_slice(self.name.as_str().as_bytes());
        key
    }

    /// The object that a key names.
    pub fn decode(key: &[u8]) -> Option<Self> {
        let (tag, name) = key.split_first()?;
        let kind = DoomedKind::ALL.into_iter().find(|kind| kind.tag() == *tag)?;
        Some(Self { kind, name: ObjectName::new(std::str::from_utf8(name).ok()?).ok()? })
    }
}

/// From when on an object may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoomedRow {
    /// Server time; 0 for at once. It only delays what counts and epochs have already allowed.
    pub due_ms: u64,
    /// Its length, 0 if not known: for people.
    pub bytes: u64,
    /// The session whose commit has announced it, and may complete it while the session is open.
    pub announced_by: Option<SessionId>,
}

impl DoomedRow {
    /// An object that nothing names yet, or any more.
    pub const NOW: Self = Self { due_ms: 0, bytes: 0, announced_by: None };

    /// An object that the commit of a session is about to put.
    pub fn announced_by(session: SessionId) -> Self {
        Self { announced_by: Some(session), ..Self::NOW }
    }

    /// Its value.
    pub fn encode(self) -> Vec<u8> {
        let mut value = self.due_ms.to_le_bytes().to_vec();
        value.extend_from_slice(&self.bytes.to_le_bytes());
        value.extend(self.announced_by.iter().flat_map(SessionId::as_bytes));
        value
    }

    /// The row that a value stands for.
    pub fn decode(mut value: &[u8]) -> Option<Self> {
        let from = &mut value;
        let (due_ms, bytes) = (take_u64(from)?, take_u64(from)?);
        let announced_by = match value {
            [] => None,
            id => Some(SessionId::from_bytes(id.try_into().ok()?)),
        };
        Some(Self { due_ms, bytes, announced_by })
    }
}
