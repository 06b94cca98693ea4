//! `hnsw_distance('index', key, query)` and its like: how far a row is as the codes of an index have it.
//!
//! ```text
//! hnsw_distance('items_v_idx', id, '[1,2,3]')   =>   mvvd_code_distance('items_v_idx', id, CAST('[1,2,3]' AS VECTOR(3)))
//! ```
//!
//! The name is that of a kind of index, with `_distance` after it. The row is found by its key as the table is now. NULL
//! for a row that does not exist, or that the index does not cover or has no code for.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float64Array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Float32Type};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments};
use mvvd_core::schema::IndexDef;
use mvvd_core::{Error, Ordinal, Result, VectorKind};
use mvvd_index::{Query, Term, Vectors};
use mvvd_storage::{Database, Place, Snapshot, index_columns, index_types, keys_of};

use crate::error::to_df;
use crate::indexes;
use crate::search_functions::text_of;
use crate::syntax::parse_expr;

/// Name of the function that calls are replaced by.
const NAME: &str = "mvvd_code_distance";
/// What follows the kind in the name that users write.
const SUFFIX: &str = "_distance";

/// Replaces the call of such a function.
pub(crate) fn expand(database: &Database, expr: &mut Expr) -> Result<()> {
    let Expr::Function(call) = &*expr else { return Ok(()) };
    let name = call.name.to_string().to_ascii_lowercase();
    let Some(kind) = name.strip_suffix(SUFFIX).filter(|kind| database.registry().get(kind).is_ok()) else {
        return Ok(());
    };
    let wrong = |what: String| {
        Error::invalid(format!("{name}: {what}")).with_hint(format!("write {name}('index', key, query)"))
    };
    let args: &[FunctionArg] = match &call.args {
        FunctionArguments::List(list) => &list.args,
        _ => &[],
    };
    let [index, key, query] = args else { return Err(wrong(format!("got {} arguments", args.len()))) };
    let (
        FunctionArg::Unnamed(FunctionArgExpr::Expr(index)),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(key)),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(query)),
    ) = (index, key, query)
    else {
        return Err(wrong("arguments are values in order".to_owned()));
    };
    let index_name = text_of(index).ok_or_else(|| wrong("the name of the index is a text".to_owned()))?;
    let (snapshot, def) = find(database, &index_name)?;
    if def.kind != kind {
        return Err(Error::invalid(format!("{name}: index \"{index_name}\" is of type {}", def.kind))
            .with_hint(format!("write {}{SUFFIX}", def.kind)));
    }
    let types = index_types(snapshot.schema(), &def)?;
    let [ty] = types[..] else {
        return Err(Error::unsupported(format!("{name}: index \"{index_name}\" is over several columns")));
    };
    if !matches!(ty.kind, VectorKind::Dense | VectorKind::Half) {
        return Err(Error::unsupported(format!("{name}: index \"{index_name}\" over {ty} has no codes")));
    }
    let mut expanded = parse_expr(&format!("{NAME}(i, k, CAST(q AS VECTOR({})))", ty.dims))?;
    if let Expr::Function(call) = &mut expanded
        && let FunctionArguments::List(list) = &mut call.args
        && let [
            FunctionArg::Unnamed(FunctionArgExpr::Expr(to_index)),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(to_key)),
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Cast { expr: to_query, .. })),
        ] = &mut list.args[..]
    {
        (*to_index, *to_key, **to_query) = (index.clone(), key.clone(), query.clone());
    }
    *expr = expanded;
    Ok(())
}

/// The index of this name, and its table as it is now.
fn find(database: &Database, name: &str) -> Result<(Arc<Snapshot>, IndexDef)> {
    let found = indexes::find(database, name).and_then(|found| {
        let snapshot = found.table.snapshot();
        let def = snapshot.schema().indexes().iter().find(|index| index.id == found.id)?.clone();
        Some((snapshot, def))
    });
    found.ok_or_else(|| {
        Error::not_found(format!("index \"{name}\" does not exist")).with_hint("mvvd.indexes lists the indexes")
    })
}

/// The function that calls are replaced by.
pub(crate) fn udf(database: &Arc<Database>) -> ScalarUDF {
    let signature = Signature::any(3, Volatility::Volatile);
    ScalarUDF::from(CodeDistance { database: Arc::clone(database), signature })
}

struct CodeDistance {
    database: Arc<Database>,
    signature: Signature,
}

impl fmt::Debug for CodeDistance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeDistance").finish_non_exhaustive()
    }
}

