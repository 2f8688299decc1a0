//! Packages from the street: saved, loaded, carried to another broker, and every way to be refused.

use std::{fs, path::Path};

use broker_client::{EventItem, NewSession};
use broker_proto::{
    Entry, EntryKind, EventFilter, EventStart, Message, ModelName, NewPackage, NewSessionEntry,
    PackageFilter, PackageId, PackageKey, Part, Priority, Recipient, RenderAsk, Role, SessionId,
    SessionPoint, SharedValue, TaskEdit, TaskList, TaskSpec, WallTime,
};
use broker_tests::{
    Output, Place, Program, TestBroker, brokerctl, eventually, new_id, repository, within,
};
use futures::StreamExt as _;
use serde_json::{Value, json};

const TASK: &str = "Port the parser";

async fn save(broker: &TestBroker, more: &[&str]) -> String {
    let args = [&["handoff", "save", "--task", TASK], more].concat();
    broker.run(&args).await.exits(0).stdout.trim().to_owned()
}

async fn json_of(broker: &TestBroker, args: &[&str]) -> Value {
    let args = [&["handoff"], args, &["--output", "json"]].concat();
    broker.run(&args).await.exits(0).json()
}

async fn load(broker: &TestBroker, args: &[&str]) -> Output {
    broker.run(&[&["handoff", "load"], args].concat()).await
}

fn ids(list: &Value) -> Vec<&str> {
    let packages = list["packages"].as_array().unwrap();
    packages.iter().map(|package| package["id"].as_str().unwrap()).collect()
}

/// A file with a package in it, out of this broker.
async fn exported(broker: &TestBroker, id: &str, folder: &Path) -> String {
    let file = folder.join("work.pkg").to_str().unwrap().to_owned();
    broker.run(&["handoff", "export", id, "--file", &file]).await.exits(0);
    file
}

/// Makes `to` take what `from` signs.
async fn trusts(to: &TestBroker, from: &TestBroker) {
    let keys = json_of(from, &["trust", "list"]).await;
    let key = keys["keys"][0]["key"].as_str().unwrap().to_owned();
    to.run(&["handoff", "trust", "add", "other", &key]).await.exits(0);
}

#[tokio::test]
async fn what_is_saved_without_session_or_model_is_loaded_as_the_schema_says() {
    let broker = TestBroker::start().await;
    let id = save(
        &broker,
        &[
            "--files",
            "src/parse.rs",
            "src/lex.rs",
            "--steps",
            "Read the grammar",
            "Port lists",
            "--project",
            "parser",
            "--phase",
            "analysis",
            "--target-phase",
            "synthesis",
            "--step",
            "2",
            "--total-steps",
            "5",
            "--status",
            "error",
            "--resume-point",
            "lists",
            "--queue",
            "docs:high:Write the docs",
            "tests",
            "--work",
            "t0",
            "--progress",
            "50%",
            "--done",
            "outline",
            "--next",
            "module two",
            "--tokens",
            "160000",
            "--context",
            r#"{"branch":"port"}"#,
            "--pipeline-version",
            "2.1",
            "--constraints",
            "No new crates",
        ],
    )
    .await;

    let document = load(&broker, &[]).await.exits(0).json();

    assert_eq!(document["id"], json!(id));
    let want = [
        ("/task", json!(TASK)),
        ("/reason", json!("manual_save")),
        ("/project", json!("parser")),
        ("/source_phase", json!("analysis")),
        ("/target_phase", json!("synthesis")),
        ("/created_by", json!("local")),
        ("/source_model", Value::Null),
        ("/pipeline_version", json!("2.1")),
        ("/files", json!(["src/parse.rs", "src/lex.rs"])),
        ("/next_steps", json!(["Read the grammar", "Port lists"])),
        ("/checkpoint/status", json!("error")),
        ("/checkpoint/total_steps", json!(5)),
        ("/task_queue/0/description", json!("Write the docs")),
        ("/task_queue/1", json!({"id": "tests", "priority": "normal", "description": ""})),
        ("/current_work/completed_subtasks", json!(["outline"])),
        ("/token_usage/percentage_used", json!(80.0)),
        ("/token_usage/warning_threshold", json!(150_000)),
        ("/context", json!({"branch": "port"})),
        ("/integrity/valid", json!(true)),
        ("/integrity/signer_name", json!("self")),
        ("/session_id", Value::Null),
    ];
    for (path, want) in want {
        assert_eq!(document.pointer(path), Some(&want), "{path}");
    }
    let by_id = load(&broker, &[&id, "--output", "json"]).await.exits(0).json();
    assert_eq!(by_id["resumption_instructions"], document["resumption_instructions"]);
    holds_to_the_schema(&document);
    holds_to_the_schema(&example());
}

