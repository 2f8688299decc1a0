//! Carries the engine's effects to links and reply slots.

use tokio::sync::mpsc;
use tracing::{info, warn};

use broker_proto::{Down, Handoff, ModelName, Part, Payload, Wake, convert::Stored as _};

use super::{LeaseKey, Links, Out};
use crate::{
    core::{
        Command, Effect,
        queue::{Body, BodyKey},
        ring::Call,
        usage::Near,
    },
    engine::{Content, Outlet, Returned},
    planted::{self, Bug},
    reply::{LONGEST_PARTIAL, Slot, Slots},
    service::reason,
};

/// The engine's hands.
#[derive(Debug)]
pub struct LinkOutlet {
    links: Links,
    slots: Slots,
    leases: LeaseKey,
    /// For whoever makes packages ahead of time.
    near: mpsc::Sender<Near>,
    /// For whoever makes the packages of handoffs.
    builds: mpsc::Sender<Box<Handoff>>,
    probes: mpsc::Sender<ModelName>,
    /// For whoever wakes the members of rings.
    wakes: mpsc::Sender<Box<Call>>,
}

impl LinkOutlet {
    #[must_use]
    pub fn new(
        links: Links,
        slots: Slots,
        leases: LeaseKey,
        near: mpsc::Sender<Near>,
        builds: mpsc::Sender<Box<Handoff>>,
        probes: mpsc::Sender<ModelName>,
        wakes: mpsc::Sender<Box<Call>>,
    ) -> Self {
        Self { links, slots, leases, near, builds, probes, wakes }
    }
}

/// What a lost attempt has shown. A long one is only on its asker's screen.
fn arrived(slot: &Slot) -> Option<(Body, Content)> {
    const LONGEST: u64 = 64 * 1024;
    stored(slot.arrived()).filter(|(body, _)| body.size_bytes <= LONGEST)
}

