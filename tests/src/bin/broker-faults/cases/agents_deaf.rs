//! An agent that gives credit and never reads, and slow ones beside it: what it holds goes to others.

use futures::{FutureExt as _, future::BoxFuture};

use super::{TO_ALL, usual_agent};
use crate::{
    Context, Outcome,
    world::{Setup, World, clean},
};

pub(super) fn run(context: Context) -> BoxFuture<'static, anyhow::Result<Outcome>> {
    async move {
        let mut world = World::start(&context, Setup::default()).await?;
        world.introduce(&["ann", "bea", "cleo", "dora"]).await?;
        let deaf = ["--conduct", "deaf", "--models", "opus", "--capacity", "64"];
        world.agent("dora", &deaf).await?;
        for agent in ["ann", "bea", "cleo"] {
            usual_agent(&mut world, agent, "slow").await?;
        }
        world.sender("sender", &TO_ALL).await?;
        world.noted("sender", context.times(600, 10_000) as usize).await?;
        Ok(clean(world.judge().await?))
    }
    .boxed()
}
