//! What a chat says of its session: in front of a line, and of its window. Pure.

use broker_proto::types::{HandoffCheck, ModelName};

/// `sonnet 182k left, warning> `; `local, for opus 182k left, warning> ` where another model is asked than the owner,
/// whose window that is.
pub(super) fn line(
    asked: Option<&ModelName>,
    owner: Option<&ModelName>,
    check: Option<&HandoffCheck>,
) -> String {
    let owner = check.map(|check| &check.model).or(owner);
    let who = match (asked, owner) {
        (Some(asked), Some(owner)) => format!("{asked}, for {owner}"),
        (Some(one), None) | (None, Some(one)) => one.to_string(),
        (None, None) => "?".to_owned(),
    };
    match check {
        Some(check) => {
            let left = tokens(check.context_window.saturating_sub(check.tokens));
            format!("{who} {left} left, {}> ", check.level.to_lowercase())
        }
        None => format!("{who}> "),
    }
}

/// `opus 85 %: 170k of 200k tokens`, with what ended its owner where that is not its window.
pub(super) fn full(check: &HandoffCheck) -> String {
    let HandoffCheck { model, tokens: used, context_window: window, detail, .. } = check;
    let (used, window) = (tokens(*used), tokens(*window));
    let share = format!("{model} {:.0} %: {used} of {window} tokens", check.percentage().floor());
    let is_other = check.level == "EXHAUSTED" && check.tokens < check.switch_threshold;
    if is_other { format!("{share}; {detail}") } else { share }
}

/// Thousands from 10,000 on.
pub(super) fn tokens(count: u64) -> String {
    if count < 10_000 { count.to_string() } else { format!("{}k", count / 1_000) }
}

#[cfg(test)]
mod tests {
    use broker_proto::types::Urgency;

    use super::*;

    #[test]
    fn it_names_the_model_what_is_left_and_the_level() {
        let opus = ModelName::parse("opus").unwrap();
        let local = ModelName::parse("local").unwrap();
        let check = HandoffCheck {
            should_handoff: true,
            reason: "approaching_limit".into(),
            level: "WARNING".into(),
            confidence: 0.9,
            urgency: Urgency::Medium,
            session: "s".into(),
            model: opus.clone(),
            tokens: 170_400,
            context_window: 200_000,
            warning_threshold: 160_000,
            switch_threshold: 180_000,
            detail: "170400 of 200000 tokens of opus's window".into(),
        };
        assert_eq!(line(None, Some(&opus), Some(&check)), "opus 29k left, warning> ");
        assert_eq!(line(Some(&local), None, Some(&check)), "local, for opus 29k left, warning> ");
        assert_eq!(full(&check), "opus 85 %: 170k of 200k tokens");
        assert_eq!(line(None, Some(&opus), None), "opus> ");
        assert_eq!(line(None, None, None), "?> ");
        let level = "EXHAUSTED".to_owned();
        let spent =
            HandoffCheck { level, tokens: 12, detail: "opus: 5h is used up".into(), ..check };
        assert_eq!(line(None, None, Some(&spent)), "opus 199k left, exhausted> ");
        assert_eq!(full(&spent), "opus 0 %: 12 of 200k tokens; opus: 5h is used up");
    }
}
