//! Files that change while they are pushed, in every way that their owner can think of.
//!
//! Each byte of a file follows from the file, its generation and the byte's place. So a judge can tell of
//! any restored file which generation it is, and sees a mix of two, or bytes from elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tests::client::{Client, number, text};
use tests::gear;
use tests::seed::Random;
use tests::world::{Folder, World};

const FILES: u32 = 40;
const MAX_LEN: usize = 600_000;
/// Length of a file that has grown as often as it may.
const LONGEST: usize = 4_000_000;
const NOISE_LEN: usize = 24 << 20;
/// Bytes that are written in place at once.
const PIECE: usize = 8 << 10;
/// The one file in a folder that took the place of a file.
const INNER: &str = "inner";
/// A file outside of the root that no push may read.
const OUTSIDE: Owner = Owner { file: u32::MAX, generation: 0 };

/// Owner of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    file: u32,
    generation: u32,
}

impl Owner {
    /// Bytes `from..to` of this generation.
    fn bytes(self, from: usize, to: usize) -> &'static [u8] {
        let seed = u64::from(self.file) << 32 | u64::from(self.generation);
        let start = Random::new(seed).index(NOISE_LEN - LONGEST);
        &noise()[start + from..start + to]
    }

    /// How many of the first bytes of `found` are this generation's.
    fn agrees(self, found: &[u8]) -> usize {
        let expected = self.bytes(0, found.len().min(LONGEST));
        if found == expected {
            return found.len();
        }
        found.iter().zip(expected).take_while(|(a, b)| a == b).count()
    }
}

/// Random bytes: each generation has its place in them.
fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| Random::new(1).bytes(NOISE_LEN))
}

/// Meaning of a name since the push began.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The first bytes of a generation: so many at least, and at most.
    Content { generation: u32, least: usize, most: usize },
    /// `new` up to some place, and `old` from there on: it was written in place from front to back.
    Overwritten { old: u32, new: u32, len: usize },
    /// A link to the file outside.
    Link,
    /// A folder with one file of a generation.
    Folder { generation: u32, len: usize },
    /// The name does not exist.
    Gone,
}

/// Changes of a file since its owner last wrote it alone, which limit the next changes: the product trusts
/// growth, and distinguishes times only by the ticks of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Since {
    Nothing,
    Growth,
    /// It stays as it is until another file gets its name.
    Final,
}

/// A name below the root, and all it has stood for.
struct Subject {
    file: u32,
    path: PathBuf,
    newest: u32,
    since: Since,
    /// The last is what it is now.
    states: Vec<State>,
}

impl Subject {
    fn new(file: u32) -> Self {
        let path = PathBuf::from(format!("folder-{}/file-{file}", file % 4));
        Self { file, path, newest: 0, since: Since::Nothing, states: vec![State::Gone] }
    }

    fn owner(&self, generation: u32) -> Owner {
        Owner { file: self.file, generation }
    }

    fn next(&mut self) -> Owner {
        self.newest += 1;
        self.owner(self.newest)
    }

    fn now(&self) -> &State {
        self.states.last().expect("there is always one")
    }

    /// Only what it is now counts from here on.
    fn begin(&mut self) {
        self.states.drain(..self.states.len() - 1);
        if let [state @ State::Overwritten { .. }] = self.states.as_mut_slice()
            && let State::Overwritten { new, len, .. } = *state
        {
            *state = State::Content { generation: new, least: len, most: len };
        }
        if let [State::Content { least, most, .. }] = self.states.as_mut_slice() {
            *least = *most;
        }
        self.since = Since::Nothing;
    }

    /// True if the file that was restored at `path` is in one of its former states.
    fn is_known(&self, found: &[u8]) -> bool {
        self.states.iter().any(|state| match *state {
            State::Content { generation, least, most } => {
                (least..=most).contains(&found.len()) && self.owner(generation).agrees(found) == found.len()
            }
            State::Overwritten { old, new, len } => {
                let cut = self.owner(new).agrees(found);
                found.len() == len && found[cut..] == *self.owner(old).bytes(cut, len)
            }
            _ => false,
        })
    }

