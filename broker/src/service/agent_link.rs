//! `AgentLinkService`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use broker_proto::{Extension, FrameCounter, Pull, Settlement, Up, convert::InvalidField, pb};

use super::{Caller, reason};
use crate::link;

/// Frames between a link and its stream; what does not fit waits in the link's own channel.
const WIRE: usize = 128;
/// Settlements of one call.
const SETTLEMENTS: usize = 1000;

/// Opens links.
#[derive(Debug)]
pub struct AgentLinkService {
    pub services: link::Services,
    pub tasks: TaskTracker,
}

fn locked(counter: &Mutex<FrameCounter>) -> MutexGuard<'_, FrameCounter> {
    counter.lock().unwrap_or_else(PoisonError::into_inner)
}

type Responses = futures::stream::BoxStream<'static, Result<pb::ConnectResponse, Status>>;

#[tonic::async_trait]
impl pb::agent_link_service_server::AgentLinkService for AgentLinkService {
    type ConnectStream = Responses;

    async fn connect(
        &self,
        request: Request<Streaming<pb::ConnectRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let counter = Arc::<Mutex<FrameCounter>>::default();
        let said = Arc::clone(&counter);
        let frames = request.into_inner().map(move |frame| {
            let frame = frame?;
            locked(&counter).hear(frame.stamp()).map_err(reason::frame_gap)?;
            Ok(Up::try_from(frame)?)
        });
        let (wire, down) = mpsc::channel(WIRE);
        self.tasks.spawn(link::run(self.services.clone(), Box::pin(frames), wire));
        let down = ReceiverStream::new(down).map(move |frame| {
            frame.map(|frame| pb::ConnectResponse::from(frame).stamped(locked(&said).say()))
        });
        Ok(Response::new(down.boxed()))
    }

    async fn pull_messages(
        &self,
        request: Request<pb::PullMessagesRequest>,
    ) -> Result<Response<pb::PullMessagesResponse>, Status> {
        let agent = Caller::of(&request).agent()?;
        let pull = Pull::try_from(request.into_inner())?;
        let (answer, pulled) = oneshot::channel();
        // Not part of the call, so that a caller who leaves takes no lease with it.
        self.tasks.spawn(self.services.clone().pull(agent, pull, answer));
        let deliveries = pulled.await.map_err(|_| reason::stopping())??;
        let deliveries = deliveries.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::PullMessagesResponse { deliveries }))
    }

    async fn settle_messages(
        &self,
        request: Request<pb::SettleMessagesRequest>,
    ) -> Result<Response<pb::SettleMessagesResponse>, Status> {
        let agent = Caller::of(&request).agent()?;
        let settlements = request.into_inner().settlements;
        if settlements.len() > SETTLEMENTS {
            let problem = format!("are more than {SETTLEMENTS}");
            return Err(InvalidField::new("settlements", problem).into());
        }
        let settlements: Result<Vec<_>, _> =
            settlements.into_iter().map(Settlement::try_from).collect();
        let settled = self.services.settle_pulled(&agent, settlements?).await;
        let results = settled.into_iter().map(Into::into).collect();
        Ok(Response::new(pb::SettleMessagesResponse { results }))
    }

    async fn extend_lease(
        &self,
        request: Request<pb::ExtendLeaseRequest>,
    ) -> Result<Response<pb::ExtendLeaseResponse>, Status> {
        let agent = Caller::of(&request).agent()?;
        let Extension { lease, by } = request.into_inner().try_into()?;
        let left = self.services.extend(agent, &lease, by).await?;
        Ok(Response::new(left.into()))
    }
}
