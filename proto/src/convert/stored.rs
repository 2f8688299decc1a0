//! The stored form of a domain type: its `broker.v1` encoding, whose field numbers are never used again.

use bytes::Bytes;
use prost::Message as _;

use super::InvalidField;
use crate::{
    AnswerSummary, AskOptions, Attempt, Failure, Message, Part, Payload, RateLimit, Recipient,
    Usage, pb,
};

/// What can be written to a store and read back by every later version.
pub trait Stored: Sized {
    /// The bytes to store.
    fn encode(self) -> Bytes;

    /// Reads what [`Stored::encode`] wrote.
    ///
    /// # Errors
    /// [`InvalidField`] when the bytes are not such an encoding.
    fn decode(bytes: Bytes) -> Result<Self, InvalidField>;
}

macro_rules! stored {
    ($($type:ident = $wire:ident),+ $(,)?) => {$(
        impl Stored for $type {
            fn encode(self) -> Bytes {
                pb::$wire::from(self).encode_to_vec().into()
            }

            fn decode(bytes: Bytes) -> Result<Self, InvalidField> {
                let wire = pb::$wire::decode(bytes)
                    .map_err(|_| InvalidField::new(stringify!($type), "is not its encoding"))?;
                <$type>::try_from(wire).map_err(Into::into)
            }
        }
    )+};
}

stored!(
    AnswerSummary = AnswerSummary,
    AskOptions = AskOptions,
    Attempt = Attempt,
    Failure = Failure,
    Message = ModelMessage,
    Part = Part,
    Payload = Payload,
    RateLimit = RateLimit,
    Recipient = Recipient,
    Usage = Usage,
);

impl From<std::convert::Infallible> for InvalidField {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
