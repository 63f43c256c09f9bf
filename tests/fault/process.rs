//! A server within the test: over stores that outlive it, with whatever stands before them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use format_spec::descriptor::Descriptor;
use format_spec::key::{BlobKind, DomainKey, MasterKey};
use format_spec::manifest::Manifest;
use format_spec::wire::{ChunkerSpec, Held, OpenSession, encode_end};
use format_spec::{ChunkId, NodeName, RepositoryId, SessionId, SnapshotId};
use node_client::api::{Api, Coming, Retry, Segments};
use node_client::error::ClientError;
use node_client::push::Smaller;
use repo_server::clock::{Clock, SystemClock};
use repo_server::http::{self, Token};
use repo_server::index::{Index, MemoryIndex};
use repo_server::server::Server;
use repo_server::settings::{Choices, Upkeep};
use repo_server::site::{ObjectName, Site, StoreSite};
use repo_server::site_lock::SiteLock;
use repo_server::space::Space;
use repo_server::store::Parts;
use tests::bodies::{chunk_frame, frame, manifest_of, page_of};
use tests::seed::Random;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

pub(crate) const TOKEN: &str = "token";
const MASTER: [u8; 32] = [42; 32];

/// Stores that outlive a process: an index and a site in memory.
pub(crate) struct Stores {
    pub(crate) index: Arc<dyn Index>,
    pub(crate) site: Arc<dyn Site>,
}

impl Stores {
    pub(crate) fn new() -> Self {
        let site = StoreSite::memory();
        let name = ObjectName::new("keyring/repository").expect("a plain name");
        {
            let mut put = site.put_new(&name, Self::descriptor().encode().into());
            let put = put.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(put, Poll::Ready(Ok(_))), "memory answers at once");
        }
        Self { index: Arc::new(MemoryIndex::new()), site: Arc::new(site) }
    }

    /// The master key of every repository here.
    pub(crate) fn master() -> MasterKey {
        MasterKey::from_bytes(MASTER)
    }

    pub(crate) fn descriptor() -> Descriptor {
        let chunker = ChunkerSpec::FastCdc { min_len: 1 << 16, avg_len: 1 << 18, max_len: 1 << 20 };
        Descriptor::new(RepositoryId::from_bytes([7; 16]), &Self::master(), chunker)
    }

    /// The repository in these stores, with this clock.
    pub(crate) fn server_at(&self, clock: Arc<dyn Clock>) -> Arc<Server> {
        let (index, site) = (Arc::clone(&self.index), Arc::clone(&self.site));
        let parts = Parts { clock, ..parts(index, site, Space::unlimited(), Arc::default()) };
        Server::open(parts, Choices::default(), Self::master(), Self::descriptor())
            .expect("memory can be read")
    }

    /// Starts a server over these stores, with nothing in between.
    pub(crate) fn serve(&self) -> Process {
        Process::start(Arc::clone(&self.index), Arc::clone(&self.site))
    }
}

/// A running server. Dropping it ends it at once, and keeps what its stores have.
pub(crate) struct Process {
    pub(crate) api: Api,
    /// How often it was told of a fatal disk error.
    halts: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
    _stop: oneshot::Sender<()>,
}

impl Process {
    pub(crate) fn start(index: Arc<dyn Index>, site: Arc<dyn Site>) -> Self {
        Self::with_space(index, site, Space::unlimited()).0
    }

    /// The same with other room; returns its repository as well.
    pub(crate) fn with_space(
        index: Arc<dyn Index>,
        site: Arc<dyn Site>,
        space: Space,
    ) -> (Self, Arc<Server>) {
        let halts = Arc::new(AtomicUsize::new(0));
        let parts = parts(index, site, space, Arc::clone(&halts));
        let server = Server::open(parts, Choices::default(), Stores::master(), Stores::descriptor());
        let server = server.expect("memory can be read");
        (Self::serving(&server, TOKEN, halts), server)
    }

    /// Serves a repository that was opened elsewhere.
    pub(crate) fn serving(server: &Arc<Server>, token: &str, halts: Arc<AtomicUsize>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads can be had");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it is bound"));
        let (stop, stopped) = oneshot::channel();
        let (routes, done) = (http::routes(Arc::clone(server), Token::new(token)), server.done());
        runtime.spawn(async move {
            let stopped = async move {
                let _ = stopped.await;
            };
            http::serve(
                listener,
                http::Transport::Plain,
                routes,
                http::Limits::within_descriptors(1024),
                done,
                stopped,
            )
            .await;
        });
        Self { api: api(&address, token), halts, runtime: Some(runtime), _stop: stop }
    }

    /// Stands for a server that runs elsewhere, and is not ended with this.
    pub(crate) fn elsewhere(address: &str, token: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (stop, _) = oneshot::channel();
        let runtime = Some(runtime.expect("threads can be had"));
        Self { api: api(address, token), halts: Arc::default(), runtime, _stop: stop }
    }

    pub(crate) fn halts(&self) -> usize {
        self.halts.load(Ordering::SeqCst)
    }

    pub(crate) fn wait<T>(&self, answer: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("it is there until the end").block_on(answer)
    }
}

