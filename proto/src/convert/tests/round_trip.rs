//! What goes out comes back the same.

use std::{fmt::Debug, time::Duration};

use proptest::prelude::*;

use super::sample;
use crate::{
    AgentInfo, AnswerFrame, AnswerSummary, AskOptions, Attempt, Correlation, Counters, DeadLetter,
    Delivery, Down, Drain, DrainStep, Draining, Entry, EventFilter, EventInfo, Extension,
    FailureClass, FailureScope, Generation, Hello, LettersHandled, Message, MessageChange,
    MessageId, MessageInfo, MessageName, MessageState, MessageType, ModelInfo, ModelUsage, Part,
    PassedOver, Payload, PingText, PingTrip, Pong, Priority, Provenance, Pull, QueueInfo,
    RateLimit, Receipt, Recipient, RefusedFrame, ResultType, Role, RouteExplanation, Routed,
    Sender, SettleOutcome, SettledFrame, Settlement, Stamp, StatusNotice, StopReason, TaskChange,
    TaskDetail, TaskExchange, TaskInfo, TaskSpec, TaskState, TokenInfo, ToolChoice, TraceStep,
    Trial, Up, Usage, WallTime, Welcome, pb,
};

#[track_caller]
fn check<W, D>(values: impl IntoIterator<Item = D>)
where
    D: Clone + Debug + PartialEq + Into<W> + TryFrom<W>,
    <D as TryFrom<W>>::Error: Debug,
{
    for value in values {
        let wire: W = value.clone().into();
        assert_eq!(D::try_from(wire).unwrap(), value);
    }
}

#[test]
fn content_survives_the_wire() {
    check::<pb::Part, Part>(sample::parts());
    check::<pb::Entry, Entry>(sample::payload().context);
    check::<pb::Generation, Generation>([sample::payload().generation, Generation::default()]);
    check::<pb::Payload, Payload>([sample::payload(), Payload::default()]);
}

#[test]
fn statuses_survive_the_wire() {
    check::<pb::StatusNotice, StatusNotice>(sample::statuses());
}

#[test]
fn events_and_traces_survive_the_wire() {
    let bare = EventInfo {
        message: None,
        model: None,
        agent: None,
        session: None,
        detail: String::new(),
        ..sample::event()
    };
    check::<pb::Event, EventInfo>([sample::event(), bare]);
    check::<pb::EventFilter, EventFilter>([sample::event_filter(), EventFilter::default()]);
    check::<pb::TraceStep, TraceStep>([sample::trace_step()]);
    check::<pb::PingModelResponse, PingTrip>([sample::trip()]);
}

#[test]
fn messages_survive_the_wire() {
    check::<pb::ModelMessage, Message>([sample::message(), sample::bare_message()]);
    check::<pb::Correlation, Correlation>([sample::message().correlation, Correlation::default()]);
    check::<pb::Recipient, Recipient>([
        Recipient::Model(sample::model("opus")),
        Recipient::Agent(sample::agent("eve")),
        Recipient::Role(sample::role("reviewer")),
        Recipient::AgentsOf(sample::model("opus")),
    ]);
    check::<pb::Receipt, Receipt>([sample::receipt()]);
    check::<pb::MessageInfo, MessageInfo>([sample::info(), sample::bare_info()]);
    check::<pb::MessageChange, MessageChange>([sample::change()]);
}

#[test]
fn tasks_survive_the_wire() {
    let json = TaskSpec { result: ResultType::Json { schema: None }, ..sample::bare_task() };
    check::<pb::TaskSpec, TaskSpec>([sample::task(), sample::bare_task(), json]);
    check::<pb::TaskExchange, TaskExchange>([sample::exchange(), sample::open_exchange()]);
    let bare = TaskInfo {
        finished_at: None,
        summary: None,
        failure: None,
        session: None,
        ..sample::task_info()
    };
    check::<pb::TaskInfo, TaskInfo>([sample::task_info(), bare.clone()]);
    check::<pb::TaskChange, TaskChange>([
        sample::task_change(),
        TaskChange { exchange: None, ..sample::task_change() },
    ]);
    let whole = TaskDetail {
        info: sample::task_info(),
        task: sample::task(),
        exchanges: vec![sample::exchange()],
        result: sample::parts(),
        result_json: Some("{}".into()),
    };
    let bare = TaskDetail {
        info: bare,
        exchanges: vec![],
        result: vec![],
        result_json: None,
        ..whole.clone()
    };
    check::<pb::GetTaskResponse, TaskDetail>([whole, bare]);
}

