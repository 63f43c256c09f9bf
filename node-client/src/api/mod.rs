//! The only client of the server: one method per request, retried while that can help.
//!
//! Every request is idempotent by design (blobs by id, a commit by its session), so each may be sent
//! again when no answer came. Methods are async; threads that compute call them through
//! [`tokio::runtime::Handle::block_on`].

mod body;
mod connection;
mod operation;
mod retry;
mod tls;
mod upkeep;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use format_spec::manifest::Manifest;
use format_spec::wire::{self, Frame, FrameHeader, FrameReader, Held};
use format_spec::{ChunkId, ErrorClass, NodeName, SessionId, SnapshotId};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, Uri, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use body::Segments;
pub use operation::Step;
pub use retry::Retry;

use self::connection::Connector;
use self::retry::TELL_AFTER;
use self::tls::Tls;
use crate::credentials::Credentials;
use crate::error::ClientError;

/// Longest answer that is read into memory when it is not frames.
const MAX_ANSWER_LEN: usize = format_spec::manifest::MAX_MANIFEST_LEN;

/// Permission for a push to be much smaller than the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Smaller {
    /// Then its snapshot is suspect.
    #[default]
    Suspect,
    /// The smaller size is accepted.
    Meant,
}

/// A connection pool to one server. Clones share it.
#[derive(Clone)]
pub struct Api {
    http: Client<Connector, Segments>,
    server: String,
    authorization: Option<header::HeaderValue>,
    retry: Retry,
    /// True once the server has answered.
    has_answered: Arc<AtomicBool>,
}

/// Handling of chunks that another session is sending at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coming {
    /// It leaves them to the other, and asks again later: they are [`Held::Coming`]. In return it promises
    /// to send what is [`Held::Missing`], for 30 seconds from each time it asks.
    Wait,
    /// It sends them as well: they are [`Held::Missing`] like all that is not there.
    Send,
}

/// A blob that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Its id.
    pub id: ChunkId,
    /// Bytes of its plaintext at most.
    pub max_len: u32,
}

impl Asked {
    fn fits(&self, head: &FrameHeader) -> bool {
        head.info.id == self.id && head.info.plain_len <= self.max_len
    }
}

/// One request, ready to be sent more than once.
struct Call {
    method: Method,
    path: String,
    content_type: &'static str,
    body: Segments,
}

impl Call {
    fn get(path: String) -> Self {
        Self { method: Method::GET, path, content_type: "", body: Segments::default() }
    }

    fn post(path: String, content_type: &'static str, body: Segments) -> Self {
        Self { method: Method::POST, path, content_type, body }
    }

    fn json(path: String, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("wire documents are plain JSON");
        Self::post(path, "application/json", Segments::from(Bytes::from(body)))
    }
}

const OCTETS: &str = "application/octet-stream";

/// The two ways to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// Unencrypted: to this machine only, because a token must not cross a network so.
    Http,
    Https,
}

/// The scheme of a server's address.
///
/// # Errors
/// [`ClientError::Usage`] if it is no address, or would send a token unencrypted to another machine.
fn scheme_of(server: &str) -> Result<Scheme, ClientError> {
    let uri = server.parse::<Uri>().ok();
    let uri = uri.filter(|uri| uri.authority().is_some() && uri.path() == "/" && uri.query().is_none());
    let scheme = uri.as_ref().and_then(Uri::scheme_str);
    match (scheme, &uri) {
        (Some("https"), _) => Ok(Scheme::Https),
        (Some("http"), Some(uri)) if is_this_machine(uri) => Ok(Scheme::Http),
        (Some("http"), _) => Err(ClientError::Usage(format!(
            "`{server}` is another machine, and without TLS everybody on the network could read the token: use https://, or on this machine http://127.0.0.1:PORT"
        ))),
        _ => {
            let hint = "expected https://HOST:PORT, or http://127.0.0.1:5515 on this machine";
            Err(ClientError::Usage(format!("`{server}` is not a server address: {hint}")))
        }
    }
}

fn is_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

