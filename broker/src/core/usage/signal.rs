//! Signals: what a model's last calls say of it before any limit is reached.

use std::{collections::VecDeque, time::Duration};

use broker_proto::{FailureClass, MessageId, WallTime};

use crate::core::policy::Thresholds;

/// What is kept of each model; the configuration's thresholds go no higher.
const KEPT: usize = 64;
/// A call longer ago says nothing of a model any more: what was moved away from it would never come back else.
const AGE: Duration = Duration::from_secs(900);

/// How a call ended, as far as anybody said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ended {
    #[default]
    Unknown,
    Done,
    Failed(FailureClass),
}

impl Ended {
    #[must_use]
    pub fn class(self) -> Option<FailureClass> {
        match self {
            Self::Failed(class) => Some(class),
            Self::Unknown | Self::Done => None,
        }
    }

    /// Whether it counts as an error; `None` when it says nothing of how the model works.
    fn is_error(self) -> Option<bool> {
        let class = match self {
            Self::Unknown => return None,
            Self::Done => return Some(false),
            Self::Failed(class) => class,
        };
        match class {
            FailureClass::Overloaded
            | FailureClass::Timeout
            | FailureClass::Unreachable
            | FailureClass::Truncated
            | FailureClass::MalformedReply
            | FailureClass::CredentialsRejected
            | FailureClass::ModelNotFound
            | FailureClass::Internal => Some(true),
            // It works; what it was asked was wrong.
            FailureClass::ContextTooLong
            | FailureClass::RequestTooLarge
            | FailureClass::ContentRefused
            | FailureClass::InvalidRequest => Some(false),
            // Limits have signals and windows of their own; the rest is no word of the provider's.
            FailureClass::RateLimited
            | FailureClass::QuotaExhausted
            | FailureClass::CreditExhausted
            | FailureClass::AgentLost
            | FailureClass::Budget
            | FailureClass::Cancelled => None,
        }
    }
}

/// One of a model's last calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    pub at: WallTime,
    pub ended: Ended,
    pub latency: Option<Duration>,
    pub first_token: Option<Duration>,
    pub message: Option<MessageId>,
}

/// A model's last calls, the newest last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Signals {
    pub heard: VecDeque<Heard>,
}

/// What they come to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Readings {
    pub rate_limits: u32,
    pub slow_streak: u32,
    pub errors: u32,
    /// Among which the errors are counted.
    pub calls: u32,
    /// Of the same calls, as far as it is known.
    pub avg_response: Option<Duration>,
}

impl Readings {
    /// 0 to 1; 0 where nothing is known.
    #[must_use]
    pub fn error_rate(&self) -> f64 {
        if self.calls == 0 { 0.0 } else { f64::from(self.errors) / f64::from(self.calls) }
    }
}

impl Signals {
    pub fn hear(&mut self, heard: Heard) {
        if self.heard.len() >= KEPT {
            self.heard.pop_front();
        }
        self.heard.push_back(heard);
    }

    /// The newest first, as far as they say something at `now`.
    fn recent(&self, now: WallTime) -> impl Iterator<Item = &Heard> {
        self.heard.iter().rev().filter(move |heard| now.since(heard.at) < AGE)
    }

    fn rate_limits(&self, thresholds: &Thresholds, now: WallTime) -> impl Iterator<Item = &Heard> {
        let span = thresholds.rate_limit_window;
        let is_limit = |heard: &&Heard| heard.ended == Ended::Failed(FailureClass::RateLimited);
        self.heard.iter().rev().filter(is_limit).filter(move |heard| now.since(heard.at) < span)
    }

    #[must_use]
    pub fn read(&self, thresholds: &Thresholds, now: WallTime) -> Readings {
        let is_slow = |first: &Duration| *first > thresholds.slow_after;
        let firsts = self.recent(now).filter_map(|heard| heard.first_token);
        let outcomes = self.recent(now).filter_map(|heard| heard.ended.is_error());
        let outcomes: Vec<bool> = outcomes.take(thresholds.error_calls as usize).collect();
        let latencies = self.recent(now).filter_map(|heard| heard.latency);
        let latencies: Vec<Duration> = latencies.take(thresholds.error_calls as usize).collect();
        let many = u32::try_from(latencies.len()).unwrap_or(u32::MAX);
        Readings {
            rate_limits: count(self.rate_limits(thresholds, now)),
            slow_streak: count(firsts.take_while(is_slow)),
            errors: count(outcomes.iter().filter(|is_error| **is_error)),
            calls: count(outcomes.iter()),
            avg_response: (many > 0).then(|| latencies.iter().sum::<Duration>() / many),
        }
    }

