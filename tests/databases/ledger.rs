//! Commits that follow from their number, a log of those that a database acknowledged, and the judge of what it
//! holds after a restore.
//!
//! One writer makes commit 1, 2, 3 and so on. Each puts a new row and changes an older one, both or none. So what a
//! database may hold is what the first `n` commits make, for one `n`: any other content is wrong.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use tests::wait;

/// Length of a value. Keys and values are ASCII letters and digits, and valid Base64.
pub(crate) const VALUE_LEN: usize = 1024;

/// Commits that a writer makes without a stop, at most: some databases take more than a disk of tests can hold.
const MOST_AT_ONCE: u64 = 5000;

/// The rows of a database: value by key.
pub(crate) type Rows = BTreeMap<u64, String>;

/// Rows that commit `number` puts, both or none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Commit {
    /// Its number.
    pub(crate) number: u64,
}

impl Commit {
    /// Keys and values that it puts: a new row, and one that is there or, by chance, new as well.
    pub(crate) fn puts(self) -> [(u64, String); 2] {
        let older = mix(self.number) % self.number;
        [self.number, older].map(|key| (key, value(key, self.number)))
    }
}

/// Rows after the first `count` commits.
pub(crate) fn rows_after(count: u64) -> Rows {
    let puts = (1..=count).flat_map(|number| [(number, number), (mix(number) % number, number)]);
    // Only the last value of each row is made.
    let last: BTreeMap<u64, u64> = puts.collect();
    last.into_iter().map(|(key, number)| (key, value(key, number))).collect()
}

fn value(key: u64, number: u64) -> String {
    let words = (0..).map(|n| format!("{:016x}", mix(mix(key) ^ mix(number << 20 | n))));
    let mut text = format!("{number:016}");
    text.extend(words.take(VALUE_LEN / 16 - 1));
    text
}

/// SplitMix64.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Returns the `n` in `allowed` whose first `n` commits make exactly the rows `found`.
///
/// # Errors
/// How it differs.
pub(crate) fn judge(found: &Rows, allowed: &RangeInclusive<u64>) -> Result<u64, String> {
    let count = found.keys().next_back().copied().unwrap_or(0);
    if count < *allowed.start() {
        return Err(format!("commit {} was acknowledged, the newest found is {count}", allowed.start()));
    }
    if count > *allowed.end() {
        return Err(format!("commit {count} is there, and only {} were ever begun", allowed.end()));
    }
    let right = rows_after(count);
    let differs = |key: &u64| found.get(key) != right.get(key);
    let keys: Vec<u64> = (0..=count)
        .filter(|key| found.contains_key(key) || right.contains_key(key))
        .filter(differs)
        .collect();
    match keys.first() {
        None => Ok(count),
        Some(key) => {
            let show = |rows: &Rows| rows.get(key).map(|value| value.get(..16).unwrap_or(value).to_owned());
            let (found, right) = (show(found), show(&right));
            let rows = keys.len();
            Err(format!("{rows} rows differ from commit {count}; row {key} is of {found:?}, not {right:?}"))
        }
    }
}

/// How far one writer has come, as the database acknowledges it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

impl Ledger {
    /// One whose first `count` commits are acknowledged.
    pub(crate) fn after(count: u64) -> Self {
        Self { begun: count.into(), acknowledged: count.into() }
    }

    /// The newest commit that the database acknowledged. All before it were acknowledged too.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// The newest commit that was begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Returns once `count` more commits are acknowledged than now.
    pub(crate) fn wait_for_more(&self, count: u64) {
        let goal = self.acknowledged() + count;
        wait::for_state("more commits", || (self.acknowledged() >= goal).then_some(()));
    }
}

/// Function that a writer calls for each commit; it returns once the database has acknowledged.
pub(crate) type Writer = Box<dyn FnMut(Commit) -> Result<(), String> + Send>;

/// A writer that commits all the time from where its ledger ends, up to [`MOST_AT_ONCE`].
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Writer, String>>,
}

impl Load {
    /// Starts it.
    pub(crate) fn start(ledger: &Arc<Ledger>, mut writer: Writer) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (ledger, stopped) = (Arc::clone(ledger), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let last = ledger.acknowledged() + MOST_AT_ONCE;
            while !stopped.load(Ordering::Relaxed) && ledger.acknowledged() < last {
                let number = ledger.acknowledged() + 1;
                ledger.begun.store(number, Ordering::SeqCst);
                writer(Commit { number }).map_err(|why| format!("commit {number}: {why}"))?;
                ledger.acknowledged.store(number, Ordering::SeqCst);
            }
            Ok(writer)
        });
        Self { stop, thread }
    }

    /// Ends it after its present commit, and returns its writer.
    ///
    /// # Panics
    /// If a commit failed.
    #[track_caller]
    pub(crate) fn stop(self) -> Writer {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join().expect("a writer does not panic");
        ended.expect("the database takes every commit")
    }
}

/// The judge takes every state that was, and says where any other is wrong.
#[test]
fn a_lost_an_invented_or_an_old_row_is_judged_wrong() {
    let wrong = |found: &Rows| judge(found, &(90..=110)).unwrap_err();
    for count in [90, 100, 110] {
        assert_eq!(judge(&rows_after(count), &(90..=110)), Ok(count));
    }
    let changed = |change: &dyn Fn(&mut Rows)| {
        let mut rows = rows_after(100);
        change(&mut rows);
        rows
    };

    assert!(wrong(&rows_after(89)).contains("acknowledged"));
    assert!(wrong(&rows_after(111)).contains("ever begun"));
    assert!(wrong(&Rows::new()).contains("acknowledged"));
    assert!(wrong(&changed(&|rows| drop(rows.remove(&50)))).contains("row 50"));
    assert!(wrong(&changed(&|rows| drop(rows.insert(7, value(7, 7) + "x")))).contains("row 7 "));
    // A page of an older moment: the row as it was before its last change.
    let old = rows_after(60);
    let (key, value) = old.iter().find(|(key, value)| rows_after(100).get(key) != Some(value)).unwrap();
    assert!(wrong(&changed(&|rows| drop(rows.insert(*key, value.clone())))).contains("1 rows differ"));
}

/// The puts of all commits, one after the other, make the rows that the judge expects.
#[test]
fn puts_one_after_the_other_make_the_rows_of_the_judge() {
    let mut rows = Rows::new();
    for number in 1..=50 {
        rows.extend(Commit { number }.puts());
    }

    assert_eq!(rows, rows_after(50));
    assert!(rows.values().all(|value| value.len() == VALUE_LEN));
}
