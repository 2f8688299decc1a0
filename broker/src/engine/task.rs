//! The task: batch, decide, append, answer, let out.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    AsOf, Clock, EngineHandle, Error, Fatal,
    frames::frames,
    handle::{Envelope, Forgotten},
    recover,
};
use crate::{
    core::{self, Command, Effect, Event, Reply, State, usage},
    journal::{
        AppendError, Batch, BatchNo, Content, MAX_BATCH_BYTES, MAX_EVENTS, Record, Why, Writer,
        record,
    },
    planted,
    projection::Projection,
};

/// Commands waiting at most; a full channel is backpressure.
const COMMANDS: usize = 4096;
/// A batch is sealed at this size, so that one more decision still fits a frame.
const SEAL_EVENTS: usize = MAX_EVENTS / 2;
const SEAL_BYTES: usize = MAX_BATCH_BYTES / 2;
/// Commands that one batch takes at most: those without events must not hold up the answers of the others.
const TAKEN: usize = 1024;
/// The runtime's timer has a resolution of a millisecond and may come early.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// How often a full store is looked at again.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);
/// How long an ended message is still known in memory after the projection knows it: longer than `intake::Seen` takes to
/// look its id up again, and than such a look-up stays good.
const REMEMBER: Duration = Duration::from_secs(20);
const GOOD_FOR: Duration = Duration::from_secs(10);

/// What an effect came back as, with the content it names.
#[derive(Debug)]
pub struct Returned {
    pub command: Command,
    pub content: Option<Content>,
}

impl From<Command> for Returned {
    fn from(command: Command) -> Self {
        Self { command, content: None }
    }
}

/// Carries effects out; the engine knows neither links nor reply slots.
pub trait Outlet: Send {
    /// Carries one effect out, at once; what it leads to comes back as a command.
    fn carry_out(&mut self, effect: Effect) -> Option<Returned>;

    /// The state was loaded anew: links and what they hold must greet again. Gives what it must be told of those who
    /// still listen.
    fn reset(&mut self) -> Vec<Command>;
}

/// A caller, and what it gets once the batch is durable.
type Waiting = (oneshot::Sender<Result<Reply, Error>>, Result<Reply, Error>);

#[derive(Debug, Default)]
struct Pending {
    records: Vec<Record>,
    /// Where in them each decision ends.
    ends: Vec<usize>,
    bytes: usize,
    contents: Vec<Content>,
    effects: Vec<Effect>,
    waiting: Vec<Waiting>,
    /// Commands that were taken from the channel for it.
    taken: usize,
    /// A frame of it is stored.
    is_begun: bool,
}

/// Owns the state and the right to write.
pub struct EngineTask {
    decider: Decider,
    writer: Box<dyn Writer>,
    projection: Projection,
    outlet: Box<dyn Outlet>,
    commands: mpsc::Receiver<Envelope>,
    forgotten: mpsc::Receiver<Forgotten>,
    /// What effects came back as; decided before anything new.
    returned: VecDeque<Returned>,
    /// Finish numbers by the batch that holds them and the time they may be forgotten.
    remembered: VecDeque<(BatchNo, core::BootTime, u64)>,
    /// A jump of the wall clock was told and is not over.
    has_jumped: bool,
    /// For the handles.
    head: Arc<AtomicU64>,
    is_full: Arc<AtomicBool>,
}

/// The part of it that decides, which it also does while a batch is being appended.
struct Decider {
    state: State,
    clock: Arc<dyn Clock>,
    /// While the store is full: when to look for room again.
    full: Option<core::BootTime>,
    /// For the handles.
    loads: Arc<AtomicU64>,
}

impl std::fmt::Debug for EngineTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineTask").field("writer", &self.writer).finish_non_exhaustive()
    }
}

/// An engine over a claimed journal, and the handle to it.
#[must_use]
pub fn engine(
    state: State,
    writer: Box<dyn Writer>,
    projection: Projection,
    clock: Arc<dyn Clock>,
    outlet: Box<dyn Outlet>,
) -> (EngineHandle, EngineTask) {
    let (tx, commands) = mpsc::channel(COMMANDS);
    let (forget, forgotten) = mpsc::channel(1);
    let head = Arc::new(AtomicU64::new(writer.head().0));
    let is_full = Arc::new(AtomicBool::new(false));
    let loads = Arc::<AtomicU64>::default();
    let task = EngineTask {
        decider: Decider { state, clock, full: None, loads: Arc::clone(&loads) },
        head: Arc::clone(&head),
        is_full: Arc::clone(&is_full),
        writer,
        projection,
        outlet,
        commands,
        forgotten,
        returned: VecDeque::from([Command::Recovered.into()]),
        remembered: VecDeque::new(),
        has_jumped: false,
    };
    (EngineHandle { commands: tx, forgotten: forget, head, is_full, loads }, task)
}

