//! Decides the reply to one request: the fault that meets it, credentials, validation, quotas, the answer.
//!
//! Nothing waits here; what takes time is said in the [`Decision`] and done by the exchange.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use serde_json::{Value, json};

use super::{
    answer::{self, Answer},
    anthropic,
    damage::Bent,
    faults::{Fired, Seen},
    journal::Outcome,
    models::Model,
    ollama::{self, reply::Timing},
    openai,
    presets::{self, Retry},
    prompt::Prompt,
    quota::{Kind, Scope, UsedUp},
    read::{self, authenticated, not_found},
    reply::{JSON, Moment, NDJSON, Reply, SSE},
    route::{Call, Route},
    script::{Effect, Wire},
    shared::{Shared, State},
    stream::Damage,
    tokens,
    track::Settle,
};

/// `OpenAI` caches in steps of this many tokens.
const OPENAI_CACHE_STEP: u64 = 128;

/// A request, as far as it has been read.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) moment: Moment,
    pub(super) wire: Option<Wire>,
    pub(super) route: Route,
    pub(super) path: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) model: &'a str,
    /// `None` when it is no JSON.
    pub(super) body: Option<&'a Value>,
    pub(super) is_empty: bool,
}

/// The reply, and how it goes out.
pub(super) struct Decision {
    pub(super) reply: Reply,
    pub(super) damage: Damage,
    /// Tokens per second; 0 for no waiting.
    pub(super) pace: f64,
    /// Before the first byte; `None` is for ever.
    pub(super) silence: Option<Duration>,
    pub(super) outcome: Outcome,
    pub(super) settle: Option<Settle>,
}

impl Decision {
    pub(super) fn refused(reply: Reply) -> Self {
        Self {
            reply,
            damage: Damage::default(),
            pace: 0.0,
            silence: Some(Duration::ZERO),
            outcome: Outcome::default(),
            settle: None,
        }
    }
}

/// A reply before faults bend it.
struct Made {
    reply: Reply,
    silence: Duration,
    outcome: Outcome,
    settle: Option<Settle>,
}

impl From<Reply> for Made {
    fn from(reply: Reply) -> Self {
        Self { reply, silence: Duration::ZERO, outcome: Outcome::default(), settle: None }
    }
}

pub(super) fn decide(shared: &Arc<Shared>, asked: &Asked<'_>) -> Decision {
    let at = &asked.moment;
    let seen = Seen {
        wire: asked.wire,
        model: asked.model,
        path: asked.path,
        answers: matches!(asked.route, Route::Answer(_)),
    };
    let mut state = shared.state();
    let fired = state.faults.take(&seen, at.now);
    let wire = asked.wire.unwrap_or(Wire::Ollama);
    let effects = fired.as_ref().map(|fired| fired.effects.as_slice()).unwrap_or_default();
    let mut bent = Bent::of(effects, wire, at);
    let pace = bent.pace.unwrap_or(shared.pace);
    let made = match fired.as_ref().and_then(|fired| immediate(fired, asked)) {
        Some(reply) => Made::from(reply),
        None => {
            route(shared, &mut state, asked, &bent, pace).unwrap_or_else(|reply| Made::from(*reply))
        }
    };
    let Made { mut reply, silence, mut outcome, settle } = made;
    bent.fit(&mut reply);
    for effect in effects {
        if let Effect::Headers(headers) = effect {
            headers.iter().for_each(|(name, value)| reply.set_header(name, value.as_ref()));
        }
    }
    let silence = match bent.stall_first {
        Some(None) => None,
        Some(Some(more)) => Some(silence + more),
        None => Some(silence),
    };
    outcome.fault = fired.map(|fired| fired.label);
    Decision { reply, damage: bent.damage, pace, silence, outcome, settle }
}

/// The reply of a fault that needs nothing of the request.
fn immediate(fired: &Fired, asked: &Asked<'_>) -> Option<Reply> {
    let at = &asked.moment;
    fired.effects.iter().find_map(|effect| match effect {
        Effect::Preset(name) => {
            presets::find(name).map(|preset| preset.reply(asked.model, fired.retry, at))
        }
        Effect::Html(status) => Some(retried(Reply::html(*status), fired.retry, at)),
        Effect::Status { status, body, headers } => {
            let mut reply = match body {
                Value::String(text) => Reply::whole(*status, "text/plain", text.clone()),
                Value::Null => Reply::whole(*status, "text/plain", ""),
                body => Reply::json(*status, body),
            };
            for (name, value) in headers {
                reply.set_header(name, Some(value));
            }
            Some(retried(reply, fired.retry, at))
        }
        _ => None,
    })
}

