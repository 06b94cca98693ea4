//! DataFusion's errors in our words: kinds survive the way through the engine, messages lose its internals.

use datafusion::common::{DataFusionError, SchemaError};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Location, TokenizerError};
use mvvd_core::{Error, ErrorKind, Position};

pub(crate) use mvvd_udfs::error::to_df;

/// Turns what DataFusion says into an [`Error`], with the place in the statement where DataFusion knows it.
pub(crate) fn from_df(e: DataFusionError) -> Error {
    let position =
        e.diagnostic().and_then(|d| d.span).map(|span| Position { line: span.start.line, column: span.start.column });
    let hint = e
        .diagnostic()
        .and_then(|d| d.helps.first().map(|h| h.message.clone()).or_else(|| Some(d.notes.first()?.message.clone())));
    let mut error = convert(e);
    if let (Some(position), None) = (position, error.position()) {
        error = error.at(position);
    }
    match (hint, error.hint()) {
        (Some(hint), None) => error.with_hint(tidy(&hint)),
        _ => error,
    }
}

/// A syntax error, with its place.
pub(crate) fn from_parser(e: ParserError) -> Error {
    match e {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            let (text, place) = split_place(&text);
            let text =
                text.strip_prefix("Expected: ").map_or_else(|| lower_first(text), |rest| format!("expected {rest}"));
            let error = Error::invalid(format!("syntax error: {text}"));
            match place {
                Some(place) => error.at(place),
                None => error,
            }
        }
        ParserError::RecursionLimitExceeded => Error::exhausted("the statement is nested too deeply"),
    }
}

/// An error of the tokenizer, with its place.
pub(crate) fn from_tokenizer(e: &TokenizerError) -> Error {
    Error::invalid(format!("syntax error: {}", lower_first(&e.message))).at(position(e.location))
}

/// sqlparser's place as ours.
pub(crate) fn position(location: Location) -> Position {
    Position { line: location.line.max(1), column: location.column.max(1) }
}

fn convert(e: DataFusionError) -> Error {
    use DataFusionError as D;
    match e {
        D::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => match other.downcast::<DataFusionError>() {
                Ok(inner) => from_df(*inner),
                Err(other) => Error::internal(other.to_string()),
            },
        },
        D::Context(_, inner) | D::Diagnostic(_, inner) => convert(*inner),
        D::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
            Ok(inner) => convert(inner),
            Err(shared) => borrowed(&shared),
        },
        D::Collection(mut all) if !all.is_empty() => convert(all.swap_remove(0)),
        D::ArrowError(inner, _) => match *inner {
            arrow::error::ArrowError::ExternalError(source) => convert(D::External(source)),
            inner => Error::from(inner),
        },
        D::SQL(inner, _) => from_parser(*inner),
        D::ParquetError(inner) => Error::new(ErrorKind::Corrupt, tidy(&inner.to_string())),
        D::ObjectStore(inner) => match *inner {
            object_store::Error::NotFound { path, .. } => Error::not_found(format!("file \"{path}\" does not exist")),
            inner => Error::new(ErrorKind::Unavailable, inner.to_string()),
        },
        D::IoError(inner) => Error::new(ErrorKind::Unavailable, inner.to_string()),
        D::ResourcesExhausted(text) => out_of_memory(&text),
        D::NotImplemented(text) => not_implemented(&text),
        D::SchemaError(inner, _) => schema_error(&inner),
        D::Plan(text) | D::Configuration(text) | D::Execution(text) => {
            let kind = if text.starts_with("table '") && text.ends_with("not found") {
                ErrorKind::NotFound
            } else {
                ErrorKind::Invalid
            };
            Error::new(kind, table_words(&tidy(&text)))
        }
        D::ExecutionJoin(inner) if inner.is_cancelled() => Error::new(ErrorKind::Cancelled, "cancelled"),
        D::ExecutionJoin(inner) => Error::internal(inner.to_string()),
        other => Error::internal(tidy(&other.to_string())),
    }
}

