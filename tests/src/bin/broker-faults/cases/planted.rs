//! The judge is judged: a broker with one bug in it, which must be found as what it is; and one without, of which
//! nothing may be found.

use std::time::Duration;

use anyhow::Context as _;
use broker_tests::{
    checker::{Report, Verdict},
    history::Settings,
};
use futures::{FutureExt as _, future::BoxFuture};

use super::{Case, waiting};
use crate::{Context, Outcome, scene::Scene, world::Setup};

/// The broker with bugs in it: `cargo build --workspace --features broker/planted-bugs --bin brokerd-planted`.
const BROKER: &str = "brokerd-planted";

/// Lines that the sender notes before all becomes quiet: enough that every bug comes up, however slow the machine is.
const LINES: usize = 500;

/// What is planted, where it shows, and what the judge must call it.
struct Planted {
    /// The case; what comes behind the stroke is the bug.
    case: &'static str,
    about: &'static str,
    scene: Scene,
    /// The promise it breaks, and how; `None` for a broker without a bug.
    breaks: Option<Broken>,
    /// Promises that it breaks too, now and then.
    also: &'static [Broken],
}

type Broken = (&'static str, Verdict);

const fn planted(
    case: &'static str,
    about: &'static str,
    scene: Scene,
    breaks: Broken,
    also: &'static [Broken],
) -> Planted {
    Planted { case, about, scene, breaks: Some(breaks), also }
}

const fn without(case: &'static str, scene: Scene) -> Planted {
    Planted { case, about: "no bug", scene, breaks: None, also: &[] }
}

use Verdict::{Altered, Duplicated, Early, Late, Lost, Reordered, Unknown, Wrong};

#[rustfmt::skip]
const PLANTED: &[Planted] = &[
    without("planted/none", Scene::Killed(4)),
    without("planted/none-idle", Scene::Idle),
    without("planted/none-asking", Scene::Asking),
    without("planted/none-expiring", Scene::Expiring),
    planted("planted/ok-before-sync", "a send is acknowledged before its sync",
        Scene::Killed(6), ("I-1", Lost),
        &[("I-2", Unknown), ("I-9", Reordered), ("I-10", Reordered), ("I-33", Wrong)]),
    planted("planted/settled-before-sync", "a settlement is acknowledged before its sync",
        Scene::Killed(6), ("I-18", Duplicated), &[("I-16", Early), ("I-19", Duplicated), ("I-25", Duplicated)]),
    planted("planted/stale-token", "a stale token settles",
        Scene::Calm, ("I-14", Wrong), &[("I-19", Duplicated), ("I-20", Lost), ("I-25", Wrong)]),
    planted("planted/forged-token", "a forged token settles",
        Scene::Calm, ("I-14", Wrong), &[("I-20", Lost)]),
    planted("planted/dedup-forgotten", "a restart forgets ended ids",
        Scene::Killed(6), ("I-7", Duplicated), &[("I-7", Altered), ("I-33", Wrong)]),
    planted("planted/id-reused", "another message under a known id is taken",
        Scene::Calm, ("I-7", Duplicated), &[]),
    planted("planted/attempts-off-by-one", "one lost lease more than allowed",
        Scene::Idle, ("I-25", Late), &[]),
    planted("planted/expiry-as-text", "deadlines are compared as texts",
        Scene::Expiring, ("I-22", Late), &[]),
    planted("planted/expiry-as-failure", "what expires is said to have failed",
        Scene::Expiring, ("I-24", Wrong), &[]),
    planted("planted/lost-reply", "a question is done without its reply",
        Scene::Calm, ("I-20", Lost), &[]),
    planted("planted/reply-of-another", "a question has the reply of another",
        Scene::Calm, ("I-20", Altered), &[("I-20", Lost)]),
    planted("planted/drop-when-full", "a full queue acknowledges and drops",
        Scene::Overload, ("I-28", Lost), &[]),
    planted("planted/priority-ignored", "first come, first served",
        Scene::Backlog, ("I-12", Reordered), &[("I-12", Late)]),
    planted("planted/order-reversed", "last come, first served",
        Scene::Backlog, ("I-10", Reordered), &[("I-12", Reordered), ("I-12", Late)]),
    planted("planted/strict-key-ignored", "a later one of a strict key does not wait",
        Scene::Strict, ("I-11", Reordered), &[]),
    planted("planted/body-altered", "a letter is changed on the way",
        Scene::Calm, ("I-5", Altered), &[]),
    planted("planted/lease-never-ends", "a lost lease never ends",
        Scene::Idle, ("I-16", Late), &[("I-6", Late)]),
    planted("planted/lease-too-short", "a lease lasts an eighth of its time",
        Scene::Idle, ("I-16", Early), &[]),
    planted("planted/cancel-forgotten", "a cancel is acknowledged and forgotten",
        Scene::Idle, ("I-37", Lost), &[("I-37", Late)]),
    planted("planted/settled-twice", "the second word of a token counts",
        Scene::Calm, ("I-19", Duplicated), &[("I-20", Lost)]),
    planted("planted/number-reused", "numbers begin anew",
        Scene::Calm, ("I-9", Duplicated), &[("I-9", Reordered)]),
    planted("planted/rejected-again", "what was rejected comes again",
        Scene::Calm, ("I-25", Duplicated), &[("I-25", Wrong)]),
    planted("planted/delivered-twice", "one lease is given out twice",
        Scene::Calm, ("I-13", Duplicated), &[("I-16", Early), ("I-29", Early)]),
    planted("planted/token-repeated", "a redelivery has the token of the one before",
        Scene::Calm, ("I-13", Duplicated), &[("I-10", Reordered), ("I-19", Duplicated), ("I-20", Lost)]),
    planted("planted/no-terminal-frame", "a stream ends without saying how",
        Scene::Calm, ("I-35", Lost), &[]),
    planted("planted/attempts-joined", "two attempts are joined unsaid",
        Scene::Asking, ("I-35", Altered), &[("I-20", Lost)]),
    planted("planted/credit-ignored", "deliveries beyond the credit",
        Scene::Overload, ("I-29", Early), &[("I-12", Reordered)]),
];

pub(super) fn cases() -> impl Iterator<Item = Case> {
    PLANTED.iter().map(|planted| waiting(planted.case, planted.about, run))
}

fn run(context: Context) -> BoxFuture<'static, anyhow::Result<Outcome>> {
    async move {
        let planted = PLANTED.iter().find(|planted| planted.case == context.name);
        let planted = planted.context("a planted case")?;
        let name = planted.case.split_once('/').map_or("", |(_, name)| name);
        let bug = planted.breaks.map(|_| ("PLANTED_BUG".to_owned(), name.to_owned()));
        // An eighth of it must stand out from what a busy machine takes for a sync.
        let lease_ms = if name == "lease-too-short" { 2_400 } else { 600 };
        let setup = Setup {
            settings: Settings { lease_ms, ..Setup::default().settings },
            broker: BROKER,
            variables: bug.into_iter().collect(),
            // Only a lease that never ends is waited for as long.
            patience: Duration::from_secs(if name == "lease-never-ends" { 6 } else { 20 }),
            ..Setup::default()
        };
        // The history of a bug that was found is of no use any more.
        let context = Context { keeps_findings: planted.breaks.is_none(), ..context };
        let report = planted.scene.play(&context, setup, LINES).await?;
        Ok(judge_the_judge(planted, report))
    }
    .boxed()
}

