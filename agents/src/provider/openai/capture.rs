//! The HTTP service that async-openai sends through: one request, no retry, and the reply is kept here.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use async_openai::{error::OpenAIError, middleware::HttpRequestFactory};
use reqwest::{Client, Response};
use tower::Service;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
#[error("no reply")]
pub(super) struct NoReply(#[source] pub(super) reqwest::Error);

/// One call's reply.
pub(super) struct Capture {
    http: Client,
    /// Written by the service once, taken by the adapter after.
    kept: Arc<Mutex<Option<Response>>>,
}

impl Capture {
    pub(super) fn new(http: Client) -> Self {
        Self { http, kept: Arc::default() }
    }

    pub(super) fn service(&self) -> CaptureService {
        CaptureService { http: self.http.clone(), kept: Arc::clone(&self.kept) }
    }

    /// The reply, if there was one.
    pub(super) fn take(&self) -> Option<Response> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The service; async-openai asks for one that can be cloned.
#[derive(Clone)]
pub(super) struct CaptureService {
    http: Client,
    kept: Arc<Mutex<Option<Response>>>,
}

impl fmt::Debug for CaptureService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CaptureService")
    }
}

impl Service<HttpRequestFactory> for CaptureService {
    type Response = Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let Self { http, kept } = self.clone();
        Box::pin(async move {
            let request = request.build().await?;
            let response = http.execute(request).await;
            let response =
                response.map_err(|error| OpenAIError::Boxed(Box::new(NoReply(error))))?;
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(response);
            // For a stream, an empty success ends at once; for a unary call it is no JSON, which nobody looks at.
            Ok(Response::from(http::Response::new(reqwest::Body::default())))
        })
    }
}
