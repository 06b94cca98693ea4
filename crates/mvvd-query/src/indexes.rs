//! CREATE INDEX and DROP INDEX: taken from the syntax tree.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, ObjectName};
use mvvd_core::metric::Metric;
use mvvd_core::schema::IndexDef;
use mvvd_core::{Error, Result, TableSchema, VectorKind, VectorType};
use mvvd_storage::Database;

use crate::answer::Answer;
use crate::ddl::table_name;
use crate::prepare::normal;
use crate::progress::Meter;
use crate::session::Session;

/// Longest name of an index, in bytes.
const NAME_BYTES_MAX: usize = 255;

impl Session {
    /// Makes an index and, unless it is to be built in the background, waits until it covers all rows.
    pub(crate) async fn create_index(&self, create: ast::CreateIndex) -> Result<Answer> {
        check_clauses(&create)?;
        let table = table_name(&create.table_name)?;
        // A column must not go while the index is made, nor a second index get the name.
        let lock = self.engine.locks.lock(&table).await;
        let names = self.engine.index_names.lock().await;
        let database = &self.engine.database;
        let handle = database.table(&table)?;
        let head = handle.head();
        let schema = Arc::clone(head.schema());
        let wanted = Wanted::of(&create, &schema)?;
        let name = match &create.name {
            Some(name) => index_name(name)?,
            None => free_name(database, &table, &schema, &wanted.columns),
        };
        if find(database, &name).is_some() {
            return match create.if_not_exists {
                true => Ok(Answer::done("CREATE INDEX")),
                false => Err(Error::already_exists(format!("index \"{name}\" already exists"))),
            };
        }
        let options = wanted.options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let spec = database.registry().spec(&wanted.kind, wanted.metric, wanted.types, options)?;
        let def = IndexDef {
            id: 0,
            name: name.clone(),
            kind: spec.kind,
            metric: spec.metric,
            columns: wanted.columns.iter().map(|&i| schema.columns()[i].id).collect(),
            options: spec.options.given().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        };
        let (shared, of_table) = (Arc::clone(database), handle);
        let add = move || {
            let _lock = lock;
            let id = shared.add_index(&of_table, def)?;
            Ok(Added { database: shared, table: of_table, id, is_kept: false })
        };
        let mut added = self.engine.bridge.block(add).await?;
        drop(names);
        if create.concurrently {
            added.is_kept = true;
            database.index_in_background()?;
            return Ok(Answer::done("CREATE INDEX"));
        }

        let rows = head.live();
        let meter = Meter::start(self.inner.progress.read().clone(), &format!("index {name}"), Some(rows as u64));
        let cancel = CancelOnDrop::default();
        let cancelled = Arc::clone(&cancel.0);
        let build = move || {
            let told = AtomicUsize::new(0);
            let progress = |share: f32| {
                let done = (share as f64 * rows as f64) as usize;
                let before = told.fetch_max(done, Ordering::Relaxed);
                meter.advance(done.saturating_sub(before));
            };
            added.database.build_index(&added.table, added.id, &progress, &cancelled)?;
            added.is_kept = true;
            Ok(())
        };
        self.engine.bridge.block(build).await?;
        Ok(Answer::done("CREATE INDEX"))
    }

    pub(crate) async fn drop_indexes(&self, if_exists: bool, names: &[ObjectName]) -> Result<Answer> {
        let mut names = names.iter().map(index_name).collect::<Result<Vec<_>>>()?;
        names.sort();
        names.dedup();
        // Statements that change their tables end first; several locks are taken in order of the tables' names.
        let tables: BTreeSet<String> =
            names.iter().filter_map(|name| Some(find(&self.engine.database, name)?.name)).collect();
        let mut locks = Vec::with_capacity(tables.len());
        for table in &tables {
            locks.push(self.engine.locks.lock(table).await);
        }
        let mut found: Vec<Found> = Vec::with_capacity(names.len());
        for name in names {
            match find(&self.engine.database, &name) {
                Some(index) => found.push(index),
                None if if_exists => {}
                None => {
                    return Err(Error::not_found(format!("index \"{name}\" does not exist"))
                        .with_hint("mvvd.indexes lists the indexes"));
                }
            }
        }
        let database = Arc::clone(&self.engine.database);
        let drop_all = move || {
            let _locks = locks;
            found.iter().try_for_each(|found| database.drop_index(&found.table, found.id))
        };
        self.engine.bridge.block(drop_all).await?;
        Ok(Answer::done("DROP INDEX"))
    }
}

