//! `vector_norm(v)`, or `l2_norm(v)`: the Euclidean length.

use std::sync::Arc;

use arrow::array::Float64Array;
use arrow::datatypes::DataType;
use datafusion::logical_expr::ColumnarValue;
use mvvd_core::kernels::{norm_f16, norm_f32, norm_sparse};
use mvvd_core::{Error, Result, VectorKind};

use crate::function::{Arg, Call, Returns, VectorFunction};
use crate::rows::{Row, Source};

#[derive(Debug)]
pub(crate) struct VectorNorm;

impl VectorFunction for VectorNorm {
    fn name(&self) -> &'static str {
        "vector_norm"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["l2_norm"]
    }

    fn vectors(&self) -> usize {
        1
    }

    fn returns(&self, args: &[Arg]) -> Result<Returns> {
        needs_numbers(self.name(), &args[0])?;
        Ok(Returns::Plain(DataType::Float64))
    }

    fn invoke(&self, call: &Call) -> Result<ColumnarValue> {
        let operand = call.operand(0);
        let source = Source::read(call.array(0)?, operand, operand.kind().unwrap_or(VectorKind::Dense), None)?;
        let (rows, nulls) = (source.rows()?, source.nulls().cloned());
        let norm = |i: usize| {
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(i)) {
                return Ok(0.0);
            }
            match rows.get(i)? {
                Row::F32(v) => Ok(norm_f32(v)),
                Row::F16(v) => Ok(norm_f16(v)),
                // No entries sum to -0.
                Row::Sparse(v) => Ok(norm_sparse(v) + 0.0),
                Row::Bits(_) => Err(Error::internal("bits got past the check of types")),
            }
        };
        let norms = (0..source.len()).map(norm).collect::<Result<Vec<_>>>()?;
        call.finish(Arc::new(Float64Array::new(norms.into(), nulls)))
    }
}

/// Refuses bit vectors.
pub(crate) fn needs_numbers(name: &str, arg: &Arg) -> Result<()> {
    if arg.operand.kind() == Some(VectorKind::Bit) {
        return Err(Error::invalid(format!("{name} needs a vector of numbers, got {}", arg.type_name())));
    }
    Ok(())
}
