//! A complete agent: it serves the queue of one model and answers every question by saying it back, word by word.
//!
//! Any process can join a broker like this. On the machine where the broker runs:
//!
//! ```sh
//! export BROKER_AGENT_TOKEN="$(brokerctl token create parrot)"
//! cargo run --example agent -- parrot MODEL
//! brokerctl consult --model MODEL --question "who is there?"
//! ```
//!
//! `MODEL` is a model of the broker's configuration. The link is kept by the library: it greets, heartbeats,
//! connects again after a loss, and says again what the broker may have missed. What is left is the work.

use std::{env, error::Error, time::Duration};

use broker_client::{
    Endpoint,
    link::{Agent, AgentOptions, Job, Report, SettleError},
};
use broker_proto::{AgentName, ModelName, Part, Provenance, SettleOutcome, StopReason, Usage};
use tokio_util::task::TaskTracker;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let name = AgentName::parse(&args.next().ok_or("usage: agent NAME MODEL")?)?;
    let model = ModelName::parse(&args.next().ok_or("usage: agent NAME MODEL")?)?;
    // The token proves the name. It comes by the environment, never as an argument: arguments are public.
    let token = env::var("BROKER_AGENT_TOKEN")?.into();
    let endpoint = Endpoint::discover(|variable| env::var_os(variable))?;

    // Two questions at once; the broker sends no more than that.
    let options =
        AgentOptions { capacity: 2, ..AgentOptions::new(endpoint, name, token, vec![model]) };
    let mut agent = Agent::start(options);

    let jobs = TaskTracker::new();
    loop {
        tokio::select! {
            // `None` once the link has ended for good: a refused token, or a newer process under this name.
            job = agent.next() => match job {
                Some(job) => {
                    jobs.spawn(work(job));
                }
                None => break,
            },
            _ = tokio::signal::ctrl_c() => {
                // Takes nothing new and lets the running jobs settle; then the broker knows that it left.
                agent.drain(Duration::from_secs(10)).await;
                break;
            }
        }
    }
    jobs.close();
    jobs.wait().await;
    eprintln!("the link has ended: {:?}", agent.ended());
    Ok(())
}

/// Answers one delivery. It may come twice if this process dies, so whatever it does must bear that.
async fn work(job: Job) {
    // Fires when the asker cancels or the lease is lost: then stop, and only say what the work took.
    let cancelled = job.cancelled();
    let Some(answer) = cancelled.run_until_cancelled(say_back(&job)).await else {
        return job.abandon(Report::default()).await;
    };
    // The settlement carries the whole answer; what was streamed before is only shown earlier.
    let usage = Usage {
        output_tokens: Some(answer.split_whitespace().count() as u64),
        provenance: Provenance::Estimated,
        ..Usage::default()
    };
    let outcome =
        SettleOutcome::Done { parts: vec![Part::Text(answer)], stop_reason: Some(StopReason::End) };
    match job.settle(outcome, Report { usage, ..Report::default() }).await {
        // From here on the answer is durable, or another agent's business.
        Ok(()) | Err(SettleError::LeaseLost) => {}
        Err(error) => eprintln!("not settled: {error}"),
    }
}

/// Streams the question back, one word at a time, as a model would.
async fn say_back(job: &Job) -> String {
    let mut answer = String::new();
    job.start_part(0, Part::text("")).await;
    for part in &job.delivery().message.payload.request {
        let Part::Text(question) = part else { continue };
        for word in question.split_inclusive(' ') {
            job.delta(0, word).await;
            answer.push_str(word);
        }
    }
    job.end_part(0, None).await;
    answer
}
