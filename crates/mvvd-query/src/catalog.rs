//! How DataFusion finds our tables: schemas `public` (tables and files), `mvvd` (system tables) and two for internal use.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider, Session, TableProvider};
use datafusion::common::{DFSchema, Result};
use datafusion::datasource::TableType;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use mvvd_storage::{Database, Snapshot};
use parking_lot::{Mutex, RwLock};

use crate::reach::Reach;
use crate::scan_exec::{Scan, ScanExec, with_row_id};
use crate::system_tables;

/// Name of the catalog.
pub(crate) const CATALOG: &str = "mvvd";
/// Schema of the users' tables.
pub(crate) const PUBLIC: &str = "public";
/// Schema of the system tables.
pub(crate) const SYSTEM: &str = "mvvd";
/// The users' tables with their row numbers, for UPDATE and DELETE.
pub(crate) const ROWS: &str = "__mvvd_rows";
/// Relations that live for one statement: files, and rows on their way through a write.
pub(crate) const SCRATCH: &str = "__mvvd_scratch";

/// Which version of a table a statement reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reads {
    /// Changes that are as durable as the database promises.
    Durable,
    /// All changes that are recorded: what the next change builds on.
    Newest,
}

/// A relation that is lent.
struct Scratch {
    table: Arc<dyn TableProvider>,
    /// How many statements it is lent to: two may read the same file.
    lent: usize,
}

/// The catalog as one session sees it.
pub(crate) struct Catalog {
    database: Arc<Database>,
    scratch: Arc<RwLock<HashMap<String, Scratch>>>,
    /// The tables that the statement has met, each at the version that it met first.
    met: Mutex<HashMap<String, Arc<Snapshot>>>,
    reads: Reads,
    settings: Arc<RwLock<crate::Settings>>,
}

impl fmt::Debug for Catalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalog").finish_non_exhaustive()
    }
}

impl Catalog {
    pub(crate) fn new(database: Arc<Database>, settings: Arc<RwLock<crate::Settings>>) -> Arc<Self> {
        Arc::new(Self { database, scratch: Arc::default(), met: Mutex::default(), reads: Reads::Durable, settings })
    }

    /// The catalog for one statement.
    pub(crate) fn for_statement(&self, reads: Reads) -> Self {
        Self {
            database: Arc::clone(&self.database),
            scratch: Arc::clone(&self.scratch),
            met: Mutex::default(),
            reads,
            settings: Arc::clone(&self.settings),
        }
    }

    fn snapshot(&self, name: &str) -> Option<Arc<Snapshot>> {
        let mut met = self.met.lock();
        if let Some(snapshot) = met.get(name) {
            return Some(Arc::clone(snapshot));
        }
        let table = self.database.find(name)?;
        let snapshot = match self.reads {
            Reads::Durable => table.snapshot(),
            Reads::Newest => table.head(),
        };
        met.insert(name.to_owned(), Arc::clone(&snapshot));
        Some(snapshot)
    }

    /// Makes a relation visible under `name` in the scratch schema until the guard goes.
    pub(crate) fn lend(self: &Arc<Self>, name: String, table: Arc<dyn TableProvider>) -> Lent {
        let mut scratch = self.scratch.write();
        let lent = scratch.get(&name).map_or(0, |before| before.lent) + 1;
        scratch.insert(name.clone(), Scratch { table, lent });
        drop(scratch);
        Lent { catalog: Arc::clone(self), name }
    }

    fn lent(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.scratch.read().get(name).map(|scratch| Arc::clone(&scratch.table))
    }

    fn find(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>> {
        match schema {
            PUBLIC => match self.snapshot(name) {
                Some(snapshot) => Some(Arc::new(Source::new(name, snapshot, false))),
                None => self.lent(name),
            },
            ROWS => Some(Arc::new(Source::new(name, self.snapshot(name)?, true))),
            SYSTEM => system_tables::find(name, &self.database, &self.settings.read()),
            SCRATCH => self.lent(name),
            _ => None,
        }
    }
}

/// A scratch relation; it disappears when this does.
#[derive(Debug)]
pub(crate) struct Lent {
    catalog: Arc<Catalog>,
    name: String,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut scratch = self.catalog.scratch.write();
        if let Some(of_name) = scratch.get_mut(&self.name) {
            of_name.lent -= 1;
            if of_name.lent == 0 {
                scratch.remove(&self.name);
            }
        }
    }
}

