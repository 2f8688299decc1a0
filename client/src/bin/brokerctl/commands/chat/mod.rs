//! `chat`: a conversation in a session, line by line, whoever owns it.
//!
//! Each question is a consultation of the session; what was said is kept by the broker, so a chat can be left and come
//! back to, or gone on with by `consult --session`. Without a terminal it reads lines and shows no prompt.

mod line;
mod prompt;
mod verb;

use std::path::PathBuf;

use broker_client::{
    Client, NewSession, RestoreSession,
    layer::{Advice, advice},
};
use broker_proto::types::{
    ModelName, OnConflict, Role, SessionId, SessionInfo, SessionPoint, SessionUsage,
};

use self::{
    line::{Lines, Read},
    verb::{Asked, Line, Verb},
};
use super::{Interrupts, connect, consult, current, handoff, session};
use crate::{
    cli::{
        ChatArgs, ConsultArgs, ExecuteArgs, ExportFormat, Global, Misused, OfSession, QuestionArgs,
    },
    error,
    exit_code::Exit,
    output::{self, Format},
};

/// Versions of a session among which the one before its last question is looked for.
const LOOKED_AT: u32 = 1_000;
/// Handoffs that `/status` tells of.
const TOLD: u32 = 5;

/// Talks until the end of what is typed.
pub(crate) async fn run(global: &Global, args: ChatArgs) -> anyhow::Result<Exit> {
    if global.output == Format::Json {
        return Err(Misused::ChatIsText.into());
    }
    let model = args.model.as_deref().map(consult::input::model_name).transpose()?;
    let client = connect(global).await?;
    let (session, model) = begin(global, &client, args.session, model).await?;
    let lines = Lines::begin()?;
    let moves = args.handoff_enabled;
    let mut chat = Chat { global, client, session, model, moves, owner: None };
    chat.owned().await?;
    if lines.is_terminal() {
        output::note(&format!("session {}; /help lists what can be typed", chat.session));
    }
    chat.talk(&lines).await
}

/// The session that is talked in, and the model that is asked in place of its owner. One that is named and not there yet
/// begins, with that model as its owner.
async fn begin(
    global: &Global,
    client: &Client,
    named: Option<SessionId>,
    model: Option<ModelName>,
) -> anyhow::Result<(SessionId, Option<ModelName>)> {
    let known = current::known(global, client, named).await?;
    if let Some(id) = &known {
        match client.session(id, &SessionPoint::Head).await {
            Ok(_) => {
                current::remember(global, id);
                return Ok((id.clone(), model));
            }
            Err(err) if err.reason() == Some("UNKNOWN_SESSION") => {}
            Err(err) => return Err(err.into()),
        }
    }
    let new = NewSession { id: known, model, title: String::new() };
    let id = client.start_session(new).await?.id;
    output::note(&format!("session {id} (new)"));
    current::remember(global, &id);
    Ok((id, None))
}

/// One conversation.
struct Chat<'a> {
    global: &'a Global,
    client: Client,
    session: SessionId,
    /// Asked in place of the owner.
    model: Option<ModelName>,
    /// Whether the session is handed over where its window is full, before the next question.
    moves: bool,
    /// The owner that was told of last, and its epoch.
    owner: Option<(ModelName, u64)>,
}

