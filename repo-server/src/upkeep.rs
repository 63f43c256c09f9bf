//! How a repository is looked after: what may go when.

use std::collections::BTreeMap;

use format_spec::ClusterName;
use format_spec::wire::RetentionPolicy;

const HOUR_MS: u64 = 60 * 60 * 1000;

/// Settings of retention and of the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upkeep {
    /// A forgotten snapshot can be brought back for so long.
    pub undelete_ms: u64,
    /// An object that nothing names any more stays on the site for so long.
    pub delete_delay_ms: u64,
    /// A pack is repacked when less than this share of it, in percent, is in use: at a half, one byte is
    /// copied per byte freed.
    pub repack_below_percent: u8,
    /// Bytes that repacking may copy in one run.
    pub max_copy_bytes: u64,
    /// Not more than this share of the repository, in percent, may go in a day without a second word…
    pub max_daily_percent: u8,
    /// …but this much always may.
    pub daily_floor_bytes: u64,
    /// Which snapshots stay; none: all.
    pub policy: Option<RetentionPolicy>,
    /// The same for single clusters.
    pub policies: BTreeMap<ClusterName, RetentionPolicy>,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            undelete_ms: 168 * HOUR_MS,
            delete_delay_ms: 24 * HOUR_MS,
            repack_below_percent: 50,
            max_copy_bytes: 4 << 30,
            max_daily_percent: 50,
            daily_floor_bytes: 1 << 30,
            policy: None,
            policies: BTreeMap::new(),
        }
    }
}

impl Upkeep {
    /// The policy of `cluster`.
    pub fn policy_of(&self, cluster: &ClusterName) -> Option<&RetentionPolicy> {
        self.policies.get(cluster).or(self.policy.as_ref())
    }
}
