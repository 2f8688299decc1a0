//! `brokerctl handoff init` and the file it writes: what a new user types first, and who reads it.

use std::{fs, path::PathBuf};

use broker_client::NewSession;
use broker_proto::{ModelName, SessionId};
use broker_tests::{Output, Program, TestBroker, TestHouse};
use serde_json::{Value, json};
use tempfile::TempDir;

const CANARY: &str = "sk-ant-api03-CANARY0123456789abcdef";
/// Nobody listens on port 1 of this machine.
const NO_OLLAMA: &str = "127.0.0.1:1";

/// A user with folders of their own, and nothing else.
struct User {
    home: TempDir,
}

impl User {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn config_home(&self) -> String {
        self.home.path().join("config").display().to_string()
    }

    fn file(&self) -> PathBuf {
        self.home.path().join("config/model-broker/config.toml")
    }

    fn written(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// Puts `text` where the file is.
    fn has(&self, text: &str) {
        fs::create_dir_all(self.file().parent().unwrap()).unwrap();
        fs::write(self.file(), text).unwrap();
    }

    fn program(&self, name: &str, args: &[&str]) -> Program {
        let path = |name: &str| self.home.path().join(name);
        Program::new(name)
            .args(args)
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.config_home())
            .env("XDG_STATE_HOME", path("state"))
            .env("XDG_RUNTIME_DIR", path("run"))
            .env("OLLAMA_HOST", NO_OLLAMA)
    }

    /// `handoff init` with `more`.
    fn init(&self, more: &[&str]) -> Program {
        self.program("brokerctl", &[&["handoff", "init"], more].concat())
    }

    /// The same for a broker that runs.
    async fn init_for(&self, broker: &TestBroker, more: &[&str]) -> Output {
        let endpoint = broker.endpoint().to_string();
        self.init(&[&["--endpoint", &endpoint], more].concat()).output().await
    }
}

fn receivers(text: &str) -> Value {
    let line = text.lines().find_map(|line| line.strip_prefix("receivers = ")).unwrap();
    serde_json::from_str(line).unwrap()
}

/// A session of opus, of whose window so many tokens are used.
async fn begin(broker: &TestBroker, name: &str, tokens: &str) {
    let model = Some(ModelName::parse("opus").unwrap());
    let new =
        NewSession { id: Some(SessionId::parse(name).unwrap()), model, ..NewSession::default() };
    broker.client().start_session(new).await.unwrap();
    let record = ["usage", "record", "tokens", "--model", "opus", "--session", name];
    broker.run(&[&record[..], &["--input", tokens, "--output", "0"]].concat()).await.exits(0);
}

#[tokio::test]
async fn keys_count_by_being_set_and_the_file_says_who_may_receive() {
    let user = User::new();
    let init = user.init(&[]).env("ANTHROPIC_API_KEY", CANARY).env("OPENAI_API_KEY", "");

    let done = init.output().await.exits(0);

    let text = user.written();
    assert_eq!(receivers(&text), json!(["opus", "sonnet"]));
    for said in [
        "auto = true",
        "auto_switch = false",
        "session_warning = 75",
        "session_switch = 90",
        "gpt-4o: set OPENAI_API_KEY",
        "There is no local fallback",
    ] {
        assert!(text.contains(said), "`{said}` in {text}");
    }
    assert!(done.stdout.contains("found: ANTHROPIC_API_KEY is set"), "{done:?}");
    assert!(done.stdout.contains("missing: OPENAI_API_KEY is not set"), "{done:?}");
    assert!(done.stderr.contains("next: brokerctl up"), "{done:?}");
    let everything = format!("{done:?}{text}");
    assert!(!everything.contains("CANARY"), "{everything}");
}

