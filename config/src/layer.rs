//! Layers as they are laid over each other: each key is set by the last layer that names it.
//!
//! A file is read key by key with its own positions, so that every error has its line and column.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Config;
use crate::budget::read_budgets;
use crate::contradiction::contradictions;
use crate::entry::{Entry, read_models};
use crate::error::{Error, Place, Problem};
use crate::models::Models;
use crate::nearest::{nearest, quoted, shown};
use crate::rule::Given;
use crate::section::Section;
use crate::wake::read_wakes;

/// The configuration while layers are being laid.
pub(crate) struct Draft {
    settings: Config,
    entries: Vec<Entry>,
    models_place: Place,
    /// By `section.key`: how late it was last set (for a contradiction the later one is to blame), and where.
    places: BTreeMap<String, (usize, Place)>,
    laid: usize,
}

/// A file's name and text, for positions.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    name: &'a str,
    text: &'a str,
}

impl Source<'_> {
    pub(crate) fn place<T>(&self, of: &Spanned<T>) -> Place {
        Place::in_file(self.name, self.text, of.span().start)
    }
}

impl Draft {
    /// Whether anything is to be run.
    pub(crate) fn names_programs(&self) -> bool {
        self.settings.wakes.iter().any(|wake| !wake.command.is_empty())
    }

    pub(crate) fn new() -> Self {
        let settings = Config {
            broker: Default::default(),
            links: Default::default(),
            streams: Default::default(),
            routing: Default::default(),
            thresholds: Default::default(),
            limits: Default::default(),
            packages: Default::default(),
            sessions: Default::default(),
            handoff: Default::default(),
            rotation: Default::default(),
            up: Default::default(),
            simulator: Default::default(),
            models: Models::none(),
            budgets: Vec::new(),
            wakes: Vec::new(),
        };
        Self {
            settings,
            entries: Vec::new(),
            models_place: Place::Program,
            places: BTreeMap::new(),
            laid: 0,
        }
    }

    /// Lays a file over what is there.
    pub(crate) fn lay_file(&mut self, name: &str, text: &str) -> Result<(), Error> {
        let source = Source { name, text };
        let document = DeTable::parse(text).map_err(|err| {
            // Only the message: the error's own display shows the line, which may hold a secret.
            let place = Place::in_file(name, text, err.span().map_or(0, |span| span.start));
            Error::invalid(place, "", Problem::Syntax { message: err.message().to_owned() })
        })?;
        for (key, value) in in_order(document.get_ref()) {
            let place = source.place(key);
            if *key.get_ref() == "models" {
                self.entries = read_models(source, value)?;
                self.models_place = place;
                continue;
            }
            if *key.get_ref() == "budgets" {
                self.settings.budgets = read_budgets(source, value)?;
                continue;
            }
            if *key.get_ref() == "wakes" {
                self.settings.wakes = read_wakes(source, value)?;
                continue;
            }
            self.lay_table(source, key.get_ref(), place, value)?;
        }
        Ok(())
    }

    fn lay_table(
        &mut self,
        source: Source<'_>,
        name: &str,
        place: Place,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), Error> {
        let unknown = self.unknown_top(name, value.get_ref());
        let mut sections = self.settings.sections_mut();
        let Some(section) = sections.iter_mut().find(|section| section.name() == name) else {
            return Err(Error::invalid(place, shown(name), unknown));
        };
        let title = format!("[{name}]");
        let Some(table) = value.get_ref().as_table() else {
            let want = format!("a table, written {title}");
            let problem = Problem::wrong_type(want, value.get_ref());
            return Err(Error::invalid(source.place(value), name, problem));
        };
        let set = read_table(&mut **section, source, table, &title, name);
        for (key, place) in self.blame(set, name)? {
            self.laid += 1;
            self.places.insert(format!("{name}.{key}"), (self.laid, place));
        }
        Ok(())
    }

    /// An unknown key is nearest to the same key of another section, if one has it.
    fn blame<T>(&self, result: Result<T, Error>, section: &str) -> Result<T, Error> {
        result.map_err(|mut err| {
            if let Error::Invalid { key, problem, .. } = &mut err
                && let Problem::UnknownKey { nearest, .. } = &mut **problem
                && let Some(key) = key.strip_prefix(&format!("{section}."))
                && let Some(other) = self.section_with(key)
            {
                *nearest = vec![format!("[{other}] {key}")];
            }
            err
        })
    }

