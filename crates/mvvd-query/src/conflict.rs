//! INSERT … ON CONFLICT: which of the new rows meet others, and what becomes of those.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::sql::sqlparser::ast::{self, ConflictTarget, Expr, OnConflictAction};
use mvvd_core::{Error, Result, TableSchema};
use mvvd_storage::{Key, Place, Snapshot, keys_of};

use crate::Value;
use crate::dml::{Change, nullable};
use crate::error::from_df;
use crate::prepare::normal;
use crate::scan_exec::with_row_id;
use crate::session::Session;
use crate::syntax::{and, column_of, equals, scratch_relation, unique_name};
/// Name of the proposed row in ON CONFLICT DO UPDATE.
const EXCLUDED: &str = "excluded";
/// Column that pairs a row with the one proposed for it.
const PAIR: &str = "__mvvd_pair";

impl Session {
    /// Sorts new rows into those that are free and those whose key exists, and applies the conflict action.
    pub(crate) async fn resolve_conflicts(
        &self,
        snapshot: &Arc<Snapshot>,
        alias: &str,
        rows: Vec<RecordBatch>,
        conflict: &ast::OnConflict,
        params: &[Value],
    ) -> Result<Change> {
        let schema = snapshot.schema();
        let key = check_conflict_target(conflict, schema)?;
        let action = match &conflict.action {
            OnConflictAction::DoUpdate(action) => Some(action),
            OnConflictAction::DoNothing => None,
        };
        let (snapshot, is_update) = (Arc::clone(snapshot), action.is_some());
        let split = self.engine.bridge.block(move || Split::of(&snapshot, key, &rows, is_update)).await?;
        let Split { free, excluded, current, ids } = split;
        let Some(action) = action.filter(|_| excluded.num_rows() > 0) else {
            return Ok(Change { remove: Vec::new(), add: vec![free] });
        };

        // Pair each row with the one that was to replace it, and treat it as an UPDATE … FROM.
        let pair = Field::new(PAIR, DataType::UInt32, false);
        let pairs: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..ids.len() as u32));
        let relation = |batch: &RecordBatch, extra: Vec<(Field, ArrayRef)>| -> Result<Arc<MemTable>> {
            let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
            let mut columns = batch.columns().to_vec();
            for (field, array) in extra {
                fields.push(Arc::new(field));
                columns.push(array);
            }
            let schema = Arc::new(Schema::new(fields));
            let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
            Ok(Arc::new(MemTable::try_new(schema, vec![vec![batch]]).map_err(from_df)?))
        };
        let row_id = with_row_id(schema.arrow()).field(schema.columns().len()).clone();
        let (old_name, new_name) = (unique_name(), unique_name());
        let _old = self
            .inner
            .catalog
            .lend(old_name.clone(), relation(&current, vec![(row_id, ids), (pair.clone(), Arc::clone(&pairs))])?);
        let _new = self.inner.catalog.lend(new_name.clone(), relation(&excluded, vec![(pair, pairs)])?);
        let from = vec![scratch_relation(&old_name, alias), scratch_relation(&new_name, EXCLUDED)];
        let paired = equals(column_of(alias, PAIR), column_of(EXCLUDED, PAIR));
        let selection = match &action.selection {
            Some(condition) => and(paired, Expr::Nested(Box::new(condition.clone()))),
            None => paired,
        };
        let mut change = self.updated_rows(schema, alias, from, &action.assignments, Some(selection), params).await?;
        change.add.insert(0, free);
        Ok(change)
    }
}

/// The rows of an INSERT … ON CONFLICT, by whether their key exists.
struct Split {
    free: RecordBatch,
    /// The others, and the rows that they meet, in the same order.
    excluded: RecordBatch,
    current: RecordBatch,
    /// The names of those.
    ids: ArrayRef,
}

impl Split {
    /// Without `is_update`, rows that others meet are left out, and of new ones with the same key all but the first.
    fn of(snapshot: &Snapshot, key: usize, rows: &[RecordBatch], is_update: bool) -> Result<Self> {
        let schema = snapshot.schema();
        let rows = concat_batches(&Arc::new(nullable(schema.arrow())), rows)?;
        let keys = keys_of(rows.column(key))
            .map_err(|e| e.context(format!("column \"{}\"", schema.columns()[key].field.name())))?;
        let existing = keys.iter().map(|key| snapshot.find(key)).collect::<Result<Vec<Option<Place>>>>()?;
        let mut seen: HashSet<&Key> = HashSet::new();
        let first_time: Vec<bool> = keys.iter().map(|key| seen.insert(key)).collect();
        if let Some(i) = first_time.iter().position(|first| !first).filter(|_| is_update) {
            return Err(Error::conflict(format!(
                "ON CONFLICT DO UPDATE cannot change a row twice: key {} comes twice",
                keys[i]
            ))
            .with_hint("make the keys of the inserted rows distinct"));
        }
        let pick = |wanted: &dyn Fn(usize) -> bool| -> Result<RecordBatch> {
            let picked: UInt32Array =
                (0..rows.num_rows()).filter(|&i| wanted(i)).map(|i| i as u32).collect::<Vec<_>>().into();
            Ok(take_record_batch(&rows, &picked)?)
        };
        let found: Vec<Place> = existing.iter().flatten().filter(|_| is_update).copied().collect();
        let all: Vec<usize> = (0..schema.columns().len()).collect();
        Ok(Self {
            free: pick(&|i| existing[i].is_none() && first_time[i])?,
            excluded: pick(&|i| is_update && existing[i].is_some())?,
            current: snapshot.take(&found, &all)?,
            ids: Arc::new(UInt64Array::from_iter_values(found.iter().map(|place| snapshot.row_id(*place).0))),
        })
    }
}

fn check_conflict_target(conflict: &ast::OnConflict, schema: &TableSchema) -> Result<usize> {
    let Some(key) = schema.primary_key() else {
        return Err(Error::invalid("ON CONFLICT needs a table with a primary key"));
    };
    let name = schema.columns()[key].field.name();
    match &conflict.conflict_target {
        None if matches!(conflict.action, OnConflictAction::DoNothing) => Ok(key),
        None => Err(Error::invalid("ON CONFLICT DO UPDATE needs the conflict column")
            .with_hint(format!("write ON CONFLICT ({name})"))),
        Some(ConflictTarget::Columns(columns)) if columns.len() == 1 && normal(&columns[0]) == *name => Ok(key),
        Some(_) => {
            Err(Error::invalid("ON CONFLICT takes the primary key").with_hint(format!("write ON CONFLICT ({name})")))
        }
    }
}
