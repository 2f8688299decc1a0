//! `TaskService`.

use futures::{
    StreamExt,
    stream::{BoxStream, unfold},
};
use tonic::{Request, Response, Status};

use broker_proto::{
    Failure, FailureClass, Message, MessageId, MessageName, MessageState, Part, TaskChange,
    TaskDetail, TaskExchange, TaskInfo, TaskState,
    convert::{InvalidField, Stored as _},
    pb,
};

use super::{
    Caller, find, reason, status,
    watch::{Seen, Start, Watches},
};
use crate::{
    core::{
        Command, Event, Refusal, Reply, TaskStep,
        queue::{Digest, Hold, Seq},
        task,
    },
    engine,
    intake::{Intake, exchange, expected::Expected},
    projection::{Filter, Row, Step},
};

/// Tasks on a page when the caller names no size.
const PAGE: u32 = 100;
/// Bytes of one input: a longer one is uploaded first.
const LONGEST_INPUT: u64 = 64 * 1024;

/// Gives out tasks and follows them.
#[derive(Debug, Clone)]
pub struct TaskService {
    pub intake: Intake,
    pub watches: Watches,
}

type Change = Result<pb::WatchTaskResponse, Status>;

impl TaskService {
    /// A task that this caller may see: an agent sees what it gave out itself.
    async fn row(&self, caller: &Caller, name: MessageName) -> Result<(Row, TaskState), Status> {
        let row = find::row(&self.intake, caller, name.clone()).await;
        let row = row.map_err(|status| match reason::frame(&status).reason.as_str() {
            // Said of what was asked for.
            "UNKNOWN_MESSAGE" => reason::UNKNOWN_MESSAGE.status(format!("there is no task {name}")),
            _ => status,
        })?;
        match row.task {
            Some(state) => Ok((row, state)),
            None => {
                let text = format!("message {} is no task", row.accepted.subject.id);
                Err(reason::NOT_A_TASK.status(text))
            }
        }
    }

    async fn life(&self, row: &Row) -> Result<Vec<Step>, Status> {
        let head = self.intake.engine.head();
        let life = self.intake.projection.life(row.accepted.subject.seq, head).await;
        life.map_err(|error| status::projection(&error))
    }

    async fn message(&self, row: &Row) -> Result<Message, Status> {
        let bytes = self.intake.bodies.load(&row.accepted.body).await;
        Ok(Message::decode(bytes.map_err(|error| status::context(&error))?)?)
    }

    async fn detail(&self, row: Row, state: TaskState) -> Result<TaskDetail, Status> {
        let message = self.message(&row).await?;
        let task = *message.payload.task.unwrap_or_default();
        let life = self.life(&row).await?;
        let exchanges = self.exchanges(&read(&life).exchanges).await?;
        let bodies = &self.intake.bodies;
        let arrived = row.finished.as_ref().and_then(|finished| finished.reply.clone());
        let result = match arrived.or_else(|| partial(&life)) {
            Some(body) => {
                exchange::parts(bodies, &body).await.map_err(|error| status::context(&error))?
            }
            None => Vec::new(),
        };
        let is_json = state == TaskState::Completed;
        let result_json = match Expected::of(&task.result).ok().filter(|_| is_json) {
            Some(expected) => {
                let whole = self.whole(&result).await?;
                expected.check(&whole).ok().flatten()
            }
            None => None,
        };
        Ok(TaskDetail { info: info(row, state), task, exchanges, result, result_json })
    }

    /// These parts, with what is stored apart in its place.
    async fn whole(&self, parts: &[Part]) -> Result<Vec<Part>, Status> {
        let mut whole = Vec::new();
        for part in parts {
            match part {
                Part::Ref(_) => {
                    let fetched = self.intake.check_refs([part]).await;
                    whole.extend(fetched.map_err(status::intake)?);
                }
                part => whole.push(part.clone()),
            }
        }
        Ok(whole)
    }

    async fn exchanges(&self, asked: &[task::Exchange]) -> Result<Vec<TaskExchange>, Status> {
        let mut exchanges = Vec::new();
        for asked in asked {
            let with_contents = exchange::load(&self.intake.bodies, asked).await;
            exchanges.push(with_contents.map_err(|error| status::context(&error))?);
        }
        Ok(exchanges)
    }

