//! A namespace in logical time, one session in it, and who carries out what its rules ask for.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail, ensure};
use broker::core::{
    Append, BootTime, Command, Decision, Delivered, Effect, Event, NewConsultation, NewMessage,
    Now, Outcome as Settled, Policy, SettleCommand, State,
    agent::{Link, LinkId},
    decide,
    handoff::{Built, By, Command as HandoffCommand, Event as HandoffEvent},
    next_deadline,
    queue::{Body, Digest, Seq},
    session::{
        Change, Command as SessionCommand, Expected, NewEntries, NewEntry, Point, Start, Write,
    },
};
use broker_proto::{
    AcceptHandoff, AgentName, AskOptions, ContentHash, Correlation, Failure, FailureClass,
    HandoffId, HandoffKept, HandoffOffer, MessageId, MessageState, MessageType, ModelName,
    PackageId, Priority, RateLimit, Recipient, Sender, SessionId, Usage, WallTime,
};

use super::{Dice, Limit, Outcome, Script};

/// 2026-01-01, a moment like any other.
const START: WallTime = WallTime(1_767_225_600_000);
const OWNER: &str = "opus";
/// What a package keeps of a long session, in tokens.
const PACKED: u64 = 8_000;
const MANIFEST: [u8; 32] = [7; 32];
/// How long one turn may take, whatever happens to it.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// A provider's window.
const FIVE_HOURS: Duration = Duration::from_secs(5 * 3_600);

/// Something that happens later.
#[derive(Debug)]
enum Later {
    Settle(Box<Delivered>),
    Build(HandoffId, ModelName),
    Answer(Box<HandoffOffer>, LinkId),
    LinkUp(ModelName),
}

/// Tokens of one turn.
#[derive(Debug, Clone, Copy, Default)]
struct TurnSize {
    /// What its provider counts: mostly what was said before, read again.
    counted: u64,
    /// What it adds to its session; half of it is asked, half is answered.
    grown: u64,
}

pub(super) struct World {
    state: State,
    script: Script,
    dice: Dice,
    boot: Duration,
    later: BTreeMap<(Duration, u64), Later>,
    links: BTreeMap<LinkId, ModelName>,
    session: SessionId,
    number: u64,
    /// The turn that is asked, until it ends.
    open: Option<Seq>,
    size: TurnSize,
    turns: u64,
    done: u64,
    /// Of the limit.
    used: u64,
    resets_at: WallTime,
    resets: u32,
    /// The limit refused or cut something.
    is_hit: bool,
    /// Who answered turns after the session had moved.
    taken_up: bool,
    /// The largest share of the limit that was used.
    peak: f64,
    epochs: Vec<u64>,
    outcome: Outcome,
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

impl World {
    /// Everybody is linked, and the session has its first words.
    pub(super) fn new(policy: Policy, script: Script, dice: Dice) -> anyhow::Result<Self> {
        let models: Vec<ModelName> = policy.models.keys().cloned().collect();
        let mut world = Self {
            state: State::new(policy),
            used: script.used,
            resets_at: START.after(FIVE_HOURS),
            script,
            dice,
            boot: Duration::from_secs(1_000),
            later: BTreeMap::new(),
            links: BTreeMap::new(),
            session: SessionId::parse("s").context("a session's name")?,
            number: 0,
            open: None,
            size: TurnSize::default(),
            turns: 0,
            done: 0,
            resets: 0,
            is_hit: false,
            taken_up: false,
            peak: 0.0,
            epochs: vec![1],
            outcome: Outcome::default(),
        };
        world.decide(Command::Recovered)?;
        for model in models {
            world.link_up(&model)?;
        }
        let start = Start {
            id: world.session.clone(),
            title: String::new(),
            owner: ModelName::parse(OWNER)?,
            from: None,
            at: Point::default(),
            entries: NewEntries { entries: vec![world.entry(100)], ..NewEntries::default() },
            change: Change::Imported,
        };
        world.decide(Command::Session(Box::new(SessionCommand::Start(Box::new(start)))))?;
        Ok(world)
    }

    fn now(&self) -> Now {
        let wall = START.after(self.boot.saturating_sub(Duration::from_secs(1_000)));
        Now { wall, boot: BootTime(self.boot) }
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    fn entry(&mut self, tokens: u64) -> NewEntry {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.next().to_le_bytes());
        let size_bytes = tokens * 4;
        NewEntry { hash: ContentHash(hash), length: size_bytes as u32, tokens, size_bytes }
    }

    fn after(&mut self, wait: Duration, what: Later) {
        let number = self.next();
        self.later.insert((self.boot + wait, number), what);
    }

