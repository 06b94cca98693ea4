//! The level of any CPU: the body over plain arrays, with the instructions that the whole build may use.

use super::portable::{Portable, Words};
use super::{Table, bits_entry, dense_table};

/// The level that always exists.
pub(super) fn table() -> Table {
    Table { level: "scalar", dense: SCALAR, bits: scalar_bits }
}

dense_table! {
    with Portable::<false> => SCALAR
}
bits_entry! {
    with Words => scalar_bits
}
