//! Each field that can be wrong, and the name under which it is refused.

use prost_types::{Duration, Timestamp};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::sample;
use crate::{
    AgentInfo, AnswerFrame, AnswerSummary, AskOptions, Attempt, Candidate, Correlation, Delivery,
    Down, EventFilter, EventInfo, Failure, Hello, Message, MessageChange, MessageInfo, ModelInfo,
    ModelUsage, Part, PassedOver, Payload, Pong, RateLimit, Receipt, Recipient, RouteExplanation,
    Routed, SettleOutcome, Settlement, StatusKind, StatusNotice, TaskChange, TaskExchange,
    TaskInfo, TaskSpec, TokenInfo, TraceStep, Up, UsageWindow,
    convert::{InvalidField, common},
    pb,
};

/// `spoil` makes the value one that must be refused for `field`.
#[track_caller]
fn check<D, W>(good: D, spoil: impl FnOnce(&mut W), field: &str)
where
    W: From<D>,
    D: TryFrom<W, Error = InvalidField> + std::fmt::Debug,
{
    let mut wire = W::from(good);
    spoil(&mut wire);
    assert_eq!(D::try_from(wire).unwrap_err().field, field);
}

const BAD_ID: &str = "01arz3ndektsv4rrffq69g5fav";
const BAD_NAME: &str = "../x";

fn bad_time() -> Option<Timestamp> {
    Some(Timestamp { seconds: -1, nanos: 0 })
}

fn bad_span() -> Option<Duration> {
    Some(Duration { seconds: -1, nanos: 0 })
}

#[test]
fn a_time_outside_of_1970_to_9999_is_refused() {
    for (seconds, nanos) in [
        (-1, 0),
        (i64::MIN, 0),
        (253_402_300_800, 0),
        (i64::MAX, 0),
        (0, -1),
        (0, 1_000_000_000),
        (0, i32::MIN),
    ] {
        let read = common::time(Some(Timestamp { seconds, nanos }), "at");
        assert_eq!(read.unwrap_err().field, "at", "{seconds} {nanos}");
    }
    let last = Timestamp { seconds: 253_402_300_799, nanos: 999_999_999 };
    assert!(common::time(Some(last), "at").is_ok());
}

#[test]
fn a_span_that_is_negative_or_endless_is_refused() {
    for (seconds, nanos) in
        [(-1, 0), (0, -1), (-1, -1), (0, 1_000_000_000), (10 * 366 * 86_400 + 1, 0), (i64::MAX, 0)]
    {
        let read = common::span(Some(Duration { seconds, nanos }), "for");
        assert_eq!(read.unwrap_err().field, "for", "{seconds} {nanos}");
    }
}

#[test]
fn a_task_is_refused_by_the_name_of_what_is_wrong_with_it() {
    let task = |spoil: &dyn Fn(&mut pb::TaskSpec), field| {
        check::<TaskSpec, pb::TaskSpec>(sample::task(), spoil, field);
    };
    task(&|task| task.description.clear(), "task.description");
    task(&|task| task.description = " \n".into(), "task.description");
    task(&|task| task.result_type = 99, "task.result_type");
    task(&|task| task.result_type = 1, "task.result_schema");
    task(&|task| task.result_type = 0, "task.result_schema");
    task(&|task| task.deadline = bad_span(), "task.deadline");
    task(&|task| task.deadline = Some(Duration::default()), "task.deadline");
    task(&|task| task.max_tokens = Some(0), "task.max_tokens");
    for cost in [-0.1, f64::NAN, f64::INFINITY] {
        task(&|task| task.max_cost_usd = Some(cost), "task.max_cost_usd");
    }
    task(&|task| task.inputs[1].name = "log".into(), "task.inputs.name");
    task(&|task| task.inputs[0].name = "a\nb".into(), "task.inputs.name");
    task(&|task| task.inputs[0].name = "x".repeat(65), "task.inputs.name");
    task(&|task| task.inputs[0].parts[0].part = None, "part");
    let payload = |spoil: &dyn Fn(&mut pb::Payload), field| {
        check::<Payload, pb::Payload>(sample::payload(), spoil, field);
    };
    payload(&|payload| payload.task = Some(pb::TaskSpec::default()), "task.description");
}

