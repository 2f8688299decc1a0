use std::sync::Mutex;

use async_trait::async_trait;
use broker_config::Provider as Name;
use broker_proto::{
    Part, Payload, Provenance, ResultType, TaskExchange, TaskInput, TaskSpec, WallTime,
};
use futures::stream;
use tokio::sync::Notify;

use super::*;
use crate::provider::{ChunkStream, Failed, fixture};

/// A provider that says what it is told to.
#[derive(Debug, Default)]
struct Scripted {
    says: Vec<Chunk>,
    then: Then,
    /// Before it answers at all.
    is_silent: bool,
    dropped: Arc<Notify>,
    calls: Mutex<u32>,
}

#[derive(Debug, Default, Clone)]
enum Then {
    #[default]
    End,
    Stall,
    Fail(Box<Failed>),
    Panic,
}

/// Notes that the stream was dropped.
struct Guard(Arc<Notify>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl Provider for Scripted {
    async fn complete(&self, _: Prompt) -> provider::Result<ChunkStream> {
        *self.calls.lock().unwrap() += 1;
        if self.is_silent {
            std::future::pending::<()>().await;
        }
        let guard = Guard(Arc::clone(&self.dropped));
        let says = stream::iter(self.says.clone().into_iter().map(Ok));
        let then = self.then.clone();
        let last = stream::once(async move {
            let _guard = guard;
            match then {
                Then::Stall => std::future::pending().await,
                Then::Fail(failed) => Some(Err(failed)),
                Then::Panic => panic!("scripted"),
                Then::End => None,
            }
        });
        Ok(Box::pin(futures::StreamExt::chain(
            says,
            futures::StreamExt::filter_map(last, std::future::ready),
        )))
    }

    async fn check(&self) -> provider::Result<Option<String>> {
        Ok(None)
    }
}

/// What an asker would see.
#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Listener for Seen {
    async fn start_part(&self, part: u32, opening: Part) {
        self.0.lock().unwrap().push(format!("start {part} {opening:?}"));
    }

    async fn delta(&self, part: u32, text: &str) {
        self.0.lock().unwrap().push(format!("delta {part} {text}"));
    }

    async fn end_part(&self, part: u32, closing: Option<Part>) {
        self.0.lock().unwrap().push(format!("end {part} {closing:?}"));
    }
}

fn text(text: &str) -> Vec<Chunk> {
    vec![
        Chunk::Started { limits: Vec::new() },
        Chunk::PartStart { part: 0, opening: Part::text("") },
        Chunk::Delta { part: 0, text: text.into() },
    ]
}

fn done(usage: Usage) -> Vec<Chunk> {
    let ending = Chunk::PartEnd { part: 0, closing: None };
    text("hello")
        .into_iter()
        .chain([ending, Chunk::Done { usage, stop_reason: Some(StopReason::End) }])
        .collect()
}

fn worker(provider: Scripted) -> Worker {
    Worker::new([(fixture::model(Name::OpenAi), Arc::new(provider) as Arc<dyn Provider>)]).unwrap()
}

async fn answered(provider: Scripted) -> Ending {
    worker(provider).answer(&fixture::delivery(), &Seen::default(), &CancellationToken::new()).await
}

#[track_caller]
fn settled(ending: Ending) -> (SettleOutcome, Report) {
    match ending {
        Ending::Settle(outcome, report) => (*outcome, report),
        Ending::Abandon(_) => panic!("abandoned"),
    }
}

