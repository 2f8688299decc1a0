//! `session ...`: conversations that the broker keeps.

mod context;
pub(crate) mod json;
mod pause;
pub(crate) mod render;
mod show;
mod task;
pub(crate) mod transcript;

use std::io::{self, IsTerminal as _};

use broker_client::{Client, NewSession, RestoreSession, SessionFilter};
use broker_proto::types::{
    AgentName, Entry, EntryKind, ModelName, NewSessionEntry, Part, Role, SessionId, SessionInfo,
    SessionOutcome, SessionPoint,
};

use super::{connect, consult, current};
use crate::{
    cli::{
        AppendArgs, ConflictArgs, Global, Misused, SessionArgs, SessionCommand, SpeakerRole, Which,
        session_id,
    },
    exit_code::Exit,
    output::{self, Format},
};

/// Runs a session command.
pub(crate) async fn run(global: &Global, args: SessionArgs) -> anyhow::Result<Exit> {
    let SessionArgs { session, command } = args;
    let named = |which: Which| one(which.id, session.clone());
    match command {
        SessionCommand::New { id, model, title } => {
            let new = NewSession { id: one(id, session)?, model: model_name(model)?, title };
            begun(global, &connect(global).await?.start_session(new).await?)
        }
        SessionCommand::Append(args) => append(global, session, args).await,
        SessionCommand::Show { which, at, last } => {
            let client = connect(global).await?;
            let id = chosen(global, &client, named(which)?).await?;
            show::session(global, &client, &id, &at.at, last).await
        }
        SessionCommand::List { model, limit, page } => {
            let model = model_name(model)?;
            let filter = SessionFilter { model, page_size: limit, page_token: page };
            show::list(global, &connect(global).await?.sessions(filter).await?)?;
            Ok(Exit::Done)
        }
        SessionCommand::Log { which, limit, page } => {
            let client = connect(global).await?;
            let id = chosen(global, &client, named(which)?).await?;
            let versions = client.session_versions(&id, limit, page).await?;
            show::log(global, &id, &versions)?;
            Ok(Exit::Done)
        }
        SessionCommand::Task(verb) => task::run(global, session, verb).await,
        SessionCommand::Fork { which, at, model, new_id: id, title } => {
            let client = connect(global).await?;
            let origin = chosen(global, &client, named(which)?).await?;
            let new = NewSession { id, model: model_name(model)?, title };
            begun(global, &client.fork_session(&origin, &at.at, new).await?)
        }
        SessionCommand::Restore { which, to, expect, conflict } => {
            let client = connect(global).await?;
            let id = chosen(global, &client, named(which)?).await?;
            restore(global, &client, &id, (to, expect), conflict).await
        }
        SessionCommand::Diff { one, other } => {
            let client = connect(global).await?;
            let diff = client.diff_sessions((&one.0, &one.1), (&other.0, &other.1)).await?;
            show::diff(global, &diff)?;
            Ok(Exit::Done)
        }
        SessionCommand::Render(args) => {
            let named = named(args.which.clone())?;
            render::run(global, named, args).await
        }
        SessionCommand::Import { file, model, title, conflict } => {
            let import = broker_client::ImportSession {
                id: session,
                entries: transcript::read(&file)?,
                model: model_name(model)?,
                title,
                on_conflict: conflict.on_conflict.into(),
                new_id: conflict.new_id,
            };
            let (info, outcome) = connect(global).await?.import_session(import).await?;
            ended(global, &info, outcome)
        }
        SessionCommand::Export { which, at, format, file } => {
            let client = connect(global).await?;
            let id = chosen(global, &client, named(which)?).await?;
            transcript::export(&client, &id, &at.at, format, file.as_deref()).await
        }
        SessionCommand::Pause { which, reason } => {
            let client = connect(global).await?;
            let id = chosen(global, &client, named(which)?).await?;
            pause::pause(global, &client, &id, &reason).await
        }
        SessionCommand::Verify { which } => {
            let client = connect(global).await?;
            let id = chosen(global, &client, named(which)?).await?;
            pause::verify(global, &client, &id).await
        }
        SessionCommand::Resume { which, package, force } => {
            let client = connect(global).await?;
            let id = match (named(which)?, package) {
                (None, Some(_)) => None,
                (named, _) => Some(current::session(global, &client, named).await?),
            };
            pause::resume(global, &client, (id, package), force).await
        }
        SessionCommand::Transfer { which, to, reason, no_wait } => {
            let to = AgentName::parse(&to).map_err(|_| Misused::AgentName(to))?;
            let client = connect(global).await?;
            let id = chosen(global, &client, named(which)?).await?;
            pause::transfer(global, &client, (&id, &to, &reason), no_wait).await
        }
        SessionCommand::Delete { id, yes } => {
            let id = one(id, session)?.ok_or(Misused::NoSession)?;
            delete(global, &id, yes).await
        }
        SessionCommand::Context(verb) => context::run(global, session, verb).await,
    }
}

/// The session that was named once, or twice alike.
fn one(word: Option<SessionId>, flag: Option<SessionId>) -> Result<Option<SessionId>, Misused> {
    match (word, flag) {
        (Some(word), Some(flag)) if word != flag => Err(Misused::TwoSessions),
        (word, flag) => Ok(word.or(flag)),
    }
}

