//! A tower layer that looks at a session's level before each question of it, and warns, prepares or moves the session.
//!
//! [`HandoffLayer`] goes around any service of [`Ask`]; [`Consultations`] is the one that asks the broker. What the level
//! is, the broker says ([`Client::check_handoff`]): the layer only does what follows from it. See
//! `examples/handoff_layer.rs`.

mod consultations;
mod told;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use broker_proto::{
    AskHandoff, AskOptions, Handoff, HandoffCheck, HandoffState, Message, ModelName, Recipient,
    SessionId,
};
use tower::{Layer, Service};

use self::told::Told;
use crate::{Client, Error};

pub use self::consultations::Consultations;

/// What is to be done with a session before its next question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    Nothing,
    /// Its warning threshold is reached.
    Warning,
    /// The next owner is to be made ready for.
    Preparation,
    /// Its switch threshold is reached, or its owner can do no more.
    Move,
}

impl Due {
    /// What the broker's check says.
    #[must_use]
    pub fn of(check: &HandoffCheck) -> Self {
        match check.level.as_str() {
            "EXHAUSTED" => Self::Move,
            "CRITICAL" => Self::Preparation,
            "WARNING" => Self::Warning,
            _ => Self::Nothing,
        }
    }
}

/// One question.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Its `session` is looked at; without one it passes as it is.
    pub message: Message,
    pub options: AskOptions,
    pub to: To,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum To {
    /// Whoever owns the session by then, wherever the message was addressed.
    #[default]
    Owner,
    /// As the message says.
    Named,
}

impl Ask {
    /// A question to the owner of the message's session.
    #[must_use]
    pub fn new(message: Message, options: AskOptions) -> Self {
        Self { message, options, to: To::Owner }
    }

    fn session(&self) -> Option<SessionId> {
        self.message.session.as_deref().and_then(|id| SessionId::parse(id).ok())
    }
}

/// How far a layer goes. Each does what the one before it does, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It tells.
    Warn,
    /// Near the switch threshold it opens a bridge: a package for the next owner is kept current from then on.
    Prepare,
    /// At the switch threshold it hands the session over, and the question goes to the new owner.
    Move,
}

/// What becomes of a question when the broker cannot be asked how its session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfAway {
    /// It is asked all the same, and [`Notice::Failed`] tells.
    #[default]
    Pass,
    /// It fails with that error, and nobody is asked.
    Fail,
}

/// What a layer tells of.
#[derive(Debug)]
pub enum Notice {
    /// A level is reached; told once, until the session has a lower one or another owner.
    Level { due: Due, check: Box<HandoffCheck> },
    /// A package for this model is kept current from now on.
    Prepared { to: ModelName },
    /// How the handoff ended: `ACTIVE` or `COMPLETED` where the session moved.
    Handoff(Box<Handoff>),
    /// It could not look, prepare or move; the question is asked all the same.
    Failed(Error),
}

type Tell = Arc<dyn Fn(Notice) + Send + Sync>;

/// Looks at the level of a question's session before it is asked. What a clone has told, the others have told.
#[derive(Clone)]
pub struct HandoffLayer {
    client: Client,
    reach: Reach,
    if_away: IfAway,
    tell: Tell,
    told: Arc<Told>,
}

impl fmt::Debug for HandoffLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("HandoffLayer");
        shown.field("reach", &self.reach).field("if_away", &self.if_away).finish_non_exhaustive()
    }
}

impl HandoffLayer {
    /// A layer that goes so far, tells nobody, and lets questions pass while the broker is away.
    #[must_use]
    pub fn new(client: Client, reach: Reach) -> Self {
        let (tell, told): (Tell, _) = (Arc::new(|_| {}), Arc::default());
        Self { client, reach, if_away: IfAway::default(), tell, told }
    }

    /// The same, telling this; it is called before the question is asked, and must not block.
    #[must_use]
    pub fn telling(self, tell: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        Self { tell: Arc::new(tell), ..self }
    }

    /// The same, with this for the time that the broker is away.
    #[must_use]
    pub fn if_away(self, if_away: IfAway) -> Self {
        Self { if_away, ..self }
    }

