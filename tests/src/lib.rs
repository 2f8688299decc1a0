//! The house seen from the street: the broker, its agents and its command line, in this process or as real ones.
//!
//! [`TestBroker`] is a broker in this process, [`TestDaemon`] a `brokerd` that can be killed, [`TestHouse`] all that
//! `brokerctl up --simulated` starts. [`ScriptedAgent`] answers as a test wants, [`RawLink`] speaks an agent's wire
//! frame by frame, [`Reader`] reads an answer, [`Control`] drives the simulator.
//!
//! [`recorder`] is the outside world of a run: senders and agents that write a [`history`]; [`checker`] reads only that
//! and says which promises of the broker were broken.
//!
//! Invariant: every wait has an end, and none is for a time: each is for the value that the test needs.
//! Invariant: nothing outlives its test, whether that passes or not.

#![expect(clippy::expect_used, reason = "a failed set-up is a failed test, said with its reason")]

pub mod checker;
pub mod history;
pub mod recorder;

mod agent;
mod answer;
mod broker;
mod control;
mod daemon;
mod house;
mod link;
mod process;
mod question;
mod terminal;
mod wait;

pub use agent::{Plan, ScriptedAgent, Work};
pub use answer::Reader;
pub use broker::{Place, TestBroker};
pub use control::Control;
pub use daemon::TestDaemon;
pub use house::TestHouse;
pub use link::{RawLink, channel, done, hello, reason_of, upload_chunk};
pub use process::{
    ANY_DISK, Output, Program, Running, brokerctl, descendants, program, repository, signal,
};
pub use question::{MODELS, new_id, question, text_payload};
pub use terminal::Terminal;
pub use wait::{PATIENCE, eventually, within};
