//! format-spec.
