//! The scenarios of handoffs: how soon a limit becomes an offer, how soon the new owner can answer, and whether every
//! session has one owner and loses nothing while a thousand of them move.

mod moves;
mod receiver;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use broker::context::package::{self, Guard, open};
use broker_client::{Client, NewSession};
use broker_proto::{
    APPEND_LABEL, AskOptions, HISTORY_LABEL, HandoffOffer, HistoryRange, Message, MessageId,
    ModelName, PackageFilter, Part, Payload, SessionId, SessionPoint, Usage, UsageRecord, WallTime,
};

use crate::{
    Settings,
    brokerd::Brokerd,
    context::{Prose, TURN, entry},
    report::{Figure, Goal},
    sample::Times,
    wire,
};
use receiver::Receiver;

pub(crate) use moves::handoffs;

/// Tokens of the session, at four bytes each.
const TOKENS: usize = 200_000;
const BYTES_PER_TOKEN: usize = 4;
/// Handoffs that are measured of each sort.
const SAMPLES: usize = 200;
const QUICK: usize = 100;
/// Tokens of the models' windows: a package is made ahead at 85 %, and a session moves at 90 %.
const WINDOW: u64 = 1_000_000;
const NEAR: u64 = 870_000;
const OVER: u64 = 950_000;
/// A package is there long before.
const PREPARED_WITHIN: Duration = Duration::from_secs(30);
/// Goals, in milliseconds.
const OFFERED: f64 = 10.0;
const WARM: f64 = 50.0;
const COLD: f64 = 150.0;

/// Two models that hold the longer session, of which each may take over from the other at any time.
fn config(auto_switch: bool) -> String {
    let model = |name: &str, others: &str| {
        format!(
            "\n[[models]]\nname = \"{name}\"\nprovider = \"anthropic\"\nid = \"{name}\"\ncontext_window = {WINDOW}\nfallback = [{others}]\n"
        )
    };
    let settings = format!(
        "\n[handoff]\nauto_switch = {auto_switch}\ncooldown = \"1s\"\npreserve = \"complete\"\n"
    );
    settings + &model("opus", "\"sonnet\"") + &model("sonnet", "")
}

/// Whether what a handoff needs was made before the limit was reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The package is there, and the receiver has verified it before it is asked to say yes.
    Warm,
    /// The package is made once the limit is reached, and fetched and verified once it is offered.
    Cold,
}

/// Where one handoff's time went.
struct Moved {
    /// From the report that reached the limit to the offer.
    offered: Duration,
    /// From the receiver's yes to its first turn, read.
    ready: Duration,
    /// From the report to that turn.
    whole: Duration,
}

/// Who takes part.
struct Scene {
    client: Client,
    receiver: Receiver,
    opus: ModelName,
    sonnet: ModelName,
}

/// A limit becomes an offer, and the receiver becomes the owner who can answer.
pub(crate) async fn handoff(settings: &Settings) -> anyhow::Result<Vec<Figure>> {
    let folder = settings.folder()?;
    let broker = Brokerd::with(folder.path(), &config(true)).await?;
    let samples = if settings.is_quick { QUICK } else { SAMPLES };
    let scene = Scene {
        client: broker.client().await?,
        receiver: Receiver::join(&broker, "receiver", "sonnet").await?,
        opus: ModelName::parse("opus")?,
        sonnet: ModelName::parse("sonnet")?,
    };
    let mut scene = scene;
    let session = scene.session().await?;
    let [mut offered, mut made] = [Times::new()?, Times::new()?];
    let [mut warm, mut cold] = [Times::new()?, Times::new()?];
    let mut whole = Times::new()?;
    for _ in 0..samples {
        let moved = scene.hand_off(&session, Start::Warm).await?;
        offered.add(moved.offered)?;
        warm.add(moved.ready)?;
        let moved = scene.hand_off(&session, Start::Cold).await?;
        made.add(moved.offered)?;
        cold.add(moved.ready)?;
        whole.add(moved.whole)?;
    }
    let Scene { receiver, .. } = scene;
    receiver.leave().await?;
    broker.stop().await;
    let judged = |name: &str, times: &Times, goal: f64| {
        let p95 = times.p95().context("too few handoffs")?;
        anyhow::Ok(Figure::new(name, p95, "ms").beside("goal, ms", goal).with(Goal::AtMost(1.0)))
    };
    Ok(vec![
        Figure::new("handoff_offered_p50", offered.p50()?, "ms"),
        judged("handoff_offered_p95", &offered, OFFERED)?,
        Figure::new("handoff_ready_warm_p50", warm.p50()?, "ms"),
        judged("handoff_ready_warm_p95", &warm, WARM)?,
        Figure::new("handoff_ready_cold_p50", cold.p50()?, "ms"),
        judged("handoff_ready_cold_p95", &cold, COLD)?,
        Figure::new("handoff_made_offered_p50", made.p50()?, "ms"),
        Figure::new("handoff_made_ready_p50", whole.p50()?, "ms"),
    ])
}

