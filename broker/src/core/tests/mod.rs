//! The rules by their claims, one module per behaviour. `I-n` names an invariant of the delivery contract.

mod absent;
mod append;
mod asking;
mod bounds;
mod breaker;
mod budget;
mod chain;
mod dead;
mod expiry;
mod explain;
pub(super) mod given;
mod handoff;
mod histories;
mod lease;
mod letters;
mod link;
mod order;
mod producer;
mod publish;
mod pull;
mod restart;
mod rings;
mod settle;
mod shut;
mod task;
mod usage;
mod world;
