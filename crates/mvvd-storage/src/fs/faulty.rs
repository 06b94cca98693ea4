//! A file system for tests: it fails where it is told to, and knows what a power cut could leave.
//!
//! What is written is volatile until the file is synced, names are volatile until their folder is. At a power cut:
//! - of a file, what was synced stays, and of the bytes after it none, all, the first few (to any byte), or any of
//!   their sectors of 512 bytes, the others as zeros, may be there: a device writes in the order it likes;
//! - of the names made, changed and removed in a folder since it was synced, the first few changes are there.
//!
//! A write never damages synced bytes, in the same sector or not. A file that was grown or trimmed has its old length or
//! its new one until it is synced. Making a folder is durable at once. A rename into another folder becomes durable with
//! the folder it goes to. After a failed sync, the bytes that
//! it should have made durable can be read but reach the device no more, as with the page cache of Linux: a later sync
//! that succeeds leaves zeros there.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::buffer::Buffer;
use mvvd_core::{Error, ErrorKind, Result};
use parking_lot::Mutex;

use super::memory::{add_folder, has_folder, missing, names_in, taken};
use super::{FileSystem, MemoryFs, WriteFile, check_path, folder_of};

/// What a device writes as a whole.
const SECTOR_BYTES: usize = 512;

/// A file system in memory that can fail and crash. A clone is the same file system.
#[derive(Debug, Clone, Default)]
pub struct FaultyFs {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    files: Vec<File>,
    /// The names as the process sees them: path to position in `files`.
    names: BTreeMap<String, usize>,
    /// The names that a power cut leaves at least.
    durable_names: BTreeMap<String, usize>,
    /// From the second to the first, in order.
    changes: Vec<Change>,
    folders: BTreeSet<String>,
    locks: BTreeSet<String>,
    steps: u64,
    syncs: u64,
    crash_at: Option<u64>,
    fail_sync_at: Option<u64>,
    room: Option<u64>,
    sync_takes: Duration,
}

#[derive(Debug, Default)]
struct File {
    /// What a power cut leaves at least. The first `synced` bytes are those of what is volatile, but for `lost`; zeros
    /// after them are of a file that was grown.
    durable: Vec<u8>,
    synced: usize,
    /// What the process reads: the first `written` bytes, and zeros in a file that was grown.
    volatile: Vec<u8>,
    written: usize,
    /// What a failed sync left out for good.
    lost: Vec<Range<usize>>,
}

/// One change to the names of a folder.
#[derive(Debug, Clone)]
struct Change {
    /// The name that goes.
    gone: Option<String>,
    /// The name that comes, in place of the one that is there.
    new: Option<(String, usize)>,
}

impl FaultyFs {
    /// A file system without files.
    pub fn new() -> Self {
        Self::default()
    }

