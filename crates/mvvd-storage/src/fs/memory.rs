//! Files that live as long as the process: databases in memory, and tests.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::buffer::Buffer;
use mvvd_core::{Error, Result};
use parking_lot::Mutex;

use super::{FileSystem, WriteFile, check_path, folder_of};

/// Files in memory. A clone is the same file system.
#[derive(Debug, Clone, Default)]
pub struct MemoryFs {
    tree: Arc<Mutex<Tree>>,
}

#[derive(Debug, Default)]
struct Tree {
    files: BTreeMap<String, Bytes>,
    folders: BTreeSet<String>,
    locks: BTreeSet<String>,
}

type Bytes = Arc<Mutex<Vec<u8>>>;

impl MemoryFs {
    /// A file system without files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file there, in place of the one that has the name, with the folders above it.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        let mut tree = self.tree.lock();
        add_folder(&mut tree.folders, folder_of(path));
        tree.files.insert(path.to_owned(), Arc::new(Mutex::new(bytes)));
    }

    /// Makes the folder and those above it.
    pub(super) fn put_folder(&self, path: &str) {
        add_folder(&mut self.tree.lock().folders, path);
    }

    /// All files by path.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        self.tree.lock().files.iter().map(|(path, bytes)| (path.clone(), bytes.lock().clone())).collect()
    }

    /// All folders.
    pub(super) fn folders(&self) -> BTreeSet<String> {
        self.tree.lock().folders.clone()
    }

    fn file(&self, path: &str) -> Result<Bytes> {
        check_path(path)?;
        self.tree.lock().files.get(path).cloned().ok_or_else(|| missing(path))
    }
}

impl FileSystem for MemoryFs {
    fn create(&self, path: &str) -> Result<Box<dyn WriteFile>> {
        check_path(path)?;
        let mut tree = self.tree.lock();
        if !has_folder(&tree.folders, folder_of(path)) {
            return Err(missing(folder_of(path)));
        }
        if tree.files.contains_key(path) {
            return Err(taken(path));
        }
        let bytes = Bytes::default();
        tree.files.insert(path.to_owned(), Arc::clone(&bytes));
        Ok(Box::new(MemoryFile { bytes }))
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        Ok(self.file(path)?.lock().clone())
    }

    fn map(&self, path: &str) -> Result<Buffer> {
        Ok(Buffer::from(self.file(path)?.lock().as_slice()))
    }

    fn len(&self, path: &str) -> Result<u64> {
        Ok(self.file(path)?.lock().len() as u64)
    }

    fn exists(&self, path: &str) -> Result<bool> {
        check_path(path)?;
        let tree = self.tree.lock();
        Ok(tree.files.contains_key(path) || has_folder(&tree.folders, path))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        check_path(folder)?;
        Ok(names_in(self.tree.lock().files.keys(), folder))
    }

    fn create_folder(&self, path: &str) -> Result<()> {
        check_path(path)?;
        self.put_folder(path);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        check_path(to)?;
        let mut tree = self.tree.lock();
        if !has_folder(&tree.folders, folder_of(to)) {
            return Err(missing(folder_of(to)));
        }
        let bytes = tree.files.remove(from).ok_or_else(|| missing(from))?;
        tree.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.tree.lock().files.remove(path).map(drop).ok_or_else(|| missing(path))
    }

    fn sync_folder(&self, path: &str) -> Result<()> {
        if has_folder(&self.tree.lock().folders, path) { Ok(()) } else { Err(missing(path)) }
    }

    fn lock(&self, path: &str) -> Result<Option<Box<dyn Any + Send + Sync>>> {
        check_path(path)?;
        let mut tree = self.tree.lock();
        tree.files.entry(path.to_owned()).or_default();
        if !tree.locks.insert(path.to_owned()) {
            return Ok(None);
        }
        Ok(Some(Box::new(MemoryLock { tree: Arc::clone(&self.tree), path: path.to_owned() })))
    }
}

#[derive(Debug)]
struct MemoryFile {
    bytes: Bytes,
}

impl WriteFile for MemoryFile {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.lock().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }
}

struct MemoryLock {
    tree: Arc<Mutex<Tree>>,
    path: String,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.tree.lock().locks.remove(&self.path);
    }
}

/// Whether `folders` has `path`; the root always exists.
pub(super) fn has_folder(folders: &BTreeSet<String>, path: &str) -> bool {
    path.is_empty() || folders.contains(path)
}

/// Adds `path` and the folders above it.
pub(super) fn add_folder(folders: &mut BTreeSet<String>, mut path: &str) {
    while !path.is_empty() {
        folders.insert(path.to_owned());
        path = folder_of(path);
    }
}

/// The names of those `paths`, in order, that are directly in `folder`.
pub(super) fn names_in<'a>(paths: impl Iterator<Item = &'a String>, folder: &str) -> Vec<String> {
    paths
        .filter(|path| folder_of(path) == folder)
        .map(|path| path[folder.len()..].trim_start_matches('/').to_owned())
        .collect()
}

pub(super) fn missing(path: &str) -> Error {
    Error::not_found(format!("file \"{path}\" does not exist"))
}

pub(super) fn taken(path: &str) -> Error {
    Error::already_exists(format!("file \"{path}\" already exists"))
}
