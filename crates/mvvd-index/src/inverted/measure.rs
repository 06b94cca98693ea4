//! How each metric is a sum over the dimensions that a query and a row share.
//!
//! Rows are ranked by a score, more is nearer: the row's base, which needs no query, and a contribution of each shared
//! dimension, with q the query's value there and w the row's weight.
//!
//! | metric | base | contribution | distance |
//! |---|---|---|---|
//! | `dot` | 0 | q w | -score |
//! | `cosine` | 0 | q w, both vectors of length 1 | 1 - score |
//! | `l2`, `l2_squared` | -‖x‖² / 2 | q w | (the root of) ‖q‖² - 2 score |
//! | `l1` | -‖x‖₁ | 2 min(\|q\|, \|w\|) if of one sign | ‖q‖₁ - score |

use mvvd_core::metric::Metric;
use mvvd_core::{Error, Result};

/// A metric of sparse vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    Dot,
    Cosine,
    L2,
    L2Squared,
    L1,
}

impl Measure {
    pub(super) fn of(metric: Metric) -> Result<Self> {
        match metric {
            Metric::Dot => Ok(Self::Dot),
            Metric::Cosine => Ok(Self::Cosine),
            Metric::L2 => Ok(Self::L2),
            Metric::L2Squared => Ok(Self::L2Squared),
            Metric::L1 => Ok(Self::L1),
            Metric::Hamming | Metric::Jaccard => {
                Err(Error::unsupported(format!("metric {metric} does not measure SPARSEVEC")))
            }
        }
    }

    /// Whether rows have a base.
    pub(super) fn has_base(self) -> bool {
        matches!(self, Self::L2 | Self::L2Squared | Self::L1)
    }

    /// The base of a row.
    pub(super) fn base(self, values: &[f32]) -> f64 {
        match self {
            Self::Dot | Self::Cosine => 0.0,
            Self::L2 | Self::L2Squared => squares(values) / -2.0,
            Self::L1 => 0.0 - absolutes(values),
        }
    }

    /// What a row's values are multiplied with to make weights; none if nothing is at any distance from the row.
    pub(super) fn factor(self, values: &[f32]) -> Option<f64> {
        match self {
            Self::Cosine => Some(1.0 / squares(values).sqrt()).filter(|factor| factor.is_finite()),
            _ => Some(1.0),
        }
    }

    /// The query's part of a distance.
    pub(super) fn query_part(self, values: &[f32]) -> f64 {
        match self {
            Self::Dot => 0.0,
            Self::Cosine => 1.0,
            Self::L2 | Self::L2Squared => squares(values),
            Self::L1 => absolutes(values),
        }
    }

    /// The distance that a score stands for, given the query's part.
    pub(super) fn distance(self, query_part: f64, score: f64) -> f64 {
        match self {
            Self::Dot | Self::Cosine | Self::L1 => query_part - score,
            Self::L2Squared => query_part - 2.0 * score,
            Self::L2 => (query_part - 2.0 * score).max(0.0).sqrt(),
        }
    }

    /// The largest amount by which a weight of up to `weight` can change a score, for a query value.
    pub(super) fn contribution_max(self, query: f32, weight: f32) -> f32 {
        match self {
            Self::L1 => 2.0 * query.abs().min(weight),
            _ => query.abs() * weight,
        }
    }

    /// By how much a contribution is off if the weight is off by `error`.
    pub(super) fn contribution_error(self, query: f32, error: f32) -> f32 {
        match self {
            Self::L1 => 2.0 * query.abs().min(error),
            _ => query.abs() * error,
        }
    }
}

fn squares(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

fn absolutes(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x).abs()).sum()
}
