//! One value of each type with every field set, and one with as little as it may have.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use crate::*;

pub(super) fn model(name: &str) -> ModelName {
    ModelName::parse(name).unwrap()
}

pub(super) fn agent(name: &str) -> AgentName {
    AgentName::parse(name).unwrap()
}

pub(super) fn role(name: &str) -> RoleName {
    RoleName::parse(name).unwrap()
}

pub(super) fn id() -> MessageId {
    MessageId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap()
}

pub(super) const AT: WallTime = WallTime(1_767_225_600_123);
pub(super) const SPAN: Duration = Duration::new(3, 5);

pub(super) fn parts() -> Vec<Part> {
    let leaf = || Part::Opaque {
        provider: "anthropic".into(),
        kind: "server_tool_use".into(),
        data: Bytes::from_static(b"\xff\0"),
    };
    let nested = |parts| Part::ToolResult { call_id: "c".into(), parts, is_error: true };
    vec![
        Part::text("wörter"),
        Part::Thinking { text: "hm".into(), signature: "s".into(), provider: "anthropic".into() },
        Part::ToolCall { id: "c".into(), name: "run".into(), arguments: Bytes::from_static(b"{") },
        nested(vec![nested(vec![nested(vec![nested(vec![leaf()])])])]),
        Part::Image { media_type: "image/png".into(), data: Bytes::from_static(b"\x89PNG") },
        leaf(),
        Part::Ref(PartRef { hash: ContentHash::of(b"far"), size_bytes: u64::MAX }),
    ]
}

pub(super) fn usage() -> Usage {
    Usage {
        input_tokens: Some(0),
        output_tokens: Some(u64::MAX),
        cache_read_tokens: Some(3),
        cache_write_tokens: Some(4),
        reasoning_tokens: Some(5),
        provenance: Provenance::Partial,
    }
}

pub(super) fn limit() -> RateLimit {
    RateLimit { name: "tokens".into(), limit: Some(1), remaining: Some(0), resets_at: Some(AT) }
}

pub(super) fn bare_limit() -> RateLimit {
    RateLimit { name: String::new(), limit: None, remaining: None, resets_at: None }
}

pub(super) fn failure() -> Failure {
    Failure {
        class: FailureClass::ContextTooLong,
        scope: FailureScope::Key,
        refused_by: "openai".into(),
        detail: "too long".into(),
        retry_at: Some(AT),
        another_model_may_help: true,
        limit_tokens: Some(128_000),
        actual_tokens: Some(128_001),
    }
}

pub(super) fn attempt() -> Attempt {
    Attempt {
        number: 2,
        model: model("opus"),
        agent: Some(agent("opus-1")),
        failure: Some(failure()),
        latency: SPAN,
        wait: SPAN,
        first_token: Some(SPAN),
        usage: usage(),
        cost_usd: Some(0.25),
    }
}

pub(super) fn bare_attempt() -> Attempt {
    Attempt {
        agent: None,
        failure: None,
        latency: Duration::ZERO,
        wait: Duration::ZERO,
        first_token: None,
        usage: Usage::default(),
        cost_usd: None,
        ..attempt()
    }
}

pub(super) fn passed_over() -> PassedOver {
    PassedOver {
        model: model("local"),
        reason: "has no vision".into(),
        class: Some(FailureClass::InvalidRequest),
    }
}

pub(super) fn summary() -> AnswerSummary {
    AnswerSummary {
        message_id: id(),
        asked: model("opus"),
        model: Some(model("local")),
        agent: Some(agent("local")),
        is_degraded: true,
        is_simulated: true,
        stop_reason: Some(StopReason::ToolCall),
        attempts: vec![attempt(), bare_attempt()],
        passed_over: vec![passed_over()],
        usage: usage(),
        cost_usd: Some(1.5),
        not_appended: Some("its session is gone".into()),
        shortened: Some("3 of 12 entries are left out".into()),
    }
}

