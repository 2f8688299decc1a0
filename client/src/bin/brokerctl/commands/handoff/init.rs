//! `handoff init`: finds models, writes the user's own file, and ends as `handoff check` does.

mod found;
mod settings;

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use broker_client::{Client, SessionFilter};
use broker_config::{Config, Endpoint, Loader, PathError, Paths, Thresholds};
use broker_proto::types::{HandoffCheck, ModelInfo, SessionId};
use serde_json::{Value, json};

use self::found::Candidate;
use super::check;
use crate::{
    cli::{Global, InitArgs, user_file},
    commands::{consult, current, up},
    exit_code::Exit,
    file::{self, Access},
    output::{self, Format},
};

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "`{}` is there already{}: --force replaces it and keeps it as `{}`, --print only shows what would be written",
        path.display(), problem.as_ref().map(|it| format!(", and cannot be read ({it})")).unwrap_or_default(),
        kept(path).display()
    )]
    Exists { path: PathBuf, problem: Option<String> },
    #[error(
        "cannot write `{}`; name another folder with XDG_CONFIG_HOME, or give what --print shows to `up` with --config",
        path.display()
    )]
    Write { path: PathBuf, source: io::Error },
}

pub(super) async fn run(global: &Global, args: InitArgs) -> anyhow::Result<Exit> {
    let path = user_file().ok_or(PathError::NoConfigHome)?;
    if !args.print && !args.force {
        refuse_existing(&path)?;
    }
    // A file that is to be replaced may be wrong, and must not stand in the way of that.
    let mut config = global.loaded_without_users(Loader::new().local())?;
    if let Ok(host) = std::env::var("OLLAMA_HOST") {
        config.models = up::with_ollama_at(&config.models, &host)?;
    }
    let endpoint = endpoint(global, &config)?;
    let broker = Client::connect(&broker_client::Endpoint::unix(endpoint.socket())).await.ok();
    let models = found::look(&config, &served(broker.as_ref()).await).await;
    let now = output::rfc3339(consult::now()).unwrap_or_default();
    let text = settings::text(&models, now.get(..10).unwrap_or_default());
    let mut made = Made { path, text, kept: None, models, endpoint };
    if args.print {
        made.print(global.output)?;
        return Ok(Exit::Done);
    }
    made.kept = write(&made.path, &made.text)?;
    made.show(global.output)?;
    let session = match &broker {
        Some(client) => session(global, client, args.session).await?,
        None => None,
    };
    let check = match (&broker, &session) {
        (Some(client), Some(session)) => checked(client, session).await?,
        _ => None,
    };
    if global.output == Format::Json {
        output::json(&made.json(broker.is_some(), check.as_ref()))?;
    }
    made.say(global.output, broker.is_some(), session.as_ref(), check.as_ref())?;
    Ok(check.as_ref().map_or(Exit::Done, check::exit))
}

/// What was found and written.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    text: String,
    /// Where the file is that was there before.
    kept: Option<PathBuf>,
    models: Vec<Candidate>,
    endpoint: Endpoint,
}

impl Made {
    /// The file alone, so that it can be written elsewhere.
    fn print(&self, format: Format) -> anyhow::Result<()> {
        match format {
            Format::Json => {
                let mut json = self.json(false, None);
                json["written"] = json!(false);
                json["text"] = json!(self.text);
                output::json(&json)?;
            }
            Format::Text => {
                output::text(&self.text)?;
                output::note(&format!(
                    "nothing was written; without --print this is {}",
                    self.path.display()
                ));
            }
        }
        Ok(())
    }

    fn show(&self, format: Format) -> anyhow::Result<()> {
        if format == Format::Text {
            let rows = self.models.iter().map(|model| {
                let state = if model.is_found { "found" } else { "missing" };
                [
                    model.name.clone(),
                    model.provider.clone(),
                    format!("{state}: {}", model.detail),
                    model.remedy.clone().unwrap_or_default(),
                ]
            });
            output::line(&output::table(["MODEL", "PROVIDER", "FOUND", "REMEDY"], rows))?;
            output::line(&format!("wrote {}", self.path.display()))?;
        }
        if let Some(kept) = &self.kept {
            output::note(&format!("what was there before is {}", kept.display()));
        }
        if let Some(advice) = advice(&settings::receivers(&self.models)) {
            output::note(&advice);
        }
        Ok(())
    }

    /// How it ends: as a check, or with what comes next.
    fn say(
        &self,
        format: Format,
        is_running: bool,
        session: Option<&Asked>,
        check: Option<&HandoffCheck>,
    ) -> anyhow::Result<()> {
        if !is_running {
            output::note(&format!("no broker answers at {}", self.endpoint));
            output::note(&format!("next: {}", self.next(false)));
            return Ok(());
        }
        output::note(
            "it counts from the next `brokerctl up`; in the running broker `brokerctl handoff config` and `brokerctl handoff models` set the same at once",
        );
        if format == Format::Json {
            return Ok(());
        }
        let line = match (session, check) {
            (_, Some(check)) => check::words(check),
            (Some(asked), None) => {
                format!("nothing to hand off: session {} has used nothing yet", asked.name())
            }
            (None, None) => {
                "nothing to hand off: there is no session yet; `brokerctl chat` begins one"
                    .to_owned()
            }
        };
        output::line(&line)?;
        Ok(())
    }

