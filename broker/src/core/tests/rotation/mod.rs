//! Rings: one owner at every moment, and a full turn back to the first.

mod handover;
mod life;
mod sessions;

use std::time::Duration;

use broker_proto::{
    FailureClass, ForceRotation, Recipient, RoleName, Rotation, RotationState, SetRotation,
    UsageRecord,
};

use super::world::*;
use crate::core::{
    Command, Event, NewMessage, Policy, Refusal, Reply,
    agent::Link,
    queue::Seq,
    ring::{self, Reply as RingReply, What},
    usage,
};

const MEMBERS: [&str; 3] = ["pc1", "pc2", "pc3"];
const PAUSE: Duration = Duration::from_secs(300);

fn role() -> RoleName {
    RoleName::parse("builder").unwrap()
}

fn member(name: &str, messages: u32) -> Link {
    Link { roles: vec![role()], models: vec![model("opus")], ..link(name, "first", messages) }
}

fn wanted(members: &[&str]) -> SetRotation {
    let members = members.iter().map(|name| agent(name)).collect();
    SetRotation { role: role(), members, pick: None, pause: None, is_on: true }
}

fn command(world: &mut World, command: ring::Command) -> Result<Rotation, Refusal> {
    match world.decide(Command::Ring(Box::new(command)))? {
        Reply::Ring(RingReply::Rings(mut rings)) => Ok(rings.remove(0)),
        other => panic!("{other:?}"),
    }
}

fn set(world: &mut World, set: SetRotation) -> Result<Rotation, Refusal> {
    command(world, ring::Command::Set(set))
}

fn force(world: &mut World, to: Option<&str>) -> Result<Rotation, Refusal> {
    let to = to.map(agent);
    command(world, ring::Command::Force(ForceRotation { role: role(), to, reason: String::new() }))
}

fn shown(world: &mut World) -> Rotation {
    match world.run(Command::Query(crate::core::Query::Ring(ring::Query::Get(Some(role()))))) {
        Reply::Ring(RingReply::Rings(mut rings)) => rings.remove(0),
        other => panic!("{other:?}"),
    }
}

fn owner(world: &World) -> Option<String> {
    world.state.ring.get(&role())?.owner.as_ref().map(ToString::to_string)
}

/// Three members that are there, the first of them the owner.
fn ring_of(change: impl FnOnce(&mut Policy)) -> World {
    let mut policy = policy();
    change(&mut policy);
    let mut world = World::empty(policy);
    for name in MEMBERS {
        world.greet_as(member(name, 20), vec![]);
    }
    let rotation = set(&mut world, wanted(&MEMBERS)).unwrap();
    assert_eq!((rotation.state, rotation.epoch), (RotationState::Running, 1));
    world
}

fn ring() -> World {
    ring_of(|_| {})
}

fn task(world: &mut World, to: Recipient) -> Seq {
    let id = world.new_id();
    let seq = world.state.queue.next_seq();
    world.send(NewMessage { ..letter(id, to) }).unwrap();
    seq
}

fn for_role(world: &mut World) -> Seq {
    task(world, Recipient::Role(role()))
}

/// Who was given a message last.
fn taker(world: &World, seq: Seq) -> Option<String> {
    let leased = |event: &Event| match event {
        Event::Leased { subject, agent, .. } if subject.seq == seq => Some(agent.to_string()),
        _ => None,
    };
    world.journal.iter().rev().find_map(leased)
}

fn told(world: &World) -> Vec<What> {
    let what = |event: &Event| match event {
        Event::Ring(event) => Some(event.what.clone()),
        _ => None,
    };
    world.journal.iter().filter_map(what).collect()
}

fn limited(world: &mut World, seq: Seq) {
    world.fail_until(seq, FailureClass::RateLimited, secs(1));
}

fn record(world: &mut World, what: UsageRecord) {
    let record = usage::Record { model: Some(model("opus")), session: None, what };
    world.run(Command::Usage(Box::new(usage::Command::Record(record))));
}
