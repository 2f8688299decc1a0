//! What the shell asks of the rules, and what it is told to do.

use std::{collections::BTreeMap, time::Duration};

use broker_proto::{
    AgentInfo, AgentName, AnswerSummary, AskOptions, ContentHash, Correlation, Counters, Failure,
    MessageId, MessageState, MessageType, ModelInfo, ModelName, ModelUsage, Numbered, Priority,
    QueueInfo, RateLimit, Receipt, Recipient, RootBudget, RouteExplanation, Routed, Sender,
    StopReason, TaskState, Terminal, TokenInfo, Usage, WallTime,
};

use super::{
    Refusal,
    agent::{Link, LinkId},
    queue::{Body, Digest, Seq},
    task::Exchange,
    tree::Parent,
    usage,
};

/// What the rules need to know of a consultation to route it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewConsultation {
    pub asked: ModelName,
    pub options: AskOptions,
    /// Bytes of the prompt, from which its tokens are estimated.
    pub prompt_bytes: u64,
    /// Of these, the history of its session: a model that does not hold all of it is sent less.
    pub history_bytes: u64,
    pub needs_vision: bool,
    pub max_output_tokens: Option<u32>,
}

/// A message found in the projection, older than what is in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    pub digest: Digest,
    pub receipt: Receipt,
}

/// A checked message, its body already durable or in the same batch.
#[derive(Debug, Clone, PartialEq)]
pub struct NewMessage {
    pub id: MessageId,
    pub sender: Sender,
    pub to: Recipient,
    pub kind: MessageType,
    pub priority: Priority,
    pub digest: Digest,
    pub body: Body,
    pub expires_at: Option<WallTime>,
    pub session: Option<String>,
    pub ordering_key: Option<String>,
    pub correlation: Correlation,
    pub labels: BTreeMap<String, String>,
    pub allow_future_recipient: bool,
    pub consultation: Option<NewConsultation>,
    pub earlier: Option<Earlier>,
    /// How its bulk sender counts it, and what it sent before under this number, where memory may have forgotten it.
    pub numbered: Option<Numbered>,
    pub earlier_number: Option<Earlier>,
    /// What its sender was given and names as the parent.
    pub parent: Option<Parent>,
    pub budget: Option<RootBudget>,
}

/// Which dead letters a command is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letters {
    pub which: Which,
    /// Only those behind this number, where many are meant.
    pub after: Seq,
    /// Only say what would be done.
    pub is_dry_run: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    All,
    To(Recipient),
    Named(Vec<(Sender, MessageId)>),
}

/// What became of the dead letters of one command.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Handled {
    pub done: u64,
    pub skipped: Vec<Skipped>,
    /// There are more behind this one.
    pub next: Option<Seq>,
}

/// A dead letter that was left where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Skipped {
    pub sender: Sender,
    pub id: MessageId,
    pub refusal: Refusal,
}

/// How a delivery ended, as its agent says.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Done {
        reply: Body,
        stop_reason: Option<StopReason>,
    },
    /// `shown`: some of it has reached the asker.
    Failed {
        failure: Failure,
        partial: Option<Body>,
        shown: bool,
    },
    Retry {
        after: Duration,
        shown: bool,
    },
    /// A task asks its requester something.
    Ask {
        question: Body,
        shown: bool,
    },
    Reject {
        reason: String,
    },
    Release {
        shown: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct SettleCommand {
    pub agent: AgentName,
    pub seq: Seq,
    pub epoch: u32,
    /// Where the shell knows it.
    pub id: Option<MessageId>,
    pub outcome: Outcome,
    pub usage: Usage,
    pub limits: Vec<RateLimit>,
    pub first_token: Option<Duration>,
    /// The epoch that finished this message, when it is only in the projection.
    pub earlier: Option<u32>,
    /// What its session goes on with when this ends it as done: in the same commit, so once and never without it.
    pub append: Option<Append>,
    /// What its model was not sent of its session's history; empty: it was sent all of it. `None`: nobody knows any more.
    pub shortened: Option<String>,
}

/// What a requester or a person wants of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskStep {
    Provide {
        /// Made by whoever answers: the same again changes nothing.
        id: MessageId,
        digest: Digest,
        answer: Body,
        has_images: bool,
        /// The question that this answers; 0 is the open one.
        question: u32,
    },
    Suspend,
    Resume,
    Cancel,
}

