//! Every refusal of the three providers' error tables, by name: one row per documented answer.
//!
//! Source: the vendors' error pages, SDK sources and public reports, checked November 2026. Message wording is not
//! stable at any of them. In texts `{model}`, `{retry}` (seconds), `{retry_go}`, `{reset}` (RFC 3339), `{epoch}` and
//! `{month}` (the first of the next month) are filled in.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    anthropic, ollama, openai,
    reply::{Moment, Reply, ceil, go_duration},
    script::{RetryForm, Wire},
};

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    pub name: &'static str,
    pub status: u16,
    /// The wire's error type.
    kind: &'static str,
    /// A number is sent as one, for servers that do so.
    code: &'static str,
    param: &'static str,
    message: &'static str,
    /// Seconds, when the answer says when to come back.
    retry: Option<u64>,
    headers: &'static [(&'static str, &'static str)],
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Html,
    Text,
}

const fn row(
    name: &'static str,
    status: u16,
    kind: &'static str,
    code: &'static str,
    message: &'static str,
) -> Preset {
    Preset {
        name,
        status,
        kind,
        code,
        param: "",
        message,
        retry: None,
        headers: &[],
        form: Form::Json,
    }
}

impl Preset {
    const fn retry(self, seconds: u64) -> Self {
        Self { retry: Some(seconds), ..self }
    }

    const fn param(self, param: &'static str) -> Self {
        Self { param, ..self }
    }

    const fn headers(self, headers: &'static [(&'static str, &'static str)]) -> Self {
        Self { headers, ..self }
    }

    const fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// The wire that the name begins with.
    #[must_use]
    pub fn wire(&self) -> Wire {
        match self.name.split('.').next() {
            Some("anthropic") => Wire::Anthropic,
            Some("openai") => Wire::OpenAi,
            _ => Wire::Ollama,
        }
    }
}

const INVALID: &str = "invalid_request_error";
const LIMIT: &str = "rate_limit_error";
const ANTHROPIC_EMPTY: &[(&str, &str)] = &[
    ("anthropic-ratelimit-input-tokens-limit", "30000"),
    ("anthropic-ratelimit-input-tokens-remaining", "0"),
    ("anthropic-ratelimit-input-tokens-reset", "{reset}"),
    ("anthropic-ratelimit-tokens-limit", "30000"),
    ("anthropic-ratelimit-tokens-remaining", "0"),
    ("anthropic-ratelimit-tokens-reset", "{reset}"),
];
const ANTHROPIC_UNIFIED: &[(&str, &str)] = &[
    ("anthropic-ratelimit-unified-status", "rejected"),
    ("anthropic-ratelimit-unified-reset", "{epoch}"),
    ("anthropic-ratelimit-unified-representative-claim", "five_hour"),
    ("anthropic-ratelimit-unified-5h-status", "rejected"),
    ("anthropic-ratelimit-unified-5h-utilization", "1.02"),
    ("anthropic-ratelimit-unified-5h-reset", "{epoch}"),
    ("anthropic-ratelimit-unified-7d-status", "allowed_warning"),
    ("anthropic-ratelimit-unified-7d-utilization", "0.81"),
    ("anthropic-ratelimit-unified-overage-status", "rejected"),
    ("anthropic-ratelimit-unified-overage-disabled-reason", "org_level_disabled"),
];
const OPENAI_TOKENS: &[(&str, &str)] = &[
    ("x-ratelimit-limit-tokens", "30000"),
    ("x-ratelimit-remaining-tokens", "0"),
    ("x-ratelimit-reset-tokens", "{retry_go}"),
];
const OPENAI_REQUESTS: &[(&str, &str)] = &[
    ("x-ratelimit-limit-requests", "200"),
    ("x-ratelimit-remaining-requests", "0"),
    ("x-ratelimit-reset-requests", "{retry_go}"),
];
const QUOTA: &str = "You exceeded your current quota, please check your plan and billing details. For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.";

