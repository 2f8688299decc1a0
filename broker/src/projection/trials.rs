//! The chain of errors of a message, from what happened to it (I-25).

use broker_proto::{AgentName, FailureClass, Trial, WallTime};

use crate::core::Event;

/// The delivery that is out while events are read.
struct Out {
    number: u32,
    agent: AgentName,
    since: WallTime,
}

/// Every delivery that did not end well, oldest first, and how many deliveries there were.
pub(super) fn trials<'a>(life: impl IntoIterator<Item = &'a Event>) -> (Vec<Trial>, u32) {
    let mut trials: Vec<Trial> = Vec::new();
    let (mut generation, mut deliveries) = (1, 0);
    let mut out: Option<Out> = None;
    for event in life {
        let trial = match event {
            Event::Leased { epoch, agent, at, .. } => {
                deliveries += 1;
                out = Some(Out { number: *epoch, agent: agent.clone(), since: *at });
                continue;
            }
            Event::Redriven { generation: next, .. } => {
                generation = *next;
                continue;
            }
            Event::LeaseLost { epoch, why, at, .. } => Trial {
                generation,
                number: *epoch,
                agent: None,
                model: None,
                began_at: None,
                ended_at: *at,
                class: FailureClass::AgentLost,
                detail: why.clone(),
            },
            Event::DeliveryFailed { epoch, failure, at, .. } => Trial {
                generation,
                number: *epoch,
                agent: None,
                model: None,
                began_at: None,
                ended_at: *at,
                class: failure.class,
                detail: failure.detail.clone(),
            },
            Event::AttemptFailed { attempt, at, .. } => {
                // The same end, told with its model once the stream of a lost attempt was closed.
                if let Some(last) = trials.last_mut().filter(|last| last.number == attempt.number) {
                    last.model = Some(attempt.model.clone());
                    continue;
                }
                let failure = attempt.failure.as_ref();
                Trial {
                    generation,
                    number: attempt.number,
                    agent: attempt.agent.clone(),
                    model: Some(attempt.model.clone()),
                    began_at: None,
                    ended_at: *at,
                    class: failure.map_or(FailureClass::Internal, |failure| failure.class),
                    detail: failure.map(|failure| failure.detail.clone()).unwrap_or_default(),
                }
            }
            _ => continue,
        };
        let began = out.take_if(|out| out.number == trial.number);
        trials.push(match began {
            Some(Out { agent, since, .. }) => {
                Trial { agent: Some(agent), began_at: Some(since), ..trial }
            }
            None => trial,
        });
    }
    (trials, deliveries)
}

#[cfg(test)]
mod tests {
    use broker_proto::{Attempt, Failure, MessageId, ModelName, Usage};

    use crate::core::{Subject, queue::Seq};

    use super::*;

    fn subject() -> Subject {
        Subject { seq: Seq(1), id: MessageId::from_u128(1) }
    }

    fn leased(epoch: u32, agent: &str) -> Event {
        let agent = AgentName::parse(agent).unwrap();
        let at = WallTime(u64::from(epoch) * 100);
        Event::Leased { subject: subject(), at, epoch, agent, instance: "i".into(), pulled: None }
    }

    fn attempt(number: u32, class: FailureClass) -> Event {
        let attempt = Box::new(Attempt {
            number,
            model: ModelName::parse("opus").unwrap(),
            agent: None,
            failure: Some(Failure::new(class, "provider", "")),
            latency: std::time::Duration::ZERO,
            wait: std::time::Duration::ZERO,
            first_token: None,
            usage: Usage::default(),
            cost_usd: None,
        });
        let at = WallTime(u64::from(number) * 100 + 50);
        Event::AttemptFailed { subject: subject(), at, attempt, shown: false }
    }

    /// I-25: each with its agent, its time and its class, and each once.
    #[test]
    fn every_lost_lease_and_failed_delivery_is_in_the_chain() {
        let at = WallTime(150);
        let lost = Event::LeaseLost {
            subject: subject(),
            at,
            epoch: 1,
            why: "silent".into(),
            counts: true,
        };
        let failure = Box::new(Failure::new(FailureClass::Overloaded, "agent", "busy"));
        let agent = AgentName::parse("c").unwrap();
        let failed = Event::DeliveryFailed { subject: subject(), at, epoch: 3, agent, failure };
        let redriven = Event::Redriven { subject: subject(), at, deadline: at, generation: 2 };
        let life = [
            leased(1, "a"),
            lost,
            attempt(1, FailureClass::AgentLost),
            leased(2, "b"),
            attempt(2, FailureClass::Timeout),
            redriven,
            leased(3, "c"),
            failed,
        ];

        let (trials, deliveries) = trials(&life);

        let brief = trials.iter().map(|trial| {
            let agent = trial.agent.as_ref().unwrap().to_string();
            (trial.generation, trial.number, agent, trial.began_at.unwrap().0, trial.class)
        });
        assert_eq!(
            brief.collect::<Vec<_>>(),
            [
                (1, 1, "a".into(), 100, FailureClass::AgentLost),
                (1, 2, "b".into(), 200, FailureClass::Timeout),
                (2, 3, "c".into(), 300, FailureClass::Overloaded),
            ]
        );
        assert_eq!((trials[0].detail.as_str(), deliveries), ("silent", 3));
    }
}