impl TaskStep {
    /// What cannot be done, as the end of a sentence.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Provide { .. } => "answered",
            Self::Suspend => "suspended",
            Self::Resume => "resumed",
            Self::Cancel => "cancelled",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Send(Box<NewMessage>),
    Settle(Box<SettleCommand>),
    Cancel {
        sender: Sender,
        id: MessageId,
    },
    Redrive(Letters),
    Purge(Letters),
    /// Stops what is delivered from a queue, or lets it go on. Sends and settlements are not touched.
    Pause {
        queue: Recipient,
        is_paused: bool,
    },
    Task {
        seq: Seq,
        step: TaskStep,
    },
    /// The wall clock jumped this far ahead, and is not believed yet; `None` when that is over.
    ClockJumped {
        ahead: Option<Duration>,
    },
    /// Renews these leases of one agent.
    Renew {
        agent: AgentName,
        leases: Vec<(Seq, u32)>,
    },
    /// Lets one lease run on for `by` from now, at most up to its cap.
    Extend {
        agent: AgentName,
        seq: Seq,
        epoch: u32,
        by: Duration,
    },
    /// Gives nothing new to this agent, or to nobody, until it is over.
    Drain {
        agent: Option<AgentName>,
        is_over: bool,
    },
    LinkUp {
        link: LinkId,
        up: Box<Link>,
        resume: Vec<(Seq, u32)>,
    },
    LinkDown {
        link: LinkId,
    },
    Credit {
        link: LinkId,
        messages: u32,
        size_bytes: u64,
    },
    /// The stream of a lost attempt is closed; `shown`: some of it has reached the asker; `partial`: what has.
    Sealed {
        seq: Seq,
        epoch: u32,
        shown: bool,
        partial: Option<Body>,
    },
    /// The stored bytes are not those that were acknowledged.
    Corrupt {
        seq: Seq,
        epoch: u32,
    },
    AskerLeft {
        seq: Seq,
    },
    AskerBack {
        seq: Seq,
    },
    Report {
        model: ModelName,
        usage: Usage,
        limits: Vec<RateLimit>,
        failure: Option<Failure>,
    },
    StoreContent {
        hash: ContentHash,
        body: Body,
    },
    /// Nothing refers to these parts any more.
    ForgetContents {
        hashes: Vec<ContentHash>,
    },
    Session(Box<super::session::Command>),
    SetToken {
        agent: AgentName,
        hash: Option<[u8; 32]>,
    },
    Package(super::package::Command),
    Handoff(Box<super::handoff::Command>),
    Bridge(Box<super::handoff::bridge::Command>),
    Ring(Box<super::ring::Command>),
    Usage(Box<usage::Command>),
    /// The state was just loaded: leases and waits run again from now.
    Recovered,
    Projected {
        finish_no: u64,
    },
    Tick,
    Query(Query),
}

impl Command {
    /// Whether a full disk refuses it (I-28): it stores what is new, instead of ending what is there.
    #[must_use]
    pub fn adds_content(&self) -> bool {
        use super::package::Command as Package;
        matches!(
            self,
            Self::Send(_)
                | Self::StoreContent { .. }
                | Self::Session(_)
                | Self::Package(Package::Save { .. })
        )
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    Models,
    Agents,
    Tokens,
    Usage,
    OfUsage(usage::Query),
    Explain {
        new: Box<NewConsultation>,
        session: Option<String>,
    },
    Message(Sender, MessageId),
    /// The message of this id that an agent works on.
    Parent(Sender, MessageId),
    /// Queues behind this one, by name.
    Queues {
        after: Option<Recipient>,
        limit: usize,
    },
    Queue(Recipient),
    /// Ready messages of a queue behind this one, the most urgent first.
    Peek {
        queue: Recipient,
        after: Option<(Priority, Seq)>,
        limit: usize,
    },
    /// Of one recipient, or of all together.
    Counters(Option<Recipient>),
    /// Whose token this hash is.
    Token([u8; 32]),
    /// Who holds which lease on a message.
    Lease(Seq),
    /// What is still out, of this agent or of all.
    Drain(Option<AgentName>),
    Session(super::session::Query),
    Package(super::package::Query),
    Handoff(super::handoff::Query),
    Bridges(super::handoff::bridge::Query),
    Ring(super::ring::Query),
}

/// Where a message stands that is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub seq: Seq,
    pub state: MessageState,
    pub queue: Recipient,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    None,
    /// It was settled by this lease before, and stays as that left it.
    SettledBefore,
    /// It is settled, and the session that was to go on with it is there no more.
    NotAppended,
    Receipt(Receipt),
    State(MessageState),
    Task(TaskState),
    Models(Vec<ModelInfo>),
    Agents(Vec<AgentInfo>),
    Tokens(Vec<TokenInfo>),
    Usage(Vec<ModelUsage>),
    OfUsage(usage::Reply),
    Explained(RouteExplanation),
    Message(Option<View>),
    Parent(Option<Parent>),
    Handled(Handled),
    Queues(Vec<QueueInfo>),
    Peeked(Vec<(Priority, Seq)>),
    Counters(Counters),
    Agent(Option<AgentName>),
    /// Leases of the hello that still hold.
    Resumed(Vec<Resumed>),
    /// How long a lease runs from now.
    Extended(Duration),
    Lease(Option<Holder>),
    Drain(Draining),
    Session(super::session::Reply),
    Package(super::package::Reply),
    Handoff(super::handoff::Reply),
    Bridges(super::handoff::bridge::Reply),
    Ring(super::ring::Reply),
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub agent: AgentName,
    pub epoch: u32,
    pub id: MessageId,
}