#[test]
fn a_models_name_may_be_written_large() {
    let recipient = Some(pb::recipient::Recipient::Model("Opus".into()));
    let read = Recipient::try_from(pb::Recipient { recipient });
    assert_eq!(read, Ok(Recipient::Model(sample::model("opus"))));
}

#[test]
fn answers_survive_the_wire() {
    check::<pb::Attempt, Attempt>([sample::attempt(), sample::bare_attempt()]);
    check::<pb::PassedOver, PassedOver>([
        sample::passed_over(),
        PassedOver { class: None, ..sample::passed_over() },
    ]);
    check::<pb::AnswerSummary, AnswerSummary>([sample::summary(), sample::bare_summary()]);
    check::<pb::Routed, Routed>([sample::routed()]);
    check::<pb::AskOptions, AskOptions>([sample::options(), AskOptions::default()]);
    check::<pb::AnswerFrame, AnswerFrame>(sample::answer_frames());
    check::<pb::ExplainRouteResponse, RouteExplanation>([sample::explanation()]);
}

#[test]
fn figures_survive_the_wire() {
    check::<pb::Usage, Usage>([sample::usage(), Usage::default()]);
    check::<pb::RateLimit, RateLimit>([sample::limit(), sample::bare_limit()]);
    check::<pb::ModelUsage, ModelUsage>([
        sample::model_usage(),
        ModelUsage { windows: vec![], cost_usd: None, ..sample::model_usage() },
    ]);
}

#[test]
fn lists_survive_the_wire() {
    check::<pb::ModelInfo, ModelInfo>([
        sample::model_info(),
        ModelInfo { unavailable_until: None, fallback: vec![], ..sample::model_info() },
    ]);
    check::<pb::AgentInfo, AgentInfo>([sample::agent_info()]);
    let token = TokenInfo { name: sample::agent("opus"), created_at: sample::AT };
    check::<pb::TokenInfo, TokenInfo>([token]);
    check::<pb::PingResponse, Pong>([
        sample::pong(),
        Pong { round_trip: None, agent: None, ..sample::pong() },
    ]);
}

#[test]
fn frames_up_survive_the_wire() {
    check::<pb::Hello, Hello>([sample::hello()]);
    check::<pb::Settlement, Settlement>(sample::outcomes().into_iter().map(sample::settlement));
    let bare = Settlement {
        usage: Usage::default(),
        limits: vec![],
        first_token: None,
        ..sample::settlement(SettleOutcome::Release)
    };
    let notice = |message| Up::Usage {
        model: sample::model("opus"),
        usage: sample::usage(),
        limits: vec![sample::limit()],
        message,
    };
    let parts = sample::part_frames();
    let parts = parts.into_iter().map(|frame| Up::Part { delivery: 7, frame });
    check::<pb::ConnectRequest, Up>(parts.chain([
        Up::Hello(sample::hello()),
        Up::Credit { messages: u32::MAX, size_bytes: u64::MAX },
        Up::Settle(vec![bare, sample::settlement(SettleOutcome::Release)]),
        Up::Progress { lease: "l".into(), text: "t".into() },
        notice(None),
        notice(Some(sample::id())),
        Up::Send(Box::new(sample::message())),
        Up::Heartbeat { leases: vec!["l".into()] },
        Up::Bye { reason: "r".into() },
        Up::SendPing { nonce: 1, to: sample::model("opus"), text: PingText("hi".into()) },
        Up::PeerPong { nonce: 2 },
        Up::PingDone { nonce: 3, round_trip: sample::SPAN },
        Up::Pong { nonce: u64::MAX },
    ]));
}

