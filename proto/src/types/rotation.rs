//! Rotation: a ring of agents of one role, of which one works at a time.

use std::time::Duration;

use super::{AgentName, RoleName, WallTime, handoff::words};

words! {
    /// Who is asked first when the owner hands on.
    Pick {
        /// The next one behind it.
        Next = "next",
        /// The one that is furthest from a limit, among those the one that has worked least.
        LeastUsed = "least-used",
    }
}

words! {
    /// Why the owner of a ring hands on.
    RotationTrigger {
        /// So many rate limits within the window.
        RateLimits = "rate_limits",
        SlowReplies = "slow_replies",
        ErrorRate = "error_rate",
        /// Every model that it serves has reached a limit.
        Limit = "usage_limit",
        /// Nothing is heard of it.
        Silent = "silent",
        /// It is given nothing new.
        Drained = "drained",
        /// Somebody asked for it.
        Forced = "forced",
        /// Nobody worked before.
        Begins = "begins",
    }
}

words! {
    /// How far a handover is. The sixth phase, resumed, is its end.
    RotationPhase {
        /// The outgoing one cannot go on, or is not to.
        Detected = "detected",
        /// What moves is written down.
        Saved = "saved",
        /// The incoming one has been woken.
        Woken = "woken",
        /// It is there, and is offered the sessions of the outgoing one.
        Seen = "seen",
        /// It is the owner, and has not worked yet.
        Loaded = "loaded",
    }
}

words! {
    /// What a ring does.
    RotationState {
        Off = "off",
        /// Its owner works.
        Running = "running",
        /// Its owner hands on.
        HandingOver = "handing_over",
        /// Nobody can work: it goes on by itself when a member can.
        Stopped = "stopped",
    }
}

/// A ring as somebody wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetRotation {
    pub role: RoleName,
    /// In their order; empty: those it has.
    pub members: Vec<AgentName>,
    pub pick: Option<Pick>,
    /// How long whoever handed on is not asked again.
    pub pause: Option<Duration>,
    /// Off: every member takes from the role's queue, as without a ring.
    pub is_on: bool,
}

/// A handover that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForceRotation {
    pub role: RoleName,
    /// `None`: whoever is picked.
    pub to: Option<AgentName>,
    /// Empty: somebody asked.
    pub reason: String,
}

/// A ring as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    pub role: RoleName,
    pub state: RotationState,
    pub pick: Pick,
    pub pause: Duration,
    pub accept_deadline: Duration,
    /// The one that works; `None` while the ring is off or stopped.
    pub owner: Option<AgentName>,
    /// Owners so far.
    pub epoch: u64,
    /// Since when it has this owner, or none.
    pub since: Option<WallTime>,
    pub handover: Option<RotationHandover>,
    /// Why it is stopped, by member; empty while it is not.
    pub stopped: String,
    /// When the first may come back, as far as that is known.
    pub back_at: Option<WallTime>,
    pub members: Vec<RotationMember>,
    /// Messages of the role's queue: waiting, and with an agent.
    pub queued: u64,
    pub leased: u64,
    /// Broker time.
    pub at: WallTime,
}

/// A ring on its way to another owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationHandover {
    pub phase: RotationPhase,
    pub trigger: RotationTrigger,
    pub reason: String,
    pub from: Option<AgentName>,
    pub to: Option<AgentName>,
    pub begun_at: WallTime,
    /// Until when the incoming one may take it.
    pub until: Option<WallTime>,
    /// What there is to take over.
    pub tasks: u64,
    pub sessions: u64,
}

/// One member of a ring.
#[derive(Debug, Clone, PartialEq)]
pub struct RotationMember {
    pub agent: AgentName,
    pub is_owner: bool,
    pub is_connected: bool,
    /// HEALTHY, WARNING, CRITICAL or EXHAUSTED.
    pub status: String,
    /// Why it is not asked, or why its status is not HEALTHY; empty where all is well.
    pub reason: String,
    /// When that may be another.
    pub until: Option<WallTime>,
    pub rate_limit_count: u32,
    /// 0 to 1.
    pub error_rate: f64,
    pub avg_response_time: Option<Duration>,
    /// Who stands behind it in the ring.
    pub next: AgentName,
    /// How often it became the owner, and how long it was.
    pub turns: u64,
    pub owned: Duration,
    /// What wakes it when it is not there: `hook` or `standby`; empty: nothing.
    pub woken_by: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for phase in RotationPhase::ALL {
            assert_eq!(RotationPhase::parse(phase.as_str()), Some(*phase));
        }
        for trigger in RotationTrigger::ALL {
            assert_eq!(RotationTrigger::parse(trigger.as_str()), Some(*trigger));
        }
        assert_eq!(Pick::parse("least-used"), Some(Pick::LeastUsed));
        assert_eq!(RotationState::parse("idle"), None);
    }
}
