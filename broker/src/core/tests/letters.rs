//! Dead letters: their bounds, and the ways out of them; and what a paused queue holds back.

use broker_proto::{Counters, MessageState, QueueInfo, Recipient};

use super::world::*;
use crate::core::{
    Command, Effect, Event, Handled, Letters, NewMessage, Outcome, Query, Refusal, Reply, Which,
    queue::{Digest, Seq},
};

fn scribe() -> Recipient {
    Recipient::Agent(agent("scribe"))
}

/// A mailbox whose dead letters hold two.
fn world() -> World {
    let mut policy = policy();
    policy.dead_letters = 2;
    World::empty(policy).with_agent("scribe", 100)
}

fn of(which: Which) -> Letters {
    Letters { which, after: Seq(0), is_dry_run: false }
}

impl World {
    /// A letter that its agent finds to be poison.
    fn rejected(&mut self) -> Seq {
        let letter = self.letter("scribe");
        let seq = self.state.queue.next_seq();
        self.send(letter).unwrap();
        self.settle(seq, Outcome::Reject { reason: "poison".into() }).unwrap();
        seq
    }

    #[track_caller]
    fn handle(&mut self, command: Command) -> Handled {
        match self.run(command) {
            Reply::Handled(handled) => handled,
            other => panic!("answered by {other:?}"),
        }
    }

    fn redrive_all(&mut self) -> Handled {
        self.handle(Command::Redrive(of(Which::All)))
    }

    fn purge_all(&mut self) -> Handled {
        self.handle(Command::Purge(of(Which::All)))
    }

    fn pause(&mut self, queue: Recipient, is_paused: bool) -> Reply {
        self.run(Command::Pause { queue, is_paused })
    }

    fn queue(&mut self) -> QueueInfo {
        match self.run(Query::Queue(scribe()).into()) {
            Reply::Queues(mut queues) => queues.remove(0),
            other => panic!("answered by {other:?}"),
        }
    }

    fn counters(&self) -> Counters {
        self.state.queue.counters().values().copied().fold(Counters::default(), Counters::plus)
    }
}

impl From<Query> for Command {
    fn from(query: Query) -> Self {
        Self::Query(query)
    }
}

// I-26
#[test]
fn poison_beyond_the_bound_is_parked_and_nothing_is_dropped() {
    let mut world = world();
    let all: Vec<Seq> = (0..4).map(|_| world.rejected()).collect();

    let queue = world.queue();
    assert_eq!((queue.counters.dead, queue.parked, queue.is_degraded), (2, 2, true));
    assert!(world.counters().is_balanced());
    world.advance(secs(60));
    assert_eq!(world.deliveries.len(), 4, "a parked message is not delivered");

    assert_eq!(world.purge_all().done, 2);

    let queue = world.queue();
    assert_eq!((queue.counters.dead, queue.parked, queue.is_degraded), (2, 0, false));
    assert!(all.iter().all(|seq| world.end(*seq) == Some(MessageState::Dead)));
    let reasons = all.iter().map(|seq| world.finished(*seq).unwrap().failure.clone().unwrap());
    assert!(reasons.into_iter().all(|failure| failure.detail == "poison"));
}

// I-26
#[test]
fn dead_letters_are_bounded_by_their_bytes_too() {
    let mut policy = policy();
    policy.dead_letter_bytes = 1_000;
    let mut world = World::empty(policy).with_agent("scribe", 100);

    (0..3).for_each(|_| _ = world.rejected());

    assert_eq!((world.queue().counters.dead, world.queue().dead_bytes), (2, 800));
    assert_eq!(world.queue().parked, 1);
}

// I-26, I-25
#[test]
fn a_worn_out_question_is_parked_until_there_is_room_and_its_asker_then_told() {
    let mut world = World::with(|p| p.dead_letters = 1);
    let first = world.ask("opus");
    world.settle(first, Outcome::Reject { reason: "poison".into() }).unwrap();
    let seq = world.ask("opus");

    world.advance(LEASE * 5);
    assert_eq!((world.end(seq), world.terminals(seq).len()), (None, 0));
    world.restart(secs(1));
    world.run(Command::AskerBack { seq });
    world.purge_all();

    assert_eq!(world.end(seq), Some(MessageState::Dead));
    assert_eq!(world.attempts(seq).len(), 5);
}

// I-24, I-26
#[test]
fn what_is_parked_still_expires_and_that_is_no_dead_letter() {
    let mut world = world();
    (0..3).for_each(|_| _ = world.rejected());

    world.advance(FOR_EVER);

    let counters = world.counters();
    assert_eq!((counters.expired, counters.dead), (1, 2));
    assert!(!world.queue().is_degraded);
}

