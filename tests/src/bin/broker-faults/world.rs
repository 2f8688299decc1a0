//! One broker with its senders and agents, each a process of its own, and the harm that is done to them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use broker_client::{Client, Endpoint};
use broker_proto::AgentName;
use broker_tests::{
    checker::{self, Report},
    history::{self, Fault, History, HistoryFile, Role, Settings, What},
    program,
};
use rustix::process::Signal;
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdout, Command},
};

use crate::{Context, Outcome};

/// How long a process may take to start, or to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked whether the broker answers.
const LOOK_EVERY: Duration = Duration::from_millis(15);

/// What a broker of these runs is set to; the checker is told the same.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    /// More settings, as TOML.
    pub(crate) more: String,
    /// Which program is the broker.
    pub(crate) broker: &'static str,
    /// The broker's environment.
    pub(crate) variables: Vec<(String, String)>,
    /// Where the broker keeps its data; otherwise in the folder of the run.
    pub(crate) data: Option<PathBuf>,
    /// How long senders wait for the end of everything.
    pub(crate) patience: Duration,
}

impl Default for Setup {
    /// Short leases, so that their ends are seen.
    fn default() -> Self {
        Self {
            settings: Settings { lease_ms: 900, max_lost_leases: 3, queue_messages: 10_000 },
            more: String::new(),
            broker: "brokerd",
            variables: Vec::new(),
            data: None,
            patience: Duration::from_secs(20),
        }
    }
}

impl Setup {
    fn toml(&self) -> String {
        let Settings { lease_ms, max_lost_leases, queue_messages } = self.settings;
        let beat = (lease_ms / 4).max(1);
        format!(
            "[links]\nlease = \"{lease_ms}ms\"\nheartbeat = \"{beat}ms\"\n\
             max_lost_leases = {max_lost_leases}\n\
             [broker]\nqueue_messages = {queue_messages}\nshutdown_grace = \"2s\"\n\
             [routing]\nagent_grace = \"10m\"\nbreaker_failures = 1000\nmax_attempts = 100\n\
             {}\n{}",
            self.more,
            broker_tests::MODELS
        )
    }
}

/// A recorder's process.
#[derive(Debug)]
struct Recorder {
    child: Child,
    stdout: BufReader<ChildStdout>,
    history: PathBuf,
    is_sender: bool,
}

/// One run.
#[derive(Debug)]
pub(crate) struct World {
    context: Context,
    setup: Setup,
    folder: TempDir,
    broker: Option<Child>,
    history: History,
    file: HistoryFile,
    tokens: BTreeMap<String, SecretString>,
    recorders: BTreeMap<String, Recorder>,
    started: u32,
    /// What the broker is started with, before its own name.
    under: Vec<String>,
}

