//! How is one value written: as text for people and CSV, or as JSON?

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Float16Type, Float32Type, Float64Type};
use arrow::util::display::{ArrayFormatter, DurationFormat, FormatOptions};
use mvvd_core::convert::{SparseRows, write_cell};
use mvvd_core::vector_type::TYPE_KEY;
use mvvd_core::{Result, VectorKind, VectorType};

/// How much of a vector is shown to people; files always get all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Vectors {
    /// Every value.
    Full,
    /// The first values and the number of dimensions.
    #[default]
    Short,
    /// The type alone.
    Off,
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// As PostgreSQL would print them. Lists and structs are JSON also here.
    Text(Vectors),
    Json,
}

/// Dense vectors of up to this many dimensions are shown whole.
const SHORT_DIMS_WHOLE: usize = 4;
/// Values shown of a longer one.
const SHORT_DIMS_SHOWN: usize = 3;
/// Bit vectors: the same two bounds.
const SHORT_BITS_WHOLE: usize = 32;
const SHORT_BITS_SHOWN: usize = 16;

const TEXT: FormatOptions<'static> = FormatOptions::new()
    .with_display_error(false)
    .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
    .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f%:z"))
    .with_datetime_format(Some("%Y-%m-%d %H:%M:%S%.f"))
    .with_duration_format(DurationFormat::Pretty);
const ISO: FormatOptions<'static> =
    FormatOptions::new().with_display_error(false).with_duration_format(DurationFormat::ISO8601);

/// The columns of a batch, in layouts that can be read cell by cell.
pub(crate) struct Rows {
    fields: Fields,
    columns: Vec<ArrayRef>,
    len: usize,
}

impl Rows {
    pub(crate) fn of(batch: &RecordBatch) -> Result<Self> {
        let columns = batch.columns().iter().map(decoded).collect::<Result<_>>()?;
        Ok(Self { fields: batch.schema().fields().clone(), columns, len: batch.num_rows() })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The columns, ready to be written in `style`.
    pub(crate) fn columns(&self, style: Style) -> Result<Vec<Column<'_>>> {
        self.columns.iter().zip(&self.fields).map(|(array, field)| Column::new(array, field, style)).collect()
    }
}

/// Dictionary and run-end encoded columns as plain ones.
fn decoded(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Dictionary(_, value) => decoded(&cast(array, value)?),
        DataType::RunEndEncoded(_, value) => decoded(&cast(array, value.data_type())?),
        _ => Ok(Arc::clone(array)),
    }
}

/// Whether values of this type are numbers, which are aligned on the right and never cut.
pub(crate) fn is_number(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, value) => is_number(value),
        DataType::RunEndEncoded(_, value) => is_number(value.data_type()),
        other => other.is_numeric(),
    }
}

