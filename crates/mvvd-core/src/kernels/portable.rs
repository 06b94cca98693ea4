//! Sixteen lanes, or 512 bits, as a plain array, for any CPU: the compiler makes vectors of it where the level allows.

use half::f16;

use super::bits::{BLOCK, Bits};
use super::body::{LANES, Simd};

/// With `FMA`, multiply and add are one rounding; only for levels whose CPU has the instruction.
#[derive(Clone, Copy)]
pub(super) struct Portable<const FMA: bool>;

impl<const FMA: bool> Simd for Portable<FMA> {
    type V = [f32; LANES];
    // More than there are, but sharing the query's loads measures faster than keeping within them.
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn zero(self) -> Self::V {
        [0.0; LANES]
    }

    #[inline(always)]
    fn load(self, chunk: &[f32; LANES]) -> Self::V {
        *chunk
    }

    #[inline(always)]
    fn load_rest(self, rest: &[f32]) -> Self::V {
        let mut padded = [0.0; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        padded
    }

    #[inline(always)]
    fn load_half(self, chunk: &[f16; LANES]) -> Self::V {
        let mut v = [0.0; LANES];
        for i in 0..LANES {
            v[i] = widen(chunk[i]);
        }
        v
    }

    #[inline(always)]
    fn load_half_rest(self, rest: &[f16]) -> Self::V {
        let mut padded = [f16::ZERO; LANES];
        padded[..rest.len()].copy_from_slice(rest);
        self.load_half(&padded)
    }

    #[inline(always)]
    fn add(self, mut a: Self::V, b: Self::V) -> Self::V {
        for i in 0..LANES {
            a[i] += b[i];
        }
        a
    }

    #[inline(always)]
    fn sub(self, mut a: Self::V, b: Self::V) -> Self::V {
        for i in 0..LANES {
            a[i] -= b[i];
        }
        a
    }

    #[inline(always)]
    fn abs(self, mut a: Self::V) -> Self::V {
        for lane in &mut a {
            *lane = lane.abs();
        }
        a
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, mut c: Self::V) -> Self::V {
        for i in 0..LANES {
            c[i] = if FMA { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] };
        }
        c
    }

    #[inline(always)]
    fn fold(self, v: [Self::V; 4]) -> [f32; 4] {
        [self.fold_one(v[0]), self.fold_one(v[1]), self.fold_one(v[2]), self.fold_one(v[3])]
    }

    #[inline(always)]
    fn fold_one(self, mut v: Self::V) -> f32 {
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                v[i] += v[i + width];
            }
            width /= 2;
        }
        v[0]
    }

    #[inline(always)]
    fn prefetch<T>(self, _: *const T, _: bool) {}
}

/// Eight words of 64 bits.
#[derive(Clone, Copy)]
pub(super) struct Words;

impl Bits for Words {
    type V = [u64; BLOCK / 8];

    #[inline(always)]
    fn zero(self) -> Self::V {
        [0; BLOCK / 8]
    }

    #[inline(always)]
    fn load(self, block: &[u8; BLOCK]) -> Self::V {
        let (eights, _) = block.as_chunks::<8>();
        let mut words = [0; BLOCK / 8];
        for i in 0..BLOCK / 8 {
            words[i] = u64::from_le_bytes(eights[i]);
        }
        words
    }

    #[inline(always)]
    fn load_rest(self, rest: &[u8]) -> Self::V {
        let (eights, last) = rest.as_chunks::<8>();
        let mut words = [0; BLOCK / 8];
        for (word, eight) in words.iter_mut().zip(eights) {
            *word = u64::from_le_bytes(*eight);
        }
        for (i, &byte) in last.iter().enumerate() {
            words[eights.len()] |= u64::from(byte) << (8 * i);
        }
        words
    }

    #[inline(always)]
    fn and(self, mut a: Self::V, b: Self::V) -> Self::V {
        for i in 0..BLOCK / 8 {
            a[i] &= b[i];
        }
        a
    }

    #[inline(always)]
    fn or(self, mut a: Self::V, b: Self::V) -> Self::V {
        for i in 0..BLOCK / 8 {
            a[i] |= b[i];
        }
        a
    }

    #[inline(always)]
    fn xor(self, mut a: Self::V, b: Self::V) -> Self::V {
        for i in 0..BLOCK / 8 {
            a[i] ^= b[i];
        }
        a
    }

    #[inline(always)]
    fn add_ones(self, mut counts: Self::V, bits: Self::V) -> Self::V {
        for i in 0..BLOCK / 8 {
            counts[i] += u64::from(bits[i].count_ones());
        }
        counts
    }

    #[inline(always)]
    fn fold(self, counts: Self::V) -> u64 {
        let mut sum = 0;
        for count in counts {
            sum += count;
        }
        sum
    }
}

/// The value of `half`, exactly, without a branch on it, so that a loop over many becomes vector code.
///
/// Moves the fraction to its place and scales by 2^112, the difference of the exponents' biases, which sets subnormals
/// right as well; an exponent of all ones (infinity or NaN) becomes all ones.
#[inline(always)]
pub(super) fn widen(half: f16) -> f32 {
    const SCALE: f32 = f32::from_bits((127 + 112) << 23);
    const INFINITY: u32 = 0x7c00 << 13;
    let bits = u32::from(half.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    let special = if magnitude >= INFINITY { 0xff << 23 } else { 0 };
    let sign = (bits & 0x8000) << 16;
    f32::from_bits((f32::from_bits(magnitude) * SCALE).to_bits() | special | sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widen_is_exact_for_every_half() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            if half.is_nan() {
                assert!(widen(half).is_nan());
            } else {
                assert_eq!(widen(half).to_bits(), half.to_f32().to_bits(), "{bits:#06x}");
            }
        }
    }
}
