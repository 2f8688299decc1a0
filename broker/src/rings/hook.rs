//! What wakes one member: a program, run within a deadline, and a file, written in one step.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    pin::pin,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use broker_proto::AgentName;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;
use tokio::{io::AsyncReadExt as _, process::Command};

use crate::{context::package::rfc3339, core::ring::Call};

/// What is kept of what a program says on stderr, and shown of its first line.
const SAID: usize = 4096;
const SHOWN: usize = 200;
/// How long a program's last words are waited for once it has ended: what it left running may hold its stderr.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Why a member was not woken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot write `{}`", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("cannot start `{program}`")]
    Start { program: String, source: io::Error },
    #[error("cannot wait for `{program}`")]
    Wait { program: String, source: io::Error },
    #[error("`{program}` {}{}", how(*status), after(said))]
    Failed { program: String, status: ExitStatus, said: String },
    #[error("`{program}` did not end within {deadline:?} and was killed{}", after(said))]
    Late { program: String, deadline: Duration, said: String },
}

fn how(status: ExitStatus) -> String {
    status.code().map_or("was killed by a signal".to_owned(), |code| format!("exited with {code}"))
}

fn after(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// What wakes one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hook {
    /// A program and its arguments; empty: none.
    pub(super) command: Vec<String>,
    pub(super) file: Option<PathBuf>,
}

impl Hook {
    /// Writes the file, then runs the program.
    ///
    /// # Errors
    /// [`Error`], with the first line that the program said.
    pub(super) async fn run(&self, call: &Call, deadline: Duration) -> Result<(), Error> {
        if let Some(path) = self.file.clone() {
            let text = note(call);
            let written = tokio::task::spawn_blocking({
                let path = path.clone();
                move || write(&path, text.as_bytes())
            });
            let written = written.await.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
            written.map_err(|source| Error::File { path, source })?;
        }
        match self.command.split_first() {
            Some((program, arguments)) => run(program, arguments, call, deadline).await,
            None => Ok(()),
        }
    }
}

fn name(agent: Option<&AgentName>) -> &str {
    agent.map_or("", AgentName::as_str)
}

fn note(call: &Call) -> String {
    let note = json!({
        "role": call.role.as_str(),
        "from": call.from.as_ref().map(AgentName::as_str),
        "to": call.to.as_str(),
        "reason": call.reason,
        "at": rfc3339(call.at),
    });
    format!("{note}\n")
}

/// Replaces the file in one step, so that whoever watches it reads all of it; only its owner may.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let beside = folder.join(format!(".{}.{}", name.display(), std::process::id()));
    // One that a stopped broker left.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let moved = written.and_then(|()| fs::rename(&beside, path));
    if moved.is_err() {
        let _ = fs::remove_file(&beside);
    }
    moved
}

/// A program's process group, killed when this is dropped before the program has ended.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            // It may have ended meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn run(
    program: &str,
    arguments: &[String],
    call: &Call,
    deadline: Duration,
) -> Result<(), Error> {
    let named = || program.to_owned();
    let mut child = Command::new(program)
        .args(arguments)
        .env("BROKER_WAKE_ROLE", call.role.as_str())
        .env("BROKER_WAKE_FROM", name(call.from.as_ref()))
        .env("BROKER_WAKE_TO", call.to.as_str())
        .env("BROKER_WAKE_REASON", call.reason.replace('\0', " "))
        .env("BROKER_WAKE_AT", rfc3339(call.at))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Error::Start { program: named(), source })?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let mut group = Group(pid);
    let mut said = Vec::new();
    let stderr = child.stderr.take();
    let ended = {
        let mut listening = pin!(listen(stderr, &mut said));
        let mut is_silent = false;
        let waiting = async {
            loop {
                tokio::select! {
                    status = child.wait() => break (status, is_silent),
                    () = &mut listening, if !is_silent => is_silent = true,
                }
            }
        };
        let ended = tokio::time::timeout(deadline, waiting).await;
        if let Ok((_, false)) = &ended {
            let _ = tokio::time::timeout(LAST_WORDS, listening).await;
        }
        ended.map(|(status, _)| status)
    };
    let said = first_line(&said);
    match ended {
        Err(_) => {
            drop(group);
            // Reaped, so that nothing of it is left behind.
            let _ = child.wait().await;
            Err(Error::Late { program: named(), deadline, said })
        }
        Ok(Err(source)) => Err(Error::Wait { program: named(), source }),
        Ok(Ok(status)) => {
            // What it has started may go on: that is what waking is.
            group.0 = None;
            if status.success() {
                Ok(())
            } else {
                Err(Error::Failed { program: named(), status, said })
            }
        }
    }
}

