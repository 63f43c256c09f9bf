//! The assembler against a model that keeps everything and looks through all of it at each record.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// Few names, so that they meet: in order, out of order, in each other.
const PATHS: [&str; 10] = ["q", "r", "r/a", "r/a/a", "r/a/a/a", "r/a/b", "r/ab", "r/b", "r/b/a", "s"];
const ROOTS: [&[&str]; 5] = [&["r"], &["r/a", "r/b"], &[""], &["r", "r/a/b"], &[]];

/// Everything that came so far.
struct Model {
    roots: Vec<EntryPath>,
    depth: Depth,
    accepted: Vec<Entry>,
    /// Folders that have no entry, and in which an entry lies all the same.
    implied: Vec<EntryPath>,
    open: Option<(Entry, Vec<Extent>)>,
    firsts: Vec<(u64, Ending)>,
    gap: bool,
    page_missing: bool,
    parts: Vec<Seen>,
}

/// All folders around a path, the innermost first.
fn around(path: &EntryPath) -> Vec<EntryPath> {
    let folder = |path: &EntryPath| path.split_last().map(|(folder, _)| folder).filter(|path| !path.is_top());
    std::iter::successors(folder(path), folder).collect()
}

impl Model {
    fn fault(&mut self, page: Option<ChunkId>, path: Option<&EntryPath>, kind: FaultKind) {
        self.parts.push(Seen::Fault(page, path.map(EntryPath::to_string), kind));
    }

    fn end(&mut self, ending: Ending) {
        if let Some((entry, _)) = self.open.take() {
            self.firsts.extend(entry.link_group.map(|group| (group, ending)));
            self.parts.push(Seen::End(ending));
        }
    }

    fn end_open(&mut self, page: Option<ChunkId>) {
        if let Some((entry, _)) = &self.open {
            let path = entry.path.clone();
            self.fault(page, Some(&path), FaultKind::NoEnd);
            self.end(Ending::Broken);
        }
    }

    fn is_folder(&self, path: &EntryPath) -> bool {
        let is_it = |entry: &Entry| entry.path == *path && entry.kind == EntryKind::Folder;
        self.accepted.iter().any(is_it) || self.implied.contains(path)
    }

    fn first(&self, group: Option<u64>) -> Option<Ending> {
        self.firsts.iter().find(|(number, _)| Some(*number) == group).map(|(_, ending)| *ending)
    }

    fn rule(&self, entry: &Entry) -> Result<(), FaultKind> {
        let path = &entry.path;
        let is_root_or_above = |path: &EntryPath| self.roots.iter().any(|root| root.below(path).is_some());
        let holds_root = self.roots.iter().any(|root| root != path && root.below(path).is_some());
        let folders = around(path);
        let stray =
            |folder: &EntryPath| !self.is_folder(folder) && self.accepted.iter().any(|e| e.path >= *folder);
        if self.accepted.iter().any(|other| other.path >= *path) {
            return Err(FaultKind::Order);
        }
        if holds_root && entry.kind != EntryKind::Folder {
            return Err(FaultKind::HoldsRoot);
        }
        if !is_root_or_above(path) && !self.roots.iter().any(|root| path.below(root).is_some()) {
            return Err(FaultKind::OutsideRoots);
        }
        match folders.first() {
            _ if is_root_or_above(path) => {}
            None => assert!(self.roots.iter().any(EntryPath::is_top), "only then it lies in a root"),
            Some(folder) if self.is_folder(folder) => {}
            Some(_) if self.gap && !folders.iter().any(stray) => {}
            Some(_) => return Err(FaultKind::NoFolder),
        }
        fault::check_fields(entry)?;
        match (entry.kind, self.first(entry.link_group)) {
            (EntryKind::File, Some(_)) => Err(FaultKind::SecondFirst),
            (EntryKind::HardLink, None) if !self.page_missing => Err(FaultKind::NoFirst),
            _ => Ok(()),
        }
    }

    fn entry(&mut self, page: ChunkId, entry: Entry) {
        self.end_open(Some(page));
        if let Err(kind) = self.rule(&entry) {
            self.gap = true;
            if entry.kind == EntryKind::File && self.first(entry.link_group).is_none() {
                self.firsts.extend(entry.link_group.map(|group| (group, Ending::Broken)));
            }
            return self.fault(Some(page), Some(&entry.path), kind);
        }
        self.gap = false;
        self.implied.extend(around(&entry.path));
        self.accepted.push(entry.clone());
        let name = entry.path.to_string();
        match entry.kind {
            EntryKind::HardLink => {
                let first = self.first(entry.link_group).unwrap_or(Ending::Lost);
                self.parts.push(Seen::Link(name, first));
            }
            EntryKind::File => {
                self.open = Some((entry, Vec::new()));
                self.parts.push(Seen::Entry(name));
            }
            EntryKind::Folder | EntryKind::Symlink => self.parts.push(Seen::Entry(name)),
        }
    }

