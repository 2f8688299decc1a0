//! A ring of real processes beside `brokerctl up --simulated`: forced on, exhausted, killed, woken; judged by its events.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path};

use broker_client::EventItem;
use broker_proto::{EventFilter, EventInfo, EventStart, MessageId, TaskSpec};
use broker_tests::{Program, RawLink, Running, TestHouse, hello, program, signal, within};
use futures::StreamExt as _;
use rustix::process::Signal;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;

/// A ring that misses its owner soon, and waits for a member that has to start as long as a busy machine may take.
const QUICK: &str =
    "[rotation]\naccept_deadline = \"30s\"\nsilence = \"1s\"\nwake_deadline = \"1s\"\n";
/// The same, with a deadline that a test waits for.
const IMPATIENT: &str = "[links]\nheartbeat_deadline = \"10m\"\n\
     [rotation]\naccept_deadline = \"2s\"\nsilence = \"1s\"\nwake_deadline = \"1s\"\n";

async fn show(house: &TestHouse) -> Value {
    let shown = house.run(&["rotation", "show", "--output", "json"]).await.exits(0).json();
    shown["rotations"][0].clone()
}

/// The ring once this holds of it.
async fn until(house: &TestHouse, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(what, async || {
        let ring = show(house).await;
        is_so(&ring).then_some(ring)
    })
    .await
}

async fn until_works(house: &TestHouse, name: &str) -> Value {
    until(house, name, |ring| ring["owner"] == name && ring["state"] == "running").await
}

