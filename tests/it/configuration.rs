//! A wrong configuration is refused before a socket opens, with file, line, key and the nearest valid key.

use std::fs;

use broker_tests::Program;
use tempfile::TempDir;

/// A file, where its mistake is, and what is said of it.
const WRONG: &[(&str, &str, &[&str])] = &[
    ("[broker]\nshutdown_grase = \"1s\"\n", ":2:1", &["shutdown_grase", "shutdown_grace"]),
    ("[brokr]\nsocket = \"/x\"\n", ":1:2", &["brokr", "broker"]),
    ("\n[routing]\nmax_attempts = \"three\"\n", ":3:", &["routing.max_attempts", "number"]),
    ("[links]\nlease = 15\n", ":2:", &["links.lease", "\"30s\""]),
    (
        "[[models]]\nname = \"a\"\nprovider = \"antropic\"\nid = \"x\"\n",
        ":3:",
        &["antropic", "anthropic"],
    ),
    (
        "[[models]]\nname = \"a\"\nprovider = \"openai\"\nid = \"x\"\nfallback = [\"b\"]\n\
         [[models]]\nname = \"b\"\nprovider = \"openai\"\nid = \"y\"\nfallback = [\"a\"]\n",
        "",
        &["the chain loops: a -> b -> a"],
    ),
    (
        "[[models]]\nname = \"a\"\nprovider = \"openai\"\nid = \"x\"\nfallback = [\"locall\"]\n\
         [[models]]\nname = \"local\"\nprovider = \"ollama\"\nid = \"y\"\n",
        ":5:",
        &["locall", "local"],
    ),
    ("[broker\n", ":1:", &["TOML"]),
    ("[links]\nheartbeat = \"20s\"\n", "", &["heartbeat", "lease"]),
];

struct Room {
    folder: TempDir,
}

impl Room {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("my.toml"), text).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The program is refused, says all of `said`, and has made nothing.
    async fn assert_refused(&self, program: Program, code: Option<i32>, said: &[&str]) {
        let output = program.output().await;
        match code {
            Some(code) => assert_eq!(output.code, code, "{output:?}"),
            None => assert!(output.code > 0, "{output:?}"),
        }
        for text in said {
            assert!(output.stderr.contains(text), "`{text}` in {output:?}");
        }
        assert_eq!(output.stdout, "");
        assert!(!self.folder.path().join("data").exists(), "nothing was made before");
    }

    fn up(&self, config: &str) -> Program {
        let args = ["up", "--simulated", "--config", config, "--data-dir", &self.path("data")];
        Program::new("brokerctl").args(&args)
    }

    fn brokerd(&self, config: &str) -> Program {
        let args = ["--config", config, "--data-dir", &self.path("data")];
        Program::new("brokerd").args(&args)
    }
}

#[tokio::test]
async fn up_refuses_every_mistake_where_it_is() {
    for (text, place, said) in WRONG {
        let room = Room::with(text);
        let place = format!("my.toml{place}");
        let said: Vec<&str> = [place.as_str()].iter().chain(said.iter()).copied().collect();
        room.assert_refused(room.up(&room.path("my.toml")), Some(2), &said).await;
    }
}

#[tokio::test]
async fn brokerd_refuses_every_mistake_where_it_is() {
    for (text, place, said) in WRONG {
        let room = Room::with(text);
        let place = format!("my.toml{place}");
        let said: Vec<&str> = [place.as_str()].iter().chain(said.iter()).copied().collect();
        room.assert_refused(room.brokerd(&room.path("my.toml")), None, &said).await;
    }
}

#[tokio::test]
async fn a_missing_file_is_refused_by_its_name() {
    let room = Room::with("");
    let missing = room.path("not-there.toml");
    room.assert_refused(room.up(&missing), Some(2), &["not-there.toml"]).await;
    room.assert_refused(room.brokerd(&missing), None, &["not-there.toml"]).await;
}

#[tokio::test]
async fn a_wrong_variable_is_refused_by_its_name_and_the_nearest() {
    let room = Room::with("");
    let config = room.path("my.toml");
    let said = ["BROKER_ROUTING_PATINCE", "BROKER_ROUTING_PATIENCE"];
    let up = room.up(&config).env("BROKER_ROUTING_PATINCE", "3s");
    room.assert_refused(up, Some(2), &said).await;
    let brokerd = room.brokerd(&config).env("BROKER_ROUTING_PATINCE", "3s");
    room.assert_refused(brokerd, None, &said).await;
}

#[tokio::test]
async fn a_key_written_into_the_file_is_refused_and_not_repeated() {
    let key = "sk-ant-api03-CANARY0123456789abcdef";
    let model = "[[models]]\nname = \"a\"\nprovider = \"anthropic\"\nid = \"x\"\n";
    for line in [format!("api_key = \"{key}\""), format!("api_key_env = \"{key}\"")] {
        let room = Room::with(&format!("{model}{line}\n"));
        let config = room.path("my.toml");
        for program in [room.up(&config), room.brokerd(&config)] {
            let output = program.output().await;
            assert!(output.code > 0);
            assert!(output.stderr.contains("my.toml:5"), "{output:?}");
            assert!(!output.stderr.contains("CANARY"), "{output:?}");
        }
    }
}

#[tokio::test]
async fn with_nothing_found_up_explains_how_to_go_on() {
    let room = Room::with("");
    // Nobody listens on port 1 of this machine.
    let up = Program::new("brokerctl")
        .args(&["up", "--data-dir", &room.path("data")])
        .env("OLLAMA_HOST", "127.0.0.1:1");

    let output = up.output().await.exits(1);

    for said in ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "Ollama", "--simulated"] {
        assert!(output.stderr.contains(said), "`{said}` in {output:?}");
    }
}
