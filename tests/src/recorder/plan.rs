//! What senders do: a step for every number, the same for the same seed.

use std::time::Duration;

use broker_proto::{
    AgentName, AskOptions, Message, MessageId, MessageType, ModelName, Part, Payload, Priority,
    Recipient, WallTime,
};

use super::chance::Chance;
use crate::history::wall_ms;

/// When ids begin: far from now, so that nothing takes an id for a time.
const IDS_FROM_MS: u64 = 1_750_000_000_000;
/// Ids of neighbouring steps are out of order by this much, so that an order by id is not the order of sending.
const ID_JITTER_MS: u64 = 500;

/// What the senders of a run do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Plan {
    /// Everything: mail and questions of all sizes and priorities, again, otherwise, with expiries, cancelled.
    Mixed,
    /// Mail without expiries and cancels, as fast as it goes.
    Flood,
    /// The same number of turns for all four priorities, sent before anybody takes them.
    Backlog,
    /// Questions whose answers are read as they come.
    Asking,
    /// Mail that nobody takes before it expires.
    Expiring,
    /// Mail that its sender hands over as strict work: later ones of a key wait for earlier ones.
    Strict,
}

/// One step of a sender.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Mail(Box<Message>),
    /// A question whose answer is read as it comes.
    Ask(Box<Message>, AskOptions),
    /// A question whose answer is looked up at the end.
    Submit(Box<Message>, AskOptions),
    /// What an earlier step sent, again.
    Again {
        of: u64,
    },
    /// Something else under the id of an earlier step.
    Otherwise {
        of: u64,
    },
    Cancel {
        of: u64,
    },
}

/// Whom there is to send to.
#[derive(Debug, Clone)]
pub(super) struct Recipients {
    pub(super) mailboxes: Vec<AgentName>,
    pub(super) models: Vec<ModelName>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Mail,
    Ask,
    Submit,
    Again,
    Otherwise,
    Cancel,
}

impl Plan {
    /// Senders at work at once.
    pub(super) fn senders(self) -> u64 {
        match self {
            Self::Mixed | Self::Asking => 6,
            Self::Flood => 64,
            Self::Backlog | Self::Expiring | Self::Strict => 4,
        }
    }

    /// Steps of one sender; without a bound it goes on until it is told to be quiet.
    pub(super) fn steps(self) -> u64 {
        match self {
            Self::Mixed | Self::Flood | Self::Asking => u64::MAX,
            // Six times 1 + 2 + 4 + 8, so that shares of 8:4:2:1 use all up together.
            Self::Backlog => 90,
            Self::Strict => 40,
            Self::Expiring => 10,
        }
    }

    /// How long a sender rests before this step.
    pub(super) fn rest(self, chance: &mut Chance) -> Duration {
        match self {
            Self::Mixed | Self::Asking => Duration::from_millis(chance.between(4, 24)),
            Self::Strict => Duration::from_millis(chance.between(1, 4)),
            Self::Flood | Self::Backlog | Self::Expiring => Duration::ZERO,
        }
    }

    /// The step of this number.
    pub(super) fn step(self, seed: u64, sender: u64, number: u64, to: &Recipients) -> Step {
        let mut chance = Chance::new(seed, &["step", &sender.to_string(), &number.to_string()]);
        let kind = match self {
            Self::Mixed => chance.weighted(&[
                (52, Kind::Mail),
                (14, Kind::Ask),
                (14, Kind::Submit),
                (8, Kind::Again),
                (5, Kind::Otherwise),
                (7, Kind::Cancel),
            ]),
            Self::Asking => chance.weighted(&[(9, Kind::Ask), (1, Kind::Cancel)]),
            Self::Flood | Self::Backlog | Self::Expiring | Self::Strict => Kind::Mail,
        };
        let earlier = |chance: &mut Chance| {
            let back = chance.between(1, 40);
            number.saturating_sub(back)
        };
        match kind {
            _ if number == 0 => Step::Mail(Box::new(self.mail(seed, sender, number, to))),
            Kind::Mail => Step::Mail(Box::new(self.mail(seed, sender, number, to))),
            Kind::Ask => {
                let options =
                    AskOptions { allow_restart: chance.percent(50), ..AskOptions::default() };
                Step::Ask(Box::new(question(seed, sender, number, to)), options)
            }
            Kind::Submit => {
                let options = AskOptions { keep: true, ..AskOptions::default() };
                Step::Submit(Box::new(question(seed, sender, number, to)), options)
            }
            Kind::Again => Step::Again { of: earlier(&mut chance) },
            Kind::Otherwise => Step::Otherwise { of: earlier(&mut chance) },
            Kind::Cancel => Step::Cancel { of: earlier(&mut chance) },
        }
    }