    /// Problem of the restored file.
    fn finding(&self, restored: &Path, problems: &Problems) -> Option<String> {
        let at = restored.join(&self.path);
        let Ok(meta) = fs::symlink_metadata(&at) else {
            let told = problems.0.contains_key(&self.path) || self.states.contains(&State::Gone);
            return (!told).then(|| "is missing, and nobody says so".to_owned());
        };
        match problems.0.get(&self.path) {
            // The rest of a truncated file is one of its states; a mixture is marked as one.
            Some(reason) if reason.contains("a mixture of states") => return None,
            Some(reason) if !reason.contains("was truncated") => {
                return Some("is there, and a problem says that it is not".to_owned());
            }
            _ => {}
        }
        if meta.is_symlink() {
            return (!self.states.contains(&State::Link)).then(|| "was never a link".to_owned());
        }
        if meta.is_dir() {
            return self.inner_finding(&at, problems);
        }
        let found = fs::read(&at).unwrap();
        if self.is_known(&found) {
            return None;
        }
        if OUTSIDE.agrees(&found) >= found.len().min(16) && !found.is_empty() {
            return Some("has the bytes of a file outside".to_owned());
        }
        let agrees = (0..=self.newest).map(|generation| self.owner(generation).agrees(&found)).max();
        Some(format!("{} bytes are no state that it was in; one agrees with {agrees:?}", found.len()))
    }

    fn inner_finding(&self, at: &Path, problems: &Problems) -> Option<String> {
        let folders = self.states.iter().filter_map(|state| match *state {
            State::Folder { generation, len } => Some((self.owner(generation), len)),
            _ => None,
        });
        let Ok(found) = fs::read(at.join(INNER)) else {
            let told = problems.0.contains_key(&self.path.join(INNER));
            return (!told).then(|| "has lost the file in it".to_owned());
        };
        let mut matching = folders.filter(|(owner, len)| *len == found.len() && owner.agrees(&found) == *len);
        matching.next().is_none().then(|| "holds a file that was never in it".to_owned())
    }
}

/// Names below the root that the push reports.
struct Problems(BTreeMap<PathBuf, String>);

impl Problems {
    fn of(report: &Value, root: &Path) -> Self {
        let all = report["problems"].as_array().unwrap().iter();
        let path = |problem: &Value| PathBuf::from(problem["path"].as_str().unwrap());
        let below = |problem: &Value| path(problem).strip_prefix(root).unwrap().to_owned();
        Self(all.map(|problem| (below(problem), text(problem, "reason"))).collect())
    }
}

/// Problems of a restored tree.
fn findings(restored: &Path, subjects: &[Subject], problems: &Problems) -> Vec<String> {
    let mut found = Vec::new();
    let mut known: BTreeSet<PathBuf> = BTreeSet::from([PathBuf::new()]);
    for subject in subjects {
        let is_untouched = matches!(subject.states.as_slice(), [State::Content { least, most, .. }]
            if least == most);
        if is_untouched && problems.0.contains_key(&subject.path) {
            found.push(format!("{}: a problem, though nobody touched it", subject.path.display()));
        }
        let finding = subject.finding(restored, problems);
        found.extend(finding.map(|what| format!("{}: {what}", subject.path.display())));
        known.extend([subject.path.clone(), subject.path.join(INNER)]);
        known.extend(subject.path.parent().map(Path::to_owned));
    }
    let unknown = names(restored).into_iter().filter(|name| !known.contains(name));
    found.extend(unknown.map(|name| format!("{}: was never in the root", name.display())));
    found
}

/// All names below a folder.
fn names(root: &Path) -> Vec<PathBuf> {
    let (mut found, mut rest) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = rest.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let name = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                rest.push(name.clone());
            }
            found.push(name);
        }
    }
    found
}

/// Changes files.
struct Mutator {
    random: Random,
    root: PathBuf,
    /// Folder in which files are made before they get a name in the root.
    aside: PathBuf,
    outside: PathBuf,
    subjects: Vec<Subject>,
    done: [u32; 6],
}

impl Mutator {
    fn new(folder: &Path, mut random: Random) -> Self {
        let [root, aside] = ["source", "aside"].map(|name| folder.join(name));
        let outside = folder.join("outside");
        fs::write(&outside, OUTSIDE.bytes(0, MAX_LEN)).unwrap();
        fs::create_dir_all(&aside).unwrap();
        let subjects: Vec<Subject> = (0..FILES).map(Subject::new).collect();
        for subject in &subjects {
            fs::create_dir_all(root.join(subject.path.parent().unwrap())).unwrap();
        }
        let random = Random::new(random.number());
        Self { random, root, aside, outside, subjects, done: [0; 6] }
    }

