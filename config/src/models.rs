//! The list of models: unique names, chains without a loop, names found as people write them.

use std::collections::BTreeMap;

use crate::entry::Entry;
use crate::error::{Error, Place, Problem, did_you_mean};
use crate::model::{Model, Provider, model_name};
use crate::nearest::{nearest, quoted, shown};

/// More models than anyone has agents for; bounds the walks over chains.
const MOST: usize = 256;

/// The configured models, in the order they were written.
#[derive(Debug, Clone, PartialEq)]
pub struct Models(Vec<Model>);

/// A name that no model has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown model {given}{}", did_you_mean(nearest))]
pub struct Unknown {
    /// What was asked for, ready to be shown.
    pub given: String,
    /// The models that may have been meant, best first.
    pub nearest: Vec<String>,
}

impl Models {
    /// A checked list.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no model at all, a name twice, a fallback that is no model, a chain with a loop.
    pub fn new(models: Vec<Model>) -> Result<Self, Error> {
        let entries = models.into_iter().map(|model| Entry {
            fallback: vec![Place::Program; model.fallback.len()],
            model,
            start: Place::Program,
            places: BTreeMap::new(),
        });
        Self::check(entries.collect(), Place::Program)
    }

    /// The list while the layers are being read.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn check(mut entries: Vec<Entry>, place: Place) -> Result<Self, Error> {
        if entries.is_empty() {
            return Err(Error::invalid(place, "models", Problem::NoModels));
        }
        if entries.len() > MOST {
            let want = format!("at most {MOST} models");
            return Err(Error::invalid(place, "models", Problem::Rejected { want }));
        }
        for entry in &entries {
            check_alone(entry)?;
        }
        check_names(&entries)?;
        resolve_fallbacks(&mut entries)?;
        check_loops(&entries)?;
        Ok(Self(entries.into_iter().map(|entry| entry.model).collect()))
    }

    /// Every model, in the order written.
    pub fn iter(&self) -> std::slice::Iter<'_, Model> {
        self.0.iter()
    }

    /// The model with exactly this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Model> {
        self.0.iter().find(|model| model.name == name)
    }

    /// The model meant by `text`: its name, an alias, a usual spelling of these (`gpt4o` is `gpt-4o`),
    /// or a provider's id that only one model has.
    ///
    /// # Errors
    /// [`Unknown`] with the nearest names.
    pub fn resolve(&self, text: &str) -> Result<&Model, Unknown> {
        find(&self.0, text).ok_or_else(|| Unknown {
            given: quoted(text),
            nearest: nearest(text, self.0.iter().map(|model| model.name.as_str())),
        })
    }

    /// `name`, then who answers when it cannot: its own list first, then the lists of those, each once.
    /// Empty when no model is called `name`.
    #[must_use]
    pub fn chain(&self, name: &str) -> Vec<&Model> {
        let mut chain = Vec::new();
        if let Some(model) = self.get(name) {
            chain.push(model);
            self.extend_chain(&mut chain, model);
        }
        chain
    }

    // Loops were refused, so the depth is at most the number of models.
    fn extend_chain<'a>(&'a self, chain: &mut Vec<&'a Model>, of: &Model) {
        let mut added = Vec::new();
        for model in of.fallback.iter().filter_map(|name| self.get(name)) {
            if !chain.iter().any(|member| member.name == model.name) {
                chain.push(model);
                added.push(model);
            }
        }
        for model in added {
            self.extend_chain(chain, model);
        }
    }

    /// Marks every model as simulated.
    pub(crate) fn mark_simulated(&mut self) {
        for model in &mut self.0 {
            model.simulated = true;
        }
    }

    /// Sends every model to a simulator, at the address for its provider, and marks it as simulated.
    pub fn simulate(&mut self, base_url: impl Fn(Provider) -> String) {
        self.mark_simulated();
        for model in &mut self.0 {
            model.base_url = base_url(model.provider);
        }
    }
}

