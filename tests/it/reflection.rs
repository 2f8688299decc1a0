//! For those who come with other tools: reflection, health, and an agent of their own.

use broker_proto::AskOptions;
use broker_tests::{Program, Reader, TestBroker, channel, eventually, question, within};
use rustix::process::Signal;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// What anyone may call.
const SERVICES: [&str; 7] = [
    "broker.v1.AgentLinkService",
    "broker.v1.ConsultService",
    "broker.v1.ContentService",
    "broker.v1.MessageService",
    "broker.v1.RegistryService",
    "broker.v1.UsageService",
    "grpc.health.v1.Health",
];

macro_rules! listed_by {
    ($version:ident, $broker:expr) => {{
        use tonic_reflection::pb::$version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new(channel(&$broker.endpoint()).await);
        let asked = client.server_reflection_info(tokio_stream::iter([request]));
        let mut replies = within("the reflection", asked).await.unwrap().into_inner();
        let reply = within("its answer", replies.message()).await.unwrap().unwrap();
        let Some(MessageResponse::ListServicesResponse(list)) = reply.message_response else {
            panic!("{reply:?}")
        };
        list.service.into_iter().map(|service| service.name).collect::<Vec<String>>()
    }};
}

#[tokio::test]
async fn both_versions_of_reflection_list_every_service() {
    let broker = TestBroker::start().await;
    for listed in [listed_by!(v1, broker), listed_by!(v1alpha, broker)] {
        for service in SERVICES {
            assert!(listed.iter().any(|name| name == service), "{service} in {listed:?}");
        }
    }
}

#[tokio::test]
async fn a_running_broker_is_serving() {
    let broker = TestBroker::start().await;
    let mut health = HealthClient::new(channel(&broker.endpoint()).await);
    let request = HealthCheckRequest { service: String::new() };
    let reply = within("the health", health.check(request)).await.unwrap().into_inner();
    assert_eq!(reply.status(), ServingStatus::Serving);
}

#[tokio::test]
async fn the_example_agent_joins_and_answers() {
    let broker = TestBroker::start().await;
    let token = broker.run(&["token", "create", "parrot"]).await.exits(0).stdout;
    let agent = Program::new("examples/agent")
        .args(&["parrot", "opus"])
        .env("BROKER_AGENT_TOKEN", token.trim())
        .env("BROKER_ENDPOINT", broker.endpoint().to_string())
        .start()
        .await;
    eventually("the parrot", async || {
        let agents = broker.client().agents().await.ok()?;
        agents.iter().any(|agent| agent.name.as_str() == "parrot").then_some(())
    })
    .await;

    let asked = question("opus", "who is there?");
    let mut reader = Reader::ask(&broker.client(), asked, AskOptions::default()).await;
    reader.end().await;

    assert_eq!(reader.text(), "who is there?");
    agent.signal(Signal::INT);
    agent.finish().await.exits(0);
}