/// An index that goes again, unless it is kept: all or nothing, also where nobody waits for the statement any more.
struct Added {
    database: Arc<Database>,
    table: Arc<mvvd_storage::Table>,
    id: u32,
    is_kept: bool,
}

impl Drop for Added {
    fn drop(&mut self) {
        if !self.is_kept {
            // Somebody else may have dropped it by now, and given its name to another.
            let _ = self.database.drop_index(&self.table, self.id);
        }
    }
}

/// Ends a build when the statement is dropped.
#[derive(Default)]
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a CREATE INDEX asks for.
struct Wanted {
    kind: String,
    metric: Metric,
    /// Positions in the table.
    columns: Vec<usize>,
    types: Vec<VectorType>,
    options: Vec<(String, String)>,
}

impl Wanted {
    fn of(create: &ast::CreateIndex, schema: &TableSchema) -> Result<Self> {
        let (mut columns, mut types, mut metric) = (Vec::new(), Vec::new(), None);
        for part in &create.columns {
            let Expr::Identifier(column) = &part.column.expr else {
                return Err(Error::unsupported(format!("{} is no column", part.column.expr))
                    .with_hint("an index is over columns, such as CREATE INDEX ON items USING hnsw (v)"));
            };
            let name = normal(column);
            let index = schema.index_of(&name)?;
            let field = &schema.columns()[index].field;
            let Some(ty) = VectorType::of_field(field) else {
                return Err(Error::invalid(format!(
                    "column \"{name}\" of type {} has no vectors",
                    mvvd_core::schema::sql_type(field)
                ))
                .with_hint("indexes are over columns of vectors; the primary key needs none"));
            };
            if columns.contains(&index) {
                return Err(Error::invalid(format!("column \"{name}\" comes twice")));
            }
            columns.push(index);
            types.push(ty);
            if let Some(class) = &part.operator_class {
                set_metric(&mut metric, metric_of_class(class, ty)?)?;
            }
        }
        let mut options = Vec::new();
        for option in &create.with {
            let (name, value) = option_of(option)?;
            if name == "metric" {
                let known = Metric::parse(&value).or_else(|| match value.to_ascii_lowercase().as_str() {
                    "ip" | "inner_product" => Some(Metric::Dot),
                    _ => None,
                });
                let parsed = known.ok_or_else(|| {
                    let names = Metric::ALL.map(Metric::name).join(", ");
                    Error::invalid(format!("option \"metric\" must be one of {names}, got {value}"))
                })?;
                set_metric(&mut metric, parsed)?;
            } else {
                options.push((name, value));
            }
        }
        let first = types.first().ok_or_else(|| Error::invalid("an index needs a column"))?.kind;
        let kind = match &create.using {
            Some(ast::IndexType::Custom(name)) => name.value.to_ascii_lowercase(),
            Some(other) => other.to_string().to_ascii_lowercase(),
            None if types.len() > 1 => "ivf_rabitq".to_owned(),
            None if first == VectorKind::Sparse => "inverted".to_owned(),
            None => "hnsw".to_owned(),
        };
        let metric = metric.unwrap_or(match first {
            VectorKind::Bit => Metric::Hamming,
            VectorKind::Dense | VectorKind::Half | VectorKind::Sparse => Metric::L2,
        });
        if types.iter().any(|ty| metric.is_binary() != (ty.kind == VectorKind::Bit)) {
            return Err(Error::invalid(format!("metric {metric} does not measure {}", types[0]))
                .with_hint("bit vectors have hamming and jaccard, the others l2, cosine, dot and l1"));
        }
        Ok(Self { kind, metric, columns, types, options })
    }
}

fn set_metric(metric: &mut Option<Metric>, given: Metric) -> Result<()> {
    match metric.replace(given) {
        Some(before) if before != given => {
            Err(Error::invalid(format!("the index has one metric, got {before} and {given}")))
        }
        _ => Ok(()),
    }
}

