//! The judge: reads the history of a run, and nothing else, and says which promises were broken.
//!
//! Each rule is a function named after the invariant it judges, and says what an outside view can judge of it and what
//! not. Where the history leaves two readings open, a rule takes the one in the broker's favour: what it finds is
//! surely wrong. How often each rule had something to judge is part of the report, so that a rule that judged nothing
//! is not mistaken for a promise kept.

mod book;
mod report;
mod rules;
#[cfg(test)]
mod tests;

pub use report::{Finding, Judged, Report, Verdict};

use crate::history::Entry;
use book::Book;

/// Judges a whole history.
#[must_use]
pub fn check(entries: &[Entry]) -> Report {
    let book = Book::read(entries);
    let judged = rules::RULES.iter().map(|(invariant, rule)| {
        let mut judge = report::Judge::default();
        rule(&book, &mut judge);
        (*invariant, judge)
    });
    Report::new(&book, judged)
}