impl World {
    /// A folder and a broker that answers.
    pub(crate) async fn start(context: &Context, setup: Setup) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("a folder for the run")?;
        fs::write(folder.path().join("broker.toml"), setup.toml())?;
        let (history, file) = History::open(&folder.path().join("0-harness.jsonl"), "harness")?;
        let began =
            What::Began { seed: context.seed, role: Role::Harness, pid: std::process::id() };
        history.note(began).await;
        history.note(What::Settings(setup.settings)).await;
        let mut world = Self {
            context: context.clone(),
            setup,
            folder,
            broker: None,
            history,
            file,
            tokens: BTreeMap::new(),
            recorders: BTreeMap::new(),
            started: 0,
            under: Vec::new(),
        };
        world.up().await?;
        Ok(world)
    }

    fn data_dir(&self) -> PathBuf {
        self.setup.data.clone().unwrap_or_else(|| self.folder.path().join("data"))
    }

    fn socket(&self) -> PathBuf {
        self.data_dir().join("broker.sock")
    }

    fn client(&self) -> Client {
        Client::lazy(&Endpoint::unix(self.socket()))
    }

    pub(crate) async fn note(&self, fault: Fault) {
        self.history.note(What::Fault { fault }).await;
    }

    /// Starts the broker on what is in its folder, and returns once it answers.
    pub(crate) async fn up(&mut self) -> anyhow::Result<()> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let broker = program(self.setup.broker);
        let mut command = match self.under.split_first() {
            None => Command::new(&broker),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&broker);
                command
            }
        };
        command
            .env_clear()
            .envs(broker_tests::ANY_DISK)
            .envs(self.setup.variables.iter().cloned())
            .arg("--config")
            .arg(self.folder.path().join("broker.toml"))
            .arg("--data-dir")
            .arg(self.data_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command.spawn().context("brokerd starts")?;
        let client = self.client();
        let answers = async {
            while client.ping(None).await.is_err() {
                if let Some(status) = child.try_wait()? {
                    bail!("brokerd ended with {status} instead of answering");
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, answers).await.context("brokerd does not answer")??;
        self.broker = Some(child);
        self.note(Fault::BrokerUp).await;
        Ok(())
    }

    /// Kills the broker, and returns once it is gone.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.broker.take().context("the broker runs")?;
        ensure!(child.try_wait()?.is_none(), "the broker ended by itself; see its log");
        self.note(Fault::BrokerKilled).await;
        child.kill().await.context("the broker is killed")?;
        self.note(Fault::BrokerGone).await;
        Ok(())
    }

    /// From its next start on the broker is started by this program.
    pub(crate) fn under(&mut self, program: &[&str]) {
        self.under = program.iter().map(ToString::to_string).collect();
    }

    /// Waits until the broker has ended by itself, and gives its exit code.
    pub(crate) async fn ends_by_itself(&mut self) -> anyhow::Result<Option<i32>> {
        let mut child = self.broker.take().context("the broker runs")?;
        self.note(Fault::BrokerKilled).await;
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        self.note(Fault::BrokerGone).await;
        Ok(ended.context("the broker does not end")??.code())
    }

    /// Stops the broker where it is, for good: whoever asks it gets no answer any more.
    pub(crate) async fn hold(&mut self) -> anyhow::Result<()> {
        let pid = self.broker.as_ref().and_then(Child::id).context("the broker runs")?;
        self.note(Fault::BrokerKilled).await;
        broker_tests::signal(pid, Signal::STOP);
        let stands = async {
            while !stands_still(pid)? {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, stands).await.context("the broker does not stand still")?
    }

    /// Kills the broker unless it has ended already; that its end was coming is noted.
    pub(crate) async fn gone(&mut self) -> anyhow::Result<()> {
        let mut child = self.broker.take().context("the broker was started")?;
        child.kill().await.context("the broker is killed")?;
        self.note(Fault::BrokerGone).await;
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("brokerd.log")
    }

    /// How often the broker has logged this, over all its starts.
    pub(crate) fn count_in_log(&self, text: &str) -> usize {
        fs::read_to_string(self.log()).unwrap_or_default().matches(text).count()
    }

    /// Waits until the broker has logged this so often.
    pub(crate) async fn logs(&self, text: &str, times: usize) -> anyhow::Result<()> {
        let logged = async {
            while self.count_in_log(text) < times {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let logged = tokio::time::timeout(PATIENCE, logged).await;
        logged.with_context(|| {
            let log = fs::read_to_string(self.log()).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(3).collect();
            format!("the broker does not log `{text}`; its last words: {last:?}")
        })
    }

    /// Asks the broker to stop, and gives its exit code.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<Option<i32>> {
        let mut child = self.broker.take().context("the broker runs")?;
        self.note(Fault::BrokerStopping).await;
        signal(&child, Signal::TERM);
        let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
        self.note(Fault::BrokerGone).await;
        Ok(ended.context("the broker does not stop")??.code())
    }

    /// Gives agents a token each, so that one can write to them before they come.
    pub(crate) async fn introduce(&mut self, agents: &[&str]) -> anyhow::Result<()> {
        for agent in agents {
            let name = AgentName::parse(agent)?;
            let token = self.client().create_token(&name).await.context("a token")?;
            self.tokens.insert((*agent).to_owned(), token);
        }
        Ok(())
    }

    /// Starts an agent that was introduced. `more`: its conduct and the like.
    pub(crate) async fn agent(&mut self, agent: &str, more: &[&str]) -> anyhow::Result<()> {
        let token = self.tokens.get(agent).context("the agent was introduced")?.clone();
        let variables = [("RECORDER_TOKEN", token.expose_secret())];
        let arguments = [&["agent", "--agent", agent], more].concat();
        self.recorder(agent, &arguments, &variables)
    }

    /// Starts a sender process. `more`: its plan and to whom it sends.
    pub(crate) async fn sender(&mut self, name: &str, more: &[&str]) -> anyhow::Result<()> {
        let patience = format!("{}ms", self.setup.patience.as_millis());
        let arguments = [&["sender", "--patience", &patience], more].concat();
        self.recorder(name, &arguments, &[])
    }

    fn recorder(
        &mut self,
        key: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        self.started += 1;
        let name = format!("{}-{key}", self.started);
        // Two senders of one plan must not send the same messages under the same ids.
        let others = self.recorders.values().filter(|other| other.is_sender).count() as u64;
        let seed = self.context.seed + others * 1_000_003;
        let log = fs::File::create(self.folder.path().join(format!("{name}.log")))?;
        let history = self.folder.path().join(format!("{name}.jsonl"));
        let mut child = Command::new(program("broker-recorder"))
            .env_clear()
            .envs(variables.iter().copied())
            .args(arguments)
            .arg("--socket")
            .arg(self.socket())
            .arg("--history")
            .arg(&history)
            .args(["--name", &name, "--seed", &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("broker-recorder starts")?;
        let stdout = BufReader::new(child.stdout.take().context("its stdout")?);
        let is_sender = arguments.first() == Some(&"sender");
        self.recorders.insert(key.to_owned(), Recorder { child, stdout, history, is_sender });
        Ok(())
    }

    /// Waits until a sender's plan has come to its end.
    pub(crate) async fn sent(&mut self, sender: &str) -> anyhow::Result<()> {
        let recorder = self.recorders.get_mut(sender).context("the sender was started")?;
        let mut line = String::new();
        let reading = recorder.stdout.read_line(&mut line);
        tokio::time::timeout(PATIENCE, reading).await.context("the sender has not sent")??;
        ensure!(line.trim() == "sent", "the sender says `{}`", line.trim());
        Ok(())
    }

    /// Waits until a recorder has noted so many lines, or for as long as the slowest machine may take.
    pub(crate) async fn noted(&self, recorder: &str, lines: usize) -> anyhow::Result<()> {
        let history = &self.recorders.get(recorder).context("the recorder was started")?.history;
        let until = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < until {
            let noted = fs::read(history).unwrap_or_default();
            if noted.iter().filter(|byte| **byte == b'\n').count() >= lines {
                break;
            }
            tokio::time::sleep(LOOK_EVERY * 4).await;
        }
        Ok(())
    }

    /// Kills an agent's process.
    pub(crate) async fn kill_agent(&mut self, agent: &str) -> anyhow::Result<()> {
        let mut recorder = self.recorders.remove(agent).context("the agent was started")?;
        self.note(Fault::AgentKilled { agent: agent.to_owned() }).await;
        recorder.child.kill().await.context("the agent is killed")
    }

    /// Holds an agent's process where it is.
    pub(crate) async fn hold_agent(&self, agent: &str) -> anyhow::Result<()> {
        let recorder = self.recorders.get(agent).context("the agent was started")?;
        self.note(Fault::AgentHeld { agent: agent.to_owned() }).await;
        signal(&recorder.child, Signal::STOP);
        Ok(())
    }

    /// Lets a held agent go on.
    pub(crate) async fn free_agent(&self, agent: &str) -> anyhow::Result<()> {
        let recorder = self.recorders.get(agent).context("the agent was started")?;
        signal(&recorder.child, Signal::CONT);
        self.note(Fault::AgentFreed { agent: agent.to_owned() }).await;
        Ok(())
    }

    /// Lets everything come to its end, and judges. The broker must still stand, and stop in order.
    pub(crate) async fn judge(mut self) -> anyhow::Result<Report> {
        let judged = self.come_to_rest().await;
        drop(self.history);
        self.file.close()?;
        let report = judged.and_then(|()| {
            let mut histories: Vec<PathBuf> = fs::read_dir(self.folder.path())?
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
                .collect();
            histories.sort();
            Ok(checker::check(&history::read(&histories)?))
        });
        let is_wanted = |report: &Report| !report.is_clean && self.context.keeps_findings;
        if report.as_ref().is_ok_and(|report| !is_wanted(report)) {
            return report;
        }
        let kept = self.context.keep.join(self.context.name.replace('/', "-"));
        keep(self.folder.path(), &kept).context("the run's folder is kept")?;
        self.context.progress(&format!("histories and logs: {}", kept.display()));
        report
    }

    async fn come_to_rest(&mut self) -> anyhow::Result<()> {
        for recorder in self.recorders.values_mut() {
            let stdin = recorder.child.stdin.as_mut().context("its stdin")?;
            stdin.write_all(b"quiet\n").await.context("a recorder is told to be quiet")?;
        }
        let patience = self.setup.patience + PATIENCE;
        for is_sender in [true, false] {
            for (name, recorder) in &mut self.recorders {
                if recorder.is_sender != is_sender {
                    continue;
                }
                if !is_sender {
                    drop(recorder.child.stdin.take());
                }
                let ended = tokio::time::timeout(patience, recorder.child.wait()).await;
                let status = ended.with_context(|| format!("{name} does not end"))??;
                ensure!(status.success(), "{name} ended with {status}");
            }
        }
        let code = self.terminate().await?;
        ensure!(code == Some(0), "the broker ended with {code:?}");
        Ok(())
    }
}

fn signal(child: &Child, kind: Signal) {
    if let Some(pid) = child.id() {
        broker_tests::signal(pid, kind);
    }
}

/// Whether no thread of a process runs: each is stopped, or inside of a call to the system.
fn stands_still(pid: u32) -> anyhow::Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(thread?.path().join("stat"))?;
        // Behind the program's name, which may hold anything but this.
        let state = status.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if !matches!(state, Some('T' | 'D')) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Moves the folder of a run to where it stays.
fn keep(folder: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Passed when the judge found nothing.
pub(crate) fn clean(report: Report) -> Outcome {
    let report = Box::new(report);
    if !report.is_whole {
        let why = "a sender did not come to its end".to_owned();
        return Outcome::Failed { why, report: Some(report) };
    }
    if report.is_clean {
        return Outcome::Passed { report: Some(report) };
    }
    let broken = report.broken();
    let first = report.findings.first().map(|finding| finding.detail.clone()).unwrap_or_default();
    let why = format!("{broken:?}, the first: {first}");
    Outcome::Failed { why, report: Some(report) }
}
