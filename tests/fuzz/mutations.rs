//! A little exploring without a fuzzer: mutations of the seeds, from a seed of their own.

use tests::gear;
use tests::seed::Random;
use tests::targets::{ALL, Target, Verdict};

use crate::seeds::stored;
use crate::{alone, try_check};

/// Mutations of each target; and in a nightly run.
const FEW: usize = 2_000;
const MANY: usize = 1_000_000;
/// Longest input that is made.
const MAX_LEN: usize = 160 << 10;
/// Numbers at which lengths and counts break.
const EDGES: [u64; 12] =
    [0, 1, 0x17, 0x18, 0x7f, 0xff, 0xffff, 1 << 20, (1 << 24) + 1, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// Replaces as much of `bytes` from `at` on as `with` is long, at most `MAX_LEN` in all.
fn overwrite(bytes: &mut Vec<u8>, at: usize, with: &[u8]) {
    let end = (at + with.len()).min(bytes.len());
    bytes.splice(at..end, with.iter().copied());
}

/// Changes the input once, perhaps with a piece of `other`.
fn mutate_once(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.index(bytes.len() + 1);
    let len = random.index(bytes.len() - at + 1);
    match random.below(9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.bytes(1)[0],
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..at + len.min(16))),
        4 => {
            let few = random.index(9);
            bytes.splice(at..at, random.bytes(few));
        }
        5 => {
            let piece = bytes[at..at + len].to_vec();
            bytes.splice(at..at, piece);
        }
        6 => {
            let from = random.index(other.len() + 1);
            let few = random.index(other.len() - from + 1);
            overwrite(bytes, at, &other[from..from + few]);
        }
        7 => {
            let width = *random.pick(&[1, 2, 4, 8]);
            let edge = *random.pick(&EDGES);
            let number = if random.below(2) == 0 { edge.to_le_bytes() } else { edge.to_be_bytes() };
            let number = if number[0] == 0 { &number[8 - width..] } else { &number[..width] };
            overwrite(bytes, at, number);
        }
        _ => {
            // Most of what is read here has small numbers in front of what they count.
            let small = u8::try_from(random.below(40)).expect("a small number");
            overwrite(bytes, at.min(8), &[small]);
        }
    }
    bytes.truncate(MAX_LEN);
}

fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = random.pick(seeds).clone();
    for _ in 0..=random.below(4) {
        let other = random.pick(seeds);
        mutate_once(&mut bytes, other, random);
    }
    bytes
}

/// How many of `rounds` mutations were accepted.
fn explore(target: &Target, seeds: &[Vec<u8>], rounds: usize, random: &mut Random) -> Result<usize, String> {
    let mut accepted = 0;
    for round in 0..rounds {
        let bytes = mutated(seeds, random);
        let verdict = try_check(target, &bytes).map_err(|why| format!("round {round}: {why}"))?;
        accepted += usize::from(verdict == Verdict::Accepted);
    }
    Ok(accepted)
}

/// P4: nor does what a stranger makes of real bytes.
#[test]
fn mutations_of_all_seeds_go_through_their_targets() {
    let _alone = alone();
    let mut random = Random::printed();
    let rounds = gear::rounds(FEW, MANY);
    let stored = stored();
    for target in ALL {
        let in_tree = stored[target.name].values().cloned();
        let seeds: Vec<Vec<u8>> =
            in_tree.chain((target.seeds)().into_iter().map(|(_, bytes)| bytes)).collect();

        let accepted = explore(target, &seeds, rounds, &mut random).unwrap_or_else(|why| panic!("{why}"));

        println!("{}: {accepted} of {rounds} accepted", target.name);
    }
}

/// Twin: the mutations find a byte that a decoder does not look at, and so accepts in two encodings.
#[test]
fn a_decoder_that_ignores_a_byte_is_found() {
    let _alone = alone();
    let sloppy = |bytes: &[u8]| {
        let [b'P', version, _ignored, value] = bytes else { return Verdict::Refused };
        if *version != 1 {
            return Verdict::Refused;
        }
        assert_eq!([b'P', 1, 0, *value], bytes, "two encodings");
        Verdict::Accepted
    };
    let careful = |bytes: &[u8]| match bytes {
        [b'P', 1, 0, _] => Verdict::Accepted,
        _ => Verdict::Refused,
    };
    let seeds = vec![vec![b'P', 1, 0, 7]];
    let target = |run| Target { name: "sloppy", run, ..*tests::targets::named("name") };
    let explore = |run| explore(&target(run), &seeds, FEW, &mut Random::new(1));

    let found = explore(sloppy).unwrap_err();

    assert!(found.contains("two encodings"), "{found}");
    assert!(explore(careful).is_ok_and(|accepted| accepted > 0 && accepted < FEW));
}