/// The table.
pub const PRESETS: &[Preset] = &[
    row("anthropic.invalid_400", 400, INVALID, "", "messages: at least one message is required"),
    row("anthropic.prompt_too_long", 400, INVALID, "", "prompt is too long: 210050 tokens > 200000 maximum"),
    row("anthropic.context_limit", 400, INVALID, "", "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or `max_tokens` and try again"),
    row("anthropic.credit_400", 400, INVALID, "", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."),
    row("anthropic.usage_limit_400", 400, INVALID, "", "You have reached your specified API usage limits. You will regain access on {month} at 00:00 UTC."),
    row("anthropic.workspace_usage_limit_400", 400, INVALID, "", "You have reached your specified workspace API usage limits. You will regain access on {month} at 00:00 UTC."),
    row("anthropic.org_disabled_400", 400, INVALID, "organization_on_hold", "This organization has been disabled."),
    row("anthropic.invalid_key_401", 401, "authentication_error", "", "invalid x-api-key"),
    row("anthropic.invalid_bearer_401", 401, "authentication_error", "", "invalid bearer token"),
    row("anthropic.billing_402", 402, "billing_error", "linked_organization_spend_limit_reached", "Your organization's spend limit has been reached."),
    row("anthropic.billing_unavailable_402", 402, "billing_error", "linked_organization_billing_unavailable", "There is a problem with your organization's payment."),
    row("anthropic.permission_403", 403, "permission_error", "", "Your API key does not have permission to use the specified resource."),
    row("anthropic.not_found_404", 404, "not_found_error", "", "model: {model}"),
    row("anthropic.conflict_409", 409, "conflict_error", "", "The request conflicts with the current state."),
    row("anthropic.too_large_413", 413, "request_too_large", "request_body_too_large_after_decoding", "Request exceeds the maximum size"),
    row("anthropic.rate_limit_429", 429, LIMIT, "", "This request would exceed the rate limit for your organization (org_sim) of 30,000 input tokens per minute. For details, refer to: https://docs.claude.com/en/api/rate-limits. Please reduce the prompt length or the maximum tokens requested, or try again later.").retry(7).headers(ANTHROPIC_EMPTY),
    row("anthropic.tokens_429", 429, LIMIT, "", "Number of request tokens has exceeded your per-minute rate limit (https://docs.claude.com/en/api/rate-limits); see the response headers for current usage.").retry(7).headers(ANTHROPIC_EMPTY),
    row("anthropic.ramp_429", 429, LIMIT, "ramp_limit_exceeded", "Your usage has increased too quickly. Please ramp up gradually and try again.").retry(10),
    row("anthropic.spend_429", 429, LIMIT, "enforced_spend_limit_reached", "Your organization has reached its monthly spend limit."),
    row("anthropic.contract_spend_429", 429, LIMIT, "contract_spend_limit_reached", "Your organization has reached the spend limit of its contract."),
    row("anthropic.family_429", 429, LIMIT, "", "This request would exceed your organization's rate limit for the model family of {model}. Please try again later.").retry(6).headers(ANTHROPIC_EMPTY),
    row("anthropic.long_context_429", 429, LIMIT, "", "This request would exceed your organization's rate limit for long context requests. Please try again later.").retry(30),
    row("anthropic.unified_429", 429, LIMIT, "", "This request would exceed your account's rate limit. Please try again later.").retry(7_200).headers(ANTHROPIC_UNIFIED),
    row("anthropic.api_error_500", 500, "api_error", "", "Internal server error"),
    row("anthropic.bad_gateway_502", 502, "", "", "").form(Form::Html),
    row("anthropic.unavailable_503", 503, "", "", "upstream connect error or disconnect/reset before headers").form(Form::Text),
    row("anthropic.timeout_504", 504, "timeout_error", "", "Request timed out. Consider using streaming for long requests."),
    row("anthropic.overloaded_529", 529, "overloaded_error", "", "Overloaded").headers(&[("x-should-retry", "true")]),
    row("anthropic.overloaded_no_retry_529", 529, "overloaded_error", "", "Overloaded").headers(&[("x-should-retry", "false")]),
    row("openai.context_length_exceeded", 400, INVALID, "context_length_exceeded", "This model's maximum context length is 128000 tokens. However, your messages resulted in 204308 tokens. Please reduce the length of the messages.").param("messages"),
    row("openai.unsupported_parameter", 400, INVALID, "unsupported_parameter", "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.").param("max_tokens"),
    row("openai.unsupported_value", 400, INVALID, "unsupported_value", "Unsupported value: 'temperature' does not support 0.2 with this model. Only the default (1) value is supported.").param("temperature"),
    row("openai.content_policy", 400, INVALID, "content_policy_violation", "Your request was rejected as a result of our safety system."),
    row("openai.invalid_prompt", 400, INVALID, "invalid_prompt", "Invalid prompt: your prompt was flagged as potentially violating our usage policy."),
    row("openai.invalid_api_key", 401, INVALID, "invalid_api_key", "Incorrect API key provided: sk-***. You can find your API key at https://platform.openai.com/account/api-keys."),
    row("openai.country_403", 403, "request_forbidden", "unsupported_country_region_territory", "Country, region, or territory not supported"),
    row("openai.model_403", 403, INVALID, "model_not_found", "Project `proj_sim` does not have access to model `{model}`"),
    row("openai.model_not_found", 404, INVALID, "model_not_found", "The model `{model}` does not exist or you do not have access to it."),
    row("openai.too_large_413", 413, "", "", "").form(Form::Html),
    row("openai.rate_limit_tpm", 429, "tokens", "rate_limit_exceeded", "Rate limit reached for {model} in organization org-sim on tokens per min (TPM): Limit 30000, Used 14567, Requested 24754. Please try again in {retry_go}. Visit https://platform.openai.com/account/rate-limits to learn more.").retry(19).headers(OPENAI_TOKENS),
    row("openai.rate_limit_rpm", 429, "requests", "rate_limit_exceeded", "Rate limit reached for {model} in organization org-sim on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in {retry_go}. Visit https://platform.openai.com/account/rate-limits to learn more.").retry(20).headers(OPENAI_REQUESTS),
    row("openai.rate_limit_rpd", 429, "requests", "rate_limit_exceeded", "Rate limit reached for {model} in organization org-sim on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in {retry_go}. Visit https://platform.openai.com/account/rate-limits to learn more.").retry(432).headers(OPENAI_REQUESTS),
    row("openai.request_too_large", 429, "tokens", "rate_limit_exceeded", "Request too large for {model} in organization org-sim on tokens per min (TPM): Limit 30000, Requested 31538. The input or output tokens must be reduced in order to run successfully. Visit https://platform.openai.com/account/rate-limits to learn more."),
    row("openai.insufficient_quota", 429, "insufficient_quota", "insufficient_quota", QUOTA),
    row("openai.credit_balance_exhausted", 429, "insufficient_quota", "credit_balance_exhausted", QUOTA),
    row("openai.org_spend_limit", 429, "insufficient_quota", "organization_spend_limit_exceeded", QUOTA),
    row("openai.project_spend_limit", 429, "insufficient_quota", "project_spend_limit_exceeded", QUOTA),
    row("openai.org_usage_limit", 429, "insufficient_quota", "organization_usage_limit_exceeded", QUOTA),
    row("openai.slow_down_429", 429, LIMIT, "slow_down", "Your traffic is increasing too quickly. Please slow down and retry."),
    row("openai.billing_not_active", 429, "billing_not_active", "billing_not_active", "Your account is not active, please check your billing details on our website."),
    row("openai.server_error_500", 500, "server_error", "", "The server had an error while processing your request. Sorry about that!"),
    row("openai.bad_gateway_502", 502, "", "", "").form(Form::Html),
    row("openai.overloaded_503", 503, "service_unavailable_error", "server_is_overloaded", "The engine is currently overloaded, please try again later"),
    row("openai.slow_down_503", 503, "server_error", "slow_down", "The engine is currently overloaded, please try again later"),
    row("openai.code_integer_400", 400, INVALID, "400", "the request exceeds the available context size"),
    row("openai.code_text_429", 429, "throttling_error", "\"429\"", "Rate limit reached for {model}"),
    row("openai.exceed_context_size_400", 400, "exceed_context_size_error", "400", "the request exceeds the available context size, try increasing it"),
    row("ollama.not_found", 404, "", "", "model '{model}' not found"),
    row("ollama.not_found_pull", 404, "", "", "model \"{model}\" not found, try pulling it first"),
    row("ollama.missing_body_400", 400, "", "", "missing request body"),
    row("ollama.no_tools_400", 400, "", "", "\"{model}\" does not support tools"),
    row("ollama.no_thinking_400", 400, "", "", "\"{model}\" does not support thinking"),
    row("ollama.prompt_too_long", 400, "", "", "the prompt is longer than the context length currently available to the model; shorten the prompt, adjust the context length in settings, or use a model with a longer context length"),
    row("ollama.unauthorized_401", 401, "", "", "unauthorized"),
    row("ollama.forbidden_403", 403, "", "", "remote inference is disabled"),
    row("ollama.limit_429", 429, "", "", "you've reached your hourly usage limit, please upgrade to continue"),
    row("ollama.bad_gateway_502", 502, "", "", "upstream is not available"),
    row("ollama.canceled_499", 499, "", "", "request canceled"),
    row("ollama.busy_503", 503, "", "", "server busy, please try again.  maximum pending requests exceeded"),
    row("ollama.out_of_memory_500", 500, "", "", "model requires more system memory (22.3 GiB) than is available (7.6 GiB)"),
    row("ollama.load_failed_500", 500, "", "", "llama runner process has terminated: error loading model"),
    row("ollama.runner_crashed_500", 500, "", "", "an error was encountered while running the model: unexpected EOF"),
];

/// The row of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

/// What a fault says of when to come back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Retry {
    /// What the script asks for.
    pub(super) asked: Option<Duration>,
    /// What is left of the fault's time, or of the quota's.
    pub(super) left: Option<Duration>,
    pub(super) form: RetryForm,
}

