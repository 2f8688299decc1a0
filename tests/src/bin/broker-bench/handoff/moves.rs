//! Many handoffs under load, and a checker that reads only what everybody can see.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use broker_client::{Client, NewSession};
use broker_proto::{
    APPEND_LABEL, AskHandoff, AskOptions, Handoff, Message, MessageId, MessageState, ModelName,
    Part, Payload, Preservation, SessionId, SessionPoint, pb,
};
use pb::handoff_service_client::HandoffServiceClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{config, receiver::Receiver};
use crate::{
    Settings,
    brokerd::Brokerd,
    context::{Prose, entry},
    report::{Figure, Goal},
    wire,
};

const HANDOFFS: u64 = 1_000;
const QUICK: u64 = 200;
const SESSIONS: usize = 16;
/// Entries that a session begins with.
const FIRST: usize = 10;
const MODELS: [&str; 2] = ["opus", "sonnet"];
/// No turn and no handoff takes as long.
const WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What the outside has seen. Written by whoever sees it; a standard mutex guards the owners.
#[derive(Debug, Default)]
struct Seen {
    moved: AtomicU64,
    is_over: AtomicBool,
    looks: AtomicU64,
    /// By session and epoch: every model that was its owner.
    owners: Mutex<BTreeMap<(SessionId, u64), BTreeSet<ModelName>>>,
    went_back: AtomicU64,
}

impl Seen {
    /// Epochs of a session that were seen with more than one owner.
    fn shared_epochs(&self) -> u64 {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.values().filter(|models| models.len() > 1).count() as u64
    }
}

/// The turns of one session and how they ended.
type Turns = (SessionId, BTreeMap<MessageId, Vec<MessageState>>);

/// What was broken.
#[derive(Debug, Default)]
struct Broken {
    two_owners: u64,
    no_owner: u64,
    lost: u64,
    twice: u64,
}

/// A thousand handoffs between two models while every session is asked turn after turn.
pub(crate) async fn handoffs(settings: &Settings) -> anyhow::Result<Vec<Figure>> {
    let many = if settings.is_quick { QUICK } else { HANDOFFS };
    let folder = settings.folder()?;
    let broker = Brokerd::with(folder.path(), &config(false)).await?;
    let client = broker.client().await?;
    let channel = wire::channel(&broker.endpoint()).await?;
    let seen = Arc::new(Seen::default());
    let mut agents = JoinSet::new();
    for model in MODELS {
        let receiver = Receiver::join(&broker, &format!("{model}-agent"), model).await?;
        agents.spawn(receiver.take_all());
    }
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        let new = NewSession { model: Some(ModelName::parse(MODELS[0])?), ..NewSession::default() };
        let id = client.start_session(new).await?.id;
        let mut prose = Prose::new(number as u64);
        let first = (0..FIRST).map(|_| entry(&mut prose)).collect();
        client.append_entries(&id, first, None).await?;
        sessions.push(id);
    }
    let (mut askers, mut movers, mut watchers) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    let began = Instant::now();
    for session in &sessions {
        askers.spawn(ask_all(client.clone(), session.clone(), Arc::clone(&seen)));
        let handoffs = HandoffServiceClient::new(channel.clone());
        movers.spawn(move_all(client.clone(), handoffs, session.clone(), Arc::clone(&seen), many));
    }
    watchers.spawn(watch(client.clone(), sessions.clone(), Arc::clone(&seen)));
    while let Some(ended) = movers.join_next().await {
        ended??;
    }
    let took = began.elapsed();
    seen.is_over.store(true, Ordering::Relaxed);
    let mut turns = Vec::new();
    while let Some(asked) = askers.join_next().await {
        turns.push(asked??);
    }
    while let Some(ended) = watchers.join_next().await {
        ended??;
    }
    let mut broken = Broken::default();
    let mut handoffs = HandoffServiceClient::new(channel);
    for (session, turns) in &turns {
        check(&client, &mut handoffs, session, turns, &mut broken).await?;
    }
    broken.two_owners += seen.went_back.load(Ordering::Relaxed);
    broken.two_owners += seen.shared_epochs();
    agents.abort_all();
    while agents.join_next().await.is_some() {}
    broker.stop().await;
    let moved = seen.moved.load(Ordering::Relaxed);
    let asked: usize = turns.iter().map(|(_, turns)| turns.len()).sum();
    let none = |name: &str, count: u64| {
        Figure::new(name, count as f64, "").beside("handoffs", moved as f64).with(Goal::AtMost(0.0))
    };
    Ok(vec![
        Figure::new("handoffs", moved as f64, ""),
        Figure::new("handoffs_rate", moved as f64 / took.as_secs_f64(), "/s"),
        Figure::new("handoffs_turns", asked as f64, ""),
        Figure::new("handoffs_looks", seen.looks.load(Ordering::Relaxed) as f64, ""),
        none("handoffs_two_owners", broken.two_owners),
        none("handoffs_no_owner", broken.no_owner),
        none("handoffs_lost", broken.lost),
        none("handoffs_twice", broken.twice),
    ])
}

