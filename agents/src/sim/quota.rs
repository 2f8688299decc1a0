//! Quotas: what is left, when it comes back, and whether a request may pass. Pure: time is passed in, as the
//! time since the simulator started.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::script::{Key, Span, Wire, takes};

/// One limit over one scope. A pattern over several models is one pool that they share.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuotaSpec {
    /// A quota with the name of an earlier one replaces it.
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<Wire>,
    /// An id, or the beginning of one followed by `*` (a family).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Only requests with this key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Key>,
    pub kind: Kind,
    /// Requests, tokens, or USD.
    pub limit: f64,
    /// Absent: it never comes back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Span>,
    #[serde(default)]
    pub refill: Refill,
    /// The preset that answers when it is used up, instead of the wire's own refusal for the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Requests,
    /// Prompt tokens that were not read from the cache, plus output tokens.
    Tokens,
    InputTokens,
    OutputTokens,
    Money,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refill {
    /// Continuously, `limit` in every `per`.
    #[default]
    Bucket,
    /// All at once, at the end of each `per` counted from the quota's start.
    Window,
}

/// Whose request it is.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) wire: Wire,
    pub(super) model: String,
    pub(super) key: Option<Key>,
}

/// A quota that refused.
#[derive(Debug, Clone)]
pub(super) struct UsedUp {
    pub(super) spec: QuotaSpec,
    pub(super) left: f64,
    pub(super) needed: f64,
    /// Until it would pass; `None`: never by itself.
    pub(super) wait: Option<Duration>,
    /// More than the whole limit: waiting is useless.
    pub(super) too_large: bool,
}

/// What rate-limit headers show of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gauge {
    pub(super) kind: Kind,
    pub(super) limit: f64,
    pub(super) left: f64,
    /// Until it is full again.
    pub(super) full_in: Duration,
}

#[derive(Debug, Clone)]
struct Bucket {
    spec: QuotaSpec,
    /// May fall below zero: output is charged when it is known.
    left: f64,
    at: Duration,
    began: Duration,
}

impl Bucket {
    fn new(spec: QuotaSpec, now: Duration) -> Self {
        Self { left: spec.limit, spec, at: now, began: now }
    }

    fn takes(&self, scope: &Scope) -> bool {
        self.spec.wire.is_none_or(|wire| wire == scope.wire)
            && takes(self.spec.model.as_deref(), &scope.model)
            && self.spec.key.as_ref().is_none_or(|key| Some(key) == scope.key.as_ref())
    }

    /// The `per` of a quota that comes back.
    fn period(&self) -> Option<Duration> {
        self.spec.per.map(|span| span.0).filter(|per| !per.is_zero())
    }

    fn refresh(&mut self, now: Duration) {
        if let Some(per) = self.period() {
            match self.spec.refill {
                Refill::Bucket => {
                    let gained = self.spec.limit * (now.saturating_sub(self.at)).as_secs_f64()
                        / per.as_secs_f64();
                    self.left = (self.left + gained).min(self.spec.limit);
                }
                Refill::Window => {
                    let window =
                        |at: Duration| at.saturating_sub(self.began).as_nanos() / per.as_nanos();
                    if window(now) > window(self.at) {
                        self.left = self.spec.limit;
                    }
                }
            }
        }
        self.at = now;
    }

    /// Until `left` reaches `wanted`.
    fn wait(&self, wanted: f64) -> Option<Duration> {
        let per = self.period()?;
        if wanted <= self.left {
            return Some(Duration::ZERO);
        }
        match self.spec.refill {
            Refill::Bucket => Duration::try_from_secs_f64(
                (wanted - self.left) / self.spec.limit * per.as_secs_f64(),
            )
            .ok(),
            Refill::Window => {
                let into = self.at.saturating_sub(self.began).as_nanos() % per.as_nanos();
                Some(
                    per.saturating_sub(Duration::from_nanos(
                        u64::try_from(into).unwrap_or(u64::MAX),
                    )),
                )
            }
        }
    }
}

/// All quotas of a run.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    buckets: Vec<Bucket>,
}

impl Quotas {
    pub(super) fn set(&mut self, spec: QuotaSpec, now: Duration) {
        let bucket = Bucket::new(spec, now);
        match self.buckets.iter_mut().find(|old| old.spec.name == bucket.spec.name) {
            Some(old) => *old = bucket,
            None => self.buckets.push(bucket),
        }
    }

    pub(super) fn clear(&mut self) {
        self.buckets.clear();
    }

    /// Sets what is left of the quotas that `pattern` names; returns how many those were.
    pub(super) fn fill(&mut self, pattern: &str, share: f64, now: Duration) -> usize {
        let mut named = 0;
        for bucket in
            self.buckets.iter_mut().filter(|bucket| takes(Some(pattern), &bucket.spec.name))
        {
            bucket.refresh(now);
            bucket.left = bucket.spec.limit * share;
            named += 1;
        }
        named
    }

