//! What is acknowledged is replayed, nothing else that was not appended, and damage is found.

use std::time::Instant;

use super::*;
use crate::fs::{FaultyFs, MemoryFs};

type Records = Vec<(u64, Vec<u8>)>;

fn open_sealed(fs: impl FileSystem + 'static, seal: Option<Arc<dyn Seal>>, from: u64) -> Result<(Wal, Records)> {
    let mut records = Records::new();
    let wal = Wal::open(Arc::new(fs), seal, Lsn(from), &mut |lsn, payload| {
        records.push((lsn.0, payload.to_vec()));
        Ok(())
    })?;
    Ok((wal, records))
}

fn open(fs: impl FileSystem + 'static, from: u64) -> Result<(Wal, Records)> {
    open_sealed(fs, None, from)
}

/// The payload of record `lsn` in all tests: of many lengths, some longer than a sector.
fn payload(lsn: u64) -> Vec<u8> {
    (0..(lsn * lsn * 37) % 700).map(|i| (lsn * 31 + i) as u8).collect()
}

fn append(wal: &Wal) -> Result<Lsn> {
    let bytes = payload(wal.last().0 + 1);
    let (a, b) = bytes.split_at(bytes.len() / 3);
    wal.append(&[a, b])
}

fn append_and_commit(wal: &Wal, n: u64) {
    for _ in 0..n {
        wal.commit(append(wal).unwrap()).unwrap();
    }
}

/// The records `from..=last`.
fn records(from: u64, last: u64) -> Records {
    (from..=last).map(|lsn| (lsn, payload(lsn))).collect()
}

/// The files of `fs` as they are now.
fn copy(fs: &dyn FileSystem) -> MemoryFs {
    let copy = MemoryFs::new();
    for name in fs.list(FOLDER).unwrap() {
        let path = format!("{FOLDER}/{name}");
        copy.put(&path, fs.read(&path).unwrap());
    }
    copy
}

/// A log of `n` records in one file, each a group of its own, and the path of the file.
fn log(n: u64, closed: bool) -> (MemoryFs, String) {
    let fs = MemoryFs::new();
    let (wal, _) = open(fs.clone(), 1).unwrap();
    append_and_commit(&wal, n);
    if closed {
        wal.close().unwrap();
    }
    (copy(&fs), path_of(Lsn(1)))
}

fn assert_poisoned(error: &Error, cause: &str) {
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().starts_with("the log could not be written: "), "{error}");
    assert!(error.message().ends_with("; the database is read-only until it is opened again"), "{error}");
    assert!(error.message().contains(cause), "{error}");
}

fn assert_corrupt(result: Result<(Wal, Records)>, path: &str) {
    let error = result.expect_err("the damage is found");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains(path), "{error}");
}

#[test]
fn records_come_back_in_order() {
    let fs = MemoryFs::new();
    let mut last = 0;
    for round in 0..5 {
        let (wal, found) = open(fs.clone(), 1).unwrap();
        assert_eq!(found, records(1, last));
        assert_eq!((wal.last(), wal.durable()), (Lsn(last), Lsn(last)));
        // A round without records makes no file of its own.
        for _ in 0..round * 10 {
            assert_eq!(append(&wal).unwrap(), Lsn(last + 1));
            last += 1;
        }
        assert!(wal.durable() < Lsn(last) || round == 0);
        wal.commit(wal.last()).unwrap();
        assert_eq!(wal.durable(), Lsn(last));
        let on_disk = fs.list(FOLDER).unwrap().iter().map(|name| fs.len(&format!("wal/{name}")).unwrap()).sum::<u64>();
        assert_eq!(wal.bytes(), on_disk);
    }
    assert_eq!(open(fs.clone(), 42).unwrap().1, records(42, last));
    assert!(open(fs, 42).unwrap().0.commit(Lsn(7)).is_ok(), "an old record is durable");
}

