//! A dedup domain: the keys of one cluster.

use std::sync::Arc;

use format_spec::blob::BlobSealer;
use format_spec::key::DomainKey;
use format_spec::pack::PackBuilder;
use format_spec::{ClusterName, RepositoryId};

use super::Store;

/// Names, seals and opens the blobs of one cluster.
pub(crate) struct Domain {
    pub(crate) name: ClusterName,
    pub(crate) key: DomainKey,
    pub(crate) sealer: BlobSealer,
    repository: RepositoryId,
    random: fn(&mut [u8]),
}

impl Domain {
    /// An empty pack of this domain.
    pub(crate) fn new_pack(&self) -> PackBuilder {
        let mut salt = [0; 32];
        (self.random)(&mut salt);
        PackBuilder::new(self.sealer.generation(), self.repository, self.name.clone(), salt)
    }
}

impl Store {
    /// The dedup domain of `cluster`. Derives its keys.
    pub(crate) fn domain(&self, cluster: &ClusterName) -> Arc<Domain> {
        Arc::new(Domain {
            name: cluster.clone(),
            key: self.master.domain(cluster),
            sealer: BlobSealer::new(self.keys.clone(), self.id(), cluster.clone()),
            repository: self.id(),
            random: self.parts.random,
        })
    }
}
