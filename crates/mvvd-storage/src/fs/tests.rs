//! One suite for every file system, and the model of a power cut.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use mvvd_core::ErrorKind;

use super::*;

/// A directory that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("mvvd-fs-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write(fs: &dyn FileSystem, path: &str, bytes: &[u8]) {
    let mut file = fs.create(path).unwrap();
    file.write(bytes).unwrap();
    file.sync().unwrap();
}

fn conforms(fs: &dyn FileSystem) {
    fs.create_folder("").unwrap();
    assert_eq!(fs.list("a/b").unwrap(), Vec::<String>::new());
    assert!(!fs.exists("a").unwrap());
    assert_eq!(fs.create("a/b/x").unwrap_err().kind(), ErrorKind::NotFound);
    fs.create_folder("a/b").unwrap();
    fs.create_folder("a/b").unwrap();
    assert!(fs.exists("a").unwrap() && fs.exists("a/b").unwrap());

    let mut file = fs.create("a/b/x").unwrap();
    file.write(b"one").unwrap();
    file.write(b"two").unwrap();
    assert_eq!(fs.read("a/b/x").unwrap(), b"onetwo");
    file.sync().unwrap();
    fs.sync_folder("a/b").unwrap();
    assert_eq!(fs.len("a/b/x").unwrap(), 6);
    let error = fs.create("a/b/x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(error.message().contains("a/b/x"), "{error}");
    let error = fs.read("a/b/y").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("a/b/y"), "{error}");

    let map = fs.map("a/b/x").unwrap();
    assert_eq!((map.as_slice(), map.as_ptr().align_offset(64)), (&b"onetwo"[..], 0));
    write(fs, "a/b/empty", b"");
    assert!(fs.map("a/b/empty").unwrap().is_empty());
    assert_eq!(fs.list("a/b").unwrap(), ["empty", "x"]);
    assert_eq!(fs.list("a").unwrap(), Vec::<String>::new());

    write(fs, "a/b/z", b"zzz");
    fs.rename("a/b/z", "a/b/x").unwrap();
    assert_eq!(fs.read("a/b/x").unwrap(), b"zzz");
    assert_eq!(map.as_slice(), b"onetwo", "the map keeps what it had");
    assert_eq!(fs.list("a/b").unwrap(), ["empty", "x"]);
    fs.remove("a/b/x").unwrap();
    assert_eq!(fs.remove("a/b/x").unwrap_err().kind(), ErrorKind::NotFound);

    let mut file = fs.create("a/b/grown").unwrap();
    file.write(b"12").unwrap();
    file.grow(3).unwrap();
    file.write(b"34").unwrap();
    assert!([&b"1234\0"[..], b"1234"].contains(&fs.read("a/b/grown").unwrap().as_slice()));
    file.sync().unwrap();
    file.write(b"567").unwrap();
    file.grow(9).unwrap();
    file.trim().unwrap();
    file.sync().unwrap();
    assert_eq!(fs.read("a/b/grown").unwrap(), b"1234567");
    fs.remove("a/b/grown").unwrap();

    write(fs, "a/b/new.tmp", b"left by a crash");
    replace_file(fs, "a/b/new", b"1").unwrap();
    replace_file(fs, "a/b/new", b"2").unwrap();
    assert_eq!(fs.read("a/b/new").unwrap(), b"2");
    assert_eq!(fs.list("a/b").unwrap(), ["empty", "new"]);

    let held = fs.lock("LOCK").unwrap();
    assert!(held.is_some());
    assert!(fs.lock("LOCK").unwrap().is_none());
    drop(held);
    assert!(fs.lock("LOCK").unwrap().is_some());

    for path in ["../x", "/x", "a//x", "a/./x", "a/..", "a\\x"] {
        assert_eq!(fs.read(path).unwrap_err().kind(), ErrorKind::Invalid, "{path}");
    }
}

#[test]
fn every_file_system_conforms() {
    let folder = Folder::new();
    conforms(&DiskFs::new(folder.0.join("deep/down")));
    conforms(&MemoryFs::new());
    conforms(&FaultyFs::new());
}

/// What crashes leave of the file, over many seeds; `None` where it has no name.
fn images(fs: &FaultyFs, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..400).map(|seed| fs.crash_image(seed).read(path).ok()).collect()
}

fn texts(texts: &[&str]) -> BTreeSet<Option<Vec<u8>>> {
    texts.iter().map(|text| Some(text.as_bytes().to_vec())).collect()
}

#[test]
fn a_crash_keeps_what_was_synced_and_any_part_of_the_rest() {
    let fs = FaultyFs::new();
    let mut file = fs.create("x").unwrap();
    file.write(b"ab").unwrap();
    let mut all = texts(&["", "a", "ab", "\0", "\0\0"]);
    all.insert(None);
    assert_eq!(images(&fs, "x"), all);
    fs.sync_folder("").unwrap();
    all.remove(&None);
    assert_eq!(images(&fs, "x"), all);
    file.sync().unwrap();
    assert_eq!(images(&fs, "x"), texts(&["ab"]));
    file.write(b"c").unwrap();
    assert_eq!(images(&fs, "x"), texts(&["ab", "abc", "ab\0"]));
}

