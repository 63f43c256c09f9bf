//! Conditions that hold in every state.

use crate::collector;
use crate::explore::Gc;
use crate::state::{BLOBS, Fate, Listed, PACKS, Phase, Set, Site, State, Step, Wrong};

/// Every snapshot that has a row has rows for its page and all chunks, and an object for each of them.
pub(crate) fn listed_snapshots_are_whole(gc: &Gc, state: &State) -> bool {
    let stored = |blob: usize| {
        state.rows[blob].is_some_and(|row| {
            let pack = &state.packs[row.pack];
            pack.object == Site::Present && pack.contents.has(blob)
        })
    };
    state.snapshots.iter().filter(|snapshot| snapshot.listed != Listed::No).all(|snapshot| {
        let objects = snapshot.manifest == Site::Present && snapshot.object == Site::Present;
        objects && gc.needs(snapshot.page).iter().all(stored)
    })
}

/// Every row names a pack that is there, and every page's row has rows for its chunks.
pub(crate) fn rows_name_what_is_there(gc: &Gc, state: &State) -> bool {
    (0..BLOBS).all(|blob| {
        let Some(row) = state.rows[blob] else { return true };
        let pack = &state.packs[row.pack];
        let stored = pack.object == Site::Present && pack.contents.has(blob);
        stored && gc.refers(blob).iter().all(|chunk| state.rows[chunk].is_some())
    })
}

/// A site is enough: beside every snapshot's object, committed or not, lie its manifest and its packs.
pub(crate) fn the_site_is_enough(gc: &Gc, state: &State) -> bool {
    let packs = state.packs.iter().filter(|pack| pack.object == Site::Present);
    let stored = packs.fold(Set::EMPTY, |all, pack| all.plus(pack.contents));
    state.snapshots.iter().filter(|snapshot| snapshot.object == Site::Present).all(|snapshot| {
        snapshot.manifest == Site::Present && gc.needs(snapshot.page).minus(stored).is_empty()
    })
}

/// Later requests of an open session find every chunk that it was told is stored.
pub(crate) fn promises_are_kept(_: &Gc, state: &State) -> bool {
    state.wrong != Wrong::PromiseBroken
}

/// A session that is over commits nothing.
pub(crate) fn the_fence_holds(_: &Gc, state: &State) -> bool {
    state.wrong != Wrong::LateCommit
}

/// Counts are what one gets by counting.
pub(crate) fn counts_are_true(gc: &Gc, state: &State) -> bool {
    let number = |found: usize| u8::try_from(found).expect("there are few");
    let blobs = (0..BLOBS).all(|blob| {
        let Some(row) = state.rows[blob] else { return true };
        let pages =
            (0..BLOBS).filter(|page| state.rows[*page].is_some() && gc.refers(*page).has(blob)).count();
        let listed = state.snapshots.iter().filter(|snapshot| snapshot.listed != Listed::No);
        let snapshots = listed.filter(|snapshot| snapshot.page == blob).count();
        row.count == number(pages + snapshots) && (row.count == 0) == (row.idle > 0)
    });
    let in_pack = |pack| state.rows.iter().flatten().filter(|row| row.pack == pack).count();
    blobs && (0..PACKS).all(|pack| state.packs[pack].live == number(in_pack(pack)))
}

/// No garbage stays forever: once all is quiet, one run leaves no idle row, no queue item, no doomed name and
/// no unreferenced object.
pub(crate) fn nothing_is_lost_for_ever(gc: &Gc, state: &State) -> bool {
    if !is_quiet(state) {
        return true;
    }
    let mut state = *state;
    collector::run(gc, &mut state);
    let rows = state.rows.iter().flatten().all(|row| row.count > 0);
    let items = state.queue.iter().all(|epochs| epochs.is_empty());
    let packs = state.packs.iter().all(|pack| {
        pack.fate == Fate::Spared && pack.fresh == 0 && (pack.object == Site::Present) == (pack.live > 0)
    });
    let snapshots = state.snapshots.iter().all(|snapshot| {
        let expected = if snapshot.listed == Listed::No { Site::Absent } else { Site::Present };
        let fates = snapshot.fate == Fate::Spared && snapshot.manifest_fate == Fate::Spared;
        fates && snapshot.object == expected && snapshot.manifest == expected
    });
    rows && items && packs && snapshots
}

/// True if no session is open, and no object is in flight.
fn is_quiet(state: &State) -> bool {
    state.pushers.iter().all(|pusher| pusher.step == Step::Idle && pusher.session.is_none())
        && state.waiting().is_empty()
        && state.repack.is_none()
        && state.phase == Phase::Resting
}
