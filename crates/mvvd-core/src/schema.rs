//! What a table looks like: columns, types, key and defaults.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::metric::Metric;
use crate::vector_type::{TYPE_KEY, VectorType};

/// Most columns of a table.
pub const COLUMNS_MAX: usize = 1_600;

/// The two columns that the database keeps in tables made `WITH (timestamps = true)`.
pub const CREATED_AT: &str = "created_at";
/// See [`CREATED_AT`].
pub const UPDATED_AT: &str = "updated_at";

/// One column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Stable within the table, never used again: names may change, this does not.
    pub id: u32,
    /// Name, Arrow type, nullability and metadata.
    pub field: Arc<Field>,
    /// The `DEFAULT` as SQL text.
    pub default: Option<String>,
    /// The value (one row) of this column in rows written before it was added; `None` stands for NULL.
    pub initial: Option<ArrayRef>,
}

/// An index of a table, as `CREATE INDEX` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexDef {
    /// Stable within the table, never used again.
    pub id: u32,
    /// Its name, one of its kind in the database.
    pub name: String,
    /// The name in `USING`.
    pub kind: String,
    /// By which distance it finds rows.
    pub metric: Metric,
    /// Ids of its columns, at least one.
    pub columns: Vec<u32>,
    /// The options that were given, checked.
    pub options: Vec<(String, String)>,
}

/// Most indexes of a table.
pub const INDEXES_MAX: usize = 64;

/// The schema of a table.
#[derive(Debug, Clone)]
pub struct TableSchema {
    columns: Vec<Column>,
    primary_key: Option<u32>,
    timestamps: bool,
    next_column_id: u32,
    indexes: Vec<IndexDef>,
    next_index_id: u32,
    arrow: SchemaRef,
}

impl TableSchema {
    /// A schema of these columns (names must differ), keyed by the column named `primary_key`.
    ///
    /// The key column becomes NOT NULL. Keys are integers or text.
    pub fn new(fields: Vec<(Field, Option<String>)>, primary_key: Option<&str>, timestamps: bool) -> Result<Self> {
        let mut schema = Self {
            columns: Vec::with_capacity(fields.len()),
            primary_key: None,
            timestamps,
            next_column_id: 0,
            indexes: Vec::new(),
            next_index_id: 0,
            arrow: Arc::new(Schema::empty()),
        };
        if fields.is_empty() {
            return Err(Error::invalid("a table needs at least one column"));
        }
        for (field, default) in fields {
            let is_key = primary_key == Some(field.name().as_str());
            let field = if is_key { field.with_nullable(false) } else { field };
            schema.push(field, default, None)?;
        }
        if let Some(name) = primary_key {
            let column = &schema.columns[schema.index_of(name)?];
            check_key_type(column)?;
            schema.primary_key = Some(column.id);
        }
        schema.rebuild();
        Ok(schema)
    }

    /// A schema as it was stored: columns with their ids, the id of the key column, and the next free id.
    pub fn restored(
        columns: Vec<Column>,
        primary_key: Option<u32>,
        timestamps: bool,
        next_column_id: u32,
    ) -> Result<Self> {
        let wrong = |what: String| Error::new(crate::ErrorKind::Corrupt, format!("a stored schema {what}"));
        if columns.is_empty() || columns.len() > COLUMNS_MAX {
            return Err(wrong(format!("has {} columns", columns.len())));
        }
        if let Some(column) = columns.iter().find(|column| column.id >= next_column_id) {
            return Err(wrong(format!("has a column with id {} beyond {next_column_id}", column.id)));
        }
        if primary_key.is_some_and(|key| !columns.iter().any(|column| column.id == key)) {
            return Err(wrong("lacks its key column".to_owned()));
        }
        let mut schema = Self {
            columns,
            primary_key,
            timestamps,
            next_column_id,
            indexes: Vec::new(),
            next_index_id: 0,
            arrow: Arc::new(Schema::empty()),
        };
        schema.rebuild();
        Ok(schema)
    }

    /// The same schema with indexes as they were stored, and the next free id of an index.
    pub fn with_restored_indexes(mut self, indexes: Vec<IndexDef>, next_index_id: u32) -> Result<Self> {
        let wrong = |what: &str| Error::new(crate::ErrorKind::Corrupt, format!("a stored index {what}"));
        for index in &indexes {
            if index.id >= next_index_id {
                return Err(wrong("has an id beyond the last one"));
            }
            if index.columns.is_empty() || index.columns.iter().any(|&id| self.position(id).is_none()) {
                return Err(wrong("lacks its columns"));
            }
        }
        (self.indexes, self.next_index_id) = (indexes, next_index_id);
        Ok(self)
    }

    /// The id that the next new column gets.
    pub fn next_column_id(&self) -> u32 {
        self.next_column_id
    }

