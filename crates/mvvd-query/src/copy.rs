//! COPY: files into tables and queries into files.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::physical_plan::execute_stream;
use datafusion::sql::sqlparser::ast::{self, CopyLegacyOption, CopyOption, CopySource, CopyTarget, SelectItem};
use futures::StreamExt;
use mvvd_core::convert::to_text;
use mvvd_core::{Error, Result, TableSchema, VectorKind, VectorType};
use mvvd_storage::{AtomicFile, batch_bytes};

use crate::Value;
use crate::answer::Answer;
use crate::ddl::table_name;
use crate::error::from_df;
use crate::files::{Format, all_text, open};
use crate::prepare::normal;
use crate::progress::Meter;
use crate::session::Session;
use crate::syntax::{scratch_relation, select_mut, select_template, unique_name};

impl Session {
    /// `COPY t [(columns)] FROM 'file'`, `COPY t TO 'file'`, `COPY (query) TO 'file'`.
    pub(crate) async fn copy(
        &self,
        source: CopySource,
        to: bool,
        target: CopyTarget,
        options: &[CopyOption],
        legacy: &[CopyLegacyOption],
        params: &[Value],
    ) -> Result<Answer> {
        let CopyTarget::File { filename } = target else {
            return Err(Error::unsupported("COPY reads and writes files").with_hint("write COPY t FROM 'file.parquet'"));
        };
        if !legacy.is_empty() {
            return Err(Error::invalid("COPY options stand in parentheses")
                .with_hint("write (FORMAT csv, HEADER true, DELIMITER ';')"));
        }
        let format = format_of(&filename, options)?;
        match (to, source) {
            (true, source) => self.copy_to(source, &filename, format, params).await,
            (false, CopySource::Table { table_name: name, columns }) => {
                Box::pin(self.copy_from(
                    &table_name(&name)?,
                    &columns.iter().map(normal).collect::<Vec<_>>(),
                    &filename,
                    format,
                ))
                .await
            }
            (false, CopySource::Query(_)) => Err(Error::invalid("COPY FROM takes a table")),
        }
    }

    async fn copy_from(&self, name: &str, columns: &[String], path: &str, format: Format) -> Result<Answer> {
        let table = self.engine.database.table(name)?;
        let schema = Arc::clone(table.snapshot().schema());
        let state = self.state();
        let known = readable(&schema, format);
        let file = open(&state, path, format, Some(&known)).await?;
        let file_columns: Vec<String> = file.schema().fields().iter().map(|f| f.name().clone()).collect();
        let headless = matches!(format, Format::Csv { header: false, .. });
        let wanted: Vec<String> = match (columns.is_empty(), headless) {
            (false, _) => columns.to_vec(),
            (true, false) => file_columns.clone(),
            (true, true) => schema.columns().iter().take(file_columns.len()).map(|c| c.field.name().clone()).collect(),
        };
        if wanted.len() != file_columns.len() && headless {
            return Err(Error::invalid(format!(
                "file \"{path}\" has {} columns, expected {}",
                file_columns.len(),
                wanted.len()
            )));
        }
        if let Some(extra) = wanted.iter().find(|c| schema.index_of(c).is_err()) {
            let names: Vec<&str> = schema.columns().iter().map(|c| c.field.name().as_str()).collect();
            return Err(Error::invalid(format!("file \"{path}\" has column \"{extra}\", table \"{name}\" does not"))
                .with_hint(format!(
                    "the table's columns are {}; name the ones to read: COPY {name} (…) FROM …",
                    names.join(", ")
                )));
        }
        let read: Vec<&String> = match headless {
            true => file_columns.iter().collect(),
            false => wanted.iter().collect(),
        };
        if let Some(missing) = read.iter().find(|c| !file_columns.contains(c)) {
            return Err(Error::not_found(format!("file \"{path}\" has no column \"{missing}\""))
                .with_hint(format!("its columns are {}", file_columns.join(", "))));
        }

        let rows =
            self.read_file(file, &read, &wanted, &schema).await.map_err(|e| e.context(format!("file \"{path}\"")))?;
        let relation = MemTable::try_new(rows.schema, vec![rows.batches]).map_err(from_df)?;
        let scratch = unique_name();
        let _lent = self.inner.catalog.lend(scratch.clone(), Arc::new(relation));
        let mut query = select_template();
        let select = select_mut(&mut query);
        select.projection = vec![SelectItem::Wildcard(ast::WildcardAdditionalOptions::default())];
        select.from = vec![scratch_relation(&scratch, "file")];
        let count = self.insert_query(name, &wanted, query).await.map_err(|e| e.context(format!("file \"{path}\"")))?;
        Ok(Answer::changed("COPY", count))
    }

