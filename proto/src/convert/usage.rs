//! `usage.proto`.

use super::{
    InvalidField,
    common::{model, time},
};
use crate::{ModelUsage, UsageWindow, pb};

impl TryFrom<pb::ModelUsage> for ModelUsage {
    type Error = InvalidField;

    fn try_from(wire: pb::ModelUsage) -> Result<Self, InvalidField> {
        Ok(Self {
            model: model(&wire.model, "model")?,
            level: wire.level,
            reason: wire.reason,
            windows: super::each(wire.windows)?,
            total: wire.total.map(Into::into).unwrap_or_default(),
            calls: wire.calls,
            failures: wire.failures,
            cost_usd: wire.cost_usd,
            unavailable_until: time(wire.unavailable_until, "unavailable_until")?,
            is_simulated: wire.simulated,
        })
    }
}

impl From<ModelUsage> for pb::ModelUsage {
    fn from(usage: ModelUsage) -> Self {
        Self {
            model: usage.model.to_string(),
            level: usage.level,
            reason: usage.reason,
            windows: usage.windows.into_iter().map(Into::into).collect(),
            total: Some(usage.total.into()),
            calls: usage.calls,
            failures: usage.failures,
            cost_usd: usage.cost_usd,
            unavailable_until: usage.unavailable_until.map(Into::into),
            simulated: usage.is_simulated,
        }
    }
}

impl TryFrom<pb::UsageWindow> for UsageWindow {
    type Error = InvalidField;

    fn try_from(wire: pb::UsageWindow) -> Result<Self, InvalidField> {
        Ok(Self {
            name: wire.name,
            used: wire.used,
            limit: wire.limit,
            resets_at: time(wire.resets_at, "window.resets_at")?,
        })
    }
}

impl From<UsageWindow> for pb::UsageWindow {
    fn from(window: UsageWindow) -> Self {
        Self {
            name: window.name,
            used: window.used,
            limit: window.limit,
            resets_at: window.resets_at.map(Into::into),
        }
    }
}
