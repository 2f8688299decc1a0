use broker_proto::{Echo, Verdict};

use super::*;

fn items() -> Vec<String> {
    [
        "Goal: Move the invoice service to the new cluster",
        "Constraints: The database must not be restarted on weekdays",
        "Decisions: The copier may run at 15 MB/s between 22:00 and 04:00",
        "Critical facts: The port is 7411",
        "Next steps: Copy the table invoice_pdf",
    ]
    .map(str::to_owned)
    .into()
}

#[track_caller]
fn finds(reply: &str, asked: &[&str], contradicted: &[&str]) {
    let found = echoes(&items(), Some(reply));
    let titles = |all: &[Echo]| -> Vec<String> {
        all.iter().map(|echo| echo.item.split(':').next().unwrap().to_owned()).collect()
    };
    assert_eq!(titles(&found.asked_again), asked, "asked again: {reply}");
    assert_eq!(titles(&found.contradicted), contradicted, "contradicted: {reply}");
}

#[track_caller]
fn judges(fact: &str, reply: &str, want: Verdict) {
    let found = echoes(&[format!("Critical facts: {fact}")], Some(reply));
    assert_eq!(found.judged[0].verdict, want, "{fact} / {reply}");
}

#[test]
fn what_is_asked_again_is_found_with_its_sentence() {
    finds("Thanks. Which port should I use?", &["Critical facts"], &[]);
    finds("Please tell me the port.", &["Critical facts"], &[]);
    finds("When may the database be restarted?", &["Constraints"], &[]);
    finds("Which table shall I copy?", &["Next steps"], &[]);
    let found = echoes(&items(), Some("I am ready. What port is it? Then I begin."));
    assert_eq!(found.asked_again[0].sentence, "What port is it?");
}

#[test]
fn what_is_contradicted_is_found() {
    finds("The port is 8080.", &[], &["Critical facts"]);
    finds("The database can be restarted on weekdays.", &[], &["Constraints"]);
    finds("The copier may not run at 15 MB/s between 22:00 and 04:00.", &[], &["Decisions"]);
    finds("The copier may run at 40 MB/s between 22:00 and 04:00.", &[], &["Decisions"]);
}

#[test]
fn who_knows_it_or_speaks_of_something_else_is_left_alone() {
    finds("The port is 7411, and I keep it.", &[], &[]);
    finds("Shall I open port 7411 now?", &[], &[]);
    finds("Which port 7411 client shall I test first?", &[], &[]);
    finds("On weekdays I do not restart the database.", &[], &[]);
    finds("I have not moved the invoice service to the new cluster yet.", &[], &[]);
    finds("Which colour do you like? The sky is blue. It has 3 clouds.", &[], &[]);
    finds("Shall I copy the table invoice_pdf now?", &[], &[]);
    finds("The port is open since 3 days.", &[], &[]);
    finds(
        "The old load balancer in front of the other cluster has its admin port at 9000.",
        &[],
        &[],
    );
    finds("", &[], &[]);
}

#[test]
fn a_value_is_known_in_every_language() {
    let port = "The port is 7411";
    judges(port, "Der Port ist 8080.", Verdict::Contradicted);
    judges(port, "Le port est 8080 maintenant.", Verdict::Contradicted);
    judges(port, "Порт: port 8080.", Verdict::Contradicted);
    judges(port, "Welchen Port soll ich nehmen?", Verdict::AskedAgain);
    judges(port, "¿Qué port uso?", Verdict::AskedAgain);
    judges(port, "port は何番ですか？", Verdict::AskedAgain);
    let german = "Der Anschluss der Datenbank ist 5433";
    judges(german, "Der Anschluss der Datenbank ist 5432.", Verdict::Contradicted);
    judges(german, "Welchen Anschluss hat die Datenbank?", Verdict::AskedAgain);
    judges(german, "Der Anschluss der Datenbank ist 5433.", Verdict::Restated);
    judges("The branch is release/2.4", "Branch: release/2.5", Verdict::Contradicted);
    judges("The table is `orders`", "La table est `invoices`.", Verdict::Contradicted);
    judges("It holds 1,000 rows", "It holds 1000 rows.", Verdict::Restated);
}

#[test]
fn what_cannot_be_told_is_unknown_and_never_known() {
    let port = "The port is 7411";
    judges(port, "I go on.", Verdict::Unknown);
    judges(port, "Je continue avec la base de données.", Verdict::Unknown);
    // Whether the words between turn it round, no list of English words says.
    judges(port, "Der Port ist nicht 7411.", Verdict::Unknown);
    judges(port, "Port nicht 7411.", Verdict::Unknown);
    let restart = "The database must not be restarted on weekdays";
    judges(restart, "Database werktags nicht restarten.", Verdict::Unknown);
    judges(restart, "Die Datenbank bleibt.", Verdict::Unknown);
    judges("7411", "8080", Verdict::Unknown);
    let none = echoes(&items(), None);
    assert!(none.judged.iter().all(|it| it.verdict == Verdict::Unknown && it.sentence.is_empty()));
    assert_eq!(none.judged.len(), items().len());
}

#[test]
fn what_is_restated_is_told_with_its_sentence() {
    let found = echoes(&items(), Some("I know that the port is 7411. Then I begin."));
    let port = &found.judged[3];
    assert_eq!(port.verdict, Verdict::Restated);
    assert_eq!(port.sentence, "I know that the port is 7411.");
    assert_eq!(found.judged[1].verdict, Verdict::Unknown);
}

#[test]
fn code_and_quotations_are_not_its_words() {
    finds("```\nThe port is 8080.\n```\n> Which port?\nDone.", &[], &[]);
    finds("~~~\nThe port is 8080.\n~~~", &[], &[]);
}

#[test]
fn a_hostile_reply_is_bounded_and_shown_without_what_a_terminal_obeys() {
    let noise = "Aa? ".repeat(400_000);
    let found = echoes(&items(), Some(&noise));
    assert!(found.is_partial);
    let late = format!("{}The port is 8080.", "No. ".repeat(3 * SENTENCES));
    let found = echoes(&items(), Some(&late));
    assert!(found.is_partial && found.contradicted.is_empty(), "what was not read is not judged");
    let one = format!("The port \u{1b}[2J is \u{202e}8080 {}", "and so on ".repeat(10_000));
    let found = echoes(&items(), Some(&one));
    let port = &found.judged[3];
    assert_eq!((port.verdict, port.sentence.chars().count()), (Verdict::Contradicted, SHOWN + 1));
    assert!(port.sentence.starts_with("The port  [2J is 8080 and so on"), "{}", port.sentence);
    let whole = "é".repeat(READ);
    assert!(echoes(&items(), Some(&whole)).is_partial);
}

#[test]
fn a_point_within_a_word_ends_no_sentence() {
    let want = ["Open src/a.rs now.", "Then v1.2?", "Yes"];
    assert_eq!(
        sentences("Open src/a.rs now. Then v1.2? Yes"),
        (want.map(str::to_owned).into(), false)
    );
    assert_eq!(sentences("何番ですか？はい。").0, ["何番ですか？", "はい。"]);
}
