//! How a long statement tells how far it is.

use std::sync::Arc;

/// Hears about the progress of `COPY` and `CREATE TABLE … AS`. Called from the database's threads.
pub trait Progress: Send + Sync {
    /// Work begins; `total` is the number of rows, if it is known.
    fn start(&self, label: &str, total: Option<u64>);
    /// Another `rows` rows are done.
    fn advance(&self, rows: u64);
    /// Work has ended, well or not.
    fn finish(&self);
}

/// Reports to a [`Progress`], if there is one, and always says when it is over.
pub(crate) struct Meter(Option<Arc<dyn Progress>>);

impl Meter {
    pub(crate) fn start(progress: Option<Arc<dyn Progress>>, label: &str, total: Option<u64>) -> Self {
        if let Some(progress) = &progress {
            progress.start(label, total);
        }
        Self(progress)
    }

    pub(crate) fn advance(&self, rows: usize) {
        if let Some(progress) = &self.0 {
            progress.advance(rows as u64);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(progress) = &self.0 {
            progress.finish();
        }
    }
}
