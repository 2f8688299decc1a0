//! What a failure means: for the message that met it, and for the models it speaks of.

use std::time::Duration;

use broker_proto::{Failure, FailureClass, FailureScope, ModelName, WallTime};

use super::{ModelRoute, Shut};
use crate::core::{
    Now,
    policy::{Model, Policy, Routing},
};

/// Between a failure that may pass and the next try at the same model.
const BREATH: Duration = Duration::from_millis(250);

/// What becomes of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Once more at the same model, from `at` on.
    Again {
        at: WallTime,
    },
    /// A healthy idle candidate at once, else here at `until`.
    ShortWait {
        until: WallTime,
    },
    Next,
    /// Only a window larger than this one's.
    Larger,
    Fail,
}

/// What the failure of an attempt means for its message: the table of `docs/architecture.md`.
#[must_use]
pub fn verdict(failure: &Failure, tries_here: u32, routing: &Routing, now: Now) -> Verdict {
    let patient = now.wall.after(routing.patience);
    match failure.class {
        FailureClass::RateLimited => match failure.retry_at {
            Some(until) if until <= patient => Verdict::ShortWait { until },
            _ => Verdict::Next,
        },
        FailureClass::QuotaExhausted
        | FailureClass::CreditExhausted
        | FailureClass::CredentialsRejected
        | FailureClass::ModelNotFound => Verdict::Next,
        FailureClass::Overloaded
        | FailureClass::Timeout
        | FailureClass::Unreachable
        | FailureClass::Truncated
        | FailureClass::MalformedReply
        | FailureClass::Internal => match failure.retry_at {
            _ if tries_here >= 2 => Verdict::Next,
            Some(at) if at <= patient => Verdict::Again { at },
            Some(_) => Verdict::Next,
            None => Verdict::Again { at: now.wall.after(BREATH) },
        },
        FailureClass::AgentLost => Verdict::Again { at: now.wall },
        FailureClass::ContextTooLong => Verdict::Larger,
        FailureClass::RequestTooLarge if failure.another_model_may_help => Verdict::Next,
        FailureClass::RequestTooLarge
        | FailureClass::ContentRefused
        | FailureClass::InvalidRequest
        | FailureClass::Budget
        | FailureClass::Cancelled => Verdict::Fail,
    }
}

/// The routes that change by an attempt's end, by model.
pub type Effects = Vec<(ModelName, ModelRoute)>;

/// What an attempt's end says of its model, and of those that share its limits.
#[must_use]
pub fn consequences(
    state: &super::State,
    policy: &Policy,
    model: &Model,
    failure: Option<&Failure>,
    now: Now,
) -> Effects {
    let Some(failure) = failure else { return reopened(state, model) };
    match failure.class {
        FailureClass::RateLimited | FailureClass::QuotaExhausted => {
            let shares = |other: &Model| match failure.scope {
                FailureScope::Account | FailureScope::Key => other.account == model.account,
                FailureScope::Provider => other.provider == model.provider,
                FailureScope::Request | FailureScope::Model => {
                    other.family == model.family && other.account == model.account
                }
            };
            let after = policy.routing.probe_after;
            shut_all(state, policy, shares, failure, after, now)
        }
        FailureClass::CreditExhausted => {
            let shares = |other: &Model| other.account == model.account;
            shut_all(state, policy, shares, failure, policy.routing.credit_probe_after, now)
        }
        FailureClass::CredentialsRejected => {
            let shares = |other: &Model| other.account == model.account;
            let shares = |other: &Model| match failure.scope {
                FailureScope::Model | FailureScope::Request => other.name == model.name,
                FailureScope::Account | FailureScope::Key | FailureScope::Provider => shares(other),
            };
            policy
                .models
                .values()
                .filter(|other| shares(other))
                .map(|other| (other.name.clone(), closed(state, other, failure, None, now)))
                .collect()
        }
        FailureClass::ModelNotFound => {
            vec![(model.name.clone(), closed(state, model, failure, None, now))]
        }
        FailureClass::Overloaded
        | FailureClass::Timeout
        | FailureClass::Unreachable
        | FailureClass::Truncated
        | FailureClass::MalformedReply => {
            vec![counted(state, &policy.routing, model, failure, now)]
        }
        // The provider answered, so the model is there; what it said is about this request.
        FailureClass::ContextTooLong
        | FailureClass::RequestTooLarge
        | FailureClass::ContentRefused
        | FailureClass::InvalidRequest => reopened(state, model),
        FailureClass::AgentLost
        | FailureClass::Budget
        | FailureClass::Cancelled
        | FailureClass::Internal => Vec::new(),
    }
}

