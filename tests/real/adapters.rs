//! Both adapters against the engine: what they say is what it says.

use std::{sync::Arc, time::Duration};

use broker_agents::provider::{Chunk, Clock, Failed, Prompt, Provider, adapter};
use broker_config::{Model, Provider as Name};
use broker_proto::{
    Delivery, Entry, FailureClass, Generation, Message, MessageId, ModelName, Part, Payload,
    Provenance, Role, StopReason, Usage,
};
use futures::StreamExt;
use serde_json::json;

use crate::engine::{Engine, MODEL, WINDOW};

const WITHIN: Duration = Duration::from_secs(30);
const WIRES: [Name; 2] = [Name::OpenAi, Name::Anthropic];
const QUESTION: &str = "what is a lease and who holds it?";

struct Wire {
    name: Name,
    model: Model,
    adapter: Arc<dyn Provider>,
}

fn connect(engine: &Engine, name: Name) -> Wire {
    let mut model = Model::new("tiny", name, MODEL);
    let version = if name == Name::OpenAi { "/v1" } else { "" };
    model.base_url = format!("http://{}{version}", engine.address());
    let adapter = adapter(&model, Some("any".into()), Clock::system()).unwrap();
    Wire { name, model, adapter }
}

#[derive(Debug)]
struct Heard {
    deltas: Vec<String>,
    usage: Usage,
    stop_reason: Option<StopReason>,
}