// I-27
#[test]
fn a_redriven_message_lives_again_under_its_id() {
    let mut world = world();
    let seq = world.rejected();
    let old = world.settlement(seq, done());
    let id = old.id.unwrap();

    assert_eq!(world.redrive_all().done, 1);

    let last = world.deliveries.last().unwrap().clone();
    assert_eq!((last.seq, last.id, last.epoch, last.generation), (seq, id, 2, 2));
    assert_eq!(world.finished(seq), None);
    let journal = world.journal.len();
    world.settle_with(crate::core::SettleCommand { earlier: None, ..old }).unwrap();
    assert_eq!(world.journal.len(), journal, "I-19: it was settled, by its rejection");
    world.done(seq);
    assert_eq!(world.end(seq), Some(MessageState::Done));
    let counters = world.counters();
    assert_eq!((counters.accepted, counters.done, counters.dead), (1, 1, 0));
}

// I-27, I-14
#[test]
fn a_token_of_the_life_before_is_fenced() {
    let mut world = World::empty(policy()).with_agent("scribe", 100);
    let letter = world.letter("scribe");
    world.send(letter).unwrap();
    let mut stale = world.settlement(Seq(1), done());
    stale.epoch = 4;
    world.advance(LEASE * 5);

    world.redrive_all();

    assert!(matches!(world.settle_with(stale), Err(Refusal::LeaseLost(_))));
    assert_eq!(world.token(Seq(1)), (Seq(1), 6));
    // It has five leases again, not none.
    world.advance(LEASE * 4);
    assert_eq!(world.finished(Seq(1)), None);
    world.restart(secs(1));
    world.advance(LEASE * 2);
    assert_eq!(world.counters().accepted, 1);
}

// I-27, I-35
#[test]
fn a_redriven_question_has_a_stream_and_a_chain_of_its_own() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.settle(seq, Outcome::Reject { reason: "poison".into() }).unwrap();
    let opened =
        |world: &World| world.effects.iter().filter(|e| matches!(e, Effect::Opened { .. })).count();
    assert_eq!(opened(&world), 1);

    world.redrive_all();
    assert_eq!(opened(&world), 2);
    // Nobody listens, and still it is done.
    for _ in 0..12 {
        world.advance(secs(5));
        world.run(Command::Renew { agent: agent("opus"), leases: vec![world.token(seq)] });
    }
    world.done(seq);

    assert_eq!(world.terminals(seq).len(), 2);
    let attempts = world.terminals(seq)[1].summary().attempts.clone();
    assert_eq!((attempts.len(), attempts[0].number), (1, 2));
}

// I-27, I-7
#[test]
fn a_redriven_or_purged_id_stays_known() {
    let mut world = world();
    let letter = world.letter("scribe");
    let receipt = world.send(letter.clone()).unwrap();
    world.settle(Seq(1), Outcome::Reject { reason: "poison".into() }).unwrap();
    let again = |world: &mut World| world.send(letter.clone()).unwrap();

    world.redrive_all();
    let finish_no = world.state.queue.finish_no();
    world.run(Command::Projected { finish_no });
    assert_eq!(again(&mut world).accepted_at, receipt.accepted_at);
    world.settle(Seq(1), Outcome::Reject { reason: "again".into() }).unwrap();
    world.purge_all();
    assert!(again(&mut world).is_duplicate);
    let other = NewMessage { digest: Digest([7; 32]), ..letter.clone() };
    assert!(matches!(world.send(other), Err(Refusal::IdReused(_))));
    let finish_no = world.state.queue.finish_no();
    world.run(Command::Projected { finish_no });

    assert!(again(&mut world).is_duplicate);
    let counters = world.counters();
    assert_eq!((counters.accepted, counters.purged), (1, 1));
}

// I-27, I-22
#[test]
fn a_new_life_is_as_long_as_the_last_and_never_beyond_what_its_sender_said() {
    let mut world = World::new();
    let asked = world.ask("opus");
    let mut new = world.message("opus");
    new.expires_at = Some(world.wall().after(secs(100)));
    let bounded = world.ask_this(new);
    for seq in [asked, bounded] {
        world.settle(seq, Outcome::Reject { reason: "no".into() }).unwrap();
    }
    world.advance(secs(90));

    assert_eq!(world.redrive_all().done, 2);

    let deadline = |seq| world.state.queue.get(seq).unwrap().deadline;
    assert_eq!(deadline(asked), world.wall().after(secs(600)));
    assert_eq!(deadline(bounded), world.wall().after(secs(10)));
    world.settle(bounded, Outcome::Reject { reason: "no".into() }).unwrap();
    world.advance(secs(10));
    let handled = world.redrive_all();
    assert_eq!((handled.done, &handled.skipped[0].refusal), (0, &Refusal::AlreadyExpired));
}