#[test]
fn a_file_starts_as_documented() {
    let fs = MemoryFs::new();
    let (wal, _) = open(fs.clone(), 1).unwrap();
    wal.commit(wal.append(&[b"ab", b"", b"c"]).unwrap()).unwrap();
    let bytes = fs.read("wal/00000000000000000001.log").unwrap();
    assert_eq!(bytes[..20], *b"MVVDWAL\0\x01\0\0\0\x01\0\0\0\0\0\0\0");
    assert_eq!(bytes[20..28], crc_fast::crc64_nvme(&bytes[..20]).to_le_bytes());
    assert_eq!(bytes[28..40], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[48..60], [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let covered = [&1u64.to_le_bytes()[..], &48u64.to_le_bytes(), &bytes[48..60], b"abc"].concat();
    assert_eq!(bytes[60..68], crc_fast::crc64_nvme(&covered).to_le_bytes());
    assert_eq!(bytes[68..], *b"abc");
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off() {
    let (fs, path) = log(5, true);
    let whole = fs.read(&path).unwrap();
    // Where record n ends: a mark and a record each.
    let ends = (1..=5).scan(HEADER_BYTES, |end, lsn| {
        *end += 2 * RECORD_BYTES + payload(lsn).len();
        Some(*end)
    });
    let ends: Vec<_> = ends.collect();
    for len in HEADER_BYTES..=whole.len() {
        let fs = MemoryFs::new();
        fs.put(&path, whole[..len].to_vec());
        let last = ends.iter().filter(|end| **end <= len).count() as u64;
        let (wal, found) = open(fs.clone(), 1).unwrap();
        assert_eq!(found, records(1, last), "cut to {len}");
        append_and_commit(&wal, 1);
        drop(wal);
        assert_eq!(open(fs, 1).unwrap().1, records(1, last + 1), "cut to {len}");
    }
    for len in 0..HEADER_BYTES {
        let fs = MemoryFs::new();
        fs.put(&path, whole[..len].to_vec());
        assert_corrupt(open(fs, 1), &path);
    }
}

/// Opens the log with every byte damaged in several ways; the records must be `1..=last` with `last` at least `known`.
fn flip_everywhere(n: u64, closed: bool, known: u64) {
    let (fs, path) = log(n, closed);
    let whole = fs.read(&path).unwrap();
    for at in 0..whole.len() {
        for mask in [1 << (at % 8), 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            let fs = MemoryFs::new();
            fs.put(&path, bytes);
            match open(fs, 1) {
                Ok((wal, found)) => {
                    assert!((known..=n).contains(&wal.last().0), "byte {at}: {} records", wal.last());
                    assert_eq!(found, records(1, wal.last().0), "byte {at}");
                }
                Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt, "byte {at}: {e}"),
            }
        }
    }
}

#[test]
fn every_damage_to_a_closed_log_is_found() {
    flip_everywhere(5, true, 5);
}

#[test]
fn only_damage_to_the_last_group_can_be_taken_for_a_crash() {
    flip_everywhere(5, false, 4);
}

#[test]
fn damage_and_gaps_before_the_last_file_are_found() {
    let fs = MemoryFs::new();
    let (wal, _) = open(fs.clone(), 1).unwrap();
    for _ in 0..3 {
        append_and_commit(&wal, 5);
        wal.rotate().unwrap();
    }
    append_and_commit(&wal, 5);
    drop(wal);
    let middle = path_of(Lsn(6));
    let whole = fs.read(&middle).unwrap();
    let check = |bytes: Option<Vec<u8>>, path: &str| {
        let fs = copy(&fs);
        match bytes {
            Some(bytes) => fs.put(&middle, bytes),
            None => fs.remove(&middle).unwrap(),
        }
        // From the damaged file on it is found, after it it does not matter.
        assert_corrupt(open(fs.clone(), 1), path);
        assert_eq!(open(fs, 11).unwrap().1, records(11, 20));
    };
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        check(Some(bytes), &middle);
    }
    check(Some(whole[..whole.len() - 1].to_vec()), &middle);
    // Cut at the end of record 9: the next file starts with 11.
    let end = whole.len() - 2 * RECORD_BYTES - payload(10).len();
    check(Some(whole[..end].to_vec()), &path_of(Lsn(11)));
    check(None, &path_of(Lsn(11)));

    let first = copy(&fs);
    first.remove(&path_of(Lsn(1))).unwrap();
    assert_corrupt(open(first, 3), &path_of(Lsn(6)));
    assert_corrupt(open(MemoryFs::new(), 3), FOLDER);
}

#[test]
fn a_later_version_is_not_read() {
    let (fs, path) = log(2, true);
    let mut bytes = fs.read(&path).unwrap();
    bytes[8] = 2;
    let crc = crc_fast::crc64_nvme(&bytes[..20]);
    bytes[20..28].copy_from_slice(&crc.to_le_bytes());
    fs.put(&path, bytes);
    assert_eq!(open(fs, 1).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn a_log_within_a_record_proves_nothing() {
    let (inner, path) = log(6, true);
    let inner = inner.read(&path).unwrap();
    let fs = MemoryFs::new();
    let (wal, _) = open(fs.clone(), 1).unwrap();
    append_and_commit(&wal, 2);
    wal.commit(wal.append(&[&inner, &inner]).unwrap()).unwrap();
    let fs = copy(&fs);
    let mut bytes = fs.read(&path).unwrap();
    let start = bytes.len() - 2 * inner.len();
    bytes[start] ^= 1;
    fs.put(&path, bytes);
    assert_eq!(open(fs, 1).unwrap().1, records(1, 2));
}

/// What a run of the log promised until it failed.
#[derive(Default)]
struct Promised {
    from: u64,
    durable: u64,
    appended: u64,
}

/// Opens, appends, commits now and then, rotates, removes and closes.
fn work(fs: &FaultyFs, promised: &mut Promised) -> Result<()> {
    let (wal, found) = open(fs.clone(), promised.from.max(1))?;
    assert_eq!(found, records(promised.from.max(1), wal.last().0));
    promised.from = promised.from.max(1);
    for i in 0..14 {
        promised.appended = wal.last().0 + 1;
        let lsn = append(&wal)?;
        if i % 3 == 1 {
            wal.commit(lsn)?;
            promised.durable = lsn.0;
        }
        if i % 5 == 3 {
            let before = wal.last().0;
            let first = wal.rotate()?;
            promised.durable = before;
            if i == 8 {
                promised.from = first.0;
                wal.remove_below(first)?;
            }
        }
    }
    let last = wal.last().0;
    wal.close()?;
    promised.durable = last;
    Ok(())
}

/// Opens what the crash left: it must have what was promised, and only what was appended.
fn assert_kept(image: &MemoryFs, promised: &Promised, what: &str) {
    let from = promised.from.max(1);
    let (wal, found) = open(image.clone(), from).unwrap_or_else(|e| panic!("{what}: {e}"));
    let last = wal.last().0;
    assert!((promised.durable..=promised.appended).contains(&last), "{what}: {last}");
    assert_eq!(found, records(from, last), "{what}");
    append_and_commit(&wal, 1);
    drop(wal);
    assert_eq!(open(image.clone(), from).unwrap().1, records(from, last + 1), "{what}");
}

#[test]
fn a_crash_at_any_step_keeps_what_was_promised() {
    let fs = FaultyFs::new();
    let mut promised = Promised::default();
    work(&fs, &mut promised).unwrap();
    work(&fs, &mut promised).unwrap();
    for step in 1..=fs.steps() {
        let fs = FaultyFs::new();
        fs.crash_at(step);
        let mut promised = Promised::default();
        while work(&fs, &mut promised).is_ok() {}
        for seed in 0..30 {
            let image = fs.crash_image(seed);
            assert_kept(&image, &promised, &format!("step {step}, seed {seed}"));
        }
    }
}

#[test]
fn a_crash_while_opening_keeps_what_was_promised() {
    let fs = FaultyFs::new();
    let mut promised = Promised::default();
    work(&fs, &mut promised).unwrap();
    for step in fs.steps() + 1.. {
        let fs = FaultyFs::new();
        let mut promised = Promised::default();
        work(&fs, &mut promised).unwrap();
        fs.crash_at(step);
        if work(&fs, &mut promised).is_ok() {
            return;
        }
        for seed in 0..3 {
            for step in 1..10 {
                let fs = FaultyFs::from_image(&fs.crash_image(seed));
                fs.crash_at(step);
                drop(open(fs.clone(), promised.from));
                assert_kept(&fs.crash_image(seed * 10 + step), &promised, &format!("seed {seed}, again in {step}"));
            }
        }
    }
}

#[test]
fn without_syncs_a_crash_leaves_a_prefix() {
    for seed in 0..150 {
        let fs = FaultyFs::new();
        let (wal, _) = open(fs.clone(), 1).unwrap();
        wal.set_durability(Durability::Off);
        append_and_commit(&wal, 3);
        wal.sync_all().unwrap();
        let syncs = fs.syncs();
        append_and_commit(&wal, 10);
        assert_eq!((fs.syncs(), wal.durable()), (syncs, Lsn(3)));
        assert_eq!(open(copy(&fs), 1).unwrap().1, records(1, 13), "a crash of the process loses nothing");
        assert_kept(&fs.crash_image(seed), &Promised { from: 1, durable: 3, appended: 13 }, &format!("seed {seed}"));
    }
}

#[test]
fn an_interval_is_kept() {
    let fs = FaultyFs::new();
    let (wal, _) = open(fs.clone(), 1).unwrap();
    wal.set_durability(Durability::Interval(Duration::from_millis(3)));
    append_and_commit(&wal, 5);
    let start = Instant::now();
    while wal.durable() < Lsn(5) {
        assert!(start.elapsed() < Duration::from_secs(10), "nobody syncs");
        std::thread::sleep(Duration::from_millis(1));
    }
    fs.fail_sync_at(1);
    append_and_commit(&wal, 1);
    while wal.append(&[]).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10), "nobody syncs");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_poisoned(&wal.commit(Lsn(6)).unwrap_err(), "input/output error");
    assert_eq!(wal.durable(), Lsn(5));
}

#[test]
fn threads_share_syncs() {
    let (threads, commits) = (16, 40);
    let fs = FaultyFs::new();
    let (wal, _) = open(fs.clone(), 1).unwrap();
    fs.sync_takes(Duration::from_millis(1));
    let before = fs.syncs();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let wal = &wal;
            scope.spawn(move || {
                for i in 0..commits {
                    let lsn = wal.append(&[&[thread], &[i]]).unwrap();
                    wal.commit(lsn).unwrap();
                    assert!(wal.durable() >= lsn);
                }
            });
        }
    });
    let (syncs, all) = (fs.syncs() - before, u64::from(threads) * u64::from(commits));
    assert!(syncs * 4 <= all, "{syncs} syncs for {all} commits");
    drop(wal);
    let mut found = open(fs, 1).unwrap().1;
    assert_eq!(found.len() as u64, all);
    // Each thread's records in its order.
    found.sort_by_key(|(_, payload)| payload[0]);
    assert!(found.iter().map(|(_, payload)| payload[1]).eq((0..threads).flat_map(|_| 0..commits)));
}

