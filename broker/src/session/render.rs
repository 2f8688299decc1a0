//! A session in words, for whoever reads it next.

use broker_proto::{
    Entry, ModelName, Part, RenderAsk, Rendering, Role, SessionDetail, SessionEntry, SessionHead,
    SessionHistory, SessionId, SessionPoint,
};

use std::sync::Arc;

use super::{Error, Sessions};
use crate::context::{
    Indexed, Receiver, Said,
    bound::{apart_for, for_receiver},
    history::{Plan, plan},
    render::{Ask, Beside, Missing, View, render_beside},
};
use crate::core::session::task;

/// A rendering that somebody waits for.
pub(super) struct Wanted {
    pub(super) detail: SessionDetail,
    pub(super) receiver: Receiver,
    pub(super) ask: RenderAsk,
}

impl Sessions {
    /// The session at a point as one text for its reader.
    ///
    /// # Errors
    /// [`Error`] when there is no such session, point or reader, or when the budget does not hold what must be kept.
    pub async fn render(
        &self,
        id: &SessionId,
        at: &SessionPoint,
        ask: RenderAsk,
    ) -> Result<Rendering, Error> {
        let detail = self.detail(id, at).await?;
        self.render_this(detail, ask).await
    }

    /// The same of a session that was read before.
    ///
    /// # Errors
    /// As [`Sessions::render`].
    pub async fn render_this(
        &self,
        mut detail: SessionDetail,
        ask: RenderAsk,
    ) -> Result<Rendering, Error> {
        let reader = ask.reader.clone().unwrap_or_else(|| detail.info.owner.model.clone());
        let receiver = self.receiver_of(&mut detail, &reader)?;
        let wanted = Arc::new(Wanted { detail, receiver, ask });
        match wanted.ask.summary {
            // Rare and large: not a part of every rendering that waits.
            true => Box::pin(self.with_summary(&wanted)).await,
            false => Ok(self.rendered(&wanted, 0, String::new()).await?.0),
        }
    }

    /// What is wanted with this text beside it, for which so many tokens are kept free; and how many were.
    pub(super) async fn rendered(
        &self,
        wanted: &Arc<Wanted>,
        tokens: u64,
        text: String,
    ) -> Result<(Rendering, u64), Error> {
        let info = &wanted.detail.info;
        let indexed = self.indexed(&info.id, info.head).await?;
        // The first count of a tokenizer, and many turns at once, take longer than others may wait.
        let work = Arc::clone(wanted);
        let rendering = tokio::task::spawn_blocking(move || {
            let rendering = rendered(&work, &indexed, Beside { tokens, text: &text });
            (rendering, indexed)
        });
        let (rendering, indexed) = rendering.await.map_err(|_| Error::Stopped)?;
        self.indexes.keep(info.id.clone(), indexed);
        rendering
    }

    /// The conversation at a point as the wire of its reader takes it: whole where it fits, else a rendering and the
    /// newest turns. What is large stays named by its hash.
    ///
    /// # Errors
    /// [`Error`] when there is no such session, point or reader, or when the window holds nothing beside `next`.
    pub async fn history(
        &self,
        id: &SessionId,
        at: &SessionPoint,
        reader: Option<ModelName>,
        next: String,
    ) -> Result<SessionHistory, Error> {
        self.history_within(id, at, reader, next, None).await
    }

    /// The same within so many tokens, beside `next`.
    ///
    /// # Errors
    /// As [`Sessions::history`].
    pub async fn history_within(
        &self,
        id: &SessionId,
        at: &SessionPoint,
        reader: Option<ModelName>,
        next: String,
        most: Option<u64>,
    ) -> Result<SessionHistory, Error> {
        let mut detail = self.detail(id, at).await?;
        let head = detail.info.head;
        let reader = reader.unwrap_or_else(|| detail.info.owner.model.clone());
        let mut receiver = self.receiver_of(&mut detail, &reader)?;
        if let Some(most) = most {
            let most = most.saturating_add(receiver.tokenizer.count(&next));
            receiver.room = receiver.room.min(most);
        }
        if let Some(taken_over) = self.taken_over(&detail, &receiver, &next).await? {
            return Ok(taken_over);
        }
        let said = self.said_until(id, head).await?;
        let indexed = self.indexed(id, head).await?;
        let history = tokio::task::spawn_blocking(move || {
            let history = made(&detail, &indexed, &receiver, (said.light(), said.whole()), &next);
            (history, indexed)
        });
        let (history, indexed) = history.await.map_err(|_| Error::Stopped)?;
        self.indexes.keep(id.clone(), indexed);
        history
    }

    /// The model of this name as one that reads.
    ///
    /// # Errors
    /// [`Error`] when there is no such model.
    pub fn receiver(&self, reader: &ModelName) -> Result<Receiver, Error> {
        let name = self.intake.model(reader)?;
        let model = self.intake.models.get(name.as_str()).ok_or(Error::NoModel)?;
        Ok(Receiver::of(model))
    }

