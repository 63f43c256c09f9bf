//! Files that change while they are read.

use std::sync::Once;

use format_spec::FileEnd;

use super::tree::{Tree, noise};
use super::{CUT, Deed, MAX_CHUNK, MOVED_ON, wide};
use crate::push::FreezeMode;

const AGAIN: &str = "changed while it was read: read again";
/// More than one read takes.
const LEN: usize = 1_000_000;

/// Does something once, when so many bytes were read.
fn once_at(bytes: u64, change: impl Fn() + Send + Sync) -> impl Fn(u64) + Send + Sync {
    let once = Once::new();
    move |read| {
        if read >= bytes {
            once.call_once(&change);
        }
    }
}

#[test]
fn a_file_that_is_written_once_while_it_is_read_is_read_again() {
    for mode in [FreezeMode::Hardlink, FreezeMode::Off] {
        let tree = Tree::new();
        tree.write("file", noise(LEN, 1));
        let write = once_at(1, || tree.overwrite("file", 0, b"written meanwhile"));

        let outcome = tree.push().freeze(mode).on_read(write).run();

        assert!(outcome.content("file") == tree.read("file"), "{mode:?}");
        assert_eq!(
            (outcome.kinds(), outcome.fallbacks()),
            ("1 new".to_owned(), vec![(MOVED_ON, 1), (AGAIN, 1)]),
            "{mode:?}"
        );
        assert_eq!((outcome.stats.bytes_read, outcome.problems.len()), (2 * wide(LEN), 0));
        outcome.assert_same(&tree.afresh());
        assert_eq!(tree.push().freeze(mode).run().kinds(), "1 unchanged");
    }
}