    /// One step for a task; what it led to.
    async fn step(
        &self,
        row: &Row,
        state: TaskState,
        step: TaskStep,
        contents: Vec<engine::Content>,
    ) -> Result<TaskState, Status> {
        let (seq, id) = (row.accepted.subject.seq, row.accepted.subject.id);
        let verb = step.verb();
        let command = Command::Task { seq, step };
        match self.intake.engine.with_contents(command, contents).await {
            Ok(Reply::Task(state)) => Ok(state),
            Ok(_) => Err(status::engine(engine::Error::Unknown)),
            Err(engine::Error::Refused(Refusal::TaskEnded)) => {
                // It may have ended since it was looked at.
                let (sender, head) = (row.accepted.sender.clone(), self.intake.engine.head());
                let found = self.intake.projection.find(sender, id, head).await;
                let row = found.map_err(|error| status::projection(&error))?;
                let state = row.and_then(|row| row.task).unwrap_or(state);
                let refused = Refusal::TaskState { id, state, wanted: verb };
                Err(status::engine(refused.into()))
            }
            Err(error) => Err(status::engine(error)),
        }
    }

    /// The state that an input led to which was taken before its task ended.
    async fn provided_before(
        &self,
        row: &Row,
        input: MessageId,
        digest: Digest,
    ) -> Result<bool, Status> {
        let life = self.life(row).await?;
        let taken = life.iter().find_map(|step| match &step.event {
            Event::TaskAnswered { id, digest, .. } if *id == input => Some(*digest),
            _ => None,
        });
        match taken {
            None => Ok(false),
            Some(taken) if taken == digest => Ok(true),
            Some(_) => Err(status::engine(Refusal::IdReused(input).into())),
        }
    }

    /// A step of one task in words, with what was asked and answered.
    async fn change(&self, life: &mut Life, event: &Event) -> Result<Option<TaskChange>, Status> {
        let Some((change, about)) = life.take(event) else { return Ok(None) };
        let exchange = match about {
            Some(number) => {
                let asked = life.exchanges.iter().filter(|asked| asked.number == number).cloned();
                self.exchanges(&asked.collect::<Vec<_>>()).await?.pop()
            }
            None => None,
        };
        Ok(Some(TaskChange { exchange, ..change }))
    }
}

/// What is known of a task while its life is read.
#[derive(Debug, Default)]
struct Life {
    exchanges: Vec<task::Exchange>,
    has_just_asked: bool,
}

