//! What a handoff may meet on its way: each is refused or resolved with a reason, and the session has one owner and all
//! its turns.

use broker_proto::{AcceptHandoff, AskHandoff, Handoff, HandoffFilter, HandoffState, SessionOwner};
use broker_tests::{Plan, ScriptedAgent, brokerctl, eventually};
use futures::future::join_all;

use super::{Talk, ask, model, reason};

const TURNS: [&str; 3] = [super::FACT, "Noted.", "Write the plan."];

/// An agent of `name` that answers no offer by itself.
async fn silent(talk: &Talk, name: &str) -> ScriptedAgent {
    talk.broker.agent_as(Plan::new(name, &[name]).leaves_offers()).await
}

fn word(handoff: &Handoff) -> AcceptHandoff {
    let manifest = handoff.manifest.unwrap();
    AcceptHandoff { id: handoff.id, manifest, confirmed: vec!["current_task".into()] }
}

/// Offered to sonnet, whose agent says nothing.
async fn offered(talk: &Talk) -> Handoff {
    let begun = talk.hand_to("sonnet").await.unwrap();
    talk.once(begun.id, HandoffState::Offered).await
}

/// Nothing has happened to the session.
async fn is_untouched(talk: &Talk) {
    let opus = SessionOwner { model: model("opus"), agent: None, epoch: 1 };
    assert_eq!(talk.owner().await, opus);
    assert_eq!(talk.turns().await, TURNS);
}

/// Three rate limits within a minute: its level is EXHAUSTED.
async fn exhaust(talk: &Talk, name: &str) {
    for _ in 0..3 {
        talk.broker.run(&["usage", "record", "rate-limit", "--model", name]).await.exits(0);
    }
}

#[tokio::test]
async fn every_state_is_passed_in_its_order() {
    let talk = Talk::begin("").await;
    let mut opus = talk.broker.agent("opus", &["opus"]).await;
    let mut sonnet = silent(&talk, "sonnet").await;
    let reader = talk.ask_owner("First.").await;
    let running = opus.next().await;
    let begun = talk.hand_to("sonnet").await.unwrap();
    assert_eq!(begun.state, HandoffState::Building);
    let offered = talk.once(begun.id, HandoffState::Offered).await;
    let waits = talk.ask_owner("Second.").await;

    let accepted = sonnet.client().accept_handoff(word(&offered)).await.unwrap();

    // The old owner ends what it has in hand; what came behind it waits for the new one.
    assert_eq!(accepted.state, HandoffState::Accepted);
    assert_eq!(talk.owner().await.model, model("opus"));
    running.answer("One.").await;
    assert_eq!(reader.whole().await.text(), "One.");
    let active = talk.once(begun.id, HandoffState::Active).await;
    assert_eq!((active.kept.moved, active.kept.revoked), (1, 0));
    sonnet.answer("Two.").await;
    assert_eq!(waits.whole().await.text(), "Two.");
    talk.once(begun.id, HandoffState::Completed).await;
    assert_eq!(talk.owner().await.epoch, 2);
    assert_eq!(talk.turns().await[3..], ["First.", "One.", "Second.", "Two."]);
}

#[tokio::test]
async fn who_declines_or_says_nothing_is_passed_over_with_the_reason() {
    let settings = "[routing]\nagent_grace = \"1ms\"\n[handoff]\noffer_deadline = \"300ms\"";
    let talk = Talk::begin(settings).await;
    let _opus = talk.broker.agent("opus", &["opus"]).await;
    let sonnet = silent(&talk, "sonnet").await;
    let begun = talk.hand_to("sonnet").await.unwrap();

    let expired = talk.once(begun.id, HandoffState::Expired).await;
    assert_eq!(expired.outcome, "sonnet: expired, no answer in time");
    is_untouched(&talk).await;

    let _local = talk.broker.agent("local", &["local"]).await;
    let begun = talk.client.begin_handoff(ask(&talk.id, None)).await.unwrap();
    assert_eq!((begun.to, begun.then), (model("sonnet"), vec![model("local")]));
    let offered = talk.once(begun.id, HandoffState::Offered).await;
    let declined = sonnet.client().decline_handoff(offered.id, "no room".into()).await;
    // Expiry may be faster on a busy machine; either way the next one is asked.
    let reasons = ["no room", "no answer in time"];
    assert!(declined.is_ok() || reason(declined) == "HANDOFF_STATE");
    let active = talk.once(begun.id, HandoffState::Active).await;
    assert_eq!((&active.to, active.tried.len()), (&model("local"), 1));
    assert!(reasons.contains(&active.tried[0].reason.as_str()), "{active:?}");
    assert_eq!(talk.owner().await.epoch, 2);
    assert_eq!(talk.turns().await, TURNS);
}

