//! Which fault meets a request: the first one installed that matches and is not spent. Pure: time is passed in.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    presets::Retry,
    script::{Effect, Fault, Times, Wire, takes},
};

/// What of a request faults can ask for.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) wire: Option<Wire>,
    pub(super) model: &'a str,
    pub(super) path: &'a str,
    /// The call makes an answer (it is not a list, a count, a version).
    pub(super) answers: bool,
}

/// A fault that fires.
#[derive(Debug, Clone)]
pub(super) struct Fired {
    pub(super) label: String,
    pub(super) effects: Vec<Effect>,
    pub(super) retry: Retry,
}

#[derive(Debug)]
struct Live {
    id: u64,
    fault: Fault,
    passed: u64,
    fired: u64,
    /// Set the first time it fires, when it has a `for`.
    until: Option<Duration>,
}

impl Live {
    fn is_spent(&self, now: Duration) -> bool {
        let count = match (self.fault.times, self.fault.lasts) {
            (Some(Times::Count(count)), _) => Some(count),
            (Some(Times::Word(_)), _) | (None, Some(_)) => None,
            (None, None) => Some(1),
        };
        count.is_some_and(|count| self.fired >= count)
            || self.until.is_some_and(|until| now >= until)
    }

    fn takes(&self, seen: &Seen<'_>) -> bool {
        self.fault.wire.is_none_or(|wire| Some(wire) == seen.wire)
            && takes(self.fault.model.as_deref(), seen.model)
            && match &self.fault.path {
                Some(path) => takes(Some(path), seen.path),
                None => seen.answers,
            }
    }

    fn label(&self) -> String {
        self.fault.name.clone().unwrap_or_else(|| match self.fault.effects.as_slice() {
            [Effect::Preset(name), ..] => name.clone(),
            _ => format!("fault-{}", self.id),
        })
    }
}

/// The faults of a run, in the order they were given.
#[derive(Debug, Default)]
pub(super) struct Faults {
    live: Vec<Live>,
    last: u64,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) -> u64 {
        self.last += 1;
        self.live.push(Live { id: self.last, fault, passed: 0, fired: 0, until: None });
        self.last
    }

    pub(super) fn clear(&mut self) {
        self.live.clear();
    }

    pub(super) fn take(&mut self, seen: &Seen<'_>, now: Duration) -> Option<Fired> {
        for live in &mut self.live {
            if live.is_spent(now) || !live.takes(seen) {
                continue;
            }
            if live.passed < live.fault.skip {
                live.passed += 1;
                continue;
            }
            live.fired += 1;
            if let Some(lasts) = live.fault.lasts {
                live.until.get_or_insert(now + lasts.0);
            }
            let left = live.until.map(|until| until.saturating_sub(now));
            return Some(Fired {
                label: live.label(),
                effects: live.fault.effects.as_slice().to_vec(),
                retry: Retry {
                    asked: live.fault.retry_after.map(|span| span.0),
                    left,
                    form: live.fault.retry_after_as,
                },
            });
        }
        None
    }

    /// For `GET /_sim/faults`.
    pub(super) fn list(&self, now: Duration) -> Vec<Value> {
        self.live
            .iter()
            .map(|live| {
                json!({"id": live.id, "label": live.label(), "fired": live.fired, "spent": live.is_spent(now), "fault": live.fault})
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ask(model: &str) -> Seen<'_> {
        Seen { wire: Some(Wire::Anthropic), model, path: "/v1/messages", answers: true }
    }

    fn labels(faults: &mut Faults, count: usize) -> Vec<Option<String>> {
        (0..count).map(|_| faults.take(&ask("m"), SECOND).map(|fired| fired.label)).collect()
    }

    #[test]
    fn faults_fire_in_the_order_given_and_are_spent() {
        let mut faults = Faults::default();
        faults.add(Fault::preset("a").times(Times::Count(2)));
        faults.add(Fault::preset("b"));

        let fired = labels(&mut faults, 4);

        assert_eq!(fired, [Some("a".into()), Some("a".into()), Some("b".into()), None]);
    }

    #[test]
    fn a_fault_of_another_model_does_not_fire() {
        let mut faults = Faults::default();
        faults.add(Fault::preset("a").model("claude-opus-*"));

        assert!(faults.take(&ask("claude-sonnet-5-5"), SECOND).is_none());
        assert!(faults.take(&ask("claude-opus-5-5"), SECOND).is_some());
    }

    #[test]
    fn a_lasting_fault_counts_from_its_first_firing_and_tells_what_is_left() {
        let mut faults = Faults::default();
        faults.add(Fault::preset("a").lasting(SECOND * 6));

        assert_eq!(faults.take(&ask("m"), SECOND * 100).unwrap().retry.left, Some(SECOND * 6));
        assert_eq!(faults.take(&ask("m"), SECOND * 104).unwrap().retry.left, Some(SECOND * 2));
        assert!(faults.take(&ask("m"), SECOND * 106).is_none());
    }

    #[test]
    fn a_fault_without_path_leaves_lists_and_counts_alone() {
        let mut faults = Faults::default();
        faults.add(Fault::preset("a"));

        assert!(faults.take(&Seen { answers: false, ..ask("m") }, SECOND).is_none());
        assert!(faults.take(&ask("m"), SECOND).is_some());
    }

    #[test]
    fn skipped_requests_pass_first() {
        let mut faults = Faults::default();
        let mut fault = Fault::preset("a");
        fault.skip = 1;
        faults.add(fault);

        assert_eq!(labels(&mut faults, 3), [None, Some("a".into()), None]);
    }
}
