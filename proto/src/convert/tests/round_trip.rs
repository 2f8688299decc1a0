//! What goes out comes back the same.

use std::fmt::Debug;

use proptest::prelude::*;

use super::sample;
use crate::{
    AgentInfo, AnswerFrame, AnswerSummary, AskOptions, Attempt, Correlation, Delivery, Down, Entry,
    EventFilter, EventInfo, FailureClass, FailureScope, Generation, Hello, Message, MessageChange,
    MessageInfo, MessageState, MessageType, ModelInfo, ModelUsage, Part, PassedOver, Payload,
    PingText, PingTrip, Pong, Priority, Provenance, RateLimit, Receipt, Recipient, RefusedFrame,
    ResultType, Role, RouteExplanation, Routed, SettleOutcome, SettledFrame, Settlement, Stamp,
    StatusNotice, StopReason, TaskChange, TaskDetail, TaskExchange, TaskInfo, TaskSpec, TaskState,
    TokenInfo, ToolChoice, TraceStep, Up, Usage, WallTime, Welcome, pb,
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
fn frames_down_survive_the_wire() {
    let bare = Delivery { model: None, max_output_tokens: None, ..sample::delivery() };
    check::<pb::Deliver, Delivery>([sample::delivery(), bare.clone()]);
    let refused = || RefusedFrame { reason: "LEASE_LOST".into(), detail: "gone".into() };
    let settled = |refused| Down::Settled(SettledFrame { lease: "l".into(), refused });
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
