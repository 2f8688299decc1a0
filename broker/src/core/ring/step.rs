//! What a ring does next: a function of the ring, of how its members stand, and of the time.

use std::time::Duration;

use broker_proto::{AgentName, Pick, RotationPhase, RotationTrigger, WallTime};

use super::{Handover, Ring};
use crate::core::usage::Level;

/// Why a member cannot take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub reason: String,
    /// When that may be another.
    pub until: Option<WallTime>,
}

/// Why an owner cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhausted {
    pub trigger: RotationTrigger,
    pub reason: String,
    pub is_gradual: bool,
}

/// What wakes a member that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waker {
    /// Of the broker's configuration.
    Hook,
    /// A process of its own that stands by.
    Standby,
}

impl Waker {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Standby => "standby",
        }
    }
}

/// How a member stands now. What it did as the owner the last time says nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// A link of its name with the role is open.
    pub is_there: bool,
    /// What can wake it.
    pub woken_by: Option<Waker>,
    /// It gives credit for what it would take.
    pub takes: bool,
    pub unfit: Option<Unfit>,
    /// Of the owner only.
    pub exhausted: Option<Exhausted>,
    pub level: Level,
}

impl Standing {
    /// Why it cannot be asked at all.
    #[must_use]
    pub fn keeps_away(&self) -> Option<String> {
        let is_away = !self.is_there && self.woken_by.is_none();
        let away = || is_away.then(|| "is not connected, and nothing wakes it".to_owned());
        self.unfit.as_ref().map(|unfit| unfit.reason.clone()).or_else(away)
    }
}

/// How far the incoming one is with the sessions it is offered.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loading {
    pub pending: usize,
    pub taken: usize,
    /// Why each of the others was not.
    pub refused: Vec<String>,
    /// There are sessions that it was not offered yet.
    pub has_more: bool,
    /// The owner has worked since it took over, or found nothing to do.
    pub has_worked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The owner cannot go on.
    Detect(Exhausted),
    /// Write down what moves.
    Save,
    Wake(AgentName),
    /// The incoming one is there: offer it the sessions, or the next ones.
    See,
    /// It is the owner from now on.
    Accept,
    Resume,
    PassOver {
        member: AgentName,
        reason: String,
    },
    /// Nobody takes it, and the owner can go on.
    Stay {
        reason: String,
    },
    /// Nobody can work, for these reasons.
    Stop {
        why: String,
        back_at: Option<WallTime>,
    },
}

/// The next step of a ring that is on; `None`: it stays as it is until something happens. `standings` are those of its
/// members, in their order.
#[must_use]
pub fn step(
    ring: &Ring,
    standings: &[Standing],
    loading: &Loading,
    accept_deadline: Duration,
    now: WallTime,
) -> Option<Step> {
    let view = View { ring, standings, now };
    match &ring.handover {
        Some(handover) if handover.phase < RotationPhase::Loaded => {
            view.handing_over(handover, loading, accept_deadline)
        }
        _ => view.at_rest(loading),
    }
}

struct View<'a> {
    ring: &'a Ring,
    standings: &'a [Standing],
    now: WallTime,
}

