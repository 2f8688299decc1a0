//! Real transcripts of coding agents, where they are: third-party data beside the repository, never inside it.

use std::{fs, io::Write as _, path::PathBuf};

use broker_tests::{TestHouse, repository};
use serde_json::Value;

/// Every transcript; none, said visibly, where the data is not there.
fn transcripts() -> Vec<PathBuf> {
    let folder = repository().join("../shared/data/transcripts");
    let Ok(files) = fs::read_dir(&folder) else {
        let _ = writeln!(std::io::stderr(), "SKIP: no transcripts in {}", folder.display());
        return Vec::new();
    };
    let files = files.map(|file| file.unwrap().path());
    let mut found: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect();
    found.sort();
    found
}

#[tokio::test]
async fn every_transcript_is_a_context_that_both_cloud_providers_take() {
    let transcripts = transcripts();
    if transcripts.is_empty() {
        return;
    }
    let house = TestHouse::start().await;
    for path in transcripts {
        let turns: Vec<Value> = fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let results = turns.iter().filter(|turn| turn["role"] == "tool").count();
        let file = path.display().to_string();
        for model in ["opus", "gpt-4o"] {
            let reply = house.ask(model, &["--context", &file]).await.exits(0).json();
            assert_eq!(reply["model"], model, "{file}: {reply}");
            let calls = house.sim.calls().await;
            let body = calls.last().unwrap()["body"].to_string();
            let marker = if model == "opus" { "\"tool_result\"" } else { "\"tool_call_id\"" };
            assert_eq!(body.matches(marker).count(), results, "{file} to {model}");
        }
    }
}

#[tokio::test]
async fn the_demos_own_transcripts_are_contexts_too() {
    let house = TestHouse::start().await;
    for name in ["ferrybook", "pebbles"] {
        let file = repository().join(format!("client/src/bin/brokerctl/demo/{name}.jsonl"));
        let file = file.display().to_string();
        for model in ["opus", "gpt-4o"] {
            let reply = house.ask(model, &["--context", &file]).await.exits(0).json();
            assert_eq!(reply["model"], model, "{file}");
        }
    }
}
