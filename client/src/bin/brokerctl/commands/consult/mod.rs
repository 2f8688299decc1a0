//! `consult`, `submit`, `poll`, `attach`, `explain`: questions and their answers.

pub(crate) mod follow;
pub(crate) mod input;
pub(crate) mod reading;
mod report;
mod screen;
pub(crate) mod story;
pub(crate) mod thread;

use std::time::{Duration, SystemTime};

use broker_client::{Client, Error};
use broker_proto::types::{
    AskOptions, Message, MessageId, MessageState, Part, Payload, Recipient, Terminal, WallTime,
};
use tokio::time::Instant;

use self::{
    follow::{Follow, Source, Step},
    reading::Event,
    report::{Owner, Report},
    screen::Screen,
};
use super::{Interrupts, connect, current, note_granted};
use crate::{
    cli::{
        AttachArgs, ConsultArgs, ExplainArgs, Global, Misused, PollArgs, QuestionArgs, SubmitArgs,
    },
    error,
    exit_code::{self, Exit},
    output::{self, Format},
};

/// The longest the broker waits in one poll.
const LONGEST_POLL: Duration = Duration::from_secs(30);
/// How long a cancellation may take before the terminal is given back anyway.
const CANCEL_WITHIN: Duration = Duration::from_secs(5);

/// Asks and shows the answer.
pub(crate) async fn consult(global: &Global, args: ConsultArgs) -> anyhow::Result<Exit> {
    let asked = args.question.model.clone().unwrap_or_default();
    let id = args.question.id;
    let done = ask(global, args).await;
    match done {
        Err(err) if global.output == Format::Json && !is_output(&err) => {
            let class = error::reason(&err);
            output::json(&Report::refused(&asked, id, &class, error::sentence(&err)))?;
            output::note(&error::line(&err));
            Ok(exit_code::of_error(&err))
        }
        done => done,
    }
}

async fn ask(global: &Global, args: ConsultArgs) -> anyhow::Result<Exit> {
    let payload = input::question(&args.question)?;
    check_model(&args.question)?;
    let client = connect(global).await?;
    asked(global, &client, args, payload, Tell::All).await
}

/// What a question tells of its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    /// What was appended, and that it has another owner than before.
    All,
    /// Only that nothing was appended: whoever asks tells the rest.
    Trouble,
}

/// Asks over a connection that is there, and shows the answer.
pub(crate) async fn asked(
    global: &Global,
    client: &Client,
    args: ConsultArgs,
    payload: Payload,
    tell: Tell,
) -> anyhow::Result<Exit> {
    let (message, mut options, thread) = prepare(client, &args.question, payload).await?;
    if let Some(thread) = thread.as_ref().filter(|_| args.question.model.is_none())
        && tell == Tell::All
    {
        thread::tell_owner(thread);
    }
    let (id, asked) = (message.id, message.to.clone());
    let is_shown_at_end = args.no_stream || global.output == Format::Json;
    // What is shown only at the end can begin anew unseen.
    options.allow_restart = args.restart || is_shown_at_end;
    options.keep = args.keep;
    let asked = args.question.model.clone().unwrap_or_else(|| match asked {
        Recipient::Model(model) => model.to_string(),
        other => other.to_string(),
    });
    let screen = Screen::new(global, &asked, is_shown_at_end);
    let follow = Follow::new(client.clone(), Source::Ask(Box::new(message), options));
    let shown = Shown { screen, thread: thread.as_ref() };
    let done = watch(client, follow, shown, OnInterrupt::Cancel, args.question.deadline).await?;
    if let Some(thread) = thread.filter(|_| done != Exit::Interrupted) {
        thread::tell(client, id, tell).await;
        if tell == Tell::All {
            thread::tell_moved(client, &thread).await;
        }
    }
    Ok(done)
}

/// Comes back to an answer.
pub(crate) async fn attach(global: &Global, args: &AttachArgs) -> anyhow::Result<Exit> {
    let is_shown_at_end = args.no_stream || global.output == Format::Json;
    let screen = Screen::new(global, "answer", is_shown_at_end);
    let client = connect(global).await?;
    let allow_restart = args.restart || is_shown_at_end;
    let follow =
        Follow::new(client.clone(), Source::Attach { name: args.message.clone(), allow_restart });
    let shown = Shown { screen, thread: None };
    let done = watch(&client, follow, shown, OnInterrupt::Leave, None).await?;
    if done == Exit::Done {
        thread::tell(&client, args.message.clone(), Tell::All).await;
    }
    Ok(done)
}

/// What Ctrl-C means for the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnInterrupt {
    Cancel,
    Leave,
}

/// Where an answer is shown, and what it belongs to.
struct Shown<'a> {
    screen: Screen,
    thread: Option<&'a thread::Thread>,
}

