//! Parameter values.

use arrow::array::RecordBatch;
use mvvd_core::literal::check_finite;
use mvvd_core::vector_type::{VectorKind, VectorType};
use mvvd_core::{Result, convert};

use crate::error::from_df;

/// A typed value for a parameter: any Arrow scalar. Vectors bind as `FixedSizeList`, `List` or text.
pub use datafusion::common::ScalarValue as Value;

/// A vector parameter, its dimension and values checked.
pub fn vector(values: &[f32]) -> Result<Value> {
    let ty = VectorType::new(VectorKind::Dense, values.len())?;
    values.iter().try_for_each(|&v| check_finite("vector", v))?;
    let column = convert::dense_column(values.to_vec(), ty, None);
    Ok(Value::try_from_array(&column, 0).expect("the column has one row"))
}

/// The values of one row, in the order of the columns: parameters that came as a record batch.
pub fn row(batch: &RecordBatch, row: usize) -> Result<Vec<Value>> {
    batch.columns().iter().map(|column| Value::try_from_array(column, row).map_err(from_df)).collect()
}
