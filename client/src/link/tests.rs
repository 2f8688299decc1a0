//! The link against a broker that says what the test says.

use std::time::Duration;

use broker_proto::{
    AgentName, AnswerFrame, Down, FailureClass, FrameCounter, ModelName, Part, RefusedFrame,
    SettleOutcome, SettledFrame, Up, Usage,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::*;
use crate::fake::{FakeBroker, FakeLink, delivery, soon};

fn options(broker: &FakeBroker) -> AgentOptions {
    let model = ModelName::parse("opus").unwrap();
    let name = AgentName::parse("worker").unwrap();
    AgentOptions {
        capacity: 2,
        byte_credit: 1000,
        reconnect_min: Duration::from_millis(1),
        reconnect_max: Duration::from_millis(20),
        ..AgentOptions::new(broker.endpoint(), name, "token-canary".into(), vec![model])
    }
}

/// An agent that has one delivery in hand, and the broker's end of its link.
async fn working() -> (FakeBroker, FakeLink, Agent, Job) {
    let mut broker = FakeBroker::start();
    let mut agent = Agent::start(options(&broker));
    let mut link = broker.link().await;
    link.welcome().await;
    link.deliver(delivery("lease-1")).await;
    let job = soon(agent.next()).await.unwrap();
    (broker, link, agent, job)
}

fn answer(text: &str) -> SettleOutcome {
    SettleOutcome::Done { parts: vec![Part::text(text)], stop_reason: None }
}

fn status(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "broker.v1", []);
    Status::with_error_details(code, "no", details)
}

/// Settles while the broker's side does what it does.
async fn settling<T>(
    job: Job,
    outcome: SettleOutcome,
    broker_side: impl Future<Output = T>,
) -> (Result<(), SettleError>, T) {
    let settle = job.settle(outcome, Report::default());
    soon(Box::pin(async { tokio::join!(settle, broker_side) })).await
}

/// What a part frame up adds: its text and where that begins.
fn text_of(up: Up) -> Option<(u64, String)> {
    match up {
        Up::Part { delivery: 7, frame: AnswerFrame::PartDelta { offset, data, .. } } => {
            Some((offset, String::from_utf8(data.to_vec()).unwrap()))
        }
        _ => None,
    }
}

#[tokio::test]
async fn an_agent_greets_and_grants_its_credit() {
    let mut broker = FakeBroker::start();
    let _agent = Agent::start(options(&broker));
    let mut link = broker.link().await;

    let hello = link.welcome().await;

    assert_eq!((hello.agent.as_str(), hello.token.as_str()), ("worker", "token-canary"));
    assert_eq!((hello.capacity, hello.resume.len()), (2, 0));
    assert_eq!(link.hear().await, Up::Credit { messages: 2, size_bytes: 1000 });
}

#[tokio::test]
async fn an_answer_streams_and_settles_and_its_credit_comes_back() {
    let (_broker, mut link, _agent, job) = working().await;

    job.start_part(0, Part::text("")).await;
    job.delta(0, "one ").await;
    job.delta(0, "two").await;
    let report =
        Report { usage: Usage { output_tokens: Some(2), ..Usage::default() }, ..Report::default() };
    let broker_side = async {
        assert!(matches!(link.hear_work().await, Up::Part { .. }));
        // What waits together is said together.
        let mut heard = String::new();
        while heard != "one two" {
            let (offset, text) = text_of(link.hear_work().await).unwrap();
            assert_eq!(offset, heard.len() as u64);
            heard += &text;
        }
        let settlement = link.settlements().await.remove(0);
        assert_eq!(
            (settlement.lease.as_str(), &settlement.outcome),
            ("lease-1", &answer("one two"))
        );
        assert_eq!(settlement.usage.output_tokens, Some(2));
        link.settled("lease-1").await;
        link
    };
    let (settled, mut link) =
        soon(Box::pin(async { tokio::join!(job.settle(answer("one two"), report), broker_side) }))
            .await;

    settled.unwrap();
    assert_eq!(link.hear().await, Up::Credit { messages: 1, size_bytes: 0 });
}

