//! A snapshot: the manifests of all nodes of a cluster for one moment.

use minicbor::{Decode, Encode};

use crate::cbor;
use crate::error::FormatError;
use crate::id::{ClusterName, ManifestId, NodeName, SeriesId, SeriesName, SnapshotId};
use crate::label::About;
use crate::manifest::{Manifest, PushStats, RootsAre, Totals};
use crate::path::EntryPath;

/// Folders that an [`Origin`] names, at most.
pub const MAX_NAMED_ROOTS: usize = 16;
/// Bytes of all the folders that it names together, at most.
const MAX_NAMED_ROOTS_LEN: usize = 4096;

/// Where a snapshot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Every file of every node is in it.
    #[n(0)]
    Complete,
    /// Some files could not be read; its manifests name them.
    #[n(1)]
    Partial,
}

/// One node's share of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct ManifestRef {
    /// The node.
    #[n(0)]
    pub node: NodeName,
    /// Its manifest.
    #[n(1)]
    pub id: ManifestId,
    /// Sums over the manifest.
    #[n(2)]
    pub totals: Totals,
    /// Statistics of its push.
    #[n(3)]
    pub push: Option<PushStats>,
    /// Origin of the snapshot. Earlier builds left it to their manifests.
    #[n(4)]
    pub origin: Option<Origin>,
}

/// Where one node's share of a snapshot comes from.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Origin {
    /// BLAKE3 of the name of its series, or else of all folders in path order, or of the name of the stream.
    #[n(0)]
    pub id: SeriesId,
    /// The name of its series, if the push gave one.
    #[n(1)]
    pub series: Option<SeriesName>,
    /// How many folders were pushed.
    #[n(2)]
    pub folders: u32,
    /// The first of them in path order: [`MAX_NAMED_ROOTS`], and 4 KiB of names, at most.
    #[n(3)]
    #[cbor(decode_with = "crate::cbor::at_most::decode::<_, _, MAX_NAMED_ROOTS>")]
    pub roots: Vec<EntryPath>,
    /// Kind of the roots; absent if they are folders and files of the node.
    #[n(4)]
    pub roots_are: Option<RootsAre>,
}

/// The text of a stream begins with this where that of a folder begins with a slash.
pub const STREAM_PREFIX: &str = "stream:";

impl Origin {
    /// Where the share that `manifest` lists comes from.
    pub fn of(manifest: &Manifest) -> Self {
        let mut hasher = series_hasher();
        match &manifest.series {
            Some(name) => add(&mut hasher, b"name", name.as_str().as_bytes()),
            None => {
                let kind = match manifest.roots_are {
                    None => b"root",
                    Some(RootsAre::Stream) => b"strm",
                };
                manifest.roots.iter().for_each(|root| add(&mut hasher, kind, root.as_bytes()));
            }
        }
        let mut room = MAX_NAMED_ROOTS_LEN;
        let fits = |root: &&EntryPath| {
            let left = room.checked_sub(root.as_bytes().len());
            room = left.unwrap_or(0);
            left.is_some()
        };
        Self {
            id: SeriesId::from_bytes(*hasher.finalize().as_bytes()),
            series: manifest.series.clone(),
            folders: u32::try_from(manifest.roots.len()).unwrap_or(u32::MAX),
            roots: manifest.roots.iter().take(MAX_NAMED_ROOTS).take_while(fits).cloned().collect(),
            roots_are: manifest.roots_are,
        }
    }

    /// The text that comes before each root: a slash makes an absolute path of it, and no path begins with the other.
    pub fn prefix(&self) -> &'static str {
        match self.roots_are {
            None => "/",
            Some(RootsAre::Stream) => STREAM_PREFIX,
        }
    }
}

fn series_hasher() -> blake3::Hasher {
    blake3::Hasher::new_derive_key("astacus series v1")
}

/// Adds a field, so that no two lists of fields are the same bytes.
fn add(hasher: &mut blake3::Hasher, kind: &[u8; 4], field: &[u8]) {
    let len = u64::try_from(field.len()).unwrap_or(u64::MAX);
    hasher.update(kind).update(&len.to_le_bytes()).update(field);
}

/// How much less a snapshot holds than the one before it in its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, serde::Serialize, serde::Deserialize)]
#[cbor(array)]
pub struct Shrunk {
    /// The snapshot that it was compared with: the newest complete one of its series that lacked nothing so.
    #[n(0)]
    pub since: SnapshotId,
    /// Regular files that this one had.
    #[n(1)]
    pub files: u64,
    /// Bytes of file content that it had.
    #[n(2)]
    pub bytes: u64,
}

/// The manifests of all nodes for one moment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Snapshot {
    /// Format version.
    #[n(0)]
    pub version: u16,
    /// Its id.
    #[n(1)]
    pub id: SnapshotId,
    /// The cluster.
    #[n(2)]
    pub cluster: ClusterName,
    /// Server time of the commit, in milliseconds since 1970.
    #[n(3)]
    pub created_ms: u64,
    /// Complete or partial.
    #[n(4)]
    pub state: SnapshotState,
    /// One manifest per node, sorted by node.
    #[n(5)]
    pub manifests: Vec<ManifestRef>,
    /// Its place in the order of all commits, from 1 on, with gaps. Unlike clocks, it is never wrong.
    /// Snapshots of earlier builds have none, and come before all others in the order of their ids.
    #[n(6)]
    pub number: Option<u64>,
    /// If it is suspect: it is much smaller than its predecessor.
    #[n(7)]
    pub shrunk: Option<Shrunk>,
    /// Labels and note, if the push gave any.
    #[n(8)]
    pub about: Option<About>,
}