fn reopened(state: &super::State, model: &Model) -> Effects {
    if state.get(&model.name) == ModelRoute::default() {
        return Vec::new();
    }
    vec![(model.name.clone(), ModelRoute::default())]
}

fn shut_all(
    state: &super::State,
    policy: &Policy,
    shares: impl Fn(&Model) -> bool,
    failure: &Failure,
    unless_told: Duration,
    now: Now,
) -> Effects {
    let until = failure.retry_at.unwrap_or_else(|| now.wall.after(unless_told));
    policy
        .models
        .values()
        .filter(|other| shares(other))
        .map(|other| (other.name.clone(), closed(state, other, failure, Some(until), now)))
        .collect()
}

/// A model that is shut already was called before that, or by who insists: the longer word of the two counts, and
/// it is one closing.
fn closed(
    state: &super::State,
    model: &Model,
    failure: &Failure,
    until: Option<WallTime>,
    now: Now,
) -> ModelRoute {
    let before = state.get(&model.name);
    let shut = Shut {
        until,
        is_told: failure.retry_at.is_some(),
        class: failure.class,
        reason: in_words(failure),
    };
    match &before.shut {
        Some(old) if is_in_force(old, now) && outlasts(old, &shut) => before,
        Some(old) if is_in_force(old, now) => {
            ModelRoute { failures: 0, shut: Some(shut), ..before }
        }
        _ => {
            let closings = before.closings.saturating_add(1);
            ModelRoute { failures: 0, closings, shut: Some(shut) }
        }
    }
}

fn is_in_force(shut: &Shut, now: Now) -> bool {
    shut.until.is_none_or(|until| until > now.wall)
}

fn outlasts(old: &Shut, new: &Shut) -> bool {
    let is_guess_replaced = old.class == new.class && new.is_told && !old.is_told;
    match (old.until, new.until) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(old), Some(new)) => old > new && !is_guess_replaced,
    }
}

/// One failure more towards the breaker; the one that reaches its limit opens it, for longer each time.
fn counted(
    state: &super::State,
    routing: &Routing,
    model: &Model,
    failure: &Failure,
    now: Now,
) -> (ModelName, ModelRoute) {
    let mut route = state.get(&model.name);
    if route.shut.as_ref().is_some_and(|shut| is_in_force(shut, now)) {
        // It was called before the model was shut, or by who insists: no probe has failed.
        return (model.name.clone(), route);
    }
    route.failures = route.failures.saturating_add(1);
    let was_probe = route.shut.is_some();
    if was_probe || route.failures >= routing.breaker_failures {
        let wait = routing
            .breaker_open
            .saturating_mul(1 << route.closings.min(16))
            .min(routing.breaker_open_max);
        let until = failure.retry_at.unwrap_or_else(|| now.wall.after(wait));
        route = closed(state, model, failure, Some(until), now);
    }
    (model.name.clone(), route)
}

fn in_words(failure: &Failure) -> String {
    let what = match failure.class {
        FailureClass::RateLimited => "rate limited",
        FailureClass::QuotaExhausted => "quota used up",
        FailureClass::CreditExhausted => "credit used up: a person must add to it",
        FailureClass::CredentialsRejected => "its key was rejected: a person must replace it",
        FailureClass::ModelNotFound => "the provider does not know it: correct its id",
        FailureClass::Overloaded => "overloaded",
        FailureClass::Timeout => "does not answer in time",
        FailureClass::Unreachable => "cannot be reached",
        FailureClass::Truncated => "breaks its answers off",
        FailureClass::MalformedReply => "answers what nobody can read",
        FailureClass::ContextTooLong
        | FailureClass::RequestTooLarge
        | FailureClass::ContentRefused
        | FailureClass::InvalidRequest
        | FailureClass::AgentLost
        | FailureClass::Budget
        | FailureClass::Cancelled
        | FailureClass::Internal => "failed",
    };
    if failure.detail.is_empty() { what.into() } else { format!("{what}: {}", failure.detail) }
}
