//! Levels: how near a limit is, and what that leads to.

use crate::core::policy::Thresholds;

/// How near a limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    #[default]
    Healthy,
    Warning,
    Critical,
    Exhausted,
}

impl Level {
    /// From the worst down.
    const FALLING: [Self; 4] = [Self::Exhausted, Self::Critical, Self::Warning, Self::Healthy];

    /// The level's word, as people and scripts read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "HEALTHY",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Exhausted => "EXHAUSTED",
        }
    }

    /// The level of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::FALLING.into_iter().find(|level| level.as_str() == word)
    }
}

/// What a level asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    #[default]
    None,
    /// Say so, and watch.
    Log,
    /// Make the package that a move will need.
    Prepare,
    /// Nothing more here: what runs and what is queued goes elsewhere.
    Move,
    /// What runs ends where it is; what is queued goes elsewhere.
    MoveGradually,
    /// As [`Action::Move`], with the calls that went wrong listed.
    MoveDiagnosed,
}

impl Action {
    /// What is to be done, without how.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Log => "log",
            Self::Prepare => "prepare",
            Self::Move | Self::MoveGradually | Self::MoveDiagnosed => "move",
        }
    }

    /// How; empty where there is only one way.
    #[must_use]
    pub fn pace(self) -> &'static str {
        match self {
            Self::None | Self::Log | Self::Prepare => "",
            Self::Move => "at_once",
            Self::MoveGradually => "gradually",
            Self::MoveDiagnosed => "diagnosed",
        }
    }
}

impl Thresholds {
    /// The level of `used` of `limit`. Of a limit of nothing, nothing is exhausted too.
    #[must_use]
    pub fn level(&self, used: u64, limit: u64) -> Level {
        self.at_least(used, limit, 0)
    }

    /// The same for a limit whose level was `held`: it is left only `margin` below where it begins.
    #[must_use]
    pub fn held(&self, held: Level, used: u64, limit: u64) -> Level {
        let kept = self.at_least(used, limit, self.margin).min(held);
        self.level(used, limit).max(kept)
    }

    fn at_least(&self, used: u64, limit: u64, margin: u8) -> Level {
        let reached = |level: &Level| {
            let begins = match level {
                Level::Exhausted => self.exhausted,
                Level::Critical => self.critical,
                Level::Warning => self.warning,
                Level::Healthy => return true,
            };
            let percent = u128::from(begins.saturating_sub(margin));
            u128::from(used) * 100 >= u128::from(limit) * percent
        };
        Level::FALLING.into_iter().find(reached).unwrap_or_default()
    }

    /// The level of a session that holds `tokens` of a model's `window`: warned and moved at shares of its own.
    #[must_use]
    pub fn of_session(&self, held: Level, tokens: u64, window: u64) -> Level {
        // Between its two, a package is prepared where other limits prepare one.
        let critical = self.critical.clamp(self.session_warning, self.session_switch);
        let own = Self {
            warning: self.session_warning,
            critical,
            exhausted: self.session_switch,
            ..*self
        };
        own.held(held, tokens, window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(used: u64, limit: u64, want: Level) {
        assert_eq!(Thresholds::default().level(used, limit), want, "{used} of {limit}");
    }

    #[test]
    fn level_rises_at_each_threshold() {
        check(69, 100, Level::Healthy);
        check(70, 100, Level::Warning);
        check(85, 100, Level::Critical);
        check(100, 100, Level::Exhausted);
        check(u64::MAX, u64::MAX, Level::Exhausted);
        check(0, 0, Level::Exhausted);
    }

    #[test]
    fn a_level_is_left_only_below_its_threshold_by_the_margin() {
        let thresholds = Thresholds::default();
        let after = |held, used| thresholds.held(held, used, 100);
        assert_eq!(after(Level::Critical, 80), Level::Critical);
        assert_eq!(after(Level::Critical, 79), Level::Warning);
        assert_eq!(after(Level::Exhausted, 79), Level::Warning);
        assert_eq!(after(Level::Warning, 65), Level::Warning);
        assert_eq!(after(Level::Warning, 64), Level::Healthy);
        // What was not reached before is not reached by the margin.
        assert_eq!(after(Level::Warning, 84), Level::Warning);
        assert_eq!(after(Level::Healthy, 69), Level::Healthy);
    }

    #[test]
    fn a_session_is_warned_and_moved_at_shares_of_its_models_own_window() {
        let thresholds = Thresholds::default();
        let of = |tokens, window| thresholds.of_session(Level::Healthy, tokens, window);
        assert_eq!(of(149_999, 200_000), Level::Healthy);
        assert_eq!(of(150_000, 200_000), Level::Warning);
        assert_eq!(of(170_000, 200_000), Level::Critical);
        assert_eq!(of(179_999, 200_000), Level::Critical);
        assert_eq!(of(180_000, 200_000), Level::Exhausted);
        assert_eq!(of(115_199, 128_000), Level::Critical);
        assert_eq!(of(115_200, 128_000), Level::Exhausted);
    }
}
