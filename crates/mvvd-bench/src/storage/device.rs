//! What the device itself does in the folder, without a database.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::{Duration, Instant};

use mvvd_bench::truth::Result;

use super::Place;

/// Bytes of one write of the copy.
const WRITE_BYTES: usize = 1 << 20;

/// Time to write so many bytes, from memory, to a new file and make them durable.
pub(super) fn copy(place: &Place<'_>, bytes: usize) -> Result<Duration> {
    let path = place.file("copy");
    let source: Vec<u8> = (0..WRITE_BYTES).map(|i| (i * 31 % 251) as u8).collect();
    let start = Instant::now();
    let mut file = File::create(&path)?;
    let mut left = bytes;
    while left > 0 {
        let part = left.min(WRITE_BYTES);
        file.write_all(&source[..part])?;
        left -= part;
    }
    file.sync_data()?;
    let time = start.elapsed();
    std::fs::remove_file(&path)?;
    Ok(time)
}

/// Times of appends of so many bytes, each durable before the next; sorted.
///
/// The times and not only their number: on a busy machine most of an append is waiting for a processor, which shows as a
/// median far above the fastest ones.
pub(super) fn appends(place: &Place<'_>, bytes: usize, time: Duration) -> Result<Vec<Duration>> {
    let path = place.file("syncs");
    let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
    let part = vec![0x5a; bytes];
    let (mut times, start) = (Vec::new(), Instant::now());
    while start.elapsed() < time {
        let before = Instant::now();
        file.write_all(&part)?;
        file.sync_data()?;
        times.push(before.elapsed());
    }
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times)
}