#[tokio::test]
async fn an_ollama_that_answers_is_the_local_fallback() {
    let user = User::new();
    let mut sim = Program::new("provider-sim").args(&["--listen", "127.0.0.1:0"]).start().await;
    let listening: Value = serde_json::from_str(&sim.line().await).unwrap();
    let address = listening["listening"].as_str().unwrap().to_owned();

    let done = user.init(&["--output", "json"]).env("OLLAMA_HOST", &address).output().await;

    let json = done.exits(0).json();
    assert_eq!((&json["fallback"], &json["receivers"]), (&json!("local"), &json!(["local"])));
    let local = json["models"].as_array().unwrap().iter().find(|it| it["model"] == "local");
    assert_eq!(local.unwrap()["detail"], format!("ollama answers at http://{address}"));
    assert!(user.written().contains("The local fallback is `local`"));
}

#[tokio::test]
async fn without_any_model_it_is_written_all_the_same_and_says_what_to_do() {
    let user = User::new();
    let done = user.init(&[]).output().await.exits(0);
    assert_eq!(receivers(&user.written()), json!([]));
    for said in ["no model was found", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "Ollama", "--force"] {
        assert!(done.stderr.contains(said), "`{said}` in {done:?}");
    }
    assert!(done.stderr.contains("next: brokerctl up --simulated"), "{done:?}");
}

#[tokio::test]
async fn a_file_that_is_there_is_replaced_only_with_force_and_kept() {
    let user = User::new();
    user.has("[routing]\npatience = \"4s\"\n");

    let refused = user.init(&[]).output().await.exits(1);
    assert!(refused.stderr.contains("is there already"), "{refused:?}");
    assert!(refused.stderr.contains("--force") && refused.stderr.contains("--print"));
    assert!(user.written().starts_with("[routing]"), "as it was");

    let printed = user.init(&["--print"]).env("OPENAI_API_KEY", "k").output().await.exits(0);
    assert_eq!(receivers(&printed.stdout), json!(["gpt-4o"]));
    assert!(user.written().starts_with("[routing]"), "as it was");

    let forced = user.init(&["--force", "--output", "json"]).output().await.exits(0).json();
    let backup = forced["backup"].as_str().unwrap();
    assert!(backup.ends_with("config.toml.bak"), "{forced}");
    assert!(fs::read_to_string(backup).unwrap().contains("patience = \"4s\""));
    assert_eq!(forced["written"], true);
    assert!(user.written().contains("receivers = []"));
}

#[tokio::test]
async fn a_malformed_file_is_named_by_every_command_and_force_mends_it() {
    let user = User::new();
    user.has("[handoff]\nauto = perhaps\n");
    let place = format!("{}:2:", user.file().display());

    for (name, args) in [
        ("brokerctl", &["doctor"][..]),
        ("brokerctl", &["models"]),
        ("brokerctl", &["up", "--simulated"]),
        ("brokerd", &[]),
        ("broker-agent", &["--check"]),
    ] {
        let refused = user.program(name, args).output().await;
        assert!(
            refused.code > 0 && refused.stderr.contains(&place),
            "{name} {args:?}: {refused:?}"
        );
    }
    let refused = user.init(&[]).output().await.exits(1);
    assert!(refused.stderr.contains(&place) && refused.stderr.contains("--force"), "{refused:?}");

    user.init(&["--force"]).output().await.exits(0);
    let doctor = user.program("brokerctl", &["doctor"]).output().await;
    assert!(doctor.stdout.contains("config.toml"), "{doctor:?}");
}

#[tokio::test]
async fn where_it_cannot_be_written_is_said_and_nothing_is_made() {
    let user = User::new();
    let nowhere = user.init(&[]).env("XDG_CONFIG_HOME", "/proc/nowhere").output().await.exits(1);
    assert!(nowhere.stderr.contains("cannot write `/proc/nowhere/model-broker/config.toml`"));
    assert!(nowhere.stderr.contains("XDG_CONFIG_HOME"), "{nowhere:?}");

    fs::create_dir(user.home.path().join("config")).unwrap();
    fs::write(user.home.path().join("config/model-broker"), "").unwrap();
    for more in [&[][..], &["--force"]] {
        let refused = user.init(more).output().await.exits(1);
        assert!(refused.stderr.contains("cannot write"), "{refused:?}");
    }
    fs::remove_file(user.home.path().join("config/model-broker")).unwrap();
    fs::create_dir_all(user.file()).unwrap();
    user.init(&[]).output().await.exits(1);
    let refused = user.init(&["--force"]).output().await.exits(1);
    assert!(refused.stderr.contains("cannot write"), "a folder is not replaced: {refused:?}");

    let homeless = Program::new("brokerctl").args(&["handoff", "init"]).output().await.exits(2);
    assert!(homeless.stderr.contains("XDG_CONFIG_HOME or HOME"), "{homeless:?}");
}

