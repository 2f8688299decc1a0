//! Budgets: what may be used within a window, and what is reserved of it before a call.
//!
//! Invariant: what is used and what is reserved never come to more than a budget by what the broker itself let out: a
//! reservation that does not fit is refused, and one is all that is held of a leased message.

use std::collections::BTreeMap;

use broker_proto::WallTime;

use super::{Amount, Meter, Nanos, Reservation, Scope, ScopeKind, Span, State, Unit};
use crate::core::queue::Seq;

/// A limit that the configuration, or a person, has set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BudgetKey {
    pub kind: ScopeKind,
    /// `*` is each of its kind.
    pub name: String,
    pub span: Span,
    pub unit: Unit,
}

/// Limits by what they limit; dollars in billionths.
pub type Budgets = BTreeMap<BudgetKey, u64>;

impl BudgetKey {
    /// Whether it limits this one.
    #[must_use]
    pub fn is_for(&self, scope: &Scope) -> bool {
        self.kind == scope.kind() && (self.name == "*" || self.name == scope.name())
    }

    /// `day tokens`, with whose it is where that is not the model itself.
    #[must_use]
    pub fn words(&self) -> String {
        let window = format!("{} {}", self.span.as_str(), self.unit.as_str());
        match self.kind {
            ScopeKind::Model | ScopeKind::Session => window,
            ScopeKind::Namespace => format!("namespace {window}"),
            ScopeKind::Key => format!("key {window}"),
        }
    }
}

/// A reservation that a budget has no room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    pub words: String,
    /// When the budget begins anew.
    pub resets_at: Option<WallTime>,
    /// What is left of it.
    pub left: u64,
    pub unit: Unit,
    span: Span,
    limit: u64,
    /// It has room for the call when it begins anew.
    pub fits_anew: bool,
    /// A minute's budget that has room for the call when it begins anew: it only delays.
    pub is_passing: bool,
}

/// Everything that is reserved.
#[derive(Debug, Default)]
pub struct Reservations {
    by_message: BTreeMap<Seq, Reservation>,
    by_scope: BTreeMap<Scope, Amount>,
}

impl Reservations {
    pub(super) fn hold(&mut self, reservation: &Reservation) {
        self.release(reservation.seq);
        for scope in reservation.scopes() {
            let sum = self.by_scope.entry(scope).or_default();
            *sum = sum.plus(reservation.amount);
        }
        self.by_message.insert(reservation.seq, reservation.clone());
    }

    pub(super) fn release(&mut self, seq: Seq) {
        let Some(reservation) = self.by_message.remove(&seq) else { return };
        for scope in reservation.scopes() {
            let Some(sum) = self.by_scope.get_mut(&scope) else { continue };
            *sum = sum.minus(reservation.amount);
            if *sum == Amount::default() {
                self.by_scope.remove(&scope);
            }
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_message.is_empty()
    }

    #[must_use]
    pub fn is_held(&self, seq: Seq) -> bool {
        self.by_message.contains_key(&seq)
    }

    #[must_use]
    pub fn of(&self, scope: &Scope) -> Amount {
        self.by_scope.get(scope).copied().unwrap_or_default()
    }
}

impl State {
    /// What is left of a budget of one scope, and when it begins anew.
    fn left(&self, key: &BudgetKey, limit: u64, scope: &Scope, now: WallTime) -> Short {
        let open = self.meter(scope).map(|meter: &Meter| meter.windows.at(key.span, now));
        let open = open.unwrap_or_else(|| super::Windows::default().at(key.span, now));
        let taken = open.used.plus(self.reservations.of(scope)).of(key.unit);
        let left = limit.saturating_sub(taken);
        let whose = match scope.name() {
            "" => String::new(),
            name => format!(" of {name}"),
        };
        let words = format!(
            "the budget {}{whose} has {} left of {}",
            key.words(),
            key.unit.words(left),
            key.unit.words(limit)
        );
        let (unit, span) = (key.unit, key.span);
        let (fits_anew, is_passing) = (false, false);
        Short { words, resets_at: open.ends, left, unit, span, limit, fits_anew, is_passing }
    }

