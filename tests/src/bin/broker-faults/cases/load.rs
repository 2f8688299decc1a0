//! Nothing is done but load: a little of everything, too much, a backlog, strict keys; and kills of the broker.

use futures::{FutureExt as _, future::BoxFuture};

use crate::{
    Context, Outcome,
    scene::{SMALL_CAP, Scene},
    world::{Setup, clean},
};

/// Sends for each message that agents settle meanwhile.
const OVERLOAD: u64 = 4;

type Running = BoxFuture<'static, anyhow::Result<Outcome>>;

/// What the judge says of a broker that is left alone.
pub(super) fn calm(context: Context) -> Running {
    async move {
        let lines = context.times(1_500, 30_000) as usize;
        Ok(clean(Scene::Calm.play(&context, Setup::default(), lines).await?))
    }
    .boxed()
}

/// The broker is killed in the middle of everything, and started again on what it left.
pub(super) fn killed(context: Context) -> Running {
    async move {
        let scene = Scene::Killed(context.times(20, 200));
        Ok(clean(scene.play(&context, Setup::default(), 0).await?))
    }
    .boxed()
}

/// Many more sends than agents settle, against small caps: refusals with a delay, and nothing acknowledged is lost.
pub(super) fn overload(context: Context) -> Running {
    async move {
        let lines = context.times(1_800, 30_000) as usize;
        let report = Scene::Overload.play(&context, Setup::default(), lines).await?;
        let figure = |name: &str| report.figures.get(name).copied().unwrap_or(0);
        // What both queues held at the end was settled only when all was quiet.
        let settled = figure("accepted").saturating_sub(2 * SMALL_CAP);
        if figure("sends") < settled * OVERLOAD {
            let why = format!("{} sends are no overload for {settled} settled", figure("sends"));
            return Ok(Outcome::Failed { why, report: Some(Box::new(report)) });
        }
        Ok(clean(report))
    }
    .boxed()
}

/// A backlog of all four priorities, and then one agent that takes it: every share is its due.
pub(super) fn backlog(context: Context) -> Running {
    judged(context, Scene::Backlog, "I-12")
}

/// While one message of a strict key is worked on, no other of it is.
pub(super) fn strict(context: Context) -> Running {
    judged(context, Scene::Strict, "I-11")
}

/// A scene that is there for one promise, which must have been judged.
fn judged(context: Context, scene: Scene, invariant: &'static str) -> Running {
    async move {
        let report = scene.play(&context, Setup::default(), 0).await?;
        if report.invariants.get(invariant).is_none_or(|judged| judged.cases == 0) {
            let why = format!("nothing came up that {invariant} could be judged by");
            return Ok(Outcome::Failed { why, report: Some(Box::new(report)) });
        }
        Ok(clean(report))
    }
    .boxed()
}
