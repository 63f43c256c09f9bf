//! chunker.
