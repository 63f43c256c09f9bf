//! Section `[tls]`: whether connections are encrypted, and with which certificate.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, hours};
use crate::settings::{TlsFiles, TlsSettings};

/// Use of TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// TLS, unless the listen address is a loopback address.
    #[default]
    Auto,
    /// TLS on each address.
    On,
    /// Plain HTTP, which only a loopback address may have.
    Off,
}

impl FromStr for TlsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err("expected `auto`, `on` or `off`".to_owned()),
        }
    }
}

/// Section `[tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Use of TLS.
    pub mode: TlsMode,
    /// Host names and addresses by which clients reach the server.
    pub names: Vec<String>,
    /// Certificate chain of another CA, in place of the server's own.
    pub certificate: Option<PathBuf>,
    /// The key of that certificate.
    pub key: Option<PathBuf>,
    /// Life of the certificates of nodes, which renew themselves; default: 90.
    pub node_days: Option<u16>,
}

/// Settings of TLS from the command line, which override the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFlags {
    /// Use of TLS.
    pub mode: Option<TlsMode>,
    /// Names of the server, in place of those of the file; none: those of the file.
    pub names: Vec<String>,
}

impl TlsConfig {
    /// The settings of TLS for a server that listens on `listen`, on a machine called `host`; `None`: plain HTTP.
    ///
    /// # Errors
    /// [`ConfigError::NotLoopback`], [`ConfigError::TlsPair`], [`ConfigError::TlsName`].
    pub fn settings(
        &self,
        flags: &TlsFlags,
        listen: SocketAddr,
        host: &str,
    ) -> Result<Option<TlsSettings>, ConfigError> {
        let is_loopback = listen.ip().is_loopback();
        let files = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                Some(TlsFiles { certificate: certificate.clone(), key: key.clone() })
            }
            (None, None) => None,
            _ => return Err(ConfigError::TlsPair),
        };
        let names = if flags.names.is_empty() { &self.names } else { &flags.names };
        let names = if names.is_empty() { default_names(listen.ip(), host) } else { checked(names)? };
        match flags.mode.unwrap_or(self.mode) {
            TlsMode::Off if !is_loopback => Err(ConfigError::NotLoopback(listen)),
            TlsMode::Off => Ok(None),
            TlsMode::Auto if is_loopback => Ok(None),
            TlsMode::On | TlsMode::Auto => {
                Ok(Some(TlsSettings { names, files, node_life: self.node_life()? }))
            }
        }
    }
}

impl TlsConfig {
    fn node_life(&self) -> Result<Duration, ConfigError> {
        let days = self.node_days.unwrap_or(NODE_DAYS);
        let is_fine = NODE_DAYS_RANGE.contains(&days);
        is_fine.then(|| hours(u32::from(days) * 24)).ok_or(ConfigError::NodeDays { days })
    }
}

/// Life of the certificates of nodes.
const NODE_DAYS: u16 = 90;
/// Lives that a certificate of a node can have: a node that pushes each week renews the shortest in time.
const NODE_DAYS_RANGE: std::ops::RangeInclusive<u16> = 1..=825;

/// The name of the machine, `localhost`, and the addresses on which the server listens, if they are known.
fn default_names(listen: IpAddr, host: &str) -> BTreeSet<String> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let addresses = loopback.into_iter().chain((!listen.is_unspecified()).then_some(listen));
    let names = ["localhost", host].map(str::to_owned);
    names.into_iter().filter_map(|name| canonical(&name)).chain(addresses.map(|at| at.to_string())).collect()
}

fn checked(names: &[String]) -> Result<BTreeSet<String>, ConfigError> {
    let check = |name: &String| canonical(name).ok_or_else(|| ConfigError::TlsName { name: name.clone() });
    names.iter().map(check).collect()
}

/// A host name or an address in the form that certificates have.
fn canonical(name: &str) -> Option<String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = name.len() <= 253 && name.split('.').all(is_label);
    is_name.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(config: &TlsConfig, listen: &str) -> Result<Option<TlsSettings>, ConfigError> {
        config.settings(&TlsFlags::default(), listen.parse().unwrap(), "DB-1")
    }

    fn names(text: &[&str]) -> BTreeSet<String> {
        text.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn tls_is_on_wherever_other_machines_can_reach_the_server() {
        let with = |mode| TlsConfig { mode, ..TlsConfig::default() };
        let is_on = |mode, listen: &str| settings(&with(mode), listen).unwrap().is_some();

        assert!(!is_on(TlsMode::Auto, "127.0.0.1:1") && !is_on(TlsMode::Auto, "[::1]:1"));
        assert!(is_on(TlsMode::On, "127.0.0.1:1"));
        for far in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"] {
            assert!(is_on(TlsMode::Auto, far), "{far}");
            assert!(matches!(settings(&with(TlsMode::Off), far), Err(ConfigError::NotLoopback(_))), "{far}");
        }
        let flags = TlsFlags { mode: Some(TlsMode::On), names: Vec::new() };
        let asked = with(TlsMode::Off).settings(&flags, "127.0.0.1:1".parse().unwrap(), "h").unwrap();
        assert!(asked.is_some(), "the flag overrides the file");
    }

    #[test]
    fn the_default_names_are_the_machine_and_its_listen_address() {
        let of = |listen: &str| settings(&TlsConfig::default(), listen).unwrap().unwrap().names;

        assert_eq!(of("192.0.2.7:1"), names(&["127.0.0.1", "192.0.2.7", "::1", "db-1", "localhost"]));
        assert_eq!(of("0.0.0.0:1"), names(&["127.0.0.1", "::1", "db-1", "localhost"]));
    }

    #[test]
    fn given_names_are_brought_into_one_form_and_invalid_ones_are_refused() {
        let with = |name: &str| TlsConfig {
            names: vec![name.to_owned()],
            mode: TlsMode::On,
            ..TlsConfig::default()
        };
        let named = |name: &str| settings(&with(name), "127.0.0.1:1");

        assert_eq!(named("Backup.Example.ORG").unwrap().unwrap().names, names(&["backup.example.org"]));
        assert_eq!(named("2001:DB8:0::1").unwrap().unwrap().names, names(&["2001:db8::1"]));
        for wrong in ["", "a b", "-a", "*.example.org", "a..b", "https://a", "a:5515", "a/b"] {
            assert!(matches!(named(wrong), Err(ConfigError::TlsName { .. })), "{wrong}");
        }
    }

    #[test]
    fn a_certificate_and_its_key_come_together() {
        let file = Some(PathBuf::from("/f"));
        let one = TlsConfig { certificate: file.clone(), ..TlsConfig::default() };
        let other = TlsConfig { key: file.clone(), ..TlsConfig::default() };
        let both =
            TlsConfig { certificate: file.clone(), key: file, mode: TlsMode::On, ..TlsConfig::default() };

        for alone in [one, other] {
            assert!(matches!(settings(&alone, "127.0.0.1:1"), Err(ConfigError::TlsPair)));
        }
        assert!(settings(&both, "127.0.0.1:1").unwrap().unwrap().files.is_some());
    }
}
