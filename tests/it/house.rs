//! `brokerctl up`: what it finds, what it keeps running, and that it leaves nobody behind.

use std::fs;

use broker_agents::sim::{Options, Script, Simulator, Wire};
use broker_tests::{Program, TestHouse, eventually, signal};
use rustix::process::Signal;
use serde_json::json;

fn is_gone(pid: u32) -> bool {
    // A zombie has no command line any more; it is only waiting to be counted.
    fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty())
}

async fn all_gone(processes: Vec<(u32, Vec<String>)>) {
    eventually("every process's end", async || {
        processes.iter().all(|(pid, _)| is_gone(*pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_house_that_is_asked_to_stop_leaves_nobody_behind() {
    let mut house = TestHouse::start().await;
    assert!(house.ready.contains("models: opus, sonnet, gpt-4o, local"), "{}", house.ready);
    let processes = house.processes();
    assert_eq!(processes.len(), 6, "{processes:?}");

    assert_eq!(house.stop(), Some(0));

    all_gone(processes).await;
    assert!(!house.data_dir().join("broker.sock").exists());
    let effective = house.data_dir().join("effective.toml");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(effective).unwrap().permissions());
    assert_eq!(mode & 0o077, 0, "only its owner reads it");
}

#[tokio::test]
async fn a_house_whose_head_is_killed_leaves_nobody_behind() {
    let mut house = TestHouse::start().await;
    let processes = house.processes();

    house.kill();

    all_gone(processes).await;
}

#[tokio::test]
async fn everything_that_falls_over_is_started_again() {
    let house = TestHouse::start().await;
    house.ask("opus", &[]).await.exits(0);
    let before = house.processes();
    for (pid, _) in &before {
        signal(*pid, Signal::KILL);
    }

    eventually("every process again", async || {
        let now = house.processes();
        let is_new = now.iter().all(|(pid, _)| before.iter().all(|(old, _)| old != pid));
        (is_new && now.len() == before.len()).then_some(())
    })
    .await;

    let config = ["models", "--output", "json"];
    eventually("agents for every model", async || {
        let models = house.run(&config).await;
        let ready = models.code == 0
            && models.json()["models"].as_array().unwrap().iter().all(|m| m["reason"] == json!(""));
        ready.then_some(())
    })
    .await;
    house.ask("opus", &[]).await.exits(0);
    let listed = house.run(&["message", "list", "--output", "json"]).await.exits(0).json();
    assert_eq!(listed["messages"].as_array().unwrap().len(), 2, "what was asked before is there");
}

#[tokio::test]
async fn a_second_house_in_the_same_folder_is_refused() {
    let house = TestHouse::start().await;
    let data = house.data_dir().display().to_string();

    let second = Program::new("brokerctl").args(&["up", "--simulated", "--data-dir", &data]);
    let refused = second.output().await.exits(1);

    assert!(refused.stderr.contains("already runs"), "{refused:?}");
    house.ask("opus", &[]).await.exits(0);
}

#[tokio::test]
async fn without_simulation_up_starts_what_it_finds_and_says_what_is_missing() {
    let options = Options { script: Script::fast(), ..Options::default() };
    let sim = Simulator::start(options).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let model = |name: &str, provider: &str, id: &str, wire| {
        let base_url = sim.base_url(wire);
        format!(
            "[[models]]\nname = \"{name}\"\nprovider = \"{provider}\"\nid = \"{id}\"\n\
             base_url = \"{base_url}\"\n"
        )
    };
    let models = model("opus", "anthropic", "claude-opus-5-5", Wire::Anthropic)
        + &model("gpt-4o", "openai", "gpt-4o", Wire::OpenAi)
        + &model("local", "ollama", "llama3.2", Wire::Ollama);
    fs::write(path("my.toml"), models).unwrap();

    let mut up = Program::new("brokerctl")
        .args(&["up", "--config", &path("my.toml"), "--data-dir", &path("data")])
        .env("ANTHROPIC_API_KEY", "a-key")
        .start()
        .await;
    let ready = up.line().await;
    assert!(ready.ends_with("models: opus, local"), "{ready}");
    let endpoint = format!("unix:{}", path("data/broker.sock"));
    let ask = ["--endpoint", &endpoint, "consult", "-m", "opus", "-q", "hi", "--output", "json"];
    let reply = Program::new("brokerctl").args(&ask).output().await.exits(0).json();
    assert_eq!((&reply["model"], &reply["simulated"]), (&json!("opus"), &json!(false)));

    up.signal(Signal::INT);
    let said = up.finish().await.exits(0).stderr;
    assert!(said.contains("OPENAI_API_KEY") && said.contains("gpt-4o"), "{said}");
}

#[tokio::test]
async fn the_demo_holds_all_it_promises() {
    let demo = Program::new("brokerctl").args(&["demo", "--json"]).output().await;
    let json = demo.exits(0).json();
    assert_eq!(json["ok"], true);
    for expectation in json["expectations"].as_array().unwrap() {
        assert_eq!(expectation["ok"], true, "{expectation}");
        assert!(expectation["name"].is_string() && expectation["detail"].is_string());
    }
}

#[tokio::test]
async fn an_agent_that_is_asked_to_stop_finishes_its_answer_first() {
    let house = TestHouse::with("[simulator]\ntokens_per_second = 60\n").await;
    let mut asking = house.start_command(&["consult", "-m", "opus", "-q", "hi"]).await;
    asking.first_bytes().await;

    signal(house.agent_process("opus"), Signal::TERM);

    asking.finish().await.exits(0);
    assert_eq!(house.sim.calls().await.len(), 1);
    eventually("its end and its new start in the log", async || {
        house.log().contains("opus ended; starting it again").then_some(())
    })
    .await;
}