/// How far a drain has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draining {
    pub is_draining: bool,
    /// Leases that are still out.
    pub running: usize,
}

/// A lease that a greeting agent still holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumed {
    pub seq: Seq,
    pub epoch: u32,
    pub id: MessageId,
}

/// A lease as it goes to its agent.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered {
    pub link: LinkId,
    pub seq: Seq,
    pub id: MessageId,
    pub sender: Sender,
    pub epoch: u32,
    /// Which life of the message this is (I-27).
    pub generation: u32,
    pub body: Body,
    /// The model to call; `None` for a mailbox delivery.
    pub model: Option<ModelName>,
    pub deadline: WallTime,
    pub max_output_tokens: Option<u32>,
    /// The tokens that the model has left for the history of the question's session, where it does not hold all of it.
    pub history_room: Option<u64>,
    /// Of a task: what it asked back so far.
    pub exchanges: Vec<Exchange>,
    /// How long the lease runs, unless it is renewed.
    pub lease_left: Duration,
}

/// Carried out by the shell once the decision's events are durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A consultation was accepted: its reply slot opens.
    Opened {
        seq: Seq,
        id: MessageId,
        sender: Sender,
        receipt: Receipt,
    },
    /// An attempt begins; part frames of this number are its own.
    AttemptBegins {
        seq: Seq,
        id: MessageId,
        sender: Sender,
        routed: Box<Routed>,
    },
    Deliver(Box<Delivered>),
    /// Ends the provider call of a lease that is over.
    Cancel {
        agent: AgentName,
        instance: String,
        seq: Seq,
        epoch: u32,
        id: MessageId,
        reason: String,
    },
    /// The lease is lost to its agent.
    Revoke {
        agent: AgentName,
        instance: String,
        seq: Seq,
        epoch: u32,
        id: MessageId,
        reason: String,
    },
    /// Closes the stream of a lost attempt, and comes back as [`Command::Sealed`].
    Seal {
        seq: Seq,
        id: MessageId,
        sender: Sender,
        epoch: u32,
    },
    /// Closes the stream of a suspended delivery and keeps what was said in it, seen or not; comes back as
    /// [`Command::Sealed`].
    Stop {
        seq: Seq,
        epoch: u32,
    },
    /// The consultation ended: its stream gets this last frame.
    Closed {
        seq: Seq,
        id: MessageId,
        sender: Sender,
        terminal: Box<Terminal>,
    },
    Supersede {
        link: LinkId,
    },
    /// A limit comes near: whoever will go on needs a package soon.
    Prepare(usage::Near),
    /// A handoff needs a package for its receiver, and comes back as [`super::handoff::Command::Built`].
    Build(Box<broker_proto::Handoff>),
    /// A model whose limit should be over has sessions to take back: somebody asks it something small.
    Probe(ModelName),
    /// A session may come to this model soon: its agents load it, where it is loaded.
    Warm {
        links: Vec<LinkId>,
        model: ModelName,
        tokens: u64,
    },
    /// A session is offered to the agents of these links.
    Offer {
        links: Vec<LinkId>,
        offer: Box<broker_proto::HandoffOffer>,
    },
    /// Wakes the member of a ring that is to take over; comes back as [`super::ring::Command::NotWoken`] if it cannot.
    Wake(Box<super::ring::Call>),
    /// The same, by the processes that stand by for it.
    WakeOver {
        links: Vec<LinkId>,
        call: Box<super::ring::Call>,
    },
    /// A model's state changed, for its agents and the log.
    ModelChanged {
        model: ModelName,
        is_available: bool,
        reason: String,
    },
}

/// How a session goes on with an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Append {
    Write(Box<super::session::Write>),
    /// It cannot, now and later, for this reason; the answer stands and says so.
    Cannot(String),
}

/// Keeps the summary's shape in one place.
#[must_use]
pub(crate) fn terminal(
    state: MessageState,
    failure: Option<Failure>,
    summary: AnswerSummary,
) -> Terminal {
    match (state, failure) {
        (MessageState::Done, _) => Terminal::Done(summary),
        (MessageState::Expired, _) => Terminal::Expired(summary),
        (MessageState::Cancelled, _) => Terminal::Cancelled(summary),
        (_, Some(failure)) => Terminal::Failed { failure, summary },
        (_, None) => Terminal::Failed {
            failure: Failure::new(
                broker_proto::FailureClass::Internal,
                "broker",
                "the message ended without a reason",
            ),
            summary,
        },
    }
}
