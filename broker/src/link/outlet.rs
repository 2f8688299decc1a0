//! Carries the engine's effects to links and reply slots.

use tracing::{info, warn};

use broker_proto::Down;

use super::{LeaseKey, Links, Out};
use crate::{
    core::{Command, Effect},
    engine::Outlet,
    reply::Slots,
    service::reason,
};

/// The engine's hands.
#[derive(Debug)]
pub struct LinkOutlet {
    links: Links,
    slots: Slots,
    leases: LeaseKey,
}

impl LinkOutlet {
    #[must_use]
    pub fn new(links: Links, slots: Slots, leases: LeaseKey) -> Self {
        Self { links, slots, leases }
    }
}

impl Outlet for LinkOutlet {
    fn carry_out(&mut self, effect: Effect) -> Option<Command> {
        match effect {
            Effect::Opened { seq, id, receipt, .. } => self.slots.open(seq, id).accepted(receipt),
            Effect::AttemptBegins { seq, id, routed, .. } => {
                self.slots.open(seq, id).begin(*routed);
            }
            Effect::Deliver(delivered) => {
                self.links.send(delivered.link, Out::Deliver(delivered));
            }
            Effect::Cancel { agent, seq, epoch, reason, .. } => {
                let lease = self.leases.token(seq, epoch);
                self.links.send_to(&agent, &Down::Cancel { lease, reason });
            }
            Effect::Revoke { agent, seq, epoch, id, reason } => {
                info!(message = %id, %agent, %reason, "lease lost");
                let lease = self.leases.token(seq, epoch);
                self.links.send_to(&agent, &Down::Revoke { lease, reason });
            }
            Effect::Seal { seq, id, epoch, .. } => {
                let shown = self.slots.open(seq, id).seal(epoch);
                return Some(Command::Sealed { seq, epoch, shown });
            }
            Effect::Closed { seq, id, terminal, .. } => self.slots.close(seq, id, *terminal),
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
        self.links.close_all(&reason::reloading());
        self.slots.attended().into_iter().map(|seq| Command::AskerBack { seq }).collect()
    }
}