impl Preset {
    pub(super) fn reply(&self, model: &str, retry: Retry, at: &Moment) -> Reply {
        // Where the provider names no time, only a script that asks for one gets it.
        let usual = self.retry.map(|seconds| retry.left.unwrap_or(Duration::from_secs(seconds)));
        let wait = retry.asked.or(usual);
        let fill = |text: &str| fill(text, model, wait.unwrap_or_default(), at);
        let message = fill(self.message);
        let mut reply = match (self.form, self.wire()) {
            (Form::Html, _) => Reply::html(self.status),
            (Form::Text, _) => Reply::whole(self.status, "text/plain", message),
            (Form::Json, Wire::Anthropic) => {
                anthropic::error(at, self.status, self.kind, self.code, &message)
            }
            (Form::Json, Wire::OpenAi) => {
                let param = if self.param.is_empty() { Value::Null } else { json!(self.param) };
                openai::error(at, self.status, self.kind, self.code(), param, &message)
            }
            (Form::Json, Wire::Ollama) => ollama::error(self.status, &message),
        };
        for (name, value) in self.headers {
            reply = reply.header(name, fill(value));
        }
        match wait {
            Some(wait) => with_retry(reply, wait, retry.form, at),
            None => reply,
        }
    }

    fn code(&self) -> Value {
        match self.code {
            "" => Value::Null,
            code => serde_json::from_str(code).unwrap_or_else(|_| json!(code)),
        }
    }
}

