//! `handoff status`: how near models and sessions are to a move, and what is recommended.

use broker_proto::types::{Advice, HandoffOutlook};
use serde_json::{Value, json};

use crate::{
    cli::{Global, HandoffStatusArgs},
    commands::connect,
    exit_code::Exit,
    output::{self, Format},
};

pub(super) async fn run(global: &Global, args: HandoffStatusArgs) -> anyhow::Result<Exit> {
    let status = connect(global).await?.handoff_status(args.session.as_deref()).await?;
    match global.output {
        Format::Json => {
            let models: Vec<Value> = status.models.iter().map(|it| json_of(it, "model")).collect();
            let sessions = status.sessions.iter().map(|it| json_of(it, "session"));
            let sessions: Vec<Value> = sessions.collect();
            output::json(&json!({ "models": models, "sessions": sessions }))?;
        }
        Format::Text => {
            for model in &status.models {
                output::line(&words(model, &model.name))?;
            }
            for session in &status.sessions {
                output::line(&of_session(session))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// One session, in a line.
pub(super) fn of_session(session: &HandoffOutlook) -> String {
    words(session, &format!("session {} ({})", session.name, session.model))
}

/// `opus 85 %: handoff recommended (85 of 100 5h), to sonnet`
fn words(outlook: &HandoffOutlook, name: &str) -> String {
    let share = outlook.percentage.map(|share| format!(" {share:.0} %")).unwrap_or_default();
    let said = match outlook.advice {
        Advice::None => "no handoff needed",
        Advice::Watch => "approaching its limit",
        Advice::Recommended => "handoff recommended",
        Advice::Needed => "handoff needed",
    };
    let mut line = format!("{name}{share}: {said}");
    let why = outlook.trigger.as_ref().map_or(&outlook.reason, |trigger| &trigger.reasoning);
    if !why.is_empty() {
        line.push_str(&format!(" ({why})"));
    }
    if outlook.advice > Advice::Watch {
        match &outlook.to {
            Some(to) => line.push_str(&format!(", to {to}")),
            None => line.push_str(", and nobody can take it"),
        }
    }
    line
}

/// Two digits are enough of a percentage.
pub(super) fn rounded(share: f64) -> f64 {
    (share * 100.0).round() / 100.0
}

pub(super) fn json_of(outlook: &HandoffOutlook, noun: &str) -> Value {
    let trigger = outlook.trigger.as_ref().map(|trigger| {
        json!({
            "kind": trigger.kind.as_str(),
            "reasoning": trigger.reasoning,
            "confidence": trigger.confidence,
            "urgency": trigger.urgency.as_str(),
        })
    });
    let mut all = json!({
        noun: outlook.name,
        "level": outlook.level,
        "percentage": outlook.percentage.map(rounded),
        "recommendation": outlook.advice.as_str(),
        "reason": outlook.reason,
        "to": outlook.to.as_ref().map(|to| to.as_str()),
        "trigger": trigger,
        "limit_at": outlook.limit_at.and_then(output::rfc3339),
    });
    match noun {
        "session" => all["model"] = json!(outlook.model.as_str()),
        _ => all["receives"] = json!(outlook.receives),
    }
    all
}

#[cfg(test)]
mod tests {
    use broker_proto::types::ModelName;

    use super::*;

    #[test]
    fn a_recommendation_names_the_share_and_who_would_take_it() {
        let opus = ModelName::parse("opus").unwrap();
        let mut outlook = HandoffOutlook {
            name: "opus".into(),
            model: opus,
            level: "CRITICAL".into(),
            percentage: Some(85.0),
            advice: Advice::Recommended,
            reason: String::new(),
            to: Some(ModelName::parse("sonnet").unwrap()),
            trigger: None,
            receives: true,
            limit_at: None,
        };
        assert_eq!(words(&outlook, "opus"), "opus 85 %: handoff recommended, to sonnet");
        outlook.to = None;
        outlook.reason = "85 of 100 5h".into();
        let line = "opus 85 %: handoff recommended (85 of 100 5h), and nobody can take it";
        assert_eq!(words(&outlook, "opus"), line);
        outlook.advice = Advice::Watch;
        assert_eq!(words(&outlook, "opus"), "opus 85 %: approaching its limit (85 of 100 5h)");
        assert_eq!(json_of(&outlook, "model")["recommendation"], "watch");
    }
}
