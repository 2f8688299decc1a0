//! Whose turn it is: lines, strict keys, priorities, and what does not fit.

use broker_proto::{MessageType, Priority, Recipient};
use proptest::prelude::*;

use super::world::*;
use crate::core::{
    Command, NewMessage, Outcome,
    agent::Link,
    queue::{Body, Seq},
};

const LANES: [Priority; 4] = [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];

impl World {
    /// A letter to `scribe` of this key, or of none.
    fn write(&mut self, key: &str, change: impl FnOnce(&mut NewMessage)) -> Seq {
        let mut new = self.letter("scribe");
        new.ordering_key = (!key.is_empty()).then(|| key.to_owned());
        change(&mut new);
        let seq = self.state.queue.next_seq();
        self.run(Command::Send(Box::new(new)));
        seq
    }

    fn hand_off(&mut self, key: &str) -> Seq {
        self.write(key, |new| new.kind = MessageType::Handoff)
    }

    fn order(&mut self) -> Vec<Seq> {
        self.delivered().into_iter().map(|(seq, ..)| seq).collect()
    }
}

fn sized(size_bytes: u64) -> impl FnOnce(&mut NewMessage) {
    move |new| new.body = Body { size_bytes, ..Body::default() }
}

// I-10
#[test]
fn first_deliveries_of_a_priority_follow_their_numbers() {
    let mut world = World::empty(policy());
    let asked: Vec<Seq> = (0..5).map(|_| world.ask("opus")).collect();

    world.greet("opus", "first", 10);

    assert_eq!(world.order(), asked);
}

// I-10
#[test]
fn what_fits_passes_what_does_not_but_nobody_of_its_own_key() {
    let mut world = World::empty(policy());
    let large = world.write("a", sized(9 * MIB));
    let behind: Vec<Seq> = (0..1_000).map(|_| world.write("a", sized(1))).collect();
    let other = world.write("b", sized(1));
    let loose = world.write("", sized(1));

    world.greet_as(Link { credit_bytes: 8 * MIB, ..link("scribe", "first", 1_000) }, vec![]);

    assert_eq!(world.order(), [other, loose], "of 1,000 behind the large one none hides them");
    let link = world.link("scribe");
    world.run(Command::Credit { link, messages: 10, size_bytes: 10 * MIB });
    let order = world.order();
    assert_eq!((order[0], &order[1..]), (large, &behind[..order.len() - 1]));
}

// I-10
#[test]
fn the_default_key_is_the_sender_and_its_session() {
    let mut world = World::empty(policy());
    let in_session = |size| {
        move |new: &mut NewMessage| {
            new.session = Some("s".into());
            sized(size)(new);
        }
    };
    world.write("", in_session(9 * MIB));
    world.write("", in_session(1));
    let other = world.write("", |new| {
        new.session = Some("t".into());
    });

    world.greet_as(Link { credit_bytes: 8 * MIB, ..link("scribe", "first", 10) }, vec![]);

    assert_eq!(world.order(), [other]);
}

// I-11
#[test]
fn of_a_strict_key_one_is_out_at_a_time() {
    let mut world = World::empty(policy());
    let (first, second) = (world.hand_off("k"), world.hand_off("k"));
    let third = world.write("k", |new| new.kind = MessageType::Status);
    let other = world.hand_off("other");

    world.greet("scribe", "first", 10);
    assert_eq!(world.order(), [first, other]);
    world.done(first);

    assert_eq!(
        world.order(),
        [second, third],
        "a status keeps its place behind the handoff (I-10)"
    );
}

// I-11
#[test]
fn a_strict_key_waits_for_the_retry_of_its_first() {
    let mut world = World::empty(policy()).with_agent("scribe", 10);
    let (first, second) = (world.hand_off("k"), world.hand_off("k"));
    world.settle(first, Outcome::Retry { after: secs(5), shown: false }).unwrap();
    world.advance(secs(4));
    assert_eq!(world.order(), [first]);

    world.advance(secs(1));
    assert_eq!(world.order(), [first], "it is tried again first");
    world.advance(LEASE);
    assert_eq!(world.order(), [first], "also when its lease was lost");
    world.done(first);

    assert_eq!(world.order(), [second]);
}

