//! One node's pages in order, put together as a restore does, and the files that anything wrong with them hurts.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

use format_spec::assemble::{Assembler, Depth, Ending, Fault, Part, Roots, Seam};
use format_spec::entry::Extent;
use format_spec::page::Record;
use format_spec::wire::FindingKind;
use format_spec::{ChunkId, Entry, EntryKind, EntryPath, ManifestId};

use super::findings::{Cause, Hurt, Problem};
use super::judge::Judged;
use crate::store::Domain;

/// A page in which nothing is wrong, and which concerns no other page.
#[derive(Debug, Clone)]
pub(super) struct CleanPage {
    seam: Seam,
    files: u64,
    lacking: u64,
}

impl CleanPage {
    /// True if nothing is wrong with it in a manifest with these roots either.
    pub(super) fn holds_for(&self, roots: &Roots) -> bool {
        self.seam.holds_for(roots)
    }
}

/// Where the pages of one manifest are.
pub(super) struct Replay {
    domain: Arc<Domain>,
    depth: Depth,
    roots: Roots,
    assembler: Assembler,
    files: Files,
}

/// The sums over all pages of a manifest.
pub(super) struct Ended {
    /// Files, each link counted.
    pub(super) files: u64,
    /// Files that the push itself stored as unreadable or torn, each link group counted once.
    pub(super) lacking: u64,
    /// Findings since the last [`take_told`](Replay::take_told).
    pub(super) told: Vec<(Cause, Hurt)>,
}

/// A file whose content goes on.
struct OpenFile {
    path: EntryPath,
    link_group: Option<u64>,
    hurt: BTreeSet<Cause>,
}

/// Pages that are not known, and who is to blame.
struct Gap {
    after: Option<EntryPath>,
    causes: BTreeSet<Cause>,
}

/// Known state of the files so far.
struct Files {
    /// Manifest to blame if the pages stop too early.
    manifest: ManifestId,
    open: Option<OpenFile>,
    gap: Option<Gap>,
    /// Why the first page is missing that is. Which of those has the first name of a link, nobody knows: this stands
    /// for all of them.
    missing: Option<Cause>,
    /// Files that are hurt and have more names.
    hurt_groups: HashMap<u64, BTreeSet<Cause>>,
    count: u64,
    /// Files that the push itself stored as unreadable or torn, each link group counted once.
    lacking: u64,
    told: Vec<(Cause, Hurt)>,
}

/// Known state of the page whose parts come.
struct OnPage<'a> {
    id: &'a ChunkId,
    depth: Depth,
    judged: Judged,
}

impl Replay {
    /// Before the first page of a manifest with these roots.
    pub(super) fn new(domain: Arc<Domain>, manifest: ManifestId, roots: Roots, depth: Depth) -> Self {
        let assembler = Assembler::new(domain.key.clone(), roots.clone(), depth);
        let files = Files {
            manifest,
            open: None,
            gap: None,
            missing: None,
            hurt_groups: HashMap::new(),
            count: 0,
            lacking: 0,
            told: Vec::new(),
        };
        Self { domain, depth, roots, assembler, files }
    }

    /// Takes the next page. Returns what is left to know of it where its id comes again, if nothing is
    /// wrong with it and it stands by itself.
    pub(super) fn page(&mut self, id: &ChunkId, records: Vec<Record>, judged: Judged) -> Option<CleanPage> {
        let Self { depth, assembler, files, .. } = self;
        let (told, count, lacking) = (files.told.len(), files.count, files.lacking);
        let mut page = OnPage { id, depth: *depth, judged };
        let Ok(seam) = assembler.page(*id, records, |part| files.part(part, Some(&mut page)));
        files.told.extend(page.judged.around.into_iter().map(|cause| (cause, Hurt::Snapshot)));
        let seam = seam.filter(|_| files.told.len() == told)?;
        Some(CleanPage { seam, files: files.count - count, lacking: files.lacking - lacking })
    }

    /// Takes a page that was taken before, here or for another manifest.
    pub(super) fn clean_page(&mut self, id: &ChunkId, page: &CleanPage) {
        let Self { assembler, files, .. } = self;
        files.close_gap(Some(page.seam.first()));
        let Ok(()) = assembler.known_page(*id, &page.seam, |part| files.part(part, None));
        files.count += page.files;
        files.lacking += page.lacking;
    }

    /// Takes a page that nobody can read: its files cannot be named, but for one that began before.
    pub(super) fn lost(&mut self, cause: Cause) {
        let Self { assembler, files, .. } = self;
        files.missing.get_or_insert_with(|| cause.clone());
        if let Some(file) = &mut files.open {
            file.hurt.insert(cause.clone());
        }
        let last = assembler.last();
        let after = || (!last.is_top()).then(|| last.clone());
        let gap = files.gap.get_or_insert_with(|| Gap { after: after(), causes: BTreeSet::new() });
        gap.causes.insert(cause);
        let Ok(()) = assembler.missing_page(|part| files.part(part, None));
    }

