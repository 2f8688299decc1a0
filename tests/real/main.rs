//! A real engine behind both adapters, and behind the whole house.
//!
//! `tests/real-model/` runs llama.cpp on a tiny model with random weights: the words are noise; tokens, cache, window
//! and refusals are real. Where Python or its packages cannot be had, each test says `SKIP` and passes;
//! `REAL_ENGINE=require` makes it fail instead.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what fails in a helper of a test fails the test"
)]

mod adapters;
mod engine;
mod house;
