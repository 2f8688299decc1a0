//! The outside world: senders and agents that use a broker over its socket, well and badly, and write down what they
//! meant, what they were told and what they saw.
//!
//! What they do follows from the seed; when they do it does not. They go on over restarts of the broker. What they
//! write is the only thing the judge reads: nothing here asks the broker what is true, only what its senders and
//! agents are told anyway.

mod agent;
mod chance;
mod conduct;
mod plan;
mod sender;

use std::time::Duration;

use broker_client::{Code, Error};
use broker_proto::{Message, Part, Priority, convert::Stored as _};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    sync::watch,
};
use tokio_util::task::TaskTracker;

use crate::history::Outcome;

pub use agent::AgentOptions;
pub use conduct::Conduct;
pub use plan::Plan;
pub use sender::SenderOptions;

/// What the harness has said so far, on standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Orders {
    Work,
    /// `quiet`: no new work; agents do all they get.
    Quiet,
    /// The end of standard input.
    Stop,
}

/// Reads orders from standard input.
#[must_use]
pub fn orders(tasks: &TaskTracker) -> watch::Receiver<Orders> {
    let (tx, rx) = watch::channel(Orders::Work);
    tasks.spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line.trim() == "quiet" {
                tx.send_replace(Orders::Quiet);
            }
        }
        tx.send_replace(Orders::Stop);
        // Whoever listens still must hear it.
        tx.closed().await;
    });
    rx
}

/// Sends and asks as its plan says, until it is told to be quiet; then learns what became of everything.
///
/// # Errors
/// When the history cannot be written.
pub async fn send(options: SenderOptions, orders: watch::Receiver<Orders>) -> anyhow::Result<()> {
    sender::run(options, orders).await
}

/// Takes deliveries and ends them in all ways, until it is told to stop.
///
/// # Errors
/// When the history cannot be written.
pub async fn work(options: AgentOptions, orders: watch::Receiver<Orders>) -> anyhow::Result<()> {
    agent::run(options, orders).await
}

/// A digest over what a message must keep on its way.
fn digest(message: &Message) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&message.payload.clone().encode());
    for (key, value) in &message.labels {
        hasher.update(key.as_bytes());
        hasher.update(&[0]);
        hasher.update(value.as_bytes());
        hasher.update(&[0]);
    }
    short(&hasher)
}

/// A digest of the texts of an answer.
fn reply_digest(parts: &[Part]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        if let Part::Text(text) = part {
            hasher.update(text.as_bytes());
        }
    }
    short(&hasher)
}

/// A name for a lease that is not its token.
fn lease_name(token: &str) -> String {
    short(blake3::Hasher::new().update(token.as_bytes()))
}

fn short(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..16].to_owned()
}

fn rank(priority: Priority) -> u8 {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
        Priority::Urgent => 3,
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What a call came to.
fn outcome<T>(result: Result<T, Error>) -> Outcome<T> {
    match result {
        Ok(value) => Outcome::Ok(value),
        Err(Error::Refused { code, reason, retry_after, .. }) => {
            Outcome::Refused { code: code_name(code), reason, retry_ms: retry_after.map(millis) }
        }
        Err(error) => Outcome::Unknown { why: error.to_string() },
    }
}

/// `ResourceExhausted` as `RESOURCE_EXHAUSTED`.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_the_contract_writes_them() {
        assert_eq!(code_name(Code::ResourceExhausted), "RESOURCE_EXHAUSTED");
        assert_eq!(code_name(Code::NotFound), "NOT_FOUND");
    }
}
