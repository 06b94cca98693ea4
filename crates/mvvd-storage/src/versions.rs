//! The versions of a table: the present one, the last few before it, and those that are not durable yet.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use mvvd_core::{Error, Result};
use parking_lot::RwLock;

use crate::snapshot::Snapshot;

/// Versions that are kept beside the present one if nothing is said.
pub const VERSIONS_KEPT: usize = 10;

/// Every version of a table that somebody may ask for.
#[derive(Debug)]
pub(crate) struct Versions {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    /// From the oldest that is kept to the newest, which the next change builds on. Never empty.
    chain: VecDeque<Arc<Snapshot>>,
    /// The newest of them that readers see: those after it are not known to be durable.
    current: Arc<Snapshot>,
    kept: usize,
    /// Segments that no version has any more.
    dropped: BTreeSet<u64>,
}

impl Versions {
    /// With versions before the present one, oldest first.
    pub(crate) fn new(current: Arc<Snapshot>, older: Vec<Arc<Snapshot>>, kept: usize) -> Self {
        let mut chain = VecDeque::from(older);
        chain.push_back(Arc::clone(&current));
        Self { state: RwLock::new(State { chain, current, kept, dropped: BTreeSet::new() }) }
    }

    pub(crate) fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.read().current)
    }

    /// The newest version, which readers may not see yet.
    pub(crate) fn newest(&self) -> Arc<Snapshot> {
        Arc::clone(self.state.read().chain.back().expect("there is always a version"))
    }

    /// Adds the newest version, which readers do not see yet.
    pub(crate) fn push(&self, snapshot: Arc<Snapshot>) {
        self.state.write().chain.push_back(snapshot);
    }

    /// Makes a durable version the present one, unless a newer one is.
    pub(crate) fn publish(&self, version: u64) {
        let mut state = self.state.write();
        if version > state.current.version {
            let found = state.find(version).expect("versions after the present one are kept");
            state.current = found;
            state.trim();
        }
    }

    /// Puts versions in the place of those with the same number: the same rows in other chunks.
    pub(crate) fn replace(&self, rearranged: Vec<Arc<Snapshot>>) {
        let mut by_version: HashMap<u64, Arc<Snapshot>> =
            rearranged.into_iter().map(|snapshot| (snapshot.version, snapshot)).collect();
        let mut state = self.state.write();
        for snapshot in &mut state.chain {
            if let Some(rearranged) = by_version.remove(&snapshot.version) {
                *snapshot = rearranged;
            }
        }
        let version = state.current.version;
        state.current = state.find(version).expect("the present version is kept");
    }

    /// The table as it was at `version`.
    pub(crate) fn at(&self, version: u64) -> Result<Arc<Snapshot>> {
        let state = self.state.read();
        state.find(version).filter(|_| version <= state.current.version).ok_or_else(|| {
            let kept: Vec<String> = state.seen().map(|snapshot| snapshot.version.to_string()).collect();
            Error::not_found(format!("version {version} is not kept"))
                .with_hint(format!("there are {}", kept.join(", ")))
        })
    }

    /// The versions that readers can ask for, oldest first; the last one is the present one.
    pub(crate) fn seen(&self) -> Vec<Arc<Snapshot>> {
        self.state.read().seen().map(Arc::clone).collect()
    }

    /// As [`Versions::seen`], and those that readers do not see yet. The last one is the newest.
    pub(crate) fn all(&self) -> Vec<Arc<Snapshot>> {
        self.state.read().chain.iter().map(Arc::clone).collect()
    }

    /// Whether some version has rows that are only in memory and in the log.
    pub(crate) fn has_unflushed(&self) -> bool {
        // The newest rows of the newest version first: they are where most are found.
        self.state.read().chain.iter().rev().any(|snapshot| snapshot.has_unflushed())
    }

    /// Lets go of versions before the present one that have rows which are only in memory. For tables without files:
    /// those with files move such rows to segments. Those before them go too: what is kept are the last few, without gaps.
    pub(crate) fn forget_unflushed(&self) {
        let mut state = self.state.write();
        let current = state.current.version;
        let goes = |snapshot: &&Arc<Snapshot>| snapshot.version < current && snapshot.has_unflushed();
        if let Some(last) = state.chain.iter().filter(goes).map(|snapshot| snapshot.version).max() {
            state.chain.retain(|snapshot| snapshot.version > last);
        }
    }

    pub(crate) fn keep(&self, kept: usize) {
        let mut state = self.state.write();
        state.kept = kept;
        state.trim();
    }

    /// How many versions are kept beside the present one.
    pub(crate) fn kept(&self) -> usize {
        self.state.read().kept
    }

    /// Takes note of segments that no version has any more.
    pub(crate) fn drop_segments(&self, segments: impl IntoIterator<Item = u64>) {
        self.state.write().dropped.extend(segments);
    }

    /// Whether there are segments that no version has any more.
    pub(crate) fn has_dropped(&self) -> bool {
        !self.state.read().dropped.is_empty()
    }

    /// The segments that no version has any more; each is told once.
    pub(crate) fn take_dropped(&self) -> BTreeSet<u64> {
        std::mem::take(&mut self.state.write().dropped)
    }
}

impl State {
    fn find(&self, version: u64) -> Option<Arc<Snapshot>> {
        let at = self.chain.partition_point(|snapshot| snapshot.version < version);
        self.chain.get(at).filter(|snapshot| snapshot.version == version).map(Arc::clone)
    }

    fn seen(&self) -> impl Iterator<Item = &Arc<Snapshot>> {
        self.chain.iter().take_while(|snapshot| snapshot.version <= self.current.version)
    }

    fn trim(&mut self) {
        let older = self.chain.partition_point(|snapshot| snapshot.version < self.current.version);
        for _ in self.kept..older {
            let Some(gone) = self.chain.pop_front() else { return };
            // Rows that go do not come back: what the next version does not have, none after it has.
            let next = &self.chain[0].chunks;
            for (i, chunk) in gone.chunks.iter().enumerate() {
                let Some(segment) = chunk.segment() else { continue };
                let stays = next.get(i).is_some_and(|there| there.uid() == chunk.uid())
                    || next.iter().any(|there| there.uid() == chunk.uid());
                if !stays {
                    self.dropped.insert(segment.meta().id);
                }
            }
        }
    }
}
