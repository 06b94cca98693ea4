//! Keys: how a value finds its row. Every chunk is sorted by key, so finding a row is a binary search.

use std::fmt;

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use mvvd_core::{Error, Ordinal, Result};

/// One key value. Integers of every width are kept as their 64 bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A signed integer.
    Int(i64),
    /// An unsigned integer.
    UInt(u64),
    /// Text, or a UUID in its canonical form.
    Text(Box<str>),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().fmt(f)
    }
}

impl Key {
    fn as_ref(&self) -> KeyRef<'_> {
        match self {
            Self::Int(v) => KeyRef::Int(i128::from(*v)),
            Self::UInt(v) => KeyRef::Int(i128::from(*v)),
            Self::Text(v) => KeyRef::Text(v),
        }
    }
}

/// The keys of a column, in row order. NULLs are refused.
pub fn keys_of(column: &dyn Array) -> Result<Vec<Key>> {
    if column.null_count() > 0 {
        return Err(Error::invalid("a primary key must not be NULL"));
    }
    match column.data_type() {
        DataType::Utf8 => Ok(column.as_string::<i32>().iter().flatten().map(|v| Key::Text(v.into())).collect()),
        ty if ty.is_unsigned_integer() => {
            let wide = cast(column, &DataType::UInt64)?;
            Ok(wide.as_primitive::<UInt64Type>().values().iter().map(|&v| Key::UInt(v)).collect())
        }
        ty if ty.is_signed_integer() => {
            let wide = cast(column, &DataType::Int64)?;
            Ok(wide.as_primitive::<Int64Type>().values().iter().map(|&v| Key::Int(v)).collect())
        }
        other => Err(Error::internal(format!("{other} is no key type"))),
    }
}

/// A key where it is stored. Integers of all types compare with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KeyRef<'a> {
    Int(i128),
    Text(&'a str),
}

impl fmt::Display for KeyRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(v) => v.fmt(f),
            Self::Text(v) => write!(f, "'{v}'"),
        }
    }
}

/// A key column without NULLs; searched where it is sorted. Nothing is copied.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyColumn<'a> {
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    Text(&'a StringArray),
}

impl<'a> KeyColumn<'a> {
    /// The keys of a column; an error for a NULL, and for a type that no key has.
    pub(crate) fn of(column: &'a dyn Array) -> Result<Self> {
        if column.null_count() > 0 {
            return Err(Error::invalid("a primary key must not be NULL"));
        }
        Ok(match column.data_type() {
            DataType::Int8 => Self::I8(column.as_primitive::<Int8Type>().values()),
            DataType::Int16 => Self::I16(column.as_primitive::<Int16Type>().values()),
            DataType::Int32 => Self::I32(column.as_primitive::<Int32Type>().values()),
            DataType::Int64 => Self::I64(column.as_primitive::<Int64Type>().values()),
            DataType::UInt8 => Self::U8(column.as_primitive::<UInt8Type>().values()),
            DataType::UInt16 => Self::U16(column.as_primitive::<UInt16Type>().values()),
            DataType::UInt32 => Self::U32(column.as_primitive::<UInt32Type>().values()),
            DataType::UInt64 => Self::U64(column.as_primitive::<UInt64Type>().values()),
            DataType::Utf8 => Self::Text(column.as_string::<i32>()),
            other => return Err(Error::internal(format!("{other} is no key type"))),
        })
    }

    pub(crate) fn len(self) -> usize {
        match self {
            Self::I8(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::U8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::Text(v) => v.len(),
        }
    }

    pub(crate) fn at(self, i: usize) -> KeyRef<'a> {
        match self {
            Self::I8(v) => KeyRef::Int(i128::from(v[i])),
            Self::I16(v) => KeyRef::Int(i128::from(v[i])),
            Self::I32(v) => KeyRef::Int(i128::from(v[i])),
            Self::I64(v) => KeyRef::Int(i128::from(v[i])),
            Self::U8(v) => KeyRef::Int(i128::from(v[i])),
            Self::U16(v) => KeyRef::Int(i128::from(v[i])),
            Self::U32(v) => KeyRef::Int(i128::from(v[i])),
            Self::U64(v) => KeyRef::Int(i128::from(v[i])),
            Self::Text(v) => KeyRef::Text(v.value(i)),
        }
    }

