//! The levels of x86-64: AVX-512 and AVX2.
//!
//! Intrinsics, because they measure faster than arrays that the compiler vectorises (`docs/benchmarks.md`).
#![expect(unsafe_code, reason = "CPU intrinsics; each level is entered only after its features were detected")]

use std::arch::x86_64::*;

use half::f16;

use super::bits::{BLOCK, Bits};
use super::body::{LANES, Simd};
use super::fastscan::{BLOCK_ROWS, Shuffle, fastscan_table};
use super::fht::rotation_table;
use super::portable::Words;
use super::words::words_table;
use super::{Table, bits_entry, dense_table};

/// The levels that this CPU has, fastest first.
pub(super) fn tables() -> Vec<Table> {
    let mut tables = Vec::new();
    let popcnt = is_x86_feature_detected!("popcnt");
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && popcnt
    {
        tables.push(Table {
            level: "avx512",
            dense: AVX512,
            bits: if is_x86_feature_detected!("avx512vpopcntdq") { vpopcnt_bits } else { popcnt_bits },
            fastscan: AVX512_FASTSCAN,
            rotation: AVX512_ROTATION,
            words: AVX512_WORDS,
        });
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") && popcnt
    {
        tables.push(Table {
            level: "avx2",
            dense: AVX2,
            bits: popcnt_bits,
            fastscan: AVX2_FASTSCAN,
            rotation: AVX2_ROTATION,
            words: AVX2_WORDS,
        });
    }
    tables
}

dense_table! {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,popcnt")]
    with Avx512(()) => AVX512
}
dense_table! {
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    with Avx2(()) => AVX2
}
bits_entry! {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,popcnt")]
    with Vpopcnt(()) => vpopcnt_bits
}
bits_entry! {
    #[target_feature(enable = "popcnt")]
    with Words => popcnt_bits
}
fastscan_table! {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,popcnt")]
    with Avx512(()) => AVX512_FASTSCAN
}
fastscan_table! {
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    with Avx2(()) => AVX2_FASTSCAN
}
rotation_table! {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,popcnt")]
    => AVX512_ROTATION
}
rotation_table! {
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    => AVX2_ROTATION
}
words_table! {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,popcnt")]
    => AVX512_WORDS
}
words_table! {
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    => AVX2_WORDS
}

/// Exists only inside this module's AVX-512 functions, so the CPU has AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
struct Avx512(());

/// Exists only inside this module's AVX2 functions, so the CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy)]
struct Avx2(());

impl Simd for Avx512 {
    type V = __m512;
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn zero(self) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    fn load(self, chunk: &[f32; LANES]) -> __m512 {
        // SAFETY: `self` proves the features; the chunk is 64 readable bytes.
        unsafe { _mm512_loadu_ps(chunk.as_ptr()) }
    }

    #[inline(always)]
    fn load_rest(self, rest: &[f32]) -> __m512 {
        debug_assert!(rest.len() < LANES);
        let mask = (1_u16 << rest.len()) - 1;
        // SAFETY: `self` proves the features; lanes beyond the slice are masked and not read.
        unsafe { _mm512_maskz_loadu_ps(mask, rest.as_ptr()) }
    }

    #[inline(always)]
    fn load_half(self, chunk: &[f16; LANES]) -> __m512 {
        // SAFETY: `self` proves the features; the chunk is 32 readable bytes.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(chunk.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_half_rest(self, rest: &[f16]) -> __m512 {
        debug_assert!(rest.len() < LANES);
        let mask = (1_u16 << rest.len()) - 1;
        // SAFETY: `self` proves the features; lanes beyond the slice are masked and not read.
        unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, rest.as_ptr().cast())) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_abs_ps(a) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn fold(self, v: [__m512; 4]) -> [f32; 4] {
        // SAFETY: `self` proves the features; the result is 16 writable bytes.
        unsafe {
            // Quarters 0 and 1 of two vectors side by side, then 2 and 3 of both: one addition folds 16 lanes to 8.
            let ab = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0b01_00_01_00>(v[0], v[1]),
                _mm512_shuffle_f32x4::<0b11_10_11_10>(v[0], v[1]),
            );
            let cd = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0b01_00_01_00>(v[2], v[3]),
                _mm512_shuffle_f32x4::<0b11_10_11_10>(v[2], v[3]),
            );
            // Even quarters, odd quarters: 8 lanes to 4, one vector to each quarter.
            let abcd = _mm512_add_ps(
                _mm512_shuffle_f32x4::<0b10_00_10_00>(ab, cd),
                _mm512_shuffle_f32x4::<0b11_01_11_01>(ab, cd),
            );
            let two = _mm512_add_ps(abcd, _mm512_permute_ps::<0b01_00_11_10>(abcd));
            let one = _mm512_add_ps(two, _mm512_permute_ps::<0b10_11_00_01>(two));
            let firsts = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), one);
            let mut sums = [0.0; 4];
            _mm_storeu_ps(sums.as_mut_ptr(), _mm512_castps512_ps128(firsts));
            sums
        }
    }

    #[inline(always)]
    fn fold_one(self, v: __m512) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { fold_eight(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v))) }
    }

    #[inline(always)]
    fn prefetch<T>(self, place: *const T, first_level: bool) {
        prefetch(place, first_level);
    }
}