/// The header with a token, which is shown nowhere.
fn bearer(token: &str) -> Result<header::HeaderValue, ClientError> {
    let mut value = header::HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| ClientError::Usage("the token contains invalid characters".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Api {
    /// A client of `server` with a token. Nothing is sent yet.
    ///
    /// # Errors
    /// The errors of [`with`](Self::with).
    pub fn new(server: &str, token: &str, retry: Retry) -> Result<Self, ClientError> {
        Self::with(server, &Credentials::token(token), retry)
    }

    /// A client of `server`: `https://HOST:PORT`, or `http://HOST:PORT` with a loopback address. Reads the files of the
    /// credentials if the server is reached by TLS. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Usage`] if the address or a credential cannot be used, [`ClientError::Disk`] if a file cannot be
    /// read.
    pub fn with(server: &str, credentials: &Credentials, retry: Retry) -> Result<Self, ClientError> {
        let server = server.trim_end_matches('/').to_owned();
        let tls = match scheme_of(&server)? {
            Scheme::Http => None,
            Scheme::Https => Some(Tls::new(credentials)?),
        };
        let authorization = credentials.token.as_deref().map(bearer).transpose()?;
        let http = Client::builder(TokioExecutor::new()).build(Connector::new(tls));
        Ok(Self { http, server, authorization, retry, has_answered: Arc::default() })
    }

    /// The address as it was given.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`ClientError`]; as for all methods here, [`ClientError::Unreachable`] comes after bounded
    /// retries and [`ClientError::Refused`] carries the server's words.
    pub async fn open_session(
        &self,
        request: &wire::OpenSession,
    ) -> Result<wire::SessionOpened, ClientError> {
        self.json(Call::json("/v1/sessions".to_owned(), request)).await
    }

    /// Keeps a session open.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn renew(&self, session: SessionId) -> Result<wire::SessionRenewed, ClientError> {
        self.json(Call::post(format!("/v1/sessions/{session}/renew"), OCTETS, Segments::default())).await
    }

    /// Tells for each id whether the server has it, or will have it of another session. Those it has stay
    /// for the session.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn have(
        &self,
        session: SessionId,
        ids: &[ChunkId],
        coming: Coming,
    ) -> Result<Vec<Held>, ClientError> {
        let query = match coming {
            Coming::Wait => "?coming=wait",
            Coming::Send => "",
        };
        let body = Segments::from(Bytes::from(wire::encode_ids(ids)));
        let path = format!("/v1/sessions/{session}/have{query}");
        let answer = self.bytes(Call::post(path, OCTETS, body)).await?;
        wire::parse_held(&answer, ids.len()).map_err(|error| self.protocol(&error))
    }

    /// Sends a body of frames, which ends with its end frame.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn send_blobs(
        &self,
        session: SessionId,
        frames: Segments,
    ) -> Result<wire::BlobsStored, ClientError> {
        self.json(Call::post(format!("/v1/sessions/{session}/blobs"), OCTETS, frames)).await
    }

    /// Commits the session's manifest. The snapshot is durable when this returns.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session); code `missing_chunks` means that the server lost
    /// unsealed chunks in a restart and they must be sent again.
    pub async fn commit(
        &self,
        session: SessionId,
        manifest: &Manifest,
        smaller: Smaller,
    ) -> Result<wire::Committed, ClientError> {
        let body = Segments::from(Bytes::from(manifest.encode()));
        let query = if smaller == Smaller::Meant { "?accept_smaller=true" } else { "" };
        let path = format!("/v1/sessions/{session}/commit{query}");
        self.json(Call::post(path, "application/cbor", body)).await
    }

    /// Ends a session without a snapshot.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn abort(&self, session: SessionId) -> Result<(), ClientError> {
        let path = format!("/v1/sessions/{session}");
        let call = Call { method: Method::DELETE, ..Call::get(path) };
        self.bytes(call).await.map(|_| ())
    }

    /// The sessions that are open, the oldest first.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn sessions(&self) -> Result<Vec<wire::OpenSessionInfo>, ClientError> {
        let open: wire::OpenSessions = self.json(Call::get("/v1/sessions".to_owned())).await?;
        Ok(open.sessions)
    }

    /// Snapshots of one cluster, or of all; oldest first.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn snapshots(
        &self,
        cluster: Option<&format_spec::ClusterName>,
    ) -> Result<Vec<wire::SnapshotInfo>, ClientError> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let words = [
                cluster.map(|cluster| format!("cluster={cluster}")),
                after.map(|after: String| format!("after={after}")),
            ];
            let query = words.into_iter().flatten().collect::<Vec<_>>().join("&");
            let path = if query.is_empty() { String::new() } else { format!("?{query}") };
            let list: wire::SnapshotList = self.json(Call::get(format!("/v1/snapshots{path}"))).await?;
            all.extend(list.snapshots);
            let Some(next) = list.next else { return Ok(all) };
            after = Some(next);
        }
    }

    /// One snapshot.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn snapshot(&self, id: SnapshotId) -> Result<wire::SnapshotInfo, ClientError> {
        self.json(Call::get(format!("/v1/snapshots/{id}"))).await
    }

    /// The key that checks the chunks of a snapshot.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn snapshot_key(&self, id: SnapshotId) -> Result<wire::SnapshotKey, ClientError> {
        self.json(Call::get(format!("/v1/snapshots/{id}/key"))).await
    }

    /// One node's manifest.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn manifest(&self, id: SnapshotId, node: &NodeName) -> Result<Manifest, ClientError> {
        let answer = self.bytes(Call::get(format!("/v1/snapshots/{id}/manifests/{node}"))).await?;
        Manifest::decode(&answer).map_err(|error| self.protocol(&error))
    }

    /// The blobs that are asked for, in their order, each id once. Payloads are compressed and not yet checked
    /// against their ids. Memory: what was asked for; an answer with anything else is not read further.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn read_blobs(&self, snapshot: SnapshotId, asked: &[Asked]) -> Result<Vec<Frame>, ClientError> {
        let ids: Vec<ChunkId> = asked.iter().map(|asked| asked.id).collect();
        let body = Segments::from(Bytes::from(wire::encode_ids(&ids)));
        let call = Call::post(format!("/v1/snapshots/{snapshot}/blobs"), OCTETS, body);
        self.again(|| self.read_frames_once(&call, asked)).await
    }

    /// Status of the server.
    ///
    /// # Errors
    /// The errors of [`open_session`](Self::open_session).
    pub async fn status(&self) -> Result<wire::Status, ClientError> {
        self.json(Call::get("/v1/status".to_owned())).await
    }

    async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, ClientError> {
        let answer = self.bytes(call).await?;
        serde_json::from_slice(&answer).map_err(|error| self.foreign(&error))
    }

    async fn bytes(&self, call: Call) -> Result<Bytes, ClientError> {
        self.again(|| self.bytes_once(&call)).await
    }

    /// Sends a request as often as it is worth it.
    async fn again<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        self.retry.run(|| self.has_answered.load(Ordering::Relaxed), attempt).await
    }

    /// Returns the result of `work`, which waits for an answer of the server. Tells people if that takes
    /// long.
    async fn heard<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let mut work = std::pin::pin!(work);
        if let Ok(heard) = tokio::time::timeout(TELL_AFTER, &mut work).await {
            return heard;
        }
        let Some(silence) = self.retry.silence else {
            tracing::debug!("no answer from {} yet", self.server);
            return work.await;
        };
        let (waited, left) = (TELL_AFTER.as_secs(), silence.saturating_sub(TELL_AFTER));
        tracing::warn!(
            "no answer from {} for {waited} s: waiting for {} s more",
            self.server,
            left.as_secs()
        );
        match tokio::time::timeout(left, work).await {
            Ok(heard) => heard,
            Err(_) => Err(self.unreachable(format!("the server sent nothing for {} s", silence.as_secs()))),
        }
    }

    async fn bytes_once(&self, call: &Call) -> Result<Bytes, ClientError> {
        let answer = self.send(call).await?;
        self.collect(answer).await
    }

    async fn collect(&self, answer: Response<Incoming>) -> Result<Bytes, ClientError> {
        let (mut body, mut collected) = (answer.into_body(), Vec::new());
        while let Some(piece) = self.heard(async { Ok(body.frame().await) }).await? {
            let piece = piece.map_err(|error| self.unreachable(error))?;
            collected.extend_from_slice(piece.data_ref().unwrap_or(&Bytes::new()));
            if collected.len() > MAX_ANSWER_LEN {
                return Err(self.protocol(&format_args!("it is longer than {MAX_ANSWER_LEN} bytes")));
            }
        }
        Ok(collected.into())
    }

    async fn read_frames_once(&self, call: &Call, asked: &[Asked]) -> Result<Vec<Frame>, ClientError> {
        let mut body = self.send(call).await?.into_body();
        let mut reader = FrameReader::new();
        let mut frames = Vec::new();
        while let Some(piece) = self.heard(async { Ok(body.frame().await) }).await? {
            let piece = piece.map_err(|error| self.unreachable(error))?;
            reader.push(piece.data_ref().unwrap_or(&Bytes::new()));
            loop {
                if let Some(head) = reader.head().map_err(|error| self.protocol(&error))?
                    && !asked.get(frames.len()).is_some_and(|asked| asked.fits(&head))
                {
                    return Err(self.protocol(&"blobs that were not requested"));
                }
                let Some(frame) = reader.next_frame().map_err(|error| self.protocol(&error))? else { break };
                frames.push(frame);
            }
        }
        reader.finish().map_err(|error| self.unreachable(error))?;
        if frames.len() < asked.len() {
            return Err(self.protocol(&"fewer blobs than requested"));
        }
        Ok(frames)
    }

    /// Sends the call once. An answer that is no success is an error.
    async fn send(&self, call: &Call) -> Result<Response<Incoming>, ClientError> {
        let mut request =
            Request::builder().method(&call.method).uri(format!("{}{}", self.server, call.path));
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let mut request = request
            .header(header::CONTENT_TYPE, call.content_type)
            .body(call.body.clone())
            .expect("the address was checked and paths are plain");
        let used = capture_connection(&mut request);
        let answer = async {
            tokio::select! {
                biased;
                answer = self.http.request(request) => answer.map_err(|error| self.lost(error)),
                () = connection::lost(used) => Err(self.unreachable("the connection was closed before the request ended")),
            }
        };
        let answer = self.heard(answer).await?;
        self.has_answered.store(true, Ordering::Relaxed);
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(self.refusal(answer).await)
    }

    async fn refusal(&self, answer: Response<Incoming>) -> ClientError {
        let status = answer.status();
        match self.collect(answer).await {
            Ok(body) => match serde_json::from_slice(&body) {
                Ok(body) => self.refused(body),
                Err(_) if is_of_a_gateway(status) => self.unreachable(format!("HTTP status {status}")),
                Err(_) if is_of_a_guard(status) => self.refused(of_a_guard(status)),
                Err(_) => self.foreign(&format_args!("HTTP status {status}")),
            },
            Err(error) => error,
        }
    }

    fn refused(&self, body: wire::ErrorBody) -> ClientError {
        ClientError::Refused { server: self.server.clone(), body: Box::new(body) }
    }

    /// The error of a connection: a failure of TLS has a cause that a retry does not remove.
    fn lost(&self, error: impl std::error::Error + Send + Sync + 'static) -> ClientError {
        match tls::failure(&error) {
            Some(failure) => ClientError::Tls { server: self.server.clone(), failure },
            None => self.unreachable(error),
        }
    }

    fn unreachable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Unreachable { server: self.server.clone(), attempts: 1, source: source.into() }
    }

    fn foreign(&self, why: &dyn std::fmt::Display) -> ClientError {
        ClientError::Foreign { server: self.server.clone(), why: why.to_string() }
    }

    fn protocol(&self, why: &dyn std::fmt::Display) -> ClientError {
        ClientError::Protocol { server: self.server.clone(), why: why.to_string() }
    }
}

/// True if a proxy answers so for an absent server.
fn is_of_a_gateway(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502..=504)
}

/// True if a proxy answers so to a client without access.
fn is_of_a_guard(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403)
}

fn of_a_guard(status: StatusCode) -> wire::ErrorBody {
    let message = format!("HTTP status {status}");
    wire::ErrorBody { code: "http".to_owned(), class: ErrorClass::Denied, message, missing: Vec::new() }
}

#[cfg(test)]
mod tests;
