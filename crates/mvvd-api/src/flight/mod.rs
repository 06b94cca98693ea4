//! Arrow Flight SQL: every call of the protocol, each handed to the file that answers it.

mod catalog;
mod door;
mod info;
mod ingest;
mod prepared;
mod queries;
mod received;
mod registry;
mod sessions;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::metadata::{SqlInfoData, XdbcTypeInfoData};
use arrow_flight::sql::server::{DoPutError, FlightSqlService, PeekableFlightDataStream};
use arrow_flight::sql::{
    ActionBeginSavepointRequest, ActionBeginSavepointResult, ActionBeginTransactionRequest,
    ActionBeginTransactionResult, ActionCancelQueryRequest, ActionCancelQueryResult,
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    ActionEndSavepointRequest, ActionEndTransactionRequest, Any, Command, CommandGetCatalogs, CommandGetCrossReference,
    CommandGetDbSchemas, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo,
    CommandGetTableTypes, CommandGetTables, CommandGetXdbcTypeInfo, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, CommandStatementIngest, CommandStatementQuery, CommandStatementUpdate,
    DoPutPreparedStatementResult, ProstMessageExt, SqlInfo, TicketStatementQuery,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightDescriptor, FlightInfo, Ticket,
};
use futures::{Stream, StreamExt, stream};
use mvvd_core::{Error, Result};
use mvvd_query::Mvvd;
use prost::Message;
use tonic::{Request, Response, Status};

use crate::status::{from_flight, status};
pub(crate) use door::Door;
use queries::{Cancelled, Encoded, Queries, count, encode};
use sessions::{Call, Sessions};
use watch::Broken;
pub(crate) use watch::Watch;

/// Actions beside those of Flight SQL.
const CANCEL_FLIGHT_INFO: &str = "CancelFlightInfo";
const CLOSE_SESSION: &str = "CloseSession";

/// What all calls share.
pub(crate) struct Calls {
    sessions: Arc<Sessions>,
    queries: Arc<Queries>,
    prepared: prepared::Statements,
    sql_info: SqlInfoData,
    type_info: XdbcTypeInfoData,
}

/// Result of the action CloseSession.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// The session is closed.
const CLOSED: i32 = 1;

impl Calls {
    fn new(db: Mvvd) -> Result<Self> {
        let failed = |e: arrow_flight::error::FlightError| Error::internal(e.to_string());
        Ok(Self {
            sessions: Arc::new(Sessions::new(db)),
            queries: Arc::new(Queries::new()),
            prepared: prepared::Statements::new(),
            sql_info: info::sql_info().map_err(failed)?,
            type_info: info::type_info().map_err(failed)?,
        })
    }

    fn sweep(&self) {
        self.queries.sweep();
        self.prepared.sweep();
        self.sessions.sweep();
    }

    /// The session that the door found for a call.
    fn call<T>(&self, request: &Request<T>) -> Call {
        match request.extensions().get::<Call>() {
            Some(call) => call.clone(),
            None => self.sessions.of(request.metadata()),
        }
    }

    fn cancel(&self, info: &FlightInfo) -> Result<CancelStatus, Status> {
        Ok(match self.queries.cancel(info)? {
            Cancelled::Done => CancelStatus::Cancelled,
            Cancelled::Soon => CancelStatus::Cancelling,
        })
    }
}

/// The command inside a ticket or descriptor.
fn command(bytes: &[u8]) -> Result<Command, Status> {
    let wrong = |e: String| status(&Error::invalid(format!("this is no Flight SQL command: {e}")));
    let any = Any::decode(bytes).map_err(|e| wrong(e.to_string()))?;
    Command::try_from(any).map_err(|e| wrong(e.to_string()))
}

/// Refuses work inside a transaction, which cannot have been begun here.
fn no_transaction(id: Option<&[u8]>) -> Result<()> {
    match id {
        Some(id) if !id.is_empty() => Err(transactions()),
        _ => Ok(()),
    }
}

fn transactions() -> Error {
    Error::unsupported("transactions over several statements are not supported")
        .with_hint("each statement is atomic by itself; leave autocommit on")
}

