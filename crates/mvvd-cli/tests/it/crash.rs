//! Does the server, killed at any moment, keep what it acknowledged, and nothing else?
//!
//! Every round starts `mvvd serve` on the same directory, lets several clients write at once, and kills the process with
//! SIGKILL; some rounds kill it while it recovers, too. Each client knows what it was promised, and which statement was
//! under way: after the restart the first is there, the second is there as a whole or not at all.
//!
//! A few rounds run with the other tests. `MVVD_CRASH_ROUNDS=200 cargo test --workspace --test it -- crash --nocapture`
//! runs as many as asked for, and `MVVD_CRASH_SEED` repeats the choices of a run, though not its timing. A directory
//! that does not hold what it should is kept, and named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow_flight::sql::client::FlightSqlServiceClient;
use futures::TryStreamExt;
use tonic::transport::{Channel, Endpoint};

use crate::mvvd;

const ROUNDS: u64 = 6;
const CLIENTS: i64 = 4;
/// Keys of a client in a table, from 0, or from its number times this in the table that all share.
const KEYS: i64 = 300;
const SHARED: &str = "shared";
/// Small, so that a round has flushes, compactions, and statements that write segments themselves.
const FLUSH_BYTES: &str = "4KiB";
const DIMENSIONS: i64 = 16;

type Result<T> = std::result::Result<T, String>;

#[test]
#[expect(clippy::print_stdout, reason = "a long run tells what it did")]
fn a_killed_server_keeps_what_it_acknowledged() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let rounds = number("MVVD_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let now = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
    let seed = number("MVVD_CRASH_SEED").unwrap_or_else(now);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut run = Run::new(seed, dir.path());
    let result =
        (0..rounds).try_for_each(|round| runtime.block_on(run.round(round)).map_err(|e| format!("round {round}: {e}")));
    println!("{}", run.report());
    if let Err(e) = result {
        panic!("MVVD_CRASH_SEED={seed}, directory {}: {e}", dir.keep().display());
    }
    // The first one is that of the new database.
    assert!(run.manifests() > 1, "there was no flush");
}

struct Run<'a> {
    seed: u64,
    dir: &'a Path,
    clients: Vec<Client>,
    start: Instant,
    acknowledged: u64,
    kills_in_recovery: u64,
    whole: u64,
    not_at_all: u64,
}

/// What one client knows.
#[derive(Clone)]
struct Client {
    number: i64,
    /// After all that was acknowledged.
    tables: Tables,
    /// The statement that nobody answered, and what it would have made.
    under_way: Option<(String, Tables)>,
    next_tag: i64,
}

impl<'a> Run<'a> {
    fn new(seed: u64, dir: &'a Path) -> Self {
        let client = |number| Client {
            number,
            tables: Tables::from([(SHARED.to_owned(), Table::new(true))]),
            under_way: None,
            next_tag: number * 2_000_000,
        };
        let clients = (0..CLIENTS).map(client).collect();
        let start = Instant::now();
        Self { seed, dir, clients, start, acknowledged: 0, kills_in_recovery: 0, whole: 0, not_at_all: 0 }
    }

