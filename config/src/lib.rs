//! Every setting of the broker's binaries, parsed and checked once.
//!
//! Layers, each over the one before: the shipped files (compiled in), what `brokerctl up` adds, the
//! user's own file, the given file, `BROKER_` variables, flags. One struct per component; the doc comment of a field is its
//! manual. Everything is checked here, so what a [`Config`] holds can be used without looking again.
//!
//! Invariant: no text from any layer makes this crate panic.
//! Invariant: an error names where it is and what would be right, never a value that may be a secret.
//! Invariant: this crate reads no environment and no clock; it reads only the files it is given.

mod broker;
mod budget;
mod contradiction;
mod entry;
mod error;
mod handoff;
mod layer;
mod links;
mod loader;
mod model;
mod models;
mod nearest;
mod packages;
mod paths;
mod rotation;
mod routing;
mod rule;
mod section;
mod sessions;
mod size;
mod up;
mod wake;

#[cfg(test)]
mod tests;

pub use broker::{Broker, Limits, Runtime};
pub use budget::{Budget, BudgetScope, BudgetUnit, BudgetWindow};
pub use error::{Error, Place, Problem};
pub use handoff::{Handoff, Preserve};
pub use links::{Links, Streams};
pub use loader::{Loader, is_setting};
pub use model::{Model, Prices, Provider};
pub use models::{Models, Unknown};
pub use nearest::nearest;
pub use packages::Packages;
pub use paths::{Endpoint, PathError, Paths, user_file};
pub use rotation::Rotation;
pub use routing::{Routing, Thresholds};
pub use sessions::Sessions;
pub use size::{format_size, parse_size};
pub use up::{Simulator, Up};
pub use wake::Wake;

use crate::section::Section;

/// The shipped `broker.toml`: the compiled defaults, with a word on each key.
pub const BROKER_TOML: &str = include_str!("../broker.toml");
/// The shipped `agents.toml`: the models.
pub const AGENTS_TOML: &str = include_str!("../agents.toml");
/// What `brokerctl up` adds.
pub const LOCAL_TOML: &str = include_str!("../local.toml");
/// What `brokerctl up --simulated` adds.
pub const SIMULATED_TOML: &str = include_str!("../simulated.toml");

/// Every setting of `brokerd`, `broker-agent` and `brokerctl`.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[broker]`: the store, the socket, queues and messages.
    pub broker: Broker,
    /// `[links]`: agents' streams and their leases.
    pub links: Links,
    /// `[streams]`: the answer streams of those who ask.
    pub streams: Streams,
    /// `[routing]`: retries, chains, breakers, probes.
    pub routing: Routing,
    /// `[thresholds]`: when usage becomes a level.
    pub thresholds: Thresholds,
    /// `[limits]`: what one connection may take.
    pub limits: Limits,
    /// `[packages]`: what work is packed into to go on elsewhere.
    pub packages: Packages,
    /// `[sessions]`: how conversations are rendered.
    pub sessions: Sessions,
    /// `[handoff]`: sessions that move to another model.
    pub handoff: Handoff,
    /// `[rotation]`: rings of agents of one role.
    pub rotation: Rotation,
    /// `[up]`: how `brokerctl up` keeps its children running.
    pub up: Up,
    /// `[simulator]`: the pace of `provider-sim`.
    pub simulator: Simulator,
    /// `[[models]]`: the models and their chains.
    pub models: Models,
    /// `[[budgets]]`: what may be used within a window.
    pub budgets: Vec<Budget>,
    /// `[[wakes]]`: how the members of rings are woken from here.
    pub wakes: Vec<Wake>,
}

impl Config {
    /// The shipped configuration alone: `broker.toml` and `agents.toml`.
    ///
    /// # Errors
    /// Never as released: a test loads the shipped files.
    pub fn shipped() -> Result<Self, Error> {
        Loader::new().load()
    }

    /// This configuration as one file that loads back to an equal one, over any of the shipped layers.
    ///
    /// It holds no secret, as nothing in a configuration does. A path that is not UTF-8 is written
    /// with replacement characters: no layer can give such a path.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::from("# The configuration in force, every layer applied.\n");
        for section in self.sections() {
            text.push_str(&format!("\n[{}]\n", section.name()));
            section.write_into(&mut text);
        }
        for model in self.models.iter() {
            text.push_str("\n[[models]]\n");
            model.write_into(&mut text);
        }
        for budget in &self.budgets {
            budget.write_toml(&mut text);
        }
        for wake in &self.wakes {
            wake.write_toml(&mut text);
        }
        text
    }

    fn sections(&self) -> [&dyn Section; 12] {
        [
            &self.broker,
            &self.links,
            &self.streams,
            &self.routing,
            &self.thresholds,
            &self.limits,
            &self.packages,
            &self.sessions,
            &self.handoff,
            &self.rotation,
            &self.up,
            &self.simulator,
        ]
    }

    fn sections_mut(&mut self) -> [&mut dyn Section; 12] {
        [
            &mut self.broker,
            &mut self.links,
            &mut self.streams,
            &mut self.routing,
            &mut self.thresholds,
            &mut self.limits,
            &mut self.packages,
            &mut self.sessions,
            &mut self.handoff,
            &mut self.rotation,
            &mut self.up,
            &mut self.simulator,
        ]
    }
}
