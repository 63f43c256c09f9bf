//! The configuration file. Flags win over it; every key has a default; an unknown key is an error.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use format_spec::ClusterName;
use format_spec::wire::{ChunkerSpec, RetentionPolicy};
use serde::Deserialize;

use crate::index::Engine;
use crate::log::Format;
use crate::settings::{
    Amount, Choices, Freshness, GcSettings, Notify, Percent, PolicyError, Retention, Settings, SpaceSettings,
    Upkeep, check_policy,
};
use crate::site::SiteUrl;

mod tls;
mod watch;

pub use tls::{TlsConfig, TlsFlags, TlsMode};
pub use watch::{ExpectConfig, FreshnessConfig, LogConfig, NotifyConfig, WebhookConfig};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "a variant's line covers its fields")]
pub enum ConfigError {
    /// The file could not be read.
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file is not valid.
    #[error("{} is not a valid configuration", path.display())]
    Parse {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Plain HTTP beyond this machine.
    #[error(
        "listen address {0} is not a loopback address, and TLS is off: leave out `--tls off` and `tls.mode`, or listen on 127.0.0.1 or [::1]"
    )]
    NotLoopback(SocketAddr),
    /// A certificate without its key, or a key without its certificate.
    #[error("tls.certificate and tls.key: give both, or neither")]
    TlsPair,
    /// A life of certificates that is too short or too long.
    #[error("tls.node_days = {days}: must be 1 to 825")]
    NodeDays { days: u16 },
    /// A name of the server that no certificate can have.
    #[error("tls.names: {name:?} is neither a host name nor an IP address")]
    TlsName { name: String },
    /// Chunk lengths that the chunker does not take.
    #[error(
        "chunk lengths {min_kib}, {avg_kib}, {max_kib} KiB: must be ascending powers of two, from 1 KiB to 16 MiB"
    )]
    ChunkLengths { min_kib: u32, avg_kib: u32, max_kib: u32 },
    /// A share of more than all.
    #[error("{key} = {value}: must be a percentage from 0 to 100")]
    Percentage { key: &'static str, value: u32 },
    /// A rule of freshness that expects nothing.
    #[error("freshness.expect of cluster `{cluster}`: max_age_hours must be 1 or more")]
    NoAge { cluster: ClusterName },
    /// A command for notices without a program.
    #[error("notify.command: must be a list of a program and its arguments")]
    NoProgram,
    /// A webhook that is not on this machine, or not plain HTTP.
    #[error(
        "notify.webhook.url = {url:?}: must be http://, a loopback address such as 127.0.0.1:8080, and a path. For https:// and other machines set notify.command, for example with curl"
    )]
    WebhookUrl { url: String },
    /// A secret that others may read, or that signs nothing.
    #[error("notify.webhook.secret_file {}: {why}", path.display())]
    Secret { path: PathBuf, why: &'static str },
    /// A policy that contradicts itself.
    #[error("section [{section}]")]
    Policy {
        section: String,
        #[source]
        source: PolicyError,
    },
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address to listen on.
    pub listen: Option<SocketAddr>,
    /// Encryption of connections.
    pub tls: TlsConfig,
    /// The index.
    pub index: IndexConfig,
    /// How a new repository cuts its chunks.
    pub chunker: Option<ChunkerConfig>,
    /// Space that is kept free on the disk.
    pub space: SpaceConfig,
    /// How garbage is collected.
    pub gc: GcConfig,
    /// Which snapshots stay.
    pub retention: RetentionConfig,
    /// The site.
    pub site: SiteConfig,
    /// Limits of all requests together.
    pub limits: LimitsConfig,
    /// Conditions of series that become alarms.
    pub freshness: FreshnessConfig,
    /// How alarms reach people.
    pub notify: NotifyConfig,
    /// The log.
    pub log: LogConfig,
}

/// Section `[site]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteConfig {
    /// Place of the site: `file:///path` or a plain path. Default: the folder `site` in the data folder.
    pub url: Option<SiteUrl>,
}

/// Section `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Most connections with the token; fewer if the process may not open enough files.
    pub connections: u32,
    /// Memory for bodies and answers of all requests together, at least 64.
    pub memory_mib: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { connections: 1024, memory_mib: 512 }
    }
}

impl LimitsConfig {
    /// Connections at most.
    pub fn connections(self) -> usize {
        usize::try_from(self.connections).unwrap_or(usize::MAX)
    }
}

/// Less memory than this, and large commits wait for each other for no good reason.
const LEAST_MEMORY_MIB: u32 = 64;

/// Section `[index]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IndexConfig {
    /// `fjall` or `sled`.
    #[serde(deserialize_with = "engine")]
    pub engine: Engine,
}

fn engine<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Engine, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// Section `[chunker]`: read when a repository is made, and kept for its life.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkerConfig {
    /// Shortest chunk.
    pub min_kib: u32,
    /// Average chunk.
    pub avg_kib: u32,
    /// Longest chunk.
    pub max_kib: u32,
}

impl Default for ChunkerConfig {
    fn default() -> Self {
        Self { min_kib: 64, avg_kib: 256, max_kib: 1024 }
    }
}

impl ChunkerConfig {
    /// The chunker of a new repository.
    ///
    /// # Errors
    /// [`ConfigError::ChunkLengths`] if they are no powers of two, do not ascend, or are out of range.
    pub fn spec(&self) -> Result<ChunkerSpec, ConfigError> {
        let Self { min_kib, avg_kib, max_kib } = *self;
        let fine = [min_kib, avg_kib, max_kib].iter().all(|kib| kib.is_power_of_two() && *kib <= 16 << 10);
        if !fine || min_kib >= avg_kib || avg_kib >= max_kib {
            return Err(ConfigError::ChunkLengths { min_kib, avg_kib, max_kib });
        }
        let bytes = |kib: u32| kib << 10;
        Ok(ChunkerSpec::FastCdc { min_len: bytes(min_kib), avg_len: bytes(avg_kib), max_len: bytes(max_kib) })
    }
}

