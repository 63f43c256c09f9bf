//! Certificates over time, and handshakes over real sockets.

mod handshake;
mod kept;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};

use super::authority::Authority;
use super::*;
use crate::durable::RealDisk;
use crate::settings::TlsFiles;
use crate::testing::ManualClock;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A data folder, and a clock that stands still.
struct Scene {
    data: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Scene {
    fn new() -> Self {
        Self { data: tempfile::tempdir().unwrap(), clock: Arc::default() }
    }

    fn try_open(&self, settings: TlsSettings) -> Result<Arc<Tls>, TlsError> {
        let clock = Arc::clone(&self.clock);
        Tls::open(Arc::new(RealDisk), self.data.path(), settings, clock, random)
    }

    fn open(&self) -> Arc<Tls> {
        self.try_open(settings(&["localhost", "127.0.0.1"])).unwrap()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.data.path().join("tls").join(file)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap()
    }

    /// A CA of its own, at the time of the clock plus `later`.
    fn authority(&self, folder: &str, later: Duration) -> Authority {
        let (dir, clock) = (self.data.path().join(folder), Arc::new(ManualClock::default()));
        std::fs::create_dir_all(&dir).unwrap();
        clock.advance(later);
        Authority::open_or_create(&RealDisk, &dir, clock, random).unwrap()
    }

    /// Writes a certificate of another CA with its key, and returns the settings that name them.
    fn external(&self, authority: &Authority) -> TlsSettings {
        let pair = authority.server_pair(&settings(&["localhost"]).names).unwrap();
        let files =
            TlsFiles { certificate: self.data.path().join("e.pem"), key: self.data.path().join("e.key") };
        write_closed(&files.key, &pair.key_pem);
        write_closed(&files.certificate, &pair.chain_pem);
        TlsSettings { files: Some(files), ..settings(&["localhost"]) }
    }
}

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).unwrap();
}

fn settings(names: &[&str]) -> TlsSettings {
    let names: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    TlsSettings { names, files: None, node_life: Duration::from_secs(90 * 24 * 60 * 60) }
}

fn write_closed(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn node() -> format_spec::NodeId {
    format_spec::NodeId::new(1_700_000_000_000, [7; 10])
}

/// A key, and a request for a certificate of it that asks for more than it may get.
fn request() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, request)
}
