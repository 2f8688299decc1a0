//! The figures, as a table for people and as one JSON object for programs.

use std::fmt::Write as _;

use serde::Serialize;

use crate::machine::Machine;

/// What a ratio should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn text(self) -> String {
        match self {
            Self::AtMost(most) => format!("ratio <= {most}"),
            Self::AtLeast(least) => format!("ratio >= {least}"),
        }
    }

    fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
        }
    }
}

/// One measured value, beside what it is compared with. What a figure does not have is null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    limit: Option<&'static str>,
    limit_value: Option<f64>,
    ratio: Option<f64>,
    goal: Option<String>,
    met: Option<bool>,
}

impl Figure {
    pub(crate) fn new(name: &str, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.to_owned(),
            value,
            unit,
            limit: None,
            limit_value: None,
            ratio: None,
            goal: None,
            met: None,
        }
    }

    /// Compares it with `limit`, measured in the same run and unit.
    pub(crate) fn beside(mut self, limit: &'static str, value: f64) -> Self {
        self.limit = Some(limit);
        self.limit_value = Some(value);
        self.ratio = Some(self.value / value);
        self
    }

    /// Says what the ratio should be.
    pub(crate) fn with(mut self, goal: Goal) -> Self {
        self.goal = Some(goal.text());
        self.met = self.ratio.map(|ratio| goal.is_met(ratio));
        self
    }
}

/// One run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    #[serde(rename = "results")]
    pub(crate) figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!("{}\n\n", self.machine);
        let _ = writeln!(
            text,
            "{:<28} {:>12} {:<3} {:>8}  {:<32} goal",
            "figure", "value", "", "ratio", "beside"
        );
        for figure in &self.figures {
            let ratio = figure.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
            let limit = figure.limit.zip(figure.limit_value);
            let limit = limit.map(|(limit, value)| format!("{limit}: {}", number(value)));
            let goal = figure.goal.as_ref().zip(figure.met).map(|(goal, is_met)| {
                format!("{goal}: {}", if is_met { "met" } else { "NOT MET" })
            });
            let line = format!(
                "{:<28} {:>12} {:<3} {:>8}  {:<32} {}",
                figure.name,
                number(figure.value),
                figure.unit,
                ratio,
                limit.unwrap_or_default(),
                goal.unwrap_or_default()
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text.trim_end().to_owned()
    }
}

/// Three digits behind the point where they say something.
fn number(value: f64) -> String {
    if value.abs() < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(figures: Vec<Figure>) -> Report {
        let text = |text: &str| text.to_owned();
        let machine = Machine {
            cpu: text("c"),
            cores: 2,
            kernel: text("k"),
            rustc: None,
            build: "debug",
            date: text("2026-11-20"),
        };
        Report { machine, figures }
    }

    #[test]
    fn a_goal_is_judged_by_the_ratio() {
        let figure = |value: f64| Figure::new("x", value, "ms").beside("y", 2.0);
        assert_eq!(figure(4.0).with(Goal::AtMost(2.0)).met, Some(true));
        assert_eq!(figure(4.1).with(Goal::AtMost(2.0)).met, Some(false));
        assert_eq!(figure(1.8).with(Goal::AtLeast(0.9)).met, Some(true));
        assert_eq!(figure(1.7).with(Goal::AtLeast(0.9)).met, Some(false));
    }

    #[test]
    fn json_has_every_key_of_every_figure() {
        let json = report(vec![Figure::new("x", 1.0, "ms")]).json().unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let keys = |value: &serde_json::Value| -> Vec<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(keys(&json), ["machine", "results"]);
        let mut want = ["name", "value", "unit", "limit", "limit_value", "ratio", "goal", "met"];
        want.sort_unstable();
        let mut found = keys(&json["results"][0]);
        found.sort_unstable();
        assert_eq!(found, want);
    }

    #[test]
    fn a_table_says_what_was_not_met() {
        let slow = Figure::new("slow", 5.0, "ms").beside("echo", 1.0).with(Goal::AtMost(2.0));
        let table = report(vec![slow]).table();
        assert!(table.contains("ratio <= 2: NOT MET"), "{table}");
        assert!(table.contains("echo: 1.000"), "{table}");
    }
}
