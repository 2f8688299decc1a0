//! `task.proto`, and the task of a payload.

use std::collections::BTreeSet;

use super::{
    InvalidField,
    common::{message_id, none_if_empty, span, time, wire_span},
    each, required,
};
use crate::{
    Priority, ResultType, Sender, TaskChange, TaskDetail, TaskExchange, TaskInfo, TaskInput,
    TaskSpec, TaskState, pb,
};

/// Bytes of an input's name.
const NAME: usize = 64;

impl TaskState {
    /// The wire's number read back; unspecified and unknown numbers are `None`.
    #[must_use]
    pub fn from_wire(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.to_wire() == number)
    }

    /// The number on the wire.
    #[must_use]
    pub fn to_wire(self) -> i32 {
        let wire = match self {
            Self::Submitted => pb::TaskState::Submitted,
            Self::Working => pb::TaskState::Working,
            Self::InputRequired => pb::TaskState::InputRequired,
            Self::Suspended => pb::TaskState::Suspended,
            Self::Completed => pb::TaskState::Completed,
            Self::Failed => pb::TaskState::Failed,
            Self::Cancelled => pb::TaskState::Cancelled,
            Self::Rejected => pb::TaskState::Rejected,
        };
        wire as i32
    }
}

fn result_type(wire: &pb::TaskSpec) -> Result<ResultType, InvalidField> {
    let schema = (!wire.result_schema.is_empty()).then(|| wire.result_schema.clone());
    match pb::ResultType::try_from(wire.result_type) {
        Ok(pb::ResultType::Json) => Ok(ResultType::Json { schema }),
        Ok(pb::ResultType::Unspecified | pb::ResultType::Text) if schema.is_none() => {
            Ok(ResultType::Text)
        }
        Ok(_) => Err(InvalidField::new("task.result_schema", "needs `result_type` JSON")),
        Err(_) => Err(InvalidField::new("task.result_type", "is not a type of result")),
    }
}

impl TryFrom<pb::TaskInput> for TaskInput {
    type Error = InvalidField;

    fn try_from(wire: pb::TaskInput) -> Result<Self, InvalidField> {
        if wire.name.len() > NAME || wire.name.chars().any(char::is_control) {
            let problem = format!("is not a name of at most {NAME} bytes on one line");
            return Err(InvalidField::new("task.inputs.name", problem));
        }
        Ok(Self { name: wire.name, parts: each(wire.parts)? })
    }
}

impl From<TaskInput> for pb::TaskInput {
    fn from(input: TaskInput) -> Self {
        Self { name: input.name, parts: input.parts.into_iter().map(Into::into).collect() }
    }
}

impl TryFrom<pb::TaskSpec> for TaskSpec {
    type Error = InvalidField;

    fn try_from(wire: pb::TaskSpec) -> Result<Self, InvalidField> {
        if wire.description.trim().is_empty() {
            return Err(InvalidField::missing("task.description"));
        }
        let result = result_type(&wire)?;
        let deadline = span(wire.deadline, "task.deadline")?;
        if deadline.is_some_and(|deadline| deadline.is_zero()) {
            return Err(InvalidField::new("task.deadline", "leaves no time"));
        }
        if wire.max_tokens == Some(0) {
            return Err(InvalidField::new("task.max_tokens", "leaves no token"));
        }
        if wire.max_cost_usd.is_some_and(|cost| !cost.is_finite() || cost < 0.0) {
            return Err(InvalidField::new("task.max_cost_usd", "is not an amount"));
        }
        let inputs: Vec<TaskInput> = each(wire.inputs)?;
        let mut names = BTreeSet::new();
        let mut named = inputs.iter().filter(|input| !input.name.is_empty());
        if !named.all(|input| names.insert(&input.name)) {
            return Err(InvalidField::new("task.inputs.name", "is given twice"));
        }
        Ok(Self {
            description: wire.description,
            inputs,
            result,
            deadline,
            max_tokens: wire.max_tokens,
            max_cost_usd: wire.max_cost_usd,
            no_fallback: wire.no_fallback,
        })
    }
}

impl From<TaskSpec> for pb::TaskSpec {
    fn from(task: TaskSpec) -> Self {
        let (result_type, result_schema) = match task.result {
            ResultType::Text => (pb::ResultType::Text, bytes::Bytes::new()),
            ResultType::Json { schema } => (pb::ResultType::Json, schema.unwrap_or_default()),
        };
        Self {
            description: task.description,
            inputs: task.inputs.into_iter().map(Into::into).collect(),
            result_type: result_type as i32,
            result_schema,
            deadline: task.deadline.map(wire_span),
            max_tokens: task.max_tokens,
            max_cost_usd: task.max_cost_usd,
            no_fallback: task.no_fallback,
        }
    }
}

