//! One request through the simulator: record it, decide the reply, send it at its pace.

use std::{io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State as Injected},
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    damage,
    decide::{self, Asked, Decision},
    journal::Arrival,
    reply::{Payload, Reply},
    route,
    shared::Shared,
    stream::{self, is_stopped_before},
    track::Track,
};

/// Anthropic's edge takes 32 MB; a little more is read so that the limit is answered, not met.
const LARGEST_REQUEST: usize = 32 << 20;

/// Answers everything that is not the control endpoint.
pub(super) async fn handle(Injected(shared): Injected<Arc<Shared>>, request: Request) -> Response {
    let at = shared.now();
    let (parts, body) = request.into_parts();
    let read = axum::body::to_bytes(body, LARGEST_REQUEST).await;
    let bytes = read.as_ref().cloned().unwrap_or_default();
    let path = parts.uri.path();
    let (wire, route) = route::of(&parts.method, path, &parts.headers);
    let json: Option<Value> = serde_json::from_slice(&bytes).ok();
    let model = json
        .as_ref()
        .and_then(|body| body.get("model").or_else(|| body.get("name")))
        .and_then(Value::as_str);
    let track = Track::open(
        Arc::clone(&shared.journal),
        Arrival {
            at,
            method: parts.method.as_str(),
            path,
            query: parts.uri.query(),
            headers: &parts.headers,
            wire,
            model,
            stream: json
                .as_ref()
                .and_then(|body| body.get("stream"))
                .and_then(Value::as_bool)
                .unwrap_or(false),
            body: bytes.clone(),
        },
    );
    let asked = Asked {
        moment: shared.moment(track.number()),
        wire,
        route,
        path,
        headers: &parts.headers,
        model: model.unwrap_or_default(),
        body: json.as_ref(),
        is_empty: bytes.is_empty(),
    };
    let decision = match read {
        Ok(_) => decide::decide(&shared, &asked),
        Err(_) => Decision::refused(Reply::html(413)),
    };
    send(&shared, track, decision, parts.method == Method::HEAD).await
}

async fn send(shared: &Shared, mut track: Track, decision: Decision, is_head: bool) -> Response {
    let Decision { reply, damage, pace, silence, mut outcome, settle } = decision;
    outcome.status = reply.status;
    let output = outcome.usage.map_or(0, |usage| usage.output);
    track.answered(outcome, settle);
    let until = silence.map(|silence| Instant::now() + silence);
    // Nothing to wait for is the common case of a refusal; it costs no timer then.
    if silence != Some(Duration::ZERO) && is_stopped_before(&shared.stopping, until).await {
        track.finish();
        let broken = io::Error::from(io::ErrorKind::ConnectionAborted);
        return Response::new(Body::from_stream(futures::stream::iter([Err::<Bytes, _>(broken)])));
    }
    let play = |chunks, pace, track| {
        stream::body(stream::steps(chunks, &damage, pace), track, shared.stopping.clone())
    };
    let body = match reply.payload {
        Payload::Whole(bytes) if is_head || damage.is_none() => {
            track.sent(output);
            track.finish();
            if is_head { Body::empty() } else { Body::from(bytes) }
        }
        Payload::Whole(bytes) => play(damage::pieces(&bytes, output), 0.0, track),
        Payload::Stream(chunks) => play(chunks, pace, track),
    };
    response(reply.status, &reply.headers, reply.content_type, body)
}

fn response(
    status: u16,
    headers: &[(String, String)],
    content_type: &'static str,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    put(response.headers_mut(), headers);
    response
}

fn put(into: &mut HeaderMap, headers: &[(String, String)]) {
    for (name, value) in headers {
        // A script's header that is none cannot be sent.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            into.insert(name, value);
        }
    }
}
