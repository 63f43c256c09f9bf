//! Content that is hashed again although it seems unchanged.

use std::num::NonZeroU32;

use super::tree::{Tree, noise};
use super::{Deed, wide};
use crate::push::Rehash;

const SIGNLESS: &str = "the content had changed although size and times had not";

fn every(round: u32) -> Rehash {
    Rehash::Every(NonZeroU32::new(round).unwrap())
}

fn fill(tree: &Tree) -> u64 {
    [(0, 1), (10, 2), (5000, 3), (300_000, 4)]
        .map(|(len, seed)| {
            tree.write(&format!("f{len:06}"), noise(len, seed));
            wide(len)
        })
        .iter()
        .sum()
}

#[test]
fn a_share_of_everything_reads_everything_once_and_changes_nothing() {
    let tree = Tree::new();
    let bytes = fill(&tree);
    let first = tree.push().run();

    let again = tree.push().rehash(Rehash::Share(1.0)).run();
    let none = tree.push().rehash(Rehash::Share(0.0)).run();

    assert_eq!((again.kinds(), again.fallbacks()), ("4 unchanged".to_owned(), vec![]));
    assert_eq!((again.stats.bytes_read, again.stats.bytes_hashed), (bytes, bytes));
    assert!(again.fed.is_empty());
    again.assert_same(&first);
    assert_eq!(none.stats.bytes_read, 0);
}

#[test]
fn what_changed_without_a_sign_is_found_and_told() {
    let tree = Tree::new();
    tree.write("table.db", noise(300_000, 1));
    let class = "immutable=*.db";
    let first = tree.push().class(class).run();
    let (last, _) = first.last_extent("table.db");
    tree.overwrite_in_secret("table.db", last, b"!");

    let blind = tree.push().class(class).run();
    let seeing = tree.push().class(class).rehash(Rehash::Share(1.0)).run();

    assert_eq!((blind.kinds(), blind.stats.bytes_read), ("1 unchanged".to_owned(), 0));
    assert!(blind.content("table.db") == noise(300_000, 1));
    assert_eq!((seeing.kinds(), seeing.fallbacks()), ("1 whole".to_owned(), vec![(SIGNLESS, 1)]));
    assert_eq!(seeing.stats.bytes_read, 600_000, "hashed again up to its last chunk, then read");
    seeing.assert_same(&tree.afresh());
    assert_eq!(tree.push().class(class).rehash(Rehash::Share(1.0)).run().kinds(), "1 unchanged");
}

#[test]
fn a_round_reads_each_byte_once_and_its_first_half_is_free() {
    let tree = Tree::new();
    let bytes = fill(&tree);
    // The push that reads everything is the first of the round.
    tree.push().rehash(every(6)).run();

    let read: Vec<u64> = (1..=12).map(|_| tree.push().rehash(every(6)).run().stats.bytes_read).collect();

    assert_eq!(read[..2], [0, 0]);
    assert_eq!(read[2..5].iter().sum::<u64>(), bytes);
    assert!(read[2..5].iter().all(|part| (1..bytes / 2).contains(part)), "an equal share each: {read:?}");
    assert_eq!(read[5..11], [[0; 3].as_slice(), &read[2..5]].concat(), "the next round is as this one");
}

#[test]
fn a_round_finds_a_change_wherever_it_is() {
    let tree = Tree::new();
    let class = "immutable=*";
    tree.write("table", noise(100_000, 1));
    tree.push().class(class).rehash(every(4)).run();
    tree.overwrite_in_secret("table", 33_333, b"!");

    let kinds: Vec<_> = (1..4).map(|_| tree.push().class(class).rehash(every(4)).run().kinds()).collect();

    assert_eq!(kinds.iter().filter(|kinds| *kinds == "1 whole").count(), 1, "{kinds:?}");
    assert_eq!(kinds[0], "1 unchanged");
}

/// Content that was known to be stored is kept in the new snapshot.
#[test]
fn a_file_that_has_changed_before_it_is_hashed_again_is_taken_as_known() {
    let changes: [Deed; 3] = [
        ("deleted", |tree| tree.remove("a")),
        ("replaced", |tree| tree.replace("a", "another file")),
        ("written", |tree| tree.overwrite("a", 0, &noise(20_000, 2))),
    ];
    for (what, change) in changes {
        let tree = Tree::new();
        tree.write("a", noise(20_000, 1));
        let first = tree.push().run();

        let again = tree.push().rehash(Rehash::Share(1.0)).between(|| change(&tree)).run();

        assert_eq!((again.kinds(), again.stats.bytes_read), ("1 unchanged".to_owned(), 0), "{what}");
        assert_eq!(again.fallbacks(), [], "{what}");
        again.assert_same(&first);
    }
}
