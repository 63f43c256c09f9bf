use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use format_spec::blob::{BlobInfo, Compression};
use format_spec::entry::{Extent, FileEnd, Timestamp};
use format_spec::key::BlobKind;
use format_spec::manifest::{Manifest, PageRef, Totals};
use format_spec::page::PageBuilder;
use format_spec::wire::{Finding, FindingKind, Frame, Stopped, VerifyLimits};
use format_spec::{ChunkId, Entry, EntryKind, EntryPath, FORMAT_VERSION, FileDigest, SnapshotId};

use super::examine::{examine, pack_row};
use super::piecewise::Pieces;
use super::*;
use crate::defects::blobs::{self, Place};
use crate::health::alarm::{self, AlarmCode};
use crate::index::{Batch, Index, MemoryIndex, Table};
use crate::lease::{TEST, Upkeep};
use crate::operation;
use crate::pack::OpenDomain;
use crate::pack::{flush, take_in};
use crate::rows::{ChunkRow, Epoch, Health, PackRow};
use crate::session::Pusher;
use crate::site::faulty::{Fault, FaultKind, FaultySite, Refusal};
use crate::site::layout::snapshot_object;
use crate::site::layout::{manifest_object, pack_object};
use crate::site::{ObjectName, Op, Site, StoreSite};
use crate::snapshot::series::Smaller;
use crate::store::Parts;
use crate::testing::ManualClock;

/// How the content of a file ends.
type End = fn(FileDigest) -> FileEnd;

/// A file as the tests push it.
struct File {
    path: &'static str,
    chunks: Vec<Vec<u8>>,
    link_group: Option<u64>,
    digest: Option<FileDigest>,
    more_size: u64,
    end: End,
}

fn file(path: &'static str, content: &str) -> File {
    let chunks = vec![content.as_bytes().to_vec()];
    File { path, chunks, link_group: None, digest: None, more_size: 0, end: FileEnd::Whole }
}

struct World {
    index: MemoryIndex,
    site: Arc<FaultySite>,
    clock: Arc<ManualClock>,
    server: Arc<Server>,
    store: Arc<Store>,
}

impl World {
    fn new() -> Self {
        let index = MemoryIndex::new();
        let site = Arc::new(FaultySite::new(Arc::new(StoreSite::memory())));
        let clock: Arc<ManualClock> = Arc::default();
        let parts = Parts { site: Arc::<FaultySite>::clone(&site), cores: 2, ..Parts::default() };
        let server = parts.over(index.clone()).at(Arc::<ManualClock>::clone(&clock)).serve();
        let store = Arc::clone(&server.store);
        Self { index, site, clock, server, store }
    }

    fn domain(&self) -> Arc<OpenDomain> {
        self.server.domain(&"c".parse().unwrap())
    }

    async fn store(&self, kind: BlobKind, plain: &[u8]) -> (ChunkId, u32) {
        let domain = self.domain();
        let id = domain.keys.key.id_of(kind, plain);
        let plain_len = u32::try_from(plain.len()).unwrap();
        let info = BlobInfo { kind, id, plain_len, compression: Compression::Raw };
        let frame = Frame { info, payload: Bytes::copy_from_slice(plain) };
        take_in(&domain, Epoch::default(), &[frame]).unwrap();
        (id, plain_len)
    }

    /// Pushes files, each with a pack of its own, and their pages.
    async fn push(&self, files: Vec<File>) -> SnapshotId {
        let domain = self.domain();
        let mut pages = Vec::new();
        let mut builder = PageBuilder::new(domain.keys.key.clone());
        let mut first_of_group = BTreeSet::new();
        for file in files {
            let mut extents = Vec::new();
            for chunk in &file.chunks {
                let (id, len) = self.store(BlobKind::Chunk, chunk).await;
                extents.push(Extent::Chunk { id, len });
            }
            flush(&domain, BlobKind::Chunk).await.unwrap();
            let is_first = file.link_group.is_none_or(|group| first_of_group.insert(group));
            pages.extend(builder.entry(&entry(&file, &extents, is_first)));
            if !is_first {
                continue;
            }
            let mut digest = domain.keys.key.file_digester();
            for extent in extents {
                digest.push(&extent);
                pages.extend(builder.extent(extent));
            }
            pages.extend(builder.end_file((file.end)(file.digest.unwrap_or_else(|| digest.finish()))));
        }
        pages.extend(builder.finish());
        let mut refs = Vec::new();
        for page in pages {
            let (id, len) = self.store(BlobKind::Page, &page.bytes).await;
            flush(&domain, BlobKind::Page).await.unwrap();
            refs.push(PageRef { id, len });
        }
        self.commit(refs).await
    }

    /// Commits pages that are there.
    async fn commit(&self, pages: Vec<PageRef>) -> SnapshotId {
        self.commit_below(vec![EntryPath::top()], pages).await
    }

