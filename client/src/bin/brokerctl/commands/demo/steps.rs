//! The steps of the demo: what is done to the house, and what must come of it.

use std::time::Duration;

use broker_client::{Client, transcript};
use broker_proto::types::{
    AnswerSummary, AskOptions, Entry, FailureClass, Message, ModelName, Part, Payload, Terminal,
    WallTime,
};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::control::Control;
use crate::commands::{
    consult::{
        follow::{Follow, Source, Step},
        input, now,
        reading::Event,
    },
    up::{child, house::House},
};

/// Two conversations of engineers, long enough to be a context worth sending.
const FERRYBOOK: &str = include_str!("../../demo/ferrybook.jsonl");
const PEBBLES: &str = include_str!("../../demo/pebbles.jsonl");
/// How long one question may take, all its detours included.
const WITHIN: Duration = Duration::from_secs(15);
/// How long opus is out: its `retry-after`.
const OPUS_OUT: &str = "6s";

/// One question of the demo, answered.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) title: &'static str,
    pub(crate) summary: AnswerSummary,
    pub(crate) took: Duration,
    answer: String,
    /// Pieces of text that came one by one.
    pieces: usize,
    restarts: usize,
    /// The text since the last restart.
    shown: String,
    is_done: bool,
    breaks: usize,
}

/// What was claimed and what came of it.
#[derive(Debug)]
pub(crate) struct Expectation {
    pub(crate) name: &'static str,
    pub(crate) outcome: Result<String, String>,
}

/// The house and what happened in it so far.
pub(crate) struct Demo<'a> {
    house: &'a House,
    client: Client,
    control: Control,
    pub(crate) asked: Vec<Asked>,
    pub(crate) expectations: Vec<Expectation>,
    opus_back: Option<WallTime>,
}

type Outcome = anyhow::Result<String>;

macro_rules! expect {
    ($condition:expr, $($otherwise:tt)+) => {
        if !$condition {
            anyhow::bail!($($otherwise)+);
        }
    };
}

impl<'a> Demo<'a> {
    /// # Errors
    /// When the house does not stand.
    pub(crate) fn new(house: &'a House) -> anyhow::Result<Self> {
        let client = house.client().ok_or_else(|| anyhow::anyhow!("the broker is not up"))?.clone();
        let address = house.simulator_address();
        let address = address.ok_or_else(|| anyhow::anyhow!("the simulator is not up"))?;
        Ok(Self {
            house,
            client,
            control: Control::new(address),
            asked: Vec::new(),
            expectations: Vec::new(),
            opus_back: None,
        })
    }

    /// Every step in order; one that fails does not keep the others from being tried.
    pub(crate) async fn run(&mut self, mut told: impl FnMut(&Expectation)) {
        let outcome = self.streamed().await;
        told(self.note("opus streams an answer about a long transcript", outcome));
        let outcome = self.takes_over().await;
        told(self.note("opus runs out, sonnet takes over", outcome));
        let outcome = self.degraded().await;
        told(
            self.note(
                "sonnet and gpt-4o run out, the local model answers, flagged degraded",
                outcome,
            ),
        );
        let outcome = self.comes_back().await;
        told(self.note("quotas come back, opus answers again", outcome));
        let outcome = self.agent_killed().await;
        told(
            self.note(
                "an agent is killed in the middle of an answer, there is one answer",
                outcome,
            ),
        );
        let outcome = Box::pin(self.broker_killed()).await;
        told(
            self.note("the broker is killed while a question waits, it is answered once", outcome),
        );
        let simulated = self.all_simulated();
        told(self.note("every answer is marked as simulated", simulated));
    }

    fn note(&mut self, name: &'static str, outcome: Outcome) -> &Expectation {
        let outcome = outcome.map_err(|err| crate::output::sentence(&err));
        self.expectations.push(Expectation { name, outcome });
        // Just pushed.
        &self.expectations[self.expectations.len() - 1]
    }

    async fn streamed(&mut self) -> Outcome {
        let context = transcript::parse(FERRYBOOK)?;
        let turns = context.len();
        let asked =
            self.ask("long transcript, streamed", "opus", "What is left to do?", context).await?;
        expect!(asked.answered_by("opus"), "{}", asked.words());
        expect!(asked.pieces >= 3, "the answer came in {} pieces", asked.pieces);
        let input = asked.summary.usage.input_tokens.unwrap_or(0);
        expect!(input > 2_000, "{input} input tokens for {turns} turns");
        expect!(asked.summary.cost_usd.is_some(), "the cost is not known");
        Ok(format!("{turns} turns, {input} tokens in, {} pieces", asked.pieces))
    }

