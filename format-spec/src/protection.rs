//! A protection: says on every site that a snapshot must stay, and why.
//!
//! Its object is `protections/`, the id of the snapshot and a random number. It exists as long as the
//! protection.

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::error::FormatError;
use crate::id::SnapshotId;

/// Longest reason in bytes.
pub const MAX_REASON_LEN: usize = 1000;

/// Why a snapshot must stay.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ProtectionRecord {
    /// Format version.
    #[n(0)]
    pub version: u16,
    /// The snapshot.
    #[n(1)]
    pub snapshot: SnapshotId,
    /// Why, for people; at most [`MAX_REASON_LEN`] bytes.
    #[n(2)]
    pub reason: String,
}

impl ProtectionRecord {
    /// Its CBOR.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// The protection that `bytes` stand for.
    ///
    /// # Errors
    /// [`FormatError`]; an unknown version is an error, never a guess.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let record: Self = cbor::decode("protection", bytes)?;
        crate::object::check_version("protection", record.version)?;
        if record.reason.len() > MAX_REASON_LEN {
            return Err(FormatError::malformed("protection", "its reason is too long"));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protection_reads_back_and_a_newer_or_longer_one_is_refused() {
        let record = ProtectionRecord {
            version: crate::FORMAT_VERSION,
            snapshot: SnapshotId::from_bytes([7; 16]),
            reason: "audit 2026".to_owned(),
        };
        let newer = ProtectionRecord { version: record.version + 1, ..record.clone() };
        let longer = ProtectionRecord { reason: "x".repeat(MAX_REASON_LEN + 1), ..record.clone() };

        assert_eq!(ProtectionRecord::decode(&record.encode()), Ok(record));
        assert!(matches!(ProtectionRecord::decode(&newer.encode()), Err(FormatError::Version { .. })));
        assert!(matches!(ProtectionRecord::decode(&longer.encode()), Err(FormatError::Malformed { .. })));
    }
}
