//! Why an attempt failed, in words every layer shares.

use super::WallTime;

/// What kind of failure it was; routing, replies, metrics and exit codes all decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureClass {
    RateLimited,
    /// Resets at a time.
    QuotaExhausted,
    /// Needs a person.
    CreditExhausted,
    Overloaded,
    ContextTooLong,
    RequestTooLarge,
    ContentRefused,
    InvalidRequest,
    CredentialsRejected,
    ModelNotFound,
    Timeout,
    Unreachable,
    Truncated,
    MalformedReply,
    AgentLost,
    Budget,
    Cancelled,
    Internal,
}

impl FailureClass {
    /// Every class, in the order of its number on the wire.
    pub const ALL: [Self; 18] = [
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::CreditExhausted,
        Self::Overloaded,
        Self::ContextTooLong,
        Self::RequestTooLarge,
        Self::ContentRefused,
        Self::InvalidRequest,
        Self::CredentialsRejected,
        Self::ModelNotFound,
        Self::Timeout,
        Self::Unreachable,
        Self::Truncated,
        Self::MalformedReply,
        Self::AgentLost,
        Self::Budget,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The class's word, as replies and scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "RATE_LIMITED",
            Self::QuotaExhausted => "QUOTA_EXHAUSTED",
            Self::CreditExhausted => "CREDIT_EXHAUSTED",
            Self::Overloaded => "OVERLOADED",
            Self::ContextTooLong => "CONTEXT_TOO_LONG",
            Self::RequestTooLarge => "REQUEST_TOO_LARGE",
            Self::ContentRefused => "CONTENT_REFUSED",
            Self::InvalidRequest => "INVALID_REQUEST",
            Self::CredentialsRejected => "CREDENTIALS_REJECTED",
            Self::ModelNotFound => "MODEL_NOT_FOUND",
            Self::Timeout => "TIMEOUT",
            Self::Unreachable => "UNREACHABLE",
            Self::Truncated => "TRUNCATED",
            Self::MalformedReply => "MALFORMED_REPLY",
            Self::AgentLost => "AGENT_LOST",
            Self::Budget => "BUDGET",
            Self::Cancelled => "CANCELLED",
            Self::Internal => "INTERNAL",
        }
    }

    /// Whether this class says that a limit is used up for a while.
    #[must_use]
    pub fn is_limit(self) -> bool {
        matches!(self, Self::RateLimited | Self::QuotaExhausted | Self::CreditExhausted)
    }
}

/// How far a failure reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureScope {
    Request,
    Key,
    Account,
    Model,
    Provider,
}

/// One failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub class: FailureClass,
    pub scope: FailureScope,
    /// A provider's name, `agent` or `broker`.
    pub refused_by: String,
    /// One sentence for a person; holds no key and no content.
    pub detail: String,
    /// When it helps to try again, where that is known.
    pub retry_at: Option<WallTime>,
    pub another_model_may_help: bool,
    /// Tokens, for [`FailureClass::ContextTooLong`], where the provider said them.
    pub limit_tokens: Option<u64>,
    pub actual_tokens: Option<u64>,
}

impl Failure {
    /// A failure of this class with the scope and hint that usually go with it.
    pub fn new(
        class: FailureClass,
        refused_by: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        use FailureClass as C;
        let (scope, another_model_may_help) = match class {
            C::RateLimited | C::QuotaExhausted | C::Overloaded | C::ModelNotFound => {
                (FailureScope::Model, true)
            }
            C::CreditExhausted => (FailureScope::Account, true),
            C::CredentialsRejected => (FailureScope::Key, true),
            C::Unreachable => (FailureScope::Provider, true),
            C::ContextTooLong
            | C::RequestTooLarge
            | C::Timeout
            | C::Truncated
            | C::MalformedReply
            | C::AgentLost
            | C::Internal => (FailureScope::Request, true),
            C::ContentRefused | C::InvalidRequest | C::Budget | C::Cancelled => {
                (FailureScope::Request, false)
            }
        };
        Self {
            class,
            scope,
            refused_by: refused_by.into(),
            detail: detail.into(),
            retry_at: None,
            another_model_may_help,
            limit_tokens: None,
            actual_tokens: None,
        }
    }
}
