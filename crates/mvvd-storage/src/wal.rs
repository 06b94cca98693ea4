//! The write-ahead log of a database: what is in it is not lost.
//!
//! The log is a sequence of records, numbered without a gap ([`Lsn`]), in files `wal/<number of the first record, 20
//! digits>.log`. All numbers are little-endian.
//!
//! ```text
//! file    0  8  magic "MVVDWAL\0"
//!         8  4  version, 1
//!        12  8  number of the first record, as in the name
//!        20  8  CRC-64/NVME of bytes 0 to 19
//!        28     entries, one after the other: records and marks
//! record  0  4  length of the payload
//!         4  8  number of the record
//!        12  8  CRC-64/NVME of: number of the file's first record (8), place of this entry in the file (8),
//!               bytes 0 to 11, payload
//!        20     payload, sealed if the database is encrypted
//! mark    0  4  0xFFFFFFFF
//!         4  8  number of a record: it and all before it are durable
//!        12  8  CRC as of a record without payload
//! ```
//!
//! A file gets its name when its header is durable, and the file before it is durable as a whole by then. So only the
//! end of the last file can be torn by a crash. Every group of records that is written at once starts with a mark, and
//! closing the log writes one. The last file may end in zeros, which the next groups go over: a file that has its length
//! already is synced faster. Starting the next file and closing the log cut them off.
//!
//! # Torn or damaged
//!
//! A device may write the sectors of a group in any order, so that whole records after a bad one prove nothing; a mark
//! does. Opening the log meets a bad entry where record `n` should be:
//! - in a file that is not the last: damage;
//! - a mark after it, at any place, says that `n` is durable: damage;
//! - else nobody was promised `n`, as far as the log can tell: it and all after it is cut off.
//!
//! Found is thus every damage to a log that was closed, and to one that was not, every damage to records that were
//! durable when the last group was begun. **Not found** is damage, after a crash and before the next opening, to the
//! records that were acknowledged last (the last group, or the one before it where the crash tore the mark that begins
//! the last one): it looks like a write that the crash cut short, and is cut off. A file cut short from outside, at the
//! end of an entry, is not found either if it is the last one.
//!
//! After an error of a write or a sync nothing more is written, since nobody knows what the device has. Opening reads
//! what is there and writes the last file anew.

mod format;
mod recover;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mvvd_core::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::fs::{FileSystem, WriteFile, start_file};
use crate::seal::Seal;
use format::{FOLDER, HEADER_BYTES, PAYLOAD_BYTES_MAX, RECORD_BYTES, path_of};
use recover::{LogFile, recover};

/// Most bytes of records that wait to be written; a writer that would exceed it writes them first. One record alone
/// may be larger.
const BUFFER_BYTES_MAX: usize = 8 << 20;

/// How much longer a file is made when a group does not fit any more.
const GROWTH_BYTES: u64 = 1 << 20;

/// Part of the time of a sync that a group may wait for others to join it, and the longest such delay.
const DELAY_PART: u32 = 4;
const DELAY_MAX: Duration = Duration::from_millis(1);
/// How long the log's own thread looks out for the next commit before it rests, after it told somebody: waking a thread
/// takes as long as a statement. It gives way to every thread that has something to do.
const LINGER: Duration = Duration::from_micros(100);

/// The number of a record in the log: consecutive, from 1, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The number of the first record of a new database.
    pub const FIRST: Self = Self(1);

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What [`Wal::commit`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The device has the record: it survives a power cut.
    Sync,
    /// The operating system has the record: it survives a crash of the process. A power cut loses at most what was
    /// committed in this time (and the time of one sync) before it, and never a record without those after it.
    Interval(Duration),
    /// The operating system has the record: it survives a crash of the process. A power cut loses what was committed
    /// since the last [`Wal::sync_all`] or [`Wal::rotate`].
    Off,
}

