//! Triggers: what speaks for moving a session, each with why, how sure, and how urgent. What comes of one is the
//! arbiter's.

use std::{collections::BTreeSet, time::Duration};

use broker_proto::{ModelName, Trigger, TriggerKind, Urgency};

use crate::core::{policy::Thresholds, usage::Level};

/// A model of half the price is worth a move; what is saved by less is lost by moving.
const CHEAPER: f64 = 0.5;
/// Points of five that a rating must be better by, and of how many sessions on each side.
const BETTER: f64 = 1.0;
const ENOUGH_RATINGS: u32 = 3;
/// How sure the estimate of a step can be that nobody has said anything about.
const ESTIMATED: f64 = 0.4;
/// What is less sure than this is recommended, and never carried out by itself.
pub const SURE: f64 = 0.5;
/// A forecast that is less sure than this says nothing: it may be of a single call.
const FORECAST: f64 = 0.2;
/// A step that says so many tokens itself is as complex as one can be, as far as its size tells.
const LARGE_STEP: u64 = 16_000;

/// Whether a session is to move, by its share of its model's window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Checked {
    pub should_handoff: bool,
    pub reason: &'static str,
    pub level: Level,
    /// How near it is to where it moves by itself: 0 to 1.
    pub confidence: f64,
    pub urgency: Urgency,
}

/// Checks a session that holds `tokens` of a model's `window`. `can_go_on`: nothing but its window speaks against its owner.
/// With `warning_only`, a warning is no reason.
#[must_use]
pub fn check(
    thresholds: &Thresholds,
    tokens: u64,
    window: u64,
    can_go_on: bool,
    warning_only: bool,
) -> Checked {
    let own = thresholds.of_session(Level::Healthy, tokens, window);
    let level = if can_go_on { own } else { Level::Exhausted };
    let (should_handoff, reason) = match (level, warning_only) {
        (Level::Exhausted, _) => (true, "auto_switch_threshold_reached"),
        (Level::Healthy, _) => (false, "normal"),
        (Level::Warning | Level::Critical, true) => (false, "warning_threshold_reached"),
        (Level::Warning | Level::Critical, false) => (true, "approaching_limit"),
    };
    let switch = share(window, thresholds.session_switch).max(1);
    let nearness = (fraction(tokens, switch) * 100.0).round() / 100.0;
    let confidence = if level == Level::Exhausted { 1.0 } else { nearness.min(1.0) };
    Checked { should_handoff, reason, level, confidence, urgency: urgency(level) }
}

/// How soon something is to be done about a level.
#[must_use]
pub fn urgency(level: Level) -> Urgency {
    match level {
        Level::Healthy => Urgency::Low,
        Level::Warning => Urgency::Medium,
        Level::Critical | Level::Exhausted => Urgency::High,
    }
}

/// So many percent of a window, in tokens.
#[must_use]
pub fn share(window: u64, percent: u8) -> u64 {
    let tokens = u128::from(window) * u128::from(percent) / 100;
    u64::try_from(tokens).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a share")]
fn fraction(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// One limit, as it stands before a turn.
#[derive(Debug, Clone, Copy)]
pub struct Limit<'a> {
    pub level: Level,
    /// Which limit, and how near.
    pub reason: &'a str,
    /// `None` where it is not known.
    pub room: Option<Room>,
    /// Until it is reached, as things go, and how sure that is.
    pub reached_in: Option<(Duration, f64)>,
}

impl Limit<'_> {
    /// A limit of which nothing else is known.
    #[must_use]
    pub fn at(level: Level) -> Self {
        Self { level, reason: "", room: None, reached_in: None }
    }
}

/// What is left of a limit, in its own unit: tokens, or what its provider counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub left: u64,
    /// What the next turn takes of it.
    pub turn: u64,
}

impl Room {
    fn is_enough(self) -> bool {
        self.turn <= self.left
    }

    /// Of several limits, the one that is soonest too small.
    #[must_use]
    pub fn least(rooms: impl Iterator<Item = Self>) -> Option<Self> {
        rooms.min_by_key(|room| i128::from(room.left) - i128::from(room.turn))
    }
}

