//! Result of a push of a tree, and no change by a push of an unchanged tree.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::sync::{Mutex, Once};

use format_spec::manifest::Totals;
use format_spec::{EntryKind, Extent, Timestamp};

use super::At;
use super::histories::{How, Mapper};
use super::push::End;
use super::tree::{Tree, noise};
use crate::identity::{Identity, Settled};
use crate::push::FreezeMode;
use crate::push::scan::{settled, ticked};
use crate::push::stop::Failure;
use crate::twin::{Old, with_old};

/// A moment so many milliseconds after `time`.
fn after(time: Timestamp, ms: u32) -> At {
    let nanos = time.nanos + ms % 1000 * 1_000_000;
    let seconds = time.seconds + i64::from(ms / 1000) + i64::from(nanos / 1_000_000_000);
    At(Timestamp { seconds, nanos: nanos % 1_000_000_000 })
}

#[test]
fn a_file_is_settled_some_ticks_after_its_last_change_as_fine_as_its_times_are() {
    let at = |seconds, nanos| Timestamp { seconds, nanos };

    assert_eq!(ticked(at(10, 5), at(10, 100_000_005)), Settled::Yes);
    assert_eq!(ticked(at(10, 5), at(10, 100_000_004)), Settled::No);
    assert_eq!(ticked(at(10, 0), at(12, 0)), Settled::Yes);
    assert_eq!(ticked(at(10, 0), at(11, 999_999_999)), Settled::No);
    assert_eq!(ticked(at(10, 5), at(9, 0)), Settled::No);
    assert_eq!(ticked(at(i64::MAX, 0), at(12, 0)), Settled::No);
}

/// A store through a memory map shows only once the page was written out, and a write that began after the freeze may
/// be under way for as long as it likes.
#[test]
fn a_file_is_settled_a_minute_after_it_was_written_to_and_never_if_that_was_after_the_freeze() {
    let at = |seconds| Timestamp { seconds, nanos: 5 };
    let of = |written, frozen, now| settled(written, written, at(frozen), at(now));

    assert_eq!(of(at(100), 160, 161), Settled::Yes);
    assert_eq!(of(at(100), 159, 200), Settled::No);
    assert_eq!(with_old(Some(Old::TickOnly), || of(at(100), 159, 200)), Settled::Yes, "the twin");
    assert_eq!(of(at(100), 99, 9_999), Settled::No, "written to after the freeze, and read long after");
    assert_eq!(of(at(500), 99, 100), Settled::Yes, "a time that has not come was set: a write gives another");
    assert_eq!(settled(at(100), at(1), at(100), at(101)), Settled::No, "the last change is too fresh");
}

/// C1, C8: one long write gives its file a time when it begins, and none while it goes on; so do stores into pages that
/// are dirty. A push that meets the middle of one stores half of it, and the next push reads the file again.
#[test]
fn a_write_that_is_under_way_while_its_file_is_read_is_whole_in_the_next_push() {
    let pushes = |old| {
        let tree = Tree::new();
        let (before, written) = (noise(40_000, 1), noise(40_000, 2));
        tree.write("file", &before);
        let half = written.len() / 2;
        let mapper = Mutex::new(Mapper::start());
        let store =
            |at: usize, bytes: &[u8]| mapper.lock().unwrap().put(How::Store, &tree.path("file"), at, bytes);
        let begin = || {
            tree.overwrite("file", 0, &written[..1]);
            store(0, &written[..half]);
            store(half, &before[half..]);
        };
        let go_on = Once::new();
        let on_read = |_| go_on.call_once(|| store(half, &written[half..]));
        // The files of other tests are older than a minute to them; this one was written to a moment ago.
        let soon = after(tree.identity("file").ctime, 30_000);

        let first = with_old(old, || tree.push().at(soon).between(begin).on_read(on_read).run());
        let second = with_old(old, || tree.push().run());

        assert_eq!(tree.read("file"), written);
        let met = first.content("file") == [&written[..half], &before[half..]].concat();
        (met, second.kinds(), second.content("file") == written)
    };

    let (met, kinds, is_whole) = pushes(None);
    assert_eq!((kinds.as_str(), is_whole), ("1 whole", true));
    // A page that the kernel wrote out in between makes the store visible, and the file is read again at once.
    if met {
        assert_eq!(pushes(Some(Old::TickOnly)), (true, "1 unchanged".to_owned(), false), "the twin");
    }
}

