//! `[[models]]`: one model, and what is known of it before it is asked.
//!
//! Only the name, the provider and the id must be given; the rest follows from the provider.

use std::time::Duration;

use crate::error::Problem;
use crate::nearest::looks_like_key;
use crate::rule::{
    Choice, Given, Rule, YEAR, choice, count, decimal, duration, flag, hours, millis, mins, names,
    optional_text, secs, text,
};
use crate::section::keyed;

/// Whose wire a model is spoken to on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI chat completions, and whatever speaks them.
    OpenAi,
    /// Ollama's own API.
    Ollama,
}

impl Choice for Provider {
    const NOUN: &'static str = "provider";
    const ALL: &'static [(&'static str, Self)] =
        &[("anthropic", Self::Anthropic), ("openai", Self::OpenAi), ("ollama", Self::Ollama)];
}

impl Provider {
    /// The word for it in configuration, output and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Ollama => "ollama",
        }
    }

    /// The vendor's own address, or a local Ollama's.
    #[must_use]
    pub fn default_base_url(self) -> &'static str {
        match self {
            Self::Anthropic => "https://api.anthropic.com",
            Self::OpenAi => "https://api.openai.com/v1",
            Self::Ollama => "http://127.0.0.1:11434",
        }
    }

    /// The variable the vendor's SDK reads its key from.
    #[must_use]
    pub fn default_api_key_env(self) -> Option<&'static str> {
        match self {
            Self::Anthropic => Some("ANTHROPIC_API_KEY"),
            Self::OpenAi => Some("OPENAI_API_KEY"),
            Self::Ollama => None,
        }
    }

    /// The provider called `word`, written as in a configuration.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| *name == word).map(|(_, provider)| *provider)
    }
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a model costs, in USD per million tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// Input tokens that were neither read from nor written to a cache.
    pub input: f64,
    /// Output tokens, reasoning included.
    pub output: f64,
    /// Input tokens read from a cache. Default: as `input`.
    pub cache_read: f64,
    /// Input tokens written to a cache. Default: as `input`.
    pub cache_write: f64,
}

impl Prices {
    /// What costs nothing: a model on one's own machine.
    pub const FREE: Self = Self { input: 0.0, output: 0.0, cache_read: 0.0, cache_write: 0.0 };
}

keyed!(Prices ["models.prices"] {
    input: decimal(0.0..=1e6);
    output: decimal(0.0..=1e6);
    cache_read: decimal(0.0..=1e6);
    cache_write: decimal(0.0..=1e6);
});

/// One `[[models]]` entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What people and agents call it: 1 to 64 of `[a-z0-9._-]`, a letter or digit first, unique.
    pub name: String,
    /// Whose wire it speaks: `"anthropic"`, `"openai"` or `"ollama"`.
    pub provider: Provider,
    /// What the provider calls it.
    pub id: String,
    /// Where the provider is, as the vendor's SDK takes it: OpenAI with `/v1`, the others without.
    /// Kept without a slash at the end. Default: the vendor's own, or `http://127.0.0.1:11434` for Ollama.
    pub base_url: String,
    /// The *name* of the variable that holds the key, never the key; `""` for none.
    /// Default: `ANTHROPIC_API_KEY`, `OPENAI_API_KEY`, none for Ollama.
    pub api_key_env: Option<String>,
    /// Tokens of prompt and answer together. Default: 200,000 (Anthropic), 128,000 (OpenAI), 8,192 (Ollama).
    pub context_window: u64,
    /// The most output tokens the provider allows in one answer. Default: 8,192 (Anthropic), 16,384 (OpenAI),
    /// 2,048 (Ollama), and never above a quarter of the window.
    pub max_output_tokens: u64,
    /// Whether it takes images. Default: true, false for Ollama.
    pub vision: bool,
    /// Whether it can call tools. Without, a task asks its requester back in plain words. Default: true.
    pub tools: bool,
    /// The models that answer when this one cannot, in order; their own lists follow. Usual spellings count.
    pub fallback: Vec<String>,
    /// Other names it answers to.
    pub aliases: Vec<String>,
    /// USD per million tokens: `{ input, output, cache_read, cache_write }`. Unset: the cost is unknown.
    pub prices: Option<Prices>,
    /// How able it is beside the others, higher is abler. Default: 2, 1 for Ollama.
    pub tier: u8,
    /// Whether it is a simulation; its answers are marked so wherever a person sees them.
    pub simulated: bool,
    /// Whether an answer from it counts as degraded when another model was asked. Default: true for Ollama.
    pub degraded: bool,
    /// Models with the same account share its account-wide limits. Default: the provider and its key's variable.
    pub account: String,
    /// Models with the same family share a pool of rate limits. Default: the model's own name.
    pub family: String,
    /// Bytes of text per token, for estimates before a call. Default: 3.0 (Anthropic), 4.0 (OpenAI), 3.5 (Ollama).
    pub bytes_per_token: f64,
    /// Ollama only: how long the model stays loaded after an answer. Default: 5 min.
    pub keep_alive: Duration,
    /// Calls at once. Default: 4, 1 for Ollama, which queues further ones silently.
    pub concurrency: u32,
    /// The longest wait for a connection. Default: 10 s, 2 s for Ollama.
    pub connect_timeout: Duration,
    /// The longest wait for the first byte of an answer. Default: 60 s, 5 min for Ollama, which loads the model first.
    pub first_byte_timeout: Duration,
    /// The longest silence within an answer. Default: 60 s.
    pub between_bytes_timeout: Duration,
    /// The longest whole call. Default: 10 min.
    pub total_timeout: Duration,
}