impl<'a> IntoIterator for &'a Models {
    type Item = &'a Model;
    type IntoIter = std::slice::Iter<'a, Model>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// Letters and digits in lower case: what two spellings of a name have in common.
fn spelled(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

fn find<'a, I>(models: I, text: &str) -> Option<&'a Model>
where
    I: IntoIterator<Item = &'a Model>,
{
    let models: Vec<&Model> = models.into_iter().collect();
    let text = text.trim();
    let wanted = spelled(text);
    let is_called = |model: &Model| {
        std::iter::once(&model.name).chain(&model.aliases).any(|name| spelled(name) == wanted)
    };
    let mut by_id = models.iter().filter(|model| model.id == text);
    models
        .iter()
        .find(|model| model.name == text)
        .or_else(|| models.iter().find(|model| !wanted.is_empty() && is_called(model)))
        .or_else(|| by_id.next().filter(|_| by_id.next().is_none()))
        .copied()
}

fn check_alone(entry: &Entry) -> Result<(), Error> {
    let model = &entry.model;
    if model_name(&model.name).is_none() {
        return Err(entry.refuse("name", Problem::rejected("a name of a-z, 0-9, `.`, `_`, `-`")));
    }
    if model.max_output_tokens >= model.context_window {
        let problem = Problem::Contradiction("must be below `context_window`");
        return Err(entry.refuse("max_output_tokens", problem));
    }
    let is_bad = |alias: &String| spelled(alias).is_empty() || alias.len() > 64;
    if model.aliases.iter().any(is_bad) {
        let want = "a list of names, each with a letter or digit and at most 64 long";
        return Err(entry.refuse("aliases", Problem::rejected(want)));
    }
    Ok(())
}

/// Two models whose names differ only in spelling could not be told apart by `resolve`.
fn check_names(entries: &[Entry]) -> Result<(), Error> {
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let names = std::iter::once(("name", &entry.model.name))
            .chain(entry.model.aliases.iter().map(|alias| ("aliases", alias)));
        for (key, name) in names {
            let owner = *owners.entry(spelled(name)).or_insert(index);
            if owner != index {
                let Entry { model, start, .. } = &entries[owner];
                let first = format!("model {} ({start})", quoted(&model.name));
                let name = shown(name);
                return Err(entry.refuse(key, Problem::Duplicate { name, first }));
            }
        }
    }
    Ok(())
}

/// Replaces the spellings in every `fallback` by the names they mean.
fn resolve_fallbacks(entries: &mut [Entry]) -> Result<(), Error> {
    let models: Vec<Model> = entries.iter().map(|entry| entry.model.clone()).collect();
    for entry in entries {
        for position in 0..entry.model.fallback.len() {
            let given = &entry.model.fallback[position];
            let Some(found) = find(&models, given) else {
                let names = models.iter().map(|model| model.name.as_str());
                let problem = Problem::UnknownName {
                    noun: "model",
                    given: quoted(given),
                    nearest: nearest(given, names).into_iter().take(1).collect(),
                };
                let place = entry.fallback.get(position).unwrap_or(&entry.start).clone();
                let key = format!("models.{}.fallback", entry.model.name);
                return Err(Error::invalid(place, key, problem));
            };
            entry.model.fallback[position].clone_from(&found.name);
        }
    }
    Ok(())
}

fn check_loops(entries: &[Entry]) -> Result<(), Error> {
    let index: BTreeMap<&str, usize> =
        entries.iter().enumerate().map(|(at, entry)| (entry.model.name.as_str(), at)).collect();
    let mut finished = vec![false; entries.len()];
    for start in 0..entries.len() {
        walk(entries, &index, &mut finished, &mut Vec::new(), start)?;
    }
    Ok(())
}

fn walk(
    entries: &[Entry],
    index: &BTreeMap<&str, usize>,
    finished: &mut [bool],
    path: &mut Vec<usize>,
    at: usize,
) -> Result<(), Error> {
    if finished[at] {
        return Ok(());
    }
    path.push(at);
    let entry = &entries[at];
    for (position, name) in entry.model.fallback.iter().enumerate() {
        let Some(next) = index.get(name.as_str()).copied() else { continue };
        if let Some(from) = path.iter().position(|member| *member == next) {
            let chain = path[from..].iter().chain([&next]);
            let chain = chain.map(|member| entries[*member].model.name.clone()).collect();
            let place = entry.fallback.get(position).unwrap_or(&entry.start).clone();
            let key = format!("models.{}.fallback", entry.model.name);
            return Err(Error::invalid(place, key, Problem::Loop { chain }));
        }
        walk(entries, index, finished, path, next)?;
    }
    path.pop();
    finished[at] = true;
    Ok(())
}
