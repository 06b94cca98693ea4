//! `mvvd check`, `stats`, `backup`, `restore`, `rotate-key`: what do they print, and how do they end?

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use mvvd_core::Error;
use mvvd_query::admin::{self, Checked, Copied, CopyTarget, DamagedSegment, Stats};
use mvvd_query::{Directory, KeySource, Progress};
use serde_json::json;

use crate::args::{Args, Backup, Check, Restore, RotateKey, StatsArgs};
use crate::error::Failure;
use crate::output::{Target, Vectors, View, printer};
use crate::progress::Feedback;
use crate::shell::directory;

/// The key that two options name, of which the command line has at most one.
pub(crate) fn key(file: Option<&PathBuf>, variable: Option<&String>) -> Option<KeySource> {
    file.cloned().map(KeySource::File).or_else(|| variable.cloned().map(KeySource::Variable))
}

pub(crate) fn check(args: &Args, check: &Check, db: &Path) -> Result<(), Failure> {
    let directory = directory(args, db);
    let found = admin::check(&directory)?;
    show_checked(args, &found)?;
    if !check.repair {
        return end(&found);
    }
    if args.read_only {
        return Err(Error::invalid("--repair writes, --read-only does not").into());
    }
    if found.damaged.is_empty() && found.orphans.is_empty() {
        say(if found.problems.is_empty() { "nothing to repair" } else { "nothing that can be repaired" })?;
        return end(&found);
    }
    let mut told = Ok(());
    let mut tell = |lost: &[DamagedSegment]| {
        for part in lost {
            told = say(&format!("table \"{}\": {} rows are lost with {}", part.table, part.rows, part.file));
        }
        Ok(())
    };
    let repaired = admin::repair(&directory, &mut tell)?;
    told?;
    for (from, to) in &repaired.moved {
        say(&match to {
            Some(to) => format!("moved {from} to {to}"),
            None => format!("took out {from}, which is missing"),
        })?;
    }
    for path in &repaired.removed {
        say(&format!("removed {path}"))?;
    }
    say("")?;
    let found = admin::check(&directory)?;
    show_checked(args, &found)?;
    end(&found)
}

fn end(found: &Checked) -> Result<(), Failure> {
    if found.problems.is_empty() { Ok(()) } else { Err(Failure::Told) }
}

fn show_checked(args: &Args, found: &Checked) -> Result<(), Failure> {
    let of = |value: fn(&admin::TableChecked) -> u64| numbers(found.tables.iter().map(value));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("table", texts(found.tables.iter().map(|table| Some(table.name.clone())))),
        ("rows", of(|table| table.rows)),
        ("deleted", of(|table| table.deleted)),
        ("segments", of(|table| table.segments)),
        ("bytes", of(|table| table.bytes)),
    ];
    show(args, columns)?;
    say(&format!("log: {} read", counted(found.log_records, "record")))?;
    for path in &found.orphans {
        say(&format!("note: {path} belongs to nothing: a crash left it, or another process is writing it"))?;
    }
    for problem in &found.problems {
        let table = problem.table.as_ref().map(|table| format!("table \"{table}\": "));
        // Most messages name the file themselves.
        let file =
            problem.file.as_ref().filter(|file| !problem.message.contains(*file)).map(|file| format!("{file}: "));
        let (table, file) = (table.unwrap_or_default(), file.unwrap_or_default());
        say(&format!("problem: {table}{file}{}", problem.message))?;
    }
    say(&match found.problems.len() {
        0 => "no problems".to_owned(),
        n => counted(n as u64, "problem"),
    })
}

pub(crate) fn stats(args: &Args, stats: &StatsArgs, db: &Path) -> Result<(), Failure> {
    let found = admin::stats(&directory(args, db))?;
    match stats.json {
        true => say(&json_of(&found)),
        false => show_stats(args, &found),
    }
}

fn show_stats(args: &Args, found: &Stats) -> Result<(), Failure> {
    let kinds = [
        ("segments", found.segment_bytes),
        ("indexes", found.index_bytes),
        ("log", found.log_bytes),
        ("manifest", found.manifest_bytes),
        ("keys", found.key_bytes),
        ("all", found.bytes()),
    ];
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("files", texts(kinds.iter().map(|(kind, _)| Some((*kind).to_owned())))),
        ("bytes", numbers(kinds.iter().map(|(_, bytes)| *bytes))),
    ];
    show(args, columns)?;
    say("")?;
    let of = |value: fn(&admin::TableStats) -> u64| numbers(found.tables.iter().map(value));
    let per_row = found.tables.iter().map(|table| table.bookkeeping_per_row().map(tenths));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("table", texts(found.tables.iter().map(|table| Some(table.name.clone())))),
        ("version", of(|table| table.version)),
        ("rows", of(|table| table.rows)),
        ("in log", of(|table| table.rows_in_log)),
        ("deleted", of(|table| table.deleted)),
        ("segments", of(|table| table.segments)),
        ("data bytes", of(|table| table.data_bytes)),
        ("bookkeeping bytes", of(|table| table.bookkeeping_bytes)),
        ("a row", Arc::new(Float64Array::from_iter(per_row))),
    ];
    show(args, columns)
}

