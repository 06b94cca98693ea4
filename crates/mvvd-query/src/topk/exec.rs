//! Runs a top-k: rows are scored on the search threads, those that an index proposes or all of them, and k are fetched.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow::compute::{SortOptions, take};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use mvvd_storage::{Database, Place};
use rayon::ThreadPool;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::heap::{Candidate, Heap, PlaceOrd, order_f64, value_of_bound};
use super::index::{Choice, ChunkIndex};
use super::score::{BoundScore, Score, Scored};
use crate::Settings;
use crate::bridge::compute;
use crate::error::{from_df, to_df};
use crate::reach::Reach;
use crate::row_filter::passing;
use crate::scan_exec::{Piece, Scan, with_row_id, write_scan};

/// Rows that one task scores at once: distances of a block stay in the first cache level.
const BLOCK_ROWS: usize = 2_048;

/// The first pieces are smaller: each one gives the next a bound, and rows before the first bound are scored in full.
const FIRST_ROWS: usize = 256;

/// Bytes that a sort key takes in a heap, about.
const KEY_BYTES: usize = 32;

/// One sort key over all columns of the table.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) expr: Arc<dyn PhysicalExpr>,
    pub(crate) options: SortOptions,
}

/// `ORDER BY keys LIMIT k` over one scan. Output: the k best rows, best first, ties in primary-key order. Exact unless an
/// index proposes the rows.
#[derive(Debug)]
pub(crate) struct TopKExec {
    scan: Scan,
    keys: Vec<Key>,
    k: usize,
    /// Output columns as expressions over all columns of the table.
    output: Vec<Arc<dyn PhysicalExpr>>,
    score: Score,
    index: Choice,
    pool: Arc<ThreadPool>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl TopKExec {
    pub(crate) fn new(
        scan: Scan,
        keys: Vec<Key>,
        k: usize,
        output: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
        ordering: &LexOrdering,
        pool: Arc<ThreadPool>,
    ) -> Result<Self> {
        let table = scan.snapshot.schema().arrow();
        let exprs: Vec<Arc<dyn PhysicalExpr>> = keys.iter().map(|key| Arc::clone(&key.expr)).collect();
        let score = Score::new(&exprs, table)?;
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, [ordering.clone()]),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Self {
            scan,
            keys,
            k,
            output,
            score,
            index: Choice::None,
            pool,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// The same with an index, if one can answer.
    pub(crate) fn with_index(mut self, database: &Arc<Database>, settings: &Settings) -> Self {
        // Places that are known are looked at faster than any index.
        if let ([key, ..], false) = (self.keys.as_slice(), matches!(self.scan.reach, Reach::Rows(_))) {
            self.index = Choice::of(database, self.scan.snapshot.schema(), &self.score, key.options, settings);
        }
        self
    }

    fn search(&self, rows_read: Count, distances: Count) -> Result<Search> {
        let types = self.score.key_types()?;
        let first_is_f64 = types.first() == Some(&DataType::Float64);
        let sort_field = |(ty, key): (&DataType, &Key)| SortField::new_with_options(ty.clone(), key.options);
        let mut rest: Vec<SortField> =
            types.iter().zip(&self.keys).skip(usize::from(first_is_f64)).map(sort_field).collect();
        let schema = self.scan.snapshot.schema();
        // Without a primary key, the numbers of the rows decide: insertion order.
        let tie = match schema.primary_key() {
            Some(key) => schema.arrow().field(key).data_type().clone(),
            None => DataType::UInt64,
        };
        rest.push(SortField::new(tie));
        Ok(Search {
            scan: self.scan.clone(),
            score: self.score.bind(&self.scan)?,
            index: self.index.clone(),
            first: first_is_f64.then(|| self.keys[0].options),
            rest,
            k: self.k,
            bound: AtomicU64::new(u64::MAX),
            cancelled: Arc::new(AtomicBool::new(false)),
            rows_read,
            distances,
        })
    }
}

/// One run of the operator.
struct Search {
    scan: Scan,
    score: BoundScore,
    index: Choice,
    /// How the first key is ordered, if it is an f64.
    first: Option<SortOptions>,
    rest: Vec<SortField>,
    k: usize,
    /// The smallest bound that any thread has reached; rows beyond it cannot win anywhere.
    bound: AtomicU64,
    cancelled: Arc<AtomicBool>,
    /// Rows that were looked at, and distances that were computed, for EXPLAIN ANALYZE.
    rows_read: Count,
    distances: Count,
}

impl Search {
    fn run(&self) -> Result<Vec<Candidate>> {
        let (proposed, done) = self.propose()?;
        let mut pieces = self.scan.pieces(BLOCK_ROWS);
        pieces.retain(|piece| !done.contains(&piece.chunk));
        let pieces = growing(pieces);
        let heap = pieces
            .par_iter()
            .try_fold(|| (Heap::new(self.k), None), |(heap, converter), piece| self.block(heap, converter, piece))
            .map(|folded| folded.map(|(heap, _)| heap))
            .try_reduce(|| Heap::new(self.k), |a, b| Ok(a.merge(b)))?;
        Ok(heap.merge(proposed).into_sorted())
    }

    /// The best of the rows that the index proposes, and the chunks that need not be looked at any more.
    fn propose(&self) -> Result<(Heap, HashSet<u32>)> {
        let nothing = || (Heap::new(self.k), HashSet::new());
        let Choice::Use(index) = &self.index else { return Ok(nothing()) };
        let (schema, chunks) = (self.scan.snapshot.schema(), self.scan.snapshot.chunks());
        let Some(search) = self.score.first_distance().and_then(|bound| index.search(schema, bound)) else {
            return Ok(nothing());
        };
        let mut covered: Vec<(u32, ChunkIndex)> = Vec::with_capacity(chunks.len());
        for (i, chunk) in chunks.iter().enumerate() {
            if let Some(of_chunk) = search.over(chunk, self.k)? {
                covered.push((i as u32, of_chunk));
            }
        }
        let propose = |(i, of_chunk): &(u32, ChunkIndex)| {
            let filter = passing(&self.scan, *i)?;
            Ok((*i, search.propose(of_chunk, self.k, filter.as_ref())?))
        };
        let found: Vec<(u32, Option<Vec<u32>>)> = match covered.as_slice() {
            // Without the way over other threads.
            [one] => vec![propose(one)?],
            many => many.par_iter().map(propose).collect::<Result<_>>()?,
        };
        let (mut heap, mut done) = nothing();
        let mut converter = None;
        for (i, rows) in found {
            let Some(rows) = rows else { continue };
            self.rows_read.add(rows.len());
            let piece = Piece::new(i, 0..chunks[i as usize].len());
            (heap, converter) = self.offer(heap, converter, &piece, Some(rows.into()))?;
            done.insert(i);
        }
        Ok((heap, done))
    }

    fn block(
        &self,
        heap: Heap,
        converter: Option<RowConverter>,
        piece: &Piece,
    ) -> Result<(Heap, Option<RowConverter>)> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Ok((heap, converter));
        }
        self.rows_read.add(piece.range.len());
        let selected = self.scan.selection(piece)?;
        self.offer(heap, converter, piece, selected)
    }

