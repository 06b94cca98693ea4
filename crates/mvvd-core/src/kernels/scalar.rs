//! The level of any CPU: the body over plain arrays, with the instructions that the whole build may use.

use super::fastscan::{Bytewise, fastscan_table};
use super::fht::rotation_table;
use super::portable::{Portable, Words};
use super::words::words_table;
use super::{Table, bits_entry, dense_table};

/// The level that always exists.
pub(super) fn table() -> Table {
    Table { level: "scalar", dense: SCALAR, bits: scalar_bits, fastscan: FASTSCAN, rotation: ROTATION, words: WORDS }
}

dense_table! {
    with Portable::<false> => SCALAR
}
bits_entry! {
    with Words => scalar_bits
}
fastscan_table! {
    with Bytewise => FASTSCAN
}
rotation_table! {
    => ROTATION
}
words_table! {
    => WORDS
}
