//! The choice of a candidate: every model of a chain is judged, and the first that may be called is.

use broker_proto::{FailureClass, ModelName, PassedOver, WallTime};

use super::{Gate, State};
use crate::core::{
    Now,
    policy::{Model, Policy, Prices},
};

/// What a consultation asks of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Needs {
    pub prompt_bytes: u64,
    /// Of these, the history of its session.
    pub history_bytes: u64,
    pub has_images: bool,
    pub max_output_tokens: Option<u32>,
    pub max_cost_usd: Option<f64>,
    /// Input and output together.
    pub max_tokens: Option<u64>,
    /// Windows up to this have been too small.
    pub too_small: u64,
}

/// Fewer tokens of a history are worth nothing.
const LEAST_HISTORY: u64 = 256;

/// What a model is sent of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// Tokens in all, estimated.
    pub input: u64,
    /// What it has left for the session's history, where it does not hold all of it.
    pub history: Option<u64>,
}

impl Needs {
    /// What fits the window of `model` beside its answer: all of it, or all but a part of the session's history.
    ///
    /// # Errors
    /// The tokens that do not fit, or did not where the window was as large.
    pub fn fit(&self, model: &Model, least: u32) -> Result<Fit, u64> {
        let room = model.context_window.saturating_sub(self.wanted(model, least));
        let all = estimated_tokens(model, self.prompt_bytes);
        let is_too_small = model.context_window <= self.too_small;
        if all <= room && !is_too_small {
            return Ok(Fit { input: all, history: None });
        }
        // The estimate was wrong for a window as large: by how much, nobody knows.
        let room = if is_too_small { room / 2 } else { room };
        let fixed = estimated_tokens(model, self.prompt_bytes.saturating_sub(self.history_bytes));
        match room.checked_sub(fixed) {
            Some(left) if self.history_bytes > 0 && left >= LEAST_HISTORY => {
                Ok(Fit { input: room, history: Some(left) })
            }
            _ => Err(all),
        }
    }

    /// Tokens that the model would be sent, estimated; all of them where they do not fit.
    #[must_use]
    pub fn input(&self, model: &Model, least: u32) -> u64 {
        self.fit(model, least).map_or_else(|all| all, |fit| fit.input)
    }

    fn wanted(&self, model: &Model, least: u32) -> u64 {
        u64::from(self.max_output_tokens.unwrap_or(least)).min(model.max_output_tokens)
    }
}

/// Whether somebody serves a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// An agent has free credit, and nothing waits before this message.
    Idle,
    Busy,
    /// Nobody now, but not long enough to give up.
    Expected,
    Absent,
}

/// What one candidate is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// May be called, to see whether it is back.
    Probe,
    /// Another message is trying it.
    UnderProbe,
    Absent,
    Shut {
        until: Option<WallTime>,
        is_told: bool,
        class: FailureClass,
    },
    /// A minute's budget is used up until then. That only delays: no other candidate is called for it.
    Delayed {
        until: WallTime,
    },
    /// A longer budget is used up, until then where it has room for the message when it begins anew. Others are called.
    Spent {
        until: Option<WallTime>,
    },
    /// Will not do for this message at any time.
    Unfit(FailureClass),
}

/// A candidate with its verdict, and the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub verdict: Verdict,
    /// Empty when it is good.
    pub reason: String,
}

impl Judged {
    /// The class that a call would fail with, where one is known.
    fn class(&self) -> Option<FailureClass> {
        match self.verdict {
            Verdict::Shut { class, .. } | Verdict::Unfit(class) => Some(class),
            Verdict::Delayed { .. } | Verdict::Spent { .. } => Some(FailureClass::Budget),
            Verdict::Absent => Some(FailureClass::Unreachable),
            Verdict::Good | Verdict::Probe | Verdict::UnderProbe => None,
        }
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Into this candidate's queue.
    Call { candidate: u32, is_probe: bool },
    /// To this candidate, but not before `until`.
    Wait { candidate: u32, until: WallTime },
    /// Nobody can answer. `retry_at`: when the first of the chain is expected back.
    Nobody { class: FailureClass, retry_at: Option<WallTime>, detail: String },
}

/// Tokens of a prompt, estimated from its bytes; exact counts stay off the hot path.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an estimate; `as` saturates"
)]
pub fn estimated_tokens(model: &Model, prompt_bytes: u64) -> u64 {
    (prompt_bytes as f64 / model.bytes_per_token.max(0.1)).ceil() as u64
}

