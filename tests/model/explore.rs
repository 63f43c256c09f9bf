//! The protocol as a model for the checker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use stateright::{Model, Property};

use crate::client::{self, Push};
use crate::collector::{self, Collect};
use crate::judge;
use crate::rules::{Rule, Rules, Scope, Start};
use crate::state::{
    BLOBS, CHUNKS, Kind, Listed, PACKS, PUSHERS, Pack, Phase, Pusher, Row, SNAPSHOTS, Set, Site, Snapshot,
    State, Wrong,
};
use crate::store::{self, Store};

/// Names of the properties.
pub(crate) const WHOLE: &str = "a listed snapshot is whole";
pub(crate) const NAMED: &str = "a row names what is there";
pub(crate) const SITE: &str = "the site alone is enough";
pub(crate) const PROMISED: &str = "what was promised is there";
pub(crate) const COUNTED: &str = "counts are true";
pub(crate) const REGAINED: &str = "nothing is lost for ever";
pub(crate) const FENCED: &str = "a session that is over commits nothing";

/// Actor and step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Push(usize, Push),
    Store(Store),
    Collect(Collect),
    /// The server's process ends, and another one starts.
    Crash,
}

/// The protocol, with some rules and within some bounds.
#[derive(Clone)]
pub(crate) struct Gc {
    pub(crate) rules: Rules,
    pub(crate) scope: Scope,
    seen: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Gc {
    /// The protocol with these rules, within these bounds.
    pub(crate) fn new(rules: Rules, scope: Scope) -> Self {
        Self { rules, scope, seen: Arc::default() }
    }

    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.rules.has(rule)
    }

    /// The chunks that a blob refers to: none, unless it is a page.
    pub(crate) fn refers(&self, blob: usize) -> Set {
        blob.checked_sub(CHUNKS).map_or(Set::EMPTY, |page| self.scope.refers[page])
    }

    /// A page and its chunks.
    pub(crate) fn needs(&self, page: usize) -> Set {
        self.refers(page).plus(Set::of([page]))
    }

    /// Takes down that something happened that the model must be able to reach.
    pub(crate) fn saw(&self, what: &'static str) {
        *self.seen.lock().expect("nobody panics with it").entry(what).or_default() += 1;
    }

    /// Events and how often they happened.
    pub(crate) fn seen(&self) -> BTreeMap<&'static str, u64> {
        self.seen.lock().expect("nobody panics with it").clone()
    }

    /// A free number. That there is none would be a bound that nobody chose.
    pub(crate) fn number_for(&self, free: Option<usize>) -> Option<usize> {
        assert!(free.is_some(), "the model has too few numbers for packs or snapshots");
        free
    }

    fn crash(&self, state: &State) -> Option<State> {
        let mut state = *state;
        state.crashes = state.crashes.checked_sub(1)?;
        // Waiting blobs are known as long as their packs.
        client::crash(&mut state);
        store::crash(&mut state);
        collector::crash(&mut state);
        Some(state)
    }

    /// The repository that a run starts with.
    pub(crate) fn start(&self, start: Start) -> State {
        let pushers: [Pusher; PUSHERS] = self.scope.opens.map(|opens| Pusher { opens, ..Pusher::default() });
        let mut state = State {
            epoch: 1,
            rows: [None; BLOBS],
            queue: [Set::EMPTY; BLOBS],
            packs: [Pack::default(); PACKS],
            snapshots: [Snapshot::default(); SNAPSHOTS],
            open: [Set::EMPTY; 2],
            publishing: [None; 2],
            phase: Phase::Resting,
            found: None,
            repack: None,
            pushers,
            runs: self.scope.runs,
            repacks: self.scope.repacks,
            crashes: self.scope.crashes,
            wrong: Wrong::Nothing,
        };
        self.store(&mut state, start);
        state
    }

    /// Stores the data of `start`, each kind in a pack of its own.
    fn store(&self, state: &mut State, start: Start) {
        let page = CHUNKS;
        let packs = match start {
            Start::Empty => vec![],
            Start::Chunks => vec![Set::of([0, 1])],
            Start::Snapshot | Start::Idle => vec![self.refers(page), Set::of([page])],
        };
        for (number, contents) in packs.into_iter().enumerate() {
            let pack = Pack { contents, live: contents.len(), object: Site::Present, ..Pack::default() };
            state.packs[number] = Pack { fresh: state.epoch, ..pack };
            for blob in contents.iter() {
                state.rows[blob] = Some(Row { pack: number, count: 0, idle: state.epoch });
            }
        }
        if state.rows[page].is_some() {
            self.refers(page).iter().for_each(|chunk| state.count(chunk));
        }
        if start == Start::Snapshot {
            state.count(page);
            let (manifest, object, listed) = (Site::Present, Site::Present, Listed::Yes);
            state.snapshots[0] = Snapshot { page, manifest, object, listed, ..Snapshot::default() };
        } else {
            // Sessions of now are younger than what was left.
            state.epoch += 1;
        }
    }
}

impl Model for Gc {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.scope.start.iter().map(|start| self.start(*start).normal()).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong != Wrong::Nothing {
            return;
        }
        for who in 0..PUSHERS {
            actions.extend(client::steps(self, who).into_iter().map(|push| Action::Push(who, push)));
        }
        for kind in Kind::BOTH {
            actions.extend([Store::Seal(kind), Store::Put(kind), Store::Index(kind)].map(Action::Store));
        }
        if self.scope.repacks > 0 {
            actions.extend((0..PACKS).map(|from| Action::Store(Store::Copy(from))));
            actions.extend([Store::PutCopy, Store::Switch].map(Action::Store));
        }
        actions.extend(collector::steps(state).into_iter().map(Action::Collect));
        actions.push(Action::Crash);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = match action {
            Action::Push(who, push) => client::step(self, state, who, push),
            Action::Store(store) => store::step(self, state, store),
            Action::Collect(collect) => collector::step(self, state, collect),
            Action::Crash => self.crash(state),
        };
        next.map(State::normal)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(WHOLE, judge::listed_snapshots_are_whole),
            Property::always(NAMED, judge::rows_name_what_is_there),
            Property::always(SITE, judge::the_site_is_enough),
            Property::always(PROMISED, judge::promises_are_kept),
            Property::always(COUNTED, judge::counts_are_true),
            Property::always(REGAINED, judge::nothing_is_lost_for_ever),
            Property::always(FENCED, judge::the_fence_holds),
        ]
    }
}
