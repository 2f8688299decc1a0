//! Settings of usage that can be changed at run time: what overrides the file, checked as the file is.

use std::{collections::BTreeMap, time::Duration};

use broker_proto::UsageSetting;

use super::{BudgetKey, Budgets, Nanos, ScopeKind, Span, Unit};
use crate::core::policy::{Policy, Thresholds};

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("there is no setting `{0}`: `usage policy show` lists them")]
    Unknown(String),
    #[error("`{key}` must be {want}")]
    Value { key: String, want: String },
    #[error("`{0}` does not override the file: nothing to unset")]
    NotSet(String),
    #[error("{0}")]
    Contradiction(&'static str),
}

/// What counts now: the file, and over it what was set at run time.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rules {
    pub thresholds: Thresholds,
    pub budgets: Budgets,
}

enum Field {
    Percent(fn(&mut Thresholds) -> &mut u8),
    Count(fn(&mut Thresholds) -> &mut u32),
    Span(fn(&mut Thresholds) -> &mut Duration),
}

/// The thresholds by name, in the order of the file.
const FIELDS: [(&str, Field); 13] = [
    ("warning", Field::Percent(|it| &mut it.warning)),
    ("critical", Field::Percent(|it| &mut it.critical)),
    ("exhausted", Field::Percent(|it| &mut it.exhausted)),
    ("margin", Field::Percent(|it| &mut it.margin)),
    ("session_warning", Field::Percent(|it| &mut it.session_warning)),
    ("session_switch", Field::Percent(|it| &mut it.session_switch)),
    ("rate_limits", Field::Count(|it| &mut it.rate_limits)),
    ("rate_limit_window", Field::Span(|it| &mut it.rate_limit_window)),
    ("slow_replies", Field::Count(|it| &mut it.slow_replies)),
    ("slow_after", Field::Span(|it| &mut it.slow_after)),
    ("error_rate", Field::Percent(|it| &mut it.error_rate)),
    ("error_calls", Field::Count(|it| &mut it.error_calls)),
    ("error_min", Field::Count(|it| &mut it.error_min)),
];

impl Field {
    fn write(&self, thresholds: &mut Thresholds) -> String {
        match self {
            Self::Percent(field) => field(thresholds).to_string(),
            Self::Count(field) => field(thresholds).to_string(),
            Self::Span(field) => humantime::format_duration(*field(thresholds)).to_string(),
        }
    }

    /// Sets it; `Err` says what it must be.
    fn read(&self, thresholds: &mut Thresholds, text: &str) -> Result<(), &'static str> {
        match self {
            Self::Percent(field) => {
                let percent = text.parse().ok().filter(|percent| (1..=100).contains(percent));
                *field(thresholds) = percent.ok_or("a whole number from 1 to 100")?;
            }
            Self::Count(field) => {
                let count = text.parse().ok().filter(|count| (1..=64).contains(count));
                *field(thresholds) = count.ok_or("a whole number from 1 to 64")?;
            }
            Self::Span(field) => {
                let longest = Duration::from_secs(24 * 3600);
                let span = humantime::parse_duration(text).ok();
                let span = span.filter(|span| !span.is_zero() && *span <= longest);
                *field(thresholds) = span.ok_or("a duration such as 30s, at most 24h")?;
            }
        }
        Ok(())
    }
}

impl BudgetKey {
    /// `budget.model.opus.day.tokens`; the name may hold dots itself.
    fn parse(text: &str) -> Option<Self> {
        let (kind, rest) = text.strip_prefix("budget.")?.split_once('.')?;
        let kind = ScopeKind::parse(kind)?;
        let (rest, unit) = rest.rsplit_once('.')?;
        let (name, span) = match kind {
            ScopeKind::Namespace => ("*", rest),
            ScopeKind::Key | ScopeKind::Model | ScopeKind::Session => rest.rsplit_once('.')?,
        };
        let is_name = (1..=256).contains(&name.len()) && !name.chars().any(char::is_control);
        let (span, unit) = (Span::parse(span)?, Unit::parse(unit)?);
        is_name.then(|| Self { kind, name: name.to_owned(), span, unit })
    }

