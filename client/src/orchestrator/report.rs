//! A payload for people: a template with its placeholders filled in, or a plain report where there is no template.

use super::{
    payload::Payload,
    placeholder,
    record::{Next, Record, Summary},
    text::{self, Unreadable},
};

/// What is used when no other template is given.
pub const DEFAULT_TEMPLATE: &str = include_str!("report/default.md");

/// Every placeholder, and what takes its place.
pub const PLACEHOLDERS: [(&str, &str); 26] = [
    ("handoff_id", "the handoff's id"),
    ("timestamp", "when the payload was made"),
    ("project_name", "the project"),
    ("current_phase", "the phase it is in"),
    ("overall_progress", "how much is done, in percent"),
    ("tasks_complete", "finished tasks"),
    ("tasks_total", "all tasks"),
    ("tasks_active", "tasks being worked on that the payload names"),
    ("tasks_failed", "failed tasks that the payload names"),
    ("level", "minimal, standard or full"),
    ("tokens", "the payload's tokens, estimated"),
    ("token_budget", "the most its level holds"),
    ("token_method", "how the tokens were counted"),
    ("state_updated_at", "when the orchestrator wrote its state"),
    ("goal", "what it is all for"),
    ("resume_point", "where to go on"),
    ("active", "the tasks being worked on, as a list"),
    ("failed", "the tasks that failed, as a list"),
    ("next", "the next steps and the tasks that can begin, as a list"),
    ("execution_state", "step, status and tasks by status, as a list"),
    ("critical_context", "constraints, facts, decisions and open items, as a list"),
    ("dag_snapshot", "what waits for what, as a list"),
    ("file_state", "files, as a list"),
    ("environment", "the environment, as a list"),
    ("left_out", "what had no room, as a list"),
    ("payload_json", "the payload itself; for a fenced block"),
];

/// A report, and the placeholders that nothing fills in: they stand in it as they stood in the template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub text: String,
    pub unknown: Vec<String>,
}

/// The text of a template's bytes.
///
/// # Errors
/// [`Unreadable`] when it is too large, binary or empty.
pub fn template(bytes: &[u8]) -> Result<&str, Unreadable> {
    text::of_bytes(bytes, text::MOST_TEMPLATE_BYTES)
}

/// Fills `template` in, in one pass: what a value holds is never taken for a placeholder.
#[must_use]
pub fn render(payload: &Payload, template: &str) -> Report {
    let mut report = Report { text: String::with_capacity(template.len()), unknown: Vec::new() };
    let mut from = 0;
    for placeholder in placeholder::all(template) {
        let Some(value) = value(payload, placeholder.name) else {
            if !placeholder.is_code && !report.unknown.iter().any(|name| name == placeholder.name) {
                report.unknown.push(placeholder.name.to_owned());
            }
            continue;
        };
        report.text.push_str(&template[from..placeholder.range.start]);
        report.text.push_str(&value);
        from = placeholder.range.end;
    }
    report.text.push_str(&template[from..]);
    report
}

/// The report without a template.
#[must_use]
pub fn plain(payload: &Payload) -> String {
    let summary = &payload.record.summary;
    format!(
        "# Handoff report\n\n**Handoff**: {}\n\n**Generated**: {}\n\n**Progress**: {}\n\n## Context\n\n```json\n{}```\n",
        payload.record.handoff_id,
        summary.generated_at,
        summary.progress,
        payload.text(),
    )
}

pub(super) fn is_known(name: &str) -> bool {
    PLACEHOLDERS.iter().any(|(known, _)| *known == name)
}

fn value(payload: &Payload, name: &str) -> Option<String> {
    let record = &payload.record;
    let value = match name {
        "handoff_id" => plain_text(&record.handoff_id),
        "tasks_active" => record.active.len().to_string(),
        "tasks_failed" => record.failed.len().to_string(),
        "active" => active(record),
        "failed" => failed(record),
        "next" => next(record),
        "execution_state" => list(execution(record)),
        "critical_context" => list(critical(record)),
        "dag_snapshot" => list(dag(record)),
        "file_state" => list(files(record)),
        "environment" => list(environment(record)),
        "payload_json" => payload.text().trim_end().to_owned(),
        name => return of_summary(&record.summary, name),
    };
    Some(value)
}

fn of_summary(summary: &Summary, name: &str) -> Option<String> {
    let or_dash = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), plain_text);
    Some(match name {
        "timestamp" => summary.generated_at.clone(),
        "state_updated_at" => summary.state_updated_at.clone(),
        "project_name" => plain_text(&summary.project),
        "current_phase" => plain_text(&summary.current_phase),
        "overall_progress" => summary.progress.clone(),
        "tasks_complete" => summary.tasks_complete.to_string(),
        "tasks_total" => summary.tasks_total.to_string(),
        "level" => summary.level.to_owned(),
        "tokens" => summary.tokens.estimate.to_string(),
        "token_budget" => summary.tokens.budget.to_string(),
        "token_method" => summary.tokens.method.to_owned(),
        "goal" => or_dash(&summary.goal),
        "resume_point" => or_dash(&summary.resume_point),
        "left_out" => list(left_out(summary)),
        _ => return None,
    })
}