#[test]
fn what_is_said_of_a_task_is_refused_by_the_name_of_what_is_wrong_with_it() {
    let exchange = |spoil: &dyn Fn(&mut pb::TaskExchange), field| {
        check::<TaskExchange, pb::TaskExchange>(sample::exchange(), spoil, field);
    };
    exchange(&|exchange| exchange.asked_at = None, "exchange.asked_at");
    exchange(&|exchange| exchange.asked_at = bad_time(), "exchange.asked_at");
    exchange(&|exchange| exchange.answered_at = bad_time(), "exchange.answered_at");
    exchange(&|exchange| exchange.question[0].part = None, "part");
    exchange(&|exchange| exchange.answer[0].part = None, "part");
    let info = |spoil: &dyn Fn(&mut pb::TaskInfo), field| {
        check::<TaskInfo, pb::TaskInfo>(sample::task_info(), spoil, field);
    };
    info(&|info| info.task_id = BAD_ID.into(), "info.task_id");
    info(&|info| info.from = BAD_NAME.into(), "info.from");
    info(&|info| info.to = None, "info.to");
    info(&|info| info.state = 0, "info.state");
    info(&|info| info.submitted_at = None, "info.submitted_at");
    info(&|info| info.deadline = None, "info.deadline");
    info(&|info| info.finished_at = bad_time(), "info.finished_at");
    let change = |spoil: &dyn Fn(&mut pb::TaskChange), field| {
        check::<TaskChange, pb::TaskChange>(sample::task_change(), spoil, field);
    };
    change(&|change| change.at = None, "change.at");
    change(&|change| change.state = 9, "change.state");
}

type Parts = Vec<pb::Part>;

fn nested(depth: u32) -> pb::Part {
    let leaf = pb::Part::from(Part::text("deep"));
    (0..depth).fold(leaf, |inner, _| {
        let parts: Parts = vec![inner];
        let result = pb::ToolResultPart { call_id: String::new(), parts, is_error: false };
        pb::Part { part: Some(pb::part::Part::ToolResult(result)) }
    })
}

#[test]
fn a_part_that_says_nothing_or_nests_too_deep_is_refused() {
    assert!(Part::try_from(nested(4)).is_ok());
    assert_eq!(Part::try_from(nested(5)).unwrap_err().field, "part");
    assert_eq!(Part::try_from(pb::Part { part: None }).unwrap_err().field, "part");
    for length in [0, 31, 33] {
        let hash = vec![0; length].into();
        let part = Some(pb::part::Part::Ref(pb::PartRef { hash, size_bytes: 1 }));
        assert_eq!(Part::try_from(pb::Part { part }).unwrap_err().field, "ref.hash", "{length}");
    }
}

