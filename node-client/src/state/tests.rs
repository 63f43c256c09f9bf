use std::fs;
use std::path::{Path, PathBuf};

use format_spec::page::{Page, PageBuilder};
use format_spec::{ChunkId, ClusterName, Entry, EntryKind, EntryPath, Extent, FileEnd, NodeName, SessionId};

use super::place::folder_of_user;
use super::*;

const REPOSITORY: RepositoryId = RepositoryId::from_bytes([7; 16]);
const SESSION: SessionId = SessionId::from_bytes([8; 16]);
const OTHER_SESSION: SessionId = SessionId::from_bytes([18; 16]);
const MANIFEST: ManifestId = ManifestId::from_bytes([9; 32]);

fn domain() -> DomainKey {
    DomainKey::parse(&"5a".repeat(32)).unwrap()
}

fn place_of(base: &Path, root: &str) -> Place {
    let path = EntryPath::new(root.as_bytes().to_vec()).unwrap();
    let (cluster, node): (ClusterName, NodeName) = ("c".parse().unwrap(), "n".parse().unwrap());
    Place::new(base, &cluster, &node, &[path])
}

fn place(base: &Path) -> Place {
    place_of(base, "data")
}

fn time(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 5 }
}

/// State of the file `n`; each differs from all others in every field that may differ.
fn slot(n: u64) -> Slot {
    let seconds = i64::try_from(n).unwrap();
    let (btime, mtime, ctime) = (time(seconds + 1), time(-3 - seconds), time(seconds + 2));
    Slot {
        identity: Identity { dev: 1, ino: n, btime, size: n * 10, mtime, ctime },
        settled: if n.is_multiple_of(5) { Settled::No } else { Settled::Yes },
        source: if n.is_multiple_of(3) { Source::Link } else { Source::Path },
        habit: if n.is_multiple_of(5) {
            Habit::InPlace
        } else {
            Habit::Appends(u8::try_from(n % 7).unwrap())
        },
        links: u32::try_from(n).unwrap() + 3,
    }
}

/// Like [`slot`], but every seventh has none.
fn some_slot(n: u64) -> Option<Slot> {
    (!n.is_multiple_of(7)).then(|| slot(n))
}

fn path_of(n: u64) -> EntryPath {
    EntryPath::new(format!("data/f{n:06}").into_bytes()).unwrap()
}

