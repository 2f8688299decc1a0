//! A session's way to another owner: one owner at every moment, and nothing lost or done twice.

use broker_proto::{
    AcceptHandoff, AskHandoff, ContentHash, FailureClass, Handoff, HandoffId, HandoffKept,
    HandoffOffer, HandoffState, MessageState, Pace, PackageId, SessionId, SessionOwner,
    TriggerKind, UsageRecord,
};

use super::world::*;
use crate::core::{
    Command, Effect, Event, NewMessage, Refusal, Reply,
    agent::Link,
    handoff::{
        self, Built, By, Command as HandoffCommand, Refusal as Refused, Reply as HandoffReply,
    },
    queue::Seq,
    session::{self, Change, NewEntries, NewEntry, Point, Start},
    usage,
};

pub(super) const MANIFEST: [u8; 32] = [7; 32];

pub(super) fn id() -> SessionId {
    SessionId::parse("s").unwrap()
}

/// A session of opus with two turns.
pub(super) fn begin(world: &mut World) {
    let entry =
        |n: u8| NewEntry { hash: ContentHash([n; 32]), length: 4, tokens: 30, size_bytes: 4 };
    let entries = NewEntries { entries: vec![entry(1), entry(2)], ..NewEntries::default() };
    let start = Start {
        id: id(),
        title: String::new(),
        owner: model("opus"),
        from: None,
        at: Point::default(),
        entries,
        change: Change::Imported,
    };
    world.run(Command::Session(Box::new(session::Command::Start(Box::new(start)))));
}

pub(super) fn world() -> World {
    let mut world = World::new();
    begin(&mut world);
    world
}

fn turn(world: &mut World, asked: &str) -> NewMessage {
    NewMessage { session: Some("s".into()), ..world.message(asked) }
}

pub(super) fn ask_turn(world: &mut World, asked: &str) -> Seq {
    let new = turn(world, asked);
    world.ask_this(new)
}

pub(super) fn ask(to: Option<&str>) -> AskHandoff {
    AskHandoff {
        session: id(),
        to: to.map(model),
        agent: None,
        reason: String::new(),
        level: None,
        package: None,
        is_forced: false,
        at_once: false,
    }
}

pub(super) fn command(world: &mut World, command: HandoffCommand) -> Result<Handoff, Refusal> {
    match world.decide(Command::Handoff(Box::new(command)))? {
        Reply::Handoff(HandoffReply::Handoff(handoff)) => Ok(*handoff),
        other => panic!("{other:?}"),
    }
}

pub(super) fn built(world: &mut World, id: HandoffId) -> Result<Handoff, Refusal> {
    let kept = HandoffKept { entries: 2, tokens_before: 60, tokens: 20, ..HandoffKept::default() };
    let package = PackageId::from_u128(1_000 + id.number());
    let to = world.state.handoff.get(id).unwrap().to.clone();
    let built = Built { id, to, package, manifest: MANIFEST, kept };
    command(world, HandoffCommand::Built(Box::new(built)))
}

/// A handoff to `to` that is offered.
pub(super) fn offered(world: &mut World, to: &str) -> HandoffId {
    let begun = command(world, HandoffCommand::Begin(Box::new(ask(Some(to))))).unwrap();
    assert_eq!(begun.state, HandoffState::Building);
    assert_eq!(built(world, begun.id).unwrap().state, HandoffState::Offered);
    begun.id
}

pub(super) fn by(name: &str) -> By {
    By::Agent(agent(name))
}

pub(super) fn accept(world: &mut World, id: HandoffId, name: &str) -> Result<Handoff, Refusal> {
    let accept = AcceptHandoff { id, manifest: MANIFEST, confirmed: vec!["task".into()] };
    command(world, HandoffCommand::Accept { accept, by: by(name) })
}

pub(super) fn owner(world: &World) -> SessionOwner {
    world.state.session.get(&id()).unwrap().info.owner.clone()
}

pub(super) fn last(world: &World) -> Handoff {
    world.state.handoff.last(&id()).unwrap().clone()
}

