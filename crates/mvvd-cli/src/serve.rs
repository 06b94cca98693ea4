//! `mvvd serve`: the database behind a port, until a signal ends it.

use std::io::{self, Write};

use mvvd_core::{Error, ErrorKind, Result};
use mvvd_query::Mvvd;
use tokio::net::TcpListener;

use crate::args::{Args, Serve};
use crate::error::Failure;
use crate::output::plain;
use crate::shell::config;

/// Threads that wait for clients, decode and encode; statements run on the database's own.
const THREADS: usize = 2;

pub(crate) fn run(args: &Args, serve: &Serve) -> Result<(), Failure> {
    let db = Mvvd::open(config(args))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("mvvd-serve")
        .enable_all()
        .build()
        .map_err(|e| unavailable("cannot start", &e))?;
    runtime.block_on(listen(db, serve))
}

async fn listen(db: Mvvd, serve: &Serve) -> Result<(), Failure> {
    let place = format!("cannot listen on {}", serve.flight);
    let listener = TcpListener::bind(serve.flight).await.map_err(|e| unavailable(&place, &e))?;
    let address = listener.local_addr().map_err(|e| unavailable(&place, &e))?;
    // Signals are heard before anybody is told that the server is there.
    let stop = signals().map_err(|e| unavailable("cannot listen to signals", &e))?;
    let mut out = io::stdout().lock();
    writeln!(out, "listening on grpc://{address}")?;
    out.flush()?;
    drop(out);
    Ok(mvvd_api::serve(db, listener, stop).await?)
}

/// Ends with the first Ctrl-C or SIGTERM.
#[cfg(unix)]
fn signals() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ends with the first Ctrl-C.
#[cfg(not(unix))]
fn signals() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

fn unavailable(what: &str, e: &io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, format!("{what}: {}", plain(e)))
}
