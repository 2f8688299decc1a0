//! What a session is about, edited one step at a time; and how two such states differ.
//!
//! The texts are not in the state: whoever edits reads them, applies these rules, and stores the result.

use broker_proto::{SessionItem, SessionTask, SharedValue, TaskEdit, TaskList, Unverified};

/// Items of one list at most.
pub const MOST_ITEMS: usize = 1000;
/// Shared values of one session at most.
pub const MOST_SHARED: usize = 1000;

/// Levels of lists and objects in a JSON value that is kept. Documents and packages put it a few levels deeper, and whoever
/// reads those gives up at 128: what was taken could not be given out again.
pub const MOST_LEVELS: usize = 100;

/// Why an edit cannot be made; nothing is changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("{} has no item {id}", list.as_str())]
    NoItem { list: TaskList, id: u32 },
    #[error("no subagent `{0}` is waited for")]
    NoSubagent(String),
    #[error("{0} has {MOST_ITEMS} items, which is the most")]
    Full(&'static str),
    #[error("there is no shared value `{0}`")]
    NoKey(String),
    #[error("{MOST_SHARED} values are shared, which is the most")]
    SharedFull,
    #[error("`{key}` is not JSON: {problem} at column {column}")]
    NotJson { key: String, problem: &'static str, column: usize },
}

/// The task after these edits: all of them, or none.
///
/// # Errors
/// The [`EditError`] of the first that cannot be made.
pub fn edit(task: &SessionTask, edits: &[TaskEdit]) -> Result<SessionTask, EditError> {
    let mut task = task.clone();
    for change in edits {
        step(&mut task, change)?;
    }
    Ok(task)
}

/// Puts checking what is unverified before all other steps. It is never stored: it follows from what is unverified, and
/// ends with it.
pub fn check_first(task: &mut SessionTask, unverified: &Unverified) {
    let text = unverified.step();
    if task.next_steps.first().is_none_or(|first| first.text != text) {
        let known = TaskList::ALL.iter().flat_map(|list| task.list(*list));
        let id = known.map(|item| item.id).fold(task.last_id, u32::max) + 1;
        task.next_steps.insert(0, SessionItem { id, text, is_done: false, entry: None });
    }
}

fn step(task: &mut SessionTask, change: &TaskEdit) -> Result<(), EditError> {
    match change {
        TaskEdit::SetGoal(goal) => task.goal.clone_from(goal),
        TaskEdit::SetProgress(progress) => task.progress = Some(*progress),
        TaskEdit::Add { list, text, entry } => {
            if task.list(*list).len() >= MOST_ITEMS {
                return Err(EditError::Full(list.as_str()));
            }
            // Said again, it is the same item.
            if !task.list(*list).iter().any(|item| item.text == *text) {
                let known = TaskList::ALL.iter().flat_map(|list| task.list(*list));
                task.last_id = known.map(|item| item.id).fold(task.last_id, u32::max) + 1;
                let (id, text, entry) = (task.last_id, text.clone(), *entry);
                task.list_mut(*list).push(SessionItem { id, text, is_done: false, entry });
            }
        }
        TaskEdit::Done { list, id, is_done } => item(task, *list, *id)?.is_done = *is_done,
        TaskEdit::Remove { list, id } => {
            item(task, *list, *id)?;
            task.list_mut(*list).retain(|item| item.id != *id);
        }
        TaskEdit::SetSubagent(pending) => {
            task.pending_subagents.retain(|known| known.id != pending.id);
            if task.pending_subagents.len() >= MOST_ITEMS {
                return Err(EditError::Full("pending_subagents"));
            }
            task.pending_subagents.push(pending.clone());
        }
        TaskEdit::RemoveSubagent(id) => {
            let before = task.pending_subagents.len();
            task.pending_subagents.retain(|known| known.id != *id);
            if task.pending_subagents.len() == before {
                return Err(EditError::NoSubagent(id.clone()));
            }
        }
    }
    Ok(())
}

fn item(task: &mut SessionTask, list: TaskList, id: u32) -> Result<&mut SessionItem, EditError> {
    let found = task.list_mut(list).iter_mut().find(|item| item.id == id);
    found.ok_or(EditError::NoItem { list, id })
}

/// The edits that make a task hold what another one says: what is open there and not here yet. The entries that state it
/// are those of another session.
#[must_use]
pub fn taken_over(known: &SessionTask, from: SessionTask) -> Vec<TaskEdit> {
    let mut edits = Vec::new();
    if !from.goal.is_empty() && from.goal != known.goal {
        edits.push(TaskEdit::SetGoal(from.goal));
    }
    edits.extend(from.progress.map(TaskEdit::SetProgress));
    let lists: [(TaskList, &[SessionItem], Vec<SessionItem>); 8] = [
        (TaskList::SubGoals, &known.sub_goals, from.sub_goals),
        (TaskList::Constraints, &known.constraints, from.constraints),
        (TaskList::Decisions, &known.decisions, from.decisions),
        (TaskList::NextSteps, &known.next_steps, from.next_steps),
        (TaskList::OpenItems, &known.open_items, from.open_items),
        (TaskList::Files, &known.files, from.files),
        (TaskList::CriticalFacts, &known.critical_facts, from.critical_facts),
        (TaskList::Preferences, &known.preferences, from.preferences),
    ];
    for (list, known, items) in lists {
        let is_new = |item: &SessionItem| {
            !item.is_done && !known.iter().any(|other| other.text == item.text)
        };
        let add = |item: SessionItem| TaskEdit::Add { list, text: item.text, entry: None };
        edits.extend(items.into_iter().filter(is_new).map(add));
    }
    edits.extend(from.pending_subagents.into_iter().map(TaskEdit::SetSubagent));
    edits
}

/// The task as it was before entry `entries`: without what later entries stated.
#[must_use]
pub fn until(mut task: SessionTask, entries: u64) -> SessionTask {
    for list in TaskList::ALL {
        task.list_mut(list).retain(|item| item.entry.is_none_or(|entry| entry < entries));
    }
    task
}

/// What is shared, with this value set; sorted by key.
///
/// # Errors
/// [`EditError::SharedFull`], [`EditError::NotJson`].
pub fn set_shared(
    shared: &[SharedValue],
    value: SharedValue,
) -> Result<Vec<SharedValue>, EditError> {
    if let Err(error) = serde_json::from_str::<serde_json::Value>(&value.value) {
        let problem = if error.to_string().starts_with("recursion") {
            "it nests too deep"
        } else {
            "it does not go on as JSON"
        };
        return Err(EditError::NotJson { key: value.key, problem, column: error.column() });
    }
    if let Some(column) = too_deep(&value.value) {
        return Err(EditError::NotJson { key: value.key, problem: "it nests too deep", column });
    }
    let mut shared = shared.to_vec();
    match shared.binary_search_by(|known| known.key.cmp(&value.key)) {
        Ok(at) => shared[at] = value,
        Err(_) if shared.len() >= MOST_SHARED => return Err(EditError::SharedFull),
        Err(at) => shared.insert(at, value),
    }
    Ok(shared)
}

/// The byte, counted from 1, at which JSON nests deeper than [`MOST_LEVELS`].
#[must_use]
pub fn too_deep(json: &str) -> Option<usize> {
    let (mut levels, mut in_text, mut is_escaped) = (0_usize, false, false);
    for (at, byte) in (1..).zip(json.bytes()) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => levels += 1,
            b']' | b'}' if !in_text => levels = levels.saturating_sub(1),
            _ => {}
        }
        if levels > MOST_LEVELS {
            return Some(at);
        }
    }
    None
}