/// Section `[space]`. The default of a missing key depends on the size of the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpaceConfig {
    /// Room that is held for a collector on a full disk; 0: none.
    pub ballast_mib: Option<u32>,
    /// No new push is taken while less is free; 0: all are.
    pub refuse_below_mib: Option<u32>,
}

impl SpaceConfig {
    fn settings(self) -> SpaceSettings {
        let amount = |given: Option<u32>| given.map_or(Amount::OfDisk, |mib| Amount::Bytes(bytes(mib)));
        SpaceSettings { ballast: amount(self.ballast_mib), refuse_below: amount(self.refuse_below_mib) }
    }
}

/// Section `[gc]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GcConfig {
    /// How often garbage is collected; 0: only when somebody asks for it.
    pub every_minutes: u32,
    /// Hours in which `undelete` can bring a deleted snapshot back.
    pub undelete_hours: u32,
    /// How long an object that nothing needs lies there still.
    pub delete_delay_hours: u32,
    /// Share of live bytes, in percent, below which a pack is rewritten.
    pub repack_below: u32,
    /// No run copies more into new packs.
    pub max_copy_mib: u32,
    /// No day takes away more of what is stored, in percent.
    pub max_daily_percent: u32,
    /// A day may always take away as much.
    pub daily_floor_mib: u32,
}

impl Default for GcConfig {
    fn default() -> Self {
        Self {
            every_minutes: 60,
            undelete_hours: 168,
            delete_delay_hours: 24,
            repack_below: 50,
            max_copy_mib: 4096,
            max_daily_percent: 50,
            daily_floor_mib: 1024,
        }
    }
}

impl GcConfig {
    fn settings(&self) -> Result<GcSettings, ConfigError> {
        Ok(GcSettings {
            every: (self.every_minutes > 0).then(|| minutes(self.every_minutes)),
            undelete: hours(self.undelete_hours),
            delete_delay: hours(self.delete_delay_hours),
            repack_below: percent("gc.repack_below", self.repack_below)?,
            max_copy_bytes: bytes(self.max_copy_mib),
            max_daily: percent("gc.max_daily_percent", self.max_daily_percent)?,
            daily_floor_bytes: bytes(self.daily_floor_mib),
            commit_patience: COMMIT_PATIENCE,
        })
    }
}

/// A commit takes seconds; a site that hangs should not hold up a run for much longer.
const COMMIT_PATIENCE: Duration = Duration::from_secs(10);

impl Default for GcSettings {
    fn default() -> Self {
        GcConfig::default().settings().expect("the defaults are in range")
    }
}

/// Section `[retention]`, with a section `[retention.clusters.NAME]` for each cluster that has a policy
/// of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// The policy of all other clusters.
    #[serde(flatten)]
    pub default: RetentionPolicy,
    /// Policies by cluster.
    #[serde(default)]
    pub clusters: BTreeMap<ClusterName, RetentionPolicy>,
}

impl RetentionConfig {
    fn settings(&self) -> Result<Retention, ConfigError> {
        let check = |section: String, policy: &RetentionPolicy| {
            check_policy(policy).map_err(|source| ConfigError::Policy { section, source })
        };
        check("retention".to_owned(), &self.default)?;
        for (cluster, policy) in &self.clusters {
            check(format!("retention.clusters.{cluster}"), policy)?;
        }
        Ok(Retention { default: self.default.clone(), clusters: self.clusters.clone() })
    }
}

fn bytes(mib: u32) -> u64 {
    u64::from(mib) << 20
}

fn minutes(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 60)
}

fn hours(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 60 * 60)
}

fn percent(key: &'static str, value: u32) -> Result<Percent, ConfigError> {
    Percent::new(value).ok_or(ConfigError::Percentage { key, value })
}

impl Config {
    /// Where the server listens unless told otherwise.
    pub const DEFAULT_LISTEN: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5515);

    /// The configuration in the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file and the place.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })
    }

    /// Converts the configuration to settings of the repository.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key or the section that cannot be.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        Ok(Settings {
            engine: self.index.engine,
            chunker: self.chunker.as_ref().map(ChunkerConfig::spec).transpose()?,
            space: self.space.settings(),
            upkeep: Upkeep { gc: self.gc.settings()? },
            choices: self.choices()?,
            memory_bytes: bytes(self.limits.memory_mib.max(LEAST_MEMORY_MIB)),
            passphrase_file: None,
        })
    }

    /// The part of it that may change while the server runs. Reads the file of the webhook's secret.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key or the section that cannot be.
    pub fn choices(&self) -> Result<Choices, ConfigError> {
        Ok(Choices {
            retention: self.retention.settings()?,
            freshness: self.freshness.settings()?,
            notify: self.notify.settings()?,
        })
    }

    /// The sections that take effect only at the next start.
    #[must_use]
    pub fn without_choices(&self) -> Self {
        Self {
            retention: RetentionConfig::default(),
            freshness: FreshnessConfig::default(),
            notify: NotifyConfig::default(),
            ..self.clone()
        }
    }

    /// The address to listen on; `flag` overrides the file.
    pub fn listen(&self, flag: Option<SocketAddr>) -> SocketAddr {
        flag.or(self.listen).unwrap_or(Self::DEFAULT_LISTEN)
    }
}

#[cfg(test)]
mod tests;
