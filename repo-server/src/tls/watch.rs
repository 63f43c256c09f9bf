//! Alarms of certificates, raised before a certificate ends and while new files cannot be used.

use std::time::Duration;

use super::{Refreshed, Tls, TlsError};
use crate::error::{Chain, ServerError};
use crate::health::alarm::{AlarmCode, keep_only};
use crate::store::Store;
use crate::sync::lock;
use crate::time::rfc3339;

/// An alarm is raised so long before the end of a certificate.
const ENDS_WITHIN: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Looks in a row that find unusable files before an alarm is raised: certificate and key are replaced one by one.
const LOOKS: u32 = 2;

const SERVER: &str = "server";
const CA: &str = "ca";

/// Refreshes the certificate, and raises or clears the alarms of certificates, durably. Without TLS there are none. Blocks.
///
/// # Errors
/// [`ServerError`] if the alarms cannot be kept.
pub fn look(store: &Store, tls: Option<&Tls>) -> Result<(), ServerError> {
    let refused = tls.and_then(|tls| tls.look_at_files(store));
    let ends = tls.map(|tls| tls.ends(store.parts.clock.unix_ms())).unwrap_or_default();
    let refused: Vec<(String, String)> = refused.map(|why| (SERVER.to_owned(), why)).into_iter().collect();
    keep_only(store, AlarmCode::CertificateRefused, &refused)?;
    keep_only(store, AlarmCode::CertificateEnds, &ends)
}

/// Refreshes the certificate after a signal, and logs the result. Blocks.
pub fn reload(store: &Store, tls: &Tls) {
    match refresh(store, tls) {
        Ok(Refreshed::Changed) => {}
        Ok(Refreshed::Unchanged) => tracing::info!("SIGHUP: the certificates are unchanged"),
        Err(error) => told(&error),
    }
}

/// Refreshes the certificate; halts the store if the disk cannot be trusted any more.
fn refresh(store: &Store, tls: &Tls) -> Result<Refreshed, TlsError> {
    tls.refresh().inspect_err(|error| {
        if let TlsError::Write(error) = error
            && error.is_fatal()
        {
            store.halt(error);
        }
    })
}

impl Tls {
    /// Refreshes the certificate. Returns why that has failed several times in a row.
    fn look_at_files(&self, store: &Store) -> Option<String> {
        let refreshed = refresh(store, self);
        let mut refused = lock(&self.refused);
        let Err(error) = refreshed else {
            *refused = None;
            return None;
        };
        let why = Chain(&error).to_string();
        let looks = refused.as_ref().map_or(0, |(looks, _)| *looks) + 1;
        if refused.as_ref().is_none_or(|(_, before)| *before != why) {
            told(&error);
        }
        *refused = Some((looks, why.clone()));
        (looks >= LOOKS).then(|| format!("{why}. The server continues with the previous certificate"))
    }

    /// Certificates that end soon: subject and message of an alarm each.
    fn ends(&self, now_ms: u64) -> Vec<(String, String)> {
        let soon_ms = now_ms.saturating_add(u64::try_from(ENDS_WITHIN.as_millis()).unwrap_or(u64::MAX));
        let ends = [
            (SERVER, self.served().facts.not_after_ms, "the certificate of the server ends on"),
            (CA, self.authority.not_after_ms(), "the certificate of the CA of this repository ends on"),
        ];
        let soon = ends.into_iter().filter(|(_, end_ms, _)| *end_ms < soon_ms);
        let alarm = |(subject, end_ms, text): (&str, u64, &str)| {
            (subject.to_owned(), format!("{text} {}: clients refuse it then", rfc3339(end_ms)))
        };
        soon.map(alarm).collect()
    }
}

fn told(error: &TlsError) {
    tracing::warn!(error = %Chain(error), "the new certificate files cannot be used: the previous certificate stays in use");
}