/// What is shared without this key.
///
/// # Errors
/// [`EditError::NoKey`].
pub fn delete_shared(shared: &[SharedValue], key: &str) -> Result<Vec<SharedValue>, EditError> {
    let rest: Vec<SharedValue> = shared.iter().filter(|it| it.key != key).cloned().collect();
    if rest.len() == shared.len() {
        return Err(EditError::NoKey(key.to_owned()));
    }
    Ok(rest)
}

/// Whether a key is one of those that `pattern` means, in which `*` stands for anything. No pattern means all.
#[must_use]
pub fn matches(pattern: &str, key: &str) -> bool {
    if pattern.is_empty() {
        return true;
    }
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = key.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        let Some((_, behind)) = rest.split_once(piece) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

/// `task.FIELD` and `shared.KEY` that differ, in this order.
#[must_use]
pub fn differing(
    one: (&SessionTask, &[SharedValue]),
    other: (&SessionTask, &[SharedValue]),
) -> Vec<String> {
    let (task, shared) = one;
    let (other_task, other_shared) = other;
    let mut keys = Vec::new();
    let mut differs = |name: &str, differs: bool| {
        if differs {
            keys.push(format!("task.{name}"));
        }
    };
    differs("goal", task.goal != other_task.goal);
    differs("progress", task.progress != other_task.progress);
    for list in TaskList::ALL {
        differs(list.as_str(), task.list(list) != other_task.list(list));
    }
    differs("pending_subagents", task.pending_subagents != other_task.pending_subagents);
    let find = |shared: &[SharedValue], key: &str| {
        shared.iter().find(|it| it.key == key).map(|it| (it.value.clone(), it.tags.clone()))
    };
    let names = shared.iter().chain(other_shared).map(|value| value.key.as_str());
    let names: std::collections::BTreeSet<&str> = names.collect();
    let changed = names.into_iter().filter(|key| find(shared, key) != find(other_shared, key));
    keys.extend(changed.map(|key| format!("shared.{key}")));
    keys
}

#[cfg(test)]
mod tests {
    use broker_proto::WallTime;

    use super::*;

    const STEPS: TaskList = TaskList::NextSteps;

    fn add(text: &str, entry: Option<u64>) -> TaskEdit {
        TaskEdit::Add { list: STEPS, text: text.into(), entry }
    }

    fn ids(task: &SessionTask) -> Vec<u32> {
        task.next_steps.iter().map(|item| item.id).collect()
    }

    fn value(key: &str, value: &str) -> SharedValue {
        SharedValue {
            key: key.into(),
            value: value.into(),
            source: String::new(),
            tags: Vec::new(),
            set_at: WallTime(1),
        }
    }

    #[test]
    fn an_id_is_never_given_again() {
        let task = edit(&SessionTask::default(), &[add("a", None), add("b", None)]).unwrap();
        assert_eq!(ids(&task), [1, 2]);
        let remove = TaskEdit::Remove { list: STEPS, id: 2 };
        let task = edit(&task, &[remove, add("c", None)]).unwrap();
        assert_eq!(ids(&task), [1, 3]);
        assert_eq!(ids(&edit(&task, &[add("c", None)]).unwrap()), [1, 3]);
    }

    #[test]
    fn edits_are_all_made_or_none() {
        let task = edit(&SessionTask::default(), &[add("a", None)]).unwrap();
        let missing = TaskEdit::Done { list: STEPS, id: 9, is_done: true };
        let refused = edit(&task, &[TaskEdit::SetGoal("g".into()), missing]);
        assert_eq!(refused, Err(EditError::NoItem { list: STEPS, id: 9 }));
        let done = TaskEdit::Done { list: STEPS, id: 1, is_done: true };
        assert!(edit(&task, &[done]).unwrap().next_steps[0].is_done);
    }

    #[test]
    fn only_what_is_new_and_open_is_taken_over() {
        let item =
            |text: &str, is_done| SessionItem { id: 1, text: text.into(), is_done, entry: Some(7) };
        let known = SessionTask {
            goal: "Move".into(),
            decisions: vec![item("Stay on 13", false)],
            ..SessionTask::default()
        };
        let from = SessionTask {
            decisions: vec![item("Stay on 13", false), item("Use the proxy", false)],
            next_steps: vec![item("Done before", true)],
            ..known.clone()
        };
        let list = TaskList::Decisions;
        let added = TaskEdit::Add { list, text: "Use the proxy".into(), entry: None };
        assert_eq!(taken_over(&known, from), [added]);
        assert_eq!(taken_over(&known, SessionTask::default()), []);
    }

    #[test]
    fn what_later_entries_stated_was_not_there_before() {
        let edits = [add("by hand", None), add("early", Some(2)), add("late", Some(5))];
        let task = edit(&SessionTask::default(), &edits).unwrap();
        let texts: Vec<String> =
            until(task, 5).next_steps.into_iter().map(|item| item.text).collect();
        assert_eq!(texts, ["by hand", "early"]);
    }

    #[test]
    fn shared_values_are_json_and_one_for_each_key() {
        let shared = set_shared(&[], value("b", "1")).unwrap();
        let shared = set_shared(&shared, value("a", "{\"x\": [2]}")).unwrap();
        let shared = set_shared(&shared, value("b", "3")).unwrap();
        let pairs: Vec<_> = shared.iter().map(|it| (it.key.as_str(), it.value.as_str())).collect();
        assert_eq!(pairs, [("a", "{\"x\": [2]}"), ("b", "3")]);
        let deep = "[".repeat(100_000);
        for bad in ["", "{", "nope", &deep] {
            let refused = set_shared(&shared, value("k", bad));
            assert!(matches!(refused, Err(EditError::NotJson { .. })));
        }
        assert_eq!(delete_shared(&shared, "c"), Err(EditError::NoKey("c".into())));
        assert_eq!(delete_shared(&shared, "a").unwrap().len(), 1);
    }

    #[test]
    fn a_value_nests_no_deeper_than_it_can_be_given_out() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(set_shared(&[], value("k", &nested(MOST_LEVELS))).is_ok());
        let refused = set_shared(&[], value("k", &nested(MOST_LEVELS + 1))).unwrap_err();
        let (key, problem) = ("k".into(), "it nests too deep");
        assert_eq!(refused, EditError::NotJson { key, problem, column: MOST_LEVELS + 1 });
        // Brackets in texts are none, whatever is escaped in them; and what was closed is closed.
        let text = format!(r#"["{}\\","\"{}"]"#, "[".repeat(200), "{".repeat(200));
        assert_eq!(too_deep(&text), None, "{text}");
        assert_eq!(too_deep(&format!("[{}1]", "[],{},".repeat(200))), None);
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, key, want) in [
            ("", "anything", true),
            ("a*", "abc", true),
            ("a*", "ba", false),
            ("*c", "abc", true),
            ("a*c", "ac", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "acb", false),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, key), want, "{pattern} {key}");
        }
    }

    #[test]
    fn what_differs_is_named() {
        let task = edit(&SessionTask::default(), &[add("a", None)]).unwrap();
        let shared = [value("k", "1"), value("same", "1")];
        let other = [value("k", "2"), value("same", "1")];
        let keys = differing((&task, &shared), (&SessionTask::default(), &other));
        assert_eq!(keys, ["task.next_steps", "shared.k"]);
    }
}
