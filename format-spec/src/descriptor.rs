//! The repository's descriptor: `keyring/repository` on every site, and the last thing that the
//! creation of a repository writes.

use serde::{Deserialize, Serialize};

use crate::FORMAT_VERSION;
use crate::error::FormatError;
use crate::id::{RepositoryId, to_hex};
use crate::key::MasterKey;
use crate::wire::ChunkerSpec;

/// Description of a repository. JSON, so that a person who finds a site can read it; it holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Version of the format of everything in the repository.
    pub format_version: u16,
    /// Its id.
    pub repository: RepositoryId,
    /// Fingerprint of the master key that opens it: 64 hex digits.
    pub master_key_fingerprint: String,
    /// Key generation that new objects are sealed with.
    pub generation: u32,
    /// How chunks are cut.
    pub chunker: ChunkerSpec,
}

impl Descriptor {
    /// The descriptor of a new repository.
    pub fn new(repository: RepositoryId, master: &MasterKey, chunker: ChunkerSpec) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            repository,
            master_key_fingerprint: to_hex(&master.fingerprint()),
            generation: 1,
            chunker,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec_pretty(self).expect("a descriptor is plain JSON");
        text.push(b'\n');
        text
    }

    /// The descriptor that `bytes` stand for.
    ///
    /// # Errors
    /// [`FormatError`]; an unknown version is an error, never a guess.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let what = "repository descriptor";
        let malformed = |error: serde_json::Error| FormatError::malformed(what, error.to_string());
        let version: Version = serde_json::from_slice(bytes).map_err(malformed)?;
        crate::object::check_version(what, version.format_version)?;
        serde_json::from_slice(bytes).map_err(malformed)
    }

    /// True if `master` is the key that the repository was made with.
    pub fn fits(&self, master: &MasterKey) -> bool {
        self.master_key_fingerprint == to_hex(&master.fingerprint())
    }
}

#[derive(Deserialize)]
struct Version {
    format_version: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_reads_back_and_knows_its_key() {
        let master = MasterKey::from_bytes([7; 32]);
        let chunker = ChunkerSpec::Fixed { len: 4096 };
        let descriptor = Descriptor::new(RepositoryId::from_bytes([1; 16]), &master, chunker);

        let again = Descriptor::decode(&descriptor.encode()).unwrap();

        assert_eq!(again, descriptor);
        assert!(again.fits(&master));
        assert!(!again.fits(&MasterKey::from_bytes([8; 32])));
    }

    #[test]
    fn a_descriptor_of_another_version_is_refused_by_its_version() {
        let error = Descriptor::decode(br#"{"format_version": 9, "anything": 1}"#).unwrap_err();

        assert!(matches!(error, FormatError::Version { found: 9, .. }));
    }
}
