//! The broker: durable queues between model agents, routing, and streamed consultations.
//!
//! Absence: nothing here opens a connection to a provider.

mod app;
pub mod context;
pub mod core;
pub mod engine;
pub mod handoffs;
pub mod intake;
pub mod journal;
pub mod link;
pub mod packages;
mod planted;
pub mod projection;
pub mod reply;
pub mod rings;
pub mod service;
pub mod session;
#[cfg(test)]
mod sim;
mod sweep;

pub use app::{Checked, Error, Store, check, listen, policy_of, run};