fn offers(world: &World) -> Vec<HandoffOffer> {
    let offer = |effect: &Effect| match effect {
        Effect::Offer { offer, .. } => Some((**offer).clone()),
        _ => None,
    };
    world.effects.iter().filter_map(offer).collect()
}

#[test]
fn an_accepted_session_has_its_new_owner_and_what_waited_goes_along() {
    let mut world = World::empty(policy());
    begin(&mut world);
    world.greet("sonnet", "first", 4);
    let waits = ask_turn(&mut world, "opus");
    let id = offered(&mut world, "sonnet");
    assert_eq!(owner(&world).epoch, 1);

    let handoff = accept(&mut world, id, "sonnet").unwrap();

    assert_eq!((handoff.state, handoff.kept.moved), (HandoffState::Active, 1));
    let now = SessionOwner { model: model("sonnet"), agent: Some(agent("sonnet")), epoch: 2 };
    assert_eq!(owner(&world), now);
    assert_eq!(world.called(waits), "sonnet");
    let info = &world.state.session.get(&self::id()).unwrap().info;
    assert_eq!((info.tokens, info.window_tokens()), (60, 20));
    world.done(waits);
    assert_eq!(world.end(waits), Some(MessageState::Done));
}

#[test]
fn running_work_ends_where_it_is_before_the_switch() {
    let mut world = world();
    let runs = ask_turn(&mut world, "opus");
    let id = offered(&mut world, "sonnet");
    let next = ask_turn(&mut world, "opus");

    assert_eq!(accept(&mut world, id, "sonnet").unwrap().state, HandoffState::Accepted);
    assert_eq!(owner(&world).model, model("opus"));
    world.done(runs);

    assert_eq!(last(&world).state, HandoffState::Active);
    assert_eq!((world.called(runs), world.called(next)), ("opus".into(), "sonnet".into()));
}

/// Time passes while whoever works on a turn says that it is there.
fn works_on(world: &mut World, agent_name: &str, seq: Seq, seconds: u64) {
    for _ in 0..seconds / 10 {
        let token = world.token(seq);
        world.run(Command::Renew { agent: agent(agent_name), leases: vec![token] });
        world.advance(secs(10));
    }
}

#[test]
fn a_long_answer_of_the_old_owner_is_not_cut() {
    let mut world = world();
    let runs = ask_turn(&mut world, "opus");
    world.show(runs);
    let id = offered(&mut world, "sonnet");
    accept(&mut world, id, "sonnet").unwrap();

    works_on(&mut world, "opus", runs, 120);

    assert_eq!((last(&world).state, owner(&world).epoch), (HandoffState::Accepted, 1));
    world.done(runs);
    assert_eq!((last(&world).state, last(&world).kept.revoked), (HandoffState::Active, 0));
    assert_eq!(world.end(runs), Some(MessageState::Done));
}

#[test]
fn an_answer_that_runs_when_the_limit_is_reached_by_another_is_not_cut() {
    let mut world = world();
    let runs = ask_turn(&mut world, "opus");
    world.show(runs);
    let other = world.ask("opus");
    world.fail_until(other, FailureClass::QuotaExhausted, secs(3_600));
    ask_turn(&mut world, "opus");
    let begun = last(&world);
    assert_eq!((begun.state, begun.pace), (HandoffState::Building, Pace::AtOnce));
    built(&mut world, begun.id).unwrap();
    accept(&mut world, begun.id, "sonnet").unwrap();

    works_on(&mut world, "opus", runs, 60);
    world.done(runs);

    assert_eq!(world.end(runs), Some(MessageState::Done));
    assert_eq!((last(&world).state, last(&world).kept.revoked), (HandoffState::Active, 0));
}

