//! Large pages under large columns: a scan reads twice as fast from them where the processor's table of pages is small.

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;

/// Columns with fewer bytes gain nothing.
const BYTES_MIN: usize = 8 << 20;

/// Asks the system to keep the values of a dense vector column in large pages, now. A hint: where it is not taken, and
/// for any other column, nothing changes. Costs about a copy of the column.
pub fn prefer_large_pages(column: &dyn Array) {
    if !matches!(column.data_type(), DataType::FixedSizeList(..)) {
        return;
    }
    let values = column.as_fixed_size_list().values().to_data();
    for buffer in values.buffers().iter().filter(|buffer| buffer.len() >= BYTES_MIN) {
        advise(buffer.as_slice());
    }
}

#[cfg(target_os = "linux")]
fn advise(bytes: &[u8]) {
    const PAGE: usize = 4_096;
    /// `MADV_COLLAPSE`, of Linux 6.1; older ones refuse it.
    const COLLAPSE: libc::c_int = 25;
    let start = bytes.as_ptr().addr().next_multiple_of(PAGE);
    let end = (bytes.as_ptr().addr() + bytes.len()) & !(PAGE - 1);
    let Some(len) = end.checked_sub(start).filter(|len| *len > 0) else { return };
    let place = bytes.as_ptr().wrapping_add(start - bytes.as_ptr().addr()).cast_mut().cast();
    for advice in [libc::MADV_HUGEPAGE, COLLAPSE] {
        // SAFETY: the range lies within `bytes`, and this advice changes where the bytes are in memory, never the bytes.
        let taken = unsafe { libc::madvise(place, len, advice) };
        if taken != 0 {
            return;
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &[u8]) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::dense_column;
    use crate::vector_type::{VectorKind, VectorType};
    use arrow::datatypes::Float32Type;

    #[test]
    fn values_stay() {
        let ty = VectorType::new(VectorKind::Dense, 128).unwrap();
        let values: Vec<f32> = (0..128 * 20_000).map(|i| i as f32).collect();
        let column = dense_column(values, ty, None);
        prefer_large_pages(&column);
        let values = column.as_fixed_size_list().values();
        let values = values.as_primitive::<Float32Type>().values();
        assert!(values.iter().enumerate().all(|(i, v)| *v == i as f32));
        prefer_large_pages(&arrow::array::Int64Array::from(vec![1]));
    }
}
