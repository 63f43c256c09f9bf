//! The collector, and who forgets snapshots.

use crate::explore::Gc;
use crate::rules::Rule;
use crate::state::{
    BLOBS, Epoch, Fate, Found, Item, Kind, Listed, PACKS, Phase, Row, SNAPSHOTS, Set, Site, State, Travel,
};
use crate::store;

/// A step of the collector, or of who forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Collect {
    /// A snapshot gets a tombstone.
    Forget(usize),
    /// A snapshot with a tombstone is purged, in one batch.
    Purge(usize),
    /// A run begins, with pages.
    Start,
    /// Finds something to do about an item of the queue. Nothing is written yet.
    Find(Item, Option<usize>),
    /// The batch about what was found.
    Apply,
    /// Enough of this kind: raises the epoch after pages, reads the list of the doomed after chunks.
    Turn,
    /// Deletes the next object of the list.
    Delete,
    /// The next object of the list cannot be deleted, or its time has not come.
    LetBe,
    /// Enough for this run.
    Stop,
}

/// Possible steps of the collector in this state.
pub(crate) fn steps(state: &State) -> Vec<Collect> {
    let mut steps: Vec<Collect> =
        (0..SNAPSHOTS).flat_map(|number| [Collect::Forget(number), Collect::Purge(number)]).collect();
    steps.extend([Collect::Start, Collect::Apply, Collect::Turn]);
    if let Phase::Deleting { .. } = state.phase {
        steps.extend([Collect::Delete, Collect::LetBe, Collect::Stop]);
    }
    if let (Phase::Dropping(kind), None) = (state.phase, state.found) {
        for item in items(state).into_iter().filter(|item| is_about(state, *item, kind)) {
            steps.push(Collect::Find(item, None));
            steps.extend(idle_rows(state, item).iter().map(|blob| Collect::Find(item, Some(blob))));
        }
    }
    steps
}

/// The state after this step, if it can be taken and changes anything.
pub(crate) fn step(gc: &Gc, state: &State, collect: Collect) -> Option<State> {
    let next = *state;
    match collect {
        Collect::Forget(number) => forget(next, number),
        Collect::Purge(number) => purge(gc, next, number),
        Collect::Start => start(next),
        Collect::Find(item, blob) => find(next, item, blob),
        Collect::Apply => apply(gc, next),
        Collect::Turn => turn(next),
        Collect::Delete => delete(gc, next),
        Collect::LetBe => let_be(gc, next),
        Collect::Stop => stop(next),
    }
}

fn forget(mut state: State, number: usize) -> Option<State> {
    let snapshot = &mut state.snapshots[number];
    if snapshot.listed != Listed::Yes {
        return None;
    }
    snapshot.listed = Listed::Tombstone;
    Some(state)
}

fn purge(gc: &Gc, mut state: State, number: usize) -> Option<State> {
    let snapshot = &mut state.snapshots[number];
    if snapshot.listed != Listed::Tombstone {
        return None;
    }
    (snapshot.listed, snapshot.fate, snapshot.manifest_fate) = (Listed::No, Fate::Doomed, Fate::Doomed);
    let page = snapshot.page;
    uncount(gc, &mut state, page);
    Some(state)
}

/// One count less. A row with none left is idle from now on, and queued.
fn uncount(gc: &Gc, state: &mut State, blob: usize) {
    let Some(row) = &mut state.rows[blob] else { return };
    row.count = row.count.saturating_sub(1);
    if row.count == 0 {
        row.idle = state.epoch;
        if gc.has(Rule::UncountQueues) {
            state.queue[blob].add(usize::from(state.epoch));
        }
    }
}

fn start(mut state: State) -> Option<State> {
    if state.phase != Phase::Resting || state.runs == 0 {
        return None;
    }
    state.runs -= 1;
    state.phase = Phase::Dropping(Kind::Page);
    Some(state)
}

/// Every item of the queue.
fn items(state: &State) -> Vec<Item> {
    let epoch = |epoch: usize| Epoch::try_from(epoch).expect("epochs are small");
    let of = |blob: usize| state.queue[blob].iter().map(move |at| Item::Blob { blob, epoch: epoch(at) });
    let fresh = (0..PACKS).filter(|pack| state.packs[*pack].fresh > 0);
    let fresh = fresh.map(|pack| Item::Fresh { pack, epoch: state.packs[pack].fresh });
    (0..BLOBS).flat_map(of).chain(fresh).collect()
}