async fn token_file(house: &TestHouse, folder: &Path, name: &str) -> String {
    let token = house.client().create_token(&agent(name)).await.unwrap();
    let path = folder.join(format!("{name}.token"));
    fs::write(&path, token.expose_secret()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// The arguments of a process that works as this member.
async fn working(house: &TestHouse, folder: &Path, name: &str) -> Vec<String> {
    let (endpoint, token) = (house.endpoint().to_string(), token_file(house, folder, name).await);
    let config = house.data_dir().join("effective.toml").display().to_string();
    let args = ["--config", &config, "--model", "opus", "--role", "builder", "--name", name];
    let args = args.into_iter().chain(["--endpoint", &endpoint, "--token-file", &token]);
    args.chain(["--capacity", "4"]).map(str::to_owned).collect()
}

/// A real process that works as this member.
async fn process(house: &TestHouse, folder: &Path, name: &str) -> Running {
    let args = working(house, folder, name).await;
    let agent = Program::new("broker-agent").args(&args).env("ANTHROPIC_API_KEY", "simulated");
    let running = agent.start().await;
    let client = house.client();
    eventually(name, async || {
        let agents = client.agents().await.unwrap();
        agents.iter().any(|it| it.name.as_str() == name && it.is_connected).then_some(())
    })
    .await;
    running
}

async fn set_ring(house: &TestHouse, pause: &str, members: &str) {
    let set = ["rotation", "set", "--role", "builder", "--pause", pause, "--members", members];
    house.run(&set).await.exits(0);
}

async fn give(house: &TestHouse, text: &str) -> MessageId {
    let id = new_id();
    let task = TaskSpec { description: text.into(), ..TaskSpec::default() };
    let message = Message::delegation(id, Recipient::Role(role()), task);
    house.client().delegate(message, false).await.unwrap();
    id
}

async fn done(house: &TestHouse, id: MessageId) {
    let client = house.client();
    eventually("the task's end", async || {
        let task = client.task(id).await.unwrap();
        (task.info.state == broker_proto::TaskState::Completed).then_some(())
    })
    .await;
}

/// Everything that was told up to now; the ring is put off for that.
async fn history(house: &TestHouse) -> Vec<EventInfo> {
    house.run(&["rotation", "set", "--role", "builder", "--off"]).await.exits(0);
    let client = house.client();
    let mut events = client.subscribe(EventStart::First, EventFilter::default()).await.unwrap();
    let mut told = Vec::new();
    loop {
        let item = within("the next event", events.next()).await.unwrap().unwrap();
        let EventItem::Event { event, .. } = item else { continue };
        let is_last = event.kind == "rotation_set" && event.detail.contains("builder: off");
        told.push(event);
        if is_last {
            return told;
        }
    }
}

/// At every event there is one owner or none, and only the owner was given these tasks. Gives the owners in their order.
fn judge(told: &[EventInfo], tasks: &[MessageId]) -> Vec<String> {
    let tasks: BTreeSet<&MessageId> = tasks.iter().collect();
    let (mut owner, mut owners): (Option<String>, Vec<String>) = (None, Vec::new());
    for event in told {
        let agent = event.agent.as_ref().map(ToString::to_string);
        match event.kind.as_str() {
            "rotation_set" => owner = agent,
            "handoff_accepted" => {
                assert_ne!(agent, owner, "{event:?}");
                owners.extend(agent.clone());
                owner = agent;
            }
            "rotation_stopped" => owner = None,
            "leased" if event.message.as_ref().is_some_and(|(id, _)| tasks.contains(id)) => {
                assert_eq!(agent, owner, "somebody else was given a task of the ring: {event:?}");
            }
            _ => {}
        }
    }
    owners
}

#[tokio::test]
async fn three_processes_take_turns_by_force_at_the_third_429_and_when_one_is_killed() {
    let house = TestHouse::with(IMPATIENT).await;
    let folder = tempfile::tempdir().unwrap();
    let mut members = Vec::new();
    for name in ["pc1", "pc2", "pc3"] {
        members.push(process(&house, folder.path(), name).await);
    }
    set_ring(&house, "2s", "pc1,pc2,pc3").await;
    let mut tasks = vec![give(&house, "the first").await];
    done(&house, tasks[0]).await;

    house.run(&["rotation", "force", "--reason", "a test"]).await.exits(0);
    until_works(&house, "pc2").await;

    // The provider's own refusals, of calls that were really made: two are not enough.
    house.sim.refuse("anthropic.rate_limit_429", "claude-opus-*", json!(2)).await;
    tasks.extend([give(&house, "the second").await, give(&house, "the third").await]);
    let two =
        until(&house, "two rate limits", |ring| ring["members"]["pc2"]["rate_limit_count"] == 2);
    assert_eq!(two.await["owner"], "pc2");
    house.sim.refuse("anthropic.rate_limit_429", "claude-opus-*", json!(1)).await;
    tasks.push(give(&house, "the fourth").await);
    let ring = until(&house, "pc3", |ring| ring["owner"] == "pc3").await;
    let why = ring["members"]["pc2"]["reason"].as_str().unwrap().to_owned();
    assert!(why.contains("3 of 3 rate limits"), "{why}");
    // What was refused comes to the new owner.
    for task in &tasks {
        done(&house, *task).await;
    }

    members[2].signal(Signal::KILL);
    until_works(&house, "pc1").await;
    tasks.push(give(&house, "the last").await);
    done(&house, tasks[4]).await;

    let told = history(&house).await;
    let owners = judge(&told, &tasks);
    assert_eq!(owners, ["pc1", "pc2", "pc3", "pc1"]);
    let of = |kind: &str| told.iter().filter(|event| event.kind == kind).collect::<Vec<_>>();
    assert!(of("handoff_initiated")[1].detail.ends_with("to=pc2 reason=a test"));
    assert!(of("handoff_accepted")[1].detail.contains("from=pc1 tasks_received=0"));
    assert!(of("rotation_detected").iter().any(|event| event.detail.contains("trigger=silent")));
}

#[tokio::test]
async fn a_member_that_takes_nothing_is_passed_over_and_a_ring_that_nobody_can_work_for_says_so() {
    let house = TestHouse::with(IMPATIENT).await;
    let folder = tempfile::tempdir().unwrap();
    let _pc1 = process(&house, folder.path(), "pc1").await;
    let _pc3 = process(&house, folder.path(), "pc3").await;
    // It is there and gives no credit.
    let endpoint = house.endpoint();
    let mut pc2 = RawLink::open(&endpoint).await;
    let mut greeting = hello(&endpoint, "pc2", &["opus"]).await;
    greeting.roles = vec![role()];
    pc2.greet(greeting).await.unwrap();
    set_ring(&house, "1h", "pc1,pc2,pc3").await;

    let limits = async || {
        for _ in 0..3 {
            let record = ["usage", "record", "rate-limit", "--model", "opus"];
            house.run(&record).await.exits(0);
        }
    };
    limits().await;
    let ring = until(&house, "pc3", |ring| ring["owner"] == "pc3").await;
    let why = ring["members"]["pc2"]["reason"].as_str().unwrap().to_owned();
    assert_eq!(why, "is there, but takes nothing within 2 s");

    let waits = give(&house, "what nobody works on").await;
    done(&house, waits).await;
    limits().await;
    let ring = until(&house, "a stop", |ring| ring["state"] == "stopped").await;
    assert_eq!(ring["owner"], Value::Null);
    let task = give(&house, "what waits").await;
    let shown = house.run(&["rotation", "show"]).await.exits(0).stdout;
    for part in ["builder: stopped, nobody works", "pc1: pauses", "pc3: 3 of 3 rate limits"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(shown.contains("goes on at") && shown.contains("what helps: wait"), "{shown}");
    // Everybody sees what waits.
    let seen = house.run(&["queue", "peek", "role:builder", "--output", "json"]).await.exits(0);
    assert!(seen.stdout.contains(&task.to_string()), "{seen:?}");

    // A person who knows better.
    house.run(&["rotation", "force", "--to", "pc1"]).await.exits(0);
    until_works(&house, "pc1").await;
    done(&house, task).await;
    let told = history(&house).await;
    assert_eq!(judge(&told, &[waits, task]), ["pc1", "pc3", "pc1"]);
    assert!(told.iter().any(|event| event.kind == "rotation_stopped"));
}

/// A script that starts a member and says under which id it runs.
async fn starts(house: &TestHouse, folder: &Path, script: &Path, name: &str) {
    let args = working(house, folder, name).await;
    let pid = folder.join(format!("{name}.pid"));
    let text = format!(
        "#!/bin/sh\nexport ANTHROPIC_API_KEY=simulated\n{} '{}' </dev/null >/dev/null 2>&1 &\necho $! > {}\n",
        program("broker-agent").display(),
        args.join("' '"),
        pid.display()
    );
    fs::write(script, text).unwrap();
    fs::set_permissions(script, fs::Permissions::from_mode(0o700)).unwrap();
}

/// Kills what a script started, when the test is over.
struct Started(std::path::PathBuf);

impl Drop for Started {
    fn drop(&mut self) {
        let pid = fs::read_to_string(&self.0).ok().and_then(|text| text.trim().parse().ok());
        if let Some(pid) = pid {
            signal(pid, Signal::KILL);
        }
    }
}

#[tokio::test]
async fn under_up_members_are_started_by_hooks_and_one_whose_hook_fails_or_hangs_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (script, note, hangs) = (at("wake.sh"), at("pc4.json"), at("hangs"));
    let settings = format!(
        "{QUICK}[[wakes]]\nagent = \"pc2\"\ncommand = [\"/bin/sh\", \"-c\", \"echo no route >&2; exit 3\"]\n\
         [[wakes]]\nagent = \"pc3\"\ncommand = [\"/bin/sh\", \"-c\", \"echo $$ > {0}.new; mv {0}.new {0}; sleep 1000; true\"]\n\
         [[wakes]]\nagent = \"pc4\"\ncommand = [\"{1}\"]\nfile = \"{2}\"\n",
        hangs.display(),
        script.display(),
        note.display()
    );
    let path = std::env::var("PATH").unwrap_or_default();
    let house = TestHouse::with_env(&settings, &[("PATH", &path)]).await;
    starts(&house, folder.path(), &script, "pc4").await;
    let _started = Started(at("pc4.pid"));
    let pc1 = process(&house, folder.path(), "pc1").await;
    set_ring(&house, "1h", "pc1,pc2,pc3,pc4").await;
    assert_eq!(show(&house).await["members"]["pc4"]["woken_by"], "hook");

    pc1.signal(Signal::KILL);
    let ring = until_works(&house, "pc4").await;
    let why = |name: &str| ring["members"][name]["reason"].as_str().unwrap().to_owned();
    assert!(why("pc2").contains("exited with 3: no route"), "{}", why("pc2"));
    assert!(why("pc3").contains("and was killed"), "{}", why("pc3"));
    let hung = fs::read_to_string(&hangs).unwrap();
    let stat = format!("/proc/{}/stat", hung.trim());
    eventually("the end of the hook that hangs", async || {
        let state = fs::read_to_string(&stat).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    })
    .await;
    let said: Value = serde_json::from_slice(&fs::read(&note).unwrap()).unwrap();
    assert_eq!((&said["to"], &said["from"]), (&"pc4".into(), &"pc1".into()));
    let task = give(&house, "for the one that was started").await;
    done(&house, task).await;
    assert_eq!(judge(&history(&house).await, &[task]), ["pc1", "pc4"]);
}

#[tokio::test]
async fn a_member_that_something_stands_by_for_is_started_by_its_own_configuration() {
    let house = TestHouse::with(QUICK).await;
    let folder = tempfile::tempdir().unwrap();
    let (script, own) = (folder.path().join("start.sh"), folder.path().join("own.toml"));
    starts(&house, folder.path(), &script, "pc2").await;
    let _started = Started(folder.path().join("pc2.pid"));
    let entry = format!("[[wakes]]\nagent = \"pc2\"\ncommand = [\"{}\"]\n", script.display());
    fs::write(&own, entry).unwrap();
    let pc1 = process(&house, folder.path(), "pc1").await;
    let token = token_file(&house, folder.path(), "pc2").await;
    let (endpoint, own) = (house.endpoint().to_string(), own.display().to_string());
    let args = ["--standby", "--name", "pc2", "--role", "builder", "--config", &own];
    let args = [&args[..], &["--endpoint", &endpoint, "--token-file", &token]].concat();
    let path = std::env::var("PATH").unwrap_or_default();
    let standby = Program::new("broker-agent").args(&args).env("PATH", path).start().await;
    set_ring(&house, "1h", "pc1,pc2").await;
    let stands =
        until(&house, "who stands by", |ring| ring["members"]["pc2"]["woken_by"] == "standby");
    assert_eq!(stands.await["members"]["pc2"]["connected"], false);

    pc1.signal(Signal::KILL);
    let ring = until_works(&house, "pc2").await;
    assert_eq!(ring["members"]["pc2"]["connected"], true);
    let task = give(&house, "for the one that was started").await;
    done(&house, task).await;
    assert_eq!(judge(&history(&house).await, &[task]), ["pc1", "pc2"]);
    standby.signal(Signal::TERM);
    assert_eq!(standby.finish().await.code, 0);
}
