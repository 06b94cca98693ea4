//! Files as relations: `FROM 'file.parquet'`, and what COPY reads.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::datasource::file_format::FileFormat as DfFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast;
use mvvd_core::{Error, Result};

use crate::catalog::Lent;
use crate::error::from_df;
use crate::session::Session;

/// Records of a CSV or JSON file that are read to find its columns.
const INFER_RECORDS: usize = 10_000;

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Parquet,
    Csv {
        delimiter: u8,
        header: bool,
    },
    /// One JSON object a line.
    Json,
    /// Arrow IPC, the file form.
    Arrow,
}

impl Format {
    /// The format that a file's extension names.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let extension = Path::new(path).extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "tsv" => Some(Self::Csv { delimiter: b'\t', header: true }),
            "jsonl" => Some(Self::Json),
            "ipc" | "feather" => Some(Self::Arrow),
            other => Self::named(other),
        }
    }

    /// The format with this name in `(FORMAT name)`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "parquet" => Some(Self::Parquet),
            "csv" => Some(Self::Csv { delimiter: b',', header: true }),
            "json" | "ndjson" => Some(Self::Json),
            "arrow" => Some(Self::Arrow),
            _ => None,
        }
    }
}

impl Session {
    /// Makes the files that a statement names visible to the planner while the guards live.
    pub(crate) async fn lend_files(&self, state: &SessionState, statement: &ast::Statement) -> Result<Vec<Lent>> {
        let wrapped = DfStatement::Statement(Box::new(statement.clone()));
        let references = state.resolve_table_references(&wrapped).map_err(from_df)?;
        let mut lent = Vec::new();
        for reference in references {
            let path = reference.table();
            if reference.schema().is_some() || self.engine.database.find(path).is_some() {
                continue;
            }
            let Some(format) = Format::of_path(path) else {
                if Path::new(path).is_file() {
                    return Err(Error::invalid(format!("the name \"{path}\" does not tell the file's format"))
                        .with_hint("files that can be queried end in .parquet, .csv, .tsv, .json, .ndjson or .arrow"));
                }
                continue;
            };
            let provider = open(state, path, format, None).await?;
            lent.push(self.inner.catalog.lend(path.to_owned(), provider));
        }
        Ok(lent)
    }
}

/// A file, a folder or a pattern as a relation.
///
/// `columns` gives the types of the columns that are known; others are inferred. A CSV file's columns are text where
/// `columns` says so, which keeps leading zeros and large numbers for the cast to the table's type.
pub(crate) async fn open(
    state: &SessionState,
    path: &str,
    format: Format,
    columns: Option<&Schema>,
) -> Result<Arc<dyn TableProvider>> {
    if path.contains("://") && !path.starts_with("file://") {
        return Err(Error::unsupported(format!("\"{path}\": only local files can be read")));
    }
    let is_pattern = path.contains(['*', '?', '[']);
    if !is_pattern && !path.contains("://") && !Path::new(path).exists() {
        return Err(Error::not_found(format!("file \"{path}\" does not exist")));
    }
    let url = ListingTableUrl::parse(path).map_err(from_df)?;
    let reader: Arc<dyn DfFormat> = match format {
        Format::Parquet => Arc::new(ParquetFormat::default().with_force_view_types(false).with_skip_metadata(false)),
        Format::Csv { delimiter, header } => Arc::new(
            CsvFormat::default()
                .with_has_header(header)
                .with_delimiter(delimiter)
                .with_newlines_in_values(true)
                .with_schema_infer_max_rec(INFER_RECORDS),
        ),
        Format::Json => Arc::new(JsonFormat::default().with_schema_infer_max_rec(INFER_RECORDS)),
        Format::Arrow => Arc::new(ArrowFormat),
    };
    let options = ListingOptions::new(reader).with_file_extension("");
    let context = |e: datafusion::error::DataFusionError| from_df(e).context(format!("file \"{path}\""));
    let inferred = options.infer_schema(state, &url).await.map_err(context)?;
    let schema = match columns {
        Some(columns) => {
            let fields: Vec<Arc<Field>> = inferred
                .fields()
                .iter()
                .map(|field| match columns.field_with_name(field.name()) {
                    // A text stands for any value in its notation, a vector for one.
                    Ok(known) if !(format == Format::Json && field.data_type() == &DataType::Utf8) => {
                        Arc::new(known.clone())
                    }
                    _ => Arc::clone(field),
                })
                .collect();
            Arc::new(Schema::new(fields))
        }
        None => inferred,
    };
    if schema.fields().is_empty() {
        return Err(Error::invalid(format!("file \"{path}\" has no columns")));
    }
    let config = ListingTableConfig::new(url).with_listing_options(options).with_schema(schema);
    Ok(Arc::new(ListingTable::try_new(config).map_err(context)?))
}

/// Every column of `names` as text: how a CSV file is read into a table.
pub(crate) fn all_text<'a>(names: impl Iterator<Item = &'a str>) -> Schema {
    Schema::new(names.map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>())
}