impl Chat<'_> {
    async fn talk(&mut self, lines: &Lines) -> anyhow::Result<Exit> {
        let mut interrupts = Interrupts::listen()?;
        loop {
            let prompt = if lines.is_terminal() { self.prompt().await } else { String::new() };
            let read = tokio::select! {
                read = lines.next(prompt) => read,
                () = interrupts.next(), if !lines.is_terminal() => return Ok(Exit::Interrupted),
            };
            let line = match read {
                Read::Line(line) => line,
                Read::Dropped => continue,
                Read::End => return Ok(Exit::Done),
                Read::Failed(err) => return Err(err.into()),
            };
            let verb = match verb::read(&line) {
                Ok(Line::Empty) => continue,
                Ok(Line::Ask(question)) => {
                    tried(Box::pin(self.question(question)).await)?;
                    tried(self.owned().await)?;
                    continue;
                }
                Ok(Line::Verb(Verb::Quit)) => return Ok(Exit::Done),
                Ok(Line::Verb(verb)) => verb,
                Err(err) => {
                    output::note(&err.to_string());
                    continue;
                }
            };
            let done = Box::pin(self.carry_out(verb)).await;
            tried(done)?;
        }
    }

    async fn question(&self, question: String) -> anyhow::Result<()> {
        self.look_ahead().await?;
        self.ask(self.model.clone(), question, None).await
    }

    async fn ask(
        &self,
        model: Option<ModelName>,
        question: String,
        context: Option<PathBuf>,
    ) -> anyhow::Result<()> {
        let question = QuestionArgs {
            model: model.map(|model| model.to_string()),
            session: Some(self.session.clone()),
            question: Some(question),
            stdin: None,
            context,
            system: None,
            image: Vec::new(),
            no_fallback: false,
            deadline: None,
            max_cost: None,
            max_output_tokens: None,
            id: None,
        };
        let args = ConsultArgs { question, no_stream: false, restart: false, keep: false };
        // How it ended was told; the next line may be another question.
        consult::consult(self.global, args).await.map(|_| ())
    }

    /// Before a question: says when the session's window fills, and hands the session over where that was switched on.
    async fn look_ahead(&self) -> anyhow::Result<()> {
        let Some(usage) = self.usage().await? else { return Ok(()) };
        let full = || prompt::full(&usage);
        match advice(&usage) {
            Advice::Stay => {}
            Advice::Warn => output::note(&format!("{}: /handoff hands the session over", full())),
            Advice::Move if self.moves => {
                output::note(&format!("{}: handing the session over", full()));
                self.hand_over(None, &full()).await?;
            }
            Advice::Move => {
                let way =
                    "/handoff hands the session over, and chat --handoff-enabled does so itself";
                output::note(&format!("{}: {way}", full()));
            }
        }
        Ok(())
    }

    async fn usage(&self) -> anyhow::Result<Option<SessionUsage>> {
        match self.client.usage_status(Some(self.session.as_str())).await {
            Ok(status) => Ok(status.sessions.into_iter().next()),
            // Nothing was counted for it yet.
            Err(err) if err.reason() == Some("UNCOUNTED_SESSION") => Ok(None),
            Err(err) => Err(err.into()),
        }
    }

    async fn info(&self) -> anyhow::Result<SessionInfo> {
        Ok(self.client.session(&self.session, &SessionPoint::Head).await?.info)
    }

    /// Says who owns the session, once for each owner, and why it is another one.
    async fn owned(&mut self) -> anyhow::Result<()> {
        let info = self.info().await?;
        let now = (info.owner.model.clone(), info.owner.epoch);
        if let Some(before) = self.owner.replace(now.clone()).filter(|before| *before != now) {
            match info.handed_over {
                Some(over) => {
                    let why = self.client.handoff(over.handoff).await?.trigger;
                    let kind = why.kind.as_str();
                    let reason = why.reasoning;
                    output::note(&format!("{} → {}: {kind}: {reason}", before.0, now.0));
                }
                None => output::note(&format!("{} → {}", before.0, now.0)),
            }
        }
        Ok(())
    }

    async fn prompt(&self) -> String {
        let (usage, info) = tokio::join!(self.usage(), self.info());
        // A broker that is away is told of with the next question.
        let owner = info.ok().map(|info| info.owner.model);
        let asked = self.model.as_ref().or(owner.as_ref());
        prompt::line(asked, usage.ok().flatten().as_ref())
    }

    async fn hand_over(&self, to: Option<ModelName>, reason: &str) -> anyhow::Result<()> {
        let args = ExecuteArgs {
            of: OfSession { session: Some(self.session.clone()) },
            to,
            reason: reason.to_owned(),
            preserve: None,
            no_wait: false,
        };
        handoff::execute(self.global, args).await.map(|_| ())
    }

    async fn carry_out(&mut self, verb: Verb) -> anyhow::Result<()> {
        match verb {
            Verb::Handoff(to) => {
                self.hand_over(to, "").await?;
                // A model that was chosen for this chat would go on being asked.
                self.model = None;
                self.owned().await?;
            }
            Verb::Consult(model, question) => {
                self.ask(Some(model), question, Some(PathBuf::from("shared"))).await?;
            }
            Verb::Status => self.status().await?,
            Verb::Fork(id) => {
                let new = NewSession { id, ..NewSession::default() };
                let info =
                    self.client.fork_session(&self.session, &SessionPoint::Head, new).await?;
                output::note(&format!("session {}, a copy of {}", info.id, self.session));
                current::remember(self.global, &info.id);
                (self.session, self.owner) = (info.id, None);
                self.owned().await?;
            }
            Verb::Undo => self.undo().await?,
            Verb::Save(file) => {
                let file = file.unwrap_or_else(|| format!("{}.jsonl", self.session));
                let (at, format) = (SessionPoint::Head, ExportFormat::Jsonl);
                let file = PathBuf::from(file);
                session::transcript::export(&self.client, &self.session, &at, format, Some(&file))
                    .await?;
            }
            Verb::Model(Asked::Same) => match &self.model {
                Some(model) => output::note(&format!("{model} is asked; /model owner ends that")),
                None => {
                    let owner = self.info().await?.owner.model;
                    output::note(&format!("{owner} is asked, the session's owner"));
                }
            },
            Verb::Model(Asked::Owner) => self.model = None,
            Verb::Model(Asked::Model(model)) => self.choose(model).await?,
            Verb::Help => output::line(verb::HELP)?,
            Verb::Quit => {}
        }
        Ok(())
    }

    /// A model that nobody knows is refused now, and not with the next question.
    async fn choose(&mut self, model: ModelName) -> anyhow::Result<()> {
        let all = self.client.models().await?;
        if !all.iter().any(|known| known.name == model) {
            let known: Vec<&str> = all.iter().map(|known| known.name.as_str()).collect();
            output::note(&format!("there is no model {model}; there are {}", known.join(", ")));
            return Ok(());
        }
        output::note(&format!(
            "{model} is asked from now on; the session keeps its owner, /handoff {model} changes it"
        ));
        self.model = Some(model);
        Ok(())
    }

    async fn status(&self) -> anyhow::Result<()> {
        let info = self.info().await?;
        let owner = &info.owner;
        let agent = owner.agent.as_ref().map(|agent| format!("agent {agent}, "));
        let agent = agent.unwrap_or_default();
        output::line(&format!("session {}, {} entries", info.id, info.head.entries))?;
        output::line(&format!("owner {} ({agent}epoch {})", owner.model, owner.epoch))?;
        if let Some(usage) = self.usage().await? {
            output::line(&prompt::full(&usage))?;
            output::line(&format!("level {} {}", usage.level.level, usage.level.reason))?;
        }
        for handoff in handoff::moved::last_of(&self.client, &self.session, TOLD).await?.items {
            output::line(&handoff::moved::sentence(&handoff))?;
        }
        Ok(())
    }

    /// Back to the newest version that ends before the last question.
    async fn undo(&self) -> anyhow::Result<()> {
        let at = SessionPoint::Head;
        let info = self.info().await?;
        let entries = self.client.session_entries(&self.session, &at, 0, usize::MAX).await?;
        let asked = entries.iter().rev().find(|entry| entry.entry.role == Role::User);
        let Some(asked) = asked else {
            output::note("there is no question to take back");
            return Ok(());
        };
        let versions = self.client.session_versions(&self.session, LOOKED_AT, None).await?.items;
        let before = versions.iter().find(|version| version.head.entries <= asked.number);
        let Some(before) = before else {
            output::note("what was before the last question is not among its last 1,000 versions");
            return Ok(());
        };
        let restore = RestoreSession {
            to: SessionPoint::Version(before.version),
            expected_version: Some(info.version),
            on_conflict: OnConflict::default(),
            new_id: None,
        };
        let (restored, _) = self.client.restore_session(&self.session, restore).await?;
        let gone = info.head.entries.saturating_sub(restored.head.entries);
        output::note(&format!("{gone} entries taken back; `session log` still has them"));
        Ok(())
    }
}

/// What goes wrong with one line ends no chat, unless nobody reads it any more.
fn tried(done: anyhow::Result<()>) -> anyhow::Result<()> {
    match done {
        Err(err) if consult::is_output(&err) => Err(err),
        Err(err) => {
            output::note(&error::line(&err));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
