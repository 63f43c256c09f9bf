//! Random histories of files and of pushes beside them, against a model of what any reader may have seen (C1, C8, C10–C12).
//!
//! An owner writes in place, past the page cache too, appends, cuts, grows by holes, replaces, renames, recycles and
//! deletes, between pushes and in the middle of their reading. Others store through a memory map, which changes bytes
//! and shows nothing while the page is dirty; so does the rest of a slow write. Each state of each name is noted. A push may store under a name a state that it had
//! between the freeze and the end of the push, and nothing else; what is a mixture is marked, and what is left out is
//! reported. `ASTACUS_NIGHTLY=1` runs 20,000 histories in place of 200.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Mutex;

use format_spec::{FileEnd, Timestamp};

use super::outcome::Outcome;
use super::tree::{Tree, noise};
use super::{At, LATER};
use crate::push::verdict::draw::pick;
use crate::push::{Alike, FreezeMode};
use crate::twin::{Old, with_old};

/// More than one read takes, so that its owner comes in between.
const BIG: usize = 300_000;
const PUSHES: u64 = 6;

/// Numbers that follow from a seed.
struct Random {
    seed: u64,
    drawn: RefCell<u64>,
}

impl Random {
    fn new(seed: u64) -> Self {
        Self { seed, drawn: RefCell::new(0) }
    }

    fn below(&self, bound: usize) -> usize {
        *self.drawn.borrow_mut() += 1;
        usize::try_from(pick(self.seed, *self.drawn.borrow(), u64::try_from(bound).unwrap())).unwrap()
    }

    fn bytes(&self, most: usize) -> Vec<u8> {
        noise(1 + self.below(most), self.seed ^ u64::try_from(self.below(1 << 30)).unwrap())
    }
}

/// Change of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is appended to, and at times begun again under its name.
    Log,
    /// Anything, but it never only grows: a file that did so twice is taken for a log (C8), and what its owner then
    /// writes in its middle is found by samples, or by the next whole comparison.
    Heap,
    /// It is written once, renamed, linked and deleted.
    Table,
}

/// Content of a name, and the time since when it has it.
type State = (u64, Option<Vec<u8>>);

/// How an owner stores to files that are written in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stores {
    /// Changed by system calls.
    Written,
    /// Through a memory map, too.
    Mapped,
}

/// An owner of files, who notes each state of each name.
struct Owner<'a> {
    tree: &'a Tree,
    random: Random,
    /// `None` where the name stood for nothing. The number says when.
    states: BTreeMap<String, Vec<State>>,
    now: u64,
    made: u64,
    mapper: Option<Mapper>,
}

impl<'a> Owner<'a> {
    fn new(tree: &'a Tree, seed: u64, stores: Stores) -> Self {
        let mapper = (stores == Stores::Mapped).then(Mapper::start);
        let random = Random::new(seed);
        let mut owner = Self { tree, random, states: BTreeMap::new(), now: 0, made: 0, mapper };
        for (name, len) in [
            ("heap-a", BIG),
            ("heap-b", 9000),
            ("log-a", BIG),
            ("log-b", 500),
            ("table-a", 7000),
            ("table-b", BIG),
        ] {
            tree.write(name, noise(len, seed));
            owner.note(name);
        }
        owner
    }

    fn names(&self, kind: Kind) -> Vec<String> {
        let prefix = match kind {
            Kind::Log => "log-",
            Kind::Heap => "heap-",
            Kind::Table => "table-",
        };
        let there =
            self.states.iter().filter(|(_, states)| states.last().is_some_and(|(_, now)| now.is_some()));
        there.map(|(name, _)| name.clone()).filter(|name| name.starts_with(prefix)).collect()
    }

    /// The name has another state from now on.
    fn note(&mut self, name: &str) {
        self.now += 1;
        let state = std::fs::read(self.tree.path(name)).ok();
        self.states.entry(name.to_owned()).or_default().push((self.now, state));
    }

