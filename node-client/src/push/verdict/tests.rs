use std::collections::BTreeSet;

use format_spec::{EntryPath, Timestamp};

use super::*;
use crate::identity::Identity;
use crate::push::class::Classes;
use crate::push::class::sets::ClassSet;

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

/// Qualifier in the table for a change beside its sign.
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