    /// Reads some columns of a file, ready to be cast to the table's types.
    async fn read_file(
        &self,
        file: Arc<dyn datafusion::catalog::TableProvider>,
        read: &[&String],
        wanted: &[String],
        schema: &TableSchema,
    ) -> Result<Rows> {
        let state = self.state();
        let projection: Vec<usize> =
            read.iter().map(|name| file.schema().index_of(name)).collect::<std::result::Result<_, _>>()?;
        let physical = file.scan(&state, Some(&projection), &[], None).await.map_err(from_df)?;
        let total = crate::dml::known_rows(&physical);
        let meter = Meter::start(self.inner.progress.read().clone(), "COPY", total);
        let reservation = self.reserve(&state, "rows to write");
        let mut stream = execute_stream(physical, state.task_ctx()).map_err(from_df)?;
        let mut batches = Vec::new();
        let mut output: Option<SchemaRef> = None;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(from_df)?;
            let mut fields = Vec::with_capacity(wanted.len());
            let mut columns = Vec::with_capacity(wanted.len());
            for ((array, field), name) in batch.columns().iter().zip(batch.schema().fields()).zip(wanted) {
                let target = &schema.columns()[schema.index_of(name)?].field;
                let array = parse_nested(array, target)?;
                fields.push(Field::new(name, array.data_type().clone(), true).with_metadata(field.metadata().clone()));
                columns.push(array);
            }
            let out = output.get_or_insert_with(|| Arc::new(Schema::new(fields)));
            let batch = RecordBatch::try_new(Arc::clone(out), columns)?;
            reservation.try_grow(batch_bytes(&batch)).map_err(from_df)?;
            meter.advance(batch.num_rows());
            batches.push(batch);
        }
        let schema = match output {
            Some(schema) => schema,
            None => Arc::new(Schema::new(
                wanted.iter().map(|name| Field::new(name, DataType::Null, true)).collect::<Vec<_>>(),
            )),
        };
        Ok(Rows { schema, batches })
    }

    /// Refuses to write where the database has its own files.
    fn check_outside(&self, path: &str) -> Result<()> {
        let Some(own) = &self.engine.directory else { return Ok(()) };
        let folder = match Path::new(path).parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // A folder that is not there is the error of whoever makes the file.
        let inside = std::fs::canonicalize(folder).is_ok_and(|folder| folder.starts_with(own));
        if inside {
            return Err(Error::invalid(format!("\"{path}\" is in the directory of the database"))
                .with_hint("write the file somewhere else"));
        }
        Ok(())
    }

    async fn copy_to(&self, source: CopySource, path: &str, format: Format, params: &[Value]) -> Result<Answer> {
        let query = match source {
            CopySource::Query(query) => query,
            CopySource::Table { table_name: name, columns } => {
                // Known before the file is touched.
                let table = table_name(&name)?;
                self.engine.database.table(&table)?;
                let mut query = select_template();
                let select = select_mut(&mut query);
                select.projection = match columns.is_empty() {
                    true => vec![SelectItem::Wildcard(ast::WildcardAdditionalOptions::default())],
                    false => columns.into_iter().map(|c| SelectItem::UnnamedExpr(ast::Expr::Identifier(c))).collect(),
                };
                select.from = vec![crate::syntax::relation(crate::catalog::PUBLIC, &table, &table)];
                query
            }
        };
        self.check_outside(path)?;
        let state = self.keeping_state();
        let plan = self.plan(&state, ast::Statement::Query(query), params).await?;
        let physical = state.create_physical_plan(&plan).await.map_err(from_df)?;
        let total = crate::dml::known_rows(&physical);
        let meter = Meter::start(self.inner.progress.read().clone(), "COPY", total);
        let mut stream = execute_stream(physical, state.task_ctx()).map_err(from_df)?;
        let source_schema = stream.schema();
        let schema = writable_schema(&source_schema, format);
        let mut writer = Some(Writer::new(AtomicFile::create(Path::new(path))?, &schema, format)?);
        let mut count = 0;
        while let Some(batch) = stream.next().await {
            let batch = writable(&batch.map_err(from_df)?, &source_schema, &schema, format)?;
            count += batch.num_rows();
            meter.advance(batch.num_rows());
            // Encoding and writing block: this thread says so, and the runtime goes on with others.
            let mut current = writer.take().ok_or_else(|| Error::internal("the writer went away"))?;
            writer = Some(tokio::task::block_in_place(move || current.write(&batch).map(|()| current))?);
        }
        let writer = writer.ok_or_else(|| Error::internal("the writer went away"))?;
        tokio::task::block_in_place(move || writer.finish()?.commit())?;
        Ok(Answer::changed("COPY", count))
    }
}