    async fn round(&mut self, round: u64) -> Result<()> {
        let mut rng = Rng::new(self.seed, round, u64::MAX);
        if round > 0 {
            while rng.below(3) == 0 {
                let server = self.spawn()?;
                tokio::time::sleep(Duration::from_millis(rng.below(150))).await;
                self.kills_in_recovery += u64::from(!kill(server)?.contains("listening"));
            }
            if round % 4 == 1 {
                // Read before anything is mended.
                let found = found_by_program(self.dir)?;
                self.clients.clone().iter_mut().try_for_each(|client| client.settle(&found).map(drop))?;
            }
        }
        let mut server = self.spawn()?;
        let address = address(&mut server)?;
        let mut checker = connect(&address).await?;
        if round == 0 {
            update(&mut checker, &create(SHARED, true)).await?;
        }
        let found = found_by_client(&mut checker).await?;
        if let Some(stranger) = found.keys().find(|name| *name != SHARED && owner(name).is_none()) {
            return Err(format!("there is a table {stranger}"));
        }
        for client in &mut self.clients {
            match client.settle(&found)? {
                Some(true) => self.whole += 1,
                Some(false) => self.not_at_all += 1,
                None => {}
            }
        }
        let killed = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for client in self.clients.clone() {
            let (killed, connection) = (Arc::clone(&killed), connect(&address).await?);
            let rng = Rng::new(self.seed, round, client.number as u64);
            tasks.push(tokio::spawn(client.run(connection, rng, killed)));
        }
        tokio::time::sleep(Duration::from_millis(100 + rng.below(1_200))).await;
        killed.store(true, Ordering::SeqCst);
        kill(server)?;
        for (i, task) in tasks.into_iter().enumerate() {
            let (client, count) = task.await.map_err(|e| e.to_string())??;
            self.clients[i] = client;
            self.acknowledged += count;
        }
        Ok(())
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = program(self.dir);
        command.args(["--flush-bytes", FLUSH_BYTES, "--threads", "2", "serve", "--flight", "127.0.0.1:0"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|e| e.to_string())
    }

    /// How many manifests the database has had.
    fn manifests(&self) -> u64 {
        let text = std::fs::read_to_string(self.dir.join("MANIFEST")).unwrap_or_default();
        let body = text.split_once('\n').map_or("", |(_, body)| body);
        let manifest: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
        manifest["number"].as_u64().unwrap_or(0)
    }

    fn report(&self) -> String {
        format!(
            "crash test: seed {}, {} acknowledged statements, {} under way found whole and {} not at all, {} kills during \
             recovery, {} manifests, {:.1} s",
            self.seed,
            self.acknowledged,
            self.whole,
            self.not_at_all,
            self.kills_in_recovery,
            self.manifests(),
            self.start.elapsed().as_secs_f64()
        )
    }
}

impl Client {
    /// Runs statements until the server is gone; how many were acknowledged.
    async fn run(mut self, mut connection: Flight, mut rng: Rng, killed: Arc<AtomicBool>) -> Result<(Self, u64)> {
        for count in 0.. {
            let (sql, next) = self.statement(&mut rng);
            match update(&mut connection, &sql).await {
                Ok(()) => self.tables = next,
                Err(_) if killed.load(Ordering::SeqCst) => {
                    self.under_way = Some((sql, next));
                    return Ok((self, count));
                }
                Err(e) => return Err(format!("client {}: {e}\n{sql}", self.number)),
            }
        }
        unreachable!("the server is killed at some time")
    }

    /// Compares what is there with what must be, and what may be; whether the statement under way happened.
    fn settle(&mut self, found: &Found) -> Result<Option<bool>> {
        let mine = |name: &str| name == SHARED || owner(name) == Some(self.number);
        let own_keys = format!("|{}|", self.number);
        let found: Found = found
            .iter()
            .filter(|(name, _)| mine(name))
            .map(|(name, (columns, rows))| {
                let is_mine = |row: &&String| name != SHARED || row.starts_with(&own_keys);
                (name.clone(), (columns.clone(), rows.iter().filter(is_mine).cloned().collect()))
            })
            .collect();
        let acknowledged = self.expected(&self.tables);
        let under_way = self.under_way.take();
        if found == acknowledged {
            return Ok(under_way.map(|_| false));
        }
        let Some((sql, next)) = under_way else {
            return Err(format!("client {}, nothing under way: {}", self.number, difference(&acknowledged, &found)));
        };
        let expected = self.expected(&next);
        if found == expected {
            self.tables = next;
            return Ok(Some(true));
        }
        Err(format!(
            "client {}, under way {sql}\n without it: {}\n with it: {}",
            self.number,
            difference(&acknowledged, &found),
            difference(&expected, &found)
        ))
    }

    fn expected(&self, tables: &Tables) -> Found {
        let mut found = Found::new();
        for (name, table) in tables {
            let mut columns: BTreeSet<String> = ["id", "n", "tag", "v"].map(str::to_owned).into();
            columns.extend(table.extras.keys().cloned());
            let text = |(id, row): (&i64, &Row)| {
                let mut text = format!("|{}|", if name == SHARED { id / KEYS } else { 0 });
                for value in row.extras.values() {
                    let _ = write!(text, "{}|", value.map_or("NULL".to_owned(), |value| value.to_string()));
                }
                let _ = write!(text, "{id}|{}|{}|{}|", row.n, row.tag, vector(row.tag));
                text
            };
            found.insert(name.clone(), (columns, table.rows.iter().map(text).collect()));
        }
        found
    }

