//! Ground truth through SQL: each exact answer of the data sets against what a statement returns.

use std::collections::HashMap;
use std::path::Path;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, UInt32Type, UInt64Type};
use clap::ValueEnum;
use mvvd_query::{Config, Mvvd, Session, Value};

/// Scores closer than this may change places.
const TIE: f64 = 1e-5;

/// Result of this module: any error, since it is a program's.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A data set with ground truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// 4,000 Debian packages, three fields.
    Debian,
    /// 20,000 WordNet synsets, three fields, sparse and binary vectors.
    Wordnet,
}

/// What was compared.
#[derive(Debug, Default)]
pub struct Report {
    /// Rows of ground truth.
    pub checked: usize,
    /// One line for each that differs.
    pub failures: Vec<String>,
}

/// A score as SQL: the expression, its parameters (columns of the query file) and its direction.
struct Score {
    sql: &'static str,
    params: &'static [&'static str],
    descending: bool,
    /// Which rows are candidates at all.
    candidates: &'static str,
}

impl Set {
    fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Wordnet => "wordnet",
        }
    }

    /// The statements that load the data.
    fn load(self, data: &str) -> Vec<String> {
        match self {
            Self::Debian => vec![format!("CREATE TABLE t AS SELECT * FROM '{data}/debian_4k.parquet'")],
            Self::Wordnet => vec![format!(
                "CREATE TABLE t (PRIMARY KEY (id)) AS \
                 SELECT w.*, sparsevec(s.terms, s.weights, 36489, 0) AS sparse, \
                        b.b_lemma::BITVEC(384) AS b_lemma, b.b_gloss::BITVEC(384) AS b_gloss \
                 FROM '{data}/wordnet_20k.parquet' w JOIN '{data}/wordnet_sparse.parquet' s ON w.id = s.id \
                 JOIN '{data}/wordnet_binary.parquet' b ON w.id = b.id"
            )],
        }
    }

    fn score(self, expr: &str, metric: &str) -> Option<Score> {
        let score = |sql, params, descending, candidates| Some(Score { sql, params, descending, candidates });
        let sim = |sql, params, candidates| score(sql, params, true, candidates);
        match (self, expr, metric) {
            (Self::Debian, "v_name", _) => sim("cosine_similarity(v_name, $1)", &["q_name"], "true"),
            (Self::Debian, "v_summary", _) => sim("1 - (v_summary <=> $1)", &["q_summary"], "true"),
            (Self::Debian, "v_description", _) => {
                sim("cosine_similarity(v_description, $1)", &["q_description"], "true")
            }
            (Self::Debian, "w50_50", _) => sim(
                "0.5 * cosine_similarity(v_summary, $1) + 0.5 * cosine_similarity(v_description, $2)",
                &["q_summary", "q_description"],
                "true",
            ),
            (Self::Debian, "w3", _) => sim(
                "0.2 * (1 - (v_name <=> $1)) + 0.5 * (1 - (v_summary <=> $2)) + 0.3 * (1 - (v_description <=> $3))",
                &["q_name", "q_summary", "q_description"],
                "true",
            ),
            (Self::Debian, "min3", _) => sim(
                "least(cosine_similarity(v_name, $1), cosine_similarity(v_summary, $2), cosine_similarity(v_description, $3))",
                &["q_name", "q_summary", "q_description"],
                "true",
            ),
            (Self::Debian, "max3", _) => sim(
                "greatest(cosine_similarity(v_name, $1), cosine_similarity(v_summary, $2), cosine_similarity(v_description, $3))",
                &["q_name", "q_summary", "q_description"],
                "true",
            ),
            (Self::Wordnet, "v_lemma", "cosine") => sim("cosine_similarity(v_lemma, $1)", &["q_lemma"], "true"),
            (Self::Wordnet, "v_gloss", "cosine") => sim("1 - (v_gloss <=> $1)", &["q_gloss"], "true"),
            (Self::Wordnet, "v_gloss", "l2") => score("v_gloss <-> $1", &["q_gloss"], false, "true"),
            (Self::Wordnet, "v_lemma", "l2") => score("v_lemma <-> $1", &["q_lemma"], false, "true"),
            (Self::Wordnet, "v_gloss", "dot") => sim("inner_product(v_gloss, $1)", &["q_gloss"], "true"),
            (Self::Wordnet, "v_lemma", "dot") => sim("-(v_lemma <#> $1)", &["q_lemma"], "true"),
            (Self::Wordnet, "v_example", "cosine") => {
                sim("cosine_similarity(v_example, $1)", &["q_example"], "v_example IS NOT NULL")
            }
            (Self::Wordnet, "v_example", "l2") => {
                score("v_example <-> $1", &["q_example"], false, "v_example IS NOT NULL")
            }
            (Self::Wordnet, "v_example", "dot") => {
                sim("inner_product(v_example, $1)", &["q_example"], "v_example IS NOT NULL")
            }
            (Self::Wordnet, "w50_50", _) => sim(
                "0.5 * cosine_similarity(v_lemma, $1) + 0.5 * cosine_similarity(v_gloss, $2)",
                &["q_lemma", "q_gloss"],
                "true",
            ),
            (Self::Wordnet, "w80_20", _) => {
                sim("0.8 * (1 - (v_lemma <=> $1)) + 0.2 * (1 - (v_gloss <=> $2))", &["q_lemma", "q_gloss"], "true")
            }
            (Self::Wordnet, "min", _) => sim(
                "least(cosine_similarity(v_lemma, $1), cosine_similarity(v_gloss, $2))",
                &["q_lemma", "q_gloss"],
                "true",
            ),
            (Self::Wordnet, "max", _) => sim(
                "greatest(cosine_similarity(v_lemma, $1), cosine_similarity(v_gloss, $2))",
                &["q_lemma", "q_gloss"],
                "true",
            ),
            (Self::Wordnet, "w3", _) => sim(
                "0.5 * cosine_similarity(v_lemma, $1) + 0.3 * cosine_similarity(v_gloss, $2) + 0.2 * cosine_similarity(v_example, $3)",
                &["q_lemma", "q_gloss", "q_example"],
                "v_example IS NOT NULL",
            ),
            (Self::Wordnet, "w3_null0", _) => sim(
                "0.5 * cosine_similarity(v_lemma, $1) + 0.3 * cosine_similarity(v_gloss, $2) \
                 + 0.2 * coalesce(cosine_similarity(v_example, $3), 0)",
                &["q_lemma", "q_gloss", "q_example"],
                "true",
            ),
            (Self::Wordnet, "bm25", _) => {
                sim("inner_product(sparse, $1)", &["q_sparse"], "inner_product(sparse, $1) > 0")
            }
            (Self::Wordnet, "gloss_plus_bm25", _) => sim(
                "cosine_similarity(v_gloss, $1) + 0.02 * inner_product(sparse, $2)",
                &["q_gloss", "q_sparse"],
                "true",
            ),
            (Self::Wordnet, "b_lemma", _) => score("b_lemma <~> $1", &["q_b_lemma"], false, "true"),
            (Self::Wordnet, "b_gloss", _) => score("b_gloss <~> $1", &["q_b_gloss"], false, "true"),
            _ => None,
        }
    }
}

