//! Numbers of packs.

/// Short name of a pack within the index: 4 bytes in each chunk row instead of 32. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackNumber(pub u32);

impl PackNumber {
    /// Its key.
    pub fn key(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// The number that a key stands for.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        Some(Self(u32::from_be_bytes(key.try_into().ok()?)))
    }
}
