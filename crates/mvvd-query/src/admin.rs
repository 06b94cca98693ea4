//! What an operator does with a database as a whole: check, measure, copy, change its key. All of it blocks.

use std::path::PathBuf;
use std::sync::Arc;

use mvvd_core::{Error, Result};
pub use mvvd_storage::{Checked, Copied, DamagedSegment, Problem, Repaired, Stats, TableChecked, TableStats};
use mvvd_storage::{CopyOptions, Options, fs::NewFolder};

use crate::engine::Directory;
use crate::{KeySource, Mvvd};

/// Where a copy goes.
#[derive(Debug, Clone)]
pub struct CopyTarget {
    /// The directory; there is nothing, or it is empty.
    pub path: PathBuf,
    /// The key of the copy; without it the copy is not encrypted.
    pub key: Option<KeySource>,
}

/// Reads every byte of a database and says what is wrong with it. Another process may have it open.
pub fn check(directory: &Directory) -> Result<Checked> {
    mvvd_storage::check(&directory.files(), &directory.options()?).map_err(|e| directory.named(e))
}

/// Takes damaged segments out of a database and removes what a crash left. Nobody else may have it open for writing.
///
/// `tell` hears which rows are lost before they are; its error stops the repair.
pub fn repair(directory: &Directory, tell: &mut dyn FnMut(&[DamagedSegment]) -> Result<()>) -> Result<Repaired> {
    mvvd_storage::repair(&directory.files(), &directory.options()?, tell).map_err(|e| directory.named(e))
}

/// Sizes of a database. Another process may have it open.
pub fn stats(directory: &Directory) -> Result<Stats> {
    read_only(directory).open()?.stats()
}

/// Copies a database as it is now. Another process may have it open.
///
/// The copy appears when it is complete. `progress` hears how many rows are copied, and of how many.
pub fn backup(from: &Directory, to: &CopyTarget, progress: &mut dyn FnMut(u64, u64)) -> Result<Copied> {
    let options = CopyOptions { key: to.key.as_ref().map(KeySource::read).transpose()? };
    let database = read_only(from).open()?;
    let folder = NewFolder::create(&to.path)?;
    let copied = mvvd_storage::copy(&database, Arc::new(folder.files()), &options, progress)
        .map_err(|e| e.context(format!("copy to \"{}\"", to.path.display())))?;
    folder.commit()?;
    Ok(copied)
}

/// Checks a backup and makes a database of it; see [`backup`].
pub fn restore(from: &Directory, to: &CopyTarget, progress: &mut dyn FnMut(u64, u64)) -> Result<Copied> {
    if let Some(problem) = check(from)?.problems.into_iter().next() {
        let e = Error::new(mvvd_core::ErrorKind::Corrupt, format!("the backup is damaged: {}", problem.message));
        return Err(from.named(e).with_hint("mvvd check lists everything that is wrong with it"));
    }
    backup(from, to, progress)
}

/// Wraps the data keys of a database with another master key; from then on only that one opens it.
pub fn rotate_master_key(directory: &Directory, new: &KeySource) -> Result<()> {
    let (old, new) = (directory.options()?, new.read()?);
    mvvd_storage::rotate_master_key(&*directory.files(), master(old)?, new).map_err(|e| directory.named(e))
}

/// Gives a database a new data key for what is written from now on; its number.
pub fn rotate_data_key(directory: &Directory) -> Result<u32> {
    let key = master(directory.options()?)?;
    mvvd_storage::rotate_data_key(&*directory.files(), key).map_err(|e| directory.named(e))
}

fn master(options: Options) -> Result<mvvd_storage::MasterKey> {
    options
        .key
        .ok_or_else(|| Error::invalid("no key was given").with_hint("name it with --key-file FILE or --key-env NAME"))
}

fn read_only(directory: &Directory) -> Directory {
    Directory { read_only: true, ..directory.clone() }
}

impl Mvvd {
    /// Sizes of the database.
    pub fn stats(&self) -> Result<Stats> {
        self.engine().database.stats()
    }
}