#[test]
fn threads_append_commit_rotate_and_crash() {
    for seed in 0..40 {
        let fs = FaultyFs::new();
        let (wal, _) = open(fs.clone(), 1).unwrap();
        fs.crash_at(fs.steps() + 5 + seed);
        let durable = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4u64)
                .map(|thread| {
                    let wal = &wal;
                    scope.spawn(move || {
                        let mut durable = 0;
                        for i in 0.. {
                            let Ok(lsn) = wal.append(&[&thread.to_le_bytes()]) else { break };
                            if wal.commit(lsn).is_err() || (i % 4 == thread && wal.rotate().is_err()) {
                                break;
                            }
                            durable = lsn.0;
                        }
                        durable
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap()
        });
        let (reopened, found) = open(fs.crash_image(seed), 1).unwrap();
        assert!(reopened.last().0 >= durable, "seed {seed}");
        assert!(found.iter().map(|(lsn, _)| *lsn).eq(1..=reopened.last().0), "seed {seed}");
    }
}

#[test]
fn a_failed_sync_ends_all_writing() {
    for n in 1..4 {
        let fs = FaultyFs::new();
        let (wal, _) = open(fs.clone(), 1).unwrap();
        fs.fail_sync_at(n);
        append_and_commit(&wal, n - 1);
        let lsn = append(&wal).unwrap();
        assert_poisoned(&wal.commit(lsn).unwrap_err(), "cannot sync");
        assert_eq!(wal.durable(), Lsn(n - 1));
        // The next sync would succeed, and lie.
        assert_poisoned(&wal.commit(lsn).unwrap_err(), "cannot sync");
        assert_poisoned(&append(&wal).unwrap_err(), "cannot sync");
        assert_poisoned(&wal.sync_all().unwrap_err(), "cannot sync");
        assert_poisoned(&wal.rotate().unwrap_err(), "cannot sync");
        assert_poisoned(&wal.close().unwrap_err(), "cannot sync");
        drop(wal);
        // What is read after opening again is durable, though the page cache had lost it.
        let (wal, found) = open(fs.clone(), 1).unwrap();
        for seed in 0..20 {
            assert_eq!(open(fs.crash_image(seed), 1).unwrap().1, found);
        }
        append_and_commit(&wal, 1);
    }
}

#[test]
fn followers_of_a_failed_leader_fail() {
    let fs = FaultyFs::new();
    let (wal, _) = open(fs.clone(), 1).unwrap();
    fs.sync_takes(Duration::from_millis(5));
    fs.fail_sync_at(3);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let result = wal.append(&[b"x"]).and_then(|lsn| wal.commit(lsn).map(|()| lsn));
                    match result {
                        Ok(lsn) => assert!(wal.durable() >= lsn),
                        Err(e) => return assert_poisoned(&e, "cannot sync"),
                    }
                }
            });
        }
    });
}

