//! Snapshots: their manifests open, their pages are there, and each file finds all that it needs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use format_spec::key::BlobKind;
use format_spec::manifest::{Manifest, PageRef};
use format_spec::object::{self, ObjectKind};
use format_spec::page::{self, Record};
use format_spec::snapshot::{ManifestRef, Snapshot};
use format_spec::wire::{FindingKind, Stopped, VerifyLevel};
use format_spec::{ChunkId, SnapshotId};

use super::findings::{Cause, Hurt, Owner, Problem};
use super::limits::Budget;
use super::replay::{CleanPage, Depth, Replay, Verdict};
use super::{Attempt, Check, State};
use crate::defects::blobs::{self, Place};
use crate::defects::objects;
use crate::defects::{self, if_there_is_room};
use crate::error::{Chain, ServerError};
use crate::index::Table;
use crate::index::row::{ChunkRow, Health, PackNumber};
use crate::pack::{Blob, read_blobs};
use crate::site::SiteError;
use crate::site::layout::snapshot_object;
use crate::snapshot::{self, open_manifest, page_records};
use crate::store::Domain;
use crate::store::Store;

/// Pages that are read at once: at most 1 MiB each.
const PAGES_AT_ONCE: usize = 32;

/// What is told of one snapshot before the list of findings is changed. It bounds memory: a snapshot with
/// more is not begun again, whatever the site does.
const TOLD_AT_ONCE: usize = 100_000;

/// Pages that are remembered: about 200 bytes each.
const CLEAN_PAGES: usize = 100_000;

/// What is wrong with an object that somebody has put there: which of it and the row is right, nobody knows.
const ANOTHER_SNAPSHOT: &str = "the site has another snapshot under its name";

/// Pages that were taken apart in this run, in which nothing is wrong. Most pages of a snapshot are those
/// of the one before.
#[derive(Default)]
pub(super) struct CleanPages(HashMap<ChunkId, CleanPage>);

impl CleanPages {
    fn add(&mut self, id: ChunkId, page: CleanPage) {
        if self.0.len() < CLEAN_PAGES {
            self.0.insert(id, page);
        }
    }
}

/// How far snapshots were looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walked {
    Through,
    /// The site did not answer: begin again later.
    Later,
    /// The time is over.
    Stopped,
}

/// A look through one snapshot.
struct Walk {
    snapshot: Arc<Snapshot>,
    attempt: Attempt,
    told: Vec<(Owner, Cause, Hurt)>,
    files: Files,
}

/// What is known of the files of a snapshot.
enum Files {
    /// Each finds all that it needs.
    Whole,
    /// Of some it is not known.
    Unknown,
    /// Some cannot be restored, and one reason why.
    Hurt(String),
}

impl Walk {
    fn tell(&mut self, of: &ManifestRef, cause: Cause, hurt: Hurt) {
        let owner = Owner { snapshot: self.snapshot.id, node: of.node.clone() };
        self.told.push((owner, cause, hurt));
    }

    /// Tells that nothing of a node can be restored.
    fn tell_all(&mut self, of: &ManifestRef, problem: Problem) {
        self.tell(of, Cause::New(problem), Hurt::Range { after: None, before: None });
    }
}

/// What an object of a snapshot turned out to be.
enum Object<T> {
    Good(T),
    Bad(Problem),
}

