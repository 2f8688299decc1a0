//! `usage.proto`: what was used and is left. What is recorded, and the ledger, are in `ledger.rs`.

use super::{
    InvalidField,
    common::{model, optional_model, span, text_of, time, wire_span},
};
use crate::{
    CountedWindow, LevelChange, LimitForecast, ModelUsage, ScopeUsage, SessionUsage, UsageBurn,
    UsageLevel, UsageSetting, UsageSignals, UsageStatus, UsageWindow, pb,
};

impl TryFrom<pb::ModelUsage> for ModelUsage {
    type Error = InvalidField;

    fn try_from(wire: pb::ModelUsage) -> Result<Self, InvalidField> {
        let said = UsageLevel { level: wire.level, reason: wire.reason, ..UsageLevel::default() };
        Ok(Self {
            model: model(&wire.model, "model")?,
            level: wire.state.map(TryInto::try_into).transpose()?.unwrap_or(said),
            windows: super::each(wire.windows)?,
            total: wire.total.map(Into::into).unwrap_or_default(),
            calls: wire.calls,
            failures: wire.failures,
            cost_usd: wire.cost_usd,
            unavailable_until: time(wire.unavailable_until, "unavailable_until")?,
            is_simulated: wire.simulated,
            next: optional_model(&wire.next, "next")?,
            signals: wire.signals.map(Into::into).unwrap_or_default(),
            forecast_at: time(wire.forecast_at, "forecast_at")?,
            burn: wire.burn.map(Into::into).unwrap_or_default(),
            counted: super::each(wire.counted)?,
            key: wire.key,
        })
    }
}

impl From<ModelUsage> for pb::ModelUsage {
    fn from(usage: ModelUsage) -> Self {
        Self {
            model: usage.model.to_string(),
            level: usage.level.level.clone(),
            reason: usage.level.reason.clone(),
            windows: usage.windows.into_iter().map(Into::into).collect(),
            total: Some(usage.total.into()),
            calls: usage.calls,
            failures: usage.failures,
            cost_usd: usage.cost_usd,
            unavailable_until: usage.unavailable_until.map(Into::into),
            simulated: usage.is_simulated,
            state: Some(usage.level.into()),
            next: text_of(usage.next),
            signals: Some(usage.signals.into()),
            forecast_at: usage.forecast_at.map(Into::into),
            burn: Some(usage.burn.into()),
            counted: usage.counted.into_iter().map(Into::into).collect(),
            key: usage.key,
        }
    }
}

impl TryFrom<pb::UsageLevel> for UsageLevel {
    type Error = InvalidField;

    fn try_from(wire: pb::UsageLevel) -> Result<Self, InvalidField> {
        Ok(Self {
            level: wire.level,
            cause: wire.cause,
            reason: wire.reason,
            action: wire.action,
            pace: wire.pace,
            since: time(wire.since, "state.since")?,
        })
    }
}

impl From<UsageLevel> for pb::UsageLevel {
    fn from(level: UsageLevel) -> Self {
        Self {
            level: level.level,
            cause: level.cause,
            reason: level.reason,
            action: level.action,
            pace: level.pace,
            since: level.since.map(Into::into),
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
            unit: wire.unit,
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
            unit: window.unit,
        }
    }
}

impl TryFrom<pb::CountedWindow> for CountedWindow {
    type Error = InvalidField;

    fn try_from(wire: pb::CountedWindow) -> Result<Self, InvalidField> {
        Ok(Self {
            name: wire.name,
            requests: wire.requests,
            tokens: wire.tokens,
            cost_usd: wire.cost_usd,
            resets_at: time(wire.resets_at, "counted.resets_at")?,
        })
    }
}

impl From<CountedWindow> for pb::CountedWindow {
    fn from(window: CountedWindow) -> Self {
        Self {
            name: window.name,
            requests: window.requests,
            tokens: window.tokens,
            cost_usd: window.cost_usd,
            resets_at: window.resets_at.map(Into::into),
        }
    }
}

impl From<pb::UsageSignals> for UsageSignals {
    fn from(wire: pb::UsageSignals) -> Self {
        Self {
            rate_limit_count: wire.rate_limit_count,
            slow_streak: wire.slow_streak,
            error_rate: wire.error_rate,
            avg_response_seconds: wire.avg_response_seconds,
        }
    }
}

impl From<UsageSignals> for pb::UsageSignals {
    fn from(signals: UsageSignals) -> Self {
        Self {
            rate_limit_count: signals.rate_limit_count,
            slow_streak: signals.slow_streak,
            error_rate: signals.error_rate,
            avg_response_seconds: signals.avg_response_seconds,
        }
    }
}

impl From<pb::UsageBurn> for UsageBurn {
    fn from(wire: pb::UsageBurn) -> Self {
        Self {
            requests_per_hour: wire.requests_per_hour,
            tokens_per_hour: wire.tokens_per_hour,
            cost_usd_per_hour: wire.cost_usd_per_hour,
            confidence: wire.confidence,
        }
    }
}

impl From<UsageBurn> for pb::UsageBurn {
    fn from(burn: UsageBurn) -> Self {
        Self {
            requests_per_hour: burn.requests_per_hour,
            tokens_per_hour: burn.tokens_per_hour,
            cost_usd_per_hour: burn.cost_usd_per_hour,
            confidence: burn.confidence,
        }
    }
}

impl TryFrom<pb::ScopeUsage> for ScopeUsage {
    type Error = InvalidField;