/// The write-ahead log, open for writing. Any number of threads append and commit.
///
/// Dropping it closes it, see [`Wal::close`].
#[derive(Debug)]
pub struct Wal {
    log: Arc<Log>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Log {
    fs: Arc<dyn FileSystem>,
    seal: Option<Arc<dyn Seal>>,
    state: Mutex<State>,
    /// A group was written, the file was changed, or the log has failed.
    changed: Condvar,
    /// There is something to do for the log's own thread: somebody waits, the durability was changed, or the log is
    /// closed.
    wake: Condvar,
    /// How many have waited without a thread, ever.
    arrivals: AtomicU64,
}

/// Who is told when a record is as safe as the durability promises.
struct Waiter {
    /// The number after the record's.
    end: Lsn,
    done: Box<dyn FnOnce(Result<()>) + Send>,
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("end", &self.end).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct State {
    /// Taken by the thread that writes; who finds `None` waits.
    file: Option<Box<dyn WriteFile>>,
    /// Number of the file's first record.
    first: Lsn,
    path: String,
    /// Where the buffer will be in the file.
    offset: u64,
    /// How long the file is, at least `offset`.
    length: u64,
    /// Empty, or room for a mark and then records.
    buffer: Vec<u8>,
    /// An empty buffer with memory, for the next group.
    spare: Vec<u8>,
    /// The number that the next record gets.
    next: Lsn,
    /// All below it were written.
    written: Lsn,
    /// All below it are durable.
    durable: Lsn,
    /// All below it are durable according to the last mark in the file, or to its name.
    marked: Lsn,
    /// The files before, oldest first.
    older: VecDeque<LogFile>,
    durability: Durability,
    /// Those who wait without a thread; as many as there are statements under way.
    waiting: Vec<Waiter>,
    /// How many are likely to wait soon, so that a group is worth a delay.
    expected: usize,
    rotating: bool,
    closed: bool,
    /// Why nothing is written any more.
    failed: Option<String>,
}

type Guard<'a> = MutexGuard<'a, State>;

impl Wal {
    /// Opens the log, or makes it if there is none and `from` is [`Lsn::FIRST`].
    ///
    /// Calls `replay` with the records from `from` on, in order; once this returns, they are durable. On an error what
    /// was replayed must be thrown away. Files with records below `from` only are removed. Commits are
    /// [`Durability::Sync`] until [`Wal::set_durability`]. The caller holds the lock of the database.
    ///
    /// `Corrupt` for damage, with the file and place; see the top of this file for what is damage and what is the torn
    /// end that a crash leaves.
    pub fn open(
        fs: Arc<dyn FileSystem>,
        seal: Option<Arc<dyn Seal>>,
        from: Lsn,
        replay: &mut dyn FnMut(Lsn, &[u8]) -> Result<()>,
    ) -> Result<Self> {
        fs.create_folder(FOLDER)?;
        let recovered = recover(&*fs, seal.as_deref(), from, true, replay)?;
        // What was lost may have reached other files before: its numbers are not given again.
        let next = recovered.next.max(from);
        let mut older = VecDeque::from(recovered.files);
        // A file without records has the name of the one that is made now, in its place.
        older.pop_back_if(|file| file.first == next);
        let wal = Self::start(fs, seal, next, older)?;
        wal.remove_below(from)?;
        Ok(wal)
    }

    /// Calls `replay` as [`Wal::open`] does and writes nothing: for reading a database that others may write.
    pub fn read(
        fs: &dyn FileSystem,
        seal: Option<&dyn Seal>,
        from: Lsn,
        replay: &mut dyn FnMut(Lsn, &[u8]) -> Result<()>,
    ) -> Result<()> {
        recover(fs, seal, from, false, replay).map(drop)
    }

    /// Makes the log of a database that starts with record `first`, such as a restored one.
    pub fn create(fs: Arc<dyn FileSystem>, seal: Option<Arc<dyn Seal>>, first: Lsn) -> Result<Self> {
        fs.create_folder(FOLDER)?;
        if let Some(name) = fs.list(FOLDER)?.iter().find(|name| format::first_of(name).is_some()) {
            return Err(Error::already_exists(format!("log file \"{FOLDER}/{name}\" already exists")));
        }
        Self::start(fs, seal, first.max(Lsn::FIRST), VecDeque::new())
    }

