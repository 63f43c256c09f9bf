//! The small CA of a repository: it signs the certificate of its server and those of the nodes, and no other CA.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use format_spec::id::to_hex;
use format_spec::{Fingerprint, NodeId};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use super::certificate::Facts;
use super::error::TlsError;
use super::files;
use crate::clock::Clock;
use crate::durable::{self, Disk, FileName};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Life of the CA. Nothing can renew it without a visit to each client.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Life of the server's certificate.
pub(super) const SERVER_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Certificates are valid from this time before their making, for clients whose clocks are behind.
const BEFORE: Duration = DAY;

const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";

/// A CA, with its key in memory.
pub struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    not_after_ms: u64,
    issuer: Issuer<'static, KeyPair>,
    clock: Arc<dyn Clock>,
    random: fn(&mut [u8]),
    path: PathBuf,
}

/// A certificate that a CA has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCertificate {
    /// The certificate, and that of the CA, in PEM format.
    pub chain_pem: String,
    /// Its serial number, in hex digits.
    pub serial: String,
    /// Its end, in milliseconds since 1970.
    pub not_after_ms: u64,
}

/// A certificate of the server with its key, in PEM format.
pub(super) struct NewPair {
    pub(super) chain_pem: String,
    pub(super) key_pem: String,
}

impl Authority {
    /// The CA in the folder `dir`, made if there is none; its files are durable then. An interrupted making is finished.
    ///
    /// # Errors
    /// [`TlsError`]; [`TlsError::NoAuthority`] if its certificate is there and its key is not.
    pub(super) fn open_or_create(
        disk: &dyn Disk,
        dir: &Path,
        clock: Arc<dyn Clock>,
        random: fn(&mut [u8]),
    ) -> Result<Self, TlsError> {
        let (certificate_path, key_path) = (dir.join(CERTIFICATE), dir.join(KEY));
        let pem = files::if_there(files::read(&certificate_path))?;
        let key = match files::if_there(files::read_key(&key_path))? {
            Some(pem) => parse_key(&key_path, &pem)?,
            None if pem.is_some() => return Err(TlsError::NoAuthority { path: key_path }),
            None => {
                let key = KeyPair::generate().map_err(TlsError::Make)?;
                durable::publish(disk, dir, &name(KEY), key.serialize_pem().as_bytes())?;
                key
            }
        };
        let pem = match pem {
            Some(pem) => pem,
            None => {
                let pem = own_certificate(&key, clock.as_ref(), random)?.into_bytes();
                durable::publish(disk, dir, &name(CERTIFICATE), &pem)?;
                pem
            }
        };
        let wrong = || TlsError::malformed(&certificate_path, "CA certificate");
        let der = files::certificates(&certificate_path, &pem)?.into_iter().next().ok_or_else(wrong)?;
        let not_after_ms = Facts::of(&der).ok_or_else(wrong)?.not_after_ms;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| wrong())?;
        let pem = String::from_utf8(pem).map_err(|_| wrong())?;
        Ok(Self { pem, der, not_after_ms, issuer, clock, random, path: certificate_path })
    }

    /// Signs a certificate for `node`, with the key of the request `csr_pem` (PKCS #10, PEM): nothing else is taken from
    /// the request. It is for clients only, and ends after `validity`, or with the CA if that is sooner.
    ///
    /// # Errors
    /// [`TlsError::Request`] if it is no request, or its sender has not the key.
    pub fn sign(
        &self,
        csr_pem: &str,
        node: NodeId,
        validity: Duration,
    ) -> Result<SignedCertificate, TlsError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(TlsError::Request)?;
        let mut params = self.params(&node.to_string(), validity);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = self.issue(&params, &request.public_key)?;
        let facts =
            Facts::of(certificate.der()).ok_or(TlsError::Make(rcgen::Error::CouldNotParseCertificate))?;
        Ok(SignedCertificate {
            chain_pem: self.chain(&certificate),
            serial: facts.serial,
            not_after_ms: facts.not_after_ms,
        })
    }

    /// A new key and certificate of the server, for `names`.
    pub(super) fn server_pair(&self, names: &BTreeSet<String>) -> Result<NewPair, TlsError> {
        let key = KeyPair::generate().map_err(TlsError::Make)?;
        let names: Vec<String> = names.iter().cloned().collect();
        let mut params = self.params("astacus-server", SERVER_LIFE);
        params.subject_alt_names = CertificateParams::new(names).map_err(TlsError::Make)?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = self.issue(&params, &key)?;
        Ok(NewPair { chain_pem: self.chain(&certificate), key_pem: key.serialize_pem() })
    }

    fn params(&self, common_name: &str, validity: Duration) -> CertificateParams {
        let now_ms = self.clock.unix_ms();
        let mut params = params(common_name, now_ms, validity, self.random);
        params.not_after = params.not_after.min(moment(self.not_after_ms));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params
    }

    pub(super) fn issue(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<Certificate, TlsError> {
        params.signed_by(key, &self.issuer).map_err(TlsError::Make)
    }

    fn chain(&self, certificate: &Certificate) -> String {
        certificate.pem() + &self.pem
    }

    /// Its certificate, in PEM format.
    pub fn ca_pem(&self) -> &str {
        &self.pem
    }

    /// The file with its certificate.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The fingerprint of its certificate: for people to compare, and for clients to pin.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    pub(super) fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its end, in milliseconds since 1970.
    pub(super) fn not_after_ms(&self) -> u64 {
        self.not_after_ms
    }
}

fn name(text: &str) -> FileName {
    text.parse().expect("a plain name")
}

fn parse_key(path: &Path, pem: &[u8]) -> Result<KeyPair, TlsError> {
    let text = std::str::from_utf8(pem).ok();
    let key = text.and_then(|text| KeyPair::from_pem(text).ok());
    key.ok_or_else(|| TlsError::malformed(path, "private key"))
}

/// The certificate of a new CA, which signs with `key`. Its name has chance in it: a client that knows two CAs can tell
/// them apart.
fn own_certificate(key: &KeyPair, clock: &dyn Clock, random: fn(&mut [u8])) -> Result<String, TlsError> {
    let mut number = [0; 4];
    random(&mut number);
    let name = format!("Astacus CA {}", to_hex(&number));
    let mut params = params(&name, clock.unix_ms(), AUTHORITY_LIFE, random);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params.self_signed(key).map_err(TlsError::Make)?.pem())
}

fn params(common_name: &str, now_ms: u64, validity: Duration, random: fn(&mut [u8])) -> CertificateParams {
    let mut serial = [0; 16];
    random(&mut serial);
    // A positive number without a leading zero, as the standard asks.
    serial[0] = serial[0] & 0x7f | 0x40;
    let before = now_ms.saturating_sub(ms(BEFORE));
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = moment(before);
    params.not_after = moment(now_ms.saturating_add(ms(validity)));
    params
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The second of a moment; the end of the year 9999 for all later ones.
fn moment(unix_ms: u64) -> OffsetDateTime {
    const LAST: i64 = 253_402_300_799;
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(LAST).min(LAST);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
