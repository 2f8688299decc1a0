//! The routing story: who was asked, who could not, who answered, in sentences on stderr.

use std::{io::IsTerminal as _, time::Duration};

use broker_proto::types::{
    AnswerSummary, Attempt, FailureClass, ModelName, PassedOver, Routed, Terminal, WallTime,
};
use indicatif::{ProgressBar, ProgressStyle};

use super::report::earliest_retry;
use crate::output;

/// Tells the story of one consultation; on a terminal a spinner runs until the first token.
#[derive(Debug)]
pub(crate) struct Story {
    spinner: Option<ProgressBar>,
    told_attempts: u32,
    told_passed_over: Vec<ModelName>,
    is_verbose: bool,
}

impl Story {
    /// A story about `asked`, with a spinner where stderr is a terminal.
    pub(crate) fn begin(asked: &str, is_verbose: bool) -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| spinner(asked));
        Self { spinner, told_attempts: 0, told_passed_over: Vec::new(), is_verbose }
    }

    /// Says one line, above the spinner.
    pub(crate) fn say(&self, line: &str) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| output::note(line)),
            None => output::note(line),
        }
    }

    /// Says one line to those who want to know everything.
    pub(crate) fn whisper(&self, line: &str) {
        if self.is_verbose {
            self.say(line);
        }
    }

    /// Tells what led to this delivery, as far as it was not told yet.
    pub(crate) fn routed(&mut self, routed: &Routed, now: WallTime) {
        for line in self.news(routed, now) {
            self.say(&line);
        }
        if let Some(spinner) = &self.spinner {
            spinner.set_message(routed.model.to_string());
        }
        self.whisper(&format!("asking {}: {}", routed.model, routed.why));
    }

    /// The first token is here, or nothing comes any more: the spinner goes.
    pub(crate) fn quiet(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }

    fn news(&mut self, routed: &Routed, now: WallTime) -> Vec<String> {
        let mut lines = self.untold(&routed.attempts, &routed.passed_over, now);
        if let Some(last) = lines.last_mut() {
            last.push_str(&format!(" → asking {}{}", routed.model, simulated(routed.is_simulated)));
        }
        lines
    }

    /// Failed attempts and passed-over candidates that were not told yet.
    fn untold(
        &mut self,
        attempts: &[Attempt],
        passed_over: &[PassedOver],
        now: WallTime,
    ) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for attempt in attempts {
            if attempt.number > self.told_attempts {
                self.told_attempts = attempt.number;
                lines.extend(failed_attempt(attempt, now));
            }
        }
        for candidate in passed_over {
            if !self.told_passed_over.contains(&candidate.model) {
                self.told_passed_over.push(candidate.model.clone());
                lines.push(format!("{}: passed over, {}", candidate.model, candidate.reason));
            }
        }
        lines
    }

    /// The last lines: who answered and what it took, or why nobody did and what helps.
    pub(crate) fn ending(&mut self, terminal: &Terminal, now: WallTime) -> Vec<String> {
        match terminal {
            Terminal::Done(summary) => vec![answered(summary)],
            Terminal::Failed { failure, summary } => {
                let mut lines = self.untold(&summary.attempts, &summary.passed_over, now);
                // Where each model's reason was told, their sum would only repeat it.
                let is_told = self.told_attempts > 0 || !self.told_passed_over.is_empty();
                let is_short = is_told && !self.is_verbose || failure.detail.is_empty();
                let why = if is_short { words(failure.class) } else { &failure.detail };
                lines.push(format!("failed: {}: {why}", failure.class.as_str()));
                match earliest_retry(failure, summary) {
                    Some(at) => lines.push(format!(
                        "the earliest time to try again is {} (in {})",
                        output::clock(at, now),
                        output::span(at.since(now))
                    )),
                    None => lines.extend(remedy(failure.class).map(str::to_owned)),
                }
                lines
            }
            Terminal::Expired(summary) => {
                vec![format!("the deadline of message {} passed", summary.message_id)]
            }
            Terminal::Cancelled(summary) => {
                vec![format!("message {} was cancelled", summary.message_id)]
            }
        }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        self.quiet();
    }
}