/// C1: what is pushed for a file is all of its bytes.
#[test]
fn content_is_fed_byte_for_byte_and_counted() {
    let tree = Tree::new();
    let contents: Vec<(String, Vec<u8>)> = [0, 1, 255, 5000, 200_000, 700_001]
        .iter()
        .map(|len| (format!("f{len:06}"), noise(*len, 5)))
        .collect();
    for (name, content) in &contents {
        tree.write(name, content);
    }
    symlink("f000001", tree.path("link")).unwrap();

    let outcome = tree.push().run();

    for (name, content) in &contents {
        assert!(outcome.content(name) == *content && outcome.is_whole(name), "{name}");
    }
    let bytes: u64 = outcome.files.iter().map(|file| file.entry.size).sum();
    let expected = Totals { files: 6, folders: 1, symlinks: 1, bytes, problems: 0, skipped: 0 };
    assert_eq!(outcome.totals, expected);
    assert_eq!((outcome.stats.bytes_read, outcome.stats.bytes_hashed), (bytes, bytes));
    assert_eq!((outcome.kinds(), outcome.fallbacks()), ("6 new".to_owned(), vec![]));
}

#[test]
fn holes_stay_holes_and_data_keeps_its_place() {
    let tree = Tree::new();
    tree.write("sparse", "");
    tree.set_len("sparse", 40 << 20);
    tree.open("sparse").write_all_at(&noise(100_000, 1), 8 << 20).unwrap();
    tree.open("sparse").write_all_at(b"end", (40 << 20) - 3).unwrap();
    tree.write("hole", "");
    tree.set_len("hole", 1 << 20);

    let outcome = tree.push().run();

    assert!(outcome.content("sparse") == tree.read("sparse"));
    assert_eq!(outcome.file("sparse").extents[0], Extent::Hole { len: 8 << 20 });
    assert!(outcome.stats.bytes_read < 1 << 20, "holes were read");
    assert_eq!(outcome.file("hole").extents, [Extent::Hole { len: 1 << 20 }]);
    assert_eq!(tree.push().run().kinds(), "2 unchanged");
}

#[test]
fn names_of_one_inode_share_a_group_and_its_content_comes_once() {
    let tree = Tree::new();
    let first = tree.write("a", "content");
    tree.write("b", "content");
    fs::create_dir(tree.path("sub")).unwrap();
    fs::hard_link(&first, tree.path("sub/z")).unwrap();

    let outcome = tree.push().run();

    let group = outcome.file("a").entry.link_group;
    assert!(group.is_some());
    let link = outcome.other("sub/z");
    assert_eq!((link.kind, link.link_group, link.size), (EntryKind::HardLink, group, 0));
    assert_eq!(outcome.file("b").entry.link_group, None);
    assert_eq!((outcome.totals.files, outcome.totals.bytes, outcome.stats.new), (3, 14, 2));
}

/// C4: a push leaves the files that it reads with the names that they had.
#[test]
fn an_unchanged_tree_is_not_read_and_gives_the_same_pages_round_after_round() {
    let tree = Tree::new();
    tree.write("a/big", noise(300_000, 3));
    let linked = tree.write("a/linked", "x");
    fs::hard_link(linked, tree.path("z")).unwrap();
    tree.write("empty", "");
    let first = tree.push().run();
    assert!(tree.is_clean());
    assert_eq!((tree.links("a/big"), tree.links("z")), (1, 2));

    for round in 0..3 {
        let again = tree.push().run();

        assert_eq!((again.kinds(), again.stats.bytes_read), ("3 unchanged".to_owned(), 0), "round {round}");
        again.assert_same(&first);
        assert!(again.fed.is_empty() && again.fallbacks().is_empty());
        assert!(tree.is_clean());
    }
}

#[test]
fn names_of_one_inode_are_frozen_as_one_and_only_when_they_are_read() {
    let tree = Tree::new();
    let first = tree.write("a", noise(50_000, 1));
    fs::hard_link(&first, tree.path("b")).unwrap();
    let seen = Mutex::new(Vec::new());
    let look = || seen.lock().unwrap().push((tree.second_names(), tree.links("a")));

    tree.push().between(look).run();
    let before = tree.identity("a");
    let again = tree.push().between(look).run();

    assert_eq!(*seen.lock().unwrap(), [(1, 3), (0, 2)]);
    assert_eq!((again.kinds(), again.stats.bytes_read), ("1 unchanged".to_owned(), 0));
    assert_eq!(tree.identity("a"), before, "nothing of the file was touched");
}

