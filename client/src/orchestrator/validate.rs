//! The check of a file before somebody relies on it.

mod payload;

use std::time::Duration;

use broker_proto::types::WallTime;

use super::{
    finding::{Fault, Finding},
    kind::{self, Kind},
    payload::Level,
    placeholder, report,
    state::{MOST_FINDINGS, State},
    text::{self, Unreadable},
};

/// A clock may be this much ahead of another before it counts as wrong.
const LEEWAY: Duration = Duration::from_secs(300);

/// Against what a file is checked.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub now: WallTime,
    /// How old a state, or the state a payload was made from, may be.
    pub max_age: Duration,
    /// The level whose budget a payload must be within; without one its own.
    pub level: Option<Level>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub kind: Kind,
    pub findings: Vec<Finding>,
    /// Of a payload.
    pub size: Option<Size>,
}

/// A payload's size beside what it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub level: Level,
    /// As [`super::METHOD`] says.
    pub tokens: u64,
}

/// Checks a state, a payload, a template or a report; which it is, its content says.
///
/// # Errors
/// [`Unreadable`] when the file cannot be looked into at all.
pub fn check(bytes: &[u8], rules: &Rules) -> Result<Checked, Unreadable> {
    let text = text::of_bytes(bytes, text::MOST_BYTES)?;
    if !kind::is_json(text) {
        return Ok(markdown(text));
    }
    let object = text::object(text)?;
    match Kind::of_object(&object) {
        Kind::Payload => Ok(payload::check(&object, rules)),
        kind => {
            let (state, mut findings) = State::of_object(&object);
            findings.extend(state.and_then(|state| age(&state, rules)));
            Ok(Checked { kind, findings, size: None })
        }
    }
}

/// What is wrong with the age of a state, if anything is.
#[must_use]
pub fn age(state: &State, rules: &Rules) -> Option<Finding> {
    age_of("$.updated_at", state.updated_at, rules)
}

fn age_of(place: &str, at: WallTime, rules: &Rules) -> Option<Finding> {
    if at > rules.now.after(LEEWAY) {
        let ahead = whole(at.since(rules.now));
        let problem =
            format!("is {ahead} ahead of this machine's clock: one of the clocks is wrong");
        return Some(Finding::new(Fault::Future, place, problem));
    }
    let age = rules.now.since(at);
    (age > rules.max_age).then(|| {
        let problem = format!("is {} old, {} are allowed", whole(age), whole(rules.max_age));
        Finding::new(Fault::Stale, place, problem)
    })
}

/// A span in its largest whole unit.
fn whole(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

fn markdown(text: &str) -> Checked {
    let placeholders = placeholder::all(text);
    let is_template = placeholders.iter().any(|placeholder| report::is_known(placeholder.name));
    let unknown = placeholders.iter().filter(|p| !p.is_code && !report::is_known(p.name));
    let findings = unknown.map(|placeholder| {
        let problem = format!("nothing fills in {{{}}}", placeholder.name);
        Finding::new(Fault::UnknownPlaceholder, format!("line {}", placeholder.line), problem)
    });
    let kind = if is_template { Kind::Template } else { Kind::Report };
    Checked { kind, findings: findings.take(MOST_FINDINGS).collect(), size: None }
}