#[test]
fn a_message_names_its_bad_field() {
    let check = |spoil: fn(&mut pb::ModelMessage), field| {
        check::<Message, _>(sample::message(), spoil, field);
    };
    check(|m| m.id = BAD_ID.into(), "id");
    check(|m| m.id.clear(), "id");
    check(|m| m.from = BAD_NAME.into(), "from");
    check(|m| m.to = None, "to");
    check(|m| m.to = Some(pb::Recipient { recipient: None }), "to");
    check(|m| m.r#type = 0, "type");
    check(|m| m.r#type = 99, "type");
    check(|m| m.priority = 99, "priority");
    check(|m| m.payload = None, "payload");
    check(|m| m.timestamp = bad_time(), "timestamp");
    check(|m| m.expires_at = bad_time(), "expires_at");
    check(|m| m.correlation.as_mut().unwrap().root = BAD_ID.into(), "correlation.root");
    check(|m| m.payload.as_mut().unwrap().request[0].part = None, "part");
}

#[test]
fn a_recipient_names_its_bad_field() {
    use pb::recipient::Recipient as Wire;
    for (recipient, field) in [
        (Wire::Model(BAD_NAME.into()), "to.model"),
        (Wire::Agent(String::new()), "to.agent"),
        (Wire::Role("re.viewer".into()), "to.role"),
        (Wire::AgentsOf("a b".into()), "to.agents_of"),
        (Wire::Topic("news".into()), "to.topic"),
    ] {
        let wire = pb::Recipient { recipient: Some(recipient) };
        assert_eq!(Recipient::try_from(wire).unwrap_err().field, field);
    }
}

#[test]
fn a_status_names_its_bad_field() {
    use pb::status_notice::What as Wire;
    let check = |what: Option<Wire>, field| {
        check::<StatusNotice, pb::StatusNotice>(StatusNotice::default(), |s| s.what = what, field);
    };
    let level = |model: &str, level: &str| {
        Some(Wire::Level(pb::LevelNotice { model: model.into(), level: level.into() }))
    };
    check(level(BAD_NAME, "WARNING"), "status.level.model");
    check(level("opus", ""), "status.level.level");
    check(level("opus", &"w".repeat(257)), "status.level.level");
    let progress = |percent, step: String| {
        Some(Wire::Progress(pb::ProgressNotice { percent: Some(percent), step }))
    };
    check(progress(101, String::new()), "status.progress.percent");
    check(progress(u32::MAX, String::new()), "status.progress.percent");
    check(progress(1, "s".repeat(257)), "status.progress.step");
    let handoff = |from: &str, to: &str| {
        let (from_model, to_model) = (from.into(), to.into());
        Some(Wire::Handoff(pb::HandoffNotice { from_model, to_model }))
    };
    check(handoff("", "opus"), "status.handoff.from_model");
    check(handoff("opus", ""), "status.handoff.to_model");
    let spoilt = |spoil: fn(&mut pb::StatusNotice), field| {
        self::check::<StatusNotice, _>(
            StatusNotice { what: StatusKind::Heartbeat, ..StatusNotice::default() },
            spoil,
            field,
        );
    };
    spoilt(|s| s.severity = 99, "status.severity");
    spoilt(|s| s.subject = BAD_ID.into(), "status.subject");
    spoilt(|s| s.text = "t".repeat(16 * 1024 + 1), "status.text");
}

#[test]
fn an_event_names_its_bad_field() {
    let event = |spoil: fn(&mut pb::Event), field| {
        check::<EventInfo, _>(sample::event(), spoil, field);
    };
    event(|e| e.at = None, "event.at");
    event(|e| e.message_id = BAD_ID.into(), "event.message_id");
    event(|e| e.state = 0, "event.state");
    event(|e| e.model = BAD_NAME.into(), "event.model");
    event(|e| e.agent = BAD_NAME.into(), "event.agent");
    let filter = |spoil: fn(&mut pb::EventFilter), field| {
        check::<EventFilter, _>(sample::event_filter(), spoil, field);
    };
    filter(|f| f.message_id = BAD_ID.into(), "filter.message_id");
    filter(|f| f.model = BAD_NAME.into(), "filter.model");
    filter(|f| f.agent = BAD_NAME.into(), "filter.agent");
    let step = |spoil: fn(&mut pb::TraceStep), field| {
        check::<TraceStep, _>(sample::trace_step(), spoil, field);
    };
    step(|s| s.change = None, "step.change");
    step(|s| s.since_previous = bad_span(), "step.since_previous");
    step(|s| s.model = BAD_NAME.into(), "step.model");
    step(|s| s.agent = BAD_NAME.into(), "step.agent");
}

#[test]
fn a_ping_names_its_bad_field() {
    let ping = |from: &str, to: &str, text: &str| {
        let (from, to, text) = (from.to_owned(), to.to_owned(), text.to_owned());
        let wire = pb::PingModelRequest { from, to, text, wait: None };
        crate::PeerPing::try_from(wire).map_err(|invalid| invalid.field)
    };
    assert!(ping("Opus", "sonnet", "hi").is_ok());
    assert_eq!(ping("", "sonnet", "hi"), Err("from"));
    assert_eq!(ping("opus", BAD_NAME, "hi"), Err("to"));
    assert_eq!(ping("opus", "sonnet", &"t".repeat(4097)), Err("text"));
    let up = |frame| Up::try_from(pb::ConnectRequest { frame: Some(frame), ..Default::default() });
    let text = "t".repeat(4097);
    let frame = pb::SendPing { nonce: 1, to: "opus".into(), text };
    let refused = up(pb::connect_request::Frame::SendPing(frame)).unwrap_err();
    assert_eq!(refused.field, "send_ping.text");
}

#[test]
fn a_payload_names_its_bad_field() {
    fn generation(payload: &mut pb::Payload) -> &mut pb::Generation {
        payload.generation.as_mut().unwrap()
    }
    let payload = |spoil: fn(&mut pb::Payload), field| {
        check::<Payload, _>(sample::payload(), spoil, field);
    };
    payload(|p| p.context[0].role = 0, "entry.role");
    payload(|p| p.context[0].parts[0].part = None, "part");
    payload(|p| p.response[0].part = None, "part");
    payload(|p| generation(p).tool_choice = 99, "generation.tool_choice");
    payload(|p| generation(p).temperature = Some(f64::NAN), "generation.temperature");
    payload(|p| generation(p).temperature = Some(f64::INFINITY), "generation.temperature");
    payload(|p| generation(p).temperature = Some(-0.5), "generation.temperature");
}

#[test]
fn options_name_their_bad_field() {
    let check = |spoil: fn(&mut pb::AskOptions), field| {
        check::<AskOptions, _>(sample::options(), spoil, field);
    };
    for cost in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.01] {
        let wire = pb::AskOptions { max_cost_usd: Some(cost), ..Default::default() };
        assert_eq!(AskOptions::try_from(wire).unwrap_err().field, "options.max_cost_usd");
    }
    check(|o| o.deadline = bad_span(), "options.deadline");
    check(|o| o.return_window = bad_span(), "options.return_window");
}

#[test]
fn an_answer_names_its_bad_field() {
    let attempt = |spoil: fn(&mut pb::Attempt), field| {
        check::<Attempt, _>(sample::attempt(), spoil, field);
    };
    attempt(|a| a.model.clear(), "attempt.model");
    attempt(|a| a.agent = BAD_NAME.into(), "attempt.agent");
    attempt(|a| a.latency = bad_span(), "attempt.latency");
    attempt(|a| a.wait = bad_span(), "attempt.wait");
    attempt(|a| a.first_token = bad_span(), "attempt.first_token");
    attempt(|a| a.failure.as_mut().unwrap().class = 99, "failure.class");
    let failure = |spoil: fn(&mut pb::Failure), field| {
        check::<Failure, _>(sample::failure(), spoil, field);
    };
    failure(|f| f.class = 0, "failure.class");
    failure(|f| f.retry_at = bad_time(), "failure.retry_at");
    let summary = |spoil: fn(&mut pb::AnswerSummary), field| {
        check::<AnswerSummary, _>(sample::summary(), spoil, field);
    };
    summary(|s| s.message_id = BAD_ID.into(), "summary.message_id");
    summary(|s| s.asked.clear(), "summary.asked");
    summary(|s| s.model = BAD_NAME.into(), "summary.model");
    summary(|s| s.agent = BAD_NAME.into(), "summary.agent");
    summary(|s| s.passed_over[0].model.clear(), "passed_over.model");
    check::<PassedOver, pb::PassedOver>(
        sample::passed_over(),
        |p| p.model = BAD_NAME.into(),
        "passed_over.model",
    );
    let routed = |spoil: fn(&mut pb::Routed), field| {
        check::<Routed, _>(sample::routed(), spoil, field);
    };
    routed(|r| r.model.clear(), "routed.model");
    routed(|r| r.agent = BAD_NAME.into(), "routed.agent");
    routed(|r| r.attempts[0].model.clear(), "attempt.model");
}

#[test]
fn an_answer_frame_names_its_bad_field() {
    use pb::answer_frame::Frame as Wire;
    for (frame, field) in [
        (None, "frame"),
        (Some(Wire::Accepted(pb::Accepted { receipt: None })), "accepted.receipt"),
        (Some(Wire::PartStart(pb::PartStart::default())), "part_start.opening"),
        (Some(Wire::Switched(pb::Switched::default())), "switched.from"),
        (
            Some(Wire::Switched(pb::Switched { from: "a".into(), ..Default::default() })),
            "switched.to",
        ),
        (Some(Wire::Done(pb::Done { summary: None })), "done.summary"),
        (Some(Wire::Failed(pb::Failed::default())), "failed.failure"),
        (
            Some(Wire::Failed(pb::Failed {
                failure: Some(sample::failure().into()),
                summary: None,
            })),
            "failed.summary",
        ),
        (Some(Wire::Expired(pb::Expired { summary: None })), "expired.summary"),
        (Some(Wire::Cancelled(pb::Cancelled { summary: None })), "cancelled.summary"),
        (
            Some(Wire::PartEnd(pb::PartEnd {
                closing: Some(pb::Part { part: None }),
                ..Default::default()
            })),
            "part",
        ),
    ] {
        assert_eq!(AnswerFrame::try_from(pb::AnswerFrame { frame }).unwrap_err().field, field);
    }
}

#[test]
fn a_row_of_a_list_names_its_bad_field() {
    let receipt = |spoil: fn(&mut pb::Receipt), field| {
        check::<Receipt, _>(sample::receipt(), spoil, field);
    };
    receipt(|r| r.message_id.clear(), "receipt.message_id");
    receipt(|r| r.accepted_at = None, "receipt.accepted_at");
    receipt(|r| r.deadline = bad_time(), "receipt.deadline");
    let info = |spoil: fn(&mut pb::MessageInfo), field| {
        check::<MessageInfo, _>(sample::info(), spoil, field);
    };
    info(|i| i.id = BAD_ID.into(), "info.id");
    info(|i| i.from.clear(), "info.from");
    info(|i| i.to = None, "info.to");
    info(|i| i.r#type = 0, "info.type");
    info(|i| i.state = 99, "info.state");
    info(|i| i.accepted_at = None, "info.accepted_at");
    info(|i| i.deadline = None, "info.deadline");
    info(|i| i.finished_at = bad_time(), "info.finished_at");
    info(|i| i.queue = "opus".into(), "info.queue");
    info(|i| i.queue = "topic/opus".into(), "info.queue");
    info(|i| i.queue = "model/".into(), "info.queue");
    let change = |spoil: fn(&mut pb::MessageChange), field| {
        check::<MessageChange, _>(sample::change(), spoil, field);
    };
    change(|c| c.message_id.clear(), "change.message_id");
    change(|c| c.at = None, "change.at");
    change(|c| c.state = 0, "change.state");
    check::<ModelInfo, pb::ModelInfo>(sample::model_info(), |m| m.name.clear(), "model.name");
    check::<ModelInfo, pb::ModelInfo>(
        sample::model_info(),
        |m| m.fallback.push(BAD_NAME.into()),
        "model.fallback",
    );
    check::<ModelInfo, pb::ModelInfo>(
        sample::model_info(),
        |m| m.unavailable_until = bad_time(),
        "model.unavailable_until",
    );
    check::<AgentInfo, pb::AgentInfo>(sample::agent_info(), |a| a.name.clear(), "agent.name");
    check::<AgentInfo, pb::AgentInfo>(sample::agent_info(), |a| a.since = None, "agent.since");
    let token = || TokenInfo { name: sample::agent("opus"), created_at: sample::AT };
    check::<TokenInfo, pb::TokenInfo>(token(), |t| t.name.clear(), "token.name");
    check::<TokenInfo, pb::TokenInfo>(token(), |t| t.created_at = None, "token.created_at");
    check::<Pong, pb::PingResponse>(sample::pong(), |p| p.round_trip = bad_span(), "round_trip");
    check::<Pong, pb::PingResponse>(sample::pong(), |p| p.agent = BAD_NAME.into(), "agent");
}

#[test]
fn figures_name_their_bad_field() {
    check::<RateLimit, pb::RateLimit>(
        sample::limit(),
        |l| l.resets_at = bad_time(),
        "limits.resets_at",
    );
    let usage = |spoil: fn(&mut pb::ModelUsage), field| {
        check::<ModelUsage, _>(sample::model_usage(), spoil, field);
    };
    usage(|u| u.model.clear(), "model");
    usage(|u| u.unavailable_until = bad_time(), "unavailable_until");
    usage(|u| u.windows[0].resets_at = bad_time(), "window.resets_at");
    check::<UsageWindow, pb::UsageWindow>(
        sample::model_usage().windows.remove(0),
        |w| w.resets_at = bad_time(),
        "window.resets_at",
    );
    check::<RouteExplanation, pb::ExplainRouteResponse>(
        sample::explanation(),
        |e| e.asked.clear(),
        "asked",
    );
    check::<Candidate, pb::Candidate>(
        sample::explanation().candidates.remove(0),
        |c| c.model.clear(),
        "candidate.model",
    );
    check::<Correlation, pb::Correlation>(
        sample::message().correlation,
        |c| c.parent = BAD_ID.into(),
        "correlation.parent",
    );
}

#[test]
fn a_frame_up_names_its_bad_field() {
    let hello = |spoil: fn(&mut pb::Hello), field| {
        check::<Hello, _>(sample::hello(), spoil, field);
    };
    hello(|h| h.agent.clear(), "hello.agent");
    hello(|h| h.models.push(BAD_NAME.into()), "hello.models");
    hello(|h| h.roles.push("re.viewer".into()), "hello.roles");
    let settlement = |outcome, spoil: fn(&mut pb::Settlement), field| {
        check::<Settlement, _>(sample::settlement(outcome), spoil, field);
    };
    settlement(SettleOutcome::Release, |s| s.outcome = None, "settlement.outcome");
    settlement(SettleOutcome::Release, |s| s.first_token = bad_span(), "settlement.first_token");
    settlement(SettleOutcome::Release, |s| s.limits[0].resets_at = bad_time(), "limits.resets_at");
    use pb::settlement::Outcome;
    let failed = pb::SettleFailed { failure: None, partial: vec![] };
    let done = pb::SettleDone { parts: vec![pb::Part { part: None }], stop_reason: 0 };
    for (outcome, field) in [
        (Outcome::Failed(failed), "settlement.failure"),
        (Outcome::Done(done), "part"),
        (Outcome::Retry(pb::SettleRetry { after: bad_span() }), "retry.after"),
    ] {
        let wire = pb::Settlement { outcome: Some(outcome), ..Default::default() };
        assert_eq!(Settlement::try_from(wire).unwrap_err().field, field);
    }
    use pb::connect_request::Frame as Wire;
    for (frame, field) in [
        (None, "frame"),
        (Some(Wire::AnswerPart(pb::AnswerPart { delivery: 1, part: None })), "answer_part.part"),
        (Some(Wire::Send(pb::Send::default())), "send.message"),
        (Some(Wire::Usage(pb::UsageNotice::default())), "usage.model"),
        (
            Some(Wire::Usage(pb::UsageNotice {
                model: "opus".into(),
                message_id: BAD_ID.into(),
                ..Default::default()
            })),
            "usage.message_id",
        ),
    ] {
        assert_eq!(
            Up::try_from(pb::ConnectRequest { frame, ..Default::default() }).unwrap_err().field,
            field
        );
    }
}

#[test]
fn a_frame_down_names_its_bad_field() {
    let delivery = |spoil: fn(&mut pb::Deliver), field| {
        check::<Delivery, _>(sample::delivery(), spoil, field);
    };
    delivery(|d| d.message = None, "deliver.message");
    delivery(|d| d.model = BAD_NAME.into(), "deliver.model");
    delivery(|d| d.time_left = bad_span(), "deliver.time_left");
    use pb::connect_response::Frame as Wire;
    let welcome = |heartbeat, lease| {
        Some(Wire::Welcome(pb::Welcome { heartbeat, lease, ..Default::default() }))
    };
    let good = Some(Duration { seconds: 5, nanos: 0 });
    for (frame, field) in [
        (None, "frame"),
        (welcome(None, good), "welcome.heartbeat"),
        (welcome(good, bad_span()), "welcome.lease"),
        (Some(Wire::Level(pb::Level::default())), "level.model"),
        (Some(Wire::Drain(pb::Drain { until: bad_time(), ..Default::default() })), "drain.until"),
        (
            Some(Wire::Drain(pb::Drain { reconnect_after: bad_span(), ..Default::default() })),
            "drain.reconnect_after",
        ),
        (Some(Wire::SendResult(pb::SendResult::default())), "send_result.message_id"),
    ] {
        assert_eq!(
            Down::try_from(pb::ConnectResponse { frame, ..Default::default() }).unwrap_err().field,
            field
        );
    }
}

#[test]
fn a_bad_field_is_an_invalid_argument_that_names_it() {
    let status = Status::from(InvalidField::new("ref.hash", "is not 32 bytes"));

    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "field `ref.hash` is not 32 bytes");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_FIELD", "broker.v1"));
    let bad = status.get_details_bad_request().unwrap();
    assert_eq!(bad.field_violations[0].field, "ref.hash");
}
