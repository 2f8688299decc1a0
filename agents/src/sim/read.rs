//! Reads a request on its wire: who asks, which model, what; or the refusal that the vendor would send.

use super::{
    anthropic,
    decide::Asked,
    models::Model,
    ollama, openai,
    prompt::Prompt,
    reply::{Moment, Reply},
    script::{Key, Wire},
    shared::Shared,
};

pub(super) fn authenticated(
    shared: &Shared,
    asked: &Asked<'_>,
    wire: Wire,
) -> Result<Option<Key>, Box<Reply>> {
    let (headers, rejected, at) = (asked.headers, &shared.script.reject_keys, &asked.moment);
    match wire {
        Wire::Anthropic => anthropic::key(headers, rejected, at).map(Some),
        Wire::OpenAi => openai::key(headers, rejected, at).map(Some),
        Wire::Ollama => Ok(None),
    }
}

pub(super) fn not_found(wire: Wire, model: &str, at: &Moment) -> Box<Reply> {
    Box::new(match wire {
        Wire::Anthropic => anthropic::not_found(at, model),
        Wire::OpenAi => openai::not_found(at, model),
        Wire::Ollama => ollama::not_found(model),
    })
}

pub(super) type Read = (Prompt, Model, Option<Key>);

pub(super) fn anthropic(
    shared: &Shared,
    asked: &Asked<'_>,
    counts: bool,
) -> Result<Read, Box<Reply>> {
    let at = &asked.moment;
    let invalid = |message: &str| Box::new(anthropic::invalid(at, message));
    let key = authenticated(shared, asked, Wire::Anthropic)?;
    let version = anthropic::version(asked.headers, at)?;
    let body = asked.body.ok_or_else(|| invalid("The request body is not valid JSON"))?;
    if asked.model.is_empty() {
        return Err(invalid("model: Field required"));
    }
    let model = shared
        .model(Wire::Anthropic, asked.model)
        .ok_or_else(|| not_found(Wire::Anthropic, asked.model, at))?;
    let reading = anthropic::request::Reading {
        model: &model,
        version,
        counts,
        strict: shared.script.strict,
    };
    let prompt = anthropic::request::read(body, &reading).map_err(|message| invalid(&message))?;
    match anthropic::request::too_long(&prompt, model.window) {
        Some(message) if !counts => Err(invalid(&message)),
        _ => Ok((prompt, model, key)),
    }
}

pub(super) fn openai(shared: &Shared, asked: &Asked<'_>) -> Result<Read, Box<Reply>> {
    let at = &asked.moment;
    let refuse = |problem: openai::Problem| Box::new(problem.reply(at, 400));
    let key = authenticated(shared, asked, Wire::OpenAi)?;
    let body = asked.body.ok_or_else(|| {
        refuse(openai::Problem::invalid(
            "",
            "",
            "We could not parse the JSON body of your request.",
        ))
    })?;
    if asked.model.is_empty() {
        return Err(refuse(openai::Problem::invalid("", "", "you must provide a model parameter")));
    }
    let model = shared
        .model(Wire::OpenAi, asked.model)
        .ok_or_else(|| not_found(Wire::OpenAi, asked.model, at))?;
    let prompt = openai::request::read(body, &model, shared.script.strict).map_err(refuse)?;
    match openai::request::too_long(&prompt, model.window) {
        Some(problem) => Err(refuse(problem)),
        None => Ok((prompt, model, key)),
    }
}

pub(super) fn ollama(
    shared: &Shared,
    asked: &Asked<'_>,
    generates: bool,
) -> Result<Read, Box<Reply>> {
    let refuse = |message: &str| Box::new(ollama::error(400, message));
    let problem =
        if asked.is_empty { "missing request body" } else { "invalid character in request body" };
    let body = asked.body.ok_or_else(|| refuse(problem))?;
    if asked.model.is_empty() {
        return Err(refuse("model is required"));
    }
    let found = shared.model(Wire::Ollama, asked.model);
    let model = found.ok_or_else(|| not_found(Wire::Ollama, asked.model, &asked.moment))?;
    let mut prompt =
        ollama::request::read(body, &model, generates).map_err(|message| refuse(&message))?;
    // Replies name the model as the request did, with or without its tag.
    asked.model.clone_into(&mut prompt.model);
    Ok((prompt, model, None))
}
