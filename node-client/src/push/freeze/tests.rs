use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use rustix::fs::Mode;

use super::*;
use crate::push::guest::FOLDER;
use crate::push::second_names::{BASE_NAME, is_base};
use crate::push::select::roots;
use crate::twin::with_old;

const KEY: &str = "0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210";

/// A root with files in it.
struct Field {
    _temp: tempfile::TempDir,
    root: PathBuf,
}

impl Field {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().canonicalize().unwrap().join("root");
        fs::create_dir(&root).unwrap();
        Self { _temp: temp, root }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.at(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap()
    }

    /// Writes at the start of the file, without a new inode.
    fn overwrite(&self, name: &str, content: &str) {
        let file = File::options().write(true).open(self.at(name)).unwrap();
        file.write_all_at(content.as_bytes(), 0).unwrap();
    }

    fn append(&self, name: &str, content: &str) {
        File::options().append(true).open(self.at(name)).unwrap().write_all(content.as_bytes()).unwrap();
    }

    fn link(&self, name: &str, to: &str) {
        fs::hard_link(self.at(name), self.at(to)).unwrap();
    }

    fn stat(&self, name: &str) -> Stat {
        stat_of(&self.at(name))
    }

    /// The freeze of a push with this key that pushes this root.
    fn freeze(&self, mode: FreezeMode, key: &str) -> Freeze {
        self.freeze_in(mode, key, None)
    }

    fn freeze_in(&self, mode: FreezeMode, key: &str, folder: Option<&Path>) -> Freeze {
        let roots = roots::check(std::slice::from_ref(&self.root)).unwrap();
        let folder = folder.map(Path::to_owned);
        Freeze::new(&FreezeOptions { mode, folder, ..FreezeOptions::default() }, key, &roots, None).unwrap()
    }

    fn hard_links(&self) -> Freeze {
        self.freeze(FreezeMode::Hardlink, KEY)
    }

    /// Holds the file as a walk would that comes to it now.
    fn hold(&self, freeze: &Freeze, name: &str) -> Held {
        self.hold_as(freeze, name, self.stat(name)).unwrap()
    }

    /// Holds the file as a walk would that saw `stat` a moment ago.
    fn hold_as(&self, freeze: &Freeze, name: &str, stat: Stat) -> Result<Held, HoldError> {
        let folder = rustix::fs::open(&self.root, FOLDER, Mode::empty()).unwrap();
        freeze.hold(&folder, &CString::new(name).unwrap(), stat)
    }

    fn base(&self) -> PathBuf {
        self.root.parent().unwrap().join(BASE_NAME)
    }

    /// Names of the trees in the base.
    fn trees(&self) -> Vec<String> {
        listed(&self.base()).into_iter().filter(|name| self.base().join(name).is_dir()).collect()
    }

    /// Inodes with a second name in a tree.
    fn second_names(&self, tree: &str) -> Vec<u64> {
        second_names(&self.base().join(tree))
    }
}

fn stat_of(path: &Path) -> Stat {
    Stat::of_name(rustix::fs::CWD, &CString::new(path.as_os_str().as_bytes()).unwrap()).unwrap()
}