    fn write(&self) -> String {
        let (kind, span, unit) = (self.kind.as_str(), self.span.as_str(), self.unit.as_str());
        match self.kind {
            ScopeKind::Namespace => format!("budget.{kind}.{span}.{unit}"),
            _ => format!("budget.{kind}.{}.{span}.{unit}", self.name),
        }
    }
}

/// A budget's limit; `None` takes it away.
fn limit(unit: Unit, text: &str) -> Result<Option<u64>, &'static str> {
    if text == "none" {
        return Ok(None);
    }
    match unit {
        Unit::Requests | Unit::Tokens => {
            text.parse().map(Some).map_err(|_| "a whole number of 0 or more, or `none`")
        }
        Unit::Usd => {
            let usd = text.parse::<f64>().ok().filter(|usd| (0.0..=1e9).contains(usd));
            usd.map(|usd| Some(Nanos::from_usd(usd)))
                .map(|it| it.map(|nanos| nanos.0))
                .ok_or("an amount of USD of 0 or more, or `none`")
        }
    }
}

fn limit_text(unit: Unit, limit: u64) -> String {
    match unit {
        Unit::Requests | Unit::Tokens => limit.to_string(),
        Unit::Usd => Nanos(limit).usd().to_string(),
    }
}

impl Rules {
    /// The file alone.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self { thresholds: policy.thresholds, budgets: policy.budgets.clone() }
    }

    /// The same with one setting more.
    ///
    /// # Errors
    /// [`Invalid`] for what is no setting, or no value of it.
    fn set(&mut self, key: &str, text: &str) -> Result<(), Invalid> {
        let invalid = |want: &str| Invalid::Value { key: key.to_owned(), want: want.to_owned() };
        if let Some((_, field)) = FIELDS.iter().find(|(name, _)| *name == key) {
            return field.read(&mut self.thresholds, text).map_err(invalid);
        }
        let budget = BudgetKey::parse(key).ok_or_else(|| Invalid::Unknown(key.to_owned()))?;
        match limit(budget.unit, text).map_err(invalid)? {
            Some(limit) => self.budgets.insert(budget, limit),
            None => self.budgets.remove(&budget),
        };
        Ok(())
    }

    fn check(&self) -> Result<(), Invalid> {
        let it = &self.thresholds;
        let must = [
            (it.warning < it.critical, "`warning` must be below `critical`"),
            (it.critical < it.exhausted, "`critical` must be below `exhausted`"),
            (it.margin < it.warning, "`margin` must be below `warning`"),
            (
                it.session_warning < it.session_switch,
                "`session_warning` must be below `session_switch`",
            ),
            (it.error_min <= it.error_calls, "`error_min` must be at most `error_calls`"),
        ];
        match must.into_iter().find(|(holds, _)| !holds) {
            Some((_, sentence)) => Err(Invalid::Contradiction(sentence)),
            None => Ok(()),
        }
    }

    /// What counts with these overrides, all of which must be right, and right together.
    ///
    /// # Errors
    /// [`Invalid`] for the first that is not.
    pub fn with(file: &Self, overrides: &BTreeMap<String, String>) -> Result<Self, Invalid> {
        let mut rules = file.clone();
        for (key, text) in overrides {
            rules.set(key, text)?;
        }
        rules.check()?;
        Ok(rules)
    }

    /// The same for overrides that were right when they were set: what a new file contradicts no longer counts.
    #[must_use]
    pub fn as_far_as(file: &Self, overrides: &BTreeMap<String, String>) -> Self {
        let mut rules = file.clone();
        for (key, text) in overrides {
            let mut next = rules.clone();
            if next.set(key, text).is_ok() {
                rules = next;
            }
        }
        if rules.check().is_err() {
            rules.thresholds = file.thresholds;
        }
        rules
    }

    /// Every setting as it counts now.
    #[must_use]
    pub fn list(&self, file: &Self, overrides: &BTreeMap<String, String>) -> Vec<UsageSetting> {
        let (mut now, mut said) = (self.thresholds, file.thresholds);
        let thresholds = FIELDS.iter().map(|(key, field)| UsageSetting {
            key: (*key).to_owned(),
            value: field.write(&mut now),
            file: Some(field.write(&mut said)),
            is_overridden: overrides.contains_key(*key),
        });
        let mut all: Vec<UsageSetting> = thresholds.collect();
        let keys: std::collections::BTreeSet<_> =
            self.budgets.keys().chain(file.budgets.keys()).collect();
        all.extend(keys.into_iter().map(|key| {
            let text = |limit: &u64| limit_text(key.unit, *limit);
            let name = key.write();
            UsageSetting {
                value: self.budgets.get(key).map_or_else(|| "none".to_owned(), text),
                file: file.budgets.get(key).map(text),
                is_overridden: overrides.contains_key(&name),
                key: name,
            }
        }));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::tests::given::policy;

    fn with(pairs: &[(&str, &str)]) -> Result<Rules, String> {
        let overrides =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Rules::with(&Rules::of(&policy()), &overrides).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_policy_that_contradicts_itself_is_refused() {
        let said = |pairs: &[(&str, &str)]| with(pairs).unwrap_err();
        assert_eq!(said(&[("warning", "90")]), "`warning` must be below `critical`");
        assert_eq!(said(&[("margin", "70")]), "`margin` must be below `warning`");
        assert!(said(&[("session_switch", "75")]).contains("`session_switch`"));
        assert!(said(&[("error_min", "21")]).contains("`error_calls`"));
        assert!(with(&[("warning", "90"), ("critical", "95")]).is_ok());
    }

    #[test]
    fn a_value_that_is_none_is_told_what_it_must_be() {
        let said = |key, value| with(&[(key, value)]).unwrap_err();
        assert_eq!(said("warning", "-1"), "`warning` must be a whole number from 1 to 100");
        assert_eq!(said("rate_limits", "65"), "`rate_limits` must be a whole number from 1 to 64");
        assert!(said("slow_after", "soon").contains("a duration such as 30s"));
        assert!(said("budget.model.opus.day.usd", "NaN").contains("an amount of USD"));
        assert!(said("budget.model.opus.year.usd", "1").contains("there is no setting"));
        assert!(said("wraning", "1").contains("there is no setting `wraning`"));
    }

    #[test]
    fn a_budget_is_named_by_what_it_limits() {
        let rules = with(&[
            ("budget.model.llama3.2.5h.tokens", "1000"),
            ("budget.namespace.month.usd", "2.5"),
        ]);
        let budgets = rules.unwrap().budgets;
        let key = BudgetKey {
            kind: ScopeKind::Model,
            name: "llama3.2".into(),
            span: Span::FiveHours,
            unit: Unit::Tokens,
        };
        assert_eq!(budgets.get(&key), Some(&1_000));
        let names: Vec<String> = budgets.keys().map(BudgetKey::write).collect();
        assert_eq!(names, ["budget.namespace.month.usd", "budget.model.llama3.2.5h.tokens"]);
    }

    #[test]
    fn what_overrides_the_file_is_shown_beside_it() {
        let overrides = BTreeMap::from([("slow_after".to_owned(), "20s".to_owned())]);
        let rules = Rules::with(&Rules::of(&policy()), &overrides).unwrap();
        let all = rules.list(&Rules::of(&policy()), &overrides);
        let slow = all.iter().find(|setting| setting.key == "slow_after").unwrap();
        assert_eq!((slow.value.as_str(), slow.file.as_deref()), ("20s", Some("10s")));
        assert!(slow.is_overridden);
        assert_eq!(all.iter().filter(|setting| setting.is_overridden).count(), 1);
    }

    #[test]
    fn overrides_that_a_new_file_contradicts_no_longer_count() {
        let overrides = BTreeMap::from([("warning".to_owned(), "80".to_owned())]);
        let mut policy = policy();
        policy.thresholds.critical = 75;
        assert_eq!(Rules::as_far_as(&Rules::of(&policy), &overrides).thresholds, policy.thresholds);
    }
}