#[test]
fn a_full_disk_ends_all_writing() {
    for room in 0..150 {
        let fs = FaultyFs::new();
        let (wal, _) = open(fs.clone(), 1).unwrap();
        fs.disk_full_after(room);
        let mut durable = 0;
        let error = loop {
            match append(&wal).and_then(|lsn| wal.commit(lsn).map(|()| lsn)) {
                Ok(lsn) => durable = lsn.0,
                Err(e) => break e,
            }
        };
        assert_poisoned(&error, "no space left");
        drop(wal);
        assert_eq!(open(fs.clone(), 1).unwrap_err().kind(), ErrorKind::Exhausted);
        fs.disk_full_after(1 << 20);
        assert_eq!(open(fs, 1).unwrap().1, records(1, durable));
    }
}

#[test]
fn old_files_go() {
    let fs = MemoryFs::new();
    let (wal, _) = open(fs.clone(), 1).unwrap();
    assert_eq!(wal.rotate().unwrap(), Lsn(1), "there is nothing to rotate");
    for first in [4, 7, 10] {
        append_and_commit(&wal, 3);
        assert_eq!(wal.rotate().unwrap(), Lsn(first));
        assert_eq!(wal.rotate().unwrap(), Lsn(first));
    }
    let count = || fs.list(FOLDER).unwrap().len();
    assert_eq!(count(), 4);
    wal.remove_below(Lsn(3)).unwrap();
    assert_eq!(count(), 4);
    wal.remove_below(Lsn(6)).unwrap();
    assert_eq!(count(), 3);
    wal.remove_below(Lsn(100)).unwrap();
    assert_eq!((count(), wal.bytes()), (1, HEADER_BYTES as u64));
    append_and_commit(&wal, 2);
    drop(wal);

    let (wal, found) = open(fs.clone(), 10).unwrap();
    assert_eq!(found, records(10, 11));
    drop(wal);
    let (wal, found) = open(fs.clone(), 12).unwrap();
    assert_eq!((found, count()), (vec![], 1));
    append_and_commit(&wal, 1);
    drop(wal);
    // The tables know more than the log, which was not synced: the numbers go on after the tables'.
    let (wal, found) = open(fs.clone(), 20).unwrap();
    assert_eq!((found, count(), wal.last()), (vec![], 1, Lsn(19)));
    append_and_commit(&wal, 1);
    drop(wal);
    assert_eq!(open(fs, 20).unwrap().1, records(20, 20));
}

