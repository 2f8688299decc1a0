//! I-8: bulk senders, which number their messages.

use broker_proto::{Numbered, ProducerName, Sender};

use super::world::*;
use crate::core::{Command, Earlier, NewMessage, Refusal, queue::Digest, queue::Seq};

fn numbered(producer: &str, number: u64) -> Option<Numbered> {
    Some(Numbered { producer: ProducerName::parse(producer).unwrap(), number })
}

impl World {
    fn bulk(&mut self, producer: &str, number: u64) -> NewMessage {
        NewMessage { numbered: numbered(producer, number), ..self.letter("scribe") }
    }
}

fn refused(world: &mut World, new: NewMessage) -> Refusal {
    let before = format!("{:?}", world.state);
    let refusal = world.send(new).unwrap_err();
    assert_eq!(before, format!("{:?}", world.state), "I-2: surely not stored");
    refusal
}

#[test]
fn a_number_sent_again_gets_the_first_receipt() {
    let mut world = World::empty(policy());
    let new = world.bulk("loader", 7);
    let first = world.send(new).unwrap();
    world.advance(secs(3));

    let again = world.bulk("loader", 7);
    let again = world.send(again).unwrap();

    assert_eq!((again.is_duplicate, again.message_id), (true, first.message_id));
    assert_eq!((again.accepted_at, again.deadline), (first.accepted_at, first.deadline));
    assert_eq!(world.state.queue.living(), [Seq(1)]);
}

#[test]
fn a_number_of_another_message_is_refused() {
    let mut world = World::empty(policy());
    let new = world.bulk("loader", 7);
    world.send(new).unwrap();

    let other = NewMessage { digest: Digest([2; 32]), ..world.bulk("loader", 7) };

    let refusal = refused(&mut world, other);
    assert!(matches!(refusal, Refusal::NumberReused(Numbered { number: 7, .. })));
}

#[test]
fn numbers_are_of_one_producer_of_one_sender() {
    let mut world = World::empty(policy());
    let first = world.bulk("loader", 7);
    let other_name = world.bulk("importer", 7);
    let sender = Sender::parse("other").unwrap();
    let other_sender = NewMessage { sender, ..world.bulk("loader", 7) };

    for new in [first, other_name, other_sender] {
        assert!(!world.send(new).unwrap().is_duplicate);
    }
}

#[test]
fn the_last_4096_numbers_are_known_and_older_ones_refused() {
    let mut world = World::empty(policy());
    for number in [5_000, 905, 904] {
        let new = world.bulk("loader", number);
        let sent = world.send(new);
        if number == 904 {
            let Err(Refusal::SequenceTooOld { oldest, .. }) = sent else { panic!("{sent:?}") };
            assert_eq!(oldest, 905);
        } else {
            assert!(!sent.unwrap().is_duplicate, "{number} may come late");
        }
    }
}

#[test]
fn a_restart_forgets_no_number() {
    let mut world = World::empty(policy()).with_agent("scribe", 1);
    let new = world.bulk("loader", 5_000);
    let receipt = world.send(new).unwrap();
    world.done(Seq(1));
    let finish_no = world.state.queue.finish_no();
    world.run(Command::Projected { finish_no });
    world.restart(secs(1));

    let too_old = world.bulk("loader", 904);
    assert!(matches!(refused(&mut world, too_old), Refusal::SequenceTooOld { .. }));
    let again = world.bulk("loader", 5_000);
    let earlier_number = Some(Earlier { digest: again.digest, receipt });
    let again = NewMessage { earlier_number, ..again };
    let other = NewMessage { digest: Digest([2; 32]), ..again.clone() };
    assert!(world.send(again).unwrap().is_duplicate, "the projection knows it");
    assert!(matches!(refused(&mut world, other), Refusal::NumberReused(_)));
}

#[test]
fn a_sender_has_256_producers_at_most() {
    let mut world = World::empty(policy());
    for name in 0..256 {
        let new = world.bulk(&format!("p{name}"), 1);
        world.send(new).unwrap();
    }

    let another = world.bulk("another", 1);
    assert_eq!(refused(&mut world, another), Refusal::TooManyProducers { limit: 256 });
    let known = world.bulk("p7", 2);
    assert!(!world.send(known).unwrap().is_duplicate);
}

#[test]
fn a_number_is_its_message_s_and_not_its_copies() {
    let mut world = World::new();
    let to = broker_proto::Recipient::AgentsOf(model("opus"));
    let new = NewMessage { to: to.clone(), ..world.bulk("loader", 7) };
    let first = world.send(new).unwrap();

    let again = NewMessage { to, ..world.bulk("loader", 7) };

    assert_eq!(world.send(again).unwrap().message_id, first.message_id);
}
