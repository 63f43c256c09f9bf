//! Cost of commit, forget and the collector when one hundredth of a large repository changes, compared with a
//! full mark of the same index.
//!
//! `cargo bench -p benches --bench collector -- --help`
//!
//! The repository is made up: rows of chunks in packs of 125, and the pages of one file of all of them,
//! written straight into the index. The packs of pages are on the site; those of the chunks are not, as
//! nothing looks into them here (nothing is thin, so nothing is repacked). A first
//! snapshot of all pages is committed. Then each round, through the server's own interface:
//!
//! | step | what |
//! |---|---|
//! | commit | the new pages are sent and a snapshot is committed: 1 % of its chunks are new, 99 % of its pages are those of the last |
//! | look | the collector looks at the rows of the new packs, each once in its life, and frees nothing |
//! | forget | the snapshot before is forgotten |
//! | collect | it is purged, and the 1 % that only it held goes: pages, chunks, packs |
//! | full mark | an audit: every page's references and every row, what a mark over everything would read |
//!
//! The pages to delete are either `spread`, one in each pack of pages, or `together`, in packs of their own,
//! like pages that were pushed and are deleted at one time.
//!
//! New chunks of 1 KiB are sent and stored before the first step, and not measured. A step begins when the
//! server is at rest, as its index merges tables in the background: what a step leaves it to do is in the
//! processor time, which is taken when it is at rest again. The memory is the most that the server had in a
//! step. Figures are medians over the rounds. Needs 6 GiB of disk for 10^7 chunks.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use benches::programs::Server;
use benches::{Random, Scratch, median};
use bytes::Bytes;
use clap::{Parser, ValueEnum};
use format_spec::blob::{BlobInfo, BlobSealer, Compression};
use format_spec::descriptor::Descriptor;
use format_spec::key::{BlobKind, DomainKey, MasterKey};
use format_spec::manifest::{Manifest, PageRef, Totals as ManifestTotals};
use format_spec::pack::{PackBuilder, SealedPack};
use format_spec::page::{self, Page, PageBuilder};
use format_spec::wire::{
    Delays, ForgetRequest, FrameHeader, GcReport, GcRequest, LargeDelete, LastComplete, OpenSession, Repair,
    RunMode, encode_end,
};
use format_spec::{
    ChunkId, ClusterName, Entry, EntryKind, EntryPath, Extent, FORMAT_VERSION, FileEnd, PackId, SessionId,
    SnapshotId, Timestamp,
};
use node_client::api::{Api, Retry, Segments};
use node_client::push::Smaller;
use repo_server::index::{self, Batch, Engine, Index, Table};
use repo_server::rows::{ChunkRow, Epoch, Health, Live, PackNumber, PackRow, Totals};

type Outcome<T> = Result<T, Box<dyn Error>>;

const CLUSTER: &str = "bench";
const CHUNKS_PER_PACK: u64 = 125;
const PAGES_PER_PACK: usize = 100;
/// Length as it is stored: packs of chunks are full ones.
const CHUNK_LEN: u32 = 256 << 10;
/// Length of the chunks that are sent: a round's fill three packs.
const SENT_LEN: usize = 1024;
/// Rows in one batch.
const BATCH: usize = 20_000;
/// Most rounds in which pages are replaced.
const SHARE: usize = 100;

/// Commit, forget and collection in a large index, beside a full mark
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    scratch: Scratch,
    #[arg(long, default_value_t = 10_000_000)]
    chunks: u64,
    /// Each replaces another hundredth
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, value_enum, default_value_t = Garbage::Spread)]
    garbage: Garbage,
}

/// Placement of the pages that a round replaces.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Garbage {
    Spread,
    Together,
}

