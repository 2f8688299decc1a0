//! What is on its way to a broker, and what comes back.

use std::{pin::Pin, time::Duration};

use broker_proto::{Counters, MessageId, Receipt, Recipient, Sender};

use super::{
    agent::Token,
    broker::poll,
    callers::{Offer, say, text},
    links::settlement,
    step::Act,
    witness::{Answer, Checked, Try, must},
    world::World,
};
use crate::{
    app::rehearsal::agent,
    core::{Command, Query, Reply, TaskStep, agent::LinkId, handoff, queue::Seq, session},
    engine::{self, EngineHandle},
    intake,
};

/// Something on its way to the broker.
#[derive(Debug)]
pub(super) enum Way {
    Send { offer: usize, variant: u8 },
    Cancel { sender: &'static str, id: MessageId },
    Task { seq: Seq, step: TaskStep },
    Operate(Act, Command),
    Pause(Command),
    Count(Option<Recipient>),
    Settle { agent: &'static str, token: Token, how: u8 },
    Renew { agent: &'static str, leases: Vec<(Seq, u32)> },
    Extend { agent: &'static str, token: Token, seconds: u8 },
    Credit { link: LinkId, messages: u32 },
    Asker { seq: Seq, is_back: bool },
    Talk { append: Option<usize>, command: session::Command },
    Move(handoff::Command),
}

/// What a call came back with.
pub(super) enum Heard {
    Sent(Try, Answer<Receipt>),
    Settled { seq: Seq, epoch: u32, again: bool, answer: Answer<()> },
    Tasked { seq: Seq, step: TaskStep, answer: Answer<()> },
    Operated(Act),
    Counted(Answer<Counters>),
    Talked { append: Option<usize>, answer: Answer<()> },
    Greeted,
    Other,
}

pub(super) type Calling = Pin<Box<dyn Future<Output = Heard>>>;

pub(super) struct Call {
    pub(super) broker: u64,
    what: String,
    /// What it is when the broker is gone before it answers.
    pub(super) unheard: Option<Try>,
    pub(super) act: Option<Act>,
    future: Calling,
}

impl World {
    /// Something reaches a broker: the owner, or now and then one that was.
    pub(super) fn arrive(&mut self, way: Way, order: u16) {
        let last = self.brokers.len() - 1;
        let at = if order.is_multiple_of(3) { usize::from(order) % (last + 1) } else { last };
        let what = format!("{way:?}");
        let broker = &self.brokers[at];
        let (engine, projection) = (broker.handle.clone(), broker.projection.clone());
        let (mut unheard, mut operates) = (None, None);
        let future: Calling = match way {
            Way::Send { offer, variant } => {
                let Offer { key, said, mut message, options } = self.offers[offer].clone();
                say(&mut message, text(said, variant));
                let number = message.numbered.as_ref().map(|numbered| numbered.number);
                let (intake, sender) = (broker.intake.clone(), Sender::parse(key.0).unwrap());
                let it = Try { key, said, variant, number };
                self.witness.offered(&it);
                unheard = Some(it.clone());
                Box::pin(async move {
                    let answer = match options {
                        Some(options) => intake.consult(&sender, message, options).await,
                        None => intake.send(&sender, message, true).await,
                    };
                    Heard::Sent(it, of_intake(answer))
                })
            }
            Way::Settle { agent: name, token, how } => {
                let command = settlement(name, token, how, self.machine.lock().unwrap().wall);
                let Token { seq, epoch, .. } = token;
                let again = self.witness.was_settled(seq, epoch);
                Box::pin(async move {
                    let answer = match of_engine(engine.command(command).await) {
                        // As the link does: settled so long ago that only the projection knows.
                        Answer::Refused(why) if why == "LeaseLost" => {
                            match projection.ended(seq, engine.head()).await {
                                Ok(Some(ended)) if ended == epoch => Answer::Ok(()),
                                Ok(_) => Answer::Refused(why),
                                Err(_) => Answer::Unknown,
                            }
                        }
                        other => other.map(|_| ()),
                    };
                    Heard::Settled { seq, epoch, again, answer }
                })
            }
            Way::Task { seq, step } => Box::pin(async move {
                let command = Command::Task { seq, step: step.clone() };
                let answer = of_engine(engine.command(command).await).map(|_| ());
                Heard::Tasked { seq, step, answer }
            }),
            Way::Operate(act, command) => {
                self.witness.operates(act);
                operates = Some(act);
                Box::pin(async move {
                    let _ = engine.command(command).await;
                    Heard::Operated(act)
                })
            }
            Way::Talk { append, command } => Box::pin(async move {
                let command = Command::Session(Box::new(command));
                let answer = of_engine(engine.command(command).await).map(|_| ());
                Heard::Talked { append, answer }
            }),
            Way::Move(command) => other(engine, Command::Handoff(Box::new(command))),
            Way::Pause(command) => other(engine, command),
            Way::Count(of) => Box::pin(async move {
                Heard::Counted(match of_engine(engine.query(Query::Counters(of)).await) {
                    Answer::Ok(Reply::Counters(counters)) => Answer::Ok(counters),
                    _ => Answer::Unknown,
                })
            }),
            Way::Cancel { sender, id } => {
                let sender = Sender::parse(sender).unwrap();
                other(engine, Command::Cancel { sender, id })
            }
            Way::Renew { agent: name, leases } => {
                other(engine, Command::Renew { agent: agent(name), leases })
            }
            Way::Extend { agent: name, token, seconds } => {
                let Token { seq, epoch, .. } = token;
                let by = Duration::from_secs(seconds.into());
                other(engine, Command::Extend { agent: agent(name), seq, epoch, by })
            }
            Way::Credit { link, messages } => {
                if self.links.get(&link) != Some(&broker.number) {
                    return;
                }
                let bytes = u64::from(messages) * self.bytes_per_credit;
                self.witness.granted(link, messages.into(), bytes);
                other(engine, Command::Credit { link, messages, size_bytes: bytes })
            }
            Way::Asker { seq, is_back } => {
                broker.attend(seq, is_back);
                let command =
                    if is_back { Command::AskerBack { seq } } else { Command::AskerLeft { seq } };
                other(engine, command)
            }
        };
        self.call(at, what, future);
        let call = self.calls.last_mut().unwrap();
        (call.unheard, call.act) = (unheard, operates);
    }

    pub(super) fn call(&mut self, at: usize, what: String, future: Calling) {
        let broker = self.brokers[at].number;
        self.note(format!("      arrives at {broker}: {what}"));
        self.calls.push(Call { broker, what, unheard: None, act: None, future });
    }

    pub(super) fn hear(&mut self) -> Checked {
        let mut at = 0;
        while at < self.calls.len() {
            let Some(heard) = poll(self.calls[at].future.as_mut()) else {
                at += 1;
                continue;
            };
            let call = self.calls.remove(at);
            let broker = self.brokers.iter().find(|it| it.number == call.broker);
            let has_failed = broker.is_some_and(|it| it.has_failed);
            // Who is no longer the owner, and has not noticed, knows only what was before.
            let is_owner = self.brokers.last().is_some_and(|it| it.number == call.broker);
            let rest = &call.what;
            let said = match &heard {
                Heard::Sent(_, answer) => Some((answer.brief(), answer.is_ok())),
                Heard::Settled { answer, .. }
                | Heard::Tasked { answer, .. }
                | Heard::Talked { answer, .. } => Some((answer.brief(), answer.is_ok())),
                Heard::Operated(_) | Heard::Counted(_) | Heard::Greeted | Heard::Other => None,
            };
            if let Some((brief, is_ok)) = said {
                self.trace.push(format!("      {rest}: {brief}"));
                must!(!(has_failed && is_ok), "I-31", "{rest} is OK after the journal failed");
            }
            match heard {
                Heard::Sent(it, answer) => self.witness.sent(&it, &answer)?,
                Heard::Settled { seq, epoch, again, answer } => {
                    self.witness.settled(seq, epoch, again && is_owner, &answer)?;
                }
                Heard::Tasked { seq, step, answer } => self.witness.tasked(seq, &step, &answer)?,
                Heard::Talked { append: Some(append), answer: Answer::Ok(()) } => {
                    self.witness.talks.is_kept(append)?;
                }
                Heard::Operated(act) => self.witness.operated(act),
                Heard::Counted(Answer::Ok(counters)) => {
                    must!(counters.is_balanced(), "I-33", "{counters:?} do not add up");
                }
                Heard::Counted(_) | Heard::Talked { .. } | Heard::Greeted | Heard::Other => {}
            }
        }
        Ok(())
    }
}

pub(super) fn other(engine: EngineHandle, command: Command) -> Calling {
    Box::pin(async move {
        let _ = engine.command(command).await;
        Heard::Other
    })
}

fn of_engine(answer: Result<Reply, engine::Error>) -> Answer<Reply> {
    match answer {
        Ok(reply) => Answer::Ok(reply),
        Err(engine::Error::Refused(refusal)) => Answer::Refused(name(&refusal)),
        Err(error @ (engine::Error::StoreFull | engine::Error::StoreUnavailable)) => {
            Answer::Refused(name(&error))
        }
        Err(_) => Answer::Unknown,
    }
}

fn of_intake(answer: Result<Receipt, intake::Error>) -> Answer<Receipt> {
    match answer {
        Ok(receipt) => Answer::Ok(receipt),
        Err(intake::Error::Engine(error)) => match of_engine(Err(error)) {
            Answer::Refused(why) => Answer::Refused(why),
            Answer::Ok(_) | Answer::Unknown => Answer::Unknown,
        },
        Err(intake::Error::Content(_) | intake::Error::Lookup(_)) => Answer::Unknown,
        Err(refused) => Answer::Refused(name(&refused)),
    }
}

/// The variant alone.
fn name(refusal: &impl std::fmt::Debug) -> String {
    let whole = format!("{refusal:?}");
    whole.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
