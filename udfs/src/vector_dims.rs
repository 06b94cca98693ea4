//! `vector_dims(v)`: the number of dimensions.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array};
use arrow::datatypes::DataType;
use datafusion::logical_expr::ColumnarValue;
use mvvd_core::{Error, Result, VectorKind};

use crate::function::{Arg, Call, Returns, VectorFunction};
use crate::operand::Operand;
use crate::rows::{Row, Source};

#[derive(Debug)]
pub(crate) struct VectorDims;

impl VectorFunction for VectorDims {
    fn name(&self) -> &'static str {
        "vector_dims"
    }

    fn vectors(&self) -> usize {
        1
    }

    fn returns(&self, args: &[Arg]) -> Result<Returns> {
        match args[0].operand {
            Operand::Bytes(_) | Operand::Sparse => Err(Error::invalid(format!(
                "vector_dims needs a vector with known dimensions, got {}",
                args[0].type_name()
            ))
            .with_hint("cast it, as in value::BITVEC(8)")),
            _ => Ok(Returns::Plain(DataType::Int32)),
        }
    }

    fn invoke(&self, call: &Call) -> Result<ColumnarValue> {
        let (operand, array) = (call.operand(0), call.array(0)?);
        let dims: ArrayRef = match operand {
            Operand::Vector(ty) => {
                Arc::new(Int32Array::new(vec![ty.dims as i32; array.len()].into(), array.nulls().cloned()))
            }
            _ => {
                let source = Source::read(array, operand, VectorKind::Dense, None)?;
                let rows = source.rows()?;
                let nulls = source.nulls().cloned();
                let dims = (0..source.len()).map(|i| match rows.get(i)? {
                    Row::F32(values) => Ok(values.len() as i32),
                    _ => Err(Error::internal("text and lists are read as f32")),
                });
                Arc::new(Int32Array::new(dims.collect::<Result<Vec<_>>>()?.into(), nulls))
            }
        };
        call.finish(dims)
    }
}
