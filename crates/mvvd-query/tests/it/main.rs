//! Integration tests of the query crate, in one binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod concurrent;
mod constants;
mod hostile;
mod index_model;
mod memory;
mod native;
mod own_index;
mod scripts;
mod slt;
mod snapshots;
mod versions;