    async fn commit_below(&self, roots: Vec<EntryPath>, pages: Vec<PageRef>) -> SnapshotId {
        // Snapshots are listed by time.
        self.clock.advance(Duration::from_millis(1));
        let pusher = Pusher { cluster: "c".parse().unwrap(), node: "n".parse().unwrap() };
        let session = crate::session::open(&self.server.sessions, pusher, None).unwrap().id;
        let manifest = Manifest {
            version: FORMAT_VERSION,
            cluster: "c".parse().unwrap(),
            node: "n".parse().unwrap(),
            roots,
            pages,
            totals: Totals::default(),
            problems: Vec::new(),
            tool: "test".to_owned(),
            host: "test".to_owned(),
            push: None,
            series: None,
            about: None,
            roots_are: None,
        };
        let body = Bytes::from(manifest.encode());
        crate::snapshot::commit(&self.server, session, body, Smaller::Suspect, ()).await.unwrap().id
    }

    async fn verify(&self, asked: impl Into<VerifyRequest>) -> VerifyReport {
        operation::run_unheard(&self.server, asked.into()).await.unwrap()
    }

    /// Packs of one kind, in the order in which they were made.
    fn packs(&self, kind: BlobKind) -> Vec<(PackNumber, PackRow)> {
        let mut packs = Vec::new();
        self.store.for_each_pack(|number, row| packs.push((number, row.clone()))).unwrap();
        packs.retain(|(_, row)| row.kind == kind);
        packs
    }

    async fn bytes(&self, pack: &PackRow) -> Vec<u8> {
        self.site.get(&pack_object(&pack.id)).await.unwrap().to_vec()
    }

    async fn replace(&self, name: &ObjectName, bytes: Vec<u8>) {
        self.site.delete(name).await.unwrap();
        self.site.put_new(name, bytes.into()).await.unwrap();
    }

    /// Flips a bit of the first blob in a pack.
    async fn damage(&self, pack: &PackRow) {
        let mut bytes = self.bytes(pack).await;
        bytes[80] ^= 1;
        self.replace(&pack_object(&pack.id), bytes).await;
    }

    fn row(&self, id: &ChunkId) -> ChunkRow {
        self.store.chunk_rows([id]).unwrap()[0].unwrap()
    }

    fn put<K: AsRef<[u8]>>(&self, table: Table, key: K, value: Vec<u8>) {
        let mut batch = Batch::new();
        batch.put(table, key.as_ref(), value);
        self.index.commit(batch).unwrap();
    }

    fn chunk_id(&self, content: &str) -> ChunkId {
        self.domain().keys.key.id_of(BlobKind::Chunk, content.as_bytes())
    }

    fn alarm(&self) -> bool {
        alarm::is_up(&self.store, AlarmCode::DamagedBlobs).unwrap()
    }

    /// True if an object is known to be damaged, and the alarm names it.
    fn knows_of_objects(&self) -> bool {
        alarm::is_up(&self.store, AlarmCode::DamagedObjects).unwrap()
    }

    fn manifest_object(&self, id: SnapshotId) -> ObjectName {
        let snapshot = crate::snapshot::get(&self.store, id).unwrap();
        manifest_object(&snapshot.manifests[0].id)
    }
}

fn entry(file: &File, extents: &[Extent], is_first: bool) -> Entry {
    let size: u64 = extents.iter().map(Extent::covered).sum();
    Entry {
        path: EntryPath::new(file.path.as_bytes().to_vec()).unwrap(),
        kind: if is_first { EntryKind::File } else { EntryKind::HardLink },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 1, nanos: 2 },
        size: if is_first { size + file.more_size } else { 0 },
        xattrs: Vec::new(),
        target: None,
        link_group: file.link_group,
    }
}

fn sample(level: VerifyLevel, limits: VerifyLimits) -> VerifyRequest {
    VerifyRequest { limits, ..level.into() }
}

fn files(finding: &Finding) -> Vec<(SnapshotId, &str)> {
    finding.files.iter().map(|file| (file.snapshot, file.path.as_str())).collect()
}

fn only(report: &VerifyReport) -> &Finding {
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    &report.findings[0]
}

/// The finding whose object is `object`.
fn about<'a>(report: &'a VerifyReport, object: &impl ToString) -> &'a Finding {
    let object = object.to_string();
    let found = report.findings.iter().find(|finding| finding.object == object);
    found.unwrap_or_else(|| panic!("nothing about {object}: {:?}", report.findings))
}

const LEVELS: [VerifyLevel; 4] =
    [VerifyLevel::Index, VerifyLevel::Exists, VerifyLevel::Read, VerifyLevel::Restore];

#[tokio::test]
async fn whole_data_has_no_findings_at_any_level() {
    let world = World::new();
    world.push(vec![file("a", "one"), file("b", "two")]).await;
    world.push(vec![file("a", "one"), file("c", "three")]).await;

    for level in LEVELS {
        let report = world.verify(level).await;
        assert_eq!((report.findings, report.snapshots), (vec![], 2), "{level:?}");
    }
    let report = world.verify(VerifyLevel::Restore).await;
    assert_eq!((report.packs, report.blobs, report.files, report.pages), (5, 5, 4, 2));
    assert_eq!((report.never_verified, report.stopped), (0, None));
}

