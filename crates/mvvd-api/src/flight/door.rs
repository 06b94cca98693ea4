//! The outermost layer: finds the session of a call, hands out cookies, and answers what the Flight SQL trait leaves out.

use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::Command;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, IpcMessage,
    PollInfo, SchemaAsIpc, SchemaResult, Ticket,
};
use futures::{StreamExt, stream};
use mvvd_core::{Error, Result};
use mvvd_query::Mvvd;
use tonic::{Request, Response, Status, Streaming};

use super::{CANCEL_FLIGHT_INFO, CLOSE_SESSION, Calls, command};
use crate::status::status;

/// The Flight service. A clone is the same service.
#[derive(Clone)]
pub(crate) struct Door {
    calls: Arc<Calls>,
}

/// The actions that do something here.
const ACTIONS: &[(&str, &str)] = &[
    ("CreatePreparedStatement", "Prepares a statement"),
    ("ClosePreparedStatement", "Closes a prepared statement"),
    ("CancelQuery", "Cancels a statement whose rows are not fetched to their end"),
    (CANCEL_FLIGHT_INFO, "Cancels a statement whose rows are not fetched to their end"),
    (CLOSE_SESSION, "Forgets the settings of the session that the cookie names"),
];

impl Door {
    pub(crate) fn new(db: Mvvd) -> Result<Self> {
        Ok(Self { calls: Arc::new(Calls::new(db)?) })
    }

    /// Forgets what nobody came back for.
    pub(crate) fn sweep(&self) {
        self.calls.sweep();
    }

    /// Runs a call in its session.
    async fn enter<T, R, F>(
        &self,
        mut request: Request<T>,
        work: impl FnOnce(Request<T>) -> F,
    ) -> Result<Response<R>, Status>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let call = self.calls.sessions.of(request.metadata());
        request.extensions_mut().insert(call.clone());
        let mut response = work(request).await?;
        call.mark(response.metadata_mut());
        Ok(response)
    }

    async fn schema_of(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let columns = match command(&request.get_ref().cmd)? {
            Command::CommandStatementQuery(query) => {
                let call = self.calls.call(&request);
                let description = call.session.describe(&query.query).await.map_err(|e| status(&e))?;
                description.columns.unwrap_or_else(|| Arc::new(Schema::empty()))
            }
            Command::CommandPreparedStatementQuery(query) => {
                self.calls.prepared.columns(&query.prepared_statement_handle)?
            }
            // The other commands say their schema without doing anything.
            _ => {
                let info = self.calls.get_flight_info(request).await?.into_inner();
                return Ok(Response::new(SchemaResult { schema: info.schema }));
            }
        };
        let options = IpcWriteOptions::default();
        let message: IpcMessage =
            SchemaAsIpc::new(&columns, &options).try_into().map_err(|e: arrow::error::ArrowError| status(&e.into()))?;
        Ok(Response::new(SchemaResult { schema: message.0 }))
    }
}

#[tonic::async_trait]
impl FlightService for Door {
    type HandshakeStream = <Calls as FlightService>::HandshakeStream;
    type ListFlightsStream = <Calls as FlightService>::ListFlightsStream;
    type DoGetStream = <Calls as FlightService>::DoGetStream;
    type DoPutStream = <Calls as FlightService>::DoPutStream;
    type DoActionStream = <Calls as FlightService>::DoActionStream;
    type ListActionsStream = <Calls as FlightService>::ListActionsStream;
    type DoExchangeStream = <Calls as FlightService>::DoExchangeStream;

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(status(&Error::unsupported("there is no authentication in this version").with_hint("connect without it")))
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(status(&Error::unsupported("there are no flights to list").with_hint("use the commands of Flight SQL")))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        command(&request.get_ref().cmd)?;
        self.enter(request, |request| self.calls.get_flight_info(request)).await
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(status(&Error::unsupported("PollFlightInfo is not supported").with_hint("use GetFlightInfo")))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        self.enter(request, |request| self.schema_of(request)).await
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        command(&request.get_ref().ticket)?;
        self.enter(request, |request| self.calls.do_get(request)).await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        self.enter(request, |request| self.calls.do_put(request)).await
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(status(&Error::unsupported("DoExchange is not supported")))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        self.enter(request, |request| self.calls.do_action(request)).await
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let action = |(name, description): &(&str, &str)| {
            Ok(ActionType { r#type: (*name).to_owned(), description: (*description).to_owned() })
        };
        Ok(Response::new(stream::iter(ACTIONS.iter().map(action).collect::<Vec<_>>()).boxed()))
    }
}
