use broker_proto::{ContentHash, HandoffId, PackageId};

use super::*;
use crate::core::queue::BodyKey;

const NOW: WallTime = WallTime(1_000);

fn id(text: &str) -> SessionId {
    SessionId::parse(text).unwrap()
}

fn opus() -> ModelName {
    ModelName::parse("opus").unwrap()
}

fn body(n: u8) -> Body {
    Body { keys: BodyKey([n; 40]).into(), size_bytes: 8 }
}

fn entries(texts: &[&str]) -> NewEntries {
    let entry = |text: &&str| NewEntry {
        hash: ContentHash::of(text.as_bytes()),
        length: 4,
        tokens: 1,
        size_bytes: 4,
    };
    NewEntries {
        body: body(1),
        entries: texts.iter().map(entry).collect(),
        ..NewEntries::default()
    }
}

fn chain(texts: &[&str]) -> EntryHash {
    texts.iter().fold(EntryHash::NONE, |hash, text| hash.next(ContentHash::of(text.as_bytes())))
}

/// Decides and applies; gives what a rebuild would fold.
fn run(state: &mut State, command: Command) -> Result<(Vec<Event>, Reply), Refusal> {
    let decided = state.decide(command, NOW)?;
    decided.0.iter().for_each(|event| state.apply(event));
    Ok(decided)
}

fn start(name: &str, texts: &[&str]) -> Command {
    Command::Start(Box::new(Start {
        id: id(name),
        title: String::new(),
        owner: opus(),
        from: None,
        at: Point::default(),
        entries: entries(texts),
        change: Change::Started,
    }))
}

fn write(name: &str, texts: &[&str], expected: Expected) -> Write {
    Write {
        id: id(name),
        expected,
        at: None,
        entries: entries(texts),
        task: None,
        shared: None,
        answer_of: None,
        change: Change::Appended,
    }
}

fn append(name: &str, texts: &[&str], head: Option<EntryHash>) -> Command {
    Command::Write(Box::new(write(name, texts, Expected { head, version: None })))
}

fn head(state: &State, name: &str) -> SessionHead {
    state.get(&id(name)).unwrap().info.head
}

#[test]
fn appended_entries_follow_one_another_by_hash() {
    let mut state = State::default();
    run(&mut state, start("s", &[])).unwrap();

    run(&mut state, append("s", &["a", "b"], None)).unwrap();
    let (events, reply) = run(&mut state, append("s", &["c"], None)).unwrap();

    assert_eq!(head(&state, "s"), SessionHead { entries: 3, hash: chain(&["a", "b", "c"]) });
    let Reply::Written { session, first, .. } = reply else { panic!() };
    assert_eq!((session.info.version, session.info.tokens, first), (3, 3, 2));
    assert_eq!(*session, *state.get(&id("s")).unwrap());
    let Event::Entries(rows) = &events[0] else { panic!() };
    assert_eq!((rows.previous, rows.first), (chain(&["a", "b"]), 2));
}

/// Written in one step with the entries, and only on what it was made of.
#[test]
fn what_entries_share_is_refused_when_it_changed_meanwhile() {
    let mut state = State::default();
    run(&mut state, start("s", &["a"])).unwrap();
    let body = |size_bytes| Some(Body { size_bytes, ..Body::default() });
    let sharing = |was, now| {
        let shared = Some((was, now));
        Command::Write(Box::new(Write { shared, ..write("s", &["b"], Expected::default()) }))
    };
    run(&mut state, sharing(None, body(1))).unwrap();
    let before = state.get(&id("s")).unwrap().clone();
    assert_eq!((&before.shared, before.info.head.entries), (&body(1), 2));

    let refused = run(&mut state, sharing(None, body(2)));

    assert!(matches!(refused, Err(Refusal::Moved(_))), "{refused:?}");
    assert_eq!(*state.get(&id("s")).unwrap(), before);
}

