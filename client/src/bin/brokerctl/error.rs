//! What ended a command, as people and programs read it.

use broker_client::Error;
use broker_proto::types::WallTime;

use crate::{
    commands::consult,
    exit_code::{self, Exit},
    output,
};

/// The line for stderr: the broker's reason where it gave one, and the sentence.
pub(crate) fn line(err: &anyhow::Error) -> String {
    match client(err).and_then(Error::reason) {
        Some(reason) => format!("error: {reason}: {}", sentence(err)),
        None => format!("error: {}", sentence(err)),
    }
}

/// The object for stdout. Null is what only the broker could have said.
pub(crate) fn json(err: &anyhow::Error) -> serde_json::Value {
    let mut json = serde_json::json!({
        "code": null, "reason": reason(err), "message": sentence(err), "metadata": {},
        "retry_after_ms": null,
    });
    if let Some(refused @ Error::Refused { metadata, retry_after, .. }) = client(err) {
        json["code"] = refused.code_name().into();
        json["metadata"] = serde_json::json!(metadata);
        json["retry_after_ms"] = retry_after.map(output::millis).into();
    }
    serde_json::json!({ "error": json })
}

/// The broker's reason, or a word for what went wrong on this side.
pub(crate) fn reason(err: &anyhow::Error) -> String {
    match client(err) {
        Some(Error::Unreachable { .. } | Error::TimedOut { .. }) => "BROKER_UNREACHABLE".to_owned(),
        Some(err) => err.reason().unwrap_or("INTERNAL").to_owned(),
        None => match exit_code::of_error(err) {
            Exit::Usage => "INVALID_REQUEST",
            Exit::NotFound => "FILE_NOT_FOUND",
            Exit::Integrity => "FILE_REFUSED",
            _ => "INTERNAL",
        }
        .to_owned(),
    }
}

/// An error as a person reads it: with the way out where there is one.
pub(crate) fn sentence(err: &anyhow::Error) -> String {
    match client(err) {
        Some(Error::Unreachable { endpoint, .. }) => {
            format!("no broker answers at {endpoint}; start one with `brokerctl up`")
        }
        Some(Error::Refused { message, metadata, retry_after, .. }) => {
            let mut said = message.clone();
            if let Some(nearest) = metadata.get("nearest")
                && !nearest.is_empty()
                && !said.contains(nearest.as_str())
            {
                said.push_str(&format!("; did you mean {}?", nearest.replace(", ", " or ")));
            }
            // Of a handoff that nobody can take now.
            let until = metadata.get("until_ms").and_then(|at| at.parse().ok()).map(WallTime);
            let wait = until.map(|at| at.since(consult::now()));
            if let Some(wait) = &retry_after.or(wait) {
                let now = consult::now();
                let at = output::clock(now.after(*wait), now);
                said.push_str(&format!("; try again at {at} (in {})", output::span(*wait)));
            }
            said
        }
        _ => output::sentence(err),
    }
}

fn client(err: &anyhow::Error) -> Option<&Error> {
    err.chain().find_map(|cause| cause.downcast_ref())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_client::Code;

    use super::*;

    #[test]
    fn a_refusal_tells_its_reason_to_people_and_programs() {
        let err = anyhow::Error::new(Error::Refused {
            code: Code::NotFound,
            reason: "UNKNOWN_MODEL".into(),
            message: "no model `opsu`".into(),
            retry_after: Some(Duration::from_secs(3)),
            metadata: [("nearest".to_owned(), "opus".to_owned())].into(),
        });
        let said = line(&err);
        assert!(
            said.starts_with("error: UNKNOWN_MODEL: no model `opsu`; did you mean opus?"),
            "{said}"
        );
        let json = json(&err)["error"].clone();
        assert_eq!(json["code"], "NOT_FOUND");
        assert_eq!(json["reason"], "UNKNOWN_MODEL");
        assert_eq!(json["metadata"], serde_json::json!({ "nearest": "opus" }));
        assert_eq!(json["retry_after_ms"], 3_000);
    }

    #[test]
    fn what_this_side_says_has_no_code() {
        let err = anyhow::Error::new(crate::cli::Misused::NoTask);
        assert_eq!(line(&err), "error: the task is empty");
        let json = json(&err)["error"].clone();
        assert_eq!(
            (&json["code"], &json["reason"]),
            (&serde_json::Value::Null, &"INVALID_REQUEST".into())
        );
    }
}
