use broker_proto::{FailureClass, MessageId, MessageState, MessageType, TaskState};

use super::world::*;
use crate::core::{
    Command, Effect, Event, NewMessage, Outcome, Refusal, Reply, TaskStep,
    queue::{Body, Digest, Message, Place, Seq},
    task,
};

type Way = fn(&mut World, Seq);

fn body(size_bytes: u64) -> Body {
    Body { size_bytes, ..Body::default() }
}

fn ask() -> Outcome {
    Outcome::Ask { question: body(40), shown: false }
}

fn provide(id: u128) -> TaskStep {
    TaskStep::Provide {
        id: MessageId::from_u128(id),
        digest: Digest([7; 32]),
        answer: body(20),
        has_images: false,
        question: 0,
    }
}

impl World {
    /// Gives a task to a model.
    #[track_caller]
    fn delegate(&mut self, to: &str) -> Seq {
        let mut new = self.message(to);
        let options = &mut new.consultation.as_mut().unwrap().options;
        (options.keep, options.allow_restart) = (true, true);
        self.delegate_this(NewMessage { kind: MessageType::Delegation, ..new })
    }

    /// Gives a task to an agent's mailbox.
    #[track_caller]
    fn delegate_to_agent(&mut self, to: &str) -> Seq {
        let new = self.letter(to);
        self.delegate_this(NewMessage { kind: MessageType::Delegation, ..new })
    }

    #[track_caller]
    fn delegate_this(&mut self, new: NewMessage) -> Seq {
        let seq = self.state.queue.next_seq();
        self.send(new).unwrap();
        seq
    }

    fn task(&mut self, seq: Seq, step: TaskStep) -> Result<TaskState, Refusal> {
        match self.decide(Command::Task { seq, step })? {
            Reply::Task(state) => Ok(state),
            other => panic!("a step was answered by {other:?}"),
        }
    }

    #[track_caller]
    fn state_of(&self, seq: Seq) -> TaskState {
        match (self.state.queue.get(seq), self.finished(seq)) {
            (Some(message), _) => message.task_state().unwrap(),
            (None, Some(finished)) => task::of_end(finished.state, finished.failure.as_ref()),
            (None, None) => panic!("there is no such task"),
        }
    }

    fn revoked(&self, seq: Seq) -> usize {
        let of = |effect: &&Effect| matches!(effect, Effect::Revoke { seq: of, .. } if *of == seq);
        self.effects.iter().filter(of).count()
    }
}

#[test]
fn a_task_to_a_model_goes_along_its_chain_and_nobody_has_to_listen() {
    let mut world = World::empty(policy());
    let seq = world.delegate("opus");
    world.run(Command::AskerLeft { seq });
    world.advance(RETURN * 2);
    assert_eq!(world.state_of(seq), TaskState::Submitted);
    let world = &mut world.with_agent("opus", 10).with_agent("sonnet", 10);
    assert_eq!(world.state_of(seq), TaskState::Working);
    world.fail(seq, FailureClass::QuotaExhausted);
    assert_eq!(world.called(seq), "sonnet");

    world.done(seq);

    assert_eq!(world.state_of(seq), TaskState::Completed);
    let limited = Some(FailureClass::QuotaExhausted);
    let want = [("opus".to_owned(), limited), ("sonnet".to_owned(), None)];
    assert_eq!(world.attempts(seq), want);
}

