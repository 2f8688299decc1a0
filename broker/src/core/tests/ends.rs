//! Whatever ends a handoff leaves an event: its trigger, from whom to whom, what was tried and why that failed, and what
//! became of it.

use broker_proto::{Handoff, HandoffId, HandoffState};

use super::{
    handoff::{accept, ask, begin, by, command, id, offered},
    world::*,
};
use crate::core::{
    Command, Event,
    handoff::{self, By, Command as HandoffCommand},
    session,
};

/// The last that was journalled of it.
fn journalled(world: &World, of: HandoffId) -> Handoff {
    let last = world.journal.iter().rev().find_map(|event| match event {
        Event::Handoff(event) => match event.as_ref() {
            handoff::Event::Changed { handoff, .. } if handoff.id == of => Some(handoff.clone()),
            _ => None,
        },
        _ => None,
    });
    *last.unwrap()
}

#[track_caller]
fn check(
    end: impl FnOnce(&mut World) -> HandoffId,
    state: HandoffState,
    tried: &str,
    outcome: &str,
) {
    let mut world = World::new();
    begin(&mut world);
    let id = end(&mut world);
    let last = journalled(&world, id);
    assert_eq!((last.state, last.outcome.as_str()), (state, outcome));
    assert_eq!((last.from.model.as_str(), last.to.as_str()), ("opus", "sonnet"));
    assert_eq!(last.trigger.reasoning, "a person asked for it");
    assert!(last.ended_at.is_some() && last.until.is_none(), "{last:?}");
    let was: Vec<&str> = last.tried.iter().map(|tried| tried.reason.as_str()).collect();
    assert_eq!(was.join("; "), tried);
    // Nothing is said to be kept of a package that nobody took.
    let is_taken = last.active_at.is_some() || last.tried.is_empty();
    assert!(is_taken || last.kept == broker_proto::HandoffKept::default(), "{last:?}");
}

fn begun(world: &mut World) -> HandoffId {
    command(world, HandoffCommand::Begin(Box::new(ask(Some("sonnet"))))).unwrap().id
}

fn decline(world: &mut World, by: By) -> HandoffId {
    let id = offered(world, "sonnet");
    let reason = "busy".to_owned();
    command(world, HandoffCommand::Decline { id, by, reason, for_model: false }).unwrap();
    id
}

#[test]
fn every_end_of_a_handoff_is_an_event_with_all_that_led_to_it() {
    let declined = "sonnet: declined, busy";
    check(|world| decline(world, by("sonnet")), HandoffState::Declined, "busy", declined);
    check(|world| decline(world, By::Person), HandoffState::Declined, "busy", declined);
    let cancelled = |world: &mut World| {
        let id = begun(world);
        let reason = "not now".to_owned();
        let decline = HandoffCommand::Decline { id, by: By::Person, reason, for_model: false };
        command(world, decline).unwrap();
        id
    };
    check(cancelled, HandoffState::Declined, "not now", "sonnet: declined, not now");
    let expired = |world: &mut World| {
        let id = offered(world, "sonnet");
        world.advance(secs(11));
        id
    };
    let silence = "no answer in time";
    check(expired, HandoffState::Expired, silence, "sonnet: expired, no answer in time");
    let failed = |world: &mut World| {
        let (id, to, reason) = (begun(world), model("sonnet"), "it does not fit".to_owned());
        command(world, HandoffCommand::NotBuilt { id, to, reason }).unwrap();
        id
    };
    check(failed, HandoffState::Failed, "it does not fit", "sonnet: failed, it does not fit");
    let unbuilt = |world: &mut World| {
        let id = begun(world);
        world.advance(secs(600));
        id
    };
    let late = "no package was made in time";
    check(unbuilt, HandoffState::Failed, late, "sonnet: failed, no package was made in time");
    let deleted = |world: &mut World| {
        let handoff = offered(world, "sonnet");
        world.run(Command::Session(Box::new(session::Command::Delete { id: id() })));
        handoff
    };
    check(deleted, HandoffState::Failed, "", "its session was deleted");
    let handed_on = |world: &mut World| {
        let id = offered(world, "sonnet");
        accept(world, id, "sonnet").unwrap();
        let next = offered(world, "gpt-4o");
        accept(world, next, "gpt-4o").unwrap();
        id
    };
    check(handed_on, HandoffState::Completed, "", "its owner handed it on");
}
