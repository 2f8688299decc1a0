//! I-31: a sync fails. No OK follows it, the broker ends with an error, and what was OK is there afterwards.

use std::process::Command;

use anyhow::ensure;
use futures::{FutureExt as _, future::BoxFuture};

use super::{TO_ALL, usual_agents};
use crate::{
    Context, Outcome,
    world::{Setup, World, clean},
};

pub(super) fn run(context: Context) -> BoxFuture<'static, anyhow::Result<Outcome>> {
    async move {
        let probe =
            ["-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync:error=EIO:when=9+", "true"];
        match Command::new("strace").args(probe).output() {
            Ok(traced) if traced.status.success() => {}
            Ok(traced) => {
                let why = String::from_utf8_lossy(&traced.stderr).trim().to_owned();
                return Ok(Outcome::Skipped { why: format!("strace may not trace here: {why}") });
            }
            Err(_) => return Ok(Outcome::Skipped { why: "strace is not installed".to_owned() }),
        }
        let mut world = World::start(&context, Setup::default()).await?;
        usual_agents(&mut world, "mixed").await?;
        world.sender("sender", &TO_ALL).await?;
        for time in 1..=context.times(3, 30) {
            world.kill().await?;
            // Each thread counts for itself; the one that writes the journal is the first to come so far.
            let when = 25 + u64::from(time) * 17 % 60;
            world.under(&[
                "strace",
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                "trace=fsync,fdatasync",
                "-e",
                &format!("inject=fsync,fdatasync:error=EIO:when={when}+"),
            ]);
            world.up().await?;
            let code = world.ends_by_itself().await?;
            ensure!(code.is_some_and(|code| code != 0), "the broker ended with {code:?}");
            world.under(&[]);
            world.up().await?;
        }
        Ok(clean(world.judge().await?))
    }
    .boxed()
}
