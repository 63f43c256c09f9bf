//! Tokens with roles, as operators and nodes meet them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tests::client::{Client, text};
use tests::world::World;

/// Exit codes.
const DENIED: i32 = 12;
const NOT_FOUND: i32 = 10;

/// Makes a token with these arguments, into a file.
fn token(world: &World, admin: &Client, name: &str, arguments: &[&str]) -> PathBuf {
    let path = world.path(&format!("{name}.token"));
    let out = path.to_str().unwrap();
    admin.admin(&[&["token", "create", name, "--out", out], arguments].concat()).exits(0);
    path
}

/// R1, R2: a node with a token of its own pushes and restores its own, and nothing else.
#[test]
fn a_node_with_its_own_tokens_pushes_and_restores_its_own() {
    let mut world = World::new();
    world.server.allow_errors("refused a sign-in");
    let (admin, source) = (world.node("db1"), world.dir("source"));
    fs::write(source.join("file"), "content").unwrap();
    let of_db1 = ["--cluster", "c", "--node", "db1"];
    let push = token(&world, &admin, "db1-push", &[&["--role", "node-push"], &of_db1[..]].concat());
    let restore = token(&world, &admin, "db1-restore", &[&["--role", "node-restore"], &of_db1[..]].concat());
    assert_eq!(fs::metadata(&push).unwrap().mode() & 0o777, 0o600);
    world.node("db2").push(&source);
    let (pusher, restorer) = (admin.with_token_file(&push), admin.with_token_file(&restore));

    pusher.push(&source);
    pusher.push(&source);

    world.node("db2").with_token_file(&push).start_push(&source).wait().exits(DENIED);
    restorer.start_push(&source).wait().exits(NOT_FOUND);
    pusher.restore("latest", &world.path("not"), &[]).exits(NOT_FOUND);
    restorer.restore("latest", &world.path("restored"), &["--strip-root"]).exits(0);
    assert_eq!(fs::read_to_string(world.path("restored").join("file")).unwrap(), "content");
    assert!(restorer.snapshots().iter().all(|snapshot| snapshot["nodes"] == serde_json::json!(["db1"])));
    let foreign = admin.snapshots().into_iter().find(|of| of["nodes"] == serde_json::json!(["db2"])).unwrap();
    restorer.restore(&text(&foreign, "id"), &world.path("foreign"), &[]).exits(NOT_FOUND);
    pusher.admin(&["status"]).exits(NOT_FOUND);

    admin.admin(&["token", "revoke", "db1-push"]).exits(0);
    pusher.start_push(&source).wait().exits(DENIED);
}

/// R6: tokens survive a restart; the secret is printed alone, and is not in any file of the server.
#[test]
fn a_token_is_printed_once_and_kept_as_a_hash() {
    let mut world = World::new();
    let admin = world.node("n");
    let printed = admin.admin(&["token", "create", "ops", "--role", "operator", "--expires", "90d"]).exits(0);
    let secret = printed.stdout.trim().to_owned();
    assert!(secret.len() == 64 && printed.stdout.lines().count() == 1, "{}", printed.stdout);
    let file = fs::read_to_string(world.server.data().join("access.json")).unwrap();
    assert!(!file.contains(&secret));
    let path = world.path("ops.token");
    fs::write(&path, &secret).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    world.server.kill();
    world.server.start_again_here();

    let operator = admin.with_token_file(&path);
    operator.admin(&["gc"]).exits(0);
    operator.admin(&["gc", "--now"]).exits(DENIED);
    operator.admin(&["token", "list"]).exits(NOT_FOUND);
    let listed = admin.admin(&["token", "list", "--json"]).exits(0).json();
    assert_eq!(listed["tokens"][0]["name"], "ops");
    assert_eq!(listed["tokens"][0]["created_by"], "the first token");
    assert!(!world.server.log().contains(&secret));
}