impl PartialEq for CodeDistance {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.database, &other.database)
    }
}

impl Eq for CodeDistance {}

impl Hash for CodeDistance {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.database).hash(state);
    }
}

impl ScalarUDFImpl for CodeDistance {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let rows = args.number_rows;
        let [index, keys, queries] = <[ColumnarValue; 3]>::try_from(args.args)
            .map_err(|_| to_df(Error::internal(format!("{NAME} has three arguments"))))?;
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(index))) = index else {
            return Err(to_df(Error::internal(format!("{NAME} starts with the name of an index"))));
        };
        let is_one_query = matches!(queries, ColumnarValue::Scalar(_));
        let keys = keys.into_array(rows)?;
        let queries = queries.into_array(if is_one_query { 1 } else { rows })?;
        let distances = self.distances(&index, &keys, queries.as_fixed_size_list(), is_one_query).map_err(to_df)?;
        Ok(ColumnarValue::Array(Arc::new(distances)))
    }
}

impl CodeDistance {
    /// The distance of the row of each key to the query, or to the query of the same number.
    fn distances(
        &self,
        index: &str,
        keys: &ArrayRef,
        queries: &FixedSizeListArray,
        is_one_query: bool,
    ) -> Result<Float64Array> {
        let (snapshot, def) = find(&self.database, index)?;
        let places = places(&snapshot, keys)?;
        let mut distances = vec![None; places.len()];
        if is_one_query {
            self.fill(&snapshot, &def, &places, queries, 0, &mut distances)?;
        } else {
            for (row, distance) in distances.iter_mut().enumerate() {
                let distance = std::slice::from_mut(distance);
                self.fill(&snapshot, &def, &places[row..=row], queries, row, distance)?;
            }
        }
        Ok(distances.into())
    }

    /// The distances of rows to query number `query`.
    fn fill(
        &self,
        snapshot: &Snapshot,
        def: &IndexDef,
        places: &[Option<Place>],
        queries: &FixedSizeListArray,
        query: usize,
        distances: &mut [Option<f64>],
    ) -> Result<()> {
        if queries.is_null(query) {
            return Ok(());
        }
        let query = Query::Dense(queries.value(query).as_primitive::<Float32Type>().values().as_ref().into());
        let term = Term { column: 0, metric: def.metric, query, weight: 1.0 };
        // By chunk, by ordinal: the rows that ask for it.
        let mut asked: BTreeMap<u32, BTreeMap<Ordinal, Vec<usize>>> = BTreeMap::new();
        for (row, place) in places.iter().enumerate() {
            if let Some(place) = place {
                asked.entry(place.chunk).or_default().entry(place.ordinal).or_default().push(row);
            }
        }
        let schema = snapshot.schema();
        for (chunk, rows) in asked {
            let chunk = &snapshot.chunks()[chunk as usize];
            let Some(open) = self.database.index_of(chunk, schema, def) else { continue };
            let (columns, types) = (index_columns(chunk, schema, def)?, index_types(schema, def)?);
            let columns: Vec<Vectors<'_>> =
                columns.iter().zip(types).map(|(array, ty)| Vectors::new(&**array, ty)).collect();
            let ordinals: Vec<Ordinal> = rows.keys().copied().collect();
            let estimates = open.index.estimates(&columns, &term, &ordinals)?;
            for (rows, estimate) in rows.into_values().zip(estimates) {
                let estimate = (!estimate.is_nan()).then_some(estimate);
                rows.into_iter().for_each(|row| distances[row] = estimate);
            }
        }
        Ok(())
    }
}

/// Where the row of each key is; none for NULL and for keys that no row has.
fn places(snapshot: &Snapshot, keys: &ArrayRef) -> Result<Vec<Option<Place>>> {
    let schema = snapshot.schema();
    let key = schema.primary_key().ok_or_else(|| {
        Error::invalid("the table of the index has no primary key").with_hint("rows are named by their key here")
    })?;
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let keys = cast_with_options(keys, schema.columns()[key].field.data_type(), &options)?;
    let mut places = vec![None; keys.len()];
    let given: Vec<usize> = (0..keys.len()).filter(|&row| keys.is_valid(row)).collect();
    let valid = arrow::compute::filter(&keys, &arrow::compute::is_not_null(&keys)?)?;
    for (row, key) in given.into_iter().zip(keys_of(&valid)?) {
        places[row] = snapshot.find(&key)?;
    }
    Ok(places)
}
