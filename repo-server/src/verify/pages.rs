//! The pages of a manifest: which of them are needed, and what the site gives for them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use format_spec::ChunkId;
use format_spec::assemble::{Depth, Roots};
use format_spec::key::BlobKind;
use format_spec::manifest::PageRef;
use format_spec::page;
use format_spec::snapshot::Snapshot;
use format_spec::wire::FindingKind;

use super::findings::{Cause, Problem};
use super::judge::{Verdict, judge, other_length};
use super::opened::Object;
use super::replay::{CleanPage, Replay};
use super::{Attempt, Check, State};
use crate::defects::blobs::Place;
use crate::error::ServerError;
use crate::pack::{Blob, read_blobs};
use crate::rows::PackNumber;
use crate::snapshot::page_records;
use crate::store::{Domain, Store, wait};

/// Pages that are read at once: at most 1 MiB each.
pub(super) const PAGES_AT_ONCE: usize = 32;

/// Pages that are remembered: about 200 bytes each.
const CLEAN_PAGES: usize = 100_000;

/// Pages that were taken apart in this run, in which nothing is wrong. Most pages of a snapshot are those
/// of the one before.
#[derive(Default)]
pub(super) struct CleanPages(HashMap<ChunkId, CleanPage>);

impl CleanPages {
    pub(super) fn add(&mut self, id: ChunkId, page: CleanPage) {
        if self.0.len() < CLEAN_PAGES {
            self.0.insert(id, page);
        }
    }

    /// Returns the open questions about a page in a manifest with these roots, if the page was decoded.
    fn get(&self, id: &ChunkId, roots: &Roots) -> Option<CleanPage> {
        self.0.get(id).filter(|page| page.holds_for(roots)).cloned()
    }
}

/// A page on its way.
pub(super) struct Planned {
    pub(super) id: ChunkId,
    pub(super) got: Got,
    /// Problem of the snapshot beside its files, though it can be read.
    pub(super) aside: Option<Cause>,
}

pub(super) enum Got {
    Lost(Cause),
    Clean(CleanPage),
    Wanted(Place),
    Blob(Arc<Blob>, Place),
}

/// Decides about pages from the index.
fn look_up_pages(
    store: &Store,
    state: &mut State,
    (depth, roots): (Depth, &Roots),
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
            (None, Some(row)) => match state.clean.get(&id, roots) {
                Some(clean) => Got::Clean(clean),
                None => Got::Wanted(Place::of(&row)),
            },
            (None, None) => return Err(ServerError::Bug("a page without a row was let pass")),
        };
        planned.push(Planned { id, got, aside });
    }
    Ok(planned)
}

impl Check {
    /// Reads pages; `None` if the site did not answer, and is to be asked again.
    pub(super) fn pages(
        &mut self,
        attempt: Attempt,
        replay: &Replay,
        pages: &[PageRef],
    ) -> Result<Option<Vec<Planned>>, ServerError> {
        let mut planned =
            look_up_pages(&self.store, &mut self.state, (replay.depth(), replay.roots()), pages)?;
        let wanted: BTreeSet<ChunkId> =
            planned.iter().filter(|page| matches!(page.got, Got::Wanted(_))).map(|page| page.id).collect();
        let read = self.read_pages(replay.domain(), wanted.into_iter().collect())?;
        for page in &mut planned {
            let Got::Wanted(place) = page.got else { continue };
            page.got = match read.get(&page.id) {
                Some(Ok(blob)) => Got::Blob(Arc::clone(blob), place),
                Some(Err(problem)) if problem.is_later(attempt) => return Ok(None),
                Some(Err(problem)) => {
                    if problem.kind != FindingKind::Unreadable {
                        self.quarantine(vec![(page.id, place, problem.what.clone())])?;
                    }
                    Got::Lost(Cause::New(problem.clone()))
                }
                None => return Err(ServerError::Bug("a page was not asked for")),
            };
        }
        Ok(Some(planned))
    }

    /// The pages with these ids, or what is wrong with them.
    fn read_pages(
        &self,
        domain: &Arc<Domain>,
        ids: Vec<ChunkId>,
    ) -> Result<HashMap<ChunkId, Result<Arc<Blob>, Problem>>, ServerError> {
        if let Ok(blobs) = wait(read_blobs(&self.store, domain, ids.clone())) {
            return Ok(blobs.into_iter().map(|blob| (blob.info.id, Ok(Arc::new(blob)))).collect());
        }
        // One of them is bad: read them one by one to name it. Where they lie is looked up again.
        let mut read = HashMap::new();
        for id in ids {
            let got = match wait(read_blobs(&self.store, domain, vec![id])) {
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
                    Err(Problem::new(FindingKind::Index, id, "is missing from the index"))
                }
                Err(ServerError::Site(error)) => Err(self.bad_object(id, error)?),
                Err(error) => return Err(error),
            };
            read.insert(id, got);
        }
        Ok(read)
    }

    /// The packs in which the pages and chunks of `snapshots` lie. What cannot be read is passed over: it
    /// is found when the snapshot is looked through.
    pub(super) fn needed(&mut self, snapshots: &[Snapshot]) -> Result<BTreeSet<PackNumber>, ServerError> {
        let mut packs = BTreeSet::new();
        for snapshot in snapshots {
            let domain = self.store.domain(&snapshot.cluster);
            for of in &snapshot.manifests {
                let Object::Good(manifest) = self.open(of)? else { continue };
                for pages in manifest.pages.chunks(PAGES_AT_ONCE) {
                    packs.append(&mut self.needed_by(&domain, pages)?);
                }
            }
        }
        Ok(packs)
    }

    fn needed_by(
        &mut self,
        domain: &Arc<Domain>,
        pages: &[PageRef],
    ) -> Result<BTreeSet<PackNumber>, ServerError> {
        let mut ids: BTreeSet<ChunkId> = pages.iter().map(|page| page.id).collect();
        let read = self.read_pages(domain, ids.iter().copied().collect())?;
        for blob in read.into_values().flatten() {
            if let Ok(records) = page_records(&blob, domain) {
                ids.extend(page::references(&records));
            }
        }
        let rows = self.store.chunk_rows(&ids)?;
        Ok(rows.into_iter().flatten().map(|row| row.pack).collect())
    }
}
