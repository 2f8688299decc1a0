//! Who asks, and whether anybody waits for the answer, makes no difference to when a session moves.

use broker_client::NewSession;
use broker_proto::{AskOptions, HandoffState, SessionId, SessionPoint};
use broker_tests::{eventually, question};

use super::{Talk, heard, model};
use broker_proto::types::APPEND_LABEL;

/// At its own switch threshold: opus's window is 4,000,000 tokens here.
async fn fill(talk: &Talk) {
    let record = ["usage", "record", "tokens", "--model", "opus", "--session", "s"];
    let tokens = ["--input", "3600000", "--output", "0"];
    talk.broker.run(&[&record[..], &tokens[..]].concat()).await.exits(0);
}

#[tokio::test]
async fn a_headless_run_moves_with_its_turn_as_one_that_somebody_waits_for_does() {
    let talk = Talk::begin("").await;
    let mut opus = talk.broker.agent("opus", &["opus"]).await;
    let mut sonnet = talk.broker.agent("sonnet", &["sonnet"]).await;
    fill(&talk).await;

    // Nobody waits for the answer.
    let ask = ["submit", "--session", "s", "--question", "Where is the key?"];
    talk.broker.run(&ask).await.exits(0);

    let work = sonnet.next().await;
    assert!(heard(work.delivery()).contains(super::FACT), "{}", heard(work.delivery()));
    work.answer("At harbour 7.").await;
    let turns = eventually("the answer in the session", async || {
        Some(talk.turns().await).filter(|turns| turns.len() == 5)
    })
    .await;
    assert_eq!(turns[3..], ["Where is the key?", "At harbour 7."]);
    let owner = talk.owner().await;
    assert_eq!((owner.model, owner.epoch), (model("sonnet"), 2));
    assert!(opus.at_hand().is_none(), "opus was asked nothing");
}

#[tokio::test]
async fn a_child_session_moves_as_its_parent_does() {
    let talk = Talk::begin("").await;
    let mut opus = talk.broker.agent("opus", &["opus"]).await;
    let mut sonnet = talk.broker.agent("sonnet", &["sonnet"]).await;
    for _ in 0..3 {
        talk.broker.run(&["usage", "record", "rate-limit", "--model", "opus"]).await.exits(0);
    }
    let child = SessionId::parse("child").unwrap();
    let new = NewSession { id: Some(child.clone()), ..NewSession::default() };
    let forked = talk.client.fork_session(&talk.id, &SessionPoint::Head, new).await.unwrap();
    assert_eq!(forked.owner.model, model("opus"));

    let mut message = question("opus", "Look into it.");
    message.session = Some(child.to_string());
    message.labels.insert(APPEND_LABEL.to_owned(), "turn".to_owned());
    talk.client.submit(message, AskOptions::default()).await.unwrap();
    sonnet.answer("Looked.").await;
    let moved = eventually("the child at sonnet", async || {
        let now = talk.client.session(&child, &SessionPoint::Head).await.unwrap().info;
        (now.owner.model == model("sonnet") && now.head.entries == 5).then_some(now)
    })
    .await;
    assert_eq!(moved.owner.epoch, 2);
    assert_eq!(talk.owner().await.model, model("opus"), "the parent was asked nothing");

    let reader = talk.ask_owner("And you?").await;
    sonnet.answer("I, too.").await;
    reader.whole().await;
    let of_parent = talk.client.list_handoffs(broker_proto::HandoffFilter::default(), 9, None);
    let all = of_parent.await.unwrap().items;
    assert_eq!(all.len(), 2);
    let why: Vec<_> = all.iter().map(|it| (it.trigger.kind, &it.trigger.reasoning)).collect();
    assert_eq!(why[0], why[1], "one rule for both");
    assert!(all.iter().all(|it| it.state == HandoffState::Completed), "{all:?}");
    assert!(opus.at_hand().is_none(), "opus was asked nothing");
}