    /// Charges one request of `input` tokens to every quota of its scope, or says which one refuses; then
    /// nothing was charged.
    pub(super) fn admit(
        &mut self,
        scope: &Scope,
        input: u64,
        now: Duration,
    ) -> Result<(), Box<UsedUp>> {
        #[expect(clippy::cast_precision_loss, reason = "token counts stay far below 2^52")]
        let need = |kind| match kind {
            Kind::Requests => 1.0,
            Kind::Tokens | Kind::InputTokens => input as f64,
            // Known only afterwards: some must be left.
            Kind::OutputTokens | Kind::Money => f64::MIN_POSITIVE,
        };
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.takes(scope)) {
            bucket.refresh(now);
            let needed = need(bucket.spec.kind);
            if bucket.left < needed {
                return Err(Box::new(UsedUp {
                    left: bucket.left.max(0.0),
                    needed,
                    wait: bucket.wait(needed),
                    too_large: needed > bucket.spec.limit,
                    spec: bucket.spec.clone(),
                }));
            }
        }
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.takes(scope)) {
            match bucket.spec.kind {
                Kind::OutputTokens | Kind::Money => {}
                kind @ (Kind::Requests | Kind::Tokens | Kind::InputTokens) => {
                    bucket.left -= need(kind)
                }
            }
        }
        Ok(())
    }

    /// Charges what the answer came to.
    pub(super) fn settle(&mut self, scope: &Scope, output: u64, usd: f64, now: Duration) {
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.takes(scope)) {
            bucket.refresh(now);
            #[expect(clippy::cast_precision_loss, reason = "token counts stay far below 2^52")]
            match bucket.spec.kind {
                Kind::Tokens | Kind::OutputTokens => bucket.left -= output as f64,
                Kind::Money => bucket.left -= usd,
                Kind::Requests | Kind::InputTokens => {}
            }
        }
    }

    /// The tightest quota of each kind that applies.
    pub(super) fn gauges(&mut self, scope: &Scope, now: Duration) -> Vec<Gauge> {
        let mut gauges: Vec<Gauge> = Vec::new();
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.takes(scope)) {
            bucket.refresh(now);
            let gauge = Gauge {
                kind: bucket.spec.kind,
                limit: bucket.spec.limit,
                left: bucket.left.max(0.0),
                full_in: bucket.wait(bucket.spec.limit).unwrap_or_default(),
            };
            match gauges.iter_mut().find(|other| other.kind == gauge.kind) {
                Some(other) if other.left <= gauge.left => {}
                Some(other) => *other = gauge,
                None => gauges.push(gauge),
            }
        }
        gauges
    }

    /// For `GET /_sim/quotas`.
    pub(super) fn list(&mut self, now: Duration) -> Vec<serde_json::Value> {
        self.buckets
            .iter_mut()
            .map(|bucket| {
                bucket.refresh(now);
                serde_json::json!({
                    "quota": bucket.spec,
                    "left": bucket.left,
                    "full_in_ms": bucket.wait(bucket.spec.limit).map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn quota(kind: Kind, limit: f64, per: Option<u64>, refill: Refill) -> Quotas {
        let mut quotas = Quotas::default();
        let spec = QuotaSpec {
            name: "q".into(),
            wire: Some(Wire::Anthropic),
            model: Some("claude-opus-*".into()),
            key: None,
            kind,
            limit,
            per: per.map(|seconds| Span(SECOND * u32::try_from(seconds).unwrap())),
            refill,
            refusal: None,
        };
        quotas.set(spec, Duration::ZERO);
        quotas
    }

    fn opus() -> Scope {
        Scope { wire: Wire::Anthropic, model: "claude-opus-5-5".into(), key: None }
    }

    #[test]
    fn a_window_refuses_when_used_up_and_comes_back_whole() {
        let mut quotas = quota(Kind::Requests, 2.0, Some(6), Refill::Window);
        for _ in 0..2 {
            quotas.admit(&opus(), 10, SECOND).unwrap();
        }

        let refused = quotas.admit(&opus(), 10, SECOND).unwrap_err();

        assert_eq!(refused.wait, Some(SECOND * 5));
        quotas.admit(&opus(), 10, SECOND * 6).unwrap();
    }

    #[test]
    fn a_bucket_refills_continuously() {
        let mut quotas = quota(Kind::InputTokens, 100.0, Some(10), Refill::Bucket);
        quotas.admit(&opus(), 100, Duration::ZERO).unwrap();

        let refused = quotas.admit(&opus(), 50, Duration::ZERO).unwrap_err();

        assert_eq!(refused.wait, Some(SECOND * 5));
        quotas.admit(&opus(), 50, SECOND * 5).unwrap();
    }

    #[test]
    fn models_of_a_family_share_one_pool_and_others_do_not() {
        let mut quotas = quota(Kind::Requests, 1.0, None, Refill::Bucket);
        quotas.admit(&opus(), 1, SECOND).unwrap();

        let other = Scope { model: "claude-opus-4-8".into(), ..opus() };
        let refused = quotas.admit(&other, 1, SECOND).unwrap_err();

        assert_eq!(refused.wait, None, "without `per` it never comes back");
        quotas.admit(&Scope { model: "claude-sonnet-5-5".into(), ..opus() }, 1, SECOND).unwrap();
    }

    #[test]
    fn more_than_the_whole_limit_is_too_large() {
        let mut quotas = quota(Kind::Tokens, 100.0, Some(60), Refill::Bucket);

        assert!(quotas.admit(&opus(), 101, SECOND).unwrap_err().too_large);
    }

    #[test]
    fn money_is_spent_by_answers_and_refuses_afterwards() {
        let mut quotas = quota(Kind::Money, 0.01, None, Refill::Bucket);
        quotas.admit(&opus(), 1_000, SECOND).unwrap();
        quotas.settle(&opus(), 100, 0.02, SECOND);

        assert!(quotas.admit(&opus(), 1, SECOND).is_err());
        assert_eq!(quotas.fill("*", 1.0, SECOND), 1);
        quotas.admit(&opus(), 1, SECOND).unwrap();
    }

    #[test]
    fn a_key_has_its_own_quota() {
        let mut quotas = quota(Kind::Requests, 1.0, None, Refill::Bucket);
        quotas.buckets[0].spec.key = Some(Key::new("a"));
        let with = |key: &str| Scope { key: Some(Key::new(key)), ..opus() };
        quotas.admit(&with("a"), 1, SECOND).unwrap();

        assert!(quotas.admit(&with("a"), 1, SECOND).is_err());
        quotas.admit(&with("b"), 1, SECOND).unwrap();
    }
}