fn entry(path: EntryPath, kind: EntryKind) -> Entry {
    Entry {
        path,
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

/// Behind every eighth extent a page ends, once it is long enough: short files lie on one page.
fn extent(n: u64) -> Extent {
    let mut id = if n % 8 == 7 { [0; 32] } else { [0xff; 32] };
    id[8..16].copy_from_slice(&n.to_le_bytes());
    Extent::Chunk { id: ChunkId::from_bytes(id), len: 10 }
}

fn extents(count: u64) -> Vec<Extent> {
    (0..count).map(extent).collect()
}

/// A push that writes what it knows.
struct Push {
    spool: Spool,
    pages: PageBuilder,
}

impl Push {
    fn begin(place: Option<&Place>, session: SessionId, number: u64) -> Self {
        let spool = Spool::create(place, domain(), REPOSITORY, session, number).unwrap();
        Self { spool, pages: PageBuilder::new(domain()) }
    }

    fn put(&mut self, page: Option<Page>) {
        if let Some(page) = page {
            self.spool.page(&page).unwrap();
        }
    }

    fn folder(&mut self) {
        let page = self.pages.entry(&entry(EntryPath::new(b"data".to_vec()).unwrap(), EntryKind::Folder));
        self.put(page);
    }

    /// Starts a file: its end is still to come.
    fn open_file(&mut self, n: u64, slot: Option<Slot>, extents: &[Extent]) {
        self.spool.file(slot);
        let page = self.pages.entry(&entry(path_of(n), EntryKind::File));
        self.put(page);
        for extent in extents {
            let page = self.pages.extent(*extent);
            self.put(page);
        }
    }

    fn file(&mut self, n: u64, slot: Option<Slot>, extents: &[Extent]) {
        self.open_file(n, slot, extents);
        let page = self.pages.end_file(FileEnd::Whole(domain().file_digester().finish()));
        self.put(page);
    }

    /// Ends the page, however short it is.
    fn end_page(&mut self) {
        let page = self.pages.finish();
        self.put(page);
    }

    /// The push comes to its end.
    fn finish(mut self, manifest: ManifestId) {
        self.end_page();
        self.spool.finish(&manifest).unwrap();
    }

    /// The push is killed when all its pages are on disk.
    fn cut_short(mut self) {
        self.end_page();
    }
}

/// A push of `files` files with three extents each.
fn push(place: &Place, session: SessionId, files: u64) -> Push {
    let mut push = Push::begin(Some(place), session, 41);
    push.folder();
    for n in 0..files {
        push.file(n, some_slot(n), &extents(3));
    }
    push
}

fn write(place: &Place, files: u64) {
    push(place, SESSION, files).finish(MANIFEST);
}

fn open(place: &Place) -> Result<Known, Damaged> {
    Known::open(place.of(&REPOSITORY).ok_or(Damaged)?, domain())
}

fn open_journal(place: &Place) -> Option<Known> {
    Known::open(place.journal()?, domain()).ok()
}

/// Reads everything, and returns how many files had an identity.
fn read(place: &Place, files: u64) -> Result<u64, Damaged> {
    let mut known = open(place)?;
    let mut identified = 0;
    for n in 0..files {
        let found = known.find(&path_of(n))?.ok_or(Damaged)?;
        if let Some(found) = found.slot {
            assert_eq!(found, slot(n), "a wrong identity is worse than none");
            identified += 1;
        }
        assert_eq!(known.content()?.unwrap().extents, extents(3));
    }
    Ok(identified)
}

/// Those of the first `files` files that are found; each must be what it was.
fn found(known: &mut Known, files: u64) -> Vec<u64> {
    let is_there = |n: &u64| {
        let Some(found) = known.find(&path_of(*n)).unwrap() else { return false };
        assert_eq!(found.slot, some_slot(*n), "a wrong slot is worse than none");
        assert_eq!(known.content().unwrap().unwrap().extents, extents(3));
        true
    };
    (0..files).filter(is_there).collect()
}

fn state_file(place: &Place) -> PathBuf {
    place.folder().join(place.name(&REPOSITORY))
}

fn journal_file(place: &Place) -> PathBuf {
    state_file(place).with_extension("journal")
}

/// Files at the place, by extension.
fn extensions(place: &Place) -> Vec<String> {
    let names = fs::read_dir(place.folder()).unwrap().map(|found| found.unwrap().path());
    let mut found: Vec<_> =
        names.map(|path| path.extension().unwrap().to_str().unwrap().to_owned()).collect();
    found.sort();
    found
}

/// Where the blocks of a file end: behind that lie the inodes of a finished one.
fn end_of_blocks(bytes: &[u8]) -> usize {
    match u64::from_le_bytes(bytes[74..82].try_into().unwrap()) {
        0 => bytes.len(),
        end => usize::try_from(end).unwrap(),
    }
}

/// Where the header of a file ends, and each of its blocks.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let u32_at =
        |at: usize| usize::try_from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())).unwrap();
    let end = end_of_blocks(bytes);
    let mut ends = vec![FIXED_LEN + b"data\0".len() + DEVICE_LEN + CHECK_LEN];
    while let Some(at) = ends.last().copied().filter(|at| *at < end) {
        ends.push(at + BLOCK_HEAD_LEN + u32_at(at) + u32_at(at + 4) * SLOT_LEN);
    }
    assert_eq!(ends.last(), Some(&end), "this is not how a file is made up");
    ends
}

/// A journal with one file on each of `files` short pages; returns its bytes.
fn short_pages(place: &Place, files: u64) -> Vec<u8> {
    let mut push = Push::begin(Some(place), SESSION, 0);
    for n in 0..files {
        push.file(n, some_slot(n), &extents(3));
        push.end_page();
    }
    push.cut_short();
    assert!(place.journal().is_some());
    fs::read(journal_file(place)).unwrap()
}

#[test]
fn what_was_written_is_read_back_over_many_pages() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());

    write(&place, 2000);

    assert_eq!(read(&place, 2000).unwrap(), 2000 - 286);
    let header = place.newest().unwrap();
    assert_eq!((header.repository(), header.manifest()), (REPOSITORY, MANIFEST));
    assert_eq!((header.session(), header.number()), (SESSION, 41));
    assert_eq!(extensions(&place), ["state"], "a temporary name was left");
}

