//! How does an index rotate vectors at random? By rounds of random signs and fast Hadamard transforms.

use mvvd_core::kernels;

/// Rotated vectors have a multiple of so many values.
pub(crate) const PADDING: usize = 64;

/// A random rotation of vectors, padded with zeros: lengths and inner products stay. O(d log d) for a vector.
///
/// Signs and Hadamard transforms as in Ailon & Chazelle 2009, over parts of a power of two with steps of Kac's walk
/// between, as the RaBitQ library does. The same numbers and seed give the same bits on every CPU.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    dims: usize,
    padded: usize,
    scale: f32,
    /// Those of each round.
    signs: Vec<f32>,
}

impl Rotation {
    /// For vectors of `dims` values, at least 1.
    pub(crate) fn new(dims: usize, seed: u64) -> Self {
        let padded = dims.next_multiple_of(PADDING);
        let rounds = if padded.is_power_of_two() { 3 } else { 4 };
        let mut random = Random::new(seed);
        let signs = (0..rounds * padded / 64).map(|_| random.next());
        let signs = signs.flat_map(|bits| (0..64).map(move |i| if bits >> i & 1 == 1 { 1.0 } else { -1.0 })).collect();
        Self { dims, padded, scale: ((1_u32 << padded.ilog2()) as f32).sqrt().recip(), signs }
    }

    /// Values of a rotated vector.
    pub(crate) fn padded(&self) -> usize {
        self.padded
    }

    /// Rotates `vector` into `out`, of [`Rotation::padded`] values.
    pub(crate) fn rotate(&self, vector: &[f32], out: &mut [f32]) {
        let (start, rest) = out.split_at_mut(self.dims);
        start.copy_from_slice(vector);
        rest.fill(0.0);
        for (round, signs) in self.signs.chunks_exact(self.padded).enumerate() {
            kernels::rotate_round(signs, self.scale, round % 2 == 1, out);
        }
    }

    #[cfg(test)]
    /// Turns a rotated vector back, in place; the vector is at the start of it then.
    pub(crate) fn unrotate(&self, rotated: &mut [f32]) {
        for (round, signs) in self.signs.chunks_exact(self.padded).enumerate().rev() {
            kernels::unrotate_round(signs, self.scale, round % 2 == 1, rotated);
        }
    }
}

/// Numbers that look random and are the same for a seed: SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `end`, without it; `end` is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// From -1 to 1.
    #[cfg(test)]
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn lengths_and_products_stay_and_the_way_back_is_there() {
        let mut random = Random::new(7);
        for dims in [1, 2, 3, 63, 64, 65, 100, 128, 384, 500, 784, 1536] {
            let rotation = Rotation::new(dims, 42);
            let a: Vec<f32> = (0..dims).map(|_| random.float()).collect();
            let b: Vec<f32> = (0..dims).map(|_| random.float()).collect();
            let (mut ra, mut rb) = (vec![0.0; rotation.padded()], vec![9.0; rotation.padded()]);
            rotation.rotate(&a, &mut ra);
            rotation.rotate(&b, &mut rb);
            let near = |x: f32, y: f32| (x - y).abs() < 1e-4 * (dot(&a, &a) + dot(&b, &b) + 1.0);
            assert!(near(dot(&a, &a), dot(&ra, &ra)) && near(dot(&a, &b), dot(&ra, &rb)), "{dims}");
            rotation.unrotate(&mut ra);
            assert!(ra.iter().zip(&a).all(|(x, y)| (x - y).abs() < 1e-5), "{dims}");
            assert!(ra[dims..].iter().all(|x| x.abs() < 1e-5), "{dims}");
        }
    }

    /// What a code of signs needs: one axis must not stay near an axis.
    #[test]
    fn an_axis_spreads_over_all_dimensions() {
        for dims in [64, 100, 128, 200, 384, 784] {
            let rotation = Rotation::new(dims, 3);
            for axis in [0, dims / 2, dims - 1] {
                let mut vector = vec![0.0; dims];
                vector[axis] = 1.0;
                let mut out = vec![0.0; rotation.padded()];
                rotation.rotate(&vector, &mut out);
                let sum: f32 = out.iter().map(|x| x.abs()).sum();
                // The mean of |x| over a sphere is about 0.8 / root d.
                let mean = sum / (rotation.padded() as f32).sqrt();
                assert!(mean > 0.65, "{dims}, axis {axis}: {mean}");
            }
        }
    }
}
