//! Agents die without a word and come back as new processes under their old names.

use std::time::Duration;

use futures::{FutureExt as _, future::BoxFuture};

use super::{AGENTS, TO_ALL, usual_agent, usual_agents};
use crate::{
    Context, Outcome,
    world::{Setup, World, clean},
};

pub(super) fn run(context: Context) -> BoxFuture<'static, anyhow::Result<Outcome>> {
    async move {
        let mut world = World::start(&context, Setup::default()).await?;
        usual_agents(&mut world, "mixed").await?;
        world.sender("sender", &TO_ALL).await?;
        for agent in AGENTS.iter().cycle().take(context.times(9, 90) as usize) {
            tokio::time::sleep(Duration::from_millis(250)).await;
            world.kill_agent(agent).await?;
            usual_agent(&mut world, agent, "mixed").await?;
        }
        Ok(clean(world.judge().await?))
    }
    .boxed()
}
