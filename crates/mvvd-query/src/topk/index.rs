//! Whether an index answers a top-k, why it does not, and the rows that it proposes.
//!
//! An index proposes rows of one chunk; the operator scores them as it scores all rows, so distances and ties are those
//! of the exact answer. Chunks that the index does not cover, and chunks for which it finds too few rows, are scanned.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::SortOptions;
use datafusion::common::Result;
use mvvd_core::metric::Metric;
use mvvd_core::schema::IndexDef;
use mvvd_core::{ErrorKind, Ordinal, TableSchema};
use mvvd_index::{Effort, Filter, Hit, Knob, Query, Request, Term, VectorIndex, Vectors};
use mvvd_storage::{Chunk, Database, index_columns, index_types};
use mvvd_udfs::{BoundDistance, Distance, Form, QueryValues};

use super::score::{Score, SingleDistance};
use crate::Settings;
use crate::error::to_df;

/// Kinds of index in the order in which one is taken where several serve; others come after them.
const PREFERRED: [&str; 5] = ["hnsw", "ivf_rabitq", "ivf_pq", "inverted", "flat"];

/// More rows than this share of a chunk are found faster by a scan, unless there are few anyway: a row costs an index of the
/// order of a microsecond, and a scan some tens of nanoseconds.
const K_SHARE_MAX: usize = 64;
const FEW_ROWS: usize = 1_024;

/// An index that answers a top-k.
#[derive(Debug, Clone)]
pub(crate) struct IndexUse {
    database: Arc<Database>,
    pub(crate) def: IndexDef,
    /// Position of the column within the index.
    column: usize,
    distance: Distance,
    /// Rows without a distance come before all others.
    nulls_first: bool,
    /// Rows with a distance that is no number come before all others.
    nan_first: bool,
    effort: Effort,
    /// What of the effort counts.
    knob: Knob,
}

/// What is said about indexes in a plan.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    /// No index has to do with the query.
    None,
    /// There is an index on the column, and why it does not answer.
    Refused(String),
    Use(IndexUse),
}

impl Choice {
    /// Chooses an index for the order of `score` with one key.
    pub(crate) fn of(
        database: &Arc<Database>,
        schema: &TableSchema,
        score: &Score,
        order: SortOptions,
        settings: &Settings,
    ) -> Self {
        let on = |column: usize| {
            let id = schema.columns().get(column).map(|column| column.id);
            schema.indexes().iter().filter(move |index| id.is_some_and(|id| index.columns.contains(&id)))
        };
        if !score.columns_of_distances().any(|column| on(column).next().is_some()) {
            return Self::None;
        }
        let refused = |why: &str| Self::Refused(why.to_owned());
        if settings.exact {
            return refused("mvvd.exact is true");
        }
        if !settings.use_index {
            return refused("mvvd.use_index is false");
        }
        let Some(SingleDistance { column, distance, slope }) = score.single_distance() else {
            return refused("the order is not that of one distance");
        };
        let grows = (slope > 0.0) == (distance.form == Form::Distance);
        if grows == order.descending {
            return refused("the farthest rows come first");
        }
        let is_asked = |index: &IndexDef| settings.index_kind.is_none_or(|kind| kind == index.kind);
        let serves = |index: &&IndexDef| is_asked(index) && has_same_order(index.metric, distance.metric);
        let rank = |index: &&IndexDef| PREFERRED.iter().position(|kind| *kind == index.kind).unwrap_or(PREFERRED.len());
        match on(column).filter(serves).min_by_key(rank) {
            Some(def) => {
                let id = schema.columns()[column].id;
                let effort = Effort {
                    ef_search: settings.ef_search.map(|ef| ef as usize),
                    nprobe: settings.nprobe.map(|nprobe| nprobe as usize),
                    recall_target: Some(settings.recall_target as f32),
                };
                Self::Use(IndexUse {
                    database: Arc::clone(database),
                    column: def.columns.iter().position(|c| *c == id).unwrap_or_default(),
                    def: def.clone(),
                    distance,
                    nulls_first: order.nulls_first,
                    nan_first: order.descending,
                    effort,
                    // A kind that this program does not have is built over no chunk.
                    knob: database.registry().get(&def.kind).map_or(Knob::None, |kind| kind.knob()),
                })
            }
            None => {
                let metrics: Vec<String> =
                    on(column).map(|index| format!("index {} has metric {}", index.name, index.metric)).collect();
                Self::Refused(format!("{}, the order has {}", metrics.join(", "), distance.metric))
            }
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Refused(why) => write!(f, ", index=none ({why})"),
            Self::Use(index) => {
                write!(f, ", index={} ({}, {}), ", index.def.name, index.def.kind, index.def.metric)?;
                match (index.knob, index.effort.ef_search, index.effort.nprobe) {
                    (Knob::None, ..) => write!(f, "exact"),
                    (Knob::EfSearch, Some(ef), _) => write!(f, "ef_search={ef}"),
                    (Knob::Nprobe, _, Some(nprobe)) => write!(f, "nprobe={nprobe}"),
                    (Knob::Nprobe, _, None) => write!(f, "nprobe=auto"),
                    (Knob::EfSearch, None, _) => {
                        write!(f, "recall_target={}", index.effort.recall_target.unwrap_or_default())
                    }
                }
            }
        }
    }
}

