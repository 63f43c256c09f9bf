//! A relay between clients and a server, which counts what goes through it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::server::Server;

/// Passes on what clients and a server say to each other. Connections that are open when it is dropped
/// live on.
pub struct Relay {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    /// Host and port of the server.
    to: Mutex<String>,
    sent: Way,
    answered: Way,
    is_over: AtomicBool,
}

/// One of the two ways through a relay.
struct Way {
    /// Bytes that were passed on.
    passed: AtomicU64,
    /// When so many were passed on, what comes after them is swallowed.
    most: AtomicU64,
}

impl Way {
    fn open() -> Self {
        Self { passed: AtomicU64::new(0), most: AtomicU64::new(u64::MAX) }
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.passed() >= self.most.load(Ordering::Relaxed)
    }
}

impl Relay {
    /// A relay to `server`, on a free port.
    ///
    /// # Panics
    /// If there is none.
    pub fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let host = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            to: Mutex::new(server.host().to_owned()),
            sent: Way::open(),
            answered: Way::open(),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &accepting));
        Self { address: format!("http://{host}"), shared }
    }

    /// Its address: `http://HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on connections go to `server`, wherever it is now.
    pub fn point_to(&self, server: &Server) {
        server.host().clone_into(&mut self.shared.to.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Bytes that clients have sent so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.passed()
    }

    /// Bytes that clients have been answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.passed()
    }

    /// Answers clients `len` bytes more, and the rest of a read; then the server seems to say no more, on
    /// connections that stay open until it goes.
    pub fn answer_only(&self, len: u64) {
        self.shared.answered.most.store(self.answered().saturating_add(len), Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; if it cannot be woken, it ends with the process.
        let host = self.address.strip_prefix("http://").unwrap_or_default();
        let _ = TcpStream::connect(host);
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().flatten() {
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        let to = shared.to.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Where there is no server, the connection ends, as it would without a relay.
        let Ok(server) = TcpStream::connect(to) else { continue };
        let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { continue };
        let (to_server, to_client) = (Arc::clone(shared), Arc::clone(shared));
        std::thread::spawn(move || pass_on(from_client, server, &to_server.sent));
        std::thread::spawn(move || pass_on(from_server, client, &to_client.answered));
    }
}

/// Passes everything on until one side has gone, and then sends the other away.
fn pass_on(mut from: TcpStream, mut to: TcpStream, way: &Way) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let Some(piece) = buffer.get(..len) else { break };
        if way.is_full() {
            continue;
        }
        if to.write_all(piece).is_err() {
            break;
        }
        way.passed.fetch_add(u64::try_from(len).expect("a piece is short"), Ordering::Relaxed);
    }
    // A closed connection ignores this.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
