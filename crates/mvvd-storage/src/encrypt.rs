//! AES-256-GCM under data keys, which a master key wraps.
//!
//! The file `KEYS` of a database holds its data keys, little-endian:
//!
//! ```text
//! 0    8  "MVVDKEYS"
//! 8    4  version, 1
//! 12   4  number of keys
//! 16  64  per key: id (4 bytes), nonce (12), encrypted key (32), tag (16)
//! …    8  CRC-64/NVME of all before
//! ```
//!
//! The context of a wrapped key is "mvvd data key", the version and its id. Ids ascend; the last key is the one that
//! seals. Sealed bytes are the id of the data key (4 bytes), nonce (12), ciphertext, tag (16); the context is the
//! associated data, after the id.
//!
//! The cipher is that of `ring`, which TLS brings into every build already and which uses the AES instructions of the
//! CPU. Nonces are random: a data key should be rotated long before it has sealed 2^32 times.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm::Crc64Nvme;
use mvvd_core::{Error, ErrorKind, Result};
use parking_lot::RwLock;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::fs::{FileSystem, read_start};
use crate::seal::Seal;

/// More than a file with a key ever has.
const KEY_FILE_BYTES_MAX: u64 = 4096;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const ID_BYTES: usize = 4;
const MAGIC: &[u8; 8] = b"MVVDKEYS";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 16;
const ENTRY_BYTES: usize = ID_BYTES + NONCE_LEN + KEY_BYTES + TAG_BYTES;
const CHECKSUM_BYTES: usize = 8;

/// 256 secret bits, wiped when dropped and never shown.
#[derive(Clone)]
struct Secret(Zeroizing<[u8; KEY_BYTES]>);

impl Secret {
    fn random() -> Result<Self> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        fill_random(key.as_mut_slice())?;
        Ok(Self(key))
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        (bytes.len() == KEY_BYTES).then(|| key.copy_from_slice(bytes))?;
        Some(Self(key))
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, self.0.as_slice()).expect("the key has the cipher's length"))
    }
}

/// The key that the operator keeps; it wraps the data keys of a database.
#[derive(Clone)]
pub struct MasterKey(Secret);

impl MasterKey {
    /// Reads 64 hexadecimal digits or the base64 of 32 bytes; white space around does not matter. `source` says where
    /// the text came from.
    pub fn parse(text: &str, source: &str) -> Result<Self> {
        let text = text.trim();
        let bad = |what: String| {
            Error::invalid(format!("the encryption key from {source} {what}"))
                .with_hint("a key is 64 hexadecimal digits, or the base64 of 32 bytes")
        };
        if text.is_empty() {
            return Err(bad("is empty".to_owned()));
        }
        if text.len() == 2 * KEY_BYTES && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut key = Zeroizing::new([0; KEY_BYTES]);
            for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                *byte = hex_digit(pair[0]) << 4 | hex_digit(pair[1]);
            }
            return Ok(Self(Secret(key)));
        }
        // The text itself stays out of every message.
        let bytes =
            Zeroizing::new(STANDARD.decode(text).map_err(|_| bad("is neither hexadecimal nor base64".to_owned()))?);
        Secret::of(&bytes).map(Self).ok_or_else(|| bad(format!("has {} bytes instead of {KEY_BYTES}", bytes.len())))
    }

    /// Reads the key from an environment variable.
    pub fn from_env(variable: &str) -> Result<Self> {
        match std::env::var(variable) {
            Ok(text) => Self::parse(&Zeroizing::new(text), &format!("environment variable {variable}")),
            Err(e) => Err(Error::invalid(format!("no encryption key in environment variable {variable}: {e}"))),
        }
    }

    /// Reads the key from a file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let source = format!("file \"{}\"", path.display());
        let bytes = read_start(path, KEY_FILE_BYTES_MAX).map_err(|e| e.context("no encryption key"))?;
        let bytes = Zeroizing::new(bytes);
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, &source),
            Err(_) => Err(Error::invalid(format!("the encryption key from {source} is no text"))
                .with_hint("a key is 64 hexadecimal digits, or the base64 of 32 bytes")),
        }
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(secret)")
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// The data keys of a database. Seals with the newest, opens with any.
pub struct Keyring {
    state: RwLock<State>,
}

struct State {
    master: MasterKey,
    keys: BTreeMap<u32, DataKey>,
}

#[derive(Clone)]
struct DataKey {
    secret: Secret,
    cipher: LessSafeKey,
}

impl DataKey {
    fn new(secret: Secret) -> Self {
        Self { cipher: secret.cipher(), secret }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("ids", &self.state.read().keys.keys()).finish_non_exhaustive()
    }
}