/// Rows read from a file.
struct Rows {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

fn format_of(path: &str, options: &[CopyOption]) -> Result<Format> {
    let mut format = None;
    for option in options {
        if let CopyOption::Format(name) = option {
            format = Some(Format::named(&name.value).ok_or_else(|| {
                Error::invalid(format!("unknown file format \"{}\"", name.value))
                    .with_hint("the formats are parquet, csv, json and arrow")
            })?);
        }
    }
    let mut format = format.or_else(|| Format::of_path(path)).ok_or_else(|| {
        Error::invalid(format!("the name \"{path}\" does not tell the file's format"))
            .with_hint("end it in .parquet, .csv, .tsv, .json or .arrow, or add (FORMAT parquet)")
    })?;
    for option in options {
        match (option, &mut format) {
            (CopyOption::Format(_), _) => {}
            (CopyOption::Header(on), Format::Csv { header, .. }) => *header = *on,
            (CopyOption::Delimiter(c), Format::Csv { delimiter, .. }) => {
                *delimiter = u8::try_from(*c)
                    .ok()
                    .filter(u8::is_ascii)
                    .ok_or_else(|| Error::invalid(format!("the delimiter must be one ASCII character, got {c:?}")))?;
            }
            (other, Format::Csv { .. }) => {
                return Err(Error::unsupported(format!("COPY option {other} is not supported"))
                    .with_hint("csv takes HEADER and DELIMITER"));
            }
            (other, _) => {
                return Err(Error::invalid(format!("COPY option {other} is for csv files")));
            }
        }
    }
    Ok(format)
}

/// How a table's columns are read from a file, where the file does not say itself.
fn readable(schema: &TableSchema, format: Format) -> Schema {
    match format {
        Format::Parquet | Format::Arrow => Schema::empty(),
        Format::Csv { .. } => all_text(schema.columns().iter().map(|c| c.field.name().as_str())),
        Format::Json => {
            let fields: Vec<Field> = schema
                .columns()
                .iter()
                .map(|column| {
                    let data_type = match VectorType::of_field(&column.field).map(|ty| ty.kind) {
                        Some(VectorKind::Dense | VectorKind::Half) => DataType::new_list(DataType::Float64, true),
                        Some(VectorKind::Bit | VectorKind::Sparse) => DataType::Utf8,
                        None => column.field.data_type().clone(),
                    };
                    Field::new(column.field.name(), data_type, true)
                })
                .collect();
            Schema::new(fields)
        }
    }
}

/// Whether a column of this type is written as JSON text in a CSV file.
fn is_nested(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::List(_)
            | DataType::LargeList(_)
            | DataType::FixedSizeList(..)
            | DataType::Struct(_)
            | DataType::Map(..)
    )
}

/// Text with a list or struct as JSON, as CSV files hold them, becomes the list or struct that `target` is.
fn parse_nested(array: &ArrayRef, target: &Field) -> Result<ArrayRef> {
    if array.data_type() != &DataType::Utf8 || !is_nested(target.data_type()) || VectorType::of_field(target).is_some()
    {
        return Ok(Arc::clone(array));
    }
    let field = Arc::new(Field::new("value", target.data_type().clone(), true));
    let mut decoder =
        arrow::json::ReaderBuilder::new_with_field(field).with_batch_size(array.len().max(1)).build_decoder()?;
    let texts = array.as_string::<i32>();
    for text in texts.iter() {
        let mut line = text.unwrap_or("null").to_owned();
        line.push('\n');
        decoder.decode(line.as_bytes()).map_err(|e| Error::from(e).context(format!("column \"{}\"", target.name())))?;
    }
    match decoder.flush().map_err(|e| Error::from(e).context(format!("column \"{}\"", target.name())))? {
        Some(batch) if batch.num_rows() == array.len() => Ok(Arc::clone(batch.column(0))),
        None if array.is_empty() => Ok(arrow::array::new_empty_array(target.data_type())),
        _ => Err(Error::invalid(format!("column \"{}\": each value must be one JSON value", target.name()))),
    }
}