#[test]
fn a_merge_finds_what_both_have_and_steps_over_the_rest() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    write(&place, 1000);
    let mut known = open(&place).unwrap();
    let mut find = |path: EntryPath| known.find(&path).unwrap().map(|found| found.slot);
    let named = |path: &str| EntryPath::new(path.as_bytes().to_vec()).unwrap();

    assert_eq!(find(named("data/a-new-one")), None);
    assert_eq!(find(path_of(5)), Some(Some(slot(5))));
    assert_eq!(find(named("data/f000005.new")), None);
    assert_eq!(find(path_of(7)), Some(None));
    assert_eq!(find(path_of(999)), Some(Some(slot(999))));
    assert_eq!(find(named("data/z")), None);
    assert_eq!(find(named("e")), None);
}

#[test]
fn files_that_never_came_are_counted_from_the_last_rewind_on() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    write(&place, 1000);
    let mut known = open(&place).unwrap();
    let mut gone = |came: &[u64]| {
        known.rewind().unwrap();
        for n in came {
            known.find(&path_of(*n)).unwrap();
        }
        known.count_gone().unwrap()
    };
    let unknown = 1000;

    assert_eq!(gone(&[]), 1000);
    assert_eq!(gone(&(0..1000).collect::<Vec<_>>()), 0);
    assert_eq!(gone(&[0, 3, 4, 999]), 996);
    assert_eq!(gone(&[3, unknown]), 999);
    assert_eq!(gone(&(500..1000).collect::<Vec<_>>()), 500);
    // A new file was looked for last: the known one behind it has been read by then.
    known.rewind().unwrap();
    assert!(known.find(&EntryPath::new(b"data/f000003.new".to_vec()).unwrap()).unwrap().is_none());
    assert_eq!(known.count_gone().unwrap(), 1000);
}

#[test]
fn chunks_come_page_by_page_and_once_for_each_use() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    let mut push = Push::begin(Some(&place), SESSION, 0);
    push.folder();
    push.file(0, some_slot(0), &[extent(1), Extent::Hole { len: 5 }, extent(2)]);
    push.file(1, some_slot(1), &extents(3000));
    push.file(2, some_slot(2), &[extent(1)]);
    push.finish(MANIFEST);
    let mut known = open(&place).unwrap();
    let chunks = |known: &mut Known| {
        let mut pages = Vec::new();
        while let Some(page) = known.next_chunks().unwrap() {
            pages.push(page);
        }
        pages
    };

    let pages = chunks(&mut known);

    assert!(pages.len() > 3, "the files no longer span pages");
    let all = [1, 2].into_iter().chain(0..3000).chain([1]).map(|n| extent(n).chunk().unwrap());
    assert_eq!(pages.concat(), all.collect::<Vec<_>>());
    assert!(known.next_chunks().unwrap().is_none());
    known.rewind().unwrap();
    assert_eq!(known.find(&path_of(0)).unwrap().unwrap().slot, some_slot(0));
    known.rewind().unwrap();
    assert_eq!(chunks(&mut known), pages);
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

    let end = end_of_blocks(&good);
    let places = (0..end).step_by(397).chain(0..200).chain(end - 60..end);
    for position in places {
        // Another manifest or repository is not noticed before the header's check.
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        assert!(read(&place, 700).is_err(), "a flipped bit at {position}");
    }
    for len in (0..end).step_by(4013).chain(ends(&good)).filter(|len| *len < end) {
        fs::write(&path, &good[..len]).unwrap();
        assert!(read(&place, 700).is_err(), "cut at {len}");
    }
    fs::write(&path, &good).unwrap();
    assert!(read(&place, 700).is_ok(), "the checks refuse what is good");
}

/// C20: a forecast has no key. It reads the same from what is good, and from what is damaged something or an error.
#[test]
fn without_the_key_the_same_is_read_and_damage_ends_nothing_but_the_reading() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    write(&place, 700);
    let path = state_file(&place);
    let good = fs::read(&path).unwrap();
    let read = || {
        let mut memory = Memory::new(
            Some(Known::open_unchecked(place.newest().ok_or(Damaged)?)?),
            None,
            Likeness::default(),
        );
        let mut found = 0;
        for n in 0..700 {
            found += u64::from(memory.find(&path_of(n), &slot(n).identity)?.is_some());
        }
        memory.count_gone().map(|gone| (found, gone))
    };
    assert_eq!(read().ok(), Some((700, 0)));

    let end = end_of_blocks(&good);
    for position in (0..end).step_by(397).chain(0..200).chain(end - 60..end) {
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let _ = read();
    }
    for len in (0..end).step_by(4013).filter(|len| *len < end) {
        fs::write(&path, &good[..len]).unwrap();
        assert!(read().is_err(), "cut at {len}");
    }
}

