//! Rings as they go round: what an owner's calls say of it, who takes over, and what moves with that.

use std::time::Duration;

use broker_proto::{
    AgentName, AskHandoff, ForceRotation, HandoffState, MessageType, ModelName, Pace, Recipient,
    RoleName, Rotation, RotationHandover, RotationMember, RotationPhase, RotationState,
    RotationTrigger, SessionId, SetRotation, Trigger, TriggerKind, Urgency, WallTime,
};

use super::{Run, handoff::Wanted};
use crate::core::{
    Effect, Event, Note, Refusal, Reply,
    queue::{Message, Place, Seq},
    ring::{
        self, Call, Command, Event as RingEvent, Exhausted, Handover, LONGEST_PAUSE, Loading,
        MOST_MEMBERS, MOST_RINGS, Member, Query, Refusal as Refused, Reply as RingReply, Ring,
        Standing, Step, Stopped, Unfit, What,
    },
    usage::{self, Cause, Ended, Heard, Held, Kind, Level},
};

/// Sessions that one handover moves; the others stay with whoever owns them.
const SESSIONS: usize = 64;

impl Run<'_> {
    pub(super) fn ring(&mut self, command: Command) -> Result<Reply, Refusal> {
        let role = match command {
            Command::Set(set) => self.set_ring(set)?,
            Command::Force(force) => self.force_ring(force)?,
            Command::NotWoken { role, to, reason } => {
                self.not_woken(&role, &to, &reason);
                role
            }
        };
        self.look_at_rings();
        Ok(Reply::Ring(self.ask_ring(&Query::Get(Some(role)))))
    }

    pub(super) fn ask_ring(&self, Query::Get(role): &Query) -> RingReply {
        let is_meant = |ring: &&Ring| role.as_ref().is_none_or(|role| ring.role == *role);
        let rings = self.state.ring.rings().filter(is_meant);
        RingReply::Rings(rings.map(|ring| self.shown_ring(ring)).collect())
    }

    fn set_ring(&mut self, set: SetRotation) -> Result<RoleName, Refusal> {
        let before = self.state.ring.get(&set.role);
        if before.is_none() && self.state.ring.rings().count() >= MOST_RINGS {
            return Err(Refused::TooManyRings.into());
        }
        let members = self.members(&set, before)?;
        let pick = set.pick.or(before.map(|ring| ring.pick)).unwrap_or(broker_proto::Pick::Next);
        let settings = &self.state.policy.rotation;
        let pause = set.pause.or(before.map(|ring| ring.pause)).unwrap_or(settings.pause);
        if pause > LONGEST_PAUSE {
            return Err(Refused::LongPause.into());
        }
        if pause < settings.accept_deadline {
            return Err(Refused::ShortPause { pause, accept: settings.accept_deadline }.into());
        }
        let is_in =
            |agent: &&AgentName| set.is_on && members.iter().any(|member| member.agent == **agent);
        let at = self.now.wall;
        let owner = before.and_then(|ring| ring.owner.as_ref()).filter(is_in).cloned();
        let last = before.and_then(|ring| ring.last.as_ref()).filter(is_in).cloned();
        let since = before.filter(|_| owner.is_some()).map_or(at, |ring| ring.since);
        let nobody = || Stopped { since: at, why: "nobody has begun".into(), back_at: None };
        let ring = Ring {
            role: set.role.clone(),
            is_on: set.is_on,
            pick,
            pause,
            stopped: (set.is_on && owner.is_none()).then(nobody),
            owner,
            last,
            epoch: before.map_or(0, |ring| ring.epoch),
            since,
            handover: None,
            members,
        };
        self.ring_changed(ring, What::Set);
        // Without a ring, or for another owner, what waits may be somebody's.
        self.dispatch(&Recipient::Role(set.role.clone()));
        Ok(set.role)
    }

    /// The members as they are wanted, each with what is known of it.
    fn members(&self, set: &SetRotation, before: Option<&Ring>) -> Result<Vec<Member>, Refused> {
        if set.members.is_empty() {
            let before = before.ok_or_else(|| {
                if set.is_on { Refused::NoMembers } else { Refused::Unknown(set.role.clone()) }
            })?;
            return Ok(before.members.clone());
        }
        if set.members.len() > MOST_MEMBERS {
            return Err(Refused::TooMany);
        }
        let mut members: Vec<Member> = Vec::new();
        for agent in &set.members {
            if members.iter().any(|member| member.agent == *agent) {
                return Err(Refused::Twice(agent.clone()));
            }
            let known = before.and_then(|ring| ring.member(agent)).cloned();
            let is_known = known.is_some()
                || self.state.agent.token(agent).is_some()
                || self.state.agent.links_of(agent).next().is_some()
                || self.state.policy.rotation.woken.contains(agent);
            if !is_known {
                return Err(Refused::UnknownAgent(agent.clone()));
            }
            members.push(known.unwrap_or_else(|| Member::new(agent.clone())));
        }
        Ok(members)
    }

    fn force_ring(&mut self, force: ForceRotation) -> Result<RoleName, Refusal> {
        let ForceRotation { role, to, reason } = force;
        let ring = self.state.ring.get(&role).ok_or_else(|| Refused::Unknown(role.clone()))?;
        if !ring.is_on {
            return Err(Refused::Off(role).into());
        }
        if let Some(handover) = ring.handover.as_ref().filter(|_| ring.is_handing_over()) {
            return Err(Refused::UnderWay { role, phase: handover.phase }.into());
        }
        if let Some(to) = &to {
            if ring.member(to).is_none() {
                return Err(Refused::NoMember { role, agent: to.clone() }.into());
            }
            if ring.owner.as_ref() == Some(to) {
                return Err(Refused::Owner(to.clone()).into());
            }
            if let Some(reason) = self.standing(ring, to).keeps_away() {
                return Err(Refused::Unfit { agent: to.clone(), reason }.into());
            }
        } else if ring.owner.is_some() && ring.members.len() == 1 {
            return Err(Refused::Alone(role).into());
        }
        let reason = if reason.is_empty() { "somebody asked for it".to_owned() } else { reason };
        let why = Exhausted { trigger: RotationTrigger::Forced, reason, is_gradual: false };
        self.detect(ring.clone(), why, to);
        Ok(role)
    }

    fn not_woken(&mut self, role: &RoleName, to: &AgentName, reason: &str) {
        let Some(ring) = self.state.ring.get(role).cloned() else { return };
        let waits = ring.handover.as_ref().is_some_and(|handover| {
            handover.phase == RotationPhase::Woken && handover.to.as_ref() == Some(to)
        });
        if waits {
            self.pass_over(ring, to, &format!("could not be woken: {reason}"));
        }
    }

    fn ring_changed(&mut self, ring: Ring, what: What) {
        let at = self.now.wall;
        self.event(Event::Ring(Box::new(RingEvent { at, ring, what })));
    }

    /// Whoever is woken when the broker starts is woken again.
    pub(super) fn resume_rings(&mut self) {
        let woken: Vec<Ring> =
            self.state.ring.on().filter(|it| it.is_handing_over()).cloned().collect();
        for ring in woken {
            self.wake_member(&ring);
        }
    }

    fn wake_member(&mut self, ring: &Ring) {
        let Some(handover) = &ring.handover else { return };
        let (RotationPhase::Woken, Some(to)) = (handover.phase, &handover.to) else { return };
        if self.state.policy.rotation.woken.contains(to) && !self.standing(ring, to).is_there {
            let call = Call {
                role: ring.role.clone(),
                from: handover.from.clone(),
                to: to.clone(),
                reason: handover.reason.clone(),
                at: self.now.wall,
            };
            self.effect(Effect::Wake(Box::new(call)));
        }
    }

    /// Takes every step that is due. Each either ends a handover, brings it nearer to its end, or rules a member out.
    pub(super) fn look_at_rings(&mut self) {
        let roles: Vec<RoleName> = self.state.ring.on().map(|ring| ring.role.clone()).collect();
        for role in roles {
            while let Some((ring, step)) = self.next_step(&role) {
                self.take_step(ring, step);
            }
        }
    }

    fn next_step(&self, role: &RoleName) -> Option<(Ring, Step)> {
        let ring = self.state.ring.get(role).filter(|ring| ring.is_on)?;
        let standings: Vec<Standing> =
            ring.members.iter().map(|member| self.standing(ring, &member.agent)).collect();
        let deadline = self.state.policy.rotation.accept_deadline;
        let step = ring::step(ring, &standings, &self.loading(ring), deadline, self.now.wall)?;
        Some((ring.clone(), step))
    }

    fn take_step(&mut self, mut ring: Ring, step: Step) {
        match step {
            Step::Detect(why) => self.detect(ring, why, None),
            Step::Save => self.save(ring),
            Step::Wake(to) => {
                let until = self.now.wall.after(self.state.policy.rotation.accept_deadline);
                if let Some(handover) = &mut ring.handover {
                    handover.phase = RotationPhase::Woken;
                    (handover.to, handover.until) = (Some(to), Some(until));
                    handover.handoffs.clear();
                }
                self.ring_changed(ring.clone(), What::Woken);
                self.wake_member(&ring);
            }
            Step::See => self.see(ring),
            Step::Accept => self.accept_ring(ring),
            Step::Resume => self.resume(ring),
            Step::PassOver { member, reason } => self.pass_over(ring, &member, &reason),
            Step::Stay { reason } => {
                ring.handover = None;
                let queue = Recipient::Role(ring.role.clone());
                self.ring_changed(ring, What::Stayed { reason });
                self.dispatch(&queue);
            }
            Step::Stop { why, back_at } => {
                ring.stop(self.now.wall, why, back_at);
                self.ring_changed(ring, What::Stopped);
            }
        }
    }

    fn detect(&mut self, mut ring: Ring, why: Exhausted, only: Option<AgentName>) {
        ring.handover = Some(Handover {
            phase: RotationPhase::Detected,
            trigger: why.trigger,
            reason: why.reason,
            is_gradual: why.is_gradual,
            from: ring.owner.clone(),
            to: None,
            only,
            begun_at: self.now.wall,
            until: None,
            tasks: 0,
            sessions: 0,
            handoffs: Vec::new(),
            tried: Vec::new(),
        });
        self.ring_changed(ring, What::Detected);
    }

    fn save(&mut self, mut ring: Ring) {
        let tasks = self.tasks(&ring) as u64;
        let sessions = self.sessions_of(&ring, None).len() as u64;
        if let Some(handover) = &mut ring.handover {
            handover.phase = RotationPhase::Saved;
            (handover.tasks, handover.sessions) = (tasks, sessions);
        }
        self.ring_changed(ring, What::Saved);
    }

    /// What the next owner finds: what waits for the role or for its owner, and what the owner works on.
    fn tasks(&self, ring: &Ring) -> usize {
        let queue = Recipient::Role(ring.role.clone());
        let waiting = usize::try_from(self.state.queue.load(&queue).0).unwrap_or(usize::MAX);
        let of = |owner: &AgentName| self.leased(ring, owner).len() + self.addressed(owner).len();
        waiting + ring.owner.as_ref().map_or(0, of)
    }

    /// What a member works on of the role's queue.
    fn leased(&self, ring: &Ring, agent: &AgentName) -> Vec<Seq> {
        let queue = Recipient::Role(ring.role.clone());
        let is_of = |seq: &Seq| self.state.queue.get(*seq).is_some_and(|it| *it.queue == queue);
        self.state.queue.leased_by(agent).into_iter().filter(is_of).collect()
    }

    /// Tasks that wait in an agent's own mailbox. What else is addressed to it is its own.
    fn addressed(&self, agent: &AgentName) -> Vec<Seq> {
        let queue = Recipient::Agent(agent.clone());
        let ready = self.state.queue.ready(&queue).map(|ready| ready.all()).unwrap_or_default();
        let is_task = |message: &Message| {
            message.kind == MessageType::Delegation
                && message.consultation.is_none()
                && matches!(message.place, Place::Ready)
        };
        let is_task = |seq: &Seq| self.state.queue.get(*seq).is_some_and(is_task);
        ready.into_iter().filter(is_task).collect()
    }

    /// Sessions that the ring's members own, but for this one.
    fn sessions_of(&self, ring: &Ring, but: Option<&AgentName>) -> Vec<SessionId> {
        let is_one = |agent: &AgentName| Some(agent) != but && ring.member(agent).is_some();
        let owned = self.state.session.owned_by(is_one);
        owned.take(SESSIONS).map(|session| session.info.id.clone()).collect()
    }

    /// The incoming one is there: it is offered the sessions of the others.
    fn see(&mut self, mut ring: Ring) {
        let Some(handover) = ring.handover.clone() else { return };
        let Some(to) = handover.to.clone() else { return };
        let mut handoffs = Vec::new();
        for session in self.sessions_of(&ring, Some(&to)) {
            let Some(model) = self.model_for(&session, &to) else { continue };
            let pace = if handover.is_gradual { Pace::Gradually } else { Pace::AtOnce };
            let reason = format!("rotation of {}: {}", ring.role, handover.reason);
            let ask = AskHandoff {
                session,
                to: Some(model),
                agent: Some(to.clone()),
                reason: reason.clone(),
                level: None,
                package: None,
                is_forced: true,
                at_once: pace == Pace::AtOnce,
            };
            // The ring says where a session is: it is put there, and goes on with the ring.
            let trigger = Trigger {
                kind: TriggerKind::UserRequest,
                reasoning: reason,
                confidence: 1.0,
                urgency: Urgency::High,
            };
            // One that cannot move, as it has no turns or is on its way, stays with its owner.
            handoffs.extend(self.begin_handoff(Wanted {
                ask,
                trigger,
                pace,
                returns: None,
                is_lent: false,
            }));
        }
        if let Some(handover) = &mut ring.handover {
            handover.phase = RotationPhase::Seen;
            handover.handoffs = handoffs;
        }
        self.ring_changed(ring, What::Seen);
    }

    /// The model that answers for a member: the session's own, where it serves it.
    fn model_for(&self, session: &SessionId, to: &AgentName) -> Option<ModelName> {
        let served = self.models_of(to);
        let own = &self.state.session.get(session)?.info.owner.model;
        served.iter().find(|model| *model == own).or_else(|| served.first()).cloned()
    }

    /// The models that an agent serves now, as it named them.
    fn models_of(&self, agent: &AgentName) -> Vec<ModelName> {
        let links = self.state.agent.links_of(agent);
        links.flat_map(|(_, link)| link.models.iter().cloned()).collect()
    }

    fn loading(&self, ring: &Ring) -> Loading {
        let Some(handover) = &ring.handover else { return Loading::default() };
        let mut loading = Loading::default();
        for id in &handover.handoffs {
            match self.state.handoff.get(*id) {
                Some(it) if it.state.is_pending() => loading.pending += 1,
                Some(it) if matches!(it.state, HandoffState::Active | HandoffState::Completed) => {
                    loading.taken += 1;
                }
                Some(it) => loading.refused.push(it.outcome.clone()),
                // Its session moved on, or is no more.
                None => loading.taken += 1,
            }
        }
        let has_nothing = handover.tasks == 0 && handover.handoffs.is_empty();
        loading.has_worked = has_nothing || self.state.ring.has_worked(&ring.role);
        loading
    }

    /// The change of owner: with it goes what the one before works on, and what is addressed to it.
    fn accept_ring(&mut self, mut ring: Ring) {
        let Some(to) = ring.handover.as_ref().and_then(|it| it.to.clone()) else { return };
        let (at, tasks) = (self.now.wall, self.tasks(&ring) as u64);
        let from = ring.owner.clone();
        let (leased, addressed) = match &from {
            Some(from) => (self.leased(&ring, from), self.addressed(from)),
            None => (Vec::new(), Vec::new()),
        };
        ring.pass_to(&to, at);
        let mut is_gradual = false;
        if let Some(handover) = &mut ring.handover {
            handover.phase = RotationPhase::Loaded;
            (handover.until, handover.tasks) = (None, tasks);
            is_gradual = handover.is_gradual;
        }
        let queue = Recipient::Role(ring.role.clone());
        self.ring_changed(ring, What::Accepted);
        if !is_gradual {
            for seq in leased {
                self.lose_lease(seq, "its ring has another owner", false);
            }
        }
        for seq in addressed {
            let Some(message) = self.state.queue.get(seq) else { continue };
            self.event(Event::Routed {
                subject: message.subject(),
                at,
                queue: queue.clone(),
                candidate: 0,
                wait_until: None,
                passed_over: Vec::new(),
                why: format!("its ring passed on to {to}"),
            });
        }
        self.dispatch(&queue);
    }

    fn resume(&mut self, mut ring: Ring) {
        let handoffs = ring.handover.take().map(|it| it.handoffs).unwrap_or_default();
        let packages = handoffs.into_iter().filter_map(|id| self.state.handoff.get(id)?.package);
        let packages = packages.collect();
        self.ring_changed(ring, What::Resumed { packages });
    }

    /// The next one is asked; this one not before a pause is over.
    fn pass_over(&mut self, mut ring: Ring, member: &AgentName, reason: &str) {
        let until = Some(self.now.wall.after(ring.pause));
        let handoffs = ring.handover.as_ref().map(|it| it.handoffs.clone()).unwrap_or_default();
        if let Some(handover) = &mut ring.handover {
            handover.phase = RotationPhase::Saved;
            (handover.to, handover.until) = (None, None);
            handover.handoffs.clear();
            handover.tried.push(member.clone());
        }
        if let Some(member) = ring.member_mut(member) {
            member.shut = Some(Unfit { reason: reason.to_owned(), until });
        }
        let (member, why) = (member.clone(), reason.to_owned());
        self.ring_changed(ring, What::PassedOver { member, reason: why });
        for id in handoffs {
            let Some(open) = self.state.handoff.get(id).cloned() else { continue };
            if open.state.is_pending() {
                let outcome = format!("its receiver was passed over: {reason}");
                self.end_handoff(open, HandoffState::Expired, outcome);
            }
        }
    }

    fn standing(&self, ring: &Ring, agent: &AgentName) -> Standing {
        let agents = &self.state.agent;
        let links: Vec<_> = self.state.ring.links_of(&ring.role, agent).collect();
        let is_there = !links.is_empty();
        let gives = |link| agents.link(link).is_some_and(|link| link.credit_messages > 0);
        let takes = links.into_iter().any(gives);
        let can_be_woken = self.state.policy.rotation.woken.contains(agent);
        let (limit, level) = self.limit_of(agent);
        let of = |reason: &str| Some(Unfit { reason: reason.to_owned(), until: None });
        let unfit = if agents.is_draining(Some(agent)) {
            of("is being drained")
        } else {
            limit.as_ref().map(|(reason, until)| Unfit { reason: reason.clone(), until: *until })
        };
        let is_owner = ring.owner.as_ref() == Some(agent);
        let exhausted = is_owner.then(|| self.exhausted(ring, agent, limit)).flatten();
        Standing { is_there, can_be_woken, takes, unfit, exhausted, level }
    }

    /// Why an owner cannot go on.
    fn exhausted(
        &self,
        ring: &Ring,
        agent: &AgentName,
        limit: Option<(String, Option<WallTime>)>,
    ) -> Option<Exhausted> {
        let of = |trigger, reason: String| {
            let is_gradual = trigger == RotationTrigger::SlowReplies;
            Some(Exhausted { trigger, reason, is_gradual })
        };
        if self.state.agent.is_draining(Some(agent)) {
            return of(RotationTrigger::Drained, "it is being drained".into());
        }
        let silence = self.state.policy.rotation.silence;
        let silent = self.state.ring.silent_at(&ring.role, agent, silence);
        if silent.is_some_and(|at| at <= self.now.boot) {
            let silence = silence.as_secs_f64();
            return of(RotationTrigger::Silent, format!("nothing was heard of it for {silence} s"));
        }
        let causes = self.signals_of(agent);
        if let Some(cause) = causes.into_iter().find(|cause| cause.level == Level::Exhausted) {
            let trigger = match cause.kind {
                Kind::RateLimits => RotationTrigger::RateLimits,
                Kind::SlowReplies => RotationTrigger::SlowReplies,
                Kind::ErrorRate => RotationTrigger::ErrorRate,
                Kind::Limit => RotationTrigger::Limit,
            };
            return of(trigger, cause.reason);
        }
        limit.and_then(|(reason, _)| of(RotationTrigger::Limit, reason))
    }

    /// What a member's own calls and deliveries say of it, since it became the owner.
    fn signals_of(&self, agent: &AgentName) -> Vec<Cause> {
        let thresholds = &self.state.usage.rules().thresholds;
        let signals = self.state.ring.signals(agent);
        usage::of_signals(&signals, thresholds, &Held::default(), self.now.wall)
    }

    /// The limit that keeps an agent from all its models, and how near it is to one of each.
    fn limit_of(&self, agent: &AgentName) -> (Option<(String, Option<WallTime>)>, Level) {
        let limits: Vec<Option<Cause>> =
            self.models_of(agent).iter().map(|it| self.limit(it)).collect();
        let level = |limit: &Option<Cause>| limit.as_ref().map_or(Level::Healthy, |it| it.level);
        let least = limits.iter().map(level).min().unwrap_or_default();
        if least < Level::Exhausted {
            return (None, least);
        }
        let until = limits.iter().flatten().filter_map(|cause| cause.until).min();
        let reason = limits.into_iter().flatten().next().map(|cause| cause.reason);
        (reason.map(|reason| (reason, until)), least)
    }

    /// The nearest limit of a model. Signals are none: they are the agent's that made the calls.
    fn limit(&self, name: &ModelName) -> Option<Cause> {
        let model = self.model(name)?;
        let causes = self.state.usage.causes_of_model(name, &model.key, self.now.wall);
        let causes = causes.into_iter().filter(|cause| cause.kind == Kind::Limit);
        usage::highest(causes.chain(self.refused(name)).collect(), &Held::default())
    }

    /// Notes what an event says of a ring's member: how one of its calls, or a delivery to it, ended.
    pub(super) fn hear(&mut self, event: &Event) {
        let new = Heard {
            at: self.now.wall,
            ended: Ended::Unknown,
            latency: None,
            first_token: None,
            message: event.subject().map(|subject| subject.id),
        };
        let (agents, heard) = match event {
            Event::Usage(usage::Event::Counted(call)) => {
                let agents = match &call.agent {
                    Some(agent) => vec![agent.clone()],
                    // Recorded by somebody who names the model only: whoever works for a ring made it.
                    None => self.owners_serving(&call.model),
                };
                let (latency, first_token) = (call.latency, call.first_token);
                (agents, Heard { ended: call.ended, latency, first_token, ..new })
            }
            Event::DeliveryFailed { agent, failure, .. } => {
                (vec![agent.clone()], Heard { ended: Ended::Failed(failure.class), ..new })
            }
            Event::Finished(finished) if finished.state == broker_proto::MessageState::Done => {
                let message = self.state.queue.get(finished.subject.seq);
                let message = message.filter(|message| message.consultation.is_none());
                let lease = message.and_then(Message::lease);
                let agent = lease.map(|lease| lease.agent.clone());
                (agent.into_iter().collect(), Heard { ended: Ended::Done, ..new })
            }
            _ => return,
        };
        for agent in agents {
            if self.state.ring.is_member(&agent) {
                self.note(&Note::Heard { agent, heard });
            }
        }
    }

    fn owners_serving(&self, model: &ModelName) -> Vec<AgentName> {
        let owners = self.state.ring.on().filter_map(|ring| ring.owner.clone());
        let mut owners: Vec<_> = owners.filter(|it| self.models_of(it).contains(model)).collect();
        owners.sort();
        owners.dedup();
        owners
    }

    fn shown_ring(&self, ring: &Ring) -> Rotation {
        let queue = Recipient::Role(ring.role.clone());
        let (queued, leased, _) = self.state.queue.load(&queue);
        let state = match &ring.owner {
            _ if !ring.is_on => RotationState::Off,
            None => RotationState::Stopped,
            Some(_) if ring.is_handing_over() => RotationState::HandingOver,
            Some(_) => RotationState::Running,
        };
        let handover = ring.handover.as_ref().map(|it| RotationHandover {
            phase: it.phase,
            trigger: it.trigger,
            reason: it.reason.clone(),
            from: it.from.clone(),
            to: it.to.clone(),
            begun_at: it.begun_at,
            until: it.until,
            tasks: it.tasks,
            sessions: it.sessions,
        });
        let next = ring.members.iter().cycle().skip(1);
        let members =
            ring.members.iter().zip(next).map(|(member, next)| self.shown(ring, member, next));
        Rotation {
            role: ring.role.clone(),
            state,
            pick: ring.pick,
            pause: ring.pause,
            accept_deadline: self.state.policy.rotation.accept_deadline,
            owner: ring.owner.clone(),
            epoch: ring.epoch,
            since: ring.owner.is_some().then_some(ring.since),
            handover,
            stopped: ring.stopped.as_ref().map(|it| it.why.clone()).unwrap_or_default(),
            back_at: ring.stopped.as_ref().and_then(|it| it.back_at),
            members: members.collect(),
            queued,
            leased,
            at: self.now.wall,
        }
    }

    fn shown(&self, ring: &Ring, member: &Member, next: &Member) -> RotationMember {
        let agent = &member.agent;
        let standing = self.standing(ring, agent);
        let thresholds = &self.state.usage.rules().thresholds;
        let readings = self.state.ring.signals(agent).read(thresholds, self.now.wall);
        let is_owner = ring.owner.as_ref() == Some(agent);
        let signal = usage::highest(self.signals_of(agent), &Held::default());
        let level = signal.as_ref().map_or(Level::Healthy, |it| it.level).max(standing.level);
        let shut = member.shut.clone();
        let shut = shut.filter(|shut| shut.until.is_none_or(|until| until > self.now.wall));
        let unfit = standing.exhausted.clone().map(|it| Unfit { reason: it.reason, until: None });
        let unfit = unfit.or(shut).or(standing.unfit.clone());
        let away = || standing.keeps_away().map(|reason| Unfit { reason, until: None });
        let unfit = unfit.or_else(away);
        let unfit = unfit.or(signal.map(|it| Unfit { reason: it.reason, until: it.until }));
        let so_far = if is_owner { self.now.wall.since(ring.since) } else { Duration::ZERO };
        RotationMember {
            agent: agent.clone(),
            is_owner,
            is_connected: standing.is_there,
            status: level.as_str().to_owned(),
            until: unfit.as_ref().and_then(|it| it.until),
            reason: unfit.map(|it| it.reason).unwrap_or_default(),
            rate_limit_count: readings.rate_limits,
            error_rate: readings.error_rate(),
            avg_response_time: readings.avg_response,
            next: next.agent.clone(),
            turns: member.turns,
            owned: member.owned + so_far,
        }
    }
}
