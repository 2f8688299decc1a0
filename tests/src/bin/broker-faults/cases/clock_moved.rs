//! The broker's wall clock jumps, back by an hour and forward by seconds: nothing that was over comes back, and what
//! lives by the boot-time clock does not notice.

use std::time::Duration;

use broker_tests::history::Fault;
use futures::{FutureExt as _, future::BoxFuture};

use super::{TO_ALL, usual_agents};
use crate::{
    Context, Outcome,
    clock::Clock,
    world::{Setup, World, clean},
};

/// Where the clock is put, one after the other, in milliseconds from the machine's. Forward by less than the minute
/// from which on a jump is halted (I-23).
const OFFSETS_MS: [i64; 4] = [-3_600_000, 20_000, -5_000, 0];

pub(super) fn run(context: Context) -> BoxFuture<'static, anyhow::Result<Outcome>> {
    async move {
        let folder = tempfile::tempdir()?;
        let Some(clock) = Clock::new(folder.path())? else {
            return Ok(Outcome::Skipped { why: "no C compiler `cc` to build a clock with".into() });
        };
        let setup = Setup { variables: clock.variables(), ..Setup::default() };
        let mut world = World::start(&context, setup).await?;
        usual_agents(&mut world, "mixed").await?;
        world.sender("sender", &TO_ALL).await?;
        for offset_ms in OFFSETS_MS.into_iter().cycle().take(context.times(4, 40) as usize) {
            tokio::time::sleep(Duration::from_millis(900)).await;
            clock.set(offset_ms)?;
            world.note(Fault::Clock { offset_ms }).await;
        }
        tokio::time::sleep(Duration::from_millis(900)).await;
        Ok(clean(world.judge().await?))
    }
    .boxed()
}
