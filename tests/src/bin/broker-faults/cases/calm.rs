//! Nothing happens but a load of everything: what the judge says of a broker that is left alone.

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
        tokio::time::sleep(Duration::from_secs(context.times(3, 30).into())).await;
        Ok(clean(world.judge().await?))
    }
    .boxed()
}
