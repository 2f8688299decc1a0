//! Waiting for a task: its steps on stderr, its questions to whoever sits there, its result on stdout.

use std::io::{BufRead as _, IsTerminal as _};

use broker_client::{Client, Watched};
use broker_proto::types::{MessageName, Part, TaskDetail, TaskState};

use super::{Interrupts, connection, consult, leads_to, show};
use crate::{
    cli::Global,
    exit_code::{self, Exit},
    output::{self, Format},
};

/// Follows a task to its end and prints its result. Leaving does not end it.
pub(super) async fn to_the_end(
    global: &Global,
    client: &Client,
    id: MessageName,
    is_stdin_free: bool,
) -> anyhow::Result<Exit> {
    let mut interrupts = Interrupts::listen()?;
    let mut steps = client.follow_task(id.clone(), None);
    loop {
        let step = tokio::select! {
            step = steps.next() => step?,
            () = interrupts.next() => return Ok(left(&id)),
        };
        let step = match step {
            None => break,
            Some(Watched::Item(step)) => step,
            Some(news) => {
                connection(&news);
                continue;
            }
        };
        show::progress(global, &step);
        if !leads_to(&step, TaskState::InputRequired) {
            continue;
        }
        // It may have been answered since, by whoever gave it out before.
        let task = client.task(id.clone()).await?;
        if task.info.state != TaskState::InputRequired {
            continue;
        }
        let answer = tokio::select! {
            answer = ask(&task, is_stdin_free) => answer?,
            () = interrupts.next() => return Ok(left(&id)),
        };
        let Some(answer) = answer else { return waits(global, &task) };
        let input = consult::input::new_id()?;
        client.provide_input(id.clone(), input, 0, vec![Part::Text(answer)]).await?;
    }
    let task = client.task(id).await?;
    show::result(global, &task)?;
    Ok(exit_of(&task))
}

fn left(id: &MessageName) -> Exit {
    output::note(&format!(
        "left; the task goes on: `brokerctl task watch {id}` follows it, `brokerctl task cancel {id}` ends it"
    ));
    Exit::Interrupted
}

/// The person's answer to the open question; `None` when nobody can be asked.
async fn ask(task: &TaskDetail, is_stdin_free: bool) -> anyhow::Result<Option<String>> {
    if !is_stdin_free || !std::io::stdin().is_terminal() {
        return Ok(None);
    }
    output::note("your answer, on one line:");
    loop {
        let line = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map(|bytes| (bytes > 0).then_some(line))
        });
        match line.await?? {
            None => return Ok(None),
            Some(line) if line.trim().is_empty() => {
                output::note(&format!("task {} waits for an answer", task.info.id));
            }
            Some(line) => return Ok(Some(line.trim().to_owned())),
        }
    }
}

/// Nobody can be asked here: says what is asked, and how it is answered.
fn waits(global: &Global, task: &TaskDetail) -> anyhow::Result<Exit> {
    if global.output == Format::Json {
        output::json(&show::json(task))?;
    }
    let id = task.info.id;
    output::note(&format!(
        "the task waits for an answer: `brokerctl task provide {id} TEXT`, then `brokerctl task watch {id}`"
    ));
    Ok(Exit::AskedBack)
}

fn exit_of(task: &TaskDetail) -> Exit {
    match (task.info.state, &task.info.failure, &task.info.summary) {
        (TaskState::Completed, _, _) => Exit::Done,
        (TaskState::Failed, Some(failure), Some(summary)) => {
            exit_code::of_failure(failure, summary)
        }
        (TaskState::Failed, Some(failure), None) => exit_code::of_class(failure.class),
        _ => Exit::Failed,
    }
}
