//! The directory of a database on disk.

use std::any::Any;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use arrow::buffer::Buffer;
use mvvd_core::{Error, ErrorKind, Result};

use super::{FileSystem, WriteFile, check_path, map};

/// Files below a directory of the operating system.
#[derive(Debug)]
pub struct DiskFs {
    root: PathBuf,
}

impl DiskFs {
    /// The files below `root`; `create_folder("")` makes it if it is missing.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        check_path(path)?;
        Ok(if path.is_empty() { self.root.clone() } else { self.root.join(path) })
    }
}

impl FileSystem for DiskFs {
    fn create(&self, path: &str) -> Result<Box<dyn WriteFile>> {
        let place = self.place(path)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&place);
        let file = file.map_err(|e| failed("create", &place, e))?;
        Ok(Box::new(DiskFile { file, place, written: 0 }))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let place = self.place(path)?;
        fs::read(&place).map_err(|e| failed("read", &place, e))
    }

    fn map(&self, path: &str) -> Result<Buffer> {
        let place = self.place(path)?;
        File::open(&place).and_then(|file| map::map(&file)).map_err(|e| failed("map", &place, e))
    }

    fn len(&self, path: &str) -> Result<u64> {
        let place = self.place(path)?;
        Ok(fs::metadata(&place).map_err(|e| failed("read", &place, e))?.len())
    }

    fn exists(&self, path: &str) -> Result<bool> {
        let place = self.place(path)?;
        place.try_exists().map_err(|e| failed("look for", &place, e))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let place = self.place(folder)?;
        let entries = match fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed("list", &place, e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| failed("list", &place, e))?;
            let is_folder = entry.file_type().map_err(|e| failed("list", &place, e))?.is_dir();
            // A name that is no text is none of ours.
            if let (false, Ok(name)) = (is_folder, entry.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_folder(&self, path: &str) -> Result<()> {
        create_folder(&self.place(path)?)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        fs::rename(&from, &to).map_err(|e| failed("rename", &from, e))
    }

    fn remove(&self, path: &str) -> Result<()> {
        let place = self.place(path)?;
        fs::remove_file(&place).map_err(|e| failed("remove", &place, e))
    }

    fn sync_folder(&self, path: &str) -> Result<()> {
        sync_folder(&self.place(path)?)
    }

    fn lock(&self, path: &str) -> Result<Option<Box<dyn Any + Send + Sync>>> {
        let place = self.place(path)?;
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&place);
        let file = file.map_err(|e| failed("lock", &place, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(failed("lock", &place, e)),
        }
    }
}

/// The first `bytes_max` bytes of a file outside the database.
pub(crate) fn read_start(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let read = || {
        // Room for all of it: no copy of what may be secret stays behind in memory.
        let mut bytes = Vec::with_capacity(bytes_max as usize + 1);
        File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|e| failed("read", path, e))
}

#[derive(Debug)]
struct DiskFile {
    file: File,
    place: PathBuf,
    /// So many bytes.
    written: u64,
}

impl WriteFile for DiskFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| failed("write", &self.place, e))?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        // The length is part of what makes the bytes readable, so this writes it as well.
        self.file.sync_data().map_err(|e| failed("sync", &self.place, e))
    }

    fn grow(&mut self, bytes: u64) -> Result<()> {
        self.file.set_len(self.written + bytes).map_err(|e| failed("grow", &self.place, e))
    }

    fn trim(&mut self) -> Result<()> {
        self.grow(0)
    }
}

/// Makes the folder, from the topmost missing one down; each is durable before the next.
pub(super) fn create_folder(place: &Path) -> Result<()> {
    if place.is_dir() {
        return Ok(());
    }
    let above = place.parent().map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
    if let Some(above) = above {
        create_folder(above)?;
    }
    match fs::create_dir(place) {
        // Somebody else was faster.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && place.is_dir() => {}
        made => made.map_err(|e| failed("create", place, e))?,
    }
    above.map_or(Ok(()), sync_folder)
}

pub(super) fn sync_folder(place: &Path) -> Result<()> {
    // Windows opens no folder as a file; NTFS keeps its names in a journal.
    if cfg!(windows) {
        return Ok(());
    }
    File::open(place).and_then(|folder| folder.sync_all()).map_err(|e| failed("sync", place, e))
}

pub(super) fn failed(what: &str, place: &Path, e: io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("cannot {what} \"{}\": {e}", place.display())).with_source(e)
}
