//! Settings of the operator, checked and in units: the result of [`Config`](crate::config::Config).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use format_spec::ClusterName;
use format_spec::wire::{ChunkerSpec, RetentionPolicy, SeriesScope};

use crate::index::Engine;

/// How a repository cuts its chunks unless its first server was told otherwise.
pub const DEFAULT_CHUNKER: ChunkerSpec =
    ChunkerSpec::FastCdc { min_len: 64 << 10, avg_len: 256 << 10, max_len: 1 << 20 };

/// All settings of the server's repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Engine of the index.
    pub engine: Engine,
    /// How a new repository cuts its chunks: [`DEFAULT_CHUNKER`] unless given.
    pub chunker: Option<ChunkerSpec>,
    /// Space that is kept free on the disk.
    pub space: SpaceSettings,
    /// Rules for deletion.
    pub upkeep: Upkeep,
    /// All settings that may change while the server runs.
    pub choices: Choices,
    /// Bytes of bodies and answers that requests may hold in memory at once.
    pub memory_bytes: u64,
    /// File with the passphrase of a slot, for a data folder without `master.key`.
    pub passphrase_file: Option<PathBuf>,
}

/// TLS of the server's connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// Host names and addresses by which clients reach the server.
    pub names: BTreeSet<String>,
    /// Certificate and key of another CA, in place of the server's own.
    pub files: Option<TlsFiles>,
    /// Life of the certificates of nodes.
    pub node_life: Duration,
}

/// Files of a certificate that another CA has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those of the CAs between it and the root, in PEM format.
    pub certificate: PathBuf,
    /// Its key, in PEM format.
    pub key: PathBuf,
}

/// Space that is kept free on the disk of the data folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpaceSettings {
    /// Room that is held for a collector on a full disk.
    pub ballast: Amount,
    /// No new push is taken while less is free.
    pub refuse_below: Amount,
}

/// How much of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Amount {
    /// A size that depends on the disk.
    #[default]
    OfDisk,
    /// A fixed number of bytes.
    Bytes(u64),
}

/// Rules for deletion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// How garbage is collected.
    pub gc: GcSettings,
}

/// Settings that may change while the server runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// Which snapshots stay.
    pub retention: Retention,
    /// How old the last good snapshot of a series may be, and other conditions that become alarms.
    pub freshness: Freshness,
    /// How alarms reach people.
    pub notify: Notify,
}

/// Conditions of series, and of the repository, that become alarms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// How old the last good snapshot of a series may be that no rule is about; `None`: as its own history says.
    pub max_age: Option<Duration>,
    /// Number of partial snapshots of a series in a row that raises an alarm; 0: never.
    pub partial_in_a_row: u64,
    /// Time within which stored bytes must be read back; `None`: no limit.
    pub verify_within: Option<Duration>,
    /// Series that are expected, and how old their last good snapshot may be.
    pub expect: Vec<(SeriesScope, Duration)>,
}

impl Default for Freshness {
    fn default() -> Self {
        let verify_within = Some(Duration::from_secs(35 * 24 * 60 * 60));
        Self { max_age: None, partial_in_a_row: 3, verify_within, expect: Vec::new() }
    }
}

/// How alarms reach people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notify {
    /// A program that is run for each notice.
    pub command: Option<NotifyCommand>,
    /// An address that each notice is posted to.
    pub webhook: Option<Webhook>,
    /// Time after which the notice of an active alarm is repeated; `None`: never.
    pub repeat_every: Option<Duration>,
    /// How long one attempt may take.
    pub within: Duration,
}

/// A program that is run for each notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyCommand {
    /// The program.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// An address on this machine that notices are posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Host and port, as in a URL: `127.0.0.1:8080`, `[::1]:80`, `localhost:80`.
    pub authority: String,
    /// Path and query, from `/` on.
    pub path: String,
    /// Signs each body.
    pub secret: Secret,
}

/// Bytes that no log may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How garbage is collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcSettings {
    /// How often it is; `None`: only when somebody asks for it.
    pub every: Option<Duration>,
    /// Time in which `undelete` can bring a deleted snapshot back.
    pub undelete: Duration,
    /// How long an object that nothing needs lies there still.
    pub delete_delay: Duration,
    /// Share of live bytes below which a pack is rewritten.
    pub repack_below: Percent,
    /// No run copies more into new packs.
    pub max_copy_bytes: u64,
    /// No day takes away a larger share of what is stored.
    pub max_daily: Percent,
    /// Bytes that may be deleted each day in any case.
    pub daily_floor_bytes: u64,
    /// How long a run waits for commits under way before it deletes packs.
    pub commit_patience: Duration,
}