// I-11
#[test]
fn a_strict_key_waits_for_what_is_held() {
    let mut world = World::empty(policy()).with_agent("scribe", 10);
    let (first, second) = (world.hand_off("k"), world.hand_off("k"));
    let message = world.state.queue.get(first).unwrap();
    let held = crate::core::Event::Held {
        subject: message.subject(),
        at: world.wall(),
        queue: Recipient::clone(&message.to),
        hold: crate::core::queue::Hold::InputRequired,
        why: "asked back".into(),
    };
    crate::core::apply(&mut world.state, &held);
    world.run(Command::Tick);
    assert_eq!(world.order(), [first]);

    let id = world.state.queue.get(first).unwrap().id;
    world.run(cancel(id));

    assert_eq!(world.order(), [second]);
}

// I-11
#[test]
fn a_restart_keeps_a_strict_key_strict() {
    let mut world = World::empty(policy()).with_agent("scribe", 10);
    let (first, second) = (world.hand_off("k"), world.hand_off("k"));
    world.restart(secs(1));
    world.greet_as(link("scribe", "first", 10), vec![world.token(first)]);
    assert_eq!(world.order(), [first]);

    world.done(first);

    assert_eq!(world.order(), [second]);
}

// I-11
#[test]
fn ten_thousand_held_back_hide_nobody() {
    let mut world = World::empty(policy()).with_agent("scribe", 10);
    world.state.policy.queue_messages = 20_000;
    let first = world.hand_off("k");
    for _ in 0..10_000 {
        world.hand_off("k");
    }
    for key in 0..200 {
        let key = format!("k{key}");
        let retried = world.hand_off(&key);
        world.settle(retried, Outcome::Retry { after: secs(60), shown: false }).unwrap();
        world.credit("scribe", 1);
        world.hand_off(&key);
    }
    world.delivered();

    let free = world.hand_off("free");

    assert_eq!(world.order(), [free]);
    assert_eq!(world.end(first), None);
}

// I-12
#[test]
fn priorities_share_a_backlogged_queue_eight_four_two_one() {
    let mut world = World::empty(policy());
    for priority in LANES {
        for _ in 0..1_000 {
            world.write("", |new| new.priority = priority);
        }
    }
    world.greet("scribe", "first", 1_500);

    let mut shares = [0_i32; 4];
    for seq in world.order() {
        shares[usize::try_from((seq.0 - 1) / 1_000).unwrap()] += 1;
    }

    for (share, want) in shares.into_iter().zip([100, 200, 400, 800]) {
        assert!((share - want).abs() * 10 <= want, "{shares:?}");
    }
}

#[derive(Debug, Clone, Copy)]
enum Turn {
    Write { lane: usize, key: u8, is_strict: bool },
    Credit { messages: u32 },
    Settle { of: usize, retries: bool },
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        8 => (0..4_usize, 0..6_u8, any::<bool>())
            .prop_map(|(lane, key, is_strict)| Turn::Write { lane, key, is_strict }),
        2 => (1..4_u32).prop_map(|messages| Turn::Credit { messages }),
        3 => (0..100_usize, any::<bool>()).prop_map(|(of, retries)| Turn::Settle { of, retries }),
    ]
}

/// What an observer of one queue knows of a message.
#[derive(Debug, Clone)]
struct Seen {
    lane: usize,
    key: u8,
    is_strict: bool,
    /// Delivered and not settled; `None` before the first delivery.
    is_out: Option<bool>,
    retries_at: Option<std::time::Duration>,
    is_done: bool,
}

