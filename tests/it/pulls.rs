//! Deliveries without a link: one call takes, another settles.

use std::time::Duration;

use broker_client::{Client, Error};
use broker_proto::{
    AgentName, AskOptions, Delivery, MessageState, ModelName, Part, Pull, SettleOutcome,
    Settlement, Terminal, Usage,
};
use broker_tests::{Place, RawLink, Reader, TestBroker, brokerctl, question};
use serde_json::json;

/// Calls of the agent `name`.
async fn script(broker: &TestBroker, name: &str) -> Client {
    let name = AgentName::parse(name).unwrap();
    let token = broker.client().create_token(&name).await.unwrap();
    broker.client().with_token(token)
}

fn of_opus(messages: u32, wait: Duration) -> Pull {
    let models = vec![ModelName::parse("opus").unwrap()];
    Pull { models, roles: Vec::new(), messages, size_bytes: 0, lease: None, wait }
}

async fn pull_one(script: &Client) -> Delivery {
    let mut pulled = script.pull(of_opus(1, Duration::from_secs(20))).await.unwrap();
    assert_eq!(pulled.len(), 1);
    pulled.remove(0)
}

fn settlement(lease: &str, outcome: SettleOutcome) -> Settlement {
    let (usage, limits) = (Usage::default(), Vec::new());
    Settlement { lease: lease.to_owned(), outcome, usage, limits, first_token: None }
}

/// Settles as done, and gives the reason when that was refused.
async fn settle(script: &Client, lease: &str, text: &str) -> Option<String> {
    let parts = vec![Part::text(text)];
    let outcome = SettleOutcome::Done { parts, stop_reason: None };
    let answers = script.settle(vec![settlement(lease, outcome)]).await.unwrap();
    assert_eq!(answers[0].lease, lease);
    answers.into_iter().next().unwrap().refused.map(|refused| refused.reason)
}

/// I-18, I-20
#[tokio::test]
async fn a_script_answers_a_question_with_two_calls() {
    let broker = TestBroker::start().await;
    let script = script(&broker, "script").await;
    let mut reader =
        Reader::ask(&broker.client(), question("opus", "hi"), AskOptions::default()).await;

    let delivery = pull_one(&script).await;
    assert_eq!(delivery.message.payload.request, [Part::text("hi")]);
    assert_eq!(settle(&script, &delivery.lease, "by a script").await, None);

    assert!(matches!(reader.end().await, Terminal::Done(_)));
    assert_eq!(reader.text(), "by a script");
    assert!(script.pull(of_opus(1, Duration::ZERO)).await.unwrap().is_empty());
}

/// I-13, I-14, I-19
#[tokio::test]
async fn a_pulled_lease_is_settled_by_its_holder_and_once() {
    let broker = TestBroker::start().await;
    let (holder, thief) = (script(&broker, "holder").await, script(&broker, "thief").await);
    let id = question("opus", "hi");
    let asked = id.id;
    broker.client().submit(id, AskOptions::default()).await.unwrap();
    let Delivery { lease, .. } = pull_one(&holder).await;

    for wrong in ["", "1.1.00", "forged", &format!("{lease}0")] {
        assert_eq!(settle(&holder, wrong, "no").await.as_deref(), Some("LEASE_LOST"), "{wrong}");
    }
    assert_eq!(settle(&thief, &lease, "mine").await.as_deref(), Some("LEASE_LOST"));
    let refused = thief.extend(lease.clone(), Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(refused.reason(), Some("LEASE_LOST"));
    for text in ["first", "second"] {
        assert_eq!(settle(&holder, &lease, text).await, None);
    }

    let poll = broker.client().poll(asked, Duration::from_secs(20)).await.unwrap();
    assert_eq!(poll.parts, [Part::text("first")]);
}

#[tokio::test]
async fn a_pull_waits_for_what_comes_and_takes_no_more_than_it_asked_for() {
    let broker = TestBroker::start().await;
    let script = script(&broker, "script").await;
    let (pulled, ()) = tokio::join!(script.pull(of_opus(2, Duration::from_secs(20))), async {
        for text in ["a", "b", "c"] {
            broker.client().submit(question("opus", text), AskOptions::default()).await.unwrap();
        }
    });
    let first = pulled.unwrap();
    assert!((1..=2).contains(&first.len()), "{}", first.len());

    let rest = script.pull(of_opus(100, Duration::ZERO)).await.unwrap();

    assert_eq!(first.len() + rest.len(), 3);
    assert!(broker.client().agents().await.unwrap().is_empty(), "a pull is no link");
}

#[tokio::test]
async fn a_caller_who_leaves_takes_nothing_with_it() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let leaver = script(&broker, "leaver").await;
    {
        let pull = leaver.pull(of_opus(1, Duration::from_secs(20)));
        tokio::pin!(pull);
        // Until the pull has reached the broker: then its model has somebody who serves it.
        let reached =
            async { while client.models().await.unwrap().iter().all(|model| model.agents == 0) {} };
        tokio::select! {
            _ = &mut pull => panic!("nothing was sent"),
            () = reached => {}
        }
    }
    client.submit(question("opus", "hi"), AskOptions::default()).await.unwrap();

    let delivery = pull_one(&script(&broker, "stayer").await).await;

    assert_eq!(settle(&script(&broker, "stayer").await, &delivery.lease, "x").await, None);
}

