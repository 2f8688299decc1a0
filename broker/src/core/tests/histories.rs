//! Random histories: what holds whatever happens.

use std::collections::{BTreeMap, BTreeSet};

use broker_proto::{FailureClass, MessageId, MessageState, Priority, Recipient};
use proptest::prelude::*;

use super::world::*;
use crate::core::{
    Command, Effect, Event, Letters, NewMessage, Outcome, Policy, Refusal, Reply, Which,
    policy::Routing,
    queue::{Body, Digest, Seq},
};

const NAMES: [&str; 4] = ["opus", "sonnet", "gpt-4o", "local"];

#[derive(Debug, Clone, Copy)]
enum Step {
    Ask {
        asked: usize,
        options: u8,
        priority: u8,
    },
    Write {
        to: usize,
    },
    Again {
        of: usize,
        is_other: bool,
    },
    Settle {
        of: usize,
        how: u8,
        class: usize,
        after: Option<u64>,
        shown: bool,
    },
    /// A settlement of an earlier delivery, or of one that never was.
    Stale {
        of: usize,
        epoch: u32,
    },
    Beat {
        name: usize,
    },
    Greet {
        name: usize,
        instance: u8,
        credit: u32,
        resumes: bool,
    },
    HangUp {
        name: usize,
    },
    Credit {
        name: usize,
        messages: u32,
    },
    Cancel {
        of: usize,
    },
    Leave {
        of: usize,
    },
    Return {
        of: usize,
    },
    Corrupt {
        of: usize,
    },
    Redrive {
        name: usize,
    },
    Purge {
        name: usize,
    },
    Pause {
        name: usize,
        is_paused: bool,
    },
    Project,
    Pass {
        millis: u64,
    },
    Restart {
        millis: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let of = 0..1_000_usize;
    let name = 0..4_usize;
    prop_oneof![
        8 => (name.clone(), any::<u8>(), 0..4_u8)
            .prop_map(|(asked, options, priority)| Step::Ask { asked, options, priority }),
        2 => name.clone().prop_map(|to| Step::Write { to }),
        1 => (of.clone(), any::<bool>()).prop_map(|(of, is_other)| Step::Again { of, is_other }),
        12 => (of.clone(), 0..8_u8, 0..18_usize, prop::option::of(0..9_000_u64), any::<bool>())
            .prop_map(|(of, how, class, after, shown)| Step::Settle { of, how, class, after, shown }),
        2 => (of.clone(), 0..4_u32).prop_map(|(of, epoch)| Step::Stale { of, epoch }),
        3 => name.clone().prop_map(|name| Step::Beat { name }),
        3 => (name.clone(), 0..3_u8, 0..4_u32, any::<bool>()).prop_map(
            |(name, instance, credit, resumes)| Step::Greet { name, instance, credit, resumes }
        ),
        1 => name.clone().prop_map(|name| Step::HangUp { name }),
        4 => (name, 0..4_u32).prop_map(|(name, messages)| Step::Credit { name, messages }),
        1 => of.clone().prop_map(|of| Step::Cancel { of }),
        1 => of.clone().prop_map(|of| Step::Leave { of }),
        1 => of.clone().prop_map(|of| Step::Return { of }),
        1 => of.prop_map(|of| Step::Corrupt { of }),
        2 => (0..4_usize).prop_map(|name| Step::Redrive { name }),
        1 => (0..4_usize).prop_map(|name| Step::Purge { name }),
        1 => (0..4_usize, any::<bool>()).prop_map(|(name, is_paused)| Step::Pause { name, is_paused }),
        1 => Just(Step::Project),
        6 => (0..12_000_u64).prop_map(|millis| Step::Pass { millis }),
        1 => (0..5_000_u64).prop_map(|millis| Step::Restart { millis }),
    ]
}

/// A world, and what an observer outside has seen of it.
struct Observed {
    world: World,
    sent: Vec<NewMessage>,
    granted: BTreeMap<u64, u64>,
}

fn letters(name: usize) -> Letters {
    let which = match name {
        0 => Which::All,
        1 => Which::To(Recipient::Agent(agent(NAMES[name]))),
        _ => Which::To(Recipient::Model(model(NAMES[name]))),
    };
    Letters { which, after: Seq(0), is_dry_run: false }
}

fn small(policy: Policy) -> Policy {
    let routing = Routing { breaker_failures: 2, ..policy.routing };
    Policy { max_lost_leases: 3, queue_messages: 12, dead_letters: 2, routing, ..policy }
}

impl Observed {
    fn new() -> Self {
        Self { world: World::empty(small(policy())), sent: vec![], granted: BTreeMap::new() }
    }

