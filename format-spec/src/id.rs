//! Typed ids and names. One macro makes every id, so that none can pass for another.

use std::fmt;
use std::str::FromStr;

/// Text that is not an id or a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: expected {expected}")]
pub struct ParseIdError {
    pub(crate) text: String,
    pub(crate) kind: &'static str,
    pub(crate) expected: &'static str,
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is a hex digit"));
        }
    }
}

/// Lower-case hex of `bytes`.
pub fn to_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    push_hex(&mut out, bytes);
    out
}

/// The 32 bytes that 64 lower-case hex digits stand for.
pub fn parse_hex_32(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        for &digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = *byte << 4 | value;
        }
    }
    Some(out)
}

/// Text, serde and CBOR forms of a type that has `as_bytes`, `from_bytes`, `Display` and `FromStr`.
macro_rules! id_forms {
    ($name:ident, $len:literal) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(self.as_bytes())?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                let bytes: [u8; $len] = d.bytes()?.try_into().map_err(|_| {
                    minicbor::decode::Error::message(concat!(stringify!($name), " has a wrong length"))
                })?;
                Ok(Self::from_bytes(bytes))
            }
        }
    };
}

/// An id that is a 32-byte hash. Its text is `kind:<64 hex digits>`.
macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Its hex digits without the kind: for object names and tables.
            pub fn to_hex(&self) -> String {
                to_hex(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, ":{}"), self.to_hex())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix(concat!($kind, ":")).and_then(parse_hex_32).map(Self).ok_or_else(|| ParseIdError {
                    text: text.to_owned(),
                    kind: concat!($kind, " id"),
                    expected: concat!("`", $kind, ":` and 64 hex digits"),
                })
            }
        }

        id_forms!($name, 32);
    };
}

/// An id that is a UUID (version 7, so ids sort by time). Its text is the usual hyphenated form.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(uuid::Uuid::from_bytes(bytes))
            }

            /// A version 7 id: `unix_ms` first, then the `random` bits.
            pub const fn new(unix_ms: u64, random: [u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.as_hyphenated(), f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                uuid::Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError {
                    text: text.to_owned(),
                    kind: concat!($kind, " id"),
                    expected: "a UUID",
                })
            }
        }

        id_forms!($name, 16);
    };
}

hash_id!(
    /// Keyed BLAKE3 of a chunk's or page's plaintext. The key belongs to the dedup domain.
    ChunkId, "chunk"
);
hash_id!(
    /// BLAKE3 of all bytes of a pack: its name, and its check without a key.
    PackId, "pack"
);
hash_id!(
    /// BLAKE3 of all bytes of a sealed manifest.
    ManifestId, "manifest"
);
hash_id!(
    /// BLAKE3 of all bytes of a sealed checkpoint.
    CheckpointId, "checkpoint"
);
hash_id!(
    /// BLAKE3 of where the shares of a snapshot come from: see `Snapshot::series`.
    SeriesId, "series"
);
hash_id!(
    /// Keyed BLAKE3 of a file's extents in order: lengths, ids and holes. Equal digests mean equal
    /// content that was cut alike. It is made of chunk ids, so that a file that only grew needs no
    /// second reading of its old bytes (`docs/adr/0003-file-digest.md`).
    FileDigest, "file"
);
uuid_id!(
    /// One repository, for its whole life.
    RepositoryId, "repository"
);
uuid_id!(
    /// The manifests of all nodes for one moment.
    SnapshotId, "snapshot"
);
uuid_id!(
    /// One push in progress. Also the idempotency key of its commit.
    SessionId, "session"
);
uuid_id!(
    /// One enrolled node, whatever its name and cluster are now. The common name of its certificate.
    NodeId, "node"
);

/// A text that users write, with a rule: what it is called, the rule, and the rule in words.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $kind:expr, $holds:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::id::ParseIdError;

            fn try_from(text: String) -> Result<Self, $crate::id::ParseIdError> {
                if $holds(&text) {
                    return Ok(Self(text));
                }
                Err($crate::id::ParseIdError { text, kind: $kind, expected: $expected })
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::id::ParseIdError;

            fn from_str(text: &str) -> Result<Self, $crate::id::ParseIdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.str(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                d.str()?.parse().map_err(minicbor::decode::Error::custom)
            }
        }
    };
}

pub(crate) use text;

/// A name that users choose. Safe in paths, URLs, logs and tables as it is.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        text!(
            $(#[$doc])*
            $name,
            concat!($kind, " name"),
            is_name,
            "1 to 128 letters, digits, `.`, `_` or `-`, starting with a letter or digit"
        );
    };
}

name!(
    /// A cluster of nodes that back up together and share chunks.
    ClusterName, "cluster"
);
name!(
    /// One database node of a cluster.
    NodeName, "node"
);
name!(
    /// Pushes of a node that take each other's place, by the name that they give themselves.
    SeriesName, "series"
);
name!(
    /// An access token of a person or a machine.
    TokenName, "token"
);
name!(
    /// A slot of a keyring.
    SlotName, "slot"
);
name!(
    /// The key of a label: one thing that a push says of its snapshot.
    LabelKey, "label"
);

fn is_name(text: &str) -> bool {
    let ordinary = |b: u8| b.is_ascii_alphanumeric();
    let mut bytes = text.bytes();
    text.len() <= 128
        && bytes.next().is_some_and(ordinary)
        && bytes.all(|b| ordinary(b) || matches!(b, b'.' | b'_' | b'-'))
}

impl PackId {
    /// The name of the pack that consists of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl ManifestId {
    /// The name of the sealed manifest that consists of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl CheckpointId {
    /// The name of the sealed checkpoint that consists of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text_and_from_no_other_kind() {
        let id = ChunkId::from_bytes([0xa7; 32]);

        let text = id.to_string();

        assert_eq!(text.parse::<ChunkId>().unwrap(), id);
        assert!(text.parse::<PackId>().is_err());
        assert!(text.to_uppercase().parse::<ChunkId>().is_err());
        assert!(text[..text.len() - 1].parse::<ChunkId>().is_err());
    }

    #[test]
    fn snapshot_ids_sort_by_time() {
        let earlier = SnapshotId::new(1_000, [0xff; 10]);
        let later = SnapshotId::new(1_001, [0; 10]);

        assert!(earlier < later);
        assert_eq!(later.to_string().parse::<SnapshotId>().unwrap(), later);
    }

    #[test]
    fn names_that_could_leave_a_folder_or_an_option_are_refused() {
        for bad in ["", ".", "..", "-x", "a/b", "a b", "a\n", "é", &"x".repeat(129)] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        for good in ["a", "node-1.example", "CASS_01", &"x".repeat(128)] {
            assert!(good.parse::<NodeName>().is_ok(), "{good:?}");
        }
    }
}
