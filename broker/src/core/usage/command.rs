//! What is asked of usage, and what it answers.

use std::collections::BTreeMap;

use broker_proto::{LimitForecast, ModelName, UsageRecord, UsageSetting, UsageStatus};

use super::{Near, Scope};

/// What is known of a call that was made elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Unset: the session's model, else the first that is configured.
    pub model: Option<ModelName>,
    pub session: Option<String>,
    pub what: UsageRecord,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Record(Record),
    /// The entries of a session hold so many tokens now, in the window of its model.
    Holds {
        session: String,
        model: ModelName,
        tokens: u64,
    },
    SetPolicy {
        set: BTreeMap<String, String>,
        unset: Vec<String>,
    },
    Reset(Scope),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Query {
    /// Of every model; sessions too, the newest first, or the one that is named.
    Status {
        session: Option<String>,
    },
    Forecast,
    Policy,
    /// Whose limit is near, so that a package is wanted.
    Near,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Status(Box<UsageStatus>),
    Forecast(Vec<LimitForecast>),
    Policy(Vec<UsageSetting>),
    /// The model that it was counted for.
    Recorded(ModelName),
    Near(Vec<Near>),
}