/// The first parts of these that are kept of a suspended delivery; a text is cut where it must be.
fn first_of(parts: Vec<Part>) -> Vec<Part> {
    let (mut room, mut first) = (LONGEST_PARTIAL, Vec::new());
    for part in parts {
        let size = part.inline_bytes();
        match part {
            part if size <= room => first.push(part),
            Part::Text(mut text) => {
                let most = usize::try_from(room).unwrap_or(usize::MAX);
                text.truncate((0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
                first.push(Part::Text(text));
                break;
            }
            _ => break,
        }
        room -= size;
    }
    first
}

/// What has arrived of an attempt, as a body for its end.
fn stored(response: Vec<Part>) -> Option<(Body, Content)> {
    let bytes = Payload { response, ..Payload::default() }.encode();
    let size_bytes = bytes.len() as u64;
    let content = Content::new(bytes).ok()?;
    let keys = BodyKey(content.key().to_bytes()).into();
    Some((Body { keys, size_bytes }, content))
}

impl Outlet for LinkOutlet {
    fn carry_out(&mut self, effect: Effect) -> Option<Returned> {
        match effect {
            Effect::Opened { seq, id, sender, receipt } => {
                self.slots.begin(seq, &sender, id).accepted(receipt);
            }
            Effect::AttemptBegins { seq, id, sender, routed } => {
                self.slots.open(seq, &sender, id).begin(*routed);
            }
            Effect::Deliver(delivered) => {
                if planted::is(Bug::DeliveredTwice) {
                    self.links.send(delivered.link, Out::Deliver(delivered.clone()));
                }
                self.links.send(delivered.link, Out::Deliver(delivered));
            }
            Effect::Cancel { agent, instance, seq, epoch, reason, .. } => {
                self.slots.end_work(seq, epoch);
                let lease = self.leases.token(seq, epoch);
                self.links.send_to(&agent, &instance, &Down::Cancel { lease, reason });
            }
            Effect::Revoke { agent, instance, seq, epoch, id, reason } => {
                info!(message = %id, %agent, %reason, "lease lost");
                self.slots.end_work(seq, epoch);
                let lease = self.leases.token(seq, epoch);
                self.links.send_to(&agent, &instance, &Down::Revoke { lease, reason });
            }
            Effect::Seal { seq, id, sender, epoch } => {
                let slot = self.slots.open(seq, &sender, id);
                let shown = slot.seal(epoch);
                let (partial, content) = shown.then(|| arrived(&slot)).flatten().unzip();
                let command = Command::Sealed { seq, epoch, shown, partial };
                return Some(Returned { command, content });
            }
            Effect::Stop { seq, epoch } => {
                let slot = self.slots.get(seq).or_else(|| self.slots.work(seq));
                let slot = slot.filter(|slot| slot.is_of(epoch));
                let shown = slot.as_ref().is_some_and(|slot| slot.seal(epoch));
                let said = slot.map(|slot| first_of(slot.arrived())).unwrap_or_default();
                let said = Some(said).filter(|parts| !parts.is_empty());
                let (partial, content) = said.and_then(stored).unzip();
                let command = Command::Sealed { seq, epoch, shown, partial };
                return Some(Returned { command, content });
            }
            Effect::Closed { seq, id, sender, terminal } => {
                self.slots.close(seq, &sender, id, *terminal);
            }
            Effect::Prepare(near) => {
                if self.near.try_send(near).is_err() {
                    // Whoever takes from a full queue looks at all that is owed.
                    info!("many limits come near at once: a package is made later");
                }
            }
            Effect::Build(handoff) => {
                if self.builds.try_send(handoff).is_err() {
                    warn!("too many handoffs begin at once: one waits until its time is over");
                }
            }
            Effect::Probe(model) => {
                if self.probes.try_send(model).is_err() {
                    info!("many models are to be probed at once: one is asked later");
                }
            }
            Effect::Warm { links, model, tokens } => {
                for link in links {
                    let warm = Down::Warm { model: model.clone(), tokens };
                    self.links.send(link, Out::Frame(Box::new(warm)));
                }
            }
            Effect::Offer { links, offer } => {
                for link in links {
                    self.links.send(link, Out::Frame(Box::new(Down::Offer((*offer).clone()))));
                }
            }
            Effect::Wake(call) => {
                info!(role = %call.role, to = %call.to, "a member of a ring is woken");
                if self.wakes.try_send(call).is_err() {
                    warn!(
                        "too many members are woken at once: one is passed over when its time is over"
                    );
                }
            }
            Effect::WakeOver { links, call } => {
                info!(role = %call.role, to = %call.to, "whoever stands by for a ring's member is told");
                let Call { role, from, reason, at, .. } = *call;
                let wake = Down::Wake(Wake { role, from, reason, at });
                for link in links {
                    self.links.send(link, Out::Frame(Box::new(wake.clone())));
                }
            }
            Effect::Supersede { link } => self.links.close(link, reason::superseded()),
            Effect::ModelChanged { model, is_available, reason } => {
                if is_available {
                    info!(%model, "model is back");
                } else {
                    warn!(%model, %reason, "model is not called");
                }
                let level = if is_available { "HEALTHY" } else { "EXHAUSTED" };
                let level = level.to_owned();
                self.links.send_all(&Down::Level { model, level, reason });
            }
        }
        None
    }

    fn reset(&mut self) -> Vec<Command> {
        let links = self.links.len();
        let wait = |link| self.leases.reconnect_after(link, links);
        self.links.close_each(|link| reason::reloading(wait(link)));
        self.slots.attended().into_iter().map(|seq| Command::AskerBack { seq }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_partial_result_the_beginning_is_kept() {
        let text = |bytes: usize| Part::text("ä".repeat(bytes / 2));
        let (all, more) = (LONGEST_PARTIAL as usize, 100);
        assert_eq!(first_of(vec![text(all)]), [text(all)]);
        assert_eq!(first_of(vec![text(more), text(all)]), [text(more), text(all - more)]);
        let odd = first_of(vec![Part::text("a"), text(all)]);
        assert_eq!(odd, [Part::text("a"), text(all - 2)], "no character is cut in two");
        assert!(stored(vec![text(all)]).is_some());
    }
}
