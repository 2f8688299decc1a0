//! The whole house in front of the engine: `brokerctl up` with a configuration of its own, and `brokerctl consult`.

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::engine::{Engine, MODEL};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// `brokerctl up` and what it keeps running.
struct House {
    up: Child,
    _stdin: Option<ChildStdin>,
    folder: TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        // It stops its own children in order; killed, it would leave that to their stdin.
        let pid = i32::try_from(self.up.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.up.wait();
    }
}

impl House {
    /// A house of two models, one on each wire, with the engine behind both.
    fn start(engine: &Engine) -> Self {
        let folder = TempDir::new().unwrap();
        let config = folder.path().join("config.toml");
        let address = engine.address();
        // The window is said to be larger than it is, so that the engine is what refuses.
        let model = |name: &str, provider: &str, version: &str| {
            format!(
                "[[models]]\nname = \"{name}\"\nprovider = \"{provider}\"\nid = \"{MODEL}\"\n\
                 base_url = \"http://{address}{version}\"\ncontext_window = 100_000\n\
                 max_output_tokens = 64\nprices = {{ input = 1.0, output = 2.0 }}\n"
            )
        };
        fs::write(&config, model("chat", "openai", "/v1") + &model("messages", "anthropic", ""))
            .unwrap();
        let mut up = brokerctl(folder.path())
            .args(["up", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .env("OPENAI_API_KEY", "any")
            .env("ANTHROPIC_API_KEY", "any")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, ready) = mpsc::channel();
        let (stdout, mut stderr) = (up.stdout.take().unwrap(), up.stderr.take().unwrap());
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let (told, log) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            told.send(text)
        });
        let stdin = up.stdin.take();
        let house = Self { up, _stdin: stdin, folder };
        match ready.recv_timeout(READY_WITHIN) {
            Ok(line) => assert!(line.starts_with("ready:"), "{line}"),
            Err(_) => {
                drop(house);
                panic!("not ready: {}", log.recv_timeout(READY_WITHIN).unwrap_or_default());
            }
        }
        house
    }

    fn consult(&self, model: &str, question: &str) -> (Output, Value) {
        let socket = self.folder.path().join("data/broker.sock");
        let mut asking = brokerctl(self.folder.path())
            .args(["consult", "--output", "json", "--deadline", "30s", "--model", model, "-"])
            .args(["--endpoint", &format!("unix:{}", socket.display())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        asking.stdin.take().unwrap().write_all(question.as_bytes()).unwrap();
        let output = asking.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let answer = serde_json::from_str(&said).unwrap_or_else(|err| {
            panic!("{err}: {said}{}", String::from_utf8_lossy(&output.stderr))
        });
        (output, answer)
    }
}

/// The program beside this test, with nothing of this process's environment.
fn brokerctl(home: &Path) -> Command {
    let built = env::current_exe().unwrap();
    let program: PathBuf = built.ancestors().nth(2).unwrap().join("brokerctl");
    assert!(program.exists(), "{} is not built: cargo build --workspace", program.display());
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home).current_dir(home);
    command
}

#[test]
fn the_house_answers_from_the_engine_on_both_wires_and_passes_its_counts_on() {
    let Some(engine) = Engine::start() else { return };
    let house = House::start(&engine);
    for model in ["chat", "messages"] {
        let (output, answer) = house.consult(model, "what is a lease?");

        assert_eq!(output.status.code(), Some(0), "{answer}");
        assert_eq!(answer["model"], *model);
        assert_eq!(answer["simulated"], false);
        assert!(!answer["answer"].as_str().unwrap().is_empty());
        let usage = |name: &str| answer["usage"][name].as_u64().unwrap_or(0);
        // As many as the engine counts for these words in its template.
        assert_eq!(usage("input_tokens") + usage("cache_read_tokens"), 34, "{answer}");
        assert!(usage("output_tokens") > 0, "{answer}");
        let dollars = (34 + 2 * usage("output_tokens")) as f64 / 1e6;
        let said = answer["cost_usd"].as_f64().unwrap();
        assert!((said - dollars).abs() < 1e-9, "{said} for {dollars}: {answer}");
    }
}

#[test]
fn the_house_says_that_a_question_is_over_the_engines_window() {
    let Some(engine) = Engine::start() else { return };
    let house = House::start(&engine);
    for model in ["chat", "messages"] {
        let (output, answer) = house.consult(model, &"what is it ".repeat(400));

        assert_ne!(output.status.code(), Some(0), "{answer}");
        assert_eq!(answer["error"]["class"], "CONTEXT_TOO_LONG", "{answer}");
        assert_eq!(answer["attempts"][0]["class"], "CONTEXT_TOO_LONG", "{answer}");
    }
}
