//! Files that grew at their end.

use std::os::unix::fs::FileExt;

use format_spec::FileEnd;

use super::outcome::Outcome;
use super::tree::{Tree, noise};
use super::{DIFFERS, MAX_CHUNK, wide};
use crate::push::FreezeMode;
use crate::twin::{Old, with_old};

/// Chunks of one file that are compared beside its last one, at most: the first, and others by chance.
const SAMPLES: usize = 4;

/// Asserts that of `name` only the last chunk, some samples, and what comes behind was read.
fn assert_read_from_the_last_boundary(before: &Outcome, now: &Outcome, name: &str) {
    let (start, len) = before.last_extent(name);
    let least = len + now.file(name).entry.size - start;
    let read = now.stats.bytes_read;
    assert!(
        (least..=least + wide(SAMPLES * MAX_CHUNK)).contains(&read),
        "{read} bytes were read, and {least} had to be"
    );
}

#[test]
fn an_append_is_read_from_the_last_boundary_on_again_and_again() {
    for class in ["auto=*", "append-only=*"] {
        let tree = Tree::new();
        tree.write("log", noise(300_000, 3));
        let mut before = tree.push().class(class).run();
        for (round, len) in (0_u64..).zip([1, 100, 5000, 400_000, 3]) {
            tree.append("log", &noise(len, 10 + round));

            let now = tree.push().class(class).run();

            assert_eq!((now.kinds(), now.fallbacks()), ("1 appended".to_owned(), vec![]), "{class}, {len}");
            now.assert_same(&tree.afresh());
            if class == "auto=*" && round < 2 {
                assert!(now.stats.bytes_read >= now.file("log").entry.size, "trust without a proof");
            } else {
                assert_read_from_the_last_boundary(&before, &now, "log");
            }
            before = now;
        }
        assert_eq!(tree.push().class(class).run().stats.bytes_read, 0);
    }
}

#[test]
fn an_empty_file_and_one_of_less_than_a_chunk_grow_like_others() {
    let tree = Tree::new();
    tree.write("empty", "");
    tree.write("small", noise(10, 1));
    tree.push().run();
    tree.append("empty", &noise(30, 2));
    tree.append("small", &noise(30, 3));

    let now = tree.push().run();

    assert_eq!(now.kinds(), "2 appended");
    now.assert_same(&tree.afresh());
    assert_eq!(now.stats.bytes_read, 30 + 10 + 40, "the old bytes of `small` are compared, then cut anew");
}

/// Data begins and ends with blocks: elsewhere a file system may move the border of a hole later.
#[test]
fn a_sparse_file_grows_by_data_and_by_holes() {
    let tree = Tree::new();
    tree.write("sparse", "");
    tree.set_len("sparse", 4 << 20);
    tree.open("sparse").write_all_at(&noise(1 << 16, 1), 2 << 20).unwrap();
    let mut before = tree.push().run();
    let grow: [(&str, &dyn Fn()); 4] = [
        ("data behind a hole", &|| tree.append("sparse", &noise(1 << 16, 2))),
        ("a hole behind data", &|| tree.set_len("sparse", 8 << 20)),
        ("a longer hole", &|| tree.set_len("sparse", 12 << 20)),
        ("a hole and data", &|| tree.open("sparse").write_all_at(&noise(1 << 16, 3), 16 << 20).unwrap()),
    ];
    for (what, grow) in grow {
        grow();

        let now = tree.push().run();

        assert_eq!((now.kinds(), now.fallbacks()), ("1 appended".to_owned(), vec![]), "{what}");
        now.assert_same(&tree.afresh());
        assert!(now.content("sparse") == tree.read("sparse"), "{what}");
        assert!(now.stats.bytes_read < 200_000, "holes were read: {what}");
        before = now;
    }
    assert!(before.file("sparse").extents.iter().filter(|extent| extent.chunk().is_none()).count() > 1);
}

