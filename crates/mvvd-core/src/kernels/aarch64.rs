//! The level of aarch64, whose every CPU has NEON and fused multiply-add: the body over plain arrays, left to the compiler,
//! but for shuffles.
#![expect(unsafe_code, reason = "CPU intrinsics; every aarch64 CPU has NEON")]

use std::arch::aarch64::*;

use super::fastscan::{BLOCK_ROWS, PLACE_BYTES, Shuffle, below_portable, fastscan_table};
use super::fht::rotation_table;
use super::portable::{Portable, Words};
use super::words::words_table;
use super::{Table, bits_entry, dense_table};

/// The levels that this CPU has.
pub(super) fn tables() -> Vec<Table> {
    vec![Table { level: "neon", dense: NEON, bits: neon_bits, fastscan: FASTSCAN, rotation: ROTATION, words: WORDS }]
}

dense_table! {
    #[target_feature(enable = "neon")]
    with Portable::<true> => NEON
}
bits_entry! {
    #[target_feature(enable = "neon")]
    with Words => neon_bits
}
fastscan_table! {
    #[target_feature(enable = "neon")]
    with Neon(()) => FASTSCAN
}
rotation_table! {
    #[target_feature(enable = "neon")]
    => ROTATION
}
words_table! {
    #[target_feature(enable = "neon")]
    => WORDS
}

/// Exists only inside this module's NEON functions, so the CPU has NEON.
#[derive(Clone, Copy)]
struct Neon(());

impl Shuffle for Neon {
    const BYTES: usize = PLACE_BYTES;
    /// Pairs of rows 0 to 15, their odd bytes alone, and the same of rows 16 to 31.
    type Sums = [uint16x8_t; 4];

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        // SAFETY: `self` proves the features.
        unsafe { [vdupq_n_u16(0); 4] }
    }

    #[inline(always)]
    fn add(self, sums: Self::Sums, codes: &[u8], tables: &[u8]) -> Self::Sums {
        assert!(codes.len() == PLACE_BYTES && tables.len() == PLACE_BYTES);
        // SAFETY: `self` proves the features; both slices are 16 readable bytes.
        unsafe {
            let (codes, table) = (vld1q_u8(codes.as_ptr()), vld1q_u8(tables.as_ptr()));
            let low = vreinterpretq_u16_u8(vqtbl1q_u8(table, vandq_u8(codes, vdupq_n_u8(15))));
            let high = vreinterpretq_u16_u8(vqtbl1q_u8(table, vshrq_n_u8::<4>(codes)));
            [
                vaddq_u16(sums[0], low),
                vsraq_n_u16::<8>(sums[1], low),
                vaddq_u16(sums[2], high),
                vsraq_n_u16::<8>(sums[3], high),
            ]
        }
    }

    #[inline(always)]
    fn finish(self, sums: Self::Sums, out: &mut [u32; BLOCK_ROWS]) {
        let mut parts = [[0_u16; 8]; 4];
        // SAFETY: `self` proves the features; each part is 16 writable bytes.
        unsafe {
            for half in 0..2 {
                let (pairs, odd) = (sums[2 * half], sums[2 * half + 1]);
                vst1q_u16(parts[2 * half].as_mut_ptr(), vsubq_u16(pairs, vshlq_n_u16::<8>(odd)));
                vst1q_u16(parts[2 * half + 1].as_mut_ptr(), odd);
            }
        }
        for (out, &sum) in out.iter_mut().zip(parts.as_flattened()) {
            *out += u32::from(sum);
        }
    }

    #[inline(always)]
    fn below(self, values: &[f32; BLOCK_ROWS], limit: f32) -> u32 {
        below_portable(values, limit)
    }
}