impl EngineTask {
    /// Runs until every handle is gone or `stop` fires, then answers what had still arrived.
    ///
    /// # Errors
    /// [`Fatal`] when the journal cannot be trusted any more; the process must exit non-zero.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Fatal> {
        info!(
            epoch = self.writer.epoch().0,
            batch = self.writer.head().0,
            "engine owns the journal"
        );
        let mut pending = Pending::default();
        loop {
            self.take_returned(&mut pending);
            if !self.next(&mut pending, &stop).await {
                break;
            }
            self.take_waiting(&mut pending);
            pending = self.commit(pending).await?;
        }
        self.commands.close();
        loop {
            self.take_returned(&mut pending);
            self.take_waiting(&mut pending);
            if pending.is_empty() && self.commands.is_empty() {
                return Ok(());
            }
            pending = self.commit(pending).await?;
        }
    }

    /// Waits for the next command or the next deadline, unless something is decided already; `false` when the engine is
    /// to stop.
    async fn next(&mut self, pending: &mut Pending, stop: &CancellationToken) -> bool {
        if stop.is_cancelled() {
            return false;
        }
        let now = self.decider.clock.now();
        self.forget(now);
        self.look_for_room(now);
        if let Some(news) = self.clock_news() {
            self.decider.decide(pending, news, None);
        }
        let decider = &mut self.decider;
        // Time comes first: a stream of commands must not keep a lease or a message alive.
        if core::next_deadline(&decider.state, now).is_some_and(|due| due <= now.boot) {
            decider.decide(pending, Command::Tick, None);
        }
        if !pending.is_empty() {
            return true;
        }
        let look = decider.clock.looks_every().map(|every| now.boot.after(every));
        let due = [core::next_deadline(&decider.state, now), decider.full, look];
        let due = due.into_iter().flatten().min();
        let tick = async {
            match due.map(|due| due.0.saturating_sub(now.boot.0)) {
                Some(wait) => tokio::time::sleep(wait.max(SHORTEST_WAIT)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return false,
            envelope = self.commands.recv() => match envelope {
                Some(envelope) => decider.take(pending, envelope),
                None => return false,
            },
            Some((keys, done)) = self.forgotten.recv() => {
                // Nobody waits for it who must not; what is left is found again by the next sweep.
                let _ = done.send(self.writer.forget(self.writer.head(), keys).await);
            }
            // What is due is decided when it is looked for again.
            () = tick => {}
        }
        true
    }

    fn take_returned(&mut self, pending: &mut Pending) {
        while pending.bytes < SEAL_BYTES {
            let Some(Returned { command, content }) = self.returned.pop_front() else { return };
            let before = pending.records.len();
            self.decider.decide(pending, command, None);
            if let Some(content) = content.filter(|_| pending.records.len() > before) {
                pending.bytes += content.bytes().len();
                pending.contents.push(content);
            }
        }
    }

    /// What has arrived meanwhile joins the batch, up to its seal.
    fn take_waiting(&mut self, pending: &mut Pending) {
        while pending.has_room() {
            let Ok(envelope) = self.commands.try_recv() else { return };
            self.decider.take(pending, envelope);
        }
    }

    /// Appends what was decided, then answers and lets out. Gives what was decided meanwhile.
    async fn commit(&mut self, mut pending: Pending) -> Result<Pending, Fatal> {
        planted::before_sync(&mut pending.waiting).await;
        let finish_no = self.decider.state.queue.finish_no();
        let mut next = Pending::default();
        match self.append(&mut pending, &mut next).await {
            Ok(()) => {}
            Err(AppendError::NotStored(why)) => {
                self.not_stored([pending, next], why).await?;
                return Ok(Pending::default());
            }
            Err(source) => {
                error!(%source, "the journal cannot be trusted any more");
                for (done, _) in pending.waiting.into_iter().chain(next.waiting) {
                    let _ = done.send(Err(Error::Unknown));
                }
                return Err(Fatal::Append { source });
            }
        }
        self.remember(finish_no);
        // Effects first: a caller that is answered finds its reply slot open.
        for effect in pending.effects {
            self.returned.extend(self.outlet.carry_out(effect));
        }
        for (done, answer) in pending.waiting {
            // A caller who has left is normal.
            let _ = done.send(answer);
        }
        Ok(next)
    }

    /// Appends `pending`, and decides what arrives meanwhile into `next`: nobody hears of that before it is appended too.
    async fn append(
        &mut self,
        pending: &mut Pending,
        next: &mut Pending,
    ) -> Result<(), AppendError> {
        let Self { writer, decider, commands, .. } = self;
        let mut appending = pin!(append(writer.as_mut(), pending));
        loop {
            tokio::select! {
                biased;
                appended = &mut appending => return appended,
                Some(envelope) = commands.recv(), if next.has_room() => {
                    decider.take(next, envelope);
                }
            }
        }
    }

    /// Surely not stored: the state has gone further than the journal, so it is loaded again.
    async fn not_stored(&mut self, decided: [Pending; 2], why: Why) -> Result<(), Fatal> {
        warn!(%why, "a batch was not stored; loading the state again");
        for pending in decided {
            let answer = || match why {
                // Not all of it; whose command was in the frame that is stored, the state will tell.
                _ if pending.is_begun => Error::Unknown,
                Why::Full => Error::StoreFull,
                Why::TooLarge | Why::Unavailable | Why::Reserved => Error::StoreUnavailable,
            };
            for (done, _) in pending.waiting {
                let _ = done.send(Err(answer()));
            }
        }
        if why == Why::Full {
            self.fill();
        }
        let policy = self.decider.state.file_policy();
        self.decider.state = recover::load(&self.projection, self.writer.head(), policy).await?;
        self.remembered.clear();
        self.decider.loads.fetch_add(1, Ordering::Release);
        self.returned.clear();
        self.returned.push_back(Command::Recovered.into());
        self.returned.extend(self.outlet.reset().into_iter().map(Returned::from));
        Ok(())
    }

    /// The batch that was appended goes up to this finish number.
    fn remember(&mut self, finish_no: u64) {
        self.head.store(self.writer.head().0, Ordering::Release);
        if self.decider.full.is_none() && !self.has_room() {
            self.fill();
        }
        if self.remembered.back().is_none_or(|(_, _, no)| *no < finish_no) && finish_no > 0 {
            let until = self.decider.clock.now().boot.after(REMEMBER);
            self.remembered.push_back((self.writer.head(), until, finish_no));
        }
    }

    /// What is to be told of the wall clock, once for each jump and once for its end (I-23).
    fn clock_news(&mut self) -> Option<Command> {
        let jump = self.decider.clock.jump();
        if jump.is_some() == self.has_jumped {
            return None;
        }
        self.has_jumped = jump.is_some();
        match jump {
            Some(jump) => warn!(
                ahead = ?jump.ahead,
                "clock_jump: the wall clock jumped ahead, expiry by it is halted; \
                 `brokerctl clock confirm` believes it"
            ),
            None => info!("the wall clock is believed again"),
        }
        Some(Command::ClockJumped { ahead: jump.map(|jump| jump.ahead) })
    }

    /// Below its reserve the store takes nothing new; settling and expiry go on (I-28, I-31).
    fn has_room(&self) -> bool {
        let room = self.writer.room();
        room.bytes >= self.decider.state.policy.store_reserve.of(room.whole)
    }

    /// Nothing new is accepted until there is room again.
    fn fill(&mut self) {
        if self.decider.full.is_none() {
            warn!("the store is full: free space on its disk; only settling goes on");
        }
        self.decider.full = Some(self.decider.clock.now().boot.after(LOOK_FOR_ROOM));
        self.is_full.store(true, Ordering::Release);
    }

    fn look_for_room(&mut self, now: core::Now) {
        if self.decider.full.is_none_or(|at| at > now.boot) {
            return;
        }
        if self.has_room() {
            info!("the store has room again");
            self.decider.full = None;
            self.is_full.store(false, Ordering::Release);
        } else {
            self.decider.full = Some(now.boot.after(LOOK_FOR_ROOM));
        }
    }

    /// Lets go of ended messages that the projection has known for long enough.
    fn forget(&mut self, now: core::Now) {
        let applied = self.projection.applied();
        let mut last = None;
        while let Some((_, _, finish_no)) = self
            .remembered
            .front()
            .filter(|(batch, until, _)| *batch <= applied && *until <= now.boot)
        {
            last = Some(*finish_no);
            self.remembered.pop_front();
        }
        if let Some(finish_no) = last {
            self.returned.push_back(Command::Projected { finish_no }.into());
        }
    }
}

impl Decider {
    fn take(&mut self, pending: &mut Pending, envelope: Envelope) {
        let Envelope { command, contents, span, as_of, done } = envelope;
        pending.taken += 1;
        let _within = span.entered();
        if as_of.is_some_and(|as_of| !self.is_good(as_of)) {
            if let Some(done) = done {
                pending.waiting.push((done, Err(Error::StoreUnavailable)));
            }
            return;
        }
        if self.full.is_some() && command.adds_content() {
            if let Some(done) = done {
                pending.waiting.push((done, Err(Error::StoreFull)));
            }
            return;
        }
        let before = pending.records.len();
        self.decide(pending, command, done);
        // A command that stored nothing (a duplicate, a refusal) leaves no content behind.
        if pending.records.len() > before {
            pending.bytes += contents.iter().map(|content| content.bytes().len()).sum::<usize>();
            pending.contents.extend(contents);
        }
    }

    /// Whether memory still knows whatever a look-up of then may have missed (I-7).
    fn is_good(&self, as_of: AsOf) -> bool {
        let age = self.clock.now().boot.0.saturating_sub(as_of.at.0);
        as_of.load == self.loads.load(Ordering::Relaxed) && age <= GOOD_FOR
    }

    fn decide(
        &mut self,
        pending: &mut Pending,
        command: Command,
        done: Option<oneshot::Sender<Result<Reply, Error>>>,
    ) {
        let now = self.clock.now();
        let answer = match core::decide(&mut self.state, command, now) {
            Ok(decision) => {
                for event in &decision.events {
                    self.log(event);
                    let record = record::encode(event);
                    pending.bytes += record.framed_len();
                    pending.records.push(record);
                }
                pending.ends.push(pending.records.len());
                pending.effects.extend(decision.effects);
                Ok(decision.reply)
            }
            Err(refusal) => Err(Error::Refused(refusal)),
        };
        if let Some(done) = done {
            pending.waiting.push((done, answer));
        }
    }

    fn log(&self, event: &Event) {
        match event {
            Event::RouteChanged { model, route, .. } => match &route.shut {
                Some(shut) => info!(%model, reason = %shut.reason, "model is unavailable"),
                None => debug!(%model, "model is available"),
            },
            Event::Session(event) => {
                if let core::session::Event::Changed { id, change, .. } = event.as_ref() {
                    debug!(session = %id, change = change.as_str(), "session changed");
                }
            }
            Event::Finished(done) => {
                debug!(message = %done.subject.id, state = done.state.as_str(), "message finished");
            }
            Event::Usage(usage::Event::LevelChanged(change)) => log_level(change),
            other => {
                if let Some(subject) = other.subject() {
                    debug!(message = %subject.id, event = name(other), "decided");
                }
            }
        }
    }
}

/// A level that rises is for whoever watches the log.
fn log_level(change: &usage::Change) {
    let (scope, reason) = (change.subject.scope(), change.reason.as_str());
    let (from, to) = (change.from.as_str(), change.to.as_str());
    let action = change.action.as_str();
    if change.to > change.from {
        warn!(%scope, from, to, action, reason, "level rose");
    } else {
        info!(%scope, from, to, action, reason, "level changed");
    }
    for call in &change.diagnosis {
        warn!(%scope, call, "a call went wrong");
    }
}

/// One frame, or several where a single decision is larger than one.
async fn append(writer: &mut dyn Writer, pending: &mut Pending) -> Result<(), AppendError> {
    let contents = std::mem::take(&mut pending.contents);
    let bytes = contents.iter().map(|content| content.bytes().len()).sum();
    let records = std::mem::take(&mut pending.records);
    let mut contents = Some(contents);
    for events in frames(records, &std::mem::take(&mut pending.ends), bytes) {
        let contents = contents.take().unwrap_or_default();
        writer.append(Batch { events, contents }).await?;
        pending.is_begun = true;
    }
    Ok(())
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.effects.is_empty() && self.waiting.is_empty()
    }

    /// For another command.
    fn has_room(&self) -> bool {
        self.taken < TAKEN && self.records.len() < SEAL_EVENTS && self.bytes < SEAL_BYTES
    }
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::Accepted(_) => "accepted",
        Event::FannedOut(_) => "fanned_out",
        Event::RoleKnown { .. } => "role_known",
        Event::TreeChanged { .. } => "tree_changed",
        Event::Routed { .. } => "routed",
        Event::Leased { .. } => "leased",
        Event::AttemptFailed { .. } => "attempt_failed",
        Event::LeaseLost { .. } => "lease_lost",
        Event::Held { .. } => "held",
        Event::DeliveryFailed { .. } => "delivery_failed",
        Event::Parked { .. } => "parked",
        Event::Redriven { .. } => "redriven",
        Event::Purged { .. } => "purged",
        Event::ClockJumped { .. } => "clock_jumped",
        Event::QueuePaused { .. } => "queue_paused",
        Event::TaskAsked { .. } => "task_asked",
        Event::TaskAnswered { .. } => "task_answered",
        Event::TaskStopped { .. } => "task_stopped",
        Event::Finished(_) => "finished",
        Event::RouteChanged { .. } => "route_changed",
        Event::UsageChanged { .. } => "usage_changed",
        Event::Usage(_) => "usage",
        Event::TokenChanged { .. } => "token_changed",
        Event::ContentStored { .. } => "content_stored",
        Event::ContentForgotten { .. } => "content_forgotten",
        Event::Session(_) => "session",
        Event::Package(_) => "package",
        Event::Handoff(_) => "handoff",
        Event::Bridge(_) => "bridge",
        Event::Ring(_) => "ring",
        Event::SliceMoved(_) => "slice_moved",
        Event::Redirected(_) => "redirected",
    }
}
