//! The layers around the unary services: load shedding with a bound on calls, a deadline, a trace.
//!
//! Streams pass them only until they begin: their length is bounded by what feeds them.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tonic::body::Body;
use tower::{
    BoxError, Layer, Service, ServiceExt,
    limit::GlobalConcurrencyLimitLayer,
    load_shed::{LoadShed, error::Overloaded},
};
use tracing::{Instrument, debug, debug_span};

use super::reason;

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

/// How long a shed caller waits before it calls again.
const RETRY_SHED: Duration = Duration::from_millis(100);

/// Works on so many calls at once, and refuses more instead of queueing them.
#[derive(Debug, Clone)]
pub struct ShedLayer {
    limit: GlobalConcurrencyLimitLayer,
}

impl ShedLayer {
    #[must_use]
    pub fn new(calls: usize) -> Self {
        Self { limit: GlobalConcurrencyLimitLayer::new(calls) }
    }
}

impl<S> Layer<S> for ShedLayer {
    type Service = Shed<LoadShed<tower::limit::ConcurrencyLimit<S>>>;

    fn layer(&self, inner: S) -> Self::Service {
        Shed { inner: LoadShed::new(self.limit.layer(inner)) }
    }
}

/// Turns the error of a shed call into its status.
#[derive(Debug, Clone)]
pub struct Shed<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Shed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Answer<BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.inner.call(request);
        Box::pin(async move {
            match answer.await {
                Err(error) if error.is::<Overloaded>() => Ok(reason::TOO_MANY_CALLS
                    .after("the broker works on as many calls as it may", RETRY_SHED)
                    .into_http()),
                other => other,
            }
        })
    }
}

/// Ends a call that takes longer than its deadline, or than the broker's where it names none.
#[derive(Debug, Clone)]
pub struct DeadlineLayer {
    longest: Duration,
}

impl DeadlineLayer {
    #[must_use]
    pub fn new(longest: Duration) -> Self {
        Self { longest }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, longest: self.longest }
    }
}

/// The service that [`DeadlineLayer`] makes.
#[derive(Debug, Clone)]
pub struct Deadline<S> {
    inner: S,
    longest: Duration,
}

impl<S> Service<Request<Body>> for Deadline<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Answer<BoxError>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let asked =
            request.headers().get("grpc-timeout").and_then(|value| timeout(value.to_str().ok()?));
        let limit = asked.map_or(self.longest, |asked| asked.min(self.longest));
        let fresh = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            match tokio::time::timeout(limit, inner.oneshot(request)).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Ok(reason::DEADLINE
                    .status(format!("the call took longer than {} s", limit.as_secs_f64()))
                    .into_http()),
            }
        })
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// One span for each call.
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceLayer;

impl<S> Layer<S> for TraceLayer {
    type Service = Trace<S>;

    fn layer(&self, inner: S) -> Trace<S> {
        Trace { inner }
    }
}

/// The service that [`TraceLayer`] makes.
#[derive(Debug, Clone)]
pub struct Trace<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Trace<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let span = debug_span!("call", path = request.uri().path());
        let answer = span.in_scope(|| self.inner.call(request));
        Box::pin(
            async move {
                let answer = answer.await;
                if let Ok(answer) = &answer {
                    let code = answer.headers().get("grpc-status").and_then(|c| c.to_str().ok());
                    debug!(code, "answered");
                }
                answer
            }
            .instrument(span),
        )
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tonic::{Code, Status};
    use tonic_types::StatusExt;
    use tower::{ServiceBuilder, service_fn};

    use super::*;

    type Reply = Result<Response<Body>, BoxError>;

    fn request(headers: &[(&'static str, &str)]) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    fn status(answer: Reply) -> Status {
        Status::from_header_map(answer.unwrap().headers()).unwrap()
    }

    async fn never(_: Request<Body>) -> Reply {
        std::future::pending().await
    }

    async fn at_once(_: Request<Body>) -> Reply {
        Ok(Response::new(Body::empty()))
    }

    #[test]
    fn a_call_over_the_limit_is_shed_and_told_when_to_come_again() {
        let service = ServiceBuilder::new().layer(ShedLayer::new(1)).service(service_fn(never));
        let first = service.clone().oneshot(request(&[]));
        tokio::pin!(first);
        assert!(first.as_mut().now_or_never().is_none());

        // Clones are the connections of one broker: they share its limit.
        let second = service.oneshot(request(&[])).now_or_never().unwrap();

        let shed = status(second);
        assert_eq!(shed.code(), Code::ResourceExhausted);
        assert_eq!(shed.get_details_error_info().unwrap().reason, "TOO_MANY_CALLS");
        assert_eq!(shed.get_details_retry_info().unwrap().retry_delay, Some(RETRY_SHED));
    }

    #[test]
    fn a_call_that_ends_makes_room_for_another() {
        let service = ServiceBuilder::new().layer(ShedLayer::new(1)).service(service_fn(at_once));
        for _ in 0..3 {
            let answer = service.clone().oneshot(request(&[])).now_or_never().unwrap().unwrap();
            assert!(answer.headers().get("grpc-status").is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_its_own_deadline_or_the_brokers() {
        let longest = Duration::from_secs(30);
        let layers = ServiceBuilder::new().layer(DeadlineLayer::new(longest));
        let service = layers.service(service_fn(never));
        for (headers, seconds) in [
            (&[("grpc-timeout", "2S")][..], 2),
            (&[("grpc-timeout", "1H")], 30),
            (&[("grpc-timeout", "soon")], 30),
            (&[], 30),
        ] {
            let began = tokio::time::Instant::now();
            let ended = status(service.clone().oneshot(request(headers)).await);
            assert_eq!(ended.code(), Code::DeadlineExceeded);
            assert_eq!(ended.get_details_error_info().unwrap().reason, "DEADLINE");
            assert_eq!(began.elapsed().as_secs(), seconds, "{headers:?}");
        }
    }

    #[test]
    fn grpc_timeout_is_read_in_every_unit() {
        assert_eq!(timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(timeout("150m"), Some(Duration::from_millis(150)));
        assert_eq!(timeout("1H"), Some(Duration::from_secs(3600)));
        for text in ["", "S", "2", "-1S", "123456789S", "1x", "1é"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }
}
