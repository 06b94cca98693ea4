//! Which key opens a database: where the key comes from, whether it is needed, and how it is changed.

use std::path::PathBuf;
use std::sync::Arc;

use mvvd_core::{Error, ErrorKind, Result};

use crate::disk::Options;
use crate::encrypt::{Keyring, MasterKey};
use crate::fs::FileSystem;
use crate::manifest::{MANIFEST, Manifest};
use crate::recover::lock;
use crate::seal::Seal;

/// The file of the data keys.
pub(crate) const KEYS: &str = "KEYS";

/// Where a master key is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In a file outside the database.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
}

impl KeySource {
    /// The key.
    pub fn read(&self) -> Result<MasterKey> {
        match self {
            Self::File(path) => MasterKey::from_file(path),
            Self::Variable(name) => MasterKey::from_env(name),
        }
    }
}

/// What opens the files of the database that is there; none for a plain one, and where there is none yet.
///
/// Changes nothing. A key that is missing, does not fit or is not needed is [`Invalid`](ErrorKind::Invalid).
pub(crate) fn open_seal(fs: &dyn FileSystem, options: &Options) -> Result<Option<Arc<dyn Seal>>> {
    if options.key.is_none() && options.seal.is_some() {
        return Ok(options.seal.clone());
    }
    match (&options.key, fs.exists(KEYS)?) {
        (Some(master), true) => Ok(Some(Arc::new(Keyring::open(fs, KEYS, master.clone())?))),
        (Some(_), false) => match fs.exists(MANIFEST)?.then(|| Manifest::read(fs, None)) {
            None => Ok(None),
            Some(Ok(_)) => Err(Error::invalid("the database is not encrypted, but a key was given")
                .with_hint("open it without the key; mvvd backup with --to-key-file makes an encrypted copy")),
            // A manifest that was sealed, or one that is damaged.
            Some(Err(e)) if e.kind() == ErrorKind::Corrupt => Err(Error::new(
                ErrorKind::Corrupt,
                format!("file \"{KEYS}\" is missing, or file \"{MANIFEST}\" is damaged"),
            )),
            Some(Err(e)) => Err(e),
        },
        (None, true) => Err(Error::invalid("the database is encrypted, and no key was given")
            .with_hint("name its key with --key-file FILE or --key-env NAME")),
        (None, false) => Ok(None),
    }
}

/// Makes the key file of a database that is made now, if it shall be encrypted. The caller holds the lock.
pub(crate) fn create_seal(fs: &dyn FileSystem, options: &Options) -> Result<Option<Arc<dyn Seal>>> {
    match &options.key {
        Some(master) => Ok(Some(Arc::new(Keyring::create(fs, KEYS, master.clone())?))),
        None => Ok(options.seal.clone()),
    }
}

/// Wraps the data keys of a database, which nobody may have open for writing, with another master key.
///
/// No data is written anew. From when it returns only the new key opens the database.
pub fn rotate_master_key(fs: &dyn FileSystem, old: MasterKey, new: MasterKey) -> Result<()> {
    let (ring, _lock) = open_to_rotate(fs, old)?;
    ring.rotate_master_key(fs, KEYS, new)
}

/// Adds a data key to a database, which nobody may have open for writing; what is written from now on is sealed with it.
///
/// What was written before stays as it is until it is written anew, by compaction or in a backup. Returns the number of
/// the key.
pub fn rotate_data_key(fs: &dyn FileSystem, key: MasterKey) -> Result<u32> {
    let (ring, _lock) = open_to_rotate(fs, key)?;
    ring.rotate_data_key(fs, KEYS)
}

fn open_to_rotate(fs: &dyn FileSystem, key: MasterKey) -> Result<(Keyring, impl Sized)> {
    let open = || Keyring::open(fs, KEYS, key.clone());
    if !fs.exists(KEYS)? {
        return Err(match fs.exists(MANIFEST)? {
            true => Error::invalid("the database is not encrypted"),
            false => Error::not_found("there is no database here"),
        });
    }
    // Once before the lock, so that a wrong key changes nothing, and once after it, when nobody else can change them.
    open()?;
    let lock = lock(fs)?;
    Ok((open()?, lock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Database;
    use crate::fs::MemoryFs;

    fn master(byte: &str) -> MasterKey {
        MasterKey::parse(&byte.repeat(32), "a test").unwrap()
    }

    fn open(fs: &MemoryFs, key: Option<MasterKey>) -> Result<Database> {
        let options = Options { background: false, key, ..Options::default() };
        Database::open(Arc::new(fs.clone()), options)
    }

    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T>, message: &str) {
        let e = result.unwrap_err();
        assert_eq!((e.kind(), e.message()), (ErrorKind::Invalid, message));
    }

    #[test]
    fn a_key_that_is_missing_wrong_or_not_needed_is_refused_before_anything_changes() {
        let sealed = MemoryFs::new();
        open(&sealed, Some(master("ab"))).unwrap().close().unwrap();
        let plain = MemoryFs::new();
        open(&plain, None).unwrap().close().unwrap();
        let before = (sealed.files(), plain.files());
        refused(open(&sealed, None), "the database is encrypted, and no key was given");
        refused(open(&sealed, Some(master("cd"))), "the encryption key does not fit this database");
        refused(open(&plain, Some(master("ab"))), "the database is not encrypted, but a key was given");
        refused(rotate_data_key(&plain, master("ab")), "the database is not encrypted");
        refused(rotate_data_key(&sealed, master("cd")), "the encryption key does not fit this database");
        assert_eq!(before, (sealed.files(), plain.files()));
        open(&sealed, Some(master("ab"))).unwrap();
    }

    #[test]
    fn keys_rotate() {
        let fs = MemoryFs::new();
        open(&fs, Some(master("01"))).unwrap().close().unwrap();
        rotate_master_key(&fs, master("01"), master("02")).unwrap();
        refused(open(&fs, Some(master("01"))), "the encryption key does not fit this database");
        assert_eq!(rotate_data_key(&fs, master("02")).unwrap(), 2);
        let database = open(&fs, Some(master("02"))).unwrap();
        assert_eq!(rotate_data_key(&fs, master("02")).unwrap_err().kind(), ErrorKind::Conflict);
        drop(database);
        assert_eq!(rotate_data_key(&MemoryFs::new(), master("02")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_key_file_without_a_manifest_is_a_database_that_was_being_made() {
        let fs = MemoryFs::new();
        Keyring::create(&fs, KEYS, master("ab")).unwrap();
        refused(open(&fs, None), "the database is encrypted, and no key was given");
        refused(open(&fs, Some(master("cd"))), "the encryption key does not fit this database");
        open(&fs, Some(master("ab"))).unwrap().close().unwrap();
        // A sealed manifest whose keys are gone is damage.
        fs.remove(KEYS).unwrap();
        assert_eq!(open(&fs, Some(master("ab"))).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
