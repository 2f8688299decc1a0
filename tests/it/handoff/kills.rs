//! `brokerd` killed with SIGKILL at every state of a handoff: one owner and all turns afterwards, and it goes on.

use broker_proto::{AcceptHandoff, Handoff, HandoffState, PackageFilter, Role, SessionOwner};
use broker_tests::{Plan, ScriptedAgent, TestDaemon};

use super::{FACT, Talk, heard, model, said};

/// Agents come back by themselves; what waits for them is not given to others meanwhile.
const PATIENT: &str = "[routing]\nagent_grace = \"10m\"\n[handoff]\noffer_deadline = \"10m\"\n\
    settle_wait = \"10m\"\nbuild_deadline = \"10m\"\n";

impl Talk<TestDaemon> {
    /// A conversation on disk that is large enough for its package to take a while.
    async fn on_disk() -> Self {
        let broker = TestDaemon::start(PATIENT).await;
        let talk = Self::on(broker.client(), broker).await;
        let large = "The tide is high at noon and low at six. ".repeat(2_000);
        let turns = vec![
            said(Role::User, FACT),
            said(Role::Assistant, &large),
            said(Role::User, "Write the plan."),
        ];
        talk.client.append_entries(&talk.id, turns, None).await.unwrap();
        talk
    }

    /// Dies and comes back; gives when, as packages say it.
    async fn killed(&mut self) -> broker_proto::WallTime {
        self.broker.kill();
        let at = broker_proto::WallTime::from_system(std::time::SystemTime::now());
        self.broker.restart().await;
        self.client = self.broker.client();
        at
    }

    async fn silent(&self, name: &str) -> ScriptedAgent {
        self.broker.agent_as(Plan::new(name, &[name]).leaves_offers()).await
    }

    async fn owns(&self, name: &str, epoch: u64) {
        let SessionOwner { model: owner, epoch: now, .. } = self.owner().await;
        assert_eq!((owner, now), (model(name), epoch));
    }

    /// The session goes on with sonnet, which knows what was said; each turn was said once.
    async fn goes_on_with(&self, sonnet: &mut ScriptedAgent, before: &[String]) {
        self.owns("sonnet", 2).await;
        let reader = self.ask_owner("Where is the key?").await;
        let work = sonnet.next().await;
        assert!(heard(work.delivery()).contains(FACT), "{}", heard(work.delivery()));
        work.answer("At harbour 7.").await;
        reader.whole().await;
        let turns = self.turns().await;
        assert_eq!(turns[..before.len()], *before);
        assert_eq!(turns[before.len()..], ["Where is the key?", "At harbour 7."]);
    }
}

fn word(handoff: &Handoff) -> AcceptHandoff {
    let manifest = handoff.manifest.unwrap();
    AcceptHandoff { id: handoff.id, manifest, confirmed: Vec::new() }
}

#[tokio::test]
async fn killed_while_the_package_is_made() {
    let mut talk = Talk::on_disk().await;
    let mut sonnet = talk.broker.agent_as(Plan::new("sonnet", &["sonnet"])).await;
    let before = talk.turns().await;
    let begun = talk.hand_to("sonnet").await.unwrap();
    assert_eq!(begun.state, HandoffState::Building);

    let died = talk.killed().await;

    // It is made again, offered to the agent that comes back, and taken.
    let active = talk.once(begun.id, HandoffState::Active).await;
    let packages = talk.client.packages(PackageFilter::default(), 10, None).await.unwrap().items;
    let package = packages.iter().find(|it| Some(it.header.id) == active.package).unwrap();
    assert!(package.header.created_at >= died, "the kill came before the package was kept");
    sonnet.until_linked().await;
    talk.goes_on_with(&mut sonnet, &before).await;
}

#[tokio::test]
async fn killed_while_it_is_offered() {
    let mut talk = Talk::on_disk().await;
    let mut sonnet = talk.silent("sonnet").await;
    let before = talk.turns().await;
    let begun = talk.hand_to("sonnet").await.unwrap();
    let offered = talk.once(begun.id, HandoffState::Offered).await;

    talk.killed().await;

    talk.owns("opus", 1).await;
    assert_eq!(talk.client.handoff(begun.id).await.unwrap(), offered);
    sonnet.until_linked().await;
    // Whoever takes offers by itself is offered it when it comes.
    sonnet.crash();
    let mut sonnet = talk.broker.agent_as(Plan::new("sonnet", &["sonnet"])).await;
    talk.once(begun.id, HandoffState::Active).await;
    talk.goes_on_with(&mut sonnet, &before).await;
}

#[tokio::test]
async fn killed_once_it_is_accepted() {
    let mut talk = Talk::on_disk().await;
    let mut sonnet = talk.silent("sonnet").await;
    let mut opus = talk.silent("opus").await;
    let mut before = talk.turns().await;
    let _reader = talk.ask_owner("How far are you?").await;
    let running = opus.next().await;
    let begun = talk.hand_to("sonnet").await.unwrap();
    let offered = talk.once(begun.id, HandoffState::Offered).await;
    let accepted = sonnet.client().accept_handoff(word(&offered)).await.unwrap();
    assert_eq!(accepted.state, HandoffState::Accepted);

    talk.killed().await;

    // The old owner has work in hand, which it ends first.
    talk.owns("opus", 1).await;
    assert_eq!(talk.client.handoff(begun.id).await.unwrap().state, HandoffState::Accepted);
    running.answer("Half way.").await;
    talk.once(begun.id, HandoffState::Active).await;
    before.extend(["How far are you?".to_owned(), "Half way.".to_owned()]);
    sonnet.until_linked().await;
    talk.goes_on_with(&mut sonnet, &before).await;
    assert!(opus.at_hand().is_none(), "nothing is asked of it again");
}

#[tokio::test]
async fn killed_before_the_new_owner_answers_and_after() {
    let mut talk = Talk::on_disk().await;
    let mut sonnet = talk.broker.agent_as(Plan::new("sonnet", &["sonnet"])).await;
    let before = talk.turns().await;
    let begun = talk.hand_to("sonnet").await.unwrap();
    let active = talk.once(begun.id, HandoffState::Active).await;

    talk.killed().await;

    talk.owns("sonnet", 2).await;
    assert_eq!(talk.client.handoff(begun.id).await.unwrap(), active);
    sonnet.until_linked().await;
    talk.goes_on_with(&mut sonnet, &before).await;
    let completed = talk.once(begun.id, HandoffState::Completed).await;
    let turns = talk.turns().await;

    talk.killed().await;

    talk.owns("sonnet", 2).await;
    assert_eq!(talk.client.handoff(begun.id).await.unwrap(), completed);
    assert_eq!(talk.turns().await, turns);
    // And the way back, killed while it is offered.
    let back = talk.client.give_back_handoff(begun.id, String::new()).await.unwrap();
    talk.once(back.id, HandoffState::Offered).await;
    talk.killed().await;
    let _opus = talk.broker.agent_as(Plan::new("opus", &["opus"])).await;
    talk.once(back.id, HandoffState::Active).await;
    talk.owns("opus", 3).await;
    assert_eq!(talk.client.handoff(begun.id).await.unwrap().state, HandoffState::Returned);
    assert_eq!(talk.turns().await, turns);
}