pub(super) fn bare_summary() -> AnswerSummary {
    AnswerSummary {
        model: None,
        agent: None,
        is_degraded: false,
        is_simulated: false,
        stop_reason: None,
        attempts: vec![],
        passed_over: vec![],
        usage: Usage::default(),
        cost_usd: None,
        not_appended: None,
        shortened: None,
        ..summary()
    }
}

pub(super) fn receipt() -> Receipt {
    Receipt { message_id: id(), is_duplicate: true, accepted_at: AT, deadline: WallTime(0) }
}

pub(super) fn routed() -> Routed {
    Routed {
        model: model("gpt-4o"),
        agent: Some(agent("gpt")),
        attempt: 3,
        why: "opus: RATE_LIMITED".into(),
        attempts: vec![attempt()],
        passed_over: vec![passed_over()],
        is_degraded: true,
        is_simulated: true,
    }
}

fn map() -> BTreeMap<String, String> {
    BTreeMap::from([("a".to_owned(), "1".to_owned()), (String::new(), String::new())])
}

pub(super) fn payload() -> Payload {
    let entry = |role| Entry { role, name: "eve".into(), parts: parts() };
    Payload {
        context: [Role::System, Role::User, Role::Assistant, Role::Tool].map(entry).into(),
        request: parts(),
        response: parts(),
        metadata: map(),
        generation: Generation {
            max_output_tokens: Some(0),
            temperature: Some(0.0),
            stop_sequences: vec!["\n".into()],
            tools: vec![Tool {
                name: "run".into(),
                description: "runs".into(),
                input_schema: Bytes::from_static(b"{}"),
            }],
            tool_choice: Some(ToolChoice::None),
        },
        task: Some(Box::new(task())),
        status: statuses().pop(),
    }
}

pub(super) fn task() -> TaskSpec {
    TaskSpec {
        description: "sum it up".into(),
        inputs: vec![
            TaskInput { name: "log".into(), parts: parts() },
            TaskInput { name: String::new(), parts: vec![] },
            TaskInput { name: String::new(), parts: vec![] },
        ],
        result: ResultType::Json { schema: Some(Bytes::from_static(b"{}")) },
        deadline: Some(SPAN),
        max_tokens: Some(1),
        max_cost_usd: Some(0.0),
        no_fallback: true,
    }
}

pub(super) fn bare_task() -> TaskSpec {
    TaskSpec { description: "sum it up".into(), ..TaskSpec::default() }
}

pub(super) fn exchange() -> TaskExchange {
    TaskExchange {
        number: 1,
        question: parts(),
        asked_at: AT,
        answer: parts(),
        answered_at: Some(AT),
    }
}

pub(super) fn open_exchange() -> TaskExchange {
    TaskExchange { answer: vec![], answered_at: None, ..exchange() }
}

pub(super) fn task_info() -> TaskInfo {
    TaskInfo {
        id: id(),
        from: Sender::parse("local").unwrap(),
        to: Recipient::Model(model("opus")),
        state: TaskState::Rejected,
        priority: Priority::Low,
        submitted_at: AT,
        deadline: AT,
        finished_at: Some(AT),
        summary: Some(summary()),
        failure: Some(failure()),
        correlation: Correlation { root: Some(id()), parent: Some(id()), hops: 1 },
        session: Some("s".into()),
        labels: map(),
    }
}

pub(super) fn task_change() -> TaskChange {
    TaskChange {
        at: AT,
        change: "asked".into(),
        detail: "question 1".into(),
        state: TaskState::InputRequired,
        exchange: Some(open_exchange()),
    }
}

pub(super) fn statuses() -> Vec<StatusNotice> {
    let of = |what| StatusNotice {
        severity: Severity::Error,
        text: "tests fail".into(),
        subject: Some(id()),
        what,
    };
    vec![
        StatusNotice::default(),
        of(StatusKind::Note),
        of(StatusKind::Level { model: model("opus"), level: "WARNING".into() }),
        of(StatusKind::Progress { percent: None, step: None }),
        of(StatusKind::Heartbeat),
        of(StatusKind::Handoff { from: model("opus"), to: model("sonnet") }),
        of(StatusKind::Progress { percent: Some(100), step: Some("3 of 7".into()) }),
    ]
}