    fn start(
        fs: Arc<dyn FileSystem>,
        seal: Option<Arc<dyn Seal>>,
        next: Lsn,
        older: VecDeque<LogFile>,
    ) -> Result<Self> {
        let path = path_of(next);
        let file = start_file(&*fs, &path, &format::header(next))?;
        let state = State {
            file: Some(file),
            first: next,
            path,
            offset: HEADER_BYTES as u64,
            length: HEADER_BYTES as u64,
            buffer: Vec::new(),
            spare: Vec::new(),
            next,
            written: next,
            durable: next,
            marked: next,
            older,
            durability: Durability::Sync,
            waiting: Vec::new(),
            expected: 0,
            rotating: false,
            closed: false,
            failed: None,
        };
        let log = Log {
            fs,
            seal,
            state: Mutex::new(state),
            changed: Condvar::new(),
            wake: Condvar::new(),
            arrivals: AtomicU64::new(0),
        };
        let log = Arc::new(log);
        let serving = Arc::clone(&log);
        let thread = std::thread::Builder::new()
            .name("mvvd-wal".to_owned())
            .spawn(move || serving.serve())
            .map_err(|e| Error::new(ErrorKind::Unavailable, format!("cannot start the thread of the log: {e}")))?;
        Ok(Self { log, thread: Mutex::new(Some(thread)) })
    }

    /// Adds a record whose payload is `parts`, one after the other, and returns its number.
    ///
    /// It is only in memory until it is committed, and may be durable earlier, or never: a later record is never durable
    /// without it. Writes what waits if the buffer is full.
    pub fn append(&self, parts: &[&[u8]]) -> Result<Lsn> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        if len > PAYLOAD_BYTES_MAX {
            return Err(Error::exhausted(format!("a log record has at most {PAYLOAD_BYTES_MAX} bytes, got {len}")));
        }
        let mut state = self.log.state.lock();
        loop {
            state.check()?;
            let is_full = !state.buffer.is_empty() && state.buffer.len() + RECORD_BYTES + len > BUFFER_BYTES_MAX;
            if state.rotating || (is_full && state.file.is_none()) {
                self.log.changed.wait(&mut state);
            } else if is_full {
                self.log.write_group(&mut state, false);
            } else {
                return state.add(parts, self.log.seal.as_deref());
            }
        }
    }

    /// Returns once record `lsn`, and with it all before it, is as safe as the [`Durability`] promises.
    ///
    /// After an error the record may or may not be there when the log is opened again.
    pub fn commit(&self, lsn: Lsn) -> Result<()> {
        let mut state = self.log.state.lock();
        assert!(lsn < state.next, "record {lsn} was never appended, the next one is {}", state.next);
        let sync = state.durability == Durability::Sync;
        self.log.write_until(&mut state, lsn.next(), sync)
    }

    /// As [`Wal::commit`] without blocking: calls `done` when the record is safe, or cannot be made so.
    ///
    /// `done` runs on the log's own thread, or on this one if there is nothing to sync. It must not block.
    pub fn commit_then(&self, lsn: Lsn, done: impl FnOnce(Result<()>) + Send + 'static) {
        let mut state = self.log.state.lock();
        assert!(lsn < state.next, "record {lsn} was never appended, the next one is {}", state.next);
        let (end, sync) = (lsn.next(), state.durability == Durability::Sync);
        if !sync && state.file.is_some() && state.outcome(end, sync).is_none() {
            // The operating system takes it in less time than another thread would.
            self.log.write_group(&mut state, false);
        }
        if state.closed && state.outcome(end, sync).is_none() {
            // The thread is gone or about to go.
            let outcome = self.log.write_until(&mut state, end, sync);
            drop(state);
            return done(outcome);
        }
        if let Some(outcome) = state.outcome(end, sync) {
            drop(state);
            return done(outcome);
        }
        state.waiting.push(Waiter { end, done: Box::new(done) });
        self.log.arrivals.fetch_add(1, Ordering::Relaxed);
        let (waiting, expected) = (state.waiting.len(), state.expected);
        drop(state);
        // The thread rests if nobody waited, or until as many wait as it expects.
        if waiting == 1 || waiting >= expected {
            self.log.wake.notify_one();
        }
    }

