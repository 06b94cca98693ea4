//! A folder that appears only when it is complete: what a backup writes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mvvd_core::{Error, Result};

use super::DiskFs;
use super::disk::{create_folder, failed, sync_folder};

/// A folder that appears under its name only when it is complete.
///
/// Written beside its place and renamed by [`NewFolder::commit`]; dropped without, it is removed with all that is in it.
#[derive(Debug)]
pub struct NewFolder {
    /// The folder beside, until it has its name.
    part: Option<PathBuf>,
    path: PathBuf,
}

impl NewFolder {
    /// Starts a folder that will be `path`, where there is nothing, or an empty folder.
    pub fn create(path: &Path) -> Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(Error::invalid(format!("\"{}\" is no name of a folder", path.display())));
        };
        refuse_used(path)?;
        let mut name = name.to_owned();
        name.push(format!(".part-{}", std::process::id()));
        let part = path.with_file_name(name);
        // What is there is left of a process with the same number that was killed, or somebody else's.
        refuse_used(&part)?;
        create_folder(&part)?;
        Ok(Self { part: Some(part), path: path.to_owned() })
    }

    /// The files in it, until it has its name.
    pub fn files(&self) -> DiskFs {
        DiskFs::new(self.part.as_ref().unwrap_or(&self.path))
    }

    /// Gives the folder its name, durably. No file in it is open.
    pub fn commit(mut self) -> Result<()> {
        let Some(part) = &self.part else { return Ok(()) };
        match fs::remove_dir(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &self.path, e)),
            _ => {}
        }
        fs::rename(part, &self.path).map_err(|e| failed("rename", part, e))?;
        self.part = None;
        let above = self.path.parent().filter(|above| !above.as_os_str().is_empty());
        sync_folder(above.unwrap_or(Path::new(".")))
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            let _ = fs::remove_dir_all(part);
        }
    }
}

fn refuse_used(path: &Path) -> Result<()> {
    match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::already_exists(format!("folder \"{}\" is not empty", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("list", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{FileSystem, replace_file};
    use mvvd_core::ErrorKind;

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("above/copy");
        let names = || home.path().join("above").read_dir().unwrap().count();
        for is_there in [false, true] {
            let folder = NewFolder::create(&place).unwrap();
            folder.files().create_folder("inside").unwrap();
            replace_file(&folder.files(), "inside/file", b"x").unwrap();
            assert_eq!(place.exists(), is_there);
            drop(folder);
            assert_eq!(names(), usize::from(is_there));
            // An empty folder of that name is as good as none.
            std::fs::create_dir_all(&place).unwrap();
        }
        let folder = NewFolder::create(&place).unwrap();
        replace_file(&folder.files(), "file", b"x").unwrap();
        folder.commit().unwrap();
        assert_eq!((names(), DiskFs::new(&place).read("file").unwrap()), (1, b"x".to_vec()));
        assert_eq!(NewFolder::create(&place).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(NewFolder::create(Path::new("/")).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