/// Output tokens that a budget and a request leave; `Err` when the budget buys too few.
///
/// # Errors
/// What is wrong with the budget, in words.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an estimate; `as` saturates"
)]
pub fn output_cap(model: &Model, needs: &Needs, least: u32) -> Result<Option<u32>, String> {
    let most = u32::try_from(model.max_output_tokens).unwrap_or(u32::MAX);
    let wanted = needs.max_output_tokens.unwrap_or(u32::MAX).min(least);
    let by_tokens = match needs.max_tokens {
        None => None,
        Some(budget) => {
            let left = budget.saturating_sub(needs.input(model, least));
            if left < u64::from(wanted) {
                return Err(format!(
                    "{budget} tokens do not hold the prompt and {wanted} output tokens"
                ));
            }
            Some(u32::try_from(left).unwrap_or(u32::MAX))
        }
    };
    let asked = [needs.max_output_tokens, by_tokens].into_iter().flatten().min();
    let Some(budget) = needs.max_cost_usd else {
        return Ok(asked.map(|asked| asked.min(most)));
    };
    let Some(Prices { input, output, cache_write, .. }) = model.prices else {
        return Err("its price is not known, so the cost cap cannot be kept".into());
    };
    let input_tokens = needs.input(model, least) as f64;
    // Writing the prompt to the provider's cache is the dearest way to send it.
    let left = budget - input_tokens * input.max(cache_write) / 1e6;
    let affordable = if output > 0.0 {
        (left.max(0.0) * 1e6 / output).min(f64::from(u32::MAX)) as u32
    } else if left >= 0.0 {
        u32::MAX
    } else {
        0
    };
    let cap = affordable.min(asked.unwrap_or(u32::MAX));
    if affordable < wanted {
        return Err(format!("${budget} does not pay for the prompt and {wanted} output tokens"));
    }
    let is_free = cap == u32::MAX;
    Ok((!is_free).then_some(cap.min(most)))
}

/// Judges one candidate at `now`.
#[must_use]
pub fn judge(
    state: &State,
    policy: &Policy,
    model: &Model,
    needs: &Needs,
    presence: Presence,
    now: Now,
) -> Judged {
    let unfit = |class, reason: String| Judged { verdict: Verdict::Unfit(class), reason };
    if needs.has_images && !model.has_vision {
        return unfit(FailureClass::InvalidRequest, "cannot see images".into());
    }
    let least = policy.routing.min_output_tokens;
    if let Err(input) = needs.fit(model, least) {
        let (window, wanted) = (model.context_window, needs.wanted(model, least));
        let reason = if input.saturating_add(wanted) > window {
            format!("about {input} + {wanted} tokens do not fit its window of {window}")
        } else {
            format!("its window of {window} is not larger")
        };
        return unfit(FailureClass::ContextTooLong, reason);
    }
    if let Err(reason) = output_cap(model, needs, policy.routing.min_output_tokens) {
        return unfit(FailureClass::Budget, reason);
    }
    let gate = state.gate(&model.name, now);
    if let (Gate::Shut, Some(shut)) = (gate, state.shut(&model.name)) {
        let verdict = Verdict::Shut { until: shut.until, is_told: shut.is_told, class: shut.class };
        return Judged { verdict, reason: shut.reason.clone() };
    }
    let judged = |verdict, reason: &str| Judged { verdict, reason: reason.into() };
    match (presence, gate) {
        (Presence::Absent, _) => judged(Verdict::Absent, "no agent serves it"),
        (_, Gate::Probing(_)) => judged(Verdict::UnderProbe, "another message is trying it"),
        (_, Gate::Due) => judged(Verdict::Probe, ""),
        (_, Gate::Open | Gate::Shut) => judged(Verdict::Good, ""),
    }
}

