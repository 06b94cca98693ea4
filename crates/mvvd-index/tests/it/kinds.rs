//! The kinds, what columns and metrics each serves, and the suite for each.

use mvvd_core::metric::Metric;
use mvvd_core::metric::Metric::*;
use mvvd_core::{VectorKind, VectorType};

use crate::{answers, bytes};

/// A kind of index, as the suite needs to know it.
pub(crate) struct Kind {
    /// Its name.
    pub(crate) name: &'static str,
    /// Whether its answers are those of a scan.
    pub(crate) exact: bool,
    /// The columns that an index may have, and by which metrics.
    pub(crate) serves: Vec<(Vec<VectorType>, &'static [Metric])>,
}

pub(crate) const NUMBERS: &[Metric] = &[L2, L2Squared, Dot, Cosine, L1];
pub(crate) const BINARY: &[Metric] = &[Hamming, Jaccard];

/// Dimensions that are no multiple of a register's.
pub(crate) const DENSE: VectorType = VectorType { kind: VectorKind::Dense, dims: 25 };
pub(crate) const HALF: VectorType = VectorType { kind: VectorKind::Half, dims: 19 };
pub(crate) const BITS: VectorType = VectorType { kind: VectorKind::Bit, dims: 203 };
pub(crate) const SPARSE: VectorType = VectorType { kind: VectorKind::Sparse, dims: 100_000 };

fn flat() -> Kind {
    Kind {
        name: "flat",
        exact: true,
        serves: vec![(vec![DENSE], NUMBERS), (vec![HALF], NUMBERS), (vec![BITS], BINARY)],
    }
}

fn inverted() -> Kind {
    Kind { name: "inverted", exact: true, serves: vec![(vec![SPARSE], NUMBERS)] }
}

/// The metrics that are one inner product.
const PRODUCTS: &[Metric] = &[L2, L2Squared, Dot, Cosine];

fn ivf_rabitq() -> Kind {
    // Sums of rooted distances are no product.
    let serves = vec![(vec![DENSE], PRODUCTS), (vec![HALF], PRODUCTS), (vec![DENSE, HALF], &PRODUCTS[1..])];
    Kind { name: "ivf_rabitq", exact: false, serves }
}

fn ivf_pq() -> Kind {
    Kind { name: "ivf_pq", ..ivf_rabitq() }
}

fn hnsw() -> Kind {
    let serves = vec![(vec![DENSE], NUMBERS), (vec![HALF], NUMBERS), (vec![BITS], BINARY)];
    Kind { name: "hnsw", exact: false, serves }
}

/// One test for each kind and each check.
macro_rules! suite {
    ($($kind:ident),+ $(,)?) => {$(
        mod $kind {
            suite!(@ super::$kind =>
                answers::{
                    finds_the_nearest, every_filter, every_size, everything_equal, nothing_to_find, cursor_gives_every_row,
                    terms_and_weights, every_effort, every_option, more_rows, slices_of_columns, other_columns_are_refused,
                },
                bytes::{
                    equal_for_a_seed, cancelled, another_index, cut_off, damaged, damaged_with_a_right_checksum,
                },
            );
        }
    )+};
    (@ $kind:path => $($module:ident::{$($check:ident),+ $(,)?}),+ $(,)?) => {$($(
        #[test]
        fn $check() {
            super::$module::$check(&$kind());
        }
    )+)+};
}

suite!(flat, hnsw, inverted, ivf_pq, ivf_rabitq);