#[test]
fn a_pull_is_for_so_many_roles_and_no_more() {
    let many =
        |count| pb::PullMessagesRequest { roles: vec!["r".into(); count], ..Default::default() };
    assert_eq!(Pull::try_from(many(16)).unwrap().roles.len(), 16);
    assert_eq!(Pull::try_from(many(17)).unwrap_err().field, "roles");
}

#[test]
fn frames_down_survive_the_wire() {
    let bare = Delivery { model: None, max_output_tokens: None, ..sample::delivery() };
    check::<pb::Deliver, Delivery>([sample::delivery(), bare.clone()]);
    let refused = || RefusedFrame { reason: "LEASE_LOST".into(), detail: "gone".into() };
    let settled = |refused: Option<RefusedFrame>| {
        Down::Settled(SettledFrame { lease: "l".into(), is_repeated: refused.is_none(), refused })
    };
    let sent = |result| Down::Sent { message: sample::id(), result };
    let drain = |until, reconnect_after| Down::Drain {
        reason: "stops".into(),
        until,
        reconnect_after,
        is_over: reconnect_after.is_none(),
    };
    check::<pb::ConnectResponse, Down>([
        Down::Welcome(Welcome {
            link: "1".into(),
            epoch: 1,
            heartbeat: sample::SPAN,
            lease: sample::SPAN,
            resumed: vec!["l".into()],
            resume_token: "r".into(),
        }),
        Down::Deliver(Box::new(bare)),
        Down::Cancel { lease: "l".into(), reason: "r".into() },
        Down::Revoke { lease: "l".into(), reason: "r".into() },
        Down::Level {
            model: sample::model("opus"),
            level: "HEALTHY".into(),
            reason: String::new(),
        },
        drain(None, None),
        drain(Some(sample::AT), Some(sample::SPAN)),
        settled(None),
        settled(Some(refused())),
        sent(Ok(sample::receipt())),
        sent(Err(refused())),
        Down::AskPing { nonce: 1, to: sample::model("opus"), text: PingText("hi".into()) },
        Down::PeerPing { nonce: 1, from: sample::model("opus"), text: PingText("hi".into()) },
        Down::PeerPong { nonce: 2 },
        Down::Ping { nonce: 3 },
    ]);
}

#[test]
fn a_frame_keeps_its_place_in_its_stream() {
    let stamp = Stamp { number: 7, seen: u64::MAX };
    let up = pb::ConnectRequest::from(Up::Pong { nonce: 1 }).stamped(stamp);
    let down = pb::ConnectResponse::from(Down::Ping { nonce: 1 }).stamped(stamp);
    assert_eq!((up.stamp(), down.stamp()), (stamp, stamp));
    assert_eq!(Up::try_from(up).unwrap(), Up::Pong { nonce: 1 });
}

#[test]
fn only_part_frames_go_up_a_link() {
    for frame in sample::answer_frames().into_iter().skip(sample::part_frames().len()) {
        assert_eq!(pb::ConnectRequest::from(Up::Part { delivery: 7, frame }).frame, None);
    }
}

macro_rules! check_numbers {
    ($($domain:ident: $($variant:ident),+;)+) => {$(
        $(assert_eq!($domain::from_wire($domain::$variant.to_wire()), Some($domain::$variant));)+
        for number in [0, -1, 99, i32::MAX, i32::MIN] {
            assert_eq!($domain::from_wire(number), None, "{} {number}", stringify!($domain));
        }
    )+};
}

#[test]
fn every_enum_keeps_its_numbers_and_knows_no_others() {
    check_numbers! {
        MessageType: Handoff, Consultation, Delegation, Status;
        Priority: Low, Normal, High, Urgent;
        Role: System, User, Assistant, Tool;
        ToolChoice: Auto, None, Required;
        FailureScope: Request, Key, Account, Model, Provider;
        Provenance: Reported, Estimated, Partial;
        StopReason: End, MaxTokens, StopSequence, ToolCall, Paused, WindowFull;
    }
    for class in FailureClass::ALL {
        assert_eq!(FailureClass::from_wire(class.to_wire()), Some(class));
    }
    for state in TaskState::ALL {
        assert_eq!(TaskState::from_wire(state.to_wire()), Some(state));
    }
    for number in [0, -1, 9, i32::MAX] {
        assert_eq!(TaskState::from_wire(number), None, "{number}");
    }
    for state in MessageState::ALL {
        assert_eq!(MessageState::from_wire(state.to_wire()), Some(state));
    }
}

