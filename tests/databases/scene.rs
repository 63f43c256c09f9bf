//! Pushes of a database beside its load, and what became of each, counted in a table.

use std::cell::Cell;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tests::client::{Client, Done, text};
use tests::gear;
use tests::loop_image::{FileSystem, LoopImage};
use tests::world::{Folder, World};

use crate::ledger::{Ledger, Load, Rows, Writer, judge};

/// Room for what a database makes of 40 times as many commits as there are at most beside a push.
const IMAGE_LEN: u64 = 3 << 30;

/// Commits that are acknowledged between two pushes.
const COMMITS_BETWEEN: u64 = 100;

/// Commits between two pushes that are to change little.
const FEW_COMMITS: u64 = 5;

/// A running server of a database.
pub(crate) trait Database: Sized {
    /// Its name in the table.
    const NAME: &'static str;

    /// Starts a server over the folder `data`, and returns once it answers. An empty folder becomes a new database.
    fn start(data: &Path) -> Result<Self, String>;

    /// A session that makes commits.
    fn writer(&self) -> Result<Writer, String>;

    /// All rows of the database, after its own tools have found no error.
    fn rows(&self) -> Result<Rows, String>;

    /// Stops it in order.
    fn stop(self);
}

/// Where the data folder of a database lies.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ground {
    /// The temporary folder of the machine.
    Temporary,
    /// A new file system in an image file.
    Image(FileSystem),
}

impl Ground {
    fn name(self) -> &'static str {
        match self {
            Self::Temporary => "here",
            Self::Image(FileSystem::Ext4 | FileSystem::Ext4Folding) => "ext4",
            Self::Image(FileSystem::Xfs) => "xfs",
        }
    }

    /// Those that a nightly run pushes from with second names.
    pub(crate) fn with_links() -> Self {
        if gear::is_set(gear::NIGHTLY) { Self::Image(FileSystem::Ext4) } else { Self::Temporary }
    }
}

/// A server of ours, and room for a database.
pub(crate) struct Scene {
    /// The server of ours.
    pub(crate) world: World,
    ground: Ground,
    // The image goes before the folder that it lies in.
    image: Option<LoopImage>,
    folder: Folder,
}

impl Scene {
    /// A new one. `None`, said aloud, where there can be no such file system.
    pub(crate) fn on(ground: Ground) -> Option<Self> {
        let folder = Folder::new();
        let image = match ground {
            Ground::Temporary => None,
            Ground::Image(kind) => Some(LoopImage::make_of(IMAGE_LEN, kind, &folder, "disk")?),
        };
        Some(Self { world: World::new(), ground, image, folder })
    }

    /// A folder on the ground, made if it is missing.
    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        let path =
            self.image.as_ref().map_or_else(|| self.folder.path(name), |image| image.path().join(name));
        fs::create_dir_all(&path).expect("a temporary folder can be written");
        path
    }

    /// Pushes a server under load `pushes` times by `method`, and judges each.
    ///
    /// # Panics
    /// If the server does not start, a commit fails, or a push ends with neither 0 nor 3.
    pub(crate) fn under_load<D: Database>(&self, method: &Method<D>, pushes: usize) -> Tally {
        let data = self.dir("data");
        let database = started::<D>(&data);
        let ledger = Arc::default();
        let mut writer = database.writer().expect("a session");
        let mut tally = Tally::new(D::NAME, method.name, self.ground);
        for _ in 0..pushes {
            let load = Load::start(&ledger, writer);
            ledger.wait_for_more(COMMITS_BETWEEN);
            let push = Push::new(self, &data, &ledger, Some(&database));
            let done = (method.push)(&push);
            writer = load.stop();
            tally.add(self.outcome(method, &push, &done));
        }
        drop(writer);
        database.stop();
        tally.commits = ledger.acknowledged();
        tally
    }

    /// The same, with the server stopped for each push: first after `first` commits, then always after a few, which
    /// change little of what is there.
    ///
    /// # Panics
    /// Like [`Self::under_load`].
    pub(crate) fn stopped<D: Database>(&self, method: &Method<D>, first: u64, pushes: usize) -> Tally {
        let data = self.dir("data");
        let ledger = Arc::default();
        let mut tally = Tally::new(D::NAME, method.name, self.ground);
        for n in 0..pushes {
            let database = started::<D>(&data);
            let mut writer = database.writer().expect("a session");
            loop {
                let load = Load::start(&ledger, writer);
                ledger.wait_for_more(if n == 0 { first.min(COMMITS_BETWEEN) } else { FEW_COMMITS });
                writer = load.stop();
                if ledger.acknowledged() >= first {
                    break;
                }
            }
            drop(writer);
            database.stop();
            let push = Push::new(self, &data, &ledger, None);
            let done = (method.push)(&push);
            tally.add(self.outcome(method, &push, &done));
        }
        tally.commits = ledger.acknowledged();
        tally
    }

    fn outcome<D: Database>(&self, method: &Method<D>, push: &Push<'_, D>, done: &Done) -> Outcome {
        let allowed = push.promised.get()..=push.ledger.begun();
        match done.code {
            Some(0) => match self.judge_restored(method, push, &done.json(), &allowed) {
                Ok(_) => Outcome::Right,
                Err(why) => Outcome::Wrong(why),
            },
            Some(3) if says_what_is_missing(&done.json()) => Outcome::Partial,
            Some(3) => Outcome::Wrong(format!("partial, and no file is named: {}", done.stdout)),
            _ => panic!("a push of {} failed: {done:#?}", D::NAME),
        }
    }

    fn judge_restored<D: Database>(
        &self,
        method: &Method<D>,
        push: &Push<'_, D>,
        report: &Value,
        allowed: &RangeInclusive<u64>,
    ) -> Result<u64, String> {
        let to = Folder::new();
        push.restore(&text(report, "snapshot"), &to.path("data"));
        let data = (method.ready)(push, &to.path("data"))?;
        let database = D::start(&data).map_err(|why| format!("it does not start: {why}"))?;
        let found = judge(&database.rows()?, allowed)?;
        goes_on(&database, found).map_err(|why| format!("new commits on what came back: {why}"))?;
        database.stop();
        Ok(found)
    }
}