#[tokio::test]
async fn only_whom_it_is_offered_to_accepts_and_only_what_was_packed() {
    let talk = Talk::begin("").await;
    let _opus = talk.broker.agent("opus", &["opus"]).await;
    let local = silent(&talk, "local").await;
    let sonnet = silent(&talk, "sonnet").await;
    let offered = offered(&talk).await;
    let right = word(&offered);
    let other_hash = AcceptHandoff { manifest: [7; 32], ..right.clone() };

    let refused = local.client().accept_handoff(right.clone()).await;
    assert_eq!(reason(refused), "HANDOFF_NOT_YOURS");
    let refused = sonnet.client().accept_handoff(other_hash.clone()).await;
    assert_eq!(reason(refused), "HANDOFF_MANIFEST");
    is_untouched(&talk).await;

    let first = sonnet.client().accept_handoff(right.clone()).await.unwrap();
    let again = sonnet.client().accept_handoff(right.clone()).await.unwrap();
    assert_eq!((first.state, &again), (HandoffState::Active, &first), "the same answer");
    for (client, accept, why) in [
        (local.client(), right, "HANDOFF_NOT_YOURS"),
        (sonnet.client(), other_hash, "HANDOFF_MANIFEST"),
    ] {
        assert_eq!(reason(client.accept_handoff(accept).await), why);
    }
    let owner = talk.owner().await;
    assert_eq!((owner.model, owner.epoch), (model("sonnet"), 2));
    assert_eq!(talk.turns().await, TURNS);
}

#[tokio::test]
async fn an_acceptance_after_the_expiry_changes_nothing() {
    let talk = Talk::begin("[handoff]\noffer_deadline = \"50ms\"").await;
    let sonnet = silent(&talk, "sonnet").await;
    let begun = talk.hand_to("sonnet").await.unwrap();
    let expired = talk.once(begun.id, HandoffState::Expired).await;
    let package = talk.client.packages(Default::default(), 1, None).await.unwrap().items.remove(0);

    let late = AcceptHandoff { id: expired.id, manifest: package.checksum, confirmed: Vec::new() };
    assert_eq!(reason(sonnet.client().accept_handoff(late).await), "HANDOFF_LATE");

    is_untouched(&talk).await;
}

#[tokio::test]
async fn of_handoffs_of_one_session_at_once_one_begins() {
    let talk = Talk::begin("").await;
    let _sonnet = silent(&talk, "sonnet").await;
    let begun = join_all((0..8).map(|_| talk.hand_to("sonnet"))).await;

    let (begun, refused): (Vec<_>, Vec<_>) = begun.into_iter().partition(Result::is_ok);
    assert_eq!(begun.len(), 1);
    for refused in refused {
        assert_eq!(reason(refused), "HANDOFF_UNDER_WAY");
    }
    is_untouched(&talk).await;
}

