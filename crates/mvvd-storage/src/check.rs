//! Is a database sound? Reads every byte of it; and takes out what is damaged, if asked to.

use std::sync::Arc;

use mvvd_core::{ErrorKind, Result, TableSchema};

use crate::chunk::{Chunk, Merge};
use crate::disk::{Options, SEGMENTS};
use crate::fs::FileSystem;
use crate::key::KeyColumn;
use crate::manifest::MANIFEST;
use crate::recover::{recover_parts, steady};
use crate::snapshot::Snapshot;
use crate::unlock::KEYS;
use crate::validate::validate;

/// Where damaged files go.
const DAMAGED: &str = "damaged";

/// What a check has found.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// What was read of each table.
    pub tables: Vec<TableChecked>,
    /// Records of the log that were read.
    pub log_records: u64,
    /// Everything that is wrong; damaged segments are among it.
    pub problems: Vec<Problem>,
    /// Segments that cannot be read: what [`repair`] takes out.
    pub damaged: Vec<DamagedSegment>,
    /// Files that nobody names. A crash leaves them, opening for writing removes them, and they harm nothing; while
    /// another process writes, they are its next segments.
    pub orphans: Vec<String>,
}

/// What a check has read of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableChecked {
    /// Its name.
    pub name: String,
    /// Live rows.
    pub rows: u64,
    /// Deleted rows that are still in segments.
    pub deleted: u64,
    /// Sound segments.
    pub segments: u64,
    /// Bytes of these segments.
    pub bytes: u64,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The table it is about; none where it is about all.
    pub table: Option<String>,
    /// The file it is in; none for rows that are in several.
    pub file: Option<String>,
    /// What is wrong.
    pub message: String,
}

/// A segment that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedSegment {
    /// The table.
    pub table: String,
    /// The file.
    pub file: String,
    /// Rows that are lost with it.
    pub rows: u64,
    /// What is wrong with it.
    pub message: String,
}

/// What a repair has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Damaged files: where they were, and where they are now; none for those that were missing.
    pub moved: Vec<(String, Option<String>)>,
    /// Files that were removed because nobody named them.
    pub removed: Vec<String>,
}

/// Checks the database in `fs`: every byte against its checksum, every row against its schema, every key against the
/// others. Writes nothing; another process may write the database meanwhile.
///
/// Damage is in the report. An error is what keeps the check from looking: there is no database, a wrong key.
pub fn check(fs: &Arc<dyn FileSystem>, options: &Options) -> Result<Checked> {
    let options = Options { read_only: true, background: false, ..options.clone() };
    // A file that is missed because a writer has replaced the manifest is no damage.
    let is_good = |found: &Result<Checked>| matches!(found, Ok(found) if found.problems.is_empty());
    steady(&**fs, || check_once(fs, &options), is_good)
}

fn check_once(fs: &Arc<dyn FileSystem>, options: &Options) -> Result<Checked> {
    let mut checked = Checked::default();
    let (shared, findings) = match recover_parts(fs, options) {
        Ok(found) => found,
        // Neither key file nor manifest can be passed over.
        Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
            let file = [MANIFEST, KEYS].into_iter().find(|file| e.message().contains(file)).map(str::to_owned);
            checked.problems.push(Problem { table: None, file, message: e.message().to_owned() });
            return Ok(checked);
        }
        Err(e) => return Err(e),
    };
    for segment in &findings.damaged {
        let (table, file) = (Some(segment.table.clone()), Some(segment.file.clone()));
        let message = format!("{} rows cannot be read: {}", segment.rows, segment.message);
        checked.problems.push(Problem { table, file, message });
    }
    if let Some(e) = &findings.log {
        checked.problems.push(Problem { table: None, file: Some("wal".to_owned()), message: e.message().to_owned() });
    }
    for (name, table) in shared.tables() {
        let snapshot = table.snapshot();
        let problems = check_rows(&snapshot).into_iter();
        let named = problems.map(|(file, message)| Problem { table: Some(name.clone()), file, message });
        checked.problems.extend(named);
        let metas = || snapshot.chunks().iter().filter_map(|chunk| chunk.segment_meta());
        checked.tables.push(TableChecked {
            rows: snapshot.live() as u64,
            deleted: snapshot.chunks().iter().map(|chunk| chunk.deleted().len()).sum(),
            segments: metas().count() as u64,
            bytes: metas().map(|meta| meta.bytes).sum(),
            name,
        });
    }
    checked.log_records = findings.records;
    checked.damaged = findings.damaged;
    checked.orphans = findings.orphans;
    checked.orphans.extend(parts(&**fs)?);
    Ok(checked)
}

