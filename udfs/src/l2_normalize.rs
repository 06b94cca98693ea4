//! `l2_normalize(v)`: the vector with length 1 in the same direction; a vector without length stays as it is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use datafusion::logical_expr::ColumnarValue;
use mvvd_core::convert::{SparseBuilder, SparseRows, dense_column, to_vectors};
use mvvd_core::kernels::{Sparse, norm_f32, norm_sparse};
use mvvd_core::{Result, VectorKind};

use crate::arithmetic::{floats, literal_type, unknown_dims, values};
use crate::function::{Arg, Call, Returns, VectorFunction};
use crate::operand::Operand;
use crate::vector_norm::needs_numbers;

#[derive(Debug)]
pub(crate) struct L2Normalize;

impl VectorFunction for L2Normalize {
    fn name(&self) -> &'static str {
        "l2_normalize"
    }

    fn vectors(&self) -> usize {
        1
    }

    fn returns(&self, args: &[Arg]) -> Result<Returns> {
        needs_numbers(self.name(), &args[0])?;
        result_type(self.name(), &args[0])
    }

    fn invoke(&self, call: &Call) -> Result<ColumnarValue> {
        let Some(ty) = call.result else {
            return call.finish(arrow::array::new_null_array(&DataType::Null, call.array(0)?.len()));
        };
        if ty.kind == VectorKind::Sparse {
            let sparse = to_vectors(&call.array(0)?, call.operand(0).vector_type(), ty)?;
            return call.finish(normalize_sparse(&sparse)?);
        }
        let array = floats(call, 0, ty)?;
        let mut out = values(&array).to_vec();
        for row in out.chunks_exact_mut(ty.dims) {
            let norm = norm_f32(row);
            if norm > 0.0 {
                row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
            }
        }
        call.finish(dense_column(out, ty, array.nulls().cloned()))
    }
}

/// The type of a function that returns a vector like its argument.
pub(crate) fn result_type(name: &str, arg: &Arg) -> Result<Returns> {
    Ok(match arg.operand {
        Operand::Vector(ty) => Returns::Vector(ty),
        Operand::Null => Returns::Plain(DataType::Null),
        _ => {
            let literal = arg.literal.map(literal_type).transpose()?.flatten();
            Returns::Vector(literal.ok_or_else(|| unknown_dims(name, arg))?)
        }
    })
}

fn normalize_sparse(array: &ArrayRef) -> Result<ArrayRef> {
    let rows = SparseRows::of(array.as_struct())?;
    let mut out = SparseBuilder::default();
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null()?;
            continue;
        }
        let (indices, values) = rows.get(row)?;
        let norm = norm_sparse(Sparse { indices, values });
        let scaled = values.iter().map(|&x| if norm > 0.0 { (f64::from(x) / norm) as f32 } else { x });
        // A value far below the others may vanish, and zero is no entry.
        let (indices, values): (Vec<u32>, Vec<f32>) =
            indices.iter().copied().zip(scaled).filter(|&(_, x)| x != 0.0).unzip();
        out.append(&indices, &values)?;
    }
    Ok(Arc::new(out.finish()))
}
