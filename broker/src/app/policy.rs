//! The configuration, as the rules need it.

use std::collections::{BTreeMap, BTreeSet};

use broker_config::{Budget, BudgetScope, BudgetUnit, BudgetWindow, Config, Model, Preserve};
use broker_proto::{AgentName, ModelName, Preservation};

use crate::core::{
    handoff,
    policy::{self, Policy},
    ring,
    usage::{BudgetKey, Nanos, ScopeKind, Span, Unit},
};

pub(super) fn policy(config: &Config) -> Policy {
    let models: BTreeMap<ModelName, policy::Model> = config
        .models
        .iter()
        .enumerate()
        .filter_map(|(place, model)| {
            let known = self::model(config, place, model)?;
            Some((known.name.clone(), known))
        })
        .collect();
    let routing = &config.routing;
    Policy {
        models,
        lease: config.links.lease,
        lease_cap: config.links.lease_cap,
        max_lost_leases: config.links.max_lost_leases,
        default_deadline: config.broker.default_deadline,
        max_lifetime: config.broker.max_lifetime,
        return_window: config.streams.return_window,
        queue_messages: config.broker.queue_messages,
        queue_bytes: config.broker.queue_bytes,
        store_reserve: policy::Reserve {
            bytes: config.broker.store_reserve,
            percent: config.broker.store_reserve_percent,
        },
        dead_letters: config.broker.dead_letters,
        dead_letter_bytes: config.broker.dead_letter_bytes,
        bounds: policy::Bounds {
            hops: config.broker.max_hops,
            depth: config.broker.max_delegation_depth,
            messages: config.broker.max_request_messages,
        },
        routing: policy::Routing {
            patience: routing.patience,
            max_attempts: routing.max_attempts,
            max_total: routing.max_total,
            breaker_failures: routing.breaker_failures,
            breaker_open: routing.breaker_open,
            breaker_open_max: routing.breaker_open_max,
            probe_after: routing.probe_after,
            credit_probe_after: routing.credit_probe_after,
            agent_grace: routing.agent_grace,
            min_output_tokens: routing.min_output_tokens,
        },
        thresholds: policy::Thresholds {
            warning: config.thresholds.warning,
            critical: config.thresholds.critical,
            exhausted: config.thresholds.exhausted,
            margin: config.thresholds.margin,
            session_warning: config.thresholds.session_warning,
            session_switch: config.thresholds.session_switch,
            rate_limits: config.thresholds.rate_limits,
            rate_limit_window: config.thresholds.rate_limit_window,
            slow_replies: config.thresholds.slow_replies,
            slow_after: config.thresholds.slow_after,
            error_rate: config.thresholds.error_rate,
            error_calls: config.thresholds.error_calls,
            error_min: config.thresholds.error_min,
        },
        budgets: config.budgets.iter().map(budget).collect(),
        handoff: handoff(config),
        rotation: rotation(config),
    }
}

fn handoff(config: &Config) -> handoff::Settings {
    let settings = &config.handoff;
    let resolved = |name: &String| {
        let model = config.models.resolve(name).ok()?;
        ModelName::parse(&model.name).ok()
    };
    let receivers: BTreeSet<ModelName> = settings.receivers.iter().filter_map(resolved).collect();
    handoff::Settings {
        auto: settings.auto,
        auto_switch: settings.auto_switch,
        preserve: match settings.preserve {
            Preserve::Minimal => Preservation::Minimal,
            Preserve::Standard => Preservation::Standard,
            Preserve::Full => Preservation::Full,
            Preserve::Complete => Preservation::Complete,
        },
        receivers: (!receivers.is_empty()).then_some(receivers),
        build_deadline: settings.build_deadline,
        offer_deadline: settings.offer_deadline,
        settle_wait: settings.settle_wait,
        complete_deadline: settings.complete_deadline,
        cooldown: settings.cooldown,
        max_hops: settings.max_hops,
        room: settings.room,
        checkpoint_every: Some(settings.checkpoint_every).filter(|every| !every.is_zero()),
        limits: BTreeMap::new(),
    }
}

