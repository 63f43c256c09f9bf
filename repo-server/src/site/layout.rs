//! Where each object lies on a site: the one place that names them.

use format_spec::{CheckpointId, ManifestId, PackId, SnapshotId, id};

use super::ObjectName;

/// The descriptor of the repository.
pub(crate) fn descriptor_object() -> ObjectName {
    name("keyring/repository")
}

/// A pack.
pub(crate) fn pack_object(id: &PackId) -> ObjectName {
    let hex = id.to_hex();
    let (fan, _) = hex.split_at(2);
    name(&format!("packs/{fan}/{hex}"))
}

/// The pack that an object is, by its name.
pub(crate) fn pack_named(name: &ObjectName) -> Option<PackId> {
    let hex = name.as_str().rsplit('/').next()?;
    let id = id::parse_hex_32(hex).map(PackId::from_bytes)?;
    (pack_object(&id) == *name).then_some(id)
}

/// A manifest.
pub(crate) fn manifest_object(id: &ManifestId) -> ObjectName {
    name(&format!("manifests/{}", id.to_hex()))
}

/// The manifest that an object is, by its name.
pub(crate) fn manifest_named(name: &ObjectName) -> Option<ManifestId> {
    id::parse_hex_32(name.as_str().strip_prefix("manifests/")?).map(ManifestId::from_bytes)
}

/// A snapshot.
pub(crate) fn snapshot_object(id: &SnapshotId) -> ObjectName {
    name(&format!("snapshots/{id}"))
}

/// The snapshot that an object is, by its name.
pub(crate) fn snapshot_named(name: &ObjectName) -> Option<SnapshotId> {
    let id: SnapshotId = name.as_str().strip_prefix("snapshots/")?.parse().ok()?;
    (snapshot_object(&id) == *name).then_some(id)
}

/// A protection of a snapshot. Its `nonce`, hex digits, makes the name one that is never used again.
pub(crate) fn protection_object(id: &SnapshotId, nonce: &str) -> ObjectName {
    name(&format!("protections/{id}.{nonce}"))
}

/// A checkpoint.
pub(crate) fn checkpoint_object(id: &CheckpointId) -> ObjectName {
    name(&format!("heads/checkpoint-{}", id.to_hex()))
}

/// The checkpoint that an object is, by its name.
pub(crate) fn checkpoint_named(name: &ObjectName) -> Option<CheckpointId> {
    let hex = name.as_str().strip_prefix("heads/checkpoint-")?;
    id::parse_hex_32(hex).map(CheckpointId::from_bytes)
}

/// A link of the chain that locks the site.
pub(crate) fn lock_object(number: u64) -> ObjectName {
    name(&format!("locks/{number:020}"))
}

/// The number of a link, by its name.
pub(crate) fn lock_named(name: &ObjectName) -> Option<u64> {
    name.as_str().strip_prefix("locks/")?.parse().ok()
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).expect("hex digits, UUIDs and numbers make a valid name")
}
