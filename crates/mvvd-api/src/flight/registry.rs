//! A bounded map of what clients come back for by a handle, forgotten after a time without use.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use uuid::Uuid;

/// How much a registry keeps, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Most values.
    pub(crate) values_max: usize,
    /// Most bytes of all values.
    pub(crate) bytes_max: usize,
    /// How long a value is kept after its last use.
    pub(crate) idle: Duration,
}

/// Values by random handles. There is always room for one more: what was not used for longest goes.
pub(crate) struct Registry<T> {
    bounds: Bounds,
    bytes_of: fn(&T) -> usize,
    entries: Mutex<HashMap<Uuid, (Instant, T)>>,
}

impl<T> Registry<T> {
    /// An empty registry; `bytes_of` says what a value counts towards the bound in bytes.
    pub(crate) fn new(bounds: Bounds, bytes_of: fn(&T) -> usize) -> Self {
        Self { bounds, bytes_of, entries: Mutex::default() }
    }

    /// Keeps a value under `handle`.
    pub(crate) fn put(&self, handle: Uuid, value: T) {
        let mut entries = self.entries.lock();
        let old = entries.insert(handle, (Instant::now(), value));
        let gone = self.make_room(&mut entries, &handle);
        // What goes may take a while to drop: nobody waits for that.
        drop(entries);
        drop((old, gone));
    }

    /// Works on a value, which counts as a use and may make it larger; `None` if there is none.
    pub(crate) fn with<R>(&self, handle: &Uuid, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut entries = self.entries.lock();
        let (used, value) = entries.get_mut(handle)?;
        *used = Instant::now();
        let before = (self.bytes_of)(value);
        let result = work(value);
        let grew = (self.bytes_of)(value) > before;
        let gone = if grew { self.make_room(&mut entries, handle) } else { Vec::new() };
        drop(entries);
        drop(gone);
        Some(result)
    }

    /// Takes a value out.
    pub(crate) fn take(&self, handle: &Uuid) -> Option<T> {
        self.entries.lock().remove(handle).map(|(_, value)| value)
    }

    /// Forgets values that were idle too long.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.entries.lock().retain(|_, (used, _)| now.duration_since(*used) < self.bounds.idle);
    }

    /// Takes out what was not used for longest until the bounds hold. The value under `kept` stays, even if it alone is
    /// larger.
    fn make_room(&self, entries: &mut HashMap<Uuid, (Instant, T)>, kept: &Uuid) -> Vec<T> {
        let mut bytes: usize = entries.values().map(|(_, value)| (self.bytes_of)(value)).sum();
        let mut gone = Vec::new();
        while entries.len() > self.bounds.values_max || bytes > self.bounds.bytes_max {
            let others = entries.iter().filter(|(handle, _)| *handle != kept);
            let oldest = others.min_by_key(|(_, (used, _))| *used).map(|(handle, _)| *handle);
            let Some((_, value)) = oldest.and_then(|handle| entries.remove(&handle)) else { break };
            bytes -= (self.bytes_of)(&value);
            gone.push(value);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { values_max: 2, bytes_max: 100, idle: Duration::from_secs(3_600) };

    fn left(registry: &Registry<usize>, handles: &[Uuid]) -> Vec<Option<usize>> {
        handles.iter().map(|handle| registry.with(handle, |value| *value)).collect()
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let registry = Registry::new(BOUNDS, |_| 0);
        let handles = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
        registry.put(handles[0], 0);
        registry.put(handles[1], 1);
        registry.with(&handles[0], |_| ());
        registry.put(handles[2], 2);
        assert_eq!(left(&registry, &handles), [Some(0), None, Some(2)]);
        registry.put(handles[2], 7);
        assert_eq!(left(&registry, &handles), [Some(0), None, Some(7)]);
    }

    #[test]
    fn bytes_are_bounded() {
        let registry = Registry::new(BOUNDS, |bytes| *bytes);
        let handles = [Uuid::new_v4(), Uuid::new_v4()];
        registry.put(handles[0], 40);
        registry.put(handles[1], 60);
        assert_eq!(left(&registry, &handles), [Some(40), Some(60)]);
        // One that grows drives the other out; alone it may be larger than the bound.
        registry.with(&handles[0], |bytes| *bytes = 200);
        assert_eq!(left(&registry, &handles), [Some(200), None]);
        registry.put(handles[1], 1);
        assert_eq!(left(&registry, &handles), [None, Some(1)]);
    }

    #[test]
    fn what_is_idle_is_forgotten() {
        let registry = Registry::new(Bounds { idle: Duration::ZERO, ..BOUNDS }, |_| 0);
        let handle = Uuid::new_v4();
        registry.put(handle, 0);
        registry.sweep();
        assert_eq!(registry.take(&handle), None);
    }
}
