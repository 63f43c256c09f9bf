//! The pushers, and what the server does for them.

use crate::explore::Gc;
use crate::rules::{Grain, Part, Rule};
use crate::state::{Fate, Kind, Listed, Phase, SNAPSHOTS, Set, Site, Snapshot, State, Step, Travel, Wrong};

/// A step of a pusher, or of the server on its behalf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Push {
    /// Is granted a session.
    Open,
    /// Is granted a session in place of the other pusher's.
    Adopt,
    /// The session's time is over, or it is ended. Its client is not told.
    Expire,
    /// Sends any request to a session that is over, is refused, and starts again.
    Refused,
    /// Asks whether a blob is here; answered at once if nothing has to be written.
    Ask(usize),
    /// The batch that revives what was asked about.
    Revive,
    /// Sends a chunk.
    Send(usize),
    /// Sends its page.
    SendPage,
    /// Its commit looks for the page.
    FindPage,
    /// Its commit dooms the names of its manifest and its snapshot.
    Intend,
    /// Its commit puts the manifest.
    PutManifest,
    /// Its commit puts the snapshot.
    PutSnapshot,
    /// The batch that commits.
    Commit,
    /// A commit of its session was cut off before that batch: the server makes it from the snapshot with this number.
    Finish(usize),
}

/// Possible steps of this pusher in a state.
pub(crate) fn steps(gc: &Gc, pusher: usize) -> Vec<Push> {
    let page = gc.scope.pushes[pusher];
    let chunks = gc.refers(page).iter();
    let mut steps = vec![Push::Open, Push::Expire, Push::Refused, Push::Revive, Push::SendPage];
    steps.extend([Push::FindPage, Push::Intend, Push::PutManifest, Push::PutSnapshot, Push::Commit]);
    steps.extend(chunks.flat_map(|chunk| [Push::Ask(chunk), Push::Send(chunk)]));
    steps.extend((0..SNAPSHOTS).map(Push::Finish));
    if gc.scope.adoption == Part::Takes {
        steps.push(Push::Adopt);
    }
    if gc.scope.asks_pages == Part::Takes {
        steps.push(Push::Ask(page));
    }
    steps
}

/// The state after this step, if it can be taken and changes anything.
pub(crate) fn step(gc: &Gc, state: &State, who: usize, push: Push) -> Option<State> {
    let next = *state;
    match push {
        Push::Open => open(gc, next, who),
        Push::Adopt => adopt(gc, next, who),
        Push::Expire => expire(next, who),
        Push::Refused => refused(next, who),
        Push::Ask(blob) => ask(gc, next, who, blob),
        Push::Revive => revive(gc, next, who),
        Push::Send(chunk) => send(gc, next, who, chunk),
        Push::SendPage => send_page(gc, next, who),
        Push::FindPage => find_page(gc, next, who),
        Push::Intend if gc.scope.grain == Grain::Fine => intend(gc, next, who),
        Push::Intend => {
            let intended = intend(gc, next, who)?;
            put_manifest(intended, who).and_then(|state| put_snapshot(state, who)).or(Some(intended))
        }
        Push::PutManifest => put_manifest(next, who),
        Push::PutSnapshot => put_snapshot(next, who),
        Push::Commit => commit(gc, next, who),
        Push::Finish(number) => finish(gc, next, who, number),
    }
}

fn open(gc: &Gc, mut state: State, who: usize) -> Option<State> {
    let start = grant(gc, &state);
    let pusher = &mut state.pushers[who];
    // A session that a killed client left behind is the other pusher's part in this model.
    if pusher.step != Step::Idle || pusher.session.is_some() || pusher.opens == 0 {
        return None;
    }
    pusher.opens -= 1;
    pusher.session = Some(start);
    pusher.step = Step::Pushing;
    Some(state)
}

fn grant(gc: &Gc, state: &State) -> u8 {
    // A start that no idle row is younger than is one that nobody heeds.
    if gc.has(Rule::GrantRecordsStart) { state.epoch } else { u8::MAX }
}

/// The old session's row goes in the batch that grants the new one. Its client is not told, and goes on.
fn adopt(gc: &Gc, mut state: State, who: usize) -> Option<State> {
    let new = grant(gc, &state);
    let other = 1 - who;
    let old = state.pushers[other].session?;
    let told = state.pushers[other].told;
    let pusher = &mut state.pushers[who];
    if pusher.step != Step::Idle || pusher.session.is_some() || pusher.opens == 0 {
        return None;
    }
    pusher.opens -= 1;
    pusher.session = Some(if gc.has(Rule::AdoptHandsStartOn) { old.min(new) } else { new });
    pusher.told = told;
    pusher.step = Step::Pushing;
    state.pushers[other].session = None;
    gc.saw("a session is adopted");
    Some(state)
}