impl Simd for Avx2 {
    type V = [__m256; 2];
    const REGISTERS: usize = 4;

    #[inline(always)]
    fn zero(self) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_setzero_ps(); 2] }
    }

    #[inline(always)]
    fn load(self, chunk: &[f32; LANES]) -> Self::V {
        // SAFETY: `self` proves the features; the chunk is 64 readable bytes.
        unsafe { [_mm256_loadu_ps(chunk.as_ptr()), _mm256_loadu_ps(chunk.as_ptr().add(8))] }
    }

    #[inline(always)]
    fn load_rest(self, rest: &[f32]) -> Self::V {
        /// A window of 8 that starts at 8 - n has n lanes set.
        const MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        debug_assert!(rest.len() < LANES);
        let low = rest.len().min(8);
        let high = rest.len() - low;
        // SAFETY: `self` proves the features; both windows lie inside the table; lanes beyond the slice are masked and
        // not read, and the second pointer is at most one past the slice.
        unsafe {
            let low_mask = _mm256_loadu_si256(MASKS.as_ptr().add(8 - low).cast());
            let high_mask = _mm256_loadu_si256(MASKS.as_ptr().add(8 - high).cast());
            let low_lanes = _mm256_maskload_ps(rest.as_ptr(), low_mask);
            [low_lanes, _mm256_maskload_ps(rest.as_ptr().add(low), high_mask)]
        }
    }

    #[inline(always)]
    fn load_half(self, chunk: &[f16; LANES]) -> Self::V {
        let halves: *const __m128i = chunk.as_ptr().cast();
        // SAFETY: `self` proves the features; the chunk is 32 readable bytes.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves.add(1)))] }
    }

    #[inline(always)]
    fn load_half_rest(self, rest: &[f16]) -> Self::V {
        let mut padded = [f16::ZERO; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        self.load_half(&padded)
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            [_mm256_andnot_ps(sign, a[0]), _mm256_andnot_ps(sign, a[1])]
        }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn fold(self, v: [Self::V; 4]) -> [f32; 4] {
        [self.fold_one(v[0]), self.fold_one(v[1]), self.fold_one(v[2]), self.fold_one(v[3])]
    }

    #[inline(always)]
    fn fold_one(self, v: Self::V) -> f32 {
        // SAFETY: `self` proves the features.
        unsafe { fold_eight(_mm256_add_ps(v[0], v[1])) }
    }

    #[inline(always)]
    fn prefetch<T>(self, place: *const T, first_level: bool) {
        prefetch(place, first_level);
    }
}

