//! A bounded map of what clients come back for by a handle, forgotten after a time without use.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mvvd_core::{Error, Result};
use parking_lot::Mutex;
use uuid::Uuid;

/// Values by random handles. A value in use has no idle time.
pub(crate) struct Registry<T> {
    what: &'static str,
    max: usize,
    idle: Duration,
    entries: Mutex<HashMap<Uuid, (Instant, T)>>,
}

impl<T> Registry<T> {
    /// At most `max` values (`what` in messages), each for `idle` after its last use.
    pub(crate) fn new(what: &'static str, max: usize, idle: Duration) -> Self {
        Self { what, max, idle, entries: Mutex::default() }
    }

    /// Keeps a value under `handle`; a registry that is full of values in use is an error.
    pub(crate) fn put(&self, handle: Uuid, value: T) -> Result<()> {
        let mut entries = self.entries.lock();
        if entries.len() >= self.max && !entries.contains_key(&handle) {
            let now = Instant::now();
            entries.retain(|_, (used, _)| now.duration_since(*used) < self.idle);
            if entries.len() >= self.max {
                return Err(Error::exhausted(format!("there are {} {} already", self.max, self.what))
                    .with_hint("close the ones that are not needed, or try again later"));
            }
        }
        entries.insert(handle, (Instant::now(), value));
        Ok(())
    }

    /// Keeps a value under `handle`; in a full registry the one that was not used for longest goes.
    pub(crate) fn put_over_oldest(&self, handle: Uuid, value: T) {
        let mut entries = self.entries.lock();
        if entries.len() >= self.max && !entries.contains_key(&handle) {
            let oldest = entries.iter().min_by_key(|(_, (used, _))| *used).map(|(handle, _)| *handle);
            oldest.and_then(|handle| entries.remove(&handle));
        }
        entries.insert(handle, (Instant::now(), value));
    }

    /// Works on a value, which counts as a use; `None` if there is none.
    pub(crate) fn with<R>(&self, handle: &Uuid, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let mut entries = self.entries.lock();
        let (used, value) = entries.get_mut(handle)?;
        *used = Instant::now();
        Some(work(value))
    }

    /// Takes a value out.
    pub(crate) fn take(&self, handle: &Uuid) -> Option<T> {
        self.entries.lock().remove(handle).map(|(_, value)| value)
    }

    /// Forgets values that were idle too long, except those that `in_use` names.
    pub(crate) fn sweep(&self, in_use: impl Fn(&T) -> bool) {
        let now = Instant::now();
        self.entries.lock().retain(|_, (used, value)| in_use(value) || now.duration_since(*used) < self.idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets() {
        let registry = Registry::new("things", 2, Duration::from_secs(3_600));
        let handles = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
        registry.put(handles[0], 0).unwrap();
        registry.put(handles[1], 1).unwrap();
        assert_eq!(registry.put(handles[2], 2).unwrap_err().message(), "there are 2 things already");
        registry.put_over_oldest(handles[2], 2);
        assert_eq!(handles.map(|handle| registry.with(&handle, |value| *value)), [None, Some(1), Some(2)]);
        let registry = Registry::new("things", 1, Duration::ZERO);
        registry.put(handles[0], 0).unwrap();
        registry.put(handles[1], 1).unwrap();
        registry.sweep(|_| true);
        assert_eq!(registry.take(&handles[1]), Some(1));
    }
}
