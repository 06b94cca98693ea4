//! An index type of one's own: rows in the order of their distance from one row, the landmark.
//!
//! By the triangle inequality a row is at least as far from the query as the two differ in their distance from the
//! landmark. A search looks at rows with about the query's distance first and ends where the difference alone is too much.
//!
//! `cargo run -p mvvd-query --example landmark`

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::util::pretty::pretty_format_batches;
use mvvd_query::core::metric::Metric;
use mvvd_query::core::{Error, ErrorKind, Ordinal, Result, VectorKind};
use mvvd_query::index::{
    Build, Cursor, Hit, IndexKind, IndexSpec, Knob, OptionSpec, Query, Request, Term, VectorIndex, Vectors,
};
use mvvd_query::{Config, Mvvd, Session};

/// What `CREATE INDEX … USING landmark` asks for.
#[derive(Debug)]
struct Landmark;

impl IndexKind for Landmark {
    fn name(&self) -> &'static str {
        "landmark"
    }

    fn options(&self) -> &[OptionSpec] {
        &[]
    }

    fn knob(&self) -> Knob {
        Knob::None
    }

    fn check(&self, spec: &IndexSpec) -> Result<()> {
        match spec.columns[..] {
            [ty] if matches!(ty.kind, VectorKind::Dense | VectorKind::Half) && spec.metric == Metric::L2 => Ok(()),
            _ => Err(Error::unsupported("an index of type landmark is over one column of dense vectors, by l2")),
        }
    }

    /// The number of rows, then an ordinal and a distance for each that has a vector; the first is the landmark.
    fn build(&self, _: &IndexSpec, columns: &[Vectors<'_>], build: &Build<'_>) -> Result<Vec<u8>> {
        build.check()?;
        let valid: Vec<Ordinal> = (0..columns[0].len() as Ordinal).filter(|&row| columns[0].is_valid(row)).collect();
        let mut distances = vec![0.0; valid.len()];
        if let Some(&landmark) = valid.first() {
            let mut vector = vec![0.0; columns[0].dims()];
            columns[0].copy_f32(landmark, &mut vector);
            columns[0].distances(Metric::L2, &Query::Dense(vector.into()), &valid, &mut distances);
        }
        let mut rows: Vec<Hit> =
            valid.into_iter().zip(distances).map(|(ordinal, distance)| Hit { distance, ordinal }).collect();
        rows.sort();
        let mut bytes = (columns[0].len() as u64).to_le_bytes().to_vec();
        for row in rows {
            bytes.extend_from_slice(&row.ordinal.to_le_bytes());
            bytes.extend_from_slice(&row.distance.to_le_bytes());
        }
        Ok(bytes)
    }

    /// Bytes come from a file: nothing in them is taken on trust.
    fn open(&self, _: &IndexSpec, bytes: Buffer) -> Result<Arc<dyn VectorIndex>> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "the index is damaged");
        let (&rows, rest) = bytes.split_first_chunk().ok_or_else(corrupt)?;
        let rows = u64::from_le_bytes(rows) as usize;
        let (entries, &[]) = rest.as_chunks::<12>() else { return Err(corrupt()) };
        let by_distance: Vec<Hit> = entries
            .iter()
            .map(|&[a, b, c, d, distance @ ..]| Hit {
                ordinal: u32::from_le_bytes([a, b, c, d]),
                distance: f64::from_le_bytes(distance),
            })
            .collect();
        let mut ordinals: Vec<Ordinal> = by_distance.iter().map(|row| row.ordinal).collect();
        ordinals.sort_unstable();
        let once = ordinals.is_sorted_by(|a, b| a < b) && ordinals.last().is_none_or(|&last| (last as usize) < rows);
        match once && by_distance.is_sorted() && by_distance.iter().all(|row| row.distance.is_finite()) {
            true => Ok(Arc::new(Rows { rows, by_distance })),
            false => Err(corrupt()),
        }
    }
}

/// An open index. The vectors are the segment's: every search is given them.
#[derive(Debug)]
struct Rows {
    rows: usize,
    /// With their distance from the landmark, which comes first.
    by_distance: Vec<Hit>,
}

impl VectorIndex for Rows {
    fn rows(&self) -> usize {
        self.rows
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&self.by_distance[..])
    }

    fn search(&self, columns: &[Vectors<'_>], request: &Request<'_>) -> Result<Vec<Hit>> {
        let mut outward = self.outward(columns, request)?;
        let mut nearest: Vec<Hit> = Vec::new();
        while let Some((least, ordinal)) = outward.next_row() {
            if nearest.len() == request.k && nearest.last().is_some_and(|last| last.distance < least) {
                break;
            }
            let hit = outward.measure(ordinal);
            nearest.insert(nearest.partition_point(|other| *other < hit), hit);
            nearest.truncate(request.k);
        }
        Ok(nearest)
    }

    fn cursor<'a>(&'a self, columns: &'a [Vectors<'a>], request: &'a Request<'a>) -> Result<Box<dyn Cursor + 'a>> {
        Ok(Box::new(self.outward(columns, request)?))
    }
}