impl Garbage {
    /// Lets each round replace pages of a hundredth of all chunks.
    fn spread_over_rounds(self, old: &mut [OldPage]) {
        let share = old.iter().map(|old| old.chunks).sum::<u64>() / 100;
        let (pages, mut taken) = (old.len(), [0; SHARE]);
        for (number, old) in old.iter_mut().enumerate() {
            let round = match self {
                Self::Spread => number % SHARE,
                Self::Together => number * SHARE / pages,
            };
            if let Some(taken) = taken.get_mut(round).filter(|taken| **taken < share) {
                *taken += old.chunks;
                old.goes_in = Some(round + 1);
            }
        }
    }
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    assert!(arguments.rounds < SHARE, "a page is replaced once, so {SHARE} rounds are too many");
    let scratch = arguments.scratch.folder();
    let (data, config) = (scratch.path().join("data"), scratch.path().join("server.toml"));
    std::fs::write(&config, "[gc]\nevery_minutes = 0\nrepack_below = 0\n[space]\nballast_mib = 0\n")?;
    Server::start_with(&config, &data).stop();
    let started = now();
    let mut pages = Filling::begin(&data)?.fill(arguments.chunks)?;
    arguments.garbage.spread_over_rounds(&mut pages);
    say(&format!(
        "{} chunks, {} pages, in {:.1} s",
        arguments.chunks,
        pages.len(),
        started.elapsed().as_secs_f64()
    ));
    let mut server = Server::start_with(&config, &data);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let token = std::fs::read_to_string(data.join("admin.token"))?;
    let api = Api::new(&server.address, token.trim(), Retry::default())?;
    let mut bench =
        Bench { api, server: &server, old: pages, new: Vec::new(), last: None, steps: Vec::new() };
    runtime.block_on(bench.all(&arguments))?;
    bench.report();
    server.stop();
    Ok(())
}

/// A page that was made up, how many chunks it refers to, and the round that replaces it, if one does.
struct OldPage {
    page: PageRef,
    chunks: u64,
    goes_in: Option<usize>,
}

/// Rows and packs of pages, made up.
struct Filling {
    index: Arc<dyn Index>,
    site: PathBuf,
    master: MasterKey,
    descriptor: Descriptor,
    batch: Batch,
    totals: Totals,
}

impl Filling {
    fn begin(data: &Path) -> Outcome<Self> {
        let key = std::fs::read_to_string(data.join("master.key"))?;
        Ok(Self {
            index: index::open_existing(Engine::default(), &data.join("index"))?,
            site: data.join("site"),
            master: MasterKey::parse(&key).ok_or("a master key")?,
            descriptor: Descriptor::decode(&std::fs::read(data.join("site/keyring/repository"))?)?,
            batch: Batch::new(),
            totals: Totals::default(),
        })
    }

    /// Makes everything, and returns the pages.
    fn fill(mut self, chunks: u64) -> Outcome<Vec<OldPage>> {
        let all: Vec<u64> = (0..chunks).collect();
        for pack in all.chunks(usize::try_from(CHUNKS_PER_PACK)?) {
            self.chunks(pack)?;
        }
        let domain = self.master.domain(&CLUSTER.parse()?);
        let (mut old, mut pack) = (Vec::new(), Vec::new());
        pages_of(&domain, all.into_iter().map(chunk_id), CHUNK_LEN - 28, |page| {
            pack.push(page);
            if pack.len() >= PAGES_PER_PACK {
                old.extend(self.pages(&domain, &std::mem::take(&mut pack))?);
            }
            Ok(())
        })?;
        if !pack.is_empty() {
            old.extend(self.pages(&domain, &pack)?);
        }
        self.batch.put(Table::Meta, Totals::KEY, self.totals.encode());
        self.flush()?;
        Ok(old)
    }

    /// A pack of chunks, each of which one page refers to.
    fn chunks(&mut self, numbers: &[u64]) -> Outcome<()> {
        let mut live = Live::default();
        for (at, number) in numbers.iter().enumerate() {
            let row = ChunkRow {
                pack: PackNumber(self.totals.next_pack),
                offset: 64 + u32::try_from(at)? * CHUNK_LEN,
                stored_len: CHUNK_LEN,
                plain_len: CHUNK_LEN - 28,
                kind: BlobKind::Chunk,
                compression: Compression::Raw,
                health: Health::Sound,
                references: 1,
                idle_since: Epoch::default(),
            };
            self.row(chunk_id(*number), &row, &mut live)?;
        }
        let id = PackId::from_bytes(random_id(Kind::Pack, self.totals.next_pack.into()));
        self.pack(id, live.stored_bytes + (128 << 10), BlobKind::Chunk, live)
    }

