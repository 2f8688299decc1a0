//! One connection of a link, from its hello to its end.

use std::time::Duration;

use broker_proto::{Down, FrameCounter, Hello, Up, Welcome, convert::InvalidField, pb};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::{Client, Error};

/// How long a hello may go unanswered.
const WELCOME: Duration = Duration::from_secs(10);
/// How long the last frames and the end of the stream may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// Frames between the link's task and the transport.
const IN_FLIGHT: usize = 16;
/// A heartbeat of nothing would be one without end.
const SHORTEST_BEAT: Duration = Duration::from_millis(1);

/// A connection on which the hello was answered.
pub(super) struct Connection {
    up: mpsc::Sender<pb::ConnectRequest>,
    down: Streaming<pb::ConnectResponse>,
    counter: FrameCounter,
    beat: Interval,
    since: Instant,
    client: Client,
}

/// What happens on a connection.
pub(super) enum Event {
    Down(Down),
    /// A frame this version cannot read.
    Unread(InvalidField),
    /// Time for a heartbeat.
    Beat,
    /// There is room for a frame up.
    Room,
    /// The end: as the broker wished, or with an error.
    Closed(Option<Error>),
}

impl Connection {
    /// Connects, greets, and waits for the welcome.
    pub(super) async fn dial(client: Client, hello: Hello) -> Result<(Box<Self>, Welcome), Error> {
        let endpoint = client.endpoint().clone();
        let greeted = timeout(WELCOME, Self::greet(client, hello)).await;
        greeted.unwrap_or(Err(Error::TimedOut { endpoint }))
    }

    async fn greet(client: Client, hello: Hello) -> Result<(Box<Self>, Welcome), Error> {
        let (up, frames) = mpsc::channel(IN_FLIGHT);
        // The queue is new and this its first frame, so there is room.
        let mut counter = FrameCounter::default();
        let _ = up.try_send(pb::ConnectRequest::from(Up::Hello(hello)).stamped(counter.say()));
        let request = client.request(ReceiverStream::new(frames), None)?;
        let reply = client.agent_link().connect(request).await;
        let mut down = reply.map_err(|status| client.error(status))?.into_inner();
        let first = down.message().await.map_err(|status| client.error(status))?;
        let first = heard(&mut counter, first.ok_or(Error::EndedEarly)?)?;
        let Down::Welcome(welcome) = Down::try_from(first)? else {
            return Err(InvalidField::new("frame", "is not the welcome that comes first").into());
        };
        let now = Instant::now();
        let period = welcome.heartbeat.max(SHORTEST_BEAT);
        let mut beat = interval_at(now + period, period);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok((Box::new(Self { up, down, counter, beat, since: now, client }), welcome))
    }

    /// The next thing that happens; room for a frame counts only when there is one to say. Safe to drop.
    pub(super) async fn event(&mut self, has_frame: bool) -> Event {
        tokio::select! {
            biased;
            message = self.down.message() => match message {
                Ok(Some(frame)) => match heard(&mut self.counter, frame) {
                    Ok(frame) => Down::try_from(frame).map_or_else(Event::Unread, Event::Down),
                    Err(gap) => Event::Closed(Some(gap.into())),
                },
                Ok(None) => Event::Closed(None),
                Err(status) => Event::Closed(Some(self.client.error(status))),
            },
            _ = self.beat.tick() => Event::Beat,
            // When the transport has hung up, the end comes from the side below.
            Ok(_) = self.up.reserve(), if has_frame => Event::Room,
        }
    }

    /// Says a frame, after [`Event::Room`].
    pub(super) fn say(&mut self, up: Up) {
        // Only this end sends, so the room is still there; a transport that hung up reports its end itself.
        let frame = pb::ConnectRequest::from(up).stamped(self.counter.say());
        let _ = self.up.try_send(frame);
    }

    /// The last frame of the broker that was seen.
    pub(super) fn seen(&self) -> u64 {
        self.counter.seen()
    }

    /// How long it has stood.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Says these last frames, closes, and waits for the broker to close too, so that they have arrived. Returns
    /// what the broker said meanwhile.
    pub(super) async fn close(self, frames: Vec<Up>) -> Vec<Down> {
        let Self { up, mut down, mut counter, .. } = self;
        let mut heard = Vec::new();
        let goodbye = async {
            for frame in frames {
                let frame = pb::ConnectRequest::from(frame).stamped(counter.say());
                if up.send(frame).await.is_err() {
                    return;
                }
            }
            drop(up);
            while let Ok(Some(frame)) = down.message().await {
                heard.extend(Down::try_from(frame));
            }
        };
        // A broker that does not close in time has had its chance; its lease timer does the rest.
        let _ = timeout(GOODBYE, goodbye).await;
        heard
    }
}

/// A frame whose place in the stream is behind the one before it.
fn heard(
    counter: &mut FrameCounter,
    frame: pb::ConnectResponse,
) -> Result<pb::ConnectResponse, InvalidField> {
    counter.hear(frame.stamp()).map_err(|gap| InvalidField::new("number", gap.to_string()))?;
    Ok(frame)
}
