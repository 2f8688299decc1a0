//! The real adapters against the simulated providers: two independent readings of the same wires.

#![expect(clippy::unwrap_used, reason = "what fails in a helper of a test fails the test")]

use std::{sync::Arc, time::Duration};

use broker_agents::{
    provider::{Chunk, Clock, Failed, Prompt, Provider, adapter},
    sim::{Effect, Fault, Options, Script, Simulator, Wire, presets::PRESETS},
};
use broker_config::{Model, Provider as Name};
use broker_proto::{
    Delivery, Entry, FailureClass as Class, Message, MessageId, ModelName, Part, Payload, Role,
    StopReason, Usage, WallTime,
};
use bytes::Bytes;
use futures::StreamExt;

const WIRES: [(Name, Wire, &str); 3] = [
    (Name::Anthropic, Wire::Anthropic, "claude-sonnet-5-5"),
    (Name::OpenAi, Wire::OpenAi, "gpt-4o"),
    (Name::Ollama, Wire::Ollama, "llama3.2"),
];

async fn simulator() -> Simulator {
    let script = Script { strict: true, ..Script::fast() };
    Simulator::start(Options { script, ..Options::default() }).await.unwrap()
}

fn connect(
    simulator: &Simulator,
    (provider, wire, id): (Name, Wire, &str),
) -> (Model, Arc<dyn Provider>) {
    let mut model = Model::new("m", provider, id);
    model.base_url = simulator.base_url(wire);
    let adapter = adapter(&model, Some("k".into()), Clock::system()).unwrap();
    (model, adapter)
}

/// What came of asking.
#[derive(Debug, Default)]
struct Heard {
    text: String,
    done: Option<(Usage, Option<StopReason>)>,
    failed: Option<Box<Failed>>,
}

impl Heard {
    fn class(&self) -> Option<Class> {
        self.failed.as_ref().map(|failed| failed.failure.class)
    }
}

async fn ask(model: &Model, adapter: &dyn Provider, payload: Payload) -> Heard {
    let now = WallTime(1);
    let name = ModelName::parse("m").unwrap();
    let delivery = Delivery {
        size_bytes: 0,
        lease: String::new(),
        number: 1,
        message: Message::consultation(MessageId::from_parts(now, 1), name.clone(), payload),
        attempt: 1,
        model: Some(name),
        time_left: Duration::from_secs(60),
        max_output_tokens: None,
        exchanges: Vec::new(),
        lease_left: Duration::from_secs(60),
        generation: 1,
    };
    let prompt = Prompt::of(&delivery, model).unwrap();
    let mut heard = Heard::default();
    let mut chunks = match adapter.complete(prompt).await {
        Ok(chunks) => chunks,
        Err(failed) => return Heard { failed: Some(failed), ..heard },
    };
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(Chunk::Delta { text, .. }) => heard.text.push_str(&text),
            Ok(Chunk::Done { usage, stop_reason }) => heard.done = Some((usage, stop_reason)),
            Ok(_) => {}
            Err(failed) => heard.failed = Some(failed),
        }
    }
    heard
}

fn question() -> Payload {
    Payload {
        request: vec![Part::text("What is a lease? Say it in naïve words. 🦀")],
        ..Payload::default()
    }
}