    /// What the budgets of these scopes leave: the least of each unit. Empty where there is none.
    fn tightest(&self, budgets: &Budgets, scopes: &[Scope], now: WallTime) -> Vec<Short> {
        let mut tightest: BTreeMap<Unit, Short> = BTreeMap::new();
        for (key, limit) in budgets {
            for scope in scopes.iter().filter(|scope| key.is_for(scope)) {
                let short = self.left(key, *limit, scope, now);
                let known = tightest.get(&short.unit);
                if known.is_none_or(|known| short.left < known.left) {
                    tightest.insert(short.unit, short);
                }
            }
        }
        tightest.into_values().collect()
    }

    /// The most output tokens that the budgets of these scopes pay for after a prompt of so many tokens, and what to
    /// reserve for that. `None` where no budget applies.
    ///
    /// # Errors
    /// The budget that has no room for the prompt and `least` output tokens.
    pub fn afford(
        &self,
        budgets: &Budgets,
        scopes: &[Scope],
        wanted: &Wanted,
        now: WallTime,
    ) -> Result<Option<(u64, Amount)>, Short> {
        let mut output = wanted.most_output;
        let tightest = self.tightest(budgets, scopes, now);
        if tightest.is_empty() {
            return Ok(None);
        }
        let mut binding = None;
        for short in tightest {
            let Some(most) = wanted.most_of(short.unit, short.left) else {
                let words = format!("{}, and the model's price is not known", short.words);
                return Err(Short { words, ..short });
            };
            if most < output {
                output = most;
                binding = Some(short);
            }
        }
        if let Some(short) = binding
            && output < wanted.least_output.max(1)
        {
            let words = format!(
                "{}; the prompt and the shortest answer need about {} tokens",
                short.words,
                wanted.input + wanted.least_output
            );
            let whole = wanted.most_of(short.unit, short.limit).unwrap_or(0);
            let fits_anew = whole >= wanted.least_output.max(1);
            let is_passing = fits_anew && !short.span.matters();
            return Err(Short { words, fits_anew, is_passing, ..short });
        }
        let cost = wanted.prices.map_or(Nanos(0), |(input, each)| {
            Nanos(input.0.saturating_add(price_of(output, each)))
        });
        let tokens = wanted.input.saturating_add(output);
        Ok(Some((output, Amount { requests: 1, tokens, cost })))
    }
}

/// What a call needs at least, and would take at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    pub input: u64,
    pub least_output: u64,
    pub most_output: u64,
    /// The cost of the prompt, sent the dearest way, and billionths of a USD per output token.
    pub prices: Option<(Nanos, f64)>,
}

impl Wanted {
    /// The output tokens that so much of a unit pays for, behind the prompt; `None` where the price is not known.
    fn most_of(&self, unit: Unit, left: u64) -> Option<u64> {
        Some(match unit {
            Unit::Requests if left >= 1 => u64::MAX,
            Unit::Requests => 0,
            Unit::Tokens => left.saturating_sub(self.input),
            Unit::Usd => {
                let (input, each) = self.prices?;
                match left.checked_sub(input.0) {
                    None => 0,
                    Some(_) if each == 0.0 => u64::MAX,
                    Some(left) => affordable(left, each),
                }
            }
        })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "`as` saturates; a token more or less is held back below"
)]
fn affordable(nanos: u64, each: f64) -> u64 {
    let mut tokens = (nanos as f64 / each) as u64;
    while tokens > 0 && price_of(tokens, each) > nanos {
        tokens -= 1;
    }
    tokens
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "`as` saturates"
)]
fn price_of(tokens: u64, each: f64) -> u64 {
    (tokens as f64 * each).ceil() as u64
}

#[cfg(test)]
mod tests {
    use broker_proto::ModelName;

    use super::*;
    use crate::core::usage::{Event, scopes};

    const NOW: WallTime = WallTime(1_795_132_800_000);

    fn opus() -> ModelName {
        ModelName::parse("opus").unwrap()
    }

