//! What budgets let out: reservations and calls as they were stored, added up without the core's own windows.

use std::collections::{BTreeMap, BTreeSet};

use broker_proto::WallTime;

use super::{Checked, must};
use crate::core::{
    queue::Seq,
    usage::{BudgetKey, Budgets, Call, Event, Reservation, Scope, Span, scopes},
};

/// The budgets of a run, what was used within each window of them, and what is reserved.
#[derive(Debug)]
pub(super) struct Purse {
    budgets: Budgets,
    used: BTreeMap<(BudgetKey, Scope, u64), u64>,
    reserved: BTreeMap<Seq, Reservation>,
}

impl Purse {
    pub(super) fn new(budgets: Budgets) -> Self {
        Self { budgets, used: BTreeMap::new(), reserved: BTreeMap::new() }
    }

    pub(super) fn has_budgets(&self) -> bool {
        !self.budgets.is_empty()
    }

    pub(super) fn event(&mut self, event: &Event) -> Checked {
        match event {
            Event::Counted(call) => self.count(call),
            Event::Reserved(reservation) => {
                let seq = reservation.seq;
                let is_first = self.reserved.insert(seq, (**reservation).clone()).is_none();
                must!(is_first, "budget", "{seq:?} holds two reservations");
                return self.fits(reservation);
            }
            Event::Released { seq, .. } => {
                let was_held = self.reserved.remove(seq).is_some();
                must!(was_held, "budget", "{seq:?} gives back what it did not hold");
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, call: &Call) {
        let scopes = scopes(&call.model, &call.key, call.session.as_deref());
        for key in self.budgets.keys() {
            for scope in scopes.iter().filter(|scope| key.is_for(scope)) {
                let window = (key.clone(), scope.clone(), window(key.span, call.at));
                *self.used.entry(window).or_default() += call.amount().of(key.unit);
            }
        }
    }

    /// What is used and reserved is never more than a budget when something is reserved.
    fn fits(&self, newest: &Reservation) -> Checked {
        for (key, limit) in &self.budgets {
            for scope in newest.scopes().into_iter().filter(|scope| key.is_for(scope)) {
                let counts = |held: &&Reservation| held.scopes().contains(&scope);
                let held = self.reserved.values().filter(counts);
                let reserved: u64 = held.map(|held| held.amount.of(key.unit)).sum();
                let window = (key.clone(), scope.clone(), window(key.span, newest.at));
                let used = self.used.get(&window).copied().unwrap_or(0);
                must!(
                    used + reserved <= *limit,
                    "budget",
                    "{used} used and {reserved} reserved of {limit} {} of {scope}",
                    key.words()
                );
            }
        }
        Ok(())
    }

    /// In every commit exactly those hold a reservation who may call a provider by then.
    pub(super) fn is_held_by(&self, callers: &BTreeSet<Seq>) -> Checked {
        let held: BTreeSet<Seq> = self.reserved.keys().copied().collect();
        must!(held == *callers, "budget", "{held:?} hold reservations, {callers:?} are leased");
        Ok(())
    }
}

/// The number of a window since the epoch. Histories have budgets of minutes and days.
fn window(span: Span, at: WallTime) -> u64 {
    at.0 / if span == Span::Minute { 60_000 } else { 86_400_000 }
}
