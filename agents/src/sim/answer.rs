//! What is answered, before any wire puts it into its own form: thinking, text, a tool call, why it stopped,
//! and what it cost. Pure: the same prompt, model and seed give the same answer.

use serde_json::{Map, Value, json};

use super::{
    models::Model,
    prompt::{Choice, Prompt, Tool},
    script::{ScriptedAnswer, ScriptedCall},
    text::{self, Dice},
    tokens,
};

/// Words in the last question that make a model with tools call the first of them.
const CALLS: [&str; 4] = ["use the tool", "use a tool", "call the tool", "use your tool"];
/// Words in the last question that make a model ask whoever gave out its task; what follows them on their line is the
/// question.
const ASKS: [&str; 2] = ["ask me first", "ask me back"];
/// The tool with which it asks.
const ASK: &str = crate::worker::task::ASK;
/// The beginning of what a task says that wants JSON.
const WANTS_JSON: &str = "Answer with one JSON value";
const SHORTEST: u64 = 60;
const LONGEST: u64 = 120;
/// Reasoning of a model that reasons, in tokens.
const REASONING: u64 = 64;

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) thinking: Option<String>,
    pub(super) text: String,
    pub(super) call: Option<ScriptedCall>,
    pub(super) stop: Stop,
    pub(super) usage: Usage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    End,
    MaxTokens,
    Sequence(String),
    ToolUse,
    /// A word of the wire's own, from the script.
    Scripted(String),
}

/// `prompt` is the whole prompt; what was read from or written to the cache is part of it. `output` includes
/// `reasoning`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) prompt: u64,
    pub(super) cache_read: u64,
    pub(super) cache_write: u64,
    pub(super) output: u64,
    pub(super) reasoning: u64,
}

impl Usage {
    pub(super) fn uncached(&self) -> u64 {
        self.prompt.saturating_sub(self.cache_read + self.cache_write)
    }

    /// With `output` tokens instead of all: a caller that left early pays for what was made.
    #[expect(clippy::cast_precision_loss, reason = "token counts stay far below 2^52")]
    pub(super) fn usd(&self, model: &Model, output: u64) -> f64 {
        let price = &model.price;
        let input = (self.uncached() + self.cache_write) as f64 * price.input
            + self.cache_read as f64 * price.cache_read;
        (input + output as f64 * price.output) / 1e6
    }
}

/// Composes the answer; the caller fills in what the cache gave.
pub(super) fn compose(
    prompt: &Prompt,
    model: &Model,
    seed: u64,
    scripted: &ScriptedAnswer,
) -> Answer {
    let question = prompt.question();
    let turns = prompt.turns.len().to_string();
    let mut dice = Dice::of(seed, &[&prompt.model, question, &turns]);
    let mut left = prompt.max_output.unwrap_or(u64::MAX);
    let mut is_full = false;

    let thinking = thought(prompt, model, scripted, &mut dice).map(|thought| {
        let kept = tokens::cut(&thought, left).to_owned();
        is_full |= kept.len() < thought.len();
        left -= tokens::count(&kept);
        kept
    });
    let hidden = match (scripted.reasoning_tokens, &thinking) {
        (Some(count), _) => count,
        (None, None) if model.reasoning => REASONING,
        (None, _) => 0,
    };
    is_full |= hidden > left;
    let hidden = hidden.min(left);
    left -= hidden;

    let call = scripted.tool.clone().or_else(|| called(prompt));
    let length = scripted.tokens.unwrap_or_else(|| SHORTEST + dice.below(LONGEST - SHORTEST));
    let full = match (&scripted.text, &call) {
        (Some(text), _) => text.clone(),
        // `OpenAI` leaves `content` null beside a call.
        (None, Some(_)) if model.wire == super::script::Wire::OpenAi => String::new(),
        (None, Some(call)) => format!("I will use {} for that.", call.name),
        (None, None) if wanted_json(prompt).is_some() => {
            wanted_json(prompt).unwrap_or_default().to_string()
        }
        (None, None) if prompt.ends_with_tool_result() => {
            format!("The tool's result is in. {}", text::prose(&mut dice, question, length))
        }
        (None, None) => text::prose(&mut dice, question, length),
    };
    let (text, mut stop) = stopped(&full, &prompt.stop, left);
    if is_full {
        stop = Stop::MaxTokens;
    }
    let call = call.filter(|_| stop == Stop::End);
    if call.is_some() {
        stop = Stop::ToolUse;
    }
    if let Some(word) = &scripted.stop_reason {
        stop = Stop::Scripted(word.clone());
    }
    let call_tokens = call
        .as_ref()
        .map_or(0, |call| tokens::count(&call.name) + tokens::count(&call.arguments.to_string()));
    let reasoning = hidden + thinking.as_deref().map_or(0, tokens::count);
    let usage = Usage {
        prompt: prompt.tokens(),
        output: reasoning + tokens::count(&text) + call_tokens,
        reasoning,
        ..Usage::default()
    };
    Answer { thinking, text, call, stop, usage }
}

