//! A backlog of all four priorities, and then one agent that takes it: every share is its due.

use futures::{FutureExt as _, future::BoxFuture};

use crate::{
    Context, Outcome,
    world::{Setup, World, clean},
};

pub(super) fn run(context: Context) -> BoxFuture<'static, anyhow::Result<Outcome>> {
    async move {
        let mut world = World::start(&context, Setup::default()).await?;
        world.introduce(&["ann"]).await?;
        world.sender("sender", &["--plan", "backlog", "--mailboxes", "ann"]).await?;
        world.sent("sender").await?;
        world.agent("ann", &["--conduct", "good"]).await?;
        let report = world.judge().await?;
        if report.invariants.get("I-12").is_none_or(|judged| judged.cases == 0) {
            let why = "there was no backlog to judge".to_owned();
            return Ok(Outcome::Failed { why, report: Some(Box::new(report)) });
        }
        Ok(clean(report))
    }
    .boxed()
}
