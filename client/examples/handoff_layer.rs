//! A program that asks in a session and lets a layer look after its window: it is told from the warning threshold on, a
//! package is kept ready near the limit, and at the switch threshold the session moves before the question is asked. What
//! is asked and answered is a turn of the session.
//!
//! `cargo run -p broker-client --example handoff_layer -- unix:/path/to/broker.sock SESSION "the question"`

#![expect(clippy::print_stdout, reason = "an example shows its answer")]

use broker_client::{
    Client, Endpoint,
    layer::{Ask, Consultations, HandoffLayer, Notice, Reach},
};
use broker_proto::{AskOptions, Message, MessageId, Part, Payload, SessionId, SessionPoint};
use tower::{Layer as _, ServiceExt as _};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(socket), Some(session), Some(question)) = (args.next(), args.next(), args.next())
    else {
        anyhow::bail!("usage: handoff_layer unix:SOCKET SESSION QUESTION");
    };
    let socket = socket.strip_prefix("unix:").unwrap_or(&socket);
    let client = Client::connect(&Endpoint::unix(socket)).await?;
    let session = SessionId::parse(&session)?;
    let owner = client.session(&session, &SessionPoint::Head).await?.info.owner.model;

    let layer = HandoffLayer::new(client.clone(), Reach::Move).telling(|notice| match notice {
        Notice::Level { due, check } => eprintln!("{due:?}: {}", check.detail),
        Notice::Prepared { to } => eprintln!("a package for {to} is kept ready"),
        Notice::Handoff(handoff) => eprintln!("{} to {}", handoff.state.as_str(), handoff.to),
        Notice::Failed(error) => eprintln!("asked all the same: {error}"),
    });
    let service = layer.layer(Consultations::new(client));

    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|err| anyhow::anyhow!("no randomness: {err}"))?;
    let id = MessageId::from_u128(u128::from_be_bytes(random));
    let payload = Payload { request: vec![Part::text(question)], ..Payload::default() };
    let mut message = Message::consultation(id, owner, payload);
    message.session = Some(session.to_string());
    let answer = service.oneshot(Ask::new(message, AskOptions::default())).await?;
    println!("{}", answer.text());
    Ok(())
}
