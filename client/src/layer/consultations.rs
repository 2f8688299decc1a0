//! The service that asks the broker.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use broker_proto::{APPEND_LABEL, Recipient, SessionPoint};
use tower::Service;

use super::{Ask, To};
use crate::{Answer, Append, Client, Error};

/// Asks the broker, as `brokerctl consult --session` does: what the session has said goes along as the asked model takes
/// it, the broker appends question and answer as a turn, and the answer is put together.
///
/// A message that says itself how its answer is appended ([`APPEND_LABEL`]) goes as it is.
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
        let is_put = ask.message.labels.contains_key(APPEND_LABEL);
        let to_model = matches!(ask.message.to, Recipient::Model(_));
        if let Some(session) = ask.session().filter(|_| to_model && !is_put) {
            let detail = client.session(&session, &SessionPoint::Head).await?;
            if ask.to == To::Owner {
                ask.message.to = Recipient::Model(detail.info.owner.model.clone());
            }
            client.ask_in(&detail, &mut ask.message, Append::Turn).await?;
        }
        client.ask(ask.message, ask.options).await?.collect().await
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