keyed!(Model ["models"] {
    name: text("a name: 1 to 64 of a-z, 0-9, `.`, `_`, `-`, a letter or digit first", model_name);
    provider: choice();
    id: text("the provider's id of the model", plain);
    base_url: text(
        "an address such as \"https://api.example.com\", without user, query or fragment",
        base_url
    );
    api_key_env: optional_text(
        "the name of an environment variable such as \"ANTHROPIC_API_KEY\", never a key",
        variable_name
    );
    context_window: count(256..=100_000_000);
    max_output_tokens: count(1..=100_000_000);
    vision: flag();
    tools: flag();
    fallback: names("a list of model names");
    aliases: names("a list of names");
    prices: PricesRule;
    tier: count(0..=9);
    simulated: flag();
    degraded: flag();
    account: text("a short text", plain);
    family: text("a short text", plain);
    bytes_per_token: decimal(0.25..=64.0);
    keep_alive: duration(millis(0)..=YEAR);
    concurrency: count(1..=10_000);
    connect_timeout: duration(millis(1)..=hours(1));
    first_byte_timeout: duration(millis(1)..=hours(24));
    between_bytes_timeout: duration(millis(1)..=hours(24));
    total_timeout: duration(millis(1)..=hours(24));
});

impl Model {
    /// The model with every default of its provider.
    #[must_use]
    pub fn new(name: &str, provider: Provider, id: &str) -> Self {
        let is_ollama = provider == Provider::Ollama;
        let (context_window, max_output_tokens, bytes_per_token) = match provider {
            // Claude counts about 30 % more tokens than the 4.5 models did for the same text.
            Provider::Anthropic => (200_000, 8_192, 3.0),
            Provider::OpenAi => (128_000, 16_384, 4.0),
            Provider::Ollama => (8_192, 2_048, 3.5),
        };
        let mut model = Self {
            name: name.to_owned(),
            provider,
            id: id.to_owned(),
            base_url: provider.default_base_url().to_owned(),
            api_key_env: provider.default_api_key_env().map(str::to_owned),
            context_window,
            max_output_tokens,
            vision: !is_ollama,
            tools: true,
            fallback: Vec::new(),
            aliases: Vec::new(),
            prices: None,
            tier: if is_ollama { 1 } else { 2 },
            simulated: false,
            degraded: is_ollama,
            account: String::new(),
            family: name.to_owned(),
            bytes_per_token,
            keep_alive: mins(5),
            concurrency: if is_ollama { 1 } else { 4 },
            connect_timeout: if is_ollama { secs(2) } else { secs(10) },
            first_byte_timeout: if is_ollama { mins(5) } else { secs(60) },
            between_bytes_timeout: secs(60),
            total_timeout: mins(10),
        };
        model.account = model.default_account();
        model
    }

    /// Models of one provider that use one key share an account.
    pub(crate) fn default_account(&self) -> String {
        match &self.api_key_env {
            Some(variable) => format!("{}:{variable}", self.provider),
            None => self.provider.to_string(),
        }
    }

    /// An output cap that leaves room for a prompt, where none was given.
    pub(crate) fn default_max_output(&self) -> u64 {
        self.max_output_tokens.min(self.context_window / 4)
    }
}

/// Prices are a table of their own (`layer` reads it key by key); here they are only written, or refused.
struct PricesRule;

impl Rule for PricesRule {
    type Value = Option<Prices>;

    fn read(&self, given: &Given<'_>) -> Result<Option<Prices>, Problem> {
        let want = "a table such as { input = 2.5, output = 10.0 }";
        match given {
            Given::Text(_) => Err(Problem::rejected(want)),
            Given::Toml(value) => Err(Problem::wrong_type(want, value)),
        }
    }

    fn write(&self, value: &Option<Prices>) -> Option<String> {
        let Prices { input, output, cache_read, cache_write } = value.as_ref()?;
        Some(format!(
            "{{ input = {input:?}, output = {output:?}, cache_read = {cache_read:?}, cache_write = {cache_write:?} }}"
        ))
    }
}

/// A name for people and agents; it starts with a letter or digit, so that it is never `.` or `..`.
pub(crate) fn model_name(text: &str) -> Option<String> {
    let is_name = (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'));
    (is_name && !looks_like_key(text)).then(|| text.to_owned())
}

/// A short text of one line that is not a key.
fn plain(text: &str) -> Option<String> {
    let text = text.trim();
    let is_plain = (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
    (is_plain && !looks_like_key(text)).then(|| text.to_owned())
}

fn variable_name(text: &str) -> Option<String> {
    let is_name = text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && text.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_'));
    is_name.then(|| text.to_owned())
}

/// A user, a query or a fragment would carry a secret, or break the paths that adapters append.
fn base_url(text: &str) -> Option<String> {
    if text.contains(['@', '?', '#', '\\']) {
        return None;
    }
    let uri: http::Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
    // `port()` is `None` for a port out of range too, so what follows the host decides.
    let has_port_or_none = authority.as_str() == authority.host() || authority.port_u16().is_some();
    (is_web && has_port_or_none && !authority.host().is_empty())
        .then(|| text.trim_end_matches('/').to_owned())
}