/// The session that a command is about; from now on it is the one last used from here.
async fn chosen(
    global: &Global,
    client: &Client,
    named: Option<SessionId>,
) -> anyhow::Result<SessionId> {
    let is_named = named.is_some();
    let id = current::session(global, client, named).await?;
    if is_named {
        // Only one that is there is worth remembering.
        client.session(&id, &SessionPoint::Head).await?;
        current::remember(global, &id);
    }
    Ok(id)
}

/// A model as people write it.
pub(crate) fn model_name(text: Option<String>) -> Result<Option<ModelName>, Misused> {
    text.map(|text| consult::input::model_name(&text)).transpose()
}

/// A session that has begun: its id for people, all of it for programs.
fn begun(global: &Global, info: &SessionInfo) -> anyhow::Result<Exit> {
    current::remember(global, &info.id);
    match global.output {
        Format::Text => output::line(info.id.as_str())?,
        Format::Json => output::json(&json::info(info))?,
    }
    Ok(Exit::Done)
}

/// What came of restoring or importing: the id of the session that has it now.
pub(crate) fn ended(
    global: &Global,
    info: &SessionInfo,
    outcome: SessionOutcome,
) -> anyhow::Result<Exit> {
    current::remember(global, &info.id);
    let entries = count(info.head.entries);
    let said = match outcome {
        SessionOutcome::Done => format!("session {}: {entries}", info.id),
        SessionOutcome::Unchanged => format!("session {} has all of it already", info.id),
        SessionOutcome::Kept => {
            format!("session {} went on meanwhile and is kept as it is", info.id)
        }
        SessionOutcome::Replaced => {
            format!("session {}: {entries}; what it had is in `session log`", info.id)
        }
        SessionOutcome::Forked => format!("session {} begins with it: {entries}", info.id),
    };
    output::note(&said);
    match global.output {
        Format::Text => output::line(info.id.as_str())?,
        Format::Json => {
            let mut json = json::info(info);
            json["outcome"] = outcome.as_str().into();
            output::json(&json)?;
        }
    }
    Ok(Exit::Done)
}

fn count(entries: u64) -> String {
    if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") }
}

async fn restore(
    global: &Global,
    client: &Client,
    id: &SessionId,
    (to, expect): (SessionPoint, Option<u64>),
    conflict: ConflictArgs,
) -> anyhow::Result<Exit> {
    let expected = match expect {
        Some(version) => version,
        // What comes between this look and the next call is seen by nobody.
        None => client.session(id, &SessionPoint::Head).await?.info.version,
    };
    let restore = RestoreSession {
        to,
        expected_version: Some(expected),
        on_conflict: conflict.on_conflict.into(),
        new_id: conflict.new_id,
    };
    let (info, outcome) = client.restore_session(id, restore).await?;
    ended(global, &info, outcome)
}

async fn append(
    global: &Global,
    session: Option<SessionId>,
    args: AppendArgs,
) -> anyhow::Result<Exit> {
    let AppendArgs { words, role, name, model, file, expect_head } = args;
    let (word, text) = match (words.len(), &file) {
        (0, Some(_)) => (None, None),
        (1, Some(_)) => (words.first().cloned(), None),
        (1, None) => (None, words.first().cloned()),
        (2, None) => (words.first().cloned(), words.last().cloned()),
        _ => return Err(Misused::AppendWhat.into()),
    };
    let word = word.map(|word| session_id(&word).map_err(|_| Misused::SessionId(word)));
    let named = one(word.transpose()?, session)?;
    // Files and stdin are read on this thread: nothing else runs until they are there.
    let part = match (text, file) {
        (Some(text), _) => Part::Text(consult::input::from_stdin(text)?),
        (None, Some(file)) => consult::input::part_of_file(&file)?,
        (None, None) => return Err(Misused::AppendWhat.into()),
    };
    if matches!(&part, Part::Text(text) if text.trim().is_empty()) {
        return Err(Misused::AppendWhat.into());
    }
    let entry = Entry { role: role_of(role), name, parts: vec![part] };
    let said = NewSessionEntry {
        kind: EntryKind::Turn,
        entry,
        model: model_name(model)?,
        created_at: Some(consult::now()),
    };
    let client = connect(global).await?;
    let id = chosen(global, &client, named).await?;
    let (info, number) = client.append_entries(&id, vec![said], expect_head).await?;
    match global.output {
        Format::Text => output::line(&number.to_string())?,
        Format::Json => {
            let mut json = json::info(&info);
            json["number"] = number.into();
            output::json(&json)?;
        }
    }
    Ok(Exit::Done)
}

fn role_of(role: SpeakerRole) -> Role {
    match role {
        SpeakerRole::System => Role::System,
        SpeakerRole::User => Role::User,
        SpeakerRole::Assistant => Role::Assistant,
        SpeakerRole::Tool => Role::Tool,
    }
}

async fn delete(global: &Global, id: &SessionId, yes: bool) -> anyhow::Result<Exit> {
    let client = connect(global).await?;
    let info = client.session(id, &SessionPoint::Head).await?.info;
    if !yes {
        if !io::stdin().is_terminal() {
            return Err(Misused::DeleteUnasked.into());
        }
        let entries = count(info.head.entries);
        output::mutter(&format!("delete session {id} with {entries} for good? [y/N] "));
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            output::note("nothing was deleted");
            return Ok(Exit::Failed);
        }
    }
    client.delete_session(id).await?;
    match global.output {
        Format::Text => output::line(id.as_str())?,
        Format::Json => output::json(&serde_json::json!({ "id": id.as_str(), "deleted": true }))?,
    }
    Ok(Exit::Done)
}
