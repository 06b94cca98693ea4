//! What is searched for, and what is found.

use std::cmp::Ordering;
use std::sync::Arc;

use mvvd_core::metric::Metric;
use mvvd_core::{Error, Ordinal, Result};

use crate::filter::Filter;

/// A row that was found and its exact distance, as the kernels of mvvd-core compute it; for several terms, the weighted
/// sum of their distances in the order of the terms.
///
/// Ordered by distance, then by ordinal; NaN last.
#[derive(Debug, Clone, Copy)]
pub struct Hit {
    /// The distance or weighted sum.
    pub distance: f64,
    /// The row.
    pub ordinal: Ordinal,
}

impl Ord for Hit {
    fn cmp(&self, other: &Self) -> Ordering {
        // -0 and 0 are one distance.
        let key = |hit: &Self| if hit.distance.is_nan() { f64::NAN } else { hit.distance + 0.0 };
        let distance = match (key(self), key(other)) {
            (a, b) if a.is_nan() || b.is_nan() => a.is_nan().cmp(&b.is_nan()),
            (a, b) => a.total_cmp(&b),
        };
        distance.then(self.ordinal.cmp(&other.ordinal))
    }
}

impl PartialOrd for Hit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Hit {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Hit {}

/// The vector that rows should be near to, of the column's kind. Halves are queried with f32.
#[derive(Debug, Clone)]
pub enum Query {
    /// For `VECTOR` and `HALFVEC`: one value a dimension.
    Dense(Arc<[f32]>),
    /// For `BITVEC`: the bytes, first dimension in the highest bit of the first byte.
    Bits(Arc<[u8]>),
    /// For `SPARSEVEC`: ascending indices from 0, and their values.
    Sparse(Arc<[u32]>, Arc<[f32]>),
}

/// One distance of a score: the weight (any finite number) times the distance of one of the index's columns to a query.
#[derive(Debug, Clone)]
pub struct Term {
    /// Position within the columns of the index.
    pub column: usize,
    /// The metric, which must be one that the index serves.
    pub metric: Metric,
    /// The query vector.
    pub query: Query,
    /// What the distance is multiplied with.
    pub weight: f32,
}

/// How hard a search tries. More is slower and finds more. What an index does not know it ignores.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Effort {
    /// Candidates that a graph keeps while it searches.
    pub ef_search: Option<usize>,
    /// Lists that are looked at.
    pub nprobe: Option<usize>,
    /// The share of the true nearest rows that should be found on average, 0 to 1, as measured when the index was built;
    /// it counts where the knobs above are not set.
    pub recall_target: Option<f32>,
}

/// What is searched for. Lengths fit the columns: the caller has checked them.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// At least one.
    pub terms: &'a [Term],
    /// How many rows, at least 1.
    pub k: usize,
    /// Which rows; all if none.
    pub filter: Option<&'a Filter>,
    /// How hard to try.
    pub effort: Effort,
}

impl<'a> Request<'a> {
    /// The one term, for an index that ranks by one distance: `Unsupported` if there are more, if its metric is not
    /// `metric` or has its order, or if its weight is not positive, so that not the nearest rows are asked for.
    pub(crate) fn single_term(&self, metric: Metric) -> Result<&'a Term> {
        let euclidean = |metric| matches!(metric, Metric::L2 | Metric::L2Squared);
        let same_order = |term: &Term| term.metric == metric || euclidean(term.metric) && euclidean(metric);
        match self.terms {
            [term] if same_order(term) && term.weight > 0.0 => Ok(term),
            [term] if same_order(term) => {
                Err(Error::unsupported(format!("this index finds near rows, not those of weight {}", term.weight)))
            }
            [term] => Err(Error::unsupported(format!("this index is by metric {metric}, not {}", term.metric))),
            terms => Err(Error::unsupported(format!("this index ranks by one distance, not by {}", terms.len()))),
        }
    }
}
