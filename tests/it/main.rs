//! One test binary, one module per behaviour.

#![expect(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod ahead;
mod askers;
mod bad_sends;
mod bounds;
mod budgets;
mod chat_terminal;
mod chats;
mod checkpoints;
mod commands;
mod conditions;
mod configuration;
mod consult;
mod content;
mod doctor;
mod durability;
mod events;
mod handoff;

mod handoff_commands;
mod handoff_init;
mod handoff_policy;
mod house;
mod identity;
mod layers;
mod leases;
mod letters;
mod links;
mod mail;
mod packages;
mod pauses;
mod pings;
mod producers;
mod providers;
mod pulls;
mod reasons;
mod receivers;
mod reflection;
mod refusals;
mod renderings;
mod rings;
mod rotation;
mod secrets;
mod sessions;
mod streams;
mod summaries;
mod tasks;
mod transcripts;
mod transfers;
mod usage;
mod watches;
