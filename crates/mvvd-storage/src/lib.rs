//! Tables, snapshots and writes of MVVD.
//!
//! A [`Table`] is a chain of immutable [`Chunk`]s. Readers hold a [`Snapshot`] and never wait; one writer at a time
//! builds the next snapshot and publishes it in one step, so a statement is visible as a whole or not at all.
//! Everything is held in memory.

mod chunk;
mod database;
mod fs;
mod key;
mod snapshot;
mod table;
mod validate;

pub use chunk::Chunk;
pub use database::Database;
pub use fs::AtomicFile;
pub use key::{Key, keys_of};
pub use snapshot::{Place, Snapshot};
pub use table::{Table, TableSize};
