//! A ranking by several vector columns, as a value instead of SQL.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, ParamValues};
use datafusion::execution::session_state::SessionState;
use datafusion::functions::core::expr_fn::{greatest, least};
use datafusion::functions::expr_fn::coalesce;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, SortExpr, ident, lit, scalar_subquery,
};
use mvvd_core::metric::Metric;
use mvvd_core::{Error, Result};
use mvvd_udfs::{Distance, Form};

use crate::Value;
use crate::answer::Answer;
use crate::catalog::Source;
use crate::error::from_df;
use crate::session::Session;

/// Name of the score column in the answer.
pub(crate) const SCORE: &str = "score";
/// Weight of low ranks in reciprocal rank fusion, as in Cormack, Clarke and Buettcher 2009.
const RRF_K: f64 = 60.0;

/// The vector that a field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// A dense vector.
    Vector(Vec<f32>),
    /// Any value that the column can be compared with: text, a list, bits.
    Value(Value),
    /// The vector of the row with this key, in the same column.
    Row(Value),
}

/// What a NULL vector counts as.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Missing {
    /// The distance is NULL and so is a sum with it: the row sorts last.
    #[default]
    Null,
    /// The largest distance that the field has among the rows that pass the filter.
    Worst,
    /// The row is left out.
    Exclude,
    /// This distance.
    Distance(f64),
}

/// One vector column in the ranking.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The column.
    pub column: String,
    /// What it is compared with.
    pub query: Query,
    /// How it is compared.
    pub metric: Metric,
    /// Its weight.
    pub weight: f64,
    /// What a NULL counts as.
    pub missing: Missing,
}

impl Field {
    /// A field of weight 1.
    pub fn new(column: impl Into<String>, query: Query, metric: Metric) -> Self {
        Self { column: column.into(), query, metric, weight: 1.0, missing: Missing::default() }
    }

    /// The same field with this weight.
    #[must_use]
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// The same field with this rule for NULL.
    #[must_use]
    pub fn missing(mut self, missing: Missing) -> Self {
        self.missing = missing;
        self
    }
}

/// How distances become one score. Smaller is nearer, except for [`Combine::Rrf`].
#[derive(Debug, Clone, PartialEq)]
pub enum Combine {
    /// `(w1 * d1 + w2 * d2 + …) / (w1 + w2 + …)`.
    WeightedAverage,
    /// The nearest field decides; weights do not count.
    Min,
    /// The farthest field decides; weights do not count.
    Max,
    /// Reciprocal rank fusion: the sum of `w / (60 + rank)` over the fields. Larger is better.
    Rrf,
    /// An SQL expression in which a column's name stands for its distance.
    Expr(String),
    /// A function registered with [`Mvvd::register_function`](crate::Mvvd::register_function), called with the
    /// distances in the order of the fields.
    Function(String),
}

/// `SELECT select…, distances…, score FROM from WHERE filter ORDER BY score LIMIT limit OFFSET offset`.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossVectorQuery {
    /// The table.
    pub from: String,
    /// Columns of the answer; empty means all that are no vectors.
    pub select: Vec<String>,
    /// A condition in SQL; `$1`, `$2`, … stand for `params`.
    pub filter: Option<String>,
    /// Values for the filter.
    pub params: Vec<Value>,
    /// The ranked columns, at least one, each at most once.
    pub fields: Vec<Field>,
    /// How their distances are combined.
    pub combine: Combine,
    /// Most rows of the answer.
    pub limit: usize,
    /// Rows that are skipped before the first.
    pub offset: usize,
}

impl CrossVectorQuery {
    /// A query for the ten nearest rows by weighted average.
    pub fn new(from: impl Into<String>, fields: Vec<Field>) -> Self {
        Self {
            from: from.into(),
            select: Vec::new(),
            filter: None,
            params: Vec::new(),
            fields,
            combine: Combine::WeightedAverage,
            limit: 10,
            offset: 0,
        }
    }
}

/// A combined score.
struct Score {
    expr: Expr,
    ascending: bool,
    /// Ranks over all rows that it needs, computed before it.
    ranks: Vec<Expr>,
}

impl Session {
    pub(crate) async fn cross_vector(&self, query: CrossVectorQuery) -> Result<Answer> {
        let state = self.state();
        let plan = self.cross_vector_plan(&state, &query)?;
        self.run_plan("SELECT", &state, &plan).await
    }

