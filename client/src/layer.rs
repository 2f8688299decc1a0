//! A tower layer that looks at a session's level before each question of it, and warns, prepares or moves the session.
//!
//! [`HandoffLayer`] goes around any service of [`Ask`]; [`Consultations`] is the one that asks the broker. What the level
//! means is [`advice`], which decides from the session's figures alone. See `examples/handoff_layer.rs`.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use broker_proto::{
    AskHandoff, AskOptions, Handoff, HandoffState, Message, ModelName, NewPackage, PackageId,
    PreparePackage, Preservation, Recipient, RenderAsk, SessionId, SessionPoint, SessionUsage,
};
use tower::{Layer, Service};

use crate::{Answer, Client, Error};

/// What is best done with a session before its next question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Advice {
    Stay,
    /// Its warning threshold is reached: the next owner is made ready for.
    Warn,
    /// Its switch threshold is reached: it had better move.
    Move,
}

/// What a session's figures say: its thresholds where it has a window, else its level.
#[must_use]
pub fn advice(usage: &SessionUsage) -> Advice {
    let is_over = |threshold: Option<u64>| threshold.is_some_and(|at| usage.tokens >= at);
    match usage.level.level.as_str() {
        _ if is_over(usage.switch_threshold) => Advice::Move,
        "critical" | "exhausted" => Advice::Move,
        _ if is_over(usage.warning_threshold) => Advice::Warn,
        "warning" => Advice::Warn,
        _ => Advice::Stay,
    }
}

/// One question of a session.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Its `session` is looked at; without one it passes as it is.
    pub message: Message,
    pub options: AskOptions,
}

/// How far a layer goes. Each does what the one before it does, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It tells.
    Warn,
    /// From the warning threshold on it has a package made for the next owner, once for each owner.
    Prepare,
    /// At the switch threshold it hands the session over, and the question goes to the new owner.
    Move,
}

/// What a layer tells of.
#[derive(Debug)]
pub enum Notice {
    /// A threshold is reached.
    Level {
        advice: Advice,
        usage: Box<SessionUsage>,
    },
    Prepared {
        package: PackageId,
        to: ModelName,
    },
    /// How the handoff ended: `ACTIVE` or `COMPLETED` where the session moved.
    Handoff(Box<Handoff>),
    /// It could not look, prepare or move; the question is asked all the same.
    Failed(Error),
}

type Tell = Arc<dyn Fn(Notice) + Send + Sync>;

/// Looks at the level of a question's session before it is asked.
#[derive(Clone)]
pub struct HandoffLayer {
    client: Client,
    reach: Reach,
    tell: Tell,
}

impl fmt::Debug for HandoffLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandoffLayer").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl HandoffLayer {
    /// A layer that goes so far, and tells nobody.
    #[must_use]
    pub fn new(client: Client, reach: Reach) -> Self {
        Self { client, reach, tell: Arc::new(|_| {}) }
    }

    /// The same, telling this; it is called before the question is asked, and must not block.
    #[must_use]
    pub fn telling(self, tell: impl Fn(Notice) + Send + Sync + 'static) -> Self {
        Self { tell: Arc::new(tell), ..self }
    }
}

impl<S> Layer<S> for HandoffLayer {
    type Service = WithHandoffs<S>;

    fn layer(&self, inner: S) -> WithHandoffs<S> {
        WithHandoffs { inner, layer: self.clone(), prepared: Arc::default() }
    }
}

/// A service of questions with a [`HandoffLayer`] around it.
#[derive(Debug, Clone)]
pub struct WithHandoffs<S> {
    inner: S,
    layer: HandoffLayer,
    /// The sessions and owners that a package was made for last.
    prepared: Arc<Mutex<Vec<(SessionId, ModelName)>>>,
}

impl<S> Service<Ask> for WithHandoffs<S>
where
    S: Service<Ask> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
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
        let (layer, prepared) = (self.layer.clone(), Arc::clone(&self.prepared));
        Box::pin(async move {
            if let Err(error) = layer.before(&mut ask, &prepared).await {
                (layer.tell)(Notice::Failed(error));
            }
            inner.call(ask).await
        })
    }
}

