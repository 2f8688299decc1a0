//! Tasks from the side of whoever gives them out.

use std::pin::Pin;

use broker_proto::{
    Message, MessageId, MessageName, Part, Receipt, TaskChange, TaskDetail, TaskInfo, TaskState,
    convert::InvalidField, pb,
};
use futures::{Stream, StreamExt};

use crate::{Client, Error, Page, each, required};

/// Which tasks a list shows, and from where on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskFilter {
    /// Empty: every state.
    pub states: Vec<TaskState>,
    /// The model, or `agent/NAME`, that they were given to.
    pub to: Option<String>,
    /// Zero: the broker's default.
    pub page_size: u32,
    /// Where the page before ended.
    pub page_token: Option<String>,
}

/// One item of a task's watch. `cursor` continues behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskItem {
    Change {
        cursor: String,
        change: Box<TaskChange>,
    },
    /// Steps before `first_cursor` are no longer kept.
    Gap {
        cursor: String,
        first_cursor: String,
    },
}

/// A task's steps, ending with its terminal state.
pub type TaskStream = Pin<Box<dyn Stream<Item = Result<TaskItem, Error>> + Send>>;

impl Client {
    /// Gives out a task (see [`Message::delegation`]); returns once it is stored. The same id again is the same task.
    ///
    /// # Errors
    /// [`Error::Refused`] with the broker's reason, and what every call may meet.
    pub async fn delegate(
        &self,
        message: Message,
        allow_future_recipient: bool,
    ) -> Result<Receipt, Error> {
        let message = Some(self.offload(message).await?);
        let request = pb::SubmitTaskRequest { message, allow_future_recipient };
        let request = self.unary_request(request)?;
        let reply = self.reply(self.tasks_of().submit_task(request).await)?;
        Ok(required(reply.receipt, "receipt")?.try_into()?)
    }

    /// A task with its questions and its result.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such task.
    pub async fn task(&self, task: impl Into<MessageName>) -> Result<TaskDetail, Error> {
        let request =
            self.unary_request(pb::GetTaskRequest { task_id: task.into().to_string() })?;
        let reply = self.reply(self.tasks_of().get_task(request).await)?;
        let mut detail = TaskDetail::try_from(reply)?;
        detail.result = self.inline(detail.result).await?;
        for exchange in &mut detail.exchanges {
            exchange.question = self.inline(std::mem::take(&mut exchange.question)).await?;
            exchange.answer = self.inline(std::mem::take(&mut exchange.answer)).await?;
        }
        Ok(detail)
    }

    /// A page of tasks, newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] when the page token is not one.
    pub async fn tasks(&self, filter: TaskFilter) -> Result<Page<TaskInfo>, Error> {
        let request = self.unary_request(pb::ListTasksRequest {
            page_size: filter.page_size,
            page_token: filter.page_token.unwrap_or_default(),
            states: filter.states.into_iter().map(TaskState::to_wire).collect(),
            to: filter.to.unwrap_or_default(),
        })?;
        let reply = self.reply(self.tasks_of().list_tasks(request).await)?;
        Ok(Page {
            items: each(reply.tasks)?,
            next_page_token: Some(reply.next_page_token).filter(|token| !token.is_empty()),
        })
    }

    /// A task's steps behind `cursor`, or its whole life; ends with its terminal state.
    ///
    /// # Errors
    /// [`Error::Refused`] when the cursor or the task is not one.
    pub async fn watch_task(
        &self,
        task: impl Into<MessageName>,
        cursor: Option<String>,
    ) -> Result<TaskStream, Error> {
        let cursor = cursor.unwrap_or_default();
        let request = pb::WatchTaskRequest { task_id: task.into().to_string(), cursor };
        let request = self.request(request, None)?;
        let changes = self.reply(self.tasks_of().watch_task(request).await)?;
        let client = self.clone();
        Ok(Box::pin(changes.map(move |item| {
            let item = item.map_err(|status| client.error(status))?;
            task_item(item)
        })))
    }

    /// Answers what a task asked back. `input` is made by the caller: the same again changes nothing. `question` 0 is
    /// the open one.
    ///
    /// # Errors
    /// [`Error::Refused`] when the task waits for no input, or not for this.
    pub async fn provide_input(
        &self,
        task: impl Into<MessageName>,
        input: MessageId,
        question: u32,
        parts: Vec<Part>,
    ) -> Result<TaskState, Error> {
        let parts = self.offload_parts(parts).await?;
        let request = self.unary_request(pb::ProvideInputRequest {
            task_id: task.into().to_string(),
            input_id: input.to_string(),
            question,
            parts: parts.into_iter().map(Into::into).collect(),
        })?;
        state(self.reply(self.tasks_of().provide_input(request).await)?.state)
    }

    /// Takes a task back until it is resumed; a running attempt is ended down to the provider's call.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has ended or is suspended already.
    pub async fn suspend_task(&self, task: impl Into<MessageName>) -> Result<TaskState, Error> {
        let request =
            self.unary_request(pb::SuspendTaskRequest { task_id: task.into().to_string() })?;
        state(self.reply(self.tasks_of().suspend_task(request).await)?.state)
    }

    /// Lets a suspended task go on.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is not suspended.
    pub async fn resume_task(&self, task: impl Into<MessageName>) -> Result<TaskState, Error> {
        let request =
            self.unary_request(pb::ResumeTaskRequest { task_id: task.into().to_string() })?;
        state(self.reply(self.tasks_of().resume_task(request).await)?.state)
    }

    /// Ends a task, down to the provider's call.
    ///
    /// # Errors
    /// [`Error::Refused`] when it has ended before.
    pub async fn cancel_task(&self, task: impl Into<MessageName>) -> Result<TaskState, Error> {
        let request =
            self.unary_request(pb::CancelTaskRequest { task_id: task.into().to_string() })?;
        state(self.reply(self.tasks_of().cancel_task(request).await)?.state)
    }
}

fn state(number: i32) -> Result<TaskState, Error> {
    Ok(required(TaskState::from_wire(number), "state")?)
}

fn task_item(wire: pb::WatchTaskResponse) -> Result<TaskItem, Error> {
    use pb::watch_task_response::Change;
    let cursor = wire.cursor;
    let change = wire.change.ok_or_else(|| InvalidField::new("change", "is missing"))?;
    Ok(match change {
        Change::Task(change) => TaskItem::Change { cursor, change: Box::new(change.try_into()?) },
        Change::Gap(gap) => TaskItem::Gap { cursor, first_cursor: gap.first_cursor },
    })
}
