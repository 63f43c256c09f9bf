//! State of the model: rows of the index, objects of the site, and memory.

/// Chunks are blobs 0 and 1, pages are blobs 2 and 3.
pub(crate) const CHUNKS: usize = 2;
/// How many pages there are.
pub(crate) const PAGES: usize = 2;
/// How many blobs there are.
pub(crate) const BLOBS: usize = CHUNKS + PAGES;
/// How many packs there can be at once. The number of one that left no trace is given out again.
pub(crate) const PACKS: usize = 7;
/// How many snapshots there can be at once, with the same reuse.
pub(crate) const SNAPSHOTS: usize = 4;
/// How many pushers there are.
pub(crate) const PUSHERS: usize = 2;

/// A counter of the collector's runs. Zero stands for "not idle" in rows.
pub(crate) type Epoch = u8;

/// A small set of small numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Set(u16);

impl Set {
    /// The empty set.
    pub(crate) const EMPTY: Self = Self(0);

    /// These.
    pub(crate) const fn of<const N: usize>(members: [usize; N]) -> Self {
        let (mut bits, mut next) = (0, 0);
        while next < N {
            bits |= 1 << members[next];
            next += 1;
        }
        Self(bits)
    }

    pub(crate) fn has(self, member: usize) -> bool {
        self.0 & (1 << member) != 0
    }

    pub(crate) fn add(&mut self, member: usize) {
        self.0 |= 1 << member;
    }

    pub(crate) fn remove(&mut self, member: usize) {
        self.0 &= !(1 << member);
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn len(self) -> u8 {
        u8::try_from(self.0.count_ones()).expect("there are 16 bits")
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..16).filter(move |member| self.has(*member))
    }

    pub(crate) fn first(self) -> Option<usize> {
        self.iter().next()
    }
}

/// The two kinds of blobs, each with packs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Chunk,
    Page,
}

impl Kind {
    pub(crate) const BOTH: [Self; 2] = [Self::Chunk, Self::Page];

    pub(crate) fn of(blob: usize) -> Self {
        if blob < CHUNKS { Self::Chunk } else { Self::Page }
    }

    pub(crate) fn at(self) -> usize {
        match self {
            Self::Chunk => 0,
            Self::Page => 1,
        }
    }
}

/// A blob's row in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) pack: usize,
    pub(crate) count: u8,
    /// Since when it is idle; zero while it is counted.
    pub(crate) idle: Epoch,
}

/// Fate of a name: doomed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Fate {
    #[default]
    Spared,
    Doomed,
}

/// Presence of an object on the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Site {
    #[default]
    Absent,
    Present,
}

/// Transfer of an object that this process is putting at the moment. In memory only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Travel {
    #[default]
    Done,
    Flying,
}

/// A pack: its object, its row and its fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Pack {
    pub(crate) contents: Set,
    pub(crate) object: Site,
    /// How many of its blobs have rows that name it, as its own row says. Zero: it has no row.
    pub(crate) live: u8,
    pub(crate) fate: Fate,
    pub(crate) travel: Travel,
    /// The epoch of its item in the queue; zero: it has none.
    pub(crate) fresh: Epoch,
}

impl Pack {
    /// Any order will do, if it has nothing to do with numbers.
    fn order(&self) -> u32 {
        let object = if self.object == Site::Present { 4 } else { 0 };
        let fate = if self.fate == Fate::Doomed { 2 } else { 0 };
        let travel = if self.travel == Travel::Flying { 1 } else { 0 };
        let (contents, live, fresh) = (u32::from(self.contents.0), u32::from(self.live), self.fresh);
        ((contents << 3 | live) << 4 | u32::from(fresh)) << 3 | object | fate | travel
    }
}

/// Presence of a snapshot row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Listed {
    #[default]
    No,
    Yes,
    Tombstone,
}

