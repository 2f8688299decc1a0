//! Sessions: kept over restarts, gone back to, forked, imported, shared; as programs and as people use them.

use std::{fs, io::Write as _, path::PathBuf, time::Duration};

use broker_client::{Client, Error, ImportSession, NewSession, SessionFilter, transcript};
use broker_proto::{
    Entry, EntryKind, FailureClass, MessageId, MessageState, NewSessionEntry, Part, Role,
    SessionId, SessionPoint, TaskEdit, TaskList,
};
use broker_tests::{Output, Place, TestBroker, TestHouse, brokerctl, repository};
use serde_json::{Value, json};
use tempfile::TempDir;

fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

fn said(role: Role, text: &str) -> NewSessionEntry {
    let entry = Entry { role, name: String::new(), parts: vec![Part::text(text)] };
    NewSessionEntry { kind: EntryKind::Turn, entry, model: None, created_at: None }
}

async fn begin(client: &Client, name: &str) -> SessionId {
    let new = NewSession { id: Some(id(name)), ..NewSession::default() };
    client.start_session(new).await.unwrap().id
}

/// A file in a folder that goes with the test.
fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

const CHAT: &str = r#"{"role":"system","content":"Be brief."}
{"role":"user","name":"ada","content":"List the files.","created_at":"2026-03-01T12:00:00Z"}
{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"ls","arguments":"{}"}}]}
{"role":"tool","tool_call_id":"c1","content":"a.rs"}
{"role":"assistant","content":[{"type":"thinking","thinking":"one","signature":"sig"},{"type":"text","text":"One file."}],"created_at":"2026-03-01T12:00:05.5Z"}
{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAEC"}},{"type":"text","text":"And this?"}]}
{"role":"assistant","content":""}
"#;

#[tokio::test]
async fn a_session_is_the_same_after_a_restart() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let client = broker.client();
    let s = begin(&client, "s").await;
    let large = "x".repeat(99_000);
    let turns = vec![said(Role::User, "look"), said(Role::Assistant, &large)];
    client.append_entries(&s, turns, None).await.unwrap();
    let edits = vec![
        TaskEdit::SetGoal("ship".into()),
        TaskEdit::Add { list: TaskList::NextSteps, text: "test".into(), entry: None },
    ];
    client.edit_session_task(&s, edits).await.unwrap();
    let before = client.session(&s, &SessionPoint::Head).await.unwrap();
    let entries = client.session_entries(&s, &SessionPoint::Head, 0, usize::MAX).await.unwrap();
    let versions = client.session_versions(&s, 10, None).await.unwrap();

    broker.restart().await;

    let client = broker.client();
    assert_eq!(client.session(&s, &SessionPoint::Head).await.unwrap(), before);
    let after = client.session_entries(&s, &SessionPoint::Head, 0, usize::MAX).await.unwrap();
    assert_eq!(after, entries);
    assert_eq!(after[1].entry.parts, [Part::text(large)], "whole again");
    assert_eq!(client.session_versions(&s, 10, None).await.unwrap(), versions);
    let changes: Vec<&str> = versions.items.iter().map(|it| it.change.as_str()).collect();
    assert_eq!(changes, ["task_edited", "appended", "started"]);
    broker.stop().await;
}

#[tokio::test]
async fn appends_at_once_never_interleave_and_a_stale_one_names_both_heads() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let s = begin(&client, "s").await;
    let append = |who: usize| {
        let (client, s) = (client.clone(), s.clone());
        async move {
            for round in 0..4 {
                let text = format!("{who}.{round}");
                let turns = vec![said(Role::User, &text), said(Role::Assistant, &text)];
                client.append_entries(&s, turns, None).await.unwrap();
            }
        }
    };
    futures::future::join_all((0..6).map(append)).await;

    let entries = client.session_entries(&s, &SessionPoint::Head, 0, usize::MAX).await.unwrap();
    assert_eq!(entries.len(), 48);
    for two in entries.chunks(2) {
        assert_eq!((two[0].entry.role, two[1].entry.role), (Role::User, Role::Assistant));
        assert_eq!(two[0].entry.parts, two[1].entry.parts);
    }

    let stale = client.append_entries(&s, vec![said(Role::User, "x")], Some(entries[9].hash)).await;
    let Err(Error::Refused { reason, metadata, .. }) = stale else { panic!("{stale:?}") };
    assert_eq!(reason, "SESSION_CONFLICT");
    assert_eq!(metadata["head"], entries[47].hash.to_string());
    assert_eq!(metadata["other_head"], entries[9].hash.to_string());
    assert_eq!((&metadata["other_entries"][..], &metadata["keys"][..]), ("10", "entries.10-47"));
}