impl Life {
    /// The step in words, and the question that it is about.
    fn take(&mut self, event: &Event) -> Option<(TaskChange, Option<u32>)> {
        let mut about = None;
        let plain = |state| task::of_message(state, None);
        let queued = || plain(MessageState::Queued);
        let (at, change, detail, state) = match event {
            Event::Accepted(accepted) => {
                (accepted.at, "submitted", format!("to {}", accepted.to), queued())
            }
            Event::Routed { at, queue, why, .. } => {
                (*at, "queued", format!("to {queue}: {why}"), queued())
            }
            Event::Leased { at, epoch, agent, .. } => {
                let detail = format!("attempt {epoch} by {agent}");
                (*at, "started", detail, plain(MessageState::Leased))
            }
            Event::AttemptFailed { at, attempt, .. } => {
                let class = attempt.failure.as_ref().map_or("", |failure| failure.class.as_str());
                (*at, "attempt_failed", format!("{}: {class}", attempt.model), queued())
            }
            Event::LeaseLost { at, why, .. } => (*at, "lease_lost", why.clone(), queued()),
            // Told as `asked` already.
            Event::Held { hold: Hold::InputRequired, .. } if self.has_just_asked => {
                self.has_just_asked = false;
                return None;
            }
            Event::Held { at, hold, why, .. } => {
                let change = match hold {
                    Hold::Suspended => "suspended",
                    Hold::InputRequired => "waiting",
                    Hold::Parked => "parked",
                    Hold::Handoff => "waits_for_handoff",
                    Hold::Paused => "session_paused",
                };
                let state = task::of_message(MessageState::Waiting, Some(*hold));
                (*at, change, why.clone(), state)
            }
            Event::TaskAsked { at, number, question, .. } => {
                self.has_just_asked = true;
                self.exchanges.push(task::Exchange {
                    number: *number,
                    question: question.clone(),
                    asked_at: *at,
                    answer: None,
                });
                about = Some(*number);
                let state = task::of_message(MessageState::Waiting, Some(Hold::InputRequired));
                (*at, "asked", format!("question {number}"), state)
            }
            Event::TaskAnswered { at, id, digest, answer, .. } => {
                let asked = self.exchanges.last_mut()?;
                let (id, digest, body) = (*id, *digest, answer.clone());
                asked.answer = Some(task::Answer { id, digest, body, at: *at });
                about = Some(asked.number);
                (*at, "answered", format!("question {}", asked.number), queued())
            }
            Event::TaskStopped { at, .. } => {
                let state = task::of_message(MessageState::Waiting, Some(Hold::Suspended));
                (*at, "stopped", "what it had shown is kept".to_owned(), state)
            }
            Event::Finished(finished) => {
                let failure = failure(finished.state, finished.failure.clone());
                let detail = failure.as_ref().map_or(String::new(), |failure| {
                    format!("{}: {}", failure.class.as_str(), failure.detail)
                });
                let state = task::of_end(finished.state, finished.failure.as_ref());
                (finished.at, "finished", detail, state)
            }
            Event::Parked { at, .. } => {
                let state = task::of_message(MessageState::Waiting, Some(Hold::Parked));
                (*at, "parked", "its recipient's dead letters are full".to_owned(), state)
            }
            Event::DeliveryFailed { at, failure, .. } => {
                (*at, "attempt_failed", failure.class.as_str().to_owned(), queued())
            }
            // A new life, of which nothing was asked yet.
            Event::Redriven { at, .. } => {
                self.exchanges.clear();
                (*at, "redriven", String::new(), queued())
            }
            Event::Redirected(redirected) => {
                let detail = format!("to {}: {}", redirected.to, redirected.why);
                (redirected.at, "redirected", detail, queued())
            }
            Event::Purged { .. }
            | Event::QueuePaused { .. }
            | Event::ClockJumped { .. }
            | Event::FannedOut(_)
            | Event::RoleKnown { .. }
            | Event::RouteChanged { .. }
            | Event::UsageChanged { .. }
            | Event::Usage(_)
            | Event::TreeChanged { .. }
            | Event::TokenChanged { .. }
            | Event::ContentStored { .. }
            | Event::ContentForgotten { .. }
            | Event::Session(_)
            | Event::Handoff(_)
            | Event::Bridge(_)
            | Event::Ring(_)
            | Event::SliceMoved(_)
            | Event::Package(_) => return None,
        };
        Some((TaskChange { at, change: change.into(), detail, state, exchange: None }, about))
    }
}

/// What is known of a task after these steps.
fn read<'a>(steps: impl IntoIterator<Item = &'a Step>) -> Life {
    let mut life = Life::default();
    for step in steps {
        life.take(&step.event);
    }
    life
}

/// What the last suspended attempt had shown.
fn partial(life: &[Step]) -> Option<crate::core::queue::Body> {
    life.iter().rev().find_map(|step| match &step.event {
        Event::TaskStopped { partial, .. } => partial.clone(),
        _ => None,
    })
}

/// Why a task failed, whatever ended its message.
fn failure(state: MessageState, failure: Option<Failure>) -> Option<Failure> {
    let said = |class, detail| Some(Failure::new(class, "broker", detail));
    match state {
        MessageState::Expired => said(FailureClass::Timeout, "the deadline came first"),
        MessageState::Cancelled => said(FailureClass::Cancelled, "it was cancelled"),
        _ => failure,
    }
}

fn info(row: Row, state: TaskState) -> TaskInfo {
    let correlation = row.accepted.correlation.clone();
    let info = row.info();
    TaskInfo {
        id: info.id,
        from: info.from,
        to: info.to,
        state,
        priority: info.priority,
        submitted_at: info.accepted_at,
        deadline: info.deadline,
        finished_at: info.finished_at,
        summary: info.summary,
        failure: failure(info.state, info.failure),
        correlation,
        session: info.session,
        labels: info.labels,
    }
}

