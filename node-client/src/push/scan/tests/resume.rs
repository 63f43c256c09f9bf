//! Pushes that came to no end, chunks that the server has lost, and what the next push makes of both.

use std::fs;

use format_spec::Extent;

use super::outcome::Outcome;
use super::push::End;
use super::tree::{Tree, noise};
use super::{At, Deed, MAX_CHUNK, wide};
use crate::push::FreezeMode;

/// Long enough for several pages.
const BIG: usize = 1_600_000;

/// A few small files around a big one.
fn tree() -> Tree {
    let tree = Tree::new();
    tree.write("a", noise(20_000, 1));
    tree.write("big", noise(BIG, 2));
    tree.write("c", noise(30_000, 3));
    tree
}

/// Bytes of the chunks that are in `outcome` and that the server lacks.
fn lost(tree: &Tree, outcome: &Outcome) -> u64 {
    let extents = outcome.files.iter().flat_map(|file| &file.extents);
    extents.filter(|extent| extent.chunk().is_some_and(|id| tree.lacks(&id))).map(Extent::covered).sum()
}

fn covered(outcome: &Outcome) -> u64 {
    outcome.files.iter().flat_map(|file| &file.extents).map(Extent::covered).sum()
}

/// C5: what was on finished pages is neither read nor sent again.
#[test]
fn a_push_goes_on_where_the_one_before_was_cut_even_within_a_file() {
    for end in [End::Killed, End::Failed] {
        for mode in [FreezeMode::Hardlink, FreezeMode::Off] {
            let tree = tree();
            let cut = tree.push().freeze(mode).cut_after(1_200_000).end(end).unwrap();
            assert_eq!(cut.names(), ["a", "big"], "{end:?}");
            assert_eq!(cut.file("big").end, None, "{end:?}: it was cut within the file");
            let (covered, lost) = (covered(&cut), lost(&tree, &cut));
            assert!(covered > 500_000);

            let next = tree.push().freeze(mode).run();

            assert_eq!(
                (next.kinds(), next.fallbacks()),
                ("1 new, 2 resumed".to_owned(), vec![]),
                "{end:?}, {mode:?}"
            );
            assert_eq!(next.stats.bytes_read, next.totals.bytes - covered + lost, "{end:?}, {mode:?}");
            next.assert_same(&tree.afresh());
            assert!(tree.is_clean());
            let third = tree.push().freeze(mode).run();
            assert_eq!(
                (third.kinds(), third.stats.bytes_read),
                ("3 unchanged".to_owned(), 0),
                "{end:?}, {mode:?}"
            );
            assert!(tree.states("journal").is_empty() && tree.states("new").is_empty());
        }
    }
}

#[test]
fn a_killed_push_leaves_its_second_names_to_the_next() {
    let tree = tree();
    tree.push().cut_after(1_200_000).end(End::Killed).unwrap();
    assert_eq!(["a", "big", "c"].map(|name| tree.links(name)), [2; 3]);
    let before = tree.identity("a");
    let look = || {
        assert_eq!(tree.identity("a"), before);
        assert_eq!(tree.second_names(), 3);
    };

    let next = tree.push().between(look).run();

    assert_eq!(next.kinds(), "1 new, 2 resumed");
    assert_eq!(next.file("a").entry.link_group, None, "our name is none of its links");
    assert!(tree.is_clean());
    assert_eq!(["a", "big", "c"].map(|name| tree.links(name)), [1; 3]);
}

#[test]
fn what_was_pushed_before_and_what_was_cut_short_are_both_remembered() {
    let tree = tree();
    tree.push().run();
    tree.overwrite("big", 0, &noise(BIG, 9));
    tree.write("d", noise(10_000, 4));

    tree.push().cut_after(1_200_000).end(End::Failed).unwrap();
    let next = tree.push().run();

    assert_eq!(next.kinds(), "1 new, 2 unchanged, 1 resumed");
    assert!(next.stats.bytes_read < wide(BIG));
    next.assert_same(&tree.afresh());
}

/// The server may lose every chunk of a push that did not commit.
#[test]
fn nothing_of_a_failed_push_but_its_pages_needs_to_survive() {
    let tree = tree();
    let cut = tree.push().cut_after(1_200_000).end(End::Failed).unwrap();
    let ids: Vec<_> = cut.fed.clone();
    tree.lose(&ids);

    let next = tree.push().run();

    assert_eq!(next.kinds(), "1 new, 2 resumed");
    assert_eq!(next.stats.bytes_read, next.totals.bytes, "each byte is read once, and no more");
    next.assert_same(&tree.afresh());
}

