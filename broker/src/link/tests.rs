use std::time::Duration;

use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use broker_proto::{
    AnswerFrame, Delivery, Down, Failure, FailureClass, Hello, Message, MessageId, MessageState,
    MessageType, Part, Payload, Recipient, Sender, SettleOutcome, SettledFrame, Settlement,
    StopReason, Terminal, Up, Usage, Welcome,
};

use super::{Out, Services, run};
use crate::{
    app::rehearsal::{Shell, agent, consultation, letter, local, model, send, soon},
    core::{
        Command, NewMessage, Query, Reply,
        queue::{Body, BodyKey, Seq},
    },
    journal::{Why, faulty::Fault},
    reply::{Asker, Seen},
    service::reason,
};

/// An agent's side of a link.
struct Agent {
    up: mpsc::Sender<Result<Up, Status>>,
    down: mpsc::Receiver<Result<Down, Status>>,
    running: JoinHandle<()>,
}

impl Agent {
    /// The broker may send `window` frames before this agent reads them.
    fn dial(services: Services, window: usize) -> Self {
        let (up, frames) = mpsc::channel(64);
        let (wire, down) = mpsc::channel(window);
        let link = run(services, Box::pin(ReceiverStream::new(frames)), wire);
        #[expect(clippy::disallowed_methods, reason = "it ends with the runtime of the test")]
        let running = tokio::spawn(link);
        Self { up, down, running }
    }

    async fn greeted(shell: &Shell, hello: Hello) -> (Self, Welcome) {
        let mut agent = Self::dial(shell.services(), 64);
        agent.say(Up::Hello(hello)).await;
        match agent.next().await {
            Down::Welcome(welcome) => (agent, welcome),
            other => panic!("a hello was answered by {other:?}"),
        }
    }

    /// An agent of `opus` with credit for `messages`.
    async fn serving(shell: &Shell, hello: Hello, messages: u32) -> Self {
        let (agent, _) = Self::greeted(shell, hello).await;
        agent.say(Up::Credit { messages, size_bytes: 1 << 20 }).await;
        agent
    }

    async fn say(&self, frame: Up) {
        soon(self.up.send(Ok(frame))).await.unwrap();
    }

    async fn next(&mut self) -> Down {
        soon(self.down.recv()).await.expect("a frame").expect("no end")
    }

    async fn delivery(&mut self) -> Delivery {
        match self.next().await {
            Down::Deliver(delivery) => *delivery,
            other => panic!("instead of a delivery came {other:?}"),
        }
    }

    /// Settles, and gives what the broker said to it.
    async fn settle(&mut self, lease: &str, outcome: SettleOutcome) -> Option<String> {
        self.say(Up::Settle(vec![settlement(lease, outcome)])).await;
        match self.next().await {
            Down::Settled(SettledFrame { lease: settled, refused, .. }) => {
                assert_eq!(settled, lease);
                refused.map(|refused| refused.reason)
            }
            other => panic!("a settlement was answered by {other:?}"),
        }
    }

    /// How the broker ends this link, whatever it says before.
    async fn end(&mut self) -> Option<Status> {
        loop {
            match soon(self.down.recv()).await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return Some(status),
                None => return None,
            }
        }
    }

    /// Leaves without a word.
    async fn vanish(self) {
        drop(self.up);
        drop(self.down);
        soon(self.running).await.unwrap();
    }
}

fn settlement(lease: &str, outcome: SettleOutcome) -> Settlement {
    let usage = Usage { output_tokens: Some(3), ..Usage::default() };
    Settlement { lease: lease.into(), outcome, usage, limits: vec![], first_token: None }
}

fn answer(text: &str) -> SettleOutcome {
    SettleOutcome::Done { parts: vec![Part::text(text)], stop_reason: Some(StopReason::End) }
}

async fn hello(shell: &Shell, instance: &str) -> Hello {
    Hello {
        agent: agent("opus-1"),
        token: shell.token("opus-1").await,
        instance: instance.into(),
        is_exclusive: true,
        models: vec![model("opus")],
        capacity: 4,
        roles: vec![],
        is_standby: false,
        resume: vec![],
        resume_token: None,
        resume_seen: 0,
    }
}

