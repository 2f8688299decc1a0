use broker_proto::{SessionItem, SessionTask, TaskEdit};

use super::*;

fn said(role: Role, text: &str) -> Entry {
    Entry { role, name: String::new(), parts: vec![Part::text(text)] }
}

fn words(field: Field) -> &'static str {
    match field {
        Field::Goal => "goal",
        Field::List(list) => list.as_str(),
        Field::Done => "done",
    }
}

#[track_caller]
fn check(role: Role, text: &str, want: &[(&str, &str)]) {
    let got = stated(&said(role, text));
    let got: Vec<_> = got.iter().map(|it| (words(it.field), it.text.as_str())).collect();
    assert_eq!(got, want, "{text}");
}

#[track_caller]
fn nothing(role: Role, text: &str) {
    check(role, text, &[]);
}

#[test]
fn titles_with_their_text_are_taken_from_people_and_models() {
    for role in [Role::User, Role::Assistant] {
        check(role, "Goal: Move the invoice service", &[("goal", "Move the invoice service")]);
        check(role, "**Goal:** Move it", &[("goal", "Move it")]);
        check(
            role,
            "Constraint: no downtime on weekdays",
            &[("constraints", "no downtime on weekdays")],
        );
        check(
            role,
            "- Decision: PostgreSQL stays on 13",
            &[("decisions", "PostgreSQL stays on 13")],
        );
        check(role, "TODO: tell the partner", &[("open_items", "tell the partner")]);
        check(role, "Open question: who pays?", &[("open_items", "who pays?")]);
    }
    check(Role::User, "Remember: port 6543", &[("critical_facts", "port 6543")]);
    nothing(Role::Assistant, "Important: take care");
}

#[test]
fn a_list_below_its_title_is_taken_item_by_item() {
    let text = "Here is the plan.\n\n## Next steps\n\n1. Copy the table\n   in chunks\n2. [x] Ask Nora\n- Switch the cron\n\nThat is all.";
    check(
        Role::Assistant,
        text,
        &[
            ("next_steps", "Copy the table"),
            ("next_steps", "Ask Nora"),
            ("next_steps", "Switch the cron"),
        ],
    );
    let steps = stated(&said(Role::Assistant, text));
    assert_eq!(steps.iter().map(|it| it.is_done).collect::<Vec<_>>(), [false, true, false]);
    check(Role::User, "Goal:\nMove the service\n", &[("goal", "Move the service")]);
    nothing(Role::Assistant, "Next steps:\nI will look at it.");
    nothing(Role::Assistant, "Open items:\n- none");
}

#[test]
fn sentences_that_decide_are_decisions() {
    check(
        Role::User,
        "I looked at it. OK, we decided to keep PostgreSQL 13. See you!",
        &[("decisions", "OK, we decided to keep PostgreSQL 13.")],
    );
    check(Role::Assistant, "We agreed on 15 MB/s.", &[("decisions", "We agreed on 15 MB/s.")]);
    check(Role::User, "Let's go with Frankfurt.", &[("decisions", "Let's go with Frankfurt.")]);
    nothing(Role::Assistant, "Let's go with Frankfurt.");
    for text in [
        "Have we decided to move?",
        "We decided to move, or not?",
        "If we decided to move, it would take a week.",
        "We have not decided yet.",
        "We decided nothing.",
        "What we decided to do is unclear.",
        "I wonder what she decided on.",
    ] {
        nothing(Role::User, text);
    }
}

#[test]
fn rules_of_people_are_critical_facts_and_chatter_is_not() {
    for text in [
        "Never deploy on a Friday.",
        "The bucket must stay in Frankfurt.",
        "You must not restart the primary.",
    ] {
        check(Role::User, text, &[("critical_facts", text)]);
        nothing(Role::Assistant, text);
    }
    for text in [
        "Never mind.",
        "Never.",
        "Never heard of it.",
        "I never liked it.",
        "It must have been the cache.",
        "You must be tired.",
        "Must it stay in Frankfurt?",
        "Maybe it must stay there.",
    ] {
        nothing(Role::User, text);
    }
}

#[test]
fn goals_and_preferences_and_steps_are_told_in_sentences_too() {
    check(Role::User, "Our goal is to ship in May.", &[("goal", "Our goal is to ship in May.")]);
    nothing(Role::Assistant, "The goal is to ship in May.");
    check(Role::User, "I prefer tabs.", &[("preferences", "I prefer tabs.")]);
    check(
        Role::Assistant,
        "The next step is to copy the table.",
        &[("next_steps", "The next step is to copy the table.")],
    );
}

#[test]
fn tools_system_code_quotes_and_pasted_texts_state_nothing() {
    nothing(Role::Tool, "Goal: leave");
    nothing(Role::System, "Goal: leave");
    nothing(Role::User, "```\nGoal: leave\n```");
    nothing(Role::User, "> Goal: leave");
    nothing(Role::User, "    goal: leave");
    nothing(Role::User, "todo::Item is a type, goal://x an address");
    nothing(Role::User, &format!("Goal: leave\n{}", "filler ".repeat(3000)));
    let result = Part::ToolResult {
        call_id: "c".into(),
        parts: vec![Part::text("Decision: leave")],
        is_error: false,
    };
    assert_eq!(stated(&Entry { role: Role::User, name: String::new(), parts: vec![result] }), []);
}

