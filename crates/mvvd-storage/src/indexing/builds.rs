//! The builds that run: none of them twice, at most so many, and none that nobody wants any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mvvd_core::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};

use crate::chunk::Chunk;
use crate::table::Table;

/// Most builds at once, each with all threads of its pool; statements beyond that wait.
const BUILDS_MAX: usize = 8;
/// How often a statement that waits looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(20);

/// The builds that run now.
#[derive(Debug, Default)]
pub(crate) struct Builds {
    state: Mutex<State>,
    /// Rung when one of them ends.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: Vec<Running>,
    /// Number of the next one.
    next: u64,
    /// The thread begins nothing any more.
    is_stopped: bool,
}

#[derive(Debug)]
struct Running {
    number: u64,
    what: What,
    done: f32,
    cancelled: Arc<AtomicBool>,
    /// Not by a statement.
    in_background: bool,
}

/// What is built: an index of a table over one of its chunks.
#[derive(Debug, Clone)]
pub(crate) struct What {
    pub(crate) table: Arc<Table>,
    pub(crate) chunk: Arc<Chunk>,
    pub(crate) index: u32,
}

impl What {
    fn is(&self, other: &Self) -> bool {
        // Versions of a chunk have its indexes in common.
        self.index == other.index && std::ptr::eq(self.chunk.sidecars(), other.chunk.sidecars())
    }
}

/// The right to build something, until it goes.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    builds: &'a Builds,
    number: u64,
    /// Set when nobody wants it any more.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Builds {
    /// Waits until nobody else builds it, for a statement. `Cancelled` soon after `cancelled` is set.
    pub(crate) fn wait_for_turn(&self, what: &What, cancelled: &Arc<AtomicBool>) -> Result<Turn<'_>> {
        let mut state = self.state.lock();
        while !state.is_free(what) {
            if cancelled.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Cancelled, "the build of the index was cancelled"));
            }
            self.ended.wait_for(&mut state, LOOK);
        }
        Ok(self.begin(&mut state, what, Arc::clone(cancelled), false))
    }

    /// The turn of the thread; none if it is not free, or the thread is to end.
    pub(crate) fn try_turn(&self, what: &What) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        (!state.is_stopped && state.is_free(what)).then(|| self.begin(&mut state, what, Arc::default(), true))
    }

    fn begin(&self, state: &mut State, what: &What, cancelled: Arc<AtomicBool>, in_background: bool) -> Turn<'_> {
        let number = state.next;
        state.next += 1;
        let turn = Turn { builds: self, number, cancelled: Arc::clone(&cancelled) };
        state.running.push(Running { number, what: what.clone(), done: 0.0, cancelled, in_background });
        turn
    }

    /// Ends what the thread builds, for good.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.is_stopped = true;
        let running = state.running.iter().filter(|running| running.in_background);
        running.for_each(|running| running.cancelled.store(true, Ordering::Relaxed));
    }

    /// Ends those that nobody wants: `is_wanted` says it of an index of a table, and `is_there` of a chunk of it. A
    /// statement goes on where only a chunk is gone.
    pub(crate) fn cancel_unwanted(&self, is_wanted: impl Fn(&What) -> bool, is_there: impl Fn(&What) -> bool) {
        for running in &self.state.lock().running {
            if !is_wanted(&running.what) || running.in_background && !is_there(&running.what) {
                running.cancelled.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The share that is done of the chunks of an index that are being built; none if there is none.
    pub(crate) fn done(&self, table: &Arc<Table>, index: u32) -> Option<f32> {
        let state = self.state.lock();
        let of_index = |running: &&Running| running.what.index == index && Arc::ptr_eq(&running.what.table, table);
        state.running.iter().find(of_index).map(|running| running.done)
    }
}

impl State {
    fn is_free(&self, what: &What) -> bool {
        self.running.len() < BUILDS_MAX && self.running.iter().all(|running| !running.what.is(what))
    }
}

impl Turn<'_> {
    /// Says how much is done of all that is missing of the index.
    pub(crate) fn tell(&self, done: f32) {
        let mut state = self.builds.state.lock();
        let own = state.running.iter_mut().find(|running| running.number == self.number);
        own.into_iter().for_each(|running| running.done = done);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.builds.state.lock();
        state.running.retain(|running| running.number != self.number);
        drop(state);
        self.builds.ended.notify_all();
    }
}
