//! Records of rings.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;

use broker_proto::{
    AgentName, HandoffId, PackageId, Pick, RoleName, RotationPhase, RotationTrigger, SessionId,
    WallTime,
};

use super::usage::{HeardRecord, read_heard, write_heard, write_span as millis};
use crate::core::{
    Event,
    ring::{self, Handover, Member, Ring, Stopped, Unfit, What},
    usage::Signals,
};

pub(super) const CHANGED: u16 = 110;

/// Every kind that is about rings.
pub(super) const KINDS: [u16; 1] = [CHANGED];

#[derive(Clone, PartialEq, prost::Message)]
struct ChangedRecord {
    #[prost(uint64, tag = "1")]
    at: u64,
    #[prost(message, optional, tag = "2")]
    ring: Option<RingRecord>,
    #[prost(string, tag = "3")]
    what: String,
    #[prost(string, tag = "4")]
    member: String,
    #[prost(string, tag = "5")]
    reason: String,
    #[prost(string, repeated, tag = "6")]
    packages: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RingRecord {
    #[prost(string, tag = "1")]
    role: String,
    #[prost(bool, tag = "2")]
    is_on: bool,
    #[prost(string, tag = "3")]
    pick: String,
    #[prost(uint64, tag = "4")]
    pause_ms: u64,
    #[prost(message, repeated, tag = "5")]
    members: Vec<MemberRecord>,
    #[prost(string, optional, tag = "6")]
    owner: Option<String>,
    #[prost(string, optional, tag = "7")]
    last: Option<String>,
    #[prost(uint64, tag = "8")]
    epoch: u64,
    #[prost(uint64, tag = "9")]
    since: u64,
    #[prost(message, optional, tag = "10")]
    handover: Option<HandoverRecord>,
    #[prost(message, optional, tag = "11")]
    stopped: Option<StoppedRecord>,
    #[prost(message, repeated, tag = "12")]
    heard: Vec<HeardRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MemberRecord {
    #[prost(string, tag = "1")]
    agent: String,
    #[prost(message, optional, tag = "2")]
    shut: Option<UnfitRecord>,
    #[prost(uint64, tag = "3")]
    turns: u64,
    #[prost(uint64, tag = "4")]
    owned_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UnfitRecord {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(uint64, optional, tag = "2")]
    until: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StoppedRecord {
    #[prost(uint64, tag = "1")]
    since: u64,
    #[prost(string, tag = "2")]
    why: String,
    #[prost(uint64, optional, tag = "3")]
    back_at: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HandoverRecord {
    #[prost(string, tag = "1")]
    phase: String,
    #[prost(string, tag = "2")]
    trigger: String,
    #[prost(string, tag = "3")]
    reason: String,
    #[prost(bool, tag = "4")]
    is_gradual: bool,
    #[prost(string, optional, tag = "5")]
    from: Option<String>,
    #[prost(string, optional, tag = "6")]
    to: Option<String>,
    #[prost(string, optional, tag = "7")]
    only: Option<String>,
    #[prost(uint64, tag = "8")]
    begun_at: u64,
    #[prost(uint64, optional, tag = "9")]
    until: Option<u64>,
    #[prost(uint64, tag = "10")]
    tasks: u64,
    #[prost(uint64, tag = "11")]
    sessions: u64,
    #[prost(string, repeated, tag = "12")]
    handoffs: Vec<String>,
    #[prost(string, repeated, tag = "13")]
    tried: Vec<String>,
    #[prost(string, tag = "14")]
    behind: String,
    #[prost(uint64, tag = "15")]
    taken: u64,
}

pub(super) fn write(event: &ring::Event) -> (u16, Vec<u8>) {
    let mut record = ChangedRecord {
        at: event.at.0,
        ring: Some(write_ring(&event.ring)),
        ..ChangedRecord::default()
    };
    let what = match &event.what {
        What::Set => "set",
        What::Heard { reason } => {
            record.reason.clone_from(reason);
            "heard"
        }
        What::Detected => "detected",
        What::Saved => "saved",
        What::Woken => "woken",
        What::Seen => "seen",
        What::Accepted => "accepted",
        What::Resumed { packages } => {
            record.packages = packages.iter().map(ToString::to_string).collect();
            "resumed"
        }
        What::PassedOver { member, reason } => {
            (record.member, record.reason) = (member.to_string(), reason.clone());
            "passed_over"
        }
        What::Stayed { reason } => {
            record.reason.clone_from(reason);
            "stayed"
        }
        What::Stopped => "stopped",
    };
    record.what = what.to_owned();
    (CHANGED, record.encode_to_vec())
}

fn write_ring(ring: &Ring) -> RingRecord {
    let stopped = ring.stopped.as_ref().map(|it| StoppedRecord {
        since: it.since.0,
        why: it.why.clone(),
        back_at: it.back_at.map(|at| at.0),
    });
    let members = ring.members.iter().map(|it| MemberRecord {
        agent: it.agent.to_string(),
        shut: it.shut.as_ref().map(|shut| UnfitRecord {
            reason: shut.reason.clone(),
            until: shut.until.map(|at| at.0),
        }),
        turns: it.turns,
        owned_ms: millis(it.owned),
    });
    RingRecord {
        role: ring.role.to_string(),
        is_on: ring.is_on,
        pick: ring.pick.as_str().to_owned(),
        pause_ms: millis(ring.pause),
        members: members.collect(),
        owner: ring.owner.as_ref().map(ToString::to_string),
        last: ring.last.as_ref().map(ToString::to_string),
        epoch: ring.epoch,
        since: ring.since.0,
        handover: ring.handover.as_ref().map(write_handover),
        stopped,
        heard: ring.heard.heard.iter().map(write_heard).collect(),
    }
}

fn write_handover(handover: &Handover) -> HandoverRecord {
    HandoverRecord {
        phase: handover.phase.as_str().to_owned(),
        trigger: handover.trigger.as_str().to_owned(),
        reason: handover.reason.clone(),
        is_gradual: handover.is_gradual,
        from: handover.from.as_ref().map(ToString::to_string),
        to: handover.to.as_ref().map(ToString::to_string),
        only: handover.only.as_ref().map(ToString::to_string),
        begun_at: handover.begun_at.0,
        until: handover.until.map(|at| at.0),
        tasks: handover.tasks,
        sessions: handover.sessions,
        handoffs: handover.handoffs.iter().map(ToString::to_string).collect(),
        tried: handover.tried.iter().map(ToString::to_string).collect(),
        behind: handover.behind.as_ref().map(ToString::to_string).unwrap_or_default(),
        taken: handover.taken,
    }
}

/// The event of a record of one of [`KINDS`].
pub(super) fn read(body: Bytes) -> Option<Event> {
    let record = ChangedRecord::decode(body).ok()?;
    let packages = record.packages.iter().map(|id| PackageId::parse(id));
    let what = match record.what.as_str() {
        "set" => What::Set,
        "heard" => What::Heard { reason: record.reason },
        "detected" => What::Detected,
        "saved" => What::Saved,
        "woken" => What::Woken,
        "seen" => What::Seen,
        "accepted" => What::Accepted,
        "resumed" => What::Resumed { packages: packages.collect::<Option<_>>()? },
        "passed_over" => What::PassedOver { member: agent(&record.member)?, reason: record.reason },
        "stayed" => What::Stayed { reason: record.reason },
        "stopped" => What::Stopped,
        _ => return None,
    };
    let ring = read_ring(record.ring?)?;
    Some(Event::Ring(Box::new(ring::Event { at: WallTime(record.at), ring, what })))
}

fn read_ring(record: RingRecord) -> Option<Ring> {
    let member = |it: MemberRecord| {
        let shut = it.shut.map(|it| Unfit { reason: it.reason, until: it.until.map(WallTime) });
        let owned = Duration::from_millis(it.owned_ms);
        Some(Member { agent: agent(&it.agent)?, shut, turns: it.turns, owned })
    };
    Some(Ring {
        role: RoleName::parse(&record.role).ok()?,
        is_on: record.is_on,
        pick: Pick::parse(&record.pick)?,
        pause: Duration::from_millis(record.pause_ms),
        members: record.members.into_iter().map(member).collect::<Option<_>>()?,
        owner: optional(record.owner)?,
        last: optional(record.last)?,
        epoch: record.epoch,
        since: WallTime(record.since),
        handover: match record.handover {
            Some(handover) => Some(read_handover(handover)?),
            None => None,
        },
        stopped: record.stopped.map(|it| Stopped {
            since: WallTime(it.since),
            why: it.why,
            back_at: it.back_at.map(WallTime),
        }),
        heard: Signals { heard: record.heard.iter().map(read_heard).collect::<Option<_>>()? },
    })
}

fn read_handover(record: HandoverRecord) -> Option<Handover> {
    Some(Handover {
        phase: RotationPhase::parse(&record.phase)?,
        trigger: RotationTrigger::parse(&record.trigger)?,
        reason: record.reason,
        is_gradual: record.is_gradual,
        from: optional(record.from)?,
        to: optional(record.to)?,
        only: optional(record.only)?,
        begun_at: WallTime(record.begun_at),
        until: record.until.map(WallTime),
        tasks: record.tasks,
        sessions: record.sessions,
        handoffs: record.handoffs.iter().map(|id| HandoffId::parse(id)).collect::<Option<_>>()?,
        tried: record.tried.iter().map(|name| agent(name)).collect::<Option<_>>()?,
        behind: match record.behind.as_str() {
            "" => None,
            id => Some(SessionId::parse(id).ok()?),
        },
        taken: record.taken,
    })
}

fn agent(name: &str) -> Option<AgentName> {
    AgentName::parse(name).ok()
}

/// `None` for a name that is none.
fn optional(name: Option<String>) -> Option<Option<AgentName>> {
    match name {
        Some(name) => Some(Some(agent(&name)?)),
        None => Some(None),
    }
}

#[cfg(test)]
mod tests {
    use broker_proto::FailureClass;

    use super::*;
    use crate::core::usage::{Ended, Heard};

    fn name(text: &str) -> AgentName {
        AgentName::parse(text).unwrap()
    }

    fn ring() -> Ring {
        let shut = Some(Unfit { reason: "pauses".into(), until: Some(WallTime(9)) });
        let [a, b] = ["pc1", "pc2"].map(name);
        Ring {
            role: RoleName::parse("builder").unwrap(),
            is_on: true,
            pick: Pick::LeastUsed,
            pause: Duration::from_secs(300),
            members: vec![
                Member { shut, turns: 3, owned: Duration::from_secs(7), ..Member::new(a.clone()) },
                Member::new(b.clone()),
            ],
            owner: Some(a.clone()),
            last: Some(a.clone()),
            epoch: 4,
            since: WallTime(5),
            handover: Some(Handover {
                phase: RotationPhase::Woken,
                trigger: RotationTrigger::RateLimits,
                reason: "3 of 3".into(),
                is_gradual: true,
                from: Some(a.clone()),
                to: Some(b.clone()),
                only: Some(b),
                begun_at: WallTime(6),
                until: Some(WallTime(8)),
                tasks: 2,
                sessions: 1,
                handoffs: vec![HandoffId::from_parts(WallTime(6), 1)],
                behind: Some(SessionId::parse("s-64").unwrap()),
                taken: 60,
                tried: vec![a],
            }),
            stopped: Some(Stopped {
                since: WallTime(1),
                why: "nobody".into(),
                back_at: Some(WallTime(2)),
            }),
            heard: Signals {
                heard: [Heard {
                    at: WallTime(4),
                    ended: Ended::Failed(FailureClass::RateLimited),
                    latency: None,
                    first_token: Some(Duration::from_millis(5)),
                    message: None,
                }]
                .into(),
            },
        }
    }

    #[test]
    fn a_ring_reads_back_as_it_was_written() {
        let all = [
            What::Set,
            What::Heard { reason: "1 of 3 rate limits".into() },
            What::Detected,
            What::Saved,
            What::Woken,
            What::Seen,
            What::Accepted,
            What::Resumed { packages: vec![PackageId::from_u128(5)] },
            What::PassedOver { member: name("pc2"), reason: "did not come".into() },
            What::Stayed { reason: "nobody took it".into() },
            What::Stopped,
        ];
        for what in all {
            let event = ring::Event { at: WallTime(7), ring: ring(), what };
            let (kind, body) = write(&event);
            assert_eq!(kind, CHANGED);
            assert_eq!(read(body.into()), Some(Event::Ring(Box::new(event))));
        }
        let bare = Ring { owner: None, last: None, handover: None, stopped: None, ..ring() };
        let event = ring::Event { at: WallTime(7), ring: bare, what: What::Set };
        let (_, body) = write(&event);
        assert_eq!(read(body.into()), Some(Event::Ring(Box::new(event))));
        assert_eq!(read(Bytes::from_static(&[0xff])), None);
    }
}