    /// Whether [`Wal::append`] would wait now: for a new file, or for what waits to be written.
    pub fn is_busy(&self) -> bool {
        let state = self.log.state.lock();
        state.rotating || state.buffer.len() > BUFFER_BYTES_MAX / 2
    }

    /// Makes all records durable, whatever the durability.
    pub fn sync_all(&self) -> Result<()> {
        let mut state = self.log.state.lock();
        let end = state.next;
        self.log.write_until(&mut state, end, true)
    }

    /// Makes all records durable and starts a new file, so that the one before can be removed some day. Returns the
    /// number of the new file's first record. A file without records stays the last.
    pub fn rotate(&self) -> Result<Lsn> {
        let mut state = self.log.state.lock();
        while state.rotating {
            self.log.changed.wait(&mut state);
        }
        state.check()?;
        // From here on nobody appends.
        state.rotating = true;
        let end = state.next;
        let mut result = self.log.write_until(&mut state, end, true);
        if result.is_ok() && state.first < end {
            let path = path_of(end);
            let mut file = state.file.take().expect("all is written, and nobody appends");
            let started = MutexGuard::unlocked(&mut state, || {
                file.trim()?;
                file.sync()?;
                start_file(&*self.log.fs, &path, &format::header(end))
            });
            state.file = Some(file);
            match started {
                Ok(file) => state.go_on(file, path),
                // The new file may or may not have its name. If it has, the old one must not grow.
                Err(e) => result = Err(state.fail(e)),
            }
        }
        state.rotating = false;
        self.log.changed.notify_all();
        result.map(|()| end)
    }

    /// Removes the files with records below `lsn` only; never the one that is written.
    pub fn remove_below(&self, lsn: Lsn) -> Result<()> {
        let mut state = self.log.state.lock();
        let mut removed = false;
        while let Some(file) = state.older.front() {
            let following = state.older.get(1).map_or(state.first, |file| file.first);
            if following > lsn {
                break;
            }
            // Oldest first: what a crash leaves has no gap.
            self.log.fs.remove(&path_of(file.first))?;
            state.older.pop_front();
            removed = true;
        }
        if removed { self.log.fs.sync_folder(FOLDER) } else { Ok(()) }
    }

    /// Changes what the next commits wait for.
    pub fn set_durability(&self, durability: Durability) {
        self.log.state.lock().durability = durability;
        self.log.wake.notify_one();
    }

    /// Size of all files in bytes, with what waits to be written.
    pub fn bytes(&self) -> u64 {
        let state = self.log.state.lock();
        state.older.iter().map(|file| file.bytes).sum::<u64>() + state.offset + state.buffer.len() as u64
    }

    /// The last record that is durable, 0 if there is none; all before it are.
    pub fn durable(&self) -> Lsn {
        Lsn(self.log.state.lock().durable.0 - 1)
    }

    /// The last record that was appended, 0 if there is none.
    pub fn last(&self) -> Lsn {
        Lsn(self.log.state.lock().next.0 - 1)
    }

    /// Makes all records durable and marks them so: damage to them will be found. Afterwards nothing can be appended.
    pub fn close(&self) -> Result<()> {
        let result = self.log.close();
        // The last one to be told may be the last one to hold the database.
        let thread = self.thread.lock().take().filter(|thread| thread.thread().id() != std::thread::current().id());
        if let Some(thread) = thread {
            // A panic there was printed, and is of one who was told.
            let _ = thread.join();
        }
        result
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        // Who wants to know calls `close`; what was committed is as safe as it was.
        let _ = self.close();
    }
}

impl Log {
    /// Writes until all records below `end` are written, or durable if `sync`.
    ///
    /// One thread at a time, the leader, writes what all have appended; the others wait, and find their records done or
    /// in the buffer of the next leader.
    fn write_until(&self, state: &mut Guard, end: Lsn, sync: bool) -> Result<()> {
        loop {
            if let Some(outcome) = state.outcome(end, sync) {
                return outcome;
            }
            if state.file.is_some() {
                self.write_group(state, sync);
            } else {
                self.changed.wait(state);
            }
        }
    }

