//! What a rendering leaves out, summed up by a model: only where somebody asks, and only if it keeps what must be kept.

use broker_client::{Client, NewSession};
use broker_proto::{
    Entry, EntryKind, FailureClass, NewSessionEntry, Part, Preservation, RenderAsk, Rendering,
    Role, SessionId, SessionPoint, TaskEdit, TaskList,
};
use broker_tests::{Place, ScriptedAgent, TestBroker};
use serde_json::Value;

const MODEL: &str = r#"
[[models]]
name = "opus"
provider = "anthropic"
id = "claude-opus-5-5"
"#;

async fn broker(deadline: &str) -> TestBroker {
    let sessions =
        format!("[sessions]\nsummary_model = \"opus\"\nsummary_deadline = \"{deadline}\"\n");
    TestBroker::with(Place::Memory, &format!("{sessions}{MODEL}")).await
}

/// A session that no level but the complete one holds.
async fn session(client: &Client) -> SessionId {
    let new = NewSession { id: SessionId::parse("s").ok(), ..NewSession::default() };
    let id = client.start_session(new).await.unwrap().id;
    let entry = |n: usize| NewSessionEntry {
        kind: EntryKind::Turn,
        entry: Entry {
            role: [Role::User, Role::Assistant][n % 2],
            name: String::new(),
            parts: vec![Part::Text(format!("Small talk number {n}, nothing more."))],
        },
        model: None,
        created_at: None,
    };
    client.append_entries(&id, (0..300).map(entry).collect(), None).await.unwrap();
    let text = "The database must not be restarted on weekdays".to_owned();
    let constraint = TaskEdit::Add { list: TaskList::Constraints, text, entry: None };
    let goal = TaskEdit::SetGoal("Move the invoice service to the new cluster".into());
    client.edit_session_task(&id, vec![goal, constraint]).await.unwrap();
    id
}

const GOOD: &str = "We are moving the invoice service to the new cluster. On weekdays the database must \
    not be restarted. They talked about small things only.";

async fn rendered(client: &Client, id: &SessionId, summary: bool) -> Rendering {
    let ask = RenderAsk { level: Preservation::Standard, summary, ..RenderAsk::default() };
    client.render_session(id, &SessionPoint::Head, ask).await.unwrap()
}

/// The rendering, for which the agent is asked once and says this.
async fn with_said(
    client: &Client,
    id: &SessionId,
    opus: &mut ScriptedAgent,
    text: &str,
) -> Rendering {
    let answer = async {
        let work = opus.next().await;
        let question = work.question();
        assert!(question.contains("- Goal: Move the invoice service"), "{question}");
        assert!(question.contains("user: Small talk number 100, nothing more."), "{question}");
        let most = work.delivery().message.payload.generation.max_output_tokens;
        assert!(most.is_some_and(|most| (64..=400).contains(&most)), "{most:?}");
        work.answer(text).await;
    };
    tokio::join!(rendered(client, id, true), answer).0
}

async fn messages(broker: &TestBroker) -> usize {
    let listed = broker.run(&["message", "list", "--output", "json"]).await.exits(0).json();
    listed.as_array().or(listed["messages"].as_array()).unwrap().len()
}

#[tokio::test]
async fn a_summary_that_keeps_what_must_be_kept_stands_in_the_rendering() {
    let broker = broker("20s").await;
    let client = broker.client();
    let id = session(&client).await;
    let mut opus = broker.agent("opus-1", &["opus"]).await;

    let got = with_said(&client, &id, &mut opus, GOOD).await;

    assert!(
        got.summary.starts_with("used: ") && got.summary.ends_with("by opus"),
        "{}",
        got.summary
    );
    let (_, behind) = got.text.split_once("\nSummary by opus of ").unwrap();
    let (title, behind) = behind.split_once('\n').unwrap();
    assert_eq!(title, format!("{} entries that are left out:", got.dropped.len()));
    assert!(behind.starts_with(&format!("{GOOD}\n\nConversation:\n")), "{}", got.text);
    assert!(got.text.starts_with("Goal: Move the invoice service"), "{}", got.text);
    assert!(got.tokens <= 1_200, "{}", got.tokens);
    assert_eq!(messages(&broker).await, 1, "one question, once");
}

#[tokio::test]
async fn a_summary_that_drops_or_turns_a_fact_or_is_too_long_is_refused() {
    let broker = broker("20s").await;
    let client = broker.client();
    let id = session(&client).await;
    let mut opus = broker.agent("opus-1", &["opus"]).await;
    let plain = rendered(&client, &id, false).await;
    assert_eq!(plain.summary, "");

    let dropped = "We are moving the invoice service to the new cluster.";
    let turned = GOOD.replace("must not be", "must be");
    let long = format!("{GOOD} {}", "And more small talk. ".repeat(400));
    let lost = "refused: the summary leaves out 1 of 2 items that must be kept";
    for (said, why) in [
        (dropped, lost),
        (&turned, lost),
        (&long, "refused: it takes "),
        ("", "refused: it is empty"),
    ] {
        let got = with_said(&client, &id, &mut opus, said).await;
        assert!(got.summary.starts_with(why), "{}", got.summary);
        assert_eq!(Rendering { summary: String::new(), ..got }, plain, "{why}");
    }
}

