use broker_config::{Model, Provider};
use broker_proto::{ContentHash, EntryHash, ModelName, PartRef, Unverified};
use bytes::Bytes;

use super::*;

fn entry(role: Role, parts: Vec<Part>) -> SessionEntry {
    SessionEntry {
        number: 0,
        kind: EntryKind::Turn,
        entry: Entry { role, name: String::new(), parts },
        model: None,
        created_at: None,
        tokens: 0,
        previous: EntryHash::NONE,
        hash: EntryHash::NONE,
    }
}

fn user(text: &str) -> SessionEntry {
    entry(Role::User, vec![Part::text(text)])
}

fn assistant(text: &str) -> SessionEntry {
    entry(Role::Assistant, vec![Part::text(text)])
}

fn by(model: &str, entry: SessionEntry) -> SessionEntry {
    SessionEntry { model: ModelName::parse(model).ok(), ..entry }
}

fn call(id: &str, name: &str) -> Part {
    Part::ToolCall { id: id.into(), name: name.into(), arguments: Bytes::from_static(b"{\"a\":1}") }
}

fn result(id: &str, text: &str) -> Part {
    Part::ToolResult { call_id: id.into(), parts: vec![Part::text(text)], is_error: false }
}

fn thinking(provider: &str, signature: &str) -> Part {
    Part::Thinking { text: "hm".into(), signature: signature.into(), provider: provider.into() }
}

fn image() -> Part {
    Part::Image { media_type: "image/png".into(), data: Bytes::from_static(b"\x89PNG") }
}

fn opus() -> Receiver {
    Receiver::of(&Model::new("opus", Provider::Anthropic, "claude-opus-5-5"))
}

fn gpt() -> Receiver {
    Receiver::of(&Model::new("gpt-4o", Provider::OpenAi, "gpt-4o"))
}

/// Each entry as its role's letter and its parts in short.
#[track_caller]
fn check(entries: &[SessionEntry], receiver: &Receiver, want: &[&str]) {
    let short = |part: &Part| match part {
        Part::Text(text) => format!("{text:?}"),
        Part::Thinking { .. } => "thinking".into(),
        Part::ToolCall { id, .. } => format!("call {id}"),
        Part::ToolResult { call_id, parts, is_error } => {
            let texts: Vec<String> = parts.iter().map(|part| format!("{part:?}")).collect();
            format!(
                "{} {call_id} [{}]",
                if *is_error { "error" } else { "result" },
                texts.join(" ")
            )
        }
        Part::Image { .. } => "image".into(),
        Part::Opaque { .. } => "opaque".into(),
        Part::Ref(_) => "ref".into(),
    };
    let got: Vec<String> = for_receiver(entries, receiver)
        .iter()
        .map(|entry| {
            let parts: Vec<String> = entry.parts.iter().map(short).collect();
            format!("{:?}: {}", entry.role, parts.join(", "))
        })
        .collect();
    assert_eq!(got, want);
}

#[test]
fn signed_thinking_stays_with_the_model_that_signed_it_and_is_plain_text_for_others() {
    let talk = [
        user("hi"),
        by("opus", entry(Role::Assistant, vec![thinking("anthropic", "sig"), Part::text("ho")])),
    ];
    check(&talk, &opus(), &["User: \"hi\"", "Assistant: thinking, \"ho\""]);
    let plain = "Assistant: \"(thinking) hm\", \"ho\"";
    check(&talk, &gpt(), &["User: \"hi\"", plain]);
    let sonnet = Receiver { model: "sonnet".into(), ..opus() };
    check(&talk, &sonnet, &["User: \"hi\"", plain]);
}

#[test]
fn thinking_without_a_signature_is_plain_text_and_without_text_nothing() {
    let redacted =
        Part::Thinking { text: " ".into(), signature: "s".into(), provider: "openai".into() };
    let talk = [user("hi"), entry(Role::Assistant, vec![thinking("anthropic", ""), redacted])];
    check(&talk, &opus(), &["User: \"hi\"", "Assistant: \"(thinking) hm\""]);
}

