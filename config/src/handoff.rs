//! `[handoff]`: when and where sessions move.

use std::time::Duration;

use crate::rule::{Choice, YEAR, choice, count, duration, flag, millis, names, secs};
use crate::section::section;

/// How much of a conversation is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preserve {
    Minimal,
    Standard,
    Full,
    Complete,
}

impl Choice for Preserve {
    const NOUN: &'static str = "level";
    const ALL: &'static [(&'static str, Self)] = &[
        ("minimal", Self::Minimal),
        ("standard", Self::Standard),
        ("full", Self::Full),
        ("complete", Self::Complete),
    ];
}

section! {
    /// `[handoff]`: sessions that move to another model.
    Handoff ["handoff"] {
        /// Limits of models move their sessions, and a session at its own limit moves with its next turn. Without it nothing
        /// moves by itself, whatever `auto_switch` says.
        auto: bool = true, flag();
        /// A session moves the moment its own limit is reached, and what is only recommended is carried out.
        auto_switch: bool = false, flag();
        /// How much of a conversation is handed over: minimal, standard, full or complete.
        preserve: Preserve = Preserve::Complete, choice();
        /// The models that may receive a session; empty: all.
        receivers: Vec<String> = Vec::new(), names("a list of model names");
        /// How long a package may take to be made.
        build_deadline: Duration = secs(30), duration(millis(1)..=YEAR);
        /// How long a receiver may take to answer an offer.
        offer_deadline: Duration = secs(10), duration(millis(1)..=YEAR);
        /// How long work of the old owner is waited for, once a receiver has accepted.
        settle_wait: Duration = secs(30), duration(Duration::ZERO..=YEAR);
        /// How long a new owner without a connected agent keeps a session.
        complete_deadline: Duration = secs(120), duration(millis(1)..=YEAR);
        /// How long the same move of one session is not made again.
        cooldown: Duration = secs(300), duration(Duration::ZERO..=YEAR);
        /// Automatic moves of one session, one after the other, before it stays where it is.
        max_hops: u32 = 8, count(1..=64);
        /// Percent of the receiver's window that a complete package may take.
        room: u8 = 50, count(1..=90);
        /// How often a session with new turns gets a saved package; zero: not by the clock.
        checkpoint_every: Duration = Duration::ZERO, duration(Duration::ZERO..=YEAR);
    }
}