    /// Mostly short, and some of the full length.
    fn length(&mut self) -> usize {
        let limit = 1 + self.random.index(MAX_LEN);
        self.random.index(limit)
    }

    /// Changes between two pushes: none to many files, and every name is a file again.
    fn renew(&mut self) {
        for n in 0..self.subjects.len() {
            let is_file = matches!(self.subjects[n].now(), State::Content { .. } | State::Overwritten { .. });
            self.subjects[n].since = Since::Nothing;
            match self.random.index(8) {
                _ if !is_file => self.replace(n),
                0 => self.replace(n),
                1 => self.append(n),
                2 => self.overwrite(n),
                3 => self.truncate(n),
                _ => {}
            }
            self.subjects[n].begin();
        }
    }

    /// Does something to some file.
    fn mutate(&mut self) {
        let n = self.random.index(self.subjects.len());
        let kind = self.random.index(12);
        let subject = &self.subjects[n];
        let is_file = matches!(subject.now(), State::Content { .. });
        let count = match (kind, subject.since) {
            // A name that has become a folder, or has gone, stays that: the owner has other things to do.
            _ if matches!(subject.now(), State::Folder { .. } | State::Gone) => return,
            (0..=3, Since::Nothing | Since::Growth) if is_file => {
                self.append(n);
                0
            }
            (4, Since::Nothing | Since::Growth) if is_file => {
                self.truncate(n);
                1
            }
            (5 | 6, Since::Nothing) if is_file => {
                self.overwrite(n);
                2
            }
            (7 | 8, _) => {
                self.replace(n);
                3
            }
            (9, _) => {
                self.remove(n);
                4
            }
            (10, _) => {
                self.link(n);
                5
            }
            (11, _) => {
                self.make_folder(n);
                5
            }
            _ => return,
        };
        self.done[count] += 1;
    }

    fn path(&self, n: usize) -> PathBuf {
        self.root.join(&self.subjects[n].path)
    }

    /// Notes what the name will be in a moment: a push may see it before we are back.
    fn becomes(&mut self, n: usize, state: State, since: Since) {
        self.subjects[n].states.push(state);
        self.subjects[n].since = since;
    }

    fn replace(&mut self, n: usize) {
        let (owner, len) = (self.subjects[n].next(), self.length());
        let new = self.aside.join("new");
        fs::write(&new, owner.bytes(0, len)).unwrap();
        self.becomes(
            n,
            State::Content { generation: owner.generation, least: len, most: len },
            Since::Growth,
        );
        let path = self.path(n);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path).unwrap();
        }
        rustix::fs::rename(&new, &path).unwrap();
    }

    fn append(&mut self, n: usize) {
        let more = 1 + self.random.index(20_000);
        let path = self.path(n);
        let subject = &mut self.subjects[n];
        if let Some(State::Overwritten { new, len, .. }) = subject.states.last() {
            let state = State::Content { generation: *new, least: *len, most: *len };
            subject.states.push(state);
        }
        let (file, now) = (subject.file, subject.states.last_mut());
        let Some(State::Content { generation, most, .. }) = now else { return };
        if *most + more > LONGEST {
            return;
        }
        let bytes = Owner { file, generation: *generation }.bytes(*most, *most + more);
        *most += more;
        subject.since = Since::Growth;
        OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    fn truncate(&mut self, n: usize) {
        let (generation, most) = match *self.subjects[n].now() {
            State::Content { generation, most, .. } => (generation, most),
            State::Overwritten { new, len, .. } => (new, len),
            _ => return,
        };
        let len = self.random.index(most.max(1));
        self.becomes(n, State::Content { generation, least: len, most: len }, Since::Final);
        let file = OpenOptions::new().write(true).open(self.path(n)).unwrap();
        file.set_len(u64::try_from(len).unwrap()).unwrap();
    }

    /// Writes a file of the same length over the old one, from front to back.
    fn overwrite(&mut self, n: usize) {
        let (old, len) = match *self.subjects[n].now() {
            State::Content { generation, most, .. } => (generation, most),
            State::Overwritten { new, len, .. } => (new, len),
            _ => return,
        };
        let owner = self.subjects[n].next();
        self.becomes(n, State::Overwritten { old, new: owner.generation, len }, Since::Final);
        let bytes = owner.bytes(0, len);
        let file = OpenOptions::new().write(true).open(self.path(n)).unwrap();
        for (piece, part) in bytes.chunks(PIECE).enumerate() {
            file.write_all_at(part, u64::try_from(piece * PIECE).unwrap()).unwrap();
        }
    }

    fn remove(&mut self, n: usize) {
        self.becomes(n, State::Gone, Since::Final);
        fs::remove_file(self.path(n)).unwrap();
    }

    fn link(&mut self, n: usize) {
        let new = self.aside.join("new");
        symlink(&self.outside, &new).unwrap();
        self.becomes(n, State::Link, Since::Final);
        rustix::fs::rename(&new, self.path(n)).unwrap();
    }

    fn make_folder(&mut self, n: usize) {
        let (owner, len) = (self.subjects[n].next(), self.length());
        let new = self.aside.join("new");
        fs::create_dir(&new).unwrap();
        fs::write(new.join(INNER), owner.bytes(0, len)).unwrap();
        self.remove(n);
        self.becomes(n, State::Folder { generation: owner.generation, len }, Since::Final);
        rustix::fs::rename(&new, self.path(n)).unwrap();
    }
}

