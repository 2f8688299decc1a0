//! `demo`: a house of its own in a temporary folder, everything that can run out or fall over, and what must hold.

mod control;
mod steps;

use std::time::Instant;

use broker_config::{Loader, Paths};

use self::steps::{Asked, Demo, Expectation};
use super::{
    Interrupts,
    folder::PrivateFolder,
    up::{
        Programs,
        house::{House, Plan},
        log::Log,
    },
};
use crate::{cli::DemoArgs, exit_code::Exit, output};

/// Lines of the processes' logs that are shown when something failed.
const TAIL: usize = 40;
/// The pace of the answers: the demo shows routing, not patience.
const TOKENS_PER_SECOND: &str = "400";

/// Runs the demo; the folder and every process are gone when it returns.
pub(crate) async fn run(args: &DemoArgs) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let folder = PrivateFolder::make("demo")?;
    let log = Log::kept();
    let mut interrupts = Interrupts::listen()?;
    let done = match House::new(plan(&folder, log.clone())?) {
        Ok(mut house) => {
            let done = tokio::select! {
                done = show(&mut house, args) => Some(done),
                () = interrupts.next() => None,
            };
            house.stop().await;
            done
        }
        Err(err) => Some(Err(err.into())),
    };
    let Some(done) = done else {
        output::note("interrupted; everything is cleaned up");
        return Ok(Exit::Interrupted);
    };
    let is_ok = match &done {
        Ok(expectations) => expectations.iter().all(|expectation| expectation.outcome.is_ok()),
        Err(_) => false,
    };
    if !is_ok {
        let tail = log.tail();
        for line in tail.iter().skip(tail.len().saturating_sub(TAIL)) {
            output::note(line);
        }
    }
    let expectations = match done {
        Ok(expectations) => expectations,
        Err(err) => {
            let outcome = Err(output::sentence(&err));
            vec![Expectation { name: "the house comes up", outcome }]
        }
    };
    conclude(args, &expectations, is_ok, began)?;
    Ok(if is_ok { Exit::Done } else { Exit::Failed })
}

/// The shipped configuration and nothing of this machine's: the demo is the same everywhere.
fn plan(folder: &PrivateFolder, log: Log) -> anyhow::Result<Plan> {
    let config = Loader::new()
        .local()
        .simulated()
        .set("broker.data_dir", folder.path().display().to_string())
        .set("broker.store_reserve_percent", "0")
        .set("simulator.tokens_per_second", TOKENS_PER_SECOND)
        .load()?;
    let paths = Paths::resolve(&config.broker, |_| None)?;
    Ok(Plan { config, paths, programs: Programs::beside_this()?, log })
}

async fn show(house: &mut House, args: &DemoArgs) -> anyhow::Result<Vec<Expectation>> {
    if !args.json {
        output::note(
            "starting a broker, an agent per model and a simulator of their providers ...",
        );
    }
    house.start().await?;
    let mut demo = Demo::new(house)?;
    demo.run(|expectation| {
        if !args.json {
            output::note(&line(expectation));
        }
    })
    .await;
    if !args.json {
        output::line(&format!("\n{}", table(&demo.asked)))?;
    }
    Ok(demo.expectations)
}

fn line(expectation: &Expectation) -> String {
    match &expectation.outcome {
        Ok(detail) => format!("ok      {}: {detail}", expectation.name),
        Err(reason) => format!("FAILED  {}: {reason}", expectation.name),
    }
}

fn table(asked: &[Asked]) -> String {
    let rows = asked.iter().map(|asked| {
        let summary = &asked.summary;
        let by = summary.model.as_ref().map_or("nobody", |model| model.as_str());
        let degraded = if summary.is_degraded { " (degraded)" } else { "" };
        let simulated = if summary.is_simulated { " [simulated]" } else { "" };
        let usage = &summary.usage;
        [
            format!("{}: {}", summary.asked, asked.title),
            format!("{by}{degraded}{simulated}"),
            asked.lines().join("\n"),
            format!(
                "{} in, {} out",
                output::count(usage.input_tokens),
                output::count(usage.output_tokens)
            ),
            output::money(summary.cost_usd),
            output::span(asked.took),
        ]
    });
    let header = ["ASKED", "ANSWERED BY", "ATTEMPTS AND REASONS", "TOKENS", "COST", "TIME"];
    output::table(header, rows)
}

fn conclude(
    args: &DemoArgs,
    expectations: &[Expectation],
    is_ok: bool,
    began: Instant,
) -> anyhow::Result<()> {
    if args.json {
        output::json(&report(expectations, is_ok))?;
        return Ok(());
    }
    for expectation in expectations.iter().filter(|expectation| expectation.outcome.is_err()) {
        output::note(&line(expectation));
    }
    let kept = expectations.iter().filter(|expectation| expectation.outcome.is_ok()).count();
    let took = output::span(began.elapsed());
    output::line(&format!("\n{kept} of {} expectations held, in {took}", expectations.len()))?;
    if is_ok {
        output::line("try it yourself: brokerctl up --simulated")?;
    }
    Ok(())
}

/// The one JSON object of `demo --json`, which scripts rely on.
fn report(expectations: &[Expectation], is_ok: bool) -> serde_json::Value {
    let expectations: Vec<_> = expectations
        .iter()
        .map(|expectation| {
            let (Ok(detail) | Err(detail)) = &expectation.outcome;
            serde_json::json!({
                "name": expectation.name, "ok": expectation.outcome.is_ok(), "detail": detail,
            })
        })
        .collect();
    serde_json::json!({ "expectations": expectations, "ok": is_ok })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_these_keys_for_scripts() {
        let held = Expectation { name: "a", outcome: Ok("fine".into()) };
        let broken = Expectation { name: "b", outcome: Err("not so".into()) };

        let want = serde_json::json!({
            "expectations": [
                {"name": "a", "ok": true, "detail": "fine"},
                {"name": "b", "ok": false, "detail": "not so"},
            ],
            "ok": false,
        });
        assert_eq!(report(&[held, broken], false), want);
    }
}
