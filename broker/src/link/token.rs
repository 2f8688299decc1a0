//! The two proofs of a link: an agent's token proves its name, a lease token the right to settle.

use std::time::Duration;

use broker_proto::{AgentName, Hex};

use crate::core::{agent::LinkId, queue::Seq};
use crate::planted::{self, Bug};

/// Agents that may come back in one second, when all of them have lost their links at once.
const COMING_BACK: u32 = 200;
/// The shortest and the longest stretch over which they are spread.
const SPREAD: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Signs lease tokens, a keyed hash over message and epoch (I-13), and resume tokens.
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
        format!("{}.{epoch}.{}", seq.0, Hex(&self.mac(seq, epoch)))
    }

    /// The lease a token was made for; nothing when it was not made with this key.
    #[must_use]
    pub fn read(&self, token: &str) -> Option<(Seq, u32)> {
        let (seq, rest) = token.split_once('.')?;
        let (epoch, _) = rest.split_once('.')?;
        let (seq, epoch) = (Seq(seq.parse().ok()?), epoch.parse().ok()?);
        let made = self.token(seq, epoch);
        (is_same(&made, token) || planted::is(Bug::ForgedToken)).then_some((seq, epoch))
    }

    /// The token with which the process of a link goes on after it, also over a restart.
    #[must_use]
    pub fn resume_token(&self, agent: &AgentName, instance: &str, link: LinkId) -> String {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"resume");
        hasher.update(&link.0.to_le_bytes());
        // A name holds no such byte, so where it ends is certain.
        hasher.update(agent.as_str().as_bytes()).update(&[0]).update(instance.as_bytes());
        let mut mac = [0; 16];
        hasher.finalize_xof().fill(&mut mac);
        format!("{}.{}", link.0, Hex(&mac))
    }

    /// The link a resume token was made for; nothing when it was made with another key, or for somebody else.
    #[must_use]
    pub fn read_resume(&self, token: &str, agent: &AgentName, instance: &str) -> Option<LinkId> {
        let (link, _) = token.split_once('.')?;
        let link = LinkId(link.parse().ok()?);
        let made = self.resume_token(agent, instance, link);
        is_same(&made, token).then_some(link)
    }

    /// When the agent of a link comes back, so that all of `links` do not come at once: always the same for a link.
    #[must_use]
    pub fn reconnect_after(&self, link: LinkId, links: usize) -> Duration {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"reconnect").update(&link.0.to_le_bytes());
        let mut drawn = [0; 4];
        hasher.finalize_xof().fill(&mut drawn);
        let share = f64::from(u32::from_le_bytes(drawn)) / f64::from(u32::MAX);
        let links = u32::try_from(links).unwrap_or(u32::MAX);
        let stretch = (Duration::from_secs(1) * links / COMING_BACK).clamp(SPREAD.0, SPREAD.1);
        stretch.mul_f64(share)
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
        Ok(Self(format!("bat_{}", Hex(&random))))
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

/// Compares all of both, wherever they differ: how long it takes tells nothing about what was made.
fn is_same(made: &str, token: &str) -> bool {
    let pairs = made.bytes().zip(token.bytes());
    let difference = pairs.fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    made.len() == token.len() && difference == 0
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
    fn a_resume_token_is_of_one_process_of_one_agent() {
        let key = LeaseKey::new([1; 32]);
        let name = |name| AgentName::parse(name).unwrap();
        let token = key.resume_token(&name("opus"), "one", LinkId(7));
        assert_eq!(key.read_resume(&token, &name("opus"), "one"), Some(LinkId(7)));
        assert_eq!(key.read_resume(&token, &name("opus"), "two"), None);
        assert_eq!(key.read_resume(&token, &name("sonnet"), "one"), None);
        assert_eq!(LeaseKey::new([2; 32]).read_resume(&token, &name("opus"), "one"), None);
        let forged = token.replacen('7', "8", 1);
        for text in [forged.as_str(), "", "7", "7.", &key.token(Seq(7), 1), &format!("{token}0")] {
            assert_eq!(key.read_resume(text, &name("opus"), "one"), None, "{text}");
        }
    }

    #[test]
    fn agents_come_back_spread_over_a_time_that_grows_with_their_number() {
        let key = LeaseKey::new([1; 32]);
        for (links, longest) in [(1, 100), (200, 1000), (1000, 5000), (100_000, 10_000)] {
            let waits: Vec<_> = (0..200).map(|n| key.reconnect_after(LinkId(n), links)).collect();
            let longest = Duration::from_millis(longest);
            assert!(waits.iter().all(|wait| *wait <= longest), "{links}");
            let early = waits.iter().filter(|wait| **wait < longest / 2).count();
            assert!((60..140).contains(&early), "{links}: {early} of 200 in the first half");
        }
        assert_eq!(key.reconnect_after(LinkId(3), 9), key.reconnect_after(LinkId(3), 9));
    }

    #[test]
    fn debug_shows_no_token() {
        let token = AgentToken::generate().unwrap();
        assert_eq!(format!("{token:?}"), "AgentToken");
    }
}