fn spinner(asked: &str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(asked.to_owned());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// `opus: rate limited until 10:04:05 UTC (6s)`
fn failed_attempt(attempt: &Attempt, now: WallTime) -> Option<String> {
    let failure = attempt.failure.as_ref()?;
    let mut line = format!("{}: {}", attempt.model, words(failure.class));
    match failure.retry_at {
        Some(at) => line.push_str(&until(at, now)),
        None if !failure.detail.is_empty() => line.push_str(&format!(" ({})", failure.detail)),
        None => {}
    }
    Some(line)
}

fn until(at: WallTime, now: WallTime) -> String {
    format!(" until {} ({})", output::clock(at, now), output::span(at.since(now)))
}

fn simulated(is_simulated: bool) -> &'static str {
    if is_simulated { " [simulated]" } else { "" }
}

/// A class as a person would say it.
pub(crate) fn words(class: FailureClass) -> &'static str {
    match class {
        FailureClass::RateLimited => "rate limited",
        FailureClass::QuotaExhausted => "quota used up",
        FailureClass::CreditExhausted => "out of credit",
        FailureClass::Overloaded => "overloaded",
        FailureClass::ContextTooLong => "the context is too long for its window",
        FailureClass::RequestTooLarge => "the request is too large",
        FailureClass::ContentRefused => "refused the content",
        FailureClass::InvalidRequest => "rejected the request",
        FailureClass::CredentialsRejected => "key rejected",
        FailureClass::ModelNotFound => "the provider has no such model",
        FailureClass::Timeout => "timed out",
        FailureClass::Unreachable => "unreachable",
        FailureClass::Truncated => "the answer broke off",
        FailureClass::MalformedReply => "answered garbage",
        FailureClass::AgentLost => "its agent was lost",
        FailureClass::Budget => "the budget allows no answer",
        FailureClass::Cancelled => "cancelled",
        FailureClass::Internal => "failed inside",
    }
}

/// What a person must do about a class that no waiting helps.
fn remedy(class: FailureClass) -> Option<&'static str> {
    match class {
        FailureClass::CreditExhausted => Some("add credit to the account at the provider"),
        FailureClass::QuotaExhausted => {
            Some("wait for the provider's reset, or raise the plan's limit")
        }
        FailureClass::RateLimited => Some("the provider named no time; try again in a minute"),
        FailureClass::CredentialsRejected => {
            Some("check the key in the variable that the model's api_key_env names")
        }
        FailureClass::ModelNotFound => Some("check the model's id in the configuration"),
        FailureClass::Budget => Some("allow more with --max-cost, or give less context"),
        FailureClass::ContextTooLong | FailureClass::RequestTooLarge => {
            Some("give less context, or ask a model with a larger window")
        }
        FailureClass::Overloaded
        | FailureClass::ContentRefused
        | FailureClass::InvalidRequest
        | FailureClass::Timeout
        | FailureClass::Unreachable
        | FailureClass::Truncated
        | FailureClass::MalformedReply
        | FailureClass::AgentLost
        | FailureClass::Cancelled
        | FailureClass::Internal => None,
    }
}

