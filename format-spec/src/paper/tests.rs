use proptest::prelude::*;

use super::*;

fn sheet(bytes: [u8; 32]) -> String {
    PaperKey::Master(MasterKey::from_bytes(bytes)).to_lines().to_string()
}

fn opened(text: &str) -> Result<[u8; 32], PaperError> {
    PaperKey::parse(text).map(|key| *key.bytes())
}

/// Places of the symbols in a text, with the number of the line of each.
fn symbols(text: &str) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    let mut start = 0;
    for (line, content) in (1..).zip(text.split_inclusive('\n')) {
        let found = content.char_indices().skip(3).filter(|(_, symbol)| !symbol.is_whitespace());
        places.extend(found.map(|(at, _)| (start + at, line)));
        start += content.len();
    }
    places
}

fn with(text: &str, at: usize, symbol: u8) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = symbol;
    String::from_utf8(bytes).unwrap()
}

#[test]
fn every_changed_letter_is_found_and_its_line_named() {
    let text = sheet([0xa7; 32]);
    let places = symbols(&text);
    assert_eq!(places.len(), LINES * SYMBOLS);

    for (at, line) in places {
        for symbol in ALPHABET.iter().filter(|symbol| **symbol != text.as_bytes()[at]) {
            assert_eq!(opened(&with(&text, at, *symbol)), Err(PaperError::Check { line }), "{at} {symbol}");
        }
    }
}

#[test]
fn two_changed_letters_of_a_line_are_found() {
    let text = sheet([0x3c; 32]);
    let places = symbols(&text);
    let first: Vec<usize> = places.iter().filter(|(_, line)| *line == 1).map(|(at, _)| *at).collect();

    for (index, one) in first.iter().enumerate() {
        for other in &first[index + 1..] {
            for first_symbol in ALPHABET.iter().filter(|symbol| **symbol != text.as_bytes()[*one]) {
                let once = with(&text, *one, *first_symbol);
                for symbol in ALPHABET.iter().filter(|symbol| **symbol != text.as_bytes()[*other]) {
                    let twice = with(&once, *other, *symbol);
                    assert_eq!(opened(&twice), Err(PaperError::Check { line: 1 }));
                }
            }
        }
    }
}

#[test]
fn lines_that_changed_places_are_found() {
    let text = sheet([5; 32]);
    let swapped = text.replace("3:", "x:").replace("4:", "3:").replace("x:", "4:");

    assert_eq!(opened(&swapped), Err(PaperError::Check { line: 4 }));
}

#[test]
fn lines_may_come_in_any_order_among_other_words() {
    let text = sheet([5; 32]);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.reverse();

    let typed = format!("Recovery sheet of: mine\n\n{}\nkeep it: in a safe\n", lines.join("\r\n  "));

    assert_eq!(opened(&typed), Ok([5; 32]));
}

#[test]
fn letters_that_look_alike_are_read_as_one() {
    let text = sheet([0; 32]);
    let typed = text.replace('0', "o").replace(' ', " - ").to_lowercase();

    assert_eq!(opened(&typed), Ok([0; 32]));
}

#[test]
fn an_incomplete_sheet_says_what_is_wrong() {
    let text = sheet([9; 32]);
    let lines: Vec<&str> = text.lines().collect();
    let without = |line: usize| {
        lines
            .iter()
            .enumerate()
            .filter(|(index, _)| index + 1 != line)
            .map(|(_, text)| *text)
            .collect::<Vec<_>>()
    };

    assert_eq!(opened(""), Err(PaperError::Missing { line: 1 }));
    for line in 1..=LINES {
        assert_eq!(opened(&without(line).join("\n")), Err(PaperError::Missing { line }));
    }
    assert_eq!(opened(&format!("{text}{}", lines[1])), Err(PaperError::Twice { line: 2 }));
    assert_eq!(opened(&format!("{text}9: 0000")), Err(PaperError::TooMany { line: 9 }));
    assert_eq!(opened(&format!("{text}0: 0000")), Err(PaperError::TooMany { line: 0 }));
    assert_eq!(opened("2: ABC"), Err(PaperError::Length { line: 2, found: 3 }));
    assert_eq!(opened("2: U"), Err(PaperError::Symbol { line: 2, symbol: 'U' }));
}

#[test]
fn lines_of_two_sheets_are_no_key() {
    let (one, two) = (sheet([1; 32]), sheet([2; 32]));
    let mixed: Vec<&str> = one.lines().take(4).chain(two.lines().skip(4)).collect();

    assert_eq!(opened(&mixed.join("\n")), Err(PaperError::Mixed));
}

#[test]
fn the_kind_of_a_key_is_kept() {
    let sheet = PaperKey::Recovery(RecoveryKey::from_bytes([3; 32])).to_lines();

    assert!(matches!(PaperKey::parse(&sheet), Ok(PaperKey::Recovery(_))));
}

#[test]
fn a_key_of_a_newer_sheet_or_another_kind_is_refused() {
    let with_head = |version: u8, kind: u8| {
        let mut payload = Payload([0; 40]);
        payload.0[..2].copy_from_slice(&[version, kind]);
        let check = check_of([version, kind], &[0; 32]);
        payload.0[34..].copy_from_slice(&check);
        payload.key().map(|_| ())
    };

    assert_eq!(with_head(1, 1), Ok(()));
    assert_eq!(with_head(2, 1), Err(PaperError::Version { found: 2 }));
    assert_eq!(with_head(1, 3), Err(PaperError::Kind { found: 3 }));
}

proptest! {
    #[test]
    fn every_key_reads_back(bytes: [u8; 32]) {
        prop_assert_eq!(opened(&sheet(bytes)), Ok(bytes));
    }

    #[test]
    fn a_stranger_s_text_is_refused_without_a_panic(text in "([0-9]{1,2}: ?[0-9A-Za-z -]{0,14}\n?){0,10}|\\PC{0,80}") {
        let _ = PaperKey::parse(&text);
    }
}
