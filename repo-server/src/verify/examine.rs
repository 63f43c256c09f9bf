//! One pack in memory, compared with its name, with itself, and with the rows that name it. Blocks.

use std::collections::HashSet;

use format_spec::ChunkId;
use format_spec::blob::Decompressor;
use format_spec::object::HEADER_LEN;
use format_spec::pack::{self, Directory, PackEntry, TRAILER_LEN, Trailer};
use format_spec::wire::FindingKind;

use super::findings::Problem;
use super::piecewise::Pieces;
use crate::defects::blobs::Place;
use crate::error::ServerError;
use crate::index::Table;
use crate::rows::{ChunkRow, Health, Live, PackNumber, PackRow};
use crate::store::Store;

/// A blob that a row names, and that cannot be read there.
#[derive(Debug)]
pub(super) struct BadBlob {
    pub(super) id: ChunkId,
    pub(super) place: Place,
    pub(super) problem: Problem,
}

/// Readability of a pack's directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Readable {
    #[default]
    Yes,
    /// Its header or footer is damaged: what lies where is known from rows alone.
    No,
}

/// Result of checking every byte of a pack.
#[derive(Debug, Default)]
pub(super) struct Examined {
    /// Problem of the pack beside its blobs.
    pub(super) pack: Option<Problem>,
    pub(super) directory: Readable,
    pub(super) blobs: Vec<BadBlob>,
    /// Blobs that are in quarantine, and good.
    pub(super) recovered: Vec<(ChunkId, Place)>,
    /// Blobs that were opened.
    pub(super) opened: u64,
}

impl Examined {
    pub(super) fn is_sound(&self) -> bool {
        self.pack.is_none() && self.blobs.is_empty()
    }
}

/// A blob as the directory or a row describes it, and what became of it.
type Checked = (PackEntry, Option<String>);

/// Checks name, footer and padding of a pack, each blob down to its id, and that all rows which name the
/// pack fit. `None` if the pack has no row any more: the collector was here.
///
/// Blobs that no row names are checked as well, but a row need not name them: they were dropped or moved.
pub(super) fn examine(
    store: &Store,
    number: PackNumber,
    row: &PackRow,
    pieces: &Pieces,
) -> Result<Option<Examined>, ServerError> {
    let bytes = pieces.bytes.as_ref();
    let opened = pack::open(&store.keys, store.id(), row.id, bytes);
    let (directory, error) = match opened {
        Ok(directory) => (Some(directory), None),
        Err(error) => (directory_of(store, bytes), Some(error)),
    };
    let (readable, entries) = match directory {
        Some(directory) => (Readable::Yes, directory.entries),
        None => (Readable::No, entries_of_rows(store, number)?),
    };
    let checked = check_blobs(store, row, pieces, entries)?;
    let Some(mut examined) = compare(store, number, row, &checked)? else { return Ok(None) };
    examined.directory = readable;
    if let Some(error) = error {
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let what = match pieces.hole_in(&(0..row.len)) {
            Some(hole) => hole,
            None if len == row.len => error.to_string(),
            None => format!("has {len} bytes instead of {}", row.len),
        };
        examined.pack = Some(Problem::new(FindingKind::Corrupt, row.id, what));
    }
    Ok(Some(examined))
}

/// The directory of a pack whose name is wrong, if its footer is whole.
fn directory_of(store: &Store, bytes: &[u8]) -> Option<Directory> {
    let header = bytes.first_chunk::<HEADER_LEN>()?;
    let (before, trailer) = bytes.split_last_chunk::<TRAILER_LEN>()?;
    let trailer = Trailer::decode(trailer, u64::try_from(bytes.len()).ok()?).ok()?;
    let footer = before.get(usize::try_from(trailer.footer_offset).ok()?..)?;
    pack::open_footer(&store.keys, store.id(), header, &trailer, footer).ok()
}

/// Entries of the index for a pack whose footer is lost.
fn entries_of_rows(store: &Store, number: PackNumber) -> Result<Vec<PackEntry>, ServerError> {
    let rows = store.rows_of(&HashSet::from([number]))?;
    Ok(rows.iter().map(|(id, row)| row.entry(*id, Vec::new())).collect())
}

fn check_blobs(
    store: &Store,
    row: &PackRow,
    pieces: &Pieces,
    entries: Vec<PackEntry>,
) -> Result<Vec<Checked>, ServerError> {
    let domain = store.domain(&row.domain);
    let mut decompressor =
        Decompressor::new().map_err(|_| ServerError::Bug("no memory for a decompressor"))?;
    let check = |entry: PackEntry| {
        let range = usize::try_from(entry.range().start).ok().zip(usize::try_from(entry.range().end).ok());
        let blob = range.and_then(|(start, end)| pieces.bytes.get(start..end)).unwrap_or_default();
        let checked = pack::check_blob(&domain.sealer, &domain.key, &mut decompressor, &entry, blob);
        let error = checked.err().map(|error| pieces.hole_in(&entry.range()).unwrap_or(error.to_string()));
        (entry, error)
    };
    Ok(entries.into_iter().map(check).collect())
}