fn word(delivery: &Delivery, text: &str) -> [Up; 2] {
    let (attempt, part) = (delivery.attempt, 0);
    let data = bytes::Bytes::copy_from_slice(text.as_bytes());
    [
        AnswerFrame::PartStart { attempt, part, opening: Part::text("") },
        AnswerFrame::PartDelta { attempt, part, offset: 0, data },
    ]
    .map(|frame| Up::Part { delivery: delivery.number, frame })
}

fn asker(shell: &Shell, id: MessageId) -> Asker {
    Asker::join(shell.slots.find(&local(), id).unwrap(), Seen::default(), true).0
}

/// The next word of the answer.
async fn heard(asker: &mut Asker) -> String {
    loop {
        match soon(asker.next()).await.expect("no end") {
            AnswerFrame::PartDelta { data, .. } => return String::from_utf8(data.into()).unwrap(),
            AnswerFrame::Terminal(terminal) => panic!("it ended: {terminal:?}"),
            _ => {}
        }
    }
}

async fn terminal(asker: &mut Asker) -> Terminal {
    loop {
        if let AnswerFrame::Terminal(terminal) = soon(asker.next()).await.expect("no end") {
            return *terminal;
        }
    }
}

fn reason_of(status: &Status) -> String {
    reason::frame(status).reason
}

