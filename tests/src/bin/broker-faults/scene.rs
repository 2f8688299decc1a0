//! Loads that several cases need: who is there, what they do, and for how long.

use std::time::Duration;

use broker_tests::checker::Report;

use crate::{
    Context,
    cases::{AGENTS, TO_ALL, usual_agents},
    world::{Setup, World},
};

/// What a queue of an overload may hold: little, so that it is full at once.
pub(crate) const SMALL_CAP: u64 = 100;

/// More than five leases of planted cases, one after the other.
const WORN_OUT: Duration = Duration::from_millis(4_200);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// Everything at once, and nothing is hurt.
    Calm,
    /// The same, and the broker is killed so many times.
    Killed(u32),
    /// One agent that does all, and one that never ends anything until all is quiet: long enough to wear a message out.
    Idle,
    /// Senders that never rest, agents that are slow, and small caps.
    Overload,
    /// A backlog of all priorities, and then one agent.
    Backlog,
    /// Questions whose answers are streamed, broken off and begun again.
    Asking,
    /// Mail that expires before its agent comes.
    Expiring,
    /// Strict keys, and an agent that works on many things at once.
    Strict,
}

impl Scene {
    /// Settings that this scene needs.
    pub(crate) fn setup(self, setup: Setup) -> Setup {
        let mut setup = setup;
        if self == Self::Overload {
            setup.settings.queue_messages = SMALL_CAP;
        }
        setup
    }

    /// Plays the scene until the sender has noted so many lines, and gives what the judge says. Scenes that have an end
    /// of their own play to that.
    pub(crate) async fn play(
        self,
        context: &Context,
        setup: Setup,
        lines: usize,
    ) -> anyhow::Result<Report> {
        let mut world = World::start(context, self.setup(setup)).await?;
        match self {
            Self::Calm => {
                usual_agents(&mut world, "mixed").await?;
                world.sender("sender", &TO_ALL).await?;
                world.noted("sender", lines).await?;
            }
            Self::Killed(times) => {
                usual_agents(&mut world, "mixed").await?;
                world.sender("sender", &TO_ALL).await?;
                for time in 1..=times {
                    // At another place of whatever repeats, each time.
                    let rest = 150 + u64::from(time) * 37 % 400;
                    tokio::time::sleep(Duration::from_millis(rest)).await;
                    world.kill().await?;
                    world.up().await?;
                    if time % 10 == 0 {
                        context.progress(&format!("killed {time} of {times} times"));
                    }
                }
                world.noted("sender", lines).await?;
            }
            Self::Idle => {
                world.introduce(&["ann", "dora"]).await?;
                let good = ["--conduct", "good", "--models", "opus,sonnet,local"];
                world.agent("ann", &good).await?;
                world.agent("dora", &["--conduct", "idle"]).await?;
                let to = ["--mailboxes", "ann,dora", "--models", "opus"];
                world.sender("sender", &to).await?;
                world.noted("sender", lines).await?;
                tokio::time::sleep(WORN_OUT).await;
            }
            Self::Overload => {
                world.introduce(&AGENTS).await?;
                for agent in ["ann", "bea"] {
                    world.agent(agent, &["--conduct", "slow", "--capacity", "1"]).await?;
                }
                world.sender("sender", &["--plan", "flood", "--mailboxes", "ann,bea"]).await?;
                world.noted("sender", lines).await?;
            }
            Self::Backlog => {
                world.introduce(&["ann"]).await?;
                world.sender("sender", &["--plan", "backlog", "--mailboxes", "ann"]).await?;
                world.sent("sender").await?;
                // Now all of it was surely there before the first is chosen.
                tokio::time::sleep(Duration::from_millis(600)).await;
                world.agent("ann", &["--conduct", "good"]).await?;
            }
            Self::Asking => {
                usual_agents(&mut world, "mixed").await?;
                let plan = ["--plan", "asking"];
                world.sender("sender", &[&TO_ALL[..], &plan].concat()).await?;
                // Each answer is many lines.
                world.noted("sender", lines * 3).await?;
            }
            Self::Expiring => {
                world.introduce(&["ann"]).await?;
                world.sender("sender", &["--plan", "expiring", "--mailboxes", "ann"]).await?;
                world.sent("sender").await?;
                // Past every deadline, its resolution and the way of a delivery.
                tokio::time::sleep(Duration::from_millis(2_500)).await;
                world.agent("ann", &["--conduct", "good"]).await?;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            Self::Strict => {
                world.introduce(&["ann"]).await?;
                world.agent("ann", &["--conduct", "slow", "--capacity", "32"]).await?;
                world.sender("sender", &["--plan", "strict", "--mailboxes", "ann"]).await?;
                world.sent("sender").await?;
            }
        }
        world.judge().await
    }
}
