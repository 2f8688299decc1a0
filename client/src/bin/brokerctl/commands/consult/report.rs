//! The one JSON object of `consult --output json`, which scripts rely on.

use broker_proto::types::{
    AnswerSummary, Failure, Handoff, MessageId, SessionOwner, Terminal, Usage, WallTime,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::output;

/// What became of a consultation.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// On failure: what had arrived, null for nothing.
    pub(crate) answer: Option<String>,
    pub(crate) asked: String,
    pub(crate) model: Option<String>,
    pub(crate) degraded: bool,
    pub(crate) simulated: bool,
    pub(crate) message_id: Option<String>,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) passed_over: Vec<PassedOver>,
    pub(crate) usage: Tokens,
    pub(crate) cost_usd: Option<f64>,
    /// Why its session does not go on with the answer; left out where it does, or where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_appended: Option<String>,
    /// What the model was not sent of its session's history; left out where it was sent all of it, or none was to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shortened: Option<String>,
    /// Who owns its session now ([`Owner::json`]); left out where it belongs to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Failed>,
}

/// Who owns the session of a question, once that ended.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) owner: SessionOwner,
    /// Since the last answer in it.
    pub(crate) has_changed: bool,
    /// What brought the session there; of one that was never handed over nothing did.
    pub(crate) handoff: Option<Handoff>,
}

impl Owner {
    /// `since` to `handoff` are null for a session that was never handed over.
    pub(crate) fn json(&self) -> Value {
        let of = self.handoff.as_ref();
        json!({
            "model": self.owner.model.as_str(),
            "agent": self.owner.agent.as_ref().map(ToString::to_string),
            "epoch": self.owner.epoch,
            "changed": self.has_changed,
            "since": of.and_then(|it| it.active_at).and_then(output::rfc3339),
            "from": of.map(|it| it.from.model.as_str()),
            "trigger": of.map(|it| it.trigger.kind.as_str()),
            "reason": of.map(|it| it.trigger.reasoning.as_str()),
            "handoff": of.map(|it| it.id.to_string()),
        })
    }
}

/// One provider call; `class` is null for the one that answered.
#[derive(Debug, Serialize)]
pub(crate) struct Attempt {
    model: String,
    class: Option<&'static str>,
    latency_ms: u64,
    wait_ms: u64,
}

/// A candidate that was not called.
#[derive(Debug, Serialize)]
pub(crate) struct PassedOver {
    model: String,
    reason: String,
}

/// Input excludes cache reads and writes, output includes reasoning; unknown is null.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Tokens {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
}

/// Why there is no answer, or not a whole one.
#[derive(Debug, Serialize)]
pub(crate) struct Failed {
    pub(crate) class: String,
    pub(crate) message: String,
    pub(crate) retry_at: Option<String>,
}

impl From<Usage> for Tokens {
    fn from(usage: Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            output_tokens: usage.output_tokens,
            cache_read_tokens: usage.cache_read_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            reasoning_tokens: usage.reasoning_tokens,
        }
    }
}

impl Report {
    /// A consultation that ended with `terminal` after `answer` was read.
    pub(crate) fn of(terminal: &Terminal, answer: String) -> Self {
        let summary = terminal.summary();
        let mut report = Self::of_summary(summary);
        report.error = failed(terminal);
        report.answer = (report.error.is_none() || !answer.is_empty()).then_some(answer);
        report
    }

    /// What is known without its text.
    pub(crate) fn of_summary(summary: &AnswerSummary) -> Self {
        let millis =
            |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let attempts = summary.attempts.iter().map(|attempt| Attempt {
            model: attempt.model.to_string(),
            class: attempt.failure.as_ref().map(|failure| failure.class.as_str()),
            latency_ms: millis(attempt.latency),
            wait_ms: millis(attempt.wait),
        });
        let passed_over = summary.passed_over.iter().map(|candidate| PassedOver {
            model: candidate.model.to_string(),
            reason: candidate.reason.clone(),
        });
        Self {
            answer: None,
            asked: summary.asked.to_string(),
            model: summary.model.as_ref().map(ToString::to_string),
            degraded: summary.is_degraded,
            simulated: summary.is_simulated,
            message_id: Some(summary.message_id.to_string()),
            attempts: attempts.collect(),
            passed_over: passed_over.collect(),
            usage: summary.usage.into(),
            cost_usd: summary.cost_usd.map(rounded),
            not_appended: summary.not_appended.clone(),
            shortened: summary.shortened.clone(),
            owner: None,
            error: None,
        }
    }

    /// A consultation that never came to an attempt.
    pub(crate) fn refused(
        asked: &str,
        id: Option<MessageId>,
        class: &str,
        message: String,
    ) -> Self {
        let error = Failed { class: class.to_owned(), message, retry_at: None };
        Self {
            answer: None,
            asked: asked.to_owned(),
            model: None,
            degraded: false,
            simulated: false,
            message_id: id.map(|id| id.to_string()),
            attempts: Vec::new(),
            passed_over: Vec::new(),
            usage: Tokens::default(),
            cost_usd: None,
            not_appended: None,
            shortened: None,
            owner: None,
            error: Some(error),
        }
    }
}

