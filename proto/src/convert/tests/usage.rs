//! Usage on the wire: what goes out comes back, and what is no figure is refused.

use std::{fmt::Debug, time::Duration};

use super::sample;
use crate::{
    LedgerFilter, LedgerLine, LevelChange, LimitForecast, Usage, UsageRecord, UsageSetting,
    UsageStatus, convert::InvalidField, pb, pb::record_usage_request::What,
};

#[track_caller]
fn check<W, D>(value: D)
where
    D: Clone + Debug + PartialEq + Into<W> + TryFrom<W>,
    <D as TryFrom<W>>::Error: Debug,
{
    let copy = value.clone();
    let wire: W = value.into();
    assert_eq!(D::try_from(wire).unwrap(), copy);
}

#[test]
fn what_was_used_survives_the_wire() {
    check::<pb::GetUsageStatusResponse, UsageStatus>(sample::usage_status());
    check::<pb::LimitForecast, LimitForecast>(sample::limit_forecast());
    check::<pb::LevelChange, LevelChange>(sample::level_change());
    check::<pb::LedgerLine, LedgerLine>(sample::ledger_line());
    check::<pb::LedgerFilter, LedgerFilter>(sample::ledger_filter());
    check::<pb::LedgerFilter, LedgerFilter>(LedgerFilter::default());
    let setting = UsageSetting {
        key: "warning".into(),
        value: "60".into(),
        file: Some("70".into()),
        is_overridden: true,
    };
    check::<pb::UsageSetting, UsageSetting>(setting);
}

#[test]
fn what_is_recorded_survives_the_wire() {
    for record in [
        UsageRecord::Tokens(Usage { input_tokens: Some(7), ..Usage::default() }),
        UsageRecord::RateLimit,
        UsageRecord::Slow(Duration::from_millis(15_500)),
        UsageRecord::Success,
        UsageRecord::Error,
        UsageRecord::Session { complexity: Some(0.5), rating: Some(5) },
    ] {
        check::<What, UsageRecord>(record);
    }
}

#[track_caller]
fn refused(what: What, field: &str) {
    let said: InvalidField = UsageRecord::try_from(what).unwrap_err();
    assert_eq!(said.field, field);
}

#[test]
fn figures_that_are_none_are_refused_by_name() {
    let tokens = |input: Option<u64>| {
        What::Tokens(pb::Usage { input_tokens: input, ..pb::Usage::default() })
    };
    refused(tokens(None), "tokens");
    // How -1 arrives.
    refused(tokens(Some(u64::MAX)), "usage.input_tokens");
    for seconds in [-1.0, f64::NAN, f64::INFINITY, 86_401.0] {
        refused(What::Slow(pb::RecordedReply { seconds }), "slow.seconds");
    }
    let opinion = |complexity, rating| What::Opinion(pb::RecordedOpinion { complexity, rating });
    for complexity in [-0.1, 1.1, f64::NAN] {
        refused(opinion(Some(complexity), None), "opinion.complexity");
    }
    refused(opinion(None, Some(0)), "opinion.rating");
    refused(opinion(None, Some(6)), "opinion.rating");
    refused(opinion(None, None), "opinion");
}

#[test]
fn a_figure_that_cannot_be_is_as_good_as_unknown() {
    let usage = Usage { input_tokens: Some(u64::MAX), output_tokens: Some(5), ..Usage::default() };
    let believed = usage.believable();
    assert_eq!((believed.input_tokens, believed.output_tokens), (None, Some(5)));
}
