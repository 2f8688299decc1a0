//! Times as the providers write them: delays, dates, sums of units, sentences.

use std::time::Duration;

use broker_proto::WallTime;
use http::HeaderMap;
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, format_description::well_known};

/// Longer delays are nonsense: a provider that means "never" says so in another way.
const LONGEST: f64 = 366.0 * 86_400.0;

/// When the headers say that it helps to try again: `retry-after-ms` before `retry-after`, which is seconds, with or
/// without a fraction, or an HTTP date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: WallTime) -> Option<WallTime> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let ms = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok());
    if let Some(at) = ms.and_then(|ms| after_secs(now, ms / 1000.0)) {
        return Some(at);
    }
    let after = text("retry-after")?;
    match after.parse::<f64>() {
        Ok(secs) => after_secs(now, secs),
        Err(_) => OffsetDateTime::parse(after, &well_known::Rfc2822).ok().and_then(wall),
    }
}

/// `reset` headers: a date as RFC 3339 writes it, or seconds since 1970.
pub(super) fn point(text: &str) -> Option<WallTime> {
    let text = text.trim();
    match text.parse::<f64>() {
        // Up to the year 9999, far below where f64 would lose milliseconds.
        Ok(secs) => (1.0..2.5e11).contains(&secs).then_some(WallTime((secs * 1000.0) as u64)),
        Err(_) => OffsetDateTime::parse(text, &well_known::Rfc3339).ok().and_then(wall),
    }
}

/// The sum of units that `text` begins with: `7m12s`, `59.97s`, `120ms`, `1d3h`. What follows it is ignored.
pub(super) fn sum(text: &str) -> Option<Duration> {
    let mut rest = text.trim_start();
    let mut total = None;
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (Ok(number), Some(unit)) = (number.parse::<f64>(), seconds_in(unit)) else { break };
        total = Some(total.unwrap_or(0.0) + number * unit);
        rest = tail;
    }
    total.filter(|secs| *secs <= LONGEST).map(Duration::from_secs_f64)
}

fn seconds_in(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return None,
    })
}

/// The time of `Please try again in 18.642s`.
pub(super) fn try_again(message: &str, now: WallTime) -> Option<WallTime> {
    let (_, delay) = message.split_once("try again in ")?;
    sum(delay).map(|delay| now.after(delay))
}

/// The date of `You will regain access on 2026-12-01 at 00:00 UTC`.
pub(super) fn regain_access(message: &str) -> Option<WallTime> {
    let (_, rest) = message.split_once("regain access on ")?;
    let mut words = rest.split_whitespace();
    let mut date = words.next()?.trim_matches(|c: char| !c.is_ascii_digit()).split('-');
    let mut part = || date.next()?.parse::<u16>().ok();
    let (year, month, day) = (part()?, part()?, part()?);
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let day = Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()?;
    let clock = words.find_map(|word| word.split_once(':')).and_then(|(hour, minute)| {
        let minute = minute.trim_matches(|c: char| !c.is_ascii_digit());
        Time::from_hms(hour.parse().ok()?, minute.parse().ok()?, 0).ok()
    });
    wall(PrimitiveDateTime::new(day, clock.unwrap_or(Time::MIDNIGHT)).assume_utc())
}

/// 00:00 UTC on the first day of the next month.
pub(super) fn next_month(now: WallTime) -> Option<WallTime> {
    let secs = i64::try_from(now.0 / 1000).ok()?;
    let today = OffsetDateTime::from_unix_timestamp(secs).ok()?.date();
    let month = today.month().next();
    let year = if month == Month::January { today.year() + 1 } else { today.year() };
    wall(Date::from_calendar_date(year, month, 1).ok()?.midnight().assume_utc())
}

fn after_secs(from: WallTime, secs: f64) -> Option<WallTime> {
    (0.0..=LONGEST).contains(&secs).then(|| from.after(Duration::from_secs_f64(secs)))
}

fn wall(at: OffsetDateTime) -> Option<WallTime> {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(WallTime)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20T09:00:00Z
    const NOW: WallTime = WallTime(1_795_165_200_000);

    #[track_caller]
    fn check(pairs: &[(&'static str, &str)], want: Option<u64>) {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        let got = retry_after(&headers, NOW).map(|at| at.since(NOW).as_millis() as u64);
        assert_eq!(got, want, "{pairs:?}");
    }

    #[test]
    fn retry_after_is_seconds_a_fraction_a_date_or_ms() {
        check(&[("retry-after", "7")], Some(7_000));
        check(&[("retry-after", "1.5")], Some(1_500));
        check(&[("retry-after", "Fri, 20 Nov 2026 09:01:30 GMT")], Some(90_000));
        check(&[("retry-after-ms", "250"), ("retry-after", "7")], Some(250));
        check(&[("retry-after-ms", "soon"), ("retry-after", "7")], Some(7_000));
        check(&[], None);
        for nonsense in ["", "-1", "NaN", "inf", "1e300", "soon"] {
            check(&[("retry-after", nonsense)], None);
        }
    }

    #[test]
    fn a_sum_of_units_ends_where_the_sentence_goes_on() {
        let check = |text: &str, want: Option<u64>| {
            assert_eq!(sum(text).map(|sum| sum.as_millis() as u64), want, "{text:?}");
        };
        check("12ms", Some(12));
        check("18.642s. Visit https://example.com", Some(18_642));
        check("6m0s", Some(360_000));
        check("7m12s.", Some(432_000));
        check("1h2m3s", Some(3_723_000));
        check("1d3h", Some(97_200_000));
        check("0s", Some(0));
        check("soon", None);
        check("5 minutes", None);
        check("99999999999d", None);
        check("", None);
    }

    #[test]
    fn a_reset_is_a_date_or_seconds_since_1970() {
        assert_eq!(point("2026-11-20T09:00:03Z"), Some(NOW.after(Duration::from_secs(3))));
        assert_eq!(point("1795165203"), Some(NOW.after(Duration::from_secs(3))));
        for nonsense in ["", "x", "-5", "0", "NaN"] {
            assert_eq!(point(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn the_date_in_a_sentence_is_found() {
        let text = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.";
        let december = point("2026-12-01T00:00:00Z");
        assert_eq!(regain_access(text), december);
        assert_eq!(regain_access("You will regain access on 2026-12-01."), december);
        assert_eq!(
            regain_access("you will regain access on 2026-12-01 at 06:30 UTC"),
            point("2026-12-01T06:30:00Z")
        );
        assert_eq!(regain_access("regain access on someday"), None);
    }

    #[test]
    fn the_next_month_begins_at_midnight() {
        assert_eq!(next_month(NOW), point("2026-12-01T00:00:00Z"));
        let december = point("2026-12-31T23:59:59Z").unwrap();
        assert_eq!(next_month(december), point("2027-01-01T00:00:00Z"));
    }
}
