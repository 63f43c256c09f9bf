//! Certificates in files: made, renewed, reloaded, refused.

use super::*;
use crate::health::alarms;
use crate::store::Parts;

fn fingerprint(tls: &Tls) -> String {
    tls.authority().fingerprint().to_string()
}

#[test]
fn the_first_start_makes_certificates_and_later_ones_keep_them() {
    let scene = Scene::new();
    let first = scene.open();
    let files = ["ca.pem", "ca.key", "server.pem", "server.key"];
    let before = files.map(|file| scene.read(file));

    let second = scene.open();

    assert_eq!(files.map(|file| scene.read(file)), before);
    assert_eq!(fingerprint(&first), fingerprint(&second));
    assert_eq!(second.refresh().unwrap(), Refreshed::Unchanged);
    for file in files {
        let mode = std::fs::metadata(scene.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{file}");
    }
    assert!(before[2].ends_with(&before[0]), "the chain ends with the CA, for clients that pin it");
}

#[test]
fn a_ca_whose_making_was_cut_is_finished_and_one_that_lost_its_key_is_refused() {
    let scene = Scene::new();
    scene.open();
    let key = scene.read("ca.key");
    std::fs::remove_file(scene.path("ca.pem")).unwrap();

    scene.open();

    assert_eq!(scene.read("ca.key"), key);
    std::fs::remove_file(scene.path("ca.key")).unwrap();
    let refused = scene.try_open(settings(&["localhost"])).err().unwrap();
    assert!(matches!(refused, TlsError::NoAuthority { .. }), "{refused}");
    assert!(scene.path("ca.pem").exists());
}

/// T2: the server renews its own certificate before it ends.
#[test]
fn the_certificate_is_renewed_when_a_third_of_its_life_is_left() {
    let scene = Scene::new();
    let tls = scene.open();
    let first = scene.read("server.pem");
    let ca = fingerprint(&tls);
    scene.clock.advance(DAY * 59);
    assert_eq!(tls.refresh().unwrap(), Refreshed::Unchanged);

    scene.clock.advance(DAY * 2);

    assert_eq!(tls.refresh().unwrap(), Refreshed::Changed);
    assert_eq!(tls.refresh().unwrap(), Refreshed::Unchanged);
    assert_ne!(scene.read("server.pem"), first);
    assert_eq!(fingerprint(&scene.open()), ca, "clients trust the same CA");
}

#[test]
fn a_certificate_is_made_again_for_other_names_and_for_a_pair_that_does_not_fit() {
    let scene = Scene::new();
    scene.open();
    let first = scene.read("server.pem");

    scene.try_open(settings(&["localhost", "backup.example.org"])).unwrap();

    let second = scene.read("server.pem");
    assert_ne!(second, first);
    write_closed(&scene.path("server.pem"), &first);
    scene.try_open(settings(&["localhost", "127.0.0.1"])).unwrap();
    assert_ne!(scene.read("server.pem"), first, "its key was replaced");
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_command_that_mends_it() {
    let scene = Scene::new();
    scene.open();
    for file in ["ca.key", "server.key"] {
        let path = scene.path(file);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();

        let refused = scene.try_open(settings(&["localhost"])).err().unwrap().to_string();

        assert!(refused.contains(&format!("chmod 600 {}", path.display())), "{refused}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }
}

#[test]
fn new_files_of_another_ca_are_served_and_bad_ones_change_nothing() {
    let scene = Scene::new();
    let authority = scene.authority("other", Duration::ZERO);
    let settings = scene.external(&authority);
    let files = settings.files.clone().unwrap();
    let tls = scene.try_open(settings).unwrap();
    let served = || tls.served().facts.serial.clone();
    let first = served();

    scene.external(&authority);
    assert_eq!(tls.refresh().unwrap(), Refreshed::Changed);
    let second = served();
    assert_ne!(second, first);

    let good = std::fs::read_to_string(&files.certificate).unwrap();
    let long_ago = scene.authority("long-ago", Duration::ZERO);
    let ended = rcgen_ended(&long_ago);
    for bad in ["", "no certificate", &authority.server_pair(&BTreeSet::new()).unwrap().chain_pem] {
        write_closed(&files.certificate, bad);
        assert!(tls.refresh().is_err(), "{bad}");
        assert_eq!(served(), second);
    }
    write_closed(&files.certificate, &ended.0);
    write_closed(&files.key, &ended.1);
    let refused = tls.refresh().unwrap_err();
    assert!(matches!(refused, TlsError::Ended { .. }), "{refused}");
    assert_eq!(served(), second);
    drop(good);
}

/// A certificate that ended in 2001, with its key.
fn rcgen_ended(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    (authority.issue(&params, &key).unwrap().pem(), key.serialize_pem())
}

/// T2: people hear of a certificate that ends, and of files that cannot be used, once they could not be used twice.
#[test]
fn alarms_tell_of_certificates_that_end_and_of_files_that_cannot_be_used() {
    let scene = Scene::new();
    let store = Parts::default().at(scene.clock.clone()).start();
    let settings = scene.external(&scene.authority("other", Duration::ZERO));
    let files = settings.files.clone().unwrap();
    let tls = scene.try_open(settings).unwrap();
    let active = || {
        look(&store, Some(&tls)).unwrap();
        let alarms = alarms(&store).unwrap().into_iter();
        alarms
            .map(|alarm| format!("{} {}", alarm.code, alarm.subject.unwrap_or_default()))
            .collect::<Vec<_>>()
    };
    assert_eq!(active(), [""; 0]);
    let good = std::fs::read_to_string(&files.certificate).unwrap();

    write_closed(&files.certificate, "none");
    assert_eq!(active(), [""; 0], "key and certificate are replaced one by one");
    assert_eq!(active(), ["certificate_refused server"]);
    write_closed(&files.certificate, &good);
    assert_eq!(active(), [""; 0]);

    scene.clock.advance(DAY * 61);
    assert_eq!(active(), ["certificate_ends server"]);
    scene.clock.advance(DAY * 365 * 10);
    assert_eq!(active(), ["certificate_ends ca", "certificate_ends server"]);
    look(&store, None).unwrap();
    assert!(alarms(&store).unwrap().is_empty(), "a server without TLS has no certificate");
}

#[test]
fn only_the_key_of_a_request_is_taken_and_no_certificate_outlives_its_ca() {
    let scene = Scene::new();
    let authority = scene.authority("ca", Duration::ZERO);
    let (_, csr) = request();

    let signed = authority.sign(&csr, node(), DAY * 365 * 100).unwrap();

    let path = Path::new("chain");
    let chain = files::certificates(path, signed.chain_pem.as_bytes()).unwrap();
    let facts = Facts::of(&chain[0]).unwrap();
    assert_eq!(facts.common_name, Some(node().to_string()));
    assert!(facts.names.is_empty());
    assert_eq!(facts.not_after_ms, authority.not_after_ms());
    assert_eq!(
        PeerCertificate::of(&chain[0]).map(|shown| (shown.node, shown.serial)),
        Some((node(), signed.serial))
    );
    assert_eq!(chain[1], *authority.der());
    let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    for wrong in ["", "request", &csr.replace('A', "B")] {
        assert!(matches!(authority.sign(wrong, node(), DAY), Err(TlsError::Request(_))), "{wrong}");
    }
}