/// P2: a damaged blob is named with the snapshots and files that need it, and with no others.
#[tokio::test]
async fn a_corrupt_chunk_names_exactly_the_files_that_need_it() {
    let world = World::new();
    let shared = File { chunks: vec![b"two".to_vec(), b"three".to_vec()], ..file("c", "") };
    let link = |path| File { link_group: Some(5), ..file(path, "two") };
    let first = world.push(vec![file("a", "one"), link("b"), shared, link("d")]).await;
    let second = world.push(vec![file("x", "one"), file("y", "two")]).await;
    world.push(vec![file("z", "four")]).await;
    let pack = world.packs(BlobKind::Chunk)[1].1.clone();
    world.damage(&pack).await;

    let report = world.verify(VerifyLevel::Read).await;

    let chunk = about(&report, &world.chunk_id("two"));
    let expected = vec![(first, "b"), (first, "c"), (first, "d"), (second, "y")];
    assert_eq!((files(chunk), chunk.kind), (expected, FindingKind::Corrupt));
    assert_eq!(chunk.snapshots, [first, second]);
    let altered = about(&report, &pack.id);
    assert_eq!((altered.snapshots.clone(), files(altered)), (vec![first, second], vec![]));
    assert_eq!((report.findings.len(), report.counts.corrupt, report.quarantined), (2, 2, 1));
}

/// P2: the path of a file is known on each page that its content goes on to.
#[tokio::test]
async fn a_file_is_named_also_where_its_content_goes_on_on_another_page() {
    let world = World::new();
    let mut chunks = vec![b"often".to_vec(); 9000];
    chunks.push(b"last".to_vec());
    let snapshot = world.push(vec![File { chunks, ..file("big", "") }, file("other", "x")]).await;
    assert!(world.packs(BlobKind::Page).len() > 1);
    let last = world.row(&world.chunk_id("last"));
    let (_, pack) = &world.packs(BlobKind::Chunk)[0];
    let mut bytes = world.bytes(pack).await;
    bytes[usize::try_from(last.offset).unwrap() + 14] ^= 1;
    world.replace(&pack_object(&pack.id), bytes).await;

    let report = world.verify(VerifyLevel::Read).await;

    assert_eq!(files(about(&report, &world.chunk_id("last"))), [(snapshot, "big")]);
    assert_eq!(world.verify(VerifyLevel::Restore).await.files, 2);
}

/// P2: what a lost page listed is told as a range between the files that are known.
#[tokio::test]
async fn a_damaged_page_hurts_the_files_between_its_neighbours() {
    let world = World::new();
    let big = |path| File { chunks: vec![b"often".to_vec(); 7000], ..file(path, "") };
    let snapshot = world.push(vec![file("a", "x"), big("b"), file("c", "y"), big("d"), file("e", "z")]).await;
    let pages = world.packs(BlobKind::Page);
    assert!(pages.len() >= 3, "{}", pages.len());
    world.damage(&pages[1].1).await;

    let report = world.verify(VerifyLevel::Read).await;

    let page = report.findings.iter().find(|finding| finding.object.starts_with("chunk:")).unwrap();
    assert_eq!(files(page), [(snapshot, "b")], "it began on the page before");
    let range = &page.ranges[0];
    assert_eq!((range.after.as_deref(), page.ranges.len()), (Some("b"), 1));
    assert_eq!(range.before.as_deref(), Some("e"));
}

/// G9: a push that calls itself complete and has files that are not is found out, and its snapshot is no complete one.
#[tokio::test]
async fn a_snapshot_that_only_says_to_be_complete_is_found_at_every_level() {
    let ends: [(End, bool); 4] = [
        (|_| FileEnd::Unreadable, true),
        (FileEnd::Torn, true),
        (FileEnd::Fuzzy, false),
        (FileEnd::Whole, false),
    ];
    for (end, expected) in ends {
        let world = World::new();
        let lacking = || File { end, ..file("b", "two") };
        let first = world.push(vec![file("a", "one"), lacking()]).await;
        // Its page was looked through before, for the other snapshot.
        let second = world.push(vec![file("a", "one"), lacking()]).await;

        for level in [VerifyLevel::Index, VerifyLevel::Exists, VerifyLevel::Read, VerifyLevel::Restore] {
            let report = world.verify(level).await;

            let hurt: Vec<_> = report.findings.iter().flat_map(|finding| &finding.snapshots).collect();
            let expected_hurt = if expected { vec![&first, &second] } else { Vec::new() };
            assert_eq!(hurt, expected_hurt, "{level:?}: {report:?}");
            let snapshot = crate::snapshot::get(&world.store, second).unwrap();
            let known = crate::defects::objects::all(&world.store).unwrap().against(&snapshot);
            assert_eq!(known.is_some(), expected, "{level:?}: {known:?}");
        }
    }
}

#[tokio::test]
async fn a_site_that_fails_once_is_asked_again_and_nothing_is_found() {
    for op in [Op::Get, Op::GetRanges] {
        for after in 0..4 {
            let world = World::new();
            world.push(vec![file("a", "one")]).await;
            world.site.arm(Fault { op: Some(op), after, kind: FaultKind::Refuse(Refusal::Unavailable) });

            let report = world.verify(VerifyLevel::Read).await;

            assert_eq!(report.findings, [], "{op:?} after {after}");
            assert!(after > 0 || world.site.fired().len() == 1, "{op:?}");
        }
    }
}