/// To a billionth of a dollar: what is behind it comes from adding in binary.
fn rounded(usd: f64) -> f64 {
    (usd * 1e9).round() / 1e9
}

fn failed(terminal: &Terminal) -> Option<Failed> {
    let (class, message, retry_at) = match terminal {
        Terminal::Done(_) => return None,
        Terminal::Failed { failure, summary } => {
            let retry_at = earliest_retry(failure, summary).and_then(output::rfc3339);
            (failure.class.as_str(), failure.detail.clone(), retry_at)
        }
        Terminal::Expired(_) => ("TIMEOUT", "the deadline passed".to_owned(), None),
        Terminal::Cancelled(_) => ("CANCELLED", "the message was cancelled".to_owned(), None),
    };
    Some(Failed { class: class.to_owned(), message, retry_at })
}

/// When the first of the models comes back, as far as anyone said.
pub(crate) fn earliest_retry(failure: &Failure, summary: &AnswerSummary) -> Option<WallTime> {
    let attempts = summary.attempts.iter().filter_map(|attempt| attempt.failure.as_ref());
    failure.retry_at.or_else(|| attempts.filter_map(|failure| failure.retry_at).min())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use broker_proto::types::{Attempt, FailureClass, ModelName, Provenance};

    use super::*;

    pub(crate) fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    pub(crate) fn attempt(number: u32, name: &str, failure: Option<Failure>) -> Attempt {
        Attempt {
            number,
            model: model(name),
            agent: None,
            failure,
            latency: Duration::from_millis(120),
            wait: Duration::from_millis(3),
            first_token: None,
            usage: Usage::default(),
            cost_usd: None,
        }
    }

    pub(crate) fn limited(retry_at: Option<WallTime>) -> Failure {
        let failure = Failure::new(FailureClass::RateLimited, "anthropic", "slow down");
        Failure { retry_at, ..failure }
    }

    pub(crate) fn summary(answered: Option<&str>, attempts: Vec<Attempt>) -> AnswerSummary {
        AnswerSummary {
            message_id: MessageId::from_u128(7),
            asked: model("opus"),
            model: answered.map(model),
            agent: None,
            is_degraded: false,
            is_simulated: true,
            stop_reason: None,
            attempts,
            passed_over: vec![broker_proto::PassedOver {
                model: model("gpt-4o"),
                reason: "no agent".into(),
                class: None,
            }],
            usage: Usage {
                input_tokens: Some(10),
                output_tokens: Some(4),
                cache_read_tokens: Some(2),
                cache_write_tokens: None,
                reasoning_tokens: None,
                provenance: Provenance::Reported,
            },
            cost_usd: None,
            not_appended: None,
            shortened: None,
        }
    }

    #[test]
    fn an_answer_is_one_object_with_these_keys() {
        let attempts = vec![attempt(1, "opus", Some(limited(None))), attempt(2, "sonnet", None)];
        let terminal = Terminal::Done(summary(Some("sonnet"), attempts));

        let json = serde_json::to_value(Report::of(&terminal, "yes".into())).unwrap();

        let want = serde_json::json!({
            "answer": "yes", "asked": "opus", "model": "sonnet", "degraded": false,
            "simulated": true, "message_id": "00000000000000000000000007",
            "attempts": [
                {"model": "opus", "class": "RATE_LIMITED", "latency_ms": 120, "wait_ms": 3},
                {"model": "sonnet", "class": null, "latency_ms": 120, "wait_ms": 3},
            ],
            "passed_over": [{"model": "gpt-4o", "reason": "no agent"}],
            "usage": {
                "input_tokens": 10, "output_tokens": 4, "cache_read_tokens": 2,
                "cache_write_tokens": null, "reasoning_tokens": null,
            },
            "cost_usd": null,
        });
        assert_eq!(json, want);
    }

    #[test]
    fn a_failure_says_class_message_and_time_beside_the_attempts() {
        let failure = limited(Some(WallTime(1_795_255_200_000)));
        let attempts = vec![attempt(1, "opus", Some(failure))];
        let failure = limited(None);
        let terminal = Terminal::Failed { failure, summary: summary(None, attempts) };

        let json = serde_json::to_value(Report::of(&terminal, String::new())).unwrap();

        let want = serde_json::json!({
            "class": "RATE_LIMITED", "message": "slow down", "retry_at": "2026-11-21T10:00:00Z",
        });
        assert_eq!(json["error"], want);
        assert_eq!(json["answer"], serde_json::Value::Null);
        assert_eq!(json["model"], serde_json::Value::Null);
        assert_eq!(json["attempts"][0]["class"], "RATE_LIMITED");
    }

    #[test]
    fn every_report_has_the_same_keys() {
        let keys = |report: &Report| -> Vec<String> {
            let json = serde_json::to_value(report).unwrap();
            json.as_object().unwrap().keys().cloned().collect()
        };
        let expired = Report::of(&Terminal::Expired(summary(None, vec![])), String::new());
        let refused = Report::refused("opus", None, "UNKNOWN_MODEL", "no".into());
        assert_eq!(keys(&expired), keys(&refused));
    }
}