/// C14: what is wrong with the rows of inodes costs files that are not found, never one that is another.
#[test]
fn damaged_rows_of_inodes_find_the_right_file_or_none() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    write(&place, 40);
    let path = state_file(&place);
    let good = fs::read(&path).unwrap();
    let known = |n: u64| some_slot(n).is_some();
    let find_all = || {
        let Some(mut files) = open(&place).unwrap().by_inode() else { return 0 };
        let mut found = 0;
        for n in 0..40 {
            let Some(file) = files.find(n, |slot| slot.identity.is_same_inode(&self::slot(n).identity))
            else {
                continue;
            };
            assert_eq!((file.entry.path, file.slot), (path_of(n), Some(self::slot(n))));
            assert_eq!(files.content().unwrap().unwrap().extents, extents(3));
            found += 1;
        }
        found
    };
    assert_eq!(find_all(), (0..40).filter(|n| known(*n)).count(), "sound rows find each file");

    let rows = end_of_blocks(&good)..good.len();
    assert!(rows.len() >= 30 * 20);
    for position in rows.clone().step_by(9) {
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        find_all();
    }
    for len in rows.step_by(53) {
        fs::write(&path, &good[..len]).unwrap();
        find_all();
    }
}

/// P4: nothing is read, and no room is made, of what a state only claims to hold. How much memory that takes is
/// measured by the suite `fuzz`.
#[test]
fn a_state_that_is_shorter_than_it_says_is_not_opened() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    write(&place, 10);
    let path = state_file(&place);
    let good = fs::read(&path).unwrap();

    fs::write(&path, &good[..end_of_blocks(&good) - 1]).unwrap();
    assert!(matches!(open(&place), Err(Damaged)), "one byte is missing");

    let mut roots = good.clone();
    roots[FIXED_LEN - 8..FIXED_LEN - 4].copy_from_slice(&(16_u32 << 20).to_le_bytes());
    fs::write(&path, &roots).unwrap();
    assert!(place.newest().is_none(), "roots that are not there");

    fs::write(&path, &good).unwrap();
    assert!(open(&place).is_ok());
}

#[test]
fn a_state_of_another_domain_or_other_roots_is_not_used() {
    let temp = tempfile::tempdir().unwrap();
    let here = place(temp.path());
    write(&here, 10);
    let other_key = DomainKey::parse(&"5b".repeat(32)).unwrap();
    let mut other_roots = here.clone();
    // Simulates equal hashes of the roots in the name.
    other_roots.set_roots(b"other\0".to_vec());
    fs::copy(state_file(&here), state_file(&other_roots)).unwrap();

    assert!(Known::open(here.of(&REPOSITORY).unwrap(), other_key).is_err());
    assert!(other_roots.of(&REPOSITORY).is_none());
    assert!(here.of(&RepositoryId::from_bytes([1; 16])).is_none());
}

#[test]
fn a_second_push_beside_the_first_is_not_remembered() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    write(&place, 10);

    let first = push(&place, SESSION, 20);
    push(&place, OTHER_SESSION, 30).finish(ManifestId::from_bytes([1; 32]));

    assert_eq!(place.newest().unwrap().manifest(), MANIFEST);
    assert_eq!(read(&place, 10).unwrap(), 8);
    assert_eq!(extensions(&place), ["new", "state"]);
    first.finish(MANIFEST);
    assert!(read(&place, 20).is_ok());
    assert_eq!(extensions(&place), ["state"]);
}

#[test]
fn an_unfinished_push_leaves_the_last_state_and_what_nobody_took_is_written_over() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    write(&place, 10);

    push(&place, OTHER_SESSION, 500).cut_short();

    assert!(read(&place, 10).is_ok());
    assert_eq!(extensions(&place), ["new", "state"]);
    write(&place, 20);
    assert!(read(&place, 20).is_ok());
    assert_eq!(extensions(&place), ["state"]);
    let whole = fs::read(state_file(&place)).unwrap();
    assert!(ends(&whole).len() > 1, "something of the old one is left behind its end");
}

