//! I-1, I-3, I-18: the power goes. What was answered with OK had reached the disk.

use std::time::Duration;

use futures::{FutureExt as _, future::BoxFuture};

use super::{TO_ALL, usual_agents};
use crate::{
    Context, Outcome,
    disk::Mounted,
    world::{Setup, World, clean},
};

pub(super) fn run(context: Context) -> BoxFuture<'static, anyhow::Result<Outcome>> {
    async move {
        let disk = match Mounted::image(1024) {
            Ok(disk) => disk,
            Err(why) => {
                let why = format!("no ext4 on a loop device here: {why:#}");
                return Ok(Outcome::Skipped { why });
            }
        };
        let setup = Setup { data: Some(disk.data()), ..Setup::default() };
        let mut world = World::start(&context, setup).await?;
        usual_agents(&mut world, "mixed").await?;
        world.sender("sender", &TO_ALL).await?;
        for time in 1..=context.times(4, 40) {
            let rest = 400 + u64::from(time) * 61 % 700;
            tokio::time::sleep(Duration::from_millis(rest)).await;
            // A broker without power says nothing. On this one, a sync that was under way when the file system was
            // shut down can end as if all were well, although the log of its file system no longer holds it.
            world.hold().await?;
            disk.cut_power()?;
            world.gone().await?;
            disk.power_on()?;
            world.up().await?;
        }
        Ok(clean(world.judge().await?))
    }
    .boxed()
}
