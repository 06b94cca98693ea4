//! Files: the only place that touches the file system, and the seam that tests break it at.

mod atomic;
mod disk;
mod faulty;
mod folder;
mod map;
mod memory;

use std::any::Any;
use std::fmt::Debug;

use arrow::buffer::Buffer;
use mvvd_core::{Error, Result};

pub use atomic::AtomicFile;
pub use disk::DiskFs;
pub(crate) use disk::read_start;
pub use faulty::FaultyFs;
pub use folder::NewFolder;
pub use memory::MemoryFs;

/// The file system as storage sees it.
///
/// Paths are relative to the database's directory, with `/`: `"wal/000001.log"`; `""` is the directory itself. What is
/// written to a file is durable after [`WriteFile::sync`]; that it has its name, or has none, after
/// [`FileSystem::sync_folder`] of its folder.
pub trait FileSystem: Send + Sync + Debug {
    /// Makes a new, empty file in a folder that exists; `AlreadyExists` if there is one of that name.
    fn create(&self, path: &str) -> Result<Box<dyn WriteFile>>;

    /// The whole file.
    fn read(&self, path: &str) -> Result<Vec<u8>>;

    /// The whole file, aligned to 64 bytes: mapped on disk, a copy elsewhere.
    ///
    /// A mapped file must not be written to or cut; replacing or removing it is fine, the map keeps what it had.
    fn map(&self, path: &str) -> Result<Buffer>;

    /// Length of the file in bytes.
    fn len(&self, path: &str) -> Result<u64>;

    /// Whether there is a file or folder of that name.
    fn exists(&self, path: &str) -> Result<bool>;

    /// Names of the files (not of the folders) in `folder`, sorted; none if the folder is missing.
    fn list(&self, folder: &str) -> Result<Vec<String>>;

    /// Makes the folder and those above it, durably; nothing to do if it exists.
    fn create_folder(&self, path: &str) -> Result<()>;

    /// Gives the file another name, in place of the file that had it. Durable after `sync_folder`.
    fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// Removes the file. Durable after `sync_folder`.
    fn remove(&self, path: &str) -> Result<()>;

    /// Makes the names in the folder durable.
    fn sync_folder(&self, path: &str) -> Result<()>;

    /// Takes the exclusive lock of that name, held while the value lives; `None` if somebody else has it.
    ///
    /// The file is made if it is missing, and stays.
    fn lock(&self, path: &str) -> Result<Option<Box<dyn Any + Send + Sync>>>;
}

/// A file being written, one write after the other. Nothing is buffered here: a write has reached the file system.
pub trait WriteFile: Send + Debug {
    /// Adds `bytes` after what was written. After an error, any part of them may be there.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Makes all that was written durable. After an error nothing since the last success may be relied on, ever:
    /// calling again can succeed without having written a thing.
    fn sync(&mut self) -> Result<()>;

    /// Makes the file longer, by `bytes` zeros after what was written, which the next writes go over: as long as they do,
    /// a sync has no new length to make durable. A crash may leave the zeros or not. Takes no space on the device yet.
    ///
    /// Does nothing where a longer file makes no difference.
    fn grow(&mut self, bytes: u64) -> Result<()> {
        let _ = bytes;
        Ok(())
    }

    /// Ends the file after what was written. Durable after the next sync.
    fn trim(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Puts a file of `bytes` in the place of `path` in one durable step: a crash leaves the old file or the new one.
///
/// Uses the name `path` + `.tmp`, and takes over what a crash left there.
pub fn replace_file(fs: &dyn FileSystem, path: &str, bytes: &[u8]) -> Result<()> {
    start_file(fs, path, bytes).map(drop)
}

/// As [`replace_file`], and leaves the file open to be continued.
pub(crate) fn start_file(fs: &dyn FileSystem, path: &str, bytes: &[u8]) -> Result<Box<dyn WriteFile>> {
    let part = format!("{path}.tmp");
    if fs.exists(&part)? {
        fs.remove(&part)?;
    }
    let mut file = fs.create(&part)?;
    let placed = file.write(bytes).and_then(|()| file.sync()).and_then(|()| fs.rename(&part, path));
    if placed.is_err() {
        // Half a file takes room that may be what is missing.
        let _ = fs.remove(&part);
    }
    placed?;
    fs.sync_folder(folder_of(path))?;
    Ok(file)
}

/// The folder that `path` is in.
fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Refuses a path that could leave the database's directory: a damaged file may name any.
fn check_path(path: &str) -> Result<()> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0']);
    if path.is_empty() || path.split('/').all(plain) {
        Ok(())
    } else {
        Err(Error::invalid(format!("\"{path}\" is no path within the database")))
    }
}

#[cfg(test)]
mod tests;
