//! Column names and plan text of vector functions: literals are cut short, so that a name costs the same for any query.

use std::hash::{DefaultHasher, Hash, Hasher};

use arrow::array::Array;
use datafusion::common::Result;
use datafusion::logical_expr::Expr;
use datafusion::scalar::ScalarValue;
use mvvd_core::VectorType;
use mvvd_core::convert::write_cell;

/// Longest literal that a name repeats whole, in characters.
const LITERAL_CHARS_MAX: usize = 60;
/// Longest vector that is written out to see whether it is short enough, in dimensions.
const LITERAL_DIMS_MAX: usize = 16;
/// What a name keeps of a longer one.
const LITERAL_CHARS_KEPT: usize = 24;

/// `name(a,b)`, as DataFusion names a call, with long literals as `[0.1,0.2,...#1f2e3d4c]`.
///
/// The digits stand for the whole value, so that two calls with two queries have two names.
pub(crate) fn call(name: &str, args: &[Expr]) -> Result<String> {
    let mut out = String::with_capacity(name.len() + 64);
    out.push_str(name);
    out.push('(');
    for (i, arg) in args.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match arg {
            Expr::Literal(value, metadata) => out.push_str(&literal(value, metadata.as_ref().map(|m| m.to_hashmap()))),
            other => out.push_str(&other.schema_name().to_string()),
        }
    }
    out.push(')');
    Ok(out)
}

fn literal(value: &ScalarValue, metadata: Option<std::collections::HashMap<String, String>>) -> String {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            shorten(text, value)
        }
        ScalarValue::FixedSizeList(list) if list.value_length() as usize > LITERAL_DIMS_MAX => {
            let head = list.as_ref().slice(0, list.len().min(1));
            let mut text = String::from("[");
            if let Some(ty) = VectorType::of(list.data_type(), &std::collections::HashMap::new())
                && head.is_valid(0)
            {
                let few = VectorType { dims: 3, ..ty };
                let values = head.value(0).slice(0, 3);
                if let Ok(cell) = first_values(values, few) {
                    text = cell;
                }
            }
            format!("{}...#{:08x}]", text.trim_end_matches(']'), digest(value))
        }
        ScalarValue::FixedSizeList(_) | ScalarValue::FixedSizeBinary(..) | ScalarValue::Struct(_) => {
            let text = value.to_array().ok().and_then(|array| {
                let ty = VectorType::of(array.data_type(), &metadata.unwrap_or_default())?;
                let mut text = String::new();
                (array.is_valid(0) && write_cell(&array, ty, 0, &mut text).is_ok()).then_some(text)
            });
            text.map_or_else(|| shorten(&value.to_string(), value), |text| shorten(&text, value))
        }
        other => Expr::Literal(other.clone(), None).schema_name().to_string(),
    }
}

fn first_values(values: arrow::array::ArrayRef, ty: VectorType) -> mvvd_core::Result<String> {
    let field = std::sync::Arc::new(arrow::datatypes::Field::new_list_field(values.data_type().clone(), true));
    let list = arrow::array::FixedSizeListArray::try_new(field, ty.dims as i32, values, None)?;
    let mut text = String::new();
    write_cell(&list, ty, 0, &mut text)?;
    Ok(text)
}

fn shorten(text: &str, value: &ScalarValue) -> String {
    // Bytes are at least as many as characters.
    if text.len() <= LITERAL_CHARS_MAX || text.chars().nth(LITERAL_CHARS_MAX).is_none() {
        return text.to_owned();
    }
    let end = text.char_indices().nth(LITERAL_CHARS_KEPT).map_or(text.len(), |(end, _)| end);
    format!("{}...#{:08x}", &text[..end], digest(value))
}

fn digest(value: &ScalarValue) -> u32 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    let hash = hasher.finish();
    (hash ^ (hash >> 32)) as u32
}