impl Wire {
    async fn ask(&self, payload: Payload) -> Result<Heard, Box<Failed>> {
        let name = ModelName::parse("tiny").unwrap();
        let delivery = Delivery {
            lease: String::new(),
            size_bytes: 0,
            number: 1,
            message: Message::consultation(MessageId::from_u128(1), name.clone(), payload),
            attempt: 1,
            model: Some(name),
            time_left: WITHIN,
            max_output_tokens: None,
            exchanges: Vec::new(),
            lease_left: Duration::from_secs(60),
            generation: 1,
        };
        let prompt = Prompt::of(&delivery, &self.model).unwrap();
        let call = async {
            let mut chunks = self.adapter.complete(prompt).await?;
            let mut deltas = Vec::new();
            loop {
                match chunks.next().await.expect("an answer ends with its usage")? {
                    Chunk::Delta { text, .. } => deltas.push(text),
                    Chunk::Done { usage, stop_reason } => {
                        return Ok(Heard { deltas, usage, stop_reason });
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(WITHIN, call).await.expect("the engine answers in time")
    }
}

fn question(text: &str, most: u32) -> Payload {
    Payload {
        request: vec![Part::text(text)],
        generation: Generation { max_output_tokens: Some(most), ..Generation::default() },
        ..Payload::default()
    }
}

fn entry(role: Role, text: &str) -> Entry {
    Entry { role, name: String::new(), parts: vec![Part::text(text)] }
}

/// What the engine counts for these turns, asked without an adapter.
fn counted(engine: &Engine, turns: &[(&str, &str)]) -> u64 {
    let messages: Vec<_> =
        turns.iter().map(|(role, text)| json!({"role": role, "content": text})).collect();
    let reply = engine.post(
        "/v1/chat/completions",
        &json!({"model": MODEL, "messages": messages, "max_tokens": 1}),
    );
    // Fields that no vendor has: whatever reads its replies has met unknown ones.
    assert!(reply["timings"]["predicted_n"].is_u64(), "{reply}");
    reply["usage"]["prompt_tokens"].as_u64().unwrap()
}

fn input(usage: Usage) -> u64 {
    let known = |count: Option<u64>| count.unwrap_or(0);
    known(usage.input_tokens) + known(usage.cache_read_tokens) + known(usage.cache_write_tokens)
}

#[tokio::test]
async fn an_answer_streams_and_its_counts_are_the_engines() {
    let Some(engine) = Engine::start() else { return };
    let counted = counted(&engine, &[("user", QUESTION)]);
    for wire in WIRES.map(|name| connect(&engine, name)) {
        let heard = wire.ask(question(QUESTION, 48)).await.unwrap();

        assert!(heard.deltas.len() >= 8, "{:?}: {} deltas", wire.name, heard.deltas.len());
        assert!(heard.deltas.iter().all(|text| !text.is_empty()), "{:?}", wire.name);
        assert_eq!(heard.stop_reason, Some(StopReason::MaxTokens), "{:?}", wire.name);
        assert_eq!(heard.usage.output_tokens, Some(48), "{:?}", wire.name);
        assert_eq!(input(heard.usage), counted, "{:?}", wire.name);
        assert_eq!(heard.usage.provenance, Provenance::Reported, "{:?}", wire.name);
    }
}

#[tokio::test]
async fn a_conversation_reads_its_beginning_from_the_cache() {
    let Some(engine) = Engine::start() else { return };
    for wire in WIRES.map(|name| connect(&engine, name)) {
        // Different first words, so that neither wire finds what the other left.
        let first = format!("{:?}: {}", wire.name, "the lease is held by the agent. ".repeat(8));
        let heard = wire.ask(question(&first, 8)).await.unwrap();
        let all = input(heard.usage);
        let said = heard.deltas.concat();

        let mut payload = question("and who gives it back?", 8);
        payload.context = vec![entry(Role::User, &first), entry(Role::Assistant, &said)];
        let next = wire.ask(payload).await.unwrap();

        let turns =
            [("user", first.as_str()), ("assistant", &said), ("user", "and who gives it back?")];
        assert_eq!(input(next.usage), counted(&engine, &turns), "{:?}", wire.name);
        let cached = next.usage.cache_read_tokens.unwrap_or(0);
        assert!(cached > all / 2, "{:?}: {cached} of {all} cached", wire.name);
        assert!(next.usage.input_tokens.is_some_and(|fresh| fresh > 0 && fresh < all));
    }
}

#[tokio::test]
async fn a_system_prompt_is_read_as_one() {
    let Some(engine) = Engine::start() else { return };
    let turns = [("system", "answer in the words of a child"), ("user", QUESTION)];
    let counted = counted(&engine, &turns);
    for wire in WIRES.map(|name| connect(&engine, name)) {
        let mut payload = question(QUESTION, 4);
        payload.context = vec![entry(Role::System, turns[0].1)];

        let heard = wire.ask(payload).await.unwrap();

        assert_eq!(input(heard.usage), counted, "{:?}", wire.name);
    }
}

#[tokio::test]
async fn a_prompt_over_the_window_is_too_long_with_both_counts() {
    let Some(engine) = Engine::start() else { return };
    for wire in WIRES.map(|name| connect(&engine, name)) {
        let failed = wire.ask(question(&"what is it ".repeat(400), 8)).await.unwrap_err();

        let failure = failed.failure;
        assert_eq!(failure.class, FailureClass::ContextTooLong, "{:?}", wire.name);
        assert_eq!(failure.limit_tokens, Some(WINDOW), "{:?}", wire.name);
        assert!(failure.actual_tokens.is_some_and(|actual| actual > WINDOW), "{:?}", wire.name);
    }
}

#[tokio::test]
async fn an_answer_that_fills_the_window_ends_and_says_so() {
    let Some(engine) = Engine::start() else { return };
    let long = "what is it ".repeat(88);
    let counted = counted(&engine, &[("user", &long)]);
    assert!(counted > WINDOW * 3 / 4 && counted < WINDOW, "{counted}");
    for wire in WIRES.map(|name| connect(&engine, name)) {
        let heard = wire.ask(question(&long, 600)).await.unwrap();

        let full = [Some(StopReason::MaxTokens), Some(StopReason::WindowFull)];
        assert!(full.contains(&heard.stop_reason), "{:?}: {:?}", wire.name, heard.stop_reason);
        let all = counted + heard.usage.output_tokens.unwrap();
        assert!((WINDOW - 2..=WINDOW + 1).contains(&all), "{:?}: {all}", wire.name);
    }
}
