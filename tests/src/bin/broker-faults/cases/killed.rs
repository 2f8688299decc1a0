//! The broker is killed in the middle of everything, and started again on what it left.

use std::time::Duration;

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
        let times = context.times(20, 200);
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
        Ok(clean(world.judge().await?))
    }
    .boxed()
}
