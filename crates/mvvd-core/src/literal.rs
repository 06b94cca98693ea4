//! Vector values as text: pgvector's syntax, read straight into numbers and written back.

use std::fmt::Write as _;

use crate::error::{Error, Result};
use crate::vector_type::{DIMS_MAX, SPARSE_DIMS_MAX, SPARSE_ENTRIES_MAX, VectorType};

/// Longest part of a bad literal that a message repeats, in characters.
const QUOTE_CHARS_MAX: usize = 60;

/// A sparse vector as read from text or lists: indices from 0, ascending, no zero values.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseLiteral {
    /// Number of dimensions.
    pub dims: usize,
    /// Positions of the entries, from 0, ascending.
    pub indices: Vec<u32>,
    /// The value at each position.
    pub values: Vec<f32>,
}

/// Appends the numbers of `[1,2,3]` to `out`; spaces are allowed around numbers. Returns how many.
///
/// An error leaves `out` as long as it was. Cost: one pass, no allocation beyond `out`.
pub fn parse_dense(text: &str, out: &mut Vec<f32>) -> Result<usize> {
    let start = out.len();
    let result = parse_dense_into(text, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn parse_dense_into(text: &str, out: &mut Vec<f32>) -> Result<usize> {
    let start = out.len();
    let body = text.trim();
    let Some(body) = body.strip_prefix('[') else {
        return Err(malformed("vector", text, "it must start with \"[\""));
    };
    let Some(body) = body.strip_suffix(']') else {
        return Err(malformed("vector", text, "it must end with \"]\""));
    };
    if body.trim().is_empty() {
        return Err(Error::invalid("vector must have at least 1 dimension"));
    }
    for item in body.split(',') {
        if out.len() - start == DIMS_MAX {
            return Err(Error::invalid(format!("vector cannot have more than {DIMS_MAX} dimensions")));
        }
        out.push(parse_number("vector", text, item)?);
    }
    Ok(out.len() - start)
}

/// Reads `{1:0.5,7:2}/10`: positions count from 1, in any order; zero values are dropped.
pub fn parse_sparse(text: &str) -> Result<SparseLiteral> {
    let body = text.trim();
    let Some(body) = body.strip_prefix('{') else {
        return Err(malformed("sparsevec", text, "it must start with \"{\""));
    };
    let Some((entries, dims)) = body.rsplit_once('}') else {
        return Err(malformed("sparsevec", text, "it must end with \"}/dimensions\""));
    };
    let Some(dims) = dims.trim_start().strip_prefix('/') else {
        return Err(malformed("sparsevec", text, "it must end with \"}/dimensions\""));
    };
    let dims: i64 = dims
        .trim()
        .parse()
        .map_err(|_| malformed("sparsevec", text, "the number of dimensions after \"/\" is not a whole number"))?;
    if dims < 1 {
        return Err(Error::invalid("sparsevec must have at least 1 dimension"));
    }
    if dims as u64 > SPARSE_DIMS_MAX as u64 {
        return Err(Error::invalid(format!("sparsevec cannot have more than {SPARSE_DIMS_MAX} dimensions")));
    }
    let mut pairs = Vec::new();
    if !entries.trim().is_empty() {
        for entry in entries.split(',') {
            if pairs.len() == SPARSE_ENTRIES_MAX {
                return Err(Error::invalid(format!(
                    "sparsevec cannot have more than {SPARSE_ENTRIES_MAX} non-zero elements"
                )));
            }
            let Some((index, value)) = entry.split_once(':') else {
                return Err(malformed("sparsevec", text, "each entry is written position:value"));
            };
            let index: i64 = index.trim().parse().map_err(|_| {
                malformed("sparsevec", text, &format!("\"{}\" is not a position", shorten(index.trim())))
            })?;
            pairs.push((index, parse_number("sparsevec", text, value)?));
        }
    }
    sparse_from_pairs(pairs, dims as usize, 1)
}

/// Sorts and checks sparse entries whose positions count from `base` (0 or 1); zero values are dropped.
pub fn sparse_from_pairs(mut pairs: Vec<(i64, f32)>, dims: usize, base: i64) -> Result<SparseLiteral> {
    for &(index, value) in &pairs {
        if index < base || index.saturating_sub(base) as u64 >= dims as u64 {
            return Err(Error::invalid(format!(
                "sparsevec position {index} is out of bounds, expected {base} to {}",
                dims as i64 - 1 + base
            )));
        }
        check_finite("sparsevec", value)?;
    }
    pairs.retain(|&(_, value)| value != 0.0);
    if pairs.len() > SPARSE_ENTRIES_MAX {
        return Err(Error::invalid(format!("sparsevec cannot have more than {SPARSE_ENTRIES_MAX} non-zero elements")));
    }
    pairs.sort_by_key(|&(index, _)| index);
    if let Some(pair) = pairs.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::invalid(format!("sparsevec positions must not repeat, got {} twice", pair[0].0)));
    }
    Ok(SparseLiteral {
        dims,
        indices: pairs.iter().map(|&(index, _)| (index - base) as u32).collect(),
        values: pairs.iter().map(|&(_, value)| value).collect(),
    })
}

