use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::*;
use crate::identity::Source;
use crate::push::find::list::Writer;
use crate::push::find::opener::Opener;
use crate::push::freeze::{Freeze, FreezeMode, FreezeOptions};
use crate::push::second_names::MARK;
use crate::push::select::{Caches, SelectOptions, of_patterns, roots};
use crate::twin::{Old, with_old};

const KEY: &str = "0123456789abcdef";

/// Notes every step as a list does. Files stay where they are, unless `hold` says otherwise.
pub(in crate::push) struct Seen<H> {
    list: Writer,
    hold: H,
    /// When it is, for folders.
    pub(in crate::push) now: Timestamp,
    pub(in crate::push) restless: u32,
    left_out: Vec<String>,
    unseen: Vec<String>,
}

impl<H> Seen<H> {
    pub(in crate::push) fn new(hold: H) -> Self {
        let file = || tempfile::tempfile().unwrap();
        let now = Timestamp { seconds: i64::MAX, nanos: 0 };
        Self {
            list: Writer::new([file(), file(), file()]),
            hold,
            now,
            restless: 0,
            left_out: Vec::new(),
            unseen: Vec::new(),
        }
    }

    pub(in crate::push) fn steps(self) -> Vec<Step> {
        let mut list = self.list.finish().unwrap();
        std::iter::from_fn(|| list.next_step().unwrap()).collect()
    }
}