#[test]
fn a_question_back_is_answered_once_and_comes_with_the_next_delivery() {
    for to_agent in [false, true] {
        let mut world = World::new();
        let seq = if to_agent { world.delegate_to_agent("opus") } else { world.delegate("opus") };
        world.settle(seq, ask()).unwrap();
        assert_eq!(world.state_of(seq), TaskState::InputRequired);
        world.advance(secs(3600));
        assert_eq!(world.deliveries.len(), 1, "it waits");

        assert_eq!(world.task(seq, provide(1)), Ok(TaskState::Working));
        let delivered = world.deliveries.last().unwrap().clone();
        assert_eq!((delivered.seq, delivered.epoch), (seq, 2));
        assert_eq!(delivered.exchanges.len(), 1);
        assert_eq!(delivered.exchanges[0].answer.as_ref().unwrap().body, body(20));

        let before = world.journal.len();
        assert_eq!(world.task(seq, provide(1)), Ok(TaskState::Working), "the same again");
        let other = TaskStep::Provide {
            id: MessageId::from_u128(1),
            digest: Digest([8; 32]),
            answer: body(9),
            has_images: false,
            question: 0,
        };
        let id = MessageId::from_u128(1);
        assert_eq!(world.task(seq, other), Err(Refusal::IdReused(id)));
        assert_eq!(world.journal.len(), before);
        world.done(seq);
        assert_eq!(world.state_of(seq), TaskState::Completed);
    }
}

#[test]
fn an_answer_is_for_the_question_that_is_open() {
    let mut world = World::new();
    let seq = world.delegate("opus");
    world.settle(seq, ask()).unwrap();
    world.task(seq, provide(1)).unwrap();
    world.settle(seq, ask()).unwrap();
    let answer = |question| TaskStep::Provide {
        id: MessageId::from_u128(2),
        digest: Digest([7; 32]),
        answer: body(20),
        has_images: false,
        question,
    };
    let id = world.state.queue.get(seq).unwrap().id;

    let closed = Err(Refusal::QuestionClosed { id, question: 1 });
    assert_eq!(world.task(seq, answer(1)), closed);
    assert_eq!(world.task(seq, answer(2)), Ok(TaskState::Working));
    assert_eq!(world.deliveries.last().unwrap().exchanges.len(), 2);
}

#[test]
fn a_question_settles_its_delivery() {
    let mut world = World::new();
    let seq = world.delegate("opus");
    let settle = world.settlement(seq, ask());
    world.settle_with(settle.clone()).unwrap();
    let before = world.journal.len();

    assert_eq!(world.settle_with(settle), Ok(Reply::SettledBefore), "I-19");
    assert_eq!(world.journal.len(), before);
    world.advance(LEASE);
    assert_eq!(world.state_of(seq), TaskState::InputRequired, "no lease runs out");
}

#[test]
fn only_a_task_asks_back_and_only_so_often() {
    let mut world = World::new();
    let seq = world.ask("opus");
    world.settle(seq, ask()).unwrap();
    assert_eq!(world.failed_as(seq).class, FailureClass::InvalidRequest);

    let seq = world.delegate("opus");
    for number in 0..task::MOST_QUESTIONS as u128 {
        world.settle(seq, ask()).unwrap();
        world.task(seq, provide(number + 1)).unwrap();
    }
    world.settle(seq, ask()).unwrap();
    assert_eq!(world.failed_as(seq).class, FailureClass::Budget);

    let seq = world.delegate("opus");
    let question = body(task::MOST_BYTES);
    world.settle(seq, Outcome::Ask { question, shown: false }).unwrap();
    let id = world.state.queue.get(seq).unwrap().id;
    assert_eq!(world.task(seq, provide(1)), Err(Refusal::TaskFull(id)));
}

/// What an attempt that asked back has cost counts towards the budget, and a person's time does not count as an
/// attempt that took too long.
#[test]
fn a_budget_holds_over_questions_and_the_time_between_does_not() {
    let mut world = World::new();
    let mut new = world.message("opus");
    let options = &mut new.consultation.as_mut().unwrap().options;
    (options.keep, options.max_tokens) = (true, Some(1_000));
    let seq = world.delegate_this(NewMessage { kind: MessageType::Delegation, ..new });
    assert_eq!(world.deliveries[0].max_output_tokens, Some(900), "100 are the prompt");

    let mut settle = world.settlement(seq, ask());
    settle.usage = tokens(100, 300);
    world.settle_with(settle).unwrap();
    world.advance(secs(24 * 3600));
    world.task(seq, provide(1)).unwrap();
    let left = 1_000 - 400 - (400 + 60) / 4;
    assert_eq!(world.deliveries[1].max_output_tokens, Some(left));

    world.fail(seq, FailureClass::Overloaded);
    world.advance(secs(1));
    assert_eq!(world.deliveries.len(), 3, "the chain began anew with the answer");
    let mut settle = world.settlement(seq, ask());
    settle.usage = tokens(200, 390);
    world.settle_with(settle).unwrap();
    world.task(seq, provide(2)).unwrap();
    assert_eq!(world.failed_as(seq).class, FailureClass::Budget);
}

