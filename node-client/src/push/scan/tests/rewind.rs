//! A file that does not work out leaves nothing on the pages, however many it has filled.

use super::tree::{Tree, noise};
use super::wide;
use crate::push::FreezeMode;

/// Long enough for several pages.
const BIG: usize = 3_000_000;

/// A big file amid many small ones.
fn tree() -> Tree {
    let tree = Tree::new();
    tree.write("m-big", noise(BIG, 1));
    for n in 0..300 {
        let side = if n % 2 == 0 { "a" } else { "z" };
        tree.write(&format!("{side}{n:03}"), noise(n, wide(n) + 10));
    }
    tree
}

#[test]
fn a_file_that_fails_late_leaves_the_pages_as_if_it_had_failed_at_once() {
    let tree = tree();
    let before = tree.mtime("m-big");
    let cut = || {
        tree.set_len("m-big", 10);
        tree.set_mtime("m-big", before);
    };
    let at_once = tree.push().afresh().between(cut).run();
    tree.overwrite("m-big", 0, &noise(BIG, 1));
    tree.set_mtime("m-big", before);

    let once = std::sync::Once::new();
    let late = |read| {
        if read > wide(BIG) * 9 / 10 {
            once.call_once(cut);
        }
    };
    let late = tree.push().on_read(late).run();

    assert!(late.stats.bytes_read > wide(BIG) * 9 / 10);
    assert_eq!(late.content("m-big").len(), 10);
    late.assert_same(&at_once);
    // Each file has its own saved state.
    let next = tree.push().run();
    assert_eq!((next.kinds(), next.stats.bytes_read), ("301 unchanged".to_owned(), 0));
    next.assert_same(&tree.afresh());
}

#[test]
fn a_file_that_is_read_twice_is_on_the_pages_once() {
    for mode in [FreezeMode::Hardlink, FreezeMode::Off] {
        let tree = tree();
        let written = std::sync::Once::new();
        let late = |read| {
            if read > wide(BIG) * 9 / 10 {
                written.call_once(|| tree.overwrite("m-big", 0, b"written meanwhile"));
            }
        };

        let outcome = tree.push().freeze(mode).on_read(late).run();

        assert!(outcome.pages.len() > 3 && outcome.stats.bytes_read > 2 * wide(BIG), "{mode:?}");
        outcome.assert_same(&tree.afresh());
        let next = tree.push().freeze(mode).run();
        assert_eq!((next.kinds(), next.stats.bytes_read), ("301 unchanged".to_owned(), 0), "{mode:?}");
    }
}

#[test]
fn memory_of_a_file_that_proves_wrong_at_its_end_leaves_no_trace() {
    let tree = tree();
    let before = tree.push().run();
    let (last, _) = before.last_extent("m-big");
    tree.overwrite("m-big", last, b"!");
    tree.append("m-big", b"more");

    let now = tree.push().run();

    assert_eq!(now.kinds(), "1 whole, 300 unchanged");
    assert_eq!(now.fallbacks().len(), 1);
    now.assert_same(&tree.afresh());
    assert_eq!(tree.push().run().kinds(), "301 unchanged");
}

/// The twin of the others: pages do differ where a file does.
#[test]
fn a_chunk_more_is_seen_on_the_pages() {
    let tree = tree();
    let before = tree.push().run();
    tree.append("m-big", &noise(5000, 2));

    let now = tree.push().run();

    assert!(before.pages.len() > 3);
    assert_ne!(now.pages, before.pages);
}
