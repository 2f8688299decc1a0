//! A task as a model can work on it: its description and inputs as the user's words, what it asked back before as
//! calls of a tool, and what it answers as the task's result.
//!
//! A model that calls no tools asks in plain words, on a line that begins with `PLAIN`.

use broker_config::Model;
use broker_proto::{
    Delivery, Entry, Failure, FailureClass, Part, ResultType, Role, SettleOutcome, TaskExchange,
    TaskSpec, Tool,
};
use bytes::Bytes;
use serde_json::{Value, json};

/// The tool with which a model asks whoever gave out the task.
pub const ASK: &str = "ask_requester";
/// How a model without tools begins its question.
const PLAIN: &str = "QUESTION:";

/// The same delivery with the task, and all that was asked and answered, as a conversation.
pub(super) fn as_question(delivery: &Delivery, task: &TaskSpec, model: &Model) -> Delivery {
    let mut asked = delivery.clone();
    let payload = &mut asked.message.payload;
    payload.context.push(entry(Role::User, given(task, model)));
    for exchange in &delivery.exchanges {
        payload.context.extend(exchanged(exchange, model));
    }
    if model.tools {
        payload.generation.tools.push(tool());
    }
    asked
}

fn entry(role: Role, parts: Vec<Part>) -> Entry {
    Entry { role, name: String::new(), parts }
}

fn tool() -> Tool {
    let schema = json!({
        "type": "object",
        "properties": {
            "question": {"type": "string", "description": "One question, understood on its own."},
        },
        "required": ["question"],
    });
    Tool {
        name: ASK.into(),
        description: "Asks whoever gave out this task one question, and gives you the answer. Only for what the task \
                      cannot be done without and its inputs do not say."
            .into(),
        input_schema: schema.to_string().into(),
    }
}

/// The task in words: what is to be done, then on what.
fn given(task: &TaskSpec, model: &Model) -> Vec<Part> {
    let mut text = task.description.clone();
    if let ResultType::Json { schema } = &task.result {
        text.push_str(
            "\n\nAnswer with one JSON value and nothing else: no words around it, no marks.",
        );
        if let Some(schema) = schema {
            let schema = String::from_utf8_lossy(schema);
            text.push_str(&format!(" It must match this JSON Schema:\n```json\n{schema}\n```"));
        }
    }
    if !model.tools {
        text.push_str(&format!(
            "\n\nIf the task cannot be done without something that only its requester knows, answer with one line \
             that begins with {PLAIN} and asks for it, and with nothing else."
        ));
    }
    let mut parts = vec![Part::Text(text)];
    for (number, input) in (1..).zip(&task.inputs) {
        let name = if input.name.is_empty() { number.to_string() } else { input.name.clone() };
        parts.push(Part::Text(format!("Input {name}:")));
        parts.extend(input.parts.iter().cloned());
    }
    parts
}

fn exchanged(exchange: &TaskExchange, model: &Model) -> [Entry; 2] {
    let question = text_of(&exchange.question);
    if !model.tools {
        let asked = vec![Part::Text(format!("{PLAIN} {question}"))];
        return [entry(Role::Assistant, asked), entry(Role::User, exchange.answer.clone())];
    }
    let id = format!("ask_{}", exchange.number);
    let arguments = json!({"question": question}).to_string().into();
    let call = Part::ToolCall { id: id.clone(), name: ASK.into(), arguments };
    let parts = exchange.answer.clone();
    let result = Part::ToolResult { call_id: id, parts, is_error: false };
    [entry(Role::Assistant, vec![call]), entry(Role::Tool, vec![result])]
}

fn text_of(parts: &[Part]) -> String {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// What an answer means for its task: a question back, or its result.
pub(super) fn outcome(answered: SettleOutcome, task: &TaskSpec, model: &Model) -> SettleOutcome {
    let SettleOutcome::Done { parts, stop_reason } = answered else { return answered };
    match asks(&parts, model) {
        Some(question) if question.trim().is_empty() => {
            let what = "the model asked its requester nothing";
            let failure = Failure::new(FailureClass::MalformedReply, model.provider.as_str(), what);
            SettleOutcome::Failed { failure, partial: parts }
        }
        Some(question) => SettleOutcome::Ask { question: vec![Part::Text(question)] },
        None => SettleOutcome::Done { parts: unwrapped(parts, task), stop_reason },
    }
}

fn asks(parts: &[Part], model: &Model) -> Option<String> {
    let call = parts.iter().find_map(|part| match part {
        Part::ToolCall { name, arguments, .. } if name == ASK => Some(arguments),
        _ => None,
    });
    match call {
        Some(arguments) => Some(question(arguments)),
        None if model.tools => None,
        None => text_of(parts).trim().strip_prefix(PLAIN).map(|text| text.trim().to_owned()),
    }
}

/// The question of a call; a model may write its arguments as it likes.
fn question(arguments: &Bytes) -> String {
    match serde_json::from_slice(arguments) {
        Ok(Value::Object(object)) => match object.get("question") {
            Some(Value::String(question)) => question.clone(),
            _ => object.values().find_map(Value::as_str).unwrap_or_default().to_owned(),
        },
        Ok(Value::String(question)) => question,
        Ok(_) => String::new(),
        Err(_) => String::from_utf8_lossy(arguments).into_owned(),
    }
}

/// Models like to wrap JSON in a fence, whatever they are told.
fn unwrapped(parts: Vec<Part>, task: &TaskSpec) -> Vec<Part> {
    if task.result == ResultType::Text {
        return parts;
    }
    let text = text_of(&parts);
    let Some(fenced) = text.trim().strip_prefix("```").and_then(|rest| rest.strip_suffix("```"))
    else {
        return parts;
    };
    let inner = fenced.split_once('\n').map_or(fenced, |(_, inner)| inner);
    let others = parts.into_iter().filter(|part| !matches!(part, Part::Text(_)));
    others.chain([Part::Text(inner.trim().to_owned())]).collect()
}