/// The file system has data in whole blocks: the end of an odd hole is one by then.
#[test]
fn data_behind_a_hole_that_ends_within_a_block_is_found() {
    let tree = Tree::new();
    tree.write("odd", noise(5000, 1));
    tree.set_len("odd", 1_000_001);
    tree.push().run();
    tree.append("odd", b"behind an odd hole");

    let now = tree.push().run();

    now.assert_same(&tree.afresh());
    assert!(now.content("odd") == tree.read("odd"));
}

#[test]
fn a_file_whose_old_end_was_overwritten_is_read_whole_and_that_is_told() {
    let tree = Tree::new();
    tree.write("file", noise(200_000, 1));
    let before = tree.push().run();
    let (last, _) = before.last_extent("file");
    tree.overwrite("file", last, b"!");
    tree.append("file", &noise(1000, 2));

    let now = tree.push().run();

    assert_eq!((now.kinds(), now.fallbacks()), ("1 whole".to_owned(), vec![(DIFFERS, 1)]));
    assert!(now.content("file") == tree.read("file"));
    now.assert_same(&tree.afresh());
    assert_eq!(tree.push().run().kinds(), "1 unchanged");
}

/// Only samples of it are compared; here they cannot miss.
#[test]
fn a_file_whose_older_chunks_were_overwritten_is_read_whole_and_that_is_told() {
    let tree = Tree::new();
    tree.write("file", noise(200_000, 1));
    let before = tree.push().run();
    let (last, _) = before.last_extent("file");
    tree.overwrite("file", 0, &noise(usize::try_from(last).unwrap(), 9));
    tree.append("file", &noise(1000, 2));

    let now = tree.push().run();

    assert_eq!((now.kinds(), now.fallbacks()), ("1 whole".to_owned(), vec![(DIFFERS, 1)]));
    now.assert_same(&tree.afresh());
}

#[test]
fn a_grown_file_of_a_class_that_never_grows_is_read_whole() {
    for class in ["immutable=*", "mutable=*"] {
        let tree = Tree::new();
        tree.write("file", noise(20_000, 1));
        tree.push().class(class).run();
        tree.append("file", b"more");

        let now = tree.push().class(class).run();

        assert_eq!((now.kinds(), now.stats.bytes_read), ("1 whole".to_owned(), 20_004), "{class}");
        assert_eq!(now.fallbacks(), []);
        now.assert_same(&tree.afresh());
    }
}

/// C11: a table that is being written, as a compaction does for hours, is kept as far as it was listed.
#[test]
fn a_file_of_a_class_that_never_grows_which_still_grows_is_kept_as_it_was_listed() {
    let push = || {
        let tree = Tree::new();
        tree.write("table", noise(300_000, 1));
        let grow = |_| tree.append("table", &noise(1000, 2));
        let now = tree.push().class("immutable=*").on_read(grow).run();
        let end = now.file("table").end;
        (now.kinds(), now.problems.len(), matches!(end, Some(FileEnd::Whole(_))))
    };

    assert_eq!(push(), ("1 new".to_owned(), 0, true));
    assert_eq!(with_old(Some(Old::NothingMayGrow), push), ("1 new".to_owned(), 1, false), "the twin");
}

#[test]
fn an_appended_file_that_has_gone_when_its_turn_comes_is_as_it_was_frozen() {
    let tree = Tree::new();
    tree.write("log", noise(100_000, 1));
    tree.push().run();
    tree.append("log", &noise(50_000, 2));
    let expected = tree.read("log");

    let now = tree.push().between(|| tree.remove("log")).run();

    assert_eq!((now.kinds(), now.problems.len()), ("1 appended".to_owned(), 0));
    assert!(now.content("log") == expected);
}