#[test]
fn a_crash_can_leave_a_later_sector_without_an_earlier_one() {
    let fs = FaultyFs::new();
    let mut file = fs.create("x").unwrap();
    fs.sync_folder("").unwrap();
    file.write(&[1; 100]).unwrap();
    file.sync().unwrap();
    file.write(&[2; 924]).unwrap();
    let found = images(&fs, "x").into_iter().flatten().collect::<Vec<_>>();
    assert!(found.iter().all(|bytes| bytes[..100] == [1; 100]));
    assert!(found.iter().any(|bytes| bytes.len() == 1024 && bytes[100..512] == [0; 412] && bytes[512..] == [2; 512]));
}

#[test]
fn a_crash_leaves_a_grown_file_long_or_short() {
    let fs = FaultyFs::new();
    let mut file = fs.create("x").unwrap();
    fs.sync_folder("").unwrap();
    file.write(b"a").unwrap();
    file.sync().unwrap();
    file.grow(2).unwrap();
    assert_eq!(images(&fs, "x"), texts(&["a", "a\0\0"]));
    file.sync().unwrap();
    assert_eq!(images(&fs, "x"), texts(&["a\0\0"]));
    file.write(b"b").unwrap();
    assert_eq!(images(&fs, "x"), texts(&["a\0\0", "ab\0"]));
    file.trim().unwrap();
    assert_eq!(images(&fs, "x"), texts(&["a\0\0", "ab\0", "a\0", "ab"]));
    file.sync().unwrap();
    assert_eq!(images(&fs, "x"), texts(&["ab"]));
}

#[test]
fn names_change_in_order() {
    let fs = FaultyFs::new();
    write(&fs, "x", b"old");
    fs.sync_folder("").unwrap();
    write(&fs, "x.tmp", b"new");
    fs.rename("x.tmp", "x").unwrap();
    assert_eq!(images(&fs, "x"), texts(&["old", "new"]));
    fs.remove("x").unwrap();
    write(&fs, "y", b"y");
    for seed in 0..100 {
        let image = fs.crash_image(seed);
        let (x, y) = (image.exists("x").unwrap(), image.exists("y").unwrap());
        assert!(x != y || !y, "y was made after x was removed");
    }
    fs.sync_folder("").unwrap();
    assert_eq!(fs.crash_image(0).list("").unwrap(), ["y"]);
}

#[test]
fn replacing_leaves_one_or_the_other_at_every_step() {
    let steps = |fs: &FaultyFs| {
        write(fs, "x", b"old");
        fs.sync_folder("").unwrap();
        fs.steps()
    };
    let fs = FaultyFs::new();
    let before = steps(&fs);
    replace_file(&fs, "x", b"new").unwrap();
    for step in before + 1..=fs.steps() {
        let fs = FaultyFs::new();
        steps(&fs);
        fs.crash_at(step);
        let error = replace_file(&fs, "x", b"new").unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unavailable, "crashed"));
        assert_eq!(fs.read("x").unwrap_err().message(), "crashed");
        assert!(images(&fs, "x").is_subset(&texts(&["old", "new"])), "step {step}");
    }
    assert_eq!(images(&fs, "x"), texts(&["new"]));
}

#[test]
fn a_failed_sync_loses_what_it_should_have_kept() {
    let fs = FaultyFs::new();
    let mut file = fs.create("x").unwrap();
    fs.sync_folder("").unwrap();
    file.write(b"ab").unwrap();
    file.sync().unwrap();
    fs.fail_sync_at(2);
    file.write(b"cd").unwrap();
    file.sync().unwrap();
    file.write(b"ef").unwrap();
    assert_eq!(file.sync().unwrap_err().kind(), ErrorKind::Unavailable);
    file.write(b"gh").unwrap();
    file.sync().unwrap();
    assert_eq!(fs.read("x").unwrap(), b"abcdefgh");
    assert_eq!(images(&fs, "x"), texts(&["abcd\0\0gh"]));
    assert_eq!(fs.syncs(), 4);
}

#[test]
fn a_full_disk_takes_what_fits() {
    let fs = FaultyFs::new();
    let mut file = fs.create("x").unwrap();
    fs.disk_full_after(5);
    file.write(b"abc").unwrap();
    let error = file.write(b"def").unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Exhausted, "cannot write \"x\": no space left"));
    assert_eq!(fs.read("x").unwrap(), b"abcde");
}

#[test]
fn an_image_can_crash_again() {
    let fs = FaultyFs::new();
    fs.create_folder("a").unwrap();
    write(&fs, "a/x", b"abc");
    fs.sync_folder("a").unwrap();
    let fs = FaultyFs::from_image(&fs.crash_image(1));
    fs.flip_byte("a/x", 1);
    assert_eq!(images(&fs, "a/x"), [Some(vec![b'a', b'b' ^ 0xff, b'c'])].into());
    assert!(fs.crash_image(0).exists("a").unwrap());
}
