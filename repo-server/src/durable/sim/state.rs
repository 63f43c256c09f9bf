//! Content of the simulated disk, as programs see it and after a power cut.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path};

use rustix::io::Errno;

use super::super::disk::{Entry, EntryKind};
use super::super::error::Step;
use super::{Lie, SimFault, Survivors};

/// Content is torn at multiples of this. Tiny, so that tests with little content see it.
const SECTOR: usize = 4;

/// The root folder.
const ROOT: InodeId = InodeId(0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InodeId(usize);

pub(super) struct State {
    inodes: Vec<Inode>,
    numbers: u64,
    stopped: bool,
    read_only: bool,
    pub(super) steps: Vec<Step>,
    pub(super) fault: Option<(usize, SimFault)>,
    pub(super) lie: Option<Lie>,
    pub(super) write_limit: usize,
    /// Grows with every restart: handles of an earlier process are dead.
    pub(super) boot: u64,
}

enum Inode {
    File(FileNode),
    Folder(FolderNode),
}

#[derive(Default)]
pub(super) struct FileNode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// True if a sync has changes to write. A failed sync clears it, which loses the data.
    dirty: bool,
}

#[derive(Default)]
pub(super) struct FolderNode {
    seen: BTreeMap<String, InodeId>,
    durable: BTreeMap<String, InodeId>,
    unsynced: Vec<Change>,
}

