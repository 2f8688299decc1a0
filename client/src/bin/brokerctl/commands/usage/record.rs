//! `usage record`: what is known of calls that were made elsewhere.

use std::path::Path;

use broker_proto::types::{Usage, UsageRecord};
use serde_json::json;

use super::model;
use crate::{
    cli::{Global, Misused, RecordCommand, RecordedFor, Written},
    commands::connect,
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn record(global: &Global, command: RecordCommand) -> anyhow::Result<Exit> {
    let format = format(global, &command);
    let (whom, what) = read(command)?;
    let RecordedFor { model: named, session } = whom;
    let client = connect(global).await?;
    let counted = client.record_usage(model(named)?.as_ref(), session.as_deref(), what).await?;
    let status = client.usage_status(session.as_deref()).await?;
    let level = status.models.iter().find(|model| model.model.as_str() == counted);
    let level = level.map(|model| model.level.clone()).unwrap_or_default();
    match format {
        Format::Json => output::json(&json!({
            "model": counted,
            "session": session,
            "level": level.level,
            "reason": level.reason,
            "action": level.action,
        }))?,
        Format::Text if level.reason.is_empty() => {
            output::line(&format!("counted for {counted}: {}", level.level))?;
        }
        Format::Text => {
            output::line(&format!("counted for {counted}: {}, {}", level.level, level.reason))?;
        }
    }
    Ok(Exit::Done)
}

/// `--output` names a format as everywhere, or, for tokens, their number.
fn format(global: &Global, command: &RecordCommand) -> Format {
    let RecordCommand::Tokens { output, .. } = command else { return global.output };
    let named = output.iter().find_map(|written| match written {
        Written::As(format) => Some(*format),
        Written::To(_) => None,
    });
    named.unwrap_or(global.output)
}

fn output_tokens(output: &[Written], apart: Option<u64>) -> Result<u64, Misused> {
    let numbers: Vec<&Path> = output
        .iter()
        .filter_map(|written| match written {
            Written::To(text) => Some(text.as_path()),
            Written::As(_) => None,
        })
        .collect();
    match (numbers.as_slice(), apart) {
        ([], Some(tokens)) => Ok(tokens),
        ([text], None) => {
            let text = text.to_string_lossy();
            text.parse().map_err(|_| Misused::OutputTokens(text.into_owned()))
        }
        ([], None) => Err(Misused::NoOutputTokens),
        _ => Err(Misused::OutputTokensTwice),
    }
}

fn read(command: RecordCommand) -> Result<(RecordedFor, UsageRecord), Misused> {
    Ok(match command {
        RecordCommand::Tokens {
            whom,
            input,
            output,
            output_tokens: apart,
            cache_read,
            cache_write,
        } => {
            let output = output_tokens(&output, apart)?;
            let usage = Usage {
                input_tokens: Some(input),
                output_tokens: Some(output),
                cache_read_tokens: cache_read,
                cache_write_tokens: cache_write,
                ..Usage::default()
            };
            (whom, UsageRecord::Tokens(usage))
        }
        RecordCommand::RateLimit { whom } => (whom, UsageRecord::RateLimit),
        RecordCommand::Slow { seconds, whom } => (whom, UsageRecord::Slow(seconds)),
        RecordCommand::Success { whom } => (whom, UsageRecord::Success),
        RecordCommand::Error { whom } => (whom, UsageRecord::Error),
        RecordCommand::Opinion { session, complexity, rating } => (
            RecordedFor { model: None, session: Some(session) },
            UsageRecord::Session { complexity, rating },
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_a_number_of_tokens_or_a_format() {
        let number = || Written::To("300".into());
        let json = || Written::As(Format::Json);
        assert_eq!(output_tokens(&[number()], None).unwrap(), 300);
        assert_eq!(output_tokens(&[number(), json()], None).unwrap(), 300);
        assert_eq!(output_tokens(&[json()], Some(7)).unwrap(), 7);
        for (output, apart) in [
            (vec![json()], None),
            (vec![number(), number()], None),
            (vec![number()], Some(7)),
            (vec![Written::To("NaN".into())], None),
            (vec![Written::To("-1".into())], None),
        ] {
            assert!(output_tokens(&output, apart).is_err(), "{output:?}");
        }
    }
}