fn expire(mut state: State, who: usize) -> Option<State> {
    state.pushers[who].session.take()?;
    Some(state)
}

fn refused(mut state: State, who: usize) -> Option<State> {
    let pusher = &mut state.pushers[who];
    if pusher.step != Step::Pushing || pusher.session.is_some() {
        return None;
    }
    start_again(&mut state, who);
    Some(state)
}

/// It forgets what it was told: that was another session.
fn start_again(state: &mut State, who: usize) {
    let pusher = &mut state.pushers[who];
    pusher.step = Step::Idle;
    pusher.told = Set::EMPTY;
}

/// The session's start, if it is open and its client is free to send a request.
fn pushing(state: &State, who: usize) -> Option<u8> {
    let pusher = &state.pushers[who];
    if pusher.step == Step::Pushing { pusher.session } else { None }
}

/// Waiting blobs are here, and so is what has a row. What is missing the client sends, told or not.
fn ask(gc: &Gc, mut state: State, who: usize, blob: usize) -> Option<State> {
    let start = pushing(&state, who)?;
    if state.pushers[who].told.has(blob) {
        return None;
    }
    let waits =
        state.waiting().has(blob) && !(Kind::of(blob) == Kind::Page && gc.has(Rule::WaitingPageIsMissing));
    if state.rows[blob].is_none() && !waits {
        return None;
    }
    if state.is_idle_before(blob, start) && gc.has(Rule::HaveRevives) {
        state.pushers[who].step = Step::Reviving(blob);
    } else {
        state.pushers[who].told.add(blob);
    }
    Some(state)
}

fn revive(gc: &Gc, mut state: State, who: usize) -> Option<State> {
    let Step::Reviving(blob) = state.pushers[who].step else { return None };
    state.pushers[who].step = Step::Pushing;
    if state.rows[blob].is_some() || !gc.has(Rule::RevivalChecksRow) {
        state.pushers[who].told.add(blob);
    } else {
        gc.saw("what was asked about is dropped before it is revived");
    }
    state.revive(blob);
    Some(state)
}

fn send(gc: &Gc, mut state: State, who: usize, chunk: usize) -> Option<State> {
    let start = pushing(&state, who)?;
    if state.pushers[who].told.has(chunk) {
        return None;
    }
    take_in(gc, &mut state, start, chunk);
    state.pushers[who].told.add(chunk);
    Some(state)
}

/// Appends a blob to the open pack, if it is not known.
fn take_in(gc: &Gc, state: &mut State, start: u8, blob: usize) {
    if state.rows[blob].is_some() {
        if state.is_idle_before(blob, start) && gc.has(Rule::SendRevives) {
            state.revive(blob);
        }
    } else if !state.waiting().has(blob) {
        state.open[Kind::of(blob).at()].add(blob);
    }
}

/// A page is taken in once all of its chunks have rows, whether its client asked about them or not.
fn send_page(gc: &Gc, mut state: State, who: usize) -> Option<State> {
    let start = pushing(&state, who)?;
    let page = gc.scope.pushes[who];
    let told = state.pushers[who].told;
    if told.has(page) {
        return None;
    }
    for chunk in gc.refers(page).iter() {
        if state.rows[chunk].is_none() {
            return missing(state, who, chunk);
        }
        if state.is_idle_before(chunk, start) && gc.has(Rule::PageRevives) {
            state.revive(chunk);
        }
        if !told.has(chunk) {
            gc.saw("a page is sent whose chunk nobody asked about");
        }
    }
    take_in(gc, &mut state, start, page);
    state.pushers[who].told.add(page);
    Some(state)
}

/// A request needs the row of `blob`, and there is none. While it waits, so does the request. Else the
/// answer is "missing", which is news to no one but a client that was told otherwise.
fn missing(mut state: State, who: usize, blob: usize) -> Option<State> {
    let pusher = state.pushers[who];
    if state.waiting().has(blob) || !pusher.told.has(blob) || pusher.session.is_none() {
        return None;
    }
    state.wrong = Wrong::PromiseBroken;
    Some(state)
}

fn find_page(gc: &Gc, mut state: State, who: usize) -> Option<State> {
    pushing(&state, who)?;
    let page = gc.scope.pushes[who];
    if state.rows[page].is_none() {
        return missing(state, who, page);
    }
    state.pushers[who].step = Step::PageFound;
    Some(state)
}

