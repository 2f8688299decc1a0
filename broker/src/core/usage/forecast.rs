//! Forecasts: how fast something is used, when that reaches its limit, and how sure that is.

use std::{collections::VecDeque, time::Duration};

use broker_proto::{RateLimit, WallTime};

use super::Amount;

/// What is used is looked at in pieces of five minutes, over an hour.
const PIECE_MS: u64 = 5 * 60_000;
const PIECES: u64 = 12;
/// So many calls make a rate as sure as calls can make it.
const ENOUGH_CALLS: u64 = 20;
const HOUR_MS: u64 = 3_600_000;

/// What was used lately, the oldest piece first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recent {
    /// Each with its number since the epoch.
    pub pieces: VecDeque<(u64, Amount)>,
}

/// How much is used in an hour, and how sure that is.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Burn {
    pub per_hour: Amount,
    /// 0 to 1: of how much of the last hour, and of how many calls, it was taken.
    pub confidence: f64,
}

impl Recent {
    pub fn add(&mut self, at: WallTime, amount: Amount) {
        let number = at.0 / PIECE_MS;
        match self.pieces.back_mut() {
            Some((last, sum)) if *last >= number => *sum = sum.plus(amount),
            _ => self.pieces.push_back((number, amount)),
        }
        while self.pieces.front().is_some_and(|(first, _)| first + PIECES <= number) {
            self.pieces.pop_front();
        }
    }

    /// Tokens of a call, on average; `None` where no call was counted.
    #[must_use]
    pub fn per_call(&self) -> Option<u64> {
        let sum = self.pieces.iter().fold(Amount::default(), |sum, (_, used)| sum.plus(*used));
        sum.tokens.checked_div(sum.requests)
    }