/// Runs every `every`-th row of a set's ground truth.
pub async fn check(data: &Path, set: Set, every: usize) -> Result<Report> {
    let folder = data.to_str().ok_or("the folder's name is no text")?;
    let session = Mvvd::open(Config::memory())?.session();
    for statement in set.load(folder) {
        session.sql(&statement, &[]).await?;
    }
    let queries = read_queries(&session, folder, set).await?;
    let filters = read_filters(data, set)?;
    let truth = format!(
        "SELECT query_id, expr, metric, filter, matches, ids, scores FROM '{folder}/{}_ground_truth.parquet'",
        set.name()
    );
    let mut report = Report::default();
    let mut row_number = 0;
    for batch in session.sql(&truth, &[]).await?.collect().await? {
        for row in 0..batch.num_rows() {
            row_number += 1;
            if row_number % every != 0 {
                continue;
            }
            let case = Case::read(&batch, row)?;
            report.checked += 1;
            if let Err(e) = case.run(&session, set, &queries, &filters).await {
                report
                    .failures
                    .push(format!("query {} {} {} {}: {e}", case.query, case.expr, case.metric, case.filter));
            }
        }
    }
    Ok(report)
}

/// One row of ground truth.
struct Case {
    query: u32,
    expr: String,
    metric: String,
    filter: String,
    ids: Vec<u64>,
    scores: Vec<f64>,
}

