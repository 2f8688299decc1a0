//! When sessions move, and who receives them, as it can be changed at run time: what overrides the file, checked as a
//! whole before it counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use broker_proto::{ModelName, Preservation, UsageSetting};

use super::Settings;
use crate::core::policy::{Model, Thresholds};

/// The shortest time between two saved packages of one session, and the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30 * 86_400);
/// How a limit of one model begins; its name follows.
pub const LIMIT: &str = "limit.";

/// A policy that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("there is no setting `{0}` of handoffs: `brokerctl handoff config` lists them")]
    Unknown(String),
    #[error("`{key}` must be {want}")]
    Value { key: String, want: &'static str },
    #[error("`{0}` does not override the file: nothing to unset")]
    NotSet(String),
    #[error("`{key}`: no model `{model}` is configured; `brokerctl models` lists them")]
    Model { key: String, model: String },
    #[error(
        "the limit of {model}, {limit} %, must lie above the warning at {warning} % (`brokerctl usage policy show`)"
    )]
    BelowWarning { model: ModelName, limit: u8, warning: u8 },
    #[error("nobody would be left who may receive sessions: keep a model, or turn `auto` off")]
    NoReceiver,
}

/// What a policy is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub models: &'a BTreeMap<ModelName, Model>,
    pub thresholds: &'a Thresholds,
}

/// Settings by name, in the order of the file.
const KEYS: [&str; 5] = ["auto", "auto_switch", "preserve", "checkpoint_every", "receivers"];

impl Known<'_> {
    fn model(self, key: &str, name: &str) -> Result<ModelName, Invalid> {
        let found = ModelName::parse(name).ok().filter(|name| self.models.contains_key(name));
        found.ok_or_else(|| Invalid::Model { key: key.to_owned(), model: name.to_owned() })
    }
}

impl Settings {
    /// The same with one setting more.
    fn set(&mut self, key: &str, text: &str, known: Known<'_>) -> Result<(), Invalid> {
        let invalid = |want| Invalid::Value { key: key.to_owned(), want };
        match key {
            "auto" => self.auto = claim(text).map_err(invalid)?,
            "auto_switch" => self.auto_switch = claim(text).map_err(invalid)?,
            "preserve" => {
                let level = Preservation::parse(text);
                let want = "minimal, standard, full or complete";
                self.preserve = level.ok_or_else(|| invalid(want))?;
            }
            "checkpoint_every" => self.checkpoint_every = interval(text).map_err(invalid)?,
            "receivers" if text == "all" => self.receivers = None,
            "receivers" => {
                let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
                let names: Result<BTreeSet<_>, _> =
                    names.map(|name| known.model(key, name)).collect();
                self.receivers = Some(names?);
            }
            _ => {
                let Some(name) = key.strip_prefix(LIMIT) else {
                    return Err(Invalid::Unknown(key.to_owned()));
                };
                let model = known.model(key, name)?;
                let number = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
                let percent = number.filter(|percent| (1..=100).contains(percent));
                let percent = percent.ok_or_else(|| invalid("a whole percentage from 1 to 100"))?;
                self.limits.insert(model, percent);
            }
        }
        Ok(())
    }

