//! Facts that a certificate states.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use format_spec::NodeId;
use format_spec::id::to_hex;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Facts of one certificate, which nobody has checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Host names and addresses that it is for.
    pub(super) names: BTreeSet<String>,
    /// Its first common name.
    pub(super) common_name: Option<String>,
    /// Its serial number, in hex digits.
    pub(super) serial: String,
    pub(super) not_before_ms: u64,
    pub(super) not_after_ms: u64,
}

impl Facts {
    /// The facts of the certificate with these DER bytes; `None` if they are none.
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let names = certificate.subject_alternative_name().ok()?;
        let names = names.iter().flat_map(|names| &names.value.general_names).filter_map(name).collect();
        let common_name = certificate.subject().iter_common_name().next();
        let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
        Some(Self {
            names,
            common_name: common_name.and_then(|name| name.as_str().ok()).map(str::to_owned),
            serial: to_hex(certificate.raw_serial()),
            not_before_ms: ms(certificate.validity().not_before.timestamp()),
            not_after_ms: ms(certificate.validity().not_after.timestamp()),
        })
    }

    /// True if a third of its life or less is left at `now_ms`.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        let life = self.not_after_ms.saturating_sub(self.not_before_ms);
        self.left(now_ms).as_millis() <= u128::from(life / 3)
    }

    /// Time to its end.
    pub(super) fn left(&self, now_ms: u64) -> Duration {
        Duration::from_millis(self.not_after_ms.saturating_sub(now_ms))
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// The certificate that the client of a connection has shown, and whose key it has. A CA of the server signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The node that it is for.
    pub node: NodeId,
    /// Its serial number, in hex digits.
    pub serial: String,
    /// Its end, in milliseconds since 1970.
    pub not_after_ms: u64,
}

impl PeerCertificate {
    /// The certificate with these DER bytes, which was checked; `None` if it names no node.
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        let facts = Facts::of(der)?;
        let node = facts.common_name?.parse().ok()?;
        Some(Self { node, serial: facts.serial, not_after_ms: facts.not_after_ms })
    }
}
