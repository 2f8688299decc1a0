use std::time::Duration;

use broker_proto::{FailureClass, MessageState, MessageType, Priority, Recipient, Sender};

use super::world::*;
use crate::core::{
    Command, Earlier, Event, NewMessage, Outcome, Refusal,
    policy::Reserve,
    queue::{Body, Digest, Hold, Seq},
};

#[track_caller]
fn refused(world: &mut World, new: NewMessage) -> Refusal {
    let before = format!("{:?}", world.state);
    let refusal = world.send(new).unwrap_err();
    assert_eq!(before, format!("{:?}", world.state), "I-2: surely not stored");
    refusal
}

// I-6
#[test]
fn unknown_recipients_are_refused_at_once() {
    let mut world = World::new();
    let model = world.message("oups");
    let letter = NewMessage { allow_future_recipient: false, ..world.letter("nobody") };

    let refusal = refused(&mut world, model);
    assert!(matches!(refusal, Refusal::UnknownModel { given, .. } if given == "oups"));
    let refusal = refused(&mut world, letter);
    assert!(matches!(refusal, Refusal::UnknownAgent(name) if name == "nobody"));
}

#[test]
fn a_future_recipient_gets_what_was_allowed_to_wait_for_it() {
    let mut world = World::empty(policy());
    let letter = world.letter("scribe");
    world.send(letter).unwrap();
    assert_eq!(world.delivered(), []);

    world.greet("scribe", "first", 1);

    assert_eq!(world.delivered(), [(Seq(1), "-".into(), 1)]);
}

#[test]
fn a_recipient_with_a_token_is_known() {
    let mut world = World::empty(policy());
    world.run(Command::SetToken { agent: agent("scribe"), hash: Some([7; 32]) });
    let letter = NewMessage { allow_future_recipient: false, ..world.letter("scribe") };

    world.send(letter).unwrap();

    assert_eq!(world.state.queue.load(&Recipient::Agent(agent("scribe"))).0, 1);
}

#[test]
fn a_model_takes_consultations_only() {
    let mut world = World::new();
    let wrong = NewMessage { kind: MessageType::Handoff, ..world.message("opus") };

    let kind = MessageType::Handoff;
    let to = Recipient::Model(model("opus"));
    assert_eq!(refused(&mut world, wrong), Refusal::WrongType { kind, to });
}

// I-7
#[test]
fn the_same_message_again_gets_the_first_receipt_and_no_second_call() {
    let mut world = World::new();
    let new = world.message("opus");
    let first = world.send(new.clone()).unwrap();
    world.advance(secs(3));

    let again = world.send(new.clone()).unwrap();

    assert!(again.is_duplicate && !first.is_duplicate);
    assert_eq!((again.accepted_at, again.deadline), (first.accepted_at, first.deadline));
    assert_eq!(world.deliveries.len(), 1);

    world.done(Seq(1));
    assert!(world.send(new).unwrap().is_duplicate, "also when it has ended");
    assert_eq!(world.deliveries.len(), 1);
}

// I-7
#[test]
fn the_same_id_for_another_message_is_refused() {
    let mut world = World::new();
    let new = world.message("opus");
    world.send(new.clone()).unwrap();

    let other = NewMessage { digest: Digest([2; 32]), ..new.clone() };

    assert_eq!(refused(&mut world, other), Refusal::IdReused(new.id));
}

// I-7
#[test]
fn an_id_is_unique_per_sender_only() {
    let mut world = World::new();
    let new = world.message("opus");
    world.send(new.clone()).unwrap();
    let other = NewMessage { sender: Sender::parse("other").unwrap(), ..new };

    assert!(!world.send(other).unwrap().is_duplicate);
}

// I-7
#[test]
fn what_only_the_projection_knows_is_a_duplicate_too() {
    let mut world = World::new();
    let new = world.message("opus");
    let receipt = world.send(new.clone()).unwrap();
    world.done(Seq(1));
    let finish_no = world.state.queue.finish_no();
    world.run(Command::Projected { finish_no });
    assert_eq!(world.state.queue.known(&new.sender, new.id), None, "it is not in memory any more");

    let earlier = Some(Earlier { digest: new.digest, receipt });
    let again = world.send(NewMessage { earlier: earlier.clone(), ..new.clone() }).unwrap();
    let other = NewMessage { digest: Digest([2; 32]), earlier, ..new.clone() };

    assert!(again.is_duplicate);
    assert_eq!(refused(&mut world, other), Refusal::IdReused(new.id));
}

// I-7
#[test]
fn what_the_projection_may_not_know_yet_stays_in_memory() {
    let mut world = World::new();
    let new = world.message("opus");
    world.send(new.clone()).unwrap();
    world.done(Seq(1));

    world.run(Command::Projected { finish_no: world.state.queue.finish_no() - 1 });

    assert!(world.state.queue.known(&new.sender, new.id).is_some());
    assert_eq!(world.state.queue.ended_by(Seq(1)), Some(1));
}

// I-7
#[test]
fn what_is_alive_stays_known_whatever_was_projected() {
    let mut world = World::new();
    let new = world.message("opus");
    world.send(new.clone()).unwrap();

    world.run(Command::Projected { finish_no: u64::MAX });

    assert!(world.send(new).unwrap().is_duplicate);
}

// I-9
#[test]
fn numbers_rise_over_a_restart_and_are_never_used_again() {
    let mut world = World::new();
    let last = world.ask("opus");
    world.done(last);
    world.restart(secs(1));

    let next = world.ask("opus");

    assert!(next > last, "{next:?} after {last:?}");
}