    /// The columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The indexes, in order of their making.
    pub fn indexes(&self) -> &[IndexDef] {
        &self.indexes
    }

    /// The id that the next new index gets.
    pub fn next_index_id(&self) -> u32 {
        self.next_index_id
    }

    /// Position of the column with this id.
    pub fn position(&self, id: u32) -> Option<usize> {
        self.columns.iter().position(|column| column.id == id)
    }

    /// The same schema with one more index, whose id is given here.
    pub fn with_index(&self, index: IndexDef) -> Result<Self> {
        if self.indexes.iter().any(|known| known.name == index.name) {
            return Err(Error::already_exists(format!("index \"{}\" already exists", index.name)));
        }
        if self.indexes.len() == INDEXES_MAX {
            return Err(Error::exhausted(format!("a table cannot have more than {INDEXES_MAX} indexes")));
        }
        let mut schema = self.clone();
        schema.indexes.push(IndexDef { id: schema.next_index_id, ..index });
        schema.next_index_id += 1;
        Ok(schema)
    }

    /// The same schema with the indexes of `other`, a schema of the same table, as far as their columns are here.
    pub fn with_indexes_of(mut self, other: &Self) -> Self {
        let has_columns = |index: &&IndexDef| index.columns.iter().all(|&id| self.position(id).is_some());
        let indexes = other.indexes.iter().filter(has_columns).cloned().collect();
        (self.indexes, self.next_index_id) = (indexes, other.next_index_id);
        self
    }

    /// The same schema without the index named `name`.
    pub fn without_index(&self, name: &str) -> Result<Self> {
        let mut schema = self.clone();
        let Some(index) = schema.indexes.iter().position(|index| index.name == name) else {
            return Err(Error::not_found(format!("index \"{name}\" does not exist")));
        };
        schema.indexes.remove(index);
        Ok(schema)
    }

    /// The Arrow schema of the columns.
    pub fn arrow(&self) -> &SchemaRef {
        &self.arrow
    }

    /// Position of the primary key column.
    pub fn primary_key(&self) -> Option<usize> {
        self.position(self.primary_key?)
    }

    /// Whether the database keeps `created_at` and `updated_at`.
    pub fn timestamps(&self) -> bool {
        self.timestamps
    }

    /// Position of the column named `name`.
    pub fn index_of(&self, name: &str) -> Result<usize> {
        self.columns.iter().position(|column| column.field.name() == name).ok_or_else(|| {
            let names: Vec<&str> = self.columns.iter().map(|column| column.field.name().as_str()).collect();
            Error::not_found(format!("column \"{name}\" does not exist"))
                .with_hint(format!("the columns are {}", names.join(", ")))
        })
    }

    /// The same schema with one more column at the end. `initial` is its value in the rows that exist.
    pub fn with_column(&self, field: Field, default: Option<String>, initial: Option<ArrayRef>) -> Result<Self> {
        let mut schema = self.clone();
        schema.push(field, default, initial)?;
        schema.rebuild();
        Ok(schema)
    }

    /// The same schema without the column named `name`.
    pub fn without_column(&self, name: &str) -> Result<Self> {
        let index = self.index_of(name)?;
        if self.primary_key == Some(self.columns[index].id) {
            return Err(Error::invalid(format!("column \"{name}\" is the primary key and cannot be dropped")));
        }
        self.check_not_kept(name, "dropped")?;
        if self.columns.len() == 1 {
            return Err(Error::invalid(format!("column \"{name}\" is the only column and cannot be dropped")));
        }
        let mut schema = self.clone();
        let id = schema.columns.remove(index).id;
        // As in PostgreSQL, an index goes with any of its columns.
        schema.indexes.retain(|index| !index.columns.contains(&id));
        schema.rebuild();
        Ok(schema)
    }

    /// The same schema with a column renamed.
    pub fn with_renamed(&self, old: &str, new: &str) -> Result<Self> {
        let index = self.index_of(old)?;
        self.check_not_kept(old, "renamed")?;
        self.check_name(new)?;
        let mut schema = self.clone();
        let column = &mut schema.columns[index];
        column.field = Arc::new(column.field.as_ref().clone().with_name(new));
        schema.rebuild();
        Ok(schema)
    }

    fn check_not_kept(&self, name: &str, what: &str) -> Result<()> {
        if self.timestamps && (name == CREATED_AT || name == UPDATED_AT) {
            return Err(Error::invalid(format!("column \"{name}\" is kept by the database and cannot be {what}")));
        }
        Ok(())
    }

    fn check_name(&self, name: &str) -> Result<()> {
        if name.is_empty() || name.starts_with("__mvvd") {
            return Err(Error::invalid(format!("\"{name}\" is no name for a column")));
        }
        if self.columns.iter().any(|column| column.field.name() == name) {
            return Err(Error::already_exists(format!("column \"{name}\" already exists")));
        }
        Ok(())
    }

