//! Nanoseconds per distance of every level and a plain loop, near (in L2) and far (beyond it).
//!
//! Criterion's time is for a whole block; its throughput ("Melem/s") is distances per second. `docs/benchmarks.md` has
//! the figures and how to run this.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use half::f16;
use mvvd_core::kernels::Kernels;
use mvvd_core::metric::Metric;

/// Bytes of rows: half a MiB stays in L2; 30 MiB comes from L3, or from memory where L3 is smaller.
const BLOCKS: [(&str, usize); 2] = [("near", 512 << 10), ("far", 30 << 20)];
const DIMS: [usize; 4] = [128, 384, 768, 1536];
const METRICS: [Metric; 3] = [Metric::L2Squared, Metric::Dot, Metric::Cosine];

/// The same values from -1 to 1 in every run.
fn floats(count: usize) -> Vec<f32> {
    let mut state = 7_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Every row once, in an order without pattern.
fn shuffled(count: usize) -> Vec<u32> {
    let mut ordinals: Vec<u32> = (0..count as u32).collect();
    let random = floats(count);
    for i in (1..count).rev() {
        ordinals.swap(i, ((random[i] + 1.0) / 2.0 * i as f32) as usize);
    }
    ordinals
}

fn naive(metric: Metric, query: &[f32], row: &[f32]) -> f32 {
    let pairs = || query.iter().zip(row);
    let product = || pairs().map(|(a, b)| a * b).sum::<f32>();
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>();
    match metric {
        Metric::L2Squared => pairs().map(|(a, b)| (a - b) * (a - b)).sum(),
        Metric::Dot => -product(),
        _ => 1.0 - product() / (norm(query) * norm(row)).sqrt(),
    }
}

fn group<'a>(criterion: &'a mut Criterion, name: String, rows: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(rows as u64)).sampling_mode(SamplingMode::Flat);
    group
}

fn full(criterion: &mut Criterion) {
    for (block, bytes) in BLOCKS {
        for dim in DIMS {
            let count = bytes / 4 / dim;
            let rows = floats(count * dim);
            let query = floats(dim + 1)[1..].to_vec();
            let ordinals = shuffled(count);
            let (mut out, mut single) = (vec![0.0; count], vec![0.0_f32; count]);
            for metric in METRICS {
                let mut group = group(criterion, format!("f32 {metric} {dim} {block}"), count);
                for kernels in Kernels::available() {
                    group.bench_function(kernels.level(), |b| {
                        b.iter(|| kernels.distances_f32(metric, black_box(&query), &rows, black_box(&mut out)));
                    });
                }
                group.bench_function("at", |b| {
                    let kernels = Kernels::active();
                    b.iter(|| {
                        kernels.distances_f32_at(metric, black_box(&query), &rows, &ordinals, black_box(&mut out))
                    });
                });
                group.bench_function("one", |b| {
                    let kernels = Kernels::active();
                    b.iter(|| {
                        for (row, out) in rows.chunks_exact(dim).zip(&mut out) {
                            *out = kernels.distance_f32(metric, black_box(&query), row);
                        }
                    });
                });
                group.bench_function("naive", |b| {
                    b.iter(|| {
                        for (row, out) in rows.chunks_exact(dim).zip(&mut single) {
                            *out = naive(metric, black_box(&query), row);
                        }
                    });
                });
            }
        }
    }
}

fn half(criterion: &mut Criterion) {
    for (block, bytes) in BLOCKS {
        for dim in DIMS {
            let count = bytes / 2 / dim;
            let rows: Vec<f16> = floats(count * dim).into_iter().map(f16::from_f32).collect();
            let query = floats(dim + 1)[1..].to_vec();
            let ordinals = shuffled(count);
            let mut out = vec![0.0; count];
            for metric in METRICS {
                let mut group = group(criterion, format!("f16 {metric} {dim} {block}"), count);
                for kernels in Kernels::available() {
                    group.bench_function(kernels.level(), |b| {
                        b.iter(|| kernels.distances_f16(metric, black_box(&query), &rows, black_box(&mut out)));
                    });
                }
                group.bench_function("at", |b| {
                    let kernels = Kernels::active();
                    b.iter(|| {
                        kernels.distances_f16_at(metric, black_box(&query), &rows, &ordinals, black_box(&mut out))
                    });
                });
            }
        }
    }
}

fn bits(criterion: &mut Criterion) {
    for (block, bytes) in BLOCKS {
        for dim in [128, 384, 768, 1024, 1536] {
            let count = bytes / (dim / 8);
            let rows: Vec<u8> = floats(count * dim / 8).into_iter().map(|x| (x * 127.0) as i8 as u8).collect();
            let query = rows[..dim / 8].to_vec();
            let mut out = vec![0.0; count];
            for metric in [Metric::Hamming, Metric::Jaccard] {
                let mut group = group(criterion, format!("bits {metric} {dim} {block}"), count);
                for kernels in Kernels::available() {
                    group.bench_function(kernels.level(), |b| {
                        b.iter(|| kernels.distances_bits(metric, black_box(&query), &rows, black_box(&mut out)));
                    });
                }
            }
        }
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

criterion_group!(name = kernels; config = short(); targets = full, half, bits);
criterion_main!(kernels);
