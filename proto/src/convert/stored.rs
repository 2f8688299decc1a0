//! The stored form of a domain type: its `broker.v1` encoding, whose field numbers are never used again.

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use super::InvalidField;
use crate::{
    AnswerSummary, AskOptions, Attempt, Correlation, Failure, Handoff, HandoffKept, Message,
    NewSessionEntry, Part, Payload, RateLimit, Recipient, Sender, SessionInfo, SessionTask,
    SharedValue, Usage, WallTime, pb,
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

/// A message as it is stored: what its sender said, and behind that who it was and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    pub bytes: Bytes,
    said: usize,
}

impl Stamped {
    /// What the sender said, without the stamp.
    #[must_use]
    pub fn said(&self) -> &[u8] {
        &self.bytes[..self.said]
    }
}

impl Message {
    /// Encodes it once for both: a sender's name, a time and its place in its request (root and hops) behind a message
    /// that has none of them read as one message.
    #[must_use]
    pub fn encode_stamped(self, from: &Sender, at: WallTime, place: Correlation) -> Stamped {
        let said = pb::ModelMessage::from(Self { from: None, timestamp: None, ..self });
        let stamp = pb::ModelMessage {
            from: from.to_string(),
            timestamp: Some(at.into()),
            correlation: (place != Correlation::default()).then(|| place.into()),
            ..pb::ModelMessage::default()
        };
        let length = said.encoded_len();
        let mut bytes = BytesMut::with_capacity(length + stamp.encoded_len());
        // A buffer that grows has room for everything.
        let _ = said.encode(&mut bytes).and_then(|()| stamp.encode(&mut bytes));
        Stamped { bytes: bytes.freeze(), said: length }
    }
}

macro_rules! stored {
    ($($type:ty = $wire:ident),+ $(,)?) => {$(
        impl Stored for $type {
            fn encode(self) -> Bytes {
                pb::$wire::from(self).encode_to_vec().into()
            }

            fn decode(bytes: Bytes) -> Result<Self, InvalidField> {
                let wire = pb::$wire::decode(bytes)
                    .map_err(|_| InvalidField::new(stringify!($wire), "is not its encoding"))?;
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
    Handoff = Handoff,
    HandoffKept = HandoffKept,
    Message = ModelMessage,
    NewSessionEntry = NewSessionEntry,
    SessionInfo = SessionInfo,
    SessionTask = SessionTask,
    Vec<SharedValue> = SharedContext,
    Vec<NewSessionEntry> = NewSessionEntries,
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
