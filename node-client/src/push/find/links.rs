//! Names of one inode: the first in path order carries the content, the others point to it.

use std::collections::HashMap;

use format_spec::key::DomainKey;
use format_spec::{EntryPath, Timestamp};

use crate::push::stat::Stat;

/// The inodes with several names whose content is in the snapshot. Memory: one row for each.
pub(crate) struct Links {
    domain: DomainKey,
    groups: HashMap<InodeKey, u64>,
}

impl Links {
    pub(crate) fn new(domain: DomainKey) -> Self {
        Self { domain, groups: HashMap::new() }
    }

    /// The group of an inode that came before.
    pub(crate) fn find(&self, stat: &Stat) -> Option<u64> {
        if stat.links < 2 { None } else { self.groups.get(&key(stat)).copied() }
    }

    /// The group that `path` begins, if its inode has more names.
    pub(crate) fn begin(&self, stat: &Stat, path: &EntryPath) -> Option<u64> {
        (stat.links > 1).then(|| self.domain.link_group(path.as_bytes()))
    }

    /// Notes that the content of this inode is in the snapshot.
    pub(crate) fn keep(&mut self, stat: &Stat, group: Option<u64>) {
        if let Some(group) = group {
            self.groups.insert(key(stat), group);
        }
    }
}

/// Tells inodes apart, also one that got the number of another which was deleted during the walk.
pub(crate) type InodeKey = (u64, u64, Timestamp);

/// The inode's key: its birth distinguishes it from later ones of the same number. Where births are unknown,
/// its last change does.
pub(crate) fn key(stat: &Stat) -> InodeKey {
    let identity = &stat.identity;
    let nothing = Timestamp { seconds: 0, nanos: 0 };
    let since = if identity.btime == nothing { identity.mtime } else { identity.btime };
    (identity.dev, identity.ino, since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn stat(btime: i64, mtime: i64) -> Stat {
        let temp = tempfile::tempfile().unwrap();
        let time = |seconds| Timestamp { seconds, nanos: 0 };
        let stat = Stat::of_file(&temp).unwrap();
        let identity = Identity { dev: 1, ino: 2, btime: time(btime), mtime: time(mtime), ..stat.identity };
        Stat { identity, links: 2, ..stat }
    }

    /// C8: an inode number that was given to another file names another file.
    #[test]
    fn a_number_that_is_used_again_is_not_the_old_file() {
        let domain = DomainKey::parse(&"c3".repeat(32)).unwrap();
        let path = EntryPath::new(b"a".to_vec()).unwrap();
        for (first, same, other) in
            [(stat(5, 6), stat(5, 7), stat(8, 6)), (stat(0, 6), stat(0, 6), stat(0, 7))]
        {
            let mut links = Links::new(domain.clone());
            let group = links.begin(&first, &path);
            links.keep(&first, group);

            assert!(group.is_some() && links.find(&same) == group);
            assert_eq!(links.find(&other), None);
        }
    }
}
