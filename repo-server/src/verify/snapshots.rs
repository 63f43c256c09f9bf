//! Snapshots: their manifests open, their pages are there, and each file finds all that it needs.

use std::sync::Arc;

use format_spec::assemble::{Depth, Roots};
use format_spec::manifest::Manifest;
use format_spec::snapshot::{ManifestRef, Snapshot};
use format_spec::wire::{FindingKind, Stopped, VerifyLevel};

use super::findings::{Cause, Hurt, Owner, Problem};
use super::judge::Judged;
use super::limits::Budget;
use super::opened::Object;
use super::pages::{Got, PAGES_AT_ONCE, Planned};
use super::replay::{Ended, Replay};
use super::{Attempt, Check, State};
use crate::defects::if_there_is_room;
use crate::defects::{blobs, objects};
use crate::error::ServerError;
use crate::index::Table;
use crate::snapshot::page_records;
use crate::store::Store;

/// Most findings about one snapshot before the list of findings is changed. It bounds memory: a snapshot with
/// more is not begun again, whatever the site does.
const TOLD_AT_ONCE: usize = 100_000;

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

/// Known state of the files of a snapshot.
enum Files {
    /// Each finds all that it needs.
    Whole,
    /// The state of some files is unknown.
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

impl Check {
    /// Looks through `snapshots`; those that the site does not answer for once more at the end.
    pub(super) fn snapshots(&mut self, snapshots: Vec<Snapshot>) -> Result<Walked, ServerError> {
        self.steps = self.done + u64::try_from(snapshots.len()).unwrap_or(u64::MAX);
        let mut later = Vec::new();
        for snapshot in snapshots {
            let snapshot = Arc::new(snapshot);
            match self.snapshot(Arc::clone(&snapshot), Attempt::First)? {
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
            self.snapshot(snapshot, Attempt::Last)?;
        }
        Ok(Walked::Through)
    }

    fn snapshot(&mut self, snapshot: Arc<Snapshot>, attempt: Attempt) -> Result<Walked, ServerError> {
        let mut walk =
            Walk { snapshot: Arc::clone(&snapshot), attempt, told: Vec::new(), files: Files::Whole };
        if self.asked.level > VerifyLevel::Index {
            match self.snapshot_object(&snapshot)? {
                Object::Good(()) => self.remember(objects::Object::Snapshot(snapshot.id), None)?,
                Object::Bad(problem) if problem.is_later(attempt) => return Ok(Walked::Later),
                Object::Bad(problem) => {
                    self.remember(objects::Object::Snapshot(snapshot.id), Some(&problem))?;
                    let problem = self.mend(snapshot.id, problem)?;
                    for of in &snapshot.manifests {
                        walk.tell(of, Cause::New(problem.clone()), Hurt::Snapshot);
                    }
                }
            }
        }
        for of in &snapshot.manifests {
            let opened = match self.open(of)? {
                Object::Good(opened) => opened,
                Object::Bad(problem) if problem.is_later(walk.attempt) => return Ok(Walked::Later),
                Object::Bad(problem) => {
                    self.remember(objects::Object::Manifest(of.id), Some(&problem))?;
                    walk.tell_all(of, problem);
                    continue;
                }
            };
            match self.manifest(&mut walk, of, &opened)? {
                Walked::Through => {}
                early => return Ok(early),
            }
        }
        self.flush(&mut walk)?;
        let id = snapshot.id;
        let hurt = match walk.files {
            Files::Whole => None,
            Files::Unknown => return Ok(Walked::Through),
            Files::Hurt(why) => Some(why),
        };
        if_there_is_room(objects::note_hurt(&self.store, id, hurt))?;
        Ok(Walked::Through)
    }

    /// Puts what was found of a snapshot on the list, unless the snapshot went meanwhile: then its rows went
    /// as well.
    fn flush(&mut self, walk: &mut Walk) -> Result<(), ServerError> {
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
        if self.store.parts.index.get(Table::Snapshot, id.as_bytes())?.is_some() {
            for (owner, cause, hurt) in told {
                self.state.findings.hurts(cause, &owner, hurt);
            }
        }
        Ok(())
    }

    fn manifest(
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
            self.remember(objects::Object::Manifest(of.id), Some(&problem))?;
            walk.tell_all(of, problem);
        }
        let domain = self.store.domain(&walk.snapshot.cluster);
        let mut replay = Replay::new(domain, of.id, Roots::new(&manifest.roots), self.depth());
        for pages in manifest.pages.chunks(PAGES_AT_ONCE) {
            if self.is_out_of_time() {
                return Ok(Walked::Stopped);
            }
            let Some(read) = self.pages(walk.attempt, &replay, pages)? else {
                return Ok(Walked::Later);
            };
            replay_pages(&self.store, &mut self.state, &mut replay, read)?;
            for (cause, hurt) in replay.take_told() {
                walk.tell(of, cause, hurt);
            }
            if walk.told.len() > TOLD_AT_ONCE {
                walk.attempt = Attempt::Last;
                self.flush(walk)?;
            }
        }
        let Ended { files, lacking, told } = replay.finish();
        self.state.report.files += files;
        if fits {
            let problem = not_complete(of, lacking);
            self.remember(objects::Object::Manifest(of.id), problem.as_ref())?;
            if let Some(problem) = problem {
                walk.tell(of, Cause::New(problem), Hurt::Snapshot);
            }
        }
        for (cause, hurt) in told {
            walk.tell(of, cause, hurt);
        }
        Ok(Walked::Through)
    }

    fn depth(&self) -> Depth {
        if self.asked.level == VerifyLevel::Restore { Depth::Content } else { Depth::Tree }
    }

    /// Problems are reported even after the time limit.
    fn is_out_of_time(&self) -> bool {
        let budget = Budget::new(&self.asked.limits, 0, self.started);
        self.state.findings.is_empty() && budget.check_time(self.store.parts.clock.monotonic()).is_err()
    }
}

/// The problem of a manifest whose push reported nothing missing, although it stored `lacking` files as unreadable or
/// torn. A node's own word is believed until its snapshot is verified.
fn not_complete(of: &ManifestRef, lacking: u64) -> Option<Problem> {
    let what = format!("says that nothing is missing, and {lacking} of its files are unreadable or torn");
    (of.totals.problems == 0 && lacking > 0).then(|| Problem::new(FindingKind::Corrupt, of.id, what))
}

/// Takes pages apart, and puts the files on them together. Blocks and computes.
fn replay_pages(
    store: &Store,
    state: &mut State,
    replay: &mut Replay,
    pages: Vec<Planned>,
) -> Result<(), ServerError> {
    for Planned { id, got, aside } in pages {
        replay.aside(aside);
        match got {
            Got::Lost(cause) => replay.lost(cause),
            Got::Clean(page) => replay.clean_page(&id, &page),
            Got::Wanted(_) => return Err(ServerError::Bug("a page was not read")),
            Got::Blob(blob, place) => {
                state.report.pages += 1;
                match page_records(&blob, replay.domain()) {
                    Ok(records) => {
                        let judged = Judged::look_up(store, state, &records)?;
                        if let Some(clean) = replay.page(&id, records, judged) {
                            state.clean.add(id, clean);
                        }
                    }
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
    Ok(())
}
