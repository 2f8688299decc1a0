//! A package in Markdown, for people.

use broker_proto::{Hex, PackageContents, PackageInfo};

use super::{
    resume::{lines, open, standing, waiting},
    rfc3339,
};

/// A report, and why the template was not followed, if it was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub markdown: String,
    pub problem: Option<String>,
}

/// What may stand in a template, in braces.
pub const PLACEHOLDERS: [&str; 26] = [
    "id",
    "task",
    "project",
    "reason",
    "from",
    "to",
    "session",
    "level",
    "created_at",
    "expires_at",
    "created_by",
    "source_phase",
    "target_phase",
    "standing",
    "sub_goals",
    "constraints",
    "decisions",
    "open_items",
    "critical_facts",
    "next_steps",
    "files",
    "task_queue",
    "resumption_instructions",
    "dropped",
    "tokens",
    "integrity",
];

const PLAIN: &str = "# {task}\n
Package `{id}`, made {created_at} by {from} for {to} ({reason}).
Project {project}, session {session}, level {level}, {tokens} tokens (estimated), good until {expires_at}.\n
## What\n\n{task}\n\n{sub_goals}
## Where it stands\n\n{standing}
## Decisions\n\n{decisions}
## Constraints\n\n{constraints}
## Open items\n\n{open_items}
## Next steps\n\n{next_steps}
## Waiting\n\n{task_queue}
## Files\n\n{files}
## Resumption instructions\n\n{resumption_instructions}
## What was dropped\n\n{dropped}
## Integrity\n\n{integrity}\n";

/// The report of a package: by `template` if there is one and it names nothing unknown, else the plain one.
#[must_use]
pub fn report(info: &PackageInfo, contents: &PackageContents, template: Option<&str>) -> Report {
    let value = |name: &str| value(info, contents, name);
    let plain = |problem| Report { markdown: fill(PLAIN, &value).unwrap_or_default(), problem };
    match template {
        None => plain(None),
        Some(template) => match fill(template, &value) {
            Ok(markdown) => Report { markdown, problem: None },
            Err(name) => plain(Some(format!(
                "the template names `{{{name}}}`, which is no placeholder; known are {}",
                PLACEHOLDERS.join(", ")
            ))),
        },
    }
}

/// Replaces `{word}` by its value; braces around anything else are left alone. The error is the unknown word.
fn fill(template: &str, value: &impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once('{') {
        filled.push_str(before);
        let word = behind.split('}').next().unwrap_or_default();
        let is_word = !word.is_empty()
            && word.len() < behind.len()
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if is_word {
            // What is filled in is never looked through for placeholders again.
            filled.push_str(&value(word).ok_or_else(|| word.to_owned())?);
            rest = &behind[word.len() + 1..];
        } else {
            filled.push('{');
            rest = behind;
        }
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(info: &PackageInfo, contents: &PackageContents, name: &str) -> Option<String> {
    let (header, task) = (&info.header, &contents.task);
    let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
    let list = |text: String| or(&text, "None.\n");
    let bullet = |_| "- ".to_owned();
    let decided = || task.decisions.iter().map(|it| it.text.as_str());
    Some(match name {
        "id" => header.id.to_string(),
        "task" => task.goal.clone(),
        "project" => or(&header.project, "none"),
        "reason" => header.reason.clone(),
        "from" => or(&header.sender, &contents.created_by),
        "to" => header.recipient.as_ref().map_or_else(|| "anyone".into(), ToString::to_string),
        "session" => header.session.as_ref().map_or_else(|| "none".into(), ToString::to_string),
        "level" => header.level.as_str().to_owned(),
        "created_at" => rfc3339(header.created_at),
        "expires_at" => rfc3339(header.expires_at),
        "created_by" => contents.created_by.clone(),
        "source_phase" => or(&contents.source_phase, "none"),
        "target_phase" => or(&contents.target_phase, "none"),
        "standing" => standing(contents),
        "sub_goals" => lines(open(&task.sub_goals), bullet),
        "constraints" => list(lines(open(&task.constraints), bullet)),
        "decisions" => list(lines(decided(), bullet)),
        "open_items" => list(lines(open(&task.open_items), bullet)),
        "critical_facts" => list(lines(open(&task.critical_facts), bullet)),
        "next_steps" => list(lines(open(&task.next_steps), |number| format!("{number}. "))),
        "files" => list(lines(open(&task.files), bullet)),
        "task_queue" => list(waiting(contents)),
        // Its headings go below those of the report.
        "resumption_instructions" => below(&contents.resumption_instructions),
        "dropped" => dropped(contents),
        "tokens" => info.tokens().to_string(),
        "integrity" => integrity(info),
        _ => return None,
    })
}

/// A text of Markdown without its title, its headings two levels down.
fn below(text: &str) -> String {
    let body = match text.split_once('\n') {
        Some((title, body)) if title.starts_with("# ") => body,
        _ => text,
    };
    format!("\n{body}").replace("\n#", "\n##").trim_start().to_owned()
}

fn dropped(contents: &PackageContents) -> String {
    let talk = &contents.conversation;
    if talk.dropped.is_empty() && talk.partly.is_empty() && talk.must_keep_missing.is_empty() {
        return "Nothing.\n".to_owned();
    }
    let numbers = |entries: &[u64]| {
        let numbers: Vec<String> = entries.iter().map(ToString::to_string).collect();
        if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") }
    };
    let mut text = format!(
        "- Entries dropped: {}\n- Entries kept in part: {}\n- Entries kept: {}\n",
        numbers(&talk.dropped),
        numbers(&talk.partly),
        numbers(&talk.kept)
    );
    for missing in &talk.must_keep_missing {
        text += &format!("- Missing, although it must be kept: {missing}\n");
    }
    text
}

fn integrity(info: &PackageInfo) -> String {
    let name = info.signed_by.as_deref().unwrap_or("nobody who is trusted here");
    format!(
        "- SHA-256 of header and parts: `{}`\n- Signed by {name} (`{}`)\n- {} bytes\n",
        Hex(&info.checksum),
        info.signer,
        info.size_bytes
    )
}
