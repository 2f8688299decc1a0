//! A conversation made for a receiver is taken by the receiver's wire, whatever stands in it and whoever it was held with.

use std::time::Duration;

use broker::context::{Receiver, bound::for_receiver};
use broker_agents::{
    provider::{Chunk, Clock, Prompt, adapter},
    sim::{Options, Script, Simulator, Wire},
};
use broker_config::{Model, Provider};
use broker_proto::{
    Delivery, Entry, EntryHash, EntryKind, Message, MessageId, ModelName, Part, Payload, Role,
    SessionEntry,
};
use broker_tests::within;
use bytes::Bytes;
use futures::StreamExt as _;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

/// One model of each provider, and one that takes neither images nor tools.
fn models(sim: &Simulator) -> Vec<Model> {
    let model = |name: &str, provider: Provider, id: &str, wire: Wire| Model {
        base_url: sim.base_url(wire),
        simulated: true,
        ..Model::new(name, provider, id)
    };
    let opus = model("opus", Provider::Anthropic, "claude-opus-5-5", Wire::Anthropic);
    let gpt = model("gpt-4o", Provider::OpenAi, "gpt-4o", Wire::OpenAi);
    let local = model("local", Provider::Ollama, "llama3.2", Wire::Ollama);
    let plain = Model { tools: false, vision: false, name: "plain".into(), ..local.clone() };
    vec![opus, gpt, local, plain]
}

fn delivery(model: &Model, context: Vec<Entry>) -> Delivery {
    let name = ModelName::parse(&model.name).unwrap();
    let payload = Payload { context, request: vec![Part::text("Go on.")], ..Payload::default() };
    Delivery {
        lease: String::new(),
        size_bytes: 0,
        number: 1,
        message: Message::consultation(MessageId::from_u128(1), name.clone(), payload),
        attempt: 1,
        model: Some(name),
        time_left: Duration::from_secs(60),
        max_output_tokens: Some(16),
        exchanges: Vec::new(),
        lease_left: Duration::from_secs(60),
        generation: 1,
    }
}

/// Whether the real adapter has nothing to mend and the strict simulator answers.
async fn is_taken(entries: &[SessionEntry], model: &Model) -> Result<(), String> {
    let context = for_receiver(entries, &Receiver::of(model));
    let is_said = |entry: &&Entry| entry.role != Role::System;
    let mut said: Vec<Part> =
        context.iter().filter(is_said).flat_map(|entry| entry.parts.clone()).collect();
    said.push(Part::text("Go on."));
    let prompt = Prompt::of(&delivery(model, context), model).map_err(|err| format!("{err:?}"))?;
    let sent: Vec<Part> = prompt.turns.iter().flat_map(|turn| turn.parts.clone()).collect();
    if sent != said {
        return Err(format!("the adapter mended {said:?} to {sent:?}"));
    }
    let provider = adapter(model, Some("simulated".into()), Clock::system());
    let provider = provider.map_err(|err| err.to_string())?;
    let mut answer = provider.complete(prompt).await.map_err(|err| format!("{err:?}"))?;
    while let Some(chunk) = answer.next().await {
        match chunk.map_err(|err| format!("{err:?}"))? {
            Chunk::Done { .. } => return Ok(()),
            _ => continue,
        }
    }
    Err("the answer has no end".into())
}

fn part() -> impl Strategy<Value = Part> {
    let id = || prop_oneof![Just(""), Just("a"), Just("b"), Just("toolu_01/odd"), Just("call_0")];
    let provider = || prop_oneof![Just("anthropic"), Just("openai"), Just("ollama")];
    let text = || prop_oneof![Just(""), Just("  "), Just("hello"), Just("two\nlines")];
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let media = prop_oneof![Just("image/png"), Just("image/tiff")];
    let image = media
        .prop_map(move |kind| Part::Image { media_type: kind.into(), data: bytes("\u{89}PNG") });
    let result = (id(), prop::collection::vec(text(), 0..3), any::<bool>(), any::<bool>());
    let result = result.prop_map(move |(id, texts, has_image, is_error)| {
        let mut parts: Vec<Part> = texts.into_iter().map(Part::text).collect();
        if has_image {
            parts.push(Part::Image { media_type: "image/png".into(), data: bytes("\u{89}PNG") });
        }
        Part::ToolResult { call_id: id.into(), parts, is_error }
    });
    let arguments = prop_oneof![Just("{\"a\":1}"), Just(""), Just("not json"), Just("[1]")];
    let name = prop_oneof![Just("ls"), Just("no such/name"), Just("")];
    prop_oneof![
        4 => text().prop_map(Part::text),
        4 => (id(), name, arguments).prop_map(move |(id, name, arguments)| Part::ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: bytes(arguments),
        }),
        4 => result,
        1 => image,
        2 => (text(), prop_oneof![Just(""), Just("sig")], provider()).prop_map(
            |(text, signature, provider)| Part::Thinking {
                text: text.into(),
                signature: signature.into(),
                provider: provider.into(),
            }
        ),
    ]
}

fn entry() -> impl Strategy<Value = SessionEntry> {
    let role = prop_oneof![
        1 => Just(Role::System),
        3 => Just(Role::User),
        4 => Just(Role::Assistant),
        3 => Just(Role::Tool),
    ];
    let name = prop_oneof![4 => Just(""), 1 => Just("Nora")];
    let model = prop_oneof![Just(None), Just(Some("opus")), Just(Some("gpt-4o"))];
    let parts = prop::collection::vec(part(), 0..4);
    let advice = prop::bool::weighted(0.1);
    (role, name, model, parts, advice).prop_map(|(role, name, model, parts, is_advice)| {
        SessionEntry {
            number: 0,
            kind: if is_advice { EntryKind::Advice } else { EntryKind::Turn },
            entry: Entry { role, name: name.into(), parts },
            model: model.and_then(|name| ModelName::parse(name).ok()),
            created_at: None,
            tokens: 0,
            previous: EntryHash::NONE,
            hash: EntryHash::NONE,
        }
    })
}

#[test]
fn any_conversation_made_for_a_receiver_is_taken_by_its_wire() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let script = Script { strict: true, ..Script::fast() };
    let options = Options { script, ..Options::default() };
    let sim = runtime.block_on(Simulator::start(options)).unwrap();
    let models = models(&sim);
    let mut runner = TestRunner::new(Config { cases: 192, ..Config::default() });
    let talks = prop::collection::vec(entry(), 0..10);
    let checked = runner.run(&talks, |entries| {
        for model in &models {
            let taken = within("an answer", is_taken(&entries, model));
            let taken = runtime.block_on(taken);
            prop_assert!(taken.is_ok(), "{}: {:?}", model.name, taken);
        }
        Ok(())
    });
    runtime.block_on(sim.stop());
    checked.unwrap();
}
