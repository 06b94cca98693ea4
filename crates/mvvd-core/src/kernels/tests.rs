//! Every level against the scalar one, the scalar one against plain f64, and every entry against every other.

use half::f16;
use proptest::prelude::*;

use super::*;

const DENSE: [Metric; 5] = [Metric::L2, Metric::L2Squared, Metric::Dot, Metric::Cosine, Metric::L1];
const BINARY: [Metric; 2] = [Metric::Hamming, Metric::Jaccard];
const LENGTHS: std::ops::RangeInclusive<usize> = 0..=130;
/// Two groups of four and a rest.
const ROWS: usize = 11;

/// Numbers that look random and are the same in every run: SplitMix64.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `count` values from -1 to 1.
    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn halves(&mut self, count: usize) -> Vec<f16> {
        self.floats(count).into_iter().map(f16::from_f32).collect()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// The distance as the definition has it.
fn reference(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let sum =
        |term: fn(f64, f64) -> f64| -> f64 { a.iter().zip(b).map(|(&a, &b)| term(f64::from(a), f64::from(b))).sum() };
    match metric {
        Metric::L2 => sum(|a, b| (a - b) * (a - b)).sqrt(),
        Metric::L2Squared => sum(|a, b| (a - b) * (a - b)),
        Metric::Dot => -sum(|a, b| a * b),
        Metric::L1 => sum(|a, b| (a - b).abs()),
        Metric::Cosine => 1.0 - sum(|a, b| a * b) / (sum(|a, _| a * a) * sum(|_, b| b * b)).sqrt(),
        Metric::Hamming | Metric::Jaccard => unreachable!("bits have their own reference"),
    }
}

fn reference_bits(metric: Metric, a: &[u8], b: &[u8]) -> f64 {
    let ones = |join: fn(u8, u8) -> u8| -> u32 { a.iter().zip(b).map(|(&a, &b)| join(a, b).count_ones()).sum() };
    match (metric, ones(|a, b| a & b)) {
        (Metric::Hamming, _) => f64::from(ones(|a, b| a ^ b)),
        (_, 0) => 1.0,
        (_, shared) => 1.0 - f64::from(shared) / f64::from(ones(|a, b| a | b)),
    }
}

fn wide(halves: &[f16]) -> Vec<f32> {
    halves.iter().map(|h| h.to_f32()).collect()
}

/// Near by the size of what was summed: a difference of large numbers may lose its last digits.
#[track_caller]
fn assert_near(got: f64, expected: f64, size: f64, what: &str) {
    let near = got == expected || (got.is_nan() && expected.is_nan()) || (got - expected).abs() <= 2e-6 * (1.0 + size);
    assert!(near, "{what}: got {got}, expected {expected}");
}

fn block(fill: impl FnOnce(&mut [f64]), rows: usize) -> Vec<f64> {
    let mut out = vec![f64::MAX; rows];
    fill(&mut out);
    out
}

fn same_bits(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[test]
fn every_level_is_near_the_definition_for_every_length() {
    let mut numbers = Numbers(1);
    for kernels in Kernels::available() {
        for dim in LENGTHS.chain([784, 1536, 4096, 16_000]) {
            let query = numbers.floats(dim);
            let rows = numbers.floats(dim * ROWS);
            let halves: Vec<f16> = rows.iter().map(|&x| f16::from_f32(x)).collect();
            let half_query: Vec<f16> = query.iter().map(|&x| f16::from_f32(x)).collect();
            for metric in DENSE {
                let what = format!("{metric} {} dim {dim}", kernels.level());
                let full = block(|out| kernels.distances_f32(metric, &query, &rows, out), ROWS);
                let half = block(|out| kernels.distances_f16(metric, &query, &halves, out), ROWS);
                for i in 0..ROWS {
                    let row = &rows[i * dim..][..dim];
                    let half_row = &halves[i * dim..][..dim];
                    let size = if metric == Metric::Cosine { 1.0 } else { dim as f64 };
                    assert_near(full[i], reference(metric, &query, row), size, &what);
                    assert_near(half[i], reference(metric, &query, &wide(half_row)), size, &what);
                    let both = kernels.distance_f16(metric, &half_query, half_row);
                    assert_near(both, reference(metric, &wide(&half_query), &wide(half_row)), size, &what);
                }
            }
        }
    }
}

/// Ties must be exact: neither the entry nor the place in the block may change one bit.
#[test]
fn entry_and_position_never_change_a_bit() {
    let mut numbers = Numbers(2);
    for kernels in Kernels::available() {
        for dim in LENGTHS {
            let query = numbers.floats(dim);
            let rows = numbers.floats(dim * ROWS);
            let halves = numbers.halves(dim * ROWS);
            let half_query = numbers.halves(dim);
            let backwards: Vec<u32> = (0..ROWS as u32).rev().collect();
            for metric in DENSE {
                let what = format!("{metric} {} dim {dim}", kernels.level());
                let full = block(|out| kernels.distances_f32(metric, &query, &rows, out), ROWS);
                let half = block(|out| kernels.distances_f16(metric, &query, &halves, out), ROWS);
                let mut full_at = block(|out| kernels.distances_f32_at(metric, &query, &rows, &backwards, out), ROWS);
                let mut half_at = block(|out| kernels.distances_f16_at(metric, &query, &halves, &backwards, out), ROWS);
                full_at.reverse();
                half_at.reverse();
                assert!(same_bits(&full, &full_at), "{what}");
                assert!(same_bits(&half, &half_at), "{what}");
                for count in 0..ROWS {
                    let first = block(|out| kernels.distances_f32(metric, &query, &rows[..count * dim], out), count);
                    assert!(same_bits(&full[..count], &first), "{what}, first {count}");
                    let rest =
                        block(|out| kernels.distances_f32(metric, &query, &rows[count * dim..], out), ROWS - count);
                    assert!(same_bits(&full[count..], &rest), "{what}, from {count}");
                }
                for i in 0..ROWS {
                    let row = &rows[i * dim..][..dim];
                    let half_row = &halves[i * dim..][..dim];
                    let one = [kernels.distance_f32(metric, &query, row), kernels.distance_f32(metric, row, &query)];
                    assert!(same_bits(&one, &[full[i]; 2]), "{what}: row {i}, or the other way round");
                    let one = kernels.distance_f32_f16(metric, &query, half_row);
                    assert!(same_bits(&[one], &half[i..=i]), "{what}: row {i}");
                    // A half is a float: widening first must change nothing.
                    let one = kernels.distance_f16(metric, &half_query, half_row);
                    let widened = kernels.distance_f32(metric, &wide(&half_query), &wide(half_row));
                    assert!(same_bits(&[one], &[widened]), "{what}: row {i}");
                }
            }
        }
    }
}

/// Levels with fused multiply-add differ in width only, so an answer does not change with the machine.
#[test]
fn fused_levels_agree_to_the_bit() {
    let mut numbers = Numbers(3);
    let fused: Vec<Kernels> = Kernels::available().filter(|kernels| kernels.level() != "scalar").collect();
    for pair in fused.windows(2) {
        for dim in LENGTHS {
            let query = numbers.floats(dim);
            let rows = numbers.floats(dim * ROWS);
            let halves = numbers.halves(dim * ROWS);
            for metric in DENSE {
                let [a, b] = [0, 1].map(|i| block(|out| pair[i].distances_f32(metric, &query, &rows, out), ROWS));
                assert!(same_bits(&a, &b), "{metric} dim {dim}: {a:?} {b:?}");
                let [a, b] = [0, 1].map(|i| block(|out| pair[i].distances_f16(metric, &query, &halves, out), ROWS));
                assert!(same_bits(&a, &b), "{metric} dim {dim}: {a:?} {b:?}");
            }
        }
    }
}

#[test]
fn bits_are_exact_at_every_level_and_length() {
    let mut numbers = Numbers(4);
    for kernels in Kernels::available() {
        for bytes in LENGTHS.chain([192, 255, 256, 257, 2000]) {
            let query = numbers.bytes(bytes);
            let mut rows = numbers.bytes(bytes * ROWS);
            rows[..bytes].fill(0);
            let backwards: Vec<u32> = (0..ROWS as u32).rev().collect();
            for metric in BINARY {
                let found = block(|out| kernels.distances_bits(metric, &query, &rows, out), ROWS);
                let mut at = block(|out| kernels.distances_bits_at(metric, &query, &rows, &backwards, out), ROWS);
                at.reverse();
                assert!(same_bits(&found, &at));
                for i in 0..ROWS {
                    let row = &rows[i * bytes..][..bytes];
                    let what = format!("{metric} {} bytes {bytes} row {i}", kernels.level());
                    assert_eq!(found[i], reference_bits(metric, &query, row), "{what}");
                    assert_eq!(found[i], kernels.distance_bits(metric, &query, row), "{what}");
                }
            }
        }
    }
    let empty = [0_u8; 4];
    assert_eq!(distance_bits(Metric::Jaccard, &empty, &empty), 1.0, "as pgvector");
}

#[test]
fn zero_vectors_and_extremes() {
    for kernels in Kernels::available() {
        for dim in [1, 2, 15, 16, 17, 33, 128] {
            let zero = vec![0.0_f32; dim];
            let ones = vec![1.0_f32; dim];
            let huge = vec![1e19_f32; dim];
            let tiny = vec![1e-30_f32; dim];
            let distance = |metric, a: &[f32], b: &[f32]| kernels.distance_f32(metric, a, b);
            for metric in [Metric::L2, Metric::L2Squared, Metric::Dot, Metric::L1] {
                let nothing = distance(metric, &zero, &zero);
                assert!(nothing == 0.0 && nothing.is_sign_positive(), "{metric} of zeros is 0, not -0");
            }
            assert!(distance(Metric::Cosine, &zero, &ones).is_nan());
            assert!(distance(Metric::Cosine, &ones, &zero).is_nan());
            assert!(distance(Metric::Cosine, &zero, &zero).is_nan());
            assert_eq!(distance(Metric::Cosine, &ones, &ones), 0.0);
            assert_near(
                distance(Metric::L1, &huge, &zero),
                1e19 * dim as f64,
                1e19 * dim as f64,
                "large, not infinite",
            );
            assert_eq!(distance(Metric::L2, &tiny, &tiny), 0.0);
            assert!(distance(Metric::Cosine, &tiny, &ones).is_nan(), "its square is 0 in f32");
            assert_eq!(
                distance(Metric::L2, &vec![f32::MAX; dim], &vec![f32::MIN; dim]),
                f64::INFINITY,
                "as in pgvector"
            );
            let opposite: Vec<f32> = ones.iter().map(|x| -x).collect();
            assert_eq!(distance(Metric::Cosine, &ones, &opposite), 2.0);
        }
        let mut numbers = Numbers(5);
        for dim in 1..=130 {
            let v = numbers.floats(dim);
            for metric in [Metric::L2, Metric::L1, Metric::Cosine] {
                assert_eq!(kernels.distance_f32(metric, &v, &v), 0.0, "{metric} from itself, dim {dim}");
            }
        }
    }
}

#[test]
fn no_rows_and_no_dimensions() {
    for kernels in Kernels::available() {
        kernels.distances_f32(Metric::L2, &[1.0, 2.0], &[], &mut []);
        kernels.distances_f32_at(Metric::L2, &[1.0, 2.0], &[], &[], &mut []);
        let found = block(|out| kernels.distances_f32_at(Metric::L2, &[], &[], &[7, 0, 3, 2, 1], out), 5);
        assert_eq!(found, [0.0; 5]);
    }
}

#[test]
#[should_panic(expected = "3 rows of 4 values")]
fn a_block_of_the_wrong_length_is_a_bug() {
    distances_f32(Metric::L2, &[0.0; 4], &[0.0; 11], &mut [0.0; 3]);
}

#[test]
#[should_panic(expected = "row 3 of 4 values")]
fn an_ordinal_beyond_the_block_is_a_bug() {
    distances_f32_at(Metric::L2, &[0.0; 4], &[0.0; 12], &[0, 3, 1], &mut [0.0; 3]);
}

#[test]
fn norms() {
    assert_eq!(norm_f32(&[3.0, 4.0]), 5.0);
    assert_eq!(norm_f16(&[f16::from_f32(3.0), f16::from_f32(-4.0)]), 5.0);
    assert_eq!(norm_f32(&[]), 0.0);
    assert_eq!(norm_f32(&[1e30; 4]), 2.0 * f64::from(1e30_f32), "no overflow: f64");
    let mut numbers = Numbers(6);
    for dim in LENGTHS {
        let v = numbers.floats(dim);
        assert_near(norm_f32(&v), reference(Metric::L2, &v, &vec![0.0; dim]), 0.0, "norm");
    }
}

/// The dense vector of the entries `indices` and `values`.
fn densify(sparse: Sparse, dim: usize) -> Vec<f32> {
    let mut dense = vec![0.0; dim];
    for (&i, &x) in sparse.indices.iter().zip(sparse.values) {
        dense[i as usize] = x;
    }
    dense
}

proptest! {
    #[test]
    fn sparse_is_as_dense(
        a in prop::collection::btree_map(0_u32..90, -8.0_f32..8.0, 0..40),
        b in prop::collection::btree_map(0_u32..90, -8.0_f32..8.0, 0..40),
    ) {
        let (a_indices, a_values): (Vec<u32>, Vec<f32>) = a.into_iter().unzip();
        let (b_indices, b_values): (Vec<u32>, Vec<f32>) = b.into_iter().unzip();
        let a = Sparse { indices: &a_indices, values: &a_values };
        let b = Sparse { indices: &b_indices, values: &b_values };
        for metric in DENSE {
            let (dense_a, dense_b) = (densify(a, 90), densify(b, 90));
            let found = distance_sparse(metric, a, b);
            assert_near(found, reference(metric, &dense_a, &dense_b), 1e-3, metric.name());
            assert_near(found, distance_f32(metric, &dense_a, &dense_b), 2000.0, metric.name());
        }
        assert_near(norm_sparse(a), norm_f32(&densify(a, 90)), 0.0, "norm");
    }

    #[test]
    fn levels_are_near_each_other_at_any_scale(
        dim in 1_usize..300, exponent in -12..12_i32, seed: u64,
    ) {
        let mut numbers = Numbers(seed);
        let scale = 10_f32.powi(exponent);
        let [a, b] = [0, 1].map(|_| numbers.floats(dim).into_iter().map(|x| x * scale).collect::<Vec<f32>>());
        for metric in DENSE {
            let expected = reference(metric, &a, &b);
            let size = match metric {
                Metric::Dot => norm_f32(&a) * norm_f32(&b),
                Metric::Cosine => 1.0,
                _ => expected,
            };
            for kernels in Kernels::available() {
                let found = kernels.distance_f32(metric, &a, &b);
                prop_assert!((found - expected).abs() <= 3e-6 * size, "{metric} {}: {found} {expected}", kernels.level());
            }
        }
    }
}
