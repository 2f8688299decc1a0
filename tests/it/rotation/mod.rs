//! Rings over real links: who works, who is woken, and what `brokerctl rotation` shows.

mod processes;

use std::{fs, os::unix::fs::PermissionsExt as _};

use broker_client::Client;
use broker_proto::{
    AgentName, Message, MessageType, Recipient, RoleName, Rotation, RotationMember, RotationState,
    SetRotation,
};
use broker_tests::{
    Place, Plan, ScriptedAgent, TestBroker, TestDaemon, eventually, new_id, text_payload,
};
use serde_json::Value;

fn role() -> RoleName {
    RoleName::parse("builder").unwrap()
}

fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

async fn member(broker: &TestBroker, name: &str) -> ScriptedAgent {
    broker.agent_as(Plan::new(name, &["opus"]).role("builder").capacity(4)).await
}

async fn task(client: &Client, text: &str) {
    let to = Recipient::Role(role());
    let task = Message::new(new_id(), to, MessageType::Status, text_payload(text));
    client.send(task, true).await.unwrap();
}

async fn set(client: &Client, members: &[&str]) -> Rotation {
    let members = members.iter().map(|name| agent(name)).collect();
    let set = SetRotation { role: role(), members, pick: None, pause: None, is_on: true };
    client.set_rotation(set).await.unwrap()
}

async fn ring(client: &Client) -> Rotation {
    client.rotations(Some(&role())).await.unwrap().remove(0)
}

async fn until_owner(client: &Client, name: &str) -> Rotation {
    eventually("the ring's owner", async || {
        let ring = ring(client).await;
        (ring.owner == Some(agent(name))).then_some(ring)
    })
    .await
}

async fn run(broker: &TestBroker, args: &[&str]) -> String {
    let output = broker.run(args).await;
    assert_eq!(output.code, 0, "{args:?}: {}", output.stderr);
    output.stdout
}

#[tokio::test]
async fn a_ring_goes_round_by_force_and_at_the_third_rate_limit() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut members = Vec::new();
    for name in ["pc1", "pc2", "pc3"] {
        members.push(member(&broker, name).await);
    }
    let set = run(&broker, &["rotation", "set", "--role", "builder", "--members", "pc1,pc2,pc3"]);
    assert!(set.await.contains("builder: running, pc1 works"));
    for text in ["one", "two"] {
        task(&client, text).await;
    }
    let (one, two) = (members[0].next().await, members[0].next().await);
    assert_eq!((one.question(), two.question()), ("one".into(), "two".into()));
    one.answer("").await;
    two.answer("").await;

    run(&broker, &["rotation", "force", "--reason", "pc1 is restarted"]).await;
    until_owner(&client, "pc2").await;
    task(&client, "three").await;
    members[1].answer("").await;
    for _ in 0..3 {
        run(&broker, &["usage", "record", "rate-limit", "--model", "opus"]).await;
    }
    let shown = run(&broker, &["rotation", "show", "--output", "json"]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let ring = &shown["rotations"][0];
    assert_eq!((&ring["owner"], &ring["epoch"]), (&"pc3".into(), &3.into()));
    let second = &ring["members"]["pc2"];
    assert_eq!(second["next"], "pc3");
    assert!(second["reason"].as_str().unwrap().contains("3 of 3 rate limits"), "{second}");
    for key in ["status", "rate_limit_count", "error_rate", "avg_response_time"] {
        assert!(second.get(key).is_some(), "{key}");
    }

    run(&broker, &["rotation", "force"]).await;
    until_owner(&client, "pc1").await;
    let again = broker.run(&["rotation", "force", "--to", "pc1"]).await;
    assert_eq!(again.code, 1, "{}", again.stderr);
    assert!(again.stderr.contains("is the owner already"), "{}", again.stderr);
}

#[tokio::test]
async fn members_are_woken_by_their_hooks_and_a_hook_that_fails_or_hangs_passes_them_over() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("pc4.json");
    let settings = format!(
        "[rotation]\nwake_deadline = \"200ms\"\n\
         [[wakes]]\nagent = \"pc2\"\ncommand = [\"sh\", \"-c\", \"echo no route >&2; exit 3\"]\n\
         [[wakes]]\nagent = \"pc3\"\ncommand = [\"sleep\", \"1000\"]\n\
         [[wakes]]\nagent = \"pc4\"\nfile = \"{}\"\n",
        note.display()
    );
    let broker = TestBroker::with(Place::Folder, &settings).await;
    let client = broker.client();
    let first = member(&broker, "pc1").await;
    let ring = set(&client, &["pc1", "pc2", "pc3", "pc4"]).await;
    assert_eq!((ring.state, ring.owner), (RotationState::Running, Some(agent("pc1"))));
    task(&client, "what waits").await;
    drop(first);

    run(&broker, &["rotation", "force", "--reason", "it leaves"]).await;
    let bytes = eventually("the note for pc4", async || fs::read(&note).ok()).await;
    let said: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&said["to"], &said["from"]), (&"pc4".into(), &"pc1".into()));
    assert_eq!((&said["role"], &said["reason"]), (&"builder".into(), &"it leaves".into()));
    assert_eq!(fs::metadata(&note).unwrap().permissions().mode() & 0o777, 0o600);
    let shown = self::ring(&client).await;
    let why = |name: &str| shown.members.iter().find(|it| it.agent == agent(name)).unwrap();
    assert!(why("pc2").reason.contains("exited with 3: no route"), "{}", why("pc2").reason);
    assert!(why("pc3").reason.contains("and was killed"), "{}", why("pc3").reason);

    let mut woken = member(&broker, "pc4").await;
    until_owner(&client, "pc4").await;
    assert_eq!(woken.next().await.question(), "what waits");
}