impl TryFrom<pb::TaskExchange> for TaskExchange {
    type Error = InvalidField;

    fn try_from(wire: pb::TaskExchange) -> Result<Self, InvalidField> {
        Ok(Self {
            number: wire.number,
            question: each(wire.question)?,
            asked_at: required(time(wire.asked_at, "exchange.asked_at")?, "exchange.asked_at")?,
            answer: each(wire.answer)?,
            answered_at: time(wire.answered_at, "exchange.answered_at")?,
        })
    }
}

impl From<TaskExchange> for pb::TaskExchange {
    fn from(exchange: TaskExchange) -> Self {
        Self {
            number: exchange.number,
            question: exchange.question.into_iter().map(Into::into).collect(),
            asked_at: Some(exchange.asked_at.into()),
            answer: exchange.answer.into_iter().map(Into::into).collect(),
            answered_at: exchange.answered_at.map(Into::into),
        }
    }
}

impl TryFrom<pb::TaskInfo> for TaskInfo {
    type Error = InvalidField;

    fn try_from(wire: pb::TaskInfo) -> Result<Self, InvalidField> {
        let from = Sender::parse(&wire.from)
            .map_err(|invalid| InvalidField::new("info.from", invalid.to_string()))?;
        let submitted_at = time(wire.submitted_at, "info.submitted_at")?;
        Ok(Self {
            id: message_id(&wire.task_id, "info.task_id")?,
            from,
            to: required(wire.to, "info.to")?.try_into()?,
            state: required(TaskState::from_wire(wire.state), "info.state")?,
            priority: Priority::from_wire(wire.priority).unwrap_or_default(),
            submitted_at: required(submitted_at, "info.submitted_at")?,
            deadline: required(time(wire.deadline, "info.deadline")?, "info.deadline")?,
            finished_at: time(wire.finished_at, "info.finished_at")?,
            summary: wire.summary.map(TryInto::try_into).transpose()?,
            failure: wire.failure.map(TryInto::try_into).transpose()?,
            correlation: wire.correlation.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            session: none_if_empty(wire.session),
            labels: wire.labels,
        })
    }
}

impl From<TaskInfo> for pb::TaskInfo {
    fn from(info: TaskInfo) -> Self {
        Self {
            task_id: info.id.to_string(),
            from: info.from.to_string(),
            to: Some(info.to.into()),
            state: info.state.to_wire(),
            priority: info.priority.to_wire(),
            submitted_at: Some(info.submitted_at.into()),
            deadline: Some(info.deadline.into()),
            finished_at: info.finished_at.map(Into::into),
            summary: info.summary.map(Into::into),
            failure: info.failure.map(Into::into),
            correlation: Some(info.correlation.into()),
            session: info.session.unwrap_or_default(),
            labels: info.labels,
        }
    }
}

impl TryFrom<pb::GetTaskResponse> for TaskDetail {
    type Error = InvalidField;

    fn try_from(wire: pb::GetTaskResponse) -> Result<Self, InvalidField> {
        Ok(Self {
            info: required(wire.info, "info")?.try_into()?,
            task: required(wire.task, "task")?.try_into()?,
            exchanges: each(wire.exchanges)?,
            result: each(wire.result)?,
            result_json: (!wire.result_json.is_empty()).then_some(wire.result_json),
        })
    }
}

impl From<TaskDetail> for pb::GetTaskResponse {
    fn from(detail: TaskDetail) -> Self {
        Self {
            info: Some(detail.info.into()),
            task: Some(detail.task.into()),
            exchanges: detail.exchanges.into_iter().map(Into::into).collect(),
            result: detail.result.into_iter().map(Into::into).collect(),
            result_json: detail.result_json.unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::TaskChange> for TaskChange {
    type Error = InvalidField;

    fn try_from(wire: pb::TaskChange) -> Result<Self, InvalidField> {
        Ok(Self {
            at: required(time(wire.at, "change.at")?, "change.at")?,
            change: wire.change,
            detail: wire.detail,
            state: required(TaskState::from_wire(wire.state), "change.state")?,
            exchange: wire.exchange.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<TaskChange> for pb::TaskChange {
    fn from(change: TaskChange) -> Self {
        Self {
            at: Some(change.at.into()),
            change: change.change,
            detail: change.detail,
            state: change.state.to_wire(),
            exchange: change.exchange.map(Into::into),
        }
    }
}
