use std::collections::BTreeSet;

use format_spec::{EntryPath, Timestamp};

use super::*;
use crate::push::class::Classes;
use crate::push::sets::ClassSet;

const DOCUMENT: &str = include_str!("../../../../docs/change-detection.md");

const CHANGES: [(Change, &str); 7] = [
    (Change::None, "same"),
    (Change::Stamp, "ctime"),
    (Change::Named, "names"),
    (Change::Grown, "longer"),
    (Change::Rewritten, "rewritten"),
    (Change::Shrunk, "shorter"),
    (Change::Replaced, "replaced"),
];
const SETTLED: [Settled; 2] = [Settled::Yes, Settled::No];
const TRUST: [Trust; 3] = [Trust::NotYet, Trust::Earned, Trust::Never];

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Reuse => "reuse",
        Verdict::Check => "check",
        Verdict::Compare => "compare",
        Verdict::Append => "append",
        Verdict::Prove => "prove",
        Verdict::Whole => "whole",
    }
}

/// The table of a document that starts with the column `first`: its rows, each with its cells.
fn table<'a>(document: &'a str, first: &str) -> Vec<Vec<&'a str>> {
    let cells = |line: &'a str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let lines = document.lines().map(cells).skip_while(|cells| cells.first() != Some(&first));
    let rows: Vec<_> = lines.take_while(|cells| cells.len() > 1).collect();
    assert!(rows.len() > 2, "the document has no table of `{first}`");
    rows.into_iter().enumerate().filter(|(number, _)| *number != 1).map(|(_, row)| row).collect()
}

fn unquoted(text: &str) -> &str {
    text.trim_matches('`')
}

/// What a row of the table says of a change beside its sign.
fn qualifier(rows: &[Vec<&str>], sign: &str, settled: Settled, trust: Trust) -> &'static str {
    let is_split = |by: &str| rows.iter().any(|row| row[0] == format!("`{sign}`, {by}"));
    match (settled, trust) {
        (Settled::No, _) if is_split("unsettled") => ", unsettled",
        (_, Trust::Earned) if is_split("trusted") => ", trusted",
        (_, Trust::Never) if is_split("written in place") => ", written in place",
        _ => "",
    }
}

/// Where the document says something else than the code, or nothing, or something twice.
fn contradictions(document: &str) -> Vec<String> {
    let rows = table(document, "shows as");
    let (head, rows) = rows.split_first().unwrap();
    let mut found = Vec::new();
    for (change, sign) in CHANGES {
        for (settled, trust) in SETTLED.into_iter().flat_map(|settled| TRUST.map(|trust| (settled, trust))) {
            let shown = format!("`{sign}`{}", qualifier(rows, sign, settled, trust));
            let rows: Vec<_> = rows.iter().filter(|row| row[0] == shown).collect();
            for class in Class::ALL {
                let expected = name(verdict(class, change, settled, trust));
                let column = head.iter().position(|title| unquoted(title) == class.name());
                let said: Vec<_> =
                    rows.iter().map(|row| row[column.expect("a column for each class")]).collect();
                if said != [expected] {
                    found.push(format!("{shown}, {settled:?}, {trust:?}, {class}: {said:?}, not {expected}"));
                }
            }
        }
    }
    if rows.len() != CHANGES.len() + 5 {
        found.push(format!("{} rows", rows.len()));
    }
    found
}

/// C8: in which states content is used again is what the operators' table says.
#[test]
fn the_document_says_what_the_code_does() {
    let found = contradictions(DOCUMENT);

    assert!(found.is_empty(), "{found:#?}");
}

/// The twin of the one above.
#[test]
fn a_cell_of_the_document_that_is_wrong_is_found_wherever_it_is() {
    let rows: Vec<_> =
        DOCUMENT.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 8).collect();
    assert_eq!(rows.len(), 12);
    for row in rows {
        let cells: Vec<_> = row.split(" | ").collect();
        for cell in 2..7 {
            for wrong in ["reuse", "check", "compare", "append", "prove", "whole", ""] {
                let mut changed = cells.clone();
                let end = if cell == 6 { " |" } else { "" };
                let wrong = format!("{wrong}{end}");
                if changed[cell] == wrong {
                    continue;
                }
                changed[cell] = &wrong;
                let document = DOCUMENT.replace(row, &changed.join(" | "));

                let found = contradictions(&document);

                assert!(!found.is_empty(), "{changed:?}");
            }
        }
        assert!(!contradictions(&DOCUMENT.replace(&format!("{row}\n"), "")).is_empty(), "without {row}");
        assert!(!contradictions(&DOCUMENT.replace(row, &format!("{row}\n{row}"))).is_empty(), "twice {row}");
    }
}

#[test]
fn the_document_gives_each_name_of_a_set_its_class() {
    let rows = table(DOCUMENT, "set");
    let mut sets = BTreeSet::new();
    for row in &rows[1..] {
        let set: ClassSet = unquoted(row[0]).parse().unwrap();
        let classes = Classes::new(&[], &[set]).unwrap();
        sets.insert(set.name());
        for glob in row[2].split(", ").map(unquoted) {
            let path = format!("data/{}", glob.replace("**", "var/lib").replace('*', "7"));

            let class = classes.of(&EntryPath::new(path.clone().into_bytes()).unwrap());

            assert_eq!(class.name(), unquoted(row[1]), "{path}");
        }
    }
    assert_eq!(sets.len(), ClassSet::ALL.len());
    let classes: Vec<_> = table(DOCUMENT, "class")[1..].iter().map(|row| unquoted(row[0])).collect();
    assert_eq!(classes, Class::ALL.map(Class::name));
}

fn time(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 500 }
}

const fn base() -> Identity {
    let time = Timestamp { seconds: 100, nanos: 500 };
    Identity { dev: 1, ino: 2, btime: time, size: 10, mtime: time, ctime: time }
}

/// C8: another inode under the same name is another file.
#[test]
fn what_became_of_a_file_is_told_by_its_identity() {
    let cases = [
        (base(), Change::None),
        (Identity { ctime: time(101), ..base() }, Change::Stamp),
        (Identity { ctime: time(99), ..base() }, Change::Stamp),
        (Identity { mtime: time(101), ..base() }, Change::Rewritten),
        (Identity { mtime: time(99), ctime: time(101), ..base() }, Change::Rewritten),
        (Identity { mtime: Timestamp { nanos: 501, ..base().mtime }, ..base() }, Change::Rewritten),
        (Identity { size: 11, ..base() }, Change::Grown),
        (Identity { size: 11, mtime: time(101), ctime: time(101), ..base() }, Change::Grown),
        (Identity { size: 9, ..base() }, Change::Shrunk),
        (Identity { size: 0, mtime: time(101), ctime: time(101), ..base() }, Change::Shrunk),
        (Identity { ino: 3, ..base() }, Change::Replaced),
        (Identity { dev: 3, ..base() }, Change::Replaced),
        (Identity { btime: time(101), ..base() }, Change::Replaced),
        (Identity { ino: 3, size: 11, mtime: time(101), ..base() }, Change::Replaced),
    ];
    for (now, expected) in cases {
        assert_eq!(Change::between(&base(), &now), expected, "{now:?}");
    }
}

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
            // Whatever is random about a push has no say.
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