    /// I-2: whatever is refused leaves the state as it was.
    fn decide(&mut self, command: Command) -> Result<Reply, Refusal> {
        let before = format!("{:?}", self.world.state);
        let refusal = match self.world.decide(command) {
            Ok(reply) => return Ok(reply),
            Err(refusal) => refusal,
        };
        assert_eq!(before, format!("{:?}", self.world.state), "{refusal}");
        Err(refusal)
    }

    fn accepted(&self, of: usize) -> Option<(Seq, MessageId)> {
        let all: Vec<_> = self
            .world
            .journal
            .iter()
            .filter_map(|event| match event {
                Event::Accepted(a) => Some((a.subject.seq, a.subject.id)),
                _ => None,
            })
            .collect();
        (!all.is_empty()).then(|| all[of % all.len()])
    }

    fn delivered(&self, of: usize) -> Option<Seq> {
        let all = &self.world.deliveries;
        (!all.is_empty()).then(|| all[all.len() - 1 - of % all.len().min(6)].seq)
    }

    fn send(&mut self, new: NewMessage) {
        let before = format!("{:?}", self.world.state);
        self.sent.push(new.clone());
        if let Err(refusal) = self.world.send(new) {
            assert_eq!(before, format!("{:?}", self.world.state), "{refusal}");
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Ask { asked, options, priority } => {
                let mut new = self.world.message(NAMES[asked]);
                let priorities =
                    [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent];
                new.priority = priorities[usize::from(priority)];
                new.body = Body { size_bytes: 1 + u64::from(options), ..Body::default() };
                let c = new.consultation.as_mut().unwrap();
                c.options.no_fallback = options & 3 == 0;
                c.options.allow_restart = options & 4 == 0;
                c.options.keep = options & 8 == 0;
                c.options.return_window = (options & 16 == 0).then(|| secs(u64::from(options)));
                c.options.max_cost_usd = (options & 96 == 0).then_some(0.01);
                c.needs_vision = options & 160 == 0;
                c.prompt_bytes = if options & 192 == 64 { 600_000 } else { 400 };
                self.send(new);
            }
            Step::Write { to } => {
                let new = self.world.letter(NAMES[to]);
                self.send(new);
            }
            Step::Again { of, is_other } => {
                let Some(mut new) = self.sent.get(of % self.sent.len().max(1)).cloned() else {
                    return;
                };
                if is_other {
                    new.digest = Digest([9; 32]);
                }
                self.send(new);
            }
            Step::Settle { of, how, class, after, shown } => {
                let Some(seq) = self.delivered(of) else { return };
                if shown {
                    self.world.show(seq);
                }
                let mut failure = failure(FailureClass::ALL[class]);
                failure.retry_at =
                    after.map(|ms| self.world.wall().after(std::time::Duration::from_millis(ms)));
                let outcome = match how {
                    0..=2 => done(),
                    3 | 4 => Outcome::Failed { failure, partial: None, shown },
                    5 => Outcome::Retry { after: secs(u64::from(shown)), shown },
                    6 => Outcome::Reject { reason: "no".into() },
                    _ => Outcome::Release { shown },
                };
                let settle = self.world.settlement(seq, outcome);
                let again = settle.clone();
                let first = self.decide(Command::Settle(Box::new(settle)));
                let held = self.world.token(seq) == (again.seq, again.epoch);
                if first.is_ok() && held {
                    let ended = self.world.finished(seq).map(|f| f.epoch);
                    let again = crate::core::SettleCommand { earlier: ended, ..again };
                    let journal = self.world.journal.len();
                    self.decide(Command::Settle(Box::new(again))).unwrap();
                    assert_eq!(journal, self.world.journal.len(), "I-19");
                }
            }
            Step::Stale { of, epoch } => {
                let Some(seq) = self.delivered(of) else { return };
                let mut settle = self.world.settlement(seq, done());
                if settle.epoch == epoch {
                    return;
                }
                settle.epoch = epoch;
                let journal = self.world.journal.len();
                let reply = self.decide(Command::Settle(Box::new(settle)));
                assert_eq!(journal, self.world.journal.len(), "I-14");
                let settled = self.world.state.queue.get(seq).map(|m| m.settled());
                assert!(reply.is_err() || settled == Some(Some(epoch)) || settled.is_none());
            }
            Step::Beat { name } => {
                let agent = agent(NAMES[name]);
                let leases = self.world.deliveries.iter().map(|d| (d.seq, d.epoch)).collect();
                self.decide(Command::Renew { agent, leases }).unwrap();
            }
            Step::Greet { name, instance, credit, resumes } => {
                let name = NAMES[name];
                let up = link(name, &format!("process {instance}"), credit);
                let held = self.world.deliveries.iter().map(|d| (d.seq, d.epoch));
                let resume = if resumes { held.collect() } else { vec![] };
                self.world.greet_as(up, resume);
                let link = self.world.link(name);
                *self.granted.entry(link.0).or_default() += u64::from(credit);
            }
            Step::HangUp { name } => self.world.hang_up(NAMES[name]),
            Step::Credit { name, messages } => {
                let link = self.world.link(NAMES[name]);
                let credit = Command::Credit { link, messages, size_bytes: 0 };
                if self.decide(credit).is_ok() {
                    *self.granted.entry(link.0).or_default() += u64::from(messages);
                }
            }
            Step::Cancel { of } => {
                if let Some((_, id)) = self.accepted(of) {
                    let _ = self.decide(cancel(id));
                }
            }
            Step::Leave { of } => {
                if let Some((seq, _)) = self.accepted(of) {
                    self.decide(Command::AskerLeft { seq }).unwrap();
                }
            }
            Step::Return { of } => {
                if let Some((seq, _)) = self.accepted(of) {
                    self.decide(Command::AskerBack { seq }).unwrap();
                }
            }
            Step::Corrupt { of } => {
                // The shell finds it before it sends, over the link it was to be sent on.
                let Some(seq) = self.delivered(of) else { return };
                let Some(last) = self.world.deliveries.iter().rev().find(|d| d.seq == seq) else {
                    return;
                };
                let (link, epoch) = (last.link, last.epoch);
                if self.world.state.agent.link(link).is_some() {
                    self.decide(Command::Corrupt { seq, epoch }).unwrap();
                    *self.granted.entry(link.0).or_default() += 1;
                }
            }
            Step::Redrive { name } => {
                self.decide(Command::Redrive(letters(name))).unwrap();
            }
            Step::Purge { name } => {
                self.decide(Command::Purge(letters(name))).unwrap();
            }
            Step::Pause { name, is_paused } => {
                let queue = Recipient::Model(model(NAMES[name]));
                self.decide(Command::Pause { queue, is_paused }).unwrap();
            }
            Step::Project => {
                let finish_no = self.world.state.queue.finish_no();
                self.decide(Command::Projected { finish_no }).unwrap();
            }
            Step::Pass { millis } => self.world.advance(std::time::Duration::from_millis(millis)),
            Step::Restart { millis } => {
                self.world.restart(std::time::Duration::from_millis(millis));
            }
        }
    }