/// I-14: whoever worked on a suspended task has lost its lease. I-25: that wears nothing out.
#[test]
fn a_suspended_task_ends_its_attempt_and_keeps_what_it_had_shown() {
    let mut world = World::with(|policy| policy.max_lost_leases = 1);
    let seq = world.delegate("opus");
    world.seals_wait = true;
    assert_eq!(world.task(seq, TaskStep::Suspend), Ok(TaskState::Suspended));
    assert_eq!(world.revoked(seq), 1, "down to the provider's call");
    let late = world.settlement(seq, done());
    assert_eq!(world.settle_with(late.clone()), Err(Refusal::LeaseLost(late.id)));

    let (_, epoch) = world.seals.pop().unwrap();
    let partial = Some(body(9));
    world.run(Command::Sealed { seq, epoch, shown: true, partial: partial.clone() });
    let stopped = world.journal.iter().rev().find_map(|event| match event {
        Event::TaskStopped { partial, attempt, .. } => Some((partial, attempt.as_ref().unwrap())),
        _ => None,
    });
    let (kept, attempt) = stopped.unwrap();
    assert_eq!(*kept, partial);
    assert_eq!(attempt.failure.as_ref().unwrap().class, FailureClass::Cancelled);
    world.seals_wait = false;
    world.advance(secs(3600));
    assert_eq!(world.deliveries.len(), 1);

    assert_eq!(world.task(seq, TaskStep::Resume), Ok(TaskState::Working));
    assert_eq!(world.deliveries.last().unwrap().epoch, 2);
    world.done(seq);
    assert_eq!(world.state_of(seq), TaskState::Completed);
    let classes: Vec<_> = world.attempts(seq).into_iter().map(|(_, class)| class).collect();
    assert_eq!(classes, [Some(FailureClass::Cancelled), None]);
}

#[test]
fn a_suspended_mailbox_task_is_revoked_and_comes_again() {
    let mut world = World::new();
    let seq = world.delegate_to_agent("opus");
    assert_eq!(world.task(seq, TaskStep::Suspend), Ok(TaskState::Suspended));
    assert_eq!(world.revoked(seq), 1);
    world.advance(secs(60));
    assert_eq!(world.task(seq, TaskStep::Resume), Ok(TaskState::Working));
    assert_eq!(world.deliveries.len(), 2);
}

#[test]
fn a_suspended_attempt_leaves_its_model_to_the_next() {
    let mut world = World::new();
    let first = world.ask("opus");
    world.fail_until(first, FailureClass::QuotaExhausted, secs(10));
    world.advance(secs(10));
    let probe = world.delegate("opus");
    world.task(probe, TaskStep::Suspend).unwrap();

    let other = world.ask("opus");

    assert_eq!(world.called(other), "opus", "somebody else may try it");
}

#[test]
fn what_is_queued_is_suspended_and_resumed_in_any_place() {
    let mut world = World::empty(policy());
    let seq = world.delegate("opus");
    assert_eq!(world.task(seq, TaskStep::Suspend), Ok(TaskState::Suspended));
    world.greet("opus", "first", 10);
    assert_eq!(world.deliveries.len(), 0);
    assert_eq!(world.task(seq, TaskStep::Resume), Ok(TaskState::Working));

    world.settle(seq, ask()).unwrap();
    assert_eq!(world.task(seq, TaskStep::Suspend), Ok(TaskState::Suspended));
    assert_eq!(world.task(seq, TaskStep::Resume), Ok(TaskState::InputRequired), "still open");
    assert_eq!(world.task(seq, provide(1)), Ok(TaskState::Working));
}

