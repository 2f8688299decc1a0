//! The frames of an agent's link.

use std::time::Duration;

use super::{
    AgentName, AnswerFrame, Failure, HandoffId, Message, MessageId, ModelName, PackageId, Part,
    PingText, RateLimit, Receipt, RoleName, SessionId, StopReason, TaskExchange, Usage, WallTime,
};

/// The first frame up.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    pub agent: AgentName,
    /// Proves the name.
    pub token: String,
    /// Drawn by the process at its start: tells a reconnect from a new process.
    pub instance: String,
    pub is_exclusive: bool,
    pub models: Vec<ModelName>,
    /// Deliveries it works on at once.
    pub capacity: u32,
    /// Lease tokens it still works on, after a reconnect.
    pub resume: Vec<String>,
    /// What the last welcome gave, after a reconnect.
    pub resume_token: Option<String>,
    /// The last frame seen on the link of that token.
    pub resume_seen: u64,
    /// The roles whose queues it takes from.
    pub roles: Vec<RoleName>,
    /// It takes nothing, and is told when the member of its name is to take over a ring of one of its roles.
    pub is_standby: bool,
}

/// The token stays out of every log.
impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("agent", &self.agent)
            .field("instance", &self.instance)
            .field("is_exclusive", &self.is_exclusive)
            .field("models", &self.models)
            .field("roles", &self.roles)
            .field("capacity", &self.capacity)
            .field("is_standby", &self.is_standby)
            .finish_non_exhaustive()
    }
}

/// The first frame down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    pub link: String,
    pub epoch: u64,
    pub heartbeat: Duration,
    pub lease: Duration,
    /// Which of the leases named in the hello still hold.
    pub resumed: Vec<String>,
    /// Proves, in the next hello of this process, that it goes on where this link ended.
    pub resume_token: String,
}

/// A member of a ring is to take over, and is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wake {
    pub role: RoleName,
    /// Who hands on; `None`: nobody worked.
    pub from: Option<AgentName>,
    pub reason: String,
    pub at: WallTime,
}

/// A session that an agent may take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandoffOffer {
    pub handoff: HandoffId,
    pub session: SessionId,
    /// The model that would own it.
    pub model: ModelName,
    pub package: PackageId,
    /// What the package says of itself; whoever takes it computes its own.
    pub manifest: [u8; 32],
    pub until: WallTime,
}

/// One leased copy of a message.
#[derive(Clone, PartialEq)]
pub struct Delivery {
    /// Proves the right to settle.
    pub lease: String,
    /// Names the message in the parts of its answer.
    pub number: u64,
    /// What it takes of the link's byte credit.
    pub size_bytes: u64,
    pub message: Message,
    pub attempt: u32,
    /// The model to call; `None` for a mailbox delivery.
    pub model: Option<ModelName>,
    /// What is left of the message's deadline.
    pub time_left: Duration,
    /// The most output tokens its budget allows.
    pub max_output_tokens: Option<u32>,
    /// For a task: what it asked back so far, oldest first, each with its answer.
    pub exchanges: Vec<TaskExchange>,
    /// How long the lease runs, unless it is renewed.
    pub lease_left: Duration,
    /// Which life of the message this is, from 1.
    pub generation: u32,
}

/// The lease token stays out of every log.
impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("number", &self.number)
            .field("message", &self.message.id)
            .field("attempt", &self.attempt)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum SettleOutcome {
    Done {
        parts: Vec<Part>,
        stop_reason: Option<StopReason>,
    },
    /// `partial` is what arrived before the failure.
    Failed {
        failure: Failure,
        partial: Vec<Part>,
    },
    Retry {
        after: Duration,
    },
    Reject {
        reason: String,
    },
    /// A task needs to know something of its requester; it comes again with the answer.
    Ask {
        question: Vec<Part>,
    },
    /// Given back unworked; it does not count as an attempt.
    Release,
}

