//! Whether a rendering keeps what the next step needs: questions over long conversations, each with the words that
//! answer it, which must stand in the rendered text.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use broker::context::{
    Receiver, Tokenizer,
    choose::{Index, Turn, choose},
    render::{Ask, Missing, View, render},
};
use broker_config::{Model, Provider};
use broker_proto::{Preservation, SessionTask, WallTime};
use clap::Parser;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Tokens of a rendering: the levels', and twice the last.
const BUDGETS: [u64; 4] = [500, 1_200, 2_000, 4_000];
/// Answered at each budget at the least, in hundredths, of the questions over this project's own conversations.
const LEAST_OWN: [usize; 4] = [92, 94, 95, 95];
/// The same of all questions, where the other conversations are there too.
const LEAST_ALL: [usize; 4] = [89, 92, 96, 96];
/// The fewest questions that measure anything, when all conversations are there.
const QUESTIONS: usize = 100;
/// As the recipe was measured.
const COUNT: Tokenizer = Tokenizer::Estimated { bytes_per_token: 4.0 };

/// Measures which share of the evidence stands whole in a rendering, beside what the newest turns alone would keep
///
/// Tokens are estimated at 4 bytes each. Exits with 1 when less is kept than before.
#[derive(Debug, Parser)]
struct Arguments {
    /// The questions, and conversations beside them
    #[arg(long, default_value = "tests/fidelity")]
    folder: PathBuf,
    /// More conversations, which are not part of the project; questions on those that are missing are skipped
    #[arg(long, default_value = "../shared/data/transcripts")]
    transcripts: PathBuf,
    /// Print each question whose evidence is missed at this budget
    #[arg(long, value_name = "TOKENS")]
    missed: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Question {
    transcript: String,
    next: String,
    evidence: String,
}

#[derive(Debug, Deserialize)]
struct Line {
    role: String,
    content: Option<String>,
    name: Option<String>,
    created_at: Option<String>,
}

/// Answered by the choice, answered by the newest turns, and all.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    chosen: usize,
    newest: usize,
    all: usize,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let questions = fs::read_to_string(arguments.folder.join("questions.jsonl"));
    let questions: Vec<Question> = questions
        .context("the questions")?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let mut out = std::io::stdout().lock();
    let mut indexes: BTreeMap<String, Option<(Index, bool)>> = BTreeMap::new();
    let mut scores: BTreeMap<(bool, String), [Score; 4]> = BTreeMap::new();
    for question in &questions {
        let name = &question.transcript;
        if !indexes.contains_key(name) {
            indexes.insert(name.clone(), load(&arguments, name)?);
        }
        let Some(Some((index, is_own))) = indexes.get(name) else { continue };
        let scores = scores.entry((!is_own, name.clone())).or_default();
        for (score, budget) in scores.iter_mut().zip(BUDGETS) {
            let is_chosen = rendered(index, &question.next, budget)?.contains(&question.evidence);
            let newest = choose(index, "", budget, COUNT).text;
            score.all += 1;
            score.chosen += usize::from(is_chosen);
            score.newest += usize::from(newest.contains(&question.evidence));
            if !is_chosen && arguments.missed == Some(budget) {
                writeln!(out, "missed: {name}: {} ({})", question.next, question.evidence)?;
            }
        }
    }
    let missing: Vec<&String> =
        indexes.iter().filter(|(_, index)| index.is_none()).map(|(name, _)| name).collect();
    for name in &missing {
        let folder = arguments.transcripts.display();
        writeln!(std::io::stderr(), "SKIP {name}: it is not in {folder}")?;
    }
    let (mut own, mut all) = ([Score::default(); 4], [Score::default(); 4]);
    writeln!(out, "{:<24} {:>9}  {}", "conversation", "questions", budgets())?;
    for ((is_foreign, name), scores) in &scores {
        writeln!(out, "{}", row(name, scores))?;
        all.iter_mut().zip(scores).for_each(|(sum, score)| sum.add(*score));
        if !is_foreign {
            own.iter_mut().zip(scores).for_each(|(sum, score)| sum.add(*score));
        }
    }
    writeln!(out, "{}", row("all", &all))?;
    let mut is_kept = holds("its own conversations", &own, LEAST_OWN)?;
    if missing.is_empty() {
        ensure!(all[0].all >= QUESTIONS, "{} questions measure nothing", all[0].all);
        is_kept &= holds("all conversations", &all, LEAST_ALL)?;
    }
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a receiver reads who is told nothing of the task.
fn rendered(index: &Index, next: &str, budget: u64) -> anyhow::Result<String> {
    let model = Model::new("reader", Provider::Anthropic, "reader");
    let receiver = Receiver { tokenizer: COUNT, ..Receiver::of(&model) };
    let task = SessionTask::default();
    let view = View { task: &task, shared: &[], turns: index };
    let ask = Ask {
        receiver: &receiver,
        level: Preservation::Full,
        budget: Some(budget),
        next: Some(next),
        missing: Missing::Refused,
    };
    let rendering = render(&view, &ask)?;
    ensure!(rendering.tokens <= budget, "{} tokens of {budget}", rendering.tokens);
    Ok(rendering.text)
}

/// Whether at each budget at least so many are answered.
fn holds(what: &str, scores: &[Score; 4], least: [usize; 4]) -> anyhow::Result<bool> {
    let mut holds = true;
    for ((score, least), budget) in scores.iter().zip(least).zip(BUDGETS) {
        if score.chosen * 100 < least * score.all {
            let Score { chosen, all, .. } = score;
            writeln!(
                std::io::stderr(),
                "{what}: {chosen} of {all} at {budget} tokens: fewer than {least} %"
            )?;
            holds = false;
        }
    }
    Ok(holds)
}

impl Score {
    fn add(&mut self, other: Self) {
        self.chosen += other.chosen;
        self.newest += other.newest;
        self.all += other.all;
    }
}

fn budgets() -> String {
    BUDGETS.map(|budget| format!("{budget:>12}")).join(" ")
}

/// The share that is kept, and in brackets what the newest turns alone would have kept.
fn row(name: &str, scores: &[Score; 4]) -> String {
    let share = |kept: usize, all: usize| kept as f64 / all.max(1) as f64;
    let cells = scores.map(|score| {
        let (chosen, newest) = (share(score.chosen, score.all), share(score.newest, score.all));
        format!("{:>12}", format!("{chosen:.2} ({newest:.2})"))
    });
    format!("{name:<24} {:>9}  {}", scores[0].all, cells.join(" "))
}

/// A conversation by its name, and whether it is the project's own; `None` when it is not there.
fn load(arguments: &Arguments, name: &str) -> anyhow::Result<Option<(Index, bool)>> {
    let file = format!("{name}.jsonl");
    let own = arguments.folder.join(&file);
    let path = if own.exists() { own.clone() } else { arguments.transcripts.join(&file) };
    if !path.exists() {
        return Ok(None);
    }
    let mut index = Index::new();
    for turn in turns(&path).with_context(|| format!("{}", path.display()))? {
        index.push(turn);
    }
    ensure!(!index.is_empty(), "{} is empty", path.display());
    Ok(Some((index, path == own)))
}

fn turns(path: &Path) -> anyhow::Result<Vec<Turn>> {
    let text = fs::read_to_string(path)?;
    let turns = text.lines().map(|line| {
        let line: Line = serde_json::from_str(line)?;
        let at = line.created_at.map(|at| OffsetDateTime::parse(&at, &Rfc3339)).transpose()?;
        let at = at.and_then(|at| u64::try_from(at.unix_timestamp()).ok());
        Ok(Turn {
            role: line.role,
            name: line.name,
            at: at.map(|seconds| WallTime(seconds * 1000)),
            author: None,
            sitting: None,
            text: line.content.unwrap_or_default(),
        })
    });
    turns.collect()
}