    /// A pack of pages, which no manifest names yet.
    fn pages(&mut self, domain: &DomainKey, pages: &[Page]) -> Outcome<Vec<OldPage>> {
        let sealed = self.page_pack(domain, pages)?;
        let mut live = Live::default();
        let mut old = Vec::with_capacity(pages.len());
        for entry in &sealed.directory.entries {
            let row = ChunkRow {
                pack: PackNumber(self.totals.next_pack),
                offset: entry.offset,
                stored_len: entry.stored_len,
                plain_len: entry.plain_len,
                kind: entry.kind,
                compression: entry.compression,
                health: Health::Sound,
                references: 0,
                idle_since: Epoch::default(),
            };
            self.row(entry.id, &row, &mut live)?;
            let page = PageRef { id: entry.id, len: entry.plain_len };
            old.push(OldPage { page, chunks: u64::try_from(entry.references.len())?, goes_in: None });
        }
        let hex = sealed.id.to_hex();
        let folder = self.site.join("packs").join(hex.get(..2).ok_or("hex digits")?);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(&hex), &sealed.bytes)?;
        self.pack(sealed.id, u64::try_from(sealed.bytes.len())?, BlobKind::Page, live)?;
        Ok(old)
    }

    fn page_pack(&self, domain: &DomainKey, pages: &[Page]) -> Outcome<SealedPack> {
        let salt = random_id(Kind::Salt, self.totals.next_pack.into());
        let Descriptor { generation, repository, .. } = self.descriptor;
        let keys = self.master.seal_keys(generation);
        let sealer = BlobSealer::new(keys.clone(), repository, CLUSTER.parse()?);
        let mut builder = PackBuilder::new(generation, repository, CLUSTER.parse()?, salt);
        for Page { bytes, .. } in pages {
            let id = domain.id_of(BlobKind::Page, bytes);
            let plain_len = u32::try_from(bytes.len())?;
            let info = BlobInfo { kind: BlobKind::Page, id, plain_len, compression: Compression::Raw };
            let mut blob = Vec::new();
            sealer.seal(&info, bytes, &mut blob);
            let records = page::decode(bytes)?;
            let references: BTreeSet<ChunkId> = page::references(&records).collect();
            builder.append(&info, &blob, references.into_iter().collect());
        }
        Ok(builder.seal(&keys))
    }

    fn row(&mut self, id: ChunkId, row: &ChunkRow, live: &mut Live) -> Outcome<()> {
        live.add(row);
        self.totals.chunks += 1;
        self.batch.put(Table::Chunk, *id.as_bytes(), row.encode());
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn pack(&mut self, id: PackId, len: u64, kind: BlobKind, live: Live) -> Outcome<()> {
        let domain: ClusterName = CLUSTER.parse()?;
        let row = PackRow { id, len, kind, domain, blob_bytes: live.stored_bytes, live, verified_ms: 0 };
        self.batch.put(Table::Pack, PackNumber(self.totals.next_pack).key(), row.encode());
        self.totals.next_pack += 1;
        self.totals.packs += 1;
        self.totals.stored_bytes += len;
        Ok(())
    }

    fn flush(&mut self) -> Outcome<()> {
        Ok(self.index.commit(std::mem::take(&mut self.batch))?)
    }
}

/// Kind of a made-up id.
enum Kind {
    Chunk,
    Pack,
    Salt,
    Sent,
}

/// Always the same, and like no other.
fn random_id(kind: Kind, number: u64) -> [u8; 32] {
    let kind = match kind {
        Kind::Chunk => 0,
        Kind::Pack => 2,
        Kind::Salt => 3,
        Kind::Sent => 4,
    };
    let mut id = [0; 32];
    Random::new((kind << 56) + number).fill(&mut id);
    id
}

fn chunk_id(number: u64) -> ChunkId {
    ChunkId::from_bytes(random_id(Kind::Chunk, number))
}

/// One measured step.
struct Step {
    name: &'static str,
    seconds: f64,
    /// Processor time, with what was left for the background.
    cpu_seconds: f64,
    peak_kib: u64,
    did: String,
}

const COMMIT: &str = "commit";
const LOOK: &str = "look";
const FORGET: &str = "forget";
const COLLECT: &str = "collect";
const MARK: &str = "full mark";

/// The rounds.
struct Bench<'a> {
    api: Api,
    server: &'a Server,
    /// Made-up pages, in their order.
    old: Vec<OldPage>,
    /// Pages that were sent.
    new: Vec<PageRef>,
    last: Option<SnapshotId>,
    steps: Vec<Step>,
}