/// One change of a folder: survives a power cut as a whole or not at all.
pub(super) enum Change {
    Add { name: String, inode: InodeId },
    Remove { name: String },
    Move { from: String, to: String, inode: InodeId },
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            inodes: vec![Inode::Folder(FolderNode::default())],
            numbers: 0,
            stopped: false,
            read_only: false,
            steps: Vec::new(),
            fault: None,
            lie: None,
            write_limit: usize::MAX,
            boot: 0,
        }
    }

    /// Starts a step: returns the fault to do it with, or an error if the process has stopped.
    pub(super) fn step(&mut self, step: Step) -> io::Result<Option<SimFault>> {
        let number = self.steps.len();
        let fault = self.fault.take_if(|(at, _)| *at == number).map(|(_, fault)| fault);
        self.stopped |= fault == Some(SimFault::Stop);
        if self.stopped {
            return Err(io::Error::other("the simulated process has stopped"));
        }
        self.steps.push(step);
        Ok(fault)
    }

    pub(super) fn plain_step(&mut self, step: Step) -> io::Result<()> {
        let fault = self.step(step)?;
        refuse(fault)
    }

    pub(super) fn writable(&self) -> io::Result<()> {
        if self.read_only { Err(Errno::ROFS.into()) } else { Ok(()) }
    }

    pub(super) fn next_number(&mut self) -> u64 {
        self.numbers = self.numbers.wrapping_add(1);
        self.numbers
    }

    pub(super) fn add_file(&mut self) -> InodeId {
        self.add(Inode::File(FileNode::default()))
    }

    pub(super) fn add_folder(&mut self) -> InodeId {
        self.add(Inode::Folder(FolderNode::default()))
    }

    fn add(&mut self, inode: Inode) -> InodeId {
        self.inodes.push(inode);
        InodeId(self.inodes.len().saturating_sub(1))
    }

    /// Adds the folder `path` and those above it, all durable.
    pub(super) fn add_folders(&mut self, path: &Path) {
        let mut at = ROOT;
        for name in names(path) {
            let inode = self.add_folder();
            if let Ok(folder) = self.folder(at) {
                folder.seen.insert(name.to_owned(), inode);
                folder.durable.insert(name.to_owned(), inode);
            }
            at = inode;
        }
    }

    pub(super) fn find(&mut self, path: &Path) -> Option<InodeId> {
        names(path).try_fold(ROOT, |at, name| self.folder(at).ok()?.lookup(name).ok())
    }

    pub(super) fn folder(&mut self, inode: InodeId) -> io::Result<&mut FolderNode> {
        match self.inodes.get_mut(inode.0) {
            Some(Inode::Folder(folder)) => Ok(folder),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    pub(super) fn file(&mut self, inode: InodeId) -> io::Result<&mut FileNode> {
        match self.inodes.get_mut(inode.0) {
            Some(Inode::File(file)) => Ok(file),
            _ => Err(Errno::ISDIR.into()),
        }
    }

    pub(super) fn entries(&mut self, inode: InodeId) -> io::Result<Vec<Entry>> {
        let found: Vec<_> =
            self.folder(inode)?.seen.iter().map(|(name, inode)| (name.clone(), *inode)).collect();
        let kind = |state: &mut Self, inode| match state.file(inode) {
            Ok(_) => EntryKind::File,
            Err(_) => EntryKind::Folder,
        };
        Ok(found
            .into_iter()
            .map(|(name, inode)| Entry { name: name.into(), kind: kind(self, inode) })
            .collect())
    }

    /// Appends what one write takes of `bytes`.
    pub(super) fn append(
        &mut self,
        inode: InodeId,
        bytes: &[u8],
        fault: Option<SimFault>,
    ) -> io::Result<usize> {
        self.writable()?;
        let whole = bytes.len().min(self.write_limit);
        let taken = match fault {
            Some(SimFault::ShortWrite) => whole.div_ceil(2),
            other => refuse(other).map(|()| whole)?,
        };
        let file = self.file(inode)?;
        file.seen.extend(bytes.iter().take(taken));
        file.dirty = true;
        Ok(taken)
    }

    /// True if the last step, a sync of the kind of `kind`, has no effect.
    fn lies(&self, kind: Lie) -> bool {
        match self.lie {
            Some(Lie::SyncAt(number)) => number.checked_add(1) == Some(self.steps.len()),
            lie => lie == Some(kind),
        }
    }

    pub(super) fn sync_file(&mut self, inode: InodeId, fault: Option<SimFault>) -> io::Result<()> {
        let lie = self.lies(Lie::FileSync);
        let file = self.file(inode)?;
        let refused = refuse(fault);
        if lie {
            return refused;
        }
        if file.dirty && refused.is_ok() {
            file.durable = file.seen.clone();
        }
        file.dirty = false;
        refused
    }

    pub(super) fn sync_folder(&mut self, inode: InodeId, fault: Option<SimFault>) -> io::Result<()> {
        let lie = self.lies(Lie::FolderSync);
        self.writable()?;
        if let Err(e) = refuse(fault) {
            self.read_only = true;
            return Err(e);
        }
        let folder = self.folder(inode)?;
        if !lie {
            folder.durable = folder.seen.clone();
            folder.unsynced.clear();
        }
        Ok(())
    }

    pub(super) fn restart(&mut self) {
        self.fault = None;
        self.stopped = false;
        self.boot = self.boot.wrapping_add(1);
    }

    pub(super) fn cut_power(&mut self, survivors: Survivors) {
        self.restart();
        self.read_only = false;
        let mut coin = Coin::new(survivors);
        for inode in &mut self.inodes {
            match inode {
                Inode::File(file) => file.forget(survivors, &mut coin),
                Inode::Folder(folder) => folder.forget(survivors, &mut coin),
            }
        }
    }

    pub(super) fn peek(&mut self, path: &Path) -> Option<Vec<u8>> {
        let inode = self.find(path)?;
        self.file(inode).ok().map(|file| file.seen.clone())
    }

    pub(super) fn peek_names(&mut self, path: &Path) -> Vec<String> {
        let inode = self.find(path);
        let folder = inode.and_then(|inode| self.folder(inode).ok());
        folder.map(|folder| folder.seen.keys().cloned().collect()).unwrap_or_default()
    }
}

impl FileNode {
    pub(super) fn read(&self, offset: usize, into: &mut [u8]) -> usize {
        let rest = self.seen.get(offset..).unwrap_or_default();
        into.iter_mut().zip(rest).map(|(to, from)| *to = *from).count()
    }

    fn forget(&mut self, survivors: Survivors, coin: &mut Coin) {
        if self.dirty {
            match survivors {
                Survivors::Synced | Survivors::Names => {}
                Survivors::Everything => self.durable = self.seen.clone(),
                Survivors::Seeded(_) => self.durable = self.torn(coin),
            }
        }
        self.seen = self.durable.clone();
        self.dirty = false;
    }

    /// A shorter file, some sectors of which were never written and read as zeros.
    fn torn(&self, coin: &mut Coin) -> Vec<u8> {
        let sectors = self.seen.len().div_ceil(SECTOR);
        let kept = coin.below(sectors.saturating_add(1));
        let mut content = self.seen.clone();
        content.truncate(kept.saturating_mul(SECTOR));
        for (number, sector) in content.chunks_mut(SECTOR).enumerate() {
            let synced = number.saturating_mul(SECTOR) < self.durable.len();
            if !synced && coin.flip() {
                sector.fill(0);
            }
        }
        if content.len() < self.durable.len() { self.durable.clone() } else { content }
    }
}

impl FolderNode {
    pub(super) fn lookup(&self, name: &str) -> io::Result<InodeId> {
        Ok(*self.seen.get(name).ok_or(Errno::NOENT)?)
    }

    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.unsynced.push(change);
    }

    fn forget(&mut self, survivors: Survivors, coin: &mut Coin) {
        for change in self.unsynced.drain(..) {
            let survives = match survivors {
                Survivors::Synced => false,
                Survivors::Names | Survivors::Everything => true,
                Survivors::Seeded(_) => coin.flip(),
            };
            if survives {
                change.apply(&mut self.durable);
            }
        }
        self.seen = self.durable.clone();
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, InodeId>) {
        match self {
            Self::Add { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
            Self::Move { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

/// The error of a step that fails.
pub(super) fn refuse(fault: Option<SimFault>) -> io::Result<()> {
    match fault {
        Some(SimFault::InputOutput) => Err(Errno::IO.into()),
        Some(SimFault::NoSpace) => Err(Errno::NOSPC.into()),
        Some(SimFault::Stop | SimFault::ShortWrite) | None => Ok(()),
    }
}

fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}

/// Replayable chance: the SplitMix64 generator.
struct Coin(u64);

impl Coin {
    fn new(survivors: Survivors) -> Self {
        match survivors {
            Survivors::Seeded(seed) => Self(seed),
            Survivors::Synced | Survivors::Names | Survivors::Everything => Self(0),
        }
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn flip(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(1);
        usize::try_from(self.next() % end).unwrap_or(0)
    }
}
