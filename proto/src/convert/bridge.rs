//! Bridges on the wire.

use super::{
    InvalidField,
    common::{model, time},
    handoff::word,
    package_id, required, session_id,
};
use crate::{Bridge, BridgeHealth, BridgeStatus, pb};

impl TryFrom<pb::Bridge> for BridgeStatus {
    type Error = InvalidField;

    fn try_from(wire: pb::Bridge) -> Result<Self, InvalidField> {
        let synced = time(wire.synced_at, "bridge.synced_at")?;
        let opened_at = time(wire.opened_at, "bridge.opened_at")?;
        let synced = match synced {
            Some(at) => Some((package_id(&wire.package_id)?, at)),
            None => None,
        };
        Ok(Self {
            bridge: Bridge {
                session: session_id(&wire.session, "bridge.session")?,
                from: model(&wire.from, "bridge.from")?,
                to: model(&wire.to, "bridge.to")?,
                opened_at: required(opened_at, "bridge.opened_at")?,
            },
            synced,
            lag_turns: wire.lag_turns,
            lag_tokens: wire.lag_tokens,
            health: word(&wire.health, "bridge.health", BridgeHealth::parse)?,
            problem: wire.problem,
        })
    }
}

impl From<BridgeStatus> for pb::Bridge {
    fn from(status: BridgeStatus) -> Self {
        let BridgeStatus { bridge, synced, lag_turns, lag_tokens, health, problem } = status;
        let (package, synced_at) = synced.unzip();
        Self {
            session: bridge.session.to_string(),
            from: bridge.from.to_string(),
            to: bridge.to.to_string(),
            opened_at: Some(bridge.opened_at.into()),
            synced_at: synced_at.map(Into::into),
            package_id: package.map(|id| id.to_string()).unwrap_or_default(),
            lag_turns,
            lag_tokens,
            health: health.as_str().to_owned(),
            problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelName, PackageId, SessionId, WallTime};

    #[test]
    fn a_bridge_comes_back_as_it_was() {
        for synced in [None, Some((PackageId::from_u128(7), WallTime(2_000)))] {
            for health in BridgeHealth::ALL {
                let status = BridgeStatus {
                    bridge: Bridge {
                        session: SessionId::parse("s1").unwrap(),
                        from: ModelName::parse("opus").unwrap(),
                        to: ModelName::parse("sonnet").unwrap(),
                        opened_at: WallTime(1_000),
                    },
                    synced,
                    lag_turns: 2,
                    lag_tokens: 60,
                    health,
                    problem: "no room".into(),
                };
                assert_eq!(pb::Bridge::from(status.clone()).try_into(), Ok(status));
            }
        }
    }
}
