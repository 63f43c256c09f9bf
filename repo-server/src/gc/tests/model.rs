//! Random pushes, forgetting, collecting, crashes and restarts, against a model in memory.
//!
//! The model knows which snapshots were acknowledged and not purged, with their content, and what each push was
//! told. After every run of the collector and every restart all of them are read; at the end nothing may be
//! left over. `ASTACUS_TEST_SEED` replays a sequence, `ASTACUS_NIGHTLY=1` runs many more.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use format_spec::SnapshotId;
use format_spec::key::BlobKind;
use format_spec::wire::{Delays, GcReport, GcRequest, Held, RunMode};

use super::whole::{faults, leftovers};
use crate::error::ServerError;
use crate::rules::Rule;
use crate::session;
use crate::snapshot;
use crate::testing::{Client, Tree, World};

/// Sequences of one run of the suite, and steps of each.
const SEQUENCES: u64 = 200;
const NIGHTLY_SEQUENCES: u64 = 50_000;
const STEPS: u64 = 70;

/// After so many sequences a long run says how far it is.
const PROGRESS: u64 = 1_000;

/// Different contents: few, so that pushes share them.
const CONTENTS: u64 = 9;

/// A stream of numbers that its seed decides (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let at = self.below(u64::try_from(choices.len()).unwrap().max(1));
        choices.get(usize::try_from(at).unwrap()).copied()
    }
}

/// A push in progress.
struct Push {
    client: Client,
    tree: Tree,
    /// Contents that are still to be asked for; those of the base are taken for granted.
    to_ask: Vec<Vec<u8>>,
    page: Option<(format_spec::ChunkId, usize)>,
    /// True if a broken promise is excused: its session has ended, or a crash lost the waiting data.
    excused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Going,
}

struct Model {
    world: World,
    random: Random,
    snapshots: BTreeMap<SnapshotId, (Tree, Fate)>,
    pushes: [Option<Push>; 2],
    log: Vec<String>,
}

/// Verdict of the model.
type Found = Result<(), String>;

impl Model {
    fn new(seed: u64, removed: &[Rule]) -> Self {
        let world = World::new();
        for rule in removed {
            world.store.rules.remove(*rule);
        }
        let snapshots = BTreeMap::new();
        Self { world, random: Random(seed), snapshots, pushes: [None, None], log: Vec::new() }
    }

    fn run(&mut self, removed: &[Rule]) -> Found {
        for _ in 0..STEPS {
            match self.random.below(100) {
                0..60 => self.step_of_a_push()?,
                60..70 => self.forget(),
                70..73 => self.undelete(),
                73..86 => self.collect(Delays::Skip, removed)?,
                86..89 => self.collect(Delays::Wait, removed)?,
                89..92 => self.expire(),
                92..96 => self.crash(removed)?,
                _ => self.die_in_the_middle(removed)?,
            }
        }
        self.end(removed)
    }

    fn step_of_a_push(&mut self) -> Found {
        let which = usize::try_from(self.random.below(2)).unwrap();
        let Some(mut push) = self.pushes[which].take() else {
            self.begin(which);
            return Ok(());
        };
        match self.go_on(&mut push) {
            Ok(None) => self.pushes[which] = Some(push),
            Ok(Some(id)) => {
                self.log.push(format!("push {which} committed {id}"));
                self.snapshots.insert(id, (push.tree, Fate::Kept));
            }
            Err(error) if push.excused => {
                self.log.push(format!("push {which} gives up: {error}"));
                let _ = session::abort(&self.world.server.sessions, push.client.id, |_| true);
            }
            Err(error) => return Err(format!("push {which} was promised more: {error}")),
        }
        Ok(())
    }

    fn begin(&mut self, which: usize) {
        let count = 1 + self.random.below(3);
        let tree: Tree = (0..count)
            .map(|_| {
                let text = format!("content {}", self.random.below(CONTENTS));
                (text.clone(), vec![text.into_bytes()])
            })
            .collect();
        let client = self.world.begin(["a", "b"][which]);
        // A node remembers its last push, and asks for nothing that was in it.
        let bases: Vec<SnapshotId> = self.snapshots.keys().copied().collect();
        let base = if self.random.below(2) == 0 { self.random.one_of(&bases) } else { None };
        let granted: Tree =
            base.and_then(|id| self.snapshots.get(&id)).map(|(tree, _)| tree.clone()).unwrap_or_default();
        let chunks = tree.values().flatten();
        let to_ask = chunks.filter(|chunk| !granted.values().flatten().any(|had| had == *chunk)).cloned();
        let to_ask = to_ask.collect();
        self.log.push(format!("push {which} begins with {:?}, base {base:?}", tree.keys()));
        self.pushes[which] = Some(Push { client, tree, to_ask, page: None, excused: false });
    }