/// How long a message may be put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub may_wait_until: WallTime,
    /// Into the queue of a model nobody serves, as the last resort.
    pub may_wait_for_agents: bool,
}

/// Chooses among the judged candidates of a chain, from place `from` on. `judged[i]` belongs to `chain[i]`.
///
/// A candidate that is back within `patience` is waited for before the message fails; so is a probe that is under
/// way. Agents that are not there are waited for only where nothing else speaks against their models.
#[must_use]
pub fn choose(
    policy: &Policy,
    chain: &[ModelName],
    judged: &[Judged],
    from: usize,
    bounds: Bounds,
    now: Now,
) -> (Choice, Vec<PassedOver>) {
    let mut passed_over = Vec::new();
    for (place, (model, candidate)) in chain.iter().zip(judged).enumerate().skip(from) {
        let call = |is_probe| Choice::Call { candidate: number(place), is_probe };
        match candidate.verdict {
            Verdict::Good => return (call(false), passed_over),
            Verdict::Probe => return (call(true), passed_over),
            Verdict::Delayed { until } if until < bounds.may_wait_until => {
                return (Choice::Wait { candidate: number(place), until }, passed_over);
            }
            Verdict::UnderProbe
            | Verdict::Absent
            | Verdict::Shut { .. }
            | Verdict::Delayed { .. }
            | Verdict::Spent { .. }
            | Verdict::Unfit(_) => {
                let (model, reason) = (model.clone(), candidate.reason.clone());
                let class = candidate.class();
                passed_over.push(PassedOver { model, reason, class });
            }
        }
    }
    let rest = || judged.iter().enumerate().skip(from);
    let first =
        |wanted: &Verdict| rest().find(|(_, c)| c.verdict == *wanted).map(|(place, _)| place);
    let is_shut = |c: &Judged| matches!(c.verdict, Verdict::Shut { .. });
    if let Some(place) = first(&Verdict::UnderProbe) {
        return (Choice::Call { candidate: number(place), is_probe: false }, passed_over);
    }
    let patient = now.wall.after(policy.routing.patience).min(bounds.may_wait_until);
    let soonest = judged.iter().enumerate().filter_map(|(place, c)| match c.verdict {
        Verdict::Shut { until: Some(until), .. } if until <= patient => Some((until, place)),
        _ => None,
    });
    if let Some((until, place)) = soonest.min() {
        return (Choice::Wait { candidate: number(place), until }, passed_over);
    }
    if let Some(place) = first(&Verdict::Absent)
        && bounds.may_wait_for_agents
        && !judged.iter().any(is_shut)
    {
        return (Choice::Call { candidate: number(place), is_probe: false }, passed_over);
    }
    (nobody(chain, judged, from), passed_over)
}

/// The failure of a chain in which nobody can answer: the asked model's class, and when somebody is back.
fn nobody(chain: &[ModelName], judged: &[Judged], from: usize) -> Choice {
    let class = match judged.get(from.min(judged.len().saturating_sub(1))).map(|c| &c.verdict) {
        Some(Verdict::Shut { class, .. } | Verdict::Unfit(class)) => *class,
        Some(Verdict::Delayed { .. } | Verdict::Spent { .. }) => FailureClass::Budget,
        _ => FailureClass::Unreachable,
    };
    let told = judged.iter().filter_map(|c| match c.verdict {
        Verdict::Shut { until: Some(until), is_told: true, .. } => Some(until),
        Verdict::Delayed { until } | Verdict::Spent { until: Some(until) } => Some(until),
        _ => None,
    });
    let detail: Vec<String> = chain
        .iter()
        .zip(judged)
        .filter(|(_, c)| !c.reason.is_empty())
        .map(|(model, c)| format!("{model}: {}", c.reason))
        .collect();
    Choice::Nobody { class, retry_at: told.min(), detail: detail.join("; ") }
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
