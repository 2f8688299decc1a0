//! The broker is asked to stop under load, does so in order, and is started again.

use std::time::Duration;

use anyhow::ensure;
use futures::{FutureExt as _, future::BoxFuture};

use super::{TO_ALL, usual_agents};
use crate::{
    Context, Outcome,
    world::{Setup, World, clean},
};

pub(super) fn run(context: Context) -> BoxFuture<'static, anyhow::Result<Outcome>> {
    async move {
        let mut world = World::start(&context, Setup::default()).await?;
        usual_agents(&mut world, "mixed").await?;
        world.sender("sender", &TO_ALL).await?;
        for _ in 0..context.times(4, 50) {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let code = world.terminate().await?;
            ensure!(code == Some(0), "the broker ended with {code:?}");
            world.up().await?;
        }
        Ok(clean(world.judge().await?))
    }
    .boxed()
}
