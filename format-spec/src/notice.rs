//! A notice: an alarm on its way to people, as JSON on the standard input of a command and in the body of a webhook.

use serde::{Deserialize, Serialize};

use crate::id::{RepositoryId, to_hex};
use crate::wire::Severity;

/// Header of a webhook that says when its body was made: seconds since 1970.
pub const TIMESTAMP_HEADER: &str = "Astacus-Timestamp";

/// Header of a webhook with the [`signature`] of its body.
pub const SIGNATURE_HEADER: &str = "Astacus-Signature";

/// The news about an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The alarm is active, and no notice was sent.
    Raised,
    /// It is up still.
    Repeated,
    /// It is over.
    Cleared,
}

impl Event {
    /// Its name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Repeated => "repeated",
            Self::Cleared => "cleared",
        }
    }
}

/// One notice. The same one may come twice, after a crash of the server or an answer that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The news.
    pub event: Event,
    /// Code of the alarm.
    pub code: String,
    /// How soon an operator must look.
    pub severity: Severity,
    /// The series or the channel that it is about, if its code can be up for several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Description of the problem and the way out, for people; in a `cleared` notice, the last text of the
    /// alarm.
    pub message: String,
    /// Since when the alarm is or was up.
    pub since: String,
    /// When the notice was made, by the server's clock.
    pub at: String,
    /// The repository.
    pub repository: RepositoryId,
}

/// The value of [`SIGNATURE_HEADER`]: `sha256=` and the hex digits of HMAC-SHA256 under `secret` over the digits of
/// [`TIMESTAMP_HEADER`], a full stop, and the body.
pub fn signature(secret: &[u8], unix_seconds: u64, body: &[u8]) -> String {
    use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
    let mut context = Context::with_key(&Key::new(HMAC_SHA256, secret));
    context.update(format!("{unix_seconds}.").as_bytes());
    context.update(body);
    format!("sha256={}", to_hex(context.sign().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected value from Python: `hmac.new(b"key", b"1700000000.{}", "sha256").hexdigest()`.
    #[test]
    fn a_signature_is_that_of_any_other_program() {
        let expected = "9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae";
        assert_eq!(signature(b"key", 1_700_000_000, b"{}"), format!("sha256={expected}"));
        assert_ne!(signature(b"key", 1_700_000_001, b"{}"), format!("sha256={expected}"));
    }
}