#[test]
fn a_turn_that_somebody_else_answers_already_stays_with_him() {
    let mut world = world();
    let turn = ask_turn(&mut world, "opus");
    world.fail_until(turn, FailureClass::QuotaExhausted, secs(3_600));
    let begun = last(&world);
    assert_eq!((world.called(turn), begun.to.as_str()), ("sonnet".into(), "sonnet"));
    built(&mut world, begun.id).unwrap();

    accept(&mut world, begun.id, "sonnet").unwrap();

    let now = last(&world);
    assert_eq!((now.state, now.kept.revoked), (HandoffState::Active, 0));
    world.done(turn);
    assert_eq!(world.end(turn), Some(MessageState::Done));
    assert_eq!(world.deliveries.iter().filter(|it| it.seq == turn).count(), 2);
}

#[test]
fn work_that_does_not_end_is_revoked_where_somebody_wants_it_at_once_and_done_once() {
    let mut world = world();
    let runs = ask_turn(&mut world, "opus");
    let late = world.settlement(runs, done());
    let ask = AskHandoff { at_once: true, ..ask(Some("sonnet")) };
    let id = command(&mut world, HandoffCommand::Begin(Box::new(ask))).unwrap().id;
    built(&mut world, id).unwrap();
    accept(&mut world, id, "sonnet").unwrap();

    works_on(&mut world, "opus", runs, 20);
    assert_eq!(last(&world).state, HandoffState::Accepted);
    works_on(&mut world, "opus", runs, 10);

    let handoff = last(&world);
    assert_eq!((handoff.state, handoff.kept.revoked), (HandoffState::Active, 1));
    assert_eq!(world.called(runs), "sonnet");
    assert!(matches!(world.settle_with(late), Err(Refusal::LeaseLost(_))));
    world.done(runs);
    assert_eq!(world.end(runs), Some(MessageState::Done));
}

#[test]
fn who_is_not_asked_and_who_says_another_hash_is_refused() {
    let mut world = world();
    let id = offered(&mut world, "sonnet");
    let refused = accept(&mut world, id, "gpt-4o").unwrap_err();
    assert!(matches!(refused, Refusal::Handoff(Refused::NotYours { .. })), "{refused}");
    let other = AcceptHandoff { id, manifest: [8; 32], confirmed: vec![] };
    let refused = command(&mut world, HandoffCommand::Accept { accept: other, by: by("sonnet") })
        .unwrap_err();
    assert!(matches!(refused, Refusal::Handoff(Refused::Manifest(_))), "{refused}");
    assert_eq!(owner(&world).model, model("opus"));

    accept(&mut world, id, "sonnet").unwrap();
    // Its answer was lost: the same again is no other handoff.
    assert_eq!(accept(&mut world, id, "sonnet").unwrap().state, HandoffState::Active);
    assert_eq!(owner(&world).epoch, 2);
    let refused = command(
        &mut world,
        HandoffCommand::Decline { id, by: by("sonnet"), reason: String::new(), for_model: false },
    );
    assert!(matches!(refused, Err(Refusal::Handoff(Refused::State { .. }))), "{refused:?}");
}

#[test]
fn an_offer_that_nobody_answers_goes_to_the_next_and_at_last_the_session_stays() {
    let mut world = world();
    let begun = command(&mut world, HandoffCommand::Begin(Box::new(ask(None)))).unwrap();
    assert_eq!((begun.to.as_str(), begun.then.len()), ("sonnet", 2));
    let turn = ask_turn(&mut world, "opus");
    built(&mut world, begun.id).unwrap();

    world.advance(secs(11));
    assert_eq!((last(&world).to.as_str(), last(&world).state), ("gpt-4o", HandoffState::Building));
    let late = accept(&mut world, begun.id, "sonnet").unwrap_err();
    assert!(matches!(late, Refusal::Handoff(_)), "{late}");
    built(&mut world, begun.id).unwrap();
    let decline = HandoffCommand::Decline {
        id: begun.id,
        by: by("gpt-4o"),
        reason: "busy".into(),
        for_model: false,
    };
    command(&mut world, decline).unwrap();
    let reason = "it does not fit".to_owned();
    command(&mut world, HandoffCommand::NotBuilt { id: begun.id, to: model("local"), reason })
        .unwrap();

    let ended = last(&world);
    let tried: Vec<_> = ended.tried.iter().map(|it| (it.model.as_str(), it.state)).collect();
    assert_eq!(
        tried,
        [
            ("sonnet", HandoffState::Expired),
            ("gpt-4o", HandoffState::Declined),
            ("local", HandoffState::Failed)
        ]
    );
    assert!(ended.state.is_over() && ended.outcome.contains("busy"), "{ended:?}");
    assert_eq!((owner(&world).model, world.called(turn)), (model("opus"), "opus".into()));
}

