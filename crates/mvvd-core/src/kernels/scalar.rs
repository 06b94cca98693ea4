//! The level of any CPU: the body over plain arrays, with the instructions that the whole build may use.

use super::portable::Portable;
use super::{Table, bits_entry, dense_entries};

/// The level that always exists.
pub(super) fn table() -> Table {
    Table {
        level: "scalar",
        f32_f32: scalar_f32_f32,
        f32_f16: scalar_f32_f16,
        f16_f16: scalar_f16_f16,
        bits: scalar_bits,
    }
}

dense_entries! {
    Portable::<false> => scalar_f32_f32, scalar_f32_f16, scalar_f16_f16
}
bits_entry! {
    scalar_bits
}
