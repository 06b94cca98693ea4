//! Files: the only place that touches the file system.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use mvvd_core::{Error, ErrorKind, Result};

/// A file that appears under its name only when it is complete.
///
/// Written beside its place and renamed by [`AtomicFile::commit`], so that a failed or cancelled write leaves whatever
/// was there before; dropped without a commit, it is removed.
#[derive(Debug)]
pub struct AtomicFile {
    writer: Option<BufWriter<File>>,
    part: PathBuf,
    path: PathBuf,
}

impl AtomicFile {
    /// Starts a file that will be `path`.
    pub fn create(path: &Path) -> Result<Self> {
        let mut name = path
            .file_name()
            .map(ToOwned::to_owned)
            .ok_or_else(|| Error::invalid(format!("\"{}\" is no file name", path.display())))?;
        name.push(format!(".part-{}", std::process::id()));
        let part = path.with_file_name(name);
        let file = File::create(&part).map_err(|e| unavailable("create", path, &e))?;
        Ok(Self { writer: Some(BufWriter::new(file)), part, path: path.to_owned() })
    }

    /// Makes the file durable and gives it its name.
    pub fn commit(mut self) -> Result<()> {
        let failed = |e: &io::Error| unavailable("write", &self.path, e);
        if let Some(writer) = self.writer.take() {
            let file = writer.into_inner().map_err(|e| failed(e.error()))?;
            file.sync_all().map_err(|e| failed(&e))?;
        }
        fs::rename(&self.part, &self.path).map_err(|e| failed(&e))?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed(&e))
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
        // After a commit the part has been renamed away, and there is nothing to remove.
        drop(self.writer.take());
        let _ = fs::remove_file(&self.part);
    }
}

fn unavailable(what: &str, path: &Path, e: &io::Error) -> Error {
    let kind = if e.kind() == io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Unavailable };
    Error::new(kind, format!("cannot {what} file \"{}\": {e}", path.display()))
}
