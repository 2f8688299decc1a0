//! I-28, I-31: the disk fills up. Only settling goes on, nothing is lost, and it ends when there is room again.

use std::time::Duration;

use anyhow::ensure;
use futures::{FutureExt as _, future::BoxFuture};

use super::{TO_ALL, usual_agents};
use crate::{
    Context, Outcome,
    disk::Mounted,
    world::{Setup, World, clean},
};

pub(super) fn run(context: Context) -> BoxFuture<'static, anyhow::Result<Outcome>> {
    async move {
        let disk = match Mounted::memory(640) {
            Ok(disk) => disk,
            Err(why) => return Ok(Outcome::Skipped { why: format!("no tmpfs here: {why:#}") }),
        };
        let setup = Setup { data: Some(disk.data()), ..Setup::default() };
        let mut world = World::start(&context, setup).await?;
        usual_agents(&mut world, "mixed").await?;
        for time in 1..=context.times(2, 8) {
            // To the last byte at once, then into the reserve only; or the other way round.
            for left in if time % 2 == 0 { [150, 0] } else { [0, 150] } {
                // The last byte is met in the middle of something.
                world.sender(&format!("sender-{time}-{left}"), &TO_ALL).await?;
                tokio::time::sleep(Duration::from_millis(300)).await;
                disk.fill(left)?;
                tokio::time::sleep(Duration::from_millis(1_500)).await;
            }
            disk.empty()?;
            world.logs("the store has room again", time as usize).await?;
        }
        ensure!(world.count_in_log("the store is full") > 0, "the store was never full");
        Ok(clean(world.judge().await?))
    }
    .boxed()
}
