//! From a state to the payload of a level: what must go along first, then of everything else what fits.

mod secret;

use broker_proto::types::WallTime;

use super::{
    graph,
    record::{
        self, Active, CriticalContext, DagSnapshot, ExecutionState, Failed, File, Next, Node,
        Record, Summary, Tokens,
    },
    room::{self, Item, Queue, Words},
    state::{State, TaskStatus},
    tokens,
};

/// How much of a state a payload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Minimal,
    Standard,
    Full,
}

impl Level {
    /// Every level, the smallest first.
    pub const ALL: [Self; 3] = [Self::Minimal, Self::Standard, Self::Full];

    /// The word it is written with.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Standard => "standard",
            Self::Full => "full",
        }
    }

    /// The level of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }

    /// Units: tokens, as [`tokens::estimate`] counts them.
    #[must_use]
    pub fn budget(self) -> u64 {
        match self {
            Self::Minimal => 500,
            Self::Standard => 1_200,
            Self::Full => 2_000,
        }
    }
}

/// What becomes of must-keep items that the level has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MustKeep {
    /// The payload is refused.
    #[default]
    All,
    /// They are shortened, then left out and counted.
    WhatFits,
}

/// The must-keep items alone are over the level's budget.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what must be kept needs about {needed} tokens and the level {} holds {}", .level.as_str(), .level.budget())]
pub struct TooSmall {
    pub level: Level,
    pub needed: u64,
    /// The smallest level that would hold it.
    pub fitting: Option<Level>,
}

/// A payload that is within its budget.
#[derive(Clone)]
pub struct Payload {
    pub(super) record: Record,
    text: String,
}

impl Payload {
    /// The file's content.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its tokens, estimated.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.record.summary.tokens.estimate
    }

    /// What had no room, or no key at this level, and how much of it.
    pub fn left_out(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.record.summary.left_out.iter().map(|(what, count)| (*what, *count))
    }

    /// How many texts end in `…` because they were longer.
    #[must_use]
    pub fn shortened(&self) -> usize {
        self.record.summary.shortened
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload").field("tokens", &self.tokens()).finish_non_exhaustive()
    }
}

/// Makes the payload of `state` at `level`.
///
/// Shape: `id` names the handoff, `now` is when it is made; the same arguments give the same bytes.
///
/// # Errors
/// [`TooSmall`] when the must-keep items alone are over the budget: goal, resume point and next steps; from standard on
/// also constraints, facts, decisions and open items.
pub fn build(
    state: &State,
    level: Level,
    must_keep: MustKeep,
    id: &str,
    now: WallTime,
) -> Result<Payload, TooSmall> {
    let at_level = |level| room::fill(plan(state, level, must_keep, id, now), level.budget());
    at_level(level).map(|filled| Payload { record: filled.record, text: filled.text }).map_err(
        |needed| {
            let larger = Level::ALL.into_iter().filter(|larger| *larger > level);
            let fitting = larger.into_iter().find(|level| at_level(*level).is_ok());
            TooSmall { level, needed, fitting }
        },
    )
}

/// What is in it whatever happens, and what wants to be, the most important first.
fn plan(state: &State, level: Level, must_keep: MustKeep, id: &str, now: WallTime) -> room::Plan {
    let mut words = Words::default();
    let mut record = frame(state, level, must_keep, id, now, &mut words);
    let mut must = must_items(state, level);
    let mut queues = Vec::new();
    match must_keep {
        MustKeep::All => must.into_iter().for_each(|item| item.put(&mut record)),
        MustKeep::WhatFits => {
            for item in &mut must {
                item.shorten(&mut words);
            }
            queues.push(vec![Queue { at_once: 1, items: must.into() }]);
        }
    }
    queues.push(wishes(state, level));
    room::Plan { record, shortened: words.shortened, queues, no_key: no_key(state, level) }
}

fn frame(
    state: &State,
    level: Level,
    must_keep: MustKeep,
    id: &str,
    now: WallTime,
    words: &mut Words,
) -> Record {
    let mut most = |text: &str, most: usize| match must_keep {
        MustKeep::All => text.to_owned(),
        MustKeep::WhatFits => words.short(text, most),
    };
    let goal = state.goal.as_deref().map(|goal| most(goal, 120));
    let resume_point = state.execution.resume_point.as_deref().map(|point| most(point, 80));
    Record {
        handoff_id: id.to_owned(),
        version: (level > Level::Minimal).then_some(record::VERSION),
        summary: Summary {
            level: level.as_str(),
            project: words.short(&state.project, 60),
            current_phase: words.short(&state.phase, 60),
            goal,
            progress: format!("{}%", state.percent()),
            tasks_complete: state.count(TaskStatus::Completed),
            tasks_total: state.tasks.len(),
            resume_point,
            generated_at: rfc3339(now),
            state_updated_at: rfc3339(state.updated_at),
            // Stands for the figure until it is known: it has as many digits as any that fits.
            tokens: Tokens {
                estimate: level.budget(),
                budget: level.budget(),
                method: tokens::METHOD,
            },
            ..Summary::default()
        },
        execution_state: (level > Level::Minimal).then(|| execution(state, words)),
        critical_context: (level > Level::Minimal).then(CriticalContext::default),
        dag_snapshot: (level > Level::Minimal).then(|| dag(state)),
        file_state: (level == Level::Full).then(Vec::new),
        environment: (level == Level::Full).then(Default::default),
        ..Record::default()
    }
}

