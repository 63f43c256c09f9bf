//! The configuration file. Flags win over it; every key has a default; an unknown key is an error.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use format_spec::wire::ChunkerSpec;
use serde::Deserialize;

use crate::index::Engine;
use crate::site::SiteUrl;

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
        "listen address {0} is not a loopback address: without TLS, only 127.0.0.0/8 and [::1] are served"
    )]
    NotLoopback(SocketAddr),
    /// Chunk lengths that the chunker does not take.
    #[error(
        "chunk lengths {min_kib}, {avg_kib}, {max_kib} KiB: need powers of two that ascend, from 1 KiB to 16 MiB"
    )]
    ChunkLengths { min_kib: u32, avg_kib: u32, max_kib: u32 },
}

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address to listen on.
    pub listen: Option<SocketAddr>,
    /// The index.
    pub index: IndexConfig,
    /// How a new repository cuts its chunks.
    pub chunker: ChunkerConfig,
    /// The site.
    pub site: SiteConfig,
}

/// Section `[site]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SiteConfig {
    /// Where it is: `file:///path` or a plain path. The folder `site` in the data folder, unless given.
    pub url: Option<SiteUrl>,
}

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

    /// The address to listen on; `flag` wins over the file.
    ///
    /// # Errors
    /// [`ConfigError::NotLoopback`] if other machines could reach it.
    pub fn listen(&self, flag: Option<SocketAddr>) -> Result<SocketAddr, ConfigError> {
        let address = flag.or(self.listen).unwrap_or(Self::DEFAULT_LISTEN);
        if address.ip().is_loopback() { Ok(address) } else { Err(ConfigError::NotLoopback(address)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default_and_an_unknown_key_is_an_error() {
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
        assert!(toml::from_str::<Config>("lisen = '127.0.0.1:1'").is_err());
        assert!(toml::from_str::<Config>("[index]\nengine = 'rocks'").is_err());
        let sled: Config = toml::from_str("[index]\nengine = 'sled'").unwrap();
        assert_eq!(sled.index.engine, Engine::Sled);
    }

    #[test]
    fn only_this_machine_is_served_without_tls() {
        let config = Config::default();

        assert_eq!(config.listen(None).unwrap(), Config::DEFAULT_LISTEN);
        assert!(config.listen(Some("[::1]:0".parse().unwrap())).is_ok());
        assert!(matches!(
            config.listen(Some("0.0.0.0:5515".parse().unwrap())),
            Err(ConfigError::NotLoopback(_))
        ));
    }

    #[test]
    fn chunk_lengths_are_checked() {
        let spec = |min_kib, avg_kib, max_kib| ChunkerConfig { min_kib, avg_kib, max_kib }.spec();

        assert!(spec(64, 256, 1024).is_ok());
        for (min, avg, max) in [(0, 1, 2), (64, 64, 128), (64, 256, 256), (3, 8, 16), (64, 256, 32 << 10)] {
            assert!(spec(min, avg, max).is_err(), "{min} {avg} {max}");
        }
    }
}