#[tokio::test]
async fn with_a_broker_it_ends_as_a_check_does() {
    let user = User::new();
    let broker = TestBroker::start().await;
    let none = user.init_for(&broker, &[]).await.exits(0);
    assert!(none.stdout.contains("nothing to hand off: there is no session yet"), "{none:?}");
    assert!(none.stderr.contains("from the next `brokerctl up`"), "{none:?}");

    begin(&broker, "small", "1000").await;
    let normal = user.init_for(&broker, &["--force"]).await.exits(0);
    assert!(normal.stdout.contains("no: normal\nsession small: 1000 of 4000000"), "{normal:?}");

    begin(&broker, "big", "3700000").await;
    let due = user.init_for(&broker, &["--force", "--output", "json"]).await.exits(10).json();
    assert_eq!(due["check"]["session"], "big", "the one that changed last");
    assert_eq!(due["check"]["reason"], "auto_switch_threshold_reached");
    assert_eq!((&due["check"]["should_handoff"], &due["written"]), (&json!(true), &json!(true)));
    assert_eq!(due["next"], "brokerctl handoff check");

    user.init_for(&broker, &["--force", "--session", "small"]).await.exits(0);
    let unknown = user.init_for(&broker, &["--force", "--session", "gone"]).await.exits(3);
    assert!(unknown.stderr.contains("UNCOUNTED_SESSION"), "{unknown:?}");
}

#[tokio::test]
async fn what_a_running_broker_serves_is_found() {
    let user = User::new();
    let broker = TestBroker::start().await;
    let _sonnet = broker.agent("sonnet-1", &["sonnet"]).await;
    let done = user.init_for(&broker, &["--output", "json"]).await.exits(0).json();
    assert_eq!(done["receivers"], json!(["sonnet"]));
}

#[tokio::test]
async fn up_reads_it_below_a_given_file() {
    let user = User::new();
    user.has(
        "[handoff]\nreceivers = [\"opus\", \"local\"]\nauto_switch = true\n[thresholds]\nsession_warning = 60\n",
    );
    let given = "[handoff]\nauto_switch = false\n";
    let env = [("XDG_CONFIG_HOME", user.config_home())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    let house = TestHouse::with_env(given, &env).await;

    let config = house.run(&["handoff", "config", "--output", "json"]).await.exits(0).json();

    assert_eq!(config["receivers"], json!(["local", "opus"]));
    assert_eq!(config["auto_switch"], false, "the given file counts");
    let effective = fs::read_to_string(house.data_dir().join("effective.toml")).unwrap();
    assert!(effective.contains("session_warning = 60"), "{effective}");
    assert!(house.log().contains("settings of your own"), "{}", house.log());
}

#[tokio::test]
async fn brokerd_alone_reads_it_and_a_given_file_is_whole() {
    let user = User::new();
    let data = user.home.path().join("data").display().to_string();
    user.has("[broker]\nshutdown_grase = \"1s\"\n");
    let check = ["--check", "--data-dir", data.as_str()];
    let refused = user.program("brokerd", &check).output().await;
    assert!(refused.code > 0 && refused.stderr.contains("shutdown_grace"), "{refused:?}");

    let given = user.home.path().join("given.toml");
    fs::write(&given, "").unwrap();
    let given = given.display().to_string();
    let whole = [&check[..], &["--config", &given]].concat();
    user.program("brokerd", &whole).output().await.exits(0);
}
