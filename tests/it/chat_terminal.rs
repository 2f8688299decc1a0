//! `brokerctl chat` on a terminal: its lines are edited and recalled, an answer is cancelled, and the terminal is as it was
//! at the end.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use broker_client::NewSession;
use broker_proto::{AcceptHandoff, Down, ModelName, SessionId, SessionPoint};
use broker_tests::{RawLink, Terminal, TestBroker, hello};
use rustix::process::Signal;

const UP: &str = "\x1b[A";
const LEFT: &str = "\x1b[D";
const BACKSPACE: &str = "\x7f";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_U: &str = "\x15";

async fn begin(broker: &TestBroker) {
    let (id, model) = (SessionId::parse("s").unwrap(), ModelName::parse("opus").unwrap());
    let new = NewSession { id: Some(id), model: Some(model), ..NewSession::default() };
    broker.client().start_session(new).await.unwrap();
}

/// A chat in session `s`, of a user whose home is this folder.
async fn chat(broker: &TestBroker, home: &Path, more: &[&str]) -> Terminal {
    let endpoint = broker.endpoint().to_string();
    let args = [&["--endpoint", &endpoint, "chat", "--session", "s"], more].concat();
    let home = home.to_str().unwrap();
    Terminal::start("brokerctl", &args, &[("HOME", home)]).await
}

/// Every file below a folder that holds this text.
fn holding(folder: &Path, what: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(holding(&entry, what));
        } else if String::from_utf8_lossy(&fs::read(&entry).unwrap()).contains(what) {
            found.push(entry);
        }
    }
    found
}

#[tokio::test]
async fn a_line_is_edited_and_recalled_and_its_history_is_for_nobody_else() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let mut opus = broker.agent("opus-1", &["opus"]).await;
    let home = tempfile::tempdir().unwrap();
    let mut terminal = chat(&broker, home.path(), &[]).await;
    terminal.shows("session s; /help lists").await;
    terminal.shows("opus 4000k left, healthy> ").await;

    terminal.types(&format!("Wich porrt?{}{BACKSPACE}{}h\r", LEFT.repeat(2), LEFT.repeat(7)));
    let work = opus.next().await;
    assert_eq!(work.question(), "Which port?");
    work.answer("7411.").await;
    terminal.shows("7411.").await;
    terminal.shows("left, healthy> ").await;
    terminal.types(" A secret?\r");
    opus.answer("Kept.").await;
    terminal.shows("Kept.").await;
    terminal.shows("left, healthy> ").await;
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends().await, 0);

    let mut again = chat(&broker, home.path(), &[]).await;
    again.shows("healthy> ").await;
    again.types(&format!("{UP}\r"));
    let work = opus.next().await;
    assert_eq!(work.question(), "Which port?", "it is recalled in a later chat");
    work.answer("Still 7411.").await;
    again.shows("Still 7411.").await;
    again.shows("healthy> ").await;
    again.types("/quit\r");
    assert_eq!(again.ends().await, 0);
    assert!(
        again.text().contains("left; `brokerctl chat --session s` goes on"),
        "{}",
        again.text()
    );

    let kept = holding(home.path(), "Which port?");
    let [file] = &kept[..] else { panic!("one file has it: {kept:?}") };
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(file), mode(file.parent().unwrap())), (0o600, 0o700));
    let none: Vec<std::path::PathBuf> = Vec::new();
    assert_eq!(holding(home.path(), "A secret?"), none, "it began with a space");
    assert_eq!(holding(home.path(), "7411"), none, "answers are the broker's");

    let other = TestBroker::start().await;
    begin(&other).await;
    let mut opus = other.agent("opus-1", &["opus"]).await;
    let mut elsewhere = chat(&other, home.path(), &["--no-history"]).await;
    elsewhere.shows("healthy> ").await;
    elsewhere.types(&format!("{UP}Who?\r"));
    let work = opus.next().await;
    assert_eq!(work.question(), "Who?", "nothing is recalled of another house");
    work.answer("Me.").await;
    elsewhere.shows("healthy> ").await;
    elsewhere.types("/quit\r");
    assert_eq!(elsewhere.ends().await, 0);
    assert_eq!(holding(home.path(), "Who?"), none, "no history was wanted");
}

#[tokio::test]
async fn ctrl_c_cancels_an_answer_drops_a_line_and_ends_a_chat_on_an_empty_one() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let mut opus = broker.agent("opus-1", &["opus"]).await;
    let home = tempfile::tempdir().unwrap();
    let mut terminal = chat(&broker, home.path(), &[]).await;
    terminal.shows("healthy> ").await;

    terminal.types("Tell me all.\r");
    let mut work = opus.next().await;
    work.stream("It began ").await;
    terminal.shows("It began ").await;
    terminal.types(CTRL_C);
    terminal.shows("cancelling message").await;
    work.cancelled().await;
    terminal.shows("cancelled").await;
    terminal.shows("healthy> ").await;
    drop(work);

    terminal.types(&format!("not this{CTRL_C}"));
    terminal.shows("healthy> ").await;
    terminal.types("In short?\r");
    let work = opus.next().await;
    assert_eq!(work.question(), "In short?");
    work.answer("Done.").await;
    terminal.shows("Done.").await;
    terminal.shows("healthy> ").await;
    terminal.types(&format!("not this either{CTRL_U}{CTRL_C}"));
    assert_eq!(terminal.ends().await, 0);
    let head = SessionId::parse("s").unwrap();
    let info = broker.client().session(&head, &SessionPoint::Head).await.unwrap().info;
    assert_eq!(info.head.entries, 2, "what was cancelled is no turn");
}