#[test]
fn an_unfinished_push_becomes_the_journal() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    push(&place, OTHER_SESSION, 2000).cut_short();
    assert_eq!(extensions(&place), ["new"]);

    let header = place.journal().unwrap();

    assert_eq!(extensions(&place), ["journal"]);
    assert!(place.newest().is_none(), "a journal passes for the state of a finished push");
    assert_eq!((header.repository(), header.session()), (REPOSITORY, OTHER_SESSION));
    assert_eq!(header.manifest(), ManifestId::from_bytes([0; 32]));
    let mut known = Known::open(header, domain()).unwrap();
    assert_eq!(found(&mut known, 2001), (0..2000).collect::<Vec<_>>());
}

#[test]
fn a_journal_is_good_up_to_its_last_whole_block_wherever_it_is_cut() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    let good = short_pages(&place, 5);
    let ends = ends(&good);
    assert_eq!(ends.len(), 6);
    let mut seen = 0;

    for len in 0..=good.len() {
        fs::write(journal_file(&place), &good[..len]).unwrap();
        let known = open_journal(&place);
        assert_eq!(known.is_some(), len >= ends[0], "cut at {len}");
        let Some(mut known) = known else { continue };
        let whole = ends.iter().filter(|end| **end <= len).count() - 1;
        let whole: Vec<u64> = (0..5).take(whole).collect();

        assert_eq!(found(&mut known, 6), whole, "cut at {len}");

        assert_eq!(known.count_gone().unwrap(), 0);
        known.rewind().unwrap();
        assert_eq!(found(&mut known, 6), whole, "cut at {len}, once more");
        seen = seen.max(whole.len());
    }
    assert_eq!(seen, 5, "the whole journal was never read");
}

#[test]
fn a_journal_is_good_up_to_the_first_damaged_block() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    let good = short_pages(&place, 9);
    let ends = ends(&good);

    for position in (0..good.len()).filter(|at| *at < 300 || at % 7 == 0) {
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        fs::write(journal_file(&place), &bad).unwrap();
        let known = open_journal(&place);
        assert_eq!(known.is_some(), position >= ends[0], "a flipped bit at {position}");
        let Some(mut known) = known else { continue };
        let whole = ends.iter().filter(|end| **end <= position).count() - 1;

        let found = found(&mut known, 10);

        assert_eq!(found, (0..9).take(whole).collect::<Vec<_>>(), "a flipped bit at {position}");
    }
}

#[test]
fn a_file_that_a_journal_cuts_short_has_no_end() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    let mut push = Push::begin(Some(&place), SESSION, 0);
    push.file(0, some_slot(0), &extents(3));
    push.file(1, some_slot(1), &extents(3000));
    push.file(2, some_slot(2), &extents(3));
    push.cut_short();
    assert!(place.journal().is_some());
    let good = fs::read(journal_file(&place)).unwrap();
    let ends = ends(&good);
    assert!(ends.len() > 5, "the file no longer spans pages");

    for (index, len) in ends.iter().enumerate().take(ends.len() - 1).skip(1) {
        fs::write(journal_file(&place), &good[..*len]).unwrap();
        let mut known = open_journal(&place).unwrap();
        assert_eq!(known.find(&path_of(1)).unwrap().unwrap().slot, some_slot(1));
        let mut read = Vec::new();
        while let Some(content) = known.content().unwrap() {
            assert_eq!(content.end, None);
            read.extend(content.extents);
        }

        assert!(read.len() > index * 300 && read.len() < 3000, "{} extents of {index} pages", read.len());
        assert_eq!(read, extents(3000)[..read.len()]);
        assert!(known.content().unwrap().is_none(), "the end moved");
        assert!(known.find(&path_of(2)).unwrap().is_none());
    }
}

/// The twin of the one above: only a journal may end like that.
#[test]
fn a_finished_state_that_cuts_a_file_short_is_damaged() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    let mut push = Push::begin(Some(&place), SESSION, 0);
    push.open_file(1, some_slot(1), &extents(3000));
    push.spool.finish(&MANIFEST).unwrap();
    let mut known = open(&place).unwrap();
    assert!(known.find(&path_of(1)).unwrap().is_some());

    let end = std::iter::repeat_with(|| known.content()).find(|content| !matches!(content, Ok(Some(_))));

    assert!(matches!(end, Some(Err(Damaged))), "{end:?}");
}