    /// A file system with the files of `image`, all durable.
    pub fn from_image(image: &MemoryFs) -> Self {
        let mut disk = Disk { folders: image.folders(), ..Disk::default() };
        for (path, bytes) in image.files() {
            disk.names.insert(path, disk.files.len());
            let len = bytes.len();
            let (durable, volatile) = (bytes.clone(), bytes);
            disk.files.push(File { durable, synced: len, volatile, written: len, lost: Vec::new() });
        }
        disk.durable_names = disk.names.clone();
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Number of steps so far: calls of create, write, sync, grow, trim, rename, remove, `create_folder`,
    /// `sync_folder`.
    pub fn steps(&self) -> u64 {
        self.disk.lock().steps
    }

    /// Number of syncs of files so far.
    pub fn syncs(&self) -> u64 {
        self.disk.lock().syncs
    }

    /// Cuts the power in step `step`, counted from 1: it and all calls after it fail.
    ///
    /// Of the step itself any part may have happened: [`FaultyFs::crash_image`] chooses.
    pub fn crash_at(&self, step: u64) {
        self.disk.lock().crash_at = Some(step);
    }

    /// Fails the `n`-th sync of a file from now, 1 being the next; those after it succeed.
    pub fn fail_sync_at(&self, n: u64) {
        let mut disk = self.disk.lock();
        disk.fail_sync_at = Some(disk.syncs + n);
    }

    /// Makes every sync of a file take that long, as a device does.
    pub fn sync_takes(&self, time: Duration) {
        self.disk.lock().sync_takes = time;
    }

    /// Leaves room for `bytes` more bytes; the write that needs more writes what fits and fails.
    pub fn disk_full_after(&self, bytes: u64) {
        self.disk.lock().room = Some(bytes);
    }

    /// Damages one byte of a file, for readers and for good.
    pub fn flip_byte(&self, path: &str, offset: u64) {
        let mut disk = self.disk.lock();
        let file = disk.names.get(path).copied().expect("the file exists");
        let file = &mut disk.files[file];
        for bytes in [&mut file.durable, &mut file.volatile] {
            if let Some(byte) = bytes.get_mut(offset as usize) {
                *byte ^= 0xff;
            }
        }
    }

    /// The files that a power cut now could leave, one possibility for each `seed`.
    pub fn crash_image(&self, seed: u64) -> MemoryFs {
        let disk = self.disk.lock();
        let mut random = Random(seed);
        let image = MemoryFs::new();
        for folder in &disk.folders {
            image.put_folder(folder);
        }
        let mut names = disk.durable_names.clone();
        for folder in disk.changes.iter().map(Change::folder).collect::<BTreeSet<_>>() {
            let changes: Vec<_> = disk.changes.iter().filter(|change| change.folder() == folder).collect();
            let kept = random.below(changes.len() + 1);
            changes[..kept].iter().for_each(|change| change.apply(&mut names));
        }
        for (path, file) in names {
            image.put(&path, disk.files[file].after_crash(&mut random));
        }
        image
    }

    fn look<T>(&self, path: &str, f: impl FnOnce(&File) -> T) -> Result<T> {
        check_path(path)?;
        let disk = self.disk.lock();
        disk.alive()?;
        Ok(f(&disk.files[disk.find(path)?]))
    }
}

impl FileSystem for FaultyFs {
    fn create(&self, path: &str) -> Result<Box<dyn WriteFile>> {
        check_path(path)?;
        let mut disk = self.disk.lock();
        disk.alive()?;
        if !has_folder(&disk.folders, folder_of(path)) {
            return Err(missing(folder_of(path)));
        }
        if disk.names.contains_key(path) {
            return Err(taken(path));
        }
        let file = disk.files.len();
        disk.files.push(File::default());
        disk.change(Change { gone: None, new: Some((path.to_owned(), file)) });
        disk.step()?;
        Ok(Box::new(FaultyFile { disk: Arc::clone(&self.disk), file, path: path.to_owned() }))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        self.look(path, |file| file.volatile.clone())
    }

    fn map(&self, path: &str) -> Result<Buffer> {
        self.look(path, |file| Buffer::from(file.volatile.as_slice()))
    }

    fn len(&self, path: &str) -> Result<u64> {
        self.look(path, |file| file.volatile.len() as u64)
    }

    fn exists(&self, path: &str) -> Result<bool> {
        check_path(path)?;
        let disk = self.disk.lock();
        disk.alive()?;
        Ok(disk.names.contains_key(path) || has_folder(&disk.folders, path))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        check_path(folder)?;
        let disk = self.disk.lock();
        disk.alive()?;
        Ok(names_in(disk.names.keys(), folder))
    }

    fn create_folder(&self, path: &str) -> Result<()> {
        check_path(path)?;
        let mut disk = self.disk.lock();
        disk.step()?;
        add_folder(&mut disk.folders, path);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        check_path(to)?;
        let mut disk = self.disk.lock();
        disk.alive()?;
        if !has_folder(&disk.folders, folder_of(to)) {
            return Err(missing(folder_of(to)));
        }
        let file = disk.find(from)?;
        disk.change(Change { gone: Some(from.to_owned()), new: Some((to.to_owned(), file)) });
        disk.step()
    }

    fn remove(&self, path: &str) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.alive()?;
        disk.find(path)?;
        disk.change(Change { gone: Some(path.to_owned()), new: None });
        disk.step()
    }

    fn sync_folder(&self, path: &str) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.step()?;
        if !has_folder(&disk.folders, path) {
            return Err(missing(path));
        }
        let (durable, volatile) = std::mem::take(&mut disk.changes).into_iter().partition(|c| c.folder() == path);
        disk.changes = volatile;
        let durable: Vec<Change> = durable;
        durable.iter().for_each(|change| change.apply(&mut disk.durable_names));
        Ok(())
    }

    fn lock(&self, path: &str) -> Result<Option<Box<dyn Any + Send + Sync>>> {
        check_path(path)?;
        let mut disk = self.disk.lock();
        disk.alive()?;
        if !disk.names.contains_key(path) {
            let file = disk.files.len();
            disk.files.push(File::default());
            disk.change(Change { gone: None, new: Some((path.to_owned(), file)) });
        }
        if !disk.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(FaultyLock { disk: Arc::clone(&self.disk), path: path.to_owned() })))
    }
}

