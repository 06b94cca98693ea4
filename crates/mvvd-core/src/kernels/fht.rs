//! How is a vector rotated at random in O(d log d)? Rounds of random signs, a fast Hadamard transform, and a mixing step.
//!
//! A transform needs a power of two: a round transforms as large a part as there is, at the start or at the end, and then
//! mixes each value of the first half with one of the second, as in Kac's walk. All steps are sums, differences and exact
//! products, so every level gives the same bits.

use super::Kernels;

/// One round, in place: multiplies by `signs` (as long as `values`), transforms the largest power of two values at the
/// start or the `end`, times `scale`; then, where that is not all of them, mixes the halves. The number of values is even.
///
/// Orthogonal where signs are 1 or -1 and `scale` is the inverse root of that power of two.
pub fn rotate_round(signs: &[f32], scale: f32, end: bool, values: &mut [f32]) {
    Kernels::active().rotate_round(signs, scale, end, values);
}

/// Undoes [`rotate_round`].
pub fn unrotate_round(signs: &[f32], scale: f32, end: bool, values: &mut [f32]) {
    Kernels::active().unrotate_round(signs, scale, end, values);
}

impl Kernels {
    /// [`rotate_round`] at this level.
    pub fn rotate_round(self, signs: &[f32], scale: f32, end: bool, values: &mut [f32]) {
        check(signs, values);
        // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
        unsafe { (self.0.rotation.forth)(signs, scale, end, values) }
    }

    /// [`unrotate_round`] at this level.
    pub fn unrotate_round(self, signs: &[f32], scale: f32, end: bool, values: &mut [f32]) {
        check(signs, values);
        // SAFETY: the kernel is from `TABLES`, which has only what this CPU can run.
        unsafe { (self.0.rotation.back)(signs, scale, end, values) }
    }
}

fn check(signs: &[f32], values: &[f32]) {
    assert_eq!(signs.len(), values.len(), "a sign for each value");
    assert!(!values.is_empty() && values.len().is_multiple_of(2), "an even number of values");
}

/// Signs, scale, whether at the end, values.
type RoundFn = unsafe fn(&[f32], f32, bool, &mut [f32]);

/// The functions of one level; they may be called only on a CPU that has the level's features.
pub(super) struct RotationTable {
    pub(super) forth: RoundFn,
    pub(super) back: RoundFn,
}

#[inline(always)]
pub(super) fn forth(signs: &[f32], scale: f32, end: bool, values: &mut [f32]) {
    for (value, &sign) in values.iter_mut().zip(signs) {
        *value *= sign;
    }
    let part = part(values.len(), end);
    let mixes = part.len() < values.len();
    hadamard(scale, &mut values[part]);
    if mixes {
        mix(values);
    }
}

#[inline(always)]
pub(super) fn back(signs: &[f32], scale: f32, end: bool, values: &mut [f32]) {
    let part = part(values.len(), end);
    if part.len() < values.len() {
        mix(values);
    }
    hadamard(scale, &mut values[part]);
    for (value, &sign) in values.iter_mut().zip(signs) {
        *value *= sign;
    }
}

#[inline(always)]
fn part(len: usize, end: bool) -> std::ops::Range<usize> {
    let size = 1 << len.ilog2();
    if end { len - size..len } else { 0..size }
}

/// (x + y, x - y) over root 2 for each x of the first half and y of the second; its own inverse.
#[inline(always)]
fn mix(values: &mut [f32]) {
    let (first, second) = values.split_at_mut(values.len() / 2);
    for (x, y) in first.iter_mut().zip(second) {
        let (sum, difference) = (*x + *y, *x - *y);
        *x = sum * std::f32::consts::FRAC_1_SQRT_2;
        *y = difference * std::f32::consts::FRAC_1_SQRT_2;
    }
}