    async fn takes_over(&mut self) -> Outcome {
        let fault = json!({"wire": "anthropic", "model": "claude-opus-*", "for": OPUS_OUT,
            "do": {"preset": "anthropic.family_429"}});
        self.control.fault(&fault).await?;
        let context = transcript::parse(PEBBLES)?;
        let asked =
            self.ask("opus is rate limited", "opus", "Write the changelog.", context).await?;
        expect!(asked.answered_by("sonnet"), "{}", asked.words());
        let opus = asked.failure_of("opus", FailureClass::RateLimited);
        let opus =
            opus.ok_or_else(|| anyhow::anyhow!("no rate limit of opus: {}", asked.words()))?;
        let wait = opus.map(|at| at.since(now()));
        let words = asked.words();
        self.opus_back = opus;
        expect!(
            wait.is_some_and(|wait| wait <= Duration::from_secs(7)),
            "no time of return: {words}"
        );
        Ok(words)
    }

    async fn degraded(&mut self) -> Outcome {
        let sonnet = json!({"wire": "anthropic", "model": "claude-sonnet-*", "for": "10m",
            "do": {"preset": "anthropic.family_429"}});
        let openai = json!({"wire": "openai", "times": "forever", "do": {"preset": "openai.insufficient_quota"}});
        self.control.fault(&json!([sonnet, openai])).await?;
        let asked = self
            .ask("all cloud models are out", "opus", "Name one risk of caching.", vec![])
            .await?;
        let words = asked.words();
        expect!(asked.answered_by("local"), "{words}");
        expect!(asked.summary.is_degraded, "not flagged as degraded: {words}");
        let sonnet = asked.failure_of("sonnet", FailureClass::RateLimited);
        expect!(sonnet.is_some(), "no rate limit of sonnet: {words}");
        let openai = asked.failure_of("gpt-4o", FailureClass::CreditExhausted);
        expect!(openai.is_some(), "no exhausted credit of gpt-4o: {words}");
        Ok(words)
    }

    async fn comes_back(&mut self) -> Outcome {
        self.control.heal().await?;
        if let Some(at) = self.opus_back {
            // The provider named the time; asking earlier would be answered by somebody else.
            tokio::time::sleep(at.since(now()) + Duration::from_millis(50)).await;
        }
        let asked = self.ask("opus is back", "opus", "Are you there again?", vec![]).await?;
        expect!(asked.answered_by("opus"), "{}", asked.words());
        expect!(!asked.summary.is_degraded, "flagged as degraded");
        Ok(asked.words())
    }

    async fn agent_killed(&mut self) -> Outcome {
        let slow = json!({"wire": "anthropic", "model": "claude-opus-*",
            "do": [{"answer": {"tokens": 60}}, {"pace": 30.0}]});
        self.control.fault(&slow).await?;
        let status =
            self.house.status("opus").ok_or_else(|| anyhow::anyhow!("opus has no agent"))?;
        let pid = status.borrow().pid;
        let follow = self.question("opus", "Explain leases.", vec![]);
        let kill = move |event: &Event, is_first: bool| {
            if is_first && matches!(event, Event::Text(_)) {
                child::signal(pid, Signal::KILL);
            }
        };
        let asked = read("agent killed in the middle", follow?, kill).await?;
        let asked = self.keep(asked);
        let words = asked.words();
        expect!(asked.is_done, "{words}");
        expect!(asked.restarts >= 1, "the answer was never begun anew: {words}");
        expect!(asked.shown == asked.answer, "the answer is joined from two attempts");
        Ok(words)
    }

    async fn broker_killed(&mut self) -> Outcome {
        let since = self.control.newest().await?;
        let stall = json!({"wire": "ollama", "do": {"stall_first": {"for": "1500ms"}}});
        self.control.fault(&stall).await?;
        // The local model takes one question at a time, so the second one has to wait.
        let first =
            read("the one in front", self.question("local", "Count to three.", vec![])?, |_, _| {});
        let second = self.question("local", "Which question waited for the broker?", vec![])?;
        let killed = async {
            self.control.requests(since, 1).await?;
            let status =
                self.house.status("brokerd").ok_or_else(|| anyhow::anyhow!("no broker"))?;
            let pid = status.borrow().pid;
            let kill = move |event: &Event, _: bool| {
                if matches!(event, Event::Accepted { .. }) {
                    child::signal(pid, Signal::KILL);
                }
            };
            read("broker killed while it waits", second, kill).await
        };
        let (first, second) = tokio::join!(first, killed);
        let requests = self.control.requests(since, 0).await?;
        self.keep(first?);
        let asked = self.keep(second?);
        let words = asked.words();
        expect!(asked.is_done, "{words}");
        expect!(asked.breaks >= 1, "the broker was never gone: {words}");
        let is_it = |request: &&serde_json::Value| {
            request["body"].to_string().contains("Which question waited")
        };
        let calls = requests.iter().filter(is_it).count();
        expect!(calls == 1, "{calls} provider calls for one question");
        Ok(format!("{words}; one provider call"))
    }

