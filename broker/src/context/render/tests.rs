use broker_config::{Model, Provider};
use broker_proto::{ModelName, PendingSubagent, SessionItem, Unverified, WallTime};
use proptest::prelude::*;

use super::{super::choose::Turn, *};

fn reader(provider: Provider, id: &str) -> Receiver {
    Receiver::of(&Model::new("m", provider, id))
}

/// Four bytes a token, and room for everything.
fn plain_reader() -> Receiver {
    Receiver { tokenizer: Tokenizer::estimated(4.0), ..reader(Provider::Anthropic, "claude") }
}

fn list(texts: &[&str]) -> Vec<SessionItem> {
    let item = |(id, text): (usize, &&str)| SessionItem {
        id: id as u32,
        text: (*text).to_owned(),
        ..SessionItem::default()
    };
    texts.iter().enumerate().map(item).collect()
}

fn task() -> SessionTask {
    SessionTask {
        goal: "Move the invoice service".into(),
        constraints: list(&["No downtime on weekdays"]),
        decisions: list(&["PostgreSQL stays on 13"]),
        next_steps: list(&["Copy the table invoice_pdf", "Switch the cron"]),
        open_items: list(&["Who tells the partner?"]),
        critical_facts: list(&["The bucket must be in Frankfurt"]),
        pending_subagents: vec![PendingSubagent {
            id: "sa-1".into(),
            kind: "review".into(),
            model: "sonnet".into(),
            status: "running".into(),
            description: "reads the cron".into(),
        }],
        ..SessionTask::default()
    }
}

fn talk() -> Index {
    let mut index = Index::new();
    for n in 0..200 {
        let text = match n {
            30 => "The table invoice_pdf is 61 GB, copy it in chunks of 5,000 rows.".to_owned(),
            n => format!("Small talk number {n}, nothing more."),
        };
        let role = ["user", "assistant"][n % 2].to_owned();
        index.push(Turn { role, text, at: Some(WallTime(0)), ..Turn::default() });
    }
    index
}

fn ask(receiver: &Receiver) -> Ask<'_> {
    Ask {
        receiver,
        level: Preservation::Minimal,
        budget: None,
        next: None,
        missing: Missing::Refused,
    }
}

#[test]
fn what_must_be_kept_comes_first_and_the_turns_that_the_next_step_needs_follow() {
    let (task, turns, receiver) = (task(), talk(), plain_reader());
    let view = View { task: &task, shared: &[], turns: &turns };

    let got = render(&view, &ask(&receiver)).unwrap();

    let head = "Goal: Move the invoice service\n\
                Constraints:\n- No downtime on weekdays\n\
                Decisions:\n- PostgreSQL stays on 13\n\
                Critical facts:\n- The bucket must be in Frankfurt\n\
                Open items:\n- Who tells the partner?\n\
                Next steps:\n- Copy the table invoice_pdf\n- Switch the cron\n\
                Pending subagents:\n- sa-1 (review, sonnet, running): reads the cron\n\
                \nConversation:\n";
    assert!(got.text.starts_with(head), "{}", got.text);
    assert!(got.kept.contains(&30) && got.kept.contains(&199), "{:?}", got.kept);
    assert!(got.text.contains("\n…\n"), "{}", got.text);
    assert!(got.tokens <= 500 && got.tokens > 480, "{}", got.tokens);
    assert_eq!(got.tokenizer, "estimated at 4.0 bytes per token");
    assert!(got.score > 0.0 && got.score < 1.0, "{}", got.score);
    assert_eq!(got.kept.len() + got.dropped.len(), 200);
}

#[test]
fn levels_are_their_budgets_and_complete_is_all_that_the_window_holds() {
    let (turns, receiver) = (talk(), plain_reader());
    let view = View { task: &SessionTask::default(), shared: &[], turns: &turns };
    let at = |level| render(&view, &Ask { level, ..ask(&receiver) }).unwrap();
    let tokens = Preservation::ALL.map(|level| at(level).tokens);
    assert!(tokens[0] <= 500 && tokens[1] <= 1_200 && tokens[2] <= 2_000, "{tokens:?}");
    assert!(tokens.is_sorted(), "{tokens:?}");
    let all = at(Preservation::Complete);
    assert_eq!((all.kept.len(), all.score), (200, 1.0));
    assert!(!all.text.contains('…'));

    let small = Receiver { room: 300, ..receiver };
    let got = render(&view, &Ask { level: Preservation::Complete, ..ask(&small) }).unwrap();
    assert!(got.tokens <= 300 && got.tokens > 285, "{}", got.tokens);
}

