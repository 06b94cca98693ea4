//! Tells a client that has sent everything from one that is gone.
//!
//! A request stream that a client resets looks like one that has come to its end: hyper and tonic both take the reset
//! for the end. An ingest must not: half of its rows would be written.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, http};
use tonic::server::NamedService;

/// Whether the request of a call ended without its end mark; among the extensions of each request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Broken(Arc<AtomicBool>);

impl Broken {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A service that watches the bodies of its requests.
#[derive(Debug, Clone)]
pub(crate) struct Watch<S>(pub(crate) S);

impl<S: NamedService> NamedService for Watch<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Watch<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let (mut parts, inner) = request.into_parts();
        let broken = Broken::default();
        parts.extensions.insert(broken.clone());
        self.0.call(http::Request::from_parts(parts, Body::new(Watched { inner, broken })))
    }
}

/// A body that notes how it ends.
#[derive(Debug)]
struct Watched {
    inner: Body,
    broken: Broken,
}

impl HttpBody for Watched {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        let is_broken = match &frame {
            Some(Ok(_)) => false,
            Some(Err(_)) => true,
            None => !self.inner.is_end_stream(),
        };
        if is_broken {
            self.broken.0.store(true, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