/// Which snapshots stay: a policy for all clusters, and others for some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// For clusters without one of their own.
    pub default: RetentionPolicy,
    /// Policies by cluster; they inherit nothing from the default.
    pub clusters: BTreeMap<ClusterName, RetentionPolicy>,
}

impl Retention {
    /// The policy of a cluster.
    pub fn policy(&self, cluster: &ClusterName) -> &RetentionPolicy {
        self.clusters.get(cluster).unwrap_or(&self.default)
    }
}

/// Number of complete snapshots of a cluster that are kept unless its policy says otherwise.
pub const DEFAULT_MINIMUM: u32 = 3;

/// A policy that contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum PolicyError {
    /// No snapshot would stay.
    #[error("maximum = 0 would delete every snapshot")]
    MaximumIsZero,
    /// Fewer would stay than have to.
    #[error("maximum = {maximum} is less than minimum = {minimum}{}", default_note(*given))]
    MaximumBelowMinimum { maximum: u32, minimum: u32, given: bool },
}

fn default_note(given: bool) -> &'static str {
    if given { "" } else { ", the default" }
}

/// Refuses a policy that contradicts itself.
///
/// # Errors
/// [`PolicyError`] if no more snapshots may stay than fewer than must.
pub fn check_policy(policy: &RetentionPolicy) -> Result<(), PolicyError> {
    let minimum = policy.minimum.unwrap_or(DEFAULT_MINIMUM);
    let given = policy.minimum.is_some();
    match policy.maximum {
        Some(0) => Err(PolicyError::MaximumIsZero),
        Some(maximum) if maximum < minimum => {
            Err(PolicyError::MaximumBelowMinimum { maximum, minimum, given })
        }
        _ => Ok(()),
    }
}

/// A share from nothing to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    /// A share in hundredths; `None` above 100.
    pub fn new(hundredths: u32) -> Option<Self> {
        u8::try_from(hundredths).ok().filter(|value| *value <= 100).map(Self)
    }

    /// Its share of `whole`, rounded down.
    pub fn of(self, whole: u64) -> u64 {
        let share = u128::from(whole) * u128::from(self.0) / 100;
        u64::try_from(share).expect("a share is no more than the whole")
    }
}

impl std::fmt::Display for Percent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} %", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_exact_and_never_more_than_the_whole() {
        let percent = |hundredths| Percent::new(hundredths).unwrap();

        assert_eq!(percent(50).of(1001), 500);
        assert_eq!(percent(100).of(u64::MAX), u64::MAX);
        assert_eq!(percent(0).of(u64::MAX), 0);
        assert_eq!(Percent::new(101), None);
        assert_eq!(Percent::new(300), None);
    }

    #[test]
    fn a_policy_must_let_stay_what_has_to() {
        let policy = |minimum, maximum| RetentionPolicy { minimum, maximum, ..RetentionPolicy::default() };

        for fine in
            [policy(None, None), policy(Some(5), None), policy(None, Some(3)), policy(Some(2), Some(2))]
        {
            assert_eq!(check_policy(&fine), Ok(()), "{fine:?}");
        }
        let refused = |policy| check_policy(&policy).unwrap_err().to_string();
        assert_eq!(refused(policy(Some(5), Some(4))), "maximum = 4 is less than minimum = 5");
        assert_eq!(refused(policy(Some(0), Some(0))), "maximum = 0 would delete every snapshot");
        assert_eq!(refused(policy(None, Some(2))), "maximum = 2 is less than minimum = 3, the default");
    }

    #[test]
    fn a_cluster_has_its_own_policy_or_the_one_for_all() {
        let (own, all) = (
            RetentionPolicy { keep_last: Some(1), ..RetentionPolicy::default() },
            RetentionPolicy { keep_daily: Some(7), ..RetentionPolicy::default() },
        );
        let name = |text: &str| text.parse::<ClusterName>().unwrap();
        let retention =
            Retention { default: all.clone(), clusters: BTreeMap::from([(name("own"), own.clone())]) };

        assert_eq!(retention.policy(&name("own")), &own);
        assert_eq!(retention.policy(&name("other")), &all);
    }
}
