//! `[broker]` and `[limits]`: the server itself, and what one connection may take of it.

use std::path::PathBuf;
use std::time::Duration;

use crate::rule::{
    Choice, YEAR, choice, count, duration, hours, kib, mib, millis, mins, narrow_size, path, secs,
    size,
};
use crate::section::section;

/// Which tokio runtime `brokerd` runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// One thread: nothing passes from core to core but what goes to the store.
    Current,
    /// One worker thread per core.
    Multi,
}

impl Choice for Runtime {
    const NOUN: &'static str = "runtime";
    const ALL: &'static [(&'static str, Self)] =
        &[("current", Self::Current), ("multi", Self::Multi)];
}

section! {
    /// `[broker]`: the store, the socket, queues and messages.
    Broker ["broker"] {
        /// Where everything is stored. Unset: the XDG state folder, see [`Paths`](crate::Paths).
        data_dir: Option<PathBuf> = None, path();
        /// The unix socket. Unset: in the runtime folder, or in `data_dir` when that is set.
        socket: Option<PathBuf> = None, path();
        /// The runtime's layout: `"current"` (one thread for connections and rules, beside those of the store) or `"multi"`
        /// (a thread per core, for more connections than one core can serve).
        runtime: Runtime = Runtime::Current, choice();
        /// How long shutdown waits for work in flight before it names what is left and exits.
        shutdown_grace: Duration = secs(10), duration(millis(0)..=hours(1));
        /// The largest message, all its parts together, in bytes. At most `queue_bytes`.
        max_message: u64 = mib(32), size(kib(1)..=mib(1024));
        /// The largest frame on the wire, in bytes. At most `max_message`.
        max_frame: u64 = mib(1), size(kib(1)..=mib(64));
        /// Parts above this many bytes are uploaded by hash first. At most `max_frame`.
        inline_part: u64 = kib(64), size(0..=mib(64));
        /// How long a message id is remembered, so that sending again is not a second message. At least 10 min.
        dedup_window: Duration = hours(24), duration(mins(10)..=YEAR);
        /// Ids remembered at most: past it the oldest go first, but none of the last 10 minutes.
        dedup_keys: u64 = 10_000_000, count(1..=1_000_000_000);
        /// Messages one queue holds before it refuses more.
        queue_messages: u64 = 10_000, count(1..=100_000_000);
        /// Bytes one queue holds before it refuses more.
        queue_bytes: u64 = mib(256), size(kib(64)..=mib(1 << 20));
        /// Bytes of the disk that are kept free for settling and expiry; below it nothing new is accepted.
        store_reserve: u64 = mib(256), size(0..=mib(1 << 20));
        /// As much of the whole disk, in percent, when that is more than `store_reserve`.
        store_reserve_percent: u8 = 5, count(0..=50);
        /// Dead letters of one recipient before the next is parked in its queue instead.
        dead_letters: u64 = 10_000, count(1..=100_000_000);
        /// Bytes of one recipient's dead letters before the next is parked in its queue instead.
        dead_letter_bytes: u64 = mib(256), size(kib(64)..=mib(1 << 20));
        /// How long a stored part or content is kept that nothing refers to.
        keep_unreferenced: Duration = hours(24 * 7), duration(hours(1)..=YEAR);
        /// Hops from a request's first message to any that it led to.
        max_hops: u32 = 8, count(1..=1_000);
        /// Delegations below one another in one request.
        max_delegation_depth: u32 = 4, count(1..=1_000);
        /// Messages that one request may lead to, itself among them.
        max_request_messages: u64 = 10_000, count(1..=100_000_000);
        /// The longest a message may live, whatever its own expiry says.
        max_lifetime: Duration = hours(24 * 7), duration(secs(1)..=YEAR);
        /// The deadline of a request that names none. At most `max_lifetime`.
        default_deadline: Duration = mins(10), duration(millis(1)..=YEAR);
    }
}

section! {
    /// `[limits]`: what one connection may take, so that a broken client cannot starve the others.
    Limits ["limits"] {
        /// HTTP/2 streams open at once on one connection.
        streams_per_connection: u32 = 64, count(1..=100_000);
        /// Calls being worked on at once for one connection.
        calls_per_connection: usize = 32, count(1..=100_000);
        /// Connections at once; further ones wait to be accepted.
        connections: usize = 2048, count(1..=1_000_000);
        /// How long a new connection may take to finish its handshake.
        handshake: Duration = secs(10), duration(millis(1)..=hours(1));
        /// The longest a unary call may take.
        unary_deadline: Duration = secs(30), duration(millis(1)..=hours(1));
        /// How often a silent connection is pinged.
        keepalive_interval: Duration = secs(20), duration(millis(1)..=hours(1));
        /// How long an unanswered ping is waited for before the connection is closed.
        keepalive_timeout: Duration = secs(10), duration(millis(1)..=hours(1));
        /// The most bytes of headers in one request.
        header_bytes: u32 = 8 << 10, narrow_size(1 << 10..=1 << 20);
        /// Unary calls worked on at once in all; more are refused at once with a retry delay.
        concurrent_unary: usize = 256, count(1..=1_000_000);
    }
}
