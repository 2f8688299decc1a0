//! `message.proto`: queues and dead letters.

use super::{
    InvalidField,
    common::{optional_agent, optional_model, text_of, time},
    required,
};
use crate::{
    Counters, DeadLetter, FailureClass, LettersHandled, MessageName, QueueInfo, Recipient, Trial,
    pb,
};

impl From<pb::Counters> for Counters {
    fn from(wire: pb::Counters) -> Self {
        Self {
            accepted: wire.accepted,
            queued: wire.queued,
            waiting: wire.waiting,
            leased: wire.leased,
            done: wire.done,
            failed: wire.failed,
            cancelled: wire.cancelled,
            expired: wire.expired,
            dead: wire.dead,
            purged: wire.purged,
        }
    }
}

impl From<Counters> for pb::Counters {
    fn from(counters: Counters) -> Self {
        Self {
            accepted: counters.accepted,
            queued: counters.queued,
            waiting: counters.waiting,
            leased: counters.leased,
            done: counters.done,
            failed: counters.failed,
            cancelled: counters.cancelled,
            expired: counters.expired,
            dead: counters.dead,
            purged: counters.purged,
        }
    }
}

impl TryFrom<pb::QueueInfo> for QueueInfo {
    type Error = InvalidField;

    fn try_from(wire: pb::QueueInfo) -> Result<Self, InvalidField> {
        Ok(Self {
            queue: Recipient::parse(&wire.queue)
                .map_err(|invalid| InvalidField::new("queue.queue", invalid.to_string()))?,
            is_paused: wire.paused,
            is_degraded: wire.degraded,
            reason: wire.reason,
            ready: wire.ready,
            leased: wire.leased,
            size_bytes: wire.size_bytes,
            links: wire.links,
            dead_bytes: wire.dead_size_bytes,
            parked: wire.parked,
            counters: required(wire.counters, "queue.counters")?.into(),
        })
    }
}

impl From<QueueInfo> for pb::QueueInfo {
    fn from(info: QueueInfo) -> Self {
        Self {
            queue: info.queue.to_string(),
            paused: info.is_paused,
            degraded: info.is_degraded,
            reason: info.reason,
            ready: info.ready,
            leased: info.leased,
            size_bytes: info.size_bytes,
            links: info.links,
            dead_size_bytes: info.dead_bytes,
            parked: info.parked,
            counters: Some(info.counters.into()),
        }
    }
}

impl TryFrom<pb::Trial> for Trial {
    type Error = InvalidField;

    fn try_from(wire: pb::Trial) -> Result<Self, InvalidField> {
        Ok(Self {
            generation: wire.generation,
            number: wire.number,
            agent: optional_agent(&wire.agent, "trial.agent")?,
            model: optional_model(&wire.model, "trial.model")?,
            began_at: time(wire.began_at, "trial.began_at")?,
            ended_at: required(time(wire.ended_at, "trial.ended_at")?, "trial.ended_at")?,
            class: required(FailureClass::from_wire(wire.class), "trial.class")?,
            detail: wire.detail,
        })
    }
}

impl From<Trial> for pb::Trial {
    fn from(trial: Trial) -> Self {
        Self {
            generation: trial.generation,
            number: trial.number,
            agent: text_of(trial.agent),
            model: text_of(trial.model),
            began_at: trial.began_at.map(Into::into),
            ended_at: Some(trial.ended_at.into()),
            class: trial.class.to_wire(),
            detail: trial.detail,
        }
    }
}

impl TryFrom<pb::DeadLetter> for DeadLetter {
    type Error = InvalidField;

    fn try_from(wire: pb::DeadLetter) -> Result<Self, InvalidField> {
        Ok(Self {
            info: required(wire.message, "letter.message")?.try_into()?,
            deliveries: wire.deliveries,
            trials: wire.trials.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<DeadLetter> for pb::DeadLetter {
    fn from(letter: DeadLetter) -> Self {
        Self {
            message: Some(letter.info.into()),
            deliveries: letter.deliveries,
            trials: letter.trials.into_iter().map(Into::into).collect(),
        }
    }
}

fn skipped(wire: pb::SkippedLetter) -> Result<(MessageName, String), InvalidField> {
    let name = MessageName::parse(&wire.message_id)
        .ok_or_else(|| InvalidField::new("skipped.message_id", "is no message's name"))?;
    Ok((name, wire.reason))
}

impl TryFrom<pb::RedriveDeadLettersResponse> for LettersHandled {
    type Error = InvalidField;

    fn try_from(wire: pb::RedriveDeadLettersResponse) -> Result<Self, InvalidField> {
        let skipped = wire.skipped.into_iter().map(skipped).collect::<Result<_, _>>()?;
        Ok(Self { done: wire.redriven, skipped })
    }
}

impl From<LettersHandled> for pb::RedriveDeadLettersResponse {
    fn from(handled: LettersHandled) -> Self {
        let skipped = handled
            .skipped
            .into_iter()
            .map(|(name, reason)| pb::SkippedLetter { message_id: name.to_string(), reason });
        Self { redriven: handled.done, skipped: skipped.collect() }
    }
}
