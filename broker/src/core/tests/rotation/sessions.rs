//! Sessions that go along with a ring.

use broker_proto::{AcceptHandoff, ContentHash, HandoffKept, PackageId, SessionId, SessionOwner};

use super::*;
use crate::core::{handoff, session};

const MANIFEST: [u8; 32] = [7; 32];

fn id() -> SessionId {
    SessionId::parse("s").unwrap()
}

/// A session of opus that `pc1` took over.
fn session_of_first(world: &mut World) {
    let entry =
        session::NewEntry { hash: ContentHash([1; 32]), length: 4, tokens: 30, size_bytes: 4 };
    let start = session::Start {
        id: id(),
        title: String::new(),
        owner: model("opus"),
        from: None,
        at: session::Point::default(),
        entries: session::NewEntries { entries: vec![entry], ..Default::default() },
        change: session::Change::Imported,
    };
    world.run(Command::Session(Box::new(session::Command::Start(Box::new(start)))));
    let ask = broker_proto::AskHandoff {
        session: id(),
        to: Some(model("opus")),
        agent: Some(agent("pc1")),
        reason: String::new(),
        level: None,
        package: None,
        is_forced: false,
        at_once: false,
    };
    world.run(Command::Handoff(Box::new(handoff::Command::Begin(Box::new(ask)))));
    take(world, "pc1");
}

fn built(world: &mut World) {
    let open = world.state.handoff.open(&id()).unwrap().id;
    let kept = HandoffKept { entries: 1, tokens_before: 30, tokens: 9, ..HandoffKept::default() };
    let package = PackageId::from_u128(5);
    let built = handoff::Built { id: open, package, manifest: MANIFEST, kept };
    world.run(Command::Handoff(Box::new(handoff::Command::Built(Box::new(built)))));
}

fn take(world: &mut World, name: &str) {
    built(world);
    let open = world.state.handoff.open(&id()).unwrap().id;
    let accept = AcceptHandoff { id: open, manifest: MANIFEST, confirmed: vec![] };
    let by = handoff::By::Agent(agent(name));
    world.run(Command::Handoff(Box::new(handoff::Command::Accept { accept, by })));
}

fn session_owner(world: &World) -> SessionOwner {
    world.state.session.get(&id()).unwrap().info.owner.clone()
}

#[test]
fn the_sessions_of_the_outgoing_one_go_along_and_the_ring_waits_for_them() {
    let mut world = ring();
    session_of_first(&mut world);
    assert_eq!(session_owner(&world).agent, Some(agent("pc1")));

    let rotation = force(&mut world, None).unwrap();
    assert_eq!((rotation.state, rotation.owner), (RotationState::HandingOver, Some(agent("pc1"))));
    take(&mut world, "pc2");

    assert_eq!(session_owner(&world).agent, Some(agent("pc2")));
    assert_eq!(owner(&world).as_deref(), Some("pc2"));
    // Nothing is archived before work goes on.
    assert!(
        !told(&world)
            .iter()
            .any(|what| matches!(what, What::Resumed { packages } if !packages.is_empty()))
    );
    let work = for_role(&mut world);
    world.done(work);
    let resumed = What::Resumed { packages: vec![PackageId::from_u128(5)] };
    assert_eq!(told(&world).last(), Some(&resumed));
}

#[test]
fn one_that_does_not_take_the_sessions_is_passed_over_and_the_next_gets_them() {
    let mut world = ring_of(|policy| policy.handoff.offer_deadline = secs(3_600));
    session_of_first(&mut world);
    force(&mut world, None).unwrap();
    built(&mut world);
    world.advance(secs(60));
    assert_eq!(owner(&world).as_deref(), Some("pc1"));
    let handover = shown(&mut world).handover.unwrap();
    assert_eq!(handover.to, Some(agent("pc3")));
    take(&mut world, "pc3");
    assert_eq!(owner(&world).as_deref(), Some("pc3"));
    assert_eq!(session_owner(&world).agent, Some(agent("pc3")));
}
