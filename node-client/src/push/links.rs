//! Names of one inode: the first in path order carries the content, the others point to it.

use std::collections::HashMap;

use format_spec::EntryPath;
use format_spec::key::DomainKey;

use super::stat::Stat;

/// The inodes with several names whose content is in the snapshot. Memory: one row for each.
pub(super) struct Links {
    domain: DomainKey,
    groups: HashMap<(u64, u64), u64>,
}

impl Links {
    pub(super) fn new(domain: DomainKey) -> Self {
        Self { domain, groups: HashMap::new() }
    }

    /// The group of an inode that came before.
    pub(super) fn find(&self, stat: &Stat) -> Option<u64> {
        if stat.links < 2 { None } else { self.groups.get(&key(stat)).copied() }
    }

    /// The group that `path` begins, if its inode has more names.
    pub(super) fn begin(&self, stat: &Stat, path: &EntryPath) -> Option<u64> {
        (stat.links > 1).then(|| self.domain.link_group(path.as_bytes()))
    }

    /// Notes that the content of this inode is in the snapshot.
    pub(super) fn keep(&mut self, stat: &Stat, group: Option<u64>) {
        if let Some(group) = group {
            self.groups.insert(key(stat), group);
        }
    }
}

fn key(stat: &Stat) -> (u64, u64) {
    (stat.identity.dev, stat.identity.ino)
}