/// Reads what a program says until it is silent, and keeps the beginning.
async fn listen(stderr: Option<tokio::process::ChildStderr>, said: &mut Vec<u8>) {
    let Some(mut stderr) = stderr else { return };
    let mut chunk = [0; 1024];
    while let Ok(read @ 1..) = stderr.read(&mut chunk).await {
        let room = SAID.saturating_sub(said.len()).min(read);
        said.extend_from_slice(&chunk[..room]);
    }
}

fn first_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().filter(|char| !char.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use broker_proto::{RoleName, WallTime};
    use serde_json::Value;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn call() -> Call {
        let agent = |name| AgentName::parse(name).unwrap();
        Call {
            role: RoleName::parse("builder").unwrap(),
            from: Some(agent("pc1")),
            to: agent("pc2"),
            reason: "3 of 3 rate limits".into(),
            at: WallTime(1_763_915_400_000),
        }
    }

    fn shell(script: &str) -> Hook {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        Hook { command, file: None }
    }

    #[tokio::test]
    async fn a_program_learns_who_is_woken_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("said");
        let script = format!(
            "echo \"$BROKER_WAKE_ROLE $BROKER_WAKE_FROM $BROKER_WAKE_TO $BROKER_WAKE_REASON $BROKER_WAKE_AT\" > {}",
            path.display()
        );
        shell(&script).run(&call(), LONG).await.unwrap();
        let said = fs::read_to_string(path).unwrap();
        assert_eq!(said, "builder pc1 pc2 3 of 3 rate limits 2025-11-23T16:30:00Z\n");
    }

    #[tokio::test]
    async fn a_program_that_fails_says_why_in_its_first_line() {
        let error = shell("echo; echo 'no route to pc2' >&2; echo more >&2; exit 3");
        let error = error.run(&call(), LONG).await.unwrap_err();
        assert_eq!(error.to_string(), "`sh` exited with 3: no route to pc2");
        let none = Hook { command: vec!["/nowhere/wake".into()], file: None };
        let error = none.run(&call(), LONG).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot start `/nowhere/wake`");
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let script =
            format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait", path.display());
        let hook = shell(&script);
        let error = hook.run(&call(), Duration::from_secs(2)).await.unwrap_err();
        assert!(matches!(error, Error::Late { .. }), "{error}");
        let started: i32 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
        // Its parent is gone: whoever adopted it reaps it, and until then it is a zombie.
        loop {
            let state = fs::read_to_string(format!("/proc/{started}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                break;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_a_program_starts_lives_on_and_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let script = format!("sleep 1000 & echo $! > {}", path.display());
        shell(&script).run(&call(), LONG).await.unwrap();
        let started: i32 = fs::read_to_string(path).unwrap().trim().parse().unwrap();
        let started = Pid::from_raw(started).unwrap();
        rustix::process::kill_process(started, Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_file_has_the_whole_note_and_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pc2.json");
        fs::write(&path, "what was there before").unwrap();
        let hook = Hook { command: vec![], file: Some(path.clone()) };
        hook.run(&call(), LONG).await.unwrap();
        let note: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let want = json!({
            "role": "builder", "from": "pc1", "to": "pc2", "reason": "3 of 3 rate limits",
            "at": "2025-11-23T16:30:00Z",
        });
        assert_eq!(note, want);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");

        let hook = Hook { command: vec![], file: Some(folder.path().join("none/pc2.json")) };
        assert!(matches!(hook.run(&call(), LONG).await, Err(Error::File { .. })));
    }
}
