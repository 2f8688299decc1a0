//! Names and ids: what may be one, and how it is written.

use std::fmt;

/// A text that is not a name: empty, too long, or with a character no name may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a name: 1 to 64 of a-z, 0-9, `.`, `_`, `-` are")]
pub struct InvalidName;

macro_rules! name {
    ($(#[$doc:meta])* $type:ident: $is_name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(std::sync::Arc<str>);

        impl $type {
            /// Reads a name.
            ///
            /// # Errors
            /// [`InvalidName`] when `text` is not 1 to 64 of `a-z0-9._-`, or starts with a dot; a role has no dot.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                $is_name(text).then(|| Self(text.into())).ok_or(InvalidName)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// A model as the configuration names it, such as `opus`.
    ModelName: is_name
}
name! {
    /// An agent's durable name; its links come and go.
    AgentName: is_name
}
name! {
    /// Who sent a message, as the broker authenticated it.
    Sender: is_name
}
name! {
    /// What several agents do alike; they share one queue under it.
    RoleName: is_role
}

name! {
    /// A session, in the words of whoever began it, else a number of the broker's in lower case.
    SessionId: is_plain
}
name! {
    /// A bulk sender, as it names itself among those of one sender.
    ProducerName: is_plain
}

fn is_plain(text: &str) -> bool {
    is_name(text) && !text.contains('.')
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    !text.starts_with('.') && (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_role(text: &str) -> bool {
    is_name(text) && !text.contains('.')
}

/// A ULID: 26 characters of Crockford's base 32, upper case.
///
/// Kept as its bytes, the highest first: they have its order, and pack without gaps where there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; 16]);

impl MessageId {
    /// Reads an id in its one spelling, so that one id cannot be two keys.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = ulid::Ulid::from_string(text).ok()?;
        (id.to_string() == text).then_some(Self::from_u128(id.0))
    }

    /// A new id: 48 bits of `now` in front of 80 random bits.
    #[must_use]
    pub fn from_parts(now: super::WallTime, random: u128) -> Self {
        Self::from_u128(ulid::Ulid::from_parts(now.0, random).0)
    }

    /// The id as a number, for keys and hashes.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// The id that [`MessageId::as_u128`] gave.
    #[must_use]
    pub fn from_u128(number: u128) -> Self {
        Self(number.to_be_bytes())
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ulid::Ulid(self.as_u128()).fmt(f)
    }
}

/// A message as somebody names it: ids are unique for each sender only, so that one id may need its sender's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageName {
    /// `None` leaves it to the broker: the caller's own message first, else the only one of this id.
    pub sender: Option<Sender>,
    pub id: MessageId,
}

impl MessageName {
    /// Reads `ID` or `SENDER/ID`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (sender, id) = match text.split_once('/') {
            Some((sender, id)) => (Some(Sender::parse(sender).ok()?), id),
            None => (None, text),
        };
        Some(Self { sender, id: MessageId::parse(id)? })
    }
}

impl From<MessageId> for MessageName {
    fn from(id: MessageId) -> Self {
        Self { sender: None, id }
    }
}

impl fmt::Display for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sender {
            Some(sender) => write!(f, "{sender}/{}", self.id),
            None => self.id.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_bounded_and_plain() {
        let long = "a".repeat(65);
        for text in ["", "..", ".hidden", "a/b", "Opus", "a\0b", "ⅰ", "a b", long.as_str()] {
            assert_eq!(ModelName::parse(text), Err(InvalidName), "{text:?}");
        }
        assert_eq!(
            ModelName::parse("gpt-4.1_x").map(|name| name.to_string()),
            Ok("gpt-4.1_x".into())
        );
    }

    #[test]
    fn a_role_has_no_dot() {
        assert_eq!(RoleName::parse("re.viewer"), Err(InvalidName));
        assert_eq!(
            RoleName::parse("code-review_1").map(|role| role.to_string()),
            Ok("code-review_1".into())
        );
    }

    #[test]
    fn message_id_has_one_spelling() {
        let id = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        assert_eq!(MessageId::parse(id).map(|id| id.to_string()).as_deref(), Some(id));
        for text in [
            "",
            "01arz3ndektsv4rrffq69g5fav",
            "../../etc",
            "01ARZ3NDEKTSV4RRFFQ69G5FA",
            "O1ARZ3NDEKTSV4RRFFQ69G5FAV",
        ] {
            assert_eq!(MessageId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn message_name_is_an_id_with_or_without_its_sender() {
        for text in ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "opus/01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
            assert_eq!(
                MessageName::parse(text).map(|name| name.to_string()).as_deref(),
                Some(text)
            );
        }
        for text in ["", "opus/", "/01ARZ3NDEKTSV4RRFFQ69G5FAV", "a/b/01ARZ3NDEKTSV4RRFFQ69G5FAV"] {
            assert_eq!(MessageName::parse(text), None, "{text:?}");
        }
    }
}