#[test]
fn a_level_that_cannot_hold_what_must_be_kept_is_refused_and_says_what_takes_how_much() {
    let mut task = task();
    task.decisions = list(&["word ".repeat(400).as_str(), "word ".repeat(200).as_str()]);
    let (turns, receiver) = (talk(), plain_reader());
    let view = View { task: &task, shared: &[], turns: &turns };

    let err = render(&view, &ask(&receiver)).unwrap_err();

    let Error::MustKeep { budget: 500, needed, .. } = err else { panic!("{err}") };
    let words = err.to_string();
    for part in ["500 tokens do not hold", "goal 8", "decisions (2) 7", "next steps (2)"] {
        assert!(words.contains(part), "{part:?} in {words}");
    }
    assert!(!words.contains("word "), "no content in {words}");
    let held = render(&view, &Ask { budget: Some(needed), ..ask(&receiver) }).unwrap();
    assert!(held.tokens <= needed && held.text.ends_with("…\n"), "{}", held.text);
}

#[test]
fn told_to_go_on_it_keeps_what_fits_and_lists_what_is_missing() {
    let mut task = task();
    task.decisions = list(&["word ".repeat(500).as_str(), "PostgreSQL stays on 13"]);
    let (turns, receiver) = (talk(), plain_reader());
    let view = View { task: &task, shared: &[], turns: &turns };
    let missing = Missing::Listed;

    let got = render(&view, &Ask { missing, ..ask(&receiver) }).unwrap();

    assert_eq!(got.must_keep_missing.len(), 1);
    assert!(got.must_keep_missing[0].starts_with("Decisions: word word"));
    assert!(got.text.contains("- PostgreSQL stays on 13\n"), "{}", got.text);
    assert!(got.tokens <= 500);
}

#[test]
fn a_budget_of_ten_tokens_is_refused() {
    let (turns, receiver) = (talk(), plain_reader());
    let view = View { task: &SessionTask::default(), shared: &[], turns: &turns };
    let err = render(&view, &Ask { budget: Some(10), ..ask(&receiver) }).unwrap_err();
    assert_eq!(err, Error::BudgetTooSmall { budget: 10 });
    assert_eq!(err.to_string(), "a budget of 10 tokens holds no rendering: give at least 32");
}

#[test]
fn what_is_done_needs_no_keeping() {
    let mut task = task();
    task.next_steps[1].is_done = true;
    task.open_items[0].is_done = true;
    let must = must_keep(&task);
    assert!(!must.iter().any(|item| item.contains("Switch the cron")), "{must:?}");
    assert!(!must.iter().any(|item| item.starts_with("Open items")), "{must:?}");
    assert_eq!(must[0], "Goal: Move the invoice service");
}

#[test]
fn the_rest_of_the_task_and_what_is_shared_take_a_fifth_and_say_what_is_left_out() {
    let files: Vec<String> = (0..100).map(|n| format!("src/part_{n}.rs")).collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let task = SessionTask { files: list(&files), progress: Some(0.4), ..task() };
    let shared = [SharedValue {
        key: "region".into(),
        value: "\"eu-central-1\"".into(),
        source: "gpt-4o".into(),
        tags: Vec::new(),
        set_at: WallTime(0),
    }];
    let (turns, receiver) = (talk(), plain_reader());
    let view = View { task: &task, shared: &shared, turns: &turns };

    let got = render(&view, &ask(&receiver)).unwrap();

    assert!(got.text.contains("\nProgress: 40 %\nFiles:\n- src/part_0.rs\n"), "{}", got.text);
    assert!(
        got.text.contains("Shared context:\n- region = \"eu-central-1\" (from gpt-4o)\n"),
        "{}",
        got.text
    );
    assert!(got.text.contains("more of the task and the shared context\n"), "{}", got.text);
    assert!(got.text.contains("61 GB") && got.tokens <= 500, "{}", got.text);
}

#[test]
fn the_receivers_own_tokenizer_counts_where_there_is_one() {
    let (task, turns) = (task(), talk());
    let view = View { task: &task, shared: &[], turns: &turns };
    let receiver = reader(Provider::OpenAi, "gpt-4o");

    let got = render(&view, &ask(&receiver)).unwrap();

    assert_eq!(got.tokenizer, "o200k_base");
    assert_eq!(got.tokens, Tokenizer::O200k.count(&got.text));
    assert!(got.tokens <= 500 && got.tokens > 480, "{}", got.tokens);
}

