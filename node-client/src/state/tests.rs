use std::fs;
use std::path::PathBuf;

use format_spec::page::PageBuilder;
use format_spec::{ChunkId, ClusterName, Entry, EntryKind, EntryPath, Extent, FileEnd, NodeName, SessionId};

use super::*;
use crate::push::Root;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([7; 16]);
const SESSION: SessionId = SessionId::from_bytes([8; 16]);
const MANIFEST: ManifestId = ManifestId::from_bytes([9; 32]);

fn domain() -> DomainKey {
    DomainKey::parse(&"5a".repeat(32)).unwrap()
}

fn place(base: &std::path::Path) -> Place {
    let path = EntryPath::new(b"data".to_vec()).unwrap();
    let roots = [Root { folder: PathBuf::from("/data"), path }];
    let (cluster, node): (ClusterName, NodeName) = ("c".parse().unwrap(), "n".parse().unwrap());
    Place::new(base, &cluster, &node, &roots)
}

fn identity(n: u64) -> Identity {
    let time = |seconds| Timestamp { seconds, nanos: 5 };
    Identity { dev: 1, ino: n, size: n * 10, mtime: time(-3), ctime: time(4) }
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    Entry {
        path: EntryPath::new(path.as_bytes().to_vec()).unwrap(),
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: Timestamp { seconds: 1, nanos: 2 },
        size: 0,
        xattrs: Vec::new(),
        target: None,
        link_group: None,
    }
}

fn extent(n: u64) -> Extent {
    let mut id = [0xff; 32];
    id[8..16].copy_from_slice(&n.to_le_bytes());
    Extent::Chunk { id: ChunkId::from_bytes(id), len: 10 }
}

fn path_of(n: u64) -> String {
    format!("data/f{n:06}")
}

/// Writes a state of `files` files with three extents each; those that 7 divides have no identity.
fn write(place: &Place, files: u64) {
    let mut spool = Spool::create(Some(place), domain(), REPOSITORY, &SESSION).unwrap();
    let mut pages = PageBuilder::new(domain());
    let put = |spool: &mut Spool, page: Option<_>| {
        if let Some(page) = page {
            spool.page(&page).unwrap();
        }
    };
    put(&mut spool, pages.entry(&entry("data", EntryKind::Folder)));
    for n in 0..files {
        spool.file((n % 7 != 0).then(|| identity(n)));
        put(&mut spool, pages.entry(&entry(&path_of(n), EntryKind::File)));
        for extent in (0..3).map(extent) {
            put(&mut spool, pages.extent(extent));
        }
        put(&mut spool, pages.end_file(FileEnd::Whole(domain().file_digester().finish())));
    }
    put(&mut spool, pages.finish());
    spool.finish(&MANIFEST).unwrap();
}

fn open(place: &Place) -> Result<Known, Damaged> {
    Known::open(place.of(&REPOSITORY).ok_or(Damaged)?, domain())
}

/// Reads everything, and returns how many files had an identity.
fn read(place: &Place, files: u64) -> Result<u64, Damaged> {
    let mut known = open(place)?;
    let mut identified = 0;
    for n in 0..files {
        let path = EntryPath::new(path_of(n).into_bytes()).unwrap();
        let found = known.find(&path)?.ok_or(Damaged)?;
        if let Some(found) = found.identity {
            assert_eq!(found, identity(n), "a wrong identity is worse than none");
            identified += 1;
        }
        let content = known.content()?;
        assert_eq!(content.extents, (0..3).map(extent).collect::<Vec<_>>());
    }
    Ok(identified)
}

fn state_file(place: &Place) -> PathBuf {
    place.folder().join(place.name(&REPOSITORY))
}

#[test]
fn what_was_written_is_read_back_over_many_pages() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());

    write(&place, 2000);

    assert_eq!(read(&place, 2000).unwrap(), 2000 - 286);
    assert_eq!(place.newest().unwrap().manifest, MANIFEST);
    assert_eq!(fs::read_dir(place.folder()).unwrap().count(), 1, "a temporary name was left");
}

#[test]
fn a_merge_finds_what_both_have_and_steps_over_the_rest() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    write(&place, 1000);
    let mut known = open(&place).unwrap();
    let mut find = |path: &str| {
        let path = EntryPath::new(path.as_bytes().to_vec()).unwrap();
        known.find(&path).unwrap().map(|found| found.identity)
    };

    assert_eq!(find("data/a-new-one"), None);
    assert_eq!(find(&path_of(5)), Some(Some(identity(5))));
    assert_eq!(find("data/f000005.new"), None);
    assert_eq!(find(&path_of(7)), Some(None));
    assert_eq!(find(&path_of(999)), Some(Some(identity(999))));
    assert_eq!(find("data/z"), None);
    assert_eq!(find("e"), None);
}

