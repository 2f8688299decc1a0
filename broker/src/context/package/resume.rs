//! What the receiver is told to do first.

use broker_proto::{PackageContents, PackageHeader, QueuedTask, SessionItem};

/// A list of items, one on each line behind what `mark` gives for its number.
pub(super) fn lines<'a>(
    texts: impl Iterator<Item = &'a str>,
    mark: impl Fn(usize) -> String,
) -> String {
    (1..).zip(texts).map(|(number, text)| format!("{}{text}\n", mark(number))).collect()
}

pub(super) fn open(items: &[SessionItem]) -> impl Iterator<Item = &str> {
    items.iter().filter(|item| !item.is_done).map(|item| item.text.as_str())
}

/// Instructions for whoever goes on with it: the task, where it stands, what comes next, and why it moved.
#[must_use]
pub fn instructions(header: &PackageHeader, contents: &PackageContents) -> String {
    let mut text =
        format!("# Resumption instructions\n\n## Current task\n\n{}\n", contents.task.goal);
    let at = &contents.checkpoint;
    if at.total_steps > 0 || !at.phase.is_empty() || !at.resume_point.is_empty() {
        text.push_str("\n## Where it stands\n\n");
        text.push_str(&standing(contents));
    }
    let section = |title: &str, body: String| {
        if body.is_empty() { body } else { format!("\n## {title}\n\n{body}") }
    };
    let task = &contents.task;
    let bullet = |_| "- ".to_owned();
    text += &section("Constraints", lines(open(&task.constraints), bullet));
    text += &section("Decisions", lines(task.decisions.iter().map(|it| it.text.as_str()), bullet));
    text += &section("Next steps", lines(open(&task.next_steps), |number| format!("{number}. ")));
    text += &section("Files", lines(open(&task.files), bullet));
    text += &section("Waiting", waiting(contents));
    let from = if header.sender.is_empty() { &contents.created_by } else { &header.sender };
    text += &format!(
        "\n## Why\n\nThis package was made by {from} ({}). Verify what is stated above before you build on it, and go on \
         from the last step that was completed.\n",
        header.reason
    );
    text
}

/// What waits in the queue, in lines, and how much more does.
pub(super) fn waiting(contents: &PackageContents) -> String {
    let said = |it: &QueuedTask| {
        let QueuedTask { id, priority, description } = it;
        let what = if description.is_empty() { id } else { description };
        if priority == "normal" {
            format!("- {what}\n")
        } else {
            format!("- {what} ({priority})\n")
        }
    };
    let mut text: String = contents.task_queue.iter().map(said).collect();
    if contents.queue_left_out > 0 {
        text += &format!("- and {} more\n", contents.queue_left_out);
    }
    text
}

/// Phase, step, status and the place to go on from, in lines.
pub(super) fn standing(contents: &PackageContents) -> String {
    let (at, work) = (&contents.checkpoint, &contents.current_work);
    let mut text = String::new();
    if !at.phase.is_empty() {
        text += &format!("- Phase: {}\n", at.phase);
    }
    if at.total_steps > 0 {
        text += &format!("- Step {} of {}\n", at.step, at.total_steps);
    }
    text += &format!("- Status: {}\n", at.status.as_str());
    if !at.resume_point.is_empty() {
        text += &format!("- Go on from: {}\n", at.resume_point);
    }
    if !work.task_id.is_empty() {
        text += &format!("- Under way: {}\n", work.task_id);
    }
    if !work.progress.is_empty() {
        text += &format!("- Progress: {}\n", work.progress);
    }
    if !work.completed_subtasks.is_empty() {
        text += &format!("- Done: {}\n", work.completed_subtasks.join(", "));
    }
    if !work.next_subtask.is_empty() {
        text += &format!("- Next: {}\n", work.next_subtask);
    }
    text
}
