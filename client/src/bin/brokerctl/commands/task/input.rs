//! From what was typed to a task.

use std::path::Path;

use broker_proto::types::{Message, Part, ResultType, TaskInput, TaskSpec};

use crate::{
    cli::{DelegateArgs, Misused},
    commands::consult::input::{self, Error},
};

/// The message that `args` ask for.
///
/// # Errors
/// What is wrong with what was typed, or with a file.
pub(super) fn message(args: &DelegateArgs) -> anyhow::Result<Message> {
    let description = input::from_stdin(args.task.clone())?;
    if description.trim().is_empty() {
        return Err(Misused::NoTask.into());
    }
    let result = match &args.json_schema {
        Some(path) => ResultType::Json { schema: Some(schema(path)?.into()) },
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
    let mut message = Message::delegation(id, args.to.clone(), task);
    message.session = args.session.as_ref().map(ToString::to_string);
    if let Some(path) = &args.context {
        message.payload.context = input::conversation(path)?;
    }
    Ok(message)
}

/// A JSON Schema, as far as this side judges one.
fn schema(path: &Path) -> Result<String, Error> {
    let text = input::text_file(path)?;
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(json) if json.is_object() || json.is_boolean() => Ok(text),
        _ => Err(Error::NoSchema { path: path.to_owned() }),
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
}
