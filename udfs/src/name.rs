//! Column names and plan text of vector functions: literals are cut short, so that a name costs the same for any query.

use std::fmt::Write as _;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float16Type, Float32Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{Cast, Expr};
use mvvd_core::VectorType;

use crate::operand::text_of;

/// Longest literal that a name repeats whole, in characters.
const LITERAL_CHARS_MAX: usize = 60;
/// What a name keeps of a longer one.
const LITERAL_CHARS_KEPT: usize = 24;
/// What a name keeps of a bound vector, in values.
const VECTOR_VALUES_KEPT: usize = 3;

/// `name(a,b)`, as DataFusion names a call, with long texts as `[0.1,0.2,...#1f2e3d4c5b6a7988]`.
///
/// The digits stand for the whole text, so that two calls with two queries have two names.
pub(crate) fn call(name: &str, args: &[Expr]) -> Result<String> {
    let mut out = String::with_capacity(name.len() + 64);
    out.push_str(name);
    out.push('(');
    for (i, arg) in args.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        push_name(arg, &mut out)?;
    }
    out.push(')');
    Ok(out)
}

fn push_name(expr: &Expr, out: &mut String) -> Result<()> {
    match expr {
        Expr::Literal(value, _) if let Some(label) = label(value) => out.push_str(&label),
        // DataFusion names a cast after what it casts, so that two casts of one text would be one column.
        Expr::Cast(Cast { expr, field }) if let Some(ty) = VectorType::of_field(field) => {
            push_name(expr, out)?;
            write!(out, "::{ty}")?;
        }
        other => write!(out, "{}", other.schema_name())?,
    }
    Ok(())
}

/// A literal as a name shows it; none if it is neither text nor a vector.
pub(crate) fn label(value: &ScalarValue) -> Option<String> {
    if let Some(text) = text_of(value) {
        return Some(label_of_text(text));
    }
    let ScalarValue::FixedSizeList(list) = value else { return None };
    let values = list.values();
    if list.is_null(0) {
        return None;
    }
    // A bound vector: a few of its values, and a digest of the bytes of all.
    let head = values.slice(0, values.len().min(VECTOR_VALUES_KEPT));
    let (bytes, shown): (&[u8], Vec<String>) = match values.data_type() {
        DataType::Float32 => (
            values.as_primitive::<Float32Type>().values().inner().as_slice(),
            head.as_primitive::<Float32Type>().values().iter().map(ToString::to_string).collect(),
        ),
        DataType::Float16 => (
            values.as_primitive::<Float16Type>().values().inner().as_slice(),
            head.as_primitive::<Float16Type>().values().iter().map(ToString::to_string).collect(),
        ),
        _ => return None,
    };
    let shown = shown.join(",");
    Some(if head.len() == values.len() { format!("[{shown}]") } else { format!("[{shown},...#{:016x}", digest(bytes)) })
}

fn label_of_text(text: &str) -> String {
    let end_of = |chars: usize| text.char_indices().nth(chars).map(|(end, _)| end);
    match end_of(LITERAL_CHARS_MAX).and_then(|_| end_of(LITERAL_CHARS_KEPT)) {
        None => text.to_owned(),
        Some(end) => format!("{}...#{:016x}", &text[..end], digest(text.as_bytes())),
    }
}

/// FNV-1a over eight bytes at a time: fast, and the same in every process.
fn digest(bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let hash = words.chain(rest.iter().map(|&byte| u64::from(byte))).fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| {
        // The product carries upward only, so the high bits are brought back down.
        let mixed = (hash ^ word).wrapping_mul(PRIME);
        mixed ^ (mixed >> 29)
    });
    hash.wrapping_mul(PRIME)
}
