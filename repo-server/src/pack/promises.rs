//! Promises: which session of a domain will send which chunk.
//!
//! Chunks that two nodes of a cluster lack at once cross the network once: the first session that asks is
//! told to send them, the others that they are coming (L5). A promise is a lease per chunk, and each promised
//! chunk that a session sends renews its other promises: a session that stops sending delays the others for
//! [`LEASE`] at most, and then loses its promises. Promises are only hints in memory: a chunk that is sent
//! twice is stored once, and after a restart the next session that asks is told to send.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use format_spec::wire::Held;
use format_spec::{ChunkId, SessionId};

/// How long a session may send nothing before another is asked to send its chunks: a body takes seconds,
/// and a node that died should not hold up the others for much longer.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// Promises of one domain at once, about 130 bytes each. Far above what the nodes of a cluster have on
/// their way; beyond it chunks are sent without a promise.
pub(super) const LIMIT: usize = 1_000_000;

struct Promise {
    session: SessionId,
    until: Duration,
}

impl Promise {
    fn holds(&self, senders: &HashMap<SessionId, Duration>, now: Duration) -> bool {
        self.until > now || senders.get(&self.session).is_some_and(|until| *until > now)
    }
}

/// The promises of one domain. Times are of the server's monotonic clock.
pub(super) struct Promises {
    of: HashMap<ChunkId, Promise>,
    /// Until when each session that has sent something lately is believed.
    senders: HashMap<SessionId, Duration>,
    /// Sessions that did not send what they had promised: they are believed no more.
    unreliable: HashSet<SessionId>,
    limit: usize,
    /// No promise runs out before this: until then there is nothing to drop.
    next_end: Duration,
}

