//! The command lines of `verify` and `scrub`.

use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use format_spec::wire::{VerifyLevel, VerifyLimits, VerifyRequest};
use node_client::named::SnapshotChoice;
use node_client::rate::Rate;

use super::Turn;

/// Arguments of `verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Verify {
    /// Depth of the check.
    #[arg(long, value_enum, default_value_t = Level::Exists)]
    level: Level,
    /// Check only the data of this snapshot [default: everything].
    #[arg(long, value_name = "SNAPSHOT")]
    pub(crate) snapshot: Option<SnapshotChoice>,
    /// With `--level refs`: repair wrong counts.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Treat packs that are missing from the site as lost, even if they are most of them. The next pushes
    /// send again what the nodes still have.
    #[arg(long)]
    pub(crate) accept_loss: bool,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) turn: Turn,
}

/// Arguments of `scrub`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Scrub {
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    pub(crate) turn: Turn,
}

/// Limits of one run. The next run starts with the packs whose last check is oldest.
#[derive(Debug, Clone, Args)]
pub(crate) struct Limits {
    /// Read this share of all packs by bytes, such as `5%`.
    #[arg(long, value_name = "PERCENT")]
    sample: Option<Share>,
    /// Read at most this many bytes of packs, such as `10G`.
    #[arg(long, value_name = "SIZE", value_parser = some_bytes)]
    max_bytes: Option<NonZeroU64>,
    /// Stop starting new work after this time, such as `90s`, `30m` or `2h`.
    #[arg(long, value_name = "DURATION")]
    max_time: Option<Time>,
    /// Read at most this many bytes of packs per second, such as `20M`.
    #[arg(long, value_name = "SIZE")]
    max_rate: Option<Rate>,
}

impl Limits {
    pub(crate) fn are_given(&self) -> bool {
        self.wire() != VerifyLimits::default()
    }

    fn wire(&self) -> VerifyLimits {
        let ms = |time: Time| u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX);
        VerifyLimits {
            sample_ppm: self.sample.map(|share| share.0),
            max_bytes: self.max_bytes.map(NonZeroU64::get),
            max_time_ms: self.max_time.map(ms),
            max_rate: self.max_rate.map(|rate| rate.bytes_per_second().get()),
        }
    }
}

/// A number of bytes, written as rates are.
fn some_bytes(text: &str) -> Result<NonZeroU64, String> {
    let expected = || "expected a number of bytes above 0, such as `500000`, `512M` or `10GiB`".to_owned();
    text.parse().map(Rate::bytes_per_second).map_err(|_| expected())
}

impl Verify {
    /// Request to check stored objects; `None` if the counts are checked.
    pub(crate) fn request(&self) -> Option<VerifyRequest> {
        let level = self.level.of_objects()?;
        let limits = self.limits.wire();
        Some(VerifyRequest { level, snapshot: None, limits, accept_loss: self.accept_loss })
    }
}

impl Scrub {
    /// Request to the server.
    pub(crate) fn request(&self) -> VerifyRequest {
        VerifyRequest { limits: self.limits.wire(), ..VerifyLevel::Read.into() }
    }
}

/// Depth of a check.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Level {
    /// Every page and chunk that a snapshot needs is in the index.
    Index,
    /// Like `index`, and every pack that the index names exists on the site with the right length.
    Exists,
    /// Like `exists`, and every byte of every pack is correct.
    Read,
    /// Like `read`, and every file of every snapshot can be restored: order of its parts, length, digest.
    Restore,
    /// The reference counts of the index equal a recount from manifests and pages.
    Refs,
}

impl Level {
    /// How deep to look at stored objects; `None` for the counts.
    fn of_objects(self) -> Option<VerifyLevel> {
        match self {
            Self::Index => Some(VerifyLevel::Index),
            Self::Exists => Some(VerifyLevel::Exists),
            Self::Read => Some(VerifyLevel::Read),
            Self::Restore => Some(VerifyLevel::Restore),
            Self::Refs => None,
        }
    }
}

/// A share in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share(u32);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a share: expected more than 0% and at most 100%, such as `2.5%`");
        let number = text.strip_suffix('%').unwrap_or(text);
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(part) || part.len() > 4 {
            return Err(wrong());
        }
        let part: u32 = format!("{part:0<4}").parse().map_err(|_| wrong())?;
        let ppm = whole.parse::<u32>().ok().and_then(|whole| whole.checked_mul(10_000)?.checked_add(part));
        ppm.filter(|ppm| (1..=1_000_000).contains(ppm)).map(Self).ok_or_else(wrong)
    }
}

/// A span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Time(Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a time: expected a whole number with s, m, h or d, such as `30m`");
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = match text.strip_prefix(digits) {
            Some("s" | "") => 1,
            Some("m") => 60,
            Some("h") => 60 * 60,
            Some("d") => 24 * 60 * 60,
            _ => return Err(wrong()),
        };
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let count: Option<u64> = if is_plain { digits.parse().ok() } else { None };
        let seconds = count.and_then(|count| count.checked_mul(unit)).filter(|seconds| *seconds > 0);
        seconds.map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests;