    /// Looks, and does what is due. Where the session then belongs to another model than the message is for, the message
    /// is for that one, unless it names whom it wants.
    async fn before(&self, ask: &mut Ask) -> Result<(), Error> {
        let Some(session) = ask.session() else { return Ok(()) };
        let check = match self.client.check_handoff(session.as_str(), false).await {
            Err(error) if error.reason() == Some("UNCOUNTED_SESSION") => return Ok(()),
            check => check?,
        };
        let (due, mut owner) = (Due::of(&check), check.model.clone());
        if self.told.is_news(&session, &owner, due) {
            (self.tell)(Notice::Level { due, check: Box::new(check.clone()) });
        }
        if due == Due::Move && self.reach == Reach::Move {
            match self.hand_over(&session, check.detail).await {
                Ok(to) => owner = to,
                // The broker knows of nobody better: the owner is asked.
                Err(error @ Error::Refused { .. }) => (self.tell)(Notice::Failed(error)),
                Err(error) => return Err(error),
            }
        } else if due >= Due::Preparation
            && self.reach >= Reach::Prepare
            && !self.told.is_prepared(&session)
        {
            match self.prepare(&session, &owner).await {
                Ok(Some(to)) => {
                    self.told.prepared(&session);
                    (self.tell)(Notice::Prepared { to });
                }
                Ok(None) => {}
                // The question needs none of it.
                Err(error) => (self.tell)(Notice::Failed(error)),
            }
        }
        if ask.to == To::Owner && matches!(ask.message.to, Recipient::Model(_)) {
            ask.message.to = Recipient::Model(owner);
        }
        Ok(())
    }

    /// Opens a bridge to whom the broker would ask first; `None` where nobody could take the session now.
    async fn prepare(
        &self,
        session: &SessionId,
        owner: &ModelName,
    ) -> Result<Option<ModelName>, Error> {
        let status = self.client.handoff_status(Some(session.as_str())).await?;
        let Some(to) = status.sessions.into_iter().find_map(|it| it.to) else { return Ok(None) };
        self.client.open_bridge(session, owner, &to).await?;
        Ok(Some(to))
    }

    /// Hands the session over; gives whom it belongs to then.
    async fn hand_over(&self, session: &SessionId, reason: String) -> Result<ModelName, Error> {
        let ask = AskHandoff {
            session: session.clone(),
            to: None,
            agent: None,
            reason,
            level: None,
            package: None,
            is_forced: false,
            at_once: false,
        };
        let ended = self.client.hand_over(ask, |_| {}).await?;
        let has_moved = matches!(ended.state, HandoffState::Active | HandoffState::Completed);
        let owner = if has_moved { ended.to.clone() } else { ended.from.model.clone() };
        (self.tell)(Notice::Handoff(Box::new(ended)));
        Ok(owner)
    }
}

impl<S> Layer<S> for HandoffLayer {
    type Service = WithHandoffs<S>;

    fn layer(&self, inner: S) -> WithHandoffs<S> {
        WithHandoffs { inner, layer: self.clone() }
    }
}

/// A service of questions with a [`HandoffLayer`] around it.
#[derive(Debug, Clone)]
pub struct WithHandoffs<S> {
    inner: S,
    layer: HandoffLayer,
}

impl<S> Service<Ask> for WithHandoffs<S>
where
    S: Service<Ask> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: From<Error> + Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut ask: Ask) -> Self::Future {
        // The one that was polled ready is the one that is called.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let layer = self.layer.clone();
        Box::pin(async move {
            match layer.before(&mut ask).await {
                Ok(()) => {}
                // What the broker refuses of a look, it says of the question better.
                Err(error) if layer.if_away == IfAway::Fail && error.reason().is_none() => {
                    return Err(error.into());
                }
                Err(error) => (layer.tell)(Notice::Failed(error)),
            }
            inner.call(ask).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_follows_from_the_checks_level() {
        let check = |level: &str, want| {
            let check = HandoffCheck {
                should_handoff: false,
                reason: String::new(),
                level: level.to_owned(),
                confidence: 0.0,
                urgency: broker_proto::Urgency::Low,
                session: "s".to_owned(),
                model: ModelName::parse("opus").unwrap(),
                tokens: 0,
                context_window: 1,
                warning_threshold: 0,
                switch_threshold: 1,
                detail: String::new(),
            };
            assert_eq!(Due::of(&check), want, "{level}");
        };
        check("HEALTHY", Due::Nothing);
        check("WARNING", Due::Warning);
        check("CRITICAL", Due::Preparation);
        check("EXHAUSTED", Due::Move);
    }
}