fn rotation(config: &Config) -> ring::Settings {
    ring::Settings {
        pause: config.rotation.pause,
        accept_deadline: config.rotation.accept_deadline,
        silence: config.rotation.silence,
        woken: config.wakes.iter().filter_map(|it| AgentName::parse(&it.agent).ok()).collect(),
    }
}

fn budget(budget: &Budget) -> (BudgetKey, u64) {
    let kind = match budget.scope {
        BudgetScope::Namespace => ScopeKind::Namespace,
        BudgetScope::Key => ScopeKind::Key,
        BudgetScope::Model => ScopeKind::Model,
        BudgetScope::Session => ScopeKind::Session,
    };
    let span = match budget.window {
        BudgetWindow::Minute => Span::Minute,
        BudgetWindow::FiveHours => Span::FiveHours,
        BudgetWindow::Day => Span::Day,
        BudgetWindow::Week => Span::Week,
        BudgetWindow::Month => Span::Month,
    };
    let (unit, limit) = match budget.unit {
        BudgetUnit::Requests => (Unit::Requests, whole(budget.limit)),
        BudgetUnit::Tokens => (Unit::Tokens, whole(budget.limit)),
        BudgetUnit::Usd => (Unit::Usd, Nanos::from_usd(budget.limit).0),
    };
    (BudgetKey { kind, name: budget.name.clone(), span, unit }, limit)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the configuration has checked that it is a whole number of at least 0"
)]
fn whole(limit: f64) -> u64 {
    limit as u64
}

/// `None` for a name that is none; the configuration refuses those before.
fn model(config: &Config, place: usize, model: &Model) -> Option<policy::Model> {
    let chain = config.models.chain(&model.name);
    Some(policy::Model {
        name: ModelName::parse(&model.name).ok()?,
        place,
        provider: model.provider.as_str().to_owned(),
        id: model.id.clone(),
        chain: chain.iter().filter_map(|next| ModelName::parse(&next.name).ok()).collect(),
        context_window: model.context_window,
        max_output_tokens: model.max_output_tokens,
        has_vision: model.vision,
        prices: model.prices.map(|prices| policy::Prices {
            input: prices.input,
            output: prices.output,
            cache_read: prices.cache_read,
            cache_write: prices.cache_write,
        }),
        bytes_per_token: model.bytes_per_token,
        tier: model.tier,
        is_degraded: model.degraded,
        is_simulated: model.simulated,
        account: model.account.clone(),
        key: model.api_key_env.clone().unwrap_or_else(|| model.account.clone()),
        family: model.family.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_models_reach_the_rules_with_their_chains() {
        let config = Config::shipped().unwrap();
        let policy = policy(&config);
        assert_eq!(policy.models.len(), config.models.iter().count());
        let opus = &policy.models[&ModelName::parse("opus").unwrap()];
        assert_eq!(policy.thresholds, policy::Thresholds::default());
        assert_eq!((opus.key.as_str(), policy.budgets.len()), ("ANTHROPIC_API_KEY", 0));
        let chain: Vec<&str> = opus.chain.iter().map(ModelName::as_str).collect();
        assert_eq!(chain, ["opus", "sonnet", "gpt-4o", "local"]);
    }

    #[test]
    fn a_budget_of_the_file_reaches_the_rules_in_billionths() {
        let text =
            "[[budgets]]\nscope = \"key\"\nwindow = \"month\"\nunit = \"usd\"\nlimit = 2.5\n";
        let config = broker_config::Loader::new().text("mine.toml", text).load().unwrap();
        let budgets = policy(&config).budgets;
        let (key, limit) = budgets.first_key_value().unwrap();
        assert_eq!((key.kind, key.span, key.unit), (ScopeKind::Key, Span::Month, Unit::Usd));
        assert_eq!((key.name.as_str(), *limit), ("*", 2_500_000_000));
    }
}