fn retried(reply: Reply, retry: Retry, at: &Moment) -> Reply {
    match retry.asked {
        Some(wait) => presets::with_retry(reply, wait, retry.form, at),
        None => reply,
    }
}

fn route(
    shared: &Arc<Shared>,
    state: &mut State,
    asked: &Asked<'_>,
    bent: &Bent,
    pace: f64,
) -> Result<Made, Box<Reply>> {
    let at = &asked.moment;
    let wire = asked.wire.unwrap_or(Wire::Ollama);
    let reply = match &asked.route {
        Route::Answer(call) => return answered(shared, state, asked, *call, bent, pace),
        Route::CountTokens => {
            let (prompt, ..) = read::anthropic(shared, asked, true)?;
            Reply::json(200, &json!({"input_tokens": prompt.tokens()}))
                .with_headers(anthropic::identity(at.number))
        }
        Route::Models => {
            authenticated(shared, asked, wire)?;
            let models = shared.models(wire);
            Reply::json(
                200,
                &if wire == Wire::Anthropic {
                    anthropic::list(&models)
                } else {
                    openai::list(&models)
                },
            )
        }
        Route::Model(id) => {
            authenticated(shared, asked, wire)?;
            match shared.model(wire, id) {
                Some(model) if wire == Wire::Anthropic => {
                    Reply::json(200, &anthropic::model_entry(&model))
                }
                Some(model) => Reply::json(200, &openai::model_entry(&model)),
                None => return Err(not_found(wire, id, at)),
            }
        }
        Route::Root => Reply::whole(200, "text/plain; charset=utf-8", "Ollama is running"),
        Route::Version => Reply::json(200, &json!({"version": ollama::VERSION})),
        Route::Tags => Reply::json(200, &ollama::tags(&shared.models(wire))),
        Route::Ps => {
            let loaded: Vec<_> = state
                .loaded
                .iter()
                .filter_map(|(id, num_ctx)| Some((shared.model(wire, id)?, *num_ctx)))
                .collect();
            Reply::json(200, &ollama::ps(&loaded, at))
        }
        Route::Show => {
            let model =
                shared.model(wire, asked.model).ok_or_else(|| not_found(wire, asked.model, at))?;
            Reply::json(200, &ollama::show(&model))
        }
        Route::Unknown => {
            let message = format!("Invalid URL ({})", asked.path);
            openai::Problem::invalid("", "", message).reply(at, 404)
        }
    };
    Ok(reply.into())
}

fn answered(
    shared: &Arc<Shared>,
    state: &mut State,
    asked: &Asked<'_>,
    call: Call,
    bent: &Bent,
    pace: f64,
) -> Result<Made, Box<Reply>> {
    let at = &asked.moment;
    let generates = call == Call::OllamaGenerate;
    let (mut prompt, model, key) = match call {
        Call::Messages => read::anthropic(shared, asked, false)?,
        Call::Chat => read::openai(shared, asked)?,
        Call::OllamaChat | Call::OllamaGenerate => read::ollama(shared, asked, generates)?,
    };
    if bent.truncate.is_some() {
        prompt.cut_to = bent.truncate;
    }
    let mut timing = Timing {
        load: bent.load.unwrap_or_default(),
        first_token: shared.first_token,
        pace,
        generates,
    };
    if model.wire == Wire::Ollama {
        timing.load += load(state, &model, &prompt);
        if let Some(made) = only_loads(state, asked, &model, &prompt, &timing) {
            return Ok(made);
        }
    }
    let beginnings = state.cache.look(&prompt);
    let cached = match model.wire {
        Wire::Anthropic => beginnings.hit,
        Wire::OpenAi => beginnings.hit / OPENAI_CACHE_STEP * OPENAI_CACHE_STEP,
        Wire::Ollama => 0,
    };
    let scope = Scope { wire: model.wire, model: model.id.clone(), key };
    // Cached reads do not count towards Anthropic's input limits; at `OpenAI` they do.
    let charged = prompt.tokens() - if model.wire == Wire::Anthropic { cached } else { 0 };
    if let Err(used) = state.quotas.admit(&scope, charged, at.now) {
        return Ok(used_up(state, &used, &scope, &model, at));
    }
    state.cache.remember(beginnings);
    let mut answer = answer::compose(&prompt, &model, shared.seed, &bent.answer);
    answer.usage.cache_read = cached;
    if model.wire == Wire::Anthropic && prompt.marked_tokens() >= tokens::SMALLEST_CACHED {
        answer.usage.cache_write = prompt.marked_tokens().saturating_sub(cached);
    }
    let gauges = state.quotas.gauges(&scope, at.now);
    let reply = match model.wire {
        Wire::Anthropic => write_anthropic(&answer, &prompt, &model, at)
            .with_headers(anthropic::identity(at.number))
            .with_headers(anthropic::limit_headers(&gauges, at)),
        Wire::OpenAi => write_openai(&answer, &prompt, &model, at)
            .with_headers(openai::identity(at.number))
            .with_headers(openai::limit_headers(&gauges)),
        Wire::Ollama => write_ollama(&answer, &prompt, &timing, at),
    };
    let mut silence = timing.load + timing.first_token;
    if !prompt.stream && pace > 0.0 {
        #[expect(clippy::cast_precision_loss, reason = "token counts stay far below 2^52")]
        let seconds = answer.usage.output as f64 / pace;
        silence += Duration::try_from_secs_f64(seconds).unwrap_or_default();
    }
    let outcome =
        Outcome { usage: Some(answer.usage), images: prompt.images(), ..Outcome::default() };
    Ok(Made { reply, silence, outcome, settle: Some(settle(shared, scope, model, &answer)) })
}