impl Keyring {
    /// A ring with one new data key, saved at `path`.
    pub fn create(fs: &dyn FileSystem, path: &str, master: MasterKey) -> Result<Self> {
        let keys = BTreeMap::from([(1, DataKey::new(Secret::random()?))]);
        save(fs, path, &master, &keys)?;
        Ok(Self { state: RwLock::new(State { master, keys }) })
    }

    /// The ring saved at `path`. A master key that does not fit is [`Invalid`](ErrorKind::Invalid), a damaged file
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub fn open(fs: &dyn FileSystem, path: &str, master: MasterKey) -> Result<Self> {
        let keys = decode(&fs.read(path)?, path, &master)?;
        Ok(Self { state: RwLock::new(State { master, keys }) })
    }

    /// Adds a data key, which seals from now on, once it is saved. What older keys sealed stays readable.
    pub fn rotate_data_key(&self, fs: &dyn FileSystem, path: &str) -> Result<u32> {
        let mut state = self.state.write();
        let mut keys = state.keys.clone();
        let id = last_id(&keys)
            .checked_add(1)
            .ok_or_else(|| Error::exhausted("the database has used every number for a data key"))?;
        keys.insert(id, DataKey::new(Secret::random()?));
        save(fs, path, &state.master, &keys)?;
        state.keys = keys;
        Ok(id)
    }

    /// Wraps the data keys with another master key; no data is written anew.
    pub fn rotate_master_key(&self, fs: &dyn FileSystem, path: &str, master: MasterKey) -> Result<()> {
        let mut state = self.state.write();
        save(fs, path, &master, &state.keys)?;
        state.master = master;
        Ok(())
    }

    /// The number of the data key that seals.
    pub fn current(&self) -> u32 {
        last_id(&self.state.read().keys)
    }
}

impl Seal for Keyring {
    fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        let (id, key) = {
            let state = self.state.read();
            let (id, key) = state.keys.last_key_value().expect("a ring has a key");
            (*id, key.cipher.clone())
        };
        let mut sealed = Vec::with_capacity(plain.len() + self.overhead());
        sealed.extend_from_slice(&id.to_le_bytes());
        encrypt(&key, &with_id(id, context), plain, &mut sealed)?;
        Ok(sealed)
    }

    fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let damaged = || Error::new(ErrorKind::Corrupt, "the sealed bytes were changed, moved or cut");
        let (id, rest) = sealed.split_first_chunk::<ID_BYTES>().ok_or_else(damaged)?;
        let id = u32::from_le_bytes(*id);
        let Some(key) = self.state.read().keys.get(&id).map(|key| key.cipher.clone()) else {
            return Err(Error::new(ErrorKind::Corrupt, format!("the database has no data key {id}")));
        };
        decrypt(&key, &with_id(id, context), rest).ok_or_else(damaged)
    }

    fn overhead(&self) -> usize {
        ID_BYTES + NONCE_LEN + TAG_BYTES
    }
}

fn with_id(id: u32, context: &[u8]) -> Vec<u8> {
    [id.to_le_bytes().as_slice(), context].concat()
}

/// Appends nonce, ciphertext and tag.
fn encrypt(key: &LessSafeKey, context: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut nonce = [0; NONCE_LEN];
    fill_random(&mut nonce)?;
    out.extend_from_slice(&nonce);
    let start = out.len();
    out.extend_from_slice(plain);
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut out[start..])
        .map_err(|_| Error::exhausted(format!("cannot encrypt {} bytes at once", plain.len())))?;
    out.extend_from_slice(tag.as_ref());
    Ok(())
}

fn decrypt(key: &LessSafeKey, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut plain = rest.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let len = key.open_in_place(nonce, Aad::from(context), &mut plain).ok()?.len();
    plain.truncate(len);
    Some(plain)
}

fn fill_random(bytes: &mut [u8]) -> Result<()> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| Error::new(ErrorKind::Unavailable, "the operating system gives no random numbers"))
}

fn last_id(keys: &BTreeMap<u32, DataKey>) -> u32 {
    *keys.last_key_value().expect("a ring has a key").0
}

fn key_context(id: u32) -> Vec<u8> {
    [b"mvvd data key".as_slice(), &VERSION.to_le_bytes(), &id.to_le_bytes()].concat()
}

