//! The current session: the one that a command is about when nobody names one.
//!
//! `BROKER_SESSION`, else the one that was last used from this folder, else a new one. What was last used is kept in the
//! user's state folder, a file for each folder and broker, so that no project folder gets a file it did not ask for.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use broker_client::{Client, NewSession};
use broker_proto::types::{SessionId, SessionPoint};

use crate::{
    cli::{Global, Misused},
    file::{self, Access},
    output,
};

/// What the environment names.
///
/// # Errors
/// [`Misused::SessionId`] when it is no session's id.
pub(crate) fn of_environment() -> Result<Option<SessionId>, Misused> {
    match std::env::var("BROKER_SESSION") {
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => SessionId::parse(&text).map(Some).map_err(|_| Misused::SessionId(text)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(text)) => {
            Err(Misused::SessionId(text.to_string_lossy().into_owned()))
        }
    }
}

/// The session that was named, else the current one, else a new one; stderr says which when nobody named it.
///
/// # Errors
/// When the broker cannot begin a new one.
pub(crate) async fn session(
    global: &Global,
    client: &Client,
    named: Option<SessionId>,
) -> anyhow::Result<SessionId> {
    if let Some(id) = known(global, client, named).await? {
        return Ok(id);
    }
    let id = client.start_session(NewSession::default()).await?.id;
    output::note(&format!("session {id} (new)"));
    remember(global, &id);
    Ok(id)
}

/// The same for what is of no use to a new session: none is begun.
///
/// # Errors
/// [`Misused::NoneUsed`] when no session was named and none was used from this folder.
pub(crate) async fn needed(
    global: &Global,
    client: &Client,
    named: Option<SessionId>,
) -> anyhow::Result<SessionId> {
    Ok(known(global, client, named).await?.ok_or(Misused::NoneUsed)?)
}

/// The same for what needs no session: none is begun.
///
/// # Errors
/// When the broker cannot say whether the last one is still there.
pub(crate) async fn known(
    global: &Global,
    client: &Client,
    named: Option<SessionId>,
) -> anyhow::Result<Option<SessionId>> {
    if named.is_some() {
        return Ok(named);
    }
    if let Some(id) = of_environment()? {
        output::note(&format!("session {id} (from BROKER_SESSION)"));
        return Ok(Some(id));
    }
    if let Some(id) = last(global) {
        match client.session(&id, &SessionPoint::Head).await {
            Ok(_) => {
                output::note(&format!("session {id} (last used from this folder)"));
                return Ok(Some(id));
            }
            // Deleted meanwhile, or another broker's.
            Err(err) if err.reason() == Some("UNKNOWN_SESSION") => {}
            Err(err) => return Err(err.into()),
        }
    }
    Ok(None)
}

/// From now on this is the one last used from this folder. Where it cannot be kept, the next command says so by
/// beginning another.
pub(crate) fn remember(global: &Global, id: &SessionId) {
    if let Some(file) = path(global)
        && last(global).as_ref() != Some(id)
        && let Err(err) = write(&file, id)
    {
        output::note(&format!("cannot remember the session in {}: {err}", file.display()));
    }
}

fn last(global: &Global) -> Option<SessionId> {
    let text = fs::read_to_string(path(global)?).ok()?;
    SessionId::parse(text.trim()).ok()
}

fn write(file: &Path, id: &SessionId) -> io::Result<()> {
    let folder = file.parent().ok_or(io::ErrorKind::NotFound)?;
    fs::create_dir_all(folder)?;
    file::replace(file, format!("{id}\n"), Access::AsBefore)
}

/// `$XDG_STATE_HOME/brokerctl/sessions/...`, else below `$HOME/.local/state`.
fn path(global: &Global) -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    let broker = global.endpoint().ok()?;
    let socket = std::path::absolute(broker.socket()).ok()?;
    let name = format!("{}\n{}", here.display(), socket.display());
    let name = broker_proto::ContentHash::of(name.as_bytes()).to_string();
    Some(state_folder()?.join("sessions").join(name.get(..32)?))
}

/// Where what this user did is kept: `$XDG_STATE_HOME/brokerctl`, else below `$HOME/.local/state`.
pub(crate) fn state_folder() -> Option<PathBuf> {
    let folder = |name: &str| {
        let path = PathBuf::from(std::env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let state = folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("brokerctl"))
}