fn thought(
    prompt: &Prompt,
    model: &Model,
    scripted: &ScriptedAnswer,
    dice: &mut Dice,
) -> Option<String> {
    if scripted.thinking.is_some() {
        return scripted.thinking.clone();
    }
    let shows = model.wire != super::script::Wire::OpenAi;
    (shows && (prompt.thinks || model.reasoning)).then(|| text::prose(dice, "", REASONING))
}

/// The text up to the first stop sequence, and to what is left of the output limit.
fn stopped(full: &str, sequences: &[String], left: u64) -> (String, Stop) {
    let first = sequences
        .iter()
        .filter(|sequence| !sequence.is_empty())
        .filter_map(|sequence| full.find(sequence.as_str()).map(|at| (at, sequence)))
        .min_by_key(|(at, _)| *at);
    let (wanted, stop) = match first {
        Some((at, sequence)) => (&full[..at], Stop::Sequence(sequence.clone())),
        None => (full, Stop::End),
    };
    let kept = tokens::cut(wanted, left);
    if kept.len() < wanted.len() {
        (kept.to_owned(), Stop::MaxTokens)
    } else {
        (wanted.to_owned(), stop)
    }
}

fn called(prompt: &Prompt) -> Option<ScriptedCall> {
    let question = prompt.question().to_lowercase();
    if let Some(call) = asked_back(prompt) {
        return Some(call);
    }
    let is_asked = CALLS.iter().any(|words| question.contains(words));
    let tool = match &prompt.choice {
        Choice::Never => None,
        Choice::Named(name) => prompt.tools.iter().find(|tool| tool.name == *name),
        Choice::Any => prompt.tools.first(),
        Choice::Auto if is_asked && !prompt.ends_with_tool_result() => {
            prompt.tools.iter().find(|tool| tool.name != ASK)
        }
        Choice::Auto => None,
    }?;
    Some(ScriptedCall { name: tool.name.clone(), arguments: arguments(tool, prompt.question()) })
}

/// A question to whoever gave out the task, unless that has been answered.
fn asked_back(prompt: &Prompt) -> Option<ScriptedCall> {
    if prompt.choice != Choice::Auto || prompt.ends_with_tool_result() {
        return None;
    }
    prompt.tools.iter().find(|tool| tool.name == ASK)?;
    let said = prompt.question();
    let found = |words: &&str| {
        // The words are ASCII, so nothing moves when the case is taken away.
        let at = said.to_ascii_lowercase().find(*words)?;
        said.get(at + words.len()..)
    };
    let rest = ASKS.iter().find_map(found)?.lines().next().unwrap_or_default();
    let question = rest.trim_matches(|c: char| c.is_whitespace() || ":,.\"'".contains(c));
    let question = if question.is_empty() { "What exactly do you want?" } else { question };
    Some(ScriptedCall { name: ASK.into(), arguments: json!({ "question": question }) })
}

/// A value of the kind that a task's JSON Schema says, where it asks for JSON.
fn wanted_json(prompt: &Prompt) -> Option<Value> {
    let (_, wants) = prompt.question().split_once(WANTS_JSON)?;
    let schema = wants.split_once("```json").and_then(|(_, rest)| rest.split_once("```"));
    let schema = schema.and_then(|(schema, _)| serde_json::from_str(schema).ok());
    Some(schema.map_or_else(|| json!({"answer": "simulated"}), |schema| instance(&schema)))
}