/// Four places at a time.
impl Shuffle for Avx512 {
    const BYTES: usize = 64;
    /// Pairs of rows 0 to 15, their odd bytes alone, and the same of rows 16 to 31.
    type Sums = [__m512i; 4];

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        // SAFETY: `self` proves the features.
        unsafe { [_mm512_setzero_si512(); 4] }
    }

    #[inline(always)]
    fn add(self, sums: Self::Sums, codes: &[u8], tables: &[u8]) -> Self::Sums {
        assert!(codes.len() == Self::BYTES && tables.len() == Self::BYTES);
        // SAFETY: `self` proves the features; both slices are 64 readable bytes.
        unsafe {
            let codes = _mm512_loadu_si512(codes.as_ptr().cast());
            let tables = _mm512_loadu_si512(tables.as_ptr().cast());
            let digit = _mm512_set1_epi8(15);
            let low = _mm512_shuffle_epi8(tables, _mm512_and_si512(codes, digit));
            let high = _mm512_shuffle_epi8(tables, _mm512_and_si512(_mm512_srli_epi16::<4>(codes), digit));
            [
                _mm512_add_epi16(sums[0], low),
                _mm512_add_epi16(sums[1], _mm512_srli_epi16::<8>(low)),
                _mm512_add_epi16(sums[2], high),
                _mm512_add_epi16(sums[3], _mm512_srli_epi16::<8>(high)),
            ]
        }
    }

    #[inline(always)]
    fn finish(self, sums: Self::Sums, out: &mut [u32; BLOCK_ROWS]) {
        // SAFETY: `self` proves the features; each quarter of `out` is 32 readable and writable bytes.
        unsafe {
            for half in 0..2 {
                let odd = sums[2 * half + 1];
                let even = _mm512_sub_epi16(sums[2 * half], _mm512_slli_epi16::<8>(odd));
                for (quarter, v) in [even, odd].into_iter().enumerate() {
                    // Four places of eight rows each: two and two, then the halves.
                    let two = _mm512_add_epi32(
                        _mm512_cvtepu16_epi32(_mm512_castsi512_si256(v)),
                        _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(v)),
                    );
                    let one = _mm256_add_epi32(_mm512_castsi512_si256(two), _mm512_extracti64x4_epi64::<1>(two));
                    let place = out[16 * half + 8 * quarter..][..8].as_mut_ptr().cast();
                    _mm256_storeu_si256(place, _mm256_add_epi32(_mm256_loadu_si256(place), one));
                }
            }
        }
    }

    #[inline(always)]
    fn below(self, values: &[f32; BLOCK_ROWS], limit: f32) -> u32 {
        // SAFETY: `self` proves the features; both halves are 64 readable bytes.
        unsafe {
            let limit = _mm512_set1_ps(limit);
            let low = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_loadu_ps(values.as_ptr()), limit);
            let high = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_loadu_ps(values[16..].as_ptr()), limit);
            u32::from(low) | u32::from(high) << 16
        }
    }
}

/// Two places at a time.
impl Shuffle for Avx2 {
    const BYTES: usize = 32;
    /// Pairs of rows 0 to 15, their odd bytes alone, and the same of rows 16 to 31.
    type Sums = [__m256i; 4];

    #[inline(always)]
    fn zero(self) -> Self::Sums {
        // SAFETY: `self` proves the features.
        unsafe { [_mm256_setzero_si256(); 4] }
    }

    #[inline(always)]
    fn add(self, sums: Self::Sums, codes: &[u8], tables: &[u8]) -> Self::Sums {
        assert!(codes.len() == Self::BYTES && tables.len() == Self::BYTES);
        // SAFETY: `self` proves the features; both slices are 32 readable bytes.
        unsafe {
            let codes = _mm256_loadu_si256(codes.as_ptr().cast());
            let tables = _mm256_loadu_si256(tables.as_ptr().cast());
            let digit = _mm256_set1_epi8(15);
            let low = _mm256_shuffle_epi8(tables, _mm256_and_si256(codes, digit));
            let high = _mm256_shuffle_epi8(tables, _mm256_and_si256(_mm256_srli_epi16::<4>(codes), digit));
            [
                _mm256_add_epi16(sums[0], low),
                _mm256_add_epi16(sums[1], _mm256_srli_epi16::<8>(low)),
                _mm256_add_epi16(sums[2], high),
                _mm256_add_epi16(sums[3], _mm256_srli_epi16::<8>(high)),
            ]
        }
    }