#[tokio::test]
async fn what_cannot_be_handed_off_says_why() {
    let tiny = broker_tests::MODELS.to_owned()
        + "[[models]]\nname = \"tiny\"\nprovider = \"ollama\"\nid = \"tiny\"\ncontext_window = 600\n";
    let talk = Talk::begin(&format!("[routing]\nagent_grace = \"1ms\"\n{tiny}")).await;
    let _tiny = silent(&talk, "tiny").await;
    let _opus = silent(&talk, "opus").await;
    for (to, want, said) in [
        ("opus", "HANDOFF_REFUSED", "belongs to opus already"),
        ("tiny", "HANDOFF_REFUSED", "it has room for"),
        ("sonnet", "HANDOFF_REFUSED", "no agent serves it"),
        ("nobody", "UNKNOWN_MODEL", "nobody"),
    ] {
        let refused = talk.hand_to(to).await;
        let text = refused.as_ref().unwrap_err().to_string();
        assert!(text.contains(said), "{to}: {text}");
        assert_eq!(reason(refused), want);
    }
    is_untouched(&talk).await;

    let empty = Talk::empty("").await;
    let _sonnet = silent(&empty, "sonnet").await;
    let refused = empty.hand_to("sonnet").await;
    assert!(refused.as_ref().unwrap_err().to_string().contains("no turns yet"));
    assert_eq!(reason(refused), "HANDOFF_REFUSED");
}

#[tokio::test]
async fn a_package_that_was_taken_once_takes_no_session_over_again() {
    let talk = Talk::begin("").await;
    let _opus = talk.broker.agent("opus", &["opus"]).await;
    let _sonnet = talk.broker.agent("sonnet", &["sonnet"]).await;
    let first = talk.handed_to("sonnet").await;
    talk.handed_to("opus").await;
    let replay = AskHandoff { package: first.package, ..ask(&talk.id, Some("sonnet")) };

    let refused = talk.client.begin_handoff(replay).await;

    assert_eq!(reason(refused), "PACKAGE_REPLAYED");
    let owner = talk.owner().await;
    assert_eq!((owner.model, owner.epoch), (model("opus"), 3));
    assert_eq!(talk.turns().await, TURNS);
}

#[tokio::test]
async fn a_session_is_not_sent_back_and_forth() {
    let talk = Talk::begin("").await;
    let mut opus = talk.broker.agent("opus", &["opus"]).await;
    let mut sonnet = talk.broker.agent("sonnet", &["sonnet"]).await;
    let mut local = talk.broker.agent("local", &["local"]).await;

    exhaust(&talk, "opus").await;
    let first = talk.ask_owner("First.").await;
    sonnet.answer("One.").await;
    first.whole().await;
    assert_eq!(talk.owner().await.model, model("sonnet"));
    talk.broker.run(&["usage", "reset", "--model", "opus"]).await.exits(0);
    exhaust(&talk, "sonnet").await;
    let second = talk.ask_owner("Second.").await;
    opus.answer("Two.").await;
    second.whole().await;
    assert_eq!(talk.owner().await.model, model("opus"));
    talk.broker.run(&["usage", "reset", "--model", "sonnet"]).await.exits(0);
    exhaust(&talk, "opus").await;
    let third = talk.ask_owner("Third.").await;

    // Not to sonnet again, so soon.
    local.answer("Three.").await;
    assert_eq!(third.whole().await.text(), "Three.");

    let owner = talk.owner().await;
    assert_eq!((owner.model, owner.epoch), (model("local"), 4));
    let want = ["First.", "One.", "Second.", "Two.", "Third.", "Three."];
    assert_eq!(talk.turns().await[3..], want);
}

#[tokio::test]
async fn where_nobody_can_take_it_the_session_stays_and_says_until_when() {
    let talk = Talk::begin("").await;
    let mut opus = talk.broker.agent("opus", &["opus"]).await;
    let _sonnet = talk.broker.agent("sonnet", &["sonnet"]).await;
    let _local = talk.broker.agent("local", &["local"]).await;
    for name in ["opus", "sonnet", "local"] {
        exhaust(&talk, name).await;
    }

    let refused = talk.client.begin_handoff(ask(&talk.id, None)).await;
    let text = refused.as_ref().unwrap_err().to_string();
    assert!(text.contains("sonnet: its own limit is reached"), "{text}");
    assert_eq!(reason(refused), "HANDOFF_NOBODY");
    let reader = talk.ask_owner("Still there?").await;
    opus.answer("Yes.").await;

    assert_eq!(reader.whole().await.text(), "Yes.");
    let owner = talk.owner().await;
    assert_eq!((owner.model, owner.epoch), (model("opus"), 1));
}

