//! Reads a snapshot: filters first, then only the columns asked for.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{prep_null_mask_filter, take};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, Statistics, stats::Precision};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::TryStreamExt;
use mvvd_storage::{BLOCK_ROWS, Chunk, Snapshot};
use roaring::RoaringBitmap;

use crate::error::to_df;
use crate::range::Near;
use crate::reach::Reach;

/// Rows that are read at once.
pub(crate) const BATCH_ROWS: usize = 8_192;
/// Fewer rows than this are not worth another partition.
const PARTITION_ROWS_MIN: usize = 16_384;

/// Name of the column that carries row numbers through UPDATE and DELETE.
pub(crate) const ROW_ID: &str = "__mvvd_row_id";

/// A full scan of one snapshot.
#[derive(Debug)]
pub(crate) struct ScanExec {
    scan: Scan,
    partitions: Vec<Vec<Piece>>,
    limit: Option<usize>,
    /// Only the rows within a distance, which an index proposes when the scan runs.
    near: Option<Near>,
    properties: Arc<PlanProperties>,
}

/// What to read: the part that the top-k operator takes over.
#[derive(Debug, Clone)]
pub(crate) struct Scan {
    pub(crate) table: String,
    pub(crate) snapshot: Arc<Snapshot>,
    /// Positions of the output columns in the table; the position after the last column stands for the row number.
    pub(crate) projection: Vec<usize>,
    /// Conditions over all columns of the table; a row counts if each one is true.
    pub(crate) filters: Vec<Arc<dyn PhysicalExpr>>,
    /// What the conditions can reach.
    pub(crate) reach: Reach,
}

/// Neighbouring rows of one chunk.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) chunk: u32,
    pub(crate) range: Range<usize>,
    /// Only these, as positions within the range, ascending.
    only: Option<Arc<[u32]>>,
}

impl Piece {
    pub(crate) fn new(chunk: u32, range: Range<usize>) -> Self {
        Self { chunk, range, only: None }
    }

    /// Some rows of a chunk, at least one, ascending.
    pub(crate) fn of_rows(chunk: u32, rows: &[usize]) -> Self {
        let (start, end) = (rows[0], rows[rows.len() - 1] + 1);
        Self { chunk, range: start..end, only: Some(rows.iter().map(|row| (row - start) as u32).collect()) }
    }
}

impl Scan {
    pub(crate) fn schema(&self) -> Result<SchemaRef> {
        Ok(Arc::new(with_row_id(self.snapshot.schema().arrow()).project(&self.projection)?))
    }

    /// Looks again at what the conditions can reach, after some were added.
    pub(crate) fn narrow(&mut self) -> Result<()> {
        self.reach = Reach::of(&self.snapshot, &self.filters)?;
        Ok(())
    }

    /// What is to be read, in pieces of at most `rows` rows, none of which crosses the edge of a block.
    pub(crate) fn pieces(&self, rows: usize) -> Vec<Piece> {
        if let Reach::Rows(places) = &self.reach {
            let one = |&(chunk, row): &(u32, u32)| Piece::new(chunk, row as usize..row as usize + 1);
            return places.iter().map(one).collect();
        }
        debug_assert!(BLOCK_ROWS.is_multiple_of(rows), "{rows} rows do not divide a block");
        let chunks = self.snapshot.chunks().iter().enumerate();
        chunks
            .flat_map(|(i, chunk)| {
                (0..chunk.len())
                    .step_by(rows)
                    .filter(move |&start| self.reach.has_block(i, start))
                    .map(move |start| Piece::new(i as u32, start..(start + rows).min(chunk.len())))
            })
            .collect()
    }

    /// Column `index` of the table, or the row numbers.
    pub(crate) fn column(&self, chunk: &Chunk, index: usize, range: Range<usize>) -> Result<ArrayRef> {
        let schema = self.snapshot.schema();
        if index == schema.columns().len() {
            return Ok(Arc::new(chunk.row_ids(range)));
        }
        chunk.column(schema, index, range).map_err(to_df)
    }