/// The error behind a shared pointer, as far as it can be known without owning it.
fn borrowed(e: &DataFusionError) -> Error {
    match e.find_root() {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => {
                let error = Error::new(ours.kind(), ours.message());
                match ours.hint() {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                }
            }
            None => Error::internal(inner.to_string()),
        },
        DataFusionError::ResourcesExhausted(text) => out_of_memory(text),
        DataFusionError::NotImplemented(text) => not_implemented(text),
        DataFusionError::Internal(text) => Error::internal(tidy(text)),
        other => Error::invalid(tidy(&other.strip_backtrace())),
    }
}

/// What DataFusion says of its pool, without the names of its operators' instances.
fn out_of_memory(text: &str) -> Error {
    let wanted = text.split("Failed to allocate additional ").nth(1).and_then(|rest| rest.split(" for ").next());
    let message = match wanted {
        Some(bytes) => format!("out of memory: {bytes} more than the memory limit allows"),
        None => format!("out of memory: {}", tidy(text.split([';', '\n']).next().unwrap_or(text))),
    };
    Error::exhausted(message).with_hint("raise the memory limit, or ask for less at once")
}

fn not_implemented(text: &str) -> Error {
    if text.contains("WindowFunction") {
        return Error::invalid("window functions cannot stand here")
            .with_hint("compute them in a subquery and use its columns");
    }
    if text.contains("OuterReferenceColumn") || text.contains("does not support logical expression") {
        return Error::unsupported("LATERAL and subqueries of this form are not supported")
            .with_hint("write it as a join, or as a subquery that does not refer to the outer query");
    }
    // What follows a brace or a tuple is the planner's syntax tree.
    let text = text.split(['{', '(']).next().unwrap_or(text).trim().trim_end_matches(':');
    Error::unsupported(format!("not supported: {}", tidy(text)))
}

fn schema_error(e: &SchemaError) -> Error {
    match e {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let error = Error::not_found(format!("column \"{}\" does not exist", field.flat_name()));
            let mut names: Vec<String> =
                valid_fields.iter().map(|c| c.name.clone()).filter(|n| !n.starts_with("__mvvd")).collect();
            names.dedup();
            let shown = names.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
            match names.len() {
                0 => error,
                1..=20 => error.with_hint(format!("the columns are {shown}")),
                n => error.with_hint(format!("the columns are {shown} and {} more", n - 20)),
            }
        }
        SchemaError::AmbiguousReference { field } => {
            Error::invalid(format!("column \"{}\" is ambiguous: more than one table has it", field.flat_name()))
        }
        other => Error::invalid(tidy(&other.to_string())),
    }
}

/// `table 'mvvd.public.x' not found` in our words.
fn table_words(text: &str) -> String {
    match text.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found")) {
        Some(name) => {
            let name = name.strip_prefix("mvvd.").unwrap_or(name);
            format!("table \"{}\" does not exist", name.strip_prefix("public.").unwrap_or(name))
        }
        None => text.to_owned(),
    }
}

/// One line, lower case first, no class names, no advice to file bugs elsewhere, no source paths.
fn tidy(text: &str) -> String {
    let mut text = text.trim();
    for prefix in [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Schema error: ",
        "Invalid or Unsupported Configuration: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    let text = text.split("\n\nbacktrace").next().unwrap_or(text);
    let text = text.split("\nThis issue was likely caused by a bug").next().unwrap_or(text);
    lower_first(text.trim_end_matches(['.', '\n']))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        // Keep SQL and acronyms as they are.
        (Some(first), Some(second)) if first.is_uppercase() && second.is_lowercase() => {
            first.to_lowercase().chain(text.chars().skip(1)).collect()
        }
        _ => text.to_owned(),
    }
}

/// Splits sqlparser's " at Line: 1, Column: 8" off a message.
fn split_place(text: &str) -> (&str, Option<Position>) {
    let Some((head, place)) = text.rsplit_once(" at Line: ") else { return (text, None) };
    let parsed = place.split_once(", Column: ").and_then(|(line, column)| {
        Some(Position { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
    });
    match parsed {
        Some(position) => (head, Some(position)),
        None => (text, None),
    }
}
