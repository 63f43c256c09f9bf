//! Files whose times or inodes say something.

use std::fs;
use std::time::{Duration, SystemTime};

use format_spec::Timestamp;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::tree::{Tree, noise};
use super::{DIFFERS, Deed, MAX_CHUNK, wide};
use crate::push::verdict::doubt::{Few, Purse};
use crate::twin::{Old, with_old};

const TOO_MANY: &str = "only the ctime changed, as for many files: at most samples were compared";

/// Chunks that a check reads of one file at most: its last and three others.
const CHECKED: usize = 4;

/// Each part of the identity counts.
#[test]
fn whatever_changes_of_a_file_it_is_looked_at() {
    let tree = Tree::new();
    for name in ["content", "mode", "replaced", "same", "times"] {
        tree.write(name, "12345");
    }
    tree.push().run();

    tree.overwrite_in_secret("content", 0, b"54321");
    tree.set_mtime("times", SystemTime::UNIX_EPOCH + Duration::from_secs(5));
    tree.chmod("mode", 0o400);
    tree.replace("replaced", "12345");
    tree.write("sane", "a new neighbour");
    let again = tree.push().run();

    assert_eq!(again.content("content"), b"54321");
    assert_eq!(again.kinds(), "1 new, 3 whole, 2 unchanged");
    assert_eq!(again.fallbacks(), [(DIFFERS, 1)], "only `content` hides its change");
    assert_eq!(again.file("times").entry.mtime, Timestamp { seconds: 5, nanos: 0 });
    assert_eq!(again.file("mode").entry.mode, 0o400);
    again.assert_same(&tree.afresh());
}

/// C8: only the ctime tells of it, and it hits no sample.
#[test]
fn a_change_in_the_middle_of_a_large_file_is_seen_though_its_time_was_set_back() {
    let tree = Tree::new();
    tree.write("large", noise(500_000, 1));
    tree.push().run();
    let before = tree.push().run();
    // Behind the samples of any seed there are chunks enough: each of these is none of them at some push.
    for (at, bytes) in [(100_000, b"one"), (250_000, b"two"), (400_000, b"six")] {
        tree.overwrite_in_secret("large", at, bytes);

        let now = tree.push().run();

        assert_eq!((now.kinds(), now.fallbacks()), ("1 whole".to_owned(), vec![(DIFFERS, 1)]), "{at}");
        now.assert_same(&tree.afresh());
        assert_eq!(tree.push().run().stats.bytes_read, 0, "the new content is remembered");
    }
    assert_eq!(before.stats.bytes_read, 0);
}

/// The twin: with samples alone, what they do not meet is taken for the old content.
#[test]
fn samples_alone_miss_a_change_in_the_middle() {
    let tree = Tree::new();
    tree.write("large", noise(500_000, 1));
    tree.push().run();
    tree.overwrite_in_secret("large", 250_000, b"two");

    let now = with_old(Some(Old::StampsAreSampled), || tree.push().run());

    assert_eq!(now.kinds(), "1 unchanged");
    assert!(now.content("large") != tree.read("large"));
}

/// C8: what changes the ctime of all files costs no reading of all files.
#[test]
fn where_all_ctimes_changed_samples_do_and_that_is_told() {
    let tree = Tree::new();
    let names = ["a", "b", "c"];
    names.iter().for_each(|name| drop(tree.write(name, noise(2_500_000, 1))));
    tree.push().run();
    names.iter().for_each(|name| tree.link_and_unlink(name));

    // Enough beyond samples, which count as 1.4 MB, for one of the three.
    let now = tree.push().purse(Purse { few: Few::No, left: 2_000_000, share: 1, sampled: 0 }).run();

    assert_eq!((now.kinds(), now.fallbacks()), ("3 unchanged".to_owned(), vec![(TOO_MANY, 2)]));
    let most = 2_500_000 + 2 * wide(CHECKED * MAX_CHUNK);
    assert!((2_500_000..=most).contains(&now.stats.bytes_read), "{}", now.stats.bytes_read);
    assert_eq!(tree.push().run().stats.bytes_read, 0, "the new identities are remembered");
}

/// A database's own snapshot gives each file a name: some of them are sampled.
#[test]
fn links_of_all_files_cost_samples_or_nothing() {
    let tree = Tree::new();
    let names: Vec<String> = (0..40).map(|n| format!("table-{n}")).collect();
    names.iter().for_each(|name| drop(tree.write(name, noise(100, 1))));
    tree.push().run();
    names.iter().for_each(|name| tree.link(name));

    let all = tree.push().run();
    names.iter().for_each(|name| tree.link(name));
    let some = tree.push().purse(Purse { few: Few::No, left: 0, share: 1, sampled: 4 }).run();

    assert_eq!((all.kinds(), all.stats.bytes_read), ("40 unchanged".to_owned(), 4_000));
    assert_eq!((some.kinds(), some.fallbacks()), ("40 unchanged".to_owned(), vec![]));
    assert!((100..4_000).contains(&some.stats.bytes_read), "{}", some.stats.bytes_read);
}