/// A kill may come in the midst of a write.
#[test]
fn wherever_a_journal_ends_the_next_push_takes_what_is_whole_and_reads_the_rest() {
    let tree = tree();
    let all = tree.push().freeze(FreezeMode::Off).end(End::Killed).unwrap();
    let path = tree.states("new").remove(0);
    let journal = fs::read(&path).unwrap();
    let mut read = Vec::new();
    for tenths in 0..=10 {
        tree.states("state").iter().for_each(|state| fs::remove_file(state).unwrap());
        fs::write(&path, &journal[..journal.len() * tenths / 10]).unwrap();

        let next = tree.push().freeze(FreezeMode::Off).run();

        assert_eq!(next.pages, all.pages, "{tenths}");
        read.push(next.stats.bytes_read);
    }
    assert!(read.is_sorted_by(|less, more| less >= more), "{read:?}");
    assert_eq!((read[0], read[10]), (all.totals.bytes, 0));
}

/// A journal may end within a file that the last push knows whole, though it did not change.
#[test]
fn what_the_last_push_knows_whole_is_not_read_for_the_sake_of_a_journal() {
    let tree = tree();
    tree.push().run();
    tree.push().end(End::Killed).unwrap();
    let journal = fs::File::options().write(true).open(&tree.states("new")[0]).unwrap();
    journal.set_len(journal.metadata().unwrap().len() / 2).unwrap();
    drop(journal);

    let next = tree.push().run();

    assert_eq!((next.kinds(), next.stats.bytes_read), ("3 unchanged".to_owned(), 0));
}

/// The journal may be sure of a file although the last push was not.
#[test]
fn a_file_that_was_read_again_for_sure_before_a_cut_is_not_read_once_more() {
    for mode in [FreezeMode::Hardlink, FreezeMode::Off] {
        let tree = Tree::new();
        tree.write("a", noise(20_000, 1));
        let now = At(tree.identity("a").mtime);
        tree.push().freeze(mode).at(now).run();

        let second = tree.push().freeze(mode).end(End::Failed).unwrap();
        let third = tree.push().freeze(mode).run();

        assert_eq!(
            (second.kinds(), third.kinds()),
            ("1 whole".to_owned(), "1 resumed".to_owned()),
            "{mode:?}"
        );
        assert_eq!(third.stats.bytes_read, 0, "{mode:?}");
    }
}

#[test]
fn the_second_names_of_a_killed_push_keep_what_it_had_frozen() {
    let tree = tree();
    tree.push().cut_after(1_200_000).end(End::Killed).unwrap();

    let next = tree.push().between(|| tree.replace("big", "another")).run();

    assert_eq!((next.kinds(), next.problems.len()), ("1 new, 2 resumed".to_owned(), 0));
    assert!(next.content("big") == noise(BIG, 2));
    assert_eq!(tree.push().run().content("big"), b"another");
}

#[test]
fn a_file_that_grew_after_a_push_that_failed_at_its_end_is_read_from_its_last_boundary() {
    for end in [End::Killed, End::Failed] {
        let tree = tree();
        let all = tree.push().class("append-only=*").end(end).unwrap();
        tree.append("big", &noise(5000, 5));

        let next = tree.push().class("append-only=*").run();

        assert_eq!(next.kinds(), "1 appended, 2 resumed", "{end:?}");
        let most = 5000 + 2 * all.last_extent("big").1 + 4 * wide(MAX_CHUNK);
        assert!(next.stats.bytes_read <= most, "{end:?}");
        next.assert_same(&tree.afresh());
    }
}

#[test]
fn a_push_that_failed_at_its_end_is_taken_over_whole() {
    for end in [End::Killed, End::Failed] {
        let tree = tree();
        let all = tree.push().end(end).unwrap();
        assert_eq!(all.names(), ["a", "big", "c"]);

        let next = tree.push().run();

        assert_eq!((next.kinds(), next.stats.bytes_read), ("3 resumed".to_owned(), 0), "{end:?}");
        assert_eq!(next.pages, all.pages);
        assert!(next.fed.is_empty());
    }
}

/// A later push that was cut earlier does not take away what the first had.
#[test]
fn after_two_cuts_the_longer_journal_counts() {
    for end in [End::Killed, End::Failed] {
        let tree = tree();
        let first = tree.push().cut_after(1_200_000).end(end).unwrap();
        let (covered, lost) = (covered(&first), lost(&tree, &first));
        let second = tree.push();
        let cancel = second.cancel.clone();

        let second = second.between(|| cancel.cancel()).end(end).unwrap();
        let third = tree.push().run();

        assert_eq!(second.pages, [], "{end:?}");
        assert_eq!(third.kinds(), "1 new, 2 resumed", "{end:?}");
        assert_eq!(third.stats.bytes_read, third.totals.bytes - covered + lost, "{end:?}");
        third.assert_same(&tree.afresh());
    }
}

#[test]
fn exactly_the_chunks_that_the_server_lacks_are_fed_again() {
    for end in [End::Committed, End::Failed] {
        for mode in [FreezeMode::Hardlink, FreezeMode::Off] {
            let tree = tree();
            let before = tree.push().freeze(mode).end(end).unwrap();
            let extents: Vec<_> = before.files.iter().flat_map(|file| &file.extents).step_by(7).collect();
            let mut ids: Vec<_> = extents.iter().filter_map(|extent| extent.chunk()).collect();
            tree.lose(&ids);

            let next = tree.push().freeze(mode).run();

            let kind = if end == End::Committed { "3 unchanged" } else { "3 resumed" };
            assert_eq!((next.kinds(), next.fallbacks()), (kind.to_owned(), vec![]), "{mode:?}");
            let bytes = extents.iter().map(|extent| extent.covered()).sum::<u64>();
            assert_eq!(next.stats.bytes_read, bytes, "{end:?}, {mode:?}");
            let mut fed = next.fed.clone();
            fed.sort_unstable();
            ids.sort_unstable();
            assert!(fed == ids, "{end:?}, {mode:?}");
            assert_eq!(next.pages, before.pages);
        }
    }
}

