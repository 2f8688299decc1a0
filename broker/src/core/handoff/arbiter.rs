//! The arbiter: where a session that is to move goes, or why it stays.

use broker_proto::{ModelName, TriggerKind, WallTime};

use super::{Hop, Settings};
use crate::core::usage::Level;

/// How often a session makes the same move within so many cool-downs: an hour, as shipped.
const LOOPS: usize = 3;
const LATELY: u32 = 12;

/// A model that a session might go to.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    pub model: ModelName,
    /// Tokens.
    pub window: u64,
    pub level: Level,
    /// When the limits that it has reached are over; `None`: it has reached none, or nobody knows.
    pub back_at: Option<WallTime>,
    /// Why routing does not call it, and until when; `None`: it does.
    pub shut: Option<(String, Option<WallTime>)>,
    /// Nobody serves it.
    pub is_absent: bool,
    /// Whoever serves it takes no sessions that are offered.
    pub is_deaf: bool,
    /// The local way out: taken when nobody better is there.
    pub is_degraded: bool,
}

/// A session that is to move.
#[derive(Debug)]
pub struct Case<'a> {
    pub settings: &'a Settings,
    pub kind: TriggerKind,
    pub owner: &'a ModelName,
    /// When the owner can go on; `None`: not known, or it can.
    pub owner_back_at: Option<WallTime>,
    /// In the order of preference, without the owner.
    pub candidates: &'a [Candidate],
    /// Tokens that the smallest useful package has.
    pub needs: u64,
    /// The session's moves, oldest first, and how many of them were automatic since somebody chose its owner.
    pub recent: &'a [Hop],
    pub hops: u32,
    /// Without regard to cool-down, hops and loops.
    pub is_forced: bool,
    pub now: WallTime,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub model: ModelName,
    pub reason: String,
    /// When that may be another.
    pub until: Option<WallTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Ask this one, then those.
    Offer { to: ModelName, then: Vec<ModelName> },
    /// As `Offer`, and nobody does it unless somebody asks.
    Recommend { to: ModelName, then: Vec<ModelName> },
    /// Nobody can take it before `until`.
    Stay { why: Vec<Unfit>, until: Option<WallTime> },
}

/// Decides one case.
#[must_use]
pub fn judge(case: &Case<'_>) -> Verdict {
    let mut why = Vec::new();
    let mut fit: Vec<&Candidate> = Vec::new();
    for candidate in case.candidates {
        match unfit(case, candidate) {
            Some(unfit) => why.push(unfit),
            None => fit.push(candidate),
        }
    }
    // The local model last, and before it those that come near a limit themselves.
    fit.sort_by_key(|candidate| (candidate.is_degraded, candidate.level >= Level::Critical));
    let mut models = fit.into_iter().map(|candidate| candidate.model.clone());
    let Some(to) = models.next() else {
        let soonest = why.iter().filter_map(|unfit| unfit.until).chain(case.owner_back_at).min();
        return Verdict::Stay { why, until: soonest };
    };
    let then = models.collect();
    let is_advice =
        matches!(case.kind, TriggerKind::ComplexityMismatch | TriggerKind::Optimisation);
    if is_advice && !case.settings.auto_switch && !case.is_forced {
        return Verdict::Recommend { to, then };
    }
    Verdict::Offer { to, then }
}

/// Why a window does not hold a package of so many tokens.
#[must_use]
pub fn too_small(window: u64, needs: u64, settings: &Settings) -> Option<String> {
    let room = window / 100 * u64::from(settings.room);
    (needs > room).then(|| format!("{needs} tokens do not fit the {room} it has room for"))
}

/// Until when a move that was made too often of late is not made again: `LOOPS` times within `LATELY` cool-downs.
pub fn loops_until<'a>(
    recent: impl IntoIterator<Item = &'a Hop>,
    is_same: impl Fn(&Hop) -> bool,
    settings: &Settings,
    now: WallTime,
) -> Option<WallTime> {
    let lately = settings.cooldown * LATELY;
    let over = recent.into_iter().filter(|hop| is_same(hop)).map(|hop| hop.at.after(lately));
    let mut over: Vec<WallTime> = over.filter(|at| *at > now).collect();
    over.sort_unstable();
    over.len().checked_sub(LOOPS).and_then(|first| over.get(first).copied())
}

/// Why a model cannot take the session.
fn unfit(case: &Case<'_>, candidate: &Candidate) -> Option<Unfit> {
    let settings = case.settings;
    let of = |reason: String, until| Some(Unfit { model: candidate.model.clone(), reason, until });
    if !settings.may_receive(&candidate.model) {
        return of("may not receive sessions (`brokerctl handoff models`)".into(), None);
    }
    if let Some(reason) = too_small(candidate.window, case.needs, settings) {
        return of(reason, None);
    }
    if candidate.is_absent {
        return of("no agent serves it".into(), None);
    }
    if let Some((reason, until)) = &candidate.shut {
        return of(reason.clone(), *until);
    }
    if case.is_forced {
        return None;
    }
    if candidate.level >= Level::Exhausted {
        return of("its own limit is reached".into(), candidate.back_at);
    }
    if case.kind == TriggerKind::UserRequest {
        return None;
    }
    if candidate.is_deaf {
        return of("its agents drain, or only pull: none takes a session".into(), None);
    }
    if case.hops >= settings.max_hops {
        let reason = format!("the session moved {} times by itself", case.hops);
        return of(reason, None);
    }
    let same = |hop: &&Hop| hop.from == *case.owner && hop.to == candidate.model;
    if let Some(last) = case.recent.iter().rev().find(same) {
        let until = last.at.after(settings.cooldown);
        if until > case.now {
            let reason = format!("it went from {} to it a short while ago", case.owner);
            return of(reason, Some(until));
        }
    }
    let same = |hop: &Hop| hop.from == *case.owner && hop.to == candidate.model;
    if let Some(until) = loops_until(case.recent, same, settings, case.now) {
        let reason = format!("it went from {} to it {LOOPS} times lately", case.owner);
        return of(reason, Some(until));
    }
    None
}