#[test]
fn an_accept_after_the_offer_is_too_late_though_no_tick_came() {
    let mut world = world();
    let id = offered(&mut world, "sonnet");
    world.oversleep(secs(10));
    let late = world.step(Command::Handoff(Box::new(HandoffCommand::Accept {
        accept: AcceptHandoff { id, manifest: MANIFEST, confirmed: vec![] },
        by: by("sonnet"),
    })));
    assert!(matches!(late, Err(Refusal::Handoff(Refused::Late(_)))), "{late:?}");
    assert_eq!(owner(&world).model, model("opus"));
}

#[test]
fn what_cannot_be_handed_off_is_refused_with_its_reason() {
    let mut world = World::new();
    let start = |world: &mut World, to| command(world, HandoffCommand::Begin(Box::new(ask(to))));
    let refused = start(&mut world, Some("sonnet")).unwrap_err();
    assert!(matches!(refused, Refusal::Session(session::Refusal::Unknown(_))), "{refused}");
    begin(&mut world);
    let refused = start(&mut world, Some("opus")).unwrap_err();
    assert!(matches!(refused, Refusal::Handoff(Refused::Owner { .. })), "{refused}");
    let same = AskHandoff { agent: Some(agent("opus")), ..ask(Some("opus")) };
    let begun = command(&mut world, HandoffCommand::Begin(Box::new(same.clone()))).unwrap();
    built(&mut world, begun.id).unwrap();
    accept(&mut world, begun.id, "opus").unwrap();
    let again = command(&mut world, HandoffCommand::Begin(Box::new(same))).unwrap_err();
    assert!(matches!(again, Refusal::Handoff(Refused::Owner { .. })), "{again}");
    offered(&mut world, "sonnet");
    let refused = start(&mut world, Some("gpt-4o")).unwrap_err();
    assert!(matches!(refused, Refusal::Handoff(Refused::UnderWay { .. })), "{refused}");
    let session = session::Command::Delete { id: id() };
    world.run(Command::Session(Box::new(session)));
    assert!(world.state.handoff.last(&id()).is_none());
}

#[test]
fn every_state_of_a_handoff_survives_a_restart() {
    for stop in [
        HandoffState::Building,
        HandoffState::Offered,
        HandoffState::Accepted,
        HandoffState::Active,
        HandoffState::Completed,
    ] {
        let mut world = world();
        let runs = ask_turn(&mut world, "opus");
        let handoff =
            command(&mut world, HandoffCommand::Begin(Box::new(ask(Some("sonnet"))))).unwrap();
        let held = ask_turn(&mut world, "opus");
        let restart_at = |world: &mut World, state| {
            if state != stop {
                return;
            }
            world.restart(secs(1));
            let runs_on = world.end(runs).is_none();
            for name in ["opus", "sonnet"] {
                let kept = (runs_on && name == "opus").then(|| world.token(runs));
                let up = link(name, "first", 10);
                world.greet_as(
                    crate::core::agent::Link { resumes: Some(crate::core::agent::LinkId(1)), ..up },
                    kept.into_iter().collect(),
                );
            }
        };
        restart_at(&mut world, HandoffState::Building);
        built(&mut world, handoff.id).unwrap();
        restart_at(&mut world, HandoffState::Offered);
        assert!(!offers(&world).is_empty());
        accept(&mut world, handoff.id, "sonnet").unwrap();
        restart_at(&mut world, HandoffState::Accepted);
        assert_eq!(owner(&world).model, model("opus"), "{stop:?}");
        world.done(runs);
        restart_at(&mut world, HandoffState::Active);
        assert_eq!(owner(&world).model, model("sonnet"), "{stop:?}");
        assert_eq!(world.called(held), "sonnet", "{stop:?}");
        restart_at(&mut world, HandoffState::Completed);
        assert_eq!(owner(&world).epoch, 2, "{stop:?}");
    }
}