    /// Writes the buffer to the file, which must be there, and syncs it if `sync`. The lock is released meanwhile.
    fn write_group(&self, state: &mut Guard, sync: bool) {
        let mut file = state.file.take().expect("nobody else writes");
        let spare = std::mem::take(&mut state.spare);
        let mut group = std::mem::replace(&mut state.buffer, spare);
        if !group.is_empty() {
            let durable = Lsn(state.durable.0 - 1);
            group[..RECORD_BYTES].copy_from_slice(&format::mark(state.first, state.offset, durable));
            state.marked = state.durable;
            state.offset += group.len() as u64;
        }
        let end = state.next;
        let is_short = state.offset > state.length;
        if is_short {
            state.length = state.offset + GROWTH_BYTES;
        }
        let result = MutexGuard::unlocked(state, || {
            if is_short {
                file.grow(group.len() as u64 + GROWTH_BYTES)?;
            }
            if !group.is_empty() {
                file.write(&group)?;
            }
            if sync { file.sync() } else { Ok(()) }
        });
        match result {
            Ok(()) => {
                state.written = end;
                if sync {
                    state.durable = end;
                }
            }
            Err(e) => drop(state.fail(e)),
        }
        state.file = Some(file);
        if group.capacity() <= BUFFER_BYTES_MAX {
            group.clear();
            state.spare = group;
        }
        self.changed.notify_all();
    }

    fn close(&self) -> Result<()> {
        let mut state = self.state.lock();
        while state.rotating {
            self.changed.wait(&mut state);
        }
        if std::mem::replace(&mut state.closed, true) {
            return Ok(());
        }
        self.wake.notify_one();
        let end = state.next;
        self.write_until(&mut state, end, true)?;
        if state.marked < end {
            // Nothing is appended any more, so this group is the mark alone.
            state.buffer.resize(RECORD_BYTES, 0);
            while state.file.is_none() {
                self.changed.wait(&mut state);
            }
            self.write_group(&mut state, true);
        }
        if let Some(failed) = &state.failed {
            return Err(poisoned(failed));
        }
        while state.file.is_none() {
            self.changed.wait(&mut state);
        }
        let file = state.file.as_mut().expect("it was waited for");
        let trimmed = file.trim().and_then(|()| file.sync());
        trimmed.map_err(|e| state.fail(e))
    }

    /// Writes for those who wait without a thread, and syncs as often as the durability says, until the log is closed.
    ///
    /// Those who were told together are likely to come back together, so the next group waits a little for them: without
    /// that, two halves take turns, and each sync serves one of them.
    fn serve(&self) {
        let mut synced = Instant::now();
        let mut delay = Duration::ZERO;
        let mut state = self.state.lock();
        loop {
            if !state.waiting.is_empty() {
                let sync = state.durability == Durability::Sync;
                let end = Instant::now() + delay;
                while sync && state.waiting.len() < state.expected && !state.closed && state.failed.is_none() {
                    if self.wake.wait_until(&mut state, end).timed_out() {
                        break;
                    }
                }
                let start = Instant::now();
                let last = state.waiting.iter().map(|waiter| waiter.end).max().unwrap_or_default();
                // `tell` has the result for each.
                let _ = self.write_until(&mut state, last, sync);
                delay = (start.elapsed() / DELAY_PART).min(DELAY_MAX);
                self.tell(&mut state, sync);
                if sync {
                    self.linger(&mut state);
                }
            } else if state.closed {
                return;
            }
            match state.durability {
                Durability::Interval(interval) if state.failed.is_none() => {
                    if synced.elapsed() >= interval {
                        let end = state.written;
                        // The next commit says what is wrong.
                        let _ = self.write_until(&mut state, end, true);
                        synced = Instant::now();
                    } else if state.waiting.is_empty() && !state.closed {
                        self.wake.wait_until(&mut state, synced + interval);
                    }
                }
                _ if state.waiting.is_empty() && !state.closed => self.wake.wait(&mut state),
                _ => {}
            }
        }
    }

