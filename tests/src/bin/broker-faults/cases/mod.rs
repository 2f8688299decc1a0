//! Every case: what it is called, what it does, and how. A new one is a file beside this one and a line here.

mod agents_deaf;
mod agents_held;
mod agents_killed;
mod clock_moved;
mod disk_full;
mod load;
mod planted;
mod power_cut;
mod sync_fails;
mod terminated;

use futures::future::BoxFuture;

use crate::{Context, Outcome};

/// Runs a case to its verdict.
pub(crate) type Run = fn(Context) -> BoxFuture<'static, anyhow::Result<Outcome>>;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What is done, in a few words.
    pub(crate) about: &'static str,
    /// It leaves the processors alone most of the time, so that it may run beside others.
    pub(crate) mostly_waits: bool,
    pub(crate) run: Run,
}

/// In this order; those that mostly wait come together, behind the others.
const CASES: &[Case] = &[
    case("calm", "nothing happens", load::calm),
    case("broker-killed", "SIGKILL of the broker under load, again and again", load::killed),
    case("broker-terminated", "SIGTERM of the broker under load", terminated::run),
    case("overload", "far more sends than agents settle, against small caps", load::overload),
    case("sync-fails", "a sync of the journal fails under load", sync_fails::run),
    case("disk-full", "the disk fills up under load, and empties again", disk_full::run),
    case("power-cut", "the power goes under load, again and again", power_cut::run),
    waiting("backlog", "a backlog of all priorities, then one agent", load::backlog),
    waiting("strict-keys", "strict keys, and an agent that works on many things", load::strict),
    waiting("agents-killed", "SIGKILL of agents", agents_killed::run),
    waiting("agents-held", "SIGSTOP of agents past their leases, then SIGCONT", agents_held::run),
    waiting("agents-deaf", "agents that are slow, and one that never reads", agents_deaf::run),
    waiting("clock-moved", "jumps of the broker's wall clock", clock_moved::run),
];

/// Every case there is.
pub(crate) fn all() -> Vec<Case> {
    CASES.iter().copied().chain(planted::cases()).collect()
}

const fn case(name: &'static str, about: &'static str, run: Run) -> Case {
    Case { name, about, mostly_waits: false, run }
}

const fn waiting(name: &'static str, about: &'static str, run: Run) -> Case {
    Case { name, about, mostly_waits: true, run }
}

/// The agents of most cases: two with mailboxes, one of which serves a model too, and one that only serves.
pub(crate) const AGENTS: [&str; 3] = ["ann", "bea", "cleo"];

/// Starts the usual agents with this conduct.
pub(crate) async fn usual_agents(
    world: &mut crate::world::World,
    conduct: &str,
) -> anyhow::Result<()> {
    world.introduce(&AGENTS).await?;
    for agent in AGENTS {
        usual_agent(world, agent, conduct).await?;
    }
    Ok(())
}

/// Starts one of the usual agents, or starts it again.
pub(crate) async fn usual_agent(
    world: &mut crate::world::World,
    agent: &str,
    conduct: &str,
) -> anyhow::Result<()> {
    let more: &[&str] = match agent {
        "ann" => &["--conduct", conduct],
        "bea" => &["--conduct", conduct, "--models", "opus"],
        _ => &["--conduct", conduct, "--models", "opus,sonnet,local", "--exclusive"],
    };
    world.agent(agent, more).await
}

/// To whom the usual sender sends.
pub(crate) const TO_ALL: [&str; 4] = ["--mailboxes", "ann,bea", "--models", "opus,sonnet"];
