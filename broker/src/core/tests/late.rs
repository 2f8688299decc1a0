//! Handoffs that nobody hurries: a package that comes late, a new owner that is asked nothing, a home that cannot take
//! its sessions, and a broker that dies within the change of owner.

use broker_proto::{
    AskHandoff, ContentHash, FailureClass, HandoffId, HandoffKept, HandoffState, ModelName,
    PackageId, SessionId, SessionOwner, SessionPause, TriggerKind, UsageRecord, WallTime,
};

use super::{
    advice::{check, record, set},
    handoff::{MANIFEST, accept, ask, ask_turn, begin, built, command, id, last, offered, owner},
    world::*,
};
use crate::core::{
    Command, Effect, Event, NewMessage, Refusal,
    handoff::{Built, By, Command as HandoffCommand, Event as HandoffEvent, Refusal as Refused},
    package,
    session::{self, Change, NewEntries, NewEntry, Point, Start},
    usage,
};

const DAY: u64 = 86_400_000;

fn start_with(world: &mut World, session: &SessionId, entry: NewEntry) {
    let entries = NewEntries { entries: vec![entry], ..NewEntries::default() };
    world.run(Command::Session(Box::new(session::Command::Start(Box::new(Start {
        id: session.clone(),
        title: String::new(),
        owner: model("opus"),
        from: None,
        at: Point::default(),
        entries,
        change: Change::Imported,
    })))));
}

/// A session of opus with a turn.
fn start(world: &mut World, session: &SessionId) {
    let entry = NewEntry { hash: ContentHash([1; 32]), length: 4, tokens: 30, size_bytes: 4 };
    start_with(world, session, entry);
}

/// As `offered`, with a package of its own.
fn offered_as(world: &mut World, to: &str, package: u128) -> HandoffId {
    let begun = command(world, HandoffCommand::Begin(Box::new(ask(Some(to))))).unwrap();
    comes(world, begun.id, model(to), package).unwrap();
    begun.id
}

fn last_move(world: &World) -> Option<HandoffId> {
    world.state.handoff.last(&id()).map(|it| it.id)
}

/// A package for one model comes.
fn comes(
    world: &mut World,
    id: HandoffId,
    to: ModelName,
    package: u128,
) -> Result<broker_proto::Handoff, Refusal> {
    let package = PackageId::from_u128(package);
    let kept = HandoffKept::default();
    let built = Built { id, to, package, manifest: MANIFEST, kept };
    command(world, HandoffCommand::Built(Box::new(built)))
}

#[test]
fn a_package_that_comes_late_is_not_offered_to_the_next_receiver() {
    let mut world = World::new();
    begin(&mut world);
    let begun = command(&mut world, HandoffCommand::Begin(Box::new(ask(None)))).unwrap();
    assert_eq!((begun.to, begun.then[0].clone()), (model("sonnet"), model("gpt-4o")));
    let decline = HandoffCommand::Decline {
        id: begun.id,
        by: By::Person,
        reason: "no".into(),
        for_model: true,
    };
    assert_eq!(command(&mut world, decline).unwrap().to, model("gpt-4o"));

    let late = comes(&mut world, begun.id, model("sonnet"), 5).unwrap_err();

    assert!(matches!(late, Refusal::Handoff(Refused::NotYours { .. })), "{late}");
    assert_eq!((last(&world).state, last(&world).package), (HandoffState::Building, None));
    let offered = comes(&mut world, begun.id, model("gpt-4o"), 6).unwrap();
    assert_eq!(offered.state, HandoffState::Offered);
    assert_eq!(offered.package, Some(PackageId::from_u128(6)));
}

#[test]
fn a_new_owner_that_is_asked_nothing_is_looked_after_without_a_word() {
    let mut world = World::new();
    begin(&mut world);
    let handoff = offered(&mut world, "sonnet");
    accept(&mut world, handoff, "sonnet").unwrap();
    let before = world.journal.len();

    world.advance(secs(3_600));

    let said = &world.journal[before..];
    assert!(!said.iter().any(|it| matches!(it, Event::Handoff(_))), "{said:?}");
    assert_eq!(last(&world).state, HandoffState::Active);
    // It is looked after all the same.
    world.hang_up("sonnet");
    world.advance(secs(600));
    let ended = world.state.handoff.get(handoff).map(|it| it.state);
    assert!(ended.is_none_or(|state| state == HandoffState::Failed), "{ended:?}");
    assert_ne!(last(&world).id, handoff);
}

