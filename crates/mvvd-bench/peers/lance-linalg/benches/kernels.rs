//! Nanoseconds per distance of lance-linalg beside our own, near (in L2) and far (beyond it).
//!
//! `cargo bench --manifest-path crates/mvvd-bench/peers/lance-linalg/Cargo.toml`; `docs/benchmarks.md` has the figures.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use half::f16;
use lance_linalg::distance::cosine::cosine_distance_batch;
use lance_linalg::distance::dot::dot_distance_batch_into;
use lance_linalg::distance::hamming::hamming;
use lance_linalg::distance::l2::l2_distance_batch_into;
use mvvd_core::kernels::Kernels;
use mvvd_core::metric::Metric;

/// Bytes of rows: half a MiB stays in L2; 30 MiB comes from L3, or from memory where L3 is smaller.
const BLOCKS: [(&str, usize); 2] = [("near", 512 << 10), ("far", 30 << 20)];

/// The same values from -1 to 1 in every run.
fn floats(count: usize) -> Vec<f32> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn full(criterion: &mut Criterion) {
    let kernels = Kernels::active();
    for (block, bytes) in BLOCKS {
        for dim in [128, 384, 768, 1536] {
            let count = bytes / 4 / dim;
            let rows = floats(count * dim);
            let query = floats(dim + 1)[1..].to_vec();
            let (mut ours, mut theirs) = (vec![0.0; count], vec![0.0_f32; count]);
            for metric in [Metric::L2Squared, Metric::Dot, Metric::Cosine] {
                let mut group = criterion.benchmark_group(format!("f32 {metric} {dim} {block}"));
                group.throughput(Throughput::Elements(count as u64)).sampling_mode(SamplingMode::Flat);
                group.bench_function("mvvd", |b| {
                    b.iter(|| kernels.distances_f32(metric, black_box(&query), &rows, black_box(&mut ours)));
                });
                group.bench_function("lance", |b| {
                    b.iter(|| {
                        let (query, out) = (black_box(&query[..]), black_box(&mut theirs));
                        match metric {
                            Metric::L2Squared => l2_distance_batch_into(query, &rows, dim, out),
                            Metric::Dot => dot_distance_batch_into(query, &rows, dim, out),
                            _ => {
                                for (out, found) in out.iter_mut().zip(cosine_distance_batch(query, &rows, dim)) {
                                    *out = found;
                                }
                            }
                        }
                    });
                });
            }
        }
    }
}

fn half_and_bits(criterion: &mut Criterion) {
    let kernels = Kernels::active();
    let bytes = BLOCKS[0].1;
    for dim in [128, 384, 768, 1536] {
        let count = bytes / 2 / dim;
        let rows: Vec<f16> = floats(count * dim).into_iter().map(f16::from_f32).collect();
        let query = floats(dim + 1)[1..].to_vec();
        let half: Vec<f16> = query.iter().map(|&x| f16::from_f32(x)).collect();
        let (mut ours, mut theirs) = (vec![0.0; count], vec![0.0_f32; count]);
        let mut group = criterion.benchmark_group(format!("f16 l2_squared {dim} near"));
        group.throughput(Throughput::Elements(count as u64)).sampling_mode(SamplingMode::Flat);
        group.bench_function("mvvd", |b| {
            b.iter(|| kernels.distances_f16(Metric::L2Squared, black_box(&query), &rows, black_box(&mut ours)));
        });
        group.bench_function("lance", |b| {
            b.iter(|| l2_distance_batch_into(black_box(&half), &rows, dim, black_box(&mut theirs)));
        });
        group.finish();

        let count = bytes / (dim / 8);
        let rows: Vec<u8> = floats(count * dim / 8).into_iter().map(|x| (x * 127.0) as i8 as u8).collect();
        let query = rows[..dim / 8].to_vec();
        let (mut ours, mut theirs) = (vec![0.0; count], vec![0.0_f32; count]);
        let mut group = criterion.benchmark_group(format!("bits hamming {dim} near"));
        group.throughput(Throughput::Elements(count as u64)).sampling_mode(SamplingMode::Flat);
        group.bench_function("mvvd", |b| {
            b.iter(|| kernels.distances_bits(Metric::Hamming, black_box(&query), &rows, black_box(&mut ours)));
        });
        group.bench_function("lance", |b| {
            b.iter(|| {
                for (row, out) in rows.chunks_exact(dim / 8).zip(&mut theirs) {
                    *out = hamming(black_box(&query), row);
                }
            });
        });
    }
}

/// Many short samples: the best of them is telling even on a machine with other work.
fn short() -> Criterion {
    Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(200))
        .without_plots()
}

criterion_group!(name = kernels; config = short(); targets = full, half_and_bits);
criterion_main!(kernels);
