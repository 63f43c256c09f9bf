//! The repository master key and everything derived from it.
//!
//! ```text
//! master key (32 random bytes)
//!   ├─ DomainKey[cluster]      given to the clients of that cluster
//!   │    ├─ chunk ids, page ids, file digests   keyed BLAKE3
//!   │    ├─ gear table                          256 × u64 for the chunker
//!   │    └─ page boundaries                     keyed BLAKE3
//!   └─ SealKeys[generation]    never leave the server
//!        ├─ blobs: one AES key per chunk id, synthetic nonce
//!        └─ metadata: one AES key per salt, synthetic nonce
//! ```
//! Each purpose has its own BLAKE3 key-derivation context. Keys are wiped when dropped, and no
//! `Debug` prints them.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::entry::Extent;
use crate::id::{ChunkId, ClusterName, FileDigest, parse_hex_32, to_hex};

const DOMAIN: &str = "astacus v1 2026 dedup domain";
const CHUNK_ID: &str = "astacus v1 2026 chunk id";
const PAGE_ID: &str = "astacus v1 2026 page id";
const FILE_DIGEST: &str = "astacus v1 2026 file digest";
const GEAR: &str = "astacus v1 2026 gear table";
const PAGE_BOUNDARY: &str = "astacus v1 2026 page boundary";
const BLOB_KEY: &str = "astacus v1 2026 blob key";
const BLOB_NONCE: &str = "astacus v1 2026 blob nonce";
const META_KEY: &str = "astacus v1 2026 metadata key";
const META_NONCE: &str = "astacus v1 2026 metadata nonce";
const FINGERPRINT: &str = "astacus v1 2026 master key fingerprint";

/// A 32-byte secret, wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret([u8; 32]);

impl Secret {
    pub(crate) fn derive(context: &str, material: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        for part in material {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn keyed(&self, data: &[u8]) -> [u8; 32] {
        *blake3::keyed_hash(&self.0, data).as_bytes()
    }
}

/// The one secret of a repository. Who has it and a site can read everything.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// The key with these bytes, which must come from the operating system's random source.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key from its file: 64 hex digits, with or without a line end.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex_32(text.trim_end()).map(Self)
    }

    /// The text of the key file.
    pub fn to_file_text(&self) -> String {
        to_hex(&self.0) + "\n"
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Tells keys apart without revealing anything of them.
    pub fn fingerprint(&self) -> [u8; 32] {
        Secret::derive(FINGERPRINT, &[&self.0]).0
    }

    /// The keys and parameters that the nodes of `cluster` share.
    pub fn domain(&self, cluster: &ClusterName) -> DomainKey {
        DomainKey::from_secret(Secret::derive(DOMAIN, &[&self.0, cluster.as_str().as_bytes()]))
    }

    /// The keys that seal what is written in `generation`.
    pub fn seal_keys(&self, generation: u32) -> SealKeys {
        let derive = |context| Secret::derive(context, &[&self.0, &generation.to_le_bytes()]);
        SealKeys {
            generation,
            blob: derive(BLOB_KEY),
            blob_nonce: derive(BLOB_NONCE),
            meta: derive(META_KEY),
            meta_nonce: derive(META_NONCE),
        }
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(..)")
    }
}

/// A random key on paper that opens one slot of a keyring.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RecoveryKey([u8; 32]);

impl RecoveryKey {
    /// The key with these bytes, which must come from the operating system's random source.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

/// Kind of content of a blob. Part of its id's key, so a page never passes for a chunk.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    minicbor::Encode,
    minicbor::Decode,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[cbor(index_only)]
pub enum BlobKind {
    /// A range of a file.
    #[n(0)]
    Chunk,
    /// A run of file entries.
    #[n(1)]
    Page,
}

impl BlobKind {
    /// The byte that stands for it in frames and in authenticated data.
    pub fn code(self) -> u8 {
        match self {
            Self::Chunk => 0,
            Self::Page => 1,
        }
    }

    /// The kind that `code` stands for.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Chunk, Self::Page].into_iter().find(|kind| kind.code() == code)
    }
}

/// The secret that the nodes of one dedup domain share: ids, digests, chunk and page boundaries.
#[derive(Clone)]
pub struct DomainKey {
    secret: Secret,
    chunk_id: Secret,
    page_id: Secret,
    file_digest: Secret,
    page_boundary: Secret,
}

impl DomainKey {
    fn from_secret(secret: Secret) -> Self {
        let derive = |context| Secret::derive(context, &[&secret.0]);
        Self {
            chunk_id: derive(CHUNK_ID),
            page_id: derive(PAGE_ID),
            file_digest: derive(FILE_DIGEST),
            page_boundary: derive(PAGE_BOUNDARY),
            secret,
        }
    }

    /// The key as it is handed to a client: 64 hex digits.
    pub fn to_hex(&self) -> String {
        to_hex(&self.secret.0)
    }

    /// The key that a server handed out.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex_32(text).map(|bytes| Self::from_secret(Secret(bytes)))
    }

    /// The id of a chunk or page with this plaintext.
    pub fn id_of(&self, kind: BlobKind, plaintext: &[u8]) -> ChunkId {
        let key = match kind {
            BlobKind::Chunk => &self.chunk_id,
            BlobKind::Page => &self.page_id,
        };
        ChunkId::from_bytes(key.keyed(plaintext))
    }

    /// The secret table that decides where chunks are cut.
    pub fn gear_table(&self) -> Box<[u64; 256]> {
        let mut bytes = [0; 8];
        let mut table = Box::new([0; 256]);
        let mut stream = blake3::Hasher::new_derive_key(GEAR).update(&self.secret.0).finalize_xof();
        for entry in table.iter_mut() {
            stream.fill(&mut bytes);
            *entry = u64::from_le_bytes(bytes);
        }
        table
    }

