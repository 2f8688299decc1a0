//! An agent that takes sessions over, as the wire sees it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::Context;
use broker_proto::{
    AcceptHandoff, AgentName, Delivery, Down, HandoffOffer, MessageId, ModelName, Part, SessionId,
    Up, pb,
};
use pb::handoff_service_client::HandoffServiceClient;
use tokio::{sync::mpsc, task::JoinSet};
use tonic::transport::Channel;

use crate::{
    brokerd::Brokerd,
    progress,
    wire::{self, Link},
};

/// Nothing here takes as long.
const WITHIN: Duration = Duration::from_secs(30);

/// One agent of one model.
pub(super) struct Receiver {
    orders: mpsc::Sender<Up>,
    news: mpsc::UnboundedReceiver<(Instant, Down)>,
    /// What came while something else was waited for.
    kept: VecDeque<(Instant, Down)>,
    handoffs: HandoffServiceClient<Channel>,
    link: JoinSet<anyhow::Result<()>>,
}

impl Receiver {
    pub(super) async fn join(broker: &Brokerd, name: &str, model: &str) -> anyhow::Result<Self> {
        let channel = wire::channel(&broker.endpoint()).await?;
        let (name, model) = (AgentName::parse(name)?, ModelName::parse(model)?);
        let link = Link::greet_for(&channel, &name, vec![model]).await?;
        let (orders, ordered) = mpsc::channel(64);
        let (told, news) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(link.carry(ordered, told));
        let handoffs = HandoffServiceClient::new(channel);
        Ok(Self { orders, news, kept: VecDeque::new(), handoffs, link: tasks })
    }

    /// The first frame that `wanted` takes; the others wait.
    async fn hear<T>(
        &mut self,
        wanted: impl Fn(&Down) -> Option<T>,
        what: &'static str,
    ) -> anyhow::Result<(Instant, T)> {
        if let Some(place) = self.kept.iter().position(|(_, down)| wanted(down).is_some())
            && let Some((at, down)) = self.kept.remove(place)
            && let Some(found) = wanted(&down)
        {
            return Ok((at, found));
        }
        loop {
            let heard = tokio::time::timeout(WITHIN, self.news.recv()).await;
            let (at, down) = heard.context(what)?.context("the link is gone")?;
            match wanted(&down) {
                Some(found) => return Ok((at, found)),
                None if matches!(down, Down::Offer(_) | Down::Deliver(_)) => {
                    self.kept.push_back((at, down));
                }
                None => {}
            }
        }
    }

    /// The offer of this session, and when it came.
    pub(super) async fn offer(
        &mut self,
        session: &SessionId,
    ) -> anyhow::Result<(Instant, HandoffOffer)> {
        let wanted = |down: &Down| match down {
            Down::Offer(offer) if offer.session == *session => Some((*offer).clone()),
            _ => None,
        };
        self.hear(wanted, "no offer comes").await
    }

    /// The delivery of this message.
    pub(super) async fn delivery(&mut self, id: MessageId) -> anyhow::Result<(Delivery, Instant)> {
        let wanted = |down: &Down| match down {
            Down::Deliver(delivery) if delivery.message.id == id => Some(Delivery::clone(delivery)),
            _ => None,
        };
        let (at, delivery) = self.hear(wanted, "no delivery comes").await?;
        Ok((delivery, at))
    }

    pub(super) async fn accept(
        &mut self,
        offer: &HandoffOffer,
        manifest: [u8; 32],
    ) -> anyhow::Result<()> {
        let confirmed = vec!["task".to_owned(), "conversation".to_owned()];
        let accept = AcceptHandoff { id: offer.handoff, manifest, confirmed };
        self.handoffs.accept_handoff(pb::AcceptHandoffRequest::from(accept)).await?;
        Ok(())
    }

    pub(super) async fn answer(&self, lease: String, text: &str) -> anyhow::Result<()> {
        let settlement = wire::answer(lease, vec![Part::text(text)]);
        self.orders.send(Up::Settle(vec![settlement])).await.context("the link is gone")
    }

    /// Ends the link, and says what went wrong with it.
    pub(super) async fn leave(self) -> anyhow::Result<()> {
        let Self { orders, news, mut link, .. } = self;
        drop((orders, news));
        while let Some(ended) = link.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Takes over every session that is offered and answers every turn with its id, until it is dropped.
    pub(super) async fn take_all(mut self) -> anyhow::Result<()> {
        loop {
            let (_, down) = self.news.recv().await.context("the link is gone")?;
            match down {
                Down::Offer(offer) => {
                    // Its session may be deleted, or the offer too old.
                    if let Err(error) = self.accept(&offer, offer.manifest).await {
                        progress(&format!("not accepted: {error:#}"));
                    }
                }
                Down::Deliver(delivery) => {
                    let text = format!("answer to {}", delivery.message.id);
                    self.answer(delivery.lease, &text).await?;
                }
                Down::Settled(settled) => {
                    // A turn that went to the new owner meanwhile is answered there.
                    if let Some(refused) = settled.refused {
                        progress(&format!("not settled: {}", refused.reason));
                    }
                }
                _ => {}
            }
        }
    }
}
