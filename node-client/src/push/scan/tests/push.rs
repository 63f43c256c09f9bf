//! A push with both its passes, as the real one runs them, up to the session and the network.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chunker::{Algorithm, Chunker, Params};
use crossbeam_channel::{Receiver, Sender};
use format_spec::key::BlobKind;
use format_spec::manifest::Totals;
use format_spec::page::PageBuilder;
use format_spec::{ChunkId, ManifestId, SessionId};

use super::outcome::Outcome;
use super::tree::{Tree, domain};
use super::{At, MAX_CHUNK, MIN_CHUNK, REPOSITORY, Server};
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::progress::{Progress, Silent};
use crate::push::class::Classes;
use crate::push::find::links::Links;
use crate::push::find::list::{self, FoundFile, Step};
use crate::push::find::lister::{Lister, Listing};
use crate::push::find::opener::Opener;
use crate::push::find::walk::walk;
use crate::push::freeze::Freeze;
use crate::push::guest::Guest;
use crate::push::read::Reader;
use crate::push::read::batch::{Batch, Feeder, READ_LEN};
use crate::push::report::Tally;
use crate::push::scan::{Pages, Past, Scan, Scanned};
use crate::push::select::of_patterns;
use crate::push::select::roots::Mounts;
use crate::push::select::roots::Root;
use crate::push::stop::{Failure, Stop, Stopped};
use crate::push::verdict::doubt::Purse;
use crate::push::verdict::draw::Draw;
use crate::push::{Alike, ClassRule, ClassSet, FreezeMode, FreezeOptions, Rehash, Strict};
use crate::state::{Known, Likeness, Memory, Place, Spool};

/// Plaintext in a batch.
const BATCH_LEN: usize = 64 << 10;

/// How a push ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Committed,
    /// Without a snapshot; it cleans up behind itself.
    Failed,
    /// At once.
    Killed,
}

/// State of the pushes before, and the saving of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remember {
    Pushes,
    Nothing,
}

/// A push to be.
pub(super) struct Push<'a> {
    pub(super) tree: &'a Tree,
    pub(super) server: Arc<Server>,
    pub(super) remember: Remember,
    pub(super) mode: FreezeMode,
    pub(super) classes: Vec<ClassRule>,
    pub(super) class_sets: Vec<ClassSet>,
    pub(super) rehash: Rehash,
    pub(super) clock: At,
    pub(super) strict: Strict,
    pub(super) alike: Alike,
    /// Bytes that may be read of files of which only the ctime changed, in place of a share of the tree.
    pub(super) purse: Option<Purse>,
    pub(super) cancel: Cancel,
    pub(super) between: Box<dyn FnOnce() + 'a>,
    pub(super) on_read: Box<dyn Fn(u64) + Send + Sync + 'a>,
}

/// Hears of what is read while it is.
struct Watch<'a> {
    read: AtomicU64,
    on_read: Box<dyn Fn(u64) + Send + Sync + 'a>,
}

impl Progress for Watch<'_> {
    fn read(&self, bytes: u64) {
        (self.on_read)(self.read.fetch_add(bytes, Ordering::Relaxed) + bytes);
    }
}

impl<'a> Push<'a> {
    pub(super) fn freeze(self, mode: FreezeMode) -> Self {
        Self { mode, ..self }
    }

    /// Adds a rule, as on the command line.
    pub(super) fn class(mut self, rule: &str) -> Self {
        self.classes.push(rule.parse().unwrap());
        self
    }

    pub(super) fn class_set(mut self, set: ClassSet) -> Self {
        self.class_sets.push(set);
        self
    }

    pub(super) fn rehash(self, rehash: Rehash) -> Self {
        Self { rehash, ..self }
    }

    pub(super) fn alike(self, alike: Alike) -> Self {
        Self { alike, ..self }
    }

    pub(super) fn strict(self) -> Self {
        Self { strict: Strict::Yes, ..self }
    }

    pub(super) fn at(self, clock: At) -> Self {
        Self { clock, ..self }
    }

    /// Reads no more than this of files of which only the ctime changed.
    pub(super) fn purse(self, purse: Purse) -> Self {
        Self { purse: Some(purse), ..self }
    }

    /// Knows nothing, and is not remembered. What it feeds goes nowhere.
    pub(super) fn afresh(self) -> Self {
        Self { remember: Remember::Nothing, server: Arc::default(), ..self }
    }

    /// Does something when the tree is listed and nothing is read yet.
    pub(super) fn between(self, change: impl FnOnce() + 'a) -> Self {
        Self { between: Box::new(change), ..self }
    }

