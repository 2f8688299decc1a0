//! Usage: what was used and is left, the ledger, and the settings that make levels of it.

use std::{collections::BTreeMap, pin::Pin};

use broker_proto::{
    LedgerFilter, LedgerLine, LevelChange, LimitForecast, ModelName, ModelUsage, UsageRecord,
    UsageSetting, UsageStatus, pb,
};
use tokio_stream::{Stream, StreamExt as _};

use crate::{Client, Error, Page, each, required, watch::Watch};

/// Whose figures begin anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UsageScope {
    Namespace,
    Key(String),
    Model(ModelName),
    Session(String),
}

/// One item of a watch of usage. `cursor` continues behind it.
#[derive(Debug, Clone, PartialEq)]
pub enum UsageItem {
    /// How things are; the first item of a watch that begins now.
    Status {
        cursor: String,
        status: Box<UsageStatus>,
    },
    Change {
        cursor: String,
        change: Box<LevelChange>,
    },
    /// What was before `cursor` is no longer kept.
    Gap {
        cursor: String,
    },
}

/// The items of a watch of usage.
pub type UsageStream = Pin<Box<dyn Stream<Item = Result<UsageItem, Error>> + Send>>;

impl Client {
    /// What every model has used and has left.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn usage(&self) -> Result<Vec<ModelUsage>, Error> {
        Ok(self.usage_status(None).await?.models)
    }

    /// What every model and key has used and has left, and the sessions heard of last; or the one session named.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn usage_status(&self, session: Option<&str>) -> Result<UsageStatus, Error> {
        let session = session.unwrap_or_default().to_owned();
        let request = self.unary_request(pb::GetUsageStatusRequest { session })?;
        Ok(self.reply(self.usages().get_usage_status(request).await)?.try_into()?)
    }

    /// Counts what is known of a call that was made outside the broker; gives the model it was counted for.
    ///
    /// # Errors
    /// [`Error::Refused`] for an unknown model, or figures that are none.
    pub async fn record_usage(
        &self,
        model: Option<&ModelName>,
        session: Option<&str>,
        what: UsageRecord,
    ) -> Result<String, Error> {
        let request = self.unary_request(pb::RecordUsageRequest {
            model: model.map(ToString::to_string).unwrap_or_default(),
            session: session.unwrap_or_default().to_owned(),
            what: Some(what.into()),
        })?;
        Ok(self.reply(self.usages().record_usage(request).await)?.model)
    }

    /// The status, then every change of a level; behind `cursor` only the changes.
    ///
    /// # Errors
    /// [`Error::Refused`] when the cursor is not one.
    pub async fn watch_usage(&self, cursor: Option<String>) -> Result<UsageStream, Error> {
        let cursor = cursor.unwrap_or_default();
        let request = self.request(pb::WatchUsageRequest { cursor }, None)?;
        let items = self.reply(self.usages().watch_usage(request).await)?;
        let client = self.clone();
        Ok(Box::pin(items.map(move |item| {
            let item = item.map_err(|status| client.error(status))?;
            read_item(item)
        })))
    }

    /// As [`Client::watch_usage`], coming back where it broke.
    #[must_use]
    pub fn follow_usage(&self, cursor: Option<String>) -> Watch<UsageItem> {
        let client = self.clone();
        Watch::of_usage(cursor, move |cursor| {
            let client = client.clone();
            Box::pin(async move { client.watch_usage(cursor).await })
        })
    }

    /// When each limit will be reached, as things go; what is reached first comes first.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn usage_forecast(&self) -> Result<Vec<LimitForecast>, Error> {
        let request = self.unary_request(pb::ForecastUsageRequest {})?;
        each(self.reply(self.usages().forecast_usage(request).await)?.limits)
    }

    /// The settings that make levels of usage, as they count now.
    ///
    /// # Errors
    /// What every call may meet.
    pub async fn usage_policy(&self) -> Result<Vec<UsageSetting>, Error> {
        let request = self.unary_request(pb::GetUsagePolicyRequest {})?;
        let reply = self.reply(self.usages().get_usage_policy(request).await)?;
        Ok(reply.settings.into_iter().map(Into::into).collect())
    }

    /// Overrides settings, and lets others be as the file says again; gives all of them as they count now.
    ///
    /// # Errors
    /// [`Error::Refused`] with `INVALID_POLICY` when they would contradict each other; then nothing is changed.
    pub async fn set_usage_policy(
        &self,
        set: BTreeMap<String, String>,
        unset: Vec<String>,
    ) -> Result<Vec<UsageSetting>, Error> {
        let request = self.unary_request(pb::SetUsagePolicyRequest { set, unset })?;
        let reply = self.reply(self.usages().set_usage_policy(request).await)?;
        Ok(reply.settings.into_iter().map(Into::into).collect())
    }

    /// A page of the ledger, the newest line first.
    ///
    /// # Errors
    /// [`Error::Refused`] for an unknown model, or when the page token is not one.
    pub async fn ledger(
        &self,
        filter: LedgerFilter,
        page_size: u32,
        page_token: Option<String>,
    ) -> Result<Page<LedgerLine>, Error> {
        let request = self.unary_request(pb::ListLedgerRequest {
            filter: Some(filter.into()),
            page_size,
            page_token: page_token.unwrap_or_default(),
        })?;
        let reply = self.reply(self.usages().list_ledger(request).await)?;
        let next_page_token = Some(reply.next_page_token).filter(|token| !token.is_empty());
        Ok(Page { items: each(reply.lines)?, next_page_token })
    }

    /// Lets what was counted for one begin anew. The ledger stays.
    ///
    /// # Errors
    /// [`Error::Refused`] for an unknown model, or a session of which nothing was counted.
    pub async fn reset_usage(&self, scope: UsageScope) -> Result<(), Error> {
        use pb::reset_usage_request::Scope as Wire;
        let scope = Some(match scope {
            UsageScope::Namespace => Wire::Namespace(true),
            UsageScope::Key(key) => Wire::Key(key),
            UsageScope::Model(model) => Wire::Model(model.to_string()),
            UsageScope::Session(session) => Wire::Session(session),
        });
        let request = self.unary_request(pb::ResetUsageRequest { scope })?;
        self.reply(self.usages().reset_usage(request).await)?;
        Ok(())
    }
}

fn read_item(wire: pb::WatchUsageResponse) -> Result<UsageItem, Error> {
    use pb::watch_usage_response::Item;
    let cursor = wire.cursor;
    Ok(match required(wire.item, "item")? {
        Item::Status(status) => UsageItem::Status { cursor, status: Box::new(status.try_into()?) },
        Item::Change(change) => UsageItem::Change { cursor, change: Box::new(change.try_into()?) },
        Item::Gap(cursor) => UsageItem::Gap { cursor },
    })
}
