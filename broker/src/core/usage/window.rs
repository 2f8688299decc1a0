//! Windows: how long what was used counts, and when it begins anew.

use std::time::Duration;

use broker_proto::WallTime;

use super::Nanos;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;
const FIVE_HOURS: Duration = Duration::from_secs(5 * 3600);

/// How long what was used counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    Minute,
    /// From the first call that falls in none, as subscriptions count.
    FiveHours,
    /// In UTC, as all that follow.
    Day,
    /// From Monday.
    Week,
    Month,
}

impl Span {
    pub const ALL: [Self; 5] = [Self::Minute, Self::FiveHours, Self::Day, Self::Week, Self::Month];

    /// Its word, in configuration, output and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::FiveHours => "5h",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The span of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|span| span.as_str() == word)
    }

    /// A minute's limit only delays; it raises no level.
    #[must_use]
    pub fn matters(self) -> bool {
        self != Self::Minute
    }

    /// When a window ends that something used at `at` begins, or falls in.
    fn end(self, at: WallTime) -> WallTime {
        let day = at.0 / DAY_MS;
        match self {
            Self::Minute => WallTime((at.0 / MINUTE_MS + 1) * MINUTE_MS),
            Self::FiveHours => at.after(FIVE_HOURS),
            Self::Day => WallTime((day + 1) * DAY_MS),
            // The epoch was a Thursday, the fourth day of its week.
            Self::Week => WallTime((day + 7 - (day + 3) % 7) * DAY_MS),
            Self::Month => WallTime(next_month(day) * DAY_MS),
        }
    }
}

/// The first day of the month behind the one that holds `day`, both counted from the epoch.
fn next_month(day: u64) -> u64 {
    let is_leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let (mut year, mut first) = (1970, 0);
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if first + length > day {
            break;
        }
        (year, first) = (year + 1, first + length);
    }
    let february = if is_leap(year) { 29 } else { 28 };
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        first += length;
        if first > day {
            break;
        }
    }
    first
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    Requests,
    Tokens,
    Usd,
}

impl Unit {
    pub const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::Usd];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::Usd => "usd",
        }
    }

    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.as_str() == word)
    }

    /// A figure in words: dollars are counted in billionths.
    #[must_use]
    pub fn words(self, figure: u64) -> String {
        match self {
            Self::Requests | Self::Tokens => figure.to_string(),
            Self::Usd => format!("${}", Nanos(figure).usd()),
        }
    }
}

/// What was used, or is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    pub requests: u64,
    pub tokens: u64,
    pub cost: Nanos,
}

impl Amount {
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
            cost: Nanos(self.cost.0.saturating_add(other.cost.0)),
        }
    }

    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            tokens: self.tokens.saturating_sub(other.tokens),
            cost: Nanos(self.cost.0.saturating_sub(other.cost.0)),
        }
    }

    #[must_use]
    pub fn of(self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests => self.requests,
            Unit::Tokens => self.tokens,
            Unit::Usd => self.cost.0,
        }
    }
}

/// One window: what was used in it, and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    pub used: Amount,
    /// `None`: it begins with the next call.
    pub ends: Option<WallTime>,
}

/// The newest window of each span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Windows(pub [Window; Span::ALL.len()]);

impl Windows {
    /// Counts what was used at `at`.
    pub fn add(&mut self, at: WallTime, amount: Amount) {
        for span in Span::ALL {
            let mut window = self.at(span, at);
            window.used = window.used.plus(amount);
            window.ends = window.ends.or(Some(span.end(at)));
            self.0[span as usize] = window;
        }
    }

    /// The window of `span` that is open at `now`.
    #[must_use]
    pub fn at(&self, span: Span, now: WallTime) -> Window {
        let last = self.0[span as usize];
        if last.ends.is_some_and(|ends| ends > now) {
            return last;
        }
        let ends = (span != Span::FiveHours).then(|| span.end(now));
        Window { used: Amount::default(), ends }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20 was a Friday.
    const FRIDAY: u64 = 1_795_132_800_000;
    const HOUR: u64 = 60 * MINUTE_MS;

    #[track_caller]
    fn check(span: Span, at: u64, want: u64) {
        assert_eq!(span.end(WallTime(at)).0, want, "{span:?} {at}");
    }

    #[test]
    fn each_span_ends_where_people_expect_it() {
        let noon = FRIDAY + 12 * HOUR + 1;
        check(Span::Minute, noon, FRIDAY + 12 * HOUR + MINUTE_MS);
        check(Span::FiveHours, noon, noon + 5 * HOUR);
        check(Span::Day, noon, FRIDAY + DAY_MS);
        check(Span::Week, noon, FRIDAY + 3 * DAY_MS);
        check(Span::Week, FRIDAY + 3 * DAY_MS, FRIDAY + 10 * DAY_MS);
        check(Span::Month, noon, FRIDAY + 11 * DAY_MS);
        // From the last of February of a leap year to the first of March.
        check(Span::Month, 1_709_164_800_000, 1_709_251_200_000);
    }

    #[test]
    fn what_was_used_counts_until_its_window_ends() {
        let mut windows = Windows::default();
        let call = Amount { requests: 1, tokens: 10, cost: Nanos(5) };
        windows.add(WallTime(FRIDAY), call);
        windows.add(WallTime(FRIDAY + HOUR), call);

        let used = |span, at| windows.at(span, WallTime(at)).used.tokens;
        assert_eq!(used(Span::Minute, FRIDAY + HOUR), 10);
        assert_eq!(used(Span::FiveHours, FRIDAY + 5 * HOUR - 1), 20);
        assert_eq!(used(Span::FiveHours, FRIDAY + 5 * HOUR), 0);
        assert_eq!(used(Span::Day, FRIDAY + DAY_MS), 0);
        assert_eq!(used(Span::Week, FRIDAY + DAY_MS), 20);
        assert_eq!(windows.at(Span::FiveHours, WallTime(FRIDAY + 5 * HOUR)).ends, None);
    }
}