fn started<D: Database>(data: &Path) -> D {
    D::start(data).unwrap_or_else(|why| panic!("{} does not start: {why}", D::NAME))
}

/// Makes a few commits after the first `found`: a server may show what it had, and lose what it takes from now on.
fn goes_on<D: Database>(database: &D, found: u64) -> Result<(), String> {
    let ledger = Arc::new(Ledger::after(found));
    let load = Load::start(&ledger, database.writer()?);
    ledger.wait_for_more(FEW_COMMITS);
    drop(load.stop());
    let all = ledger.acknowledged();
    judge(&database.rows()?, &(all..=all)).map(drop)
}

fn says_what_is_missing(report: &Value) -> bool {
    let problems = report["problems"].as_array();
    problems.is_some_and(|problems| problems.first().is_some_and(|first| first["path"].is_string()))
}

/// A way to push a database.
pub(crate) struct Method<D: Database> {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// Pushes the database, and returns what became of the push that counts.
    pub(crate) push: fn(&Push<'_, D>) -> Done,
    /// Makes a restored folder ready for a start, and returns the data folder; or what is wrong with it.
    pub(crate) ready: fn(&Push<'_, D>, &Path) -> Result<PathBuf, String>,
}

/// One push of a [`Method`].
pub(crate) struct Push<'a, D> {
    /// The node.
    pub(crate) node: Client,
    /// The data folder.
    pub(crate) data: &'a Path,
    /// Other folders.
    pub(crate) scene: &'a Scene,
    ledger: &'a Ledger,
    database: Option<&'a D>,
    promised: Cell<u64>,
}

impl<'a, D: Database> Push<'a, D> {
    fn new(scene: &'a Scene, data: &'a Path, ledger: &'a Ledger, database: Option<&'a D>) -> Self {
        let promised = Cell::new(ledger.acknowledged());
        Self { node: scene.world.node("db"), data, scene, ledger, database, promised }
    }

    /// The running server.
    pub(crate) fn database(&self) -> &D {
        self.database.expect("this method pushes a running server")
    }

    /// Promises every commit that is acknowledged by now. Without this it is those before the push.
    pub(crate) fn promise_until_now(&self) {
        self.promised.set(self.ledger.acknowledged());
    }

    /// Pushes the data folder with more arguments.
    pub(crate) fn run(&self, more: &[&str]) -> Done {
        self.node.start_push_of(&[self.data], more).wait()
    }

    /// Restores a complete snapshot to `to`, without the path that was pushed.
    pub(crate) fn restore(&self, snapshot: &str, to: &Path) {
        self.node.restore(snapshot, to, &["--strip-root"]).exits(0);
    }
}

/// The folder as it was restored.
#[expect(clippy::unnecessary_wraps, reason = "other methods find restored folders wrong")]
pub(crate) fn as_restored<D>(_: &Push<'_, D>, restored: &Path) -> Result<PathBuf, String> {
    Ok(restored.to_owned())
}

enum Outcome {
    Right,
    Wrong(String),
    Partial,
}

/// Outcomes of the pushes of one method.
#[derive(Debug)]
pub(crate) struct Tally {
    database: &'static str,
    method: &'static str,
    ground: &'static str,
    commits: u64,
    right: usize,
    partial: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn new(database: &'static str, method: &'static str, ground: Ground) -> Self {
        let ground = ground.name();
        Self { database, method, ground, commits: 0, right: 0, partial: 0, wrong: Vec::new() }
    }

    fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Right => self.right += 1,
            Outcome::Wrong(why) => self.wrong.push(why),
            Outcome::Partial => self.partial += 1,
        }
    }

    /// How the pushes that are complete and wrong are wrong.
    pub(crate) fn wrong(&self) -> &[String] {
        &self.wrong
    }

    fn line(&self) -> String {
        let Self { database, method, ground, commits, right, partial, wrong } = self;
        let (pushes, wrong) = (right + partial + wrong.len(), wrong.len());
        format!(
            "{database:<11} {method:<34} {ground:<5} {commits:>8} {pushes:>7} {right:>6} {wrong:>6} {partial:>8}"
        )
    }

    /// Adds it to the table that is printed, and fails if a push was complete and wrong.
    ///
    /// # Panics
    /// With what was wrong.
    #[track_caller]
    pub(crate) fn is_never_wrong(&self) {
        self.print();
        assert!(
            self.wrong.is_empty(),
            "{} by {}: complete and WRONG: {:#?}",
            self.database,
            self.method,
            self.wrong
        );
    }

    /// The same, and every push was complete.
    ///
    /// # Panics
    /// With what was wrong.
    #[track_caller]
    pub(crate) fn is_always_right(&self) {
        self.is_never_wrong();
        assert_eq!(self.partial, 0, "partial pushes by {}", self.method);
    }

    /// The table as far as the suite has come: the last that is printed has everything.
    fn print(&self) {
        static TABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let mut table = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
        table.push(self.line());
        table.sort();
        println!(
            "{:<11} {:<34} {:<5} {:>8} {:>7} {:>6} {:>6} {:>8}\n{}\n",
            "database",
            "method",
            "disk",
            "commits",
            "pushes",
            "right",
            "WRONG",
            "partial",
            table.join("\n")
        );
    }
}