#[test]
fn in_mode_off_nothing_gets_a_second_name() {
    let tree = Tree::new();
    tree.write("a", "a");
    let before = tree.identity("a");
    let look = || assert_eq!((tree.second_names(), tree.links("a"), tree.is_clean()), (0, 1, true));

    tree.push().freeze(FreezeMode::Off).between(look).run();

    assert_eq!(tree.identity("a"), before);
    assert_eq!(tree.push().freeze(FreezeMode::Off).run().kinds(), "1 unchanged");
}

#[test]
fn every_kind_of_file_is_counted_as_what_it_is() {
    let tree = Tree::new();
    for (name, seed) in
        [("gone-1", 1), ("gone-2", 2), ("grown", 3), ("rewritten", 4), ("same-1", 5), ("same-2", 6)]
    {
        tree.write(name, noise(20_000, seed));
    }
    tree.write("folder/gone-3", "3");
    assert_eq!(tree.push().run().kinds(), "7 new");

    tree.remove("gone-1");
    tree.remove("gone-2");
    fs::remove_dir_all(tree.path("folder")).unwrap();
    tree.append("grown", b"more");
    tree.overwrite("rewritten", 5, b"other");
    tree.write("young", noise(10, 7));
    let again = tree.push().run();

    assert_eq!(again.kinds(), "1 new, 1 whole, 1 appended, 2 unchanged, 3 gone");
    assert_eq!(again.fallbacks(), []);
    again.assert_same(&tree.afresh());
    assert_eq!(tree.push().run().kinds(), "5 unchanged");
}

/// A file that was written to in the moment of the freeze may be written to again with the same times.
#[test]
fn a_file_that_just_changed_is_read_again_next_time() {
    let changed =
        |identity: Identity, mode| if mode == FreezeMode::Off { identity.ctime } else { identity.mtime };
    for mode in [FreezeMode::Hardlink, FreezeMode::Off] {
        let tree = Tree::new();
        tree.write("fresh", "1");
        let changed = changed(tree.identity("fresh"), mode);

        tree.push().freeze(mode).at(after(changed, 50)).run();
        let second = tree.push().freeze(mode).at(after(changed, 61_000)).run();
        let third = tree.push().freeze(mode).at(after(changed, 61_000)).run();

        assert_eq!(
            (second.kinds(), third.kinds()),
            ("1 whole".to_owned(), "1 unchanged".to_owned()),
            "{mode:?}"
        );
    }
}

#[test]
fn an_end_that_was_just_written_is_not_relied_on_though_the_start_is() {
    for mode in [FreezeMode::Hardlink, FreezeMode::Off] {
        let tree = Tree::new();
        tree.write("log", noise(20_000, 1));
        tree.push().freeze(mode).run();
        tree.append("log", b"more");
        let now = tree.identity("log").ctime;

        let second = tree.push().freeze(mode).at(after(now, 50)).run();
        let third = tree.push().freeze(mode).at(after(now, 61_000)).run();

        assert_eq!(
            (second.kinds(), third.kinds()),
            ("1 appended".to_owned(), "1 whole".to_owned()),
            "{mode:?}"
        );
    }
}

#[test]
fn a_start_that_was_not_settled_when_it_was_read_is_not_relied_on_though_the_end_is() {
    let tree = Tree::new();
    tree.write("log", noise(20_000, 1));
    tree.push().at(after(tree.identity("log").mtime, 50)).run();
    tree.append("log", b"more");

    let second = tree.push().run();
    let third = tree.push().run();
    let fourth = tree.push().run();

    let kinds = [second, third, fourth].map(|outcome| outcome.kinds());
    assert_eq!(kinds, ["1 appended", "1 whole", "1 unchanged"]);
}

#[test]
fn what_someone_has_under_our_name_is_data() {
    let tree = Tree::new();
    tree.write(".astacus/mine", "not second names");
    tree.write("a", noise(5000, 1));

    let outcome = tree.push().run();
    let again = tree.push().run();

    assert_eq!(outcome.names(), [".astacus/mine", "a"]);
    assert_eq!(outcome.content(".astacus/mine"), b"not second names");
    assert_eq!(outcome.fallbacks(), []);
    assert_eq!((again.kinds(), again.fallbacks()), ("2 unchanged".to_owned(), vec![]));
}

#[test]
fn a_damaged_state_is_told_apart_from_other_failures() {
    let tree = Tree::new();
    tree.write("a", "a");
    tree.push().run();
    let state = tree.states("state").remove(0);
    let file = fs::File::options().write(true).open(&state).unwrap();
    let len = file.metadata().unwrap().len();
    file.write_all_at(b"!", len - 80).unwrap();

    let result = tree.push().end(End::Committed);

    assert!(matches!(result, Err(Failure::Damaged)));
    assert!(tree.is_clean());
}
