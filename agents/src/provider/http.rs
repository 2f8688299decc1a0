//! What the three wires share below their words: the client, its failures, and what of a refusal may be said.
//!
//! Invariant: of a refusal only the status and words that are plain identifiers are passed on.

use std::io::ErrorKind;
use std::time::Duration;

use broker_config::Model;
use broker_proto::{Failure, FailureClass};
use http::{HeaderMap, HeaderValue, Uri};
use reqwest::{Client, Response, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::SetupError;

/// More of a refusal's body is not read: none of the three writes as much.
const LONGEST_REFUSAL: usize = 256 << 10;

/// A client for `model`: it waits for a connection as long as configured, and for nothing else, because an answer
/// may take minutes. It follows no redirect: a header with a key would follow too.
///
/// # Errors
/// [`SetupError::Http`] when TLS cannot be set up, as on a machine without any root certificate.
pub(super) fn client(model: &Model) -> Result<Client, SetupError> {
    // The binary has installed one long before; without any, reqwest panics.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .connect_timeout(model.connect_timeout)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("model-broker/", env!("CARGO_PKG_VERSION")));
    let uri = model.base_url.parse::<Uri>().ok();
    if is_loopback(uri.as_ref().and_then(Uri::host).unwrap_or_default()) {
        builder = builder.no_proxy();
    }
    if model.base_url.starts_with("http://") {
        // Without TLS the machine's certificates do not matter, not even their absence.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|source| SetupError::Http { model: model.name.clone(), source })
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A header's value that no log shows. `None`: the key has characters that a header cannot have.
pub(super) fn secret_header(prefix: &str, key: &SecretString) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("{prefix}{}", key.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A call that got no reply.
pub(super) fn no_reply(provider: &str, model: &Model, error: &reqwest::Error) -> Failure {
    let host = host(&model.base_url);
    let (class, detail) = if error.is_connect() && error.is_timeout() {
        let limit = humantime::format_duration(model.connect_timeout);
        (FailureClass::Timeout, format!("no connection to {host} within {limit}"))
    } else if error.is_connect() {
        (FailureClass::Unreachable, format!("cannot connect to {host}: {}", reason(error)))
    } else if error.is_timeout() {
        (FailureClass::Timeout, format!("{host} did not answer in time"))
    } else {
        (FailureClass::Unreachable, format!("the connection to {host} broke before it answered"))
    };
    Failure::new(class, provider, detail)
}

/// The system's word for why there is no connection; everything else in the chain may name an address with a key.
fn reason(error: &reqwest::Error) -> String {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            // A name that cannot be looked up has no kind of its own.
            return match io.kind() {
                kind @ (ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::TimedOut) => kind.to_string(),
                _ => "its name cannot be looked up, or no route leads there".to_owned(),
            };
        }
        source = cause.source();
    }
    "connection failed".to_owned()
}

/// A success of a unary call whose body cannot be read.
pub(super) fn malformed_unary(provider: &str) -> Failure {
    Failure::new(
        FailureClass::MalformedReply,
        provider,
        format!("{provider} answered something else: base_url may be wrong"),
    )
}

/// The host and port of an address, as a person would say it.
pub(super) fn host(base_url: &str) -> String {
    base_url
        .parse::<Uri>()
        .ok()
        .and_then(|uri| uri.authority().map(ToString::to_string))
        .unwrap_or_default()
}

/// A refusal, read: what classification goes by.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// What the body of a refusal says. All texts are empty when it is not of the provider's shape.
#[derive(Default)]
pub(super) struct Body {
    pub(super) kind: String,
    pub(super) code: String,
    pub(super) message: String,
    /// The whole of it, for what only one server says.
    pub(super) json: Value,
}

/// A provider's words may quote a key or a prompt.
impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("kind", &word(&self.kind))
            .field("code", &word(&self.code))
            .finish_non_exhaustive()
    }
}

impl Body {
    /// Reads `{"error":{"type","code","message",..}}` or `{"error":"text"}`; the code may be a number, and may be in
    /// `details.error_code`. Whatever else it is becomes empty.
    pub(super) fn of(json: Value) -> Self {
        let text = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let error = json.get("error");
        let field = |name: &str| text(error.and_then(|error| error.get(name)));
        let stable = error
            .and_then(|error| error.get("details"))
            .and_then(|details| details.get("error_code"));
        let code = stable.map_or_else(|| field("code"), |stable| text(Some(stable)));
        let message = error.and_then(Value::as_str).map_or_else(|| field("message"), str::to_owned);
        Self { kind: field("type"), code, message, json }
    }
}

impl Refusal {
    /// Reads a reply that is no success. A body that cannot be read is an empty one: the status remains.
    pub(super) async fn read(mut response: Response, patience: Duration) -> Self {
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let mut bytes = Vec::new();
        let read = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > LONGEST_REFUSAL {
                    break;
                }
            }
        };
        // The status is here already; a body that stalls is not worth the caller's whole deadline.
        let _ = tokio::time::timeout(patience, read).await;
        let json = serde_json::from_slice(&bytes).unwrap_or_default();
        Self { status, headers, body: Body::of(json) }
    }

    /// The words in parentheses behind every refusal.
    pub(super) fn said(&self, provider: &str, why: &str) -> String {
        said(provider, self.status, &self.body, why)
    }
}

/// `why: PROVIDER answered STATUS (type, code)`.
pub(super) fn said(provider: &str, status: u16, body: &Body, why: &str) -> String {
    let words = [word(&body.kind), word(&body.code)];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let words = if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) };
    format!("{why}: {provider} answered {status}{words}")
}

/// `text` if it is a plain identifier, as error types and codes are; nothing that could be a key or a prompt is.
fn word(text: &str) -> &str {
    let is_plain = (1..=48).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        && text.bytes().filter(u8::is_ascii_digit).count() <= 4;
    if is_plain { text } else { "" }
}

/// The whole numbers in a sentence, `30,000` as one, so that both sides of `210050 tokens > 200000` are found.
pub(super) fn numbers(text: &str) -> Vec<u64> {
    let text = text.replace(',', "");
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_words_of_a_refusal_are_said() {
        let body = |kind: &str, code: &str| {
            Body::of(
                serde_json::json!({"error": {"type": kind, "code": code, "message": "sk-canary"}}),
            )
        };
        let said = |body: &Body| said("openai", 401, body, "refused");
        assert_eq!(
            said(&body("invalid_request_error", "invalid_api_key")),
            "refused: openai answered 401 (invalid_request_error, invalid_api_key)"
        );
        assert_eq!(said(&body("sk-ant-canary", "a b")), "refused: openai answered 401");
        assert_eq!(said(&body("0123456789abcdef0123456789", "")), "refused: openai answered 401");
        assert!(!format!("{:?}", body("sk-canary", "x")).contains("canary"));
    }

    #[test]
    fn numbers_of_a_sentence_are_found() {
        assert_eq!(
            numbers("prompt is too long: 210050 tokens > 200,000 maximum"),
            [210_050, 200_000]
        );
        assert!(numbers("none").is_empty());
    }

    #[test]
    fn loopback_needs_no_proxy() {
        for host in ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["api.openai.com", "10.0.0.1", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
