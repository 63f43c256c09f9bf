//! Rows of chunks and pages: their counts, their packs, and the queue that leads to those in no use.

use format_spec::ChunkId;
use format_spec::key::BlobKind;
use format_spec::wire::AuditState;

use super::{Audit, Gravity, HEADINGS, Joined};
use crate::catalog::ledger::Ledger;
use crate::catalog::lost_pages;
use crate::error::ServerError;
use crate::index::Table;
use crate::rows::{ChunkRow, IdleKey, PackNumber};

/// Rows that are repaired in one batch: pushes wait that long.
const MENDED_AT_ONCE: usize = 1000;

/// Repair of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cure {
    /// No repair is known here.
    None,
    /// This count.
    Count(u64),
    /// An item in the queue.
    Queue,
    /// The same number is owed to a page that is lost.
    Owe(u64),
}

/// A row, or an id without one, that is not as it should be.
struct Suspect {
    id: ChunkId,
    row: Option<ChunkRow>,
    problem: String,
    cure: Cure,
    gravity: Gravity,
}

impl Suspect {
    fn new(id: ChunkId, row: Option<ChunkRow>, problem: String, cure: Cure) -> Self {
        Self { id, row, problem, cure, gravity: Gravity::Difference }
    }

    /// Lets the ledger make it right, if it is known how.
    fn heal(&self, ledger: &mut Ledger<'_>) -> Result<bool, ServerError> {
        match (self.cure, self.row) {
            (Cure::Count(references), Some(_)) => ledger.set_references(self.id, references)?,
            (Cure::Queue, Some(_)) => ledger.queue(self.id)?,
            (Cure::Owe(count), None) => ledger.owe(self.id, count)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Audit<'_> {
    /// Checks a group of rows, and repairs them if asked to.
    pub(super) fn rows(&mut self, group: &[Joined<HEADINGS>]) -> Result<(), ServerError> {
        let mut suspects: Vec<Suspect> = Vec::new();
        for joined in group {
            match joined.row {
                Some(row) => self.row(joined, &row, &mut suspects),
                None => suspects.extend(without_row(joined)),
            }
        }
        self.lost(group, &mut suspects)?;
        self.leaked(group, &mut suspects)?;
        self.step();
        if suspects.is_empty() {
            return Ok(());
        }
        let touched = self.watching.touched(suspects.iter().map(|suspect| &suspect.id))?;
        self.exempted += touched.iter().map(|touched| u64::from(*touched)).sum::<u64>();
        let mut at = 0;
        suspects.retain(|_| {
            at += 1;
            touched.get(at - 1) == Some(&false)
        });
        for some in suspects.chunks(MENDED_AT_ONCE) {
            let states = if self.is_repair() { self.mend(some)? } else { vec![AuditState::Open; some.len()] };
            for (suspect, state) in some.iter().zip(states) {
                self.find(suspect.id, &suspect.problem, suspect.gravity, state);
            }
        }
        Ok(())
    }

    fn row(&mut self, joined: &Joined<HEADINGS>, row: &ChunkRow, suspects: &mut Vec<Suspect>) {
        self.report.rows += 1;
        let mut suspect = |problem: String, cure| {
            suspects.push(Suspect::new(joined.id, Some(*row), problem, cure));
        };
        let [by_pages, by_manifests, in_place] = joined.counts;
        let (expected, foreign, by) = match row.kind {
            BlobKind::Chunk => (by_pages, by_manifests, "pages refer to it"),
            BlobKind::Page => (by_manifests, by_pages, "manifests name it"),
        };
        if foreign > 0 {
            suspect("is referenced as another kind".to_owned(), Cure::None);
        }
        if row.references > expected && !self.is_everything_read {
            self.report.unexplained += 1;
        } else if row.references != expected {
            let problem = format!("its count is {}, but {expected} {by}", row.references);
            suspect(problem, Cure::Count(expected));
        }
        match self.packs.binary_search_by_key(&row.pack, |pack| pack.number) {
            Ok(at) => {
                let pack = self.packs.get_mut(at).expect("it was found there");
                pack.counted.add(row);
                if row.pack.0 < self.before.next_pack {
                    self.rows_before += 1;
                }
                if row.kind == BlobKind::Page && pack.is_read && in_place == 0 {
                    let problem = format!("is not at its place in pack number {}", row.pack.0);
                    suspect(problem, Cure::None);
                }
            }
            Err(_) => {
                let problem = format!("is in pack number {}, which has no row", row.pack.0);
                suspect(problem, Cure::None);
            }
        }
    }

    /// Rows in no use that the collector would never look at.
    fn leaked(&self, group: &[Joined<HEADINGS>], suspects: &mut Vec<Suspect>) -> Result<(), ServerError> {
        let is_idle = |joined: &Joined<HEADINGS>| joined.row.filter(ChunkRow::is_idle);
        let idle: Vec<(ChunkId, ChunkRow)> =
            group.iter().filter_map(|joined| is_idle(joined).map(|row| (joined.id, row))).collect();
        let keys: Vec<Vec<u8>> = idle.iter().flat_map(|(id, row)| items_of(*id, row)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let items = self.store.parts.index.multi_get(Table::Idle, &keys)?;
        for ((id, row), items) in idle.into_iter().zip(items.chunks(2)) {
            let is_known = suspects.iter().any(|suspect| suspect.id == id);
            if items.iter().all(Option::is_none) && !is_known {
                let problem = "is unreferenced, but not in the queue of the collector".to_owned();
                // Unread data may need it: then it is not offered to the collector.
                let cure = if self.is_everything_read { Cure::Queue } else { Cure::None };
                suspects.push(Suspect::new(id, Some(row), problem, cure));
            }
        }
        Ok(())
    }

    /// Pages that manifests name and no pack has. What they are owed is known, unless the index says otherwise.
    fn lost(&self, group: &[Joined<HEADINGS>], suspects: &mut Vec<Suspect>) -> Result<(), ServerError> {
        let by_manifests = |joined: &Joined<HEADINGS>| match (joined.row, joined.counts) {
            (None, [0, by_manifests, _]) if by_manifests > 0 => Some((joined.id, by_manifests)),
            _ => None,
        };
        let lost: Vec<(ChunkId, u64)> = group.iter().filter_map(by_manifests).collect();
        let owed = lost_pages::counts(&self.store, lost.iter().map(|(id, _)| id))?;
        for ((id, named), owed) in lost.into_iter().zip(owed) {
            let problem = format!("{named} manifests name it, but it is lost until it is pushed again");
            let cure = if named == owed { Cure::None } else { Cure::Owe(named) };
            let gravity = if named == owed { Gravity::Known } else { Gravity::Difference };
            suspects.push(Suspect { id, row: None, problem, cure, gravity });
        }
        Ok(())
    }

    /// Repairs rows in one batch. Returns the outcome of each.
    fn mend(&self, suspects: &[Suspect]) -> Result<Vec<AuditState>, ServerError> {
        let ids: Vec<ChunkId> = suspects.iter().map(|suspect| suspect.id).collect();
        self.store.mend(|ledger| {
            let rows = ledger.rows(&ids)?;
            let touched = self.watching.touched(&ids)?;
            let mut states = Vec::new();
            for ((suspect, row), touched) in suspects.iter().zip(rows).zip(touched) {
                let is_as_seen = !touched && row == suspect.row;
                let is_cured = is_as_seen && suspect.heal(ledger)?;
                states.push(if is_cured { AuditState::Mended } else { AuditState::Open });
            }
            Ok(states)
        })
    }
}

/// A chunk that pages refer to and that has no row.
fn without_row(joined: &Joined<HEADINGS>) -> Option<Suspect> {
    let [by_pages, ..] = joined.counts;
    let problem = format!("{by_pages} pages refer to it, but it has no row");
    (by_pages > 0).then(|| Suspect::new(joined.id, None, problem, Cure::None))
}

/// The items of the queue, one of which must exist for an unreferenced row.
fn items_of(id: ChunkId, row: &ChunkRow) -> [Vec<u8>; 2] {
    let (kind, since, number) = (row.kind, row.idle_since, PackNumber(row.pack.0));
    [IdleKey::Row { kind, since, id }.encode(), IdleKey::Pack { kind, since, number }.encode()]
}