    fn new_name(&mut self, prefix: &str) -> String {
        self.made += 1;
        format!("{prefix}-{}", self.made)
    }

    /// Does one thing to one file.
    fn act(&mut self) {
        let kind = [Kind::Heap, Kind::Heap, Kind::Log, Kind::Table][self.random.below(4)];
        let names = self.names(kind);
        if names.is_empty() {
            return;
        }
        let name = names[self.random.below(names.len())].clone();
        match (kind, self.random.below(8)) {
            (Kind::Log, 0) => self.replace(&name),
            (Kind::Log, _) => self.append(&name),
            (Kind::Heap, 0) => self.cut(&name),
            (Kind::Heap, 1) => self.recycle(&name),
            (Kind::Heap, 2) => self.replace(&name),
            (Kind::Heap, 3) => {
                self.overwrite(&name);
                self.append(&name);
            }
            (Kind::Heap, 4) => {
                self.overwrite(&name);
                self.grow_by_a_hole(&name);
            }
            (Kind::Heap, _) => self.overwrite(&name),
            (Kind::Table, 0) => self.remove(&name),
            (Kind::Table, 1 | 2) => self.rename(&name),
            (Kind::Table, 3) => self.tree.link_and_unlink(&name),
            (Kind::Table, _) => {
                let new = self.new_name("table");
                self.tree.write(&new, self.random.bytes(20_000));
                self.note(&new);
            }
        }
    }

    /// Stores some bytes of a file, or writes a page of it past the page cache.
    fn store(&mut self) {
        let names = self.names(Kind::Heap);
        let name = names[self.random.below(names.len())].clone();
        let len = self.tree.read(&name).len();
        let how = [How::Store, How::Store, How::Direct][self.random.below(3)];
        // The same pages again and again: the second time they are dirty.
        let page = self.random.below(4) * len.div_ceil(PAGE) / 4;
        let room = len.saturating_sub(page * PAGE);
        let bytes = match how {
            How::Store => self.random.bytes(room.clamp(1, 100)),
            How::Direct => noise(PAGE, u64::try_from(self.random.below(1 << 30)).unwrap()),
        };
        if bytes.len() <= room {
            let path = self.tree.path(&name);
            self.mapper.as_mut().unwrap().put(how, &path, page * PAGE, &bytes);
            self.note(&name);
        }
    }

    /// A minute passes, in which nothing is written and the kernel writes out what is dirty.
    fn pass_a_minute(&mut self) {
        let files: Vec<String> = self.names(Kind::Heap);
        files.iter().for_each(|name| self.tree.open(name).sync_all().unwrap());
    }

    fn append(&mut self, name: &str) {
        let len = self.tree.read(name).len();
        let bytes = self.random.bytes(3000);
        self.tree.overwrite(name, u64::try_from(len).unwrap(), &bytes);
        self.note(name);
    }

    fn overwrite(&mut self, name: &str) {
        let len = self.tree.read(name).len();
        let at = self.random.below(len.max(1));
        let mut bytes = self.random.bytes(2000);
        bytes.truncate(len.saturating_sub(at).max(1));
        self.tree.overwrite(name, u64::try_from(at).unwrap(), &bytes);
        self.note(name);
    }

    /// Writes to the start, and then to the end.
    fn tear(&mut self, name: &str) {
        let len = self.tree.read(name).len();
        for at in [0, len.saturating_sub(100)] {
            let bytes = self.random.bytes(100);
            self.tree.overwrite(name, u64::try_from(at).unwrap(), &bytes[..bytes.len().min(len - at)]);
            self.note(name);
        }
    }

    fn cut(&mut self, name: &str) {
        let len = self.tree.read(name).len();
        self.tree.cut(name, u64::try_from(self.random.below(len.max(1))).unwrap());
        self.note(name);
    }

    fn grow_by_a_hole(&mut self, name: &str) {
        let len = self.tree.read(name).len();
        self.tree.cut(name, u64::try_from(len + self.random.below(50_000)).unwrap());
        self.note(name);
    }

