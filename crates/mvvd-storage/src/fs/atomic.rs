//! A file outside the database that appears only when it is complete: what COPY writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use mvvd_core::{Error, ErrorKind, Result};

use super::disk::sync_folder;

/// A file that appears under its name only when it is complete.
///
/// Written beside its place and renamed by [`AtomicFile::commit`], so that a failed or cancelled write leaves whatever
/// was there before; dropped without a commit, it is removed. A link is followed. What exists and is no regular file (a
/// pipe, a device) is written straight.
#[derive(Debug)]
pub struct AtomicFile {
    writer: Option<BufWriter<File>>,
    /// The file beside, until it has its name; `None` where it is written straight.
    part: Option<PathBuf>,
    path: PathBuf,
}

/// Makes the names of parts differ within the process.
static NEXT_PART: AtomicU64 = AtomicU64::new(0);

impl AtomicFile {
    /// Starts a file that will be `path`.
    pub fn create(path: &Path) -> Result<Self> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let failed = |e: &io::Error| unavailable("create", &path, e);
        if let Ok(there) = fs::metadata(&path)
            && !there.is_file()
        {
            let file = OpenOptions::new().write(true).open(&path).map_err(|e| failed(&e))?;
            return Ok(Self { writer: Some(BufWriter::new(file)), part: None, path });
        }
        let Some(name) = path.file_name() else {
            return Err(Error::invalid(format!("\"{}\" is no file name", path.display())));
        };
        let mut name = name.to_owned();
        name.push(format!(".part-{}-{}", std::process::id(), NEXT_PART.fetch_add(1, Ordering::Relaxed)));
        let part = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&part).map_err(|e| failed(&e))?;
        Ok(Self { writer: Some(BufWriter::new(file)), part: Some(part), path })
    }

    /// Makes the file durable and gives it its name.
    pub fn commit(mut self) -> Result<()> {
        let path = self.path.clone();
        let failed = |e: &io::Error| unavailable("write", &path, e);
        if let Some(writer) = self.writer.take() {
            let file = writer.into_inner().map_err(|e| failed(e.error()))?;
            if self.part.is_some() {
                file.sync_all().map_err(|e| failed(&e))?;
            }
        }
        let Some(part) = &self.part else { return Ok(()) };
        fs::rename(part, &self.path).map_err(|e| failed(&e))?;
        self.part = None;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_folder(folder)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.open()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.open()?.flush()
    }
}

impl AtomicFile {
    fn open(&mut self) -> io::Result<&mut BufWriter<File>> {
        self.writer.as_mut().ok_or_else(|| io::Error::other("the file is closed"))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        drop(self.writer.take());
        if let Some(part) = &self.part {
            let _ = fs::remove_file(part);
        }
    }
}

fn unavailable(what: &str, path: &Path, e: &io::Error) -> Error {
    let kind = if e.kind() == io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Unavailable };
    Error::new(kind, format!("cannot {what} file \"{}\": {e}", path.display()))
}