impl Snapshot {
    /// Its CBOR.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// The snapshot that `bytes` stand for.
    ///
    /// # Errors
    /// [`FormatError`]; an unknown version is an error, never a guess.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let snapshot: Self = cbor::decode("snapshot", bytes)?;
        crate::object::check_version("snapshot", snapshot.version)?;
        Ok(snapshot)
    }

    /// The key by which snapshots of one series are sorted: the later commit is the greater.
    pub fn order(&self) -> (u64, SnapshotId) {
        (self.number.unwrap_or(0), self.id)
    }

    /// Its series: snapshots of the same cluster, nodes, and on each node the same folders, or the same name in their
    /// place. Shares whose origin is not known count as of folders of their own.
    pub fn series(&self) -> SeriesId {
        let mut hasher = series_hasher();
        add(&mut hasher, b"clus", self.cluster.as_str().as_bytes());
        for manifest in &self.manifests {
            add(&mut hasher, b"node", manifest.node.as_str().as_bytes());
            let origin = manifest.origin.as_ref().map(|origin| origin.id);
            add(&mut hasher, b"from", origin.as_ref().map_or(&[], |id| id.as_bytes()));
        }
        SeriesId::from_bytes(*hasher.finalize().as_bytes())
    }

    /// The share of `node`.
    pub fn manifest_of(&self, node: &NodeName) -> Option<&ManifestRef> {
        self.manifests.iter().find(|manifest| manifest.node == *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(roots: &[&str], series: Option<&str>) -> Manifest {
        Manifest {
            version: crate::FORMAT_VERSION,
            cluster: "c".parse().unwrap(),
            node: "n".parse().unwrap(),
            roots: roots.iter().map(|root| EntryPath::new(root.as_bytes().to_vec()).unwrap()).collect(),
            pages: Vec::new(),
            totals: Totals::default(),
            problems: Vec::new(),
            tool: String::new(),
            host: String::new(),
            push: None,
            series: series.map(|name| name.parse().unwrap()),
            about: None,
            roots_are: None,
        }
    }

    fn snapshot(cluster: &str, node: &str, origin: Option<Origin>) -> Snapshot {
        let node = node.parse().unwrap();
        let id = ManifestId::from_bytes([1; 32]);
        Snapshot {
            version: crate::FORMAT_VERSION,
            id: SnapshotId::new(1, [0; 10]),
            cluster: cluster.parse().unwrap(),
            created_ms: 1,
            state: SnapshotState::Complete,
            manifests: vec![ManifestRef { node, id, totals: Totals::default(), push: None, origin }],
            number: None,
            shrunk: None,
            about: None,
        }
    }

    #[test]
    fn a_series_is_of_a_cluster_a_node_and_folders_or_a_name() {
        let of = |roots: &[&str], name| Some(Origin::of(&manifest(roots, name)));
        let series = |cluster, node, origin| snapshot(cluster, node, origin).series();
        let etc = series("c", "n", of(&["etc"], None));

        assert_eq!(etc, series("c", "n", of(&["etc"], None)));
        let others = [
            series("d", "n", of(&["etc"], None)),
            series("c", "m", of(&["etc"], None)),
            series("c", "n", of(&["etc", "var"], None)),
            series("c", "n", of(&["etcvar"], None)),
            series("c", "n", of(&["etc"], Some("etc"))),
            series("c", "n", None),
        ];
        for (nth, other) in others.iter().enumerate() {
            assert!(*other != etc && !others[..nth].contains(other), "{nth}");
        }
        let named = series("c", "n", of(&["etc"], Some("daily")));
        assert_eq!(named, series("c", "n", of(&["var"], Some("daily"))), "a name takes the place of folders");
    }

    /// A name of a stream is of another series than a folder of the same name.
    #[test]
    fn a_stream_is_a_series_of_its_own() {
        let of = |roots_are| Origin::of(&Manifest { roots_are, ..manifest(&["dump.sql"], None) });
        let (folder, stream) = (of(None), of(Some(RootsAre::Stream)));

        assert_ne!(folder.id, stream.id);
        assert_eq!((folder.prefix(), stream.prefix()), ("/", "stream:"));
        let read = snapshot("c", "n", Some(stream));
        assert_eq!(Snapshot::decode(&read.encode()).unwrap(), read);
    }

    #[test]
    fn an_origin_names_some_folders_and_counts_all() {
        let long = vec!["x".repeat(250); 7].join("/");
        let long: Vec<String> = (0..5).map(|n| format!("{n}/{long}")).collect();
        let many: Vec<String> = (10..50).map(|n| format!("r{n}")).collect();
        for (roots, named) in [(long, 2), (many, MAX_NAMED_ROOTS)] {
            let roots: Vec<&str> = roots.iter().map(String::as_str).collect();

            let origin = Origin::of(&manifest(&roots, None));

            let all = usize::try_from(origin.folders).unwrap();
            assert_eq!((origin.roots.len(), all), (named, roots.len()));
            let read = snapshot("c", "n", Some(origin));
            assert_eq!(Snapshot::decode(&read.encode()).unwrap(), read);
        }
    }

    /// A snapshot of before there were origins, numbers and suspicions has the bytes that it had.
    #[test]
    fn what_a_snapshot_does_not_say_takes_no_byte() {
        let plain = snapshot("c", "n", None);
        let shrunk = Shrunk { since: plain.id, files: 1, bytes: 2 };
        let about = About { note: Some("before the upgrade".parse().unwrap()), ..About::default() };
        let full = Snapshot { number: Some(7), shrunk: Some(shrunk), about: Some(about), ..plain.clone() };

        assert_eq!(plain.encode()[0], 0xa6, "a map of six");
        assert_eq!(Snapshot::decode(&full.encode()).unwrap(), full);
    }
}
