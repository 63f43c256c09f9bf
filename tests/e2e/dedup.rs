//! No data is read, sent or stored twice.

use std::fs;

use tests::client::{number, text};
use tests::compare::assert_same;
use tests::corpus;
use tests::seed::Random;
use tests::world::World;

const MIB: u64 = 1 << 20;

#[test]
fn a_second_push_of_an_unchanged_tree_reads_nothing_and_sends_nothing() {
    let world = World::new();
    let root = world.path("source");
    corpus::mixed(&root, &mut Random::printed());
    corpus::settle(&root);
    let node = world.node("n");
    let first = node.push(&root);
    let stored = number(&node.status(), "stored_bytes");

    let second = node.push(&root);

    assert!(number(&first, "bytes_read") > 0 && number(&first, "bytes_sent") > 0, "{first}");
    let moved = ["bytes_read", "bytes_sent", "bytes_stored"].map(|field| number(&second, field));
    assert_eq!(moved, [0, 0, 0], "{second}");
    assert_eq!(number(&second, "files"), number(&first, "files"));
    assert_eq!(number(&node.status(), "stored_bytes"), stored);
    assert_ne!(text(&second, "snapshot"), text(&first, "snapshot"));
}

#[test]
fn a_client_that_lost_its_memory_reads_everything_and_sends_nothing() {
    let world = World::new();
    let root = world.path("source");
    corpus::mixed(&root, &mut Random::printed());
    corpus::settle(&root);
    let node = world.node("n");
    let first = node.push(&root);
    fs::remove_dir_all(node.home()).unwrap();
    fs::create_dir(node.home()).unwrap();

    let second = node.push(&root);

    assert_eq!(number(&second, "bytes_read"), number(&first, "bytes_read"));
    assert_eq!(number(&second, "bytes_sent"), 0, "{second}");
}

/// X8: what a second node adds to a chunk that is there is a count.
#[test]
fn two_nodes_with_a_common_file_of_100_megabytes_store_it_once() {
    let world = World::new();
    let mut random = Random::printed();
    let (one, two) = (world.dir("one"), world.dir("two"));
    fs::write(one.join("common"), random.bytes(100_000_000)).unwrap();
    fs::hard_link(one.join("common"), two.join("common")).unwrap();
    fs::write(one.join("own"), random.bytes(1_000_000)).unwrap();
    fs::write(two.join("own"), random.bytes(1_000_000)).unwrap();
    let (node_one, node_two) = (world.node("one"), world.node("two"));

    node_one.push(&one);
    let stored_one = number(&node_one.status(), "stored_bytes");
    let report = node_two.push(&two);
    let stored_both = number(&node_two.status(), "stored_bytes");

    assert!(stored_one > 100 * MIB * 9 / 10, "{stored_one} bytes cannot hold the file");
    assert!(stored_both - stored_one < 2 * MIB, "{} bytes more", stored_both - stored_one);
    assert!(number(&report, "bytes_sent") < 2 * MIB, "{report}");
    node_two.restore("latest", &world.path("restored"), &["--strip-root"]).exits(0);
    assert_same(&two, &world.path("restored"));
}

/// P1: a chunk that two nodes send at the same time is stored once, and both have it.
#[test]
fn two_nodes_that_push_the_same_at_once_store_it_about_once() {
    let world = World::new();
    let root = world.path("source");
    corpus::plain(&root, &mut Random::printed(), 12, 2_000_000);
    let (node_one, node_two) = (world.node("one"), world.node("two"));

    let (first, second) = (node_one.start_push(&root), node_two.start_push(&root));
    let reports = [first, second].map(|push| push.wait().exits(0).json());

    let stored = number(&node_one.status(), "stored_bytes");
    let bytes = number(&reports[0], "bytes");
    assert!(stored < bytes + bytes / 10 + MIB, "{stored} bytes stored of {bytes}");
    for (node, to) in [(&node_one, "a"), (&node_two, "b")] {
        node.restore("latest", &world.path(to), &["--strip-root"]).exits(0);
        assert_same(&root, &world.path(to));
    }
}

#[test]
fn a_file_that_lies_in_a_tree_twice_is_sent_once() {
    let world = World::new();
    let root = world.dir("source");
    let bytes = Random::printed().bytes(5_000_000);
    fs::write(root.join("a"), &bytes).unwrap();
    fs::write(root.join("b"), &bytes).unwrap();

    let report = world.node("n").push(&root);

    assert_eq!(number(&report, "bytes_read"), 10_000_000);
    assert!(number(&report, "bytes_sent") < 6_000_000, "{report}");
}

/// P10: what a grown file costs to send is what was appended, and a few pages.
#[test]
fn a_grown_file_sends_about_what_was_appended() {
    let world = World::new();
    let mut random = Random::printed();
    let root = world.dir("source");
    let node = world.node("n");
    let mut bytes = random.bytes(20_000_000);
    fs::write(root.join("log"), &bytes).unwrap();
    node.push(&root);
    bytes.extend(random.bytes(500_000));
    fs::write(root.join("log"), &bytes).unwrap();

    let report = node.push(&root);

    // The last chunk of the old file is cut anew: at most one of the longest kind.
    assert!(number(&report, "bytes_sent") < 500_000 + MIB + 100_000, "{report}");
}

/// P2: a cluster is a dedup domain of its own: what another has is neither told nor used.
#[test]
fn clusters_share_no_chunks() {
    let world = World::new();
    let root = world.path("source");
    corpus::plain(&root, &mut Random::printed(), 5, 1_000_000);
    world.node_of("one", "n").push(&root);
    let stored = world.wire().status().stored_bytes;

    let report = world.node_of("two", "n").push(&root);

    assert!(number(&report, "bytes_stored") > number(&report, "bytes") * 9 / 10, "{report}");
    assert!(world.wire().status().stored_bytes > stored * 19 / 10);
}

#[test]
fn data_that_compresses_takes_less_room_and_data_that_does_not_takes_hardly_more() {
    let world = World::new();
    let mut random = Random::printed();
    let (text_root, random_root) = (world.dir("text"), world.dir("random"));
    fs::write(text_root.join("log"), random.text(4_000_000)).unwrap();
    fs::write(random_root.join("bin"), random.bytes(4_000_000)).unwrap();
    let node = world.node("n");

    let of_text = number(&node.push(&text_root), "bytes_stored");
    let of_random = number(&node.push(&random_root), "bytes_stored");

    assert!(of_text < 2_000_000, "{of_text}");
    assert!(of_random < 4_040_000, "{of_random}");
}
