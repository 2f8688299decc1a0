//! One child process: started, listened to, started again, asked to stop.
//!
//! Each child is in a process group of its own, so that Ctrl-C reaches only `up`, which stops the house in order; and
//! each has a pipe on stdin, whose end tells it that `up` is gone.

use std::{
    ffi::OsString,
    io,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    sync::{Arc, OnceLock},
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
    sync::watch,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{log::Log, restart::Restarts};

/// A child's line is cut here: one endless line must not fill the memory.
const LONGEST_LINE: usize = 16 << 10;

/// How a child is started, each time.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// From the second start on instead of `args`, once it is set: the simulator comes back at the address it had.
    pub(crate) args_again: Arc<OnceLock<Vec<OsString>>>,
    pub(crate) set: Vec<(String, SecretString)>,
    pub(crate) unset: Vec<String>,
    /// Exit codes after which starting again would change nothing, and what they mean.
    pub(crate) last_words: &'static [(i32, &'static str)],
}

/// What others see of a child.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) pid: Option<u32>,
    /// How often it has ended.
    pub(crate) ends: u32,
    /// The first line it wrote to stdout.
    pub(crate) first_line: Option<String>,
    /// Why it is not started again.
    pub(crate) given_up: Option<String>,
}

/// A child that is kept running.
#[derive(Debug)]
pub(crate) struct Child {
    name: String,
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Child {
    /// Starts it and keeps it running until it is stopped. `grace` is how long it may take to stop.
    pub(crate) fn keep(
        recipe: Recipe,
        restarts: Restarts,
        grace: Duration,
        log: Log,
        tracker: &TaskTracker,
    ) -> Self {
        let (status_tx, status) = watch::channel(Status::default());
        let stop = CancellationToken::new();
        let name = recipe.name.clone();
        let keeper = Keeper {
            recipe,
            grace,
            log,
            tracker: tracker.clone(),
            status: status_tx,
            stop: stop.clone(),
        };
        let task = tracker.spawn(keeper.run(restarts));
        Self { name, status, stop, task }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Asks it to stop; [`Child::stopped`] waits for it.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Returns once it is gone, by itself or by force after its grace.
    pub(crate) async fn stopped(self) {
        self.stop.cancel();
        // A keeper that panicked has dropped its child, which kills it.
        let _ = self.task.await;
    }
}

struct Keeper {
    recipe: Recipe,
    grace: Duration,
    log: Log,
    tracker: TaskTracker,
    status: watch::Sender<Status>,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(self, mut restarts: Restarts) {
        loop {
            let began = Instant::now();
            let ended = self.once().await;
            self.status.send_modify(|status| {
                status.pid = None;
                status.ends += 1;
            });
            if self.stop.is_cancelled() {
                return;
            }
            let words = match &ended {
                Ok(exit) => in_words(*exit),
                Err(err) => format!("cannot be started: {err}"),
            };
            if let Some(why) = self.last_word(&ended) {
                self.say(&format!("{words}: {why}; not started again"));
                self.status.send_modify(|status| status.given_up = Some(why.to_owned()));
                return;
            }
            let wait = restarts.after(began.elapsed());
            if wait.is_zero() {
                self.say(&format!("{words}; starting it again"));
            } else {
                self.say(&format!("{words}; starting it again in {}", crate::output::span(wait)));
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    fn say(&self, line: &str) {
        self.log.line("up", &format!("{} {line}", self.recipe.name));
    }

    fn last_word(&self, ended: &io::Result<ExitStatus>) -> Option<&'static str> {
        let code = ended.as_ref().ok()?.code()?;
        self.recipe.last_words.iter().find(|(known, _)| *known == code).map(|(_, why)| *why)
    }

    /// Runs it once, to its end.
    async fn once(&self) -> io::Result<ExitStatus> {
        let mut child = self.command().spawn()?;
        // Held until the child is gone: its end is the sign that `up` is.
        let stdin = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            self.tracker.spawn(listen(
                stdout,
                self.recipe.name.clone(),
                self.log.clone(),
                Some(self.status.clone()),
            ));
        }
        if let Some(stderr) = child.stderr.take() {
            self.tracker.spawn(listen(stderr, self.recipe.name.clone(), self.log.clone(), None));
        }
        self.status.send_modify(|status| status.pid = child.id());
        let exit = tokio::select! {
            exit = child.wait() => return exit,
            () = self.stop.cancelled() => {
                signal(child.id(), rustix::process::Signal::TERM);
                // A child in the middle of reading its stdin may not end before that does.
                drop(stdin);
                tokio::time::timeout(self.grace, child.wait()).await
            }
        };
        match exit {
            Ok(exit) => exit,
            Err(_) => {
                self.say(&format!(
                    "did not stop within {}; killed",
                    crate::output::span(self.grace)
                ));
                child.kill().await?;
                child.wait().await
            }
        }
    }

    fn command(&self) -> Command {
        let recipe = &self.recipe;
        let is_again = self.status.borrow().ends > 0;
        let again = recipe.args_again.get().filter(|_| is_again);
        let mut command = Command::new(&recipe.program);
        command
            .args(again.unwrap_or(&recipe.args))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            // Its lines become part of one log, which has colours of its own.
            .env("NO_COLOR", "1");
        for name in &recipe.unset {
            command.env_remove(name);
        }
        for (name, value) in &recipe.set {
            command.env(name, value.expose_secret());
        }
        command
    }
}

/// Sends a signal to a child that may just have ended: then there is nobody to tell.
pub(crate) fn signal(pid: Option<u32>, signal: rustix::process::Signal) {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Passes each line on until the stream ends; the first of stdout is also kept for whoever waits for it.
async fn listen(
    mut stream: impl AsyncRead + Unpin,
    name: String,
    log: Log,
    first: Option<watch::Sender<Status>>,
) {
    let mut first = first;
    let mut chunk = vec![0; 4096];
    let mut pending: Vec<u8> = Vec::new();
    let mut say = |line: &[u8]| {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if let Some(status) = first.take() {
            status.send_modify(|status| {
                status.first_line.get_or_insert_with(|| text.to_owned());
            });
        } else if !text.is_empty() {
            log.line(&name, text);
        }
    };
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        pending.extend_from_slice(&chunk[..read]);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let rest = pending.split_off(end + 1);
            say(&std::mem::replace(&mut pending, rest));
        }
        if pending.len() > LONGEST_LINE {
            say(&std::mem::take(&mut pending));
        }
    }
    if !pending.is_empty() {
        say(&pending);
    }
}

fn in_words(exit: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (exit.code(), exit.signal()) {
        (Some(0), _) => "ended".to_owned(),
        (Some(code), _) => format!("failed with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use broker_config::Up;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(20);

    fn shell(script: &str, last_words: &'static [(i32, &'static str)]) -> Recipe {
        Recipe {
            name: "child".into(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            args_again: Arc::default(),
            set: vec![("CHILD_KEY".into(), "value".into())],
            unset: vec!["PATH".into()],
            last_words,
        }
    }

    fn keep(recipe: Recipe, log: &Log) -> Child {
        keep_for(recipe, TIMEOUT, log)
    }

    fn keep_for(recipe: Recipe, grace: Duration, log: &Log) -> Child {
        let settings = Up {
            restart_min: Duration::from_millis(1),
            restart_max: Duration::from_millis(1),
            stable_after: Duration::from_secs(60),
        };
        let tracker = TaskTracker::new();
        Child::keep(recipe, Restarts::new(&settings), grace, log.clone(), &tracker)
    }

    async fn until(child: &Child, is_so: impl FnMut(&Status) -> bool) -> Status {
        let mut status = child.status();
        let seen = tokio::time::timeout(TIMEOUT, status.wait_for(is_so)).await;
        seen.unwrap().unwrap().clone()
    }

    #[tokio::test]
    async fn a_child_that_is_killed_is_started_again() {
        let log = Log::kept();
        let child = keep(shell("echo up; read x", &[]), &log);
        let first = until(&child, |status| status.first_line.is_some()).await.pid;

        signal(first, rustix::process::Signal::KILL);

        let again = until(&child, |status| status.ends == 1 && status.pid.is_some()).await;
        assert_ne!(again.pid, first);
        child.stopped().await;
        assert!(log.tail().concat().contains("child was killed by signal 9; starting it again"));
    }

    #[tokio::test]
    async fn a_child_with_a_last_word_is_not_started_again() {
        let child = keep(shell("exit 9", &[(9, "superseded")]), &Log::kept());

        let status = until(&child, |status| status.given_up.is_some()).await;

        assert_eq!((status.ends, status.given_up.as_deref()), (1, Some("superseded")));
    }

    #[tokio::test]
    async fn a_child_has_the_environment_it_is_given() {
        let child = keep(shell("echo \"$CHILD_KEY${PATH_WAS:-}\"; read x", &[]), &Log::kept());

        let status = until(&child, |status| status.first_line.is_some()).await;

        assert_eq!(status.first_line.as_deref(), Some("value"));
        child.stopped().await;
    }

    #[tokio::test]
    async fn a_child_that_is_stopped_is_gone_and_not_started_again() {
        let child = keep(shell("echo up; read x", &[]), &Log::kept());
        until(&child, |status| status.first_line.is_some()).await;
        let status = child.status();

        child.stopped().await;

        assert_eq!((status.borrow().ends, status.borrow().pid), (1, None));
    }

    #[tokio::test]
    async fn a_child_that_does_not_stop_is_killed_after_its_grace() {
        let log = Log::kept();
        let recipe = shell("trap '' TERM; echo up; while :; do read x; done", &[]);
        let child = keep_for(recipe, Duration::from_millis(20), &log);
        until(&child, |status| status.first_line.is_some()).await;

        child.stopped().await;

        assert!(log.tail().concat().contains("did not stop within 20ms; killed"));
    }
}