/// What is wrong with the rows of a table: the file, if it is one, and a message.
fn check_rows(snapshot: &Snapshot) -> Vec<(Option<String>, String)> {
    let mut problems = Vec::new();
    for chunk in snapshot.chunks() {
        let file = chunk.segment().map_or("wal", |segment| segment.path());
        if let Err(e) = check_values(snapshot.schema(), chunk) {
            problems.push((Some(file.to_owned()), e.message().to_owned()));
        }
        match out_of_order(chunk) {
            Ok(None) => {}
            Ok(Some(message)) => problems.push((Some(file.to_owned()), message)),
            Err(e) => problems.push((Some(file.to_owned()), e.message().to_owned())),
        }
    }
    // Keys that are not in order within a file would be reported once more.
    if problems.is_empty() && snapshot.chunks().len() > 1 {
        match duplicate(snapshot) {
            Ok(None) => {}
            Ok(Some(message)) => problems.push((None, message)),
            Err(e) => problems.push((None, e.message().to_owned())),
        }
    }
    problems
}

/// Whether the values are what their columns promise.
fn check_values(schema: &TableSchema, chunk: &Chunk) -> Result<()> {
    let all: Vec<usize> = (0..schema.columns().len()).collect();
    validate(schema, &chunk.batch(schema, &all, 0..chunk.len())?).map(|_| ())
}

fn out_of_order(chunk: &Chunk) -> Result<Option<String>> {
    let keys = chunk.keys(0..chunk.len())?;
    let keys = KeyColumn::of(&keys)?;
    Ok(keys
        .first_out_of_order()
        .map(|row| format!("key {} in row {} is not above the one before", keys.at(row), row + 1)))
}

/// A key that two live rows have.
fn duplicate(snapshot: &Snapshot) -> Result<Option<String>> {
    let chunks = snapshot.chunks();
    let merge = Merge::new(snapshot.schema(), chunks)?;
    let columns = chunks.iter().map(|chunk| chunk.keys(0..chunk.len())).collect::<Result<Vec<_>>>()?;
    let keys = columns.iter().map(|column| KeyColumn::of(column)).collect::<Result<Vec<_>>>()?;
    let key = |(chunk, row): (usize, usize)| keys[chunk].at(row);
    let place = |(chunk, _): (usize, usize)| chunks[chunk].segment().map_or("wal", |segment| segment.path());
    let pair = merge.sources().windows(2).find(|pair| key(pair[0]) == key(pair[1]));
    Ok(pair.map(|pair| format!("key {} comes twice: in {} and in {}", key(pair[0]), place(pair[0]), place(pair[1]))))
}

/// Files that were being written when a crash came.
fn parts(fs: &dyn FileSystem) -> Result<Vec<String>> {
    let at_top = [format!("{MANIFEST}.tmp"), format!("{KEYS}.part")].into_iter();
    let mut parts = Vec::new();
    for path in at_top {
        if fs.exists(&path)? {
            parts.push(path);
        }
    }
    Ok(parts)
}

/// Takes damaged segments out of the database in `fs` and moves their files to the folder `damaged`; removes files that
/// nobody names. Takes the lock of the writer.
///
/// `tell` hears what will be lost before anything is. What else is damaged (manifest, log) is an error, and nothing
/// changes.
pub fn repair(
    fs: &Arc<dyn FileSystem>,
    options: &Options,
    tell: &mut dyn FnMut(&[DamagedSegment]) -> Result<()>,
) -> Result<Repaired> {
    let options = Options { read_only: false, background: false, ..options.clone() };
    if !fs.exists(MANIFEST)? {
        return Err(mvvd_core::Error::not_found("there is no database here"));
    }
    let (shared, findings) = recover_parts(fs, &options)?;
    let mut repaired = Repaired { moved: Vec::new(), removed: findings.orphans };
    for path in parts(&**fs)? {
        fs.remove(&path)?;
        repaired.removed.push(path);
    }
    if !findings.damaged.is_empty() {
        tell(&findings.damaged)?;
        fs.create_folder(DAMAGED)?;
        for segment in &findings.damaged {
            let to = move_away(&**fs, &segment.file)?;
            repaired.moved.push((segment.file.clone(), to));
        }
        fs.sync_folder(DAMAGED)?;
        fs.sync_folder(SEGMENTS)?;
        // A manifest without them. A crash before this finds them missing, and the next repair goes on from there.
        shared.checkpoint_all()?;
    }
    shared.disk.as_ref().map_or(Ok(()), |disk| disk.close())?;
    Ok(repaired)
}

/// Moves a file to the folder of damaged files; none if it is missing.
fn move_away(fs: &dyn FileSystem, path: &str) -> Result<Option<String>> {
    if !fs.exists(path)? {
        return Ok(None);
    }
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let mut to = format!("{DAMAGED}/{name}");
    let mut copy = 1;
    while fs.exists(&to)? {
        copy += 1;
        to = format!("{DAMAGED}/{name}.{copy}");
    }
    fs.rename(path, &to)?;
    Ok(Some(to))
}

#[cfg(test)]
mod tests;