impl<H: FnMut(&Place<'_>) -> Result<bool, Stopped>> Visitor for Seen<H> {
    fn file(&mut self, at: Place<'_>, _: Stat) -> Result<Row, Stopped> {
        Ok(Row::Waiting(self.list.wait(at.path).unwrap()))
    }

    fn hold(&mut self, at: Place<'_>, stat: Stat) -> Result<Option<Held>, Stopped> {
        let is_there = (self.hold)(&at)?;
        Ok(is_there.then_some(Held::as_is(stat)))
    }

    fn held(&mut self, row: u64, path: EntryPath, held: Option<Held>) -> Result<(), Stopped> {
        held.into_iter().for_each(|held| self.list.held(row, FoundFile::new(path.clone(), held)).unwrap());
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), Stopped> {
        self.list.push(&step).unwrap();
        Ok(())
    }

    fn take_back(&mut self, path: &EntryPath) {
        self.list.take_back(path);
    }

    fn insert(&mut self, step: Step) -> Result<(), Stopped> {
        self.list.insert(step);
        Ok(())
    }

    fn restless(&mut self, _: &EntryPath) -> Result<(), Stopped> {
        self.restless += 1;
        Ok(())
    }

    fn left_out(&mut self, path: &EntryPath) {
        self.left_out.push(path.to_string());
    }

    fn unseen(&mut self, path: &EntryPath) -> Result<(), Stopped> {
        self.unseen.push(path.to_string());
        Ok(())
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

fn everything() -> Selection {
    of_patterns(&[])
}

fn roots_of(paths: &[&Path]) -> Vec<Root> {
    let paths: Vec<_> = paths.iter().map(|path| path.to_path_buf()).collect();
    roots::check(&paths).unwrap()
}

/// Each step as `kind path`, with the path below `base` if it lies there.
fn shown(steps: &[Step], base: &EntryPath) -> Vec<String> {
    let show = |step: &Step| {
        let (kind, path) = match step {
            Step::File(file) => ("file", &file.path),
            Step::Plain(entry) if entry.kind == EntryKind::Symlink => ("link", &entry.path),
            Step::Plain(entry) => ("folder", &entry.path),
            Step::Skipped(path) => ("skipped", path),
            Step::Problem(path, _) => ("problem", path),
            Step::Waiting(path, _) => ("waiting", path),
        };
        let below = path.below(base).unwrap_or(path.as_bytes());
        format!("{kind} {}", format_spec::path::Printable(below))
    };
    steps.iter().map(show).collect()
}

/// All steps of a walk through `roots`, with paths below the first of them.
fn steps(roots: &[&Path], excludes: &[&str], mounts: Mounts) -> Vec<String> {
    let roots = roots_of(roots);
    let selection = of_patterns(excludes);
    let mut seen = Seen::new(|_: &Place<'_>| Ok(true));
    walk(&roots, &selection, mounts, &mut seen).unwrap();
    shown(&seen.steps(), &roots[0].path)
}

/// All steps of a walk through `root`, where `hold` may change what it finds.
fn steps_with(root: &Path, hold: impl FnMut(&Place<'_>) -> Result<bool, Stopped>) -> Vec<Step> {
    let mut seen = Seen::new(hold);
    walk(&roots_of(&[root]), &everything(), Mounts::Enter, &mut seen).unwrap();
    seen.steps()
}

#[test]
fn names_come_in_path_order_and_nothing_is_followed() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("a/sub/empty")).unwrap();
    fs::create_dir(root.join(".dots")).unwrap();
    for name in ["a-b", "a.txt", "a/z", "a/sub/x", ".hidden", "empty"] {
        fs::write(root.join(name), name).unwrap();
    }
    symlink("/etc", root.join("a/link")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe"), Mode::RUSR).unwrap();

    let steps = steps(&[&root], &[], Mounts::Enter);

    assert_eq!(
        steps,
        [
            "folder ",
            "folder .dots",
            "file .hidden",
            "folder a",
            "link a/link",
            "folder a/sub",
            "folder a/sub/empty",
            "file a/sub/x",
            "file a/z",
            "file a-b",
            "file a.txt",
            "link dangling",
            "file empty",
            "skipped pipe",
        ]
    );
}

#[test]
fn names_that_are_no_text_come_through_byte_for_byte() {
    let temp = tempfile::tempdir().unwrap();
    let odd: OsString = OsString::from_vec(b"\xff\xfe \n*".to_vec());
    fs::write(temp.path().join(&odd), "odd").unwrap();
    fs::write(temp.path().join(OsStr::from_bytes(&[b'n'; 255])), "long").unwrap();

    let steps = steps_with(temp.path(), |_| Ok(true));

    let roots = roots_of(&[temp.path()]);
    let off = FreezeOptions { mode: FreezeMode::Off, ..FreezeOptions::default() };
    let freeze = Freeze::new(&off, KEY, &roots, None).unwrap();
    let mut opener = Opener::new(&roots, &freeze);
    let mut files = Vec::new();
    for step in steps {
        if let Step::File(file) = step {
            let mut content = String::new();
            fs::File::from(opener.open(&file).unwrap()).read_to_string(&mut content).unwrap();
            files.push((file.path.components().last().unwrap().to_vec(), content));
        }
    }
    assert_eq!(files, [(vec![b'n'; 255], "long".to_owned()), (odd.into_vec(), "odd".to_owned())]);
}

#[test]
fn a_tree_deeper_than_the_longest_path_is_a_problem_and_not_an_end() {
    let temp = tempfile::tempdir().unwrap();
    let name = "d".repeat(200);
    let mut folder = open_folder(rustix::fs::CWD, temp.path().as_os_str().as_bytes()).unwrap();
    for _ in 0..25 {
        rustix::fs::mkdirat(&folder, &*name, Mode::RWXU).unwrap();
        folder = open_folder(&folder, name.as_bytes()).unwrap();
    }
    fs::write(temp.path().join("z"), "").unwrap();

    let steps = steps(&[temp.path()], &[], Mounts::Enter);

    assert_eq!(steps.iter().filter(|step| step.starts_with("problem")).count(), 1);
    assert_eq!(steps.last().unwrap(), "file z");
}

#[test]
fn what_is_excluded_is_neither_reported_nor_entered() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap();
    fs::create_dir_all(root.join("keep/cache")).unwrap();
    fs::create_dir_all(root.join("drop")).unwrap();
    for name in ["keep/x.tmp", "keep/cache/y", "keep/z", "drop/z"] {
        fs::write(root.join(name), "").unwrap();
    }
    let absolute = format!("{}/drop", root.display());

    let steps = steps(&[&root], &["*.tmp", "cache", &absolute], Mounts::Enter);

    assert_eq!(steps, ["folder ", "folder keep", "file keep/z"]);
}

#[test]
fn several_roots_come_one_after_the_other() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["b", "a"] {
        fs::create_dir(temp.path().join(name)).unwrap();
        fs::write(temp.path().join(name).join("f"), "").unwrap();
    }

    let steps = steps(&[&temp.path().join("b"), &temp.path().join("a")], &[], Mounts::Enter);

    assert_eq!(&steps[..2], ["folder ", "file f"]);
    assert!(steps[2].ends_with("/b") && steps[3].ends_with("/b/f"), "{steps:?}");
}

#[test]
fn a_mount_point_is_entered_only_if_wanted() {
    // No test may mount: the device of the root is taken for another one instead.
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("mounted")).unwrap();
    fs::write(temp.path().join("mounted/f"), "").unwrap();
    let walked = |mounts| {
        let selection = everything();
        let mut seen = Seen::new(|_: &Place<'_>| Ok(true));
        let mut walker = Walker {
            inserts: 0,
            device: u64::MAX,
            selection: &selection,
            mounts,
            pseudo: Pseudo::default(),
            visitor: &mut seen,
            buffer: Vec::with_capacity(LISTING_LEN),
        };
        let path = EntryPath::new(b"r".to_vec()).unwrap();
        let folder = open_folder(rustix::fs::CWD, temp.path().as_os_str().as_bytes()).unwrap();
        let mut level = walker.enter(path.clone(), folder).unwrap().unwrap();
        let entered = walker.name(&mut level, c"mounted").unwrap().is_some();
        (entered, shown(&seen.steps(), &path))
    };
    let both = vec!["folder ".to_owned(), "folder mounted".to_owned()];

    assert_eq!(walked(Mounts::Enter), (true, both.clone()));
    assert_eq!(walked(Mounts::Skip), (false, both));
}

#[test]
fn the_walk_ends_when_nobody_listens() {
    /// Hears of so many steps, and then of nothing more.
    struct Deaf(usize);

    impl Visitor for Deaf {
        fn file(&mut self, at: Place<'_>, stat: Stat) -> Result<Row, Stopped> {
            self.step(Step::File(FoundFile::new(at.path.clone(), Held::as_is(stat)))).map(|()| Row::Written)
        }

        fn held(&mut self, _: u64, _: EntryPath, _: Option<Held>) -> Result<(), Stopped> {
            Ok(())
        }

        fn take_back(&mut self, _: &EntryPath) {}

        fn insert(&mut self, step: Step) -> Result<(), Stopped> {
            self.step(step)
        }

        fn restless(&mut self, _: &EntryPath) -> Result<(), Stopped> {
            Ok(())
        }

        fn left_out(&mut self, _: &EntryPath) {}

        fn unseen(&mut self, _: &EntryPath) -> Result<(), Stopped> {
            Ok(())
        }

        fn now(&self) -> Timestamp {
            Timestamp { seconds: i64::MAX, nanos: 0 }
        }

        fn hold(&mut self, _: Place<'_>, stat: Stat) -> Result<Option<Held>, Stopped> {
            Ok(Some(Held::as_is(stat)))
        }

        fn step(&mut self, _: Step) -> Result<(), Stopped> {
            self.0 = self.0.checked_sub(1).expect("the walk went on");
            if self.0 == 0 { Err(Stopped) } else { Ok(()) }
        }
    }

    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("a"), "").unwrap();
    fs::write(temp.path().join("b"), "").unwrap();
    let roots = roots_of(&[temp.path()]);
    for steps in [1, 2, 3] {
        let mut deaf = Deaf(steps);

        let ended = walk(&roots, &everything(), Mounts::Enter, &mut deaf);

        assert!(ended.is_err() && deaf.0 == 0);
    }
    let mut seen = Seen::new(|_: &Place<'_>| Err(Stopped));
    let ended = walk(&roots, &everything(), Mounts::Enter, &mut seen);
    assert!(ended.is_err() && seen.steps().len() == 1, "a file that is not held does not end it");
}

#[test]
fn folders_of_second_names_are_no_data_but_others_of_that_name_are() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let tree = format!("ours/.astacus/{KEY}-0/00");
    for folder in [&*tree, "theirs/.astacus/sub", "theirs/chosen", "theirs/mixed", "file"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("ours/.astacus").join(MARK), "").unwrap();
    fs::write(root.join(&tree).join("1f"), "").unwrap();
    fs::write(root.join("theirs/.astacus/f"), "").unwrap();
    // Another push may have chosen any folder; with anything else in it, it is data. So is a file of that name.
    fs::write(root.join("theirs/chosen").join(MARK), "").unwrap();
    fs::write(root.join("theirs/mixed").join(MARK), "").unwrap();
    fs::write(root.join("theirs/mixed/f"), "").unwrap();
    fs::write(root.join("file/.astacus"), "").unwrap();

    let steps = steps(&[root], &[], Mounts::Enter);

    assert_eq!(
        steps,
        [
            "folder ",
            "folder file",
            "file file/.astacus",
            "folder ours",
            "folder theirs",
            "folder theirs/.astacus",
            "file theirs/.astacus/f",
            "folder theirs/.astacus/sub",
            "folder theirs/mixed",
            "file theirs/mixed/astacus-freeze",
            "file theirs/mixed/f",
        ]
    );
}

