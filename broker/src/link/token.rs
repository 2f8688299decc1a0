//! The two proofs of a link: an agent's token proves its name, a lease token the right to settle.

use std::fmt::Write as _;

use crate::core::queue::Seq;

/// Signs lease tokens: a keyed hash over message and epoch (I-13).
#[derive(Clone)]
pub struct LeaseKey([u8; 32]);

impl std::fmt::Debug for LeaseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LeaseKey")
    }
}

impl LeaseKey {
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The token of one lease.
    #[must_use]
    pub fn token(&self, seq: Seq, epoch: u32) -> String {
        format!("{}.{epoch}.{}", seq.0, hex(&self.mac(seq, epoch)))
    }

    /// The lease a token was made for; nothing when it was not made with this key.
    #[must_use]
    pub fn read(&self, token: &str) -> Option<(Seq, u32)> {
        let (seq, rest) = token.split_once('.')?;
        let (epoch, _) = rest.split_once('.')?;
        let (seq, epoch) = (Seq(seq.parse().ok()?), epoch.parse().ok()?);
        let made = self.token(seq, epoch);
        // Compared as hashes, in constant time.
        (blake3::hash(made.as_bytes()) == blake3::hash(token.as_bytes())).then_some((seq, epoch))
    }

    fn mac(&self, seq: Seq, epoch: u32) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&seq.0.to_le_bytes());
        hasher.update(&epoch.to_le_bytes());
        let mut mac = [0; 16];
        hasher.finalize_xof().fill(&mut mac);
        mac
    }
}

/// A token that proves an agent's name. Only its hash is kept.
pub struct AgentToken(String);

impl std::fmt::Debug for AgentToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentToken")
    }
}

impl AgentToken {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        Ok(Self(format!("bat_{}", hex(&random))))
    }

    /// One that was sent.
    #[must_use]
    pub fn sent(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// What is stored of it. The token is random, so its hash needs no salt.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(self.0.as_bytes()).as_bytes()
    }

    /// The text, shown once.
    #[must_use]
    pub fn reveal(self) -> String {
        self.0
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_made_with_the_key_is_read() {
        let key = LeaseKey::new([1; 32]);
        let token = key.token(Seq(7), 3);
        assert_eq!(key.read(&token), Some((Seq(7), 3)));
        assert_eq!(LeaseKey::new([2; 32]).read(&token), None);
        let forged = token.replacen("7.3", "7.4", 1);
        for text in [forged.as_str(), "", "7", "7.3", "07.3.00", &format!("{token}0")] {
            assert_eq!(key.read(text), None, "{text}");
        }
    }

    #[test]
    fn debug_shows_no_token() {
        let token = AgentToken::generate().unwrap();
        assert_eq!(format!("{token:?}"), "AgentToken");
    }
}