    /// A random statement, and the tables after it.
    fn statement(&mut self, rng: &mut Rng) -> (String, Tables) {
        loop {
            let mut tables = self.tables.clone();
            if let Some(sql) = self.change(rng, &mut tables) {
                return (sql, tables);
            }
        }
    }

    /// One try: none if the statement drawn makes no sense now.
    fn change(&mut self, rng: &mut Rng, tables: &mut Tables) -> Option<String> {
        let names: Vec<String> = tables.keys().cloned().collect();
        let name = names[rng.below(names.len() as u64) as usize].clone();
        let first = if name == SHARED { self.number * KEYS } else { 0 };
        let fresh = format!("c{}_{}", self.number, rng.below(4));
        let is_own = name != SHARED;
        let at = first + rng.below(KEYS as u64) as i64;
        let table = tables.get_mut(&name)?;
        let choice = rng.below(100);
        match choice {
            0..50 => {
                let is_upsert = choice >= 30 && table.keyed;
                let count = match rng.below(10) {
                    0..5 => 1,
                    5..9 => 2 + rng.below(8),
                    _ => 30 + rng.below(60),
                };
                let keys = (at..first + KEYS).chain(first..at);
                let free = keys.filter(|key| is_upsert || !table.rows.contains_key(key));
                // Keys come in no order.
                let keys: Vec<i64> = free.take(count as usize).collect::<Vec<_>>().into_iter().rev().collect();
                let mut values = Vec::new();
                for key in keys {
                    let tag = self.tag();
                    values.push(format!("({key}, {tag}, 0, '{}')", vector(tag)));
                    let n = table.rows.get(&key).map_or(0, |row| row.n + 1);
                    let extras = table.rows.get(&key).map_or_else(|| table.extras.clone(), |row| row.extras.clone());
                    table.rows.insert(key, Row { tag, n, extras });
                }
                if values.is_empty() {
                    return None;
                }
                let mut sql = format!("INSERT INTO {name} (id, tag, n, v) VALUES {}", values.join(", "));
                if is_upsert {
                    let _ = write!(
                        sql,
                        " ON CONFLICT (id) DO UPDATE SET tag = excluded.tag, v = excluded.v, n = {name}.n + 1"
                    );
                }
                Some(sql)
            }
            50..70 => {
                let end = (at + 1 + rng.below(40) as i64).min(first + KEYS);
                let tag = self.tag();
                for (_, row) in table.rows.range_mut(at..end) {
                    (row.tag, row.n) = (tag, row.n + 1);
                }
                let vector = vector(tag);
                Some(format!(
                    "UPDATE {name} SET tag = {tag}, n = n + 1, v = '{vector}' WHERE id >= {at} AND id < {end}"
                ))
            }
            70..85 => {
                let end = (at + 1 + rng.below(30) as i64).min(first + KEYS);
                table.rows.retain(|key, _| !(at..end).contains(key));
                Some(format!("DELETE FROM {name} WHERE id >= {at} AND id < {end}"))
            }
            85..87 if is_own => {
                table.rows.clear();
                Some(format!("TRUNCATE TABLE {name}"))
            }
            87..89 if is_own => {
                tables.remove(&name);
                Some(format!("DROP TABLE {name}"))
            }
            89..92 if is_own => {
                let extra = format!("e{}", rng.below(4));
                if table.extras.contains_key(&extra) {
                    table.extras.remove(&extra);
                    for row in table.rows.values_mut() {
                        row.extras.remove(&extra);
                    }
                    return Some(format!("ALTER TABLE {name} DROP COLUMN {extra}"));
                }
                let value = self.tag();
                table.extras.insert(extra.clone(), Some(value));
                for row in table.rows.values_mut() {
                    row.extras.insert(extra.clone(), Some(value));
                }
                Some(format!("ALTER TABLE {name} ADD COLUMN {extra} BIGINT NOT NULL DEFAULT {value}"))
            }
            92..94 if is_own && !names.contains(&fresh) => {
                let table = tables.remove(&name)?;
                tables.insert(fresh.clone(), table);
                Some(format!("ALTER TABLE {name} RENAME TO {fresh}"))
            }
            94..96 if is_own && !names.contains(&fresh) => {
                let mut copy = table.clone();
                copy.keyed = true;
                copy.extras.values_mut().for_each(|default| *default = None);
                tables.insert(fresh.clone(), copy);
                Some(format!("CREATE TABLE {fresh} AS SELECT * FROM {name}"))
            }
            96..100 if !names.contains(&fresh) => {
                let keyed = rng.below(3) > 0;
                tables.insert(fresh.clone(), Table::new(keyed));
                Some(create(&fresh, keyed))
            }
            _ => None,
        }
    }