impl Check<'_> {
    /// Looks through `snapshots`; those that the site does not answer for once more at the end.
    pub(super) async fn snapshots(&mut self, snapshots: Vec<Snapshot>) -> Result<Walked, ServerError> {
        self.steps = self.done + u64::try_from(snapshots.len()).unwrap_or(u64::MAX);
        let mut later = Vec::new();
        for snapshot in snapshots {
            let snapshot = Arc::new(snapshot);
            match self.snapshot(Arc::clone(&snapshot), Attempt::First).await? {
                Walked::Through => {}
                Walked::Later => later.push(snapshot),
                Walked::Stopped => {
                    self.state.report.stopped = Some(Stopped::Time);
                    return Ok(Walked::Stopped);
                }
            }
            self.state.report.snapshots += 1;
            self.step();
        }
        for snapshot in later {
            self.snapshot(snapshot, Attempt::Last).await?;
        }
        Ok(Walked::Through)
    }

    async fn snapshot(&mut self, snapshot: Arc<Snapshot>, attempt: Attempt) -> Result<Walked, ServerError> {
        let mut walk =
            Walk { snapshot: Arc::clone(&snapshot), attempt, told: Vec::new(), files: Files::Whole };
        if self.asked.level > VerifyLevel::Index {
            match self.snapshot_object(&snapshot).await? {
                Object::Good(()) => self.remember(objects::Object::Snapshot(snapshot.id), None).await?,
                Object::Bad(problem) if is_later(&problem, attempt) => return Ok(Walked::Later),
                Object::Bad(problem) => {
                    self.remember(objects::Object::Snapshot(snapshot.id), Some(&problem)).await?;
                    let problem = self.mend(snapshot.id, problem).await?;
                    for of in &snapshot.manifests {
                        walk.tell(of, Cause::New(problem.clone()), Hurt::Snapshot);
                    }
                }
            }
        }
        for of in &snapshot.manifests {
            let opened = match self.open(of).await? {
                Object::Good(opened) => opened,
                Object::Bad(problem) if is_later(&problem, walk.attempt) => return Ok(Walked::Later),
                Object::Bad(problem) => {
                    self.remember(objects::Object::Manifest(of.id), Some(&problem)).await?;
                    walk.tell_all(of, problem);
                    continue;
                }
            };
            match self.manifest(&mut walk, of, &opened).await? {
                Walked::Through => {}
                early => return Ok(early),
            }
        }
        self.flush(&mut walk).await?;
        let id = snapshot.id;
        let hurt = match walk.files {
            Files::Whole => None,
            Files::Unknown => return Ok(Walked::Through),
            Files::Hurt(why) => Some(why),
        };
        let note = move |store: &Arc<Store>| objects::note_hurt(store, id, hurt);
        if_there_is_room(self.store.blocking(note).await)?;
        Ok(Walked::Through)
    }

    /// Puts what was found of a snapshot on the list, unless the snapshot went meanwhile: then its rows went
    /// as well.
    async fn flush(&mut self, walk: &mut Walk) -> Result<(), ServerError> {
        let told = std::mem::take(&mut walk.told);
        if told.is_empty() {
            return Ok(());
        }
        for (_, cause, hurt) in &told {
            match self.state.findings.problem(cause) {
                _ if *hurt == Hurt::Snapshot || matches!(walk.files, Files::Hurt(_)) => {}
                Some(problem) if problem.kind != FindingKind::Unreadable => {
                    let why = format!("files cannot be restored: {} {}", problem.object, problem.what);
                    walk.files = Files::Hurt(why);
                }
                _ => walk.files = Files::Unknown,
            }
        }
        let id = walk.snapshot.id;
        let found = self
            .store
            .blocking(move |store| Ok(store.parts.index.get(Table::Snapshot, id.as_bytes())?.is_some()));
        if found.await? {
            for (owner, cause, hurt) in told {
                self.state.findings.hurts(cause, &owner, hurt);
            }
        }
        Ok(())
    }

    /// The object from which the snapshot's row can be made again.
    async fn snapshot_object(&self, snapshot: &Arc<Snapshot>) -> Result<Object<()>, ServerError> {
        let name = format!("snapshot {}", snapshot.id);
        let object = snapshot_object(&snapshot.id);
        let site = &self.store.parts.site;
        let bytes = match defects::twice(async || site.get(&object).await.map_err(ServerError::Site)).await {
            Ok(bytes) => bytes,
            Err(ServerError::Site(error)) => return self.bad_object(name, error).await.map(Object::Bad),
            Err(error) => return Err(error),
        };
        let expected = Arc::clone(snapshot);
        let opened = self.store.blocking(move |store| {
            let payload = object::open(ObjectKind::Snapshot, &store.keys, store.id(), &bytes);
            Ok(payload.and_then(|payload| Snapshot::decode(&payload)).map(|found| found == *expected))
        });
        let corrupt = |what: String| Ok(Object::Bad(Problem::new(FindingKind::Corrupt, &name, what)));
        match opened.await? {
            Ok(true) => Ok(Object::Good(())),
            Ok(false) => corrupt(ANOTHER_SNAPSHOT.to_owned()),
            Err(error) => corrupt(error.to_string()),
        }
    }

    /// Writes the object of a snapshot anew, if it is lost or nobody can open it: the row has all that is in it.
    /// Answers what is to be told.
    async fn mend(&self, id: SnapshotId, problem: Problem) -> Result<Problem, ServerError> {
        if problem.kind == FindingKind::Unreadable || problem.what == ANOTHER_SNAPSHOT {
            return Ok(problem);
        }
        let more = match snapshot::write_anew(&self.server, id).await {
            Ok(()) => "; it was written anew from the index".to_owned(),
            Err(error @ (ServerError::Halted | ServerError::Index(_) | ServerError::Bug(_))) => {
                return Err(error);
            }
            Err(error) => format!("; it could not be written anew: {}", Chain(&error)),
        };
        Ok(Problem { what: problem.what + &more, ..problem })
    }

    async fn open(&self, of: &ManifestRef) -> Result<Object<Manifest>, ServerError> {
        match open_manifest(&self.store, of.id).await {
            Ok((_, manifest)) => Ok(Object::Good(manifest)),
            Err(ServerError::Damaged { source, .. }) => {
                Ok(Object::Bad(Problem::new(FindingKind::Corrupt, of.id, source)))
            }
            Err(ServerError::Lost { why, .. }) => {
                Ok(Object::Bad(Problem::new(FindingKind::Corrupt, of.id, why)))
            }
            Err(ServerError::Site(error)) => self.bad_object(of.id, error).await.map(Object::Bad),
            Err(error) => Err(error),
        }
    }

    /// What an answer of the site says of an object, or of a blob.
    async fn bad_object(&self, object: impl ToString, error: SiteError) -> Result<Problem, ServerError> {
        if error.is_fatal() {
            return Err(self.store.site_error(error));
        }
        let kind = match &error {
            SiteError::NotFound { .. } => FindingKind::Missing,
            error if error.is_of_object() => FindingKind::Corrupt,
            _ => FindingKind::Unreadable,
        };
        let error = ServerError::Site(error);
        Ok(match defects::prove(&self.store, None, &error).await {
            Some(why) => Problem::new(kind, object, why),
            None => Problem::new(FindingKind::Unreadable, object, Chain(&error)),
        })
    }

    async fn manifest(
        &mut self,
        walk: &mut Walk,
        of: &ManifestRef,
        manifest: &Manifest,
    ) -> Result<Walked, ServerError> {
        let fits = manifest.cluster == walk.snapshot.cluster
            && manifest.node == of.node
            && manifest.totals == of.totals;
        let problem =
            (!fits).then(|| Problem::new(FindingKind::Corrupt, of.id, "does not belong to this snapshot"));
        if let Some(problem) = problem {
            self.remember(objects::Object::Manifest(of.id), Some(&problem)).await?;
            walk.tell_all(of, problem);
        }
        let domain = self.store.domain(&walk.snapshot.cluster);
        let mut replay = Replay::new(Arc::clone(&domain), self.depth());
        for pages in manifest.pages.chunks(PAGES_AT_ONCE) {
            if self.is_out_of_time() {
                return Ok(Walked::Stopped);
            }
            let Some(read) = self.pages(walk.attempt, &domain, pages).await? else {
                return Ok(Walked::Later);
            };
            let state = std::mem::take(&mut self.state);
            let replayed = move |store: &Arc<Store>| replay_pages(store, state, replay, read);
            (self.state, replay) = self.store.blocking(replayed).await?;
            for (cause, hurt) in replay.take_told() {
                walk.tell(of, cause, hurt);
            }
            if walk.told.len() > TOLD_AT_ONCE {
                walk.attempt = Attempt::Last;
                self.flush(walk).await?;
            }
        }
        replay.finish(&of.id);
        if fits {
            let problem = not_complete(of, replay.lacking());
            self.remember(objects::Object::Manifest(of.id), problem.as_ref()).await?;
            if let Some(problem) = problem {
                walk.tell(of, Cause::New(problem), Hurt::Snapshot);
            }
        }
        self.state.report.files += replay.files();
        for (cause, hurt) in replay.take_told() {
            walk.tell(of, cause, hurt);
        }
        Ok(Walked::Through)
    }

    fn depth(&self) -> Depth {
        if self.asked.level == VerifyLevel::Restore { Depth::Whole } else { Depth::Needs }
    }

    /// What is found wrong is named, however long that takes.
    fn is_out_of_time(&self) -> bool {
        let budget = Budget::new(&self.asked.limits, 0, self.started);
        self.state.findings.is_empty() && budget.check_time(self.store.parts.clock.monotonic()).is_err()
    }

    /// Reads pages; `None` if the site did not answer, and is to be asked again.
    async fn pages(
        &mut self,
        attempt: Attempt,
        domain: &Arc<Domain>,
        pages: &[PageRef],
    ) -> Result<Option<Vec<Planned>>, ServerError> {
        let (state, owned, depth) = (std::mem::take(&mut self.state), pages.to_vec(), self.depth());
        let look_up = move |store: &Arc<Store>| {
            let mut state = state;
            let planned = look_up_pages(store, &mut state, depth, &owned)?;
            Ok((state, planned))
        };
        let (state, mut planned) = self.store.blocking(look_up).await?;
        self.state = state;
        let wanted: BTreeSet<ChunkId> =
            planned.iter().filter(|page| matches!(page.got, Got::Wanted(_))).map(|page| page.id).collect();
        let read = self.read_pages(domain, wanted.into_iter().collect()).await?;
        for page in &mut planned {
            let Got::Wanted(place) = page.got else { continue };
            page.got = match read.get(&page.id) {
                Some(Ok(blob)) => Got::Blob(Arc::clone(blob), place),
                Some(Err(problem)) if is_later(problem, attempt) => return Ok(None),
                Some(Err(problem)) => {
                    if problem.kind != FindingKind::Unreadable {
                        self.quarantine(vec![(page.id, place, problem.what.clone())]).await?;
                    }
                    Got::Lost(Cause::New(problem.clone()))
                }
                None => return Err(ServerError::Bug("a page was not asked for")),
            };
        }
        Ok(Some(planned))
    }

    /// The pages with these ids, or what is wrong with them.
    async fn read_pages(
        &self,
        domain: &Arc<Domain>,
        ids: Vec<ChunkId>,
    ) -> Result<HashMap<ChunkId, Result<Arc<Blob>, Problem>>, ServerError> {
        if let Ok(blobs) = read_blobs(&self.store, domain, ids.clone()).await {
            return Ok(blobs.into_iter().map(|blob| (blob.info.id, Ok(Arc::new(blob)))).collect());
        }
        // One of them is bad: read them one by one to name it. Where they lie is looked up again.
        let mut read = HashMap::new();
        for id in ids {
            let got = match read_blobs(&self.store, domain, vec![id]).await {
                Ok(blobs) => blobs.into_iter().next().map(Arc::new).ok_or(ServerError::NoChunk(id)),
                Err(error) => Err(error),
            };
            let got = match got {
                Ok(blob) => Ok(blob),
                Err(ServerError::Damaged { source, .. }) => {
                    Err(Problem::new(FindingKind::Corrupt, id, source))
                }
                Err(ServerError::Lost { why, .. }) => Err(Problem::new(FindingKind::Corrupt, id, why)),
                Err(ServerError::NoChunk(_)) => {
                    Err(Problem::new(FindingKind::Index, id, "is not in the index"))
                }
                Err(ServerError::Site(error)) => Err(self.bad_object(id, error).await?),
                Err(error) => return Err(error),
            };
            read.insert(id, got);
        }
        Ok(read)
    }

    /// The packs in which the pages and chunks of `snapshots` lie. What cannot be read is passed over: it
    /// is found when the snapshot is looked through.
    pub(super) async fn needed(
        &mut self,
        snapshots: &[Snapshot],
    ) -> Result<BTreeSet<PackNumber>, ServerError> {
        let mut packs = BTreeSet::new();
        for snapshot in snapshots {
            let domain = self.store.domain(&snapshot.cluster);
            for of in &snapshot.manifests {
                let Object::Good(manifest) = self.open(of).await? else { continue };
                for pages in manifest.pages.chunks(PAGES_AT_ONCE) {
                    packs.append(&mut self.needed_by(&domain, pages).await?);
                }
            }
        }
        Ok(packs)
    }

    async fn needed_by(
        &mut self,
        domain: &Arc<Domain>,
        pages: &[PageRef],
    ) -> Result<BTreeSet<PackNumber>, ServerError> {
        let unique: BTreeSet<ChunkId> = pages.iter().map(|page| page.id).collect();
        let read = self.read_pages(domain, unique.iter().copied().collect()).await?;
        let domain = Arc::clone(domain);
        let find = move |store: &Arc<Store>| {
            let mut ids = unique;
            for blob in read.into_values().flatten() {
                if let Ok(records) = page_records(&blob, &domain) {
                    ids.extend(page::references(&records));
                }
            }
            let rows = store.chunk_rows(&ids)?;
            Ok(rows.into_iter().flatten().map(|row| row.pack).collect())
        };
        self.store.blocking(find).await
    }
}