impl Shown<'_> {
    /// Who owns its session, for programs: that is part of their one object.
    async fn owner(&self, client: &Client) -> Option<Owner> {
        let thread = self.thread.filter(|_| self.screen.is_for_programs())?;
        match thread.owner(client).await {
            Ok(owner) => owner,
            Err(err) => {
                output::note(&format!("cannot look at who owns its session: {err}"));
                None
            }
        }
    }
}

async fn watch(
    client: &Client,
    mut follow: Follow,
    mut shown: Shown<'_>,
    on_interrupt: OnInterrupt,
    deadline: Option<Duration>,
) -> anyhow::Result<Exit> {
    let mut interrupts = Interrupts::listen()?;
    loop {
        let step = tokio::select! {
            step = follow.next() => step?,
            () = interrupts.next() => {
                shown.screen.quiet();
                return leave(client, follow.id(), on_interrupt, &mut interrupts).await;
            }
        };
        match step {
            Some(step) => {
                if let Step::Frame(Event::Accepted { .. }) = step
                    && let Some(receipt) = follow.reading.receipt()
                {
                    shown.screen.quiet();
                    note_granted(deadline, receipt);
                }
                shown.screen.show(step)?;
            }
            None => break,
        }
    }
    let terminal = follow.reading.terminal().ok_or(Error::EndedEarly)?;
    let owner = shown.owner(client).await;
    shown.screen.finish(terminal, follow.reading.answer(), owner.as_ref())?;
    Ok(exit_of(terminal))
}

async fn leave(
    client: &Client,
    id: MessageId,
    how: OnInterrupt,
    interrupts: &mut Interrupts,
) -> anyhow::Result<Exit> {
    if how == OnInterrupt::Leave {
        output::note(&format!("left; `brokerctl attach {id}` comes back"));
        return Ok(Exit::Interrupted);
    }
    output::note(&format!("cancelling message {id} (again to leave at once)"));
    let cancelled = tokio::select! {
        cancelled = tokio::time::timeout(CANCEL_WITHIN, client.cancel(id)) => cancelled,
        () = interrupts.next() => {
            output::note("left without waiting");
            return Ok(Exit::Interrupted);
        }
    };
    output::note(&match cancelled {
        Ok(Ok(MessageState::Cancelled)) => "cancelled".to_owned(),
        Ok(Ok(state)) => format!("it was already {}", state.as_str()),
        Ok(Err(err)) => format!("not cancelled: {err}"),
        Err(_) => format!("not cancelled: no answer within {}", output::span(CANCEL_WITHIN)),
    });
    Ok(Exit::Interrupted)
}

fn exit_of(terminal: &Terminal) -> Exit {
    match terminal {
        Terminal::Done(_) => Exit::Done,
        Terminal::Failed { failure, summary } => exit_code::of_failure(failure, summary),
        Terminal::Expired(_) => Exit::Deadline,
        Terminal::Cancelled(_) => Exit::Failed,
    }
}

/// A model that nobody could mean is refused before the broker is looked for.
fn check_model(args: &QuestionArgs) -> Result<(), Misused> {
    let session = args.session.is_some() || current::of_environment()?.is_some();
    match &args.model {
        Some(model) => input::model_name(model).map(|_| ()),
        None if session => Ok(()),
        None => Err(Misused::NoModel),
    }
}

/// The question with what its session has said before. Stdin and files were read before this: nothing else runs until
/// they are there.
async fn prepare(
    client: &Client,
    args: &QuestionArgs,
    payload: Payload,
) -> anyhow::Result<(Message, AskOptions, Option<thread::Thread>)> {
    let thread = thread::of(client, args).await?;
    let model = thread::model(args, thread.as_ref())?;
    let (mut message, options) = input::message(args, model, payload)?;
    if let Some(thread) = &thread {
        thread.put_into(client, &mut message).await?;
    }
    Ok((message, options, thread))
}

/// Leaves a question and prints its id.
pub(crate) async fn submit(global: &Global, args: SubmitArgs) -> anyhow::Result<Exit> {
    let payload = input::question(&args.question)?;
    check_model(&args.question)?;
    let client = connect(global).await?;
    let (message, mut options, _) = prepare(&client, &args.question, payload).await?;
    options.allow_restart = true;
    options.keep = true;
    let receipt = client.submit(message, options).await?;
    note_granted(args.question.deadline, &receipt);
    match global.output {
        Format::Text => output::line(&receipt.message_id.to_string())?,
        Format::Json => output::json(&serde_json::json!({
            "message_id": receipt.message_id.to_string(),
            "duplicate": receipt.is_duplicate,
            "deadline": output::rfc3339(receipt.deadline),
        }))?,
    }
    Ok(Exit::Done)
}

