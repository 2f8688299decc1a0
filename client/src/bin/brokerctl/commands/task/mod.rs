//! `delegate` and `task ...`: tasks from the side of whoever gives them out.

mod follow;
mod input;
pub(super) mod show;

use broker_client::{Client, Error, TaskFilter, TaskItem, Watched};
use broker_proto::types::{MessageName, Part, TaskState};

use super::{Interrupts, connect, connection, consult, mistaken, note_granted};
use crate::{
    cli::{DelegateArgs, Global, Misused, TaskCommand},
    exit_code::Exit,
    output::{self, Format},
};

/// Gives out a task; waits for its result unless told not to.
pub(crate) async fn delegate(global: &Global, args: DelegateArgs) -> anyhow::Result<Exit> {
    // Files and stdin are read on this thread: nothing else runs until they are there.
    let message = input::message(&args)?;
    let (id, to) = (message.id, message.to.clone());
    let client = connect(global).await?;
    let given = client.delegate(message, false).await;
    let receipt = match given {
        Err(err) => return Err(mistaken(&client, &to, err).await.into()),
        Ok(receipt) => receipt,
    };
    note_granted(args.deadline, &receipt);
    if !args.detach {
        let is_stdin_free = args.task != "-";
        return follow::to_the_end(global, &client, id.into(), is_stdin_free).await;
    }
    match global.output {
        Format::Text => output::line(&id.to_string())?,
        Format::Json => output::json(&serde_json::json!({
            "task_id": id.to_string(),
            "duplicate": receipt.is_duplicate,
            "deadline": output::rfc3339(receipt.deadline),
        }))?,
    }
    Ok(Exit::Done)
}

/// Runs a task command.
pub(crate) async fn run(global: &Global, command: TaskCommand) -> anyhow::Result<Exit> {
    let text = match &command {
        TaskCommand::Provide { text, .. } => consult::input::from_stdin(text.clone())?,
        _ => String::new(),
    };
    let client = connect(global).await?;
    let (id, state) = match command {
        TaskCommand::List { state, to, limit, page } => {
            let filter = TaskFilter {
                states: state,
                to: to.map(|to| to.to_string()),
                page_size: limit,
                page_token: page,
            };
            let page = client.tasks(filter).await?;
            show::list(global, &page.items, page.next_page_token.as_deref())?;
            return Ok(Exit::Done);
        }
        TaskCommand::Show { id } => {
            show::task(global, &client.task(id).await?)?;
            return Ok(Exit::Done);
        }
        TaskCommand::Watch { id, cursor } => return watch(global, &client, id, cursor).await,
        TaskCommand::Provide { id, question, input_id, .. } => {
            if text.trim().is_empty() {
                return Err(Misused::NoAnswer.into());
            }
            let input = match input_id {
                Some(input) => input,
                None => consult::input::new_id()?,
            };
            let parts = vec![Part::Text(text)];
            (id.clone(), client.provide_input(id, input, question, parts).await?)
        }
        TaskCommand::Suspend { id } => (id.clone(), client.suspend_task(id).await?),
        TaskCommand::Resume { id } => (id.clone(), client.resume_task(id).await?),
        TaskCommand::Cancel { id } => {
            let cancelled = client.cancel_task(id.clone()).await;
            (id, cancelled.or_else(cancelled_before)?)
        }
    };
    stepped(global, &id, state)?;
    Ok(Exit::Done)
}

/// Cancelling twice is as good as once, as it is with `message cancel`.
fn cancelled_before(err: Error) -> Result<TaskState, Error> {
    match &err {
        Error::Refused { reason, metadata, .. }
            if reason == "TASK_STATE"
                && metadata.get("state").map(String::as_str)
                    == Some(TaskState::Cancelled.as_str()) =>
        {
            Ok(TaskState::Cancelled)
        }
        _ => Err(err),
    }
}

/// What a step has led to.
fn stepped(global: &Global, id: &MessageName, state: TaskState) -> Result<(), output::Error> {
    match global.output {
        Format::Text => output::line(state.as_str()),
        Format::Json => output::json(&serde_json::json!({
            "task_id": id.id.to_string(), "state": state.as_str(),
        })),
    }
}

/// One line for each step, until the task has ended.
async fn watch(
    global: &Global,
    client: &Client,
    id: MessageName,
    cursor: Option<String>,
) -> anyhow::Result<Exit> {
    let mut interrupts = Interrupts::listen()?;
    let mut steps = client.follow_task(id, cursor);
    loop {
        let step = tokio::select! {
            step = steps.next() => step?,
            () = interrupts.next() => return Ok(Exit::Interrupted),
        };
        match step {
            Some(Watched::Item(step)) => show::step(global, &step)?,
            Some(news) => connection(&news),
            None => return Ok(Exit::Done),
        }
    }
}

/// Whether an item is a step to this state.
fn leads_to(item: &TaskItem, state: TaskState) -> bool {
    matches!(item, TaskItem::Change { change, .. } if change.state == state)
}