#[test]
fn the_push_does_not_find_its_own_second_names_wherever_they_lie() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap();
    fs::create_dir(root.join("chosen")).unwrap();
    fs::write(root.join("f"), "content").unwrap();
    let roots = roots_of(&[&root]);
    for folder in [None, Some(root.join("chosen"))] {
        let is_chosen = folder.is_some();
        let options = FreezeOptions { mode: FreezeMode::Hardlink, folder, ..FreezeOptions::default() };
        let freeze = Freeze::new(&options, KEY, &roots, None).unwrap();
        let hold = |at: &Place<'_>| {
            let stat = Stat::of_name(at.folder, at.name).unwrap();
            assert_eq!(freeze.hold(at.folder, at.name, stat).unwrap().source, Source::Link);
            Ok(true)
        };
        let mut seen = Seen::new(hold);

        walk(&roots, &everything(), Mounts::Enter, &mut seen).unwrap();

        let expected: &[&str] =
            if is_chosen { &["folder ", "file f"] } else { &["folder ", "folder chosen", "file f"] };
        assert_eq!(shown(&seen.steps(), &roots[0].path), expected);
        freeze.remove();
    }
}

#[test]
fn a_name_that_moves_again_and_again_is_a_problem() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("calm"), "").unwrap();
    fs::write(root.join("moves"), "0").unwrap();
    let mut looks = 0;
    let mut seen = Seen::new(|at: &Place<'_>| {
        if at.name != c"moves" {
            return Ok(true);
        }
        looks += 1;
        let next = temp.path().join("next");
        fs::write(&next, looks.to_string()).unwrap();
        rustix::fs::rename(&next, root.join("moves")).unwrap();
        Ok(false)
    });
    let roots = roots_of(&[&root]);

    walk(&roots, &everything(), Mounts::Enter, &mut seen).unwrap();

    assert_eq!(seen.restless, 1);
    let steps = seen.steps();
    assert_eq!(shown(&steps, &roots[0].path), ["folder ", "file calm", "problem moves"]);
    assert!(matches!(&steps[2], Step::Problem(_, why) if why == "was replaced repeatedly"));
}