async fn state(shell: &Shell, id: MessageId) -> MessageState {
    let row = shell.projection.find(local(), id, shell.engine.head()).await.unwrap().unwrap();
    row.state
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_greet_in_time_is_refused() {
    let shell = Shell::start().await;
    let mut agent = Agent::dial(shell.services(), 64);
    let status = agent.down.recv().await.unwrap().unwrap_err();
    assert_eq!((status.code(), reason_of(&status).as_str()), (Code::DeadlineExceeded, "NO_HELLO"));
}

#[tokio::test]
async fn a_stream_that_begins_with_another_frame_is_refused() {
    let shell = Shell::start().await;
    let mut agent = Agent::dial(shell.services(), 64);
    agent.say(Up::Heartbeat { leases: vec![] }).await;
    assert_eq!(reason_of(&agent.end().await.unwrap()), "NO_HELLO");
}

#[tokio::test]
async fn a_greeting_that_does_not_hold_is_refused_with_its_reason() {
    let shell = Shell::start().await;
    let good = hello(&shell, "i").await;
    let others = shell.token("reviewer").await;
    for (hello, reason) in [
        (Hello { token: others, ..good.clone() }, "TOKEN_REJECTED"),
        (Hello { token: String::new(), ..good.clone() }, "TOKEN_REJECTED"),
        (Hello { agent: agent("nobody"), ..good.clone() }, "TOKEN_REJECTED"),
        (Hello { models: vec![model("opsu")], ..good.clone() }, "UNKNOWN_MODEL"),
        (Hello { instance: "i".repeat(65), ..good.clone() }, "INVALID_FIELD"),
    ] {
        let mut agent = Agent::dial(shell.services(), 64);
        let token = hello.token.clone();
        agent.say(Up::Hello(hello)).await;
        let status = agent.end().await.unwrap();
        assert_eq!(reason_of(&status), reason);
        assert!(token.is_empty() || !status.message().contains(&token));
    }
    assert!(shell.links.is_empty());
}

#[tokio::test]
async fn an_agent_that_leaves_before_its_welcome_serves_nothing() {
    let shell = Shell::start().await;
    let agent = Agent::dial(shell.services(), 64);
    let hello = hello(&shell, "i").await;
    drop(agent.down);
    soon(agent.up.send(Ok(Up::Hello(hello)))).await.unwrap();
    soon(agent.running).await.unwrap();
    assert!(shell.links.is_empty());
    let Reply::Models(models) = soon(shell.engine.query(Query::Models)).await.unwrap() else {
        panic!("no models")
    };
    assert!(models.iter().all(|model| model.agents == 0));
}

#[tokio::test]
async fn a_question_goes_to_its_agent_and_the_answer_to_its_asker() {
    let shell = Shell::start().await;
    let mut agent = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let id = shell.ask(1).await;
    let mut asker = asker(&shell, id);

    let delivery = agent.delivery().await;
    assert_eq!((delivery.message.id, delivery.attempt), (id, 1));
    assert_eq!(delivery.model, Some(model("opus")));
    assert_eq!(delivery.message.payload.request, [Part::text("why?")]);
    for frame in word(&delivery, "be") {
        agent.say(frame).await;
    }
    assert_eq!(heard(&mut asker).await, "be");
    assert_eq!(agent.settle(&delivery.lease, answer("because")).await, None);

    assert_eq!(heard(&mut asker).await, "cause");
    let Terminal::Done(summary) = terminal(&mut asker).await else { panic!("not done") };
    assert_eq!(summary.model, Some(model("opus")));
    assert_eq!(summary.usage.output_tokens, Some(3));
    assert_eq!(state(&shell, id).await, MessageState::Done);
}

/// I-14, I-19.
#[tokio::test]
async fn a_settlement_is_taken_once_and_only_with_its_token() {
    let shell = Shell::start().await;
    let mut agent = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    shell.ask(1).await;
    let lease = agent.delivery().await.lease;
    let forged = format!("{}0", &lease[..lease.len() - 1]);
    let later = shell.leases.token(Seq(1), 2);

    for token in [forged.as_str(), later.as_str(), "", "1.1."] {
        let refused = agent.settle(token, answer("no")).await;
        assert_eq!(refused.as_deref(), Some("LEASE_LOST"), "{token}");
    }
    assert_eq!(agent.settle(&lease, answer("because")).await, None);
    assert_eq!(agent.settle(&lease, answer("because")).await, None);
}

#[tokio::test]
async fn an_agent_speaks_only_for_the_attempt_it_holds() {
    let shell = Shell::start().await;
    let mut agent = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let (one, two) = (shell.ask(1).await, shell.ask(2).await);
    let held = agent.delivery().await;
    assert_eq!(held.message.id, one);
    let other = Delivery { number: 2, ..held.clone() };
    let next = Delivery { attempt: 2, ..held.clone() };
    shell.slots.find(&local(), two).unwrap();

    for frame in [word(&other, "x"), word(&next, "y"), word(&held, "z")].concat() {
        agent.say(frame).await;
    }

    assert_eq!(heard(&mut asker(&shell, one)).await, "z");
    assert_eq!(shell.slots.find(&local(), two).unwrap().open_attempt(), None);
}

/// Not even before it has read that its lease is lost.
#[tokio::test]
async fn an_agent_that_lost_its_lease_does_not_speak_for_the_next() {
    let shell = Shell::start().await;
    let mut slow = Agent::dial(shell.services(), 1);
    slow.say(Up::Hello(Hello { is_exclusive: false, ..hello(&shell, "i").await })).await;
    assert!(matches!(slow.next().await, Down::Welcome(_)));
    slow.say(Up::Credit { messages: 1, size_bytes: 1 << 20 }).await;
    let id = shell.ask(1).await;
    let lost = slow.delivery().await;
    // What it does not read keeps the revocation from it.
    let _pongs = [1, 2].map(|nonce| shell.links.ping(&model("opus"), nonce));
    let other = Hello {
        agent: agent("opus-2"),
        token: shell.token("opus-2").await,
        ..hello(&shell, "j").await
    };
    let mut other = Agent::serving(&shell, other, 1).await;
    shell.clock.advance(Duration::from_secs(16));
    shell.tick().await;
    let next = other.delivery().await;
    assert_eq!((next.message.id, next.attempt), (id, 2));

    for frame in word(&Delivery { attempt: 2, ..lost }, "x") {
        slow.say(frame).await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    for frame in word(&next, "y") {
        other.say(frame).await;
    }

    assert_eq!(heard(&mut asker(&shell, id)).await, "y");
}

/// I-16, I-17: losing the stream does not end a lease.
#[tokio::test]
async fn an_agent_that_links_again_goes_on_with_what_it_holds() {
    let shell = Shell::start().await;
    let mut first = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let id = shell.ask(1).await;
    let mut asker = asker(&shell, id);
    let delivery = first.delivery().await;
    for frame in word(&delivery, "be") {
        first.say(frame).await;
    }
    assert_eq!(heard(&mut asker).await, "be");
    first.vanish().await;

    let resume = vec![shell.leases.token(Seq(9), 1), delivery.lease.clone(), "x".into()];
    let again = Hello { resume, ..hello(&shell, "i").await };
    let (mut second, welcome) = Agent::greeted(&shell, again).await;

    assert_eq!(welcome.resumed, [delivery.lease.as_str()]);
    for frame in word(&delivery, "because") {
        second.say(frame).await;
    }
    assert_eq!(heard(&mut asker).await, "cause");
    assert_eq!(second.settle(&delivery.lease, answer("because")).await, None);
    assert!(matches!(terminal(&mut asker).await, Terminal::Done(_)));
}

#[tokio::test]
async fn goodbye_gives_back_at_once_what_was_not_begun() {
    let shell = Shell::start().await;
    let mut leaving = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let id = shell.ask(1).await;
    leaving.delivery().await;
    let staying = Hello {
        agent: agent("opus-2"),
        token: shell.token("opus-2").await,
        ..hello(&shell, "j").await
    };
    let mut staying = Agent::serving(&shell, staying, 1).await;

    leaving.say(Up::Bye { reason: "update".into() }).await;

    let delivery = staying.delivery().await;
    assert_eq!((delivery.message.id, delivery.attempt), (id, 2));
    soon(leaving.running).await.unwrap();
}

/// I-17: what the old process held is ended, and the new one gets it.
#[tokio::test]
async fn a_new_process_of_an_exclusive_agent_takes_over() {
    let shell = Shell::start().await;
    let mut old = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let id = shell.ask(1).await;
    let lost = old.delivery().await;

    let mut new = Agent::serving(&shell, hello(&shell, "j").await, 1).await;

    assert_eq!(reason_of(&old.end().await.unwrap()), "SUPERSEDED");
    let delivery = new.delivery().await;
    assert_eq!((delivery.message.id, delivery.attempt), (id, 2));
    assert_eq!(new.settle(&lost.lease, answer("old")).await.as_deref(), Some("LEASE_LOST"));
    assert_eq!(new.settle(&delivery.lease, answer("new")).await, None);
}

/// I-29.
#[tokio::test]
async fn an_agent_that_never_reads_is_closed_and_others_go_on() {
    let shell = Shell::start().await;
    let mut services = shell.services();
    services.settings.heartbeat = Duration::from_millis(10);
    let mut deaf = Agent::dial(services, 1);
    let deafs = Hello {
        agent: agent("deaf"),
        token: shell.token("deaf").await,
        models: vec![],
        ..hello(&shell, "i").await
    };
    deaf.say(Up::Hello(deafs)).await;
    assert!(matches!(deaf.next().await, Down::Welcome(_)));
    let mut other = Agent::serving(&shell, hello(&shell, "i").await, 1).await;

    for _ in 0..9_000 {
        let (model, level, reason) = (model("opus"), String::new(), String::new());
        shell.links.send_all(&Down::Level { model, level, reason });
        assert!(matches!(other.next().await, Down::Level { .. }));
    }

    soon(&mut deaf.running).await.unwrap();
    assert!(deaf.end().await.is_none_or(|status| reason_of(&status) == "NOT_READING"));
    let id = shell.ask(1).await;
    assert_eq!(other.delivery().await.message.id, id);
}

/// A refusal would make the agent drop what it could settle a moment later.
#[tokio::test]
async fn a_settlement_that_may_pass_later_closes_the_link_instead_of_being_refused() {
    for why in [Why::Unavailable, Why::Full] {
        let shell = Shell::start().await;
        let mut agent = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
        let id = shell.ask(1).await;
        let delivery = agent.delivery().await;
        shell.settled().await;
        shell.script.then(Fault::NotStored(why));

        agent.say(Up::Settle(vec![settlement(&delivery.lease, answer("because"))])).await;

        let status = loop {
            match soon(agent.down.recv()).await.unwrap() {
                Ok(frame) => assert!(!matches!(frame, Down::Settled(_)), "{frame:?}"),
                Err(status) => break status,
            }
        };
        assert!(matches!(status.code(), Code::Unavailable | Code::ResourceExhausted), "{status}");
        let again = Hello { resume: vec![delivery.lease.clone()], ..hello(&shell, "i").await };
        let (mut agent, welcome) = Agent::greeted(&shell, again).await;
        assert_eq!(welcome.resumed, [delivery.lease.as_str()]);
        assert_eq!(agent.settle(&delivery.lease, answer("because")).await, None);
        assert_eq!(state(&shell, id).await, MessageState::Done);
    }
}

/// I-5.
#[tokio::test]
async fn a_message_that_is_not_what_was_acknowledged_is_never_delivered() {
    let shell = Shell::start().await;
    let mut agent = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let body = Body { keys: BodyKey([7; 40]).into(), size_bytes: 9 };
    let broken = NewMessage { body, ..consultation(1) };
    soon(shell.engine.command(send(broken))).await.unwrap();
    let whole = shell.ask(2).await;

    // Its credit came back, so the next one is delivered.
    assert_eq!(agent.delivery().await.message.id, whole);
    assert_eq!(state(&shell, MessageId::from_u128(1)).await, MessageState::Dead);
}

#[tokio::test]
async fn an_answer_too_large_to_hold_fails_its_attempt_and_stops_its_agent() {
    let shell = Shell::start().await;
    let mut agent = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let id = shell.ask(1).await;
    let mut asker = asker(&shell, id);
    let delivery = agent.delivery().await;
    // So that nothing else is tried after it.
    for frame in word(&delivery, "a") {
        agent.say(frame).await;
    }
    assert_eq!(heard(&mut asker).await, "a");

    let data = vec![b'x'; 65 * 1024].into();
    let frame = AnswerFrame::PartDelta { attempt: 1, part: 0, offset: 1, data };
    agent.say(Up::Part { delivery: delivery.number, frame }).await;

    match agent.next().await {
        Down::Revoke { lease, .. } => assert_eq!(lease, delivery.lease),
        other => panic!("instead of a revocation came {other:?}"),
    }
    let Terminal::Failed { failure, .. } = terminal(&mut asker).await else { panic!("not failed") };
    assert_eq!(failure.class, FailureClass::MalformedReply);
}

#[tokio::test]
async fn a_failure_is_told_with_what_arrived() {
    let shell = Shell::start().await;
    let mut agent = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let id = shell.ask(1).await;
    let mut asker = asker(&shell, id);
    let delivery = agent.delivery().await;
    let failure = Failure::new(FailureClass::ContentRefused, "provider", "d".repeat(1 << 16));
    let outcome = SettleOutcome::Failed { failure, partial: vec![Part::text("half")] };

    assert_eq!(agent.settle(&delivery.lease, outcome).await, None);

    let Terminal::Failed { failure, .. } = terminal(&mut asker).await else { panic!("not failed") };
    assert_eq!(failure.class, FailureClass::ContentRefused);
    assert!(failure.detail.len() < 4096);
    let row = shell.projection.find(local(), id, shell.engine.head()).await.unwrap().unwrap();
    let reply = row.finished.unwrap().reply.unwrap();
    let stored = shell.bodies.load(&reply).await.unwrap();
    let stored: Payload = broker_proto::convert::Stored::decode(stored).unwrap();
    assert_eq!(stored.response, [Part::text("half")]);
}

/// Agents of one name share its queue, not its leases.
#[tokio::test]
async fn what_ends_at_one_process_is_told_to_no_other_of_its_name() {
    let shell = Shell::start().await;
    let shared = |hello: Hello| Hello { is_exclusive: false, ..hello };
    let mut first = Agent::serving(&shell, shared(hello(&shell, "i").await), 2).await;
    let ids = [shell.ask(1).await, shell.ask(2).await];
    let (cancelled, lost) = (first.delivery().await, first.delivery().await);
    let mut second = Agent::serving(&shell, shared(hello(&shell, "j").await), 0).await;

    let command = Command::Cancel { sender: local(), id: ids[0] };
    soon(shell.engine.command(command)).await.unwrap();
    shell.clock.advance(Duration::from_secs(16));
    shell.tick().await;

    assert!(matches!(first.next().await, Down::Cancel { lease, .. } if lease == cancelled.lease));
    assert!(matches!(first.next().await, Down::Revoke { lease, .. } if lease == lost.lease));
    second.say(Up::Settle(vec![settlement("none", answer("no"))])).await;
    assert!(matches!(second.next().await, Down::Settled(_)), "it hears of nothing else");
}

#[tokio::test]
async fn a_cancelled_question_is_cancelled_at_its_agent() {
    let shell = Shell::start().await;
    let mut agent = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let id = shell.ask(1).await;
    let delivery = agent.delivery().await;
    let command = Command::Cancel { sender: local(), id };
    soon(shell.engine.command(command)).await.unwrap();
    match agent.next().await {
        Down::Cancel { lease, .. } => assert_eq!(lease, delivery.lease),
        other => panic!("instead of a cancellation came {other:?}"),
    }
}

#[tokio::test]
async fn what_an_agent_sends_is_stored_or_refused_under_its_own_name() {
    let shell = Shell::start().await;
    shell.token("reviewer").await;
    let (mut writer, _) = Agent::greeted(&shell, hello(&shell, "i").await).await;
    let letter = |number, to: &str| {
        let to = Recipient::Agent(agent(to));
        let id = MessageId::from_u128(number);
        Message {
            from: Some(local()),
            ..Message::new(id, to, MessageType::Status, Payload::default())
        }
    };

    writer.say(Up::Send(Box::new(letter(1, "reviewer")))).await;
    let Down::Sent { message, result } = writer.next().await else { panic!("not sent") };
    assert_eq!(message, MessageId::from_u128(1));
    assert!(!result.unwrap().is_duplicate);
    let (own, head) = (Sender::parse("opus-1").unwrap(), shell.engine.head());
    let row = shell.projection.find(own, message, head).await.unwrap();
    assert!(row.is_some());

    writer.say(Up::Send(Box::new(letter(2, "nobody")))).await;
    let Down::Sent { result, .. } = writer.next().await else { panic!("not sent") };
    assert_eq!(result.unwrap_err().reason, "UNKNOWN_AGENT");
}

#[tokio::test]
async fn a_mailbox_is_delivered_to_its_agent() {
    let shell = Shell::start().await;
    let mut agent = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let to = Recipient::Agent(crate::app::rehearsal::agent("opus-1"));
    let message =
        Message::new(MessageId::from_u128(1), to, MessageType::Status, Payload::default());
    shell.intake.send(&local(), message, false).await.unwrap();
    let delivery = agent.delivery().await;
    assert_eq!(delivery.model, None);
    assert_eq!(agent.settle(&delivery.lease, answer("")).await, None);
}

#[tokio::test]
async fn a_ping_comes_back_from_an_agent_of_the_model() {
    let shell = Shell::start().await;
    let (mut agent, _) = Agent::greeted(&shell, hello(&shell, "i").await).await;
    assert!(shell.links.ping(&model("sonnet"), 6).is_none());
    let (name, pong) = shell.links.ping(&model("opus"), 7).unwrap();
    assert_eq!(name.as_str(), "opus-1");
    assert_eq!(agent.next().await, Down::Ping { nonce: 7 });
    agent.say(Up::Pong { nonce: 99 }).await;
    agent.say(Up::Pong { nonce: 7 }).await;
    soon(pong).await.unwrap();
}

#[tokio::test]
async fn links_end_with_a_reason_when_the_broker_ends_them() {
    let shell = Shell::start().await;
    let (mut one, _) = Agent::greeted(&shell, hello(&shell, "i").await).await;
    shell.links.close_agent(&agent("other"), &reason::stopping());
    shell.links.close_agent(&agent("opus-1"), &reason::token_rejected(&agent("opus-1")));
    assert_eq!(reason_of(&one.end().await.unwrap()), "TOKEN_REJECTED");

    let (mut two, _) = Agent::greeted(&shell, hello(&shell, "i").await).await;
    let mut silent = Agent::dial(shell.services(), 64);
    shell.stop.cancel();
    assert_eq!(reason_of(&silent.end().await.unwrap()), "STOPPING");
    assert_eq!(reason_of(&two.end().await.unwrap()), "STOPPING");
    soon(two.running).await.unwrap();
    assert!(shell.links.is_empty());
}

#[tokio::test]
async fn a_frame_that_cannot_be_read_ends_the_link_with_its_field() {
    let shell = Shell::start().await;
    let (mut agent, _) = Agent::greeted(&shell, hello(&shell, "i").await).await;
    let invalid = broker_proto::convert::InvalidField::new("settlement.outcome", "is missing");
    soon(agent.up.send(Err(invalid.into()))).await.unwrap();
    let status = agent.end().await.unwrap();
    assert!(status.message().contains("settlement.outcome"), "{status}");
}

/// The outlet's frames and a link's end race; nothing may block the engine.
#[tokio::test]
async fn what_goes_to_a_link_that_is_gone_is_dropped() {
    let shell = Shell::start().await;
    let agent = Agent::serving(&shell, hello(&shell, "i").await, 5).await;
    agent.vanish().await;
    let link = crate::core::agent::LinkId(1);
    shell.links.send(link, Out::Frame(Box::new(Down::Ping { nonce: 1 })));
    soon(shell.engine.command(send(letter(1)))).await.unwrap();
}

/// A greeting that goes on after the link of `welcome`.
async fn returning(shell: &Shell, welcome: &Welcome) -> Hello {
    Hello { resume_token: Some(welcome.resume_token.clone()), ..hello(shell, "i").await }
}

#[tokio::test]
async fn a_resume_token_that_was_not_given_to_this_process_is_refused() {
    let shell = Shell::start().await;
    let (_first, welcome) = Agent::greeted(&shell, hello(&shell, "i").await).await;
    let good = returning(&shell, &welcome).await;
    let forged = format!("{}0", &welcome.resume_token[..welcome.resume_token.len() - 1]);
    let reviewers = shell.token("reviewer").await;
    for wrong in [
        Hello { resume_token: Some(forged), ..good.clone() },
        Hello { resume_token: Some("1.".into()), ..good.clone() },
        Hello { instance: "another".into(), ..good.clone() },
        Hello { agent: agent("reviewer"), token: reviewers, ..good.clone() },
    ] {
        let mut agent = Agent::dial(shell.services(), 64);
        agent.say(Up::Hello(wrong)).await;
        let status = agent.end().await.unwrap();
        let refused = (status.code(), reason_of(&status));
        assert_eq!(refused, (Code::FailedPrecondition, "RESUME_REJECTED".to_owned()));
    }
    let (_second, again) = Agent::greeted(&shell, good).await;
    assert_ne!(again.resume_token, welcome.resume_token);
}

#[tokio::test]
async fn a_resume_token_is_good_over_a_restart() {
    let shell = Shell::start().await;
    let mut first = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let token = shell.leases.resume_token(&agent("opus-1"), "i", crate::core::agent::LinkId(1));
    shell.ask(1).await;
    let held = first.delivery().await;
    let shell = Shell::on(shell.end().await).await;
    let again = Hello {
        resume: vec![held.lease.clone()],
        resume_token: Some(token),
        ..hello(&shell, "i").await
    };

    let (mut second, welcome) = Agent::greeted(&shell, again).await;

    assert_eq!(welcome.resumed, std::slice::from_ref(&held.lease));
    assert_eq!(second.settle(&held.lease, answer("because")).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_link_whose_heartbeats_stop_is_closed_though_its_stream_stands() {
    let shell = Shell::start().await;
    let (mut mute, _) = Agent::greeted(&shell, hello(&shell, "i").await).await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_secs(15)).await;
        mute.say(Up::Heartbeat { leases: vec![] }).await;
    }
    let began = tokio::time::Instant::now();
    // It is heard in other ways: these do not prove that somebody looks after the work.
    mute.say(Up::Pong { nonce: 1 }).await;
    mute.say(Up::Credit { messages: 1, size_bytes: 1 }).await;
    tokio::time::sleep(Duration::from_secs(19)).await;
    assert!(!shell.links.is_empty());

    let status = mute.end().await.unwrap();

    assert_eq!(
        (status.code(), reason_of(&status).as_str()),
        (Code::DeadlineExceeded, "NO_HEARTBEAT")
    );
    assert_eq!(began.elapsed().as_secs(), 20);
    assert!(shell.links.is_empty());
}

#[tokio::test]
async fn a_stop_tells_each_link_when_to_come_back() {
    let shell = Shell::start().await;
    let (mut agent, _) = Agent::greeted(&shell, hello(&shell, "i").await).await;

    shell.stop.cancel();

    use tonic_types::StatusExt;
    let status = agent.end().await.unwrap();
    assert_eq!(reason_of(&status), "STOPPING");
    let wait = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert_eq!(wait, shell.leases.reconnect_after(crate::core::agent::LinkId(1), 1));
}

/// I-18, I-29: a store that stalls closes no link, loses no settlement, and bounds what waits.
#[tokio::test]
async fn a_burst_of_settlements_over_a_stalled_store_is_answered_to_the_last() {
    const BURST: usize = 20_000;
    let shell = Shell::start().await;
    let mut agent = Agent::serving(&shell, hello(&shell, "i").await, 1).await;
    let id = shell.ask(1).await;
    let lease = agent.delivery().await.lease;
    let gate = crate::journal::faulty::Gate::new();
    shell.script.then(Fault::HoldBefore(gate.clone()));
    let up = agent.up.clone();
    let (first, again) = (lease.clone(), lease.clone());
    let said = std::cell::Cell::new(0);
    let saying = async {
        // Whatever cannot be taken now waits on the wire, and is not lost.
        for number in 0..BURST {
            let lease = if number % 2 == 0 { again.clone() } else { format!("{number}.1.00") };
            up.send(Ok(Up::Settle(vec![settlement(&lease, answer("because"))]))).await.unwrap();
            said.set(number);
        }
    };
    let stalling = async {
        gate.arrived().await;
        // More than waits for the engine at once: half of them are refused without it.
        while said.get() < 8_000 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(said.get() < BURST / 2, "what waits is bounded");
        gate.release();
    };
    let hearing = async {
        let (mut settled, mut refused) = (0, 0);
        while settled + refused < BURST {
            match agent.down.recv().await.unwrap().expect("the link is not closed") {
                Down::Settled(SettledFrame { refused: None, lease, .. }) => {
                    assert_eq!(lease, first);
                    settled += 1;
                }
                Down::Settled(SettledFrame { refused: Some(why), .. }) => {
                    assert_eq!(why.reason, "LEASE_LOST");
                    refused += 1;
                }
                _ => {}
            }
        }
        (settled, refused)
    };

    let all = async { tokio::join!(saying, stalling, hearing) };
    let ((), (), counted) = tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();

    assert_eq!(counted, (BURST / 2, BURST / 2));
    assert_eq!(state(&shell, id).await, MessageState::Done);
}

/// I-29: what is out to an agent that reads nothing stays within its credit, and others go on.
#[tokio::test]
async fn an_agent_that_never_reads_holds_its_byte_credit_and_no_more() {
    let shell = Shell::start().await;
    let deaf = Agent::dial(shell.services(), 1);
    deaf.say(Up::Hello(Hello { is_exclusive: false, ..hello(&shell, "i").await })).await;
    let sizes: u64 = 200;
    deaf.say(Up::Credit { messages: u32::MAX, size_bytes: sizes }).await;
    for number in 0..50 {
        shell.ask(number + 1).await;
    }
    shell.settled().await;

    let mut out = 0;
    for number in 0..50 {
        let id = MessageId::from_u128(number + 1);
        let row = shell.projection.find(local(), id, shell.engine.head()).await.unwrap().unwrap();
        if row.state == MessageState::Leased {
            out += row.accepted.body.size_bytes;
        }
    }

    assert!(out > 0 && out <= sizes, "{out} bytes are out of {sizes}");
}

/// Credit that no agent can mean is bounded, adds up without overflow, and ends nothing.
#[tokio::test]
async fn credit_of_nothing_and_of_everything_is_taken_for_what_it_is() {
    let shell = Shell::start().await;
    let (mut agent, _) = Agent::greeted(&shell, hello(&shell, "i").await).await;
    shell.ask(1).await;
    agent.say(Up::Credit { messages: 0, size_bytes: 0 }).await;
    for _ in 0..3 {
        agent.say(Up::Credit { messages: u32::MAX, size_bytes: u64::MAX }).await;
    }

    let lease = agent.delivery().await.lease;

    assert_eq!(agent.settle(&lease, answer("because")).await, None);
    let Reply::Agents(agents) = soon(shell.engine.query(Query::Agents)).await.unwrap() else {
        panic!("no agents")
    };
    assert_eq!(agents[0].free_credit, crate::core::agent::MAX_CREDIT);
}