#[tokio::test]
async fn a_site_that_does_not_answer_is_unreadable_and_puts_nothing_in_quarantine() {
    let world = World::new();
    let snapshot = world.push(vec![file("a", "one")]).await;
    world.site.arm(Fault { op: None, after: 0, kind: FaultKind::StopBefore });

    let report = world.verify(VerifyLevel::Read).await;

    assert_eq!((report.counts.damage(), report.quarantined), (0, 0), "{report:?}");
    assert_eq!(report.counts.unreadable, 4, "two packs, a snapshot and a manifest: {report:?}");
    assert!(report.findings.iter().all(|finding| finding.kind == FindingKind::Unreadable));
    assert!(report.findings.iter().any(|finding| finding.snapshots == [snapshot]));
    assert_eq!(world.row(&world.chunk_id("one")).health, Health::Sound);
    assert_eq!((report.never_verified, world.alarm()), (2, false));
    assert!(!world.knows_of_objects(), "nothing is known of them");
    world.site.heal();
    assert_eq!(world.verify(VerifyLevel::Read).await.findings, []);
}

/// P2: a missing pack is told from a corrupt one, and hurts every file that needs anything of it.
#[tokio::test]
async fn a_missing_pack_hurts_all_its_files_and_its_blobs_go_in_quarantine() {
    let world = World::new();
    let two = File { chunks: vec![b"one".to_vec(), b"two".to_vec()], ..file("a", "") };
    let snapshot = world.push(vec![two, file("b", "two"), file("c", "three")]).await;
    let pack = world.packs(BlobKind::Chunk)[0].1.clone();
    let bytes = world.bytes(&pack).await;
    world.site.delete(&pack_object(&pack.id)).await.unwrap();

    let report = world.verify(VerifyLevel::Exists).await;

    let finding = only(&report);
    assert_eq!(
        (finding.kind, files(finding)),
        (FindingKind::Missing, vec![(snapshot, "a"), (snapshot, "b")])
    );
    assert_eq!((report.quarantined, world.alarm()), (2, true));
    assert!(blobs::any(&world.store, &"c".parse().unwrap()).unwrap());
    assert!(!blobs::any(&world.store, &"d".parse().unwrap()).unwrap());
    let known = world.verify(VerifyLevel::Index).await;
    assert_eq!(known.counts.corrupt, 2, "what is in quarantine is told at every level: {known:?}");

    world.site.put_new(&pack_object(&pack.id), bytes.into()).await.unwrap();
    let report = world.verify(VerifyLevel::Read).await;

    assert_eq!((report.findings, report.recovered, world.alarm()), (vec![], 2, false));
    assert!(!blobs::any(&world.store, &"c".parse().unwrap()).unwrap());
}

#[tokio::test]
async fn only_the_place_that_was_read_goes_in_quarantine() {
    let world = World::new();
    world.push(vec![file("a", "one")]).await;
    let id = world.chunk_id("one");
    let place = Place::of(&world.row(&id));
    let other = Place { pack: PackNumber(place.pack.0 + 1), ..place };
    let mark = |place| blobs::mark(&world.store, &[(id, place, "bad".to_owned())]).unwrap();

    assert_eq!((mark(other), world.row(&id).health), (0, Health::Sound));
    assert_eq!((mark(place), mark(place), world.row(&id).health), (1, 0, Health::Damaged));
    assert_eq!(blobs::clear(&world.store, &[(id, other)]).unwrap(), 0);
    assert_eq!(blobs::clear(&world.store, &[(id, place)]).unwrap(), 1);
    assert_eq!((world.row(&id).health, world.alarm()), (Health::Sound, false));
}

#[tokio::test]
async fn what_is_said_of_a_blob_that_is_gone_is_forgotten() {
    let world = World::new();
    world.push(vec![file("a", "one")]).await;
    let id = world.chunk_id("one");
    blobs::mark(&world.store, &[(id, Place::of(&world.row(&id)), "bad".to_owned())]).unwrap();
    let mut batch = Batch::new();
    batch.delete(Table::Chunk, *id.as_bytes());
    world.index.commit(batch).unwrap();

    assert_eq!(blobs::packs(&world.store).unwrap(), []);

    assert!(!world.alarm());
    assert_eq!(world.index.get(Table::Damaged, id.as_bytes()).unwrap(), None);
}

#[tokio::test]
async fn samples_come_round_to_every_pack_and_begin_with_the_oldest() {
    let world = World::new();
    for path in ["a", "b", "c", "d"] {
        world.push(vec![file(path, path)]).await;
    }
    let one = sample(VerifyLevel::Read, VerifyLimits { sample_ppm: Some(1), ..VerifyLimits::default() });

    for left in (0..8).rev() {
        world.clock.advance(Duration::from_secs(1));
        let report = world.verify(one.clone()).await;
        assert_eq!((report.packs, report.left.count, report.never_verified), (1, 7, left), "{report:?}");
        assert_eq!((report.findings, report.stopped), (vec![], None));
    }
    let all = packs_by_age(&world);
    world.clock.advance(Duration::from_secs(1));
    world.verify(one).await;

    assert_eq!(packs_by_age(&world).last(), all.first(), "the oldest was next");
}