    /// The rows of a piece that are live and pass the filters, as positions within it; `None` means all of them.
    ///
    /// A filter sees only the rows that are left: not the deleted ones, and not those that an earlier filter refused.
    pub(crate) fn selection(&self, piece: &Piece) -> Result<Option<UInt32Array>> {
        let chunk = &self.snapshot.chunks()[piece.chunk as usize];
        let is_live = |i: &u32| !chunk.deleted().contains(piece.range.start as u32 + i);
        let mut selected = match &piece.only {
            None => live_rows(chunk.deleted(), &piece.range),
            Some(only) => Some(only.iter().copied().filter(is_live).collect::<Vec<_>>().into()),
        };
        for filter in &self.filters {
            let rows = selected.as_ref().map_or(piece.range.len(), Array::len);
            if rows == 0 {
                break;
            }
            let batch = self.filter_batch(filter, chunk, &piece.range, selected.as_ref())?;
            let verdict = filter.evaluate(&batch)?.into_array(rows)?;
            let verdict = datafusion::common::cast::as_boolean_array(&verdict)?;
            let verdict = if verdict.null_count() > 0 { prep_null_mask_filter(verdict) } else { verdict.clone() };
            if verdict.true_count() == rows {
                continue;
            }
            let passed = verdict.values().set_indices_u32();
            selected = Some(match selected {
                Some(selected) => passed.map(|i| selected.value(i as usize)).collect::<Vec<_>>().into(),
                None => passed.collect::<Vec<_>>().into(),
            });
        }
        Ok(selected)
    }

    /// A batch with the table's full width in which only the columns that `filter` reads are real.
    fn filter_batch(
        &self,
        filter: &Arc<dyn PhysicalExpr>,
        chunk: &Chunk,
        range: &Range<usize>,
        selected: Option<&UInt32Array>,
    ) -> Result<RecordBatch> {
        let rows = selected.map_or(range.len(), Array::len);
        let schema = self.snapshot.schema();
        let used = datafusion::physical_expr::utils::collect_columns(filter);
        let mut fields: Vec<Arc<Field>> = Vec::with_capacity(schema.columns().len() + 1);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.columns().len() + 1);
        let full = with_row_id(schema.arrow());
        for (i, field) in full.fields().iter().enumerate() {
            if used.iter().any(|column| column.index() == i) {
                fields.push(Arc::clone(field));
                let column = self.column(chunk, i, range.clone())?;
                columns.push(match selected {
                    Some(selected) => take(&column, selected, None)?,
                    None => column,
                });
            } else {
                fields.push(Arc::new(Field::new(field.name(), DataType::Null, true)));
                columns.push(Arc::new(arrow::array::NullArray::new(rows)));
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }

    pub(crate) fn read(&self, piece: &Piece, schema: &SchemaRef) -> Result<Option<RecordBatch>> {
        let selected = self.selection(piece)?;
        if selected.as_ref().is_some_and(Array::is_empty) {
            return Ok(None);
        }
        let chunk = &self.snapshot.chunks()[piece.chunk as usize];
        let rows = selected.as_ref().map_or(piece.range.len(), Array::len);
        let mut columns = Vec::with_capacity(self.projection.len());
        for &index in &self.projection {
            let column = self.column(chunk, index, piece.range.clone())?;
            columns.push(match &selected {
                Some(selected) => take(&column, selected, None)?,
                None => column,
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(Some(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?))
    }
}

/// The table's schema with the row number behind it.
pub(crate) fn with_row_id(schema: &SchemaRef) -> Schema {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ROW_ID, DataType::UInt64, false)));
    Schema::new(fields)
}

fn live_rows(deleted: &RoaringBitmap, range: &Range<usize>) -> Option<UInt32Array> {
    let bounds = range.start as u32..range.end as u32;
    if deleted.range_cardinality(bounds.clone()) == 0 {
        return None;
    }
    Some(bounds.filter(|i| !deleted.contains(*i)).map(|i| i - range.start as u32).collect::<Vec<_>>().into())
}

impl ScanExec {
    pub(crate) fn new(scan: Scan, limit: Option<usize>, partitions: usize) -> Result<Self> {
        let pieces = scan.pieces(BATCH_ROWS);
        let rows: usize = pieces.iter().map(|piece| piece.range.len()).sum();
        let count = (rows / PARTITION_ROWS_MIN).clamp(1, partitions.max(1));
        let mut shares = vec![Vec::new(); count];
        let mut filled = 0;
        for piece in pieces {
            // Neighbouring pieces stay together, each partition gets about the same number of rows.
            let share = (filled * count / rows.max(1)).min(count - 1);
            filled += piece.range.len();
            shares[share].push(piece);
        }
        Self::of(scan, shares, limit, None)
    }