#[test]
fn a_name_that_moves_a_few_times_is_what_it_is_in_the_end() {
    /// Replacement of the name at its fifth lookup.
    type Turn = fn(&Path);
    let turns: [(Turn, &str, &str); 5] = [
        (|path| fs::write(path, "other").unwrap(), "file", "file f"),
        (|path| symlink("nowhere", path).unwrap(), "link", "link f"),
        (|path| fs::create_dir(path).unwrap(), "folder", "folder f"),
        (|path| rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RUSR).unwrap(), "pipe", "skipped f"),
        (|_| {}, "nothing", ""),
    ];
    for (turn, what, expected) in turns {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap();
        fs::write(root.join("f"), "").unwrap();
        let mut looks = 0;

        let steps = steps_with(&root, |_| {
            looks += 1;
            if looks == 5 {
                fs::remove_file(root.join("f")).unwrap();
                turn(&root.join("f"));
            }
            Ok(looks > 5)
        });

        let expected: Vec<&str> = ["folder ", expected].into_iter().filter(|step| !step.is_empty()).collect();
        assert_eq!(shown(&steps, &roots_of(&[&root])[0].path), expected, "{what}");
    }
}

/// Walks `root`, and does something each time a file is held, as the owner of a busy folder does.
fn busy(root: &Path, mut owner: impl FnMut(&str)) -> (Vec<String>, u32) {
    let roots = roots_of(&[root]);
    let mut seen = Seen::new(|at: &Place<'_>| {
        owner(at.name.to_str().unwrap());
        Ok(true)
    });
    walk(&roots, &everything(), Mounts::Enter, &mut seen).unwrap();
    let restless = seen.restless;
    (shown(&seen.steps(), &roots[0].path), restless)
}

/// Lets the times of a folder move on, so that the next change of it shows.
fn tick(folder: &Path) {
    let before = fs::metadata(folder).unwrap().modified().unwrap();
    let probe = tempfile::tempdir_in(folder.parent().unwrap()).unwrap();
    for n in 0..10_000_000_u64 {
        let name = probe.path().join((n % 2).to_string());
        fs::write(&name, "").unwrap();
        let now = fs::metadata(&name).unwrap().modified().unwrap();
        fs::remove_file(&name).unwrap();
        if now > before {
            return;
        }
    }
    panic!("the clock of the file system stands still");
}

fn table_folder() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap().join("root");
    fs::create_dir(&root).unwrap();
    for name in ["1.sst", "2.sst", "MANIFEST-1"] {
        fs::write(root.join(name), name).unwrap();
    }
    tick(&root);
    (temp, root)
}

/// C11: what a folder holds is what it held at one moment, whatever came and went while it was frozen.
#[test]
fn a_compaction_while_its_folder_is_frozen_leaves_what_belongs_together() {
    let (_temp, root) = table_folder();
    let mut once = Some(());

    let (steps, restless) = busy(&root, |name| {
        if name == "2.sst" && once.take().is_some() {
            fs::write(root.join("3.sst"), "merged").unwrap();
            fs::write(root.join("MANIFEST-1"), "3.sst").unwrap();
            fs::remove_file(root.join("1.sst")).unwrap();
            fs::remove_file(root.join("2.sst")).unwrap();
        }
    });

    assert_eq!(
        (steps, restless),
        (["folder ", "file 3.sst", "file MANIFEST-1"].map(str::to_owned).to_vec(), 0)
    );
}

/// C11: a file that refers to others is no younger than they are.
#[test]
fn manifests_are_frozen_before_the_tables_that_they_name() {
    let (_temp, root) = table_folder();
    let mut order = Vec::new();

    busy(&root, |name| order.push(name.to_owned()));

    assert_eq!(order, ["MANIFEST-1", "1.sst", "2.sst"]);
}

