//! One flipped bit in the journal of the engine, which goes back to before it without a word.

use std::fs;
use std::path::{Path, PathBuf};

use format_spec::wire::VerifyLevel;

use super::*;
use crate::index::{Engine, copy_tree, open, open_existing};
use crate::operation;
use crate::settings::Choices;
use crate::store::Parts;
use crate::world::{World, descriptor, master};

const SNAPSHOTS: usize = 6;

/// A stream of numbers that its seed decides (SplitMix64).
struct Random(u64);

impl Random {
    /// The one of `ASTACUS_TEST_SEED`, or a fresh one; says which.
    fn printed() -> Self {
        let seed = match std::env::var("ASTACUS_TEST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => getrandom::u64().unwrap(),
        };
        println!("ASTACUS_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }
}

fn journal(index: &Path) -> PathBuf {
    let journals = fs::read_dir(index.join("db/data")).unwrap().map(|entry| entry.unwrap().path());
    let is_journal = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "jnl");
    let mut journals: Vec<PathBuf> = journals.filter(is_journal).collect();
    assert_eq!(journals.len(), 1, "{journals:?}");
    journals.remove(0)
}

/// Bytes of the journal that were written.
fn written(index: &Path) -> usize {
    let bytes = fs::read(journal(index)).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

/// Result of a server start over an index.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    Refused,
    /// All snapshots are there, and whole.
    Whole,
    /// Some are not, and the alarm says so.
    Told,
    /// Some are not, and nobody says so.
    Silent,
}

async fn start(index: &Path, site: Arc<dyn crate::site::Site>, pushed: &[SnapshotId]) -> Start {
    let scratch = index.with_extension("tmp");
    // The engine's own debug assertions, which a release does not have, refuse some of it by a panic.
    let opened = std::panic::catch_unwind(|| open_existing(Engine::Fjall, index));
    let Ok(Ok(index)) = opened else { return Start::Refused };
    let parts = Parts { index, site, scratch, ..Parts::default() };
    let Ok(server) = Server::open(parts, Choices::default(), master(), descriptor()) else {
        return Start::Refused;
    };
    settle_once(&server).await;
    let known = snapshot::list(&server.store, None).unwrap();
    match (
        known.iter().map(|snapshot| snapshot.id).eq(pushed.iter().copied()),
        alarm::is_up(&server.store, AlarmCode::IndexBehind).unwrap(),
    ) {
        (true, false) if is_whole(&server).await => Start::Whole,
        (true, true) => panic!("a false alarm"),
        (_, true) => Start::Told,
        (_, false) => Start::Silent,
    }
}

/// True if all listed snapshots can be read, and all counts are right.
async fn is_whole(server: &Arc<Server>) -> bool {
    let verified = operation::run_unheard(server, format_spec::wire::VerifyRequest::from(VerifyLevel::Read))
        .await
        .unwrap();
    let audited =
        operation::run_unheard(server, format_spec::wire::AuditRequest { repair: Repair::No }).await.unwrap();
    verified.findings.is_empty() && audited.is_sound()
}

/// X1, S1, G12: whichever bit of the journal flips, acknowledged snapshots are there, or it is said that they are not.
#[tokio::test]
async fn a_flipped_bit_in_the_journal_never_loses_a_snapshot_silently() {
    let nightly = std::env::var("ASTACUS_NIGHTLY").is_ok_and(|set| set == "1");
    let flips = if nightly { 2000 } else { 60 };
    let mut random = Random::printed();
    let dir = tempfile::tempdir().unwrap();
    let (whole, flipped) = (dir.path().join("whole"), dir.path().join("flipped"));
    let site: Arc<dyn crate::site::Site> = Arc::new(StoreSite::memory());
    let world = World::over_index(open(Engine::Fjall, &whole).unwrap(), Arc::clone(&site));
    let mut pushed = Vec::new();
    for n in 0..SNAPSHOTS {
        pushed.push(world.push("n", &["all", &format!("only {n}")]).await);
    }
    pushed.sort();
    drop(world);
    let end = written(&whole);
    assert_eq!(start(&whole, Arc::clone(&site), &pushed).await, Start::Whole);
    let (mut done, mut told, mut refused, mut harmless) = (0, 0, 0, 0);

    // Past the last one until the alarm has told one.
    while done < flips || (told == 0 && done < 10 * flips) {
        done += 1;
        let (at, bit) = (random.below(end), random.below(8));
        copy_tree(&whole, &flipped);
        let journal = journal(&flipped);
        let mut bytes = fs::read(&journal).unwrap();
        bytes[at] ^= 1 << bit;
        fs::write(&journal, bytes).unwrap();

        let found = start(&flipped, Arc::clone(&site), &pushed).await;

        assert_ne!(found, Start::Silent, "byte {at} of {end}, bit {bit}");
        told += usize::from(found == Start::Told);
        refused += usize::from(found == Start::Refused);
        harmless += usize::from(found == Start::Whole);
        fs::remove_dir_all(&flipped).unwrap();
    }
    println!(
        "{done} flips: {refused} refused at the start, {told} told by the alarm, {harmless} without any loss"
    );
    assert!(told > 0, "no flip was told by the alarm");
}
