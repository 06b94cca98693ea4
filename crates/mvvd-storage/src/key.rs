//! Primary keys: how a value finds its row.

use std::collections::HashMap;
use std::fmt;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, UInt64Type};
use mvvd_core::{Error, Result, RowId};

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
        match self {
            Self::Int(v) => v.fmt(f),
            Self::UInt(v) => v.fmt(f),
            Self::Text(v) => write!(f, "'{v}'"),
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

/// From key to row, for the live rows of one table.
#[derive(Debug, Default)]
pub(crate) struct KeyIndex {
    rows: HashMap<Key, RowId>,
    text_bytes: usize,
}

fn text_bytes(key: &Key) -> usize {
    if let Key::Text(text) = key { text.len() } else { 0 }
}

impl KeyIndex {
    pub(crate) fn get(&self, key: &Key) -> Option<RowId> {
        self.rows.get(key).copied()
    }

    pub(crate) fn insert(&mut self, key: Key, row: RowId) {
        let bytes = text_bytes(&key);
        if self.rows.insert(key, row).is_none() {
            self.text_bytes += bytes;
        }
    }

    /// Forgets `key` if it still stands for `row`.
    pub(crate) fn remove(&mut self, key: &Key, row: RowId) {
        if self.rows.get(key) == Some(&row) {
            self.rows.remove(key);
            self.text_bytes -= text_bytes(key);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Approximate bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.capacity() * (size_of::<(Key, RowId)>() + 1) + self.text_bytes
    }
}