/// One column of a batch.
pub(crate) struct Column<'a> {
    nulls: Option<NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Vector {
        array: &'a dyn Array,
        ty: VectorType,
        style: Style,
    },
    Float {
        array: &'a dyn Array,
        json: bool,
    },
    Text {
        array: &'a dyn Array,
        json: bool,
    },
    /// Text that is JSON already.
    Json(&'a dyn Array),
    Bytes {
        array: &'a dyn Array,
        quote: bool,
    },
    Uuid {
        array: &'a dyn Array,
        quote: bool,
    },
    List {
        starts: Starts<'a>,
        items: Box<Column<'a>>,
    },
    Map {
        offsets: &'a [i32],
        keys: Box<Column<'a>>,
        values: Box<Column<'a>>,
    },
    Struct(Vec<(String, Column<'a>)>),
    /// Whatever Arrow prints; quoted if it is no JSON value by itself.
    Other {
        formatter: ArrayFormatter<'a>,
        quote: bool,
    },
}

enum Starts<'a> {
    Small(&'a [i32]),
    Large(&'a [i64]),
    Fixed(usize),
}

impl<'a> Column<'a> {
    fn new(array: &'a dyn Array, field: &Field, style: Style) -> Result<Self> {
        Ok(Self { nulls: array.logical_nulls(), values: Values::new(array, field, style)? })
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends the value, which must not be NULL.
    pub(crate) fn write(&self, row: usize, out: &mut String) -> Result<()> {
        self.values.write(row, out)
    }

    /// Appends the value, or `null`: for JSON.
    pub(crate) fn write_json(&self, row: usize, out: &mut String) -> Result<()> {
        if self.is_null(row) {
            out.push_str("null");
            return Ok(());
        }
        self.write(row, out)
    }
}

impl<'a> Values<'a> {
    fn new(array: &'a dyn Array, field: &Field, style: Style) -> Result<Self> {
        let json = style == Style::Json;
        if let Some(ty) = VectorType::of_field(field) {
            return Ok(Self::Vector { array, ty, style });
        }
        let nested = |array: &'a ArrayRef, field: &Field| Column::new(array, field, Style::Json).map(Box::new);
        Ok(match array.data_type() {
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Self::Float { array, json },
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if json && is_json(field) => Self::Json(array),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text { array, json },
            DataType::FixedSizeBinary(16) if is_uuid(field) => Self::Uuid { array, quote: json },
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Bytes { array, quote: json }
            }
            DataType::List(item) => {
                let list = array.as_list::<i32>();
                Self::List { starts: Starts::Small(list.value_offsets()), items: nested(list.values(), item)? }
            }
            DataType::LargeList(item) => {
                let list = array.as_list::<i64>();
                Self::List { starts: Starts::Large(list.value_offsets()), items: nested(list.values(), item)? }
            }
            DataType::FixedSizeList(item, width) => {
                let items = nested(array.as_fixed_size_list().values(), item)?;
                Self::List { starts: Starts::Fixed(usize::try_from(*width).unwrap_or(0)), items }
            }
            DataType::Map(_, _) => {
                let map = array.as_map();
                let (key_field, value_field) = map.entries_fields();
                // JSON object keys are strings: the text of the key, quoted when written.
                let keys = Box::new(Column::new(map.keys(), key_field, Style::Text(Vectors::Full))?);
                Self::Map { offsets: map.value_offsets(), keys, values: nested(map.values(), value_field)? }
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns().iter().zip(fields);
                let column = |(array, field): (&'a ArrayRef, &Arc<Field>)| {
                    Ok((field.name().clone(), Column::new(array, field, Style::Json)?))
                };
                Self::Struct(columns.map(column).collect::<Result<_>>()?)
            }
            other => {
                let formatter = ArrayFormatter::try_new(array, if json { &ISO } else { &TEXT })?;
                let bare =
                    other.is_integer() || other.is_decimal() || matches!(other, DataType::Boolean | DataType::Null);
                Self::Other { formatter, quote: json && !bare }
            }
        })
    }

    fn write(&self, row: usize, out: &mut String) -> Result<()> {
        match self {
            Self::Vector { array, ty, style: Style::Text(vectors) } => write_vector(*array, *ty, row, *vectors, out)?,
            Self::Vector { array, ty, style: Style::Json } => match ty.kind {
                VectorKind::Dense | VectorKind::Half => {
                    let values = array.as_fixed_size_list().value(row);
                    write_list(out, 0..ty.dims, |i, out| {
                        push_float_json(float(&*values, i), out);
                        Ok(())
                    })?;
                }
                VectorKind::Bit | VectorKind::Sparse => {
                    out.push('"');
                    write_cell(*array, *ty, row, out)?;
                    out.push('"');
                }
            },
            Self::Float { array, json: true } => push_float_json(float(*array, row), out),
            Self::Float { array, json: false } => push_float(float(*array, row), out),
            Self::Text { array, json: true } => push_json_string(text(*array, row), out),
            Self::Text { array, json: false } => out.push_str(text(*array, row)),
            Self::Json(array) => push_json_document(text(*array, row), out),
            Self::Bytes { array, quote } => {
                // A backslash has to be escaped in JSON.
                out.push_str(if *quote { "\"\\\\x" } else { "\\x" });
                for byte in bytes(*array, row) {
                    let _ = write!(out, "{byte:02x}");
                }
                out.push_str(if *quote { "\"" } else { "" });
            }
            Self::Uuid { array, quote } => {
                let mark = if *quote { "\"" } else { "" };
                out.push_str(mark);
                for (i, byte) in bytes(*array, row).iter().enumerate() {
                    out.push_str(if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" });
                    let _ = write!(out, "{byte:02x}");
                }
                out.push_str(mark);
            }
            Self::List { starts, items } => {
                let range = match starts {
                    Starts::Small(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
                    Starts::Large(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
                    Starts::Fixed(width) => row * width..(row + 1) * width,
                };
                write_list(out, range, |i, out| items.write_json(i, out))?;
            }
            Self::Map { offsets, keys, values } => {
                let entries = offsets[row] as usize..offsets[row + 1] as usize;
                let mut key = String::new();
                write_object(out, entries, |i, out| {
                    key.clear();
                    keys.write(i, &mut key)?;
                    push_json_string(&key, out);
                    out.push(':');
                    values.write_json(i, out)
                })?;
            }
            Self::Struct(columns) => write_object(out, columns.iter(), |(name, column), out| {
                push_json_string(name, out);
                out.push(':');
                column.write_json(row, out)
            })?,
            Self::Other { formatter, quote: false } => formatter.value(row).write(out)?,
            Self::Other { formatter, quote: true } => push_json_string(&formatter.value(row).try_to_string()?, out),
        }
        Ok(())
    }
}

/// A vector as text for people; `Full` is what casts to TEXT and CSV files have.
fn write_vector(array: &dyn Array, ty: VectorType, row: usize, vectors: Vectors, out: &mut String) -> Result<()> {
    match (vectors, ty.kind) {
        (Vectors::Full, _) => write_cell(array, ty, row, out)?,
        (Vectors::Off, kind) => {
            let _ = write!(out, "{}({})", kind.name(), ty.dims);
        }
        (Vectors::Short, VectorKind::Dense | VectorKind::Half) if ty.dims > SHORT_DIMS_WHOLE => {
            let values = array.as_fixed_size_list().value(row);
            out.push('[');
            for i in 0..SHORT_DIMS_SHOWN {
                push_short(float(&*values, i), out);
                out.push_str(", ");
            }
            let _ = write!(out, "… {}]", ty.dims);
        }
        (Vectors::Short, VectorKind::Bit) if ty.dims > SHORT_BITS_WHOLE => {
            let mut bits = String::new();
            write_cell(array, ty, row, &mut bits)?;
            let _ = write!(out, "{}… {}", &bits[..SHORT_BITS_SHOWN], ty.dims);
        }
        (Vectors::Short, VectorKind::Sparse) => {
            let rows = SparseRows::of(array.as_struct())?;
            let (indices, values) = rows.get(row)?;
            if indices.len() <= SHORT_DIMS_WHOLE {
                return write_cell(array, ty, row, out);
            }
            out.push('{');
            for (index, value) in indices.iter().zip(values).take(SHORT_DIMS_SHOWN) {
                // Text counts from 1, as pgvector does.
                let _ = write!(out, "{}:", u64::from(*index) + 1);
                push_short(f64::from(*value), out);
                out.push_str(", ");
            }
            let _ = write!(out, "… {}}}/{}", indices.len(), ty.dims);
        }
        (Vectors::Short, _) => write_cell(array, ty, row, out)?,
    }
    Ok(())
}

fn write_list<T>(
    out: &mut String,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(T, &mut String) -> Result<()>,
) -> Result<()> {
    out.push('[');
    for (i, item) in items.enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        write(item, out)?;
    }
    out.push(']');
    Ok(())
}

fn write_object<T>(
    out: &mut String,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(T, &mut String) -> Result<()>,
) -> Result<()> {
    out.push('{');
    for (i, item) in items.enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        write(item, out)?;
    }
    out.push('}');
    Ok(())
}

/// Floats of any width that fit a column of it: the shortest text that reads back as the same value.
#[derive(Clone, Copy)]
struct Float {
    value: f64,
    single: bool,
}

impl From<f64> for Float {
    fn from(value: f64) -> Self {
        Self { value, single: false }
    }
}

fn float(array: &dyn Array, row: usize) -> Float {
    match array.data_type() {
        DataType::Float16 => {
            Float { value: f64::from(array.as_primitive::<Float16Type>().value(row).to_f32()), single: true }
        }
        DataType::Float32 => Float { value: f64::from(array.as_primitive::<Float32Type>().value(row)), single: true },
        _ => array.as_primitive::<Float64Type>().value(row).into(),
    }
}

impl Float {
    fn write(self, out: &mut String) {
        // Debug is the shortest form that reads back, with an exponent where that is shorter.
        let _ = match self.single {
            true => write!(out, "{:?}", self.value as f32),
            false => write!(out, "{:?}", self.value),
        };
    }
}

/// As PostgreSQL prints it: `1`, `0.5`, `1e300`, `NaN`, `-Infinity`.
fn push_float(float: Float, out: &mut String) {
    if float.value.is_infinite() {
        out.push_str(if float.value > 0.0 { "Infinity" } else { "-Infinity" });
        return;
    }
    float.write(out);
    if out.ends_with(".0") {
        out.truncate(out.len() - 2);
    }
}

/// `1.0` keeps its point, so that readers see a float; JSON has no word for what is not finite.
fn push_float_json(float: Float, out: &mut String) {
    if float.value.is_finite() {
        float.write(out);
    } else {
        out.push_str("null");
    }
}

/// About four significant digits, enough to tell vectors apart.
fn push_short(float: impl Into<Float>, out: &mut String) {
    let float = float.into();
    let size = float.value.abs();
    if size != 0.0 && !(1e-4..1e5).contains(&size) {
        let _ = write!(out, "{:.2e}", float.value);
        return;
    }
    let digits = if size >= 100.0 { 1 } else { 4 };
    let text = format!("{:.digits$}", float.value);
    out.push_str(text.trim_end_matches('0').trim_end_matches('.'));
}

fn text(array: &dyn Array, row: usize) -> &str {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row),
        _ => array.as_string_view().value(row),
    }
}

fn bytes(array: &dyn Array, row: usize) -> &[u8] {
    match array.data_type() {
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        DataType::BinaryView => array.as_binary_view().value(row),
        _ => array.as_fixed_size_binary().value(row),
    }
}

fn marked(field: &Field, extension: &str, names: &[&str]) -> bool {
    field.extension_type_name() == Some(extension)
        || field.metadata().get(TYPE_KEY).is_some_and(|ty| names.iter().any(|name| name.eq_ignore_ascii_case(ty)))
}

fn is_uuid(field: &Field) -> bool {
    marked(field, "arrow.uuid", &["UUID"])
}

fn is_json(field: &Field) -> bool {
    marked(field, "arrow.json", &["JSON", "JSONB"])
}

/// Appends `text` as a JSON string.
pub(crate) fn push_json_string(text: &str, out: &mut String) {
    // Text always has a JSON form, so the other arm is never taken.
    match serde_json::to_string(text) {
        Ok(json) => out.push_str(&json),
        Err(_) => out.push_str("null"),
    }
}

/// Appends a JSON document as it is, or as a string if it is none. Line ends would break NDJSON.
fn push_json_document(text: &str, out: &mut String) {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(_) if !text.contains('\n') => out.push_str(text.trim()),
        _ => push_json_string(text, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Float16Array,
        Float32Array, Float64Array, Int32Builder, Int64Array, IntervalMonthDayNanoArray, ListArray, MapBuilder,
        NullArray, StringArray, StringBuilder, StringViewArray, StructArray, TimestampMicrosecondArray, UInt64Array,
    };
    use arrow::datatypes::{Int32Type, IntervalMonthDayNano, Schema};
    use mvvd_core::convert::to_vectors;
    use std::collections::HashMap;

    fn cells(array: ArrayRef, field: Field, style: Style) -> Vec<String> {
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![array]).unwrap();
        let rows = Rows::of(&batch).unwrap();
        let columns = rows.columns(style).unwrap();
        let cell = |row| {
            let mut out = String::new();
            match style {
                Style::Json => columns[0].write_json(row, &mut out).unwrap(),
                Style::Text(_) if columns[0].is_null(row) => out.push_str("(null)"),
                Style::Text(_) => columns[0].write(row, &mut out).unwrap(),
            }
            out
        };
        (0..rows.len()).map(cell).collect()
    }

    #[track_caller]
    fn check(array: impl Array + 'static, text: &[&str], json: &[&str]) {
        check_field(Field::new("c", array.data_type().clone(), true), array, text, json);
    }

    #[track_caller]
    fn check_field(field: Field, array: impl Array + 'static, text: &[&str], json: &[&str]) {
        let array: ArrayRef = Arc::new(array);
        assert_eq!(cells(Arc::clone(&array), field.clone(), Style::Text(Vectors::Full)), text, "text");
        assert_eq!(cells(Arc::clone(&array), field, Style::Json), json, "json");
    }

    #[test]
    fn numbers_are_exact() {
        check(
            Int64Array::from(vec![Some(i64::MIN), None]),
            &["-9223372036854775808", "(null)"],
            &["-9223372036854775808", "null"],
        );
        check(UInt64Array::from(vec![u64::MAX]), &["18446744073709551615"], &["18446744073709551615"]);
        let decimals = Decimal128Array::from(vec![1230, -5]).with_precision_and_scale(38, 2).unwrap();
        check(decimals, &["12.30", "-0.05"], &["12.30", "-0.05"]);
    }

    #[test]
    fn floats_are_the_shortest_that_read_back() {
        check(
            Float64Array::from(vec![1.0, 0.1, 1e300, -0.0, 1e15, 1e16, 1e-5]),
            &["1", "0.1", "1e300", "-0", "1000000000000000", "1e16", "1e-5"],
            &["1.0", "0.1", "1e300", "-0.0", "1000000000000000.0", "1e16", "1e-5"],
        );
        check(Float32Array::from(vec![0.1, 16_777_216.0]), &["0.1", "16777216"], &["0.1", "16777216.0"]);
        check(Float16Array::from(vec![half::f16::from_f32(0.5)]), &["0.5"], &["0.5"]);
        check(
            Float64Array::from(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
            &["NaN", "Infinity", "-Infinity"],
            &["null", "null", "null"],
        );
    }

    #[test]
    fn text_and_bytes() {
        check(
            StringArray::from(vec![Some("a\"b\n"), None, Some("")]),
            &["a\"b\n", "(null)", ""],
            &[r#""a\"b\n""#, "null", r#""""#],
        );
        check(StringViewArray::from(vec!["żółw 🐢"]), &["żółw 🐢"], &["\"żółw 🐢\""]);
        check(BinaryArray::from(vec![&[0u8, 255][..]]), &["\\x00ff"], &[r#""\\x00ff""#]);
        check(BooleanArray::from(vec![true, false]), &["true", "false"], &["true", "false"]);
        check(NullArray::new(1), &["(null)"], &["null"]);
        let words: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
        check(words, &["a", "(null)", "a"], &["\"a\"", "null", "\"a\""]);
    }

    #[test]
    fn json_and_uuid_fields_are_known_by_their_metadata() {
        let json = Field::new("j", DataType::Utf8, true)
            .with_metadata(HashMap::from([("ARROW:extension:name".to_owned(), "arrow.json".to_owned())]));
        check_field(
            json,
            StringArray::from(vec![r#"{"a": 1}"#, "not json"]),
            &[r#"{"a": 1}"#, "not json"],
            &[r#"{"a": 1}"#, "\"not json\""],
        );
        let uuid = Field::new("u", DataType::FixedSizeBinary(16), true)
            .with_metadata(HashMap::from([(TYPE_KEY.to_owned(), "UUID".to_owned())]));
        let bytes: Vec<u8> = (0x10..0x20).collect();
        let ids = FixedSizeBinaryArray::try_from_iter([bytes].into_iter()).unwrap();
        let text = "10111213-1415-1617-1819-1a1b1c1d1e1f";
        check_field(uuid, ids, &[text], &[&format!("\"{text}\"")]);
    }

    #[test]
    fn dates_and_times() {
        check(Date32Array::from(vec![0, 19_723]), &["1970-01-01", "2024-01-01"], &["\"1970-01-01\"", "\"2024-01-01\""]);
        let at = || TimestampMicrosecondArray::from(vec![1_704_067_199_500_000]);
        check(at(), &["2023-12-31 23:59:59.500"], &["\"2023-12-31T23:59:59.500\""]);
        check(at().with_timezone("+00:00"), &["2023-12-31 23:59:59.500+00:00"], &["\"2023-12-31T23:59:59.500Z\""]);
        let day = IntervalMonthDayNano::new(1, 2, 0);
        check(IntervalMonthDayNanoArray::from(vec![day]), &["1 mons 2 days"], &["\"1 mons 2 days\""]);
    }

    #[test]
    fn lists_structs_and_maps_are_json_everywhere() {
        let lists =
            ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None, Some(vec![])]);
        check(lists.clone(), &["[1,null]", "(null)", "[]"], &["[1,null]", "null", "[]"]);
        check(lists.slice(1, 2), &["(null)", "[]"], &["null", "[]"]);

        let name = Arc::new(Field::new("na\"me", DataType::Utf8, true));
        let day = Arc::new(Field::new("day", DataType::Date32, true));
        let rows = StructArray::from(vec![
            (name, Arc::new(StringArray::from(vec![Some("x"), None])) as ArrayRef),
            (day, Arc::new(Date32Array::from(vec![0, 1])) as ArrayRef),
        ]);
        let expected = [r#"{"na\"me":"x","day":"1970-01-01"}"#, r#"{"na\"me":null,"day":"1970-01-02"}"#];
        check(rows, &expected, &expected);

        let mut maps = MapBuilder::new(None, Int32Builder::new(), StringBuilder::new());
        maps.keys().append_value(7);
        maps.values().append_value("seven");
        maps.append(true).unwrap();
        maps.append(false).unwrap();
        check(maps.finish(), &[r#"{"7":"seven"}"#, "(null)"], &[r#"{"7":"seven"}"#, "null"]);
    }

    #[track_caller]
    fn check_vector(ty: &str, literal: &str, full: &str, short: &str, off: &str, json: &str) {
        let ty = VectorType::parse(ty).unwrap();
        let array = to_vectors(&StringArray::from(vec![Some(literal), None]), None, ty).unwrap();
        for (style, expected) in [
            (Style::Text(Vectors::Full), full),
            (Style::Text(Vectors::Short), short),
            (Style::Text(Vectors::Off), off),
            (Style::Json, json),
        ] {
            let null = if style == Style::Json { "null" } else { "(null)" };
            assert_eq!(cells(Arc::clone(&array), ty.field("v", true), style), [expected, null], "{style:?}");
        }
    }

    #[test]
    fn vectors_whole_short_and_off() {
        check_vector("VECTOR(3)", "[1,2.5,-3]", "[1,2.5,-3]", "[1,2.5,-3]", "vector(3)", "[1.0,2.5,-3.0]");
        check_vector(
            "VECTOR(6)",
            "[0.123456,-0.03,0,4,5,6]",
            "[0.123456,-0.03,0,4,5,6]",
            "[0.1235, -0.03, 0, … 6]",
            "vector(6)",
            "[0.123456,-0.03,0.0,4.0,5.0,6.0]",
        );
        check_vector("HALFVEC(2)", "[0.5,2]", "[0.5,2]", "[0.5,2]", "halfvec(2)", "[0.5,2.0]");
        check_vector("BITVEC(4)", "0101", "0101", "0101", "bitvec(4)", "\"0101\"");
        let bits = "01".repeat(20);
        check_vector("BITVEC(40)", &bits, &bits, "0101010101010101… 40", "bitvec(40)", &format!("\"{bits}\""));
        check_vector("SPARSEVEC(9)", "{2:1.5}/9", "{2:1.5}/9", "{2:1.5}/9", "sparsevec(9)", "\"{2:1.5}/9\"");
        let sparse = "{1:1,2:2,3:3,5:4,6:5}/9";
        check_vector(
            "SPARSEVEC(9)",
            sparse,
            sparse,
            "{1:1, 2:2, 3:3, … 5}/9",
            "sparsevec(9)",
            &format!("\"{sparse}\""),
        );
    }

    #[test]
    fn short_numbers() {
        let short = |value: f64| {
            let mut out = String::new();
            push_short(value, &mut out);
            out
        };
        let got = [0.0, 1.0, -0.033333, 1234.5678, 0.000012, 1e20, 99.99999].map(short);
        assert_eq!(got, ["0", "1", "-0.0333", "1234.6", "1.20e-5", "1.00e20", "100"]);
    }
}