fn packs_by_age(world: &World) -> Vec<PackNumber> {
    let mut packs = [world.packs(BlobKind::Chunk), world.packs(BlobKind::Page)].concat();
    packs.sort_by_key(|(_, row)| row.verified_ms);
    packs.into_iter().map(|(number, _)| number).collect()
}

#[tokio::test]
async fn known_damage_does_not_hold_up_the_samples() {
    let world = World::new();
    world.push(vec![file("a", "one")]).await;
    world.push(vec![file("b", "two")]).await;
    world.damage(&world.packs(BlobKind::Chunk)[0].1).await;
    let one = sample(VerifyLevel::Read, VerifyLimits { sample_ppm: Some(1), ..VerifyLimits::default() });

    let first = world.verify(one.clone()).await;
    assert_eq!(first.counts.corrupt, 2, "the pack and the blob: {first:?}");
    assert_eq!(first.findings.iter().map(|finding| finding.snapshots.len()).max(), Some(1));
    for never in [3, 2, 1] {
        assert_eq!(world.verify(one.clone()).await.never_verified, never);
    }
}

#[tokio::test]
async fn limits_of_bytes_and_time_end_a_run_early_and_it_says_so() {
    let world = World::new();
    world.push(vec![file("a", "one"), file("b", "two")]).await;
    let limited = |limits| sample(VerifyLevel::Read, limits);

    let bytes = VerifyLimits { max_bytes: Some(1), ..VerifyLimits::default() };
    let report = world.verify(limited(bytes)).await;
    assert_eq!((report.stopped, report.packs, report.left.count), (Some(Stopped::Bytes), 1, 2));

    let time = VerifyLimits { max_time_ms: Some(0), ..VerifyLimits::default() };
    let report = world.verify(limited(time)).await;
    assert_eq!((report.stopped, report.packs, report.left.count), (Some(Stopped::Time), 0, 3));
    let report = world.verify(sample(VerifyLevel::Index, time)).await;
    assert_eq!((report.stopped, report.references), (Some(Stopped::Time), 0));
}

#[tokio::test]
async fn a_check_of_one_snapshot_reads_what_it_needs_and_nothing_else() {
    let world = World::new();
    let first = world.push(vec![file("a", "one"), file("b", "two")]).await;
    let second = world.push(vec![file("b", "two"), file("c", "three")]).await;
    world.damage(&world.packs(BlobKind::Chunk)[0].1).await;
    let check = async |snapshot| {
        let snapshot = Some(snapshot);
        let asked = VerifyRequest { snapshot, ..VerifyRequest::from(VerifyLevel::Restore) };
        world.verify(asked).await
    };

    let report = check(second).await;
    assert_eq!((report.packs, report.snapshots, report.findings), (3, 1, vec![]));
    let report = check(first).await;
    assert_eq!(files(about(&report, &world.chunk_id("one"))), [(first, "a")]);
    let none = VerifyRequest { snapshot: Some(SnapshotId::from_bytes([9; 16])), ..VerifyLevel::Read.into() };
    let refused = operation::run_unheard(&world.server, none).await.unwrap_err();
    assert!(matches!(refused, ServerError::NoSnapshot(_)), "{refused:?}");
}

/// C2: what no restore would take is found before one is needed.
#[tokio::test]
async fn a_file_whose_parts_do_not_add_up_is_found_only_as_a_restore_would() {
    let wrong_digest = File { digest: Some(FileDigest::from_bytes([3; 32])), ..file("digest", "one") };
    let wrong_size = File { more_size: 1, ..file("size", "two") };
    for wrong in [wrong_digest, wrong_size] {
        let world = World::new();
        let path = wrong.path;
        let snapshot = world.push(vec![wrong, file("whole", "three")]).await;

        assert_eq!(world.verify(VerifyLevel::Read).await.findings, []);
        let report = world.verify(VerifyLevel::Restore).await;

        let finding = only(&report);
        assert_eq!((finding.kind, files(finding)), (FindingKind::Corrupt, vec![(snapshot, path)]));
    }
}

/// X7: pages that do not go on where the one before ended are found.
#[tokio::test]
async fn pages_in_a_wrong_order_are_found() {
    let world = World::new();
    let big = File { chunks: vec![b"often".to_vec(); 9000], ..file("big", "") };
    world.push(vec![big]).await;
    let rows = world.packs(BlobKind::Page).into_iter().map(|(number, _)| number);
    let pages: Vec<PageRef> = rows.map(|number| page_in(&world, number)).collect();
    assert!(pages.len() > 1);

    world.commit(pages[1..].to_vec()).await;
    world.commit(pages[..1].to_vec()).await;
    let report = world.verify(VerifyLevel::Restore).await;

    let problems: Vec<&str> = report.findings.iter().map(|finding| finding.problem.as_str()).collect();
    let expected = ["content of a file that has no entry", "`big` has no end"];
    assert_eq!(problems, expected);
}