#[test]
fn another_mode_costs_a_comparison_and_another_link_a_look_at_some_chunks() {
    let changes: [(Deed, u64); 3] = [
        (("chmod", |tree| ["large", "small"].iter().for_each(|name| tree.chmod(name, 0o640))), 500_000),
        (
            ("link and unlink", |tree| ["large", "small"].iter().for_each(|name| tree.link_and_unlink(name))),
            500_000,
        ),
        (("link", |tree| ["large", "small"].iter().for_each(|name| tree.link(name))), 0),
    ];
    for ((what, change), whole) in changes {
        let tree = Tree::new();
        tree.write("large", noise(500_000, 1));
        tree.write("small", noise(60, 2));
        tree.push().run();
        change(&tree);

        let now = tree.push().run();

        assert_eq!((now.kinds(), now.fallbacks()), ("2 unchanged".to_owned(), vec![]), "{what}");
        let last = now.last_extent("large").1;
        let (least, most) =
            if whole > 0 { (60 + whole, 60 + whole) } else { (60 + last, 60 + wide(CHECKED * MAX_CHUNK)) };
        assert!((least..=most).contains(&now.stats.bytes_read), "{what}: {}", now.stats.bytes_read);
        now.assert_same(&tree.afresh());
        assert_eq!(tree.push().run().stats.bytes_read, 0, "the new identity is remembered: {what}");
    }
}

#[test]
fn new_attributes_are_taken_without_the_content() {
    for (class, most) in [("auto=*", 500_000), ("append-only=*", 0), ("immutable=*", 0)] {
        let tree = Tree::new();
        let path = tree.write("file", noise(500_000, 1));
        tree.push().class(class).run();
        match rustix::fs::setxattr(&path, "user.astacus", b"value", XattrFlags::empty()) {
            Err(Errno::NOTSUP) => {}
            set => set.unwrap(),
        }
        tree.chmod("file", 0o600);

        let now = tree.push().class(class).run();

        assert_eq!((now.kinds(), now.fallbacks()), ("1 unchanged".to_owned(), vec![]), "{class}");
        assert!(now.stats.bytes_read <= most, "{class}: {} bytes were read", now.stats.bytes_read);
        assert_eq!(now.file("file").entry.mode, 0o600);
        // With the attribute, where the file system has such.
        now.assert_same(&tree.afresh());
    }
}

#[test]
fn a_mutable_file_is_read_whole_each_time() {
    let tree = Tree::new();
    tree.write("store.db", noise(50_000, 1));
    tree.write("other", noise(50_000, 2));
    tree.push().class("mutable=*.db").run();

    let unchanged = tree.push().class("mutable=*.db").run();
    tree.chmod("store.db", 0o600);
    let stamped = tree.push().class("mutable=*.db").run();

    for now in [unchanged, stamped] {
        assert_eq!((now.kinds(), now.stats.bytes_read), ("1 whole, 1 unchanged".to_owned(), 50_000));
        assert_eq!(now.fallbacks(), []);
    }
}

#[test]
fn a_file_that_was_written_in_place_or_cut_or_replaced_is_read_whole() {
    let changes: [Deed; 3] = [
        ("same size, other mtime", |tree| tree.overwrite("file", 7, b"other")),
        ("shrunk", |tree| tree.set_len("file", 30_000)),
        ("replaced", |tree| tree.replace("file", noise(50_000, 2))),
    ];
    for class in ["auto=*", "append-only=*", "immutable=*", "mutable=*"] {
        for (what, change) in changes {
            let tree = Tree::new();
            tree.write("file", noise(50_000, 1));
            tree.push().class(class).run();
            change(&tree);

            let now = tree.push().class(class).run();

            let size = fs::metadata(tree.path("file")).unwrap().len();
            assert_eq!((now.kinds(), now.stats.bytes_read), ("1 whole".to_owned(), size), "{class}: {what}");
            assert_eq!(now.fallbacks(), []);
            assert!(now.content("file") == tree.read("file"), "{class}: {what}");
            now.assert_same(&tree.afresh());
        }
    }
}

/// Only samples of a large file are compared, but always its last chunk.
#[test]
fn a_large_file_whose_end_was_written_in_secret_is_read_whole() {
    let tree = Tree::new();
    tree.write("large", noise(500_000, 1));
    let before = tree.push().run();
    tree.overwrite_in_secret("large", before.last_extent("large").0, b"!");

    let now = tree.push().run();

    assert_eq!((now.kinds(), now.fallbacks()), ("1 whole".to_owned(), vec![(DIFFERS, 1)]));
    now.assert_same(&tree.afresh());
}

#[test]
fn a_small_file_that_was_written_in_secret_is_seen_and_its_new_content_stays() {
    let tree = Tree::new();
    tree.write("small", noise(60, 1));
    tree.push().run();
    tree.overwrite_in_secret("small", 30, b"secret");

    let now = tree.push().run();

    assert_eq!((now.kinds(), now.fallbacks()), ("1 whole".to_owned(), vec![(DIFFERS, 1)]));
    now.assert_same(&tree.afresh());
    assert_eq!(tree.push().run().kinds(), "1 unchanged");
}
