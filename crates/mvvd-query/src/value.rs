//! Parameter values.

use mvvd_core::literal::check_finite;
use mvvd_core::vector_type::{VectorKind, VectorType};
use mvvd_core::{Result, convert};

/// A typed value for a parameter: any Arrow scalar. Vectors bind as `FixedSizeList`, `List` or text.
pub use datafusion::common::ScalarValue as Value;

/// A vector parameter, its dimension and values checked.
pub fn vector(values: &[f32]) -> Result<Value> {
    let ty = VectorType::new(VectorKind::Dense, values.len())?;
    values.iter().try_for_each(|&v| check_finite("vector", v))?;
    let column = convert::dense_column(values.to_vec(), ty, None);
    Ok(Value::try_from_array(&column, 0).expect("the column has one row"))
}
