//! What `brokerctl doctor` says of handoffs: that all is well, and each of the four things that go wrong.

use broker_client::NewSession;
use broker_proto::{Entry, EntryKind, ModelName, NewSessionEntry, Part, Role, SessionId};
use broker_tests::{Place, Plan, RawLink, ScriptedAgent, TestBroker, eventually, hello};
use serde_json::Value;

/// The check of this name.
async fn check(broker: &TestBroker, name: &str) -> Value {
    let data = broker.data_dir().display().to_string();
    let said = broker.run(&["doctor", "--data-dir", &data, "--output", "json"]).await.json();
    let checks = said["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("{said}")).clone()
}

async fn verdict(broker: &TestBroker, name: &str) -> (String, String, String) {
    let check = check(broker, name).await;
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("detail"), text("remedy"))
}

/// Somebody who is asked, and says nothing.
async fn silent(broker: &TestBroker, model: &str) -> RawLink {
    let mut link = broker.link().await;
    link.greet(hello(&broker.endpoint(), model, &[model]).await).await.unwrap();
    link
}

/// A session of opus with one turn.
async fn session(broker: &TestBroker, name: &str) -> SessionId {
    let client = broker.client();
    let id = SessionId::parse(name).unwrap();
    let model = Some(ModelName::parse("opus").unwrap());
    let new = NewSession { id: Some(id.clone()), model, ..NewSession::default() };
    client.start_session(new).await.unwrap();
    let entry = Entry { role: Role::User, name: String::new(), parts: vec![Part::text("hello")] };
    let entry = NewSessionEntry { kind: EntryKind::Turn, entry, model: None, created_at: None };
    client.append_entries(&id, vec![entry], None).await.unwrap();
    id
}

#[tokio::test]
async fn handoffs_that_can_happen_are_said_to_be_well() {
    let broker = TestBroker::start().await;
    let _all = [
        silent(&broker, "opus").await,
        silent(&broker, "sonnet").await,
        silent(&broker, "local").await,
    ];
    for name in ["handoff triggers", "handoff receivers", "handoff packages", "handoff loops"] {
        let (verdict, detail, _) = verdict(&broker, name).await;
        assert_eq!(verdict, "ok", "{name}: {detail}");
    }
}