fn filter(request: &pb::ListTasksRequest) -> Result<Filter, InvalidField> {
    let states = request.states.iter().map(|number| {
        TaskState::from_wire(*number)
            .ok_or_else(|| InvalidField::new("states", "holds a number that is no state"))
    });
    let tasks = Some(states.collect::<Result<_, _>>()?);
    Ok(Filter {
        tasks,
        to: find::recipient(&request.to)?,
        before: find::page(&request.page_token)?,
        limit: if request.page_size == 0 { PAGE } else { request.page_size },
        ..Filter::default()
    })
}

fn task_id(text: &str) -> Result<MessageName, InvalidField> {
    find::message_name(text).map_err(|invalid| InvalidField { field: "task_id", ..invalid })
}

/// What makes two inputs of one id the same.
fn digest(question: u32, bytes: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&question.to_le_bytes());
    hasher.update(bytes);
    Digest(*hasher.finalize().as_bytes())
}

#[tonic::async_trait]
impl pb::task_service_server::TaskService for TaskService {
    type WatchTaskStream = BoxStream<'static, Change>;

    async fn submit_task(
        &self,
        request: Request<pb::SubmitTaskRequest>,
    ) -> Result<Response<pb::SubmitTaskResponse>, Status> {
        let sender = Caller::of(&request).sender()?;
        let request = request.into_inner();
        let message: Message = request
            .message
            .ok_or_else(|| InvalidField::new("message", "is missing"))?
            .try_into()?;
        let sent = self.intake.delegate(&sender, message, request.allow_future_recipient).await;
        let receipt = sent.map_err(status::intake)?;
        Ok(Response::new(pb::SubmitTaskResponse { receipt: Some(receipt.into()) }))
    }

    async fn get_task(
        &self,
        request: Request<pb::GetTaskRequest>,
    ) -> Result<Response<pb::GetTaskResponse>, Status> {
        let caller = Caller::of(&request);
        let (row, state) = self.row(&caller, task_id(&request.into_inner().task_id)?).await?;
        Ok(Response::new(self.detail(row, state).await?.into()))
    }

    async fn list_tasks(
        &self,
        request: Request<pb::ListTasksRequest>,
    ) -> Result<Response<pb::ListTasksResponse>, Status> {
        let caller = Caller::of(&request);
        let mut filter = filter(&request.into_inner())?;
        if let Some(to) = &filter.to {
            find::known(&self.intake, to).await?;
        }
        if caller != Caller::Local {
            filter.sender = Some(caller.sender()?);
        }
        let head = self.intake.engine.head();
        let page = self.intake.projection.list(filter, head).await;
        let page = page.map_err(|error| status::projection(&error))?;
        let tasks = page.rows.into_iter().filter_map(|row| {
            let state = row.task?;
            Some(info(row, state).into())
        });
        Ok(Response::new(pb::ListTasksResponse {
            tasks: tasks.collect(),
            next_page_token: page.next.map(|seq| seq.0.to_string()).unwrap_or_default(),
        }))
    }