#[tokio::test]
async fn a_reconnect_keeps_the_lease_and_says_the_text_again() {
    let (mut broker, mut link, mut agent, job) = working().await;
    job.start_part(0, Part::text("")).await;
    job.delta(0, "one ").await;
    link.hear_work().await;
    drop(link);

    job.delta(0, "two ").await;
    let mut link = broker.link().await;
    let hello = link.welcome().await;
    let mut again = Vec::new();
    while again.iter().map(|(_, text): &(u64, String)| text.len()).sum::<usize>() < 8 {
        again.extend(text_of(link.hear_work().await));
    }
    job.delta(0, "three").await;

    assert_eq!(hello.resume, ["lease-1"]);
    assert_eq!(again[0].0, 0);
    assert_eq!(again.iter().map(|(_, text)| text.as_str()).collect::<String>(), "one two ");
    assert_eq!(text_of(link.hear_work().await), Some((8, "three".into())));
    assert!(!job.cancelled().is_cancelled());
    drop(job);
    drop(link);
    agent.drain(Duration::ZERO).await;
}

#[tokio::test]
async fn a_reconnect_grants_only_the_credit_that_is_not_in_hand() {
    let (mut broker, link, _agent, _job) = working().await;
    drop(link);
    let mut link = broker.link().await;
    link.welcome().await;
    assert_eq!(link.hear().await, Up::Credit { messages: 1, size_bytes: 1000 });
}

#[tokio::test]
async fn the_instance_stays_over_a_reconnect_and_differs_between_processes() {
    let mut broker = FakeBroker::start();
    let _agent = Agent::start(options(&broker));
    let mut link = broker.link().await;
    let first = link.welcome().await.instance;
    drop(link);
    let again = broker.link().await.welcome().await.instance;
    let mut other = FakeBroker::start();
    let _other = Agent::start(options(&other));
    let next = other.link().await.welcome().await.instance;
    assert_eq!(first, again);
    assert_ne!(first, next);
}

#[tokio::test]
async fn a_lease_that_did_not_survive_the_reconnect_is_lost() {
    let (mut broker, link, _agent, job) = working().await;
    drop(link);
    let mut link = broker.link().await;
    link.welcome_with(|_| Vec::new(), Duration::from_secs(3600)).await;

    soon(job.cancelled().cancelled()).await;
    let settled = soon(job.settle(answer("late"), Report::default())).await;

    assert!(matches!(settled, Err(SettleError::LeaseLost)));
}

