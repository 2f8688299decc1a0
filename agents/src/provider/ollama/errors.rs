//! What a refusal of Ollama means. It has no codes: the status says most, and a few sentences the rest.

use broker_proto::{Failure, FailureClass as Class, FailureScope as Scope, WallTime};

use super::NAME;
use crate::provider::{
    http::{Body, Refusal, numbers, said},
    when,
};

/// The class of a reply that is no success.
pub(super) fn classify(refusal: &Refusal, now: WallTime) -> Failure {
    let fail = |class: Class, why: &str| Failure::new(class, NAME, refusal.said(NAME, why));
    let message = refusal.body.message.as_str();
    match refusal.status {
        400 if is_too_long(message) => {
            fail(Class::ContextTooLong, "the prompt is too long for the model")
        }
        400 if message.contains("does not support") => {
            let mut failure = fail(
                Class::InvalidRequest,
                "the model cannot do what is asked, such as tools or images",
            );
            failure.scope = Scope::Model;
            failure.another_model_may_help = true;
            failure
        }
        401 | 403 => fail(Class::CredentialsRejected, "the server refuses the call"),
        404 => fail(Class::ModelNotFound, "the model is not installed"),
        408 | 504 => fail(Class::Timeout, "a deadline on the server's side passed"),
        413 => {
            let mut failure = fail(Class::RequestTooLarge, "the request is over the server's size");
            failure.another_model_may_help = false;
            failure
        }
        429 => {
            let mut failure = fail(Class::RateLimited, "the rate limit is reached");
            failure.retry_at = when::retry_after(&refusal.headers, now);
            failure
        }
        // Nobody here went away, so somebody between did.
        499 => fail(Class::Truncated, "the call was given up on the way"),
        500 if message.contains("memory") => {
            fail(Class::Overloaded, "the machine has too little memory for the model")
        }
        500..=599 => {
            let mut failure = fail(Class::Overloaded, "the server failed or is busy");
            failure.retry_at = when::retry_after(&refusal.headers, now);
            failure
        }
        400..=498 => fail(Class::InvalidRequest, "the request cannot work as it is"),
        _ => fail(Class::MalformedReply, "no answer, and no error either: base_url may be wrong"),
    }
}

/// The class of an error line: the status stays 200 and nothing follows.
pub(super) fn in_stream(body: &Body) -> Failure {
    let said = said(NAME, 200, body, "an error came within the answer");
    let class = if is_too_long(&body.message) { Class::ContextTooLong } else { Class::Truncated };
    let mut failure = Failure::new(class, NAME, said);
    failure.limit_tokens =
        numbers(&body.message).first().copied().filter(|_| class == Class::ContextTooLong);
    failure
}

fn is_too_long(message: &str) -> bool {
    message.contains("longer than the context length")
        || message.contains("exceeds the available context")
}