    fn check(&self, known: Known<'_>) -> Result<(), Invalid> {
        if self.receivers.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err(Invalid::NoReceiver);
        }
        let warning = known.thresholds.warning;
        match self.limits.iter().find(|(_, limit)| **limit <= warning) {
            Some((model, limit)) => {
                Err(Invalid::BelowWarning { model: model.clone(), limit: *limit, warning })
            }
            None => Ok(()),
        }
    }

    /// What counts with these overrides, of which those that are `changed` must be right, and all right together. Of the
    /// others, what a new file contradicts does not count: see [`Settings::as_far_as`].
    ///
    /// # Errors
    /// [`Invalid`] for the first that is not.
    pub fn with(
        file: &Self,
        overrides: &BTreeMap<String, String>,
        changed: &BTreeSet<String>,
        known: Known<'_>,
    ) -> Result<Self, Invalid> {
        let (new, old): (BTreeMap<_, _>, BTreeMap<_, _>) =
            overrides.clone().into_iter().partition(|(key, _)| changed.contains(key));
        let mut settings = Self::as_far_as(file, &old, known);
        for (key, text) in &new {
            settings.set(key, text, known)?;
        }
        settings.check(known)?;
        Ok(settings)
    }

    /// The same for overrides that were right when they were set: what a new file contradicts no longer counts.
    #[must_use]
    pub fn as_far_as(file: &Self, overrides: &BTreeMap<String, String>, known: Known<'_>) -> Self {
        let mut settings = file.clone();
        for (key, text) in overrides {
            let mut next = settings.clone();
            if next.set(key, text, known).and_then(|()| next.check(known)).is_ok() {
                settings = next;
            }
        }
        settings
    }

    /// Every setting as it counts now, a limit for each model.
    #[must_use]
    pub fn list(
        &self,
        file: &Self,
        overrides: &BTreeMap<String, String>,
        models: &[&ModelName],
    ) -> Vec<UsageSetting> {
        let named = KEYS.map(|key| (key.to_owned(), self.text(key), file.text(key)));
        let limits = models.iter().map(|model| {
            let limit = |of: &Self| of.limits.get(*model).map(|limit| format!("{limit}%"));
            let none = || "none".to_owned();
            let (now, said) = (limit(self), limit(file));
            (format!("{LIMIT}{model}"), now.unwrap_or_else(none), said.unwrap_or_else(none))
        });
        let setting = |(key, value, file): (String, String, String)| UsageSetting {
            is_overridden: overrides.contains_key(&key),
            file: Some(file),
            key,
            value,
        };
        let is_gone = |key: &&String| {
            let name = key.strip_prefix(LIMIT);
            name.is_some_and(|name| !models.iter().any(|model| model.as_str() == name))
        };
        let gone = overrides.keys().filter(is_gone).map(|key| {
            let said = overrides.get(key).map(String::as_str).unwrap_or_default();
            let value = format!("ignored ({said}): no such model is configured");
            (key.clone(), value, "none".to_owned())
        });
        named.into_iter().chain(limits).chain(gone).map(setting).collect()
    }

    fn text(&self, key: &str) -> String {
        match key {
            "auto" => self.auto.to_string(),
            "auto_switch" => self.auto_switch.to_string(),
            "preserve" => self.preserve.as_str().to_owned(),
            "checkpoint_every" => self.checkpoint_every.map_or_else(
                || "off".to_owned(),
                |every| humantime::format_duration(every).to_string(),
            ),
            _ => match &self.receivers {
                None => "all".to_owned(),
                Some(names) => written(names),
            },
        }
    }
}

/// A list of models as the setting is written.
#[must_use]
pub fn written(names: &BTreeSet<ModelName>) -> String {
    names.iter().map(ModelName::as_str).collect::<Vec<_>>().join(",")
}

fn claim(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "true or false")
}

fn interval(text: &str) -> Result<Option<Duration>, &'static str> {
    if matches!(text, "off" | "none" | "0" | "0s") {
        return Ok(None);
    }
    let every = humantime::parse_duration(text).ok();
    let every = every.filter(|every| (SHORTEST..=LONGEST).contains(every));
    every.map(Some).ok_or("a duration such as 30m, from 1s to 30days, or `off`")
}

