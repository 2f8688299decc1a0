//! Senders and askers.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use broker_client::{AnswerStream, Assembly, Client, Endpoint, Error, ListFilter};
use broker_proto::{
    AgentName, AnswerFrame, AskOptions, Message, MessageId, MessageState, ModelName, Part, Receipt,
    Terminal,
};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_util::task::TaskTracker;

use super::{
    Orders, Plan,
    chance::Chance,
    digest, outcome,
    plan::{Recipients, Step, otherwise},
    rank, reply_digest,
};
use crate::history::{Accepted, Frame, History, Outcome, Role, Said, What};

/// How long a sender waits before it says again what may not have been heard.
const AGAIN: Duration = Duration::from_millis(60);
/// How often it does that.
const TRIES: u32 = 150;
/// Streams that an asker takes that end without saying how.
const SHORT_STREAMS: u32 = 3;
/// How often is looked what became of a message.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Look-ups at once.
const LOOKING: usize = 16;

/// Who sends, where, and what.
#[derive(Debug, Clone)]
pub struct SenderOptions {
    pub endpoint: Endpoint,
    pub history: PathBuf,
    /// This process's name in the history.
    pub name: String,
    pub seed: u64,
    pub plan: Plan,
    pub mailboxes: Vec<AgentName>,
    pub models: Vec<ModelName>,
    /// How long it waits for the end of everything it sent, once it is to be quiet.
    pub patience: Duration,
}

/// What all senders of this process share.
#[derive(Debug)]
struct Sending {
    client: Client,
    history: History,
    plan: Plan,
    seed: u64,
    recipients: Recipients,
    calls: AtomicU64,
    /// What was sent so far, refused or not, and whether it was a question.
    sent: Mutex<BTreeMap<MessageId, bool>>,
}

pub(super) async fn run(
    options: SenderOptions,
    mut orders: watch::Receiver<Orders>,
) -> anyhow::Result<()> {
    let SenderOptions { endpoint, history, name, seed, plan, mailboxes, models, patience } =
        options;
    let (history, file) = History::open(&history, &name).context("the history")?;
    history.note(What::Began { seed, role: Role::Sender, pid: std::process::id() }).await;
    let sending = Arc::new(Sending {
        client: Client::lazy(&endpoint),
        history: history.clone(),
        plan,
        seed,
        recipients: Recipients { mailboxes, models },
        calls: AtomicU64::new(1),
        sent: Mutex::default(),
    });
    let senders = TaskTracker::new();
    for number in 0..plan.senders() {
        senders.spawn(Arc::clone(&sending).steps(number, orders.clone()));
    }
    senders.close();
    senders.wait().await;
    say("sent");
    // A plan with an end waits for the word like any other. Nobody left to say it is a word too.
    let _ = orders.wait_for(|orders| *orders > Orders::Work).await;
    history.note(What::Quiet).await;
    sending.learn_all(patience).await;
    history.note(What::Ended).await;
    drop((history, sending));
    file.close().context("the history")
}

/// A line for the harness; if it has gone there is nobody to tell.
fn say(word: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{word}");
}

impl Sending {
    fn call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    async fn steps(self: Arc<Self>, sender: u64, orders: watch::Receiver<Orders>) {
        let mut chance = Chance::new(self.seed, &["rest", &sender.to_string()]);
        let asking = TaskTracker::new();
        for number in 0..self.plan.steps() {
            tokio::time::sleep(self.plan.rest(&mut chance)).await;
            if *orders.borrow() > Orders::Work {
                break;
            }
            match self.plan.step(self.seed, sender, number, &self.recipients) {
                Step::Mail(message) => self.mail(*message).await,
                Step::Ask(message, options) => {
                    let own = Arc::clone(&self);
                    asking.spawn(async move { own.ask(*message, options).await });
                }
                Step::Submit(message, options) => self.submit(*message, options).await,
                Step::Again { of } => self.again(sender, of, false).await,
                Step::Otherwise { of } => self.again(sender, of, true).await,
                Step::Cancel { of } => self.cancel(sender, of).await,
            }
        }
        asking.close();
        asking.wait().await;
    }

    async fn mail(&self, message: Message) {
        self.until_known(&message, None).await;
    }

    async fn submit(&self, message: Message, options: AskOptions) {
        self.until_known(&message, Some(&options)).await;
    }

    /// What an earlier step sent once more, as it was or with other words.
    async fn again(&self, sender: u64, of: u64, is_otherwise: bool) {
        let step = self.plan.step(self.seed, sender, of, &self.recipients);
        let changed = |message: Box<Message>| {
            if is_otherwise { otherwise(*message) } else { *message }
        };
        match step {
            // Its expiry is counted from its first step, so another copy of it is another message.
            Step::Mail(message) if message.expires_at.is_some() => {}
            Step::Mail(message) => self.mail(changed(message)).await,
            Step::Ask(message, options) | Step::Submit(message, options) => {
                self.submit(changed(message), options).await;
            }
            Step::Again { .. } | Step::Otherwise { .. } | Step::Cancel { .. } => {}
        }
    }