#[test]
fn files_are_paths_and_nothing_else() {
    check(
        Role::Assistant,
        "Files changed:\n- src/fields.py\n- the tests, too\n- `README.md`",
        &[("files", "src/fields.py"), ("files", "`README.md`")],
    );
}

fn item(id: u32, text: &str, entry: Option<u64>) -> SessionItem {
    SessionItem { id, text: text.into(), is_done: false, entry }
}

#[track_caller]
fn check_edits(task: &SessionTask, role: Role, text: &str, want: &[TaskEdit]) {
    let got = edits(task, 7, &stated(&said(role, text)));
    assert!(got == want, "{text}: {got:?} {}", got.len());
}

fn add(list: TaskList, text: &str) -> TaskEdit {
    TaskEdit::Add { list, text: text.into(), entry: Some(7) }
}

#[test]
fn what_is_known_is_not_added_again() {
    let task = SessionTask {
        goal: "Move it".into(),
        decisions: vec![item(1, "PostgreSQL stays on 13", Some(2))],
        ..SessionTask::default()
    };
    check_edits(&task, Role::User, "Goal: move it!", &[]);
    check_edits(&task, Role::User, "Decision: PostgreSQL stays on 13.", &[]);
    let twice = "Decision: ship in May\nDecision: Ship in May.";
    check_edits(&task, Role::User, twice, &[add(TaskList::Decisions, "ship in May")]);
}

#[test]
fn newer_words_take_the_place_of_older_ones_but_never_of_what_a_person_put_there() {
    let list = TaskList::Decisions;
    let old = "The copier may run at night between ten and four o'clock";
    let new = "The copier may run at night between ten and four";
    let mut task = SessionTask { decisions: vec![item(1, old, Some(2))], ..SessionTask::default() };
    let text = format!("Decision: {new}");
    check_edits(&task, Role::User, &text, &[TaskEdit::Remove { list, id: 1 }, add(list, new)]);
    task.decisions[0].entry = None;
    check_edits(&task, Role::User, &text, &[]);
    let other = "Decision: The copier may not run at night between ten and four o'clock";
    let stays = other.trim_start_matches("Decision: ");
    check_edits(&task, Role::User, other, &[add(list, stays)]);
}

#[test]
fn a_persons_goal_replaces_and_a_models_does_not() {
    let task = SessionTask { goal: "Move it".into(), ..SessionTask::default() };
    check_edits(&task, Role::Assistant, "Goal: Rewrite it", &[]);
    check_edits(&task, Role::User, "Goal: Stop it", &[TaskEdit::SetGoal("Stop it".into())]);
    let empty = SessionTask::default();
    let set = [TaskEdit::SetGoal("Rewrite it".into())];
    check_edits(&empty, Role::Assistant, "Goal: Rewrite it", &set);
}

#[test]
fn new_next_steps_take_the_place_of_listed_ones_and_ticks_are_kept() {
    let list = TaskList::NextSteps;
    let task = SessionTask {
        next_steps: vec![
            item(1, "Copy the table", Some(2)),
            item(2, "Ask Nora", Some(2)),
            item(3, "By hand", None),
        ],
        ..SessionTask::default()
    };
    let text = "Next steps:\n- [x] Copy the table\n- Switch the cron";
    let want = [
        TaskEdit::Remove { list, id: 2 },
        TaskEdit::Done { list, id: 1, is_done: true },
        add(list, "Switch the cron"),
    ];
    check_edits(&task, Role::Assistant, text, &want);
    let text = "The next step is to wait.";
    let want =
        [TaskEdit::Remove { list, id: 1 }, TaskEdit::Remove { list, id: 2 }, add(list, text)];
    check_edits(&task, Role::Assistant, text, &want);
    let done = [TaskEdit::Done { list, id: 3, is_done: true }];
    check_edits(&task, Role::Assistant, "Done: by hand", &done);
}

#[test]
fn of_too_many_statements_the_first_are_taken_and_the_others_counted() {
    let many: String = (0..30).map(|n| format!("- Step {n} of the move\n")).collect();
    let got = found(&said(Role::User, &format!("Next steps:\n{many}")));
    assert_eq!((got.stated.len(), got.left_out), (24, 6));
    assert_eq!(got.stated[23].text, "Step 23 of the move");
}

#[test]
fn a_long_statement_is_cut_at_a_sentence_by_its_characters() {
    let of = |text: &str| {
        let got = found(&said(Role::User, &format!("Decision: {text}")));
        (got.stated.into_iter().map(|it| it.text).collect::<Vec<_>>(), got.left_out)
    };
    let umlauts = "ü".repeat(400);
    assert_eq!(of(&umlauts), (vec![umlauts.clone()], 0), "800 bytes");
    let long = format!("PostgreSQL stays on 13. {umlauts}");
    assert_eq!(of(&long), (vec!["PostgreSQL stays on 13.".to_owned()], 0));
    assert_eq!(of(&format!("{umlauts}ü")), (vec![], 1));
}