/// A snapshot of one manifest, which names one page: rows and objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Snapshot {
    pub(crate) page: usize,
    pub(crate) listed: Listed,
    pub(crate) manifest: Site,
    pub(crate) object: Site,
    /// Fate of both names: the same batches doom them, and take that back.
    pub(crate) manifest_fate: Fate,
    pub(crate) fate: Fate,
    /// The pusher whose commit doomed it, and the number of sessions that it could open after that one.
    pub(crate) by: Option<(usize, u8)>,
    pub(crate) travel: Travel,
}

/// How far a pusher is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Step {
    /// It has no session, or believes so.
    #[default]
    Idle,
    /// It asks and sends.
    Pushing,
    /// It was told that a blob is here, once the batch is done that revives it.
    Reviving(usize),
    /// Its commit has found the page.
    PageFound,
    /// Its commit has doomed the names of the snapshot with this number.
    Intended(usize),
    /// The manifest's object is on the site.
    ManifestPut(usize),
    /// The snapshot's object is on the site.
    SnapshotPut(usize),
}

/// A pusher, and its session's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Pusher {
    pub(crate) step: Step,
    /// The start of its session, while that has a row. A pusher that is not told of its end goes on.
    pub(crate) session: Option<Epoch>,
    /// Ids that the session was told are stored. It relies on that as long as its session is open.
    pub(crate) told: Set,
    pub(crate) opens: u8,
}

/// An item of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    Blob { blob: usize, epoch: Epoch },
    Fresh { pack: usize, epoch: Epoch },
}

impl Item {
    pub(crate) fn epoch(self) -> Epoch {
        match self {
            Self::Blob { epoch, .. } | Self::Fresh { epoch, .. } => epoch,
        }
    }
}

/// Row that the collector has found, and will change in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Found {
    /// The row of a blob that is idle since this epoch.
    Droppable { blob: usize, epoch: Epoch },
    /// An item about nothing.
    Stale(Item),
}

/// Where the collector is. In memory only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Phase {
    #[default]
    Resting,
    /// It drops rows of this kind.
    Dropping(Kind),
    /// It deletes the objects that were doomed when it read their list.
    Deleting { snapshots: Set, manifests: Set, packs: Set },
}

/// A repack in progress. In memory only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Repack {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// Error seen in a step, not in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Wrong {
    #[default]
    Nothing,
    /// An open session was told that a blob is here, and then that it is missing.
    PromiseBroken,
    /// A session that was over has committed.
    LateCommit,
}

/// Everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    // The index.
    pub(crate) epoch: Epoch,
    pub(crate) rows: [Option<Row>; BLOBS],
    /// The epochs of each blob's items in the queue.
    pub(crate) queue: [Set; BLOBS],
    // The index and the site.
    pub(crate) packs: [Pack; PACKS],
    pub(crate) snapshots: [Snapshot; SNAPSHOTS],
    // Memory.
    pub(crate) open: [Set; 2],
    pub(crate) publishing: [Option<usize>; 2],
    pub(crate) phase: Phase,
    pub(crate) found: Option<Found>,
    pub(crate) repack: Option<Repack>,
    // Clients, and their sessions' rows.
    pub(crate) pushers: [Pusher; PUSHERS],
    // Remaining runs, crashes and other events.
    pub(crate) runs: u8,
    pub(crate) repacks: u8,
    pub(crate) crashes: u8,
    pub(crate) wrong: Wrong,
}

impl State {
    /// Blobs that were taken in and have no row yet.
    pub(crate) fn waiting(&self) -> Set {
        let travelling = self.publishing.iter().flatten().map(|pack| self.packs[*pack].contents);
        travelling.fold(self.open[0].plus(self.open[1]), Set::plus)
    }

    /// A number for a pack that nothing knows any more.
    pub(crate) fn free_pack(&self) -> Option<usize> {
        (0..PACKS).find(|number| self.is_free_pack(*number))
    }