#[test]
fn a_stale_head_is_refused_and_changes_nothing() {
    let mut state = State::default();
    run(&mut state, start("s", &["a"])).unwrap();
    let seen = head(&state, "s").hash;
    run(&mut state, append("s", &["b"], Some(seen))).unwrap();

    let refused = run(&mut state, append("s", &["c", "d"], Some(seen)));

    assert!(matches!(refused, Err(Refusal::Moved(now)) if now.info.head.entries == 2));
    assert_eq!(head(&state, "s").hash, chain(&["a", "b"]));
}

#[test]
fn the_same_append_again_is_no_conflict_and_no_second_turn() {
    let mut state = State::default();
    run(&mut state, start("s", &["a"])).unwrap();
    let seen = head(&state, "s").hash;
    run(&mut state, append("s", &["b", "c"], Some(seen))).unwrap();

    let (events, reply) = run(&mut state, append("s", &["b", "c"], Some(seen))).unwrap();

    assert_eq!(events, []);
    assert!(matches!(reply, Reply::Written { first: 1, is_duplicate: true, .. }));
    assert_eq!(head(&state, "s").entries, 3);
}

#[test]
fn the_answer_of_one_consultation_is_appended_once() {
    let mut state = State::default();
    run(&mut state, start("s", &[])).unwrap();
    let answer = |number| {
        let answer_of = Some(MessageId::from_u128(number));
        Command::Write(Box::new(Write {
            answer_of,
            ..write("s", &["q", "a"], Expected::default())
        }))
    };
    run(&mut state, answer(1)).unwrap();

    let (events, reply) = run(&mut state, answer(1)).unwrap();

    assert_eq!(events, []);
    assert!(matches!(reply, Reply::Written { is_duplicate: true, .. }));
    for number in 2..20 {
        run(&mut state, answer(number)).unwrap();
    }
    let session = state.get(&id("s")).unwrap();
    assert_eq!((session.info.head.entries, session.answered.len()), (38, ANSWERED));
}

#[test]
fn a_restored_point_is_a_new_version_from_which_it_goes_on() {
    let mut state = State::default();
    run(&mut state, start("s", &["a"])).unwrap();
    let then = state.get(&id("s")).unwrap().clone();
    run(&mut state, append("s", &["b"], None)).unwrap();
    let at = Point { head: then.info.head, tokens: 1, size_bytes: 4, ..Point::default() };

    let restore =
        Write { at: Some(at), change: Change::Restored, ..write("s", &[], Expected::default()) };
    run(&mut state, Command::Write(Box::new(restore))).unwrap();

    assert_eq!(head(&state, "s"), then.info.head);
    assert_eq!(state.get(&id("s")).unwrap().info.version, 3);
    run(&mut state, append("s", &["x"], None)).unwrap();
    assert_eq!(head(&state, "s").hash, chain(&["a", "x"]));
}

#[test]
fn below_what_its_owner_took_over_a_session_is_whole_again() {
    let mut state = State::default();
    run(&mut state, start("s", &["a"])).unwrap();
    let first = state.get(&id("s")).unwrap().info.head;
    run(&mut state, append("s", &["b"], None)).unwrap();
    let handed_over = HandedOver {
        handoff: HandoffId::from_parts(NOW, 1),
        package: PackageId::from_u128(2),
        entries: 2,
        tokens_before: 2,
        tokens: 1,
    };
    let owner = SessionOwner { model: opus(), agent: None, epoch: 2 };
    run(&mut state, Command::Own { id: id("s"), owner, handed_over, unverified: None }).unwrap();
    let taken = state.get(&id("s")).unwrap().info.head;
    run(&mut state, append("s", &["c"], None)).unwrap();
    let mut back_to = |head: SessionHead, tokens| {
        let at = Some(Point { head, tokens, size_bytes: 4 * tokens, ..Point::default() });
        let restore =
            Write { at, change: Change::Restored, ..write("s", &[], Expected::default()) };
        run(&mut state, Command::Write(Box::new(restore))).unwrap();
        let info = &state.get(&id("s")).unwrap().info;
        (info.handed_over, info.window_tokens())
    };

    assert_eq!(back_to(taken, 2), (Some(handed_over), 1));
    // What is said from here on are other entries than those that the package knows by their numbers.
    assert_eq!(back_to(first, 1), (None, 1));
}