fn intend(gc: &Gc, mut state: State, who: usize) -> Option<State> {
    if state.pushers[who].step != Step::PageFound {
        return None;
    }
    let page = gc.scope.pushes[who];
    if state.rows[page].is_none() && gc.has(Rule::IntentChecksPages) {
        gc.saw("an intent is refused, as its page is gone");
        return refuse(state, who, page);
    }
    let number = gc.number_for(state.free_snapshot())?;
    let fate = if gc.has(Rule::Intents) { Fate::Doomed } else { Fate::Spared };
    let (travel, by) = (Travel::Flying, Some((who, state.pushers[who].opens)));
    state.snapshots[number] = Snapshot { page, fate, manifest_fate: fate, by, travel, ..Snapshot::default() };
    state.pushers[who].step = Step::Intended(number);
    Some(state)
}

fn put_manifest(mut state: State, who: usize) -> Option<State> {
    let Step::Intended(number) = state.pushers[who].step else { return None };
    state.snapshots[number].manifest = Site::Present;
    state.pushers[who].step = Step::ManifestPut(number);
    Some(state)
}

fn put_snapshot(mut state: State, who: usize) -> Option<State> {
    let Step::ManifestPut(number) = state.pushers[who].step else { return None };
    state.snapshots[number].object = Site::Present;
    state.pushers[who].step = Step::SnapshotPut(number);
    Some(state)
}

fn commit(gc: &Gc, mut state: State, who: usize) -> Option<State> {
    let Step::SnapshotPut(number) = state.pushers[who].step else { return None };
    let page = state.snapshots[number].page;
    let is_open = state.pushers[who].session.is_some();
    state.snapshots[number].travel = Travel::Done;
    if !is_open && gc.has(Rule::CommitChecksSession) {
        gc.saw("a commit is refused, as its session is over");
        start_again(&mut state, who);
        return Some(state);
    }
    if state.rows[page].is_none() && gc.has(Rule::CommitChecksPages) {
        gc.saw("a commit is refused, as its page is gone");
        return refuse(state, who, page);
    }
    if !is_open {
        state.wrong = Wrong::LateCommit;
    }
    list(&mut state, who, number);
    start_again(&mut state, who);
    gc.saw("a snapshot is committed");
    Some(state)
}

/// The batch that commits: the page is counted, the session is over.
fn list(state: &mut State, who: usize, number: usize) {
    let snapshot = &mut state.snapshots[number];
    (snapshot.listed, snapshot.fate, snapshot.manifest_fate) = (Listed::Yes, Fate::Spared, Fate::Spared);
    state.count(state.snapshots[number].page);
    state.pushers[who].session = None;
}

/// The same batch, made when the collector does not run, of what nobody works on and an open session has doomed. The
/// client hears of it when it asks again.
fn finish(gc: &Gc, mut state: State, who: usize, number: usize) -> Option<State> {
    let snapshot = state.snapshots[number];
    let is_doomed = snapshot.fate == Fate::Doomed && snapshot.travel == Travel::Done;
    let is_stored = snapshot.object == Site::Present && snapshot.manifest == Site::Present;
    let is_open = snapshot.by.is_some_and(|by| by.0 == who && state.is_open(by));
    let may_finish = is_open || !gc.has(Rule::FinishChecksSession);
    let has_page = state.rows[snapshot.page].is_some() || !gc.has(Rule::CommitChecksPages);
    if state.phase != Phase::Resting || !(is_doomed && is_stored && may_finish && has_page) {
        return None;
    }
    if !is_open {
        state.wrong = Wrong::LateCommit;
    }
    list(&mut state, who, number);
    gc.saw("a commit that was cut off is finished");
    Some(state)
}

/// A commit is refused, as a page is missing. Who still has a session can send it.
fn refuse(mut state: State, who: usize, page: usize) -> Option<State> {
    state.pushers[who].step = Step::Pushing;
    missing(state, who, page).or(Some(state))
}

/// Effect of a crash on the pushers: their session rows remain, and commits that they have to repeat. What
/// waited in memory was promised by a process that is no more.
pub(crate) fn crash(state: &mut State) {
    let waiting = state.waiting();
    for pusher in &mut state.pushers {
        pusher.told = pusher.told.minus(waiting);
        if pusher.step != Step::Idle {
            pusher.step = Step::Pushing;
        }
    }
    for snapshot in &mut state.snapshots {
        snapshot.travel = Travel::Done;
    }
}