/// The Hadamard transform in natural order, times `scale`; the number of values is a power of two.
#[inline(always)]
fn hadamard(scale: f32, values: &mut [f32]) {
    const LANES: usize = 16;
    let (chunks, _) = values.as_chunks_mut::<LANES>();
    if chunks.is_empty() {
        let mut width = 1;
        while width < values.len() {
            for start in (0..values.len()).step_by(2 * width) {
                for i in start..start + width {
                    (values[i], values[i + width]) = (values[i] + values[i + width], values[i] - values[i + width]);
                }
            }
            width *= 2;
        }
        values.iter_mut().for_each(|value| *value *= scale);
        return;
    }
    for chunk in &mut *chunks {
        let mut v = *chunk;
        v = step::<1>(v);
        v = step::<2>(v);
        v = step::<4>(v);
        v = step::<8>(v);
        for lane in &mut v {
            *lane *= scale;
        }
        *chunk = v;
    }
    // Two steps at a time, so that values are read and written half as often.
    let mut width = 1;
    while 2 * width < chunks.len() {
        for four in chunks.chunks_exact_mut(4 * width) {
            let (ab, cd) = four.split_at_mut(2 * width);
            let ((a, b), (c, d)) = (ab.split_at_mut(width), cd.split_at_mut(width));
            for i in 0..width {
                for lane in 0..LANES {
                    let (p, q) = (a[i][lane] + b[i][lane], a[i][lane] - b[i][lane]);
                    let (r, s) = (c[i][lane] + d[i][lane], c[i][lane] - d[i][lane]);
                    a[i][lane] = p + r;
                    b[i][lane] = q + s;
                    c[i][lane] = p - r;
                    d[i][lane] = q - s;
                }
            }
        }
        width *= 4;
    }
    if width < chunks.len() {
        let (a, b) = chunks.split_at_mut(width);
        for (a, b) in a.iter_mut().zip(b) {
            for lane in 0..LANES {
                (a[lane], b[lane]) = (a[lane] + b[lane], a[lane] - b[lane]);
            }
        }
    }
}

/// One step within 16 values: each becomes the sum with its partner `WIDTH` away, or the difference.
#[inline(always)]
fn step<const WIDTH: usize>(v: [f32; 16]) -> [f32; 16] {
    let mut out = [0.0; 16];
    for i in 0..16 {
        let partner = v[i ^ WIDTH];
        out[i] = if i & WIDTH == 0 { v[i] + partner } else { partner - v[i] };
    }
    out
}

/// A `RotationTable` of one level: the bodies, compiled with the features in the attribute.
macro_rules! rotation_table {
    ($(#[$features:meta])? => $table:ident) => {
        const $table: super::fht::RotationTable = {
            $(#[$features])?
            fn forth(signs: &[f32], scale: f32, end: bool, values: &mut [f32]) {
                super::fht::forth(signs, scale, end, values);
            }
            $(#[$features])?
            fn back(signs: &[f32], scale: f32, end: bool, values: &mut [f32]) {
                super::fht::back(signs, scale, end, values);
            }
            super::fht::RotationTable { forth, back }
        };
    };
}
pub(super) use rotation_table;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_gives_the_same_bits_and_the_way_back() {
        for len in (2..=64).step_by(2).chain([66, 96, 128, 192, 320, 512, 832, 1024, 2048, 4160]) {
            let values: Vec<f32> = (0..len).map(|i| ((i * i * 31 + 7 * i) % 101) as f32 / 50.0 - 1.0).collect();
            let signs: Vec<f32> = (0..len).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
            let scale = ((1 << usize::ilog2(len)) as f32).sqrt().recip();
            for end in [false, true] {
                let mut first = values.clone();
                Kernels::active().rotate_round(&signs, scale, end, &mut first);
                for kernels in Kernels::available() {
                    let mut out = values.clone();
                    kernels.rotate_round(&signs, scale, end, &mut out);
                    assert!(out.iter().zip(&first).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", kernels.level());
                    kernels.unrotate_round(&signs, scale, end, &mut out);
                    assert!(out.iter().zip(&values).all(|(a, b)| (a - b).abs() < 1e-5), "{} {len}", kernels.level());
                }
            }
        }
    }

    #[test]
    fn the_transform_is_hadamards() {
        for len in [2, 4, 16, 64, 128, 256] {
            let values: Vec<f32> = (0..len).map(|i| (i * 7 % 5) as f32).collect();
            let mut out = values.clone();
            rotate_round(&vec![1.0; len], 1.0, false, &mut out);
            for (i, &found) in out.iter().enumerate() {
                let sign = |j: usize| if (i & j).count_ones() % 2 == 1 { -1.0 } else { 1.0 };
                let expected: f32 = values.iter().enumerate().map(|(j, v)| sign(j) * v).sum();
                assert_eq!(found, expected, "{len} at {i}");
            }
        }
    }
}