    /// What is typed next.
    fn next(&self, is_running: bool) -> &'static str {
        match (is_running, settings::receivers(&self.models).is_empty()) {
            (true, _) => "brokerctl handoff check",
            (false, false) => "brokerctl up",
            (false, true) => "brokerctl up --simulated",
        }
    }

    fn json(&self, is_running: bool, check: Option<&HandoffCheck>) -> Value {
        let models = self.models.iter().map(|model| {
            json!({
                "model": model.name,
                "provider": model.provider,
                "found": model.is_found,
                "detail": model.detail,
                "remedy": model.remedy,
            })
        });
        json!({
            "file": self.path.display().to_string(),
            "written": true,
            "backup": self.kept.as_ref().map(|path| path.display().to_string()),
            "models": models.collect::<Vec<_>>(),
            "receivers": settings::receivers(&self.models),
            "fallback": settings::fallback(&self.models).map(|model| &model.name),
            "session_warning": Thresholds::default().session_warning,
            "session_switch": Thresholds::default().session_switch,
            "broker": is_running.then(|| self.endpoint.to_string()),
            "check": check.map(check::json_of),
            "next": self.next(is_running),
        })
    }
}

/// What stands in the way of any handoff.
fn advice(receivers: &[&str]) -> Option<String> {
    match receivers {
        [] => Some(
            "no model was found: set ANTHROPIC_API_KEY or OPENAI_API_KEY, or install Ollama (https://ollama.com), \
             `ollama pull` its model and start it; then `brokerctl handoff init --force`. `brokerctl up --simulated` needs none."
                .to_owned(),
        ),
        [only] => Some(format!(
            "`{only}` alone has nobody to hand a session to: a handoff needs a second model"
        )),
        _ => None,
    }
}

/// # Errors
/// [`Error::Exists`], with what is wrong with the file where something is.
fn refuse_existing(path: &Path) -> Result<(), Error> {
    // A link that leads nowhere is somebody's, too.
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    let problem = Loader::new().local().user(Some(path.to_owned())).load().err();
    let problem = problem.map(|err| output::sentence(&anyhow::Error::new(err)));
    Err(Error::Exists { path: path.to_owned(), problem })
}

/// Where a file that is replaced stays.
fn kept(path: &Path) -> PathBuf {
    path.with_extension("toml.bak")
}

/// Writes the file in one step, with its folder; gives where the one before is.
fn write(path: &Path, text: &str) -> Result<Option<PathBuf>, Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let before = match fs::read(path) {
        Ok(before) => Some(before),
        Err(err) if err.kind() == io::ErrorKind::NotFound => None,
        Err(err) => return Err(failed(err)),
    };
    let kept = before.as_ref().map(|_| kept(path));
    if let (Some(before), Some(kept)) = (before, &kept) {
        file::replace(kept, before, Access::AsBefore).map_err(failed)?;
    }
    file::replace(path, text, Access::AsBefore).map_err(failed)?;
    Ok(kept)
}

/// Where a broker would answer, though the user's file cannot be read.
fn endpoint(global: &Global, config: &Config) -> anyhow::Result<Endpoint> {
    match global.endpoint() {
        Err(err) if err.is::<broker_config::Error>() => Ok(Endpoint::Unix(
            Paths::resolve(&config.broker, |name| std::env::var_os(name))?.socket,
        )),
        endpoint => endpoint,
    }
}

/// What a running broker says of its models; nothing when it says nothing.
async fn served(broker: Option<&Client>) -> Vec<ModelInfo> {
    match broker {
        Some(client) => client.models().await.unwrap_or_default(),
        None => Vec::new(),
    }
}

/// The session that is checked.
#[derive(Debug)]
enum Asked {
    /// It was named: what is unknown of it is an error.
    Named(String),
    /// It was looked up.
    Known(SessionId),
}

impl Asked {
    fn name(&self) -> &str {
        match self {
            Self::Named(name) => name,
            Self::Known(id) => id.as_str(),
        }
    }
}

/// The one that was named, else the current one, else the one that changed last.
async fn session(
    global: &Global,
    client: &Client,
    named: Option<String>,
) -> anyhow::Result<Option<Asked>> {
    if let Some(name) = named {
        return Ok(Some(Asked::Named(name)));
    }
    if let Some(id) = current::known(global, client, None).await? {
        return Ok(Some(Asked::Known(id)));
    }
    let newest = SessionFilter { page_size: 1, ..SessionFilter::default() };
    let newest = client.sessions(newest).await?.items.into_iter().next();
    Ok(newest.map(|session| Asked::Known(session.id)))
}

/// None when nothing was counted for it yet.
async fn checked(client: &Client, session: &Asked) -> anyhow::Result<Option<HandoffCheck>> {
    match client.check_handoff(session.name(), false).await {
        Ok(check) => Ok(Some(check)),
        Err(err)
            if matches!(session, Asked::Known(_)) && err.reason() == Some("UNCOUNTED_SESSION") =>
        {
            Ok(None)
        }
        Err(err) => Err(err.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_with_its_folder_and_the_one_before_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/model-broker/config.toml");
        assert_eq!(write(&path, "a = 1\n").unwrap(), None);
        let kept = write(&path, "a = 2\n").unwrap().unwrap();
        assert_eq!(kept, path.with_file_name("config.toml.bak"));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!((read(&path).as_str(), read(&kept).as_str()), ("a = 2\n", "a = 1\n"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_is_there_is_refused_with_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        refuse_existing(&path).unwrap();
        fs::write(&path, "[routing]\n").unwrap();
        let said = refuse_existing(&path).unwrap_err().to_string();
        assert!(said.contains("there already: --force"), "{said}");
        fs::write(&path, "[routing\n").unwrap();
        let said = refuse_existing(&path).unwrap_err().to_string();
        assert!(said.contains("config.toml:1:") && said.contains("--force"), "{said}");
    }

    #[test]
    fn one_model_has_nobody_to_hand_over_to() {
        assert!(advice(&[]).unwrap().contains("ANTHROPIC_API_KEY"));
        assert!(advice(&["opus"]).unwrap().contains("second model"));
        assert_eq!(advice(&["opus", "local"]), None);
    }
}
