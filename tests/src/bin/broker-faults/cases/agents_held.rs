//! Agents stand still past their leases, and then go on as if nothing had been: what they settle late is refused.

use std::time::Duration;

use futures::{FutureExt as _, future::BoxFuture};

use super::{AGENTS, TO_ALL, usual_agents};
use crate::{
    Context, Outcome,
    world::{Setup, World, clean},
};

pub(super) fn run(context: Context) -> BoxFuture<'static, anyhow::Result<Outcome>> {
    async move {
        let setup = Setup::default();
        let past_its_lease = Duration::from_millis(setup.settings.lease_ms * 2);
        let mut world = World::start(&context, setup).await?;
        usual_agents(&mut world, "mixed").await?;
        world.sender("sender", &TO_ALL).await?;
        for agent in AGENTS.iter().cycle().take(context.times(3, 60) as usize) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            world.hold_agent(agent).await?;
            tokio::time::sleep(past_its_lease).await;
            world.free_agent(agent).await?;
        }
        Ok(clean(world.judge().await?))
    }
    .boxed()
}