pub(super) fn event() -> EventInfo {
    EventInfo {
        kind: "leased".into(),
        at: AT,
        message: Some((id(), MessageState::Leased)),
        model: Some(model("opus")),
        agent: Some(agent("opus-1")),
        session: Some("s".into()),
        detail: "attempt 1".into(),
    }
}

pub(super) fn event_filter() -> EventFilter {
    EventFilter {
        kinds: vec!["leased".into()],
        message: MessageName::parse("local/01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        model: Some(model("opus")),
        agent: Some(agent("opus-1")),
        session: Some("s".into()),
    }
}

pub(super) fn trip() -> PingTrip {
    let hop = PingHop { agent: agent("opus-1"), took: SPAN };
    PingTrip { hops: vec![hop], round_trip: SPAN, total: SPAN }
}

pub(super) fn trace_step() -> TraceStep {
    TraceStep {
        change: change(),
        since_previous: SPAN,
        model: Some(model("opus")),
        agent: Some(agent("opus-1")),
    }
}

pub(super) fn message() -> Message {
    Message {
        from: Some(Sender::parse("local").unwrap()),
        priority: Priority::Urgent,
        timestamp: Some(AT),
        expires_at: Some(AT),
        ordering_key: Some("local/s".into()),
        correlation: Correlation { root: Some(id()), parent: Some(id()), hops: 8 },
        session: Some("s".into()),
        labels: map(),
        trace: Some("00-1-2-01".into()),
        ..Message::new(id(), Recipient::Agent(agent("eve")), MessageType::Handoff, payload())
    }
}

pub(super) fn bare_message() -> Message {
    Message::consultation(id(), model("opus"), Payload::default())
}

pub(super) fn options() -> AskOptions {
    AskOptions {
        no_fallback: true,
        allow_restart: true,
        max_cost_usd: Some(0.0),
        max_tokens: Some(0),
        deadline: Some(SPAN),
        return_window: Some(Duration::ZERO),
        keep: true,
    }
}

pub(super) fn settlement(outcome: SettleOutcome) -> Settlement {
    Settlement {
        lease: "7.3.abc".into(),
        outcome,
        usage: usage(),
        limits: vec![limit(), bare_limit()],
        first_token: Some(SPAN),
    }
}

pub(super) fn outcomes() -> Vec<SettleOutcome> {
    vec![
        SettleOutcome::Done { parts: parts(), stop_reason: Some(StopReason::WindowFull) },
        SettleOutcome::Done { parts: vec![], stop_reason: None },
        SettleOutcome::Failed { failure: failure(), partial: parts() },
        SettleOutcome::Retry { after: SPAN },
        SettleOutcome::Ask { question: parts() },
        SettleOutcome::Reject { reason: "no".into() },
        SettleOutcome::Release,
    ]
}

pub(super) fn part_frames() -> Vec<AnswerFrame> {
    let (attempt, part) = (2, 1);
    vec![
        AnswerFrame::PartStart { attempt, part, opening: Part::text("") },
        AnswerFrame::PartDelta { attempt, part, offset: 7, data: Bytes::from_static(b"more") },
        AnswerFrame::PartEnd { attempt, part, closing: None },
        AnswerFrame::PartEnd { attempt, part, closing: parts().pop() },
    ]
}

pub(super) fn answer_frames() -> Vec<AnswerFrame> {
    let terminal = |end| AnswerFrame::Terminal(Box::new(end));
    let mut frames = part_frames();
    frames.extend([
        AnswerFrame::Accepted(receipt()),
        AnswerFrame::Routed(Box::new(routed())),
        AnswerFrame::Restarted { attempt: 2, reason: "lost".into() },
        AnswerFrame::Switched {
            from: model("opus"),
            to: model("local"),
            reason: "out".into(),
            attempt: 2,
        },
        AnswerFrame::Usage(usage()),
        terminal(Terminal::Done(summary())),
        terminal(Terminal::Failed { failure: failure(), summary: bare_summary() }),
        terminal(Terminal::Expired(bare_summary())),
        terminal(Terminal::Cancelled(bare_summary())),
    ]);
    frames
}

pub(super) fn hello() -> Hello {
    Hello {
        agent: agent("opus"),
        token: "bat_1".into(),
        instance: "i".into(),
        is_exclusive: true,
        models: vec![model("opus"), model("gpt-4o")],
        capacity: 4,
        resume: vec!["7.3.abc".into()],
        resume_token: Some("1.def".into()),
        resume_seen: 12,
        roles: vec![role("reviewer")],
        is_standby: true,
    }
}

pub(super) fn delivery() -> Delivery {
    Delivery {
        lease: "7.3.abc".into(),
        number: 7,
        size_bytes: 9,
        message: message(),
        attempt: 3,
        model: Some(model("opus")),
        time_left: SPAN,
        max_output_tokens: Some(16),
        exchanges: vec![exchange(), open_exchange()],
        lease_left: SPAN,
        generation: 2,
    }
}

pub(super) fn info() -> MessageInfo {
    MessageInfo {
        id: id(),
        from: Sender::parse("local").unwrap(),
        to: Recipient::Model(model("opus")),
        kind: MessageType::Consultation,
        priority: Priority::Low,
        state: MessageState::Dead,
        generation: 2,
        accepted_at: AT,
        deadline: AT,
        finished_at: Some(AT),
        queue: Some(Recipient::Agent(agent("eve"))),
        size_bytes: 7,
        summary: Some(summary()),
        failure: Some(failure()),
        session: Some("s".into()),
        labels: map(),
        copies: 3,
        correlation: message().correlation,
    }
}

pub(super) fn bare_info() -> MessageInfo {
    MessageInfo {
        finished_at: None,
        queue: None,
        summary: None,
        failure: None,
        session: None,
        labels: BTreeMap::new(),
        copies: 0,
        correlation: Correlation::default(),
        ..info()
    }
}

pub(super) fn change() -> MessageChange {
    MessageChange {
        id: id(),
        at: AT,
        change: "leased".into(),
        detail: "attempt 1".into(),
        state: MessageState::Leased,
    }
}

pub(super) fn model_info() -> ModelInfo {
    ModelInfo {
        name: model("opus"),
        provider: "anthropic".into(),
        id: "claude".into(),
        context_window: 200_000,
        level: "EXHAUSTED".into(),
        is_available: false,
        reason: "quota".into(),
        is_simulated: true,
        is_degraded: true,
        has_vision: true,
        unavailable_until: Some(AT),
        agents: 1,
        queued: 2,
        leased: 3,
        fallback: vec![model("sonnet"), model("local")],
    }
}

pub(super) fn agent_info() -> AgentInfo {
    AgentInfo {
        name: agent("opus"),
        is_connected: true,
        is_exclusive: true,
        models: vec![model("opus")],
        capacity: 4,
        leased: 1,
        free_credit: 3,
        since: AT,
        instance: "i".into(),
        roles: vec![role("reviewer")],
        is_draining: true,
    }
}

pub(super) fn pong() -> Pong {
    Pong {
        version: "0.1.0".into(),
        round_trip: Some(SPAN),
        agent: Some(agent("opus")),
        journal: "memory".into(),
    }
}

pub(super) fn model_usage() -> ModelUsage {
    ModelUsage {
        model: model("opus"),
        level: usage_level(),
        windows: vec![usage_window()],
        total: usage(),
        calls: 5,
        failures: 1,
        cost_usd: Some(2.0),
        unavailable_until: Some(AT),
        is_simulated: true,
        next: Some(model("local")),
        signals: UsageSignals {
            rate_limit_count: 1,
            slow_streak: 2,
            error_rate: 0.25,
            avg_response_seconds: Some(1.5),
        },
        forecast_at: Some(AT),
        burn: UsageBurn {
            requests_per_hour: 1,
            tokens_per_hour: 2,
            cost_usd_per_hour: 0.5,
            confidence: 0.75,
        },
        counted: vec![counted_window()],
        key: "KEY".into(),
    }
}

pub(super) fn usage_level() -> UsageLevel {
    UsageLevel {
        level: "WARNING".into(),
        cause: "5h".into(),
        reason: "tokens".into(),
        action: "log".into(),
        pace: String::new(),
        since: Some(AT),
    }
}

pub(super) fn usage_window() -> UsageWindow {
    UsageWindow {
        name: "tokens".into(),
        used: Some(7),
        limit: Some(10),
        resets_at: Some(AT),
        unit: "tokens".into(),
    }
}

pub(super) fn counted_window() -> CountedWindow {
    CountedWindow { name: "day".into(), requests: 1, tokens: 2, cost_usd: 0.5, resets_at: Some(AT) }
}

pub(super) fn usage_status() -> UsageStatus {
    UsageStatus {
        models: vec![model_usage()],
        scopes: vec![ScopeUsage {
            kind: "key".into(),
            name: "KEY".into(),
            windows: vec![usage_window()],
            counted: vec![counted_window()],
            burn: UsageBurn::default(),
            calls: 3,
            cost_usd: Some(0.5),
        }],
        sessions: vec![SessionUsage {
            session: "s".into(),
            model: Some(model("opus")),
            tokens: 9,
            context_window: Some(200_000),
            warning_threshold: Some(150_000),
            switch_threshold: Some(180_000),
            level: usage_level(),
            windows: vec![usage_window()],
            counted: vec![counted_window()],
            total: usage(),
            calls: 2,
            cost_usd: None,
            duration: Duration::from_secs(5),
            worked: Duration::from_secs(3),
            complexity: Some(0.5),
            rating: Some(4),
            last_at: Some(AT),
        }],
    }
}

pub(super) fn limit_forecast() -> LimitForecast {
    LimitForecast {
        kind: "model".into(),
        name: "opus".into(),
        window: usage_window(),
        per_hour: 4,
        reached_at: Some(AT),
        confidence: 0.5,
    }
}

pub(super) fn level_change() -> LevelChange {
    LevelChange {
        at: AT,
        kind: "model".into(),
        name: "opus".into(),
        model: Some(model("opus")),
        from: "HEALTHY".into(),
        to: usage_level(),
        diagnosis: vec!["a call".into()],
    }
}

pub(super) fn ledger_line() -> LedgerLine {
    LedgerLine {
        at: AT,
        source: "attempt".into(),
        model: model("opus"),
        key: "KEY".into(),
        session: Some("s".into()),
        message: Some(MessageId::from_u128(7)),
        attempt: 2,
        agent: Some(AgentName::parse("a").unwrap()),
        outcome: "done".into(),
        usage: usage(),
        cost_usd: Some(0.5),
        latency: Some(Duration::from_secs(1)),
        first_token: Some(Duration::from_millis(5)),
    }
}

pub(super) fn ledger_filter() -> LedgerFilter {
    LedgerFilter {
        model: Some(model("opus")),
        key: Some("KEY".into()),
        session: Some("s".into()),
        agent: Some(AgentName::parse("a").unwrap()),
        message: Some(MessageId::from_u128(7)),
        outcome: Some("done".into()),
        since: Some(AT),
        until: Some(AT),
    }
}

pub(super) fn explanation() -> RouteExplanation {
    RouteExplanation {
        asked: model("opus"),
        candidates: vec![Candidate {
            model: model("local"),
            is_chosen: true,
            reason: "small".into(),
            context_window: 8_192,
            estimated_input_tokens: 9,
            estimated_cost_usd: Some(0.1),
            max_output_tokens: Some(16),
            is_degraded: true,
        }],
        decision: "local is called".into(),
    }
}