/// Appends the bits of `1011` to `out`, the first in the highest bit of the first byte, and returns how many.
pub fn parse_bits(text: &str, out: &mut Vec<u8>) -> Result<usize> {
    let body = text.trim();
    if body.is_empty() {
        return Err(Error::invalid("bitvec must have at least 1 dimension"));
    }
    if body.len() > DIMS_MAX {
        return Err(Error::invalid(format!("bitvec cannot have more than {DIMS_MAX} dimensions")));
    }
    if let Some(bad) = body.chars().find(|c| !matches!(c, '0' | '1')) {
        return Err(malformed("bitvec", text, &format!("{bad:?} is not 0 or 1")));
    }
    for byte in body.as_bytes().chunks(8) {
        out.push(byte.iter().enumerate().fold(0, |bits, (i, c)| bits | ((c - b'0') << (7 - i))));
    }
    Ok(body.len())
}

/// Says no to NaN and infinity.
pub fn check_finite(type_name: &str, value: f32) -> Result<()> {
    if value.is_nan() {
        return Err(Error::invalid(format!("NaN not allowed in {type_name}")));
    }
    if value.is_infinite() {
        return Err(Error::invalid(format!("infinite value not allowed in {type_name}")));
    }
    Ok(())
}

/// The error for two vectors that cannot be compared.
pub fn different_dims(left: usize, right: usize) -> Error {
    Error::invalid(format!("different vector dimensions {left} and {right}"))
}

/// The error for a value that does not fit a column or cast of type `ty`.
pub fn wrong_dims(ty: VectorType, got: usize) -> Error {
    Error::invalid(format!("expected {} dimensions, not {got}", ty.dims))
}

/// Writes `[1,2,3]`: the shortest digits that read back as the same number.
pub fn write_dense(values: impl IntoIterator<Item = f32>, out: &mut String) {
    out.push('[');
    for (i, value) in values.into_iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_number(value, out);
    }
    out.push(']');
}

/// Writes `{1:0.5,7:2}/10`, positions from 1.
pub fn write_sparse(indices: &[u32], values: &[f32], dims: usize, out: &mut String) {
    out.push('{');
    for (i, (index, value)) in indices.iter().zip(values).enumerate() {
        if i > 0 {
            out.push(',');
        }
        write!(out, "{}:", u64::from(*index) + 1).expect("a String takes every write");
        write_number(*value, out);
    }
    write!(out, "}}/{dims}").expect("a String takes every write");
}

/// Writes the first `dims` bits, highest bit of each byte first.
pub fn write_bits(bytes: &[u8], dims: usize, out: &mut String) {
    out.extend((0..dims).map(|i| if bytes[i / 8] >> (7 - i % 8) & 1 == 1 { '1' } else { '0' }));
}

/// Writes one number as PostgreSQL does: shortest digits, an exponent only for very large and very small values.
pub fn write_number(value: f32, out: &mut String) {
    let size = value.abs();
    let result = if size == 0.0 {
        out.push('0');
        Ok(())
    } else if (1e-4..1e15).contains(&size) {
        write!(out, "{value}")
    } else {
        let digits = format!("{value:e}");
        let (mantissa, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(rest) => ('-', rest),
            None => ('+', exponent),
        };
        write!(out, "{mantissa}e{sign}{exponent:0>2}")
    };
    result.expect("a String takes every write");
}

fn parse_number(type_name: &str, text: &str, item: &str) -> Result<f32> {
    let item = item.trim();
    let Ok(value) = item.parse::<f32>() else {
        let why = if item.is_empty() {
            "a number is missing".to_owned()
        } else {
            format!("\"{}\" is not a number", shorten(item))
        };
        return Err(malformed(type_name, text, &why));
    };
    if value.is_infinite() && item.contains(|c: char| c.is_ascii_digit()) {
        return Err(Error::invalid(format!("\"{}\" is out of range for type {type_name}", shorten(item))));
    }
    check_finite(type_name, value)?;
    Ok(value)
}

