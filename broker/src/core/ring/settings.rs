//! What the rules of rings take from the configuration.

use std::{collections::BTreeSet, time::Duration};

use broker_proto::AgentName;

/// Settings of rings, as the configuration's manual describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long whoever handed on is not asked again, where a ring says nothing else.
    pub pause: Duration,
    /// How long an incoming member may take to be there and to take everything over.
    pub accept_deadline: Duration,
    /// How long nothing may be heard of an owner.
    pub silence: Duration,
    /// Members that something here can wake.
    pub woken: BTreeSet<AgentName>,
}

/// As shipped; a test compares it with the configuration.
impl Default for Settings {
    fn default() -> Self {
        Self {
            pause: Duration::from_secs(300),
            accept_deadline: Duration::from_secs(60),
            silence: Duration::from_secs(60),
            woken: BTreeSet::new(),
        }
    }
}
