//! `subvector(v, start, count)`: some dimensions in a row, counted from 1.

use std::sync::Arc;

use arrow::array::{Array, AsArray, FixedSizeListArray};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field};
use datafusion::logical_expr::ColumnarValue;
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::arithmetic::{floats, literal_type};
use crate::function::{Arg, Call, Returns, VectorFunction};
use crate::l2_normalize::result_type;

#[derive(Debug)]
pub(crate) struct Subvector;

impl VectorFunction for Subvector {
    fn name(&self) -> &'static str {
        "subvector"
    }

    fn arity(&self) -> (usize, usize) {
        (3, 3)
    }

    fn vectors(&self) -> usize {
        1
    }

    fn returns(&self, args: &[Arg]) -> Result<Returns> {
        if matches!(args[0].operand.kind(), Some(VectorKind::Bit | VectorKind::Sparse)) {
            return Err(Error::unsupported(format!("subvector needs VECTOR or HALFVEC, got {}", args[0].type_name())));
        }
        let start = args[1].whole_number("subvector", "the start")?;
        let count = args[2].whole_number("subvector", "the count")?;
        Ok(match result_type("subvector", &args[0])? {
            Returns::Vector(ty) => Returns::Vector(VectorType { dims: clamp(ty, start, count)?, ..ty }),
            plain => plain,
        })
    }

    fn invoke(&self, call: &Call) -> Result<ColumnarValue> {
        let Some(result) = call.result else {
            return call.finish(arrow::array::new_null_array(&DataType::Null, call.array(0)?.len()));
        };
        let array = match call.operand(0).vector_type() {
            Some(_) => call.array(0)?,
            // A text literal: the analyzer was not there to type it.
            None => {
                let dims = match &call.args[0] {
                    ColumnarValue::Scalar(value) => literal_type(value)?,
                    ColumnarValue::Array(_) => None,
                };
                floats(call, 0, dims.unwrap_or(result))?
            }
        };
        let list = array.as_fixed_size_list();
        let width = list.value_length() as usize;
        let start = match call.args[1].clone().cast_to(&DataType::Int64, None) {
            Ok(ColumnarValue::Scalar(datafusion::scalar::ScalarValue::Int64(Some(start)))) => start,
            _ => return Err(Error::internal("the start of subvector got past the check of literals")),
        };
        // `returns` has clamped the count already.
        let first = start.max(1) as usize - 1;
        let picks = (0..list.len()).flat_map(|row| {
            let from = row * width + first;
            from as u64..(from + result.dims) as u64
        });
        let values = take(list.values(), &arrow::array::UInt64Array::from_iter_values(picks), None)?;
        let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        call.finish(Arc::new(FixedSizeListArray::try_new(item, result.dims as i32, values, list.nulls().cloned())?))
    }
}

/// How many dimensions there are, clamped as pgvector does: a start before 1 takes from the count.
fn clamp(ty: VectorType, start: i64, count: i64) -> Result<usize> {
    let empty = || Error::invalid(format!("{} must have at least 1 dimension", ty.kind.name()));
    let dims = ty.dims as i64;
    if count < 1 || start > dims {
        return Err(empty());
    }
    // In this order nothing overflows.
    let end = if start > dims - count { dims + 1 } else { start + count };
    if end <= start.max(1) { Err(empty()) } else { Ok((end - start.max(1)) as usize) }
}