    #[inline(always)]
    fn finish(self, sums: Self::Sums, out: &mut [u32; BLOCK_ROWS]) {
        // SAFETY: `self` proves the features; each quarter of `out` is 32 readable and writable bytes.
        unsafe {
            for half in 0..2 {
                let odd = sums[2 * half + 1];
                let even = _mm256_sub_epi16(sums[2 * half], _mm256_slli_epi16::<8>(odd));
                for (quarter, v) in [even, odd].into_iter().enumerate() {
                    let one = _mm256_add_epi32(
                        _mm256_cvtepu16_epi32(_mm256_castsi256_si128(v)),
                        _mm256_cvtepu16_epi32(_mm256_extracti128_si256::<1>(v)),
                    );
                    let place = out[16 * half + 8 * quarter..][..8].as_mut_ptr().cast();
                    _mm256_storeu_si256(place, _mm256_add_epi32(_mm256_loadu_si256(place), one));
                }
            }
        }
    }

    #[inline(always)]
    fn below(self, values: &[f32; BLOCK_ROWS], limit: f32) -> u32 {
        let mut mask = 0;
        for (i, eight) in values.chunks_exact(8).enumerate() {
            // SAFETY: `self` proves the features; the chunk is 32 readable bytes.
            let bits = unsafe {
                let less = _mm256_cmp_ps::<_CMP_LT_OQ>(_mm256_loadu_ps(eight.as_ptr()), _mm256_set1_ps(limit));
                _mm256_movemask_ps(less)
            };
            mask |= (bits as u32) << (8 * i);
        }
        mask
    }
}

/// Exists only inside this module's VPOPCNTDQ function, so the CPU has it, and AVX-512 F and BW.
#[derive(Clone, Copy)]
struct Vpopcnt(());

impl Bits for Vpopcnt {
    type V = __m512i;

    #[inline(always)]
    fn zero(self) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn load(self, block: &[u8; BLOCK]) -> __m512i {
        // SAFETY: `self` proves the features; the block is 64 readable bytes.
        unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_rest(self, rest: &[u8]) -> __m512i {
        debug_assert!(rest.len() < BLOCK);
        let mask = (1_u64 << rest.len()) - 1;
        // SAFETY: `self` proves the features; bytes beyond the slice are masked and not read.
        unsafe { _mm512_maskz_loadu_epi8(mask, rest.as_ptr().cast()) }
    }

    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn xor(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    fn add_ones(self, counts: __m512i, bits: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_add_epi64(counts, _mm512_popcnt_epi64(bits)) }
    }

    #[inline(always)]
    fn fold(self, counts: __m512i) -> u64 {
        // SAFETY: `self` proves the features. A sum of counts is not negative.
        unsafe { _mm512_reduce_add_epi64(counts) as u64 }
    }
}

/// Eight lanes folded to one.
#[inline]
#[target_feature(enable = "avx")]
fn fold_eight(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

#[inline(always)]
fn prefetch<T>(place: *const T, first_level: bool) {
    // SAFETY: every x86-64 CPU has the instruction, and it does not fault on any address.
    unsafe {
        if first_level {
            _mm_prefetch::<_MM_HINT_T0>(place.cast());
        } else {
            _mm_prefetch::<_MM_HINT_T1>(place.cast());
        }
    }
}

/// Asks for every cache line of `bytes`.
#[inline]
pub(super) fn prefetch_bytes(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        prefetch(line.as_ptr(), true);
    }
}
