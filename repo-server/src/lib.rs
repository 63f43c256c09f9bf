//! repo-server.