    fn is_free_pack(&self, number: usize) -> bool {
        let listed = matches!(self.phase, Phase::Deleting { packs, .. } if packs.has(number));
        !listed && Pack { contents: Set::EMPTY, ..self.packs[number] } == Pack::default()
    }

    /// A number for a snapshot that nothing knows any more.
    pub(crate) fn free_snapshot(&self) -> Option<usize> {
        (0..SNAPSHOTS).find(|number| self.is_free_snapshot(*number))
    }

    fn is_free_snapshot(&self, number: usize) -> bool {
        let listed = match self.phase {
            Phase::Deleting { snapshots, manifests, .. } => snapshots.has(number) || manifests.has(number),
            _ => false,
        };
        !listed && Snapshot { page: 0, ..self.snapshots[number] } == Snapshot::default()
    }

    /// The same state, with nothing in it that can make no difference any more: what is left of free
    /// numbers, what a session that is over was told, and which number a pack has.
    pub(crate) fn normal(mut self) -> Self {
        for number in 0..PACKS {
            if self.is_free_pack(number) {
                self.packs[number] = Pack::default();
            }
        }
        for number in 0..SNAPSHOTS {
            if self.is_free_snapshot(number) {
                self.snapshots[number] = Snapshot::default();
            }
        }
        for number in 0..SNAPSHOTS {
            self.snapshots[number].by = self.snapshots[number].by.filter(|by| self.is_open(*by));
        }
        for pusher in self.pushers.iter_mut().filter(|pusher| pusher.session.is_none()) {
            pusher.told = Set::EMPTY;
        }
        let mut order = self.packs.map(|pack| pack.order());
        for last in (1..PACKS).rev() {
            for number in 0..last {
                if order[number] < order[number + 1] {
                    order.swap(number, number + 1);
                    self.swap_packs(number, number + 1);
                }
            }
        }
        self
    }

    /// Exchanges the numbers of two packs wherever they are written.
    fn swap_packs(&mut self, one: usize, other: usize) {
        let swapped = |number: usize| match number {
            _ if number == one => other,
            _ if number == other => one,
            _ => number,
        };
        self.packs.swap(one, other);
        self.rows.iter_mut().flatten().for_each(|row| row.pack = swapped(row.pack));
        self.publishing.iter_mut().flatten().for_each(|pack| *pack = swapped(*pack));
        if let Some(Repack { from, to }) = &mut self.repack {
            (*from, *to) = (swapped(*from), swapped(*to));
        }
        if let Some(Found::Stale(Item::Fresh { pack, .. })) = &mut self.found {
            *pack = swapped(*pack);
        }
        if let Phase::Deleting { packs, .. } = &mut self.phase {
            let mut renamed = Set::EMPTY;
            packs.iter().for_each(|pack| renamed.add(swapped(pack)));
            *packs = renamed;
        }
    }

    /// True if a pusher has a session open after which it can open as many more as given.
    pub(crate) fn is_open(&self, (who, opens): (usize, u8)) -> bool {
        self.pushers[who].session.is_some() && self.pushers[who].opens == opens
    }

    /// The start of the oldest open session.
    pub(crate) fn oldest_start(&self) -> Option<Epoch> {
        self.pushers.iter().filter_map(|pusher| pusher.session).min()
    }

    /// One more count: the row is idle no more.
    pub(crate) fn count(&mut self, blob: usize) {
        if let Some(row) = &mut self.rows[blob] {
            row.count += 1;
            row.idle = 0;
        }
    }

    /// A row that is idle becomes idle anew, at the present epoch.
    pub(crate) fn revive(&mut self, blob: usize) {
        if let Some(row) = &mut self.rows[blob]
            && row.count == 0
        {
            row.idle = self.epoch;
            self.queue[blob].add(usize::from(self.epoch));
        }
    }

    /// True if the row is idle since before `start`.
    pub(crate) fn is_idle_before(&self, blob: usize, start: Epoch) -> bool {
        self.rows[blob].is_some_and(|row| row.count == 0 && row.idle < start)
    }
}