    /// The logical plan of a cross-vector query: the one that the same SQL has.
    pub(crate) fn cross_vector_plan(&self, state: &SessionState, query: &CrossVectorQuery) -> Result<LogicalPlan> {
        let table = self.engine.database.table(&query.from)?;
        let snapshot = table.snapshot();
        let schema = Arc::clone(snapshot.schema());
        check(query)?;
        let scan = || {
            let source = Arc::new(Source::new(&query.from, Arc::clone(&snapshot), false));
            let source = datafusion::datasource::provider_as_source(source);
            LogicalPlanBuilder::scan(query.from.as_str(), source, None).map_err(from_df)
        };
        let mut plan = scan()?;
        if let Some(filter) = &query.filter {
            let condition = self.parse_condition(state, filter, plan.schema(), &query.params)?;
            plan = plan.filter(condition).map_err(from_df)?;
        }
        let mut distances = Vec::with_capacity(query.fields.len());
        for field in &query.fields {
            schema.index_of(&field.column)?;
            let column = ident_column(&field.column);
            let target = match &field.query {
                Query::Vector(values) => lit(crate::value::vector(values)?),
                Query::Value(value) => lit(value.clone()),
                Query::Row(key) => {
                    let key_column = schema
                        .primary_key()
                        .ok_or_else(|| Error::invalid("a row is found by key, and the table has no primary key"))?;
                    let name = schema.columns()[key_column].field.name();
                    let row = scan()?
                        .filter(ident_column(name).eq(lit(key.clone())))
                        .and_then(|b| b.project([column.clone()]));
                    scalar_subquery(Arc::new(row.and_then(LogicalPlanBuilder::build).map_err(from_df)?))
                }
            };
            if field.missing == Missing::Exclude {
                plan = plan.filter(column.clone().is_not_null()).map_err(from_df)?;
            }
            let distance = Distance { metric: field.metric, form: Form::Distance }.udf().call(vec![column, target]);
            distances.push(distance);
        }
        for (field, distance) in query.fields.iter().zip(&mut distances) {
            *distance = match field.missing {
                Missing::Null | Missing::Exclude => distance.clone(),
                Missing::Distance(value) => coalesce(vec![distance.clone(), lit(value)]),
                Missing::Worst => {
                    let worst = plan.clone().aggregate(
                        Vec::<Expr>::new(),
                        [datafusion::functions_aggregate::expr_fn::max(distance.clone())],
                    );
                    let worst = worst.and_then(LogicalPlanBuilder::build).map_err(from_df)?;
                    coalesce(vec![distance.clone(), scalar_subquery(Arc::new(worst))])
                }
            };
        }
        let tie = schema.primary_key().map(|i| schema.columns()[i].field.name().clone());
        let Score { expr: mut score, ascending, ranks } = self.score(state, query, &distances, tie.as_deref())?;
        if !ranks.is_empty() {
            let mut named = Vec::with_capacity(ranks.len());
            for rank in ranks {
                // One window a step, since each has an order of its own; the planner names its column, the last.
                plan = plan.window([rank]).map_err(from_df)?;
                named.extend(plan.schema().columns().pop());
            }
            let renamed = score.transform(|e| match &e {
                Expr::Column(column) => {
                    let rank = (0..named.len()).find(|i| column.name == rank_name(*i));
                    Ok(rank.map_or(Transformed::no(e.clone()), |i| Transformed::yes(Expr::Column(named[i].clone()))))
                }
                _ => Ok(Transformed::no(e)),
            });
            score = renamed.map_err(from_df)?.data;
        }

        let selected: Vec<String> = match query.select.is_empty() {
            true => schema
                .columns()
                .iter()
                .filter(|c| mvvd_core::VectorType::of_field(&c.field).is_none())
                .map(|c| c.field.name().clone())
                .collect(),
            false => {
                query.select.iter().map(|name| schema.index_of(name).map(|_| name.clone())).collect::<Result<_>>()?
            }
        };
        let mut output: Vec<Expr> = selected.iter().map(|name| ident_column(name)).collect();
        for (field, distance) in query.fields.iter().zip(&distances) {
            output.push(distance.clone().alias(format!("{}_distance", field.column)));
        }
        output.push(score.alias(SCORE));
        let mut order = vec![SortExpr::new(ident(SCORE), ascending, false)];
        // Without the key in the answer, the operator breaks ties by it all the same.
        if let Some(tie) = tie.filter(|tie| selected.contains(tie)) {
            order.push(SortExpr::new(ident(tie), true, false));
        }
        plan.project(output)
            .and_then(|plan| plan.sort(order))
            .and_then(|plan| plan.limit(query.offset, Some(query.limit)))
            .and_then(LogicalPlanBuilder::build)
            .map_err(from_df)
    }