    /// Ends the last page.
    pub(super) fn finish(self) -> Ended {
        let Self { assembler, mut files, .. } = self;
        files.close_gap(None);
        let Ok(()) = assembler.finish(|part| files.part(part, None));
        Ended { files: files.count, lacking: files.lacking, told: files.told }
    }

    /// Something is wrong that hurts no file.
    pub(super) fn aside(&mut self, cause: Option<Cause>) {
        self.files.told.extend(cause.map(|cause| (cause, Hurt::Snapshot)));
    }

    /// The keys of its ids.
    pub(super) fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// How much of a file is checked.
    pub(super) fn depth(&self) -> Depth {
        self.depth
    }

    /// The roots of its manifest.
    pub(super) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Findings since the last call.
    pub(super) fn take_told(&mut self) -> Vec<(Cause, Hurt)> {
        std::mem::take(&mut self.files.told)
    }
}

impl Files {
    fn part(&mut self, part: Part<'_>, page: Option<&mut OnPage<'_>>) -> Result<(), Infallible> {
        match (part, page) {
            (Part::Entry(entry), _) => self.entry(entry),
            (Part::Link { entry, first }, page) => self.link(&entry, first, page.map(|page| page.id)),
            (Part::Content { extents, .. }, Some(page)) => {
                if let Some(file) = &mut self.open {
                    file.hurt.extend(page.causes(extents));
                }
            }
            (Part::Nameless(extents), Some(page)) => {
                let causes: Vec<Cause> = page.causes(extents).collect();
                page.judged.around.extend(causes);
            }
            (Part::Content { .. } | Part::Nameless(_), None) => {}
            (Part::End(ending), _) => self.end(ending),
            (Part::Fault(fault), _) => self.fault(&fault),
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) {
        self.close_gap(Some(&entry.path));
        if entry.kind == EntryKind::File {
            self.count += 1;
            let Entry { path, link_group, .. } = entry;
            self.open = Some(OpenFile { path, link_group, hurt: BTreeSet::new() });
        }
    }

    fn link(&mut self, entry: &Entry, first: Ending, page: Option<&ChunkId>) {
        self.close_gap(Some(&entry.path));
        self.count += 1;
        let known = entry.link_group.and_then(|group| self.hurt_groups.get(&group));
        let unnamed = match first {
            Ending::Whole | Ending::Fuzzy | Ending::Torn | Ending::Unreadable => None,
            Ending::Lost => self.missing.clone(),
            Ending::Broken => page.map(|page| {
                let what = format!("the first name of `{}` cannot be restored", entry.path);
                Cause::New(Problem::new(FindingKind::Corrupt, page, what))
            }),
        };
        let causes = known.map_or_else(|| unnamed.into_iter().collect(), BTreeSet::clone);
        let hurt = || Hurt::File(entry.path.to_string());
        self.told.extend(causes.into_iter().map(|cause| (cause, hurt())));
    }

    /// Tells of a file that is hurt, once for each cause.
    fn end(&mut self, ending: Ending) {
        self.lacking += u64::from(matches!(ending, Ending::Unreadable | Ending::Torn));
        let Some(file) = self.open.take() else { return };
        // The push said so: nobody restores it.
        if ending == Ending::Unreadable || file.hurt.is_empty() {
            return;
        }
        for cause in &file.hurt {
            self.told.push((cause.clone(), Hurt::File(file.path.to_string())));
        }
        self.hurt_groups.extend(file.link_group.map(|group| (group, file.hurt)));
    }

    /// A fault is of the file that is open, or of an entry that no restore would take.
    fn fault(&mut self, fault: &Fault) {
        let object = fault.page.map_or_else(|| self.manifest.to_string(), |page| page.to_string());
        let cause = Cause::New(Problem::new(FindingKind::Corrupt, object, fault));
        match (&mut self.open, &fault.path) {
            (Some(file), _) => drop(file.hurt.insert(cause)),
            (None, Some(path)) => self.told.push((cause, Hurt::File(path.to_string()))),
            (None, None) => self.told.push((cause, Hurt::Snapshot)),
        }
    }

    fn close_gap(&mut self, before: Option<&EntryPath>) {
        let Some(gap) = self.gap.take() else { return };
        let text = |path: &EntryPath| path.to_string();
        for cause in gap.causes {
            let (after, before) = (gap.after.as_ref().map(text), before.map(text));
            self.told.push((cause, Hurt::Range { after, before }));
        }
    }
}

impl OnPage<'_> {
    /// Why files that need these extents cannot be restored.
    fn causes(&self, extents: &[Extent]) -> impl Iterator<Item = Cause> {
        extents.iter().filter_map(|extent| match extent {
            Extent::Chunk { id, len } => self.judged.cause(self.depth, id, *len),
            Extent::Hole { .. } => None,
        })
    }
}