    /// The same as one that reads this session: its own model has others' turns to check, and does that first.
    fn receiver_of(
        &self,
        detail: &mut SessionDetail,
        reader: &ModelName,
    ) -> Result<Receiver, Error> {
        let mut receiver = self.receiver(reader)?;
        let unverified = detail.info.unverified.as_ref();
        receiver.unverified = unverified.filter(|of| of.home.as_str() == receiver.model).cloned();
        if let Some(unverified) = &receiver.unverified {
            task::check_first(&mut detail.task, unverified);
        }
        Ok(receiver)
    }

    /// The turns that this reader has to check, with who wrote each; checking them is its first step from here on.
    ///
    /// # Errors
    /// [`Error`] when they cannot be read.
    pub(crate) async fn unverified(
        &self,
        detail: &mut SessionDetail,
        reader: &ModelName,
    ) -> Result<Vec<(u64, String)>, Error> {
        let Some(unverified) = self.receiver_of(detail, reader)?.unverified else {
            return Ok(Vec::new());
        };
        let entries = self.entries_from(detail.info.head, unverified.from).await?;
        let written =
            entries.iter().filter_map(|it| Some((it.number, unverified.writer(it)?.to_owned())));
        Ok(written.collect())
    }

    /// All entries up to `head`; of those that are kept of the session, only what is new is read.
    async fn said_until(&self, id: &SessionId, head: SessionHead) -> Result<Arc<Said>, Error> {
        let kept = self.said.get(id).filter(|kept| kept.head().entries <= head.entries);
        if let Some(kept) = kept {
            if kept.head() == head {
                return Ok(kept);
            }
            let from = kept.head().entries;
            let new = self.entries_from(head, from).await?;
            let mut grown = Said::clone(&kept);
            // The first new one says whether they follow; an earlier head may have been left for another.
            if !new.is_empty() && new.first().is_some_and(|it| it.previous == kept.head().hash) {
                let whole = self.made_whole(new.clone()).await?;
                if grown.grow(new, whole) {
                    let grown = Arc::new(grown);
                    self.said.keep(id.clone(), Arc::clone(&grown));
                    return Ok(grown);
                }
            }
        }
        let light = self.entries(head).await?;
        let whole = self.made_whole(light.clone()).await?;
        let mut said = Said::default();
        let follows = said.grow(light, whole);
        debug_assert!(follows, "entries of one head follow one another");
        let said = Arc::new(said);
        self.said.keep(id.clone(), Arc::clone(&said));
        Ok(said)
    }

    /// An index of all entries up to `head`, grown from what is kept of the session.
    async fn indexed(&self, id: &SessionId, head: SessionHead) -> Result<Indexed, Error> {
        let kept = self.indexes.take(id).filter(|kept| kept.head().entries <= head.entries);
        if let Some(kept) = kept {
            let new = self.whole_entries_from(head, kept.head().entries).await?;
            // An index of as many entries as there are is of these, or of another head's.
            if !new.is_empty() || kept.head() == head {
                let (grown, is_its) = grown(kept, new).await?;
                if is_its {
                    return Ok(grown);
                }
            }
        }
        let all = self.whole_entries(head).await?;
        Ok(grown(Indexed::default(), all).await?.0)
    }
}

/// The history of `entries`, as they are stored and with everything in its place.
fn made(
    detail: &SessionDetail,
    indexed: &Indexed,
    receiver: &Receiver,
    (light, whole): (&[SessionEntry], &[SessionEntry]),
    next: &str,
) -> Result<SessionHistory, Error> {
    let SessionDetail { task, shared, .. } = detail;
    let view = View { task, shared, turns: indexed.index() };
    let of = |from: usize, to: usize| apart_for(&light[from..to], &whole[from..to], receiver);
    let (rendering, system, from) = match plan(&view, whole, receiver, next)? {
        Plan::All => (None, 0, 0),
        Plan::Part { rendering, system, from } => (Some(rendering), system, from),
    };
    let sent = [of(0, system), of(from, whole.len())].concat();
    let mut entries = for_receiver(&sent, receiver);
    let rendering = rendering.map(|mut rendering| {
        let parts = vec![Part::Text(std::mem::take(&mut rendering.text))];
        let behind = entries.iter().take_while(|entry| entry.role == Role::System).count();
        entries.insert(behind, Entry { role: Role::User, name: String::new(), parts });
        rendering
    });
    Ok(SessionHistory { entries, rendering, is_taken_over: false })
}

/// The index with what is new, and whether that followed it.
async fn grown(mut indexed: Indexed, new: Vec<SessionEntry>) -> Result<(Indexed, bool), Error> {
    let grown = tokio::task::spawn_blocking(move || {
        let is_its = indexed.grow(&new);
        (indexed, is_its)
    });
    grown.await.map_err(|_| Error::Stopped)
}

fn rendered(
    wanted: &Wanted,
    indexed: &Indexed,
    beside: Beside<'_>,
) -> Result<(Rendering, u64), Error> {
    let Wanted { detail: SessionDetail { task, shared, .. }, receiver, ask } = wanted;
    let missing = if ask.allow_missing { Missing::Listed } else { Missing::Refused };
    let ask = Ask {
        receiver,
        level: ask.level,
        budget: ask.budget,
        next: Some(ask.next.as_str()),
        missing,
    };
    Ok(render_beside(&View { task, shared, turns: indexed.index() }, &ask, beside)?)
}
