//! What a script can say: models, keys, quotas, faults. The rules that act on it are in `faults`
//! and `quota`; `docs/simulator.md` is its manual.
//!
//! Invariant: a key that a script names is never printed or sent back.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::quota::QuotaSpec;

/// One of the three providers' wires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    Anthropic,
    OpenAi,
    Ollama,
}

/// A whole script file. Flags of the program override `seed`, `tokens_per_second` and `first_token`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// The same seed and request give the same answer. Default 1.
    pub seed: Option<u64>,
    /// Pace of every answer; 0 sends as fast as the socket takes it. Default 200.
    pub tokens_per_second: Option<f64>,
    /// Silence before the first byte of an answer. Default 40 ms.
    pub first_token: Option<Span>,
    /// Also check what only a strict reading of the wires forbids.
    pub strict: bool,
    /// Once a wire has models here, any other id on that wire is "not found".
    pub models: Vec<ModelSpec>,
    /// Keys answered with 401 (so is every key whose text contains `invalid`).
    pub reject_keys: Vec<Key>,
    pub quotas: Vec<QuotaSpec>,
    pub faults: Vec<Fault>,
}

/// A model, as far as it differs from what the catalogue in `models` says of its id.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSpec {
    pub id: String,
    /// Default: told from the id (`claude-*`, `gpt-*`, `o<digit>*`; everything else is Ollama's).
    pub wire: Option<Wire>,
    /// Tokens of prompt and answer together; at Ollama the trained length.
    pub window: Option<u64>,
    /// Ollama: the length in force when a request has no `num_ctx`. Default 4096.
    pub num_ctx: Option<u64>,
    /// Ollama: false makes a prompt that is too long an error instead of a silent cut. Default true.
    pub shift: Option<bool>,
    pub max_output: Option<u64>,
    /// The id that `OpenAI` puts into replies.
    pub snapshot: Option<String>,
    /// Spends output tokens on reasoning before it answers.
    pub reasoning: Option<bool>,
    /// Default all: `tools`, `vision`, `thinking`.
    pub capabilities: Option<Vec<String>>,
    /// USD per million tokens.
    pub input_usd: Option<f64>,
    pub output_usd: Option<f64>,
    pub cache_read_usd: Option<f64>,
    /// Ollama: how long the first call (or a changed `num_ctx`) loads, with no byte sent.
    pub load: Option<Span>,
}

/// A fault: which requests it meets, how often, and what happens to them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<Wire>,
    /// An id, or the beginning of one followed by `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A path, or the beginning of one followed by `*`. Without it only the calls that make an answer are met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Matching requests that pass unharmed first.
    #[serde(default)]
    pub skip: u64,
    /// Default: once; with `for`: every time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<Times>,
    /// Counted from the first time it fires.
    #[serde(rename = "for", default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Span>,
    /// For refusals that carry one. Default: what is left of `for`, else the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Span>,
    #[serde(default)]
    pub retry_after_as: RetryForm,
    #[serde(rename = "do")]
    pub effects: OneOrMany<Effect>,
}

impl Fault {
    /// A fault that fires once, on the next call that makes an answer.
    #[must_use]
    pub fn once(effect: Effect) -> Self {
        Self {
            name: None,
            wire: None,
            model: None,
            path: None,
            skip: 0,
            times: None,
            lasts: None,
            retry_after: None,
            retry_after_as: RetryForm::default(),
            effects: OneOrMany::One(effect),
        }
    }

    /// The named preset, once.
    #[must_use]
    pub fn preset(name: &str) -> Self {
        Self::once(Effect::Preset(name.to_owned()))
    }

    #[must_use]
    pub fn on(mut self, wire: Wire) -> Self {
        self.wire = Some(wire);
        self
    }

    #[must_use]
    pub fn model(mut self, pattern: &str) -> Self {
        self.model = Some(pattern.to_owned());
        self
    }

    #[must_use]
    pub fn times(mut self, times: Times) -> Self {
        self.times = Some(times);
        self
    }

    #[must_use]
    pub fn lasting(mut self, lasts: Duration) -> Self {
        self.lasts = Some(Span(lasts));
        self
    }

    #[must_use]
    pub fn retry_after(mut self, wait: Duration, form: RetryForm) -> Self {
        self.retry_after = Some(Span(wait));
        self.retry_after_as = form;
        self
    }

    /// Does this as well.
    #[must_use]
    pub fn and(mut self, effect: Effect) -> Self {
        let mut effects = self.effects.into_vec();
        effects.push(effect);
        self.effects = OneOrMany::Many(effects);
        self
    }
}

