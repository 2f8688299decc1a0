//! `[[budgets]]`: what may be used within a window, beside what the providers say themselves.

use toml::Spanned;
use toml::de::DeValue;

use crate::error::{Error, Place, Problem};
use crate::layer::{Source, read_table};
use crate::rule::{Choice, choice, decimal, text};
use crate::section::{Section, keyed};

/// More budgets than anyone can keep in mind; bounds what every call is held against.
const MOST: usize = 256;

/// What a budget counts the use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BudgetScope {
    /// Everything that passes through the broker.
    Namespace,
    /// All models that use one key, by the name of its variable.
    Key,
    Model,
    Session,
}

impl Choice for BudgetScope {
    const NOUN: &'static str = "scope";
    const ALL: &'static [(&'static str, Self)] = &[
        ("namespace", Self::Namespace),
        ("key", Self::Key),
        ("model", Self::Model),
        ("session", Self::Session),
    ];
}

/// How long what was used counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BudgetWindow {
    Minute,
    FiveHours,
    Day,
    Week,
    Month,
}

impl Choice for BudgetWindow {
    const NOUN: &'static str = "window";
    const ALL: &'static [(&'static str, Self)] = &[
        ("minute", Self::Minute),
        ("5h", Self::FiveHours),
        ("day", Self::Day),
        ("week", Self::Week),
        ("month", Self::Month),
    ];
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BudgetUnit {
    Requests,
    Tokens,
    Usd,
}

impl Choice for BudgetUnit {
    const NOUN: &'static str = "unit";
    const ALL: &'static [(&'static str, Self)] =
        &[("requests", Self::Requests), ("tokens", Self::Tokens), ("usd", Self::Usd)];
}

/// One `[[budgets]]` entry. A call that would not fit is refused before it is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// Whose use is counted: `"namespace"`, `"key"`, `"model"` or `"session"`.
    pub scope: BudgetScope,
    /// Which one: a model, the name of a key's variable, a session; `"*"` is each of them. Default: `"*"`.
    pub name: String,
    /// How long what was used counts: `"minute"`, `"5h"` (from its first call on), `"day"`, `"week"` (from Monday) or
    /// `"month"`, in UTC. A minute's budget refuses too, but raises no level.
    pub window: BudgetWindow,
    /// What is counted: `"requests"`, `"tokens"` (input and output together) or `"usd"`.
    pub unit: BudgetUnit,
    /// How much of it.
    pub limit: f64,
}

keyed!(Budget ["budgets"] {
    scope: choice();
    name: text("a name, or \"*\" for each", name);
    window: choice();
    unit: choice();
    limit: decimal(0.0..=1e15);
});

/// The entries of a file.
pub(crate) fn read_budgets(
    source: Source<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Vec<Budget>, Error> {
    let want = "a list of tables, written [[budgets]]";
    let refuse = |item: &Spanned<DeValue<'_>>| {
        Error::invalid(source.place(item), "budgets", Problem::wrong_type(want, item.get_ref()))
    };
    let items = value.get_ref().as_array().ok_or_else(|| refuse(value))?;
    if items.len() > MOST {
        let want = format!("at most {MOST} budgets");
        return Err(Error::invalid(source.place(value), "budgets", Problem::Rejected { want }));
    }
    let mut budgets: Vec<Budget> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let place = source.place(item);
        let budget = read_budget(source, item, place.clone(), index, refuse)?;
        let is_same = |other: &Budget| Budget { limit: other.limit, ..budget.clone() } == *other;
        if budgets.iter().any(is_same) {
            let name = format!("budgets[{index}]");
            let problem = Problem::Duplicate { name, first: "set above".to_owned() };
            return Err(Error::invalid(place, "budgets", problem));
        }
        budgets.push(budget);
    }
    Ok(budgets)
}

fn read_budget(
    source: Source<'_>,
    item: &Spanned<DeValue<'_>>,
    place: Place,
    index: usize,
    refuse: impl Fn(&Spanned<DeValue<'_>>) -> Error,
) -> Result<Budget, Error> {
    let table = item.get_ref().as_table().ok_or_else(|| refuse(item))?;
    let mut budget = Budget {
        scope: BudgetScope::Namespace,
        name: "*".to_owned(),
        window: BudgetWindow::Day,
        unit: BudgetUnit::Tokens,
        limit: 0.0,
    };
    let label = format!("budgets[{index}]");
    let set = read_table(&mut budget, source, table, "[[budgets]]", &label)?;
    for key in ["scope", "window", "unit", "limit"] {
        if !set.iter().any(|(name, _)| name == key) {
            return Err(Error::invalid(place, label, Problem::Missing { key }));
        }
    }
    if budget.unit != BudgetUnit::Usd && budget.limit.fract() != 0.0 {
        let problem = Problem::rejected("a whole number of requests or tokens");
        return Err(Error::invalid(place, format!("{label}.limit"), problem));
    }
    if budget.scope == BudgetScope::Namespace && budget.name != "*" {
        let problem = Problem::rejected("left out: there is one namespace");
        return Err(Error::invalid(place, format!("{label}.name"), problem));
    }
    Ok(budget)
}

impl Budget {
    pub(crate) fn write_toml(&self, text: &mut String) {
        text.push_str("\n[[budgets]]\n");
        self.write_into(text);
    }
}

fn name(text: &str) -> Option<String> {
    let is_name = (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
    is_name.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use crate::{Config, Loader};

    fn load(text: &str) -> Result<Config, String> {
        Loader::new().text("mine.toml", text).load().map_err(|error| error.to_string())
    }

    const DAY: &str = "[[budgets]]\nscope = \"model\"\nname = \"opus\"\nwindow = \"day\"\nunit = \"usd\"\nlimit = 2.5\n";

    #[test]
    fn budgets_are_read_and_written_back() {
        let config = load(DAY).unwrap();
        assert_eq!((config.budgets.len(), config.budgets[0].limit), (1, 2.5));
        assert_eq!(load(&config.to_toml()).unwrap(), config);
        assert!(Config::shipped().unwrap().budgets.is_empty());
    }

    #[test]
    fn a_budget_that_says_too_little_or_nonsense_is_refused_with_its_place() {
        let said = |text: &str| load(text).unwrap_err();
        assert!(said("[[budgets]]\nscope = \"model\"\n").contains("`window` is missing"));
        assert!(said(&DAY.replace("2.5", "-1.0")).contains("mine.toml:6:9"));
        assert!(said(&DAY.replace("2.5", "nan")).contains("must be a number"));
        assert!(said(&DAY.replace("usd", "tokens")).contains("a whole number"));
        assert!(
            said(&DAY.replace("\"model\"", "\"namespace\"")).contains("there is one namespace")
        );
        assert!(said(&format!("{DAY}{DAY}")).contains("already set above"));
    }
}