/// Nine sessions that opus's limit, an hour long, moved to sonnet.
fn lent(world: &mut World) -> Vec<SessionId> {
    let first = world.insist("opus");
    world.fail_until(first, FailureClass::QuotaExhausted, secs(3_600));
    let named = |number: u8| SessionId::parse(&format!("s{number}")).unwrap();
    let sessions: Vec<SessionId> = (1..=9).map(named).collect();
    for session in &sessions {
        start(world, session);
        let new = NewMessage { session: Some(session.to_string()), ..world.message("opus") };
        let turn = world.ask_this(new);
        let begun = world.state.handoff.last(session).unwrap().id;
        built(world, begun).unwrap();
        accept(world, begun, "sonnet").unwrap();
        world.done(turn);
    }
    sessions
}

fn returns(world: &World, session: &SessionId) -> bool {
    world.state.handoff.last(session).is_some_and(|it| it.returns.is_some())
}

#[test]
fn sessions_that_cannot_come_home_keep_no_others_away() {
    let mut world = World::new();
    let sessions = lent(&mut world);
    for session in &sessions[..8] {
        let version = world.state.session.get(session).unwrap().info.version;
        let at = world.wall();
        let (reason, by) = ("lunch".to_owned(), "app".to_owned());
        let pause =
            SessionPause { at, reason, package: PackageId::from_u128(9), by, handoff: None };
        let pause = session::Command::Pause { id: session.clone(), version, pause };
        world.run(Command::Session(Box::new(pause)));
    }

    world.advance(secs(3_700));
    let probe = world.insist("opus");
    world.done(probe);
    world.advance(secs(2));

    assert!(returns(&world, &sessions[8]));
    assert!(!sessions[..8].iter().any(|paused| returns(&world, paused)));
    // What goes on goes home.
    let resume = session::Command::Resume { id: sessions[0].clone() };
    world.run(Command::Session(Box::new(resume)));
    world.advance(secs(2));
    assert!(returns(&world, &sessions[0]));
}

/// The broker dies when the first events of the switch are stored, up to the one of the session's owner.
#[test]
fn a_change_of_owner_that_was_half_stored_is_finished() {
    let mut world = World::new();
    begin(&mut world);
    let runs = ask_turn(&mut world, "opus");
    let handoff = offered(&mut world, "sonnet");
    let waits = ask_turn(&mut world, "opus");
    accept(&mut world, handoff, "sonnet").unwrap();
    assert_eq!(last(&world).state, HandoffState::Accepted);
    world.done(runs);
    let is_owner = |event: &Event| match event {
        Event::Session(event) => match event.as_ref() {
            session::Event::Changed { change, .. } => *change == Change::OwnerChanged,
            session::Event::Entries(_) => false,
        },
        _ => false,
    };
    let stored = world.journal.iter().rposition(is_owner).unwrap() + 1;
    world.journal.truncate(stored);

    world.restart(secs(1));
    world.greet("sonnet", "second", 4);

    let now = SessionOwner { model: model("sonnet"), agent: Some(agent("sonnet")), epoch: 2 };
    assert_eq!((last(&world).state, owner(&world)), (HandoffState::Active, now));
    assert_eq!(world.called(waits), "sonnet");
    world.done(waits);
}

#[test]
fn one_step_switches_few_sessions_and_the_next_the_others() {
    let mut world = World::new();
    let mut sessions = Vec::new();
    for number in 0..100 {
        let session = SessionId::parse(&format!("s{number}")).unwrap();
        start(&mut world, &session);
        let ask = AskHandoff { session: session.clone(), ..ask(Some("sonnet")) };
        let turn = NewMessage { session: Some(session.to_string()), ..world.message("opus") };
        world.ask_this(turn);
        let begun = command(&mut world, HandoffCommand::Begin(Box::new(ask))).unwrap().id;
        built(&mut world, begun).unwrap();
        assert_eq!(accept(&mut world, begun, "sonnet").unwrap().state, HandoffState::Accepted);
        sessions.push(session);
    }
    // Nobody is left to end any of them.
    world.hang_up("opus");
    let grace = world.state.policy.routing.agent_grace;
    world.oversleep(grace + secs(1));
    let before = world.journal.len();
    world.step(Command::Tick).unwrap();

    let stored = world.journal.len() - before;
    assert!(stored <= 256, "{stored} events in one commit");
    world.advance(secs(60));
    for session in &sessions {
        assert_eq!(world.state.session.get(session).unwrap().info.owner.model, model("sonnet"));
    }
}