/// Charges the quotas when the reply has ended, with what was really sent.
fn settle(shared: &Arc<Shared>, scope: Scope, model: Model, answer: &Answer) -> Settle {
    let (shared, usage) = (Arc::clone(shared), answer.usage);
    Box::new(move |output| {
        let now = shared.now();
        let usd = usage.usd(&model, output);
        shared.state().quotas.settle(&scope, output, usd, now);
    })
}

fn write_anthropic(answer: &Answer, prompt: &Prompt, model: &Model, at: &Moment) -> Reply {
    if prompt.stream {
        return Reply::stream(SSE, anthropic::reply::chunks(answer, prompt, model, at.number));
    }
    Reply::json(200, &anthropic::reply::whole(answer, prompt, model, at.number))
}

fn write_openai(answer: &Answer, prompt: &Prompt, model: &Model, at: &Moment) -> Reply {
    if prompt.stream {
        return Reply::stream(SSE, openai::reply::chunks(answer, prompt, model, at));
    }
    Reply::json(200, &openai::reply::whole(answer, model, at))
}

fn write_ollama(answer: &Answer, prompt: &Prompt, timing: &Timing, at: &Moment) -> Reply {
    if prompt.stream {
        return Reply::stream(NDJSON, ollama::reply::chunks(answer, prompt, timing, at));
    }
    Reply::whole(200, JSON, ollama::reply::whole(answer, prompt, timing, at).to_string())
}

/// Notes the model as loaded; how long that takes when it was not, or with another window.
fn load(state: &mut State, model: &Model, prompt: &Prompt) -> Duration {
    match state.loaded.insert(model.id.clone(), prompt.num_ctx) {
        Some(num_ctx) if num_ctx == prompt.num_ctx => Duration::ZERO,
        _ => model.load,
    }
}

/// A request without a prompt only loads the model; with `keep_alive: 0` it unloads it.
fn only_loads(
    state: &mut State,
    asked: &Asked<'_>,
    model: &Model,
    prompt: &Prompt,
    timing: &Timing,
) -> Option<Made> {
    let keeps = asked.body.and_then(|body| body.get("keep_alive"));
    let unloads = keeps.is_some_and(|keeps| {
        keeps.as_i64() == Some(0) || matches!(keeps.as_str(), Some("0" | "0s"))
    });
    if unloads {
        state.loaded.remove(&model.id);
    }
    if !prompt.turns.is_empty() {
        return None;
    }
    let reason = if unloads { "unload" } else { "load" };
    let reply = Reply::json(200, &ollama::reply::loaded(prompt, timing, &asked.moment, reason));
    Some(Made { silence: timing.load, ..Made::from(reply) })
}

fn used_up(state: &mut State, used: &UsedUp, scope: &Scope, model: &Model, at: &Moment) -> Made {
    let usual = match (scope.wire, used.spec.kind) {
        (Wire::Anthropic, Kind::Money) => Some("anthropic.credit_400"),
        (Wire::OpenAi, Kind::Money) => Some("openai.insufficient_quota"),
        _ => None,
    };
    let preset = used.spec.refusal.as_deref().or(usual).and_then(presets::find);
    let gauges = state.quotas.gauges(scope, at.now);
    let reply = match (preset, scope.wire) {
        (Some(preset), _) => {
            preset.reply(&model.id, Retry { left: used.wait, ..Retry::default() }, at)
        }
        (None, Wire::Anthropic) => anthropic::used_up(used, &model.id, &gauges, at),
        (None, Wire::OpenAi) => openai::used_up(used, &model.id, &gauges, at),
        (None, Wire::Ollama) => ollama::busy(),
    };
    Made {
        outcome: Outcome { quota: Some(used.spec.name.clone()), ..Outcome::default() },
        ..Made::from(reply)
    }
}