#[tokio::test]
async fn a_transcript_comes_in_and_goes_out_as_it_was() {
    let broker = TestBroker::start().await;
    let folder = folder();
    let chat = file(&folder, "chat.jsonl", CHAT);
    let import = ["session", "import", "--file", &chat, "--model", "sonnet"];
    let s = broker.run(&import).await.exits(0).stdout;
    let s = s.trim();

    let shown = broker.run(&["session", "show", s, "--output", "json"]).await.exits(0).json();

    let owner = json!({ "model": "sonnet", "agent": null, "epoch": 1 });
    assert_eq!((&shown["owner"], &shown["handoffs"]), (&owner, &json!([])));
    let entries = shown["entries"].as_array().unwrap();
    let numbers: Vec<u64> = entries.iter().map(|it| it["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..7).collect::<Vec<u64>>(), "one for each line");
    assert_eq!((&entries[1]["name"], &entries[0]["name"]), (&json!("ada"), &Value::Null));
    assert_eq!(entries[1]["created_at"], "2026-03-01T12:00:00Z");
    assert_eq!(entries[4]["created_at"], "2026-03-01T12:00:05.5Z");
    assert_eq!(entries[3]["parts"][0]["call_id"], "c1");
    assert_eq!(entries[4]["parts"][0]["signature"], "sig");
    assert_eq!(entries[5]["parts"][0]["media_type"], "image/png");

    let out = broker.run(&["session", "export", s]).await.exits(0).stdout;
    assert_eq!(transcript::parse_entries(&out).unwrap(), transcript::parse_entries(CHAT).unwrap());
    let again = file(&folder, "again.jsonl", &out);
    let same = ["session", "import", "--file", &again, "--session", s, "--output", "json"];
    assert_eq!(broker.run(&same).await.exits(0).json()["outcome"], "unchanged");
}

#[tokio::test]
async fn a_bad_transcript_stores_nothing_and_is_told_by_its_line() {
    let broker = TestBroker::start().await;
    let folder = folder();
    let deep = format!("{{\"role\":\"user\",\"content\":{}", "[".repeat(100_000));
    let good = r#"{"role":"user","content":"ok"}"#;
    for (name, text, want) in [
        ("broken", format!("{good}\n{{\"role\":\n"), "broken.jsonl:2: not a JSON object"),
        ("role", format!("{good}\n{{\"role\":\"alien\"}}"), "role.jsonl:2: `role` must be"),
        ("deep", deep, "deep.jsonl:1: nested too deep"),
        ("empty", "\n\n".to_owned(), "empty.jsonl holds no turn"),
    ] {
        let path = file(&folder, &format!("{name}.jsonl"), &text);
        let refused = broker.run(&["session", "import", "--file", &path]).await.exits(2);
        assert!(refused.stderr.contains(want), "{refused:?}");
    }
    for bad in ["../x", "a/b", ".", "UP"] {
        broker.run(&["session", "show", bad]).await.exits(2);
        broker.run(&["session", "new", bad]).await.exits(2);
    }
    let missing = broker.run(&["session", "show", "nobody"]).await.exits(3);
    assert!(missing.stderr.contains("UNKNOWN_SESSION"), "{missing:?}");
    let all = broker.client().sessions(SessionFilter::default()).await.unwrap();
    assert_eq!(all.items, []);
}

#[tokio::test]
async fn a_turn_of_twenty_megabytes_is_kept_and_a_larger_one_refused_with_the_limit() {
    let broker = TestBroker::with(Place::Folder, "").await;
    let client = broker.client();
    let text = "many words ".repeat((20 << 20) / 11);
    let import =
        ImportSession { entries: vec![said(Role::User, &text)], ..ImportSession::default() };
    let s = client.import_session(import).await.unwrap().0;

    let entries = client.session_entries(&s.id, &SessionPoint::Head, 0, 1).await.unwrap();

    assert_eq!(entries[0].entry.parts, [Part::text(text)]);
    let over = "x".repeat(33 << 20);
    let over = ImportSession { entries: vec![said(Role::User, &over)], ..ImportSession::default() };
    let refused = client.import_session(over).await;
    let Err(Error::Refused { reason, metadata, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!((&reason[..], &metadata["limit_bytes"][..]), ("TOO_LARGE", "33554432"));
}

#[tokio::test]
async fn a_conversation_that_no_frame_holds_is_imported_whole() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let entries: Vec<_> =
        (0..6000).map(|nr| said(Role::User, &format!("{nr} {}", "w ".repeat(100)))).collect();
    let import = ImportSession { entries: entries.clone(), ..ImportSession::default() };

    let (info, _) = client.import_session(import).await.unwrap();

    assert_eq!(info.head.entries, 6000);
    let last = client.session_entries(&info.id, &SessionPoint::Head, 5999, 10).await.unwrap();
    assert_eq!((last.len(), &last[0].entry), (1, &entries[5999].entry));
}

/// A session of two lines that went on, and another way on from its first line.
async fn parted(broker: &TestBroker, folder: &TempDir) -> String {
    let line = |text: &str| format!("{{\"role\":\"user\",\"content\":\"{text}\"}}\n");
    let own = file(folder, "own.jsonl", &[line("a"), line("b")].concat());
    let import = ["session", "import", "--file", &own, "--session", "s"];
    assert_eq!(broker.run(&import).await.exits(0).stdout, "s\n");
    let append = ["session", "append", "s", "--role", "user", "went on"];
    assert_eq!(broker.run(&append).await.exits(0).stdout, "2\n");
    file(folder, "other.jsonl", &[line("a"), line("x")].concat())
}

async fn texts(broker: &TestBroker, s: &str) -> Vec<String> {
    let shown = broker.run(&["session", "show", s, "--output", "json"]).await.exits(0).json();
    let text = |entry: &Value| entry["text"].as_str().unwrap().to_owned();
    shown["entries"].as_array().unwrap().iter().map(text).collect()
}

async fn import(broker: &TestBroker, file: &str, more: &[&str]) -> Output {
    let import = ["session", "import", "--file", file, "--session", "s"];
    broker.run(&[&import[..], more].concat()).await
}

#[tokio::test]
async fn an_import_onto_what_went_on_does_what_was_chosen() {
    for (choice, code, outcome, own, other) in [
        ("fail", 1, "", vec!["a", "b", "went on"], None),
        ("keep", 0, "kept", vec!["a", "b", "went on"], None),
        ("replace", 0, "replaced", vec!["a", "x"], None),
        ("fork", 0, "forked", vec!["a", "b", "went on"], Some(vec!["a", "x"])),
    ] {
        let (broker, folder) = (TestBroker::start().await, folder());
        let file = parted(&broker, &folder).await;
        let more = ["--on-conflict", choice, "--as", "f", "--output", "json"];

        let done = import(&broker, &file, &more).await.exits(code).json();

        if choice == "fail" {
            assert_eq!(done["error"]["reason"], "SESSION_CONFLICT");
            let told = &done["error"]["metadata"];
            assert_eq!(
                (&told["keys"], &told["common_entries"]),
                (&json!("entries.1-2"), &json!("1"))
            );
            let own = broker.run(&["session", "show", "s", "--output", "json"]).await.exits(0);
            assert_eq!(told["head"], own.json()["head"]);
            // The hash of the conversation that was to come in, as a session of its own has it.
            let apart = ["session", "import", "--file", &file, "--session", "apart"];
            broker.run(&apart).await.exits(0);
            let apart = broker.run(&["session", "show", "apart", "--output", "json"]).await;
            assert_eq!(told["other_head"], apart.exits(0).json()["head"]);
        } else {
            assert_eq!(done["outcome"], outcome);
        }
        assert_eq!(texts(&broker, "s").await, own, "{choice}");
        match other {
            Some(other) => assert_eq!(texts(&broker, "f").await, other),
            None => {
                broker.run(&["session", "show", "f"]).await.exits(3);
            }
        }
    }
}

#[tokio::test]
async fn restoring_what_went_on_does_what_was_chosen() {
    for (choice, code, own, other) in [
        ("fail", 1, vec!["a", "b", "went on"], None),
        ("keep", 0, vec!["a", "b", "went on"], None),
        ("replace", 0, vec!["a"], None),
        ("fork", 0, vec!["a", "b", "went on"], Some(vec!["a"])),
    ] {
        let (broker, folder) = (TestBroker::start().await, folder());
        parted(&broker, &folder).await;
        broker.run(&["session", "context", "set", "k", "1", "--session", "s"]).await.exits(0);
        let restore = ["session", "restore", "s", "--to", "0", "--expect", "1"];
        let more = ["--on-conflict", choice, "--as", "f"];

        let done = broker.run(&[&restore[..], &more].concat()).await.exits(code);

        if choice == "fail" {
            assert!(done.stderr.contains("in conflict: entries.2, shared.k"), "{done:?}");
            for version in ["2", "1"] {
                let at = format!("v{version}");
                let show = ["session", "show", "s", "--at", &at, "--output", "json"];
                let head = broker.run(&show).await.exits(0).json()["head"].clone();
                assert!(done.stderr.contains(head.as_str().unwrap()), "{version} {done:?}");
            }
        }
        assert_eq!(texts(&broker, "s").await, own, "{choice}");
        if let Some(other) = other {
            assert_eq!(
                (texts(&broker, "f").await, done.stdout),
                (other.iter().map(ToString::to_string).collect(), "f\n".to_owned())
            );
        }
    }
}

#[tokio::test]
async fn what_came_back_to_where_it_was_is_no_conflict() {
    let (broker, folder) = (TestBroker::start().await, folder());
    parted(&broker, &folder).await;
    broker.run(&["session", "restore", "s", "--to", "v1"]).await.exits(0);

    broker.run(&["session", "restore", "s", "--to", "v1", "--expect", "1"]).await.exits(0);

    assert_eq!(texts(&broker, "s").await, ["a", "b"]);
    broker.run(&["session", "restore", "s", "--to", "0"]).await.exits(0);
    let stale = ["session", "restore", "s", "--to", "v1", "--expect", "1"];
    let refused = broker.run(&stale).await.exits(1);
    assert!(refused.stderr.contains("with 1 entry ("), "{refused:?}");
    assert!(refused.stderr.contains("in conflict: entries.1."), "{refused:?}");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let broker = TestBroker::start().await;
    begin(&broker.client(), "s").await;
    broker.run(&["session", "import", "--file", "/nonexistent/run.jsonl"]).await.exits(3);
    let delete = ["session", "context", "delete", "k", "--session", "s"];
    let refused = broker.run(&delete).await.exits(3);
    assert!(refused.stderr.contains("UNKNOWN_VALUE"), "{refused:?}");
}

#[tokio::test]
async fn every_earlier_point_is_shown_forked_and_restored() {
    let (broker, folder) = (TestBroker::start().await, folder());
    parted(&broker, &folder).await;
    let at = ["session", "show", "s", "--at", "0", "--output", "json"];
    let first = broker.run(&at).await.exits(0).json();
    let hash = first["head"].as_str().unwrap().to_owned();

    let fork = ["session", "fork", "s", "--at", &hash[..10], "--model", "local", "--id", "f"];
    assert_eq!(broker.run(&fork).await.exits(0).stdout, "f\n");
    let restore = ["session", "restore", "s", "--to", "v1"];
    broker.run(&restore).await.exits(0);

    assert_eq!(
        (texts(&broker, "f").await, texts(&broker, "s").await),
        (vec!["a".into()], vec!["a".into(), "b".into()])
    );
    let forked = broker.run(&["session", "show", "f", "--output", "json"]).await.json();
    assert_eq!(forked["owner"]["model"], "local");
    let diff =
        broker.run(&["session", "diff", "f", "s@v2", "--output", "json"]).await.exits(0).json();
    assert_eq!((&diff["common_entries"], &diff["other"]["entry_count"]), (&json!(1), &json!(3)));
    let log = broker.run(&["session", "log", "s", "--output", "json"]).await.exits(0).json();
    let changes: Vec<_> =
        log["versions"].as_array().unwrap().iter().map(|it| it["change"].clone()).collect();
    assert_eq!(changes, ["restored", "appended", "imported"]);
    broker.run(&["session", "restore", "s", "--to", "v3"]).await.exits(0);
    broker.run(&["session", "restore", "s", "--to", "v2"]).await.exits(0);
    assert_eq!(texts(&broker, "s").await.len(), 3, "nothing was lost");
    broker.run(&["session", "restore", "s", "--to", "9"]).await.exits(3);
}

#[tokio::test]
async fn a_task_is_edited_by_verbs_and_each_edit_is_a_version() {
    let broker = TestBroker::start().await;
    begin(&broker.client(), "s").await;
    let run = async |words: &[&str]| {
        broker.run(&[&["session", "task"], words, &["--session", "s"]].concat()).await
    };
    run(&["set", "goal", "ship it"]).await.exits(0);
    for list in TaskList::ALL {
        run(&["add", &list.as_str().replace('_', "-"), "first"]).await.exits(0);
    }
    assert_eq!(run(&["add", "next-step", "second"]).await.exits(0).stdout, "9\n");
    run(&["done", "next-steps", "9"]).await.exits(0);
    run(&["remove", "file", "6"]).await.exits(0);
    run(&["progress", "0.5"]).await.exits(0);
    run(&["subagent", "a1", "--kind", "tests", "--description", "runs them"]).await.exits(0);
    run(&["done", "files", "6"]).await.exits(2);
    run(&["add", "wishes", "x"]).await.exits(2);
    run(&["progress", "1.5"]).await.exits(2);

    let task = run(&["show", "--output", "json"]).await.exits(0).json();
    assert_eq!((&task["goal"], &task["progress"]), (&json!("ship it"), &json!(0.5)));
    assert_eq!(
        task["next_steps"][1],
        json!({ "id": 9, "text": "second", "done": true, "entry": null })
    );
    assert_eq!(task["files"], json!([]));
    let shown = broker.run(&["session", "show", "s", "--output", "json"]).await.exits(0).json();
    assert_eq!(shown["subagents"][0]["id"], "a1");
    assert_eq!(shown["preferences"][0]["text"], "first");
    assert_eq!(shown["version"], 15);
}

#[tokio::test]
async fn a_session_names_the_packages_that_were_made_of_it() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let s = begin(&client, "s").await;
    begin(&client, "other").await;
    client.append_entries(&s, vec![said(Role::User, "hello")], None).await.unwrap();
    let prepare = ["handoff", "prepare", "--session", "s", "--to", "sonnet", "--output", "json"];
    let id = broker.run(&prepare).await.exits(0).json()["id"].clone();
    broker.run(&["handoff", "prepare", "--session", "other", "--to", "sonnet"]).await.exits(0);

    let shown = broker.run(&["session", "show", "s", "--output", "json"]).await.exits(0).json();

    let packages = shown["packages"].as_array().unwrap();
    assert_eq!((packages.len(), &shown["handoffs"]), (1, &json!([])), "it did not move");
    let one = &packages[0];
    assert_eq!((&one["package_id"], &one["to"]), (&id, &json!("sonnet")));
    assert_eq!(one["from"], shown["owner"]["model"]);
    assert!(one["at"].is_string() && one["imported"] == false, "{one}");
    let table = broker.run(&["session", "show", "s"]).await.exits(0).stdout;
    let row = table.lines().find(|line| line.trim_start().starts_with("packages")).unwrap();
    assert!(row.contains(id.as_str().unwrap()) && row.contains("to sonnet"), "{table}");
}

#[tokio::test]
async fn shared_values_keep_their_source_and_tags() {
    let broker = TestBroker::start().await;
    begin(&broker.client(), "s").await;
    let run = async |words: &[&str]| {
        broker.run(&[&["session", "context"], words, &["--session", "s"]].concat()).await
    };
    run(&["set", "api.v", "{\"n\": 2}", "--tag", "api", "--tag", "v", "--source", "review"])
        .await
        .exits(0);
    run(&["set", "build", "true"]).await.exits(0);
    assert_eq!(run(&["get", "api.v"]).await.exits(0).stdout, "{\"n\": 2}\n");
    let listed = run(&["list", "--match", "a*", "--output", "json"]).await.exits(0).json();
    let values = listed["values"].as_array().unwrap();
    assert_eq!((values.len(), &values[0]["value"]), (1, &json!({ "n": 2 })));
    assert_eq!(
        (&values[0]["tags"], &values[0]["source"]),
        (&json!(["api", "v"]), &json!("review"))
    );
    let bad = run(&["set", "k", "not json"]).await.exits(2);
    assert!(bad.stderr.contains("INVALID_EDIT") && !bad.stderr.contains("not json"), "{bad:?}");
    run(&["delete", "build"]).await.exits(0);
    run(&["get", "build"]).await.exits(3);
}

#[tokio::test]
async fn the_current_session_is_named_by_the_environment_or_the_last_used_here() {
    let broker = TestBroker::start().await;
    let state = folder();
    let run = async |words: &[&str], session: &str| {
        let program = brokerctl(&broker.endpoint()).args(words);
        let program = program.env("XDG_STATE_HOME", state.path()).env("BROKER_SESSION", session);
        program.output().await
    };
    let new = run(&["session", "append", "--role", "user", "hello"], "").await.exits(0);
    assert!(new.stderr.contains("(new)"), "{new:?}");
    let again = run(&["session", "append", "--role", "user", "hello"], "").await.exits(0);
    assert!(
        again.stderr.contains("(last used from this folder)") && again.stdout == "1\n",
        "{again:?}"
    );

    run(&["session", "new", "named"], "").await.exits(0);
    let named = run(&["session", "append", "--role", "user", "hello"], "").await.exits(0);
    assert!(named.stderr.contains("session named"), "{named:?}");
    begin(&broker.client(), "env").await;
    let env = run(&["session", "append", "--role", "user", "hello"], "env").await.exits(0);
    assert!(env.stderr.contains("(from BROKER_SESSION)") && env.stdout == "0\n", "{env:?}");
    run(&["session", "show"], "../x").await.exits(2);

    // A package that is saved belongs to it as well, and needs none.
    let save = ["handoff", "save", "--task", "Port the parser", "--output", "json"];
    let saved = run(&save, "").await.exits(0);
    assert_eq!(saved.json()["session_id"], "named");
    assert!(saved.stderr.contains("session named (last used from this folder)"), "{saved:?}");
    let saved = run(&save, "env").await.exits(0);
    assert_eq!(saved.json()["session_id"], "env");
    assert!(saved.stderr.contains("session env (from BROKER_SESSION)"), "{saved:?}");
    let named = run(&[&save[..], &["--session", "other"]].concat(), "env").await.exits(0);
    assert_eq!(named.json()["session_id"], "other");
    assert!(!named.stderr.contains("session"), "{named:?}");
    run(&save, "../x").await.exits(2);
    run(&["session", "delete", "named", "--yes"], "").await.exits(0);
    let sessions = run(&["session", "list", "--output", "json"], "").await.exits(0).json();
    let saved = run(&save, "").await.exits(0);
    assert_eq!(saved.json()["session_id"], Value::Null, "{saved:?}");
    let after = run(&["session", "list", "--output", "json"], "").await.exits(0).json();
    assert_eq!(after, sessions, "none is begun");

    let left: Vec<PathBuf> =
        fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [state.path().join("brokerctl")], "kept with the user, not the project");
}

#[tokio::test]
async fn deleting_asks_unless_told_not_to() {
    let broker = TestBroker::start().await;
    begin(&broker.client(), "s").await;
    let asked = broker.run(&["session", "delete", "s"]).await.exits(2);
    assert!(asked.stderr.contains("--yes"), "{asked:?}");
    broker.run(&["session", "delete", "s", "--yes"]).await.exits(0);
    broker.run(&["session", "show", "s"]).await.exits(3);
    let listed = broker.run(&["session", "list", "--output", "json"]).await.exits(0).json();
    assert_eq!(listed["sessions"], json!([]));
}

#[tokio::test]
async fn changes_of_one_session_are_events_that_say_nothing_of_its_texts() {
    use futures::StreamExt as _;
    let broker = TestBroker::start().await;
    let client = broker.client();
    let (s, other) = (begin(&client, "s").await, begin(&client, "other").await);
    for id in [&s, &other, &s] {
        client.append_entries(id, vec![said(Role::User, "sk-canary")], None).await.unwrap();
    }
    let filter = broker_proto::EventFilter { session: Some("s".into()), ..Default::default() };
    let events = client.subscribe(broker_proto::EventStart::First, filter).await.unwrap();

    let told: Vec<String> =
        broker_tests::within("three events", events.take(3).collect::<Vec<_>>())
            .await
            .into_iter()
            .map(|item| match item.unwrap() {
                broker_client::EventItem::Event { event, .. } => {
                    assert_eq!(event.session.as_deref(), Some("s"), "{event:?}");
                    event.detail
                }
                other @ broker_client::EventItem::Gap { .. } => panic!("{other:?}"),
            })
            .collect();

    assert_eq!(told, ["s started", "s appended: 1 entry", "s appended: 1 entry"]);
}

#[tokio::test]
async fn lists_are_in_pages() {
    let broker = TestBroker::start().await;
    for nr in 0..5 {
        begin(&broker.client(), &format!("s{nr}")).await;
    }
    let (mut page, mut seen) = (None, Vec::new());
    loop {
        let filter = SessionFilter { page_size: 2, page_token: page, ..SessionFilter::default() };
        let found = broker.client().sessions(filter).await.unwrap();
        seen.extend(found.items.into_iter().map(|info| info.id.to_string()));
        page = found.next_page_token;
        if page.is_none() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, ["s0", "s1", "s2", "s3", "s4"]);
}

async fn shown(house: &TestHouse, s: &str) -> Value {
    house.run(&["session", "show", s, "--output", "json"]).await.exits(0).json()
}

#[tokio::test]
async fn a_question_in_a_session_takes_along_what_was_said_and_appends_both_sides() {
    let house = TestHouse::start().await;
    house.run(&["session", "new", "s", "--model", "sonnet"]).await.exits(0);
    let append = ["session", "append", "s", "--role", "user", "My name is Ada."];
    house.run(&append).await.exits(0);

    let ask = ["consult", "--session", "s", "--question", "Who am I?", "--output", "json"];
    let owner = house.run(&ask).await.exits(0).json();
    let other = ["consult", "--session", "s", "--model", "gpt-4o", "--question", "Sure?"];
    house.run(&other).await.exits(0);

    assert_eq!(owner["model"], "sonnet", "its owner is asked");
    let calls = house.sim.calls().await;
    assert!(calls[0]["body"].to_string().contains("My name is Ada."), "{calls:?}");
    assert!(calls[1]["body"].to_string().contains("Who am I?"), "{calls:?}");
    let session = shown(&house, "s").await;
    assert_eq!(session["owner"]["model"], "sonnet", "asking another changes no owner");
    let models = session["active_models"].as_array().unwrap();
    assert_eq!(models, &[json!("gpt-4o"), json!("sonnet")]);
    let turns: Vec<_> = session["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["role"].as_str().unwrap(), it["model"].as_str()))
        .collect();
    let want = [
        ("user", None),
        ("user", None),
        ("assistant", Some("sonnet")),
        ("user", None),
        ("assistant", Some("gpt-4o")),
    ];
    assert_eq!(turns, want);
    assert_eq!(session["entries"][1]["text"], "Who am I?");
    assert_eq!(session["entries"][2]["text"], owner["answer"]);
    assert!(session["entries"][2]["created_at"].is_string());
}

#[tokio::test]
async fn a_question_that_names_no_session_belongs_to_none() {
    let house = TestHouse::start().await;
    let state = folder();
    let run = async |words: &[&str], session: &str| {
        let program = house.command(words).env("XDG_STATE_HOME", state.path());
        program.env("BROKER_SESSION", session).output().await
    };
    run(&["session", "new", "last"], "").await.exits(0);
    run(&["session", "new", "env"], "").await.exits(0);
    run(&["consult", "--model", "opus", "--question", "alone?"], "").await.exits(0);
    run(&["consult", "--model", "opus", "--question", "with it?"], "last").await.exits(0);
    run(&["consult", "--question", "whom?"], "").await.exits(2);
    let missing = run(&["consult", "--session", "nobody", "--question", "x"], "").await.exits(3);
    assert!(missing.stderr.contains("UNKNOWN_SESSION"), "{missing:?}");

    assert_eq!(shown(&house, "env").await["entry_count"], 0);
    assert_eq!(shown(&house, "last").await["entries"][0]["text"], "with it?");
}

#[tokio::test]
async fn a_failed_question_appends_nothing_and_says_so() {
    let house = TestHouse::start().await;
    house.run(&["session", "new", "s"]).await.exits(0);
    house.sim.refuse("anthropic.family_429", "claude-opus-*", json!("forever")).await;
    let ask =
        ["consult", "--session", "s", "--model", "opus", "--no-fallback", "--question", "now?"];
    let failed = house.run(&ask).await.exits(5);
    assert!(failed.stderr.contains("nothing was appended to session s"), "{failed:?}");
    assert_eq!(shown(&house, "s").await["entry_count"], 0);
}

#[tokio::test]
async fn a_submitted_question_is_appended_once_it_is_answered_however_often_it_is_polled() {
    let house = TestHouse::start().await;
    house.run(&["session", "new", "s"]).await.exits(0);
    let submit = ["submit", "--session", "s", "--question", "later"];
    let message = house.run(&submit).await.exits(0).stdout;
    for _ in 0..2 {
        house.run(&["poll", message.trim(), "--wait", "10s"]).await.exits(0);
    }
    house.run(&["attach", message.trim()]).await.exits(0);
    let session = shown(&house, "s").await;
    assert_eq!(
        (&session["entry_count"], &session["entries"][0]["text"]),
        (&json!(2), &json!("later"))
    );
}

#[tokio::test]
async fn what_nobody_reads_is_appended_in_the_order_of_its_answers() {
    let house = TestHouse::start().await;
    house.run(&["session", "new", "s"]).await.exits(0);
    let mut asked = Vec::new();
    for question in ["older", "newer"] {
        let submit = ["submit", "--session", "s", "--question", question];
        asked.push(house.run(&submit).await.exits(0).stdout.trim().to_owned());
        let id = MessageId::parse(asked.last().unwrap()).unwrap();
        let poll = house.client().poll(id, Duration::from_secs(10)).await.unwrap();
        assert_eq!(poll.state, MessageState::Done);
    }
    let session = shown(&house, "s").await;
    let turns: Vec<_> = session["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["role"].as_str().unwrap(), it["text"].as_str().unwrap()))
        .collect();
    assert_eq!(turns.len(), 4, "{turns:?}");
    assert_eq!((turns[0], turns[2]), (("user", "older"), ("user", "newer")));

    // Read at last, in the other order, nothing is appended again.
    let poll = house.run(&["poll", &asked[1], "--wait", "10s"]).await.exits(0);
    assert!(poll.stderr.contains("session s: entries 2-3 appended"), "{poll:?}");
    house.run(&["attach", &asked[0]]).await.exits(0);
    assert_eq!(shown(&house, "s").await["entry_count"], 4);
}

#[tokio::test]
async fn an_answer_stands_whose_session_was_deleted_meanwhile() {
    let house = TestHouse::start().await;
    house.run(&["session", "new", "s"]).await.exits(0);
    house.run(&["queue", "pause", "opus"]).await.exits(0);
    let submit = ["submit", "--session", "s", "--model", "opus", "--question", "later"];
    let message = house.run(&submit).await.exits(0).stdout;
    house.run(&["session", "delete", "s", "--yes"]).await.exits(0);
    house.run(&["queue", "resume", "opus"]).await.exits(0);

    let poll = house.run(&["poll", message.trim(), "--wait", "10s"]).await.exits(0);

    assert!(!poll.stdout.trim().is_empty(), "{poll:?}");
    assert!(poll.stderr.contains("session s is gone: nothing was appended"), "{poll:?}");
    let json = house.run(&["poll", message.trim(), "--output", "json"]).await.exits(0).json();
    assert_eq!(json["not_appended"], "session s is gone", "{json}");
    house.run(&["session", "show", "s"]).await.exits(3);
}

#[tokio::test]
async fn shared_values_reach_the_advisor_and_its_answer_is_advice() {
    let house = TestHouse::start().await;
    house.run(&["session", "new", "s", "--model", "opus"]).await.exits(0);
    house.run(&["session", "append", "s", "--role", "user", "Fix the parser."]).await.exits(0);
    let set = ["session", "context", "set", "api.v", "42", "--source", "review", "--session", "s"];
    house.run(&set).await.exits(0);
    let ask = ["consult", "--session", "s", "--model", "gpt-4o", "--context", "shared"];
    house.run(&[&ask[..], &["--question", "What would you do?"]].concat()).await.exits(0);

    let body = house.sim.calls().await[0]["body"].to_string();
    for said in ["api.v: 42", "review", "Fix the parser.", "What would you do?"] {
        assert!(body.contains(said), "{said} in {body}");
    }
    let session = shown(&house, "s").await;
    let advice = &session["entries"][1];
    assert_eq!((&advice["kind"], &advice["name"]), (&json!("advice"), &json!("gpt-4o")));
    assert_eq!(session["entry_count"], 2, "the question was the asker's own");
    // The owner hears it as what somebody else said.
    house.run(&["consult", "--session", "s", "--question", "Go on."]).await.exits(0);
    let body = house.sim.calls().await[1]["body"].to_string();
    assert!(body.contains("Advice of gpt-4o: "), "{body}");
    let none = ["consult", "--model", "opus", "--context", "shared", "--question", "x"];
    house.run(&none).await.exits(2);
}

/// Third-party data beside the repository: read where it is.
#[tokio::test]
async fn real_transcripts_are_sessions_line_by_line() {
    let found = fs::read_dir(repository().join("../shared/data/transcripts"));
    let Ok(files) = found else {
        let _ = writeln!(std::io::stderr(), "SKIP: no transcripts");
        return;
    };
    let broker = TestBroker::start().await;
    for path in files
        .map(|file| file.unwrap().path())
        .filter(|it| it.extension().is_some_and(|e| e == "jsonl"))
    {
        let text = fs::read_to_string(&path).unwrap();
        let import = ["session", "import", "--file", &path.display().to_string()];
        let s = broker.run(&import).await.exits(0).stdout;
        let out = broker.run(&["session", "export", s.trim()]).await.exits(0).stdout;
        assert_eq!(out.lines().count(), text.lines().count());
        assert_eq!(
            transcript::parse_entries(&out).unwrap(),
            transcript::parse_entries(&text).unwrap()
        );
    }
}

const LARGE_AND_SMALL: &str = r#"
[[models]]
name = "large"
provider = "anthropic"
id = "claude-large"
context_window = 200_000
max_output_tokens = 8_000
fallback = ["small"]

[[models]]
name = "small"
provider = "ollama"
id = "small"
context_window = 8_000
max_output_tokens = 1_000
"#;

#[tokio::test]
async fn a_fallback_with_a_smaller_window_gets_a_smaller_history_and_the_reply_says_so() {
    let broker = TestBroker::with(Place::Memory, LARGE_AND_SMALL).await;
    let client = broker.client();
    let s = SessionId::parse("s").unwrap();
    broker.run(&["session", "new", "s", "--model", "large"]).await.exits(0);
    let turns = (0..1_200).map(|n| {
        let role = [Role::User, Role::Assistant][n % 2];
        let text = format!("Turn {n}: the parser reads rule {n} of the grammar, and nothing else.");
        said(role, &text)
    });
    client.append_entries(&s, turns.collect(), None).await.unwrap();
    let mut large = broker.agent("large-1", &["large"]).await;
    let mut small = broker.agent("small-1", &["small"]).await;
    let consult = ["consult", "--session", "s", "--question", "What does rule 200 say?"];
    let consult = [&consult[..], &["--output", "json"]].concat();
    let bytes = |delivery: &broker_proto::Delivery| -> u64 {
        delivery.message.payload.parts().map(Part::inline_bytes).sum()
    };

    let work = async {
        let first = large.next().await;
        assert!(bytes(first.delivery()) > 24_000, "{}", bytes(first.delivery()));
        first.fail(FailureClass::QuotaExhausted).await;
        let second = small.next().await;
        // About 4 bytes a token; all of it is over 80,000.
        let size = bytes(second.delivery());
        assert!((4_000..32_000).contains(&size), "{size}");
        assert!(second.question().contains("What does rule 200 say?"));
        let context: Vec<Part> = second
            .delivery()
            .message
            .payload
            .context
            .iter()
            .flat_map(|entry| entry.parts.clone())
            .collect();
        let holds = |text: &str| {
            context.iter().any(|part| matches!(part, Part::Text(said) if said.contains(text)))
        };
        assert!(holds("Turn 200:") && holds("Turn 1199:"));
        second.answer("It reads rule 200.").await;
    };
    let (asked, ()) = tokio::join!(broker.run(&consult), work);

    let asked = asked.exits(0);
    let json = asked.json();
    assert_eq!(json["model"], "small");
    let shortened = json["shortened"].as_str().unwrap();
    assert!(
        shortened.starts_with("the session's history was made shorter for small: of 1200 entries "),
        "{shortened}"
    );
    assert!(asked.stderr.contains(shortened), "{asked:?}");
    // Both sides are in the session as they were said.
    let head = client.session(&s, &SessionPoint::Head).await.unwrap().info.head;
    assert_eq!(head.entries, 1_202);
}