/// C11: the last line of a compaction's log says that its new tables are whole, so no table is older than it.
#[test]
fn the_log_of_a_compaction_is_frozen_before_its_tables() {
    let (_temp, root) = table_folder();
    fs::write(root.join("nb_txn_compaction_1.log"), "ADD").unwrap();
    tick(&root);
    let mut order = Vec::new();

    busy(&root, |name| order.push(name.to_owned()));

    assert_eq!(order, ["MANIFEST-1", "nb_txn_compaction_1.log", "1.sst", "2.sst"]);
}

/// C11: a manifest that went on while tables came is frozen again, with its new length.
#[test]
fn a_file_that_changed_before_its_folder_stayed_still_is_held_again() {
    let (_temp, root) = table_folder();
    let mut manifests = 0;
    let mut once = Some(());

    busy(&root, |name| {
        manifests += u32::from(name == "MANIFEST-1");
        if name == "1.sst" && once.take().is_some() {
            fs::write(root.join("3.sst"), "new").unwrap();
            fs::write(root.join("MANIFEST-1"), "1.sst 2.sst 3.sst").unwrap();
        }
    });

    assert_eq!(manifests, 2);
}

/// C11: bounded, and then reported.
#[test]
fn a_folder_that_never_stays_as_it_is_is_reported() {
    let (_temp, root) = table_folder();
    let mut number = 10;

    let (steps, restless) = busy(&root, |_| {
        tick(&root);
        fs::remove_file(root.join(format!("{number}.tmp"))).ok();
        number += 1;
        fs::write(root.join(format!("{number}.tmp")), "").unwrap();
    });

    assert_eq!(restless, 1);
    for step in ["file 1.sst", "file 2.sst", "file MANIFEST-1"] {
        assert!(steps.contains(&step.to_owned()), "{steps:?}");
    }
}

/// C11: a folder that got its final name meanwhile is there under that name.
#[test]
fn a_folder_that_appears_while_another_is_frozen_is_walked_too() {
    let (temp, root) = table_folder();
    let made = temp.path().join("made");
    fs::create_dir_all(made.join("deep")).unwrap();
    fs::write(made.join("deep/4.sst"), "").unwrap();
    symlink("deep", made.join("link")).unwrap();
    let mut once = Some(());

    let (steps, restless) = busy(&root, |_| {
        if once.take().is_some() {
            rustix::fs::rename(&made, root.join("15")).unwrap();
        }
    });

    let expected = [
        "folder ",
        "file 1.sst",
        "folder 15",
        "folder 15/deep",
        "file 15/deep/4.sst",
        "link 15/link",
        "file 2.sst",
        "file MANIFEST-1",
    ];
    assert_eq!((steps, restless), (expected.map(str::to_owned).to_vec(), 0));
}