/// Asks the session's owner, turn after turn.
async fn ask_all(client: Client, session: SessionId, seen: Arc<Seen>) -> anyhow::Result<Turns> {
    let mut turns: BTreeMap<MessageId, Vec<MessageState>> = BTreeMap::new();
    while !seen.is_over.load(Ordering::Relaxed) {
        let owner = client.session(&session, &SessionPoint::Head).await?.info.owner.model;
        let id = wire::next_id();
        let payload =
            Payload { request: vec![Part::text(format!("turn {id}"))], ..Payload::default() };
        let mut message = Message { id, ..Message::consultation(id, owner, payload) };
        message.session = Some(session.to_string());
        message.labels.insert(APPEND_LABEL.to_owned(), "turn".to_owned());
        client.submit(message, AskOptions::default()).await?;
        let asked = Instant::now();
        loop {
            let poll = client.poll(id, Duration::from_secs(20)).await?;
            if poll.state.is_terminal() {
                // Once more: an end does not change.
                let again = client.poll(id, Duration::ZERO).await?;
                turns.insert(id, vec![poll.state, again.state]);
                break;
            }
            ensure!(asked.elapsed() < WITHIN, "turn {id} has no end");
        }
    }
    Ok((session, turns))
}

/// Hands a session to and fro until there were enough of all.
async fn move_all(
    client: Client,
    mut handoffs: HandoffServiceClient<Channel>,
    session: SessionId,
    seen: Arc<Seen>,
    many: u64,
) -> anyhow::Result<()> {
    while seen.moved.load(Ordering::Relaxed) < many {
        let owner = client.session(&session, &SessionPoint::Head).await?.info.owner;
        let to = MODELS.into_iter().find(|model| *model != owner.model.as_str());
        let ask = AskHandoff {
            session: session.clone(),
            to: Some(ModelName::parse(to.context("no other model")?)?),
            agent: None,
            reason: "the bench".to_owned(),
            level: Some(Preservation::Minimal),
            package: None,
            is_forced: true,
            at_once: false,
        };
        let begun = handoffs.begin_handoff(pb::BeginHandoffRequest::from(ask)).await?.into_inner();
        let id = begun.handoff.context("no handoff")?.handoff_id;
        let began = Instant::now();
        loop {
            let request = pb::GetHandoffRequest { handoff_id: id.clone() };
            let now = handoffs.get_handoff(request).await?.into_inner().handoff;
            let now = Handoff::try_from(now.context("no handoff")?)?;
            if !now.state.is_pending() {
                ensure!(now.active_at.is_some(), "handoff {id}: {}", now.outcome);
                seen.moved.fetch_add(1, Ordering::Relaxed);
                break;
            }
            ensure!(began.elapsed() < WITHIN, "handoff {id} stays {}", now.state.as_str());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

/// Looks who the owners are, all the time: an epoch has one, and none comes back.
async fn watch(client: Client, sessions: Vec<SessionId>, seen: Arc<Seen>) -> anyhow::Result<()> {
    let mut last: BTreeMap<&SessionId, u64> = BTreeMap::new();
    while !seen.is_over.load(Ordering::Relaxed) {
        for session in &sessions {
            let owner = client.session(session, &SessionPoint::Head).await?.info.owner;
            let before = last.insert(session, owner.epoch).unwrap_or_default();
            seen.went_back.fetch_add(u64::from(owner.epoch < before), Ordering::Relaxed);
            seen.looks.fetch_add(1, Ordering::Relaxed);
            let mut owners = seen.owners.lock().unwrap_or_else(PoisonError::into_inner);
            owners.entry((session.clone(), owner.epoch)).or_default().insert(owner.model);
        }
    }
    Ok(())
}

/// What is known at the end: the chain of owners has no gap and no fork, and every turn ended once, in its session.
async fn check(
    client: &Client,
    handoffs: &mut HandoffServiceClient<Channel>,
    session: &SessionId,
    turns: &BTreeMap<MessageId, Vec<MessageState>>,
    broken: &mut Broken,
) -> anyhow::Result<()> {
    let owner = client.session(session, &SessionPoint::Head).await?.info.owner;
    let mut moves = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListHandoffsRequest {
            session_id: session.to_string(),
            page_size: 1_000,
            page_token,
            ..pb::ListHandoffsRequest::default()
        };
        let page = handoffs.list_handoffs(request).await?.into_inner();
        for handoff in page.handoffs {
            let handoff = Handoff::try_from(handoff)?;
            if handoff.active_at.is_some() {
                let Handoff { from, to, .. } = handoff;
                moves.push(Move { epoch: from.epoch, from: from.model, to });
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let entries = client.session_entries(session, &SessionPoint::Head, 0, usize::MAX).await?;
    let mut said = Vec::new();
    for entry in &entries[FIRST.min(entries.len())..] {
        let text = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            _ => None,
        };
        said.extend(entry.entry.parts.iter().filter_map(text));
    }
    broken.judge_owners((&owner.model, owner.epoch), &moves);
    broken.judge_turns(turns, said);
    Ok(())
}

/// One change of owner, as its handoff tells it.
#[derive(Debug, Clone)]
struct Move {
    /// Of the owner before.
    epoch: u64,
    from: ModelName,
    to: ModelName,
}

impl Broken {
    /// From the first owner, every epoch is left by one handoff to the owner of the next, up to the one there is now.
    fn judge_owners(&mut self, (owner, epoch): (&ModelName, u64), moves: &[Move]) {
        let mut by_epoch: BTreeMap<u64, Vec<&Move>> = BTreeMap::new();
        for moved in moves {
            by_epoch.entry(moved.epoch).or_default().push(moved);
        }
        let mut expected = MODELS[0];
        for epoch in 1..epoch {
            match by_epoch.remove(&epoch).as_deref() {
                Some([only]) => {
                    self.no_owner += u64::from(only.from.as_str() != expected);
                    expected = only.to.as_str();
                }
                Some(_) => self.two_owners += 1,
                None => self.no_owner += 1,
            }
        }
        // A move from an epoch that never was, and a last owner that nobody handed it to.
        self.two_owners += by_epoch.len() as u64;
        self.no_owner += u64::from(owner.as_str() != expected);
    }

    /// Every turn ended once and its session holds its question and its answer once, and nothing that nobody asked.
    fn judge_turns(&mut self, turns: &BTreeMap<MessageId, Vec<MessageState>>, said: Vec<String>) {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for text in said {
            *counts.entry(text).or_default() += 1;
        }
        for (id, ends) in turns {
            let is_done = ends.iter().all(|end| *end == MessageState::Done);
            let of = |what: &str| counts.remove(&format!("{what} {id}")).unwrap_or_default();
            let both = ["turn", "answer to"].map(of);
            self.lost += u64::from(!is_done || both.contains(&0));
            self.twice += u64::from(both.iter().any(|count| *count > 1));
        }
        self.twice += counts.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> ModelName {
        ModelName::parse(name).unwrap()
    }

    fn moved(epoch: u64, from: &str, to: &str) -> Move {
        Move { epoch, from: model(from), to: model(to) }
    }

    /// Epochs with two owners, and with none.
    fn owners(now: (&str, u64), moves: &[Move]) -> (u64, u64) {
        let mut broken = Broken::default();
        broken.judge_owners((&model(now.0), now.1), moves);
        (broken.two_owners, broken.no_owner)
    }

    #[test]
    fn a_chain_of_owners_without_gap_and_fork_is_whole() {
        let moves = [moved(2, "sonnet", "opus"), moved(1, "opus", "sonnet")];
        assert_eq!(owners(("opus", 3), &moves), (0, 0));
        assert_eq!(owners(("opus", 1), &[]), (0, 0));
    }

    #[test]
    fn a_fork_a_gap_and_an_owner_from_nowhere_are_found() {
        let fork = [moved(1, "opus", "sonnet"), moved(1, "opus", "sonnet")];
        assert_eq!(owners(("sonnet", 2), &fork).0, 1);
        let gap = [moved(1, "opus", "sonnet")];
        assert_eq!(owners(("sonnet", 3), &gap), (0, 1));
        let beyond = [moved(1, "opus", "sonnet"), moved(2, "sonnet", "opus")];
        assert_eq!(owners(("sonnet", 2), &beyond), (1, 0));
        assert_eq!(owners(("opus", 2), &gap), (0, 1));
        let other = [moved(1, "opus", "sonnet"), moved(2, "opus", "sonnet")];
        assert_eq!(owners(("sonnet", 3), &other), (0, 1));
        assert_eq!(owners(("sonnet", 1), &[]), (0, 1));
    }

    /// Turns that are lost, and that were done twice.
    fn turns(end: MessageState, said: &[&str]) -> (u64, u64) {
        let id = MessageId::from_u128(7);
        let said = said.iter().map(|what| format!("{what} {id}")).collect();
        let mut broken = Broken::default();
        broken.judge_turns(&[(id, vec![MessageState::Done, end])].into(), said);
        (broken.lost, broken.twice)
    }

    #[test]
    fn a_turn_that_is_lost_or_done_twice_is_found() {
        use MessageState::{Done, Failed};
        assert_eq!(turns(Done, &["turn", "answer to"]), (0, 0));
        assert_eq!(turns(Failed, &["turn", "answer to"]), (1, 0));
        assert_eq!(turns(Done, &["turn"]), (1, 0));
        assert_eq!(turns(Done, &["turn", "answer to", "answer to"]), (0, 1));
        assert_eq!(turns(Done, &["turn", "answer to", "nobody asked"]), (0, 1));
    }
}