#[test]
fn a_session_that_was_put_home_by_hand_is_home() {
    let mut world = World::new();
    let sessions = lent(&mut world);
    let session = &sessions[0];
    set(&mut world, &[("auto", "false")], &[]).unwrap();
    world.advance(secs(3_700));
    let probe = world.insist("opus");
    world.done(probe);
    let ask = AskHandoff { session: session.clone(), ..ask(Some("opus")) };
    let begun = command(&mut world, HandoffCommand::Begin(Box::new(ask)))
        .unwrap_or_else(|refused| panic!("{refused}"));
    built(&mut world, begun.id).unwrap();
    accept(&mut world, begun.id, "opus").unwrap();

    let track = world.state.handoff.track(session).unwrap();
    assert_eq!((track.origin.as_ref(), track.away.len()), (None, 0));
    assert!(!world.state.handoff.lent_by(&model("opus")).any(|lent| lent == session));
}

#[test]
fn a_handoff_that_is_declined_leaves_the_one_before_as_it_was() {
    let mut world = World::new();
    begin(&mut world);
    let first = offered(&mut world, "sonnet");
    accept(&mut world, first, "sonnet").unwrap();
    let second = offered(&mut world, "gpt-4o");
    let decline = HandoffCommand::Decline {
        id: second,
        by: By::Person,
        reason: "no".into(),
        for_model: true,
    };
    command(&mut world, decline).unwrap();
    assert_eq!(world.state.handoff.get(first).unwrap().state, HandoffState::Active);

    // Its owner is still looked after.
    world.hang_up("sonnet");
    world.advance(secs(600));
    let next = last(&world);
    assert!(next.id != second && next.from.model == model("sonnet"), "{next:?}");
}

#[test]
fn without_auto_nothing_moves_by_itself_whatever_else_is_on() {
    let moved = |pairs: &[(&str, &str)]| {
        let mut world = World::new();
        begin(&mut world);
        set(&mut world, pairs, &[]).unwrap();
        record(&mut world, "s", 190_000);
        ask_turn(&mut world, "opus");
        world.state.handoff.last(&id()).is_some()
    };
    assert!(moved(&[("auto_switch", "true")]));
    assert!(!moved(&[("auto", "false"), ("auto_switch", "true")]));
}

#[test]
fn a_session_whose_figures_were_reset_still_holds_what_it_holds() {
    let mut world = World::new();
    let session = id();
    let entry = NewEntry { hash: ContentHash([1; 32]), length: 4, tokens: 185_000, size_bytes: 4 };
    start_with(&mut world, &session, entry);
    assert!(check(&mut world, "s", false).unwrap().should_handoff);

    let reset = usage::Command::Reset(usage::Scope::Session("s".into()));
    world.run(Command::Usage(Box::new(reset)));

    let checked = check(&mut world, "s", false).unwrap();
    assert_eq!((checked.tokens, checked.should_handoff), (185_000, true));
    ask_turn(&mut world, "opus");
    assert_eq!(last(&world).trigger.kind, TriggerKind::UsageLimit);
}

#[test]
fn a_package_that_was_taken_is_not_offered_again() {
    let mut world = World::new();
    begin(&mut world);
    let package = Some(PackageId::from_u128(5));
    let used = AskHandoff { package, ..ask(Some("sonnet")) };
    let first = command(&mut world, HandoffCommand::Begin(Box::new(used.clone()))).unwrap();
    comes(&mut world, first.id, model("sonnet"), 5).unwrap();
    accept(&mut world, first.id, "sonnet").unwrap();
    let back = offered_as(&mut world, "opus", 6);
    accept(&mut world, back, "opus").unwrap();

    let again = |world: &mut World| {
        let begin = HandoffCommand::Begin(Box::new(used.clone()));
        command(world, begin).map(|it| it.state)
    };
    let refused = again(&mut world).unwrap_err();
    assert!(matches!(refused, Refusal::Package(package::Refusal::Replayed)), "{refused}");
    world.restart(secs(1));
    for name in ["opus", "sonnet"] {
        world.greet(name, "second", 10);
    }
    assert!(again(&mut world).is_err());
    // One that nobody took may be offered again.
    let package = Some(PackageId::from_u128(7));
    for _ in 0..2 {
        let ask = AskHandoff { package, ..ask(Some("sonnet")) };
        let begun = command(&mut world, HandoffCommand::Begin(Box::new(ask))).unwrap();
        let decline = HandoffCommand::Decline {
            id: begun.id,
            by: By::Person,
            reason: "no".into(),
            for_model: true,
        };
        command(&mut world, decline).unwrap();
    }
}