    #[must_use]
    pub fn burn(&self, now: WallTime) -> Burn {
        let number = now.0 / PIECE_MS;
        let kept = self.pieces.iter().filter(|(piece, _)| piece + PIECES > number);
        let Some(first) = kept.clone().map(|(piece, _)| *piece).min() else {
            return Burn::default();
        };
        let sum = kept.fold(Amount::default(), |sum, (_, used)| sum.plus(*used));
        // A single call a second ago is no rate: at least a piece has passed.
        let passed = now.0.saturating_sub(first * PIECE_MS).max(PIECE_MS);
        let per_hour = |used: u64| {
            let scaled = u128::from(used) * u128::from(HOUR_MS) / u128::from(passed);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        Burn {
            per_hour: Amount {
                requests: per_hour(sum.requests),
                tokens: per_hour(sum.tokens),
                cost: super::Nanos(per_hour(sum.cost.0)),
            },
            confidence: sureness(passed, sum.requests),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share; small numbers")]
fn sureness(passed_ms: u64, calls: u64) -> f64 {
    // The piece that runs is not whole yet.
    let most = (PIECES - 1) * PIECE_MS;
    let of_time = (passed_ms as f64 / most as f64).min(1.0);
    let of_calls = (calls.min(ENOUGH_CALLS) as f64) / ENOUGH_CALLS as f64;
    (of_time * of_calls * 100.0).round() / 100.0
}

/// The first that a provider said of a window it is still in: its own use of it is measured from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstSeen {
    pub name: String,
    pub at: WallTime,
    pub used: u64,
    pub resets_at: Option<WallTime>,
    /// How often it has spoken since.
    pub times: u64,
}

/// Takes in what a provider says now.
pub(super) fn see(seen: &mut Vec<FirstSeen>, at: WallTime, limits: &[RateLimit]) {
    for limit in limits {
        let Some((all, left)) = limit.limit.zip(limit.remaining) else { continue };
        let used = all.saturating_sub(left);
        let first =
            FirstSeen { name: limit.name.clone(), at, used, resets_at: limit.resets_at, times: 1 };
        match seen.iter_mut().find(|first| first.name == limit.name) {
            None => seen.push(first),
            // It was reset in between.
            Some(old) if used < old.used || old.resets_at.is_some_and(|ends| ends <= at) => {
                *old = first;
            }
            Some(old) => {
                old.times = old.times.saturating_add(1);
                old.resets_at = limit.resets_at;
            }
        }
    }
}

/// How fast a provider's own window fills, by what it said at first and says now.
#[must_use]
pub fn burn_of(first: &FirstSeen, used: u64, now: WallTime) -> (u64, f64) {
    let passed = now.since(first.at);
    let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
    if passed == 0 {
        return (0, 0.0);
    }
    let passed = passed.max(PIECE_MS);
    let grown = used.saturating_sub(first.used);
    let scaled = u128::from(grown) * u128::from(HOUR_MS) / u128::from(passed);
    let calls = first.times.saturating_sub(1);
    (u64::try_from(scaled).unwrap_or(u64::MAX), sureness(passed, calls))
}

/// How much a provider's window fills from one call to the next, in its own unit, rounded up: what others use of it
/// meanwhile is in it. `None` before it has spoken twice.
#[must_use]
pub fn per_call(first: &FirstSeen, used: u64) -> Option<u64> {
    let calls = first.times.checked_sub(1).filter(|calls| *calls > 0)?;
    Some(used.saturating_sub(first.used).div_ceil(calls))
}

/// When `used` reaches `limit` at this rate; `None` when it is reset before, or nothing is used.
#[must_use]
pub fn reached_at(
    used: u64,
    limit: u64,
    per_hour: u64,
    resets_at: Option<WallTime>,
    now: WallTime,
) -> Option<WallTime> {
    let left = limit.saturating_sub(used);
    if left == 0 {
        return Some(now);
    }
    if per_hour == 0 {
        return None;
    }
    let ms = u128::from(left) * u128::from(HOUR_MS) / u128::from(per_hour);
    let at = now.after(Duration::from_millis(u64::try_from(ms).ok()?));
    // A hundred years ahead is never.
    let is_soon = at.since(now) < Duration::from_secs(100 * 365 * 86_400);
    (is_soon && resets_at.is_none_or(|resets| at < resets)).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_795_132_800_000;

    fn minutes(minutes: u64) -> WallTime {
        WallTime(START + minutes * 60_000)
    }

    fn tokens(tokens: u64) -> Amount {
        Amount { requests: 1, tokens, ..Amount::default() }
    }

    #[test]
    fn a_steady_hour_is_its_rate_and_sure() {
        let mut recent = Recent::default();
        for minute in 0..120 {
            recent.add(minutes(minute), tokens(100));
        }
        let burn = recent.burn(minutes(120));
        // The hour begins with a whole piece.
        assert_eq!(burn.per_hour.tokens, 6_000);
        assert_eq!(burn.confidence, 1.0);
        assert_eq!(recent.burn(minutes(240)), Burn::default());
    }

    #[test]
    fn one_call_is_a_guess() {
        let mut recent = Recent::default();
        recent.add(minutes(0), tokens(100));
        let burn = recent.burn(minutes(0));
        assert_eq!(burn.per_hour.tokens, 1_200);
        assert!(burn.confidence < 0.01, "{}", burn.confidence);
    }

    #[test]
    fn a_limit_is_reached_unless_it_is_reset_before() {
        let now = minutes(0);
        assert_eq!(reached_at(40, 100, 60, None, now), Some(minutes(60)));
        assert_eq!(reached_at(40, 100, 60, Some(minutes(60)), now), None);
        assert_eq!(reached_at(40, 100, 60, Some(minutes(61)), now), Some(minutes(60)));
        assert_eq!(reached_at(40, 100, 0, None, now), None);
        assert_eq!(reached_at(100, 100, 0, None, now), Some(now));
        assert_eq!(reached_at(0, u64::MAX, 1, None, now), None);
    }

    #[test]
    fn a_providers_window_is_measured_from_its_first_word() {
        let said = |left, resets: u64| RateLimit {
            name: "5h".into(),
            limit: Some(100),
            remaining: Some(left),
            resets_at: Some(minutes(resets)),
        };
        let mut seen = Vec::new();
        see(&mut seen, minutes(0), &[said(90, 300)]);
        see(&mut seen, minutes(30), &[said(70, 300)]);
        assert_eq!(burn_of(&seen[0], 30, minutes(30)).0, 40);
        assert_eq!(per_call(&seen[0], 30), Some(20));
        see(&mut seen, minutes(301), &[said(99, 600)]);
        assert_eq!((seen[0].used, seen[0].at), (1, minutes(301)));
        assert_eq!(per_call(&seen[0], 1), None);
    }
}
