//! What broker time may be, and how long a lease must have run, by the machine's own clocks.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use broker_proto::WallTime;

use super::{Checked, must};
use crate::{core::queue::Seq, sim::broker::Machine};

/// A wall clock that is further ahead than this is not believed at once (I-23).
const STEP: i128 = 60_000;
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Clocks {
    machine: Arc<Mutex<Machine>>,
    /// How far the wall clock may be ahead of the boot-time clock and be believed, in milliseconds.
    believed: i128,
    /// Since when it is further ahead than that.
    jumped: Option<Duration>,
    started: Duration,
}

impl Clocks {
    pub(super) fn new(machine: Arc<Mutex<Machine>>) -> Self {
        let (jumped, started) = (None, Duration::ZERO);
        Self { machine, believed: i128::MIN, jumped, started }
    }

    fn boot(&self) -> Duration {
        self.machine.lock().unwrap().boot
    }

    fn ahead(&self) -> i128 {
        let machine = self.machine.lock().unwrap();
        i128::from(machine.wall) - machine.boot.as_millis() as i128
    }

    /// A jump while no broker runs cannot be seen.
    pub(super) fn started(&mut self) {
        self.started = self.boot();
        self.confirmed();
    }

    pub(super) fn set(&mut self) {
        self.wait();
        let ahead = self.ahead();
        if ahead - self.believed <= STEP {
            self.believed = self.believed.max(ahead);
            self.jumped = None;
        } else if self.jumped.is_none() {
            self.jumped = Some(self.boot());
        }
    }

    pub(super) fn confirmed(&mut self) {
        self.believed = self.believed.max(self.ahead());
        self.jumped = None;
    }

    /// Ten minutes are enough.
    fn wait(&mut self) {
        if self.jumped.is_some_and(|since| self.boot() >= since + PATIENCE) {
            self.confirmed();
        }
    }

    /// I-23: broker time is at most what may be believed by now.
    pub(super) fn is_read(&mut self, at: WallTime) -> Checked {
        self.wait();
        let most = self.believed + self.boot().as_millis() as i128;
        let beyond = i128::from(at.0) - most;
        must!(beyond <= 0, "I-23", "broker time is {beyond} ms beyond what may be believed");
        Ok(())
    }

    /// I-16: no timer cuts a lease short, and after a restart it runs again at full length.
    pub(super) fn lease_ended(
        &self,
        seq: Seq,
        since: WallTime,
        at: WallTime,
        length: Duration,
    ) -> Checked {
        let machine = self.machine.lock().unwrap();
        let (Some((began, _)), Some((_, ended))) =
            (machine.read.get(&since), machine.read.get(&at))
        else {
            return Ok(());
        };
        let ran = ended.saturating_sub((*began).max(self.started));
        must!(ran >= length, "I-16", "the lease on {seq:?} ran {ran:?} of {length:?}");
        Ok(())
    }
}