impl HandoffLayer {
    async fn before(
        &self,
        ask: &mut Ask,
        prepared: &Mutex<Vec<(SessionId, ModelName)>>,
    ) -> Result<(), Error> {
        let Some(session) = ask.message.session.as_deref() else { return Ok(()) };
        let Ok(session) = SessionId::parse(session) else { return Ok(()) };
        let status = match self.client.usage_status(Some(session.as_str())).await {
            Err(error) if error.reason() == Some("UNCOUNTED_SESSION") => return Ok(()),
            status => status?,
        };
        let Some(usage) = status.sessions.into_iter().next() else { return Ok(()) };
        let advice = advice(&usage);
        if advice == Advice::Stay {
            return Ok(());
        }
        let owner = usage.model.clone();
        (self.tell)(Notice::Level { advice, usage: Box::new(usage) });
        if self.reach == Reach::Move && advice == Advice::Move {
            return self.hand_over(&session, ask).await;
        }
        let next = status.models.iter().find(|model| Some(&model.model) == owner.as_ref());
        let next = next.and_then(|model| model.next.clone());
        if let (true, Some(owner), Some(to)) = (self.reach >= Reach::Prepare, owner, next) {
            let of = (session.clone(), owner);
            let is_there = |all: &Vec<_>| all.contains(&of);
            if is_there(&prepared.lock().unwrap_or_else(PoisonError::into_inner)) {
                return Ok(());
            }
            let package = self.prepare(session, to.clone()).await?;
            let mut all = prepared.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|(session, _)| *session != of.0);
            all.push(of);
            (self.tell)(Notice::Prepared { package, to });
        }
        Ok(())
    }

    async fn prepare(&self, session: SessionId, to: ModelName) -> Result<PackageId, Error> {
        let ask =
            RenderAsk { level: Preservation::Complete, reader: Some(to), ..RenderAsk::default() };
        let package = NewPackage { reason: "usage_limit".to_owned(), ..NewPackage::default() };
        let prepare = PreparePackage { session, ask, package };
        Ok(self.client.prepare_package(prepare).await?.0.header.id)
    }

    /// Hands the session over; the question then goes to whom it belongs.
    async fn hand_over(&self, session: &SessionId, ask: &mut Ask) -> Result<(), Error> {
        let begin = AskHandoff {
            session: session.clone(),
            to: None,
            agent: None,
            reason: "its switch threshold is reached".to_owned(),
            level: None,
            package: None,
            is_forced: false,
            at_once: false,
        };
        let begun = self.client.begin_handoff(begin).await?;
        let ended = self.client.settled_handoff(begun.id, |_| {}).await?;
        let has_moved = matches!(ended.state, HandoffState::Active | HandoffState::Completed);
        let was_asked = Recipient::Model(ended.from.model.clone());
        if has_moved && ask.message.to == was_asked {
            ask.message.to = Recipient::Model(ended.to.clone());
        }
        (self.tell)(Notice::Handoff(Box::new(ended)));
        Ok(())
    }
}

/// Asks the broker: what the session has said goes along as the asked model takes it, and the answer is put together.
#[derive(Debug, Clone)]
pub struct Consultations {
    client: Client,
}

impl Consultations {
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    async fn ask(client: Client, mut ask: Ask) -> Result<Answer, Error> {
        let session = ask.message.session.as_deref().and_then(|id| SessionId::parse(id).ok());
        if let (Some(session), Recipient::Model(model), true) =
            (session, &ask.message.to, ask.message.payload.context.is_empty())
        {
            let info = client.session(&session, &SessionPoint::Head).await?.info;
            if info.head.entries > 0 {
                // What comes since belongs to the next question.
                let at = SessionPoint::Version(info.version);
                let next: String = ask.message.payload.request.iter().map(text).collect();
                let history =
                    client.session_history(&session, &at, Some(model.clone()), &next).await?;
                ask.message.payload.context = history.entries;
            }
        }
        client.ask(ask.message, ask.options).await?.collect().await
    }
}

fn text(part: &broker_proto::Part) -> &str {
    match part {
        broker_proto::Part::Text(text) => text,
        _ => "",
    }
}

impl Service<Ask> for Consultations {
    type Response = Answer;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, ask: Ask) -> Self::Future {
        Box::pin(Self::ask(self.client.clone(), ask))
    }
}

#[cfg(test)]
mod tests {
    use broker_proto::UsageLevel;

    use super::*;

    #[test]
    fn thresholds_decide_before_words_do() {
        let check = |tokens, level: &str, want| {
            let level = UsageLevel { level: level.to_owned(), ..UsageLevel::default() };
            let (warning_threshold, switch_threshold) = (Some(160), Some(180));
            let usage = SessionUsage {
                tokens,
                warning_threshold,
                switch_threshold,
                level,
                ..SessionUsage::default()
            };
            assert_eq!(advice(&usage), want, "{tokens}");
        };
        check(159, "healthy", Advice::Stay);
        check(160, "healthy", Advice::Warn);
        check(10, "warning", Advice::Warn);
        check(180, "warning", Advice::Move);
        check(10, "exhausted", Advice::Move);
    }
}
