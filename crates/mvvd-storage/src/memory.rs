//! The memory that a database takes beside its queries: rows that are not in files, and rows on their way to files.
//!
//! It is on one account with the queries, so that one limit holds for all. Rows are on it as long as anybody has them:
//! the table, a version before the present one, a reader, a flush.

use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use mvvd_core::{Error, Result};

use crate::database::Shared;

/// One step of a flush or a compaction copies at most this part of what rows may take.
const STEP_SHARE: usize = 8;
/// It may always copy so many bytes.
const STEP_BYTES_MIN: usize = 1 << 20;

/// A build in the background leaves this part of what rows may take to others.
const SPARE_SHARE: usize = 8;

/// An account of memory that others draw on too.
pub trait MemoryPool: Send + Sync + Debug {
    /// Most bytes that can be taken for rows at one time; others may have taken some of them.
    fn bytes_max(&self) -> usize;

    /// Takes so many bytes; `false` if they are not there.
    fn try_grow(&self, bytes: usize) -> bool;

    /// Takes so many bytes that are in use already, whether or not they are there.
    fn grow(&self, bytes: usize);

    /// Gives back so many bytes.
    fn shrink(&self, bytes: usize);
}

/// The account of one database.
#[derive(Debug)]
pub(crate) struct Memory {
    /// None: there is no limit.
    pool: Option<Arc<dyn MemoryPool>>,
    /// Bytes that are taken.
    bytes: AtomicUsize,
    /// Whose tables can make room.
    database: OnceLock<Weak<Shared>>,
}

/// Bytes that are given back when it goes.
#[derive(Debug)]
pub(crate) struct Taken {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Memory {
    pub(crate) fn new(pool: Option<Arc<dyn MemoryPool>>) -> Arc<Self> {
        Arc::new(Self { pool, bytes: AtomicUsize::new(0), database: OnceLock::new() })
    }

    /// Says whose tables can make room.
    pub(crate) fn belongs_to(&self, database: &Arc<Shared>) {
        let _ = self.database.set(Arc::downgrade(database));
    }

    /// Bytes that are taken.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Most bytes of rows that may be copied in one step: a share of the limit.
    pub(crate) fn step_bytes_max(&self) -> usize {
        self.pool.as_ref().map_or(usize::MAX, |pool| (pool.bytes_max() / STEP_SHARE).max(STEP_BYTES_MIN))
    }

    /// Whether so many bytes can be had at this moment without making room.
    pub(crate) fn has(self: &Arc<Self>, bytes: usize) -> bool {
        self.try_take(bytes).is_some()
    }

    /// Takes bytes for rows that are about to be written, and makes room for them if it must. Blocks then, and must be
    /// called without any lock.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Result<Taken> {
        if let Some(taken) = self.take_or_none(bytes)? {
            return Ok(taken);
        }
        let has_files = self.database().is_some_and(|database| database.disk.is_some());
        let hint = match has_files {
            true => "raise the memory limit, or write fewer rows at once",
            false => "delete rows, raise the memory limit, or keep the database in a directory",
        };
        Err(self.short_of(format!("{bytes} bytes of rows are to be written")).with_hint(hint))
    }

    /// As [`Memory::take`]; none if they are not to be had.
    pub(crate) fn take_or_none(self: &Arc<Self>, bytes: usize) -> Result<Option<Taken>> {
        if let Some(taken) = self.try_take(bytes) {
            return Ok(Some(taken));
        }
        let Some(database) = self.database() else { return Ok(None) };
        for make_room in [Shared::forget_versions, Shared::make_room] {
            make_room(&database)?;
            if let Some(taken) = self.try_take(bytes) {
                return Ok(Some(taken));
            }
        }
        Ok(database.shelf.take_heap(bytes))
    }

    /// Takes bytes that nobody misses: only if a share of the limit is left to others then.
    pub(crate) fn take_spare(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let others = self.pool.as_ref().map_or(0, |pool| pool.bytes_max() / SPARE_SHARE);
        let mut taken = self.try_take(bytes.saturating_add(others))?;
        taken.resize(bytes);
        Some(taken)
    }

    /// Whether so many bytes could be had if nobody else had any.
    pub(crate) fn could_have(&self, bytes: usize) -> bool {
        self.pool.as_ref().is_none_or(|pool| bytes <= pool.bytes_max())
    }

