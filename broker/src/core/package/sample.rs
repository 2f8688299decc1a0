//! A package for tests of those who keep packages.

use broker_proto::{
    ModelName, PackageHeader, PackageId, PackageInfo, PackageKey, PackagePart, Preservation,
    SessionId, WallTime,
};

/// Made at `number` milliseconds, good for a second.
pub(crate) fn info(number: u64) -> PackageInfo {
    let at = WallTime(number);
    PackageInfo {
        header: PackageHeader {
            id: PackageId::from_parts(at, u128::from(number)),
            session: SessionId::parse("s1").ok(),
            project: "parser".into(),
            sender: "opus".into(),
            recipient: ModelName::parse("sonnet").ok(),
            level: Preservation::Full,
            created_at: at,
            expires_at: WallTime(number + 1000),
            hops: 2,
            nonce: u128::from(number).to_be_bytes(),
            reason: "manual_save".into(),
        },
        task: "Port the parser".into(),
        parts: vec![PackagePart {
            name: "files".into(),
            sha256: [3; 32],
            size_bytes: 4096,
            tokens: 1024,
        }],
        tokenizer: "estimated at 3.0 bytes per token".into(),
        size_bytes: 900,
        checksum: [4; 32],
        signer: PackageKey([5; 32]),
        signed_by: None,
        is_imported: number.is_multiple_of(2),
        is_expired: false,
        archived_at: None,
    }
}