impl View<'_> {
    fn at_rest(&self, loading: &Loading) -> Option<Step> {
        let Some(owner) = &self.ring.owner else { return self.stopped() };
        if let Some(exhausted) = self.standing(owner).and_then(|it| it.exhausted.clone()) {
            return Some(Step::Detect(exhausted));
        }
        (self.ring.handover.is_some() && loading.has_worked).then_some(Step::Resume)
    }

    /// Nobody works: whoever can may begin.
    fn stopped(&self) -> Option<Step> {
        if self.pick(None).is_some() {
            let reason = "it can work".to_owned();
            let trigger = RotationTrigger::Begins;
            return Some(Step::Detect(Exhausted { trigger, reason, is_gradual: false }));
        }
        let (why, back_at) = self.why_nobody(&[]);
        // Only another time at which to look again is worth an event of its own.
        let is_news = match self.ring.stopped.as_ref().map(|told| told.back_at) {
            None => true,
            Some(None) => back_at.is_some(),
            Some(Some(told)) => told <= self.now || back_at.is_some_and(|at| at < told),
        };
        is_news.then_some(Step::Stop { why, back_at })
    }

    fn handing_over(
        &self,
        handover: &Handover,
        loading: &Loading,
        accept_deadline: Duration,
    ) -> Option<Step> {
        match (handover.phase, &handover.to) {
            (RotationPhase::Detected, _) => Some(Step::Save),
            (RotationPhase::Woken, Some(to)) => self.woken(handover, to, accept_deadline),
            (RotationPhase::Seen, Some(to)) => self.seen(handover, to, loading),
            _ => Some(self.next(handover)),
        }
    }

    fn next(&self, handover: &Handover) -> Step {
        if let Some(to) = self.pick(Some(handover)) {
            return Step::Wake(to);
        }
        let (why, back_at) = self.why_nobody(&handover.tried);
        let owner = self.ring.owner.as_ref().and_then(|owner| self.standing(owner));
        match owner {
            Some(owner) if owner.exhausted.is_none() => Step::Stay { reason: why },
            _ => Step::Stop { why, back_at },
        }
    }

    fn woken(&self, handover: &Handover, to: &AgentName, deadline: Duration) -> Option<Step> {
        let standing = self.standing(to)?;
        if let Some(unfit) = &standing.unfit {
            return Some(self.pass_over(to, unfit.reason.clone()));
        }
        if standing.takes {
            return Some(Step::See);
        }
        let reason = if standing.is_there { "is there, but takes nothing" } else { "did not come" };
        self.is_over(handover)
            .then(|| self.pass_over(to, format!("{reason} within {} s", deadline.as_secs_f64())))
    }

    fn seen(&self, handover: &Handover, to: &AgentName, loading: &Loading) -> Option<Step> {
        if loading.pending > 0 {
            let many = loading.pending;
            return self
                .is_over(handover)
                .then(|| self.pass_over(to, format!("did not take {many} sessions in time")));
        }
        if loading.taken == 0
            && let Some(reason) = loading.refused.first()
        {
            return Some(self.pass_over(to, format!("took no session: {reason}")));
        }
        Some(if loading.has_more { Step::See } else { Step::Accept })
    }

    fn pass_over(&self, member: &AgentName, reason: String) -> Step {
        Step::PassOver { member: member.clone(), reason }
    }

    fn is_over(&self, handover: &Handover) -> bool {
        handover.until.is_none_or(|until| until <= self.now)
    }

    fn place(&self, agent: &AgentName) -> Option<usize> {
        self.ring.members.iter().position(|member| member.agent == *agent)
    }

    fn standing(&self, agent: &AgentName) -> Option<&Standing> {
        self.standings.get(self.place(agent)?)
    }

    /// The member that is asked next.
    fn pick(&self, handover: Option<&Handover>) -> Option<AgentName> {
        let members = &self.ring.members;
        let begin =
            self.ring.last.as_ref().and_then(|last| self.place(last)).map_or(0, |at| at + 1);
        let order = (0..members.len()).map(|step| (begin + step) % members.len());
        let fit = order.filter(|place| self.unfit(*place, handover).is_none());
        let found = match self.ring.pick {
            Pick::Next => fit.into_iter().next(),
            Pick::LeastUsed => {
                let used = |place: &usize| {
                    let level = self.standings.get(*place).map(|standing| standing.level);
                    (level, members[*place].owned)
                };
                fit.min_by_key(used)
            }
        };
        found.map(|place| members[place].agent.clone())
    }

    fn unfit(&self, place: usize, handover: Option<&Handover>) -> Option<Unfit> {
        let member = &self.ring.members[place];
        let of = |reason: &str| Some(Unfit { reason: reason.to_owned(), until: None });
        if self.ring.owner.as_ref() == Some(&member.agent) {
            return of("hands on");
        }
        if let Some(handover) = handover {
            if handover.only.as_ref().is_some_and(|only| *only != member.agent) {
                return of("was not asked for");
            }
            if handover.tried.contains(&member.agent) {
                return member.shut.clone().or_else(|| of("was asked"));
            }
        }
        // Somebody who asks for it does not wait for a pause to be over.
        let is_forced = handover.is_some_and(|it| it.trigger == RotationTrigger::Forced);
        let shut = member.shut.as_ref().filter(|_| !is_forced);
        let shut = shut.filter(|shut| shut.until.is_none_or(|until| until > self.now));
        let standing = self.standings.get(place)?;
        let away = || standing.keeps_away().and_then(|reason| of(&reason));
        shut.or(standing.unfit.as_ref()).cloned().or_else(away)
    }

    /// Why each member cannot, and when the first may.
    fn why_nobody(&self, tried: &[AgentName]) -> (String, Option<WallTime>) {
        let mut soonest: Option<WallTime> = None;
        let mut why = Vec::new();
        for (place, member) in self.ring.members.iter().enumerate() {
            let is_owner = self.ring.owner.as_ref() == Some(&member.agent);
            let standing = self.standings.get(place);
            let unfit = if is_owner {
                // Once it has stopped it pauses, as whoever hands on does.
                let exhausted = standing.and_then(|it| it.exhausted.as_ref());
                let reason = exhausted.map_or("hands on".to_owned(), |it| it.reason.clone());
                let until = Some(self.now.after(self.ring.pause));
                Some(Unfit { reason, until })
            } else if tried.contains(&member.agent) {
                member.shut.clone()
            } else {
                self.unfit(place, None)
            };
            let Some(unfit) = unfit else { continue };
            let until = unfit.until.filter(|until| *until > self.now);
            soonest = soonest.into_iter().chain(until).min();
            let until = until.map(|at| at.since(self.now).as_secs());
            let until = until.map_or(String::new(), |left| format!(" (for {left} s more)"));
            why.push(format!("{}: {}{until}", member.agent, unfit.reason));
        }
        (why.join("; "), soonest)
    }
}