/// The pages of all snapshots, in the order in which they were pushed.
fn pages_of(world: &World) -> Vec<PageRef> {
    world.packs(BlobKind::Page).into_iter().map(|(number, _)| page_in(world, number)).collect()
}

/// C2: what no restore would take for its order or its folders is found at every level.
#[tokio::test]
async fn entries_that_make_no_tree_are_found() {
    let world = World::new();
    world.push(vec![file("a", "one")]).await;
    world.push(vec![file("b", "two")]).await;
    let [a, b] = <[PageRef; 2]>::try_from(pages_of(&world)).unwrap();
    let swapped = world.commit(vec![b, a]).await;
    let astray = world.push(vec![file("c/d", "three")]).await;

    for level in LEVELS {
        let report = world.verify(level).await;

        let order = about(&report, &a.id);
        assert_eq!(
            (order.problem.as_str(), files(order)),
            ("`a` is not in path order", vec![(swapped, "a")])
        );
        assert_eq!(report.counts.corrupt, 2, "{report:?}");
        assert!(report.findings.iter().any(|found| files(found) == [(astray, "c/d")]), "{report:?}");
    }
}

/// P2: a link is named whose first name is on a page that is lost.
#[tokio::test]
async fn a_link_of_a_file_on_a_lost_page_is_named() {
    let world = World::new();
    let first = File { chunks: vec![b"often".to_vec(); 7000], link_group: Some(5), ..file("a", "") };
    let link = File { link_group: Some(5), ..file("z", "") };
    let snapshot = world.push(vec![first, file("b", "two"), link]).await;
    let pages = pages_of(&world);
    assert!(pages.len() > 1);
    world.damage(&world.packs(BlobKind::Page)[0].1).await;

    let report = world.verify(VerifyLevel::Read).await;

    assert_eq!(files(about(&report, &pages[0].id)), [(snapshot, "z")]);
}

/// A page is known from another manifest only as far as the same roots allow.
#[tokio::test]
async fn a_page_that_fits_other_roots_is_looked_at_again() {
    let world = World::new();
    let roots = |names: &[&str]| {
        names.iter().map(|name| EntryPath::new(name.as_bytes().to_vec()).unwrap()).collect::<Vec<_>>()
    };
    world.push(vec![file("a", "one"), file("b", "two")]).await;
    let page = pages_of(&world).remove(0);
    world.commit_below(roots(&["b", "a"]), vec![page]).await;
    let snapshot = world.commit_below(roots(&["a"]), vec![page]).await;

    let report = world.verify(VerifyLevel::Restore).await;

    assert_eq!(files(only(&report)), [(snapshot, "b")]);
}

fn page_in(world: &World, number: PackNumber) -> PageRef {
    let rows = world.store.rows_of(&HashSet::from([number])).unwrap();
    let (id, row) = rows.into_iter().next().unwrap();
    PageRef { id, len: row.plain_len }
}

/// Takes the row of a chunk that nothing needs out of the index, as the collector does.
fn drop_row(world: &World, id: &ChunkId, count: bool) {
    let row = world.row(id);
    let pack = pack_row(&world.store, row.pack).unwrap().unwrap();
    let live = if count { pack.live.without(&row).unwrap() } else { pack.live };
    let mut batch = Batch::new();
    batch.delete(Table::Chunk, *id.as_bytes());
    batch.put(Table::Pack, row.pack.key(), PackRow { live, ..pack }.encode());
    world.index.commit(batch).unwrap();
}

/// X7: blobs that no row names any more are no finding; rows that a pack does not bear out are.
#[tokio::test]
async fn a_pack_may_hold_more_than_rows_name_but_not_less() {
    for count in [true, false] {
        let world = World::new();
        let both = File { chunks: vec![b"dropped".to_vec()], ..file("a", "") };
        world.store(BlobKind::Chunk, b"idle").await;
        world.push(vec![both]).await;
        drop_row(&world, &world.chunk_id("idle"), count);

        let report = world.verify(VerifyLevel::Read).await;

        if count {
            assert_eq!(report.findings, []);
        } else {
            assert_eq!(only(&report).kind, FindingKind::Index);
            assert_eq!(report.quarantined, 0, "no blob is bad");
        }
    }
}

/// Lets a pack's row count one blob more.
fn count_in(world: &World, number: PackNumber, row: &ChunkRow) {
    let mut pack = pack_row(&world.store, number).unwrap().unwrap();
    pack.live.add(row);
    world.put(Table::Pack, number.key(), pack.encode());
}

/// X7: a row that names a place at which the pack holds something else is found, and its file named.
#[tokio::test]
async fn a_row_that_names_a_wrong_place_is_found() {
    let elsewhere = |one: ChunkRow, two: ChunkRow| ChunkRow { pack: two.pack, ..one };
    let shifted = |one: ChunkRow, _| ChunkRow { offset: 65, ..one };
    for wrong in [elsewhere, shifted] {
        let world = World::new();
        let snapshot = world.push(vec![file("a", "one"), file("b", "two")]).await;
        let id = world.chunk_id("one");
        let right = world.row(&id);
        let wrong = wrong(right, world.row(&world.chunk_id("two")));
        drop_row(&world, &id, true);
        count_in(&world, wrong.pack, &wrong);
        world.put(Table::Chunk, id.as_bytes(), wrong.encode());

        let report = world.verify(VerifyLevel::Read).await;

        let finding = only(&report);
        assert_eq!((finding.kind, files(finding)), (FindingKind::Index, vec![(snapshot, "a")]));
        assert_eq!((world.row(&id).health, report.quarantined), (Health::Damaged, 1));
    }
}