#[test]
fn a_resumed_task_waits_for_agents_whatever_failed_before() {
    let mut world = World::with(|policy| policy.models.retain(|name, _| name.as_str() == "opus"));
    let seq = world.delegate("opus");
    world.fail(seq, FailureClass::Overloaded);
    world.task(seq, TaskStep::Suspend).unwrap();
    world.hang_up("opus");
    world.advance(secs(3600));

    assert_eq!(world.task(seq, TaskStep::Resume), Ok(TaskState::Submitted));
    world.greet("opus", "second", 10);
    world.done(seq);
    assert_eq!(world.state_of(seq), TaskState::Completed);
}

/// In each state each step is taken or refused by the state's name, and a refusal changes nothing.
#[test]
fn each_state_takes_its_own_steps() {
    let steps = [provide(1), TaskStep::Suspend, TaskStep::Resume, TaskStep::Cancel];
    let ways: [(TaskState, Way, [bool; 4]); 5] = [
        (TaskState::Submitted, |world, _| world.hang_up("-"), [false, true, false, true]),
        (
            TaskState::Working,
            |world, _| drop(world.greet("opus", "a", 9)),
            [false, true, false, true],
        ),
        (
            TaskState::InputRequired,
            |world, seq| {
                world.greet("opus", "a", 1);
                world.settle(seq, ask()).unwrap();
            },
            [true, true, false, true],
        ),
        (
            TaskState::Suspended,
            |world, seq| drop(world.task(seq, TaskStep::Suspend)),
            [false, false, true, true],
        ),
        (TaskState::Cancelled, |world, seq| drop(world.task(seq, TaskStep::Cancel)), [false; 4]),
    ];
    for (state, way, takes) in ways {
        for (step, is_taken) in steps.iter().zip(takes) {
            let mut world = World::empty(policy());
            let seq = world.delegate("opus");
            way(&mut world, seq);
            assert_eq!(world.state_of(seq), state);
            let before = world.journal.len();
            let taken = world.task(seq, step.clone());
            assert_eq!(taken.is_ok(), is_taken, "{} in {}", step.verb(), state.as_str());
            match taken {
                Ok(_) => {}
                Err(Refusal::TaskState { state: named, wanted, .. }) => {
                    assert_eq!((named, wanted), (state, step.verb()));
                    assert_eq!(world.journal.len(), before);
                }
                Err(refusal) => assert_eq!(refusal, Refusal::TaskEnded),
            }
        }
    }
}

#[test]
fn a_task_is_cancelled_wherever_it_is() {
    for way in 0..4 {
        let mut world = World::new();
        let seq = world.delegate("opus");
        match way {
            1 => drop(world.settle(seq, ask())),
            2 => drop(world.task(seq, TaskStep::Suspend)),
            3 => world.fail_until(seq, FailureClass::Overloaded, secs(5)),
            _ => {}
        }
        assert_eq!(world.task(seq, TaskStep::Cancel), Ok(TaskState::Cancelled));
        assert_eq!(world.end(seq), Some(MessageState::Cancelled));
        world.advance(FOR_EVER);
        assert_eq!(world.deliveries.len(), 1);
    }
}

/// I-22: held or not, a deadline is one.
#[test]
fn a_held_task_expires() {
    for way in 0..2 {
        let mut world = World::new();
        let mut new = world.message("opus");
        new.consultation.as_mut().unwrap().options.keep = true;
        let expires_at = Some(world.wall().after(secs(60)));
        let new = NewMessage { kind: MessageType::Delegation, expires_at, ..new };
        let seq = world.delegate_this(new);
        if way == 0 {
            world.settle(seq, ask()).unwrap();
        } else {
            world.task(seq, TaskStep::Suspend).unwrap();
        }
        world.advance(secs(59));
        assert_eq!(world.end(seq), None);
        world.advance(secs(1));
        assert_eq!(world.end(seq), Some(MessageState::Expired));
        assert_eq!(world.state_of(seq), TaskState::Failed);
    }
}