    /// The error where `what` finds no room.
    pub(crate) fn short_of(&self, what: String) -> Error {
        let (held, max) = (self.bytes(), self.pool.as_ref().map_or(usize::MAX, |pool| pool.bytes_max()));
        Error::exhausted(format!(
            "out of memory: {what}, tables have {held} bytes in memory, and the memory limit leaves them at most {max} \
             beside running statements"
        ))
    }

    fn database(&self) -> Option<Arc<Shared>> {
        self.database.get().and_then(Weak::upgrade)
    }

    /// Takes bytes that are in use already.
    pub(crate) fn note(self: &Arc<Self>, bytes: usize) -> Taken {
        if let Some(pool) = &self.pool {
            pool.grow(bytes);
        }
        self.taken(bytes)
    }

    /// Takes bytes if they are there.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let is_free = bytes == 0 || self.pool.as_ref().is_none_or(|pool| pool.try_grow(bytes));
        is_free.then(|| self.taken(bytes))
    }

    fn taken(self: &Arc<Self>, bytes: usize) -> Taken {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Taken { memory: Arc::clone(self), bytes }
    }
}

impl Taken {
    /// From now on so many bytes, which are in use already if they are more.
    pub(crate) fn resize(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => {
                let mut more = self.memory.note(more);
                self.bytes += std::mem::take(&mut more.bytes);
            }
            None => {
                let less = self.bytes - bytes;
                self.bytes = bytes;
                drop(Self { memory: Arc::clone(&self.memory), bytes: less });
            }
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.memory.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if let Some(pool) = &self.memory.pool {
            pool.shrink(self.bytes);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A pool for tests.
    #[derive(Debug)]
    pub(crate) struct Bounded {
        pub(crate) bytes_max: usize,
        pub(crate) used: AtomicUsize,
        /// The most that was ever in use.
        pub(crate) peak: AtomicUsize,
    }

    impl Bounded {
        pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
            Arc::new(Self { bytes_max, used: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
        }
    }

    impl MemoryPool for Bounded {
        fn bytes_max(&self) -> usize {
            self.bytes_max
        }

        fn try_grow(&self, bytes: usize) -> bool {
            let fits = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.bytes_max;
            if fits {
                self.peak.fetch_max(self.used.load(Ordering::Relaxed), Ordering::Relaxed);
            } else {
                self.shrink(bytes);
            }
            fits
        }

        fn grow(&self, bytes: usize) {
            let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
            self.peak.fetch_max(used, Ordering::Relaxed);
        }

        fn shrink(&self, bytes: usize) {
            let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
            assert!(before >= bytes, "more is given back than was taken");
        }
    }

    #[test]
    fn what_is_taken_comes_back() {
        let pool = Bounded::new(100);
        let memory = Memory::new(Some(Arc::<Bounded>::clone(&pool)));
        let first = memory.take(60).unwrap();
        assert!(memory.has(40) && !memory.has(41));
        assert_eq!(memory.bytes(), 60);
        let e = memory.take(50).unwrap_err();
        assert_eq!(e.kind(), mvvd_core::ErrorKind::Exhausted);
        assert!(e.message().contains("50 bytes") && e.message().contains("60 bytes"), "{e}");
        let second = memory.note(70);
        assert_eq!((memory.bytes(), pool.used.load(Ordering::Relaxed)), (130, 130));
        drop((first, second));
        assert_eq!((memory.bytes(), pool.used.load(Ordering::Relaxed)), (0, 0));
        assert!(Memory::new(None).take(usize::MAX).is_ok());
    }

    #[test]
    fn what_is_spare_leaves_a_share_to_others_and_what_is_taken_can_change() {
        let pool = Bounded::new(800);
        let memory = Memory::new(Some(Arc::<Bounded>::clone(&pool)));
        assert!(memory.take_spare(701).is_none());
        let mut taken = memory.take_spare(700).unwrap();
        let used = || pool.used.load(Ordering::Relaxed);
        assert_eq!((memory.bytes(), used()), (700, 700));
        for bytes in [20, 20, 900, 0, 7] {
            taken.resize(bytes);
            assert_eq!((memory.bytes(), used()), (bytes, bytes));
        }
        drop(taken);
        assert_eq!((memory.bytes(), used()), (0, 0));
        assert!(memory.could_have(800) && !memory.could_have(801));
    }
}