#[tokio::test]
async fn a_receiver_that_dies_before_its_first_answer_hands_on() {
    let settings = "[routing]\nagent_grace = \"10ms\"\n[handoff]\ncomplete_deadline = \"200ms\"";
    let talk = Talk::begin(settings).await;
    let mut sonnet = talk.broker.agent("sonnet", &["sonnet"]).await;
    let mut local = talk.broker.agent("local", &["local"]).await;
    let active = talk.handed_to("sonnet").await;
    let reader = talk.ask_owner("Go on.").await;
    let work = sonnet.next().await;
    assert_eq!(work.question(), "Go on.");
    sonnet.crash();
    drop(work);

    let failed = talk.once(active.id, HandoffState::Failed).await;
    assert_eq!(failed.outcome, "no agent of sonnet is left to go on");
    local.answer("I do.").await;

    assert_eq!(reader.whole().await.text(), "I do.");
    let owner = eventually("the next owner", async || {
        Some(talk.owner().await).filter(|owner| owner.model == model("local"))
    });
    assert_eq!(owner.await.epoch, 3);
    assert_eq!(talk.turns().await[3..], ["Go on.", "I do."], "asked once, answered once");
}

#[tokio::test]
async fn the_newest_handoffs_of_a_session_are_listed_and_none_of_one_that_is_deleted() {
    let talk = Talk::begin("").await;
    let _sonnet = silent(&talk, "sonnet").await;
    let mut newest = None;
    for _ in 0..260 {
        let begun = talk.hand_to("sonnet").await.unwrap();
        talk.client.decline_handoff(begun.id, "not now".into()).await.unwrap();
        newest = Some(begun.id);
    }
    let listed = async || {
        let all = talk.client.list_handoffs(HandoffFilter::default(), 1_000, None).await;
        all.unwrap().items
    };
    let all = listed().await;
    assert_eq!((all.len(), Some(all[0].id)), (256, newest));

    talk.client.delete_session(&talk.id).await.unwrap();

    assert_eq!(listed().await, []);
}

#[tokio::test]
async fn what_one_process_declines_another_of_its_model_takes() {
    let talk = Talk::begin("").await;
    let _opus = talk.broker.agent("opus", &["opus"]).await;
    let _local = talk.broker.agent("local", &["local"]).await;
    let first = silent(&talk, "sonnet").await;
    let second = talk.broker.agent_as(Plan::new("sonnet-2", &["sonnet"]).leaves_offers()).await;
    let begun = talk.client.begin_handoff(ask(&talk.id, None)).await.unwrap();
    let offered = talk.once(begun.id, HandoffState::Offered).await;

    let declined = first.client().decline_handoff(offered.id, "no room".into()).await.unwrap();
    assert_eq!((declined.state, declined.to), (HandoffState::Offered, model("sonnet")));
    assert_eq!(reason(first.client().accept_handoff(word(&offered)).await), "HANDOFF_NOT_YOURS");
    let taken = second.client().accept_handoff(word(&offered)).await.unwrap();

    assert_eq!(taken.state, HandoffState::Active);
    let owner = talk.owner().await;
    assert_eq!(owner.agent.unwrap().as_str(), "sonnet-2");
    let events =
        ["events", "tail", "--from", "start", "--output", "json", "--filter", "kind=handoff"];
    let mut events = brokerctl(&talk.broker.endpoint()).args(&events).start().await;
    let told = eventually("the event of the switch", async || {
        let line: serde_json::Value = serde_json::from_str(&events.line().await).unwrap();
        let detail = line["detail"].as_str().unwrap().to_owned();
        detail.contains("ACTIVE").then_some(detail)
    })
    .await;
    for part in
        ["opus to sonnet", "tried sonnet (agent sonnet): declined, no room", "kept 3 entries"]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
}