/// What is wrong with a manifest whose push said that nothing is missing, while so many of its files are. What a node says
/// of itself is believed until it is looked through.
fn not_complete(of: &ManifestRef, lacking: u64) -> Option<Problem> {
    let what = format!("says that nothing is missing, and {lacking} of its files are unreadable or torn");
    (of.totals.problems == 0 && lacking > 0).then(|| Problem::new(FindingKind::Corrupt, of.id, what))
}

fn is_later(problem: &Problem, attempt: Attempt) -> bool {
    problem.kind == FindingKind::Unreadable && attempt == Attempt::First
}

/// A page on its way.
struct Planned {
    id: ChunkId,
    got: Got,
    /// What is wrong with it, though it can be read.
    aside: Option<Cause>,
}

enum Got {
    Lost(Cause),
    Clean(CleanPage),
    Wanted(Place),
    Blob(Arc<Blob>, Place),
}

/// What is to become of pages, from what the index says of them.
fn look_up_pages(
    store: &Store,
    state: &mut State,
    depth: Depth,
    pages: &[PageRef],
) -> Result<Vec<Planned>, ServerError> {
    let rows = store.chunk_rows(pages.iter().map(|page| &page.id))?;
    state.report.references += u64::try_from(pages.len()).unwrap_or(u64::MAX);
    let mut planned = Vec::with_capacity(pages.len());
    for (page, row) in pages.iter().zip(rows) {
        let id = page.id;
        let Verdict { file, snapshot: aside } = judge(store, state, BlobKind::Page, &id, row)?;
        let file = file.or_else(|| other_length(depth, &id, page.len, row));
        let got = match (file, row) {
            (Some(cause), _) => Got::Lost(cause),
            (None, Some(row)) => match state.clean.0.get(&id) {
                Some(clean) => Got::Clean(clean.clone()),
                None => Got::Wanted(Place::of(&row)),
            },
            (None, None) => return Err(ServerError::Bug("a page without a row was let pass")),
        };
        planned.push(Planned { id, got, aside });
    }
    Ok(planned)
}

