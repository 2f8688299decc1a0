//! `AgentLinkService`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use broker_proto::{FrameCounter, Up, pb};

use super::reason;
use crate::link;

/// Frames between a link and its stream; what does not fit waits in the link's own channel.
const WIRE: usize = 16;

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
}
