//! Bugs that are planted on purpose, one at a time, to see that the judge of `broker-faults` finds each by its name.
//!
//! Only `brokerd-planted` can have them, which is built with the feature `planted-bugs`. Without the feature `is` is a
//! constant `false`, and nothing of what follows from it is left.
//!
//! A reader of the code around a hook may pass over it: every hook is one call to here.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use broker_proto::{MessageState, WallTime};

use super::queue::{Body, Seq};

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident = $name:literal,)+) => {
        /// What may be wrong.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Bug {
            $($(#[$doc])* $bug,)+
        }

        #[cfg(feature = "planted-bugs")]
        impl Bug {
            fn parse(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$bug),)+
                    _ => None,
                }
            }
        }
    };
}

bugs! {
    /// A send is acknowledged, and only then written.
    OkBeforeSync = "ok-before-sync",
    /// So is a settlement.
    SettledBeforeSync = "settled-before-sync",
    /// Any token of a leased message settles it.
    StaleToken = "stale-token",
    /// Tokens are read without their proof.
    ForgedToken = "forged-token",
    /// A restart forgets which ids had ended.
    DedupForgotten = "dedup-forgotten",
    /// Another message under a known id is taken for the first.
    IdReused = "id-reused",
    /// One more lost lease than allowed.
    AttemptsOffByOne = "attempts-off-by-one",
    /// Deadlines are compared as texts, one of them in another time zone.
    ExpiryAsText = "expiry-as-text",
    /// What expires is said to have failed.
    ExpiryAsFailure = "expiry-as-failure",
    /// A question is done without its reply.
    LostReply = "lost-reply",
    /// Every other reply is the one before.
    ReplyOfAnother = "reply-of-another",
    /// A full queue acknowledges and drops.
    DropWhenFull = "drop-when-full",
    /// First come, first served.
    PriorityIgnored = "priority-ignored",
    /// Last come, first served.
    OrderReversed = "order-reversed",
    /// A later one of a strict key does not wait.
    StrictKeyIgnored = "strict-key-ignored",
    /// Some messages are delivered with a letter changed.
    BodyAltered = "body-altered",
    /// A lease lasts an hour more.
    LeaseNeverEnds = "lease-never-ends",
    /// A lease lasts an eighth of its time.
    LeaseTooShort = "lease-too-short",
    /// A cancel is acknowledged, and nothing else.
    CancelForgotten = "cancel-forgotten",
    /// A token settles twice.
    SettledTwice = "settled-twice",
    /// Numbers begin anew.
    NumberReused = "number-reused",
    /// What was rejected goes back to its queue.
    RejectedAgain = "rejected-again",
    /// A delivery goes out twice.
    DeliveredTwice = "delivered-twice",
    /// A redelivery has the token of the one before.
    TokenRepeated = "token-repeated",
    /// A stream ends without saying how.
    NoTerminalFrame = "no-terminal-frame",
    /// What a new attempt says continues the one before.
    AttemptsJoined = "attempts-joined",
    /// Deliveries take nothing of their link's credit.
    CreditIgnored = "credit-ignored",
}

/// What is wrong in this process; set once, before its first decision.
#[cfg(feature = "planted-bugs")]
static PLANTED: std::sync::OnceLock<Bug> = std::sync::OnceLock::new();

/// Plants the bug of this name; `false` when there is none, or another was planted before.
#[cfg(feature = "planted-bugs")]
pub fn plant(name: &str) -> bool {
    Bug::parse(name).is_some_and(|bug| PLANTED.set(bug).is_ok())
}

/// Whether this bug is planted.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

/// Whether this bug is planted.
#[cfg(feature = "planted-bugs")]
pub(crate) fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(&bug)
}

/// Whether a deadline has come.
pub(crate) fn is_past(deadline: WallTime, now: WallTime) -> bool {
    if is(Bug::ExpiryAsText) {
        let text = |time: WallTime, zone| format!("{:020}", time.0 / 1000 + zone);
        return text(deadline, 7200) <= text(now, 0);
    }
    deadline <= now
}

/// The end of a message whose deadline came.
pub(crate) fn expired() -> MessageState {
    if is(Bug::ExpiryAsFailure) { MessageState::Failed } else { MessageState::Expired }
}

/// The length of a lease.
pub(crate) fn lease(length: Duration) -> Duration {
    if is(Bug::LeaseNeverEnds) {
        return length + Duration::from_secs(3600);
    }
    if is(Bug::LeaseTooShort) { length / 8 } else { length }
}

/// The epoch of the next lease, where this was the last.
pub(crate) fn next_epoch(last: u32) -> u32 {
    if is(Bug::TokenRepeated) { 1 } else { last + 1 }
}

/// Messages in the order in which they are considered for a delivery.
pub(crate) fn in_turn(turns: impl Iterator<Item = Seq>) -> impl Iterator<Item = Seq> {
    let is_resorted = is(Bug::PriorityIgnored) || is(Bug::OrderReversed);
    let (resorted, turns) =
        if is_resorted { (turns.collect(), None) } else { (Vec::new(), Some(turns)) };
    let mut resorted: Vec<Seq> = resorted;
    resorted.sort_unstable();
    if is(Bug::OrderReversed) {
        resorted.reverse();
    }
    turns.into_iter().flatten().chain(resorted)
}

/// The reply a question is done with.
pub(crate) fn reply(reply: Body) -> Option<Body> {
    static BEFORE: Mutex<Option<Body>> = Mutex::new(None);
    if is(Bug::LostReply) {
        return None;
    }
    if is(Bug::ReplyOfAnother) {
        let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).replace(reply.clone());
        return before.or(Some(reply));
    }
    Some(reply)
}