/// I-15
#[tokio::test]
async fn a_lease_is_pulled_and_extended_within_its_bounds() {
    let broker = TestBroker::start().await;
    let script = script(&broker, "script").await;
    broker.client().submit(question("opus", "hi"), AskOptions::default()).await.unwrap();
    let secs = Duration::from_secs;
    for (lease, messages) in [(Some(secs(4)), 1), (Some(secs(1801)), 1), (None, 101)] {
        let pull = Pull { lease, ..of_opus(messages, Duration::ZERO) };
        let refused = script.pull(pull).await.unwrap_err();
        assert_eq!(refused.reason(), Some("INVALID_FIELD"), "{lease:?} {messages}");
    }

    let Delivery { lease, .. } = pull_one(&script).await;

    for by in [secs(4), secs(1801)] {
        let refused = script.extend(lease.clone(), by).await.unwrap_err();
        assert_eq!(refused.reason(), Some("INVALID_FIELD"), "{by:?}");
    }
    let left = script.extend(lease, secs(1800)).await.unwrap();
    assert!(left > secs(1790) && left <= secs(1800), "{left:?}");
}

#[tokio::test]
async fn only_an_agent_pulls() {
    let broker = TestBroker::start().await;
    let refused = broker.client().pull(of_opus(1, Duration::ZERO)).await.unwrap_err();
    assert!(matches!(&refused, Error::Refused { reason, .. } if reason == "TOKEN_REJECTED"));
    assert!(refused.to_string().contains("brokerctl token create"), "{refused}");
}

/// I-16, I-18: over a restart a pulled lease holds, and its token settles.
#[tokio::test]
async fn a_pulled_lease_outlives_the_broker() {
    let mut broker = TestBroker::with(Place::Folder, "").await;
    let script = script(&broker, "script").await;
    let asked = question("opus", "hi");
    let id = asked.id;
    broker.client().submit(asked, AskOptions::default()).await.unwrap();
    let Delivery { lease, .. } = pull_one(&script).await;

    broker.restart().await;

    assert_eq!(settle(&script, &lease, "after all").await, None);
    let poll = broker.client().poll(id, Duration::from_secs(20)).await.unwrap();
    assert_eq!((poll.state, poll.parts), (MessageState::Done, vec![Part::text("after all")]));
}