    /// Position of `key` in a sorted column. O(log n).
    pub(crate) fn find(self, key: &Key) -> Option<Ordinal> {
        let key = key.as_ref();
        let i = match (self, key) {
            // The common types without a detour.
            (Self::I64(values), KeyRef::Int(wide)) => {
                let key = i64::try_from(wide).ok()?;
                values.partition_point(|v| *v < key)
            }
            (Self::U64(values), KeyRef::Int(wide)) => {
                let key = u64::try_from(wide).ok()?;
                values.partition_point(|v| *v < key)
            }
            _ => self.partition_point(0, |found| found < key),
        };
        (i < self.len() && self.at(i) == key).then_some(i as Ordinal)
    }

    /// The first position from `start` on whose key does not fulfil `before`.
    fn partition_point(self, start: usize, before: impl Fn(KeyRef<'a>) -> bool) -> usize {
        let (mut low, mut high) = (start, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.at(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The first position from `start` on whose key is at least `key`, found in leaps: O(log of the distance).
    fn leap(self, start: usize, key: KeyRef<'a>) -> usize {
        let (mut step, mut low) = (1, start);
        while low + step < self.len() && self.at(low + step) < key {
            low += step;
            step *= 2;
        }
        let high = (low + step).min(self.len());
        let (mut low, mut high) = (low, high);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.at(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The positions, here and there, of the first key from `from` on that both sorted columns have.
    pub(crate) fn next_shared(self, other: Self, from: (usize, usize)) -> Option<(usize, usize)> {
        let (mut i, mut j) = from;
        while i < self.len() && j < other.len() {
            let (a, b) = (self.at(i), other.at(j));
            match a.cmp(&b) {
                std::cmp::Ordering::Equal => return Some((i, j)),
                std::cmp::Ordering::Less => i = self.leap(i, b),
                std::cmp::Ordering::Greater => j = other.leap(j, a),
            }
        }
        None
    }

    /// The first position whose key is not larger than the one before it.
    pub(crate) fn first_out_of_order(self) -> Option<usize> {
        fn first<T: PartialOrd>(values: &[T]) -> Option<usize> {
            values.windows(2).position(|pair| pair[0] >= pair[1]).map(|i| i + 1)
        }
        match self {
            Self::I8(v) => first(v),
            Self::I16(v) => first(v),
            Self::I32(v) => first(v),
            Self::I64(v) => first(v),
            Self::U8(v) => first(v),
            Self::U16(v) => first(v),
            Self::U32(v) => first(v),
            Self::U64(v) => first(v),
            Self::Text(v) => (1..v.len()).find(|&i| v.value(i - 1) >= v.value(i)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int16Array, UInt64Array};
    use proptest::prelude::*;
    use std::sync::Arc;

    #[test]
    fn keys_of_other_types_are_not_found() {
        let small: ArrayRef = Arc::new(Int16Array::from(vec![-3, 0, 7]));
        let keys = KeyColumn::of(&small).unwrap();
        assert_eq!(keys.find(&Key::Int(7)), Some(2));
        assert_eq!(keys.find(&Key::UInt(7)), Some(2), "integers of all types compare");
        assert_eq!(keys.find(&Key::UInt(u64::MAX)), None);
        assert_eq!(keys.find(&Key::Text("7".into())), None);
        let wide: ArrayRef = Arc::new(UInt64Array::from(vec![1, u64::MAX]));
        assert_eq!(KeyColumn::of(&wide).unwrap().find(&Key::UInt(u64::MAX)), Some(1));
        assert_eq!(KeyColumn::of(&wide).unwrap().find(&Key::Int(-1)), None);
    }

    proptest! {
        #[test]
        fn shared_keys_are_those_of_both(
            a in prop::collection::btree_set(0u64..300, 0..80),
            b in prop::collection::btree_set(0u64..300, 0..80),
        ) {
            let column = |set: &std::collections::BTreeSet<u64>| -> ArrayRef {
                Arc::new(UInt64Array::from_iter_values(set.iter().copied()))
            };
            let (left, right) = (column(&a), column(&b));
            let (left, right) = (KeyColumn::of(&left).unwrap(), KeyColumn::of(&right).unwrap());
            let (mut found, mut from) = (Vec::new(), (0, 0));
            while let Some((i, j)) = left.next_shared(right, from) {
                prop_assert_eq!(left.at(i), right.at(j));
                found.push(left.at(i));
                from = (i + 1, j + 1);
            }
            let expected: Vec<KeyRef> = a.intersection(&b).map(|v| KeyRef::Int(i128::from(*v))).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