/// What happens to a request. `after` counts events (Anthropic, `OpenAI`) or lines (Ollama), from the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// A refusal of the table in [`super::presets`].
    Preset(String),
    /// Any status, headers and body (text, or JSON).
    Status {
        status: u16,
        #[serde(default)]
        body: Value,
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
    /// A gateway's page with this status.
    Html(u16),
    /// The wire's own error inside a 200, then the end of the connection's reply.
    ErrorEvent {
        #[serde(default = "three")]
        after: usize,
        /// The wire's own default when absent.
        #[serde(rename = "type", default)]
        kind: Option<String>,
        #[serde(default)]
        message: Option<String>,
    },
    /// The connection breaks.
    Cut {
        #[serde(default = "eight")]
        after: usize,
    },
    /// A clean end without the final event; without `after`, all but that event is sent.
    End {
        #[serde(default)]
        after: Option<usize>,
    },
    /// Silence before the first byte; without `for`, for ever.
    StallFirst {
        #[serde(rename = "for", default)]
        lasts: Option<Span>,
    },
    /// Silence between bytes; without `for`, for ever.
    StallBetween {
        #[serde(default = "three")]
        after: usize,
        #[serde(rename = "for", default)]
        lasts: Option<Span>,
    },
    /// Something that is not JSON in the place of one event, or of the whole body.
    Garbage {
        #[serde(default)]
        after: usize,
    },
    /// Bytes per piece on the socket.
    Split(usize),
    /// Unknown events, pings and comments before every `every`-th event.
    Noise {
        #[serde(default = "one")]
        every: usize,
    },
    /// Tokens per second of this answer.
    Pace(f64),
    /// Ollama: the prompt is cut to this many tokens, silently.
    TruncatePrompt(u64),
    /// Ollama: the model loads first, and says so in `load_duration`.
    LoadDelay(Span),
    /// Nobody listens for this long, from the moment the fault is installed. Matches nothing, fires at once.
    Refuse(Span),
    /// Headers of an otherwise normal reply: set, or taken away with null.
    Headers(BTreeMap<String, Option<String>>),
    /// No usage anywhere in the reply.
    OmitUsage,
    /// What is answered.
    Answer(ScriptedAnswer),
}

/// What is answered instead of the generated text; what is absent stays generated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScriptedAnswer {
    pub text: Option<String>,
    /// Length of the generated text.
    pub tokens: Option<u64>,
    pub thinking: Option<String>,
    /// Reasoning tokens that are billed but not shown.
    pub reasoning_tokens: Option<u64>,
    pub tool: Option<ScriptedCall>,
    /// The wire's own word, such as `refusal`, `pause_turn`, `content_filter`.
    pub stop_reason: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedCall {
    pub name: String,
    #[serde(default)]
    pub arguments: Value,
}

fn one() -> usize {
    1
}

fn three() -> usize {
    3
}

fn eight() -> usize {
    8
}

/// How often a fault fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Times {
    Count(u64),
    Word(Forever),
}

impl Times {
    pub const FOREVER: Self = Self::Word(Forever::Forever);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forever {
    Forever,
}

/// The shape of a retry-after header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetryForm {
    /// `retry-after: 6`
    #[default]
    Seconds,
    /// `retry-after: Fri, 20 Nov 2026 09:00:06 GMT`
    Date,
    /// `retry-after-ms: 6000`
    Ms,
    /// No header at all.
    None,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

impl<T> OneOrMany<T> {
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::Many(all) => all,
            Self::One(one) => std::slice::from_ref(one),
        }
    }

    pub fn into_vec(self) -> Vec<T> {
        match self {
            Self::Many(all) => all,
            Self::One(one) => vec![one],
        }
    }
}

/// Whether `pattern` (an id, or the beginning of one and `*`; absent for all) takes `text`.
pub(super) fn takes(pattern: Option<&str>, text: &str) -> bool {
    match pattern {
        None => true,
        Some(pattern) => match pattern.strip_suffix('*') {
            Some(beginning) => text.starts_with(beginning),
            None => pattern == text,
        },
    }
}

/// A duration: `"6s"`, `"40ms"`, `"1m 5s"`, or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Seconds(f64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Seconds(seconds) => Duration::try_from_secs_f64(seconds).map(Span),
            Written::Text(text) => {
                return humantime::parse_duration(&text)
                    .map(Span)
                    .map_err(|err| serde::de::Error::custom(format!("duration `{text}`: {err}")));
            }
        }
        .map_err(serde::de::Error::custom)
    }
}

/// A key's text, which is compared and never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn is_invalid(&self) -> bool {
        self.0.contains("invalid")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("present")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_the_manual_writes_it() {
        let fault: Fault = serde_json::from_str(
            r#"{"wire":"anthropic","model":"claude-opus-*","for":"6s","times":"forever",
                "do":[{"preset":"anthropic.family_429"},{"split":1},{"cut":{}},"omit_usage"]}"#,
        )
        .unwrap();

        assert_eq!(fault.lasts, Some(Span(Duration::from_secs(6))));
        assert_eq!(fault.times, Some(Times::FOREVER));
        assert_eq!(
            fault.effects.as_slice(),
            [
                Effect::Preset("anthropic.family_429".into()),
                Effect::Split(1),
                Effect::Cut { after: 8 },
                Effect::OmitUsage
            ]
        );
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        assert!(serde_json::from_str::<Fault>(r#"{"modle":"x","do":{"html":502}}"#).is_err());
        assert!(serde_json::from_str::<Script>(r#"{"qoutas":[]}"#).is_err());
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = Key::new("sk-canary");

        assert!(!format!("{key:?}").contains("canary"));
        assert!(!serde_json::to_string(&key).unwrap().contains("canary"));
    }

    #[test]
    fn a_star_takes_the_rest_of_an_id() {
        assert!(takes(Some("claude-opus-*"), "claude-opus-5-5"));
        assert!(!takes(Some("claude-opus-*"), "claude-sonnet-5-5"));
        assert!(!takes(Some("claude-opus-5"), "claude-opus-5-5"));
        assert!(takes(None, "anything"));
    }
}