impl Bench<'_> {
    async fn all(&mut self, arguments: &Arguments) -> Outcome<()> {
        let (session, _) = self.open_as("node").await?;
        let manifest = self.manifest(0)?;
        let start = self.start();
        self.last = Some(self.api.commit(session, &manifest, Smaller::Meant).await?.snapshot.id);
        self.note("first commit, of all pages", start, format!("{} pages", manifest.pages.len()));
        for round in 1..=arguments.rounds {
            say(&format!("round {round} of {}", arguments.rounds));
            self.round(round).await?;
        }
        Ok(())
    }

    async fn round(&mut self, round: usize) -> Outcome<()> {
        let goes = self.old.iter().filter(|old| old.goes_in == Some(round));
        let chunks = goes.map(|old| old.chunks).sum();
        let (session, domain) = self.open_as("node").await?;
        let sent = self.send_chunks(session, &domain, round, chunks).await?;
        self.store().await?;
        let (pages, body) = body_of(&domain, &sent)?;
        self.new.extend(&pages);
        let manifest = self.manifest(round)?;

        let start = self.start();
        self.api.send_blobs(session, body).await?;
        let snapshot = self.api.commit(session, &manifest, Smaller::Meant).await?.snapshot.id;
        let did = format!("{} of {} pages new", pages.len(), manifest.pages.len());
        self.note(COMMIT, start, did);

        let report = self.collect(LOOK).await?;
        if report.chunks.count > 0 {
            return Err(format!("not what was to be looked at: {report:?}").into());
        }

        let forgotten = self.last.replace(snapshot).into_iter().collect();
        let (mode, last_complete) = (RunMode::Apply, LastComplete::Stays);
        let request = ForgetRequest { mode, snapshots: forgotten, last_complete, ..ForgetRequest::default() };
        let start = self.start();
        let report = self.api.forget(&request).await?;
        self.note(FORGET, start, format!("{} MiB told to go", report.frees_bytes.unwrap_or(0) >> 20));

        let report = self.collect(COLLECT).await?;
        if report.chunks.count != chunks || report.repacked.count > 0 {
            return Err(format!("not what was to be collected: {report:?}").into());
        }

        let start = self.start();
        let report = self.api.audit(Repair::No, |_| {}).await?;
        self.note(MARK, start, format!("{} references, {} rows", report.references, report.rows));
        if report.found > 0 {
            Err(format!("the audit found {:?}", report.findings.first()).into())
        } else {
            Ok(())
        }
    }

    async fn collect(&mut self, name: &'static str) -> Outcome<GcReport> {
        let (mode, delays, large) = (RunMode::Apply, Delays::Skip, LargeDelete::Allow);
        let request = GcRequest { mode, delays, large, max_copy_bytes: None };
        let start = self.start();
        let report = self.api.collect_garbage(&request, |_| {}).await?;
        let did = format!(
            "{} pages, {} chunks, {} objects",
            report.pages.count, report.chunks.count, report.deleted.count
        );
        self.note(name, start, did);
        Ok(report)
    }

    /// Lets the server store what it was sent: a commit waits for the packs of its cluster.
    async fn store(&self) -> Outcome<()> {
        let (session, _) = self.open_as("other").await?;
        self.api.commit(session, &manifest_of("other", Vec::new())?, Smaller::Meant).await?;
        Ok(())
    }

    /// A session of a node, and the key of its dedup domain.
    async fn open_as(&self, node: &str) -> Outcome<(SessionId, DomainKey)> {
        let (cluster, node) = (CLUSTER.parse()?, node.parse()?);
        let asked = OpenSession { cluster, node, base: None, adopt: None, expected_bytes: None };
        let opened = self.api.open_session(&asked).await?;
        Ok((opened.session, DomainKey::parse(&opened.domain_key).ok_or("the key of a domain")?))
    }

    /// The made-up pages but for those that rounds up to this one replace, and all that were sent.
    fn manifest(&self, round: usize) -> Outcome<Manifest> {
        let stays = |old: &&OldPage| old.goes_in.is_none_or(|goes_in| goes_in > round);
        let old = self.old.iter().filter(stays).map(|old| old.page);
        manifest_of("node", old.chain(self.new.iter().copied()).collect())
    }

    async fn send_chunks(
        &self,
        session: SessionId,
        domain: &DomainKey,
        round: usize,
        count: u64,
    ) -> Outcome<Vec<ChunkId>> {
        const AT_ONCE: usize = 2000;
        let numbers: Vec<u64> = (0..count).collect();
        let mut ids = Vec::with_capacity(numbers.len());
        for some in numbers.chunks(AT_ONCE) {
            let mut body = Body::default();
            for number in some {
                let mut plain = vec![0; SENT_LEN];
                let seed = random_id(Kind::Sent, (u64::try_from(round)? << 40) + number);
                let (seed, _) = seed.split_first_chunk().ok_or("an id has 32 bytes")?;
                Random::new(u64::from_le_bytes(*seed)).fill(&mut plain);
                ids.push(body.add(domain, BlobKind::Chunk, &plain)?.id);
            }
            self.api.send_blobs(session, body.end()?).await?;
        }
        Ok(ids)
    }

    /// The moment, and the processor time so far.
    fn start(&self) -> (Instant, f64) {
        let cpu = self.server.rest();
        self.server.forget_peak();
        (now(), cpu)
    }

    fn note(&mut self, name: &'static str, (start, cpu): (Instant, f64), did: String) {
        let seconds = start.elapsed().as_secs_f64();
        let peak_kib = self.server.peak_kib();
        let cpu_seconds = self.server.rest() - cpu;
        say(&format!("{name}: {seconds:.3} s, {cpu_seconds:.2} s of processor, {peak_kib} KiB: {did}"));
        self.steps.push(Step { name, seconds, cpu_seconds, peak_kib, did });
    }

    fn report(&self) {
        say("| step | what | s | of a full mark | processor, s | peak memory of the server, KiB |");
        say("|---|---|---|---|---|---|");
        let of = |name: &str| self.steps.iter().filter(move |step| step.name == name).collect::<Vec<_>>();
        let seconds = |steps: &[&Step]| median(steps.iter().map(|step| step.seconds).collect());
        let mark = seconds(&of(MARK));
        for name in [COMMIT, LOOK, FORGET, COLLECT, MARK] {
            let steps = of(name);
            let peak = steps.iter().map(|step| step.peak_kib).max().unwrap_or(0);
            let did = steps.last().map_or("", |step| step.did.as_str());
            let cpu = median(steps.iter().map(|step| step.cpu_seconds).collect());
            let seconds = seconds(&steps);
            let share = 100.0 * seconds / mark;
            say(&format!("| {name} | {did} | {seconds:.3} | {share:.2} % | {cpu:.2} | {peak} |"));
        }
    }
}

