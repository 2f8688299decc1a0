//! `EventService`.

use std::collections::{BTreeMap, HashSet};

use futures::{
    StreamExt,
    stream::{BoxStream, unfold},
};
use tonic::{Request, Response, Status};

use broker_proto::{
    AgentName, EventFilter, EventInfo, EventStart, ModelName, Recipient, convert::InvalidField, pb,
};

use super::{
    Caller, Watches, find, status,
    told::{KINDS, Told, told},
    watch::{Seen, Start},
};
use crate::{
    core::{Accepted, Event, queue::Seq},
    intake::Intake,
};

/// Messages of which one subscription remembers where they belong; the others are looked up again.
const LIVES: usize = 1024;

/// Tells what happens.
#[derive(Debug)]
pub struct EventService {
    pub intake: Intake,
    pub watches: Watches,
}

/// Where a message belongs, which most of its events do not say.
#[derive(Debug, Clone)]
struct Life {
    to: Recipient,
    session: Option<String>,
}

impl From<&Accepted> for Life {
    fn from(accepted: &Accepted) -> Self {
        Self { to: accepted.to.clone(), session: accepted.session.clone() }
    }
}

/// What one subscriber wants, and what is known of the messages it hears of.
#[derive(Debug)]
struct Subscription {
    intake: Intake,
    filter: EventFilter,
    kinds: HashSet<String>,
    message: Option<Seq>,
    lives: BTreeMap<Seq, Life>,
}

impl Subscription {
    /// The item as it goes out, when it is wanted.
    async fn item(
        &mut self,
        seen: Result<Seen, Status>,
    ) -> Option<Result<pb::SubscribeResponse, Status>> {
        use pb::subscribe_response::Item;
        let (cursor, item) = match seen {
            Ok(Seen::Gap { first_cursor }) => {
                (first_cursor.clone(), Item::Gap(pb::WatchGap { first_cursor }))
            }
            Ok(Seen::Event { cursor, event }) => match self.event(&event).await {
                Ok(event) => (cursor, Item::Event(event?.into())),
                Err(status) => return Some(Err(status)),
            },
            Err(status) => return Some(Err(status)),
        };
        Some(Ok(pb::SubscribeResponse { cursor, item: Some(item) }))
    }

    async fn event(&mut self, event: &Event) -> Result<Option<EventInfo>, Status> {
        let Some(told) = told(event) else { return Ok(None) };
        let is_kind = self.kinds.is_empty() || self.kinds.contains(told.kind);
        let seq = told.message.map(|(subject, _)| subject.seq);
        if !is_kind || self.message.is_some_and(|wanted| seq != Some(wanted)) {
            return Ok(None);
        }
        let life = match (event, seq) {
            (_, None) => None,
            (Event::Accepted(accepted), Some(seq)) => {
                Some(self.remember(seq, (&**accepted).into()))
            }
            (_, Some(seq)) => self.life(seq).await?,
        };
        if !wants(&self.filter, &told, life.as_ref()) {
            return Ok(None);
        }
        Ok(Some(EventInfo {
            kind: told.kind.into(),
            at: told.at,
            message: told.message.map(|(subject, state)| (subject.id, state)),
            model: told.model,
            agent: told.agent,
            session: told.session.or_else(|| life.and_then(|life| life.session)),
            detail: told.detail,
        }))
    }

    async fn life(&mut self, seq: Seq) -> Result<Option<Life>, Status> {
        if let Some(life) = self.lives.get(&seq) {
            return Ok(Some(life.clone()));
        }
        let head = self.intake.engine.head();
        let accepted = self.intake.projection.accepted(seq, head).await;
        let accepted = accepted.map_err(|error| status::projection(&error))?;
        Ok(accepted.map(|accepted| self.remember(seq, (&accepted).into())))
    }

    fn remember(&mut self, seq: Seq, life: Life) -> Life {
        if self.lives.len() >= LIVES {
            self.lives.pop_first();
        }
        self.lives.insert(seq, life.clone());
        life
    }
}

fn wants(filter: &EventFilter, told: &Told, life: Option<&Life>) -> bool {
    let to = life.map(|life| &life.to);
    let is_to_model = |model: &ModelName| matches!(to, Some(Recipient::Model(to) | Recipient::AgentsOf(to)) if to == model);
    let is_to_agent = |agent: &AgentName| matches!(to, Some(Recipient::Agent(to)) if to == agent);
    let model = |m: &ModelName| told.model.as_ref() == Some(m) || is_to_model(m);
    let agent = |a: &AgentName| told.agent.as_ref() == Some(a) || is_to_agent(a);
    let session = told.session.as_ref().or(life.and_then(|life| life.session.as_ref()));
    filter.model.as_ref().is_none_or(model)
        && filter.agent.as_ref().is_none_or(agent)
        && (filter.session.is_none() || filter.session.as_ref() == session)
}

fn check_kinds(kinds: &[String]) -> Result<(), InvalidField> {
    match kinds.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        Some(_) => {
            let known = KINDS.join(", ");
            Err(InvalidField::new("filter.kinds", format!("holds a word that is none of {known}")))
        }
        None => Ok(()),
    }
}

#[tonic::async_trait]
impl pb::event_service_server::EventService for EventService {
    type SubscribeStream = BoxStream<'static, Result<pb::SubscribeResponse, Status>>;

    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = Caller::of(&request);
        let request = request.into_inner();
        let filter: EventFilter = request.filter.unwrap_or_default().try_into()?;
        check_kinds(&filter.kinds)?;
        let start = match EventStart::from(request.from) {
            EventStart::Now => self.watches.now(),
            EventStart::First => Start::FIRST,
            EventStart::Behind(cursor) => self.watches.behind(&cursor)?,
        };
        if let Some(name) = &filter.model {
            self.intake.model(name).map_err(status::intake)?;
        }
        if let Some(name) = &filter.agent {
            find::known(&self.intake, &Recipient::Agent(name.clone())).await?;
        }
        let message = match filter.message.clone() {
            Some(name) => Some(find::row(&self.intake, &caller, name).await?.accepted.subject.seq),
            None => None,
        };
        let subscription = Subscription {
            intake: self.intake.clone(),
            kinds: filter.kinds.iter().cloned().collect(),
            message,
            filter,
            lives: BTreeMap::new(),
        };
        let state = (self.watches.from(start), subscription);
        let items = unfold(state, |(mut seen, mut subscription)| async move {
            loop {
                if let Some(item) = subscription.item(seen.next().await?).await {
                    return Some((item, (seen, subscription)));
                }
            }
        });
        Ok(Response::new(items.boxed()))
    }
}
