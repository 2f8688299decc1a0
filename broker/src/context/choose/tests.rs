use std::fmt::Write as _;

use broker_proto::WallTime;
use proptest::prelude::*;

use super::{super::Tokenizer, Choice, Index, Turn};

/// Four bytes a token, so that sizes are easy to follow.
const COUNT: Tokenizer = Tokenizer::Estimated { bytes_per_token: 4.0 };

fn choose(index: &Index, query: &str, budget: u64) -> Choice {
    super::choose(index, query, budget, COUNT)
}

fn said(name: &str, text: &str) -> Turn {
    Turn { role: "user".into(), name: Some(name.into()), text: text.into(), ..Turn::default() }
}

fn index(turns: impl IntoIterator<Item = Turn>) -> Index {
    let mut index = Index::new();
    turns.into_iter().for_each(|turn| index.push(turn));
    index
}

/// Small talk with one fact in it, far from the end.
fn long_talk() -> Index {
    let mut turns: Vec<Turn> = (0..300)
        .map(|n| said(["Ann", "Bo"][n % 2], &format!("Small talk number {n}, nothing more.")))
        .collect();
    turns[40] = said("Ann", "The staging database listens on port 6543 behind the proxy.");
    index(turns)
}

fn everything(choice: &Choice) -> Vec<usize> {
    let mut all = [&choice.kept[..], &choice.partly, &choice.dropped].concat();
    all.sort_unstable();
    all
}

#[test]
fn what_the_next_step_needs_is_kept_however_old_it_is() {
    let choice = choose(&long_talk(), "Which port does the staging database listen on?", 500);
    assert!(choice.text.contains("port 6543"), "{}", choice.text);
    assert!(choice.kept.contains(&40) && choice.kept.contains(&299));
    assert!(choice.tokens <= 500);
    assert_eq!(everything(&choice), (0..300).collect::<Vec<_>>());
}

#[test]
fn without_a_query_that_finds_anything_the_newest_are_kept() {
    for query in ["", "zebra", "zebra quagga"] {
        let choice = choose(&long_talk(), query, 100);
        assert_eq!(choice.score, None);
        // A turn that does not fit is passed over; a shorter one before it may.
        assert!(choice.kept.ends_with(&[295, 296, 297, 298, 299]), "{:?}", choice.kept);
        assert!(choice.kept[0] > 285, "{:?}", choice.kept);
    }
}

#[test]
fn the_text_says_who_spoke_in_order_and_marks_what_is_left_out() {
    let talk = index([
        said("Ann", "The port is 6543."),
        said("Bo", "Lunch?"),
        said("Ann", "No, the weather is bad."),
        said("Bo", "Then the harbour is closed, is the port too?"),
    ]);
    let choice = choose(&talk, "", 1000);
    assert_eq!(
        choice.text,
        "Ann: The port is 6543.\nBo: Lunch?\nAnn: No, the weather is bad.\n\
         Bo: Then the harbour is closed, is the port too?\n"
    );
    assert!(choice.dropped.is_empty());
    let newest = choose(&talk, "", 20);
    // What does not fit is passed over, not cut.
    assert_eq!(newest.text, "…\nBo: Lunch?\n…\nBo: Then the harbour is closed, is the port too?\n");
}

#[test]
fn a_sitting_has_its_day_over_it_once() {
    let day = 24 * 60 * 60 * 1000;
    let at = |ms: u64, text: &str| Turn { at: Some(WallTime(ms)), ..said("Ann", text) };
    let talk = index([at(0, "one"), at(1000, "two"), at(day, "three")]);
    let text = choose(&talk, "", 100).text;
    assert_eq!(text, "[1970-01-01]\nAnn: one\nAnn: two\n[1970-01-02]\nAnn: three\n");
}

#[test]
fn stamps_and_names_in_the_texts_are_read_where_most_have_them() {
    let turn = |text: &str| Turn { role: "user".into(), text: text.into(), ..Turn::default() };
    let talk = index([
        turn("[8 May, 13:56] Caroline: I went to a support group."),
        turn("[8 May, 13:56] Melanie: How was it?"),
        turn("[25 May, 10:00] Caroline: I signed up for a race."),
        turn("[25 May, 10:00] Melanie: Which one?"),
    ]);
    let text = choose(&talk, "", 100).text;
    assert_eq!(
        text,
        "[8 May, 13:56]\nCaroline: I went to a support group.\nMelanie: How was it?\n\
         [25 May, 10:00]\nCaroline: I signed up for a race.\nMelanie: Which one?\n"
    );
}