    fn score(
        &self,
        state: &SessionState,
        query: &CrossVectorQuery,
        distances: &[Expr],
        tie: Option<&str>,
    ) -> Result<Score> {
        let weighted = || query.fields.iter().zip(distances).map(|(f, d)| lit(f.weight) * d.clone());
        let score = match &query.combine {
            Combine::WeightedAverage => {
                let total: f64 = query.fields.iter().map(|f| f.weight).sum();
                if total == 0.0 {
                    return Err(Error::invalid("the weights of a weighted average must not sum to 0"));
                }
                sum(weighted()) / lit(total)
            }
            Combine::Min => least(distances.to_vec()),
            Combine::Max => greatest(distances.to_vec()),
            Combine::Rrf => {
                let (mut ranks, mut terms) = (Vec::new(), Vec::new());
                for (field, distance) in query.fields.iter().zip(distances) {
                    let mut order = vec![SortExpr::new(distance.clone(), true, false)];
                    order.extend(tie.map(|tie| SortExpr::new(ident_column(tie), true, false)));
                    let rank = row_number().order_by(order).build().map_err(from_df)?;
                    let column = ident_column(&rank_name(ranks.len()));
                    ranks.push(rank);
                    let place = datafusion::logical_expr::cast(column, arrow::datatypes::DataType::Float64);
                    terms.push(lit(field.weight) / (lit(RRF_K) + place));
                }
                return Ok(Score { expr: sum(terms.into_iter()), ascending: false, ranks });
            }
            Combine::Expr(text) => {
                let fields = query
                    .fields
                    .iter()
                    .map(|f| arrow::datatypes::Field::new(&f.column, arrow::datatypes::DataType::Float64, true));
                let names =
                    DFSchema::try_from(arrow::datatypes::Schema::new(fields.collect::<Vec<_>>())).map_err(from_df)?;
                let expr = self.parse_condition(state, text, &names, &[])?;
                let replaced = expr.transform(|e| match &e {
                    Expr::Column(column) => {
                        let field = query.fields.iter().position(|f| f.column == column.name);
                        Ok(field.map_or(Transformed::no(e.clone()), |i| Transformed::yes(distances[i].clone())))
                    }
                    _ => Ok(Transformed::no(e)),
                });
                replaced.map_err(from_df)?.data
            }
            Combine::Function(name) => {
                let function = self.engine.functions.find(name);
                let function =
                    function.ok_or_else(|| Error::not_found(format!("function \"{name}\" is not registered")))?;
                function.call(distances.to_vec())
            }
        };
        Ok(Score { expr: score, ascending: true, ranks: Vec::new() })
    }

    /// Reads an SQL expression over the columns of `schema`.
    fn parse_condition(&self, state: &SessionState, text: &str, schema: &DFSchema, params: &[Value]) -> Result<Expr> {
        let parsed = crate::syntax::parse_expr(text)?;
        let parsed = datafusion::sql::sqlparser::ast::ExprWithAlias { expr: parsed, alias: None };
        let expr = state.create_logical_expr_from_sql_expr(parsed, schema).map_err(from_df)?;
        let values = ParamValues::from(params.to_vec());
        let filled = expr.transform_up(|e| match &e {
            Expr::Placeholder(p) => {
                Ok(Transformed::yes(Expr::Literal(values.get_placeholders_with_values(&p.id)?.value().clone(), None)))
            }
            _ => Ok(Transformed::no(e)),
        });
        Ok(filled.map_err(from_df)?.data)
    }
}

/// Stands for the i-th rank until its column is known.
fn rank_name(i: usize) -> String {
    format!("__mvvd_rank_{i}")
}

fn check(query: &CrossVectorQuery) -> Result<()> {
    if query.fields.is_empty() {
        return Err(Error::invalid("a cross-vector query needs at least one field"));
    }
    for (i, field) in query.fields.iter().enumerate() {
        if !field.weight.is_finite() {
            return Err(Error::invalid(format!(
                "the weight of \"{}\" must be finite, got {}",
                field.column, field.weight
            )));
        }
        if query.fields[..i].iter().any(|other| other.column == field.column) {
            return Err(Error::invalid(format!("column \"{}\" is ranked twice", field.column)));
        }
    }
    Ok(())
}

fn sum(mut terms: impl Iterator<Item = Expr>) -> Expr {
    let first = terms.next().expect("a query has at least one field");
    terms.fold(first, |sum, term| sum + term)
}

/// A column by its exact name, dots and capitals included.
fn ident_column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}