#[tokio::test]
async fn a_settlement_without_an_answer_is_made_again_after_a_reconnect() {
    let (mut broker, mut link, _agent, job) = working().await;
    let broker_side = async {
        let first = link.settlements().await;
        drop(link);
        let mut link = broker.link().await;
        // The broker may have counted it before the connection broke: then the lease is no more.
        let hello = link.welcome_with(|_| Vec::new(), Duration::from_secs(3600)).await;
        assert_eq!(hello.resume, ["lease-1"]);
        let second = link.settlements().await;
        link.settled("lease-1").await;
        (first, second, link)
    };
    let (settled, (first, second, _link)) = settling(job, answer("x"), broker_side).await;
    settled.unwrap();
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_superseded_agent_ends_for_good() {
    let (_broker, link, mut agent, job) = working().await;

    link.refuse(status(Code::Aborted, "SUPERSEDED")).await;

    assert!(soon(agent.next()).await.is_none());
    soon(agent.state().wait_for(|state| matches!(state, LinkState::Ended))).await.unwrap();
    assert!(matches!(agent.ended(), Some(Ended::Superseded)));
    assert!(job.cancelled().is_cancelled());
    assert!(matches!(
        job.settle(answer("x"), Report::default()).await,
        Err(SettleError::LeaseLost)
    ));
}

#[tokio::test]
async fn a_rejected_token_ends_for_good_and_any_other_refusal_does_not() {
    let mut broker = FakeBroker::start();
    let mut agent = Agent::start(options(&broker));
    broker.link().await.refuse(status(Code::Unavailable, "STOPPING")).await;
    broker.link().await.refuse(status(Code::Internal, "JOURNAL")).await;
    broker.link().await.refuse(status(Code::Unauthenticated, "TOKEN_REJECTED")).await;

    assert!(soon(agent.next()).await.is_none());
    soon(agent.state().wait_for(|state| matches!(state, LinkState::Ended))).await.unwrap();
    let Some(Ended::Refused(error)) = agent.ended() else { panic!("{:?}", agent.ended()) };
    assert_eq!(error.reason(), Some("TOKEN_REJECTED"));
    assert!(!format!("{agent:?}{error:?}").contains("canary"));
}

#[tokio::test]
async fn an_agent_waits_for_a_broker_that_is_not_there_yet() {
    let mut broker = FakeBroker::start();
    broker.stop().await;
    let agent = Agent::start(options(&broker));
    let is_refused = |state: &LinkState| match state {
        LinkState::Connecting { error: Some(error), .. } => error.is_connection(),
        _ => false,
    };
    soon(agent.state().wait_for(is_refused)).await.unwrap();
    broker.listen();
    let mut link = broker.link().await;
    link.welcome().await;
    soon(agent.state().wait_for(|state| matches!(state, LinkState::Connected))).await.unwrap();
}

#[tokio::test]
async fn draining_lets_a_running_job_settle_and_says_goodbye() {
    let (_broker, mut link, mut agent, job) = working().await;
    link.hear().await;
    let broker_side = async {
        // Delivered by credit from before the drain: given back at once.
        link.deliver(delivery("lease-2")).await;
        let released = link.settlements().await.remove(0);
        assert_eq!(
            (released.lease.as_str(), released.outcome),
            ("lease-2", SettleOutcome::Release)
        );
        let settling = job.settle(answer("x"), Report::default());
        let answering = async {
            assert_eq!(link.settlements().await[0].lease, "lease-1");
            link.settled("lease-1").await;
        };
        tokio::join!(settling, answering).0.unwrap();
        assert!(matches!(link.hear().await, Up::Bye { .. }), "and no credit before it");
        assert!(link.is_closed().await);
        drop(link);
    };
    let mut state = agent.state();
    let drain = agent.drain(Duration::from_secs(60));
    let ordered = async {
        state.wait_for(|state| matches!(state, LinkState::Draining)).await.unwrap();
        broker_side.await;
    };
    soon(Box::pin(async { tokio::join!(drain, ordered) })).await;
    assert!(matches!(agent.ended(), Some(Ended::Drained)));
    assert!(agent.next().await.is_none());
}

#[tokio::test]
async fn what_does_not_settle_within_the_grace_is_given_back() {
    let (_broker, mut link, mut agent, job) = working().await;
    let broker_side = async {
        let released = link.settlements().await.remove(0);
        assert_eq!(
            (released.lease.as_str(), released.outcome),
            ("lease-1", SettleOutcome::Release)
        );
        assert!(matches!(link.hear().await, Up::Bye { .. }));
        drop(link);
    };
    soon(async { tokio::join!(agent.drain(Duration::ZERO), broker_side) }).await;
    assert!(job.cancelled().is_cancelled());
}

fn drain(is_over: bool, reconnect_after: Option<Duration>) -> Down {
    Down::Drain { reason: "restart".into(), until: None, reconnect_after, is_over }
}

#[tokio::test]
async fn a_drain_that_is_over_is_none() {
    let (_broker, mut link, agent, _job) = working().await;
    for (is_over, want) in [(false, "Draining"), (true, "Connected")] {
        link.say(drain(is_over, None)).await;
        let mut state = agent.state();
        soon(state.wait_for(|state| format!("{state:?}") == want)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_comes_back_when_the_broker_asked_it_to() {
    let (mut broker, mut link, agent, job) = working().await;
    link.say(drain(false, Some(Duration::from_secs(8)))).await;
    soon(agent.state().wait_for(|state| matches!(state, LinkState::Draining))).await.unwrap();
    let since = tokio::time::Instant::now();
    drop(link);

    let mut link = broker.link().await;

    let took = since.elapsed();
    assert!((8..=10).contains(&took.as_secs()), "{took:?}");
    link.welcome().await;
    drop(job);
}

#[tokio::test]
async fn a_process_that_comes_back_says_where_its_link_ended() {
    let (mut broker, mut link, _agent, _job) = working().await;
    assert!(matches!(link.hear().await, Up::Credit { .. }));
    drop(link);

    let hello = broker.link().await.welcome().await;

    // The welcome and the delivery.
    assert_eq!((hello.resume_token.as_deref(), hello.resume_seen), (Some("resume-1"), 2));
}

#[tokio::test]
async fn a_resume_token_that_is_refused_is_not_shown_again() {
    let (mut broker, link, _agent, _job) = working().await;
    drop(link);
    let mut link = broker.link().await;
    assert!(matches!(link.hear().await, Up::Hello(hello) if hello.resume_token.is_some()));
    link.refuse(status(Code::FailedPrecondition, "RESUME_REJECTED")).await;

    assert_eq!(broker.link().await.welcome().await.resume_token, None);
}

#[tokio::test]
async fn a_frame_out_of_turn_ends_the_link_and_the_next_one_goes_on() {
    for skipped in [true, false] {
        let (mut broker, mut link, _agent, job) = working().await;
        link.counter = if skipped { skip(link.counter) } else { FrameCounter::default() };
        link.say(Down::Ping { nonce: 1 }).await;

        let hello = broker.link().await.welcome().await;

        assert_eq!((hello.resume, hello.resume_seen), (vec!["lease-1".to_owned()], 2));
        assert!(!job.cancelled().is_cancelled());
    }
}

fn skip(mut counter: FrameCounter) -> FrameCounter {
    counter.say();
    counter
}

#[tokio::test]
async fn a_broker_that_stops_is_met_again_with_the_leases_kept() {
    let (mut broker, mut link, agent, job) = working().await;
    link.say(drain(false, None)).await;
    soon(agent.state().wait_for(|state| matches!(state, LinkState::Draining))).await.unwrap();
    drop(link);
    broker.stop().await;
    broker.listen();

    let mut link = broker.link().await;

    assert_eq!(link.welcome().await.resume, ["lease-1"]);
    soon(agent.state().wait_for(|state| matches!(state, LinkState::Connected))).await.unwrap();
    assert!(!job.cancelled().is_cancelled());
}

#[tokio::test]
async fn a_job_that_is_dropped_is_given_back() {
    let (_broker, mut link, _agent, job) = working().await;
    drop(job);
    let released = link.settlements().await.remove(0);
    assert_eq!((released.lease.as_str(), released.outcome), ("lease-1", SettleOutcome::Release));
    link.settled("lease-1").await;
    assert_eq!(link.hear().await, Up::Credit { messages: 1, size_bytes: 0 });
}

#[tokio::test]
async fn a_cancel_and_a_revoke_fire_the_jobs_token_and_only_its_usage_is_told() {
    for is_cancel in [true, false] {
        let (_broker, mut link, _agent, job) = working().await;
        link.hear().await;
        let (lease, reason) = ("lease-1".to_owned(), String::new());
        link.say(match is_cancel {
            true => Down::Cancel { lease, reason },
            false => Down::Revoke { lease, reason },
        })
        .await;
        soon(job.cancelled().cancelled()).await;

        let usage = Usage { output_tokens: Some(3), ..Usage::default() };
        job.abandon(Report { usage, ..Report::default() }).await;

        assert_eq!(link.hear().await, Up::Credit { messages: 1, size_bytes: 0 });
        let Up::Usage { usage: told, .. } = link.hear().await else { panic!("only the usage") };
        assert_eq!(told, usage);
    }
}

#[tokio::test]
async fn a_settlement_refused_for_its_lease_is_a_lost_lease() {
    let (_broker, mut link, _agent, job) = working().await;
    let broker_side = async {
        link.settlements().await;
        let refused = Some(RefusedFrame { reason: "LEASE_LOST".into(), detail: String::new() });
        link.say(Down::Settled(SettledFrame {
            lease: "lease-1".into(),
            refused,
            is_repeated: false,
        }))
        .await;
        link
    };
    let (settled, _link) = settling(job, answer("x"), broker_side).await;
    assert!(matches!(settled, Err(SettleError::LeaseLost)));
}

#[tokio::test]
async fn large_parts_of_an_answer_are_stored_before_the_settlement() {
    let (broker, mut link, _agent, job) = working().await;
    let text = "x".repeat(100 * 1024);
    let broker_side = async {
        let settlement = link.settlements().await.remove(0);
        link.settled("lease-1").await;
        (settlement, link)
    };
    let (settled, (settlement, _link)) = settling(job, answer(&text), broker_side).await;
    settled.unwrap();
    let SettleOutcome::Done { parts, .. } = settlement.outcome else { panic!("it is done") };
    let [Part::Ref(part)] = parts[..] else { panic!("{parts:?}") };
    let stored = crate::Client::lazy(&broker.endpoint()).fetch(part).await.unwrap();
    assert_eq!(stored, Part::Text(text));
}

#[tokio::test]
async fn parts_named_by_hash_are_inline_when_the_job_comes() {
    let (broker, mut link, mut agent, _job) = working().await;
    let mut named = delivery("lease-2");
    named.message.payload.request = vec![broker.keep(Part::text("from the store"))];

    link.deliver(named).await;

    let job = soon(agent.next()).await.unwrap();
    assert_eq!(job.delivery().message.payload.request, [Part::text("from the store")]);
}

#[tokio::test]
async fn content_that_is_not_what_its_hash_says_fails_the_delivery() {
    let (broker, mut link, _agent, _job) = working().await;
    let mut named = delivery("lease-2");
    named.message.payload.request = vec![broker.keep(Part::text("right"))];
    broker.script().content.lock().unwrap().values_mut().for_each(|kept| kept.push(0));

    link.deliver(named).await;

    let settlement = link.settlements().await.remove(0);
    let SettleOutcome::Failed { failure, .. } = settlement.outcome else { panic!("it failed") };
    assert_eq!((settlement.lease.as_str(), failure.class), ("lease-2", FailureClass::Internal));
}

#[tokio::test]
async fn more_than_was_granted_is_given_back() {
    let (_broker, mut link, mut agent, _job) = working().await;
    link.deliver(delivery("lease-2")).await;
    link.deliver(delivery("lease-3")).await;
    assert_eq!(link.settlements().await[0].lease, "lease-3");
    assert_eq!(soon(agent.next()).await.unwrap().delivery().lease, "lease-2");
}

#[tokio::test]
async fn heartbeats_name_the_leases_and_pings_are_answered() {
    let (mut broker, link, _agent, job) = working().await;
    drop(link);
    let mut link = broker.link().await;
    link.welcome_with(|hello| hello.resume.clone(), Duration::from_millis(5)).await;
    link.say(Down::Ping { nonce: 9 }).await;

    let (mut beats, mut pongs) = (0, 0);
    while beats < 2 || pongs < 1 {
        match link.hear_work().await {
            Up::Heartbeat { leases } => {
                assert_eq!(leases, ["lease-1"]);
                beats += 1;
                assert!(beats < 1000, "the pong is not left behind");
            }
            up => {
                assert_eq!(up, Up::Pong { nonce: 9 });
                pongs += 1;
            }
        }
    }
    drop(job);
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_nobody_answers_is_made_again_after_ten_seconds() {
    let mut broker = FakeBroker::start();
    let _agent = Agent::start(options(&broker));
    let silent = broker.link().await;
    let since = tokio::time::Instant::now();

    broker.link().await.welcome().await;

    assert!(since.elapsed() >= Duration::from_secs(9), "{:?}", since.elapsed());
    drop(silent);
}

#[tokio::test]
async fn heartbeats_name_work_that_moves_and_not_work_that_hangs() {
    for moves in [true, false] {
        let (mut broker, link, _agent, job) = working().await;
        drop(link);
        let mut work = job.watch(std::future::pending::<()>());
        let mut link = broker.link().await;
        link.welcome_with(|hello| hello.resume.clone(), Duration::from_millis(5)).await;
        let hear = async {
            let mut named = 0;
            for _ in 0..20 {
                if let Up::Heartbeat { leases } = link.hear_work().await {
                    named += leases.len();
                }
            }
            named
        };
        let named = if moves {
            tokio::select! { () = &mut work => 0, named = hear => named }
        } else {
            hear.await
        };
        assert_eq!(named, if moves { 20 } else { 2 });
    }
}
