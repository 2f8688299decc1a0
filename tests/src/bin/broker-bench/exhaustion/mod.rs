//! The scenario of limits: sessions that run into one, and sessions that only come near, through the rules alone.
//!
//! Time is logical and every history comes from its seed, so the figures are the same on any machine.

mod dice;
mod world;

use std::time::Duration;

use anyhow::Context;
use broker::core::Policy;
use broker_config::Config;

use crate::report::{Figure, Goal};
use dice::Dice;
use world::World;

/// Histories of each sort: those that reach the limit, and those that end below it.
const HISTORIES: u64 = 1_000;
const QUICK: u64 = 200;
/// More turns than any history needs for its limit.
const MOST_TURNS: usize = 400;
/// Turns that are asked of the new owner.
const AFTERWARDS: usize = 3;
/// Of a model with a window as most have it.
const WINDOW: u64 = 200_000;

/// What runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// The provider's window of five hours, which others may use too.
    Provider,
    /// The model's own context window.
    Window,
}

/// One history before it happens.
#[derive(Debug, Clone)]
struct Script {
    limit: Limit,
    /// Tokens.
    size: u64,
    /// What of it is used before the first turn.
    used: u64,
    /// Tokens of a turn, on average.
    turn: f64,
    /// Seconds between an answer and the next question, on average.
    think: f64,
    /// Whether others use the same limit meanwhile.
    is_shared: bool,
    /// The share of the limit at which the work ends, or its window is reset.
    ends_at: Option<f64>,
    is_reset: bool,
}

impl Script {
    fn new(dice: &mut Dice, policy: &Policy, reaches: bool) -> Self {
        let limit = if dice.falls(0.6) { Limit::Provider } else { Limit::Window };
        let turns = dice.between(20.0, 60.0);
        // A session moves at its own threshold, so that is the limit that it comes near.
        let switch = f64::from(policy.thresholds.session_switch) / 100.0;
        let (size, most) = match limit {
            Limit::Provider => (dice.between(3e5, 4e6) as u64, 0.99),
            Limit::Window => (WINDOW, switch - 0.01),
        };
        let used = match limit {
            Limit::Provider => (size as f64 * dice.between(0.0, 0.5)) as u64,
            Limit::Window => 0,
        };
        Self {
            limit,
            size,
            used,
            turn: (size - used) as f64 / turns,
            think: dice.between(15.0, 120.0),
            is_shared: limit == Limit::Provider && dice.falls(0.3),
            ends_at: (!reaches).then(|| dice.between(0.5, most)),
            is_reset: limit == Limit::Provider && dice.falls(0.5),
        }
    }
}

/// What became of one.
#[derive(Debug, Default)]
struct Outcome {
    /// Every turn was answered once, and at the end somebody else owned the session and answered.
    is_complete: bool,
    /// A handoff began, and before the limit refused or cut anything.
    began: bool,
    began_before: bool,
    /// The limit was reached after all: the last turn was longer than was left.
    reached: bool,
    /// The share of the limit that was used when it began.
    used_at: f64,
}

/// Both sorts of histories, and the shares of those that went as they should.
pub(crate) fn exhaustion(is_quick: bool) -> anyhow::Result<Vec<Figure>> {
    let policy = policy()?;
    let many = if is_quick { QUICK } else { HISTORIES };
    let (mut complete, mut before, mut useless, mut needed) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut used = Vec::new();
    for seed in 0..many {
        let outcome = run(&policy, seed, true).with_context(|| format!("history {seed}"))?;
        complete += u64::from(outcome.is_complete);
        before += u64::from(outcome.began_before);
        needed += u64::from(outcome.began);
        if outcome.began {
            used.push(outcome.used_at);
        }
        let outcome = run(&policy, seed, false).with_context(|| format!("calm {seed}"))?;
        let was_near = outcome.began && outcome.reached;
        needed += u64::from(was_near);
        useless += u64::from(outcome.began && !was_near);
    }
    used.sort_by(f64::total_cmp);
    let half = used.get(used.len() / 2).copied().unwrap_or_default();
    let tenth = used.get(used.len() / 10).copied().unwrap_or_default();
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    Ok(vec![
        Figure::new("exhaustions", many as f64, ""),
        Figure::new("exhaustions_complete", percent(complete, many), "%")
            .beside("all", 100.0)
            .with(Goal::AtLeast(0.99)),
        Figure::new("exhaustions_begun_before", percent(before, many), "%")
            .beside("all", 100.0)
            .with(Goal::AtLeast(0.9)),
        Figure::new("handoffs_not_needed", percent(useless, needed + useless), "%")
            .beside("all handoffs", 100.0)
            .with(Goal::AtMost(0.05)),
        Figure::new("used_at_begin_p10", tenth * 100.0, "%"),
        Figure::new("used_at_begin_p50", half * 100.0, "%"),
    ])
}

/// As shipped, with windows as most models have them.
fn policy() -> anyhow::Result<Policy> {
    let mut policy = broker::policy_of(&Config::shipped()?);
    for model in policy.models.values_mut() {
        model.context_window = model.context_window.min(WINDOW);
    }
    Ok(policy)
}

fn run(policy: &Policy, seed: u64, reaches: bool) -> anyhow::Result<Outcome> {
    let mut dice = Dice::new(seed * 2 + u64::from(reaches));
    let script = Script::new(&mut dice, policy, reaches);
    let mut world = World::new(policy.clone(), script.clone(), dice)?;
    let (mut turns, mut afterwards) = (0, 0);
    // A session that nothing moves is not complete; so many turns show it.
    while afterwards < AFTERWARDS && turns < MOST_TURNS {
        turns += 1;
        world.think()?;
        world.turn().with_context(|| format!("turn {turns} of {script:?}"))?;
        let is_there = script.ends_at.is_some_and(|share| world.used_share() >= share);
        if is_there && script.is_reset && world.resets() == 0 {
            world.reset()?;
        }
        // Work that ends below the limit ends there; one more turn might reach it.
        if is_there && !script.is_reset {
            break;
        }
        afterwards += usize::from(world.resets() > 0 || world.is_moved());
    }
    // What is under way comes to its end.
    world.rest(Duration::from_secs(600))?;
    Ok(world.outcome())
}
