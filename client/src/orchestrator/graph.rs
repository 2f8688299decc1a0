//! What waits for what: the plan as a graph.

use std::collections::{HashMap, HashSet};

use super::{
    finding::{Fault, Finding},
    state::{MOST_FINDINGS, Task, TaskStatus},
};

/// Duplicates, dependencies on nothing, and tasks that wait for each other.
pub(super) fn findings(tasks: &[Task]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut ids = HashSet::new();
    for (index, task) in tasks.iter().enumerate() {
        if !task.id.is_empty() && !ids.insert(task.id.as_str()) {
            let place = format!("$.tasks[{index}].id");
            findings.push(Finding::new(Fault::Duplicate, place, "another task has the same id"));
        }
    }
    'tasks: for (index, task) in tasks.iter().enumerate() {
        for (number, id) in task.depends_on.iter().enumerate() {
            if findings.len() >= MOST_FINDINGS {
                break 'tasks;
            }
            if !ids.contains(id.as_str()) {
                let place = format!("$.tasks[{index}].depends_on[{number}]");
                let problem = "names no task of this file";
                findings.push(Finding::new(Fault::UnknownDependency, place, problem));
            }
        }
    }
    let stuck = tasks.len() - sorted(tasks).len();
    if stuck > 0 {
        let problem = format!("{stuck} tasks wait for each other in a circle, or for ones that do");
        findings.push(Finding::new(Fault::Cycle, "$.tasks", problem));
    }
    findings
}

/// The tasks that could begin now: nothing they wait for is unfinished. The most urgent first, else as in the file.
pub(super) fn ready(tasks: &[Task]) -> Vec<&Task> {
    let over = over(tasks);
    let is_ready = |task: &&Task| {
        task.status == TaskStatus::Pending && waits_for(task, &over).next().is_none()
    };
    let mut ready: Vec<&Task> = tasks.iter().filter(is_ready).collect();
    ready.sort_by_key(|task| task.priority);
    ready
}

/// The tasks that cannot begin yet, with what each still waits for; those that others wait for most come first.
pub(super) fn waiting(tasks: &[Task]) -> Vec<(&Task, Vec<&str>)> {
    let over = over(tasks);
    let mut waited_for: HashMap<&str, usize> = HashMap::new();
    for task in tasks.iter().filter(|task| !task.status.is_over()) {
        for id in waits_for(task, &over) {
            *waited_for.entry(id).or_default() += 1;
        }
    }
    let is_waiting = |task: &&Task| match task.status {
        TaskStatus::Blocked => true,
        TaskStatus::Pending => waits_for(task, &over).next().is_some(),
        TaskStatus::Active | TaskStatus::Completed | TaskStatus::Failed | TaskStatus::Skipped => {
            false
        }
    };
    let mut waiting: Vec<_> = tasks.iter().filter(is_waiting).collect();
    waiting.sort_by_key(|task| {
        std::cmp::Reverse(waited_for.get(task.id.as_str()).copied().unwrap_or_default())
    });
    waiting.into_iter().map(|task| (task, waits_for(task, &over).collect())).collect()
}

fn over(tasks: &[Task]) -> HashSet<&str> {
    let over = tasks.iter().filter(|task| task.status.is_over());
    over.map(|task| task.id.as_str()).collect()
}

fn waits_for<'a>(task: &'a Task, over: &HashSet<&str>) -> impl Iterator<Item = &'a str> {
    task.depends_on.iter().map(String::as_str).filter(|id| !over.contains(id))
}

/// The places of the tasks, each behind what it waits for; those of a circle are not among them.
fn sorted(tasks: &[Task]) -> Vec<usize> {
    let by_id: HashMap<&str, usize> =
        tasks.iter().enumerate().map(|(index, task)| (task.id.as_str(), index)).collect();
    let mut followers = vec![Vec::new(); tasks.len()];
    let mut waits = vec![0_usize; tasks.len()];
    for (index, task) in tasks.iter().enumerate() {
        for before in task.depends_on.iter().filter_map(|id| by_id.get(id.as_str())) {
            followers[*before].push(index);
            waits[index] += 1;
        }
    }
    let mut sorted: Vec<usize> = (0..tasks.len()).filter(|index| waits[*index] == 0).collect();
    let mut next = 0;
    while let Some(&done) = sorted.get(next) {
        next += 1;
        for &follower in &followers[done] {
            waits[follower] -= 1;
            if waits[follower] == 0 {
                sorted.push(follower);
            }
        }
    }
    sorted
}