    /// A number that no other row has had.
    fn tag(&mut self) -> i64 {
        self.next_tag += 1;
        self.next_tag
    }
}

type Tables = BTreeMap<String, Table>;

#[derive(Clone)]
struct Table {
    keyed: bool,
    /// Columns that were added, and the value that new rows have in them.
    extras: BTreeMap<String, Option<i64>>,
    rows: BTreeMap<i64, Row>,
}

impl Table {
    fn new(keyed: bool) -> Self {
        Self { keyed, extras: BTreeMap::new(), rows: BTreeMap::new() }
    }
}

#[derive(Clone)]
struct Row {
    /// Says what the vector is.
    tag: i64,
    /// Counts the changes.
    n: i64,
    extras: BTreeMap<String, Option<i64>>,
}

fn create(name: &str, keyed: bool) -> String {
    let key = if keyed { " PRIMARY KEY" } else { "" };
    format!("CREATE TABLE {name} (id BIGINT{key}, tag BIGINT, n BIGINT, v VECTOR({DIMENSIONS}))")
}

/// The client that has a table for itself.
fn owner(name: &str) -> Option<i64> {
    name.strip_prefix('c')?.split_once('_')?.0.parse().ok()
}

fn vector(tag: i64) -> String {
    let values: Vec<String> = (0..DIMENSIONS).map(|i| (tag + i).to_string()).collect();
    format!("[{}]", values.join(","))
}

/// Columns and rows of each table, rows as texts in order of their keys.
type Found = BTreeMap<String, (BTreeSet<String>, Vec<String>)>;

const COLUMNS: &str = "SELECT table_name || '|' || column_name AS row FROM information_schema.columns \
                       WHERE table_schema = 'public' ORDER BY 1";

/// The query for a table's rows, as [`Client::expected`] writes them; each begins with the number of the client that
/// has the row, in the shared table.
fn rows_query(name: &str, columns: &BTreeSet<String>) -> String {
    let owner = if name == SHARED { format!("(id / {KEYS})::TEXT") } else { "'0'".to_owned() };
    let cells: Vec<String> = columns.iter().map(|column| format!("coalesce({column}::TEXT, 'NULL') || '|'")).collect();
    format!("SELECT '|' || {owner} || '|' || {} AS row FROM {name} ORDER BY id", cells.join(" || "))
}

fn count_query(name: &str) -> String {
    format!("SELECT count(*)::TEXT AS row FROM {name}")
}

fn tables_of(lines: Vec<String>) -> Found {
    let mut found = Found::new();
    for line in lines {
        let (table, column) = line.split_once('|').expect("the query puts it there");
        found.entry(table.to_owned()).or_default().0.insert(column.to_owned());
    }
    found
}

fn check_count(name: &str, rows: &[String], count: &[String]) -> Result<()> {
    match count {
        [count] if *count == rows.len().to_string() => Ok(()),
        _ => Err(format!("table {name} has {} rows, and count(*) is {count:?}", rows.len())),
    }
}

async fn found_by_client(client: &mut Flight) -> Result<Found> {
    let mut found = tables_of(query(client, COLUMNS).await?);
    for (name, (columns, rows)) in &mut found {
        *rows = query(client, &rows_query(name, columns)).await?;
        check_count(name, rows, &query(client, &count_query(name)).await?)?;
    }
    Ok(found)
}

fn found_by_program(dir: &Path) -> Result<Found> {
    let ask = |sql: &str| -> Result<Vec<String>> {
        let args = ["--read-only", "--quiet", "--format", "tsv", "-c", sql];
        let output = program(dir).args(args).output().map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!("reading: {}", String::from_utf8_lossy(&output.stderr)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().skip(1).map(str::to_owned).collect())
    };
    let mut found = tables_of(ask(COLUMNS)?);
    for (name, (columns, rows)) in &mut found {
        *rows = ask(&rows_query(name, columns))?;
        check_count(name, rows, &ask(&count_query(name))?)?;
    }
    Ok(found)
}

/// The first things that differ.
fn difference(expected: &Found, found: &Found) -> String {
    let mut text = String::new();
    let nothing = Default::default();
    for name in expected.keys().chain(found.keys()).collect::<BTreeSet<_>>() {
        if expected.contains_key(name) != found.contains_key(name) {
            let _ = write!(text, "\n  table {name} is {}", if found.contains_key(name) { "there" } else { "missing" });
            continue;
        }
        let (before, after) = (expected.get(name).unwrap_or(&nothing), found.get(name).unwrap_or(&nothing));
        if before.0 != after.0 {
            let _ = write!(text, "\n  table {name} has columns {:?}, not {:?}", after.0, before.0);
        }
        let rows = |rows: &[String], others: &[String]| -> Vec<String> {
            rows.iter().filter(|row| !others.contains(row)).take(3).cloned().collect()
        };
        let (missing, strange) = (rows(&before.1, &after.1), rows(&after.1, &before.1));
        if before.1 != after.1 {
            let counts = (before.1.len(), after.1.len());
            let _ = write!(text, "\n  table {name}: {counts:?} rows, missing {missing:?}, not expected {strange:?}");
        }
    }
    text
}

fn program(dir: &Path) -> Command {
    let mut command = mvvd(dir);
    command.arg("--db").arg(dir);
    command
}

/// Reads where the server listens.
fn address(server: &mut Child) -> Result<String> {
    let mut line = String::new();
    let out = server.stdout.as_mut().expect("stdout is piped");
    BufReader::new(out).read_line(&mut line).map_err(|e| e.to_string())?;
    match line.trim().strip_prefix("listening on grpc://") {
        Some(address) => Ok(format!("http://{address}")),
        None => {
            let mut told = String::new();
            let _ = server.stderr.as_mut().expect("stderr is piped").read_to_string(&mut told);
            let _ = server.wait();
            Err(format!("the server does not start: {line}{told}"))
        }
    }
}

/// SIGKILL; what the server had printed.
fn kill(mut server: Child) -> Result<String> {
    server.kill().map_err(|e| e.to_string())?;
    let output = server.wait_with_output().map_err(|e| e.to_string())?;
    match String::from_utf8_lossy(&output.stderr) {
        told if told.is_empty() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        told => Err(format!("the server complains: {told}")),
    }
}

type Flight = FlightSqlServiceClient<Channel>;

async fn connect(address: &str) -> Result<Flight> {
    let endpoint = Endpoint::new(address.to_owned()).map_err(|e| e.to_string())?;
    Ok(Flight::new(endpoint.connect().await.map_err(|e| e.to_string())?))
}

async fn update(client: &mut Flight, sql: &str) -> Result<()> {
    client.execute_update(sql.to_owned(), None).await.map(drop).map_err(|e| e.to_string())
}

/// The texts in the only column of a result.
async fn query(client: &mut Flight, sql: &str) -> Result<Vec<String>> {
    let told = |e: &dyn std::fmt::Display| format!("{e}\n{sql}");
    let info = client.execute(sql.to_owned(), None).await.map_err(|e| told(&e))?;
    let ticket = info.endpoint.into_iter().next().and_then(|end| end.ticket).ok_or_else(|| told(&"no ticket"))?;
    let mut stream = client.do_get(ticket).await.map_err(|e| told(&e))?;
    let mut rows = Vec::new();
    while let Some(batch) = stream.try_next().await.map_err(|e| told(&e))? {
        for row in 0..batch.num_rows() {
            rows.push(arrow::util::display::array_value_to_string(batch.column(0), row).map_err(|e| told(&e))?);
        }
    }
    Ok(rows)
}

/// SplitMix64: the same choices for the same seed.
struct Rng(u64);

impl Rng {
    fn new(seed: u64, round: u64, who: u64) -> Self {
        let mut rng = Self(seed ^ round.wrapping_mul(0xA24B_AED4_963E_E407) ^ who.wrapping_mul(0x9FB2_1C65_1E98_DF25));
        rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
