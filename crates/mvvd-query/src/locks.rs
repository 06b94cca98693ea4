//! Who may write a table now.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The right to write a table, until it is dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "held, not read")]
pub(crate) enum WriteLock {
    /// Nobody else writes.
    Alone(OwnedRwLockWriteGuard<()>),
    /// Others add rows too.
    Adding(OwnedRwLockReadGuard<()>),
}

/// The locks of the tables, by name. Who waits longest is next.
#[derive(Debug, Default)]
pub(crate) struct WriteLocks {
    tables: Mutex<HashMap<String, Arc<RwLock<()>>>>,
}

impl WriteLocks {
    /// Waits until nobody writes the table: for a statement that changes rows it has read, or the table itself, from
    /// its first read to its commit. Taking several locks is done in order of their names.
    pub(crate) async fn lock(&self, table: &str) -> WriteLock {
        WriteLock::Alone(self.of(table).write_owned().await)
    }

    /// Waits until others at most add rows: for a statement that only adds rows, too. What it adds is checked against
    /// theirs when it is recorded.
    pub(crate) async fn lock_to_add(&self, table: &str) -> WriteLock {
        WriteLock::Adding(self.of(table).read_owned().await)
    }

    fn of(&self, table: &str) -> Arc<RwLock<()>> {
        let mut tables = self.tables.lock();
        if let Some(lock) = tables.get(table) {
            return Arc::clone(lock);
        }
        // Locks that nobody holds or waits for are forgotten.
        tables.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(tables.entry(table.to_owned()).or_default())
    }
}