/// Frames of one request.
#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    frames: u32,
}

impl Body {
    fn add(&mut self, domain: &DomainKey, kind: BlobKind, plain: &[u8]) -> Outcome<BlobInfo> {
        let plain_len = u32::try_from(plain.len())?;
        let info = BlobInfo { kind, id: domain.id_of(kind, plain), plain_len, compression: Compression::Raw };
        self.bytes.extend_from_slice(&FrameHeader { info, payload_len: plain_len }.encode());
        self.bytes.extend_from_slice(plain);
        self.frames += 1;
        Ok(info)
    }

    fn end(mut self) -> Outcome<Segments> {
        self.bytes.extend_from_slice(&encode_end(self.frames));
        Ok(Segments::from(Bytes::from(self.bytes)))
    }
}

/// The manifest that a node with these pages commits.
fn manifest_of(node: &str, pages: Vec<PageRef>) -> Outcome<Manifest> {
    Ok(Manifest {
        version: FORMAT_VERSION,
        cluster: CLUSTER.parse()?,
        node: node.parse()?,
        roots: vec![EntryPath::new(b"data/file".to_vec())?],
        pages,
        totals: ManifestTotals { files: 1, ..ManifestTotals::default() },
        problems: Vec::new(),
        tool: "collector".to_owned(),
        host: "bench".to_owned(),
        push: None,
        series: None,
        about: None,
        roots_are: None,
    })
}

/// The pages of one file of these chunks, and the body that sends them.
fn body_of(domain: &DomainKey, chunks: &[ChunkId]) -> Outcome<(Vec<PageRef>, Segments)> {
    let mut body = Body::default();
    let mut refs = Vec::new();
    pages_of(domain, chunks.iter().copied(), u32::try_from(SENT_LEN)?, |page| {
        let info = body.add(domain, BlobKind::Page, &page.bytes)?;
        refs.push(PageRef { id: info.id, len: info.plain_len });
        Ok(())
    })?;
    Ok((refs, body.end()?))
}

/// Hands over the pages of one file of these chunks.
fn pages_of(
    domain: &DomainKey,
    chunks: impl ExactSizeIterator<Item = ChunkId>,
    len: u32,
    mut take: impl FnMut(Page) -> Outcome<()>,
) -> Outcome<()> {
    let mut builder = PageBuilder::new(domain.clone());
    let entry = Entry {
        path: EntryPath::new(b"data/file".to_vec())?,
        kind: EntryKind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 1, nanos: 2 },
        size: u64::from(len) * u64::try_from(chunks.len())?,
        xattrs: Vec::new(),
        target: None,
        link_group: None,
    };
    builder.entry(&entry).map_or(Ok(()), &mut take)?;
    let mut digest = domain.file_digester();
    for id in chunks {
        let extent = Extent::Chunk { id, len };
        digest.push(&extent);
        builder.extent(extent).map_or(Ok(()), &mut take)?;
    }
    builder.end_file(FileEnd::Whole(digest.finish())).map_or(Ok(()), &mut take)?;
    builder.finish().map_or(Ok(()), &mut take)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
fn say(line: &str) {
    println!("{line}");
}
