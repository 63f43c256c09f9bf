//! Push and restore over TLS, with the certificates that a server makes for itself.

use std::fs;

use rustix::process::{Signal, kill_process};
use tests::client::{Client, number};
use tests::compare::assert_same;
use tests::corpus;
use tests::seed::Random;
use tests::server::{Server, refused};
use tests::wait;
use tests::world::{Folder, World};

const ON: &str = "[tls]\nmode = \"on\"\n";

/// Gives the file of settings of `node` this text.
fn configure(node: &Client, text: &str) {
    let folder = node.home().join(".config/astacus");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("client.toml"), text).unwrap();
}

fn trusting_file(world: &World) -> String {
    format!("ca = \"{}\"\n", world.path("data/tls/ca.pem").display())
}

/// The fingerprint of the CA that the server logs when it starts.
fn fingerprint(server: &Server) -> String {
    let log = server.logged("ca_sha256=", 1);
    let (_, rest) = log.split_once("ca_sha256=").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

/// T3: a client with the CA of the server, or with its fingerprint, pushes and restores.
#[test]
fn a_tree_comes_back_over_tls() {
    let world = World::with_config(ON);
    assert!(world.server.address().starts_with("https://127.0.0.1:"), "{}", world.server.address());
    let source = world.dir("source");
    corpus::mixed(&source, &mut Random::printed());
    let node = world.node("n");
    configure(&node, &trusting_file(&world));

    node.push(&source);
    configure(&node, &format!("ca_sha256 = \"{}\"\n", fingerprint(&world.server)));
    node.restore("latest", &world.path("back"), &["--strip-root"]).exits(0);

    assert_same(&source, &world.path("back"));
    assert_eq!(number(&node.status(), "snapshots"), 1);
}

/// T1, T3: each side names what is wrong with the other, and the way out.
#[test]
fn a_client_that_does_not_fit_the_server_is_told_why() {
    let world = World::with_config(ON);
    let plain = World::new();
    let node = world.node("n");
    let list = |node: &Client, code: i32| node.run(["list"]).exits(code).stderr;
    configure(&node, &format!("ca_sha256 = \"{}\"\n", "ab".repeat(32)));

    let unknown = list(&node, 12);
    assert!(unknown.contains("--ca FILE"), "{unknown}");

    configure(&node, &trusting_file(&world));
    let named = list(&node.at(&world.server.address().replace("127.0.0.1", "127.0.0.2")), 12);
    assert!(named.contains("`localhost`") && named.contains("--name 127.0.0.2"), "{named}");
    let unencrypted = list(&node.at(&world.server.address().replace("https", "http")), 2);
    assert!(unencrypted.contains("https://"), "{unencrypted}");
    let no_tls = list(&node.at(&plain.server.address().replace("http", "https")), 2);
    assert!(no_tls.contains("--tls on"), "{no_tls}");
    list(&node, 0);
}

/// T2: a server serves new certificates after a signal, without a restart; it keeps its CA over restarts.
#[test]
fn new_certificates_are_served_after_a_signal_and_the_ca_stays() {
    let mut world = World::with_config(ON);
    let node = world.node("n");
    configure(&node, &trusting_file(&world));
    node.run(["list"]).exits(0);
    let served = world.path("data/tls/server.pem");
    let before = fs::read(&served).unwrap();
    fs::remove_file(&served).unwrap();

    kill_process(world.server.pid(), Signal::HUP).unwrap();
    wait::for_state("a new certificate", || fs::read(&served).ok().filter(|now| *now != before));
    world.server.logged("new connections get a new certificate", 1);

    node.run(["list"]).exits(0);
    world.server.start_again();
    world.node("n").run(["list"]).exits(0);
}

#[test]
fn a_server_for_other_machines_encrypts_and_one_that_must_not_is_refused() {
    let folder = Folder::new();
    let data = folder.path("data");

    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let arguments = ["--data-dir", data.to_str().unwrap(), "--tls", "off", "--listen", address];
        let refused = refused(&arguments).exits(2);
        assert!(refused.stderr.contains("loopback"), "{}", refused.stderr);
        assert!(!data.exists(), "nothing is made by a start that is refused");
    }
    let server = Server::start_at(&data, "0.0.0.0:0");
    assert!(server.address().starts_with("https://0.0.0.0:"), "{}", server.address());
}
