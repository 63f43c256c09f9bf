use std::collections::BTreeSet;

use super::*;

/// Places in files: hashes of all sizes, and the first chunks of each.
fn places() -> Vec<(u64, u64)> {
    let files = (0..20).map(|file| pick(7, file, u64::MAX)).chain([0, u64::MAX - 3]);
    files.flat_map(|file| (0..50).map(move |index| (file, index))).collect()
}

fn chosen(draw: &Draw) -> Vec<(u64, u64)> {
    places().into_iter().filter(|(file, index)| draw.chooses(*file, *index)).collect()
}

/// C9: everything is compared once in a round.
#[test]
fn one_round_hashes_everything_once_and_nothing_in_its_first_half() {
    for round in [1, 2, 3, 30_u32] {
        let rehash = Rehash::Every(NonZeroU32::new(round).unwrap());
        let (round, free) = (u64::from(round), u64::from(round / 2));
        for first in [0, round, 7 * round] {
            // Random parts of a push have no influence.
            let pushes = (first..first + round).map(|number| chosen(&Draw::new(rehash, number, number * 31)));
            let pushes: Vec<_> = pushes.collect();

            let (quiet, busy) = pushes.split_at(usize::try_from(free).unwrap());

            assert!(quiet.iter().all(Vec::is_empty), "the first half of {round} is not free");
            let mut all = busy.concat();
            all.sort_unstable();
            let mut expected = places();
            expected.sort_unstable();
            assert_eq!(all, expected, "a round of {round}");
            let even = places().len() / busy.len();
            assert!(
                busy.iter().all(|push| push.len().abs_diff(even) <= places().len() / 10),
                "{round}: uneven"
            );
        }
    }
}

#[test]
fn one_large_file_is_spread_over_the_second_half() {
    let rehash = Rehash::Every(NonZeroU32::new(30).unwrap());
    for number in 15..30 {
        let draw = Draw::new(rehash, number, 0);

        let chunks = (0..1500).filter(|index| draw.chooses(0x1234_5678_9abc_def0, *index)).count();

        assert_eq!(chunks, 100, "push {number}");
    }
}

#[test]
fn a_share_is_about_that_much_and_another_one_at_each_push() {
    let chosen = |rehash, number, seed| {
        let draw = Draw::new(rehash, number, seed);
        let places = (0..100).flat_map(|file| (0..500).map(move |index| (pick(7, file, u64::MAX), index)));
        places.filter(|(file, index)| draw.chooses(*file, *index)).collect::<BTreeSet<_>>()
    };
    let fifth = Rehash::Share(0.2);

    let (one, other) = (chosen(fifth, 0, 1), chosen(fifth, 0, 2));

    for share in [&one, &other] {
        assert!((9_500..10_500).contains(&share.len()), "{} of 50,000", share.len());
    }
    let both = one.intersection(&other).count();
    assert!((1_700..2_300).contains(&both), "{both} of 50,000 are in both");
    assert_eq!(chosen(fifth, 9, 1), one, "how many pushes there were has no say");
    assert_eq!(chosen(Rehash::Share(1.0), 0, 1).len(), 50_000);
    assert!(chosen(Rehash::Share(0.0), 0, 1).is_empty());
}

#[test]
fn never_is_never() {
    for number in 0..100 {
        assert!(chosen(&Draw::new(Rehash::Never, number, number)).is_empty());
    }
}

#[test]
fn picks_stay_below_their_bound_and_reach_all_of_it() {
    for bound in [1, 2, 7, 100] {
        let picked: BTreeSet<_> = (0..10_000).map(|n| pick(5, n, bound)).collect();

        assert_eq!(picked, (0..bound).collect(), "below {bound}");
    }
    assert!((0..100).all(|n| pick(5, n, u64::MAX) < u64::MAX));
    assert_eq!(pick(5, 1, 0), 0, "there is nothing to pick");
    assert_eq!(pick(5, 1, 1 << 40), pick(5, 1, 1 << 40));
    assert_ne!(pick(5, 1, 1 << 40), pick(6, 1, 1 << 40));
    assert_ne!(pick(5, 1, 1 << 40), pick(5, 2, 1 << 40));
}
