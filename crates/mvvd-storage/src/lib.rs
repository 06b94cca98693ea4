//! Tables, snapshots and writes of MVVD, in memory or in a directory.
//!
//! A [`Table`] is a chain of immutable [`Chunk`]s, each sorted by key. Readers hold a [`Snapshot`] and never wait; one
//! writer at a time builds the next snapshot, records the change in the log, and publishes the snapshot once the record
//! is durable, so a statement is visible as a whole or not at all. In the background, rows move from memory to
//! segments, and small segments become large ones.
//!
//! | module | |
//! |---|---|
//! | `storage` | what a place for tables must be able to do |
//! | `database`, `table`, `next`, `versions`, `chunk`, `snapshot`, `scan`, `key` | tables, without files |
//! | `disk` | what is durable when |
//! | `log`, `wal` | changes on disk: what a record says, and how it gets there |
//! | `segment`, `manifest`, `encode` | rows on disk |
//! | `cache` | columns of segments on the heap |
//! | `memory` | how much memory the rest takes, and who makes room |
//! | `sidecar`, `indexing` | indexes of chunks: their files, and who builds them |
//! | `recover`, `maintain`, `moves` | opening; flush and compaction, and where rows go by them |
//! | `seal`, `encrypt`, `unlock` | encryption at rest |
//! | `check`, `stats`, `backup` | is it sound, how large is it, a copy of it |
//! | `fs` | files: the only place that touches the file system |

mod backup;
mod cache;
mod check;
mod chunk;
mod database;
mod disk;
mod encode;
mod encrypt;
pub mod fs;
mod indexing;
mod key;
mod log;
mod maintain;
mod manifest;
mod memory;
mod moves;
mod next;
mod recover;
mod scan;
mod seal;
mod segment;
mod sidecar;
mod snapshot;
mod stats;
mod storage;
mod table;
mod unlock;
mod validate;
mod versions;
mod wal;

pub use backup::{Copied, CopyOptions, copy};
pub use check::{Checked, DamagedSegment, Problem, Repaired, TableChecked, check, repair};
pub use chunk::{Chunk, batch_bytes};
pub use database::Database;
pub use disk::{Disk, Options, StorageMode};
pub use encrypt::{Keyring, MasterKey};
pub use fs::AtomicFile;
pub use indexing::IndexState;
pub use key::{Key, keys_of};
pub use log::Commit;
pub use memory::MemoryPool;
pub use seal::{BLOCK_BYTES, Seal, SealedReader, SealedWriter};
pub use segment::{BLOCK_ROWS, BlockStats, Segment, SegmentColumn, SegmentMeta, SegmentStats};
pub use sidecar::{OpenIndex, index_columns, index_types};
pub use snapshot::{Place, Snapshot};
pub use stats::{Stats, TableStats};
pub use storage::{Rows, Storage};
pub use table::{Table, TableSize};
pub use unlock::{KeySource, rotate_data_key, rotate_master_key};
pub use versions::VERSIONS_KEPT;
pub use wal::{Durability, Lsn, Wal};