/// The metric of one of pgvector's operator classes, such as `vector_cosine_ops`.
fn metric_of_class(class: &ObjectName, ty: VectorType) -> Result<Metric> {
    let name = class.to_string().to_ascii_lowercase();
    let prefix = match ty.kind {
        VectorKind::Dense => "vector",
        VectorKind::Half => "halfvec",
        VectorKind::Bit => "bit",
        VectorKind::Sparse => "sparsevec",
    };
    let known: &[(&str, Metric)] = match ty.kind {
        VectorKind::Bit => &[("hamming", Metric::Hamming), ("jaccard", Metric::Jaccard)],
        _ => &[("l2", Metric::L2), ("ip", Metric::Dot), ("cosine", Metric::Cosine), ("l1", Metric::L1)],
    };
    let found = known.iter().find(|(metric, _)| name == format!("{prefix}_{metric}_ops"));
    found.map(|&(_, metric)| metric).ok_or_else(|| {
        let names: Vec<String> = known.iter().map(|(metric, _)| format!("{prefix}_{metric}_ops")).collect();
        Error::not_found(format!("operator class \"{name}\" does not exist for {ty}"))
            .with_hint(format!("the classes are {}", names.join(", ")))
    })
}

/// Name and value of `name = value`.
fn option_of(option: &Expr) -> Result<(String, String)> {
    let wrong = || {
        Error::invalid(format!("{option} is no option of an index")).with_hint("write WITH (metric = 'cosine', m = 16)")
    };
    let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = option else { return Err(wrong()) };
    let Expr::Identifier(name) = left.as_ref() else { return Err(wrong()) };
    let value = match right.as_ref() {
        Expr::Identifier(value) => value.value.clone(),
        Expr::Value(value) => match &value.value {
            ast::Value::Number(number, _) => number.clone(),
            ast::Value::SingleQuotedString(text) => text.clone(),
            ast::Value::Boolean(value) => value.to_string(),
            _ => return Err(wrong()),
        },
        _ => return Err(wrong()),
    };
    Ok((name.value.to_ascii_lowercase(), value))
}

fn check_clauses(create: &ast::CreateIndex) -> Result<()> {
    let clause = [
        (create.unique, "UNIQUE"),
        (!create.include.is_empty(), "INCLUDE"),
        (create.nulls_distinct.is_some(), "NULLS DISTINCT"),
        (create.predicate.is_some(), "WHERE"),
        (!create.index_options.is_empty(), "an option of another database"),
        (!create.alter_options.is_empty(), "an option of another database"),
        (
            create.columns.iter().any(|part| {
                part.column.with_fill.is_some()
                    || part.column.options.asc.is_some()
                    || part.column.options.nulls_first.is_some()
            }),
            "ASC, DESC or NULLS",
        ),
    ];
    match clause.into_iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => Err(Error::unsupported(format!("CREATE INDEX with {what} is not supported"))),
        None => Ok(()),
    }
}

fn index_name(name: &ObjectName) -> Result<String> {
    let name = table_name(name)?;
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Error::invalid(format!("an index name has 1 to {NAME_BYTES_MAX} bytes, got {}", name.len())));
    }
    Ok(name)
}

/// An index, by its table and its id: names may change hands.
pub(crate) struct Found {
    /// The name of the table.
    name: String,
    pub(crate) table: Arc<mvvd_storage::Table>,
    pub(crate) id: u32,
}

/// The index named `name`.
pub(crate) fn find(database: &Database, name: &str) -> Option<Found> {
    let id_in = |table: &mvvd_storage::Table| {
        let head = table.head();
        head.schema().indexes().iter().find(|index| index.name == name).map(|index| index.id)
    };
    database.tables().into_iter().find_map(|(name, table)| Some(Found { id: id_in(&table)?, name, table }))
}

/// A name as PostgreSQL makes it: table, columns, `idx`, and a number if that is taken.
fn free_name(database: &Database, table: &str, schema: &TableSchema, columns: &[usize]) -> String {
    let columns: Vec<&str> = columns.iter().map(|&i| schema.columns()[i].field.name().as_str()).collect();
    let mut base = format!("{table}_{}", columns.join("_"));
    // Room for what follows.
    let end = (0..=base.len().min(NAME_BYTES_MAX - 16)).rev().find(|&end| base.is_char_boundary(end));
    base.truncate(end.unwrap_or_default());
    let mut names = std::iter::once(format!("{base}_idx")).chain((1..).map(|i| format!("{base}_idx{i}")));
    names.find(|name| find(database, name).is_none()).unwrap_or(base)
}
