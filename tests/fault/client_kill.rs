//! The client process, killed at random moments.

use tests::client::{number, seconds, text};
use tests::compare::{assert_same, differences};
use tests::corpus;
use tests::gear;
use tests::seed::{Moments, Random};
use tests::wait;
use tests::world::World;

/// S3, C4, C5: a client that was killed leaves a whole snapshot or none, and the next push succeeds.
#[test]
#[ignore = "kills at moments of chance: `.ci/nightly fault`"]
fn kills_of_the_client_leave_no_partial_snapshot() {
    let mut world = World::new();
    let mut random = Random::printed();
    let root = world.path("source");
    corpus::plain(&root, &mut random, 12, 1_500_000);
    let node = world.node("n");
    let report = node.push(&root);
    let (mut cut, mut round) = (0, 0);
    let mut moments = Moments::new(seconds(&report));
    // Root of a killed push that has left no snapshot yet.
    let mut late: Option<std::path::PathBuf> = None;
    while gear::goes_on(round, gear::rounds(10, 500), cut > 0) {
        round += 1;
        corpus::work_on(&root, &mut random);
        let before = node.snapshot_ids();

        let push = node.start_push(&root);
        let early = push.within(moments.next(&mut random));
        let done = early.unwrap_or_else(|| push.kill());

        cut += usize::from(done.code != Some(0));
        if done.code == Some(0) {
            moments.too_late();
        }
        println!("round {round}: the push ended with {:?}", done.code);
        assert!(world.server.runs(), "round {round}");
        let new: Vec<String> = node.snapshot_ids().into_iter().filter(|id| !before.contains(id)).collect();
        let data = world.path(&format!("data-{round}"));
        corpus::copy_data(&root, &data);
        // A commit that was under way when its client was killed may come to its end a moment later.
        let most = 1 + usize::from(late.is_some());
        assert!(new.len() <= most && (done.code != Some(0) || !new.is_empty()), "round {round}: {new:?}");
        for id in &new {
            let to = world.path(&format!("restored-{round}-{id}"));
            node.restore(id, &to, &["--strip-root"]).exits(0);
            let found = differences(&data, &to);
            let is_late = || late.as_ref().is_some_and(|late| differences(late, &to).is_empty());
            assert!(found.is_empty() || is_late(), "round {round}: {found:?}");
        }
        late = new.is_empty().then_some(data);
    }

    assert!(cut > 0, "no push was cut short: the kills come too late");
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
    let report = node.restore(&id, &world.path("whole"), &["--strip-root"]).exits(0).json();
    for round in 0..gear::rounds(8, 300) {
        let to = world.path(&format!("restored-{round}"));
        let mut command = node.command();
        command.args(["restore", &id, "--strip-root", "--to"]).arg(&to);
        let running = tests::client::Running::start(command);
        let early = running.within(random.moment(seconds(&report)));
        early.unwrap_or_else(|| running.kill());

        for entry in std::fs::read_dir(&to).into_iter().flatten() {
            let name = entry.unwrap().file_name();
            let Ok(source) = std::fs::read(root.join(&name)) else { continue };
            assert_eq!(std::fs::read(to.join(&name)).unwrap(), source, "round {round}: {name:?}");
        }
    }
}

/// C5, P9: what was sent before a client was killed and a server was stopped is not sent again.
#[test]
fn a_push_after_a_kill_sends_only_what_had_not_arrived() {
    let mut world = World::new();
    let root = world.path("source");
    let mut random = Random::printed();
    corpus::plain(&root, &mut random, 40, 4_000_000);
    let node = world.node("n");
    let whole = number(&world.node_of("other", "n").push(&root), "bytes");
    let before = world.wire().status().stored_bytes;

    // Killed when a first pack has arrived.
    let push = node.start_push(&root);
    wait::for_state("a pack to arrive", || (world.wire().status().stored_bytes > before).then_some(()));
    push.kill();
    assert!(world.server.stop().success());
    world.server.start_again();
    let arrived = world.wire().status().stored_bytes - before;
    let again = number(&world.node("n").push(&root), "bytes_sent");

    assert!(arrived > 0 && again + arrived < whole + whole / 10, "{arrived} came, {again} of {whole} again");
}