impl SettleOutcome {
    /// Bytes of content that it carries; what is named by hash takes next to none.
    #[must_use]
    pub fn inline_bytes(&self) -> u64 {
        let parts = match self {
            Self::Done { parts, .. } => parts,
            Self::Failed { partial, .. } => partial,
            Self::Ask { question } => question,
            Self::Retry { .. } | Self::Reject { .. } | Self::Release => return 0,
        };
        let inline = |part: &&Part| !matches!(part, Part::Ref(_));
        parts.iter().filter(inline).map(Part::size_bytes).sum()
    }
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    pub lease: String,
    pub outcome: SettleOutcome,
    pub usage: Usage,
    pub limits: Vec<RateLimit>,
    /// From the call to its first token.
    pub first_token: Option<Duration>,
}

/// What one call takes of queues, for who cannot hold a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// The models whose queues it takes from, besides the agent's mailbox.
    pub models: Vec<ModelName>,
    /// The roles whose queues it takes from.
    pub roles: Vec<RoleName>,
    pub messages: u32,
    pub size_bytes: u64,
    /// `None`: what the broker's configuration says.
    pub lease: Option<Duration>,
    /// How long it waits for a first message.
    pub wait: Duration,
}

/// How long a lease that was pulled is to run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    pub lease: String,
    pub by: Duration,
}

/// What an agent says.
#[derive(Debug, Clone, PartialEq)]
pub enum Up {
    Hello(Hello),
    Credit {
        messages: u32,
        size_bytes: u64,
    },
    Settle(Vec<Settlement>),
    /// A part frame of the answer to [`Delivery::number`].
    Part {
        delivery: u64,
        frame: AnswerFrame,
    },
    Progress {
        lease: String,
        text: String,
    },
    Usage {
        model: ModelName,
        usage: Usage,
        limits: Vec<RateLimit>,
        message: Option<MessageId>,
    },
    Send(Box<Message>),
    Heartbeat {
        leases: Vec<String>,
    },
    Bye {
        reason: String,
    },
    Pong {
        nonce: u64,
    },
    /// A ping that the broker asked for, to be passed on.
    SendPing {
        nonce: u64,
        to: ModelName,
        text: PingText,
    },
    PeerPong {
        nonce: u64,
    },
    PingDone {
        nonce: u64,
        round_trip: Duration,
    },
}

/// A settlement's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledFrame {
    pub lease: String,
    pub refused: Option<RefusedFrame>,
    /// It was settled by this token before, and stays as that left it.
    pub is_repeated: bool,
}

/// A reason of `docs/errors.md`, and its sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedFrame {
    pub reason: String,
    pub detail: String,
}

/// What the broker says.
#[derive(Debug, Clone, PartialEq)]
pub enum Down {
    Welcome(Welcome),
    Deliver(Box<Delivery>),
    Cancel {
        lease: String,
        reason: String,
    },
    Revoke {
        lease: String,
        reason: String,
    },
    Level {
        model: ModelName,
        level: String,
        reason: String,
    },
    Drain {
        reason: String,
        until: Option<WallTime>,
        /// How long to wait before the next link, when this one is lost.
        reconnect_after: Option<Duration>,
        /// It is over: deliveries go on.
        is_over: bool,
    },
    Settled(SettledFrame),
    Sent {
        message: MessageId,
        result: Result<Receipt, RefusedFrame>,
    },
    Offer(HandoffOffer),
    /// A session of about so many tokens may come to this model soon.
    Warm {
        model: ModelName,
        tokens: u64,
    },
    /// The member that this link stands by for is to take over.
    Wake(Wake),
    Ping {
        nonce: u64,
    },
    /// Ping an agent of this model.
    AskPing {
        nonce: u64,
        to: ModelName,
        text: PingText,
    },
    PeerPing {
        nonce: u64,
        from: ModelName,
        text: PingText,
    },
    /// The answer to a ping that this agent sent.
    PeerPong {
        nonce: u64,
    },
}
