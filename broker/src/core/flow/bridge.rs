//! Bridges: opened, closed, and how far behind each is.

use broker_proto::{Bridge, BridgeHealth, BridgeStatus, SessionId, TriggerKind};

use super::Run;
use crate::core::{
    Event, Note, Refusal, Reply,
    handoff::{
        Refusal as Refused, arbiter,
        bridge::{Changed, Command, MOST, Query, Refusal as Unbridged},
    },
    session,
};

impl Run<'_> {
    pub(super) fn bridge(&mut self, command: Command) -> Result<Reply, Refusal> {
        let told = match command {
            Command::Open { session, from, to } => {
                let at = self.now.wall;
                let bridge = Bridge { session, from, to, opened_at: at };
                self.open_bridge(&bridge)?
            }
            Command::Close { session, to } => {
                let is_meant = |bridge: &&Bridge| to.as_ref().is_none_or(|to| bridge.to == *to);
                let of = self.state.bridge.of(&session).filter(is_meant);
                let closed: Vec<BridgeStatus> = of.map(|it| self.bridge_status(it)).collect();
                if closed.is_empty() {
                    return Err(Unbridged::Unknown { session, to }.into());
                }
                for status in &closed {
                    self.bridge_changed(status.bridge.clone(), false, "somebody asked for it");
                }
                closed
            }
            Command::NotSynced { session, to, problem } => {
                self.note(&Note::NotSynced { session, to, problem });
                Vec::new()
            }
        };
        Ok(Reply::Bridges(told))
    }

    pub(super) fn ask_bridges(&self, query: &Query) -> Vec<BridgeStatus> {
        let bridges: Vec<&Bridge> = match &query.session {
            Some(session) => self.state.bridge.of(session).collect(),
            None => self.state.bridge.all().collect(),
        };
        bridges.into_iter().map(|bridge| self.bridge_status(bridge)).collect()
    }

    fn open_bridge(&mut self, bridge: &Bridge) -> Result<Vec<BridgeStatus>, Refusal> {
        let Bridge { session, from, to, .. } = bridge;
        let unknown = || session::Refusal::Unknown(session.clone());
        let owner = &self.state.session.get(session).ok_or_else(unknown)?.info.owner.model;
        if owner != from {
            let (session, owner, given) = (session.clone(), owner.clone(), from.clone());
            return Err(Unbridged::NotOwner { session, owner, given }.into());
        }
        if self.model(to).is_none() {
            return Err(Refusal::UnknownModel { given: to.to_string(), nearest: Vec::new() });
        }
        if owner == to {
            let (session, owner) = (session.clone(), owner.clone());
            return Err(Refused::Owner { session, owner }.into());
        }
        if !self.state.policy.handoff.may_receive(to) {
            let reason = "may not receive sessions (`brokerctl handoff models`)".to_owned();
            return Err(Refused::Unfit { model: to.clone(), reason }.into());
        }
        let settings = &self.state.policy.handoff;
        let needs = settings.preserve.budget().unwrap_or(super::handoff::LEAST);
        let window = self.model(to).map(|model| model.context_window).unwrap_or_default();
        if let Some(reason) = arbiter::too_small(window, needs, settings) {
            return Err(Refused::Unfit { model: to.clone(), reason }.into());
        }
        if self.state.bridge.get(session, to).is_some() {
            return Err(Unbridged::Open { session: session.clone(), to: to.clone() }.into());
        }
        if self.state.bridge.of(session).count() >= MOST {
            return Err(Unbridged::TooMany(session.clone()).into());
        }
        let id = session.clone();
        self.bridge_changed(bridge.clone(), true, "");
        self.session_went_on(&id);
        Ok(vec![self.bridge_status(bridge)])
    }

    fn bridge_changed(&mut self, bridge: Bridge, is_open: bool, why: &str) {
        let (at, why) = (self.now.wall, why.to_owned());
        self.event(Event::Bridge(Box::new(Changed { at, bridge, is_open, why })));
    }

    /// The session has another owner, or is no more: nothing leads from it any more.
    pub(super) fn close_bridges(&mut self, session: &SessionId, why: &str) {
        let open: Vec<Bridge> = self.state.bridge.of(session).cloned().collect();
        for bridge in open {
            self.bridge_changed(bridge, false, why);
        }
    }

    fn bridge_status(&self, bridge: &Bridge) -> BridgeStatus {
        let synced = self.state.package.synced(&bridge.session, &bridge.to);
        let session = self.state.session.get(&bridge.session);
        let (entries, tokens) =
            session.map_or((0, 0), |session| (session.info.head.entries, session.info.tokens));
        let known = synced.map_or((0, 0), |synced| (synced.entries, synced.tokens));
        let is_current = session
            .is_some_and(|session| entries == 0 || self.has_package_for(session, &bridge.to));
        let problem = self.state.bridge.problem(bridge);
        let blocked = session.and_then(|session| {
            let ask = super::ahead::asking(session, Some(bridge.to.clone()));
            self.receivers(&ask, &bridge.from, TriggerKind::UserRequest).err()
        });
        let (health, problem) = match blocked {
            Some(refused) => (BridgeHealth::Broken, refused.to_string()),
            None if is_current => (BridgeHealth::Healthy, String::new()),
            None if !problem.is_empty() => (BridgeHealth::Broken, problem.to_owned()),
            None => (BridgeHealth::Stale, String::new()),
        };
        BridgeStatus {
            bridge: bridge.clone(),
            synced: synced.map(|synced| (synced.package, synced.at)),
            lag_turns: entries.saturating_sub(known.0),
            lag_tokens: tokens.saturating_sub(known.1),
            health,
            problem,
        }
    }
}
