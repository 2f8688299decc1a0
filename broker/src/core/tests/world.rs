//! A namespace without a shell: logical time, scripted agents, and somebody who carries out the effects.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broker_proto::{
    AgentName, AnswerSummary, Counters, Failure, FailureClass, MessageId, MessageState,
    MessageType, Numbered, Receipt, Recipient, RouteExplanation, Terminal, Usage, WallTime,
};

pub(super) use super::given::*;
use crate::core::{
    BootTime, Command, Decision, Delivered, Earlier, Effect, Event, Finished, NewConsultation,
    NewMessage, Now, Outcome, Policy, Query, Refusal, Reply, SettleCommand, State,
    agent::{Link, LinkId},
    apply, decide, handoff, next_deadline,
    queue::Seq,
};

/// What a scripted agent was given last of one message.
#[derive(Debug, Clone)]
struct Given {
    agent: AgentName,
    epoch: u32,
    id: MessageId,
}

pub(super) struct World {
    pub(super) state: State,
    /// The same namespace, rebuilt from less; it must behave the same from then on.
    twin: Option<State>,
    boot: Duration,
    pub(super) journal: Vec<Event>,
    pub(super) deliveries: Vec<Delivered>,
    delivered: usize,
    given: BTreeMap<Seq, Given>,
    /// Messages of whose current attempt something has reached the asker.
    shown: BTreeSet<Seq>,
    /// Seals are answered at once, unless a test wants to see the time between.
    pub(super) seals_wait: bool,
    pub(super) seals: Vec<(Seq, u32)>,
    pub(super) effects: Vec<Effect>,
    links: BTreeMap<String, LinkId>,
    last_link: u64,
    last_id: u128,
}

impl World {
    /// A broker that has just started; nobody is linked.
    pub(super) fn empty(policy: Policy) -> Self {
        let mut world = Self {
            state: State::new(policy),
            twin: None,
            boot: secs(1_000),
            journal: Vec::new(),
            deliveries: Vec::new(),
            delivered: 0,
            given: BTreeMap::new(),
            shown: BTreeSet::new(),
            seals_wait: false,
            seals: Vec::new(),
            effects: Vec::new(),
            links: BTreeMap::new(),
            last_link: 0,
            last_id: 0,
        };
        world.run(Command::Recovered);
        world
    }