#[test]
fn blocks_of_another_provider_leave_a_mark() {
    let block = Part::Opaque {
        provider: "anthropic".into(),
        kind: "server_tool_use".into(),
        data: Bytes::from_static(b"{}"),
    };
    let talk = [user("hi"), entry(Role::Assistant, vec![block, Part::text("ho")])];
    check(&talk, &opus(), &["User: \"hi\"", "Assistant: opaque, \"ho\""]);
    let mark = "Assistant: \"[server_tool_use block of anthropic, 2 bytes]\", \"ho\"";
    check(&talk, &gpt(), &["User: \"hi\"", mark]);
}

#[test]
fn a_call_without_a_result_is_closed_also_at_the_end() {
    let talk = [
        user("go"),
        entry(Role::Assistant, vec![call("c1", "ls"), call("c2", "cat")]),
        entry(Role::Tool, vec![result("c2", "text")]),
        user("on"),
        entry(Role::Assistant, vec![call("c3", "ls")]),
    ];
    check(
        &talk,
        &gpt(),
        &[
            "User: \"go\"",
            "Assistant: call c1, call c2",
            "Tool: error c1 [Text(40 bytes)], result c2 [Text(4 bytes)]",
            "User: \"on\"",
            "Assistant: call c3",
            "Tool: error c3 [Text(40 bytes)]",
        ],
    );
}

#[test]
fn results_without_a_call_or_too_late_for_it_become_text() {
    let talk = [
        entry(Role::Tool, vec![result("gone", "old")]),
        entry(Role::Assistant, vec![call("c1", "ls")]),
        user("never mind"),
        assistant("fine"),
        entry(Role::Tool, vec![result("c1", "late")]),
    ];
    check(
        &talk,
        &opus(),
        &[
            "User: \"Result of an earlier call:\\nold\"",
            "Assistant: call c1",
            "Tool: error c1 [Text(40 bytes)]",
            "User: \"never mind\"",
            "Assistant: \"fine\"",
            "User: \"Result of an earlier call of ls:\\nlate\"",
        ],
    );
}

#[test]
fn a_result_behind_a_persons_turn_still_answers_its_call() {
    let talk = [
        user("go"),
        entry(Role::Assistant, vec![call("c1", "ls")]),
        user("hurry"),
        entry(Role::Tool, vec![result("c1", "text")]),
    ];
    let want = [
        "User: \"go\"",
        "Assistant: call c1",
        "Tool: result c1 [Text(4 bytes)]",
        "User: \"hurry\"",
    ];
    check(&talk, &opus(), &want);
}

#[test]
fn ids_that_are_used_twice_or_that_a_wire_refuses_are_given_anew() {
    let talk = [
        user("go"),
        entry(Role::Assistant, vec![call("", "ls"), call("", "cat")]),
        entry(Role::Tool, vec![result("", "one"), result("", "second")]),
        entry(Role::Assistant, vec![call("call_1", "ls"), call("a/b", "cat")]),
        entry(Role::Tool, vec![result("a/b", "fourth"), result("call_1", "third")]),
    ];
    check(
        &talk,
        &opus(),
        &[
            "User: \"go\"",
            "Assistant: call call_0, call call_1",
            "Tool: result call_0 [Text(3 bytes)], result call_1 [Text(6 bytes)]",
            "Assistant: call call_2, call call_3",
            "Tool: result call_2 [Text(5 bytes)], result call_3 [Text(6 bytes)]",
        ],
    );
}

#[test]
fn a_model_without_tools_or_vision_gets_words() {
    let talk = [
        entry(Role::User, vec![Part::text("see"), image()]),
        entry(Role::Assistant, vec![call("c1", "ls")]),
        entry(Role::Tool, vec![result("c1", "text")]),
    ];
    let blind = Receiver { vision: false, tools: false, ..gpt() };
    check(
        &talk,
        &blind,
        &[
            "User: \"see\", \"[image/png image, 4 bytes], which this model is not shown\"",
            "Assistant: \"calls ls({\\\"a\\\":1})\"",
            "User: \"Result of a tool call:\\ntext\"",
        ],
    );
    check(
        &talk,
        &gpt(),
        &["User: \"see\", image", "Assistant: call c1", "Tool: result c1 [Text(4 bytes)]"],
    );
}