/// The single catalog, as DataFusion asks for it.
#[derive(Debug)]
pub(crate) struct Catalogs(pub(crate) Arc<Catalog>);

impl CatalogProviderList for Catalogs {
    fn register_catalog(&self, _: String, _: Arc<dyn CatalogProvider>) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::new(Schemas(Arc::clone(&self.0))) as Arc<dyn CatalogProvider>)
    }
}

#[derive(Debug)]
struct Schemas(Arc<Catalog>);

impl CatalogProvider for Schemas {
    fn schema_names(&self) -> Vec<String> {
        vec![PUBLIC.to_owned(), SYSTEM.to_owned()]
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        let name = [PUBLIC, SYSTEM, ROWS, SCRATCH].into_iter().find(|known| *known == name)?;
        Some(Arc::new(OneSchema { catalog: Arc::clone(&self.0), name }))
    }
}

#[derive(Debug)]
struct OneSchema {
    catalog: Arc<Catalog>,
    name: &'static str,
}

#[async_trait]
impl SchemaProvider for OneSchema {
    fn table_names(&self) -> Vec<String> {
        match self.name {
            PUBLIC => self.catalog.database.tables().into_iter().map(|(name, _)| name).collect(),
            SYSTEM => system_tables::NAMES.iter().map(|name| (*name).to_owned()).collect(),
            _ => Vec::new(),
        }
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(self.catalog.find(self.name, name))
    }

    fn table_exist(&self, name: &str) -> bool {
        match self.name {
            SYSTEM => system_tables::NAMES.contains(&name),
            _ => self.catalog.find(self.name, name).is_some(),
        }
    }
}

/// One table at one version, for one statement.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    snapshot: Arc<Snapshot>,
    schema: arrow::datatypes::SchemaRef,
}

impl Source {
    pub(crate) fn new(name: &str, snapshot: Arc<Snapshot>, row_ids: bool) -> Self {
        let arrow = snapshot.schema().arrow();
        let schema = if row_ids { Arc::new(with_row_id(arrow)) } else { Arc::clone(arrow) };
        Self { name: name.to_owned(), snapshot, schema }
    }
}

#[async_trait]
impl TableProvider for Source {
    fn schema(&self) -> arrow::datatypes::SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let full = DFSchema::try_from(with_row_id(self.snapshot.schema().arrow()))?;
        let filters = filters
            .iter()
            .map(|filter| state.create_physical_expr(filter.clone(), &full))
            .collect::<Result<Vec<_>>>()?;
        let projection = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let reach = Reach::of(&self.snapshot, &filters)?;
        let scan = Scan { table: self.name.clone(), snapshot: Arc::clone(&self.snapshot), projection, filters, reach };
        Ok(Arc::new(ScanExec::new(scan, limit, state.config().target_partitions())?))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(filters
            .iter()
            .map(|filter| match is_row_condition(filter) {
                true => TableProviderFilterPushDown::Exact,
                false => TableProviderFilterPushDown::Unsupported,
            })
            .collect())
    }
}

/// Whether a condition needs nothing but one row: no subquery, no outer query, no randomness.
fn is_row_condition(filter: &Expr) -> bool {
    use datafusion::common::tree_node::TreeNode;
    let needs_more = filter.exists(|e| {
        Ok(matches!(
            e,
            Expr::ScalarSubquery(_)
                | Expr::Exists(_)
                | Expr::InSubquery(_)
                | Expr::SetComparison(_)
                | Expr::OuterReferenceColumn(..)
                | Expr::Placeholder(_)
        ))
    });
    matches!(needs_more, Ok(false)) && !filter.is_volatile()
}
