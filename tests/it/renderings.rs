//! A session in words, for whoever reads it next.

use broker_client::{Client, NewSession};
use broker_proto::{
    Entry, EntryKind, ModelName, NewSessionEntry, Part, Preservation, RenderAsk, Rendering, Role,
    SessionId, SessionPoint, TaskEdit, TaskList,
};
use broker_tests::{Place, TestBroker};

/// One model that has a tokenizer of its own, and one that has none.
const TWO: &str = r#"
[[models]]
name = "opus"
provider = "anthropic"
id = "claude-opus-5-5"

[[models]]
name = "gpt-4o"
provider = "openai"
id = "gpt-4o"
"#;

fn entry(role: Role, text: String) -> NewSessionEntry {
    NewSessionEntry {
        kind: EntryKind::Turn,
        entry: Entry { role, name: String::new(), parts: vec![Part::Text(text)] },
        model: None,
        created_at: None,
    }
}

/// Small talk with one fact in it, far from the end.
fn talk() -> Vec<NewSessionEntry> {
    let line = |n: usize| match n {
        40 => "The staging database listens on port 6543 behind the proxy.".to_owned(),
        n => format!("Small talk number {n}, nothing more."),
    };
    (0..300).map(|n| entry([Role::User, Role::Assistant][n % 2], line(n))).collect()
}

async fn session(client: &Client) -> SessionId {
    let id = client.start_session(NewSession::default()).await.unwrap().id;
    client.append_entries(&id, talk(), None).await.unwrap();
    id
}

async fn rendered(client: &Client, id: &SessionId, ask: RenderAsk) -> Rendering {
    client.render_session(id, &SessionPoint::Head, ask).await.unwrap()
}

fn asked(level: Preservation, next: &str) -> RenderAsk {
    RenderAsk { level, next: next.into(), ..RenderAsk::default() }
}

const NEXT: &str = "Which port does the staging database listen on?";

