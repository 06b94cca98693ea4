//! `sparsevec(indices, values, dims [, base])`: a sparse vector from two lists.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type, Int64Type};
use datafusion::logical_expr::ColumnarValue;
use datafusion::scalar::ScalarValue;
use mvvd_core::convert::SparseBuilder;
use mvvd_core::literal::sparse_from_pairs;
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::function::{Arg, Call, Returns, VectorFunction};
use crate::operand::Operand;

#[derive(Debug)]
pub(crate) struct SparseVec;

impl VectorFunction for SparseVec {
    fn name(&self) -> &'static str {
        "sparsevec"
    }

    fn arity(&self) -> (usize, usize) {
        (3, 4)
    }

    fn vectors(&self) -> usize {
        0
    }

    fn returns(&self, args: &[Arg]) -> Result<Returns> {
        for arg in &args[..2] {
            let is_list = matches!(arg.operand, Operand::List(_) | Operand::Null)
                || arg.operand.vector_type().is_some_and(|ty| matches!(ty.kind, VectorKind::Dense | VectorKind::Half));
            if !is_list {
                return Err(Error::invalid(format!("sparsevec needs two lists of numbers, got {}", arg.type_name()))
                    .with_hint("write sparsevec([1,4], [0.5,2], 10)"));
            }
        }
        let dims = args[2].whole_number("sparsevec", "the number of dimensions")?;
        if let Some(base) = args.get(3) {
            let base = base.whole_number("sparsevec", "the base")?;
            if !matches!(base, 0 | 1) {
                return Err(Error::invalid(format!("the base of sparsevec must be 0 or 1, got {base}")));
            }
        }
        Ok(Returns::Vector(VectorType::new(VectorKind::Sparse, usize::try_from(dims).unwrap_or(0))?))
    }

    fn invoke(&self, call: &Call) -> Result<ColumnarValue> {
        let ty = call.result.ok_or_else(|| Error::internal("sparsevec returns a vector"))?;
        let base = match call.args.get(3) {
            None => 1,
            Some(base) => match base.clone().cast_to(&DataType::Int64, None) {
                Ok(ColumnarValue::Scalar(ScalarValue::Int64(Some(base)))) => base,
                _ => return Err(Error::internal("the base of sparsevec got past the check of literals")),
            },
        };
        // The dimensions are one value: they do not decide how many rows there are.
        let scalar = call.args[..2].iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { call.rows };
        let list = |i: usize, item: DataType| -> Result<ArrayRef> {
            let array = call.args[i].to_array(rows).map_err(|e| Error::internal(e.to_string()).with_source(e))?;
            let options = CastOptions { safe: false, ..Default::default() };
            Ok(cast_with_options(&array, &DataType::new_list(item, true), &options)?)
        };
        let (indices, values) = (list(0, DataType::Int64)?, list(1, DataType::Float32)?);
        let mut out = SparseBuilder::default();
        for row in 0..rows {
            if indices.is_null(row) || values.is_null(row) {
                out.append_null()?;
                continue;
            }
            let (at, of) = (indices.as_list::<i32>().value(row), values.as_list::<i32>().value(row));
            if at.len() != of.len() {
                return Err(Error::invalid(format!("sparsevec has {} indices and {} values", at.len(), of.len())));
            }
            if at.null_count() > 0 || of.null_count() > 0 {
                return Err(Error::invalid("sparsevec must not contain NULL"));
            }
            let at = at.as_primitive::<Int64Type>().values();
            let of = of.as_primitive::<Float32Type>().values();
            let literal = sparse_from_pairs(at.iter().copied().zip(of.iter().copied()).collect(), ty.dims, base)?;
            out.append(&literal.indices, &literal.values)?;
        }
        let array: ArrayRef = Arc::new(out.finish());
        if scalar {
            let value =
                ScalarValue::try_from_array(&array, 0).map_err(|e| Error::internal(e.to_string()).with_source(e))?;
            return Ok(ColumnarValue::Scalar(value));
        }
        Ok(ColumnarValue::Array(array))
    }
}