#[test]
fn a_session_at_its_limit_moves_with_its_next_turn() {
    let mut world = world();
    let tokens = tokens(179_990, 0);
    let record = usage::Record {
        model: Some(model("opus")),
        session: Some("s".into()),
        what: UsageRecord::Tokens(tokens),
    };
    world.run(Command::Usage(Box::new(usage::Command::Record(record))));
    assert!(world.state.handoff.last(&id()).is_none());

    let turn = ask_turn(&mut world, "opus");
    let begun = last(&world);

    assert_eq!((begun.trigger.kind, begun.to.as_str()), (TriggerKind::UsageLimit, "sonnet"));
    assert_eq!(world.delivered(), []);
    built(&mut world, begun.id).unwrap();
    accept(&mut world, begun.id, "sonnet").unwrap();
    assert_eq!(world.called(turn), "sonnet");
    let moved = world.journal.iter().any(|event| matches!(event, Event::Redirected(_)));
    assert!(moved);
    world.done(turn);
    // What was recorded was in opus's window: sonnet's holds the package, and the session stays.
    let next = ask_turn(&mut world, "sonnet");
    assert_eq!((world.called(next), owner(&world).model), ("sonnet".into(), model("sonnet")));
}

#[test]
fn with_auto_switch_it_moves_at_once() {
    let mut world = World::with(|policy| policy.handoff.auto_switch = true);
    begin(&mut world);
    let record = usage::Record {
        model: Some(model("opus")),
        session: Some("s".into()),
        what: UsageRecord::Tokens(tokens(180_000, 0)),
    };
    world.run(Command::Usage(Box::new(usage::Command::Record(record))));
    assert_eq!(last(&world).state, HandoffState::Building);
}

#[test]
fn what_is_given_back_goes_home_and_both_are_told() {
    let mut world = world();
    let id = offered(&mut world, "sonnet");
    accept(&mut world, id, "sonnet").unwrap();
    command(&mut world, HandoffCommand::Complete { id, by: by("sonnet"), outcome: String::new() })
        .unwrap();

    let back = command(&mut world, HandoffCommand::GiveBack { id, reason: "opus is back".into() })
        .unwrap();
    assert_eq!((back.to.as_str(), back.returns), ("opus", Some(id)));
    built(&mut world, back.id).unwrap();
    accept(&mut world, back.id, "opus").unwrap();

    assert_eq!((owner(&world).model, owner(&world).epoch), (model("opus"), 3));
    let returned = world.journal.iter().any(|event| match event {
        Event::Handoff(event) => match event.as_ref() {
            crate::core::handoff::Event::Changed { handoff, .. } => {
                handoff.id == id && handoff.state == HandoffState::Returned
            }
            _ => false,
        },
        _ => false,
    });
    assert!(returned);
}

#[test]
fn a_handoff_ends_with_the_session_it_is_of() {
    let mut world = world();
    let id = offered(&mut world, "sonnet");
    let delete = session::Command::Delete { id: self::id() };
    world.run(Command::Session(Box::new(delete)));

    let last = world.journal.iter().rev().find_map(|event| {
        let Event::Handoff(event) = event else { return None };
        if let crate::core::handoff::Event::Changed { handoff, .. } = event.as_ref() {
            return Some(handoff.clone());
        }
        None
    });
    let last = last.unwrap();
    assert_eq!((last.id, last.state), (id, HandoffState::Failed));
    assert_eq!(last.outcome, "its session was deleted");
    assert!(accept(&mut world, id, "sonnet").is_err());
}

