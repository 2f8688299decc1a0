//! Who may serve under a name: said to the agent, and on the house's log.

use broker_tests::{Program, TestHouse, eventually};

const TWO: &str = r#"
[[models]]
name = "opus"
provider = "anthropic"
id = "claude-opus-5-5"
[[models]]
name = "sonnet"
provider = "anthropic"
id = "claude-sonnet-5-5"
"#;

fn agent(house: &TestHouse, token: Option<&str>) -> Program {
    let endpoint = house.endpoint().to_string();
    let config = house.data_dir().join("effective.toml").display().to_string();
    let args = [
        "--config",
        &config,
        "--model",
        "opus",
        "--name",
        "opus",
        "--exclusive",
        "--endpoint",
        &endpoint,
    ];
    let agent = Program::new("broker-agent").args(&args).env("ANTHROPIC_API_KEY", "simulated");
    match token {
        Some(token) => agent.env("BROKER_AGENT_TOKEN", token),
        None => agent,
    }
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_said_on_both_sides() {
    let house = TestHouse::with(TWO).await;

    let refused = agent(&house, Some("not-the-token")).output().await.exits(11);

    assert!(refused.stderr.contains("brokerctl token create opus"), "{refused:?}");
    assert!(!refused.stderr.contains("not-the-token"), "{refused:?}");
    eventually("the refusal in the log", async || {
        house.log().contains("this token is nobody's").then_some(())
    })
    .await;
    assert!(!house.log().contains("not-the-token"));
    house.ask("opus", &[]).await.exits(0);
}

#[tokio::test]
async fn no_token_is_refused_with_the_way_to_one() {
    let house = TestHouse::with(TWO).await;
    let refused = agent(&house, None).output().await.exits(1);
    assert!(refused.stderr.contains("BROKER_AGENT_TOKEN"), "{refused:?}");
    assert!(refused.stderr.contains("brokerctl token create"), "{refused:?}");
}

#[tokio::test]
async fn a_second_agent_under_an_exclusive_name_takes_over_and_both_are_told() {
    let house = TestHouse::with(TWO).await;
    let token = house.run(&["token", "create", "opus"]).await.exits(0).stdout;

    let second = agent(&house, Some(token.trim())).start().await;

    eventually("the supersession in the log", async || {
        let log = house.log();
        let told = log.contains("superseded: a newer process serves as `opus`")
            && log.contains("opus failed with exit code 10");
        told.then_some(())
    })
    .await;
    assert!(house.log().contains("not started again"), "{}", house.log());
    house.ask("opus", &[]).await.exits(0);
    let agents = house.run(&["agents", "--output", "json"]).await.exits(0).json();
    assert_eq!(agents["agents"].as_array().unwrap().len(), 2, "{agents}");
    second.signal(rustix::process::Signal::TERM);
    second.finish().await.exits(0);
}