#[test]
fn a_journal_of_another_repository_domain_or_roots_is_told_apart() {
    let temp = tempfile::tempdir().unwrap();
    let here = place(temp.path());
    let other = RepositoryId::from_bytes([1; 16]);
    let mut spool = Spool::create(Some(&here), domain(), other, SESSION, 0).unwrap();
    let mut pages = PageBuilder::new(domain());
    pages.entry(&entry(path_of(0), EntryKind::Folder));
    spool.page(&pages.finish().unwrap()).unwrap();
    drop(spool);

    assert_eq!(here.journal().unwrap().repository(), other);
    assert!(place_of(temp.path(), "elsewhere").journal().is_none(), "the journal of other roots");
    let other_key = DomainKey::parse(&"5b".repeat(32)).unwrap();
    assert!(Known::open(here.journal().unwrap(), other_key).is_err());
    assert!(Known::open(here.journal().unwrap(), domain()).is_ok());

    let mut other_roots = here.clone();
    other_roots.set_roots(b"other\0".to_vec());
    let named_alike = other_roots.folder().join(other_roots.name(&other)).with_extension("journal");
    fs::copy(here.folder().join(here.name(&other)).with_extension("journal"), named_alike).unwrap();
    assert!(other_roots.journal().is_none(), "the header has the roots");
}

#[test]
fn of_two_journals_the_longer_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    let session = |n: u8| SessionId::from_bytes([n; 16]);
    let cut_short = |n: u8, files: u64| {
        push(&place, session(n), files).cut_short();
        let session = place.journal().unwrap().session();
        assert_eq!(extensions(&place), ["journal"]);
        session
    };

    assert_eq!(cut_short(1, 200), session(1));
    assert_eq!(cut_short(2, 100), session(1), "a push that got less far took its place");
    assert_eq!(cut_short(3, 0), session(1));
    assert_eq!(cut_short(4, 300), session(4));
    assert_eq!(found(&mut open_journal(&place).unwrap(), 301).len(), 300);
}

#[test]
fn a_journal_that_a_live_push_writes_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    let mut live = push(&place, SESSION, 1000);
    assert!(!live.spool.pages().is_empty(), "nothing would be there to take");

    assert!(place.journal().is_none());

    assert_eq!(extensions(&place), ["new"]);
    live.file(1000, some_slot(1000), &extents(3));
    live.finish(MANIFEST);
    assert_eq!(read(&place, 1001).unwrap(), 1001 - 143);
}

#[test]
fn a_push_that_finishes_takes_the_journal_of_its_repository_with_it() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    let other = RepositoryId::from_bytes([1; 16]);
    drop(Spool::create(Some(&place), domain(), other, SESSION, 0).unwrap());
    push(&place, OTHER_SESSION, 10).cut_short();
    assert!(place.journal().is_some());
    assert_eq!(extensions(&place), ["journal", "journal"]);

    write(&place, 20);

    assert_eq!(extensions(&place), ["journal", "state"]);
    assert_eq!(place.journal().unwrap().repository(), other);
}

#[test]
fn a_file_that_is_taken_back_leaves_no_trace() {
    for long in [0, 1, 400, 1000, 5000] {
        let written = |with: bool| {
            let temp = tempfile::tempdir().unwrap();
            let place = place(temp.path());
            let mut push = Push::begin(Some(&place), SESSION, 0);
            push.folder();
            // Taken back at the start of a page, in the middle of one, and behind others.
            for n in 0..20 {
                let times = if with { n % 3 } else { 0 };
                for _ in 0..times {
                    let (page, mark) = (push.pages.mark(), push.spool.mark());
                    let pages = push.spool.pages().len();
                    push.open_file(n, Some(slot(n + 1000)), &extents(long));
                    if n % 2 == 0 {
                        let ended = push.pages.end_file(FileEnd::Unreadable);
                        push.put(ended);
                    }
                    assert!(long < 5000 || push.spool.pages().len() > pages + 5, "it fits on a page or two");
                    let first = push.spool.rewind(mark).unwrap();
                    push.pages.rewind(page, first);
                    assert_eq!(push.spool.pages().len(), pages);
                }
                push.file(n, some_slot(n), &extents(n * 50));
                if n % 5 == 0 {
                    push.end_page();
                }
            }
            push.end_page();
            let mut read = Vec::new();
            let each = |page: &format_spec::manifest::PageRef, bytes: &[u8]| {
                read.push((*page, bytes.to_vec()));
                std::io::Result::Ok(())
            };
            push.spool.read_back(each).unwrap();
            assert_eq!(push.spool.pages(), read.iter().map(|page| page.0).collect::<Vec<_>>());
            push.finish(MANIFEST);
            (read, fs::read(state_file(&place)).unwrap())
        };

        let (with, without) = (written(true), written(false));

        assert!(with == without, "a file of {long} extents left something");
        assert!(without.0.len() > 4, "everything fits on few pages");
    }
}