impl Disk {
    /// Fails once the power is cut.
    fn alive(&self) -> Result<()> {
        match self.crash_at {
            Some(at) if self.steps >= at => Err(Error::new(ErrorKind::Unavailable, "crashed")),
            _ => Ok(()),
        }
    }

    /// Counts a step; fails if the power is cut in it.
    fn step(&mut self) -> Result<()> {
        self.alive()?;
        self.steps += 1;
        self.alive()
    }

    fn find(&self, path: &str) -> Result<usize> {
        self.names.get(path).copied().ok_or_else(|| missing(path))
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }
}

impl Change {
    fn folder(&self) -> &str {
        let path = self.new.as_ref().map(|(path, _)| path).or(self.gone.as_ref());
        folder_of(path.expect("a change is of a name"))
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(path) = &self.gone {
            names.remove(path);
        }
        if let Some((path, file)) = &self.new {
            names.insert(path.clone(), *file);
        }
    }
}

impl File {
    fn write(&mut self, bytes: &[u8]) {
        let end = self.written + bytes.len();
        self.volatile.resize(self.volatile.len().max(end), 0);
        self.volatile[self.written..end].copy_from_slice(bytes);
        self.written = end;
    }

    fn sync(&mut self) {
        self.durable.resize(self.volatile.len(), 0);
        self.durable[self.synced..].copy_from_slice(&self.volatile[self.synced..]);
        self.lost.drain(..).for_each(|lost| self.durable[lost].fill(0));
        self.synced = self.written;
    }

    fn fail_sync(&mut self) {
        let start = self.lost.last().map_or(self.synced, |lost| lost.end);
        self.lost.push(start..self.written);
    }

    fn after_crash(&self, random: &mut Random) -> Vec<u8> {
        let (start, end) = (self.synced, self.written);
        let mut bytes = self.durable[..start].to_vec();
        match random.below(4) {
            0 => {}
            1 => bytes.extend_from_slice(&self.volatile[start..]),
            2 => bytes.extend_from_slice(&self.volatile[start..start + random.below(end - start + 1)]),
            _ => {
                let end = if random.below(2) == 0 { end } else { start + random.below(end - start + 1) };
                while bytes.len() < end {
                    let at = bytes.len();
                    let sector = at..(at / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES).min(end);
                    if random.below(2) == 0 {
                        bytes.resize(sector.end, 0);
                    } else {
                        bytes.extend_from_slice(&self.volatile[sector]);
                    }
                }
            }
        }
        let lengths = [self.durable.len(), self.volatile.len()];
        let is_grown = lengths.iter().any(|&length| length > end);
        // What was written may be there only as far as the length is.
        if is_grown {
            bytes.resize(lengths[random.below(2)].max(start), 0);
        }
        bytes
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: Arc<Mutex<Disk>>,
    file: usize,
    path: String,
}

impl WriteFile for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.alive()?;
        let fits = disk.room.map_or(bytes.len(), |room| bytes.len().min(room as usize));
        disk.files[self.file].write(&bytes[..fits]);
        disk.room = disk.room.map(|room| room - fits as u64);
        disk.step()?;
        if fits < bytes.len() {
            let message = format!("cannot write \"{}\": no space left", self.path);
            return Err(Error::exhausted(message));
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let time = self.disk.lock().sync_takes;
        std::thread::sleep(time);
        let mut disk = self.disk.lock();
        disk.step()?;
        disk.syncs += 1;
        if disk.fail_sync_at == Some(disk.syncs) {
            disk.files[self.file].fail_sync();
            let message = format!("cannot sync \"{}\": input/output error", self.path);
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        disk.files[self.file].sync();
        Ok(())
    }

    fn grow(&mut self, bytes: u64) -> Result<()> {
        let mut disk = self.disk.lock();
        disk.alive()?;
        let file = &mut disk.files[self.file];
        file.volatile.resize(file.written + bytes as usize, 0);
        disk.step()
    }

    fn trim(&mut self) -> Result<()> {
        self.grow(0)
    }
}

struct FaultyLock {
    disk: Arc<Mutex<Disk>>,
    path: String,
}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        self.disk.lock().locks.remove(&self.path);
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014).
struct Random(u64);

impl Random {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}