/// Two changes within a tick give a folder the same times: it is listed again when the tick is over.
#[test]
fn a_folder_that_changed_a_moment_ago_is_listed_again() {
    let (_temp, root) = table_folder();
    fs::write(root.join("3.sst"), "").unwrap();
    let now = Stat::of_name(rustix::fs::CWD, &std::ffi::CString::new(root.to_str().unwrap()).unwrap());
    let roots = roots_of(&[&root]);
    let mut seen = Seen::new(|_: &Place<'_>| Ok(true));
    // A clock that stands still: it is always too early to tell.
    seen.now = now.unwrap().identity.ctime;

    walk(&roots, &everything(), Mounts::Enter, &mut seen).unwrap();

    assert_eq!(seen.restless, 1);
    assert_eq!(seen.steps().len(), 5);
}

/// The twin: with one look, a copy of the folder has the new manifest and not the table that it names.
#[test]
fn one_look_at_a_folder_misses_what_came() {
    let (_temp, root) = table_folder();
    let mut once = Some(());

    let (steps, _) = with_old(Some(Old::OneLook), || {
        busy(&root, |name| {
            if name == "2.sst" && once.take().is_some() {
                fs::write(root.join("3.sst"), "merged").unwrap();
            }
        })
    });

    assert!(!steps.contains(&"file 3.sst".to_owned()), "{steps:?}");
}

/// C3: whoever may write above a root cannot make a push read another folder under the root's name.
#[test]
fn a_link_that_is_put_above_a_root_leads_no_push_elsewhere() {
    let temp = tempfile::tempdir().unwrap();
    let top = temp.path().canonicalize().unwrap();
    for (folder, content) in [("theirs/data", "own"), ("secret/data", "key")] {
        fs::create_dir_all(top.join(folder)).unwrap();
        fs::write(top.join(folder).join("file"), content).unwrap();
    }
    let roots = roots_of(&[&top.join("theirs/data")]);
    let freeze_with =
        |mode| Freeze::new(&FreezeOptions { mode, ..FreezeOptions::default() }, KEY, &roots, None).unwrap();
    rustix::fs::rename(top.join("theirs"), top.join("moved")).unwrap();
    symlink("secret", top.join("theirs")).unwrap();

    let mut seen = Seen::new(|_: &Place<'_>| Ok(true));
    walk(&roots, &everything(), Mounts::Enter, &mut seen).unwrap();
    let files = seen.steps().into_iter().filter_map(|step| match step {
        Step::File(found) => Some(found),
        _ => None,
    });
    let files: Vec<_> = files.collect();
    let freeze = freeze_with(FreezeMode::Hardlink);
    let mut content = String::new();
    let opened = Opener::new(&roots, &freeze).open(&files[0]).unwrap();
    fs::File::from(opened).read_to_string(&mut content).unwrap();

    assert_eq!((files.len(), content.as_str()), (1, "own"));
    let looked = Opener::new(&roots, &freeze).look(&files[0].path).unwrap();
    assert_eq!(looked.identity, files[0].stat.identity);
    assert!(!top.join("secret/.astacus").exists(), "nor are second names made there");
    freeze.remove();
    assert_eq!(fs::read_dir(top.join("secret")).unwrap().count(), 1);
}

/// A root that was deleted is missing from the snapshot, though its handle is still open.
#[test]
fn a_root_that_was_deleted_is_reported() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap().join("root");
    fs::create_dir(&root).unwrap();
    let roots = roots_of(&[&root]);
    fs::remove_dir(&root).unwrap();

    let mut seen = Seen::new(|_: &Place<'_>| Ok(true));
    walk(&roots, &everything(), Mounts::Enter, &mut seen).unwrap();

    assert_eq!(shown(&seen.steps(), &roots[0].path), ["problem "]);
}

#[test]
fn a_file_is_a_root_as_well() {
    let temp = tempfile::tempdir().unwrap();
    let top = temp.path().canonicalize().unwrap();
    for name in ["b", "c"] {
        fs::write(top.join(name), name).unwrap();
    }
    let excludes = of_patterns(&["b"]);
    let roots = roots_of(&[&top.join("b")]);

    let mut seen = Seen::new(|_: &Place<'_>| Ok(true));
    walk(&roots, &excludes, Mounts::Enter, &mut seen).unwrap();
    let steps = seen.steps();

    assert_eq!(shown(&steps, &roots[0].path), ["file "], "nothing beside it, and it was named");
    let Step::File(found) = &steps[0] else { panic!("{steps:?}") };
    let options = FreezeOptions { mode: FreezeMode::Hardlink, ..FreezeOptions::default() };
    let freeze = Freeze::new(&options, KEY, &roots, None).unwrap();
    let content = |found: &FoundFile| {
        let mut content = String::new();
        let opened = Opener::new(&roots, &freeze).open(found).unwrap();
        fs::File::from(opened).read_to_string(&mut content).map(|_| content).unwrap()
    };
    assert_eq!(content(found), "b");
    let identity = Opener::new(&roots, &freeze).look(&found.path).unwrap().identity;
    assert_eq!(identity, found.stat.identity);
    freeze.remove();
}

/// S6: who names a file is told that it has gone.
#[test]
fn a_file_that_was_named_and_has_gone_is_reported() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().canonicalize().unwrap().join("file");
    fs::write(&file, "").unwrap();
    let roots = roots_of(&[&file]);

    let frozen_too_late = {
        let mut seen = Seen::new(|_: &Place<'_>| {
            fs::remove_file(&file).unwrap();
            Ok(false)
        });
        walk(&roots, &everything(), Mounts::Enter, &mut seen).unwrap();
        shown(&seen.steps(), &roots[0].path)
    };
    let gone = {
        let mut seen = Seen::new(|_: &Place<'_>| Ok(true));
        walk(&roots, &everything(), Mounts::Enter, &mut seen).unwrap();
        shown(&seen.steps(), &roots[0].path)
    };
    fs::create_dir(&file).unwrap();
    let replaced = {
        let mut seen = Seen::new(|_: &Place<'_>| Ok(true));
        walk(&roots, &everything(), Mounts::Enter, &mut seen).unwrap();
        shown(&seen.steps(), &roots[0].path)
    };

    for steps in [frozen_too_late, gone, replaced] {
        assert_eq!(steps, ["problem "]);
    }
}

/// Views of the kernel are not data. What else is mounted is entered.
#[test]
fn file_systems_of_the_kernel_below_the_top_are_empty_folders() {
    let is_data = |name: &Path| !["proc", "sys"].iter().any(|pseudo| name == Path::new("/").join(pseudo));
    let others = fs::read_dir("/").unwrap().map(|found| found.unwrap().path()).filter(|name| is_data(name));
    let excludes: Vec<String> = others.map(|name| name.to_str().unwrap().to_owned()).collect();
    let excludes: Vec<&str> = excludes.iter().map(String::as_str).collect();
    let roots = roots_of(&[Path::new("/")]);

    let mut seen = Seen::new(|_: &Place<'_>| Ok(true));
    walk(&roots, &of_patterns(&excludes), Mounts::Enter, &mut seen).unwrap();

    assert_eq!(shown(&seen.steps(), &roots[0].path), ["folder proc", "folder sys"]);
}

/// A walk through `root` with these options: what was found, what was left out, by which option and how much of it, and
/// which paths of lists were not there.
fn selected(root: &Path, options: &SelectOptions) -> (Vec<String>, Vec<String>, Selection, Vec<String>) {
    let roots = roots_of(&[root]);
    let selection = Selection::new(options, &[], &roots).unwrap();
    let mut seen = Seen::new(|_: &Place<'_>| Ok(true));
    walk(&roots, &selection, Mounts::Enter, &mut seen).unwrap();
    let base = &roots[0].path;
    let below = |path: String| path.strip_prefix(&format!("{base}/")).unwrap().to_owned();
    let (left_out, unseen) = (std::mem::take(&mut seen.left_out), std::mem::take(&mut seen.unseen));
    let left_out = left_out.into_iter().map(below).collect();
    let unseen = unseen.into_iter().map(below).collect();
    (shown(&seen.steps(), base), left_out, selection, unseen)
}

fn counts(selection: &Selection) -> Vec<(String, u64, u64, u64)> {
    selection.left_out().into_iter().map(|by| (by.by, by.entries, by.folders, by.bytes)).collect()
}

#[test]
fn what_patterns_leave_out_is_counted_and_a_folder_is_not_entered() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("a/cache/deep")).unwrap();
    for name in ["a/x.tmp", "a/keep.tmp", "y.tmp", "a/cache/z", "a/file"] {
        fs::write(root.join(name), "12345").unwrap();
    }
    symlink("x", root.join("link.tmp")).unwrap();
    let patterns = ["*.tmp", "!keep.tmp", "cache", "*.bak"].map(str::to_owned);
    let options = SelectOptions { excludes: patterns.to_vec(), ..SelectOptions::default() };

    let (steps, left_out, selection, _) = selected(&root, &options);

    assert_eq!(steps, ["folder ", "folder a", "file a/file", "file a/keep.tmp"]);
    assert_eq!(left_out, ["a/cache", "a/x.tmp", "link.tmp", "y.tmp"]);
    assert_eq!(
        counts(&selection),
        [("--exclude *.tmp".to_owned(), 3, 0, 10), ("--exclude cache".to_owned(), 1, 1, 0)]
    );
    assert_eq!(selection.unmatched().collect::<Vec<_>>(), ["--exclude *.bak"]);
    assert!(
        selection.warnings().unwrap().contains("1 folders as a whole"),
        "of a `!` that does not reach there"
    );

    let (_, _, again, _) = selected(&root, &options);
    assert_eq!(counts(&again), counts(&selection));
}

#[test]
fn a_folder_with_a_marker_keeps_itself_and_its_markers() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    for folder in ["marked/sub", "cache", "fake", "short", "plain", "pipe"] {
        fs::create_dir_all(root.join(folder)).unwrap();
        fs::write(root.join(folder).join("data"), "123").unwrap();
    }
    fs::write(root.join("marked/.nobackup"), "").unwrap();
    fs::write(root.join("marked/data"), "123").unwrap();
    let tag = "Signature: 8a477f597d28d172789f06886806bc55";
    fs::write(root.join("cache/CACHEDIR.TAG"), format!("{tag}\n# of a program")).unwrap();
    fs::write(root.join("fake/CACHEDIR.TAG"), tag.replace("8a", "8b")).unwrap();
    fs::write(root.join("short/CACHEDIR.TAG"), &tag[..42]).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("pipe/CACHEDIR.TAG"), Mode::RUSR).unwrap();
    let options = SelectOptions {
        if_present: vec![".nobackup".to_owned(), ".none".to_owned()],
        caches: Caches::LeaveOut,
        ..SelectOptions::default()
    };

    let (steps, left_out, selection, _) = selected(&root, &options);

    assert_eq!(
        steps,
        [
            "folder ",
            "folder cache",
            "file cache/CACHEDIR.TAG",
            "folder fake",
            "file fake/CACHEDIR.TAG",
            "file fake/data",
            "folder marked",
            "file marked/.nobackup",
            "folder pipe",
            "skipped pipe/CACHEDIR.TAG",
            "file pipe/data",
            "folder plain",
            "file plain/data",
            "folder short",
            "file short/CACHEDIR.TAG",
            "file short/data",
        ]
    );
    assert_eq!(left_out, ["cache/data", "marked/data", "marked/sub"]);
    assert_eq!(
        counts(&selection),
        [("--exclude-if-present .nobackup".to_owned(), 2, 1, 3), ("--exclude-caches".to_owned(), 1, 0, 3)]
    );
    assert_eq!(selection.unmatched().collect::<Vec<_>>(), ["--exclude-if-present .none"]);
    let (steps, ..) = selected(&root.join("cache"), &SelectOptions::default());
    assert_eq!(steps.len(), 3, "a cache is pushed unless somebody asked: {steps:?}");
}

#[test]
fn a_marker_is_a_name() {
    for name in ["", "a/b", "/x", ".", ".."] {
        let options = SelectOptions { if_present: vec![name.to_owned()], ..SelectOptions::default() };
        assert_eq!(Selection::new(&options, &[], &[]).unwrap_err().exit_code(), 2, "{name}");
    }
}

#[test]
fn files_that_are_longer_than_asked_for_are_left_out_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir_all(root.join("folder")).unwrap();
    fs::write(root.join("as-long"), [0; 1024]).unwrap();
    fs::write(root.join("folder/longer"), [0; 1025]).unwrap();
    symlink("x".repeat(2000), root.join("link")).unwrap();
    let options = SelectOptions { larger_than: Some("1K".parse().unwrap()), ..SelectOptions::default() };

    let (steps, left_out, selection, _) = selected(&root, &options);

    assert_eq!(steps, ["folder ", "file as-long", "folder folder", "link link"]);
    assert_eq!(left_out, ["folder/longer"]);
    assert_eq!(counts(&selection), [("--exclude-larger-than 1K".to_owned(), 1, 0, 1025)]);
}

