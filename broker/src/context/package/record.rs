//! The parts of a package as they are stored: one JSON text each, by these names. Beside them is the text of the
//! conversation as it is, `conversation_text`.
//!
//! A name and its meaning are never used again; a change that older programs cannot read is a new version of the format.

use broker_proto::{
    Checkpoint, CheckpointStatus, CreditState, CurrentWork, PackageContents, PackedConversation,
    PendingSubagent, QueuedTask, SessionItem, SessionTask, SharedValue, TokenShare, WallTime,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartsRecord {
    pub(super) origin: OriginRecord,
    pub(super) checkpoint: CheckpointRecord,
    pub(super) task_queue: Vec<QueuedRecord>,
    // Not in the first packages.
    #[serde(default)]
    pub(super) task_queue_left_out: u64,
    pub(super) current_work: WorkRecord,
    pub(super) token_usage: TokensRecord,
    pub(super) credit_state: CreditRecord,
    pub(super) current_task: TaskRecord,
    pub(super) files: Vec<String>,
    pub(super) next_steps: Vec<String>,
    pub(super) user_preferences: Vec<String>,
    pub(super) pending_subagents: Vec<SubagentRecord>,
    pub(super) resumption_instructions: String,
    pub(super) context: Map<String, Value>,
    pub(super) shared_context: Vec<SharedRecord>,
    pub(super) conversation_history: ConversationRecord,
    // Kept for what remembers and learns; nothing fills them yet.
    pub(super) memory_graph: Vec<Value>,
    pub(super) active_patterns: Vec<Value>,
    pub(super) learning_state: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OriginRecord {
    pub(super) source_phase: String,
    pub(super) target_phase: String,
    pub(super) created_by: String,
    pub(super) pipeline_version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointRecord {
    phase: String,
    step: u32,
    total_steps: u32,
    status: String,
    resume_point: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueuedRecord {
    id: String,
    priority: String,
    description: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkRecord {
    task_id: String,
    progress: String,
    completed_subtasks: Vec<String>,
    next_subtask: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokensRecord {
    total_tokens: u64,
    warning_threshold: u64,
    auto_switch_threshold: u64,
    percentage_used: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreditRecord {
    rate_limit_count: u32,
    error_rate: f64,
    avg_response_time: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ItemRecord {
    text: String,
    done: bool,
    entry: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskRecord {
    primary_goal: String,
    sub_goals: Vec<ItemRecord>,
    constraints: Vec<ItemRecord>,
    decisions: Vec<ItemRecord>,
    open_items: Vec<ItemRecord>,
    critical_context: Vec<ItemRecord>,
    /// 0 to 1; null when nobody said.
    progress: Option<f64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubagentRecord {
    id: String,
    kind: String,
    model: String,
    status: String,
    description: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SharedRecord {
    key: String,
    value: Value,
    source: String,
    tags: Vec<String>,
    /// Milliseconds since 1970.
    set_at: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConversationRecord {
    /// Only in the first packages; now it is a part of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    tokens: u64,
    tokenizer: String,
    score: Option<f64>,
    kept: Vec<u64>,
    partly: Vec<u64>,
    dropped: Vec<u64>,
    must_keep_missing: Vec<String>,
    through: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unverified: Vec<UnverifiedRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnverifiedRecord {
    entry: u64,
    model: String,
}

/// Texts of what is not done yet.
fn open_texts(items: &[SessionItem]) -> Vec<String> {
    items.iter().filter(|item| !item.is_done).map(|item| item.text.clone()).collect()
}

fn items(items: &[SessionItem]) -> Vec<ItemRecord> {
    let record =
        |it: &SessionItem| ItemRecord { text: it.text.clone(), done: it.is_done, entry: it.entry };
    items.iter().map(record).collect()
}

fn from_items(records: Vec<ItemRecord>) -> Vec<SessionItem> {
    (1..)
        .zip(records)
        .map(|(id, it)| SessionItem { id, text: it.text, is_done: it.done, entry: it.entry })
        .collect()
}

fn from_texts(texts: Vec<String>) -> Vec<SessionItem> {
    (1..)
        .zip(texts)
        .map(|(id, text)| SessionItem { id, text, is_done: false, entry: None })
        .collect()
}

/// JSON text as a value; a text that is none is kept as a text.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

impl From<&PackageContents> for PartsRecord {
    fn from(from: &PackageContents) -> Self {
        let task = &from.task;
        Self {
            origin: OriginRecord {
                source_phase: from.source_phase.clone(),
                target_phase: from.target_phase.clone(),
                created_by: from.created_by.clone(),
                pipeline_version: from.pipeline_version.clone(),
            },
            checkpoint: checkpoint(&from.checkpoint),
            task_queue: from.task_queue.iter().map(queued).collect(),
            task_queue_left_out: from.queue_left_out,
            current_work: work(&from.current_work),
            token_usage: tokens(from.token_usage),
            credit_state: credit(from.credit_state),
            current_task: TaskRecord {
                primary_goal: task.goal.clone(),
                sub_goals: items(&task.sub_goals),
                constraints: items(&task.constraints),
                decisions: items(&task.decisions),
                open_items: items(&task.open_items),
                critical_context: items(&task.critical_facts),
                progress: task.progress,
            },
            files: open_texts(&task.files),
            next_steps: open_texts(&task.next_steps),
            user_preferences: open_texts(&task.preferences),
            pending_subagents: task.pending_subagents.iter().map(subagent).collect(),
            resumption_instructions: from.resumption_instructions.clone(),
            context: match value(&from.context) {
                Value::Object(context) => context,
                _ => Map::new(),
            },
            shared_context: from.shared.iter().map(shared).collect(),
            conversation_history: conversation(&from.conversation),
            memory_graph: Vec::new(),
            active_patterns: Vec::new(),
            learning_state: Vec::new(),
        }
    }
}

fn checkpoint(from: &Checkpoint) -> CheckpointRecord {
    CheckpointRecord {
        phase: from.phase.clone(),
        step: from.step,
        total_steps: from.total_steps,
        status: from.status.as_str().to_owned(),
        resume_point: from.resume_point.clone(),
    }
}

fn queued(from: &QueuedTask) -> QueuedRecord {
    QueuedRecord {
        id: from.id.clone(),
        priority: from.priority.clone(),
        description: from.description.clone(),
    }
}

fn work(from: &CurrentWork) -> WorkRecord {
    WorkRecord {
        task_id: from.task_id.clone(),
        progress: from.progress.clone(),
        completed_subtasks: from.completed_subtasks.clone(),
        next_subtask: from.next_subtask.clone(),
    }
}

fn tokens(from: TokenShare) -> TokensRecord {
    let TokenShare { total_tokens, warning_threshold, auto_switch_threshold, percentage_used } =
        from;
    TokensRecord { total_tokens, warning_threshold, auto_switch_threshold, percentage_used }
}

fn credit(from: CreditState) -> CreditRecord {
    let CreditState { rate_limit_count, error_rate, avg_response_time } = from;
    CreditRecord { rate_limit_count, error_rate, avg_response_time }
}

fn subagent(from: &PendingSubagent) -> SubagentRecord {
    SubagentRecord {
        id: from.id.clone(),
        kind: from.kind.clone(),
        model: from.model.clone(),
        status: from.status.clone(),
        description: from.description.clone(),
    }
}

fn shared(from: &SharedValue) -> SharedRecord {
    SharedRecord {
        key: from.key.clone(),
        value: value(&from.value),
        source: from.source.clone(),
        tags: from.tags.clone(),
        set_at: from.set_at.0,
    }
}

fn conversation(from: &PackedConversation) -> ConversationRecord {
    let unverified = from.unverified.iter();
    let unverified =
        unverified.map(|(entry, model)| UnverifiedRecord { entry: *entry, model: model.clone() });
    ConversationRecord {
        text: None,
        tokens: from.tokens,
        tokenizer: from.tokenizer.clone(),
        score: from.score,
        kept: from.kept.clone(),
        partly: from.partly.clone(),
        dropped: from.dropped.clone(),
        must_keep_missing: from.must_keep_missing.clone(),
        through: from.through,
        unverified: unverified.collect(),
    }
}

impl TryFrom<PartsRecord> for PackageContents {
    /// The part that is not what it should be.
    type Error = &'static str;

    fn try_from(from: PartsRecord) -> Result<Self, Self::Error> {
        let at = from.checkpoint;
        let status = CheckpointStatus::parse(&at.status).ok_or("checkpoint")?;
        let task = from.current_task;
        let (work, used, credit) = (from.current_work, from.token_usage, from.credit_state);
        let talk = from.conversation_history;
        let queued = |it: QueuedRecord| QueuedTask {
            id: it.id,
            priority: it.priority,
            description: it.description,
        };
        let subagent = |it: SubagentRecord| PendingSubagent {
            id: it.id,
            kind: it.kind,
            model: it.model,
            status: it.status,
            description: it.description,
        };
        let shared = |it: SharedRecord| SharedValue {
            key: it.key,
            value: it.value.to_string(),
            source: it.source,
            tags: it.tags,
            set_at: WallTime(it.set_at),
        };
        Ok(Self {
            source_phase: from.origin.source_phase,
            target_phase: from.origin.target_phase,
            created_by: from.origin.created_by,
            pipeline_version: from.origin.pipeline_version,
            checkpoint: Checkpoint {
                phase: at.phase,
                step: at.step,
                total_steps: at.total_steps,
                status,
                resume_point: at.resume_point,
            },
            task_queue: from.task_queue.into_iter().map(queued).collect(),
            queue_left_out: from.task_queue_left_out,
            current_work: CurrentWork {
                task_id: work.task_id,
                progress: work.progress,
                completed_subtasks: work.completed_subtasks,
                next_subtask: work.next_subtask,
            },
            token_usage: TokenShare {
                total_tokens: used.total_tokens,
                warning_threshold: used.warning_threshold,
                auto_switch_threshold: used.auto_switch_threshold,
                percentage_used: used.percentage_used,
            },
            credit_state: CreditState {
                rate_limit_count: credit.rate_limit_count,
                error_rate: credit.error_rate,
                avg_response_time: credit.avg_response_time,
            },
            task: SessionTask {
                goal: task.primary_goal,
                sub_goals: from_items(task.sub_goals),
                constraints: from_items(task.constraints),
                decisions: from_items(task.decisions),
                open_items: from_items(task.open_items),
                critical_facts: from_items(task.critical_context),
                progress: task.progress,
                files: from_texts(from.files),
                next_steps: from_texts(from.next_steps),
                preferences: from_texts(from.user_preferences),
                pending_subagents: from.pending_subagents.into_iter().map(subagent).collect(),
                // Ids go on behind the highest that is there.
                last_id: 0,
            },
            resumption_instructions: from.resumption_instructions,
            context: Value::Object(from.context).to_string(),
            shared: from.shared_context.into_iter().map(shared).collect(),
            conversation: PackedConversation {
                text: talk.text.unwrap_or_default(),
                tokens: talk.tokens,
                tokenizer: talk.tokenizer,
                score: talk.score,
                kept: talk.kept,
                partly: talk.partly,
                dropped: talk.dropped,
                must_keep_missing: talk.must_keep_missing,
                through: talk.through,
                unverified: talk.unverified.into_iter().map(|it| (it.entry, it.model)).collect(),
            },
        })
    }
}
