//! Bulk ingest: a stream of record batches into a table, as one statement.

use arrow_flight::sql::server::PeekableFlightDataStream;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use futures::{StreamExt, future, stream};
use mvvd_core::{Error, ErrorKind, Result};
use mvvd_query::{IfExists, IfMissing, Ingest, Session};

use super::catalog::check_place;
use super::received::batches;
use super::watch::Broken;

/// Writes the rows of a call; returns how many.
pub(crate) async fn ingest(
    session: &Session,
    command: CommandStatementIngest,
    messages: PeekableFlightDataStream,
    broken: Broken,
) -> Result<i64> {
    let target = target(command)?;
    let Some((schema, rows)) = batches(messages).await? else {
        return Err(Error::invalid("an ingest needs record batches"));
    };
    // The last word of the stream: a client that is gone has not sent all of it.
    let end = stream::once(async move { broken.is_set().then(|| Err(gone())) }).filter_map(future::ready);
    let count = session.ingest(target, schema, rows.chain(end).boxed()).await?;
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}

fn gone() -> Error {
    Error::new(ErrorKind::Cancelled, "the client broke off in the middle of its rows")
}

fn target(command: CommandStatementIngest) -> Result<Ingest> {
    super::no_transaction(command.transaction_id.as_deref())?;
    if command.temporary {
        return Err(Error::unsupported("temporary tables are not supported").with_hint("make a table and drop it"));
    }
    if let Some(option) = command.options.keys().next() {
        return Err(Error::invalid(format!("unknown ingest option \"{option}\"")).with_hint("there are none"));
    }
    check_place(command.catalog.as_deref(), command.schema.as_deref())?;
    let options = command.table_definition_options.unwrap_or_default();
    let if_missing = match options.if_not_exist() {
        TableNotExistOption::Create => IfMissing::Create,
        TableNotExistOption::Fail | TableNotExistOption::Unspecified => IfMissing::Fail,
    };
    let if_exists = match options.if_exists() {
        TableExistsOption::Fail => IfExists::Fail,
        // Appending to what is there is what an ingest without options means.
        TableExistsOption::Append | TableExistsOption::Unspecified => IfExists::Append,
        TableExistsOption::Replace => IfExists::Replace,
    };
    Ok(Ingest { table: command.table, if_missing, if_exists })
}
