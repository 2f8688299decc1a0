//! The scenario of the ledger: what it costs to count a call, without budgets and with some.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use broker_client::Client;
use broker_proto::{ModelName, Usage, UsageRecord};

use crate::{
    Settings,
    ask::{Ask, Heard},
    brokerd::Brokerd,
    report::Figure,
    sample::{Crowd, many_at_once},
};

const AT_ONCE: usize = 64;
const RAMP: Duration = Duration::from_millis(250);
const SLICE: Duration = Duration::from_secs(2);
const TURNS: usize = 3;

/// Calls that somebody made elsewhere.
struct Records {
    clients: Vec<Client>,
    model: ModelName,
}

impl Ask for Records {
    async fn ask(&self, asker: usize) -> anyhow::Result<Heard> {
        let client = &self.clients[asker % self.clients.len()];
        let usage = Usage { input_tokens: Some(900), output_tokens: Some(100), ..Usage::default() };
        let began = Instant::now();
        client.record_usage(Some(&self.model), None, UsageRecord::Tokens(usage)).await?;
        Ok(Heard { whole: began.elapsed(), ..Heard::default() })
    }
}

/// Eight budgets that nothing comes near.
fn budgets() -> String {
    let budget = |scope: &str, unit: &str, window: &str| {
        format!(
            "\n[[budgets]]\nscope = \"{scope}\"\nwindow = \"{window}\"\nunit = \"{unit}\"\nlimit = 1000000000\n"
        )
    };
    [("model", "tokens"), ("key", "requests"), ("namespace", "tokens"), ("model", "usd")]
        .iter()
        .flat_map(|(scope, unit)| ["day", "month"].map(|window| budget(scope, unit, window)))
        .collect()
}

/// Recorded calls, many at a time, at a broker without budgets and in turns at one with eight.
pub(crate) async fn ledger(settings: &Settings) -> anyhow::Result<Vec<Figure>> {
    let mut measured = Vec::new();
    let (plain, bounded) = (settings.folder()?, settings.folder()?);
    let brokers =
        [Brokerd::with(plain.path(), "").await?, Brokerd::with(bounded.path(), &budgets()).await?];
    let mut callers = Vec::new();
    for broker in &brokers {
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(broker.client().await?);
        }
        let model = ModelName::parse("opus")?;
        callers.push(Arc::new(Records { clients, model }));
        measured.push((Crowd::new()?, 0.0));
    }
    for _ in 0..TURNS {
        for ((broker, caller), (crowd, cpu)) in brokers.iter().zip(&callers).zip(&mut measured) {
            let before = broker.cpu_seconds();
            crowd.add(&many_at_once(caller, AT_ONCE, RAMP, SLICE).await?)?;
            *cpu += broker.cpu_seconds() - before;
        }
    }
    let counted = SLICE.as_secs_f64() / (RAMP + SLICE).as_secs_f64();
    let each = |(crowd, cpu): &(Crowd, f64)| cpu * counted * 1e6 / crowd.times.len() as f64;
    let (without, with) = (each(&measured[0]), each(&measured[1]));
    let figures = vec![
        Figure::new("ledger_rate_64", measured[0].0.rate(), "/s"),
        Figure::new("ledger_cpu_64", without, "us"),
        Figure::new("budgets_rate_64", measured[1].0.rate(), "/s"),
        Figure::new("budgets_cpu_64", with, "us").beside("without budgets", without),
    ];
    for broker in brokers {
        broker.stop().await;
    }
    Ok(figures)
}