    fn replace(&mut self, name: &str) {
        self.tree.replace(name, self.random.bytes(30_000));
        self.note(name);
    }

    fn remove(&mut self, name: &str) {
        self.tree.remove(name);
        self.note(name);
    }

    fn rename(&mut self, name: &str) {
        let new = self.new_name("table");
        self.tree.rename(name, &new);
        self.note(name);
        self.note(&new);
    }

    /// The file is used again under another name, as segments of a log are.
    fn recycle(&mut self, name: &str) {
        let new = self.new_name("heap");
        self.tree.rename(name, &new);
        self.note(name);
        self.note(&new);
        self.overwrite(&new);
    }

    /// The states of a name from the moment `since` on.
    fn states_since(&self, name: &str, since: u64) -> Vec<Option<&[u8]>> {
        let Some(states) = self.states.get(name) else { return Vec::new() };
        let before = states.iter().rposition(|(at, _)| *at <= since).unwrap_or(0);
        states.iter().skip(before).map(|(_, state)| state.as_deref()).collect()
    }
}

const PAGE: usize = 4096;

/// How a [`Mapper`] changes a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Through the map, which it keeps.
    Store,
    /// One page, past the page cache.
    Direct,
}

/// A program that maps files into its memory.
pub(super) struct Mapper(std::process::Child);