#[test]
fn images_that_a_model_shows_or_that_no_wire_knows_leave_a_mark() {
    let tiff = Part::Image { media_type: "image/tiff".into(), data: Bytes::from_static(b"II") };
    let talk = [entry(Role::User, vec![tiff]), entry(Role::Assistant, vec![image()])];
    check(
        &talk,
        &opus(),
        &[
            "User: \"[image/tiff image, 2 bytes], which this model is not shown\"",
            "Assistant: \"[image/png image, 4 bytes], which this model is not shown\"",
        ],
    );
}

#[test]
fn turns_of_one_speaker_are_one_and_empty_ones_none() {
    let talk = [
        user("one"),
        user("  "),
        user("two"),
        entry(Role::Assistant, vec![]),
        user("three"),
        assistant("yes"),
        assistant("and no"),
    ];
    let want = ["User: \"one\", \"two\", \"three\"", "Assistant: \"yes\", \"and no\""];
    check(&talk, &opus(), &want);
}

#[test]
fn system_turns_lead_or_are_told_where_they_stood() {
    let system = |text: &str| entry(Role::System, vec![Part::text(text)]);
    let talk = [system("be brief"), system("be kind"), user("hi"), system("be long"), user("go")];
    check(
        &talk,
        &opus(),
        &["System: \"be brief\", \"be kind\"", "User: \"hi\", \"System: be long\", \"go\""],
    );
}

#[test]
fn a_conversation_that_a_model_began_gets_a_person_in_front() {
    let want = [format!("User: {BEGINNING:?}"), "Assistant: \"hello\"".to_owned()];
    check(&[assistant("hello")], &opus(), &want.each_ref().map(String::as_str));
    check(&[], &opus(), &[]);
}

#[test]
fn names_and_advice_are_said_in_words() {
    let mut named = user("hi");
    named.entry.name = "Nora".into();
    let advice = SessionEntry { kind: EntryKind::Advice, ..by("gpt-4o", assistant("use a lock")) };
    check(&[named, advice], &opus(), &["User: \"Nora: hi\", \"Advice of gpt-4o: use a lock\""]);
}

#[test]
fn large_parts_stay_apart_where_the_receiver_takes_them_as_they_are() {
    let named = |size_bytes| Part::Ref(PartRef { hash: ContentHash([7; 32]), size_bytes });
    let light = [
        entry(Role::User, vec![named(70_000), named(80_000)]),
        entry(Role::Assistant, vec![named(90_000)]),
    ];
    let whole = [
        entry(Role::User, vec![Part::text("long"), image()]),
        entry(Role::Assistant, vec![call("c1", "ls")]),
    ];
    let seeing = gpt();
    let closed = "Tool: error c1 [Text(40 bytes)]";
    let lighter = apart_for(&light, &whole, &seeing);
    check(&lighter, &seeing, &["User: ref, ref", "Assistant: call c1", closed]);
    let blind = Receiver { vision: false, ..gpt() };
    let mark = "User: ref, \"[image/png image, 4 bytes], which this model is not shown\"";
    check(&apart_for(&light, &whole, &blind), &blind, &[mark, "Assistant: call c1", closed]);
}

#[test]
fn what_others_said_in_its_place_is_marked_for_the_sessions_own_model() {
    let name = |name: &str| ModelName::parse(name).unwrap();
    let talk: Vec<SessionEntry> = [
        user("hi"),
        by("sonnet", assistant("ho")),
        user("again"),
        by("opus", assistant("mine")),
        user("more"),
        by("sonnet", assistant("later")),
    ]
    .into_iter()
    .zip(0..)
    .map(|(entry, number)| SessionEntry { number, ..entry })
    .collect();
    let of = Unverified { home: name("opus"), from: 0, until: 4, by: vec![name("sonnet")] };
    let home = Receiver { unverified: Some(of), ..opus() };
    check(
        &talk,
        &home,
        &[
            "User: \"hi\"",
            "Assistant: \"(sonnet, unverified) ho\"",
            "User: \"again\"",
            "Assistant: \"mine\"",
            "User: \"more\"",
            "Assistant: \"later\"",
        ],
    );
}
