//! The other end of a connection.

use std::net::SocketAddr;

/// The other end of a connection, as the server itself sees it.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Its address, or that of a proxy.
    pub(super) address: SocketAddr,
}
