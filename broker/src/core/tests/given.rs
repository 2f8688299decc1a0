//! What the tests are given: the chain as shipped, and messages, links and failures with the usual in them.

use std::{collections::BTreeMap, time::Duration};

use broker_proto::{
    AgentName, AskOptions, Correlation, Failure, FailureClass, MessageId, MessageType, ModelName,
    Priority, RateLimit, Recipient, Sender, Usage, WallTime,
};
use proptest::prelude::ProptestConfig;

use crate::core::{
    Command, NewConsultation, NewMessage, Outcome, Policy,
    agent::Link,
    policy::{Bounds, Model, Prices, Reserve, Routing, Thresholds},
    queue::{Body, Digest},
};

pub(super) const LEASE: Duration = Duration::from_secs(15);
pub(super) const GRACE: Duration = Duration::from_secs(5);
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
pub(super) const RETURN: Duration = Duration::from_secs(30);
/// Longer than anything lives.
pub(super) const FOR_EVER: Duration = Duration::from_secs(8 * 24 * 3600);
/// 2026-01-01, a moment like any other.
pub(super) const START: u64 = 1_767_225_600_000;
pub(super) const MIB: u64 = 1024 * 1024;

/// As many random cases as `PROPTEST_CASES` says; nothing is written beside the code.
pub(super) fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn model(name: &str) -> ModelName {
    ModelName::parse(name).unwrap()
}

pub(super) fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

pub(super) fn failure(class: FailureClass) -> Failure {
    Failure::new(class, "provider", "")
}

fn candidate(name: &str, account: &str, context_window: u64, chain: &[&str]) -> Model {
    Model {
        name: model(name),
        place: 0,
        provider: account.into(),
        id: name.into(),
        chain: chain.iter().map(|name| model(name)).collect(),
        context_window,
        max_output_tokens: context_window / 4,
        has_vision: true,
        prices: Some(Prices { input: 4.0, output: 20.0, cache_read: 0.2, cache_write: 5.0 }),
        bytes_per_token: 4.0,
        tier: match name {
            "opus" => 3,
            "local" => 1,
            _ => 2,
        },
        is_degraded: false,
        is_simulated: false,
        account: account.into(),
        key: account.to_uppercase(),
        family: name.into(),
    }
}

/// `opus -> sonnet -> gpt-4o -> local`, with the settings as shipped.
pub(in crate::core) fn policy() -> Policy {
    let free = Prices { input: 0.0, output: 0.0, cache_read: 0.0, cache_write: 0.0 };
    let models = [
        candidate("opus", "anthropic", 200_000, &["opus", "sonnet", "gpt-4o", "local"]),
        candidate("sonnet", "anthropic", 200_000, &["sonnet", "gpt-4o", "local"]),
        candidate("gpt-4o", "openai", 128_000, &["gpt-4o", "local"]),
        Model {
            has_vision: false,
            is_degraded: true,
            prices: Some(free),
            ..candidate("local", "ollama", 8_192, &["local"])
        },
    ];
    Policy {
        models: models.into_iter().map(|model| (model.name.clone(), model)).collect(),
        lease: LEASE,
        lease_cap: secs(6 * 3600),
        max_lost_leases: 5,
        default_deadline: secs(600),
        max_lifetime: secs(7 * 24 * 3600),
        return_window: RETURN,
        queue_messages: 10_000,
        queue_bytes: 256 * MIB,
        bounds: Bounds { hops: 8, depth: 4, messages: 10_000 },
        store_reserve: Reserve { bytes: 32 * MIB, percent: 0 },
        dead_letters: 10_000,
        dead_letter_bytes: 256 * MIB,
        routing: Routing {
            patience: PATIENCE,
            max_attempts: 8,
            max_total: secs(600),
            breaker_failures: 3,
            breaker_open: secs(10),
            breaker_open_max: secs(300),
            probe_after: secs(60),
            credit_probe_after: secs(300),
            agent_grace: GRACE,
            min_output_tokens: 16,
        },
        thresholds: Thresholds::default(),
        budgets: crate::core::usage::Budgets::new(),
        handoff: crate::core::handoff::Settings::default(),
        rotation: crate::core::ring::Settings::default(),
    }
}

/// A short question to a model, with nothing asked for that is out of the usual.
pub(super) fn consultation(asked: &str) -> NewConsultation {
    NewConsultation {
        asked: model(asked),
        options: AskOptions::default(),
        prompt_bytes: 400,
        history_bytes: 0,
        needs_vision: false,
        max_output_tokens: None,
    }
}

pub(super) fn done() -> Outcome {
    Outcome::Done { reply: Body::default(), stop_reason: None }
}

pub(super) fn sender() -> Sender {
    Sender::parse("app").unwrap()
}

pub(super) fn cancel(id: MessageId) -> Command {
    Command::Cancel { sender: sender(), id }
}

pub(super) fn link(name: &str, instance: &str, messages: u32) -> Link {
    Link {
        agent: agent(name),
        instance: instance.into(),
        resumes: None,
        pull: None,
        is_exclusive: true,
        models: vec![model(name)],
        roles: vec![],
        stands_by: vec![],
        capacity: messages,
        since: WallTime(START),
        credit_messages: messages,
        credit_bytes: 64 * MIB,
    }
}

pub(super) fn letter(id: MessageId, to: Recipient) -> NewMessage {
    NewMessage {
        id,
        sender: sender(),
        to,
        kind: MessageType::Delegation,
        priority: Priority::Normal,
        digest: Digest([1; 32]),
        body: Body { size_bytes: 400, ..Body::default() },
        expires_at: None,
        session: None,
        ordering_key: None,
        correlation: Correlation::default(),
        labels: BTreeMap::new(),
        allow_future_recipient: true,
        consultation: None,
        earlier: None,
        numbered: None,
        earlier_number: None,
        parent: None,
        budget: None,
    }
}

pub(super) fn tokens(input: u64, output: u64) -> Usage {
    Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() }
}

pub(super) fn window(name: &str, used: u64) -> RateLimit {
    RateLimit { name: name.into(), limit: Some(100), remaining: Some(100 - used), resets_at: None }
}
