//! Pings from model to model, through their agents.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use broker_client::{
    Client,
    link::{AgentOptions, PingHook},
};
use broker_proto::{AgentName, Down, ModelName, PeerPing, PingText, Up};
use broker_tests::{RawLink, ScriptedAgent, TestBroker, TestHouse, hello, within};

fn ping(from: &str, to: &str) -> PeerPing {
    let model = |name| ModelName::parse(name).unwrap();
    let text = PingText("are you there?".into());
    PeerPing { from: model(from), to: model(to), text, wait: None }
}

#[tokio::test]
async fn a_ping_goes_through_both_agents_and_calls_no_provider() {
    let house = TestHouse::start().await;
    let between = ["ping", "--from", "opus", "--to", "sonnet", "--message", "are you there?"];

    let json = [&between[..], &["--output", "json"]].concat();
    let json = house.run(&json).await.exits(0).json();
    let hops = json["hops"].as_array().unwrap();
    let agents: Vec<_> = hops.iter().map(|hop| hop["agent"].as_str().unwrap()).collect();
    assert_eq!(agents, ["opus", "sonnet", "opus"]);
    assert!(hops.iter().all(|hop| hop["ms"].as_f64().unwrap() > 0.0), "{json}");
    let (trip, total) = (&json["round_trip_ms"], &json["total_ms"]);
    assert!(trip.as_f64().unwrap() <= total.as_f64().unwrap(), "{json}");
    let shown = house.run(&between).await.exits(0).stdout;
    assert!(shown.contains("broker -> sonnet -> broker"), "{shown}");
    house.run(&["ping", "--from", "opus"]).await.exits(2);
    house.run(&["ping", "opus", "--from", "opus", "--to", "sonnet"]).await.exits(2);
    assert_eq!(house.sim.calls().await.len(), 0);
    assert!(!house.log().contains("are you there"), "its text is content");
}

#[tokio::test]
async fn the_pinged_agent_sees_who_pings_and_what_it_says() {
    let broker = TestBroker::start().await;
    let _from = broker.agent("from", &["opus"]).await;
    let name = AgentName::parse("to").unwrap();
    let token = broker.client().create_token(&name).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shown = Arc::clone(&seen);
    let hook = PingHook::new(move |from, text| {
        shown.lock().unwrap().push(format!("{from}: {text}"));
    });
    let sonnet = vec![ModelName::parse("sonnet").unwrap()];
    let mut to = ScriptedAgent::start(AgentOptions {
        on_ping: Some(hook),
        ..AgentOptions::new(broker.endpoint(), name, token, sonnet)
    });
    to.until_linked().await;

    let trip = broker.client().ping_model(ping("opus", "sonnet")).await.unwrap();

    assert_eq!(*seen.lock().unwrap(), ["opus: are you there?"]);
    assert!(trip.round_trip <= trip.total);
    // Also when both sides are one agent.
    let _alone = broker.agent("alone", &["local"]).await;
    broker.client().ping_model(ping("local", "local")).await.unwrap();
}

async fn refused(client: &Client, ping: PeerPing) -> String {
    let error = client.ping_model(ping).await.unwrap_err();
    assert_eq!(error.reason(), Some("NO_AGENT"));
    error.to_string()
}

#[tokio::test]
async fn a_side_that_is_missing_or_silent_is_named() {
    let broker = TestBroker::start().await;
    let client = broker.client();
    let soon = |from, to| PeerPing { wait: Some(Duration::from_millis(50)), ..ping(from, to) };
    let text = refused(&client, ping("opus", "sonnet")).await;
    assert!(text.contains("opus") && text.contains("`from`"), "{text}");
    let _opus = broker.agent("a", &["opus"]).await;
    let text = refused(&client, ping("opus", "sonnet")).await;
    assert!(text.contains("sonnet") && text.contains("`to`"), "{text}");

    let mut mute = RawLink::open(&broker.endpoint()).await;
    mute.greet(hello(&broker.endpoint(), "mute", &["sonnet"]).await).await.unwrap();
    let text = refused(&client, soon("opus", "sonnet")).await;
    assert!(text.contains("mute") && text.contains("`to`"), "{text}");
    let text = refused(&client, soon("sonnet", "opus")).await;
    assert!(text.contains("mute") && text.contains("`from`"), "{text}");
    let unknown = client.ping_model(ping("opus", "oups")).await.unwrap_err();
    assert_eq!(unknown.reason(), Some("UNKNOWN_MODEL"));
}

/// What was not asked for is not passed on, and an agent that leaves ends the wait at once.
#[tokio::test]
async fn a_ping_nobody_asked_for_goes_nowhere() {
    let broker = TestBroker::start().await;
    let mut from = RawLink::open(&broker.endpoint()).await;
    from.greet(hello(&broker.endpoint(), "from", &["opus"]).await).await.unwrap();
    let mut to = RawLink::open(&broker.endpoint()).await;
    to.greet(hello(&broker.endpoint(), "to", &["sonnet"]).await).await.unwrap();
    let sonnet = ModelName::parse("sonnet").unwrap();
    let forged = PingText("forged".into());
    from.say(Up::SendPing { nonce: 99, to: sonnet.clone(), text: forged }).await;

    let client = broker.client();
    let asking = async { client.ping_model(ping("opus", "sonnet")).await.unwrap_err() };
    let playing = async {
        let Down::AskPing { nonce, to: asked, text } = from.hear().await.unwrap() else {
            panic!("asked")
        };
        from.say(Up::SendPing { nonce, to: asked, text }).await;
        let Down::PeerPing { text, .. } = to.hear().await.unwrap() else { panic!("pinged") };
        assert_eq!(text.0, "are you there?", "and not what nobody asked for");
        drop(to);
    };
    let both = Box::pin(async { tokio::join!(asking, playing) });
    let (error, ()) = within("the ping's end", both).await;
    assert!(error.to_string().contains("left before it answered"), "{error}");
}
