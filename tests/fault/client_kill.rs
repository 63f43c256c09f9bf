//! The client process, killed at random moments.

use std::time::Duration;

use tests::client::{number, text};
use tests::compare::{assert_same, differences};
use tests::corpus;
use tests::gear;
use tests::seed::Random;
use tests::world::World;

/// S3, C4, C5: a client that was killed leaves a whole snapshot or none, and the next push succeeds.
#[test]
fn kills_of_the_client_leave_no_partial_snapshot() {
    let mut world = World::new();
    let mut random = Random::printed();
    let root = world.path("source");
    corpus::plain(&root, &mut random, 12, 1_500_000);
    let node = world.node("n");
    for round in 0..gear::rounds(10, 500) {
        corpus::work_on(&root, &mut random);
        let before = node.snapshot_ids();

        let push = node.start_push(&root);
        let early = push.within(Duration::from_millis(random.below(600)));
        let done = early.unwrap_or_else(|| push.kill());

        println!("round {round}: the push ended with {:?}", done.code);
        assert!(world.server.runs(), "round {round}");
        let new: Vec<String> = node.snapshot_ids().into_iter().filter(|id| !before.contains(id)).collect();
        assert!(new.len() <= 1 && (done.code != Some(0) || new.len() == 1), "round {round}: {new:?}");
        for id in new {
            let to = world.path(&format!("restored-{round}"));
            node.restore(&id, &to, &["--strip-root"]).exits(0);
            assert_eq!(differences(&root, &to), Vec::<String>::new(), "round {round}");
        }
    }

    let last = text(&node.push(&root), "snapshot");

    node.restore(&last, &world.path("restored"), &["--strip-root"]).exits(0);
    assert_same(&root, &world.path("restored"));
    node.admin(&["verify", "--level", "read"]).exits(0);
}

/// C2, C3: a restore that was killed leaves no file under its name that is not whole.
#[test]
fn kills_of_a_restore_leave_no_file_that_is_not_whole() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.path("source");
    corpus::plain(&root, &mut random, 30, 1_000_000);
    let node = world.node("n");
    let id = text(&node.push(&root), "snapshot");
    for round in 0..gear::rounds(8, 300) {
        let to = world.path(&format!("restored-{round}"));
        let mut command = node.command();
        command.args(["restore", &id, "--strip-root", "--to"]).arg(&to);
        let running = tests::client::Running::start(command);
        let early = running.within(Duration::from_millis(random.below(300)));
        early.unwrap_or_else(|| running.kill());

        for entry in std::fs::read_dir(&to).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            let Ok(source) = std::fs::read(root.join(&name)) else { continue };
            assert_eq!(std::fs::read(to.join(&name)).unwrap(), source, "round {round}: {name:?}");
        }
    }
}

/// C5: what was sent in sealed packs before a kill is not sent again.
#[test]
fn a_push_after_a_kill_sends_only_what_had_not_arrived() {
    let mut world = World::new();
    let root = world.path("source");
    corpus::plain(&root, &mut Random::printed(), 10, 2_000_000);
    let node = world.node("n");
    let wire = world.wire();
    // Stopped in the moment after everything was sent: the pages are the last thing to come.
    let sent = number(&node.push(&root), "bytes_sent");
    assert!(world.server.stop().success());
    world.server.start_again();
    drop(wire);

    let again = world.node("m").push(&root);

    assert!(number(&again, "bytes_sent") * 10 < sent, "{again}");
}
