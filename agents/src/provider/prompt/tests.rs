use super::*;
use crate::provider::fixture::{delivery, entry, model, prompt_of};
use broker_config::Provider;

fn call(id: &str) -> Part {
    Part::ToolCall { id: id.into(), name: "look".into(), arguments: Bytes::from_static(b"{}") }
}

fn result(id: &str) -> Part {
    let parts = vec![Part::text("found")];
    Part::ToolResult { call_id: id.into(), parts, is_error: false }
}

fn ids(turn: &Turn) -> Vec<&str> {
    let ids = turn.parts.iter().filter_map(|part| match part {
        Part::ToolResult { call_id, .. } => Some(call_id.as_str()),
        _ => None,
    });
    ids.collect()
}

#[test]
fn turns_of_one_speaker_become_one_and_empty_text_disappears() {
    let prompt = prompt_of(Provider::Anthropic, |payload| {
        payload.context = vec![
            entry(Role::System, [Part::text("Be brief.")]),
            entry(Role::User, [Part::text("a"), Part::text("  \n")]),
            entry(Role::User, [Part::text("b")]),
            entry(Role::Assistant, [Part::text("")]),
            entry(Role::System, [Part::text("Be kind.")]),
        ];
        payload.request = vec![Part::text("c")];
    });
    assert_eq!(prompt.system, "Be brief.\n\nBe kind.");
    let parts = vec![Part::text("a"), Part::text("b"), Part::text("c")];
    assert_eq!(prompt.turns, [Turn { speaker: Speaker::User, parts }]);
}

#[test]
fn thinking_goes_back_only_to_who_signed_it() {
    let thinking = |provider: &str| Part::Thinking {
        text: "hm".into(),
        signature: "s".into(),
        provider: provider.into(),
    };
    let prompt = prompt_of(Provider::Anthropic, |payload| {
        payload.context = vec![
            entry(Role::User, [Part::text("q")]),
            entry(Role::Assistant, [thinking("openai"), thinking("anthropic"), Part::text("a")]),
        ];
    });
    assert_eq!(prompt.turns[1].parts, [thinking("anthropic"), Part::text("a")]);
}

#[test]
fn every_call_gets_its_result_and_every_other_result_becomes_text() {
    let prompt = prompt_of(Provider::OpenAi, |payload| {
        payload.context = vec![
            entry(Role::Tool, [result("lost")]),
            entry(Role::Assistant, [call("a"), call("b")]),
            entry(Role::Tool, [result("b"), result("stray")]),
            entry(Role::Assistant, [call("c")]),
        ];
        payload.request = vec![Part::text("go on")];
    });
    let speakers: Vec<Speaker> = prompt.turns.iter().map(|turn| turn.speaker).collect();
    use Speaker::{Assistant, User};
    assert_eq!(speakers, [User, Assistant, User, Assistant, User]);
    assert!(ids(&prompt.turns[0]).is_empty());
    assert_eq!(plain(&prompt.turns[0].parts), "Result of an earlier tool call:\nfound");
    assert_eq!(ids(&prompt.turns[2]), ["a", "b"]);
    assert_eq!(ids(&prompt.turns[4]), ["c"]);
    assert_eq!(prompt.turns[4].parts.last(), Some(&Part::text("go on")));
}

#[test]
fn a_request_without_words_asks_nothing() {
    let mut delivery = delivery();
    delivery.message.payload.request = vec![Part::text(" ")];
    let failure = Prompt::of(&delivery, &model(Provider::OpenAi)).unwrap_err();
    assert_eq!(failure.class, FailureClass::InvalidRequest);
}

#[test]
fn an_image_needs_a_model_that_sees() {
    let mut delivery = delivery();
    let image = Part::Image { media_type: "image/png".into(), data: Bytes::from_static(b"x") };
    delivery.message.payload.request.push(image);
    let failure = Prompt::of(&delivery, &model(Provider::Ollama)).unwrap_err();
    assert!(failure.another_model_may_help);
    assert_eq!(failure.scope, FailureScope::Model);
}

#[test]
fn the_smallest_cap_on_output_counts() {
    let check = |asked, budget, want| {
        let mut delivery = delivery();
        delivery.message.payload.generation.max_output_tokens = asked;
        delivery.max_output_tokens = budget;
        let prompt = Prompt::of(&delivery, &model(Provider::Anthropic)).unwrap();
        assert_eq!(prompt.max_output_tokens, want, "{asked:?} {budget:?}");
    };
    check(None, None, None);
    check(Some(100), None, Some(100));
    check(Some(100), Some(40), Some(40));
    check(None, Some(4_000_000), Some(8_192));
}

#[test]
fn the_estimate_follows_the_models_bytes_per_token() {
    let prompt =
        prompt_of(Provider::OpenAi, |payload| payload.request = vec![Part::text("x".repeat(400))]);
    assert_eq!(prompt.estimated_tokens, 100 + TURN_TOKENS);
    assert_eq!(prompt.least_tokens, 1);
}

#[test]
fn arguments_are_an_object_whatever_the_model_wrote() {
    let check = |text: &'static str, want: Value| {
        assert_eq!(arguments(&Bytes::from_static(text.as_bytes())), want, "{text:?}");
    };
    check(r#"{"a":1}"#, json!({"a": 1}));
    check("", json!({}));
    check("[1]", json!({"arguments": "[1]"}));
    check("{oops", json!({"arguments": "{oops"}));
}