    async fn watch_task(
        &self,
        request: Request<pb::WatchTaskRequest>,
    ) -> Result<Response<Self::WatchTaskStream>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let (row, _) = self.row(&caller, task_id(&request.task_id)?).await?;
        let life = self.life(&row).await?;
        let start = match request.cursor.as_str() {
            "" => life.first().map_or(Start::FIRST, |step| Start::at(step.batch)),
            cursor => self.watches.behind(cursor)?,
        };
        let is_end = |step: &&Step| matches!(step.event, Event::Finished(_));
        let end = life.iter().find(is_end);
        let watch = Watch {
            service: self.clone(),
            seq: row.accepted.subject.seq,
            life: read(life.iter().filter(|step| start.is_behind(step.batch, step.place))),
            is_over: end.is_some_and(|end| start.is_behind(end.batch, end.place)),
        };
        let changes = unfold((watch, self.watches.from(start)), |(mut watch, mut seen)| async {
            while !watch.is_over {
                let next = seen.next().await?;
                if let Some(change) = watch.next(next).await {
                    return Some((change, (watch, seen)));
                }
            }
            None
        });
        Ok(Response::new(changes.boxed()))
    }

    async fn provide_input(
        &self,
        request: Request<pb::ProvideInputRequest>,
    ) -> Result<Response<pb::ProvideInputResponse>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let (row, state) = self.row(&caller, task_id(&request.task_id)?).await?;
        let id = MessageId::parse(&request.input_id)
            .ok_or_else(|| InvalidField::new("input_id", "is not a ULID"))?;
        let parts = request.parts.into_iter().map(TryInto::try_into);
        let response = parts.collect::<Result<Vec<Part>, InvalidField>>()?;
        let inline: u64 = response.iter().map(Part::inline_bytes).sum();
        if response.iter().all(|part| part.size_bytes() == 0) || inline > LONGEST_INPUT {
            let problem = format!("are not 1 to {LONGEST_INPUT} bytes; upload what is larger");
            return Err(InvalidField::new("parts", problem).into());
        }
        let _stay = self.intake.stay(&response).await;
        let fetched = self.intake.check_refs(&response).await.map_err(status::intake)?;
        let has_images = response.iter().chain(&fetched).any(Part::has_image);
        let payload = broker_proto::Payload { response, ..Default::default() };
        let bytes = payload.encode();
        let digest = digest(request.question, &bytes);
        if state.is_terminal() && self.provided_before(&row, id, digest).await? {
            return Ok(Response::new(pb::ProvideInputResponse { state: state.to_wire() }));
        }
        let stored = self.intake.bodies.store(bytes).await;
        let stored = stored.map_err(|error| status::context(&error))?;
        let (answer, question) = (stored.body, request.question);
        let step = TaskStep::Provide { id, digest, answer, has_images, question };
        let state = self.step(&row, state, step, stored.contents).await?.to_wire();
        Ok(Response::new(pb::ProvideInputResponse { state }))
    }

    async fn suspend_task(
        &self,
        request: Request<pb::SuspendTaskRequest>,
    ) -> Result<Response<pb::SuspendTaskResponse>, Status> {
        let caller = Caller::of(&request);
        let (row, state) = self.row(&caller, task_id(&request.into_inner().task_id)?).await?;
        let state = self.step(&row, state, TaskStep::Suspend, Vec::new()).await?.to_wire();
        Ok(Response::new(pb::SuspendTaskResponse { state }))
    }

    async fn resume_task(
        &self,
        request: Request<pb::ResumeTaskRequest>,
    ) -> Result<Response<pb::ResumeTaskResponse>, Status> {
        let caller = Caller::of(&request);
        let (row, state) = self.row(&caller, task_id(&request.into_inner().task_id)?).await?;
        let state = self.step(&row, state, TaskStep::Resume, Vec::new()).await?.to_wire();
        Ok(Response::new(pb::ResumeTaskResponse { state }))
    }

    async fn cancel_task(
        &self,
        request: Request<pb::CancelTaskRequest>,
    ) -> Result<Response<pb::CancelTaskResponse>, Status> {
        let caller = Caller::of(&request);
        let (row, state) = self.row(&caller, task_id(&request.into_inner().task_id)?).await?;
        let state = self.step(&row, state, TaskStep::Cancel, Vec::new()).await?.to_wire();
        Ok(Response::new(pb::CancelTaskResponse { state }))
    }
}

/// One watch of one task.
struct Watch {
    service: TaskService,
    seq: Seq,
    life: Life,
    is_over: bool,
}

impl Watch {
    /// What is told of an item; `None` when it is about something else.
    async fn next(&mut self, seen: Result<Seen, Status>) -> Option<Change> {
        let (cursor, event) = match seen {
            Ok(Seen::Event { cursor, event }) => (cursor, event),
            Ok(Seen::Gap { first_cursor }) => {
                let gap = pb::WatchGap { first_cursor: first_cursor.clone() };
                let change = Some(pb::watch_task_response::Change::Gap(gap));
                return Some(Ok(pb::WatchTaskResponse { cursor: first_cursor, change }));
            }
            Err(status) => return Some(self.ends(status)),
        };
        if event.subject().is_none_or(|subject| subject.seq != self.seq) {
            return None;
        }
        let change = match self.service.change(&mut self.life, &event).await {
            Ok(change) => change?,
            Err(status) => return Some(self.ends(status)),
        };
        self.is_over = change.state.is_terminal();
        let change = Some(pb::watch_task_response::Change::Task(change.into()));
        Some(Ok(pb::WatchTaskResponse { cursor, change }))
    }

    fn ends(&mut self, status: Status) -> Change {
        self.is_over = true;
        Err(status)
    }
}
