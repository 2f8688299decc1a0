use super::{sample::info, *};

/// Decides and applies, as the rules do.
fn run(state: &mut State, command: Command, now: u64) -> Result<Vec<Event>, Refusal> {
    let (events, _) = state.decide(command, WallTime(now))?;
    events.iter().for_each(|event| state.apply(event));
    Ok(events)
}

fn save(number: u64) -> Command {
    Command::Save { info: Box::new(info(number)), body: Body::default(), of: None }
}

fn id(number: u64) -> PackageId {
    info(number).header.id
}

#[test]
fn a_package_is_taken_once() {
    let mut state = State::default();
    run(&mut state, save(2), 2).unwrap();
    assert_eq!(run(&mut state, save(2), 3), Err(Refusal::Replayed));
    // The same nonce under another id.
    let mut copy = info(4);
    copy.header.nonce = info(2).header.nonce;
    let copy = Command::Save { info: Box::new(copy), body: Body::default(), of: None };
    assert_eq!(run(&mut state, copy, 3), Err(Refusal::Replayed));
    run(&mut state, save(4), 4).unwrap();
}

#[test]
fn a_deleted_import_does_not_come_back_before_it_has_expired() {
    let mut state = State::default();
    run(&mut state, save(2), 2).unwrap();
    run(&mut state, Command::Delete(id(2)), 5).unwrap();
    assert_eq!(run(&mut state, save(2), 6), Err(Refusal::Replayed));
    assert_eq!(run(&mut state, Command::Delete(id(2)), 6), Err(Refusal::Unknown(id(2))));
    // Then its nonce is forgotten, and expiry refuses it.
    let events = run(&mut state, save(4), 1002).unwrap();
    assert!(matches!(&events[1], Event::Forgotten { nonces, .. } if nonces.len() == 1));
    assert_eq!(state.seen(&info(2).header.nonce), Seen::Never);
}

#[test]
fn what_was_made_here_and_deleted_may_come_back_from_its_file() {
    let mut state = State::default();
    run(&mut state, save(3), 3).unwrap();
    run(&mut state, Command::Delete(id(3)), 5).unwrap();
    assert!(run(&mut state, save(3), 6).is_ok());
}

#[test]
fn a_name_is_trusted_with_one_key() {
    let mut state = State::default();
    let trust = |key| Command::Trust { name: "laptop".into(), key: PackageKey([key; 32]) };
    assert_eq!(run(&mut state, trust(1), 1).unwrap().len(), 1);
    assert_eq!(run(&mut state, trust(1), 2), Ok(Vec::new()));
    let taken = Refusal::NameTaken { name: "laptop".into() };
    assert_eq!(run(&mut state, trust(2), 2), Err(taken));
    assert_eq!(state.keys()[0].trusted_at, Some(WallTime(1)));
    let distrust = || Command::Distrust { name: "laptop".into() };
    run(&mut state, distrust(), 3).unwrap();
    assert_eq!(state.keys(), []);
    assert_eq!(run(&mut state, distrust(), 4), Err(Refusal::UnknownName("laptop".into())));
}

/// The same history gives the same state, also from the facts that a restart reads.
#[test]
fn what_is_left_of_a_history_gives_the_same_state() {
    let mut state = State::default();
    let mut events = Vec::new();
    for command in [save(2), save(3), Command::Delete(id(2)), Command::Delete(id(3)), save(4)] {
        events.extend(run(&mut state, command, 10).unwrap());
    }
    let mut again = State::default();
    // A fold keeps the deletion that spent a nonce, and the packages that are left.
    for event in events.iter().filter(|event| match event {
        Event::Saved(saved) => saved.info == info(4),
        Event::Deleted { spent, .. } => spent.is_some(),
        _ => true,
    }) {
        again.apply(event);
    }
    assert_eq!(format!("{state:?}"), format!("{again:?}"));
}
