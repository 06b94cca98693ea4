//! A file as memory.
#![expect(unsafe_code, reason = "a memory map is only as constant as the file below it")]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use arrow::buffer::Buffer;
use memmap2::Mmap;

/// The whole of `file`, aligned to a page.
pub(super) fn map(file: &File) -> io::Result<Buffer> {
    if file.metadata()?.len() == 0 {
        // There is no map of no bytes.
        return Ok(Buffer::from_vec(Vec::<u8>::new()));
    }
    // SAFETY: the bytes must not change while they are mapped. Files that are mapped are complete when they get their
    // name and never written to again (they are replaced or removed, which leaves the mapped file as it is), and the
    // directory is locked against a second process.
    let map = unsafe { Mmap::map(file)? };
    let len = map.len();
    let start = NonNull::new(map.as_ptr().cast_mut()).expect("a map has an address");
    // SAFETY: `start` and `len` are those of the map, which the buffer owns: it is unmapped with the last clone.
    Ok(unsafe { Buffer::from_custom_allocation(start, len, Arc::new(map)) })
}
