//! What is wrong with a file, and where.

use std::fmt;

/// What kind of thing is wrong; a program matches on its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A field that must be there is not.
    Missing,
    /// A field holds something else than it must.
    Wrong,
    /// Two tasks have the same id.
    Duplicate,
    /// A dependency names no task of the file.
    UnknownDependency,
    /// Tasks wait for each other, so that none of them can begin.
    Cycle,
    /// The state or the payload is older than allowed.
    Stale,
    /// A time that has not come yet: some clock is wrong.
    Future,
    /// A template asks for something that nothing fills in.
    UnknownPlaceholder,
    /// A payload holds more tokens than its level.
    OverBudget,
}

impl Fault {
    /// The word for programs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::Duplicate => "duplicate",
            Self::UnknownDependency => "unknown_dependency",
            Self::Cycle => "cycle",
            Self::Stale => "stale",
            Self::Future => "future",
            Self::UnknownPlaceholder => "unknown_placeholder",
            Self::OverBudget => "over_budget",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub fault: Fault,
    /// A JSON path such as `$.tasks[3].status`; of a text, `line 4`.
    pub place: String,
    /// What must be there instead, as one sentence without its full stop.
    pub problem: String,
}

impl Finding {
    pub(super) fn new(fault: Fault, place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { fault, place: place.into(), problem: problem.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}