#[test]
fn without_a_question_the_next_steps_the_goal_and_the_last_turn_choose() {
    let mut turns = talk();
    turns.push(Turn {
        role: "user".into(),
        text: "What about small talk number 17?".into(),
        ..Turn::default()
    });
    let receiver = plain_reader();
    let empty = SessionTask::default();
    let of = |task: &SessionTask, next| {
        let view = View { task, shared: &[], turns: &turns };
        render(&view, &Ask { next, budget: Some(200), ..ask(&receiver) }).unwrap()
    };
    assert!(of(&task(), None).kept.contains(&30));
    assert!(of(&empty, None).kept.contains(&17));
    assert!(of(&empty, Some("How large is invoice_pdf, in chunks of rows?")).kept.contains(&30));
    assert!(of(&empty, Some("  ")).kept.contains(&17), "a blank question is none");
}

#[test]
fn an_empty_session_renders_to_its_task() {
    let (task, turns, receiver) = (task(), Index::new(), plain_reader());
    let got = render(&View { task: &task, shared: &[], turns: &turns }, &ask(&receiver)).unwrap();
    assert!(got.text.ends_with("reads the cron\n"), "{}", got.text);
    assert_eq!((got.score, got.dropped.len()), (1.0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_rendering_takes_more_than_it_may_or_loses_what_must_be_kept_without_a_word(
        texts in prop::collection::vec("([a-dé]{1,6}[ \n]){0,200}", 0..8),
        decisions in prop::collection::vec("([a-d]{1,6} ){1,40}", 0..6),
        files in prop::collection::vec("([a-d]{1,6}/){1,9}", 0..20),
        budget in 32_u64..600,
        is_exact in any::<bool>(),
    ) {
        let mut turns = Index::new();
        for text in &texts {
            turns.push(Turn { role: "user".into(), text: text.clone(), ..Turn::default() });
        }
        let words = |all: &[String]| list(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let task = SessionTask {
            decisions: words(&decisions),
            files: words(&files),
            ..SessionTask::default()
        };
        let mut receiver = plain_reader();
        if is_exact {
            receiver.tokenizer = Tokenizer::O200k;
        }
        let view = View { task: &task, shared: &[], turns: &turns };
        let ask = Ask { budget: Some(budget), missing: Missing::Listed, ..ask(&receiver) };
        let got = render(&view, &ask).unwrap();
        prop_assert!(got.tokens <= budget, "{} of {}", got.tokens, budget);
        prop_assert_eq!(receiver.tokenizer.count(&got.text), got.tokens);
        let mut all = [&got.kept[..], &got.partly, &got.dropped].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..texts.len() as u64).collect::<Vec<_>>());
        for item in must_keep(&task) {
            let text = item.strip_prefix("Decisions: ").unwrap();
            prop_assert!(got.text.contains(text) || got.must_keep_missing.contains(&item));
        }
        if let Ok(strict) = render(&view, &Ask { missing: Missing::Refused, ..ask }) {
            prop_assert_eq!(strict.must_keep_missing.len(), 0);
        }
    }
}

#[test]
fn each_turn_that_others_wrote_says_who_wrote_it_and_that_it_is_unverified() {
    let model = |name: &str| ModelName::parse(name).unwrap();
    let unverified =
        Unverified { home: model("opus"), from: 1, until: 6, by: vec![model("sonnet")] };
    let mut turns = Index::new();
    let said = [
        ("assistant", Some("opus")),
        ("user", None),
        ("assistant", Some("sonnet")),
        ("assistant", Some("opus")),
        ("assistant", Some("")),
        ("tool", None),
        ("assistant", Some("sonnet")),
    ];
    for (number, (role, author)) in said.into_iter().enumerate() {
        let (role, author) = (role.to_owned(), author.map(str::to_owned));
        turns.push(Turn { role, author, text: format!("words {number}"), ..Turn::default() });
    }
    let task = SessionTask::default();
    let view = View { task: &task, shared: &[], turns: &turns };
    let told = |receiver: &Receiver| render(&view, &ask(receiver)).unwrap().text;

    let home = Receiver { unverified: Some(unverified), ..plain_reader() };
    assert_eq!(
        told(&home),
        "assistant: words 0\nuser: words 1\nassistant (sonnet, unverified): words 2\n\
         assistant: words 3\nassistant (sonnet, unverified): words 4\ntool: words 5\n\
         assistant: words 6\n"
    );
    assert!(!told(&plain_reader()).contains("unverified"));
}
