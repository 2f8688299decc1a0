//! `[[models]]` as it stands in a file: each entry with the places of its keys.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, Place, Problem};
use crate::layer::{Source, in_order, read_table, unknown_key};
use crate::model::{Model, Prices, Provider};
use crate::rule::Given;
use crate::section::Section;

/// A model as it was read, with the places of its keys.
pub(crate) struct Entry {
    pub(crate) model: Model,
    pub(crate) start: Place,
    pub(crate) places: BTreeMap<String, Place>,
    /// Where each name of `fallback` stands.
    pub(crate) fallback: Vec<Place>,
}

impl Entry {
    pub(crate) fn refuse(&self, key: &str, problem: Problem) -> Error {
        let place = self.places.get(key).unwrap_or(&self.start).clone();
        Error::invalid(place, format!("models.{}.{key}", self.model.name), problem)
    }
}

pub(crate) fn read_models(
    source: Source<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Result<Vec<Entry>, Error> {
    let want = "a list of tables, written [[models]]";
    let refuse = |item: &Spanned<DeValue<'_>>| {
        Error::invalid(source.place(item), "models", Problem::wrong_type(want, item.get_ref()))
    };
    let items = value.get_ref().as_array().ok_or_else(|| refuse(value))?;
    let tables =
        items.iter().map(|item| Ok((item, item.get_ref().as_table().ok_or_else(|| refuse(item))?)));
    tables
        .enumerate()
        .map(|(index, table)| {
            let (item, table) = table?;
            read_model(source, source.place(item), table, index)
        })
        .collect()
}

fn read_model(
    source: Source<'_>,
    start: Place,
    table: &DeTable<'_>,
    index: usize,
) -> Result<Entry, Error> {
    let mut model = Model::new("", Provider::Anthropic, "");
    let numbered = format!("models[{index}]");
    // A misspelt `name` is better told as an unknown key than as a missing one.
    for (key, _) in in_order(table) {
        let name = key.get_ref().as_ref();
        if !model.keys().contains(&name) {
            return Err(unknown_key(
                source.place(key),
                "[[models]]",
                &numbered,
                name,
                model.keys(),
            ));
        }
    }
    for key in ["name", "provider", "id"] {
        let Some(value) = table.get(key) else {
            return Err(Error::invalid(start, numbered, Problem::Missing { key }));
        };
        if let Some(Err(problem)) = model.read(key, &Given::Toml(value.get_ref())) {
            return Err(Error::invalid(source.place(value), format!("{numbered}.{key}"), problem));
        }
    }
    let mut model = Model::new(&model.name, model.provider, &model.id);
    let label = format!("models.{}", model.name);
    let mut rest = table.clone();
    let prices = match table.get("prices") {
        Some(value) if value.get_ref().is_table() => {
            rest.remove("prices");
            Some(read_prices(source, value, &label)?)
        }
        _ => None,
    };
    let places: BTreeMap<String, Place> =
        read_table(&mut model, source, &rest, "[[models]]", &label)?.into_iter().collect();
    model.prices = prices;
    if !places.contains_key("account") {
        model.account = model.default_account();
    }
    if !places.contains_key("max_output_tokens") {
        model.max_output_tokens = model.default_max_output();
    }
    let fallback = table.get("fallback").and_then(|value| value.get_ref().as_array());
    let fallback = fallback.into_iter().flatten().map(|item| source.place(item)).collect();
    Ok(Entry { model, start, places, fallback })
}

fn read_prices(
    source: Source<'_>,
    value: &Spanned<DeValue<'_>>,
    label: &str,
) -> Result<Prices, Error> {
    let mut prices = Prices::FREE;
    let label = format!("{label}.prices");
    let table = value.get_ref().as_table().cloned().unwrap_or_default();
    let set = read_table(&mut prices, source, &table, "prices", &label)?;
    let is_set = |key: &str| set.iter().any(|(name, _)| name == key);
    for key in ["input", "output"] {
        if !is_set(key) {
            return Err(Error::invalid(source.place(value), label, Problem::Missing { key }));
        }
    }
    if !is_set("cache_read") {
        prices.cache_read = prices.input;
    }
    if !is_set("cache_write") {
        prices.cache_write = prices.input;
    }
    Ok(prices)
}
