//! Watches that outlive a restart of the broker: they come back behind the last cursor they saw.

use std::{fmt, pin::Pin};

use broker_proto::types::{EventFilter, EventStart, MessageName};
use futures::future::BoxFuture;
use tokio_stream::{Stream, StreamExt as _};

use crate::{
    Client, Error, EventItem, TaskItem, UsageItem, WatchItem,
    way::{Way, is_passing},
};

type Items<I> = Pin<Box<dyn Stream<Item = Result<I, Error>> + Send>>;
pub(crate) type Opening<I> = BoxFuture<'static, Result<Items<I>, Error>>;
type Open<I> = Box<dyn FnMut(Option<String>) -> Opening<I> + Send>;

/// The next of a watch.
#[derive(Debug)]
pub enum Watched<I> {
    Item(I),
    /// The stream broke; the watch comes back by itself.
    Broken(Error),
    /// It is open again. `is_whole`: it goes on where it broke; otherwise from now on, and what happened between is not
    /// shown, as there was no cursor yet.
    Back {
        is_whole: bool,
    },
}

/// Items of a stream, over breaks of the connection and restarts of the broker.
pub struct Watch<I> {
    open: Open<I>,
    /// Where to go on behind an item; `None` behind a gap, which begins what follows it.
    cursor_of: fn(&I) -> Option<&str>,
    is_last: fn(&I) -> bool,
    items: Option<Items<I>>,
    cursor: Option<String>,
    /// It begins at a place that stays the same, cursor or not.
    is_fixed: bool,
    is_over: bool,
    way: Way,
}

impl<I> fmt::Debug for Watch<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl<I> Watch<I> {
    fn new(
        open: Open<I>,
        cursor: Option<String>,
        is_fixed: bool,
        cursor_of: fn(&I) -> Option<&str>,
        is_last: fn(&I) -> bool,
    ) -> Self {
        let (items, is_over, way) = (None, false, Way::default());
        Self { open, cursor_of, is_last, items, cursor, is_fixed, is_over, way }
    }

    /// The next item, or news of the connection; `None` behind the last. Dropping it in the middle loses nothing.
    ///
    /// # Errors
    /// The broker's refusal, or [`Error::Unreachable`] when it did not come back within [`crate::RETURN_WINDOW`].
    pub async fn next(&mut self) -> Result<Option<Watched<I>>, Error> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            let Some(items) = &mut self.items else {
                if self.come_back().await? {
                    let is_whole = self.is_fixed || self.cursor.is_some();
                    return Ok(Some(Watched::Back { is_whole }));
                }
                continue;
            };
            match items.next().await {
                Some(Ok(item)) => {
                    self.cursor = (self.cursor_of)(&item).map(str::to_owned).or(self.cursor.take());
                    self.is_over = (self.is_last)(&item);
                    return Ok(Some(Watched::Item(item)));
                }
                Some(Err(error)) if !is_passing(&error) => return Err(error),
                Some(Err(error)) => return Ok(Some(self.break_off(error))),
                None => return Ok(Some(self.break_off(Error::EndedEarly))),
            }
        }
    }

    fn break_off(&mut self, error: Error) -> Watched<I> {
        self.items = None;
        self.way.broke();
        Watched::Broken(error)
    }

    /// Opens the stream; true when it was open before.
    async fn come_back(&mut self) -> Result<bool, Error> {
        self.way.rest().await;
        let opened = (self.open)(self.cursor.clone()).await;
        let Some((items, is_back)) = self.way.tried(opened)? else { return Ok(false) };
        self.items = Some(items);
        Ok(is_back)
    }
}

impl Watch<UsageItem> {
    pub(crate) fn of_usage(
        cursor: Option<String>,
        open: impl FnMut(Option<String>) -> Opening<UsageItem> + Send + 'static,
    ) -> Self {
        Self::new(
            Box::new(open),
            cursor,
            true,
            |item| match item {
                UsageItem::Status { cursor, .. } | UsageItem::Change { cursor, .. } => Some(cursor),
                UsageItem::Gap { .. } => None,
            },
            |_| false,
        )
    }
}

impl Client {
    /// As [`Client::watch_task`], coming back where it broke.
    pub fn follow_task(
        &self,
        task: impl Into<MessageName>,
        cursor: Option<String>,
    ) -> Watch<TaskItem> {
        let (client, task) = (self.clone(), task.into());
        let open = move |cursor| -> Opening<TaskItem> {
            let (client, task) = (client.clone(), task.clone());
            Box::pin(async move { client.watch_task(task, cursor).await })
        };
        Watch::new(
            Box::new(open),
            cursor,
            true,
            |item| match item {
                TaskItem::Change { cursor, .. } => Some(cursor),
                TaskItem::Gap { .. } => None,
            },
            |item| matches!(item, TaskItem::Change { change, .. } if change.state.is_terminal()),
        )
    }

    /// As [`Client::watch`], coming back where it broke.
    pub fn follow_messages(
        &self,
        cursor: Option<String>,
        message: Option<MessageName>,
    ) -> Watch<WatchItem> {
        let client = self.clone();
        let is_one = message.is_some();
        let open = move |cursor| -> Opening<WatchItem> {
            let (client, message) = (client.clone(), message.clone());
            Box::pin(async move { client.watch(cursor, message).await })
        };
        let is_end: fn(&WatchItem) -> bool =
            |item| matches!(item, WatchItem::Change { change, .. } if change.state.is_terminal());
        Watch::new(
            Box::new(open),
            cursor,
            is_one,
            |item| match item {
                WatchItem::Change { cursor, .. } => Some(cursor),
                WatchItem::Gap { .. } => None,
            },
            if is_one { is_end } else { |_| false },
        )
    }

    /// As [`Client::subscribe`], coming back where it broke.
    #[must_use]
    pub fn follow_events(&self, start: EventStart, filter: EventFilter) -> Watch<EventItem> {
        let client = self.clone();
        let is_fixed = start != EventStart::Now;
        let open = move |cursor: Option<String>| -> Opening<EventItem> {
            let (client, filter) = (client.clone(), filter.clone());
            let start = cursor.map_or_else(|| start.clone(), EventStart::Behind);
            Box::pin(async move { client.subscribe(start, filter).await })
        };
        Watch::new(
            Box::new(open),
            None,
            is_fixed,
            |item| match item {
                EventItem::Event { cursor, .. } => Some(cursor),
                EventItem::Gap { .. } => None,
            },
            |_| false,
        )
    }
}
