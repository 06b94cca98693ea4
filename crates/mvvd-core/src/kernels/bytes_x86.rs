//! The levels over bytes of x86-64: AVX-512 with VNNI, and AVX2.
#![expect(unsafe_code, reason = "CPU intrinsics; each level is entered only after its features were detected")]

use std::arch::x86_64::*;

use super::bytes::{BLOCK, Level, Multiply, dots_entry};

/// The levels that this CPU has, fastest first.
pub(super) fn levels() -> Vec<Level> {
    let mut levels = Vec::new();
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vnni")
    {
        levels.push(Level { name: "avx512vnni", dots: vnni_dots });
    }
    if is_x86_feature_detected!("avx2") {
        levels.push(Level { name: "avx2", dots: avx2_dots });
    }
    levels
}

dots_entry! {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
    with Vnni(()) => vnni_dots
}
dots_entry! {
    #[target_feature(enable = "avx2")]
    with Avx2(()) => avx2_dots
}

/// Exists only inside this module's VNNI function, so the CPU has AVX-512 F, BW and VNNI.
#[derive(Clone, Copy)]
struct Vnni(());

impl Multiply for Vnni {
    type V = __m512i;

    #[inline(always)]
    fn zero(self) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn multiply(self, sum: __m512i, row: &[u8; BLOCK], query: &[i8; BLOCK]) -> __m512i {
        // SAFETY: `self` proves the features; both blocks are 64 readable bytes.
        unsafe {
            let (row, query) = (_mm512_loadu_si512(row.as_ptr().cast()), _mm512_loadu_si512(query.as_ptr().cast()));
            _mm512_dpbusd_epi32(sum, row, query)
        }
    }

    #[inline(always)]
    fn multiply_rest(self, sum: __m512i, row: &[u8], query: &[i8]) -> __m512i {
        let length = row.len().min(query.len());
        debug_assert!(length < BLOCK);
        let mask = (1_u64 << length) - 1;
        // SAFETY: `self` proves the features; bytes beyond the slices are masked and not read.
        unsafe {
            let row = _mm512_maskz_loadu_epi8(mask, row.as_ptr().cast());
            _mm512_dpbusd_epi32(sum, row, _mm512_maskz_loadu_epi8(mask, query.as_ptr()))
        }
    }

    #[inline(always)]
    fn fold(self, [a, b, c, d]: [__m512i; 4]) -> [i32; 4] {
        // SAFETY: `self` proves the features; the result is 16 writable bytes.
        unsafe {
            let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            // Each quarter now has one part of each of the four sums, in their order.
            let abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let half = _mm256_add_epi32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64::<1>(abcd));
            let sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
            let mut out = [0; 4];
            _mm_storeu_si128(out.as_mut_ptr().cast(), sums);
            out
        }
    }

    #[inline(always)]
    fn fold_one(self, sum: __m512i) -> i32 {
        // SAFETY: `self` proves the features.
        unsafe { _mm512_reduce_add_epi32(sum) }
    }

    #[inline(always)]
    fn prefetch(self, place: *const u8) {
        prefetch(place);
    }
}

/// Exists only inside this module's AVX2 function, so the CPU has AVX2.
#[derive(Clone, Copy)]
struct Avx2(());

impl Multiply for Avx2 {
    type V = __m256i;

    #[inline(always)]
    fn zero(self) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn add(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: `self` proves the features.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    fn multiply(self, mut sum: __m256i, row: &[u8; BLOCK], query: &[i8; BLOCK]) -> __m256i {
        // Widened first: the instruction that multiplies bytes directly saturates.
        for part in 0..BLOCK / 16 {
            // SAFETY: `self` proves the features; both parts are 16 readable bytes within their blocks.
            unsafe {
                let row = _mm256_cvtepu8_epi16(_mm_loadu_si128(row.as_ptr().add(part * 16).cast()));
                let query = _mm256_cvtepi8_epi16(_mm_loadu_si128(query.as_ptr().add(part * 16).cast()));
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(row, query));
            }
        }
        sum
    }

    #[inline(always)]
    fn multiply_rest(self, sum: __m256i, row: &[u8], query: &[i8]) -> __m256i {
        let (mut padded_row, mut padded_query) = ([0; BLOCK], [0; BLOCK]);
        padded_row[..row.len()].copy_from_slice(row);
        padded_query[..query.len()].copy_from_slice(query);
        self.multiply(sum, &padded_row, &padded_query)
    }

    #[inline(always)]
    fn fold(self, sums: [__m256i; 4]) -> [i32; 4] {
        [self.fold_one(sums[0]), self.fold_one(sums[1]), self.fold_one(sums[2]), self.fold_one(sums[3])]
    }

    #[inline(always)]
    fn fold_one(self, sum: __m256i) -> i32 {
        // SAFETY: `self` proves the features.
        unsafe {
            let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
            let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
        }
    }

    #[inline(always)]
    fn prefetch(self, place: *const u8) {
        prefetch(place);
    }
}

#[inline(always)]
fn prefetch(place: *const u8) {
    // SAFETY: every x86-64 CPU has the instruction, and it does not fault on any address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) }
}