fn any_name() -> impl Strategy<Value = String> {
    "[a-z0-9_-][a-z0-9._-]{0,63}"
}

fn any_recipient() -> impl Strategy<Value = Recipient> {
    prop_oneof![
        any_name().prop_map(|name| Recipient::Model(sample::model(&name))),
        any_name().prop_map(|name| Recipient::Agent(sample::agent(&name))),
        "[a-z0-9_-]{1,64}".prop_map(|name| Recipient::Role(sample::role(&name))),
        any_name().prop_map(|name| Recipient::AgentsOf(sample::model(&name))),
    ]
}

fn any_counters() -> impl Strategy<Value = Counters> {
    any::<[u64; 10]>().prop_map(
        |[accepted, queued, waiting, leased, done, failed, cancelled, expired, dead, purged]| {
            Counters {
                accepted,
                queued,
                waiting,
                leased,
                done,
                failed,
                cancelled,
                expired,
                dead,
                purged,
            }
        },
    )
}

fn any_queue() -> impl Strategy<Value = QueueInfo> {
    (any_recipient(), any::<[bool; 2]>(), ".*", any::<[u64; 6]>(), any_counters()).prop_map(
        |(queue, [is_paused, is_degraded], reason, figures, counters)| {
            let [ready, leased, size_bytes, links, dead_bytes, parked] = figures;
            QueueInfo {
                queue,
                is_paused,
                is_degraded,
                reason,
                ready,
                leased,
                size_bytes,
                links,
                dead_bytes,
                parked,
                counters,
            }
        },
    )
}

/// What the wire can say of a time.
fn any_time() -> impl Strategy<Value = WallTime> {
    (0u64..=253_402_300_799_999).prop_map(WallTime)
}

fn any_trial() -> impl Strategy<Value = Trial> {
    let names = (prop::option::of(any_name()), prop::option::of(any_name()));
    let times = (prop::option::of(any_time()), any_time());
    let class = prop::sample::select(FailureClass::ALL.to_vec());
    (any::<[u32; 2]>(), names, times, class, ".*").prop_map(
        |([generation, number], (agent, model), (began_at, ended_at), class, detail)| Trial {
            generation,
            number,
            agent: agent.map(|name| sample::agent(&name)),
            model: model.map(|name| sample::model(&name)),
            began_at,
            ended_at,
            class,
            detail,
        },
    )
}