#[tokio::test]
async fn without_an_answer_the_rendering_stands_and_says_so() {
    let broker = broker("300ms").await;
    let client = broker.client();
    let id = session(&client).await;
    let plain = rendered(&client, &id, false).await;

    let nobody = rendered(&client, &id, true).await;
    assert!(nobody.summary.starts_with("failed: "), "{}", nobody.summary);
    assert_eq!(Rendering { summary: String::new(), ..nobody }, plain);

    let mut opus = broker.agent("opus-1", &["opus"]).await;
    let fails = async { opus.next().await.fail(FailureClass::InvalidRequest).await };
    let (refused, ()) = tokio::join!(rendered(&client, &id, true), fails);
    assert!(refused.summary.starts_with("failed: "), "{}", refused.summary);
    assert_eq!(Rendering { summary: String::new(), ..refused }, plain);
}

#[tokio::test]
async fn nothing_is_sent_when_it_is_off_not_asked_for_or_not_needed() {
    let off = TestBroker::with(Place::Memory, MODEL).await;
    let id = session(&off.client()).await;
    let got = rendered(&off.client(), &id, true).await;
    assert_eq!(got.summary, "off: no model is set (`sessions.summary_model`)");
    assert_eq!(messages(&off).await, 0);

    let on = broker("20s").await;
    let id = session(&on.client()).await;
    assert_eq!(rendered(&on.client(), &id, false).await.summary, "");
    on.client().session_history(&id, &SessionPoint::Head, None, "Next?").await.unwrap();
    let complete =
        RenderAsk { level: Preservation::Complete, summary: true, ..RenderAsk::default() };
    let got = on.client().render_session(&id, &SessionPoint::Head, complete).await.unwrap();
    assert_eq!(got.summary, "not needed: nothing is left out");
    assert_eq!(messages(&on).await, 0);
}

#[tokio::test]
async fn commands_ask_for_it_and_show_what_became_of_it() {
    let broker = broker("20s").await;
    session(&broker.client()).await;
    let mut opus = broker.agent("opus-1", &["opus"]).await;
    let render = ["session", "render", "s", "--output", "json"];
    assert_eq!(broker.run(&render).await.exits(0).json()["summary"], Value::Null);

    let asked = [&render[..], &["--summary"]].concat();
    let (shown, ()) = tokio::join!(broker.run(&asked), opus.answer(GOOD));
    let shown = shown.exits(0).json();
    assert!(shown["summary"].as_str().unwrap().starts_with("used: "), "{shown}");
    assert!(shown["text"].as_str().unwrap().contains("Summary by opus of "), "{shown}");

    let prepare =
        ["handoff", "prepare", "--session", "s", "--to", "opus", "--preserve", "standard"];
    let prepare = [&prepare[..], &["--summary", "--output", "json"]].concat();
    let (made, ()) = tokio::join!(broker.run(&prepare), opus.answer(GOOD));
    let made = made.exits(0);
    assert!(made.stderr.contains("summary: used: "), "{}", made.stderr);
    let made = made.json();
    assert!(made["summary"].as_str().unwrap().starts_with("used: "), "{made}");
    let loaded = broker.run(&["handoff", "load", made["id"].as_str().unwrap()]).await.exits(0);
    assert!(loaded.stdout.contains("Summary by opus of "), "{}", loaded.stdout);
}

const PRICED: &str = r#"
[models.prices]
input = 10.0
output = 100.0
"#;

#[tokio::test]
async fn what_a_summary_costs_is_the_sessions_and_bounded() {
    let with = async |sessions: &str| {
        let sessions = format!("[sessions]\nsummary_model = \"opus\"\n{sessions}\n");
        let broker = TestBroker::with(Place::Memory, &format!("{sessions}{MODEL}{PRICED}")).await;
        let id = session(&broker.client()).await;
        (broker, id)
    };
    let (broker, id) = with("").await;
    let mut opus = broker.agent("opus-1", &["opus"]).await;
    let client = broker.client();
    let answer = async {
        let work = opus.next().await;
        let said = &work.delivery().message;
        assert_eq!(said.session.as_deref(), Some("s"));
        assert_eq!(said.from.as_ref().map(ToString::to_string).as_deref(), Some("broker.summary"));
        // What 0.10 USD leave behind the prompt, at 100 USD for a million.
        assert!(work.delivery().max_output_tokens.is_some_and(|most| most <= 1_000));
        work.answer(GOOD).await;
    };
    let (got, ()) = tokio::join!(rendered(&client, &id, true), answer);
    assert!(got.summary.starts_with("used: "), "{}", got.summary);
    let ledger = ["usage", "ledger", "--session", "s", "--output", "json"];
    let lines = broker.run(&ledger).await.exits(0).json();
    assert_eq!(lines["lines"].as_array().map(Vec::len), Some(1), "{lines}");
    let entries = client.session(&id, &SessionPoint::Head).await.unwrap().info.head.entries;
    assert_eq!(entries, 300, "a summary is nothing that was said");

    // What a prompt alone would cost more than is not asked.
    let (broker, id) = with("summary_cost = 0.0001").await;
    let _opus = broker.agent("opus-1", &["opus"]).await;
    let got = rendered(&broker.client(), &id, true).await;
    assert!(
        got.summary.starts_with("failed: ") && got.summary.contains("does not pay"),
        "{}",
        got.summary
    );
}