fn judge_the_judge(planted: &Planted, report: Report) -> Outcome {
    let found = report.broken();
    let is = |broken: &Broken, found: &(String, Verdict)| (found.0.as_str(), found.1) == *broken;
    let missed = planted.breaks.filter(|broken| !found.iter().any(|found| is(broken, found)));
    let expected = |found: &(String, Verdict)| {
        planted.breaks.iter().chain(planted.also).any(|broken| is(broken, found))
    };
    let others: Vec<_> = found.iter().filter(|found| !expected(found)).collect();
    let report = Some(Box::new(report));
    if let Some(missed) = missed {
        return Outcome::Failed { why: format!("{missed:?} was not found"), report };
    }
    if !others.is_empty() {
        return Outcome::Failed { why: format!("found what is not there: {others:?}"), report };
    }
    Outcome::Passed { report }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_bug_that_can_be_planted_has_its_case() {
        let source = include_str!("../../../../../broker/src/core/planted.rs");
        let bugs = source.lines().filter_map(|line| line.trim().strip_suffix("\","));
        let bugs: BTreeSet<&str> =
            bugs.filter_map(|line| Some(line.rsplit_once(" = \"")?.1)).collect();
        let planted = PLANTED.iter().filter(|planted| planted.breaks.is_some());
        let cases: BTreeSet<&str> =
            planted.filter_map(|planted| planted.case.strip_prefix("planted/")).collect();
        assert!(bugs.len() >= 16, "{bugs:?}");
        assert_eq!(bugs, cases);
    }
}
