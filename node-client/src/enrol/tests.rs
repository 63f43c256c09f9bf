//! Tests of the files of an enrolment.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_key_that_was_begun_is_used_again_and_makes_the_same_request() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::beside(&folder.path().join("client.toml")).unwrap();

    let first = request(&files.key().unwrap()).unwrap();
    let mode = fs::metadata(&files.pending).unwrap().permissions().mode() & 0o777;
    let again = request(&files.key().unwrap()).unwrap();
    fs::remove_file(&files.pending).unwrap();
    let other = request(&files.key().unwrap()).unwrap();

    assert_eq!((mode, &first), (0o600, &again));
    assert_ne!(first, other);
    fs::write(&files.pending, "no key").unwrap();
    assert!(matches!(files.key(), Err(ClientError::Usage(_))));
}

#[test]
fn a_configuration_or_a_key_in_use_is_replaced_only_if_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::beside(&folder.path().join("client.toml")).unwrap();
    let is_refused = || matches!(files.check(Existing::Keep), Err(ClientError::Usage(_)));

    assert!(!is_refused());
    fs::write(&files.identity, "").unwrap();
    assert!(is_refused(), "a key in use");
    fs::write(&files.pending, "").unwrap();
    assert!(!is_refused(), "an enrolment that was cut short");
    fs::write(&files.config, "").unwrap();
    assert!(is_refused());
    assert!(files.check(Existing::Replace).is_ok());
}

#[test]
fn the_jobs_of_a_configuration_stay_and_other_credentials_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("client.toml");
    let old = "server = \"http://127.0.0.1:1\"\ntoken_file = \"/t\"\n[job.db]\nroots = [\"/srv\"]\n";
    fs::write(&path, old).unwrap();
    let settings = || ["server", "ca", "identity", "cluster", "node"].map(|key| (key, format!("new-{key}")));

    let table: toml::Table = configuration(&path, settings()).unwrap().parse().unwrap();

    assert_eq!(table["server"].as_str(), Some("new-server"));
    assert!(!table.contains_key("token_file"));
    assert_eq!(table["job"]["db"]["roots"][0].as_str(), Some("/srv"));
    fs::write(&path, "no toml").unwrap();
    assert!(matches!(configuration(&path, settings()), Err(ClientError::Usage(_))));
}

#[test]
fn another_ca_than_that_of_the_invitation_is_refused() {
    let key = new_key().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    let own = Fingerprint::of(certificate.der());

    assert!(check_ca("s", &certificate.pem(), &own).is_ok());
    for (pem, expected) in
        [(certificate.pem(), Fingerprint::of(b"other")), ("no certificate".to_owned(), own)]
    {
        assert!(matches!(check_ca("s", &pem, &expected), Err(ClientError::Protocol { .. })));
    }
}