fn malformed(type_name: &str, text: &str, why: &str) -> Error {
    Error::invalid(format!("invalid input syntax for type {type_name}: \"{}\": {why}", shorten(text)))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn dense(text: &str) -> Result<Vec<f32>> {
        let mut out = vec![9.0];
        let result = parse_dense(text, &mut out);
        match result {
            Ok(n) => {
                assert_eq!(n + 1, out.len());
                Ok(out.split_off(1))
            }
            Err(e) => {
                assert_eq!(out, [9.0], "an error leaves nothing behind");
                Err(e)
            }
        }
    }

    #[track_caller]
    fn fails<T: std::fmt::Debug>(result: Result<T>, message: &str) {
        assert_eq!(result.expect_err("must fail").to_string(), message);
    }

    #[test]
    fn dense_literals() {
        assert_eq!(dense("[1,2,3]").unwrap(), [1.0, 2.0, 3.0]);
        assert_eq!(dense("  [ 1 ,\t-2.5e1, .5 ]\n").unwrap(), [1.0, -25.0, 0.5]);
        fails(dense("1,2"), "invalid input syntax for type vector: \"1,2\": it must start with \"[\"");
        fails(dense("[1,2"), "invalid input syntax for type vector: \"[1,2\": it must end with \"]\"");
        fails(dense("[]"), "vector must have at least 1 dimension");
        fails(dense("[1,,2]"), "invalid input syntax for type vector: \"[1,,2]\": a number is missing");
        fails(dense("[1,x]"), "invalid input syntax for type vector: \"[1,x]\": \"x\" is not a number");
        fails(dense("[1,[2]]"), "invalid input syntax for type vector: \"[1,[2]]\": \"[2]\" is not a number");
        fails(dense("[NaN]"), "NaN not allowed in vector");
        fails(dense("[-inf]"), "infinite value not allowed in vector");
        fails(dense("[1e39]"), "\"1e39\" is out of range for type vector");
        fails(dense(&format!("[{}1]", "1,".repeat(16_000))), "vector cannot have more than 16000 dimensions");
    }

    #[test]
    fn sparse_literals() {
        let v = parse_sparse("{7:2, 1:0.5, 3:0}/10").unwrap();
        assert_eq!(v, SparseLiteral { dims: 10, indices: vec![0, 6], values: vec![0.5, 2.0] });
        assert_eq!(parse_sparse("{}/5").unwrap().indices, Vec::<u32>::new());
        fails(parse_sparse("{0:1}/5"), "sparsevec position 0 is out of bounds, expected 1 to 5");
        fails(parse_sparse("{6:1}/5"), "sparsevec position 6 is out of bounds, expected 1 to 5");
        fails(parse_sparse("{1:1,1:2}/5"), "sparsevec positions must not repeat, got 1 twice");
        fails(parse_sparse("{}/0"), "sparsevec must have at least 1 dimension");
        fails(
            parse_sparse("{1:1}"),
            "invalid input syntax for type sparsevec: \"{1:1}\": it must end with \"}/dimensions\"",
        );
        fails(
            parse_sparse("{1}/5"),
            "invalid input syntax for type sparsevec: \"{1}/5\": each entry is written position:value",
        );
        fails(parse_sparse("{1:nan}/5"), "NaN not allowed in sparsevec");
    }

    #[test]
    fn bit_literals() {
        let mut out = Vec::new();
        assert_eq!(parse_bits("101100001", &mut out).unwrap(), 9);
        assert_eq!(out, [0b1011_0000, 0b1000_0000]);
        fails(parse_bits("102", &mut out), "invalid input syntax for type bitvec: \"102\": '2' is not 0 or 1");
        fails(parse_bits("", &mut out), "bitvec must have at least 1 dimension");
    }

    #[test]
    fn numbers_as_postgres_writes_them() {
        let write = |v| {
            let mut out = String::new();
            write_number(v, &mut out);
            out
        };
        assert_eq!(write(1.0), "1");
        assert_eq!(write(-0.0), "0");
        assert_eq!(write(0.1), "0.1");
        assert_eq!(write(1e-5), "1e-05");
        assert_eq!(write(-1.5e20), "-1.5e+20");
        assert_eq!(write(f32::MAX), "3.4028235e+38");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse_dense(&text, &mut Vec::new());
            let _ = parse_sparse(&text);
            let _ = parse_bits(&text, &mut Vec::new());
        }

        #[test]
        fn near_misses_do_not_panic(text in "[\\[\\]{}:,/0-9eE.+\\- a-z]{0,40}") {
            let _ = parse_dense(&text, &mut Vec::new());
            let _ = parse_sparse(&text);
            let _ = parse_bits(&text, &mut Vec::new());
        }

        #[test]
        fn dense_text_reads_back(values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 1..50)) {
            let mut text = String::new();
            write_dense(values.iter().copied(), &mut text);
            prop_assert_eq!(dense(&text).unwrap(), values);
        }

        #[test]
        fn sparse_text_reads_back(entries in prop::collection::btree_map(0u32..1000, 0.5f32..2.0, 0..20)) {
            let (indices, values): (Vec<u32>, Vec<f32>) = entries.into_iter().unzip();
            let mut text = String::new();
            write_sparse(&indices, &values, 1000, &mut text);
            prop_assert_eq!(parse_sparse(&text).unwrap(), SparseLiteral { dims: 1000, indices, values });
        }
    }
}
