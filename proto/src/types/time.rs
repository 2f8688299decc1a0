//! A point in time that can be stored, compared and sent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Milliseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(pub u64);

impl WallTime {
    /// This time moved on by `by`; stays at the end of time instead of wrapping.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(millis(by)))
    }

    /// How long from `earlier` to here; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The same point as the standard library counts it.
    #[must_use]
    pub fn system(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0)
    }

    /// A point the standard library gave; times before 1970 become 1970.
    #[must_use]
    pub fn from_system(time: SystemTime) -> Self {
        Self(millis(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    /// As programs write it: `2026-11-20T18:00:00Z`, with a fraction where there is one. `None` behind the year 9999, which
    /// has no such spelling.
    #[must_use]
    pub fn rfc3339(self) -> Option<String> {
        let instant = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000);
        instant.ok()?.format(&Rfc3339).ok()
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_while_there_is_a_year_for_it() {
        for (millis, want) in [
            (0, Some("1970-01-01T00:00:00Z")),
            (1_795_132_800_000, Some("2026-11-20T00:00:00Z")),
            (1_795_132_800_250, Some("2026-11-20T00:00:00.25Z")),
            (253_402_300_799_999, Some("9999-12-31T23:59:59.999Z")),
            (253_402_300_800_000, None),
            (u64::MAX, None),
        ] {
            assert_eq!(WallTime(millis).rfc3339().as_deref(), want, "{millis}");
        }
    }
}