    /// I-33, I-26: whatever was done last.
    fn check_counters(&self) {
        let counters = self.world.state.queue.counters();
        assert_eq!(*counters, self.world.counted(), "I-33");
        assert!(counters.values().all(|counters| counters.is_balanced()), "I-33");
        assert!(counters.values().all(|counters| counters.dead <= 2), "I-26");
    }

    fn check(&self) {
        let mut numbers = BTreeSet::new();
        let mut ended = BTreeSet::new();
        let mut dead = BTreeSet::new();
        let mut leased: BTreeMap<Seq, u32> = BTreeMap::new();
        let mut deadlines = BTreeMap::new();
        for event in &self.world.journal {
            match event {
                Event::Accepted(a) => {
                    let is_new = numbers.last().is_none_or(|last| *last < a.subject.seq);
                    assert!(is_new, "I-9");
                    numbers.insert(a.subject.seq);
                    deadlines.insert(a.subject.seq, a.deadline);
                }
                Event::Finished(f) => {
                    assert!(ended.insert(f.subject.seq), "I-6");
                    if f.state == MessageState::Dead {
                        dead.insert(f.subject.seq);
                    }
                }
                Event::Redriven { subject, deadline, .. } => {
                    assert!(dead.remove(&subject.seq) && ended.remove(&subject.seq), "I-27");
                    deadlines.insert(subject.seq, *deadline);
                }
                Event::Purged { subject, .. } => assert!(dead.remove(&subject.seq), "I-27"),
                Event::Leased { subject, epoch, at, .. } => {
                    assert!(!ended.contains(&subject.seq), "I-18");
                    let before = leased.insert(subject.seq, *epoch).unwrap_or(0);
                    assert_eq!(before + 1, *epoch, "I-13");
                    assert!(*at < deadlines[&subject.seq], "I-22");
                }
                _ => assert!(event.subject().is_none_or(|s| !ended.contains(&s.seq)), "I-6"),
            }
        }
        let mut closed = BTreeSet::new();
        for effect in &self.world.effects {
            match effect {
                // Opened again for another life.
                Effect::Opened { seq, .. } => _ = closed.remove(seq),
                Effect::Closed { seq, .. } => assert!(closed.insert(*seq), "I-35"),
                Effect::AttemptBegins { seq, .. } => assert!(!closed.contains(seq), "I-35"),
                _ => {}
            }
        }
        let mut given: BTreeMap<u64, u64> = BTreeMap::new();
        for delivery in &self.world.deliveries {
            *given.entry(delivery.link.0).or_default() += 1;
        }
        for (link, given) in given {
            let granted = self.granted.get(&link).copied().unwrap_or(0);
            assert!(given <= granted, "I-29: {given} of {granted} on link {link}");
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    // I-2, I-6, I-9, I-13, I-14, I-18, I-19, I-22, I-26, I-27, I-29, I-33, I-35; and both kinds of restart behave the same.
    #[test]
    fn every_accepted_message_has_exactly_one_end(steps in prop::collection::vec(step(), 1..120)) {
        let mut observed = Observed::new();
        for step in steps {
            observed.take(step);
            observed.check_counters();
        }
        observed.check();

        observed.world.advance(FOR_EVER);

        observed.check();
        observed.check_counters();
        for event in observed.world.journal.clone() {
            let Event::Accepted(accepted) = event else { continue };
            let seq = accepted.subject.seq;
            prop_assert!(observed.world.end(seq).is_some(), "I-6: {seq:?}");
            let frames = observed.world.terminals(seq).len();
            let is_redrive = |event: &&Event| {
                matches!(event, Event::Redriven { subject, .. } if subject.seq == seq)
            };
            let lives = 1 + observed.world.journal.iter().filter(is_redrive).count();
            prop_assert_eq!(frames, if accepted.consultation.is_some() { lives } else { 0 }, "I-35");
        }
        prop_assert_eq!(observed.world.state.queue.living(), vec![]);
    }

    // Nobody is forgotten: not behind a probe that ended, a gate that opened, a sweep that was cut short.
    #[test]
    fn once_every_agent_is_there_and_answers_nothing_is_left(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut observed = Observed::new();
        for step in steps {
            observed.take(step);
        }
        let world = &mut observed.world;
        for name in NAMES {
            world.greet(name, "the last", 1_000);
            let queue = Recipient::Model(model(name));
            world.run(Command::Pause { queue, is_paused: false });
        }
        for _ in 0..10 {
            for seq in world.state.queue.living() {
                world.run(Command::AskerBack { seq });
                if world.state.queue.get(seq).is_some_and(|message| message.lease().is_some()) {
                    world.done(seq);
                }
            }
            let all = Letters { which: Which::All, after: Seq(0), is_dry_run: false };
            world.run(Command::Purge(all));
            world.advance(secs(6));
        }

        let left = world.state.queue.living();
        prop_assert!(left.is_empty(), "{:?}", world.state.queue.get(left[0]));
    }

    #[test]
    fn the_same_commands_give_the_same_events(steps in prop::collection::vec(step(), 1..80)) {
        let [mut a, mut b] = [Observed::new(), Observed::new()];
        for step in steps {
            a.take(step);
            b.take(step);
        }
        prop_assert_eq!(a.world.journal, b.world.journal);
        prop_assert_eq!(a.world.effects, b.world.effects);
    }
}