#[tokio::test]
async fn a_handoff_that_does_not_trigger_is_explained() {
    // A model without an agent is one that may come, for so long.
    let broker = TestBroker::with(Place::Memory, "[routing]\nagent_grace = \"1s\"\n").await;
    broker.run(&["handoff", "config", "--auto", "false"]).await.exits(0);
    let (is, detail, remedy) = verdict(&broker, "handoff triggers").await;
    assert_eq!(is, "warn");
    assert!(detail.contains("auto is off") && remedy.contains("--auto true"), "{detail}: {remedy}");

    // Its limit is reached, and there is nobody else.
    broker.run(&["handoff", "config", "--auto", "true"]).await.exits(0);
    session(&broker, "s").await;
    let tokens = ["usage", "record", "tokens", "--model", "opus", "--session", "s"];
    broker.run(&[&tokens[..], &["--input", "3900000", "--output", "1"]].concat()).await.exits(0);
    eventually("a session that nobody can take", async || {
        let (is, detail, _) = verdict(&broker, "handoff triggers").await;
        (is == "warn" && detail.starts_with("s: ") && detail.contains("nobody can take it"))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_next_one_that_does_not_wake_is_named() {
    let broker = TestBroker::with(Place::Memory, "[handoff]\noffer_deadline = \"1s\"\n").await;
    let _opus = silent(&broker, "opus").await;
    let (is, detail, _) = verdict(&broker, "handoff receivers").await;
    assert_eq!(is, "warn");
    assert!(detail.contains("no agent is connected for") && detail.contains("sonnet"), "{detail}");

    let _sonnet = silent(&broker, "sonnet").await;
    session(&broker, "s").await;
    broker.run(&["handoff", "offer", "--session", "s", "--to", "sonnet"]).await.exits(0);
    eventually("an offer that nobody answered", async || {
        let said = verdict(&broker, "handoff receivers").await;
        said.1.contains("sonnet did not answer an offer").then_some(())
    })
    .await;
}

#[tokio::test]
async fn packages_that_cannot_be_taken_any_more_are_counted() {
    let broker = TestBroker::start().await;
    let save = ["handoff", "save", "--task", "t", "--ttl", "1s"];
    broker.run(&save).await.exits(0);
    eventually("a package that has expired", async || {
        let (is, detail, remedy) = verdict(&broker, "handoff packages").await;
        (is == "warn" && detail.contains("1 of them expired") && remedy.contains("handoff prepare"))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_that_goes_round_is_told_with_who_takes_part() {
    let broker = TestBroker::start().await;
    let _all = [silent(&broker, "opus").await, silent(&broker, "sonnet").await];
    session(&broker, "s").await;
    for to in ["sonnet", "opus", "sonnet", "opus"] {
        assert_eq!(verdict(&broker, "handoff loops").await.0, "ok");
        let force = ["handoff", "force", "--session", "s", "--to", to, "--no-wait"];
        broker.run(&force).await.exits(0);
        eventually("an offer", async || {
            let accept = ["handoff", "accept", "--session", "s"];
            (broker.run(&accept).await.code == 0).then_some(())
        })
        .await;
    }
    let (is, detail, _) = verdict(&broker, "handoff loops").await;
    assert_eq!(is, "warn");
    assert!(
        detail.contains("session s moved 4 times") && detail.contains("opus, sonnet"),
        "{detail}"
    );
}

/// A member of the ring `builder`.
async fn member(broker: &TestBroker, name: &str) -> ScriptedAgent {
    broker.agent_as(Plan::new(name, &["opus"]).role("builder").capacity(4)).await
}

async fn set_ring(broker: &TestBroker, members: &str) {
    let set = ["rotation", "set", "--role", "builder", "--members", members];
    broker.run(&set).await.exits(0);
}

async fn until_said(broker: &TestBroker, part: &str) -> (String, String) {
    eventually(part, async || {
        let (is, detail, remedy) = verdict(broker, "rotation builder").await;
        detail.contains(part).then_some((is, remedy))
    })
    .await
}

/// Not triggering, the next one not waking, nobody left to take it, and a turn that ended.
#[tokio::test]
async fn a_ring_that_nobody_would_take_over_is_explained() {
    let broker = TestBroker::start().await;
    let _pc1 = member(&broker, "pc1").await;
    let pc2 = member(&broker, "pc2").await;
    let pc3 = member(&broker, "pc3").await;
    set_ring(&broker, "pc1,pc2,pc3").await;
    assert_eq!(until_said(&broker, "pc1 works, 2 of 2 could").await.0, "ok");

    drop(pc3);
    let (is, remedy) = until_said(&broker, "pc3 is not connected, and nothing wakes it").await;
    assert_eq!(is, "warn");
    assert!(remedy.contains("[[wakes]]") && remedy.contains("--standby"), "{remedy}");

    set_ring(&broker, "pc1,pc2").await;
    broker.run(&["rotation", "force"]).await.exits(0);
    let (is, remedy) = until_said(&broker, "nobody could take over from the owner: pc1").await;
    assert!(is == "warn" && remedy.contains("more members"), "{remedy}");

    for _ in 0..3 {
        broker.run(&["usage", "record", "rate-limit", "--model", "opus"]).await.exits(0);
    }
    let (is, remedy) = until_said(&broker, "stopped: pc1: pauses").await;
    assert!(is == "warn" && remedy.contains("goes on by itself"), "{remedy}");
    drop((pc2, _pc1));
    eventually("a ring without members", async || {
        let (_, _, remedy) = verdict(&broker, "rotation builder").await;
        remedy.contains("broker-agent --role builder").then_some(())
    })
    .await;
    broker.run(&["rotation", "set", "--off"]).await.exits(0);
    assert_eq!(until_said(&broker, "off: every agent").await.0, "ok");
}

#[tokio::test]
async fn a_member_that_was_woken_and_does_not_come_is_named_and_so_is_a_hook_that_cannot_work() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("pc2.json").display().to_string();
    let settings = format!("[[wakes]]\nagent = \"pc2\"\nfile = \"{note}\"\n");
    let broker = TestBroker::with(Place::Memory, &settings).await;
    let _pc1 = member(&broker, "pc1").await;
    set_ring(&broker, "pc1,pc2").await;
    assert_eq!(until_said(&broker, "pc1 works, 1 of 1 could").await.0, "ok");
    broker.run(&["rotation", "force"]).await.exits(0);
    let (is, remedy) = until_said(&broker, "pc2 was woken, and has not linked").await;
    assert!(is == "warn" && remedy.contains("rotation.accept_deadline"), "{remedy}");

    let config = folder.path().join("house.toml");
    std::fs::write(&config, "[[wakes]]\nagent = \"pc2\"\ncommand = [\"/etc/passwd\"]\n").unwrap();
    let (data, config) = (broker.data_dir().display().to_string(), config.display().to_string());
    let args = ["doctor", "--data-dir", &data, "--output", "json", "--config", &config];
    let said = broker.run(&args).await.json();
    let checks = said["checks"].as_array().unwrap();
    let hooks = checks.iter().find(|check| check["name"] == "rotation hooks").unwrap();
    assert_eq!(hooks["verdict"], "warn");
    assert_eq!(hooks["detail"], "pc2: `/etc/passwd` is not executable");
}