/// A limit is reached, or the next turn would reach it: what is left of a critical one is kept for the turn that runs, so
/// that no last turn is cut. `takes`: how long a turn takes.
#[must_use]
pub fn usage_limit(limit: &Limit<'_>, takes: Duration) -> Option<Trigger> {
    let fires = |reasoning: String, confidence| {
        let (kind, urgency) = (TriggerKind::UsageLimit, Urgency::High);
        Some(Trigger { kind, reasoning, confidence, urgency })
    };
    match (limit.level, limit.room, limit.reached_in) {
        (Level::Exhausted, _, _) => fires(limit.reason.to_owned(), 1.0),
        (Level::Critical, Some(room), _) if !room.is_enough() => {
            let why = format!("{}; the next turn takes about {}", limit.reason, room.turn);
            fires(why, 0.9)
        }
        (Level::Critical, _, Some((reached_in, confidence)))
            if reached_in <= takes && confidence >= FORECAST =>
        {
            let why = format!("{}; reached within {} s", limit.reason, reached_in.as_secs());
            fires(why, confidence)
        }
        _ => None,
    }
}

/// How complex the next step is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Complexity {
    /// As somebody said, 0 to 1.
    Said(f64),
    /// By the size of what it is about, 0 to 1.
    Estimated(f64),
}

impl Complexity {
    /// A guess by the size of the next step's prompt.
    #[must_use]
    pub fn of_size(tokens: u64) -> Self {
        Self::Estimated(fraction(tokens, LARGE_STEP).min(1.0))
    }

    #[must_use]
    pub fn value(self) -> f64 {
        match self {
            Self::Said(value) | Self::Estimated(value) => value.clamp(0.0, 1.0),
        }
    }

    fn sureness(self) -> f64 {
        match self {
            Self::Said(_) => 1.0,
            Self::Estimated(_) => ESTIMATED,
        }
    }

    /// The tier that a step of it needs: the tiers that there are share 0 to 1 between them.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most 10 tiers, and a value from 0 to 1"
    )]
    pub fn tier(self, tiers: &BTreeSet<u8>) -> Option<u8> {
        let place = (self.value() * tiers.len() as f64) as usize;
        tiers.iter().nth(place.min(tiers.len().checked_sub(1)?)).copied()
    }
}

/// The next step needs an abler model than the one that has it.
#[must_use]
pub fn complexity_mismatch(
    complexity: Complexity,
    owner: (&ModelName, u8),
    tiers: &BTreeSet<u8>,
) -> Option<Trigger> {
    let (model, tier) = owner;
    let needed = complexity.tier(tiers).filter(|needed| *needed > tier)?;
    let said = match complexity {
        Complexity::Said(_) => "is said to be",
        Complexity::Estimated(_) => "looks",
    };
    let value = complexity.value();
    Some(Trigger {
        kind: TriggerKind::ComplexityMismatch,
        reasoning: format!(
            "the next step {said} {value:.2} complex, which asks for tier {needed}; {model} has tier {tier}"
        ),
        // The middle of what needs the next tier is surer than its edge.
        confidence: ((0.6 + 0.4 * value) * complexity.sureness() * 100.0).round() / 100.0,
        urgency: Urgency::Medium,
    })
}

/// A model as one that could do the same work.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    pub model: ModelName,
    pub tier: u8,
    /// USD for a million tokens of each kind; `None`: not known.
    pub price: Option<f64>,
    /// The mean of what its sessions were rated, of 5, and how many of them were.
    pub rating: Option<(f64, u32)>,
}