    /// One request.
    fn go_on(&mut self, push: &mut Push) -> Result<Option<SnapshotId>, ServerError> {
        if self.random.below(15) == 0 && push.page.is_none() {
            push.client = self.world.begin_after(push.client.row.node.as_str(), Some(push.client.id))?;
            self.log.push("adopts its session".to_owned());
            return Ok(None);
        }
        if let Some(content) = push.to_ask.pop() {
            let id = self.world.id_of(BlobKind::Chunk, &content);
            if self.world.have(&push.client, &[id])? == [Held::Missing] {
                self.world.send(&push.client, BlobKind::Chunk, &content)?;
            }
            return Ok(None);
        }
        match push.page {
            None => {
                let page = self.world.page(&push.tree);
                let id = self.world.id_of(BlobKind::Page, &page);
                if self.world.have(&push.client, &[id])? == [Held::Missing] {
                    self.world.send(&push.client, BlobKind::Page, &page)?;
                }
                push.page = Some((id, page.len()));
                Ok(None)
            }
            Some(page) => self.world.commit(&push.client, &[page]).map(Some),
        }
    }

    fn with_fate(&self, fate: Fate) -> Vec<SnapshotId> {
        let of_fate = self.snapshots.iter().filter(|(_, (_, of))| *of == fate);
        of_fate.map(|(id, _)| *id).collect()
    }

    fn forget(&mut self) {
        let Some(id) = self.random.one_of(&self.with_fate(Fate::Kept)) else { return };
        self.log.push(format!("forget {id}"));
        self.world.forget(id);
        self.snapshots.get_mut(&id).unwrap().1 = Fate::Going;
    }

    fn undelete(&mut self) {
        let Some(id) = self.random.one_of(&self.with_fate(Fate::Going)) else { return };
        self.log.push(format!("undelete {id}"));
        snapshot::undelete(&self.world.store, id).unwrap();
        self.snapshots.get_mut(&id).unwrap().1 = Fate::Kept;
    }

    fn collect(&mut self, delays: Delays, removed: &[Rule]) -> Found {
        self.log.push(format!("collect, {delays:?}"));
        let planned = self.world.gc_as(GcRequest { delays, ..GcRequest::default() });
        let planned = planned.map_err(|error| format!("the plan failed: {error}"))?;
        let request = GcRequest { mode: RunMode::Apply, delays, ..GcRequest::default() };
        let done = self.world.gc_as(request).map_err(|error| format!("the collector failed: {error}"))?;
        let sums = |report: &GcReport| (report.purged.len(), report.pages, report.chunks);
        if removed.is_empty() && sums(&planned) != sums(&done) {
            return Err(format!("planned {:?}, and did {:?}", sums(&planned), sums(&done)));
        }
        if delays == Delays::Skip {
            self.snapshots.retain(|_, (_, fate)| *fate == Fate::Kept);
        }
        self.check()
    }

    fn expire(&mut self) {
        self.log.push("all sessions expire".to_owned());
        self.world.expire();
        self.excuse();
    }

    fn excuse(&mut self) {
        for push in self.pushes.iter_mut().flatten() {
            push.excused = true;
        }
    }

    fn crash(&mut self, removed: &[Rule]) -> Found {
        self.log.push("crash".to_owned());
        self.restart(removed);
        self.check()
    }

    fn restart(&mut self, removed: &[Rule]) {
        self.world.index.heal();
        self.world.restart();
        for rule in removed {
            self.world.store.rules.remove(*rule);
        }
        self.excuse();
    }

    /// A run of the collector or a request dies at some commit of the index.
    fn die_in_the_middle(&mut self, removed: &[Rule]) -> Found {
        let cut = self.random.below(8);
        self.world.index.fail_after(cut);
        if self.random.below(2) == 0 {
            self.log.push(format!("a run dies at commit {cut}"));
            let request = GcRequest { mode: RunMode::Apply, delays: Delays::Skip, ..GcRequest::default() };
            let _ = self.world.gc_as(request);
        } else if let Some(mut push) = self.pushes[0].take() {
            self.log.push(format!("push 0 dies at commit {cut}"));
            while let Ok(None) = self.go_on(&mut push) {}
        }
        self.restart(removed);
        self.learn_what_is_there();
        self.check()
    }