/// What the index and the packs say of a page or chunk that is needed.
fn judge(
    store: &Store,
    state: &State,
    kind: BlobKind,
    id: &ChunkId,
    row: Option<ChunkRow>,
) -> Result<Verdict, ServerError> {
    let index = |what| Some(Cause::New(Problem::new(FindingKind::Index, id, what)));
    let Some(row) = row else { return Ok(Verdict { file: index("is not in the index"), snapshot: None }) };
    let snapshot = match row.references {
        0 => index("is in use but not counted"),
        _ => state.known.around(&row),
    };
    let file = match state.known.against(id, &row) {
        _ if row.kind != kind => index("is of another kind"),
        None if row.health == Health::Damaged => {
            let problem = blobs::problem(store, id)?.unwrap_or_default();
            let what = format!("is known to be damaged: {problem}");
            Some(Cause::New(Problem::new(FindingKind::Corrupt, id, what)))
        }
        known => known,
    };
    Ok(Verdict { file, snapshot })
}

/// A restore takes a page or chunk only with the length that it was told.
fn other_length(depth: Depth, id: &ChunkId, len: u32, row: Option<ChunkRow>) -> Option<Cause> {
    let row = row.filter(|row| depth == Depth::Whole && row.plain_len != len)?;
    let what = format!("is said to have {len} bytes where it is needed, and has {}", row.plain_len);
    Some(Cause::New(Problem::new(FindingKind::Corrupt, id, what)))
}

