//! `vector_add`, `vector_sub` and `vector_mul`: the operators `+ - *` of vectors, element by element.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF};
use half::f16;
use mvvd_core::convert::{dense_column, to_vectors};
use mvvd_core::literal::{different_dims, parse_dense, parse_sparse};
use mvvd_core::vector_type::fixed_list;
use mvvd_core::{Error, Result, VectorKind, VectorType};

use crate::function::{Arg, Call, Returns, VectorFunction, VectorUdf};
use crate::operand::{Operand, kind_of_text, text_of};

/// An operation on the elements of two vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
}

impl Arithmetic {
    pub(crate) const ALL: [Self; 3] = [Self::Add, Self::Subtract, Self::Multiply];

    pub(crate) fn udf(self) -> Arc<ScalarUDF> {
        VectorUdf::udf(self)
    }

    pub(crate) fn of(udf: &ScalarUDF) -> Option<Self> {
        let name = VectorUdf::of(udf)?.name();
        Self::ALL.into_iter().find(|op| VectorFunction::name(op) == name)
    }

    fn apply(self, a: f32, b: f32) -> f32 {
        match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
        }
    }
}

impl VectorFunction for Arithmetic {
    fn name(&self) -> &'static str {
        match self {
            Self::Add => "vector_add",
            Self::Subtract => "vector_sub",
            Self::Multiply => "vector_mul",
        }
    }

    fn vectors(&self) -> usize {
        2
    }

    fn returns(&self, args: &[Arg]) -> Result<Returns> {
        let name = self.name();
        for arg in args {
            if matches!(arg.operand.kind(), Some(VectorKind::Bit | VectorKind::Sparse)) {
                return Err(Error::unsupported(format!("{name} needs VECTOR or HALFVEC, got {}", arg.type_name())));
            }
        }
        let ty = match (args[0].operand, args[1].operand) {
            (Operand::Vector(a), Operand::Vector(b)) if a.dims != b.dims => {
                return Err(different_dims(a.dims, b.dims));
            }
            (Operand::Vector(a), Operand::Vector(b)) if a.kind == b.kind => a,
            (Operand::Vector(a), Operand::Vector(_)) => VectorType { kind: VectorKind::Dense, ..a },
            (Operand::Vector(ty), _) | (_, Operand::Vector(ty)) => ty,
            (Operand::Null, Operand::Null) => return Ok(Returns::Plain(DataType::Null)),
            _ => {
                let literal = args.iter().find_map(|arg| arg.literal.and_then(|value| literal_type(value).transpose()));
                match literal.transpose()? {
                    Some(ty) if ty.kind == VectorKind::Dense => ty,
                    _ => return Err(unknown_dims(name, &args[0])),
                }
            }
        };
        Ok(Returns::Vector(ty))
    }

    fn invoke(&self, call: &Call) -> Result<ColumnarValue> {
        let Some(ty) = call.result else {
            return call.finish(arrow::array::new_null_array(&DataType::Null, call.array(0)?.len()));
        };
        let (left, right) = (floats(call, 0, ty)?, floats(call, 1, ty)?);
        let nulls = NullBuffer::union(left.nulls(), right.nulls());
        let (a, b) = (values(&left), values(&right));
        let mut out = Vec::with_capacity(a.len());
        for row in 0..left.len() {
            let range = row * ty.dims..(row + 1) * ty.dims;
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                out.resize(out.len() + ty.dims, 0.0);
                continue;
            }
            for (&x, &y) in a[range.clone()].iter().zip(&b[range]) {
                let exact = self.apply(x, y);
                let value = if ty.kind == VectorKind::Half { f16::from_f32(exact).to_f32() } else { exact };
                if value.is_infinite() {
                    return Err(Error::invalid("value out of range: overflow"));
                }
                if *self == Self::Multiply && value == 0.0 && x != 0.0 && y != 0.0 {
                    return Err(Error::invalid("value out of range: underflow"));
                }
                out.push(value);
            }
        }
        call.finish(dense_column(out, ty, nulls))
    }
}

/// The error of a function whose result has as many dimensions as an argument that does not tell them.
pub(crate) fn unknown_dims(name: &str, arg: &Arg) -> Error {
    Error::invalid(format!("{name} needs a vector with known dimensions, got {}", arg.type_name()))
        .with_hint("cast it, as in value::VECTOR(3)")
}

/// The type of vector that a text literal is.
pub(crate) fn literal_type(value: &ScalarValue) -> Result<Option<VectorType>> {
    let Some(text) = text_of(value) else {
        return Ok(None);
    };
    Ok(Some(match kind_of_text(text) {
        VectorKind::Sparse => VectorType::new(VectorKind::Sparse, parse_sparse(text)?.dims)?,
        kind => VectorType::new(kind, parse_dense(text, &mut Vec::new())?)?,
    }))
}

/// Argument `i` as a `VECTOR`, without rounding to the type of the result.
pub(crate) fn floats(call: &Call, i: usize, result: VectorType) -> Result<ArrayRef> {
    let array = call.array(i)?;
    match call.operand(i) {
        Operand::Vector(VectorType { kind: VectorKind::Dense, dims }) if dims == result.dims => Ok(array),
        Operand::Vector(ty) if ty.dims == result.dims => Ok(cast(&array, &fixed_list(DataType::Float32, ty.dims))?),
        Operand::Vector(ty) => Err(different_dims(ty.dims, result.dims)),
        _ => Ok(to_vectors(&array, None, VectorType { kind: VectorKind::Dense, ..result })?),
    }
}

/// The numbers of a `VECTOR` array.
pub(crate) fn values(array: &ArrayRef) -> &[f32] {
    array.as_fixed_size_list().values().as_primitive::<Float32Type>().values()
}
