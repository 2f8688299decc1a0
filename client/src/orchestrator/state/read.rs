//! The walk over a state's JSON: it goes on after a mistake, so that all of them are told at once.

use broker_proto::types::WallTime;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Execution, FileState, Priority, State, Task, TaskStatus};
use crate::orchestrator::finding::{Fault, Finding};

type Object = Map<String, Value>;

/// The version of the state's form that is read here.
const MAJOR: &str = "1";
/// Far above any plan; a state of 8 MiB could hold millions of empty ones.
const MOST_TASKS: usize = 100_000;
pub(in crate::orchestrator) const MOST_FINDINGS: usize = 1_000;

#[derive(Default)]
pub(super) struct Reader {
    pub(super) findings: Vec<Finding>,
}

impl Reader {
    pub(super) fn state(&mut self, object: &Object) -> State {
        self.version(object);
        State {
            project: self.project(object),
            phase: self.need(object, "$", "current_phase"),
            updated_at: self.updated_at(object),
            goal: self.text(object, "$", "goal"),
            progress: self.share(object, "$"),
            execution: self.execution(object),
            constraints: self.texts(object, "$", "constraints"),
            decisions: self.texts(object, "$", "decisions"),
            critical: self.texts(object, "$", "critical_context"),
            open_items: self.texts(object, "$", "open_items"),
            preferences: self.texts(object, "$", "preferences"),
            next_steps: self.texts(object, "$", "next_steps"),
            tasks: self.tasks(object),
            files: self.files(object),
            environment: self.environment(object),
        }
    }

    fn missing(&mut self, place: String, problem: &str) {
        self.push(Finding::new(Fault::Missing, place, problem));
    }

    fn wrong(&mut self, place: String, problem: &str) {
        self.push(Finding::new(Fault::Wrong, place, problem));
    }