fn any_span(seconds: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    (seconds, 0u32..1_000_000_000).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn any_pull() -> impl Strategy<Value = Pull> {
    let models = prop::collection::vec(any_name().prop_map(|name| sample::model(&name)), 0..4);
    let lease = prop::option::of(any_span(5..1_800));
    let roles = prop::collection::vec("[a-z]{1,9}".prop_map(|name| sample::role(&name)), 0..4);
    (models, roles, 1u32..=100, 1u64..=3 * 1024 * 1024, lease, any_span(0..60)).prop_map(
        |(models, roles, messages, size_bytes, lease, wait)| Pull {
            models,
            roles,
            messages,
            size_bytes,
            lease,
            wait,
        },
    )
}

fn any_part() -> impl Strategy<Value = Part> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(bytes::Bytes::from);
    let leaf = prop_oneof![
        ".*".prop_map(Part::Text),
        (".*", ".*", ".*").prop_map(|(text, signature, provider)| Part::Thinking {
            text,
            signature,
            provider
        }),
        (".*", ".*", bytes()).prop_map(|(id, name, arguments)| Part::ToolCall {
            id,
            name,
            arguments
        }),
        (".*", bytes()).prop_map(|(media_type, data)| Part::Image { media_type, data }),
        (any::<[u8; 32]>(), any::<u64>()).prop_map(|(hash, size_bytes)| Part::Ref(
            crate::PartRef { hash: crate::ContentHash(hash), size_bytes }
        )),
    ];
    leaf.prop_recursive(4, 16, 3, |inner| {
        (".*", prop::collection::vec(inner, 0..3), any::<bool>())
            .prop_map(|(call_id, parts, is_error)| Part::ToolResult { call_id, parts, is_error })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_part_survives_the_wire(part in any_part()) {
        let wire = pb::Part::from(part.clone());
        prop_assert_eq!(Part::try_from(wire), Ok(part));
    }

    #[test]
    fn any_queue_survives_the_wire(queue in any_queue()) {
        prop_assert_eq!(Counters::from(pb::Counters::from(queue.counters)), queue.counters);
        prop_assert_eq!(QueueInfo::try_from(pb::QueueInfo::from(queue.clone())), Ok(queue));
    }

    #[test]
    fn any_dead_letter_survives_the_wire(
        deliveries in any::<u32>(),
        trials in prop::collection::vec(any_trial(), 0..4),
        done in any::<u64>(),
        skipped in prop::collection::vec((any::<u128>(), prop::option::of(any_name()), ".*"), 0..4),
    ) {
        let letter = DeadLetter { info: sample::info(), deliveries, trials };
        prop_assert_eq!(DeadLetter::try_from(pb::DeadLetter::from(letter.clone())), Ok(letter));
        let skipped = skipped.into_iter().map(|(id, sender, reason)| {
            let sender = sender.map(|name| Sender::parse(&name).unwrap());
            (MessageName { sender, id: MessageId::from_u128(id) }, reason)
        });
        let handled = LettersHandled { done, skipped: skipped.collect() };
        let wire = pb::RedriveDeadLettersResponse::from(handled.clone());
        prop_assert_eq!(LettersHandled::try_from(wire), Ok(handled));
    }

    #[test]
    fn any_pull_and_extension_survive_the_wire(
        pull in any_pull(),
        lease in ".*",
        by in any_span(5..1_800),
    ) {
        prop_assert_eq!(Pull::try_from(pb::PullMessagesRequest::from(pull.clone())), Ok(pull));
        let extension = Extension { lease, by };
        let wire = pb::ExtendLeaseRequest::from(extension.clone());
        prop_assert_eq!(Extension::try_from(wire), Ok(extension));
    }

    #[test]
    fn any_drain_survives_the_wire(
        agent in prop::option::of(any_name()),
        step in prop::sample::select(&[DrainStep::Begin, DrainStep::Undo, DrainStep::Look]),
        stops in any::<bool>(),
        deadline in any_span(0..86_400),
        wait in any_span(0..86_400),
        running in any::<u64>(),
    ) {
        let agent = agent.map(|name| sample::agent(&name));
        let is_legal = !stops || (agent.is_none() && step == DrainStep::Begin);
        let drain = Drain { agent, deadline, step, stops, wait };
        let read = Drain::try_from(pb::DrainRequest::from(drain.clone()));
        prop_assert_eq!(read.ok(), is_legal.then_some(drain));
        let draining = Draining { is_draining: stops, running };
        prop_assert_eq!(Draining::from(pb::DrainResponse::from(draining)), draining);
    }

    #[test]
    fn any_time_that_is_written_can_be_read(millis in any::<u64>()) {
        const LAST: u64 = 253_402_300_799_999;
        let wire = prost_types::Timestamp::from(WallTime(millis));
        let read = crate::convert::common::time(Some(wire), "at");
        prop_assert_eq!(read, Ok(Some(WallTime(millis.min(LAST)))));
    }

    #[test]
    fn any_span_that_is_written_can_be_read(seconds in any::<u64>(), nanos in 0u32..1_000_000_000) {
        use crate::convert::common::{span, wire_span};
        let given = std::time::Duration::new(seconds, nanos);
        let longest = std::time::Duration::from_secs(10 * 366 * 86_400);
        prop_assert_eq!(span(Some(wire_span(given)), "for"), Ok(Some(given.min(longest))));
    }
}