    /// Scores the rows at `selected` (all if none) of a piece and keeps the best.
    fn offer(
        &self,
        mut heap: Heap,
        converter: Option<RowConverter>,
        piece: &Piece,
        selected: Option<UInt32Array>,
    ) -> Result<(Heap, Option<RowConverter>)> {
        let converter = match converter {
            Some(converter) => converter,
            None => RowConverter::new(self.rest.clone())?,
        };
        let chunk = &self.scan.snapshot.chunks()[piece.chunk as usize];
        if selected.as_ref().is_some_and(Array::is_empty) {
            return Ok((heap, Some(converter)));
        }
        let bound = heap.bound().min(self.bound.load(Ordering::Relaxed));
        let reach = self.first.and_then(|options| value_of_bound(bound, options));
        let Scored { rows: selected, keys, distances } =
            self.score.evaluate(&self.scan, chunk, piece.range.clone(), selected, reach)?;
        self.distances.add(distances);
        let rows = selected.as_ref().map_or(piece.range.len(), Array::len);

        // Most of the others fall out here, by one comparison.
        let (firsts, survivors): (Vec<u64>, Vec<u32>) = match self.first {
            Some(options) => {
                let first = keys[0].as_primitive::<Float64Type>();
                let ordered = |i: usize| order_f64(first.is_valid(i).then(|| first.value(i)), options);
                (0..rows).map(|i| (ordered(i), i as u32)).filter(|(key, _)| *key <= bound).unzip()
            }
            None => (0..rows as u32).map(|i| (0, i)).unzip(),
        };
        if survivors.is_empty() {
            return Ok((heap, Some(converter)));
        }
        let survivors = UInt32Array::from(survivors);
        let all = survivors.len() == rows;
        let mut rest: Vec<ArrayRef> = Vec::with_capacity(self.rest.len());
        for key in &keys[usize::from(self.first.is_some())..] {
            let key = if all { Arc::clone(key) } else { take(key, &survivors, None)? };
            rest.push(canonical_floats(key));
        }
        let ordinals: UInt32Array = match &selected {
            Some(selected) => take(selected, &survivors, None)?.as_primitive().clone(),
            None => survivors,
        };
        rest.push(take(&chunk.keys(piece.range.clone()).map_err(to_df)?, &ordinals, None)?);
        let encoded = converter.convert_columns(&rest)?;
        for ((first, row), ordinal) in firsts.into_iter().zip(encoded.iter()).zip(ordinals.values()) {
            if first <= heap.bound() {
                let place = PlaceOrd(piece.chunk, piece.range.start as u32 + ordinal);
                heap.push(Candidate { first, rest: row.as_ref().into(), place });
            }
        }
        self.bound.fetch_min(heap.bound(), Ordering::Relaxed);
        Ok((heap, Some(converter)))
    }