    /// Hears after each read how many bytes were read in all.
    pub(super) fn on_read(self, change: impl Fn(u64) + Send + Sync + 'a) -> Self {
        Self { on_read: Box::new(change), ..self }
    }

    /// Ends the push soon after so many bytes were read.
    pub(super) fn cut_after(self, bytes: u64) -> Self {
        let cancel = self.cancel.clone();
        self.on_read(move |read| {
            if read >= bytes {
                cancel.cancel();
            }
        })
    }

    /// Ends with a snapshot, which is checked.
    pub(super) fn run(self) -> Outcome {
        let domain = domain();
        let outcome = self.end(End::Committed).unwrap();
        outcome.check(&domain);
        outcome
    }

    /// Ends as `end`. A push that commits may fail.
    pub(super) fn end(mut self, end: End) -> Result<Outcome, Failure> {
        let (stop, tally) = (Stop::new(self.cancel.clone()), Tally::default());
        let place = self.tree.place();
        let remembered = Some(&place).filter(|_| self.remember == Remember::Pushes);
        let (memory, number) = recall(remembered, self.alike)?;
        let roots = self.tree.roots();
        let options = FreezeOptions { mode: self.mode, ..FreezeOptions::default() };
        let freeze = Freeze::new(&options, &place.key(), &roots, None).unwrap();
        let session = self.tree.session();
        let spool = Spool::create(remembered, domain(), REPOSITORY, SessionId::from_bytes(session), number);
        let mut pages = Pages { builder: PageBuilder::new(domain()), spool: spool.unwrap() };
        let draw = Draw::new(self.rehash, number, u64::from(session[0]));
        let passes =
            Passes { roots: &roots, freeze: &freeze, stop: &stop, tally: &tally, draw, strict: self.strict };
        let (scanned, fed) = self.passes(&passes, memory, &mut pages);
        if end == End::Killed {
            drop(freeze);
        } else {
            pages.spool.release(|identity| freeze.release(identity)).unwrap();
            freeze.remove();
        }
        let scanned = match (scanned, end) {
            (Err(stopped), End::Committed) => return Err(stop.reason(stopped)),
            (Err(_), _) => Scanned { totals: Totals::default(), problems: Vec::new() },
            (Ok(scanned), _) => scanned,
        };
        let outcome = Outcome::new(self.tree, self.server, &pages.spool, &scanned, tally.stats(), fed);
        if end == End::Committed {
            pages.spool.finish(&ManifestId::from_bytes([3; 32])).unwrap();
        }
        Ok(outcome)
    }

    /// The rows of files in the list that a push makes.
    pub(super) fn rows(self) -> Vec<FoundFile> {
        let (stop, tally) = (Stop::new(self.cancel.clone()), Tally::default());
        let (place, roots) = (self.tree.place(), self.tree.roots());
        let (mut memory, number) = recall(Some(&place), self.alike).unwrap();
        let options = FreezeOptions { mode: self.mode, ..FreezeOptions::default() };
        let freeze = Freeze::new(&options, &place.key(), &roots, None).unwrap();
        let draw = Draw::new(self.rehash, number, 1);
        let passes =
            Passes { roots: &roots, freeze: &freeze, stop: &stop, tally: &tally, draw, strict: self.strict };
        let classes = Classes::new(&self.classes, &self.class_sets).unwrap();
        let (mut list, _) = passes.list(&classes, &mut memory, &self.clock).unwrap();
        let steps = std::iter::from_fn(|| list.next_step().unwrap());
        let rows = steps.filter_map(|step| if let Step::File(found) = step { Some(found) } else { None });
        let rows = rows.collect();
        freeze.remove();
        rows
    }