/// The names in a folder, in order.
fn listed(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn second_names(tree: &Path) -> Vec<u64> {
    let fans = listed(tree).into_iter().map(|fan| tree.join(fan));
    let names = fans.flat_map(|fan| listed(&fan));
    let mut inodes: Vec<_> = names.map(|name| u64::from_str_radix(&name, 16).unwrap()).collect();
    inodes.sort_unstable();
    inodes
}

fn sorted<const N: usize>(mut inodes: [u64; N]) -> [u64; N] {
    inodes.sort_unstable();
    inodes
}

/// Content that a scan reads from a held file.
fn frozen_content(freeze: &Freeze, held: &Held) -> String {
    assert_eq!((held.source, &held.not_frozen), (Source::Link, &None));
    let file = File::from(freeze.open(&held.stat.identity).unwrap());
    let mut content = vec![0; usize::try_from(held.stat.identity.size).unwrap()];
    file.read_exact_at(&mut content, 0).unwrap();
    String::from_utf8(content).unwrap()
}

/// Lets the clock of the file system go on, so that a later change of `since` shows.
fn tick(since: &Path) {
    let probe = tempfile::NamedTempFile::new_in(since.parent().unwrap().parent().unwrap()).unwrap();
    for _ in 0..10_000_000 {
        probe.as_file().set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        if Stat::of_file(probe.as_file()).unwrap().identity.ctime > stat_of(since).identity.ctime {
            return;
        }
    }
    panic!("the clock of the file system stands still");
}

/// True if the file system shares blocks between files, asked without the code under test.
fn can_share(folder: &Path) -> bool {
    let (from, to) = (tempfile::tempfile_in(folder).unwrap(), tempfile::tempfile_in(folder).unwrap());
    from.write_all_at(b"x", 0).unwrap();
    rustix::fs::ioctl_ficlone(&to, &from).is_ok()
}

/// True if a walk treats the folder as one of second names.
fn is_left_out(folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let Ok(names) = fs::read_dir(folder) else { return false };
    let names: Vec<_> = names.map(|name| name.unwrap().file_name()).collect();
    is_base(names.iter().map(|name| name.as_bytes()))
}

#[test]
fn a_held_file_has_a_second_name_and_the_link_count_of_its_owner() {
    let field = Field::new();
    field.write("one", "1");
    field.write("two", "2");
    field.link("two", "too");
    let freeze = field.hard_links();

    for (name, links) in [("one", 1), ("two", 2)] {
        let held = field.hold(&freeze, name);

        assert_eq!((held.source, held.not_frozen), (Source::Link, None));
        assert_eq!(held.stat, Stat { links, ..field.stat(name) }, "not as it is with its second name");
        assert_eq!(field.stat(name).links, links + 1);
    }
    let inodes = sorted([field.stat("one"), field.stat("two")].map(|stat| stat.identity.ino));
    assert_eq!(field.second_names(&format!("{KEY}-0")), inodes);
}

/// C1: the content is that of the inode that was listed, up to the length that it had then.
#[test]
fn what_was_held_is_read_up_to_its_length_whatever_becomes_of_its_name() {
    /// Change of a file by its owner.
    type Fate = fn(&Field, &str);
    let fates: [(&str, Fate); 6] = [
        ("appended", |field, name| field.append(name, " and more")),
        ("deleted", |field, name| fs::remove_file(field.at(name)).unwrap()),
        ("moved", |field, name| rustix::fs::rename(field.at(name), field.at("elsewhere")).unwrap()),
        ("replaced", |field, name| {
            field.write("next", "another content");
            rustix::fs::rename(field.at("next"), field.at(name)).unwrap();
        }),
        ("a link now", |field, name| {
            fs::remove_file(field.at(name)).unwrap();
            symlink("/etc/passwd", field.at(name)).unwrap();
        }),
        ("a folder now", |field, name| {
            fs::remove_file(field.at(name)).unwrap();
            fs::create_dir(field.at(name)).unwrap();
        }),
    ];
    let field = Field::new();
    let freeze = field.hard_links();
    for (name, _) in &fates {
        field.write(name, &format!("this is {name}"));
    }
    let held = fates.map(|(name, fate)| (name, fate, field.hold(&freeze, name)));

    for (name, fate, held) in &held {
        fate(&field, name);

        assert_eq!(frozen_content(&freeze, held), format!("this is {name}"), "{name}");
    }
    freeze.remove();
    assert!(!field.base().exists());
}

#[test]
fn holding_a_file_again_changes_nothing_of_it() {
    let field = Field::new();
    field.write("f", "content");
    field.link("f", "g");
    let freeze = field.hard_links();
    let held = field.hold(&freeze, "f");
    tick(&field.at("f"));

    for name in ["f", "g"] {
        assert_eq!(field.hold(&freeze, name).stat, held.stat, "{name}");
    }
    // The twin: a link that is new would have shown.
    field.link("f", "h");
    assert_ne!(field.stat("f").identity.ctime, held.stat.identity.ctime);
}

#[test]
fn releasing_gives_the_new_identity_of_a_file_that_nobody_touched() {
    let field = Field::new();
    field.write("f", "content");
    let freeze = field.hard_links();
    let held = field.hold(&freeze, "f").stat.identity;
    tick(&field.at("f"));

    let released = freeze.release(&held).unwrap();

    assert_eq!(released, field.stat("f").identity);
    assert!(released.ctime > held.ctime, "a name that goes leaves a trace");
    assert_eq!(Identity { ctime: held.ctime, ..released }, held);
    assert_eq!((field.stat("f").links, field.read("f")), (1, "content".to_owned()));
    assert!(field.second_names(&format!("{KEY}-0")).is_empty());
    assert_eq!(freeze.release(&held), None, "it has no second name any more");
}

#[test]
fn releasing_gives_nothing_for_a_file_that_was_touched_since() {
    /// Change of a file `f` by its owner.
    type Touch = fn(&Field);
    let touches: [(&str, Touch); 7] = [
        ("written in place", |field| field.overwrite("f", "CONTENT")),
        ("appended", |field| field.append("f", "!")),
        ("cut", |field| File::options().write(true).open(field.at("f")).unwrap().set_len(3).unwrap()),
        ("another mode", |field| {
            fs::set_permissions(field.at("f"), fs::Permissions::from_mode(0o604)).unwrap();
        }),
        ("another link", |field| field.link("f", "g")),
        ("deleted", |field| fs::remove_file(field.at("f")).unwrap()),
        ("written, and its mtime set back", |field| {
            let mtime = field.at("f").metadata().unwrap().modified().unwrap();
            field.overwrite("f", "CONTENT");
            File::options().write(true).open(field.at("f")).unwrap().set_modified(mtime).unwrap();
        }),
    ];
    for (what, touch) in touches {
        let field = Field::new();
        field.write("f", "content");
        let freeze = field.hard_links();
        let held = field.hold(&freeze, "f").stat.identity;
        tick(&field.at("f"));
        touch(&field);

        assert_eq!(freeze.release(&held), None, "{what}");

        assert!(field.second_names(&format!("{KEY}-0")).is_empty(), "{what}");
    }
}

/// C4: a push that ends leaves nothing.
#[test]
fn a_push_leaves_no_trace_in_its_root() {
    let field = Field::new();
    field.write("f", "content");
    field.write("g", "content");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let folder = File::open(&field.root).unwrap();
    folder.set_modified(long_ago).unwrap();
    let mtime = || folder.metadata().unwrap().modified().unwrap();

    let freeze = field.hard_links();
    assert_eq!(mtime(), long_ago);
    let held = field.hold(&freeze, "f");
    field.hold(&freeze, "g");
    assert!(freeze.release(&held.stat.identity).is_some());
    // One second name is still there.
    freeze.remove();

    assert_eq!(listed(&field.root), ["f", "g"]);
    assert_eq!(mtime(), long_ago);
    assert_eq!([field.stat("f").links, field.stat("g").links], [1, 1]);
}

/// C4: the second names of a living push are not removed.
#[test]
fn two_pushes_of_the_same_folders_have_trees_of_their_own() {
    let field = Field::new();
    field.write("f", "content");
    let (first, second) = (field.hard_links(), field.hard_links());
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(&field.root).unwrap().set_modified(long_ago).unwrap();

    let held = [&first, &second].map(|freeze| field.hold(freeze, "f"));

    let (one, two) = (format!("{KEY}-0"), format!("{KEY}-1"));
    assert_eq!(field.trees(), [one.clone(), two.clone()]);
    assert_eq!(field.second_names(&one), field.second_names(&two));
    first.remove();
    assert_eq!(field.trees(), [two], "it removed what another push needs");
    assert_eq!(frozen_content(&second, &held[1]), "content");
    // The number is free again.
    let third = field.hard_links();
    field.hold(&third, "f");
    assert_eq!(field.second_names(&one), [held[0].stat.identity.ino]);
    third.remove();
    second.remove();
    assert_eq!(listed(&field.root), ["f"]);
    assert_eq!(File::open(&field.root).unwrap().metadata().unwrap().modified().unwrap(), long_ago);
}

/// C4: what a killed push leaves is removed by the next one.
#[test]
fn a_killed_push_leaves_its_second_names_to_the_next_push_of_the_same_folders() {
    let field = Field::new();
    for name in ["kept", "lost", "other"] {
        field.write(name, name);
    }
    let killed = field.hard_links();
    let held = ["kept", "lost"].map(|name| field.hold(&killed, name));
    let [kept, lost] = held.each_ref().map(|held| held.stat.identity);
    assert_eq!(killed.pass(held[0].stat).source, Source::Path, "nothing was left to it by another push");
    drop(killed);
    fs::remove_file(field.at("lost")).unwrap();
    tick(&field.at("kept"));

    let next = field.hard_links();

    let tree = format!("{KEY}-0");
    assert_eq!(field.trees(), std::slice::from_ref(&tree));
    assert_eq!(field.second_names(&tree), [kept.ino], "what its owner has deleted is kept for nobody");
    assert!(matches!(next.open(&lost), Err(Errno::NOENT)));
    assert_eq!(field.stat("kept").identity, kept, "taking over is no change");
    let passed = next.pass(field.stat("kept"));
    assert_eq!((passed.source, passed.stat, passed.not_frozen), (Source::Link, held[0].stat, None));
    let passed = next.pass(field.stat("other"));
    assert_eq!((passed.source, passed.stat.links), (Source::Path, 1), "it has no second name");
    assert_eq!(field.hold(&next, "kept").stat, held[0].stat);
    let released = next.release(&kept).unwrap();
    assert_eq!(released, field.stat("kept").identity);
    next.remove();
    assert_eq!(listed(&field.root), ["kept", "other"]);
}

/// C4: or by one of other folders, which removes nothing of a living push.
#[test]
fn a_killed_push_of_other_folders_is_cleaned_up_behind_and_a_live_one_is_not() {
    let field = Field::new();
    field.write("f", "content");
    let (live, killed) = (field.freeze(FreezeMode::Hardlink, OTHER_KEY), field.hard_links());
    let held = field.hold(&live, "f");
    field.hold(&killed, "f");
    drop(killed);
    assert_eq!(listed(&field.base()).len(), 5, "two trees, two locks and the mark");

    let third = field.freeze(FreezeMode::Hardlink, "1111111111111111");

    let (theirs, ours) = (format!("{OTHER_KEY}-0"), "1111111111111111-0".to_owned());
    assert_eq!(field.trees(), [ours.clone(), theirs.clone()]);
    assert_eq!(
        listed(&field.base()),
        [&ours, &format!("{ours}.lock"), MARK, &theirs, &format!("{theirs}.lock")]
    );
    assert_eq!(frozen_content(&live, &held), "content");
    assert_eq!(field.stat("f").links, 2);
    third.remove();
    assert_eq!(field.trees(), [theirs]);
    live.remove();
    assert_eq!(listed(&field.root), ["f"]);
}

#[test]
fn a_folder_that_is_someones_data_is_left_alone_and_another_is_used() {
    /// How the name was taken.
    type Taken = fn(&Path);
    let taken: [(&str, Taken); 4] = [
        ("a folder with something in it", |base| {
            fs::create_dir(base).unwrap();
            fs::write(base.join("theirs"), "theirs").unwrap();
        }),
        ("a file", |base| fs::write(base, "theirs").unwrap()),
        ("a link", |base| {
            fs::create_dir(base.with_file_name("target")).unwrap();
            symlink("target", base).unwrap();
        }),
        ("a dangling link", |base| symlink("nowhere", base).unwrap()),
    ];
    for (what, taken) in taken {
        let field = Field::new();
        field.write("f", "content");
        taken(&field.base());
        let above = field.root.parent().unwrap();
        let before = (listed(above), stat_of(&field.base()));

        let freeze = field.hard_links();
        let held = field.hold(&freeze, "f");

        assert_eq!((held.source, held.not_frozen), (Source::Link, None), "{what}");
        assert!(!is_left_out(&field.base()), "{what} is not in the snapshot");
        let [frozen] = freeze.frozen() else { panic!("{:?}", freeze.frozen()) };
        assert_ne!(Path::new(&frozen.folder), field.base(), "{what}");
        assert!(!Path::new(&frozen.folder).starts_with(&field.root), "{what}: {frozen:?}");
        freeze.remove();
        assert_eq!((listed(above), stat_of(&field.base())), before, "{what}");
    }
}

/// Where no folder can be had, files are read where they lie, and that is told.
#[test]
fn without_any_folder_for_second_names_files_are_read_where_they_lie() {
    let field = Field::new();
    field.write("f", "content");
    let chosen = field.root.with_file_name("chosen");
    fs::create_dir(&chosen).unwrap();
    fs::write(chosen.join("theirs"), "theirs").unwrap();
    let stat = field.stat("f");

    let freeze = field.freeze_in(FreezeMode::Hardlink, KEY, Some(&chosen));
    let held = field.hold(&freeze, "f");

    assert_eq!((held.source, held.stat), (Source::Path, stat));
    let why = held.not_frozen.unwrap();
    assert!(why.contains("chosen") && why.contains("cannot be used"), "{why}");
    assert_eq!(freeze.pass(stat).not_frozen, None, "what is not read needs no freezing");
    assert_eq!(freeze.release(&stat.identity), None);
    assert!(freeze.frozen().is_empty());
    freeze.remove();
    assert_eq!(listed(&field.root), ["f"]);
}

/// C13: who wants no file read without that protection gets no snapshot without it.
#[test]
fn what_must_be_frozen_is_refused_where_it_cannot_be() {
    let field = Field::new();
    field.write("f", "content");
    let chosen = field.root.with_file_name("chosen");
    fs::create_dir(&chosen).unwrap();
    fs::write(chosen.join("theirs"), "theirs").unwrap();
    let hold = |mode, folder: Option<&Path>| {
        let roots = roots::check(std::slice::from_ref(&field.root)).unwrap();
        let options = FreezeOptions { mode, folder: folder.map(Path::to_owned), unfrozen: Unfrozen::Refused };
        let freeze = Freeze::new(&options, KEY, &roots, None).unwrap();
        let held = field.hold_as(&freeze, "f", field.stat("f"));
        freeze.remove();
        held
    };

    for mode in [FreezeMode::Auto, FreezeMode::Hardlink, FreezeMode::Reflink] {
        assert!(matches!(hold(mode, Some(&chosen)), Err(HoldError::Refused(_))), "{mode:?}");
        let twin = with_old(Some(Old::UnfrozenUnsaid), || hold(mode, Some(&chosen)));
        assert_eq!(twin.unwrap().not_frozen, None, "the twin");
    }
    assert!(hold(FreezeMode::Auto, None).is_ok(), "a hard link is what this file system has");
    assert!(hold(FreezeMode::Hardlink, None).is_ok());
    let reflink = hold(FreezeMode::Reflink, None);
    assert_eq!(reflink.is_ok(), can_share(&field.root), "{reflink:?}");
}

/// C4: second names are not where the owner of the files looks.
#[test]
fn second_names_lie_beside_the_root_or_with_what_is_remembered() {
    let field = Field::new();
    let above = field.root.parent().unwrap();
    let state = above.join("state");
    fs::create_dir(&state).unwrap();
    let roots = roots::check(std::slice::from_ref(&field.root)).unwrap();
    let folder = |state: Option<&Path>| {
        let freeze = Freeze::new(&FreezeOptions::default(), KEY, &roots, state).unwrap();
        let folder = PathBuf::from(&freeze.frozen()[0].folder);
        freeze.remove();
        assert!(!folder.exists());
        folder
    };

    assert_eq!(folder(None), field.base());
    assert_eq!(folder(Some(&state)), state.join(BASE_NAME));
    assert_eq!(
        with_old(Some(Old::SecondNamesWithin), || folder(None)),
        field.root.join(BASE_NAME),
        "the twin"
    );
    // Above lies a database that would see it: the folder above that does.
    fs::create_dir(above.join("global")).unwrap();
    fs::write(above.join("PG_VERSION"), "15").unwrap();
    assert_eq!(folder(None), above.parent().unwrap().join(BASE_NAME));
}

/// C4: inside a root, a program of its owner that lists it can look into what it finds, and change nothing.
#[test]
fn second_names_within_a_root_can_be_looked_at_by_its_group() {
    let field = Field::new();
    field.write("f", "content");
    let base = Base::within(&field.root);
    let group = stat_of(&field.root).gid;

    let tree = Tree::open(&base, KEY, FreezeMode::Hardlink).unwrap();
    let folder = rustix::fs::open(&field.root, FOLDER, Mode::empty()).unwrap();
    tree.link(&folder, c"f", field.stat("f").identity.ino).unwrap();

    let mut folders = vec![base.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for name in listed(&folder) {
            let stat = stat_of(&folder.join(&name));
            let is_folder = folder.join(&name).is_dir();
            if stat.identity.ino != field.stat("f").identity.ino {
                let mode = if is_folder { 0o750 } else { 0o640 };
                assert_eq!((stat.mode & 0o777, stat.gid), (mode, group), "{name}");
            }
            folders.extend(is_folder.then(|| folder.join(&name)));
        }
    }
    tree.remove().unwrap();
    assert_eq!(listed(&field.root), ["f"]);
}

/// C4: what another user's push left is removed by one that may, and never used as it is.
#[test]
fn a_folder_of_another_user_is_taken_over_or_passed_by() {
    let field = Field::new();
    field.write("f", "content");
    fs::create_dir(field.base()).unwrap();
    fs::write(field.base().join(MARK), "").unwrap();
    let given = rustix::fs::chown(field.base(), Some(rustix::fs::Uid::from_raw(12_345)), None);
    // Only root can give a folder away.
    assert_eq!(given.is_ok(), rustix::process::geteuid().is_root());

    let freeze = field.hard_links();

    assert_eq!(field.hold(&freeze, "f").source, Source::Link);
    assert_eq!(stat_of(&field.base()).uid, rustix::process::geteuid().as_raw());
    freeze.remove();
    assert!(!field.base().exists());
}

/// C4: what a killed push left goes without another push, and what a living one has stays.
#[test]
fn tidying_removes_what_dead_pushes_left_and_nothing_else() {
    let field = Field::new();
    field.write("f", "content");
    let roots = [field.root.clone()];
    let killed = field.hard_links();
    field.hold(&killed, "f");
    assert_eq!(tidy(&roots, None, None).in_use, [field.base()]);
    assert_eq!(field.stat("f").links, 2);
    drop(killed);

    let tidied = tidy(&roots, None, None);

    assert_eq!((tidied.removed, tidied.in_use, tidied.left), (vec![field.base()], vec![], vec![]));
    assert_eq!(field.stat("f").links, 1);
    assert_eq!(tidy(&roots, None, None), Tidied::default());
    fs::create_dir(field.base()).unwrap();
    fs::write(field.base().join("theirs"), "").unwrap();
    assert!(tidy(&roots, None, None).removed.is_empty());
    assert!(field.base().join("theirs").exists());
}

#[test]
fn an_empty_folder_that_was_left_there_is_taken_and_removed() {
    let field = Field::new();
    field.write("f", "content");
    for mark in [false, true] {
        fs::create_dir(field.base()).unwrap();
        if mark {
            fs::write(field.base().join(MARK), "").unwrap();
        }

        let freeze = field.hard_links();

        assert_eq!(field.hold(&freeze, "f").source, Source::Link);
        assert!(is_left_out(&field.base()));
        freeze.remove();
        assert!(!field.base().exists());
    }
}

#[test]
fn a_chosen_folder_takes_the_second_names_and_stays() {
    let field = Field::new();
    field.write("f", "content");
    let chosen = field.root.with_file_name("chosen");
    fs::create_dir(&chosen).unwrap();
    let freeze = field.freeze_in(FreezeMode::Hardlink, KEY, Some(&chosen));

    let held = field.hold(&freeze, "f");

    assert!(!field.base().exists());
    assert!(is_left_out(&chosen));
    assert_eq!(second_names(&chosen.join(format!("{KEY}-0"))), [held.stat.identity.ino]);
    fs::remove_file(field.at("f")).unwrap();
    assert_eq!(frozen_content(&freeze, &held), "content");
    freeze.remove();
    assert!(listed(&chosen).is_empty(), "{:?}", listed(&chosen));
}

#[test]
fn a_chosen_folder_with_other_things_in_it_is_not_used_and_loses_nothing() {
    let field = Field::new();
    field.write("f", "content");
    let chosen = field.root.with_file_name("chosen");
    fs::create_dir_all(chosen.join("Cargo/src")).unwrap();
    fs::write(chosen.join("Cargo/src/main.rs"), "theirs").unwrap();
    fs::write(chosen.join("Cargo.lock"), "theirs").unwrap();

    let freeze = field.freeze_in(FreezeMode::Hardlink, KEY, Some(&chosen));
    let held = field.hold(&freeze, "f");

    assert_eq!(held.source, Source::Path);
    assert!(held.not_frozen.unwrap().contains("chosen"));
    assert!(!is_left_out(&chosen), "its files are missing from the snapshot");
    freeze.remove();
    assert_eq!(listed(&chosen), ["Cargo", "Cargo.lock"]);
    assert_eq!(fs::read_to_string(chosen.join("Cargo/src/main.rs")).unwrap(), "theirs");
}

#[test]
fn locks_that_no_push_has_made_are_left_alone() {
    let field = Field::new();
    fs::create_dir_all(field.base().join("Cargo/src")).unwrap();
    for theirs in [MARK, "Cargo.lock", "Cargo/src/main.rs", "x-0.lock", ".lock", "-0.lock"] {
        fs::write(field.base().join(theirs), "theirs").unwrap();
    }
    let dead = format!("{OTHER_KEY}-3.lock");
    fs::write(field.base().join(&dead), "").unwrap();

    field.write("f", "content");
    let before = listed(&field.base());

    let freeze = field.hard_links();

    assert_ne!(Path::new(&freeze.frozen()[0].folder), field.base(), "with other things in it, it is data");
    assert!(!is_left_out(&field.base()));
    freeze.remove();
    assert_eq!(listed(&field.base()), before);
    assert_eq!(listed(&field.base().join("Cargo/src")), ["main.rs"]);
}

#[test]
fn roots_of_one_file_system_share_a_tree() {
    let field = Field::new();
    let second = Field { root: field.root.with_file_name("second"), _temp: tempfile::tempdir().unwrap() };
    fs::create_dir(&second.root).unwrap();
    second.write("g", "content");
    let roots = roots::check(&[second.root.clone(), field.root.clone()]).unwrap();
    let freeze = Freeze::new(&FreezeOptions::default(), KEY, &roots, None).unwrap();

    let held = second.hold(&freeze, "g");

    assert_eq!(frozen_content(&freeze, &held), "content");
    assert_eq!(field.trees().len(), 1);
    freeze.remove();
    assert!(!field.base().exists());
}

#[test]
fn what_lies_on_another_file_system_is_read_where_it_lies() {
    let field = Field::new();
    field.write("f", "content");
    let freeze = field.hard_links();
    // No test may mount: the file is taken for one of another device instead.
    let mut stat = field.stat("f");
    stat.identity.dev += 1;

    let held = field.hold_as(&freeze, "f", stat).unwrap();

    assert_eq!((held.source, held.stat, held.not_frozen.as_deref()), (Source::Path, stat, Some(ELSEWHERE)));
    assert_eq!(field.stat("f").links, 1);
    assert!(matches!(freeze.open(&stat.identity), Err(Errno::NOENT)));
}

#[test]
fn who_wants_no_freeze_gets_none() {
    let field = Field::new();
    field.write("f", "content");
    let before = (field.stat("f"), stat_of(&field.root));

    let freeze = field.freeze(FreezeMode::Off, KEY);
    let held = field.hold(&freeze, "f");

    assert_eq!((held.source, held.stat, held.not_frozen), (Source::Path, before.0, None));
    assert_eq!(freeze.pass(before.0).source, Source::Path);
    assert_eq!(freeze.release(&before.0.identity), None);
    freeze.remove();
    assert_eq!((field.stat("f"), stat_of(&field.root)), before);
    assert_eq!(listed(&field.root), ["f"]);
}

#[test]
fn a_name_that_stands_for_something_else_by_now_is_to_be_looked_at_again() {
    /// Replacement of the name.
    type Turn = fn(&Path);
    let turns: [(&str, Turn); 3] = [
        ("nothing", |_| {}),
        ("another file", |path| fs::write(path, "other").unwrap()),
        ("a symbolic link", |path| symlink("/etc/passwd", path).unwrap()),
    ];
    for mode in [FreezeMode::Hardlink, FreezeMode::Reflink] {
        for (what, turn) in turns {
            let field = Field::new();
            field.write("f", "content");
            let freeze = field.freeze(mode, KEY);
            let stat = field.stat("f");
            // The old file stays, so that its number is not given to the new one.
            rustix::fs::rename(field.at("f"), field.root.with_file_name("old")).unwrap();
            turn(&field.at("f"));

            let held = field.hold_as(&freeze, "f", stat);

            assert!(matches!(held, Err(HoldError::Moved)), "{what}: {held:?}");
            assert_eq!(field.second_names(&format!("{KEY}-0")), [0; 0], "{what} has a second name");
            freeze.remove();
            assert!(!field.base().exists());
        }
    }
}

#[test]
fn a_copy_with_shared_blocks_is_safe_from_writes_in_place_where_the_file_system_can() {
    let field = Field::new();
    field.write("f", "content");
    let stat = field.stat("f");
    tick(&field.at("f"));
    let freeze = field.freeze(FreezeMode::Reflink, KEY);
    let tree = format!("{KEY}-0");

    let held = field.hold(&freeze, "f");

    if can_share(&field.root) {
        assert_eq!(field.stat("f"), stat, "a copy leaves a trace in the file");
        assert_eq!(held.stat, stat);
        assert_eq!(frozen_content(&freeze, &held), "content");
        assert_eq!(field.second_names(&tree), [stat.identity.ino]);
        field.overwrite("f", "CONTENT");
        assert_eq!(frozen_content(&freeze, &held), "content");
        File::options().write(true).open(field.at("f")).unwrap().set_len(0).unwrap();
        assert_eq!(frozen_content(&freeze, &held), "content");
        fs::remove_file(field.at("f")).unwrap();
        assert_eq!(frozen_content(&freeze, &held), "content");
        assert_eq!(freeze.release(&stat.identity), Some(stat.identity));
    } else {
        assert_eq!(held.source, Source::Link, "it is not even safe from deletion");
        assert_eq!(held.not_frozen.as_deref(), Some(NO_COPY));
        assert_eq!(field.second_names(&tree), [stat.identity.ino]);
        fs::remove_file(field.at("f")).unwrap();
    }
    assert_eq!(freeze.pass(stat).source, Source::Path, "nobody was killed");
    freeze.remove();
    assert!(!field.base().exists());
}

#[test]
fn copies_take_over_from_hard_links_without_a_change_of_any_file() {
    let field = Field::new();
    field.write("f", "content");
    let killed = field.hard_links();
    field.hold(&killed, "f");
    drop(killed);
    assert_eq!(field.stat("f").links, 2, "nothing was left to take over");

    let freeze = field.freeze(FreezeMode::Reflink, KEY);
    let held = field.hold(&freeze, "f");

    assert_eq!(field.read("f"), "content");
    if can_share(&field.root) {
        assert_eq!(field.stat("f").links, 1);
        assert_eq!(held.stat, field.stat("f"));
        field.overwrite("f", "CONTENT");
        assert_eq!(frozen_content(&freeze, &held), "content");
    } else {
        assert_eq!((held.source, field.stat("f").links), (Source::Link, 2));
    }
    freeze.remove();
    assert_eq!(field.stat("f").links, 1);
    assert_eq!(listed(&field.root), ["f"]);
}

#[test]
fn hard_links_take_over_from_copies_without_keeping_one() {
    let field = Field::new();
    field.write("f", "content");
    let killed = field.freeze(FreezeMode::Reflink, KEY);
    let copied = field.hold(&killed, "f").source == Source::Copy;
    assert_eq!(copied, can_share(&field.root));
    drop(killed);

    let freeze = field.hard_links();

    assert_eq!(field.second_names(&format!("{KEY}-0")).is_empty(), copied, "a copy was left");
    let held = field.hold(&freeze, "f");
    field.overwrite("f", "CONTENT");
    assert_eq!(frozen_content(&freeze, &held), "CONTENT", "it reads the copy");
}

/// C4: whoever may write beside the root can keep a lock for ever, and a push goes on all the same.
#[test]
fn a_lock_that_somebody_keeps_holds_up_no_push() {
    let field = Field::new();
    field.write("f", "content");
    fs::create_dir(field.base()).unwrap();
    let kept = File::open(field.base()).unwrap();
    rustix::fs::flock(&kept, rustix::fs::FlockOperation::LockExclusive).unwrap();

    let freeze = field.hard_links();

    let held = field.hold(&freeze, "f");
    let folder = Path::new(&freeze.frozen()[0].folder);
    assert_ne!(folder, field.base(), "the next place is taken");
    assert_eq!(frozen_content(&freeze, &held), "content");
    freeze.remove();
    assert!(tree::sweep(&Base::beside(field.root.parent().unwrap())).is_err(), "and a sweep passes by");
}
