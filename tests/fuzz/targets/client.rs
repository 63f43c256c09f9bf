//! Input of a client: its configuration, its command line, and its own files.

use format_spec::EntryPath;
use node_client::config::Settings;
use node_client::fuzz;
use node_client::named::SnapshotChoice;
use node_client::priority::Nice;
use node_client::push::{ClassRule, ClassSet};
use node_client::rate::Rate;

use super::server::hostile_toml;
use super::{Seed, Verdict, seed, text};

/// A configuration: what is taken is safe where it goes.
///
/// # Panics
/// If not.
pub fn config(bytes: &[u8]) -> Verdict {
    let Some(Ok(settings)) = text(bytes).map(toml::from_str::<Settings>) else { return Verdict::Refused };
    let names = [settings.cluster.map(String::from), settings.node.map(String::from)];
    for name in names.into_iter().flatten() {
        let path = EntryPath::new(name.into_bytes()).expect("a name is a harmless path");
        assert_eq!(path.components().count(), 1);
    }
    Verdict::Accepted
}

/// A rate or a nice value: what is shown is the same number.
///
/// # Panics
/// If not.
pub fn number_text(bytes: &[u8]) -> Verdict {
    let Some(text) = text(bytes) else { return Verdict::Refused };
    let rate = text.parse::<Rate>();
    if let Ok(rate) = &rate {
        assert!(rate.bytes_per_second().get() > 0 && text.starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(rate.to_string().parse().as_ref(), Ok(rate), "{text} is shown as another rate");
    }
    let nice = text.parse::<Nice>();
    if let Ok(nice) = &nice {
        let value: i32 = nice.to_string().parse().expect("it is shown as a number");
        assert!((1..=19).contains(&value), "{text} raises the priority");
    }
    Verdict::of(rate.is_ok() || nice.is_ok())
}

/// A class for a pattern, or a set of them: it says what it was made of.
///
/// # Panics
/// If not.
pub fn class_rule(bytes: &[u8]) -> Verdict {
    let Some(text) = text(bytes) else { return Verdict::Refused };
    let rule = text.parse::<ClassRule>();
    if let Ok(rule) = &rule {
        assert!(!rule.glob.is_empty());
        assert_eq!(format!("{}={}", rule.class, rule.glob), text, "a rule has two texts");
    }
    let set = text.parse::<ClassSet>();
    if let Ok(set) = &set {
        assert_eq!(set.to_string(), text, "a set has two texts");
    }
    Verdict::of(rule.is_ok() || set.is_ok())
}

/// Which snapshot: the latest, or one by its id.
///
/// # Panics
/// If an id is taken for another.
pub fn snapshot_choice(bytes: &[u8]) -> Verdict {
    let Some(Ok(choice)) = text(bytes).map(str::parse::<SnapshotChoice>) else { return Verdict::Refused };
    match choice {
        SnapshotChoice::Latest => assert_eq!(bytes, b"latest"),
        SnapshotChoice::Id(id) => assert_eq!(id.to_string().parse(), Ok(SnapshotChoice::Id(id))),
        SnapshotChoice::Part(part) => {
            assert_eq!(Some(part.clone()), text(bytes).map(str::to_ascii_lowercase));
            assert_eq!(part.parse(), Ok(SnapshotChoice::Part(part)));
        }
    }
    Verdict::Accepted
}

/// Longest pattern that is tried: users type them, and long ones only show how slow they are.
const MAX_PATTERNS_LEN: usize = 512;

/// Patterns and a path: `[path] [NUL] [pattern] [NUL] ...`. A pattern more never takes a match away.
///
/// # Panics
/// If it does, or a pattern of plain characters matches something else than itself.
pub fn globs(bytes: &[u8]) -> Verdict {
    let mut parts = bytes.split(|byte| *byte == 0);
    let path = parts.next().and_then(|path| EntryPath::new(path.to_vec()).ok());
    let patterns: Option<Vec<&str>> = parts.map(text).collect();
    let (Some(path), Some(patterns)) = (path, patterns) else { return Verdict::Refused };
    if bytes.len() > MAX_PATTERNS_LEN {
        return Verdict::Refused;
    }
    let Some(all) = fuzz::globs_match(&patterns, &path) else { return Verdict::Refused };
    let one_by_one = patterns.iter().any(|pattern| {
        let alone = fuzz::globs_match(&[pattern], &path).expect("it is a pattern among others");
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !pattern.is_empty() && pattern.bytes().all(is_plain) {
            let name = path.components().last();
            assert_eq!(alone, name == Some(pattern.as_bytes()), "`{pattern}` and {path}");
        }
        alone
    });
    assert_eq!(all, one_by_one, "patterns matter to each other");
    Verdict::Accepted
}

/// Names in a folder, each with a NUL. One that has a foreign name among them is data and no folder of second
/// names.
///
/// # Panics
/// If it passes for one.
pub fn second_names(bytes: &[u8]) -> Verdict {
    let names: Vec<&[u8]> = bytes.split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    let is_ours = fuzz::is_second_name_folder(&names);
    let with_data = [&names[..], &[b"data.db"]].concat();
    assert!(!fuzz::is_second_name_folder(&with_data), "data is left out of a snapshot");
    assert!(!is_ours || !names.is_empty());
    let reversed: Vec<&[u8]> = names.iter().rev().copied().collect();
    assert_eq!(fuzz::is_second_name_folder(&reversed), is_ours, "the order matters");
    Verdict::of(is_ours)
}

/// The state of a push or its journal, as it is, and with all keyed checks in it made to fit.
///
/// # Panics
/// If it is read in two ways, or a file in it has a path that an entry could not have.
pub fn state_file(bytes: &[u8]) -> Verdict {
    let as_is = fuzz::remembered(bytes);
    let fitted = fuzz::with_fitting_checks(bytes);
    let found = fuzz::remembered(&fitted);
    if fitted == bytes {
        assert_eq!(as_is, found);
    }
    let Some(found) = found else { return Verdict::Refused };
    for (path, _) in &found.files {
        assert!(EntryPath::new(path.as_bytes().to_vec()).is_ok());
    }
    assert!(found.files.len() <= bytes.len() && found.chunks <= bytes.len() / 32);
    Verdict::Accepted
}

/// The list of files of a push: read and written again, it is the same from then on.
///
/// # Panics
/// If not.
pub fn list_file(bytes: &[u8]) -> Verdict {
    let Ok(once) = fuzz::listed_again(bytes) else { return Verdict::Refused };
    let twice = fuzz::listed_again(&once).expect("what was written is read");
    assert_eq!(once, twice, "a list changes when it is written again");
    Verdict::Accepted
}

/// Seeds of [`config`].
pub fn configs() -> Vec<Seed> {
    let whole =
        "server = \"http://127.0.0.1:5515\"\ntoken_file = \"/etc/token\"\ncluster = \"c\"\nnode = \"n\"\n";
    let mut seeds = vec![
        seed("empty", []),
        seed("whole", whole),
        seed("odd-name", "cluster = \"../..\"\n"),
        seed("two-servers", "server = \"a\"\nserver = \"b\"\n"),
    ];
    seeds.extend(hostile_toml());
    seeds
}

/// Seeds of [`number_text`].
pub fn number_texts() -> Vec<Seed> {
    let texts = [
        "500000",
        "512K",
        "10MiB",
        "2g",
        "18446744073709551615",
        "17179869184G",
        "-1",
        "19",
        "20",
        "٣",
        "1.5M",
        "",
    ];
    texts.iter().enumerate().map(|(n, text)| seed(&format!("{n:02}"), *text)).collect()
}

/// Seeds of [`class_rule`].
pub fn class_rules() -> Vec<Seed> {
    let texts = [
        "append-only=*.log",
        "mutable=/data/**/x",
        "auto==",
        "auto=",
        "=*.log",
        "AUTO=x",
        "etcd",
        "cassandra",
        "m3",
        "",
    ];
    texts.iter().enumerate().map(|(n, text)| seed(&format!("{n:02}"), *text)).collect()
}

/// Seeds of [`snapshot_choice`].
pub fn choices() -> Vec<Seed> {
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";
    vec![seed("latest", "latest"), seed("id", id), seed("upper-case", id.to_uppercase()), seed("empty", [])]
}

/// Seeds of [`globs`].
pub fn patterns() -> Vec<Seed> {
    vec![
        seed("names", "data/a.tmp\0*.tmp\0[a-z]?"),
        seed("paths", "data/x/y/old\0/data/**/old\0/data/{x,z}/*"),
        seed("plain", "data/old\0old"),
        seed("open-class", "a\0a["),
        seed("nested", format!("a\0{}", "{".repeat(200))),
        seed("nested-and-closed", format!("a\0{}a{}", "{".repeat(9), "}".repeat(9))),
        seed("many-stars", format!("{}\0{}b", "a".repeat(200), "*a".repeat(60))),
        seed("large-range", "a\0[\u{0}-\u{10ffff}]{a,b}"),
        seed("escape-at-the-end", "a\0a\\"),
        seed("no-pattern", "a"),
        seed("empty", []),
    ]
}

/// Seeds of [`second_names`].
pub fn folders() -> Vec<Seed> {
    vec![
        seed("whole", "astacus-freeze\x000123456789abcdef-0\x000123456789abcdef-0.lock"),
        seed("no-mark", "0123456789abcdef-0"),
        seed("with-data", "astacus-freeze\0CURRENT"),
        seed("odd-number", "astacus-freeze\x000123456789abcdef-+1"),
        seed("large-number", "astacus-freeze\x000123456789abcdef-4294967296"),
        seed("empty", []),
    ]
}

/// Bytes with a number in them replaced.
fn with_number(bytes: &[u8], at: usize, number: u32) -> Vec<u8> {
    let (before, rest) = bytes.split_at(at);
    let (_, after) = rest.split_at(4);
    [before, &number.to_le_bytes(), after].concat()
}

/// Seeds of [`state_file`].
pub fn states() -> Vec<Seed> {
    // Lengths stand behind 90 bytes of header, and after it at the start of the first block.
    const ROOTS_LEN: usize = 90;
    const FIRST_BLOCK: usize = 94 + 5 + 32;
    let state = fuzz::state_of_files(true).expect("the names are plain");
    let journal = fuzz::state_of_files(false).expect("the names are plain");
    let (cut, _) = journal.split_at(journal.len() - 40);
    vec![
        seed("journal-cut", cut),
        seed("state-cut", state.split_at(state.len() - 40).0),
        seed("claims-4-gib-of-roots", with_number(&state, ROOTS_LEN, u32::MAX)),
        seed("claims-16-mib-of-roots", with_number(&state, ROOTS_LEN, 16 << 20)),
        seed("claims-a-page", with_number(&journal, FIRST_BLOCK, 1 << 20)),
        seed("claims-a-million-slots", with_number(&journal, FIRST_BLOCK + 4, 1 << 20)),
        seed("state-claims-a-million-slots", with_number(&state, FIRST_BLOCK + 4, 1 << 20)),
        seed("claims-4-gib-of-slots", with_number(&journal, FIRST_BLOCK + 4, u32::MAX)),
        seed("another-version", with_number(&state, 8, 3)),
        seed("state", state),
        seed("journal", journal),
        seed("empty", []),
    ]
}

/// Seeds of [`list_file`].
pub fn lists() -> Vec<Seed> {
    let list = fuzz::list_of_files().expect("there is memory");
    let mut seeds = vec![
        seed("empty", []),
        seed("cut", list.split_at(list.len() - 1).0),
        seed("claims-4-gib", [255; 8]),
        seed("claims-2-mib", [&(2_u32 << 20).to_le_bytes()[..], &[0; 8]].concat()),
        seed(
            "claims-2-32-attributes",
            [&9_u32.to_le_bytes()[..], &[0x82, 0, 0x81, 0x9a, 255, 255, 255, 255, 0]].concat(),
        ),
    ];
    seeds.push(seed("every-step", list));
    seeds
}
