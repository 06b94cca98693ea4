//! `coalesce` with a vector among its arguments: texts and lists beside it become vectors of its type.
//!
//! It lives only between the SQL planner and [`VectorLiterals`](crate::VectorLiterals), which puts DataFusion's own
//! `coalesce` back once the arguments have one type.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result as DfResult;
use datafusion::functions::core::coalesce;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use mvvd_core::VectorType;

use crate::operand::Operand;

pub(crate) fn udf() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Coalesce {
        original: coalesce(),
        signature: Signature::user_defined(Volatility::Immutable),
    }))
}

/// Whether a function is this one.
pub(crate) fn is(udf: &ScalarUDF) -> bool {
    udf.inner().is::<Coalesce>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Coalesce {
    original: Arc<ScalarUDF>,
    signature: Signature,
}

/// The vector type among the arguments.
fn vector_type(operands: impl IntoIterator<Item = Operand>) -> Option<VectorType> {
    operands.into_iter().find_map(Operand::vector_type)
}

impl ScalarUDFImpl for Coalesce {
    fn name(&self) -> &str {
        "coalesce"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> DfResult<Vec<DataType>> {
        let operands = || arg_types.iter().map(|ty| Operand::of(ty, &Default::default()));
        // Bits and sparse vectors show in the metadata only, which is not here; they need no coercion.
        if operands().any(Operand::is_vector) {
            return Ok(arg_types.to_vec());
        }
        self.original.coerce_types(arg_types)
    }

    fn return_type(&self, arg_types: &[DataType]) -> DfResult<DataType> {
        Ok(arg_types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let nullable = args.arg_fields.iter().all(|field| field.is_nullable());
        match vector_type(args.arg_fields.iter().map(|field| Operand::of_field(field))) {
            Some(ty) => Ok(Arc::new(ty.field(self.name(), nullable))),
            None => self.original.return_field_from_args(args),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        self.original.invoke_with_args(args)
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.original.conditional_arguments(args)
    }

    fn short_circuits(&self) -> bool {
        true
    }
}
