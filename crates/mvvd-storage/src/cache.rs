//! Columns on the heap: which of them stay, and which go when there is no room for more.

use arrow::array::ArrayRef;
use lru::LruCache;
use parking_lot::Mutex;

/// The segment and the id of a column in it.
pub(crate) type ColumnKey = (u64, u32);

/// Columns of one database that were decrypted or copied: at most `bytes_max` bytes, the least recently used go first.
///
/// Who holds an array keeps it; it only counts here while it is found here.
#[derive(Debug)]
pub(crate) struct Cache {
    bytes_max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    columns: LruCache<ColumnKey, Entry>,
    /// Bytes of all entries.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    array: ArrayRef,
    bytes: usize,
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, state: Mutex::new(State { columns: LruCache::unbounded(), bytes: 0 }) }
    }

    /// Whether a column of so many bytes can stay.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        bytes <= self.bytes_max
    }

    /// The column, if it is here; it is the most recently used one then.
    pub(crate) fn get(&self, key: ColumnKey) -> Option<ArrayRef> {
        self.state.lock().columns.get(&key).map(|entry| ArrayRef::clone(&entry.array))
    }

    /// Keeps a column, and lets go of others until there is room. One that is larger than all the room is not kept.
    pub(crate) fn put(&self, key: ColumnKey, array: &ArrayRef, bytes: usize) {
        if !self.has_room_for(bytes) {
            return;
        }
        // Freed after the lock: others need not wait for it.
        let mut gone = Vec::new();
        let mut state = self.state.lock();
        let entry = Entry { array: ArrayRef::clone(array), bytes };
        state.bytes += bytes;
        gone.extend(state.columns.push(key, entry));
        state.bytes -= gone.iter().map(|(_, entry)| entry.bytes).sum::<usize>();
        while state.bytes > self.bytes_max {
            let (key, entry) = state.columns.pop_lru().expect("what is counted is there");
            state.bytes -= entry.bytes;
            gone.push((key, entry));
        }
    }

    /// Lets go of the columns of a segment that nobody has any more.
    pub(crate) fn forget(&self, keys: impl Iterator<Item = ColumnKey>) {
        let mut gone = Vec::new();
        let mut state = self.state.lock();
        for key in keys {
            if let Some(entry) = state.columns.pop(&key) {
                state.bytes -= entry.bytes;
                gone.push(entry);
            }
        }
    }

    /// Bytes of the columns that are here.
    pub(crate) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;

    use super::*;

    fn array(value: i64) -> ArrayRef {
        Arc::new(Int64Array::from(vec![value]))
    }

    /// Which of the columns 0 to 9 of segment 1 are there; looking makes them no younger.
    fn present(cache: &Cache) -> Vec<u32> {
        let state = cache.state.lock();
        (0..10).filter(|id| state.columns.contains(&(1, *id))).collect()
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_bound_holds() {
        let cache = Cache::new(100);
        for id in 0..3 {
            cache.put((1, id), &array(id.into()), 30);
        }
        assert_eq!((present(&cache), cache.bytes()), (vec![0, 1, 2], 90));
        assert_eq!(&cache.get((1, 0)).unwrap(), &array(0));
        cache.put((1, 3), &array(3), 30);
        assert_eq!((present(&cache), cache.bytes()), (vec![0, 2, 3], 90));
        cache.put((1, 4), &array(4), 65);
        assert_eq!((present(&cache), cache.bytes()), (vec![3, 4], 95));
        cache.put((1, 5), &array(5), 100);
        assert_eq!((present(&cache), cache.bytes()), (vec![5], 100));
        assert!(cache.get((1, 4)).is_none());
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let cache = Cache::new(100);
        cache.put((1, 0), &array(0), 60);
        cache.put((1, 1), &array(1), 101);
        assert_eq!((present(&cache), cache.bytes()), (vec![0], 60));
        let none = Cache::new(0);
        none.put((1, 0), &array(0), 1);
        assert_eq!((present(&none), none.bytes()), (vec![], 0));
    }

    #[test]
    fn a_column_counts_once_and_not_when_it_is_gone() {
        let cache = Cache::new(100);
        cache.put((1, 0), &array(0), 60);
        cache.put((1, 0), &array(7), 80);
        assert_eq!((cache.get((1, 0)).unwrap(), cache.bytes()), (array(7), 80));
        cache.put((2, 0), &array(1), 20);
        cache.forget([(1, 0), (1, 1)].into_iter());
        assert_eq!((present(&cache), cache.bytes()), (vec![], 20));
    }
}