/// Sums over all rounds.
#[derive(Default)]
struct Sum {
    rounds: usize,
    files: u64,
    problems: u64,
    read_again: u64,
    partial: u64,
}

impl Sum {
    fn add(&mut self, report: &Value) {
        self.rounds += 1;
        self.files += number(report, "files");
        self.problems += number(report, "problem_count");
        self.partial += u64::from(report["state"] == "partial");
        let again = report["fallbacks"].as_array().unwrap().iter();
        let again = again.filter(|fallback| fallback["reason"].as_str().unwrap().contains("read again"));
        self.read_again += again.map(|fallback| number(fallback, "files")).sum::<u64>();
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, files, problems, read_again, partial } = self;
        write!(
            f,
            "{rounds} rounds, {files} files kept, {problems} problems in {partial} of them, {read_again} read again"
        )
    }
}

/// Pushes while files change, and returns the report.
fn race(mutator: &mut Mutator, node: &Client, freeze: &str) -> Value {
    let push = node.start_push_of(&[&mutator.root], &["--freeze", freeze]);
    let done = loop {
        mutator.mutate();
        let pause = Duration::from_micros(mutator.random.below(2500));
        if let Some(done) = push.within(pause) {
            break done;
        }
    };
    assert!(matches!(done.code, Some(0 | 3)), "{done:?}");
    done.json()
}

/// C1, C3, S6: whatever happens to files while they are pushed, what was kept of each is one state of it,
/// from the time of that push, or the push says that it is missing.
#[test]
fn what_is_kept_of_a_changing_file_is_one_state_that_it_was_in() {
    let world = World::new();
    let mut mutator = Mutator::new(&world.dir("race"), Random::printed());
    let node = world.node("n");
    let mut sum = Sum::default();
    for round in 0..gear::rounds(100, 1000) {
        mutator.renew();
        let freeze = if round % 4 == 3 { "none" } else { "hardlink" };

        let report = race(&mut mutator, &node, freeze);

        let to = world.path("restored");
        let restored = node.restore("latest", &to, &["--strip-root", "--allow-partial"]);
        let expected = if report["state"] == "partial" { 3 } else { 0 };
        assert_eq!(restored.code, Some(expected), "round {round}: {restored:?}");
        let problems = Problems::of(&report, &mutator.root);
        let found = findings(&to, &mutator.subjects, &problems);
        assert!(found.is_empty(), "round {round}, {freeze}: {found:#?}\n{report:#}");
        fs::remove_dir_all(&to).unwrap();
        sum.add(&report);
    }
    let [appended, truncated, overwritten, replaced, removed, others] = mutator.done;
    println!("{sum}");
    println!(
        "{appended} appended, {truncated} truncated, {overwritten} overwritten, {replaced} replaced, \
         {removed} removed, {others} made links or folders"
    );
    assert!(mutator.done.iter().all(|done| *done > 0), "not everything was done to the files");
    assert!(sum.files > 30 * u64::try_from(sum.rounds).unwrap(), "hardly a file was kept: {sum}");
}

