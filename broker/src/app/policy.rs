//! The configuration, as the rules need it.

use std::collections::BTreeMap;

use broker_config::{Config, Model};
use broker_proto::ModelName;

use crate::core::policy::{self, Policy};

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
        },
    }
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
        is_degraded: model.degraded,
        is_simulated: model.simulated,
        account: model.account.clone(),
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
        let chain: Vec<&str> = opus.chain.iter().map(ModelName::as_str).collect();
        assert_eq!(chain, ["opus", "sonnet", "gpt-4o", "local"]);
    }
}
