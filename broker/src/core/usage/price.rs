//! What a call costs. Sums are kept in whole billionths of a dollar, so that they are exact in any order.

use broker_proto::{FailureClass, Usage};

use crate::core::policy::Prices;

/// Billionths of a USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Rounded up; what is no amount is nothing, and what is too much is the most there is.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
    pub fn from_usd(usd: f64) -> Self {
        // A sum of prices is a little off in its last bits; that must not become another billionth.
        Self((usd * 1e9 - 1e-3).ceil() as u64)
    }

    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "for display; millions of dollars are exact")]
    pub fn usd(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

/// USD of one call; `None` when a price or a count is not known.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "token counts are far below 2^52")]
pub fn cost(prices: Option<Prices>, usage: Usage) -> Option<f64> {
    let prices = prices?;
    if prices == (Prices { input: 0.0, output: 0.0, cache_read: 0.0, cache_write: 0.0 }) {
        return Some(0.0);
    }
    let dollars = |tokens: u64, price: f64| tokens as f64 * price / 1e6;
    Some(
        dollars(usage.input_tokens?, prices.input)
            + dollars(usage.output_tokens?, prices.output)
            + dollars(usage.cache_read_tokens.unwrap_or(0), prices.cache_read)
            + dollars(usage.cache_write_tokens.unwrap_or(0), prices.cache_write),
    )
}

/// Tokens of every kind, as far as they are known. Output holds the reasoning.
#[must_use]
pub fn tokens(usage: Usage) -> u64 {
    let kinds = [
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
    ];
    kinds.into_iter().flatten().fold(0, u64::saturating_add)
}

/// Whether a provider that failed so has certainly not worked, so that an unknown figure is nothing.
#[must_use]
pub fn is_unbilled(class: FailureClass) -> bool {
    match class {
        FailureClass::RateLimited
        | FailureClass::QuotaExhausted
        | FailureClass::CreditExhausted
        | FailureClass::ContextTooLong
        | FailureClass::RequestTooLarge
        | FailureClass::InvalidRequest
        | FailureClass::CredentialsRejected
        | FailureClass::ModelNotFound
        | FailureClass::Unreachable => true,
        // These can come in the middle of an answer.
        FailureClass::Overloaded
        | FailureClass::ContentRefused
        | FailureClass::Timeout
        | FailureClass::Truncated
        | FailureClass::MalformedReply
        | FailureClass::AgentLost
        | FailureClass::Budget
        | FailureClass::Cancelled
        | FailureClass::Internal => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_unknown_where_a_count_or_a_price_is() {
        let prices = Prices { input: 4.0, output: 20.0, cache_read: 0.2, cache_write: 5.0 };
        let usage = Usage {
            input_tokens: Some(1_000_000),
            output_tokens: Some(100_000),
            cache_read_tokens: Some(1_000_000),
            ..Usage::default()
        };
        assert_eq!(cost(Some(prices), usage), Some(4.0 + 2.0 + 0.2));
        assert_eq!(cost(None, usage), None);
        assert_eq!(cost(Some(prices), Usage { output_tokens: None, ..usage }), None);
    }

    #[test]
    fn dollars_that_are_none_are_nothing() {
        assert_eq!(Nanos::from_usd(2.5), Nanos(2_500_000_000));
        assert_eq!(Nanos::from_usd(0.1 + 0.2), Nanos(300_000_000));
        assert_eq!(Nanos::from_usd(f64::NAN), Nanos(0));
        assert_eq!(Nanos::from_usd(-1.0), Nanos(0));
        assert_eq!(Nanos::from_usd(f64::INFINITY), Nanos(u64::MAX));
    }
}