#[test]
fn released_files_are_known_as_they_are_afterwards_and_all_others_as_they_were() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    let mut push = push(&place, SESSION, 2000);
    push.end_page();
    let is_released = |n: u64| n.is_multiple_of(3) && !n.is_multiple_of(7);
    let after = |identity: &Identity| Identity { ctime: time(99), ..*identity };
    let mut asked = Vec::new();

    let released = push.spool.release(|identity| {
        asked.push(identity.ino);
        // Those that 2 divides were changed meanwhile.
        (!identity.ino.is_multiple_of(2)).then(|| after(identity))
    });

    released.unwrap();
    assert_eq!(asked, (0..2000).filter(|n| is_released(*n)).collect::<Vec<_>>());
    push.spool.release(|identity| panic!("{identity:?} has no second name any more")).unwrap();
    push.spool.finish(&MANIFEST).unwrap();
    let mut known = open(&place).unwrap();
    for n in 0..2000 {
        let found = known.find(&path_of(n)).unwrap().unwrap().slot;
        let expected = some_slot(n).map(|slot| match (is_released(n), n % 2) {
            (true, 1) => Slot { identity: after(&slot.identity), source: Source::Path, ..slot },
            (true, _) => Slot { source: Source::Path, ..slot },
            (false, _) => slot,
        });
        assert_eq!(found, expected, "file {n}");
        assert_eq!(known.content().unwrap().unwrap().extents, extents(3));
    }
}

#[test]
fn a_journal_says_which_second_names_were_left_and_which_were_released() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    push(&place, SESSION, 20).cut_short();
    assert_eq!(found(&mut open_journal(&place).unwrap(), 20).len(), 20, "as they were frozen");

    let mut failed = push(&place, SESSION, 30);
    failed.end_page();
    failed.spool.release(|identity| Some(*identity)).unwrap();
    drop(failed);

    let mut known = open_journal(&place).unwrap();
    let sources = (0..30).filter_map(|n| known.find(&path_of(n)).unwrap().unwrap().slot);
    assert!(sources.map(|slot| slot.source).all(|source| source == Source::Path));
}

#[test]
fn a_spool_that_nobody_will_read_releases_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let place = place(temp.path());
    let _first = push(&place, SESSION, 10);
    let mut second = push(&place, OTHER_SESSION, 10);
    let mut nowhere = Push::begin(None, SESSION, 0);
    nowhere.file(3, Some(slot(3)), &extents(3));
    for push in [&mut second, &mut nowhere] {
        push.end_page();

        push.spool.release(|identity| panic!("{identity:?} is released one by one for nobody")).unwrap();
    }
}

/// A push with three extents in each of its files, and after it a journal with four.
fn memory(place: &Place) -> Memory {
    let mut last = Push::begin(Some(place), SESSION, 0);
    for n in 0..6 {
        last.file(n, some_slot(n), &extents(3));
    }
    last.finish(MANIFEST);
    let mut journal = Push::begin(Some(place), OTHER_SESSION, 1);
    for n in 2..9 {
        journal.file(n, some_slot(n + 100), &extents(4));
    }
    journal.cut_short();
    Memory::new(open(place).ok(), open_journal(place), Likeness::default())
}