// I-27, I-28
#[test]
fn a_redrive_into_a_full_queue_leaves_the_letter_where_it_is() {
    let mut world = World::with(|p| p.queue_messages = 1).with_agent("scribe", 2);
    world.rejected();
    let letter = world.letter("scribe");
    world.send(letter).unwrap();

    let handled = world.redrive_all();

    assert!(matches!(handled.skipped[0].refusal, Refusal::QueueFull { .. }));
    assert_eq!((handled.done, world.queue().counters.dead), (0, 1));
}

// I-27
#[test]
fn letters_are_chosen_by_name_by_recipient_or_all_and_a_dry_run_touches_none() {
    let mut world = World::new().with_agent("scribe", 500);
    let question = world.ask("opus");
    world.settle(question, Outcome::Reject { reason: "no".into() }).unwrap();
    let all: Vec<Seq> = (0..80).map(|_| world.rejected()).collect();
    let journal = world.journal.len();

    let dry = Letters { is_dry_run: true, ..of(Which::To(scribe())) };
    let first = world.handle(Command::Purge(dry.clone()));
    let rest = Letters { after: first.next.unwrap(), ..dry };
    let rest = world.handle(Command::Purge(rest));
    assert_eq!((first.done + rest.done, rest.next, world.journal.len()), (80, None, journal));

    let id = world.given_id(all[3]);
    let named = || of(Which::Named(vec![(sender(), id)]));
    assert_eq!(world.handle(Command::Purge(named())).done, 1);
    assert_eq!(world.decide(Command::Purge(named())), Err(Refusal::NotDead(id)));
    assert_eq!(world.decide(Command::Redrive(named())), Err(Refusal::NotDead(id)));
    let to = of(Which::To(Recipient::Model(model("opus"))));
    assert_eq!(world.handle(Command::Redrive(to)).done, 1);
    assert_eq!(world.called(question), "opus");
}

// I-25
#[test]
fn a_mailboxs_failed_deliveries_are_kept_with_their_agents() {
    let mut world = world();
    let letter = world.letter("scribe");
    world.send(letter).unwrap();
    world.fail_until(Seq(1), broker_proto::FailureClass::Overloaded, secs(1));
    world.advance(secs(1));
    world.settle(Seq(1), Outcome::Reject { reason: "poison".into() }).unwrap();

    let failed = world.journal.iter().filter_map(|event| match event {
        Event::DeliveryFailed { epoch, agent, failure, .. } => {
            Some((*epoch, agent.to_string(), failure.detail.clone()))
        }
        _ => None,
    });
    let failed: Vec<_> = failed.collect();
    assert_eq!(
        failed,
        [(1, "scribe".into(), String::new()), (2, "scribe".into(), "poison".into())]
    );
}

#[test]
fn a_paused_queue_takes_and_settles_and_delivers_nothing() {
    let mut world = world();
    let [held, waiting] = [world.letter("scribe"), world.letter("scribe")];
    world.send(held).unwrap();

    world.pause(scribe(), true);
    world.send(waiting).unwrap();
    world.done(Seq(1));
    assert_eq!((world.deliveries.len(), world.queue().ready), (1, 1));
    world.restart(secs(1));
    world.greet("scribe", "second", 10);
    assert_eq!((world.deliveries.len(), world.queue().is_paused), (1, true));

    world.pause(scribe(), false);
    assert_eq!(world.deliveries.len(), 2);
    let nobody = Recipient::Agent(agent("nobody"));
    let unknown = world.decide(Command::Pause { queue: nobody.clone(), is_paused: true });
    assert_eq!(unknown, Err(Refusal::UnknownQueue(nobody)));
}

#[test]
fn a_question_waits_in_a_paused_queue() {
    let mut world = World::new();
    world.pause(Recipient::Model(model("opus")), true);
    let seq = world.ask("opus");
    world.advance(secs(60));
    assert_eq!(world.called(seq), "");

    world.pause(Recipient::Model(model("opus")), false);

    assert_eq!(world.called(seq), "opus");
}

#[test]
fn a_queue_is_peeked_page_by_page_in_the_order_of_its_priorities() {
    use broker_proto::Priority::{High, Low, Normal};
    let mut world = World::empty(policy());
    for priority in [Low, High, Normal, High] {
        let letter = world.letter("scribe");
        world.send(NewMessage { priority, ..letter }).unwrap();
    }
    let mut seen = vec![];
    loop {
        let after = seen.last().copied();
        let peek = Query::Peek { queue: scribe(), after, limit: 3 };
        let Reply::Peeked(page) = world.run(peek.into()) else { panic!("no page") };
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen, [(High, Seq(2)), (High, Seq(4)), (Normal, Seq(3)), (Low, Seq(1))]);
}
