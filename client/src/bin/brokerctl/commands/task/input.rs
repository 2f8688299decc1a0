//! From what was typed to a task.

use std::path::Path;

use broker_proto::types::{AgentName, Message, Part, Recipient, ResultType, TaskInput, TaskSpec};

use crate::{
    cli::{DelegateArgs, Misused},
    commands::consult::input::{self, Error},
};

/// The message that `args` ask for.
///
/// # Errors
/// What is wrong with what was typed, or with a file.
pub(super) fn message(args: &DelegateArgs) -> anyhow::Result<Message> {
    let description = from_stdin(&args.task)?;
    if description.trim().is_empty() {
        return Err(Misused::NoTask.into());
    }
    let result = match &args.json_schema {
        Some(path) => ResultType::Json { schema: Some(input::text_file(path)?.into()) },
        None if args.json => ResultType::Json { schema: None },
        None => ResultType::Text,
    };
    let task = TaskSpec {
        description,
        inputs: args.input.iter().map(|text| task_input(text)).collect::<Result<_, _>>()?,
        result,
        deadline: args.deadline,
        max_tokens: args.max_tokens,
        max_cost_usd: args.max_cost,
        no_fallback: args.no_fallback,
    };
    let id = match args.id {
        Some(id) => id,
        None => input::new_id()?,
    };
    let mut message = Message::delegation(id, recipient(&args.to)?, task);
    if let Some(path) = &args.context {
        message.payload.context = input::conversation(path)?;
    }
    Ok(message)
}

/// The text itself, or stdin where it is `-`.
///
/// # Errors
/// When stdin cannot be read, or is no text.
pub(super) fn from_stdin(text: &str) -> Result<String, Error> {
    match text {
        "-" => input::text("stdin".to_owned(), &mut std::io::stdin().lock()),
        text => Ok(text.to_owned()),
    }
}

/// A model, or an agent written as `agent/NAME`.
pub(super) fn recipient(text: &str) -> Result<Recipient, Misused> {
    match text.strip_prefix("agent/") {
        Some(name) => AgentName::parse(name)
            .map(Recipient::Agent)
            .map_err(|_| Misused::AgentName(name.to_owned())),
        None => input::model_name(text).map(Recipient::Model),
    }
}

/// `NAME=VALUE`, `NAME=@FILE`, or a file that is named by its last part.
fn task_input(text: &str) -> Result<TaskInput, Error> {
    // A path may hold `=` too, but not before its first slash.
    let named = text.split_once('=').filter(|(name, _)| !name.is_empty() && !name.contains('/'));
    let (name, part) = match named {
        Some((name, value)) => match value.strip_prefix('@') {
            Some(path) => (name.to_owned(), input::part_of_file(Path::new(path))?),
            None => (name.to_owned(), Part::Text(value.to_owned())),
        },
        None => {
            let path = Path::new(text);
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            (name.unwrap_or_default(), input::part_of_file(path)?)
        }
    };
    Ok(TaskInput { name, parts: vec![part] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_value_or_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("build=1.log");
        std::fs::write(&path, "all well").unwrap();
        let read = |text: &str| {
            let input = task_input(text).unwrap();
            (input.name, input.parts)
        };
        let well = || vec![Part::text("all well")];
        assert_eq!(read("tone=dry=ish"), ("tone".to_owned(), vec![Part::text("dry=ish")]));
        assert_eq!(read(&format!("log=@{}", path.display())), ("log".to_owned(), well()));
        assert_eq!(read(&path.display().to_string()), ("build=1.log".to_owned(), well()));
        assert!(task_input("not/there").is_err());
    }

    #[test]
    fn a_task_goes_to_a_model_or_an_agent() {
        assert_eq!(recipient("GPT-4o").unwrap().to_string(), "model/gpt-4o");
        assert_eq!(recipient("agent/scribe").unwrap().to_string(), "agent/scribe");
        assert!(recipient("agent/../x").is_err());
    }
}