    /// A file that is wrong everywhere is told so often enough.
    fn push(&mut self, finding: Finding) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        }
    }

    fn version(&mut self, object: &Object) {
        let version = self.need(object, "$", "version");
        let major = version.split('.').next().unwrap_or_default();
        if !version.is_empty() && major != MAJOR {
            self.wrong("$.version".to_owned(), "must be a version 1 of the form, such as \"1.0\"");
        }
    }

    /// A name, or an object that has one.
    fn project(&mut self, object: &Object) -> String {
        match object.get("project") {
            Some(Value::Object(project)) => self.need(project, "$.project", "name"),
            _ => self.need(object, "$", "project"),
        }
    }

    fn updated_at(&mut self, object: &Object) -> WallTime {
        let text = self.need(object, "$", "updated_at");
        if text.is_empty() {
            return WallTime::default();
        }
        time_of(&text).unwrap_or_else(|| {
            let problem = "must be a time with its zone, such as 2026-11-20T18:00:00Z";
            self.wrong("$.updated_at".to_owned(), problem);
            WallTime::default()
        })
    }

    fn execution(&mut self, object: &Object) -> Execution {
        let Some(execution) = self.object(object, "$", "execution_state") else {
            return Execution::default();
        };
        let at = "$.execution_state";
        Execution {
            step: self.number(execution, at, "step"),
            total_steps: self.number(execution, at, "total_steps"),
            status: self.text(execution, at, "status"),
            resume_point: self.text(execution, at, "resume_point"),
        }
    }

    fn tasks(&mut self, object: &Object) -> Vec<Task> {
        if object.get("tasks").is_none_or(Value::is_null) {
            self.missing("$.tasks".to_owned(), "must be there: the list of tasks");
        }
        let tasks = self.list(object, "$", "tasks");
        if tasks.len() > MOST_TASKS {
            self.wrong("$.tasks".to_owned(), "must not hold more than 100,000 tasks");
            return Vec::new();
        }
        let each = tasks.iter().enumerate();
        each.filter_map(|(index, task)| self.task(task, &format!("$.tasks[{index}]"))).collect()
    }

    fn task(&mut self, value: &Value, at: &str) -> Option<Task> {
        let Some(object) = value.as_object() else {
            self.wrong(at.to_owned(), "must be an object");
            return None;
        };
        let id = self.need(object, at, "id");
        let status = self.need(object, at, "status");
        Some(Task {
            id,
            title: self.text(object, at, "title").unwrap_or_default(),
            status: self.status(&status, at),
            depends_on: self.texts(object, at, "depends_on"),
            priority: self.priority(object, at),
            progress: self.share(object, at),
            assignee: self.text(object, at, "assignee"),
            error: self.text(object, at, "error"),
            attempts: self.number(object, at, "attempts"),
            next_subtask: self.text(object, at, "next_subtask"),
        })
    }

    fn status(&mut self, word: &str, at: &str) -> TaskStatus {
        let status = TaskStatus::parse(word);
        if status.is_none() && !word.is_empty() {
            let problem = "must be pending, active, completed, failed, blocked or skipped";
            self.wrong(format!("{at}.status"), problem);
        }
        status.unwrap_or(TaskStatus::Pending)
    }

    fn priority(&mut self, object: &Object, at: &str) -> Priority {
        let Some(word) = self.text(object, at, "priority") else { return Priority::default() };
        Priority::parse(&word).unwrap_or_else(|| {
            self.wrong(format!("{at}.priority"), "must be urgent, high, normal or low");
            Priority::default()
        })
    }

    fn files(&mut self, object: &Object) -> Vec<FileState> {
        let files = self.list(object, "$", "files");
        let mut read = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let at = format!("$.files[{index}]");
            match file {
                Value::String(path) => {
                    read.push(FileState { path: path.clone(), status: None, note: None });
                }
                Value::Object(file) => read.push(FileState {
                    path: self.need(file, &at, "path"),
                    status: self.text(file, &at, "status"),
                    note: self.text(file, &at, "note"),
                }),
                _ => self.wrong(at, "must be a path, or an object with one"),
            }
        }
        read
    }

    /// Values that are no text are kept as their JSON.
    fn environment(&mut self, object: &Object) -> Vec<(String, String)> {
        let Some(environment) = self.object(object, "$", "environment") else { return Vec::new() };
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        environment.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    }

    /// A text that must be there and must not be empty.
    fn need(&mut self, object: &Object, at: &str, field: &str) -> String {
        let place = format!("{at}.{field}");
        match object.get(field) {
            Some(Value::String(text)) if !text.trim().is_empty() => return text.clone(),
            Some(Value::String(_)) => self.missing(place, "must not be empty"),
            Some(Value::Null) | None => self.missing(place, "must be there"),
            Some(_) => self.wrong(place, "must be a text"),
        }
        String::new()
    }

    fn text(&mut self, object: &Object, at: &str, field: &str) -> Option<String> {
        match object.get(field)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()).filter(|text| !text.trim().is_empty()),
            _ => {
                self.wrong(format!("{at}.{field}"), "must be a text");
                None
            }
        }
    }

    fn number(&mut self, object: &Object, at: &str, field: &str) -> Option<u64> {
        let value = object.get(field).filter(|value| !value.is_null())?;
        let number = value.as_u64();
        if number.is_none() {
            self.wrong(format!("{at}.{field}"), "must be a whole number, 0 or more");
        }
        number
    }

    /// `progress`, as a share of one.
    fn share(&mut self, object: &Object, at: &str) -> Option<f64> {
        let value = object.get("progress").filter(|value| !value.is_null())?;
        let share = value.as_f64().filter(|share| (0.0..=1.0).contains(share));
        if share.is_none() {
            self.wrong(format!("{at}.progress"), "must be a number from 0 to 1");
        }
        share
    }

    fn object<'a>(&mut self, object: &'a Object, at: &str, field: &str) -> Option<&'a Object> {
        let value = object.get(field).filter(|value| !value.is_null())?;
        let inner = value.as_object();
        if inner.is_none() {
            self.wrong(format!("{at}.{field}"), "must be an object");
        }
        inner
    }

    fn list<'a>(&mut self, object: &'a Object, at: &str, field: &str) -> &'a [Value] {
        match object.get(field) {
            Some(Value::Array(list)) => list,
            Some(Value::Null) | None => &[],
            Some(_) => {
                self.wrong(format!("{at}.{field}"), "must be a list");
                &[]
            }
        }
    }

    fn texts(&mut self, object: &Object, at: &str, field: &str) -> Vec<String> {
        let mut texts = Vec::new();
        for (index, value) in self.list(object, at, field).iter().enumerate() {
            match value {
                Value::String(text) if !text.trim().is_empty() => texts.push(text.clone()),
                Value::String(_) => {}
                _ => self.wrong(format!("{at}.{field}[{index}]"), "must be a text"),
            }
        }
        texts
    }
}

/// The time that RFC 3339 text names; before 1970 there is none.
pub(crate) fn time_of(text: &str) -> Option<WallTime> {
    let at = OffsetDateTime::parse(text.trim(), &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(WallTime)
}