/// C1, D2: what is never one state of itself is kept, marked, and a problem unless its owner's log repairs it.
#[test]
fn a_file_that_is_written_each_time_it_is_read_is_kept_and_marked() {
    for (class, mode) in [
        ("auto=*", FreezeMode::Hardlink),
        ("mutable=*", FreezeMode::Off),
        ("logged=*", FreezeMode::Hardlink),
        ("logged=*", FreezeMode::Off),
    ] {
        let is_logged = class == "logged=*";
        let tree = Tree::new();
        tree.write("busy", noise(LEN, 1));
        tree.write("calm", noise(1000, 2));
        let write = |read| {
            if read <= 3 * wide(LEN) {
                tree.overwrite("busy", 0, b"written meanwhile");
            }
        };

        let outcome = tree.push().class(class).freeze(mode).on_read(write).run();

        let (moment, end) = (outcome.stats.moment.unwrap(), outcome.file("busy").end.unwrap());
        assert_eq!(matches!(end, FileEnd::Fuzzy(_)), is_logged, "{class}, {mode:?}: {end:?}");
        assert_eq!(matches!(end, FileEnd::Torn(_)), !is_logged, "{class}, {mode:?}: {end:?}");
        assert_eq!((moment.fuzzy, moment.torn), (u64::from(is_logged), u64::from(!is_logged)));
        assert!(outcome.content("busy")[100..] == noise(LEN, 1)[100..], "{class}, {mode:?}");
        let names: Vec<_> = outcome.problems.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, if is_logged { vec![] } else { vec!["busy"] }, "{class}, {mode:?}");
        assert!(outcome.fallbacks().contains(&(AGAIN, 2)), "{:?}", outcome.fallbacks());
        assert_eq!((outcome.kinds(), outcome.stats.bytes_read), ("2 new".to_owned(), 3 * wide(LEN) + 1000));
        let next = tree.push().freeze(mode).run();
        assert_eq!(next.kinds(), "1 whole, 1 unchanged");
        next.assert_same(&tree.afresh());
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_is_kept_as_it_was() {
    for (class, mode) in [
        ("auto=*", FreezeMode::Hardlink),
        ("append-only=*", FreezeMode::Hardlink),
        ("auto=*", FreezeMode::Off),
        ("append-only=*", FreezeMode::Off),
    ] {
        let tree = Tree::new();
        tree.write("log", noise(LEN, 1));
        let grow = once_at(1, || tree.append("log", &noise(9000, 2)));

        let outcome = tree.push().class(class).freeze(mode).on_read(grow).run();

        assert!(outcome.content("log") == noise(LEN, 1), "{class}, {mode:?}");
        assert_eq!((outcome.problems.len(), outcome.fallbacks()), (0, vec![]));
        // Before trust is earned, all of it is compared.
        let samples = if class.starts_with("auto") { wide(LEN + MAX_CHUNK) } else { 0 };
        assert!((wide(LEN)..=wide(LEN) + samples).contains(&outcome.stats.bytes_read), "{class}, {mode:?}");
        let next = tree.push().class(class).freeze(mode).run();
        assert_eq!(next.kinds(), "1 appended", "{class}, {mode:?}");
        next.assert_same(&tree.afresh());
    }
}

#[test]
fn a_file_that_grows_and_is_rewritten_while_it_is_read_is_read_again() {
    for mode in [FreezeMode::Hardlink, FreezeMode::Off] {
        let tree = Tree::new();
        tree.write("file", noise(LEN, 1));
        let write = once_at(wide(LEN), || {
            tree.overwrite("file", 0, &noise(LEN, 3));
            tree.append("file", b"more");
        });

        let outcome = tree.push().freeze(mode).on_read(write).run();

        let size = usize::try_from(outcome.file("file").entry.size).unwrap();
        assert!(outcome.content("file") == tree.read("file")[..size], "{mode:?}");
        let expected = (vec![(MOVED_ON, 1), (AGAIN, 1)], 0);
        assert_eq!((outcome.fallbacks(), outcome.problems.len()), expected, "{mode:?}");
        let next = tree.push().freeze(mode).run();
        next.assert_same(&tree.afresh());
    }
}

/// C1: a file that shrank is a problem.
#[test]
fn a_frozen_file_that_is_cut_while_it_is_read_is_kept_as_far_as_it_is_there_and_reported() {
    for at in [1, wide(LEN)] {
        let tree = Tree::new();
        tree.write("file", noise(LEN, 1));
        let cut = once_at(at, || tree.set_len("file", 10));

        let outcome = tree.push().on_read(cut).run();

        assert!(outcome.is_whole("file") && outcome.content("file") == noise(10, 1), "cut after {at}");
        let [(_, why)] = &outcome.problems[..] else { panic!("{:?}", outcome.problems) };
        assert_eq!(why, CUT);
        let next = tree.push().run();
        assert_eq!((next.kinds(), next.content("file")), ("1 unchanged".to_owned(), noise(10, 1)));
    }
}

#[test]
fn without_a_freeze_a_file_that_is_cut_while_it_is_read_is_read_again() {
    let tree = Tree::new();
    tree.write("file", noise(LEN, 1));
    let cut = once_at(1, || tree.set_len("file", 10));

    let outcome = tree.push().freeze(FreezeMode::Off).on_read(cut).run();

    assert_eq!((outcome.content("file"), outcome.problems.len()), (noise(10, 1), 0));
    assert_eq!(outcome.fallbacks(), [(MOVED_ON, 1), (AGAIN, 1)]);
}

/// Databases delete and link files at any time: that is no change of their content.
#[test]
fn a_file_that_loses_or_gets_a_name_while_it_is_read_is_whole() {
    let changes: [Deed; 3] = [
        ("deleted", |tree| tree.remove("file")),
        ("replaced", |tree| tree.replace("file", "another")),
        ("linked", |tree| tree.link_and_unlink("file")),
    ];
    for (what, change) in changes {
        for class in ["auto=*", "append-only=*", "immutable=*", "mutable=*"] {
            for mode in [FreezeMode::Hardlink, FreezeMode::Off] {
                let tree = Tree::new();
                tree.write("file", noise(LEN, 1));
                let change = once_at(1, || change(&tree));

                let outcome = tree.push().class(class).freeze(mode).on_read(change).run();

                assert_eq!(outcome.problems, [], "{what}, {class}, {mode:?}");
                assert!(outcome.content("file") == noise(LEN, 1), "{what}, {class}, {mode:?}");
                assert_eq!(outcome.fallbacks(), [], "{what}, {class}, {mode:?}");
            }
        }
    }
}

/// The same for the end of one that grew.
#[test]
fn an_appended_file_that_is_deleted_while_its_end_is_read_is_whole() {
    let tree = Tree::new();
    tree.write("log", noise(20_000, 1));
    tree.push().run();
    tree.append("log", &noise(LEN, 2));
    let expected = tree.read("log");
    let delete = once_at(300_000, || tree.remove("log"));

    let outcome = tree.push().on_read(delete).run();

    assert_eq!((outcome.kinds(), outcome.problems.len()), ("1 appended".to_owned(), 0));
    assert!(outcome.content("log") == expected);
}

#[test]
fn an_appended_file_that_is_rewritten_while_its_end_is_read_is_read_whole() {
    for mode in [FreezeMode::Hardlink, FreezeMode::Off] {
        let tree = Tree::new();
        tree.write("file", noise(20_000, 1));
        tree.push().freeze(mode).run();
        tree.append("file", &noise(LEN, 2));
        let write = once_at(300_000, || tree.overwrite("file", 5, b"written meanwhile"));

        let outcome = tree.push().freeze(mode).on_read(write).run();

        assert_eq!((outcome.kinds(), outcome.problems.len()), ("1 whole".to_owned(), 0), "{mode:?}");
        assert!(outcome.content("file") == tree.read("file"), "{mode:?}");
    }
}
