//! A session that comes home: what others wrote meanwhile is unverified until somebody has checked it.

use broker_proto::{ContentHash, Handoff, HandoffId, HandoffState, SessionInfo, Unverified};

use super::{
    handoff::{accept, begin, built, by, command, id, offered},
    world::*,
};
use crate::core::{
    Command,
    handoff::Command as HandoffCommand,
    session::{self, Change, NewEntries, NewEntry, Point, Start, Write},
};

fn info(world: &World) -> SessionInfo {
    world.state.session.get(&id()).unwrap().info.clone()
}

fn entries(numbers: &[u8]) -> NewEntries {
    let entry =
        |n: &u8| NewEntry { hash: ContentHash([*n; 32]), length: 4, tokens: 30, size_bytes: 4 };
    NewEntries { entries: numbers.iter().map(entry).collect(), ..NewEntries::default() }
}

fn says(world: &mut World, numbers: &[u8], at: Option<Point>) {
    world.run(Command::Session(Box::new(session::Command::Write(Box::new(Write {
        id: id(),
        expected: session::Expected::default(),
        at,
        entries: entries(numbers),
        task: None,
        shared: None,
        answer_of: None,
        change: Change::Appended,
    })))));
}

/// Taken away by `to`, which says so many entries there.
fn away(world: &mut World, to: &str, numbers: &[u8]) -> HandoffId {
    let handoff = offered(world, to);
    accept(world, handoff, to).unwrap();
    says(world, numbers, None);
    handoff
}

fn give_back(world: &mut World, handoff: HandoffId) -> Handoff {
    let back = HandoffCommand::GiveBack { id: handoff, reason: String::new() };
    let back = command(world, back).unwrap();
    built(world, back.id).unwrap()
}

fn of(from: u64, until: u64, by: &[&str]) -> Option<Unverified> {
    Some(Unverified {
        home: model("opus"),
        from,
        until,
        by: by.iter().map(|it| model(it)).collect(),
    })
}

fn verify(world: &mut World) {
    world.run(Command::Session(Box::new(session::Command::Verify { id: id() })));
}

#[test]
fn what_others_wrote_is_unverified_from_the_switch_home_until_somebody_has_checked_it() {
    let mut world = World::new();
    begin(&mut world);
    let handoff = away(&mut world, "sonnet", &[3, 4]);
    assert_eq!(info(&world).unverified, None, "it is its owner's own while it has the session");

    let back = give_back(&mut world, handoff);
    assert_eq!(info(&world).unverified, None, "it has not come home yet");
    // Of what is said until the switch, too.
    says(&mut world, &[5], None);
    accept(&mut world, back.id, "opus").unwrap();

    assert_eq!(info(&world).unverified, of(2, 5, &["sonnet"]));
    says(&mut world, &[6], None);
    world.restart(secs(1));
    assert_eq!(info(&world).unverified, of(2, 5, &["sonnet"]), "what comes after is its own");
    let before = info(&world).version;
    verify(&mut world);
    assert_eq!((info(&world).unverified, info(&world).version), (None, before + 1));
    verify(&mut world);
    assert_eq!(info(&world).version, before + 1, "said again, it is no other word");
}

#[test]
fn a_way_back_that_fails_leaves_nothing_behind() {
    let mut world = World::new();
    begin(&mut world);
    let handoff = away(&mut world, "sonnet", &[3, 4]);
    let before = info(&world);
    let back = give_back(&mut world, handoff);
    let reason = "not yet".to_owned();
    let no = HandoffCommand::Decline { id: back.id, by: by("opus"), reason, for_model: false };
    command(&mut world, no).unwrap();
    assert_eq!(world.state.handoff.get(back.id).unwrap().state, HandoffState::Declined);
    assert_eq!(info(&world), before);
}

#[test]
fn what_nobody_checked_is_still_unverified_after_the_next_stay_elsewhere() {
    let mut world = World::new();
    begin(&mut world);
    let first = away(&mut world, "sonnet", &[3, 4]);
    let back = give_back(&mut world, first);
    accept(&mut world, back.id, "opus").unwrap();
    says(&mut world, &[5], None);
    let second = away(&mut world, "gpt-4o", &[6]);
    assert_eq!(info(&world).unverified, of(2, 4, &["sonnet"]));
    let back = give_back(&mut world, second);
    accept(&mut world, back.id, "opus").unwrap();
    let all = info(&world).unverified.unwrap();
    assert_eq!((all.until, all.by.len()), (6, 2));
    assert_eq!(all.from, 2);
}

#[test]
fn a_fork_and_an_earlier_point_have_what_they_hold_of_it() {
    let mut world = World::new();
    begin(&mut world);
    let handoff = away(&mut world, "sonnet", &[3, 4]);
    let back = give_back(&mut world, handoff);
    accept(&mut world, back.id, "opus").unwrap();
    let fork = |world: &mut World, name: &str, entries: u64| {
        let head = broker_proto::SessionHead { entries, ..info(world).head };
        let fork = broker_proto::SessionId::parse(name).unwrap();
        world.run(Command::Session(Box::new(session::Command::Start(Box::new(Start {
            id: fork.clone(),
            title: String::new(),
            owner: model("opus"),
            from: Some((id(), Vec::new())),
            at: Point { head, ..Point::default() },
            entries: NewEntries::default(),
            change: Change::Forked,
        })))));
        world.state.session.get(&fork).unwrap().info.unverified.clone()
    };
    assert_eq!(fork(&mut world, "whole", 4), of(2, 4, &["sonnet"]));
    assert_eq!(fork(&mut world, "part", 3), of(2, 3, &["sonnet"]));
    assert_eq!(fork(&mut world, "before", 2), None);

    let head = broker_proto::SessionHead { entries: 2, ..info(&world).head };
    says(&mut world, &[7], Some(Point { head, ..Point::default() }));
    assert_eq!(info(&world).unverified, None, "it was left behind");
}