fn conversation() -> Payload {
    let entry = |role, parts| Entry { role, name: String::new(), parts };
    let call = Part::ToolCall {
        id: "call_1".into(),
        name: "read_file".into(),
        arguments: Bytes::from_static(br#"{"path":"a.txt"}"#),
    };
    let result = Part::ToolResult {
        call_id: "call_1".into(),
        parts: vec![Part::text("contents")],
        is_error: false,
    };
    let mut payload = question();
    payload.context = vec![
        entry(Role::System, vec![Part::text("Be brief.")]),
        entry(Role::Assistant, vec![Part::text("Let me look."), call]),
        entry(Role::Tool, vec![result]),
        entry(Role::User, vec![Part::text("Go on.")]),
        entry(
            Role::Assistant,
            vec![Part::ToolCall {
                id: "call_2".into(),
                name: "list".into(),
                arguments: Bytes::new(),
            }],
        ),
    ];
    payload.generation.temperature = Some(0.5);
    payload.generation.max_output_tokens = Some(64);
    payload
}

#[tokio::test]
async fn a_strict_reading_takes_every_request_and_agrees_on_the_counts() {
    let simulator = simulator().await;
    for wire in WIRES {
        let (model, adapter) = connect(&simulator, wire);
        for payload in [question(), conversation()] {
            let heard = ask(&model, &*adapter, payload).await;
            assert_eq!(heard.class(), None, "{:?}: {heard:?}", model.provider);
            let (usage, stop_reason) = heard.done.unwrap();
            assert!(!heard.text.is_empty() && stop_reason.is_some(), "{:?}", model.provider);
            assert!(usage.input_tokens > Some(0) && usage.output_tokens > Some(0), "{usage:?}");
        }
    }
}

#[tokio::test]
async fn a_check_finds_every_simulated_model() {
    let simulator = simulator().await;
    for wire in WIRES {
        let (_, adapter) = connect(&simulator, wire);
        assert!(adapter.check().await.is_ok(), "{:?}", wire);
    }
}

#[tokio::test]
async fn split_bytes_and_noise_change_nothing() {
    let simulator = simulator().await;
    for wire in WIRES {
        let (model, adapter) = connect(&simulator, wire);
        let plain = ask(&model, &*adapter, question()).await;
        for effect in [Effect::Split(1), Effect::Split(7), Effect::Noise { every: 1 }] {
            simulator.fault(Fault::once(effect.clone())).await.unwrap();
            let heard = ask(&model, &*adapter, question()).await;
            assert_eq!((&heard.text, heard.class()), (&plain.text, None), "{:?} {effect:?}", wire);
        }
    }
}

#[tokio::test]
async fn every_fault_within_an_answer_is_classified() {
    let simulator = simulator().await;
    for wire in WIRES {
        let (model, adapter) = connect(&simulator, wire);
        let cut_short = if wire.0 == Name::Ollama { Class::Truncated } else { Class::Overloaded };
        let faults = [
            (Effect::Cut { after: 2 }, Class::Truncated),
            (Effect::End { after: Some(2) }, Class::Truncated),
            (Effect::ErrorEvent { after: 2, kind: None, message: None }, cut_short),
            (Effect::Garbage { after: 2 }, Class::MalformedReply),
            (Effect::Html(502), Class::Overloaded),
        ];
        for (effect, want) in faults {
            simulator.fault(Fault::once(effect.clone())).await.unwrap();
            let heard = ask(&model, &*adapter, question()).await;
            assert_eq!(heard.class(), Some(want), "{:?} {effect:?}: {heard:?}", wire);
        }
    }
}

#[tokio::test]
async fn a_prompt_that_was_cut_in_silence_is_noticed() {
    let simulator = simulator().await;
    let (model, adapter) = connect(&simulator, WIRES[2]);
    simulator.fault(Fault::once(Effect::TruncatePrompt(50))).await.unwrap();
    let mut payload = question();
    payload.request = vec![Part::text("every word of this counts ".repeat(200))];
    let heard = ask(&model, &*adapter, payload).await;
    assert_eq!(heard.class(), Some(Class::ContextTooLong), "{heard:?}");
}

#[tokio::test]
async fn every_refusal_of_the_providers_tables_is_classified() {
    let simulator = simulator().await;
    for preset in PRESETS {
        let wire = WIRES.into_iter().find(|(_, wire, _)| *wire == preset.wire()).unwrap();
        let (model, adapter) = connect(&simulator, wire);
        simulator.fault(Fault::once(Effect::Preset(preset.name.to_owned()))).await.unwrap();

        let failed = ask(&model, &*adapter, question()).await.failed.unwrap();

        let (class, has_time) = expected(preset.name);
        assert_eq!(failed.failure.class, class, "{}: {failed:?}", preset.name);
        assert_eq!(failed.failure.retry_at.is_some(), has_time, "{}: {failed:?}", preset.name);
    }
}

/// The class of a preset, and whether it says when to come back.
fn expected(preset: &str) -> (Class, bool) {
    let (_, name) = preset.split_once('.').unwrap();
    let class = match name {
        "invalid_400" | "unsupported_parameter" | "unsupported_value" => Class::InvalidRequest,
        "missing_body_400" | "no_tools_400" | "no_thinking_400" => Class::InvalidRequest,
        "prompt_too_long" | "context_limit" | "context_length_exceeded" => Class::ContextTooLong,
        "code_integer_400" | "exceed_context_size_400" => Class::ContextTooLong,
        "credit_400" | "billing_402" | "billing_unavailable_402" | "contract_spend_429" => {
            Class::CreditExhausted
        }
        "insufficient_quota" | "credit_balance_exhausted" | "org_spend_limit" => {
            Class::CreditExhausted
        }
        "project_spend_limit" | "org_usage_limit" | "billing_not_active" => Class::CreditExhausted,
        "usage_limit_400" | "workspace_usage_limit_400" | "spend_429" | "unified_429" => {
            Class::QuotaExhausted
        }
        "org_disabled_400" | "invalid_key_401" | "invalid_bearer_401" | "permission_403" => {
            Class::CredentialsRejected
        }
        "invalid_api_key" | "country_403" | "unauthorized_401" | "forbidden_403" => {
            Class::CredentialsRejected
        }
        "not_found_404" | "model_403" | "model_not_found" | "not_found" | "not_found_pull" => {
            Class::ModelNotFound
        }
        "too_large_413" | "request_too_large" => Class::RequestTooLarge,
        "content_policy" | "invalid_prompt" => Class::ContentRefused,
        "rate_limit_429" | "tokens_429" | "ramp_429" | "family_429" | "long_context_429" => {
            Class::RateLimited
        }
        "rate_limit_tpm" | "rate_limit_rpm" | "rate_limit_rpd" | "slow_down_429" => {
            Class::RateLimited
        }
        "code_text_429" | "limit_429" => Class::RateLimited,
        "conflict_409" | "api_error_500" | "bad_gateway_502" | "unavailable_503" => {
            Class::Overloaded
        }
        "overloaded_529" | "overloaded_no_retry_529" | "server_error_500" | "overloaded_503" => {
            Class::Overloaded
        }
        "slow_down_503" | "busy_503" | "out_of_memory_500" | "load_failed_500" => Class::Overloaded,
        "runner_crashed_500" => Class::Overloaded,
        "timeout_504" => Class::Timeout,
        "canceled_499" => Class::Truncated,
        other => panic!("{other} has no expected class"),
    };
    let is_timeless = ["slow_down_429", "code_text_429", "limit_429"].contains(&name);
    (class, matches!(class, Class::RateLimited | Class::QuotaExhausted) && !is_timeless)
}
