//! `mvvd_array('[0.1,0.2]')`: a long array literal, which the lexer passes on as one token.
//!
//! `[0.1, 0.2]` would be planned as a call with an expression for each number, which costs more than the search.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::scalar::ScalarValue;
use mvvd_core::{Error, Result};

use crate::error::to_df;
use crate::name;
use crate::operand::text_of;

/// The name of the function; SQL texts never show it.
pub const ARRAY: &str = "mvvd_array";

/// The function.
pub(crate) fn udf() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(ArrayLiteral { signature: Signature::user_defined(Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayLiteral {
    signature: Signature,
}

/// The text of a call of this function.
pub(crate) fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::ScalarFunction(call) if call.func.name() == ARRAY => match &call.args[..] {
            [Expr::Literal(value, _)] => text_of(value),
            _ => None,
        },
        _ => None,
    }
}

/// The list that the text stands for, with the type that DataFusion gives such a list: BIGINT or DOUBLE.
pub(crate) fn list(text: &str) -> Result<ScalarValue> {
    let items = items(text)?;
    let wrong = |item: &str| Error::invalid(format!("\"{item}\" is not a number"));
    let array: ArrayRef = if item_type(text) == DataType::Int64 {
        let numbers = items.map(|item| item.parse::<i64>().map_err(|_| wrong(item)));
        Arc::new(arrow::array::Int64Array::from(numbers.collect::<Result<Vec<_>>>()?))
    } else {
        let numbers = items.map(|item| item.parse::<f64>().map_err(|_| wrong(item)));
        Arc::new(arrow::array::Float64Array::from(numbers.collect::<Result<Vec<_>>>()?))
    };
    Ok(ScalarValue::List(Arc::new(datafusion::common::utils::SingleRowListArrayBuilder::new(array).build_list_array())))
}

fn items(text: &str) -> Result<impl Iterator<Item = &str>> {
    let body = text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let body = body.ok_or_else(|| Error::invalid("an array literal is written [1,2,3]"))?;
    let empty = body.trim().is_empty();
    Ok(body.split(',').map(str::trim).filter(move |_| !empty))
}

/// Digits that always fit 64 bits.
const DIGITS_MAX: usize = 18;

fn item_type(text: &str) -> DataType {
    let mut digits = 0;
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'[' | b']' | b',' | b'-' | b'+' | b' ' | b'\t' | b'\r' | b'\n' => digits = 0,
            _ => return DataType::Float64,
        }
        if digits > DIGITS_MAX {
            let whole = items(text).is_ok_and(|mut items| items.all(|item| item.parse::<i64>().is_ok()));
            return if whole { DataType::Int64 } else { DataType::Float64 };
        }
    }
    DataType::Int64
}

impl ScalarUDFImpl for ArrayLiteral {
    fn name(&self) -> &str {
        ARRAY
    }

    fn schema_name(&self, args: &[Expr]) -> DfResult<String> {
        name::call("make_array", args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> DfResult<Vec<DataType>> {
        Ok(arg_types.to_vec())
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::new_list(DataType::Float64, true))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<arrow::datatypes::FieldRef> {
        let text = match args.scalar_arguments {
            [Some(value)] => text_of(value),
            _ => None,
        };
        let text = text.ok_or_else(|| to_df(Error::invalid(format!("{ARRAY} takes one text literal"))))?;
        Ok(Arc::new(arrow::datatypes::Field::new(ARRAY, DataType::new_list(item_type(text), true), false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        match &args.args[..] {
            [ColumnarValue::Scalar(value)] if let Some(text) = text_of(value) => {
                Ok(ColumnarValue::Scalar(list(text).map_err(to_df)?))
            }
            _ => Err(to_df(Error::invalid(format!("{ARRAY} takes one text literal")))),
        }
    }
}