#[tokio::test]
async fn a_rendering_keeps_what_the_next_step_needs_within_its_level() {
    let broker = TestBroker::with(Place::Memory, TWO).await;
    let client = broker.client();
    let id = session(&client).await;

    for (level, most) in
        [(Preservation::Minimal, 500), (Preservation::Standard, 1_200), (Preservation::Full, 2_000)]
    {
        let got = rendered(&client, &id, asked(level, NEXT)).await;
        assert!(got.text.contains("port 6543"), "{level:?}: {}", got.text);
        assert!(got.tokens <= most && got.tokens * 10 > most * 9, "{level:?}: {}", got.tokens);
        assert_eq!(got.kept.len() + got.partly.len() + got.dropped.len(), 300, "{level:?}");
        assert!(got.kept.contains(&40), "{level:?}");
        assert_eq!(got.tokenizer, "estimated at 3.0 bytes per token");
    }
    let all = rendered(&client, &id, asked(Preservation::Complete, "")).await;
    assert_eq!(all.kept, (0..300).collect::<Vec<_>>());
    assert!((all.score - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn what_the_conversation_states_stands_above_its_turns() {
    let broker = TestBroker::with(Place::Memory, TWO).await;
    let client = broker.client();
    let id = session(&client).await;
    let user = |text: &str| entry(Role::User, text.to_owned());
    let stated = vec![
        user("Goal: Move the invoice service\nNever restart the primary on a weekday."),
        entry(Role::Assistant, "Next steps:\n- Copy the table\n- Switch the cron".into()),
        user("We decided to keep PostgreSQL 13."),
        user("Thanks, that is all for today."),
    ];
    client.append_entries(&id, stated, None).await.unwrap();

    let got = rendered(&client, &id, asked(Preservation::Minimal, NEXT)).await;

    let head = "Goal: Move the invoice service\n\
                Decisions:\n- We decided to keep PostgreSQL 13.\n\
                Critical facts:\n- Never restart the primary on a weekday.\n\
                Next steps:\n- Copy the table\n- Switch the cron\n";
    assert!(got.text.starts_with(head), "{}", got.text);
    assert!(got.text.contains("port 6543") && got.tokens <= 500, "{}", got.text);
}

#[tokio::test]
async fn tokens_are_the_readers() {
    let broker = TestBroker::with(Place::Memory, TWO).await;
    let client = broker.client();
    let id = session(&client).await;
    let reader = ModelName::parse("gpt-4o").ok();

    let got =
        rendered(&client, &id, RenderAsk { reader, ..asked(Preservation::Minimal, NEXT) }).await;

    assert_eq!(got.tokenizer, "o200k_base");
    assert!(got.tokens <= 500 && got.tokens > 450, "{}", got.tokens);
    let nobody = RenderAsk { reader: ModelName::parse("nobody").ok(), ..RenderAsk::default() };
    let err = client.render_session(&id, &SessionPoint::Head, nobody).await.unwrap_err();
    assert_eq!(err.reason(), Some("UNKNOWN_MODEL"));
}

#[tokio::test]
async fn a_level_that_cannot_hold_what_must_be_kept_is_refused_unless_told_to_go_on() {
    let broker = TestBroker::with(Place::Memory, TWO).await;
    let client = broker.client();
    let id = session(&client).await;
    let decision = |text: String| TaskEdit::Add { list: TaskList::Decisions, text, entry: None };
    let long = "reason ".repeat(400);
    let edits = vec![
        TaskEdit::SetGoal("Move the service".into()),
        decision(long.trim().into()),
        decision("PostgreSQL stays on 13".into()),
    ];
    client.edit_session_task(&id, edits).await.unwrap();
    let minimal = || asked(Preservation::Minimal, NEXT);

    let err = client.render_session(&id, &SessionPoint::Head, minimal()).await.unwrap_err();
    assert_eq!(err.reason(), Some("TOKEN_BUDGET"));
    let words = err.to_string();
    assert!(words.contains("goal") && words.contains("decisions (2)"), "{words}");
    assert!(!words.contains("reason reason"), "{words}");

    let told = RenderAsk { allow_missing: true, ..minimal() };
    let got = rendered(&client, &id, told).await;
    assert_eq!(got.must_keep_missing, [format!("Decisions: {}", long.trim())]);
    assert!(got.text.starts_with("Goal: Move the service\n"), "{}", got.text);
    assert!(got.text.contains("PostgreSQL stays on 13") && got.tokens <= 500);

    let ten = RenderAsk { budget: Some(10), ..minimal() };
    let err = client.render_session(&id, &SessionPoint::Head, ten).await.unwrap_err();
    assert_eq!(err.reason(), Some("TOKEN_BUDGET"));
    assert!(err.to_string().contains("10 tokens"), "{err}");
}

#[tokio::test]
async fn a_session_that_grew_or_stood_elsewhere_is_rendered_as_it_is() {
    let broker = TestBroker::with(Place::Memory, TWO).await;
    let client = broker.client();
    let id = session(&client).await;
    let before = rendered(&client, &id, asked(Preservation::Minimal, NEXT)).await;

    let more = vec![entry(Role::User, "The production database has port 7654.".into())];
    client.append_entries(&id, more, None).await.unwrap();
    let next = "Which port does the production database have?";
    let after = rendered(&client, &id, asked(Preservation::Minimal, next)).await;
    assert!(after.text.contains("port 7654") && after.kept.contains(&300), "{}", after.text);

    let earlier = SessionPoint::parse("299").unwrap();
    let ask = asked(Preservation::Minimal, NEXT);
    let again = client.render_session(&id, &earlier, ask).await.unwrap();
    assert_eq!(again, before, "an earlier point is what it was");
    let now = rendered(&client, &id, asked(Preservation::Minimal, next)).await;
    assert_eq!(now, after);
}

#[tokio::test]
async fn a_text_larger_than_a_frame_arrives_whole() {
    let broker = TestBroker::with(Place::Memory, TWO).await;
    let client = broker.client();
    let id = client.start_session(NewSession::default()).await.unwrap().id;
    let line = |n: usize| entry(Role::User, format!("{n} {}", "größer ".repeat(1_000)));
    let entries: Vec<_> = (0..60).map(line).collect();
    client.append_entries(&id, entries, None).await.unwrap();
    let budget = Some(1_000_000);

    let got =
        rendered(&client, &id, RenderAsk { budget, ..asked(Preservation::Complete, "") }).await;

    // The window of 200,000 tokens holds most of it, and never more.
    assert!(got.text.len() > 400_000, "{}", got.text.len());
    assert!(got.tokens <= 200_000, "{}", got.tokens);
    assert!(!got.text.contains('\u{fffd}'));
    assert!(got.text.contains("59 größer"));
}

#[tokio::test]
async fn a_history_is_whole_where_it_fits_and_a_rendering_with_the_newest_turns_where_not() {
    let small = format!(
        "{TWO}\n[[models]]\nname = \"local\"\nprovider = \"ollama\"\nid = \"llama3.2\"\ncontext_window = 2048\n"
    );
    let broker = TestBroker::with(Place::Memory, &small).await;
    let client = broker.client();
    let id = session(&client).await;
    let read = async |model: &str| {
        let reader = ModelName::parse(model).ok();
        client.session_history(&id, &SessionPoint::Head, reader, NEXT).await.unwrap()
    };

    let whole = read("opus").await;
    assert_eq!((whole.entries.len(), whole.rendering), (300, None));
    assert_eq!(whole.entries[1].role, Role::Assistant);

    let part = read("local").await;
    let rendering = part.rendering.unwrap();
    let text = |entry: &Entry| match entry.parts.first() {
        Some(Part::Text(text)) => text.clone(),
        other => panic!("{other:?}"),
    };
    assert!(text(&part.entries[0]).contains("port 6543"), "{}", text(&part.entries[0]));
    assert!(rendering.dropped.len() > 200 && rendering.tokens < 1_024, "{rendering:?}");
    let last = part.entries.last().unwrap();
    assert_eq!(
        (last.role, text(last)),
        (Role::Assistant, "Small talk number 299, nothing more.".into())
    );
}

#[tokio::test]
async fn a_history_names_what_is_large_by_its_hash_and_comes_in_frames() {
    let broker = TestBroker::with(Place::Memory, TWO).await;
    let client = broker.client();
    let id = client.start_session(NewSession::default()).await.unwrap().id;
    let said = |n: usize| entry(Role::User, format!("{n} {}", "word ".repeat(400)));
    client.append_entries(&id, (0..160).map(said).collect(), None).await.unwrap();
    let large = vec![entry(Role::User, "large ".repeat(20_000))];
    client.append_entries(&id, large, None).await.unwrap();
    let large = ModelName::parse("gpt-4o").ok();

    let history = client.session_history(&id, &SessionPoint::Head, large, NEXT).await.unwrap();

    assert_eq!(history.entries.len(), 1, "one speaker is one entry");
    let parts = &history.entries[0].parts;
    assert_eq!(parts.len(), 161);
    assert!(matches!(&parts[159], Part::Text(text) if text.starts_with("159 word")), "{parts:?}");
    assert!(
        matches!(&parts[160], Part::Ref(named) if named.size_bytes > 100_000),
        "{:?}",
        parts[160]
    );
}

/// The long conversation of this repository.
fn long() -> String {
    broker_tests::repository().join("tests/fidelity/lake-veltra.jsonl").display().to_string()
}

#[tokio::test]
async fn people_get_the_text_and_programs_the_fixed_fields() {
    let broker = TestBroker::with(Place::Memory, TWO).await;
    broker.run(&["session", "import", "--file", &long(), "--session", "s"]).await.exits(0);
    let next = "When do they stay at Lake Veltra, from which day to which?";
    let render =
        ["session", "render", "s", "--level", "minimal", "--for", "gpt-4o", "--next", next];

    let json = broker.run(&[&render[..], &["--output", "json"]].concat()).await.exits(0).json();
    assert!(json["text"].as_str().unwrap().contains("from the 18th to the 25th of July"), "{json}");
    let numbers = |field: &str| json[field].as_array().unwrap().len();
    assert_eq!(numbers("kept") + numbers("partly") + numbers("dropped"), 411);
    assert_eq!(json["must_keep_missing"], serde_json::json!([]));
    assert!(json["tokens"].as_u64().unwrap() <= 500);
    assert_eq!(json["tokenizer"], "o200k_base");
    assert!((0.0..=1.0).contains(&json["score"].as_f64().unwrap()));

    let text = broker.run(&render).await.exits(0);
    assert_eq!(text.stdout.trim_end(), json["text"].as_str().unwrap().trim_end());
    assert!(text.stderr.contains("of 411 entries kept"), "{}", text.stderr);

    let ten = broker.run(&["session", "render", "s", "--budget", "10"]).await.exits(1);
    assert!(ten.stdout.is_empty() && ten.stderr.contains("10 tokens"), "{}", ten.stderr);
    broker.run(&["session", "render", "s", "--level", "huge"]).await.exits(2);
    broker.run(&["session", "render", "nobody"]).await.exits(3);
}

#[tokio::test]
async fn a_question_in_a_session_larger_than_the_window_takes_what_it_needs_of_it() {
    let house = broker_tests::TestHouse::start().await;
    house.run(&["session", "import", "--file", &long(), "--session", "s"]).await.exits(0);
    let question = "When do they stay at Lake Veltra, from which day to which?";
    let ask = ["consult", "--session", "s", "--model", "local", "--no-fallback", "-q", question];

    let reply = house.run(&ask).await.exits(0);

    assert!(reply.stderr.contains("session s does not fit the window"), "{}", reply.stderr);
    let calls = house.sim.calls().await;
    let body = calls.last().unwrap()["body"].to_string();
    assert!(body.contains("from the 18th to the 25th of July"), "{body}");
    let messages = calls.last().unwrap()["body"]["messages"].as_array().unwrap().len();
    assert!((2..300).contains(&messages), "{messages}");
}
