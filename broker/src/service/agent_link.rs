//! `AgentLinkService`.

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use broker_proto::{Up, pb};

use crate::link;

/// Frames between a link and its stream; what does not fit waits in the link's own channel.
const WIRE: usize = 16;

/// Opens links.
#[derive(Debug)]
pub struct AgentLinkService {
    pub services: link::Services,
    pub tasks: TaskTracker,
}

type Responses = futures::stream::BoxStream<'static, Result<pb::ConnectResponse, Status>>;

#[tonic::async_trait]
impl pb::agent_link_service_server::AgentLinkService for AgentLinkService {
    type ConnectStream = Responses;

    async fn connect(
        &self,
        request: Request<Streaming<pb::ConnectRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let frames = request.into_inner().map(|frame| Ok(Up::try_from(frame?)?));
        let (wire, down) = mpsc::channel(WIRE);
        self.tasks.spawn(link::run(self.services.clone(), Box::pin(frames), wire));
        let down = ReceiverStream::new(down).map(|frame| frame.map(Into::into));
        Ok(Response::new(down.boxed()))
    }
}