fn left_out(summary: &Summary) -> Option<Vec<String>> {
    let counted = summary.left_out.iter().map(|(what, count)| format!("{what}: {count}"));
    let cut = (summary.shortened > 0).then(|| format!("texts cut short: {}", summary.shortened));
    Some(counted.chain(cut).collect())
}

fn active(record: &Record) -> String {
    let lines = record.active.iter().map(|task| {
        let mut line = titled(&task.id, &task.title);
        for (before, text) in
            [(", ", &task.progress), (", with ", &task.assignee), ("; next: ", &task.next_subtask)]
        {
            if let Some(text) = text {
                line.push_str(before);
                line.push_str(&plain_text(text));
            }
        }
        line
    });
    list(Some(lines.collect()))
}

fn failed(record: &Record) -> String {
    let lines = record.failed.iter().map(|task| {
        let mut line = titled(&task.id, &task.title);
        if let Some(attempts) = task.attempts {
            line.push_str(&format!(", attempts: {attempts}"));
        }
        if let Some(error) = &task.error {
            line.push_str(&format!(": {}", plain_text(error)));
        }
        line
    });
    list(Some(lines.collect()))
}

fn next(record: &Record) -> String {
    let lines = record.next.iter().map(|next| match next {
        Next::Step { step } => plain_text(step),
        Next::Task { id, title, priority } => {
            let mark = priority.map(|priority| format!(" ({priority})")).unwrap_or_default();
            format!("{}{mark}", titled(id, title))
        }
    });
    let lines: Vec<String> =
        lines.enumerate().map(|(index, line)| format!("{}. {line}", index + 1)).collect();
    if lines.is_empty() { NONE.to_owned() } else { lines.join("\n") }
}

fn execution(record: &Record) -> Option<Vec<String>> {
    let state = record.execution_state.as_ref()?;
    let mut lines = vec![format!("phase: {}", plain_text(&state.phase))];
    lines.extend(state.status.iter().map(|status| format!("status: {}", plain_text(status))));
    if let Some(step) = state.step {
        let of = state.total_steps.map(|total| format!(" of {total}")).unwrap_or_default();
        lines.push(format!("step: {step}{of}"));
    }
    lines.extend(state.tasks.iter().map(|(status, count)| format!("tasks {status}: {count}")));
    Some(lines)
}

fn critical(record: &Record) -> Option<Vec<String>> {
    let context = record.critical_context.as_ref()?;
    let of = |what: &'static str, texts: &[String]| -> Vec<String> {
        texts.iter().map(|text| format!("{what}: {}", plain_text(text))).collect()
    };
    Some(
        [
            of("constraint", &context.constraints),
            of("fact", &context.facts),
            of("decision", &context.decisions),
            of("open", &context.open_items),
            of("preference", &context.preferences),
        ]
        .concat(),
    )
}

fn dag(record: &Record) -> Option<Vec<String>> {
    let dag = record.dag_snapshot.as_ref()?;
    let mut lines =
        vec![format!("{} tasks, {} dependencies, {} ready", dag.tasks, dag.edges, dag.ready)];
    lines.extend(dag.waiting.iter().map(|node| {
        let waits = node.waits_for.iter().map(|id| plain_text(id)).collect::<Vec<_>>().join(", ");
        match waits.as_str() {
            "" => format!("`{}` {}", plain_text(&node.id), node.status),
            waits => format!("`{}` waits for {waits}", plain_text(&node.id)),
        }
    }));
    Some(lines)
}

fn files(record: &Record) -> Option<Vec<String>> {
    let lines = record.file_state.as_ref()?.iter().map(|file| {
        let status = file.status.iter().map(|status| format!(" ({})", plain_text(status)));
        let note = file.note.iter().map(|note| format!(": {}", plain_text(note)));
        let path = format!("`{}`", plain_text(&file.path));
        std::iter::once(path).chain(status).chain(note).collect()
    });
    Some(lines.collect())
}

fn environment(record: &Record) -> Option<Vec<String>> {
    let all = record.environment.as_ref()?.iter();
    Some(all.map(|(name, value)| format!("{}: {}", plain_text(name), plain_text(value))).collect())
}

const NONE: &str = "- none";

/// A list of lines; at a level without this key it says so.
fn list(lines: Option<Vec<String>>) -> String {
    match lines {
        None => "- not at this level".to_owned(),
        Some(lines) if lines.is_empty() => NONE.to_owned(),
        Some(lines) => lines.iter().map(|line| format!("- {line}")).collect::<Vec<_>>().join("\n"),
    }
}

fn titled(id: &str, title: &str) -> String {
    match title {
        "" => format!("`{}`", plain_text(id)),
        title => format!("`{}` {}", plain_text(id), plain_text(title)),
    }
}

/// A value as it may stand in Markdown: on one line, no markup of another language, no placeholder.
fn plain_text(text: &str) -> String {
    let (line, _) = text::short(text, usize::MAX);
    placeholder::escaped(&line.replace('<', "&lt;"))
}