    fn push(&mut self, field: Field, default: Option<String>, initial: Option<ArrayRef>) -> Result<()> {
        self.check_name(field.name())?;
        if self.columns.len() == COLUMNS_MAX {
            return Err(Error::exhausted(format!("a table cannot have more than {COLUMNS_MAX} columns")));
        }
        let id = self.next_column_id;
        self.next_column_id += 1;
        self.columns.push(Column { id, field: Arc::new(field), default, initial });
        Ok(())
    }

    fn rebuild(&mut self) {
        self.arrow = Arc::new(Schema::new(self.columns.iter().map(|c| Arc::clone(&c.field)).collect::<Vec<_>>()));
    }
}

fn check_key_type(column: &Column) -> Result<()> {
    let ty = column.field.data_type();
    if ty.is_integer() || matches!(ty, DataType::Utf8) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "column \"{}\" of type {} cannot be the primary key",
        column.field.name(),
        sql_type(&column.field)
    ))
    .with_hint("keys are integers, TEXT or UUID"))
}

/// The SQL name of a column's type, such as `VECTOR(384)`, `BIGINT` or `TEXT[]`.
pub fn sql_type(field: &Field) -> String {
    if let Some(vector) = VectorType::of_field(field) {
        return vector.to_string();
    }
    if let Some(named) = field.metadata().get(TYPE_KEY) {
        return named.clone();
    }
    sql_type_of(field.data_type())
}

fn sql_type_of(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "TINYINT UNSIGNED",
        DataType::UInt16 => "SMALLINT UNSIGNED",
        DataType::UInt32 => "INTEGER UNSIGNED",
        DataType::UInt64 => "BIGINT UNSIGNED",
        DataType::Float16 => "HALF",
        DataType::Float32 => "REAL",
        DataType::Float64 => "DOUBLE PRECISION",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTEA",
        DataType::Date32 | DataType::Date64 => "DATE",
        DataType::Time32(_) | DataType::Time64(_) => "TIME",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMPTZ",
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL",
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => {
            return format!("DECIMAL({p},{s})");
        }
        DataType::List(item) | DataType::LargeList(item) => return format!("{}[]", sql_type(item)),
        DataType::FixedSizeList(item, n) => return format!("{}[{n}]", sql_type(item)),
        DataType::FixedSizeBinary(n) => return format!("BINARY({n})"),
        DataType::Dictionary(_, value) => return sql_type_of(value),
        DataType::Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|f| format!("{} {}", f.name(), sql_type(f))).collect();
            return format!("STRUCT<{}>", fields.join(", "));
        }
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> TableSchema {
        let fields = vec![
            (Field::new("id", DataType::Int64, true), None),
            (VectorType::parse("VECTOR(3)").unwrap().field("v", true), None),
        ];
        TableSchema::new(fields, Some("id"), false).unwrap()
    }

    #[test]
    fn keys_are_not_null_and_of_a_key_type() {
        assert!(!schema().arrow().field(0).is_nullable());
        assert_eq!(schema().primary_key(), Some(0));
        let bad = vec![(Field::new("id", DataType::Float64, true), None)];
        assert_eq!(
            TableSchema::new(bad, Some("id"), false).unwrap_err().to_string(),
            "column \"id\" of type DOUBLE PRECISION cannot be the primary key"
        );
    }

    #[test]
    fn changes_keep_column_ids() {
        let changed = schema()
            .with_renamed("v", "w")
            .and_then(|s| s.with_column(Field::new("x", DataType::Utf8, true), None, None))
            .and_then(|s| s.without_column("w"))
            .and_then(|s| s.with_column(Field::new("w", DataType::Utf8, true), None, None))
            .unwrap();
        assert_eq!(changed.columns().iter().map(|c| c.id).collect::<Vec<_>>(), [0, 2, 3]);
        assert!(changed.without_column("id").is_err());
        assert!(changed.with_renamed("x", "w").is_err());
        let index = IndexDef {
            id: 0,
            name: "i".into(),
            kind: "flat".into(),
            metric: Metric::L2,
            columns: vec![0, 3],
            options: Vec::new(),
        };
        let indexed = changed.with_index(index.clone()).and_then(|s| s.without_index("i")).unwrap();
        let indexed = indexed.with_index(index.clone()).unwrap();
        assert_eq!(indexed.indexes()[0].id, 1, "an id is not used again");
        assert!(indexed.with_index(index).is_err());
        assert!(indexed.without_column("w").unwrap().indexes().is_empty());
        assert_eq!(changed.index_of("gone").unwrap_err().hint(), Some("the columns are id, x, w"));
    }
}
