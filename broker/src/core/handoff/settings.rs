//! What the rules of handoffs take from the configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broker_proto::{ModelName, Preservation};

/// Settings of handoffs, as the configuration's manual describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Limits of models move their sessions, and a session at its own limit moves with its next turn.
    pub auto: bool,
    /// A session moves the moment its own limit is reached, and what is only recommended is carried out.
    pub auto_switch: bool,
    pub preserve: Preservation,
    /// The models that may receive a session; `None`: all.
    pub receivers: Option<BTreeSet<ModelName>>,
    /// How long a package may take to be made.
    pub build_deadline: Duration,
    /// How long a receiver may take to answer an offer.
    pub offer_deadline: Duration,
    /// How long work of the old owner is waited for, once a receiver has accepted.
    pub settle_wait: Duration,
    /// How long a new owner without a connected agent keeps a session.
    pub complete_deadline: Duration,
    /// How long the same move of one session is not made again.
    pub cooldown: Duration,
    /// Automatic moves of one session, one after the other, before it stays where it is.
    pub max_hops: u32,
    /// Percent of the receiver's window that a complete package may take.
    pub room: u8,
    /// How often a session with new turns gets a saved package; `None`: not by the clock.
    pub checkpoint_every: Option<Duration>,
    /// Percent at which a model's limits, and the windows of its sessions, count as reached. Only set at run time.
    pub limits: BTreeMap<ModelName, u8>,
}

/// As shipped; a test compares it with the configuration.
impl Default for Settings {
    fn default() -> Self {
        Self {
            auto: true,
            auto_switch: false,
            preserve: Preservation::Complete,
            receivers: None,
            build_deadline: Duration::from_secs(30),
            offer_deadline: Duration::from_secs(10),
            settle_wait: Duration::from_secs(30),
            complete_deadline: Duration::from_secs(120),
            cooldown: Duration::from_secs(300),
            max_hops: 8,
            room: 50,
            checkpoint_every: None,
            limits: BTreeMap::new(),
        }
    }
}

impl Settings {
    #[must_use]
    pub fn may_receive(&self, model: &ModelName) -> bool {
        self.receivers.as_ref().is_none_or(|names| names.contains(model))
    }
}