#[test]
fn whoever_takes_no_sessions_is_not_offered_any() {
    let mut world = World::new();
    begin(&mut world);
    world.run(Command::Drain { agent: Some(agent("sonnet")), is_over: false });
    record(&mut world, "s", 190_000);
    ask_turn(&mut world, "opus");
    let begun = last(&world);
    assert_eq!((begun.to.as_str(), begun.then.len()), ("gpt-4o", 1), "{begun:?}");

    // Nor is one that came after the offer was made.
    let mut world = World::new();
    begin(&mut world);
    let begun = command(&mut world, HandoffCommand::Begin(Box::new(ask(Some("sonnet"))))).unwrap();
    world.run(Command::Drain { agent: Some(agent("sonnet")), is_over: false });
    built(&mut world, begun.id).unwrap();
    assert!(!world.effects.iter().any(|effect| matches!(effect, Effect::Offer { .. })));
}

#[test]
fn nobody_better_says_until_when_once() {
    let mut world = World::with(|policy| {
        policy.models.retain(|name, _| ["opus", "sonnet"].contains(&name.as_str()));
        for name in ["opus", "sonnet"] {
            let key = usage::BudgetKey {
                kind: usage::ScopeKind::Model,
                name: name.into(),
                span: usage::Span::Day,
                unit: usage::Unit::Tokens,
            };
            policy.budgets.insert(key, 1_000);
        }
    });
    begin(&mut world);
    for name in ["opus", "sonnet"] {
        let what = UsageRecord::Tokens(tokens(2_000, 0));
        let record = usage::Record { model: Some(model(name)), session: None, what };
        world.run(Command::Usage(Box::new(usage::Command::Record(record))));
    }
    let midnight = WallTime((world.wall().0 / DAY + 1) * DAY);

    let begun = command(&mut world, HandoffCommand::Begin(Box::new(ask(None)))).unwrap_err();
    let Refusal::Handoff(Refused::Nobody { until, .. }) = begun else { panic!("{begun}") };
    assert_eq!(until, Some(midnight));

    // By itself it says so too, and not with each turn.
    let told = |world: &World| {
        let advised = world.state.handoff.advised(&id())?;
        Some((advised.to.to_string(), advised.trigger.reasoning.clone()))
    };
    let count = |world: &World| {
        let is_advice = |event: &&Event| match event {
            Event::Handoff(event) => matches!(event.as_ref(), HandoffEvent::Advised { .. }),
            _ => false,
        };
        world.journal.iter().filter(is_advice).count()
    };
    for _ in 0..3 {
        ask_turn(&mut world, "opus");
    }
    let (to, why) = told(&world).unwrap();
    assert!(to == "opus" && why.contains("nobody can take it before"), "{to}: {why}");
    assert_eq!(count(&world), 1);
}

#[test]
fn a_session_is_not_sent_to_and_fro_for_ever() {
    let mut world = World::new();
    begin(&mut world);
    let mut moves = 0;
    for _ in 0..10 {
        let runs = world.insist("opus");
        world.fail_until(runs, FailureClass::QuotaExhausted, secs(30));
        let before = last_move(&world);
        ask_turn(&mut world, "opus");
        if last_move(&world) != before {
            moves += 1;
            let begun = last(&world);
            built(&mut world, begun.id).unwrap();
            let to = begun.to.to_string();
            accept(&mut world, begun.id, &to).unwrap();
        }
        world.advance(secs(301));
        let probe = world.insist("opus");
        world.done(probe);
        world.advance(secs(2));
        if let Some(back) = world.state.handoff.open(&id()).filter(|it| it.returns.is_some()) {
            let back = back.id;
            built(&mut world, back).unwrap();
            accept(&mut world, back, "opus").unwrap();
        }
    }
    assert!(moves <= 3, "it left {moves} times within an hour");
    assert_ne!(owner(&world).model, model("opus"), "it stays where it can go on");
    // It is home again when it has been quiet for as long.
    world.advance(secs(3_700));
    assert!(last(&world).returns.is_some());
}
