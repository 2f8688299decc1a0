//! What is left, as the headers of any reply say it.

use broker_proto::{RateLimit, WallTime};
use http::HeaderMap;

use super::when;

/// A share has no unit of its own: a window known only as a fraction spent is given this limit.
const WHOLE: u64 = 10_000;

/// `anthropic-ratelimit-*`, for keys and for subscriptions (`unified`). Any header may be missing.
pub(super) fn anthropic(headers: &HeaderMap) -> Vec<RateLimit> {
    let text = |name: &str| header(headers, &format!("anthropic-ratelimit-{name}"));
    let counted = ["requests", "tokens", "input-tokens", "output-tokens"].map(|name| RateLimit {
        name: name.to_owned(),
        limit: text(&format!("{name}-limit")).and_then(number),
        remaining: text(&format!("{name}-remaining")).and_then(number),
        resets_at: text(&format!("{name}-reset")).and_then(when::point),
    });
    let shares =
        ["5h", "7d"].map(|name| share(name, |what| text(&format!("unified-{name}-{what}"))));
    let overall = share("unified", |what| text(&format!("unified-{what}")));
    let has_windows = shares.iter().any(said_something);
    let overall = Some(overall).filter(|_| !has_windows);
    counted.into_iter().chain(shares).chain(overall).filter(said_something).collect()
}

/// A window of a subscription: `utilization` is spent, and may pass 1.0.
fn share<'a>(name: &str, text: impl Fn(&str) -> Option<&'a str>) -> RateLimit {
    let is_rejected = text("status") == Some("rejected");
    let spent = text("utilization").and_then(|text| text.parse::<f64>().ok());
    let left = spent.filter(|spent| *spent >= 0.0).map(|spent| {
        // Between 0 and WHOLE, so the cast loses nothing but the fraction.
        ((1.0 - spent).max(0.0) * WHOLE as f64).round() as u64
    });
    let remaining = if is_rejected { Some(0) } else { left };
    RateLimit {
        name: name.to_owned(),
        limit: remaining.map(|_| WHOLE),
        remaining,
        resets_at: text("reset").and_then(when::point).filter(|_| remaining.is_some()),
    }
}

/// When a subscription's refusal ends: the latest reset among its rejected windows.
pub(super) fn unified_reset(headers: &HeaderMap) -> Option<WallTime> {
    let text = |name: &str| header(headers, &format!("anthropic-ratelimit-unified-{name}"));
    let windows = ["", "5h-", "7d-", "overage-"];
    let rejected = windows.iter().filter(|w| text(&format!("{w}status")) == Some("rejected"));
    rejected.filter_map(|w| text(&format!("{w}reset")).and_then(when::point)).max()
}

/// Whether a subscription's window refused the call.
pub(super) fn is_unified_rejected(headers: &HeaderMap) -> bool {
    header(headers, "anthropic-ratelimit-unified-status") == Some("rejected")
}

/// `x-ratelimit-*`: resets are delays here.
pub(super) fn openai(headers: &HeaderMap, now: WallTime) -> Vec<RateLimit> {
    let families = ["requests", "tokens", "project-requests", "project-tokens"];
    let of = |name: &str| {
        let text = |what: &str| header(headers, &format!("x-ratelimit-{what}-{name}"));
        RateLimit {
            name: name.to_owned(),
            limit: text("limit").and_then(number),
            remaining: text("remaining").and_then(number),
            resets_at: text("reset").and_then(when::sum).map(|delay| now.after(delay)),
        }
    };
    families.into_iter().map(of).filter(said_something).collect()
}

/// When the windows that are used up have all come back.
pub(super) fn reset_of_used_up(limits: &[RateLimit]) -> Option<WallTime> {
    limits
        .iter()
        .filter(|limit| limit.remaining == Some(0))
        .filter_map(|limit| limit.resets_at)
        .max()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn said_something(limit: &RateLimit) -> bool {
    limit.limit.is_some() || limit.remaining.is_some() || limit.resets_at.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime(1_795_165_200_000);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn limit(name: &str, limit: u64, remaining: u64, in_ms: u64) -> RateLimit {
        RateLimit {
            name: name.to_owned(),
            limit: Some(limit),
            remaining: Some(remaining),
            resets_at: Some(WallTime(NOW.0 + in_ms)),
        }
    }

    #[test]
    fn anthropic_counts_are_read_and_missing_ones_left_out() {
        let headers = headers(&[
            ("anthropic-ratelimit-requests-limit", "50"),
            ("anthropic-ratelimit-requests-remaining", "49"),
            ("anthropic-ratelimit-requests-reset", "2026-11-20T09:00:03Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "x"),
        ]);
        assert_eq!(anthropic(&headers), [limit("requests", 50, 49, 3_000)]);
    }

    #[test]
    fn a_subscription_says_what_is_spent() {
        let headers = headers(&[
            ("anthropic-ratelimit-unified-status", "rejected"),
            ("anthropic-ratelimit-unified-reset", "1795168800"),
            ("anthropic-ratelimit-unified-5h-status", "rejected"),
            ("anthropic-ratelimit-unified-5h-utilization", "1.02"),
            ("anthropic-ratelimit-unified-5h-reset", "1795168800"),
            ("anthropic-ratelimit-unified-7d-status", "allowed_warning"),
            ("anthropic-ratelimit-unified-7d-utilization", "0.42"),
            ("anthropic-ratelimit-unified-7d-reset", "2026-11-24T09:00:00Z"),
        ]);
        assert_eq!(
            anthropic(&headers),
            [limit("5h", 10_000, 0, 3_600_000), limit("7d", 10_000, 5_800, 345_600_000)]
        );
        assert!(is_unified_rejected(&headers));
        assert_eq!(unified_reset(&headers), Some(WallTime(NOW.0 + 3_600_000)));
    }

    #[test]
    fn openai_resets_are_delays() {
        let headers = headers(&[
            ("x-ratelimit-limit-requests", "500"),
            ("x-ratelimit-remaining-requests", "499"),
            ("x-ratelimit-reset-requests", "120ms"),
            ("x-ratelimit-limit-tokens", "30000"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "6m0s"),
        ]);
        let limits = openai(&headers, NOW);
        assert_eq!(limits, [limit("requests", 500, 499, 120), limit("tokens", 30_000, 0, 360_000)]);
        assert_eq!(reset_of_used_up(&limits), Some(WallTime(NOW.0 + 360_000)));
    }
}