/// Where to fetch the answer to a call of the catalog: the command itself is the ticket.
fn info_of(
    schema: &Schema,
    command: impl ProstMessageExt,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    queries::info(schema, command.as_any().encode_to_vec(), request.into_inner()).map(Response::new)
}

type Answered = Result<Response<Encoded>, Status>;

fn rows_of(batch: arrow_flight::error::Result<RecordBatch>) -> Answered {
    let batch = batch.map_err(from_flight)?;
    let (_, rows) = encode(&batch.schema(), stream::iter([Ok(batch)]).boxed());
    Ok(Response::new(rows))
}

fn no_rows(schema: &SchemaRef) -> Answered {
    Ok(Response::new(encode(schema, stream::empty().boxed()).1))
}

#[tonic::async_trait]
impl FlightSqlService for Calls {
    type FlightService = Calls;

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        no_transaction(query.transaction_id.as_deref()).map_err(|e| status(&e))?;
        let call = self.call(&request);
        let answer = call.session.sql(&query.query, &[]).await.map_err(|e| status(&e))?;
        call.keep(answer.tag());
        self.queries.start(answer.into(), request.into_inner()).map(Response::new)
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let handle = query.prepared_statement_handle;
        self.prepared.query(&handle, &self.queries, request.into_inner()).await.map(Response::new)
    }

    async fn get_flight_info_catalogs(
        &self,
        query: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query.into_builder().schema(), query, request)
    }

    async fn get_flight_info_schemas(
        &self,
        query: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query.clone().into_builder().schema(), query, request)
    }

    async fn get_flight_info_tables(
        &self,
        query: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query.clone().into_builder().schema(), query, request)
    }

    async fn get_flight_info_table_types(
        &self,
        query: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&query.into_builder().schema(), query, request)
    }

    async fn get_flight_info_sql_info(
        &self,
        query: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&self.sql_info.schema(), query, request)
    }

    async fn get_flight_info_primary_keys(
        &self,
        query: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&catalog::primary_key_schema(), query, request)
    }

    async fn get_flight_info_exported_keys(
        &self,
        query: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&catalog::foreign_key_schema(), query, request)
    }

    async fn get_flight_info_imported_keys(
        &self,
        query: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&catalog::foreign_key_schema(), query, request)
    }

    async fn get_flight_info_cross_reference(
        &self,
        query: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&catalog::foreign_key_schema(), query, request)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        query: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info_of(&self.type_info.schema(), query, request)
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, _: Request<Ticket>) -> Answered {
        self.queries.fetch(&ticket.statement_handle).map(Response::new)
    }

    async fn do_get_prepared_statement(&self, query: CommandPreparedStatementQuery, _: Request<Ticket>) -> Answered {
        let (schema, rows) = self.prepared.rows(&query.prepared_statement_handle).await?;
        Ok(Response::new(encode(&schema, rows).1))
    }

    async fn do_get_catalogs(&self, query: CommandGetCatalogs, request: Request<Ticket>) -> Answered {
        rows_of(catalog::catalogs(&self.call(&request).session, query))
    }

    async fn do_get_schemas(&self, query: CommandGetDbSchemas, request: Request<Ticket>) -> Answered {
        rows_of(catalog::schemas(&self.call(&request).session, query))
    }

    async fn do_get_tables(&self, query: CommandGetTables, request: Request<Ticket>) -> Answered {
        rows_of(catalog::tables(&self.call(&request).session, query))
    }

    async fn do_get_table_types(&self, query: CommandGetTableTypes, _: Request<Ticket>) -> Answered {
        rows_of(catalog::table_types(query))
    }

    async fn do_get_sql_info(&self, query: CommandGetSqlInfo, _: Request<Ticket>) -> Answered {
        rows_of(query.into_builder(&self.sql_info).build())
    }

    async fn do_get_primary_keys(&self, query: CommandGetPrimaryKeys, request: Request<Ticket>) -> Answered {
        rows_of(catalog::primary_keys(&self.call(&request).session, &query))
    }

    async fn do_get_exported_keys(&self, _: CommandGetExportedKeys, _: Request<Ticket>) -> Answered {
        no_rows(&catalog::foreign_key_schema())
    }

    async fn do_get_imported_keys(&self, _: CommandGetImportedKeys, _: Request<Ticket>) -> Answered {
        no_rows(&catalog::foreign_key_schema())
    }

    async fn do_get_cross_reference(&self, _: CommandGetCrossReference, _: Request<Ticket>) -> Answered {
        no_rows(&catalog::foreign_key_schema())
    }

    async fn do_get_xdbc_type_info(&self, query: CommandGetXdbcTypeInfo, _: Request<Ticket>) -> Answered {
        rows_of(query.into_builder(&self.type_info).build())
    }

    async fn do_put_error_callback(
        &self,
        _: Request<PeekableFlightDataStream>,
        error: DoPutError,
    ) -> Result<Response<<Self as FlightService>::DoPutStream>, Status> {
        Err(status(&Error::invalid(error.to_string())))
    }

    async fn do_put_statement_update(
        &self,
        update: CommandStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        no_transaction(update.transaction_id.as_deref()).map_err(|e| status(&e))?;
        let call = self.call(&request);
        let answer = call.session.sql(&update.query, &[]).await.map_err(|e| status(&e))?;
        call.keep(answer.tag());
        Ok(count(&answer))
    }

    async fn do_put_statement_ingest(
        &self,
        command: CommandStatementIngest,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        let session = self.call(&request).session;
        let broken = request.extensions().get::<Broken>().cloned().unwrap_or_default();
        ingest::ingest(&session, command, request.into_inner(), broken).await.map_err(|e| status(&e))
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let handle = query.prepared_statement_handle;
        self.prepared.bind(&handle, request.into_inner()).await?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) })
    }

    async fn do_put_prepared_statement_update(
        &self,
        query: CommandPreparedStatementUpdate,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<i64, Status> {
        self.prepared.update(&query.prepared_statement_handle, request.into_inner()).await
    }

    async fn do_action_fallback(
        &self,
        request: Request<Action>,
    ) -> Result<Response<<Self as FlightService>::DoActionStream>, Status> {
        let body = match request.get_ref().r#type.as_str() {
            CANCEL_FLIGHT_INFO => {
                let wrong = || status(&Error::invalid("this is no request to cancel"));
                let cancel = CancelFlightInfoRequest::decode(&*request.get_ref().body).map_err(|_| wrong())?;
                let result = self.cancel(&cancel.info.ok_or_else(wrong)?)?;
                CancelFlightInfoResult { status: result as i32 }.encode_to_vec()
            }
            CLOSE_SESSION => {
                self.call(&request).close();
                CloseSessionResult { status: CLOSED }.encode_to_vec()
            }
            other => return Err(status(&Error::unsupported(format!("the action {other} is not supported")))),
        };
        let result = Ok(arrow_flight::Result { body: body.into() });
        let results: Pin<Box<dyn Stream<Item = _> + Send>> = stream::iter([result]).boxed();
        Ok(Response::new(results))
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        request: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        no_transaction(query.transaction_id.as_deref()).map_err(|e| status(&e))?;
        self.prepared.create(self.call(&request), &query.query).await
    }

    async fn do_action_close_prepared_statement(
        &self,
        query: ActionClosePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        self.prepared.close(&query.prepared_statement_handle)
    }

    async fn do_action_begin_transaction(
        &self,
        _: ActionBeginTransactionRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginTransactionResult, Status> {
        Err(status(&transactions()))
    }

    async fn do_action_end_transaction(
        &self,
        _: ActionEndTransactionRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        Err(status(&transactions()))
    }

    async fn do_action_begin_savepoint(
        &self,
        _: ActionBeginSavepointRequest,
        _: Request<Action>,
    ) -> Result<ActionBeginSavepointResult, Status> {
        Err(status(&transactions()))
    }

    async fn do_action_end_savepoint(&self, _: ActionEndSavepointRequest, _: Request<Action>) -> Result<(), Status> {
        Err(status(&transactions()))
    }

    async fn do_action_cancel_query(
        &self,
        query: ActionCancelQueryRequest,
        _: Request<Action>,
    ) -> Result<ActionCancelQueryResult, Status> {
        let wrong = |_| status(&Error::invalid("this is no request to cancel"));
        let result = self.cancel(&FlightInfo::decode(&*query.info).map_err(wrong)?)?;
        // The two enumerations have the same numbers.
        Ok(ActionCancelQueryResult { result: result as i32 })
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}
