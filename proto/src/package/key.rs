//! The key that this broker signs packages with.

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::PackageKey;

/// Signs packages. Its secret half is wiped when it is dropped, and nothing prints it.
#[derive(Clone)]
pub struct Signer {
    key: SigningKey,
}

impl Signer {
    /// The signer of these 32 random bytes.
    #[must_use]
    pub fn new(secret: &[u8; 32]) -> Self {
        Self { key: SigningKey::from_bytes(secret) }
    }

    /// What others verify its packages with.
    #[must_use]
    pub fn public(&self) -> PackageKey {
        PackageKey(self.key.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public())
    }
}

/// Whether a signature can be made with this key at all: it is a point on the curve, and not one of the weak ones.
#[must_use]
pub fn is_usable(key: PackageKey) -> bool {
    VerifyingKey::from_bytes(&key.0).is_ok_and(|key| !key.is_weak())
}

/// Strict: of two signatures over the same bytes one cannot be made of the other.
pub(super) fn is_signed(key: PackageKey, message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(&key.0)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_keys_are_of_no_use() {
        assert!(is_usable(Signer::new(&[7; 32]).public()));
        assert!(!is_usable(PackageKey([0; 32])));
        let one = std::array::from_fn(|place| u8::from(place == 0));
        assert!(!is_usable(PackageKey(one)));
    }

    #[test]
    fn the_secret_is_not_printed() {
        let shown = format!("{:?}", Signer::new(&[0xab; 32]));
        assert!(shown.starts_with("Signer(ed25519:") && !shown.contains("abab"), "{shown}");
    }
}
