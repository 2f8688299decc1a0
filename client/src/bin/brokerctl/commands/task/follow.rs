//! Waiting for a task: its steps on stderr, its questions to whoever sits there, its result on stdout.

use std::{
    io::{BufRead as _, IsTerminal as _},
    time::Duration,
};

use broker_client::{Client, Code, Error, RETURN_WINDOW, TaskItem, TaskStream};
use broker_proto::types::{MessageName, Part, TaskDetail, TaskState};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::{Interrupts, consult, leads_to, show};
use crate::{
    cli::Global,
    exit_code::{self, Exit},
    output::{self, Format},
};

/// The first and the longest wait between two attempts to come back to a broker that went away.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Follows a task to its end and prints its result. Leaving does not end it.
pub(super) async fn to_the_end(
    global: &Global,
    client: &Client,
    id: MessageName,
    is_stdin_free: bool,
) -> anyhow::Result<Exit> {
    let mut interrupts = Interrupts::listen()?;
    let mut steps = Steps::new(client.clone(), id.clone());
    loop {
        let step = tokio::select! {
            step = steps.next() => step?,
            () = interrupts.next() => return Ok(left(&id)),
        };
        let Some(step) = step else { break };
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
    Ok(Exit::Failed)
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

/// A task's steps, over breaks of the connection and restarts of the broker.
struct Steps {
    client: Client,
    id: MessageName,
    stream: Option<TaskStream>,
    cursor: Option<String>,
    is_over: bool,
    /// Since when there is no stream, and the next wait.
    broken: Option<(Instant, Duration)>,
}

impl Steps {
    fn new(client: Client, id: MessageName) -> Self {
        Self { client, id, stream: None, cursor: None, is_over: false, broken: None }
    }

    /// The next step; `None` behind the last. Dropping it in the middle loses nothing.
    async fn next(&mut self) -> Result<Option<TaskItem>, Error> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            let Some(stream) = &mut self.stream else {
                self.open().await?;
                continue;
            };
            match stream.next().await {
                Some(Ok(item)) => {
                    let (TaskItem::Change { cursor, .. } | TaskItem::Gap { cursor, .. }) = &item;
                    self.cursor = Some(cursor.clone());
                    self.is_over = matches!(
                        &item,
                        TaskItem::Change { change, .. } if change.state.is_terminal()
                    );
                    return Ok(Some(item));
                }
                Some(Err(error)) if !is_passing(&error) => return Err(error),
                Some(Err(_)) | None => {
                    self.stream = None;
                    self.broken = Some((Instant::now(), BACK_OFF.0));
                }
            }
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        if let Some((_, wait)) = &mut self.broken {
            let now = *wait;
            tokio::time::sleep(now).await;
            *wait = (now * 2).min(BACK_OFF.1);
        }
        match (self.client.watch_task(self.id.clone(), self.cursor.clone()).await, self.broken) {
            (Ok(stream), _) => {
                self.stream = Some(stream);
                self.broken = None;
                Ok(())
            }
            (Err(error), Some((since, _)))
                if is_passing(&error) && since.elapsed() < RETURN_WINDOW =>
            {
                Ok(())
            }
            (Err(error), _) => Err(error),
        }
    }
}

/// Whether the broker may be back in a moment.
fn is_passing(error: &Error) -> bool {
    error.is_connection()
        || matches!(error, Error::Refused { code, .. } if *code == Code::Unavailable)
}