    fn budgets(unit: Unit, limit: u64) -> Budgets {
        let key = BudgetKey { kind: ScopeKind::Model, name: "*".into(), span: Span::Day, unit };
        Budgets::from([(key, limit)])
    }

    fn wanted(input: u64, most_output: u64) -> Wanted {
        // 4 $ and 20 $ for a million.
        let prices = Some((Nanos(input * 4_000), 20_000.0));
        Wanted { input, least_output: 16, most_output, prices }
    }

    fn afford(state: &State, budgets: &Budgets, wanted: &Wanted) -> Result<Option<u64>, Short> {
        let scopes = scopes(&opus(), "KEY", Some("s"));
        let found = state.afford(budgets, &scopes, wanted, NOW)?;
        Ok(found.map(|(output, _)| output))
    }

    fn hold(state: &mut State, seq: u64, tokens: u64) {
        state.happened(&Event::Reserved(Box::new(Reservation {
            seq: Seq(seq),
            at: NOW,
            model: opus(),
            key: "KEY".into(),
            session: None,
            amount: Amount { requests: 1, tokens, cost: Nanos(0) },
        })));
    }

    #[test]
    fn without_a_budget_nothing_is_reserved() {
        let state = State::default();
        assert_eq!(afford(&state, &Budgets::new(), &wanted(10, 100)), Ok(None));
    }

    #[test]
    fn the_last_token_is_reserved_once() {
        let mut state = State::default();
        let day = budgets(Unit::Tokens, 1_000);
        assert_eq!(afford(&state, &day, &wanted(900, 100)), Ok(Some(100)));
        hold(&mut state, 1, 1_000);

        let short = afford(&state, &day, &wanted(900, 100)).unwrap_err();
        assert_eq!((short.left, short.resets_at), (0, Some(WallTime(NOW.0 + 86_400_000))));
        assert!(short.words.starts_with("the budget day tokens of opus has 0 left of 1000"));

        state.happened(&Event::Released { seq: Seq(1), at: NOW });
        assert_eq!(afford(&state, &day, &wanted(900, 100)), Ok(Some(100)));
        assert_eq!(state.reservations.of(&Scope::Model(opus())), Amount::default());
    }

    #[test]
    fn a_message_holds_one_reservation_however_often_it_is_told() {
        let mut state = State::default();
        hold(&mut state, 1, 600);
        hold(&mut state, 1, 600);
        assert_eq!(state.reservations.of(&Scope::Namespace).tokens, 600);
    }

    #[test]
    fn money_becomes_a_cap_on_the_answer() {
        let state = State::default();
        // 1,000 tokens of prompt cost 0.004 $; 0.01 $ leave 300 tokens of answer.
        let cents = |cents: u64| budgets(Unit::Usd, cents * 10_000_000);
        assert_eq!(afford(&state, &cents(1), &wanted(1_000, 8_192)), Ok(Some(300)));
        assert_eq!(afford(&state, &cents(100), &wanted(1_000, 8_192)), Ok(Some(8_192)));
        assert!(afford(&state, &cents(0), &wanted(1_000, 8_192)).is_err());
        let unknown = Wanted { prices: None, ..wanted(1_000, 8_192) };
        let short = afford(&state, &cents(100), &unknown).unwrap_err();
        assert!(short.words.ends_with("the model's price is not known"), "{}", short.words);
        // What costs nothing may go on when no money is left.
        let free = Wanted { prices: Some((Nanos(0), 0.0)), ..wanted(1_000, 8_192) };
        assert_eq!(afford(&state, &cents(0), &free), Ok(Some(8_192)));
    }

    #[test]
    fn a_budget_with_a_name_is_for_that_one_alone() {
        let mut key = BudgetKey {
            kind: ScopeKind::Session,
            name: "mine".into(),
            span: Span::Day,
            unit: Unit::Requests,
        };
        assert!(key.is_for(&Scope::Session("mine".into())));
        assert!(!key.is_for(&Scope::Session("yours".into())));
        key.name = "*".into();
        assert!(key.is_for(&Scope::Session("yours".into())));
        assert!(!key.is_for(&Scope::Key("mine".into())));
    }
}