#[test]
fn a_file_that_is_not_what_the_lost_chunk_was_is_read_whole() {
    let class = "immutable=*";
    let tree = Tree::new();
    tree.write("file", noise(100_000, 1));
    let before = tree.push().class(class).run();
    let (last, _) = before.last_extent("file");
    tree.overwrite_in_secret("file", last, b"!");
    tree.lose(&[before.file("file").extents.last().unwrap().chunk().unwrap()]);

    let next = tree.push().class(class).run();

    assert_eq!(next.kinds(), "1 whole");
    assert!(next.content("file") == tree.read("file"));
    next.assert_same(&tree.afresh());
}

#[test]
fn a_file_that_changes_before_its_lost_chunk_is_read_again_is_read_whole() {
    for mode in [FreezeMode::Hardlink, FreezeMode::Off] {
        let tree = Tree::new();
        tree.write("file", noise(100_000, 1));
        let before = tree.push().freeze(mode).run();
        tree.lose(&[before.file("file").extents[0].chunk().unwrap()]);

        let rewrite = || tree.overwrite("file", 0, &noise(100_000, 2));
        let next = tree.push().freeze(mode).between(rewrite).run();

        assert_eq!((next.kinds(), next.problems.len()), ("1 whole".to_owned(), 0), "{mode:?}");
        assert!(next.content("file") == noise(100_000, 2), "{mode:?}");
        next.assert_same(&tree.afresh());
    }
}

#[test]
fn lost_chunks_of_a_file_that_grew_are_fed_again_too() {
    let tree = Tree::new();
    tree.write("log", noise(100_000, 1));
    let before = tree.push().run();
    let ids: Vec<_> = before.file("log").extents.iter().filter_map(Extent::chunk).collect();
    tree.lose(&ids);
    tree.append("log", &noise(5000, 2));

    let next = tree.push().run();

    assert_eq!((next.kinds(), next.fallbacks()), ("1 appended".to_owned(), vec![]));
    next.assert_same(&tree.afresh());
}

#[test]
fn a_cut_file_that_changed_meanwhile_is_read_whole() {
    for end in [End::Killed, End::Failed] {
        let changes: [Deed; 3] = [
            ("written", |tree| tree.overwrite("big", 0, b"written")),
            ("replaced", |tree| tree.replace("big", noise(BIG, 8))),
            ("shrunk", |tree| tree.set_len("big", 1_599_999)),
        ];
        for (what, change) in changes {
            let tree = tree();
            tree.push().cut_after(1_200_000).end(end).unwrap();
            change(&tree);

            let next = tree.push().run();

            assert_eq!(next.kinds(), "1 new, 1 whole, 1 resumed", "{what}, {end:?}");
            assert!(next.content("big") == tree.read("big"), "{what}, {end:?}");
            next.assert_same(&tree.afresh());
            assert_eq!(tree.push().run().kinds(), "3 unchanged", "{what}, {end:?}");
        }
    }
}

#[test]
fn a_cut_file_that_grew_meanwhile_goes_on_and_takes_the_new_end_along() {
    for end in [End::Killed, End::Failed] {
        let tree = tree();
        let push = || tree.push().class("append-only=*");
        let cut = push().cut_after(1_200_000).end(end).unwrap();
        tree.append("big", &noise(50_000, 5));

        let next = push().run();

        assert_eq!(next.kinds(), "1 new, 2 resumed", "{end:?}");
        assert!(next.stats.bytes_read < next.totals.bytes - covered(&cut) / 2, "{end:?}");
        next.assert_same(&tree.afresh());
    }
}

#[test]
fn a_cut_file_that_is_gone_is_not_in_the_next_snapshot() {
    let tree = tree();
    tree.push().cut_after(1_200_000).end(End::Killed).unwrap();
    tree.remove("big");

    let next = tree.push().run();

    assert_eq!((next.names(), next.kinds()), (vec!["a", "c"], "1 new, 1 resumed".to_owned()));
    assert!(tree.is_clean());
    assert_eq!(tree.push().run().kinds(), "2 unchanged");
}

#[test]
fn files_that_just_changed_are_read_again_after_a_cut() {
    let tree = Tree::new();
    tree.write("a", noise(20_000, 1));
    let now = At(tree.identity("a").mtime);

    tree.push().at(now).end(End::Failed).unwrap();
    let next = tree.push().run();

    assert_eq!((next.kinds(), next.stats.bytes_read), ("1 whole".to_owned(), 20_000));
}
