//! Nodes that enrol over TLS: no token, no CA that was copied by hand.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::client::{Client, Done, Running, run_to_end, text};
use tests::compare::assert_same;
use tests::corpus;
use tests::seed::Random;
use tests::wait;
use tests::world::World;

const ON: &str = "[tls]\nmode = \"on\"\n";

/// A server with TLS, and its operator.
struct Site {
    world: World,
    operator: Client,
}

impl Site {
    fn new() -> Self {
        let world = World::with_config(ON);
        let operator = world.node("operator");
        let ca = world.path("data/tls/ca.pem");
        configure(operator.home(), &format!("ca = \"{}\"\n", ca.display()));
        Self { world, operator }
    }

    /// An invitation with more arguments.
    #[track_caller]
    fn invite(&self, more: &[&str]) -> String {
        let words = [&["node", "invite", "--cluster", "c"], more].concat();
        self.operator.admin(&words).exits(0).stdout.trim_end().to_owned()
    }

    fn machine(&self, name: &str) -> Machine {
        Machine { client: self.world.node(name) }
    }

    fn nodes(&self) -> Value {
        self.operator.admin(&["node", "list", "--json"]).exits(0).json()
    }
}

/// A machine whose environment holds no setting of Astacus.
struct Machine {
    client: Client,
}

impl Machine {
    fn config(&self) -> PathBuf {
        self.client.home().join(".config/astacus/client.toml")
    }

    fn command(&self) -> Command {
        let mut command = self.client.command();
        for setting in ["SERVER", "TOKEN_FILE", "CLUSTER", "NODE"] {
            command.env_remove(format!("ASTACUS_{setting}"));
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Done {
        let mut command = self.command();
        command.args(arguments);
        run_to_end(command)
    }

    fn enroll(&self, invitation: &str, more: &[&str]) -> Done {
        let mut command = self.command();
        command.args(["enroll", "--json", invitation, "--config"]).arg(self.config()).args(more);
        run_to_end(command)
    }

    fn start_push(&self, root: &Path, more: &[&str]) -> Running {
        let mut command = self.command();
        command.args(["push", "--json"]).args(more).arg(root);
        Running::start(command)
    }
}

fn configure(home: &Path, settings: &str) {
    fs::create_dir_all(home.join(".config/astacus")).unwrap();
    fs::write(home.join(".config/astacus/client.toml"), settings).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// N1, N2: one word makes a machine a node, which needs no token; the word works once.
#[test]
fn an_invited_machine_pushes_and_restores_without_a_token() {
    let site = Site::new();
    let root = site.world.dir("source");
    corpus::plain(&root, &mut Random::printed(), 5, 100_000);
    let (db1, other) = (site.machine("db1"), site.machine("db2"));
    let invitation = site.invite(&["--node", "db1", "--may", "restore"]);

    let report = db1.enroll(&invitation, &[]).exits(0).json();

    let folder = db1.config().parent().unwrap().to_owned();
    assert_eq!(mode(&folder.join("node.pem")), 0o600);
    assert!(!folder.join("node.key.pending").exists());
    assert_eq!(text(&report, "node"), "db1");
    db1.start_push(&root, &[]).wait().exits(0);
    assert!(db1.run(&["list"]).exits(0).stdout.contains("db1"));
    let back = site.world.path("back");
    db1.run(&["restore", "latest", "--strip-root", "--to", &back.display().to_string()]).exits(0);
    assert_same(&root, &back);

    other.enroll(&invitation, &[]).exits(12);
    assert!(!other.config().exists());
    db1.enroll(&site.invite(&["--node", "db3"]), &[]).exits(2);
    let nodes = site.nodes();
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 1, "{nodes}");
    assert_eq!(text(&nodes["nodes"][0], "id"), text(&report, "id"));
    assert!(site.operator.admin(&["node", "invites"]).exits(0).stdout.contains("used"));
}

#[test]
fn an_invitation_of_another_ca_is_refused_before_its_code_is_sent() {
    let site = Site::new();
    let invitation = site.invite(&["--node", "db1"]);
    let mut parts: Vec<&str> = invitation.split('/').collect();
    let other = "ab".repeat(32);
    parts[2] = &other;

    site.machine("db1").enroll(&parts.join("/"), &[]).exits(12);

    assert!(site.operator.admin(&["node", "invites"]).exits(0).stdout.contains("open"));
    site.machine("db1").enroll(&invitation, &[]).exits(0);
}

#[test]
fn an_invitation_comes_from_standard_input_and_never_leaves_a_trace() {
    let site = Site::new();
    let invitation = site.invite(&[]);
    let machine = site.machine("db1");
    let mut command = machine.command();
    command.args(["enroll", "-", "--node", "db1", "--config"]).arg(machine.config());
    let mut enroll = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    enroll.stdin.take().unwrap().write_all(invitation.as_bytes()).unwrap();

    assert!(enroll.wait().unwrap().success());

    let code = invitation.split('/').nth(3).unwrap();
    assert!(!site.world.server.log().contains(code));
    assert!(!fs::read_to_string(site.world.path("data/access.json")).unwrap().contains(code));
}

/// N3: a push of a revoked node ends, and the node has no access any more; its snapshots stay.
#[test]
fn a_node_that_is_revoked_in_the_middle_of_a_push_is_cut_off() {
    let site = Site::new();
    let root = site.world.dir("source");
    fs::write(root.join("small"), "small").unwrap();
    let db1 = site.machine("db1");
    db1.enroll(&site.invite(&["--node", "db1"]), &[]).exits(0);
    db1.start_push(&root, &[]).wait().exits(0);
    fs::write(root.join("large"), Random::printed().bytes(30_000_000)).unwrap();
    let push = db1.start_push(&root, &["--max-rate", "1M", "--retry-for", "1s"]);
    let sends = || {
        let open = site.operator.admin(&["sessions", "--json"]).exits(0).json();
        (open["sessions"].as_array().is_some_and(|open| !open.is_empty())).then_some(())
    };
    wait::for_state("the push to be at work", sends);

    site.operator.admin(&["node", "revoke", "db1"]).exits(0);

    push.wait().exits(12);
    let refused = db1.run(&["list"]).exits(12);
    assert!(refused.stderr.contains("revoked"), "{}", refused.stderr);
    let snapshots = site.operator.admin(&["snapshots", "--json"]).exits(0).json();
    assert_eq!(snapshots.as_array().unwrap().len(), 1, "{snapshots}");
    site.machine("again").enroll(&site.invite(&["--node", "db1"]), &[]).exits(0);
}

/// N2: a node makes a new key when it is asked to, without a new invitation.
#[test]
fn a_node_that_is_to_rotate_makes_a_new_key_at_its_next_command() {
    let site = Site::new();
    let root = site.world.dir("source");
    fs::write(root.join("file"), "content").unwrap();
    let db1 = site.machine("db1");
    db1.enroll(&site.invite(&["--node", "db1"]), &[]).exits(0);
    let identity = db1.config().with_file_name("node.pem");
    let before = fs::read(&identity).unwrap();
    db1.start_push(&root, &[]).wait().exits(0);
    assert_eq!(fs::read(&identity).unwrap(), before, "no renewal is due");

    site.operator.admin(&["node", "rotate", "db1", "--grace", "1h"]).exits(0);
    db1.start_push(&root, &[]).wait().exits(0);

    assert_ne!(fs::read(&identity).unwrap(), before);
    assert_eq!(mode(&identity), 0o600);
    db1.start_push(&root, &[]).wait().exits(0);
    assert_eq!(site.nodes()["nodes"][0]["rotates"], false);
}
