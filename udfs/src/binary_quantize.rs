//! `binary_quantize(v)`: one bit for each dimension, 1 where the value is above 0.

use std::sync::Arc;

use arrow::array::{Array, AsArray, FixedSizeBinaryArray};
use arrow::datatypes::DataType;
use datafusion::logical_expr::ColumnarValue;
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::arithmetic::{floats, values};
use crate::function::{Arg, Call, Returns, VectorFunction};
use crate::l2_normalize::result_type;
use crate::operand::Operand;
use crate::rows::f16_values;

#[derive(Debug)]
pub(crate) struct BinaryQuantize;

impl VectorFunction for BinaryQuantize {
    fn name(&self) -> &'static str {
        "binary_quantize"
    }

    fn vectors(&self) -> usize {
        1
    }

    fn returns(&self, args: &[Arg]) -> Result<Returns> {
        if matches!(args[0].operand.kind(), Some(VectorKind::Bit | VectorKind::Sparse)) {
            let got = args[0].type_name();
            return Err(Error::unsupported(format!("binary_quantize needs VECTOR or HALFVEC, got {got}")));
        }
        Ok(match result_type(self.name(), &args[0])? {
            Returns::Vector(ty) => Returns::Vector(VectorType { kind: VectorKind::Bit, ..ty }),
            plain => plain,
        })
    }

    fn invoke(&self, call: &Call) -> Result<ColumnarValue> {
        let Some(ty) = call.result else {
            return call.finish(arrow::array::new_null_array(&DataType::Null, call.array(0)?.len()));
        };
        let (nulls, bytes) = match call.operand(0) {
            Operand::Vector(VectorType { kind: VectorKind::Half, .. }) => {
                let array = call.array(0)?;
                let bytes = pack(f16_values(array.as_fixed_size_list()), ty.dims, |x| x.to_f32() > 0.0);
                (array.nulls().cloned(), bytes)
            }
            _ => {
                let array = floats(call, 0, ty)?;
                (array.nulls().cloned(), pack(values(&array), ty.dims, |x| x > 0.0))
            }
        };
        let width = VectorType::bit_bytes(ty.dims) as i32;
        call.finish(Arc::new(FixedSizeBinaryArray::try_new(width, bytes.into(), nulls)?))
    }
}

/// Packs rows of `dims` values, the first in the highest bit of the row's first byte.
fn pack<T: Copy>(values: &[T], dims: usize, is_set: impl Fn(T) -> bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() / dims * VectorType::bit_bytes(dims));
    for row in values.chunks_exact(dims) {
        bytes.extend(
            row.chunks(8).map(|eight| {
                eight.iter().enumerate().fold(0u8, |byte, (i, &x)| byte | (u8::from(is_set(x)) << (7 - i)))
            }),
        );
    }
    bytes
}
