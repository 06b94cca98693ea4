//! The versions of a table that readers can ask for: the present one, and the last few before it.

use std::collections::VecDeque;
use std::sync::Arc;

use mvvd_core::{Error, Result};
use parking_lot::RwLock;

use crate::snapshot::Snapshot;

/// Versions that are kept beside the present one if nothing is said.
pub const VERSIONS_KEPT: usize = 10;

/// What readers see.
#[derive(Debug)]
pub(crate) struct Versions {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    current: Arc<Snapshot>,
    /// Oldest first.
    older: VecDeque<Arc<Snapshot>>,
    kept: usize,
}

impl Versions {
    pub(crate) fn new(current: Arc<Snapshot>, older: Vec<Arc<Snapshot>>, kept: usize) -> Self {
        Self { state: RwLock::new(State { current, older: older.into(), kept }) }
    }

    pub(crate) fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.read().current)
    }

    /// Makes a durable snapshot the present one, unless a newer one is.
    pub(crate) fn publish(&self, snapshot: &Arc<Snapshot>) {
        let mut state = self.state.write();
        if snapshot.version > state.current.version {
            let before = std::mem::replace(&mut state.current, Arc::clone(snapshot));
            state.older.push_back(before);
            state.trim();
        }
    }

    /// Shows the rows of the present version in their new arrangement.
    pub(crate) fn rearrange(&self, head: &Arc<Snapshot>) {
        let mut state = self.state.write();
        if state.current.version == head.version && state.current.arrangement < head.arrangement {
            state.current = Arc::clone(head);
        }
    }

    /// The table as it was at `version`.
    pub(crate) fn at(&self, version: u64) -> Result<Arc<Snapshot>> {
        let state = self.state.read();
        let found = state.older.iter().chain([&state.current]).find(|snapshot| snapshot.version == version);
        found.map(Arc::clone).ok_or_else(|| {
            let kept: Vec<String> =
                state.older.iter().chain([&state.current]).map(|snapshot| snapshot.version.to_string()).collect();
            Error::not_found(format!("version {version} is not kept"))
                .with_hint(format!("there are {}", kept.join(", ")))
        })
    }

    /// All versions that are kept, oldest first; the last one is the present one.
    pub(crate) fn all(&self) -> Vec<Arc<Snapshot>> {
        let state = self.state.read();
        state.older.iter().chain([&state.current]).map(Arc::clone).collect()
    }

    /// Lets go of versions before the present one.
    pub(crate) fn forget(&self, which: impl Fn(&Snapshot) -> bool) {
        self.state.write().older.retain(|snapshot| !which(snapshot));
    }

    pub(crate) fn keep(&self, kept: usize) {
        let mut state = self.state.write();
        state.kept = kept;
        state.trim();
    }
}

impl State {
    fn trim(&mut self) {
        let surplus = self.older.len().saturating_sub(self.kept);
        self.older.drain(..surplus);
    }
}