    /// Waits a moment for those who were told to come back. The lock is released meanwhile.
    fn linger(&self, state: &mut Guard) {
        let (arrivals, end) = (self.arrivals.load(Ordering::Relaxed), Instant::now() + LINGER);
        let nobody_waits = state.waiting.is_empty() && !state.closed;
        MutexGuard::unlocked(state, || {
            while nobody_waits && self.arrivals.load(Ordering::Relaxed) == arrivals && Instant::now() < end {
                std::thread::yield_now();
            }
        });
    }

    /// Tells those whose records are safe, or never will be. The lock is released meanwhile.
    fn tell(&self, state: &mut Guard, sync: bool) {
        let told: Vec<_> = std::mem::take(&mut state.waiting)
            .into_iter()
            .map(|waiter| (state.outcome(waiter.end, sync), waiter))
            .collect();
        let mut done = Vec::with_capacity(told.len());
        for (outcome, waiter) in told {
            match outcome {
                Some(outcome) => done.push((outcome, waiter.done)),
                None => state.waiting.push(waiter),
            }
        }
        state.expected = done.len() + state.waiting.len();
        MutexGuard::unlocked(state, || {
            for (outcome, tell) in done {
                // A bug there is printed, and must not end the log.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tell(outcome)));
            }
        });
    }
}

impl State {
    /// Refuses to go on if it must not.
    fn check(&self) -> Result<()> {
        match &self.failed {
            Some(failed) => Err(poisoned(failed)),
            None if self.closed => Err(Error::new(ErrorKind::Unavailable, "the log is closed")),
            None => Ok(()),
        }
    }

    /// What became of the records below `end`: safe, or lost; `None` if there is something to wait for.
    fn outcome(&self, end: Lsn, sync: bool) -> Option<Result<()>> {
        if end <= self.durable {
            return Some(Ok(()));
        }
        if let Some(failed) = &self.failed {
            // What was written before a sync failed may be gone as well.
            return Some(Err(poisoned(failed)));
        }
        (!sync && end <= self.written).then_some(Ok(()))
    }

    /// Ends all writing. Returns what everybody is told from now on.
    fn fail(&mut self, error: Error) -> Error {
        let failed = self.failed.get_or_insert_with(|| error.message().to_owned());
        poisoned(failed).with_source(error)
    }

    /// Puts a record into the buffer.
    fn add(&mut self, parts: &[&[u8]], seal: Option<&dyn Seal>) -> Result<Lsn> {
        let lsn = self.next;
        let sealed = seal.map(|seal| seal.seal(&format::context(&self.path, lsn), &parts.concat())).transpose()?;
        if self.buffer.is_empty() {
            self.buffer.resize(RECORD_BYTES, 0);
        }
        let start = self.buffer.len();
        self.buffer.resize(start + RECORD_BYTES, 0);
        match &sealed {
            Some(payload) => self.buffer.extend_from_slice(payload),
            None => parts.iter().for_each(|part| self.buffer.extend_from_slice(part)),
        }
        let at = self.offset + start as u64;
        format::finish_record(&mut self.buffer[start..], self.first, at, lsn);
        self.next = lsn.next();
        Ok(lsn)
    }

    /// Goes on in a new file, whose first record is the next one.
    fn go_on(&mut self, file: Box<dyn WriteFile>, path: String) {
        assert!(self.file.is_some() && self.buffer.is_empty(), "the file before is complete");
        self.older.push_back(LogFile { first: self.first, bytes: self.offset });
        self.file = Some(file);
        self.first = self.next;
        self.path = path;
        self.offset = HEADER_BYTES as u64;
        self.length = self.offset;
        self.marked = self.next;
    }
}

fn poisoned(failed: &str) -> Error {
    let message = format!("the log could not be written: {failed}; the database is read-only until it is opened again");
    Error::new(ErrorKind::Unavailable, message)
}

fn damaged(path: &str, at: usize, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("log file \"{path}\" is damaged at byte {at}: {what}"))
}

#[cfg(test)]
mod tests;
