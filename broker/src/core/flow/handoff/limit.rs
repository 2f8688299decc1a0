//! A limit that is reached moves sessions.

use broker_proto::{
    AskHandoff, HandoffId, ModelName, Pace, SessionId, Trigger, TriggerKind, Urgency, WallTime,
};

use super::Wanted;
use crate::core::{
    Refusal,
    flow::Run,
    handoff::{Advised, Refusal as Refused},
    usage::{Action, Level, Subject},
};

/// Sessions with waiting work that one limit moves at once; the others move with their next turn.
const AT_ONCE: usize = 64;

impl Run<'_> {
    pub(super) fn move_session(
        &mut self,
        session: SessionId,
        trigger: Trigger,
        pace: Pace,
        is_lent: bool,
    ) -> Result<HandoffId, Refusal> {
        let ask = AskHandoff {
            session,
            to: None,
            agent: None,
            reason: trigger.reasoning.clone(),
            level: None,
            package: None,
            is_forced: false,
            at_once: pace == Pace::AtOnce,
        };
        self.begin_handoff(Wanted {
            ask,
            trigger,
            pace,
            returns: None,
            is_lent,
            is_rotation: false,
        })
    }

    /// Moves it, or says that nobody can take it, and until when. Said once, not with each turn.
    pub(super) fn move_or_tell(
        &mut self,
        session: &SessionId,
        trigger: &Trigger,
        pace: Pace,
        is_lent: bool,
    ) {
        let moved = self.move_session(session.clone(), trigger.clone(), pace, is_lent);
        let Err(Refusal::Handoff(Refused::Nobody { reason, until })) = moved else { return };
        let owner = self.state.session.get(session).map(|it| it.info.owner.model.clone());
        let Some(to) = owner else { return };
        let until = until.and_then(WallTime::rfc3339);
        let before = until.map(|until| format!(" before {until}")).unwrap_or_default();
        let reasoning = format!("nobody can take it{before}: {reason}");
        let trigger = Trigger { reasoning, ..trigger.clone() };
        self.advice_is(session, Some(Advised { to, trigger }));
    }

    /// A limit changed its level: what it moves is moved.
    pub(in crate::core::flow) fn limit_reached(
        &mut self,
        subject: &Subject,
        action: Action,
        reason: &str,
    ) {
        let pace = match action {
            Action::None | Action::Log | Action::Prepare => return,
            Action::Move | Action::MoveDiagnosed => Pace::AtOnce,
            Action::MoveGradually => Pace::Gradually,
        };
        let settings = &self.state.policy.handoff;
        match subject {
            Subject::Session(name) if settings.auto && settings.auto_switch => {
                if let Ok(session) = SessionId::parse(name) {
                    self.move_or_tell(&session, &of_limit(reason), pace, false);
                }
            }
            Subject::Model(model) if settings.auto => {
                for session in self.sessions_waiting_for(&model.clone()) {
                    self.move_or_tell(&session, &of_limit(reason), pace, true);
                }
            }
            Subject::Session(_) | Subject::Model(_) => {}
        }
    }

    /// A session that reached its own limit when nobody was to move it, or nobody could take it, moves once that is
    /// otherwise. One that is under way stays as it is.
    pub(in crate::core::flow) fn still_at_limit(&mut self, session: &str) {
        let subject = Subject::Session(session.to_owned());
        let held = self.state.usage.level(&subject);
        let is_open =
            SessionId::parse(session).is_ok_and(|id| self.state.handoff.open(&id).is_some());
        if held.level == Level::Exhausted && !is_open {
            self.limit_reached(&subject, held.action, &held.reason);
        }
    }

    /// Sessions of a model that have work waiting for it.
    fn sessions_waiting_for(&self, model: &ModelName) -> Vec<SessionId> {
        let owns = |session: &SessionId| {
            self.state.session.get(session).is_some_and(|it| it.info.owner.model == *model)
        };
        // What an agent or a role does for it waits for no model.
        let asks = |name: &&str| {
            let mut work = self.state.queue.of_session(name);
            work.any(|message| message.consultation.is_some())
        };
        let named = self.state.queue.sessions().filter(asks);
        let named = named.filter_map(|name| SessionId::parse(name).ok());
        let is_free = |session: &SessionId| !self.is_kept_by_ring(session);
        named.filter(owns).filter(is_free).take(AT_ONCE).collect()
    }
}

/// A limit that is reached.
pub(super) fn of_limit(reason: &str) -> Trigger {
    Trigger {
        kind: TriggerKind::UsageLimit,
        reasoning: reason.to_owned(),
        confidence: 1.0,
        urgency: Urgency::High,
    }
}