#[track_caller]
fn failure(ending: Ending) -> (Failure, Vec<Part>, Report) {
    match settled(ending) {
        (SettleOutcome::Failed { failure, partial }, report) => (failure, partial, report),
        (outcome, _) => panic!("{outcome:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_streamed_and_settled_whole() {
    let usage = Usage { input_tokens: Some(3), output_tokens: Some(1), ..Usage::default() };
    let seen = Seen::default();
    let worker = worker(Scripted { says: done(usage), ..Scripted::default() });

    let ending = worker.answer(&fixture::delivery(), &seen, &CancellationToken::new()).await;

    let (outcome, report) = settled(ending);
    let parts = vec![Part::text("hello")];
    assert_eq!(outcome, SettleOutcome::Done { parts, stop_reason: Some(StopReason::End) });
    assert_eq!(report.usage, usage);
    assert_eq!(report.first_token, Some(Duration::ZERO));
    assert_eq!(*seen.0.lock().unwrap(), ["start 0 Text(0 bytes)", "delta 0 hello", "end 0 None"]);
}

#[tokio::test(start_paused = true)]
async fn usage_that_nobody_counted_is_estimated_and_says_so() {
    let (_, report) =
        settled(answered(Scripted { says: done(Usage::default()), ..Scripted::default() }).await);
    assert_eq!(report.usage.provenance, Provenance::Estimated);
    assert_eq!(report.usage.output_tokens, Some(2));
    assert!(report.usage.input_tokens.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failure_in_the_middle_keeps_what_came_and_counts_it() {
    let usage =
        Usage { input_tokens: Some(12), provenance: Provenance::Partial, ..Usage::default() };
    let failure_in = Failure::new(FailureClass::Overloaded, "openai", "x");
    let failed = Failed { failure: failure_in.clone(), usage, limits: Vec::new() };
    let scripted =
        Scripted { says: text("half"), then: Then::Fail(Box::new(failed)), ..Scripted::default() };

    let (failure, partial, report) = failure(answered(scripted).await);

    assert_eq!((failure, partial), (failure_in, vec![Part::text("half")]));
    assert_eq!((report.usage.input_tokens, report.usage.output_tokens), (Some(12), Some(1)));
    assert_eq!(report.usage.provenance, Provenance::Partial);
}

#[tokio::test(start_paused = true)]
async fn each_deadline_names_itself() {
    let named = async |scripted: Scripted, want: &str| {
        let (failure, ..) = failure(answered(scripted).await);
        assert_eq!((failure.class, failure.detail.as_str()), (FailureClass::Timeout, want));
    };
    named(Scripted { is_silent: true, ..Scripted::default() }, "openai: no first byte within 1m")
        .await;
    let headers = vec![Chunk::Started { limits: Vec::new() }];
    named(
        Scripted { says: headers, then: Then::Stall, ..Scripted::default() },
        "openai: no first byte within 1m",
    )
    .await;
    let half = Scripted { says: text("half"), then: Then::Stall, ..Scripted::default() };
    named(half, "openai: no byte for 1m within the answer").await;
}

#[tokio::test(start_paused = true)]
async fn the_whole_call_ends_with_its_own_or_the_messages_deadline() {
    let check = async |total: u64, left: u64, want: &str| {
        let scripted = Scripted { says: text("half"), then: Then::Stall, ..Scripted::default() };
        let mut model = fixture::model(Name::OpenAi);
        model.total_timeout = Duration::from_secs(total);
        let worker = Worker::new([(model, Arc::new(scripted) as Arc<dyn Provider>)]).unwrap();
        let delivery = Delivery { time_left: Duration::from_secs(left), ..fixture::delivery() };
        let ending = worker.answer(&delivery, &Seen::default(), &CancellationToken::new()).await;
        let (failure, partial, _) = failure(ending);
        assert_eq!((failure.class, failure.detail.as_str()), (FailureClass::Timeout, want));
        assert_eq!(partial, [Part::text("half")]);
    };
    check(20, 600, "openai: the whole call took over 20s").await;
    check(600, 20, "openai: the message's deadline passed during the call").await;
}

#[tokio::test(start_paused = true)]
async fn cancelling_drops_the_call_and_reports_what_it_took() {
    let dropped = Arc::new(Notify::new());
    let scripted = Scripted {
        says: text("half"),
        then: Then::Stall,
        dropped: Arc::clone(&dropped),
        ..Scripted::default()
    };
    let (worker, lost) = (worker(scripted), CancellationToken::new());
    let (delivery, seen) = (fixture::delivery(), Seen::default());
    let answer = worker.answer(&delivery, &seen, &lost);

    let (ending, ()) = tokio::join!(answer, async {
        tokio::task::yield_now().await;
        lost.cancel();
    });

    dropped.notified().await;
    let Ending::Abandon(report) = ending else { panic!("{ending:?}") };
    assert_eq!(report.usage.output_tokens, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_just_ends_is_truncated() {
    let (failure, ..) =
        failure(answered(Scripted { says: text("half"), ..Scripted::default() }).await);
    assert_eq!(failure.class, FailureClass::Truncated);
}

#[tokio::test(start_paused = true)]
async fn a_status_is_taken_without_a_call_and_what_is_unknown_is_rejected() {
    let check = async |kind: MessageType, model: &str, want: &str| {
        let scripted = Arc::new(Scripted { says: done(Usage::default()), ..Scripted::default() });
        let worker =
            Worker::new([(fixture::model(Name::OpenAi), scripted.clone() as Arc<dyn Provider>)])
                .unwrap();
        let mut delivery = fixture::delivery();
        delivery.message.kind = kind;
        if kind == MessageType::Status {
            delivery.message.payload.status = Some(broker_proto::StatusNotice::default());
        }
        delivery.model = ModelName::parse(model).ok();
        let (outcome, _) =
            settled(worker.answer(&delivery, &Seen::default(), &CancellationToken::new()).await);
        assert!(format!("{outcome:?}").starts_with(want), "{outcome:?}");
        *scripted.calls.lock().unwrap()
    };
    assert_eq!(check(MessageType::Status, "m", "Done { parts: []").await, 0);
    assert_eq!(check(MessageType::Handoff, "m", "Reject").await, 0);
    assert_eq!(check(MessageType::Delegation, "m", "Reject").await, 0);
    assert_eq!(check(MessageType::Consultation, "other", "Reject").await, 0);
    // Without a model it is for the agent itself, which asks its first one.
    assert_eq!(check(MessageType::Consultation, "", "Done").await, 1);
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_models_concurrency_wait() {
    let mut model = fixture::model(Name::OpenAi);
    model.concurrency = 1;
    let scripted = Arc::new(Scripted { is_silent: true, ..Scripted::default() });
    let worker = Worker::new([(model, scripted.clone() as Arc<dyn Provider>)]).unwrap();
    let (delivery, seen, lost) = (fixture::delivery(), Seen::default(), CancellationToken::new());
    let first = worker.answer(&delivery, &seen, &lost);
    let second = worker.answer(&delivery, &seen, &lost);

    let (.., calls) = tokio::join!(first, second, async {
        tokio::task::yield_now().await;
        let calls = *scripted.calls.lock().unwrap();
        lost.cancel();
        calls
    });

    assert_eq!(calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure_of_the_message() {
    let scripted = Scripted { says: text("half"), then: Then::Panic, ..Scripted::default() };
    let (failure, ..) = failure(answered(scripted).await);
    assert_eq!((failure.class, failure.refused_by.as_str()), (FailureClass::Internal, "agent"));
}

fn delegated(spec: TaskSpec) -> Delivery {
    let mut delivery = fixture::delivery();
    delivery.message.kind = MessageType::Delegation;
    delivery.message.payload = Payload { task: Some(Box::new(spec)), ..Payload::default() };
    delivery
}

fn spec(result: ResultType) -> TaskSpec {
    let parts = vec![Part::text("line 1")];
    let inputs = vec![TaskInput { name: "log".into(), parts }];
    TaskSpec { description: "sum it up".into(), inputs, result, ..TaskSpec::default() }
}

fn says(parts: &[Part]) -> Vec<Chunk> {
    let chunks = (0..).zip(parts).flat_map(|(part, opening)| {
        let text = match opening {
            Part::Text(text) => text.clone(),
            Part::ToolCall { arguments, .. } => String::from_utf8_lossy(arguments).into_owned(),
            other => panic!("{other:?}"),
        };
        [
            Chunk::PartStart { part, opening: opening.clone() },
            Chunk::Delta { part, text },
            Chunk::PartEnd { part, closing: None },
        ]
    });
    let done = Chunk::Done { usage: Usage::default(), stop_reason: Some(StopReason::End) };
    chunks.chain([done]).collect()
}

async fn worked_on(delivery: &Delivery, has_tools: bool, parts: &[Part]) -> SettleOutcome {
    let provider = Scripted { says: says(parts), ..Scripted::default() };
    let model = Model { tools: has_tools, ..fixture::model(Name::OpenAi) };
    let worker = Worker::new([(model, Arc::new(provider) as Arc<dyn Provider>)]).unwrap();
    let ending = worker.answer(delivery, &Seen::default(), &CancellationToken::new()).await;
    settled(ending).0
}

fn asks(arguments: &'static str) -> Part {
    let (id, name) = ("c1".into(), task::ASK.into());
    Part::ToolCall { id, name, arguments: arguments.as_bytes().into() }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_the_tool_is_a_question_back() {
    let delivery = delegated(spec(ResultType::Text));
    for (arguments, want) in [
        (r#"{"question": "which?"}"#, "which?"),
        (r#"{"text": "which?"}"#, "which?"),
        (r#""which?""#, "which?"),
        ("which?", "which?"),
    ] {
        let parts = [Part::text("Let me ask."), asks(arguments)];
        let question = vec![Part::text(want)];
        assert_eq!(worked_on(&delivery, true, &parts).await, SettleOutcome::Ask { question });
    }
    match worked_on(&delivery, true, &[asks("{}")]).await {
        SettleOutcome::Failed { failure, .. } => {
            assert_eq!(failure.class, FailureClass::MalformedReply);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_without_tools_asks_in_plain_words() {
    let delivery = delegated(spec(ResultType::Text));
    let question = vec![Part::text("which?")];
    let asked = worked_on(&delivery, false, &[Part::text("\nQUESTION: which? ")]).await;
    assert_eq!(asked, SettleOutcome::Ask { question });
    let parts = vec![Part::text("QUESTION: is how it begins")];
    let done = worked_on(&delivery, true, &parts).await;
    let stop_reason = Some(StopReason::End);
    assert_eq!(done, SettleOutcome::Done { parts, stop_reason }, "with tools they are only words");
}

#[tokio::test(start_paused = true)]
async fn json_is_taken_out_of_its_fence() {
    let fenced = [Part::text("```json\n{\"a\": 1}\n```\n")];
    let stop_reason = Some(StopReason::End);
    let done = |text: &str| SettleOutcome::Done { parts: vec![Part::text(text)], stop_reason };
    let json = delegated(spec(ResultType::Json { schema: None }));
    assert_eq!(worked_on(&json, true, &fenced).await, done("{\"a\": 1}"));
    let plain = delegated(spec(ResultType::Text));
    assert_eq!(worked_on(&plain, true, &fenced).await, done("```json\n{\"a\": 1}\n```\n"));
}

#[test]
fn a_task_is_a_conversation_with_all_it_asked() {
    let mut delivery = delegated(spec(ResultType::Json { schema: Some("{}".into()) }));
    delivery.exchanges = vec![TaskExchange {
        number: 1,
        question: vec![Part::text("which?")],
        asked_at: WallTime(1),
        answer: vec![Part::text("both")],
        answered_at: Some(WallTime(2)),
    }];
    let spec = delivery.message.payload.task.clone().unwrap();
    let prompt = |has_tools| {
        let model = Model { tools: has_tools, ..fixture::model(Name::Anthropic) };
        Prompt::of(&task::as_question(&delivery, &spec, &model), &model).unwrap()
    };
    let given = prompt(true);
    let texts = given.turns[0].parts.iter().map(|part| match part {
        Part::Text(text) => text.as_str(),
        other => panic!("{other:?}"),
    });
    let words = texts.collect::<Vec<_>>().join("\n");
    for part in ["sum it up", "```json\n{}\n```", "Input log:", "line 1"] {
        assert!(words.contains(part), "{words}");
    }
    assert_eq!(given.tools[0].name, task::ASK);
    match (&given.turns[1].parts[..], &given.turns[2].parts[..]) {
        ([Part::ToolCall { id, .. }], [Part::ToolResult { call_id, parts, .. }]) => {
            assert_eq!((id, parts), (call_id, &vec![Part::text("both")]));
        }
        other => panic!("{other:?}"),
    }
    let given = prompt(false);
    assert_eq!(given.tools, []);
    assert_eq!(given.turns[1].parts, [Part::text("QUESTION: which?")]);
    assert_eq!(given.turns[2].parts, [Part::text("both")]);
}