/// Writes the file beside its place, then renames it, so that there is always one that opens.
fn save(fs: &dyn FileSystem, path: &str, master: &MasterKey, keys: &BTreeMap<u32, DataKey>) -> Result<()> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + keys.len() * ENTRY_BYTES + CHECKSUM_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(keys.len() as u32).to_le_bytes());
    let master = master.0.cipher();
    for (&id, key) in keys {
        bytes.extend_from_slice(&id.to_le_bytes());
        encrypt(&master, &key_context(id), key.secret.0.as_slice(), &mut bytes)?;
    }
    bytes.extend_from_slice(&crc_fast::checksum(Crc64Nvme, &bytes).to_le_bytes());

    let part = format!("{path}.part");
    // A part that a crash left behind holds no key that anything was sealed with.
    match fs.remove(&part) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = fs.create(&part)?;
    file.write(&bytes)?;
    file.sync()?;
    drop(file);
    fs.rename(&part, path)?;
    fs.sync_folder(path.rsplit_once('/').map_or("", |(folder, _)| folder))
}

fn decode(bytes: &[u8], path: &str, master: &MasterKey) -> Result<BTreeMap<u32, DataKey>> {
    let damaged = || Error::new(ErrorKind::Corrupt, format!("file \"{path}\" is damaged"));
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
    if crc_fast::checksum(Crc64Nvme, body) != u64::from_le_bytes(*checksum) {
        return Err(damaged());
    }
    let (header, entries) = body.split_first_chunk::<HEADER_BYTES>().ok_or_else(damaged)?;
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if &header[..8] != MAGIC {
        return Err(damaged());
    }
    if number(8) != VERSION {
        return Err(Error::unsupported(format!(
            "file \"{path}\" has version {}, this program reads version {VERSION}",
            number(8)
        )));
    }
    if entries.is_empty() || entries.len() != number(12) as usize * ENTRY_BYTES {
        return Err(damaged());
    }
    let master = master.0.cipher();
    entries
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| {
            let (id, wrapped) = entry.split_first_chunk::<ID_BYTES>().expect("an entry begins with its id");
            let id = u32::from_le_bytes(*id);
            let key = decrypt(&master, &key_context(id), wrapped).map(Zeroizing::new);
            let secret = key.and_then(|key| Secret::of(&key)).ok_or_else(|| {
                Error::invalid("the encryption key does not fit this database")
                    .with_hint(format!("file \"{path}\" holds data keys that were wrapped with another key"))
            })?;
            Ok((id, DataKey::new(secret)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::MemoryFs;
    use crate::seal::{BLOCK_BYTES, SealedReader, SealedWriter};
    use std::sync::Arc;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

    fn master(byte: u8) -> MasterKey {
        MasterKey::parse(&STANDARD.encode([byte; 32]), "a test").unwrap()
    }

    #[test]
    fn master_keys_are_hex_or_base64_and_errors_do_not_show_them() {
        let hex = MasterKey::parse(&format!(" {HEX}\n"), "a test").unwrap();
        let base64 = MasterKey::parse("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "a test").unwrap();
        assert_eq!(*hex.0.0, *base64.0.0);
        assert_eq!(format!("{hex:?}"), "MasterKey(secret)");
        for (text, message) in [
            ("", "the encryption key from a test is empty"),
            (&HEX[1..], "the encryption key from a test is neither hexadecimal nor base64"),
            ("c2VjcmV0", "the encryption key from a test has 6 bytes instead of 32"),
        ] {
            let e = MasterKey::parse(text, "a test").unwrap_err();
            assert_eq!((e.kind(), e.message()), (ErrorKind::Invalid, message));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key: mine");
        assert!(MasterKey::from_file(&path).unwrap_err().message().starts_with("no encryption key: cannot read"));
        std::fs::write(&path, format!("{HEX}\n")).unwrap();
        assert_eq!(*MasterKey::from_file(&path).unwrap().0.0, *hex.0.0);
        assert!(MasterKey::from_env("MVVD_NO_SUCH_VARIABLE").unwrap_err().message().contains("MVVD_NO_SUCH_VARIABLE"));
    }

    #[test]
    fn what_was_sealed_opens_only_unchanged_and_in_its_context() {
        let fs = MemoryFs::default();
        let ring = Keyring::create(&fs, "KEYS", master(1)).unwrap();
        let sealed = ring.seal(b"here", b"a secret").unwrap();
        assert_eq!(sealed.len(), 8 + ring.overhead());
        assert_ne!(sealed, ring.seal(b"here", b"a secret").unwrap());
        assert_eq!(ring.open(b"here", &sealed).unwrap(), b"a secret");
        assert_eq!(ring.open(b"there", &sealed).unwrap_err().kind(), ErrorKind::Corrupt);
        for i in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[i] ^= 1;
            assert_eq!(ring.open(b"here", &changed).unwrap_err().kind(), ErrorKind::Corrupt);
            assert_eq!(ring.open(b"here", &sealed[..i]).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        let other = Keyring::create(&fs, "OTHER", master(1)).unwrap();
        assert!(other.open(b"here", &sealed).is_err());
    }

    #[test]
    fn keys_rotate_and_what_is_old_stays_readable() {
        let fs = MemoryFs::default();
        let ring = Keyring::create(&fs, "KEYS", master(1)).unwrap();
        let old = ring.seal(b"", b"old").unwrap();
        assert_eq!(ring.rotate_data_key(&fs, "KEYS").unwrap(), 2);
        let new = ring.seal(b"", b"new").unwrap();
        assert_eq!((old[0], new[0], ring.current()), (1, 2, 2));
        ring.rotate_master_key(&fs, "KEYS", master(2)).unwrap();

        let e = Keyring::open(&fs, "KEYS", master(1)).unwrap_err();
        assert_eq!((e.kind(), e.message()), (ErrorKind::Invalid, "the encryption key does not fit this database"));
        let ring = Keyring::open(&fs, "KEYS", master(2)).unwrap();
        assert_eq!(ring.open(b"", &old).unwrap(), b"old");
        assert_eq!(ring.open(b"", &new).unwrap(), b"new");
    }

    #[test]
    fn a_damaged_key_file_is_corrupt() {
        let fs = MemoryFs::default();
        Keyring::create(&fs, "KEYS", master(1)).unwrap();
        let good = fs.read("KEYS").unwrap();
        assert_eq!(good.len(), 16 + 64 + 8);
        for i in 0..good.len() {
            let mut changed = good.clone();
            changed[i] ^= 0x40;
            for bytes in [changed, good[..i].to_vec()] {
                fs.put("KEYS", bytes);
                let e = Keyring::open(&fs, "KEYS", master(1)).unwrap_err();
                assert_eq!((e.kind(), e.message()), (ErrorKind::Corrupt, "file \"KEYS\" is damaged"));
            }
        }
    }

    fn sealed_file(fs: &MemoryFs, seal: &Arc<dyn Seal>, path: &str, len: usize) -> Vec<u8> {
        let plain: Vec<u8> = (0..len).map(|i| (i / 7 % 251) as u8).collect();
        let _ = fs.remove(path);
        let mut writer = SealedWriter::create(fs, path, Arc::clone(seal)).unwrap();
        plain.chunks(300_001).for_each(|part| writer.write(part).unwrap());
        assert_eq!(writer.finish().unwrap(), fs.len(path).unwrap());
        plain
    }

    #[test]
    fn sealed_files_give_back_every_range() {
        let fs = MemoryFs::default();
        let seal: Arc<dyn Seal> = Arc::new(Keyring::create(&fs, "KEYS", master(1)).unwrap());
        for len in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES] {
            let plain = sealed_file(&fs, &seal, "f", len);
            let reader = SealedReader::open(&fs, "f", Arc::clone(&seal)).unwrap();
            assert_eq!(reader.plain_bytes(), len);
            assert_eq!(reader.range(0, len).unwrap().as_slice(), plain);
            assert_eq!(reader.range(len / 2, len - len / 2).unwrap().as_slice(), &plain[len / 2..]);
            assert_eq!(reader.range(len, 0).unwrap().as_slice(), b"");
        }
    }

    #[test]
    fn moved_and_cut_blocks_do_not_open() {
        let fs = MemoryFs::default();
        let seal: Arc<dyn Seal> = Arc::new(Keyring::create(&fs, "KEYS", master(1)).unwrap());
        sealed_file(&fs, &seal, "f", 3 * BLOCK_BYTES);
        sealed_file(&fs, &seal, "g", 3 * BLOCK_BYTES);
        let (f, g) = (fs.read("f").unwrap(), fs.read("g").unwrap());
        let block = BLOCK_BYTES + seal.overhead();
        let read_all = |bytes: Vec<u8>| {
            fs.put("f", bytes);
            let reader = SealedReader::open(&fs, "f", Arc::clone(&seal))?;
            reader.range(0, reader.plain_bytes())
        };
        assert!(read_all(f.clone()).is_ok());

        let mut swapped = f.clone();
        swapped[16..16 + 2 * block].rotate_left(block);
        let mut foreign = f.clone();
        foreign[16..16 + block].copy_from_slice(&g[16..16 + block]);
        let mut flipped = f.clone();
        flipped[16 + block + 99] ^= 1;
        let doubled = [&f[..], &f[16 + 2 * block..]].concat();
        let cut = |len: usize| f[..len].to_vec();
        for bad in [swapped, foreign, flipped, doubled, g, cut(16 + 2 * block), cut(f.len() - 1), cut(16), cut(5)] {
            let e = read_all(bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Corrupt);
            assert!(e.message().starts_with("file \"f\" is damaged: "), "{e}");
        }
    }
}