    fn section_with(&self, key: &str) -> Option<&'static str> {
        let sections = self.settings.sections();
        sections.iter().find(|section| section.keys().contains(&key)).map(|section| section.name())
    }

    fn unknown_top(&self, key: &str, value: &DeValue<'_>) -> Problem {
        let sections = self.settings.sections();
        let nearest = match self.section_with(key) {
            Some(section) if !value.is_table() => vec![format!("[{section}] {key}")],
            _ => nearest(
                key,
                sections.iter().map(|section| section.name()).chain(["models", "budgets", "wakes"]),
            ),
        };
        Problem::UnknownKey {
            given: quoted(key),
            section: "the file".to_owned(),
            nearest: nearest.into_iter().take(1).collect(),
        }
    }

    /// Lays one variable over what is there; `name` is without `BROKER_`.
    pub(crate) fn lay_variable(&mut self, name: &str, value: Option<&str>) -> Result<(), Error> {
        let place = Place::Variable(quoted(&format!("BROKER_{name}")));
        let Some((section, key)) = self.setting_of_variable(name) else {
            let problem = if name.starts_with("MODELS") {
                Problem::VariableForModels
            } else {
                Problem::UnknownVariable { nearest: self.nearest_variable(name) }
            };
            return Err(Error::invalid(place, "", problem));
        };
        let Some(value) = value else {
            let problem = Problem::rejected("UTF-8 text");
            return Err(Error::invalid(place, format!("{section}.{key}"), problem));
        };
        self.lay_value(section, key, value, place)
    }

    /// Lays one `section.key` over what is there.
    pub(crate) fn lay_flag(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let place = Place::Flag(shown(name));
        let all = self.all();
        let setting = all.iter().find(|(section, key)| format!("{section}.{key}") == name);
        let Some((section, key)) = setting else {
            let names: Vec<String> = all.iter().map(|(s, k)| format!("{s}.{k}")).collect();
            let problem = Problem::UnknownKey {
                given: quoted(name),
                section: "the configuration".to_owned(),
                nearest: nearest(name, names.iter().map(String::as_str))
                    .into_iter()
                    .take(1)
                    .collect(),
            };
            return Err(Error::invalid(place, shown(name), problem));
        };
        self.lay_value(section, key, value, place)
    }

    fn lay_value(
        &mut self,
        section: &str,
        key: &str,
        value: &str,
        place: Place,
    ) -> Result<(), Error> {
        let name = format!("{section}.{key}");
        for table in self.settings.sections_mut() {
            if table.name() == section
                && let Some(Err(problem)) = table.read(key, &Given::Text(value))
            {
                return Err(Error::invalid(place, name, problem));
            }
        }
        self.laid += 1;
        self.places.insert(name, (self.laid, place));
        Ok(())
    }

    fn all(&self) -> Vec<(&'static str, &'static str)> {
        let sections = self.settings.sections();
        sections.iter().flat_map(|s| s.keys().iter().map(|key| (s.name(), *key))).collect()
    }

    pub(crate) fn setting_of_variable(&self, name: &str) -> Option<(&'static str, &'static str)> {
        self.all().into_iter().find(|(section, key)| variable(section, key) == name)
    }

    fn nearest_variable(&self, name: &str) -> Vec<String> {
        let all = self.all();
        // The right key under the wrong section is the likeliest mistake.
        let moved = all.iter().find(|(_, key)| {
            let upper = key.to_uppercase();
            let section = name.strip_suffix(&upper).and_then(|rest| rest.strip_suffix('_'));
            section.is_some_and(|word| all.iter().any(|(s, _)| s.to_uppercase() == word))
        });
        if let Some((section, key)) = moved {
            return vec![format!("BROKER_{}", variable(section, key))];
        }
        let names: Vec<String> = all.iter().map(|(s, k)| variable(s, k)).collect();
        let best = nearest(name, names.iter().map(String::as_str)).into_iter().take(1);
        best.map(|name| format!("BROKER_{name}")).collect()
    }

    /// Checks what no single key can know, and gives the configuration away.
    pub(crate) fn finish(mut self) -> Result<Config, Error> {
        for (keys, holds, sentence) in contradictions(&self.settings) {
            if !holds {
                let blamed = keys.iter().filter_map(|key| Some((self.places.get(*key)?, key)));
                let (place, key) = blamed
                    .max_by_key(|((laid, _), _)| *laid)
                    .map_or((Place::Program, keys[0]), |((_, place), key)| (place.clone(), *key));
                return Err(Error::invalid(place, key, Problem::Contradiction(sentence)));
            }
        }
        self.settings.models = Models::check(self.entries, self.models_place)?;
        if let Some(model) = &self.settings.sessions.summary_model
            && self.settings.models.resolve(model).is_err()
        {
            let key = "sessions.summary_model";
            let place = self.places.get(key).map_or(Place::Program, |(_, place)| place.clone());
            return Err(Error::invalid(
                place,
                key,
                Problem::rejected("the name of a configured model"),
            ));
        }
        for model in &self.settings.handoff.receivers {
            if self.settings.models.resolve(model).is_err() {
                let key = "handoff.receivers";
                let place = self.places.get(key).map_or(Place::Program, |(_, place)| place.clone());
                let problem = Problem::rejected("a list of configured models");
                return Err(Error::invalid(place, key, problem));
            }
        }
        if self.settings.simulator.enabled {
            self.settings.models.mark_simulated();
        }
        Ok(self.settings)
    }
}

fn variable(section: &str, key: &str) -> String {
    format!("{section}_{key}").to_uppercase()
}

/// The keys of a table as they stand in the file, so that the first mistake is the one reported.
pub(crate) fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// Reads `table` into `section`; returns what it set and where. `title` is for people, `label` the key's beginning.
pub(crate) fn read_table(
    section: &mut dyn Section,
    source: Source<'_>,
    table: &DeTable<'_>,
    title: &str,
    label: &str,
) -> Result<Vec<(String, Place)>, Error> {
    let mut set = Vec::new();
    for (key, value) in in_order(table) {
        let name = key.get_ref().as_ref();
        let place = source.place(key);
        match section.read(name, &Given::Toml(value.get_ref())) {
            None => return Err(unknown_key(place, title, label, name, section.keys())),
            Some(Err(problem)) => {
                return Err(Error::invalid(
                    source.place(value),
                    format!("{label}.{name}"),
                    problem,
                ));
            }
            Some(Ok(())) => set.push((name.to_owned(), place)),
        }
    }
    Ok(set)
}

pub(crate) fn unknown_key(
    place: Place,
    title: &str,
    label: &str,
    key: &str,
    keys: &[&str],
) -> Error {
    let problem = Problem::UnknownKey {
        given: quoted(key),
        section: title.to_owned(),
        nearest: nearest(key, keys.iter().copied()).into_iter().take(1).collect(),
    };
    Error::invalid(place, format!("{label}.{}", shown(key)), problem)
}
