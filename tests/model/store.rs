//! Packs: on their way to the site, into the index, and from one to another.

use crate::explore::Gc;
use crate::rules::{Grain, Rule};
use crate::state::{Fate, Kind, Pack, Repack, Row, Set, Site, State, Travel};

/// A step of a pack, or of a repack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Store {
    /// The open pack is full, or a commit needs it: its name is doomed.
    Seal(Kind),
    /// Its object is put.
    Put(Kind),
    /// The batch that adds its rows.
    Index(Kind),
    /// The name for a copy of what is live in this pack is doomed.
    Copy(usize),
    /// The copy is put, and read back.
    PutCopy,
    /// The batch that moves the rows to it.
    Switch,
}

/// The state after this step, if it can be taken and changes anything.
pub(crate) fn step(gc: &Gc, state: &State, store: Store) -> Option<State> {
    let next = *state;
    match store {
        Store::Seal(kind) if gc.scope.grain == Grain::Fine => seal(gc, next, kind),
        Store::Seal(kind) => put(seal(gc, next, kind)?, kind),
        Store::Put(kind) => put(next, kind),
        Store::Index(kind) => index(gc, next, kind),
        Store::Copy(from) if gc.scope.grain == Grain::Fine => copy(gc, next, from),
        Store::Copy(from) => put_copy(copy(gc, next, from)?),
        Store::PutCopy => put_copy(next),
        Store::Switch => switch(gc, next),
    }
}

/// A pack with these contents sets off.
fn set_off(gc: &Gc, state: &mut State, contents: Set) -> Option<usize> {
    let number = gc.number_for(state.free_pack())?;
    let fate = if gc.has(Rule::Intents) { Fate::Doomed } else { Fate::Spared };
    state.packs[number] = Pack { contents, fate, travel: Travel::Flying, ..Pack::default() };
    Some(number)
}

fn seal(gc: &Gc, mut state: State, kind: Kind) -> Option<State> {
    let contents = state.open[kind.at()];
    if contents.is_empty() || state.publishing[kind.at()].is_some() {
        return None;
    }
    let number = set_off(gc, &mut state, contents)?;
    state.open[kind.at()] = Set::EMPTY;
    state.publishing[kind.at()] = Some(number);
    Some(state)
}

fn put(mut state: State, kind: Kind) -> Option<State> {
    let number = state.publishing[kind.at()]?;
    let pack = &mut state.packs[number];
    if pack.object == Site::Present {
        return None;
    }
    pack.object = Site::Present;
    Some(state)
}

/// One batch: rows for the blobs, counts for what the pages refer to, an item for the pack. What made the
/// name doomed is taken back if any of it counts.
fn index(gc: &Gc, mut state: State, kind: Kind) -> Option<State> {
    let number = state.publishing[kind.at()]?;
    if state.packs[number].object == Site::Absent {
        return None;
    }
    state.publishing[kind.at()] = None;
    state.packs[number].travel = Travel::Done;
    let contents = state.packs[number].contents;
    let lacks = |state: &State, blob| gc.refers(blob).iter().any(|chunk| state.rows[chunk].is_none());
    let without = contents.iter().any(|blob| lacks(&state, blob));
    let checks = gc.has(Rule::PageBatchChecksChunks);
    if without && checks && !gc.has(Rule::PageBatchLeavesOut) {
        return Some(state);
    }
    for blob in contents.iter() {
        if lacks(&state, blob) && checks {
            gc.saw("a page is left out, as its chunk is gone");
            continue;
        }
        state.rows[blob] = Some(Row { pack: number, count: 0, idle: state.epoch });
        state.packs[number].live += 1;
        for chunk in gc.refers(blob).iter() {
            state.count(chunk);
        }
    }
    if state.packs[number].live > 0 {
        state.packs[number].fate = Fate::Spared;
        state.packs[number].fresh = state.epoch;
    }
    Some(state)
}

/// Takes the rows of `number` down by one. Without any its object is doomed.
pub(crate) fn lower(state: &mut State, number: usize) {
    let pack = &mut state.packs[number];
    pack.live = pack.live.saturating_sub(1);
    if pack.live == 0 {
        pack.fate = Fate::Doomed;
    }
}

fn lies_in(state: &State, blob: usize, pack: usize) -> bool {
    state.rows[blob].is_some_and(|row| row.pack == pack)
}

/// Any pack with a row may be repacked here, thin or not.
fn copy(gc: &Gc, mut state: State, from: usize) -> Option<State> {
    if state.repack.is_some() || state.repacks == 0 || state.packs[from].live == 0 {
        return None;
    }
    let mut live = Set::EMPTY;
    let contents = state.packs[from].contents;
    contents.iter().filter(|blob| lies_in(&state, *blob, from)).for_each(|blob| live.add(blob));
    let to = set_off(gc, &mut state, live)?;
    state.repacks -= 1;
    state.repack = Some(Repack { from, to });
    Some(state)
}

fn put_copy(mut state: State) -> Option<State> {
    let pack = &mut state.packs[state.repack?.to];
    if pack.object == Site::Present {
        return None;
    }
    pack.object = Site::Present;
    Some(state)
}

fn switch(gc: &Gc, mut state: State) -> Option<State> {
    let Repack { from, to } = state.repack?;
    if state.packs[to].object == Site::Absent {
        return None;
    }
    state.repack = None;
    state.packs[to].travel = Travel::Done;
    for blob in state.packs[to].contents.iter() {
        if gc.has(Rule::SwitchChecksRows) && !lies_in(&state, blob, from) {
            gc.saw("a copied row is gone before the switch");
            continue;
        }
        lower(&mut state, from);
        state.packs[to].live += 1;
        let Some(row) = &mut state.rows[blob] else { continue };
        row.pack = to;
        if row.count == 0 && gc.has(Rule::SwitchQueuesIdle) {
            state.queue[blob].add(usize::from(row.idle));
        }
    }
    if state.packs[to].live > 0 {
        state.packs[to].fate = Fate::Spared;
        gc.saw("a pack is replaced by its copy");
    }
    Some(state)
}

/// Effect of a crash on packs: open ones are lost, and of those in transfer the bytes that were put remain.
pub(crate) fn crash(state: &mut State) {
    state.open = [Set::EMPTY; 2];
    state.publishing = [None; 2];
    state.repack = None;
    for pack in &mut state.packs {
        pack.travel = Travel::Done;
    }
}