    fn mail(self, seed: u64, sender: u64, number: u64, to: &Recipients) -> Message {
        let mut chance = Chance::new(seed, &["mail", &sender.to_string(), &number.to_string()]);
        let place = usize::try_from(chance.next() % to.mailboxes.len().max(1) as u64).unwrap_or(0);
        let mailbox = Recipient::Agent(to.mailboxes[place].clone());
        let kind = match self {
            Self::Strict => MessageType::Handoff,
            Self::Mixed | Self::Flood | Self::Backlog | Self::Expiring | Self::Asking => {
                MessageType::Status
            }
        };
        let id = id(&mut chance, number);
        let mut message = Message::new(id, mailbox, kind, payload(&mut chance, number));
        message.priority = match self {
            // The least urgent first, so that the order of sending is not that of the shares.
            Self::Backlog => match number {
                0..6 => Priority::Low,
                6..18 => Priority::Normal,
                18..42 => Priority::High,
                _ => Priority::Urgent,
            },
            _ => chance.weighted(&[
                (1, Priority::Low),
                (4, Priority::Normal),
                (2, Priority::High),
                (1, Priority::Urgent),
            ]),
        };
        if self != Self::Backlog && (self == Self::Strict || chance.percent(50)) {
            message.ordering_key = Some(format!("key-{}", chance.between(0, 2)));
        }
        if self == Self::Mixed && chance.percent(8) {
            let lives = chance.between(300, 2_500);
            message.expires_at = Some(WallTime(wall_ms() + lives));
        }
        if self == Self::Expiring {
            // Far enough that the sends themselves are not refused.
            message.expires_at = Some(WallTime(wall_ms() + 600));
        }
        message
    }
}

fn question(seed: u64, sender: u64, number: u64, to: &Recipients) -> Message {
    let mut chance = Chance::new(seed, &["question", &sender.to_string(), &number.to_string()]);
    let place = usize::try_from(chance.next() % to.models.len().max(1) as u64).unwrap_or(0);
    let id = id(&mut chance, number);
    Message::consultation(id, to.models[place].clone(), payload(&mut chance, number))
}

fn id(chance: &mut Chance, number: u64) -> MessageId {
    let at = IDS_FROM_MS + number * 10 + chance.between(0, ID_JITTER_MS);
    let random = (u128::from(chance.next()) << 64) | u128::from(chance.next());
    MessageId::from_parts(WallTime(at), random)
}

/// Mostly small; some of several parts that together are larger than a frame's usual size.
fn payload(chance: &mut Chance, number: u64) -> Payload {
    let (parts, bytes) = match chance.between(0, 99) {
        0..=69 => (1, chance.between(20, 400)),
        70..=95 => (1, chance.between(1_000, 8_000)),
        _ => (3, chance.between(20_000, 50_000)),
    };
    let request = (0..parts).map(|part| Part::text(text(chance, number, part, bytes))).collect();
    Payload { request, ..Payload::default() }
}

fn text(chance: &mut Chance, number: u64, part: u64, bytes: u64) -> String {
    let mut text = format!("step {number}, part {part}:");
    while (text.len() as u64) < bytes {
        text.push_str(&format!(" {:016x}", chance.next()));
    }
    text
}

/// The same message with other words in it.
pub(super) fn otherwise(mut message: Message) -> Message {
    message.payload.request.push(Part::text("and something else"));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipients() -> Recipients {
        let mailboxes = ["a", "b"].map(|name| AgentName::parse(name).unwrap()).to_vec();
        Recipients { mailboxes, models: vec![ModelName::parse("opus").unwrap()] }
    }

    #[test]
    fn steps_follow_from_the_seed() {
        let steps = |seed| {
            let step = |number| match Plan::Mixed.step(seed, 1, number, &recipients()) {
                Step::Mail(message) | Step::Ask(message, _) | Step::Submit(message, _) => {
                    format!("{} {}", message.id, super::super::digest(&message))
                }
                other => format!("{other:?}"),
            };
            (0..200).map(step).collect::<Vec<_>>()
        };
        assert_eq!(steps(1), steps(1));
        assert_ne!(steps(1), steps(2));
    }

    #[test]
    fn no_two_steps_share_an_id() {
        let ids: Vec<_> = (0..4)
            .flat_map(|sender| (0..500).map(move |number| (sender, number)))
            .filter_map(|(sender, number)| {
                match Plan::Mixed.step(3, sender, number, &recipients()) {
                    Step::Mail(message) | Step::Ask(message, _) | Step::Submit(message, _) => {
                        Some(message.id)
                    }
                    _ => None,
                }
            })
            .collect();
        let mut unique = ids.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), ids.len());
    }
}
