//! `session task ...`: what a session is about.

use broker_proto::types::{PendingSubagent, SessionId, SessionPoint, SessionTask, TaskEdit};

use super::{chosen, json, show};
use crate::{
    cli::{Global, TaskVerb},
    commands::{connect, consult::input::from_stdin},
    exit_code::Exit,
    output::{self, Format},
};

/// Runs one verb.
pub(super) async fn run(
    global: &Global,
    session: Option<SessionId>,
    verb: TaskVerb,
) -> anyhow::Result<Exit> {
    let edit = edit(verb)?;
    let client = connect(global).await?;
    let id = chosen(global, &client, session).await?;
    let Some(edit) = edit else {
        let task = client.session(&id, &SessionPoint::Head).await?.task;
        match global.output {
            Format::Json => output::json(&json::task(&task))?,
            Format::Text => show::task(&task)?,
        }
        return Ok(Exit::Done);
    };
    let added = match &edit {
        TaskEdit::Add { list, text, .. } => Some((*list, text.clone())),
        _ => None,
    };
    let (info, task) = client.edit_session_task(&id, vec![edit]).await?;
    let item = added.and_then(|(list, text)| find(&task, list, &text));
    match (global.output, item) {
        (Format::Json, item) => {
            let mut json = json::info(&info);
            json["task"] = json::task(&task);
            json["item"] = item.into();
            output::json(&json)?;
        }
        (Format::Text, Some(item)) => output::line(&item.to_string())?,
        (Format::Text, None) => output::note(&format!("session {id} is at v{}", info.version)),
    }
    Ok(Exit::Done)
}

fn find(task: &SessionTask, list: broker_proto::types::TaskList, text: &str) -> Option<u32> {
    task.list(list).iter().find(|item| item.text == text).map(|item| item.id)
}

/// What a verb changes; nothing when it shows.
fn edit(verb: TaskVerb) -> anyhow::Result<Option<TaskEdit>> {
    Ok(Some(match verb {
        TaskVerb::Show => return Ok(None),
        TaskVerb::Set { field: _, text } => TaskEdit::SetGoal(from_stdin(text)?.trim().to_owned()),
        TaskVerb::Progress { share } => TaskEdit::SetProgress(share),
        TaskVerb::Add { list, text, entry } => {
            TaskEdit::Add { list, text: from_stdin(text)?.trim().to_owned(), entry }
        }
        TaskVerb::Done { list, item, undo } => TaskEdit::Done { list, id: item, is_done: !undo },
        TaskVerb::Remove { list, item } => TaskEdit::Remove { list, id: item },
        TaskVerb::Subagent { subagent, remove: true, .. } => TaskEdit::RemoveSubagent(subagent),
        TaskVerb::Subagent { subagent, kind, model, status, description, remove: false } => {
            TaskEdit::SetSubagent(PendingSubagent {
                id: subagent,
                kind,
                model,
                status,
                description,
            })
        }
    }))
}