    fn content(&mut self, page: ChunkId, content: &Content) {
        let Some((entry, extents)) = &mut self.open else {
            if !std::mem::replace(&mut self.gap, true) {
                self.fault(Some(page), None, FaultKind::NoEntry);
            }
            return self.parts.push(Seen::Nameless(content.extents.len()));
        };
        if content.end == Some(FileEnd::Unreadable) {
            return self.end(Ending::Unreadable);
        }
        let len = |extents: &[Extent]| extents.iter().map(Extent::covered).sum::<u64>();
        let offset = len(extents);
        extents.extend(&content.extents);
        let (size, covered, path) = (entry.size, len(extents), entry.path.clone());
        let is_whole = digest(extents);
        if self.depth == Depth::Content && covered > size {
            self.gap |= content.end.is_none();
            self.fault(Some(page), Some(&path), FaultKind::Size { size, covered });
            return self.end(Ending::Broken);
        }
        if !content.extents.is_empty() {
            self.parts.push(Seen::Content(offset, content.extents.clone()));
        }
        let (digest, ending) = match content.end {
            None | Some(FileEnd::Unreadable) => return,
            Some(FileEnd::Whole(digest)) => (digest, Ending::Whole),
            Some(FileEnd::Fuzzy(digest)) => (digest, Ending::Fuzzy),
            Some(FileEnd::Torn(digest)) => (digest, Ending::Torn),
        };
        let kind = match self.depth {
            Depth::Content if covered != size => FaultKind::Size { size, covered },
            Depth::Content if digest != is_whole => FaultKind::Digest,
            Depth::Content | Depth::Tree => return self.end(ending),
        };
        self.fault(Some(page), Some(&path), kind);
        self.end(Ending::Broken);
    }

    fn assemble(roots: &[EntryPath], depth: Depth, pages: &[Option<Vec<Record>>]) -> Vec<Seen> {
        let mut model = Self {
            roots: roots.to_vec(),
            depth,
            accepted: Vec::new(),
            implied: Vec::new(),
            open: None,
            firsts: Vec::new(),
            gap: false,
            page_missing: false,
            parts: Vec::new(),
        };
        for page in pages {
            match page {
                None => {
                    (model.gap, model.page_missing) = (true, true);
                    model.end(Ending::Lost);
                }
                Some(records) => {
                    for record in records {
                        match record {
                            Record::Entry(entry) => model.entry(PAGE, entry.clone()),
                            Record::Content(content) => model.content(PAGE, content),
                        }
                    }
                }
            }
        }
        model.end_open(None);
        model.parts
    }
}

/// A name with all its records, most of them right.
fn item() -> impl Strategy<Value = Vec<Record>> {
    let name = prop::sample::select(&PATHS[..]);
    let group = prop_oneof![3 => Just(None), 2 => (1_u64..3).prop_map(Some)];
    (name, 0_u8..12, group, 1_usize..3, 0_u8..9).prop_map(|(name, kind, group, pieces, odd)| match kind {
        0..=4 => folder(name),
        5 => symlink(name),
        6..=7 => link(name, group.unwrap_or(1)),
        _ => {
            let extents: Vec<_> = (1..=pieces).map(|n| chunk(u8::try_from(n).unwrap())).collect();
            let size = match odd {
                0 => 5,
                1 => 10 * u64::try_from(pieces).unwrap() + 1,
                _ => 10 * u64::try_from(pieces).unwrap(),
            };
            let right = digest(&extents);
            let end = match odd {
                2 => FileEnd::Whole(digest(&[])),
                3 => FileEnd::Unreadable,
                4 => FileEnd::Torn(right),
                5 => FileEnd::Fuzzy(right),
                _ => FileEnd::Whole(right),
            };
            let (last, before) = extents.split_last().unwrap();
            let mut records = file_entry(name, size, group);
            records.extend(before.iter().flat_map(|extent| content(&[*extent], None)));
            records.extend(content(&[*last], Some(end)));
            if odd == 6 {
                records.pop();
            }
            records
        }
    })
}

/// Pages of items, in path order or not, some records and pages missing.
fn pages() -> impl Strategy<Value = Vec<Option<Vec<Record>>>> {
    let items = prop::collection::vec(item(), 0..12);
    let cuts = prop::collection::vec(0_u8..8, 40);
    (items, 0_u8..4, cuts).prop_map(|(mut items, order, cuts)| {
        if order > 0 {
            items.sort_by_key(|records| match records.first() {
                Some(Record::Entry(entry)) => entry.path.clone(),
                _ => EntryPath::top(),
            });
        }
        let mut pages = vec![Some(Vec::new())];
        for (record, cut) in items.into_iter().flatten().zip(cuts.into_iter().cycle()) {
            match cut {
                0 => pages.push(None),
                1 | 2 => pages.push(Some(Vec::new())),
                3 if order == 3 => continue,
                _ => {}
            }
            match pages.last_mut() {
                Some(Some(page)) => page.push(record),
                // It is on the page that is missing.
                _ => pages.push(Some(Vec::new())),
            }
        }
        pages
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::with_cases(2_000)
    })]

    #[test]
    fn the_assembler_gives_what_a_naive_model_gives(
        pages in pages(),
        roots in prop::sample::select(&ROOTS[..]),
        depth in prop::sample::select(&[Depth::Tree, Depth::Content][..]),
    ) {
        let borrowed: Vec<_> = pages.iter().map(|page| page.clone().map(|records| vec![records])).collect();
        let borrowed: Vec<Page<'_>> = borrowed.iter().map(Option::as_deref).collect();
        let paths: Vec<_> = roots.iter().map(|root| path(root)).collect();

        prop_assert_eq!(assemble_at(depth, roots, &borrowed), Model::assemble(&paths, depth, &pages));
    }
}