    async fn cancel(&self, sender: u64, of: u64) {
        let id = match self.plan.step(self.seed, sender, of, &self.recipients) {
            Step::Mail(message) | Step::Ask(message, _) | Step::Submit(message, _) => message.id,
            Step::Again { .. } | Step::Otherwise { .. } | Step::Cancel { .. } => return,
        };
        let call = self.call();
        self.history.note(What::Cancel { call, id: id.to_string() }).await;
        let state = self.client.cancel(id).await.map(|state| state.as_str().to_owned());
        let outcome = outcome(state);
        self.history.note(What::Cancelled { call, id: id.to_string(), outcome }).await;
    }

    /// Notes that this is about to be sent.
    async fn about_to_send(&self, message: &Message) -> u64 {
        let is_question = message.kind == broker_proto::MessageType::Consultation;
        self.sent().insert(message.id, is_question);
        let call = self.call();
        let said = Said {
            to: message.to.to_string(),
            kind: kind(message),
            priority: rank(message.priority),
            key: message.ordering_key.clone(),
            digest: digest(message),
            size_bytes: message.payload.parts().map(Part::size_bytes).sum(),
            expires_at: message.expires_at.map(|at| at.0),
        };
        self.history.note(What::Send { call, id: message.id.to_string(), said }).await;
        call
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, BTreeMap<MessageId, bool>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn was_sent(&self, call: u64, id: MessageId, result: Result<Receipt, Error>) -> bool {
        let outcome: Outcome<Accepted> = outcome(result.map(|receipt| accepted(&receipt)));
        let is_known = outcome.ok().is_some() || outcome.is_sure_refusal();
        self.history.note(What::Sent { call, id: id.to_string(), outcome }).await;
        is_known
    }

    /// Sends, or submits with options, until the broker has said yes or no.
    async fn until_known(&self, message: &Message, options: Option<&AskOptions>) {
        for _ in 0..TRIES {
            let call = self.about_to_send(message).await;
            let result = match options {
                None => self.client.send(message.clone(), false).await,
                Some(options) => self.client.submit(message.clone(), options.clone()).await,
            };
            if self.was_sent(call, message.id, result).await {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Asks, reads the answer to its end, and comes back to it when the stream breaks.
    async fn ask(&self, message: Message, options: AskOptions) {
        let id = message.id;
        let mut reading = Reading { assembly: Assembly::default(), is_over: false, cut_short: 0 };
        let mut is_accepted = false;
        for _ in 0..TRIES {
            if is_accepted {
                let seen = reading.assembly.seen();
                match self.client.attach(id, seen, options.allow_restart).await {
                    Ok(stream) => drop(self.read(id, stream, &mut reading, None).await),
                    // Forgotten: what it is told at the end says so.
                    Err(error) if error.reason() == Some("UNKNOWN_MESSAGE") => return,
                    Err(_) => {}
                }
            } else {
                let call = self.about_to_send(&message).await;
                match self.client.ask(message.clone(), options.clone()).await {
                    Ok(stream) => {
                        is_accepted = self.read(id, stream, &mut reading, Some(call)).await;
                    }
                    Err(error) => {
                        if self.was_sent(call, id, Err(error)).await {
                            return;
                        }
                    }
                }
            }
            if reading.is_over || reading.cut_short > SHORT_STREAMS {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Reads one stream to its end. `call`: what its acceptance answers. Says whether that came.
    async fn read(
        &self,
        id: MessageId,
        mut stream: AnswerStream,
        reading: &mut Reading,
        mut call: Option<u64>,
    ) -> bool {
        let number = self.call();
        let text = id.to_string();
        let mut is_accepted = false;
        let mut broken = None;
        while let Some(frame) = stream.next().await {
            let frame = match frame {
                Ok(frame) => frame,
                Err(Error::EndedEarly) => {
                    reading.cut_short += 1;
                    break;
                }
                Err(error) => {
                    broken = Some(error);
                    break;
                }
            };
            if let (AnswerFrame::Accepted(receipt), Some(call)) = (&frame, call.take()) {
                is_accepted = self.was_sent(call, id, Ok(receipt.clone())).await;
            }
            let seen = reading.take(frame);
            self.history.remark(What::Frame { id: text.clone(), stream: number, frame: seen });
        }
        if let Some(call) = call {
            let why = "the stream ended before its acceptance".to_owned();
            let outcome = Outcome::Unknown { why };
            self.history.note(What::Sent { call, id: text.clone(), outcome }).await;
        }
        let broken = broken.map(|error| error.to_string());
        self.history.note(What::StreamEnded { id: text, stream: number, broken }).await;
        is_accepted
    }

    /// Waits for the end of everything that was sent, and notes what the senders are told.
    async fn learn_all(self: &Arc<Self>, patience: Duration) {
        let until = Instant::now() + patience;
        let room = Arc::new(tokio::sync::Semaphore::new(LOOKING));
        let looking = TaskTracker::new();
        let sent = self.sent().clone();
        for (id, is_question) in sent {
            let (own, room) = (Arc::clone(self), Arc::clone(&room));
            looking.spawn(async move { own.learn(id, is_question, until, &room).await });
        }
        looking.close();
        looking.wait().await;
        if let Ok(states) = self.count().await {
            self.history.note(What::Counted { states }).await;
        }
    }

    async fn learn(
        &self,
        id: MessageId,
        is_question: bool,
        until: Instant,
        room: &tokio::sync::Semaphore,
    ) {
        loop {
            // Never closed.
            let Ok(turn) = room.acquire().await else { return };
            let told = self.told(id, is_question).await;
            drop(turn);
            let is_late = Instant::now() > until;
            match told {
                Ok((what, is_over)) if is_over || is_late => {
                    self.history.note(what).await;
                    return;
                }
                Err(_) if is_late => return,
                Ok(_) | Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// What a sender is told about its message, and whether that is the last word.
    async fn told(&self, id: MessageId, is_question: bool) -> Result<(What, bool), Error> {
        let learned = |state: &str, class: Option<String>, reply| What::Learned {
            id: id.to_string(),
            state: state.to_owned(),
            class,
            reply,
        };
        let info = match self.client.message(id, false).await {
            Ok((info, _)) => info,
            Err(error) if error.reason() == Some("UNKNOWN_MESSAGE") => {
                return Ok((learned("lost", None, None), true));
            }
            Err(error) => return Err(error),
        };
        let class = info.failure.map(|failure| failure.class.as_str().to_ascii_lowercase());
        let reply = if is_question && info.state == MessageState::Done {
            let poll = self.client.poll(id, Duration::ZERO).await?;
            Some(poll.parts).filter(|parts| !parts.is_empty()).map(|parts| reply_digest(&parts))
        } else {
            None
        };
        Ok((learned(info.state.as_str(), class, reply), info.state.is_terminal()))
    }

    /// The messages there are, by state.
    async fn count(&self) -> Result<BTreeMap<String, u64>, Error> {
        let mut states = BTreeMap::new();
        let mut filter = ListFilter { page_size: 1000, ..ListFilter::default() };
        loop {
            let page = self.client.messages(filter.clone()).await?;
            for info in page.items {
                *states.entry(info.state.as_str().to_owned()).or_default() += 1;
            }
            if page.next_page_token.is_none() {
                return Ok(states);
            }
            filter.page_token = page.next_page_token;
        }
    }
}

/// How far an asker has come.
struct Reading {
    assembly: Assembly,
    is_over: bool,
    /// Streams that ended in order and without a terminal frame.
    cut_short: u32,
}

impl Reading {
    /// Takes a frame, and gives what is noted of it.
    fn take(&mut self, frame: AnswerFrame) -> Frame {
        let noted = match &frame {
            AnswerFrame::Accepted(_) => Frame::Accepted,
            AnswerFrame::Routed(routed) => Frame::Routed { attempt: routed.attempt },
            AnswerFrame::PartDelta { attempt, data, .. } => {
                Frame::Said { attempt: *attempt, size_bytes: data.len() as u64 }
            }
            AnswerFrame::Restarted { attempt, .. } | AnswerFrame::Switched { attempt, .. } => {
                Frame::Anew { attempt: *attempt }
            }
            _ => Frame::Other,
        };
        let state = match &frame {
            AnswerFrame::Terminal(terminal) => Some(end(terminal)),
            _ => None,
        };
        // Frames that do not fit together leave a text that no agent has sent, which is found.
        let _ = self.assembly.push(frame);
        match state {
            None => noted,
            Some(state) => {
                self.is_over = true;
                let reply = reply_digest(&[Part::text(self.assembly.text())]);
                Frame::Terminal { state: state.to_owned(), reply }
            }
        }
    }
}

fn end(terminal: &Terminal) -> &'static str {
    match terminal {
        Terminal::Done(_) => "done",
        Terminal::Failed { .. } => "failed",
        Terminal::Expired { .. } => "expired",
        Terminal::Cancelled { .. } => "cancelled",
    }
}

fn accepted(receipt: &Receipt) -> Accepted {
    Accepted {
        is_duplicate: receipt.is_duplicate,
        accepted_at: receipt.accepted_at.0,
        deadline: receipt.deadline.0,
    }
}

fn kind(message: &Message) -> String {
    format!("{:?}", message.kind).to_ascii_lowercase()
}