#[test]
fn of_a_list_files_come_with_the_folders_on_their_way_and_folders_whole() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap().join("root");
    for folder in ["a/b", "a/c", "a/c/d", "e"] {
        fs::create_dir_all(root.join(folder)).unwrap();
        for name in ["1", "2.tmp"] {
            fs::write(root.join(folder).join(name), "").unwrap();
        }
    }
    let list = temp.path().join("list");
    let paths =
        ["a/b/1", "a/c", "a/gone", "e/gone/deep", "a/c/2.tmp", "a/b/1/no"].map(|path| root.join(path));
    fs::write(&list, paths.iter().map(|path| format!("{}\n", path.display())).collect::<String>()).unwrap();
    let options = SelectOptions {
        excludes: vec!["*.tmp".to_owned()],
        lists: vec![crate::push::PathList { file: list, separator: crate::push::Separator::NewLine }],
        ..SelectOptions::default()
    };

    let (steps, left_out, _, unseen) = selected(&root, &options);

    assert_eq!(
        steps,
        [
            "folder ",
            "folder a",
            "folder a/b",
            "file a/b/1",
            "folder a/c",
            "file a/c/1",
            "folder a/c/d",
            "file a/c/d/1",
            "folder e"
        ]
    );
    assert_eq!(left_out, ["a/c/2.tmp", "a/c/d/2.tmp"]);
    assert_eq!(unseen, ["a/b/1/no", "a/c/2.tmp", "a/gone", "e/gone/deep"]);
    let why = |path: &str| {
        let path = root.join(path).into_os_string().into_vec();
        crate::push::find::lister::why_unseen(&EntryPath::new(path[1..].to_vec()).unwrap())
    };
    assert!(why("a/gone").unwrap().contains("does not exist") && why("a/b/1/no").is_some());
    assert_eq!(why("a/c/2.tmp"), None, "it is there, and was left out");
}