fn is_about(state: &State, item: Item, kind: Kind) -> bool {
    match item {
        Item::Blob { blob, .. } => Kind::of(blob) == kind,
        Item::Fresh { pack, .. } => state.packs[pack].contents.iter().all(|blob| Kind::of(blob) == kind),
    }
}

/// The rows that an item is about: idle since its very epoch, and for a fresh pack still in it.
fn idle_rows(state: &State, item: Item) -> Set {
    let is_idle = |blob: usize, of: fn(&Row, Item) -> bool| {
        state.rows[blob].is_some_and(|row| row.count == 0 && row.idle == item.epoch() && of(&row, item))
    };
    let mut rows = Set::EMPTY;
    match item {
        Item::Blob { blob, .. } if is_idle(blob, |_, _| true) => rows.add(blob),
        Item::Blob { .. } => {}
        Item::Fresh { pack, .. } => {
            let lies = |row: &Row, item| matches!(item, Item::Fresh { pack, .. } if row.pack == pack);
            let contents = state.packs[pack].contents.iter();
            contents.filter(|blob| is_idle(*blob, lies)).for_each(|blob| rows.add(blob));
        }
    }
    rows
}

/// True if no session is open that may rely on a row that is idle since `epoch`.
fn is_over(state: &State, epoch: Epoch) -> bool {
    state.oldest_start().is_none_or(|start| epoch < start)
}

fn find(mut state: State, item: Item, blob: Option<usize>) -> Option<State> {
    let rows = idle_rows(&state, item);
    let epoch = item.epoch();
    state.found = Some(match blob {
        Some(blob) if rows.has(blob) && is_over(&state, epoch) => Found::Droppable { blob, epoch },
        None if rows.is_empty() => Found::Stale(item),
        _ => return None,
    });
    Some(state)
}

fn apply(gc: &Gc, mut state: State) -> Option<State> {
    match state.found.take()? {
        Found::Droppable { blob, epoch } => drop_row(gc, &mut state, blob, epoch),
        Found::Stale(item) => take_off(gc, &mut state, item),
    }
    Some(state)
}

/// The one batch that drops a row: with a page, the counts of its chunks.
fn drop_row(gc: &Gc, state: &mut State, blob: usize, epoch: Epoch) {
    let Some(row) = state.rows[blob] else { return };
    let is_counted = gc.has(Rule::DropChecksCount) && row.count > 0;
    // A row that is counted is idle since no epoch: to look at that is another rule.
    let is_young = gc.has(Rule::DropChecksIdle) && row.count == 0 && row.idle != epoch;
    let is_pinned = gc.has(Rule::DropChecksSessions) && !is_over(state, epoch);
    if is_counted || is_young || is_pinned {
        gc.saw("a row is not dropped, as it changed since it was found");
        return;
    }
    state.rows[blob] = None;
    for chunk in gc.refers(blob).iter() {
        uncount(gc, state, chunk);
    }
    store::lower(state, row.pack);
    gc.saw(if Kind::of(blob) == Kind::Page { "a page is dropped" } else { "a chunk is dropped" });
}

fn take_off(gc: &Gc, state: &mut State, item: Item) {
    if gc.has(Rule::StaleChecksRows) && !idle_rows(state, item).is_empty() {
        gc.saw("an item is not taken off, as it is about something again");
        return;
    }
    match item {
        Item::Blob { blob, epoch } => state.queue[blob].remove(usize::from(epoch)),
        Item::Fresh { pack, .. } => state.packs[pack].fresh = 0,
    }
}

fn turn(mut state: State) -> Option<State> {
    if state.found.is_some() {
        return None;
    }
    match state.phase {
        Phase::Dropping(Kind::Page) => {
            state.epoch += 1;
            state.phase = Phase::Dropping(Kind::Chunk);
        }
        Phase::Dropping(Kind::Chunk) => state.phase = list(&state),
        Phase::Resting | Phase::Deleting { .. } => return None,
    }
    Some(state)
}

