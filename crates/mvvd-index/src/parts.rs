//! How the parts of an index lie in its bytes: numbers and arrays one after the other, each array aligned to 64 bytes.
//!
//! Numbers are little-endian, and so is every machine that this program runs on: arrays are read where they lie.

use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, ToByteSlice};
use mvvd_core::{Error, ErrorKind, Result};

/// Where arrays begin.
pub(crate) const ALIGNMENT: usize = 64;

/// Bytes that are being written.
#[derive(Debug, Default)]
pub(crate) struct PartsWriter {
    bytes: Vec<u8>,
}

impl PartsWriter {
    /// One number.
    pub(crate) fn number<T: ArrowNativeType>(&mut self, value: T) {
        self.bytes.extend_from_slice([value].to_byte_slice());
    }

    /// An array, after zeros up to its place. Its length is told elsewhere.
    pub(crate) fn array<T: ArrowNativeType>(&mut self, values: &[T]) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.bytes.extend_from_slice(values.to_byte_slice());
    }

    /// More of the array that was written last.
    pub(crate) fn append<T: ArrowNativeType>(&mut self, values: &[T]) {
        self.bytes.extend_from_slice(values.to_byte_slice());
    }

    /// The bytes, whose length is a multiple of 64.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
        self.bytes
    }
}

/// Bytes that are being read. Everything that does not fit is `Corrupt`.
#[derive(Debug)]
pub(crate) struct PartsReader {
    bytes: Buffer,
    at: usize,
}

impl PartsReader {
    /// Begins with the first part.
    pub(crate) fn new(bytes: Buffer) -> Result<Self> {
        match bytes.as_ptr().align_offset(ALIGNMENT) {
            0 => Ok(Self { bytes, at: 0 }),
            _ => Err(Error::internal(format!("the bytes of an index are not aligned to {ALIGNMENT} bytes"))),
        }
    }

    /// The next number.
    pub(crate) fn number<T: ArrowNativeType>(&mut self) -> Result<T> {
        // Numbers may lie anywhere; a copy of the few bytes is aligned.
        let range = self.take(size_of::<T>())?;
        let copy = Buffer::from_slice_ref(&self.bytes[range]);
        Ok(ScalarBuffer::<T>::new(copy, 0, 1)[0])
    }

    /// The next number, which counts something in memory.
    pub(crate) fn count(&mut self) -> Result<usize> {
        usize::try_from(self.number::<u64>()?).map_err(|_| corrupt("a length is too large"))
    }

    /// The next array, of `len` values.
    pub(crate) fn array<T: ArrowNativeType>(&mut self, len: usize) -> Result<ScalarBuffer<T>> {
        self.at = self.at.next_multiple_of(ALIGNMENT);
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| corrupt("a length is too large"))?;
        let range = self.take(bytes)?;
        Ok(ScalarBuffer::new(self.bytes.clone(), range.start / size_of::<T>(), len))
    }

    /// Ends after the last part.
    pub(crate) fn finish(self) -> Result<()> {
        match self.at.next_multiple_of(ALIGNMENT) == self.bytes.len() {
            true => Ok(()),
            false => Err(corrupt("it is longer than its parts")),
        }
    }

    fn take(&mut self, len: usize) -> Result<std::ops::Range<usize>> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let range = self.at..end.ok_or_else(|| corrupt("it is shorter than its parts"))?;
        self.at = range.end;
        Ok(range)
    }
}

/// The error of bytes that this program did not write.
pub(crate) fn corrupt(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the index is damaged: {what}"))
}

/// Checks that `offsets` cut `len` things into `offsets.len() - 1` runs.
pub(crate) fn check_offsets<T: ArrowNativeType>(offsets: &[T], len: usize) -> Result<()> {
    let ends = (offsets.first().map(|first| first.as_usize()), offsets.last().map(|last| last.as_usize()));
    match ends == (Some(0), Some(len)) && offsets.windows(2).all(|pair| pair[0].as_usize() <= pair[1].as_usize()) {
        true => Ok(()),
        false => Err(corrupt("its runs do not follow each other")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> Buffer {
        let mut writer = PartsWriter::default();
        writer.number(7u32);
        writer.number(3u64);
        writer.array(&[1.0f32, 2.0, 3.0]);
        writer.array::<u8>(&[]);
        writer.array(&[9u16]);
        Buffer::from_slice_ref(writer.finish())
    }

    #[test]
    fn what_was_written_is_read() {
        let mut reader = PartsReader::new(written()).unwrap();
        assert_eq!((reader.number::<u32>().unwrap(), reader.count().unwrap()), (7, 3));
        assert_eq!(&reader.array::<f32>(3).unwrap()[..], [1.0, 2.0, 3.0]);
        assert_eq!(reader.array::<u8>(0).unwrap().len(), 0);
        assert_eq!(&reader.array::<u16>(1).unwrap()[..], [9]);
        reader.finish().unwrap();
    }

    #[test]
    fn wrong_lengths_are_corrupt() {
        let kind = |result: Result<()>| result.unwrap_err().kind();
        let mut reader = PartsReader::new(written()).unwrap();
        assert_eq!(kind(reader.array::<f32>(usize::MAX).map(drop)), ErrorKind::Corrupt);
        assert_eq!(kind(reader.array::<f32>(1 << 40).map(drop)), ErrorKind::Corrupt);
        assert_eq!(kind(reader.finish()), ErrorKind::Corrupt);
        assert_eq!(
            kind(PartsReader::new(Buffer::from(&[0u8; 3])).unwrap().number::<u32>().map(drop)),
            ErrorKind::Corrupt
        );
        assert!(check_offsets(&[0u32, 2, 2, 5], 5).is_ok());
        for offsets in [&[0u32, 3, 2, 5][..], &[1, 5], &[0, 4], &[]] {
            assert_eq!(kind(check_offsets(offsets, 5)), ErrorKind::Corrupt, "{offsets:?}");
        }
    }
}