/// While names come and go a folder is listed again: its options hold for what came.
#[test]
fn names_that_come_late_are_left_out_all_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    fs::create_dir(&root).unwrap();
    for name in ["a", "early.tmp"] {
        fs::write(root.join(name), "1").unwrap();
    }
    fs::write(root.join("early-long"), [0; 2000]).unwrap();
    let roots = roots_of(&[&root]);
    let options = SelectOptions {
        excludes: vec!["*.tmp".to_owned()],
        larger_than: Some("1K".parse().unwrap()),
        ..SelectOptions::default()
    };
    let selection = Selection::new(&options, &[], &roots).unwrap();
    let late = root.clone();
    let mut seen = Seen::new(move |_: &Place<'_>| {
        if !late.join("late.tmp").exists() {
            fs::write(late.join("late.tmp"), "12").unwrap();
            fs::write(late.join("late-long"), [0; 3000]).unwrap();
            fs::write(late.join("late"), "1").unwrap();
        }
        Ok(true)
    });

    walk(&roots, &selection, Mounts::Enter, &mut seen).unwrap();

    assert_eq!(shown(&seen.steps(), &roots[0].path), ["folder ", "file a", "file late"]);
    assert_eq!(
        counts(&selection),
        [("--exclude *.tmp".to_owned(), 2, 0, 3), ("--exclude-larger-than 1K".to_owned(), 2, 0, 5000)]
    );
}