    /// Lists, then scans, as a push does. Returns what was fed, too.
    fn passes(
        &mut self,
        passes: &Passes<'_>,
        mut memory: Memory,
        pages: &mut Pages,
    ) -> (Result<Scanned, Stopped>, Vec<ChunkId>) {
        let Passes { stop, tally, .. } = *passes;
        let purse = self.purse.clone();
        let watch = Watch {
            read: AtomicU64::new(0),
            on_read: std::mem::replace(&mut self.on_read, Box::new(|_| ())),
        };
        let classes = Classes::new(&self.classes, &self.class_sets).unwrap();
        let (give, free) = crossbeam_channel::unbounded();
        let (full, batches) = crossbeam_channel::unbounded();
        for _ in 0..3 {
            give.send(Batch::with_len(BATCH_LEN + MAX_CHUNK + READ_LEN)).unwrap();
        }
        let listed = passes.list(&classes, &mut memory, &self.clock);
        std::mem::replace(&mut self.between, Box::new(|| ()))();
        let missing = missing(&mut memory, &self.server);
        std::thread::scope(|scope| {
            let server = &*self.server;
            let fed = scope.spawn(move || receive(&batches, &give, server));
            let scanned = listed.and_then(|(mut list, affordable)| {
                let algorithm = Algorithm::FastCdc { min: MIN_CHUNK, avg: 256, max: MAX_CHUNK };
                let params = Params::new(algorithm).unwrap();
                let mut scan = Scan {
                    reader: Reader {
                        feeder: Feeder::new(stop, free, full, BATCH_LEN)?,
                        chunker: Chunker::new(params, domain().gear_table()),
                        domain: domain(),
                        tally,
                        progress: &watch,
                        scratch: Vec::new(),
                        guest: Guest::default(),
                    },
                    pages,
                    stop,
                    past: Past {
                        memory,
                        purse: purse.unwrap_or(affordable),
                        missing,
                        frozen_at: self.clock.now(),
                    },
                    opener: Opener::new(passes.roots, passes.freeze),
                    strict: self.strict,
                    classes: &classes,
                    draw: passes.draw,
                    links: Links::new(domain()),
                    domain: domain(),
                    clock: &self.clock,
                    scanned: Scanned::default(),
                };
                while let Some(step) = list.next_step().unwrap() {
                    scan.step(step)?;
                }
                scan.finish()
            });
            (scanned, fed.join().unwrap())
        })
    }
}

/// Parts that both passes share.
struct Passes<'a> {
    roots: &'a [Root],
    freeze: &'a Freeze,
    stop: &'a Stop,
    tally: &'a Tally,
    draw: Draw,
    strict: Strict,
}

impl Passes<'_> {
    fn list(
        &self,
        classes: &Classes,
        memory: &mut Memory,
        clock: &At,
    ) -> Result<(list::Reader, Purse), Stopped> {
        let mut lister = Lister {
            freeze: self.freeze,
            classes,
            memory,
            made: Listing::new(list::Writer::new(std::array::from_fn(|_| tempfile::tempfile().unwrap()))),
            stop: self.stop,
            progress: &Silent,
            tally: self.tally,
            clock,
            strict: self.strict,
            data_folders: &[],
            roots: self.roots,
        };
        walk(self.roots, &of_patterns(&[]), Mounts::Enter, &mut lister)?;
        lister.finish()?;
        let Lister { memory, made: Listing { list, doubts, .. }, .. } = lister;
        self.stop.pass(memory.rewind())?;
        Ok((list.finish().unwrap(), doubts.purse()))
    }
}

/// The saved state at `place`, and the number of pushes.
fn recall(place: Option<&Place>, alike: Alike) -> Result<(Memory, u64), Failure> {
    let Some(place) = place else { return Ok((Memory::default(), 0)) };
    let journal = place.journal();
    let last = place.of(&REPOSITORY);
    let likeness = last
        .as_ref()
        .map_or_else(Likeness::default, |last| Likeness::new(alike, last.devices(), &place.devices()));
    let number = last.as_ref().map_or(0, |last| last.number() + 1);
    let last = last.map(|last| Known::open(last, domain())).transpose()?;
    let journal = journal.and_then(|journal| Known::open(journal, domain()).ok());
    Ok((Memory::new(last, journal, likeness), number))
}

/// The remembered chunks that the server does not have.
fn missing(memory: &mut Memory, server: &Server) -> HashSet<ChunkId> {
    let server = server.lock().unwrap();
    let mut missing = HashSet::new();
    for known in [&mut memory.last, &mut memory.journal].into_iter().flatten() {
        // Damage further on is found by the scan.
        while let Ok(Some(ids)) = known.next_chunks() {
            missing.extend(ids.into_iter().filter(|id| !server.contains_key(id)));
        }
        known.rewind().unwrap();
    }
    missing
}

/// Takes in what is fed, until nobody feeds any more, and says what that was. Each chunk must be
/// what its id says.
fn receive(batches: &Receiver<Batch>, give: &Sender<Batch>, server: &Server) -> Vec<ChunkId> {
    let mut fed = Vec::new();
    for batch in batches {
        for (id, plain) in batch.chunks() {
            assert_eq!(domain().id_of(BlobKind::Chunk, plain), id, "other bytes than those that were hashed");
            server.lock().unwrap().insert(id, plain.to_vec());
            fed.push(id);
        }
        // The scan may be over.
        let _ = give.send(batch.cleared());
    }
    fed
}