impl Promises {
    /// No promises, and room for `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            of: HashMap::new(),
            senders: HashMap::new(),
            unreliable: HashSet::new(),
            limit,
            next_end: Duration::ZERO,
        }
    }

    /// Answers for each of `ids` that is not stored: [`Held::Coming`] if another session has promised it, and
    /// otherwise [`Held::Missing`], with a promise of the asking session from now on.
    pub(super) fn ask(&mut self, session: SessionId, ids: &[ChunkId], now: Duration) -> Vec<Held> {
        if self.of.len().saturating_add(ids.len()) > self.limit {
            self.drop_run_out(now);
        }
        ids.iter().map(|id| self.ask_one(session, *id, now)).collect()
    }

    fn ask_one(&mut self, session: SessionId, id: ChunkId, now: Duration) -> Held {
        let is_refused = self.of.len() >= self.limit || self.unreliable.contains(&session);
        let promise = Promise { session, until: now + LEASE };
        let senders = &self.senders;
        match self.of.entry(id) {
            Entry::Occupied(of) if of.get().holds(senders, now) => {
                // Repeating the question does not extend the promise: others wait.
                return if of.get().session == session { Held::Missing } else { Held::Coming };
            }
            Entry::Occupied(mut of) => {
                self.unreliable.insert(of.get().session);
                if self.unreliable.contains(&session) {
                    of.remove();
                } else {
                    of.insert(promise);
                }
            }
            Entry::Vacant(_) if is_refused => {}
            Entry::Vacant(free) => {
                free.insert(promise);
            }
        }
        Held::Missing
    }

    fn drop_run_out(&mut self, now: Duration) {
        if now < self.next_end {
            return;
        }
        self.senders.retain(|_, until| *until > now);
        let senders = &self.senders;
        self.of.retain(|_, promise| promise.holds(senders, now));
        self.next_end = self.of.values().map(|promise| promise.until).min().unwrap_or(now);
    }

    /// True if there is no promise.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The chunk is stored: its promise ends.
    pub(super) fn arrived(&mut self, id: &ChunkId) {
        self.of.remove(id);
    }

    /// `session` sends blobs with these ids. If it had promised one of them, what else it has promised waits its turn.
    pub(super) fn sends<'a>(
        &mut self,
        session: SessionId,
        ids: impl IntoIterator<Item = &'a ChunkId>,
        now: Duration,
    ) {
        let is_promised = |id: &ChunkId| self.of.get(id).is_some_and(|promise| promise.session == session);
        if ids.into_iter().any(is_promised) {
            self.senders.insert(session, now + LEASE);
        }
    }

    /// `session` is over, and its promises with it.
    pub(super) fn release(&mut self, session: SessionId) {
        self.senders.remove(&session);
        self.unreliable.remove(&session);
        self.of.retain(|_, promise| promise.session != session);
        self.of.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId::from_bytes([1; 16]);
    const B: SessionId = SessionId::from_bytes([2; 16]);
    const C: SessionId = SessionId::from_bytes([3; 16]);
    const ROOMY: usize = 100;

    fn id(n: u8) -> ChunkId {
        ChunkId::from_bytes([n; 32])
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn just_before(time: Duration) -> Duration {
        time - Duration::from_nanos(1)
    }

    /// L5: the first to ask sends, the others wait.
    #[test]
    fn a_chunk_is_promised_by_the_first_that_asks() {
        let mut promises = Promises::new(ROOMY);

        assert_eq!(promises.ask(A, &[id(1), id(2)], secs(0)), [Held::Missing; 2]);
        assert_eq!(
            promises.ask(B, &[id(2), id(3), id(1)], secs(1)),
            [Held::Coming, Held::Missing, Held::Coming]
        );
        assert_eq!(promises.ask(A, &[id(3), id(1)], secs(1)), [Held::Coming, Held::Missing]);
    }

    /// L5: if the first one stops, the next that asks takes its place.
    #[test]
    fn a_promise_that_ran_out_passes_to_the_next_that_asks() {
        let mut promises = Promises::new(ROOMY);
        promises.ask(A, &[id(1)], secs(5));
        let end = secs(5) + LEASE;

        assert_eq!(promises.ask(B, &[id(1)], just_before(end)), [Held::Coming]);
        assert_eq!(promises.ask(B, &[id(1)], end), [Held::Missing]);
        assert_eq!(promises.ask(A, &[id(1)], end), [Held::Coming], "the promise is B's now");
    }

    /// L5: on a slow line a chunk waits for many bodies before its own.
    #[test]
    fn a_session_that_sends_keeps_its_promises_and_no_others() {
        let mut promises = Promises::new(ROOMY);
        let others: Vec<ChunkId> = (10..30).map(id).collect();
        promises.ask(A, &[&[id(1)], others.as_slice()].concat(), secs(0));
        promises.ask(B, &[id(2)], secs(0));
        for (n, sent) in (1..10).zip(&others) {
            promises.sends(A, [sent], secs(20 * n));
            promises.arrived(sent);
        }

        assert_eq!(promises.ask(C, &[id(1), id(2)], secs(190)), [Held::Coming, Held::Missing]);
        assert_eq!(promises.ask(C, &[id(1)], secs(180) + LEASE), [Held::Missing], "it sends no more");
        promises.ask(B, &[id(3)], secs(300));
        promises.sends(B, [&id(3)], secs(300));
        promises.release(B);
        promises.release(A);
        assert!(promises.senders.is_empty());
    }

    /// L5: a body without anything that was promised is no sign of life.
    #[test]
    fn sending_what_nobody_waits_for_gives_no_more_time() {
        let mut promises = Promises::new(ROOMY);
        promises.ask(A, &[id(1)], secs(0));
        promises.ask(B, &[id(2)], secs(0));

        promises.sends(A, [], secs(20));
        promises.sends(A, [&id(2), &id(3)], secs(20));

        assert_eq!(promises.ask(C, &[id(1)], LEASE), [Held::Missing]);
    }

    /// L5: who did not send what it had promised holds up the others once, and not chunk after chunk.
    #[test]
    fn a_session_that_broke_a_promise_is_believed_no_more() {
        let mut promises = Promises::new(ROOMY);
        promises.ask(A, &[id(1)], secs(0));
        promises.ask(B, &[id(1)], LEASE);

        assert_eq!(promises.ask(A, &[id(2)], LEASE), [Held::Missing]);
        assert_eq!(promises.ask(B, &[id(2)], LEASE), [Held::Missing], "nobody waits for A");
        assert_eq!(promises.ask(C, &[id(2)], LEASE), [Held::Coming], "B is believed");
        promises.release(A);
        assert!(promises.unreliable.is_empty());
    }

    /// L5: who only asks, and never sends, does not hold up the others for ever.
    #[test]
    fn asking_again_gives_no_more_time() {
        let mut promises = Promises::new(ROOMY);
        promises.ask(A, &[id(1)], secs(0));

        assert_eq!(promises.ask(A, &[id(1)], secs(20)), [Held::Missing]);

        assert_eq!(promises.ask(B, &[id(1)], just_before(LEASE)), [Held::Coming]);
        assert_eq!(promises.ask(B, &[id(1)], LEASE), [Held::Missing]);
    }

    #[test]
    fn a_chunk_that_arrived_is_promised_by_nobody() {
        let mut promises = Promises::new(ROOMY);
        promises.ask(A, &[id(1), id(2)], secs(0));

        promises.arrived(&id(1));
        promises.arrived(&id(9));

        assert_eq!(promises.ask(B, &[id(1), id(2)], secs(0)), [Held::Missing, Held::Coming]);
    }

    /// L5: the end of a session ends its promises, and no others.
    #[test]
    fn a_session_that_is_over_has_promised_nothing() {
        let mut promises = Promises::new(ROOMY);
        promises.ask(A, &[id(1), id(2)], secs(0));
        promises.ask(B, &[id(3)], secs(0));

        promises.release(A);

        let told = promises.ask(C, &[id(1), id(2), id(3)], secs(0));
        assert_eq!(told, [Held::Missing, Held::Missing, Held::Coming]);
    }

    #[test]
    fn beyond_the_limit_chunks_are_sent_without_a_promise() {
        let mut promises = Promises::new(2);
        let ids = [id(1), id(2), id(3)];

        assert_eq!(promises.ask(A, &ids, secs(0)), [Held::Missing; 3]);
        let told = promises.ask(B, &ids, secs(0));

        assert_eq!(told, [Held::Coming, Held::Coming, Held::Missing]);
        assert_eq!(promises.of.len(), 2);
    }

    #[test]
    fn what_ran_out_makes_room_and_what_has_not_stays() {
        let mut promises = Promises::new(2);
        promises.ask(A, &[id(1)], secs(0));
        promises.ask(A, &[id(2)], secs(10));
        assert_eq!(promises.ask(B, &[id(3)], just_before(LEASE)), [Held::Missing]);
        assert_eq!(promises.ask(C, &[id(3)], just_before(LEASE)), [Held::Missing], "there was no room for B");

        promises.ask(B, &[id(3)], LEASE);

        assert_eq!(
            promises.ask(C, &[id(3), id(2), id(1)], LEASE),
            [Held::Coming, Held::Coming, Held::Missing]
        );
        assert_eq!(promises.ask(C, &[id(4)], secs(10) + LEASE), [Held::Missing]);
        assert_eq!(promises.ask(A, &[id(4)], secs(10) + LEASE), [Held::Coming], "the second made room");
    }
}