/// Takes pages apart, and puts the files on them together. Blocks and computes.
fn replay_pages(
    store: &Store,
    mut state: State,
    mut replay: Replay,
    pages: Vec<Planned>,
) -> Result<(State, Replay), ServerError> {
    for Planned { id, got, aside } in pages {
        replay.aside(aside);
        match got {
            Got::Lost(cause) => replay.lost(cause),
            Got::Clean(page) => replay.clean_page(&id, &page),
            Got::Wanted(_) => return Err(ServerError::Bug("a page was not read")),
            Got::Blob(blob, place) => {
                state.report.pages += 1;
                match page_records(&blob, replay.domain()) {
                    Ok(records) => replay_page(store, &mut state, &mut replay, &id, &records)?,
                    Err(error) => {
                        let problem = Problem::new(FindingKind::Corrupt, id, &error);
                        let mark = [(id, place, error.to_string())];
                        state.report.quarantined += if_there_is_room(blobs::mark(store, &mark))?;
                        replay.lost(Cause::New(problem));
                    }
                }
            }
        }
    }
    Ok((state, replay))
}

fn replay_page(
    store: &Store,
    state: &mut State,
    replay: &mut Replay,
    id: &ChunkId,
    records: &[Record],
) -> Result<(), ServerError> {
    let ids: BTreeSet<ChunkId> = page::references(records).collect();
    state.report.references += u64::try_from(ids.len()).unwrap_or(u64::MAX);
    let mut seen = HashMap::with_capacity(ids.len());
    for (id, row) in ids.iter().zip(store.chunk_rows(&ids)?) {
        seen.insert(*id, (judge(store, state, BlobKind::Chunk, id, row)?, row));
    }
    let depth = replay.depth();
    let clean = replay.page(id, records, |id, len| {
        let (mut verdict, row) = seen.get(id).cloned().unwrap_or_default();
        verdict.file = verdict.file.or_else(|| other_length(depth, id, len, row));
        verdict
    });
    if let Some(clean) = clean {
        state.clean.add(*id, clean);
    }
    Ok(())
}