#[test]
fn a_task_without_a_deadline_lives_as_long_as_the_broker_allows() {
    let mut world = World::empty(policy());
    let seq = world.delegate("opus");
    let lives = world.state.queue.get(seq).unwrap().deadline.since(world.wall());
    assert_eq!(lives, policy().max_lifetime);
}

#[test]
fn an_agent_rejects_or_fails_a_task_for_good() {
    let mut world = World::new();
    let seq = world.delegate("opus");
    world.settle(seq, Outcome::Reject { reason: "not mine".into() }).unwrap();
    assert_eq!(world.state_of(seq), TaskState::Rejected);

    let seq = world.delegate_to_agent("opus");
    world.settle(seq, Outcome::Reject { reason: "not mine".into() }).unwrap();
    assert_eq!(world.state_of(seq), TaskState::Rejected);

    let seq = world.delegate_to_agent("opus");
    world.fail(seq, FailureClass::Internal);
    assert_eq!(world.state_of(seq), TaskState::Failed, "its word counts");

    let seq = world.delegate_to_agent("opus");
    world.fail_until(seq, FailureClass::RateLimited, secs(5));
    assert_eq!(world.state_of(seq), TaskState::Submitted, "it named a time");
    world.advance(secs(5));
    world.done(seq);
    assert_eq!(world.state_of(seq), TaskState::Completed);
}

#[test]
fn every_state_survives_a_restart() {
    let ways: [(TaskState, Way); 4] = [
        (TaskState::Submitted, |_, _| {}),
        (TaskState::Working, |world, _| drop(world.greet("opus", "a", 9))),
        (TaskState::InputRequired, |world, seq| {
            world.greet("opus", "a", 1);
            world.settle(seq, ask()).unwrap();
            world.task(seq, provide(5)).unwrap();
            world.credit("opus", 1);
            world.settle(seq, ask()).unwrap();
        }),
        (TaskState::Suspended, |world, seq| {
            world.greet("opus", "a", 1);
            world.settle(seq, ask()).unwrap();
            world.task(seq, TaskStep::Suspend).unwrap();
        }),
    ];
    for (state, way) in ways {
        let mut world = World::empty(policy());
        let seq = world.delegate("opus");
        way(&mut world, seq);

        world.restart(secs(3600));
        assert_eq!(world.state_of(seq), state);
        world.advance(secs(1));
        world.greet("opus", "b", 9);
        let resumed = match state {
            TaskState::InputRequired => world.task(seq, provide(5)).and_then(|is| {
                assert_eq!(is, TaskState::InputRequired, "said before");
                world.task(seq, provide(6))
            }),
            TaskState::Suspended => {
                world.task(seq, TaskStep::Resume).and_then(|_| world.task(seq, provide(6)))
            }
            _ => Ok(TaskState::Working),
        };
        assert_eq!(resumed, Ok(TaskState::Working), "{}", state.as_str());
        // A lost attempt is followed by another a moment later.
        world.advance(secs(1));
        world.done(seq);
        assert_eq!(world.state_of(seq), TaskState::Completed);
        assert_eq!(world.state.task.exchanges(seq), [], "nothing is left of it");
    }
}

#[test]
fn a_step_for_what_is_no_task_is_refused() {
    let mut world = World::new();
    let seq = world.ask("opus");
    let id = world.state.queue.get(seq).unwrap().id;
    assert_eq!(world.task(seq, TaskStep::Suspend), Err(Refusal::NotATask(id)));
    let held = |message: &Message| matches!(message.place, Place::Held(_));
    assert!(!held(world.state.queue.get(seq).unwrap()));
}