fn api(address: &str, token: &str) -> Api {
    let retry = Retry::once();
    Api::new(address, token, retry).expect("a plain address")
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Writes that are on their way end before another process opens the stores.
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }
}

/// Parts of a repository for these tests; `heard` counts its fatal disk errors.
fn parts(index: Arc<dyn Index>, site: Arc<dyn Site>, space: Space, heard: Arc<AtomicUsize>) -> Parts {
    Parts {
        index,
        site,
        lock: SiteLock::none(),
        clock: Arc::new(SystemClock::new()),
        scratch: std::env::temp_dir(),
        random,
        on_halt: Arc::new(move |_| {
            heard.fetch_add(1, Ordering::SeqCst);
        }),
        space,
        upkeep: Upkeep::default(),
        engine: "memory",
        cores: 2,
        memory_bytes: 64 << 20,
    }
}

/// Numbers that never come twice in this process; nothing here is secret.
fn random(bytes: &mut [u8]) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut random = Random::new(NEXT.fetch_add(1, Ordering::SeqCst));
    bytes.copy_from_slice(&random.bytes(bytes.len()));
}

/// Data of one push of the node `n`: files of one chunk each, on one page.
pub(crate) struct Push {
    pub(crate) contents: Vec<Vec<u8>>,
}

impl Push {
    pub(crate) fn of(contents: &[&str]) -> Self {
        Self { contents: contents.iter().map(|content| content.repeat(50).into_bytes()).collect() }
    }

    /// Opens a session for it.
    pub(crate) fn open(process: &Process) -> Result<(SessionId, DomainKey), ClientError> {
        let (cluster, node) = ("c".parse().expect("a name"), node());
        let opened = process.wait(process.api.open_session(&OpenSession {
            cluster,
            node,
            base: None,
            adopt: None,
            expected_bytes: None,
        }))?;
        Ok((opened.session, DomainKey::parse(&opened.domain_key).expect("64 hex digits")))
    }

    /// Runs it in a session: asks, sends what is missing, commits.
    pub(crate) fn run(
        &self,
        process: &Process,
        session: SessionId,
        domain: &DomainKey,
    ) -> Result<SnapshotId, ClientError> {
        let chunks: Vec<_> = self.contents.iter().map(|content| chunk_frame(domain, content)).collect();
        let ids: Vec<ChunkId> = chunks.iter().map(|(id, _)| *id).collect();
        let held = process.wait(process.api.have(session, &ids, Coming::Send))?;
        let missing = chunks.into_iter().zip(held).filter(|(_, held)| *held != Held::Here);
        let missing: Vec<Vec<u8>> = missing.map(|((_, frame), _)| frame).collect();
        send(process, session, &missing)?;
        let page = self.page(domain);
        let page_id = domain.id_of(BlobKind::Page, &page);
        if process.wait(process.api.have(session, &[page_id], Coming::Send))? == [Held::Missing] {
            send(process, session, &[frame(BlobKind::Page, page_id, &page)])?;
        }
        self.commit(process, session, domain)
    }

    /// Goes on in a session after the server came back: commits, and sends again only if it must.
    pub(crate) fn resume(
        &self,
        process: &Process,
        session: SessionId,
        domain: &DomainKey,
    ) -> Result<SnapshotId, ClientError> {
        match self.commit(process, session, domain) {
            Err(error) if error.code() == Some("missing_chunks") => self.run(process, session, domain),
            done => done,
        }
    }

    fn commit(
        &self,
        process: &Process,
        session: SessionId,
        domain: &DomainKey,
    ) -> Result<SnapshotId, ClientError> {
        let page = self.page(domain);
        let len = u32::try_from(page.len()).expect("a small page");
        let manifest = manifest_of("n", &[(domain.id_of(BlobKind::Page, &page), len)]);
        let manifest = Manifest::decode(&manifest).expect("just encoded");
        Ok(process.wait(process.api.commit(session, &manifest, Smaller::Suspect))?.snapshot.id)
    }

    /// The page that holds its chunks as one file.
    pub(crate) fn page(&self, domain: &DomainKey) -> Vec<u8> {
        let chunk = |content: &Vec<u8>| {
            let len = u32::try_from(content.len()).expect("a short content");
            (domain.id_of(BlobKind::Chunk, content), len)
        };
        page_of(domain, &self.contents.iter().map(chunk).collect::<Vec<_>>())
    }
}

pub(crate) fn node() -> NodeName {
    "n".parse().expect("a name")
}

pub(crate) fn send(process: &Process, session: SessionId, frames: &[Vec<u8>]) -> Result<(), ClientError> {
    if frames.is_empty() {
        return Ok(());
    }
    let mut body = Segments::default();
    for frame in frames {
        body.push(frame.clone().into());
    }
    let count = u32::try_from(frames.len()).expect("a few frames");
    body.push(encode_end(count).to_vec().into());
    process.wait(process.api.send_blobs(session, body)).map(drop)
}
