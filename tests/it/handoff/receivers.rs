//! The agents' side of an offer: taken after verifying, declined with a reason, left alone, taken again after a loss.

use super::{FACT, Talk, heard, model, said};
use broker_proto::{HandoffState, Role, SessionOwner};

#[tokio::test]
async fn a_session_that_is_handed_over_goes_on_with_all_it_needs() {
    let talk = Talk::begin("").await;
    let mut opus = talk.broker.agent("opus", &["opus"]).await;
    let mut sonnet = talk.broker.agent("sonnet", &["sonnet"]).await;

    let active = talk.handed_to("sonnet").await;

    let agent = active.agent.clone();
    assert_eq!(agent.as_ref().map(ToString::to_string).as_deref(), Some("sonnet"));
    assert_eq!(talk.owner().await, SessionOwner { model: model("sonnet"), agent, epoch: 2 });
    let package = talk.client.package(active.package.unwrap()).await.unwrap();
    let parts: Vec<&str> = package.parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(active.confirmed, parts, "each part was verified");
    let times = [Some(active.begun_at), active.offered_at, active.accepted_at, active.active_at];
    assert!(times.iter().all(Option::is_some) && times.is_sorted(), "{times:?}");

    // What is said since the package goes along, too.
    let since = vec![said(Role::User, "Blue paint.")];
    talk.client.append_entries(&talk.id, since, None).await.unwrap();
    let reader = talk.ask_owner("Where is the key?").await;
    let work = sonnet.next().await;
    let heard = heard(work.delivery());
    for needed in [FACT, "handed over to you", "Blue paint.", "Where is the key?"] {
        assert!(heard.contains(needed), "{needed} in {heard}");
    }
    work.answer("At harbour 7.").await;
    assert_eq!(reader.whole().await.text(), "At harbour 7.");

    let completed = talk.once(active.id, HandoffState::Completed).await;
    assert_eq!(completed.outcome, "sonnet answered a turn");
    assert!(opus.at_hand().is_none(), "the old owner was asked nothing");
    let turns = talk.turns().await;
    assert_eq!(turns[0], FACT);
    assert_eq!(turns[3..], ["Blue paint.", "Where is the key?", "At harbour 7."]);
}