    fn try_from(wire: pb::ScopeUsage) -> Result<Self, InvalidField> {
        Ok(Self {
            kind: wire.kind,
            name: wire.name,
            windows: super::each(wire.windows)?,
            counted: super::each(wire.counted)?,
            burn: wire.burn.map(Into::into).unwrap_or_default(),
            calls: wire.calls,
            cost_usd: wire.cost_usd,
        })
    }
}

impl From<ScopeUsage> for pb::ScopeUsage {
    fn from(usage: ScopeUsage) -> Self {
        Self {
            kind: usage.kind,
            name: usage.name,
            windows: usage.windows.into_iter().map(Into::into).collect(),
            counted: usage.counted.into_iter().map(Into::into).collect(),
            burn: Some(usage.burn.into()),
            calls: usage.calls,
            cost_usd: usage.cost_usd,
        }
    }
}

impl TryFrom<pb::SessionUsage> for SessionUsage {
    type Error = InvalidField;

    fn try_from(wire: pb::SessionUsage) -> Result<Self, InvalidField> {
        Ok(Self {
            session: wire.session,
            model: optional_model(&wire.model, "session.model")?,
            tokens: wire.tokens,
            context_window: wire.context_window,
            warning_threshold: wire.warning_threshold,
            switch_threshold: wire.switch_threshold,
            level: wire.state.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            windows: super::each(wire.windows)?,
            counted: super::each(wire.counted)?,
            total: wire.total.map(Into::into).unwrap_or_default(),
            calls: wire.calls,
            cost_usd: wire.cost_usd,
            duration: span(wire.duration, "session.duration")?.unwrap_or_default(),
            worked: span(wire.worked, "session.worked")?.unwrap_or_default(),
            complexity: wire.complexity,
            rating: wire.rating,
            last_at: time(wire.last_at, "session.last_at")?,
        })
    }
}

impl From<SessionUsage> for pb::SessionUsage {
    fn from(usage: SessionUsage) -> Self {
        Self {
            session: usage.session,
            model: text_of(usage.model),
            tokens: usage.tokens,
            context_window: usage.context_window,
            warning_threshold: usage.warning_threshold,
            switch_threshold: usage.switch_threshold,
            state: Some(usage.level.into()),
            windows: usage.windows.into_iter().map(Into::into).collect(),
            counted: usage.counted.into_iter().map(Into::into).collect(),
            total: Some(usage.total.into()),
            calls: usage.calls,
            cost_usd: usage.cost_usd,
            duration: Some(wire_span(usage.duration)),
            worked: Some(wire_span(usage.worked)),
            complexity: usage.complexity,
            rating: usage.rating,
            last_at: usage.last_at.map(Into::into),
        }
    }
}

impl TryFrom<pb::GetUsageStatusResponse> for UsageStatus {
    type Error = InvalidField;

    fn try_from(wire: pb::GetUsageStatusResponse) -> Result<Self, InvalidField> {
        Ok(Self {
            models: super::each(wire.models)?,
            scopes: super::each(wire.scopes)?,
            sessions: super::each(wire.sessions)?,
        })
    }
}

impl From<UsageStatus> for pb::GetUsageStatusResponse {
    fn from(status: UsageStatus) -> Self {
        Self {
            models: status.models.into_iter().map(Into::into).collect(),
            scopes: status.scopes.into_iter().map(Into::into).collect(),
            sessions: status.sessions.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::LimitForecast> for LimitForecast {
    type Error = InvalidField;

    fn try_from(wire: pb::LimitForecast) -> Result<Self, InvalidField> {
        Ok(Self {
            kind: wire.kind,
            name: wire.name,
            window: super::required(wire.window, "limit.window")?.try_into()?,
            per_hour: wire.per_hour,
            reached_at: time(wire.reached_at, "limit.reached_at")?,
            confidence: wire.confidence,
        })
    }
}

impl From<LimitForecast> for pb::LimitForecast {
    fn from(forecast: LimitForecast) -> Self {
        Self {
            kind: forecast.kind,
            name: forecast.name,
            window: Some(forecast.window.into()),
            per_hour: forecast.per_hour,
            reached_at: forecast.reached_at.map(Into::into),
            confidence: forecast.confidence,
        }
    }
}

impl From<pb::UsageSetting> for UsageSetting {
    fn from(wire: pb::UsageSetting) -> Self {
        let pb::UsageSetting { key, value, file, overridden } = wire;
        Self { key, value, file, is_overridden: overridden }
    }
}

impl From<UsageSetting> for pb::UsageSetting {
    fn from(setting: UsageSetting) -> Self {
        let UsageSetting { key, value, file, is_overridden } = setting;
        Self { key, value, file, overridden: is_overridden }
    }
}

impl TryFrom<pb::LevelChange> for LevelChange {
    type Error = InvalidField;

    fn try_from(wire: pb::LevelChange) -> Result<Self, InvalidField> {
        Ok(Self {
            at: super::required(time(wire.at, "change.at")?, "change.at")?,
            kind: wire.kind,
            name: wire.name,
            model: optional_model(&wire.model, "change.model")?,
            from: wire.from,
            to: super::required(wire.to, "change.to")?.try_into()?,
            diagnosis: wire.diagnosis,
        })
    }
}

impl From<LevelChange> for pb::LevelChange {
    fn from(change: LevelChange) -> Self {
        Self {
            at: Some(change.at.into()),
            kind: change.kind,
            name: change.name,
            model: text_of(change.model),
            from: change.from,
            to: Some(change.to.into()),
            diagnosis: change.diagnosis,
        }
    }
}