impl Scene {
    /// A long session of opus.
    async fn session(&self) -> anyhow::Result<SessionId> {
        let new = NewSession { model: Some(self.opus.clone()), ..NewSession::default() };
        let id = self.client.start_session(new).await?.id;
        let mut prose = Prose::new(5);
        let entries: Vec<_> =
            (0..TOKENS * BYTES_PER_TOKEN / TURN).map(|_| entry(&mut prose)).collect();
        for some in entries.chunks(100) {
            self.client.append_entries(&id, some.to_vec(), None).await?;
        }
        Ok(id)
    }

    /// Calls made elsewhere that fill so much of the session's window.
    async fn report(&self, session: &SessionId, tokens: u64) -> anyhow::Result<()> {
        let usage = Usage { input_tokens: Some(tokens), ..Usage::default() };
        let (name, record) = (session.to_string(), UsageRecord::Tokens(usage));
        self.client.record_usage(Some(&self.opus), Some(&name), record).await?;
        Ok(())
    }

    /// Returns once a package of the session is there.
    async fn prepared(&self, session: &SessionId) -> anyhow::Result<()> {
        let began = Instant::now();
        let filter = PackageFilter { session: Some(session.clone()), ..PackageFilter::default() };
        while self.client.packages(filter.clone(), 1, None).await?.items.is_empty() {
            ensure!(began.elapsed() < PREPARED_WITHIN, "no package was made ahead");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Moves a session like `base` from opus to sonnet, and asks its next turn there.
    async fn hand_off(&mut self, base: &SessionId, start: Start) -> anyhow::Result<Moved> {
        let new = NewSession { model: Some(self.opus.clone()), ..NewSession::default() };
        let info = self.client.fork_session(base, &SessionPoint::Head, new).await?;
        let (session, held) = (info.id, info.tokens);
        let mut missing = OVER.saturating_sub(held);
        if start == Start::Warm {
            let near = NEAR.saturating_sub(held);
            self.report(&session, near).await?;
            self.prepared(&session).await?;
            missing -= near;
        }
        let began = Instant::now();
        self.report(&session, missing).await?;
        let (offered, offer) = self.receiver.offer(&session).await?;
        let mut manifest = None;
        if start == Start::Warm {
            manifest = Some(self.verify(&offer).await?);
        }
        let agreed = Instant::now();
        let manifest = match manifest {
            Some(manifest) => manifest,
            None => self.verify(&offer).await?,
        };
        self.receiver.accept(&offer, manifest).await?;
        let question = self.ask(&session).await?;
        let (delivery, _) = self.receiver.delivery(question).await?;
        // Its context is read: what was uploaded apart is fetched.
        let payload = self.client.inline_payload(delivery.message.payload.clone()).await?;
        let (ready, whole) = (agreed.elapsed(), began.elapsed());
        let bytes: usize = payload.context.iter().map(|entry| size(&entry.parts)).sum();
        let held = self.client.session(&session, &SessionPoint::Head).await?.info;
        ensure!(bytes as u64 >= held.window_tokens(), "a turn came without its context");
        self.receiver.answer(delivery.lease, "done").await?;
        Ok(Moved { offered: offered - began, ready, whole })
    }

    /// Fetches the package and verifies it; gives its manifest's hash.
    async fn verify(&self, offer: &HandoffOffer) -> anyhow::Result<[u8; 32]> {
        let file = self.client.export_package(offer.package).await?;
        let guard = Guard {
            now: WallTime::from_system(std::time::SystemTime::now()),
            is_trusted: &|_| true,
            is_here: &|_| true,
            is_replayed: &|_| false,
            takes_expired: false,
        };
        let opened = open(&file, &guard).context("the package is refused")?;
        package::contents(&opened).context("the package cannot be read")?;
        Ok(opened.checksum)
    }

    /// Asks the next turn as `brokerctl consult --session` does.
    async fn ask(&self, session: &SessionId) -> anyhow::Result<MessageId> {
        let info = self.client.session(session, &SessionPoint::Head).await?.info;
        ensure!(info.owner.model == self.sonnet, "the session has not moved");
        let at = SessionPoint::Version(info.version);
        let next = "What is to be done next?";
        let history =
            self.client.session_history(session, &at, Some(self.sonnet.clone()), next).await?;
        let request = vec![Part::text(next)];
        let payload = Payload { request, context: history.entries, ..Payload::default() };
        let range = HistoryRange { version: info.version, first: 0, count: payload.context.len() };
        let mut message = Message::consultation(wire::next_id(), self.sonnet.clone(), payload);
        message.session = Some(session.to_string());
        message.labels.insert(APPEND_LABEL.to_owned(), "turn".to_owned());
        message.labels.insert(HISTORY_LABEL.to_owned(), range.to_string());
        let id = message.id;
        self.client.submit(message, AskOptions::default()).await?;
        Ok(id)
    }
}

fn size(parts: &[Part]) -> usize {
    let bytes = parts.iter().map(|part| match part {
        Part::Text(text) => text.len(),
        _ => 0,
    });
    bytes.sum()
}
