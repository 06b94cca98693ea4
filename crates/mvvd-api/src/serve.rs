//! The server: one listener, its limits, and how it stops.

use std::future::Future;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use futures::FutureExt;
use futures::future::BoxFuture;
use mvvd_core::{Error, ErrorKind, Result};
use mvvd_query::Mvvd;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::flight::{Door, Watch};

/// Largest message that is read, in bytes; clients split larger batches.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Calls that one connection may have open.
const STREAMS_MAX: u32 = 256;
/// A connection that does not answer for so long is gone, and with it what it was asking for.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long calls may still run after the server was told to stop.
const GRACE: Duration = Duration::from_secs(10);
/// How often what nobody came back for is thrown away.
const SWEEP: Duration = Duration::from_secs(10);

/// Answers Flight SQL on `listener` until `shutdown`, then lets calls that are running end, for ten seconds at most.
///
/// There is no authentication and no encryption: bind the listener to a loopback address.
pub fn serve(
    db: Mvvd,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> BoxFuture<'static, Result<()>> {
    run(db, listener, shutdown.boxed()).boxed()
}

async fn run(db: Mvvd, listener: TcpListener, shutdown: BoxFuture<'static, ()>) -> Result<()> {
    let door = Door::new(db)?;
    let sweeper = door.clone();
    let service = FlightServiceServer::new(door)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let (stop, mut stopped) = watch::channel(false);
    let server = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(Watch(service))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async move {
            // An error means that the sender is gone, and so is the server.
            let _ = stopped.wait_for(|stop| *stop).await;
        });
    let sweep = async move {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            sweeper.sweep();
        }
    };
    let stopping = async move {
        shutdown.await;
        stop.send_replace(true);
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ended = server => ended.map_err(|e| Error::new(ErrorKind::Unavailable, format!("the server stopped: {e}"))),
        () = stopping => Ok(()),
        () = sweep => Ok(()),
    }
}