#[test]
fn a_log_can_start_anywhere() {
    let fs = MemoryFs::new();
    let wal = Wal::create(Arc::new(fs.clone()), None, Lsn(50)).unwrap();
    append_and_commit(&wal, 3);
    drop(wal);
    assert_eq!(open(fs.clone(), 50).unwrap().1, records(50, 52));
    let error = Wal::create(Arc::new(fs), None, Lsn(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn memory_is_bounded() {
    let fs = MemoryFs::new();
    let (wal, _) = open(fs.clone(), 1).unwrap();
    let large = vec![7; BUFFER_BYTES_MAX / 3];
    for _ in 0..7 {
        wal.append(&[&large]).unwrap();
        assert!(wal.bytes() - fs.len(&path_of(Lsn(1))).unwrap() <= BUFFER_BYTES_MAX as u64);
    }
    let huge = vec![8; BUFFER_BYTES_MAX + 1];
    wal.commit(wal.append(&[&huge]).unwrap()).unwrap();
    let parts = vec![&huge[..]; PAYLOAD_BYTES_MAX / BUFFER_BYTES_MAX];
    assert_eq!(wal.append(&parts).unwrap_err().kind(), ErrorKind::Exhausted);
    drop(wal);
    let found = open(fs, 1).unwrap().1;
    assert!(found.iter().map(|(_, payload)| payload.len()).eq([large.len(); 7].into_iter().chain([huge.len()])));
}

#[test]
fn a_closed_log_takes_nothing() {
    let (wal, _) = open(MemoryFs::new(), 1).unwrap();
    let lsn = append(&wal).unwrap();
    wal.close().unwrap();
    wal.close().unwrap();
    wal.commit(lsn).unwrap();
    assert_eq!(wal.append(&[]).unwrap_err().message(), "the log is closed");
    assert_eq!(wal.rotate().unwrap_err().message(), "the log is closed");
}

/// Shows only that payloads are sealed, and with what.
#[derive(Debug)]
struct Xor(u8);

impl Seal for Xor {
    fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>> {
        Ok(plain.iter().map(|b| b ^ self.0).chain(context.iter().copied()).collect())
    }

    fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Vec<u8>> {
        let plain = sealed.strip_suffix(context).ok_or_else(|| Error::new(ErrorKind::Corrupt, "wrong key"))?;
        Ok(plain.iter().map(|b| b ^ self.0).collect())
    }

    fn overhead(&self) -> usize {
        unreachable!("the log does not ask")
    }
}

#[test]
fn payloads_are_sealed_in_their_place() {
    let fs = MemoryFs::new();
    let seal: Arc<dyn Seal> = Arc::new(Xor(0x55));
    let (wal, _) = open_sealed(fs.clone(), Some(Arc::clone(&seal)), 1).unwrap();
    append_and_commit(&wal, 4);
    wal.rotate().unwrap();
    append_and_commit(&wal, 4);
    drop(wal);
    assert_eq!(open_sealed(fs.clone(), Some(seal), 2).unwrap().1, records(2, 8));
    let bytes = fs.read(&path_of(Lsn(1))).unwrap();
    let plain = payload(3);
    assert!(!bytes.windows(plain.len()).any(|found| found == plain));
    let context = [path_of(Lsn(1)).as_bytes(), &3u64.to_le_bytes()].concat();
    assert!(bytes.windows(context.len()).any(|found| found == context));
    fs.put(&path_of(Lsn(1)), log(8, true).0.read(&path_of(Lsn(1))).unwrap());
    fs.remove(&path_of(Lsn(5))).unwrap();
    fs.list(FOLDER).unwrap().iter().skip(1).for_each(|name| fs.remove(&format!("wal/{name}")).unwrap());
    assert_corrupt(open_sealed(fs, Some(Arc::new(Xor(1))), 1), &path_of(Lsn(1)));
}

#[test]
fn an_error_of_replay_is_passed_on() {
    let (fs, _) = log(3, true);
    let error = Wal::open(Arc::new(fs), None, Lsn(1), &mut |_, _| Err(Error::invalid("no"))).unwrap_err();
    assert_eq!(error.message(), "no");
}

/// Commits `n` records without waiting; what each was told.
fn commit_then(wal: &Wal, n: u64) -> Vec<std::sync::mpsc::Receiver<Result<()>>> {
    let commit = |_| {
        let (send, receive) = std::sync::mpsc::channel();
        let lsn = append(wal).unwrap();
        wal.commit_then(lsn, move |result| send.send(result).unwrap());
        receive
    };
    (0..n).map(commit).collect()
}

#[test]
fn who_waits_without_a_thread_is_told() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let fs = FaultyFs::new();
    let (wal, _) = open(fs.clone(), 1).unwrap();
    for told in commit_then(&wal, 100) {
        told.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    assert_eq!(wal.durable(), Lsn(100));
    wal.set_durability(Durability::Off);
    for told in commit_then(&wal, 5) {
        told.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    wal.set_durability(Durability::Sync);
    // Appended before the log is closed, and asked for afterwards.
    let late = append(&wal).unwrap();
    wal.close().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    wal.commit_then(late, move |result| send.send(result).unwrap());
    receive.recv_timeout(PATIENCE).unwrap().unwrap();
    drop(wal);

    let (wal, found) = open(fs.clone(), 1).unwrap();
    assert_eq!(found.len(), 106);
    fs.fail_sync_at(1);
    for told in commit_then(&wal, 1) {
        assert_poisoned(&told.recv_timeout(PATIENCE).unwrap().unwrap_err(), "input/output error");
    }
}

#[test]
fn one_who_panics_when_told_does_not_end_the_log() {
    let (wal, _) = open(FaultyFs::new(), 1).unwrap();
    wal.commit_then(append(&wal).unwrap(), |_| panic!("a test"));
    append_and_commit(&wal, 1);
    for told in commit_then(&wal, 3) {
        told.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    }
}

#[test]
fn an_interval_is_kept_under_load() {
    let fs = FaultyFs::new();
    let (wal, _) = open(fs.clone(), 1).unwrap();
    wal.set_durability(Durability::Interval(Duration::from_millis(5)));
    fs.sync_takes(Duration::from_millis(1));
    let end = Instant::now() + Duration::from_millis(400);
    let before = fs.syncs();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while Instant::now() < end {
                    let (send, receive) = std::sync::mpsc::channel();
                    let lsn = wal.append(&[b"x"]).unwrap();
                    wal.commit_then(lsn, move |result| send.send(result).unwrap());
                    receive.recv().unwrap().unwrap();
                }
            });
        }
    });
    // Eighty if nobody else were busy.
    let syncs = fs.syncs() - before;
    assert!(syncs >= 8, "{syncs} syncs in 400 ms");
}
