//! `doctor`: everything the house needs, one line each, with a remedy for what is not right.

mod handoffs;
mod rotation;

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use broker_client::Client;
use broker_config::{Config, Loader, Paths};
use broker_proto::types::WallTime;
use serde::Serialize;

use super::{
    consult,
    folder::PrivateFolder,
    up::{self, Programs, found},
};
use crate::{
    cli::{DoctorArgs, Global, user_file},
    exit_code::Exit,
    output::{self, Format},
};

/// A sync slower than this holds up every question noticeably.
const SLOW_SYNC: Duration = Duration::from_millis(20);
/// How often the disk is asked to sync.
const SYNCS: usize = 20;
/// The size of each write before a sync: a page.
const SYNC_BYTES: usize = 4096;
/// 2026-01-01: this program is younger, so an earlier clock is wrong.
const EARLIEST: WallTime = WallTime(1_767_225_600_000);
/// Clocks of two processes on one machine that differ by more do not show the same clock.
const CLOCK_APART: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

#[derive(Debug, Serialize)]
struct Check {
    name: String,
    verdict: Verdict,
    detail: String,
    /// What helps; null where nothing has to.
    remedy: Option<String>,
}

impl Check {
    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), verdict: Verdict::Ok, detail: detail.into(), remedy: None }
    }

    fn warn(name: impl Into<String>, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        Self { name: name.into(), verdict: Verdict::Warn, detail: detail.into(), remedy }
    }

    fn fail(name: impl Into<String>, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, ..Self::warn(name, detail, remedy) }
    }
}

/// Checks everything and prints it.
pub(crate) async fn run(global: &Global, args: &DoctorArgs) -> anyhow::Result<Exit> {
    let mut layers = Loader::new().local();
    if let Some(file) = &args.config {
        layers = layers.file(file);
    }
    // A configuration that cannot be read leaves nothing to check; its error says all there is to say.
    let mut config = global.loaded(layers)?;
    if let Ok(host) = std::env::var("OLLAMA_HOST") {
        config.models = up::with_ollama_at(&config.models, &host)?;
    }
    let paths = Paths::resolve(&config.broker, |name| std::env::var_os(name))?;
    let mut checks = vec![Check::ok("configuration", configuration(&config))];
    let (broker, has_agents) = broker(global).await?;
    checks.extend(models(&config, has_agents).await);
    checks.push(clock(consult::now()));
    checks.push(disk(&paths.data_dir));
    checks.extend(broker);
    checks.extend(rotation::hooks(&config));
    match global.output {
        Format::Json => {
            let is_ok = !failed(&checks);
            output::json(&serde_json::json!({ "checks": checks, "ok": is_ok }))?;
        }
        Format::Text => {
            let rows = checks.iter().map(|check| {
                let verdict = match check.verdict {
                    Verdict::Ok => "ok",
                    Verdict::Warn => "warn",
                    Verdict::Fail => "fail",
                };
                let remedy = check.remedy.clone().unwrap_or_default();
                [verdict.to_owned(), check.name.clone(), check.detail.clone(), remedy]
            });
            output::line(&output::table(["", "CHECK", "FOUND", "REMEDY"], rows))?;
        }
    }
    Ok(if failed(&checks) { Exit::Failed } else { Exit::Done })
}

/// What is configured, and whether the user's own file is a part of it.
fn configuration(config: &Config) -> String {
    let models = format!("{} models", config.models.iter().count());
    match user_file().filter(|file| file.is_file()) {
        Some(file) => format!("{models}, with {}", file.display()),
        None => format!("{models}; `brokerctl handoff init` writes a file of your own"),
    }
}

fn failed(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.verdict == Verdict::Fail)
}

/// Keys, providers and Ollama, as the agents' own program sees them.
///
/// A house that runs already has what it needs, such as a simulator.
async fn models(config: &Config, has_agents: bool) -> Vec<Check> {
    let found = async {
        let programs = Programs::beside_this()?;
        let folder = PrivateFolder::make("doctor")?;
        let file = folder.path().join("effective.toml");
        fs::write(&file, config.to_toml())?;
        anyhow::Ok(found::look(&programs, &file, &[]).await?)
    };
    let found = match found.await {
        Ok(found) => found,
        Err(err) => {
            let remedy = "build everything with `cargo build --workspace`";
            return vec![Check::fail("models", output::sentence(&err), remedy)];
        }
    };
    // One model is enough to work; what others lack is worth a word.
    let has_any = !found.usable().is_empty();
    let mut checks: Vec<Check> = found
        .models
        .iter()
        .map(|model| {
            let name = format!("model {}", model.name);
            let detail = format!("{}: {}", model.provider, model.detail());
            let verdict = if model.is_well() { Verdict::Ok } else { Verdict::Warn };
            Check { name, verdict, detail, remedy: model.remedy.clone() }
        })
        .collect();
    if !has_any && !has_agents {
        let remedy = "set ANTHROPIC_API_KEY or OPENAI_API_KEY, start Ollama, or use `brokerctl up --simulated`";
        checks.push(Check::fail("models", "none can be used", remedy));
    }
    checks
}

