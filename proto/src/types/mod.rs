//! Domain types: what every part of the house means by a message, an answer, a failure.
//!
//! They know neither tonic nor prost, and do not serialise themselves: the wire is `convert`'s, the store is the journal's.

mod answer;
mod ask;
mod bridge;
mod content;
mod event;
mod failure;
mod frames;
mod handoff;
mod hex;
mod key;
mod link;
mod message;
mod names;
mod package;
mod ping;
mod queue;
mod registry;
mod rendering;
mod rotation;
mod session;
mod status;
mod task;
mod time;
mod usage;

pub use answer::{
    AnswerFrame, AnswerSummary, Attempt, Opening, PassedOver, Routed, StopReason, Terminal,
};
pub use ask::{AskOptions, Candidate, RouteExplanation};
pub use bridge::{Bridge, BridgeHealth, BridgeStatus};
pub use content::{ContentHash, Entry, Generation, Part, PartRef, Payload, Role, Tool, ToolChoice};
pub use event::{EventFilter, EventInfo, EventStart};
pub use failure::{Failure, FailureClass, FailureScope};
pub use frames::{FrameCounter, FrameGap, Stamp};
pub use handoff::{
    AcceptHandoff, Advice, AskHandoff, Echo, Handoff, HandoffCheck, HandoffFilter, HandoffId,
    HandoffKept, HandoffOutlook, HandoffPolicyChange, HandoffReport, HandoffState, HandoffStatus,
    Judged, Pace, TriedReceiver, Trigger, TriggerKind, Urgency, Verdict,
};
pub use hex::Hex;
pub use key::{InvalidKey, PackageKey};
pub use link::{
    Delivery, Down, Extension, HandoffOffer, Hello, Pull, RefusedFrame, SettleOutcome,
    SettledFrame, Settlement, Up, Wake, Welcome,
};
pub use message::{
    Correlation, InvalidRecipient, Message, MessageChange, MessageInfo, MessageState, MessageType,
    Numbered, Priority, Receipt, Recipient, RootBudget, TraceStep,
};
pub use names::{
    AgentName, InvalidName, MessageId, MessageName, ModelName, ProducerName, RoleName, Sender,
    SessionId,
};
pub use package::{
    Checkpoint, CheckpointStatus, CreditState, CurrentWork, NewPackage, OWN_KEY, PHASES,
    PackageContents, PackageFilter, PackageHeader, PackageId, PackageInfo, PackagePart,
    PackedConversation, PreparePackage, Preservation, QueuedTask, TokenShare, TrustedKey, key_name,
    phase_order,
};
pub use ping::{PeerPing, PingHop, PingText, PingTrip};
pub use queue::{Counters, DeadLetter, LettersHandled, QueueInfo, Trial};
pub use registry::{
    AgentInfo, ClockInfo, ClockJump, Drain, DrainStep, Draining, ModelInfo, Pong, TokenInfo,
};
pub use rendering::{RenderAsk, Rendering, SessionHistory};
pub use rotation::{
    ForceRotation, Pick, Rotation, RotationHandover, RotationMember, RotationPhase, RotationState,
    RotationTrigger, SetRotation,
};
pub use session::{
    APPEND_LABEL, EntryHash, EntryKind, HISTORY_LABEL, HandedOver, HistoryRange, InvalidPoint,
    NewSessionEntry, OnConflict, PendingSubagent, SessionDetail, SessionDiff, SessionEntry,
    SessionHead, SessionInfo, SessionItem, SessionOutcome, SessionOwner, SessionPause,
    SessionPoint, SessionResumed, SessionTask, SessionVersion, SharedValue, TaskEdit, TaskList,
    Unverified,
};
pub use status::{Severity, StatusKind, StatusNotice};
pub use task::{
    ResultType, TaskChange, TaskDetail, TaskExchange, TaskInfo, TaskInput, TaskSpec, TaskState,
};
pub use time::WallTime;
pub use usage::{
    CountedWindow, LedgerFilter, LedgerLine, LevelChange, LimitForecast, ModelUsage, Provenance,
    RateLimit, ScopeUsage, SessionUsage, Usage, UsageBurn, UsageLevel, UsageRecord, UsageSetting,
    UsageSignals, UsageStatus, UsageWindow,
};