    /// When the rate limits that count now begin to be forgotten.
    #[must_use]
    pub fn rate_limits_until(&self, thresholds: &Thresholds, now: WallTime) -> Option<WallTime> {
        let oldest = self.rate_limits(thresholds, now).last()?;
        Some(oldest.at.after(thresholds.rate_limit_window))
    }

    /// When the oldest call that counts now is forgotten.
    #[must_use]
    pub fn calls_until(&self, now: WallTime) -> Option<WallTime> {
        self.recent(now).last().map(|heard| heard.at.after(AGE))
    }

    /// The calls that count as errors now, the newest first, for people who look for the cause.
    pub fn errors(&self, thresholds: &Thresholds, now: WallTime) -> impl Iterator<Item = &Heard> {
        let counted = self.recent(now).filter(|heard| heard.ended.is_error().is_some());
        let counted = counted.take(thresholds.error_calls as usize);
        counted.filter(|heard| heard.ended.is_error() == Some(true))
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(second: u64, ended: Ended, first_ms: Option<u64>) -> Heard {
        let first_token = first_ms.map(Duration::from_millis);
        let at = WallTime(1_000_000 + second * 1_000);
        Heard { at, ended, latency: first_token, first_token, message: None }
    }

    fn signals(all: impl IntoIterator<Item = Heard>) -> Signals {
        let mut signals = Signals::default();
        all.into_iter().for_each(|heard| signals.hear(heard));
        signals
    }

    fn read(signals: &Signals, second: u64) -> Readings {
        signals.read(&Thresholds::default(), WallTime(1_000_000 + second * 1_000))
    }

    const LIMITED: Ended = Ended::Failed(FailureClass::RateLimited);
    const BROKEN: Ended = Ended::Failed(FailureClass::Overloaded);

    #[test]
    fn rate_limits_count_for_a_minute_and_are_no_errors() {
        let signals = signals([0, 30, 59].map(|second| heard(second, LIMITED, None)));
        assert_eq!(read(&signals, 59).rate_limits, 3);
        assert_eq!(read(&signals, 60).rate_limits, 2);
        assert_eq!(read(&signals, 119).rate_limits, 0);
        assert_eq!((read(&signals, 59).errors, read(&signals, 59).calls), (0, 0));
    }

    #[test]
    fn one_quick_reply_ends_a_slow_streak() {
        let mut signals =
            signals([10_001, 12_000, 11_000].map(|ms| heard(0, Ended::Done, Some(ms))));
        assert_eq!(read(&signals, 0).slow_streak, 3);
        // Not a reply, so it ends nothing.
        signals.hear(heard(1, BROKEN, None));
        assert_eq!(read(&signals, 1).slow_streak, 3);
        signals.hear(heard(2, Ended::Done, Some(10_000)));
        assert_eq!(read(&signals, 2).slow_streak, 0);
    }

    #[test]
    fn errors_are_counted_among_the_last_twenty_calls() {
        let mut signals = signals((0..15).map(|_| heard(0, BROKEN, None)));
        for _ in 0..12 {
            signals.hear(heard(0, Ended::Done, Some(500)));
        }
        let readings = read(&signals, 0);
        assert_eq!((readings.errors, readings.calls), (8, 20));
        assert_eq!(readings.avg_response, Some(Duration::from_millis(500)));
        assert_eq!(signals.errors(&Thresholds::default(), WallTime(1_000_000)).count(), 8);
    }

    #[test]
    fn what_was_long_ago_says_nothing() {
        let signals = signals((0..70).map(|_| heard(0, BROKEN, Some(20_000))));
        assert_eq!(signals.heard.len(), KEPT);
        assert_eq!(read(&signals, 900), Readings::default());
    }
}