#[test]
fn the_newest_handoffs_of_a_session_are_kept_and_none_of_one_that_is_gone() {
    let mut world = world();
    for _ in 0..handoff::KEPT + 3 {
        let id = offered(&mut world, "sonnet");
        let decline = HandoffCommand::Decline {
            id,
            by: By::Person,
            reason: "not now".into(),
            for_model: false,
        };
        command(&mut world, decline).unwrap();
    }
    let shown = world.state.handoff.shown(&id());
    assert_eq!((shown.len(), shown.last()), (handoff::KEPT, Some(&last(&world).id)));
    world.restart(secs(1));
    assert_eq!(world.state.handoff.shown(&id()), shown);

    world.run(Command::Session(Box::new(session::Command::Delete { id: id() })));

    assert!(world.state.handoff.track(&id()).is_none());
    let forgotten = world.journal.iter().rev().find_map(|event| match event {
        Event::Handoff(event) => match event.as_ref() {
            handoff::Event::Forgotten { ids, .. } => Some(ids.clone()),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(forgotten, Some(shown));
    // Another session of this name has not moved yet.
    world.restart(secs(1));
    begin(&mut world);
    assert!(world.state.handoff.track(&id()).is_none());
}

fn decline(world: &mut World, id: HandoffId, name: &str, for_model: bool) -> Handoff {
    let by = by(name);
    let decline = HandoffCommand::Decline { id, by, reason: "busy".into(), for_model };
    command(world, decline).unwrap()
}

/// Offered to two agents of sonnet.
fn offered_to_two(world: &mut World) -> HandoffId {
    let up = Link { models: vec![model("sonnet")], ..link("second", "first", 4) };
    world.greet_as(up, Vec::new());
    let begun = command(world, HandoffCommand::Begin(Box::new(ask(None)))).unwrap();
    assert_eq!(begun.to, model("sonnet"));
    built(world, begun.id).unwrap();
    begun.id
}

#[test]
fn what_one_agent_declines_the_others_of_its_model_may_still_take() {
    let mut world = world();
    let id = offered_to_two(&mut world);

    let declined = decline(&mut world, id, "sonnet", false);
    assert_eq!((declined.state, declined.to), (HandoffState::Offered, model("sonnet")));
    // Its answer was lost: said again, it is the same word.
    assert_eq!(decline(&mut world, id, "sonnet", false).tried.len(), 1);
    let refused = accept(&mut world, id, "sonnet").unwrap_err();
    assert!(matches!(refused, Refusal::Handoff(Refused::NotYours { .. })), "{refused}");

    let taken = accept(&mut world, id, "second").unwrap();
    assert_eq!((taken.state, taken.tried.len()), (HandoffState::Active, 1));
    assert_eq!(owner(&world).agent, Some(agent("second")));
}

#[test]
fn what_one_agent_took_the_others_of_its_model_cannot_take_again() {
    let mut world = world();
    let id = offered_to_two(&mut world);
    accept(&mut world, id, "sonnet").unwrap();

    let refused = accept(&mut world, id, "second").unwrap_err();

    assert!(matches!(refused, Refusal::Handoff(Refused::NotYours { .. })), "{refused}");
    let now = SessionOwner { model: model("sonnet"), agent: Some(agent("sonnet")), epoch: 2 };
    assert_eq!(owner(&world), now);
}

#[test]
fn what_every_agent_of_a_model_declines_or_one_for_all_goes_to_the_next() {
    let mut world = world();
    let id = offered_to_two(&mut world);
    decline(&mut world, id, "sonnet", false);
    let next = decline(&mut world, id, "second", false);
    assert_eq!((next.to, next.tried.len()), (model("gpt-4o"), 2));

    let mut world = self::world();
    let id = offered_to_two(&mut world);
    let next = decline(&mut world, id, "sonnet", true);
    assert_eq!((next.to, next.tried.len()), (model("gpt-4o"), 1));
    assert!(next.tried[0].agent.is_some());
}
