//! Zone maps: between what bounds the values of a block of rows lie.

use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowNumericType, AsArray, BooleanArray, GenericStringArray, OffsetSizeTrait,
    PrimitiveArray, RecordBatch, UInt32Array, downcast_primitive_array,
};
use arrow::compute::{max, max_boolean, max_string, min, min_boolean, min_string};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::ipc::MetadataVersion;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use mvvd_core::Result;

/// Rows of a block; the last block of a segment may have fewer.
pub const BLOCK_ROWS: usize = 8_192;

/// Longest text that is kept as a bound, in bytes.
const BOUND_BYTES_MAX: usize = 32;

/// What is known about one column, a value for each block.
#[derive(Debug, Clone)]
pub struct BlockStats {
    /// At most the smallest value. NULL where there is no value, or where nothing is known: a NaN among the floats.
    ///
    /// Of texts, the first 32 bytes. Zeros are negative, so that the bound holds whether zeros are told apart or not.
    pub min: ArrayRef,
    /// At least the largest value, as `min`. A text that was cut has its last character raised.
    pub max: ArrayRef,
    /// How many values are NULL.
    pub nulls: UInt32Array,
}

/// The zone maps of a segment.
#[derive(Debug, Clone, Default)]
pub struct SegmentStats {
    columns: Vec<(u32, BlockStats)>,
}

impl SegmentStats {
    /// Looks at every value of the columns (by id) whose type has an order: numbers, dates, times, text, booleans.
    pub(super) fn of(columns: &[(u32, FieldRef)], batch: &RecordBatch) -> Self {
        let columns = columns
            .iter()
            .zip(batch.columns())
            .filter_map(|((id, _), array)| {
                let blocks: Vec<ArrayRef> = (0..array.len())
                    .step_by(BLOCK_ROWS)
                    .map(|start| array.slice(start, BLOCK_ROWS.min(array.len() - start)))
                    .collect();
                let (min, max) = bounds(array.data_type(), &blocks)?;
                let nulls = blocks.iter().map(|block| block.null_count() as u32).collect::<Vec<_>>().into();
                Some((*id, BlockStats { min, max, nulls }))
            })
            .collect();
        Self { columns }
    }

    /// What is known about the column with this id, if its type has an order.
    pub fn blocks(&self, column: u32) -> Option<&BlockStats> {
        self.columns.iter().find(|(id, _)| *id == column).map(|(_, stats)| stats)
    }

    /// An Arrow IPC stream of one batch, a row for each block: columns "<id>.min", "<id>.max" and "<id>.nulls".
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut fields = Vec::with_capacity(self.columns.len() * 3);
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(fields.capacity());
        for (id, stats) in &self.columns {
            for (name, array) in
                [("min", &stats.min), ("max", &stats.max), ("nulls", &(Arc::new(stats.nulls.clone()) as _))]
            {
                fields.push(Field::new(format!("{id}.{name}"), array.data_type().clone(), true));
                arrays.push(Arc::clone(array));
            }
        }
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let schema = Arc::new(Schema::new(fields));
        let mut bytes = Vec::new();
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
        let mut writer = StreamWriter::try_new_with_options(&mut bytes, &schema, options)?;
        writer.write(&RecordBatch::try_new(schema, arrays)?)?;
        writer.finish()?;
        drop(writer);
        Ok(bytes)
    }

    /// Reads what [`SegmentStats::to_bytes`] wrote; `None` if it is not that.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(Self::default());
        }
        let batch = StreamReader::try_new(Cursor::new(bytes), None).ok()?.next()?.ok()?;
        let schema = batch.schema();
        let columns = schema
            .fields()
            .chunks_exact(3)
            .zip(batch.columns().chunks_exact(3))
            .map(|(fields, arrays)| {
                let id = fields[0].name().strip_suffix(".min")?.parse().ok()?;
                let nulls = arrays[2].as_primitive_opt()?.clone();
                Some((id, BlockStats { min: Arc::clone(&arrays[0]), max: Arc::clone(&arrays[1]), nulls }))
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { columns })
    }
}

/// Bounds below and above of each block, if the type has an order.
fn bounds(data_type: &DataType, blocks: &[ArrayRef]) -> Option<(ArrayRef, ArrayRef)> {
    if matches!(data_type, DataType::Interval(_)) {
        return None;
    }
    // An array without rows: only its type matters.
    let any = &*arrow::array::new_empty_array(data_type);
    downcast_primitive_array!(
        any => Some(primitive_bounds(any, blocks)),
        DataType::Boolean => {
            let blocks = || blocks.iter().map(|block| block.as_boolean());
            let low: BooleanArray = blocks().map(min_boolean).collect();
            let high: BooleanArray = blocks().map(max_boolean).collect();
            Some((Arc::new(low) as _, Arc::new(high) as _))
        },
        DataType::Utf8 => Some(text_bounds::<i32>(blocks)),
        DataType::LargeUtf8 => Some(text_bounds::<i64>(blocks)),
        _ => None
    )
}

