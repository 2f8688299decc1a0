//! A broker for tests: real gRPC on a real socket, and every word of it said by the test.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use broker_proto::{
    AnswerFrame, ContentHash, Delivery, Down, FrameCounter, Hello, Message, MessageId, ModelName,
    Part, Payload, SettledFrame, Settlement, Up, Welcome, convert::encode_part, pb,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use tempfile::TempDir;
use tokio::{net::UnixListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::Endpoint;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Waits for what must come; a test that hangs fails instead.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it comes within 20 s")
}

/// A delivery to opus with an empty question, under this lease.
pub(crate) fn delivery(lease: &str) -> Delivery {
    let model = ModelName::parse("opus").unwrap();
    let payload = Payload { request: vec![Part::text("")], ..Payload::default() };
    Delivery {
        lease: lease.into(),
        number: 7,
        size_bytes: 0,
        message: Message::consultation(MessageId::from_u128(1), model.clone(), payload),
        attempt: 1,
        model: Some(model),
        time_left: Duration::from_secs(60),
        max_output_tokens: None,
        exchanges: Vec::new(),
        lease_left: Duration::from_secs(60),
        generation: 1,
    }
}

pub(crate) struct FakeBroker {
    dir: TempDir,
    links: mpsc::Receiver<FakeLink>,
    script: Arc<Script>,
    service: Service,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What the services say, and what they were given.
#[derive(Default)]
pub(crate) struct Script {
    pub(crate) answer: Mutex<Vec<AnswerFrame>>,
    pub(crate) asked: Mutex<Vec<pb::ModelMessage>>,
    pub(crate) content: Mutex<HashMap<Bytes, Vec<u8>>>,
    /// Whether the stream stays open behind the answer.
    pub(crate) stays: AtomicBool,
    /// Bytes of each chunk that came up.
    pub(crate) chunks: Mutex<Vec<usize>>,
}

#[derive(Clone)]
struct Service {
    links: mpsc::Sender<FakeLink>,
    script: Arc<Script>,
}

impl FakeBroker {
    pub(crate) fn start() -> Self {
        let (tx, links) = mpsc::channel(8);
        let script = Arc::<Script>::default();
        let service = Service { links: tx, script: script.clone() };
        let dir = TempDir::new().unwrap();
        let (stop, tasks) = Default::default();
        let mut broker = Self { dir, links, script, service, stop, tasks };
        broker.listen();
        broker
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::unix(self.dir.path().join("b.sock"))
    }

    pub(crate) fn script(&self) -> &Script {
        &self.script
    }

    /// The next link that an agent opens.
    pub(crate) async fn link(&mut self) -> FakeLink {
        soon(self.links.recv()).await.unwrap()
    }

    /// Stores a part as if it had been uploaded before.
    pub(crate) fn keep(&self, part: Part) -> Part {
        let bytes = encode_part(part);
        let hash = ContentHash::of(&bytes);
        let kept = Part::Ref(broker_proto::PartRef { hash, size_bytes: bytes.len() as u64 });
        self.script.content.lock().unwrap().insert(hash.0.to_vec().into(), bytes.to_vec());
        kept
    }

    /// Stops listening, and ends every connection that has no call any more.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        self.tasks.close();
        soon(self.tasks.wait()).await;
        std::fs::remove_file(self.endpoint().socket()).unwrap();
    }

    pub(crate) fn listen(&mut self) {
        use pb::{
            agent_link_service_server::AgentLinkServiceServer as LinkServer,
            consult_service_server::ConsultServiceServer as ConsultServer,
            content_service_server::ContentServiceServer as ContentServer,
        };
        self.stop = CancellationToken::new();
        self.tasks.reopen();
        let listener = UnixListener::bind(self.endpoint().socket()).unwrap();
        let router = Server::builder()
            .add_service(LinkServer::new(self.service.clone()))
            .add_service(ConsultServer::new(self.service.clone()))
            .add_service(ContentServer::new(self.service.clone()));
        let stop = self.stop.clone().cancelled_owned();
        let incoming = UnixListenerStream::new(listener);
        self.tasks.spawn(async move {
            router.serve_with_incoming_shutdown(incoming, stop).await.unwrap();
        });
    }
}

/// The broker's end of one link. Dropping it ends the call.
pub(crate) struct FakeLink {
    up: Streaming<pb::ConnectRequest>,
    pub(crate) counter: FrameCounter,
    down: mpsc::Sender<Result<pb::ConnectResponse, Status>>,
}

impl FakeLink {
    /// Reads the hello and answers it; every lease named still holds.
    pub(crate) async fn welcome(&mut self) -> Hello {
        self.welcome_with(|hello| hello.resume.clone(), Duration::from_secs(3600)).await
    }

    pub(crate) async fn welcome_with(
        &mut self,
        resumed: impl FnOnce(&Hello) -> Vec<String>,
        heartbeat: Duration,
    ) -> Hello {
        let Up::Hello(hello) = self.hear().await else { panic!("the first frame is a hello") };
        let resumed = resumed(&hello);
        let lease = heartbeat * 3;
        let link = "l1".to_owned();
        let resume_token = "resume-1".to_owned();
        self.say(Down::Welcome(Welcome {
            link,
            epoch: 1,
            heartbeat,
            lease,
            resumed,
            resume_token,
        }))
        .await;
        hello
    }

    pub(crate) async fn say(&mut self, down: Down) {
        let frame = pb::ConnectResponse::from(down).stamped(self.counter.say());
        self.down.send(Ok(frame)).await.unwrap();
    }

    pub(crate) async fn deliver(&mut self, delivery: Delivery) {
        self.say(Down::Deliver(Box::new(delivery))).await;
    }