/// X7: a page or chunk without a row, or one that is used and not counted, is found at every level.
#[tokio::test]
async fn rows_that_are_missing_or_do_not_count_are_found() {
    let world = World::new();
    let snapshot = world.push(vec![file("a", "one")]).await;
    let id = world.chunk_id("one");
    let row = world.row(&id);
    world.put(Table::Chunk, id.as_bytes(), ChunkRow { references: 0, ..row }.encode());

    let report = world.verify(VerifyLevel::Index).await;
    let finding = only(&report);
    assert_eq!((finding.kind, finding.snapshots.clone()), (FindingKind::Index, vec![snapshot]));
    assert_eq!(finding.files, [], "it can be restored");

    drop_row(&world, &id, true);
    let report = world.verify(VerifyLevel::Index).await;
    assert_eq!((only(&report).kind, files(only(&report))), (FindingKind::Index, vec![(snapshot, "a")]));
}

#[tokio::test]
async fn a_pack_that_the_collector_took_meanwhile_is_no_finding() {
    let world = World::new();
    world.push(vec![file("a", "one")]).await;
    let (number, row) = world.packs(BlobKind::Chunk).remove(0);
    let mut bytes = world.bytes(&row).await;
    bytes[80] ^= 1;
    assert!(
        !examine(&world.store, number, &row, &Pieces::whole(bytes.clone().into()))
            .unwrap()
            .unwrap()
            .is_sound()
    );
    let mut batch = Batch::new();
    batch.delete(Table::Pack, number.key());
    world.index.commit(batch).unwrap();

    assert!(examine(&world.store, number, &row, &Pieces::whole(bytes.into())).unwrap().is_none());
}

#[tokio::test]
async fn a_snapshot_that_went_meanwhile_is_no_finding() {
    let world = World::new();
    let id = world.push(vec![file("a", "one")]).await;
    let snapshot = crate::snapshot::get(&world.store, id).unwrap();
    drop_row(&world, &world.chunk_id("one"), true);
    assert_eq!(world.verify(VerifyLevel::Index).await.counts.index, 1);
    let mut batch = Batch::new();
    batch.delete(Table::Snapshot, *id.as_bytes());
    world.index.commit(batch).unwrap();

    let check = move |server: &Arc<Server>| {
        let mut check = Check::new(server, VerifyLevel::Index.into(), Progress::unheard());
        check.snapshots(vec![snapshot])?;
        check.finish()
    };
    let report = world.server.waiting(check).await.unwrap();

    assert_eq!(report.findings, []);
}

/// P2: objects of snapshots and manifests are checked against their rows.
#[tokio::test]
async fn a_damaged_or_missing_snapshot_object_is_found() {
    let world = World::new();
    let id = world.push(vec![file("a", "one")]).await;
    let name = snapshot_object(&id);
    let mut bytes = world.site.get(&name).await.unwrap().to_vec();
    bytes[70] ^= 1;
    world.replace(&name, bytes).await;

    let report = world.verify(VerifyLevel::Exists).await;
    assert_eq!((only(&report).kind, only(&report).snapshots.clone()), (FindingKind::Corrupt, vec![id]));
    world.site.delete(&name).await.unwrap();
    assert_eq!(only(&world.verify(VerifyLevel::Exists).await).kind, FindingKind::Missing);
    assert_eq!(world.verify(VerifyLevel::Index).await.findings, []);
}

/// P2: a pack whose footer is lost still gives the blobs that rows name, and says which are good.
#[tokio::test]
async fn a_pack_without_its_footer_loses_only_the_blobs_that_are_cut_off() {
    let world = World::new();
    let chunks = vec![vec![1; 100_000], vec![2; 100_000]];
    let second = File { chunks: chunks[1..].to_vec(), ..file("b", "") };
    world.push(vec![File { chunks: chunks.clone(), ..file("a", "") }, second]).await;
    let pack = world.packs(BlobKind::Chunk)[0].1.clone();
    let bytes = world.bytes(&pack).await;
    world.replace(&pack_object(&pack.id), bytes[..150_000].to_vec()).await;

    for level in [VerifyLevel::Exists, VerifyLevel::Read] {
        let report = world.verify(level).await;
        let cut = world.domain().keys.key.id_of(BlobKind::Chunk, &chunks[1]);
        let paths: Vec<&str> = files(about(&report, &cut)).into_iter().map(|(_, path)| path).collect();
        assert_eq!((paths, report.counts.corrupt), (vec!["a", "b"], 2), "{report:?}");
        assert!(about(&report, &pack.id).problem.contains("instead of"));
    }
}