impl Thresholds {
    /// The same where `limit` percent count as all of it. What comes before a limit still comes before it: between the
    /// warning and the limit a package is prepared.
    #[must_use]
    pub fn limited(self, limit: u8) -> Self {
        let exhausted = self.exhausted.min(limit);
        let warning = self.warning.min(exhausted);
        let between = warning + (exhausted - warning) / 2;
        let critical = if self.critical < exhausted { self.critical } else { between };
        let session_switch = self.session_switch.min(limit);
        let session_warning = self.session_warning.min(session_switch);
        Self { warning, critical, exhausted, session_warning, session_switch, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{policy::Policy, tests::given::policy, usage::Level};

    fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn with_of(policy: &Policy, pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let known = Known { models: &policy.models, thresholds: &policy.thresholds };
        let overrides = overrides(pairs);
        let changed = overrides.keys().cloned().collect();
        let settings = Settings::with(&policy.handoff, &overrides, &changed, known);
        settings.map_err(|invalid| invalid.to_string())
    }

    fn with(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        with_of(&policy(), pairs)
    }

    fn opus() -> ModelName {
        ModelName::parse("opus").unwrap()
    }

    #[test]
    fn what_is_set_counts() {
        let settings = with(&[
            ("auto", "false"),
            ("auto_switch", "true"),
            ("preserve", "standard"),
            ("checkpoint_every", "30m"),
            ("receivers", "sonnet, local"),
            ("limit.opus", "80%"),
        ]);
        let settings = settings.unwrap();
        assert!(!settings.auto && settings.auto_switch);
        assert_eq!(settings.preserve, Preservation::Standard);
        assert_eq!(settings.checkpoint_every, Some(Duration::from_secs(1_800)));
        assert!(!settings.may_receive(&opus()));
        assert_eq!(settings.limits.get(&opus()), Some(&80));
    }

    #[test]
    fn a_policy_that_contradicts_itself_is_refused_with_the_reason() {
        let said = |pairs: &[(&str, &str)]| with(pairs).unwrap_err();
        for limit in ["0", "0%", "101", "-1", "eighty", ""] {
            let said = said(&[("limit.opus", limit)]);
            assert_eq!(said, "`limit.opus` must be a whole percentage from 1 to 100", "{limit}");
        }
        assert!(said(&[("limit.opus", "70")]).contains("must lie above the warning at 70 %"));
        assert!(said(&[("limit.opsu", "80")]).contains("no model `opsu` is configured"));
        assert!(said(&[("receivers", "")]).contains("nobody would be left"));
        assert!(said(&[("receivers", "opus,gtp")]).contains("`gtp`"));
        assert!(said(&[("auto", "yes")]).contains("true or false"));
        assert!(said(&[("checkpoint_every", "1ms")]).contains("from 1s"));
        assert!(said(&[("cooldown", "1s")]).contains("there is no setting `cooldown`"));
    }

    #[test]
    fn what_a_new_file_contradicts_no_longer_counts_and_the_rest_does() {
        let mut policy = policy();
        policy.thresholds.warning = 82;
        let known = Known { models: &policy.models, thresholds: &policy.thresholds };
        let set = overrides(&[("limit.opus", "80"), ("auto_switch", "true")]);
        let settings = Settings::as_far_as(&policy.handoff, &set, known);
        assert!(settings.limits.is_empty() && settings.auto_switch);
    }

    #[test]
    fn a_limit_of_a_model_that_is_gone_is_ignored_shown_and_in_nobodys_way() {
        let mut policy = policy();
        policy.models.remove(&opus());
        let known = Known { models: &policy.models, thresholds: &policy.thresholds };
        let set = overrides(&[("limit.opus", "80"), ("auto_switch", "true")]);
        let changed = BTreeSet::from(["auto_switch".to_owned()]);
        let settings = Settings::with(&policy.handoff, &set, &changed, known).unwrap();
        assert!(settings.auto_switch && settings.limits.is_empty());
        let models: Vec<&ModelName> = policy.models.keys().collect();
        let shown = settings.list(&policy.handoff, &set, &models);
        let gone = shown.iter().find(|it| it.key == "limit.opus").unwrap();
        assert!(gone.is_overridden && gone.value.starts_with("ignored (80)"), "{gone:?}");
        // Nobody sets one anew.
        let changed = BTreeSet::from(["limit.opus".to_owned()]);
        assert!(Settings::with(&policy.handoff, &set, &changed, known).is_err());
    }

    #[test]
    fn a_limited_model_is_warned_prepared_and_moved_in_this_order() {
        let limited = Thresholds::default().limited(80);
        let level = |used| limited.level(used, 100);
        let levels: Vec<Level> = [69, 70, 74, 75, 79, 80].map(level).into();
        let (healthy, warning, critical) = (Level::Healthy, Level::Warning, Level::Critical);
        assert_eq!(levels, [healthy, warning, warning, critical, critical, Level::Exhausted]);
        let session = |tokens| limited.of_session(Level::Healthy, tokens, 200_000);
        assert_eq!(session(159_999), Level::Critical);
        assert_eq!(session(160_000), Level::Exhausted);
        assert_eq!(Thresholds::default().limited(100), Thresholds::default());
    }
}
