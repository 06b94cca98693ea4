//! A sort key that is a weighted sum of distances: how far a row can still come, when some of its terms are known.
//!
//! The search computes the terms of a row one after the other, heaviest first, and drops the row as soon as the terms
//! that it has, with the least that the others can be, lie beyond the k-th best row so far. A row without a value in
//! any of the fields has a NULL score. Sound: what is dropped could not have won; the winners' scores are computed by
//! the expression itself.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, Literal, NegativeExpr};

use super::score::BoundTerm;

/// Terms and weights of the same sum differ by so much of their size at most, in whatever order they are added.
const ROUNDING: f64 = 1e-12;

/// `constant + sum of weight * term`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct WeightedSum {
    constant: f64,
    /// Term and weight, in the order in which they are computed.
    terms: Vec<(usize, f64)>,
    /// The least that the terms after each one add.
    rest: Vec<f64>,
}

impl WeightedSum {
    /// `key` as a weighted sum, if it is nothing but one of every one of `terms`, which are the columns from `first` on.
    pub(super) fn of(key: &Arc<dyn PhysicalExpr>, first: usize, terms: &[BoundTerm]) -> Option<Self> {
        let linear = linear(key, first, terms.len())?;
        // A weight of zero makes NaN of an infinite distance, and NULL of a missing one: no shortcut for it.
        if linear.weights.iter().any(|weight| *weight == 0.0 || !weight.is_finite()) || !linear.constant.is_finite() {
            return None;
        }
        let mut order: Vec<(usize, f64)> = linear.weights.into_iter().enumerate().collect();
        order.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        let least = |&(term, weight): &(usize, f64)| match &terms[term].1 {
            Some(bound) => {
                let (least, greatest) = bound.distance().range();
                weight * if weight > 0.0 { least } else { greatest }
            }
            None => f64::NEG_INFINITY,
        };
        let rest = (0..order.len()).map(|i| order[i + 1..].iter().map(least).sum()).collect();
        Some(Self { constant: linear.constant, terms: order, rest })
    }

    /// The part that no distance changes.
    pub(super) fn constant(&self) -> f64 {
        self.constant
    }

    /// Terms and weights, heaviest first.
    pub(super) fn terms(&self) -> &[(usize, f64)] {
        &self.terms
    }

    /// A row whose sum of the terms up to `step` is above this ends beyond `bound`; none if nothing can be said.
    pub(super) fn limit(&self, step: usize, bound: f64) -> Option<f64> {
        let rest = self.rest[step];
        let limit = bound - rest;
        let slack = ROUNDING * (1.0 + bound.abs() + rest.abs());
        (limit.is_finite() && bound.is_finite()).then_some(limit + slack)
    }
}

/// The weights of the terms in `key`, if it is a weighted sum of them and a finite constant.
pub(super) fn weights_of(key: &Arc<dyn PhysicalExpr>, first: usize, terms: usize) -> Option<Vec<f64>> {
    linear(key, first, terms).filter(|linear| linear.constant.is_finite()).map(|linear| linear.weights)
}

struct Linear {
    constant: f64,
    /// By term.
    weights: Vec<f64>,
}

impl Linear {
    fn scale(mut self, factor: f64) -> Self {
        self.constant *= factor;
        self.weights.iter_mut().for_each(|weight| *weight *= factor);
        self
    }

    fn add(mut self, other: &Self) -> Self {
        self.constant += other.constant;
        self.weights.iter_mut().zip(&other.weights).for_each(|(a, b)| *a += b);
        self
    }

    fn is_constant(&self) -> bool {
        self.weights.iter().all(|weight| *weight == 0.0)
    }
}

/// Deeper expressions are left alone.
const DEPTH_MAX: usize = 64;

fn linear(key: &Arc<dyn PhysicalExpr>, first: usize, terms: usize) -> Option<Linear> {
    fn walk(expr: &Arc<dyn PhysicalExpr>, first: usize, terms: usize, depth: usize) -> Option<Linear> {
        if depth > DEPTH_MAX {
            return None;
        }
        let inner = |expr| walk(expr, first, terms, depth + 1);
        if let Some(column) = expr.downcast_ref::<Column>() {
            let mut weights = vec![0.0; terms];
            *weights.get_mut(column.index().checked_sub(first)?)? = 1.0;
            return Some(Linear { constant: 0.0, weights });
        }
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            let ScalarValue::Float64(Some(constant)) =
                literal.value().cast_to(&arrow::datatypes::DataType::Float64).ok()?
            else {
                return None;
            };
            return Some(Linear { constant, weights: vec![0.0; terms] });
        }
        if let Some(negative) = expr.downcast_ref::<NegativeExpr>() {
            return Some(inner(negative.arg())?.scale(-1.0));
        }
        if let Some(cast) = expr.downcast_ref::<CastExpr>() {
            return if cast.cast_type() == &arrow::datatypes::DataType::Float64 { inner(cast.expr()) } else { None };
        }
        let binary = expr.downcast_ref::<BinaryExpr>()?;
        let (left, right) = (inner(binary.left())?, inner(binary.right())?);
        match binary.op() {
            Operator::Plus => Some(left.add(&right)),
            Operator::Minus => Some(left.add(&right.scale(-1.0))),
            Operator::Multiply if left.is_constant() => Some(right.scale(left.constant)),
            Operator::Multiply if right.is_constant() => Some(left.scale(right.constant)),
            Operator::Divide if right.is_constant() && right.constant != 0.0 => Some(left.scale(1.0 / right.constant)),
            _ => None,
        }
    }
    walk(key, first, terms, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::physical_expr::expressions::{binary, lit};

    fn schema() -> arrow::datatypes::Schema {
        use arrow::datatypes::{DataType, Field, Schema};
        Schema::new(vec![Field::new("a", DataType::Float64, true), Field::new("b", DataType::Float64, true)])
    }

    fn column(i: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new(["a", "b"][i], i))
    }

    fn of(left: Arc<dyn PhysicalExpr>, op: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        binary(left, op, right, &schema()).expect("numbers")
    }

    #[test]
    fn sums_are_taken_apart() {
        let a = of(lit(0.25), Operator::Multiply, column(0));
        let b = of(column(1), Operator::Divide, lit(2.0));
        let sum = of(of(a, Operator::Minus, b), Operator::Plus, lit(3.0));
        let found = linear(&sum, 0, 2).expect("a sum");
        assert_eq!((found.constant, found.weights), (3.0, vec![0.25, -0.5]));
    }

    #[test]
    fn products_of_terms_are_no_sums() {
        assert!(linear(&of(column(0), Operator::Multiply, column(1)), 0, 2).is_none());
        assert!(linear(&of(lit(1.0), Operator::Divide, column(1)), 0, 2).is_none());
        assert!(linear(&of(column(0), Operator::Plus, column(1)), 1, 1).is_none(), "a column that is no term");
    }

    #[test]
    fn a_limit_leaves_room_for_the_rest() {
        let sum = WeightedSum { constant: 0.0, terms: vec![(0, 0.5), (1, 0.25)], rest: vec![-0.1, 0.0] };
        let limit = sum.limit(0, 1.0).expect("finite");
        assert!(limit > 1.1 && limit < 1.1 + 1e-9, "{limit}");
        assert_eq!(sum.limit(0, f64::INFINITY), None);
        assert_eq!(WeightedSum { rest: vec![f64::NEG_INFINITY, 0.0], ..sum }.limit(0, 1.0), None);
    }
}