/// The rows that name a pack, as far as they were looked at.
struct Named {
    /// Sums over the rows that name the pack.
    live: Live,
    /// Rows that name the pack, in the order of its blobs; `None` for a blob that no row names here.
    rows: Vec<Option<ChunkRow>>,
    /// Live blobs according to the pack's own row; `None` if it has none.
    counted: Option<Live>,
}

impl Named {
    fn look(store: &Store, number: PackNumber, checked: &[Checked]) -> Result<Self, ServerError> {
        let rows = store.chunk_rows(checked.iter().map(|(entry, _)| &entry.id))?;
        let rows: Vec<Option<ChunkRow>> =
            rows.into_iter().map(|row| row.filter(|row| row.pack == number)).collect();
        let mut live = Live::default();
        for row in rows.iter().flatten() {
            live.add(row);
        }
        Ok(Self { live, rows, counted: pack_row(store, number)?.map(|row| row.live) })
    }

    /// True if every row names the place of its blob, and no row is left over.
    fn fits(&self, checked: &[Checked]) -> bool {
        self.counted == Some(self.live) && self.displaced(checked).next().is_none()
    }

    fn displaced<'a>(&'a self, checked: &'a [Checked]) -> impl Iterator<Item = (ChunkId, ChunkRow)> + 'a {
        let named = checked.iter().zip(&self.rows).filter_map(|((entry, _), row)| Some((entry, (*row)?)));
        named.filter(|(entry, row)| !is_at(row, entry)).map(|(entry, row)| (entry.id, row))
    }
}

fn is_at(row: &ChunkRow, entry: &PackEntry) -> bool {
    row.range() == entry.range() && row.info(entry.id) == entry.info()
}

/// The row of a pack as it is now.
pub(super) fn pack_row(store: &Store, number: PackNumber) -> Result<Option<PackRow>, ServerError> {
    let Some(value) = store.parts.index.get(Table::Pack, &number.key())? else { return Ok(None) };
    let wrong = || ServerError::Row { object: format!("pack number {}", number.0) };
    PackRow::decode(&value).map(Some).ok_or_else(wrong)
}

fn compare(
    store: &Store,
    number: PackNumber,
    row: &PackRow,
    checked: &[Checked],
) -> Result<Option<Examined>, ServerError> {
    let mut named = Named::look(store, number, checked)?;
    if !named.fits(checked) {
        // The collector may have changed some of these rows in between: look again while it cannot.
        named = store.exclusively(|| Named::look(store, number, checked))?;
    }
    let Some(counted) = named.counted else { return Ok(None) };
    let mut examined = judge(row, checked, &named);
    if counted != named.live {
        examined.blobs.extend(strays(store, number, row, checked)?);
    }
    for (id, displaced) in named.displaced(checked) {
        examined.blobs.push(misplaced(row, id, &displaced));
    }
    if counted != named.live && examined.blobs.iter().all(|bad| bad.problem.kind != FindingKind::Index) {
        let Live { blobs, stored_bytes, .. } = named.live;
        let what = format!(
            "the index counts {} blobs of {} bytes in it, but has rows of {blobs} of {stored_bytes} bytes",
            counted.blobs, counted.stored_bytes
        );
        examined.pack = Some(Problem::new(FindingKind::Index, row.id, what));
    }
    Ok(Some(examined))
}

/// Verdict on each blob, with and without a row for its place.
fn judge(row: &PackRow, checked: &[Checked], named: &Named) -> Examined {
    let mut examined = Examined::default();
    for ((entry, error), at) in checked.iter().zip(&named.rows) {
        examined.opened += 1;
        let at = at.filter(|at| is_at(at, entry));
        match (error, at) {
            (None, Some(at)) if at.health == Health::Damaged => {
                examined.recovered.push((entry.id, Place::of(&at)));
            }
            (None, _) => {}
            (Some(error), Some(at)) => {
                let problem = Problem::new(FindingKind::Corrupt, entry.id, format!("{error} in {}", row.id));
                examined.blobs.push(BadBlob { id: entry.id, place: Place::of(&at), problem });
            }
            (Some(error), None) => {
                let what = format!("{}, which is unreferenced: {error}", entry.id);
                examined.pack.get_or_insert(Problem::new(FindingKind::Corrupt, row.id, what));
            }
        }
    }
    examined
}

/// Rows that name a pack which does not hold their blob. That is never right, at no moment.
fn strays(
    store: &Store,
    number: PackNumber,
    row: &PackRow,
    checked: &[Checked],
) -> Result<Vec<BadBlob>, ServerError> {
    let held: HashSet<ChunkId> = checked.iter().map(|(entry, _)| entry.id).collect();
    let rows = store.rows_of(&HashSet::from([number]))?;
    let strays = rows.iter().filter(|(id, _)| !held.contains(id));
    Ok(strays.map(|(id, stray)| misplaced(row, *id, stray)).collect())
}

fn misplaced(row: &PackRow, id: ChunkId, at: &ChunkRow) -> BadBlob {
    let what = format!("the index places it at {} of {}, but it is not there", at.offset, row.id);
    BadBlob { id, place: Place::of(at), problem: Problem::new(FindingKind::Index, id, what) }
}