/// The doomed, as they are now.
fn list(state: &State) -> Phase {
    let (mut snapshots, mut manifests, mut packs) = (Set::EMPTY, Set::EMPTY, Set::EMPTY);
    for (number, snapshot) in state.snapshots.iter().enumerate() {
        if snapshot.fate == Fate::Doomed {
            snapshots.add(number);
        }
        if snapshot.manifest_fate == Fate::Doomed {
            manifests.add(number);
        }
    }
    let doomed = state.packs.iter().enumerate().filter(|(_, pack)| pack.fate == Fate::Doomed);
    doomed.for_each(|(number, _)| packs.add(number));
    rest(snapshots, manifests, packs)
}

fn rest(snapshots: Set, manifests: Set, packs: Set) -> Phase {
    let is_done = snapshots.plus(manifests).plus(packs).is_empty();
    if is_done { Phase::Resting } else { Phase::Deleting { snapshots, manifests, packs } }
}

/// The object whose turn it is.
#[derive(Debug, Clone, Copy)]
enum Name {
    Snapshot(usize),
    Manifest(usize),
    Pack(usize),
}

/// Takes the next name off the list.
fn next_name(gc: &Gc, state: &mut State) -> Option<Name> {
    let Phase::Deleting { mut snapshots, mut manifests, mut packs } = state.phase else { return None };
    let snapshot = snapshots.first().map(Name::Snapshot);
    let manifest = manifests.first().map(Name::Manifest);
    let pack = packs.first().map(Name::Pack);
    let name = if gc.has(Rule::SnapshotsGoFirst) {
        snapshot.or(manifest).or(pack)
    } else {
        pack.or(manifest).or(snapshot)
    };
    match name? {
        Name::Snapshot(number) => snapshots.remove(number),
        Name::Manifest(number) => manifests.remove(number),
        Name::Pack(number) => packs.remove(number),
    }
    state.phase = rest(snapshots, manifests, packs);
    name
}

fn delete(gc: &Gc, mut state: State) -> Option<State> {
    let before = state;
    let name = next_name(gc, &mut state)?;
    let (object, fate, travel) = match name {
        Name::Snapshot(at) => {
            let snapshot = &mut state.snapshots[at];
            (&mut snapshot.object, &mut snapshot.fate, snapshot.travel)
        }
        Name::Manifest(at) => {
            let snapshot = &mut state.snapshots[at];
            (&mut snapshot.manifest, &mut snapshot.manifest_fate, snapshot.travel)
        }
        Name::Pack(at) => {
            let pack = &mut state.packs[at];
            (&mut pack.object, &mut pack.fate, pack.travel)
        }
    };
    if travel == Travel::Flying && gc.has(Rule::FlyingIsLetBe) {
        return let_be(gc, before);
    }
    if *fate == Fate::Spared && gc.has(Rule::DeleteChecksDoom) {
        gc.saw("a name is not deleted, as it is doomed no more");
        // It may be doomed again before its turn would come: what it needs waits for the next list.
        return let_be(gc, before);
    }
    (*object, *fate) = (Site::Absent, Fate::Spared);
    gc.saw("an object is deleted");
    Some(state)
}

/// Rows that cannot be deleted now are examined again in the next run. What a snapshot needs stays as long as
/// it does.
fn let_be(gc: &Gc, mut state: State) -> Option<State> {
    let name = next_name(gc, &mut state)?;
    let waits = gc.has(Rule::PacksWaitForSnapshots);
    if let (Name::Snapshot(_), true, Phase::Deleting { snapshots, .. }) = (name, waits, state.phase) {
        state.phase = rest(snapshots, Set::EMPTY, Set::EMPTY);
        gc.saw("packs wait, as a snapshot cannot go");
    }
    Some(state)
}

fn stop(mut state: State) -> Option<State> {
    state.phase = Phase::Resting;
    Some(state)
}

/// Effect of a crash on the collector: its writes remain.
pub(crate) fn crash(state: &mut State) {
    state.phase = Phase::Resting;
    state.found = None;
}

/// One whole run that nothing disturbs, as an implementation would do it: by the queue alone.
pub(crate) fn run(gc: &Gc, state: &mut State) {
    for kind in Kind::BOTH.into_iter().rev() {
        // Each turn drops a row or takes an item off.
        while let Some(item) = items(state).into_iter().find(|item| is_about(state, *item, kind)) {
            match idle_rows(state, item).first() {
                Some(blob) => drop_row(gc, state, blob, item.epoch()),
                None => take_off(gc, state, item),
            }
        }
        state.epoch += 1;
    }
    state.phase = list(state);
    while let Some(next) = delete(gc, *state) {
        *state = next;
    }
}
