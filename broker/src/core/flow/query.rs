//! Questions about the state; they change nothing.

use broker_proto::{
    AgentInfo, Candidate, ModelInfo, Recipient, RouteExplanation, TokenInfo, UsageLevel, WallTime,
};

use super::{
    Run,
    usage_query::{level_info, say_now},
};
use crate::core::{
    Holder, NewConsultation, Query, Reply, View,
    policy::Model,
    route::{self, Bounds, Choice, Gate, Judgement, Needs, Presence},
    usage::{Level, Subject, cost},
};

impl Run<'_> {
    pub(super) fn query(&self, query: Query) -> Reply {
        match query {
            Query::Models => {
                Reply::Models(self.in_order().map(|model| self.model_info(model)).collect())
            }
            Query::Agents => Reply::Agents(self.agents()),
            Query::Tokens => {
                let info =
                    |(name, token): (&broker_proto::AgentName, &crate::core::agent::Token)| {
                        TokenInfo { name: name.clone(), created_at: token.created_at }
                    };
                Reply::Tokens(self.state.agent.tokens().map(info).collect())
            }
            Query::Usage => {
                Reply::Usage(self.in_order().map(|model| self.model_usage(model)).collect())
            }
            Query::OfUsage(query) => self.usage_query(query),
            Query::Explain { new, session } => {
                Reply::Explained(self.explain(&new, session.as_deref()))
            }
            Query::Token(hash) => {
                let owner = self.state.agent.tokens().find(|(_, token)| token.hash == hash);
                Reply::Agent(owner.map(|(name, _)| name.clone()))
            }
            Query::Lease(seq) => Reply::Lease(self.state.queue.get(seq).and_then(|message| {
                let agent = message.lease()?.agent.clone();
                Some(Holder { agent, epoch: message.epoch, id: message.id })
            })),
            Query::Session(query) => Reply::Session(self.session_query(&query)),
            Query::Package(query) => Reply::Package(self.ask_package(&query)),
            Query::Bridges(query) => Reply::Bridges(self.ask_bridges(&query)),
            Query::Handoff(query) => Reply::Handoff(self.ask_handoff(&query)),
            Query::Ring(query) => Reply::Ring(self.ask_ring(&query)),
            Query::Drain(agent) => Reply::Drain(self.draining(agent.as_ref())),
            Query::Queues { after, limit } => Reply::Queues(self.queues(after.as_ref(), limit)),
            Query::Queue(queue) => Reply::Queues(self.queue(&queue)),
            Query::Peek { queue, after, limit } => Reply::Peeked(self.peek(&queue, after, limit)),
            Query::Counters(of) => Reply::Counters(self.counters(of.as_ref())),
            Query::Parent(sender, id) => Reply::Parent(self.parent(&sender, id)),
            Query::Message(sender, id) => {
                Reply::Message(self.state.queue.find(&sender, id).map(|message| View {
                    seq: message.seq,
                    state: message.state(),
                    queue: Recipient::clone(&message.queue),
                }))
            }
        }
    }

    /// The models as the configuration lists them.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Model> {
        let mut models: Vec<&Model> = self.state.policy.models.values().collect();
        models.sort_by_key(|model| model.place);
        models.into_iter()
    }

    /// The level of a model, and until when routing does not call it; routing's word on why comes first.
    pub(super) fn shown_level(&self, model: &Model) -> (UsageLevel, Option<WallTime>) {
        let held = self.state.usage.level(&Subject::Model(model.name.clone()));
        let mut level = level_info(&held);
        let causes = self.state.usage.causes_of_model(&model.name, &model.key, self.now.wall);
        say_now(&mut level, &causes);
        let gate = self.state.route.gate(&model.name, self.now);
        let shut = self.state.route.shut(&model.name).filter(|_| !self.may_be_called(model));
        let Some(shut) = shut else { return (level, None) };
        let tried = if gate == Gate::Shut { "" } else { "; tried again with the next question" };
        // Signals and windows say more than that it is not called now.
        if held.level == Level::Healthy || held.cause == "refused" {
            level.reason = format!("{}{tried}", shut.reason);
        }
        (level, shut.until)
    }

    /// Whether nothing that a provider said keeps questions away from it.
    fn may_be_called(&self, model: &Model) -> bool {
        let gate = self.state.route.gate(&model.name, self.now);
        gate == Gate::Open || self.state.route.shut(&model.name).is_none()
    }

    fn model_info(&self, model: &Model) -> ModelInfo {
        let queue = Recipient::Model(model.name.clone());
        let (ready, leased, _) = self.state.queue.load(&queue);
        let agents = self.state.agent.serving(&queue);
        let (level, unavailable_until) = self.shown_level(model);
        let no_agent = || (agents == 0).then_some("no agent serves it");
        let held_up = self.standstill(&queue).or_else(no_agent);
        let is_open = self.may_be_called(model);
        let reason = match held_up {
            Some(reason) if is_open => reason.to_owned(),
            _ => level.reason,
        };
        ModelInfo {
            name: model.name.clone(),
            provider: model.provider.clone(),
            id: model.id.clone(),
            context_window: model.context_window,
            level: level.level,
            is_available: is_open && held_up.is_none(),
            reason,
            is_simulated: model.is_simulated,
            is_degraded: model.is_degraded,
            has_vision: model.has_vision,
            unavailable_until,
            agents: u32::try_from(agents).unwrap_or(u32::MAX),
            queued: ready,
            leased,
            fallback: model.chain.iter().skip(1).cloned().collect(),
        }
    }

    /// Why nothing of a queue is given to anybody, whoever has credit for it.
    fn standstill(&self, queue: &Recipient) -> Option<&'static str> {
        if self.state.agent.is_draining(None) {
            return Some("the broker is being drained");
        }
        self.state.queue.is_paused(queue).then_some("its queue is paused")
    }

    fn agents(&self) -> Vec<AgentInfo> {
        let info = |(_, link): (_, &crate::core::agent::Link)| AgentInfo {
            name: link.agent.clone(),
            is_connected: true,
            is_exclusive: link.is_exclusive,
            models: link.models.clone(),
            roles: link.roles.clone(),
            capacity: link.capacity,
            leased: u32::try_from(self.state.queue.leased_by(&link.agent).len())
                .unwrap_or(u32::MAX),
            free_credit: link.credit_messages,
            since: link.since,
            instance: link.instance.clone(),
            is_draining: self.state.agent.is_draining(Some(&link.agent)),
        };
        self.state.agent.links().filter(|(_, link)| link.pull.is_none()).map(info).collect()
    }

    /// Where a consultation would go, sent to nobody.
    fn explain(&self, new: &NewConsultation, session: Option<&str>) -> RouteExplanation {
        let asked = new.asked.clone();
        let chain = match self.model(&asked) {
            Some(_) if new.options.no_fallback => vec![asked.clone()],
            Some(model) => model.chain.clone(),
            None => Vec::new(),
        };
        let needs = Needs {
            prompt_bytes: new.prompt_bytes,
            history_bytes: new.history_bytes,
            has_images: new.needs_vision,
            max_output_tokens: new.max_output_tokens,
            max_cost_usd: new.options.max_cost_usd,
            max_tokens: new.options.max_tokens,
            too_small: 0,
        };
        let judged = self.judged_unsent(&chain, &needs, session);
        let policy = &self.state.policy;
        let span = new.options.deadline.unwrap_or(policy.default_deadline).min(policy.max_lifetime);
        let longest = self.now.wall.after(span);
        let bounds = Bounds { may_wait_until: longest, may_wait_for_agents: true };
        let (choice, _) = route::choose(&self.state.policy, &chain, &judged, 0, bounds, self.now);
        let chosen = match choice {
            Choice::Call { candidate, .. } | Choice::Wait { candidate, .. } => Some(candidate),
            Choice::Nobody { .. } => None,
        };
        let chosen = if new.options.no_fallback
            && !matches!(
                judged.first().map(|j| &j.verdict),
                Some(Judgement::Unfit(_) | Judgement::Spent { .. }) | None
            ) {
            Some(0)
        } else {
            chosen
        };
        let candidates =
            chain.iter().zip(&judged).enumerate().filter_map(|(place, (name, judged))| {
                let model = self.model(name)?;
                let least = self.state.policy.routing.min_output_tokens;
                let input = needs.input(model, least);
                let usage = broker_proto::Usage {
                    input_tokens: Some(input),
                    output_tokens: Some(0),
                    ..broker_proto::Usage::default()
                };
                Some(Candidate {
                    model: name.clone(),
                    is_chosen: chosen.is_some_and(|chosen| chosen as usize == place),
                    reason: judged.reason.clone(),
                    context_window: model.context_window,
                    estimated_input_tokens: input,
                    estimated_cost_usd: cost(model.prices, usage),
                    max_output_tokens: route::output_cap(model, &needs, least).ok().flatten(),
                    is_degraded: model.is_degraded,
                })
            });
        let candidates = candidates.collect();
        let decision = self.in_words(&chain, &choice, new.options.no_fallback && chosen.is_some());
        RouteExplanation { asked, candidates, decision }
    }

    fn in_words(
        &self,
        chain: &[broker_proto::ModelName],
        choice: &Choice,
        is_alone: bool,
    ) -> String {
        let name =
            |place: &u32| chain.get(*place as usize).map(ToString::to_string).unwrap_or_default();
        match choice {
            _ if is_alone && !chain.is_empty() => format!("{} is called, and no other", name(&0)),
            Choice::Call { candidate, is_probe: true } => {
                format!("{} is called, to see whether it is back", name(candidate))
            }
            Choice::Call { candidate, .. } => {
                let Some(model) = chain.get(*candidate as usize) else { return String::new() };
                let stands = self.standstill(&Recipient::Model(model.clone()));
                match (stands, self.presence(model)) {
                    (Some(why), _) => format!("it waits in {model}'s queue: {why}"),
                    (None, Presence::Expected) if chain.len() > 1 => format!(
                        "it waits in {model}'s queue for an agent, at most {:.0} s, then it goes on along the chain",
                        self.state.policy.routing.agent_grace.as_secs_f64()
                    ),
                    (None, Presence::Absent | Presence::Expected) => {
                        format!("it waits in {model}'s queue until an agent serves it")
                    }
                    (None, Presence::Idle | Presence::Busy) => format!("{model} is called"),
                }
            }
            Choice::Wait { candidate, until } => {
                let wait = until.since(self.now.wall).as_secs_f64();
                format!("it waits {wait:.1} s, then {} is called", name(candidate))
            }
            Choice::Nobody { class, detail, .. } => {
                format!("it fails with {}: {detail}", class.as_str())
            }
        }
    }
}
