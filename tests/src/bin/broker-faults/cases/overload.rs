//! Many more sends than agents settle, against small caps: refusals with a delay, and nothing acknowledged is lost.

use std::time::Duration;

use broker_tests::history::Settings;
use futures::{FutureExt as _, future::BoxFuture};

use crate::{
    Context, Outcome,
    world::{Setup, World, clean},
};

/// What a queue may hold: little, so that it is full at once.
const CAP: u64 = 100;
/// Sends for each message that agents settle meanwhile.
const OVERLOAD: u64 = 4;

pub(super) fn run(context: Context) -> BoxFuture<'static, anyhow::Result<Outcome>> {
    async move {
        let settings = Settings { queue_messages: CAP, ..Setup::default().settings };
        let mut world = World::start(&context, Setup { settings, ..Setup::default() }).await?;
        world.introduce(&["ann", "bea"]).await?;
        for agent in ["ann", "bea"] {
            world.agent(agent, &["--conduct", "slow", "--capacity", "1"]).await?;
        }
        world.sender("sender", &["--plan", "flood", "--mailboxes", "ann,bea"]).await?;
        tokio::time::sleep(Duration::from_secs(context.times(3, 60).into())).await;
        let report = world.judge().await?;
        let figure = |name: &str| report.figures.get(name).copied().unwrap_or(0);
        // What both queues held at the end was settled only when all was quiet.
        let settled = figure("accepted").saturating_sub(2 * CAP);
        if figure("sends") < settled * OVERLOAD {
            let why = format!("{} sends are no overload for {settled} settled", figure("sends"));
            return Ok(Outcome::Failed { why, report: Some(Box::new(report)) });
        }
        Ok(clean(report))
    }
    .boxed()
}