/// A busy log grows again before its turn comes, with or without a freeze.
#[test]
fn an_appended_file_that_grows_on_is_kept_as_it_was_listed() {
    for (class, mode) in [
        ("auto=*", FreezeMode::Hardlink),
        ("append-only=*", FreezeMode::Hardlink),
        ("auto=*", FreezeMode::Off),
        ("append-only=*", FreezeMode::Off),
    ] {
        let tree = Tree::new();
        tree.write("log", noise(300_000, 1));
        tree.push().freeze(mode).run();
        tree.earn_trust("log", mode);
        let before = tree.push().class(class).freeze(mode).run();
        tree.append("log", &noise(5000, 2));
        let listed = tree.read("log");

        let grow = || tree.append("log", &noise(7000, 3));
        let now = tree.push().class(class).freeze(mode).between(grow).run();

        assert_eq!((now.kinds(), now.fallbacks()), ("1 appended".to_owned(), vec![]), "{class}, {mode:?}");
        assert!(now.content("log") == listed, "{class}, {mode:?}");
        let most = 5000 + 2 * before.last_extent("log").1 + wide((2 * SAMPLES + 1) * MAX_CHUNK);
        assert!(now.stats.bytes_read <= most, "{class}, {mode:?}: {} bytes were read", now.stats.bytes_read);
        let next = tree.push().class(class).freeze(mode).run();
        assert_eq!(next.kinds(), "1 appended", "{class}, {mode:?}");
        next.assert_same(&tree.afresh());
    }
}

/// C1: old and new bytes are of one state of the file.
#[test]
fn an_appended_file_that_is_rewritten_before_its_turn_comes_is_read_whole() {
    for mode in [FreezeMode::Off, FreezeMode::Hardlink] {
        let tree = Tree::new();
        tree.write("file", noise(600_000, 1));
        tree.push().freeze(mode).run();
        tree.append("file", &noise(1000, 2));
        let rewrite = || {
            // The end that is still to be read, and a place that samples hardly ever meet.
            tree.overwrite("file", 600_500, b"new end");
            tree.overwrite("file", 300_000, b"new");
        };

        let now = tree.push().freeze(mode).between(rewrite).run();

        assert!(now.content("file") == tree.read("file"), "{mode:?}: a mixture of two states");
        assert_eq!(now.kinds(), "1 whole", "{mode:?}");
    }
}

/// C8: what is written in place and grows, as the files of many databases do, has a head that says how long it is.
#[test]
fn the_head_of_a_file_that_grew_is_always_compared() {
    let tree = Tree::new();
    tree.write("db", noise(2_000_000, 3));
    tree.push().run();
    tree.overwrite("db", 0, b"longer now");
    tree.append("db", &noise(5000, 4));

    let now = tree.push().run();

    assert_eq!((now.kinds(), now.fallbacks()), ("1 whole".to_owned(), vec![(DIFFERS, 1)]));
    now.assert_same(&tree.afresh());
}

/// C8: a file that was once seen to be written in place is read whole when it grew, whatever samples would say.
#[test]
fn a_file_that_is_written_in_place_is_not_taken_for_a_log_again() {
    for seen in ["rewritten", "shorter", "sampled"] {
        let tree = Tree::new();
        tree.write("db", noise(2_000_000, 3));
        tree.push().run();
        match seen {
            "rewritten" => tree.overwrite("db", 7, b"in place"),
            "shorter" => tree.set_len("db", 1_900_000),
            _ => {
                tree.overwrite("db", 0, b"in place");
                tree.append("db", b"and more");
            }
        }
        assert_eq!(tree.push().run().kinds(), "1 whole", "{seen}");
        for round in 0..3 {
            tree.overwrite("db", 1_000_000, &noise(100, round));
            tree.append("db", &noise(5000, round));

            let now = tree.push().run();

            assert_eq!((now.kinds(), now.fallbacks()), ("1 whole".to_owned(), vec![]), "{seen}");
            now.assert_same(&tree.afresh());
        }
        // Another file under the name has no past.
        tree.replace("db", "a new log");
        tree.push().run();
        tree.append("db", b", longer");
        assert_eq!(tree.push().run().kinds(), "1 appended", "{seen}");
    }
}
