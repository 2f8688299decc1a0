//! Why a package is not taken.

use super::{HOPS_MAX, PACKED_MAX, RATIO_MAX, UNPACKED_MAX, rfc3339};
use crate::{ModelName, PackageKey, WallTime};

/// Each of these is found before anything of the package is used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("this is no context package: {0}")]
    Malformed(&'static str),
    #[error("the package has format version {0}, which is newer than this program")]
    Version(u16),
    #[error("the package is larger than {} MiB", PACKED_MAX >> 20)]
    TooLarge,
    #[error(
        "the package is signed by {0}, which is not trusted here: `handoff trust add NAME KEY` trusts it"
    )]
    UnknownKey(PackageKey),
    #[error(
        "the signature does not fit: header, manifest or signature were changed after it was made"
    )]
    Signature,
    #[error("the package expired at {}", rfc3339(*.0))]
    Expired(WallTime),
    #[error("the package is for `{0}`, which is no model of this broker")]
    Recipient(ModelName),
    #[error("the package went through {0} handoffs; at most {HOPS_MAX} are allowed")]
    Hops(u32),
    #[error("the package was taken here before")]
    Replayed,
    #[error("the package would unpack to more than {} MiB, or to more than {RATIO_MAX} times its size", UNPACKED_MAX >> 20)]
    Bomb,
    #[error("the contents do not fit the manifest ({0}): they were changed after it was signed")]
    Damaged(String),
    #[error("part `{0}` cannot be read: it is not what the format describes, or nested too deeply")]
    Contents(String),
}