/// `answered by local (degraded mode) [simulated], 812 in, 96 out, $0.0041, 1.4s`
fn answered(summary: &AnswerSummary) -> String {
    let model = summary.model.as_ref().unwrap_or(&summary.asked);
    let degraded = if summary.is_degraded { " (degraded mode)" } else { "" };
    let mut parts =
        vec![format!("answered by {model}{degraded}{}", simulated(summary.is_simulated))];
    if let (Some(input), Some(output)) = (summary.usage.input_tokens, summary.usage.output_tokens) {
        parts.push(format!("{input} tokens in, {output} out"));
    }
    parts.push(output::money(summary.cost_usd));
    let took: Duration = summary.attempts.iter().map(|a| a.wait + a.latency).sum();
    parts.push(output::span(took));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use broker_proto::types::Failure;

    use super::{
        super::report::tests::{attempt, limited, model, summary},
        *,
    };

    const NOW: WallTime = WallTime(1_795_255_200_000);

    fn story() -> Story {
        Story { spinner: None, told_attempts: 0, told_passed_over: Vec::new(), is_verbose: false }
    }

    fn routed(to: &str, attempts: Vec<Attempt>, passed_over: Vec<PassedOver>) -> Routed {
        Routed {
            model: model(to),
            agent: None,
            attempt: 2,
            why: String::new(),
            attempts,
            passed_over,
            is_degraded: false,
            is_simulated: true,
        }
    }

    #[test]
    fn the_first_model_asked_is_no_news() {
        assert!(story().news(&routed("opus", vec![], vec![]), NOW).is_empty());
    }

    #[test]
    fn a_limit_is_told_with_its_time_and_who_is_next_once() {
        let opus = attempt(1, "opus", Some(limited(Some(NOW.after(Duration::from_secs(6))))));
        let mut story = story();

        let first = story.news(&routed("sonnet", vec![opus.clone()], vec![]), NOW);
        let sonnet =
            attempt(2, "sonnet", Some(Failure::new(FailureClass::CreditExhausted, "x", "pay")));
        let gone = PassedOver { model: model("gpt-4o"), reason: "no agent".into(), class: None };
        let second = story.news(&routed("local", vec![opus, sonnet], vec![gone]), NOW);

        assert_eq!(
            first,
            ["opus: rate limited until 10:00:06 UTC (6s) → asking sonnet [simulated]"]
        );
        let want = [
            "sonnet: out of credit (pay)",
            "gpt-4o: passed over, no agent → asking local [simulated]",
        ];
        assert_eq!(second, want);
    }

    #[test]
    fn what_was_told_on_the_way_is_not_told_again_at_the_end() {
        let opus = attempt(1, "opus", Some(limited(Some(NOW.after(Duration::from_secs(6))))));
        let local =
            attempt(2, "local", Some(Failure::new(FailureClass::Unreachable, "x", "refused")));
        let mut story = story();
        story.news(&routed("local", vec![opus.clone()], vec![]), NOW);
        let mut summary = summary(None, vec![opus, local]);
        summary.passed_over.clear();
        let failure = Failure::new(FailureClass::Unreachable, "x", "opus: a; local: b");

        let lines = story.ending(&Terminal::Failed { failure, summary }, NOW);

        let want = [
            "local: unreachable (refused)",
            "failed: UNREACHABLE: unreachable",
            "the earliest time to try again is 10:00:06 UTC (in 6s)",
        ];
        assert_eq!(lines, want);
    }

    #[test]
    fn a_degraded_answer_says_so() {
        let mut summary = summary(Some("local"), vec![attempt(1, "local", None)]);
        summary.is_degraded = true;

        let lines = story().ending(&Terminal::Done(summary), NOW);

        let want = "answered by local (degraded mode) [simulated], 10 tokens in, 4 out, cost unknown, 123ms";
        assert_eq!(lines, [want]);
    }

    #[test]
    fn a_failure_ends_with_the_earliest_time_or_with_what_to_do() {
        let at = NOW.after(Duration::from_secs(90));
        let failed =
            |failure: Failure| Terminal::Failed { failure, summary: summary(None, vec![]) };

        let timed = story().ending(&failed(limited(Some(at))), NOW);
        let credit = Failure::new(FailureClass::CreditExhausted, "openai", "no credit is left");
        let untimed = story().ending(&failed(credit), NOW);

        let want = "the earliest time to try again is 10:01:30 UTC (in 1m 30s)";
        assert_eq!(timed.last().map(String::as_str), Some(want));
        let want = "add credit to the account at the provider";
        assert_eq!(untimed.last().map(String::as_str), Some(want));
    }
}