fn json_of(found: &Stats) -> String {
    let tables: Vec<_> = found
        .tables
        .iter()
        .map(|table| {
            json!({
                "name": table.name,
                "version": table.version,
                "rows": table.rows,
                "rows_in_log": table.rows_in_log,
                "deleted": table.deleted,
                "segments": table.segments,
                "segment_bytes": table.segment_bytes,
                "data_bytes": table.data_bytes,
                "bookkeeping_bytes": table.bookkeeping_bytes,
                "bookkeeping_bytes_per_row": table.bookkeeping_per_row().map(tenths),
            })
        })
        .collect();
    json!({
        "bytes": found.bytes(),
        "segment_bytes": found.segment_bytes,
        "index_bytes": found.index_bytes,
        "log_bytes": found.log_bytes,
        "manifest_bytes": found.manifest_bytes,
        "key_bytes": found.key_bytes,
        "tables": tables,
    })
    .to_string()
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

pub(crate) fn backup(args: &Args, backup: &Backup, db: &Path) -> Result<(), Failure> {
    let from = directory(args, db);
    let to = target(&backup.to, &backup.target, &from);
    let copied = with_bar(args, "backup", |progress| admin::backup(&from, &to, progress))?;
    say_copied(args, &copied, &to.path)
}

pub(crate) fn restore(args: &Args, restore: &Restore, db: &Path) -> Result<(), Failure> {
    let from = directory(args, &restore.from);
    let to = target(db, &restore.target, &from);
    let copied = with_bar(args, "restore", |progress| admin::restore(&from, &to, progress))?;
    say_copied(args, &copied, &to.path)
}

/// A copy has the key of what it is a copy of, unless the user says otherwise: nothing is decrypted by accident.
fn target(path: &Path, options: &crate::args::CopyKey, from: &Directory) -> CopyTarget {
    let key = match options.plain {
        true => None,
        false => key(options.to_key_file.as_ref(), options.to_key_env.as_ref()).or_else(|| from.key.clone()),
    };
    CopyTarget { path: path.to_owned(), key }
}

fn with_bar<T>(
    args: &Args,
    label: &str,
    work: impl FnOnce(&mut dyn FnMut(u64, u64)) -> mvvd_core::Result<T>,
) -> Result<T, Failure> {
    let bar = (!args.quiet && io::stderr().is_terminal()).then(Feedback::default);
    let mut before = 0;
    let result = work(&mut |rows, total| {
        let Some(bar) = &bar else { return };
        if rows == 0 {
            bar.start(label, Some(total));
        }
        bar.advance(rows - before);
        bar.look(Duration::ZERO);
        before = rows;
    });
    if let Some(bar) = &bar {
        bar.clear();
    }
    Ok(result?)
}

fn say_copied(args: &Args, copied: &Copied, to: &Path) -> Result<(), Failure> {
    if args.quiet {
        return Ok(());
    }
    let (tables, rows) = (counted(copied.tables, "table"), counted(copied.rows, "row"));
    let segments = counted(copied.segments, "segment");
    say(&format!("copied {tables}, {rows}, in {segments} of {} bytes, to \"{}\"", copied.bytes, to.display()))
}

pub(crate) fn rotate_key(args: &Args, rotate: &RotateKey, db: &Path) -> Result<(), Failure> {
    let mut directory = directory(args, db);
    if let Some(new) = key(rotate.new_key_file.as_ref(), rotate.new_key_env.as_ref()) {
        admin::rotate_master_key(&directory, &new)?;
        directory.key = Some(new);
        if !args.quiet {
            say("the database opens with the new key only")?;
        }
    }
    if rotate.data {
        let number = admin::rotate_data_key(&directory)?;
        if !args.quiet {
            say(&format!("data key {number} encrypts what is written from now on"))?;
        }
    }
    Ok(())
}

fn counted(n: u64, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

fn say(line: &str) -> Result<(), Failure> {
    Target::default().say(line)
}

fn numbers(values: impl Iterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(|v| v as i64)))
}

fn texts(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(values))
}

/// Prints columns as results are printed.
fn show(args: &Args, columns: Vec<(&str, ArrayRef)>) -> Result<(), Failure> {
    let batch = RecordBatch::try_from_iter(columns)?;
    let view = View { format: args.format, vectors: Vectors::default(), width: None, color: false };
    let mut printer = printer(view, &batch.schema(), Target::default().writer()?)?;
    printer.rows(&batch)?;
    printer.finish()
}