/// I-16
#[tokio::test]
async fn a_drain_lets_what_runs_settle_and_then_the_broker_stops() {
    use broker_proto::{Down, Drain, DrainStep};
    let broker = TestBroker::start().await;
    let client = broker.client();
    let mut link = RawLink::greeted(&broker.endpoint(), "a").await;
    link.grant(2).await;
    client.submit(question("opus", "running"), AskOptions::default()).await.unwrap();
    let running = link.delivery().await;
    let drain = Drain {
        agent: None,
        deadline: Duration::from_secs(20),
        step: DrainStep::Begin,
        stops: true,
        wait: Duration::ZERO,
    };

    let draining = client.drain(drain).await.unwrap();

    assert_eq!((draining.is_draining, draining.running), (true, 1));
    let told = link.hear().await.unwrap();
    assert!(
        matches!(told, Down::Drain { is_over: false, reconnect_after: Some(_), .. }),
        "{told:?}"
    );
    client.submit(question("opus", "waiting"), AskOptions::default()).await.unwrap();
    link.settle(&running.lease, "done").await;
    assert!(matches!(link.hear().await, Ok(Down::Settled(_))));
    assert_eq!(broker_tests::reason_of(&link.end().await), "STOPPING");
}

/// A shell script can be all that an agent is: it hears whatever kind it is sent, takes from a role's ring, asks back and
/// says what its work took.
#[tokio::test]
async fn a_shell_script_hears_every_kind_asks_back_and_counts() {
    let broker = TestBroker::start().await;
    let token = broker.run(&["token", "create", "script"]).await.exits(0).stdout;
    let token = token.trim().to_owned();
    let run = async |args: &[&str]| {
        let command = brokerctl(&broker.endpoint()).env("BROKER_AGENT_TOKEN", &token);
        command.args(&["agent"]).args(args).output().await
    };
    let pull = async |more: &[&str]| {
        let args = [&["pull", "--wait", "20s"], more].concat();
        run(&args).await.exits(0).json()
    };
    // Its first pull makes the role known.
    assert_eq!(run(&["pull", "--role", "reviewer"]).await.exits(0).stdout, "");
    let about = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let status = ["message", "send", "--to", "role:reviewer", "--severity", "warning"];
    let status = [&status[..], &["--percent", "50", "--about", about, "half done"]].concat();
    broker.run(&status).await.exits(0);

    let job = pull(&["--role", "reviewer", "--lease", "1m"]).await;
    assert_eq!((&job["type"], &job["text"]), (&json!("status"), &json!("half done")));
    let want = json!({
        "severity": "warning", "kind": "progress", "percent": 50, "step": null,
        "text": "half done", "about": about,
    });
    assert_eq!(job["status"], want);
    assert_eq!((&job["to"], &job["priority"]), (&json!("role/reviewer"), &json!("normal")));
    assert_eq!((&job["generation"], &job["task"]), (&json!(1), &json!(null)));
    let left = job["lease_left_ms"].as_u64().unwrap();
    assert!(left > 0 && left <= 60_000 && job["time_left_ms"].as_u64().unwrap() > left, "{job}");
    run(&["settle", job["lease"].as_str().unwrap(), "--text", "seen"]).await.exits(0);

    let give = ["delegate", "--to", "opus", "--task", "sum", "--input", "tone=dry", "--json"];
    let id = broker.run(&[&give[..], &["--detach"]].concat()).await.exits(0).stdout;
    let shown = broker.run(&["message", "get", id.trim(), "--payload"]).await.exits(0).stdout;
    assert!(shown.contains("[task]\nsum") && shown.contains("[input tone]\ndry"), "{shown}");
    let job = pull(&["--model", "opus"]).await;
    assert_eq!((&job["type"], &job["text"]), (&json!("delegation"), &json!("sum")));
    assert_eq!(job["task"]["result"], json!({ "type": "json", "schema": null }));
    assert_eq!(job["task"]["inputs"][0]["text"], "dry");
    let lease = job["lease"].as_str().unwrap();
    let counted = ["--input-tokens", "5", "--output-tokens", "2"];
    run(&[&["settle", lease, "--ask", "how long?"], &counted[..]].concat()).await.exits(0);
    broker.run(&["task", "provide", id.trim(), "ten words"]).await.exits(0);
    let job = pull(&["--model", "opus"]).await;
    assert_eq!(job["task"]["exchanges"][0]["answer"], "ten words");
    let lease = job["lease"].as_str().unwrap();
    let counted = ["--input-tokens", "7", "--output-tokens", "3"];
    run(&[&["settle", lease, "--text", "{}"], &counted[..]].concat()).await.exits(0);
    let usage = broker.run(&["usage", "status", "--output", "json"]).await.exits(0).json();
    let models = usage["models"].as_array().unwrap();
    let opus = models.iter().find(|model| model["name"] == "opus").unwrap();
    assert_eq!(opus["usage"]["input_tokens"], 12);
    assert_eq!(opus["usage"]["output_tokens"], 5);
    let many: Vec<&str> = ["--role", "r"].repeat(17);
    run(&[&["pull"], &many[..]].concat()).await.exits(2);
}

