//! Senders and people: what they say, and in which words.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;

use broker_proto::{
    AskOptions, Message, MessageId, MessageType, Numbered, Part, Payload, Priority, ProducerName,
    Recipient, RoleName, Sender, TaskSpec, WallTime, convert::Stored as _,
};

use super::{
    calls::Way,
    step::{Act, Number, Step, Want},
    witness::Key,
    world::{World, pick},
};
use crate::{
    app::rehearsal::{agent, model},
    core::{
        Accepted, Command, Letters, TaskStep, Which,
        queue::{Body, Digest, Seq},
    },
    journal::{ContentKey, Journal, memory::MemoryJournal},
};

pub(super) const SENDERS: [&str; 2] = ["app", "batch"];
const PRIORITIES: [Priority; 4] =
    [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

/// A message as its sender keeps it, to send it again.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) key: Key,
    /// The key under which its words were first said; another one only under a number that was used before.
    pub(super) said: Key,
    pub(super) message: Message,
    pub(super) options: Option<AskOptions>,
}

impl World {
    /// What senders and people say; says whether this is such a step.
    pub(super) fn say(&mut self, step: Step) -> bool {
        match step {
            Step::Send { sender, to, kind, priority, key, seconds, number } => {
                let sender = SENDERS[usize::from(sender)];
                self.write(sender, to, kind, PRIORITIES[usize::from(priority)], key);
                let wall = WallTime(self.machine.lock().unwrap().wall);
                let numbered = number.map(|number| self.numbered(sender, number));
                let offer = self.offers.last_mut().unwrap();
                offer.message.numbered = numbered;
                offer.message.expires_at =
                    seconds.map(|seconds| wall.after(Duration::from_secs(seconds.into())));
            }
            Step::Burst { to, count, order } => {
                for place in 0..u16::from(count) {
                    let turn = order.wrapping_mul(31).wrapping_add(place * 7) / 3;
                    let priority = PRIORITIES[usize::from(turn % 4)];
                    let key = u8::try_from(turn / 4 % 8).unwrap().saturating_sub(5);
                    let kind = u8::try_from(turn / 32 % 2).unwrap();
                    self.write(SENDERS[usize::from(turn % 2)], to, kind, priority, key);
                    let way = self.ways.pop().unwrap();
                    self.arrive(way, 1);
                }
            }
            Step::Ask { model, options } => self.ask(model, options),
            Step::Again { of, is_other } => {
                if let Some(offer) = pick(of, self.offers.len()) {
                    self.offer(offer, u8::from(is_other));
                }
            }
            Step::Renumbered { of, is_other } => self.renumber(of, is_other),
            Step::Cancel { of } => {
                if let Some(offer) = pick(of, self.offers.len()) {
                    let Offer { key, message, .. } = &self.offers[offer];
                    self.ways.push(Way::Cancel { sender: key.0, id: message.id });
                }
            }
            Step::Task { of, want } => {
                let tasks: Vec<Seq> = self.witness.tasks().collect();
                if let Some(at) = pick(of, tasks.len()) {
                    self.ways.push(Way::Task { seq: tasks[at], step: wish(want) });
                }
            }
            Step::Pause { to, is_paused } => {
                let queue = recipient(to);
                self.ways.push(Way::Pause(Command::Pause { queue, is_paused }));
            }
            Step::Letters { of, which, act } => self.operate(of, which, act),
            Step::Talk { of, talk } => self.talk(of, talk),
            Step::Count => self.ways.push(Way::Count(None)),
            Step::Asker { of, is_back } => {
                if let Some(seq) = pick(of, self.asked.len()).map(|at| self.asked[at]) {
                    self.ways.push(Way::Asker { seq, is_back });
                }
            }
            _ => return false,
        }
        true
    }

    fn write(&mut self, sender: &'static str, to: u8, kind: u8, priority: Priority, key: u8) {
        let to = recipient(to);
        let kind = match (&to, kind) {
            (Recipient::AgentsOf(_), _) => MessageType::Status,
            (Recipient::Model(_), _) | (_, 2) => MessageType::Delegation,
            (_, 1) => MessageType::Handoff,
            _ => MessageType::Status,
        };
        let ordering_key = (key > 0).then(|| format!("key {key}"));
        let message = Message::new(MessageId::from_u128(0), to, kind, Payload::default());
        self.new_offer(sender, Message { priority, ordering_key, ..message }, None);
    }

    fn ask(&mut self, asked: u8, options: u8) {
        let asked = ["opus", "sonnet", "gpt-4o"][usize::from(asked)];
        let mut message =
            Message::consultation(MessageId::from_u128(0), model(asked), Payload::default());
        // Half of them are turns of a session, whoever owns it.
        let talks = self.witness.talks.alive();
        let talk = pick(options.into(), talks.len()).filter(|_| options & 128 == 0);
        message.session = talk.map(|at| talks[at].to_string());
        let options = AskOptions {
            no_fallback: options & 3 == 0,
            allow_restart: options & 4 == 0,
            keep: options & 8 == 0,
            return_window: (options & 16 == 0).then(|| Duration::from_secs(options.into())),
            deadline: (options & 96 == 0).then(|| Duration::from_secs(40)),
            ..AskOptions::default()
        };
        self.new_offer("app", message, Some(options));
    }