fn execution(state: &State, words: &mut Words) -> ExecutionState {
    let mut tasks = std::collections::BTreeMap::new();
    for task in &state.tasks {
        *tasks.entry(task.status.as_str()).or_default() += 1;
    }
    ExecutionState {
        phase: words.short(&state.phase, 60),
        status: state.execution.status.as_deref().map(|status| words.short(status, 40)),
        step: state.execution.step,
        total_steps: state.execution.total_steps,
        tasks,
    }
}

fn dag(state: &State) -> DagSnapshot {
    DagSnapshot {
        tasks: state.tasks.len(),
        edges: state.tasks.iter().map(|task| task.depends_on.len()).sum(),
        ready: graph::ready(&state.tasks).len(),
        waiting: Vec::new(),
    }
}

/// What must go along at this level, whole.
fn must_items(state: &State, level: Level) -> Vec<Item> {
    let steps = state.next_steps.iter().cloned();
    let mut items: Vec<Item> = steps.map(|step| Item::Next(Next::Step { step })).collect();
    if level > Level::Minimal {
        items.extend(state.constraints.iter().cloned().map(Item::Constraint));
        items.extend(state.critical.iter().cloned().map(Item::Fact));
        items.extend(state.decisions.iter().cloned().map(Item::Decision));
        items.extend(state.open_items.iter().cloned().map(Item::Open));
    }
    items
}

/// What else wants to go along. Work in hand, what failed and what comes next take two places for each of the others.
fn wishes(state: &State, level: Level) -> Vec<Queue> {
    let of = |status| state.tasks.iter().filter(move |task| task.status == status);
    let active = of(TaskStatus::Active).map(|task| {
        Item::Active(Active {
            id: task.id.clone(),
            title: task.title.clone(),
            progress: task.progress.map(|share| format!("{:.0}%", share * 100.0)),
            assignee: task.assignee.clone(),
            next_subtask: task.next_subtask.clone(),
        })
    });
    let failed = of(TaskStatus::Failed).map(|task| {
        Item::Failed(Failed {
            id: task.id.clone(),
            title: task.title.clone(),
            error: task.error.clone(),
            attempts: task.attempts,
        })
    });
    let next = graph::ready(&state.tasks).into_iter().map(|task| {
        let priority = Some(task.priority.as_str()).filter(|word| *word != "normal");
        Item::Next(Next::Task { id: task.id.clone(), title: task.title.clone(), priority })
    });
    // Where there is little room, one of each says more than two of one.
    let at_once = if level == Level::Minimal { 1 } else { 2 };
    let mut queues =
        vec![Queue::of(at_once, active), Queue::of(at_once, failed), Queue::of(at_once, next)];
    if level > Level::Minimal {
        let waiting = graph::waiting(&state.tasks).into_iter().map(|(task, waits_for)| {
            let waits_for = waits_for.into_iter().map(str::to_owned).collect();
            Item::Waiting(Node { id: task.id.clone(), status: task.status.as_str(), waits_for })
        });
        queues.push(Queue::of(1, waiting));
        queues.push(Queue::of(1, state.preferences.iter().cloned().map(Item::Preference)));
    }
    if level == Level::Full {
        queues.push(Queue::of(
            1,
            state.files.iter().map(|file| {
                let (status, note) = (file.status.clone(), file.note.clone());
                Item::File(File { path: file.path.clone(), status, note })
            }),
        ));
        queues.push(Queue::of(
            1,
            state
                .environment
                .iter()
                .map(|(name, value)| Item::Environment(name.clone(), secret::without(name, value))),
        ));
    }
    queues
}

/// What this level has no key for.
fn no_key(state: &State, level: Level) -> Vec<(&'static str, usize)> {
    let mut none = Vec::new();
    if level == Level::Minimal {
        none.extend([
            ("constraints", state.constraints.len()),
            ("facts", state.critical.len()),
            ("decisions", state.decisions.len()),
            ("open_items", state.open_items.len()),
            ("preferences", state.preferences.len()),
            ("waiting", graph::waiting(&state.tasks).len()),
        ]);
    }
    if level < Level::Full {
        none.extend([("files", state.files.len()), ("environment", state.environment.len())]);
    }
    none
}

/// `2026-11-20T18:00:00Z`, to the second.
pub(super) fn rfc3339(at: WallTime) -> String {
    WallTime(at.0 - at.0 % 1_000).rfc3339().unwrap_or_default()
}