fn primitive_bounds<T: ArrowNumericType>(any: &PrimitiveArray<T>, blocks: &[ArrayRef]) -> (ArrayRef, ArrayRef)
where
    T::Native: ArrowNativeTypeOp,
{
    let zero = T::Native::ZERO;
    let (low, high): (Vec<_>, Vec<_>) = blocks
        .iter()
        .map(|block| {
            let block = block.as_primitive::<T>();
            let (Some(low), Some(high)) = (min(block), max(block)) else { return (None, None) };
            // In the total order of floats, a NaN is the first or the last.
            if low.partial_cmp(&high).is_none() {
                return (None, None);
            }
            let low = if low == zero { zero.neg_wrapping() } else { low };
            let high = if high == zero { zero } else { high };
            (Some(low), Some(high))
        })
        .unzip();
    let array = |values: Vec<Option<T::Native>>| -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::from_iter(values).with_data_type(any.data_type().clone()))
    };
    (array(low), array(high))
}

fn text_bounds<O: OffsetSizeTrait>(blocks: &[ArrayRef]) -> (ArrayRef, ArrayRef) {
    let low: GenericStringArray<O> =
        blocks.iter().map(|block| min_string(block.as_string::<O>()).map(prefix)).collect();
    let high: GenericStringArray<O> =
        blocks.iter().map(|block| max_string(block.as_string::<O>()).and_then(text_above)).collect();
    (Arc::new(low), Arc::new(high))
}

fn prefix(text: &str) -> &str {
    &text[..text.floor_char_boundary(BOUND_BYTES_MAX)]
}

/// A short text that is not less than `text`, unless there is none.
fn text_above(text: &str) -> Option<String> {
    let short = prefix(text);
    if short.len() == text.len() {
        return Some(text.to_owned());
    }
    let (last, c) = short.char_indices().rev().find(|(_, c)| *c != char::MAX)?;
    // The code points between these two stand for no character.
    let next = if c == '\u{d7ff}' { '\u{e000}' } else { char::from_u32(c as u32 + 1)? };
    Some(format!("{}{next}", &short[..last]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float32Array, Int64Array, StringArray, TimestampMillisecondArray};

    fn stats(array: ArrayRef) -> BlockStats {
        let field = Arc::new(Field::new("x", array.data_type().clone(), true));
        let batch = RecordBatch::try_from_iter([("x", array)]).unwrap();
        let stats = SegmentStats::of(&[(7, field)], &batch);
        let stats = SegmentStats::from_bytes(&stats.to_bytes().unwrap()).unwrap();
        assert!(stats.blocks(8).is_none());
        stats.blocks(7).unwrap().clone()
    }

    #[test]
    fn each_block_has_its_bounds() {
        let values = (0..2 * BLOCK_ROWS as i64 + 1).map(|i| (i % 3 > 0).then_some(i));
        let found = stats(Arc::new(Int64Array::from_iter(values)));
        let block = BLOCK_ROWS as i64;
        assert_eq!(found.min.as_primitive(), &Int64Array::from(vec![1, block, 2 * block]));
        assert_eq!(found.max.as_primitive(), &Int64Array::from(vec![block - 1, 2 * block - 2, 2 * block]));
        assert_eq!(found.nulls, UInt32Array::from(vec![2731, 2731, 0]));
        let all_null = stats(Arc::new(Int64Array::from(vec![None, None])));
        assert!(all_null.min.is_null(0) && all_null.max.is_null(0));
        let zoned: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![5, 3]).with_timezone("Europe/Oslo"));
        assert_eq!(stats(Arc::clone(&zoned)).min.data_type(), zoned.data_type());
        assert_eq!(
            stats(Arc::new(BooleanArray::from(vec![true, false]))).max.as_boolean(),
            &BooleanArray::from(vec![true])
        );
    }

    #[test]
    fn floats_are_bounded_for_either_view_of_zero_and_not_by_nan() {
        let bits = |array: &ArrayRef| array.as_primitive::<arrow::datatypes::Float32Type>().value(0).to_bits();
        let zeros = stats(Arc::new(Float32Array::from(vec![0.0, 0.0])));
        assert_eq!((bits(&zeros.min), bits(&zeros.max)), ((-0.0f32).to_bits(), 0.0f32.to_bits()));
        let zeros = stats(Arc::new(Float32Array::from(vec![-0.0])));
        assert_eq!(bits(&zeros.max), 0.0f32.to_bits());
        for nan in [f32::NAN, -f32::NAN] {
            let found = stats(Arc::new(Float32Array::from(vec![1.0, nan, 2.0])));
            assert!(found.min.is_null(0) && found.max.is_null(0));
        }
    }

    #[test]
    fn long_texts_are_cut_outwards() {
        let long = format!("{}é-and-more", "a".repeat(31));
        let found = stats(Arc::new(StringArray::from(vec![long.as_str(), "b"])));
        assert_eq!(found.min.as_string::<i32>().value(0), "a".repeat(31));
        assert_eq!(found.max.as_string::<i32>().value(0), "b");
        assert_eq!(text_above(&long).unwrap(), format!("{}b", "a".repeat(30)));
        let high = char::MAX.to_string();
        assert_eq!(text_above(&format!("a\u{d7ff}{}", high.repeat(20))).unwrap(), "a\u{e000}");
        assert_eq!(text_above(&high.repeat(20)), None);
        assert_eq!(text_above(""), Some(String::new()));
    }
}
