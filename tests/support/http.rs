//! A client that sends any bytes, right or wrong: HTTP/1.1 by hand, one request per connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use format_spec::key::DomainKey;
use format_spec::wire::{ErrorBody, Held, OpenSession, SessionOpened, Status, encode_ids, parse_held};
use format_spec::{ChunkId, SessionId};
use serde::de::DeserializeOwned;

use crate::server::Server;
use crate::wait;

/// An answer of a server.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Its body as a document.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("status {}: {error}: {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }

    /// Status and stable code of a refusal.
    ///
    /// # Panics
    /// If it is no refusal of ours.
    #[track_caller]
    pub fn refusal(&self) -> (u16, String) {
        (self.status, self.json::<ErrorBody>().code)
    }
}

/// The length of its body that a request declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// The truth.
    True,
    /// This many bytes, and no end before they came.
    Claimed(u64),
    /// This many bytes, and then the connection is closed, however many came.
    BrokenOff(u64),
    /// No length: the body is sent in pieces.
    Chunked,
}

/// A request as it will be sent.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Method.
    pub method: &'a str,
    /// Path with its query.
    pub path: &'a str,
    /// The whole value of `Authorization`, if there is one.
    pub authorization: Option<&'a str>,
    /// Body.
    pub body: &'a [u8],
    /// Its length, as claimed.
    pub length: Length,
}

/// Speaks HTTP to a server, with its token.
#[derive(Debug, Clone)]
pub struct Wire {
    host: String,
    authorization: String,
}

impl Wire {
    /// Speaks to `server` with its own token.
    pub fn to(server: &Server) -> Self {
        Self { host: server.host().to_owned(), authorization: format!("Bearer {}", server.token()) }
    }

    /// Opens a connection.
    ///
    /// # Panics
    /// If the server does not take it.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.host).expect("the server takes connections");
        stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout is no trouble");
        stream.set_write_timeout(Some(wait::PATIENCE)).expect("a timeout is no trouble");
        stream
    }

    /// Sends raw bytes, says that no more come, and returns all that comes back.
    ///
    /// # Panics
    /// If the server neither answers nor closes the connection in time.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        self.exchange(bytes, After::HangUp)
    }

    fn exchange(&self, bytes: &[u8], after: After) -> Vec<u8> {
        let mut stream = self.connect();
        // A server may answer and close before it has read everything; what it said still counts.
        let _ = stream.write_all(bytes);
        if after == After::HangUp {
            let _ = stream.shutdown(Shutdown::Write);
        }
        read_all(&mut stream)
    }

    /// Sends a request; `None` if the server closes the connection without an answer.
    pub fn try_send(&self, request: &Request<'_>) -> Option<Answer> {
        let Request { method, path, authorization, body, length } = request;
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.host);
        if let Some(authorization) = authorization {
            bytes += &format!("Authorization: {authorization}\r\n");
        }
        let mut bytes = match length {
            Length::True => bytes + &format!("Content-Length: {}\r\n\r\n", body.len()),
            Length::Claimed(len) | Length::BrokenOff(len) => {
                bytes + &format!("Content-Length: {len}\r\n\r\n")
            }
            Length::Chunked => bytes + "Transfer-Encoding: chunked\r\n\r\n",
        }
        .into_bytes();
        if *length == Length::Chunked {
            bytes.extend(chunked(body));
        } else {
            bytes.extend_from_slice(body);
        }
        let after = if matches!(length, Length::BrokenOff(_)) { After::HangUp } else { After::Listen };
        parse(&self.exchange(&bytes, after))
    }

    /// Sends a request with the token.
    ///
    /// # Panics
    /// If there is no answer.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let authorization = Some(self.authorization.as_str());
        let request = Request { method, path, authorization, body, length: Length::True };
        self.try_send(&request).unwrap_or_else(|| panic!("no answer to {method} {path}"))
    }

    /// The value of `Authorization` that the server takes.
    pub fn authorization(&self) -> &str {
        &self.authorization
    }

    /// Status of the server.
    ///
    /// # Panics
    /// If it does not say.
    #[track_caller]
    pub fn status(&self) -> Status {
        self.send("GET", "/v1/status", b"").json()
    }

    /// Opens a session for a node, and returns it with the key of its domain.
    ///
    /// # Panics
    /// If the server refuses.
    #[track_caller]
    pub fn session(&self, cluster: &str, node: &str) -> (SessionId, DomainKey) {
        let opened = self.open_session(cluster, node, None);
        (opened.session, DomainKey::parse(&opened.domain_key).expect("64 hex digits"))
    }

    /// Opens a session for a node that adopts another, if it can.
    ///
    /// # Panics
    /// If the server refuses.
    #[track_caller]
    pub fn open_session(&self, cluster: &str, node: &str, adopt: Option<SessionId>) -> SessionOpened {
        let name = "a plain name";
        let asked = OpenSession {
            cluster: cluster.parse().expect(name),
            node: node.parse().expect(name),
            base: None,
            adopt,
            expected_bytes: None,
        };
        let body = serde_json::to_vec(&asked).expect("plain JSON");
        self.send("POST", "/v1/sessions", &body).json()
    }

    /// Answer of the server about `ids` to a session; `query` is empty or `?coming=wait`.
    ///
    /// # Panics
    /// If the server refuses.
    #[track_caller]
    pub fn have(&self, session: SessionId, ids: &[ChunkId], query: &str) -> Vec<Held> {
        let path = format!("/v1/sessions/{session}/have{query}");
        let answer = self.send("POST", &path, &encode_ids(ids));
        parse_held(&answer.body, ids.len()).unwrap_or_else(|error| {
            panic!("status {}: {error}: {}", answer.status, String::from_utf8_lossy(&answer.body))
        })
    }
}

/// Action after everything was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Listen,
    HangUp,
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 64);
    for piece in body.chunks(64 << 10) {
        bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("the server neither answered nor hung up: {error}"),
    }
}

/// The last answer in `bytes`, after any `100 Continue`.
fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, rest) = bytes.split_at(end);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    let body = rest.get(4..).unwrap_or_default();
    if status == 100 {
        return parse(body);
    }
    let is_chunked = head.lines().any(|line| line == "transfer-encoding: chunked");
    let body = if is_chunked { unchunked(body)? } else { body.to_vec() };
    Some(Answer { status, body })
}

/// The body that came in pieces; `None` if it was cut short.
fn unchunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let len = usize::from_str_radix(std::str::from_utf8(bytes.get(..end)?).ok()?, 16).ok()?;
        if len == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(end + 2..end + 2 + len)?);
        bytes = bytes.get(end + len + 4..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood_whole_in_pieces_and_after_a_continue() {
        let whole = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno";
        let pieces = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        let later = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";

        let found = |bytes: &[u8]| parse(bytes).map(|answer| (answer.status, answer.body));

        assert_eq!(found(whole), Some((404, b"no".to_vec())));
        assert_eq!(found(pieces), Some((200, b"abcd".to_vec())));
        assert_eq!(found(later), Some((204, Vec::new())));
        assert_eq!(found(&pieces[..60]), None);
    }
}