/// A cheaper or better-rated model is expected to do as well: which, and why.
#[must_use]
pub fn optimisation(
    owner: &Worker,
    others: &[Worker],
    needed: Option<u8>,
) -> Option<(ModelName, Trigger)> {
    // Where nobody knows what the step needs, as well is as able.
    let needed = needed.unwrap_or(owner.tier);
    let able = || others.iter().filter(|other| other.tier >= needed);
    let fires = |other: &Worker, reasoning, confidence| {
        let (kind, urgency) = (TriggerKind::Optimisation, Urgency::Low);
        Some((other.model.clone(), Trigger { kind, reasoning, confidence, urgency }))
    };
    let rating = |of: &Worker| of.rating.filter(|(_, sessions)| *sessions >= ENOUGH_RATINGS);
    let is_no_dearer = |other: &&Worker| match (owner.price, other.price) {
        (Some(own), Some(price)) => price <= own,
        _ => false,
    };
    if let Some((own, _)) = rating(owner) {
        let better =
            able().filter(is_no_dearer).filter_map(|other| Some((rating(other)?.0, other)));
        let best =
            better.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(mean, _)| *mean >= own + BETTER);
        if let Some((mean, other)) = best {
            let model = &other.model;
            let why =
                format!("{model} is rated {mean:.1}, {} {own:.1}, and costs no more", owner.model);
            return fires(other, why, 0.7);
        }
    }
    let own = owner.price?;
    // Nobody is cheaper by what its sessions complain about.
    let is_worse = |other: &Worker| match (rating(owner), rating(other)) {
        (Some((own, _)), Some((other, _))) => other + BETTER <= own,
        _ => false,
    };
    let cheaper = able().filter(|other| !is_worse(other));
    let cheaper = cheaper.filter_map(|other| Some((other.price?, other)));
    let (price, other) = cheaper.min_by(|a, b| a.0.total_cmp(&b.0))?;
    if price > own * CHEAPER {
        return None;
    }
    let (model, tier) = (&other.model, other.tier);
    let why = format!(
        "{model} (tier {tier}) is expected to do as well for ${price:.2} in place of ${own:.2} a million tokens"
    );
    fires(other, why, 0.6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    #[track_caller]
    fn checked(tokens: u64, warning_only: bool, want: (bool, &str, Level, Urgency)) {
        let it = check(&Thresholds::default(), tokens, 200_000, true, warning_only);
        assert_eq!((it.should_handoff, it.reason, it.level, it.urgency), want, "{tokens}");
    }

    #[test]
    fn a_check_says_yes_from_the_warning_on_and_always_from_the_switch() {
        use Urgency::{High, Low, Medium};
        checked(149_999, false, (false, "normal", Level::Healthy, Low));
        checked(150_000, false, (true, "approaching_limit", Level::Warning, Medium));
        checked(150_000, true, (false, "warning_threshold_reached", Level::Warning, Medium));
        checked(179_999, true, (false, "warning_threshold_reached", Level::Critical, High));
        checked(180_000, true, (true, "auto_switch_threshold_reached", Level::Exhausted, High));
        let of = |tokens| check(&Thresholds::default(), tokens, 200_000, true, false).confidence;
        assert_eq!((of(0), of(90_000), of(180_000), of(200_000)), (0.0, 0.5, 1.0, 1.0));
        let owner_is_out = check(&Thresholds::default(), 10, 200_000, false, true);
        assert!(owner_is_out.should_handoff, "{owner_is_out:?}");
    }

    const TAKES: Duration = Duration::from_secs(60);

    fn limit(level: Level, left: Option<u64>, reached_in: Option<(u64, f64)>) -> Option<Trigger> {
        let reached_in = reached_in.map(|(secs, sure)| (Duration::from_secs(secs), sure));
        let room = left.map(|left| Room { left, turn: 5_000 });
        usage_limit(&Limit { level, reason: "90 of 100 5h", room, reached_in }, TAKES)
    }

    #[test]
    fn a_limit_that_is_reached_or_that_the_next_turn_would_reach_fires() {
        let reached = limit(Level::Exhausted, None, None).unwrap();
        assert_eq!((reached.reasoning.as_str(), reached.confidence), ("90 of 100 5h", 1.0));
        let reserve = limit(Level::Critical, Some(4_999), None).unwrap();
        assert!(reserve.reasoning.contains("the next turn takes about 5000"));
        let soon = limit(Level::Critical, None, Some((60, 0.8))).unwrap();
        assert_eq!((soon.confidence, soon.urgency), (0.8, Urgency::High));
    }

    #[test]
    fn a_limit_with_room_for_the_next_turn_does_not_fire() {
        assert_eq!(limit(Level::Critical, Some(5_000), Some((61, 1.0))), None);
        assert_eq!(limit(Level::Critical, None, Some((0, 0.19))), None);
        assert_eq!(limit(Level::Warning, Some(0), Some((0, 1.0))), None);
        assert_eq!(limit(Level::Healthy, None, None), None);
    }

    #[test]
    fn of_several_limits_the_one_that_is_soonest_too_small_counts() {
        let room = |left, turn| Room { left, turn };
        let least = Room::least([room(9, 1), room(100, 99), room(1_000, 10)].into_iter());
        assert_eq!(least, Some(room(100, 99)));
        assert_eq!(Room::least([room(1, 9), room(0, 9)].into_iter()), Some(room(0, 9)));
        assert_eq!(Room::least(std::iter::empty()), None);
    }

    fn tiers() -> BTreeSet<u8> {
        BTreeSet::from([1, 2, 3])
    }

    #[test]
    fn a_step_too_complex_for_its_model_fires() {
        let sonnet = name("sonnet");
        let fired = complexity_mismatch(Complexity::Said(0.9), (&sonnet, 2), &tiers()).unwrap();
        assert_eq!(fired.kind, TriggerKind::ComplexityMismatch);
        assert!(fired.confidence >= SURE, "{fired:?}");
        assert!(fired.reasoning.contains("asks for tier 3; sonnet has tier 2"), "{fired:?}");
        // A guess is told, and not sure enough to act on.
        let local = name("local");
        let guess = Complexity::of_size(16_000);
        let fired = complexity_mismatch(guess, (&local, 1), &tiers()).unwrap();
        assert!(fired.confidence < SURE, "{fired:?}");
    }

    #[test]
    fn a_step_that_its_model_is_able_to_do_does_not_fire() {
        let sonnet = name("sonnet");
        assert_eq!(complexity_mismatch(Complexity::Said(0.5), (&sonnet, 2), &tiers()), None);
        assert_eq!(complexity_mismatch(Complexity::Said(0.0), (&sonnet, 2), &tiers()), None);
        // Nobody is abler.
        let opus = name("opus");
        assert_eq!(complexity_mismatch(Complexity::Said(1.0), (&opus, 3), &tiers()), None);
        assert_eq!(complexity_mismatch(Complexity::Said(1.0), (&opus, 3), &BTreeSet::new()), None);
    }

    fn worker(model: &str, tier: u8, price: f64, rating: Option<(f64, u32)>) -> Worker {
        Worker { model: name(model), tier, price: Some(price), rating }
    }

    #[test]
    fn a_cheaper_model_that_does_as_well_fires_and_so_does_a_better_rated_one() {
        let opus = worker("opus", 3, 30.0, Some((3.0, 5)));
        let sonnet = worker("sonnet", 2, 15.0, None);
        let (to, fired) = optimisation(&opus, &[sonnet], Some(2)).unwrap();
        assert_eq!((to, fired.kind), (name("sonnet"), TriggerKind::Optimisation));
        assert_eq!(fired.urgency, Urgency::Low);
        let better = worker("gpt", 3, 29.0, Some((4.0, 3)));
        let (to, fired) = optimisation(&opus, &[better], None).unwrap();
        assert_eq!(to, name("gpt"));
        assert!(fired.reasoning.contains("rated 4.0"), "{fired:?}");
    }

    #[test]
    fn a_cheaper_model_that_is_less_able_worse_rated_or_hardly_cheaper_does_not_fire() {
        let opus = worker("opus", 3, 30.0, Some((4.5, 5)));
        let sonnet = |price, rating| [worker("sonnet", 2, price, rating)];
        assert_eq!(optimisation(&opus, &sonnet(1.0, None), Some(3)), None);
        assert_eq!(optimisation(&opus, &sonnet(1.0, None), None), None);
        assert_eq!(optimisation(&opus, &sonnet(15.1, None), Some(2)), None);
        assert_eq!(optimisation(&opus, &sonnet(1.0, Some((3.5, 3))), Some(2)), None);
        // Two ratings are no opinion, and who costs more is no optimisation.
        let opus = worker("opus", 3, 30.0, Some((2.0, 5)));
        let rated = worker("gpt", 3, 29.0, Some((5.0, 2)));
        assert_eq!(optimisation(&opus, &[rated], None), None);
        let dear = worker("gpt", 3, 31.0, Some((5.0, 9)));
        assert_eq!(optimisation(&opus, &[dear], None), None);
    }
}
