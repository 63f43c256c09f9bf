//! Power cuts on the machine of a node, at the end of a restore `--sync` and of a push: what its client said is done, is.
//! Each of the client's syncs that is left out is seen.

use tests::client::{Client, number, text};
use tests::compare::differences;
use tests::corpus;
use tests::gear;
use tests::loop_image::{FileSystem, LoopImage};
use tests::seed::Random;
use tests::world::{Folder, World};

const KINDS: [FileSystem; 2] = [FileSystem::Ext4, FileSystem::Xfs];

const FILES: usize = 5;

/// A client under strace, which acknowledges the sync `call` without doing it: each of it, or the `nth` of a thread.
fn without(client: &Client, call: &str, nth: Option<u32>) -> Client {
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:retval=0"));
    let inject = nth.map_or(inject.clone(), |nth| format!("{inject}:when={nth}"));
    client.wrapped(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject])
}

/// How a restored tree differs from its source after a power cut. `None`, said aloud, where that cannot be had.
fn lost_of_a_restore(kind: FileSystem, forgotten: Option<&str>) -> Option<Vec<String>> {
    let (world, folder) = (World::new(), Folder::new());
    let disk = LoopImage::make(kind, &folder, "disk")?;
    let (root, node) = (world.path("source"), world.node("n"));
    // One is as large as those that are written past the page cache.
    corpus::plain(&root, &mut Random::printed(), FILES, 500_000);
    std::fs::write(root.join("large"), Random::new(7).bytes(5 << 20)).unwrap();
    let snapshot = text(&node.push(&root), "snapshot");
    let node = forgotten.map_or(node.clone(), |call| without(&node, call, None));

    node.restore(&snapshot, &disk.path().join("restored"), &["--strip-root", "--sync"]).exits(0);

    let left = disk.after_a_power_cut(&folder, "left");
    let restored = left.path().join("restored");
    Some(if restored.exists() { differences(&root, &restored) } else { vec!["all of it".to_owned()] })
}

/// P5
#[test]
fn a_power_cut_takes_nothing_of_a_restore_unless_its_sync_is_left_out() {
    if !gear::has("strace") {
        return;
    }
    for kind in KINDS {
        let Some(lost) = lost_of_a_restore(kind, None) else { return };
        assert_eq!(lost, Vec::<String>::new(), "{kind:?}");

        let lost = lost_of_a_restore(kind, Some("syncfs")).unwrap();
        assert_ne!(lost, Vec::<String>::new(), "{kind:?}");
    }
}

/// How many files a node still knows after a power cut at the end of its push.
fn known_after_a_push(kind: FileSystem, forgotten: Option<u32>) -> Option<u64> {
    let (world, folder) = (World::new(), Folder::new());
    let disk = LoopImage::make(kind, &folder, "disk")?;
    let root = world.path("source");
    corpus::plain(&root, &mut Random::printed(), FILES, 500_000);
    corpus::settle(&root);
    let node = |disk: &LoopImage| Client::new(&world.server, "c", "n", &disk.path().join("home"));
    let pushes = forgotten.map_or(node(&disk), |nth| without(&node(&disk), "fsync", Some(nth)));

    pushes.push(&root);

    let left = disk.after_a_power_cut(&folder, "left");
    Some(number(&node(&left).push(&root), "unchanged"))
}

/// The state of a node's last push survives a power cut; without it the next push would read all files.
#[test]
fn a_power_cut_takes_nothing_of_what_a_node_knows_unless_a_sync_is_left_out() {
    if !gear::has("strace") {
        return;
    }
    let all = u64::try_from(FILES).unwrap();
    // First the file is synced, and then its name.
    for kind in KINDS {
        for (forgotten, expected) in [(None, all), (Some(1), 0), (Some(2), 0)] {
            let Some(known) = known_after_a_push(kind, forgotten) else { return };
            assert_eq!(known, expected, "{kind:?}, without the sync number {forgotten:?}");
        }
    }
}