// I-28
#[test]
fn a_full_queue_refuses_and_says_when_to_come_back() {
    let mut world = World::empty(policy());
    world.state.policy.queue_messages = 2;
    for _ in 0..2 {
        let letter = world.letter("scribe");
        world.send(letter).unwrap();
    }

    let third = world.letter("scribe");
    let Refusal::QueueFull { limit, retry_after, .. } = refused(&mut world, third) else {
        panic!("not full")
    };

    assert_eq!((limit.as_str(), retry_after), ("2 messages", Duration::from_secs(1)));
}

// I-28
#[test]
fn a_tenth_of_a_cap_is_not_for_everybody() {
    let mut world = World::empty(policy());
    world.state.policy.queue_messages = 10;
    for _ in 0..9 {
        let letter = world.letter("scribe");
        world.send(letter).unwrap();
    }

    let tenth = world.letter("scribe");

    let refusal = refused(&mut world, tenth);
    assert!(matches!(refusal, Refusal::QueueFull { limit, .. } if limit == "9 messages"));
}

// I-28
#[test]
fn everything_alive_counts_wherever_in_the_queue_it_is() {
    let mut world = World::empty(policy()).with_agent("scribe", 3);
    world.state.policy.queue_messages = 5;
    let letters: Vec<Seq> = (0..5)
        .map(|_| {
            let letter = world.letter("scribe");
            world.ask_this(letter)
        })
        .collect();
    let (retried, held) = (letters[0], letters[1]);
    world.settle(retried, Outcome::Retry { after: secs(60), shown: false }).unwrap();
    let message = world.state.queue.get(held).unwrap();
    let event = Event::Held {
        subject: message.subject(),
        at: world.wall(),
        queue: Recipient::clone(&message.to),
        hold: Hold::Suspended,
        why: String::new(),
    };
    crate::core::apply(&mut world.state, &event);

    let sixth = world.letter("scribe");
    assert!(matches!(refused(&mut world, sixth), Refusal::QueueFull { .. }));
    let scribe = Recipient::Agent(agent("scribe"));
    let alive = world.state.queue.ready(&scribe).unwrap().alive();
    assert_eq!((alive.messages, alive.size_bytes), (5, 5 * 400));

    world.done(letters[2]);
    let sixth = world.letter("scribe");
    world.send(sixth).unwrap();
}

// I-28
#[test]
fn what_fallback_moved_here_counts_here() {
    let mut world = World::new();
    world.state.policy.queue_messages = 2;
    let opus = Recipient::Model(model("opus"));
    let sonnet = Recipient::Model(model("sonnet"));
    let first = world.ask("opus");
    world.fail(first, FailureClass::CreditExhausted);
    world.ask("opus");
    let alive = |queue| world.state.queue.ready(queue).map_or(0, |ready| ready.alive().messages);
    assert_eq!((alive(&opus), alive(&sonnet)), (0, 0), "one account's credit");
    let there = Recipient::Model(model("gpt-4o"));
    assert_eq!(alive(&there), 2);

    let third = world.message("gpt-4o");

    assert!(matches!(refused(&mut world, third), Refusal::QueueFull { .. }));
}

// I-12
#[test]
fn one_sender_fills_a_tenth_of_a_queue_as_urgent_and_no_more() {
    let mut world = World::empty(policy()).with_agent("scribe", 1);
    world.state.policy.queue_messages = 20;
    world.state.policy.queue_bytes = 10_000;
    let urgent =
        |world: &mut World| NewMessage { priority: Priority::Urgent, ..world.letter("scribe") };
    let first = urgent(&mut world);
    let first = world.ask_this(first);
    let second = urgent(&mut world);
    world.send(second).unwrap();

    let third = urgent(&mut world);
    let refusal = refused(&mut world, third.clone());
    assert!(matches!(refusal, Refusal::UrgentShare { limit, .. } if limit == "2 messages"));
    let other = NewMessage { sender: Sender::parse("other").unwrap(), ..third.clone() };
    world.send(other).unwrap();
    world.send(NewMessage { priority: Priority::High, ..third }).unwrap();

    world.done(first);
    let large = Body { size_bytes: 601, ..Body::default() };
    let large = NewMessage { body: large, ..urgent(&mut world) };
    let refusal = refused(&mut world, large);
    assert!(matches!(refusal, Refusal::UrgentShare { limit, .. } if limit == "1000 bytes"));
    let again = urgent(&mut world);
    world.send(again).unwrap();
}

// I-28
#[test]
fn the_store_keeps_the_greater_of_bytes_and_share() {
    let reserve = Reserve { bytes: 256 * MIB, percent: 5 };

    assert_eq!(reserve.of(1024 * MIB), 256 * MIB);
    assert_eq!(reserve.of(100 * 1024 * MIB), 5 * 1024 * MIB);
}

// I-28
#[test]
fn a_queue_is_full_by_bytes_too() {
    let mut world = World::empty(policy());
    world.state.policy.queue_bytes = 100;
    let body = Body { size_bytes: 101, ..Body::default() };
    let letter = NewMessage { body, ..world.letter("scribe") };

    assert!(matches!(refused(&mut world, letter), Refusal::QueueFull { .. }));
}

// I-6, I-20
#[test]
fn an_answer_and_the_end_of_its_question_are_one_event() {
    let mut world = World::new();
    let seq = world.ask("opus");
    let reply = Body { size_bytes: 77, ..Body::default() };

    let outcome = Outcome::Done { reply: reply.clone(), stop_reason: None };
    world.settle(seq, outcome).unwrap();

    let ends: Vec<_> = world
        .journal
        .iter()
        .filter_map(|e| if let Event::Finished(f) = e { Some(f) } else { None })
        .collect();
    assert_eq!(ends.len(), 1);
    assert_eq!((ends[0].state, &ends[0].reply), (MessageState::Done, &Some(reply)));
    assert_eq!(world.terminals(seq).len(), 1, "I-35");
}
