//! Sections `[freshness]`, `[notify]` and `[log]`: what is watched, and who hears of it.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use format_spec::wire::SeriesScope;
use format_spec::{ClusterName, NodeName};
use serde::Deserialize;

use super::{ConfigError, Format, Freshness, Notify, hours};
use crate::settings::{NotifyCommand, Secret, Webhook};

/// Section `[freshness]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FreshnessConfig {
    /// How old the last good snapshot of a series may be that no rule is about; not given: as its own history says.
    pub max_age_hours: Option<u32>,
    /// Number of partial snapshots of a series in a row that raises an alarm; 0: never.
    pub partial_in_a_row: u32,
    /// Days within which stored bytes must be read back; 0: no limit.
    pub verify_within_days: u32,
    /// Series that are expected.
    pub expect: Vec<ExpectConfig>,
}

impl Default for FreshnessConfig {
    fn default() -> Self {
        Self { max_age_hours: None, partial_in_a_row: 3, verify_within_days: 35, expect: Vec::new() }
    }
}

/// Section `[[freshness.expect]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectConfig {
    /// The cluster.
    pub cluster: ClusterName,
    /// A node of it; not given: any.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// The name of a series or one of its folders; not given: any.
    #[serde(default)]
    pub series: Option<String>,
    /// How old the last good snapshot may be.
    pub max_age_hours: u32,
}

impl FreshnessConfig {
    pub(super) fn settings(&self) -> Result<Freshness, ConfigError> {
        let rule = |expect: &ExpectConfig| {
            let ExpectConfig { cluster, node, series, max_age_hours } = expect.clone();
            if max_age_hours == 0 {
                return Err(ConfigError::NoAge { cluster });
            }
            Ok((SeriesScope { cluster, node, series }, hours(max_age_hours)))
        };
        let days = (self.verify_within_days > 0).then_some(self.verify_within_days);
        Ok(Freshness {
            max_age: self.max_age_hours.map(hours),
            partial_in_a_row: self.partial_in_a_row.into(),
            verify_within: days.map(|days| hours(days.saturating_mul(24))),
            expect: self.expect.iter().map(rule).collect::<Result<_, _>>()?,
        })
    }
}

/// Section `[notify]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotifyConfig {
    /// A program and its arguments, run for each notice.
    pub command: Option<Vec<String>>,
    /// An address that each notice is posted to.
    pub webhook: Option<WebhookConfig>,
    /// Hours after which the notice of an active alarm is repeated; 0: never.
    pub repeat_every_hours: u32,
    /// How long one attempt may take.
    pub timeout_seconds: u32,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        Self { command: None, webhook: None, repeat_every_hours: 24, timeout_seconds: 30 }
    }
}

/// Section `[notify.webhook]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// `http://`, a loopback address, and a path.
    pub url: String,
    /// A file, closed to others, with the secret that signs each body. White space at its end does not count.
    pub secret_file: PathBuf,
}

/// A secret shorter than this can be guessed.
const LEAST_SECRET: usize = 16;

impl NotifyConfig {
    pub(super) fn settings(&self) -> Result<Notify, ConfigError> {
        let command = |words: &Vec<String>| {
            let (program, arguments) = words.split_first().ok_or(ConfigError::NoProgram)?;
            Ok(NotifyCommand { program: program.clone(), arguments: arguments.to_vec() })
        };
        let repeats = self.repeat_every_hours > 0;
        Ok(Notify {
            command: self.command.as_ref().map(command).transpose()?,
            webhook: self.webhook.as_ref().map(WebhookConfig::settings).transpose()?,
            repeat_every: repeats.then(|| hours(self.repeat_every_hours)),
            within: Duration::from_secs(self.timeout_seconds.max(1).into()),
        })
    }
}

impl WebhookConfig {
    fn settings(&self) -> Result<Webhook, ConfigError> {
        let wrong = || ConfigError::WebhookUrl { url: self.url.clone() };
        let rest = self.url.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic());
        let authority = with_port(authority).filter(|_| is_plain).ok_or_else(wrong)?;
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        Ok(Webhook { authority, path, secret: secret(&self.secret_file)? })
    }
}

/// Host and port of a loopback address; port 80 if it has none.
fn with_port(authority: &str) -> Option<String> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && !port.contains(']') => (host, port.parse::<u16>().ok()?),
        _ => (authority, 80),
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    is_here.then(|| format!("{host}:{port}"))
}

fn secret(path: &Path) -> Result<Secret, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let refuse = |why| Err(ConfigError::Secret { path: path.to_owned(), why });
    if std::fs::metadata(path).map_err(read)?.permissions().mode() & 0o077 != 0 {
        return refuse("other users may read or write it: chmod 600");
    }
    let secret = std::fs::read(path).map_err(read)?;
    let secret = secret.trim_ascii_end().to_vec();
    if secret.len() < LEAST_SECRET {
        return refuse("must have 16 bytes or more");
    }
    Ok(Secret(secret))
}

/// Section `[log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `text` or `json`.
    pub format: Format,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_on_this_machine_and_has_a_port() {
        for (given, expected) in [
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("127.0.0.1", Some("127.0.0.1:80")),
            ("localhost:9", Some("localhost:9")),
            ("[::1]:81", Some("[::1]:81")),
            ("[::1]", Some("[::1]:80")),
            ("10.0.0.1:80", None),
            ("example.org", None),
            ("user@localhost", None),
            ("localhost:port", None),
            ("", None),
        ] {
            assert_eq!(with_port(given).as_deref(), expected, "{given}");
        }
    }

    #[test]
    fn a_secret_that_others_may_read_or_that_is_short_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        write("0123456789abcdef\n", 0o600);
        assert_eq!(secret(&path).unwrap(), Secret(b"0123456789abcdef".to_vec()));
        write("0123456789abcdef", 0o640);
        assert!(matches!(secret(&path), Err(ConfigError::Secret { .. })));
        write("short", 0o600);
        assert!(matches!(secret(&path), Err(ConfigError::Secret { .. })));
    }
}
