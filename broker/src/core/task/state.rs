//! The eight states of a task, and which may follow which.

use broker_proto::{Failure, FailureClass, MessageState, TaskState};

use crate::core::queue::Hold;

/// Whether a task in state `from` may come to be in state `to`.
///
/// `Submitted` is left only by a delivery, a person or time; everything an agent says needs its lease, so it comes
/// from `Working`.
#[must_use]
pub fn may_become(from: TaskState, to: TaskState) -> bool {
    use TaskState::{
        Cancelled, Completed, Failed, InputRequired, Rejected, Submitted, Suspended, Working,
    };
    match from {
        Submitted => matches!(to, Working | Suspended | Failed | Cancelled),
        Working => to != Working,
        // Answered, suspended by a person all the same, or past its deadline.
        InputRequired => matches!(to, Submitted | Suspended | Failed | Cancelled),
        // Back to the question that it had asked before, if that is still open.
        Suspended => matches!(to, Submitted | InputRequired | Failed | Cancelled),
        Completed | Failed | Cancelled | Rejected => false,
    }
}

/// The state of a task whose message is alive.
#[must_use]
pub fn of_message(state: MessageState, hold: Option<Hold>) -> TaskState {
    match (hold, state) {
        (Some(Hold::InputRequired), _) => TaskState::InputRequired,
        // A parked one waits for a person too.
        (Some(Hold::Suspended | Hold::Parked | Hold::Paused), _) => TaskState::Suspended,
        (Some(Hold::Handoff), _) => TaskState::Submitted,
        (None, MessageState::Leased) => TaskState::Working,
        (None, state) => of_end(state, None),
    }
}

/// The state of a task whose message has ended like this.
#[must_use]
pub fn of_end(state: MessageState, failure: Option<&Failure>) -> TaskState {
    match state {
        MessageState::Queued | MessageState::Waiting => TaskState::Submitted,
        MessageState::Leased => TaskState::Working,
        MessageState::Done => TaskState::Completed,
        MessageState::Cancelled => TaskState::Cancelled,
        MessageState::Dead | MessageState::Purged if failure.is_some_and(is_rejection) => {
            TaskState::Rejected
        }
        MessageState::Failed
        | MessageState::Expired
        | MessageState::Dead
        | MessageState::Purged => TaskState::Failed,
    }
}

/// Whether the agent refused the task, and did not just fail at it.
fn is_rejection(failure: &Failure) -> bool {
    failure.class == FailureClass::InvalidRequest && failure.refused_by == "agent"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of states, as the documentation draws it: rows from, columns to, in the order of the numbers.
    #[test]
    fn every_pair_of_states_is_legal_or_not() {
        let table = [
            // Subm. Work. Input Susp. Compl. Fail. Canc. Rej.
            [false, true, false, true, false, true, true, false],
            [true, false, true, true, true, true, true, true],
            [true, false, false, true, false, true, true, false],
            [true, false, true, false, false, true, true, false],
            [false; 8],
            [false; 8],
            [false; 8],
            [false; 8],
        ];
        for (from, row) in TaskState::ALL.into_iter().zip(table) {
            for (to, want) in TaskState::ALL.into_iter().zip(row) {
                assert_eq!(may_become(from, to), want, "{} -> {}", from.as_str(), to.as_str());
            }
        }
    }

    #[test]
    fn only_a_refusal_of_the_agent_is_a_rejection() {
        let failure = |class, by: &str| Failure::new(class, by, "no");
        let dead = |failure: &Failure| of_end(MessageState::Dead, Some(failure));
        assert_eq!(dead(&failure(FailureClass::InvalidRequest, "agent")), TaskState::Rejected);
        assert_eq!(dead(&failure(FailureClass::AgentLost, "broker")), TaskState::Failed);
        assert_eq!(of_end(MessageState::Expired, None), TaskState::Failed);
    }
}