/// The plainest value that a schema allows, as far as types, required members and first choices go.
fn instance(schema: &Value) -> Value {
    if let Some(value) = schema.get("const").or_else(|| schema.get("enum")?.get(0)) {
        return value.clone();
    }
    let kind = schema.get("type");
    let kind = kind.and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str()));
    let object = || {
        let members = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        Value::Object(members.map(|(name, member)| (name.clone(), instance(member))).collect())
    };
    match kind {
        Some("null") => Value::Null,
        Some("boolean") => json!(true),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| json!(1)),
        Some("string") => json!("word"),
        Some("array") => json!([schema.get("items").map(instance).unwrap_or_default()]),
        Some(_) => object(),
        None if schema.get("properties").is_some() => object(),
        None => json!("word"),
    }
}

/// Arguments that fit the tool's schema as far as names and simple types go.
fn arguments(tool: &Tool, question: &str) -> Value {
    let mut arguments = Map::new();
    let properties = tool.schema.get("properties").and_then(Value::as_object);
    let word = question
        .split_whitespace()
        .last()
        .unwrap_or("Brno")
        .trim_matches(|c: char| !c.is_alphanumeric());
    for (name, schema) in properties.into_iter().flatten() {
        let first_choice = schema.get("enum").and_then(|choices| choices.get(0)).cloned();
        let value =
            first_choice.unwrap_or_else(|| match schema.get("type").and_then(Value::as_str) {
                Some("integer" | "number") => json!(1),
                Some("boolean") => json!(true),
                Some("array") => json!([]),
                Some("object") => json!({}),
                _ => json!(word),
            });
        arguments.insert(name.clone(), value);
    }
    Value::Object(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{
        prompt::{Role, Turn},
        script::{ModelSpec, Wire},
    };

    fn model() -> Model {
        Model::of(
            &ModelSpec { id: "claude-opus-5-5".into(), ..ModelSpec::default() },
            Wire::Anthropic,
        )
    }

    fn ask(question: &str) -> Prompt {
        Prompt {
            model: "claude-opus-5-5".into(),
            turns: vec![Turn::new(Role::User, question.into())],
            ..Prompt::default()
        }
    }

    fn answer(prompt: &Prompt) -> Answer {
        compose(prompt, &model(), 1, &ScriptedAnswer::default())
    }

    #[test]
    fn an_answer_is_of_usual_length_and_counted() {
        let answer = answer(&ask("Why is it slow?"));

        assert!((55..=LONGEST).contains(&answer.usage.output), "{}", answer.usage.output);
        assert_eq!(answer.usage.output, tokens::count(&answer.text));
        assert_eq!(answer.stop, Stop::End);
    }

    #[test]
    fn max_tokens_are_respected() {
        let answer = answer(&Prompt { max_output: Some(5), ..ask("Why?") });

        assert_eq!((answer.stop, answer.usage.output), (Stop::MaxTokens, 5));
    }

    #[test]
    fn a_stop_sequence_ends_the_text_before_it() {
        let answer = answer(&Prompt { stop: vec!["asked".into()], ..ask("Why?") });

        assert_eq!((answer.text.as_str(), answer.stop), ("You ", Stop::Sequence("asked".into())));
    }

    #[test]
    fn a_tool_is_called_when_asked_for_and_answered_in_text_afterwards() {
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
        let mut prompt = ask("Please use the tool for Brno");
        prompt.tools = vec![Tool { name: "get_weather".into(), schema }];

        let call = answer(&prompt).call.unwrap();
        assert_eq!(call.arguments, json!({"city": "Brno", "days": 1}));

        prompt.turns.push(Turn::new(Role::Tool, "12 degrees".into()));
        assert!(answer(&prompt).call.is_none());
    }

    #[test]
    fn reasoning_can_spend_the_whole_output() {
        let spec = ModelSpec { id: "gpt-5".into(), ..ModelSpec::default() };
        let prompt = Prompt { max_output: Some(10), ..ask("Why?") };

        let answer =
            compose(&prompt, &Model::of(&spec, Wire::OpenAi), 1, &ScriptedAnswer::default());

        assert_eq!(
            (answer.text.as_str(), answer.usage.reasoning, answer.usage.output),
            ("", 10, 10)
        );
        assert_eq!(answer.stop, Stop::MaxTokens);
    }
}
