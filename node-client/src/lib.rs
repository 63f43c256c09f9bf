//! node-client.