    /// A scan of the rows that an index proposes.
    pub(crate) fn near(scan: Scan, near: Near) -> Result<Self> {
        Self::of(scan, vec![Vec::new()], None, Some(near))
    }

    fn of(scan: Scan, partitions: Vec<Vec<Piece>>, limit: Option<usize>, near: Option<Near>) -> Result<Self> {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(scan.schema()?),
            Partitioning::UnknownPartitioning(partitions.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { scan, partitions, limit, near, properties: Arc::new(properties) })
    }

    pub(crate) fn scan(&self) -> &Scan {
        &self.scan
    }

    pub(crate) fn limit(&self) -> Option<usize> {
        self.limit
    }
}

impl DisplayAs for ScanExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name())?;
        if let Some(near) = &self.near {
            write!(f, "{near}, ")?;
        }
        write!(f, "table={}", self.scan.table)?;
        write_scan(&self.scan, f)?;
        match self.limit {
            Some(limit) => write!(f, ", limit={limit}"),
            None => Ok(()),
        }
    }
}

/// Columns, filters and rows, as both operators show them.
pub(crate) fn write_scan(scan: &Scan, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Ok(schema) = scan.schema() {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, ", columns=[{}]", names.join(", "))?;
    }
    if !scan.filters.is_empty() {
        let filters: Vec<String> = scan.filters.iter().map(ToString::to_string).collect();
        write!(f, ", filter=[{}]", filters.join(" AND "))?;
    }
    write!(f, ", rows={}{}", scan.snapshot.live(), scan.reach)
}

impl ExecutionPlan for ScanExec {
    fn name(&self) -> &'static str {
        if self.near.is_some() { "RangeScanExec" } else { "ScanExec" }
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        let mut recursion = TreeNodeRecursion::Continue;
        for filter in &self.scan.filters {
            recursion = recursion.visit_sibling(|| f(filter))?;
        }
        Ok(recursion)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (scan, schema) = (self.scan.clone(), self.schema());
        let (known, near) = (self.partitions[partition].clone(), self.near.clone().map(|near| (near, scan.clone())));
        let mut left = self.limit.unwrap_or(usize::MAX);
        let output = Arc::clone(&schema);
        let pieces = async move {
            let pieces = match near {
                Some((near, scan)) => near.pieces(scan).await?,
                None => known,
            };
            Ok::<_, DataFusionError>(futures::stream::iter(pieces.into_iter().map(Ok)))
        };
        let batches = futures::stream::once(pieces).try_flatten().try_filter_map(move |piece| {
            let read = if left == 0 { Ok(None) } else { scan.read(&piece, &output) };
            let batch = read.transpose().map(|batch| {
                batch.map(|batch| {
                    let batch = if batch.num_rows() > left { batch.slice(0, left) } else { batch };
                    left -= batch.num_rows();
                    batch
                })
            });
            // Pieces without a row give way too, so that a scan that finds nothing can be cancelled.
            async move {
                tokio::task::consume_budget().await;
                batch.transpose()
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        if partition.is_none() && self.limit.is_none() {
            let rows = self.scan.snapshot.live();
            statistics.num_rows =
                if self.scan.filters.is_empty() { Precision::Exact(rows) } else { Precision::Inexact(rows / 4) };
        }
        Ok(Arc::new(statistics))
    }
}