#[test]
fn whom_the_query_names_is_heard_first() {
    let turns =
        (0..60).map(|n| said(["Ann", "Bo"][n % 2], &format!("My favourite meal is dish{n}.")));
    let talk = index(turns);
    let choice = choose(&talk, "What is Bo's favourite meal?", 200);
    let of_bo = choice.kept.iter().filter(|place| **place % 2 == 1).count();
    assert!(of_bo * 3 > choice.kept.len() * 2, "{:?}", choice.kept);
}

#[test]
fn neighbours_of_what_answers_come_before_strangers() {
    let mut turns: Vec<Turn> =
        (0..100).map(|n| said(["Ann", "Bo"][n % 2], &format!("Talk number {n}."))).collect();
    turns[20] = said("Ann", "Where did you hide the garden key?");
    turns[21] = said("Bo", "Under the blue pot, as always.");
    let choice = choose(&index(turns), "Where is the garden key hidden?", 60);
    assert!(choice.text.contains("blue pot"), "{}", choice.text);
}

#[test]
fn of_a_long_entry_blocks_are_kept_and_the_rest_is_counted() {
    let mut log = String::new();
    for n in 0..300 {
        let _ = writeln!(log, "{n}: routine check of part p{n} passed");
    }
    log = log.replace("part p150 passed", "part p150 FAILED with ENOSPC on /var/lib/store");
    let talk = index([
        said("Ann", "Run the checks."),
        Turn { role: "tool".into(), text: log.clone(), ..Turn::default() },
        said("Bo", "Done."),
    ]);
    let choice = choose(&talk, "Why did the check fail with ENOSPC in /var/lib/store?", 400);
    assert!(choice.text.contains("FAILED with ENOSPC"), "{}", choice.text);
    assert_eq!(choice.partly, [1]);
    let left_out: usize = choice
        .text
        .lines()
        .filter_map(|line| line.strip_suffix(" lines left out")?.split(' ').next_back())
        .filter_map(|count| count.parse::<usize>().ok())
        .sum();
    let shown = choice.text.lines().filter(|line| line.contains(": routine check")).count();
    assert_eq!(left_out + shown, 300, "{}", choice.text);
}

#[test]
fn a_block_that_was_shown_before_is_not_shown_again() {
    let file: String = (0..100).map(|n| format!("{n}: fn part_{n}() {{ body_{n} }}\n")).collect();
    let again: String =
        (0..100).map(|n| format!("{}: fn part_{n}() {{ body_{n} }}\n", n + 7)).collect();
    let view = |text: String| Turn { role: "tool".into(), text, ..Turn::default() };
    let talk = index([view(file), said("Ann", "Open part_50 again."), view(again)]);
    let choice = choose(&talk, "What does part_50 do with body_50?", 1200);
    assert_eq!(choice.text.matches("fn part_50()").count(), 1, "{}", choice.text);
}

#[test]
fn nothing_at_all_is_a_choice_too() {
    let none = choose(&index([]), "anything", 1000);
    assert_eq!((none.text.as_str(), none.tokens), ("", 0));
    let small = choose(&long_talk(), "staging database port", 1);
    assert_eq!((small.text.as_str(), small.dropped.len()), ("", 300));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_choice_is_larger_than_its_budget_or_forgets_an_entry(
        texts in prop::collection::vec("([a-d]{1,6}[ \n]){0,300}", 0..8),
        query in "([a-d]{1,6} ){0,6}",
        budget in 0_u64..600,
    ) {
        let talk = index(texts.iter().map(|text| said("Ann", text)));
        let choice = choose(&talk, &query, budget);
        prop_assert!(choice.tokens <= budget);
        prop_assert_eq!(COUNT.count(&choice.text), choice.tokens);
        prop_assert_eq!(everything(&choice), (0..texts.len()).collect::<Vec<_>>());
        for place in &choice.kept {
            for line in texts[*place].lines() {
                prop_assert!(choice.text.contains(line), "{:?} of {}", line, place);
            }
        }
        prop_assert_eq!(choose(&talk, &query, budget), choice);
    }
}
