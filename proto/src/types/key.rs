//! The public half of the key that a broker signs packages with.

use std::fmt;

use super::Hex;

/// 32 bytes of an Ed25519 public key. Whether they are a point on the curve is checked where it is used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageKey(pub [u8; 32]);

/// A text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a key: `ed25519:` and 64 hexadecimal digits are, as `handoff trust list` shows them"
)]
pub struct InvalidKey;

impl PackageKey {
    /// Reads a key as [`fmt::Display`] writes it; the word in front may be missing.
    ///
    /// # Errors
    /// [`InvalidKey`] when it is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let digits = text.trim();
        let digits = digits.strip_prefix("ed25519:").unwrap_or(digits);
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidKey);
        }
        let mut key = [0; 32];
        for (byte, place) in key.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&digits[place..place + 2], 16).map_err(|_| InvalidKey)?;
        }
        Ok(Self(key))
    }
}

impl fmt::Display for PackageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ed25519:{}", Hex(&self.0))
    }
}

impl fmt::Debug for PackageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_is_written() {
        let key = PackageKey(std::array::from_fn(|at| at as u8 * 7));
        assert_eq!(PackageKey::parse(&key.to_string()), Ok(key));
        assert_eq!(PackageKey::parse(&key.to_string().replace("ed25519:", "")), Ok(key));
        for bad in ["", "ed25519:", "ed25519:zz", &"é".repeat(32), &key.to_string()[..70]] {
            assert_eq!(PackageKey::parse(bad), Err(InvalidKey), "{bad}");
        }
    }
}