#[test]
fn a_fork_shares_what_came_before_and_goes_its_own_way() {
    let mut state = State::default();
    run(&mut state, start("s", &["a", "b"])).unwrap();
    let origin = state.get(&id("s")).unwrap().clone();
    let at = Point { head: origin.info.head, tokens: 2, size_bytes: 8, ..Point::default() };
    let Command::Start(fork) = start("f", &[]) else { panic!() };
    let from = Some((id("s"), vec![opus()]));
    let fork = Start { from, at, change: Change::Forked, ..*fork };

    let (events, _) = run(&mut state, Command::Start(Box::new(fork))).unwrap();

    assert_eq!(events.len(), 1, "no entry is written again");
    run(&mut state, append("f", &["c"], None)).unwrap();
    assert_eq!(head(&state, "f").hash, chain(&["a", "b", "c"]));
    assert_eq!(head(&state, "s"), origin.info.head);
    assert_eq!(state.get(&id("f")).unwrap().info.forked_from, Some((id("s"), 2)));
}

#[test]
fn a_task_edited_from_an_older_one_is_refused() {
    let mut state = State::default();
    run(&mut state, start("s", &[])).unwrap();
    let set = |was, now| {
        let detail = String::new();
        Command::SetTask { id: id("s"), was, now: Some(now), detail }
    };
    run(&mut state, set(None, body(2))).unwrap();

    assert!(matches!(run(&mut state, set(None, body(3))), Err(Refusal::Moved(_))));
    run(&mut state, set(Some(body(2)), body(3))).unwrap();
    assert_eq!(state.get(&id("s")).unwrap().task, Some(body(3)));
}

#[test]
fn an_id_is_used_once_and_free_again_when_its_session_is_deleted() {
    let mut state = State::default();
    run(&mut state, start("s", &[])).unwrap();
    assert_eq!(run(&mut state, start("s", &[])), Err(Refusal::Exists(id("s"))));
    run(&mut state, Command::Delete { id: id("s") }).unwrap();
    assert_eq!(run(&mut state, append("s", &["a"], None)), Err(Refusal::Unknown(id("s"))));
    run(&mut state, start("s", &[])).unwrap();
}

#[test]
fn the_owner_is_who_it_was_given_whoever_speaks() {
    let mut state = State::default();
    run(&mut state, start("s", &[])).unwrap();
    let sonnet = ModelName::parse("sonnet").unwrap();
    let mut said = write("s", &["a"], Expected::default());
    said.entries.models = [sonnet.clone()].into();

    run(&mut state, Command::Write(Box::new(said))).unwrap();

    let info = &state.get(&id("s")).unwrap().info;
    assert_eq!((&info.owner.model, info.owner.epoch), (&opus(), 1));
    assert_eq!(info.models, [sonnet]);
}

#[test]
fn a_long_conversation_is_several_events_of_one_chain() {
    let mut state = State::default();
    let texts: Vec<String> = (0..ROWS + 5).map(|n| n.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();

    let (events, _) = run(&mut state, start("s", &texts)).unwrap();

    let [Event::Entries(one), Event::Entries(other), Event::Changed { .. }] = &events[..] else {
        panic!("{}", events.len())
    };
    assert_eq!(other.previous, one.rows.last().unwrap().hash);
    assert_eq!((other.first, other.offset), (ROWS as u64, ROWS as u64 * 4));
    assert_eq!(head(&state, "s").hash, chain(&texts));
}
