//! The level of aarch64, whose every CPU has NEON and fused multiply-add: the body over plain arrays, left to the compiler.

use super::portable::{Portable, Words};
use super::{Table, bits_entry, dense_table};

/// The levels that this CPU has.
pub(super) fn tables() -> Vec<Table> {
    vec![Table { level: "neon", dense: NEON, bits: neon_bits }]
}

dense_table! {
    #[target_feature(enable = "neon")]
    with Portable::<true> => NEON
}
bits_entry! {
    #[target_feature(enable = "neon")]
    with Words => neon_bits
}