#[tokio::test]
async fn a_shell_script_pulls_settles_and_extends() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let token = brokerctl(&broker.endpoint()).args(&["token", "create", "script"]).output().await;
    let token = token.exits(0).stdout.trim().to_owned();
    let run = async |args: &[&str], stdin: &str| {
        let command = brokerctl(&broker.endpoint()).env("BROKER_AGENT_TOKEN", &token);
        command.args(&["agent", "--output", "json"]).args(args).stdin(stdin).output().await
    };
    let (one, two) = (question("opus", "one"), question("opus", "two"));
    let ids = [one.id, two.id];
    for asked in [one, two] {
        client.submit(asked, AskOptions::default()).await.unwrap();
    }

    let pulled = run(&["pull", "--model", "opus", "--max", "2", "--wait", "20s"], "").await;
    let pulled = pulled.exits(0).stdout;
    let jobs: Vec<serde_json::Value> =
        pulled.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!([&jobs[0]["text"], &jobs[1]["text"]], ["one", "two"]);
    let leases = [0, 1].map(|job| jobs[job]["lease"].as_str().unwrap());
    let left = run(&["extend", leases[0], "--for", "10m"], "").await.exits(0).json();
    assert!(left["time_left_ms"].as_u64().unwrap() > 590_000, "{left}");
    let settled = run(&["settle", leases[0], "--text", "-"], "first").await.exits(0).json();
    assert_eq!(settled["settled"], true);
    let lines = format!(
        "{{\"lease\":\"{}\",\"text\":\"second\"}}\n{{\"lease\":\"1.1.00\",\"release\":true}}\n",
        leases[1]
    );
    let refused = run(&["settle", "-"], &lines).await.exits(1);
    assert!(refused.stdout.contains("LEASE_LOST"), "{refused:?}");
    // I-19: the first word stands, and the second is told so.
    let again = run(&["settle", leases[1], "--release"], "").await.exits(0).json();
    assert_eq!((&again["settled"], &again["repeated"]), (&json!(true), &json!(true)));
    assert_eq!(settled["repeated"], false);
    let late = run(&["extend", leases[1]], "").await.exits(1).json();
    assert_eq!(late["error"]["reason"], "LEASE_LOST");
    let id = ids[1].to_string();
    let said = late["error"]["message"].as_str().unwrap();
    assert!(
        !said.contains("0000000000") && (said.contains(&id) || !said.contains("message")),
        "{said}"
    );
    for wrong in [&["settle", leases[1]][..], &["settle", leases[1], "--failed", "NOPE"]] {
        run(wrong, "").await.exits(2);
    }
    let broken = format!("{{\"lease\":\"{}\",\"text\":\"x\"}}\nnonsense\n", leases[1]);
    let broken = run(&["settle", "-"], &broken).await.exits(2);
    assert!(
        broken.stderr.contains("line 2, which is not settled, nor is what follows"),
        "{broken:?}"
    );

    for (id, text) in ids.into_iter().zip(["first", "second"]) {
        let poll = client.poll(id, Duration::from_secs(20)).await.unwrap();
        assert_eq!(poll.parts, [Part::text(text)]);
    }
    let drained = brokerctl(&broker.endpoint()).args(&["drain", "--wait", "--output", "json"]);
    assert_eq!(drained.output().await.exits(0).json()["drained"], true);
    let undone = brokerctl(&broker.endpoint()).args(&["drain", "--undo"]).output().await;
    assert_eq!(undone.exits(0).stdout, "deliveries go on\n");
}