impl Rows {
    fn outward<'a>(&'a self, columns: &'a [Vectors<'a>], request: &'a Request<'a>) -> Result<Outward<'a>> {
        // What an index does not serve it says no to, and the plan above it scans.
        let [term @ Term { metric: Metric::L2, weight: 1.0, .. }] = request.terms else {
            return Err(Error::unsupported("an index of type landmark ranks by one l2 distance"));
        };
        let mut outward =
            Outward { column: &columns[0], request, term, rows: &self.by_distance, distance: 0.0, below: 0, above: 0 };
        if let Some(landmark) = self.by_distance.first() {
            outward.distance = outward.measure(landmark.ordinal).distance;
            outward.above = self.by_distance.partition_point(|row| row.distance < outward.distance);
            outward.below = outward.above;
        }
        Ok(outward)
    }
}

/// Rows by how much their distance from the landmark differs from the query's.
struct Outward<'a> {
    column: &'a Vectors<'a>,
    request: &'a Request<'a>,
    term: &'a Term,
    rows: &'a [Hit],
    /// From the query to the landmark.
    distance: f64,
    /// Rows from here to `above` were given out.
    below: usize,
    above: usize,
}

impl Outward<'_> {
    /// The next row that the filter lets through, and what its distance is at least.
    fn next_row(&mut self) -> Option<(f64, Ordinal)> {
        loop {
            let below = self.below.checked_sub(1).map(|i| self.rows[i]);
            let gap = |row: Option<&Hit>| row.map_or(f64::INFINITY, |row| (row.distance - self.distance).abs());
            let row = match (below, self.rows.get(self.above)) {
                (None, None) => return None,
                (below, above) if gap(below.as_ref()) <= gap(above) => {
                    self.below -= 1;
                    below?
                }
                (_, above) => {
                    self.above += 1;
                    *above?
                }
            };
            if self.request.filter.is_none_or(|filter| filter.has(row.ordinal)) {
                // Both distances are sums in f32: what rounding may have added is taken off.
                let rounding = 1e-4 * (row.distance + self.distance);
                return Some(((row.distance - self.distance).abs() - rounding, row.ordinal));
            }
        }
    }

    fn measure(&self, ordinal: Ordinal) -> Hit {
        let mut distance = [0.0];
        self.column.distances(Metric::L2, &self.term.query, &[ordinal], &mut distance);
        Hit { distance: distance[0], ordinal }
    }
}

impl Cursor for Outward<'_> {
    fn next(&mut self, count: usize) -> Result<Vec<Hit>> {
        let mut hits = Vec::new();
        while let Some((_, ordinal)) = if hits.len() < count { self.next_row() } else { None } {
            hits.push(self.measure(ordinal));
        }
        hits.sort();
        Ok(hits)
    }
}

async fn run(session: &Session, sql: &str) -> Result<Vec<RecordBatch>> {
    session.sql(sql, &[]).await?.collect().await
}

/// Makes an index of the type through SQL; the plan of a query that uses it, its answer, and that of a scan.
pub(crate) async fn nearest() -> Result<[Vec<RecordBatch>; 3]> {
    let session = Mvvd::open(Config { index_kinds: vec![Arc::new(Landmark)], ..Config::memory() })?.session();
    let table = "CREATE TABLE points AS SELECT i AS id, ('[' || (i * 7919 % 1009) || ',' || (i * 104729 % 1013) || ']')::VECTOR(2)
        AS v FROM generate_series(1, 10000) AS s(i)";
    run(&session, table).await?;
    run(&session, "CREATE INDEX ON points USING landmark (v)").await?;
    let query = "SELECT id, v <-> '[500, 200]' AS distance FROM points ORDER BY distance LIMIT 5";
    let plan = run(&session, &format!("EXPLAIN {query}")).await?;
    let found = run(&session, query).await?;
    run(&session, "SET mvvd.use_index = false").await?;
    Ok([plan, found, run(&session, query).await?])
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows its result")]
async fn main() -> Result<()> {
    let [plan, found, scanned] = nearest().await?;
    println!("{}\n{}", pretty_format_batches(&plan)?, pretty_format_batches(&found)?);
    assert_eq!(found, scanned, "the answer is that of a scan");
    Ok(())
}