#[test]
fn the_journal_comes_first_only_for_a_file_that_is_what_it_says() {
    let temp = tempfile::tempdir().unwrap();
    let mut memory = memory(&place(temp.path()));
    let mut origin = |n: u64, now: u64| {
        memory.rewind().unwrap();
        let found = memory.find(&path_of(n), &slot(now).identity).unwrap()?;
        let content = memory.content(found.origin).unwrap().unwrap();
        let (slot, extent_count) = match found.origin {
            Origin::Moved => panic!("each has its name"),
            Origin::Last => (some_slot(n), 3),
            Origin::Journal => (some_slot(n + 100), 4),
        };
        assert_eq!((found.slot, content.extents), (slot, extents(extent_count)), "file {n}");
        assert_eq!(found.entry.path, path_of(n));
        Some(found.origin)
    };

    assert_eq!(origin(1, 1), Some(Origin::Last));
    assert_eq!(origin(3, 103), Some(Origin::Journal));
    assert_eq!(origin(3, 3), Some(Origin::Last), "the file is what it was at the last push");
    assert_eq!(origin(3, 77), Some(Origin::Last), "the file is neither");
    assert_eq!(some_slot(5 + 100), None);
    assert_eq!(origin(5, 105), Some(Origin::Last), "the journal cannot be relied on");
    assert_eq!(origin(6, 106), Some(Origin::Journal));
    assert_eq!(origin(6, 77), Some(Origin::Journal), "nothing else knows the file");
    assert_eq!(origin(9, 109), None);
}

#[test]
fn files_are_found_in_both_in_one_pass_and_only_the_last_push_counts_as_gone() {
    let temp = tempfile::tempdir().unwrap();
    let mut memory = memory(&place(temp.path()));

    let origins: Vec<_> = [0, 2, 4, 8]
        .map(|n| memory.find(&path_of(n), &slot(n + 100).identity).unwrap().map(|found| found.origin))
        .to_vec();

    assert_eq!(origins, [Origin::Last, Origin::Journal, Origin::Journal, Origin::Journal].map(Some));
    assert_eq!(memory.count_gone().unwrap(), 3);
    memory.rewind().unwrap();
    assert_eq!(memory.count_gone().unwrap(), 6);
    memory.last = None;
    memory.rewind().unwrap();
    assert_eq!(memory.count_gone().unwrap(), 0);
}

#[test]
fn who_remembers_nothing_finds_nothing() {
    let mut memory = Memory::default();

    assert!(memory.find(&path_of(1), &slot(1).identity).unwrap().is_none());
    assert_eq!(memory.count_gone().unwrap(), 0);
    assert!(memory.content(Origin::Last).is_err(), "content of a file that was never found");
}

#[test]
fn pushes_of_other_folders_have_other_keys() {
    let here = place(Path::new("/state")).key();

    assert_eq!(here, place(Path::new("/state")).key());
    assert_ne!(here, place_of(Path::new("/state"), "other").key());
    assert_ne!(here, place(Path::new("/elsewhere")).key());
    assert!(here.len() == 16 && here.bytes().all(|byte| byte.is_ascii_hexdigit()), "{here}");
}

#[test]
fn the_state_folder_is_asked_for_then_the_users() {
    let env = |set: &'static str| move |name: &str| (name == set).then(|| "/x".to_owned());

    assert_eq!(default_folder(&env("ASTACUS_STATE_DIR")), Some(PathBuf::from("/x")));
    assert_eq!(folder_of_user(&env("XDG_STATE_HOME")), Some(PathBuf::from("/x/astacus")));
    assert_eq!(folder_of_user(&env("HOME")), Some(PathBuf::from("/x/.local/state/astacus")));
    assert_eq!(folder_of_user(&env("STATE_DIRECTORY")), Some(PathBuf::from("/x")));
    let several = |name: &str| (name == "STATE_DIRECTORY").then(|| "/one:/two".to_owned());
    assert_eq!(folder_of_user(&several), Some(PathBuf::from("/one")));
    assert_eq!(folder_of_user(&|_| None), None, "nobody knows of a place");
}

#[test]
fn a_state_folder_that_is_no_absolute_path_counts_as_not_set() {
    for odd in ["", "state", "./state"] {
        let env = |home: &'static str| {
            move |name: &str| match name {
                "XDG_STATE_HOME" => Some(odd.to_owned()),
                "HOME" => Some(home.to_owned()),
                _ => None,
            }
        };

        let of_home = Some(PathBuf::from("/home/u/.local/state/astacus"));
        assert_eq!(folder_of_user(&env("/home/u")), of_home, "{odd:?}");
        assert_eq!(folder_of_user(&env(odd)), None, "{odd:?}");
    }
}