/// Puts the wait into its header.
pub(super) fn with_retry(reply: Reply, wait: Duration, form: RetryForm, at: &Moment) -> Reply {
    match form {
        RetryForm::Seconds => reply.header("retry-after", ceil(wait).as_secs().to_string()),
        RetryForm::Date => reply.header("retry-after", at.http_date(wait)),
        RetryForm::Ms => reply.header("retry-after-ms", wait.as_millis().to_string()),
        RetryForm::None => reply,
    }
}

fn fill(text: &str, model: &str, wait: Duration, at: &Moment) -> String {
    if !text.contains('{') {
        return text.to_owned();
    }
    text.replace("{model}", model)
        .replace("{retry_go}", &go_duration(wait))
        .replace("{retry}", &ceil(wait).as_secs().to_string())
        .replace("{reset}", &at.rfc3339(wait))
        .replace("{epoch}", &(at.wall + ceil(wait)).unix_timestamp().to_string())
        .replace("{month}", &at.next_month())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::sim::reply::Payload;
    use time::macros::datetime;

    const AT: Moment =
        Moment { number: 1, now: Duration::ZERO, wall: datetime!(2026-11-20 09:00:00 UTC) };

    fn reply(name: &str, retry: Retry) -> (Value, Vec<(String, String)>) {
        let reply = find(name).unwrap().reply("m1", retry, &AT);
        let Payload::Whole(body) = reply.payload else { panic!("a refusal is whole") };
        (serde_json::from_slice(&body).unwrap_or_default(), reply.headers)
    }

    fn header(headers: &[(String, String)], name: &str) -> Option<String> {
        headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn names_are_unique_and_no_placeholder_is_left() {
        let names: BTreeSet<_> = PRESETS.iter().map(|preset| preset.name).collect();
        assert_eq!(names.len(), PRESETS.len());

        for preset in PRESETS {
            let shown = format!("{:?}", preset.reply("m1", Retry::default(), &AT));
            for placeholder in ["{model}", "{retry", "{reset}", "{epoch}", "{month}"] {
                assert!(!shown.contains(placeholder), "{}: {placeholder}", preset.name);
            }
        }
    }

    #[test]
    fn each_wire_has_its_own_form() {
        let (anthropic, _) = reply("anthropic.spend_429", Retry::default());
        let (openai, _) = reply("openai.code_integer_400", Retry::default());
        let (ollama, _) = reply("ollama.not_found", Retry::default());

        assert_eq!(
            anthropic.pointer("/error/details/error_code").unwrap(),
            "enforced_spend_limit_reached"
        );
        assert_eq!(openai.pointer("/error/code").unwrap(), 400);
        assert_eq!(ollama, json!({"error": "model 'm1' not found"}));
    }

    #[test]
    fn a_retry_is_given_in_each_form() {
        let left = Some(Duration::from_secs(6));
        let headers = |form| reply("anthropic.family_429", Retry { asked: None, left, form }).1;

        assert_eq!(header(&headers(RetryForm::Seconds), "retry-after").unwrap(), "6");
        assert_eq!(
            header(&headers(RetryForm::Date), "retry-after").unwrap(),
            "Fri, 20 Nov 2026 09:00:06 GMT"
        );
        assert_eq!(header(&headers(RetryForm::Ms), "retry-after-ms").unwrap(), "6000");
        let reset = header(&headers(RetryForm::None), "anthropic-ratelimit-tokens-reset");
        assert_eq!(reset.unwrap(), "2026-11-20T09:00:06Z");
    }

    #[test]
    fn a_spend_limit_names_no_time_even_for_a_lasting_fault() {
        let left = Some(Duration::from_secs(6));
        let (_, headers) = reply("anthropic.spend_429", Retry { left, ..Retry::default() });

        assert_eq!(header(&headers, "retry-after"), None);
    }
}
