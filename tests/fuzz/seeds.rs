//! The seeds in the tree: `seeds/<target>/<name>`. `ASTACUS_BLESS=1 cargo test -p tests --test fuzz` writes those
//! that the real encoders make; whatever a fuzzer finds is added by hand, under a name that says what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;

use tests::gear;
use tests::targets::{ALL, Room, Target, Verdict};

use crate::{alone, try_check};

/// Most bytes of all seeds together.
const MAX_LEN: usize = 1 << 20;

/// Seeds by the name of their target, and then by their own.
pub(crate) type Seeds = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

fn folder(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz")).join(name)
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Seeds in the tree. With `ASTACUS_BLESS=1`, after writing what the encoders make.
pub(crate) fn stored() -> Seeds {
    static BLESSED: Once = Once::new();
    if gear::is_set("ASTACUS_BLESS") {
        BLESSED.call_once(bless);
    }
    let folder = folder("seeds");
    let of = |target: &String| {
        let read = |name: &String| (name.clone(), fs::read(folder.join(target).join(name)).unwrap());
        names(&folder.join(target)).iter().map(read).collect()
    };
    names(&folder).iter().map(|target| (target.clone(), of(target))).collect()
}

fn bless() {
    for target in ALL {
        let folder = folder("seeds").join(target.name);
        fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in (target.seeds)() {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

/// Mismatches: targets without seeds, seeds or programs without a target, and seeds that encoders make but
/// the tree lacks.
fn mismatches(targets: &[Target], stored: &Seeds, programs: &BTreeSet<String>) -> Vec<String> {
    let known: BTreeSet<String> = targets.iter().map(|target| target.name.to_owned()).collect();
    let folders: BTreeSet<String> = stored.keys().cloned().collect();
    let mut found: Vec<String> =
        known.symmetric_difference(&folders).map(|name| format!("seeds of {name}")).collect();
    found.extend(known.symmetric_difference(programs).map(|name| format!("program of {name}")));
    for target in targets {
        let seeds = stored.get(target.name);
        if seeds.is_some_and(BTreeMap::is_empty) {
            found.push(format!("no seed of {}", target.name));
        }
        let lacks = |name: &String| !seeds.is_some_and(|seeds| seeds.contains_key(name));
        let lacking = (target.seeds)().into_iter().map(|(name, _)| name).filter(lacks);
        found.extend(lacking.map(|name| format!("seed {name} of {}", target.name)));
    }
    found
}

/// The programs that the fuzzer knows.
fn programs() -> BTreeSet<String> {
    let manifest: toml::Table = fs::read_to_string(folder("Cargo.toml")).unwrap().parse().unwrap();
    let listed = manifest["bin"].as_array().unwrap().iter();
    let listed: BTreeSet<String> = listed.map(|bin| bin["name"].as_str().unwrap().to_owned()).collect();
    let mut files = names(&folder("programs"));
    assert!(files.remove("lib.rs"), "what they share");
    assert_eq!(files, listed.iter().map(|name| format!("{name}.rs")).collect(), "programs and their files");
    for name in &listed {
        let text = fs::read_to_string(folder("programs").join(format!("{name}.rs"))).unwrap();
        assert!(text.contains(&format!("\"{name}\"")), "the program {name} runs something else");
    }
    listed
}

#[test]
fn every_target_has_seeds_and_a_program_and_the_other_way_round() {
    let _alone = alone();
    let stored = stored();

    assert_eq!(
        mismatches(ALL, &stored, &programs()),
        Vec::<String>::new(),
        "see the first lines of this file"
    );

    let len: usize = stored.values().flat_map(BTreeMap::values).map(Vec::len).sum();
    assert!(len <= MAX_LEN, "the seeds have {len} bytes");
}

/// P4: no seed makes a decoder panic, or take memory for what it only claims, or accept what it should not.
#[test]
fn every_seed_in_the_tree_goes_through_its_target() {
    let _alone = alone();
    let mut count = 0;
    for (name, seeds) in stored() {
        let target = ALL.iter().find(|target| target.name == name).unwrap();
        for (seed, bytes) in seeds {
            try_check(target, &bytes).unwrap_or_else(|why| panic!("{seed}: {why}"));
            count += 1;
        }
    }
    assert!(count >= ALL.len() * 3, "{count} seeds");
}

/// A target whose seeds are all refused would not get past the first check.
#[test]
fn every_target_accepts_one_of_its_seeds_and_refuses_another() {
    let _alone = alone();
    for target in ALL {
        let seeds = (target.seeds)();
        for wanted in [Verdict::Accepted, Verdict::Refused] {
            let is_wanted = |(_, bytes): &(String, Vec<u8>)| try_check(target, bytes) == Ok(wanted);
            assert!(seeds.iter().any(is_wanted), "{}: no seed is {wanted:?}", target.name);
        }
    }
}

fn target(name: &'static str, run: fn(&[u8]) -> Verdict) -> Target {
    let seeds = || vec![("a".to_owned(), Vec::new())];
    Target { name, run, seeds, room: Room { fixed: 64 << 10, per_byte: 16 } }
}

/// Twin: what is missing on either side is named.
#[test]
fn a_target_without_seeds_and_seeds_without_a_target_are_seen() {
    let _alone = alone();
    let targets = [target("one", |_| Verdict::Refused), target("two", |_| Verdict::Refused)];
    let seeds = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
    let stored = Seeds::from([("one".to_owned(), seeds(&["a"])), ("lost".to_owned(), seeds(&["a"]))]);
    let programs = BTreeSet::from(["one".to_owned(), "two".to_owned()]);

    let found = mismatches(&targets, &stored, &programs);

    assert_eq!(found, ["seeds of lost", "seeds of two", "seed a of two"]);
    let none = Seeds::from([("one".to_owned(), seeds(&[]))]);
    let found = mismatches(&targets[..1], &none, &BTreeSet::new());
    assert_eq!(found, ["program of one", "no seed of one", "seed a of one"]);
}

/// Twin: a decoder that allocates what its input claims is caught, and so is one that panics.
#[test]
fn a_decoder_that_believes_a_length_is_seen() {
    let _alone = alone();
    let believes = |bytes: &[u8]| {
        let Some(len) = bytes.first_chunk().map(|len| u32::from_le_bytes(*len)) else {
            return Verdict::Refused;
        };
        let room: Vec<u8> = Vec::with_capacity(usize::try_from(len).unwrap());
        assert!(room.is_empty() && bytes.len() < 9, "nine bytes");
        Verdict::Accepted
    };
    let target = target("believes", believes);

    assert_eq!(try_check(&target, &[0, 1, 0, 0]), Ok(Verdict::Accepted));
    let claimed = try_check(&target, &[0, 0, 16, 0]).unwrap_err();
    let panicked = try_check(&target, &[0; 9]).unwrap_err();

    assert!(claimed.contains("took 104") && claimed.contains(r"\x00\x00\x10\x00"), "{claimed}");
    assert!(panicked.contains("nine bytes"), "{panicked}");
}
