//! What a chat says of its session: in front of a line, and of its window. Pure.

use broker_proto::types::{ModelName, SessionUsage};

/// `sonnet 182k left, warning> `
pub(super) fn line(asked: Option<&ModelName>, usage: Option<&SessionUsage>) -> String {
    let asked = asked.map_or("?", ModelName::as_str);
    let left = usage.and_then(|usage| Some((usage, usage.context_window?)));
    match left {
        Some((usage, window)) => {
            let left = tokens(window.saturating_sub(usage.tokens));
            format!("{asked} {left} left, {}> ", usage.level.level)
        }
        None => format!("{asked}> "),
    }
}

/// `opus 85 %: 170k of 200k tokens`
pub(super) fn full(usage: &SessionUsage) -> String {
    let model = usage.model.as_ref().map_or("its window", ModelName::as_str);
    match usage.context_window.filter(|window| *window > 0) {
        Some(window) => {
            let percent = usage.tokens.saturating_mul(100) / window;
            format!("{model} {percent} %: {} of {} tokens", tokens(usage.tokens), tokens(window))
        }
        None => format!("{model}: {} tokens", tokens(usage.tokens)),
    }
}

/// Thousands from 10,000 on.
fn tokens(count: u64) -> String {
    if count < 10_000 { count.to_string() } else { format!("{}k", count / 1_000) }
}

#[cfg(test)]
mod tests {
    use broker_proto::types::UsageLevel;

    use super::*;

    #[test]
    fn it_names_the_model_what_is_left_and_the_level() {
        let opus = ModelName::parse("opus").unwrap();
        let level = UsageLevel { level: "warning".into(), ..UsageLevel::default() };
        let usage = SessionUsage {
            session: "s".into(),
            model: Some(opus.clone()),
            tokens: 170_400,
            context_window: Some(200_000),
            level,
            ..SessionUsage::default()
        };
        assert_eq!(line(Some(&opus), Some(&usage)), "opus 29k left, warning> ");
        assert_eq!(full(&usage), "opus 85 %: 170k of 200k tokens");
        assert_eq!(line(Some(&opus), None), "opus> ");
        let unknown = SessionUsage { context_window: None, tokens: 12, ..usage };
        assert_eq!(line(None, Some(&unknown)), "?> ");
        assert_eq!(full(&unknown), "opus: 12 tokens");
    }
}