/// The wall clock and the one that leases run on.
fn clock(now: WallTime) -> Check {
    if now < EARLIEST {
        let detail = format!("the system clock says {}", output::clock(now, WallTime(u64::MAX)));
        return Check::fail("clock", detail, "set the system's time, or start its time service");
    }
    let first = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let second = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    if (second.tv_sec, second.tv_nsec) < (first.tv_sec, first.tv_nsec) {
        return Check::fail(
            "clock",
            "the boot-time clock runs backwards",
            "report the kernel or the hypervisor",
        );
    }
    Check::ok("clock", output::rfc3339(now).unwrap_or_default())
}

/// How long the disk takes to make 4 KiB durable: the price of every answer that is promised.
fn disk(data_dir: &Path) -> Check {
    match measure(data_dir) {
        Ok(mut times) => {
            times.sort();
            let median = times[times.len() / 2];
            let worst = times[times.len() - 1];
            let millis = |span: Duration| format!("{:.2} ms", span.as_secs_f64() * 1_000.0);
            let detail =
                format!("sync of 4 KiB: median {}, worst {}", millis(median), millis(worst));
            if median > SLOW_SYNC {
                Check::warn("disk", detail, "put --data-dir on a faster disk")
            } else {
                Check::ok("disk", detail)
            }
        }
        Err(err) => {
            let remedy = "give a --data-dir that can be written";
            Check::fail("disk", format!("cannot write in {}: {err}", data_dir.display()), remedy)
        }
    }
}

fn measure(data_dir: &Path) -> io::Result<[Duration; SYNCS]> {
    // Before the first `up` the folder is not there: its nearest parent is on the same disk.
    let folder = data_dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let path = folder.join(format!(".brokerctl-doctor-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path)?;
    // Open until the end of this function; the name is not needed any more.
    fs::remove_file(&path)?;
    let mut times = [Duration::ZERO; SYNCS];
    for time in &mut times {
        file.write_all(&[0; SYNC_BYTES])?;
        let began = Instant::now();
        file.sync_data()?;
        *time = began.elapsed();
    }
    Ok(times)
}

/// Whether a broker answers, and whether its clock is ours; and whether it has agents.
async fn broker(global: &Global) -> anyhow::Result<(Vec<Check>, bool)> {
    let endpoint = global.endpoint()?;
    let client = match Client::connect(&broker_client::Endpoint::unix(endpoint.socket())).await {
        Ok(client) => client,
        Err(_) => {
            let detail = format!("none answers at {endpoint}");
            let check = Check::warn("broker", detail, "start it with `brokerctl up`");
            return Ok((vec![check], false));
        }
    };
    let began = Instant::now();
    let pong = match client.ping(None).await {
        Ok(pong) => pong,
        Err(err) => {
            let remedy = "stop it and start it again with `brokerctl up`";
            return Ok((vec![Check::fail("broker", err.to_string(), remedy)], false));
        }
    };
    let millis = began.elapsed().as_secs_f64() * 1_000.0;
    let words = format!("{} at {endpoint}, journal {}, {millis:.1} ms", pong.version, pong.journal);
    let mut checks = vec![Check::ok("broker", words)];
    if let Some(jump) = client.clock().await.ok().and_then(|clock| clock.jump) {
        let ahead = output::span(jump.ahead);
        let detail = format!("clock_jump: the wall clock jumped {ahead} ahead; expiry is halted");
        let remedy = "if the time is right now: `brokerctl clock confirm`";
        checks.push(Check::warn("broker clock", detail, remedy));
    }
    let agents = client.agents().await.unwrap_or_default();
    let since = agents.iter().map(|agent| agent.since).max();
    if let Some(since) = since {
        let ahead = since.since(WallTime::from_system(SystemTime::now()));
        if ahead > CLOCK_APART {
            let detail = format!("the broker's clock is {} ahead of this one", output::span(ahead));
            checks.push(Check::warn(
                "broker clock",
                detail,
                "the system's time was set back; restart the broker",
            ));
        }
    }
    let connected = agents.iter().filter(|agent| agent.is_connected).count();
    let detail = format!("{connected} of {} connected", agents.len());
    checks.push(if connected > 0 {
        Check::ok("agents", detail)
    } else {
        Check::warn("agents", detail, "`brokerctl up` starts one per model")
    });
    checks.extend(handoffs::look(&client, consult::now()).await);
    checks.extend(rotation::look(&client).await);
    Ok((checks, connected > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_this_program_was_written_is_wrong() {
        assert_eq!(clock(WallTime(0)).verdict, Verdict::Fail);
        assert_eq!(clock(EARLIEST).verdict, Verdict::Ok);
    }

    #[test]
    fn the_disk_is_measured_where_the_data_will_be() {
        let folder = tempfile::tempdir().unwrap();
        let check = disk(&folder.path().join("not/yet/there"));
        assert!(check.detail.starts_with("sync of 4 KiB: median"), "{check:?}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_disk_that_cannot_be_written_fails_with_a_remedy() {
        let check = disk(Path::new("/proc/nowhere"));
        assert_eq!((check.verdict, check.remedy.is_some()), (Verdict::Fail, true));
    }
}
