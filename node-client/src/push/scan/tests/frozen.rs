//! Files that are not what they were when their turn comes.

use std::fs;
use std::os::unix::fs::symlink;

use format_spec::FileEnd;

use super::tree::{Tree, domain, noise};
use super::{CUT, MOVED_ON, wide};
use crate::push::{ClassSet, FreezeMode};

/// Names that [`upset`] changes: each name says how.
const NAMES: [&str; 8] =
    ["a-gone", "b-folder", "c-link", "d-pipe", "e-kept", "f-replaced", "g-grown", "h/gone-with-its-folder"];

fn content_of(name: &str) -> Vec<u8> {
    noise(30_000, domain().link_group(name.as_bytes()))
}

fn fill(tree: &Tree) {
    NAMES.iter().for_each(|name| drop(tree.write(name, content_of(name))));
}

fn upset(tree: &Tree) {
    for name in ["a-gone", "b-folder", "c-link", "d-pipe"] {
        tree.remove(name);
    }
    fs::create_dir(tree.path("b-folder")).unwrap();
    symlink("e-kept", tree.path("c-link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, tree.path("d-pipe"), rustix::fs::Mode::RUSR).unwrap();
    tree.replace("f-replaced", "another file");
    tree.append("g-grown", b"more");
    fs::remove_dir_all(tree.path("h")).unwrap();
}

/// C1: whatever happens to a name after the freeze, its content is what it was then.
#[test]
fn a_frozen_file_is_as_it_was_whatever_becomes_of_its_name() {
    for class in ["auto=*", "append-only=*", "immutable=*", "mutable=*", "logged=*"] {
        let tree = Tree::new();
        fill(&tree);

        let outcome = tree.push().class(class).between(|| upset(&tree)).run();

        assert_eq!(outcome.names(), NAMES, "{class}");
        // Where more than appending may happen, the old length of a new state would be no state.
        let is_log = ["append-only=*", "immutable=*"].contains(&class);
        let more: &[u8] = if is_log { b"" } else { b"more" };
        for name in NAMES {
            let more = if name == "g-grown" { more } else { b"" };
            let content = [&content_of(name), more].concat();
            assert!(outcome.is_whole(name) && outcome.content(name) == content, "{class}: {name}");
        }
        assert_eq!((outcome.problems.len(), outcome.kinds()), (0, "8 new".to_owned()));
        let bytes = 8 * 30_000 + wide(more.len());
        let moved_on = if is_log { vec![] } else { vec![(MOVED_ON, 1)] };
        assert_eq!((outcome.fallbacks(), outcome.stats.bytes_read), (moved_on, bytes), "{class}");
        assert!(tree.is_clean());
    }
}

/// C1: a compaction that ended after the freeze has not ended in the snapshot, where its new table is not whole.
#[test]
fn the_log_of_a_compaction_is_as_old_as_its_tables() {
    let tree = Tree::new();
    for (name, content) in
        [("nb_txn_compaction_1.log", "ADD"), ("nb-2-big-Data.db", "half"), ("nb-1-big-Data.db", "old")]
    {
        tree.write(name, content);
    }

    let outcome = tree
        .push()
        .class_set(ClassSet::Cassandra)
        .between(|| {
            tree.append("nb-2-big-Data.db", b" and half");
            tree.append("nb_txn_compaction_1.log", b" COMMIT");
            tree.remove("nb-1-big-Data.db");
        })
        .run();

    let content = |name| String::from_utf8(outcome.content(name)).unwrap();
    assert_eq!(outcome.problems.len(), 0);
    assert_eq!(
        ["nb_txn_compaction_1.log", "nb-2-big-Data.db", "nb-1-big-Data.db"].map(content),
        ["ADD", "half", "old"]
    );
}

#[test]
fn what_happened_after_the_freeze_is_for_the_next_push() {
    let tree = Tree::new();
    fill(&tree);
    tree.push().between(|| upset(&tree)).run();

    let next = tree.push().run();

    assert_eq!(next.names(), ["e-kept", "f-replaced", "g-grown"]);
    assert_eq!(next.kinds(), "1 whole, 2 unchanged, 5 gone");
    next.assert_same(&tree.afresh());
    assert_eq!(tree.push().run().kinds(), "3 unchanged");
}

/// C1: a file that vanished is a problem of the snapshot.
#[test]
fn without_a_freeze_what_goes_away_is_a_problem() {
    let tree = Tree::new();
    fill(&tree);

    let outcome = tree.push().freeze(FreezeMode::Off).between(|| upset(&tree)).run();

    assert_eq!(outcome.names(), NAMES);
    for name in ["a-gone", "b-folder", "c-link", "d-pipe", "h/gone-with-its-folder"] {
        assert_eq!(outcome.file(name).end, Some(FileEnd::Unreadable), "{name}");
    }
    assert_eq!(outcome.content("f-replaced"), b"another file");
    assert_eq!(outcome.content("g-grown"), [content_of("g-grown"), b"more".to_vec()].concat());
    let problems: Vec<_> = outcome.problems.iter().map(|problem| &*problem.0).collect();
    assert_eq!(problems, ["a-gone", "b-folder", "c-link", "d-pipe", "h/gone-with-its-folder"]);
    assert_eq!(outcome.problems[0].1, "vanished");
    assert_eq!(outcome.kinds(), "3 new");
}

/// Writes in place are what a hard link does not protect from.
#[test]
fn a_file_that_is_written_in_place_after_the_freeze_is_one_later_state_of_itself() {
    let tree = Tree::new();
    tree.write("file", noise(30_000, 1));

    let outcome = tree.push().between(|| tree.overwrite("file", 0, &noise(20_000, 2))).run();

    assert!(outcome.is_whole("file") && outcome.content("file") == tree.read("file"));
    assert_eq!(outcome.problems, []);
    outcome.assert_same(&tree.afresh());
}

#[test]
fn a_copy_that_shares_blocks_is_safe_from_writes_in_place_where_the_file_system_can() {
    let tree = Tree::new();
    let old = noise(30_000, 1);
    tree.write("file", &old);

    let rewrite = || tree.overwrite("file", 0, &noise(20_000, 2));
    let outcome = tree.push().freeze(FreezeMode::Reflink).between(rewrite).run();

    match outcome.fallbacks()[..] {
        [] => assert!(outcome.content("file") == old),
        [(moved_on, 1), (why, 1)] => {
            assert_eq!(moved_on, MOVED_ON);
            assert_eq!(why, "protected by a hard link: the file system has no reflinks");
            assert!(outcome.content("file") == tree.read("file"));
        }
        ref more => panic!("{more:?}"),
    }
    let again = tree.push().freeze(FreezeMode::Reflink).run();
    again.assert_same(&tree.afresh());
    assert_eq!(tree.push().freeze(FreezeMode::Reflink).run().stats.bytes_read, 0);
}

/// C1: a file that shrank is a problem. What is left of it is kept.
#[test]
fn a_frozen_file_that_was_cut_is_kept_as_far_as_it_is_there_and_reported() {
    let cuts: [(&str, u64); 2] = [("to a part", 10), ("to nothing", 0)];
    for (what, len) in cuts {
        let tree = Tree::new();
        tree.write("a", noise(20_000, 1));
        tree.write("file", noise(100_000, 2));
        tree.write("sparse", noise(5000, 3));
        tree.set_len("sparse", 1 << 20);
        let cut = || ["file", "sparse"].iter().for_each(|name| tree.set_len(name, len));

        let outcome = tree.push().between(cut).run();

        for name in ["file", "sparse"] {
            assert!(outcome.is_whole(name) && outcome.content(name) == tree.read(name), "{what}");
        }
        assert_eq!(
            outcome.problems,
            [("file".to_owned(), CUT.to_owned()), ("sparse".to_owned(), CUT.to_owned())]
        );
        assert_eq!((outcome.kinds(), outcome.fallbacks()), ("3 new".to_owned(), vec![(MOVED_ON, 2)]));
        let next = tree.push().run();
        assert_eq!((next.kinds(), next.problems.len()), ("3 unchanged".to_owned(), 0), "{what}");
        next.assert_same(&tree.afresh());
    }
}

#[test]
fn a_known_file_that_was_cut_after_the_freeze_is_reported_too() {
    let tree = Tree::new();
    tree.write("file", noise(100_000, 2));
    tree.push().run();
    tree.append("file", b"more");

    let outcome = tree.push().between(|| tree.set_len("file", 50_000)).run();

    assert!(outcome.content("file") == noise(100_000, 2)[..50_000]);
    assert_eq!((outcome.problems.len(), outcome.kinds()), (1, "1 whole".to_owned()));
    let next = tree.push().run();
    assert_eq!(next.kinds(), "1 unchanged");
    next.assert_same(&tree.afresh());
}

/// C12: a segment that is used again under another name is not what its old name stood for.
#[test]
fn a_file_that_was_given_another_name_and_written_to_is_not_stored_under_the_old_one() {
    for class in ["auto=*", "mutable=*", "logged=*"] {
        let tree = Tree::new();
        tree.write("segment-1", noise(50_000, 1));
        let recycle = || {
            tree.rename("segment-1", "segment-9");
            tree.overwrite("segment-9", 0, &noise(50_000, 2));
        };

        let outcome = tree.push().class(class).between(recycle).run();

        assert_eq!(outcome.file("segment-1").end, Some(FileEnd::Unreadable), "{class}");
        assert_eq!(outcome.problems.len(), 1, "{class}");
        assert!(outcome.problems[0].1.contains("was renamed"), "{class}");
    }
}

/// A table that is dropped is cut to nothing and then deleted; its owner's log knows.
#[test]
fn a_logged_file_that_was_dropped_is_empty_and_no_problem() {
    let tree = Tree::new();
    tree.write("table", noise(50_000, 1));
    let drop = || {
        tree.set_len("table", 0);
        tree.remove("table");
    };

    let outcome = tree.push().class("logged=*").between(drop).run();

    assert_eq!((outcome.problems.len(), outcome.content("table")), (0, vec![]));
}

#[test]
fn when_the_first_name_of_an_inode_is_unreadable_the_next_takes_over() {
    let tree = Tree::new();
    let path = tree.write("a", noise(100_000, 9));
    fs::hard_link(&path, tree.path("b")).unwrap();
    fs::hard_link(&path, tree.path("c")).unwrap();
    let recycle = || {
        tree.overwrite("a", 0, &noise(100_000, 8));
        tree.remove("a");
    };

    let outcome = tree.push().between(recycle).run();

    assert_eq!(outcome.file("a").end, Some(FileEnd::Unreadable));
    assert!(outcome.is_whole("b"));
    assert!(outcome.content("b") == noise(100_000, 8));
    let group = outcome.other("c").link_group;
    assert_eq!(group, outcome.file("b").entry.link_group);
    assert_ne!(group, outcome.file("a").entry.link_group);
    assert_eq!((outcome.totals.problems, outcome.totals.bytes), (1, 100_000));
    // No content of it is saved as good.
    assert!(tree.push().run().content("b") == noise(100_000, 8));
}

/// C12: with `--strict` a file that is not of the moment of the freeze is a problem.
#[test]
fn a_file_that_moved_on_is_counted_and_with_strict_a_problem() {
    for strict in [false, true] {
        let tree = Tree::new();
        tree.write("file", noise(30_000, 1));
        let push = if strict { tree.push().strict() } else { tree.push() };

        let outcome = push.between(|| tree.overwrite("file", 0, &noise(20_000, 2))).run();

        assert_eq!(outcome.stats.moment.unwrap().moved_on, 1);
        assert_eq!(outcome.problems.len(), usize::from(strict));
        assert!(outcome.is_whole("file") && outcome.content("file") == tree.read("file"));
    }
}

/// C4: whoever makes a folder look like second names hides nothing with it.
#[test]
fn second_names_of_another_user_are_passed_over_and_told_of() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let tree = Tree::new();
    let names = ["d/.astacus", "e/.astacus", "f/other"];
    for name in names {
        tree.write(&format!("{name}/astacus-freeze"), "");
        tree.write(&format!("{name}/0123456789abcdef-0/hidden"), "data");
    }
    for name in &names[1..] {
        std::os::unix::fs::chown(tree.path(name), Some(12_345), None).unwrap();
    }

    let pushed = tree.push().run();

    assert_eq!(pushed.fallbacks(), [("skipped: temporary hard links of another user's push", 1)]);
    assert_eq!(pushed.content("f/other/0123456789abcdef-0/hidden"), b"data");
    assert_eq!(pushed.kinds(), "2 new", "the mark, and what was hidden beside it");
}