proptest! {
    #![proptest_config(cases())]

    // I-10, I-11, I-12: whatever is written, taken, settled and tried again, in whatever mix of keys.
    #[test]
    fn lines_keep_their_order_and_low_waits_fifteen_deliveries_at_most(
        turns in prop::collection::vec(turn(), 1..300),
    ) {
        let mut world = World::empty(policy());
        world.greet("scribe", "first", 0);
        let mut seen: Vec<Seen> = Vec::new();
        let mut passed_low = 0;
        let mut time = secs(0);
        for turn in turns {
            match turn {
                Turn::Write { lane, key, is_strict } => {
                    // Key 0 is none.
                    let text = if key == 0 { String::new() } else { key.to_string() };
                    let at = seen.len();
                    seen.push(Seen {
                        lane, key, is_strict, is_out: None, retries_at: None, is_done: false,
                    });
                    let seq = world.write(&text, |new| {
                        new.priority = LANES[lane];
                        new.kind =
                            if is_strict { MessageType::Delegation } else { MessageType::Status };
                    });
                    prop_assert_eq!(usize::try_from(seq.0).unwrap(), at + 1);
                }
                Turn::Credit { messages } => world.credit("scribe", messages),
                Turn::Settle { of, retries } => {
                    let out: Vec<usize> =
                        (0..seen.len()).filter(|at| seen[*at].is_out == Some(true)).collect();
                    let Some(at) = out.get(of % out.len().max(1)).copied() else { continue };
                    let seq = Seq(at as u64 + 1);
                    let outcome = match retries {
                        true => Outcome::Retry { after: secs(2), shown: false },
                        false => done(),
                    };
                    seen[at].is_out = Some(false);
                    seen[at].is_done = !retries;
                    seen[at].retries_at = retries.then_some(time + secs(2));
                    world.settle(seq, outcome).unwrap();
                }
            }
            for (place, seq) in world.order().into_iter().enumerate() {
                let at = usize::try_from(seq.0).unwrap() - 1;
                let now = seen[at].clone();
                if now.is_out.is_none() && now.key != 0 {
                    let overtaken = seen[..at].iter().find(|other| {
                        other.is_out.is_none() && (other.key, other.lane) == (now.key, now.lane)
                    });
                    prop_assert!(overtaken.is_none(), "I-10: {seq:?} passed {overtaken:?}");
                }
                if now.is_strict && now.key != 0 {
                    let is_in_its_way = |(i, other): &(usize, &Seen)| {
                        let waits = *i < at && other.retries_at.is_some_and(|until| until > time);
                        *i != at && other.is_strict && other.key == now.key && !other.is_done
                            && (other.is_out == Some(true) || waits)
                    };
                    let blocker = seen.iter().enumerate().find(is_in_its_way);
                    prop_assert!(blocker.is_none(), "I-11: {seq:?} with {blocker:?}, {place}");
                }
                // The head of low waits while anything of low could go: here, while one without a key is left.
                let low_waits = seen.iter().any(|other| {
                    other.lane == 0 && other.key == 0 && other.is_out.is_none()
                });
                passed_low = if now.lane == 0 || !low_waits { 0 } else { passed_low + 1 };
                prop_assert!(passed_low <= 15, "I-12");
                seen[at].is_out = Some(true);
                seen[at].retries_at = None;
            }
            world.advance(std::time::Duration::from_millis(100));
            time += std::time::Duration::from_millis(100);
            let leases = world.deliveries.iter().map(|d| (d.seq, d.epoch)).collect();
            world.run(Command::Renew { agent: agent("scribe"), leases });
        }
    }
}

#[test]
fn byte_credit_of_one_link_is_not_asked_of_another() {
    let mut world = World::empty(policy());
    let up = |name: &str, credit_messages, credit_bytes| Link {
        models: vec![model("opus")],
        credit_messages,
        credit_bytes,
        ..link(name, name, 0)
    };
    world.greet_as(up("roomy", 0, 9 * MIB), vec![]);
    world.greet_as(up("small", 1, MIB), vec![]);
    let large = NewMessage {
        body: Body { size_bytes: 2 * MIB, ..Body::default() },
        ..world.message("opus")
    };
    world.ask_this(large);
    let small = world.ask("opus");

    assert_eq!(world.order(), [small]);
    assert_eq!(world.state.queue.load(&Recipient::Model(model("opus"))).0, 1);
}