impl Case {
    fn read(batch: &RecordBatch, row: usize) -> Result<Self> {
        let text = |i: usize| batch.column(i).as_string::<i32>().value(row).to_owned();
        let list = |i: usize, ty: DataType| -> Result<ArrayRef> {
            Ok(cast(&batch.column(i).as_list::<i32>().value(row), &ty)?)
        };
        Ok(Self {
            query: batch.column(0).as_primitive::<UInt32Type>().value(row),
            expr: text(1),
            metric: text(2),
            filter: text(3),
            ids: list(5, DataType::UInt64)?.as_primitive::<UInt64Type>().values().to_vec(),
            scores: list(6, DataType::Float64)?.as_primitive::<Float64Type>().values().to_vec(),
        })
    }

    async fn run(
        &self,
        session: &Session,
        set: Set,
        queries: &HashMap<(u32, String), Value>,
        filters: &HashMap<String, String>,
    ) -> Result<()> {
        let score = set.score(&self.expr, &self.metric).ok_or("no SQL for this score")?;
        let filter = match self.filter.as_str() {
            "none" => "true",
            name => filters.get(name).ok_or("no SQL for this filter")?,
        };
        let params = score
            .params
            .iter()
            .map(|name| queries.get(&(self.query, (*name).to_owned())).cloned().ok_or("no such query vector"))
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let k = self.ids.len().max(1);
        let sql = format!(
            "SELECT id, {} AS score FROM t WHERE ({}) AND ({filter}) ORDER BY score {}, id LIMIT {k}",
            score.sql,
            score.candidates,
            if score.descending { "DESC" } else { "ASC" },
        );
        let mut got: Vec<(u64, f64)> = Vec::new();
        for batch in session.sql(&sql, &params).await?.collect().await? {
            let ids = cast(batch.column(0), &DataType::UInt64)?;
            let scores = cast(batch.column(1), &DataType::Float64)?;
            let pairs =
                ids.as_primitive::<UInt64Type>().values().iter().zip(scores.as_primitive::<Float64Type>().values());
            got.extend(pairs.map(|(id, score)| (*id, *score)));
        }
        if got.len() != self.ids.len() {
            return Err(format!("{} rows, expected {}", got.len(), self.ids.len()).into());
        }
        for (i, ((id, score), (true_id, true_score))) in got.iter().zip(self.ids.iter().zip(&self.scores)).enumerate() {
            if (score - true_score).abs() > TIE {
                return Err(format!("place {}: score {score}, expected {true_score}", i + 1).into());
            }
            // Another row may stand here only if its true score is the same; a row beyond the list ties with the last.
            let ties = match self.ids.iter().position(|other| other == id) {
                Some(place) => (self.scores[place] - true_score).abs() <= TIE,
                None => (self.scores[self.scores.len() - 1] - true_score).abs() <= TIE,
            };
            if id != true_id && !ties {
                return Err(format!("place {}: id {id}, expected {true_id}", i + 1).into());
            }
        }
        Ok(())
    }
}

async fn read_queries(session: &Session, folder: &str, set: Set) -> Result<HashMap<(u32, String), Value>> {
    let columns = match set {
        Set::Debian => "query_id, q_name, q_summary, q_description",
        Set::Wordnet => {
            "query_id, q_lemma, q_gloss, q_example, sparsevec(q_terms, q_weights, 36489, 0) AS q_sparse, q_b_lemma, q_b_gloss"
        }
    };
    let sql = format!("SELECT {columns} FROM '{folder}/{}_queries.parquet'", set.name());
    let mut queries = HashMap::new();
    for batch in session.sql(&sql, &[]).await?.collect().await? {
        let ids = batch.column(0).as_primitive::<UInt32Type>();
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()).skip(1) {
            for row in 0..batch.num_rows() {
                queries.insert((ids.value(row), field.name().clone()), Value::try_from_array(column, row)?);
            }
        }
    }
    Ok(queries)
}

fn read_filters(data: &Path, set: Set) -> Result<HashMap<String, String>> {
    let text = std::fs::read_to_string(data.join(format!("{}_cases.json", set.name())))?;
    let cases: serde_json::Value = serde_json::from_str(&text)?;
    let filters = cases["filters"].as_object().ok_or("the cases have no filters")?;
    filters
        .iter()
        .map(|(name, case)| Ok((name.clone(), case["sql"].as_str().ok_or("a filter has no SQL")?.to_owned())))
        .collect()
}