/// Asks what became of a question.
pub(crate) async fn poll(global: &Global, args: &PollArgs) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let end = Instant::now() + args.wait;
    let poll = loop {
        let left = end.saturating_duration_since(Instant::now());
        let poll = client.poll(args.message.clone(), left.min(LONGEST_POLL)).await?;
        if poll.state.is_terminal() || left <= LONGEST_POLL {
            break poll;
        }
    };
    if poll.state == MessageState::Done {
        thread::tell(&client, args.message.clone(), Tell::All).await;
    }
    let terminal = ended(poll.state, poll.summary, poll.failure);
    let answer = text_of(&poll.parts);
    let Some(terminal) = terminal else {
        match global.output {
            Format::Text => output::line(poll.state.as_str())?,
            Format::Json => output::json(&serde_json::json!({
                "message_id": args.message.id.to_string(), "state": poll.state.as_str(),
            }))?,
        }
        let is_over = poll.state.is_terminal();
        return Ok(if is_over { Exit::Failed } else { Exit::Done });
    };
    match global.output {
        Format::Text => Screen::new(global, "", true).finish(&terminal, answer, None)?,
        Format::Json => {
            let mut json = serde_json::to_value(Report::of(&terminal, answer))?;
            json["state"] = poll.state.as_str().into();
            output::json(&json)?;
        }
    }
    Ok(exit_of(&terminal))
}

fn ended(
    state: MessageState,
    summary: Option<broker_proto::types::AnswerSummary>,
    failure: Option<broker_proto::types::Failure>,
) -> Option<Terminal> {
    let summary = summary?;
    match (state, failure) {
        (MessageState::Done, _) => Some(Terminal::Done(summary)),
        (MessageState::Expired, _) => Some(Terminal::Expired(summary)),
        (MessageState::Cancelled, _) => Some(Terminal::Cancelled(summary)),
        (MessageState::Failed | MessageState::Dead, Some(failure)) => {
            Some(Terminal::Failed { failure, summary })
        }
        _ => None,
    }
}

/// What is known of a consultation, as an object for programs.
pub(crate) fn summary_json(summary: &broker_proto::types::AnswerSummary) -> serde_json::Value {
    serde_json::to_value(Report::of_summary(summary)).unwrap_or_default()
}

/// The texts of `parts`, one after the other.
pub(crate) fn text_of(parts: &[Part]) -> String {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// Shows where a question would go.
pub(crate) async fn explain(global: &Global, args: ExplainArgs) -> anyhow::Result<Exit> {
    let payload = input::question(&args.question)?;
    check_model(&args.question)?;
    let client = connect(global).await?;
    let (message, options, _) = prepare(&client, &args.question, payload).await?;
    let route = client.explain(message, options).await?;
    if global.output == Format::Json {
        let candidates: Vec<_> = route
            .candidates
            .iter()
            .map(|candidate| {
                serde_json::json!({
                    "model": candidate.model.to_string(),
                    "chosen": candidate.is_chosen,
                    "reason": candidate.reason,
                    "context_window": candidate.context_window,
                    "estimated_input_tokens": candidate.estimated_input_tokens,
                    "estimated_cost_usd": candidate.estimated_cost_usd,
                    "max_output_tokens": candidate.max_output_tokens,
                    "degraded": candidate.is_degraded,
                })
            })
            .collect();
        output::json(&serde_json::json!({
            "asked": route.asked.to_string(), "candidates": candidates, "decision": route.decision,
        }))?;
        return Ok(Exit::Done);
    }
    let rows = route.candidates.iter().map(|candidate| {
        let verdict = match (candidate.is_chosen, candidate.reason.is_empty()) {
            (true, _) => "would answer".to_owned(),
            (false, true) => "stands by".to_owned(),
            (false, false) => candidate.reason.clone(),
        };
        let degraded = if candidate.is_degraded { " (degraded mode)" } else { "" };
        [
            format!("{}{degraded}", candidate.model),
            verdict,
            format!("{} of {}", candidate.estimated_input_tokens, candidate.context_window),
            candidate.max_output_tokens.map_or_else(|| "-".to_owned(), |most| most.to_string()),
            output::money(candidate.estimated_cost_usd),
        ]
    });
    let header = ["MODEL", "VERDICT", "TOKENS OF WINDOW", "MOST OUT", "ESTIMATE"];
    output::line(&output::table(header, rows))?;
    output::line(&route.decision)?;
    Ok(Exit::Done)
}

pub(crate) fn is_output(err: &anyhow::Error) -> bool {
    err.chain().any(|cause| cause.is::<output::Error>())
}

/// The wall clock.
pub(crate) fn now() -> WallTime {
    WallTime::from_system(SystemTime::now())
}