    fn new_offer(&mut self, sender: &'static str, message: Message, options: Option<AskOptions>) {
        // Ids of one sender mostly rise, and sometimes do not. Another sender uses the same ones.
        let count = self.offers.iter().filter(|offer| offer.key.0 == sender).count() as u128;
        let number = 1_000 + count * 10 - if count.is_multiple_of(3) { 25 } else { 0 };
        let key = (sender, number);
        let message = Message { id: MessageId::from_u128(number), ..message };
        self.offers.push(Offer { key, said: key, message, options });
        self.offer(self.offers.len() - 1, 0);
    }

    pub(super) fn offer(&mut self, offer: usize, variant: u8) {
        self.ways.push(Way::Send { offer, variant });
    }

    fn numbered(&self, sender: &'static str, number: Number) -> Numbered {
        let numbers = self.offers.iter().filter(|offer| offer.key.0 == sender);
        let numbers = numbers.filter_map(|offer| offer.message.numbered.as_ref());
        let highest = numbers.map(|numbered| numbered.number).max().unwrap_or(0);
        let number = match number {
            Number::Ahead(by) => highest + u64::from(by).max(1),
            Number::Back(by) => highest.saturating_sub(by.into()).max(1),
        };
        Numbered { producer: ProducerName::parse("bulk").unwrap(), number }
    }

    fn renumber(&mut self, of: u16, is_other: bool) {
        let is_numbered = |(_, offer): &(usize, &Offer)| offer.message.numbered.is_some();
        let numbered: Vec<usize> =
            self.offers.iter().enumerate().filter(is_numbered).map(|(at, _)| at).collect();
        let Some(at) = pick(of, numbered.len()).map(|at| numbered[at]) else { return };
        let Offer { key, said, message, options } = self.offers[at].clone();
        self.new_offer(key.0, message, options);
        self.offers.last_mut().unwrap().said = said;
        let Some(Way::Send { variant, .. }) = self.ways.last_mut() else { return };
        *variant = u8::from(is_other);
    }

    pub(super) fn operate(&mut self, of: u16, which: u8, act: Act) {
        let dead: Vec<(Key, Recipient)> = self.witness.dead().collect();
        let picked = pick(of, dead.len()).map(|at| dead[at].clone());
        let which = match (which, picked) {
            (0, _) => Which::All,
            (1, Some((_, to))) => Which::To(to),
            (_, Some((key, _))) => {
                Which::Named(vec![(Sender::parse(key.0).unwrap(), MessageId::from_u128(key.1))])
            }
            (_, None) => return,
        };
        let letters = Letters { which, after: Seq(0), is_dry_run: act == Act::Try };
        let command = match act {
            Act::Purge => Command::Purge(letters),
            Act::Redrive | Act::Try => Command::Redrive(letters),
        };
        self.ways.push(Way::Operate(act, command));
    }
}

/// Who is written to, by the number in a step.
pub(super) fn recipient(number: u8) -> Recipient {
    match number {
        0 => Recipient::Agent(agent("reviewer")),
        1 => Recipient::Agent(agent("pool")),
        2 => Recipient::Agent(agent("puller")),
        3 => Recipient::Role(RoleName::parse("ring").unwrap()),
        4 => Recipient::Model(model("opus")),
        5 => Recipient::Agent(agent("nobody")),
        _ => Recipient::AgentsOf(model("opus")),
    }
}

pub(super) fn wish(want: Want) -> TaskStep {
    match want {
        Want::Suspend => TaskStep::Suspend,
        Want::Resume => TaskStep::Resume,
        Want::Cancel => TaskStep::Cancel,
        Want::Answer { input, is_other } => TaskStep::Provide {
            id: MessageId::from_u128(500_000 + u128::from(input)),
            digest: Digest([u8::from(is_other); 32]),
            answer: Body::default(),
            has_images: false,
            question: 0,
        },
    }
}

pub(super) fn text(key: Key, variant: u8) -> String {
    format!("{} {} {variant}", key.0, key.1)
}

/// Puts the words where the kind of message has them.
pub(super) fn say(message: &mut Message, text: String) {
    if message.kind == MessageType::Delegation {
        let task = TaskSpec { description: text, ..TaskSpec::default() };
        message.payload.task = Some(Box::new(task));
    } else {
        message.payload.request = vec![Part::text(text)];
    }
}

/// Whose words a stored message holds, by its own bytes, and which variant of them.
pub(super) fn said_in(journal: &MemoryJournal, accepted: &Accepted) -> Option<(Key, u8)> {
    let mut bytes = BytesMut::new();
    for key in &*accepted.body.keys {
        let piece = journal.get(ContentKey::from_bytes(&key.0)?).now_or_never()?.ok()?;
        bytes.extend_from_slice(&piece);
    }
    let message = Message::decode(Bytes::from(bytes)).ok()?;
    let text = match (message.payload.task, message.payload.request.first()) {
        (Some(task), _) => task.description,
        (None, Some(Part::Text(text))) => text.clone(),
        (None, _) => return None,
    };
    let mut words = text.split(' ');
    let sender = words.next()?;
    let sender = SENDERS.into_iter().find(|known| *known == sender)?;
    let (number, variant) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (accepted.sender.as_str() == sender).then_some(((sender, number), variant))
}