    /// Ends the call with this status.
    pub(crate) async fn refuse(self, status: Status) {
        self.down.send(Err(status)).await.unwrap();
    }

    /// The next frame up.
    pub(crate) async fn hear(&mut self) -> Up {
        let frame = soon(self.up.message()).await.unwrap().unwrap();
        self.counter.hear(frame.stamp()).unwrap();
        frame.try_into().unwrap()
    }

    /// The next frame that is not credit.
    pub(crate) async fn hear_work(&mut self) -> Up {
        loop {
            match self.hear().await {
                Up::Credit { .. } => {}
                up => return up,
            }
        }
    }

    /// The next settlements, whatever comes before them.
    pub(crate) async fn settlements(&mut self) -> Vec<Settlement> {
        loop {
            if let Up::Settle(settlements) = self.hear().await {
                return settlements;
            }
        }
    }

    pub(crate) async fn settled(&mut self, lease: &str) {
        self.say(Down::Settled(SettledFrame {
            lease: lease.into(),
            refused: None,
            is_repeated: false,
        }))
        .await;
    }

    /// Whether the agent closed its side.
    pub(crate) async fn is_closed(&mut self) -> bool {
        matches!(soon(self.up.message()).await, Ok(None) | Err(_))
    }
}

#[tonic::async_trait]
impl pb::agent_link_service_server::AgentLinkService for Service {
    type ConnectStream = ReceiverStream<Result<pb::ConnectResponse, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<pb::ConnectRequest>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let (down, frames) = mpsc::channel(64);
        let link = FakeLink { up: request.into_inner(), counter: FrameCounter::default(), down };
        self.links.send(link).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(frames)))
    }

    async fn pull_messages(
        &self,
        _: Request<pb::PullMessagesRequest>,
    ) -> Result<Response<pb::PullMessagesResponse>, Status> {
        Err(Status::unimplemented("links only"))
    }

    async fn settle_messages(
        &self,
        _: Request<pb::SettleMessagesRequest>,
    ) -> Result<Response<pb::SettleMessagesResponse>, Status> {
        Err(Status::unimplemented("links only"))
    }

    async fn extend_lease(
        &self,
        _: Request<pb::ExtendLeaseRequest>,
    ) -> Result<Response<pb::ExtendLeaseResponse>, Status> {
        Err(Status::unimplemented("links only"))
    }
}

#[tonic::async_trait]
impl pb::content_service_server::ContentService for Service {
    type FetchContentStream = Replies<pb::FetchContentResponse>;

    async fn upload_chunk(
        &self,
        request: Request<pb::UploadChunkRequest>,
    ) -> Result<Response<pb::UploadChunkResponse>, Status> {
        let request = request.into_inner();
        self.script.chunks.lock().unwrap().push(request.chunk.len());
        let mut content = self.script.content.lock().unwrap();
        let kept = content.entry(request.hash).or_default();
        assert_eq!(kept.len() as u64, request.offset, "chunks come in order");
        kept.extend_from_slice(&request.chunk);
        let received_bytes = kept.len() as u64;
        let complete = received_bytes == request.size_bytes;
        Ok(Response::new(pb::UploadChunkResponse { received_bytes, complete }))
    }

    async fn fetch_content(
        &self,
        request: Request<pb::FetchContentRequest>,
    ) -> Result<Response<Self::FetchContentStream>, Status> {
        let content = self.script.content.lock().unwrap();
        let kept = content.get(&request.into_inner().hash);
        let kept = kept.ok_or_else(|| Status::not_found("no such content"))?;
        let chunks: Vec<_> = kept
            .chunks(1000)
            .map(|chunk| Ok(pb::FetchContentResponse { chunk: Bytes::copy_from_slice(chunk) }))
            .collect();
        Ok(Response::new(futures::stream::iter(chunks).boxed()))
    }

    async fn find_missing(
        &self,
        request: Request<pb::FindMissingRequest>,
    ) -> Result<Response<pb::FindMissingResponse>, Status> {
        let content = self.script.content.lock().unwrap();
        let mut missing = request.into_inner().hashes;
        missing.retain(|hash| !content.contains_key(hash));
        Ok(Response::new(pb::FindMissingResponse { missing }))
    }
}

#[tonic::async_trait]
impl pb::consult_service_server::ConsultService for Service {
    type AskStream = Replies<pb::AskResponse>;
    type AttachStream = Replies<pb::AttachResponse>;

    async fn ask(
        &self,
        request: Request<pb::AskRequest>,
    ) -> Result<Response<Self::AskStream>, Status> {
        self.script.asked.lock().unwrap().extend(request.into_inner().message);
        let frames = self.script.answer.lock().unwrap().clone();
        let replies =
            frames.into_iter().map(|frame| Ok(pb::AskResponse { frame: Some(frame.into()) }));
        let replies = futures::stream::iter(replies);
        Ok(Response::new(match self.script.stays.load(Ordering::Relaxed) {
            true => replies.chain(futures::stream::pending()).boxed(),
            false => replies.boxed(),
        }))
    }

    async fn attach(
        &self,
        _: Request<pb::AttachRequest>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn submit_consultation(
        &self,
        _: Request<pb::SubmitConsultationRequest>,
    ) -> Result<Response<pb::SubmitConsultationResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn poll_consultation(
        &self,
        _: Request<pb::PollConsultationRequest>,
    ) -> Result<Response<pb::PollConsultationResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }

    async fn explain_route(
        &self,
        _: Request<pb::ExplainRouteRequest>,
    ) -> Result<Response<pb::ExplainRouteResponse>, Status> {
        Err(Status::unimplemented("not in these tests"))
    }
}
