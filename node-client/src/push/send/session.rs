//! The session of one attempt: opened with what is remembered, renewed in time, ended in any case.

use std::time::Duration;

use chunker::{Algorithm, Chunker, Params};
use format_spec::key::DomainKey;
use format_spec::wire::{BaseState, ChunkerSpec, OpenSession, SessionOpened};
use format_spec::{RepositoryId, SessionId};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::api::{Api, wait, wait_for};
use crate::cancel::Cancel;
use crate::error::ClientError;
use crate::push::options::{Origin, PushOptions, Remember};
use crate::push::stop::Failure;
use crate::state::{Header, Known, Likeness, Memory, Place};

/// Longest time to end a session when the result does not matter.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// An open session with what it needs.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) repository: RepositoryId,
    pub(crate) domain: DomainKey,
    pub(crate) chunker: Chunker,
    /// State of earlier pushes to this repository.
    pub(crate) memory: Memory,
    /// Presence of all chunks of the last push on the server.
    pub(crate) base: BaseState,
    /// How many pushes are remembered.
    pub(crate) number: u64,
    renewal: AbortHandle,
}

impl Session {
    /// Opens a session: with the last push as its base, and in place of one that was cut short, if they
    /// are remembered.
    pub(crate) fn open(
        api: &Api,
        runtime: &Handle,
        options: &PushOptions,
        place: Option<&Place>,
        remember: Remember,
        interrupt: &Cancel,
    ) -> Result<Self, Failure> {
        let opener = Opener { api, runtime, options, interrupt };
        let remembered = place.filter(|_| remember == Remember::LastPush);
        let journal = remembered.and_then(Place::journal);
        let mut last = remembered.and_then(Place::newest);
        let mut opened = opener.open(last.as_ref(), journal.as_ref())?;
        if last.as_ref().is_some_and(|last| last.repository() != opened.repository) {
            // The newest state is of another repository; there may be an older one of this.
            last = remembered.and_then(|place| place.of(&opened.repository));
            if last.is_some() {
                end(api, runtime, opened.session);
                opened = opener.open(last.as_ref(), None)?;
            }
        }
        let session = opened.session;
        let likeness = match (&last, place) {
            (Some(last), Some(place)) => {
                Likeness::new(options.recognition.alike, last.devices(), &place.devices())
            }
            _ => Likeness::default(),
        };
        let remembered = (last, journal, likeness);
        Self::start(api, runtime, opened, remembered).inspect_err(|_| end(api, runtime, session))
    }

    fn start(
        api: &Api,
        runtime: &Handle,
        opened: SessionOpened,
        (last, journal, likeness): (Option<Header>, Option<Header>, Likeness),
    ) -> Result<Self, Failure> {
        let unusable =
            |why: &str| ClientError::Protocol { server: api.server().to_owned(), why: why.to_owned() };
        let domain =
            DomainKey::parse(&opened.domain_key).ok_or_else(|| unusable("the domain key is not valid"))?;
        let params = params(&opened.chunker).map_err(|why| unusable(&why))?;
        let of_repository = |header: &Header| header.repository() == opened.repository;
        let last = last.filter(of_repository);
        let number = last.as_ref().map_or(0, |last| last.number() + 1);
        let last = last.map(|last| Known::open(last, domain.clone())).transpose()?;
        // A journal that is damaged from its start is no help, and no harm.
        let journal = journal.filter(of_repository);
        let journal = journal.and_then(|journal| Known::open(journal, domain.clone()).ok());
        let memory = Memory::new(last, journal, likeness);
        let chunker = Chunker::new(params, domain.gear_table());
        let ttl = Duration::from_millis(opened.ttl_ms);
        let renewal = runtime.spawn(renew(api.clone(), opened.session, ttl)).abort_handle();
        let SessionOpened { session: id, repository, base, .. } = opened;
        Ok(Self { id, repository, domain, chunker, memory, base, number, renewal })
    }
}

impl Session {
    /// A number that no other session has.
    pub(crate) fn seed(&self) -> u64 {
        let (_, random) = self.id.as_bytes().split_last_chunk().expect("an id has 16 bytes");
        u64::from_le_bytes(*random)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// Ends a session whose snapshot will not be: best effort, the server ends it in time anyway.
pub(crate) fn end(api: &Api, runtime: &Handle, session: SessionId) {
    let ended = wait(runtime, async { tokio::time::timeout(ABORT_TIMEOUT, api.abort(session)).await });
    if !matches!(ended, Ok(Ok(()))) {
        tracing::debug!(%session, "the session could not be ended: the server will expire it");
    }
}

struct Opener<'a> {
    api: &'a Api,
    runtime: &'a Handle,
    options: &'a PushOptions,
    interrupt: &'a Cancel,
}

impl Opener<'_> {
    fn open(&self, last: Option<&Header>, journal: Option<&Header>) -> Result<SessionOpened, ClientError> {
        let Origin { cluster, node, .. } = &self.options.origin;
        let request = OpenSession {
            cluster: cluster.clone(),
            node: node.clone(),
            base: last.map(Header::manifest),
            adopt: journal.map(Header::session),
            expected_bytes: None,
        };
        wait_for(self.runtime, self.interrupt, self.api.open_session(&request))
    }
}

async fn renew(api: Api, session: SessionId, mut ttl: Duration) {
    loop {
        tokio::time::sleep((ttl / 3).max(Duration::from_millis(100))).await;
        match api.renew(session).await {
            Ok(renewed) => ttl = Duration::from_millis(renewed.ttl_ms),
            // The next request of the push meets the same error and deals with it.
            Err(error) => tracing::debug!(%error, %session, "the session could not be renewed"),
        }
    }
}

fn params(spec: &ChunkerSpec) -> Result<Params, String> {
    let size = |len: u32| usize::try_from(len).map_err(|error| error.to_string());
    let algorithm = match *spec {
        ChunkerSpec::FastCdc { min_len, avg_len, max_len } => {
            Algorithm::FastCdc { min: size(min_len)?, avg: size(avg_len)?, max: size(max_len)? }
        }
        ChunkerSpec::Fixed { len } => Algorithm::Fixed { size: size(len)? },
    };
    Params::new(algorithm).map_err(|error| error.to_string())
}