    fn link_up(&mut self, model: &ModelName) -> anyhow::Result<()> {
        let link = LinkId(self.next());
        self.links.insert(link, model.clone());
        let up = Link {
            agent: AgentName::parse(model.as_str())?,
            instance: format!("i{}", link.0),
            resumes: None,
            pull: None,
            is_exclusive: true,
            models: vec![model.clone()],
            roles: Vec::new(),
            stands_by: Vec::new(),
            capacity: 1_000,
            since: self.now().wall,
            credit_messages: 1_000_000,
            credit_bytes: 1 << 50,
        };
        self.decide(Command::LinkUp { link, up: Box::new(up), resume: Vec::new() })
    }

    /// One decision, and what follows from it now or later.
    fn decide(&mut self, command: Command) -> anyhow::Result<()> {
        let now = self.now();
        let Decision { events, effects, .. } = decide(&mut self.state, command, now)?;
        for event in events {
            self.saw(&event);
        }
        for effect in effects {
            match effect {
                Effect::Deliver(delivered) => self.take(*delivered)?,
                Effect::Seal { seq, epoch, .. } => {
                    self.decide(Command::Sealed { seq, epoch, shown: false, partial: None })?;
                }
                Effect::Build(handoff) => {
                    let wait = seconds(self.dice.between(0.005, 0.2));
                    self.after(wait, Later::Build(handoff.id, handoff.to));
                }
                Effect::Offer { links, offer } => {
                    let wait = seconds(self.dice.between(0.01, 1.0));
                    // Some never answer.
                    if !self.dice.falls(0.03) {
                        self.after(wait, Later::Answer(offer, links[0]));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn saw(&mut self, event: &Event) {
        match event {
            Event::Handoff(changed) => {
                let HandoffEvent::Changed { handoff, .. } = &**changed else { return };
                if handoff.from.model.as_str() == OWNER && !self.outcome.began {
                    self.outcome.began = true;
                    self.outcome.began_before = !self.is_hit;
                    self.outcome.used_at = self.used_share();
                }
            }
            Event::Finished(finished) if Some(finished.subject.seq) == self.open => {
                self.open = None;
                self.done += u64::from(finished.state == MessageState::Done);
            }
            _ => {}
        }
        self.peak = self.peak.max(self.used_share());
        if let Some(session) = self.state.session.get(&self.session) {
            let epoch = session.info.owner.epoch;
            if self.epochs.last() != Some(&epoch) {
                self.epochs.push(epoch);
            }
        }
    }

    /// An agent has a delivery; some are lost with it.
    fn take(&mut self, delivered: Delivered) -> anyhow::Result<()> {
        if self.dice.falls(0.005) {
            let (link, back) = (delivered.link, seconds(self.dice.between(0.5, 4.0)));
            if let Some(model) = self.links.remove(&link) {
                self.after(back, Later::LinkUp(model));
                return self.decide(Command::LinkDown { link });
            }
        }
        let is_slow = self.dice.falls(0.02);
        let takes =
            if is_slow { self.dice.between(10.5, 13.0) } else { self.dice.between(0.5, 9.0) };
        self.after(seconds(takes), Later::Settle(Box::new(delivered)));
        Ok(())
    }

    fn happens(&mut self, what: Later) -> anyhow::Result<()> {
        match what {
            Later::LinkUp(model) => self.link_up(&model),
            Later::Settle(delivered) => self.settle(&delivered),
            Later::Build(id, to) => {
                let command = if self.dice.falls(0.01) {
                    HandoffCommand::NotBuilt { id, to, reason: "the disk was slow".to_owned() }
                } else {
                    HandoffCommand::Built(Box::new(self.package(id, to)))
                };
                self.of_handoff(command)
            }
            Later::Answer(offer, link) => {
                let Some(model) = self.links.get(&link) else { return Ok(()) };
                let by = By::Agent(AgentName::parse(model.as_str())?);
                let id = offer.handoff;
                let command = if self.dice.falls(0.03) {
                    HandoffCommand::Decline { id, by, reason: "busy".to_owned(), for_model: false }
                } else {
                    let manifest = offer.manifest;
                    let confirmed = vec!["task".to_owned()];
                    HandoffCommand::Accept { accept: AcceptHandoff { id, manifest, confirmed }, by }
                };
                self.of_handoff(command)
            }
        }
    }

    /// What comes too late is refused, and that is all.
    fn of_handoff(&mut self, command: HandoffCommand) -> anyhow::Result<()> {
        match self.decide(Command::Handoff(Box::new(command))) {
            Err(error) if error.is::<broker::core::Refusal>() => Ok(()),
            decided => decided,
        }
    }

    fn package(&mut self, id: HandoffId, to: ModelName) -> Built {
        let info = self.state.session.get(&self.session).map(|session| session.info.clone());
        let (entries, tokens) =
            info.map_or((0, 0), |info| (info.head.entries, info.window_tokens()));
        let kept = HandoffKept {
            entries,
            tokens_before: tokens,
            tokens: tokens.min(PACKED),
            ..HandoffKept::default()
        };
        let package = PackageId::from_u128(u128::from(self.next()));
        Built { id, to, package, manifest: MANIFEST, kept }
    }

    /// An agent has called its provider, and settles.
    fn settle(&mut self, delivered: &Delivered) -> anyhow::Result<()> {
        let Some(model) = delivered.model.clone() else { bail!("a delivery without a model") };
        // Its lease went with its link.
        if !self.links.contains_key(&delivered.link) {
            return Ok(());
        }
        let is_ours = model.as_str() == OWNER;
        let held = self.state.session.get(&self.session).map(|s| s.info.window_tokens());
        let held = held.unwrap_or_default();
        if is_ours && self.script.limit == Limit::Window {
            self.is_hit |= delivered.history_room.is_some_and(|room| room < held);
        }
        let outcome = self.called(is_ours);
        let is_done = matches!(outcome, Settled::Done { .. });
        let (mut limits, mut usage, mut append) = (Vec::new(), Usage::default(), None);
        if is_done {
            let TurnSize { counted, grown } = self.size;
            usage.input_tokens = Some(counted.saturating_sub(grown / 2));
            usage.output_tokens = Some(grown / 2);
            append = Some(self.append(delivered.id, grown, &model));
            if is_ours && self.script.limit == Limit::Provider {
                self.used = (self.used + counted).min(self.script.size);
                limits.extend(self.said());
            }
            self.taken_up |= !is_ours && self.is_moved();
        }
        let settle = SettleCommand {
            agent: AgentName::parse(model.as_str())?,
            seq: delivered.seq,
            epoch: delivered.epoch,
            id: Some(delivered.id),
            outcome,
            usage,
            limits,
            first_token: Some(Duration::from_millis(800)),
            earlier: None,
            append,
            shortened: None,
        };
        match self.decide(Command::Settle(Box::new(settle))) {
            // Its lease was lost meanwhile; somebody else answers.
            Err(error) if error.is::<broker::core::Refusal>() => Ok(()),
            settled => settled,
        }
    }

    /// What the provider says to a call.
    fn called(&mut self, is_ours: bool) -> Settled {
        let is_full =
            is_ours && self.script.limit == Limit::Provider && self.used >= self.script.size;
        let failure = if is_full {
            self.is_hit = true;
            let retry_at = Some(self.resets_at);
            Failure {
                retry_at,
                ..Failure::new(FailureClass::QuotaExhausted, "provider", "used up")
            }
        } else if self.dice.falls(0.02) {
            let retry_at = Some(self.now().wall.after(Duration::from_secs(2)));
            Failure { retry_at, ..Failure::new(FailureClass::RateLimited, "provider", "slow down") }
        } else if self.dice.falls(0.01) {
            Failure::new(FailureClass::Overloaded, "provider", "overloaded")
        } else {
            return Settled::Done { reply: Body::default(), stop_reason: None };
        };
        Settled::Failed { failure, partial: None, shown: false }
    }

    /// Tokens that a turn adds: few like the last one, and now and then a long paste.
    fn turn_tokens(&mut self) -> u64 {
        let share = self.dice.between(0.3, 1.7);
        let share = if self.dice.falls(0.02) { share * 4.0 } else { share };
        (self.script.turn * share) as u64 + 2
    }

    /// The provider's header; sometimes it is not there, and it is rounded.
    fn said(&mut self) -> Option<RateLimit> {
        if self.dice.falls(0.1) {
            return None;
        }
        let left = self.script.size - self.used;
        Some(RateLimit {
            name: "5h".to_owned(),
            limit: Some(self.script.size),
            remaining: Some((left + 500) / 1_000 * 1_000),
            resets_at: Some(self.resets_at),
        })
    }

    fn append(&mut self, answer_of: MessageId, tokens: u64, model: &ModelName) -> Append {
        let entries = vec![self.entry(tokens / 2), self.entry(tokens - tokens / 2)];
        let models = [model.clone()].into();
        let entries = NewEntries { entries, models, ..NewEntries::default() };
        Append::Write(Box::new(Write {
            id: self.session.clone(),
            expected: Expected::default(),
            at: None,
            entries,
            task: None,
            shared: None,
            answer_of: Some(answer_of),
            change: Change::Appended,
        }))
    }

    /// Goes to the next thing that happens, if one does until `end`.
    fn step(&mut self, end: Duration) -> anyhow::Result<bool> {
        let due = next_deadline(&self.state, self.now()).map(|at| at.0.max(self.boot));
        let todo = self.later.keys().next().map(|(at, _)| *at);
        let Some(at) = due.into_iter().chain(todo).min().filter(|at| *at <= end) else {
            self.boot = end;
            return Ok(false);
        };
        self.boot = at;
        if due == Some(at) {
            self.decide(Command::Tick)?;
        } else if let Some((_, what)) = self.later.pop_first() {
            self.happens(what)?;
        }
        Ok(true)
    }

    /// Lets time pass.
    pub(super) fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = self.boot + time;
        while self.step(end)? {}
        Ok(())
    }

    /// The person reads and thinks, and others use what they share.
    pub(super) fn think(&mut self) -> anyhow::Result<()> {
        let time = seconds(self.dice.wait(self.script.think));
        if self.script.is_shared && self.dice.falls(0.3) {
            let share = self.dice.between(0.0, 1.5);
            let others = (self.script.turn * share) as u64;
            self.used = (self.used + others).min(self.script.size);
        }
        self.rest(time)
    }

    /// Asks the session's owner, and waits for the end of it.
    pub(super) fn turn(&mut self) -> anyhow::Result<()> {
        let session = self.state.session.get(&self.session).context("the session is gone")?;
        let (owner, held) = (session.info.owner.model.clone(), session.info.window_tokens());
        let per_token = self.state.policy.models.get(&owner).map_or(4.0, |it| it.bytes_per_token);
        let counted = self.turn_tokens();
        let grown = match self.script.limit {
            Limit::Provider => counted.min(self.dice.between(200.0, 1_500.0) as u64),
            Limit::Window => counted,
        };
        self.size = TurnSize { counted, grown };
        let bytes = |tokens: u64| (tokens as f64 * per_token) as u64;
        let (history_bytes, own_bytes) = (bytes(held), bytes(grown / 2));
        let id = MessageId::from_u128(u128::from(self.next()));
        let seq = self.state.queue.next_seq();
        let consultation = NewConsultation {
            asked: owner.clone(),
            options: AskOptions::default(),
            prompt_bytes: history_bytes + own_bytes,
            history_bytes,
            needs_vision: false,
            max_output_tokens: None,
        };
        let new = NewMessage {
            id,
            sender: Sender::parse("app").context("a sender")?,
            to: Recipient::Model(owner),
            kind: MessageType::Consultation,
            priority: Priority::Normal,
            digest: Digest([1; 32]),
            body: Body { size_bytes: history_bytes + own_bytes, ..Body::default() },
            expires_at: None,
            session: Some(self.session.to_string()),
            ordering_key: None,
            correlation: Correlation::default(),
            labels: BTreeMap::new(),
            allow_future_recipient: true,
            consultation: Some(consultation),
            earlier: None,
            numbered: None,
            earlier_number: None,
            parent: None,
            budget: None,
        };
        self.open = Some(seq);
        self.turns += 1;
        self.decide(Command::Send(Box::new(new)))?;
        self.decide(Command::AskerBack { seq })?;
        let end = self.boot + PATIENCE;
        while self.open.is_some() {
            ensure!(self.step(end)?, "the turn has no end");
        }
        Ok(())
    }

    /// The provider's window begins anew.
    pub(super) fn reset(&mut self) -> anyhow::Result<()> {
        let wait = self.resets_at.since(self.now().wall) + Duration::from_secs(1);
        self.rest(wait)?;
        (self.used, self.resets) = (0, self.resets + 1);
        self.resets_at = self.now().wall.after(FIVE_HOURS);
        Ok(())
    }

    pub(super) fn resets(&self) -> u32 {
        self.resets
    }

    pub(super) fn used_share(&self) -> f64 {
        let used = match self.script.limit {
            Limit::Provider => self.used,
            Limit::Window => {
                self.state.session.get(&self.session).map_or(0, |it| it.info.window_tokens())
            }
        };
        used as f64 / self.script.size as f64
    }

    pub(super) fn is_moved(&self) -> bool {
        let session = self.state.session.get(&self.session);
        session.is_some_and(|session| session.info.owner.model.as_str() != OWNER)
    }

    pub(super) fn outcome(self) -> Outcome {
        let is_counted = self.epochs.windows(2).all(|two| two[1] == two[0] + 1);
        let is_complete = self.done == self.turns && self.taken_up && is_counted;
        let switch = match self.script.limit {
            Limit::Provider => 100,
            Limit::Window => self.state.policy.thresholds.session_switch,
        };
        let reached = self.peak * 100.0 >= f64::from(switch);
        Outcome { is_complete, reached, ..self.outcome }
    }
}