    /// A number that decides whether a page ends after the entry with this path.
    pub(crate) fn boundary_of(&self, path: &[u8]) -> u64 {
        let mut bytes = [0; 8];
        blake3::Hasher::new_keyed(self.page_boundary.bytes()).update(path).finalize_xof().fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number that identifies the links of one inode: derived from the path of the first one, so that it
    /// does not change when other files are added or removed.
    pub fn link_group(&self, first_path: &[u8]) -> u64 {
        self.boundary_of(first_path)
    }

    /// Starts the digest of one file.
    pub fn file_digester(&self) -> FileDigester {
        FileDigester(blake3::Hasher::new_keyed(self.file_digest.bytes()))
    }
}

impl fmt::Debug for DomainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DomainKey(..)")
    }
}

/// Digest of one file, fed with its extents in order.
pub struct FileDigester(blake3::Hasher);

impl FileDigester {
    /// Adds the next extent.
    pub fn push(&mut self, extent: &Extent) {
        match extent {
            Extent::Chunk { id, len } => {
                self.0.update(&[0]).update(&u64::from(*len).to_le_bytes()).update(id.as_bytes())
            }
            Extent::Hole { len } => self.0.update(&[1]).update(&len.to_le_bytes()),
        };
    }

    /// The digest of the extents so far.
    pub fn finish(&self) -> FileDigest {
        FileDigest::from_bytes(*self.0.finalize().as_bytes())
    }
}

/// The keys of one generation that seal blobs and metadata.
#[derive(Clone)]
pub struct SealKeys {
    generation: u32,
    blob: Secret,
    blob_nonce: Secret,
    meta: Secret,
    meta_nonce: Secret,
}

/// A key and a nonce for exactly one message.
pub(crate) struct OneTime {
    pub(crate) key: Secret,
    pub(crate) nonce: [u8; 12],
}

impl SealKeys {
    /// Which generation these keys are.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    pub(crate) fn blob_key(&self, id: &ChunkId) -> Secret {
        Secret(self.blob.keyed(id.as_bytes()))
    }

    pub(crate) fn meta_key(&self, salt: &[u8; 32]) -> Secret {
        Secret(self.meta.keyed(salt))
    }

    pub(crate) fn blob_once(&self, id: &ChunkId, aad: &[u8], payload: &[u8]) -> OneTime {
        OneTime { key: self.blob_key(id), nonce: synthetic_nonce(&self.blob_nonce, aad, payload) }
    }

    pub(crate) fn meta_once(&self, salt: &[u8; 32], aad: &[u8], payload: &[u8]) -> OneTime {
        OneTime { key: self.meta_key(salt), nonce: synthetic_nonce(&self.meta_nonce, aad, payload) }
    }
}

/// The nonce for this message under any key: it repeats only when the authenticated data and the
/// payload both repeat, and then so does the ciphertext.
fn synthetic_nonce(key: &Secret, aad: &[u8], payload: &[u8]) -> [u8; 12] {
    let aad_len = u64::try_from(aad.len()).expect("a length fits in 64 bits");
    let mut hasher = blake3::Hasher::new_keyed(key.bytes());
    hasher.update(&aad_len.to_le_bytes()).update(aad).update(payload);
    let mut nonce = [0; 12];
    hasher.finalize_xof().fill(&mut nonce);
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master() -> MasterKey {
        MasterKey::from_bytes([7; 32])
    }

    #[test]
    fn clusters_share_no_id() {
        let one = master().domain(&"one".parse().unwrap());
        let two = master().domain(&"two".parse().unwrap());

        assert_ne!(one.id_of(BlobKind::Chunk, b"same"), two.id_of(BlobKind::Chunk, b"same"));
        assert_ne!(one.gear_table(), two.gear_table());
    }

    #[test]
    fn a_page_never_has_the_id_of_a_chunk_with_its_bytes() {
        let domain = master().domain(&"one".parse().unwrap());

        assert_ne!(domain.id_of(BlobKind::Chunk, b"same"), domain.id_of(BlobKind::Page, b"same"));
    }

    #[test]
    fn a_client_derives_what_the_server_derives() {
        let server = master().domain(&"one".parse().unwrap());

        let client = DomainKey::parse(&server.to_hex()).unwrap();

        assert_eq!(client.id_of(BlobKind::Chunk, b"x"), server.id_of(BlobKind::Chunk, b"x"));
        assert_eq!(client.gear_table(), server.gear_table());
        assert_eq!(client.boundary_of(b"p"), server.boundary_of(b"p"));
    }

    #[test]
    fn a_nonce_repeats_only_for_the_same_message() {
        let keys = master().seal_keys(1);
        let id = ChunkId::from_bytes([1; 32]);
        let nonce = |aad: &[u8], payload: &[u8]| keys.blob_once(&id, aad, payload).nonce;

        assert_eq!(nonce(b"a", b"bc"), nonce(b"a", b"bc"));
        assert_ne!(nonce(b"a", b"bc"), nonce(b"ab", b"c"));
        assert_ne!(nonce(b"a", b"bc"), nonce(b"a", b"bd"));
        assert_ne!(nonce(b"a", b"b"), master().seal_keys(2).blob_once(&id, b"a", b"b").nonce);
    }

    #[test]
    fn a_key_file_reads_back() {
        let key = MasterKey::parse(&master().to_file_text()).unwrap();

        assert_eq!(key.fingerprint(), master().fingerprint());
        assert!(MasterKey::parse("short").is_none());
    }
}