fn example() -> Value {
    let path = repository().join("docs/schema/examples/handoff-package.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[track_caller]
fn holds_to_the_schema(document: &Value) {
    let path = repository().join("docs/schema/handoff-package.schema.json");
    let schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    let validator = options.build(&schema).unwrap();
    let problems: Vec<String> = validator
        .iter_errors(document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{problems:#?}");
    // It describes everything there is: whatever is taken away is missed.
    for key in document.as_object().unwrap().keys() {
        let mut less = document.clone();
        less.as_object_mut().unwrap().remove(key);
        assert!(!validator.is_valid(&less), "{key}");
    }
}

#[tokio::test]
async fn a_package_and_the_keys_survive_a_restart() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let id = save(&broker, &[]).await;
    let gone = save(&broker, &[]).await;
    broker.run(&["handoff", "delete", &gone]).await.exits(0);
    let other = TestBroker::start().await;
    trusts(&broker, &other).await;
    let before = load(&broker, &[]).await.exits(0).json();
    let keys = json_of(&broker, &["trust", "list"]).await;

    broker.restart().await;

    let after = load(&broker, &[]).await.exits(0).json();
    assert_eq!(
        (&after["id"], &after["integrity"]["checksum"]),
        (&json!(id), &before["integrity"]["checksum"])
    );
    assert_eq!(ids(&json_of(&broker, &["list"]).await), [id.as_str()]);
    assert_eq!(json_of(&broker, &["trust", "list"]).await, keys);
    assert_eq!(keys["keys"][1]["name"], "other");
    load(&broker, &[&gone]).await.exits(3);
    let key = broker.data_dir().join("package.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_list_is_filtered_and_paged() {
    let broker = TestBroker::start().await;
    let first =
        save(&broker, &["--project", "a", "--to", "opus", "--reason", "user-requested"]).await;
    let second = save(&broker, &["--project", "b", "--session", "s1"]).await;
    let third = save(&broker, &["--project", "b", "--ttl", "1ms"]).await;

    let list = async |more: &[&str]| json_of(&broker, &[&["list"], more].concat()).await;
    let all = list(&[]).await;
    assert_eq!(ids(&all), [&third, &second, &first]);
    // `local` is who calls, and a model too: nothing was made by or for that one.
    assert_eq!(ids(&list(&["--model", "local"]).await), Vec::<&str>::new());
    let shown = &all["packages"][2];
    assert_eq!(
        [&shown["task"], &shown["reason"], &shown["expired"]],
        [&json!(TASK), &json!("user-requested"), &json!(false)]
    );
    assert!(shown["tokens"].as_u64().unwrap() > 0 && shown["time"].is_string(), "{shown}");
    assert_eq!(ids(&list(&["--project", "b"]).await), [&third, &second]);
    assert_eq!(ids(&list(&["--model", "opus"]).await), [&first]);
    assert_eq!(ids(&list(&["--session", "s1"]).await), [&second]);
    assert_eq!(ids(&list(&["--active"]).await), [&second, &first]);
    assert_eq!(ids(&list(&["--expired"]).await), [&third]);
    assert_eq!(ids(&list(&["--created-after", "1h"]).await).len(), 3);
    assert_eq!(ids(&list(&["--created-after", "2100-01-01"]).await).len(), 0);
    let page = list(&["--limit", "2"]).await;
    let next = page["next_page_token"].as_str().unwrap();
    assert_eq!(ids(&list(&["--limit", "2", "--page", next]).await), [&first]);
    let table = broker.run(&["handoff", "list"]).await.exits(0).stdout;
    assert!(table.contains(&first) && table.contains("user-requested"), "{table}");

    // The newest that has not expired.
    assert_eq!(load(&broker, &[]).await.exits(0).json()["id"], json!(second));
    let refused = load(&broker, &[&third]).await.exits(6);
    assert!(refused.stderr.contains("PACKAGE_EXPIRED"), "{refused:?}");
    let shown = json_of(&broker, &["show", &third]).await;
    assert_eq!(shown["integrity"]["problem"], "PACKAGE_EXPIRED");
    broker.run(&["handoff", "report", &third]).await.exits(0);
}

#[tokio::test]
async fn what_is_not_there_or_not_meant_is_refused_with_its_code() {
    let broker = TestBroker::start().await;
    load(&broker, &[]).await.exits(3);
    broker.run(&["handoff", "save"]).await.exits(2);
    broker.run(&["handoff", "save", "--task", "  "]).await.exits(2);
    for more in [
        &["--context", "[1]"][..],
        &["--context", "{"],
        &["--to", "nobody"],
        &["--status", "fine"],
        &["--step", "3", "--total-steps", "2"],
        &["--ttl", "0s"],
        &["--ttl", "1000y"],
        &["--session", "../s"],
    ] {
        let args = [&["handoff", "save", "--task", TASK], more].concat();
        let refused = broker.run(&args).await;
        assert!([2, 3].contains(&refused.code) && !refused.stderr.is_empty(), "{refused:?}");
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let program = brokerctl(&broker.endpoint());
    let args = ["handoff", "save", "--task", TASK, "--context-file", "-"];
    program.args(&args).stdin(deep).output().await.exits(2);
    // What is taken can be given out again, a few levels deeper.
    let nested =
        |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    let save_it = ["handoff", "save", "--task", TASK, "--context"];
    let refused = broker.run(&[&save_it[..], &[&nested(101)]].concat()).await.exits(2);
    assert!(refused.stderr.contains("deeper than 100 levels"), "{refused:?}");
    let id = broker.run(&[&save_it[..], &[&nested(100)]].concat()).await.exits(0).stdout;
    load(&broker, &[id.trim()]).await.exits(0);
    broker.run(&["handoff", "delete", id.trim()]).await.exits(0);
    let nobody = "01JD3Q8ZK5T0V9Y2X4W6R8P1NB";
    for verb in ["load", "show", "delete", "report"] {
        broker.run(&["handoff", verb, nobody]).await.exits(3);
        broker.run(&["handoff", verb, "../../etc/passwd"]).await.exits(2);
    }
    broker.run(&["handoff", "verify", "/nowhere/x.pkg"]).await.exits(3);
    assert_eq!(ids(&json_of(&broker, &["list"]).await), Vec::<&str>::new());
}

#[tokio::test]
async fn a_package_goes_to_another_broker_once() {
    let (here, there) = (TestBroker::start().await, TestBroker::start().await);
    let folder = tempfile::tempdir().unwrap();
    let id = save(&here, &["--steps", "Read the grammar"]).await;
    let file = exported(&here, &id, folder.path()).await;
    here.run(&["handoff", "verify", &file]).await.exits(0);

    let refused = there.run(&["handoff", "verify", &file]).await.exits(6);
    assert!(refused.stderr.contains("PACKAGE_UNKNOWN_KEY"), "{refused:?}");
    there.run(&["handoff", "import", &file]).await.exits(6);
    trusts(&there, &here).await;
    there.run(&["handoff", "verify", &file]).await.exits(0);
    assert_eq!(there.run(&["handoff", "import", &file]).await.exits(0).stdout.trim(), id);

    let document = load(&there, &[&id]).await.exits(0).json();
    assert_eq!(document["next_steps"], json!(["Read the grammar"]));
    assert_eq!(document["integrity"]["signer_name"], "other");
    let again = there.run(&["handoff", "import", &file, "--output", "json"]).await.exits(6);
    assert_eq!(again.json()["error"]["reason"], "PACKAGE_REPLAYED");
    there.run(&["handoff", "delete", &id]).await.exits(0);
    there.run(&["handoff", "import", &file]).await.exits(6);
    let again = there.run(&["handoff", "verify", &file]).await.exits(6);
    assert!(again.stderr.contains("PACKAGE_REPLAYED"), "{again:?}");

    // What was made here and deleted may come back from its file.
    here.run(&["handoff", "import", &file]).await.exits(6);
    here.run(&["handoff", "delete", &id]).await.exits(0);
    here.run(&["handoff", "import", &file]).await.exits(0);
}

#[tokio::test]
async fn a_key_that_is_trusted_no_more_opens_nothing() {
    let (here, there) = (TestBroker::start().await, TestBroker::start().await);
    let folder = tempfile::tempdir().unwrap();
    let id = save(&here, &[]).await;
    let file = exported(&here, &id, folder.path()).await;
    trusts(&there, &here).await;
    there.run(&["handoff", "import", &file]).await.exits(0);

    there.run(&["handoff", "trust", "remove", "other"]).await.exits(0);

    let refused = load(&there, &[&id]).await.exits(6);
    assert!(refused.stderr.contains("PACKAGE_UNKNOWN_KEY"), "{refused:?}");
    there.run(&["handoff", "trust", "remove", "other"]).await.exits(3);
    let weak = format!("ed25519:{}", "0".repeat(64));
    there.run(&["handoff", "trust", "add", "weak", &weak]).await.exits(2);
    there.run(&["handoff", "trust", "add", "self", &weak]).await.exits(2);
    there.run(&["handoff", "trust", "add", "short", "ed25519:00"]).await.exits(2);
}

#[tokio::test]
async fn a_file_with_one_byte_changed_is_refused_wherever_it_is() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let id = save(&broker, &[]).await;
    let file = client.export_package(PackageId::parse(&id).unwrap()).await.unwrap();
    client.verify_package(file.clone().into()).await.unwrap();
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 0x10;
        let refused = client.verify_package(changed.into()).await.unwrap_err();
        let reason = refused.reason().unwrap_or_default().to_owned();
        assert!(reason.starts_with("PACKAGE_"), "byte {at}: {refused}");
    }
    // The command says so, too, and nothing of it is kept.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.pkg");
    let mut changed = file.clone();
    *changed.last_mut().unwrap() ^= 1;
    for (bytes, reason) in [
        (changed, "PACKAGE_DAMAGED"),
        (b"no package".to_vec(), "PACKAGE_MALFORMED"),
        (Vec::new(), "PACKAGE_MALFORMED"),
        (vec![0; (65 << 20) + 1], "PACKAGE_TOO_LARGE"),
    ] {
        fs::write(&path, bytes).unwrap();
        for verb in ["verify", "import"] {
            let refused = broker.run(&["handoff", verb, path.to_str().unwrap()]).await.exits(6);
            assert!(refused.stderr.contains(reason), "{verb} {refused:?}");
        }
    }
    assert_eq!(ids(&json_of(&broker, &["list"]).await), [id.as_str()]);
}

/// A recipient that this broker does not have; the other models of both are the same.
#[tokio::test]
async fn a_package_for_a_model_that_is_not_here_is_refused() {
    let models = "[[models]]\nname = \"mine\"\nprovider = \"openai\"\nid = \"x\"\n";
    let here = TestBroker::with(Place::Memory, models).await;
    let there = TestBroker::start().await;
    let folder = tempfile::tempdir().unwrap();
    let id = save(&here, &["--to", "mine"]).await;
    let file = exported(&here, &id, folder.path()).await;
    trusts(&there, &here).await;
    let refused = there.run(&["handoff", "import", &file]).await.exits(6);
    assert!(refused.stderr.contains("PACKAGE_RECIPIENT"), "{refused:?}");
}

#[tokio::test]
async fn a_large_package_travels_in_pieces() {
    let (here, there) = (TestBroker::start().await, TestBroker::start().await);
    trusts(&there, &here).await;
    let folder = tempfile::tempdir().unwrap();
    // Digits that do not repeat, so that it stays large when it is packed.
    let mut state = 7_u64;
    let digits: String = (0..200_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            format!("{:08x}", state >> 32)
        })
        .collect();
    let context = json!({ "digits": digits }).to_string();
    let path = folder.path().join("context.json");
    fs::write(&path, context.as_bytes()).unwrap();
    // More than a frame holds goes up by its hash, and more than is taken is refused by name.
    let most = format!("{{\"a\":\"{}\"}}", "b".repeat(4 << 20));
    let save_it = ["handoff", "save", "--task", TASK, "--context-file", "-"];
    let refused = brokerctl(&here.endpoint()).args(&save_it).stdin(most.clone()).output().await;
    assert!(refused.exits(2).stderr.contains("the context is larger than 4 MiB"));
    let mut new = NewPackage { reason: "r".into(), ..NewPackage::default() };
    (new.contents.task.goal, new.contents.context) = (TASK.into(), most);
    let refused = here.client().save_package(new.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("larger than 4 MiB"), "{refused}");
    new.contents.context = "x".repeat(9 << 20);
    let refused = here.client().save_package(new).await.unwrap_err();
    assert!(refused.to_string().contains("4 MiB"), "{refused}");
    let id = save(&here, &["--context-file", path.to_str().unwrap()]).await;
    let file = exported(&here, &id, folder.path()).await;
    assert!(fs::metadata(&file).unwrap().len() > 400 << 10);
    there.run(&["handoff", "import", &file]).await.exits(0);
    let document = there.client().load_package(None, PackageFilter::default()).await.unwrap();
    assert!(document.contains(&digits[..1000]));
}

#[tokio::test]
async fn a_report_is_plain_or_as_a_template_says() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("ours.md");
    fs::write(&template, "House: {task}\n").unwrap();
    let settings = format!("[packages]\nreport_template = \"{}\"\n", template.display());
    let broker = TestBroker::with(Place::Memory, &settings).await;
    let id = save(&broker, &["--steps", "Read the grammar"]).await;
    let report = async |more: &[&str]| {
        broker.run(&[&["handoff", "report", &id], more].concat()).await.exits(0)
    };
    assert_eq!(report(&[]).await.stdout, format!("House: {TASK}\n"));
    let own = folder.path().join("own.md");
    let own = own.to_str().unwrap();
    fs::write(own, "Next: {next_steps}{\"a\": 1}\n").unwrap();
    assert_eq!(
        report(&["--template", own]).await.stdout,
        "Next: 1. Read the grammar\n{\"a\": 1}\n"
    );
    fs::write(own, "{tsak}").unwrap();
    let plain = report(&["--template", own]).await;
    assert!(plain.stderr.contains("{tsak}") && plain.stdout.contains("## Next steps"), "{plain:?}");
    let plain = report(&["--template", "/nowhere.md"]).await;
    assert!(plain.stderr.contains("/nowhere.md"), "{plain:?}");
    for word in ["# Port the parser", "1. Read the grammar", "## What was dropped", "## Integrity"]
    {
        assert!(plain.stdout.contains(word), "{word} in {}", plain.stdout);
    }
    fs::remove_file(&template).unwrap();
    let fallback = report(&[]).await;
    assert!(
        fallback.stderr.contains("ours.md") && fallback.stdout.contains("## Files"),
        "{fallback:?}"
    );
}

#[tokio::test]
async fn packages_go_through_pipes_and_tasks_come_from_them() {
    let (here, there) = (TestBroker::start().await, TestBroker::start().await);
    trusts(&there, &here).await;
    let program = brokerctl(&here.endpoint()).args(&["handoff", "save", "--task", "-"]);
    let id = program.stdin("From a pipe\n").output().await.exits(0).stdout;
    let document = load(&here, &[]).await.exits(0).json();
    assert_eq!(
        (&document["task"], document["id"].as_str().unwrap()),
        (&json!("From a pipe"), id.trim())
    );
    let key = here.client().trusted_keys().await.unwrap()[0].key;
    assert_eq!(PackageKey::parse(&key.to_string()), Ok(key));
    let file = here.client().export_package(PackageId::parse(id.trim()).unwrap()).await.unwrap();
    let import: Program = brokerctl(&there.endpoint()).args(&["handoff", "import", "-"]);
    import.stdin(file).output().await.exits(0);
}

fn turn(role: Role, text: String) -> NewSessionEntry {
    let entry = Entry { role, name: String::new(), parts: vec![Part::Text(text)] };
    NewSessionEntry { kind: EntryKind::Turn, entry, model: None, created_at: None }
}

/// Small talk with one fact in it, a goal, a step and a shared value.
async fn talk(broker: &TestBroker, id: &str) -> SessionId {
    let client = broker.client();
    let named = SessionId::parse(id).ok();
    let id = client.start_session(NewSession { id: named, ..NewSession::default() }).await;
    let id = id.unwrap().id;
    let line = |n: usize| match n {
        40 => "The staging database listens on port 6543 behind the proxy.".to_owned(),
        n => format!("Small talk number {n}, nothing more."),
    };
    let turns = (0..300).map(|n| turn([Role::User, Role::Assistant][n % 2], line(n)));
    client.append_entries(&id, turns.collect(), None).await.unwrap();
    let add = |list, text: &str| TaskEdit::Add { list, text: text.into(), entry: None };
    let edits = vec![
        TaskEdit::SetGoal("Move the staging database".into()),
        TaskEdit::SetProgress(0.5),
        add(TaskList::Decisions, "PostgreSQL stays on 13"),
        add(TaskList::NextSteps, "Find the port of the staging database"),
    ];
    client.edit_session_task(&id, edits).await.unwrap();
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let value = |key: &str, value: String| SharedValue {
        key: key.into(),
        value,
        source: "opus".into(),
        tags: vec!["infra".into()],
        set_at: WallTime(0),
    };
    let host = json!({"name": "db1"}).to_string();
    client.set_shared_value(&id, value("host", host)).await.unwrap();
    client.set_shared_value(&id, value("nested", deep)).await.unwrap();
    id
}

#[tokio::test]
async fn a_session_is_packed_for_its_receiver_at_each_level() {
    let broker = TestBroker::start().await;
    let id = talk(&broker, "s1").await;
    for (level, most) in [("minimal", 500), ("standard", 1_200), ("full", 2_000)] {
        let prepare = ["prepare", "--session", "s1", "--to", "sonnet", "--preserve", level];
        let made = json_of(&broker, &prepare).await;
        assert_eq!(made["preservation_level"], json!(level));
        let document = load(&broker, &[made["id"].as_str().unwrap()]).await.exits(0).json();
        holds_to_the_schema(&document);
        let talk = &document["conversation_history"];
        assert!(talk["text"].as_str().unwrap().contains("port 6543"), "{level}");
        assert!(talk["tokens"].as_u64().unwrap() <= most, "{level}: {}", talk["tokens"]);
        let count = |list: &str| talk[list].as_array().unwrap().len();
        assert_eq!(count("kept") + count("partly") + count("dropped"), 300, "{level}");
        let want = [
            ("/session_id", json!("s1")),
            ("/reason", json!("user_request")),
            ("/target_model", json!("sonnet")),
            ("/task", json!("Move the staging database")),
            ("/next_steps/0", json!("Find the port of the staging database")),
            ("/current_task/decisions/0/text", json!("PostgreSQL stays on 13")),
            ("/checkpoint/resume_point", json!("Find the port of the staging database")),
            ("/current_work/progress", json!("50%")),
            ("/shared_context/0/value", json!({"name": "db1"})),
            ("/shared_context/0/source", json!("opus")),
            ("/shared_context/0/tags", json!(["infra"])),
            ("/conversation_history/through", json!(299)),
            ("/credit_state/rate_limit_count", json!(0)),
        ];
        for (path, want) in want {
            assert_eq!(document.pointer(path), Some(&want), "{level} {path}");
        }
        assert!(document["token_usage"]["total_tokens"].as_u64().unwrap() > 0);
        let report = broker.run(&["handoff", "report", made["id"].as_str().unwrap()]).await;
        assert!(report.exits(0).stdout.contains("Entries dropped: "), "{level}");
    }
    let said = broker.run(&["handoff", "prepare", "--session", "s1", "--to", "sonnet"]).await;
    let said = said.exits(0).stdout;
    assert!(said.contains(" bytes, about ") && said.contains("ready for sonnet"), "{said}");
    // The session stays as it is.
    let detail = broker.client().session(&id, &SessionPoint::Head).await.unwrap();
    assert_eq!(detail.info.head.entries, 300);

    for (args, code) in [
        (&["--session", "s9", "--to", "sonnet"][..], 3),
        (&["--session", "s1", "--to", "nobody"], 3),
        (&["--session", "s1"], 2),
        (&["--session", "s1", "--to", "sonnet", "--preserve", "most"], 2),
    ] {
        broker.run(&[&["handoff", "prepare"], args].concat()).await.exits(code);
    }
    let tight = ["handoff", "prepare", "--session", "s1", "--to", "sonnet", "--budget", "32"];
    let refused = broker.run(&tight).await.exits(1);
    assert!(refused.stderr.contains("TOKEN_BUDGET"), "{refused:?}");
    let listed = broker.run(&[&tight[..], &["--allow-missing", "--output", "json"]].concat()).await;
    let id = listed.exits(0).json()["id"].as_str().unwrap().to_owned();
    let document = load(&broker, &[&id]).await.exits(0).json();
    assert_ne!(document["conversation_history"]["must_keep_missing"], json!([]));
}

/// What waits or runs for the session goes along, and its figures are shares of its owner's own window.
#[tokio::test]
async fn what_waits_for_a_session_is_in_its_package() {
    let smaller = "[[models]]\nname = \"gpt-4o\"\nprovider = \"openai\"\nid = \"gpt-4o\"\ncontext_window = 128_000\n";
    let settings = format!("{}\n{smaller}", broker_tests::MODELS);
    let broker = TestBroker::with(Place::Memory, &settings).await;
    let client = broker.client();
    let session = NewSession {
        id: SessionId::parse("s1").ok(),
        model: ModelName::parse("gpt-4o").ok(),
        ..NewSession::default()
    };
    let id = client.start_session(session).await.unwrap().id;
    client.append_entries(&id, vec![turn(Role::User, "Begin".into())], None).await.unwrap();
    let model = Recipient::Model(ModelName::parse("opus").unwrap());
    let of = |session: &str, message| Message { session: Some(session.to_owned()), ..message };
    let task = |text: &str| {
        let spec = TaskSpec { description: text.into(), ..TaskSpec::default() };
        Message::delegation(new_id(), model.clone(), spec)
    };
    let first = of("s1", task("Port the lists\nAll of them"));
    let urgent = of("s1", Message { priority: Priority::Urgent, ..task("Write the docs") });
    let elsewhere = of("s2", task("Something else"));
    for message in [first.clone(), urgent.clone(), elsewhere, task("Nobody's")] {
        client.delegate(message, false).await.unwrap();
    }
    let words = ["prepare", "--session", "s1", "--to", "sonnet", "--phase", "analysis"];
    let place =
        ["--step", "2", "--total-steps", "5", "--status", "error", "--resume-point", "lists"];
    let made = json_of(&broker, &[&words[..], &place].concat()).await;

    let document = load(&broker, &[made["id"].as_str().unwrap()]).await.exits(0).json();
    holds_to_the_schema(&document);
    let queued = |message: &Message, priority: &str, text: &str| {
        let description = format!("delegation to model/opus, submitted: {text}");
        json!({ "id": message.id.to_string(), "priority": priority, "description": description })
    };
    let want =
        [queued(&urgent, "urgent", "Write the docs"), queued(&first, "normal", "Port the lists")];
    assert_eq!(document["task_queue"], json!(want));
    assert_eq!(document["task_queue_left_out"], json!(0));
    let place = json!({
        "phase": "analysis", "step": 2, "total_steps": 5, "status": "error", "resume_point": "lists",
    });
    assert_eq!(document["checkpoint"], place);
    assert_eq!(document["token_usage"]["warning_threshold"], json!(96_000));
    assert_eq!(document["token_usage"]["auto_switch_threshold"], json!(115_200));
    let instructions = document["resumption_instructions"].as_str().unwrap();
    assert!(instructions.contains("Write the docs (urgent)"), "{instructions}");

    // What is beyond the bound is counted; what is finished is not there.
    client.cancel_task(urgent.id).await.unwrap();
    for number in 0..100 {
        client.delegate(of("s1", task(&format!("Step {number}"))), false).await.unwrap();
    }
    let made = json_of(&broker, &words).await;
    let document = load(&broker, &[made["id"].as_str().unwrap()]).await.exits(0).json();
    let queue = document["task_queue"].as_array().unwrap();
    assert_eq!((queue.len(), &document["task_queue_left_out"]), (100, &json!(1)));
    assert!(queue.iter().all(|task| task["id"] != json!(urgent.id.to_string())));
}

/// The manifest and the conversation agree, because one tokenizer counted both; and a package is smaller on its way.
#[tokio::test]
async fn a_package_is_counted_by_its_receivers_tokenizer_and_compressed_when_it_leaves() {
    let other = "[[models]]\nname = \"gpt-4o\"\nprovider = \"openai\"\nid = \"gpt-4o\"\n";
    let settings = format!("{}\n{other}", broker_tests::MODELS);
    let broker = TestBroker::with(Place::Memory, &settings).await;
    talk(&broker, "s1").await;
    for (model, tokenizer) in
        [("gpt-4o", "o200k_base"), ("sonnet", "estimated at 3.0 bytes per token")]
    {
        let made = json_of(&broker, &["prepare", "--session", "s1", "--to", model]).await;
        assert_eq!(made["tokens_are"], tokenizer);
        let id = made["id"].as_str().unwrap();
        let document = load(&broker, &[id]).await.exits(0).json();
        assert_eq!(document["manifest"]["tokens_are"], tokenizer);
        assert_eq!(document["conversation_history"]["tokenizer"], tokenizer);
        let parts = document["manifest"]["parts"].as_array().unwrap();
        let text = parts.iter().find(|part| part["name"] == "conversation_text").unwrap();
        assert_eq!(text["tokens"], document["conversation_history"]["tokens"], "{model}");
        let counted: u64 = parts.iter().map(|part| part["tokens"].as_u64().unwrap()).sum();
        assert_eq!([&made["tokens"], &document["manifest"]["tokens"]], [counted, counted]);

        let file = broker.client().export_package(PackageId::parse(id).unwrap()).await.unwrap();
        let kept = made["size_bytes"].as_u64().unwrap();
        assert!(file.len() as u64 * 2 < kept, "{} of {kept}", file.len());
        let verified = broker.client().verify_package(file.into()).await.unwrap();
        assert_eq!(
            verified.checksum,
            broker.client().package(verified.header.id).await.unwrap().checksum
        );
    }
}

#[tokio::test]
async fn a_package_becomes_a_session_elsewhere() {
    let (here, there) = (TestBroker::start().await, TestBroker::start().await);
    trusts(&there, &here).await;
    talk(&here, "s1").await;
    let prepare = ["prepare", "--session", "s1", "--to", "sonnet", "--preserve", "standard"];
    let id = json_of(&here, &prepare).await["id"].as_str().unwrap().to_owned();
    let file = here.client().export_package(PackageId::parse(&id).unwrap()).await.unwrap();
    there.client().import_package(file.into()).await.unwrap();

    let restored = json_of(&there, &["restore", &id]).await;

    assert_eq!((&restored["outcome"], &restored["id"]), (&json!("done"), &json!("s1")));
    let s1 = SessionId::parse("s1").unwrap();
    let detail = there.client().session(&s1, &SessionPoint::Head).await.unwrap();
    assert_eq!((detail.info.head.entries, detail.info.owner.model.as_str()), (1, "sonnet"));
    // Entry, task and values came in one commit.
    assert_eq!(detail.info.version, 1);
    assert_eq!(detail.task.goal, "Move the staging database");
    assert_eq!(detail.task.decisions[0].text, "PostgreSQL stays on 13");
    let value = &detail.shared[0];
    assert_eq!((value.source.as_str(), &value.tags[..]), ("opus", &["infra".to_owned()][..]));
    let rendered = there
        .client()
        .render_session(&s1, &SessionPoint::Head, RenderAsk::default())
        .await
        .unwrap();
    assert!(rendered.text.contains("port 6543"), "{}", rendered.text);
    // A second time there is nothing to do.
    assert_eq!(json_of(&there, &["restore", &id]).await["outcome"], "unchanged");
}

#[tokio::test]
async fn a_package_is_never_mixed_with_a_session_that_went_on() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let s1 = talk(&broker, "s1").await;
    let prepare = ["prepare", "--session", "s1", "--to", "sonnet", "--preserve", "standard"];
    let id = json_of(&broker, &prepare).await["id"].as_str().unwrap().to_owned();
    assert_eq!(json_of(&broker, &["restore", &id]).await["outcome"], "unchanged");
    let news = vec![turn(Role::User, "And one more thing.".into())];
    client.append_entries(&s1, news, None).await.unwrap();
    let entries = async |id: &str| {
        let id = SessionId::parse(id).unwrap();
        client.session(&id, &SessionPoint::Head).await.unwrap().info.head.entries
    };

    let refused = broker.run(&["handoff", "restore", &id, "--output", "json"]).await;
    let refused = refused.exits(1).json();
    assert_eq!(refused["error"]["reason"], "SESSION_CONFLICT");
    let named = &refused["error"]["metadata"];
    assert!(named["head"].is_string() && named["other_head"].is_string(), "{refused}");
    assert_eq!(entries("s1").await, 301);

    let with = async |choice: &[&str]| {
        let args = [&["restore", &id, "--on-conflict"], choice].concat();
        json_of(&broker, &args).await["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!((with(&["keep"]).await, entries("s1").await), ("kept".into(), 301));
    assert_eq!(with(&["fork", "--as", "s2"]).await, "forked");
    assert_eq!((entries("s1").await, entries("s2").await), (301, 1));
    assert_eq!((with(&["replace"]).await, entries("s1").await), ("replaced".into(), 1));
    // What it had is reachable by its version.
    let versions = client.session_versions(&s1, 50, None).await.unwrap().items;
    let mut had = Vec::new();
    for version in versions {
        let at = SessionPoint::Version(version.version);
        had.push(client.session(&s1, &at).await.unwrap().info.head.entries);
    }
    assert!(had.contains(&301), "{had:?}");
}

/// Work that goes to and fro, packed and taken each time.
#[tokio::test]
async fn work_goes_through_eight_handoffs_and_no_more() {
    let brokers = [TestBroker::start().await, TestBroker::start().await];
    trusts(&brokers[0], &brokers[1]).await;
    trusts(&brokers[1], &brokers[0]).await;
    for broker in &brokers {
        talk(broker, "s1").await;
    }
    let prepare = ["prepare", "--session", "s1", "--to", "sonnet", "--preserve", "minimal"];
    for hops in 0..=8 {
        let (from, to) = (&brokers[hops % 2], &brokers[(hops + 1) % 2]);
        let made = json_of(from, &prepare).await;
        assert_eq!(made["hops"], json!(hops));
        let id = PackageId::parse(made["id"].as_str().unwrap()).unwrap();
        let file = from.client().export_package(id).await.unwrap();
        to.client().import_package(file.into()).await.unwrap();
    }
    let refused = brokers[1].run(&[&["handoff"], &prepare[..]].concat()).await.exits(6);
    assert!(refused.stderr.contains("PACKAGE_HOPS"), "{refused:?}");
}

/// Its subject is content: a subscriber sees ids, ends and sizes.
#[tokio::test]
async fn events_tell_of_packages_and_not_of_what_they_are_about() {
    let broker = TestBroker::start().await;
    let id = save(&broker, &[]).await;
    broker.run(&["handoff", "delete", &id]).await.exits(0);
    let mut events =
        broker.client().subscribe(EventStart::First, EventFilter::default()).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 2 {
        let item = within("an event", events.next()).await.unwrap().unwrap();
        if let EventItem::Event { event, .. } = item {
            told.push(event);
        }
    }
    let kinds: Vec<&str> = told.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["package_saved", "package_deleted"]);
    assert!(told[0].detail.contains(&id) && !told[0].detail.contains(TASK), "{told:?}");
}

#[tokio::test]
async fn a_session_near_its_limit_finds_a_package_ready_for_the_next_model() {
    let broker = TestBroker::start().await;
    broker.run(&["session", "new", "near", "--model", "opus"]).await.exits(0);
    let said = ["session", "append", "--session", "near", "--role", "user", "We port the parser."];
    broker.run(&said).await.exits(0);
    let window = broker.run(&["usage", "status", "--session", "near", "--output", "json"]).await;
    let window = window.exits(0).json()["sessions"][0]["context_window"].as_u64().unwrap();
    let record = async |tokens: u64| {
        let tokens = tokens.to_string();
        let args = ["usage", "record", "tokens", "--model", "opus", "--session", "near"];
        let counts = ["--input", &tokens, "--output", "0"];
        broker.run(&[&args[..], &counts].concat()).await.exits(0);
    };

    // At 80 % it is only said.
    record(window * 80 / 100).await;
    assert_eq!(json_of(&broker, &["list"]).await["packages"], json!([]));
    record(window * 6 / 100).await;

    let package = eventually("a package", async || {
        json_of(&broker, &["list", "--session", "near"]).await["packages"].get(0).cloned()
    });
    let package = package.await;
    assert_eq!(package["target_model"], "sonnet");
    let reason = package["reason"].as_str().unwrap();
    assert!(reason.starts_with("usage_limit: "), "{reason}");
    let loaded = load(&broker, &[package["id"].as_str().unwrap()]).await.exits(0).json();
    assert!(
        loaded["conversation_history"]["text"].as_str().unwrap().contains("We port the parser.")
    );
}