/// What was heard, who pauses until when, and why a ring is stopped: after SIGKILL as before it.
#[tokio::test]
async fn a_broker_that_is_killed_forgets_neither_the_owner_nor_the_pauses_nor_what_was_heard() {
    let mut broker = TestDaemon::start("").await;
    let mut members = Vec::new();
    for name in ["pc1", "pc2"] {
        members.push(broker.agent_as(Plan::new(name, &["opus"]).role("builder").capacity(4)).await);
    }
    let show = async |broker: &TestDaemon| {
        let shown = broker.run(&["rotation", "show", "--output", "json"]).await.exits(0).json();
        shown["rotations"][0].clone()
    };
    let limit = async |broker: &TestDaemon| {
        broker.run(&["usage", "record", "rate-limit", "--model", "opus"]).await.exits(0);
    };
    let linked = async |broker: &TestDaemon| {
        eventually("both links", async || {
            let ring = show(broker).await;
            let is_there = |name: &str| ring["members"][name]["connected"] == true;
            (is_there("pc1") && is_there("pc2")).then_some(())
        })
        .await;
    };
    let set = ["rotation", "set", "--role", "builder", "--members", "pc1,pc2", "--pause", "1h"];
    broker.run(&set).await.exits(0);
    limit(&broker).await;
    limit(&broker).await;

    broker.restart().await;
    linked(&broker).await;
    let ring = show(&broker).await;
    assert_eq!((&ring["owner"], &ring["epoch"]), (&"pc1".into(), &1.into()));
    assert_eq!(ring["members"]["pc1"]["rate_limit_count"], 2);
    limit(&broker).await;
    let before = show(&broker).await;
    assert_eq!((&before["owner"], &before["epoch"]), (&"pc2".into(), &2.into()));

    broker.restart().await;
    linked(&broker).await;
    let after = show(&broker).await;
    for (member, key) in [("pc1", "reason"), ("pc1", "until"), ("pc1", "turns"), ("pc2", "turns")] {
        assert_eq!(after["members"][member][key], before["members"][member][key], "{member} {key}");
    }
    assert!(after["members"]["pc1"]["until"].is_string(), "{after}");
    for _ in 0..3 {
        limit(&broker).await;
    }
    let stopped = show(&broker).await;
    assert_eq!((&stopped["state"], &stopped["owner"]), (&"stopped".into(), &Value::Null));
    broker.restart().await;
    linked(&broker).await;
    let again = show(&broker).await;
    assert_eq!((&again["state"], &again["back_at"]), (&"stopped".into(), &stopped["back_at"]));
}

#[tokio::test]
async fn what_a_ring_cannot_be_or_do_is_refused_with_what_to_do() {
    let broker = TestBroker::start().await;
    let mut members = Vec::new();
    for name in ["pc1", "pc2", "pc3"] {
        members.push(member(&broker, name).await);
    }
    let refused = async |args: &[&str], code: i32, why: &str| {
        let output = broker.run(&[&["rotation"], args].concat()).await;
        assert_eq!(output.code, code, "{args:?}: {}", output.stderr);
        assert!(output.stderr.contains(why), "{args:?}: {}", output.stderr);
    };
    refused(&["show", "--role", "builder"], 3, "there is no ring of role `builder`").await;
    refused(&["force"], 1, "there is no ring").await;
    let set = ["set", "--role", "builder"];
    let of = |members: &'static str| [&set[..], &["--members", members]].concat();
    refused(&of("pc1,pc2,pc1"), 2, "`pc1` stands twice").await;
    refused(&of("pc1,pc9"), 3, "no agent is called `pc9`").await;
    refused(&of("pc1,PC 2"), 2, "PC 2").await;
    refused(&set, 2, "needs members").await;
    let first = of("pc1,pc2,pc3");
    let with = |more: &[&'static str]| [&first[..], more].concat();
    refused(&with(&["--pick", "random"]), 2, "least-used").await;
    refused(&with(&["--pause", "1s"]), 2, "shorter than the").await;
    refused(&with(&["--pause", "2d"]), 2, "at most").await;
    refused(&with(&["--off"]), 2, "--off").await;
    let alone = broker.run(&[&["rotation"][..], &of("pc1")].concat()).await.exits(0);
    assert!(alone.stderr.contains("nobody to hand on to"), "{}", alone.stderr);
    refused(&["force"], 1, "nobody else is in the ring").await;
    broker.run(&[&["rotation"][..], &first].concat()).await.exits(0);
    refused(&["force", "--to", "opus"], 2, "no member").await;
    refused(&["force", "--to", "pc1"], 1, "is the owner already").await;
    drop(members.remove(2));
    let client = broker.client();
    eventually("a member that left", async || {
        let ring = ring(&client).await;
        let is_gone = |it: &RotationMember| it.agent == agent("pc3") && !it.is_connected;
        ring.members.iter().any(is_gone).then_some(())
    })
    .await;
    refused(&["force", "--to", "pc3"], 1, "is not connected, and nothing wakes it").await;
    broker.run(&["drain", "--agent", "pc2"]).await.exits(0);
    refused(&["force", "--to", "pc2"], 1, "is being drained").await;
    broker.run(&["rotation", "set", "--off"]).await.exits(0);
    refused(&["force"], 1, "is off").await;
}