    /// The output columns for the winners.
    fn fetch(
        &self,
        winners: Vec<Candidate>,
        output: &[Arc<dyn PhysicalExpr>],
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        let places: Vec<Place> = winners.iter().map(|winner| winner.place.into()).collect();
        let table = self.scan.snapshot.schema();
        let full = with_row_id(table.arrow());
        let mut used: Vec<usize> =
            output.iter().flat_map(datafusion::physical_expr::utils::collect_columns).map(|c| c.index()).collect();
        used.sort_unstable();
        used.dedup();
        let stored: Vec<usize> = used.iter().copied().filter(|i| *i < table.columns().len()).collect();
        let taken = self.scan.snapshot.take(&places, &stored).map_err(to_df)?;
        let mut fields: Vec<Arc<Field>> = Vec::with_capacity(full.fields().len());
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(full.fields().len());
        for (i, field) in full.fields().iter().enumerate() {
            if let Some(position) = stored.iter().position(|s| *s == i) {
                fields.push(Arc::clone(field));
                columns.push(Arc::clone(taken.column(position)));
            } else if i == table.columns().len() {
                let chunks = self.scan.snapshot.chunks();
                let ids = places.iter().map(|p| chunks[p.chunk as usize].row_id(p.ordinal as usize).0);
                fields.push(Arc::clone(field));
                columns.push(Arc::new(arrow::array::UInt64Array::from_iter_values(ids)));
            } else {
                fields.push(Arc::new(Field::new(field.name(), DataType::Null, true)));
                columns.push(Arc::new(arrow::array::NullArray::new(places.len())));
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(places.len()));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        let columns =
            output.iter().map(|expr| expr.evaluate(&batch)?.into_array(places.len())).collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
    }
}

/// The same rows, the first piece cut into smaller ones that double.
fn growing(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut pieces = pieces.into_iter();
    let mut all = Vec::with_capacity(pieces.len() + 4);
    if let Some(Piece { chunk, range, .. }) = pieces.next() {
        let (mut start, mut rows) = (range.start, FIRST_ROWS);
        while start < range.end {
            let end = (start + rows).min(range.end);
            all.push(Piece::new(chunk, start..end));
            (start, rows) = (end, rows * 2);
        }
    }
    all.extend(pieces);
    all
}

/// Zeros and NaNs in one form each, so that they tie.
fn canonical_floats(key: ArrayRef) -> ArrayRef {
    match key.data_type() {
        DataType::Float64 => {
            let one = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            Arc::new(key.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        DataType::Float32 => {
            let one = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            Arc::new(key.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        _ => key,
    }
}

/// Tells the search threads to stop when the query is dropped.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl DisplayAs for TopKExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(|key| format!("{} {}", key.expr, key.options)).collect();
        let tie = match self.scan.snapshot.schema().primary_key() {
            Some(i) => self.scan.snapshot.schema().columns()[i].field.name().as_str(),
            None => "insertion order",
        };
        write!(
            f,
            "{}: k={}, keys=[{}], ties=[{tie}], distances={}",
            self.name(),
            self.k,
            keys.join(", "),
            self.score.distances()
        )?;
        write!(f, "{}, table={}", self.index, self.scan.table)?;
        write_scan(&self.scan, f)
    }
}

impl ExecutionPlan for TopKExec {
    fn name(&self) -> &'static str {
        if matches!(self.index, Choice::Use(_)) { "IndexTopKExec" } else { "ExactTopKExec" }
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
        for expr in self.keys.iter().map(|key| &key.expr).chain(&self.scan.filters).chain(&self.output) {
            recursion = recursion.visit_sibling(|| f(expr))?;
        }
        Ok(recursion)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn fetch(&self) -> Option<usize> {
        Some(self.k)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = MetricBuilder::new(&self.metrics).output_rows(partition);
        let rows_read = MetricBuilder::new(&self.metrics).counter("rows_read", partition);
        let distances = MetricBuilder::new(&self.metrics).counter("distances", partition);
        let time = MetricBuilder::new(&self.metrics).elapsed_compute(partition);
        let (schema, output, pool) = (self.schema(), self.output.clone(), Arc::clone(&self.pool));
        let reservation = MemoryConsumer::new("top-k").register(context.memory_pool());
        // Query vectors may come from a subquery, which has run by the time the stream is polled.
        let plan = Self {
            scan: self.scan.clone(),
            keys: self.keys.clone(),
            k: self.k,
            output: Vec::new(),
            score: self.score.clone(),
            index: self.index.clone(),
            pool: Arc::clone(&self.pool),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        };
        let out_schema = Arc::clone(&schema);
        let batch = async move {
            let search = plan.search(rows_read, distances)?;
            // One heap a thread, and the one that they are merged into.
            let entries = search.k.min(search.scan.snapshot.live()) * (pool.current_num_threads() + 1);
            reservation.try_grow(entries * (size_of::<Candidate>() + KEY_BYTES * search.rest.len()))?;
            let _cancel = CancelOnDrop(Arc::clone(&search.cancelled));
            let batch = compute(&pool, move || {
                let _timer = time.timer();
                let winners = search.run().map_err(from_df)?;
                search.fetch(winners, &output, &out_schema).map_err(from_df)
            })
            .await
            .map_err(to_df)?;
            reservation.try_grow(batch.get_array_memory_size())?;
            rows.add(batch.num_rows());
            Ok(batch)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::once(batch))))
    }
}