#[test]
fn a_file_that_turned_out_unreadable_pages_later_has_no_identity() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    let mut spool = Spool::create(Some(&place), domain(), REPOSITORY, &SESSION).unwrap();
    let mut pages = PageBuilder::new(domain());
    for (n, end) in
        [FileEnd::Unreadable, FileEnd::Whole(domain().file_digester().finish())].iter().enumerate()
    {
        spool.file(Some(identity(1)));
        pages.entry(&entry(&path_of(u64::try_from(n).unwrap()), EntryKind::File));
        for extent in (0..10_000).map(extent) {
            if let Some(page) = pages.extent(extent) {
                spool.page(&page).unwrap();
            }
        }
        if *end == FileEnd::Unreadable {
            spool.void_last();
        }
        if let Some(page) = pages.end_file(*end) {
            spool.page(&page).unwrap();
        }
    }
    spool.page(&pages.finish().unwrap()).unwrap();
    assert!(spool.pages().len() > 2, "the files no longer span pages");
    spool.finish(&MANIFEST).unwrap();
    let mut known = open(&place).unwrap();

    let found = [0, 1].map(|n| known.find(&EntryPath::new(path_of(n).into_bytes()).unwrap()).unwrap());

    assert_eq!(found.map(|file| file.unwrap().identity), [None, Some(identity(1))]);
}

/// A damaged state is noticed before a wrong identity or extent gets out, wherever the damage is.
#[test]
fn damage_anywhere_is_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    write(&place, 700);
    let path = state_file(&place);
    let good = fs::read(&path).unwrap();
    assert!(read(&place, 700).is_ok());

    let places = (0..good.len()).step_by(397).chain(0..200).chain(good.len() - 60..good.len());
    for position in places {
        // Another manifest or repository is not noticed before the header's check.
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        assert!(read(&place, 700).is_err(), "a flipped bit at {position}");
    }
    for len in (0..good.len()).step_by(4013) {
        fs::write(&path, &good[..len]).unwrap();
        assert!(read(&place, 700).is_err(), "cut at {len}");
    }
    fs::write(&path, &good).unwrap();
    assert!(read(&place, 700).is_ok(), "the checks refuse what is good");
}

#[test]
fn a_state_of_another_domain_or_other_roots_is_not_used() {
    let temp = tempfile::tempdir().unwrap();
    let here = place(temp.path());
    write(&here, 10);
    let other_key = DomainKey::parse(&"5b".repeat(32)).unwrap();
    let mut other_roots = here.clone();
    // As if the hash of the roots in the name were the same.
    other_roots.set_roots(b"other\0".to_vec());
    fs::copy(state_file(&here), state_file(&other_roots)).unwrap();

    assert!(Known::open(here.of(&REPOSITORY).unwrap(), other_key).is_err());
    assert!(other_roots.of(&REPOSITORY).is_none());
    assert!(here.of(&RepositoryId::from_bytes([1; 16])).is_none());
}

#[test]
fn an_unfinished_push_leaves_the_last_state_and_a_second_one_is_not_remembered() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    write(&place, 10);

    let first = Spool::create(Some(&place), domain(), REPOSITORY, &SESSION).unwrap();
    let second = Spool::create(Some(&place), domain(), REPOSITORY, &SESSION).unwrap();
    second.finish(&ManifestId::from_bytes([1; 32])).unwrap();
    assert_eq!(place.newest().unwrap().manifest, MANIFEST);
    drop(first);
    assert_eq!(fs::read_dir(place.folder()).unwrap().count(), 1, "a temporary name was left");

    assert!(read(&place, 10).is_ok());
    write(&place, 20);
    assert!(read(&place, 20).is_ok());
}

#[test]
fn the_state_folder_is_asked_for_then_the_users() {
    let env = |set: &'static str| move |name: &str| (name == set).then(|| "/x".to_owned());

    assert_eq!(default_folder(&env("ASTACUS_STATE_DIR")), Some(PathBuf::from("/x")));
    if !rustix::process::geteuid().is_root() {
        assert_eq!(default_folder(&env("XDG_STATE_HOME")), Some(PathBuf::from("/x/astacus")));
        assert_eq!(default_folder(&env("HOME")), Some(PathBuf::from("/x/.local/state/astacus")));
    }
}