/// A restored tree, and what its files have been.
struct Case {
    subjects: Vec<Subject>,
    folder: Folder,
}

impl Case {
    const LEN: usize = 10_000;

    /// Two files as they should be: one that grew from half its length, one that was overwritten up to
    /// its middle.
    fn new() -> Self {
        let mut subjects = vec![Subject::new(0), Subject::new(1)];
        subjects[0].states = vec![State::Content { generation: 1, least: Self::LEN / 2, most: Self::LEN }];
        subjects[1].states = vec![State::Overwritten { old: 1, new: 2, len: Self::LEN }];
        let case = Self { subjects, folder: Folder::new() };
        for (n, bytes) in [(0, case.bytes(0, 1)), (1, case.half(2, 1))] {
            let path = case.path(n);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        case
    }

    fn bytes(&self, file: usize, generation: u32) -> Vec<u8> {
        self.subjects[file].owner(generation).bytes(0, Self::LEN).to_vec()
    }

    /// The second file: the first half of one generation, the second of another.
    fn half(&self, first: u32, second: u32) -> Vec<u8> {
        let half = Self::LEN / 2;
        [&self.bytes(1, first)[..half], &self.bytes(1, second)[half..]].concat()
    }

    fn path(&self, n: usize) -> PathBuf {
        self.folder.path("restored").join(&self.subjects[n].path)
    }

    fn findings(&self, problems: &[usize]) -> Vec<String> {
        let problems = problems.iter().map(|n| (self.subjects[*n].path.clone(), "gone".to_owned())).collect();
        findings(&self.folder.path("restored"), &self.subjects, &Problems(problems))
    }

    /// Findings when file `n` has these bytes.
    fn with(n: usize, bytes: impl FnOnce(&Self) -> Vec<u8>) -> Vec<String> {
        let case = Self::new();
        fs::write(case.path(n), bytes(&case)).unwrap();
        case.findings(&[])
    }
}

/// The twin of the test of races: the judge lets pass what was, and nothing else.
#[test]
fn the_judge_sees_a_mixed_byte_a_file_from_outside_and_whatever_never_was() {
    let fits = |n, bytes: fn(&Case) -> Vec<u8>| assert_eq!(Case::with(n, bytes), Vec::<String>::new());
    fits(0, |case| case.bytes(0, 1));
    fits(0, |case| case.bytes(0, 1)[..Case::LEN / 2 + 3].to_vec());
    fits(1, |case| case.half(2, 1));
    fits(1, |case| case.bytes(1, 1));
    fits(1, |case| case.bytes(1, 2));

    let refused = |n, bytes: fn(&Case) -> Vec<u8>| {
        let found = Case::with(n, bytes);
        assert_eq!(found.len(), 1, "{found:?}");
        found.concat()
    };
    refused(0, |case| {
        let mut mixed = case.bytes(0, 1);
        mixed[7000] = case.bytes(0, 2)[7000];
        assert_ne!(mixed[7000], case.bytes(0, 1)[7000]);
        mixed
    });
    refused(0, |case| case.bytes(0, 2));
    refused(0, |case| case.bytes(1, 1));
    refused(0, |case| case.bytes(0, 1)[..Case::LEN / 2 - 1].to_vec());
    refused(0, |case| [case.bytes(0, 1), vec![0]].concat());
    refused(1, |case| case.half(1, 2));
    refused(1, |case| case.half(2, 1)[1..].to_vec());
    assert!(refused(0, |_| OUTSIDE.bytes(0, Case::LEN).to_vec()).contains("outside"));

    let changed = |change: fn(&Case), problems: &[usize]| {
        let case = Case::new();
        change(&case);
        case.findings(problems).len()
    };
    assert_eq!(changed(|_| {}, &[]), 0);
    assert_eq!(changed(|case| fs::remove_file(case.path(0)).unwrap(), &[]), 1);
    assert_eq!(changed(|case| fs::remove_file(case.path(0)).unwrap(), &[0]), 0);
    assert_eq!(changed(|_| {}, &[0]), 1);
    assert_eq!(changed(|case| fs::write(case.path(0).with_file_name(".astacus"), "").unwrap(), &[]), 1);
    let link = |case: &Case| {
        fs::remove_file(case.path(0)).unwrap();
        symlink("/etc/passwd", case.path(0)).unwrap();
    };
    assert_eq!(changed(link, &[]), 1);
}
