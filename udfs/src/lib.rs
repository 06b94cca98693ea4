//! Vector SQL functions, operators, types and casts of MVVD.
//!
//! | piece | |
//! |---|---|
//! | [`scalar_functions`] | distances and the other functions |
//! | [`VectorOperators`] | `<->` and the other operators, `avg` and `sum` |
//! | [`VectorTypes`] | `VECTOR(n)` and the other type names |
//! | [`VectorLiterals`] | types of literals, casts and parameters |
//! | [`Distance::bind`] | a distance over a column, without SQL |
//!
//! [`register`] puts all of them into a session; a builder takes the lists.

mod aggregate;
mod arithmetic;
mod array;
mod binary_quantize;
mod bound;
mod coalesce;
mod convert;
mod distance;
pub mod error;
mod function;
mod l2_normalize;
mod literals;
mod name;
mod operand;
mod operators;
mod rows;
mod sparsevec;
mod subvector;
#[cfg(test)]
mod tests;
mod types;
mod vector_dims;
mod vector_norm;
mod written;

use std::sync::Arc;

use arrow::datatypes::Field;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::{ExprPlanner, TypePlanner};
use datafusion::logical_expr::{Cast, Expr, ScalarUDF};
use datafusion::optimizer::{Analyzer, AnalyzerRule};
use datafusion::prelude::SessionContext;

pub use array::ARRAY;
pub use bound::{BoundDistance, QueryValues};
pub use convert::{canonical_uuid, check_json};
pub use distance::{Distance, Form, bound_distance_of, distance_of};
pub use error::to_df;
pub use literals::VectorLiterals;
pub use operators::VectorOperators;
pub use types::{JSON, UUID, VectorTypes};

use function::VectorUdf;

/// Every scalar function. Those of DataFusion with the same names are to be replaced; plain lists still reach them.
pub fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let mut functions: Vec<_> = distance::ALL.into_iter().map(Distance::udf).collect();
    functions.extend(arithmetic::Arithmetic::ALL.map(arithmetic::Arithmetic::udf));
    functions.extend([
        VectorUdf::udf(vector_dims::VectorDims),
        VectorUdf::udf(vector_norm::VectorNorm),
        VectorUdf::udf(l2_normalize::L2Normalize),
        VectorUdf::udf(subvector::Subvector),
        VectorUdf::udf(binary_quantize::BinaryQuantize),
        VectorUdf::udf(sparsevec::SparseVec),
        array::udf(),
        coalesce::udf(),
    ]);
    functions
}

/// The planners of expressions, to stand before DataFusion's.
pub fn expr_planners() -> Vec<Arc<dyn ExprPlanner>> {
    vec![Arc::new(VectorOperators::default())]
}

/// The planner of type names.
pub fn type_planner() -> Arc<dyn TypePlanner> {
    Arc::new(VectorTypes)
}

/// The analyzer rule, to stand before DataFusion's.
pub fn analyzer_rule() -> Arc<dyn AnalyzerRule + Send + Sync> {
    Arc::new(VectorLiterals)
}

/// A session state with everything in its place: our functions over DataFusion's, our planners and rule before its own.
pub fn extend(state: SessionState) -> SessionState {
    let mut planners = expr_planners();
    planners.extend(state.expr_planners().iter().cloned());
    let mut rules = vec![analyzer_rule()];
    rules.extend(state.analyzer().rules.iter().cloned());
    let analyzer = Analyzer { function_rewrites: state.analyzer().function_rewrites.clone(), rules };
    let mut functions: Vec<_> = state.scalar_functions().values().cloned().collect();
    functions.extend(scalar_functions());
    SessionStateBuilder::new_from_existing(state)
        .with_expr_planners(planners)
        .with_type_planner(type_planner())
        .with_analyzer_rules(analyzer.rules)
        .with_scalar_functions(functions)
        .build()
}

/// Puts everything into a session, as [`extend`] does.
pub fn register(context: &SessionContext) {
    let state = extend(context.state());
    *context.state_ref().write() = state;
}

/// `expr` as a value of the column `field`: a cast that [`VectorLiterals`] turns into a checked conversion.
///
/// For INSERT and UPDATE: DataFusion's own planner refuses a text for a vector column, and drops the field metadata
/// that says what a BITVEC, SPARSEVEC, UUID or JSON is.
pub fn cast_to_field(expr: Expr, field: &Field) -> Expr {
    let target = Field::new("", field.data_type().clone(), true).with_metadata(field.metadata().clone());
    Expr::Cast(Cast::new_from_field(Box::new(expr), Arc::new(target)))
}