fn is_text_in(field: &Field, format: Format) -> bool {
    let kind = VectorType::of_field(field).map(|ty| ty.kind);
    match format {
        Format::Csv { .. } => kind.is_some() || is_nested(field.data_type()),
        Format::Json => matches!(kind, Some(VectorKind::Bit | VectorKind::Sparse)),
        Format::Parquet | Format::Arrow => false,
    }
}

fn writable_schema(schema: &Schema, format: Format) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| match is_text_in(field, format) {
            true => Field::new(field.name(), DataType::Utf8, true),
            false => field.as_ref().clone().with_nullable(true),
        })
        .collect();
    Arc::new(Schema::new(fields))
}

/// The batch with the columns that the format cannot hold written as text.
fn writable(batch: &RecordBatch, source: &Schema, target: &SchemaRef, format: Format) -> Result<RecordBatch> {
    let columns = batch
        .columns()
        .iter()
        .zip(source.fields())
        .map(|(array, field)| match (is_text_in(field, format), VectorType::of_field(field)) {
            (false, _) => Ok(Arc::clone(array)),
            (true, Some(ty)) => Ok(Arc::new(to_text(array, ty)?) as ArrayRef),
            (true, None) => nested_text(array, field),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(Arc::clone(target), columns)?)
}

fn nested_text(array: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let field = Arc::new(field.clone());
    let options = arrow::json::writer::EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = arrow::json::writer::make_encoder(&field, array.as_ref(), &options)?;
    let mut out = StringBuilder::new();
    let mut text = Vec::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            out.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        out.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Arc::new(out.finish()))
}

/// Writes batches in one of the formats.
enum Writer {
    Parquet(Box<parquet::arrow::ArrowWriter<AtomicFile>>),
    Csv(Box<arrow::csv::Writer<AtomicFile>>),
    Json(Box<arrow::json::LineDelimitedWriter<AtomicFile>>),
    Arrow(Box<arrow::ipc::writer::FileWriter<AtomicFile>>),
}

impl Writer {
    fn new(mut file: AtomicFile, schema: &SchemaRef, format: Format) -> Result<Self> {
        Ok(match format {
            Format::Parquet => {
                let properties = parquet::file::properties::WriterProperties::builder()
                    .set_compression(parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default()))
                    .build();
                let writer = parquet::arrow::ArrowWriter::try_new(file, Arc::clone(schema), Some(properties));
                Self::Parquet(Box::new(writer.map_err(|e| from_df(e.into()))?))
            }
            Format::Csv { delimiter, header } => {
                if header {
                    // The header is there even if no row follows.
                    let builder = arrow::csv::WriterBuilder::new().with_delimiter(delimiter).with_header(true);
                    let mut writer = builder.build(file);
                    writer.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
                    file = writer.into_inner();
                }
                Self::Csv(Box::new(
                    arrow::csv::WriterBuilder::new().with_delimiter(delimiter).with_header(false).build(file),
                ))
            }
            Format::Json => {
                Self::Json(Box::new(arrow::json::WriterBuilder::new().with_explicit_nulls(true).build(file)))
            }
            Format::Arrow => Self::Arrow(Box::new(arrow::ipc::writer::FileWriter::try_new(file, schema)?)),
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Parquet(writer) => writer.write(batch).map_err(|e| from_df(e.into())),
            Self::Csv(writer) => Ok(writer.write(batch)?),
            Self::Json(writer) => Ok(writer.write(batch)?),
            Self::Arrow(writer) => Ok(writer.write(batch)?),
        }
    }

    fn finish(self) -> Result<AtomicFile> {
        match self {
            Self::Parquet(writer) => writer.into_inner().map_err(|e| from_df(e.into())),
            Self::Csv(writer) => Ok(writer.into_inner()),
            Self::Json(mut writer) => {
                writer.finish()?;
                Ok(writer.into_inner())
            }
            Self::Arrow(mut writer) => {
                writer.finish()?;
                Ok(writer.into_inner()?)
            }
        }
    }
}
