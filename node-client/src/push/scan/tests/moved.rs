//! Files that are known by what they are, under whatever name (C14).

use std::fs;

use super::tree::{Tree, noise};
use super::{MAX_CHUNK, wide};
use crate::push::Alike;
use crate::twin::{Old, with_old};

const LEN: usize = 300_000;
/// Most bytes that samples of one file read: the last chunk and three others.
const SAMPLES: usize = 4 * MAX_CHUNK;

fn tables() -> Tree {
    let tree = Tree::new();
    for n in 0..5 {
        tree.write(&format!("main/t{n}"), noise(LEN, n));
    }
    tree
}

/// Pushes after a change of names, and says what was read.
fn read_after(tree: &Tree, class: &str) -> u64 {
    let now = tree.push().class(class).run();
    now.assert_same(&tree.afresh());
    assert_eq!((now.stats.new, now.stats.whole, now.stats.unchanged), (0, 0, 5), "{class}");
    now.stats.bytes_read
}

#[test]
fn a_moved_folder_costs_samples_or_nothing() {
    for (class, most) in [("auto=*", 5 * SAMPLES), ("immutable=*", 0), ("append-only=*", 0)] {
        let tree = tables();
        tree.push().class(class).run();
        tree.rename("main", "other");

        assert!(read_after(&tree, class) <= wide(most), "{class}");
        let again = tree.push().class(class).run();
        assert_eq!((again.kinds(), again.stats.bytes_read), ("5 unchanged".to_owned(), 0), "{class}");
    }
}

#[test]
fn a_link_that_sorts_first_and_the_removal_of_one_cost_samples_or_nothing() {
    let tree = tables();
    tree.push().class("immutable=*").run();
    fs::create_dir(tree.path("backups")).unwrap();
    for n in 0..5 {
        fs::hard_link(tree.path(&format!("main/t{n}")), tree.path(&format!("backups/t{n}"))).unwrap();
    }

    assert_eq!(read_after(&tree, "immutable=*"), 0, "links that sort first");
    fs::remove_dir_all(tree.path("backups")).unwrap();
    assert_eq!(read_after(&tree, "immutable=*"), 0, "their removal");
}

#[test]
fn a_moved_file_that_grew_or_was_written_to_is_treated_as_under_its_old_name() {
    let tree = tables();
    tree.push().class("append-only=*").run();
    tree.append("main/t0", b"more");
    tree.overwrite("main/t1", 5, b"other");
    tree.rename("main", "other");

    let now = tree.push().class("append-only=*").run();

    now.assert_same(&tree.afresh());
    assert_eq!(now.kinds(), "1 whole, 1 appended, 3 unchanged, 5 gone");
}

/// The file that has a known name now may be another known one: what it is counts.
#[test]
fn two_files_that_swapped_their_names_are_known() {
    let tree = tables();
    tree.push().class("immutable=*").run();
    tree.rename("main/t0", "main/x");
    tree.rename("main/t1", "main/t0");
    tree.rename("main/x", "main/t1");

    assert_eq!(read_after(&tree, "immutable=*"), 0);
}

/// A file that replaced another, and was known under no name, is read.
#[test]
fn a_new_file_under_an_old_name_is_not_taken_for_the_old_one() {
    let tree = tables();
    tree.push().class("immutable=*").run();
    tree.replace("main/t0", noise(LEN, 77));

    let now = tree.push().class("immutable=*").run();

    now.assert_same(&tree.afresh());
    assert_eq!(now.kinds(), "1 whole, 4 unchanged");
}

/// Another inode with the same size and times, as file systems without lasting numbers show it.
#[test]
fn with_other_inodes_files_are_known_by_path_only_if_that_is_asked_for() {
    for (alike, kinds) in
        [(Alike::Exact, "5 whole"), (Alike::IgnoreDevice, "5 whole"), (Alike::IgnoreInode, "5 unchanged")]
    {
        let tree = tables();
        tree.push().alike(alike).run();
        for n in 0..5 {
            let name = format!("main/t{n}");
            let (content, mtime) = (tree.read(&name), tree.mtime(&name));
            tree.replace(&name, content);
            tree.set_mtime(&name, mtime);
        }

        let now = tree.push().alike(alike).run();

        assert_eq!(now.kinds(), kinds, "{alike:?}");
        let most = if alike == Alike::IgnoreInode { 5 * SAMPLES } else { 5 * LEN };
        assert!(now.stats.bytes_read > 0 && now.stats.bytes_read <= wide(most), "{alike:?}");
        now.assert_same(&tree.afresh());
    }
}

/// The sample tells, where only the path says that it is the same file.
#[test]
fn another_file_of_the_same_size_and_time_is_found_by_its_samples() {
    let tree = Tree::new();
    tree.write("f", noise(500, 1));
    tree.push().alike(Alike::IgnoreInode).run();
    let mtime = tree.mtime("f");
    tree.replace("f", noise(500, 2));
    tree.set_mtime("f", mtime);

    let now = tree.push().alike(Alike::IgnoreInode).run();

    assert_eq!(now.kinds(), "1 whole");
    now.assert_same(&tree.afresh());
}

/// The twin: known by path alone, all of a moved folder is read.
#[test]
fn by_path_alone_a_moved_folder_is_read() {
    let tree = tables();
    tree.push().class("immutable=*").run();
    tree.rename("main", "other");

    let now = with_old(Some(Old::PathOnly), || tree.push().class("immutable=*").run());

    assert_eq!((now.stats.new, now.stats.bytes_read), (5, 5 * wide(LEN)));
}
