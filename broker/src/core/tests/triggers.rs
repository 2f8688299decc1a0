//! What moves a session moves its children, and nobody has to wait for the answer.

use broker_proto::{FailureClass, Handoff, HandoffState, SessionId, TriggerKind};

use super::{
    handoff::{begin, id, last},
    world::*,
};
use crate::core::{
    Command, NewMessage,
    queue::Seq,
    session::{self, Change, NewEntries, Point, Start},
};

fn child() -> SessionId {
    SessionId::parse("child").unwrap()
}

/// A fork of the session that so many tokens went along with.
fn fork(world: &mut World, tokens: u64) {
    let head = world.state.session.get(&id()).unwrap().info.head;
    world.run(Command::Session(Box::new(session::Command::Start(Box::new(Start {
        id: child(),
        title: String::new(),
        owner: model("opus"),
        from: Some((id(), Vec::new())),
        at: Point { head, tokens, ..Point::default() },
        entries: NewEntries::default(),
        change: Change::Forked,
    })))));
}

fn ask(world: &mut World, session: &SessionId) -> Seq {
    let new = NewMessage { session: Some(session.to_string()), ..world.message("opus") };
    world.ask_this(new)
}

fn of_child(world: &World) -> Handoff {
    world.state.handoff.last(&child()).unwrap().clone()
}

#[test]
fn a_child_at_the_end_of_its_window_moves_with_its_next_turn_and_its_parent_stays() {
    let mut world = World::new();
    begin(&mut world);
    fork(&mut world, 180_000);
    assert!(world.state.handoff.last(&child()).is_none());

    ask(&mut world, &child());

    let begun = of_child(&world);
    assert_eq!(
        (begun.state, begun.trigger.kind),
        (HandoffState::Building, TriggerKind::UsageLimit)
    );
    ask(&mut world, &id());
    assert!(world.state.handoff.last(&id()).is_none(), "there is room in its parent's window");
}

#[test]
fn a_child_with_room_stays_whatever_its_parent_holds() {
    let mut world = World::new();
    begin(&mut world);
    fork(&mut world, 100_000);
    ask(&mut world, &child());
    assert!(world.state.handoff.last(&child()).is_none());
}

#[test]
fn a_models_limit_moves_parent_and_child_by_one_rule() {
    let mut world = World::new();
    begin(&mut world);
    fork(&mut world, 60);
    let first = ask(&mut world, &id());
    world.fail_until(first, FailureClass::QuotaExhausted, secs(3600));
    world.done(first);

    ask(&mut world, &id());
    ask(&mut world, &child());

    let (parent, child) = (last(&world), of_child(&world));
    assert_eq!(parent.trigger, child.trigger);
    assert!(parent.is_lent && child.is_lent, "both come back by themselves");
    assert_eq!((parent.to, child.to), (model("sonnet"), model("sonnet")));
}
