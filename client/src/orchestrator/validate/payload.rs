//! The check of a payload: its keys, its age, its size.

use serde_json::{Map, Value};

use super::{Checked, Rules, Size, age_of};
use crate::orchestrator::{
    finding::{Fault, Finding},
    kind::Kind,
    payload::Level,
    room,
    state::time_of,
};

type Object = Map<String, Value>;

/// What a field must hold.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Count,
    Object,
    List,
}

impl Form {
    fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.as_str().is_some_and(|text| !text.trim().is_empty()),
            Self::Count => value.is_u64(),
            Self::Object => value.is_object(),
            Self::List => value.is_array(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Text => "must be a text and not empty",
            Self::Count => "must be a whole number, 0 or more",
            Self::Object => "must be an object",
            Self::List => "must be a list",
        }
    }
}

/// From which level on a payload has which keys.
const KEYS: [(Level, &str, Form); 11] = [
    (Level::Minimal, "handoff_id", Form::Text),
    (Level::Minimal, "summary", Form::Object),
    (Level::Minimal, "active", Form::List),
    (Level::Minimal, "failed", Form::List),
    (Level::Minimal, "next", Form::List),
    (Level::Standard, "version", Form::Text),
    (Level::Standard, "execution_state", Form::Object),
    (Level::Standard, "critical_context", Form::Object),
    (Level::Standard, "dag_snapshot", Form::Object),
    (Level::Full, "file_state", Form::List),
    (Level::Full, "environment", Form::Object),
];

const SUMMARY: [(&str, Form); 8] = [
    ("level", Form::Text),
    ("project", Form::Text),
    ("current_phase", Form::Text),
    ("progress", Form::Text),
    ("tasks_complete", Form::Count),
    ("tasks_total", Form::Count),
    ("generated_at", Form::Text),
    ("state_updated_at", Form::Text),
];

pub(super) fn check(object: &Object, rules: &Rules) -> Checked {
    let mut findings = Vec::new();
    let none = Object::new();
    let summary = object.get("summary").and_then(Value::as_object);
    let level = level(object, summary.unwrap_or(&none), &mut findings);
    for (_, key, form) in KEYS.into_iter().filter(|(from, ..)| *from <= level) {
        need(object, "$", key, form, &mut findings);
    }
    if let Some(summary) = summary {
        for (key, form) in SUMMARY {
            need(summary, "$.summary", key, form, &mut findings);
        }
        for key in ["generated_at", "state_updated_at"] {
            findings.extend(time(summary, key, rules));
        }
    }
    let tokens = room::measure(object);
    findings.extend(over(level, tokens, rules));
    Checked { kind: Kind::Payload, findings, size: Some(Size { level, tokens }) }
}

/// The level it says; of one that says none, that of its keys.
fn level(object: &Object, summary: &Object, findings: &mut Vec<Finding>) -> Level {
    let said = summary.get("level").and_then(Value::as_str);
    let level = said.and_then(Level::parse);
    if said.is_some() && level.is_none() {
        let problem = "must be minimal, standard or full";
        findings.push(Finding::new(Fault::Wrong, "$.summary.level", problem));
    }
    level.unwrap_or_else(|| {
        let has = |from: Level| {
            KEYS.iter().any(|(level, key, _)| *level == from && object.contains_key(*key))
        };
        let largest = Level::ALL.into_iter().rev().find(|level| has(*level));
        largest.unwrap_or(Level::Minimal)
    })
}

fn need(object: &Object, at: &str, key: &str, form: Form, findings: &mut Vec<Finding>) {
    let place = format!("{at}.{key}");
    match object.get(key) {
        None | Some(Value::Null) => {
            findings.push(Finding::new(Fault::Missing, place, "must be there"));
        }
        Some(value) if !form.fits(value) => {
            findings.push(Finding::new(Fault::Wrong, place, form.words()));
        }
        Some(_) => {}
    }
}

fn time(summary: &Object, key: &str, rules: &Rules) -> Option<Finding> {
    let place = format!("$.summary.{key}");
    let text = summary.get(key)?.as_str().filter(|text| !text.trim().is_empty())?;
    match time_of(text) {
        Some(at) => age_of(&place, at, rules),
        None => {
            let problem = "must be a time with its zone, such as 2026-11-20T18:00:00Z";
            Some(Finding::new(Fault::Wrong, place, problem))
        }
    }
}

fn over(level: Level, tokens: u64, rules: &Rules) -> Option<Finding> {
    let judged = rules.level.unwrap_or(level);
    (tokens > judged.budget()).then(|| {
        let (name, budget) = (judged.as_str(), judged.budget());
        let problem = format!("holds about {tokens} tokens, the level {name} has {budget}");
        Finding::new(Fault::OverBudget, "$", problem)
    })
}