/// Whether rows have the same order by both metrics.
fn has_same_order(index: Metric, query: Metric) -> bool {
    let plain = |metric| if metric == Metric::L2Squared { Metric::L2 } else { metric };
    plain(index) == plain(query)
}

impl IndexUse {
    /// The same where the order does not matter, so that it does not matter either which rows come first.
    pub(crate) fn of_range(self) -> Self {
        Self { nulls_first: false, nan_first: false, ..self }
    }

    /// Whether it finds every row that a scan finds.
    pub(crate) fn is_exact(&self) -> bool {
        self.knob == Knob::None
    }

    /// The search for the rows near the query of `bound`, over chunks of a table of this schema; none if the query is
    /// NULL.
    pub(crate) fn search<'a>(&'a self, schema: &'a TableSchema, bound: &BoundDistance) -> Option<IndexSearch<'a>> {
        let query = match bound.values()? {
            QueryValues::Dense(values) => Query::Dense(values.into()),
            QueryValues::Bits(bytes) => Query::Bits(bytes.into()),
            QueryValues::Sparse(indices, values) => Query::Sparse(indices.into(), values.into()),
        };
        let term = Term { column: self.column, metric: self.distance.metric, query, weight: 1.0 };
        Some(IndexSearch { index: self, schema, term })
    }
}

/// One run of an index over the chunks of a table.
pub(crate) struct IndexSearch<'a> {
    index: &'a IndexUse,
    schema: &'a TableSchema,
    term: Term,
}

/// An index over one chunk, with the columns that it is over.
pub(crate) struct ChunkIndex {
    index: Arc<dyn VectorIndex>,
    columns: Vec<ArrayRef>,
}

impl IndexSearch<'_> {
    /// Whether `k` rows of the chunk are found faster by a scan.
    pub(crate) fn is_too_many(&self, chunk: &Chunk, k: usize) -> bool {
        chunk.len() > FEW_ROWS && k >= chunk.len() / K_SHARE_MAX
    }

    /// The index over a chunk, if it is built and worth asking for `k` rows.
    pub(crate) fn over(&self, chunk: &Chunk, k: usize) -> Result<Option<ChunkIndex>> {
        if self.is_too_many(chunk, k) {
            return Ok(None);
        }
        let IndexUse { database, def, column, nulls_first, nan_first, knob, .. } = self.index;
        let Some(open) = database.index_of(chunk, self.schema, def) else { return Ok(None) };
        let columns = index_columns(chunk, self.schema, def).map_err(to_df)?;
        let vectors = columns[*column].len() - columns[*column].null_count();
        if *nulls_first && vectors < columns[*column].len() {
            return Ok(None);
        }
        // Of a product, the longest vectors are the nearest, and some may be too long for codes.
        let may_lack_nearest = *nan_first || def.metric == Metric::Dot && *knob != Knob::None;
        let lacks_some = match open.index.findable(*column) {
            Some(findable) => findable < vectors,
            None => def.metric == Metric::Cosine,
        };
        if may_lack_nearest && lacks_some {
            return Ok(None);
        }
        Ok(Some(ChunkIndex { index: Arc::clone(&open.index), columns }))
    }

    /// The nearest rows of a chunk that the index finds; none if it does not serve the query after all.
    pub(crate) fn nearest(&self, chunk: &ChunkIndex, k: usize, filter: Option<&Filter>) -> Result<Option<Vec<Hit>>> {
        let types = index_types(self.schema, &self.index.def).map_err(to_df)?;
        let columns: Vec<Vectors<'_>> =
            chunk.columns.iter().zip(types).map(|(array, ty)| Vectors::new(&**array, ty)).collect();
        let request = Request { terms: std::slice::from_ref(&self.term), k, filter, effort: self.index.effort };
        match chunk.index.search(&columns, &request) {
            Ok(hits) => Ok(Some(hits)),
            Err(e) if e.kind() == ErrorKind::Unsupported => Ok(None),
            Err(e) => Err(to_df(e)),
        }
    }

    /// The rows of a chunk that the index proposes, ascending; none if it finds fewer than there should be, so that all
    /// have to be looked at.
    pub(crate) fn propose(
        &self,
        chunk: &ChunkIndex,
        k: usize,
        filter: Option<&Filter>,
    ) -> Result<Option<Vec<Ordinal>>> {
        let Some(hits) = self.nearest(chunk, k, filter)? else { return Ok(None) };
        let matching = filter.map_or(chunk.index.rows(), Filter::count);
        // A kind from elsewhere is not trusted further than this.
        let may_be_found = |ordinal: Ordinal| match filter {
            Some(filter) => filter.has(ordinal),
            None => (ordinal as usize) < chunk.index.rows(),
        };
        let mut ordinals: Vec<Ordinal> =
            hits.into_iter().map(|hit| hit.ordinal).filter(|&ordinal| may_be_found(ordinal)).collect();
        ordinals.sort_unstable();
        ordinals.dedup();
        if ordinals.len() < k.min(matching) {
            return Ok(None);
        }
        Ok(Some(ordinals))
    }
}
