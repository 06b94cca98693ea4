//! The only crossing between async code and CPU work, and the threads on both sides.
//!
//! A database owns its threads: a runtime on which every statement is planned and run (its stacks are large, since
//! plans are trees and trees are walked by recursion), and a rayon pool for search. A caller's own runtime only ever
//! waits.

use std::future::Future;
use std::sync::Arc;

use mvvd_core::{Error, ErrorKind, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Stack of each thread that plans or runs statements. Only what is used is ever taken from the system.
const STACK_BYTES: usize = 64 << 20;

/// Most threads that wait for files and locks; more statements wait for a thread.
const BLOCKING_THREADS_MAX: usize = 64;

/// The threads of one database.
#[derive(Debug)]
pub(crate) struct Bridge {
    runtime: Option<Runtime>,
    pool: Arc<ThreadPool>,
    threads: usize,
}

impl Bridge {
    /// `threads` for statements and as many for search.
    pub(crate) fn new(threads: usize) -> Result<Self> {
        let failed = |e: String| Error::new(ErrorKind::Unavailable, format!("cannot start {threads} threads: {e}"));
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_stack_size(STACK_BYTES)
            .thread_name("mvvd-query")
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .enable_all()
            .build()
            .map_err(|e| failed(e.to_string()))?;
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .stack_size(STACK_BYTES)
            .thread_name(|i| format!("mvvd-search-{i}"))
            .build()
            .map_err(|e| failed(e.to_string()))?;
        Ok(Self { runtime: Some(runtime), pool: Arc::new(pool), threads })
    }

    /// Number of threads on either side.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// The pool for search.
    pub(crate) fn pool(&self) -> &Arc<ThreadPool> {
        &self.pool
    }

    /// Runs a statement's work on the database's own runtime. Dropping the answer cancels the work.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let mut task = AbortOnDrop(self.spawn(work));
        match (&mut task.0).await {
            Ok(result) => result,
            Err(e) if e.is_cancelled() => Err(Error::new(ErrorKind::Cancelled, "cancelled")),
            Err(e) => Err(Error::internal(format!("a statement stopped by a bug: {}", panic_text(e)))),
        }
    }

    /// Runs `work`, which may wait for a file or a lock, without holding up other statements.
    ///
    /// Once begun it runs to its end, even if nobody waits any more.
    pub(crate) async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let runtime = self.runtime.as_ref().expect("the runtime lives as long as the database");
        match runtime.spawn_blocking(work).await {
            Ok(result) => result,
            Err(e) => Err(Error::internal(format!("a write stopped by a bug: {}", panic_text(e)))),
        }
    }

    /// Starts work on the database's own runtime.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.as_ref().expect("the runtime lives as long as the database").spawn(work)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // The last handle may be dropped inside a runtime, where waiting is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Runs `work` on the pool and waits without blocking the runtime.
pub(crate) async fn compute<T: Send + 'static>(
    pool: &ThreadPool,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (send, receive) = oneshot::channel();
    pool.spawn(move || {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
            .unwrap_or_else(|_| Err(Error::internal("a search stopped by a bug")));
        // Nobody waits any more when the query was cancelled.
        let _ = send.send(result);
    });
    receive.await.unwrap_or_else(|_| Err(Error::internal("a search thread went away")))
}

/// Cancels its task when it goes out of scope.
#[derive(Debug)]
pub(crate) struct AbortOnDrop<T>(pub(crate) tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn panic_text(e: tokio::task::JoinError) -> String {
    match e.try_into_panic() {
        Ok(payload) => match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => payload.downcast::<&str>().map_or_else(|_| "panic".to_owned(), |text| (*text).to_owned()),
        },
        Err(e) => e.to_string(),
    }
}