    fn all_simulated(&self) -> Outcome {
        let real = self.asked.iter().find(|asked| !asked.summary.is_simulated);
        match real {
            Some(asked) => anyhow::bail!("`{}` is not marked", asked.title),
            None => Ok(format!("{} answers", self.asked.len())),
        }
    }

    async fn ask(
        &mut self,
        title: &'static str,
        model: &str,
        question: &str,
        context: Vec<Entry>,
    ) -> anyhow::Result<&Asked> {
        let asked = read(title, self.question(model, question, context)?, |_, _| {}).await?;
        Ok(self.keep(asked))
    }

    fn keep(&mut self, asked: Asked) -> &Asked {
        self.asked.push(asked);
        &self.asked[self.asked.len() - 1]
    }

    fn question(&self, model: &str, question: &str, context: Vec<Entry>) -> anyhow::Result<Follow> {
        let model = ModelName::parse(model)?;
        let payload =
            Payload { context, request: vec![Part::text(question)], ..Payload::default() };
        let message = Message::consultation(input::new_id()?, model, payload);
        let options = AskOptions { allow_restart: true, ..AskOptions::default() };
        Ok(Follow::new(self.client.clone(), Source::Ask(Box::new(message), options)))
    }
}

/// Reads an answer to its end; `seen` is told each event, and whether it is the first text.
async fn read(
    title: &'static str,
    mut follow: Follow,
    mut seen: impl FnMut(&Event, bool),
) -> anyhow::Result<Asked> {
    let began = Instant::now();
    let (mut pieces, mut restarts, mut breaks, mut shown) = (0, 0, 0, String::new());
    let reading = async {
        while let Some(step) = follow.next().await? {
            match &step {
                Step::Frame(event) => {
                    seen(event, pieces == 0);
                    match event {
                        Event::Text(text) => {
                            pieces += 1;
                            shown.push_str(text);
                        }
                        Event::Anew { .. } => {
                            restarts += 1;
                            shown.clear();
                        }
                        _ => {}
                    }
                }
                Step::Broken(_) => breaks += 1,
                Step::Back => {}
            }
        }
        anyhow::Ok(())
    };
    let in_time = timeout(WITHIN, reading).await;
    in_time.map_err(|_| anyhow::anyhow!("no answer within {}", crate::output::span(WITHIN)))??;
    let terminal = follow.reading.terminal().ok_or_else(|| anyhow::anyhow!("no end"))?;
    Ok(Asked {
        title,
        summary: terminal.summary().clone(),
        took: began.elapsed(),
        answer: follow.reading.answer(),
        pieces,
        restarts,
        shown,
        is_done: matches!(terminal, Terminal::Done(_)),
        breaks,
    })
}

impl Asked {
    fn answered_by(&self, model: &str) -> bool {
        let by = self.summary.model.as_ref().map(ModelName::as_str);
        self.is_done && by == Some(model) && !self.answer.is_empty()
    }

    /// When a model that failed so comes back; `None` when it did not fail so.
    #[expect(clippy::option_option, reason = "outer: it failed so; inner: a time is known")]
    fn failure_of(&self, model: &str, class: FailureClass) -> Option<Option<WallTime>> {
        let attempts =
            self.summary.attempts.iter().filter(|attempt| attempt.model.as_str() == model);
        let mut failures = attempts.filter_map(|attempt| attempt.failure.as_ref());
        failures.find(|failure| failure.class == class).map(|failure| failure.retry_at)
    }

    /// Attempts and reasons on one line: `opus RATE_LIMITED, sonnet answered`.
    fn words(&self) -> String {
        self.lines().join(", ")
    }

    /// Who was passed over, called, and what came of it.
    pub(crate) fn lines(&self) -> Vec<String> {
        let passed = self
            .summary
            .passed_over
            .iter()
            .map(|candidate| format!("{} passed over ({})", candidate.model, candidate.reason));
        let attempts = self.summary.attempts.iter().map(|attempt| {
            let outcome =
                attempt.failure.as_ref().map_or("answered", |failure| failure.class.as_str());
            format!("{} {outcome}", attempt.model)
        });
        passed.chain(attempts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transcripts_are_long_and_whole() {
        for (text, calls) in [(FERRYBOOK, false), (PEBBLES, true)] {
            let entries = transcript::parse(text).unwrap();
            assert!(entries.len() > 60, "{} turns", entries.len());
            assert!((20 << 10..40 << 10).contains(&text.len()), "{} bytes", text.len());
            let has_calls =
                entries.iter().flat_map(|e| &e.parts).any(|p| matches!(p, Part::ToolCall { .. }));
            assert_eq!(has_calls, calls);
        }
    }
}