#[tokio::test]
async fn a_chat_that_is_asked_to_end_gives_the_terminal_back() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let home = tempfile::tempdir().unwrap();
    let mut terminal = chat(&broker, home.path(), &[]).await;
    terminal.shows("healthy> ").await;
    terminal.types("half a li");
    terminal.shows("half a li").await;

    terminal.signal(Signal::TERM);

    assert_eq!(terminal.ends().await, 130);
}

/// Takes what is offered, as a person would.
async fn accept(broker: &TestBroker, link: &mut RawLink) {
    let offer = loop {
        if let Down::Offer(offer) = link.hear().await.unwrap() {
            break offer;
        }
    };
    let client = broker.client();
    let manifest = client.received_package(offer.package).await.unwrap().checksum;
    let accept = AcceptHandoff { id: offer.handoff, manifest, confirmed: Vec::new() };
    client.accept_handoff(accept).await.unwrap();
}

#[tokio::test]
async fn the_prompt_follows_the_level_and_the_owner() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let mut opus = broker.agent("opus-1", &["opus"]).await;
    let mut sonnet = broker.link().await;
    sonnet.greet(hello(&broker.endpoint(), "sonnet-1", &["sonnet"]).await).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut terminal = chat(&broker, home.path(), &[]).await;
    terminal.shows("opus 4000k left, healthy> ").await;
    terminal.types("Hello?\r");
    opus.answer("Hello.").await;
    terminal.shows("Hello.").await;
    terminal.shows("healthy> ").await;

    let record = ["usage", "record", "tokens", "--model", "opus", "--session", "s"];
    let tokens = ["--input", "3300000", "--output", "0"];
    broker.run(&[&record[..], &tokens].concat()).await.exits(0);
    terminal.types("/model\r");
    terminal.shows("opus is asked, the session's owner").await;
    let shown = terminal.shows("left, warning> ").await;
    assert!(shown.contains("opus 6"), "some 700,000 are left: {shown}");

    terminal.types("/handoff sonnet\r");
    accept(&broker, &mut sonnet).await;
    terminal.shows("opus → sonnet: user_request: a person asked for it").await;
    terminal.shows("sonnet ").await;
    terminal.shows("left, healthy> ").await;
    terminal.types("/model local\r");
    terminal.shows("local is asked from now on").await;
    terminal.shows("local, for sonnet ").await;
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends().await, 0);
}

#[tokio::test]
async fn pasted_lines_are_one_question_and_a_long_one_arrives_whole() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let mut opus = broker.agent("opus-1", &["opus"]).await;
    let home = tempfile::tempdir().unwrap();
    let mut terminal = chat(&broker, home.path(), &[]).await;
    terminal.shows("healthy> ").await;

    terminal.types("\x1b[200~first\r\nsecond\rthird\x1b[201~\r");
    let work = opus.next().await;
    assert_eq!(work.question(), "first\nsecond\nthird");
    work.answer("One.").await;
    terminal.shows("One.").await;
    terminal.shows("healthy> ").await;

    // More than a line that a terminal edits itself may have.
    let long = "word ".repeat(2_000);
    terminal.types(&format!("\x1b[200~{long}\x1b[201~\r"));
    let work = opus.next().await;
    assert_eq!(work.question(), long.trim());
    work.answer("Two.").await;
    terminal.shows("Two.").await;
    terminal.shows("healthy> ").await;
    terminal.types(&format!("{UP}{UP}\r"));
    let work = opus.next().await;
    assert_eq!(work.question(), "first\nsecond\nthird", "recalled as one, too");
    work.answer("Three.").await;
    terminal.shows("Three.").await;
    terminal.shows("healthy> ").await;
    terminal.types("/quit\r");
    assert_eq!(terminal.ends().await, 0);
}

#[tokio::test]
async fn every_verb_can_be_typed() {
    let broker = TestBroker::start().await;
    begin(&broker).await;
    let mut opus = broker.agent("opus-1", &["opus"]).await;
    let mut sonnet = broker.agent("sonnet-1", &["sonnet"]).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("talk.jsonl");
    let mut terminal = chat(&broker, home.path(), &[]).await;
    terminal.shows("healthy> ").await;
    terminal.types("Which port?\r");
    opus.answer("7411.").await;
    terminal.shows("7411.").await;
    terminal.shows("healthy> ").await;

    let verbs = [
        ("/hel\t", "/consult MODEL TEXT"),
        ("/what", "there is no `/what`"),
        ("/status", "owner opus (epoch 1)"),
        ("/model opsu", "nearest: opus"),
        ("/model sonnet", "sonnet is asked from now on"),
        ("/model owner", "healthy> "),
        ("/undo now", "/undo takes nothing"),
        (&format!("/save {}", file.display()), "2 entries"),
        ("/fork t", "session t, a copy of s"),
        ("/undo", "nothing is before it"),
        ("//what", "Slash."),
        ("/undo", "2 entries taken back"),
        ("/handoff opus", "belongs to opus already"),
    ];
    for (line, shown) in verbs {
        terminal.types(&format!("{line}\r"));
        if line == "//what" {
            opus.answer("Slash.").await;
        }
        terminal.shows(shown).await;
        if !shown.ends_with("> ") {
            terminal.shows("> ").await;
        }
    }
    assert!(fs::read_to_string(&file).unwrap().contains("7411."));
    terminal.types("/consult sonnet Is it 7411?\r");
    let work = sonnet.next().await;
    assert_eq!(work.question(), "Is it 7411?");
    work.answer("It is.").await;
    terminal.shows("It is.").await;
    terminal.shows("healthy> ").await;
    terminal.types("/q\r");
    assert_eq!(terminal.ends().await, 0);
}
