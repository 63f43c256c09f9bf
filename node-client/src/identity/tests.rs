use super::*;

/// C8: growth is taken for appending only after two growths were compared whole, and not for ever.
#[test]
fn trust_is_earned_by_two_growths_and_ends_after_thirty_more() {
    let mut habit = Habit::UNKNOWN;
    let mut trusts = Vec::new();
    for _ in 0..36 {
        trusts.push(habit.trust());
        habit = habit.grown();
    }

    let expected: Vec<Trust> =
        [(2, Trust::NotYet), (30, Trust::Earned), (1, Trust::NotYet), (3, Trust::Earned)]
            .into_iter()
            .flat_map(|(times, trust)| vec![trust; times])
            .collect();
    assert_eq!(trusts, expected);
}

/// C8: one write in place, and growth is never believed again, until another file takes the name.
#[test]
fn a_file_that_was_seen_to_be_written_in_place_is_no_log_any_more() {
    let trusted = Habit::UNKNOWN.grown().grown();
    for change in [Change::Rewritten, Change::Shrunk] {
        let seen = trusted.after(change);

        assert_eq!((seen, seen.grown(), seen.trust()), (Habit::InPlace, Habit::InPlace, Trust::Never));
        assert_eq!(seen.after(Change::Grown), Habit::InPlace);
        assert_eq!(seen.after(Change::Replaced), Habit::UNKNOWN);
    }
    for change in [Change::None, Change::Stamp, Change::Grown] {
        assert_eq!(trusted.after(change), trusted, "{change:?}");
    }
}