    /// After a death in the middle: a commit may have been applied unheard, a purge as well.
    fn learn_what_is_there(&mut self) {
        let listed = snapshot::list(&self.world.store, None).unwrap();
        self.snapshots
            .retain(|id, (_, fate)| *fate == Fate::Kept || listed.iter().any(|snapshot| snapshot.id == *id));
        for snapshot in listed {
            if !self.snapshots.contains_key(&snapshot.id) {
                // Unacknowledged, so it is whole or not there (S3): reading it below tells.
                let tree = self.world.read(snapshot.id).unwrap_or_default();
                self.snapshots.insert(snapshot.id, (tree, Fate::Kept));
            }
        }
    }

    fn check(&self) -> Found {
        for (id, (tree, _)) in &self.snapshots {
            let read = self.world.read(*id).map_err(|error| format!("{id} was acknowledged: {error}"))?;
            if read != *tree {
                return Err(format!("{id} reads as something else"));
            }
        }
        Ok(())
    }

    /// With no push in progress the collector leaves what is needed, and nothing else.
    fn end(&mut self, removed: &[Rule]) -> Found {
        self.pushes = [None, None];
        self.expire();
        for _ in 0..2 {
            self.collect(Delays::Skip, removed)?;
        }
        let wrong = [faults(&self.world), leftovers(&self.world)].concat();
        if !wrong.is_empty() {
            return Err(format!("{wrong:?}"));
        }
        let mut needed: Vec<Vec<u8>> = Vec::new();
        for (tree, _) in self.snapshots.values() {
            needed.extend(tree.values().flatten().cloned());
            needed.push(self.world.page(tree));
        }
        needed.sort();
        needed.dedup();
        if self.world.rows().len() == needed.len() {
            Ok(())
        } else {
            Err("something idle is left".to_owned())
        }
    }
}

/// Runs sequences on all cores until one finds something; answers which, and what.
fn explore(first: u64, sequences: u64, removed: &[Rule]) -> Option<String> {
    let (next, found) = (AtomicU64::new(0), Mutex::new(None));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= sequences {
                return;
            }
            if number > 0 && number % PROGRESS == 0 {
                println!("{number} of {sequences} sequences begun");
            }
            if let Err(loss) = run(first + number, removed) {
                next.store(sequences, Ordering::Relaxed);
                found.lock().unwrap().get_or_insert(loss);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    std::thread::scope(|scope| (0..cores).for_each(|_| _ = scope.spawn(work)));
    found.into_inner().unwrap()
}

fn run(seed: u64, removed: &[Rule]) -> Found {
    let mut model = Model::new(seed, removed);
    // Standard error has the panic; the log has the steps before it.
    let found = std::panic::catch_unwind(AssertUnwindSafe(|| model.run(removed)));
    let found = found.unwrap_or_else(|_| Err("a panic".to_owned()));
    found.map_err(|loss| format!("ASTACUS_TEST_SEED={seed}: {loss}\n{}", model.log.join("\n")))
}

/// S1, S3, G1, G2, G3, G6: whatever happens, what was acknowledged can be read, and what was promised is there.
#[test]
fn random_histories_lose_nothing_and_leave_nothing() {
    let (first, sequences) = match std::env::var("ASTACUS_TEST_SEED") {
        Ok(seed) => (seed.parse().unwrap(), 1),
        Err(_) => {
            let nightly = std::env::var("ASTACUS_NIGHTLY").is_ok_and(|set| set == "1");
            let mut bytes = [0; 4];
            getrandom::fill(&mut bytes).unwrap();
            let sequences = if nightly { NIGHTLY_SEQUENCES } else { SEQUENCES };
            (u64::from(u32::from_le_bytes(bytes)), sequences)
        }
    };
    println!("{sequences} sequences of {STEPS} steps from seed {first}");

    let found = explore(first, sequences, &[]);

    assert_eq!(found, None);
}

/// The model sees what each rule is there for.
#[test]
fn the_model_finds_the_loss_when_a_rule_is_removed() {
    let removed = [
        &[Rule::DropOnlyUncounted][..],
        &[Rule::DropOnlyBeforeSessions],
        &[Rule::HereRevives],
        &[Rule::AdoptedStart],
        &[Rule::DropOnlyBeforeSessions, Rule::PageFindsItsChunks, Rule::CommitFindsItsPages],
    ];
    let found = removed.map(|rules| (rules, explore(1, 300, rules)));

    for (rules, found) in found {
        assert!(found.is_some(), "nothing was lost without {rules:?}");
    }
}
