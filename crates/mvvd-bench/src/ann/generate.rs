//! Vectors from a seed with the shape of real embeddings: clusters of unequal size that overlap, of low rank inside.

use rayon::prelude::*;

/// What is generated. The same values give the same vectors, whatever the number of threads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mixture {
    pub(crate) dims: usize,
    /// Centres, the sizes of whose clusters fall off as 1/√rank.
    pub(crate) clusters: usize,
    /// Directions in which a cluster is spread out, with standard deviations falling off as the fourth root of their
    /// number.
    pub(crate) rank: usize,
    pub(crate) seed: u64,
}

/// Length of a row's offset from its centre beside that of the centre, whose own length is about 1.
const SPREAD: f32 = 1.0;
/// Length of the part of a row that has no structure.
const NOISE: f32 = 0.3;

/// Streams of numbers, told apart so that one more row changes nothing else.
const CENTRES: u64 = 1;
const ROWS: u64 = 2;
/// The stream of held-out rows of the same mixture.
const QUERIES: u64 = 3;

impl Mixture {
    /// `rows` vectors to search in and `queries` to search for: rows of the same mixture that are in no other place.
    pub(crate) fn generate(self, rows: usize, queries: usize) -> (Vec<f32>, Vec<f32>) {
        let clusters: Vec<Cluster> = (0..self.clusters).into_par_iter().map(|i| Cluster::new(self, i as u64)).collect();
        let mut shares: Vec<f64> = (0..self.clusters).map(|i| 1.0 / ((i + 1) as f64).sqrt()).collect();
        let mut sum = 0.0;
        for share in &mut shares {
            sum += *share;
            *share = sum;
        }
        let draw = |stream: u64, count: usize| {
            let mut values = vec![0.0; count * self.dims];
            values.par_chunks_exact_mut(self.dims).enumerate().for_each(|(row, out)| {
                let mut random = Random::new(self.seed, stream, row as u64);
                let at = random.uniform() * sum;
                let cluster = shares.partition_point(|&share| share <= at).min(self.clusters - 1);
                clusters[cluster].draw(&mut random, out);
            });
            values
        };
        (draw(ROWS, rows), draw(QUERIES, queries))
    }
}

struct Cluster {
    centre: Vec<f32>,
    /// Row by row, scaled by their standard deviations.
    directions: Vec<f32>,
}

impl Cluster {
    fn new(mixture: Mixture, number: u64) -> Self {
        let (dims, rank) = (mixture.dims, mixture.rank);
        let mut random = Random::new(mixture.seed, CENTRES, number);
        let unit = 1.0 / (dims as f32).sqrt();
        let centre = (0..dims).map(|_| random.normal() * unit).collect();
        let variance: f32 = (0..rank).map(|i| 1.0 / ((i + 1) as f32).sqrt()).sum();
        let directions = (0..rank)
            .flat_map(|i| {
                let deviation = SPREAD / (((i + 1) as f32).sqrt() * variance).sqrt();
                std::iter::repeat_n(deviation * unit, dims)
            })
            .map(|scale| random.normal() * scale)
            .collect();
        Self { centre, directions }
    }

    fn draw(&self, random: &mut Random, out: &mut [f32]) {
        out.copy_from_slice(&self.centre);
        for direction in self.directions.chunks_exact(out.len()) {
            let along = random.normal();
            out.iter_mut().zip(direction).for_each(|(out, d)| *out += along * d);
        }
        let noise = NOISE / (out.len() as f32).sqrt();
        out.iter_mut().for_each(|out| *out += random.normal() * noise);
    }
}

/// SplitMix64, started at a place of its own for each stream and row.
pub(crate) struct Random {
    state: u64,
    /// The second of two normal numbers that are made together.
    spare: Option<f32>,
}

impl Random {
    pub(crate) fn new(seed: u64, stream: u64, row: u64) -> Self {
        let mut random = Self { state: seed ^ stream.rotate_left(56), spare: None };
        random.state = random.next() ^ row.wrapping_mul(0xd1b5_4a32_d192_ed03);
        random.state = random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, standard deviation 1. Box & Muller 1958.
    fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        self.spare = Some((radius * sin) as f32);
        (radius * cos) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Mixture = Mixture { dims: 16, clusters: 20, rank: 4, seed: 7 };

    #[test]
    fn a_seed_decides_every_row_and_more_rows_change_none() {
        let (rows, queries) = SMALL.generate(500, 20);
        let (more, same) = SMALL.generate(900, 20);
        assert_eq!(rows, more[..rows.len()]);
        assert_eq!(queries, same);
        assert_ne!(rows, Mixture { seed: 8, ..SMALL }.generate(500, 20).0);
        assert!(queries.chunks(16).all(|query| rows.chunks(16).all(|row| row != query)));
    }

    #[test]
    fn rows_lie_around_centres() {
        // Nearer to another row of the cluster than to most rows: the median nearest distance beside the median distance.
        let (rows, queries) = SMALL.generate(2_000, 50);
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let (mut nearest, mut middle) = (0.0, 0.0);
        for query in queries.chunks(16) {
            let mut all: Vec<f32> = rows.chunks(16).map(|row| distance(query, row)).collect();
            all.sort_by(f32::total_cmp);
            nearest += all[0] / 50.0;
            middle += all[1_000] / 50.0;
        }
        assert!(nearest < 0.35 * middle, "{nearest} beside {middle}");
        assert!(rows.iter().all(|v| v.is_finite()));
    }

    #[test]
    fn normal_numbers_have_mean_0_and_deviation_1() {
        let mut random = Random::new(1, 2, 3);
        let values: Vec<f64> = (0..20_000).map(|_| f64::from(random.normal())).collect();
        let mean = values.iter().sum::<f64>() / 20_000.0;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
