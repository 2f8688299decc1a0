//! Wire <-> domain, one file per proto file.
//!
//! A field that cannot be read becomes an [`InvalidField`] that names it, and that becomes `INVALID_ARGUMENT`.

mod bridge;
mod common;
mod consult;
mod event;
mod handoff;
mod ledger;
mod link;
mod message;
mod package;
mod queue;
mod registry;
mod rendering;
mod rotation;
mod session;
mod status;
mod stored;
mod task;
mod usage;

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

pub use common::{decode_part, encode_part, model_name, moment, optional_model_name};
pub use handoff::{handoff_id, handoff_line};
pub use package::package_id;
pub use session::{entry_hash, optional_session_id, session_id, session_point, session_title};
pub use stored::{Stamped, Stored};

/// A field of a wire message that does not say what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field `{field}` {problem}")]
pub struct InvalidField {
    pub field: &'static str,
    pub problem: String,
}

impl InvalidField {
    /// The field, and what is wrong with it, as the end of a sentence that starts with its name.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    fn missing(field: &'static str) -> Self {
        Self::new(field, "is missing")
    }
}

impl From<InvalidField> for Status {
    fn from(invalid: InvalidField) -> Self {
        let mut details =
            ErrorDetails::with_error_info("INVALID_FIELD", "broker.v1", HashMap::new());
        details.set_bad_request(vec![FieldViolation::new(invalid.field, invalid.problem.clone())]);
        Status::with_error_details(Code::InvalidArgument, invalid.to_string(), details)
    }
}

/// A field that must be there.
fn required<T>(value: Option<T>, field: &'static str) -> Result<T, InvalidField> {
    value.ok_or_else(|| InvalidField::missing(field))
}

/// Every element, or the first that cannot be read.
fn each<W, D>(wire: Vec<W>) -> Result<Vec<D>, InvalidField>
where
    D: TryFrom<W, Error = InvalidField>,
{
    wire.into_iter().map(D::try_from).collect()
}

#[cfg(test)]
mod tests;
