//! The level of aarch64, whose every CPU has NEON and fused multiply-add: the body over plain arrays, left to the compiler.

use super::portable::Portable;
use super::{Table, bits_entry, dense_entries};

/// The levels that this CPU has.
pub(super) fn tables() -> Vec<Table> {
    vec![Table { level: "neon", f32_f32: neon_f32_f32, f32_f16: neon_f32_f16, f16_f16: neon_f16_f16, bits: neon_bits }]
}

dense_entries! {
    #[target_feature(enable = "neon")]
    Portable::<true> => neon_f32_f32, neon_f32_f16, neon_f16_f16
}
bits_entry! {
    #[target_feature(enable = "neon")]
    neon_bits
}