/// G9: a manifest that is found damaged or lost is known as such until it is found sound again.
#[tokio::test]
async fn a_damaged_or_missing_manifest_is_remembered_until_it_is_sound() {
    for level in LEVELS {
        let world = World::new();
        world.push(vec![file("a", "one")]).await;
        let name = world.manifest_object(world.push(vec![file("b", "two")]).await);
        let good = world.site.get(&name).await.unwrap();
        let mut bad = good.to_vec();
        bad[70] ^= 1;

        world.replace(&name, bad).await;
        assert_eq!(only(&world.verify(level).await).kind, FindingKind::Corrupt);
        assert!(world.knows_of_objects(), "{level:?}");
        world.site.delete(&name).await.unwrap();
        assert_eq!(only(&world.verify(level).await).kind, FindingKind::Missing);
        assert!(world.knows_of_objects(), "{level:?}");
        // A site that does not answer proves nothing.
        world.site.arm(Fault { op: Some(Op::Get), after: 0, kind: FaultKind::StopBefore });
        assert!(world.verify(level).await.counts.unreadable > 0);
        assert!(world.knows_of_objects(), "{level:?}");
        world.site.heal();
        world.site.put_new(&name, good).await.unwrap();

        assert_eq!(world.verify(level).await.findings, []);
        assert!(!world.knows_of_objects(), "{level:?}");
    }
}

/// G11: the object of a snapshot is made again from the index, so that a rebuild finds it.
#[tokio::test]
async fn a_damaged_or_missing_snapshot_object_is_written_anew() {
    for lost in [true, false] {
        let world = World::new();
        let id = world.push(vec![file("a", "one")]).await;
        let name = snapshot_object(&id);
        let mut bytes = world.site.get(&name).await.unwrap().to_vec();
        bytes[70] ^= 1;
        match lost {
            true => world.site.delete(&name).await.unwrap(),
            false => world.replace(&name, bytes).await,
        }

        let report = world.verify(VerifyLevel::Exists).await;

        assert!(only(&report).problem.ends_with("it was rewritten from the index"), "{report:?}");
        assert_eq!(world.verify(VerifyLevel::Exists).await.findings, []);
        assert!(!world.knows_of_objects());
    }
}

/// A snapshot object that cannot be rewritten is recorded, and rewritten by a later check.
#[tokio::test]
async fn a_snapshot_object_that_cannot_be_written_anew_is_remembered() {
    for op in [Op::Delete, Op::Put] {
        let world = World::new();
        let id = world.push(vec![file("a", "one")]).await;
        world.site.delete(&snapshot_object(&id)).await.unwrap();
        let refuse = FaultKind::Refuse(Refusal::Unavailable);
        world.site.arm(Fault { op: Some(op), after: 0, kind: refuse });

        let report = world.verify(VerifyLevel::Exists).await;

        assert!(only(&report).problem.contains("could not be rewritten"), "{report:?}");
        assert!(world.knows_of_objects(), "{op:?}");
        let lease = world.server.leases.try_acquire::<Upkeep>(TEST).unwrap();
        let report = world.verify(VerifyLevel::Exists).await;
        assert!(only(&report).problem.contains("another run of test"), "{report:?}");
        drop(lease);
        world.verify(VerifyLevel::Exists).await;
        assert_eq!(world.verify(VerifyLevel::Exists).await.findings, []);
        assert!(!world.knows_of_objects(), "{op:?}");
    }
}

/// A snapshot that can be opened is never replaced: the row may be what is wrong.
#[tokio::test]
async fn another_snapshot_under_its_name_is_left_alone() {
    let world = World::new();
    let names = [world.push(vec![file("a", "one")]).await, world.push(vec![file("a", "two")]).await]
        .map(|id| snapshot_object(&id));
    let other = world.site.get(&names[1]).await.unwrap();
    world.replace(&names[0], other.to_vec()).await;

    let report = world.verify(VerifyLevel::Exists).await;

    assert!(only(&report).problem.ends_with("has another snapshot under this name"), "{report:?}");
    assert_eq!(world.site.get(&names[0]).await.unwrap(), other);
    assert!(world.knows_of_objects());
}

/// Header and footer are remembered; damage of a blob is the quarantine's.
#[tokio::test]
async fn a_damaged_end_of_a_pack_is_remembered_until_it_is_sound() {
    let world = World::new();
    world.push(vec![file("a", "one")]).await;
    for kind in [BlobKind::Chunk, BlobKind::Page] {
        let pack = world.packs(kind)[0].1.clone();
        let good = world.bytes(&pack).await;
        for (at, is_end) in [(80, false), (good.len() - 40, true), (20, true)] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            world.replace(&pack_object(&pack.id), bad).await;

            let report = world.verify(VerifyLevel::Read).await;

            assert!(report.counts.corrupt > 0, "{report:?}");
            assert_eq!((world.knows_of_objects(), world.alarm()), (is_end, !is_end), "{kind:?} at {at}");
            world.replace(&pack_object(&pack.id), good.clone()).await;
            assert_eq!(world.verify(VerifyLevel::Read).await.findings, []);
            assert_eq!((world.knows_of_objects(), world.alarm()), (false, false), "{kind:?} at {at}");
        }
    }
}