impl Mapper {
    pub(super) fn start() -> Self {
        let program = "import mmap, os, sys\n\
            maps = {}\n\
            for line in sys.stdin:\n\
            \x20   how, path, at, data = line.split()\n\
            \x20   at, data = int(at), bytes.fromhex(data)\n\
            \x20   file = os.open(path, os.O_RDWR | (os.O_DIRECT if how == 'Direct' else 0))\n\
            \x20   stat = os.fstat(file)\n\
            \x20   if how == 'Direct':\n\
            \x20       page = mmap.mmap(-1, len(data))\n\
            \x20       page[:] = data\n\
            \x20       assert os.pwrite(file, page, at) == len(data)\n\
            \x20   else:\n\
            \x20       key = (stat.st_ino, stat.st_size)\n\
            \x20       if key not in maps: maps[key] = mmap.mmap(file, 0)\n\
            \x20       maps[key][at:at + len(data)] = data\n\
            \x20   os.close(file)\n\
            \x20   print('stored', flush=True)\n";
        let mut command = std::process::Command::new("python3");
        command.args(["-c", program]);
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    pub(super) fn put(&mut self, how: How, path: &Path, at: usize, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(self.0.stdin.as_mut().unwrap(), "{how:?} {} {at} {hex}", path.display()).unwrap();
        self.0.stdout.as_mut().unwrap().read_exact(&mut [0; 7]).unwrap();
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Problems of a push that began at `since`.
fn faults(owner: &Owner<'_>, outcome: &Outcome, since: u64) -> Vec<String> {
    let reported: BTreeSet<&str> = outcome.problems.iter().map(|(name, _)| &**name).collect();
    let mut faults = Vec::new();
    for file in &outcome.files {
        let name = &*file.name;
        let states = owner.states_since(name, since);
        match file.end {
            Some(FileEnd::Whole(_)) if states.contains(&Some(&*outcome.content(name))) => {}
            Some(FileEnd::Whole(_)) => faults.push(format!("`{name}` is whole and was never so")),
            Some(FileEnd::Fuzzy(_)) => {}
            Some(FileEnd::Torn(_) | FileEnd::Unreadable) if reported.contains(name) => {}
            Some(FileEnd::Torn(_) | FileEnd::Unreadable) => faults.push(format!("`{name}` is not reported")),
            None => faults.push(format!("`{name}` has no end")),
        }
    }
    let linked: BTreeSet<&str> = outcome.others.iter().map(|(name, _)| &**name).collect();
    for (name, states) in &owner.states {
        let at_start = states.iter().rfind(|(at, _)| *at <= since);
        let was_there = at_start.is_some_and(|(_, state)| state.is_some());
        let is_there = outcome.files.iter().any(|file| file.name == *name) || linked.contains(&**name);
        if was_there && !is_there && !reported.contains(&**name) {
            faults.push(format!("`{name}` is left out without a word"));
        }
    }
    faults
}

/// Runs a history, and returns what was wrong with its pushes.
fn history(seed: u64, rules: &[&str]) -> Vec<String> {
    let tree = Tree::new();
    let owner = Mutex::new(Owner::new(&tree, seed, Stores::Written));
    let mut found = Vec::new();
    for number in 0..PUSHES {
        let (since, ops, places) = {
            let mut owner = owner.lock().unwrap();
            for _ in 0..owner.random.below(4) {
                owner.act();
            }
            let places: BTreeSet<u64> = (0..owner.random.below(5))
                .map(|_| u64::try_from(owner.random.below(1_500_000)).unwrap())
                .collect();
            (owner.now, owner.random.below(3), places)
        };
        let places = Mutex::new(places);
        let between = || (0..ops).for_each(|_| owner.lock().unwrap().act());
        let on_read = |read: u64| {
            // In some histories a file is written to again and again while it is read, and never stays still.
            if seed % 8 == 7 {
                let mut owner = owner.lock().unwrap();
                owner.names(Kind::Heap).first().iter().for_each(|name| owner.tear(name));
            }
            let mut places = places.lock().unwrap();
            while places.first().is_some_and(|place| *place <= read) {
                places.pop_first();
                owner.lock().unwrap().act();
            }
        };
        let mode = if seed.is_multiple_of(2) { FreezeMode::Auto } else { FreezeMode::Hardlink };
        let mut push = tree.push().freeze(mode).alike(Alike::Exact);
        for rule in rules {
            push = push.class(rule);
        }
        let outcome = push.between(between).on_read(on_read).run();
        let wrong = faults(&owner.lock().unwrap(), &outcome, since);
        found.extend(wrong.into_iter().map(|fault| format!("seed {seed}, push {number}: {fault}")));
    }
    found
}

/// Runs a history of an owner who also stores through memory maps, and returns what was wrong with its pushes.
///
/// While a push runs there is one such store at most: two of them in a dirty page, one before and one behind the place
/// that is being read, leave no sign at all, and no reader of a file that is not a copy can tell.
fn mapped_history(seed: u64) -> Vec<String> {
    let tree = Tree::new();
    let owner = Mutex::new(Owner::new(&tree, seed, Stores::Mapped));
    let mut found = Vec::new();
    for number in 0..PUSHES {
        let mut owned = owner.lock().unwrap();
        (0..owned.random.below(3)).for_each(|_| owned.act());
        (0..owned.random.below(4)).for_each(|_| owned.store());
        let has_passed = owned.random.below(2) == 0;
        let place = Mutex::new((!has_passed).then(|| u64::try_from(owned.random.below(800_000)).unwrap()));
        if has_passed {
            owned.pass_a_minute();
        }
        let (since, now) = (owned.now, tree.tick());
        drop(owned);
        let on_read = |read: u64| {
            if place.lock().unwrap().take_if(|place| *place <= read).is_some() {
                owner.lock().unwrap().store();
            }
        };
        // Soon after the last store, or long after.
        let clock = if has_passed { LATER } else { At(Timestamp { seconds: now.seconds + 30, ..now }) };
        let outcome = tree.push().at(clock).alike(Alike::Exact).on_read(on_read).run();
        let wrong = faults(&owner.lock().unwrap(), &outcome, since);
        found.extend(wrong.into_iter().map(|fault| format!("seed {seed}, push {number}: {fault}")));
    }
    found
}

fn histories(few: u64, nightly: u64) -> std::ops::Range<u64> {
    let is_nightly = std::env::var_os("ASTACUS_NIGHTLY").is_some_and(|value| value == "1");
    0..if is_nightly { nightly } else { few }
}

/// Runs histories on all processors, until one is wrong.
fn run(seeds: std::ops::Range<u64>, rules: &[&str]) -> Vec<String> {
    run_with(seeds, None, |seed| history(seed, rules))
}

/// The same without a rule, or of other histories.
fn run_with(
    seeds: std::ops::Range<u64>,
    old: Option<Old>,
    history: impl Fn(u64) -> Vec<String> + Sync,
) -> Vec<String> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (next, wrong) = (Mutex::new(seeds), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.lock().unwrap().next();
                    let Some(seed) = seed.filter(|_| wrong.lock().unwrap().is_empty()) else { return };
                    let found = with_old(old, || history(seed));
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    wrong.into_inner().unwrap()
}

/// C1: without any class, no snapshot holds bytes under a name that it never had, or calls a mixture whole.
#[test]
fn no_history_makes_a_push_store_what_a_name_never_was() {
    let wrong = run(histories(120, 12_000), &[]);

    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// C1: nor with classes that are true.
#[test]
fn no_history_of_classed_files_makes_a_push_store_what_a_name_never_was() {
    let rules = ["append-only=log-*", "immutable=table-*", "mutable=heap-a", "logged=heap-*"];
    let wrong = run(histories(80, 8_000), &rules);

    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// C10: nor where bytes change and no time does.
#[test]
fn no_history_of_stores_through_memory_maps_makes_a_push_store_what_a_name_never_was() {
    if !shows_stores_late() {
        return;
    }
    let wrong = run_with(histories(60, 6_000), None, mapped_history);

    assert!(wrong.is_empty(), "{wrong:#?}");
    let twin = run_with(histories(400, 4_000), Some(Old::TickOnly), mapped_history);
    assert!(!twin.is_empty(), "times that are believed a tick after the last change");
}

/// True if the second store to a page leaves no sign, as on every file system that writes pages out later.
fn shows_stores_late() -> bool {
    let tree = Tree::new();
    tree.write("file", noise(9000, 1));
    let mut mapper = Mapper::start();
    let mut store = |byte| {
        mapper.put(How::Store, &tree.path("file"), 5000, &[byte]);
        tree.identity("file").mtime
    };
    let first = store(1);
    tree.tick();
    first == store(2)
}

/// The twin: each old rule is found out. That every file that grew is a log is a class now, which is one only for logs.
#[test]
fn histories_find_each_old_rule() {
    assert!(!run(histories(400, 4_000), &["append-only=*"]).is_empty(), "a class that is not true");
    for old in [Old::GrowthIsAppending, Old::NameOfTheFreeze, Old::LastReadingIsWhole] {
        assert!(!run_with(histories(400, 4_000), Some(old), |seed| history(seed, &[])).is_empty(), "{old:?}");
    }
}

/// The twin of the judge: another state, a mixture that is not marked, a file that is not there.
#[test]
fn the_judge_of_histories_sees_what_is_wrong() {
    let tree = Tree::new();
    let mut owner = Owner::new(&tree, 1, Stores::Written);
    let since = owner.now;
    let outcome = tree.push().run();
    assert_eq!(faults(&owner, &outcome, since), [""; 0]);

    owner.overwrite("heap-b");
    let later = owner.now;
    assert_eq!(faults(&owner, &outcome, later), ["`heap-b` is whole and was never so"]);
    tree.write("heap-x", "x");
    owner.note("heap-x");
    assert!(faults(&owner, &outcome, owner.now).contains(&"`heap-x` is left out without a word".to_owned()));
    let mut torn = tree.push().run();
    let file = torn.files.iter_mut().find(|file| file.name == "heap-x").unwrap();
    file.end = Some(FileEnd::Unreadable);
    assert_eq!(faults(&owner, &torn, owner.now), ["`heap-x` is not reported"]);
}