    /// An exclusive agent with plenty of credit for each model, named like it.
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = policy();
        change(&mut policy);
        let names: Vec<String> = policy.models.keys().map(ToString::to_string).collect();
        names.iter().fold(Self::empty(policy), |world, name| world.with_agent(name, 1_000))
    }

    pub(super) fn with_agent(mut self, name: &str, messages: u32) -> Self {
        self.greet(name, "first", messages);
        self
    }

    /// An exclusive agent of the model of its name links anew, as the process `instance`.
    pub(super) fn greet(&mut self, name: &str, instance: &str, messages: u32) -> Reply {
        self.greet_as(link(name, instance, messages), vec![])
    }

    pub(super) fn greet_as(&mut self, up: Link, resume: Vec<(Seq, u32)>) -> Reply {
        self.last_link += 1;
        let link = LinkId(self.last_link);
        self.links.insert(up.agent.to_string(), link);
        self.run(Command::LinkUp { link, up: Box::new(up), resume })
    }

    pub(super) fn hang_up(&mut self, name: &str) {
        if let Some(link) = self.links.remove(name) {
            self.run(Command::LinkDown { link });
        }
    }

    pub(super) fn link(&self, name: &str) -> LinkId {
        self.links.get(name).copied().unwrap_or(LinkId(0))
    }

    pub(super) fn credit(&mut self, name: &str, messages: u32) {
        let link = self.link(name);
        self.run(Command::Credit { link, messages, size_bytes: 8 * MIB });
    }

    pub(super) fn now(&self) -> Now {
        let wall = WallTime(START).after(self.boot.saturating_sub(secs(1_000)));
        Now { wall, boot: BootTime(self.boot) }
    }

    pub(super) fn wall(&self) -> WallTime {
        self.now().wall
    }

    /// Carries out one command, what its effects ask for, and every tick that is due.
    pub(super) fn decide(&mut self, command: Command) -> Result<Reply, Refusal> {
        let reply = self.step(command)?;
        self.settle_down();
        Ok(reply)
    }

    #[track_caller]
    pub(super) fn run(&mut self, command: Command) -> Reply {
        self.decide(command).unwrap()
    }

    fn settle_down(&mut self) {
        for _ in 0..20_000 {
            if !self.seals_wait
                && let Some((seq, epoch)) = self.seals.pop()
            {
                let shown = self.shown.contains(&seq);
                self.step(Command::Sealed { seq, epoch, shown, partial: None }).unwrap();
            } else if next_deadline(&self.state, self.now()).is_some_and(|at| at.0 <= self.boot) {
                self.step(Command::Tick).unwrap();
            } else {
                return;
            }
        }
        panic!("time stands still: {:?}", next_deadline(&self.state, self.now()));
    }

    /// One decision and nothing else, but for the bookkeeping of its effects.
    pub(super) fn step(&mut self, command: Command) -> Result<Reply, Refusal> {
        let now = self.now();
        let said = if self.twin.is_some() { format!("{command:?}") } else { String::new() };
        let others = self.twin.as_mut().map(|twin| decide(twin, command.clone(), now));
        let decided = decide(&mut self.state, command, now);
        match (&decided, &others) {
            (_, None) => {}
            (Ok(one), Some(Ok(other))) => {
                assert_eq!(one.events, other.events, "after a restart: {said}");
                assert_eq!(one.effects, other.effects, "after a restart: {said}");
            }
            (one, Some(other)) => {
                let (one, other) = (one.as_ref().err(), other.as_ref().err());
                assert_eq!(one, other, "after a restart: {said}");
            }
        }
        if let Some(twin) = &self.twin {
            assert_eq!(twin.queue.counters(), self.state.queue.counters(), "I-33: {said}");
            assert_eq!(next_deadline(twin, now), next_deadline(&self.state, now), "{said}");
        }
        let Decision { events, effects, reply } = decided?;
        for event in &events {
            event.each(|step| self.journal.push(step.clone()));
        }
        for effect in &effects {
            match effect {
                Effect::Deliver(delivered) => {
                    let Delivered { seq, epoch, id, .. } = **delivered;
                    let agent = self.state.agent.link(delivered.link).unwrap().agent.clone();
                    self.given.insert(seq, Given { agent, epoch, id });
                    self.shown.remove(&seq);
                    self.deliveries.push((**delivered).clone());
                }
                Effect::Seal { seq, epoch, .. } | Effect::Stop { seq, epoch } => {
                    self.seals.insert(0, (*seq, *epoch))
                }
                _ => {}
            }
        }
        self.effects.extend(effects);
        Ok(reply)
    }

    /// Lets time pass, with a tick whenever one is due.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.boot + by;
        while let Some(at) = next_deadline(&self.state, self.now()).filter(|at| at.0 <= end) {
            self.boot = self.boot.max(at.0);
            self.settle_down();
        }
        self.boot = end;
    }

    /// Undoes a stretch of time in which nothing was due, so that a test's figures stay round.
    pub(super) fn boot_back(&mut self, by: Duration) {
        self.boot -= by;
    }

    /// Lets time pass of which the shell has not yet heard.
    pub(super) fn oversleep(&mut self, by: Duration) {
        self.boot += by;
    }

    pub(super) fn new_id(&mut self) -> MessageId {
        self.last_id += 1;
        MessageId::from_u128(self.last_id)
    }

    pub(super) fn message(&mut self, asked: &str) -> NewMessage {
        let id = self.new_id();
        NewMessage {
            consultation: Some(consultation(asked)),
            kind: MessageType::Consultation,
            ..letter(id, Recipient::Model(model(asked)))
        }
    }

    pub(super) fn letter(&mut self, to: &str) -> NewMessage {
        let id = self.new_id();
        letter(id, Recipient::Agent(agent(to)))
    }

    pub(super) fn send(&mut self, new: NewMessage) -> Result<Receipt, Refusal> {
        let earlier = new.earlier.clone().or_else(|| self.projected(&new));
        match self.decide(Command::Send(Box::new(NewMessage { earlier, ..new })))? {
            Reply::Receipt(receipt) => Ok(receipt),
            other => panic!("a send was answered by {other:?}"),
        }
    }

    /// What the projection says of a message of this key, once it has ended.
    fn projected(&self, new: &NewMessage) -> Option<Earlier> {
        let accepted = self.journal.iter().rev().find_map(|event| match event {
            Event::Accepted(a) if a.subject.id == new.id && a.sender == new.sender => Some(a),
            _ => None,
        })?;
        self.finished(accepted.subject.seq)?;
        let receipt = Receipt {
            message_id: new.id,
            is_duplicate: false,
            accepted_at: accepted.at,
            deadline: accepted.deadline,
        };
        Some(Earlier { digest: accepted.digest, receipt })
    }

    /// Sends it; somebody listens to the answer.
    #[track_caller]
    pub(super) fn ask(&mut self, asked: &str) -> Seq {
        self.ask_with(asked, |_| {})
    }

    #[track_caller]
    pub(super) fn ask_with(
        &mut self,
        asked: &str,
        change: impl FnOnce(&mut NewConsultation),
    ) -> Seq {
        let mut new = self.message(asked);
        change(new.consultation.as_mut().unwrap());
        self.ask_this(new)
    }

    #[track_caller]
    pub(super) fn ask_this(&mut self, new: NewMessage) -> Seq {
        let seq = self.state.queue.next_seq();
        self.send(new).unwrap();
        self.run(Command::AskerBack { seq });
        seq
    }

    /// As [`World::ask`], by somebody who insists on the model.
    #[track_caller]
    pub(super) fn insist(&mut self, asked: &str) -> Seq {
        self.ask_with(asked, |c| c.options.no_fallback = true)
    }

    /// Deliveries since the last look: message, model (or `-`), attempt.
    pub(super) fn delivered(&mut self) -> Vec<(Seq, String, u32)> {
        let new = self.deliveries[self.delivered..].iter();
        let brief = |d: &Delivered| {
            let model = d.model.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
            (d.seq, model, d.epoch)
        };
        let all = new.map(brief).collect();
        self.delivered = self.deliveries.len();
        all
    }

    /// The model to which a message was delivered last.
    #[track_caller]
    pub(super) fn called(&self, seq: Seq) -> String {
        let last = self.deliveries.iter().rev().find(|d| d.seq == seq);
        last.and_then(|d| d.model.as_ref()).map(ToString::to_string).unwrap_or_default()
    }

    /// Something of the current attempt has reached the asker.
    pub(super) fn show(&mut self, seq: Seq) {
        self.shown.insert(seq);
    }

    pub(super) fn token(&self, seq: Seq) -> (Seq, u32) {
        (seq, self.given[&seq].epoch)
    }

    /// The id of a message that was delivered.
    pub(super) fn given_id(&self, seq: Seq) -> MessageId {
        self.given[&seq].id
    }

    /// The settlement that the agent of a message's last delivery would send.
    pub(super) fn settlement(&self, seq: Seq, outcome: Outcome) -> SettleCommand {
        let Given { agent, epoch, id } = self.given[&seq].clone();
        let earlier = self.finished(seq).map(|finished| finished.epoch);
        SettleCommand {
            agent,
            seq,
            epoch,
            id: Some(id),
            outcome,
            usage: Usage::default(),
            limits: vec![],
            first_token: None,
            earlier,
            append: None,
            shortened: None,
        }
    }

    pub(super) fn settle_with(&mut self, settle: SettleCommand) -> Result<Reply, Refusal> {
        self.decide(Command::Settle(Box::new(settle)))
    }

    pub(super) fn settle(&mut self, seq: Seq, outcome: Outcome) -> Result<Reply, Refusal> {
        self.settle_with(self.settlement(seq, outcome))
    }

    #[track_caller]
    pub(super) fn done(&mut self, seq: Seq) {
        self.settle(seq, done()).unwrap();
    }

    #[track_caller]
    pub(super) fn fail(&mut self, seq: Seq, class: FailureClass) {
        self.fail_with(seq, failure(class));
    }

    /// Fails with a time at which it helps to try again.
    #[track_caller]
    pub(super) fn fail_until(&mut self, seq: Seq, class: FailureClass, after: Duration) {
        let retry_at = Some(self.wall().after(after));
        self.fail_with(seq, Failure { retry_at, ..failure(class) });
    }

    #[track_caller]
    pub(super) fn fail_with(&mut self, seq: Seq, failure: Failure) {
        let shown = self.shown.contains(&seq);
        self.settle(seq, Outcome::Failed { failure, partial: None, shown }).unwrap();
    }

    pub(super) fn finished(&self, seq: Seq) -> Option<&Finished> {
        let of_it = |event: &&Event| event.subject().is_some_and(|subject| subject.seq == seq);
        fn end(event: &Event) -> Option<Option<&Finished>> {
            match event {
                Event::Finished(finished) => Some(Some(finished)),
                Event::Redriven { .. } => Some(None),
                _ => None,
            }
        }
        self.journal.iter().rev().filter(of_it).find_map(end).flatten()
    }

    /// What an observer outside has counted for each recipient, from what was journalled alone (I-33).
    pub(super) fn counted(&self) -> BTreeMap<Recipient, Counters> {
        let mut places: BTreeMap<Seq, (Recipient, MessageState)> = BTreeMap::new();
        for event in &self.journal {
            let Some(subject) = event.subject() else { continue };
            let state = match event {
                Event::Accepted(accepted) => {
                    places.insert(subject.seq, (accepted.to.clone(), MessageState::Queued));
                    continue;
                }
                Event::Routed { wait_until: Some(_), .. }
                | Event::Held { .. }
                | Event::Parked { .. } => MessageState::Waiting,
                Event::Leased { .. } => MessageState::Leased,
                Event::Finished(finished) => finished.state,
                Event::Purged { .. } => MessageState::Purged,
                _ => MessageState::Queued,
            };
            places.get_mut(&subject.seq).unwrap().1 = state;
        }
        let mut counted: BTreeMap<Recipient, Counters> = BTreeMap::new();
        for (recipient, state) in places.into_values() {
            let counters = counted.entry(recipient).or_default();
            counters.accepted += 1;
            *counters.of(state) += 1;
        }
        counted
    }

    /// How a message ended.
    pub(super) fn end(&self, seq: Seq) -> Option<MessageState> {
        self.finished(seq).map(|finished| finished.state)
    }

    #[track_caller]
    pub(super) fn failed_as(&self, seq: Seq) -> Failure {
        match self.terminals(seq).as_slice() {
            [Terminal::Failed { failure, .. }] => failure.clone(),
            other => panic!("no failure: {other:?}"),
        }
    }

    pub(super) fn terminals(&self, seq: Seq) -> Vec<Terminal> {
        let closed = |effect: &Effect| match effect {
            Effect::Closed { seq: of, terminal, .. } if *of == seq => Some((**terminal).clone()),
            _ => None,
        };
        self.effects.iter().filter_map(closed).collect()
    }

    #[track_caller]
    pub(super) fn summary(&self, seq: Seq) -> AnswerSummary {
        self.terminals(seq).first().unwrap().summary().clone()
    }

    /// Models and classes of a summary's attempts.
    #[track_caller]
    pub(super) fn attempts(&self, seq: Seq) -> Vec<(String, Option<FailureClass>)> {
        let brief = |a: broker_proto::Attempt| (a.model.to_string(), a.failure.map(|f| f.class));
        self.summary(seq).attempts.into_iter().map(brief).collect()
    }

    /// Agents that were told to end the call of a message.
    pub(super) fn cancelled_at(&self, seq: Seq) -> Vec<String> {
        let of = |effect: &Effect| match effect {
            Effect::Cancel { agent, seq: of, .. } if *of == seq => Some(agent.to_string()),
            _ => None,
        };
        self.effects.iter().filter_map(of).collect()
    }

    #[track_caller]
    pub(super) fn is_open(&self, name: &str) -> bool {
        self.state.route.shut(&model(name)).is_none()
    }

    pub(super) fn explain(&mut self, new: NewConsultation) -> RouteExplanation {
        match self.run(Command::Query(Query::Explain { new: Box::new(new), session: None })) {
            Reply::Explained(explanation) => explanation,
            other => panic!("explained by {other:?}"),
        }
    }

    /// The broker dies and starts again `after` that. One state comes from every event, its twin from what the
    /// projection keeps: the events of what lives, and the newest of each model and token. Links are gone.
    pub(super) fn restart(&mut self, after: Duration) {
        self.boot += after;
        let last = Seq(self.state.queue.next_seq().0 - 1);
        let policy = self.state.file_policy();
        let mut whole = State::new(policy.clone());
        self.journal.iter().for_each(|event| apply(&mut whole, event));
        let mut loaded = State::new(policy);
        loaded.queue.skip_to(last);
        for event in &self.journal {
            let Event::Accepted(accepted) = event else { continue };
            let Some(Numbered { producer, number }) = &accepted.numbered else { continue };
            loaded.queue.skip_numbers(&accepted.sender, producer, *number);
        }
        self.kept().into_iter().for_each(|event| apply(&mut loaded, event));
        loaded.queue.restore(self.counted());
        (self.state, self.twin) = (whole, Some(loaded));
        self.links.clear();
        self.seals.clear();
        self.shown.clear();
        self.run(Command::Recovered);
    }

    fn kept(&self) -> Vec<&Event> {
        let id_of = |event: &handoff::Event| match event {
            handoff::Event::Changed { handoff, .. } => (Some(handoff.id), None),
            handoff::Event::PolicySet { .. } | handoff::Event::Forgotten { .. } => (None, None),
            handoff::Event::Advised { session, .. } => (None, Some(session.clone())),
        };
        let forgets = |later: &handoff::Event, id: Option<broker_proto::HandoffId>| match later {
            handoff::Event::Forgotten { ids, .. } => id.is_some_and(|id| ids.contains(&id)),
            _ => false,
        };
        let is_superseded = |place: usize, event: &Event| {
            self.journal[place + 1..].iter().any(|later| match (event, later) {
                (Event::RouteChanged { model: a, .. }, Event::RouteChanged { model: b, .. })
                | (Event::UsageChanged { model: a, .. }, Event::UsageChanged { model: b, .. }) => {
                    a == b
                }
                (Event::TreeChanged { root: a, .. }, Event::TreeChanged { root: b, .. }) => a == b,
                (Event::Handoff(a), Event::Handoff(b)) if forgets(b, id_of(a).0) => true,
                (Event::Handoff(_), Event::Handoff(b))
                    if matches!(**b, handoff::Event::Forgotten { .. }) =>
                {
                    false
                }
                (Event::Handoff(a), Event::Handoff(b)) => id_of(a) == id_of(b),
                (Event::Ring(a), Event::Ring(b)) => a.ring.role == b.ring.role,
                (Event::TokenChanged { agent: a, .. }, Event::TokenChanged { agent: b, .. }) => {
                    a == b
                }
                (Event::QueuePaused { queue: a, .. }, Event::QueuePaused { queue: b, .. }) => {
                    a == b
                }
                _ => false,
            })
        };
        let purged = |of: Seq| {
            let is_it =
                |event: &Event| matches!(event, Event::Purged { subject, .. } if subject.seq == of);
            self.journal.iter().any(is_it)
        };
        let lives = |event: &Event| match event.subject() {
            Some(subject) => match self.end(subject.seq) {
                None => true,
                Some(MessageState::Dead) => !purged(subject.seq),
                Some(_) => false,
            },
            None => true,
        };
        // It ends rows, and leaves none.
        let is_row = |event: &Event| match event {
            Event::Handoff(event) => !matches!(**event, handoff::Event::Forgotten { .. }),
            _ => true,
        };
        let all = self.journal.iter().enumerate().filter(|(_, event)| is_row(event));
        all.filter(|(place, event)| lives(event) && !is_superseded(*place, event))
            .map(|(_, event)| event)
            .collect()
    }
}
